//! What is queued, in flight and settled. Pure: the time is an argument.
//!
//! Each Canary has a ledger, and in it a lane for each provider. A lane has at most one alert in
//! flight, its first, so that a receiver sees a Canary's alerts in the outbox's order.

use super::payload::Origin;
use super::retry::Pace;
use crate::api::Alert;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Whether a whole outbox was taken.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posted {
    /// Everything is queued, in flight or settled, or will be posted again when some of it is settled.
    Taken,
    /// Too many Canaries have alerts outstanding: post again in a while. Nothing is lost, since status holds it.
    Later,
}

/// How an alert has left the queue, until its Canary's outbox has let go of it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Settled {
    Delivered,
    Abandoned,
}

/// What currently fails for a Canary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub provider: String,
    /// It names objects, keys and the host, and holds no time and no count, so that it stays the same while the fault does.
    pub sentence: String,
}

/// Counts since the start, and of now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    pub delivered: u64,
    pub abandoned: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Alerts that wait or are in flight now.
    pub queued: u64,
}

/// One attempt to make.
#[derive(Debug, Clone)]
pub struct Job {
    pub origin: Origin,
    pub alert: Arc<Alert>,
}

/// An attempt that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub sentence: String,
    pub retry_after: Option<Duration>,
}

/// What an attempt has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upshot {
    Delivered,
    /// It failed as it did before.
    FailedAgain,
    /// It failed in a new way.
    FailedAnew,
    /// It failed for too long.
    Abandoned,
}

#[derive(Debug)]
pub struct Desk {
    pace: Pace,
    ledgers: BTreeMap<String, Ledger>,
    flying: BTreeMap<String, usize>,
    tally: Tally,
    /// How often everything was put down.
    fresh_starts: u64,
}

#[derive(Debug)]
struct Ledger {
    origin: Origin,
    lanes: BTreeMap<String, Lane>,
    settled: BTreeMap<String, Settled>,
    /// The Canary is gone, and with it the outbox.
    orphan: bool,
}

#[derive(Debug)]
struct Lane {
    waiting: VecDeque<Queued>,
    in_flight: bool,
    /// Not to be tried before.
    due: Instant,
    failures: u32,
    failing_since: Option<Instant>,
    trouble: Option<String>,
}

#[derive(Debug)]
struct Queued {
    alert: Arc<Alert>,
    since: Instant,
    /// The outbox let go of it while it was in flight.
    withdrawn: bool,
}

impl Desk {
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            ledgers: BTreeMap::new(),
            flying: BTreeMap::new(),
            tally: Tally::default(),
            fresh_starts: 0,
        }
    }

    /// Puts everything down: outboxes are posted anew by whoever goes on.
    pub fn start_afresh(&mut self) {
        self.ledgers.clear();
        self.flying.clear();
        self.fresh_starts += 1;
    }

    /// Grows by one with each [`Self::start_afresh`]; what is in flight from before is to be called off.
    pub fn fresh_starts(&self) -> u64 {
        self.fresh_starts
    }

    /// Takes over an outbox as it stands in status now.
    pub fn post(&mut self, origin: &Origin, outbox: &[Alert], now: Instant) -> Posted {
        let full = self.ledgers.len() >= self.pace.canaries;
        if !self.ledgers.contains_key(&origin.uid) {
            if outbox.is_empty() {
                return Posted::Taken;
            }
            if full {
                return Posted::Later;
            }
        }
        let ledger = self
            .ledgers
            .entry(origin.uid.clone())
            .or_insert_with(|| Ledger {
                origin: origin.clone(),
                lanes: BTreeMap::new(),
                settled: BTreeMap::new(),
                orphan: false,
            });
        ledger.orphan = false;
        ledger.keep_only(outbox);
        let mut room = self.pace.alerts.saturating_sub(ledger.len());
        for alert in outbox {
            if room == 0 {
                break;
            }
            if !ledger.settled.contains_key(&alert.id) && ledger.queue(alert, now) {
                room -= 1;
            }
        }
        self.sweep(&origin.uid);
        Posted::Taken
    }

    /// The Canary is gone: what is queued is still tried, for a shorter time, and nothing is kept after that.
    pub fn forget(&mut self, uid: &str) {
        if let Some(ledger) = self.ledgers.get_mut(uid) {
            ledger.orphan = true;
            ledger.settled.clear();
        }
        self.sweep(uid);
    }

    /// The attempts to make now, each of which must be reported. Longest due first, within the bounds.
    pub fn take(&mut self, now: Instant) -> Vec<Job> {
        let mut due: Vec<_> = self
            .idle()
            .filter(|(_, _, lane)| lane.due <= now)
            .map(|(uid, provider, lane)| (lane.due, uid.to_owned(), provider.to_owned()))
            .collect();
        due.sort();
        let mut jobs = Vec::new();
        for (_, uid, provider) in due {
            if !self.has_slot() {
                break;
            }
            let Some(ledger) = self.ledgers.get_mut(&uid) else {
                continue;
            };
            let flying = self
                .flying
                .entry(ledger.origin.namespace.clone())
                .or_default();
            if *flying >= self.pace.at_once_per_namespace {
                continue;
            }
            let Some(lane) = ledger.lanes.get_mut(&provider) else {
                continue;
            };
            let Some(first) = lane.waiting.front() else {
                continue;
            };
            lane.in_flight = true;
            *flying += 1;
            jobs.push(Job {
                origin: ledger.origin.clone(),
                alert: first.alert.clone(),
            });
        }
        jobs
    }

    /// When [`Self::take`] next has something to give, unless a post or a report comes first.
    pub fn wake(&self) -> Option<Instant> {
        if !self.has_slot() {
            return None;
        }
        self.idle().map(|(_, _, lane)| lane.due).min()
    }

    /// How an attempt went.
    pub fn report(&mut self, job: &Job, outcome: Result<(), Failure>, now: Instant) -> Upshot {
        let Job { origin, alert } = job;
        if let Some(flying) = self.flying.get_mut(&origin.namespace) {
            *flying = flying.saturating_sub(1);
            if *flying == 0 {
                self.flying.remove(&origin.namespace);
            }
        }
        let upshot = match self.ledgers.get_mut(&origin.uid) {
            Some(ledger) => ledger.report(alert, outcome, now, &self.pace),
            // A ledger outlives its attempts, so this does not happen; it would change nothing.
            None => outcome.map_or(Upshot::FailedAgain, |()| Upshot::Delivered),
        };
        match upshot {
            Upshot::Delivered => self.tally.delivered += 1,
            Upshot::FailedAgain | Upshot::FailedAnew => self.tally.failed += 1,
            Upshot::Abandoned => {
                self.tally.failed += 1;
                self.tally.abandoned += 1;
            }
        }
        self.sweep(&origin.uid);
        upshot
    }

    pub fn delivered(&self, uid: &str) -> Vec<String> {
        self.settled(uid, Settled::Delivered)
    }

    pub fn abandoned(&self, uid: &str) -> Vec<String> {
        self.settled(uid, Settled::Abandoned)
    }

    pub fn trouble(&self, uid: &str) -> Vec<Trouble> {
        let lanes = self.ledgers.get(uid).into_iter().flat_map(|l| &l.lanes);
        lanes
            .filter_map(|(provider, lane)| {
                Some(Trouble {
                    provider: provider.clone(),
                    sentence: lane.trouble.clone()?,
                })
            })
            .collect()
    }

    pub fn tally(&self) -> Tally {
        let lanes = self.ledgers.values().flat_map(|l| l.lanes.values());
        Tally {
            queued: lanes.map(|lane| lane.waiting.len() as u64).sum(),
            ..self.tally
        }
    }

    fn has_slot(&self) -> bool {
        self.flying.values().sum::<usize>() < self.pace.at_once
    }

    /// Lanes whose first alert may be tried when it is due, as far as their namespace is concerned.
    fn idle(&self) -> impl Iterator<Item = (&str, &str, &Lane)> {
        self.ledgers
            .iter()
            .filter(|(_, ledger)| {
                let flying = self.flying.get(&ledger.origin.namespace);
                flying.copied().unwrap_or_default() < self.pace.at_once_per_namespace
            })
            .flat_map(|(uid, ledger)| {
                let lanes = ledger.lanes.iter();
                lanes.map(move |(provider, lane)| (uid.as_str(), provider.as_str(), lane))
            })
            .filter(|(_, _, lane)| !lane.in_flight && !lane.waiting.is_empty())
    }

    fn settled(&self, uid: &str, how: Settled) -> Vec<String> {
        let settled = self.ledgers.get(uid).into_iter().flat_map(|l| &l.settled);
        settled
            .filter(|(_, settled)| **settled == how)
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn sweep(&mut self, uid: &str) {
        if let Some(ledger) = self.ledgers.get_mut(uid) {
            ledger.lanes.retain(|_, lane| !lane.waiting.is_empty());
            if ledger.len() == 0 {
                self.ledgers.remove(uid);
            }
        }
    }
}

impl Ledger {
    fn len(&self) -> usize {
        let waiting: usize = self.lanes.values().map(|lane| lane.waiting.len()).sum();
        waiting + self.settled.len()
    }

    /// Lets go of what the outbox no longer holds.
    fn keep_only(&mut self, outbox: &[Alert]) {
        let held = |id: &str| outbox.iter().any(|alert| alert.id == id);
        self.settled.retain(|id, _| held(id));
        for lane in self.lanes.values_mut() {
            if let (true, Some(first)) = (lane.in_flight, lane.waiting.front_mut()) {
                first.withdrawn = !held(&first.alert.id);
            }
            lane.waiting
                .retain(|queued| queued.withdrawn || held(&queued.alert.id));
        }
    }

    /// Whether the alert was new.
    fn queue(&mut self, alert: &Alert, now: Instant) -> bool {
        let lane = self
            .lanes
            .entry(alert.provider.clone())
            .or_insert_with(|| Lane {
                waiting: VecDeque::new(),
                in_flight: false,
                due: now,
                failures: 0,
                failing_since: None,
                trouble: None,
            });
        let known = lane
            .waiting
            .iter()
            .any(|queued| queued.alert.id == alert.id);
        if !known {
            lane.waiting.push_back(Queued {
                alert: Arc::new(alert.clone()),
                since: now,
                withdrawn: false,
            });
        }
        !known
    }

    fn report(
        &mut self,
        alert: &Alert,
        outcome: Result<(), Failure>,
        now: Instant,
        pace: &Pace,
    ) -> Upshot {
        let seed = format!("{}/{}", self.origin.uid, alert.provider);
        let give_up = match self.orphan {
            true => pace.give_up_orphan,
            false => pace.give_up,
        };
        let failed = |again| match again {
            true => Upshot::FailedAgain,
            false => Upshot::FailedAnew,
        };
        let Some(lane) = self.lanes.get_mut(&alert.provider) else {
            return outcome.map_or(Upshot::FailedAgain, |()| Upshot::Delivered);
        };
        lane.in_flight = false;
        let upshot = match outcome {
            Ok(()) => {
                lane.due = now;
                lane.failures = 0;
                lane.failing_since = None;
                lane.trouble = None;
                Upshot::Delivered
            }
            Err(Failure {
                sentence,
                retry_after,
            }) => {
                lane.failures = lane.failures.saturating_add(1);
                lane.due = now + pace.wait(lane.failures, retry_after, &seed);
                let again = lane.trouble.as_ref() == Some(&sentence);
                lane.trouble = Some(sentence);
                let failing = *lane.failing_since.get_or_insert(now);
                match lane.waiting.front() {
                    // Each alert has its time, but those behind one that was given up need not
                    // wait for it all over again.
                    Some(first) if now - first.since.max(failing) >= give_up => Upshot::Abandoned,
                    _ => failed(again),
                }
            }
        };
        let withdrawn = lane.waiting.front().is_some_and(|first| first.withdrawn);
        let settled = match upshot {
            Upshot::Delivered => Some(Settled::Delivered),
            Upshot::Abandoned => Some(Settled::Abandoned),
            Upshot::FailedAgain | Upshot::FailedAnew => None,
        };
        if withdrawn || settled.is_some() {
            lane.waiting.pop_front();
        }
        if let (Some(settled), false, false) = (settled, withdrawn, self.orphan) {
            self.settled.insert(alert.id.clone(), settled);
        }
        upshot
    }
}
