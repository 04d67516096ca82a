//! The operator is killed at every call that it makes, before and after the call took effect, and
//! the end is the same.

use crate::scenario::{End, Scenario, in_virtual_time, undisturbed};
use crate::wire::Fault;
use crate::world::World;
use std::time::Instant;

fn killed(scenario: Scenario, at: u64, performed: bool, undisturbed: &End) -> Result<(), String> {
    in_virtual_time(async {
        let mut world = World::new(scenario.setup()).await;
        world
            .line
            .plan(move |n, _| (n == at).then_some(Fault::Kill { performed }));
        let end = scenario.play(&mut world).await;
        let wrong = world.wrong();
        if !wrong.is_empty() {
            return Err(format!("{}\n{}", wrong.join("\n"), world.tail(30)));
        }
        let end = end.map_err(|why| format!("{why}\n{}", world.tail(30)))?;
        if end != *undisturbed {
            return Err(format!(
                "ends as {end:?}\n and not {undisturbed:?}\n{}",
                world.tail(60)
            ));
        }
        for (id, times) in world.receiver.by_id() {
            if times > 1 + usize::try_from(world.line.kills()).unwrap() {
                return Err(format!("{id} came {times} times"));
            }
        }
        Ok(())
    })
}

fn at_every_call(scenario: Scenario) {
    let begun = Instant::now();
    let (end, first, log) = undisturbed(scenario);
    let mut runs = 0;
    let mut failures = Vec::new();
    for (at, call) in (1..).zip(&log).skip(usize::try_from(first).unwrap()) {
        // Whether a read was performed makes no difference to anyone.
        let reads = call.contains(" GET ") || call.contains(" WATCH ");
        for performed in if reads { &[false][..] } else { &[false, true] } {
            runs += 1;
            if let Err(why) = killed(scenario, at, *performed, &end) {
                failures.push(format!(
                    "{scenario:?} killed at {call}, performed: {performed}: {why}"
                ));
            }
        }
    }
    println!(
        "{scenario:?}: {} calls, {runs} kills, {} ms",
        log.len() as u64 - first,
        begun.elapsed().as_millis()
    );
    assert!(
        failures.is_empty(),
        "{} of {runs}:\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

#[test]
fn promotion() {
    at_every_call(Scenario::Promotion);
}

#[test]
fn rollback() {
    at_every_call(Scenario::Rollback);
}

#[test]
fn abort() {
    at_every_call(Scenario::Abort);
}

#[test]
fn deletion() {
    at_every_call(Scenario::Deletion);
}

#[test]
fn supersession() {
    at_every_call(Scenario::Supersession);
}

#[test]
fn approval() {
    at_every_call(Scenario::Approval);
}

#[test]
fn revert() {
    at_every_call(Scenario::Revert);
}

#[test]
fn pause() {
    at_every_call(Scenario::Pause);
}
