//! Leader election by a Lease: of several replicas one writes.
//!
//! Every replica watches and keeps its caches; the lease gates what a leader does: questions,
//! writes, events, alerts. Two nets hold a write that comes too late. A term is over before anyone
//! else may begin one, and is asked after right before each write ([`Term::check`]); and the writes
//! themselves carry preconditions, so that what slips through (a process stopped between the
//! question and the write) fails where a new leader has written.
//!
//! | file | what it is for |
//! |---|---|
//! | `decide` | when to take, keep and leave the lease: pure |
//! | `elect` | the task that does it |
//! | `leadership` | the gate |
//! | `gated` | the gate before alerts |

mod decide;
mod elect;
mod gated;
mod leadership;

pub use decide::{Action, Moment, Observed, Record, Timing, decide};
pub use elect::{Candidacy, Election, random};
pub use gated::Gated;
pub use leadership::{Leadership, NotLeading, Seat, Term, moment};
