//! What differs between kinds of routes; all else is one engine.

use super::{TrafficError, view};
use crate::api::RouteKind;
use serde_json::{Value, json};

/// How one kind of route is written, and its limits.
#[derive(Debug)]
pub(super) struct Shape {
    pub kind: RouteKind,
    /// The kind's name on the wire.
    pub wire: &'static str,
    /// The match of a rule that has none of its own.
    pub any: fn() -> Value,
    pub max_rules: usize,
    pub max_refs: usize,
    pub max_matches: usize,
    pub max_matches_in_all: usize,
    pub max_headers: usize,
}

// Limits: apis/v1/httproute_types.go of Gateway API v1.6.1.
const SHAPES: &[Shape] = &[Shape {
    kind: RouteKind::HTTPRoute,
    wire: "HTTPRoute",
    any: || json!({"path": {"type": "PathPrefix", "value": "/"}}),
    max_rules: 16,
    max_refs: 16,
    max_matches: 64,
    max_matches_in_all: 128,
    max_headers: 16,
}];

impl Shape {
    /// The shape of a route; one that does not say its kind is an HTTPRoute.
    pub fn of(route: &Value) -> Result<&'static Self, TrafficError> {
        let kind = view::text(route, "kind").unwrap_or("HTTPRoute");
        SHAPES
            .iter()
            .find(|shape| shape.wire == kind)
            .ok_or_else(|| TrafficError::Kind {
                route: view::title(route),
                kind: kind.to_owned(),
            })
    }

    /// A rule's matches, with the default in place.
    pub fn matches(&self, rule: &Value) -> Vec<Value> {
        match view::list(rule, "matches") {
            [] => vec![(self.any)()],
            matches => matches.to_vec(),
        }
    }
}
