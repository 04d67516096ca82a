//! A small HTTP/1.1 client that keeps its connections.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Body;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue};
use hyper::{HeaderMap, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

type Sender = SendRequest<Empty<Bytes>>;

/// What a pod, or the gateway, answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// `x-version`, which only a pod of the testbed sends.
    pub version: Option<String>,
    /// `x-pod`.
    pub pod: Option<String>,
    pub body: Bytes,
}

/// One GET request on a connection of its own, answered within 10 s.
///
/// # Errors
/// When the connection fails or no answer comes.
pub async fn get(
    address: SocketAddr,
    host: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Answer> {
    let mut map = HeaderMap::new();
    map.insert(HOST, HeaderValue::from_str(host)?);
    for (name, value) in headers {
        map.append(HeaderName::try_from(*name)?, HeaderValue::from_str(value)?);
    }
    Client::new(address, path.parse()?, map, Duration::from_secs(10))
        .send()
        .await
}

/// Sends the same request again and again.
pub(super) struct Client {
    address: SocketAddr,
    uri: Uri,
    headers: HeaderMap,
    timeout: Duration,
    idle: Mutex<Vec<Sender>>,
}

impl Client {
    pub(super) fn new(
        address: SocketAddr,
        uri: Uri,
        headers: HeaderMap,
        timeout: Duration,
    ) -> Client {
        Client {
            address,
            uri,
            headers,
            timeout,
            idle: Mutex::default(),
        }
    }

    pub(super) async fn send(&self) -> Result<Answer> {
        tokio::time::timeout(self.timeout, self.send_now())
            .await
            .with_context(|| format!("no answer in {:?}", self.timeout))?
    }

    async fn send_now(&self) -> Result<Answer> {
        let mut sender = match self.kept() {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        let response = sender.send_request(request).await.context("send")?;
        let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
        let (version, pod) = (header("x-version"), header("x-pod"));
        let status = response.status().as_u16();
        let empty = response.body().is_end_stream()
            || response
                .headers()
                .get(CONTENT_LENGTH)
                .is_some_and(|length| length == "0");
        let body = if empty {
            Bytes::new()
        } else {
            response
                .into_body()
                .collect()
                .await
                .context("read the body")?
                .to_bytes()
        };
        // Ready again once the connection's task has seen the end of the answer.
        if sender.ready().await.is_ok() {
            self.idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(sender);
        }
        Ok(Answer {
            status,
            version,
            pod,
            body,
        })
    }

    /// The connection used last, so that few are kept warm.
    fn kept(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| idle.pop()).find(|sender| sender.is_ready())
    }

    async fn connect(&self) -> Result<Sender> {
        let stream = TcpStream::connect(self.address).await.context("connect")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("connect")?;
        tokio::spawn(connection);
        Ok(sender)
    }
}
