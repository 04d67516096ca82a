//! Canaries and AlertProviders, every field of the status included: it is read back from the API server,
//! and whoever may write it may write anything into it.

use crate::mutate::{self, Rng, fuzz};
use crate::seeds;
use chrono::{TimeDelta, TimeZone, Utc};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serin::analysis::{Arm, Gap, Measured, Reading, SeriesSample};
use serin::api::{AlertProvider, Backend, Canary, CanaryStatus, Command, RouteRecord, Time, Verb};
use serin::release::{
    Acceptance, Answer, BackendFact, Decision, Facts, Obstacle, Plan, Question, RouteFact,
    RouteState, Sight, decide, questions, wanted,
};

#[test]
fn canaries() {
    let graft = seeds::canary();
    let seed = seeds::canary();
    let provider = seeds::provider();
    fuzz("canaries", |rng| {
        let mut value = seed.clone();
        mutate::trees(rng, &mut value, &graft, reads::<Canary>);
        if rng.chance(5) {
            torn::<Canary>(rng, &value);
        }
        if let Ok(canary) = serde_json::from_value::<Canary>(value) {
            live(rng, &canary);
        }
        if rng.chance(20) {
            let mut value = provider.clone();
            mutate::trees(rng, &mut value, &graft, reads::<AlertProvider>);
            torn::<AlertProvider>(rng, &value);
        }
    });
}

fn reads<T: DeserializeOwned>(value: &Value) -> bool {
    T::deserialize(value).is_ok()
}

/// The JSON with damage to its bytes: read or refused.
fn torn<T: DeserializeOwned + Serialize>(rng: &mut Rng, value: &Value) {
    let mut bytes = serde_json::to_vec(value).unwrap();
    mutate::bytes(rng, &mut bytes);
    if let Ok(object) = serde_json::from_slice::<T>(&bytes) {
        serde_json::to_vec(&object).unwrap();
    }
}

/// A few looks at a Canary in a world as odd as its status.
fn live(rng: &mut Rng, canary: &Canary) {
    let mut now = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 10).unwrap();
    let mut status = canary.status.clone().unwrap_or_default();
    let held = rng.chance(50);
    let deleting = rng.chance(10);
    for _ in 0..4 {
        let answers = questions(&canary.spec, &status, now)
            .into_iter()
            .map(|question| answer(rng, question, now))
            .collect();
        let facts = Facts {
            name: "web",
            namespace: "shop",
            generation: 3,
            deleting,
            held,
            spec: &canary.spec,
            status: &status,
            commands: commands(rng, &status),
            obstacle: rng.chance(10).then(|| obstacle(rng)),
            sight: match rng.below(3) {
                0 => Sight::Unclear(obstacle(rng)),
                _ => Sight::Serves(backend(rng)),
            },
            routes: (0..rng.below(3)).map(|_| route(rng, &status)).collect(),
            candidate: *rng.pick(&[
                BackendFact::Ready,
                BackendFact::Ready,
                BackendFact::Ready,
                BackendFact::NoEndpoints,
                BackendFact::Missing,
                BackendFact::NoPort,
            ]),
            answers,
            delivered: status
                .outbox
                .iter()
                .take(rng.below(3))
                .map(|a| a.id.clone())
                .collect(),
        };
        let decision = decide(&facts, now);
        sound(&decision, now);
        status = decision.status;
        now += TimeDelta::milliseconds(*rng.pick(&[0, 50, 1_000, 10_000, 3_600_000]));
    }
}

/// What holds of every decision.
fn sound(decision: &Decision, now: Time) {
    let status = &decision.status;
    let text = serde_json::to_string(status).unwrap();
    let again: CanaryStatus = serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("a status that cannot be read back ({error}): {text}"));
    alike(
        &serde_json::to_value(status).unwrap(),
        &serde_json::to_value(&again).unwrap(),
    );
    assert!(
        decision.wake.is_none_or(|at| at > now),
        "a wake in the past"
    );
    assert!(
        status.weight.is_some_and(|weight| weight <= 100),
        "{:?}",
        status.weight
    );
    if let Some(release) = status.release.as_ref().filter(|_| wanted(status).is_some()) {
        // Whatever was read, the plan that is gone by is one.
        let _ = Plan::of(&release.plan).map(|plan| plan.splits());
    }
    crate::limits::bounded(status);
    for note in &decision.events {
        assert!(!note.reason.is_empty());
    }
}

/// Equal, but for the last digit of a float.
fn alike(a: &Value, b: &Value) {
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => {
            assert_eq!(a.len(), b.len());
            a.iter().zip(b).for_each(|(a, b)| alike(a, b));
        }
        (Value::Object(a), Value::Object(b)) => {
            assert!(a.keys().eq(b.keys()), "{a:?} is not {b:?}");
            a.values().zip(b.values()).for_each(|(a, b)| alike(a, b));
        }
        (Value::Number(a), Value::Number(b)) if a.is_f64() => {
            let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
            assert!((a - b).abs() <= a.abs() * 1e-12, "{a} is not {b}");
        }
        (a, b) => assert_eq!(a, b),
    }
}

fn commands(rng: &mut Rng, status: &CanaryStatus) -> Vec<Command> {
    let revision = status
        .release
        .as_ref()
        .map_or("", |r| &*r.revision)
        .to_owned();
    (0..rng.below(3))
        .map(|_| {
            let verb = *rng.pick(&Verb::ALL);
            let value = match rng.below(5) {
                0 => mutate::word(rng),
                1 => format!("{revision}/{}", mutate::word(rng)),
                2 => format!("{revision}/{}", rng.below(4)),
                3 => status.refused.clone().unwrap_or_default(),
                _ => revision.clone(),
            };
            Command { verb, value }
        })
        .collect()
}

fn obstacle(rng: &mut Rng) -> Obstacle {
    Obstacle {
        reason: rng.pick::<&str>(&["BackendNotReady", "StableUnknown"]),
        message: mutate::word(rng),
    }
}

fn backend(rng: &mut Rng) -> Backend {
    Backend {
        group: String::new(),
        kind: "Service".into(),
        name: match rng.below(4) {
            0 => mutate::word(rng),
            _ => (*rng.pick(&["v1", "v2", "v3"])).into(),
        },
        namespace: Some("shop".into()),
        port: 80,
    }
}

fn route(rng: &mut Rng, status: &CanaryStatus) -> RouteFact {
    let record: RouteRecord = match status.routes.first() {
        Some(record) if rng.chance(70) => record.clone(),
        _ => serde_json::from_value(seeds::record()).unwrap(),
    };
    let state = match rng.below(10) {
        0 => RouteState::Missing,
        _ => RouteState::Found {
            uid: if rng.chance(90) {
                record.uid.clone()
            } else {
                mutate::word(rng)
            },
            survey: if rng.chance(90) {
                Ok(record)
            } else {
                Err(obstacle(rng))
            },
            carries: rng.chance(80),
            acceptance: match rng.below(8) {
                0 => Acceptance::Pending(mutate::word(rng)),
                1 => Acceptance::Refused(mutate::word(rng)),
                _ => Acceptance::Accepted,
            },
            settle: TimeDelta::seconds(rng.below(5) as i64),
            holds_stable: rng.chance(80),
        },
    };
    RouteFact {
        unwritten: rng.chance(10).then(|| mutate::word(rng)),
        title: format!("HTTPRoute {}", mutate::word(rng)),
        state,
    }
}

fn answer(rng: &mut Rng, question: Question, now: Time) -> Answer {
    let value = |rng: &mut Rng| match rng.below(6) {
        0 => *rng.pick(&[
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MAX,
            f64::MIN,
            -0.0,
        ]),
        _ => rng.below(100_000) as f64,
    };
    match question {
        Question::Metric { name, .. } => Answer::Metric {
            name,
            measured: match rng.below(4) {
                0 => Measured::NoData(mutate::word(rng)),
                1 => Measured::Error(mutate::word(rng)),
                _ => Measured::Value(value(rng)),
            },
        },
        Question::ErrorRate { .. } => Answer::ErrorRate(match rng.below(8) {
            0 => Err(Gap::NoData(mutate::word(rng))),
            1 => Err(Gap::Error(mutate::word(rng))),
            _ => Ok(Reading {
                at: now,
                series: (0..rng.below(6))
                    .map(|_| SeriesSample {
                        key: (*rng.pick(&[
                            "co.1f2e3d4c@9a8b7c6d",
                            "cf.1f2e3d4c@9a8b7c6d",
                            "so.5a5b5c5d@9a8b7c6d",
                            "@",
                            "🐤",
                        ]))
                        .into(),
                        arm: *rng.pick(&[Arm::Canary, Arm::Stable]),
                        failed: rng.chance(40),
                        value: value(rng),
                    })
                    .collect(),
            }),
        }),
    }
}
