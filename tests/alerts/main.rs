//! Alerts: whom the operator calls, what it says, and that nothing is lost.

#![allow(clippy::unwrap_used)]

mod cluster;
mod delivery;
mod guard;
mod payload;
mod queue;
mod rebinding;
mod support;
