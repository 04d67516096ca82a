//! What kubectl shows of pods that fare ill, or well.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serin_testbed::load::Load;
use serin_testbed::{World, deployment, wait};

use crate::*;

pub(crate) async fn crash_loop(world: &World) -> Result<()> {
    one(world, "crash", "v1", 1).await?;
    let load = Load::new("crash.test", RATE).start(world.gateway_addr());
    kubectl(
        world,
        "-n crash set image deployment/app app=shop/app:v2-crash",
    )
    .await?;
    wait("restarts", Duration::from_secs(20), || async {
        let listed = kubectl(world, "-n crash get pods").await?;
        let restarts = listed
            .lines()
            .filter(|line| line.contains("0/1") && line.contains("CrashLoopBackOff"));
        Ok(restarts
            .filter_map(|line| line.split_whitespace().nth(3)?.parse::<u32>().ok())
            .any(|count| count >= 2))
    })
    .await?;
    // The version before serves on.
    let counts = load.stop().await;
    ensure!(counts.to("v2-crash") == 0);
    lost_nothing(counts)
}

pub(crate) async fn missing_image(world: &World) -> Result<()> {
    one(world, "image", "v1", 1).await?;
    kubectl(
        world,
        "-n image set image deployment/app app=shop/app:v2-nopull",
    )
    .await?;
    wait("ImagePullBackOff", Duration::from_secs(10), || async {
        Ok(kubectl(world, "-n image get pods")
            .await?
            .contains("ImagePullBackOff"))
    })
    .await
}

pub(crate) async fn readiness(world: &World) -> Result<()> {
    world.namespace("ready").await?;
    let begun = Instant::now();
    world
        .apply(&deployment("ready", "app", "v1-start1s-ready2s", 1))
        .await?;
    wait("ContainerCreating", Duration::from_secs(5), || async {
        Ok(kubectl(world, "-n ready get pods")
            .await?
            .contains("ContainerCreating"))
    })
    .await?;
    wait(
        "a running pod that is not ready",
        Duration::from_secs(5),
        || async {
            let listed = kubectl(world, "-n ready get pods").await?;
            Ok(listed.contains("0/1") && listed.contains("Running"))
        },
    )
    .await?;
    rollout(world, "ready", "app").await?;
    ensure!(
        begun.elapsed() >= Duration::from_secs(3),
        "ready after {:?}",
        begun.elapsed()
    );
    Ok(())
}

pub(crate) async fn job(world: &World) -> Result<()> {
    world.namespace("job").await?;
    let job = "apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: job}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: app, image: 'shop/app:v1'}]
";
    world.apply(job).await?;
    kubectl(
        world,
        "-n job wait --for=condition=Complete job/once --timeout=20s",
    )
    .await?;
    let listed = kubectl(world, "-n job get pods").await?;
    ensure!(listed.contains("Completed"), "{listed}");
    Ok(())
}

pub(crate) async fn unreadable(world: &World) -> Result<()> {
    one(world, "unreadable", "v1", 1).await?;
    kubectl(world, "-n unreadable set env deployment/app LATENCY=slow").await?;
    wait("the status to say it", Duration::from_secs(10), || async {
        let yaml = kubectl(world, "-n unreadable get pods -o yaml").await?;
        Ok(yaml.contains("CreateContainerConfigError") && yaml.contains("LATENCY=\"slow\""))
    })
    .await
}
