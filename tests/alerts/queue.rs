//! When alerts are tried, under a clock that stands still unless everyone waits.

use crate::support::{Shelf, alert, allow, canary};
use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::StatusCode;
use serin::alerts::{
    Answer, CallError, Courier, Egress, Letter, Origin, Pace, Posted, Refusal, Target, Wire,
};
use serin::api::Alert;
use serin::controller::lease::{Gated, Leadership, moment};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Answers by a script, then 204; takes its time.
#[derive(Default)]
struct Stub {
    script: Mutex<VecDeque<(u16, Option<u64>)>>,
    forever: Option<u16>,
    takes: Duration,
    posted: Mutex<Vec<(Instant, String, String)>>,
    /// Under way now, and at most so far.
    open: Mutex<(usize, usize)>,
}

impl Stub {
    fn times(&self) -> Vec<Instant> {
        self.posted.lock().unwrap().iter().map(|p| p.0).collect()
    }

    fn ids(&self) -> Vec<String> {
        self.posted
            .lock()
            .unwrap()
            .iter()
            .map(|p| p.1.clone())
            .collect()
    }
}

impl Wire for Stub {
    fn admit(&self, url: &str) -> Result<Target, Refusal> {
        Egress::open(allow(&[])).admit(url)
    }

    fn post(&self, letter: Letter) -> BoxFuture<'_, Result<Answer, CallError>> {
        let id = letter.headers["idempotency-key"]
            .to_str()
            .unwrap()
            .to_owned();
        let host = letter.target.host();
        async move {
            self.posted.lock().unwrap().push((Instant::now(), id, host));
            {
                let mut open = self.open.lock().unwrap();
                open.0 += 1;
                open.1 = open.1.max(open.0);
            }
            sleep(self.takes).await;
            self.open.lock().unwrap().0 -= 1;
            let next = self.script.lock().unwrap().pop_front();
            let (status, asked) = next.unwrap_or((self.forever.unwrap_or(204), None));
            assert_ne!(status, 999, "a planned panic");
            Ok(Answer {
                status: StatusCode::from_u16(status).unwrap(),
                retry_after: asked.map(Duration::from_secs),
            })
        }
        .boxed()
    }
}

struct World {
    courier: Courier,
    stub: Arc<Stub>,
    news: Arc<Mutex<Vec<Origin>>>,
}

fn world(stub: Stub, pace: Pace) -> World {
    let shelf = Shelf::with("oncall", "https://oncall.example/");
    shelf.put("chat", "https://chat.example/");
    let stub = Arc::new(stub);
    let news = Arc::new(Mutex::new(Vec::new()));
    let heard = news.clone();
    let (courier, _) = Courier::start(shelf, stub.clone(), pace, move |origin: &Origin| {
        heard.lock().unwrap().push(origin.clone());
    });
    World {
        courier,
        stub,
        news,
    }
}

fn scripted(script: &[(u16, Option<u64>)]) -> Stub {
    Stub {
        script: Mutex::new(script.iter().copied().collect()),
        ..Stub::default()
    }
}

fn take(posted: Posted) {
    assert_eq!(posted, Posted::Taken);
}

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[tokio::test(start_paused = true)]
async fn waits_grow_to_five_minutes_and_end_with_the_delivery() {
    let world = world(scripted(&[(500, None); 14]), Pace::default());
    take(world.courier.post(&canary("a"), &[alert("1", "oncall")]));
    sleep(DAY / 2).await;
    let times = world.stub.times();
    assert_eq!(times.len(), 15);
    let mut full = SECOND;
    for pair in times.windows(2) {
        let wait = pair[1] - pair[0];
        assert!(
            wait >= full / 2 && wait <= full + SECOND / 100,
            "{wait:?} of {full:?}"
        );
        full = (full * 2).min(300 * SECOND);
    }
    assert_eq!(world.courier.delivered("uid-of-a"), ["1"]);
    assert_eq!(world.courier.trouble("uid-of-a"), []);
    // Told of the first failure and of the delivery; the thirteen like the first are no news.
    assert_eq!(world.news.lock().unwrap().len(), 2);
    take(world.courier.post(&canary("a"), &[]));
    assert_eq!(world.courier.delivered("uid-of-a"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_kept_for_429_and_503_up_to_an_hour() {
    let script = [
        (429, Some(90)),
        (503, Some(999_999)),
        (500, Some(90)),
        (429, Some(0)),
    ];
    let world = world(scripted(&script), Pace::default());
    take(world.courier.post(&canary("a"), &[alert("1", "oncall")]));
    sleep(DAY / 2).await;
    let times = world.stub.times();
    let waits: Vec<_> = times.windows(2).map(|p| (p[1] - p[0]).as_secs()).collect();
    assert_eq!(waits.len(), 4);
    assert_eq!(waits[..2], [90, 3600]);
    // What a 500 asks for is not a promise of the protocol; 0 s is no licence to hammer.
    assert!(
        (2..=4).contains(&waits[2]) && (4..=8).contains(&waits[3]),
        "{waits:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn posting_again_sends_nothing_again() {
    let stub = Stub {
        takes: SECOND,
        ..Stub::default()
    };
    let world = world(stub, Pace::default());
    let outbox = [
        alert("1", "oncall"),
        alert("2", "oncall"),
        alert("3", "chat"),
    ];
    for _ in 0..50 {
        take(world.courier.post(&canary("a"), &outbox));
        sleep(SECOND / 10).await;
    }
    let mut ids = world.stub.ids();
    ids.sort();
    assert_eq!(ids, ["uid-of-a/1", "uid-of-a/2", "uid-of-a/3"]);
    assert_eq!(world.courier.delivered("uid-of-a"), ["1", "2", "3"]);
    assert_eq!(world.courier.tally().delivered, 3);
    // Status lets go of them one by one.
    take(world.courier.post(&canary("a"), &outbox[1..]));
    assert_eq!(world.courier.delivered("uid-of-a"), ["2", "3"]);
    take(world.courier.post(&canary("a"), &[]));
    sleep(60 * SECOND).await;
    assert_eq!(world.stub.ids().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn order_is_kept_in_a_lane_and_lanes_do_not_wait_for_each_other() {
    let world = world(scripted(&[(500, None), (500, None)]), Pace::default());
    let outbox: Vec<Alert> = (0..8)
        .map(|n| alert(&n.to_string(), if n % 2 == 0 { "oncall" } else { "chat" }))
        .collect();
    take(world.courier.post(&canary("a"), &outbox));
    sleep(60 * SECOND).await;
    let posted = world.stub.posted.lock().unwrap().clone();
    for (host, want) in [
        ("oncall.example", ["0", "2", "4", "6"]),
        ("chat.example", ["1", "3", "5", "7"]),
    ] {
        let mut seen: Vec<_> = posted
            .iter()
            .filter(|p| p.2 == host)
            .map(|p| p.1.trim_start_matches("uid-of-a/"))
            .collect();
        seen.dedup();
        assert_eq!(seen, want, "{host}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_day_of_failure_alerts_are_given_up() {
    let stub = Stub {
        forever: Some(500),
        ..Stub::default()
    };
    let world = world(stub, Pace::default());
    let mut outbox: Vec<_> = (0..3).map(|n| alert(&n.to_string(), "oncall")).collect();
    take(world.courier.post(&canary("a"), &outbox));
    sleep(DAY / 2).await;
    outbox.push(alert("late", "oncall"));
    take(world.courier.post(&canary("a"), &outbox));
    sleep(DAY / 2 - 600 * SECOND).await;
    assert_eq!(world.courier.abandoned("uid-of-a"), Vec::<String>::new());
    // Those that have waited a day go one after the other, each with an attempt of its own.
    sleep(1800 * SECOND).await;
    assert_eq!(world.courier.abandoned("uid-of-a"), ["0", "1", "2"]);
    assert_eq!(world.courier.delivered("uid-of-a"), Vec::<String>::new());
    assert!(world.stub.ids().contains(&"uid-of-a/2".to_owned()));
    let trouble = world.courier.trouble("uid-of-a");
    assert_eq!(
        trouble[0].sentence,
        "alerts to oncall are not delivered: oncall.example answered 500 Internal Server Error"
    );
    take(world.courier.post(&canary("a"), &outbox[3..]));
    sleep(DAY / 2).await;
    assert_eq!(world.courier.abandoned("uid-of-a"), ["late"]);
    take(world.courier.post(&canary("a"), &[]));
    assert_eq!(world.courier.tally().queued, 0);
    assert_eq!(world.courier.tally().abandoned, 4);
}

#[tokio::test(start_paused = true)]
async fn dead_receivers_of_one_namespace_leave_room_for_others() {
    let stub = Stub {
        takes: 10 * SECOND,
        ..Stub::default()
    };
    let shelf = Shelf::with("oncall", "https://oncall.example/");
    let stub = Arc::new(stub);
    let (courier, _) = Courier::start(shelf, stub.clone(), Pace::default(), |_| {});
    for n in 0..20 {
        take(courier.post(&canary(&format!("c{n}")), &[alert("1", "oncall")]));
    }
    sleep(5 * SECOND).await;
    assert_eq!(stub.ids().len(), 2, "two at once for a namespace");
    sleep(200 * SECOND).await;
    assert_eq!(courier.tally().delivered, 20);
    assert_eq!(stub.open.lock().unwrap().1, 2);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded_over_all() {
    let stub = Stub {
        takes: 10 * SECOND,
        ..Stub::default()
    };
    let pace = Pace {
        at_once_per_namespace: 100,
        ..Pace::default()
    };
    let world = world(stub, pace);
    for n in 0..20 {
        take(
            world
                .courier
                .post(&canary(&format!("c{n}")), &[alert("1", "oncall")]),
        );
    }
    sleep(60 * SECOND).await;
    assert_eq!(world.stub.open.lock().unwrap().1, 8);
    assert_eq!(world.courier.tally().delivered, 20);
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded_and_what_does_not_fit_comes_later() {
    let pace = Pace {
        canaries: 2,
        alerts: 4,
        ..Pace::default()
    };
    let world = world(Stub::default(), pace);
    let mut outbox: Vec<_> = (0..10).map(|n| alert(&format!("{n}"), "oncall")).collect();
    take(world.courier.post(&canary("a"), &outbox));
    take(world.courier.post(&canary("b"), &outbox[..1]));
    assert_eq!(world.courier.post(&canary("c"), &outbox), Posted::Later);
    assert_eq!(world.courier.tally().queued, 5);
    let mut delivered = Vec::new();
    while !outbox.is_empty() {
        sleep(SECOND).await;
        let done = world.courier.delivered("uid-of-a");
        assert!(!done.is_empty() && done.len() <= 4);
        outbox.retain(|alert| !done.contains(&alert.id));
        delivered.extend(done);
        take(world.courier.post(&canary("a"), &outbox));
    }
    let want: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    assert_eq!(delivered, want);
    take(world.courier.post(&canary("c"), &[alert("1", "oncall")]));
}

#[tokio::test(start_paused = true)]
async fn what_the_outbox_lets_go_of_is_not_sent() {
    let stub = Stub {
        takes: SECOND,
        ..scripted(&[(500, None)])
    };
    let world = world(stub, Pace::default());
    take(
        world
            .courier
            .post(&canary("a"), &[alert("1", "oncall"), alert("2", "oncall")]),
    );
    sleep(SECOND / 2).await;
    // The first is in flight, and fails after this.
    take(world.courier.post(&canary("a"), &[alert("3", "oncall")]));
    sleep(60 * SECOND).await;
    assert_eq!(world.stub.ids(), ["uid-of-a/1", "uid-of-a/3"]);
    assert_eq!(world.courier.delivered("uid-of-a"), ["3"]);
}

#[tokio::test(start_paused = true)]
async fn alerts_of_a_canary_that_is_gone_are_tried_for_ten_minutes() {
    let world = world(scripted(&[(500, None); 3]), Pace::default());
    take(world.courier.post(&canary("a"), &[alert("1", "oncall")]));
    world.courier.forget("uid-of-a");
    sleep(60 * SECOND).await;
    assert_eq!(world.courier.tally().delivered, 1);

    let dead = Stub {
        forever: Some(500),
        ..Stub::default()
    };
    let world = self::world(dead, Pace::default());
    take(world.courier.post(&canary("a"), &[alert("1", "oncall")]));
    world.courier.forget("uid-of-a");
    sleep(1200 * SECOND).await;
    assert_eq!(world.courier.tally().queued, 0);
    assert_eq!(world.courier.abandoned("uid-of-a"), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_an_attempt_stops_nothing() {
    let world = world(scripted(&[(999, None)]), Pace::default());
    take(world.courier.post(&canary("a"), &[alert("1", "oncall")]));
    sleep(SECOND / 100).await;
    let trouble = world.courier.trouble("uid-of-a");
    assert!(
        trouble[0].sentence.contains("broke down inside"),
        "{trouble:?}"
    );
    sleep(60 * SECOND).await;
    assert_eq!(world.courier.delivered("uid-of-a"), ["1"]);
}

/// As on losing the lease: nothing is sent any more, and the one who goes on sends all of it again.
#[tokio::test(start_paused = true)]
async fn started_afresh_it_calls_off_what_is_in_flight() {
    let stub = Stub {
        takes: 2 * SECOND,
        ..Stub::default()
    };
    let world = world(stub, Pace::default());
    let outbox = [alert("1", "oncall"), alert("2", "oncall")];
    take(world.courier.post(&canary("a"), &outbox));
    sleep(SECOND).await;
    world.courier.start_afresh();
    sleep(DAY).await;
    assert_eq!(world.stub.ids(), ["uid-of-a/1"]);
    assert_eq!(world.courier.delivered("uid-of-a"), Vec::<String>::new());
    assert_eq!(world.courier.tally().queued, 0);
    take(world.courier.post(&canary("a"), &outbox));
    sleep(DAY).await;
    assert_eq!(world.stub.ids(), ["uid-of-a/1", "uid-of-a/1", "uid-of-a/2"]);
    assert_eq!(world.courier.delivered("uid-of-a"), ["1", "2"]);
}

/// A replica that does not lead sends nothing, whatever is queued.
#[tokio::test(start_paused = true)]
async fn only_a_leader_posts() {
    let stub = Arc::new(Stub::default());
    let (seat, leadership) = Leadership::contested();
    let gated = Arc::new(Gated::new(stub.clone(), leadership));
    let shelf = Shelf::with("oncall", "https://oncall.example/");
    let (courier, _) = Courier::start(shelf, gated, Pace::default(), |_: &Origin| {});
    take(courier.post(&canary("a"), &[alert("1", "oncall")]));
    sleep(60 * SECOND).await;
    assert_eq!(stub.ids(), Vec::<String>::new());
    seat.lead(moment() + DAY);
    sleep(600 * SECOND).await;
    assert_eq!(stub.ids(), ["uid-of-a/1"]);
    seat.step_down();
    take(courier.post(&canary("a"), &[alert("2", "oncall")]));
    sleep(600 * SECOND).await;
    assert_eq!(stub.ids(), ["uid-of-a/1"]);
}
