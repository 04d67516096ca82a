//! `Canary`: what a person writes to have releases of a backend driven for them.

use super::{Backend, CanaryStatus, Number, Share, Span};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Canary releases new versions of a target, step by step, through the routes that lead to it.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "serin.dev",
    version = "v1alpha1",
    kind = "Canary",
    plural = "canaries",
    shortname = "cn",
    category = "all",
    namespaced,
    status = "CanaryStatus",
    derive = "PartialEq",
    doc = "A Canary releases new versions of a target, step by step, through the routes that lead to it.",
    printcolumn = r#"{"name":"Phase","type":"string","jsonPath":".status.phase"}"#,
    printcolumn = r#"{"name":"Step","type":"string","jsonPath":".status.step"}"#,
    printcolumn = r#"{"name":"Weight","type":"integer","jsonPath":".status.weight"}"#,
    printcolumn = r#"{"name":"Revision","type":"string","jsonPath":".status.revision"}"#,
    printcolumn = r#"{"name":"Verdict","type":"string","jsonPath":".status.verdict"}"#,
    printcolumn = r#"{"name":"Message","type":"string","jsonPath":".status.message"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    validation = Rule::new("self.metadata.name.size() <= 48").message("metadata.name must have at most 48 characters: it becomes part of rule names in your routes")
)]
#[serde(rename_all = "camelCase")]
pub struct CanarySpec {
    /// What is released.
    pub target: Target,

    /// The routes whose traffic is split. At least one.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.kind == a.kind && b.name == a.name))").message("routes names one route twice; name each route once"))]
    pub routes: Vec<RouteRef>,

    /// The steps of a release, in order. What a step says stays true until a later step says otherwise.
    /// With none: 5 %, 25 % and 50 %, two minutes each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub steps: Vec<Step>,

    /// How the new version is judged. By default: its error rate against the stable version's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub analysis: Option<Analysis>,

    /// Begins and advances nothing while true. A failing check still takes traffic back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,

    /// Who is told of what.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.providerRef.name == a.providerRef.name))").message("alerts names one provider twice; put its events into one entry"))]
    pub alerts: Vec<AlertRef>,
}

/// What is released.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.backend)").message("target.backend is missing; name the backend that should serve, such as backend: {name: api-v2, port: 8080}"))]
pub struct Target {
    /// The backend that should serve. To release, change it to the backend of the new version;
    /// to roll back, change it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<Backend>,
}

/// Kinds of routes whose traffic can be split.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum RouteKind {
    HTTPRoute,
}

/// A route in the Canary's namespace.
#[derive(KubeSchema, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRef {
    /// API group of the route.
    #[serde(default = "gateway_group")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = Rule::new("self == 'gateway.networking.k8s.io'").message("group must be gateway.networking.k8s.io"))]
    pub group: String,
    /// Kind of the route.
    pub kind: RouteKind,
    /// Name of the route.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Names of the rules to manage. By default every rule that holds the stable backend.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub rules: Vec<String>,
}

/// The group of the Gateway API's own kinds.
pub const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

fn gateway_group() -> String {
    GATEWAY_GROUP.into()
}

/// One step of a release.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.weight) || has(self.headers) || has(self.hold) || has(self.approval) || has(self.minRequests)").message("a step must say something: weight, headers, hold, minRequests or approval"))]
pub struct Step {
    /// Percent of the stable backend's share that goes to the canary, 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub weight: Option<u8>,

    /// Requests with one of these headers go to the canary whatever the weight is. `[]` ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub headers: Option<Vec<HeaderRule>>,

    /// How long the step must stay healthy before the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Span>,

    /// How long after its beginning a step that has not ended is said to be stalled.
    /// By default `hold` and ten minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Span>,

    /// What happens at the deadline, beside the alert.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_deadline: Option<OnDeadline>,

    /// How many canary requests the step must have seen before the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_requests: Option<u64>,

    /// Waits for a person, who says so with the annotation `serin.dev/approve: REVISION/STEP`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approval: bool,
}

/// What happens to a release whose step has passed its deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDeadline {
    /// Keep the weight and go on waiting.
    #[default]
    Hold,
    /// Take traffic off the canary.
    RollBack,
}

/// One alternative: a header that a request must carry, and others that it must carry too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderRule {
    #[serde(flatten)]
    pub header: HeaderMatch,
    /// Further headers that the same request must carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 7))]
    pub and: Vec<HeaderMatch>,
}

impl HeaderRule {
    /// All headers that one request must carry to match.
    pub fn all(&self) -> impl Iterator<Item = &HeaderMatch> {
        std::iter::once(&self.header).chain(&self.and)
    }
}

/// A request header and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// Name of the header; upper and lower case are the same.
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$")
    )]
    pub name: String,
    /// Its value, by default as it stands.
    #[schemars(length(min = 1, max = 4096))]
    pub value: String,
    /// How the value is compared.
    #[serde(default, rename = "type", skip_serializing_if = "is_default")]
    pub kind: MatchKind,
}

/// How a value is compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchKind {
    /// The whole value, character by character.
    #[default]
    Exact,
    /// A regular expression in the data plane's own dialect.
    RegularExpression,
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// How the new version is judged.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Analysis {
    /// Share of requests that fail, from the data plane's own counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<ErrorRate>,

    /// Any value that Prometheus can compute.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = Rule::new("self.all(a, self.exists_one(b, b.name == a.name))").message("analysis.metrics has two metrics of one name; give each its own"))]
    pub metrics: Vec<Metric>,

    /// How often the checks are made, 1s to 1h; 10s by default. Not below the scrape interval of the source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Span>,
}

/// Limits on the share of requests that fail (5xx, or no answer).
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.max) || has(self.vsStable)").message("errorRate needs a limit: max (such as \"1%\"), vsStable, or both"))]
pub struct ErrorRate {
    /// The largest share of failed requests that is acceptable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Share>,
    /// How much worse than the stable version is acceptable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vs_stable: Option<VsStable>,
    /// What happens without data; by default the weight is held.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_no_data: OnInconclusive,
    /// What happens when the source fails; by default the weight is held.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_error: OnInconclusive,
}

/// A limit relative to the stable version over the same time.
#[derive(KubeSchema, Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VsStable {
    /// The largest ratio of the canary's rate to stable's that is acceptable, 1 to 100; 1.25 by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("!self.matches('^[0-9]+([.][0-9]+)?$') || (double(self) >= 1.0 && double(self) <= 100.0)").message("vsStable.maxRatio must be from 1 to 100"))]
    pub max_ratio: Option<Number>,
}

/// What happens when a check can say neither good nor bad.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnInconclusive {
    /// Keep the weight until it can.
    #[default]
    Hold,
    /// Take traffic off the canary when it lasts for three intervals.
    RollBack,
    /// Go on as if the check were not there.
    Ignore,
}

/// A value from a PromQL query and its limits.
#[derive(KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.max) || has(self.min)").message("a metric needs a limit: max, min, or both"))]
pub struct Metric {
    /// What the metric is called in messages and status.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// PromQL that answers one number. `{{ namespace }}`, `{{ name }}`, `{{ stable }}`, `{{ canary }}`, `{{ service }}`
    /// (the canary's backend) and `{{ window }}` (the interval) are filled in.
    #[schemars(length(min = 1, max = 4096))]
    pub query: String,
    /// The largest acceptable value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Number>,
    /// The smallest acceptable value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Number>,
    /// How many values in a row must be beyond a limit to fail, 1 by default.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_limit: u32,
    /// What happens without data; by default the weight is held.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_no_data: OnInconclusive,
    /// What happens when the source fails; by default the weight is held.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_error: OnInconclusive,
}

fn one() -> u32 {
    1
}

fn is_one(n: &u32) -> bool {
    *n == 1
}

/// Who is told of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertRef {
    pub provider_ref: ProviderRef,
    /// The events to tell of. At least one.
    #[schemars(length(min = 1, max = 16))]
    pub events: Vec<AlertEvent>,
}

/// An `AlertProvider` in the Canary's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProviderRef {
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What an alert can tell of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AlertEvent {
    /// A release has begun.
    Started,
    /// A step has begun.
    StepReached,
    /// A step waits for a person.
    WaitingForApproval,
    /// A step has not ended by its deadline.
    Stalled,
    /// Traffic was taken off a version that failed.
    RolledBack,
    /// A version was promoted.
    Promoted,
    /// A person stopped a release.
    Aborted,
    /// A release gave way to a newer revision, or to the stable one.
    Superseded,
    /// The checks have had no data, or an error, and the weight is held.
    DataLost,
    /// Someone else changes what a release has set, or has set the route back after one.
    RouteContested,
}

impl AlertEvent {
    /// The event's name as it stands in the spec, and as the reason of the Kubernetes event.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Started => "Started",
            Self::StepReached => "StepReached",
            Self::WaitingForApproval => "WaitingForApproval",
            Self::Stalled => "Stalled",
            Self::RolledBack => "RolledBack",
            Self::Promoted => "Promoted",
            Self::Aborted => "Aborted",
            Self::Superseded => "Superseded",
            Self::DataLost => "DataLost",
            Self::RouteContested => "RouteContested",
        }
    }
}
