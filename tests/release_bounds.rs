//! A status that someone else has written, and one that is as large as it gets.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use chrono::{TimeDelta, TimeZone, Utc};
use serde_json::{Value, json};
use serin::analysis::{Arm, MOST_AT_ONCE, Reading, SeriesSample};
use serin::api::{
    CanarySpec, CanaryStatus, Command, Outcome, RouteRecord, Stage, Time, Verb, Verdict,
};
use serin::release::{
    Acceptance, Answer, BackendFact, Decision, Effect, Facts, Obstacle, RouteFact, RouteState,
    Sight, decide, questions,
};

fn now() -> Time {
    Utc.with_ymd_and_hms(2026, 1, 1, 0, 1, 0).unwrap()
}

fn backend(name: &str) -> Value {
    json!({"name": name, "namespace": "shop", "port": 80})
}

fn revision(name: &str) -> String {
    let backend: serin::api::Backend = serde_json::from_value(backend(name)).unwrap();
    backend.revision()
}

fn spec() -> CanarySpec {
    serde_json::from_value(json!({
        "target": {"backend": backend("v2")},
        "routes": [{"kind": "HTTPRoute", "name": "web"}],
        "steps": [{"weight": 10, "hold": "1m"}, {"weight": 50, "hold": "1m"}],
        "alerts": [{"providerRef": {"name": "oncall"}, "events": ["RolledBack", "Aborted"]}],
    }))
    .unwrap()
}

/// In step 1 since a minute ago, with one value changed.
fn status(pointer: &str, value: Value) -> CanaryStatus {
    let at = "2026-01-01T00:00:00Z";
    let mut status = json!({
        "stable": {"revision": revision("v1"), "backend": backend("v1")},
        "release": {
            "revision": revision("v2"), "candidate": backend("v2"), "startedAt": at, "stage": "Stepping",
            "plan": {"steps": [{"weight": 10, "hold": "1m"}, {"weight": 50, "hold": "1m"}], "analysis": {"errorRate": {"vsStable": {}}}},
            "step": {"index": 0, "enteredAt": at, "acceptedAt": at, "clockSince": at, "clockMillis": 0, "pausedMillis": 0, "samples": 1},
            "approved": [],
            "checks": [{"name": "errorRate", "verdict": "NoHarm", "message": "", "at": at}],
            "counters": {"at": at, "series": {}},
        },
    });
    *status.pointer_mut(pointer).unwrap() = value;
    serde_json::from_value(status).unwrap()
}

fn facts<'a>(spec: &'a CanarySpec, status: &'a CanaryStatus) -> Facts<'a> {
    let record: RouteRecord = serde_json::from_value(
        json!({"kind": "HTTPRoute", "name": "web", "uid": "1", "rules": []}),
    )
    .unwrap();
    Facts {
        name: "web",
        namespace: "shop",
        generation: 1,
        deleting: false,
        held: true,
        spec,
        status,
        commands: Vec::new(),
        obstacle: None,
        sight: Sight::Serves(serde_json::from_value(backend("v1")).unwrap()),
        routes: vec![route(Ok(record))],
        candidate: BackendFact::Ready,
        answers: Vec::new(),
        delivered: Vec::new(),
    }
}

fn route(survey: Result<RouteRecord, Obstacle>) -> RouteFact {
    RouteFact {
        unwritten: None,
        title: "HTTPRoute web".into(),
        state: RouteState::Found {
            uid: "1".into(),
            survey,
            carries: true,
            acceptance: Acceptance::Accepted,
            settle: TimeDelta::seconds(1),
            holds_stable: true,
        },
    }
}

fn look(status: &CanaryStatus) -> Decision {
    let spec = spec();
    let _ = questions(&spec, status, now());
    decide(&facts(&spec, status), now())
}

#[test]
fn no_time_and_no_number_in_a_status_overflows() {
    let times = [
        "+262142-12-31T23:59:59.999999999Z",
        "-262143-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
    ];
    for field in [
        "startedAt",
        "step/enteredAt",
        "step/acceptedAt",
        "step/clockSince",
        "checks/0/at",
        "counters/at",
    ] {
        for time in times {
            let decision = look(&status(&format!("/release/{field}"), json!(time)));
            assert_ne!(decision.status.weight, Some(100), "{field} {time}");
        }
    }
    for number in [json!(i64::MIN), json!(i64::MAX), json!(-1)] {
        let _ = look(&status("/release/step/clockMillis", number.clone()));
        let _ = look(&status("/release/step/pausedMillis", number));
    }
    let _ = look(&status("/release/step/samples", json!(u64::MAX)));
    let decision = look(&status("/release/step/index", json!(u32::MAX)));
    assert_eq!(
        decision.status.step.as_deref(),
        Some("2/2"),
        "the last step"
    );
}

#[test]
fn a_plan_that_cannot_be_read_takes_traffic_back() {
    for plan in [
        json!({"steps": [], "analysis": {}}),
        json!({"steps": [{"weight": -1}], "analysis": {}}),
        json!(7),
        json!({"steps": [{"hold": "for ever"}], "analysis": {}}),
    ] {
        let release = look(&status("/release/plan", plan)).status.release.unwrap();
        assert_eq!(
            (release.stage, release.outcome),
            (Stage::Restoring, Some(Outcome::RolledBack))
        );
        assert!(release.reason.unwrap().starts_with("status.release.plan"));
    }
}

#[test]
fn a_release_without_a_stable_backend_ends_and_lets_go() {
    let status = status("/stable", Value::Null);
    let spec = spec();
    let facts = Facts {
        deleting: true,
        ..facts(&spec, &status)
    };
    let decision = decide(&facts, now());
    assert_eq!(decision.status.release.unwrap().stage, Stage::Ended);
    assert!(decision.effects.contains(&Effect::LetGo));
}

#[test]
fn what_others_say_is_cut_off_and_shown_plainly() {
    let status = status("/release/counters", Value::Null);
    let spec = spec();
    let long = format!("\u{1b}[31mno\n{}", "🐤\"".repeat(20_000));
    let mut facts = facts(&spec, &status);
    let RouteState::Found { acceptance, .. } = &mut facts.routes[0].state else {
        unreachable!()
    };
    *acceptance = Acceptance::Refused(long);
    let status = decide(&facts, now()).status;
    let alert = &status.outbox[0].message;
    for text in [&status.message, alert, &status.conditions[3].message] {
        assert!(
            serde_json::to_string(text).unwrap().len() <= 1_026,
            "{}",
            text.len()
        );
        assert!(
            text.ends_with('…') && !text.contains(char::is_control),
            "{text}"
        );
        assert!(text.contains(" [31mno 🐤"), "{text}");
    }
}

#[test]
fn a_check_that_stands_in_a_status_many_times_is_one() {
    let at = "2026-01-01T00:00:50Z";
    let checks: Vec<Value> = ["errorRate", "gone", "errorRate"]
        .map(|name| json!({"name": name, "verdict": "NoHarm", "message": "", "at": at}))
        .to_vec();
    let release = look(&status("/release/checks", json!(checks)))
        .status
        .release
        .unwrap();
    let names: Vec<&str> = release.checks.iter().map(|check| &*check.name).collect();
    assert_eq!(names, ["errorRate"]);
}

#[test]
fn a_status_of_a_megabyte_and_a_half_shrinks_to_its_bounds() {
    let at = "2026-01-01T00:00:50Z";
    let alert = json!({"id": "🐤".repeat(50), "provider": "oncall", "event": "Started", "at": at, "revision": "", "message": "x".repeat(400)});
    let zero = json!({"requests": 0, "failed": 0});
    let mut large =
        serde_json::to_value(status("/release/approved", json!(vec![1; 10_000]))).unwrap();
    large["outbox"] = json!(vec![alert; 2_500]);
    large["release"]["timeline"] = json!(vec![
        json!({"at": at, "weight": 255, "canary": zero, "stable": zero});
        3_000
    ]);
    large["release"]["checks"] = json!(vec![
        json!({"name": "errorRate", "verdict": "NoHarm", "message": "", "at": at});
        1_000
    ]);
    assert!(large.to_string().len() > 1_500_000);
    let written = look(&serde_json::from_value(large).unwrap()).status;
    let bytes = serde_json::to_vec(&written).unwrap().len();
    assert!(bytes < 64 << 10, "{bytes} bytes");
}

#[test]
fn a_very_long_annotation_is_obeyed_once_and_removed() {
    let mut status = status("/release/counters", Value::Null);
    let spec = spec();
    let command = Command {
        verb: Verb::Abort,
        value: "é".repeat(100_000),
    };
    let other = Command {
        verb: Verb::Abort,
        value: "é".repeat(100_001),
    };
    for (said, events) in [(&command, 1), (&command, 0), (&other, 1)] {
        let facts = Facts {
            commands: vec![said.clone()],
            ..facts(&spec, &status)
        };
        let decision = decide(&facts, now());
        let told = decision
            .events
            .iter()
            .filter(|note| note.reason == "CommandIgnored");
        assert_eq!(told.count(), events);
        assert!(decision.effects.contains(&Effect::Forget(said.clone())));
        assert!(decision.status.obeyed[0].value.len() < 512);
        status = decision.status;
    }
}

#[test]
fn too_many_series_are_an_error_and_not_a_status() {
    let status = status("/release/counters", Value::Null);
    let spec = spec();
    let series = (0..=MOST_AT_ONCE).map(|n| SeriesSample {
        key: format!("co.{n}@1"),
        arm: Arm::Canary,
        failed: false,
        value: 1.0,
    });
    let reading = Reading {
        at: now(),
        series: series.collect(),
    };
    let facts = Facts {
        answers: vec![Answer::ErrorRate(Ok(reading))],
        ..facts(&spec, &status)
    };
    let release = decide(&facts, now()).status.release.unwrap();
    assert_eq!(
        (release.counters, release.checks[0].verdict),
        (None, Verdict::Error)
    );
    assert!(
        release.checks[0].message.contains("4001 series"),
        "{}",
        release.checks[0].message
    );
}

/// Records of 16 routes with 16 rules, two backends each, whose names are this long.
fn records(length: usize) -> Vec<RouteRecord> {
    let name = |n: usize| format!("{}{n:03}", "n".repeat(length - 3));
    let rules: Vec<Value> = (0..16)
        .map(|n| {
            json!({"name": name(n), "index": n, "weights": [1_000_000, 1_000_000], "factor": 100,
                   "backends": [revision(&name(1)), revision(&name(2))], "spelled": ["group", "kind", "namespace"]})
        })
        .collect();
    let record = |n: usize| json!({"kind": "HTTPRoute", "name": name(n), "uid": "0".repeat(36), "rules": rules});
    serde_json::from_value((0..16).map(record).collect()).unwrap()
}

#[test]
fn a_release_that_would_not_fit_does_not_begin() {
    let spec = spec();
    let status = CanaryStatus::default();
    for (length, begins) in [(40, true), (253, false)] {
        let mut facts = facts(&spec, &status);
        facts.routes = records(length)
            .into_iter()
            .map(|record| route(Ok(record)))
            .collect();
        let decision = decide(&facts, now());
        assert_eq!(
            decision.status.release.is_some(),
            begins,
            "{}",
            decision.status.message
        );
        if !begins {
            assert!(
                decision.status.message.contains("and 81920 is the limit"),
                "{}",
                decision.status.message
            );
        }
    }
}

#[test]
fn the_largest_status_has_less_than_256_kib() {
    let loud = "\"".repeat(10_000);
    let at = "2026-01-01T00:00:00.123Z";
    let name = "n".repeat(253);
    let count = json!({"requests": (1_u64 << 53) - 1, "failed": (1_u64 << 53) - 1});
    let counts = json!({"canary": count, "stable": count});
    let test =
        |n: usize| json!({"wealth": vec![-39.123_456; n], "spent": 0.123_456, "peak": 13.123_456});
    let check = |name: String| {
        json!({"name": name, "verdict": "CannotTell", "value": "123.456%", "limit": loud, "message": loud, "at": at,
               "counts": counts, "evidence": -1.234, "failures": 4_000_000_000_u32, "relative": test(7), "absolute": test(9),
               "absoluteStable": test(9), "seen": {"told": 0.333_333, "canary": (1_u64 << 53) - 1, "stable": (1_u64 << 53) - 1}})
    };
    let metrics: Vec<Value> = (0..16)
        .map(|n| json!({"name": format!("{n:063}"), "query": "up", "max": "1"}))
        .collect();
    let checks: Vec<Value> = std::iter::once("errorRate".to_owned())
        .chain((0..16).map(|n| format!("{n:063}")))
        .map(check)
        .collect();
    let alert = json!({"id": name, "provider": name, "event": "WaitingForApproval", "at": at, "revision": "n".repeat(57),
                       "message": loud, "check": {"name": "n".repeat(63), "value": "123.456%", "limit": "1 x stable", "counts": counts}});
    let past = json!({"revision": "n".repeat(57), "backend": backend(&name), "outcome": "Superseded", "reason": loud,
                      "startedAt": at, "endedAt": at, "excessFailures": u32::MAX});
    let point =
        json!({"at": at, "weight": 100, "canary": count, "stable": count, "evidence": -1.234});
    let series: serde_json::Map<String, Value> = (0..1_000)
        .map(|n| (format!("co.{n:08}@12345678"), json!((1_u64 << 53) - 1)))
        .collect();
    let mut large = serde_json::to_value(status("/release/checks", json!(checks))).unwrap();
    large["release"]["timeline"] = json!(vec![point; 64]);
    large["release"]["plan"]["analysis"]["metrics"] = json!(metrics);
    large["release"]["counters"]["series"] = json!(series);
    large["release"]["reason"] = json!(loud);
    large["history"] = json!(vec![past; 10]);
    large["outbox"] = (0..32)
        .map(|n| {
            let mut alert = alert.clone();
            alert["id"] = json!(format!("{n}{name}"));
            alert
        })
        .collect();
    large["routes"] = json!(records(40));
    let status: CanaryStatus = serde_json::from_value(large).unwrap();
    let mut spec = spec();
    spec.paused = true;
    let written = decide(&facts(&spec, &status), now()).status;
    let release = written.release.as_ref().unwrap();
    assert_eq!(
        (
            release.checks.len(),
            release.timeline.len(),
            written.outbox.len()
        ),
        (17, 64, 32)
    );
    let prepared = serde_json::to_vec(&(&release.plan, &written.routes))
        .unwrap()
        .len();
    // As if plan and records took all that they may.
    let bytes = serde_json::to_vec(&written).unwrap().len() - prepared + (80 << 10);
    println!("{bytes} bytes, of them {prepared} for plan and records");
    assert!(bytes < 256 << 10, "{bytes} bytes");
}
