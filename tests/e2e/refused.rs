//! Bad Canaries, and the sentence that `kubectl apply`, or else the condition, answers.

use crate::shop::Shop;
use crate::{Run, Stage, tests};
use anyhow::{Result, ensure};
use serde_json::{Value, json};
use serin::api::{ConditionStatus, ConditionType};

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![bad_canaries_are_refused, bad_surroundings_are_said]
}

/// What is put where in a good Canary (a JSON pointer below `spec`; null removes), and what is said of it.
fn bad() -> Vec<(&'static str, Value, &'static str)> {
    let step = |step: Value| json!([step]);
    vec![
        ("/target", Value::Null, "spec.target: Required value"),
        ("/target", json!({}), "target.backend is missing"),
        (
            "/target/backend/name",
            Value::Null,
            "spec.target.backend.name: Required value",
        ),
        ("/target/backend/port", json!(0), "spec.target.backend.port"),
        (
            "/target/backend/port",
            json!(70000),
            "spec.target.backend.port",
        ),
        (
            "/target/backend/port",
            json!("http"),
            "spec.target.backend.port",
        ),
        (
            "/target/deployment",
            json!({"name": "x"}),
            "unknown field \"spec.target.deployment\"",
        ),
        ("/routes", Value::Null, "spec.routes: Required value"),
        ("/routes", json!([]), "spec.routes"),
        (
            "/routes/0/kind",
            json!("Ingress"),
            "Unsupported value: \"Ingress\"",
        ),
        (
            "/routes/0/group",
            json!("example.com"),
            "group must be gateway.networking.k8s.io",
        ),
        (
            "/routes",
            json!([{"kind": "HTTPRoute", "name": "api"}, {"kind": "HTTPRoute", "name": "api"}]),
            "routes names one route twice",
        ),
        ("/steps", step(json!({})), "a step must say something"),
        (
            "/steps",
            step(json!({"weight": 101})),
            "spec.steps[0].weight",
        ),
        (
            "/steps",
            step(json!({"weight": -1})),
            "spec.steps[0].weight",
        ),
        (
            "/steps",
            step(json!({"weight": "10%"})),
            "spec.steps[0].weight",
        ),
        (
            "/steps",
            step(json!({"weight": 10, "hold": "5 minutes"})),
            "must be a duration",
        ),
        (
            "/steps",
            step(json!({"weight": 10, "hold": 300})),
            "spec.steps[0].hold",
        ),
        (
            "/steps",
            step(json!({"weight": 10, "deadline": "soon"})),
            "must be a duration",
        ),
        (
            "/steps",
            step(json!({"weight": 10, "onDeadline": "Explode"})),
            "Unsupported value: \"Explode\"",
        ),
        (
            "/steps",
            step(json!({"weight": 10, "minRequests": 0})),
            "spec.steps[0].minRequests",
        ),
        (
            "/steps",
            step(json!({"setWeight": 10})),
            "unknown field \"spec.steps[0].setWeight\"",
        ),
        (
            "/steps",
            step(json!({"headers": [{"name": "x y", "value": "1"}]})),
            "spec.steps[0].headers[0].name",
        ),
        (
            "/steps",
            step(json!({"headers": [{"name": "x"}]})),
            "spec.steps[0].headers[0].value: Required value",
        ),
        (
            "/steps",
            step(json!({"headers": [{"name": "x", "value": "1", "type": "Prefix"}]})),
            "Unsupported value: \"Prefix\"",
        ),
        (
            "/analysis",
            json!({"errorRate": {}}),
            "errorRate needs a limit",
        ),
        (
            "/analysis",
            json!({"errorRate": {"max": "120%"}}),
            "must be a share",
        ),
        (
            "/analysis",
            json!({"errorRate": {"max": "one"}}),
            "must be a share",
        ),
        (
            "/analysis",
            json!({"errorRate": {"vsStable": {"maxRatio": "0.5"}}}),
            "vsStable.maxRatio must be from 1 to 100",
        ),
        (
            "/analysis",
            json!({"errorRate": {"max": "1%", "onNoData": "Promote"}}),
            "Unsupported value: \"Promote\"",
        ),
        (
            "/analysis",
            json!({"metrics": [{"name": "q", "query": "up"}]}),
            "a metric needs a limit",
        ),
        (
            "/analysis",
            json!({"metrics": [{"name": "Q q", "query": "up", "max": "1"}]}),
            "spec.analysis.metrics[0].name",
        ),
        (
            "/analysis",
            json!({"metrics": [{"name": "q", "query": "up", "max": "many"}]}),
            "must be a decimal number",
        ),
        (
            "/analysis",
            json!({"metrics": [{"name": "q", "query": "", "max": "1"}]}),
            "spec.analysis.metrics[0].query",
        ),
        (
            "/analysis",
            json!({"metrics": [{"name": "q", "query": "up", "max": "1"}, {"name": "q", "query": "up", "max": "1"}]}),
            "two metrics of one name",
        ),
        (
            "/analysis",
            json!({"interval": "often"}),
            "must be a duration",
        ),
        (
            "/alerts",
            json!([{"providerRef": {"name": "x"}, "events": []}]),
            "spec.alerts[0].events",
        ),
        (
            "/alerts",
            json!([{"providerRef": {"name": "x"}, "events": ["Birthday"]}]),
            "Unsupported value: \"Birthday\"",
        ),
        (
            "/alerts",
            json!([{"events": ["Promoted"]}]),
            "spec.alerts[0].providerRef: Required value",
        ),
        ("/paused", json!("yes"), "spec.paused"),
        ("/pause", json!(true), "unknown field \"spec.pause\""),
    ]
}

fn good() -> Value {
    json!({
        "apiVersion": "serin.dev/v1alpha1",
        "kind": "Canary",
        "metadata": {"name": "bad"},
        "spec": {
            "target": {"backend": {"name": "api-v1", "port": 8080}},
            "routes": [{"kind": "HTTPRoute", "name": "api"}],
            "steps": [{"weight": 10, "hold": "1m"}],
        },
    })
}

async fn bad_canaries_are_refused(stage: &Stage) -> Result<()> {
    let shop = Shop::open_with(stage, "refused", &[], |_| {}).await?;
    let mut wrong = Vec::new();
    for (path, value, said) in bad() {
        let mut canary = good();
        let (parent, key) = path.rsplit_once('/').unwrap_or_default();
        let parent = canary["spec"].pointer_mut(parent);
        match parent {
            Some(Value::Array(list)) => list[key.parse::<usize>()?] = value.clone(),
            Some(Value::Object(map)) if value.is_null() => drop(map.remove(key)),
            Some(Value::Object(map)) => drop(map.insert(key.into(), value.clone())),
            _ => anyhow::bail!("no {path}"),
        }
        match shop.kubectl_apply_refused(&canary).await {
            Ok(answer) if answer.contains(said) => {}
            Ok(answer) => wrong.push(format!(
                "{path} = {value}: expected {said:?}, was told: {answer}"
            )),
            Err(err) => wrong.push(format!("{path} = {value}: {err}")),
        }
    }
    let mut long = good();
    long["metadata"]["name"] = json!("x".repeat(49));
    let answer = shop.kubectl_apply_refused(&long).await?;
    ensure!(
        answer.contains("metadata.name must have at most 48 characters"),
        "{answer}"
    );
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    shop.close().await
}

/// What needs other objects is a condition, and nothing is shifted.
async fn bad_surroundings_are_said(stage: &Stage) -> Result<()> {
    let shop = Shop::open(stage, "said").await?;
    let before = shop.route_spec().await?;
    let cases = [
        (
            "no-route",
            json!({"routes": [{"kind": "HTTPRoute", "name": "none"}]}),
            "RouteNotFound",
            "HTTPRoute none",
        ),
        (
            "no-backend",
            json!({"target": {"backend": {"name": "none", "port": 8080}}}),
            "BackendNotFound",
            "spec.target.backend",
        ),
        (
            "no-port",
            json!({"target": {"backend": {"name": "api-v2", "port": 81}}}),
            "PortNotFound",
            "has no port 81",
        ),
        (
            "bad-query",
            json!({"analysis": {"metrics": [{"name": "q", "query": "sum(", "max": "1"}]}}),
            "InvalidQuery",
            "spec.analysis.metrics[q].query",
        ),
        (
            "bad-variable",
            json!({"analysis": {"metrics": [{"name": "q", "query": "up{x=\"{{ nonsense }}\"}", "max": "1"}]}}),
            "InvalidQuery",
            "nonsense",
        ),
        (
            "no-rule",
            json!({"routes": [{"kind": "HTTPRoute", "name": "api", "rules": ["none"]}]}),
            "",
            "rule",
        ),
    ];
    for (name, more, reason, said) in cases {
        let mut canary = good();
        canary["metadata"] = json!({"name": name, "namespace": "said"});
        if let (Some(spec), Some(more)) = (canary["spec"].as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        stage.world.apply(&canary.to_string()).await?;
        let mut ready = None;
        for _ in 0..100 {
            let status = shop.canaries().get(name).await?.status.unwrap_or_default();
            ready = status
                .conditions
                .into_iter()
                .find(|c| c.kind == ConditionType::Ready && c.status == ConditionStatus::False);
            if ready.is_some() {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let Some(ready) = ready else {
            anyhow::bail!("{name}: Ready is not False")
        };
        ensure!(
            reason.is_empty() || ready.reason == reason,
            "{name}: {ready:?}"
        );
        ensure!(ready.message.contains(said), "{name}: {}", ready.message);
        shop.canaries()
            .delete(name, &kube::api::DeleteParams::default())
            .await?;
    }
    ensure!(shop.route_spec().await? == before, "something was shifted");
    shop.close().await
}
