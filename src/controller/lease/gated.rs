//! The gate before alerts.

use super::leadership::Leadership;
use crate::alerts::{Answer, CallError, Letter, Refusal, Target, Wire};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::sync::Arc;

/// A wire that posts only while this replica leads.
pub struct Gated {
    wire: Arc<dyn Wire>,
    leadership: Leadership,
}

impl Gated {
    pub fn new(wire: Arc<dyn Wire>, leadership: Leadership) -> Self {
        Self { wire, leadership }
    }
}

impl Wire for Gated {
    fn admit(&self, url: &str) -> Result<Target, Refusal> {
        self.wire.admit(url)
    }

    fn post(&self, letter: Letter) -> BoxFuture<'_, Result<Answer, CallError>> {
        async move {
            let term = self.leadership.term().ok_or(CallError::Withheld)?;
            let posted = term.guard(self.wire.post(letter)).await;
            posted.unwrap_or(Err(CallError::Withheld))
        }
        .boxed()
    }
}
