//! Every call of every scenario goes wrong in every way, and the end is the same.
//!
//! A run lets every fourth call fail in one way, from each of the first four on, so that four runs cover
//! every call. `SERIN_FAULTS=each` lets one call alone fail in a run instead.

use crate::scenario::{End, Scenario, in_virtual_time, undisturbed};
use crate::wire::Fault;
use crate::world::World;
use std::time::Instant;

const FAULTS: [Fault; 8] = [
    Fault::Code(409),
    Fault::Code(422),
    Fault::Code(429),
    Fault::Code(500),
    Fault::Code(503),
    Fault::Timeout { performed: true },
    Fault::Timeout { performed: false },
    Fault::Refused,
];

const APART: u64 = 4;

fn faulted(
    scenario: Scenario,
    undisturbed: &End,
    fault: Fault,
    hits: impl Fn(u64) -> bool + Send + 'static,
) -> Result<(), String> {
    in_virtual_time(async {
        let mut world = World::new(scenario.setup()).await;
        world.line.plan(move |n, _| hits(n).then_some(fault));
        let end = scenario.play(&mut world).await;
        let wrong = world.wrong();
        if !wrong.is_empty() {
            return Err(format!("{}\n{}", wrong.join("\n"), world.tail(40)));
        }
        let end = end.map_err(|why| format!("{why}\n{}", world.tail(60)))?;
        let short = end.without_words();
        let expected = undisturbed.without_words();
        if short != expected {
            let tail = world.tail(60);
            return Err(format!("ends as {short:?}\n and not {expected:?}\n{tail}"));
        }
        let times = world.receiver.by_id();
        match times.iter().find(|(_, times)| **times > 1) {
            Some((id, times)) => Err(format!("{id} came {times} times\n{}", world.tail(60))),
            None => Ok(()),
        }
    })
}

fn at_every_call(scenario: Scenario) {
    let begun = Instant::now();
    let (end, first, log) = undisturbed(scenario);
    let calls = log.len() as u64 - first;
    let each = std::env::var("SERIN_FAULTS").is_ok_and(|value| value == "each");
    let mut failures = Vec::new();
    let mut runs = 0;
    for fault in FAULTS {
        for at in 1..=if each { calls } else { APART } {
            let hits = move |n: u64| {
                n > first
                    && if each {
                        n == first + at
                    } else {
                        (n - first) % APART == at % APART
                    }
            };
            runs += 1;
            if let Err(why) = faulted(scenario, &end, fault, hits) {
                failures.push(format!("{scenario:?}, {fault:?} from call {at} on: {why}"));
            }
        }
    }
    println!(
        "{scenario:?}: {calls} calls, {runs} runs, {} ms",
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
