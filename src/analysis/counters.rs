//! From raw counters to new requests and failures.
//!
//! Only differences of raw counters are counted, never a rate: `rate()` and `increase()`
//! extrapolate, answer fractions of a request, and miss what a series had when it first
//! appeared, which for a failing canary are its first failures.

use crate::api::{ArmCounts, Count, Counters, Time};
use std::collections::{BTreeMap, BTreeSet};

/// The version that a series counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Arm {
    Canary,
    Stable,
}

/// All counters of both versions at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    pub at: Time,
    pub series: Vec<SeriesSample>,
}

/// One counter.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesSample {
    /// Tells the series from all others, in few characters. What follows the last `@` names the
    /// process that counts, whose counters all begin at 0 and are reset together.
    pub key: String,
    pub arm: Arm,
    /// It counts failed requests, rather than the others.
    pub failed: bool,
    /// Requests since the process began.
    pub value: f64,
}

impl Reading {
    /// One reading of several that were made at the same moment. A series that stands in more than one, since it
    /// is not told apart by route, is counted once.
    #[must_use]
    pub fn merge(readings: impl IntoIterator<Item = Self>) -> Option<Self> {
        let mut readings = readings.into_iter();
        let mut all = readings.next()?;
        let mut known: BTreeSet<String> = all.series.iter().map(|s| s.key.clone()).collect();
        for reading in readings {
            all.at = all.at.min(reading.at);
            let (new, twice): (Vec<_>, Vec<_>) = reading
                .series
                .into_iter()
                .partition(|sample| !known.contains(&sample.key));
            drop(twice);
            known.extend(new.iter().map(|sample| sample.key.clone()));
            all.series.extend(new);
        }
        Some(all)
    }
}

/// The largest integer that every JSON reader takes as it is.
const LARGEST: u64 = (1 << 53) - 1;

/// The most series that one reading may have: about 150 KB in status.
pub const MOST_AT_ONCE: usize = 4_000;

/// Series from which on those of processes that are gone are forgotten: about 30 KB in status.
const MOST: usize = 1_000;

/// Continues from an earlier reading: what to remember, and the requests since.
///
/// | what is seen | what is counted |
/// |---|---|
/// | the first reading of a release | nothing: it is the base |
/// | a counter that has grown | the difference |
/// | a counter that has shrunk: its process began again | its whole value |
/// | a new series of a process that was there before | its whole value: it was 0, or not there |
/// | a process that was not there before | nothing: its past may be long, and is not this release's |
/// | a series that is gone | nothing; its value is kept, as it may only be out of sight for a while |
/// | a reading that is not newer | nothing |
/// | a value that is negative or no number | as if the series were gone |
/// | two values under one key | their sum |
#[must_use]
pub fn advance(prior: Option<&Counters>, reading: &Reading) -> (Counters, ArmCounts) {
    if let Some(prior) = prior.filter(|prior| reading.at <= prior.at) {
        return (prior.clone(), ArmCounts::default());
    }
    let mut now: BTreeMap<&str, (Arm, bool, u64)> = BTreeMap::new();
    for sample in &reading.series {
        if sample.value.is_finite() && sample.value >= 0.0 {
            // A float too large for an integer becomes the largest one.
            let value = (sample.value.round() as u64).min(LARGEST);
            let entry = now.entry(&sample.key);
            let (.., sum) = entry.or_insert((sample.arm, sample.failed, 0));
            *sum = sum.saturating_add(value).min(LARGEST);
        }
    }
    let mut series = prior.map_or_else(BTreeMap::new, |prior| prior.series.clone());
    let processes: BTreeSet<&str> = prior
        .iter()
        .flat_map(|prior| prior.series.keys())
        .map(|key| process(key))
        .collect();

    let mut counts = ArmCounts::default();
    for (key, (arm, failed, value)) in &now {
        let before = series.get(*key).copied();
        let new = match before {
            Some(before) if *value >= before => value - before,
            Some(_) => *value,
            None if processes.contains(process(key)) => *value,
            None => 0,
        };
        let count = match arm {
            Arm::Canary => &mut counts.canary,
            Arm::Stable => &mut counts.stable,
        };
        *count = *count
            + Count {
                requests: new,
                failed: if *failed { new } else { 0 },
            };
    }

    series.extend(
        now.iter()
            .map(|(key, (.., value))| ((*key).to_owned(), *value)),
    );
    if series.len() > MOST {
        let there: BTreeSet<&str> = now.keys().map(|key| process(key)).collect();
        series.retain(|key, _| there.contains(process(key)));
    }
    if series.len() > MOST.max(now.len()) {
        // Of a process that is there, what it counts no more.
        series.retain(|key, _| now.contains_key(&**key));
    }
    let counters = Counters {
        at: reading.at,
        series,
    };
    (counters, counts)
}

/// The process that counts a series.
fn process(key: &str) -> &str {
    key.rsplit_once('@').map_or("", |(_, process)| process)
}
