//! The tables of the target: the existing ones, those that a definition needs, and the SQL that
//! leads from one to the other.

use sqlx::Row as _;

use super::Target;
use super::indexes;
use super::ready::{self, Found, Persistence};
use crate::clients::db::{DbError, Tx};
use crate::model::measure::partial::{ROWS, TAG, value_column};
use crate::model::rollup::Rollup;
use crate::model::sql::{ident, literal};
use crate::source::reading::shape::Shape;

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
        problem: String,
    },
    /// A part that `init` creates is missing.
    #[error("rollup `{rollup}`: its tables are not ready; run `tallymark init`")]
    NotReady { rollup: String },
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
    let table = target.table(rollup);
    let wanted = rollup_columns(shape);
    if let Some(problem) = too_wide(&wanted, stage_wanted(shape).len()) {
        return Err(incompatible(rollup, &table, problem));
    }
    let mut statements = schemas(tx, target, rollup).await?;
    let found = ready::found(tx, &table).await?;
    if found.is_empty() {
        refuse_second_table(tx, rollup, &table).await?;
        statements.extend(create_rollup(target, rollup, &wanted));
        statements.extend(indexes::new_indexes(tx, &table, shape).await?);
    } else {
        claim_registry(tx, target, rollup, &table).await?;
        statements.extend(keeps_rows(tx, rollup, &table, Persistence::Logged).await?);
        statements.extend(alter_rollup(rollup, &table, &wanted, &found)?);
        let indexes = indexes::rollup_indexes(tx, target, rollup, shape).await?;
        if let Some(name) = indexes.stranger {
            return Err(DdlError::Incompatible {
                rollup: rollup.name.clone(),
                table,
                problem: format!(
                    "has the unique index {name}, which could refuse right rows; drop it (DROP INDEX, or \
                     ALTER TABLE … DROP CONSTRAINT)"
                ),
            });
        }
        statements.extend(indexes.statements);
    }
    let stage = Target::stage(rollup);
    let wanted = stage_wanted(shape);
    let found = existing(tx, &stage).await?;
    let persists = keeps_rows(tx, rollup, &stage, Persistence::Unlogged).await?;
    let fits = found.as_ref().is_some_and(|found| {
        found.len() == wanted.len()
            && wanted
                .iter()
                .all(|column| found.contains(&(column.name.clone(), column.sql_type.clone())))
    });
    if !fits {
        if found.is_some() {
            statements.push(format!("DROP TABLE {stage}"));
            // The definition may be the same, as a column of the source can change its type.
            let rollup = literal(&rollup.name);
            statements.push(format!("DELETE FROM tallymark.progress WHERE rollup = {rollup}"));
        }
        statements.push(create("UNLOGGED TABLE", &stage, &wanted));
        statements.push(format!("CREATE INDEX ON {stage} (slice_start)"));
    } else {
        statements.extend(persists);
    }
    Ok(statements)
}

/// Why PostgreSQL would refuse a table of these columns, its stage, or a row of it.
fn too_wide(wanted: &[Wanted], stage_columns: usize) -> Option<String> {
    // MaxHeapAttributeNumber and MaxHeapTupleSize for pages of 8 kB.
    const COLUMNS_MAX: usize = 1_600;
    const BYTES_MAX: usize = 8_160;
    let columns = wanted.len().max(stage_columns);
    if columns > COLUMNS_MAX {
        return Some(format!(
            "would need {columns} columns, with its stage, and PostgreSQL takes {COLUMNS_MAX}; make two \
             rollups of it"
        ));
    }
    // Values of any other type take at least one byte, or are moved out of the row.
    let width = |column: &Wanted| match column.sql_type.as_str() {
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
        format!(
            "would have rows of {bytes} bytes or more, and PostgreSQL stores {BYTES_MAX} in a page; make \
             two rollups of it"
        )
    })
}

/// As [`ready::keeps_rows`], but a refusal becomes an error of `rollup`.
async fn keeps_rows(
    tx: &mut Tx,
    rollup: &Rollup,
    table: &str,
    wanted: Persistence,
) -> Result<Vec<String>, DdlError> {
    let kept = ready::keeps_rows(tx, table, wanted).await?;
    kept.map_err(|problem| incompatible(rollup, table, problem))
}

fn incompatible(rollup: &Rollup, table: &str, problem: String) -> DdlError {
    DdlError::Incompatible { rollup: rollup.name.clone(), table: table.to_owned(), problem }
}

/// The functions of the unique indexes: name, argument types, statement.
const KEY_FUNCTIONS: [(&str, &str, &str); 3] = [
    ("key_hash", "record", include_str!("key_hash.sql")),
    ("key_of", "text", include_str!("key_of_text.sql")),
    ("key_of", "bytea", include_str!("key_of_bytes.sql")),
];

/// The statements that create the functions of the unique indexes, where one is missing or
/// different. An index filled by another body is rebuilt.
async fn key_functions(tx: &mut Tx) -> Result<Vec<String>, DbError> {
    const DOING: &str = "looking for the functions of the unique indexes";
    let mut statements = Vec::new();
    for (name, arguments, sql) in KEY_FUNCTIONS {
        let sql = sql.trim();
        let tag = if name == "key_hash" { "$hash$" } else { "$key$" };
        let body = sql.split(tag).nth(1).unwrap_or_default();
        let found = format!(
            include_str!("key_function.sql"),
            name = literal(name),
            arguments = literal(arguments),
            body = literal(body),
        );
        let rows = tx.rows(DOING, found).await?;
        let read =
            |row: &sqlx::postgres::PgRow| Ok((row.try_get("fits")?, row.try_get("indexes")?));
        let found = rows.first().map(read).transpose();
        let (fits, indexes): (bool, Vec<String>) =
            found.map_err(|source| tx.error(DOING, source))?.unwrap_or_default();
        if !fits {
            statements.push(sql.to_owned());
            statements.extend(indexes.iter().map(|index| format!("REINDEX INDEX {index}")));
        }
    }
    Ok(statements)
}

/// The schemas and the tables that all rollups share.
async fn schemas(tx: &mut Tx, target: &Target, rollup: &Rollup) -> Result<Vec<String>, DdlError> {
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
    let by_slice = &["rollup", "slice_start"][..];
    let (logged, unlogged) = (Persistence::Logged, Persistence::Unlogged);
    for (table, sql, key, newest, persistence) in [
        ("tallymark.slice", include_str!("slice.sql"), by_slice, "attempt", logged),
        // A crash empties the stage. Progress that outlived it would skip the lost chunks.
        ("tallymark.progress", include_str!("progress_table.sql"), by_slice, "attempt", unlogged),
        ("tallymark.rollup", include_str!("registry.sql"), &["rollup"], "generation", logged),
        ("tallymark.installation", include_str!("installation.sql"), &["id"], "created_at", logged),
    ] {
        match existing(tx, table).await? {
            None => statements.push(sql.trim().to_owned()),
            Some(found) => {
                let added = added_since(table, &found);
                if added.is_empty() {
                    fits_shared(rollup, table, sql, &found)?;
                }
                statements.extend(added);
                statements.extend(keeps_rows(tx, rollup, table, persistence).await?);
                let key = indexes::shared_key(tx, table, key, newest).await?;
                statements.extend(key.map_err(|problem| incompatible(rollup, table, problem))?);
            }
        }
    }
    statements.extend(key_functions(tx).await?);
    Ok(statements)
}

/// Columns that a table of an older version lacks. For the existing rows they may be NULL.
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

/// Refuses a shared table that lacks a column of `sql`, its defining statement.
fn fits_shared(
    rollup: &Rollup,
    table: &str,
    sql: &str,
    found: &[(String, String)],
) -> Result<(), DdlError> {
    let lines = sql.lines().filter_map(|line| line.strip_prefix("    "));
    for (name, rest) in lines.filter_map(|line| line.split_once(' ')) {
        if name != name.to_lowercase() {
            // PRIMARY KEY.
            continue;
        }
        let wanted = match rest.split([' ', ',']).next() {
            Some("timestamptz") => "timestamp with time zone",
            other => other.unwrap_or_default(),
        };
        let fits = |(known, sql_type): &(String, String)| known == name && sql_type == wanted;
        if !found.iter().any(fits) {
            return Err(DdlError::Incompatible {
                rollup: rollup.name.clone(),
                table: table.to_owned(),
                problem: format!(
                    "lacks its column {name} of type {wanted}; rename the table, run `tallymark init`, \
                     and copy its rows back"
                ),
            });
        }
    }
    Ok(())
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
        collation: None,
        generated: false,
        may_be_added: false,
    }];
    wanted.extend(shape.dimensions.iter().map(|dimension| Wanted {
        name: dimension.name.clone(),
        sql_type: dimension.sql_type.clone(),
        rest: collate(dimension.collation.as_ref()),
        collation: dimension.collation.clone(),
        generated: false,
        may_be_added: false,
    }));
    wanted.extend(shape.fields.iter().map(|field| Wanted {
        name: field.name.clone(),
        sql_type: field.sql_type.clone(),
        rest: collate(field.collation.as_ref()),
        collation: field.collation.clone(),
        generated: false,
        may_be_added: true,
    }));
    wanted.extend(shape.generated.iter().map(|generated| Wanted {
        name: generated.name.clone(),
        sql_type: generated.sql_type.clone(),
        rest: format!(" GENERATED ALWAYS AS ({}) STORED", generated.expression),
        collation: None,
        generated: true,
        may_be_added: true,
    }));
    wanted
}

fn stage_wanted(shape: &Shape) -> Vec<Wanted> {
    let plain = |name: &str, sql_type: &str, rest: &str| Wanted {
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

fn create(kind: &str, table: &str, wanted: &[Wanted]) -> String {
    let lines: Vec<String> = wanted
        .iter()
        .map(|column| format!("    {} {}{}", ident(&column.name), column.sql_type, column.rest))
        .collect();
    format!("CREATE {kind} {table} (\n{}\n)", lines.join(",\n"))
}

fn create_rollup(target: &Target, rollup: &Rollup, wanted: &[Wanted]) -> Vec<String> {
    let table = target.table(rollup);
    let comment = format!(
        "Tallymark rollup of {}, one row per group and bucket of {}",
        rollup.from, rollup.bucket
    );
    vec![
        create("TABLE", &table, wanted),
        format!("COMMENT ON TABLE {table} IS {}", literal(&comment)),
        // The markers of a dropped table describe rows that are gone. Their attempts are still
        // needed for the fence.
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
            let problem = format!(
                "exists but was not made by Tallymark; rename it, or choose another rollup name or [target] \
                 schema than `{}`",
                target.schema
            );
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
    let problem = format!(
        "cannot be used: rollup `{}` already keeps {registered} in this database; if that is another \
         installation's, choose another name; if it is this one's, set [target] schema back, or drop that table",
        rollup.name
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

/// Adds new measures. Refuses every other difference.
fn alter_rollup(
    rollup: &Rollup,
    table: &str,
    wanted: &[Wanted],
    found: &[Found],
) -> Result<Vec<String>, DdlError> {
    let incompatible = |problem: String| DdlError::Incompatible {
        rollup: rollup.name.clone(),
        table: table.to_owned(),
        problem,
    };
    if let Some(problem) = surplus(table, wanted, found) {
        return Err(incompatible(problem));
    }
    let mut statements = Vec::new();
    for column in wanted {
        let name = ident(&column.name);
        let Some(known) = found.iter().find(|known| known.name == column.name) else {
            if !column.may_be_added {
                return Err(incompatible(format!(
                    "lacks the dimension {name}; a rollup with other dimensions needs a new name"
                )));
            }
            let (sql_type, rest) = (&column.sql_type, &column.rest);
            statements.push(format!("ALTER TABLE {table} ADD COLUMN {name} {sql_type}{rest}"));
            continue;
        };
        if known.sql_type != column.sql_type {
            return Err(incompatible(retyped(table, column, known, wanted)));
        }
        let (collation, generated) = (column.collation.as_ref(), column.generated);
        if let Some(problem) = ready::column_problem(table, known, collation, generated) {
            return Err(incompatible(problem));
        }
        if column.name == "bucket" && !known.is_not_null {
            statements.push(format!("ALTER TABLE {table} ALTER COLUMN bucket SET NOT NULL"));
        }
    }
    Ok(statements)
}

/// Why columns beyond the definition are in the way. A statement that drops them is offered only
/// where they are certainly measures, because they follow all columns of the definition.
fn surplus(table: &str, wanted: &[Wanted], found: &[Found]) -> Option<String> {
    let is_wanted = |name: &String| wanted.iter().any(|column| &column.name == name);
    let first = found.iter().position(|column| !is_wanted(&column.name))?;
    let name = ident(&found[first].name);
    // `init` creates the dimensions first, then the measures.
    let first_measure = wanted
        .iter()
        .filter(|column| column.may_be_added)
        .filter_map(|column| found.iter().position(|known| known.name == column.name))
        .min();
    let dimension_is_gone = first_measure.is_none_or(|measure| first < measure);
    if dimension_is_gone {
        return Some(format!(
            "has a column {name} that the definition lacks; if it is a dimension, its rows cannot \
             be told apart without it: put it back into group_by, or give the changed rollup a new \
             name"
        ));
    }
    // Starts with the last, as a mean is generated from the columns before it.
    let surplus: Vec<String> = found
        .iter()
        .rev()
        .filter(|column| !is_wanted(&column.name))
        .map(|column| format!("DROP COLUMN {}", ident(&column.name)))
        .collect();
    Some(format!(
        "has a column {name} that the definition lacks; put it back, or give the changed rollup a \
         new name, or, if a measure is no longer wanted: ALTER TABLE {table} {}; then run \
         `tallymark init`",
        surplus.join(", "),
    ))
}

/// The remedy for a column whose type has changed. Where each old value keeps its meaning in the
/// new type, the table can be altered, and keeps rows whose source is purged.
fn retyped(table: &str, column: &Wanted, known: &Found, wanted: &[Wanted]) -> String {
    let (name, old, new) = (ident(&column.name), &known.sql_type, &column.sql_type);
    if column.generated || !is_wider(old, new) {
        return format!(
            "has column {name} of type {old}, the definition now gives {new}; give the changed \
             rollup a new name"
        );
    }
    // A mean is computed from the column, and `init` creates it again.
    let means = wanted.iter().filter(|mean| mean.generated && mean.rest.contains(&name));
    let means: String =
        means.map(|mean| format!("DROP COLUMN IF EXISTS {}, ", ident(&mean.name))).collect();
    format!(
        "has column {name} of type {old}, the definition now gives {new}, which holds every value of \
         it; keep the rows: ALTER TABLE {table} {means}ALTER COLUMN {name} TYPE {new}{}; then run \
         `tallymark init`",
        collate(column.collation.as_ref())
    )
}

/// Whether every value of type `old` is a value of `new`, with the same equality.
fn is_wider(old: &str, new: &str) -> bool {
    const INTEGERS: [&str; 4] = ["smallint", "integer", "bigint", "numeric"];
    const TEXTS: [&str; 2] = ["character varying", "text"];
    let place = |name: &str| INTEGERS.iter().position(|known| *known == name);
    let length = |name: &str| -> Option<u32> {
        name.strip_prefix("character(")?.strip_suffix(')')?.parse().ok()
    };
    if let (Some(old), Some(new)) = (place(old), place(new)) {
        return old < new;
    }
    if let (Some(old), Some(new)) = (length(old), length(new)) {
        return old < new;
    }
    match (old, new) {
        ("real", "double precision") | ("date", "timestamp without time zone") => true,
        (old, "bpchar") => length(old).is_some(),
        (old, "bit varying") => old.starts_with("bit("),
        (old, new) => TEXTS.contains(&new) && (TEXTS.contains(&old) || length(old).is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_type_that_holds_every_old_value_is_wider() {
        for (old, new) in [
            ("smallint", "integer"),
            ("integer", "bigint"),
            ("bigint", "numeric"),
            ("real", "double precision"),
            ("character varying", "text"),
            ("text", "character varying"),
            ("character(3)", "character(5)"),
            ("character(3)", "text"),
        ] {
            assert!(is_wider(old, new), "{old} {new}");
        }
        for (old, new) in [
            ("bigint", "integer"),
            ("numeric", "bigint"),
            ("double precision", "real"),
            ("bigint", "double precision"),
            ("text", "integer"),
            ("text", "character(3)"),
            ("character(5)", "character(3)"),
            ("text", "uuid"),
        ] {
            assert!(!is_wider(old, new), "{old} {new}");
        }
    }
}
