//! A name that means one thing when it is checked and another when it is called.

use crate::support::{Names, Receiver, Reply, allow, captured, limits};
use reqwest::header::HeaderMap;
use serin::alerts::{CallError, Caller, Egress, Letter, Limits, Refusal, Wire};
use std::sync::atomic::Ordering;
use std::time::Duration;

async fn post(caller: &Caller, url: &str) -> Result<u16, CallError> {
    captured();
    let letter = Letter {
        target: caller.admit(url).unwrap(),
        headers: HeaderMap::new(),
        body: b"{}".to_vec(),
    };
    Ok(caller.post(letter).await?.status.as_u16())
}

#[tokio::test]
async fn the_address_that_was_checked_is_the_one_that_is_called() {
    let receiver = Receiver::start([]).await;
    // TEST-NET-3, where nobody answers: the first answer is admitted, and is what is connected to.
    let names = Names::answering(&[&["203.0.113.7"], &["127.0.0.1"]]);
    let caller = Caller::with_lookup(Egress::open(vec![]), limits(), names.clone()).unwrap();
    let url = format!("http://rebind.example:{}/", receiver.port);
    post(&caller, &url).await.unwrap_err();
    assert_eq!(
        names.questions.load(Ordering::SeqCst),
        1,
        "one question a call"
    );
    let refused = post(&caller, &url).await.unwrap_err();
    assert_eq!(
        refused,
        CallError::Refused(Refusal::Resolved {
            host: "rebind.example".to_owned(),
            address: "127.0.0.1".parse().unwrap(),
            what: "a loopback address",
        })
    );
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_forbidden_address_among_others_is_passed_over() {
    let receiver = Receiver::start([]).await;
    let names = Names::answering(&[&["127.0.0.1", "203.0.113.7", "::1"]]);
    let caller = Caller::with_lookup(Egress::open(vec![]), limits(), names).unwrap();
    let url = format!("http://mixed.example:{}/", receiver.port);
    post(&caller, &url).await.unwrap_err();
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn a_listed_name_may_mean_anything_on_its_port_alone() {
    let receiver = Receiver::start([]).await;
    let other = Receiver::start([]).await;
    let names = Names::answering(&[&["127.0.0.1"]]);
    let entry = format!("hooks.example:{}", receiver.port);
    let egress = Egress::open(allow(&[&entry]));
    let caller = Caller::with_lookup(egress, limits(), names).unwrap();
    let url = |port| format!("http://hooks.example:{port}/");
    assert_eq!(post(&caller, &url(receiver.port)).await, Ok(204));
    // The same name again, after a good call, on another port: no connection and no trust is left over.
    let refused = post(&caller, &url(other.port)).await.unwrap_err();
    assert_eq!(refused.reason(), "AddressRefused");
    assert_eq!((receiver.connections(), other.connections()), (1, 0));
}

#[tokio::test]
async fn each_call_asks_and_connects_anew() {
    let receiver = Receiver::start([]).await;
    let names = Names::answering(&[&["127.0.0.1"]]);
    let egress = Egress::open(allow(&["127.0.0.1"]));
    let caller = Caller::with_lookup(egress, limits(), names.clone()).unwrap();
    for _ in 0..3 {
        let url = format!("http://hooks.example:{}/", receiver.port);
        assert_eq!(post(&caller, &url).await, Ok(204));
    }
    assert_eq!(names.questions.load(Ordering::SeqCst), 3);
    assert_eq!(receiver.connections(), 3);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let inner = Receiver::start([]).await;
    let to = format!("http://127.0.0.1:{}/", inner.port);
    for code in [301, 302, 303, 307, 308] {
        let receiver = Receiver::start([Reply::With(code, "location", to.clone())]).await;
        let entry = format!("127.0.0.1:{}", receiver.port);
        let caller = Caller::new(Egress::open(allow(&[&entry])), limits()).unwrap();
        assert_eq!(post(&caller, &receiver.url()).await, Ok(code));
    }
    assert_eq!(inner.connections(), 0);
}

#[tokio::test]
async fn a_target_admitted_by_others_rules_is_judged_again() {
    let receiver = Receiver::start([]).await;
    // As if the text had been admitted before the rules changed.
    let lax = Egress::open(allow(&[&format!("127.0.0.1:{}", receiver.port)]));
    let strict = Caller::new(Egress::open(vec![]), limits()).unwrap();
    let letter = Letter {
        target: lax.admit(&receiver.url()).unwrap(),
        headers: HeaderMap::new(),
        body: Vec::new(),
    };
    let refused = strict.post(letter).await.unwrap_err();
    assert_eq!(refused.reason(), "AddressRefused");
    assert_eq!(receiver.connections(), 0);
}

#[tokio::test]
async fn time_and_size_are_bounded() {
    let receiver = Receiver::start([Reply::Hang, Reply::Endless]).await;
    let limits = Limits {
        total: Duration::from_millis(200),
        ..limits()
    };
    let egress = Egress::open(allow(&["127.0.0.1"]));
    let caller = Caller::new(egress, limits).unwrap();
    let hung = post(&caller, &receiver.url()).await.unwrap_err();
    assert_eq!(hung.to_string(), "127.0.0.1 did not answer within 0.2 s");
    assert_eq!(post(&caller, &receiver.url()).await, Ok(200));
    // What the sockets of both sides hold is written too, but no more than that.
    let sent = receiver.bytes_sent();
    assert!(sent < 16 << 20, "{sent} bytes were taken");

    let letter = Letter {
        target: caller.admit(&receiver.url()).unwrap(),
        headers: HeaderMap::new(),
        body: vec![b'x'; 300 << 10],
    };
    let refused = caller.post(letter).await.unwrap_err();
    assert_eq!(refused.reason(), "RequestTooLarge");
}

#[tokio::test]
async fn what_cannot_be_reached_is_said_in_words() {
    let port = {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        gone.local_addr().unwrap().port()
    };
    let egress = Egress::open(allow(&["127.0.0.1"]));
    let nobody = Names::answering(&[&[]]);
    let caller = Caller::with_lookup(egress.clone(), limits(), nobody).unwrap();
    let refused = post(&caller, &format!("http://127.0.0.1:{port}/")).await;
    assert_eq!(
        refused.unwrap_err().to_string(),
        "127.0.0.1 cannot be connected to: connection refused"
    );
    let unknown = post(&caller, "http://nowhere.example/").await.unwrap_err();
    assert_eq!(
        unknown.to_string(),
        "nowhere.example does not resolve to any address"
    );
    let plain = Receiver::start([]).await;
    let tls = post(&caller, &format!("https://127.0.0.1:{}/", plain.port)).await;
    assert!(
        matches!(
            &tls,
            Err(CallError::Unreachable { .. } | CallError::TimedOut { .. })
        ),
        "{tls:?}"
    );
    let broken = Receiver::start([Reply::Close, Reply::HalfHead]).await;
    for _ in 0..2 {
        let cut = post(&caller, &broken.url()).await.unwrap_err();
        assert_eq!(
            cut.to_string(),
            "127.0.0.1 broke the connection off without an answer"
        );
    }
}
