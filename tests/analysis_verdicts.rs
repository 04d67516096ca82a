//! Verdicts on the error rate, and their sentences.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use proptest::prelude::*;
use serin::analysis::{ErrorLimits, Gap, Window, judge_error_rate, no_answer};
use serin::api::{
    ArmCounts, CheckStatus, Count, ErrorRate, Number, Share, Time, Verdict, VsStable,
};

fn at(seconds: i64) -> Time {
    Time::from_timestamp(1_700_000_000 + seconds, 0).unwrap()
}

fn count(requests: u64, failed: u64) -> Count {
    Count { requests, failed }
}

fn window(share: f64, canary: (u64, u64), stable: (u64, u64)) -> Window {
    Window {
        delta: ArmCounts {
            canary: count(canary.0, canary.1),
            stable: count(stable.0, stable.1),
        },
        share,
        baseline: None,
    }
}

const RELATIVE: ErrorLimits = ErrorLimits {
    max: None,
    max_ratio: Some(1.25),
};
const ABSOLUTE: ErrorLimits = ErrorLimits {
    max: Some(0.01),
    max_ratio: None,
};
const BOTH: ErrorLimits = ErrorLimits {
    max: Some(0.01),
    max_ratio: Some(1.25),
};

/// Judges window after window.
fn judge(limits: &ErrorLimits, windows: &[Window]) -> CheckStatus {
    let mut check = None;
    for (i, window) in windows.iter().enumerate() {
        check = Some(judge_error_rate(
            limits,
            check.as_ref(),
            window,
            at(i as i64),
        ));
    }
    check.unwrap()
}

#[test]
fn verdicts_and_sentences() {
    let table: [(&str, &ErrorLimits, Vec<Window>, Verdict, &str); 16] = [
        (
            "a broken canary",
            &RELATIVE,
            vec![window(0.1, (212, 9), (1_904, 2))],
            Verdict::Harm,
            "failed requests: canary 9 of 212 (4.2%), stable 2 of 1,904 (0.11%); over 100,000:1 against chance",
        ),
        (
            "one failure",
            &RELATIVE,
            vec![window(0.1, (388, 1), (3_501, 1))],
            Verdict::NoHarm,
            "failed requests: canary 1 of 388 (0.26%), stable 1 of 3,501 (0.029%); evidence of harm 1.2:1, 100:1 rolls back",
        ),
        (
            "no failure",
            &RELATIVE,
            vec![window(0.1, (388, 0), (3_501, 2))],
            Verdict::NoHarm,
            "failed requests: canary 0 of 388 (0%), stable 2 of 3,501 (0.057%); no evidence of harm",
        ),
        (
            "two failures of two",
            &RELATIVE,
            vec![window(0.1, (2, 2), (18, 0))],
            Verdict::CannotTell,
            "failed requests: canary 2 of 2 (100%), stable 0 of 18 (0%); evidence of harm 23:1 holds the weight, 100:1 rolls back",
        ),
        (
            "an outage of both, by the relative limit",
            &RELATIVE,
            vec![window(0.1, (1_000, 110), (9_000, 900))],
            Verdict::NoHarm,
            "failed requests: canary 110 of 1,000 (11%), stable 900 of 9,000 (10%); no evidence of harm",
        ),
        (
            "an outage of both, by the absolute limit",
            &ABSOLUTE,
            vec![window(0.1, (1_000, 110), (9_000, 900))],
            Verdict::CannotTell,
            "both versions fail alike (canary 11%, stable 10%): a dependency problem, not this release; failed requests: canary 110 of 1,000, stable 900 of 9,000",
        ),
        (
            "an outage of both, by both limits",
            &BOTH,
            vec![window(0.1, (1_000, 110), (9_000, 900))],
            Verdict::CannotTell,
            "both versions fail alike",
        ),
        (
            "worse than a stable version that fails too",
            &BOTH,
            vec![window(0.1, (1_000, 500), (9_000, 900))],
            Verdict::Harm,
            "against chance",
        ),
        (
            "over the absolute limit",
            &ABSOLUTE,
            vec![window(0.1, (100, 20), (900, 1))],
            Verdict::Harm,
            "failed requests: canary 20 of 100 (20%), stable 1 of 900 (0.11%); over 100,000:1 against chance",
        ),
        (
            "within the absolute limit",
            &ABSOLUTE,
            vec![window(0.1, (1_000, 9), (9_000, 10))],
            Verdict::NoHarm,
            "no evidence of harm",
        ),
        (
            "no canary request",
            &RELATIVE,
            vec![window(0.1, (0, 0), (1_060, 0))],
            Verdict::NoData,
            "canary got 0 of 1,060 requests; check Service and route weights",
        ),
        (
            "no request",
            &RELATIVE,
            vec![window(0.1, (0, 0), (0, 0))],
            Verdict::NoData,
            "no requests at all",
        ),
        (
            "canary requests, and no stable ones",
            &RELATIVE,
            vec![window(0.1, (5, 0), (0, 0))],
            Verdict::NoHarm,
            "failed requests: canary 0 of 5 (0%), stable had no requests; no evidence of harm",
        ),
        (
            "all traffic, a catastrophe",
            &RELATIVE,
            vec![window(1.0, (100, 50), (0, 0))],
            Verdict::Harm,
            "against chance",
        ),
        (
            "all traffic, all well",
            &RELATIVE,
            vec![window(1.0, (10_000, 50), (0, 0))],
            Verdict::NoHarm,
            "no evidence of harm",
        ),
        (
            "told a tenth, got nearly half",
            &RELATIVE,
            vec![window(0.1, (4_800, 48), (5_200, 52))],
            Verdict::NoHarm,
            "no evidence of harm",
        ),
    ];
    for (case, limits, windows, verdict, sentence) in table {
        let check = judge(limits, &windows);
        assert_eq!(check.verdict, verdict, "{case}: {}", check.message);
        assert!(
            check.message.contains(sentence),
            "{case}: {}",
            check.message
        );
    }
}

#[test]
fn value_and_limit_as_text() {
    let windows = [window(0.1, (1_000, 201), (5_000, 10))];
    let text = |limits| {
        let check = judge(limits, &windows);
        (check.value.unwrap(), check.limit.unwrap())
    };
    assert_eq!(
        text(&RELATIVE),
        ("20.1%".into(), "1.25 x stable (0.2%)".into())
    );
    assert_eq!(text(&ABSOLUTE), ("20.1%".into(), "1%".into()));
    assert_eq!(text(&BOTH).1, "1.25 x stable (0.2%) and 1%");
    let alone = judge(&RELATIVE, &[window(1.0, (10, 0), (0, 0))]);
    assert_eq!(alone.limit.unwrap(), "1% while stable gets no traffic");
    let none = judge(&RELATIVE, &[window(0.1, (0, 0), (0, 0))]);
    assert_eq!((none.value, none.evidence), (None, None));
}

#[test]
fn alone_it_is_held_against_the_frozen_baseline() {
    let with = |baseline, failed| {
        let mut window = window(1.0, (1_000, failed), (0, 0));
        window.baseline = baseline;
        judge(&RELATIVE, &[window])
    };
    // 6 % is far above 1 %, but twice of what stable had.
    assert_eq!(with(None, 60).verdict, Verdict::Harm);
    let tolerant = with(Some(count(10_000, 300)), 60);
    assert_eq!(tolerant.verdict, Verdict::NoHarm);
    assert_eq!(tolerant.limit.unwrap(), "9% while stable gets no traffic");
    assert_eq!(with(Some(count(10_000, 300)), 300).verdict, Verdict::Harm);
    // Stable traffic may also end below a weight of 100.
    let below = judge(
        &RELATIVE,
        &[
            window(0.5, (100, 0), (0, 0)),
            window(0.5, (100, 60), (0, 0)),
        ],
    );
    assert_eq!(below.verdict, Verdict::Harm);
}

#[test]
fn counts_add_up_and_harm_is_final() {
    let good = window(0.1, (100, 0), (900, 1));
    let bad = window(0.1, (100, 50), (900, 1));
    let check = judge(&RELATIVE, &[good, good, bad]);
    assert_eq!(check.verdict, Verdict::Harm);
    let counts = check.counts.unwrap();
    assert_eq!(
        (counts.canary, counts.stable),
        (count(300, 50), count(2_700, 3))
    );
    for _ in 0..100 {
        assert_eq!(
            judge_error_rate(&RELATIVE, Some(&check), &good, at(99)),
            check
        );
    }
    let gap = Gap::Error("gone".into());
    assert_eq!(no_answer("errorRate", Some(&check), &gap, at(99)), check);
}

#[test]
fn what_hit_both_is_forgotten_once_it_is_over() {
    let outage = window(0.1, (100, 10), (900, 90));
    let calm = window(0.1, (100, 0), (900, 1));
    let mut windows = vec![outage; 24];
    assert_eq!(judge(&ABSOLUTE, &windows).verdict, Verdict::CannotTell);
    // At no moment of the recovery is the canary blamed.
    let mut check = judge(&ABSOLUTE, &windows);
    let mut samples = 0;
    while check.verdict != Verdict::NoHarm {
        check = judge_error_rate(&ABSOLUTE, Some(&check), &calm, at(0));
        assert_ne!(check.verdict, Verdict::Harm, "{}", check.message);
        samples += 1;
        assert!(samples < 60, "{}", check.message);
    }
    // And then it can be blamed again.
    windows = vec![window(0.1, (100, 50), (900, 1)); 3];
    for window in &windows {
        check = judge_error_rate(&ABSOLUTE, Some(&check), window, at(0));
    }
    assert_eq!(check.verdict, Verdict::Harm);
}

#[test]
fn the_share_seen_is_counted_from_the_change_of_weight() {
    let check = judge(
        &RELATIVE,
        &[
            window(0.05, (5, 0), (95, 0)),
            window(0.05, (5, 0), (95, 0)),
            window(0.25, (10, 0), (90, 0)),
        ],
    );
    let seen = check.seen.unwrap();
    assert_eq!((seen.told, seen.canary, seen.stable), (0.25, 10, 90));
    let check = judge_error_rate(
        &RELATIVE,
        Some(&check),
        &window(0.25, (40, 0), (60, 0)),
        at(9),
    );
    let seen = check.seen.unwrap();
    assert_eq!((seen.canary, seen.stable), (50, 150));
}

#[test]
fn no_answer_keeps_the_tests() {
    let check = judge(&BOTH, &[window(0.1, (388, 1), (3_501, 2))]);
    let gap = no_answer(
        "errorRate",
        Some(&check),
        &Gap::NoData("Prometheus has no series".into()),
        at(5),
    );
    assert_eq!(gap.verdict, Verdict::NoData);
    assert_eq!(
        gap.message,
        "errorRate has no data: Prometheus has no series"
    );
    assert_eq!(gap.value, None);
    assert_eq!(
        (
            &gap.relative,
            &gap.absolute,
            &gap.absolute_stable,
            &gap.counts,
            &gap.seen
        ),
        (
            &check.relative,
            &check.absolute,
            &check.absolute_stable,
            &check.counts,
            &check.seen
        )
    );
    let error = no_answer("errorRate", None, &Gap::Error("timeout".into()), at(5));
    assert_eq!(
        (error.verdict, &*error.message),
        (Verdict::Error, "errorRate could not be measured: timeout")
    );
}

#[test]
fn limits_are_parsed() {
    let parse = |max: Option<&str>, ratio: Option<Option<&str>>| {
        ErrorLimits::parse(&ErrorRate {
            max: max.map(Share::new),
            vs_stable: ratio.map(|ratio| VsStable {
                max_ratio: ratio.map(Number::new),
            }),
            ..ErrorRate::default()
        })
    };
    assert_eq!(parse(Some("1%"), None), Ok(ABSOLUTE));
    assert_eq!(parse(Some("1%"), Some(None)), Ok(BOTH));
    assert_eq!(parse(None, Some(None)), Ok(RELATIVE));
    assert_eq!(parse(None, None), Ok(ErrorLimits::default()));
    assert_eq!(parse(None, Some(Some("2"))).unwrap().max_ratio, Some(2.0));
    assert!(parse(Some("nan"), None).is_err());
}

#[test]
fn the_state_is_small() {
    let mut check = judge(&BOTH, &[window(0.1, (388, 1), (3_501, 2))]);
    for i in 0..500 {
        check = judge_error_rate(
            &BOTH,
            Some(&check),
            &window(0.1, (388, 1), (3_501, 9)),
            at(i),
        );
    }
    let size = serde_json::to_string(&check).unwrap().len();
    let tests = [&check.relative, &check.absolute, &check.absolute_stable]
        .map(|test| serde_json::to_string(test).unwrap().len());
    println!("a check of the error rate takes {size} bytes; its tests {tests:?}");
    assert!(size < 1_300, "{size}");
}

fn arm() -> impl Strategy<Value = (u64, u64)> {
    (0u64..2_000, 0u64..2_000).prop_map(|(a, b)| (a.max(b), a.min(b)))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any sequence of samples, with a trip through JSON after each: the same verdict, only finite numbers,
    /// counts that add up, and never harm without a failed canary request.
    #[test]
    fn any_samples(
        samples in prop::collection::vec((0.0f64..=1.0, arm(), arm()), 1..40),
        max in prop::option::of(0.0f64..=1.0),
        max_ratio in prop::option::of(1.0f64..100.0),
    ) {
        let limits = ErrorLimits { max, max_ratio };
        let (mut whole, mut resumed) = (None, None);
        let mut total = ArmCounts::default();
        for (share, canary, stable) in samples {
            let window = window(share, canary, stable);
            total = total + window.delta;
            let harm_before = whole.as_ref().is_some_and(|c: &CheckStatus| c.verdict == Verdict::Harm);
            let next = judge_error_rate(&limits, whole.as_ref(), &window, at(0));
            let again = judge_error_rate(&limits, resumed.as_ref(), &window, at(0));
            let text = serde_json::to_string(&again).unwrap();
            let back: CheckStatus = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(&next.verdict, &back.verdict);
            prop_assert_eq!(&next.relative, &back.relative);
            prop_assert_eq!(&next.absolute, &back.absolute);
            if harm_before {
                prop_assert_eq!(next.verdict, Verdict::Harm);
            } else {
                prop_assert_eq!(next.counts, Some(total));
            }
            if total.canary.failed == 0 {
                prop_assert_ne!(next.verdict, Verdict::Harm);
            }
            prop_assert!(!next.message.contains("NaN") && !next.message.contains("inf"));
            (whole, resumed) = (Some(next), Some(back));
        }
    }
}
