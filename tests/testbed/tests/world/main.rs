//! The world as people know it: one real world, and a namespace for each behaviour.

mod parts;
mod pods;
mod traffic;

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::{BoxFuture, FutureExt, join_all};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::ListParams;
use serin_testbed::load::{Counts, Load};
use serin_testbed::{Options, World, deployment, route, wait};

pub(crate) const RATE: u32 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_world_behaves_as_people_know_it() {
    let world = World::start(Options {
        audit: true,
        ..Options::default()
    })
    .await
    .expect("a world");
    let behaviours: Vec<(&str, BoxFuture<'_, Result<()>>)> = vec![
        (
            "a split is what the weights say",
            traffic::split(&world).boxed(),
        ),
        (
            "scaling and deleting loses no request",
            traffic::scale_and_delete(&world).boxed(),
        ),
        (
            "a rolling update loses no request",
            traffic::rolling_update(&world).boxed(),
        ),
        (
            "a crash loop looks like one",
            pods::crash_loop(&world).boxed(),
        ),
        (
            "an image that never comes looks like it",
            pods::missing_image(&world).boxed(),
        ),
        (
            "errors come at their rate",
            traffic::error_rate(&world).boxed(),
        ),
        (
            "a pod is ready when it says so",
            pods::readiness(&world).boxed(),
        ),
        (
            "a graceful end finishes what is begun",
            traffic::graceful_end(&world).boxed(),
        ),
        ("a rude end does not", traffic::rude_end(&world).boxed()),
        (
            "nobody behind a Service is a 502",
            traffic::nobody(&world).boxed(),
        ),
        ("a hanging pod hangs", traffic::hang(&world).boxed()),
        ("a job completes", pods::job(&world).boxed()),
        (
            "what a pod cannot read is in its status",
            pods::unreadable(&world).boxed(),
        ),
        (
            "a ServiceAccount has only its rights",
            parts::service_account(&world).boxed(),
        ),
        (
            "a test's own process is under its hand",
            parts::process(&world).boxed(),
        ),
    ];
    let mut failures = run(behaviours).await;
    // These stop parts that the others need.
    failures += run(vec![(
        "Prometheus goes and comes back",
        parts::prometheus(&world).boxed(),
    )])
    .await;
    failures += run(vec![(
        "the API server goes and comes back",
        parts::api_server(&world).boxed(),
    )])
    .await;
    failures += run(vec![(
        "the gateway goes and comes back",
        parts::gateway(&world).boxed(),
    )])
    .await;
    assert_eq!(
        failures,
        0,
        "the output above says which; the logs are in {}",
        world.dir().display()
    );
    let audit =
        std::fs::read_to_string(world.audit_log().expect("an audit log")).expect("the audit log");
    assert!(
        audit
            .lines()
            .all(|line| line.contains("\"level\":\"Metadata\""))
    );
    let dir = world.dir().to_owned();
    world.shutdown().await;
    assert!(!dir.exists());
}

async fn run(behaviours: Vec<(&'static str, BoxFuture<'_, Result<()>>)>) -> usize {
    let ended = join_all(behaviours.into_iter().map(|(name, behaviour)| async move {
        let begun = Instant::now();
        let result = tokio::time::timeout(Duration::from_secs(90), behaviour)
            .await
            .unwrap_or_else(|_| bail!("no end in 90 s"));
        match &result {
            Ok(()) => println!("ok {:>5.1} s  {name}", begun.elapsed().as_secs_f64()),
            Err(error) => println!("FAILED {name}: {error:#}"),
        }
        result.is_err()
    }))
    .await;
    ended.into_iter().filter(|failed| *failed).count()
}

/// A namespace with a Deployment `app`, its Service and a route for `NAMESPACE.test`, once all of it serves.
pub(crate) async fn one(
    world: &World,
    namespace: &str,
    version: &str,
    replicas: u32,
) -> Result<()> {
    world.namespace(namespace).await?;
    world
        .apply(&deployment(namespace, "app", version, replicas))
        .await?;
    world
        .apply(&route(
            namespace,
            "app",
            &format!("{namespace}.test"),
            &[("app", 1)],
        ))
        .await?;
    rollout(world, namespace, "app").await?;
    served(world, &format!("{namespace}.test")).await
}

/// Waits until the gateway knows a route and its pods answer.
pub(crate) async fn served(world: &World, host: &str) -> Result<()> {
    let what = format!("{host} to be served");
    wait(&what, Duration::from_secs(20), || async {
        Ok(world.get(host, "/", &[]).await?.status == 200)
    })
    .await
}

pub(crate) async fn rollout(world: &World, namespace: &str, name: &str) -> Result<()> {
    kubectl(
        world,
        &format!("-n {namespace} rollout status deployment {name} --timeout=40s"),
    )
    .await?;
    Ok(())
}

pub(crate) async fn load_for(world: &World, host: &str, rate: u32, bound: Duration) -> Counts {
    Load {
        bound,
        ..Load::new(host, rate)
    }
    .start(world.gateway_addr())
    .finish()
    .await
}

pub(crate) fn lost_nothing(counts: Counts) -> Result<()> {
    ensure!(counts.total() > 0, "no request was sent");
    ensure!(
        counts.failed() == 0,
        "failed: {:?} {:?}",
        counts.by_version_and_status(),
        counts.errors()
    );
    Ok(())
}

pub(crate) async fn pods(world: &World, namespace: &str) -> Result<Vec<Pod>> {
    Ok(Api::<Pod>::namespaced(world.admin(), namespace)
        .list(&ListParams::default())
        .await?
        .items)
}

pub(crate) fn ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .into_iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(crate) async fn kubectl(world: &World, line: &str) -> Result<String> {
    let output = tokio::process::Command::new(world.kubectl())
        .arg("--kubeconfig")
        .arg(world.kubeconfig())
        .args(line.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "kubectl {line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The value of a query that has exactly one.
pub(crate) async fn query(world: &World, promql: &str) -> Result<f64> {
    let address = world
        .prometheus_url()
        .trim_start_matches("http://")
        .parse()?;
    let encoded: String = promql.bytes().map(|byte| format!("%{byte:02x}")).collect();
    let answer = serin_testbed::load::get(
        address,
        "localhost",
        &format!("/api/v1/query?query={encoded}"),
        &[],
    )
    .await?;
    let answer: serde_json::Value = serde_json::from_slice(&answer.body)?;
    let value = answer["data"]["result"][0]["value"][1]
        .as_str()
        .with_context(|| format!("{promql}: {answer}"))?;
    Ok(value.parse()?)
}
