//! Log lines, metrics and notices, by which the work reports to operators.

pub mod log;
pub mod metrics;
pub(crate) mod notices;
#[cfg(feature = "otlp")]
pub(crate) mod otlp;
#[cfg(not(feature = "otlp"))]
#[path = "no_otlp.rs"]
pub(crate) mod otlp;
pub(crate) mod prometheus;
pub(crate) mod registry;
pub(crate) mod totals;
