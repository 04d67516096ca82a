//! A source of samples, whatever stands behind it.

use super::{Answer, Prometheus, QueryError};
use futures::future::BoxFuture;

/// Something that answers PromQL.
pub trait Source: Send + Sync + 'static {
    /// Evaluates a query at the source's own now.
    fn query<'a>(&'a self, promql: &'a str) -> BoxFuture<'a, Result<Answer, QueryError>>;
}

impl Source for Prometheus {
    fn query<'a>(&'a self, promql: &'a str) -> BoxFuture<'a, Result<Answer, QueryError>> {
        Box::pin(self.query(promql, None))
    }
}
