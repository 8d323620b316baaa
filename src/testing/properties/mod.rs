//! Properties of the parsers of foreign input, each valid for any bytes.
//!
//! The targets of `fuzz/` call them, and so do tests with random input. A violated property is a
//! panic.

mod config;
mod event;
mod runtime;
#[cfg(test)]
mod tests;

pub use crate::checkpoint::properties::item;
pub use config::config;
pub use event::{event, event_of};
pub use runtime::runtime;

use crate::config::Config;
use crate::model::rollup::Rollup;

/// The longest error that repeats its input.
const ERROR_BYTES_MAX: usize = 4096;

/// Rollups of every kind of calendar.
const ROLLUPS: &str = r#"
source.url = "postgres://tally@localhost/app"
[[rollup]]
name = "daily"
from = "events"
time = "created_at"
start = "2026-02-01"
slice = "1 day"
timezone = "America/Havana"
grace = "366 days"
lookback = 3
measures = { events = "count" }
[[rollup]]
name = "quarters"
from = "events"
time = "created_at"
start = "2026-02-01"
slice = "15 minutes"
timezone = "Australia/Lord_Howe"
measures = { events = "count" }
[[rollup]]
name = "monthly"
from = { rollup = "daily" }
slice = "1 month"
measures = { events = { sum = "events" } }
[[rollup]]
name = "weekly"
from = "events"
time = "created_at"
start = "0001-01-01"
slice = "1 week"
timezone = "Pacific/Apia"
measures = { events = "count" }
"#;

/// The rollups that events name.
fn rollups() -> &'static [Rollup] {
    static CONFIG: std::sync::OnceLock<Vec<Rollup>> = std::sync::OnceLock::new();
    CONFIG.get_or_init(|| match Config::parse("tallymark.toml".as_ref(), ROLLUPS, &|_| None) {
        Ok(config) => config.rollups,
        Err(error) => panic!("{error}"),
    })
}

/// An error fits into one line of a log.
fn assert_line(said: &str) {
    assert!(said.lines().count() == 1 && said.len() <= ERROR_BYTES_MAX, "{said:?}");
}
