//! What a client sees while pods come and go.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::ResourceExt;
use serin_testbed::load::Load;
use serin_testbed::{World, deployment, route, wait};

use crate::*;

pub(crate) async fn split(world: &World) -> Result<()> {
    world.namespace("split").await?;
    for version in ["v1", "v2"] {
        world
            .apply(&deployment("split", version, version, 2))
            .await?;
    }
    world
        .apply(&route(
            "split",
            "shop",
            "split.test",
            &[("v1", 80), ("v2", 20)],
        ))
        .await?;
    rollout(world, "split", "v1").await?;
    rollout(world, "split", "v2").await?;
    served(world, "split.test").await?;
    let counts = load_for(world, "split.test", 200, Duration::from_secs(5)).await;
    ensure!(counts.failed() == 0, "{:?}", counts.by_version_and_status());
    ensure!(
        counts.total() == 1000,
        "1000 requests were due, {} sent",
        counts.total()
    );
    let v2 = counts.to("v2");
    ensure!((180..=220).contains(&v2), "20 % of 1000 is not {v2}");

    // What the client saw is what Prometheus has, once it has scraped it.
    let series =
        r#"sum by(service)(traefik_service_requests_total{service=~"httproute-split-.*"})"#;
    let all = format!("sum({series})");
    // (The requests of `served` are in it too.)
    wait(
        "Prometheus to hold all of it",
        Duration::from_secs(10),
        || async { Ok(query(world, &all).await? > 1000.0) },
    )
    .await?;
    let of_v2 = query(
        world,
        r#"sum(traefik_service_requests_total{service=~".*-svc-split-v2-.*"})"#,
    )
    .await?;
    ensure!(
        of_v2 >= v2 as f64 && of_v2 < v2 as f64 + 20.0,
        "{v2} at the client, {of_v2} in Prometheus"
    );
    Ok(())
}

pub(crate) async fn scale_and_delete(world: &World) -> Result<()> {
    one(world, "scale", "v1", 2).await?;
    let load = Load::new("scale.test", RATE).start(world.gateway_addr());
    kubectl(world, "-n scale scale deployment app --replicas=4").await?;
    rollout(world, "scale", "app").await?;
    ensure!(pods(world, "scale").await?.len() == 4);
    let old: Vec<String> = pods(world, "scale")
        .await?
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    kubectl(world, "-n scale delete pod --wait=false --all").await?;
    let listed = kubectl(world, "-n scale get pods").await?;
    ensure!(listed.contains("Terminating"), "{listed}");
    wait(
        "new pods in the place of the old",
        Duration::from_secs(20),
        || async {
            let now = pods(world, "scale").await?;
            Ok(now.len() == 4
                && now
                    .iter()
                    .all(|pod| ready(pod) && !old.contains(&pod.name_any())))
        },
    )
    .await?;
    kubectl(world, "-n scale scale deployment app --replicas=1").await?;
    wait("one pod to be left", Duration::from_secs(20), || async {
        Ok(pods(world, "scale").await?.len() == 1)
    })
    .await?;
    lost_nothing(load.stop().await)
}

pub(crate) async fn rolling_update(world: &World) -> Result<()> {
    one(world, "rolling", "v1", 3).await?;
    let load = Load::new("rolling.test", 200).start(world.gateway_addr());
    tokio::time::sleep(Duration::from_secs(1)).await;
    kubectl(world, "-n rolling set image deployment/app app=shop/app:v2").await?;
    rollout(world, "rolling", "app").await?;
    wait("the old pods to go", Duration::from_secs(20), || async {
        Ok(pods(world, "rolling").await?.len() == 3)
    })
    .await?;
    let replaced = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counts = load.stop().await;
    ensure!(
        counts.requests_since("v1", replaced) == 0,
        "the old version still answers"
    );
    ensure!(
        counts.to("v1") > 0 && counts.requests_since("v2", replaced) > 100,
        "{:?}",
        counts.by_version()
    );
    lost_nothing(counts)
}

pub(crate) async fn error_rate(world: &World) -> Result<()> {
    one(world, "errors", "v1", 2).await?;
    let counts = load_for(world, "errors.test", RATE, Duration::from_secs(2)).await;
    lost_nothing(counts)?;
    kubectl(world, "-n errors set env deployment/app ERROR_RATE=20%").await?;
    rollout(world, "errors", "app").await?;
    wait("the old pods to go", Duration::from_secs(20), || async {
        Ok(pods(world, "errors").await?.len() == 2)
    })
    .await?;
    let counts = load_for(world, "errors.test", 200, Duration::from_secs(3)).await;
    ensure!(
        (110..=130).contains(&counts.failed()),
        "20 % of 600 are not {}",
        counts.failed()
    );
    let statuses = counts.by_version_and_status();
    ensure!(
        statuses
            .keys()
            .all(|(version, status)| version == "v1" && [200, 500].contains(status)),
        "{statuses:?}"
    );
    Ok(())
}

pub(crate) async fn graceful_end(world: &World) -> Result<()> {
    one(world, "graceful", "v1-latency300ms", 2).await?;
    let load = Load::new("graceful.test", RATE).start(world.gateway_addr());
    tokio::time::sleep(Duration::from_secs(1)).await;
    kubectl(world, "-n graceful rollout restart deployment app").await?;
    rollout(world, "graceful", "app").await?;
    wait("the old pods to go", Duration::from_secs(20), || async {
        Ok(pods(world, "graceful").await?.len() == 2)
    })
    .await?;
    let counts = load.stop().await;
    let median = counts.latency(0.5).context("answers")?;
    ensure!(median >= Duration::from_millis(300), "{median:?}");
    lost_nothing(counts)
}

pub(crate) async fn rude_end(world: &World) -> Result<()> {
    one(world, "rude", "v1-latency300ms-rude", 2).await?;
    let load = Load::new("rude.test", RATE).start(world.gateway_addr());
    tokio::time::sleep(Duration::from_secs(1)).await;
    kubectl(world, "-n rude delete pod --all").await?;
    wait("new pods", Duration::from_secs(20), || async {
        let now = pods(world, "rude").await?;
        Ok(now.len() == 2 && now.iter().all(ready))
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let healed = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counts = load.stop().await;
    ensure!(
        counts.failed() > 0,
        "requests on their way were lost, and nobody saw it"
    );
    ensure!(
        counts.transport_errors() == 0,
        "the gateway itself answers: {:?}",
        counts.errors()
    );
    let after = counts
        .requests()
        .filter(|request| request.sent >= healed && request.failed())
        .count();
    ensure!(after == 0, "{after} requests failed on the new pods");
    Ok(())
}

pub(crate) async fn nobody(world: &World) -> Result<()> {
    one(world, "nobody", "v1", 1).await?;
    kubectl(world, "-n nobody scale deployment app --replicas=0").await?;
    wait("the gateway's 502", Duration::from_secs(10), || async {
        let answer = world.get("nobody.test", "/", &[]).await?;
        Ok(answer.status == 502 && answer.version.is_none())
    })
    .await
}

pub(crate) async fn hang(world: &World) -> Result<()> {
    one(world, "hang", "v1", 1).await?;
    kubectl(
        world,
        "-n hang set image deployment/app app=shop/app:v1-hang",
    )
    .await?;
    rollout(world, "hang", "app").await?;
    wait("the old pod to go", Duration::from_secs(20), || async {
        Ok(pods(world, "hang").await?.len() == 1)
    })
    .await?;
    let load = Load {
        timeout: Duration::from_millis(500),
        bound: Duration::from_secs(1),
        ..Load::new("hang.test", 20)
    };
    let counts = load.start(world.gateway_addr()).finish().await;
    ensure!(
        counts.transport_errors() == 20,
        "{:?}",
        counts.by_version_and_status()
    );
    Ok(())
}
