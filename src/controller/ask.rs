//! Questions of a release, put to the metrics.

use super::Context;
use super::gather::Scene;
use crate::analysis::{Gap, Measured, Reading};
use crate::api::{Backend, Canary, Time, Verb};
use crate::metrics::{self, RouteTarget, Source, Variables};
use crate::release::{Answer, Plan, Question, questions, under_way};
use crate::telemetry::Outcome;
use chrono::TimeDelta;
use futures::future::join_all;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use std::time::Duration;

/// How often it is looked, while an answer is awaited, whether there is still time for it.
const GLANCE: Duration = Duration::from_millis(100);

/// Asks what is due and answers it. What a person has stopped is not asked about: a source that hangs must
/// not keep traffic where nobody wants it.
pub async fn answers(context: &Context, scene: &Scene<'_>, now: Time) -> Vec<Answer> {
    let Some(source) = &context.source else {
        return Vec::new();
    };
    let asked = questions(&scene.canary.spec, scene.status, now);
    if asked.is_empty() || stopped(scene.canary, scene) {
        return Vec::new();
    }
    let all = asked
        .into_iter()
        .map(|question| answer(context, &**source, scene, question, now));
    tokio::select! {
        answers = join_all(all) => answers,
        () = until_stopped(context, scene) => Vec::new(),
    }
}

async fn until_stopped(context: &Context, scene: &Scene<'_>) {
    let reference = ObjectRef::from_obj(scene.canary);
    loop {
        tokio::time::sleep(GLANCE).await;
        let newest = context.canaries.get(&reference);
        if newest.is_none_or(|newest| stopped(&newest, scene)) {
            return;
        }
    }
}

/// Whether an object says by itself that the release under way must stop.
fn stopped(canary: &Canary, scene: &Scene<'_>) -> bool {
    let Some(release) = scene.status.release.as_ref().filter(|r| under_way(r)) else {
        return false;
    };
    let target = canary.spec.target.backend.clone();
    let target = target.map(|backend| backend.within(&scene.namespace).revision());
    let abort = canary.annotations().get(Verb::Abort.annotation());
    canary.metadata.deletion_timestamp.is_some()
        || target.is_some_and(|target| target != release.revision)
        || abort == Some(&release.revision)
}

async fn answer(
    context: &Context,
    source: &dyn Source,
    scene: &Scene<'_>,
    question: Question,
    now: Time,
) -> Answer {
    let answer = match question {
        Question::ErrorRate { testers } => {
            Answer::ErrorRate(read_counters(source, scene, testers, now).await)
        }
        Question::Metric { name, query } => {
            let measured = measure(source, scene, &query).await;
            Answer::Metric { name, measured }
        }
    };
    let failed = matches!(
        &answer,
        Answer::ErrorRate(Err(Gap::Error(_)))
            | Answer::Metric {
                measured: Measured::Error(_),
                ..
            }
    );
    context.numbers.queried(if failed {
        Outcome::Failed
    } else {
        Outcome::Done
    });
    answer
}

async fn measure(source: &dyn Source, scene: &Scene<'_>, query: &str) -> Measured {
    let Some((stable, candidate)) = backends(scene) else {
        return Measured::Error("it is not known yet what serves".into());
    };
    let plan = scene
        .status
        .release
        .as_ref()
        .and_then(|release| Plan::of(&release.plan).ok());
    let window = plan.map_or(TimeDelta::minutes(1), |plan| plan.interval);
    let variables = Variables {
        namespace: scene.namespace.clone(),
        name: scene.name.clone(),
        stable: stable.name,
        canary: candidate.name.clone(),
        service: candidate.name,
        window,
    };
    let query = match metrics::render(query, &variables) {
        Ok(query) => query,
        Err(err) => return Measured::Error(err.to_string()),
    };
    match source.query(&query).await {
        Ok(answer) => metrics::single(&answer),
        Err(err) => Measured::Error(err.to_string()),
    }
}

async fn read_counters(
    source: &dyn Source,
    scene: &Scene<'_>,
    testers: bool,
    now: Time,
) -> Result<Reading, Gap> {
    let Some((stable, candidate)) = backends(scene) else {
        return Err(Gap::Error("it is not known yet what serves".into()));
    };
    let mut readings = Vec::new();
    for seen in &scene.routes {
        let (Some(profile), Some(route)) = (seen.profile, &seen.route) else {
            return Err(Gap::NoData(format!(
                "{} is not there, or of no known data plane",
                seen.title
            )));
        };
        let skip_rules = scene.rules_to_skip(seen, route, (&stable, &candidate), testers);
        let target = RouteTarget {
            kind: seen.kind,
            namespace: scene.namespace.clone(),
            name: seen.name.clone(),
            stable: stable.clone(),
            canary: candidate.clone(),
            skip_rules,
        };
        let answer = source
            .query(&profile.requests(&target))
            .await
            .map_err(|err| Gap::Error(err.to_string()))?;
        let reading = profile.read(&target, &answer, now);
        readings.push(reading.map_err(|err| Gap::Error(err.to_string()))?);
    }
    Reading::merge(readings).ok_or_else(|| Gap::NoData("the Canary has no route".into()))
}

/// Stable and candidate of the release under way, or of the one that may begin.
fn backends(scene: &Scene<'_>) -> Option<(Backend, Backend)> {
    let candidate = scene.candidate()?;
    let stable = scene.status.stable.as_ref().map(|s| s.backend.clone());
    let stable = stable.or_else(|| scene.first_sight())?;
    Some((stable, candidate))
}
