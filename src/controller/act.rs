//! The effects of a decision: the only writes beside the status.

use super::gather::{Scene, Seen};
use super::memory::Memory;
use super::stores::route_resource;
use super::{Context, Error};
use crate::api::{Canary, CanaryStatus, Command, FINALIZER, MANAGER, Wanted};
use crate::release::{Effect, wanted};
use crate::traffic::{self, TrafficError};
use chrono::TimeDelta;
use json_patch::jsonptr::PointerBuf;
use json_patch::{Patch as JsonPatch, PatchOperation, RemoveOperation, TestOperation};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};
use std::sync::Arc;
use tracing::{debug, info, warn};

/// How often a route patch is planned anew after someone else wrote first.
const TRIES: usize = 4;

/// Performs one effect. `status` is the one that was written before.
pub async fn perform(
    context: &Context,
    scene: &Scene<'_>,
    status: &CanaryStatus,
    effect: &Effect,
    memory: &mut Memory,
) -> Result<(), Error> {
    match effect {
        Effect::Hold => put_finalizer(context, scene, memory, true).await,
        Effect::LetGo => put_finalizer(context, scene, memory, false).await,
        Effect::Shift => shift_all(context, scene, status, memory).await,
        Effect::Forget(command) => forget(context, scene, command).await,
    }
}

pub fn params() -> PatchParams {
    PatchParams {
        field_manager: Some(MANAGER.into()),
        ..PatchParams::default()
    }
}

async fn shift_all(
    context: &Context,
    scene: &Scene<'_>,
    status: &CanaryStatus,
    memory: &mut Memory,
) -> Result<(), Error> {
    let Some((wanted, ..)) = wanted(status) else {
        return Ok(());
    };
    // One route that cannot be written must not keep traffic on a bad version in another.
    let mut first_error = None;
    for seen in &scene.routes {
        let Some(route) = seen.route.clone() else {
            memory.refusals.clear(&seen.title);
            continue;
        };
        let now = context.now();
        if memory.refusals.hold_back(&seen.title, &wanted, &route, now) {
            continue;
        }
        match shift(context, scene, status, seen, route.clone(), &wanted, memory).await {
            Ok(()) => memory.refusals.clear(&seen.title),
            Err(err @ (Error::Write { .. } | Error::Read { .. } | Error::Traffic { .. })) => {
                let moment = (context.now(), spread(scene.canary));
                let title = &seen.title;
                let failures = memory.refusals.note(title, &wanted, &route, &err, moment);
                warn!(namespace = scene.namespace, canary = scene.name, failures, error = %err, "a route was not written");
            }
            Err(err) => {
                first_error.get_or_insert(err);
            }
        }
    }
    first_error.map_or(Ok(()), Err)
}

async fn shift(
    context: &Context,
    scene: &Scene<'_>,
    status: &CanaryStatus,
    seen: &Seen,
    mut route: Value,
    wanted: &Wanted,
    memory: &mut Memory,
) -> Result<(), Error> {
    let Some((_, stable, candidate)) = crate::release::wanted(status) else {
        return Ok(());
    };
    let Some(record) = status
        .routes
        .iter()
        .find(|r| r.kind == seen.kind && r.name == seen.name)
    else {
        return Ok(());
    };
    let api: Api<DynamicObject> = Api::namespaced_with(
        context.client.clone(),
        &scene.namespace,
        &route_resource(seen.kind),
    );
    let frame = scene.frame(seen, stable, candidate);
    for attempt in 1.. {
        let change = match traffic::plan(&route, &frame, record, wanted) {
            Ok(Some(change)) => change,
            Ok(None) => return Ok(()),
            // Surveyed anew at the next look.
            Err(TrafficError::Remade { .. }) => return Ok(()),
            Err(error) => {
                return Err(Error::Traffic {
                    title: seen.title.clone(),
                    error,
                });
            }
        };
        debug!(route = seen.title, patch = %serde_json::to_string(&change.patch).unwrap_or_default(), "patching");
        let options = params();
        let patch = Patch::Json::<()>(change.patch);
        let write = api.patch(&seen.name, &options, &patch);
        match scene.term.guard(write).await? {
            Ok(written) => {
                context.numbers.wrote("route");
                info!(route = seen.title, namespace = scene.namespace, canary = scene.name, wanted = ?wanted, "route written");
                if let Ok(value) = serde_json::to_value(&written) {
                    memory.routes.insert(seen.title.clone(), value);
                }
                return Ok(());
            }
            // A failed `test` answers 422, as a refused value does: only a fresh look can tell them apart.
            Err(kube::Error::Api(refused))
                if matches!(refused.code, 409 | 422) && attempt < TRIES =>
            {
                let fresh = api.get_opt(&seen.name).await;
                let fresh = fresh.map_err(|err| Error::Read {
                    what: seen.title.clone(),
                    error: Box::new(err),
                })?;
                let Some(fresh) = fresh.and_then(|fresh| serde_json::to_value(fresh).ok()) else {
                    return Ok(());
                };
                if fresh["metadata"]["generation"] == route["metadata"]["generation"] {
                    let error = kube::Error::Api(refused);
                    return Err(Error::Write {
                        what: seen.title.clone(),
                        error: Box::new(error),
                    });
                }
                route = fresh;
            }
            Err(err) => return Err(Error::write(seen.title.clone(), err)),
        }
    }
    Ok(())
}

async fn put_finalizer(
    context: &Context,
    scene: &Scene<'_>,
    memory: &mut Memory,
    on: bool,
) -> Result<(), Error> {
    // Our last write may be older than what was read, where the answer to a later one was lost.
    let canary = memory.newer(scene.canary);
    let mut finalizers: Vec<&str> = canary
        .finalizers()
        .iter()
        .map(String::as_str)
        .filter(|f| *f != FINALIZER)
        .collect();
    if on {
        finalizers.push(FINALIZER);
    }
    let patch = json!({"metadata": {
        "resourceVersion": canary.resource_version(),
        "finalizers": finalizers,
    }});
    let api: Api<Canary> = Api::namespaced(context.client.clone(), &scene.namespace);
    let (options, patch) = (params(), Patch::Merge(patch));
    let write = api.patch(&scene.name, &options, &patch);
    match scene.term.guard(write).await? {
        Ok(written) => {
            context.numbers.wrote("finalizer");
            remember(memory, written);
            Ok(())
        }
        // It is gone: there is nothing left to hold.
        Err(kube::Error::Api(gone)) if gone.code == 404 => Ok(()),
        Err(err) => Err(conflict_or_failure(context, scene, memory, err).await),
    }
}

/// What a write of the Canary has come to. After a conflict it is read as it stands now: the watch may tell of
/// the change that was in the way much later, and until then every write would meet it again.
pub async fn conflict_or_failure(
    context: &Context,
    scene: &Scene<'_>,
    memory: &mut Memory,
    error: kube::Error,
) -> Error {
    let error = Error::write(what(scene), error);
    if let Error::Conflict { .. } = error {
        let api: Api<Canary> = Api::namespaced(context.client.clone(), &scene.namespace);
        let same = |fresh: &Canary| fresh.uid() == scene.canary.uid();
        if let Ok(Some(fresh)) = api.get_opt(&scene.name).await
            && same(&fresh)
        {
            memory.written = Some(Arc::new(fresh));
        }
    }
    error
}

async fn forget(context: &Context, scene: &Scene<'_>, command: &Command) -> Result<(), Error> {
    let path = PointerBuf::from_tokens(["metadata", "annotations", command.verb.annotation()]);
    let test = TestOperation {
        path: path.clone(),
        value: Value::String(command.value.clone()),
    };
    let patch = JsonPatch(vec![
        PatchOperation::Test(test),
        PatchOperation::Remove(RemoveOperation { path }),
    ]);
    let api: Api<Canary> = Api::namespaced(context.client.clone(), &scene.namespace);
    let (options, patch) = (params(), Patch::Json::<()>(patch));
    let write = api.patch(&scene.name, &options, &patch);
    match scene.term.guard(write).await? {
        Ok(_) => {
            context.numbers.wrote("annotation");
            Ok(())
        }
        // Changed or removed meanwhile: then there is nothing of ours to remove.
        Err(kube::Error::Api(refused)) if matches!(refused.code, 404 | 422) => Ok(()),
        Err(err) => Err(Error::write(what(scene), err)),
    }
}

/// What a Canary adds to its waits, so that many do not come back at once.
pub fn spread(canary: &Canary) -> TimeDelta {
    let uid = canary.uid().unwrap_or_default();
    let spread = uid.bytes().fold(0u32, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(byte.into())
    });
    TimeDelta::milliseconds((spread % 250).into())
}

/// Notes an object of ours as it came back from a write.
pub fn remember(memory: &mut Memory, written: Canary) {
    if let (Some((_, status)), Some(version)) = (memory.newest.take(), written.resource_version()) {
        memory.newest = Some((version, status));
    }
    memory.written = Some(Arc::new(written));
}

pub fn what(scene: &Scene<'_>) -> String {
    format!("{} {}/{}", Canary::kind(&()), scene.namespace, scene.name)
}
