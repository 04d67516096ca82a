//! `serin run`: the operator.

use crate::alerts::{Allowed, Egress};
use crate::controller::lease::{Election, Timing, random};
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

    /// An exception from the rules for URLs that tenants write, which forbid loopback, link-local and metadata
    /// addresses and the API server: a host with a port or without, an address, or a range. May be given several times.
    #[arg(
        long,
        env = "SERIN_ALLOW_EGRESS",
        value_delimiter = ',',
        value_name = "HOST[:PORT]"
    )]
    allow_egress: Vec<Allowed>,

    /// Call nothing for a tenant but what --allow-egress names.
    #[arg(long, env = "SERIN_ONLY_ALLOWED_EGRESS")]
    only_allowed_egress: bool,

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

    /// Stand for election, so that of several replicas one acts. Without it the operator must be alone.
    #[arg(long, env = "SERIN_LEADER_ELECTION")]
    leader_election: bool,

    /// Namespace of the Lease; by default the operator's own.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    lease_namespace: Option<String>,

    /// Name of the Lease.
    #[arg(long, default_value = "serin", value_name = "NAME")]
    lease_name: String,

    /// How long others wait, after the last sign of a leader, before one of them takes over: whole seconds, 3 or more.
    /// A leader that cannot renew stops writing after two thirds of it.
    #[arg(long, default_value = "12s", value_parser = lease, value_name = "DURATION")]
    lease_duration: Timing,

    /// Who this replica is, in the Lease and to the API server; by default the pod's name, or else the host's, and a random part.
    /// No two processes that run at once may have the same.
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,

    /// Form of the log on standard error.
    #[arg(long, env = "SERIN_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    log_format: LogFormat,
}

fn span(text: &str) -> Result<TimeDelta, crate::api::QuantityError> {
    crate::api::Span::new(text).parse()
}

fn lease(text: &str) -> Result<Timing, String> {
    let span = span(text).map_err(|err| err.to_string())?;
    let duration = span.to_std().unwrap_or_default();
    if duration < Timing::SHORTEST || duration.subsec_nanos() != 0 {
        return Err(format!(
            "{text} is not a whole number of seconds, {} or more",
            Timing::SHORTEST.as_secs()
        ));
    }
    Ok(Timing::lasting(duration))
}

/// A name that no other process has.
fn own_name() -> String {
    let host = || {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        name.or_else(|| std::env::var("HOSTNAME").ok())
    };
    let name = std::env::var("POD_NAME").ok().or_else(host);
    let name = name
        .as_deref()
        .map(str::trim)
        .filter(|name| !name.is_empty());
    format!("{}_{:016x}", name.unwrap_or("serin"), random())
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
    let egress = if args.only_allowed_egress {
        Egress::only_listed(args.allow_egress)
    } else {
        Egress::open(args.allow_egress)
    };
    let config = kube::Config::infer()
        .await
        .context("cannot find out how to reach the API server")?;
    let identity = args.identity.unwrap_or_else(own_name);
    let election = args.leader_election.then(|| Election {
        namespace: args
            .lease_namespace
            .unwrap_or_else(|| config.default_namespace.clone()),
        name: args.lease_name,
        identity: identity.clone(),
        timing: args.lease_duration,
    });
    let settings = Settings {
        identity,
        election,
        prometheus,
        egress,
        settle: args.settle,
        listen: args.listen,
    };
    controller::run(config, settings).await
}
