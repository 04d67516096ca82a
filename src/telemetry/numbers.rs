//! The operator's own metrics. Labels take few values: none is a message or a revision.

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    outcome: Outcome,
    reason: &'static str,
}

/// How a reconcile ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    Done,
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    what: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueryLabels {
    outcome: Outcome,
}

/// All metrics, each with one way to count.
#[derive(Debug)]
pub struct Numbers {
    registry: Registry,
    reconciles: Family<ReconcileLabels, Counter>,
    seconds: Histogram,
    writes: Family<WriteLabels, Counter>,
    queries: Family<QueryLabels, Counter>,
    leader: Gauge,
}

impl Default for Numbers {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("serin");
        let reconciles = Family::<ReconcileLabels, Counter>::default();
        let seconds = Histogram::new([0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]);
        let writes = Family::<WriteLabels, Counter>::default();
        let queries = Family::<QueryLabels, Counter>::default();
        let leader = Gauge::default();
        registry.register(
            "reconciles",
            "Reconciles by how they ended",
            reconciles.clone(),
        );
        registry.register(
            "reconcile_seconds",
            "How long a reconcile took",
            seconds.clone(),
        );
        registry.register(
            "writes",
            "Writes to the API server by what was written",
            writes.clone(),
        );
        registry.register(
            "queries",
            "Queries of metrics by how they ended",
            queries.clone(),
        );
        registry.register(
            "leader",
            "1 while this replica leads, else 0",
            leader.clone(),
        );
        Self {
            registry,
            reconciles,
            seconds,
            writes,
            queries,
            leader,
        }
    }
}

impl Numbers {
    pub fn reconciled(&self, outcome: Outcome, reason: &'static str, seconds: f64) {
        self.reconciles
            .get_or_create(&ReconcileLabels { outcome, reason })
            .inc();
        self.seconds.observe(seconds);
    }

    pub fn wrote(&self, what: &'static str) {
        self.writes.get_or_create(&WriteLabels { what }).inc();
    }

    pub fn queried(&self, outcome: Outcome) {
        self.queries.get_or_create(&QueryLabels { outcome }).inc();
    }

    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// The metrics in the OpenMetrics text format.
    ///
    /// # Errors
    /// When a label cannot be encoded, which none of ours does.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
