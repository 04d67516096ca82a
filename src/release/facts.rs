//! What a decision rests on, and what it is.

use crate::analysis::{Gap, Measured, Reading};
use crate::api::{AlertEvent, Backend, CanarySpec, CanaryStatus, Command, RouteRecord, Time};
use chrono::TimeDelta;

/// All that was found, read once.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    pub name: &'a str,
    pub namespace: &'a str,
    pub generation: i64,
    /// The Canary is being deleted.
    pub deleting: bool,
    /// The Canary carries our finalizer.
    pub held: bool,
    pub spec: &'a CanarySpec,
    /// The newest status: as written, and what was learned since.
    pub status: &'a CanaryStatus,
    /// Annotations by which a person drives the release.
    pub commands: Vec<Command>,
    /// What keeps the spec from being carried out, whatever the release does.
    pub obstacle: Option<Obstacle>,
    /// What serves in the routes now, where status does not know of a stable backend, or the routes
    /// hold another.
    pub sight: Sight,
    /// One for each of `spec.routes`, in order.
    pub routes: Vec<RouteFact>,
    /// The backend that is being released, or else the one that the spec names.
    pub candidate: BackendFact,
    pub answers: Vec<Answer>,
    /// Alerts that were delivered.
    pub delivered: Vec<String>,
}

/// Something that must be mended by a person before a release can begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// A word for conditions and events.
    pub reason: &'static str,
    /// A sentence that names the field or object and the fix.
    pub message: String,
}

/// What the managed rules serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// One backend, plainly.
    Serves(Backend),
    /// It cannot be told.
    Unclear(Obstacle),
}

#[derive(Debug, Clone)]
pub struct RouteFact {
    /// As people say it: `HTTPRoute checkout`.
    pub title: String,
    pub state: RouteState,
    /// Why the newest write of what the status wants has failed, more than once in a row.
    pub unwritten: Option<String>,
}

/// That a route does not carry what it should because it could not be written, as a sentence.
pub(super) fn unwritten(route: &RouteFact) -> Option<String> {
    match (&route.state, &route.unwritten) {
        (RouteState::Found { carries: false, .. }, Some(why)) => {
            Some(format!("{} could not be written: {why}", route.title))
        }
        (RouteState::Found { .. } | RouteState::Missing, _) => None,
    }
}

#[derive(Debug, Clone)]
pub enum RouteState {
    /// Not there.
    Missing,
    Found {
        uid: String,
        /// How the route would be given back, surveyed now against the stable backend and the target.
        survey: Result<RouteRecord, Obstacle>,
        /// The route carries what the status wants.
        carries: bool,
        acceptance: Acceptance,
        /// How long after acceptance the data plane may take to split as told.
        settle: TimeDelta,
        /// At rest: a rule holds the stable backend.
        holds_stable: bool,
    },
}

/// What a route's parents say of its present generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acceptance {
    Accepted,
    /// Not yet, and who is awaited.
    Pending(String),
    /// No, by whom and why.
    Refused(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendFact {
    /// There, and able to serve as far as can be told.
    Ready,
    /// There, with no ready endpoint.
    NoEndpoints,
    /// Not there.
    Missing,
    /// There, without the port.
    NoPort,
}

/// The answer to one [`Question`](super::Question).
#[derive(Debug, Clone)]
pub enum Answer {
    /// Raw counters of both versions, or why there are none.
    ErrorRate(Result<Reading, Gap>),
    Metric {
        name: String,
        measured: Measured,
    },
}

/// What is to be done, in the order: status, effects, events.
#[derive(Debug, Clone)]
pub struct Decision {
    pub status: CanaryStatus,
    /// The status says something that must not be lost; else it is only newer samples, which can wait.
    pub urgent: bool,
    pub effects: Vec<Effect>,
    pub events: Vec<Note>,
    /// When to look again, if nothing happens before.
    pub wake: Option<Time>,
}

/// Makes the world equal to the status. Doing one twice is harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Put the finalizer on.
    Hold,
    /// Make every route carry what the status wants.
    Shift,
    /// Remove an annotation that was obeyed.
    Forget(Command),
    /// Take the finalizer off.
    LetGo,
}

/// Something to tell people as an event of the Canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    pub reason: &'static str,
    pub warning: bool,
    pub message: String,
}

impl Note {
    pub(super) fn of(event: AlertEvent, message: String) -> Self {
        let warning = match event {
            AlertEvent::Stalled
            | AlertEvent::RolledBack
            | AlertEvent::DataLost
            | AlertEvent::RouteContested => true,
            AlertEvent::Started
            | AlertEvent::StepReached
            | AlertEvent::WaitingForApproval
            | AlertEvent::Promoted
            | AlertEvent::Aborted
            | AlertEvent::Superseded => false,
        };
        Self {
            reason: event.name(),
            warning,
            message,
        }
    }
}
