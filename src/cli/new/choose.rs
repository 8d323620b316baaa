//! What to count, by what the catalogue says: a pure choice that always has the same result.

use std::collections::HashSet;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use chrono_tz::Tz;

use super::catalogue::{
    CatalogueColumn, CatalogueServer, CatalogueTable, Content, Seen, TimeExtent, instant,
};
use super::words::{self, NAME_MAX, Number};
use crate::config::{RESERVED, StoreKind};
use crate::model::clock::rfc3339_seconds;
use crate::model::rollup::EpochUnit;
use crate::model::slice::{Calendar, Width};
use crate::model::sql::TableName;

/// Dimensions with few values.
const GROUPS_MAX: usize = 2;

/// Measures beside the count.
const NUMBERS_MAX: usize = 3;

/// A dimension with more values than this makes a table that few people read.
const VALUES_MAX: f64 = 100.0;

/// A dimension has this many rows for each of its values, an entity key on each day, so that the rollup is
/// much smaller than the table.
const ROWS_PER_ENTITY_MIN: f64 = 4.0;

/// A day of more rows than this is cut into hours.
const ROWS_PER_DAY_MAX: f64 = 5_000_000.0;

/// An index is worth this factor in size, as a power of two.
const INDEX_WEIGHT: f64 = 14.0;

/// The first row of a sample of 30,000 rows is close to the first row of all.
const SAMPLE_MISSES: TimeDelta = TimeDelta::days(60);

/// Slices before the first row cost nothing, so that history may begin too early.
const HISTORY_MAX: TimeDelta = TimeDelta::days(10 * 365);

/// History begins in this year or later.
const YEAR_MIN: i32 = 1900;

const PAGE_BYTES: f64 = 8192.0;

/// A row of a table without statistics, with all that belongs to it.
const ROW_BYTES: f64 = 100.0;

/// A table that can be counted, and its best time column.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct CountableTable<'t> {
    pub(super) table: &'t CatalogueTable,
    pub(super) time: &'t CatalogueColumn,
    score: f64,
}

/// The definition to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Proposed {
    pub(super) name: String,
    pub(super) from: TableName,
    pub(super) time: String,
    pub(super) content: Content,
    /// What an integer counts.
    pub(super) unit: Option<EpochUnit>,
    /// The start of history as the file writes it: a date, or an instant.
    pub(super) start: String,
    pub(super) begins_by: Begin,
    pub(super) slice: Width,
    pub(super) lookback: Vec<u32>,
    pub(super) group_by: Vec<String>,
    /// Name, kind, and the column that is measured: a count has none.
    pub(super) measures: Vec<(String, &'static str, Option<String>)>,
    pub(super) store: StoreKind,
}

/// How `new` found the start of history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Begin {
    /// It is the time of the table's first row.
    FirstRow,
    /// The planner's statistics show an early row, and `new` begins some time before it.
    Sample,
    /// The table is empty, so it begins today.
    Empty,
    /// The table has no statistics, and a search for its first row would read much.
    Unknown,
}

impl<'t> CountableTable<'t> {
    /// The best time column of `table`, or `None`: it has none that this role may read.
    pub(super) fn of(table: &'t CatalogueTable) -> Option<Self> {
        let columns = table.columns.iter().filter(|column| is_time(column));
        let weigh = |column: &'t CatalogueColumn| {
            let index = if column.index.is_some() { INDEX_WEIGHT } else { 0.0 };
            (index + f64::from(words::time_weight(&column.name)), column)
        };
        // Of equals the first column.
        let (weight, time) = columns.map(weigh).reduce(|best, next| match next.0 > best.0 {
            true => next,
            false => best,
        })?;
        #[expect(clippy::cast_precision_loss, reason = "a logarithm is taken")]
        let pages = table.bytes.max(0) as f64 / PAGE_BYTES;
        Some(Self { table, time, score: weight + (1.0 + pages).log2() })
    }

    /// The number of rows, by the statistics or by the size.
    pub(super) fn rows(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let bytes = self.table.bytes.max(0) as f64;
        self.table.rows.unwrap_or(bytes / ROW_BYTES)
    }

    /// Rows per day. `None`: where history begins is unknown.
    fn rows_per_day(&self, range: TimeExtent, now: DateTime<Utc>) -> Option<f64> {
        let unit = unit(self.time, range);
        let (first, last) = (seconds(range.first?, unit), seconds(range.last?, unit));
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let last = last.min(now.timestamp() as f64);
        Some(self.rows() / ((last - first) / 86_400.0).max(1.0))
    }

    /// The best width of a slice.
    pub(super) fn width(&self, range: TimeExtent, now: DateTime<Utc>) -> Width {
        let is_many = self.rows_per_day(range, now).is_some_and(|rows| rows > ROWS_PER_DAY_MAX);
        if is_many && self.time.content != Content::Date { Width::HOUR } else { Width::DAY }
    }
}

/// The tables that can be counted, best first.
pub(super) fn candidates(tables: &[CatalogueTable]) -> Vec<CountableTable<'_>> {
    let is_right =
        |table: &&CatalogueTable| table.is_readable && !table.is_filtered && !table.is_rollup;
    let mut found: Vec<_> = tables.iter().filter(is_right).filter_map(CountableTable::of).collect();
    // A stable sort: tables come by size and name.
    found.sort_by(|one, other| other.score.total_cmp(&one.score));
    found
}

/// Whether a column can place rows in time.
fn is_time(column: &CatalogueColumn) -> bool {
    let is_right = match column.content {
        Content::Instant | Content::LocalTime | Content::Date => true,
        Content::Integer | Content::Bigint => {
            !column.is_unique && !column.is_reference && words::is_counted_time(&column.name)
        }
        _ => false,
    };
    is_right && column.is_readable
}

/// What an integer column counts, by its newest value, else by its name. `None`: it is a time
/// already.
pub(super) fn unit(column: &CatalogueColumn, range: TimeExtent) -> Option<EpochUnit> {
    /// As seconds this is the year 5138, as milliseconds 1973.
    const SECONDS_MAX: f64 = 1e11;
    if !matches!(column.content, Content::Integer | Content::Bigint) {
        return None;
    }
    let is_large = match range.last {
        Some(last) => last > SECONDS_MAX,
        None => words::is_milliseconds(&column.name),
    };
    // An `integer` ends with the year 2038 in seconds, and cannot hold today in milliseconds.
    let is_milliseconds = is_large && column.content == Content::Bigint;
    Some(if is_milliseconds { EpochUnit::Milliseconds } else { EpochUnit::Seconds })
}

/// Whether the newest value of an integer column is a time at all, in seconds or milliseconds.
pub(super) fn is_plausible(column: &CatalogueColumn, range: TimeExtent) -> bool {
    /// From 1973 in seconds until 5138 in milliseconds.
    const TIMES: std::ops::RangeInclusive<f64> = 1e8..=1e14;
    let is_counted = matches!(column.content, Content::Integer | Content::Bigint);
    !is_counted || range.last.is_none_or(|last| TIMES.contains(&last))
}

fn seconds(value: f64, unit: Option<EpochUnit>) -> f64 {
    if unit == Some(EpochUnit::Milliseconds) { value / 1000.0 } else { value }
}

/// The definition of a rollup over `candidate`, in slices of `slice`.
pub(super) fn draft(
    candidate: &CountableTable<'_>,
    range: TimeExtent,
    server: &CatalogueServer,
    (slice, store): (Width, StoreKind),
) -> Proposed {
    let CountableTable { table, time, .. } = *candidate;
    let unit = unit(time, range);
    let (start, begins_by) = start(candidate, range, (slice, server.now));
    let rows_per_day = candidate.rows_per_day(range, server.now);
    let group_by = dimensions(candidate, rows_per_day);
    Proposed {
        name: name(table, slice, &server.taken),
        from: table.name.clone(),
        time: time.name.clone(),
        content: time.content,
        unit,
        start: shown(start),
        begins_by,
        slice,
        lookback: lookback(slice),
        measures: measures(candidate, &group_by),
        group_by,
        store,
    }
}

/// Where history begins: the start of a slice.
fn start(
    candidate: &CountableTable<'_>,
    range: TimeExtent,
    (slice, now): (Width, DateTime<Utc>),
) -> (DateTime<Utc>, Begin) {
    let unit = unit(candidate.time, range);
    let first = range.first.and_then(|first| instant(seconds(first, unit)));
    let first = first.filter(|first| *first <= now && first.year() >= YEAR_MIN);
    let (first, by) = match first {
        Some(first) if range.seen == Seen::Rows => (first, Begin::FirstRow),
        Some(first) => (first - SAMPLE_MISSES, Begin::Sample),
        None if range.seen == Seen::Rows => (now, Begin::Empty),
        None => (now - HISTORY_MAX, Begin::Unknown),
    };
    (Calendar::new(slice, Tz::UTC).containing(first).start(), by)
}

/// A date, or an instant within a day.
fn shown(start: DateTime<Utc>) -> String {
    match start.timestamp() % 86_400 {
        0 => start.format("%Y-%m-%d").to_string(),
        _ => rfc3339_seconds(start),
    }
}

/// A slice is computed again after the next one, and once more a week or a day later.
fn lookback(slice: Width) -> Vec<u32> {
    if slice == Width::DAY {
        return vec![1, 7];
    }
    let per_day = u32::try_from(86_400 / slice.approximate().as_secs().max(1)).unwrap_or(0);
    if (2..=366).contains(&per_day) { vec![1, per_day] } else { vec![1] }
}

/// A name for the rollup that no other relation of the schema has.
fn name(table: &CatalogueTable, slice: Width, taken: &[String]) -> String {
    /// Room for the longest ending and a number.
    const STEM_MAX: usize = NAME_MAX - 12;
    let ending = match slice {
        Width::HOUR => "hourly",
        Width::DAY => "daily",
        Width::WEEK => "weekly",
        Width::MONTH => "monthly",
        _ => "rollup",
    };
    let stem = format!("{}_{ending}", words::plain(&table.name.name, STEM_MAX));
    free(&stem, |name| taken.iter().any(|taken| taken == name))
}

/// `stem`, or the first of `stem_2`, `stem_3`, … that is not taken.
fn free(stem: &str, is_taken: impl Fn(&str) -> bool) -> String {
    // As many names are taken as there are columns and tables, so a few more are enough.
    let numbered = (2..100_000).map(|number| format!("{stem}_{number}"));
    let mut names = std::iter::once(stem.to_owned()).chain(numbered);
    names.find(|name| !is_taken(name)).unwrap_or_else(|| stem.to_owned())
}

/// Whether a rollup table can have a column of this name.
fn is_free(name: &str) -> bool {
    !name.starts_with("__") && RESERVED.iter().all(|(reserved, _)| *reserved != name)
}

/// The columns to group by: an entity key first, then columns with few values.
fn dimensions(candidate: &CountableTable<'_>, rows_per_day: Option<f64>) -> Vec<String> {
    let CountableTable { table, time, .. } = candidate;
    let is_right = |column: &&CatalogueColumn| {
        column.is_readable
            && !column.is_unique
            && column.name != time.name
            && is_free(&column.name)
            && !words::is_private(&column.name)
    };
    let columns: Vec<&CatalogueColumn> = table.columns.iter().filter(is_right).collect();
    // As many values as rows make a copy of the table.
    let is_few = |values: f64| table.rows.is_none_or(|rows| rows >= values * ROWS_PER_ENTITY_MIN);
    let groups = columns.iter().filter(|column| column.distinct.is_none_or(is_few));
    let mut groups: Vec<(u8, &CatalogueColumn)> =
        groups.filter_map(|column| Some((group_weight(column)?, *column))).collect();
    groups.sort_by_key(|(weight, _)| std::cmp::Reverse(*weight));
    groups.truncate(GROUPS_MAX);
    let keys = || columns.iter().filter(|column| is_key(column)).copied();
    let compresses = |column: &&CatalogueColumn| {
        let rows = rows_per_day.zip(column.distinct);
        rows.is_some_and(|(rows, values)| values > 1.0 && rows >= values * ROWS_PER_ENTITY_MIN)
    };
    let entity = keys().find(compresses);
    // Without statistics a key is better than no dimension at all.
    let is_unknown =
        |column: &&CatalogueColumn| column.distinct.is_none() || rows_per_day.is_none();
    let entity = entity.or_else(|| keys().find(is_unknown).filter(|_| groups.is_empty()));
    let chosen = entity.into_iter().chain(groups.into_iter().map(|(_, column)| column));
    let mut seen = HashSet::new();
    chosen.map(|column| column.name.clone()).filter(|name| seen.insert(name.clone())).collect()
}

fn is_key(column: &CatalogueColumn) -> bool {
    let can_be = matches!(
        column.content,
        Content::Integer | Content::Bigint | Content::Text | Content::Uuid
    );
    can_be && (column.is_reference || words::is_key(&column.name))
}

/// How well a column with few values groups rows. `None`: not at all.
fn group_weight(column: &CatalogueColumn) -> Option<u8> {
    let is_word = words::is_group(&column.name);
    let is_right = match column.content {
        Content::Enum | Content::Text | Content::Boolean => !is_key(column),
        Content::Integer => is_word && !is_key(column),
        _ => false,
    };
    let has_few = match column.distinct {
        Some(values) => (2.0..=VALUES_MAX).contains(&values.round()),
        None => is_word || column.content == Content::Enum,
    };
    let weight = 4 * u8::from(is_word)
        + 2 * u8::from(column.content == Content::Enum)
        + u8::from(column.content != Content::Boolean);
    (is_right && has_few).then_some(weight)
}

/// The count, and sums and means of numbers.
fn measures(
    candidate: &CountableTable<'_>,
    group_by: &[String],
) -> Vec<(String, &'static str, Option<String>)> {
    /// Room for a number and the endings of an average.
    const STEM_MAX: usize = NAME_MAX - 12;
    let CountableTable { table, time, .. } = candidate;
    let is_right = |column: &&CatalogueColumn| {
        column.is_readable && !column.is_unique && !column.is_reference && column.name != time.name
    };
    let mut numbers: Vec<(u8, &CatalogueColumn, &'static str)> = Vec::new();
    for column in table.columns.iter().filter(is_right) {
        let is_decimal = column.content == Content::Decimal;
        if !is_decimal && !matches!(column.content, Content::Integer | Content::Bigint) {
            continue;
        }
        match words::number(&column.name) {
            Number::Sum => numbers.push((2, column, "sum")),
            Number::Mean => numbers.push((1, column, "avg")),
            Number::Unknown if is_decimal => numbers.push((0, column, "sum")),
            Number::Unknown | Number::Label => {}
        }
    }
    numbers.sort_by_key(|(weight, ..)| std::cmp::Reverse(*weight));
    numbers.truncate(NUMBERS_MAX);
    let mut used: HashSet<String> = group_by.iter().cloned().collect();
    // An average has two more columns.
    let names = |name: &str| [name.to_owned(), format!("{name}_sum"), format!("{name}_count")];
    let mut named = |stem: &str| {
        let is_taken = |name: &str| names(name).iter().any(|it| used.contains(it) || !is_free(it));
        let name = free(&words::plain(stem, STEM_MAX), is_taken);
        used.extend(names(&name));
        name
    };
    let count = (named(&words::counted(&table.name.name)), "count", None);
    let number = |(_, column, kind): (u8, &CatalogueColumn, &'static str)| {
        (named(&column.name), kind, Some(column.name.clone()))
    };
    std::iter::once(count).chain(numbers.into_iter().map(number)).collect()
}
