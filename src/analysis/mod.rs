//! From samples to verdicts: pure functions of counts, limits and the state that
//! an earlier call left behind. The formulas, their proofs and the figures that
//! they reach are those of anytime-valid testing by betting; each file says which.
//!
//! | file | what it is for |
//! |---|---|
//! | [`counters`] | from raw counters, with their resets and gaps, to new requests and failures |
//! | [`eprocess`] | the sequential tests: evidence that may be looked at after every sample |
//! | [`error_rate`] | the verdict on the share of failed requests |
//! | [`metric`] | the verdict on a value that a query answered |
//! | [`words`] | counts, rates and odds as a person reads them |

pub mod counters;
pub mod eprocess;
pub mod error_rate;
pub mod metric;
pub mod words;

pub use counters::{Arm, MOST_AT_ONCE, Reading, SeriesSample, advance};
pub use error_rate::{ErrorLimits, Window, judge_error_rate};
pub use metric::{Gap, Measured, MetricLimits, judge_metric, no_answer};
