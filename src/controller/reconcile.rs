//! One look at one Canary: gather, decide, write the status, act, report.

use super::act::{self, params, spread};
use super::gather::Scene;
use super::lease::{NotLeading, Term};
use super::memory::Memory;
use super::{Context, Error, ask};
use crate::alerts::{Origin, Posted};
use crate::api::{Canary, CanaryStatus, Time};
use crate::release::{Decision, Effect, Note, decide, under_way};
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
    // Whoever becomes the leader looks at every Canary then.
    let Some(term) = context.leadership.term() else {
        return Ok(Action::await_change());
    };
    tokio::select! {
        biased;
        // Nothing fills the caches any more.
        () = context.stop.clone() => return Ok(Action::await_change()),
        () = context.stores.filled() => {}
    }
    let begun = Instant::now();
    let uid = canary.uid().ok_or(Error::Incomplete("metadata.uid"))?;
    let mut memory = context.memories.of(&uid, term.number());
    let result = look(&context, canary, &uid, &term, &mut memory).await;
    if let Err(Error::NotLeading(NotLeading)) = result {
        debug!(uid, "given up in the middle: another replica goes on");
        return Ok(Action::await_change());
    }
    let (outcome, reason) = match &result {
        Ok(_) => {
            memory.failures = 0;
            let refused = memory.refusals.take_news();
            refused.map_or((Outcome::Done, ""), |reason| (Outcome::Failed, reason))
        }
        Err(err) => (Outcome::Failed, err.reason()),
    };
    context.memories.keep(&uid, term.number(), memory);
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
    term: &Term,
    memory: &mut Memory,
) -> Result<Action, Error> {
    if !memory.caught_up {
        if context.leadership.is_contested() && !catch_up(context, &cached, term, memory).await? {
            return Ok(Action::await_change());
        }
        memory.caught_up = true;
    }
    let (canary, status) = memory.freshest(cached);
    let now = context.now();
    let scene = Scene::read(context, &canary, &status, memory, term);
    let answers = term.guard(ask::answers(context, &scene, now)).await?;
    // Asking may have taken a while.
    let now = context.now();
    let courier = &context.courier;
    let settled = [courier.delivered(uid), courier.abandoned(uid)].concat();
    let facts = scene.facts(context, memory, answers, settled);
    let decision = decide(&facts, now);
    debug!(canary = scene.name, urgent = decision.urgent, effects = ?decision.effects, "decided");
    let written = write_status(context, &scene, &decision, memory, now).await?;
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
        term.guard(publish(context, &canary, note)).await?;
    }
    term.guard(tell_of_alerts(context, &canary, uid, memory))
        .await?;
    let origin = Origin {
        namespace: scene.namespace.clone(),
        name: scene.name.clone(),
        uid: uid.to_owned(),
    };
    term.check()?;
    // The outbox as it stands in the API server: an alert that was delivered, but is not struck out there yet,
    // would come back with the next edit by someone else, and be delivered again.
    let standing = canary.status.as_ref().filter(|_| !written);
    let outbox = &standing.unwrap_or(status).outbox;
    let posted = context.courier.post(&origin, outbox);
    acted?;
    if facts.deleting && decision.effects.contains(&Effect::LetGo) {
        // There is no status to strike its alerts out of any more.
        context.courier.forget(uid);
    }
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

/// Reads the Canary as it stands, once a term: the leader before may have written what no watch has
/// brought yet, and alerts that it has delivered would be sent again. False when the Canary is gone.
async fn catch_up(
    context: &Context,
    cached: &Canary,
    term: &Term,
    memory: &mut Memory,
) -> Result<bool, Error> {
    let (namespace, name) = (cached.namespace().unwrap_or_default(), cached.name_any());
    let api: Api<Canary> = Api::namespaced(context.client.clone(), &namespace);
    let found = term.guard(api.get_opt(&name)).await?;
    let found = found.map_err(|err| Error::Read {
        what: format!("{} {namespace}/{name}", Canary::kind(&())),
        error: Box::new(err),
    })?;
    let found = found.filter(|found| found.uid() == cached.uid());
    memory.written = found.map(Arc::new);
    Ok(memory.written.is_some())
}

/// Writes the status where it says something that must not be lost, or where enough time has passed, and says whether it did.
async fn write_status(
    context: &Context,
    scene: &Scene<'_>,
    decision: &Decision,
    memory: &mut Memory,
    now: Time,
) -> Result<bool, Error> {
    let canary = scene.canary;
    let version = canary.resource_version().unwrap_or_default();
    let busy = decision.status.release.as_ref().is_some_and(under_way);
    // A time of the future is from before the clock was put back.
    let due = memory
        .written_at
        .is_none_or(|at| now - at >= LAZILY || at > now);
    let differs = canary.status.as_ref() != Some(&decision.status);
    if !(decision.urgent || (busy && due && differs)) {
        memory.newest = Some((version, decision.status.clone()));
        return Ok(false);
    }
    let mut next = canary.clone();
    next.status = Some(decision.status.clone());
    next.metadata.managed_fields = None;
    let api: Api<Canary> = Api::namespaced(context.client.clone(), &scene.namespace);
    let options = PostParams {
        field_manager: params().field_manager,
        ..PostParams::default()
    };
    let write = api.replace_status(&scene.name, &options, &next);
    match scene.term.guard(write).await? {
        Ok(written) => {
            context.numbers.wrote("status");
            log(scene, canary.status.as_ref(), &decision.status);
            memory.newest = Some((
                written.resource_version().unwrap_or_default(),
                decision.status.clone(),
            ));
            memory.written = Some(Arc::new(written));
            memory.written_at = Some(now);
            Ok(true)
        }
        // Deleted meanwhile: there is nobody left to tell, and the watch says so next.
        Err(kube::Error::Api(gone)) if gone.code == 404 => Ok(false),
        Err(err) => Err(act::conflict_or_failure(context, scene, memory, err).await),
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
    let failures = context.memories.failed(&uid);
    let (first, longest) = if let Error::Conflict { .. } = error {
        debug!(canary = canary.name_any(), failures, error = %error, "looking again");
        // The change that is in the way comes by the watch, and brings about a look of its own.
        (Duration::from_millis(100), Duration::from_secs(5))
    } else {
        warn!(namespace = canary.namespace(), canary = canary.name_any(), failures, error = %error, "a reconcile failed");
        (Duration::from_millis(250), LONGEST_BACKOFF)
    };
    let backoff = first * 2u32.saturating_pow(failures.min(10).saturating_sub(1));
    let spread = spread(&canary).to_std().unwrap_or_default();
    Action::requeue(backoff.min(longest) + spread)
}
