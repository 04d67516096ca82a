//! What happens in a random history: what people do, and what goes wrong.

use crate::dice::Dice;
use crate::plane::Health;
use crate::prometheus::State;
use crate::setup::{Setup, VERSIONS};
use crate::wire::Fault;
use crate::world::World;
use chrono::TimeDelta;
use serde_json::{Value, json};
use std::time::Duration;

/// What may happen in a history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Versions fail, hang, and lose their endpoints.
    pub sick: bool,
    /// Requests fail, watches are late, the operator is killed.
    pub stormy: bool,
    /// Other managers change routes.
    pub shared: bool,
    /// The clock jumps.
    pub jumpy: bool,
}

impl Weather {
    pub fn of(dice: &mut Dice) -> Self {
        Self {
            sick: dice.chance(50),
            stormy: dice.chance(60),
            shared: dice.chance(35),
            jumpy: dice.chance(10),
        }
    }
}

pub fn steps(dice: &mut Dice) -> Value {
    let mut weight = 0;
    let mut steps = Vec::new();
    if dice.chance(40) {
        let headers = json!([{"name": "x-canary", "value": "true"}]);
        steps.push(json!({"headers": headers, "hold": "2s"}));
    }
    for _ in 0..=dice.below(3) {
        weight = (weight + dice.pick(&[1, 5, 10, 20, 33, 50])).min(100);
        let mut step = json!({"weight": weight, "hold": dice.pick(&["0s", "1s", "3s", "5s"])});
        if dice.chance(15) {
            step["approval"] = json!(true);
        }
        if dice.chance(15) {
            step["minRequests"] = json!(20);
        }
        if dice.chance(15) {
            step["headers"] = json!([]);
        }
        steps.push(step);
    }
    json!(steps)
}

pub fn setup(dice: &mut Dice) -> Setup {
    let interval = dice.pick(&["1s", "2s", "3s"]);
    let errors = dice.pick(&[
        json!({"vsStable": {}}),
        json!({"max": "1%"}),
        json!({"max": "2%", "vsStable": {"maxRatio": "1.5"}}),
    ]);
    let routes: Vec<String> = match dice.below(4) {
        0 => vec!["shop".into(), "store".into()],
        _ => vec!["shop".into()],
    };
    Setup {
        routes,
        steps: steps(dice),
        analysis: json!({"errorRate": errors, "interval": interval}),
        weight: dice.pick(&[None, Some(1), Some(3), Some(7), Some(100)]),
        foreign: dice.chance(50),
        ..Setup::default()
    }
}

/// One thing happens; its name is for the log.
pub fn happen(world: &World, dice: &mut Dice, weather: Weather) -> String {
    let candidate = world.status()["release"]["candidate"]["name"]
        .as_str()
        .unwrap_or("v2")
        .to_owned();
    let version = dice.pick(&VERSIONS);
    match dice.below(100) {
        0..30 => {
            world.release(version);
            format!("release {version}")
        }
        30..36 => {
            let paused = dice.chance(50);
            world.pause(paused);
            format!("pause {paused}")
        }
        36..44 => {
            let step = world.status()["release"]["step"]["index"]
                .as_u64()
                .unwrap_or(0)
                + 1;
            world.say("approve", &candidate, &format!("/{step}"));
            format!("approve {candidate} {step}")
        }
        44..56 => {
            let verb = dice.pick(&["abort", "abort", "promote", "retry"]);
            let whom = if dice.chance(80) {
                &*candidate
            } else {
                version
            };
            world.say(verb, whom, "");
            format!("{verb} {whom}")
        }
        56..60 => {
            world.plan(steps(dice));
            if dice.chance(70) {
                world.say("replan", &candidate, "");
            }
            "another plan".into()
        }
        60..64 => {
            world.delete_canary();
            "delete".into()
        }
        64..72 => {
            let serves = world.serves(&world.setup.routes[0]);
            let serves = serves.first().map_or("v1", |(name, _)| name);
            let version = if dice.chance(80) { serves } else { version };
            let made = world.create_canary(version);
            format!("create with {version}: {made}")
        }
        72..80 if weather.sick => sicken(world, dice, &candidate),
        80..86 if weather.shared => meddle(world, dice),
        86..98 if weather.stormy => storm(world, dice),
        98..100 if weather.jumpy => {
            let by = TimeDelta::seconds(dice.pick(&[-3600, -30, -2, 2, 30, 3600]));
            world.jump(by);
            format!("the clock jumps by {by}")
        }
        _ => "nothing".into(),
    }
}

fn sicken(world: &World, dice: &mut Dice, candidate: &str) -> String {
    let health = match dice.below(6) {
        0 => Health {
            down: true,
            ..Health::default()
        },
        1 => Health {
            hangs: true,
            ..Health::default()
        },
        2 | 3 => Health {
            errors: dice.between(0.1, 1.0),
            ..Health::default()
        },
        _ => Health::default(),
    };
    world.health(candidate, health);
    format!("{candidate} is {health:?}")
}

/// Another manager changes a route.
fn meddle(world: &World, dice: &mut Dice) -> String {
    let route = dice.pick(&world.setup.routes);
    let original = world.setup.route_object(&route)["spec"].clone();
    let what = dice.below(5);
    world.drift(&route, |spec| match what {
        0 => *spec = original,
        1 => spec["unheardOf"] = json!({"n": 1}),
        2 => {
            let added = |rule: &Value| rule["name"].as_str().is_some_and(|n| n.starts_with("serin-"));
            spec["rules"].as_array_mut().unwrap().retain(|rule| !added(rule));
        }
        3 => {
            let rule = json!({"name": "extra", "matches": [{"path": {"type": "PathPrefix", "value": "/extra"}}],
                "backendRefs": [{"name": "menu", "port": 8080}]});
            let rules = spec["rules"].as_array_mut().unwrap();
            rules.retain(|rule| rule["name"] != "extra");
            rules.push(rule);
        }
        _ => spec["rules"][0]["timeouts"] = json!({"request": "3s"}),
    });
    format!("someone changes {route} in way {what}")
}

fn storm(world: &World, dice: &mut Dice) -> String {
    match dice.below(8) {
        0 | 1 => {
            world.kill();
            "kill".into()
        }
        2 => {
            world.api.watching.lock().unwrap().cut();
            world.checker.lock().unwrap().trouble();
            "watches are cut".into()
        }
        3 => {
            world.api.store().expire();
            world.checker.lock().unwrap().trouble();
            "the history expires".into()
        }
        4 => {
            let late = Duration::from_secs_f64(dice.between(0.0, 10.0));
            let mut watching = world.api.watching.lock().unwrap();
            watching.late = late;
            watching.doubled = dice.chance(50);
            world.checker.lock().unwrap().late = Duration::from_secs(20);
            format!("watches are late by {late:?}")
        }
        5 => {
            let state = dice.pick(&[
                State::Up,
                State::Down,
                State::Hangs,
                State::Empty,
                State::NaN,
            ]);
            world.prometheus.set(state);
            format!("Prometheus is {state:?}")
        }
        6 => {
            let mut plane = world.plane();
            plane.silent = dice.chance(50);
            if dice.chance(30) {
                plane.restart();
            }
            format!("the plane is silent: {}", plane.silent)
        }
        _ => {
            let percent = dice.pick(&[5, 20, 50]);
            let mut dice = Dice::new(dice.next());
            world.line.plan(move |_, _| {
                let hit = dice.chance(percent);
                hit.then(|| fault(&mut dice))
            });
            format!("{percent} % of the calls go wrong")
        }
    }
}

fn fault(dice: &mut Dice) -> Fault {
    match dice.below(9) {
        0 => Fault::Kill {
            performed: dice.chance(50),
        },
        1 | 2 => Fault::Timeout {
            performed: dice.chance(50),
        },
        3 => Fault::Refused,
        _ => Fault::Code(dice.pick(&[409, 422, 429, 500, 503])),
    }
}

/// Everything is put right, so that the history can come to its end.
pub fn mend(world: &World) {
    world.line.no_faults();
    world.prometheus.set(State::Up);
    world.plane().silent = false;
    let mut watching = world.api.watching.lock().unwrap();
    watching.late = Duration::ZERO;
    watching.doubled = false;
    drop(watching);
    world.pause(false);
    // Where it is not plain what serves, a Canary waits to be told.
    if world.status()["stable"].is_null()
        && let Some((serves, _)) = world.serves(&world.setup.routes[0]).first()
    {
        world.release(serves);
    }
    for version in VERSIONS {
        if world
            .plane()
            .health
            .get(version)
            .is_some_and(|health| health.down)
        {
            world.health(version, Health::default());
        }
    }
}
