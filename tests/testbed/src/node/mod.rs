//! The node: what a scheduler and a kubelet do, for pods that run inside this process.

mod behaviour;
mod pod;
mod server;
mod status;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::Result;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use crate::ground::Addresses;
use crate::{NODE, binaries, cluster};

/// Makes the Node object. It must be there before any pod is bound: the
/// EndpointSlice controller skips pods of an unknown node, and backs off for long.
pub(crate) async fn register(client: &Client) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let params = PatchParams::apply(cluster::FIELD_MANAGER).force();
    let node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE, "labels": {"kubernetes.io/hostname": NODE, "kubernetes.io/os": "linux"}},
    });
    nodes.patch(NODE, &params, &Patch::Apply(&node)).await?;
    let capacity = json!({"cpu": "64", "memory": "256Gi", "pods": "10000"});
    let status = json!({"status": {
        "capacity": capacity,
        "allocatable": capacity,
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": NODE}],
        "conditions": [{
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "the testbed's node agent is running",
            "lastHeartbeatTime": status::now(),
            "lastTransitionTime": status::now(),
        }],
        "nodeInfo": {
            "architecture": "amd64",
            "bootID": "",
            "containerRuntimeVersion": "testbed://1",
            "kernelVersion": "",
            "kubeProxyVersion": "",
            "kubeletVersion": binaries::KUBERNETES,
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": "testbed",
            "systemUUID": "",
        },
    }});
    nodes
        .patch_status(NODE, &PatchParams::default(), &Patch::Merge(&status))
        .await?;
    Ok(())
}

/// Serves every pod there is, until it is dropped.
pub(crate) async fn run(client: Client, addresses: Addresses) {
    let mut node = Agent {
        client: client.clone(),
        addresses,
        pods: HashMap::new(),
        next: 0,
    };
    let events =
        watcher(Api::<Pod>::all(client), watcher::Config::default()).backoff(cluster::backoff());
    futures::pin_mut!(events);
    // While a new list comes in: the pods that are not seen in it are gone.
    let mut gone = HashSet::new();
    loop {
        match events.try_next().await {
            Ok(Some(watcher::Event::Init)) => gone = node.pods.keys().cloned().collect(),
            Ok(Some(watcher::Event::InitApply(pod))) => {
                gone.remove(pod.metadata.uid.as_deref().unwrap_or_default());
                node.see(pod);
            }
            Ok(Some(watcher::Event::InitDone)) => node.pods.retain(|uid, _| !gone.contains(uid)),
            Ok(Some(watcher::Event::Apply(pod))) => node.see(pod),
            Ok(Some(watcher::Event::Delete(pod))) => {
                node.pods
                    .remove(pod.metadata.uid.as_deref().unwrap_or_default());
            }
            Ok(None) => return,
            Err(error) => tracing::debug!(%error, "the watch on pods"),
        }
    }
}

struct Agent {
    client: Client,
    addresses: Addresses,
    pods: HashMap<String, Running>,
    next: u16,
}

struct Running {
    pod: watch::Sender<Arc<Pod>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Agent {
    fn see(&mut self, pod: Pod) {
        let (Some(uid), Some(name)) = (pod.metadata.uid.clone(), pod.metadata.name.clone()) else {
            return;
        };
        if let Some(running) = self.pods.get(&uid) {
            running.pod.send_replace(Arc::new(pod));
            return;
        }
        let finished = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref());
        let elsewhere = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.as_deref())
            .is_some_and(|node| node != NODE);
        if elsewhere || matches!(finished, Some("Succeeded" | "Failed")) {
            return;
        }
        // Addresses come round after 65,000 pods; none ends in 0 or 255.
        self.next = self.next.wrapping_add(1);
        while matches!(self.next % 256, 0 | 255) {
            self.next = self.next.wrapping_add(1);
        }
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let (sender, receiver) = watch::channel(Arc::new(pod));
        let life = pod::Life {
            api: Api::namespaced(self.client.clone(), &namespace),
            name,
            pod: receiver,
            number: self.next,
            addresses: self.addresses,
        };
        self.pods.insert(
            uid,
            Running {
                pod: sender,
                task: tokio::spawn(life.live()),
            },
        );
    }
}
