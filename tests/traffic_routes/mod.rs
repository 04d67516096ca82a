//! Small routes, and what a release asks of them: `v2` in place of `v1`.

use serde_json::{Value, json};
use serin::api::{Backend, HeaderMatch, HeaderRule, MatchKind, Wanted};
use serin::traffic::Frame;

pub fn backend(name: &str) -> Backend {
    Backend {
        group: String::new(),
        kind: "Service".into(),
        name: name.into(),
        namespace: Some("shop".into()),
        port: 80,
    }
}

pub fn reference(name: &str, weight: u32) -> Value {
    json!({"group": "", "kind": "Service", "name": name, "port": 80, "weight": weight})
}

pub fn rule(name: &str, refs: &[(&str, u32)]) -> Value {
    let refs: Vec<Value> = refs
        .iter()
        .map(|(name, weight)| reference(name, *weight))
        .collect();
    let mut rule = json!({
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backendRefs": refs,
    });
    if !name.is_empty() {
        rule["name"] = json!(name);
    }
    rule
}

pub fn route(rules: &[Value]) -> Value {
    json!({
        "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "generation": 1},
        "spec": {"parentRefs": [{"name": "gw"}], "rules": rules},
    })
}

pub fn canary(name: &str) -> HeaderRule {
    HeaderRule {
        header: HeaderMatch {
            name: name.into(),
            value: "true".into(),
            kind: MatchKind::Exact,
        },
        and: vec![],
    }
}

pub fn split(weight: u8) -> Wanted {
    Wanted::Split {
        weight,
        headers: vec![],
    }
}

pub fn testers(weight: u8) -> Wanted {
    Wanted::Split {
        weight,
        headers: vec![canary("x-canary")],
    }
}

/// The frame of a release of the Canary `web`.
pub fn frame<'a>(rules: &'a [String], stable: &'a Backend, candidate: &'a Backend) -> Frame<'a> {
    Frame {
        owner: "web",
        namespace: "shop",
        rules,
        stable,
        candidate,
    }
}
