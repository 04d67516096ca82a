//! Stories with a known end, to be told undisturbed, and again with a fault at every call.

use crate::setup::Setup;
use crate::world::World;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    Promotion,
    Rollback,
    Abort,
    Deletion,
    Supersession,
    Approval,
    Revert,
    Pause,
}

/// What a scenario has come to.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    pub phase: String,
    pub outcomes: Vec<(String, String)>,
    pub routes: BTreeMap<String, Value>,
    /// Event and revision of each alert.
    pub told: BTreeSet<(String, String)>,
}

/// Longest that anything may take, with faults.
const PATIENCE: f64 = 400.0;

impl Scenario {
    pub fn setup(self) -> Setup {
        let steps = match self {
            Self::Approval => json!([
                {"weight": 10, "hold": "3s"},
                {"weight": 50, "hold": "3s", "approval": true},
            ]),
            Self::Promotion => Setup::default().steps,
            _ => json!([{"weight": 20, "hold": "3s"}, {"weight": 50, "hold": "3s"}]),
        };
        Setup {
            steps,
            ..Setup::default()
        }
    }

    /// Plays it to its end; what the checker finds wrong is the world's to tell.
    pub async fn play(self, world: &mut World) -> Result<End, String> {
        let weight = |weight: i64| move |world: &World| world.status()["weight"] == weight;
        match self {
            Self::Promotion => {
                world.release("v2");
            }
            Self::Rollback => {
                world.errors("v2", 0.3);
                world.release("v2");
            }
            Self::Abort => {
                world.release("v2");
                world.until(PATIENCE, weight(20)).await?;
                world.say("abort", "v2", "");
            }
            Self::Deletion => {
                world.release("v2");
                world.until(PATIENCE, weight(50)).await?;
                world.delete_canary();
            }
            Self::Supersession => {
                world.release("v2");
                world.until(PATIENCE, weight(20)).await?;
                world.release("v3");
            }
            Self::Approval => {
                world.release("v2");
                let waits = |world: &World| world.phase() == "WaitingForApproval";
                world.until(PATIENCE, waits).await?;
                world.say("approve", "v2", "/2");
            }
            Self::Revert => {
                world.release("v2");
                world.until(PATIENCE, weight(20)).await?;
                world.release("v1");
            }
            Self::Pause => {
                world.release("v2");
                world.until(PATIENCE, weight(20)).await?;
                world.pause(true);
                world
                    .until(PATIENCE, |world| world.phase() == "Paused")
                    .await?;
                world.run(5.0).await;
                world.pause(false);
            }
        }
        world.until(PATIENCE, World::at_rest).await?;
        if self == Self::Deletion {
            // A Canary that is gone has no outbox to wait for, and its last alert is still tried for ten minutes.
            let told = |world: &World| {
                world
                    .receiver
                    .told()
                    .keys()
                    .any(|(event, _)| event == "Aborted")
            };
            world.until(PATIENCE, told).await?;
        }
        world.run(1.0).await;
        Ok(End::of(world))
    }
}

impl End {
    pub fn of(world: &World) -> Self {
        let routes = &world.setup.routes;
        Self {
            phase: world.phase(),
            outcomes: world.outcomes(),
            routes: routes
                .iter()
                .map(|name| (name.clone(), world.route(name)["spec"].clone()))
                .collect(),
            told: world.receiver.told().into_keys().collect(),
        }
    }

    /// Without the alerts that say that things take long, which they may with faults.
    pub fn without_words(&self) -> Self {
        let mut end = self.clone();
        let slow = ["Stalled", "DataLost"];
        end.told
            .retain(|(event, _)| !slow.contains(&event.as_str()));
        end
    }
}

/// Runs a future in a world of its own: one thread, and a clock that stands still while anything moves.
pub fn in_virtual_time<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(future)
}

/// Plays a scenario undisturbed: its end, how many calls had been made when it began, and how many in all.
pub fn undisturbed(scenario: Scenario) -> (End, u64, Vec<String>) {
    in_virtual_time(async {
        let mut world = World::new(scenario.setup()).await;
        let first = world.line.calls();
        let end = scenario.play(&mut world).await.unwrap();
        world.assert_right();
        let twice: Vec<_> = world
            .receiver
            .by_id()
            .into_iter()
            .filter(|(_, n)| *n > 1)
            .collect();
        assert_eq!(twice, [], "nothing is told twice without need");
        (end, first, world.line.log())
    })
}
