//! The parts: who may do what, and how they go and come back.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serin_testbed::load::Load;
use serin_testbed::{Component, World, wait};

use crate::*;

pub(crate) async fn service_account(world: &World) -> Result<()> {
    world.namespace("account").await?;
    wait(
        "the namespace's own ServiceAccount",
        Duration::from_secs(10),
        || async { Ok(world.kubeconfig_for("account", "default").await.is_ok()) },
    )
    .await?;
    let kubeconfig = world.kubeconfig_for("account", "default").await?;
    let refused = tokio::process::Command::new(world.kubectl())
        .args(["--kubeconfig", &kubeconfig.to_string_lossy(), "get", "pods"])
        .output()
        .await?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        said.contains("system:serviceaccount:account:default") && said.contains("forbidden"),
        "{said}"
    );
    let error = world
        .kubeconfig_for("account", "nobody")
        .await
        .err()
        .context("a token for nobody")?;
    ensure!(format!("{error:#}").contains("account/nobody"), "{error:#}");
    Ok(())
}

pub(crate) async fn prometheus(world: &World) -> Result<()> {
    let before = query(world, "sum(traefik_service_requests_total)").await?;
    ensure!(before > 0.0);
    world.stop(Component::Prometheus).await?;
    ensure!(
        query(world, "vector(1)").await.is_err(),
        "it answers after its end"
    );
    world.start_again(Component::Prometheus).await?;
    wait("its series again", Duration::from_secs(10), || async {
        Ok(query(world, "sum(traefik_service_requests_total)").await? >= before)
    })
    .await?;
    let kept = query(
        world,
        "count(count_over_time(traefik_config_reloads_total[1m]))",
    )
    .await?;
    ensure!(kept >= 1.0);
    world.pause(Component::Prometheus)?;
    let asked = tokio::time::timeout(Duration::from_millis(500), query(world, "vector(1)")).await;
    world.resume(Component::Prometheus)?;
    ensure!(asked.is_err(), "it answers while it is paused");
    ensure!((query(world, "vector(1)").await? - 1.0).abs() < f64::EPSILON);
    Ok(())
}

pub(crate) async fn api_server(world: &World) -> Result<()> {
    one(world, "restart", "v1", 2).await?;
    let load = Load::new("restart.test", RATE).start(world.gateway_addr());
    world.kill(Component::ApiServer)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(
        kubectl(world, "get nodes").await.is_err(),
        "it answers after its end"
    );
    world.start_again(Component::ApiServer).await?;
    // The node, the proxy, the controllers and the gateway find it again.
    kubectl(world, "-n restart set image deployment/app app=shop/app:v2").await?;
    rollout(world, "restart", "app").await?;
    wait("the old pods to go", Duration::from_secs(20), || async {
        Ok(pods(world, "restart").await?.len() == 2)
    })
    .await?;
    lost_nothing(load.stop().await)?;
    // Deleted and made again under its old name.
    kubectl(world, "delete namespace restart --wait=false").await?;
    one(world, "restart", "v3", 1).await?;
    wait("the new version", Duration::from_secs(10), || async {
        Ok(world
            .get("restart.test", "/", &[])
            .await?
            .version
            .as_deref()
            == Some("v3"))
    })
    .await
}

pub(crate) async fn gateway(world: &World) -> Result<()> {
    one(world, "gateway", "v1", 1).await?;
    let load = Load::new("gateway.test", RATE).start(world.gateway_addr());
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.kill(Component::Gateway)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.start_again(Component::Gateway).await?;
    served(world, "gateway.test").await?;
    let counts = load.stop().await;
    ensure!(
        counts.transport_errors() > 20,
        "a gateway that is away answers nobody: {:?}",
        counts.by_version_and_status()
    );
    Ok(())
}

pub(crate) async fn process(world: &World) -> Result<()> {
    let shell = |script: &str| {
        world.spawn(
            "shell",
            Path::new("sh"),
            ["-c", script],
            &[("WORD", "hello")],
        )
    };
    let mut process = shell("echo $WORD; exec sleep 60")?;
    let said =
        || async { Ok(std::fs::read_to_string(world.dir().join("shell.log"))?.contains("hello")) };
    wait("its word", Duration::from_secs(5), said).await?;
    process.pause()?;
    process.resume()?;
    process.alive()?;
    let id = process.id();
    process.kill();
    ensure!(
        !Path::new(&format!("/proc/{id}")).exists(),
        "{id} is still there"
    );
    let status = shell("trap 'exit 3' TERM; while :; do sleep 0.1; done")?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let status = status.stop(Duration::from_secs(5)).await?;
    ensure!(status.code() == Some(3), "{status}");
    Ok(())
}
