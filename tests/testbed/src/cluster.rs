//! Talking to the world's API server.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::discovery::{ApiCapabilities, Scope, pinned_kind};
use kube::runtime::utils::Backoff;
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use serde_json::json;

/// Who applies what the testbed applies.
pub const FIELD_MANAGER: &str = "testbed";

/// Between two looks at something that is waited for.
const LOOK: Duration = Duration::from_millis(50);

/// Applies each document of a YAML text, in its order, server-side and with force.
pub(crate) async fn apply(client: &Client, yaml: &str) -> Result<()> {
    for document in documents(yaml)? {
        let object = serde_json::from_value(document).context("read the manifest")?;
        apply_object(client, object).await?;
    }
    Ok(())
}

/// The objects of a YAML text.
///
/// # Errors
/// When it is not YAML.
pub fn documents(yaml: &str) -> Result<Vec<serde_json::Value>> {
    let mut found = vec![];
    for document in serde_yaml::Deserializer::from_str(yaml) {
        let value = serde_json::Value::deserialize(document).context("read the manifest")?;
        if !value.is_null() {
            found.push(value);
        }
    }
    Ok(found)
}

async fn apply_object(client: &Client, object: DynamicObject) -> Result<()> {
    let name = object.name_any();
    let types = object
        .types
        .as_ref()
        .with_context(|| format!("{name} has no apiVersion and kind"))?;
    let gvk = GroupVersionKind::try_from(types)?;
    let (resource, capabilities) = kind(client, &gvk).await?;
    let api: Api<DynamicObject> = match (&capabilities.scope, object.namespace()) {
        (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
        (Scope::Namespaced, Some(namespace)) => {
            Api::namespaced_with(client.clone(), &namespace, &resource)
        }
        (Scope::Namespaced, None) => bail!("{} {name} names no namespace", gvk.kind),
    };
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(&name, &params, &Patch::Apply(&object))
        .await
        .with_context(|| format!("apply {} {name}", gvk.kind))?;
    Ok(())
}

/// A kind's place in the API. One whose CRD has just been established may not be served yet.
async fn kind(client: &Client, gvk: &GroupVersionKind) -> Result<(ApiResource, ApiCapabilities)> {
    let mut tries = 0;
    loop {
        match pinned_kind(client, gvk).await {
            Ok(found) => return Ok(found),
            Err(_) if tries < 40 => tries += 1,
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("find {}/{} {}", gvk.group, gvk.version, gvk.kind));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Applies the CRDs of a folder, all at once, and waits until they are served.
pub(crate) async fn apply_crds(client: &Client, folder: &Path) -> Result<()> {
    let mut manifests = vec![];
    for file in std::fs::read_dir(folder)? {
        let file = file?.path();
        manifests.push(
            std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?,
        );
    }
    ensure!(
        !manifests.is_empty(),
        "{} has no manifests",
        folder.display()
    );
    try_join_all(manifests.iter().map(|manifest| apply(client, manifest))).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    wait(
        "the CRDs to be established",
        Duration::from_secs(20),
        || async {
            let all = crds.list(&Default::default()).await?;
            Ok(all.iter().all(|crd| {
                let conditions = crd
                    .status
                    .iter()
                    .flat_map(|status| status.conditions.iter().flatten());
                conditions
                    .into_iter()
                    .any(|condition| condition.type_ == "Established" && condition.status == "True")
            }))
        },
    )
    .await
}

pub(crate) async fn make_namespace(client: &Client, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    wait(
        &format!("the namespace {name}"),
        Duration::from_secs(20),
        || async {
            let params = PatchParams::apply(FIELD_MANAGER).force();
            let made = namespaces
                .patch(name, &params, &Patch::Apply(&namespace))
                .await?;
            // One that is being deleted must be gone before it can be made anew.
            Ok(made.metadata.deletion_timestamp.is_none())
        },
    )
    .await
}

/// Asks until the answer is yes. An error is no answer; the last is told when time runs out.
pub async fn wait<F>(what: &str, time: Duration, mut asked: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    let mut last = None;
    let asking = async {
        loop {
            match asked().await {
                Ok(true) => return,
                Ok(false) => last = None,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(time, asking).await.is_ok() {
        return Ok(());
    }
    match last {
        Some(error) => Err(error.context(format!("waited {time:?} for {what}"))),
        None => bail!("waited {time:?} for {what}"),
    }
}

/// Watches come back quickly: the API server is near, and stopped only for a test.
pub(crate) fn backoff() -> impl Backoff {
    Steady
}

struct Steady;

impl Iterator for Steady {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::from_millis(200))
    }
}

impl Backoff for Steady {
    fn reset(&mut self) {}
}
