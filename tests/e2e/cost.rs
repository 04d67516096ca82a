//! What a release costs the API server, by its own audit log.

use crate::audit::{self, Entry};
use crate::shop::Shop;
use crate::{Run, Stage, tests};
use anyhow::{Result, ensure};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![writes_of_a_release_and_requests_at_rest]
}

/// Requests of the operator, by verb and resource; watches left out.
fn requests(entries: &[Entry]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for entry in entries.iter().filter(|entry| entry.verb != "watch") {
        *counts
            .entry(format!("{} {}", entry.verb, entry.resource))
            .or_default() += 1;
    }
    counts
}

async fn writes_of_a_release_and_requests_at_rest(stage: &Stage) -> Result<()> {
    let shop = Shop::open(stage, "cost").await?;
    let steps = json!([{"weight": 10, "hold": "2s"}, {"weight": 30, "hold": "2s"}, {"weight": 60, "hold": "2s"}]);
    shop.canary(steps, json!({"alerts": []})).await?;
    shop.serves().await?;
    let traffic = shop.traffic(50, &[])?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let begun = audit::mark(&stage.world)?;
    shop.target("api-v2").await?;
    let status = shop.promoted(60).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    traffic.stop().await;
    let counts = requests(&audit::since(&stage.world, begun)?);
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

    let rest = audit::mark(&stage.world)?;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let mut counts = requests(&audit::since(&stage.world, rest)?);
    println!("a minute at rest: {counts:?}");
    // One renewal every 2.4 s, a fifth of the lease, is what leading costs, and all there is.
    let renewals = counts.remove("update leases").unwrap_or(0);
    ensure!(
        (15..=26).contains(&renewals),
        "{renewals} renewals a minute"
    );
    ensure!(counts.is_empty(), "requests at rest: {counts:?}");
    shop.close().await
}
