//! A Prometheus that scrapes the plane, and answers queries from what it has scraped.

use crate::plane::{Counters, Plane};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use regex::Regex;
use serin::metrics::{Answer, Data, QueryError, Sample, Source};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How the server is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Up,
    Down,
    Hangs,
    /// Up, and holds no series.
    Empty,
    /// Every value is NaN.
    NaN,
}

#[derive(Default)]
struct Shared {
    state: State,
    scraped: Counters,
    scraped_at: Option<Instant>,
    gauges: BTreeMap<String, f64>,
    queries: u64,
    /// The last answer that was whole, and requests by backend that it told of.
    told: Option<(Instant, Instant)>,
    pattern: Option<(String, Regex)>,
}

#[derive(Clone, Default)]
pub struct Prometheus {
    shared: Arc<Mutex<Shared>>,
    clock: Option<Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>>,
}

/// From one scrape to the next.
pub const SCRAPE: Duration = Duration::from_secs(1);

impl Prometheus {
    pub fn new(clock: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>) -> Self {
        Self {
            clock: Some(clock),
            ..Self::default()
        }
    }

    pub fn set(&self, state: State) {
        self.shared.lock().unwrap().state = state;
    }

    pub fn state(&self) -> State {
        self.shared.lock().unwrap().state
    }

    pub fn gauge(&self, name: &str, value: f64) {
        let mut shared = self.shared.lock().unwrap();
        shared.gauges.insert(name.to_owned(), value);
    }

    pub fn queries(&self) -> u64 {
        self.shared.lock().unwrap().queries
    }

    /// When the newest sample was scraped that a whole answer has told of.
    pub fn told(&self) -> Option<(Instant, Instant)> {
        self.shared.lock().unwrap().told
    }

    pub fn tick(&self, plane: &Plane, now: Instant) {
        let mut shared = self.shared.lock().unwrap();
        if shared.scraped_at.is_none_or(|at| at + SCRAPE <= now) {
            shared.scraped_at = Some(now);
            shared.scraped.clone_from(&plane.counters);
        }
    }

    fn evaluate(&self, promql: &str) -> Vec<Sample> {
        let mut shared = self.shared.lock().unwrap();
        let at = self.clock.as_ref().map_or_else(Utc::now, |clock| clock());
        if shared.state == State::Empty {
            return Vec::new();
        }
        let nan = shared.state == State::NaN;
        let value = |value: f64| if nan { f64::NAN } else { value };
        if let Some(value_of) = shared.gauges.get(promql).copied() {
            if !nan && let Some(scraped) = shared.scraped_at {
                shared.told = Some((Instant::now(), scraped));
            }
            return vec![Sample {
                labels: BTreeMap::new(),
                value: value(value_of),
                at,
            }];
        }
        let Some(pattern) = service_pattern(promql) else {
            return Vec::new();
        };
        if shared
            .pattern
            .as_ref()
            .is_none_or(|(known, _)| *known != pattern)
        {
            // Prometheus anchors a pattern at both ends.
            let regex = Regex::new(&format!("^(?:{pattern})$")).expect("a pattern of the profile");
            shared.pattern = Some((pattern, regex));
        }
        let (_, regex) = shared.pattern.as_ref().unwrap();
        let samples: Vec<Sample> = shared
            .scraped
            .iter()
            .filter(|((service, _), _)| regex.is_match(service))
            .map(|((service, code), count)| {
                let labels = [
                    ("service", service.clone()),
                    ("code", code.to_string()),
                    ("protocol", "http".to_owned()),
                    ("instance", "10.0.0.1:9100".to_owned()),
                ];
                let labels = labels.map(|(key, value)| (key.to_owned(), value));
                Sample {
                    labels: labels.into(),
                    value: value(*count),
                    at,
                }
            })
            .collect();
        if !nan && let Some(scraped) = shared.scraped_at {
            shared.told = Some((Instant::now(), scraped));
        }
        samples
    }
}

fn service_pattern(promql: &str) -> Option<String> {
    let (_, rest) = promql.split_once("traefik_service_requests_total{service=~\"")?;
    let (pattern, _) = rest.split_once("\"}")?;
    Some(pattern.replace(r"\\", r"\"))
}

impl Source for Prometheus {
    fn query<'a>(&'a self, promql: &'a str) -> BoxFuture<'a, Result<Answer, QueryError>> {
        Box::pin(async move {
            let state = {
                let mut shared = self.shared.lock().unwrap();
                shared.queries += 1;
                shared.state
            };
            let server = "http://prometheus:9090".to_owned();
            match state {
                State::Down => {
                    let cause = "connection refused".into();
                    return Err(QueryError::Unreachable { server, cause });
                }
                State::Hangs => {
                    let after = Duration::from_secs(5);
                    sleep(after).await;
                    return Err(QueryError::Timeout { server, after });
                }
                State::Up | State::Empty | State::NaN => sleep(Duration::from_millis(4)).await,
            }
            Ok(Answer {
                data: Data::Vector(self.evaluate(promql)),
                warnings: Vec::new(),
            })
        })
    }
}
