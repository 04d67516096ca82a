//! The Prometheus client against a server on loopback that answers well, badly, late, or not at all.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on should say where"
)]

use serin::api::Time;
use serin::metrics::{Data, Prometheus, QueryError, UrlError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const GOOD: &str = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"code":"200"},"value":[1700000000.5,"12"]}]},"warnings":["a store is missing"]}"#;

/// What the server does with each request.
#[derive(Clone)]
enum Play {
    Answer(u16, &'static str, String),
    /// A body without end, in chunks.
    Endless,
    /// Headers, a part of the body, then silence.
    Stall,
    Silence,
    Close,
    CloseInBody,
    Junk,
}

/// Serves one way of answering; hands out the requests as they came.
async fn serve(play: Play) -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (requests, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(one(stream, play.clone(), requests.clone()));
        }
    });
    (format!("127.0.0.1:{}", address.port()), received)
}

async fn one(mut stream: TcpStream, play: Play, requests: mpsc::UnboundedSender<String>) {
    let request = receive(&mut stream).await;
    let _ = requests.send(request);
    let hour = Duration::from_secs(3_600);
    let text = match play {
        Play::Answer(status, headers, body) => format!(
            "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
        Play::Endless => {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
            while stream.write_all(chunk.as_bytes()).await.is_ok() {}
            return;
        }
        Play::Stall => {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
                .await;
            tokio::time::sleep(hour).await;
            return;
        }
        Play::Silence => return tokio::time::sleep(hour).await,
        Play::Close => return,
        Play::CloseInBody => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{".into(),
        Play::Junk => "\u{0}\u{1}SSH-2.0-what\r\n\r\n".into(),
    };
    let _ = stream.write_all(text.as_bytes()).await;
    let _ = stream.flush().await;
}

/// Reads one request, body included.
async fn receive(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.split_once(": "))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(0, |(_, length)| length.parse().unwrap());
            if body.len() >= length {
                return text.into_owned();
            }
        }
        match stream.read(&mut buffer).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&buffer[..n]),
            _ => return String::from_utf8_lossy(&bytes).into_owned(),
        }
    }
}

fn client(url: &str, timeout: Duration) -> Result<Prometheus, UrlError> {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Prometheus::new(url, timeout)
}

async fn ask(play: Play) -> Result<serin::metrics::Answer, QueryError> {
    let (address, _requests) = serve(play).await;
    let url = format!("http://user:s3cret@{address}/prom");
    client(&url, Duration::from_secs(5))
        .unwrap()
        .query("up", None)
        .await
}

fn ok(body: &str) -> Play {
    Play::Answer(200, "Content-Type: application/json\r\n", body.into())
}

#[tokio::test]
async fn a_good_answer() {
    let answer = ask(ok(GOOD)).await.unwrap();
    assert_eq!(answer.warnings, ["a store is missing"]);
    let Data::Vector(samples) = answer.data else {
        panic!("{answer:?}")
    };
    assert_eq!(samples[0].labels["code"], "200");
    assert_eq!(samples[0].value, 12.0);
    assert_eq!(samples[0].at.timestamp_millis(), 1_700_000_000_500);
}

#[tokio::test]
async fn what_is_sent() {
    let (address, mut requests) = serve(ok(GOOD)).await;
    let url = format!("http://us%40er:p%2Fw@{address}/prom/");
    let prometheus = client(&url, Duration::from_secs(5)).unwrap();
    assert_eq!(prometheus.server(), format!("http://{address}/prom"));
    assert!(!format!("{prometheus:?}").contains("p%2Fw"));
    let at = Time::from_timestamp_millis(1_700_000_000_250).unwrap();
    let query = r#"sum(rate(x{a="b&c=d+e"}[5m]))"#;
    prometheus.query(query, Some(at)).await.unwrap();
    let request = requests.recv().await.unwrap();
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /prom/api/v1/query HTTP/1.1\r\n"),
        "{head}"
    );
    let head = head.to_ascii_lowercase();
    assert!(head.contains("content-type: application/x-www-form-urlencoded"));
    // us@er:p/w
    assert!(
        head.contains(&"authorization: Basic dXNAZXI6cC93".to_ascii_lowercase()),
        "{head}"
    );
    assert_eq!(
        body,
        "query=sum%28rate%28x%7Ba%3D%22b%26c%3Dd%2Be%22%7D%5B5m%5D%29%29&timeout=5000ms&time=1700000000.250"
    );
}

#[tokio::test]
async fn answers_that_are_none() {
    let html = "<html>\r\nService Unavailable</html>";
    let refusal = |status| {
        let body = r#"{"status":"error","errorType":"bad_data","error":"1:5: parse error:\nunexpected end"}"#;
        Play::Answer(status, "", body.into())
    };
    let table: [(&str, Play, &str, &str); 15] = [
        (
            "empty vector is an answer",
            ok(r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#),
            "",
            "",
        ),
        (
            "NaN is an answer",
            ok(r#"{"status":"success","data":{"resultType":"scalar","result":[1,"NaN"]}}"#),
            "",
            "",
        ),
        (
            "error body",
            refusal(400),
            "QueryRefused",
            "refuses the query (bad_data): 1:5: parse error: unexpected end",
        ),
        ("error body, 422", refusal(422), "QueryRefused", "bad_data"),
        (
            "500",
            Play::Answer(500, "", String::new()),
            "HttpStatus",
            "HTTP status 500",
        ),
        (
            "503",
            Play::Answer(503, "", html.into()),
            "HttpStatus",
            "HTTP status 503: <html>  Service Unavailable</html>",
        ),
        (
            "500 with a good body",
            Play::Answer(500, "", GOOD.into()),
            "HttpStatus",
            "500",
        ),
        (
            "204",
            Play::Answer(204, "", String::new()),
            "AnswerMalformed",
            "cannot be read",
        ),
        (
            "redirect",
            Play::Answer(302, "Location: http://127.0.0.1:1/\r\n", String::new()),
            "Redirect",
            "redirects (HTTP status 302)",
        ),
        (
            "junk JSON",
            ok("{\"status\":\"success\",\"data\":[1,2"),
            "AnswerMalformed",
            "not the JSON",
        ),
        (
            "wrong type",
            ok(r#"{"status":"success","data":{"resultType":"vector","result":"x"}}"#),
            "AnswerMalformed",
            "malformed",
        ),
        ("no HTTP", Play::Junk, "Unreachable", "cannot be reached"),
        ("closes", Play::Close, "Unreachable", "cannot be reached"),
        (
            "closes in the body",
            Play::CloseInBody,
            "Unreachable",
            "cannot be reached",
        ),
        (
            "without end",
            Play::Endless,
            "AnswerTooLarge",
            "more than 4194304 bytes",
        ),
    ];
    for (case, play, reason, sentence) in table {
        match ask(play).await {
            Ok(_) => assert_eq!(reason, "", "{case}"),
            Err(error) => {
                let text = error.to_string();
                assert_eq!(error.reason(), reason, "{case}: {text}");
                assert!(text.contains(sentence), "{case}: {text}");
                assert!(
                    !text.contains("s3cret") && !text.contains("user"),
                    "{case}: {text}"
                );
                assert!(!text.contains('\n') && text.len() < 600, "{case}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn a_huge_announced_answer_is_not_read() {
    let body = " ".repeat(5 << 20);
    assert_eq!(ask(ok(&body)).await.unwrap_err().reason(), "AnswerTooLarge");
    let error = ask(Play::Answer(503, "", "x".repeat(1 << 20)))
        .await
        .unwrap_err();
    assert!(error.to_string().len() < 600);
}

#[tokio::test]
async fn a_slow_server_costs_no_more_than_the_timeout() {
    for play in [Play::Silence, Play::Stall] {
        let (address, _requests) = serve(play).await;
        let timeout = Duration::from_millis(300);
        let prometheus = client(&format!("http://{address}"), timeout).unwrap();
        let begun = Instant::now();
        let error = prometheus.query("up", None).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(3));
        assert_eq!(error.reason(), "Timeout");
        assert!(
            error.to_string().ends_with("did not answer within 300ms"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn nobody_there() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://user:s3cret@{address}");
    let error = client(&url, Duration::from_secs(5))
        .unwrap()
        .query("up", None)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "Unreachable");
    let text = error.to_string();
    assert!(
        text.starts_with(&format!(
            "Prometheus at http://{address} cannot be reached: "
        )),
        "{text}"
    );
    assert!(!text.contains("s3cret"));
}

#[test]
fn addresses_that_are_none() {
    for (url, why) in [
        ("", "no URL"),
        ("prometheus:9090", "must begin with http:// or https://"),
        (
            "ftp://prometheus",
            "must begin with http:// or https://, not ftp:",
        ),
        ("http://", "no URL"),
        ("http://prometheus:9090/?a=b", "query parameters"),
        ("http://prometheus:9090/#x", "fragments"),
        ("http://user:s3cret@:9090", "no URL"),
    ] {
        let error = client(url, Duration::from_secs(1)).unwrap_err().to_string();
        assert!(error.contains(why), "{url}: {error}");
        assert!(!error.contains("s3cret"));
    }
    assert!(client("https://prometheus", Duration::from_secs(1)).is_ok());
}
