//! Sequential tests that may be looked at after every sample.
//!
//! A test is a bettor who starts with a wealth of 1 and bets, sample by sample, that the
//! canary is worse than its limit. Each bet is fair or better for the canary as long as it
//! keeps the limit, so the mean wealth never exceeds 1, and the chance that it *ever*
//! reaches 100 is at most 1 in 100 (Ville's inequality), however often one looks, whatever
//! the time between samples and however the weights change. The wealth is the evidence:
//! odds against the canary.
//!
//! A test spreads its wealth over a grid of alternatives, each a bet on one degree of harm.
//! Three quarters are bet at the first sample, the rest in small parts at later ones, so
//! that a fault that begins late finds fresh wealth. A step costs one pass over the grid,
//! and the state is the wealth of each bet: constant in time and in size.
//!
//! Sources: conditional Poisson and binomial mixtures as in Lindon and Malek, "Anytime-valid
//! inference for multinomial count data" (2022); Ramdas, Grünwald, Vovk and Shafer,
//! "Game-theoretic statistics and safe anytime-valid inference" (2023).

use crate::api::{ArmCounts, Count, TestState};

/// Evidence that convicts, ln(100): 1 in 100 good releases may be condemned by mistake.
pub const HARM: f64 = 4.605_170_185_988_092;

/// Evidence from which on the weight is held, ln(5).
pub const HOLD: f64 = 1.609_437_912_434_100_3;

/// How many times the acceptable ratio each bet of the relative test expects.
const RATIOS: [f64; 7] = [1.5, 2.5, 5.0, 12.0, 40.0, 150.0, 800.0];

/// How many times the limit the first bets of the absolute test expect.
const MULTIPLES: [f64; 4] = [1.5, 2.5, 5.0, 10.0];

/// The rates that its other bets expect.
const RATES: [f64; 5] = [0.05, 0.1, 0.25, 0.5, 0.95];

/// Part of the wealth that is bet at the first sample that bears evidence.
const FIRST: f64 = 0.75;

/// Part that is bet at each later one: 60 of them use up a quarter (all but 0.0004).
const LATER: f64 = 0.004_16;

/// A bet's wealth is kept between e^-40 and a million. Giving wealth away is always fair; the floor
/// adds less than 1e-9 to the mean of the wealth over 10 million samples. Both ends keep a
/// long past from outweighing what happens now.
const FLOOR: f64 = -40.0;
const CAP: f64 = 13.815_510_557_964_274;

/// Takes one sample into the test of "the canary's failure rate is at most `ratio` times stable's,
/// at every moment, whatever the common level does".
///
/// Given the failures of both versions in a sample, those of the canary are binomial with the
/// probability `w * ratio / (w * ratio + 1 - w)`, or lower where the canary keeps the limit. Under random
/// routing that needs no model of the failures at all: each falls on the canary with the
/// probability `w`, however they cluster in time.
///
/// `share` is the largest share of requests, 0 to 1, that the canary may have had during the
/// sample; a share that is too large only makes the test slower. At 1 there is nothing to compare with
/// and the sample says nothing, as does one without failures.
pub fn relative(state: &mut TestState, sample: ArmCounts, share: f64, ratio: f64) {
    let canary = sample.canary.failed as f64;
    let failures = canary + sample.stable.failed as f64;
    if failures == 0.0 || share.is_nan() || share >= 1.0 || !(ratio > 0.0 && ratio.is_finite()) {
        return;
    }
    let share = share.clamp(1e-6, 1.0 - 1e-6);
    let odds = |ratio: f64| (share * ratio + 1.0 - share).ln();
    let within = odds(ratio);
    step(
        state,
        RATIOS.map(|times| canary * times.ln() - failures * (odds(ratio * times) - within)),
    );
}

/// Takes one sample into the test of "the failure rate is at most `limit`", a fraction.
///
/// The limit may differ from sample to sample; what is tested is then that each was kept.
/// With a limit of 1 a sample says nothing; one of 0 is taken as one in a million.
pub fn absolute(state: &mut TestState, sample: Count, limit: f64) {
    if sample.requests == 0 || limit.is_nan() || limit >= 1.0 - 1e-9 {
        return;
    }
    let limit = limit.max(1e-6);
    let failed = sample.failed.min(sample.requests) as f64;
    let passed = sample.requests as f64 - failed;
    let mut expected = [0.0; MULTIPLES.len() + RATES.len()];
    let rates = MULTIPLES.iter().map(|times| times * limit).chain(RATES);
    for (slot, rate) in expected.iter_mut().zip(rates) {
        // A bet must expect clearly more than the limit, and less than certainty.
        let rate = rate.max(1.5 * limit);
        *slot = if rate < 1.0 {
            rate
        } else {
            f64::midpoint(limit, 1.0)
        };
    }
    step(
        state,
        expected.map(|rate| {
            failed * (rate / limit).ln() + passed * ((1.0 - rate) / (1.0 - limit)).ln()
        }),
    );
}

/// The evidence as a natural logarithm: 0 is none, [`HARM`] convicts.
#[must_use]
pub fn evidence(state: &TestState) -> f64 {
    let kept = 1.0 - state.spent.clamp(0.0, 1.0);
    let top = state.wealth.iter().copied().fold(f64::MIN, f64::max);
    // e^CAP is a million, so there is nothing to overflow.
    let bets: f64 = state
        .wealth
        .iter()
        .map(|wealth| wealth.min(CAP).exp())
        .sum();
    if kept + bets > 0.0 {
        (kept + bets).ln()
    } else {
        top
    }
}

/// Evidence of several tests, each with an equal part of the wealth. Without any it is
/// that of a bettor who has lost everything.
#[must_use]
pub fn together(evidence: impl IntoIterator<Item = f64>) -> f64 {
    let (sum, count) = evidence
        .into_iter()
        .fold((0.0, 0.0), |(sum, count), ln| (sum + ln.exp(), count + 1.0));
    if count > 0.0 {
        (sum / count).ln()
    } else {
        f64::NEG_INFINITY
    }
}

/// Places the next bets, then lets the sample decide on all. `gains` are the logarithms of what
/// each bet multiplies its wealth by.
///
/// Bets may be placed in view of the sample's size, which both tests take as given, but not of
/// how its failures fall.
fn step<const BETS: usize>(state: &mut TestState, gains: [f64; BETS]) {
    let spent = state.spent.clamp(0.0, 1.0);
    let part = if spent == 0.0 {
        FIRST
    } else {
        LATER.min(1.0 - spent)
    };
    // A state that does not fit has lost its wealth, and goes on with what was not bet yet.
    if state.wealth.len() != BETS {
        state.wealth = vec![FLOOR; BETS];
    }
    let bet = if part > LATER / 2.0 {
        (part / BETS as f64).ln()
    } else {
        f64::NEG_INFINITY
    };
    for (wealth, gain) in state.wealth.iter_mut().zip(gains) {
        let held = if wealth.is_finite() { *wealth } else { FLOOR };
        *wealth = short((add(held, bet) + gain).clamp(FLOOR, CAP));
    }
    // Rounded, so that the parts add up to the same text for ever.
    state.spent = if bet.is_finite() {
        ((spent + part) * 1e6).round() / 1e6
    } else {
        spent
    };
    state.peak = state.peak.max(short(evidence(state)));
}

/// ln(e^a + e^b)
fn add(a: f64, b: f64) -> f64 {
    let (low, high) = if a < b { (a, b) } else { (b, a) };
    high + (low - high).exp().ln_1p()
}

/// Six decimals, rounded down, which is fair: short in status, and the same number after
/// any number of trips through JSON.
fn short(ln: f64) -> f64 {
    (ln * 1e6).floor() / 1e6
}
