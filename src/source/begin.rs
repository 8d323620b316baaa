//! Where the source's rows begin: one look into the index of the time column.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::settle;
use super::shape::Shape;
use crate::db::{DbError, Tx};
use crate::faults::{Guard, is_removed};
use crate::rollup::{Late, Rollup};
use crate::sql::table;

/// The planner's cost above which nothing is asked: an index costs about 1, and a table of 10,000
/// pages that has none about this.
const COST_MAX: f64 = 10_000.0;

/// Transactions that were writing are waited for this long. Short: whoever does not learn where the
/// source begins computes a few empty slices, or asks again at the next tick.
const WAIT: Duration = Duration::from_millis(250);

const DOING: &str = "looking for the first row";

/// Where the source's rows begin, as it was found when it was last asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceBegin {
    /// No row is earlier than this instant; `None`: there was no row at all.
    pub first_row: Option<DateTime<Utc>>,
    /// When the source was asked, or before that when a transaction had begun that may still write rows
    /// which nobody will tell of: nothing is known of slices that were not over by then.
    pub probed_at: DateTime<Utc>,
}

/// Asks where the rows of `rollup`'s source begin, whatever its `where` says, and up to when nothing can
/// appear before them any more. `None`: it cannot be said now, because a transaction is open that may
/// still add earlier rows, or because without an index it would take a scan.
///
/// # Errors
/// The source refuses or cannot be reached.
pub async fn ask(
    tx: &mut Tx,
    rollup: &Rollup,
    shape: &Shape,
) -> Result<Option<SourceBegin>, DbError> {
    let first = format!("SELECT {} FROM {}", shape.axis.earliest(), table(&rollup.from));
    if cost(tx, &first).await? > COST_MAX {
        return Ok(None);
    }
    // What is taken for empty has to be settled as what is read. Rows of a slice whose grace is over are
    // there once all have ended that were writing then. The time is taken first.
    let (mut probed_at, is_replica) = settle::now(tx).await?;
    // Nobody will tell of what an idle transaction still stamps with its own begin, or later.
    if rollup.late == Late::Clock && !is_removed(Guard::Oldest) {
        let since = settle::oldest(tx).await?;
        probed_at = since.map_or(probed_at, |since| since.min(probed_at));
    }
    if !is_replica && settle::pass(tx, None, WAIT).await?.is_err() {
        return Ok(None);
    }
    let read = |error| DbError::new(crate::db::Side::Source, DOING, error);
    let seconds: Option<f64> = tx.row(DOING, first).await?.try_get(0).map_err(read)?;
    let first_row = seconds.map(instant);
    Ok(Some(SourceBegin { first_row, probed_at }))
}

/// What is out of range is as early as can be: nothing is empty before it.
fn instant(seconds: f64) -> DateTime<Utc> {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and is out of range then")]
    let seconds = seconds as i64;
    DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::UNIX_EPOCH)
}

/// What the planner thinks of a statement; it reads no row.
async fn cost(tx: &mut Tx, sql: &str) -> Result<f64, DbError> {
    let row = tx.row(DOING, format!("EXPLAIN (FORMAT JSON) {sql}")).await?;
    let text: String = row.try_get_unchecked(0).map_err(|source| tx.error(DOING, source))?;
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let cost = plan.pointer("/0/Plan/Total Cost").and_then(serde_json::Value::as_f64);
    Ok(cost.unwrap_or(f64::INFINITY))
}
