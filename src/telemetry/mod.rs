//! What the work tells operators: log lines and metrics.

pub mod log;
pub mod metrics;
