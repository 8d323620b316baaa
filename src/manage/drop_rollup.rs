//! Drops a rollup with its tables, markers and checkpoints. Can be killed anywhere and run again.

use sqlx::Row as _;

use super::holdings::{has_registry, idle_items, registered, shared_tables, stage};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT};
use crate::model::sql::literal;
use crate::target::beside;
use crate::work::consumer;
use crate::work::worker::{WorkError, Worker};

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
        let shared = shared_tables(&mut tx).await?;
        let mut statements = beside::dropping(&mut tx, &worker.target, rollup).await?;
        statements.extend(dropping(table.as_deref(), rollup, &shared));
        for statement in statements {
            tx.execute("dropping the tables", statement).await?;
        }
    }
    tx.commit().await?;
    let items = worker.checkpoints.items(rollup).await?;
    worker.checkpoints.delete_items(&items).await?;
    worker.checkpoints.forget_seal(rollup).await?;
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

/// The statements that drop a rollup, whose table may already be gone.
fn dropping(table: Option<&str>, rollup: &str, shared: &[String]) -> Vec<String> {
    let mut statements: Vec<String> =
        table.map(|table| format!("DROP TABLE IF EXISTS {table}")).into_iter().collect();
    statements.push(format!("DROP TABLE IF EXISTS tallymark.{}", stage(rollup)));
    for table in shared {
        let name = literal(rollup);
        statements.push(format!("DELETE FROM tallymark.{table} WHERE rollup = {name}"));
    }
    statements
}
