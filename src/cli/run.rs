//! `serin run`: the operator.

use crate::alerts::{Allowed, Egress};
use crate::controller::{self, Settings};
use crate::metrics::Prometheus;
use crate::telemetry::{self, LogFormat};
use anyhow::Context;
use chrono::TimeDelta;
use clap::Args;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Address of a Prometheus, or of another server with its query API. Without it the checks that need one have no data.
    // Its value may hold a password, which --help would show.
    #[arg(
        long,
        env = "SERIN_PROMETHEUS_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    prometheus_url: Option<String>,

    /// How long a query may take.
    #[arg(long, default_value = "5s", value_parser = span, value_name = "DURATION")]
    query_timeout: TimeDelta,

    /// A host that alerts may be sent to, with a port or without: `hooks.example.com`, `alerts.infra:8080`.
    /// May be given several times; nothing else is called.
    #[arg(
        long,
        env = "SERIN_ALLOW_EGRESS",
        value_delimiter = ',',
        value_name = "HOST[:PORT]"
    )]
    allow_egress: Vec<Allowed>,

    /// How long a data plane may take from accepting a route to splitting as told; by default what is known of it.
    #[arg(long, value_parser = span, value_name = "DURATION")]
    settle: Option<TimeDelta>,

    /// Where /healthz, /readyz and /metrics are served.
    #[arg(
        long,
        env = "SERIN_LISTEN",
        default_value = "0.0.0.0:8080",
        value_name = "ADDRESS"
    )]
    listen: SocketAddr,

    /// Form of the log on standard error.
    #[arg(long, env = "SERIN_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
}

fn span(text: &str) -> Result<TimeDelta, crate::api::QuantityError> {
    crate::api::Span::new(text).parse()
}

pub fn run(args: RunArgs) -> anyhow::Result<()> {
    telemetry::log_to_stderr(args.log_format);
    // One TLS provider in the tree; a second installation only says that it is there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(serve(args))
}

async fn serve(args: RunArgs) -> anyhow::Result<()> {
    let timeout = args
        .query_timeout
        .to_std()
        .unwrap_or(Duration::from_secs(5));
    let prometheus = args
        .prometheus_url
        .as_deref()
        .map(|url| Prometheus::new(url, timeout))
        .transpose()
        .context("--prometheus-url")?;
    let egress = Egress::only_listed(args.allow_egress);
    let config = kube::Config::infer()
        .await
        .context("cannot find out how to reach the API server")?;
    let settings = Settings {
        prometheus,
        egress,
        settle: args.settle,
        listen: args.listen,
    };
    controller::run(config, settings).await
}
