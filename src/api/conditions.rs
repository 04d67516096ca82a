//! Conditions, as `kubectl wait` and kstatus read them.

use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The conditions of a Canary.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum ConditionType {
    /// The Canary can do its work: its routes and backends are there and plain.
    Ready,
    /// Something is under way.
    Reconciling,
    /// The revision that the spec names serves alone. False from the first moment of a release.
    Promoted,
    /// Every parent of every route has accepted what was last written.
    RoutesAccepted,
    /// A step is past its deadline, or a release cannot go on.
    Stalled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

impl From<bool> for ConditionStatus {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// One condition, in the form that all of Kubernetes shares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: ConditionType,
    pub status: ConditionStatus,
    pub reason: String,
    pub message: String,
    pub observed_generation: i64,
    pub last_transition_time: DateTime<Utc>,
}

/// Sets a condition among others; the transition time moves only when the status does.
pub fn set_condition(conditions: &mut Vec<Condition>, condition: Condition) {
    match conditions.iter_mut().find(|c| c.kind == condition.kind) {
        Some(old) => {
            let since = old.last_transition_time;
            let same = old.status == condition.status;
            *old = condition;
            if same {
                old.last_transition_time = since;
            }
        }
        None => {
            conditions.push(condition);
            conditions.sort_by_key(|c| c.kind);
        }
    }
}
