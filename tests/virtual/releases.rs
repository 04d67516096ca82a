//! Whole releases, undisturbed.

use crate::setup::Setup;
use crate::world::World;
use std::time::Instant;

#[tokio::test(start_paused = true)]
async fn a_good_version_is_promoted() {
    let begun = Instant::now();
    let mut world = World::new(Setup::default()).await;
    world.release("v2");
    let r = world
        .until(120.0, |world| world.phase() == "Promoted")
        .await;
    println!("{}", world.line.log().join("\n"));
    println!("{}", world.status()["message"]);
    println!("{:?} {:?}", r, world.plane().clients);
    r.unwrap();
    println!(
        "{:.0} virtual seconds in {} ms",
        world.seconds(),
        begun.elapsed().as_millis()
    );
    world.run(5.0).await;
    println!("{:?}", world.receiver.received());
    world.assert_right();
}
