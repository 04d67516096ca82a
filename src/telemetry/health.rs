//! `/healthz`, `/readyz` and `/metrics`.

use super::Numbers;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Router, routing::get};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Whether the operator is ready: it has seen all that it watches. So are replicas that stand by.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<watch::Sender<bool>>);

impl Health {
    pub fn set_ready(&self, ready: bool) {
        self.0.send_replace(ready);
    }

    #[must_use]
    pub fn ready(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when the operator is ready.
    pub async fn until_ready(&self) {
        // The sender lives as long as `self`, so there is no error.
        let _ = self.0.subscribe().wait_for(|ready| *ready).await;
    }
}

/// Serves until the process ends.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    numbers: Arc<Numbers>,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state((health, numbers));
    axum::serve(listener, app).await
}

async fn readyz(State((health, _)): State<(Health, Arc<Numbers>)>) -> impl IntoResponse {
    if health.ready() {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the watches are not complete yet\n",
        )
    }
}

async fn metrics(State((_, numbers)): State<(Health, Arc<Numbers>)>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match numbers.text() {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            String::new(),
        ),
    }
}
