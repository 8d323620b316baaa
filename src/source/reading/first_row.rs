//! Finds where the source's rows begin, with one look into the index of the time column.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use crate::clients::db::{DbError, Tx};
use crate::model::rollup::{Late, Rollup};
use crate::model::sql::table;
use crate::source::reading::shape::Shape;
use crate::source::settle;

/// The query is skipped above this planner cost. An index look costs about 1, and scanning a table
/// of 10,000 pages about this.
pub(crate) const COST_MAX: f64 = 10_000.0;

/// How long to wait for open writers. The wait is short, because a worker that misses the beginning
/// only computes a few empty slices, or asks again at the next tick.
const WAIT: Duration = Duration::from_millis(250);

const DOING: &str = "looking for the first row";

/// Where the source's rows begin, as it was found when it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceStart {
    /// No row is earlier than this instant; `None`: there was no row at all.
    pub first_row: Option<DateTime<Utc>>,
    /// When the source was read, or the earlier start of a transaction that may still write rows.
    /// Slices that end later may still get rows.
    pub probed_at: DateTime<Utc>,
}

/// Finds where the rows of `rollup`'s source begin, ignoring its `where`, and until when that is
/// certain. `None`: it is unknown, because an open transaction may still add earlier rows, or
/// because the table lacks an index and a scan would be needed.
///
/// # Errors
/// The source refuses or cannot be reached.
pub(crate) async fn find(
    tx: &mut Tx,
    rollup: &Rollup,
    shape: &Shape,
) -> Result<Option<SourceStart>, DbError> {
    let first = format!("SELECT {} FROM {}", shape.axis.earliest(), table(&rollup.from));
    if cost(tx, &first).await? > COST_MAX {
        return Ok(None);
    }
    // A range may count as empty only under the rule by which a range is read. Read the clock
    // first, then wait for open writers: every row of a slice whose grace had passed by then is now
    // visible.
    let (mut probed_at, is_replica) = settle::now(tx).await?;
    // A transaction that is open but has not written can still insert rows stamped with its start
    // time, and nothing would report them. Trust nothing after the oldest start.
    if rollup.late == Late::Clock {
        let since = settle::oldest(tx).await?;
        probed_at = since.map_or(probed_at, |since| since.min(probed_at));
    }
    if !is_replica && settle::pass(tx, None, WAIT).await?.is_some() {
        return Ok(None);
    }
    let read = |error| DbError::new(crate::clients::db::Side::Source, DOING, error);
    let seconds: Option<f64> = tx.row(DOING, first).await?.try_get(0).map_err(read)?;
    let first_row = seconds.map(instant);
    Ok(Some(SourceStart { first_row, probed_at }))
}

/// A value out of range becomes the earliest instant, so that no slice counts as empty before it.
fn instant(seconds: f64) -> DateTime<Utc> {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and is out of range then")]
    let seconds = seconds as i64;
    DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::UNIX_EPOCH)
}

/// The planner's cost of a statement, which is only explained.
pub(crate) async fn cost(tx: &mut Tx, sql: &str) -> Result<f64, DbError> {
    let row = tx.row(DOING, format!("EXPLAIN (FORMAT JSON) {sql}")).await?;
    let text: String = row.try_get_unchecked(0).map_err(|source| tx.error(DOING, source))?;
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let cost = plan.pointer("/0/Plan/Total Cost").and_then(serde_json::Value::as_f64);
    Ok(cost.unwrap_or(f64::INFINITY))
}
