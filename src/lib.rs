//! Serin: progressive delivery for the Kubernetes Gateway API.
//!
//! A map of the house. Lower rooms know nothing of higher ones; below the line
//! nothing does I/O, knows an async runtime or a cluster client, or reads a clock
//! (`tests/house.rs` holds it to that).
//!
//! | room | what it is for |
//! |---|---|
//! | [`cli`] | one file a subcommand |
//! | [`controller`] | watch, gather facts, decide, act, report |
//! | [`alerts`] | the outbox's courier, and the rules for whom it may call |
//! | [`metrics`] | where samples come from, and how each data plane names its series |
//! | [`telemetry`] | logs, our own metrics, health |
//! | ---- | ---- |
//! | [`traffic`] | from the wanted split to a JSON patch for a route, and back |
//! | [`release`] | the release as a state machine: plan, facts, decision |
//! | [`analysis`] | from samples to verdicts |
//! | [`api`] | the kinds that people write: spec, status, validation |

// Where a sentence proves that it cannot happen, that sentence is the reason of an `allow`.
#![warn(
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::unreachable,
    clippy::unwrap_used
)]

pub mod alerts;
pub mod analysis;
pub mod api;
pub mod cli;
pub mod controller;
pub mod metrics;
pub mod release;
pub mod telemetry;
pub mod traffic;
