//! The release as people know it: a small model of routes, traffic and time, and the decisions in it.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

mod sim;

use serde_json::json;
use serin::api::{AlertEvent, Outcome, Phase, Verb};
use sim::Sim;

fn steps() -> serde_json::Value {
    json!([{"weight": 10, "hold": "20s"}, {"weight": 50, "hold": "20s"}])
}

#[test]
fn a_good_version_is_promoted() {
    let mut sim = Sim::new(steps());
    sim.release("v2");
    sim.run(120);
    assert_eq!(sim.phase(), Phase::Promoted, "{}", sim.message());
    assert_eq!(sim.serves(), "v2");
    assert_eq!(sim.weights(), [10, 50, 100, 0]);
    assert_eq!(
        sim.told(),
        [
            AlertEvent::Started,
            AlertEvent::StepReached,
            AlertEvent::Promoted
        ]
    );
}

#[test]
fn a_step_takes_three_status_writes_and_one_patch() {
    let mut sim = Sim::new(
        json!([{"weight": 10, "hold": "5s"}, {"weight": 20, "hold": "5s"}, {"weight": 50, "hold": "5s"}]),
    );
    sim.release("v2");
    sim.run(60);
    assert_eq!(sim.phase(), Phase::Promoted);
    assert_eq!(sim.patches, 4, "one for each step and one to promote");
    assert!(
        sim.urgent_writes <= 3 * 4,
        "{} status writes",
        sim.urgent_writes
    );
}

#[test]
fn a_bad_version_is_taken_back_and_not_tried_again() {
    let mut sim = Sim::new(steps());
    sim.errors("v2", 0.2);
    sim.release("v2");
    let took = sim.until(|sim| sim.phase() == Phase::RollingBack, 60);
    assert!(took <= 20, "took {took}s");
    sim.run(60);
    assert_eq!(sim.phase(), Phase::RolledBack, "{}", sim.message());
    assert_eq!(sim.serves(), "v1");
    assert!(
        sim.message().contains("failed requests"),
        "{}",
        sim.message()
    );
    assert_eq!(sim.told(), [AlertEvent::Started, AlertEvent::RolledBack]);
    // The old version again is no release, and the bad one again fails again.
    sim.release("v1");
    sim.run(10);
    assert_eq!(sim.phase(), Phase::Idle);
    sim.release("v2");
    sim.run(60);
    assert_eq!(sim.phase(), Phase::RolledBack);
    assert_eq!(sim.outcomes(), [Outcome::RolledBack, Outcome::RolledBack]);
    // Retry tries again once the fault is gone.
    sim.errors("v2", 0.0);
    sim.say(Verb::Retry, "v2", "");
    sim.run(120);
    assert_eq!(sim.phase(), Phase::Promoted, "{}", sim.message());
}

#[test]
fn no_data_holds_and_says_so_and_never_promotes() {
    let mut sim = Sim::new(steps());
    sim.release("v2");
    sim.until(|sim| sim.weight() == 10, 10);
    sim.prometheus(false);
    sim.run(600);
    assert_eq!((sim.phase(), sim.weight()), (Phase::Progressing, 10));
    assert!(sim.message().contains("held"), "{}", sim.message());
    assert!(sim.told().contains(&AlertEvent::DataLost));
    sim.prometheus(true);
    sim.run(120);
    assert_eq!(sim.phase(), Phase::Promoted, "{}", sim.message());
}

#[test]
fn a_canary_without_requests_is_not_promoted() {
    let mut sim = Sim::new(steps());
    sim.starve("v2");
    sim.release("v2");
    sim.run(600);
    assert_eq!(
        (sim.phase(), sim.weight()),
        (Phase::Progressing, 10),
        "{}",
        sim.message()
    );
}

#[test]
fn approval_waits_for_a_person_and_may_come_early() {
    let mut sim = Sim::new(json!([{"weight": 10}, {"weight": 50, "approval": true}]));
    sim.release("v2");
    sim.run(120);
    assert_eq!(
        (sim.phase(), sim.weight()),
        (Phase::WaitingForApproval, 50),
        "{}",
        sim.message()
    );
    assert!(
        sim.message()
            .contains("kubectl annotate canary shop serin.dev/approve="),
        "{}",
        sim.message()
    );
    sim.say(Verb::Approve, "v2", "/7");
    sim.run(5);
    assert_eq!(sim.phase(), Phase::WaitingForApproval);
    sim.say(Verb::Approve, "v9", "/2");
    sim.run(5);
    assert_eq!(
        sim.phase(),
        Phase::WaitingForApproval,
        "a stale approval does nothing"
    );
    sim.say(Verb::Approve, "v2", "/2");
    sim.run(20);
    assert_eq!(sim.phase(), Phase::Promoted);

    let mut early =
        Sim::new(json!([{"weight": 10, "hold": "30s"}, {"weight": 50, "approval": true}]));
    early.release("v2");
    early.run(5);
    early.say(Verb::Approve, "v2", "/2");
    early.run(120);
    assert_eq!(early.phase(), Phase::Promoted);
}

#[test]
fn approval_never_overrides_harm() {
    let mut sim = Sim::new(json!([{"weight": 10, "approval": true}]));
    sim.errors("v2", 0.5);
    sim.release("v2");
    sim.run(1);
    sim.say(Verb::Approve, "v2", "/1");
    sim.say(Verb::Promote, "v2", "");
    sim.until(|sim| sim.weight() == 0 && sim.phase() != Phase::Pending, 60);
    sim.run(20);
    assert_ne!(sim.serves(), "v2", "{}", sim.message());
}

#[test]
fn abort_wins_over_everything() {
    for during in ["step", "approval", "paused", "promoting"] {
        let mut sim =
            Sim::new(json!([{"weight": 10, "hold": "10s"}, {"weight": 50, "approval": true}]));
        sim.release("v2");
        match during {
            "step" => sim.run(3),
            "approval" => sim.run(60),
            "paused" => {
                sim.run(3);
                sim.pause(true);
                sim.run(3);
            }
            _ => {
                sim.run(3);
                sim.say(Verb::Promote, "v2", "");
                sim.until(|sim| sim.phase() == Phase::Promoting, 30);
            }
        }
        sim.say(Verb::Abort, "v2", "");
        sim.run(20);
        assert_eq!(sim.phase(), Phase::Aborted, "{during}: {}", sim.message());
        assert_eq!(sim.serves(), "v1", "{during}");
    }
}

#[test]
fn paused_stops_advancing_but_not_protecting() {
    let mut sim = Sim::new(steps());
    sim.release("v2");
    sim.run(8);
    sim.pause(true);
    sim.run(600);
    assert_eq!((sim.phase(), sim.weight()), (Phase::Paused, 10));
    sim.errors("v2", 0.5);
    sim.run(60);
    assert_eq!(
        (sim.phase(), sim.weight()),
        (Phase::RolledBack, 0),
        "{}",
        sim.message()
    );

    let mut sim = Sim::new(steps());
    sim.pause(true);
    sim.release("v2");
    sim.run(60);
    assert_eq!((sim.phase(), sim.weight()), (Phase::Paused, 0));
    sim.pause(false);
    sim.run(120);
    assert_eq!(sim.phase(), Phase::Promoted);
}

#[test]
fn a_newer_revision_starts_over_after_traffic_is_off_the_one_before() {
    let mut sim = Sim::new(steps());
    sim.release("v2");
    sim.run(40);
    assert_eq!(sim.weight(), 50);
    sim.release("v3");
    sim.until(|sim| sim.revision().starts_with("v3"), 30);
    assert_eq!(sim.weights().last(), Some(&10));
    assert!(
        sim.weights().windows(2).any(|w| w == [50, 0]),
        "{:?}",
        sim.weights()
    );
    sim.run(120);
    assert_eq!((sim.phase(), sim.serves()), (Phase::Promoted, "v3".into()));
    assert_eq!(sim.outcomes(), [Outcome::Promoted, Outcome::Superseded]);
}

#[test]
fn a_newer_revision_while_paused_takes_traffic_off_and_waits() {
    let mut sim = Sim::new(steps());
    sim.release("v2");
    sim.run(8);
    sim.pause(true);
    sim.release("v3");
    sim.run(60);
    assert_eq!(
        (sim.phase(), sim.weight(), sim.serves()),
        (Phase::Paused, 0, "v1".into())
    );
}

#[test]
fn a_revert_is_at_once() {
    let mut sim = Sim::new(steps());
    sim.release("v2");
    sim.run(8);
    sim.release("v1");
    sim.step();
    assert_eq!(sim.weight(), 0);
    sim.run(10);
    assert_eq!((sim.phase(), sim.serves()), (Phase::Idle, "v1".into()));
}

#[test]
fn an_edit_of_the_plan_counts_from_the_next_release_or_on_replan() {
    let mut sim = Sim::new(json!([{"weight": 10, "hold": "20s"}, {"weight": 50, "hold": "5m"}]));
    sim.release("v2");
    sim.run(5);
    sim.plan(json!([{"weight": 33, "hold": "1s"}]));
    sim.run(5);
    assert_eq!(sim.weight(), 10);
    sim.say(Verb::Replan, "v2", "");
    sim.until(|sim| sim.weight() == 33, 3);
    sim.run(20);
    assert_eq!(sim.phase(), Phase::Promoted);
}

#[test]
fn deletion_gives_the_route_back() {
    for after in [1, 8, 30, 60] {
        let mut sim = Sim::new(steps());
        sim.release("v2");
        sim.run(after);
        let served = sim.serves();
        sim.delete();
        sim.run(40);
        assert!(!sim.held, "after {after}s the finalizer is still on");
        assert_eq!(sim.weight(), 0);
        assert!(
            sim.serves() == "v1" || served == "v2",
            "after {after}s: {}",
            sim.serves()
        );
    }
}

#[test]
fn a_parent_that_never_answers_is_said_and_ends_at_the_deadline() {
    let mut sim = Sim::new(json!([{"weight": 10, "hold": "5s", "deadline": "1m"}]));
    sim.accept(None);
    sim.release("v2");
    sim.run(30);
    assert!(
        sim.message().contains("no controller has answered"),
        "{}",
        sim.message()
    );
    sim.run(60);
    assert_eq!((sim.phase(), sim.weight()), (Phase::Progressing, 10));
    assert_eq!(
        sim.told()
            .iter()
            .filter(|e| **e == AlertEvent::Stalled)
            .count(),
        1
    );

    let mut sim =
        Sim::new(json!([{"weight": 10, "hold": "5s", "deadline": "1m", "onDeadline": "RollBack"}]));
    sim.accept(None);
    sim.release("v2");
    sim.run(120);
    assert_eq!(sim.phase(), Phase::RolledBack, "{}", sim.message());
}

#[test]
fn a_parent_that_refuses_ends_in_a_rollback() {
    let mut sim = Sim::new(steps());
    sim.accept(Some(
        "Gateway gw says ResolvedRefs, BackendNotFound: no such service",
    ));
    sim.release("v2");
    sim.run(60);
    assert_eq!(
        (sim.phase(), sim.weight()),
        (Phase::RolledBack, 0),
        "{}",
        sim.message()
    );
    assert!(
        sim.message().contains("BackendNotFound"),
        "{}",
        sim.message()
    );
}

#[test]
fn a_route_that_cannot_be_written_is_said_and_the_deadline_holds() {
    let mut sim = Sim::new(
        json!([{"weight": 10, "hold": "5s", "deadline": "30s", "onDeadline": "RollBack"}]),
    );
    sim.refuse_writes(Some("routes are frozen"));
    sim.release("v2");
    sim.run(10);
    let told = "HTTPRoute shop could not be written: routes are frozen";
    assert!(sim.message().contains(told), "{}", sim.message());
    assert!(
        sim.urgent_writes <= 2,
        "{} status writes",
        sim.urgent_writes
    );
    sim.run(30);
    assert_eq!(sim.phase(), Phase::RolledBack, "{}", sim.message());
    assert!(sim.message().contains(told), "{}", sim.message());
    assert_eq!(sim.serves(), "v1");
}

#[test]
fn a_rollback_that_cannot_be_written_says_so_until_it_is() {
    let mut sim = Sim::new(steps());
    sim.errors("v2", 0.2);
    sim.release("v2");
    sim.until(|sim| sim.weight() == 10, 10);
    sim.refuse_writes(Some("routes are frozen"));
    sim.run(60);
    assert_eq!(sim.phase(), Phase::RollingBack, "{}", sim.message());
    assert!(
        sim.message().contains("failed requests"),
        "{}",
        sim.message()
    );
    assert!(
        sim.message().contains("routes are frozen"),
        "{}",
        sim.message()
    );
    sim.refuse_writes(None);
    sim.run(10);
    assert_eq!(sim.phase(), Phase::RolledBack, "{}", sim.message());
    assert!(!sim.message().contains("frozen"), "{}", sim.message());
}

#[test]
fn a_canary_that_loses_its_pods_loses_its_traffic() {
    let mut sim = Sim::new(steps());
    sim.release("v2");
    sim.run(10);
    sim.endpoints(false);
    sim.step();
    assert_eq!(sim.weight(), 0, "{}", sim.message());
    sim.run(20);
    assert_eq!(sim.phase(), Phase::RolledBack);
}

#[test]
fn a_canary_without_pods_is_waited_for() {
    let mut sim = Sim::new(steps());
    sim.endpoints(false);
    sim.release("v2");
    sim.run(30);
    assert_eq!((sim.phase(), sim.weight()), (Phase::Pending, 0));
    assert!(
        sim.message().contains("ready endpoint"),
        "{}",
        sim.message()
    );
    sim.endpoints(true);
    sim.run(120);
    assert_eq!(sim.phase(), Phase::Promoted);
}

#[test]
fn killed_at_any_moment_it_ends_the_same() {
    let mut undisturbed = Sim::new(steps());
    undisturbed.release("v2");
    undisturbed.run(120);
    for at in 0..60 {
        for lose in [false, true] {
            let mut sim = Sim::new(steps());
            sim.release("v2");
            sim.run(at);
            sim.restart(lose);
            sim.run(140);
            assert_eq!(
                sim.phase(),
                Phase::Promoted,
                "killed after {at}s: {}",
                sim.message()
            );
            assert_eq!(sim.weights(), undisturbed.weights(), "killed after {at}s");
            assert_eq!(sim.told(), undisturbed.told(), "killed after {at}s");
        }
    }
}

#[test]
fn at_rest_nothing_is_written() {
    let mut sim = Sim::new(steps());
    sim.run(5);
    let (urgent, patches) = (sim.urgent_writes, sim.patches);
    sim.run(3600);
    assert_eq!((sim.urgent_writes, sim.patches), (urgent, patches));
    assert_eq!(sim.phase(), Phase::Idle);
}

#[test]
fn a_drift_is_healed_and_does_not_start_the_clock_again() {
    let mut sim = Sim::new(json!([{"weight": 10, "hold": "30s"}]));
    sim.release("v2");
    sim.run(20);
    sim.drift();
    let took = sim.until(|sim| sim.phase() == Phase::Promoted, 60);
    assert!(took <= 20, "took {took}s more");
}
