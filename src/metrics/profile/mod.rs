//! One file for each data plane: how it counts the requests of a backend, and what it cannot tell.

mod traefik;

use super::Answer;
use crate::analysis::Reading;
use crate::api::{Backend, RouteKind, Time};
use chrono::TimeDelta;
use thiserror::Error;

/// What is known of a data plane.
#[derive(Debug, Clone, Copy)]
pub struct Profile {
    /// `spec.controllerName` of its GatewayClass.
    pub controller: &'static str,
    /// What people call it.
    pub name: &'static str,
    /// How long after a route's parents have accepted a change all requests obey it.
    pub settle: TimeDelta,
    requests: fn(&RouteTarget) -> String,
    read: fn(&RouteTarget, &Answer, Time) -> Result<Reading, ReadError>,
}

const PROFILES: [Profile; 1] = [traefik::PROFILE];

/// The profile of the data plane whose GatewayClass has this `controllerName`; none for one
/// that is not known, which has no built-in queries.
#[must_use]
pub fn profile(controller_name: &str) -> Option<&'static Profile> {
    PROFILES
        .iter()
        .find(|profile| profile.controller == controller_name)
}

/// A route and the two backends whose requests are told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteTarget {
    pub kind: RouteKind,
    pub namespace: String,
    pub name: String,
    pub stable: Backend,
    pub canary: Backend,
    /// Places in `spec.rules` of rules whose requests do not count: those appended for testers by header, who
    /// are no sample of the traffic, and those that are not split.
    pub skip_rules: Vec<usize>,
}

impl RouteTarget {
    fn namespace_of<'a>(&'a self, backend: &'a Backend) -> &'a str {
        backend.namespace.as_deref().unwrap_or(&self.namespace)
    }
}

impl Profile {
    /// PromQL for the raw counters of the route's requests to either backend, an instant vector.
    #[must_use]
    pub fn requests(&self, target: &RouteTarget) -> String {
        (self.requests)(target)
    }

    /// Reads the answer to [`Self::requests`], evaluated at `at`. An answer without series is a reading without any.
    ///
    /// # Errors
    /// When the answer is no instant vector, or the plane's series cannot tell the two backends apart.
    pub fn read(
        &self,
        target: &RouteTarget,
        answer: &Answer,
        at: Time,
    ) -> Result<Reading, ReadError> {
        (self.read)(target, answer, at)
    }
}

/// Why an answer cannot be read as a plane's counters.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReadError {
    #[error("the query for requests answered a {0} where a vector was due")]
    Type(&'static str),
    #[error(
        "{plane} counts {stable} and {canary} in one series, so they cannot be told apart; give each version a Service of its own name"
    )]
    Inseparable {
        plane: &'static str,
        stable: String,
        canary: String,
    },
    #[error(
        "{plane} has no known series for a backend of kind {kind}; built-in checks need a Service"
    )]
    Kind { plane: &'static str, kind: String },
}

impl ReadError {
    /// One word for events, conditions and metric labels.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Type(_) => "AnswerMalformed",
            Self::Inseparable { .. } => "BackendsInseparable",
            Self::Kind { .. } => "BackendKindUnknown",
        }
    }
}

/// A text of which a regular expression of RE2 matches exactly itself.
fn literal(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if !c.is_alphanumeric() && !matches!(c, '-' | '_' | '@') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// A text as a string of PromQL, quotes included.
fn string(text: &str) -> String {
    let escaped = text
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n");
    format!("\"{escaped}\"")
}
