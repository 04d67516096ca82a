//! Canaries that cannot get on beside one that can: it is as quick as alone, and each of them says
//! why and is tried ever more rarely.

use crate::many::{audit_lines, audit_mark};
use crate::operator::Setting;
use crate::shop::{Shop, analysis};
use crate::{Run, Stage, tests};
use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::routing::post;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use serin::api::{CanaryStatus, Phase};
use std::time::{Duration, Instant};

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![poisoned_beside_healthy]
}

/// Canaries whose metric is never answered.
const SLOW: usize = 60;

async fn poisoned_beside_healthy(stage: &Stage) -> Result<()> {
    let deaf = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let deaf_address = deaf.local_addr()?;
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = deaf.accept().await {
            kept.push(stream);
        }
    });
    let setting = stage.operator.setting();
    let poisoned = Setting {
        prometheus: in_front_of(setting.prometheus.clone()).await?,
        allow_egress: format!("{},{deaf_address}", setting.allow_egress),
        ..setting
    };
    stage.operator.kill();
    stage.operator.start_with(&poisoned)?;
    stage.operator.ready().await?;

    let healthy = Shop::open(stage, "healthy").await?;
    healthy
        .canary(json!([{"weight": 50, "hold": "2s"}]), json!({}))
        .await?;
    healthy.serves().await?;
    let traffic = healthy.traffic(50, &[])?;
    let alone = release(&healthy, "api-v2").await?;

    let frozen = Shop::open(stage, "frozen").await?;
    let deadline =
        json!([{"weight": 50, "hold": "1s", "deadline": "12s", "onDeadline": "RollBack"}]);
    frozen.canary(deadline, json!({})).await?;
    freeze(&frozen).await?;
    let thawing = Shop::open(stage, "thawing").await?;
    thawing
        .canary(
            json!([{"weight": 50, "hold": "1s"}]),
            json!({"analysis": metric("vector(0)")}),
        )
        .await?;
    freeze(&thawing).await?;
    let failing = Shop::open(stage, "failing").await?;
    let steps = json!([{"weight": 50, "hold": "1s"}]);
    let error = r#"label_replace(vector(0), "a", "$1", "b", "(")"#;
    failing
        .canary(steps.clone(), json!({"analysis": metric(error)}))
        .await?;
    let unheard = Shop::open(stage, "unheard").await?;
    point_alerts(&unheard, &format!("http://{deaf_address}/")).await?;
    unheard.canary(steps.clone(), json!({})).await?;
    let secretless = Shop::open(stage, "secretless").await?;
    secretless.canary(steps.clone(), json!({})).await?;
    secretless.kubectl(&["delete", "secret", "oncall"]).await?;
    let largest = largest(stage).await?;
    let slow = slow(stage).await?;

    let mark = audit_mark(stage)?;
    let begun = Instant::now();
    for shop in [&frozen, &thawing, &failing, &unheard, &secretless, &largest] {
        shop.target("api-v2").await?;
    }
    let canaries = slow.canaries();
    let patch = Patch::Merge(json!({"spec": {"target": {"backend": {"name": "api-v2"}}}}));
    for n in 0..SLOW {
        let name = format!("slow-{n}");
        canaries
            .patch(&name, &PatchParams::default(), &patch)
            .await?;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;

    let beside = release(&healthy, "api-v1").await?;
    println!("a healthy release alone: {alone:?}; beside the others: {beside:?}");

    // Each says why.
    const DENIED: &str = "HTTPRoute api could not be written: ";
    let says = |words: &'static [&'static str]| {
        move |s: &CanaryStatus| words.iter().all(|word| s.message.contains(word))
    };
    thawing
        .wait("telling", 10, says(&[DENIED, "routes here are frozen"]))
        .await?;
    let conditions = thawing
        .kubectl(&[
            "get",
            "canary",
            "api",
            "-o",
            "jsonpath={.status.conditions[?(@.type==\"RoutesAccepted\")]}",
        ])
        .await?;
    ensure!(
        conditions.contains("NotWritten") && conditions.contains("frozen"),
        "{conditions}"
    );
    let status = frozen
        .wait("rolled back", 20, |s| s.phase == Phase::RolledBack)
        .await?;
    ensure!(
        status.message.contains("has not ended within 12s") && status.message.contains(DENIED),
        "{}",
        status.message
    );
    failing
        .wait(
            "held",
            10,
            says(&["held: ", "Prometheus refuses the query"]),
        )
        .await?;
    event(&unheard, "did not answer within").await?;
    event(&secretless, "there is no Secret oncall").await?;
    let busy = |s: &CanaryStatus| s.weight.is_some_and(|w| w > 0);
    largest.wait("under way", 10, busy).await?;

    let left = Duration::from_secs(20).saturating_sub(begun.elapsed());
    tokio::time::sleep(left).await;
    let (seconds, lines) = (begun.elapsed().as_secs(), audit_lines(stage, mark)?);
    for (namespace, most) in [
        ("thawing", 30),
        ("failing", 30),
        ("unheard", 40),
        ("secretless", 60),
    ] {
        let of = |verb: Option<&str>| {
            let here = lines
                .iter()
                .filter(|l| l["objectRef"]["namespace"] == namespace);
            here.filter(|l| verb.is_none_or(|verb| l["verb"] == verb))
                .count()
        };
        println!(
            "{namespace}: {} requests in {seconds}s, {} of them patches",
            of(None),
            of(Some("patch"))
        );
        ensure!(
            of(None) <= most,
            "{namespace}: {} requests in {seconds}s",
            of(None)
        );
    }

    // What was kept from going on goes on once it can, at the latest after the present wait.
    healthy
        .kubectl(&[
            "delete",
            "validatingadmissionpolicybinding",
            "freeze-thawing",
        ])
        .await?;
    thawing.promoted(40).await?;
    let counts = traffic.stop().await;
    ensure!(
        counts.failed() == 0,
        "{} requests failed: {counts:?}",
        counts.failed()
    );
    let slower = |alone: Duration, beside: Duration| beside > alone + Duration::from_millis(1500);
    ensure!(
        !slower(alone.0, beside.0) && !slower(alone.1, beside.1),
        "alone {alone:?}, beside the others {beside:?}"
    );

    healthy
        .kubectl(&[
            "delete",
            "validatingadmissionpolicybinding",
            "freeze-frozen",
        ])
        .await?;
    healthy
        .kubectl(&["delete", "validatingadmissionpolicy", "freeze"])
        .await?;
    // A deleted Canary waits for its last alerts; nobody needs to wait for these.
    for shop in [unheard, secretless] {
        let namespace = &shop.namespace;
        shop.kubectl(&["delete", "namespace", namespace, "--wait=false"])
            .await?;
    }
    let shops = [healthy, frozen, thawing, failing, largest, slow];
    futures::future::try_join_all(shops.iter().map(Shop::close)).await?;
    stage.operator.kill();
    stage.operator.start()?;
    stage.operator.ready().await
}

/// From the change of the target to the first weight, and to the promotion.
async fn release(shop: &Shop<'_>, to: &str) -> Result<(Duration, Duration)> {
    let begun = Instant::now();
    shop.target(to).await?;
    shop.at_weight(50, 30).await?;
    let first = begun.elapsed();
    shop.promoted(60).await?;
    Ok((first, begun.elapsed()))
}

fn metric(query: &str) -> Value {
    json!({"interval": "1s", "metrics": [{"name": "value", "query": query, "max": "1"}]})
}

/// Nobody but administrators may write routes of this namespace.
async fn freeze(shop: &Shop<'_>) -> Result<()> {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "freeze"},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["gateway.networking.k8s.io"],
                "apiVersions": ["*"],
                "operations": ["UPDATE"],
                "resources": ["httproutes"],
            }]},
            "validations": [{
                "expression": "!request.userInfo.username.startsWith('system:serviceaccount:')",
                "message": "routes here are frozen",
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": format!("freeze-{}", shop.namespace)},
        "spec": {
            "policyName": "freeze",
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {
                "kubernetes.io/metadata.name": shop.namespace,
            }}},
        },
    });
    let world = &shop.stage.world;
    world.apply(&format!("{policy}\n---\n{binding}")).await?;
    // The API server takes it up by a watch.
    for _ in 0..100 {
        let tried = shop
            .kubectl(&[
                "--as=system:serviceaccount:serin-system:serin",
                "patch",
                "httproute",
                "api",
                "--dry-run=server",
                "--type=merge",
                "-p",
                r#"{"spec":{"hostnames":["other.example"]}}"#,
            ])
            .await;
        match tried {
            Err(err) if err.to_string().contains("frozen") => return Ok(()),
            Err(err) if !err.to_string().contains("denied") => return Err(err),
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    bail!("the policy is not in force after 10s")
}

async fn point_alerts(shop: &Shop<'_>, url: &str) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "oncall", "namespace": shop.namespace},
        "stringData": {"url": url},
    });
    shop.stage.world.apply(&secret.to_string()).await
}

async fn event(shop: &Shop<'_>, words: &str) -> Result<()> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let told = shop.kubectl(&["describe", "canary", "api"]).await?;
        if told.contains("AlertNotDelivered") && told.contains(words) {
            return Ok(());
        }
        ensure!(Instant::now() < until, "no event says {words:?}:\n{told}");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// As many steps, metrics and routes as a Canary may have.
async fn largest(stage: &Stage) -> Result<Shop<'_>> {
    let shop = Shop::open(stage, "largest").await?;
    let mut objects = Vec::new();
    for n in 1..16 {
        let host = format!("{n}.largest.example");
        objects.push(testbed::route(
            "largest",
            &format!("api-{n}"),
            &host,
            &[("api-v1", 1)],
        ));
    }
    stage.world.apply(&objects.join("\n---\n")).await?;
    let names = (1..16)
        .map(|n| format!("api-{n}"))
        .chain(["api".to_owned()]);
    let routes: Vec<_> = names
        .map(|name| json!({"kind": "HTTPRoute", "name": name}))
        .collect();
    let steps: Vec<_> = (1..=32)
        .map(|n| json!({"weight": n * 3, "hold": "1s"}))
        .collect();
    let metrics: Vec<_> = (0..16)
        .map(|n| json!({"name": format!("value-{n}"), "query": "vector(0)", "max": "1"}))
        .collect();
    let more = json!({"routes": routes, "analysis": {"interval": "1s", "metrics": metrics}});
    shop.canary(json!(steps), more).await?;
    Ok(shop)
}

/// Many Canaries whose metric is never answered.
async fn slow(stage: &Stage) -> Result<Shop<'_>> {
    let shop = Shop::open(stage, "slow").await?;
    let mut objects = Vec::new();
    for n in 0..SLOW {
        let name = format!("slow-{n}");
        objects.push(testbed::route(
            "slow",
            &name,
            &format!("{name}.example"),
            &[("api-v1", 1)],
        ));
        let mut analysis = analysis();
        analysis["metrics"] = metric("vector(0) + on() never_answered")["metrics"].clone();
        let canary = json!({
            "apiVersion": "serin.dev/v1alpha1",
            "kind": "Canary",
            "metadata": {"name": name, "namespace": "slow"},
            "spec": {
                "target": {"backend": {"name": "api-v1", "port": 8080}},
                "routes": [{"kind": "HTTPRoute", "name": name}],
                "steps": [{"weight": 50, "hold": "1s"}],
                "analysis": analysis,
            },
        });
        objects.push(canary.to_string());
    }
    stage.world.apply(&objects.join("\n---\n")).await?;
    shop.kubectl(&[
        "wait",
        "canaries",
        "--all",
        "--for=condition=Ready",
        "--timeout=30s",
    ])
    .await?;
    Ok(shop)
}

/// A server in front of Prometheus that never answers some queries.
async fn in_front_of(prometheus: String) -> Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let client = reqwest::Client::builder().no_proxy().build()?;
    let app = Router::new()
        .route("/api/v1/query", post(pass))
        .with_state((client, prometheus));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

async fn pass(
    State((client, prometheus)): State<(reqwest::Client, String)>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<(StatusCode, String), StatusCode> {
    if String::from_utf8_lossy(&body).contains("never_answered") {
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    let kind = headers.get(header::CONTENT_TYPE).cloned();
    let answer = client
        .post(format!("{prometheus}/api/v1/query"))
        .header(
            header::CONTENT_TYPE,
            kind.context("no type")
                .map_err(|_| StatusCode::BAD_REQUEST)?,
        )
        .body(body)
        .send()
        .await
        .map_err(|_| StatusCode::BAD_GATEWAY)?;
    let status = answer.status();
    Ok((
        status,
        answer.text().await.map_err(|_| StatusCode::BAD_GATEWAY)?,
    ))
}
