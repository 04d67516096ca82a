//! Counts, rates and odds as a person reads them.

use crate::api::Count;

/// Digits in groups of three: `1,904`.
#[must_use]
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A fraction as a percentage: `20.1%`, `4.2%`, `0.25%`, `0%`.
#[must_use]
pub fn percent(fraction: f64) -> String {
    let percent = fraction * 100.0;
    let decimals = match percent.abs() {
        p if p >= 1.0 || p == 0.0 => 1,
        p if p >= 0.1 => 2,
        p if p >= 0.01 => 3,
        _ => 4,
    };
    format!("{}%", trimmed(percent, decimals))
}

/// A number with at most six digits that count.
#[must_use]
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".into()
    } else if (1e-4..1e15).contains(&size) {
        let before = size.log10().floor() as i32 + 1;
        trimmed(value, usize::try_from(6 - before).unwrap_or(0))
    } else {
        format!("{value:.3e}")
    }
}

/// `9 of 212 requests failed (4.2%)`
#[must_use]
pub fn failures(count: Count) -> String {
    let rate = count.rate().map(percent).unwrap_or_default();
    format!("{} ({rate})", of(count))
}

/// `9 of 212`
#[must_use]
pub fn of(tally: Count) -> String {
    format!("{} of {}", count(tally.failed), count(tally.requests))
}

/// Odds from their natural logarithm: `3.2:1`, `1,240:1`, `over 100,000:1`.
#[must_use]
pub fn odds(ln: f64) -> String {
    let odds = ln.exp();
    if odds > 1e5 {
        "over 100,000:1".into()
    } else if odds >= 10.0 {
        format!("{}:1", count(odds.floor() as u64))
    } else {
        format!("{}:1", trimmed(odds, 1))
    }
}

fn trimmed(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.').into(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_rates_numbers_odds() {
        assert_eq!(
            [0, 999, 1_000, 1_904, 12_345_678].map(count),
            ["0", "999", "1,000", "1,904", "12,345,678"]
        );
        assert_eq!(
            [0.0, 0.201, 0.0425, 0.01, 0.0026, 0.0002, 0.5, 1.0].map(percent),
            ["0%", "20.1%", "4.2%", "1%", "0.26%", "0.02%", "50%", "100%"]
        );
        assert_eq!(
            [0.0, 120.0, 0.1 + 0.2, -3.5, 1e20, 123_456_789.0, 0.00001].map(number),
            [
                "0",
                "120",
                "0.3",
                "-3.5",
                "1.000e20",
                "123456789",
                "1.000e-5"
            ]
        );
        assert_eq!(
            [1.0_f64, 3.21, 12.9, 1_240.5, 2e5].map(|e| odds(e.ln())),
            ["1:1", "3.2:1", "12:1", "1,240:1", "over 100,000:1"]
        );
    }
}
