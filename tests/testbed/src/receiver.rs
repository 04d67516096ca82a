//! A receiver of alerts on loopback, which keeps what it was sent.

use anyhow::Result;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::{Json, Router, routing::post};
use serde_json::Value;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

type Kept = Arc<Mutex<HashMap<String, Vec<(HeaderMap, Value)>>>>;

pub struct Receiver {
    address: SocketAddr,
    kept: Kept,
}

impl Receiver {
    pub async fn start() -> Result<Self> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let kept = Kept::default();
        let app = Router::new()
            .route("/{namespace}", post(keep))
            .with_state(kept.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { address, kept })
    }

    /// `host:port`, as the operator's flag wants it.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Where a namespace sends its alerts.
    pub fn url(&self, namespace: &str) -> String {
        format!("http://{}/{namespace}", self.address)
    }

    /// What a namespace has sent.
    pub fn got(&self, namespace: &str) -> Vec<(HeaderMap, Value)> {
        self.kept
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(namespace)
            .cloned()
            .unwrap_or_default()
    }

    /// Waits for an event of a namespace.
    pub async fn wait(
        &self,
        namespace: &str,
        event: &str,
        most: Duration,
    ) -> Result<(HeaderMap, Value)> {
        let until = tokio::time::Instant::now() + most;
        while tokio::time::Instant::now() < until {
            if let Some(found) = self
                .got(namespace)
                .into_iter()
                .find(|(_, body)| body["event"] == event)
            {
                return Ok(found);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let events: Vec<_> = self
            .got(namespace)
            .into_iter()
            .map(|(_, body)| body["event"].clone())
            .collect();
        anyhow::bail!("no alert {event} within {most:?}; there were {events:?}")
    }
}

async fn keep(
    State(kept): State<Kept>,
    Path(namespace): Path<String>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) {
    kept.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(namespace)
        .or_default()
        .push((headers, body));
}
