//! What a route says of two versions, read without any of our own code.

use serde_json::{Value, json};

/// What a status asks of the routes.
#[derive(Debug, Clone, PartialEq)]
pub enum Want {
    /// All to stable, nothing added.
    Stable,
    /// Percent for the candidate, and whether testers have rules of their own.
    Split { percent: i64, testers: bool },
    /// All to the candidate, nothing added.
    Candidate,
}

/// Weights of stable and candidate in each rule that holds either, and how many rules were added.
#[derive(Debug, Clone, PartialEq)]
pub struct Shares {
    pub pairs: Vec<(i64, i64)>,
    pub added: usize,
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn is_added(rule: &Value) -> bool {
    rule["name"]
        .as_str()
        .is_some_and(|name| name.starts_with("serin-"))
}

fn weight(reference: &Value) -> i64 {
    reference["weight"].as_i64().unwrap_or(1)
}

/// Names of versions are a `v` and a digit in these tests.
fn is_version(reference: &Value) -> bool {
    let name = reference["name"].as_str().unwrap_or_default();
    name.len() == 2 && name.starts_with('v')
}

pub fn shares(spec: &Value, stable: &str, candidate: &str) -> Shares {
    let rules = list(&spec["rules"]);
    let sum = |rule: &Value, name: &str| {
        let ours = list(&rule["backendRefs"])
            .iter()
            .filter(|r| r["name"] == name);
        ours.map(weight).collect::<Vec<_>>()
    };
    let mut pairs = Vec::new();
    for rule in rules.iter().filter(|rule| !is_added(rule)) {
        let (ours, theirs) = (sum(rule, stable), sum(rule, candidate));
        if !(ours.is_empty() && theirs.is_empty()) {
            pairs.push((ours.iter().sum(), theirs.iter().sum()));
        }
    }
    Shares {
        pairs,
        added: rules.iter().filter(|rule| is_added(rule)).count(),
    }
}

impl Shares {
    pub fn are(&self, want: &Want) -> bool {
        let all = |holds: &dyn Fn(i64, i64) -> bool| {
            !self.pairs.is_empty() && self.pairs.iter().all(|(s, c)| holds(*s, *c))
        };
        match want {
            Want::Stable => self.added == 0 && all(&|s, c| s > 0 && c == 0),
            Want::Candidate => self.added == 0 && all(&|s, c| s == 0 && c > 0),
            Want::Split { percent, testers } => {
                (self.added > 0) == *testers
                    && all(&|s, c| s + c > 0 && c * 100 == percent * (s + c))
            }
        }
    }

    /// The candidate gets some requests.
    pub fn exposed(&self) -> bool {
        self.added > 0 || self.pairs.iter().any(|(_, candidate)| *candidate > 0)
    }
}

/// All of a route's spec that a release must never change: everything but the rules that were added, the
/// names, ports and weights of the versions, and the scale of the other weights.
pub fn untouchable(spec: &Value) -> Value {
    let mut spec = spec.clone();
    let Some(rules) = spec["rules"].as_array_mut() else {
        return spec;
    };
    rules.retain(|rule| !is_added(rule));
    for rule in rules {
        let Some(refs) = rule["backendRefs"].as_array_mut() else {
            continue;
        };
        let (versions, others): (Vec<Value>, Vec<Value>) = refs.drain(..).partition(is_version);
        let whole: i64 = versions.iter().map(weight).sum();
        let all: i64 = whole + others.iter().map(weight).sum::<i64>();
        let mut kept: Vec<Value> = versions
            .into_iter()
            .map(|mut version| {
                for field in ["name", "port", "weight"] {
                    version.as_object_mut().unwrap().remove(field);
                }
                // What the API server fills in may be spelled out.
                if version["group"] == "" {
                    version.as_object_mut().unwrap().remove("group");
                }
                if version["kind"] == "Service" {
                    version.as_object_mut().unwrap().remove("kind");
                }
                version
            })
            .collect();
        kept.dedup();
        kept.extend(others.into_iter().map(|mut other| {
            // A share in parts of ten thousand, whatever the scale.
            other["weight"] = json!((weight(&other) * 10_000).checked_div(all).unwrap_or(0));
            other
        }));
        *refs = kept;
    }
    spec
}

/// The spec with one version in the other's place, which is what a promotion leaves behind.
pub fn renamed(spec: &Value, from: &str, to: &str) -> Value {
    let mut spec = spec.clone();
    for rule in spec["rules"].as_array_mut().into_iter().flatten() {
        for reference in rule["backendRefs"].as_array_mut().into_iter().flatten() {
            if reference["name"] == from {
                reference["name"] = json!(to);
            }
        }
    }
    spec
}

/// What a status asks for, computed from the plan that it holds.
pub fn want(status: &Value) -> Option<Want> {
    let release = &status["release"];
    match release["stage"].as_str()? {
        "Stepping" => {
            let index = usize::try_from(release["step"]["index"].as_u64()?).ok()?;
            let (percent, testers) = step(release, index);
            Some(Want::Split { percent, testers })
        }
        "Promoting" => Some(Want::Candidate),
        "Restoring" => Some(Want::Stable),
        _ => None,
    }
}

/// Percent and testers at a step: what it says, or else what those before it said.
pub fn step(release: &Value, index: usize) -> (i64, bool) {
    let mut found = (0, false);
    for step in list(&release["plan"]["steps"]).iter().take(index + 1) {
        if let Some(weight) = step["weight"].as_i64() {
            found.0 = weight;
        }
        if let Some(headers) = step["headers"].as_array() {
            found.1 = !headers.is_empty();
        }
    }
    found
}
