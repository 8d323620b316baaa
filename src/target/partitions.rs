//! The partitions of a rollup's table, for `partition_by`: those that it has, and those that it needs.
//!
//! A partition is created as a table of its own and then attached. That lock on the rollup's table
//! lets readers and replacements pass, and keeps others from attaching a partition meanwhile. `CREATE
//! TABLE … PARTITION OF` would stop all of them.
//!
//! There is no default partition. Attaching a partition would search it under a lock, and a row outside
//! of all partitions is a fault that must show.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::Target;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbError, Tx};
use crate::model::clock::rfc3339_seconds;
use crate::model::rollup::{BucketType, Rollup};
use crate::model::slice::{Calendar, Width};
use crate::model::sql::{ident, literal};

/// The time from one instant to another.
pub(super) type Span = (DateTime<Utc>, DateTime<Utc>);

/// The partitions of each rollup's table, as far as this process has seen them.
pub type KnownPartitions = Arc<Mutex<HashMap<String, Vec<Span>>>>;

const DOING: &str = "looking up the partitions";

/// A partition of a rollup's table.
pub(super) struct Partition {
    /// The table, quoted.
    pub(super) name: String,
    pub(super) span: Span,
}

/// The partitions of the rollup's table, in the order of time. An empty list may also mean that the
/// table does not exist.
pub(super) async fn found(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
) -> Result<Vec<Partition>, DbError> {
    let as_instant = match rollup.bucket_as {
        BucketType::Instant => "::timestamptz".to_owned(),
        BucketType::Date => {
            format!("::date::timestamp AT TIME ZONE {}", literal(rollup.calendar.zone().name()))
        }
    };
    let relation = literal(&target.table(rollup));
    let sql = format!(include_str!("partitions.sql"), relation = relation, as_instant = as_instant);
    let rows = tx.rows(DOING, sql).await?;
    let partition = |row: &PgRow| {
        let bounds: (Option<DateTime<Utc>>, Option<DateTime<Utc>>) =
            (row.try_get("first")?, row.try_get("last")?);
        let name = row.try_get("name")?;
        Ok(bounds.0.zip(bounds.1).map(|span| Partition { name, span }))
    };
    let all: Result<Vec<_>, sqlx::Error> = rows.iter().map(partition).collect();
    Ok(all.map_err(|source| tx.error(DOING, source))?.into_iter().flatten().collect())
}

/// The statements that give the table of `rollup` room for the rows of `now` and of the time after it.
///
/// # Errors
/// The server refuses or cannot be reached.
pub async fn plan(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
    now: DateTime<Utc>,
) -> Result<Vec<String>, DbError> {
    let Some(calendar) = rollup.partitions() else { return Ok(Vec::new()) };
    let start = now.max(rollup.start);
    let known: Vec<Span> = found(tx, target, rollup).await?.into_iter().map(|it| it.span).collect();
    let needed = needed(rollup, calendar, &known, (start, start));
    Ok(needed.into_iter().flat_map(|span| making(target, rollup, calendar, span)).collect())
}

/// The statements that give the partitions of `table` the names that they have for the rollup `new`.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn renaming(
    tx: &mut Tx,
    table: &str,
    old: &str,
    new: &str,
) -> Result<Vec<String>, DbError> {
    let (old, new) = (prefix(old), prefix(new));
    let sql = format!(
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = to_regclass({}) AND c.relnamespace = to_regnamespace('tallymark') \
         AND starts_with(c.relname::text, {}) ORDER BY 1",
        literal(table),
        literal(&old)
    );
    let rows = tx.rows(DOING, sql).await?;
    let names: Result<Vec<String>, _> = rows.iter().map(|row| row.try_get(0)).collect();
    let names = names.map_err(|source| tx.error(DOING, source))?;
    let renamed = names.iter().filter_map(|name| Some((name, name.strip_prefix(&old)?)));
    let statement = |(name, rest): (&String, &str)| {
        let name = ident(name);
        format!("ALTER TABLE tallymark.{name} RENAME TO {}", ident(&format!("{new}{rest}")))
    };
    Ok(renamed.map(statement).collect())
}

impl Target {
    /// Gives the table of `rollup` room for the rows from `start` to `end`, and for the time after
    /// them.
    ///
    /// # Errors
    /// The role does not own the table, another table has the partition's name, or the server
    /// refuses or cannot be reached.
    pub(super) async fn make_room(
        &self,
        rollup: &Rollup,
        span: Span,
        timeout: Duration,
    ) -> Result<(), DbError> {
        const LOCKING: &str = "locking the table against other new partitions";
        const MAKING: &str = "making a partition";
        let Some(calendar) = rollup.partitions() else { return Ok(()) };
        let has_room = |known: Vec<Span>| needed(rollup, calendar, &known, span).is_empty();
        if self.known_partitions(rollup).is_some_and(has_room) {
            return Ok(());
        }
        let limit = timeout.min(CATALOGUE_TIMEOUT);
        let mut tx = self.db.begin(Access::ReadWrite, limit, &rollup.name).await?;
        let table = self.table(rollup);
        let lock = format!("LOCK TABLE ONLY {table} IN SHARE UPDATE EXCLUSIVE MODE");
        tx.execute(LOCKING, lock).await?;
        // Another worker may have made them while this one waited.
        let found = found(&mut tx, self, rollup).await?;
        let mut known: Vec<Span> = found.into_iter().map(|it| it.span).collect();
        let needed = needed(rollup, calendar, &known, span);
        for missing in &needed {
            for statement in making(self, rollup, calendar, *missing) {
                tx.execute(MAKING, statement).await?;
            }
        }
        tx.commit().await?;
        known.extend(needed);
        known.sort_unstable();
        self.set_partitions(rollup, known);
        Ok(())
    }

    /// Remembers the partitions of the rollup's table, which `tx` reads.
    pub(super) async fn read_partitions(
        &self,
        tx: &mut Tx,
        rollup: &Rollup,
    ) -> Result<(), DbError> {
        if rollup.partition_by.is_some() {
            let found = found(tx, self, rollup).await?;
            self.set_partitions(rollup, found.into_iter().map(|it| it.span).collect());
        }
        Ok(())
    }

    fn known_partitions(&self, rollup: &Rollup) -> Option<Vec<Span>> {
        let known = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&rollup.name).cloned()
    }

    fn set_partitions(&self, rollup: &Rollup, spans: Vec<Span>) {
        let mut known = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(rollup.name.clone(), spans);
    }

    /// Forgets the partitions of the rollup's table, as some are gone.
    pub(super) fn forget_partitions(&self, rollup: &Rollup) {
        let mut known = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        known.remove(&rollup.name);
    }
}

/// The partitions to make, so that those of `calendar` have room from the first instant of `span` to
/// the end of the partition after its last one.
fn needed(rollup: &Rollup, calendar: Calendar, known: &[Span], (start, end): Span) -> Vec<Span> {
    let last = calendar.containing(if end > start { end - TICK } else { end });
    let gaps = gaps(calendar, known, (start, calendar.next(last).end()));
    // Where buckets are dates, less than a day is no room for any.
    let is_room = |(start, end): &Span| rollup.time_at(*start) != rollup.time_at(*end);
    gaps.into_iter().filter(is_room).collect()
}

/// The shortest time that a server tells apart.
const TICK: TimeDelta = TimeDelta::microseconds(1);

/// The parts of the periods of `calendar` that hold `span` which none of the `known` partitions covers.
/// These may be of another calendar.
fn gaps(calendar: Calendar, known: &[Span], (start, end): Span) -> Vec<Span> {
    let mut gaps = Vec::new();
    let mut period = calendar.containing(start);
    while period.start() < end {
        let mut free = period.start();
        for (first, last) in known {
            if *first < period.end() && *last > free {
                if *first > free {
                    gaps.push((free, *first));
                }
                free = *last;
            }
        }
        if free < period.end() {
            gaps.push((free, period.end()));
        }
        period = calendar.next(period);
    }
    gaps
}

/// The statements that make one partition of the rollup's table.
fn making(target: &Target, rollup: &Rollup, calendar: Calendar, span: Span) -> [String; 3] {
    let table = target.table(rollup);
    let partition = format!("tallymark.{}", ident(&name_of(rollup, calendar, span)));
    let (start, end) = span;
    let comment = format!(
        "Tallymark rollup, buckets from {} until {}",
        rfc3339_seconds(start),
        rfc3339_seconds(end)
    );
    [
        // Its indexes come with the attachment.
        format!("CREATE TABLE {partition} (LIKE {table} INCLUDING ALL EXCLUDING INDEXES)"),
        format!("COMMENT ON TABLE {partition} IS {}", literal(&comment)),
        format!(
            "ALTER TABLE {table} ATTACH PARTITION {partition} FOR VALUES FROM ({}) TO ({})",
            rollup.time_at(start),
            rollup.time_at(end)
        ),
    ]
}

/// The beginning of the names of a rollup's partitions.
fn prefix(rollup: &str) -> String {
    format!("part_{rollup}_")
}

/// The name of a partition: with its month or year, or with its first second where it is a part of one.
fn name_of(rollup: &Rollup, calendar: Calendar, (start, end): Span) -> String {
    let zone = calendar.zone();
    let is = |width| {
        let whole = Calendar::new(width, zone).containing(start);
        (whole.start(), whole.end()) == (start, end)
    };
    let local = start.with_timezone(&zone);
    let prefix = prefix(&rollup.name);
    match () {
        () if is(Width::MONTH) => format!("{prefix}{}", local.format("%Y_%m")),
        () if is(Width::YEAR) => format!("{prefix}{}", local.format("%Y")),
        () => format!("{prefix}{:08x}", start.timestamp().rem_euclid(1 << 32)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn span(start: &str, end: &str) -> Span {
        let instant = |text: &str| match text.len() {
            10 => at(&format!("{text}T00:00:00Z")),
            _ => at(text),
        };
        (instant(start), instant(end))
    }

    fn calendar(width: Width, zone: &str) -> Calendar {
        Calendar::new(width, zone.parse().unwrap())
    }

    #[test]
    fn gaps_are_the_periods_and_parts_of_them_that_no_partition_covers() {
        let months = calendar(Width::MONTH, "UTC");
        let (january, february) =
            (span("2026-01-01", "2026-02-01"), span("2026-02-01", "2026-03-01"));
        let whole = span("2026-01-20", "2026-02-02");
        assert_eq!(gaps(months, &[], whole), [january, february]);
        assert_eq!(gaps(months, &[january], whole), [february]);
        assert!(gaps(months, &[january, february], whole).is_empty());
        // The partitions of another width and of another zone stay as they are.
        let years = calendar(Width::YEAR, "UTC");
        assert_eq!(gaps(years, &[january], whole), [span("2026-02-01", "2027-01-01")]);
        let local = calendar(Width::MONTH, "America/New_York");
        assert_eq!(
            gaps(local, &[january], whole),
            [
                span("2026-02-01", "2026-02-01T05:00:00Z"),
                span("2026-02-01T05:00:00Z", "2026-03-01T05:00:00Z")
            ]
        );
        let across = span("2025-12-31T23:00:00Z", "2026-01-31T23:00:00Z");
        assert_eq!(
            gaps(months, &[across, february], whole),
            [span("2026-01-31T23:00:00Z", "2026-02-01")]
        );
    }

    /// What every sequence of changes of the calendar must leave: partitions that never overlap and
    /// that cover all that was asked for.
    #[test]
    fn partitions_of_any_calendars_cover_each_span_once() {
        const ZONES: [&str; 4] = ["UTC", "Europe/Berlin", "Pacific/Apia", "America/Sao_Paulo"];
        let mut random = fastrand::Rng::with_seed(18);
        for _ in 0..200 {
            let mut known: Vec<Span> = Vec::new();
            for _ in 0..6 {
                let width = if random.bool() { Width::MONTH } else { Width::YEAR };
                let calendar = calendar(width, ZONES[random.usize(..ZONES.len())]);
                let start = at("2010-01-01T00:00:00Z") + TimeDelta::hours(random.i64(0..30_000));
                let asked = (start, start + TimeDelta::hours(random.i64(1..3_000)));
                known.extend(gaps(calendar, &known, asked));
                known.sort_unstable();
                assert!(known.windows(2).all(|two| two[0].1 <= two[1].0), "{known:?}");
                assert!(gaps(calendar, &known, asked).is_empty());
            }
        }
    }
}
