//! What people do in the middle of a release, with both versions healthy: no request fails.

use crate::shop::{Shop, canonical};
use crate::{Run, Stage, tests};
use anyhow::{Result, ensure};
use serde_json::json;
use serin::api::{Outcome, Phase};

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![
        revision_revert_plan_and_deletion_midway,
        paused_midway,
        route_put_back_at_rest
    ]
}

async fn revision_revert_plan_and_deletion_midway(stage: &Stage) -> Result<()> {
    let versions = [("api-v1", "v1"), ("api-v2", "v2"), ("api-v3", "v3")];
    let shop = Shop::open_with(stage, "midway", &versions, |_| {}).await?;
    shop.canary(json!([{"weight": 30, "hold": "1m"}]), json!({}))
        .await?;
    shop.serves().await?;
    let original = shop.route_spec().await?;
    let traffic = shop.traffic(100, &[])?;

    // A new revision: traffic is off the one before, then the newest starts over.
    shop.target("api-v2").await?;
    shop.at_weight(30, 15).await?;
    shop.target("api-v3").await?;
    let status = shop
        .wait("on v3", 20, |s| {
            s.revision
                .as_deref()
                .is_some_and(|r| r.starts_with("api-v3"))
                && s.weight == Some(30)
        })
        .await?;
    ensure!(
        status.history[0].outcome == Outcome::Superseded,
        "{:?}",
        status.history
    );

    // An edit of the plan counts from the next release.
    shop.patch(json!({"steps": [{"weight": 60, "hold": "1m"}]}))
        .await?;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    ensure!(
        shop.status().await?.weight == Some(30),
        "an edited plan was followed at once"
    );
    shop.annotate("serin.dev/replan", &shop.revision().await?)
        .await?;
    shop.at_weight(60, 10).await?;

    // A revert.
    shop.target("api-v1").await?;
    shop.wait("back at rest", 15, |s| s.phase == Phase::Idle)
        .await?;
    ensure!(
        canonical(&shop.route_spec().await?) == canonical(&original),
        "a revert left something"
    );

    // A deletion.
    shop.target("api-v2").await?;
    shop.at_weight(60, 15).await?;
    shop.kubectl(&["delete", "canary", "api", "--timeout=30s"])
        .await?;
    ensure!(
        canonical(&shop.route_spec().await?) == canonical(&original),
        "a deletion left something"
    );
    let counts = traffic.stop().await;
    ensure!(
        counts.failed() == 0,
        "{} of {} requests failed: {counts:?}",
        counts.failed(),
        counts.total()
    );
    shop.close().await
}

async fn paused_midway(stage: &Stage) -> Result<()> {
    let shop = Shop::open(stage, "paused").await?;
    shop.canary(json!([{"weight": 20, "hold": "2s"}]), json!({}))
        .await?;
    shop.serves().await?;
    let traffic = shop.traffic(50, &[])?;
    shop.target("api-v2").await?;
    shop.at_weight(20, 15).await?;
    shop.patch(json!({"paused": true})).await?;
    shop.wait("paused", 10, |s| s.phase == Phase::Paused)
        .await?;
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    ensure!(shop.status().await?.phase == Phase::Paused, "it went on");
    shop.patch(json!({"paused": false})).await?;
    shop.promoted(20).await?;
    let counts = traffic.stop().await;
    ensure!(counts.failed() == 0, "{} requests failed", counts.failed());
    shop.close().await
}

/// A GitOps tool puts the route back at rest, to the backend before: that is kept, and told once.
async fn route_put_back_at_rest(stage: &Stage) -> Result<()> {
    let shop = Shop::open(stage, "contested").await?;
    shop.canary(json!([{"weight": 50}]), json!({})).await?;
    shop.serves().await?;
    let before = shop.route_spec().await?;
    let traffic = shop.traffic(50, &[])?;
    shop.target("api-v2").await?;
    shop.promoted(20).await?;
    let patch = kube::api::Patch::Merge(json!({"spec": before}));
    shop.routes()
        .patch("api", &kube::api::PatchParams::default(), &patch)
        .await?;
    stage
        .receiver
        .wait(
            "contested",
            "RouteContested",
            std::time::Duration::from_secs(10),
        )
        .await?;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let status = shop.status().await?;
    ensure!(
        shop.route_spec().await? == before,
        "it was not kept: {}",
        status.message
    );
    shop.annotate("serin.dev/retry", &status.revision.unwrap_or_default())
        .await?;
    shop.wait("released again", 20, |s| {
        s.history.len() == 2 && s.phase == Phase::Promoted
    })
    .await?;
    let told = stage.receiver.got("contested");
    let contested = told
        .iter()
        .filter(|(_, alert)| alert["event"] == "RouteContested")
        .count();
    ensure!(contested == 1, "told {contested} times");
    let counts = traffic.stop().await;
    ensure!(counts.failed() == 0, "requests failed: {counts:?}");
    shop.close().await
}
