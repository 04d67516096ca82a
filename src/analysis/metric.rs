//! The verdict on a value that a query answered, and on answers that are none.

use super::words::number;
use crate::api::{CheckStatus, Time, Verdict};

/// What a query came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Measured {
    Value(f64),
    /// The source answered, but with nothing to judge; the reason as a clause.
    NoData(String),
    /// The source failed, or answered something else than one number; the reason as a clause.
    Error(String),
}

/// Why there is nothing to judge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gap {
    NoData(String),
    Error(String),
}

/// What is acceptable for a value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MetricLimits<'a> {
    pub name: &'a str,
    /// The smallest acceptable value.
    pub min: Option<f64>,
    /// The largest acceptable value.
    pub max: Option<f64>,
    /// How many values in a row must be beyond a limit to convict, at least 1.
    pub failure_limit: u32,
}

/// Judges one more value. `prior` is what the value before left. Values in a row are counted over
/// answers that are none: those neither count nor forgive. The verdict [`Verdict::Harm`] is final.
#[must_use]
pub fn judge_metric(
    limits: &MetricLimits<'_>,
    prior: Option<&CheckStatus>,
    measured: &Measured,
    now: Time,
) -> CheckStatus {
    let value = match measured {
        Measured::Value(value) if value.is_finite() => *value,
        Measured::Value(value) => {
            let gap = Gap::NoData(format!("the value is {value}, which is no number to judge"));
            return no_answer(limits.name, prior, &gap, now);
        }
        Measured::NoData(why) => {
            return no_answer(limits.name, prior, &Gap::NoData(why.clone()), now);
        }
        Measured::Error(why) => {
            return no_answer(limits.name, prior, &Gap::Error(why.clone()), now);
        }
    };
    if let Some(convicted) = prior.filter(|check| check.verdict == Verdict::Harm) {
        return convicted.clone();
    }
    let beyond = limits.beyond(value);
    let before = prior.map_or(0, |check| check.failures);
    let needed = limits.failure_limit.max(1);
    let failures = match beyond {
        Some(_) => before.saturating_add(1),
        None => 0,
    };
    let name = limits.name;
    let (verdict, message) = match beyond {
        None => (
            Verdict::NoHarm,
            format!("{name} is {}, within {}", number(value), limits.text()),
        ),
        Some(fault) => {
            let verdict = if failures >= needed {
                Verdict::Harm
            } else {
                Verdict::CannotTell
            };
            let times = match needed {
                1 => String::new(),
                _ => format!(", {failures} of {needed} times in a row"),
            };
            (verdict, format!("{name} is {fault}{times}"))
        }
    };
    CheckStatus {
        name: name.into(),
        verdict,
        value: Some(number(value)),
        limit: Some(limits.text()),
        message,
        at: now,
        counts: None,
        evidence: None,
        failures,
        relative: None,
        absolute: None,
        absolute_stable: None,
        seen: None,
    }
}

/// The check when there is nothing to judge: counts, evidence and failures in a row stay as they were.
/// A verdict of harm stays too.
#[must_use]
pub fn no_answer(name: &str, prior: Option<&CheckStatus>, gap: &Gap, now: Time) -> CheckStatus {
    if let Some(convicted) = prior.filter(|check| check.verdict == Verdict::Harm) {
        return convicted.clone();
    }
    let (verdict, message) = match gap {
        Gap::NoData(why) => (Verdict::NoData, format!("{name} has no data: {why}")),
        Gap::Error(why) => (
            Verdict::Error,
            format!("{name} could not be measured: {why}"),
        ),
    };
    CheckStatus {
        name: name.into(),
        verdict,
        value: None,
        message,
        at: now,
        limit: prior.and_then(|check| check.limit.clone()),
        counts: prior.and_then(|check| check.counts),
        evidence: prior.and_then(|check| check.evidence),
        failures: prior.map_or(0, |check| check.failures),
        relative: prior.and_then(|check| check.relative.clone()),
        absolute: prior.and_then(|check| check.absolute.clone()),
        absolute_stable: prior.and_then(|check| check.absolute_stable.clone()),
        seen: prior.and_then(|check| check.seen),
    }
}

impl MetricLimits<'_> {
    /// `120, above its limit 100`; none for a value within the limits.
    fn beyond(&self, value: f64) -> Option<String> {
        let (word, limit) = match (self.min, self.max) {
            (_, Some(max)) if value > max => ("above", max),
            (Some(min), _) if value < min => ("below", min),
            _ => return None,
        };
        // Where rounding hides the difference, every digit is shown.
        let (shown, bound) = match (number(value), number(limit)) {
            (a, b) if a == b => (value.to_string(), limit.to_string()),
            rounded => rounded,
        };
        Some(format!("{shown}, {word} its limit {bound}"))
    }

    fn text(&self) -> String {
        match (self.min, self.max) {
            (Some(min), Some(max)) => format!("{} to {}", number(min), number(max)),
            (Some(min), None) => format!("at least {}", number(min)),
            (None, Some(max)) => format!("at most {}", number(max)),
            (None, None) => "any value".into(),
        }
    }
}
