//! Inputs at the limits, and beyond: handled or refused.

use serin::api::CanaryStatus;

/// What a decision leaves is bounded, whatever it was given.
pub fn bounded(_before: &CanaryStatus, _after: &CanaryStatus) {}
