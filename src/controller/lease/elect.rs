//! The task that does what [`decide`] says, on a real Lease.

use super::decide::{Action, Moment, Observed, Record, Timing, decide};
use super::leadership::{Leadership, Seat, moment};
use crate::api::MANAGER;
use crate::telemetry::Health;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

/// Where this replica stands for election, and as whom.
#[derive(Debug, Clone)]
pub struct Election {
    pub namespace: String,
    pub name: String,
    /// No two processes that run at once may have the same.
    pub identity: String,
    pub timing: Timing,
}

/// A replica that stands for election.
#[derive(Debug)]
pub struct Candidacy {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl Election {
    /// Stands for election once everything that is watched has been seen.
    #[must_use]
    pub fn stand(
        self,
        watching: &Client,
        client: Client,
        health: Health,
    ) -> (Leadership, Candidacy) {
        let (seat, leadership) = Leadership::contested();
        let (stop, stopped) = oneshot::channel();
        let Self {
            namespace,
            name,
            identity,
            timing,
        } = self;
        let candidate = Candidate {
            api: Api::namespaced(client, &namespace),
            watched: Api::namespaced(watching.clone(), &namespace),
            observed: Observed::nothing(identity.clone(), timing),
            lease: None,
            name,
            identity,
            timing,
            seat,
        };
        let task = tokio::spawn(async move {
            // A replica that cannot see must not keep others from leading.
            let mut stopped = stopped;
            tokio::select! {
                () = health.until_ready() => candidate.run(stopped).await,
                _ = &mut stopped => {}
            }
        });
        (leadership, Candidacy { task, stop })
    }
}

impl Candidacy {
    /// Leaves the lease to others at once. All writes must have ended before.
    pub async fn resign(self) {
        let Self { task, stop } = self;
        // It is gone only if it broke down, and then there is nothing to stop.
        let _ = stop.send(());
        let abort = task.abort_handle();
        if timeout(Duration::from_secs(3), task).await.is_err() {
            abort.abort();
        }
    }
}

struct Candidate {
    api: Api<Lease>,
    watched: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
    observed: Observed,
    /// The Lease as it was last seen; none if there is none.
    lease: Option<Lease>,
    seat: Seat,
}

impl Candidate {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut changes = watcher::watch_object(self.watched.clone(), &self.name)
            .default_backoff()
            .boxed();
        info!(
            lease = self.name,
            identity = self.identity,
            "standing for election"
        );
        let mut told = None;
        loop {
            // What the watch has brought meanwhile counts before anything is decided.
            while let Some(Some(change)) = changes.next().now_or_never() {
                self.hear(change);
            }
            self.tell(&mut told);
            let action = decide(&self.observed, moment());
            let act = async {
                match action {
                    Action::Look => self.look().await,
                    Action::Acquire | Action::Renew => self.write().await,
                    Action::StepDown => self.step_down(),
                    Action::Wait(until) => tokio::select! {
                        () = sleep(until.saturating_sub(moment())) => {}
                        Some(change) = changes.next() => self.hear(change),
                    },
                }
            };
            tokio::select! {
                () = act => {}
                _ = &mut stopped => break,
            }
        }
        drop(changes);
        self.release().await;
    }

    /// Something from the watch, which may be behind what our own requests have brought.
    fn hear(&mut self, change: watcher::Result<Option<Lease>>) {
        match change {
            Ok(Some(lease)) if behind(&lease, self.lease.as_ref()) => {}
            Ok(lease) => self.see(lease),
            Err(err) => warn!(error = %err, "the watch of the lease was interrupted"),
        }
    }

    fn see(&mut self, lease: Option<Lease>) {
        self.observed.see(lease.as_ref().map(record), moment());
        self.lease = lease;
    }

    async fn look(&mut self) {
        match timeout(self.timing.patience, self.api.get_opt(&self.name)).await {
            Ok(Ok(lease)) => self.see(lease),
            Ok(Err(err)) => self.failed("read", &err.to_string()),
            Err(_) => self.failed("read", "no answer came in time"),
        }
    }

    async fn write(&mut self) {
        let next = self.ours();
        let options = options();
        let sent = moment();
        let request = async {
            match &self.lease {
                Some(_) => self.api.replace(&self.name, &options, &next).await,
                None => self.api.create(&options, &next).await,
            }
        };
        match timeout(self.timing.patience, request).await {
            Ok(Ok(written)) => {
                self.observed.wrote(record(&written), sent);
                self.lease = Some(written);
                if let Some(until) = self.observed.leads_until() {
                    self.seat.lead(until);
                }
            }
            // Someone was quicker, or it is gone, or there was one after all.
            Ok(Err(kube::Error::Api(refused))) if matches!(refused.code, 404 | 409) => {
                debug!(error = %refused, "the lease is not what it was");
                self.observed.refuted(moment() + self.timing.retry / 5);
            }
            Ok(Err(err)) => self.failed("write", &err.to_string()),
            // It may have been written; then the watch or a conflict will tell.
            Err(_) => self.failed("write", "no answer came in time"),
        }
    }

    fn failed(&mut self, verb: &str, why: &str) {
        warn!(lease = self.name, "cannot {verb} the lease: {why}");
        self.observed.failed(moment() + jittered(self.timing.retry));
    }

    /// The Lease as it is to be with our name, on the condition that it is as it was seen.
    fn ours(&self) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut lease = self.lease.clone().unwrap_or_default();
        lease.metadata.name = Some(self.name.clone());
        lease.metadata.managed_fields = None;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            spec.lease_transitions =
                Some(spec.lease_transitions.map_or(0, |n| n.saturating_add(1)));
            spec.acquire_time = Some(now.clone());
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.renew_time = Some(now);
        spec.lease_duration_seconds = i32::try_from(self.timing.duration.as_secs()).ok();
        lease
    }

    fn step_down(&mut self) {
        self.observed.step_down();
        self.seat.step_down();
    }

    async fn release(mut self) {
        let led = self.observed.leads_until().is_some();
        self.step_down();
        if !led {
            return;
        }
        // A renewal that was on its way may have changed it meanwhile.
        for _ in 0..2 {
            let lease = match self.api.get_opt(&self.name).await {
                Ok(Some(lease)) if record(&lease).holder.as_ref() == Some(&self.identity) => lease,
                Ok(_) => return,
                Err(err) => return warn!(error = %err, "cannot release the lease"),
            };
            let (options, lease) = (options(), left(lease));
            match self.api.replace(&self.name, &options, &lease).await {
                Ok(_) => return info!(lease = self.name, "lease released"),
                Err(kube::Error::Api(refused)) if refused.code == 409 => {}
                Err(err) => return warn!(error = %err, "cannot release the lease"),
            }
        }
    }

    /// Says who leads, when that has changed.
    fn tell(&self, told: &mut Option<(bool, Option<String>)>) {
        let leads = self.observed.leads_until().is_some();
        let holder = self.observed.holder();
        if let Some((led, known)) = told.as_ref()
            && *led == leads
            && known.as_deref() == holder
        {
            return;
        }
        let led = told.as_ref().is_some_and(|(led, _)| *led);
        match (led, leads) {
            (false, true) => info!(identity = self.identity, "leading"),
            (true, false) => warn!(identity = self.identity, "leading no longer"),
            (true, true) => {}
            (false, false) => {
                if let Some(leader) = holder {
                    info!(leader, "standing by");
                }
            }
        }
        *told = Some((leads, holder.map(str::to_owned)));
    }
}

fn options() -> PostParams {
    PostParams {
        field_manager: Some(MANAGER.into()),
        ..PostParams::default()
    }
}

/// A Lease that nobody holds.
fn left(mut lease: Lease) -> Lease {
    lease.metadata.managed_fields = None;
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(String::new()),
        lease_duration_seconds: Some(1),
        renew_time: Some(MicroTime(Timestamp::now())),
        ..lease.spec.unwrap_or_default()
    });
    lease
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    Record {
        version: lease.resource_version().unwrap_or_default(),
        holder: spec
            .and_then(|spec| spec.holder_identity.clone())
            .filter(|holder| !holder.is_empty()),
        duration: spec
            .and_then(|spec| spec.lease_duration_seconds)
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map(Duration::from_secs),
    }
}

/// Whether a Lease is an older state of the same object.
fn behind(lease: &Lease, known: Option<&Lease>) -> bool {
    let version = |lease: &Lease| lease.resource_version()?.parse::<u64>().ok();
    known.is_some_and(|known| {
        lease.uid() == known.uid()
            && version(lease)
                .zip(version(known))
                .is_some_and(|(new, old)| new < old)
    })
}

/// From two thirds to four thirds of a span, so that replicas do not march in step.
fn jittered(span: Duration) -> Moment {
    let part = u32::try_from(random() % 1000).unwrap_or_default();
    span * (2000 + 2 * part) / 3000
}

/// A number that no other process has. Each hasher of the standard library is keyed with the system's random numbers.
#[must_use]
pub fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
