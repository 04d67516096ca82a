//! Logs, our own metrics, health.

mod health;
mod numbers;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

pub use health::{Health, serve};
pub use numbers::{Numbers, Outcome};

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For reading in a terminal.
    Pretty,
}

/// Logs to standard error, filtered by `RUST_LOG` (`info` by default).
pub fn log_to_stderr(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second subscriber in one process (a test's) is refused, and that is well.
    let _ = match format {
        LogFormat::Json => log.json().try_init(),
        LogFormat::Pretty => log.compact().try_init(),
    };
}
