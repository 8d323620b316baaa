//! The marks of the capture triggers. They are read, and acknowledged once their slices were
//! reopened.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use crate::clients::db::{DbError, Tx};
use crate::model::sql::literal;
use crate::source::changes::consumers;

/// Marks read at a time, which bounds the memory for their IDs.
const MARKS_MAX: usize = 50_000;

/// Hours since 1970 in UTC, including the last one. `None` means all of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MarkedHours(Option<(i64, i64)>);

impl MarkedHours {
    /// All of time.
    pub(crate) const ALL: Self = Self(None);

    /// The hour of an instant.
    pub(crate) fn at(instant: DateTime<Utc>) -> Self {
        let hour = instant.timestamp().div_euclid(3600);
        Self(Some((hour, hour)))
    }

    /// Reads the columns `first_hour` and `last_hour`.
    ///
    /// # Errors
    /// The columns are missing or of another type.
    pub(crate) fn read(row: &sqlx::postgres::PgRow) -> Result<Self, sqlx::Error> {
        let first: Option<i64> = row.try_get("first_hour")?;
        let last: Option<i64> = row.try_get("last_hour")?;
        Ok(Self(first.zip(last)))
    }

    /// The instants `[start, end)` within `[from, to)`. `None`: there are none.
    #[must_use]
    pub(crate) fn within(
        self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let (start, end) = match self.0 {
            None => (from, to),
            Some((first, last)) => {
                (begin_of(first).max(from), begin_of(last.saturating_add(1)).min(to))
            }
        };
        (start < end).then_some((start, end))
    }
}

/// The first instant of an hour, limited to the supported range of time.
fn begin_of(hour: i64) -> DateTime<Utc> {
    let beyond = if hour < 0 { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC };
    DateTime::from_timestamp(hour.saturating_mul(3600), 0).unwrap_or(beyond)
}

/// Marks of the same hours, on the same axis.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    /// The axis, as [`crate::source::changes::capture::axis_key`] names it.
    pub(crate) axis: String,
    pub(crate) hours: MarkedHours,
    /// The consumers that have acknowledged them.
    pub(crate) acknowledged: Vec<i64>,
    /// Their IDs.
    ids: Vec<i64>,
}

/// The marks of the capture `key` that at least one of the consumers `mine` still has to
/// acknowledge, and whether there are more.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn read(
    tx: &mut Tx,
    key: &str,
    mine: &[i64],
) -> Result<(Vec<Mark>, bool), DbError> {
    const DOING: &str = "reading the marks";
    let mine: Vec<String> = mine.iter().map(ToString::to_string).collect();
    let sql = format!(
        include_str!("marks.sql"),
        capture = literal(key),
        mine = mine.join(","),
        marks_max = MARKS_MAX
    );
    let rows = tx.rows(DOING, sql).await?;
    let mark = |row: &sqlx::postgres::PgRow| {
        Ok(Mark {
            axis: row.try_get("axis")?,
            hours: MarkedHours::read(row)?,
            acknowledged: row.try_get("acknowledged")?,
            ids: row.try_get("ids")?,
        })
    };
    let marks: Vec<Mark> = rows
        .iter()
        .map(mark)
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|source| tx.error(DOING, source))?;
    let has_more = marks.iter().map(|mark| mark.ids.len()).sum::<usize>() >= MARKS_MAX;
    Ok((marks, has_more))
}

/// Keeps all other workers from acknowledging marks of the capture `key` until the end of the
/// transaction. Returns whether `marks` wait for the consumers `mine` as when they were read.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn hold(
    tx: &mut Tx,
    key: &str,
    mine: &[i64],
    marks: &[Mark],
) -> Result<bool, DbError> {
    const DOING: &str = "holding the marks";
    consumers::lock(tx, key).await?;
    let (ids, mine) = (ids_of(marks), mine.iter().map(ToString::to_string));
    let sql = format!(
        include_str!("waiting.sql"),
        marks = ids.join(","),
        mine = mine.collect::<Vec<_>>().join(",")
    );
    let row = tx.ask_row(DOING, sql).await?;
    let count = |name: &str| row.try_get::<i64, _>(name).map(i64::unsigned_abs);
    let (known, taken) = count("known")
        .and_then(|known| Ok((known, count("taken")?)))
        .map_err(|source| tx.error(DOING, source))?;
    let before: usize = marks.iter().map(|mark| mark.ids.len() * mark.acknowledged.len()).sum();
    Ok((known, taken) == (ids.len() as u64, before as u64))
}

fn ids_of(marks: &[Mark]) -> Vec<String> {
    marks.iter().flat_map(|mark| &mark.ids).map(ToString::to_string).collect()
}

/// Acknowledges marks for the consumers `mine`. Call it only after their slices were reopened.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn acknowledge(
    tx: &mut Tx,
    key: &str,
    mine: &[i64],
    marks: &[Mark],
) -> Result<(), DbError> {
    consumers::acknowledge(tx, key, mine, &ids_of(marks).join(",")).await
}

/// The number of waiting marks of the capture `key`.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn count(tx: &mut Tx, key: &str) -> Result<u64, DbError> {
    let sql = format!("SELECT count(*) FROM tallymark.mark WHERE capture = {}", literal(key));
    let row = tx.row("counting the marks", sql).await?;
    let count = row.try_get::<i64, _>(0).map(i64::unsigned_abs);
    count.map_err(|source| tx.error("counting the marks", source))
}

/// The first instant in `[from, to)` that a mark of the capture `key` and one of these axes covers,
/// which still waits for the consumer.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn first_in(
    tx: &mut Tx,
    (key, consumer): (&str, i64),
    axes: &[String],
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Option<DateTime<Utc>>, DbError> {
    const DOING: &str = "looking for marks";
    let first = from.timestamp().div_euclid(3600);
    let last = (to.timestamp() - 1).div_euclid(3600);
    let sql = format!(
        "SELECT min(greatest(coalesce(first_hour, {first}), {first})) FROM tallymark.mark m \
         WHERE capture = {} AND axis IN ({}) AND \
         (first_hour IS NULL OR first_hour <= {last} AND last_hour >= {first}) AND NOT EXISTS (SELECT \
         FROM tallymark.taken t WHERE t.mark = m.id AND t.consumer = {consumer})",
        literal(key),
        axes.iter().map(|axis| literal(axis)).collect::<Vec<_>>().join(", "),
    );
    let row = tx.row(DOING, sql).await?;
    let hour = row.try_get::<Option<i64>, _>(0).map_err(|source| tx.error(DOING, source))?;
    Ok(hour.map(|hour| begin_of(hour).max(from)))
}
