//! Where the source's rows begin: one look into the index of the time column.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::shape::Shape;
use crate::checkpoint::SourceBegin;
use crate::db::{DbError, Tx};
use crate::rollup::Rollup;
use crate::sql::{literal, table};

/// The planner's cost above which nothing is asked: an index costs about 1, and a table of 10,000
/// pages that has none about this.
const COST_MAX: f64 = 10_000.0;

/// Looks at the transactions that were running, and the time between two. Short: whoever does not
/// learn where the source begins computes a few empty slices, or asks again at the next tick.
const LOOKS_MAX: usize = 5;
const LOOK_EVERY: Duration = Duration::from_millis(50);

const DOING: &str = "looking for the first row";

/// Asks where the rows of `rollup`'s source begin, whatever its `where` says. `None`: it cannot be
/// said now, because a transaction is open that may still add earlier rows, or because without an
/// index it would take a scan.
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
    // Rows of a slice whose grace is over are there once all have ended that are running now: the
    // second step of settling. The time is taken first.
    let sql = "SELECT clock_timestamp(), pg_snapshot_xmax(pg_current_snapshot())::text";
    let row = tx.row(DOING, sql.into()).await?;
    let read = |error| DbError::new(crate::db::Side::Source, DOING, error);
    let probed_at: DateTime<Utc> = row.try_get(0).map_err(read)?;
    let newest: String = row.try_get(1).map_err(read)?;
    let sql =
        format!("SELECT pg_snapshot_xmin(pg_current_snapshot()) >= {}::xid8", literal(&newest));
    let mut looks = 0;
    while !tx.row(DOING, sql.clone()).await?.try_get::<bool, _>(0).map_err(read)? {
        looks += 1;
        if looks == LOOKS_MAX {
            return Ok(None);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
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
