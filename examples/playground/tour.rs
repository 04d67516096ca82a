//! The tour: a good version is promoted, a bad one is taken back.

use crate::view;
use anyhow::{Context, Result, bail, ensure};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use serin::api::{Canary, CanaryStatus, Phase};
use std::time::{Duration, Instant};
use testbed::load::{Load, Running};
use testbed::{Receiver, World};

const NAMESPACE: &str = "shop";

/// Three versions of one program; the third fails every fifth request.
const VERSIONS: [(&str, &str); 3] = [("api-v1", "v1"), ("api-v2", "v2"), ("api-v3", "v3-error20")];

const RATE: u32 = 100;

pub async fn open_shop(world: &World, receiver: &Receiver) -> Result<()> {
    world.namespace(NAMESPACE).await?;
    for (name, tag) in VERSIONS {
        world
            .apply(&testbed::deployment(NAMESPACE, name, tag, 2))
            .await?;
    }
    let route = json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "api", "namespace": NAMESPACE},
        "spec": {
            "parentRefs": [{"name": testbed::GATEWAY, "namespace": testbed::GATEWAY_NAMESPACE}],
            "hostnames": ["shop.example"],
            "rules": [{"backendRefs": [{"name": "api-v1", "port": 8080}]}],
        },
    });
    world.apply(&route.to_string()).await?;
    let alerts = include_str!("../alerts.yaml")
        .replace("https://hooks.example.com/serin", &receiver.url(NAMESPACE));
    world.apply(&alerts).await?;
    world.apply(include_str!("canary.yaml")).await?;
    view::progress(
        "shop",
        "api-v1, api-v2, api-v3, an HTTPRoute, and the Canary of examples/playground/canary.yaml",
    );
    let canaries = canaries(world);
    for _ in 0..400 {
        let status = canaries.get("api").await?.status.unwrap_or_default();
        if status.phase == Phase::Idle {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!(
        "the Canary is not at rest after 20s: {}",
        canaries
            .get("api")
            .await?
            .status
            .unwrap_or_default()
            .message
    )
}

fn canaries(world: &World) -> Api<Canary> {
    Api::namespaced(world.admin(), NAMESPACE)
}

pub async fn take(world: &World, receiver: &Receiver) -> Result<Running> {
    let load = Load {
        bound: Duration::from_secs(600),
        ..Load::new("shop.example", RATE)
    };
    wait_until_served(world, &load).await?;
    view::progress("traffic", &format!("{RATE} requests/s through the gateway"));

    let traffic = load.clone().start(world.gateway_addr());
    let good = release(
        world,
        &traffic,
        "A good version: api-v2.",
        "v1",
        ("api-v2", "v2"),
    )
    .await?;
    let counts = traffic.stop().await;
    ensure!(
        good.phase == Phase::Promoted,
        "the good version was not promoted: {}",
        good.message
    );
    ensure!(
        counts.failed() == 0,
        "{} client requests failed while a good version was released",
        counts.failed()
    );
    view::verdict(&format!(
        "{}\n   {} of {} client requests failed.",
        good.message,
        counts.failed(),
        counts.total()
    ));

    let traffic = load.clone().start(world.gateway_addr());
    let bad = release(
        world,
        &traffic,
        "A bad version: api-v3 fails every fifth request.",
        "v2",
        ("api-v3", "v3-error20"),
    )
    .await?;
    let counts = traffic.stop().await;
    ensure!(
        bad.phase == Phase::RolledBack,
        "the bad version was not taken back: {}",
        bad.message
    );
    view::verdict(&format!(
        "{}\n   {} of {} client requests failed.",
        bad.message,
        counts.failed(),
        counts.total()
    ));
    let (_, alert) = receiver
        .wait(NAMESPACE, "RolledBack", Duration::from_secs(10))
        .await?;
    let told = alert["message"]
        .as_str()
        .context("the alert has no message")?;
    let event = alert["event"].as_str().unwrap_or_default();
    view::verdict(&format!(
        "the on-call alert that was received: {event}: {told}"
    ));
    // Releases of the visitor's own are judged by requests too.
    let more = Load {
        bound: Duration::from_secs(2 * 3600),
        ..load
    };
    Ok(more.start(world.gateway_addr()))
}

async fn wait_until_served(world: &World, load: &Load) -> Result<()> {
    for _ in 0..100 {
        let probe = Load {
            rate: 20,
            bound: Duration::from_secs(5),
            ..load.clone()
        };
        let running = probe.start(world.gateway_addr());
        tokio::time::sleep(Duration::from_millis(250)).await;
        let counts = running.stop().await;
        if counts.total() > 0 && counts.failed() == 0 {
            return Ok(());
        }
    }
    bail!("the gateway does not serve shop.example")
}

/// Names another backend as the one that should serve, and shows what happens until it has ended.
async fn release(
    world: &World,
    traffic: &Running,
    title: &str,
    old: &str,
    new: (&str, &str),
) -> Result<CanaryStatus> {
    let (backend, tag) = new;
    let patch = json!({"spec": {"target": {"backend": {"name": backend}}}});
    view::chapter(
        title,
        &format!("kubectl patch canary api -n {NAMESPACE} --type=merge -p '{patch}'"),
    );
    let canaries = canaries(world);
    let generation = canaries
        .patch("api", &PatchParams::default(), &Patch::Merge(&patch))
        .await?
        .metadata
        .generation;
    let begun = Instant::now();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let status = canaries.get("api").await?.status.unwrap_or_default();
        view::line(begun.elapsed(), &status, &traffic.counts(), old, tag);
        let seen = Some(status.observed_generation) >= generation;
        if seen
            && matches!(
                status.phase,
                Phase::Promoted | Phase::RolledBack | Phase::Aborted
            )
        {
            return Ok(status);
        }
        if begun.elapsed() > Duration::from_secs(90) {
            bail!(
                "the release has not ended after 90s: {:?}: {}",
                status.phase,
                status.message
            );
        }
    }
}
