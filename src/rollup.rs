//! What a rollup is: which source rows, grouped how, measured how, into which table.

pub mod generation;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use sha2::{Digest, Sha256};

use crate::measure::Measure;
use crate::slice::{Calendar, Slice, Width};
pub use crate::sql::TableName;

/// A rollup: the definition of one table of statistics.
#[derive(Clone, Debug)]
pub struct Rollup {
    /// The name: the table's name in the target schema and the checkpoint's partition key.
    pub name: String,
    /// The source table or view; of a coarse rollup the finer one's table in the target.
    pub from: TableName,
    /// The finer rollup that this coarse one is computed from, instead of the source.
    pub fine: Option<Arc<Self>>,
    /// The column that places a row in time.
    pub time: TimeColumn,
    /// History begins here; no slice before it exists. Aligned to the calendar.
    pub start: DateTime<Utc>,
    /// How time is cut into slices.
    pub calendar: Calendar,
    /// The output's time resolution; divides the slice.
    pub bucket: Width,
    /// How long after a slice's end, by the database's clock, its rows may still arrive.
    pub grace: Duration,
    /// A slice runs again whenever the slice so many slices later has become readable. Ascending.
    pub lookback: Vec<u32>,
    /// How changes of rows are noticed whose slice has been read already.
    pub late: Late,
    /// SQL condition that a source row must meet.
    pub filter: Option<String>,
    /// The dimensions: source columns to group by.
    pub group_by: Vec<String>,
    /// What is computed for each group, in the order of the definition file.
    pub measures: Vec<Measure>,
    /// Least share of the rows counted before that a recomputation must still find, 0 to 1.
    pub shrink_guard: f64,
    /// Slices that start before this instant are never recomputed.
    pub seal_before: Option<DateTime<Utc>>,
    /// Whether a slice is refused whose statement would read far more rows than it holds.
    pub plan_guard: bool,
}

/// The column that places a source row in time, and how to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeColumn {
    /// The column's name exactly as PostgreSQL stores it.
    pub column: String,
    /// The zone of a `timestamp` or `date` column; `None`: UTC for `timestamp`, the rollup's zone
    /// for `date`.
    pub zone: Option<Tz>,
    /// The unit of an integer column.
    pub unit: Option<EpochUnit>,
}

/// How changes of source rows are noticed whose slice has been read already. What each way
/// guarantees, and what it needs: docs/ACCURACY.md.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Late {
    /// Not at all, but by `lookback`, a replay or `verify`.
    #[default]
    Grace,
    /// There are none: the database stamps rows, and nobody changes them. A slice is read when
    /// every transaction has ended that began before its end.
    Clock,
    /// By a trigger on the source table, which marks the hours of late changes.
    Capture,
    /// By a column that holds when a row was written last, and has an index.
    Column(TimeColumn),
}

impl Late {
    /// The word for it in the configuration, in checkpoints and in reports.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Grace => "grace",
            Self::Clock => "clock",
            Self::Capture => "capture",
            Self::Column(_) => "column",
        }
    }

    /// The column that holds when a row was written last.
    #[must_use]
    pub fn column(&self) -> Option<&str> {
        match self {
            Self::Column(column) => Some(&column.column),
            Self::Grace | Self::Clock | Self::Capture => None,
        }
    }
}

/// The unit of an integer time column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EpochUnit {
    /// Seconds since 1970-01-01T00:00:00Z.
    Seconds,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    Milliseconds,
}

impl EpochUnit {
    /// The word for it in the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
        }
    }

    /// How many of it make a second.
    #[must_use]
    pub const fn per_second(self) -> i64 {
        match self {
            Self::Seconds => 1,
            Self::Milliseconds => 1000,
        }
    }
}

impl Rollup {
    /// Hash of everything that decides which numbers the rollup holds: 16 hexadecimal digits, of
    /// which the first 8 are a hash of what decides which source rows are counted in which slice.
    /// Two definitions that share them must find equally many rows, so that the shrink guard can
    /// tell a purged source where a measure was added.
    ///
    /// Settings that only decide when or how carefully a slice is computed (`start`, `grace`,
    /// `lookback`, `late`, `shrink_guard`, `seal_before`, `plan_guard`) are left out: changing them makes nothing
    /// stale.
    #[must_use]
    pub fn definition(&self) -> String {
        let mut rows = serde_json::json!({
            "from": [self.from.schema, self.from.name],
            "time": [
                self.time.column,
                self.time.zone.map(Tz::name),
                self.time.unit.map(|unit| format!("{unit:?}")),
            ],
            "slice": self.calendar.width().to_string(),
            "zone": self.calendar.zone().name(),
            "where": self.filter,
        });
        if let Some(fine) = &self.fine {
            // Other rows there are other rows here; another name of the same rows is none.
            rows["from"] = serde_json::Value::Null;
            rows["fine"] = fine.definition().into();
        }
        let all = serde_json::json!({
            "rows": rows,
            "bucket": self.bucket.to_string(),
            "group_by": self.group_by,
            "measures": self.measures.iter().map(Measure::definition).collect::<Vec<_>>(),
        });
        [rows, all]
            .iter()
            .flat_map(|text| Sha256::digest(text.to_string().as_bytes())[..4].to_vec())
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The calendar by which its slices are cut, in words: `1 day, America/New_York`. Of a coarse rollup
    /// those of the finer ones too: their slices decide what its own are made of.
    #[must_use]
    pub fn calendar_words(&self) -> String {
        let own = format!("{}, {}", self.calendar.width(), self.calendar.zone());
        match &self.fine {
            Some(fine) => format!("{own}, of {}", fine.calendar_words()),
            None => own,
        }
    }

    /// Whether slices that start then are never computed again.
    #[must_use]
    pub fn is_sealed_at(&self, start: DateTime<Utc>) -> bool {
        self.seal_before.is_some_and(|seal| start < seal)
    }

    /// When the rows of `slice` may be read: its end, and the grace after it.
    #[must_use]
    pub fn readable_at(&self, slice: Slice) -> DateTime<Utc> {
        slice.end() + TimeDelta::from_std(self.grace).unwrap_or(TimeDelta::MAX)
    }

    /// The newest slice that may be read at `now`; `None` if there is none yet.
    #[must_use]
    pub fn newest(&self, now: DateTime<Utc>) -> Option<Slice> {
        let grace = TimeDelta::from_std(self.grace).unwrap_or(TimeDelta::MAX);
        let running = self.calendar.containing(now - grace);
        let newest = self.calendar.previous(running);
        (newest.start() >= self.start).then_some(newest)
    }

    /// Whether it is computed directly from `fine`.
    #[must_use]
    pub fn is_computed_from(&self, fine: &Self) -> bool {
        self.fine.as_ref().is_some_and(|own| own.name == fine.name)
    }

    /// How many rollups stand between it and the source.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.fine.as_ref().map_or(0, |fine| 1 + fine.depth())
    }
}
