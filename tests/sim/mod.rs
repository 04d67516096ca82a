//! A small model of the world around `release::decide`: one route that carries what was last
//! written, parents that accept a second later, traffic that follows it, and a clock of whole seconds.

use chrono::{TimeDelta, TimeZone, Utc};
use serde_json::{Value, json};
use serin::analysis::{Arm, Gap, Measured, Reading, SeriesSample};
use serin::api::{
    AlertEvent, Backend, CanarySpec, CanaryStatus, Command, Outcome, Phase, RouteKind, RouteRecord,
    Stage, Time, Verb, Wanted,
};
use serin::release::{
    Acceptance, Answer, BackendFact, Effect, Facts, Question, RouteFact, RouteState, Sight, decide,
    questions, wanted,
};
use std::collections::BTreeMap;

pub struct Sim {
    pub spec: CanarySpec,
    /// As it stands in the API server.
    persisted: CanaryStatus,
    /// As the operator knows it.
    status: CanaryStatus,
    pub held: bool,
    deleting: bool,
    generation: i64,
    now: Time,
    commands: Vec<Command>,
    /// What the route carries, and since when.
    carried: (Wanted, Time),
    /// What serves when nothing is split.
    stable: Backend,
    candidate: Option<Backend>,
    refuses: Option<Option<String>>,
    unwritten: Option<String>,
    endpoints: bool,
    prometheus: bool,
    errors: BTreeMap<String, f64>,
    starved: Option<String>,
    counters: BTreeMap<(String, bool), f64>,
    delivered: Vec<String>,
    alerts: Vec<AlertEvent>,
    weights: Vec<u8>,
    pub patches: u32,
    pub urgent_writes: u32,
}

fn backend(name: &str) -> Backend {
    Backend {
        group: String::new(),
        kind: "Service".into(),
        name: name.into(),
        namespace: Some("shop".into()),
        port: 8080,
    }
}

impl Sim {
    pub fn new(steps: Value) -> Self {
        let all = [
            "Started",
            "StepReached",
            "WaitingForApproval",
            "Stalled",
            "RolledBack",
            "Promoted",
            "Aborted",
            "Superseded",
            "DataLost",
        ];
        let spec = serde_json::from_value(json!({
            "target": {"backend": {"name": "v1", "port": 8080}},
            "routes": [{"kind": "HTTPRoute", "name": "shop"}],
            "steps": steps,
            "analysis": {"errorRate": {"max": "1%", "vsStable": {}}, "interval": "1s"},
            "alerts": [{"providerRef": {"name": "oncall"}, "events": all}],
        }))
        .unwrap();
        let now = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
        let mut sim = Self {
            spec,
            persisted: CanaryStatus::default(),
            status: CanaryStatus::default(),
            held: false,
            deleting: false,
            generation: 1,
            now,
            commands: Vec::new(),
            carried: (Wanted::Stable, now),
            stable: backend("v1"),
            candidate: None,
            refuses: None,
            unwritten: None,
            endpoints: true,
            prometheus: true,
            errors: BTreeMap::new(),
            starved: None,
            counters: BTreeMap::new(),
            delivered: Vec::new(),
            alerts: Vec::new(),
            weights: Vec::new(),
            patches: 0,
            urgent_writes: 0,
        };
        sim.run(2);
        sim
    }

    pub fn release(&mut self, name: &str) {
        self.spec.target.backend = Some(Backend {
            namespace: None,
            ..backend(name)
        });
        self.generation += 1;
    }

    pub fn plan(&mut self, steps: Value) {
        self.spec.steps = serde_json::from_value(steps).unwrap();
        self.generation += 1;
    }

    pub fn pause(&mut self, paused: bool) {
        self.spec.paused = paused;
        self.generation += 1;
    }

    pub fn delete(&mut self) {
        self.deleting = true;
    }

    /// Annotates as a person would: the revision of a version, and what stands behind it.
    pub fn say(&mut self, verb: Verb, version: &str, suffix: &str) {
        let value = format!("{}{suffix}", backend(version).revision());
        self.commands.retain(|c| c.verb != verb);
        self.commands.push(Command { verb, value });
    }

    pub fn errors(&mut self, version: &str, rate: f64) {
        self.errors.insert(version.into(), rate);
    }

    pub fn starve(&mut self, version: &str) {
        self.starved = Some(version.into());
    }

    pub fn prometheus(&mut self, up: bool) {
        self.prometheus = up;
    }

    pub fn endpoints(&mut self, ready: bool) {
        self.endpoints = ready;
    }

    /// What parents say of a split: nothing, or why they refuse it.
    pub fn accept(&mut self, refusal: Option<&str>) {
        self.refuses = Some(refusal.map(str::to_owned));
    }

    /// From now on the API server refuses writes of the route, for this reason; with none, no more.
    pub fn refuse_writes(&mut self, why: Option<&str>) {
        self.unwritten = why.map(str::to_owned);
    }

    /// Someone puts the route back by hand.
    pub fn drift(&mut self) {
        self.carried.0 = Wanted::Stable;
    }

    /// Killed and started again; `lose`: what was not written is lost, else it had just been written.
    pub fn restart(&mut self, lose: bool) {
        if lose {
            self.status = self.persisted.clone();
        } else {
            self.persisted = self.status.clone();
        }
    }

    pub fn run(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.step();
        }
    }

    /// Runs until something holds, and says after how many seconds; panics after `most`.
    pub fn until(&mut self, holds: impl Fn(&Self) -> bool, most: u32) -> u32 {
        for second in 0..most {
            if holds(self) {
                return second;
            }
            self.step();
        }
        panic!(
            "not within {most}s: {:?} {}",
            self.status.phase, self.status.message
        );
    }

    /// One second: traffic flows, and the operator looks as often as it likes.
    pub fn step(&mut self) {
        self.now += TimeDelta::seconds(1);
        self.flow();
        // A look changes what the next one sees; in the cluster watches bring it about.
        for _ in 0..4 {
            self.look();
        }
    }

    fn flow(&mut self) {
        let share = match &self.carried.0 {
            Wanted::Stable => 0.0,
            Wanted::Split { weight, .. } => f64::from(*weight) / 100.0,
            Wanted::Candidate => 1.0,
        };
        let canary = self.candidate.clone().map(|c| c.name);
        let parts = [
            (Some(self.stable.name.clone()), 1.0 - share),
            (canary, share),
        ];
        for (name, part) in parts {
            let Some(name) = name.filter(|name| self.starved.as_ref() != Some(name)) else {
                continue;
            };
            let requests = (200.0 * part).round();
            let failed = (requests * self.errors.get(&name).copied().unwrap_or(0.0)).round();
            if requests > 0.0 {
                *self.counters.entry((name.clone(), true)).or_default() += failed;
                *self.counters.entry((name, false)).or_default() += requests - failed;
            }
        }
    }

    fn look(&mut self) {
        let stable = self
            .status
            .stable
            .as_ref()
            .map_or_else(|| self.stable.clone(), |s| s.backend.clone());
        let target = self.spec.target.backend.clone().unwrap().within("shop");
        let active = self
            .status
            .release
            .as_ref()
            .filter(|r| r.stage != Stage::Ended);
        let candidate = active.map_or(target, |release| release.candidate.clone());
        let wants = wanted(&self.status).map(|(wanted, ..)| wanted);
        let answers = questions(&self.spec, &self.status, self.now)
            .into_iter()
            .map(|question| self.answer(&question, &stable, &candidate))
            .collect();
        let record = RouteRecord {
            kind: RouteKind::HTTPRoute,
            name: "shop".into(),
            uid: "1".into(),
            rules: Vec::new(),
            headers: Vec::new(),
        };
        let split = !matches!(self.carried.0, Wanted::Stable);
        let acceptance = match &self.refuses {
            Some(None) if split => {
                Acceptance::Pending("Gateway gw: no controller has answered".into())
            }
            Some(Some(why)) if split => Acceptance::Refused(why.clone()),
            _ if self.now <= self.carried.1 => Acceptance::Pending("Gateway gw: not yet".into()),
            _ => Acceptance::Accepted,
        };
        let routes = vec![RouteFact {
            title: "HTTPRoute shop".into(),
            unwritten: self.unwritten.clone(),
            state: RouteState::Found {
                uid: "1".into(),
                survey: Ok(record),
                carries: wants.as_ref() == Some(&self.carried.0),
                acceptance,
                settle: TimeDelta::seconds(1),
                holds_stable: stable == self.stable,
            },
        }];
        let spec = self.spec.clone();
        let status = self.status.clone();
        let facts = Facts {
            name: "shop",
            namespace: "shop",
            generation: self.generation,
            deleting: self.deleting,
            held: self.held,
            spec: &spec,
            status: &status,
            commands: self.commands.clone(),
            obstacle: None,
            sight: Sight::Serves(self.stable.clone()),
            routes,
            candidate: if self.endpoints {
                BackendFact::Ready
            } else {
                BackendFact::NoEndpoints
            },
            answers,
            delivered: self.delivered.clone(),
        };
        let decision = decide(&facts, self.now);
        self.status = decision.status;
        if decision.urgent {
            self.urgent_writes += 1;
            self.persisted = self.status.clone();
        }
        for effect in decision.effects {
            self.perform(effect);
        }
        self.deliver();
        let weight = self.status.weight.unwrap_or(0);
        if self.weights.last() != Some(&weight) && !(self.weights.is_empty() && weight == 0) {
            self.weights.push(weight);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Hold => self.held = true,
            Effect::LetGo => self.held = false,
            Effect::Forget(command) => self.commands.retain(|c| *c != command),
            Effect::Shift if self.unwritten.is_some() => {}
            Effect::Shift => {
                let Some((wants, _, candidate)) = wanted(&self.status) else {
                    return;
                };
                self.candidate = Some(candidate.clone());
                if wants != self.carried.0 {
                    assert!(
                        self.held || self.deleting,
                        "traffic was shifted without the finalizer"
                    );
                    self.carried = (wants, self.now);
                    self.patches += 1;
                }
            }
        }
        // A promoted route serves the candidate by itself.
        if self
            .status
            .release
            .as_ref()
            .is_some_and(|r| r.stage == Stage::Ended)
            && self.carried.0 == Wanted::Candidate
        {
            self.stable = self.candidate.take().unwrap();
            self.carried.0 = Wanted::Stable;
        }
    }

    fn answer(&self, question: &Question, stable: &Backend, candidate: &Backend) -> Answer {
        match question {
            Question::ErrorRate { .. } if self.prometheus => {
                let arms = [(Arm::Stable, stable), (Arm::Canary, candidate)];
                let series = arms
                    .iter()
                    .flat_map(|(arm, backend)| {
                        [true, false].map(|failed| (*arm, &backend.name, failed))
                    })
                    .filter_map(|(arm, name, failed)| {
                        let value = *self.counters.get(&(name.clone(), failed))?;
                        Some(SeriesSample {
                            key: format!("{name}|{failed}"),
                            arm,
                            failed,
                            value,
                        })
                    })
                    .collect();
                Answer::ErrorRate(Ok(Reading {
                    at: self.now,
                    series,
                }))
            }
            Question::ErrorRate { .. } => {
                Answer::ErrorRate(Err(Gap::Error("connection refused".into())))
            }
            Question::Metric { name, .. } => Answer::Metric {
                name: name.clone(),
                measured: Measured::Value(0.0),
            },
        }
    }

    /// The courier delivers what is in the outbox as it was persisted.
    fn deliver(&mut self) {
        for alert in &self.persisted.outbox {
            if !self.delivered.contains(&alert.id) {
                self.delivered.push(alert.id.clone());
                self.alerts.push(alert.event);
            }
        }
    }

    pub fn phase(&self) -> Phase {
        self.status.phase
    }

    pub fn message(&self) -> String {
        self.status.message.clone()
    }

    pub fn weight(&self) -> u8 {
        self.status.weight.unwrap_or(0)
    }

    pub fn revision(&self) -> String {
        self.status.revision.clone().unwrap_or_default()
    }

    /// The weights that the canary was given, in order.
    pub fn weights(&self) -> Vec<u8> {
        self.weights.clone()
    }

    pub fn serves(&self) -> String {
        match self.carried.0 {
            Wanted::Candidate => self.candidate.clone().unwrap().name,
            Wanted::Stable | Wanted::Split { .. } => self.stable.name.clone(),
        }
    }

    pub fn told(&self) -> Vec<AlertEvent> {
        self.alerts.clone()
    }

    pub fn outcomes(&self) -> Vec<Outcome> {
        self.status
            .history
            .iter()
            .map(|past| past.outcome)
            .collect()
    }
}
