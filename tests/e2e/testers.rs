//! Requests with a header reach the canary whatever its weight is, and others never do.

use crate::shop::Shop;
use crate::{Run, Stage, tests};
use anyhow::{Result, ensure};
use serde_json::json;
use std::time::Duration;

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![header_testers]
}

async fn header_testers(stage: &Stage) -> Result<()> {
    let shop = Shop::open(stage, "testers").await?;
    let steps = json!([
        {"headers": [{"name": "x-canary", "value": "true"}], "approval": true},
        {"weight": 50, "approval": true},
    ]);
    shop.canary(steps, json!({})).await?;
    shop.serves().await?;
    shop.target("api-v2").await?;
    let revision = shop
        .wait("at step 1", 15, |s| s.step.as_deref() == Some("1/2"))
        .await?
        .revision
        .unwrap_or_default();
    only_testers(&shop).await?;

    // Someone removes the rule by hand: it is put back.
    shop.routes()
        .patch(
            "api",
            &kube::api::PatchParams::default(),
            &kube::api::Patch::Json::<()>(serde_json::from_value(
                json!([{"op": "remove", "path": "/spec/rules/1"}]),
            )?),
        )
        .await?;
    only_testers(&shop).await?;

    shop.annotate("serin.dev/approve", &format!("{revision}/1"))
        .await?;
    shop.at_weight(50, 15).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (with, without) = both(&shop).await?;
    ensure!(
        with.to("v1") == 0 && with.to("v2") > 20,
        "testers beside a weight: {with:?}"
    );
    ensure!(
        without.to("v1") > 20 && without.to("v2") > 20,
        "others beside a weight: {without:?}"
    );
    shop.close().await
}

async fn both(shop: &Shop<'_>) -> Result<(testbed::load::Counts, testbed::load::Counts)> {
    let with = shop.traffic(50, &[("x-canary", "true")])?;
    let without = shop.traffic(50, &[("x-other", "true")])?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok((with.stop().await, without.stop().await))
}

pub async fn only_testers(shop: &Shop<'_>) -> Result<()> {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (with, without) = both(shop).await?;
    ensure!(
        with.failed() == 0 && without.failed() == 0,
        "requests failed: {with:?} {without:?}"
    );
    ensure!(
        with.to("v1") == 0 && with.to("v2") > 20,
        "testers: {with:?}"
    );
    ensure!(
        without.to("v2") == 0 && without.to("v1") > 20,
        "others: {without:?}"
    );
    Ok(())
}
