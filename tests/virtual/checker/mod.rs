//! What must be true at every moment: a small model of a release that knows nothing of the engine.
//!
//! It looks at each write as it happens, and at everything once a tick. What it finds wrong it
//! notes with the time; the world stops there.

mod moments;
mod story;
mod traffic;
mod writes;

use crate::plane::Clients;
use crate::prometheus::Prometheus;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// What is known of one Canary's present release.
#[derive(Debug, Default)]
pub struct Track {
    /// The routes' specs as they were before it.
    found: BTreeMap<String, Value>,
    /// Routes that someone else has changed since.
    foreign: BTreeSet<String>,
    /// The furthest step whose traffic was written to a route.
    reached: Option<usize>,
    /// When the plane first accepted what the present step asks for, by route.
    accepted: BTreeMap<String, Instant>,
    /// When the present step was entered.
    entered: Option<Instant>,
    /// Values of annotations that people have given, by verb.
    said: BTreeSet<(String, String)>,
    /// Since when traffic should be leaving the candidate, and why.
    pressing: Option<(Instant, String)>,
    /// Since when a bad candidate has had traffic in plain sight of Prometheus.
    harmed: Option<Instant>,
    /// The clock jumped in this step, so its length cannot be told.
    jumped: bool,
}

pub struct Checker {
    pub wrong: Vec<String>,
    /// How long a watch may be late, on top of all else.
    pub late: Duration,
    /// Releases that were seen to end, by outcome.
    pub ended: BTreeMap<String, u64>,
    /// Routes whose spec others have changed since they were made.
    pub meddled: BTreeSet<String>,
    /// Tells every status that is written.
    pub trace: bool,
    prometheus: Prometheus,
    tracks: BTreeMap<String, Track>,
    /// Nothing was broken since.
    calm_since: Instant,
    /// The last thing that an operator at rest may answer.
    caused: Instant,
    begun: Instant,
    clients: Clients,
    /// Versions that were ever made to fail.
    pub blamed: BTreeSet<String>,
}

impl Checker {
    pub fn new(prometheus: Prometheus) -> Self {
        let now = Instant::now();
        Self {
            wrong: Vec::new(),
            late: Duration::ZERO,
            ended: BTreeMap::new(),
            meddled: BTreeSet::new(),
            trace: false,
            prometheus,
            tracks: BTreeMap::new(),
            calm_since: now,
            caused: now,
            begun: now,
            clients: Clients::default(),
            blamed: BTreeSet::new(),
        }
    }

    /// A request was broken, or the operator killed.
    pub fn trouble(&mut self) {
        self.calm_since = Instant::now();
    }

    pub fn jumped(&mut self) {
        for track in self.tracks.values_mut() {
            track.jumped = true;
        }
        self.caused = Instant::now();
    }

    fn wrong(&mut self, what: impl AsRef<str>) {
        let at = self.begun.elapsed().as_secs_f64();
        if self.wrong.len() < 20 {
            self.wrong.push(format!("at {at:.3} s: {}", what.as_ref()));
        }
    }

    /// How long the operator may take now to do what is pressing.
    fn patience(&self) -> Duration {
        /// The longest backoff of a reconcile, and a request that timed out before.
        const AFTER_TROUBLE: Duration = Duration::from_secs(80);
        let at_once = Duration::from_secs(2) + self.late;
        if self.calm_since > self.begun && self.calm_since.elapsed() < AFTER_TROUBLE {
            return AFTER_TROUBLE + at_once;
        }
        at_once
    }
}

fn names(list: &Value) -> Vec<String> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    list.iter()
        .filter_map(|item| Some(item["name"].as_str()?.to_owned()))
        .collect()
}

/// Names of the routes that a Canary is about.
fn routes_of(canary: &Value) -> Vec<String> {
    let mut routes = names(&canary["spec"]["routes"]);
    routes.extend(names(&canary["status"]["routes"]));
    routes.sort();
    routes.dedup();
    routes
}

fn under_way(status: &Value) -> bool {
    status["release"]["stage"]
        .as_str()
        .is_some_and(|stage| stage != "Ended")
}

fn stable_of(status: &Value) -> &str {
    crate::text(&status["stable"]["backend"], "name")
}

fn candidate_of(status: &Value) -> &str {
    crate::text(&status["release"]["candidate"], "name")
}
