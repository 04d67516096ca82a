//! What is read back from the API server is not trusted, and what is written there is bounded.
//!
//! Whoever may write a status may write anything into it, so nothing that is computed from one may
//! overflow; and a status must fit beside its spec into what the API server takes (1.5 MiB).

use super::Obstacle;
use super::plan::Plan;
use crate::api::{
    CanaryStatus, CheckStatus, Command, Outcome, PlanSpec, Release, RouteRecord, Stage, Time,
};
use chrono::TimeDelta;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// The longest text that is written into a status, in bytes of JSON.
pub(super) const TEXT: usize = 1_024;

/// The same of a value or a limit.
const QUANTITY: usize = 128;

/// The longest value of an annotation that is noted as it is, in bytes.
const VALUE: usize = 512;

/// The most that the plan of a release and the records of its routes may take in a status, in bytes of JSON.
const PREPARED: usize = 80 << 10;

/// Alerts that may wait in the outbox; beyond it the oldest step reports go first.
pub(super) const OUTBOX: usize = 32;

/// Releases that `status.history` remembers.
pub(super) const HISTORY: usize = 10;

/// At most this many points make the picture of a release.
pub(super) const POINTS: usize = 64;

/// No time in a status is further ahead than this, nor any clock's: the longest duration that a
/// spec can say, so that sums stay far from the end of time.
const AHEAD: TimeDelta = TimeDelta::days(3_650);

/// Puts right what no decision can have left in a status.
pub(super) fn heal(status: &mut CanaryStatus, now: Time) {
    let CanaryStatus {
        stable,
        release,
        outbox,
        conditions,
        ..
    } = status;
    let within = |at: &mut Time| *at = (*at).clamp(Time::UNIX_EPOCH, now + AHEAD);
    outbox.iter_mut().for_each(|alert| within(&mut alert.at));
    for condition in conditions {
        within(&mut condition.last_transition_time);
    }
    let Some(release) = release else { return };
    heal_times(release, within);
    let last = release.plan.steps.len().saturating_sub(1);
    let last = u32::try_from(last).unwrap_or(u32::MAX - 1);
    release.step.index = release.step.index.min(last);
    if stable.is_none() && release.stage != Stage::Ended {
        // What the routes were given is not known, so nothing can be given back.
        release.stage = Stage::Ended;
        release.outcome = Some(Outcome::Aborted);
        release.reason = Some("its status has lost what served before".into());
    }
}

fn heal_times(release: &mut Release, within: impl Fn(&mut Time)) {
    let Release {
        started_at,
        ended_at,
        step,
        checks,
        counters,
        timeline,
        ..
    } = release;
    let optional = [
        ended_at,
        &mut step.accepted_at,
        &mut step.clock_since,
        &mut step.paused_since,
        &mut step.blind_since,
    ];
    [started_at, &mut step.entered_at]
        .into_iter()
        .chain(optional.into_iter().flatten())
        .chain(checks.iter_mut().map(|check| &mut check.at))
        .chain(counters.iter_mut().map(|counters| &mut counters.at))
        .chain(timeline.iter_mut().map(|point| &mut point.at))
        .for_each(within);
    for millis in [&mut step.clock_millis, &mut step.paused_millis] {
        *millis = (*millis).clamp(0, AHEAD.num_milliseconds());
    }
}

/// Keeps a status to its limits.
pub(super) fn trim(status: &mut CanaryStatus) {
    let CanaryStatus {
        message,
        release,
        history,
        outbox,
        conditions,
        ..
    } = status;
    clip(message, TEXT);
    history.truncate(HISTORY);
    history
        .iter_mut()
        .for_each(|past| clip(&mut past.reason, TEXT));
    outbox.drain(..outbox.len().saturating_sub(OUTBOX));
    for alert in outbox {
        clip(&mut alert.message, TEXT);
        if let Some(check) = &mut alert.check {
            check
                .value
                .iter_mut()
                .chain(&mut check.limit)
                .for_each(|text| clip(text, QUANTITY));
        }
    }
    conditions.sort_by_key(|condition| condition.kind);
    conditions.dedup_by_key(|condition| condition.kind);
    for condition in conditions {
        clip(&mut condition.reason, TEXT);
        clip(&mut condition.message, TEXT);
    }
    if let Some(release) = release {
        trim_release(release);
    }
}

fn trim_release(release: &mut Release) {
    let Release {
        reason,
        plan,
        approved,
        checks,
        timeline,
        ..
    } = release;
    reason.iter_mut().for_each(|text| clip(text, TEXT));
    let known = |check: &CheckStatus| {
        let metrics = &plan.analysis.metrics;
        check.name == crate::analysis::error_rate::ERROR_RATE
            || metrics.iter().any(|m| m.name == check.name)
    };
    checks.retain(known);
    let mut names = BTreeSet::new();
    checks.retain(|check| names.insert(check.name.clone()));
    for check in checks {
        clip(&mut check.message, TEXT);
        check
            .value
            .iter_mut()
            .chain(&mut check.limit)
            .for_each(|text| clip(text, QUANTITY));
    }
    approved.retain(|step| *step as usize <= plan.steps.len());
    approved.sort_unstable();
    approved.dedup();
    timeline.drain(..timeline.len().saturating_sub(POINTS));
}

/// Cuts a text off at so many bytes of JSON, and puts blanks in place of control characters: it is shown in terminals.
pub(super) fn clip(text: &mut String, most: usize) {
    let mut left = most;
    let mut cut = None;
    for (at, c) in text.char_indices() {
        let bytes = if matches!(c, '"' | '\\') {
            2
        } else {
            c.len_utf8()
        };
        // Room for the three bytes of the sign that something is missing.
        if bytes + '…'.len_utf8() > left {
            cut.get_or_insert(at);
        }
        let Some(rest) = left.checked_sub(bytes) else {
            text.truncate(cut.unwrap_or(at));
            text.push('…');
            break;
        };
        left = rest;
    }
    if text.contains(char::is_control) {
        *text = text.replace(char::is_control, " ");
    }
}

/// A command as it is noted in a status: an annotation may be 256 KiB long.
pub(super) fn noted(command: &Command) -> Command {
    let Command { verb, value } = command;
    if value.len() <= VALUE {
        return command.clone();
    }
    let head: String = value.chars().take(VALUE / 8).collect();
    let digest = Sha256::digest(value);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    Command {
        verb: *verb,
        value: format!("{head}… sha256 {hex}"),
    }
}

/// What is against a release whose plan and records would not fit.
pub(super) fn too_large(plan: &PlanSpec, records: &[RouteRecord]) -> Option<Obstacle> {
    let (plan, records) = (size(plan), size(&records));
    let bytes = plan + records;
    (bytes > PREPARED).then(|| Obstacle {
        reason: "ReleaseTooLarge",
        message: format!(
            "a release would need {bytes} bytes of status for its plan ({plan}) and its routes ({records}), and {PREPARED} is the limit; use fewer or shorter headers in spec.steps, queries in spec.analysis, or routes"
        ),
    })
}

fn size(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX / 4, |json| json.len())
}

impl super::decide::Turn<'_> {
    /// Why the plan that status holds cannot be gone by; it was checked when it was written.
    pub fn plan_fault(&self) -> Option<String> {
        let plan = &self.release()?.plan;
        match Plan::of(plan) {
            Err(error) => Some(format!("status.release.plan cannot be read: {error}")),
            Ok(plan) if plan.steps.is_empty() => Some("status.release.plan has no steps".into()),
            Ok(_) => None,
        }
    }
}
