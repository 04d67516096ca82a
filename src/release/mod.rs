//! The release as a state machine: plan, facts, decision.
