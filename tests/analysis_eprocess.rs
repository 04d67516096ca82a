//! The sequential tests: what they promise under the null, what they find beside it.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]
use serin::analysis::eprocess::{HARM, absolute, evidence, relative, together};
use serin::api::{ArmCounts, Count, TestState};

/// SplitMix64: a fixed seed gives the same numbers on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    fn binomial(&mut self, n: u64, p: f64) -> u64 {
        (0..n).filter(|_| self.unit() < p).count() as u64
    }
}

fn count(requests: u64, failed: u64) -> Count {
    Count { requests, failed }
}

fn arms(canary: Count, stable: Count) -> ArmCounts {
    ArmCounts { canary, stable }
}

/// `n` requests, each routed to the canary with probability `w`.
fn routed(random: &mut Random, n: u64, w: f64, p_canary: f64, p_stable: f64) -> ArmCounts {
    let canary = random.binomial(n, w);
    let stable = n - canary;
    arms(
        count(canary, random.binomial(canary, p_canary)),
        count(stable, random.binomial(stable, p_stable)),
    )
}

/// Mean of the final wealth and share of runs that ever convicted. The wealth of a bettor who stops when
/// convinced is what must have a mean of at most 1; it is bounded, so that its mean can be estimated.
fn wealth(runs: u32, mut run: impl FnMut(&mut TestState) -> bool) -> (f64, f64, f64) {
    let (mut sum, mut squares, mut convicted) = (0.0, 0.0, 0.0);
    for _ in 0..runs {
        let mut state = TestState::default();
        while state.peak < HARM && run(&mut state) {}
        let e = evidence(&state).exp();
        sum += e;
        squares += e * e;
        convicted += f64::from(u8::from(state.peak >= HARM));
    }
    let n = f64::from(runs);
    let mean = sum / n;
    let error = ((squares / n - mean * mean) / n).sqrt();
    (mean, error, convicted / n)
}

#[test]
fn the_mean_wealth_of_the_relative_test_is_at_most_one_when_the_limit_is_kept() {
    let mut random = Random(1);
    for (ratio, steps) in [(1.0, 40), (1.25, 40), (2.0, 100)] {
        let mut left = 0;
        let (mut w, mut p) = (0.0, 0.0);
        let (mean, error, convicted) = wealth(3_000, |state| {
            if left == 0 {
                left = steps;
            }
            left -= 1;
            // Weights and the common level change at any time.
            if left % 10 == steps % 10 || random.unit() < 0.1 {
                w = [0.01, 0.05, 0.25, 0.5, 0.9][(random.next() % 5) as usize];
                p = random.between(0.0, 0.3).powi(2);
            }
            let n = random.next() % 60;
            let sample = routed(&mut random, n, w, ratio * p, p);
            relative(state, sample, w, ratio);
            let more = left > 0;
            if state.peak >= HARM {
                left = 0;
            }
            more
        });
        assert!(mean <= 1.0 + 4.0 * error, "{ratio}: {mean} ± {error}");
        assert!(convicted <= 0.01, "{ratio}: {convicted}");
    }
}

#[test]
fn the_mean_wealth_of_the_absolute_test_is_at_most_one_when_the_limit_is_kept() {
    let mut random = Random(2);
    for limit in [0.001, 0.01, 0.2, 0.8] {
        let mut left = 0;
        let (mean, error, convicted) = wealth(2_000, |state| {
            left = if left == 0 { 40 } else { left - 1 };
            let n = random.next() % 80;
            let failed = random.binomial(n, limit);
            absolute(state, count(n, failed), limit);
            let more = left > 0;
            if state.peak >= HARM {
                left = 0;
            }
            more
        });
        assert!(mean <= 1.0 + 4.0 * error, "{limit}: {mean} ± {error}");
        assert!(convicted <= 0.01, "{limit}: {convicted}");
    }
}

fn choose(n: u64, k: u64) -> f64 {
    (1..=k).map(|i| (n - k + i) as f64 / i as f64).product()
}

fn binomial(n: u64, k: u64, p: f64) -> f64 {
    choose(n, k) * p.powi(k as i32) * (1.0 - p).powi((n - k) as i32)
}

/// Every outcome of two samples, each of `n` requests, with its probability.
#[test]
fn the_mean_is_at_most_one_by_enumeration() {
    for (n, w, p, ratio) in [
        (3, 0.1, 0.3, 1.0),
        (4, 0.5, 0.5, 1.0),
        (4, 0.25, 0.2, 1.25),
        (3, 0.9, 0.4, 2.0),
    ] {
        let mut outcomes = Vec::new();
        for canary in 0..=n {
            for ec in 0..=canary {
                for es in 0..=(n - canary) {
                    let chance = binomial(n, canary, w)
                        * binomial(canary, ec, ratio * p)
                        * binomial(n - canary, es, p);
                    outcomes.push((arms(count(canary, ec), count(n - canary, es)), chance));
                }
            }
        }
        let (mut mean, mut total) = (0.0, 0.0);
        for (first, a) in &outcomes {
            for (second, b) in &outcomes {
                let mut state = TestState::default();
                relative(&mut state, *first, w, ratio);
                relative(&mut state, *second, w, ratio);
                mean += a * b * evidence(&state).exp();
                total += a * b;
            }
        }
        assert!((total - 1.0).abs() < 1e-9);
        assert!(mean <= 1.0 + 1e-9, "{n} {w} {p} {ratio}: {mean}");
        assert!(mean > 0.9, "the bets are fair, not wasted: {mean}");
    }
    for (n, limit) in [(1, 0.5), (6, 0.1), (8, 0.7)] {
        let mut mean = 0.0;
        for a in 0..=n {
            for b in 0..=n {
                let mut state = TestState::default();
                absolute(&mut state, count(n, a), limit);
                absolute(&mut state, count(n, b), limit);
                mean += binomial(n, a, limit) * binomial(n, b, limit) * evidence(&state).exp();
            }
        }
        assert!(mean <= 1.0 + 1e-9 && mean > 0.9, "{n} {limit}: {mean}");
    }
}

#[test]
fn a_share_that_is_taken_for_larger_only_slows_the_test() {
    let sample = arms(count(100, 9), count(900, 2));
    let mut last = f64::INFINITY;
    for share in [0.1, 0.2, 0.5, 0.9, 0.999_999] {
        let mut state = TestState::default();
        relative(&mut state, sample, share, 1.25);
        assert!(evidence(&state) < last, "{share}");
        last = evidence(&state);
    }
}

/// ln of ∫ θ^c (1-θ)^s dθ over θ0..1, over θ0^c (1-θ0)^s: the Beta(1, 1) mixture, one-sided.
fn closed_form(canary: u32, stable: u32, theta0: f64) -> f64 {
    let ln = |theta: f64| {
        f64::from(canary) * (theta / theta0).ln()
            + f64::from(stable) * ((1.0 - theta) / (1.0 - theta0)).ln()
    };
    let steps = 20_000;
    let thetas =
        (0..steps).map(|i| theta0 + (1.0 - theta0) * (f64::from(i) + 0.5) / f64::from(steps));
    let sum: f64 = thetas.map(|theta| ln(theta).exp()).sum();
    (sum / f64::from(steps)).ln()
}

#[test]
fn the_grid_agrees_with_the_beta_binomial_mixture() {
    for w in [0.05_f64, 0.1, 0.25, 0.5] {
        for (canary, stable) in [
            (3, 0),
            (5, 2),
            (9, 2),
            (20, 5),
            (30, 90),
            (2, 20),
            (1, 1),
            (60, 60),
        ] {
            let theta0 = w * 1.25 / (w * 1.25 + 1.0 - w);
            let closed = closed_form(canary, stable, theta0);
            let mut state = TestState::default();
            // Larger than any share of these failures, and of no consequence.
            let requests = 100_000;
            relative(
                &mut state,
                arms(
                    count(requests, canary.into()),
                    count(requests, stable.into()),
                ),
                w,
                1.25,
            );
            let grid = evidence(&state);
            if closed > 12.0 {
                // Wealth beyond a million is given away.
                assert!(
                    grid > 11.0,
                    "w {w}, {canary}:{stable}: {grid} against {closed}"
                );
                continue;
            }
            // The unspent quarter bounds the grid's evidence from below.
            let closed = closed.max(-1.4);
            assert!(
                (grid - closed).abs() < 2.3,
                "w {w}, {canary}:{stable}: {grid} against {closed}"
            );
        }
    }
}

#[test]
fn a_dozen_failures_convict_a_broken_canary() {
    // Requests of both versions until conviction, at 1 in 1,000 for stable and a share of 10 %.
    let mut random = Random(3);
    for (rate, most) in [(0.5, 6.0), (0.05, 8.0)] {
        let (runs, mut failed) = (200, 0);
        for _ in 0..runs {
            let mut state = TestState::default();
            while state.peak < HARM {
                let sample = routed(&mut random, 5, 0.1, rate, 0.001);
                failed += sample.canary.failed;
                relative(&mut state, sample, 0.1, 1.25);
            }
        }
        let mean = failed as f64 / f64::from(runs);
        assert!(mean < most, "{rate}: {mean} failed requests");
    }
}

#[test]
fn a_fault_that_begins_late_is_found() {
    let mut random = Random(4);
    let mut state = TestState::default();
    for _ in 0..2_000 {
        relative(
            &mut state,
            routed(&mut random, 100, 0.4, 0.01, 0.01),
            0.4,
            1.25,
        );
    }
    assert!(state.peak < HARM);
    let mut samples = 0;
    while state.peak < HARM {
        relative(
            &mut state,
            routed(&mut random, 100, 0.4, 0.1, 0.01),
            0.4,
            1.25,
        );
        samples += 1;
    }
    assert!(samples <= 25, "{samples}");
}

#[test]
fn a_state_that_goes_through_json_at_every_sample_says_the_same() {
    let mut random = Random(5);
    for _ in 0..50 {
        let (mut whole, mut resumed) = (TestState::default(), TestState::default());
        let (mut whole_abs, mut resumed_abs) = (TestState::default(), TestState::default());
        for _ in 0..100 {
            let w = random.between(0.01, 1.0);
            let sample = routed(&mut random, 50, w, 0.03, 0.02);
            relative(&mut whole, sample, w, 1.25);
            relative(&mut resumed, sample, w, 1.25);
            absolute(&mut whole_abs, sample.canary, 0.02);
            absolute(&mut resumed_abs, sample.canary, 0.02);
            for state in [&mut resumed, &mut resumed_abs] {
                let text = serde_json::to_string(&state).unwrap();
                *state = serde_json::from_str(&text).unwrap();
            }
            assert_eq!((&whole, &whole_abs), (&resumed, &resumed_abs));
        }
    }
}

#[test]
fn a_lost_state_bets_only_what_it_had_not_bet() {
    let mut random = Random(6);
    let mut state = TestState::default();
    for _ in 0..10 {
        relative(
            &mut state,
            routed(&mut random, 100, 0.5, 0.1, 0.1),
            0.5,
            1.25,
        );
    }
    state.wealth = vec![f64::NAN; 3];
    let kept = 1.0 - state.spent;
    relative(&mut state, arms(count(0, 0), count(100, 50)), 0.5, 1.25);
    assert!(evidence(&state) <= kept.ln() + 1e-9);
}

#[test]
fn samples_that_say_nothing_change_nothing() {
    let fresh = TestState::default();
    let mut state = fresh.clone();
    relative(
        &mut state,
        arms(count(1_000, 0), count(9_000, 0)),
        0.1,
        1.25,
    );
    relative(&mut state, arms(count(1_000, 500), count(0, 0)), 1.0, 1.25);
    relative(
        &mut state,
        arms(count(1_000, 500), count(0, 0)),
        f64::NAN,
        1.25,
    );
    absolute(&mut state, count(0, 0), 0.01);
    absolute(&mut state, count(10, 10), 1.0);
    assert_eq!(state, fresh);
    assert_eq!(evidence(&state), 0.0);
}

#[test]
fn no_input_makes_a_state_that_json_cannot_hold() {
    let odd = [0, 1, 1_000, u64::MAX];
    let mut state = TestState::default();
    let mut other = TestState::default();
    for requests in odd {
        for failed in odd {
            for limit in [0.0, 1e-300, 0.01, 0.5, 0.999_999, 1.0, 7.0, f64::INFINITY] {
                let c = count(requests, failed);
                relative(&mut state, arms(c, c), limit, 1.0 + limit);
                absolute(&mut other, c, limit);
                for s in [&state, &other] {
                    assert!(s.wealth.iter().all(|w| w.is_finite()) && s.peak.is_finite());
                    assert!((0.0..=1.0).contains(&s.spent));
                }
            }
        }
    }
}

#[test]
fn two_tests_share_the_wealth() {
    assert!((together([0.0, 0.0])).abs() < 1e-12);
    assert!((together([200f64.ln(), f64::NEG_INFINITY]) - HARM).abs() < 1e-9);
    assert_eq!(together([]), f64::NEG_INFINITY);
}
