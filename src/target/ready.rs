//! Checks that Tallymark's tables keep the rows that are written to them. `init` creates the parts
//! that are missing. Parts that a user added are refused by name, as they may be there on purpose.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::clients::db::{CatalogueError, DbError, Tx};
use crate::model::hint::Fault;
use crate::model::sql::{ident, literal};

/// How a table survives a crash of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    /// All commits survive.
    Logged,
    /// It is emptied, together with all other unlogged tables.
    Unlogged,
    /// All commits survive, and the rows lie in partitions.
    Partitioned,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub(super) struct TableColumn {
    pub(super) name: String,
    pub(super) sql_type: String,
    pub(super) collation: Option<String>,
    pub(super) is_not_null: bool,
    pub(super) is_generated: bool,
    is_not_ours: bool,
}

/// The columns of `table`. An empty list means that the table does not exist.
pub(super) async fn columns_of(tx: &mut Tx, table: &str) -> Result<Vec<TableColumn>, DbError> {
    let sql = format!(include_str!("table_columns.sql"), relation = literal(table));
    let doing = format!("looking up {table}");
    let column = |row: &PgRow| {
        Ok(TableColumn {
            name: row.try_get("name")?,
            sql_type: row.try_get("sql_type")?,
            collation: row.try_get("collation")?,
            is_not_null: row.try_get("is_not_null")?,
            is_generated: row.try_get("is_generated")?,
            is_not_ours: row.try_get("is_not_ours")?,
        })
    };
    let rows = tx.rows(&doing, sql).await?;
    rows.iter()
        .map(column)
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|source| tx.error(doing, source))
}

/// The statements that give `table` the required persistence.
///
/// # Errors
/// `table` might hold other rows than those written to it, or the server refuses.
pub(super) async fn keeps_rows(
    tx: &mut Tx,
    table: &str,
    wanted: Persistence,
) -> Result<Vec<String>, CatalogueError> {
    let sql = format!(include_str!("relation.sql"), relation = literal(table));
    let doing = format!("looking up {table}");
    let rows = tx.rows(&doing, sql).await?;
    let Some(row) = rows.first() else { return Ok(Vec::new()) };
    let read = || {
        let fault = unfit(row, table, wanted)?;
        let persistence: String = row.try_get("persistence")?;
        Ok((fault, persistence, row.try_get::<Vec<String>, _>("unlogged_partitions")?))
    };
    let (fault, persistence, partitions) = read().map_err(|source| tx.error(doing, source))?;
    if let Some(fault) = fault {
        return Err(fault.into());
    }
    Ok(match (wanted, persistence.as_str()) {
        (Persistence::Partitioned, _) => {
            partitions.iter().map(|name| format!("ALTER TABLE {name} SET LOGGED")).collect()
        }
        (Persistence::Logged, "u") => vec![format!("ALTER TABLE {table} SET LOGGED")],
        (Persistence::Unlogged, "p") => vec![format!("ALTER TABLE {table} SET UNLOGGED")],
        _ => Vec::new(),
    })
}

/// Why `table` might hold other rows than those written to it.
fn unfit(row: &PgRow, table: &str, wanted: Persistence) -> Result<Option<Fault>, sqlx::Error> {
    let kind: String = row.try_get("kind")?;
    if let Some(fault) = of_another_kind(&kind, wanted) {
        return Ok(Some(fault));
    }
    if let Some(name) = row.try_get::<Option<String>, _>("default_partition")? {
        let fault = Fault::new(format!(
            "has the default partition {name}, which each new partition would have to search"
        ));
        return Ok(Some(fault.remedy(format!(
            "detach it (ALTER TABLE {table} DETACH PARTITION {name}), and replay the slices of its rows"
        ))));
    }
    if kind == "r" && row.try_get("has_children")? {
        let fault = Fault::new("has child tables, whose rows would count as its own");
        return Ok(Some(
            fault.remedy(format!("detach each of them: ALTER TABLE … NO INHERIT {table}")),
        ));
    }
    if row.try_get("is_filtered")? {
        let fault = Fault::new("has row-level security that hides rows from this role");
        return Ok(Some(fault.remedy(format!(
            "use its owner or a role with BYPASSRLS, or ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"
        ))));
    }
    if let Some(name) = row.try_get::<Option<String>, _>("trigger")? {
        let fault = Fault::new(format!(
            "has the trigger {name}, which could change or drop rows before they are stored"
        ));
        return Ok(Some(fault.remedy(format!(
            "drop it (DROP TRIGGER {name} ON {table}), or make it an AFTER trigger"
        ))));
    }
    if let Some(name) = row.try_get::<Option<String>, _>("rule")? {
        let fault =
            Fault::new(format!("has the rule {name}, which rewrites what is written to it"));
        return Ok(Some(fault.remedy(format!("drop it: DROP RULE {name} ON {table}"))));
    }
    if let Some(name) = row.try_get::<Option<String>, _>("restriction")? {
        let fault = Fault::new(format!("has the constraint {name}, which could refuse right rows"));
        return Ok(Some(
            fault.remedy(format!("drop it: ALTER TABLE {table} DROP CONSTRAINT {name}")),
        ));
    }
    Ok(None)
}

/// Why a relation of this kind is not the `wanted` table.
fn of_another_kind(kind: &str, wanted: Persistence) -> Option<Fault> {
    let what = match (kind, wanted) {
        ("p", Persistence::Partitioned) => return None,
        ("r", Persistence::Partitioned) => {
            let fault = Fault::new("is in one piece, and `partition_by` asks for partitions");
            return Some(fault.remedy(
                "remove `partition_by`, or give the rollup a new name: `tallymark adopt` takes the rows \
                 over",
            ));
        }
        ("r", _) => return None,
        ("p", Persistence::Logged) => {
            let fault =
                "is a partitioned table, where Tallymark needs an ordinary table of its own";
            return Some(Fault::new(fault).remedy(
                "set `partition_by` where it was removed, or give the table another name and run \
                 `tallymark init`",
            ));
        }
        ("p", Persistence::Unlogged) => "a partitioned table",
        ("v", _) => "a view",
        ("m", _) => "a materialized view",
        ("f", _) => "a foreign table",
        _ => "not a table",
    };
    let fault =
        Fault::new(format!("is {what}, where Tallymark needs an ordinary table of its own"));
    Some(fault.remedy("give it another name, and run `tallymark init`"))
}

/// Why `column` of a rollup table would change its values. `collation` is the one by which the
/// values are meant to be compared.
pub(super) fn column_problem(
    table: &str,
    column: &TableColumn,
    collation: Option<&String>,
    generated: bool,
) -> Option<Fault> {
    let name = ident(&column.name);
    if column.is_not_ours || column.is_generated && !generated {
        let fault = Fault::new(format!("has a column {name} that PostgreSQL fills by itself"));
        return Some(fault.remedy(format!(
            "make it an ordinary column: ALTER TABLE {table} ALTER COLUMN {name} DROP {}",
            if column.is_generated { "EXPRESSION" } else { "IDENTITY" }
        )));
    }
    if generated && !column.is_generated {
        let fault = Fault::new(format!(
            "has a column {name} that is no longer computed from its sum and count"
        ));
        return Some(fault.remedy(format!(
            "drop it: ALTER TABLE {table} DROP COLUMN {name}; then run `tallymark init`"
        )));
    }
    if column.is_not_null && column.name != "bucket" {
        let fault = Fault::new(format!(
            "refuses NULL in column {name}, which is a value like any other there"
        ));
        return Some(
            fault.remedy(format!(
                "let it in: ALTER TABLE {table} ALTER COLUMN {name} DROP NOT NULL"
            )),
        );
    }
    if column.collation.as_ref() != collation {
        let wanted = collation.map_or("pg_catalog.\"default\"", String::as_str);
        let fault =
            Fault::new(format!("compares column {name} by another collation than the source"));
        return Some(fault.remedy(format!(
            "give it the source's: ALTER TABLE {table} ALTER COLUMN {name} TYPE {} COLLATE {wanted}",
            column.sql_type
        )));
    }
    None
}
