//! From raw counters to new requests: every way in which counters mislead.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use proptest::prelude::*;
use serin::analysis::{Arm, Reading, SeriesSample, advance};
use serin::api::{ArmCounts, Count, Counters, Time};
use std::collections::BTreeMap;

fn at(seconds: i64) -> Time {
    Time::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

/// `cf` is failed requests of the canary, `so` the others of stable, and so on.
fn sample(key: &str, value: f64) -> SeriesSample {
    SeriesSample {
        key: key.into(),
        arm: if key.starts_with('c') {
            Arm::Canary
        } else {
            Arm::Stable
        },
        failed: key[1..].starts_with('f'),
        value,
    }
}

fn reading(seconds: i64, series: &[(&str, f64)]) -> Reading {
    Reading {
        at: at(seconds),
        series: series
            .iter()
            .map(|(key, value)| sample(key, *value))
            .collect(),
    }
}

fn total(readings: &[Reading]) -> ArmCounts {
    let mut counters: Option<Counters> = None;
    let mut sum = ArmCounts::default();
    for reading in readings {
        let (next, counts) = advance(counters.as_ref(), reading);
        counters = Some(next);
        sum = sum + counts;
    }
    sum
}

type Series<'a> = &'a [(&'a str, f64)];

#[test]
fn counters_mislead() {
    // What is read, and then the requests and failures of the canary and of stable.
    let table: [(&str, &[Series<'_>], [u64; 4]); 17] = [
        (
            "a first reading is the base",
            &[&[("co@1", 700.0), ("so@1", 9e6)]],
            [0; 4],
        ),
        (
            "growth",
            &[&[("co@1", 10.0)], &[("co@1", 15.0)], &[("co@1", 15.0)]],
            [5, 0, 0, 0],
        ),
        (
            "failures are requests too",
            &[&[("cf@1", 10.0)], &[("cf@1", 15.0)]],
            [5, 5, 0, 0],
        ),
        (
            "both versions",
            &[
                &[("co@1", 1.0), ("sf@1", 1.0)],
                &[("co@1", 2.0), ("sf@1", 4.0)],
            ],
            [1, 0, 3, 3],
        ),
        (
            "a restart",
            &[&[("co@1", 100.0)], &[("co@1", 7.0)], &[("co@1", 9.0)]],
            [9, 0, 0, 0],
        ),
        (
            "a restart to nothing",
            &[&[("co@1", 100.0)], &[("co@1", 0.0)], &[("co@1", 2.0)]],
            [2, 0, 0, 0],
        ),
        (
            "the first failures of a process that was there",
            &[&[("co@1", 100.0)], &[("co@1", 100.0), ("cf@1", 7.0)]],
            [7, 7, 0, 0],
        ),
        (
            "a new process with a past",
            &[
                &[("so@1", 5.0)],
                &[("so@1", 5.0), ("so@2", 1e6)],
                &[("so@2", 1e6 + 3.0)],
            ],
            [0, 0, 3, 0],
        ),
        (
            "nothing, then a past",
            &[
                &[],
                &[("so@1", 1e6), ("cf@1", 50.0)],
                &[("so@1", 1e6 + 1.0), ("cf@1", 51.0)],
            ],
            [1, 1, 1, 0],
        ),
        (
            "out of sight",
            &[&[("co@1", 100.0)], &[], &[], &[("co@1", 103.0)]],
            [3, 0, 0, 0],
        ),
        (
            "out of sight, and begun again",
            &[&[("co@1", 100.0)], &[], &[("co@1", 4.0)]],
            [4, 0, 0, 0],
        ),
        (
            "no numbers",
            &[
                &[("co@1", 1.0)],
                &[("co@1", f64::NAN)],
                &[("co@1", f64::INFINITY)],
                &[("co@1", -5.0)],
                &[("co@1", 3.0)],
            ],
            [2, 0, 0, 0],
        ),
        (
            "one key twice",
            &[
                &[("co@1", 1.0), ("co@1", 2.0)],
                &[("co@1", 3.0), ("co@1", 4.0)],
            ],
            [4, 0, 0, 0],
        ),
        (
            "too large for JSON",
            &[&[("co@1", 0.0)], &[("co@1", 1e300)], &[("co@1", f64::MAX)]],
            [(1 << 53) - 1, 0, 0, 0],
        ),
        (
            "not quite integers",
            &[&[("co@1", 0.999_999_9)], &[("co@1", 3.000_000_1)]],
            [2, 0, 0, 0],
        ),
        (
            "keys without a process",
            &[&[("co", 1.0)], &[("co", 2.0), ("cf", 1.0)]],
            [2, 1, 0, 0],
        ),
        ("nothing ever", &[&[], &[], &[]], [0; 4]),
    ];
    for (case, readings, [cr, cf, sr, sf]) in table {
        let readings: Vec<Reading> = (0i64..)
            .zip(readings)
            .map(|(i, series)| reading(i, series))
            .collect();
        let want = ArmCounts {
            canary: Count {
                requests: cr,
                failed: cf,
            },
            stable: Count {
                requests: sr,
                failed: sf,
            },
        };
        assert_eq!(total(&readings), want, "{case}");
    }
}

#[test]
fn a_reading_that_is_not_newer_counts_nothing() {
    let (counters, _) = advance(None, &reading(10, &[("co@1", 5.0)]));
    for late in [10, 9] {
        let (same, counts) = advance(Some(&counters), &reading(late, &[("co@1", 3.0)]));
        assert_eq!((same, counts), (counters.clone(), ArmCounts::default()));
    }
}

#[test]
fn processes_that_are_gone_are_forgotten_before_status_grows_too_large() {
    let mut counters = None;
    for generation in 0..40 {
        let keys: Vec<String> = (0..50).map(|i| format!("so@{generation}-{i}")).collect();
        let series: Vec<_> = keys.iter().map(|key| (&**key, 1e6)).collect();
        let (next, counts) = advance(counters.as_ref(), &reading(generation, &series));
        assert_eq!(counts, ArmCounts::default());
        assert!(next.series.len() <= 1_000);
        assert!(keys.iter().all(|key| next.series.contains_key(key)));
        counters = Some(next);
    }
}

#[test]
fn readings_of_several_routes() {
    let merged = Reading::merge([
        reading(5, &[("co.a@1", 1.0), ("so.shared@1", 7.0)]),
        reading(4, &[("co.b@1", 2.0), ("so.shared@1", 7.0)]),
    ])
    .unwrap();
    assert_eq!(merged.at, at(4));
    let keys: Vec<_> = merged.series.iter().map(|s| (&*s.key, s.value)).collect();
    assert_eq!(
        keys,
        [("co.a@1", 1.0), ("so.shared@1", 7.0), ("co.b@1", 2.0)]
    );
    assert_eq!(Reading::merge([]), None);
}

/// What happens to one process between two readings.
#[derive(Debug, Clone)]
struct Turn {
    restart: bool,
    hidden: bool,
    requests: [u8; 4],
}

fn turn() -> impl Strategy<Value = Turn> {
    (
        prop::bool::weighted(0.15),
        prop::bool::weighted(0.2),
        any::<[u8; 4]>(),
    )
        .prop_map(|(restart, hidden, requests)| Turn {
            restart,
            hidden,
            requests,
        })
}

const KINDS: [&str; 4] = ["co", "cf", "so", "sf"];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Some gateway processes count, begin again, and are out of sight at times. What is counted is what
    /// they counted since they were first seen, less only what no reader can know: what a process
    /// counted between its last reading and its end, and a restart that has outgrown the last reading.
    #[test]
    fn nothing_is_counted_twice(
        turns in prop::collection::vec(prop::collection::vec(turn(), 3), 1..30),
        past in any::<[u16; 3]>(),
    ) {
        let mut values = past.map(|p| [f64::from(p); 4]);
        let mut read: [Option<[f64; 4]>; 3] = [None; 3];
        let mut known = 0.0;
        let mut truth = 0.0;
        let mut counted = ArmCounts::default();
        let mut counters: Option<Counters> = None;
        for (i, turn) in turns.iter().enumerate() {
            let mut series = BTreeMap::new();
            for (p, Turn { restart, hidden, requests }) in turn.iter().enumerate() {
                if *restart {
                    values[p] = [0.0; 4];
                }
                for (kind, new) in requests.iter().enumerate() {
                    values[p][kind] += f64::from(*new);
                    if read[p].is_some() {
                        truth += f64::from(*new);
                    }
                }
                if *hidden {
                    continue;
                }
                // A counter appears with its first request, and a process with its first counter.
                let shown = (0..4).filter(|kind| values[p][*kind] > 0.0);
                let first = read[p].is_none();
                for kind in shown {
                    let last = read[p].get_or_insert([0.0; 4]);
                    let (now, before) = (values[p][kind], last[kind]);
                    if !first {
                        known += if now >= before { now - before } else { now };
                    }
                    last[kind] = now;
                    series.insert(format!("{}.x@{p}", KINDS[kind]), now);
                }
            }
            let series: Vec<_> = series.iter().map(|(k, v)| (&**k, *v)).collect();
            let (next, counts) = advance(counters.as_ref(), &reading(i as i64, &series));
            counters = Some(next);
            counted = counted + counts;
        }
        let counted = (counted.canary.requests + counted.stable.requests) as f64;
        prop_assert!(counted <= truth, "{counted} of {truth}");
        prop_assert!((counted - known).abs() < 0.5, "{counted} of {known}");
    }
}
