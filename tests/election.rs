//! The election, without a cluster: whatever delays, lost answers, stopped processes and clocks
//! that run apart, no two replicas believe at one moment that they may write.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected fails")]

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serin::controller::lease::{Action, Moment, Observed, Record, Timing, decide};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

const TIMING: fn() -> Timing = || Timing::lasting(Duration::from_secs(15));

fn s(seconds: f64) -> Moment {
    Duration::from_secs_f64(seconds)
}

fn held(version: &str, holder: &str) -> Record {
    Record {
        version: version.into(),
        holder: Some(holder.into()),
        duration: Some(s(15.0)),
    }
}

fn free(version: &str) -> Record {
    Record {
        version: version.into(),
        holder: None,
        duration: Some(s(1.0)),
    }
}

fn fresh() -> Observed {
    Observed::nothing("a", TIMING())
}

fn leader() -> Observed {
    let mut a = fresh();
    a.see(None, s(100.0));
    a.wrote(held("1", "a"), s(100.0));
    a
}

#[test]
fn a_free_lease_is_taken_at_once() {
    let mut a = fresh();
    assert_eq!(decide(&a, s(100.0)), Action::Look);
    a.see(None, s(100.0));
    assert_eq!(decide(&a, s(100.0)), Action::Acquire);
    a.see(Some(free("3")), s(100.0));
    assert_eq!(decide(&a, s(100.0)), Action::Acquire);
    a.see(Some(held("4", "a")), s(100.0));
    assert_eq!(decide(&a, s(100.0)), Action::Acquire, "it is ours already");
}

#[test]
fn anothers_lease_is_waited_for_by_ones_own_clock() {
    let mut a = fresh();
    a.see(Some(held("1", "b")), s(100.0));
    assert_eq!(decide(&a, s(101.0)), Action::Wait(s(115.0)));
    a.see(Some(held("1", "b")), s(110.0));
    assert_eq!(
        decide(&a, s(111.0)),
        Action::Wait(s(115.0)),
        "the same record"
    );
    a.see(Some(held("2", "b")), s(112.0));
    assert_eq!(
        decide(&a, s(115.0)),
        Action::Wait(s(127.0)),
        "it was renewed"
    );
    assert_eq!(decide(&a, s(127.0)), Action::Acquire);
    let promised = Record {
        duration: Some(s(60.0)),
        ..held("3", "b")
    };
    a.see(Some(promised), s(130.0));
    assert_eq!(
        decide(&a, s(150.0)),
        Action::Wait(s(190.0)),
        "the holder's promise counts"
    );
}

#[test]
fn a_leader_renews_and_stops_before_others_start() {
    let mut a = leader();
    assert_eq!(a.leads_until(), Some(s(110.0)));
    assert_eq!(decide(&a, s(101.0)), Action::Wait(s(103.0)));
    assert_eq!(decide(&a, s(103.0)), Action::Renew);
    a.failed(s(104.5));
    assert_eq!(decide(&a, s(103.5)), Action::Wait(s(104.5)));
    assert_eq!(decide(&a, s(104.5)), Action::Renew);
    a.failed(s(111.0));
    assert_eq!(
        decide(&a, s(105.0)),
        Action::Wait(s(110.0)),
        "no wait passes the end of the term"
    );
    assert_eq!(decide(&a, s(110.0)), Action::StepDown);
    assert_eq!(
        decide(&a, s(500.0)),
        Action::StepDown,
        "the process was stopped"
    );
    a.step_down();
    assert_eq!(a.leads_until(), None);
    assert_eq!(
        decide(&a, s(111.0)),
        Action::Acquire,
        "the record is ours: nobody else has it"
    );
}

#[test]
fn a_leader_that_sees_another_name_steps_down() {
    for record in [held("2", "b"), free("2")] {
        let mut a = leader();
        a.see(Some(record), s(101.0));
        assert_eq!(decide(&a, s(101.0)), Action::StepDown);
    }
}

#[test]
fn a_deleted_lease_is_put_back_by_its_leader_and_waited_for_by_others() {
    let mut a = leader();
    a.see(None, s(101.0));
    assert_eq!(decide(&a, s(101.0)), Action::Renew);
    let mut b = fresh();
    b.see(Some(held("1", "b")), s(100.0));
    b.see(None, s(105.0));
    assert_eq!(decide(&b, s(106.0)), Action::Wait(s(120.0)));
    // Nor does a conflict in between make it forget that there was one.
    b.refuted(s(106.0));
    assert_eq!(decide(&b, s(106.0)), Action::Look);
    b.see(None, s(106.0));
    assert_eq!(decide(&b, s(107.0)), Action::Wait(s(121.0)));
}

#[test]
fn a_refuted_write_leads_to_a_look_and_not_to_a_loop() {
    let mut a = leader();
    a.refuted(s(103.3));
    assert_eq!(decide(&a, s(103.0)), Action::Look);
    a.failed(s(104.0));
    assert_eq!(decide(&a, s(103.0)), Action::Wait(s(104.0)));
    a.see(Some(held("2", "a")), s(104.0));
    assert_eq!(
        decide(&a, s(104.0)),
        Action::Renew,
        "our own write, whose answer was lost"
    );
}

/// What happens to one replica, drawn at random.
#[derive(Debug, Clone)]
struct Fate {
    /// By how much its clock is ahead, and how fast it runs.
    offset: f64,
    rate: f64,
    /// For each request: to the server, and back; none when lost.
    there: Vec<Option<f64>>,
    back: Vec<Option<f64>>,
    /// How late the watch tells of each change.
    told: Vec<f64>,
    /// From when and for how long the process is stopped.
    stops: Vec<(f64, f64)>,
}

fn fate() -> impl Strategy<Value = Fate> {
    let delay = prop_oneof![
        6 => (0.0..0.3f64).prop_map(Some),
        2 => (0.0..25.0f64).prop_map(Some),
        1 => Just(None)
    ];
    let late = prop_oneof![4 => 0.0..0.5f64, 1 => 0.0..40.0f64];
    (
        0.0..1000.0f64,
        // Others wait half as long again as a leader leads: clocks may run apart by that.
        0.85..1.2f64,
        prop::collection::vec(delay.clone(), 20),
        prop::collection::vec(delay, 20),
        prop::collection::vec(late, 20),
        prop::collection::vec((0.0..200.0f64, 0.0..60.0f64), 0..4),
    )
        .prop_map(|(offset, rate, there, back, told, stops)| Fate {
            offset,
            rate,
            there,
            back,
            told,
            stops,
        })
}

impl Fate {
    fn local(&self, time: f64) -> Moment {
        s(self.offset + time * self.rate)
    }

    /// When the process next runs, from `time` on.
    fn runs(&self, time: f64) -> f64 {
        let mut time = time;
        for _ in 0..8 {
            for (from, long) in &self.stops {
                if (*from..from + long).contains(&time) {
                    time = from + long;
                }
            }
        }
        time
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// The replica looks at what to do.
    Wake,
    /// A read reaches the server.
    Read {
        request: usize,
    },
    /// A write reaches the server: it is on condition of this version (0: there is none).
    Write {
        request: usize,
        seen: u64,
        sent: Duration,
    },
    /// The answer to a request: a record, a success.
    ReadAnswer {
        request: usize,
        version: u64,
        holder: usize,
    },
    WriteAnswer {
        request: usize,
        version: u64,
        sent: Duration,
    },
    /// A request is given up.
    Patience {
        request: usize,
    },
    Told {
        version: u64,
        holder: usize,
    },
}

/// The world of an election, in milliseconds of true time.
struct Replay<'a> {
    fates: &'a [Fate],
    timing: Timing,
    replicas: Vec<Replica>,
    queue: BinaryHeap<Reverse<(u64, usize, usize, Event)>>,
    order: usize,
    version: u64,
    holder: usize,
}

struct Replica {
    observed: Observed,
    known: u64,
    requests: usize,
    waiting: Option<usize>,
    changes: usize,
}

fn name(replica: usize) -> String {
    format!("r{replica}")
}

impl<'a> Replay<'a> {
    fn new(fates: &'a [Fate]) -> Self {
        Self::with(fates, TIMING())
    }

    fn with(fates: &'a [Fate], timing: Timing) -> Self {
        let replica = |index| Replica {
            observed: Observed::nothing(name(index), timing),
            known: 0,
            requests: 0,
            waiting: None,
            changes: 0,
        };
        let mut replay = Self {
            fates,
            timing,
            replicas: (0..fates.len()).map(replica).collect(),
            queue: BinaryHeap::new(),
            order: 0,
            version: 0,
            holder: usize::MAX,
        };
        for index in 0..fates.len() {
            replay.push(0.0, index, Event::Wake);
        }
        replay
    }

    fn push(&mut self, time: f64, replica: usize, event: Event) {
        self.order += 1;
        let at = (time * 1000.0).ceil() as u64;
        self.queue.push(Reverse((at, self.order, replica, event)));
    }

    fn record(version: u64, holder: usize) -> Option<Record> {
        (version > 0).then(|| held(&version.to_string(), &name(holder)))
    }

    /// Plays until the end; returns how often somebody became the leader, or who led beside whom.
    fn play(mut self, until: f64) -> Result<usize, String> {
        let mut terms = 0;
        while let Some(Reverse((at, _, index, event))) = self.queue.pop() {
            let time = at as f64 / 1000.0;
            if time > until {
                break;
            }
            let fate = &self.fates[index];
            let server = matches!(event, Event::Read { .. } | Event::Write { .. });
            let runs = fate.runs(time);
            if !server && runs > time {
                self.push(runs + 0.001, index, event);
                continue;
            }
            let led = self.replicas[index].observed.leads_until().is_some();
            self.happen(time, index, event);
            terms += usize::from(!led && self.replicas[index].observed.leads_until().is_some());
            let leaders: Vec<_> = self
                .replicas
                .iter()
                .zip(self.fates)
                .enumerate()
                .filter(|(_, (r, fate))| {
                    r.observed
                        .leads_until()
                        .is_some_and(|until| fate.local(time) < until)
                })
                .map(|(index, _)| index)
                .collect();
            if leaders.len() > 1 {
                return Err(format!("at {time} {leaders:?} lead at once"));
            }
        }
        Ok(terms)
    }

    fn happen(&mut self, time: f64, index: usize, event: Event) {
        let fate = &self.fates[index];
        let now = fate.local(time);
        let timing = self.timing;
        match event {
            Event::Wake => return self.act(time, index),
            Event::Read { request } => {
                let (version, holder) = (self.version, self.holder);
                if let Some(back) = fate.back[request % 20] {
                    let answer = Event::ReadAnswer {
                        request,
                        version,
                        holder,
                    };
                    self.push(time + back, index, answer);
                }
                return;
            }
            Event::Write {
                request,
                seen,
                sent,
            } => {
                let done = seen == self.version;
                if done {
                    self.version += 1;
                    self.holder = index;
                    for other in 0..self.fates.len() {
                        let changes = &mut self.replicas[other].changes;
                        *changes += 1;
                        let late = self.fates[other].told[*changes % 20];
                        let told = Event::Told {
                            version: self.version,
                            holder: index,
                        };
                        self.push(time + late, other, told);
                    }
                }
                if let Some(back) = fate.back[request % 20] {
                    let version = if done { self.version } else { 0 };
                    let answer = Event::WriteAnswer {
                        request,
                        version,
                        sent,
                    };
                    self.push(time + back, index, answer);
                }
                return;
            }
            Event::ReadAnswer {
                request,
                version,
                holder,
            } => {
                if self.replicas[index].waiting != Some(request) {
                    return;
                }
                let replica = &mut self.replicas[index];
                replica.waiting = None;
                replica.known = version;
                replica.observed.see(Self::record(version, holder), now);
            }
            Event::WriteAnswer {
                request,
                version,
                sent,
            } => {
                let replica = &mut self.replicas[index];
                if replica.waiting != Some(request) {
                    return;
                }
                replica.waiting = None;
                if version == 0 {
                    replica.observed.refuted(now + timing.retry / 5);
                } else {
                    replica.known = version;
                    let record = held(&version.to_string(), &name(index));
                    replica.observed.wrote(record, sent);
                }
            }
            Event::Patience { request } => {
                let replica = &mut self.replicas[index];
                if replica.waiting != Some(request) {
                    return;
                }
                replica.waiting = None;
                replica.observed.failed(now + timing.retry);
            }
            Event::Told { version, holder } => {
                let replica = &mut self.replicas[index];
                if version < replica.known {
                    return;
                }
                replica.known = version;
                replica.observed.see(Self::record(version, holder), now);
            }
        }
        self.act(time, index);
    }

    fn act(&mut self, time: f64, index: usize) {
        let fate = &self.fates[index];
        let now = fate.local(time);
        loop {
            let replica = &mut self.replicas[index];
            if replica.waiting.is_some() {
                return;
            }
            let action = decide(&replica.observed, now);
            match action {
                Action::StepDown => replica.observed.step_down(),
                Action::Wait(at) => {
                    let rest = (at - now).as_secs_f64() / fate.rate;
                    return self.push(time + rest + 0.001, index, Event::Wake);
                }
                Action::Look | Action::Acquire | Action::Renew => {
                    replica.requests += 1;
                    let request = replica.requests;
                    replica.waiting = Some(request);
                    let event = match action {
                        Action::Look => Event::Read { request },
                        _ => Event::Write {
                            request,
                            seen: replica.known,
                            sent: now,
                        },
                    };
                    if let Some(there) = fate.there[request % 20] {
                        self.push(time + there, index, event);
                    }
                    let patience = self.timing.patience.as_secs_f64() / fate.rate;
                    return self.push(time + patience, index, Event::Patience { request });
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn never_two_leaders(fates in prop::collection::vec(fate(), 2..4)) {
        let played = Replay::new(&fates).play(300.0);
        prop_assert!(played.is_ok(), "{}", played.unwrap_err());
    }
}

/// Where nothing goes wrong, somebody leads, and one alone; stopped, the other follows within the lease.
#[test]
fn somebody_leads() {
    let calm = |offset: f64, stops: Vec<(f64, f64)>| Fate {
        offset,
        rate: 1.0,
        there: vec![Some(0.01); 20],
        back: vec![Some(0.01); 20],
        told: vec![0.02; 20],
        stops,
    };
    let fates = [calm(5.0, vec![]), calm(900.0, vec![])];
    assert_eq!(Replay::new(&fates).play(300.0), Ok(1));
    let first = [
        calm(5.0, vec![(50.0, 20.0)]),
        calm(900.0, vec![(100.0, 20.0)]),
    ];
    let second = [first[1].clone(), first[0].clone()];
    // Whoever leads first is stopped for longer than the lease: the other takes over, and then the first again.
    for fates in [first, second] {
        let terms = Replay::new(&fates).play(300.0).unwrap();
        assert!((2..=3).contains(&terms), "{terms}");
    }
}

/// The property bites: a leader that keeps its term for too long.
#[test]
fn too_long_a_term_is_caught() {
    let greedy = Timing {
        deadline: s(16.0),
        ..TIMING()
    };
    let mut runner = TestRunner::deterministic();
    let fates = prop::collection::vec(fate(), 2..4);
    let caught = runner.run(&fates, |fates| {
        let played = Replay::with(&fates, greedy).play(300.0);
        played.map(drop).map_err(TestCaseError::fail)
    });
    assert!(caught.is_err(), "nothing was caught");
}
