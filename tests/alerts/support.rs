//! A receiver that misbehaves to order, and objects without a cluster.

use chrono::DateTime;
use futures::FutureExt;
use futures::future::BoxFuture;
use serin::alerts::{
    Allowed, Caller, Courier, Directory, Egress, Limits, Lookup, LookupError, Origin, Pace,
    Redacted, SecretData,
};
use serin::api::{
    Alert, AlertCheck, AlertEvent, AlertProviderSpec, ArmCounts, Count, SecretHeader, SecretKey,
    Webhook,
};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Stands in every Secret of these tests, and must stand nowhere else.
pub const PLANT: &str = "PLANTED-hunter2";

#[derive(Debug, Clone)]
pub enum Reply {
    Status(u16),
    /// With one further header.
    With(u16, &'static str, String),
    Json(u16, String),
    /// Reads the request and never answers.
    Hang,
    /// Reads the request and closes.
    Close,
    /// Sends half of a head and closes.
    HalfHead,
    /// Says 200 and a length, sends a part of the body, and closes.
    HalfBody,
    /// Says 200 and sends as long as someone reads.
    Endless,
}

#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Received {
    pub fn id(&self) -> String {
        self.headers["idempotency-key"].clone()
    }
}

#[derive(Default)]
struct Seen {
    script: Mutex<VecDeque<Reply>>,
    received: Mutex<Vec<(Received, bool)>>,
    connections: AtomicUsize,
    sent: AtomicUsize,
}

/// Answers by a script, then 204.
pub struct Receiver {
    pub port: u16,
    seen: Arc<Seen>,
    task: JoinHandle<()>,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Receiver {
    pub async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        seen.script.lock().unwrap().extend(script);
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                shared.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, shared.clone()));
            }
        });
        Self { port, seen, task }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/hooks/{PLANT}?token={PLANT}", self.port)
    }

    pub fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    pub fn bytes_sent(&self) -> usize {
        self.seen.sent.load(Ordering::SeqCst)
    }

    pub fn received(&self) -> Vec<Received> {
        let all = self.seen.received.lock().unwrap();
        all.iter().map(|(request, _)| request.clone()).collect()
    }

    /// Ids of the requests that were answered with 2xx, in order.
    pub fn accepted(&self) -> Vec<String> {
        let all = self.seen.received.lock().unwrap();
        let accepted = all.iter().filter(|(_, accepted)| *accepted);
        accepted.map(|(request, _)| request.id()).collect()
    }
}

/// Keeps the connection open after a whole answer, as receivers do.
async fn serve(mut stream: TcpStream, seen: Arc<Seen>) {
    while let Some(request) = read(&mut stream).await {
        let reply = seen.script.lock().unwrap().pop_front();
        let reply = reply.unwrap_or(Reply::Status(204));
        let accepted = match &reply {
            Reply::Status(code) | Reply::With(code, ..) | Reply::Json(code, _) => code / 100 == 2,
            Reply::HalfBody | Reply::Endless => true,
            Reply::Hang | Reply::Close | Reply::HalfHead => false,
        };
        seen.received.lock().unwrap().push((request, accepted));
        let (text, whole) = match &reply {
            Reply::Status(code) => (
                format!("HTTP/1.1 {code} x\r\ncontent-length: 0\r\n\r\n"),
                true,
            ),
            Reply::With(code, name, value) => {
                let head = format!("HTTP/1.1 {code} x\r\n{name}: {value}\r\n");
                (head + "content-length: 0\r\n\r\n", true)
            }
            Reply::Json(code, body) => {
                let head = format!("HTTP/1.1 {code} x\r\ncontent-type: application/json\r\n");
                let length = body.len();
                (
                    format!("{head}content-length: {length}\r\n\r\n{body}"),
                    true,
                )
            }
            Reply::Hang => return std::future::pending().await,
            Reply::Close => return,
            Reply::HalfHead => ("HTTP/1.1 200 OK\r\ncontent-le".to_owned(), false),
            Reply::HalfBody => (
                "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf".to_owned(),
                false,
            ),
            Reply::Endless => ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), false),
        };
        let _ = stream.write_all(text.as_bytes()).await;
        while matches!(reply, Reply::Endless) && stream.write_all(&[b'x'; 4096]).await.is_ok() {
            seen.sent.fetch_add(4096, Ordering::SeqCst);
        }
        if !whole {
            return;
        }
    }
}

async fn read(stream: &mut TcpStream) -> Option<Received> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let text = String::from_utf8(bytes[..head].to_vec()).unwrap();
    let mut lines = text.lines();
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers
        .get("content-length")
        .map_or(0, |l| l.parse().unwrap());
    let mut body = bytes[head + 4..].to_vec();
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Received {
        path,
        headers,
        body,
    })
}

/// AlertProviders and Secrets, by namespace and name.
#[derive(Default)]
pub struct Shelf {
    providers: Mutex<BTreeMap<(String, String), AlertProviderSpec>>,
    secrets: Mutex<BTreeMap<(String, String), SecretData>>,
    pub reads: AtomicUsize,
}

impl Shelf {
    /// A provider of namespace `shop` whose URL is in a Secret of its own name.
    pub fn with(provider: &str, url: &str) -> Arc<Self> {
        let shelf = Arc::new(Self::default());
        shelf.put(provider, url);
        shelf
    }

    pub fn put(&self, provider: &str, url: &str) {
        self.put_provider(provider, &[]);
        self.put_secret(provider, &[("url", url)]);
    }

    pub fn put_provider(&self, name: &str, headers: &[(&str, &str)]) {
        let at = |key: &str| SecretKey {
            name: name.to_owned(),
            key: key.to_owned(),
        };
        let webhook = Webhook {
            url_from: at("url"),
            headers: headers
                .iter()
                .map(|(header, key)| SecretHeader {
                    name: (*header).to_owned(),
                    value_from: at(key),
                })
                .collect(),
        };
        let spec = AlertProviderSpec {
            webhook: Some(webhook),
        };
        let mut providers = self.providers.lock().unwrap();
        providers.insert(("shop".to_owned(), name.to_owned()), spec);
    }

    pub fn put_secret(&self, name: &str, data: &[(&str, &str)]) {
        let data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), Redacted::new(value.as_bytes().to_vec())))
            .collect();
        let mut secrets = self.secrets.lock().unwrap();
        secrets.insert(("shop".to_owned(), name.to_owned()), data);
    }
}

impl Directory for Shelf {
    fn provider<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<AlertProviderSpec>, LookupError>> {
        let key = (namespace.to_owned(), name.to_owned());
        let found = self.providers.lock().unwrap().get(&key).cloned();
        async { Ok(found) }.boxed()
    }

    fn secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<SecretData>, LookupError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let key = (namespace.to_owned(), name.to_owned());
        let found = self.secrets.lock().unwrap().get(&key).cloned();
        async { Ok(found) }.boxed()
    }
}

/// A resolver whose answers are written down: the first for the first question, the last for all further ones.
pub struct Names {
    answers: Mutex<VecDeque<Vec<IpAddr>>>,
    pub questions: AtomicUsize,
}

impl Names {
    pub fn answering(answers: &[&[&str]]) -> Arc<Self> {
        let parse = |list: &&[&str]| list.iter().map(|a| a.parse().unwrap()).collect();
        Arc::new(Self {
            answers: Mutex::new(answers.iter().map(parse).collect()),
            questions: AtomicUsize::new(0),
        })
    }
}

impl Lookup for Names {
    fn lookup(&self, _host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        self.questions.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answer = match answers.len() {
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap(),
        };
        async { Ok(answer) }.boxed()
    }
}

pub fn allow(entries: &[&str]) -> Vec<Allowed> {
    entries.iter().map(|e| e.parse().unwrap()).collect()
}

pub fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(1),
        total: Duration::from_secs(1),
        ..Limits::default()
    }
}

pub fn caller() -> Caller {
    Caller::new(Egress::open(allow(&["127.0.0.1"])), limits()).unwrap()
}

/// The production rhythm, a hundred times as fast.
pub fn pace() -> Pace {
    Pace {
        first: Duration::from_millis(10),
        longest: Duration::from_millis(50),
        longest_asked: Duration::from_millis(200),
        ..Pace::default()
    }
}

pub fn start(shelf: &Arc<Shelf>) -> (Courier, JoinHandle<()>) {
    captured();
    Courier::start(shelf.clone(), Arc::new(caller()), pace(), |_| {})
}

pub fn canary(name: &str) -> Origin {
    Origin {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-of-{name}"),
    }
}

pub fn alert(id: &str, provider: &str) -> Alert {
    let arm = |requests, failed| Count { requests, failed };
    Alert {
        id: id.to_owned(),
        provider: provider.to_owned(),
        event: AlertEvent::RolledBack,
        at: DateTime::from_timestamp(1_767_225_600, 0).unwrap(),
        revision: "7f9c".to_owned(),
        message: "7f9c was rolled back: 19.8% of 480 requests failed, the limit is 1%".to_owned(),
        check: Some(AlertCheck {
            name: "errorRate".to_owned(),
            value: Some("19.8%".to_owned()),
            limit: Some("1%".to_owned()),
            counts: Some(ArmCounts {
                canary: arm(480, 95),
                stable: arm(9120, 3),
            }),
        }),
    }
}

/// Waits, for 10 s at most, until something holds.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not within 10 s: {what}");
}

/// All that was logged by anyone in this process so far, from TRACE up.
pub fn captured() -> String {
    static LOG: OnceLock<Capture> = OnceLock::new();
    let log = LOG.get_or_init(|| {
        let log = Capture::default();
        let writer = log.clone();
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .init();
        log
    });
    String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned()
}

#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<u8>>>);

impl io::Write for Capture {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
