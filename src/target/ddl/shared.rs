//! The schemas, tables and functions that all rollups share.

use sqlx::Row as _;

use super::{DdlError, existing, keeps_rows, unfit};
use crate::clients::db::{DbError, Tx};
use crate::model::hint::Fault;
use crate::model::measure::Function;
use crate::model::rollup::Rollup;
use crate::model::sql::{ident, literal};
use crate::target::ready::Persistence;
use crate::target::{Target, coverage, indexes};

/// What `init` knows of the objects that all rollups share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedObjects {
    /// Still to be looked at.
    Unknown,
    /// The statements for an earlier rollup have made what was missing.
    Planned,
}

/// The schemas and the tables that all rollups share, and the functions that this one needs.
pub(super) async fn schemas(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
    shared: SharedObjects,
) -> Result<Vec<String>, DdlError> {
    if shared == SharedObjects::Planned {
        return Ok(measure_functions(tx, rollup).await?);
    }
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
        ("tallymark.slice", include_str!("../slice.sql"), by_slice, "attempt", logged),
        // A crash empties the stage. Progress that outlived it would skip the lost chunks.
        (
            "tallymark.progress",
            include_str!("../progress_table.sql"),
            by_slice,
            "attempt",
            unlogged,
        ),
        ("tallymark.rollup", include_str!("../registry.sql"), &["rollup"], "generation", logged),
        (
            "tallymark.installation",
            include_str!("../installation.sql"),
            &["id"],
            "created_at",
            logged,
        ),
        (
            "tallymark.outstanding",
            include_str!("../coverage/outstanding.sql"),
            by_slice,
            "generation",
            logged,
        ),
        (
            "tallymark.checked",
            include_str!("../coverage/checked.sql"),
            &["rollup"],
            "checked_at",
            logged,
        ),
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
                let key = indexes::shared_key(tx, table, key, newest).await;
                statements.extend(key.map_err(|error| unfit(rollup, table, error))?);
            }
        }
    }
    statements.extend(coverage::objects(tx).await?);
    statements.extend(key_functions(tx).await?);
    statements.extend(measure_functions(tx, rollup).await?);
    Ok(statements)
}

/// Columns that a table of an older version lacks. For the existing rows they may be NULL.
fn added_since(table: &str, found: &[(String, String)]) -> Vec<String> {
    let columns: &[(&str, &str)] = match table {
        "tallymark.slice" => &[
            ("replaced_by", "bigint"),
            ("owner", "text"),
            ("replaced_owner", "text"),
            ("kept_away", "timestamptz"),
            ("open_until", "timestamptz"),
            ("adopted_from", "text"),
            ("changes", "integer NOT NULL DEFAULT 0"),
            ("window_start", "timestamptz"),
            ("window_generation", "bigint"),
        ],
        "tallymark.progress" => &[("generation", "bigint NOT NULL DEFAULT 0")],
        "tallymark.outstanding" => &[("changed_from", "timestamptz NOT NULL DEFAULT '-infinity'")],
        "tallymark.rollup" => &[
            ("calendar", "text"),
            ("generation", "bigint NOT NULL DEFAULT 0"),
            ("installation", "text"),
            ("sealed_before", "timestamptz"),
        ],
        "tallymark.checked" => &[
            ("done_until", "timestamptz"),
            ("tail", "timestamptz[]"),
            ("verified_through", "timestamptz"),
            ("window_until", "timestamptz"),
            ("window_changes", "bigint"),
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
            Some("timestamptz[]") => "timestamp with time zone[]",
            other => other.unwrap_or_default(),
        };
        let fits = |(known, sql_type): &(String, String)| known == name && sql_type == wanted;
        if !found.iter().any(fits) {
            return Err(DdlError::Incompatible {
                rollup: rollup.name.clone(),
                table: table.to_owned(),
                problem: Fault::new(format!("lacks its column {name} of type {wanted}"))
                    .remedy("rename the table, run `tallymark init`, and copy its rows back"),
            });
        }
    }
    Ok(())
}

fn has(columns: &[(String, String)], name: &str) -> bool {
    columns.iter().any(|(known, _)| known == name)
}

/// The functions of the unique indexes: name, argument types, statement, comment.
const KEY_FUNCTIONS: [(&str, &str, &str, &str); 3] = [
    (
        "key_hash",
        "record",
        include_str!("../key_hash.sql"),
        "The place of some dimensions in a unique index: 128 bits of their hash",
    ),
    (
        "key_of",
        "text",
        include_str!("../key_of_text.sql"),
        "The place of a text in a unique index: itself, or its hash where it is long",
    ),
    (
        "key_of",
        "bytea",
        include_str!("../key_of_bytes.sql"),
        "The place of a bytea in a unique index: itself, or its hash where it is long",
    ),
];

/// The statements that create the functions of the unique indexes, where one is missing or
/// different. An index filled by another body is rebuilt.
async fn key_functions(tx: &mut Tx) -> Result<Vec<String>, DbError> {
    const DOING: &str = "looking for the functions of the unique indexes";
    let mut statements = Vec::new();
    for (name, arguments, sql, comment) in KEY_FUNCTIONS {
        let sql = sql.trim();
        let tag = if name == "key_hash" { "$hash$" } else { "$key$" };
        let body = sql.split(tag).nth(1).unwrap_or_default();
        let found = format!(
            include_str!("../key_function.sql"),
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
            statements.push(described(name, arguments, comment));
            statements.extend(indexes.iter().map(|index| format!("REINDEX INDEX {index}")));
        }
    }
    Ok(statements)
}

/// The statement that gives a function or an aggregate its comment.
fn described(name: &str, arguments: &str, comment: &str) -> String {
    format!("COMMENT ON ROUTINE tallymark.{name}({arguments}) IS {}", literal(comment))
}

/// The statements that create the functions of the rollup's measures, where one is missing or
/// different.
async fn measure_functions(tx: &mut Tx, rollup: &Rollup) -> Result<Vec<String>, DbError> {
    const DOING: &str = "looking for the functions of the measures";
    let mut wanted: Vec<&Function> = Vec::new();
    for function in rollup.measures.iter().flat_map(|measure| measure.kind.functions()) {
        if wanted.iter().all(|known| known.sql != function.sql) {
            wanted.push(function);
        }
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let values = wanted.iter().enumerate().map(|(place, function)| {
        let body = function.sql.split("$body$").nth(1).unwrap_or("aggregate_dummy");
        let [name, arguments, body] = [function.name, function.arguments, body].map(literal);
        format!("({place}, {name}, {arguments}, {body})")
    });
    let values = values.collect::<Vec<_>>().join(", ");
    let sql = format!(include_str!("../functions.sql"), wanted = values);
    let rows = tx.rows(DOING, sql).await?;
    let places = rows.iter().map(|row| row.try_get::<i32, _>("place"));
    let places: Result<Vec<i32>, _> = places.collect();
    let places = places.map_err(|source| tx.error(DOING, source))?;
    let lacking = places.into_iter().filter_map(|place| wanted.get(usize::try_from(place).ok()?));
    let statements = lacking.flat_map(|Function { name, arguments, sql, comment }| {
        [sql.trim().to_owned(), described(name, arguments, comment)]
    });
    Ok(statements.collect())
}
