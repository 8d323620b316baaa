//! Renames a rollup as a whole, with its tables, markers and checkpoints.
//!
//! It can be killed anywhere and run again. The target changes in one transaction. The checkpoints'
//! items are copied before it, copied again after it (a worker may have changed them meanwhile), and
//! deleted last.

use sqlx::Row as _;

use super::holdings::{idle_items, registered, shared_tables, stage};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, Tx};
use crate::model::hint::Fault;
use crate::model::sql::{ident, literal};
use crate::target::{beside, partitions};
use crate::work::consumer;
use crate::work::ready;
use crate::work::worker::{WorkError, Worker};

/// Renames the rollup `old` to `new`. Its finished slices stay done.
///
/// # Errors
/// Both have a table, or neither has, or a worker holds a slice of one, or a server refuses.
pub(crate) async fn rename_rollup(worker: &Worker, old: &str, new: &str) -> Result<(), WorkError> {
    idle_items(worker, new).await?;
    worker.checkpoints.copy_items(&idle_items(worker, old).await?, new).await?;
    let mut tx = worker.target.db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, new).await?;
    let (from, to) = (registered(&mut tx, old).await?.0, registered(&mut tx, new).await?.0);
    match (from, to) {
        (Some(table), None) => {
            let mut statements = beside::dropping(&mut tx, &worker.target, old).await?;
            statements.extend(renaming(&mut tx, &table, old, new).await?);
            for statement in statements {
                tx.execute("renaming the tables", statement).await?;
            }
            tx.commit().await?;
        }
        // An earlier run was killed after this step.
        (None, Some(_)) => tx.rollback().await?,
        (Some(one), Some(other)) => {
            let fault = Fault::new(format!(
                "{one} of rollup `{old}` and {other} of rollup `{new}` are both there"
            ));
            return Err(WorkError::Usage(fault.remedy(format!(
                "drop one of them first: `tallymark rollup drop {old}` or `tallymark rollup drop {new}`"
            ))));
        }
        (None, None) => {
            return Err(WorkError::Usage(
                format!("neither rollup `{old}` nor `{new}` has a table in the target").into(),
            ));
        }
    }
    make_beside(worker, new).await?;
    // From here on, a worker that took a slice between the copy and the commit is fenced off.
    let items = worker.checkpoints.items(old).await?;
    worker.checkpoints.copy_items(&items, new).await?;
    // Copied items stay without the watermark's, which has the seal.
    worker.checkpoints.copy_seal(old, new).await?;
    worker.checkpoints.delete_items(&items).await?;
    worker.checkpoints.forget_seal(old).await?;
    consumer::rename_consumer(worker, new).await
}

/// Makes what readers have beside the table, under the rollup's new name.
async fn make_beside(worker: &Worker, name: &str) -> Result<(), WorkError> {
    let rollup = worker.rollup(name)?;
    let shape = ready::shape(worker, rollup).await?;
    let mut tx = worker.target.db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, name).await?;
    for statement in beside::plan(&mut tx, &worker.target, rollup, &shape).await? {
        tx.execute("making the live view and the series", statement).await?;
    }
    Ok(tx.commit().await?)
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
        let fault = Fault::new(format!(
            "rollup `{old}`: its table {table} is registered, but it is not there"
        ));
        return Err(WorkError::Usage(
            fault.remedy(format!("run `tallymark rollup drop {old}` to forget it")),
        ));
    };
    let schema: String = row.try_get(0).map_err(|source| tx.error(DOING, source))?;
    let renamed = format!("{}.{}", ident(&schema), ident(new));
    let (from, to) = (literal(old), literal(new));
    let mut statements = vec![
        format!("ALTER TABLE {table} RENAME TO {}", ident(new)),
        format!("ALTER TABLE IF EXISTS tallymark.{} RENAME TO {}", stage(old), stage(new)),
    ];
    statements.extend(partitions::renaming(tx, table, old, new).await?);
    for table in shared_tables(tx).await? {
        statements
            .push(format!("UPDATE tallymark.{table} SET rollup = {to} WHERE rollup = {from}"));
        if table == "checked" {
            // Readers judge coarse slices by the finer ones, by that name.
            statements
                .push(format!("UPDATE tallymark.{table} SET finer = {to} WHERE finer = {from}"));
        }
    }
    statements.push(format!(
        "UPDATE tallymark.rollup SET target_table = {} WHERE rollup = {to}",
        literal(&renamed)
    ));
    Ok(statements)
}
