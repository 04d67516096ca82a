//! The JSON of the generic webhook. Its shape is a promise (`docs/alerts.md`): a field is
//! added under the same `apiVersion`, never renamed or taken away.

use crate::api::{Alert, AlertCheck, AlertEvent, ArmCounts, Count, GROUP};
use chrono::SecondsFormat;
use serde::Serialize;

/// The version that stands in `apiVersion`.
const VERSION: &str = "v1alpha1";

/// The Canary that an alert is of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    pub namespace: String,
    pub name: String,
    /// `metadata.uid`: a Canary that was deleted and made anew is another one.
    pub uid: String,
}

/// What makes one alert different from all others: an alert's `id` is unique in its Canary alone,
/// so the Canary's UID stands before it. It is the payload's `id` and the `Idempotency-Key`.
#[must_use]
pub fn delivery_id(origin: &Origin, alert: &Alert) -> String {
    format!("{}/{}", origin.uid, alert.id)
}

/// The body of the request that delivers an alert.
///
/// It depends on nothing but its arguments, so a repeated delivery has the same bytes.
#[must_use]
#[allow(
    clippy::expect_used,
    reason = "a map of strings and numbers is always JSON"
)]
pub fn payload(origin: &Origin, alert: &Alert) -> Vec<u8> {
    let body = Payload {
        api_version: format!("{GROUP}/{VERSION}"),
        kind: "Alert",
        id: delivery_id(origin, alert),
        event: alert.event,
        time: alert.at.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        canary: CanaryName {
            namespace: &origin.namespace,
            name: &origin.name,
        },
        revision: &alert.revision,
        message: &alert.message,
        check: alert.check.as_ref().map(Check::of),
    };
    serde_json::to_vec(&body).expect("strings and numbers are always JSON")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Payload<'a> {
    api_version: String,
    kind: &'static str,
    id: String,
    event: AlertEvent,
    time: String,
    canary: CanaryName<'a>,
    revision: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<Check<'a>>,
}

#[derive(Serialize)]
struct CanaryName<'a> {
    namespace: &'a str,
    name: &'a str,
}

#[derive(Serialize)]
struct Check<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    canary: Option<Arm>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stable: Option<Arm>,
}

#[derive(Serialize)]
struct Arm {
    requests: u64,
    failed: u64,
}

impl<'a> Check<'a> {
    fn of(check: &'a AlertCheck) -> Self {
        // Destructured so that a new field in status is a question here.
        let AlertCheck {
            name,
            value,
            limit,
            counts,
        } = check;
        let (canary, stable) = match *counts {
            Some(ArmCounts { canary, stable }) => (Some(Arm::of(canary)), Some(Arm::of(stable))),
            None => (None, None),
        };
        Self {
            name,
            value: value.as_deref(),
            limit: limit.as_deref(),
            canary,
            stable,
        }
    }
}

impl Arm {
    fn of(Count { requests, failed }: Count) -> Self {
        Self { requests, failed }
    }
}
