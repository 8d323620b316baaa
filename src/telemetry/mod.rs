//! Log lines and metrics, by which the work reports to operators.

pub mod log;
pub mod metrics;
pub mod prometheus;
