//! `kill -9` in the middle of a release, at each step: the same end, no step skipped.

use crate::shop::Shop;
use crate::{Run, Stage, tests};
use anyhow::{Result, ensure};
use serde_json::json;
use serin::api::Phase;
use std::time::Duration;

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![killed_at_each_step]
}

async fn killed_at_each_step(stage: &Stage) -> Result<()> {
    let shop = Shop::open(stage, "killed").await?;
    // A second Canary in the middle of a release: each must be taken up again, not only the first.
    let other = Shop::open(stage, "killed-too").await?;
    other.canary(json!([{"headers": [{"name": "x-canary", "value": "true"}], "approval": true}, {"weight": 50}]), json!({})).await?;
    other.target("api-v2").await?;
    let steps = json!([
        {"headers": [{"name": "x-canary", "value": "true"}], "hold": "12s"},
        {"weight": 10, "hold": "2s"},
        {"weight": 30, "hold": "2s"},
        {"weight": 60, "hold": "2s"},
    ]);
    shop.canary(steps, json!({})).await?;
    shop.serves().await?;
    let traffic = shop.traffic(100, &[])?;
    shop.target("api-v2").await?;
    for step in 1..=4 {
        let text = format!("{step}/4");
        shop.wait(&text, 20, |s| s.step.as_deref() == Some(&text))
            .await?;
        stage.operator.kill();
        tokio::time::sleep(Duration::from_millis(700)).await;
        let dead = shop.status().await?.step;
        ensure!(
            dead.as_deref() == Some(&text),
            "{dead:?} while the operator is dead"
        );
        stage.operator.start()?;
        if step == 1 {
            crate::testers::only_testers(&shop).await?;
        }
    }
    let revision = other
        .wait("waiting", 20, |s| s.phase == Phase::WaitingForApproval)
        .await?
        .revision;
    other
        .annotate(
            "serin.dev/approve",
            &format!("{}/1", revision.unwrap_or_default()),
        )
        .await?;
    other.at_weight(50, 20).await?;
    other.close().await?;
    let status = shop.promoted(60).await?;
    let weights: Vec<u8> = status
        .release
        .iter()
        .flat_map(|r| &r.timeline)
        .map(|p| p.weight)
        .collect();
    let mut each = weights.clone();
    each.dedup();
    ensure!(each == [0, 10, 30, 60, 100], "{weights:?}");
    ensure!(status.history.len() == 1, "{:?}", status.history);
    let counts = traffic.stop().await;
    ensure!(counts.failed() == 0, "{} requests failed", counts.failed());
    let promoted = stage
        .receiver
        .wait("killed", "Promoted", Duration::from_secs(10))
        .await;
    ensure!(promoted.is_ok(), "no alert of the promotion");
    shop.close().await
}
