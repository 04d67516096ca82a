//! Each write as it happens.

use super::traffic::{Want, shares, step, untouchable, want};
use super::{Checker, candidate_of, routes_of, stable_of, under_way};
use crate::store::{Objects, Write, Writer, finalizers, of_kind};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

/// How long after the last cause an operator at rest may still write.
const SETTLED: Duration = Duration::from_secs(75);

impl Checker {
    pub fn see(&mut self, write: &Write<'_>) {
        match (write.plural, write.writer) {
            ("httproutes", Writer::Operator) => self.route_by_operator(write),
            ("httproutes", Writer::Plane) => self.route_by_plane(write),
            ("httproutes", Writer::Person) => self.route_by_person(write),
            ("canaries", Writer::Operator) => self.canary_by_operator(write),
            ("canaries", Writer::Person | Writer::Plane) => self.canary_by_person(write),
            _ => {}
        }
        let now = Instant::now();
        if write.writer != Writer::Operator {
            self.caused = now;
            return;
        }
        let busy = canaries(write.objects).any(|canary| {
            let owed = canary["status"]["outbox"].as_array();
            under_way(&canary["status"]) || owed.is_some_and(|owed| !owed.is_empty())
        });
        if busy {
            self.caused = now;
        } else if now - self.caused > SETTLED + self.late && now - self.calm_since > SETTLED {
            let (plural, name) = (write.plural, write.name);
            self.wrong(format!("(8) at rest the operator writes {plural} {name}"));
        }
    }

    fn route_by_operator(&mut self, write: &Write<'_>) {
        let (Some(before), Some(after)) = (write.before, write.after) else {
            return self.wrong("(1) the operator makes or deletes a route");
        };
        let name = write.name;
        let mut same = after.clone();
        for field in ["resourceVersion", "generation"] {
            same["metadata"][field] = before["metadata"][field].clone();
        }
        same["spec"] = before["spec"].clone();
        if same != *before {
            self.wrong(format!("(2) route {name}: more than its spec was changed"));
        }
        let (left, right) = (untouchable(&before["spec"]), untouchable(&after["spec"]));
        if left != right {
            self.wrong(format!(
                "(2) route {name}: foreign parts changed from {left} to {right}"
            ));
        }
        let mut canaries = canaries(write.objects);
        let Some(canary) = canaries
            .find(|c| under_way(&c["status"]) && routes_of(c).iter().any(|route| route == name))
        else {
            return self.wrong(format!(
                "(5) route {name} is written, and no status says why"
            ));
        };
        let status = &canary["status"];
        let split = shares(&after["spec"], stable_of(status), candidate_of(status));
        let Some(want) = want(status) else {
            return;
        };
        if !split.are(&want) {
            self.wrong(format!(
                "(5) route {name} is written with {split:?}, and the status asks for {want:?}"
            ));
        }
        if split.exposed() && !finalizers(canary).contains(&"serin.dev/traffic") {
            self.wrong(format!(
                "(5) route {name} is split, and the Canary has no finalizer"
            ));
        }
        self.path(crate::text(&canary["metadata"], "name"), status, &want);
    }

    /// The weights that a route gets are a path of the plan.
    fn path(&mut self, canary: &str, status: &Value, want: &Want) {
        let release = &status["release"];
        let Some(track) = self.tracks.get_mut(canary) else {
            return self.wrong(format!(
                "(5) {canary} shifts traffic, and no release was seen to begin"
            ));
        };
        let index = usize::try_from(release["step"]["index"].as_u64().unwrap_or(0)).unwrap_or(0);
        let said = track.reached;
        if let Want::Split { percent, .. } = want {
            let next = said.map_or(0, |reached| reached + 1);
            let skipped = (next..index).any(|i| step(release, i).0 != *percent);
            track.reached = Some(said.map_or(index, |reached| reached.max(index)));
            if skipped && !track.said.iter().any(|(verb, _)| verb == "replan") {
                self.wrong(format!(
                    "(5) {canary}: step {index} is written to a route after {said:?}"
                ));
            }
        }
    }

    fn route_by_plane(&mut self, write: &Write<'_>) {
        let Some(route) = write.after else { return };
        let now = Instant::now();
        for canary in canaries(write.objects) {
            let status = &canary["status"];
            let (Some(want), Some(track)) = (
                want(status),
                self.tracks
                    .get_mut(crate::text(&canary["metadata"], "name")),
            ) else {
                continue;
            };
            let ours = routes_of(canary).iter().any(|name| name == write.name);
            let split = shares(&route["spec"], stable_of(status), candidate_of(status));
            if ours && split.are(&want) {
                track.accepted.entry(write.name.to_owned()).or_insert(now);
            }
        }
    }

    fn route_by_person(&mut self, write: &Write<'_>) {
        let spec = |object: Option<&Value>| object.map(|object| object["spec"].clone());
        if spec(write.before) == spec(write.after) {
            return;
        }
        if write.before.is_some() {
            self.meddled.insert(write.name.to_owned());
        }
        for canary in canaries(write.objects) {
            let ours = routes_of(canary).iter().any(|name| name == write.name);
            let name = crate::text(&canary["metadata"], "name");
            if let Some(track) = self.tracks.get_mut(name).filter(|_| ours) {
                track.foreign.insert(write.name.to_owned());
            }
        }
    }

    fn canary_by_person(&mut self, write: &Write<'_>) {
        let Some(after) = write.after else {
            return self.gone(write);
        };
        let track = self.tracks.entry(write.name.to_owned()).or_default();
        let annotations = after["metadata"]["annotations"].as_object();
        for (key, value) in annotations.into_iter().flatten() {
            if let (Some(verb), Some(value)) = (key.strip_prefix("serin.dev/"), value.as_str()) {
                track.said.insert((verb.to_owned(), value.to_owned()));
            }
        }
    }
}

pub fn canaries(objects: &Objects) -> impl Iterator<Item = &Value> {
    of_kind(objects, "canaries").map(|(_, canary)| canary)
}
