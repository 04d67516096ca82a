//! What must hold at every tick, whether anyone writes or not.

use super::story::stop;
use super::traffic::shares;
use super::writes::canaries;
use super::{Checker, candidate_of, routes_of, stable_of, under_way};
use crate::NAMESPACE;
use crate::plane::{Clients, Health};
use crate::prometheus::State;
use crate::store::Objects;
use crate::text;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// A version that fails one request in ten, or more, loses its traffic within this, where the metrics can tell.
const HARM: Duration = Duration::from_secs(25);

impl Checker {
    pub fn tick(
        &mut self,
        objects: &Objects,
        clients: &Clients,
        health: &BTreeMap<String, Health>,
    ) {
        self.failures(clients, health);
        let all: Vec<&Value> = canaries(objects).collect();
        for canary in all {
            self.pressing(canary, objects);
            self.harm(canary, objects, health);
        }
    }

    /// No client sees a failure that no version is to blame for.
    fn failures(&mut self, clients: &Clients, health: &BTreeMap<String, Health>) {
        let bad = health
            .iter()
            .filter(|(_, health)| **health != Health::default());
        self.blamed.extend(bad.map(|(name, _)| name.clone()));
        for (by, count) in &clients.failed_by {
            let known = self.clients.failed_by.get(by).copied().unwrap_or(0);
            if *count > known && !self.blamed.contains(by) {
                self.wrong(format!("(9) {} requests failed: {by}", count - known));
            }
        }
        self.clients = clients.clone();
    }

    /// Traffic leaves as soon as it is known that it must.
    fn pressing(&mut self, canary: &Value, objects: &Objects) {
        let name = text(&canary["metadata"], "name").to_owned();
        let status = &canary["status"];
        let exposed = under_way(status) && exposed(canary, objects);
        let why = match text(&status["release"], "stage") {
            "Restoring" => Some("it is being taken back"),
            "Stepping" | "Promoting" => stop(canary),
            _ => None,
        };
        let why = why.filter(|_| exposed);
        let patience = self.patience();
        let Some(track) = self.tracks.get_mut(&name) else {
            return;
        };
        match (why, &track.pressing) {
            (None, _) => track.pressing = None,
            (Some(why), None) => track.pressing = Some((Instant::now(), why.to_owned())),
            (Some(_), Some((since, first))) => {
                let long = since.elapsed();
                if long > patience {
                    let what =
                        format!("(3) {name} has traffic {long:?} after it should leave: {first}");
                    track.pressing = None;
                    self.wrong(what);
                }
            }
        }
    }

    fn harm(&mut self, canary: &Value, objects: &Objects, health: &BTreeMap<String, Health>) {
        let name = text(&canary["metadata"], "name").to_owned();
        let status = &canary["status"];
        let candidate = candidate_of(status);
        let bad = health
            .get(candidate)
            .is_some_and(|health| health.errors >= 0.1 || health.hangs);
        let stable_bad = health
            .get(stable_of(status))
            .is_some_and(|health| *health != Health::default());
        let weighed = under_way(status) && weighed(canary, objects);
        let judged = status["release"]["plan"]["analysis"]
            .get("errorRate")
            .is_some();
        let calm = self.calm_since == self.begun || self.calm_since.elapsed() > HARM * 4;
        let plain = bad && weighed && judged && calm && !stable_bad;
        let up = self.prometheus.state() == State::Up;
        let late = self.late;
        let Some(track) = self.tracks.get_mut(&name) else {
            return;
        };
        if !(plain && up) {
            track.harmed = None;
            return;
        }
        let since = *track.harmed.get_or_insert_with(Instant::now);
        if since.elapsed() > HARM + late {
            track.harmed = None;
            let what = format!(
                "(9) {name}: {candidate} fails and keeps its traffic: {}",
                status["message"]
            );
            self.wrong(what);
        }
    }
}

fn specs<'a>(canary: &'a Value, objects: &'a Objects) -> impl Iterator<Item = &'a Value> {
    routes_of(canary).into_iter().filter_map(|name| {
        let route = objects.get(&("httproutes", NAMESPACE.to_owned(), name))?;
        Some(&route["spec"])
    })
}

fn exposed(canary: &Value, objects: &Objects) -> bool {
    let status = &canary["status"];
    let (stable, candidate) = (stable_of(status), candidate_of(status));
    specs(canary, objects).any(|spec| shares(spec, stable, candidate).exposed())
}

/// The candidate has weight, not testers alone.
fn weighed(canary: &Value, objects: &Objects) -> bool {
    let status = &canary["status"];
    let (stable, candidate) = (stable_of(status), candidate_of(status));
    specs(canary, objects).any(|spec| {
        let shares = shares(spec, stable, candidate);
        shares.pairs.iter().any(|(_, weight)| *weight > 0)
    })
}
