//! Logs, our own metrics, health.
