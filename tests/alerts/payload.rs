//! What a receiver gets. The golden file of this test is the example in the docs.

use crate::support::{alert, canary};
use serde_json::{Value, json};
use serin::alerts::payload;
use serin::api::AlertEvent;

#[test]
fn the_payload_is_the_one_in_the_docs() {
    let docs = include_str!("../../docs/alerts.md");
    let example = docs.split("```json\n").nth(1).unwrap();
    let example: Value = serde_json::from_str(example.split("```").next().unwrap()).unwrap();
    let sent = payload(&canary("checkout"), &alert("7f9c/RolledBack", "oncall"));
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!(sent, example);
}

#[test]
fn the_bytes_are_the_promised_ones() {
    let sent = payload(&canary("checkout"), &alert("7f9c/RolledBack", "oncall"));
    assert_eq!(
        String::from_utf8(sent).unwrap(),
        concat!(
            r#"{"apiVersion":"serin.dev/v1alpha1","kind":"Alert","id":"uid-of-checkout/7f9c/RolledBack","#,
            r#""event":"RolledBack","time":"2026-01-01T00:00:00Z","#,
            r#""canary":{"namespace":"shop","name":"checkout"},"revision":"7f9c","#,
            r#""message":"7f9c was rolled back: 19.8% of 480 requests failed, the limit is 1%","#,
            r#""check":{"name":"errorRate","value":"19.8%","limit":"1%","#,
            r#""canary":{"requests":480,"failed":95},"stable":{"requests":9120,"failed":3}}}"#,
        )
    );
}

#[test]
fn what_is_not_known_is_left_out() {
    let mut alert = alert("7f9c/Promoted", "oncall");
    alert.event = AlertEvent::Promoted;
    alert.check = None;
    let sent: Value = serde_json::from_slice(&payload(&canary("checkout"), &alert)).unwrap();
    assert_eq!(sent.get("check"), None);
    assert_eq!(sent["event"], "Promoted");

    let mut alert = crate::support::alert("7f9c/RolledBack", "oncall");
    let check = alert.check.as_mut().unwrap();
    (check.value, check.counts) = (None, None);
    let sent: Value = serde_json::from_slice(&payload(&canary("checkout"), &alert)).unwrap();
    assert_eq!(sent["check"], json!({"name": "errorRate", "limit": "1%"}));
}
