//! Renames or drops a rollup as a whole, with its tables, markers and checkpoints.
//!
//! Both can be killed anywhere and run again. The target changes in one transaction. The items in
//! DynamoDB are copied before it, copied again after it (a worker may have changed them meanwhile),
//! and deleted last.

use serde::Serialize;
use sqlx::Row as _;

use crate::checkpoint::Items;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbError, Tx};
use crate::model::clock::rfc3339_seconds;
use crate::model::sql::{ident, literal};
use crate::work::consumer;
use crate::work::worker::{WorkError, Worker};

/// The remains of a rollup, which may be absent from the configuration.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Holdings {
    pub rollup: String,
    /// Its table in the target, quoted. `None`: no table is registered.
    pub table: Option<String>,
    pub markers: u64,
    /// Number of its items in DynamoDB.
    pub checkpoints: usize,
}

impl Holdings {
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.table.is_none() && self.markers == 0 && self.checkpoints == 0
    }
}

/// The remains of `rollup`.
///
/// # Errors
/// The target or DynamoDB cannot be read, or a worker holds one of its slices.
pub async fn holdings(worker: &Worker, rollup: &str) -> Result<Holdings, WorkError> {
    let checkpoints = idle_items(worker, rollup).await?.len();
    let mut tx = worker.target.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, rollup).await?;
    let (table, markers) = registered(&mut tx, rollup).await?;
    tx.rollback().await?;
    Ok(Holdings { rollup: rollup.to_owned(), table, markers, checkpoints })
}

/// Renames the rollup `old` to `new`. Its finished slices stay done.
///
/// # Errors
/// Both have a table, or neither has, or a worker holds a slice of one, or a server refuses.
pub async fn rename_rollup(worker: &Worker, old: &str, new: &str) -> Result<(), WorkError> {
    idle_items(worker, new).await?;
    worker.checkpoints.copy_items(&idle_items(worker, old).await?, new).await?;
    let mut tx = worker.target.db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, new).await?;
    let (from, to) = (registered(&mut tx, old).await?.0, registered(&mut tx, new).await?.0);
    match (from, to) {
        (Some(table), None) => {
            for statement in renaming(&mut tx, &table, old, new).await? {
                tx.execute("renaming the tables", statement).await?;
            }
            tx.commit().await?;
        }
        // An earlier run was killed after this step.
        (None, Some(_)) => tx.rollback().await?,
        (Some(one), Some(other)) => {
            return Err(WorkError::Usage(format!(
                "{one} of rollup `{old}` and {other} of rollup `{new}` are both there; \
                 `tallymark rollup drop` one of them first"
            )));
        }
        (None, None) => {
            return Err(WorkError::Usage(format!(
                "neither rollup `{old}` nor `{new}` has a table in the target"
            )));
        }
    }
    // From here on, a worker that took a slice between the copy and the commit is fenced off.
    let items = worker.checkpoints.items(old).await?;
    worker.checkpoints.copy_items(&items, new).await?;
    worker.checkpoints.delete_items(&items).await?;
    consumer::rename_consumer(worker, new).await
}

/// Drops tables, markers and checkpoints of `rollup`.
///
/// # Errors
/// A worker holds one of its slices, another object depends on its table, or a server refuses.
pub async fn drop_rollup(worker: &Worker, rollup: &str) -> Result<(), WorkError> {
    idle_items(worker, rollup).await?;
    let installation = keeper(worker, rollup).await?;
    consumer::dismiss(worker, rollup, &installation).await?;
    let mut tx = worker.target.db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, rollup).await?;
    if has_registry(&mut tx).await? {
        let table = registered(&mut tx, rollup).await?.0;
        for statement in dropping(table.as_deref(), rollup) {
            tx.execute("dropping the tables", statement).await?;
        }
    }
    tx.commit().await?;
    let items = worker.checkpoints.items(rollup).await?;
    worker.checkpoints.delete_items(&items).await?;
    Ok(())
}

/// The installation that owns `rollup`, or an empty text.
async fn keeper(worker: &Worker, rollup: &str) -> Result<String, WorkError> {
    const DOING: &str = "reading the registry";
    let mut tx = worker.target.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, rollup).await?;
    if !has_registry(&mut tx).await? {
        return Ok(String::new());
    }
    let name = literal(rollup);
    let sql = format!("SELECT installation FROM tallymark.rollup WHERE rollup = {name}");
    let rows = tx.rows(DOING, sql).await?;
    let found = rows.first().map(|row| row.try_get::<Option<String>, _>(0)).transpose();
    let found = found.map_err(|source| tx.error(DOING, source))?;
    tx.rollback().await?;
    Ok(found.flatten().unwrap_or_default())
}

/// The items of `rollup`, once no worker holds any of its slices.
async fn idle_items(worker: &Worker, rollup: &str) -> Result<Items, WorkError> {
    let items = worker.checkpoints.items(rollup).await?;
    match items.leased_until(worker.clock.now())? {
        None => Ok(items),
        Some(until) => Err(WorkError::Usage(format!(
            "a worker holds a slice of rollup `{rollup}` until {}; stop the schedule, wait, \
             and run the command again",
            rfc3339_seconds(until)
        ))),
    }
}

async fn has_registry(tx: &mut Tx) -> Result<bool, DbError> {
    const DOING: &str = "looking for the registry";
    let sql = "SELECT to_regclass('tallymark.rollup') IS NOT NULL".to_owned();
    tx.row(DOING, sql).await?.try_get(0).map_err(|source| tx.error(DOING, source))
}

/// The registered table of `rollup`, and the number of its markers.
async fn registered(tx: &mut Tx, rollup: &str) -> Result<(Option<String>, u64), DbError> {
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

fn stage(rollup: &str) -> String {
    ident(&format!("stage_{rollup}"))
}

/// The statements that rename `table` and all objects that belong to it.
async fn renaming(
    tx: &mut Tx,
    table: &str,
    old: &str,
    new: &str,
) -> Result<Vec<String>, WorkError> {
    const DOING: &str = "looking up the table";
    let sql = format!(
        "SELECT n.nspname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.oid = to_regclass({})",
        literal(table)
    );
    let rows = tx.rows(DOING, sql).await?;
    let Some(row) = rows.first() else {
        return Err(WorkError::Usage(format!(
            "rollup `{old}`: its table {table} is registered, but it is not there; \
             `tallymark rollup drop {old}` forgets it"
        )));
    };
    let schema: String = row.try_get(0).map_err(|source| tx.error(DOING, source))?;
    let renamed = format!("{}.{}", ident(&schema), ident(new));
    let (from, to) = (literal(old), literal(new));
    let mut statements = vec![
        format!("ALTER TABLE {table} RENAME TO {}", ident(new)),
        format!("ALTER TABLE IF EXISTS tallymark.{} RENAME TO {}", stage(old), stage(new)),
    ];
    for table in ["slice", "progress", "rollup"] {
        statements
            .push(format!("UPDATE tallymark.{table} SET rollup = {to} WHERE rollup = {from}"));
    }
    statements.push(format!(
        "UPDATE tallymark.rollup SET target_table = {} WHERE rollup = {to}",
        literal(&renamed)
    ));
    Ok(statements)
}

/// The statements that drop a rollup, whose table may already be gone.
fn dropping(table: Option<&str>, rollup: &str) -> Vec<String> {
    let mut statements: Vec<String> =
        table.map(|table| format!("DROP TABLE IF EXISTS {table}")).into_iter().collect();
    statements.push(format!("DROP TABLE IF EXISTS tallymark.{}", stage(rollup)));
    for table in ["slice", "progress", "rollup"] {
        let name = literal(rollup);
        statements.push(format!("DELETE FROM tallymark.{table} WHERE rollup = {name}"));
    }
    statements
}
