//! Alerts over a real connection, to receivers of every kind.

use crate::support::{
    PLANT, Receiver, Reply, Shelf, alert, caller, canary, captured, pace, start, until,
};
use serin::alerts::{Courier, Posted};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn ids(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("uid-of-a/{n}")).collect()
}

#[tokio::test]
async fn nothing_is_lost_and_order_is_kept_whatever_the_receiver_does() {
    let elsewhere = Receiver::start([]).await;
    let receiver = Receiver::start([
        Reply::Status(400),
        Reply::Status(500),
        Reply::Hang,
        Reply::Status(200),
        Reply::Close,
        Reply::HalfHead,
        Reply::With(
            302,
            "location",
            format!("http://127.0.0.1:{}/", elsewhere.port),
        ),
        Reply::With(429, "retry-after", "0".to_owned()),
        Reply::HalfBody,
        Reply::Status(404),
        Reply::With(
            503,
            "retry-after",
            "Sun, 06 Nov 1994 08:49:37 GMT".to_owned(),
        ),
        Reply::Endless,
        Reply::Status(599),
        Reply::Status(201),
    ])
    .await;
    let shelf = Shelf::with("oncall", &receiver.url());
    let (courier, task) = start(&shelf);
    let outbox: Vec<_> = (0..6).map(|n| alert(&n.to_string(), "oncall")).collect();
    let before = Instant::now();
    assert_eq!(courier.post(&canary("a"), &outbox), Posted::Taken);
    assert!(
        before.elapsed() < Duration::from_millis(50),
        "a post never waits"
    );
    until("all are delivered", || {
        courier.delivered("uid-of-a").len() == 6
    })
    .await;
    assert_eq!(receiver.accepted(), ids(0..6), "each once, in order");
    assert_eq!(receiver.received().len(), 16);
    assert_eq!(elsewhere.connections(), 0);
    task.abort();
}

#[tokio::test]
async fn the_request_is_as_documented() {
    let receiver = Receiver::start([]).await;
    let shelf = Shelf::with("oncall", &receiver.url());
    shelf.put_provider("oncall", &[("Authorization", "token"), ("X-Team", "team")]);
    let url = format!("{}\n", receiver.url());
    let token = format!("Bearer {PLANT}\n");
    shelf.put_secret(
        "oncall",
        &[("url", &url), ("token", &token), ("team", "shop")],
    );
    let (courier, task) = start(&shelf);
    let (origin, alert) = (canary("a"), alert("7f9c/RolledBack", "oncall"));
    let _ = courier.post(&origin, std::slice::from_ref(&alert));
    until("it is delivered", || {
        !courier.delivered("uid-of-a").is_empty()
    })
    .await;
    let [request] = &receiver.received()[..] else {
        panic!("one request")
    };
    assert_eq!(request.path, format!("/hooks/{PLANT}?token={PLANT}"));
    assert_eq!(request.body, serin::alerts::payload(&origin, &alert));
    let headers = &request.headers;
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(
        headers["user-agent"],
        concat!("serin/", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(headers["idempotency-key"], "uid-of-a/7f9c/RolledBack");
    assert_eq!(headers["authorization"], format!("Bearer {PLANT}"));
    assert_eq!(headers["x-team"], "shop");
    task.abort();
}

#[tokio::test]
async fn a_crash_repeats_at_most_what_was_in_flight() {
    let receiver = Receiver::start([Reply::Status(200), Reply::Hang]).await;
    let shelf = Shelf::with("oncall", &receiver.url());
    let (first, task) = start(&shelf);
    let outbox: Vec<_> = (0..4).map(|n| alert(&n.to_string(), "oncall")).collect();
    let _ = first.post(&canary("a"), &outbox);
    until("the second is in flight", || receiver.received().len() == 2).await;
    task.abort();
    // Status had let go of the first; the second was received, but nobody here knows.
    let (second, task) = start(&shelf);
    let _ = second.post(&canary("a"), &outbox[1..]);
    until("all are delivered", || {
        second.delivered("uid-of-a").len() == 3
    })
    .await;
    let received = receiver.received();
    let seen: Vec<_> = received.iter().map(|request| request.id()).collect();
    let mut want = ids(0..4);
    want.insert(1, "uid-of-a/1".to_owned());
    assert_eq!(seen, want);
    assert_eq!(
        received[1].body, received[2].body,
        "a duplicate has the same bytes"
    );
    task.abort();
}

#[tokio::test]
async fn a_dead_provider_holds_no_other() {
    let dead = Receiver::start(vec![Reply::Hang; 1000]).await;
    let good = Receiver::start([]).await;
    let shelf = Shelf::with("dead", &dead.url());
    shelf.put("oncall", &good.url());
    let (courier, task) = start(&shelf);
    let _ = courier.post(&canary("a"), &[alert("0", "dead"), alert("1", "oncall")]);
    until("the good one has it", || {
        courier.delivered("uid-of-a") == ["1"]
    })
    .await;
    until("the trouble is told", || {
        !courier.trouble("uid-of-a").is_empty()
    })
    .await;
    let trouble = courier.trouble("uid-of-a");
    assert_eq!(trouble[0].provider, "dead");
    assert_eq!(
        trouble[0].sentence,
        "alerts to dead are not delivered: 127.0.0.1 did not answer within 1 s"
    );
    task.abort();
}

#[tokio::test]
async fn what_is_wrong_with_the_objects_is_said_and_mended_without_a_restart() {
    let receiver = Receiver::start([]).await;
    let shelf = Arc::new(Shelf::default());
    let (courier, task) = start(&shelf);
    let _ = courier.post(&canary("a"), &[alert("1", "oncall")]);
    let says = async |what: &str| {
        let want = format!("alerts to oncall are not delivered: {what}");
        let mut last = String::new();
        for _ in 0..1000 {
            match courier.trouble("uid-of-a").pop() {
                Some(trouble) if trouble.sentence == want => return,
                Some(trouble) => last = trouble.sentence,
                None => {}
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("{want:?} was not said, but {last:?}");
    };
    says("there is no AlertProvider oncall").await;
    shelf.put_provider("oncall", &[]);
    says("there is no Secret oncall").await;
    shelf.put_secret("oncall", &[("link", &receiver.url())]);
    says("Secret oncall has no key url").await;
    shelf.put_secret("oncall", &[("url", PLANT)]);
    says("the URL in key url of Secret oncall is not called: it is no URL").await;
    let url = format!("https://{PLANT}:{PLANT}@hooks.example/");
    shelf.put_secret("oncall", &[("url", &url)]);
    says("the URL in key url of Secret oncall is not called: it has a user name or password in it; send an Authorization header instead").await;
    let url = format!("http://169.254.169.254/{PLANT}");
    shelf.put_secret("oncall", &[("url", &url)]);
    says("the URL in key url of Secret oncall is not called: 169.254.169.254 is a cloud metadata address, and the operator's --allow-egress does not name it").await;
    shelf.put_provider("oncall", &[("Host", "token")]);
    let token = format!("{PLANT}\nX-Evil: 1");
    shelf.put_secret("oncall", &[("url", &receiver.url()), ("token", &token)]);
    says("AlertProvider oncall sets header Host, which is the operator's own or the connection's")
        .await;
    shelf.put_provider("oncall", &[("Authorization", "token")]);
    says("key token of Secret oncall cannot be the value of header Authorization: it has a control character or a line end in it").await;
    assert_eq!(receiver.connections(), 0);
    shelf.put_secret("oncall", &[("url", &receiver.url()), ("token", PLANT)]);
    until("it is delivered", || courier.delivered("uid-of-a") == ["1"]).await;
    assert!(courier.trouble("uid-of-a").is_empty());
    task.abort();
}

#[tokio::test]
async fn secrets_are_in_no_log_and_no_sentence() {
    captured();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = listener.local_addr().unwrap().port();
    drop(listener);
    let receiver = Receiver::start([
        Reply::Status(400),
        Reply::Status(500),
        Reply::Hang,
        Reply::Close,
        Reply::HalfHead,
        Reply::With(302, "location", format!("http://127.0.0.1/{PLANT}")),
        Reply::With(429, "retry-after", PLANT.to_owned()),
        Reply::Json(500, format!("you said {PLANT}")),
    ])
    .await;
    let shelf = Shelf::with("oncall", &receiver.url());
    shelf.put_provider("oncall", &[("Authorization", "token")]);
    shelf.put_secret("oncall", &[("url", &receiver.url()), ("token", PLANT)]);
    for (name, url) in [
        (
            "refused",
            format!("http://127.0.0.1:{nobody}/{PLANT}?{PLANT}#{PLANT}"),
        ),
        (
            "tls",
            format!("https://127.0.0.1:{}/{PLANT}", receiver.port),
        ),
        ("unknown", format!("http://nowhere.invalid/{PLANT}")),
        ("forbidden", format!("http://127.0.0.2/{PLANT}")),
        ("shape", format!("{PLANT}:{PLANT}")),
        ("text", PLANT.to_owned()),
    ] {
        shelf.put(name, &url);
    }
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let courier = Arc::new(std::sync::OnceLock::<Courier>::new());
    let (told, asked) = (heard.clone(), courier.clone());
    let (started, task) =
        Courier::start(shelf.clone(), Arc::new(caller()), pace(), move |origin| {
            if let Some(courier) = asked.get() {
                told.lock().unwrap().extend(courier.trouble(&origin.uid));
            }
        });
    courier.set(started.clone()).unwrap();
    let outbox: Vec<_> = [
        "oncall",
        "refused",
        "tls",
        "unknown",
        "forbidden",
        "shape",
        "text",
    ]
    .iter()
    .map(|provider| alert(provider, provider))
    .collect();
    let _ = started.post(&canary("a"), &outbox);
    until("the plain one is delivered", || {
        started.delivered("uid-of-a") == ["oncall"]
    })
    .await;
    until("all others are told", || {
        started.trouble("uid-of-a").len() == 6
    })
    .await;
    let said = format!(
        "{:?} {:?} {started:?}",
        heard.lock().unwrap(),
        started.trouble("uid-of-a")
    );
    assert!(!said.contains(PLANT), "{said}");
    let logged = captured();
    assert!(
        logged.contains("127.0.0.1 answered 500"),
        "the capture works"
    );
    assert!(logged.contains(" TRACE "), "down to the last word");
    for line in logged.lines() {
        assert!(!line.contains(PLANT), "{line}");
    }
    task.abort();
}
