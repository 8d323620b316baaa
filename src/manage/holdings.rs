//! What target and checkpoints hold of a rollup, which the configuration may no longer have.

use serde::Serialize;
use sqlx::Row as _;

use crate::checkpoint::Items;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbError, Tx};
use crate::model::clock::rfc3339_seconds;
use crate::model::hint::Fault;
use crate::model::sql::{ident, literal};
use crate::work::worker::{WorkError, Worker};

/// The remains of a rollup, which may be absent from the configuration.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Holdings {
    pub(crate) rollup: String,
    /// Its table in the target, quoted. `None`: no table is registered.
    pub(crate) table: Option<String>,
    pub(crate) markers: u64,
    /// Number of its items in DynamoDB.
    pub(crate) checkpoints: usize,
}

impl Holdings {
    #[must_use]
    pub(crate) const fn is_nothing(&self) -> bool {
        self.table.is_none() && self.markers == 0 && self.checkpoints == 0
    }
}

/// The remains of `rollup`.
///
/// # Errors
/// The target or DynamoDB cannot be read, or a worker holds one of its slices.
pub(crate) async fn holdings(worker: &Worker, rollup: &str) -> Result<Holdings, WorkError> {
    let checkpoints = idle_items(worker, rollup).await?.len();
    let mut tx = worker.target.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, rollup).await?;
    let (table, markers) = registered(&mut tx, rollup).await?;
    tx.rollback().await?;
    Ok(Holdings { rollup: rollup.to_owned(), table, markers, checkpoints })
}

/// The items of `rollup`, once no worker holds any of its slices.
pub(super) async fn idle_items(worker: &Worker, rollup: &str) -> Result<Items, WorkError> {
    let items = worker.checkpoints.items(rollup).await?;
    match items.leased_until(worker.clock.now())? {
        None => Ok(items),
        Some(until) => {
            let fault = Fault::new(format!(
                "a worker holds a slice of rollup `{rollup}` until {}",
                rfc3339_seconds(until)
            ));
            Err(WorkError::Usage(
                fault.remedy("stop the schedule, wait, and run the command again"),
            ))
        }
    }
}

/// Those of Tallymark's tables with a row for each rollup or slice that exist here.
pub(super) async fn shared_tables(tx: &mut Tx) -> Result<Vec<String>, DbError> {
    const DOING: &str = "looking for Tallymark's tables";
    const TABLES: &str = "slice,progress,outstanding,checked,rollup";
    let sql = format!(
        "SELECT t FROM unnest(string_to_array('{TABLES}', ',')) t \
         WHERE to_regclass('tallymark.' || t) IS NOT NULL"
    );
    let rows = tx.rows(DOING, sql).await?;
    let names = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>();
    names.map_err(|source| tx.error(DOING, source))
}

pub(super) async fn has_registry(tx: &mut Tx) -> Result<bool, DbError> {
    const DOING: &str = "looking for the registry";
    let sql = "SELECT to_regclass('tallymark.rollup') IS NOT NULL".to_owned();
    tx.row(DOING, sql).await?.try_get(0).map_err(|source| tx.error(DOING, source))
}

/// The registered table of `rollup`, and the number of its markers.
pub(super) async fn registered(
    tx: &mut Tx,
    rollup: &str,
) -> Result<(Option<String>, u64), DbError> {
    const DOING: &str = "reading the registry";
    if !has_registry(tx).await? {
        return Ok((None, 0));
    }
    let name = literal(rollup);
    let sql = format!(
        "SELECT (SELECT target_table FROM tallymark.rollup WHERE rollup = {name}), \
         (SELECT count(*) FROM tallymark.slice WHERE rollup = {name})"
    );
    let row = tx.row(DOING, sql).await?;
    let markers = row.try_get::<i64, _>(1).map_err(|source| tx.error(DOING, source))?;
    let table = row.try_get(0).map_err(|source| tx.error(DOING, source))?;
    Ok((table, markers.unsigned_abs()))
}

pub(super) fn stage(rollup: &str) -> String {
    ident(&format!("stage_{rollup}"))
}
