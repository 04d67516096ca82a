//! Verdicts on values that queries answer.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use serin::analysis::{Measured, MetricLimits, judge_metric};
use serin::api::{CheckStatus, Time, Verdict};

fn at(seconds: i64) -> Time {
    Time::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

fn metric(min: Option<f64>, max: Option<f64>, failure_limit: u32) -> MetricLimits<'static> {
    MetricLimits {
        name: "queue-depth",
        min,
        max,
        failure_limit,
    }
}

#[test]
fn a_metric_within_and_beyond_its_limits() {
    let table = [
        (
            metric(None, Some(100.0), 1),
            100.0,
            Verdict::NoHarm,
            "queue-depth is 100, within at most 100",
        ),
        (
            metric(None, Some(100.0), 1),
            120.5,
            Verdict::Harm,
            "queue-depth is 120.5, above its limit 100",
        ),
        (
            metric(Some(0.9), None, 1),
            0.5,
            Verdict::Harm,
            "queue-depth is 0.5, below its limit 0.9",
        ),
        (
            metric(Some(0.9), Some(1.1), 1),
            1.0,
            Verdict::NoHarm,
            "queue-depth is 1, within 0.9 to 1.1",
        ),
        (
            metric(None, Some(100.0), 3),
            101.0,
            Verdict::CannotTell,
            "queue-depth is 101, above its limit 100, 1 of 3 times in a row",
        ),
        (
            metric(None, Some(1e6), 1),
            1e6 + 1e-4,
            Verdict::Harm,
            "queue-depth is 1000000.0001, above its limit 1000000",
        ),
        (
            metric(None, Some(1.0), 0),
            2.0,
            Verdict::Harm,
            "queue-depth is 2, above its limit 1",
        ),
        (
            metric(None, Some(1.0), 1),
            f64::NAN,
            Verdict::NoData,
            "queue-depth has no data: the value is NaN",
        ),
        (
            metric(None, Some(1.0), 1),
            f64::INFINITY,
            Verdict::NoData,
            "queue-depth has no data: the value is inf",
        ),
    ];
    for (limits, value, verdict, sentence) in table {
        let check = judge_metric(&limits, None, &Measured::Value(value), at(0));
        assert_eq!(check.verdict, verdict, "{}", check.message);
        assert!(check.message.starts_with(sentence), "{}", check.message);
    }
}

#[test]
fn failures_in_a_row() {
    let limits = metric(None, Some(10.0), 3);
    let good = Measured::Value(5.0);
    let bad = Measured::Value(50.0);
    let gap = Measured::NoData("the query answered no series".into());
    let error = Measured::Error("timeout".into());
    let end = |values: &[&Measured]| {
        values
            .iter()
            .fold(None, |check: Option<CheckStatus>, measured| {
                Some(judge_metric(&limits, check.as_ref(), measured, at(0)))
            })
    };
    let verdict = |values: &[&Measured]| end(values).map(|check| (check.verdict, check.failures));
    assert_eq!(verdict(&[&bad, &bad]), Some((Verdict::CannotTell, 2)));
    assert_eq!(verdict(&[&bad, &bad, &bad]), Some((Verdict::Harm, 3)));
    assert_eq!(verdict(&[&bad, &bad, &good]), Some((Verdict::NoHarm, 0)));
    assert_eq!(
        verdict(&[&bad, &good, &bad, &bad]),
        Some((Verdict::CannotTell, 2))
    );
    assert_eq!(verdict(&[&bad, &bad, &gap]), Some((Verdict::NoData, 2)));
    assert_eq!(verdict(&[&bad, &bad, &error]), Some((Verdict::Error, 2)));
    assert_eq!(
        verdict(&[&bad, &gap, &bad, &error, &bad]),
        Some((Verdict::Harm, 3))
    );
    // Final, whatever comes after.
    assert_eq!(
        verdict(&[&bad, &bad, &bad, &good, &gap]),
        Some((Verdict::Harm, 3))
    );
}
