//! The words: phase, message, conditions. Everything that a person reads of a release is said here.

use super::RouteState;
use super::decide::{Turn, under_way, wanted};
use super::facts::{Acceptance, unwritten};
use super::plan::PlannedStep;
use super::steps::Wait;
use crate::api::{
    CanaryStatus, Condition, ConditionStatus, ConditionType, Outcome, Phase, Release, Stage, Verb,
    Verdict, Wanted, set_condition, span_text,
};

/// What a step asks of traffic, in words.
pub(super) fn split(step: &PlannedStep, revision: &str) -> String {
    let testers = match step.headers.as_slice() {
        [] => String::new(),
        [one] => format!("requests with header {}", one.header.name),
        many => format!("requests with one of {} headers", many.len()),
    };
    match (step.weight, testers.as_str()) {
        (0, "") => format!("no traffic to {revision}"),
        (0, testers) => format!("{testers} to {revision}"),
        (weight, "") => format!("{weight}% to {revision}"),
        (weight, testers) => format!("{weight}% and {testers} to {revision}"),
    }
}

/// The canary's weight in percent, as status wants it.
pub(super) fn weight(status: &CanaryStatus) -> u8 {
    match wanted(status).map(|(wanted, ..)| wanted) {
        Some(Wanted::Split { weight, .. }) => weight,
        Some(Wanted::Candidate) => 100,
        Some(Wanted::Stable) | None => 0,
    }
}

/// What a step waits for, as the end of a sentence.
pub(super) fn awaited(wait: &Wait) -> String {
    match wait {
        Wait::Route(what) | Wait::Data(what) | Wait::Evidence(what) => what.clone(),
        Wait::Settle { hold, .. } if hold.is_zero() => "the data plane to split as told".into(),
        Wait::Settle { hold, .. } => {
            format!(
                "the data plane to split as told, then {} at this weight",
                span_text(*hold)
            )
        }
        Wait::Paused => "spec.paused to be false".into(),
        Wait::Sample => "the first measurement at this weight".into(),
        Wait::Requests { seen, wanted } => format!("canary requests: {seen} of {wanted}"),
        Wait::Hold { hold, .. } => format!("the end of {} at this weight", span_text(*hold)),
        Wait::Approval => "a person's approval".into(),
    }
}

/// Why a release was promoted.
pub(super) fn success(release: &Release) -> String {
    let took = release
        .ended_at
        .map(|end| span_text(end - release.started_at))
        .unwrap_or_default();
    let how = if release.promote {
        "by hand"
    } else {
        "after all its steps"
    };
    match release.checks.first() {
        Some(check) => format!("promoted {how} in {took}; {}", check.message),
        None => format!("promoted {how} in {took}"),
    }
}

impl Turn<'_> {
    pub fn ask_for_approval(&self) -> String {
        let number = self.release().map_or(1, |release| release.step.index + 1);
        format!(
            "waiting for approval: kubectl annotate canary {} {}={}",
            self.facts.name,
            Verb::Approve.annotation(),
            self.approval_value(number),
        )
    }

    /// Fills in what people see.
    pub fn describe(&mut self) {
        self.status.observed_generation = self.facts.generation;
        self.status.weight = Some(weight(&self.status));
        let release = self.status.release.clone();
        self.status.verdict = release.as_ref().and_then(worst);
        let busy = release.as_ref().filter(|release| under_way(release));
        let (phase, message) = match busy {
            Some(release) => self.busy_words(release),
            None => self.rest_words(release.as_ref()),
        };
        self.status.phase = phase;
        self.status.message = message;
        self.status.step =
            busy.map(|release| format!("{}/{}", release.step.index + 1, release.plan.steps.len()));
        self.status.revision = busy
            .map(|release| release.revision.clone())
            .or_else(|| self.status.stable.as_ref().map(|s| s.revision.clone()));
        self.set_conditions(busy);
    }

    fn busy_words(&self, release: &Release) -> (Phase, String) {
        let reason = release.reason.clone().unwrap_or_default();
        match release.stage {
            Stage::Restoring => {
                let kept = self.facts.routes.iter().find_map(unwritten);
                let kept = kept.map_or_else(String::new, |why| format!("; {why}"));
                (Phase::RollingBack, format!("{reason}{kept}"))
            }
            Stage::Promoting => {
                let wait = self.wait.as_ref().map_or_else(String::new, |wait| {
                    format!("; waiting for {}", awaited(wait))
                });
                (
                    Phase::Promoting,
                    format!("all traffic to {}{wait}", release.revision),
                )
            }
            Stage::Stepping | Stage::Ended => {
                let split = self
                    .planned()
                    .map_or_else(String::new, |(_, step)| split(&step, &release.revision));
                let checks = release
                    .checks
                    .iter()
                    .filter(|c| c.verdict == Verdict::NoHarm);
                let seen = checks.map(|c| c.message.clone()).next();
                let seen = seen.map_or_else(String::new, |seen| format!("; {seen}"));
                match &self.wait {
                    Some(Wait::Paused) => (
                        Phase::Paused,
                        format!("{split}; paused by spec.paused{seen}"),
                    ),
                    Some(Wait::Approval) => (
                        Phase::WaitingForApproval,
                        format!("{split}; {}", self.ask_for_approval()),
                    ),
                    Some(wait @ (Wait::Data(_) | Wait::Evidence(_))) => (
                        Phase::Progressing,
                        format!("{split}; held: {}", awaited(wait)),
                    ),
                    Some(wait) => (
                        Phase::Progressing,
                        format!("{split}; waiting for {}{seen}", awaited(wait)),
                    ),
                    None => (Phase::Progressing, format!("{split}{seen}")),
                }
            }
        }
    }

    fn rest_words(&self, last: Option<&Release>) -> (Phase, String) {
        let Some(stable) = &self.status.stable else {
            let why = self
                .obstacle
                .as_ref()
                .map_or_else(String::new, |o| o.message.clone());
            return (Phase::Pending, why);
        };
        let target = self.target().map(|target| target.revision());
        let last_of = |revision: &str| last.filter(|release| release.revision == revision);
        let phase = match target.as_deref() {
            Some(target) if target == stable.revision => {
                match last_of(target).and_then(|r| r.outcome) {
                    Some(Outcome::Promoted) => Phase::Promoted,
                    _ => Phase::Idle,
                }
            }
            Some(target) if self.status.refused.as_deref() == Some(target) => {
                match last_of(target).and_then(|r| r.outcome) {
                    Some(Outcome::Aborted) => Phase::Aborted,
                    _ => Phase::RolledBack,
                }
            }
            Some(_) if self.facts.spec.paused && self.obstacle.is_none() => Phase::Paused,
            Some(_) | None => Phase::Pending,
        };
        let told = last
            .and_then(|release| release.reason.clone())
            .unwrap_or_default();
        let message = match (&self.obstacle, phase) {
            (Some(obstacle), _) => obstacle.message.clone(),
            (None, Phase::Promoted) => told,
            (None, Phase::RolledBack | Phase::Aborted) => {
                let target = target.unwrap_or_default();
                format!(
                    "{told}. {} serves; {target} is not tried again until {}={target}",
                    stable.backend,
                    Verb::Retry.annotation()
                )
            }
            (None, Phase::Paused) => {
                format!(
                    "{} waits for spec.paused to be false; {} serves",
                    target.unwrap_or_default(),
                    stable.backend
                )
            }
            (None, _) => match (&stable.contested_by, last.and_then(|r| r.outcome)) {
                (Some(other), _) => format!("the route serves {other} by someone else's hand"),
                (None, Some(Outcome::Reverted)) => format!(
                    "{} serves; the release before was taken back: {told}",
                    stable.backend
                ),
                (None, _) => format!("{} serves", stable.backend),
            },
        };
        (phase, message)
    }

    fn set_conditions(&mut self, busy: Option<&Release>) {
        let target = self.target().map(|target| target.revision());
        let promoted = busy.is_none()
            && target.is_some()
            && target.as_ref() == self.status.stable.as_ref().map(|s| &s.revision);
        let contested = self
            .status
            .stable
            .as_ref()
            .is_some_and(|s| s.contested_by.is_some());
        let message = self.status.message.clone();
        let phase = format!("{:?}", self.status.phase);
        let ready = match &self.obstacle {
            Some(obstacle) => (
                ConditionStatus::False,
                obstacle.reason,
                obstacle.message.clone(),
            ),
            None if contested => (ConditionStatus::False, "RouteContested", message.clone()),
            None => (
                ConditionStatus::True,
                "Ready",
                "the routes and backends are there".into(),
            ),
        };
        self.condition(ConditionType::Ready, ready.0, ready.1, ready.2);
        let waiting = self
            .obstacle
            .as_ref()
            .is_some_and(|o| o.reason == "BackendNotReady");
        let reconciling = busy.is_some() || waiting;
        let step = self.status.step.clone().unwrap_or_default();
        let doing = if busy.is_some() {
            format!("step {step}")
        } else {
            "nothing is under way".into()
        };
        self.condition(
            ConditionType::Reconciling,
            reconciling.into(),
            &phase,
            doing,
        );
        let told = match (promoted, busy) {
            (true, _) => format!(
                "{} serves alone",
                self.status.revision.clone().unwrap_or_default()
            ),
            (false, Some(release)) => format!("{} is being released", release.revision),
            (false, None) => format!("{} does not serve", target.unwrap_or_default()),
        };
        self.condition(ConditionType::Promoted, promoted.into(), &phase, told);
        let (status, reason, told) = self.routes_accepted();
        self.condition(ConditionType::RoutesAccepted, status, reason, told);
        let stalled = busy.is_some_and(|release| release.step.stalled);
        let told = if stalled {
            "a step is past its deadline"
        } else {
            "no step is past its deadline"
        };
        let reason = if stalled {
            "DeadlineExceeded"
        } else {
            "InTime"
        };
        self.condition(ConditionType::Stalled, stalled.into(), reason, told.into());
    }

    fn routes_accepted(&self) -> (ConditionStatus, &'static str, String) {
        for route in &self.facts.routes {
            match &route.state {
                RouteState::Missing => {
                    return (
                        ConditionStatus::False,
                        "RouteNotFound",
                        format!("{} is not there", route.title),
                    );
                }
                RouteState::Found {
                    acceptance: Acceptance::Refused(why),
                    ..
                } => {
                    return (
                        ConditionStatus::False,
                        "Refused",
                        format!("{}: {why}", route.title),
                    );
                }
                RouteState::Found { .. } => {}
            }
            if let Some(told) = unwritten(route) {
                return (ConditionStatus::False, "NotWritten", told);
            }
        }
        for route in &self.facts.routes {
            if let RouteState::Found {
                acceptance: Acceptance::Pending(who),
                ..
            } = &route.state
            {
                return (
                    ConditionStatus::Unknown,
                    "Pending",
                    format!("{}: {who}", route.title),
                );
            }
        }
        (
            ConditionStatus::True,
            "Accepted",
            "every parent has accepted every route".into(),
        )
    }

    fn condition(
        &mut self,
        kind: ConditionType,
        status: ConditionStatus,
        reason: &str,
        message: String,
    ) {
        let condition = Condition {
            kind,
            status,
            reason: reason.to_owned(),
            message,
            observed_generation: self.facts.generation,
            last_transition_time: self.now,
        };
        set_condition(&mut self.status.conditions, condition);
    }
}

/// The gravest verdict of all checks.
fn worst(release: &Release) -> Option<Verdict> {
    let order = [
        Verdict::Harm,
        Verdict::Error,
        Verdict::NoData,
        Verdict::CannotTell,
        Verdict::NoHarm,
    ];
    order
        .into_iter()
        .find(|verdict| release.checks.iter().any(|check| check.verdict == *verdict))
}
