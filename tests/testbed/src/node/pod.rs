//! One pod's life, from its binding to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::behaviour::Behaviour;
use super::server::Server;
use super::status::{Ended, Report, State, now};
use crate::NODE;
use crate::ground::Addresses;
use crate::samples::PORT;

/// Between two tries of a write that failed.
const RETRY: Duration = Duration::from_millis(200);
/// A kubelet begins at 10 s and ends at 5 min.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LAST_BACKOFF: Duration = Duration::from_secs(10);
/// What a hanging request is given when nothing bounds it.
const GRACE: Duration = Duration::from_secs(30);

pub(super) struct Life {
    pub api: Api<Pod>,
    pub name: String,
    pub pod: watch::Receiver<Arc<Pod>>,
    pub number: u16,
    pub addresses: Addresses,
}

/// How one run of the containers ended.
enum Run {
    Crashed,
    Exited,
    Terminated(Server),
}

impl Life {
    /// Runs until the pod is deleted. Dropped before, the pod dies at once.
    pub(super) async fn live(mut self) {
        let ip = self.addresses.pod_ip(self.number);
        let pod = self.pod.borrow().clone();
        if pod
            .spec
            .as_ref()
            .is_none_or(|spec| spec.node_name.is_none())
        {
            self.bind().await;
        }
        let mut report = Report::new(ip);
        let behaviour = match Behaviour::of(&pod) {
            Ok(behaviour) => behaviour,
            Err(message) => {
                self.write(report.status(&pod, &waiting("CreateContainerConfigError", message)))
                    .await;
                self.terminating().await;
                return self.delete().await;
            }
        };
        let Some(served) = self.run(&pod, &mut report, &behaviour).await else {
            return self.delete().await;
        };
        if let Some(drain) = behaviour.drain {
            let grace = self.grace();
            let drain = drain.min(grace);
            served.stop(drain, grace - drain).await;
        } else {
            drop(served);
        }
        self.delete().await;
    }

    /// From the image's pull to the word to terminate; answers with the server if there is one then.
    async fn run(
        &mut self,
        pod: &Pod,
        report: &mut Report,
        behaviour: &Behaviour,
    ) -> Option<Server> {
        if !behaviour.pulls {
            self.fail_to_pull(pod, report).await;
            return None;
        }
        if behaviour.start_after > Duration::ZERO {
            self.write(report.status(pod, &waiting("ContainerCreating", String::new())))
                .await;
            if !self.wait(behaviour.start_after).await {
                return None;
            }
        }
        let restarts = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.restart_policy.as_deref())
            .unwrap_or("Always");
        let mut backoff = FIRST_BACKOFF;
        loop {
            let since = now();
            let code = match self
                .run_once(pod, report, behaviour, since, restarts == "Always")
                .await
            {
                Run::Terminated(server) => return Some(server),
                Run::Crashed => 1,
                Run::Exited => 0,
            };
            let until = now();
            if restarts == "Never" || (restarts == "OnFailure" && code == 0) {
                self.write(report.status(pod, &State::Finished { since, until, code }))
                    .await;
                self.terminating().await;
                return None;
            }
            report.last = Some(Ended { since, until, code });
            let message = format!("back-off {backoff:?} restarting failed container");
            self.write(report.status(pod, &waiting("CrashLoopBackOff", message)))
                .await;
            if !self.wait(backoff).await {
                return None;
            }
            backoff = (backoff * 2).min(LAST_BACKOFF);
            report.restarts += 1;
        }
    }

    async fn run_once(
        &mut self,
        pod: &Pod,
        report: &mut Report,
        behaviour: &Behaviour,
        since: Timestamp,
        forever: bool,
    ) -> Run {
        if behaviour.crash_after == Some(Duration::ZERO) {
            return Run::Crashed;
        }
        let Some(server) = self.serve(pod, behaviour).await else {
            return Run::Crashed;
        };
        let begun = Instant::now();
        let never = begun + Duration::from_secs(86_400 * 365);
        let mut ready_at = behaviour.ready_after.map_or(never, |after| begun + after);
        let crash_at = behaviour.crash_after.map_or(never, |after| begun + after);
        let exit_at = if forever {
            never
        } else {
            begun + behaviour.exit_after
        };
        let running = |ready| State::Running { since, ready };
        if behaviour.ready_after == Some(Duration::ZERO) {
            ready_at = never;
            self.write(report.status(pod, &running(true))).await;
        } else {
            self.write(report.status(pod, &running(false))).await;
        }
        loop {
            tokio::select! {
                () = self.terminating() => return Run::Terminated(server),
                () = sleep_until(crash_at) => return Run::Crashed,
                () = sleep_until(exit_at) => return Run::Exited,
                () = sleep_until(ready_at) => {
                    ready_at = never;
                    self.write(report.status(pod, &running(true))).await;
                }
            }
        }
    }

    async fn serve(&self, pod: &Pod, behaviour: &Behaviour) -> Option<Server> {
        let ip = self.addresses.of_pod(self.addresses.pod_ip(self.number))?;
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let ports = containers.flat_map(|container| container.ports.iter().flatten());
        let mut listen: Vec<SocketAddr> = ports
            .filter(|port| {
                port.protocol
                    .as_deref()
                    .is_none_or(|protocol| protocol == "TCP")
            })
            .filter_map(|port| Some((ip, u16::try_from(port.container_port).ok()?).into()))
            .collect();
        if listen.is_empty() {
            listen.push((ip, PORT).into());
        }
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        // FNV-1a: the same pod behaves the same in every build.
        let seed = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        });
        match Server::start(&self.name, seed, behaviour.clone(), &listen).await {
            Ok(server) => Some(server),
            Err(error) => {
                tracing::warn!(pod = %self.name, ?listen, %error, "a pod cannot listen");
                None
            }
        }
    }

    async fn fail_to_pull(&mut self, pod: &Pod, report: &mut Report) {
        let image = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.containers.first()?.image.clone())
            .unwrap_or_default();
        let failed = format!("failed to pull and unpack image \"{image}\": not found");
        self.write(report.status(pod, &waiting("ErrImagePull", failed)))
            .await;
        if self.wait(FIRST_BACKOFF).await {
            let message = format!("Back-off pulling image \"{image}\"");
            self.write(report.status(pod, &waiting("ImagePullBackOff", message)))
                .await;
            self.terminating().await;
        }
    }

    /// Returns once the pod is told to terminate.
    async fn terminating(&mut self) {
        let told = self
            .pod
            .wait_for(|pod| pod.metadata.deletion_timestamp.is_some())
            .await
            .is_ok();
        if !told {
            // The pod is gone, and this task about to be ended with it.
            std::future::pending::<()>().await;
        }
    }

    /// `false` when the pod is told to terminate before.
    async fn wait(&mut self, time: Duration) -> bool {
        tokio::select! {
            () = self.terminating() => false,
            () = sleep(time) => true,
        }
    }

    fn grace(&self) -> Duration {
        let seconds = self.pod.borrow().metadata.deletion_grace_period_seconds;
        seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(GRACE, Duration::from_secs)
    }

    async fn bind(&self) {
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": self.name},
            "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
        });
        loop {
            match self
                .api
                .create_subresource::<_, Value>(
                    "binding",
                    &self.name,
                    &PostParams::default(),
                    &binding,
                )
                .await
            {
                Err(error) if passes(&error) => sleep(RETRY).await,
                // Bound, or bound before, or gone.
                Ok(_) | Err(_) => return,
            }
        }
    }

    async fn write(&self, status: Value) {
        loop {
            match self
                .api
                .patch_status(
                    &self.name,
                    &PatchParams::default(),
                    &Patch::Strategic(&status),
                )
                .await
            {
                Err(error) if passes(&error) => sleep(RETRY).await,
                Err(error) => {
                    return tracing::debug!(pod = %self.name, %error, "status not written");
                }
                Ok(_) => return,
            }
        }
    }

    /// The pod's end, as a kubelet confirms it.
    async fn delete(&self) {
        let uid = self.pod.borrow().metadata.uid.clone();
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions {
                uid,
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        while let Err(error) = self.api.delete(&self.name, &params).await {
            if !passes(&error) {
                return;
            }
            sleep(RETRY).await;
        }
    }
}

fn waiting(reason: &'static str, message: String) -> State {
    State::Waiting { reason, message }
}

/// Whether a write may succeed when it is tried again: the API server is away or busy.
fn passes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        _ => true,
    }
}
