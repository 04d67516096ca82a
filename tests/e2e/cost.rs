//! What a release costs the API server, by its own audit log.

use crate::shop::Shop;
use crate::{Run, Stage, tests};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![writes_of_a_release_and_requests_at_rest]
}

const OPERATOR: &str = "system:serviceaccount:serin-system:serin";

/// Requests of the operator since a place in the audit log, by verb and resource; watches left out.
fn requests(log: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in log.lines() {
        let Ok(entry) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let ours = entry["user"]["username"] == OPERATOR && entry["stage"] == "ResponseComplete";
        let verb = entry["verb"].as_str().unwrap_or_default();
        if !ours || verb == "watch" {
            continue;
        }
        let resource = entry["objectRef"]["resource"].as_str().unwrap_or_default();
        let part = entry["objectRef"]["subresource"]
            .as_str()
            .map(|s| format!("/{s}"))
            .unwrap_or_default();
        *counts
            .entry(format!("{verb} {resource}{part}"))
            .or_default() += 1;
    }
    counts
}

async fn writes_of_a_release_and_requests_at_rest(stage: &Stage) -> Result<()> {
    let path = stage
        .world
        .audit_log()
        .context("the world keeps no audit log")?;
    let mark = || -> Result<usize> { Ok(std::fs::metadata(&path)?.len() as usize) };
    let since = |mark: usize| -> Result<String> {
        let bytes = std::fs::read(&path)?;
        Ok(String::from_utf8_lossy(&bytes[mark.min(bytes.len())..]).into_owned())
    };
    let shop = Shop::open(stage, "cost").await?;
    let steps = json!([{"weight": 10, "hold": "2s"}, {"weight": 30, "hold": "2s"}, {"weight": 60, "hold": "2s"}]);
    shop.canary(steps, json!({"alerts": []})).await?;
    shop.serves().await?;
    let traffic = shop.traffic(50, &[])?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = mark()?;
    shop.target("api-v2").await?;
    let status = shop.promoted(60).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    traffic.stop().await;
    let counts = requests(&since(begun)?);
    let of = |key: &str| counts.get(key).copied().unwrap_or(0);
    let steps = 4; // three, and the promotion
    let took = status
        .history
        .first()
        .map(|past| (past.ended_at - past.started_at).num_seconds())
        .unwrap_or(0);
    println!("one release of 3 steps in {took}s: {counts:?}");
    ensure!(of("patch httproutes") == steps, "route patches: {counts:?}");
    let lazily = usize::try_from(took / 10)?;
    ensure!(
        of("update canaries/status") <= 3 * steps + lazily,
        "status writes: {counts:?}"
    );
    ensure!(
        of("create events") + of("patch events") <= steps + 1,
        "events: {counts:?}"
    );
    ensure!(
        of("patch canaries") == 2,
        "the finalizer goes on and off: {counts:?}"
    );
    ensure!(
        of("get httproutes") == 0,
        "reads of what is watched: {counts:?}"
    );

    let rest = mark()?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let counts = requests(&since(rest)?);
    println!("a minute at rest: {counts:?}");
    ensure!(counts.is_empty(), "requests at rest: {counts:?}");
    shop.close().await
}
