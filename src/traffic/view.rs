//! Lenient reading of a route's JSON: what is missing or of another shape has the API's default.

use crate::api::Backend;
use serde_json::Value;

/// The largest weight that the Gateway API takes.
pub(super) const MAX_WEIGHT: i64 = 1_000_000;

pub(super) fn text<'a>(value: &'a Value, field: &str) -> Option<&'a str> {
    value.get(field).and_then(Value::as_str)
}

pub(super) fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value
        .get(field)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

pub(super) fn rules(route: &Value) -> &[Value] {
    route.get("spec").map_or(&[], |spec| list(spec, "rules"))
}

pub(super) fn refs(rule: &Value) -> &[Value] {
    list(rule, "backendRefs")
}

pub(super) fn name(value: &Value) -> Option<&str> {
    text(value, "name")
}

pub(super) fn metadata<'a>(route: &'a Value, field: &str) -> Option<&'a Value> {
    route.get("metadata").and_then(|meta| meta.get(field))
}

pub(super) fn uid(route: &Value) -> &str {
    metadata(route, "uid")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// The route as messages call it.
pub(super) fn title(route: &Value) -> String {
    let kind = text(route, "kind").unwrap_or("HTTPRoute");
    let name = metadata(route, "name")
        .and_then(Value::as_str)
        .unwrap_or_default();
    format!("{kind} {name}")
}

/// A rule as messages call it.
pub(super) fn place(index: usize, rule: &Value) -> String {
    match name(rule) {
        Some(name) => format!("spec.rules[{index}] ({name:?})"),
        None => format!("spec.rules[{index}]"),
    }
}

/// The weight of a reference as it is written.
pub(super) fn written_weight(reference: &Value) -> Option<i32> {
    let weight = reference.get("weight")?.as_i64()?;
    i32::try_from(weight.clamp(0, MAX_WEIGHT)).ok()
}

/// The weight of a reference, 1 where none is written.
pub(super) fn weight(reference: &Value) -> i64 {
    written_weight(reference).map_or(1, i64::from)
}

/// The backend that a reference names, its namespace filled in. A port that is missing, as some kinds
/// of backends allow, is 0.
pub(super) fn backend(reference: &Value, namespace: &str) -> Option<Backend> {
    let or = |field, default| text(reference, field).unwrap_or(default).to_owned();
    let port = reference.get("port").and_then(Value::as_u64);
    Some(Backend {
        group: or("group", ""),
        kind: or("kind", "Service"),
        name: name(reference)?.to_owned(),
        namespace: Some(or("namespace", namespace)),
        port: port
            .and_then(|port| u16::try_from(port).ok())
            .unwrap_or_default(),
    })
}

/// What a reference's backend is recorded by.
pub(super) fn key(reference: &Value, namespace: &str) -> String {
    backend(reference, namespace)
        .map(|backend| backend.revision())
        .unwrap_or_default()
}

pub(super) fn is(reference: &Value, backend: &Backend, namespace: &str) -> bool {
    self::backend(reference, namespace).as_ref() == Some(backend)
}

/// Places of the references to one backend.
pub(super) fn places(refs: &[Value], backend: &Backend, namespace: &str) -> Vec<usize> {
    (0..refs.len())
        .filter(|&at| is(&refs[at], backend, namespace))
        .collect()
}

pub(super) fn names(backends: &[Backend]) -> String {
    if backends.is_empty() {
        return "nothing".into();
    }
    let names: Vec<String> = backends.iter().map(ToString::to_string).collect();
    names.join(", ")
}
