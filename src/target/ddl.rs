//! The tables of the target: what is there, what a definition needs, and the SQL in between.

use sqlx::Row as _;

use super::Target;
use super::statement::columns;
use crate::db::{DbError, Tx};
use crate::rollup::Rollup;
use crate::source::read::{ROWS, TAG, value_column};
use crate::source::shape::Shape;
use crate::sql::{ident, literal};

/// PostgreSQL 15 and later can take NULL for equal to NULL in a unique index.
const NULLS_NOT_DISTINCT: i32 = 150_000;

/// Why the target's tables do not fit.
#[derive(Debug, thiserror::Error)]
pub enum DdlError {
    /// The table was made for another definition.
    #[error("rollup `{rollup}`: table {table} {problem}")]
    Incompatible {
        /// The rollup's name.
        rollup: String,
        /// The table, quoted.
        table: String,
        /// What differs and what to do.
        problem: String,
    },
    /// Something is missing that `init` would make.
    #[error("rollup `{rollup}`: its tables are not ready; run `tallymark init`")]
    NotReady {
        /// The rollup's name.
        rollup: String,
    },
    /// The server refuses, or cannot be reached.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// A column that a table should have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    name: String,
    sql_type: String,
    /// Everything that follows the type in DDL.
    rest: String,
    /// A measure may be added to a table that exists; anything else makes it another table.
    may_be_added: bool,
}

/// The statements that `init` must still run for `rollup`, in order; none when all is ready.
///
/// # Errors
/// A table exists that does not fit the definition.
pub async fn plan(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
    shape: &Shape,
) -> Result<Vec<String>, DdlError> {
    let mut statements = schemas(tx, target).await?;
    let version = tx
        .row("asking for the version", "SELECT current_setting('server_version_num')::int".into())
        .await?
        .try_get::<i32, _>(0)
        .map_err(|source| tx.error("asking for the version", source))?;
    let table = target.table(rollup);
    let wanted = rollup_columns(shape);
    match existing(tx, &table).await? {
        None => statements.extend(create_rollup(target, rollup, shape, &wanted, version)),
        Some(found) => {
            claim_registry(tx, target, rollup, &table).await?;
            statements.extend(alter_rollup(rollup, &table, &wanted, &found)?);
        }
    }
    let stage = Target::stage(rollup);
    let wanted = stage_wanted(shape);
    let found = existing(tx, &stage).await?;
    let fits = found.as_ref().is_some_and(|found| {
        found.len() == wanted.len()
            && wanted
                .iter()
                .all(|column| found.contains(&(column.name.clone(), column.sql_type.clone())))
    });
    if !fits {
        if found.is_some() {
            statements.push(format!("DROP TABLE {stage}"));
            // The definition may be the same: a column of the source can change its type.
            let rollup = literal(&rollup.name);
            statements.push(format!("DELETE FROM tallymark.progress WHERE rollup = {rollup}"));
        }
        statements.push(create("UNLOGGED TABLE", &stage, &wanted));
        statements.push(format!("CREATE INDEX ON {stage} (slice_start)"));
    }
    Ok(statements)
}

/// The schemas and the tables that all rollups share.
async fn schemas(tx: &mut Tx, target: &Target) -> Result<Vec<String>, DbError> {
    let mut statements = Vec::new();
    for (schema, comment) in [
        ("tallymark", "Tallymark's own: one marker per slice, partials of unfinished slices"),
        (target.schema.as_str(), "Rollup tables, kept by Tallymark"),
    ] {
        let sql = format!("SELECT FROM pg_namespace WHERE nspname = {}", literal(schema));
        if tx.rows("looking for schemas", sql).await?.is_empty() {
            statements.push(format!("CREATE SCHEMA {}", ident(schema)));
            statements.push(format!("COMMENT ON SCHEMA {} IS {}", ident(schema), literal(comment)));
        }
    }
    for (table, sql) in [
        ("tallymark.slice", include_str!("slice.sql")),
        ("tallymark.progress", include_str!("progress_table.sql")),
        ("tallymark.rollup", include_str!("registry.sql")),
        ("tallymark.installation", include_str!("installation.sql")),
    ] {
        match existing(tx, table).await? {
            None => statements.push(sql.trim().to_owned()),
            Some(found) => statements.extend(added_since(table, &found)),
        }
    }
    Ok(statements)
}

/// Columns that a table of an older version lacks. They say nothing about the rows that are there.
fn added_since(table: &str, found: &[(String, String)]) -> Vec<String> {
    let columns: &[(&str, &str)] = match table {
        "tallymark.slice" => {
            &[("replaced_by", "bigint"), ("owner", "text"), ("replaced_owner", "text")]
        }
        "tallymark.rollup" => &[
            ("calendar", "text"),
            ("generation", "bigint NOT NULL DEFAULT 0"),
            ("installation", "text"),
        ],
        _ => &[],
    };
    let absent = columns.iter().filter(|(name, _)| !has(found, name));
    absent
        .map(|(name, sql_type)| format!("ALTER TABLE {table} ADD COLUMN {name} {sql_type}"))
        .collect()
}

fn has(columns: &[(String, String)], name: &str) -> bool {
    columns.iter().any(|(known, _)| known == name)
}

fn collate(collation: Option<&String>) -> String {
    collation.map_or_else(String::new, |collation| format!(" COLLATE {collation}"))
}

fn rollup_columns(shape: &Shape) -> Vec<Wanted> {
    let mut wanted = vec![Wanted {
        name: "bucket".into(),
        sql_type: "timestamp with time zone".into(),
        rest: " NOT NULL".into(),
        may_be_added: false,
    }];
    wanted.extend(shape.dimensions.iter().map(|dimension| Wanted {
        name: dimension.name.clone(),
        sql_type: dimension.sql_type.clone(),
        rest: collate(dimension.collation.as_ref()),
        may_be_added: false,
    }));
    wanted.extend(shape.fields.iter().map(|field| Wanted {
        name: field.name.clone(),
        sql_type: field.sql_type.clone(),
        rest: collate(field.collation.as_ref()),
        may_be_added: true,
    }));
    wanted.extend(shape.generated.iter().map(|generated| Wanted {
        name: generated.name.clone(),
        sql_type: generated.sql_type.clone(),
        rest: format!(" GENERATED ALWAYS AS ({}) STORED", generated.expression),
        may_be_added: true,
    }));
    wanted
}

fn stage_wanted(shape: &Shape) -> Vec<Wanted> {
    let plain = |name: &str, sql_type: &str, rest: &str| Wanted {
        name: name.to_owned(),
        sql_type: sql_type.to_owned(),
        rest: rest.to_owned(),
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
            .distinct
            .iter()
            .enumerate()
            .map(|(place, it)| {
                (value_column(place), &it.stage_type, collate(it.collation.as_ref()))
            })
            .map(|(name, sql_type, rest)| plain(&name, sql_type, &rest)),
    );
    wanted
}

fn create(kind: &str, table: &str, wanted: &[Wanted]) -> String {
    let lines: Vec<String> = wanted
        .iter()
        .map(|column| format!("    {} {}{}", ident(&column.name), column.sql_type, column.rest))
        .collect();
    format!("CREATE {kind} {table} (\n{}\n)", lines.join(",\n"))
}

fn create_rollup(
    target: &Target,
    rollup: &Rollup,
    shape: &Shape,
    wanted: &[Wanted],
    version: i32,
) -> Vec<String> {
    let table = target.table(rollup);
    let keys = columns(shape)[..=shape.dimensions.len()].join(", ");
    let nulls = if version >= NULLS_NOT_DISTINCT { " NULLS NOT DISTINCT" } else { "" };
    let comment = format!(
        "Tallymark rollup of {}, one row per group and bucket of {}",
        rollup.from, rollup.bucket
    );
    vec![
        create("TABLE", &table, wanted),
        format!("CREATE UNIQUE INDEX ON {table} ({keys}){nulls}"),
        format!("COMMENT ON TABLE {table} IS {}", literal(&comment)),
        // Markers of a table that was dropped speak of rows that are gone; their attempts still fence.
        format!(
            "UPDATE tallymark.slice SET definition = NULL, rows_read = NULL, groups = NULL, \
             replaced_at = NULL, replaced_by = NULL, replaced_owner = NULL WHERE rollup = {}",
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

/// Names and types of a table's columns; `None` if there is no such table.
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

/// Refuses a table that exists but is not ours, and a rollup whose markers belong to a table in
/// another schema: two configurations must not share markers.
async fn claim_registry(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
    table: &str,
) -> Result<(), DdlError> {
    let incompatible = |problem: String| DdlError::Incompatible {
        rollup: rollup.name.clone(),
        table: table.to_owned(),
        problem,
    };
    let registered = if existing(tx, "tallymark.rollup").await?.is_some() {
        let sql = format!(
            "SELECT target_table FROM tallymark.rollup WHERE rollup = {}",
            literal(&rollup.name)
        );
        let rows = tx.rows("reading the registry", sql).await?;
        rows.first()
            .map(|row| row.try_get::<String, _>(0))
            .transpose()
            .map_err(|source| tx.error("reading the registry", source))?
    } else {
        None
    };
    match registered {
        Some(registered) if registered == table => Ok(()),
        Some(registered) => Err(incompatible(format!(
            "cannot be used: rollup `{}` already keeps {registered} in this database; choose \
             another name",
            rollup.name
        ))),
        None => Err(incompatible(format!(
            "exists but was not made by Tallymark; rename it, or choose another rollup name or \
             [target] schema than `{}`",
            target.schema
        ))),
    }
}

/// Adds measures that are new; refuses every other difference.
fn alter_rollup(
    rollup: &Rollup,
    table: &str,
    wanted: &[Wanted],
    found: &[(String, String)],
) -> Result<Vec<String>, DdlError> {
    let incompatible = |problem: String| DdlError::Incompatible {
        rollup: rollup.name.clone(),
        table: table.to_owned(),
        problem,
    };
    let is_wanted = |name: &String| wanted.iter().any(|column| &column.name == name);
    // From the last on: a mean is generated from the columns before it.
    let surplus: Vec<String> = found
        .iter()
        .rev()
        .filter(|(name, _)| !is_wanted(name))
        .map(|(name, _)| format!("DROP COLUMN {}", ident(name)))
        .collect();
    if let Some((name, _)) = found.iter().find(|(name, _)| !is_wanted(name)) {
        return Err(incompatible(format!(
            "has a column {} that the definition lacks; put it back, or give the changed rollup a \
             new name, or, if a measure is no longer wanted: ALTER TABLE {table} {}; then run \
             `tallymark init`",
            ident(name),
            surplus.join(", "),
        )));
    }
    for (name, sql_type) in found {
        match wanted.iter().find(|column| &column.name == name) {
            Some(column) if &column.sql_type != sql_type => {
                return Err(incompatible(format!(
                    "has column {} of type {sql_type}, the definition now gives {}; give the \
                     changed rollup a new name",
                    ident(name),
                    column.sql_type
                )));
            }
            _ => {}
        }
    }
    let mut statements = Vec::new();
    for column in wanted {
        if has(found, &column.name) {
            continue;
        }
        if !column.may_be_added {
            return Err(incompatible(format!(
                "lacks the dimension {}; a rollup with other dimensions needs a new name",
                ident(&column.name)
            )));
        }
        statements.push(format!(
            "ALTER TABLE {table} ADD COLUMN {} {}{}",
            ident(&column.name),
            column.sql_type,
            column.rest
        ));
    }
    Ok(statements)
}
