//! The release as a state machine: plan, facts, decision.
//!
//! [`decide`] is the heart: from what was found ([`Facts`]) and the time to a
//! [`Decision`]: the status to write first, the effects that make the world equal to
//! it, and when to look again. It is total and reads nothing by itself.

mod bounds;
mod checks;
mod clock;
mod commands;
mod decide;
mod facts;
mod notes;
mod plan;
mod rest;
mod steps;
mod words;

pub use checks::{Question, questions};
pub use decide::{decide, under_way, wanted};
pub use facts::*;
pub use plan::{Plan, PlanError, PlannedStep};
