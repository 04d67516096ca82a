//! A good version is promoted without a failed request; a bad one is taken back within seconds.

use crate::shop::Shop;
use crate::{Run, Stage, tests};
use anyhow::{Context, Result, ensure};
use chrono::Utc;
use serde_json::json;
use serin::analysis::{ErrorLimits, Window, advance, judge_error_rate};
use serin::api::{ArmCounts, Backend, CanaryStatus, Phase, RouteKind, Verdict};
use serin::metrics::{Prometheus, RouteTarget, profile};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![
        good_version_is_promoted,
        bad_version_is_taken_back,
        default_canary_works,
        by_hand,
        refused_route_is_taken_back
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

/// Looks at Prometheus much more often than the operator does, and says when it first held the evidence.
async fn evidence(prometheus: String, namespace: &'static str) -> Result<Instant> {
    let backend = |name: &str| Backend {
        group: String::new(),
        kind: "Service".into(),
        name: name.into(),
        namespace: Some(namespace.into()),
        port: 8080,
    };
    let target = RouteTarget {
        kind: RouteKind::HTTPRoute,
        namespace: namespace.into(),
        name: "api".into(),
        stable: backend("api-v1"),
        canary: backend("api-v2"),
        skip_rules: Vec::new(),
    };
    let profile = profile(testbed::GATEWAY_CONTROLLER).context("no profile")?;
    let prometheus = Prometheus::new(&prometheus, Duration::from_secs(2))?;
    let limits = ErrorLimits {
        max: Some(0.05),
        max_ratio: Some(1.25),
    };
    let (mut counters, mut check) = (None, None);
    loop {
        let answer = prometheus.query(&profile.requests(&target), None).await?;
        let reading = profile.read(&target, &answer, Utc::now())?;
        let (next, delta) = advance(counters.as_ref(), &reading);
        counters = Some(next);
        if delta != ArmCounts::default() {
            let window = Window {
                delta,
                share: 0.1,
                baseline: None,
            };
            let judged = judge_error_rate(&limits, check.as_ref(), &window, Utc::now());
            if judged.verdict == Verdict::Harm {
                return Ok(Instant::now());
            }
            check = Some(judged);
        }
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
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
    let evidence = tokio::spawn(evidence(stage.world.prometheus_url(), "bad"));
    tokio::time::sleep(Duration::from_secs(2)).await;
    shop.target("api-v2").await?;
    shop.at_weight(10, 10).await?;
    while shop.route_spec().await? != before {
        ensure!(
            traffic.counts().total() < 200 * 60,
            "not taken back within a minute"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let off = Instant::now();
    let took = off.saturating_duration_since(evidence.await??);
    println!("weight 0 on the route {took:?} after Prometheus held the evidence");
    // One analysis interval (1s) and two seconds.
    ensure!(took <= Duration::from_secs(3), "it took {took:?}");
    shop.wait("at rest", 15, |s| s.phase == Phase::RolledBack)
        .await?;
    ensure!(
        shop.route_spec().await? == before,
        "the route is not as it was"
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counts = traffic.stop().await;
    // The data plane gathers changes for 200ms before it acts on them.
    let late = counts.requests_since("v2-error20", off + Duration::from_millis(1500));
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
    the_alert_is_what_was_promised(&shop, &status).await?;
    let table = shop.kubectl(&["get", "canary", "api"]).await?;
    ensure!(
        table.contains("RolledBack") && table.contains("failed requests"),
        "{table}"
    );
    let told = shop.kubectl(&["describe", "canary", "api"]).await?;
    ensure!(
        told.contains("Warning  RolledBack"),
        "no event RolledBack:\n{told}"
    );
    shop.close().await
}

async fn the_alert_is_what_was_promised(shop: &Shop<'_>, status: &CanaryStatus) -> Result<()> {
    let receiver = &shop.stage.receiver;
    let (headers, alert) = receiver
        .wait("bad", "RolledBack", Duration::from_secs(10))
        .await?;
    ensure!(
        headers
            .get("authorization")
            .is_some_and(|v| v == "Bearer change-me"),
        "{headers:?}"
    );
    let release = status.release.as_ref().context("no release in status")?;
    let check = release.checks.first().context("no check in status")?;
    let counts = check.counts.context("no counts in status")?;
    let expected = json!({
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Alert",
        "id": alert["id"],
        "event": "RolledBack",
        "time": alert["time"],
        "canary": {"namespace": "bad", "name": "api"},
        "revision": release.revision,
        "message": release.reason,
        "check": {
            "name": "errorRate",
            "value": check.value,
            "limit": check.limit,
            "canary": counts.canary,
            "stable": counts.stable,
        },
    });
    ensure!(alert == expected, "{alert}\nexpected\n{expected}");
    ensure!(
        headers
            .get("idempotency-key")
            .is_some_and(|key| alert["id"] == key.to_str().unwrap_or("")),
        "{headers:?}"
    );
    chrono::DateTime::parse_from_rfc3339(alert["time"].as_str().unwrap_or_default())?;
    let all = receiver.got("bad");
    let count = all
        .iter()
        .filter(|(_, alert)| alert["event"] == "RolledBack")
        .count();
    ensure!(count == 1, "{count} alerts of one rollback");
    Ok(())
}

/// A parent that refuses what it is given is believed at once: a Service of another namespace that no
/// ReferenceGrant allows.
async fn refused_route_is_taken_back(stage: &Stage) -> Result<()> {
    let shop = Shop::open(stage, "refuses").await?;
    let other = Shop::open_with(stage, "refuses-other", &[("api-v2", "v2")], |_| {}).await?;
    shop.canary(json!([{"weight": 10, "hold": "30s"}]), json!({}))
        .await?;
    shop.serves().await?;
    let before = shop.route_spec().await?;
    let backend = json!({"name": "api-v2", "namespace": "refuses-other", "port": 8080});
    shop.patch(json!({"target": {"backend": backend}})).await?;
    let status = shop
        .wait("rolled back", 30, |s| s.phase == Phase::RolledBack)
        .await?;
    ensure!(
        status.message.contains("RefNotPermitted"),
        "{}",
        status.message
    );
    ensure!(
        shop.route_spec().await? == before,
        "the route is not as it was"
    );
    other.close().await?;
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
