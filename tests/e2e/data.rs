//! No evidence is not success: whatever is wrong with Prometheus, the release holds, says so, and goes on after.

use crate::shop::Shop;
use crate::{Run, Stage, tests};
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use testbed::Component;

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![
        prometheus_is_gone_for_a_minute,
        odd_answers_hold_and_then_it_goes_on
    ]
}

async fn prometheus_is_gone_for_a_minute(stage: &Stage) -> Result<()> {
    let shop = Shop::open(stage, "blind").await?;
    shop.canary(json!([{"weight": 20, "hold": "5s"}]), json!({}))
        .await?;
    shop.serves().await?;
    let traffic = shop.traffic(50, &[])?;
    shop.target("api-v2").await?;
    shop.at_weight(20, 15).await?;
    stage.world.stop(Component::Prometheus).await?;
    shop.wait("held", 20, |s| s.message.contains("held"))
        .await?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let status = shop.status().await?;
    ensure!(
        status.weight == Some(20) && status.message.contains("held"),
        "{:?} {}",
        status.phase,
        status.message
    );
    stage
        .receiver
        .wait("blind", "DataLost", Duration::from_secs(5))
        .await?;
    stage.world.start_again(Component::Prometheus).await?;
    shop.promoted(60).await?;
    let counts = traffic.stop().await;
    ensure!(counts.failed() == 0, "{} requests failed", counts.failed());
    shop.close().await
}

/// Queries that answer oddly until a moment, and well after it.
async fn odd_answers_hold_and_then_it_goes_on(stage: &Stage) -> Result<()> {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map(|d| d.as_secs())
            .unwrap_or(0)
    };
    let odd = |until: u64| {
        [
            (
                "empty",
                format!("vector(1) and on() (vector(time()) > {until})"),
                "no series",
            ),
            (
                "nan",
                format!("vector(0) / (vector(time()) > bool {until})"),
                "NaN",
            ),
            (
                "several",
                format!(
                    "label_replace(vector(1), \"a\", \"1\", \"\", \"\") or (label_replace(vector(1), \"a\", \"2\", \"\", \"\") and on() (vector(time()) <= {until}))"
                ),
                "2 series",
            ),
        ]
    };
    let shop = Shop::open(stage, "odd").await?;
    shop.serves().await?;
    let traffic = shop.traffic(50, &[])?;
    let mut target = "api-v2";
    for (name, ..) in odd(0) {
        let until = now() + 14;
        let (_, query, said) = odd(until)
            .into_iter()
            .find(|(n, ..)| *n == name)
            .unwrap_or_default();
        let metric = json!({"name": name, "query": query, "max": "5"});
        let analysis = json!({"metrics": [metric], "interval": "1s"});
        let serving = if target == "api-v2" {
            "api-v1"
        } else {
            "api-v2"
        };
        let spec =
            json!({"analysis": analysis, "target": {"backend": {"name": serving, "port": 8080}}});
        if name == "empty" {
            shop.canary(json!([{"weight": 20, "hold": "1s"}]), spec)
                .await?;
        } else {
            shop.patch(json!({"analysis": {"metrics": [metric]}}))
                .await?;
        }
        shop.target(target).await?;
        let held = shop
            .wait("held", 12, |s| s.message.contains("held"))
            .await?;
        ensure!(held.message.contains(said), "{name}: {}", held.message);
        shop.promoted(30).await?;
        ensure!(now() > until, "{name}: promoted without evidence");
        target = serving;
    }
    // A text is no number, at any time: that is said before anything begins.
    shop.patch(
        json!({"analysis": {"metrics": [{"name": "text", "query": "\"words\"", "max": "5"}]}}),
    )
    .await?;
    shop.target(target).await?;
    let said = shop
        .wait("refused", 15, |s| s.message.contains("answers a string"))
        .await?;
    ensure!(said.weight == Some(0), "{:?}", said.weight);
    let counts = traffic.stop().await;
    ensure!(counts.failed() == 0, "{} requests failed", counts.failed());
    shop.close().await
}
