//! The verdict on the share of requests that fail.
//!
//! Relative evidence decides, because a fault of something that both versions depend on is no
//! fault of the release. An absolute limit convicts only while the stable version keeps it.

use super::eprocess::{self, HARM, HOLD, evidence, together};
use super::words::{failures, number, odds, of, percent};
use crate::api::{
    ArmCounts, CheckStatus, Count, ErrorRate, QuantityError, SeenShare, TestState, Time, Verdict,
};

/// The name of the check in status and messages.
pub const ERROR_RATE: &str = "errorRate";

/// How many times stable's rate is acceptable where nothing is said. Ratios nearer to 1 convict healthy
/// versions whose errors come in clumps.
pub const DEFAULT_MAX_RATIO: f64 = 1.25;

/// Requests from which on the share that was seen is believed.
const BELIEVED: u64 = 50;

/// What is acceptable.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ErrorLimits {
    /// The largest share of failed requests, 0 to 1.
    pub max: Option<f64>,
    /// The largest ratio of the canary's share to stable's, at least 1.
    pub max_ratio: Option<f64>,
}

impl Default for ErrorLimits {
    fn default() -> Self {
        Self {
            max: None,
            max_ratio: Some(DEFAULT_MAX_RATIO),
        }
    }
}

impl ErrorLimits {
    /// The limits that a spec writes as text.
    ///
    /// # Errors
    /// When a text is no share or no number.
    pub fn parse(spec: &ErrorRate) -> Result<Self, QuantityError> {
        let max = spec.max.as_ref().map(|share| share.parse()).transpose()?;
        let max_ratio = match &spec.vs_stable {
            Some(vs) => Some(match &vs.max_ratio {
                Some(ratio) => ratio.parse()?,
                None => DEFAULT_MAX_RATIO,
            }),
            None if max.is_none() => Some(DEFAULT_MAX_RATIO),
            None => None,
        };
        Ok(Self { max, max_ratio })
    }
}

/// What came in since the last sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Window {
    /// Requests and failures since the last sample.
    pub delta: ArmCounts,
    /// The largest share of requests, 0 to 1, that the routes gave the canary since then.
    pub share: f64,
    /// Stable's counts while it still had traffic, to judge by when it has none.
    pub baseline: Option<Count>,
}

/// Judges the canary by one more sample. `prior` is what the sample before left, none at the first.
/// The verdict [`Verdict::Harm`] is final: from then on `prior` is answered as it is.
#[must_use]
pub fn judge_error_rate(
    limits: &ErrorLimits,
    prior: Option<&CheckStatus>,
    window: &Window,
    now: Time,
) -> CheckStatus {
    if let Some(convicted) = prior.filter(|check| check.verdict == Verdict::Harm) {
        return convicted.clone();
    }
    let tests = Tests::advance(limits, prior, window);
    let counts = prior.and_then(|check| check.counts).unwrap_or_default() + window.delta;
    let finding = tests.finding(counts);
    let seen_any = counts.canary.requests > 0;
    CheckStatus {
        name: ERROR_RATE.into(),
        verdict: finding.verdict(),
        value: counts.canary.rate().map(percent),
        limit: Some(tests.limit_text(counts.stable)),
        message: finding.sentence(counts),
        at: now,
        counts: Some(counts),
        evidence: seen_any.then(|| log10(tests.evidence())),
        failures: 0,
        relative: tests.relative,
        absolute: tests.absolute,
        absolute_stable: tests.absolute_stable,
        seen: Some(tests.seen),
    }
}

/// The sequential tests of one check, after a sample.
struct Tests {
    limits: ErrorLimits,
    /// The absolute limit in force.
    max: Option<f64>,
    /// The stable version has no traffic that the canary's could be held against.
    alone: bool,
    seen: SeenShare,
    relative: Option<TestState>,
    absolute: Option<TestState>,
    absolute_stable: Option<TestState>,
}

impl Tests {
    fn advance(limits: &ErrorLimits, prior: Option<&CheckStatus>, window: &Window) -> Self {
        let seen = look(prior.and_then(|check| check.seen), window);
        let alone = window.share >= 1.0 || (seen.canary >= BELIEVED && seen.stable == 0);
        let max = match limits.max_ratio {
            Some(_) if alone => Some(alone_limit(limits, window.baseline)),
            _ => limits.max,
        };
        let ArmCounts { canary, stable } = window.delta;

        let mut relative = prior.and_then(|check| check.relative.clone());
        if let Some(ratio) = limits.max_ratio {
            let test = relative.get_or_insert_default();
            if !alone {
                eprocess::relative(test, window.delta, likely_share(seen), ratio);
            }
        }
        let mut absolute = prior.and_then(|check| check.absolute.clone());
        if let Some(max) = max {
            eprocess::absolute(absolute.get_or_insert_default(), canary, max);
        }
        let mut absolute_stable = prior.and_then(|check| check.absolute_stable.clone());
        if let Some(max) = limits.max {
            let test = absolute_stable.get_or_insert_default();
            eprocess::absolute(test, stable, max);
            // What hit both is over once the evidence against either has faded.
            if evidence(test) < HOLD && absolute.as_ref().is_none_or(|a| evidence(a) < HOLD) {
                test.peak = evidence(test).max(0.0);
            }
        }
        Self {
            limits: *limits,
            max,
            alone,
            seen,
            relative,
            absolute,
            absolute_stable,
        }
    }

    /// Evidence of harm by all tests, as a natural logarithm.
    fn evidence(&self) -> f64 {
        together(self.relative.iter().chain(&self.absolute).map(evidence))
    }

    /// Evidence that may convict: the absolute test's counts for nothing while stable fails too.
    fn convicting(&self) -> f64 {
        if !self.stable_fails_too() {
            return self.evidence();
        }
        let absolute = self.absolute.iter().map(|_| f64::NEG_INFINITY);
        together(self.relative.iter().map(evidence).chain(absolute))
    }

    /// Stable was shown to exceed the absolute limit, and that is not over. Where the limit already
    /// allows for stable's rate, it is no excuse.
    fn stable_fails_too(&self) -> bool {
        let allowed_for = self.alone && self.limits.max_ratio.is_some();
        let peak = self.absolute_stable.as_ref().map(|test| test.peak);
        !allowed_for && peak.is_some_and(|peak| peak >= HOLD)
    }

    fn finding(&self, counts: ArmCounts) -> Finding {
        let convicting = self.convicting();
        let over_limit = self.absolute.as_ref().is_some_and(|a| evidence(a) >= HOLD);
        if counts.canary.requests == 0 {
            Finding::NoRequests
        } else if convicting >= HARM {
            Finding::Harm(convicting)
        } else if convicting >= HOLD {
            Finding::Suspicion(convicting)
        } else if over_limit && self.stable_fails_too() {
            Finding::Alike
        } else {
            Finding::NoHarm(convicting)
        }
    }

    fn limit_text(&self, stable: Count) -> String {
        let max = self.max.map(percent);
        let ratio = match self.limits.max_ratio {
            Some(_) if self.alone => {
                let max = max.unwrap_or_default();
                return format!("{max} while stable gets no traffic");
            }
            ratio => ratio.map(|ratio| match stable.rate() {
                Some(rate) => format!("{} x stable ({})", number(ratio), percent(rate)),
                None => format!("{} x stable", number(ratio)),
            }),
        };
        let both: Vec<String> = ratio.into_iter().chain(max).collect();
        both.join(" and ")
    }
}

/// What a check has found, with the evidence as a natural logarithm.
enum Finding {
    NoRequests,
    Harm(f64),
    Suspicion(f64),
    Alike,
    NoHarm(f64),
}

impl Finding {
    fn verdict(&self) -> Verdict {
        match self {
            Self::NoRequests => Verdict::NoData,
            Self::Harm(_) => Verdict::Harm,
            Self::Suspicion(_) | Self::Alike => Verdict::CannotTell,
            Self::NoHarm(_) => Verdict::NoHarm,
        }
    }

    fn sentence(&self, counts: ArmCounts) -> String {
        let ArmCounts { canary, stable } = counts;
        let tally = match stable.requests {
            0 => format!("canary {}, stable had no requests", failures(canary)),
            _ => format!("canary {}, stable {}", failures(canary), failures(stable)),
        };
        match self {
            Self::NoRequests if stable.requests == 0 => {
                "no requests at all: the data plane counted none for either version".into()
            }
            Self::NoRequests => format!(
                "canary got 0 of {} requests; check Service and route weights",
                super::words::count(stable.requests)
            ),
            Self::Harm(ln) => format!("failed requests: {tally}; {} against chance", odds(*ln)),
            Self::Suspicion(ln) => format!(
                "failed requests: {tally}; evidence of harm {} holds the weight, 100:1 rolls back",
                odds(*ln)
            ),
            Self::Alike => {
                let rate = |count: Count| count.rate().map(percent).unwrap_or_default();
                format!(
                    "both versions fail alike (canary {}, stable {}): a dependency problem, not this release; failed requests: canary {}, stable {}",
                    rate(canary),
                    rate(stable),
                    of(canary),
                    of(stable)
                )
            }
            Self::NoHarm(ln) if *ln > 0.05 => format!(
                "failed requests: {tally}; evidence of harm {}, 100:1 rolls back",
                odds(*ln)
            ),
            Self::NoHarm(_) => format!("failed requests: {tally}; no evidence of harm"),
        }
    }
}

/// The limit where no stable traffic is left to compare with: three times what stable's rate
/// was, and no less than what was asked for, or 1 %. It finds catastrophes only, since nothing tells
/// a fault of the release from a fault of what it depends on.
fn alone_limit(limits: &ErrorLimits, baseline: Option<Count>) -> f64 {
    let before = baseline.and_then(Count::rate).unwrap_or(0.0);
    limits.max.unwrap_or(0.01).max(3.0 * before)
}

/// Counts requests from the moment on that the weight changed.
fn look(prior: Option<SeenShare>, window: &Window) -> SeenShare {
    let told = window.share.clamp(0.0, 1.0);
    let so_far = prior.filter(|seen| (seen.told - told).abs() < 1e-9);
    let (canary, stable) = so_far.map_or((0, 0), |seen| (seen.canary, seen.stable));
    SeenShare {
        told,
        canary: canary.saturating_add(window.delta.canary.requests),
        stable: stable.saturating_add(window.delta.stable.requests),
    }
}

/// The share to hold the canary's failures against: what was told, or what is seen where that is more.
/// With less than was told, a test by the share that is seen would condemn nearly every good
/// release once it strays; with more, one by the share that was told would.
fn likely_share(seen: SeenShare) -> f64 {
    let all = seen.canary.saturating_add(seen.stable);
    if all < BELIEVED {
        return seen.told;
    }
    seen.told.max(seen.canary as f64 / all as f64)
}

/// To base 10, with three decimals.
fn log10(ln: f64) -> f64 {
    let log = (ln / std::f64::consts::LN_10).clamp(-9.0, 9.0);
    (log * 1e3).round() / 1e3
}
