//! A load generator: open loop, at a constant rate, bounded.
//!
//! Requests are due by the clock, whatever became of those before, as those of
//! many independent people are; so a gateway that stalls gets a queue, and the
//! stall shows. It runs on a thread of its own with connections that it keeps.

mod client;
mod counts;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Uri};
use tokio::sync::{oneshot, watch};

pub use client::{Answer, get};
pub use counts::{Counts, NO_STATUS, NO_VERSION, Request, Second};

use client::Client;

/// More on their way than this means that nothing answers; more would only burden the machine.
const MOST_AT_ONCE: usize = 2000;

/// What to send.
#[derive(Clone, Debug)]
pub struct Load {
    /// Requests per second.
    pub rate: u32,
    /// The Host header.
    pub host: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// After this time it ends by itself.
    pub bound: Duration,
    /// How long a request may take.
    pub timeout: Duration,
}

impl Default for Load {
    fn default() -> Load {
        Load {
            rate: 200,
            host: "localhost".into(),
            path: "/".into(),
            headers: vec![],
            bound: Duration::from_secs(60),
            timeout: Duration::from_secs(10),
        }
    }
}

/// A load that runs. Dropped, it ends.
#[derive(Debug)]
pub struct Running {
    counts: Arc<Mutex<Counts>>,
    stop: watch::Sender<bool>,
    ended: Option<oneshot::Receiver<()>>,
}

impl Load {
    /// GET requests for `host`, `rate` a second.
    pub fn new(host: impl Into<String>, rate: u32) -> Load {
        Load {
            rate,
            host: host.into(),
            ..Load::default()
        }
    }

    /// Starts to send, to a loopback address.
    ///
    /// # Panics
    /// When the address is not a loopback address, the rate is not within 1 to
    /// 10,000, or a header cannot be sent: mistakes in the test itself.
    pub fn start(self, address: SocketAddr) -> Running {
        assert!(
            address.ip().is_loopback(),
            "load goes to this machine only, not to {address}"
        );
        assert!(
            (1..=10_000).contains(&self.rate),
            "a rate of {} requests/s is out of bounds",
            self.rate
        );
        let client = Client::new(address, self.uri(), self.header_map(), self.timeout);
        let counts = Arc::new(Mutex::new(Counts::new(Instant::now())));
        let (stop, stopped) = watch::channel(false);
        let (end, ended) = oneshot::channel();
        let shared = counts.clone();
        std::thread::spawn(move || {
            match tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
            {
                Ok(runtime) => runtime.block_on(self.drive(Arc::new(client), shared, stopped)),
                Err(error) => lock(&shared).add_error(Instant::now(), error.to_string()),
            }
            let _ = end.send(());
        });
        Running {
            counts,
            stop,
            ended: Some(ended),
        }
    }

    fn uri(&self) -> Uri {
        self.path
            .parse()
            .unwrap_or_else(|error| panic!("the path {:?}: {error}", self.path))
    }

    fn header_map(&self) -> HeaderMap {
        let mut map = HeaderMap::new();
        let value = |text: &str| {
            HeaderValue::from_str(text)
                .unwrap_or_else(|error| panic!("the header value {text:?}: {error}"))
        };
        map.insert(HOST, value(&self.host));
        for (name, text) in &self.headers {
            let name: HeaderName = name
                .parse()
                .unwrap_or_else(|error| panic!("the header {name:?}: {error}"));
            map.append(name, value(text));
        }
        map
    }

    async fn drive(
        self,
        client: Arc<Client>,
        counts: Arc<Mutex<Counts>>,
        mut stopped: watch::Receiver<bool>,
    ) {
        let begun = tokio::time::Instant::now();
        let on_the_way = Arc::new(AtomicUsize::new(0));
        let gap = Duration::from_secs(1) / self.rate;
        for n in 0u32.. {
            let due = gap * n;
            if due >= self.bound {
                break;
            }
            tokio::select! {
                // `Err`: nobody holds the load any more.
                _ = stopped.wait_for(|stop| *stop) => break,
                () = tokio::time::sleep_until(begun + due) => {}
            }
            let sent = Instant::now();
            if on_the_way.fetch_add(1, Ordering::Relaxed) >= MOST_AT_ONCE {
                on_the_way.fetch_sub(1, Ordering::Relaxed);
                lock(&counts).add_error(
                    sent,
                    format!("not sent: {MOST_AT_ONCE} requests are on their way"),
                );
                continue;
            }
            let (client, counts, on_the_way) = (client.clone(), counts.clone(), on_the_way.clone());
            tokio::spawn(async move {
                let answer = client.send().await;
                let mut counts = lock(&counts);
                match answer {
                    Ok(answer) => counts.add(
                        sent,
                        answer.version.as_deref().unwrap_or(NO_VERSION),
                        answer.status,
                    ),
                    Err(error) => counts.add_error(sent, format!("{error:#}")),
                }
                on_the_way.fetch_sub(1, Ordering::Relaxed);
            });
        }
        // What is on its way is waited for: each has a timeout.
        while on_the_way.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Running {
    /// What has happened until now.
    pub fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// Sends no more, and waits for the answers that are due.
    pub async fn stop(mut self) -> Counts {
        self.stop.send_replace(true);
        self.ended().await
    }

    /// Waits until the load has reached its bound.
    pub async fn finish(mut self) -> Counts {
        self.ended().await
    }

    async fn ended(&mut self) -> Counts {
        if let Some(ended) = self.ended.take() {
            // An error means that the thread has ended too.
            let _ = ended.await;
        }
        self.counts()
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}
