//! The virtual world: an API server, a data plane, a Prometheus, a receiver of alerts, people, and
//! the very controller that runs in production, all under one paused clock.

use crate::api::Api;
use crate::checker::Checker;
use crate::plane::Plane;
use crate::prometheus::Prometheus;
use crate::receiver::Receiver;
use crate::setup::{Setup, furnish};
use crate::wire::{Line, Process};
use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use serde_json::Value;
use serin::alerts::Cluster;
use serin::controller::{Leadership, Surroundings, operate};
use serin::telemetry::{Health, Numbers};
use std::future::pending;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// How often the plane serves, Prometheus scrapes and the checker looks.
pub const TICK: Duration = Duration::from_millis(250);

/// From the death of one process of the operator to the next one's beginning.
const REPLACED: Duration = Duration::from_millis(700);

/// Something that is done to a world.
type Deed = Box<dyn Fn(&World) + Send>;

pub struct World {
    pub api: Api,
    pub line: Line,
    pub prometheus: Prometheus,
    pub receiver: Receiver,
    pub checker: Arc<Mutex<Checker>>,
    pub setup: Setup,
    plane: Arc<Mutex<Plane>>,
    skew: Arc<AtomicI64>,
    process: Arc<Mutex<Option<Process>>>,
    operator: JoinHandle<()>,
    begun: Instant,
    now_and_then: Option<Deed>,
    ticks: u64,
}

impl Drop for World {
    fn drop(&mut self) {
        self.operator.abort();
    }
}

impl World {
    pub async fn new(setup: Setup) -> Self {
        let begun = Instant::now();
        let skew = Arc::new(AtomicI64::new(0));
        let clock: Arc<dyn Fn() -> DateTime<Utc> + Send + Sync> = {
            let skew = skew.clone();
            let base = Utc.with_ymd_and_hms(2026, 1, 1, 0, 0, 0).unwrap();
            Arc::new(move || {
                let elapsed = i64::try_from(begun.elapsed().as_millis()).unwrap();
                base + TimeDelta::milliseconds(elapsed + skew.load(Ordering::Relaxed))
            })
        };
        let api = Api::default();
        let line = Line::default();
        let receiver = Receiver::default();
        let prometheus = Prometheus::new(clock.clone());
        let checker = Arc::new(Mutex::new(Checker::new(prometheus.clone())));
        let plane = Arc::new(Mutex::new(Plane::default()));
        api.store().observe({
            let checker = checker.clone();
            move |write| checker.lock().unwrap().see(write)
        });
        furnish(&api, &setup);
        let process = Arc::new(Mutex::new(None));
        let operator = tokio::spawn({
            let (api, line) = (api.clone(), line.clone());
            let (prometheus, receiver) = (prometheus.clone(), receiver.clone());
            let (process, checker) = (process.clone(), checker.clone());
            async move {
                loop {
                    let trouble = checker.clone();
                    let on_fault = Arc::new(move || trouble.lock().unwrap().trouble());
                    let born = Process::new(api.clone(), line.clone(), on_fault);
                    *process.lock().unwrap() = Some(born.clone());
                    let client = born.client();
                    let surroundings = Surroundings {
                        watching: born.client(),
                        client: client.clone(),
                        source: Some(Arc::new(prometheus.clone())),
                        settle: None,
                        directory: Arc::new(Cluster::new(client)),
                        wire: Arc::new(receiver.line(born.clone())),
                        clock: clock.clone(),
                        leadership: Leadership::always(),
                    };
                    let numbers = Arc::new(Numbers::default());
                    tokio::select! {
                        () = operate(surroundings, Health::default(), numbers, pending()) => {}
                        () = born.death() => {}
                    }
                    sleep(REPLACED).await;
                }
            }
        });
        let mut world = Self {
            api,
            line,
            prometheus,
            receiver,
            checker,
            setup,
            plane,
            skew,
            process,
            operator,
            begun,
            now_and_then: None,
            ticks: 0,
        };
        world.run(3.0).await;
        world
    }

    pub fn plane(&self) -> MutexGuard<'_, Plane> {
        self.plane.lock().unwrap()
    }

    pub fn kill(&self) {
        if let Some(process) = self.process.lock().unwrap().as_ref() {
            process.die();
        }
    }

    /// The operator's clock jumps.
    pub fn jump(&self, by: TimeDelta) {
        self.skew
            .fetch_add(by.num_milliseconds(), Ordering::Relaxed);
        self.checker.lock().unwrap().jumped();
    }

    pub fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Lets time pass, and says what went wrong in it as soon as it does.
    pub async fn run(&mut self, seconds: f64) {
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < until {
            self.tick().await;
        }
    }

    pub fn every_two_seconds(&mut self, act: impl Fn(&World) + Send + 'static) {
        self.now_and_then = Some(Box::new(act));
    }

    pub async fn tick(&mut self) {
        sleep(TICK).await;
        self.ticks += 1;
        if let Some(act) = self
            .now_and_then
            .as_ref()
            .filter(|_| self.ticks.is_multiple_of(8))
        {
            act(self);
        }
        let now = Instant::now();
        let (clients, health) = {
            let mut plane = self.plane();
            plane.tick(&self.api, now, TICK.as_secs_f64());
            self.prometheus.tick(&plane, now);
            (plane.clients.clone(), plane.health.clone())
        };
        let store = self.api.store();
        self.checker
            .lock()
            .unwrap()
            .tick(&store.objects, &clients, &health);
    }

    /// Runs until something holds, at most so many seconds.
    pub async fn until(&mut self, most: f64, holds: impl Fn(&Self) -> bool) -> Result<f64, String> {
        let begun = self.seconds();
        while !holds(self) {
            if self.seconds() - begun > most {
                let status = self.status();
                return Err(format!(
                    "not within {most} s: {} {}",
                    status["phase"], status["message"]
                ));
            }
            self.tick().await;
        }
        Ok(self.seconds() - begun)
    }

    /// What the checker has found so far.
    pub fn wrong(&self) -> Vec<String> {
        self.checker.lock().unwrap().wrong.clone()
    }

    #[track_caller]
    pub fn assert_right(&self) {
        let wrong = self.wrong();
        assert!(
            wrong.is_empty(),
            "{}\ncalls:\n{}",
            wrong.join("\n"),
            self.tail(40)
        );
    }

    /// The last calls of the operator.
    pub fn tail(&self, count: usize) -> String {
        let log = self.line.log();
        if std::env::var_os("SERIN_CALLS").is_some() {
            return log.join("\n");
        }
        log[log.len().saturating_sub(count)..].join("\n")
    }

    pub fn canary(&self) -> Value {
        let store = self.api.store();
        store
            .get("canaries", crate::NAMESPACE, &self.setup.canary)
            .cloned()
            .unwrap_or_default()
    }

    pub fn status(&self) -> Value {
        self.canary()["status"].clone()
    }

    pub fn phase(&self) -> String {
        self.status()["phase"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    pub fn route(&self, name: &str) -> Value {
        let store = self.api.store();
        store
            .get("httproutes", crate::NAMESPACE, name)
            .cloned()
            .unwrap_or_default()
    }

    /// Outcomes of all releases that status remembers, the oldest first.
    pub fn outcomes(&self) -> Vec<(String, String)> {
        let status = self.status();
        let history = status["history"].as_array().cloned().unwrap_or_default();
        let word = |past: &Value, field: &str| past[field].as_str().unwrap_or_default().to_owned();
        history
            .iter()
            .rev()
            .map(|past| (word(&past["backend"], "name"), word(past, "outcome")))
            .collect()
    }

    /// No release is under way, none is about to begin, and all alerts are delivered.
    pub fn at_rest(&self) -> bool {
        let canary = self.canary();
        if canary.is_null() {
            return true;
        }
        if canary["metadata"].get("deletionTimestamp").is_some() {
            return false;
        }
        let status = &canary["status"];
        let ended = status["release"].is_null() || status["release"]["stage"] == "Ended";
        let told = status["outbox"].as_array().is_none_or(Vec::is_empty);
        let observed = status["observedGeneration"] == canary["metadata"]["generation"];
        let said = canary["metadata"]["annotations"].as_object();
        let resting = ["Idle", "Promoted", "RolledBack", "Aborted"].contains(&&*self.phase());
        resting && ended && told && observed && said.is_none_or(serde_json::Map::is_empty)
    }
}
