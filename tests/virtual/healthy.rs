//! Promotions and aborts of healthy versions, one after the other: no client sees one failed request.
//!
//! `SERIN_RELEASES=1000` makes that many.

use crate::scenario::in_virtual_time;
use crate::setup::{Setup, VERSIONS};
use crate::world::World;
use serde_json::json;
use std::time::Instant;

const RELEASES: usize = 40;

/// Releases in one world.
const IN_A_ROW: usize = 20;

/// Some releases: promoted, aborted, promoted with the operator killed in the middle. Answers requests sent.
async fn releases(count: usize) -> u64 {
    let setup = Setup {
        steps: json!([{"weight": 20, "hold": "1s"}, {"weight": 50}]),
        analysis: json!({"errorRate": {"vsStable": {}}, "interval": "1s"}),
        ..Setup::default()
    };
    let mut world = World::new(setup).await;
    let mut next = VERSIONS.into_iter().cycle().skip(1);
    let mut stable = "v1";
    for n in 0..count {
        let version = next.find(|version| *version != stable).unwrap();
        world.release(version);
        world
            .until(60.0, |world| world.status()["weight"] == 20)
            .await
            .unwrap();
        match n % 3 {
            0 => {}
            1 => {
                world.run(4.0).await;
                world.say("abort", version, "");
            }
            _ => world.kill(),
        }
        world.until(90.0, World::at_rest).await.unwrap();
        if n % 3 == 1 {
            assert_eq!(world.phase(), "Aborted");
        } else {
            assert_eq!(world.phase(), "Promoted");
            stable = version;
        }
        assert_eq!(world.serves("shop"), [(stable.to_owned(), 3)]);
    }
    world.assert_right();
    let clients = world.plane().clients.clone();
    assert_eq!(clients.failed, 0, "{:?}", clients.failed_by);
    clients.sent
}

#[test]
fn no_request_fails() {
    let begun = Instant::now();
    let wanted = std::env::var("SERIN_RELEASES").ok();
    let wanted = wanted.and_then(|n| n.parse().ok()).unwrap_or(RELEASES);
    let mut sent = 0;
    for first in (0..wanted).step_by(IN_A_ROW) {
        sent += in_virtual_time(releases(IN_A_ROW.min(wanted - first)));
    }
    println!(
        "{wanted} releases, {sent} requests, none failed, in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
}
