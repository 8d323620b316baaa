//! Change times: finds the hours of rows that were written since the last search.

use std::time::Duration;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use sqlx::Row as _;

use crate::clients::db::{DbError, Tx};
use crate::model::rollup::Rollup;
use crate::model::sql::table;
use crate::source::changes::marks::MarkedHours;
use crate::source::reading::axis::Axis;
use crate::source::reading::shape::Shape;
use crate::source::settle::{now, oldest, pass, sees_all};

/// Every change stamped before this instant is visible, by the database's clock and in whole
/// milliseconds. `None`: an open transaction makes that impossible to say.
///
/// # Errors
/// The server refuses or cannot be reached.
pub async fn seen_until(
    tx: &mut Tx,
    rollup: &Rollup,
    wait: Duration,
) -> Result<Option<DateTime<Utc>>, DbError> {
    let (now, _) = now(tx).await?;
    let until = now - TimeDelta::from_std(rollup.grace).unwrap_or(TimeDelta::MAX);
    if !sees_all(tx).await? {
        // Transactions that last longer than the grace before they write can be missed.
        let passed = pass(tx, None, wait).await?.is_none();
        return Ok(passed.then(|| until.trunc_subsecs(3)));
    }
    let since = oldest(tx).await?;
    // This check is last. A transaction that is prepared between the two is found by one of them.
    if has_prepared(tx).await? {
        return Ok(None);
    }
    let until = since.map_or(until, |since| since.min(until));
    Ok(Some(until.trunc_subsecs(3)))
}

/// Whether this database has prepared transactions, whose start is unknown.
async fn has_prepared(tx: &mut Tx) -> Result<bool, DbError> {
    const SQL: &str =
        "SELECT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database())";
    const DOING: &str = "looking for prepared transactions";
    let row = tx.row(DOING, SQL.into()).await?;
    row.try_get(0).map_err(|source| tx.error(DOING, source))
}

/// The hours of the rows whose change time is in `[from, to)`. It reads the index of that column
/// and the rows found.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn hours(
    tx: &mut Tx,
    rollup: &Rollup,
    shape: &Shape,
    changes: &Axis,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Vec<MarkedHours>, DbError> {
    let (first, last) = shape.axis.hours();
    let sql = format!(
        "SELECT DISTINCT {first} AS first_hour, {last} AS last_hour FROM {} WHERE {} AND {} IS NOT NULL",
        table(&rollup.from),
        changes.between(from, to),
        crate::model::sql::ident(shape.axis.column()),
    );
    let rows = tx.rows("looking for changed rows", sql).await?;
    let hours = rows.iter().map(MarkedHours::read).collect::<Result<_, _>>();
    hours.map_err(|source| tx.error("looking for changed rows", source))
}
