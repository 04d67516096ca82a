//! Bugs, planted on the wire as if the operator had them: for each invariant one that breaks it, and that it is caught.
//!
//! The wire changes what the operator writes on its way: it swaps the order of status and effect, skips a step,
//! forgets a rule. What the operator reads is the truth, so the rest of it goes on as it would.

use crate::api::{Api, Asked};
use crate::prometheus::State;
use crate::scenario::{Scenario, in_virtual_time, undisturbed};
use crate::store::Writer;
use crate::wire::Bug;
use crate::world::World;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Plays a scenario with a bug, and demands that it is found for what it is.
#[track_caller]
fn caught(expected: &str, scenario: Scenario, bug: Bug) {
    caught_in(expected, scenario, |_| {}, bug);
}

#[track_caller]
fn caught_in(expected: &str, scenario: Scenario, prepare: impl Fn(&World), bug: Bug) {
    let wrong = in_virtual_time(async {
        let mut world = World::new(scenario.setup()).await;
        prepare(&world);
        world.line.bug(bug);
        let play = tokio::time::timeout(
            std::time::Duration::from_secs(90),
            scenario.play(&mut world),
        );
        let _ = play.await;
        world.wrong()
    });
    assert!(
        wrong.iter().any(|what| what.contains(expected)),
        "{expected:?} is not among {wrong:#?}"
    );
}

fn status_of(asked: &Asked) -> Option<Value> {
    (asked.plural == "canaries" && asked.status).then(|| asked.json())
}

fn is_route_patch(asked: &Asked) -> bool {
    asked.plural == "httproutes" && asked.is_write()
}

fn with(mut asked: Asked, body: &Value) -> Option<Asked> {
    asked.body = body.to_string().into();
    Some(asked)
}

/// Changes each status on its way.
fn on_status(mut change: impl FnMut(&mut Value) + Send + 'static) -> Bug {
    Box::new(move |_, asked| match status_of(&asked) {
        Some(mut object) => {
            change(&mut object["status"]);
            with(asked, &object)
        }
        None => Some(asked),
    })
}

/// Changes the operations of each patch of a route on their way.
fn on_patch(mut change: impl FnMut(&Api, &mut Vec<Value>) + Send + 'static) -> Bug {
    Box::new(move |api, asked| {
        if !is_route_patch(&asked) {
            return Some(asked);
        }
        let mut patch = asked.json();
        change(api, patch.as_array_mut().unwrap());
        with(asked, &patch)
    })
}

fn is_restored(status: &Value) -> bool {
    status["release"]["stage"] == "Restoring"
}

#[test]
fn the_effect_before_the_status() {
    let mut kept: Option<Asked> = None;
    let bug: Bug = Box::new(move |api, asked| {
        if is_route_patch(&asked)
            && let Some(status) = kept.take()
        {
            api.answer(&asked, Writer::Operator);
            api.answer(&status, Writer::Operator);
            return None;
        }
        match status_of(&asked) {
            Some(object) if object["status"]["release"]["step"]["acceptedAt"].is_null() => {
                kept = Some(asked);
                None
            }
            _ => Some(asked),
        }
    });
    caught("(5) route shop is written", Scenario::Rollback, bug);
}

#[test]
fn a_step_that_is_skipped() {
    let bug = on_status(|status| {
        if status["release"]["step"]["index"] == 1 {
            status["release"]["step"]["index"] = json!(2);
        }
    });
    caught(
        "(5) shop goes from Stepping 0 to Stepping 2",
        Scenario::Promotion,
        bug,
    );
}

#[test]
fn a_rule_for_testers_that_is_forgotten() {
    let both = |world: &World| {
        let headers = json!([{"name": "x-canary", "value": "true"}]);
        world.plan(json!([{"weight": 20, "headers": headers, "hold": "3s"}]));
    };
    let bug = on_patch(|_, patch| patch.retain(|op| op["path"] != "/spec/rules/-"));
    caught_in("(5) route shop is written", Scenario::Abort, both, bug);
}

/// Leaves the first step so long after a moment that `begins` finds in its status.
fn leave(after: Duration, begins: impl Fn(&Value) -> bool + Send + 'static) -> Bug {
    let mut since = None;
    on_status(move |status| {
        if status["release"]["stage"] == "Stepping" && begins(&status["release"]["step"]) {
            let since = since.get_or_insert_with(Instant::now);
            if since.elapsed() >= after {
                status["release"]["step"]["index"] = json!(1);
            }
        }
    })
}

#[test]
fn a_weight_that_is_doubled() {
    let bug = on_patch(|_, patch| {
        for op in patch.iter_mut() {
            if op["value"]["name"] == "v2"
                && let Some(weight) = op["value"]["weight"].as_i64()
            {
                op["value"]["weight"] = json!(weight * 2);
            }
        }
    });
    caught("(5) route shop is written", Scenario::Abort, bug);
}

#[test]
fn a_finalizer_that_is_forgotten() {
    let bug: Bug = Box::new(|_, asked| {
        let finalizer =
            asked.plural == "canaries" && asked.json()["metadata"]["finalizers"].is_array();
        (asked.status || !finalizer).then_some(asked)
    });
    caught("has no finalizer", Scenario::Abort, bug);
}

#[test]
fn a_finalizer_that_goes_too_soon() {
    let mut restored = false;
    let bug: Bug = Box::new(move |_, mut asked| {
        restored |= status_of(&asked).is_some_and(|object| is_restored(&object["status"]));
        if restored && is_route_patch(&asked) {
            // The route is left as it is, and the Canary is let go instead.
            asked.plural = "canaries";
            asked.content_type = "application/merge-patch+json".into();
            return with(asked, &json!({"metadata": {"finalizers": []}}));
        }
        Some(asked)
    });
    caught(
        "(5) the finalizer goes while route shop carries",
        Scenario::Deletion,
        bug,
    );
}

#[test]
fn a_promotion_before_the_last_step() {
    let bug = on_status(|status| {
        if status["release"]["step"]["index"] == 1 {
            status["release"]["stage"] = json!("Promoting");
            status["release"]["step"]["index"] = json!(0);
        }
    });
    caught(
        "(5) shop is promoted from step 0 of 3",
        Scenario::Promotion,
        bug,
    );
}

#[test]
fn an_end_before_the_route_is_given_back() {
    let mut restoring = 0;
    let bug: Bug = Box::new(move |_, asked| {
        if let Some(mut object) = status_of(&asked).filter(|o| is_restored(&o["status"])) {
            restoring += 1;
            if restoring > 1 {
                object["status"]["release"]["stage"] = json!("Ended");
            }
            return with(asked, &object);
        }
        (!(restoring > 0 && is_route_patch(&asked))).then_some(asked)
    });
    caught(
        "(1) shop ends as Aborted: route shop carries",
        Scenario::Abort,
        bug,
    );
}

#[test]
fn a_field_that_nobody_knows_is_lost() {
    let mut once = false;
    let bug = on_patch(move |_, patch| {
        if !std::mem::replace(&mut once, true) {
            patch.push(json!({"op": "remove", "path": "/spec/novel"}));
        }
    });
    caught(
        "(2) route shop: foreign parts changed",
        Scenario::Abort,
        bug,
    );
}

#[test]
fn a_route_that_comes_back_otherwise() {
    let bug = on_patch(|api, patch| {
        let name = "shop".to_owned();
        let store = api.store();
        let canary = store.get("canaries", crate::NAMESPACE, &name).unwrap();
        if is_restored(&canary["status"]) {
            // The weight of 3 was not written there before, so it says something else than was found.
            patch.push(json!({"op": "add", "path": "/spec/rules/1/backendRefs/0/kind", "value": "Service"}));
            patch.push(json!({"op": "remove", "path": "/spec/rules/1/backendRefs/0/group"}));
        }
    });
    caught(
        "(1) shop ends as Aborted: route shop is",
        Scenario::Abort,
        bug,
    );
}

#[test]
fn an_abort_that_is_not_obeyed() {
    let bug = on_status(|status| {
        if is_restored(status) {
            status["release"]["stage"] = json!("Stepping");
        }
    });
    caught(
        "(3) shop goes on with a release in spite of: abort",
        Scenario::Abort,
        bug,
    );
}

#[test]
fn harm_that_is_not_acted_on() {
    let bug = on_status(|status| {
        if is_restored(status) {
            status["release"]["stage"] = json!("Stepping");
        }
    });
    caught(
        "(3) shop goes on with a release in spite of: harm",
        Scenario::Rollback,
        bug,
    );
}

#[test]
fn harm_that_is_not_seen() {
    let mut found = false;
    let bug: Bug = Box::new(move |_, asked| {
        found |= status_of(&asked).is_some_and(|object| is_restored(&object["status"]));
        (!found).then_some(asked)
    });
    caught(
        "(9) shop: v2 fails and keeps its traffic",
        Scenario::Rollback,
        bug,
    );
}

#[test]
fn traffic_that_stays() {
    let mut restored = false;
    let bug: Bug = Box::new(move |_, asked| {
        restored |= status_of(&asked).is_some_and(|object| is_restored(&object["status"]));
        (!(restored && is_route_patch(&asked))).then_some(asked)
    });
    caught("(3) shop has traffic", Scenario::Revert, bug);
}

#[test]
fn a_step_without_evidence() {
    let down = |world: &World| world.prometheus.set(State::Down);
    let bug = leave(Duration::from_secs(8), |step| !step["acceptedAt"].is_null());
    caught_in("(4) without any evidence", Scenario::Approval, down, bug);
}

#[test]
fn a_step_that_nobody_has_accepted() {
    let silent = |world: &World| world.plane().silent = true;
    let bug = leave(Duration::from_secs(8), |_| true);
    caught_in(
        "(6) nobody has accepted route shop",
        Scenario::Approval,
        silent,
        bug,
    );
}

#[test]
fn a_step_that_is_too_short() {
    let bug = leave(Duration::ZERO, |step| !step["acceptedAt"].is_null());
    caught(
        "which is less than 3s and the settle time",
        Scenario::Promotion,
        bug,
    );
}

#[test]
fn an_approval_that_nobody_gave() {
    let bug = on_status(|status| {
        if status["phase"] == "WaitingForApproval" {
            status["release"]["stage"] = json!("Promoting");
        }
    });
    caught("(5) nobody has approved it", Scenario::Approval, bug);
}

#[test]
fn requests_that_nobody_answers() {
    let bug = on_patch(|_, patch| {
        for op in patch.iter_mut() {
            if op["path"]
                .as_str()
                .is_some_and(|path| path.ends_with("/weight"))
            {
                op["value"] = json!(0);
            }
            if op["value"]["weight"].is_i64() {
                op["value"]["weight"] = json!(0);
            }
        }
    });
    caught("requests failed: no backend", Scenario::Abort, bug);
}

#[test]
fn a_write_at_rest() {
    let wrong = in_virtual_time(async {
        let mut world = World::new(Scenario::Promotion.setup()).await;
        Scenario::Promotion.play(&mut world).await.unwrap();
        world.run(100.0).await;
        let mut canary = world.canary();
        canary["status"]["message"] = json!("still here");
        let asked = Asked {
            method: axum::http::Method::PUT,
            plural: "canaries",
            namespace: Some(crate::NAMESPACE.into()),
            name: Some("shop".into()),
            status: true,
            query: HashMap::new(),
            content_type: String::new(),
            body: canary.to_string().into(),
        };
        drop(world.api.answer(&asked, Writer::Operator));
        world.wrong()
    });
    assert!(
        wrong
            .iter()
            .any(|what| what.contains("(8) at rest the operator writes")),
        "{wrong:?}"
    );
}

#[test]
fn an_alert_that_is_lost() {
    let (expected, ..) = undisturbed(Scenario::Rollback);
    let end = in_virtual_time(async {
        let mut world = World::new(Scenario::Rollback.setup()).await;
        world.line.bug(on_status(|status| {
            if let Some(outbox) = status["outbox"].as_array_mut() {
                outbox.retain(|alert| alert["event"] != "RolledBack");
            }
        }));
        // It is delivered all the same by the process that knows of it, unless that one dies.
        let killed = world.line.clone();
        killed.plan(|_, asked| {
            let ends = status_of(asked).is_some_and(|object| is_restored(&object["status"]));
            ends.then_some(crate::wire::Fault::Kill { performed: true })
        });
        timeout(Duration::from_secs(120), async {
            Scenario::Rollback.play(&mut world).await
        })
        .await
    });
    let told = end.ok().and_then(Result::ok).map(|end| end.told);
    assert_ne!(told, Some(expected.told));
}
