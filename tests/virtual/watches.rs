//! Watches that are late, cut, doubled or expired, a cache that is behind, and clocks that jump: none leads to a
//! wrong weight, and each scenario ends as it does undisturbed.

use crate::plane::Health;
use crate::prometheus::State;
use crate::scenario::{Scenario, in_virtual_time, undisturbed};
use crate::setup::Setup;
use crate::world::World;
use chrono::TimeDelta;
use std::time::Duration;

const ALL: [Scenario; 8] = [
    Scenario::Promotion,
    Scenario::Rollback,
    Scenario::Abort,
    Scenario::Deletion,
    Scenario::Supersession,
    Scenario::Approval,
    Scenario::Revert,
    Scenario::Pause,
];

/// Plays every scenario in a world that `prepare` has made worse, with `now_and_then` done every two seconds.
fn each(prepare: impl Fn(&World), now_and_then: impl Fn(&World) + Clone + Send + 'static) {
    let mut failures = Vec::new();
    for scenario in ALL {
        let (expected, ..) = undisturbed(scenario);
        let result = in_virtual_time(async {
            let mut world = World::new(scenario.setup()).await;
            prepare(&world);
            world.every_two_seconds(now_and_then.clone());
            let end = scenario.play(&mut world).await;
            let wrong = world.wrong();
            if !wrong.is_empty() {
                return Err(format!("{}\n{}", wrong.join("\n"), world.tail(30)));
            }
            let end = end?.without_words();
            if end != expected.without_words() {
                return Err(format!(
                    "ends as {end:?}\n and not {expected:?}\n{}",
                    world.tail(60)
                ));
            }
            Ok(())
        });
        if let Err(why) = result {
            failures.push(format!("{scenario:?}: {why}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn late(world: &World, by: Duration) {
    world.api.watching.lock().unwrap().late = by;
    world.checker.lock().unwrap().late = by * 2;
}

#[test]
fn a_cache_that_is_ten_seconds_behind() {
    each(|world| late(world, Duration::from_secs(10)), |_| {});
}

#[test]
fn watches_that_are_cut_every_two_seconds() {
    each(
        |_| {},
        |world| {
            world.checker.lock().unwrap().trouble();
            world.api.watching.lock().unwrap().cut();
        },
    );
}

#[test]
fn events_that_are_told_twice() {
    each(
        |world| world.api.watching.lock().unwrap().doubled = true,
        |_| {},
    );
}

#[test]
fn a_history_that_expires_every_two_seconds() {
    each(
        |_| {},
        |world| {
            world.checker.lock().unwrap().trouble();
            world.api.store().expire();
        },
    );
}

#[test]
fn late_and_twice_and_cut() {
    each(
        |world| {
            late(world, Duration::from_secs(3));
            world.api.watching.lock().unwrap().doubled = true;
        },
        |world| {
            world.checker.lock().unwrap().trouble();
            world.api.watching.lock().unwrap().cut();
        },
    );
}

/// A cache that is behind while someone writes the object again and again: no write waits for a moment of quiet.
#[tokio::test(start_paused = true)]
async fn edits_that_never_stop() {
    let mut world = World::new(Setup::default()).await;
    world.release("v2");
    world
        .until(60.0, |world| world.status()["weight"] == 10)
        .await
        .unwrap();
    late(&world, Duration::from_secs(10));
    world.every_two_seconds(|world| {
        let now = world.seconds();
        world.edit("canaries", "shop", |canary| {
            canary["metadata"]["labels"]["edited"] = serde_json::json!(format!("{now}"));
        });
    });
    world.run(4.0).await;
    world.say("abort", "v2", "");
    world.run(12.0).await;
    assert_eq!(world.serves("shop"), [("v1".to_owned(), 3)]);
    world.assert_right();
}

/// The clock jumps in the middle of a release, and what fails is found all the same.
async fn harm_is_found_after_a_jump(by: TimeDelta) {
    let mut world = World::new(Setup::default()).await;
    world.release("v2");
    world
        .until(60.0, |world| world.status()["weight"] == 10)
        .await
        .unwrap();
    world.run(4.0).await;
    world.jump(by);
    world.errors("v2", 0.3);
    world
        .until(60.0, |world| world.phase() == "RolledBack")
        .await
        .unwrap();
    world.assert_right();
}

#[tokio::test(start_paused = true)]
async fn harm_is_found_after_the_clock_has_jumped_ahead() {
    harm_is_found_after_a_jump(TimeDelta::hours(1)).await;
}

#[tokio::test(start_paused = true)]
async fn harm_is_found_after_the_clock_has_jumped_back() {
    harm_is_found_after_a_jump(TimeDelta::hours(-1)).await;
}

/// A release that was begun before the clock was put right ends all the same.
#[tokio::test(start_paused = true)]
async fn a_release_goes_on_after_the_clock_has_jumped_back() {
    let mut world = World::new(Setup::default()).await;
    world.release("v2");
    world
        .until(60.0, |world| world.status()["weight"] == 10)
        .await
        .unwrap();
    world.jump(TimeDelta::minutes(-10));
    world.until(120.0, World::at_rest).await.unwrap();
    assert_eq!(world.phase(), "Promoted");
    world.assert_right();
}

#[tokio::test(start_paused = true)]
async fn prometheus_that_is_down_empty_or_odd_holds_the_weight() {
    for state in [State::Down, State::Hangs, State::Empty, State::NaN] {
        let mut world = World::new(Setup::default()).await;
        world.release("v2");
        world
            .until(60.0, |world| world.status()["weight"] == 10)
            .await
            .unwrap();
        world.prometheus.set(state);
        world.run(90.0).await;
        assert_eq!(world.status()["weight"], 10, "{state:?}");
        world.prometheus.set(State::Up);
        world.until(120.0, World::at_rest).await.unwrap();
        assert_eq!(world.phase(), "Promoted", "{state:?}");
        world.assert_right();
    }
}

/// Prometheus hangs, and a person's word counts at once.
#[tokio::test(start_paused = true)]
async fn an_abort_does_not_wait_for_prometheus() {
    let mut world = World::new(Setup::default()).await;
    world.release("v2");
    world
        .until(60.0, |world| world.status()["weight"] == 10)
        .await
        .unwrap();
    world.run(4.0).await;
    world.prometheus.set(State::Hangs);
    world.run(3.0).await;
    world.say("abort", "v2", "");
    world.run(0.5).await;
    assert_eq!(world.serves("shop"), [("v1".to_owned(), 3)]);
    world.until(60.0, World::at_rest).await.unwrap();
    world.assert_right();
}

#[tokio::test(start_paused = true)]
async fn a_plane_that_says_nothing_holds_the_weight() {
    let mut world = World::new(Setup::default()).await;
    world.release("v2");
    world
        .until(60.0, |world| world.status()["weight"] == 10)
        .await
        .unwrap();
    world.plane().silent = true;
    world.run(90.0).await;
    let weight = world.status()["weight"].as_i64();
    assert!(weight <= Some(50), "{weight:?}");
    world.plane().silent = false;
    world.until(120.0, World::at_rest).await.unwrap();
    world.assert_right();
}

#[tokio::test(start_paused = true)]
async fn a_version_without_endpoints_loses_its_traffic_at_once() {
    let mut world = World::new(Setup::default()).await;
    world.release("v2");
    world
        .until(60.0, |world| world.status()["weight"] == 10)
        .await
        .unwrap();
    world.run(4.0).await;
    let down = Health {
        down: true,
        ..Health::default()
    };
    world.health("v2", down);
    world.run(1.0).await;
    assert_eq!(world.serves("shop"), [("v1".to_owned(), 3)]);
    world.until(60.0, World::at_rest).await.unwrap();
    assert_eq!(world.phase(), "RolledBack");
    world.assert_right();
}

/// Nothing is written at rest, nor asked, in ten minutes; nor by a fresh process.
#[tokio::test(start_paused = true)]
async fn at_rest_nothing_is_written() {
    let mut world = World::new(Setup::default()).await;
    world.release("v2");
    world.until(120.0, World::at_rest).await.unwrap();
    world.run(30.0).await;
    let (writes, queries) = (world.line.writes(), world.prometheus.queries());
    let calls = world.line.calls();
    world.run(600.0).await;
    let renewed = 2 * 6;
    assert!(world.line.calls() <= calls + renewed, "{}", world.tail(20));
    world.kill();
    world.run(120.0).await;
    assert_eq!(world.line.writes(), writes, "{}", world.tail(20));
    assert_eq!(world.prometheus.queries(), queries);
    world.assert_right();
}
