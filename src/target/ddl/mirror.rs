//! The tables of a mirror: one row for each thing, and the stage of its pages.

use super::alter::alter_rollup;
use super::shared::{SharedObjects, schemas};
use super::{
    ColumnSpec, DdlError, claim_registry, create_rollup, keeps_rows, refuse_second_table, unfit,
};
use crate::clients::db::Tx;
use crate::model::rollup::Rollup;
use crate::model::rollup::mirror::{CREATED_AT, ID, MODIFIED_AT, Mirror};
use crate::source::reading::shape::Shape;
use crate::source::things;
use crate::target::ready::Persistence;
use crate::target::{Target, indexes, ready};

/// The statements that `init` must still run for a mirror.
///
/// # Errors
/// As [`super::plan`].
pub(super) async fn plan(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
    shape: &Shape,
    shared: SharedObjects,
) -> Result<Vec<String>, DdlError> {
    let table = target.table(rollup);
    let wanted = columns(shape);
    let mut statements = schemas(tx, target, rollup, shared).await?;
    let mut found = ready::columns_of(tx, &table).await?;
    if found.is_empty() {
        refuse_second_table(tx, rollup, &table).await?;
        statements.extend(create_rollup(target, rollup, &wanted));
        statements.push(format!("CREATE UNIQUE INDEX ON {table} ({ID})"));
        statements.push(format!("CREATE INDEX ON {table} ({CREATED_AT})"));
    } else {
        claim_registry(tx, target, rollup, &table).await?;
        statements.extend(keeps_rows(tx, rollup, &table, Persistence::Logged).await?);
        for column in found.iter_mut().filter(|it| Mirror::OWN.contains(&it.name.as_str())) {
            // These are never NULL.
            column.is_not_null = false;
        }
        statements.extend(alter_rollup(rollup, &table, &wanted, &found)?);
        let key = indexes::shared_key(tx, &table, &[ID], MODIFIED_AT).await;
        statements.extend(key.map_err(|error| unfit(rollup, &table, error))?);
    }
    statements.extend(stage(tx, rollup, &wanted).await?);
    Ok(statements)
}

/// The statements for the stage, which has the same columns and the slice.
async fn stage(
    tx: &mut Tx,
    rollup: &Rollup,
    columns: &[ColumnSpec],
) -> Result<Vec<String>, DdlError> {
    let table = Target::stage(rollup);
    let slice = plain("slice_start", "timestamp with time zone", " NOT NULL");
    let wanted: Vec<ColumnSpec> = std::iter::once(slice).chain(columns.iter().cloned()).collect();
    // A thing that two pages return is staged once.
    let index = format!("CREATE UNIQUE INDEX ON {table} (slice_start, {ID})");
    let (fits, mut statements) = super::stage(tx, rollup, &wanted, index).await?;
    if fits {
        let key = indexes::shared_key(tx, &table, &["slice_start", ID], MODIFIED_AT).await;
        statements.extend(key.map_err(|error| unfit(rollup, &table, error))?);
    }
    Ok(statements)
}

/// The columns of the mirror's table. Fields may be added later, and then all slices run again.
fn columns(shape: &Shape) -> Vec<ColumnSpec> {
    let columns = things::columns(shape);
    let columns = columns.into_iter().map(|(name, kind)| {
        let is_own = Mirror::OWN.contains(&name);
        let rest = if is_own { " NOT NULL" } else { "" };
        ColumnSpec { may_be_added: !is_own, ..plain(name, kind, rest) }
    });
    columns.collect()
}

fn plain(name: &str, sql_type: &str, rest: &str) -> ColumnSpec {
    ColumnSpec {
        name: name.to_owned(),
        sql_type: sql_type.to_owned(),
        rest: rest.to_owned(),
        collation: None,
        generated: false,
        may_be_added: false,
    }
}
