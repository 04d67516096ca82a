//! How often identical versions are condemned, and how soon bad ones are found, sample after sample
//! as a release sees them. The full table is a benchmark; these are a few of its cells.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use serin::analysis::{ErrorLimits, Window, judge_error_rate};
use serin::api::{ArmCounts, Count, Time, Verdict};

/// SplitMix64: a fixed seed gives the same numbers on every machine.
struct Random(u64);

impl Random {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Knuth's way, in parts so that nothing underflows.
    fn poisson(&mut self, mean: f64) -> u64 {
        let (mut left, mut n) = (mean, 0);
        while left > 0.0 {
            let part = left.min(20.0);
            left -= part;
            let (floor, mut product) = ((-part).exp(), self.unit());
            while product > floor {
                product *= self.unit();
                n += 1;
            }
        }
        n
    }

    fn arm(&mut self, requests: f64, rate: f64) -> Count {
        let failed = self.poisson(requests * rate);
        let passed = self.poisson(requests * (1.0 - rate));
        Count {
            requests: failed + passed,
            failed,
        }
    }
}

/// A world: requests per second, failure rates of both versions at the n-th sample, and the real share as a part of the told one.
struct World<'a> {
    rps: f64,
    rates: &'a dyn Fn(usize) -> (f64, f64),
    stray: f64,
}

/// Five minutes at samples of 5 s, from 10 % to 50 %. The sample at which the canary was condemned.
fn release(random: &mut Random, limits: &ErrorLimits, world: &World<'_>) -> Option<usize> {
    let mut check = None;
    for sample in 0..60 {
        let share = [0.1, 0.2, 0.3, 0.4, 0.5][sample / 12];
        let requests = world.rps * 5.0;
        let canary = requests * share * world.stray;
        let (p_canary, p_stable) = (world.rates)(sample);
        let window = Window {
            delta: ArmCounts {
                canary: random.arm(canary, p_canary),
                stable: random.arm(requests - canary, p_stable),
            },
            share,
            baseline: None,
        };
        let next = judge_error_rate(limits, check.as_ref(), &window, Time::UNIX_EPOCH);
        if next.verdict == Verdict::Harm {
            return Some(sample);
        }
        check = Some(next);
    }
    None
}

#[test]
fn identical_versions_are_promoted() {
    let mut random = Random(11);
    let runs = 200;
    // The strictest limit that can be asked for.
    let strict = ErrorLimits {
        max: None,
        max_ratio: Some(1.0),
    };
    for (base, rps) in [(0.001, 100.0), (0.01, 10.0), (0.01, 100.0), (0.05, 40.0)] {
        for stray in [0.7, 1.0, 1.3] {
            let rates = move |_: usize| (base, base);
            let world = World {
                rps,
                rates: &rates,
                stray,
            };
            let condemned = (0..runs)
                .filter(|_| release(&mut random, &strict, &world).is_some())
                .count();
            // At 1 in 100, more than 6 of 200 would be a chance of 1 in 200.
            assert!(
                condemned <= 6,
                "{base} {rps} {stray}: {condemned} of {runs}"
            );
        }
    }
}

#[test]
fn an_outage_of_both_versions_is_not_the_canarys() {
    let mut random = Random(12);
    let both = ErrorLimits {
        max: Some(0.01),
        max_ratio: Some(1.25),
    };
    let absolute = ErrorLimits {
        max: Some(0.01),
        max_ratio: None,
    };
    let rates = |sample: usize| match sample {
        6..54 => (0.1, 0.1),
        _ => (0.001, 0.001),
    };
    let world = World {
        rps: 100.0,
        rates: &rates,
        stray: 1.0,
    };
    for limits in [ErrorLimits::default(), both, absolute] {
        let condemned = (0..100)
            .filter(|_| release(&mut random, &limits, &world).is_some())
            .count();
        assert!(condemned <= 2, "{limits:?}: {condemned} of 100");
    }
}

#[test]
fn bad_versions_are_found_in_seconds() {
    let mut random = Random(13);
    // Failure rates, requests per second, and the mean number of samples that finding it may take.
    for (base, bad, rps, most) in [
        (0.001, 0.5, 10.0, 3.0),
        (0.001, 0.05, 100.0, 3.0),
        (0.01, 0.05, 100.0, 8.0),
        (0.01, 0.2, 200.0, 1.5),
    ] {
        let rates = move |_: usize| (bad, base);
        let world = World {
            rps,
            rates: &rates,
            stray: 1.0,
        };
        let found: Vec<usize> = (0..100)
            .filter_map(|_| release(&mut random, &ErrorLimits::default(), &world))
            .collect();
        assert_eq!(found.len(), 100, "{base} {bad} {rps}");
        let mean = found.iter().map(|sample| *sample as f64 + 1.0).sum::<f64>() / 100.0;
        assert!(mean <= most, "{base} to {bad} at {rps}: {mean} samples");
    }
}
