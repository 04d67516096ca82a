//! Durations, shares and numbers that people write as text.

use chrono::TimeDelta;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use thiserror::Error;

/// Why a text is not the quantity that its field wants.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuantityError {
    #[error("{0:?} is not a duration; write a number and a unit, such as 30s, 5m or 1h30m")]
    Duration(String),
    #[error("{0:?} is not a share between 0 and 1; write a percentage such as 1% or 0.5%")]
    Share(String),
    #[error("{0:?} is not a number; write digits, such as 100 or 0.25")]
    Number(String),
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $rule:literal, $message:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "type": "string",
                    "maxLength": 32,
                    "x-kubernetes-validations": [{"rule": $rule, "message": $message}],
                })
            }
        }
    };
}

text!(
    /// A length of time: `500ms`, `30s`, `5m`, `1h30m`.
    Span,
    r"self.matches('^([0-9]{1,7}(ms|s|m|h|d))+$')",
    "must be a duration: a number and a unit (ms, s, m, h, d), such as 30s, 5m or 1h30m"
);
text!(
    /// A share of a whole: `1%`, `0.5%`, or `0.01`.
    Share,
    r"self.matches('^(100(\\.0+)?|[0-9]{1,2}(\\.[0-9]{1,6})?)%$') || self.matches('^(1(\\.0+)?|0(\\.[0-9]{1,8})?)$')",
    "must be a share: a percentage from 0% to 100%, such as 1% or 0.5%, or a fraction from 0 to 1, such as 0.01"
);
text!(
    /// A decimal number, as text: `100`, `-3`, `0.25`.
    Number,
    r"self.matches('^-?[0-9]{1,18}(\\.[0-9]{1,9})?$')",
    "must be a decimal number as text, such as \"100\" or \"0.25\""
);

/// The longest duration that is taken: 10 years, so that no sum with a time overflows.
const LONGEST: TimeDelta = TimeDelta::days(3650);

impl Span {
    /// The duration.
    ///
    /// # Errors
    /// When the text is no duration, or one of more than ten years.
    pub fn parse(&self) -> Result<TimeDelta, QuantityError> {
        let err = || QuantityError::Duration(self.0.clone());
        let mut rest = self.0.as_str();
        let mut total = TimeDelta::zero();
        if rest.is_empty() {
            return Err(err());
        }
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let n: i64 = rest[..digits].parse().map_err(|_| err())?;
            rest = &rest[digits..];
            let units = [
                ("ms", 1),
                ("s", 1_000),
                ("m", 60_000),
                ("h", 3_600_000),
                ("d", 86_400_000),
            ];
            let (unit, millis) = units
                .into_iter()
                .find(|(unit, _)| rest.starts_with(unit))
                .ok_or_else(err)?;
            rest = &rest[unit.len()..];
            let part = n
                .checked_mul(millis)
                .and_then(TimeDelta::try_milliseconds)
                .ok_or_else(err)?;
            total = total
                .checked_add(&part)
                .filter(|sum| *sum <= LONGEST)
                .ok_or_else(err)?;
        }
        Ok(total)
    }
}

impl Share {
    /// The share as a fraction between 0 and 1.
    ///
    /// # Errors
    /// When the text is no number, or lies outside 0 to 1.
    pub fn parse(&self) -> Result<f64, QuantityError> {
        let (digits, unit) = match self.0.strip_suffix('%') {
            Some(percent) => (percent, 0.01),
            None => (self.0.as_str(), 1.0),
        };
        decimal(digits)
            .map(|n| n * unit)
            .filter(|share| (0.0..=1.0).contains(share))
            .ok_or_else(|| QuantityError::Share(self.0.clone()))
    }
}

impl Number {
    /// The number.
    ///
    /// # Errors
    /// When the text is no finite decimal number.
    pub fn parse(&self) -> Result<f64, QuantityError> {
        decimal(&self.0).ok_or_else(|| QuantityError::Number(self.0.clone()))
    }
}

/// `f64::from_str` without the words it takes (`inf`, `nan`) and without exponents.
fn decimal(text: &str) -> Option<f64> {
    let plain = text
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, '.' | '-'));
    plain.then(|| text.parse().ok()).flatten()
}

/// A duration as people write it: at most two units, no zero parts.
#[must_use]
pub fn span_text(span: TimeDelta) -> String {
    let secs = span.num_seconds();
    if secs < 1 {
        return format!("{}ms", span.num_milliseconds().max(0));
    }
    let parts = [
        ("d", secs / 86_400),
        ("h", secs / 3_600 % 24),
        ("m", secs / 60 % 60),
        ("s", secs % 60),
    ];
    let first = parts.iter().position(|(_, n)| *n > 0).unwrap_or(3);
    parts[first..]
        .iter()
        .take(2)
        .filter(|(_, n)| *n > 0)
        .map(|(unit, n)| format!("{n}{unit}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let millis = |text: &str| Span::new(text).parse().map(|d| d.num_milliseconds());
        assert_eq!(millis("500ms"), Ok(500));
        assert_eq!(millis("30s"), Ok(30_000));
        assert_eq!(millis("1h30m"), Ok(5_400_000));
        assert_eq!(millis("2d"), Ok(172_800_000));
        for bad in [
            "",
            "5",
            "m",
            "5x",
            "-5m",
            "1.5h",
            "5m ",
            "99999999d",
            "9223372036854775807h",
        ] {
            assert!(millis(bad).is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn shares_and_numbers() {
        assert_eq!(Share::new("1%").parse(), Ok(0.01));
        assert_eq!(Share::new("0.25").parse(), Ok(0.25));
        for bad in ["101%", "1.5", "-1%", "nan", "inf", "1e-3", "%", ""] {
            assert!(Share::new(bad).parse().is_err(), "{bad:?} was taken");
        }
        assert_eq!(Number::new("-3.5").parse(), Ok(-3.5));
        for bad in ["", "1e9", "NaN", "1..2", "--1"] {
            assert!(Number::new(bad).parse().is_err(), "{bad:?} was taken");
        }
    }

    #[test]
    fn durations_read_well() {
        let text = |text: &str| span_text(Span::new(text).parse().unwrap());
        assert_eq!(text("90s"), "1m30s");
        assert_eq!(text("3600s"), "1h");
        assert_eq!(text("250ms"), "250ms");
        assert_eq!(text("26h"), "1d2h");
        assert_eq!(text("3601s"), "1h");
    }
}
