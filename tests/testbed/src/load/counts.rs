//! What became of the requests.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

/// The version of an answer that no pod gave: the gateway's own, or none at all.
pub const NO_VERSION: &str = "-";

/// The status of a request that got no answer.
pub const NO_STATUS: u16 = 0;

/// Every request of a load, by when it was sent and what it got.
#[derive(Clone)]
pub struct Counts {
    begun: Instant,
    versions: Vec<String>,
    requests: Vec<Record>,
    errors: Vec<String>,
}

/// In short: how many requests of each version and status there were.
impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.by_version_and_status();
        write!(f, "{counts:?}")?;
        match self.errors.as_slice() {
            [] => Ok(()),
            errors => write!(f, " {errors:?}"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Record {
    /// In microseconds from the beginning.
    sent: u32,
    took: u32,
    version: u16,
    status: u16,
}

/// One request of a [`Counts`].
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub sent: Instant,
    /// Until the last byte of the answer, or the error.
    pub took: Duration,
    /// The pod's `x-version`, or [`NO_VERSION`].
    pub version: &'a str,
    /// The HTTP status, or [`NO_STATUS`].
    pub status: u16,
}

impl Request<'_> {
    /// Whether the client saw a failure: a status of 500 or more, or no answer.
    pub fn failed(&self) -> bool {
        self.status >= 500 || self.status == NO_STATUS
    }
}

/// One second of a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Second {
    /// From the beginning of the load to that of this second.
    pub at: Duration,
    /// Requests by version and status.
    pub requests: BTreeMap<(String, u16), u64>,
}

impl Counts {
    pub(super) fn new(begun: Instant) -> Counts {
        Counts {
            begun,
            versions: vec![],
            requests: vec![],
            errors: vec![],
        }
    }

    pub(super) fn add(&mut self, sent: Instant, version: &str, status: u16) {
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        let known = self.versions.iter().position(|known| known == version);
        let index = known.unwrap_or_else(|| {
            self.versions.push(version.to_owned());
            self.versions.len() - 1
        });
        self.requests.push(Record {
            sent: micros(sent.saturating_duration_since(self.begun)),
            took: micros(sent.elapsed()),
            version: u16::try_from(index).unwrap_or(u16::MAX),
            status,
        });
    }

    pub(super) fn add_error(&mut self, sent: Instant, error: String) {
        self.add(sent, NO_VERSION, NO_STATUS);
        if self.errors.len() < 20 {
            self.errors.push(error);
        }
    }

    /// When the load began.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// All requests that have ended, in the order of their ends.
    pub fn requests(&self) -> impl Iterator<Item = Request<'_>> {
        self.requests.iter().map(|record| Request {
            sent: self.begun + Duration::from_micros(record.sent.into()),
            took: Duration::from_micros(record.took.into()),
            version: self
                .versions
                .get(usize::from(record.version))
                .map_or(NO_VERSION, String::as_str),
            status: record.status,
        })
    }

    pub fn total(&self) -> u64 {
        self.requests.len() as u64
    }

    /// Requests with a status of 500 or more, or without an answer.
    pub fn failed(&self) -> u64 {
        self.requests().filter(Request::failed).count() as u64
    }

    /// Requests that got no answer: refused, reset, timed out, or not sent because
    /// too many were on their way already.
    pub fn transport_errors(&self) -> u64 {
        self.requests()
            .filter(|request| request.status == NO_STATUS)
            .count() as u64
    }

    /// The first of the transport errors, in words.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    pub fn by_version(&self) -> BTreeMap<String, u64> {
        self.count(|request| Some(request.version.to_owned()))
    }

    pub fn by_version_and_status(&self) -> BTreeMap<(String, u16), u64> {
        self.count(|request| Some((request.version.to_owned(), request.status)))
    }

    /// Requests to one version.
    pub fn to(&self, version: &str) -> u64 {
        self.requests()
            .filter(|request| request.version == version)
            .count() as u64
    }

    /// Requests to one version that were *sent* at this instant or later.
    pub fn requests_since(&self, version: &str, instant: Instant) -> u64 {
        self.requests()
            .filter(|request| request.version == version && request.sent >= instant)
            .count() as u64
    }

    /// Requests *sent* at this instant or later, by version.
    pub fn since(&self, instant: Instant) -> BTreeMap<String, u64> {
        self.count(|request| (request.sent >= instant).then(|| request.version.to_owned()))
    }

    /// When the last request that reached this version was sent.
    pub fn last_to(&self, version: &str) -> Option<Instant> {
        self.requests()
            .filter(|request| request.version == version)
            .map(|request| request.sent)
            .max()
    }

    /// A quantile (0 to 1) of the time that answered requests took.
    pub fn latency(&self, quantile: f64) -> Option<Duration> {
        let mut took: Vec<Duration> = self
            .requests()
            .filter(|request| request.status != NO_STATUS)
            .map(|request| request.took)
            .collect();
        took.sort_unstable();
        let index = ((took.len() as f64) * quantile) as usize;
        took.get(index.min(took.len().checked_sub(1)?)).copied()
    }

    /// Second by second, by when requests were sent. Seconds without any are there too.
    pub fn per_second(&self) -> Vec<Second> {
        let mut seconds: Vec<Second> = vec![];
        for request in self.requests() {
            let at = request.sent.duration_since(self.begun).as_secs();
            while seconds.len() as u64 <= at {
                seconds.push(Second {
                    at: Duration::from_secs(seconds.len() as u64),
                    requests: BTreeMap::new(),
                });
            }
            if let Some(second) = seconds.get_mut(usize::try_from(at).unwrap_or(usize::MAX)) {
                *second
                    .requests
                    .entry((request.version.to_owned(), request.status))
                    .or_default() += 1;
            }
        }
        seconds
    }

    fn count<K: Ord>(&self, key: impl Fn(&Request<'_>) -> Option<K>) -> BTreeMap<K, u64> {
        let mut counts = BTreeMap::new();
        for key in self.requests().filter_map(|request| key(&request)) {
            *counts.entry(key).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_version_status_and_time() {
        let begun = Instant::now() - Duration::from_secs(10);
        let mut counts = Counts::new(begun);
        let at = |ms: u64| begun + Duration::from_millis(ms);
        counts.add(at(100), "v1", 200);
        counts.add(at(2500), "v2", 200);
        counts.add(at(2600), "v2", 500);
        counts.add(at(2700), NO_VERSION, 502);
        counts.add_error(at(2800), "reset".into());
        assert_eq!(
            (counts.total(), counts.failed(), counts.transport_errors()),
            (5, 3, 1)
        );
        assert_eq!(
            counts.by_version(),
            [("-".into(), 2), ("v1".into(), 1), ("v2".into(), 2)].into()
        );
        assert_eq!(
            (
                counts.requests_since("v2", at(2600)),
                counts.requests_since("v1", at(2600))
            ),
            (1, 0)
        );
        assert_eq!(counts.last_to("v1"), Some(at(100)));
        let seconds = counts.per_second();
        assert_eq!(seconds.len(), 3);
        assert!(seconds[1].requests.is_empty());
        assert_eq!(seconds[2].requests[&("v2".to_owned(), 500)], 1);
        assert_eq!(counts.errors(), ["reset"]);
    }
}
