//! How long to wait before another attempt. Pure.

use chrono::{DateTime, NaiveDateTime, Utc};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

/// The courier's rhythm and bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Wait after the first failure; it doubles with each further one.
    pub first: Duration,
    /// Longest wait that is our own choice.
    pub longest: Duration,
    /// Longest wait that a receiver's `Retry-After` can ask for.
    pub longest_asked: Duration,
    /// For one attempt, with looking up the provider and its Secrets.
    pub attempt: Duration,
    /// After so much failure an alert is given up.
    pub give_up: Duration,
    /// The same for alerts of a Canary that is gone.
    pub give_up_orphan: Duration,
    /// Attempts under way, over all.
    pub at_once: usize,
    /// Attempts under way for one namespace, so that dead receivers of one tenant do not hold up another's.
    pub at_once_per_namespace: usize,
    /// Canaries with anything queued.
    pub canaries: usize,
    /// Alerts queued for one Canary; what is beyond stays in its status until there is room.
    pub alerts: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            longest: Duration::from_secs(5 * 60),
            longest_asked: Duration::from_secs(60 * 60),
            attempt: Duration::from_secs(30),
            give_up: Duration::from_secs(24 * 60 * 60),
            give_up_orphan: Duration::from_secs(10 * 60),
            at_once: 8,
            at_once_per_namespace: 2,
            canaries: 4096,
            alerts: 32,
        }
    }
}

impl Pace {
    /// The wait after the `failures`-th failure in a row, from half of the exponential backoff to
    /// all of it. The receiver's wish is kept up to a bound, and never shortens the wait.
    ///
    /// `seed` tells lanes apart; the same seed waits the same, so that a test can say how long.
    #[must_use]
    pub fn wait(&self, failures: u32, asked: Option<Duration>, seed: &str) -> Duration {
        let doublings = failures.saturating_sub(1).min(30);
        let backoff = self
            .first
            .saturating_mul(1 << doublings)
            .min(self.longest)
            .mul_f64(0.5 + 0.5 * share(seed, failures));
        let asked = asked.unwrap_or_default().min(self.longest_asked);
        backoff.max(asked)
    }
}

/// A number from 0 to 1 that looks random.
fn share(seed: &str, failures: u32) -> f64 {
    let mut hasher = DefaultHasher::new();
    (seed, failures).hash(&mut hasher);
    hasher.finish() as f64 / u64::MAX as f64
}

/// `Retry-After` in both its forms, seconds or a date (RFC 9110, 10.2.3; the three forms of a
/// date in 5.6.7). None for anything else; zero for a date that has passed.
#[must_use]
pub fn retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are very long all the same.
        let seconds = value.parse().unwrap_or(u64::from(u32::MAX));
        return Some(Duration::from_secs(seconds));
    }
    let at = [
        "%a, %d %b %Y %H:%M:%S GMT",
        "%A, %d-%b-%y %H:%M:%S GMT",
        "%a %b %e %H:%M:%S %Y",
    ]
    .iter()
    .find_map(|form| NaiveDateTime::parse_from_str(value, form).ok())?;
    Some((at.and_utc() - now).to_std().unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn both_forms_of_retry_after() {
        let now = at("1994-11-06T08:49:07Z");
        for (value, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("99999999999999999999999", Some(u64::from(u32::MAX))),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(30)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(30)),
            ("Sun Nov  6 08:49:37 1994", Some(30)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("Sun, 06 Nov 1994 08:49:37 CET", None),
        ] {
            let want = seconds.map(Duration::from_secs);
            assert_eq!(retry_after(value, now), want, "{value:?}");
        }
    }

    #[test]
    fn waits_double_up_to_a_bound_and_are_spread() {
        let pace = Pace::default();
        for failures in 1..100 {
            let full = Duration::from_secs(1 << (failures - 1).min(20)).min(pace.longest);
            let wait = pace.wait(failures, None, "a");
            assert!(wait >= full / 2 && wait <= full, "{failures}: {wait:?}");
        }
        let waits = (0..100).map(|lane| pace.wait(9, None, &format!("lane {lane}")));
        let spread: std::collections::BTreeSet<_> = waits.collect();
        assert!(spread.len() > 90, "{spread:?}");
    }

    #[test]
    fn a_receivers_wish_is_kept_up_to_an_hour_and_never_shortens_the_wait() {
        let pace = Pace::default();
        let asked = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(pace.wait(1, asked(90), "a"), Duration::from_secs(90));
        assert_eq!(pace.wait(1, asked(90_000), "a"), Duration::from_secs(3600));
        assert!(pace.wait(20, asked(0), "a") >= Duration::from_secs(150));
    }
}
