//! A step: its clock, what it waits for, and when it is left.

use super::decide::{Turn, wanted};
use super::facts::{Acceptance, RouteState};
use super::plan::{Plan, PlannedStep};
use crate::api::{
    AlertEvent, OnDeadline, Outcome, Release, Stage, StepStatus, Time, Verdict, span_text,
};
use chrono::TimeDelta;

/// What a step waits for, the most pressing first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wait {
    /// A route that is missing, or a parent that has not answered.
    Route(String),
    /// The data plane, which may still split as before.
    Settle {
        until: Time,
        hold: TimeDelta,
    },
    /// `spec.paused`.
    Paused,
    /// Data of a check.
    Data(String),
    /// A check that can neither condemn nor clear.
    Evidence(String),
    /// The first sample since the step was accepted.
    Sample,
    Requests {
        seen: u64,
        wanted: u64,
    },
    /// The end of `hold`.
    Hold {
        until: Time,
        hold: TimeDelta,
    },
    Approval,
}

impl StepStatus {
    pub(super) fn entered(index: u32, now: Time) -> Self {
        Self {
            index,
            entered_at: now,
            accepted_at: None,
            clock_millis: 0,
            clock_since: None,
            requests_before: 0,
            samples: 0,
            paused_millis: 0,
            paused_since: None,
            stalled: false,
            blind_since: None,
            blind_told: false,
            asked: false,
        }
    }

    fn clock(&self, now: Time) -> TimeDelta {
        let running = self
            .clock_since
            .map_or(0, |since| (now - since).num_milliseconds().max(0));
        TimeDelta::milliseconds(self.clock_millis.saturating_add(running))
    }

    fn stop_clock(&mut self, now: Time) {
        self.clock_millis = self.clock(now).num_milliseconds();
        self.clock_since = None;
    }

    fn paused(&self, now: Time) -> TimeDelta {
        let running = self
            .paused_since
            .map_or(0, |since| (now - since).num_milliseconds().max(0));
        TimeDelta::milliseconds(self.paused_millis.saturating_add(running))
    }
}

/// Data that is missing for longer than this, or three intervals, is told of.
const BLIND: TimeDelta = TimeDelta::seconds(30);

impl Turn<'_> {
    pub fn stepping(&mut self) {
        self.mark_accepted();
        let Some((plan, step)) = self.planned() else {
            return;
        };
        self.keep_clock(&plan, &step);
        let Some(release) = self.release() else {
            return;
        };
        if release.promote && !self.facts.spec.paused {
            self.enter_promotion();
            return;
        }
        self.wait = self.step_waits(release, &plan, &step);
        match &self.wait {
            None => self.advance(&plan),
            Some(wait) => {
                if *wait == Wait::Approval {
                    self.ask_once();
                }
                self.watch_deadline();
            }
        }
    }

    /// Asks for approval, once in a step whatever comes between.
    fn ask_once(&mut self) {
        let ask = self.ask_for_approval();
        let Some(release) = self.status.release.as_mut() else {
            return;
        };
        if !std::mem::replace(&mut release.step.asked, true) {
            self.tell(AlertEvent::WaitingForApproval, ask);
        }
    }

    /// The plan of the release and its present step.
    pub fn planned(&self) -> Option<(Plan, PlannedStep)> {
        let release = self.release()?;
        let plan = Plan::of(&release.plan).ok()?;
        let step = plan.step(release.step.index)?.clone();
        Some((plan, step))
    }

    /// Notes when every parent of every route has first accepted what this step wants.
    pub fn mark_accepted(&mut self) {
        let asked = self
            .facts
            .status
            .release
            .as_ref()
            .zip(self.release())
            .is_some_and(|(before, now)| {
                (before.started_at, before.stage, before.step.index)
                    == (now.started_at, now.stage, now.step.index)
                    && wanted(self.facts.status) == wanted(&self.status)
            });
        if !asked || !self.all_accepted() {
            return;
        }
        let now = self.now;
        if let Some(release) = self
            .status
            .release
            .as_mut()
            .filter(|r| r.step.accepted_at.is_none())
        {
            release.step.accepted_at = Some(now);
            release.step.requests_before = release.counts.unwrap_or_default().canary.requests;
        }
    }

    pub fn all_accepted(&self) -> bool {
        self.facts.routes.iter().all(|route| {
            matches!(
                &route.state,
                RouteState::Found {
                    carries: true,
                    acceptance: Acceptance::Accepted,
                    ..
                }
            )
        })
    }

    /// The longest time that any of the planes may take to split as told.
    pub fn settle(&self) -> TimeDelta {
        let settles = self
            .facts
            .routes
            .iter()
            .filter_map(|route| match &route.state {
                RouteState::Found { settle, .. } => Some(*settle),
                RouteState::Missing => None,
            });
        settles.max().unwrap_or_default()
    }

    /// Time counts while the step is accepted, not paused, and seen.
    fn keep_clock(&mut self, plan: &Plan, step: &PlannedStep) {
        let now = self.now;
        let settle = self.settle();
        let paused = self.facts.spec.paused;
        let blind = self.blind(plan, step).is_some();
        let lost = self.unready_route(false).is_some();
        let patience = BLIND.max(plan.interval * 3);
        let Some(release) = self.status.release.as_mut() else {
            return;
        };
        let status = &mut release.step;
        match (paused, status.paused_since) {
            (true, None) => status.paused_since = Some(now),
            (false, Some(_)) => {
                status.paused_millis = status.paused(now).num_milliseconds();
                status.paused_since = None;
            }
            (true, Some(_)) | (false, None) => {}
        }
        match (blind, status.blind_since) {
            (true, None) => status.blind_since = Some(now),
            (false, Some(_)) => {
                status.blind_since = None;
                status.blind_told = false;
            }
            (true, Some(_)) | (false, None) => {}
        }
        let runs = !paused && !blind && !lost;
        match (status.accepted_at, status.clock_since) {
            (Some(accepted), None) if runs => status.clock_since = Some(now.max(accepted + settle)),
            (_, Some(_)) if !runs => status.stop_clock(now),
            (Some(_) | None, Some(_) | None) => {}
        }
        if let Some(since) = status.blind_since.filter(|_| !status.blind_told) {
            if now >= since + patience {
                status.blind_told = true;
                let what = self
                    .blind(plan, step)
                    .map_or_else(String::new, |(what, _)| what);
                self.tell(AlertEvent::DataLost, format!("the weight is held: {what}"));
            } else {
                self.wakes.push(since + patience);
            }
        }
    }

    fn step_waits(&self, release: &Release, plan: &Plan, step: &PlannedStep) -> Option<Wait> {
        if let Some(route) = self.unready_route(release.step.accepted_at.is_none()) {
            return Some(Wait::Route(route));
        }
        let Some(accepted) = release.step.accepted_at else {
            return Some(Wait::Route("the routes to be written".into()));
        };
        let settled = accepted + self.settle();
        if self.facts.spec.paused {
            return Some(Wait::Paused);
        }
        if self.now < settled {
            return Some(Wait::Settle {
                until: settled,
                hold: step.hold,
            });
        }
        if let Some((what, _)) = self.blind(plan, step) {
            return Some(Wait::Data(what));
        }
        for check in self.applicable(plan, step) {
            match release.checks.iter().find(|c| c.name == check.name) {
                Some(found) if found.verdict == Verdict::CannotTell => {
                    return Some(Wait::Evidence(found.message.clone()));
                }
                Some(found) if found.at >= settled => {}
                Some(_) | None => return Some(Wait::Sample),
            }
        }
        let seen = release
            .counts
            .unwrap_or_default()
            .canary
            .requests
            .saturating_sub(release.step.requests_before);
        let counted = plan.error_rate.is_some() && step.weight > 0;
        let wanted = step.min_requests.max(u64::from(counted));
        if seen < wanted {
            return Some(Wait::Requests { seen, wanted });
        }
        let left = step.hold - release.step.clock(self.now);
        if left > TimeDelta::zero() {
            return Some(Wait::Hold {
                until: self.now + left,
                hold: step.hold,
            });
        }
        let number = release.step.index + 1;
        (step.approval && !release.approved.contains(&number)).then_some(Wait::Approval)
    }

    pub fn promotion_waits(&self) -> Option<Wait> {
        let release = self.release()?;
        if let Some(route) = self.unready_route(true) {
            return Some(Wait::Route(route));
        }
        match release.step.accepted_at.map(|at| at + self.settle()) {
            Some(settled) if self.now >= settled => None,
            Some(until) => Some(Wait::Settle {
                until,
                hold: TimeDelta::zero(),
            }),
            None => Some(Wait::Route("the routes to be written".into())),
        }
    }

    /// The first route that is not there, or whose parents have not accepted what it carries.
    fn unready_route(&self, pending_counts: bool) -> Option<String> {
        self.facts
            .routes
            .iter()
            .find_map(|route| match &route.state {
                RouteState::Missing => Some(format!("{}, which is not there", route.title)),
                RouteState::Found {
                    survey: Err(why),
                    carries: false,
                    ..
                } => Some(why.message.clone()),
                RouteState::Found {
                    acceptance: Acceptance::Refused(why),
                    ..
                } => Some(format!("{}: {why}", route.title)),
                RouteState::Found {
                    carries: true,
                    acceptance: Acceptance::Pending(who),
                    ..
                } if pending_counts => Some(format!("{}: {who}", route.title)),
                RouteState::Found { carries: false, .. } if pending_counts => {
                    Some(format!("{} to be written", route.title))
                }
                RouteState::Found { .. } => None,
            })
    }

    fn advance(&mut self, plan: &Plan) {
        let now = self.now;
        let Some(release) = self.status.release.as_mut() else {
            return;
        };
        let next = release.step.index + 1;
        let Some(step) = plan.steps.get(next as usize) else {
            self.enter_promotion();
            return;
        };
        release.step = StepStatus::entered(next, now);
        let (revision, count) = (release.revision.clone(), plan.steps.len());
        let reached = format!(
            "step {} of {count}: {}",
            next + 1,
            super::words::split(step, &revision)
        );
        self.tell(AlertEvent::StepReached, reached);
        self.wait = Some(Wait::Route("the routes to be written".into()));
        self.mark_point();
    }

    fn enter_promotion(&mut self) {
        let now = self.now;
        if let Some(release) = self.status.release.as_mut() {
            release.stage = Stage::Promoting;
            release.step = StepStatus::entered(release.step.index, now);
        }
        self.wait = Some(Wait::Route("the routes to be written".into()));
        self.mark_point();
    }

    /// Says once that a step has taken too long, and takes traffic back if the step says so.
    pub fn watch_deadline(&mut self) {
        let Some((_, step)) = self.planned() else {
            return;
        };
        let wait = self.wait.clone();
        let now = self.now;
        self.wakes.extend(match &wait {
            Some(Wait::Hold { until, .. } | Wait::Settle { until, .. }) => Some(*until),
            _ => None,
        });
        let Some(release) = self.status.release.as_mut() else {
            return;
        };
        if release.step.paused_since.is_some() || release.step.stalled {
            return;
        }
        let due = release.step.entered_at + step.deadline + release.step.paused(now);
        if now < due {
            self.wakes.push(due);
            return;
        }
        release.step.stalled = true;
        let number = release.step.index + 1;
        let what = wait
            .as_ref()
            .map_or_else(String::new, super::words::awaited);
        let reason = format!(
            "step {number} has not ended within {}; it waits for {what}",
            span_text(step.deadline)
        );
        match step.on_deadline {
            OnDeadline::Hold => self.tell(AlertEvent::Stalled, reason),
            OnDeadline::RollBack => self.restore(Outcome::RolledBack, reason),
        }
    }
}
