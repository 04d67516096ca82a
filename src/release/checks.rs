//! The checks of a release: which apply now, what is to be asked, and what the answers say.

use super::bounds::POINTS;
use super::decide::{Turn, under_way};
use super::facts::Answer;
use super::plan::{ErrorCheck, MetricCheck, Plan, PlannedStep};
use crate::analysis::error_rate::ERROR_RATE;
use crate::analysis::{self, Gap, Measured, MetricLimits, Reading, Window};
use crate::api::{
    ArmCounts, CanarySpec, CanaryStatus, CheckStatus, OnInconclusive, Outcome, PlanSpec, Point,
    Release, Stage, Time, Verdict,
};
use chrono::TimeDelta;

/// Something to ask of the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Raw counters of requests and failures of both versions.
    ErrorRate {
        /// Requests that were matched by a header count too, because nothing else reaches the canary.
        testers: bool,
    },
    Metric {
        name: String,
        query: String,
    },
}

/// What is to be asked before the next decision.
#[must_use]
pub fn questions(spec: &CanarySpec, status: &CanaryStatus, now: Time) -> Vec<Question> {
    let Some(release) = status.release.as_ref().filter(|r| under_way(r)) else {
        // A release that is about to begin takes the counters as they stand before its first patch.
        let begins = status.stable.as_ref().zip(spec.target.backend.as_ref());
        let begins = !spec.paused
            && begins.is_none_or(|(stable, target)| {
                let home = stable.backend.namespace.as_deref().unwrap_or_default();
                let revision = target.clone().within(home).revision();
                revision != stable.revision && status.refused.as_ref() != Some(&revision)
            });
        let counted = PlanSpec::of(spec).analysis.error_rate.is_some();
        return if begins && counted {
            vec![Question::ErrorRate { testers: false }]
        } else {
            Vec::new()
        };
    };
    let Ok(plan) = Plan::of(&release.plan) else {
        return Vec::new();
    };
    let Some(step) = plan.step(release.step.index) else {
        return Vec::new();
    };
    if release.stage == Stage::Restoring {
        return Vec::new();
    }
    // One of the future is from before the clock was put back.
    let due = |last: Option<Time>| last.is_none_or(|at| now - at >= plan.interval || at > now);
    let last = |name: &str| release.checks.iter().find(|c| c.name == name).map(|c| c.at);
    let applies = applies(release, step);
    let mut questions = Vec::new();
    if plan.error_rate.is_some() && (applies || release.counters.is_none()) && due(last(ERROR_RATE))
    {
        questions.push(Question::ErrorRate {
            testers: step.weight == 0,
        });
    }
    if applies {
        let metrics = plan.metrics.iter().filter(|m| due(last(&m.name)));
        questions.extend(metrics.map(|m| Question::Metric {
            name: m.name.clone(),
            query: m.query.clone(),
        }));
    }
    questions
}

/// When the counters were last asked for.
fn last_count(release: &Release) -> Option<Time> {
    let check = release.checks.iter().find(|c| c.name == ERROR_RATE);
    let counters = release.counters.as_ref();
    check.map(|c| c.at).max(counters.map(|c| c.at))
}

/// Checks on traffic do not apply where the canary gets none, unless `minRequests` asks for some.
fn applies(release: &Release, step: &PlannedStep) -> bool {
    match release.stage {
        Stage::Stepping => step.weight > 0 || step.min_requests > 0,
        Stage::Promoting => true,
        Stage::Restoring | Stage::Ended => false,
    }
}

/// A check by its name, and what to do when it can say neither.
pub(super) struct Applicable {
    pub name: String,
    on_no_data: OnInconclusive,
    on_error: OnInconclusive,
}

impl Turn<'_> {
    /// The checks that stand between this step and the next. One whose lack of data is to be ignored,
    /// and which has none, does not.
    pub fn applicable(&self, plan: &Plan, step: &PlannedStep) -> Vec<Applicable> {
        let Some(release) = self.release().filter(|release| applies(release, step)) else {
            return Vec::new();
        };
        let errors = plan.error_rate.iter().map(|c| Applicable {
            name: ERROR_RATE.into(),
            on_no_data: c.on_no_data,
            on_error: c.on_error,
        });
        let metrics = plan.metrics.iter().map(|m| Applicable {
            name: m.name.clone(),
            on_no_data: m.on_no_data,
            on_error: m.on_error,
        });
        errors
            .chain(metrics)
            .filter(|check| {
                let found = release
                    .checks
                    .iter()
                    .find(|c| c.name == check.name)
                    .map(|c| c.verdict);
                !found.is_some_and(|verdict| check.policy(verdict) == Some(OnInconclusive::Ignore))
            })
            .collect()
    }

    /// The first check that has no data, or an error, and what its policy is.
    pub fn blind(&self, plan: &Plan, step: &PlannedStep) -> Option<(String, OnInconclusive)> {
        let release = self.release()?;
        self.applicable(plan, step).iter().find_map(|check| {
            let found = release.checks.iter().find(|c| c.name == check.name)?;
            let policy = check.policy(found.verdict)?;
            Some((found.message.clone(), policy))
        })
    }

    /// A check without data whose policy is to roll back then, once that has lasted for three intervals.
    pub fn blind_too_long(&self) -> Option<(Outcome, String)> {
        let (plan, step) = self.planned()?;
        let (what, policy) = self.blind(&plan, &step)?;
        let since = self.release()?.step.blind_since?;
        let long = policy == OnInconclusive::RollBack && self.now >= since + plan.interval * 3;
        long.then_some((Outcome::RolledBack, what))
    }

    /// Turns answers into verdicts.
    pub fn judge(&mut self) {
        let Some((plan, step)) = self.planned() else {
            return;
        };
        let facts = self.facts;
        for answer in &facts.answers {
            match answer {
                Answer::ErrorRate(reading) => {
                    if let Some(check) = &plan.error_rate {
                        self.judge_errors(check, &plan, &step, reading);
                    }
                }
                Answer::Metric { name, measured } => {
                    if let Some(metric) = plan.metrics.iter().find(|m| m.name == *name) {
                        self.judge_metric(metric, measured);
                    }
                }
            }
        }
        let now = self.now;
        let Some(release) = self.status.release.as_mut() else {
            return;
        };
        if !facts.answers.is_empty() && release.step.accepted_at.is_some() {
            release.step.samples = release.step.samples.saturating_add(1);
        }
        let point_due = release
            .timeline
            .last()
            .is_none_or(|p| now - p.at >= TimeDelta::seconds(10));
        if point_due && !facts.answers.is_empty() {
            self.mark_point();
        }
        self.wake_for_checks(&plan, &step);
    }

    fn judge_errors(
        &mut self,
        check: &ErrorCheck,
        plan: &Plan,
        step: &PlannedStep,
        answer: &Result<Reading, Gap>,
    ) {
        let now = self.now;
        let Some(release) = self.status.release.as_mut() else {
            return;
        };
        let applies = applies(release, step);
        let share = share(release, plan, step);
        let prior = release
            .checks
            .iter()
            .find(|c| c.name == ERROR_RATE)
            .cloned();
        let judged = match answer {
            Err(_) if !applies => return,
            Err(why) => analysis::no_answer(ERROR_RATE, prior.as_ref(), why, now),
            Ok(reading) if reading.series.len() > analysis::MOST_AT_ONCE => {
                let why = too_many(reading);
                analysis::no_answer(ERROR_RATE, prior.as_ref(), &why, now)
            }
            Ok(reading) => {
                let (counters, delta) = analysis::advance(release.counters.as_ref(), reading);
                release.counters = Some(counters);
                if !applies {
                    return;
                }
                let counts = release.counts.unwrap_or_default();
                let early =
                    prior.is_none() && release.step.clock_since.is_none_or(|since| now < since);
                let baseline = Some(counts.stable).filter(|stable| stable.requests > 0);
                release.counts = Some(counts + delta);
                release.excess_failures = excess(counts + delta);
                if early && (counts + delta).canary.requests == 0 {
                    // Nothing can be said yet, and that it cannot is no lack of data.
                    return;
                }
                let window = Window {
                    delta,
                    share,
                    baseline,
                };
                analysis::judge_error_rate(&check.limits, prior.as_ref(), &window, now)
            }
        };
        put(&mut release.checks, judged);
    }

    fn judge_metric(&mut self, metric: &MetricCheck, measured: &Measured) {
        let now = self.now;
        let Some(release) = self.status.release.as_mut() else {
            return;
        };
        let prior = release.checks.iter().find(|c| c.name == metric.name);
        let limits = MetricLimits {
            name: &metric.name,
            min: metric.min,
            max: metric.max,
            failure_limit: metric.failure_limit,
        };
        let judged = analysis::judge_metric(&limits, prior, measured, now);
        put(&mut release.checks, judged);
    }

    fn wake_for_checks(&mut self, plan: &Plan, step: &PlannedStep) {
        let names = self.applicable_or_ignored(plan, step);
        let Some(release) = self.release() else {
            return;
        };
        let next = names.iter().map(|name| {
            let check = release.checks.iter().find(|c| c.name == *name);
            let last = match name.as_str() {
                ERROR_RATE => last_count(release),
                _ => check.map(|c| c.at),
            };
            last.map_or(self.now + TimeDelta::milliseconds(50), |at| {
                at + plan.interval
            })
        });
        let next = next.min();
        self.wakes.extend(next);
    }

    fn applicable_or_ignored(&self, plan: &Plan, step: &PlannedStep) -> Vec<String> {
        if !self.release().is_some_and(|release| applies(release, step)) {
            return Vec::new();
        }
        let errors = plan.error_rate.iter().map(|_| ERROR_RATE.to_owned());
        errors
            .chain(plan.metrics.iter().map(|m| m.name.clone()))
            .collect()
    }

    /// Adds a point to the picture of the release; when it is full, every other older point goes.
    pub fn mark_point(&mut self) {
        let now = self.now;
        let weight = super::words::weight(&self.status);
        let Some(release) = self.status.release.as_mut() else {
            return;
        };
        let evidence = release
            .checks
            .iter()
            .filter_map(|c| c.evidence)
            .reduce(f64::max);
        let counts = release.counts.unwrap_or_default();
        if release.timeline.len() >= POINTS {
            let mut index = 0;
            release.timeline.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
        release.timeline.push(Point {
            at: now,
            weight,
            counts,
            evidence,
        });
    }
}

impl Applicable {
    fn policy(&self, verdict: Verdict) -> Option<OnInconclusive> {
        match verdict {
            Verdict::NoData => Some(self.on_no_data),
            Verdict::Error => Some(self.on_error),
            Verdict::Harm | Verdict::NoHarm | Verdict::CannotTell => None,
        }
    }
}

/// The largest share that the canary may have had since the last sample: a sample that straddles
/// a change of weight is held against the larger of both.
fn share(release: &Release, plan: &Plan, step: &PlannedStep) -> f64 {
    if release.stage == Stage::Promoting {
        return 1.0;
    }
    let last = release
        .checks
        .iter()
        .find(|c| c.name == ERROR_RATE)
        .map(|c| c.at);
    let straddles = match (release.step.accepted_at, last) {
        (Some(accepted), Some(last)) => last < accepted + plan.interval,
        (None, _) | (_, None) => true,
    };
    let before = release
        .step
        .index
        .checked_sub(1)
        .and_then(|i| plan.steps.get(i as usize));
    let before = before.filter(|_| straddles).map_or(0, |b| b.weight);
    f64::from(step.weight.max(before)) / 100.0
}

/// Failed canary requests beyond those that stable's rate would have given.
fn excess(counts: ArmCounts) -> u64 {
    let expected = counts.stable.rate().unwrap_or(0.0) * counts.canary.requests as f64;
    // In range: a count of failures less a part of itself, never below zero.
    (counts.canary.failed as f64 - expected).max(0.0).round() as u64
}

/// Each series is remembered in status, which has an end.
fn too_many(reading: &Reading) -> Gap {
    Gap::Error(format!(
        "{} series count the requests, more than {}; name fewer routes or rules",
        reading.series.len(),
        analysis::MOST_AT_ONCE
    ))
}

fn put(checks: &mut Vec<CheckStatus>, check: CheckStatus) {
    match checks.iter_mut().find(|c| c.name == check.name) {
        Some(old) => *old = check,
        None => checks.push(check),
    }
}

/// The counters as they stand before the first patch of a release.
pub(super) fn base(answers: &[Answer]) -> Option<crate::api::Counters> {
    answers.iter().find_map(|answer| match answer {
        Answer::ErrorRate(Ok(reading)) if reading.series.len() > analysis::MOST_AT_ONCE => None,
        Answer::ErrorRate(Ok(reading)) => Some(analysis::advance(None, reading).0),
        Answer::ErrorRate(Err(_)) | Answer::Metric { .. } => None,
    })
}
