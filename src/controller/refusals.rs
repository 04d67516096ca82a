//! Routes that could not be written: when each is tried again, and what people are told meanwhile.
//!
//! A write that fails is a fact for the next decision and not the end of a look: the checks go on
//! at their pace, and traffic is taken off a bad version in the routes that can be written.

use super::Error;
use crate::api::{Time, Wanted};
use chrono::TimeDelta;
use serde_json::Value;
use std::collections::HashMap;

/// The longest time between two tries.
const LONGEST: TimeDelta = TimeDelta::seconds(60);

/// The wait after the first failure; it doubles with each further one.
const FIRST: TimeDelta = TimeDelta::milliseconds(250);

/// How much of what the API server says is repeated, in characters.
const LONGEST_QUOTE: usize = 300;

/// One for each route, by title.
#[derive(Debug, Clone, Default)]
pub struct Refusals {
    refused: HashMap<String, Refusal>,
    /// The reason of the newest that has not been counted.
    news: Option<&'static str>,
}

#[derive(Debug, Clone)]
struct Refusal {
    /// What was to be written, and into which generation of the route: another is tried at once.
    wanted: Wanted,
    generation: Value,
    at: Time,
    wait: TimeDelta,
    failures: u32,
    why: String,
}

impl Refusals {
    /// Whether a write is not to be tried yet.
    pub fn hold_back(&self, title: &str, wanted: &Wanted, route: &Value, now: Time) -> bool {
        self.refused.get(title).is_some_and(|refusal| {
            refusal.is_about(wanted, route)
                // A time of the future is from before the clock was put back.
                && (refusal.at..refusal.at + refusal.wait).contains(&now)
        })
    }

    /// Notes a failure, and says how many there were in a row. `spread` is this Canary's own part of the wait.
    pub fn note(
        &mut self,
        title: &str,
        wanted: &Wanted,
        route: &Value,
        error: &Error,
        (now, spread): (Time, TimeDelta),
    ) -> u32 {
        let before = self
            .refused
            .get(title)
            .filter(|r| r.is_about(wanted, route));
        let failures = before.map_or(0, |r| r.failures).saturating_add(1);
        let backoff = FIRST * 2i32.saturating_pow(failures.min(10).saturating_sub(1));
        let refusal = Refusal {
            wanted: wanted.clone(),
            generation: route["metadata"]["generation"].clone(),
            at: now,
            wait: backoff.min(LONGEST) + spread,
            failures,
            why: in_words(error),
        };
        self.refused.insert(title.to_owned(), refusal);
        self.news = Some(error.reason());
        failures
    }

    /// The route carries what it should, or is gone.
    pub fn clear(&mut self, title: &str) {
        self.refused.remove(title);
    }

    pub fn clear_all(&mut self) {
        self.refused.clear();
    }

    /// What people are told of a route. A write that has failed once is only tried again.
    pub fn told(&self, title: &str) -> Option<String> {
        let refusal = self.refused.get(title)?;
        (refusal.failures > 1).then(|| refusal.why.clone())
    }

    /// When the next write is to be tried.
    pub fn due(&self) -> Option<Time> {
        self.refused.values().map(|r| r.at + r.wait).min()
    }

    /// The reason of a failure since this was last asked.
    pub fn take_news(&mut self) -> Option<&'static str> {
        self.news.take()
    }
}

impl Refusal {
    fn is_about(&self, wanted: &Wanted, route: &Value) -> bool {
        self.wanted == *wanted && self.generation == route["metadata"]["generation"]
    }
}

/// Why, in words that stay the same while the fault does.
fn in_words(error: &Error) -> String {
    let api = match error {
        Error::Write { error, .. } | Error::Read { error, .. } => error,
        Error::Traffic { error, .. } => return error.to_string(),
        other => return other.to_string(),
    };
    match &**api {
        kube::Error::Api(status) => {
            let said = status.message.trim();
            let quote: String = said.chars().take(LONGEST_QUOTE).collect();
            match (quote.is_empty(), said.len() > quote.len()) {
                (true, _) => format!("the API server answers {}", status.code),
                (false, true) => format!("{quote}…"),
                (false, false) => quote,
            }
        }
        _ => "the API server does not answer".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;
    use serde_json::json;

    fn refused() -> Error {
        let status = Status::failure("routes are frozen", "Forbidden").with_code(403);
        Error::Write {
            what: "HTTPRoute api".into(),
            error: Box::new(kube::Error::Api(status.boxed())),
        }
    }

    fn split(weight: u8) -> Wanted {
        Wanted::Split {
            weight,
            headers: Vec::new(),
        }
    }

    #[test]
    fn the_waits_double_up_to_a_bound() {
        let route = json!({"metadata": {"generation": 1}});
        let (mut refusals, mut now) = (Refusals::default(), Time::UNIX_EPOCH);
        let mut waits = Vec::new();
        for _ in 0..12 {
            refusals.note(
                "HTTPRoute api",
                &split(10),
                &route,
                &refused(),
                (now, TimeDelta::zero()),
            );
            let due = refusals.due().unwrap();
            waits.push((due - now).num_milliseconds());
            let before = due - TimeDelta::milliseconds(1);
            assert!(refusals.hold_back("HTTPRoute api", &split(10), &route, before));
            assert!(!refusals.hold_back("HTTPRoute api", &split(10), &route, due));
            now = due;
        }
        let expected = [
            250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000,
        ];
        assert_eq!(waits[..10], expected);
        assert_eq!(waits[11], 60_000);
    }

    #[test]
    fn something_else_is_tried_at_once() {
        let route = json!({"metadata": {"generation": 1}});
        let edited = json!({"metadata": {"generation": 2}});
        let (mut refusals, now) = (Refusals::default(), Time::UNIX_EPOCH);
        let note = |refusals: &mut Refusals, wanted: &Wanted| {
            refusals.note(
                "HTTPRoute api",
                wanted,
                &route,
                &refused(),
                (now, TimeDelta::zero()),
            )
        };
        assert_eq!(note(&mut refusals, &split(10)), 1);
        assert_eq!(
            refusals.told("HTTPRoute api"),
            None,
            "once is only tried again"
        );
        assert_eq!(note(&mut refusals, &split(10)), 2);
        assert_eq!(
            refusals.told("HTTPRoute api").as_deref(),
            Some("routes are frozen")
        );
        assert!(!refusals.hold_back("HTTPRoute api", &Wanted::Stable, &route, now));
        assert!(!refusals.hold_back("HTTPRoute api", &split(10), &edited, now));
        assert!(!refusals.hold_back("HTTPRoute other", &split(10), &route, now));
        let put_back = now - TimeDelta::hours(1);
        assert!(!refusals.hold_back("HTTPRoute api", &split(10), &route, put_back));
        assert_eq!(note(&mut refusals, &Wanted::Stable), 1, "counted anew");
        refusals.clear("HTTPRoute api");
        assert_eq!(refusals.due(), None);
    }
}
