//! A good version is promoted without a failed request; a bad one is taken back within seconds.

use crate::shop::Shop;
use crate::{Run, Stage, tests};
use anyhow::{Result, ensure};
use serde_json::json;
use serin::api::{Phase, Verdict};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![
        good_version_is_promoted,
        bad_version_is_taken_back,
        default_canary_works,
        by_hand
    ]
}

async fn good_version_is_promoted(stage: &Stage) -> Result<()> {
    let shop = Shop::open(stage, "good").await?;
    shop.canary(
        json!([{"weight": 10, "hold": "3s"}, {"weight": 50, "hold": "3s"}]),
        json!({}),
    )
    .await?;
    shop.serves().await?;
    let traffic = shop.traffic(200, &[])?;
    shop.target("api-v2").await?;
    shop.at_weight(10, 10).await?;
    shop.at_weight(50, 20).await?;
    let waited = shop
        .kubectl(&[
            "wait",
            "--for=condition=Promoted",
            "--timeout=60s",
            "canary/api",
        ])
        .await?;
    ensure!(waited.contains("condition met"), "{waited}");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let counts = traffic.stop().await;
    ensure!(
        counts.failed() == 0,
        "{} of {} requests failed: {counts:?}",
        counts.failed(),
        counts.total()
    );
    ensure!(counts.to("v2") > 100, "v2 got {}", counts.to("v2"));
    let table = shop.kubectl(&["get", "canary", "api"]).await?;
    ensure!(
        table.contains("Promoted") && table.contains("NoHarm"),
        "{table}"
    );
    let told = shop.kubectl(&["describe", "canary", "api"]).await?;
    for event in ["Started", "StepReached", "Promoted"] {
        ensure!(told.contains(event), "no event {event}:\n{told}");
    }
    let (_, alert) = stage
        .receiver
        .wait("good", "Promoted", Duration::from_secs(10))
        .await?;
    ensure!(
        alert["canary"] == json!({"namespace": "good", "name": "api"}),
        "{alert}"
    );
    shop.close().await
}

async fn bad_version_is_taken_back(stage: &Stage) -> Result<()> {
    let shop = Shop::open_with(
        stage,
        "bad",
        &[("api-v1", "v1"), ("api-v2", "v2-error20")],
        |_| {},
    )
    .await?;
    shop.canary(
        json!([{"weight": 10, "hold": "30s"}, {"weight": 50, "hold": "30s"}]),
        json!({}),
    )
    .await?;
    shop.serves().await?;
    let before = shop.route_spec().await?;
    let traffic = shop.traffic(200, &[])?;
    shop.target("api-v2").await?;
    shop.at_weight(10, 10).await?;
    let status = shop
        .wait("rolled back", 30, |s| {
            matches!(s.phase, Phase::RollingBack | Phase::RolledBack)
        })
        .await?;
    let decided = Instant::now();
    // Evidence stands in Prometheus at the latest one scrape (1s) after the requests; the interval is 1s.
    let took = status
        .release
        .as_ref()
        .map(|r| r.step.entered_at - r.started_at)
        .unwrap_or_default();
    ensure!(took.num_seconds() <= 15, "the verdict took {took}");
    shop.wait("at rest", 15, |s| s.phase == Phase::RolledBack)
        .await?;
    ensure!(
        shop.route_spec().await? == before,
        "the route is not as it was"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counts = traffic.stop().await;
    let late = counts.requests_since("v2-error20", decided + Duration::from_millis(1500));
    ensure!(
        late == 0,
        "{late} requests reached the bad version after it was taken back"
    );
    let status = shop.status().await?;
    ensure!(
        status.verdict == Some(Verdict::Harm),
        "{:?}",
        status.verdict
    );
    ensure!(
        status.message.contains("failed requests"),
        "{}",
        status.message
    );
    let (headers, alert) = stage
        .receiver
        .wait("bad", "RolledBack", Duration::from_secs(10))
        .await?;
    ensure!(
        headers
            .get("authorization")
            .is_some_and(|v| v == "Bearer change-me"),
        "{headers:?}"
    );
    ensure!(
        alert["check"]["name"] == "errorRate" && alert["check"]["limit"].is_string(),
        "{alert}"
    );
    ensure!(
        alert["check"]["value"]
            .as_str()
            .is_some_and(|v| v.ends_with('%')),
        "{alert}"
    );
    let rolled_back = stage
        .receiver
        .got("bad")
        .iter()
        .filter(|(_, a)| a["event"] == "RolledBack")
        .count();
    ensure!(rolled_back == 1, "{rolled_back} alerts of one rollback");
    shop.close().await
}

/// The smallest Canary is a target and a route.
async fn default_canary_works(stage: &Stage) -> Result<()> {
    let shop = Shop::open(stage, "small").await?;
    let canary = json!({
        "apiVersion": "serin.dev/v1alpha1", "kind": "Canary",
        "metadata": {"name": "api", "namespace": "small"},
        "spec": {"target": {"backend": {"name": "api-v1", "port": 8080}}, "routes": [{"kind": "HTTPRoute", "name": "api"}]},
    });
    stage.world.apply(&canary.to_string()).await?;
    shop.wait("at rest", 20, |s| s.phase == Phase::Idle).await?;
    shop.target("api-v2").await?;
    let status = shop.at_weight(5, 10).await?;
    ensure!(status.step.as_deref() == Some("1/3"), "{:?}", status.step);
    shop.close().await
}

/// Approve, abort, retry, promote, each bound to the revision.
async fn by_hand(stage: &Stage) -> Result<()> {
    let shop = Shop::open(stage, "hand").await?;
    shop.canary(
        json!([{"weight": 20, "approval": true}, {"weight": 50, "hold": "5m"}]),
        json!({}),
    )
    .await?;
    shop.serves().await?;
    let traffic = shop.traffic(50, &[])?;
    shop.target("api-v2").await?;
    let status = shop
        .wait("waiting for approval", 30, |s| {
            s.phase == Phase::WaitingForApproval
        })
        .await?;
    let revision = status.revision.unwrap_or_default();
    ensure!(
        status
            .message
            .contains(&format!("serin.dev/approve={revision}/1")),
        "{}",
        status.message
    );
    shop.annotate("serin.dev/approve", "something-else/1")
        .await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    ensure!(
        shop.status().await?.phase == Phase::WaitingForApproval,
        "a stale approval was obeyed"
    );
    shop.kubectl(&[
        "annotate",
        "canary",
        "api",
        "--overwrite",
        &format!("serin.dev/approve={revision}/1"),
    ])
    .await?;
    shop.at_weight(50, 10).await?;
    shop.annotate("serin.dev/abort", &revision).await?;
    shop.wait("aborted", 15, |s| s.phase == Phase::Aborted)
        .await?;
    ensure!(
        stage
            .receiver
            .wait("hand", "Aborted", Duration::from_secs(10))
            .await
            .is_ok(),
        "no alert of the abort"
    );
    shop.annotate("serin.dev/retry", &revision).await?;
    shop.at_weight(20, 10).await?;
    shop.annotate("serin.dev/promote", &revision).await?;
    shop.promoted(20).await?;
    let left = shop
        .canaries()
        .get("api")
        .await?
        .metadata
        .annotations
        .unwrap_or_default();
    ensure!(
        !left.keys().any(|key| key.starts_with("serin.dev/")),
        "annotations are left: {left:?}"
    );
    let counts = traffic.stop().await;
    ensure!(
        counts.failed() == 0,
        "{} requests failed: {counts:?}",
        counts.failed()
    );
    shop.close().await
}
