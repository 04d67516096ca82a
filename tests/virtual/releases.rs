//! Whole releases, undisturbed.

use crate::plane::Health;
use crate::setup::Setup;
use crate::world::World;
use serde_json::json;
use std::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_good_version_is_promoted() {
    let begun = Instant::now();
    let mut world = World::new(Setup::default()).await;
    world.release("v2");
    world.until(120.0, World::at_rest).await.unwrap();
    assert_eq!(world.phase(), "Promoted");
    assert_eq!(world.serves("shop"), [("v2".to_owned(), 3)]);
    assert_eq!(world.plane().clients.failed, 0);
    println!(
        "{:.0} virtual seconds, {} calls, {} writes, in {} ms",
        world.seconds(),
        world.line.calls(),
        world.line.writes(),
        begun.elapsed().as_millis()
    );
    world.assert_right();
}

/// A release that gives way to a version that is not ready must not send it any traffic.
#[tokio::test(start_paused = true)]
async fn a_version_that_is_not_ready_waits_for_the_end_of_the_one_before() {
    let mut world = World::new(Setup::default()).await;
    world.health(
        "v3",
        Health {
            down: true,
            ..Health::default()
        },
    );
    world.release("v2");
    world
        .until(60.0, |world| world.status()["weight"] == 10)
        .await
        .unwrap();
    world.release("v3");
    world.run(30.0).await;
    assert_eq!(world.plane().clients.failed_by.get("v3"), None);
    assert_eq!(world.phase(), "Pending", "{}", world.status()["message"]);
    world.health("v3", Health::default());
    world.until(90.0, World::at_rest).await.unwrap();
    assert_eq!(world.phase(), "Promoted", "{}", world.status()["message"]);
    assert_eq!(world.plane().clients.failed, 0);
    world.assert_right();
}

/// A plan that is shortened in the middle asks for its own last step, accepted and held, before the end.
#[tokio::test(start_paused = true)]
async fn another_plan_is_no_short_cut() {
    let mut world = World::new(Setup::default()).await;
    world.release("v2");
    world
        .until(60.0, |world| world.status()["weight"] == 10)
        .await
        .unwrap();
    world.plan(json!([{"weight": 5, "hold": "20s"}]));
    world.say("replan", "v2", "");
    world.run(15.0).await;
    assert_eq!(world.status()["weight"], 5, "{}", world.status()["message"]);
    world.until(60.0, World::at_rest).await.unwrap();
    assert_eq!(world.phase(), "Promoted");
    world.assert_right();
}

/// A value of one's own: held while there is none, taken back when it is beyond its limit.
#[tokio::test(start_paused = true)]
async fn a_metric_of_ones_own() {
    let query = "max(queue_depth)";
    let setup = Setup {
        analysis: json!({"metrics": [{"name": "queue", "query": query, "max": "100"}], "interval": "2s"}),
        ..Setup::default()
    };
    let mut world = World::new(setup).await;
    world.release("v2");
    world.run(60.0).await;
    assert_eq!(
        world.status()["weight"],
        10,
        "{}",
        world.status()["message"]
    );
    world.prometheus.gauge(query, 20.0);
    world
        .until(60.0, |world| world.status()["weight"] == 50)
        .await
        .unwrap();
    world.prometheus.gauge(query, 120.0);
    world.until(60.0, World::at_rest).await.unwrap();
    assert_eq!(world.phase(), "RolledBack", "{}", world.status()["message"]);
    world.assert_right();
}
