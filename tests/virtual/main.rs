//! The virtual world: the very controller that runs in production, between an API server in memory, a
//! model of a data plane and a model of Prometheus, under a paused clock. See `docs/testing.md`.

#![allow(clippy::unwrap_used)]

mod api;
mod chance;
mod checker;
mod dice;
mod faults;
mod healthy;
mod histories;
mod kills;
mod people;
mod plane;
mod planted;
mod prometheus;
mod receiver;
mod releases;
mod scenario;
mod schema;
mod setup;
mod store;
mod watch;
mod watches;
mod wire;
mod world;

use serde_json::Value;

/// The namespace that everything happens in.
pub const NAMESPACE: &str = "shop";

/// A field's text, or nothing.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}
