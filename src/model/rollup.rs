//! The definition of a rollup: which source rows are counted, their groups and measures, and the
//! table of the result.

pub(crate) mod expect;
pub(crate) mod generation;
pub(crate) mod mirror;
mod window;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use chrono_tz::Tz;
use sha2::{Digest, Sha256};

use crate::model::lookup::Lookup;
use crate::model::measure::Measure;
use crate::model::operand::{GroupKey, Operand};
use crate::model::slice::{Calendar, Slice, Trailing, Width};
pub(crate) use crate::model::sql::TableName;
use crate::model::sql::{date, ident, literal, timestamptz};
use expect::Expect;
use mirror::{CREATED_AT, Mirror};

/// A rollup: the definition of one table of statistics.
#[derive(Clone, Debug)]
pub struct Rollup {
    /// The name, which is the table's name in the target schema and the checkpoint's partition key.
    pub name: String,
    /// The source table or view. For a coarse rollup it is the finer one's table in the target.
    pub from: TableName,
    /// The finer rollup that a coarse one is computed from, instead of the source.
    pub finer: Option<Arc<Self>>,
    /// How far a slice's window reaches back from its end. `None`: a slice is its own window.
    pub trailing: Option<Trailing>,
    /// Whether the slice that goes on now is computed from the finer slices that are done.
    pub open: bool,
    /// Whether readers have a view of it that aggregates what is not computed yet.
    pub live: bool,
    /// The things of a Bubble app that its table keeps, instead of groups.
    pub mirror: Option<Arc<Mirror>>,
    /// The tables whose columns stand beside each row of the source.
    pub lookups: Vec<Lookup>,
    /// The column that places a row in time.
    pub time: TimeColumn,
    /// The start of history, aligned to the calendar. Slices start here or later.
    pub start: DateTime<Utc>,
    /// How time is cut into slices.
    pub calendar: Calendar,
    /// The output's time resolution, which divides the slice.
    pub bucket: Width,
    /// The type of the column that holds it.
    pub bucket_as: BucketType,
    /// How long after a slice's end, by the database's clock, its rows may still arrive.
    pub grace: Duration,
    /// Offsets, ascending. A slice is recomputed when the slice N places after it becomes readable.
    pub lookback: Vec<u32>,
    /// How changes to already counted slices are noticed.
    pub late: Late,
    /// SQL condition that a source row must meet.
    pub filter: Option<String>,
    /// The dimensions.
    pub group_by: Vec<GroupKey>,
    /// The measures of each group, in the order of the definition file.
    pub measures: Vec<Measure>,
    /// Least share of the previous row count that a recomputation must still find, 0 to 1.
    pub shrink_guard: f64,
    /// Slices that start before this instant are never recomputed.
    pub seal_before: Option<DateTime<Utc>>,
    /// How long its rows are kept at least. `None`: for ever.
    pub keep: Option<Duration>,
    /// The width of the partitions of its table. `None`: the table is in one piece.
    pub partition_by: Option<Width>,
    /// Whether a slice is refused if its statement would read far more rows than it has.
    pub plan_guard: bool,
    /// What the numbers of its newest slice are compared with, for notices.
    pub expect: Expect,
}

/// The type of a rollup table's column `bucket`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BucketType {
    /// The first instant of the bucket.
    #[default]
    Instant,
    /// The first local date of the bucket, in the rollup's zone.
    Date,
}

impl BucketType {
    /// Its name in the configuration.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Instant => "timestamptz",
            Self::Date => "date",
        }
    }

    /// The column's type, as PostgreSQL's catalogue names it.
    #[must_use]
    pub(crate) const fn sql_type(self) -> &'static str {
        match self {
            Self::Instant => "timestamp with time zone",
            Self::Date => "date",
        }
    }
}

/// The column that places a source row in time, and how to read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeColumn {
    /// The column's name exactly as PostgreSQL stores it.
    pub(crate) column: String,
    /// The zone of a `timestamp` or `date` column. `None`: UTC for `timestamp`, the rollup's zone
    /// for `date`.
    pub(crate) zone: Option<Tz>,
    /// The unit of an integer column.
    pub(crate) unit: Option<EpochUnit>,
}

/// How changes to already counted slices are noticed. docs/ACCURACY.md has the guarantees and
/// requirements of each way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Late {
    /// They are noticed only by `lookback`, a replay or `verify`.
    #[default]
    Grace,
    /// There are no such changes: the database stamps the rows, and they never change. A slice is
    /// read once every transaction that began before its end has ended.
    Clock,
    /// By a trigger on the source table, which marks the hours of late changes.
    Capture,
    /// By an indexed column with the time of a row's last change.
    Column(TimeColumn),
}

impl Late {
    /// Its name in the configuration, in checkpoints and in reports.
    #[must_use]
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Grace => "grace",
            Self::Clock => "clock",
            Self::Capture => "capture",
            Self::Column(_) => "column",
        }
    }

    /// The column with the time of a row's last change.
    #[must_use]
    pub(crate) fn column(&self) -> Option<&str> {
        match self {
            Self::Column(column) => Some(&column.column),
            Self::Grace | Self::Clock | Self::Capture => None,
        }
    }
}

/// The unit of an integer time column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EpochUnit {
    /// Seconds since 1970-01-01T00:00:00Z.
    Seconds,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    Milliseconds,
}

impl EpochUnit {
    /// Its name in the configuration.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
        }
    }

    /// How many of them make a second.
    #[must_use]
    pub(crate) const fn per_second(self) -> i64 {
        match self {
            Self::Seconds => 1,
            Self::Milliseconds => 1000,
        }
    }
}

impl Rollup {
    /// Hash of everything that decides the rollup's numbers: 16 hexadecimal digits. The first 8 are
    /// a hash of the settings that decide which source rows are counted in which slice. Two
    /// definitions that share them must find equally many rows, so that the shrink guard can detect
    /// a purged source even after a measure was added.
    ///
    /// `expect` decides only what is told, and is left out too.
    ///
    /// Settings that only decide when or how carefully a slice is computed (`start`, `grace`,
    /// `lookback`, `late`, `open`, `live`, `shrink_guard`, `seal_before`, `keep`, `partition_by`,
    /// `plan_guard`) are left out, so that changing them makes nothing stale.
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
        let deciding: Vec<_> = self.lookups.iter().filter(|it| self.is_chosen_by(it)).collect();
        if !deciding.is_empty() {
            rows["lookup"] = deciding.iter().map(|it| it.definition()).collect();
        }
        if let Some(finer) = &self.finer {
            // Hash the finer rollup's definition, not its name: a rename changes no rows.
            // The key `fine` is part of fingerprints that checkpoints keep.
            rows["from"] = serde_json::Value::Null;
            rows["fine"] = finer.definition().into();
        }
        if let Some(trailing) = self.trailing {
            rows["trailing"] = trailing.to_string().into();
        }
        if let Some(mirror) = &self.mirror {
            rows["things"] = mirror.things();
        }
        let mut all = serde_json::json!({
            "rows": rows,
            "bucket": self.bucket.to_string(),
            "group_by": self.group_by.iter().map(GroupKey::definition).collect::<Vec<_>>(),
            "measures": self.measures.iter().map(Measure::definition).collect::<Vec<_>>(),
        });
        if self.bucket_as == BucketType::Date {
            all["bucket_as"] = self.bucket_as.word().into();
        }
        if !self.lookups.is_empty() {
            all["lookup"] = self.lookups.iter().map(Lookup::definition).collect();
        }
        if let Some(mirror) = &self.mirror {
            all["fields"] = mirror.fields.as_slice().into();
        }
        [rows, all]
            .iter()
            .flat_map(|text| Sha256::digest(text.to_string().as_bytes())[..4].to_vec())
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// Whether its condition reads columns of `lookup`.
    fn is_chosen_by(&self, lookup: &Lookup) -> bool {
        let names = lookup.columns.iter().map(|column| ident(&lookup.named(column)));
        let filter = self.filter.as_deref().unwrap_or_default();
        names.into_iter().any(|name| filter.contains(&name))
    }

    /// The columns and expressions that its dimensions and measures read, each with the key of the
    /// configuration that names it. Conditions may read other columns.
    #[must_use]
    pub(crate) fn reads(&self) -> Vec<(String, Operand)> {
        let keys = self.group_by.iter().map(|key| match key.operand.sql() {
            None => ("group_by".to_owned(), key.operand.clone()),
            Some(_) => (format!("group_by.{}", key.name), key.operand.clone()),
        });
        let measured = self.measures.iter().flat_map(|measure| {
            let key = format!("measures.{}", measure.name);
            measure.reads().into_iter().map(move |operand| (key.clone(), operand))
        });
        keys.chain(measured).collect()
    }

    /// Those of [`Rollup::reads`] that are expressions, each once. Over a finer rollup there are
    /// none: its table has their results.
    #[must_use]
    pub(crate) fn expressions(&self) -> Vec<(String, Operand)> {
        let mut found: Vec<(String, Operand)> = Vec::new();
        if self.finer.as_ref().is_some_and(|finer| finer.mirror.is_none()) {
            return found;
        }
        for (key, operand) in self.reads() {
            if operand.sql().is_some() && found.iter().all(|(_, known)| *known != operand) {
                found.push((key, operand));
            }
        }
        found
    }

    /// Whether it groups by this column or expression.
    #[must_use]
    pub(crate) fn is_grouped_by(&self, operand: &Operand) -> bool {
        self.group_by.iter().any(|key| key.operand == *operand)
    }

    /// Whether it has a dimension of this name.
    #[must_use]
    pub(crate) fn has_dimension(&self, name: &str) -> bool {
        self.group_by.iter().any(|key| key.name == name)
    }

    /// The calendar of its slices, in words: `1 day, America/New_York`. For a coarse rollup the
    /// calendars of the finer ones are appended, as their slices decide its content.
    #[must_use]
    pub(crate) fn calendar_words(&self) -> String {
        let own = format!("{}, {}", self.calendar.width(), self.calendar.zone());
        match &self.finer {
            Some(finer) => format!("{own}, of {}", finer.calendar_words()),
            None => own,
        }
    }

    /// The column of its table that places a row in a slice.
    #[must_use]
    pub(crate) fn time_key(&self) -> &'static str {
        if self.mirror.is_some() { CREATED_AT } else { "bucket" }
    }

    /// `instant` as a literal of the type of that column. It is the start of a local date where the
    /// column is a date.
    #[must_use]
    pub(crate) fn time_at(&self, instant: DateTime<Utc>) -> String {
        match self.bucket_as {
            BucketType::Instant => timestamptz(instant),
            BucketType::Date => date(self.calendar.zone(), instant),
        }
    }

    /// As [`Rollup::time_at`], for an SQL expression of the start or end of a slice. Half a day is
    /// added before the time of day is left out, so that the date is right even where the server
    /// has other rules of the zone.
    #[must_use]
    pub(crate) fn time_of(&self, instant: &str) -> String {
        match self.bucket_as {
            BucketType::Instant => instant.to_owned(),
            BucketType::Date => format!(
                "({instant} AT TIME ZONE {} + interval '12 hours')::date",
                literal(self.calendar.zone().name())
            ),
        }
    }

    /// The calendar that cuts its table into partitions. `None`: the table is in one piece.
    #[must_use]
    pub(crate) fn partitions(&self) -> Option<Calendar> {
        self.partition_by.map(|width| Calendar::new(width, self.calendar.zone()))
    }

    /// Whether slices that start then are sealed.
    #[must_use]
    pub(crate) fn is_sealed_at(&self, start: DateTime<Utc>) -> bool {
        self.seal_before.is_some_and(|seal| start < seal)
    }

    /// The instant from which the rows of `slice` may be read: its end plus the grace.
    #[must_use]
    pub(crate) fn readable_at(&self, slice: Slice) -> DateTime<Utc> {
        slice.end() + TimeDelta::from_std(self.grace).unwrap_or(TimeDelta::MAX)
    }

    /// Whether `slice` goes on at `now`, and is computed all the same.
    #[must_use]
    pub(crate) fn is_open_at(&self, slice: Slice, now: DateTime<Utc>) -> bool {
        self.open && slice.start() < now && now < self.readable_at(slice)
    }

    /// The newest slice that may be read at `now`. `None`: there is none yet.
    #[must_use]
    pub fn newest(&self, now: DateTime<Utc>) -> Option<Slice> {
        let grace = TimeDelta::from_std(self.grace).unwrap_or(TimeDelta::MAX);
        let running = self.calendar.containing(now - grace);
        let newest = self.calendar.previous(running);
        (newest.start() >= self.start).then_some(newest)
    }

    /// The first slice that may not be read yet at `now`.
    #[must_use]
    pub fn next_readable(&self, now: DateTime<Utc>) -> Slice {
        match self.newest(now) {
            Some(newest) => self.calendar.next(newest),
            None => self.calendar.containing(self.start),
        }
    }

    /// Whether it is computed directly from `finer`.
    #[must_use]
    pub fn is_computed_from(&self, finer: &Self) -> bool {
        self.finer.as_ref().is_some_and(|own| own.name == finer.name)
    }

    /// The rollups that it is computed from, the nearest first.
    pub(crate) fn bases(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(self.finer.as_deref(), |finer| finer.finer.as_deref())
    }

    /// The number of rollups between it and the source.
    #[must_use]
    pub(crate) fn depth(&self) -> usize {
        self.finer.as_ref().map_or(0, |finer| 1 + finer.depth())
    }
}
