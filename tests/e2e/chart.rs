//! The chart before a real API server: what it renders is accepted, its pods pass the strictest Pod
//! Security level, and its rights are those that the operator uses and no others.

use crate::operator::CHART;
use crate::{Run, Stage, tests};
use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::discovery::Discovery;
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Output, Stdio};
use testbed::{Helm, documents};
use tokio::io::AsyncWriteExt;

pub fn tests() -> Vec<(&'static str, Run)> {
    tests![
        chart_is_accepted_with_each_value_set,
        chart_pods_pass_the_restricted_level,
        chart_rights_are_those_that_are_used,
        chart_secrets_are_those_listed,
    ]
}

/// Those that would take the definitions from under the other tests, if they failed.
pub fn disturbing() -> Vec<(&'static str, Run)> {
    tests![chart_goes_in_up_and_out]
}

/// The value sets of the chart's `ci/`, by name.
fn value_sets() -> Result<Vec<(String, Value)>> {
    let mut sets = vec![];
    for file in std::fs::read_dir(Path::new(CHART).join("ci"))? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let values = serde_norway::from_str(&std::fs::read_to_string(&path)?)?;
        sets.push((name.into_owned(), values));
    }
    ensure!(sets.len() >= 5, "{sets:?}");
    Ok(sets)
}

async fn kubectl(stage: &Stage, args: &[&str], input: &str) -> Result<Output> {
    let mut child = tokio::process::Command::new(stage.world.kubectl())
        .args(args)
        .env("KUBECONFIG", stage.world.kubeconfig())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("run kubectl")?;
    let mut stdin = child.stdin.take().context("kubectl has no input")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    Ok(child.wait_with_output().await?)
}

/// A namespace in which nothing runs that is not `restricted`.
async fn restricted(stage: &Stage, name: &str) -> Result<()> {
    let levels: serde_json::Map<String, Value> = ["enforce", "warn"]
        .map(|mode| {
            (
                format!("pod-security.kubernetes.io/{mode}"),
                json!("restricted"),
            )
        })
        .into_iter()
        .collect();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": levels}});
    stage.world.namespace(name).await?;
    stage.world.apply(&namespace.to_string()).await
}

async fn chart_is_accepted_with_each_value_set(stage: &Stage) -> Result<()> {
    let helm = Helm::of(Path::new(CHART)).await?;
    restricted(stage, "chart-dry").await?;
    for namespace in ["checkout", "7"] {
        stage.world.namespace(namespace).await?;
    }
    for (name, values) in value_sets()? {
        let rendered = helm.template("serin", "chart-dry", &values).await?;
        let args = [
            "apply",
            "--server-side",
            "--dry-run=server",
            "--force-conflicts",
            "-f",
            "-",
        ];
        let output = kubectl(stage, &args, &rendered).await?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{name}: {said}");
        // Of pods that would not be admitted, and of fields that are on their way out.
        ensure!(said.is_empty(), "{name}: {said}");
        let accepted = String::from_utf8_lossy(&output.stdout).lines().count();
        ensure!(
            accepted == documents(&rendered)?.len(),
            "{name}: {accepted} objects accepted"
        );
    }
    Ok(())
}

async fn chart_pods_pass_the_restricted_level(stage: &Stage) -> Result<()> {
    let helm = Helm::of(Path::new(CHART)).await?;
    restricted(stage, "chart-pods").await?;
    let pods: Api<Pod> = Api::namespaced(stage.world.admin(), "chart-pods");
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    for (name, values) in value_sets()? {
        let objects = documents(&helm.template("serin", "chart-pods", &values).await?)?;
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment");
        let template = &deployment.context("there is no Deployment")?["spec"]["template"];
        let mut pod = template.clone();
        pod["metadata"]["name"] = json!("serin");
        let made = pods
            .create(&dry, &serde_json::from_value(pod.clone())?)
            .await;
        ensure!(made.is_ok(), "{name}: {made:?}");
        // So that this is known to be looked at at all.
        let lapses = [
            ("/spec/securityContext/seccompProfile", "seccompProfile"),
            ("/spec/securityContext/runAsNonRoot", "runAsNonRoot"),
            (
                "/spec/containers/0/securityContext/capabilities",
                "unrestricted capabilities",
            ),
            (
                "/spec/containers/0/securityContext/allowPrivilegeEscalation",
                "allowPrivilegeEscalation",
            ),
        ];
        for (path, said) in lapses {
            let mut lax = pod.clone();
            *lax.pointer_mut(path).context(path)? = Value::Null;
            let answer = match pods.create(&dry, &serde_json::from_value(lax)?).await {
                Ok(_) => anyhow::bail!("{name}: a pod without {path} was admitted"),
                Err(err) => err.to_string(),
            };
            ensure!(
                answer.contains("violates PodSecurity \"restricted") && answer.contains(said),
                "{name}: {path}: {answer}"
            );
        }
    }
    Ok(())
}

/// A client with the operator's own token.
async fn as_operator(stage: &Stage) -> Result<Client> {
    let path = stage.world.kubeconfig_for("serin-system", "serin").await?;
    let kubeconfig = Kubeconfig::read_from(path)?;
    let mut config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.proxy_url = None;
    Ok(Client::try_from(config)?)
}

/// `group/resource[/subresource]` as the tables have it; the core group is empty.
fn attributes(verb: &str, path: &str, namespace: &str, name: &str) -> ResourceAttributes {
    let mut parts = path.splitn(3, '/').map(str::to_owned);
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    ResourceAttributes {
        verb: some(verb),
        group: parts.next(),
        resource: parts.next(),
        subresource: parts.next(),
        namespace: some(namespace),
        name: some(name),
        ..ResourceAttributes::default()
    }
}

async fn may(client: &Client, asked: ResourceAttributes) -> Result<bool> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(asked),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

const VERBS: [&str; 8] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
];

/// All that is allowed in every namespace.
const EVERYWHERE: [(&str, &[&str]); 12] = [
    ("serin.dev/canaries", &["get", "list", "watch", "patch"]),
    ("serin.dev/canaries/status", &["update"]),
    ("serin.dev/alertproviders", &["get"]),
    (
        "gateway.networking.k8s.io/httproutes",
        &["get", "list", "watch", "patch"],
    ),
    ("gateway.networking.k8s.io/gateways", &["list", "watch"]),
    (
        "gateway.networking.k8s.io/gatewayclasses",
        &["list", "watch"],
    ),
    ("/services", &["list", "watch"]),
    ("discovery.k8s.io/endpointslices", &["list", "watch"]),
    ("events.k8s.io/events", &["create"]),
    // What every identity of a cluster has: questions about itself.
    ("authorization.k8s.io/selfsubjectaccessreviews", &["create"]),
    ("authorization.k8s.io/selfsubjectrulesreviews", &["create"]),
    ("authentication.k8s.io/selfsubjectreviews", &["create"]),
];

/// Asks about each verb on each kind that the API server has, and on those that RBAC treats apart.
async fn chart_rights_are_those_that_are_used(stage: &Stage) -> Result<()> {
    let client = as_operator(stage).await?;
    let discovery = Discovery::new(stage.world.admin()).run().await?;
    let mut paths = BTreeSet::new();
    for group in discovery.groups() {
        for (resource, capabilities) in group.recommended_resources() {
            let path = format!("{}/{}", group.name(), resource.plural);
            for (below, _) in &capabilities.subresources {
                // Named either way by the API: `status` or `httproutes/status`.
                let last = below.plural.rsplit('/').next().unwrap_or_default();
                paths.insert(format!("{path}/{last}"));
            }
            paths.insert(path);
        }
    }
    for path in [
        "/secrets",
        "/pods/exec",
        "gateway.networking.k8s.io/httproutes/status",
        "coordination.k8s.io/leases",
    ] {
        ensure!(paths.contains(path), "discovery lacks {path}: {paths:?}");
    }
    let asked = |namespace: &'static str| {
        let mut verbs: Vec<_> = paths
            .iter()
            .flat_map(|path| VERBS.map(|verb| (verb, path.clone())))
            .collect();
        verbs.push(("impersonate", "/users".into()));
        verbs.push(("impersonate", "/serviceaccounts".into()));
        for verb in ["bind", "escalate"] {
            verbs.push((verb, "rbac.authorization.k8s.io/clusterroles".into()));
        }
        verbs.push(("*", "*/*".into()));
        let client = client.clone();
        async move {
            futures::stream::iter(verbs)
                .map(|(verb, path)| {
                    let client = client.clone();
                    async move {
                        let yes = may(&client, attributes(verb, &path, namespace, "")).await?;
                        anyhow::Ok(yes.then(|| format!("{verb} {path}")))
                    }
                })
                .buffer_unordered(8)
                .try_filter_map(|found| async { Ok(found) })
                .try_collect::<BTreeSet<String>>()
                .await
        }
    };
    let everywhere: BTreeSet<String> = EVERYWHERE
        .iter()
        .flat_map(|(path, verbs)| verbs.iter().map(move |verb| format!("{verb} {path}")))
        .collect();
    let found = asked("default").await?;
    ensure!(
        found == everywhere,
        "in any namespace; not expected: {:?}; missing: {:?}",
        found.difference(&everywhere).collect::<Vec<_>>(),
        everywhere.difference(&found).collect::<Vec<_>>()
    );
    // In its own namespace a lease of the one name, and creating one, whose name RBAC cannot see.
    let mut at_home = everywhere;
    at_home.insert("create coordination.k8s.io/leases".into());
    let found = asked("serin-system").await?;
    ensure!(found == at_home, "at home: {found:?}");
    for verb in VERBS {
        let lease = |name| attributes(verb, "coordination.k8s.io/leases", "serin-system", name);
        let (own, other) = (lease("serin"), lease("kube-scheduler"));
        let expected = verb == "create"
            || verb == "get"
            || verb == "list"
            || verb == "watch"
            || verb == "update";
        ensure!(may(&client, own).await? == expected, "{verb} its own lease");
        ensure!(
            may(&client, other).await? == (verb == "create"),
            "{verb} another's lease"
        );
    }
    Ok(())
}

async fn chart_secrets_are_those_listed(stage: &Stage) -> Result<()> {
    let (listed, other) = ("chart-listed", "chart-unlisted");
    for namespace in [listed, other] {
        stage.world.namespace(namespace).await?;
        for name in ["oncall", "database"] {
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": {"url": "http://x"}});
            stage.world.apply(&secret.to_string()).await?;
        }
    }
    let values = json!({"alerts": {"secrets": [{"namespace": listed, "names": ["oncall"]}]}});
    let helm = Helm::of(Path::new(CHART)).await?;
    let rendered = documents(&helm.template("serin", "serin-system", &values).await?)?;
    for object in rendered {
        if object["metadata"]["namespace"] == listed {
            stage.world.apply(&object.to_string()).await?;
        }
    }
    let client = as_operator(stage).await?;
    let table = [
        ("get", listed, "oncall", true),
        ("get", listed, "database", false),
        ("get", listed, "", false),
        ("list", listed, "", false),
        ("watch", listed, "", false),
        ("list", listed, "oncall", false),
        ("watch", listed, "oncall", false),
        ("update", listed, "oncall", false),
        ("patch", listed, "oncall", false),
        ("delete", listed, "oncall", false),
        ("create", listed, "", false),
        ("get", other, "oncall", false),
        ("get", "serin-system", "oncall", false),
        ("list", "", "", false),
    ];
    for (verb, namespace, name, expected) in table {
        let asked = attributes(verb, "/secrets", namespace, name);
        ensure!(
            may(&client, asked).await? == expected,
            "{verb} Secret {namespace}/{name}: not {expected}"
        );
    }
    // The same in deed.
    let secrets = |namespace| Api::<Secret>::namespaced(client.clone(), namespace);
    secrets(listed).get("oncall").await?;
    let refused = [
        secrets(listed).get("database").await.err(),
        secrets(listed).list(&ListParams::default()).await.err(),
        secrets(other).get("oncall").await.err(),
    ];
    for error in refused {
        ensure!(
            matches!(&error, Some(kube::Error::Api(status)) if status.code == 403),
            "{error:?}"
        );
    }
    for namespace in [listed, other] {
        kubectl(
            stage,
            &["delete", "namespace", namespace, "--wait=false"],
            "",
        )
        .await?;
    }
    Ok(())
}

/// `helm install`, `upgrade` and `uninstall`, beside the operator of the other tests.
async fn chart_goes_in_up_and_out(stage: &Stage) -> Result<()> {
    let helm = Helm::of(Path::new(CHART)).await?;
    let world = &stage.world;
    let definitions: Api<CustomResourceDefinition> = Api::all(world.admin());
    let deployments: Api<Deployment> = Api::namespaced(world.admin(), "chart-real");
    let options = ["--namespace", "chart-real", "--wait", "--timeout=60s"];

    // Definitions that were applied apart are not taken over unasked.
    let first = [&options[..], &["--create-namespace"]].concat();
    let refused = helm
        .on(world, &["install", "second"], &first, &json!({}))
        .await;
    let said = refused.err().context("helm took what is not its own")?;
    ensure!(
        said.to_string().contains("invalid ownership metadata"),
        "{said}"
    );
    let _ = helm.uninstall(world, "second", "chart-real").await;

    let taking = [&first[..], &["--take-ownership", "--force-conflicts"]].concat();
    let notes = helm
        .on(world, &["install", "second"], &taking, &json!({}))
        .await?;
    ensure!(notes.contains("deployment/second-serin"), "{notes}");
    let status = deployments.get("second-serin").await?.status;
    ensure!(
        status.as_ref().and_then(|s| s.available_replicas) == Some(2),
        "{status:?}"
    );

    // A definition from before is brought up to date.
    let old = json!([{"op": "remove", "path": "/spec/names/shortNames"}]);
    let patch = Patch::Json::<()>(serde_json::from_value(old)?);
    definitions
        .patch("canaries.serin.dev", &PatchParams::default(), &patch)
        .await?;
    let values = json!({"replicas": 1, "settle": "2s"});
    helm.on(world, &["upgrade", "second"], &options, &values)
        .await?;
    let names = definitions.get("canaries.serin.dev").await?.spec.names;
    ensure!(
        names.short_names.as_deref() == Some(&["cn".to_owned()]),
        "{names:?}"
    );
    let spec = deployments
        .get("second-serin")
        .await?
        .spec
        .unwrap_or_default();
    ensure!(spec.replicas == Some(1), "{spec:?}");
    let args = spec
        .template
        .spec
        .and_then(|pod| pod.containers.into_iter().next());
    ensure!(
        args.and_then(|container| container.args)
            .is_some_and(|args| args.contains(&"--settle=2s".into())),
        "the upgrade has changed nothing"
    );

    helm.uninstall(world, "second", "chart-real").await?;
    ensure!(deployments.get_opt("second-serin").await?.is_none());
    for name in ["canaries.serin.dev", "alertproviders.serin.dev"] {
        let found = definitions.get_opt(name).await?;
        let stays = found.is_some_and(|crd| crd.metadata.deletion_timestamp.is_none());
        ensure!(stays, "{name} went with the release");
    }
    kubectl(
        stage,
        &["delete", "namespace", "chart-real", "--wait=false"],
        "",
    )
    .await?;
    Ok(())
}
