//! Where samples come from, and how each data plane names its series.
//!
//! | file | what it is for |
//! |---|---|
//! | [`prometheus`] | asks a Prometheus (I/O) |
//! | [`answer`] | what a Prometheus answers, from bytes to types |
//! | [`measure`] | from an answer to one value, or the reason why there is none |
//! | [`template`] | queries with placeholders |
//! | [`source`] | the trait that a source of samples is behind |
//! | [`profile`] | one file for each data plane: its series, and what they mean |

pub mod answer;
pub mod measure;
pub mod profile;
pub mod prometheus;
pub mod source;
pub mod template;

pub use answer::{Answer, Data, Sample, Series};
pub use measure::single;
pub use profile::{Profile, RouteTarget, profile};
pub use prometheus::{Prometheus, QueryError, UrlError};
pub use source::Source;
pub use template::{TemplateError, Variables, check, render};
