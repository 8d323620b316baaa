//! The tables of the target: the existing ones, those that a definition needs, and the SQL that
//! leads from one to the other.

mod alter;
mod mirror;
mod shared;

use std::borrow::Cow;

use sqlx::Row as _;

use super::ready::{self, Persistence};
use super::{Target, generation, indexes};
use crate::clients::db::{CatalogueError, DbError, Tx};
use crate::model::hint::{Fault, Hinted};
use crate::model::measure::partial::{ROWS, TAG, value_column};
use crate::model::rollup::{BucketType, Rollup};
use crate::model::sql::{ident, literal};
use crate::source::reading::shape::Shape;

use alter::alter_rollup;
pub(crate) use shared::SharedObjects;
use shared::schemas;

pub use super::indexes::refuse_doubled;

/// Why the target's tables are unsuitable.
#[derive(Debug, thiserror::Error)]
pub enum DdlError {
    /// The table was made for another definition.
    #[error("rollup `{rollup}`: table {table} {problem}")]
    Incompatible {
        rollup: String,
        /// The table, quoted.
        table: String,
        /// The difference and its remedy.
        problem: Fault,
    },
    /// A part that `init` creates is missing.
    #[error("rollup `{rollup}`: its tables are not ready")]
    NotReady { rollup: String },
    /// The server refuses, or cannot be reached.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Hinted for DdlError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Incompatible { problem, .. } => problem.hint(),
            Self::NotReady { .. } => Some("run `tallymark init`".into()),
            Self::Db(error) => error.hint(),
        }
    }
}

/// A column that a table should have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ColumnSpec {
    name: String,
    sql_type: String,
    /// Everything that follows the type in DDL.
    rest: String,
    /// The collation, quoted, where it differs from the type's own.
    collation: Option<String>,
    /// Whether PostgreSQL computes it from others.
    generated: bool,
    /// Whether it may be added to an existing table. Only measures may, as any other column makes
    /// another table.
    may_be_added: bool,
}

/// The statements that `init` must still run for `rollup`, in order. An empty list means that all
/// is ready.
///
/// # Errors
/// An existing table contradicts the definition.
pub async fn plan(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
    shape: &Shape,
) -> Result<Vec<String>, DdlError> {
    plan_further(tx, target, rollup, shape, SharedObjects::Unknown).await
}

/// As [`plan`], after other rollups whose statements have made what is shared.
///
/// # Errors
/// As [`plan`].
pub(crate) async fn plan_further(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
    shape: &Shape,
    shared: SharedObjects,
) -> Result<Vec<String>, DdlError> {
    if rollup.mirror.is_some() {
        return mirror::plan(tx, target, rollup, shape, shared).await;
    }
    let table = target.table(rollup);
    let wanted = rollup_columns(shape);
    if let Some(problem) = too_wide(&wanted, stage_wanted(shape).len()) {
        return Err(incompatible(rollup, &table, problem));
    }
    let mut statements = schemas(tx, target, rollup, shared).await?;
    let found = ready::columns_of(tx, &table).await?;
    if found.is_empty() {
        refuse_second_table(tx, rollup, &table).await?;
        statements.extend(create_rollup(target, rollup, &wanted));
        statements.extend(indexes::new_indexes(tx, &table, shape).await?);
    } else {
        claim_registry(tx, target, rollup, &table).await?;
        keeps_dates(tx, rollup, &table).await?;
        let persistence = match rollup.partition_by {
            None => Persistence::Logged,
            Some(_) => Persistence::Partitioned,
        };
        statements.extend(keeps_rows(tx, rollup, &table, persistence).await?);
        statements.extend(alter_rollup(rollup, &table, &wanted, &found)?);
        let indexes = indexes::rollup_indexes(tx, target, rollup, shape).await?;
        if let Some(name) = indexes.stranger {
            return Err(DdlError::Incompatible {
                rollup: rollup.name.clone(),
                table: table.clone(),
                problem: Fault::new(format!(
                    "has the unique index {name}, which could refuse right rows"
                ))
                .remedy(format!(
                    "drop it: DROP INDEX {name}, or, where a constraint made it, ALTER TABLE {table} DROP \
                     CONSTRAINT {name}"
                )),
            });
        }
        statements.extend(indexes.statements);
    }
    let index = format!("CREATE INDEX ON {} (slice_start)", Target::stage(rollup));
    statements.extend(stage(tx, rollup, &stage_wanted(shape), index).await?.1);
    Ok(statements)
}

/// Whether the stage has the `wanted` columns, and the statements for it. A stage of other columns is
/// made again, with this index.
async fn stage(
    tx: &mut Tx,
    rollup: &Rollup,
    wanted: &[ColumnSpec],
    index: String,
) -> Result<(bool, Vec<String>), DdlError> {
    let stage = Target::stage(rollup);
    let found = existing(tx, &stage).await?;
    let fits = found.as_ref().is_some_and(|found| {
        let has = |it: &ColumnSpec| found.contains(&(it.name.clone(), it.sql_type.clone()));
        found.len() == wanted.len() && wanted.iter().all(has)
    });
    if fits {
        let persists = keeps_rows(tx, rollup, &stage, Persistence::Unlogged).await?;
        return Ok((true, persists.into_iter().collect()));
    }
    let mut statements = Vec::new();
    if found.is_some() {
        statements.push(format!("DROP TABLE {stage}"));
        // The definition may be the same, as a column of the source can change its type.
        let rollup = literal(&rollup.name);
        statements.push(format!("DELETE FROM tallymark.progress WHERE rollup = {rollup}"));
    }
    statements.push(create("UNLOGGED TABLE", &stage, wanted));
    let comment = format!("Partials of unfinished slices of rollup {}", rollup.name);
    statements.push(format!("COMMENT ON TABLE {stage} IS {}", literal(&comment)));
    statements.push(index);
    Ok((false, statements))
}

/// Why PostgreSQL would refuse a table of these columns, its stage, or a row of it.
fn too_wide(wanted: &[ColumnSpec], stage_columns: usize) -> Option<Fault> {
    // MaxHeapAttributeNumber and MaxHeapTupleSize for pages of 8 kB.
    const COLUMNS_MAX: usize = 1_600;
    const BYTES_MAX: usize = 8_160;
    let columns = wanted.len().max(stage_columns);
    if columns > COLUMNS_MAX {
        let fault = Fault::new(format!(
            "would need {columns} columns, with its stage, and PostgreSQL takes {COLUMNS_MAX}"
        ));
        return Some(fault.remedy("make two rollups of it"));
    }
    // Values of any other type take at least one byte, or are moved out of the row.
    let width = |column: &ColumnSpec| match column.sql_type.as_str() {
        "bigint"
        | "double precision"
        | "timestamp with time zone"
        | "timestamp without time zone"
        | "time without time zone" => 8,
        "integer" | "real" | "date" => 4,
        "uuid" | "interval" => 16,
        "smallint" => 2,
        _ => 1,
    };
    let header = (23 + columns.div_ceil(8)).next_multiple_of(8);
    let bytes = header + wanted.iter().map(width).sum::<usize>();
    (bytes > BYTES_MAX).then(|| {
        Fault::new(format!(
            "would have rows of {bytes} bytes or more, and PostgreSQL stores {BYTES_MAX} in a page"
        ))
        .remedy("make two rollups of it")
    })
}

/// As [`ready::keeps_rows`], but a refusal becomes an error of `rollup`.
async fn keeps_rows(
    tx: &mut Tx,
    rollup: &Rollup,
    table: &str,
    wanted: Persistence,
) -> Result<Vec<String>, DdlError> {
    let kept = ready::keeps_rows(tx, table, wanted).await;
    kept.map_err(|error| unfit(rollup, table, error))
}

/// The error of `rollup` for what the catalogue shows of its `table`.
fn unfit(rollup: &Rollup, table: &str, error: CatalogueError) -> DdlError {
    match error {
        CatalogueError::Unfit(problem) => incompatible(rollup, table, problem),
        CatalogueError::Db(error) => error.into(),
    }
}

fn incompatible(rollup: &Rollup, table: &str, problem: Fault) -> DdlError {
    DdlError::Incompatible { rollup: rollup.name.clone(), table: table.to_owned(), problem }
}

fn collate(collation: Option<&String>) -> String {
    collation.map_or_else(String::new, |collation| format!(" COLLATE {collation}"))
}

fn rollup_columns(shape: &Shape) -> Vec<ColumnSpec> {
    let mut wanted = vec![ColumnSpec {
        name: "bucket".into(),
        sql_type: shape.axis.bucket_as().sql_type().into(),
        rest: " NOT NULL".into(),
        collation: None,
        generated: false,
        may_be_added: false,
    }];
    wanted.extend(shape.dimensions.iter().map(|dimension| ColumnSpec {
        name: dimension.name.clone(),
        sql_type: dimension.sql_type.clone(),
        rest: collate(dimension.collation.as_ref()),
        collation: dimension.collation.clone(),
        generated: false,
        may_be_added: false,
    }));
    wanted.extend(shape.fields.iter().map(|field| ColumnSpec {
        name: field.name.clone(),
        sql_type: field.sql_type.clone(),
        rest: collate(field.collation.as_ref()),
        collation: field.collation.clone(),
        generated: false,
        may_be_added: true,
    }));
    wanted.extend(shape.generated.iter().map(|generated| ColumnSpec {
        name: generated.name.clone(),
        sql_type: generated.sql_type.clone(),
        rest: format!(" GENERATED ALWAYS AS ({}) STORED", generated.expression),
        collation: None,
        generated: true,
        may_be_added: true,
    }));
    wanted
}

fn stage_wanted(shape: &Shape) -> Vec<ColumnSpec> {
    let plain = |name: &str, sql_type: &str, rest: &str| ColumnSpec {
        name: name.to_owned(),
        sql_type: sql_type.to_owned(),
        rest: rest.to_owned(),
        collation: None,
        generated: false,
        may_be_added: false,
    };
    let mut wanted = vec![plain("slice_start", "timestamp with time zone", " NOT NULL")];
    wanted.extend(rollup_columns(shape).into_iter().take(1 + shape.dimensions.len()));
    wanted.extend(
        shape
            .fields
            .iter()
            .map(|field| plain(&field.name, &field.stage_type, &collate(field.collation.as_ref()))),
    );
    wanted.push(plain(ROWS, "bigint", " NOT NULL"));
    wanted.push(plain(TAG, "integer", " NOT NULL"));
    wanted.extend(
        shape
            .values
            .iter()
            .enumerate()
            .map(|(place, it)| {
                (value_column(place), &it.stage_type, collate(it.collation.as_ref()))
            })
            .map(|(name, sql_type, rest)| plain(&name, sql_type, &rest)),
    );
    wanted
}

fn create(kind: &str, table: &str, wanted: &[ColumnSpec]) -> String {
    let lines: Vec<String> = wanted
        .iter()
        .map(|column| format!("    {} {}{}", ident(&column.name), column.sql_type, column.rest))
        .collect();
    format!("CREATE {kind} {table} (\n{}\n)", lines.join(",\n"))
}

fn create_rollup(target: &Target, rollup: &Rollup, wanted: &[ColumnSpec]) -> Vec<String> {
    let table = target.table(rollup);
    let comment = match &rollup.mirror {
        Some(mirror) => format!("Tallymark mirror of {}, one row per thing", mirror.thing),
        None => format!(
            "Tallymark rollup of {}, one row per group and bucket of {}",
            rollup.from, rollup.bucket
        ),
    };
    let partitions = rollup.partition_by.map_or("", |_| " PARTITION BY RANGE (bucket)");
    vec![
        format!("{}{partitions}", create("TABLE", &table, wanted)),
        format!("COMMENT ON TABLE {table} IS {}", literal(&comment)),
        // The markers of a dropped table describe rows that are gone. Their attempts are still
        // needed for the fence.
        format!(
            "UPDATE tallymark.slice SET definition = NULL, rows_read = NULL, groups = NULL, \
             replaced_at = NULL, replaced_by = NULL, replaced_owner = NULL, open_until = NULL \
             WHERE rollup = {}",
            literal(&rollup.name)
        ),
        format!(
            "INSERT INTO tallymark.rollup (rollup, target_table, calendar) VALUES ({}, {}, {}) \
             ON CONFLICT (rollup) DO UPDATE SET target_table = excluded.target_table",
            literal(&rollup.name),
            literal(&table),
            literal(&rollup.calendar_words()),
        ),
    ]
}

/// Names and types of a table's columns. `None`: the table does not exist.
async fn existing(tx: &mut Tx, table: &str) -> Result<Option<Vec<(String, String)>>, DbError> {
    let sql = format!(
        "SELECT a.attname::text, CASE WHEN t.typname IN ('bit', 'bpchar', '_bit', '_bpchar') \
         THEN format_type(a.atttypid, a.atttypmod) ELSE format_type(a.atttypid, NULL) END \
         FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
         WHERE a.attrelid = to_regclass({}) AND a.attnum > 0 AND NOT a.attisdropped \
         ORDER BY a.attnum",
        literal(table)
    );
    let rows = tx.rows(&format!("looking up {table}"), sql).await?;
    let columns = rows
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<Vec<_>, sqlx::Error>>()
        .map_err(|source| tx.error(format!("looking up {table}"), source))?;
    Ok((!columns.is_empty()).then_some(columns))
}

/// Refuses an existing table that Tallymark did not create, and a rollup whose markers belong to a
/// table in another schema, as two configurations must not share markers.
async fn claim_registry(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
    table: &str,
) -> Result<(), DdlError> {
    match registered_table(tx, rollup).await? {
        Some(registered) if registered == table => Ok(()),
        Some(registered) => Err(kept_elsewhere(rollup, table, &registered)),
        None => {
            let problem = Fault::new("exists but was not made by Tallymark").remedy(format!(
                "rename it, or choose another rollup name or [target] schema than `{}`",
                target.schema
            ));
            Err(incompatible(rollup, table, problem))
        }
    }
}

/// Refuses a change of the zone where the buckets are dates: a date of the zone before looks like one
/// of this zone, so that slices of both could not be told apart.
async fn keeps_dates(tx: &mut Tx, rollup: &Rollup, table: &str) -> Result<(), DdlError> {
    if rollup.bucket_as == BucketType::Instant {
        return Ok(());
    }
    let Some(calendar) = generation::registered(tx, rollup).await?.calendar else { return Ok(()) };
    let (zone, before) = (rollup.calendar.zone().name(), calendar.split(", ").nth(1));
    match before.filter(|before| *before != zone) {
        None => Ok(()),
        Some(before) => {
            let problem =
                Fault::new(format!("keeps dates of {before}, and the rollup now follows {zone}"));
            let problem = problem.remedy(format!(
                "set timezone = \"{before}\" again, or give the changed rollup a new name"
            ));
            Err(incompatible(rollup, table, problem))
        }
    }
}

/// Refuses to create a table for a rollup whose markers belong to another existing table, because
/// that table's installation would lose them. A dropped table has no claim.
async fn refuse_second_table(tx: &mut Tx, rollup: &Rollup, table: &str) -> Result<(), DdlError> {
    let Some(registered) = registered_table(tx, rollup).await? else { return Ok(()) };
    if registered != table && existing(tx, &registered).await?.is_some() {
        return Err(kept_elsewhere(rollup, table, &registered));
    }
    Ok(())
}

fn kept_elsewhere(rollup: &Rollup, table: &str, registered: &str) -> DdlError {
    let problem = Fault::new(format!(
        "cannot be used: rollup `{}` already keeps {registered} in this database",
        rollup.name
    ))
    .remedy(
        "if that is another installation's, choose another name; if it is this one's, set [target] \
         schema back, or drop that table",
    );
    incompatible(rollup, table, problem)
}

/// The rollup's table in the registry.
async fn registered_table(tx: &mut Tx, rollup: &Rollup) -> Result<Option<String>, DbError> {
    const DOING: &str = "reading the registry";
    if existing(tx, "tallymark.rollup").await?.is_none() {
        return Ok(None);
    }
    let sql = format!(
        "SELECT target_table FROM tallymark.rollup WHERE rollup = {}",
        literal(&rollup.name)
    );
    let rows = tx.rows(DOING, sql).await?;
    let table = rows.first().map(|row| row.try_get(0)).transpose();
    table.map_err(|source| tx.error(DOING, source))
}
