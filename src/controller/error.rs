//! Why a reconcile did not come to its end.

use super::lease::NotLeading;
use crate::traffic::TrafficError;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum Error {
    /// Someone else wrote first; what they wrote is looked at next.
    #[error("{what} has changed meanwhile")]
    Conflict { what: String },
    #[error("cannot write {what}: {error}")]
    Write {
        what: String,
        error: Box<kube::Error>,
    },
    #[error("cannot read {what}: {error}")]
    Read {
        what: String,
        error: Box<kube::Error>,
    },
    #[error("{title}: {error}")]
    Traffic { title: String, error: TrafficError },
    #[error("the object has no {0}")]
    Incomplete(&'static str),
    #[error(transparent)]
    NotLeading(#[from] NotLeading),
}

impl Error {
    pub fn write(what: impl Into<String>, error: kube::Error) -> Self {
        let what = what.into();
        match &error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict { what },
            _ => Self::Write {
                what,
                error: Box::new(error),
            },
        }
    }

    /// A word for metrics: one of few.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "Conflict",
            Self::Write { .. } => "WriteFailed",
            Self::Read { .. } => "ReadFailed",
            Self::Traffic { error, .. } => error.reason(),
            Self::Incomplete(_) => "Incomplete",
            Self::NotLeading(_) => "NotLeading",
        }
    }
}
