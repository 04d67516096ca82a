//! Random histories: what people do and what goes wrong in an order that a seed decides.
//!
//! `SERIN_HISTORIES=100000` runs more of them, `SERIN_SEED=17` one alone and tells it as it goes.

use crate::chance::{Weather, happen, mend, setup};
use crate::dice::Dice;
use crate::scenario::in_virtual_time;
use crate::setup::revision;
use crate::world::World;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

const HISTORIES: u64 = 500;

/// What a history has seen.
#[derive(Debug, Default)]
struct Seen {
    /// Releases that ended, by outcome.
    ended: BTreeMap<String, u64>,
    kills: u64,
    faults: u64,
    calls: u64,
    seconds: f64,
    requests: u64,
    /// Promotions and aborts in histories in which every version was healthy, and failed requests there.
    healthy: u64,
    healthy_failures: u64,
}

impl Seen {
    fn add(&mut self, other: Self) {
        for (outcome, count) in other.ended {
            *self.ended.entry(outcome).or_default() += count;
        }
        self.kills += other.kills;
        self.faults += other.faults;
        self.calls += other.calls;
        self.seconds += other.seconds;
        self.requests += other.requests;
        self.healthy += other.healthy;
        self.healthy_failures += other.healthy_failures;
    }
}

fn history(seed: u64, tell: bool) -> Result<Seen, String> {
    in_virtual_time(async {
        fastrand::seed(seed);
        let mut dice = Dice::new(seed);
        let weather = Weather::of(&mut dice);
        let mut world = World::new(setup(&mut dice)).await;
        world.checker.lock().unwrap().trace = tell;
        {
            let mut plane = world.plane();
            plane.accept = Duration::from_secs_f64(dice.between(0.1, 1.5));
            plane.apply = Duration::from_secs_f64(dice.between(0.3, 2.4));
        }
        let mut told = vec![format!("{weather:?} {}", world.setup.steps)];
        for _ in 0..4 + dice.below(6) {
            let what = happen(&world, &mut dice, weather);
            let line = format!("{:.2} s: {what}", world.seconds());
            if tell {
                println!("{line}");
            }
            told.push(line);
            let pause = match dice.below(4) {
                0 => dice.between(0.0, 0.5),
                1 => dice.between(0.5, 3.0),
                _ => dice.between(3.0, 15.0),
            };
            world.run(pause).await;
            if tell {
                let status = world.status();
                println!(
                    "    {} {} {}",
                    status["phase"], status["weight"], status["message"]
                );
            }
            right(&world, &told)?;
        }
        mend(&world);
        let ended = end(&mut world).await;
        right(&world, &told)?;
        ended
            .and_then(|()| at_the_end(&world))
            .map_err(|why| format!("{why}\n{}\n{}", told.join("\n"), world.tail(40)))?;
        let plane = world.plane();
        let ended = world.checker.lock().unwrap().ended.clone();
        let healthy = world.checker.lock().unwrap().blamed.is_empty();
        let count = |outcome: &str| ended.get(outcome).copied().unwrap_or(0);
        Ok(Seen {
            healthy: if healthy {
                count("Promoted") + count("Aborted")
            } else {
                0
            },
            healthy_failures: if healthy { plane.clients.failed } else { 0 },
            kills: world.line.kills(),
            faults: world.line.faults(),
            calls: world.line.calls(),
            seconds: world.seconds(),
            requests: plane.clients.sent,
            ended,
        })
    })
}

fn right(world: &World, told: &[String]) -> Result<(), String> {
    let wrong = world.wrong();
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}\n{}\n{}",
        wrong.join("\n"),
        told.join("\n"),
        world.tail(40)
    ))
}

/// Waits for rest; whoever is asked for approval gives it.
async fn end(world: &mut World) -> Result<(), String> {
    world.run(2.0).await;
    for _ in 0..40 {
        if world.until(15.0, World::at_rest).await.is_ok() {
            return Ok(());
        }
        if !world.wrong().is_empty() {
            return Ok(());
        }
        let status = world.status();
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        if conditions.any(|c| c["type"] == "Ready" && c["reason"] == "StableAmbiguous")
            && let Some((serves, _)) = world.serves(&world.setup.routes[0]).first()
        {
            // The person who is asked what serves says so.
            world.release(serves);
        }
        if status["phase"] == "WaitingForApproval" {
            let candidate = status["release"]["candidate"]["name"]
                .as_str()
                .unwrap_or_default();
            let step = status["release"]["step"]["index"].as_u64().unwrap_or(0) + 1;
            world.say("approve", candidate, &format!("/{step}"));
        }
    }
    let status = world.status();
    Err(format!(
        "no rest: {} {}",
        status["phase"], status["message"]
    ))
}

/// What is true of any history once it is over.
fn at_the_end(world: &World) -> Result<(), String> {
    let canary = world.canary();
    let status = &canary["status"];
    let times = 1 + usize::try_from(world.line.kills()).unwrap();
    for (id, count) in world.receiver.by_id() {
        if count > times {
            return Err(format!("alert {id} came {count} times in {} lives", times));
        }
    }
    let told = world.receiver.told();
    for past in status["history"].as_array().into_iter().flatten() {
        let event = match past["outcome"].as_str().unwrap_or_default() {
            "Reverted" => "Superseded",
            outcome => outcome,
        };
        let revision = past["revision"].as_str().unwrap_or_default();
        if !told.contains_key(&(event.to_owned(), revision.to_owned())) {
            return Err(format!("nobody was told of {past}"));
        }
    }
    for name in &world.setup.routes {
        let route = world.route(name);
        let text = route.to_string();
        if text.contains("serin-") {
            return Err(format!("a rule was left in {text}"));
        }
        let serves = world.serves(name);
        // What someone else's hand has put there at rest is kept.
        let touched = world.checker.lock().unwrap().meddled.contains(name);
        let [(one, _)] = &*serves else {
            return Err(format!("route {name} serves {serves:?}"));
        };
        let stable = status["stable"]["revision"].as_str();
        if !touched && stable.is_some_and(|stable| stable != revision(one)) {
            return Err(format!(
                "route {name} serves {one}, and stable is {stable:?}"
            ));
        }
        if !touched {
            whole(world, name, one, &route)?;
        }
    }
    Ok(())
}

/// A route that nobody else has touched is as it was found, but for the version's name.
fn whole(world: &World, name: &str, serves: &str, route: &Value) -> Result<(), String> {
    let mut expected = world.setup.route_object(name)["spec"].clone();
    for rule in expected["rules"].as_array_mut().unwrap() {
        for reference in rule["backendRefs"].as_array_mut().unwrap() {
            if reference["name"] == "v1" {
                reference["name"] = serves.into();
            }
        }
    }
    if route["spec"] == expected {
        return Ok(());
    }
    Err(format!(
        "route {name} is {} and should be {expected}",
        route["spec"]
    ))
}

fn run(from: u64, count: u64) {
    let begun = Instant::now();
    let next = AtomicU64::new(from);
    let all = Mutex::new(Seen::default());
    let failures = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + count || failures.lock().unwrap().len() >= 5 {
                        return;
                    }
                    match history(seed, false) {
                        Ok(seen) => all.lock().unwrap().add(seen),
                        Err(why) => failures.lock().unwrap().push((seed, why)),
                    }
                }
            });
        }
    });
    println!(
        "{count} histories from seed {from} in {:.1} s",
        begun.elapsed().as_secs_f64()
    );
    println!("{:#?}", all.lock().unwrap());
    let failures = failures.into_inner().unwrap();
    let text: Vec<String> = failures
        .iter()
        .map(|(seed, why)| format!("SERIN_SEED={seed} cargo test --test virtual histories\n{why}"))
        .collect();
    assert!(failures.is_empty(), "{}", text.join("\n\n"));
    assert_eq!(all.into_inner().unwrap().healthy_failures, 0);
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_histories() {
    if let Some(seed) = number("SERIN_SEED") {
        match history(seed, true) {
            Ok(seen) => println!("{seen:#?}"),
            Err(why) => panic!("{why}"),
        }
        return;
    }
    run(
        number("SERIN_FIRST_SEED").unwrap_or(1),
        number("SERIN_HISTORIES").unwrap_or(HISTORIES),
    );
}
