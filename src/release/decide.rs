//! The order in which a release is looked at: what has been said, what must be stopped, what may go on.

use super::bounds::{HISTORY, TEXT, clip, heal, noted, trim};
use super::facts::{Decision, Effect, Facts, Note, RouteState};
use super::plan::Plan;
use super::{Acceptance, BackendFact};
use crate::api::{
    AlertEvent, Backend, CanaryStatus, Command, ConditionStatus, ConditionType, Outcome,
    PastRelease, Release, RouteRecord, Stable, Stage, StepStatus, Time, Verdict, Wanted,
};
use chrono::TimeDelta;

/// What is to be done now.
#[must_use]
pub fn decide(facts: &Facts<'_>, now: Time) -> Decision {
    let mut turn = Turn {
        facts,
        now,
        status: facts.status.clone(),
        effects: Vec::new(),
        events: Vec::new(),
        wakes: Vec::new(),
        obstacle: None,
        wait: None,
    };
    heal(&mut turn.status, now);
    turn.nothing_is_of_the_future();
    turn.clear_what_is_done();
    turn.obey();
    if turn.release().is_some_and(under_way) {
        turn.go_on();
        if !turn.release().is_some_and(under_way) {
            // What was found is about the candidate of the release that has just ended; whether the
            // next one may begin takes another look.
            turn.wakes.push(now + AGAIN);
        }
    } else {
        turn.rest();
    }
    turn.describe();
    turn.finish()
}

/// Whether a release still has to do something with the routes.
#[must_use]
pub fn under_way(release: &Release) -> bool {
    release.stage != Stage::Ended
}

/// The traffic that a status wants, with the backends that it is about; none at rest.
#[must_use]
pub fn wanted(status: &CanaryStatus) -> Option<(Wanted, &Backend, &Backend)> {
    let release = status
        .release
        .as_ref()
        .filter(|release| under_way(release))?;
    let stable = &status.stable.as_ref()?.backend;
    let wanted = match release.stage {
        Stage::Stepping => match Plan::of(&release.plan).ok()?.step(release.step.index) {
            Some(step) => step.split(),
            None => Wanted::Stable,
        },
        Stage::Promoting => Wanted::Candidate,
        Stage::Restoring | Stage::Ended => Wanted::Stable,
    };
    Some((wanted, stable, &release.candidate))
}

/// One look at a Canary, as it comes to a decision.
pub(super) struct Turn<'a> {
    pub facts: &'a Facts<'a>,
    pub now: Time,
    pub status: CanaryStatus,
    pub effects: Vec<Effect>,
    pub events: Vec<Note>,
    pub wakes: Vec<Time>,
    /// What keeps a release from beginning.
    pub obstacle: Option<super::Obstacle>,
    /// What a step waits for.
    pub wait: Option<super::steps::Wait>,
}

/// How long a route may take to be accepted after it was given back, before the release is called
/// ended all the same: its spec is as it was found, and what its parents say of that is not ours.
const RESTORED_ANYWAY: TimeDelta = TimeDelta::seconds(30);

/// After the end of a release, until it is looked at what is next.
const AGAIN: TimeDelta = TimeDelta::milliseconds(50);

impl Turn<'_> {
    pub fn release(&self) -> Option<&Release> {
        self.status.release.as_ref()
    }

    fn clear_what_is_done(&mut self) {
        let facts = self.facts;
        self.status
            .outbox
            .retain(|alert| !facts.delivered.contains(&alert.id));
        self.status
            .obeyed
            .retain(|command| facts.commands.iter().any(|said| noted(said) == *command));
    }

    /// A release that is under way: protect first, then advance.
    fn go_on(&mut self) {
        self.know_remade_routes();
        self.judge();
        let Some(release) = self.release() else {
            return;
        };
        match release.stage {
            Stage::Stepping | Stage::Promoting => {
                if let Some((outcome, reason)) = self.must_stop() {
                    self.restore(outcome, reason);
                    self.restoring();
                } else if release.stage == Stage::Stepping {
                    self.stepping();
                } else {
                    self.promoting();
                }
            }
            Stage::Restoring => self.restoring(),
            Stage::Ended => {}
        }
    }

    /// Failure beats everything: these are looked at before any approval or readiness.
    fn must_stop(&self) -> Option<(Outcome, String)> {
        let release = self.release()?;
        let stable = self.status.stable.as_ref()?;
        if self.facts.deleting {
            return Some((Outcome::Aborted, "the Canary was deleted".into()));
        }
        if let Some(check) = release
            .checks
            .iter()
            .find(|check| check.verdict == Verdict::Harm)
        {
            return Some((Outcome::RolledBack, check.message.clone()));
        }
        if let Some(fault) = self.plan_fault() {
            return Some((Outcome::RolledBack, fault));
        }
        if let Some(reason) = self.lost_canary(release) {
            return Some((Outcome::RolledBack, reason));
        }
        let target = self.target();
        if let Some(target) = target
            .as_ref()
            .map(Backend::revision)
            .filter(|to| *to != release.revision)
        {
            return Some(if target == stable.revision {
                (
                    Outcome::Reverted,
                    format!("the target is {} again", stable.backend),
                )
            } else {
                (
                    Outcome::Superseded,
                    format!("{target} has taken the place of {}", release.revision),
                )
            });
        }
        if let Some(refusal) = self.refusal() {
            return Some((
                Outcome::RolledBack,
                format!("the route was refused with the canary in it: {refusal}"),
            ));
        }
        self.blind_too_long()
    }

    /// A canary that gets traffic and cannot serve any.
    fn lost_canary(&self, release: &Release) -> Option<String> {
        let exposed = match wanted(&self.status)?.0 {
            Wanted::Split { weight, .. } => weight > 0,
            Wanted::Candidate => true,
            Wanted::Stable => false,
        };
        // Before the routes carry the candidate nobody is hurt, and `rest` has seen it ready.
        let carried = release.step.accepted_at.is_some() || release.step.index > 0;
        let lost = match self.facts.candidate {
            BackendFact::Ready => return None,
            BackendFact::NoEndpoints => "has no ready endpoint left",
            BackendFact::Missing => "is gone",
            BackendFact::NoPort => "has lost its port",
        };
        (exposed && carried).then(|| format!("{} {lost}", release.candidate))
    }

    /// What a parent has against a route that carries what we want.
    fn refusal(&self) -> Option<String> {
        self.facts
            .routes
            .iter()
            .find_map(|route| match &route.state {
                RouteState::Found {
                    carries: true,
                    acceptance: Acceptance::Refused(why),
                    ..
                } => Some(format!("{}: {why}", route.title)),
                RouteState::Found { .. } | RouteState::Missing => None,
            })
    }

    /// A route that was deleted and made anew is another route: it is surveyed as if seen first.
    fn know_remade_routes(&mut self) {
        for fact in &self.facts.routes {
            let RouteState::Found {
                uid,
                survey: Ok(record),
                ..
            } = &fact.state
            else {
                continue;
            };
            let known = self
                .status
                .routes
                .iter_mut()
                .find(|r| (r.kind, &r.name) == (record.kind, &record.name));
            if let Some(known) = known.filter(|known| known.uid != *uid) {
                *known = record.clone();
            }
        }
    }

    /// Sets out to give every route back to the stable backend.
    pub fn restore(&mut self, outcome: Outcome, reason: String) {
        let now = self.now;
        let Some(release) = self.status.release.as_mut() else {
            return;
        };
        release.stage = Stage::Restoring;
        release.outcome = Some(outcome);
        release.reason = Some(reason.clone());
        release.step = StepStatus::entered(release.step.index, now);
        let revision = release.revision.clone();
        let event = match outcome {
            Outcome::RolledBack => AlertEvent::RolledBack,
            Outcome::Aborted => AlertEvent::Aborted,
            Outcome::Superseded | Outcome::Reverted => AlertEvent::Superseded,
            Outcome::Promoted => AlertEvent::Promoted,
        };
        if matches!(outcome, Outcome::RolledBack | Outcome::Aborted) {
            self.status.refused = Some(revision);
        }
        self.tell(event, reason);
    }

    fn restoring(&mut self) {
        let carried = self.facts.routes.iter().all(|route| match &route.state {
            RouteState::Missing => true,
            RouteState::Found { carries, .. } => *carries,
        });
        // The status that the routes were compared with must have wanted this already.
        let asked = self
            .facts
            .status
            .release
            .as_ref()
            .is_some_and(|r| r.stage == Stage::Restoring);
        if !(carried && asked) {
            return;
        }
        let settle = self.settle();
        let accepted = self.all_accepted();
        let now = self.now;
        let Some(release) = self.status.release.as_mut() else {
            return;
        };
        if accepted && release.step.accepted_at.is_none() {
            release.step.accepted_at = Some(now);
        }
        let anyway = release.step.entered_at + RESTORED_ANYWAY;
        let ends = release
            .step
            .accepted_at
            .map_or(anyway, |at| anyway.min(at + settle));
        if now >= ends {
            self.end();
        } else {
            self.wakes.push(ends);
        }
    }

    fn promoting(&mut self) {
        self.mark_accepted();
        self.wait = self.promotion_waits();
        if self.wait.is_none() {
            self.end();
            return;
        }
        self.watch_deadline();
    }

    /// The routes are as the outcome says.
    fn end(&mut self) {
        let now = self.now;
        let Some(release) = self.status.release.as_mut() else {
            return;
        };
        release.stage = Stage::Ended;
        release.ended_at = Some(now);
        release.counters = None;
        for check in &mut release.checks {
            // What the tests would go on from; the counts that the verdict rests on stay.
            (
                check.relative,
                check.absolute,
                check.absolute_stable,
                check.seen,
            ) = (None, None, None, None);
        }
        let outcome = *release.outcome.get_or_insert(Outcome::Promoted);
        let reason = release
            .reason
            .clone()
            .unwrap_or_else(|| super::words::success(release));
        release.reason = Some(reason.clone());
        let past = PastRelease {
            revision: release.revision.clone(),
            backend: release.candidate.clone(),
            outcome,
            reason: reason.clone(),
            started_at: release.started_at,
            ended_at: now,
            excess_failures: release.excess_failures,
        };
        self.status.history.insert(0, past.clone());
        self.status.history.truncate(HISTORY);
        self.status.routes.clear();
        if outcome == Outcome::Promoted {
            self.status.stable = Some(Stable {
                revision: past.revision,
                backend: past.backend,
                contested_by: None,
            });
            self.status.refused = None;
            self.tell(AlertEvent::Promoted, reason);
        }
    }

    /// Begins a release with the routes as they were surveyed.
    pub fn begin(&mut self, release: Release, routes: Vec<RouteRecord>) {
        self.status.release = Some(release);
        self.status.routes = routes;
        self.status.refused = None;
    }

    pub fn target(&self) -> Option<Backend> {
        let backend = self.facts.spec.target.backend.clone()?;
        Some(backend.within(self.facts.namespace))
    }

    fn finish(mut self) -> Decision {
        trim(&mut self.status);
        self.events
            .iter_mut()
            .for_each(|note| clip(&mut note.message, TEXT));
        let busy = self.release().is_some_and(under_way);
        if busy {
            if !self.facts.held && !self.facts.deleting {
                self.effects.push(Effect::Hold);
            }
            self.effects.push(Effect::Shift);
        }
        let obeyed = |said: &&Command| self.status.obeyed.contains(&noted(said));
        let forget = self.facts.commands.iter().filter(obeyed).cloned();
        self.effects.extend(forget.map(Effect::Forget));
        if self.facts.held && !busy && !self.last_words() {
            self.effects.push(Effect::LetGo);
        }
        let old = self.facts.status;
        let added = self
            .status
            .outbox
            .iter()
            .any(|alert| !old.outbox.contains(alert));
        // While a release is under way, that an alert was delivered can wait for the next write.
        let taken = !busy && self.status.outbox != old.outbox;
        let urgent = added || taken || essence(&self.status) != essence(old);
        Decision {
            urgent,
            wake: self.wakes.iter().copied().filter(|at| *at > self.now).min(),
            status: self.status,
            effects: self.effects,
            events: self.events,
        }
    }

    /// A deleted Canary whose alerts are still on their way stays for as long as they may take.
    fn last_words(&mut self) -> bool {
        let until = self
            .release()
            .and_then(|r| r.ended_at)
            .map(|ended| ended + LAST_WORDS);
        let waits = self.facts.deleting
            && !self.status.outbox.is_empty()
            && until.is_some_and(|at| self.now < at);
        if waits {
            self.wakes.extend(until);
        }
        waits
    }
}

/// How long a deleted Canary waits for its last alerts to be delivered.
const LAST_WORDS: TimeDelta = TimeDelta::seconds(30);

/// A status without what only newer samples change. A difference in the rest must be written at once.
fn essence(status: &CanaryStatus) -> CanaryStatus {
    let mut essence = status.clone();
    // The sentence carries counts; everything else that it can say shows in another field too.
    essence.message = String::new();
    essence.outbox.clear();
    // That a parent has yet to answer passes in a moment; each step says when it has.
    for condition in &mut essence.conditions {
        if condition.kind == ConditionType::RoutesAccepted
            && condition.status != ConditionStatus::False
        {
            condition.status = ConditionStatus::Unknown;
            condition.reason.clear();
            condition.message.clear();
            condition.last_transition_time = Time::UNIX_EPOCH;
        }
    }
    if let Some(release) = essence.release.as_mut() {
        release.counts = None;
        release.counters = release.counters.take().map(|mut c| {
            c.at = release.started_at;
            c.series.clear();
            c
        });
        release.excess_failures = 0;
        release.timeline.clear();
        release.step.samples = 0;
        for check in &mut release.checks {
            check.message.clear();
            check.at = release.started_at;
            check.value = None;
            check.limit = None;
            check.counts = None;
            check.evidence = None;
            check.relative = None;
            check.absolute = None;
            check.absolute_stable = None;
            check.seen = None;
        }
    }
    essence
}
