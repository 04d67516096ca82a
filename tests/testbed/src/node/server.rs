//! The HTTP server inside a pod.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::behaviour::{Behaviour, Latency};

/// A pod's listeners and connections. Dropped, all of them are reset, as the
/// kernel does for a process that died.
pub(super) struct Server {
    stage: watch::Sender<Stage>,
    app: Arc<App>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Serving,
    /// Answers tell the client not to come back on this connection.
    Draining,
    /// What is begun is finished, nothing new is taken.
    Closing,
    Reset,
}

struct App {
    behaviour: Behaviour,
    version: HeaderValue,
    pod: HeaderValue,
    body: Bytes,
    seed: u64,
    requests: AtomicU64,
    draining: AtomicBool,
    /// Connections that end in a reset instead of an orderly close.
    reset: AtomicBool,
}

impl Server {
    pub(super) async fn start(
        pod: &str,
        seed: u64,
        behaviour: Behaviour,
        listen: &[SocketAddr],
    ) -> io::Result<Server> {
        let text = |text: &str| {
            HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unprintable"))
        };
        let app = Arc::new(App {
            version: text(&behaviour.version),
            pod: text(pod),
            body: format!(
                "{}\n",
                serde_json::json!({"version": behaviour.version, "pod": pod})
            )
            .into(),
            seed,
            behaviour,
            requests: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            reset: AtomicBool::new(false),
        });
        let (stage, _) = watch::channel(Stage::Serving);
        let server = Server { stage, app };
        for address in listen {
            let listener = TcpListener::bind(address).await?;
            tokio::spawn(accept(
                listener,
                server.app.clone(),
                server.stage.subscribe(),
            ));
        }
        Ok(server)
    }

    /// Serves on for `drain`, then finishes what is begun, `patience` at most.
    pub(super) async fn stop(self, drain: Duration, patience: Duration) {
        self.app.draining.store(true, Ordering::Relaxed);
        self.stage.send_replace(Stage::Draining);
        tokio::time::sleep(drain).await;
        self.stage.send_replace(Stage::Closing);
        // Every connection and listener holds a receiver.
        let _ = tokio::time::timeout(patience, self.stage.closed()).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.app.reset.store(true, Ordering::Relaxed);
        self.stage.send_replace(Stage::Reset);
    }
}

async fn accept(listener: TcpListener, app: Arc<App>, stage: watch::Receiver<Stage>) {
    let mut seen = stage.clone();
    let closing = reached(&mut seen, Stage::Closing);
    tokio::pin!(closing);
    loop {
        tokio::select! {
            () = &mut closing => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    tokio::spawn(serve(stream, app.clone(), stage.clone()));
                }
                // Too many open files, say: that passes.
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            },
        }
    }
}

async fn serve(stream: TcpStream, app: Arc<App>, mut stage: watch::Receiver<Stage>) {
    let _ = stream.set_nodelay(true);
    let io = TokioIo::new(Socket {
        stream,
        app: app.clone(),
    });
    let service = service_fn(|request| {
        let app = app.clone();
        async move { Ok::<_, Infallible>(app.answer(request).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = reached(&mut stage, Stage::Closing) => {}
    }
    if *stage.borrow() == Stage::Closing {
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            _ = connection => {}
            () = reached(&mut stage, Stage::Reset) => {}
        }
    }
}

/// Returns at this stage, or a later one.
async fn reached(seen: &mut watch::Receiver<Stage>, stage: Stage) {
    // An error: the server is gone, which sets the last stage first.
    let _ = seen.wait_for(|now| *now >= stage).await;
}

impl App {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let n = self.requests.fetch_add(1, Ordering::Relaxed);
        if !request.body().is_end_stream() {
            // Read, so that the connection can be used again.
            let _ = request.into_body().collect().await;
        }
        if happens(n, self.behaviour.hangs, self.seed ^ 1) {
            std::future::pending::<()>().await;
        }
        let latency = self.latency(n);
        if latency > Duration::ZERO {
            tokio::time::sleep(latency).await;
        }
        let mut response = Response::new(Full::new(self.body.clone()));
        if happens(n, self.behaviour.errors, self.seed ^ 2) {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        }
        let headers = response.headers_mut();
        headers.insert(HeaderName::from_static("x-version"), self.version.clone());
        headers.insert(HeaderName::from_static("x-pod"), self.pod.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.draining.load(Ordering::Relaxed) {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    fn latency(&self, n: u64) -> Duration {
        match self.behaviour.latency {
            Latency::Fixed(latency) => latency,
            Latency::Spread { median, p99 } => {
                // Box-Muller; 2.3263 is the 99th percentile of the standard normal.
                let (u, v) = (unit(self.seed, 2 * n), unit(self.seed, 2 * n + 1));
                let normal = (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos();
                let sigma = (p99.as_secs_f64() / median.as_secs_f64()).ln() / 2.3263;
                let seconds = median.as_secs_f64() * (sigma * normal).exp();
                // No client waits longer.
                Duration::try_from_secs_f64(seconds.min(60.0)).unwrap_or(median)
            }
        }
    }
}

/// Whether request `n` is one of those that a rate picks: the right number of
/// every [`BLOCK`] requests, at places that each seed shuffles in its own way. So a
/// short run has the rate too, and pods do not fail in step.
fn happens(n: u64, rate: f64, seed: u64) -> bool {
    if rate <= 0.0 {
        return false;
    }
    let block = n / BLOCK;
    let phase = unit(seed, u64::MAX);
    let total = |blocks: u64| (blocks * BLOCK) as f64 * rate + phase;
    let quota = total(block + 1).floor() - total(block).floor();
    let own = unit(seed, n);
    let before = (block * BLOCK..(block + 1) * BLOCK)
        .filter(|other| unit(seed, *other) < own)
        .count();
    (before as f64) < quota
}

const BLOCK: u64 = 20;

/// The `n`th number of this seed's row, in [0, 1). (SplitMix64.)
fn unit(seed: u64, n: u64) -> f64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// A stream that is reset when it is dropped after its pod has died.
struct Socket {
    stream: TcpStream,
    app: Arc<App>,
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.app.reset.load(Ordering::Relaxed) {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_met_in_every_stretch() {
        for (rate, seed) in [
            (0.2, 1),
            (0.2, 99),
            (0.005, 5),
            (0.93, 4),
            (1.0, 7),
            (0.0, 9),
        ] {
            let hits: Vec<u64> = (0..10_000)
                .map(|n| u64::from(happens(n, rate, seed)))
                .collect();
            for stretch in hits.chunks(1000) {
                let seen = stretch.iter().sum::<u64>() as f64;
                assert!((seen - 1000.0 * rate).abs() <= 1.0, "{rate} {seed}: {seen}");
            }
        }
    }

    #[test]
    fn pods_do_not_fail_in_step() {
        for seed in 0..100 {
            let both = (0..1000)
                .filter(|n| happens(*n, 0.2, seed) && happens(*n, 0.2, seed + 1))
                .count();
            assert!(
                (15..70).contains(&both),
                "of 1000 with 20 % each, {both} fail on both"
            );
        }
    }

    #[tokio::test]
    async fn a_spread_latency_has_its_median_and_its_tail() {
        let pod = serde_json::json!({"spec": {"containers": [{"name": "app", "image": "a:v1-latency50ms..400ms"}]}});
        let behaviour =
            Behaviour::of(&serde_json::from_value(pod).expect("a pod")).expect("a behaviour");
        let server = Server::start("p", 7, behaviour, &[])
            .await
            .expect("a server");
        let mut seen: Vec<Duration> = (0..10_000).map(|n| server.app.latency(n)).collect();
        seen.sort();
        let (p50, p99) = (seen[5000].as_millis(), seen[9900].as_millis());
        assert!(
            (45..55).contains(&p50) && (340..460).contains(&p99),
            "{p50} {p99}"
        );
    }
}
