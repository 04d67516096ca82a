//! A pod's status, as a kubelet would write it.

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// What the pod's containers are at. (All of one pod are at the same.)
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    Waiting {
        reason: &'static str,
        message: String,
    },
    Running {
        since: Timestamp,
        ready: bool,
    },
    /// Of a pod that is not started again.
    Finished {
        since: Timestamp,
        until: Timestamp,
        code: i32,
    },
}

/// How the run before this one ended.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ended {
    pub since: Timestamp,
    pub until: Timestamp,
    pub code: i32,
}

/// What a pod's status is made of, beside the pod.
#[derive(Debug)]
pub(super) struct Report {
    pub ip: Ipv4Addr,
    pub started: Timestamp,
    pub restarts: u32,
    pub last: Option<Ended>,
    /// Since when `Ready` has been what it is: the ReplicaSet controller counts
    /// minReadySeconds from here.
    ready: (bool, Timestamp),
}

impl Report {
    pub(super) fn new(ip: Ipv4Addr) -> Report {
        let now = now();
        Report {
            ip,
            started: now,
            restarts: 0,
            last: None,
            ready: (false, now),
        }
    }

    /// A patch for `pods/NAME/status`.
    pub(super) fn status(&mut self, pod: &Pod, state: &State) -> Value {
        let ready = matches!(state, State::Running { ready: true, .. });
        if self.ready.0 != ready {
            self.ready = (ready, now());
        }
        let phase = match state {
            State::Waiting { .. } if self.last.is_some() => "Running",
            State::Waiting { .. } => "Pending",
            State::Running { .. } => "Running",
            State::Finished { code: 0, .. } => "Succeeded",
            State::Finished { .. } => "Failed",
        };
        let condition = |name: &str, status: bool, since: Timestamp| {
            let mut condition = json!({
                "type": name,
                "status": if status { "True" } else { "False" },
                "lastTransitionTime": since,
            });
            if !status {
                condition["reason"] = match state {
                    State::Finished { code: 0, .. } => "PodCompleted",
                    State::Finished { .. } => "PodFailed",
                    State::Waiting { .. } | State::Running { .. } => "ContainersNotReady",
                }
                .into();
            }
            condition
        };
        json!({"status": {
            "phase": phase,
            "hostIP": "127.0.0.1",
            "hostIPs": [{"ip": "127.0.0.1"}],
            "podIP": self.ip,
            "podIPs": [{"ip": self.ip}],
            "startTime": self.started,
            "conditions": [
                condition("PodScheduled", true, self.started),
                condition("Initialized", true, self.started),
                condition("ContainersReady", ready, self.ready.1),
                condition("Ready", ready, self.ready.1),
            ],
            "containerStatuses": self.containers(pod, state, ready),
        }})
    }

    fn containers(&self, pod: &Pod, state: &State, ready: bool) -> Vec<Value> {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let ended = |ended: &Ended| {
            json!({"terminated": {
                "exitCode": ended.code,
                "reason": if ended.code == 0 { "Completed" } else { "Error" },
                "startedAt": ended.since,
                "finishedAt": ended.until,
            }})
        };
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        containers
            .map(|container| {
                let now = match state {
                    State::Waiting { reason, message } => json!({"waiting": {"reason": reason, "message": message}}),
                    State::Running { since, .. } => json!({"running": {"startedAt": since}}),
                    State::Finished { since, until, code } => ended(&Ended { since: *since, until: *until, code: *code }),
                };
                let pulled = !matches!(state, State::Waiting { .. }) || self.last.is_some();
                let id = if pulled { format!("testbed://{uid}/{}/{}", container.name, self.restarts) } else { String::new() };
                json!({
                    "name": container.name,
                    "image": container.image,
                    "imageID": if pulled { container.image.as_deref().unwrap_or_default() } else { "" },
                    "containerID": id,
                    "ready": ready,
                    "started": matches!(state, State::Running { .. }),
                    "restartCount": self.restarts,
                    "state": now,
                    "lastState": self.last.as_ref().map_or(json!({}), ended),
                })
            })
            .collect()
    }
}

/// In whole seconds, which is all that the API keeps.
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}
