//! The one HTTP client for tenants' URLs. It connects only to addresses that the guard has just
//! admitted, follows no redirect, uses no proxy, and bounds time and size.

use super::guard::{Egress, Refusal, Target};
use super::retry::retry_after;
use chrono::Utc;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// One POST.
#[derive(Clone)]
pub struct Letter {
    pub target: Target,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Letter({})", self.target.host())
    }
}

/// What a receiver has answered. Its body is read and thrown away: it may repeat what it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// How long the receiver asks to be left alone, as it says it.
    pub retry_after: Option<Duration>,
}

/// Why there is no answer. The sentences name the host at most.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("{host} does not resolve to any address")]
    Unresolved { host: String },
    #[error("{host} cannot be connected to: {why}")]
    Unreachable { host: String, why: String },
    #[error("{host} did not answer within {} s", after.as_secs_f64())]
    TimedOut { host: String, after: Duration },
    #[error("{host} broke the connection off without an answer")]
    Broken { host: String },
    #[error("the request has {bytes} bytes of body and headers, more than {limit}")]
    TooLarge { bytes: usize, limit: usize },
    #[error("another replica sends it")]
    Withheld,
}

impl CallError {
    /// A stable word for metrics and events.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.reason(),
            Self::Unresolved { .. } => "HostUnresolved",
            Self::Unreachable { .. } => "HostUnreachable",
            Self::TimedOut { .. } => "TimedOut",
            Self::Broken { .. } => "ConnectionBroken",
            Self::TooLarge { .. } => "RequestTooLarge",
            Self::Withheld => "Withheld",
        }
    }
}

/// Something that posts letters: [`Caller`], or a test's stand-in.
pub trait Wire: Send + Sync + 'static {
    /// Judges the text of a URL.
    ///
    /// # Errors
    /// As [`Egress::admit`].
    fn admit(&self, url: &str) -> Result<Target, Refusal>;

    /// Posts a letter, once.
    fn post(&self, letter: Letter) -> BoxFuture<'_, Result<Answer, CallError>>;
}

/// Bounds of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// For name, connection and TLS.
    pub connect: Duration,
    /// From the beginning to the answer's head; its body has as long as `connect` after that.
    pub total: Duration,
    /// Of the answer's body that are read.
    pub answer_bytes: usize,
    /// Of body and headers that are sent.
    pub request_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            total: Duration::from_secs(10),
            answer_bytes: 64 << 10,
            request_bytes: 256 << 10,
        }
    }
}

/// Where names become addresses: the system's resolver, or a test's.
pub trait Lookup: Send + Sync + 'static {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// `getaddrinfo`, so that `/etc/hosts` and the pod's search domains count.
#[derive(Debug, Clone, Copy)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// The guarded client. A cheap handle.
#[derive(Clone)]
pub struct Caller {
    egress: Egress,
    limits: Limits,
    /// Connects to what the guard admits.
    checked: Client,
    /// Connects to whatever a name resolves to: for a host and port that the allow list names.
    trusted: Client,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("egress", &self.egress)
            .finish_non_exhaustive()
    }
}

impl Caller {
    /// # Errors
    /// When the system's trusted certificates cannot be loaded.
    pub fn new(egress: Egress, limits: Limits) -> Result<Self, reqwest::Error> {
        Self::with_lookup(egress, limits, Arc::new(SystemLookup))
    }

    /// With another resolver than the system's.
    ///
    /// # Errors
    /// When the system's trusted certificates cannot be loaded.
    pub fn with_lookup(
        egress: Egress,
        limits: Limits,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, reqwest::Error> {
        // One TLS provider in the tree. An error means that one is installed already, as wanted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = |rules: Option<Egress>| {
            let lookup = lookup.clone();
            Client::builder()
                .dns_resolver(Guarded { rules, lookup })
                .connect_timeout(limits.connect)
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .referer(false)
                .no_proxy()
                // Each call resolves and checks anew; a connection kept open would outlive its check.
                .pool_max_idle_per_host(0)
                .build()
        };
        Ok(Self {
            checked: client(Some(egress.clone()))?,
            trusted: client(None)?,
            egress,
            limits,
        })
    }

    async fn call(&self, letter: Letter) -> Result<Answer, CallError> {
        let Letter {
            target,
            headers,
            body,
        } = letter;
        let host = target.host();
        let limit = self.limits.request_bytes;
        let bytes = body.len()
            + headers
                .iter()
                .map(|(name, value)| name.as_str().len() + value.len() + 4)
                .sum::<usize>();
        if bytes > limit {
            return Err(CallError::TooLarge { bytes, limit });
        }
        // Judged again, as a target may have been admitted by other rules than these. For a literal
        // address this is all, since no resolver is asked for one.
        let target = self.egress.admit(target.url().as_str())?;
        let client = match target.is_trusted() {
            true => &self.trusted,
            false => &self.checked,
        };
        let request = client
            .post(target.url().clone())
            .headers(headers)
            .body(body);
        let after = self.limits.total;
        let mut response = match timeout(after, request.send()).await {
            Ok(sent) => sent.map_err(|error| self.explain(&error, &host))?,
            Err(_) => return Err(CallError::TimedOut { host, after }),
        };
        let answer = Answer {
            status: response.status(),
            retry_after: response
                .headers()
                .get(RETRY_AFTER)
                .and_then(|value| retry_after(value.to_str().ok()?, Utc::now())),
        };
        // The status line is the answer. The rest is read so that a polite receiver can finish,
        // and what goes wrong with it changes nothing.
        let drain = async {
            let mut read = 0;
            while read < self.limits.answer_bytes {
                match response.chunk().await {
                    Ok(Some(chunk)) => read += chunk.len(),
                    Ok(None) | Err(_) => break,
                }
            }
        };
        let _ = timeout(self.limits.connect, drain).await;
        Ok(answer)
    }

    /// Says what went wrong in words of our own: the client's own would show the URL.
    fn explain(&self, error: &reqwest::Error, host: &str) -> CallError {
        let host = host.to_owned();
        let causes = || std::iter::successors(error.source(), next_cause);
        if let Some(known) = causes().find_map(|cause| cause.downcast_ref::<CallError>()) {
            return known.clone();
        }
        if error.is_timeout() {
            let after = match error.is_connect() {
                true => self.limits.connect,
                false => self.limits.total,
            };
            return CallError::TimedOut { host, after };
        }
        if error.is_connect() {
            let why = causes().find_map(in_words);
            let why = why.unwrap_or_else(|| "the connection failed".to_owned());
            return CallError::Unreachable { host, why };
        }
        CallError::Broken { host }
    }
}

impl Wire for Caller {
    fn admit(&self, url: &str) -> Result<Target, Refusal> {
        self.egress.admit(url)
    }

    fn post(&self, letter: Letter) -> BoxFuture<'_, Result<Answer, CallError>> {
        Box::pin(self.call(letter))
    }
}

fn next_cause<'a>(cause: &&'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    (**cause).source()
}

fn in_words(cause: &(dyn Error + 'static)) -> Option<String> {
    if let Some(tls) = cause.downcast_ref::<rustls::Error>() {
        return Some(format!("TLS: {tls}"));
    }
    let io = cause.downcast_ref::<io::Error>()?;
    let tls = io.get_ref().and_then(|inner| inner.downcast_ref());
    match tls {
        Some::<&rustls::Error>(tls) => Some(format!("TLS: {tls}")),
        // The kind's words are the standard library's, never the peer's.
        None => Some(io.kind().to_string()),
    }
}

/// A resolver that answers only with addresses that may be called, so that the address that was
/// checked is the one that is connected to.
struct Guarded {
    rules: Option<Egress>,
    lookup: Arc<dyn Lookup>,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let found = self.lookup.lookup(host.clone());
        let rules = self.rules.clone();
        Box::pin(async move {
            let found = found.await.unwrap_or_default();
            if found.is_empty() {
                return Err(CallError::Unresolved { host }.into());
            }
            let admitted = match rules {
                Some(egress) => egress
                    .admit_addresses(&host, found)
                    .map_err(CallError::Refused)?,
                None => found,
            };
            let addresses = admitted.into_iter().map(|ip| SocketAddr::new(ip, 0));
            Ok(Box::new(addresses.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}
