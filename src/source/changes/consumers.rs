//! The consumers of a captured table's marks: each rollup of each installation that counts the
//! table.
//!
//! A mark is deleted when every consumer has acknowledged it by its ID. A consumer that was removed
//! and registers again gets another ID, by which it knows that marks may be missing.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use crate::clients::db::{DbError, Tx};
use crate::model::clock::rfc3339_seconds;
use crate::model::hint::Fault;
use crate::model::sql::literal;
use crate::source::changes::capture::UsedColumns;

/// A consumer that leaves a mark for longer than this raises an alarm. A daily schedule stays below
/// it.
const AGE_MAX: Duration = Duration::from_secs(48 * 3600);

/// A rollup of an installation that counts a captured table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Consumer {
    /// Its ID, which is never reused.
    pub(crate) id: i64,
    pub(crate) installation: String,
    pub(crate) rollup: String,
    /// The columns that it uses.
    pub(crate) columns: UsedColumns,
    /// Marks that it still has to turn into reopenings.
    pub(crate) waiting: u64,
    /// When the oldest of these marks was made.
    pub(crate) oldest: Option<DateTime<Utc>>,
    /// The age of that mark, in seconds by the source's clock.
    pub(crate) age: Option<i64>,
}

impl Consumer {
    /// The alarm, if its marks have waited longer than [`AGE_MAX`].
    #[must_use]
    pub(crate) fn alarm(&self) -> Option<Fault> {
        let (oldest, age) = self.oldest.zip(self.age)?;
        let is_old = age.max(0).unsigned_abs() > AGE_MAX.as_secs();
        is_old.then(|| {
            let id = self.id;
            Fault::new(format!(
                "marks of late changes wait since {} for rollup `{}` of installation {} (consumer \
                 {id})",
                rfc3339_seconds(oldest),
                self.rollup,
                self.installation,
            ))
            .remedy(format!("run its ticks; or, if it has ended, `tallymark capture forget {id}`"))
        })
    }
}

/// The consumers of the capture `key`.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn all(tx: &mut Tx, key: &str) -> Result<Vec<Consumer>, DbError> {
    const DOING: &str = "looking at the consumers";
    let sql = format!(include_str!("consumers.sql"), capture = literal(key));
    let rows = tx.rows(DOING, sql).await?;
    let read = |row: &sqlx::postgres::PgRow| {
        Ok(Consumer {
            id: row.try_get("id")?,
            installation: row.try_get("installation")?,
            rollup: row.try_get("rollup")?,
            columns: UsedColumns::of(row.try_get("columns")?),
            waiting: row.try_get::<i64, _>("waiting")?.unsigned_abs(),
            oldest: row.try_get("oldest")?,
            age: row.try_get("age")?,
        })
    };
    let found = rows.iter().map(read).collect::<Result<_, sqlx::Error>>();
    found.map_err(|source| tx.error(DOING, source))
}

/// Whether the capture `key` has the consumer `id`. Also sets its name to `rollup`, and adds the
/// columns that it uses. Another process may still use the ones before.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn is_enlisted(
    tx: &mut Tx,
    key: &str,
    id: i64,
    (rollup, columns): (&str, &UsedColumns),
) -> Result<bool, DbError> {
    const DOING: &str = "looking for a consumer";
    let sql = format!(
        "SELECT rollup = {} AS is_named, columns FROM tallymark.consumer WHERE id = {id} AND capture = {}",
        literal(rollup),
        literal(key)
    );
    let rows = tx.rows(DOING, sql).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    let known = row.try_get("columns").map(UsedColumns::of);
    let known = known.map_err(|source| tx.error(DOING, source))?;
    if !known.cover(columns) {
        tx.execute("recording the columns of a consumer", uses(id, &known.and(columns))).await?;
    }
    if !row.try_get("is_named").map_err(|source| tx.error(DOING, source))? {
        self::rename(tx, id, rollup).await?;
    }
    Ok(true)
}

/// The statement that records the columns that the consumer `id` uses.
pub(super) fn uses(id: i64, columns: &UsedColumns) -> String {
    format!("UPDATE tallymark.consumer SET columns = {} WHERE id = {id}", columns.array())
}

/// Registers the consumer `id` of the capture `key`: from now on every mark is kept for it. With
/// `is_new` it replaces consumers of the same name, whose store was lost, and inherits the marks
/// that wait for those.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn enlist(
    tx: &mut Tx,
    key: &str,
    id: i64,
    (installation, rollup): (&str, &str),
    (columns, is_new): (&UsedColumns, bool),
) -> Result<(), DbError> {
    if is_new {
        let sql = format!(
            "WITH gone AS (DELETE FROM tallymark.consumer WHERE id <> {id} AND installation = {} AND \
             rollup = {} RETURNING id) DELETE FROM tallymark.taken t USING gone WHERE t.consumer = gone.id",
            literal(installation),
            literal(rollup)
        );
        tx.execute("replacing a consumer", sql).await?;
    }
    let sql = format!(
        "INSERT INTO tallymark.consumer (id, capture, installation, rollup, columns) VALUES ({id}, {}, {}, \
         {}, {}) ON CONFLICT (id) DO UPDATE SET capture = excluded.capture, columns = excluded.columns",
        literal(key),
        literal(installation),
        literal(rollup),
        columns.array()
    );
    tx.execute("registering a consumer", sql).await.map(drop)
}

/// Gives the consumer `id` another name.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn rename(tx: &mut Tx, id: i64, rollup: &str) -> Result<(), DbError> {
    let named = literal(rollup);
    let sql = format!("UPDATE tallymark.consumer SET rollup = {named} WHERE id = {id}");
    tx.execute("renaming a consumer", sql).await.map(drop)
}

/// The IDs of the consumers of this name.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn named(
    tx: &mut Tx,
    installation: &str,
    rollup: &str,
) -> Result<Vec<i64>, DbError> {
    const DOING: &str = "looking for a consumer";
    let sql = format!(
        "SELECT id FROM tallymark.consumer WHERE installation = {} AND rollup = {} ORDER BY id",
        literal(installation),
        literal(rollup)
    );
    let rows = tx.rows(DOING, sql).await?;
    let ids = rows.iter().map(|row| row.try_get("id")).collect::<Result<_, sqlx::Error>>();
    ids.map_err(|source| tx.error(DOING, source))
}

/// Whether the table of consumers exists.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn are_kept(tx: &mut Tx) -> Result<bool, DbError> {
    const DOING: &str = "looking for consumers";
    let sql = "SELECT to_regclass('tallymark.consumer') IS NOT NULL".to_owned();
    tx.row(DOING, sql).await?.try_get(0).map_err(|source| tx.error(DOING, source))
}

/// Removes a consumer, and the marks that only it had to acknowledge.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn forget(tx: &mut Tx, id: i64) -> Result<(), DbError> {
    const DOING: &str = "forgetting a consumer";
    let sql = format!("SELECT capture FROM tallymark.consumer WHERE id = {id}");
    let rows = tx.rows(DOING, sql).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let key: String = row.try_get(0).map_err(|source| tx.error(DOING, source))?;
    let key = key.as_str();
    lock(tx, key).await?;
    tx.execute(DOING, format!("DELETE FROM tallymark.consumer WHERE id = {id}")).await?;
    tx.execute(DOING, format!("DELETE FROM tallymark.taken WHERE consumer = {id}")).await?;
    tx.execute(DOING, acknowledged(key, "true", "")).await.map(drop)
}

/// Records that the consumers `mine` have turned `marks`, an array of IDs, into reopenings. Deletes
/// the marks that all consumers have acknowledged.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn acknowledge(
    tx: &mut Tx,
    key: &str,
    mine: &[i64],
    marks: &str,
) -> Result<(), DbError> {
    const DOING: &str = "acknowledging the marks";
    let others = lock(tx, key).await?.iter().any(|id| !mine.contains(id));
    let mine: Vec<String> = mine.iter().map(ToString::to_string).collect();
    let mine = mine.join(",");
    if others {
        let sql = format!(
            "INSERT INTO tallymark.taken (mark, consumer) SELECT m.id, c.id FROM tallymark.mark m, \
             unnest('{{{mine}}}'::bigint[]) c(id) WHERE m.id = ANY ('{{{marks}}}'::bigint[]) ON CONFLICT DO \
             NOTHING"
        );
        tx.execute(DOING, sql).await?;
    }
    let among = format!("m.id = ANY ('{{{marks}}}'::bigint[])");
    tx.execute(DOING, acknowledged(key, &among, &mine)).await.map(drop)
}

fn acknowledged(key: &str, marks: &str, mine: &str) -> String {
    format!(include_str!("acknowledge.sql"), capture = literal(key), marks = marks, mine = mine)
}

/// The IDs of all consumers, locked. Of two that acknowledge concurrently, the second sees the
/// first one's result. Otherwise each would leave the mark to the other.
pub(super) async fn lock(tx: &mut Tx, key: &str) -> Result<Vec<i64>, DbError> {
    const DOING: &str = "looking at the consumers";
    let sql = format!(
        "SELECT id FROM tallymark.consumer WHERE capture = {} ORDER BY id FOR UPDATE",
        literal(key)
    );
    let rows = tx.rows(DOING, sql).await?;
    let ids = rows.iter().map(|row| row.try_get("id")).collect::<Result<_, sqlx::Error>>();
    ids.map_err(|source| tx.error(DOING, source))
}
