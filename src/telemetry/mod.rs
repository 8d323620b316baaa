//! Log lines, metrics and notices, by which the work reports to operators.

pub mod log;
pub mod metrics;
pub(crate) mod notices;
pub mod prometheus;
