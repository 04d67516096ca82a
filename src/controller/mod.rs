//! Watch, gather facts, decide, act, report: the only I/O with the cluster.
//!
//! A reconcile reads everything first (`gather`, `ask`), lets [`crate::release::decide`] say what
//! is to be, writes the status with a precondition, and only then acts on the routes (`act`).

mod act;
mod ask;
mod error;
mod gather;
pub mod lease;
mod memory;
mod reconcile;
mod refusals;
mod stores;

pub use error::Error;

use crate::alerts::{Caller, Cluster, Courier, Directory, Egress, Limits, Origin, Pace, Wire};
use crate::api::{Canary, MANAGER, Time};
use crate::metrics::{Prometheus, Source};
use crate::telemetry::{self, Health, Numbers};
use anyhow::Context as _;
use axum::http::HeaderValue;
use axum::http::header::USER_AGENT;
use chrono::TimeDelta;
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt};
use kube::runtime::controller::{Config as ControllerConfig, Controller};
use kube::runtime::events::Reporter;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Config};
pub use lease::Leadership;
use lease::{Election, Gated};
use memory::Memories;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use stores::Stores;
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedSender;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tracing::{error, info};

/// What the platform has said by flags.
#[derive(Debug)]
pub struct Settings {
    pub prometheus: Option<Prometheus>,
    pub egress: Egress,
    /// How long a data plane may take from accepting to splitting; by default what its profile says.
    pub settle: Option<TimeDelta>,
    pub listen: SocketAddr,
    /// Who this replica is, in requests to the API server.
    pub identity: String,
    /// Where it stands for election; without one it must be alone.
    pub election: Option<Election>,
}

/// All of the world that the operator touches. Tests put another world in its place.
pub struct Surroundings {
    /// For watches, which may be silent for minutes.
    pub watching: Client,
    /// For everything else, which must answer soon.
    pub client: Client,
    pub source: Option<Arc<dyn Source>>,
    pub settle: Option<TimeDelta>,
    /// Where alerts are looked up and how they are sent.
    pub directory: Arc<dyn Directory>,
    pub wire: Arc<dyn Wire>,
    pub clock: Clock,
    /// Whether this replica may act; the others only watch.
    pub leadership: Leadership,
}

/// The only clock of the operator's decisions.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// The machine's clock, in whole milliseconds as they come back from the API server.
fn wall_clock() -> Time {
    let now = chrono::Utc::now();
    Time::from_timestamp_millis(now.timestamp_millis()).unwrap_or(now)
}

/// What every reconcile has at hand.
struct Context {
    client: Client,
    canaries: Store<Canary>,
    stores: Stores,
    source: Option<Arc<dyn Source>>,
    settle: Option<TimeDelta>,
    courier: Courier,
    reporter: Reporter,
    memories: Memories,
    numbers: Arc<Numbers>,
    clock: Clock,
    leadership: Leadership,
    /// Done when the operator has been told to stop.
    stop: Shared<BoxFuture<'static, ()>>,
}

impl Context {
    fn now(&self) -> Time {
        (self.clock)()
    }
}

/// How many Canaries are looked at at once: any number. Most of a look is waiting for answers, and one
/// whose metrics are slow must not hold the place of one whose are not.
const CONCURRENCY: u16 = 0;

/// Runs the operator until it is told to stop.
///
/// # Errors
/// When it cannot listen, or cannot make a client of the configuration.
pub async fn run(mut config: Config, settings: Settings) -> anyhow::Result<()> {
    let host = config.cluster_url.host().map(str::to_owned);
    // The audit log tells replicas apart by it.
    let agent = format!(
        "serin/{} ({})",
        env!("CARGO_PKG_VERSION"),
        settings.identity
    );
    let agent = HeaderValue::from_str(&agent).context("--identity")?;
    config.headers.push((USER_AGENT, agent));
    config.connect_timeout = Some(Duration::from_secs(5));
    config.write_timeout = Some(Duration::from_secs(10));
    let watching = client(&config)?;
    config.read_timeout = Some(Duration::from_secs(10));
    let client = client(&config)?;
    let egress = settings.egress.with_api_servers(api_servers(host).await);
    let caller =
        Caller::new(egress, Limits::default()).context("cannot make a client for alerts")?;
    let health = Health::default();
    let numbers = Arc::new(Numbers::default());
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {} (--listen)", settings.listen))?;
    let server = tokio::spawn(telemetry::serve(listener, health.clone(), numbers.clone()));
    let (leadership, candidacy) = match settings.election {
        Some(election) => {
            let (leadership, candidacy) = election.stand(&watching, client.clone(), health.clone());
            (leadership, Some(candidacy))
        }
        None => (Leadership::always(), None),
    };
    let surroundings = Surroundings {
        watching,
        directory: Arc::new(Cluster::new(client.clone())),
        client,
        source: settings
            .prometheus
            .map(|prometheus| Arc::new(prometheus) as Arc<dyn Source>),
        settle: settings.settle,
        wire: Arc::new(caller),
        clock: Arc::new(wall_clock),
        leadership,
    };
    operate(surroundings, health, numbers, stop_signal()).await;
    if let Some(candidacy) = candidacy {
        candidacy.resign().await;
    }
    server.abort();
    info!("stopped");
    Ok(())
}

/// The API server by every name and address that is known of it, for the rules of whom tenants may have called.
async fn api_servers(host: Option<String>) -> Vec<String> {
    let service = std::env::var("KUBERNETES_SERVICE_HOST").ok();
    let names: Vec<String> = host.into_iter().chain(service).collect();
    let mut all = names.clone();
    for name in names {
        // One that cannot be looked up now is still refused by its name.
        if let Ok(found) = tokio::net::lookup_host((name.as_str(), 443)).await {
            all.extend(found.map(|address| address.ip().to_string()));
        }
    }
    all
}

fn client(config: &Config) -> anyhow::Result<Client> {
    Client::try_from(config.clone()).context("cannot make a client of the API server's address")
}

/// Runs the controller in its surroundings until `stop` is done.
pub async fn operate(
    surroundings: Surroundings,
    health: Health,
    numbers: Arc<Numbers>,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let Surroundings {
        watching,
        client,
        source,
        settle,
        directory,
        wire,
        clock,
        leadership,
    } = surroundings;
    let stop = stop.boxed().shared();
    let (stores, watches) = Stores::watch(&watching);
    let (news, deliveries) = tokio::sync::mpsc::unbounded_channel();
    let tell = move |origin: &Origin| {
        // The receiver is gone only when the controller is, and then nobody is to be told.
        let _ = news.send(origin.clone());
    };
    let wire = Arc::new(Gated::new(wire, leadership.clone()));
    let (courier, delivering) = Courier::start(directory, wire, Pace::default(), tell);
    let reporter = Reporter {
        controller: MANAGER.into(),
        instance: None,
    };
    let controller = Controller::new(
        kube::Api::<Canary>::all(watching),
        kube::runtime::watcher::Config::default(),
    )
    .with_config(ControllerConfig::default().concurrency(CONCURRENCY));
    let canaries = controller.store();
    let deliveries = UnboundedReceiverStream::new(deliveries)
        .map(|to: Origin| ObjectRef::<Canary>::new(&to.name).within(&to.namespace));
    let context = Arc::new(Context {
        reporter,
        client,
        canaries: canaries.clone(),
        stores,
        source,
        settle,
        courier,
        memories: Memories::default(),
        numbers,
        clock,
        leadership,
        stop: stop.clone(),
    });
    let (begin, terms) = tokio::sync::mpsc::unbounded_channel();
    let following = tokio::spawn(follow(context.clone(), begin));
    let stores = context.stores.clone();
    tokio::spawn(async move {
        stores.filled().await;
        health.set_ready(true);
    });
    info!("watching");
    let running = controller
        .reconcile_on(watches.touched(canaries.clone()))
        .reconcile_on(deliveries)
        .reconcile_all_on(UnboundedReceiverStream::new(terms))
        .graceful_shutdown_on(stop.clone())
        .run(reconcile::reconcile, reconcile::again_after_error, context)
        .for_each(|result| async move {
            if let Err(err) = result {
                // Errors of a reconcile are logged where they happen; these are of the watches.
                if !matches!(err, kube::runtime::controller::Error::ReconcilerFailed(..)) {
                    error!(error = %err, "the controller met an error");
                }
            }
        });
    let stopped_early = async {
        stop.await;
        // The controller does not end when it is told to before it has seen its objects (kube 5).
        if canaries.wait_until_ready().now_or_never().is_some() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = running => {}
        () = stopped_early => {}
    }
    delivering.abort();
    following.abort();
}

/// Has every Canary looked at when a term begins, and drops all that was known when it ends.
async fn follow(context: Arc<Context>, begin: UnboundedSender<()>) {
    loop {
        let term = context.leadership.begun().await;
        context.numbers.leads(true);
        if context.leadership.is_contested() {
            // The receiver is gone only when the controller is.
            let _ = begin.send(());
        }
        term.over().await;
        context.numbers.leads(false);
        context.courier.start_afresh();
        context.memories.drop_all();
    }
}

async fn stop_signal() {
    let interrupt = tokio::signal::ctrl_c();
    match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
        }
        Err(_) => {
            let _ = interrupt.await;
        }
    }
    info!("stopping");
}
