//! The world as people know it: one real world, and a namespace for each behaviour.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures::future::{BoxFuture, FutureExt, join_all};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serin_testbed::load::{Counts, Load};
use serin_testbed::{Component, Options, World, deployment, route, wait};

const RATE: u32 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_world_behaves_as_people_know_it() {
    let world = World::start(Options {
        audit: true,
        ..Options::default()
    })
    .await
    .expect("a world");
    let behaviours: Vec<(&str, BoxFuture<'_, Result<()>>)> = vec![
        ("a split is what the weights say", split(&world).boxed()),
        (
            "scaling and deleting loses no request",
            scale_and_delete(&world).boxed(),
        ),
        (
            "a rolling update loses no request",
            rolling_update(&world).boxed(),
        ),
        ("a crash loop looks like one", crash_loop(&world).boxed()),
        (
            "an image that never comes looks like it",
            missing_image(&world).boxed(),
        ),
        ("errors come at their rate", error_rate(&world).boxed()),
        ("a pod is ready when it says so", readiness(&world).boxed()),
        (
            "a graceful end finishes what is begun",
            graceful_end(&world).boxed(),
        ),
        ("a rude end does not", rude_end(&world).boxed()),
        ("nobody behind a Service is a 502", nobody(&world).boxed()),
        ("a hanging pod hangs", hang(&world).boxed()),
        ("a job completes", job(&world).boxed()),
        (
            "what a pod cannot read is in its status",
            unreadable(&world).boxed(),
        ),
        (
            "a ServiceAccount has only its rights",
            service_account(&world).boxed(),
        ),
    ];
    let mut failures = run(behaviours).await;
    // These stop parts that the others need.
    failures += run(vec![(
        "Prometheus goes and comes back",
        prometheus(&world).boxed(),
    )])
    .await;
    failures += run(vec![(
        "the API server goes and comes back",
        api_server(&world).boxed(),
    )])
    .await;
    failures += run(vec![(
        "the gateway goes and comes back",
        gateway(&world).boxed(),
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

async fn split(world: &World) -> Result<()> {
    world.namespace("split").await?;
    for version in ["v1", "v2"] {
        world
            .apply(&deployment("split", version, version, 2))
            .await?;
    }
    world
        .apply(&route(
            "split",
            "shop",
            "split.test",
            &[("v1", 80), ("v2", 20)],
        ))
        .await?;
    rollout(world, "split", "v1").await?;
    rollout(world, "split", "v2").await?;
    served(world, "split.test").await?;
    let counts = load_for(world, "split.test", 200, Duration::from_secs(5)).await;
    ensure!(counts.failed() == 0, "{:?}", counts.by_version_and_status());
    ensure!(
        counts.total() == 1000,
        "1000 requests were due, {} sent",
        counts.total()
    );
    let v2 = counts.to("v2");
    ensure!((180..=220).contains(&v2), "20 % of 1000 is not {v2}");

    // What the client saw is what Prometheus has, once it has scraped it.
    let series =
        r#"sum by(service)(traefik_service_requests_total{service=~"httproute-split-.*"})"#;
    let all = format!("sum({series})");
    // (The requests of `served` are in it too.)
    wait(
        "Prometheus to hold all of it",
        Duration::from_secs(10),
        || async { Ok(query(world, &all).await? > 1000.0) },
    )
    .await?;
    let of_v2 = query(
        world,
        r#"sum(traefik_service_requests_total{service=~".*-svc-split-v2-.*"})"#,
    )
    .await?;
    ensure!(
        of_v2 >= v2 as f64 && of_v2 < v2 as f64 + 20.0,
        "{v2} at the client, {of_v2} in Prometheus"
    );
    Ok(())
}

async fn scale_and_delete(world: &World) -> Result<()> {
    one(world, "scale", "v1", 2).await?;
    let load = Load::new("scale.test", RATE).start(world.gateway_addr());
    kubectl(world, "-n scale scale deployment app --replicas=4").await?;
    rollout(world, "scale", "app").await?;
    ensure!(pods(world, "scale").await?.len() == 4);
    let old: Vec<String> = pods(world, "scale")
        .await?
        .iter()
        .map(ResourceExt::name_any)
        .collect();
    kubectl(world, "-n scale delete pod --wait=false --all").await?;
    let listed = kubectl(world, "-n scale get pods").await?;
    ensure!(listed.contains("Terminating"), "{listed}");
    wait(
        "new pods in the place of the old",
        Duration::from_secs(20),
        || async {
            let now = pods(world, "scale").await?;
            Ok(now.len() == 4
                && now
                    .iter()
                    .all(|pod| ready(pod) && !old.contains(&pod.name_any())))
        },
    )
    .await?;
    kubectl(world, "-n scale scale deployment app --replicas=1").await?;
    wait("one pod to be left", Duration::from_secs(20), || async {
        Ok(pods(world, "scale").await?.len() == 1)
    })
    .await?;
    lost_nothing(load.stop().await)
}

async fn rolling_update(world: &World) -> Result<()> {
    one(world, "rolling", "v1", 3).await?;
    let load = Load::new("rolling.test", 200).start(world.gateway_addr());
    tokio::time::sleep(Duration::from_secs(1)).await;
    kubectl(world, "-n rolling set image deployment/app app=shop/app:v2").await?;
    rollout(world, "rolling", "app").await?;
    wait("the old pods to go", Duration::from_secs(20), || async {
        Ok(pods(world, "rolling").await?.len() == 3)
    })
    .await?;
    let replaced = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counts = load.stop().await;
    ensure!(
        counts.requests_since("v1", replaced) == 0,
        "the old version still answers"
    );
    ensure!(
        counts.to("v1") > 0 && counts.requests_since("v2", replaced) > 100,
        "{:?}",
        counts.by_version()
    );
    lost_nothing(counts)
}

async fn crash_loop(world: &World) -> Result<()> {
    one(world, "crash", "v1", 1).await?;
    let load = Load::new("crash.test", RATE).start(world.gateway_addr());
    kubectl(
        world,
        "-n crash set image deployment/app app=shop/app:v2-crash",
    )
    .await?;
    wait("restarts", Duration::from_secs(20), || async {
        let listed = kubectl(world, "-n crash get pods").await?;
        let restarts = listed
            .lines()
            .filter(|line| line.contains("0/1") && line.contains("CrashLoopBackOff"));
        Ok(restarts
            .filter_map(|line| line.split_whitespace().nth(3)?.parse::<u32>().ok())
            .any(|count| count >= 2))
    })
    .await?;
    // The version before serves on.
    let counts = load.stop().await;
    ensure!(counts.to("v2-crash") == 0);
    lost_nothing(counts)
}

async fn missing_image(world: &World) -> Result<()> {
    one(world, "image", "v1", 1).await?;
    kubectl(
        world,
        "-n image set image deployment/app app=shop/app:v2-nopull",
    )
    .await?;
    wait("ImagePullBackOff", Duration::from_secs(10), || async {
        Ok(kubectl(world, "-n image get pods")
            .await?
            .contains("ImagePullBackOff"))
    })
    .await
}

async fn error_rate(world: &World) -> Result<()> {
    one(world, "errors", "v1", 2).await?;
    let counts = load_for(world, "errors.test", RATE, Duration::from_secs(2)).await;
    lost_nothing(counts)?;
    kubectl(world, "-n errors set env deployment/app ERROR_RATE=20%").await?;
    rollout(world, "errors", "app").await?;
    wait("the old pods to go", Duration::from_secs(20), || async {
        Ok(pods(world, "errors").await?.len() == 2)
    })
    .await?;
    let counts = load_for(world, "errors.test", 200, Duration::from_secs(3)).await;
    ensure!(
        (110..=130).contains(&counts.failed()),
        "20 % of 600 are not {}",
        counts.failed()
    );
    let statuses = counts.by_version_and_status();
    ensure!(
        statuses
            .keys()
            .all(|(version, status)| version == "v1" && [200, 500].contains(status)),
        "{statuses:?}"
    );
    Ok(())
}

async fn readiness(world: &World) -> Result<()> {
    world.namespace("ready").await?;
    let begun = Instant::now();
    world
        .apply(&deployment("ready", "app", "v1-start1s-ready2s", 1))
        .await?;
    wait("ContainerCreating", Duration::from_secs(5), || async {
        Ok(kubectl(world, "-n ready get pods")
            .await?
            .contains("ContainerCreating"))
    })
    .await?;
    wait(
        "a running pod that is not ready",
        Duration::from_secs(5),
        || async {
            let listed = kubectl(world, "-n ready get pods").await?;
            Ok(listed.contains("0/1") && listed.contains("Running"))
        },
    )
    .await?;
    rollout(world, "ready", "app").await?;
    ensure!(
        begun.elapsed() >= Duration::from_secs(3),
        "ready after {:?}",
        begun.elapsed()
    );
    Ok(())
}

async fn graceful_end(world: &World) -> Result<()> {
    one(world, "graceful", "v1-latency300ms", 2).await?;
    let load = Load::new("graceful.test", RATE).start(world.gateway_addr());
    tokio::time::sleep(Duration::from_secs(1)).await;
    kubectl(world, "-n graceful rollout restart deployment app").await?;
    rollout(world, "graceful", "app").await?;
    wait("the old pods to go", Duration::from_secs(20), || async {
        Ok(pods(world, "graceful").await?.len() == 2)
    })
    .await?;
    let counts = load.stop().await;
    let median = counts.latency(0.5).context("answers")?;
    ensure!(median >= Duration::from_millis(300), "{median:?}");
    lost_nothing(counts)
}

async fn rude_end(world: &World) -> Result<()> {
    one(world, "rude", "v1-latency300ms-rude", 2).await?;
    let load = Load::new("rude.test", RATE).start(world.gateway_addr());
    tokio::time::sleep(Duration::from_secs(1)).await;
    kubectl(world, "-n rude delete pod --all").await?;
    wait("new pods", Duration::from_secs(20), || async {
        let now = pods(world, "rude").await?;
        Ok(now.len() == 2 && now.iter().all(ready))
    })
    .await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let healed = Instant::now();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let counts = load.stop().await;
    ensure!(
        counts.failed() > 0,
        "requests on their way were lost, and nobody saw it"
    );
    ensure!(
        counts.transport_errors() == 0,
        "the gateway itself answers: {:?}",
        counts.errors()
    );
    let after = counts
        .requests()
        .filter(|request| request.sent >= healed && request.failed())
        .count();
    ensure!(after == 0, "{after} requests failed on the new pods");
    Ok(())
}

async fn nobody(world: &World) -> Result<()> {
    one(world, "nobody", "v1", 1).await?;
    kubectl(world, "-n nobody scale deployment app --replicas=0").await?;
    wait("the gateway's 502", Duration::from_secs(10), || async {
        let answer = world.get("nobody.test", "/", &[]).await?;
        Ok(answer.status == 502 && answer.version.is_none())
    })
    .await
}

async fn hang(world: &World) -> Result<()> {
    one(world, "hang", "v1", 1).await?;
    kubectl(
        world,
        "-n hang set image deployment/app app=shop/app:v1-hang",
    )
    .await?;
    rollout(world, "hang", "app").await?;
    wait("the old pod to go", Duration::from_secs(20), || async {
        Ok(pods(world, "hang").await?.len() == 1)
    })
    .await?;
    let load = Load {
        timeout: Duration::from_millis(500),
        bound: Duration::from_secs(1),
        ..Load::new("hang.test", 20)
    };
    let counts = load.start(world.gateway_addr()).finish().await;
    ensure!(
        counts.transport_errors() == 20,
        "{:?}",
        counts.by_version_and_status()
    );
    Ok(())
}

async fn job(world: &World) -> Result<()> {
    world.namespace("job").await?;
    let job = "apiVersion: batch/v1
kind: Job
metadata: {name: once, namespace: job}
spec:
  template:
    spec:
      restartPolicy: Never
      containers: [{name: app, image: 'shop/app:v1'}]
";
    world.apply(job).await?;
    kubectl(
        world,
        "-n job wait --for=condition=Complete job/once --timeout=20s",
    )
    .await?;
    let listed = kubectl(world, "-n job get pods").await?;
    ensure!(listed.contains("Completed"), "{listed}");
    Ok(())
}

async fn unreadable(world: &World) -> Result<()> {
    one(world, "unreadable", "v1", 1).await?;
    kubectl(world, "-n unreadable set env deployment/app LATENCY=slow").await?;
    wait("the status to say it", Duration::from_secs(10), || async {
        let yaml = kubectl(world, "-n unreadable get pods -o yaml").await?;
        Ok(yaml.contains("CreateContainerConfigError") && yaml.contains("LATENCY=\"slow\""))
    })
    .await
}

async fn service_account(world: &World) -> Result<()> {
    world.namespace("account").await?;
    wait(
        "the namespace's own ServiceAccount",
        Duration::from_secs(10),
        || async { Ok(world.kubeconfig_for("account", "default").await.is_ok()) },
    )
    .await?;
    let kubeconfig = world.kubeconfig_for("account", "default").await?;
    let refused = tokio::process::Command::new(world.kubectl())
        .args(["--kubeconfig", &kubeconfig.to_string_lossy(), "get", "pods"])
        .output()
        .await?;
    let said = String::from_utf8_lossy(&refused.stderr);
    ensure!(
        said.contains("system:serviceaccount:account:default") && said.contains("forbidden"),
        "{said}"
    );
    let error = world
        .kubeconfig_for("account", "nobody")
        .await
        .err()
        .context("a token for nobody")?;
    ensure!(format!("{error:#}").contains("account/nobody"), "{error:#}");
    Ok(())
}

async fn prometheus(world: &World) -> Result<()> {
    let before = query(world, "sum(traefik_service_requests_total)").await?;
    ensure!(before > 0.0);
    world.stop(Component::Prometheus).await?;
    ensure!(
        query(world, "vector(1)").await.is_err(),
        "it answers after its end"
    );
    world.start_again(Component::Prometheus).await?;
    wait("its series again", Duration::from_secs(10), || async {
        Ok(query(world, "sum(traefik_service_requests_total)").await? >= before)
    })
    .await?;
    let kept = query(
        world,
        "count(count_over_time(traefik_config_reloads_total[1m]))",
    )
    .await?;
    ensure!(kept >= 1.0);
    world.pause(Component::Prometheus)?;
    let asked = tokio::time::timeout(Duration::from_millis(500), query(world, "vector(1)")).await;
    world.resume(Component::Prometheus)?;
    ensure!(asked.is_err(), "it answers while it is paused");
    ensure!((query(world, "vector(1)").await? - 1.0).abs() < f64::EPSILON);
    Ok(())
}

async fn api_server(world: &World) -> Result<()> {
    one(world, "restart", "v1", 2).await?;
    let load = Load::new("restart.test", RATE).start(world.gateway_addr());
    world.kill(Component::ApiServer)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    ensure!(
        kubectl(world, "get nodes").await.is_err(),
        "it answers after its end"
    );
    world.start_again(Component::ApiServer).await?;
    // The node, the proxy, the controllers and the gateway find it again.
    kubectl(world, "-n restart set image deployment/app app=shop/app:v2").await?;
    rollout(world, "restart", "app").await?;
    wait("the old pods to go", Duration::from_secs(20), || async {
        Ok(pods(world, "restart").await?.len() == 2)
    })
    .await?;
    lost_nothing(load.stop().await)?;
    // Deleted and made again under its old name.
    kubectl(world, "delete namespace restart --wait=false").await?;
    one(world, "restart", "v3", 1).await?;
    wait("the new version", Duration::from_secs(10), || async {
        Ok(world
            .get("restart.test", "/", &[])
            .await?
            .version
            .as_deref()
            == Some("v3"))
    })
    .await
}

async fn gateway(world: &World) -> Result<()> {
    one(world, "gateway", "v1", 1).await?;
    let load = Load::new("gateway.test", RATE).start(world.gateway_addr());
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.kill(Component::Gateway)?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.start_again(Component::Gateway).await?;
    served(world, "gateway.test").await?;
    let counts = load.stop().await;
    ensure!(
        counts.transport_errors() > 20,
        "a gateway that is away answers nobody: {:?}",
        counts.by_version_and_status()
    );
    Ok(())
}

/// A namespace with a Deployment `app`, its Service and a route for `NAMESPACE.test`, once all of it serves.
async fn one(world: &World, namespace: &str, version: &str, replicas: u32) -> Result<()> {
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
async fn served(world: &World, host: &str) -> Result<()> {
    let what = format!("{host} to be served");
    wait(&what, Duration::from_secs(20), || async {
        Ok(world.get(host, "/", &[]).await?.status == 200)
    })
    .await
}

async fn rollout(world: &World, namespace: &str, name: &str) -> Result<()> {
    kubectl(
        world,
        &format!("-n {namespace} rollout status deployment {name} --timeout=40s"),
    )
    .await?;
    Ok(())
}

async fn load_for(world: &World, host: &str, rate: u32, bound: Duration) -> Counts {
    Load {
        bound,
        ..Load::new(host, rate)
    }
    .start(world.gateway_addr())
    .finish()
    .await
}

fn lost_nothing(counts: Counts) -> Result<()> {
    ensure!(counts.total() > 0, "no request was sent");
    ensure!(
        counts.failed() == 0,
        "failed: {:?} {:?}",
        counts.by_version_and_status(),
        counts.errors()
    );
    Ok(())
}

async fn pods(world: &World, namespace: &str) -> Result<Vec<Pod>> {
    Ok(Api::<Pod>::namespaced(world.admin(), namespace)
        .list(&ListParams::default())
        .await?
        .items)
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none()
        && conditions
            .into_iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

async fn kubectl(world: &World, line: &str) -> Result<String> {
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
async fn query(world: &World, promql: &str) -> Result<f64> {
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
