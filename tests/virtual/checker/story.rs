//! What the operator writes to a Canary: a story in which no chapter is missing.

use super::traffic::{Want, renamed, shares, want};
use super::{Checker, Track, candidate_of, routes_of, stable_of, under_way};
use crate::NAMESPACE;
use crate::setup::revision;
use crate::store::{Objects, Write, finalizers};
use crate::text;
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// The profile's time from acceptance to obedience, less what a tick may hide.
const SETTLE: Duration = Duration::from_millis(2_500);

impl Checker {
    pub fn canary_by_operator(&mut self, write: &Write<'_>) {
        let Some(before) = write.before else {
            return self.wrong("(5) the operator makes a Canary");
        };
        let Some(after) = write.after else {
            return self.gone(write);
        };
        if before["spec"] != after["spec"] {
            self.wrong("(2) the operator changes the spec of a Canary");
        }
        let held = |canary: &Value| finalizers(canary).contains(&"serin.dev/traffic");
        if held(before) && !held(after) {
            self.let_go(before, write.objects);
        }
        if self.trace {
            self.tell(after);
        }
        if before["status"] != after["status"] {
            self.turn(write.name, before, after, write.objects);
        }
    }

    fn tell(&self, canary: &Value) {
        let (status, release) = (&canary["status"], &canary["status"]["release"]);
        println!(
            "    {:.3} s: status {} {} step {} accepted {} obeyed {} steps {}",
            self.begun.elapsed().as_secs_f64(),
            status["phase"],
            release["stage"],
            release["step"]["index"],
            release["step"]["acceptedAt"],
            status["obeyed"],
            release["plan"]["steps"],
        );
    }

    /// A Canary is gone: nothing of it may be left in a route.
    pub fn gone(&mut self, write: &Write<'_>) {
        if let Some(before) = write.before {
            self.let_go(before, write.objects);
        }
        self.tracks.remove(write.name);
    }

    fn let_go(&mut self, canary: &Value, objects: &Objects) {
        let status = &canary["status"];
        let (stable, candidate) = (stable_of(status), candidate_of(status));
        for name in routes_of(canary) {
            let Some(route) = route(objects, &name) else {
                continue;
            };
            let split = shares(&route["spec"], stable, candidate);
            let foreign = self
                .tracks
                .values()
                .any(|track| track.foreign.contains(&name));
            if stable != candidate && split.exposed() && !foreign {
                self.wrong(format!(
                    "(5) the finalizer goes while route {name} carries {split:?}"
                ));
            }
        }
    }

    fn turn(&mut self, name: &str, before: &Value, after: &Value, objects: &Objects) {
        let (old, new) = (&before["status"]["release"], &after["status"]["release"]);
        if new.is_null() {
            return;
        }
        self.late_stop(name, before, after);
        if old["startedAt"] != new["startedAt"] {
            return self.begins(name, before, after, objects);
        }
        let (from, to) = (text(old, "stage"), text(new, "stage"));
        let index = |release: &Value| release["step"]["index"].as_u64().unwrap_or(0);
        let (was, is) = (index(old), index(new));
        let said = |verb: &str| self.said(name, verb, text(new, "revision"));
        match (from, to) {
            ("Stepping", "Stepping") if was == is => {}
            ("Stepping", "Stepping") if is == was + 1 => self.leaves(name, before, after, objects),
            ("Stepping", "Stepping") if said("replan") => {}
            ("Stepping", "Promoting") if said("promote") => {}
            ("Stepping", "Promoting") => {
                let steps = new["plan"]["steps"].as_array().map_or(0, Vec::len) as u64;
                if was + 1 < steps {
                    self.wrong(format!("(5) {name} is promoted from step {was} of {steps}"));
                }
                self.leaves(name, before, after, objects);
            }
            ("Stepping" | "Promoting", "Restoring") => {}
            ("Promoting", "Promoting") | ("Restoring", "Restoring") | ("Ended", "Ended") => {}
            ("Promoting" | "Restoring", "Ended") => self.ends(name, before, after, objects),
            (from, to) => self.wrong(format!("(5) {name} goes from {from} {was} to {to} {is}")),
        }
        if let Some(track) = self.tracks.get_mut(name) {
            if want(&before["status"]) != want(&after["status"]) {
                track.accepted.clear();
            }
            if (from, was) != (to, is) {
                track.entered = Some(Instant::now());
                track.jumped = false;
            }
        }
    }

    fn said(&self, canary: &str, verb: &str, value: &str) -> bool {
        self.tracks.get(canary).is_some_and(|track| {
            let mut said = track.said.iter();
            said.any(|(v, said)| v == verb && said == value)
        })
    }

    /// Failure beats everything: who has seen a reason to stop and writes a status writes that it stops.
    fn late_stop(&mut self, name: &str, before: &Value, after: &Value) {
        let release = &after["status"]["release"];
        if !matches!(text(release, "stage"), "Stepping" | "Promoting") {
            return;
        }
        if let Some(why) = stop(after) {
            let obeyed = before["status"]["obeyed"].as_array().is_some_and(|obeyed| {
                let value = release["revision"].clone();
                obeyed
                    .iter()
                    .any(|c| c["verb"] == "abort" && c["value"] == value)
            });
            if !(why == "abort" && obeyed) {
                self.wrong(format!(
                    "(3) {name} goes on with a release in spite of: {why}"
                ));
            }
        }
    }

    fn begins(&mut self, name: &str, before: &Value, after: &Value, objects: &Objects) {
        let release = &after["status"]["release"];
        if under_way(&before["status"]) {
            self.wrong(format!(
                "(5) {name} begins a release before the last one has ended"
            ));
        }
        if release["stage"] != "Stepping" || release["step"]["index"] != 0 {
            self.wrong(format!("(5) {name} begins at {}", release["step"]));
        }
        if before["spec"]["paused"] == true {
            self.wrong(format!("(5) {name} begins while it is paused"));
        }
        if release["candidate"]["name"] != after["spec"]["target"]["backend"]["name"] {
            self.wrong(format!("(5) {name} releases what nobody asked for"));
        }
        let track = self.tracks.entry(name.to_owned()).or_default();
        let said = std::mem::take(&mut track.said);
        *track = Track {
            said,
            ..Track::default()
        };
        for route_name in routes_of(after) {
            if let Some(route) = route(objects, &route_name) {
                track.found.insert(route_name, route["spec"].clone());
            }
        }
    }

    /// A step is left: its traffic was accepted, held for as long as it should, and seen.
    fn leaves(&mut self, name: &str, before: &Value, after: &Value, objects: &Objects) {
        let now = Instant::now();
        let status = &before["status"];
        let release = &status["release"];
        let index = usize::try_from(release["step"]["index"].as_u64().unwrap_or(0)).unwrap_or(0);
        // A plan that was changed in this very write, and asks for the same traffic, counts at once.
        let step = &after["status"]["release"]["plan"]["steps"][index];
        let told = self.prometheus.told();
        let Some(track) = self.tracks.get(name) else {
            return self.wrong(format!(
                "(5) {name} leaves a step of a release that never began"
            ));
        };
        let mut found = Vec::new();
        if before["spec"]["paused"] == true {
            found.push("(5) it is paused".to_owned());
        }
        if step["approval"] == true {
            let value = format!("{}/{}", revision(candidate_of(status)), index + 1);
            if !track.said.contains(&("approve".to_owned(), value)) {
                found.push("(5) nobody has approved it".to_owned());
            }
        }
        let hold = span(&step["hold"]);
        let mut since = None;
        for route_name in routes_of(before) {
            let Some(route) = route(objects, &route_name) else {
                found.push(format!("(6) route {route_name} is not there"));
                continue;
            };
            let split = shares(&route["spec"], stable_of(status), candidate_of(status));
            let foreign = track.foreign.contains(&route_name);
            if !foreign && want(status).is_some_and(|want| !split.are(&want)) {
                found.push(format!("(6) route {route_name} carries {split:?}"));
            }
            match track.accepted.get(&route_name) {
                None => found.push(format!("(6) nobody has accepted route {route_name}")),
                Some(at) => since = since.max(Some(*at)),
            }
        }
        if let Some(since) = since.max(track.entered) {
            if !track.jumped && now - since < hold + SETTLE {
                let for_ = (now - since).as_secs_f64();
                found.push(format!(
                    "(6) after {for_:.1} s, which is less than {hold:?} and the settle time"
                ));
            }
            let watched = !release["plan"]["analysis"]
                .as_object()
                .is_none_or(|a| a.get("errorRate").is_none() && a.get("metrics").is_none());
            let (percent, _) = super::traffic::step(release, index);
            let seen = told.is_some_and(|(_, scraped)| scraped >= since);
            if watched && percent > 0 && !seen {
                found.push("(4) without any evidence".to_owned());
            }
        }
        for what in found {
            self.wrong(format!("{name} leaves step {index}: {what}"));
        }
    }

    fn ends(&mut self, name: &str, before: &Value, after: &Value, objects: &Objects) {
        let status = &before["status"];
        let outcome = text(&after["status"]["release"], "outcome").to_owned();
        *self.ended.entry(outcome.clone()).or_default() += 1;
        let promoted = status["release"]["stage"] == "Promoting";
        if promoted != (outcome == "Promoted") {
            self.wrong(format!(
                "(5) {name} ends as {outcome} from {}",
                status["release"]["stage"]
            ));
        }
        let mut found = Vec::new();
        let Some(track) = self.tracks.get(name) else {
            return;
        };
        for (route_name, spec) in &track.found {
            let Some(route) = route(objects, route_name) else {
                continue;
            };
            let (stable, candidate) = (stable_of(status), candidate_of(status));
            let split = shares(&route["spec"], stable, candidate);
            let (want, expected) = if promoted {
                (Want::Candidate, renamed(spec, stable, candidate))
            } else {
                (Want::Stable, spec.clone())
            };
            if !split.are(&want) {
                found.push(format!("route {route_name} carries {split:?}"));
            }
            if promoted && !track.accepted.contains_key(route_name) {
                found.push(format!("nobody has accepted route {route_name}"));
            }
            if !track.foreign.contains(route_name) && route["spec"] != expected {
                found.push(format!(
                    "route {route_name} is {} and was {expected}",
                    route["spec"]
                ));
            }
        }
        for what in found {
            self.wrong(format!("(1) {name} ends as {outcome}: {what}"));
        }
    }
}

/// Why a release that is under way must be stopped, as far as the object itself says.
pub fn stop(canary: &Value) -> Option<&'static str> {
    let release = &canary["status"]["release"];
    let abort = &canary["metadata"]["annotations"]["serin.dev/abort"];
    let checks = release["checks"].as_array().map_or(&[][..], Vec::as_slice);
    if canary["metadata"].get("deletionTimestamp").is_some() {
        Some("deletion")
    } else if abort.is_string() && *abort == release["revision"] {
        Some("abort")
    } else if checks.iter().any(|check| check["verdict"] == "Harm") {
        Some("harm")
    } else if canary["spec"]["target"]["backend"]["name"] != release["candidate"]["name"] {
        Some("another target")
    } else {
        None
    }
}

fn route<'a>(objects: &'a Objects, name: &str) -> Option<&'a Value> {
    objects.get(&("httproutes", NAMESPACE.to_owned(), name.to_owned()))
}

/// `5s` or `2m`.
fn span(value: &Value) -> Duration {
    let text = value.as_str().unwrap_or("0s");
    let (number, unit) = text.split_at(text.len() - 1);
    let seconds = if unit == "m" { 60 } else { 1 };
    Duration::from_secs(number.parse::<u64>().unwrap_or(0) * seconds)
}
