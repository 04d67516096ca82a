//! One look at one Canary: gather, decide, write the status, act, report.

use super::act::{self, params, spread, what};
use super::gather::Scene;
use super::memory::Memory;
use super::{Context, Error, ask};
use crate::alerts::{Origin, Posted};
use crate::api::{Canary, CanaryStatus, Time};
use crate::release::{Decision, Note, decide, under_way};
use crate::telemetry::Outcome;
use chrono::TimeDelta;
use kube::api::{Api, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Resource, ResourceExt};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{debug, info, warn};

/// Newer samples alone are written this often.
const LAZILY: TimeDelta = TimeDelta::seconds(10);

/// The longest wait after errors in a row.
const LONGEST_BACKOFF: Duration = Duration::from_secs(60);

pub async fn reconcile(canary: Arc<Canary>, context: Arc<Context>) -> Result<Action, Error> {
    context.stores.filled().await;
    let begun = Instant::now();
    let uid = canary.uid().ok_or(Error::Incomplete("metadata.uid"))?;
    let mut memory = context.memories.of(&uid);
    let result = look(&context, canary, &uid, &mut memory).await;
    let (outcome, reason) = match &result {
        Ok(_) => {
            memory.failures = 0;
            let refused = memory.refusals.take_news();
            refused.map_or((Outcome::Done, ""), |reason| (Outcome::Failed, reason))
        }
        Err(err) => (Outcome::Failed, err.reason()),
    };
    context.memories.keep(&uid, memory);
    context.memories.tidy(context.canaries.len(), |uid| {
        let same = |canary: &Canary| canary.uid().as_deref() == Some(uid);
        context.canaries.find(same).is_some()
    });
    context
        .numbers
        .reconciled(outcome, reason, begun.elapsed().as_secs_f64());
    result
}

async fn look(
    context: &Context,
    cached: Arc<Canary>,
    uid: &str,
    memory: &mut Memory,
) -> Result<Action, Error> {
    let (canary, status) = memory.freshest(cached);
    let now = context.now();
    let scene = Scene::read(context, &canary, &status, memory);
    let answers = ask::answers(context, &scene, now).await;
    // Asking may have taken a while.
    let now = context.now();
    let courier = &context.courier;
    let settled = [courier.delivered(uid), courier.abandoned(uid)].concat();
    let facts = scene.facts(context, memory, answers, settled);
    let decision = decide(&facts, now);
    debug!(canary = scene.name, urgent = decision.urgent, effects = ?decision.effects, "decided");
    write_status(context, &scene, &decision, memory, now).await?;
    // Traffic first, words after; and an effect only once those before it are done.
    let status = &decision.status;
    let mut acted = Ok(());
    for effect in &decision.effects {
        acted = act::perform(context, &scene, status, effect, memory).await;
        if acted.is_err() {
            break;
        }
    }
    for note in &decision.events {
        publish(context, &canary, note).await;
    }
    tell_of_alerts(context, &canary, uid, memory).await;
    let origin = Origin {
        namespace: scene.namespace.clone(),
        name: scene.name.clone(),
        uid: uid.to_owned(),
    };
    let posted = context.courier.post(&origin, &status.outbox);
    acted?;
    // A full desk takes the rest when there is room; the outbox holds it until then.
    let later = (posted == Posted::Later).then(|| now + LAZILY);
    if !status.release.as_ref().is_some_and(under_way) {
        memory.refusals.clear_all();
    }
    let wakes = [decision.wake, later, memory.refusals.due()];
    let wait = wakes.into_iter().flatten().min().map(|at| {
        (at - now)
            .to_std()
            .unwrap_or_default()
            .max(Duration::from_millis(10))
    });
    Ok(wait.map_or_else(Action::await_change, Action::requeue))
}

/// Writes the status where it says something that must not be lost, or where enough time has passed.
async fn write_status(
    context: &Context,
    scene: &Scene<'_>,
    decision: &Decision,
    memory: &mut Memory,
    now: Time,
) -> Result<(), Error> {
    let canary = scene.canary;
    let version = canary.resource_version().unwrap_or_default();
    let busy = decision.status.release.as_ref().is_some_and(under_way);
    let due = memory.written_at.is_none_or(|at| now - at >= LAZILY);
    let differs = canary.status.as_ref() != Some(&decision.status);
    if !(decision.urgent || (busy && due && differs)) {
        memory.newest = Some((version, decision.status.clone()));
        return Ok(());
    }
    let mut next = canary.clone();
    next.status = Some(decision.status.clone());
    next.metadata.managed_fields = None;
    let api: Api<Canary> = Api::namespaced(context.client.clone(), &scene.namespace);
    let options = PostParams {
        field_manager: params().field_manager,
        ..PostParams::default()
    };
    match api.replace_status(&scene.name, &options, &next).await {
        Ok(written) => {
            context.numbers.wrote("status");
            log(scene, canary.status.as_ref(), &decision.status);
            memory.newest = Some((
                written.resource_version().unwrap_or_default(),
                decision.status.clone(),
            ));
            memory.written = Some(Arc::new(written));
            memory.written_at = Some(now);
            Ok(())
        }
        // Deleted meanwhile: there is nobody left to tell, and the watch says so next.
        Err(kube::Error::Api(gone)) if gone.code == 404 => Ok(()),
        Err(err) => Err(Error::write(what(scene), err)),
    }
}

fn log(scene: &Scene<'_>, before: Option<&CanaryStatus>, after: &CanaryStatus) {
    let seen = |status: &CanaryStatus| (status.phase, status.step.clone(), status.weight);
    if before.map(seen) != Some(seen(after)) {
        info!(
            namespace = scene.namespace,
            canary = scene.name,
            phase = ?after.phase,
            step = after.step.as_deref().unwrap_or("-"),
            weight = after.weight.unwrap_or(0),
            revision = after.revision.as_deref().unwrap_or("-"),
            "{}", after.message
        );
    }
}

async fn publish(context: &Context, canary: &Canary, note: &Note) {
    let event = Event {
        type_: if note.warning {
            EventType::Warning
        } else {
            EventType::Normal
        },
        reason: note.reason.into(),
        note: Some(note.message.chars().take(1024).collect()),
        action: "Release".into(),
        secondary: None,
    };
    // A recorder that has written before would count this event as the same as one with the same
    // reason, whatever either says; each of ours is about a moment of its own.
    let recorder = Recorder::new(context.client.clone(), context.reporter.clone());
    context.numbers.wrote("event");
    if let Err(err) = recorder.publish(&event, &canary.object_ref(&())).await {
        warn!(canary = canary.name_any(), error = %err, "cannot write an event");
    }
}

/// Says once what keeps alerts from being delivered, for as long as it is the same.
async fn tell_of_alerts(context: &Context, canary: &Canary, uid: &str, memory: &mut Memory) {
    let troubles = context.courier.trouble(uid).into_iter();
    let troubles: Vec<String> = troubles.map(|trouble| trouble.sentence).collect();
    for sentence in &troubles {
        if !memory.troubles.contains(sentence) {
            let note = Note {
                reason: "AlertNotDelivered",
                warning: true,
                message: sentence.clone(),
            };
            publish(context, canary, &note).await;
        }
    }
    memory.troubles = troubles;
}

/// Backs off for each object by itself, with a different jitter for each.
pub fn again_after_error(canary: Arc<Canary>, error: &Error, context: Arc<Context>) -> Action {
    let uid = canary.uid().unwrap_or_default();
    if let Error::Conflict { .. } = error {
        debug!(canary = canary.name_any(), error = %error, "looking again");
        return Action::requeue(Duration::from_millis(100));
    }
    let failures = context.memories.failed(&uid);
    warn!(namespace = canary.namespace(), canary = canary.name_any(), failures, error = %error, "a reconcile failed");
    let backoff =
        Duration::from_millis(250) * 2u32.saturating_pow(failures.min(10).saturating_sub(1));
    let spread = spread(&canary).to_std().unwrap_or_default();
    Action::requeue(backoff.min(LONGEST_BACKOFF) + spread)
}
