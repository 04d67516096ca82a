//! A route is given back as it was found: filters, timeouts, a second rule, a foreign backend, and a
//! field that this program has never heard of.

use crate::shop::{Shop, canonical};
use crate::{Run, Stage, tests};
use anyhow::{Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use serin::api::Phase;

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![route_is_given_back]
}

/// A newer Gateway API has a field in every rule that nobody here knows.
async fn add_unknown_field(stage: &Stage) -> Result<()> {
    let crds: kube::Api<CustomResourceDefinition> = kube::Api::all(stage.world.admin());
    let name = "httproutes.gateway.networking.k8s.io";
    let crd = serde_json::to_value(crds.get(name).await?)?;
    let versions = crd["spec"]["versions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let patches: Vec<Value> = (0..versions.len())
        .map(|version| {
            json!({
                "op": "add",
                "path": format!("/spec/versions/{version}/schema/openAPIV3Schema/properties/spec/properties/rules/items/properties/fromTheFuture"),
                "value": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            })
        })
        .collect();
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(patches))?;
    crds.patch(name, &PatchParams::default(), &Patch::Json::<()>(patch))
        .await?;
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    Ok(())
}

fn rich(route: &mut Value) {
    let filter = json!({"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-shop", "value": "yes"}]}});
    route["spec"]["rules"] = json!([
        {
            "name": "main",
            "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
            "filters": [filter],
            "timeouts": {"request": "10s"},
            "fromTheFuture": {"deep": [{"er": 1.5}]},
            "backendRefs": [
                {"name": "api-v1", "port": 8080, "weight": 3},
                {"name": "other", "port": 8080, "weight": 1},
            ],
        },
        {
            "name": "side",
            "matches": [{"path": {"type": "Exact", "value": "/side"}}],
            "backendRefs": [{"name": "other", "port": 8080}],
        },
    ]);
}

async fn route_is_given_back(stage: &Stage) -> Result<()> {
    add_unknown_field(stage).await?;
    let versions = [
        ("api-v1", "v1"),
        ("api-v2", "v2"),
        ("api-v3", "v3-error20"),
        ("other", "other"),
    ];
    let shop = Shop::open_with(stage, "restore", &versions, rich).await?;
    let steps = json!([{"headers": [{"name": "x-canary", "value": "true"}]}, {"weight": 40, "hold": "30s"}]);
    shop.canary(steps, json!({})).await?;
    shop.serves().await?;
    let original = shop.route_spec().await?;
    ensure!(
        original["rules"][0]["fromTheFuture"]["deep"][0]["er"] == 1.5,
        "the API server dropped the field: {original}"
    );
    let same = async |what: &str| -> Result<()> {
        let now = shop.route_spec().await?;
        ensure!(
            canonical(&now) == canonical(&original),
            "after {what}:\n{now}\nwas\n{original}"
        );
        Ok(())
    };
    let traffic = shop.traffic(50, &[])?;

    shop.target("api-v3").await?;
    shop.at_weight(40, 20).await?;
    let split = shop.route_spec().await?;
    ensure!(
        split["rules"][2]["fromTheFuture"] == original["rules"][0]["fromTheFuture"],
        "a clone without the field: {split}"
    );
    shop.wait("rolled back", 30, |s| s.phase == Phase::RolledBack)
        .await?;
    same("a rollback").await?;
    traffic.stop().await;

    let traffic = shop.traffic(50, &[])?;
    shop.target("api-v2").await?;
    let status = shop.at_weight(40, 20).await?;
    shop.annotate("serin.dev/abort", &status.revision.unwrap_or_default())
        .await?;
    shop.wait("aborted", 15, |s| s.phase == Phase::Aborted)
        .await?;
    same("an abort").await?;

    shop.target("api-v1").await?;
    shop.wait("at rest", 15, |s| s.phase == Phase::Idle).await?;
    shop.target("api-v2").await?;
    shop.at_weight(40, 20).await?;
    shop.kubectl(&["delete", "canary", "api", "--timeout=30s"])
        .await?;
    same("a deletion").await?;

    shop.canary(json!([{"weight": 40, "hold": "2s"}]), json!({}))
        .await?;
    shop.target("api-v2").await?;
    shop.promoted(40).await?;
    let promoted = canonical(&shop.route_spec().await?);
    let expected = canonical(&original).replacen("api-v1", "api-v2", 1);
    ensure!(
        promoted == expected,
        "after a promotion:\n{promoted}\nexpected\n{expected}"
    );
    let counts = traffic.stop().await;
    ensure!(
        counts.failed() == 0,
        "{} requests failed: {counts:?}",
        counts.failed()
    );
    shop.close().await
}
