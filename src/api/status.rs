//! What a Canary's status holds. It is the write-ahead log of a release: every
//! effect makes the world equal to what stands here, so nothing else need be remembered.

use super::{AlertEvent, Analysis, Backend, Condition, HeaderRule, RouteKind, Step, is_default};
use chrono::{DateTime, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

pub type Time = DateTime<Utc>;

/// Where a Canary is. Each is a word in the `PHASE` column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Cannot work yet; the message says why.
    #[default]
    Pending,
    /// At rest: what the spec names serves, and nothing was released yet.
    Idle,
    /// A release is going through its steps.
    Progressing,
    /// A release waits for a person.
    WaitingForApproval,
    /// `spec.paused` holds a release.
    Paused,
    /// The route is being given to the new version.
    Promoting,
    /// Traffic is being taken off the canary.
    RollingBack,
    /// At rest: the last release was promoted.
    Promoted,
    /// At rest: the last release failed and was taken back.
    RolledBack,
    /// At rest: a person stopped the last release.
    Aborted,
}

/// What the evidence says of the new version, apart from what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Verdict {
    /// Beyond a limit.
    Harm,
    /// Within every limit, as far as the requests so far can show.
    NoHarm,
    /// Too little, or too odd, to tell.
    CannotTell,
    /// No data.
    NoData,
    /// The source failed.
    Error,
}

/// How a release ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    Promoted,
    RolledBack,
    Aborted,
    /// A newer revision came.
    Superseded,
    /// The spec went back to the stable revision.
    Reverted,
}

/// Where a release is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Stage {
    /// Traffic is split as the steps so far say.
    Stepping,
    /// The candidate takes the stable backend's place in every route.
    Promoting,
    /// Every route goes back to the stable backend.
    Restoring,
    /// The routes are as `outcome` says.
    Ended,
}

/// The traffic that a release wants now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// The routes as they were found, with the stable backend.
    Stable,
    /// A part of the stable backend's share, and all requests with one of these headers, for the candidate.
    Split {
        weight: u8,
        headers: Vec<HeaderRule>,
    },
    /// The routes as they were found, with the candidate in the stable backend's place.
    Candidate,
}

/// Written by the operator alone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CanaryStatus {
    /// The generation of the spec that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
    #[serde(default)]
    pub phase: Phase,
    /// Step and number of steps, such as `2/4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Percent of the stable backend's share that the canary is given now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u8>,
    /// The revision that is being released, or else the stable one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// One sentence: what is awaited, or what failed, with the measured value and the limit.
    #[serde(default)]
    pub message: String,
    /// What serves when no release is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stable: Option<Stable>,
    /// The release that is under way, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
    /// A revision that is not tried again until someone says `retry` or the target changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What is needed to give each route back. Kept while a route carries a split.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteRecord>,
    /// The last ten releases, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<PastRelease>,
    /// Annotations that were obeyed and are still to be removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub obeyed: Vec<Command>,
    /// Alerts that were not delivered yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbox: Vec<Alert>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stable {
    pub revision: String,
    pub backend: Backend,
    /// A backend that someone else has put in its place at rest; said once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contested_by: Option<Backend>,
}

/// One release, from its first moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    pub revision: String,
    pub candidate: Backend,
    pub started_at: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    pub stage: Stage,
    /// How it ends, set as soon as that is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why, in one sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The steps and the analysis as they were when the release began; the same shape as in the spec.
    #[schemars(schema_with = "copied")]
    #[serde(deserialize_with = "plan_or_none")]
    pub plan: PlanSpec,
    pub step: StepStatus,
    /// Steps that a person has approved, counted from 1.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approved: Vec<u32>,
    /// A person has said to skip what is left.
    #[serde(default, skip_serializing_if = "is_default")]
    pub promote: bool,
    /// Requests and failures of both versions since the release began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<ArmCounts>,
    /// Failed requests beyond those that the stable version would have had.
    #[serde(default)]
    pub excess_failures: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<CheckStatus>,
    /// Raw counters as last read, so that the next reading continues from them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
    /// The release as a picture: at most 64 points.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<Point>,
}

/// A copy of what was checked in the spec: to check it again in status would cost the API server twice.
fn copied(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// The API server lets anything stand here, and an object that cannot be read would end the watch over all
/// Canaries; so what is no plan is one without steps, which takes traffic back.
fn plan_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<PlanSpec, D::Error> {
    let value = serde_json::Value::deserialize(from)?;
    Ok(serde_json::from_value(value).unwrap_or(PlanSpec {
        steps: Vec::new(),
        analysis: Analysis::default(),
    }))
}

/// What a release goes by; copied from the spec when it begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanSpec {
    pub steps: Vec<Step>,
    pub analysis: Analysis,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepStatus {
    /// Counted from 0.
    pub index: u32,
    pub entered_at: Time,
    /// When every parent of every route had accepted the step's traffic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accepted_at: Option<Time>,
    /// How long the step has been healthy, up to `clockSince`.
    #[serde(default)]
    pub clock_millis: i64,
    /// Since when the clock runs; it does not while the step is paused, not accepted, or without data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock_since: Option<Time>,
    /// Canary requests that the release had seen when this step was accepted.
    #[serde(default)]
    pub requests_before: u64,
    /// Checks made since the step was accepted.
    #[serde(default)]
    pub samples: u64,
    /// How long `spec.paused` has held the step, which its deadline leaves out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub paused_millis: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_since: Option<Time>,
    /// The deadline has passed, and that was said.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stalled: bool,
    /// Since when the checks have had no data, or an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blind_since: Option<Time>,
    /// That was said.
    #[serde(default, skip_serializing_if = "is_default")]
    pub blind_told: bool,
    /// A person was asked for approval.
    #[serde(default, skip_serializing_if = "is_default")]
    pub asked: bool,
}

/// Requests of one version, and how many of them failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Count {
    pub requests: u64,
    pub failed: u64,
}

impl Count {
    /// The share that failed; none without requests.
    #[must_use]
    pub fn rate(self) -> Option<f64> {
        (self.requests > 0).then(|| self.failed as f64 / self.requests as f64)
    }
}

impl std::ops::Add for Count {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests.saturating_add(other.requests),
            failed: self.failed.saturating_add(other.failed),
        }
    }
}

/// Counts of both versions over the same time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ArmCounts {
    pub canary: Count,
    pub stable: Count,
}

impl std::ops::Add for ArmCounts {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            canary: self.canary + other.canary,
            stable: self.stable + other.stable,
        }
    }
}

/// Raw counters of both versions, one for each series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Counters {
    pub at: Time,
    /// A series' name, shortened to what tells it apart, and its value.
    pub series: BTreeMap<String, u64>,
}

/// One check: what it measures, what it says, and all that is needed to compute it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckStatus {
    /// `errorRate`, or the metric's name.
    pub name: String,
    pub verdict: Verdict,
    /// The measured value as text, with its unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The limit that it is held against, as text, with its unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    /// One sentence: counts first, then rates, then odds.
    pub message: String,
    pub at: Time,
    /// Counts that the verdict rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<ArmCounts>,
    /// Odds against the canary being within its limit, as the logarithm to base 10; 2 is 100 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<f64>,
    /// Values in a row beyond a limit.
    #[serde(default, skip_serializing_if = "is_default")]
    pub failures: u32,
    /// State of the sequential tests, so that a restart spends no error budget twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relative: Option<TestState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute: Option<TestState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub absolute_stable: Option<TestState>,
    /// Requests of both versions since the weight last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<SeenShare>,
}

/// What share of the requests the canary was seen to get under one weight.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SeenShare {
    /// The canary's share that was told, 0 to 1.
    pub told: f64,
    /// Requests of the canary since then.
    pub canary: u64,
    /// Requests of the stable version since then.
    pub stable: u64,
}

/// State of one mixture e-process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TestState {
    /// Logarithm of each bet's wealth; empty before the first sample.
    pub wealth: Vec<f64>,
    /// Part of the starting wealth that has been bet so far.
    pub spent: f64,
    /// The most that the evidence has been, as a natural logarithm.
    pub peak: f64,
}

/// One moment of a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Point {
    pub at: Time,
    pub weight: u8,
    #[serde(flatten)]
    pub counts: ArmCounts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<f64>,
}

/// A release that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PastRelease {
    pub revision: String,
    pub backend: Backend,
    pub outcome: Outcome,
    pub reason: String,
    pub started_at: Time,
    pub ended_at: Time,
    #[serde(default)]
    pub excess_failures: u64,
}

/// What is needed to give a route back as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RouteRecord {
    pub kind: RouteKind,
    pub name: String,
    /// The route's UID: a route that was deleted and made anew is another one.
    pub uid: String,
    pub rules: Vec<RuleRecord>,
    /// Every header that the release's steps match. An API server that does not know rule names drops
    /// them; the rules that were added are known by these headers then.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<HeaderRule>,
}

/// A managed rule as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RuleRecord {
    /// The rule's name, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its place among the rules.
    pub index: u32,
    /// The weight of each backend, in order; none where the route says nothing (1 then).
    pub weights: Vec<Option<i32>>,
    /// The backends that these weights are of, each by its revision.
    #[serde(default)]
    pub backends: Vec<String>,
    /// Which of `group`, `kind` and `namespace` the stable backend's reference spells out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub spelled: Vec<String>,
    /// What all weights of the rule are multiplied by while it is split, so that each percentage is a whole number.
    pub factor: i32,
}

/// An annotation that was obeyed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Command {
    pub verb: Verb,
    pub value: String,
}

/// What a person can say by an annotation `serin.dev/VERB`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
#[schemars(rename_all = "lowercase")]
pub enum Verb {
    /// `REVISION/STEP`: the step may be left.
    Approve,
    /// `REVISION`: stop the release, traffic back to stable.
    Abort,
    /// `REVISION`: skip what is left.
    Promote,
    /// `REVISION`: try a revision again that was taken back.
    Retry,
    /// `REVISION`: go on by the spec's steps and analysis as they are now.
    Replan,
}

impl Verb {
    pub const ALL: [Self; 5] = [
        Self::Abort,
        Self::Retry,
        Self::Replan,
        Self::Approve,
        Self::Promote,
    ];

    /// The annotation's key.
    #[must_use]
    pub fn annotation(self) -> &'static str {
        match self {
            Self::Approve => "serin.dev/approve",
            Self::Abort => "serin.dev/abort",
            Self::Promote => "serin.dev/promote",
            Self::Retry => "serin.dev/retry",
            Self::Replan => "serin.dev/replan",
        }
    }
}

/// An alert that is still to be delivered to one provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alert {
    /// Unique in the Canary; the receiver can tell a duplicate by it.
    pub id: String,
    pub provider: String,
    pub event: AlertEvent,
    pub at: Time,
    pub revision: String,
    /// The sentence, with the measured value and the limit.
    pub message: String,
    /// The check that decided, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<AlertCheck>,
}

/// The check that an alert is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AlertCheck {
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<ArmCounts>,
}
