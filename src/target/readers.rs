//! The roles that may read the rollup tables: `[target] readers`.

use sqlx::Row as _;

use super::{Target, live};
use crate::clients::db::{CatalogueError, DbError, Tx};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::sql::{ident, literal};

const DOING: &str = "looking at the readers' privileges";

/// Why a configured reader cannot read: the server has no such role.
fn unknown(reader: &str) -> Fault {
    let fault = Fault::new(format!("target.readers: there is no role `{reader}` on the target"));
    // PostgreSQL reserves these names, so no role can have them.
    fault.remedy(match reader {
        "public" | "none" => {
            "name roles in [target] readers; to let every role read, GRANT SELECT to \
                              PUBLIC by hand"
                .to_owned()
        }
        name if name.starts_with("pg_") => {
            "name roles in [target] readers: names with pg_ are PostgreSQL's own".to_owned()
        }
        name => {
            format!("create it (CREATE ROLE {}), or take it out of [target] readers", ident(name))
        }
    })
}

/// The grants that `readers` still lack on the tables of `rollups`, in order. An empty list means
/// that each may read all of them.
///
/// # Errors
/// A role is missing, or the server refuses or cannot be reached.
pub async fn grants(
    tx: &mut Tx,
    target: &Target,
    readers: &[String],
    rollups: &[Rollup],
) -> Result<Vec<String>, CatalogueError> {
    let mut statements = Vec::new();
    for reader in readers {
        let sql = format!("SELECT FROM pg_catalog.pg_roles WHERE rolname = {}", literal(reader));
        if tx.rows(DOING, sql).await?.is_empty() {
            return Err(unknown(reader).into());
        }
        statements.extend(of_one(tx, target, reader, rollups).await?);
    }
    Ok(statements)
}

async fn of_one(
    tx: &mut Tx,
    target: &Target,
    reader: &str,
    rollups: &[Rollup],
) -> Result<Vec<String>, DbError> {
    // A mirror has what the app knows of persons, and is no table of statistics.
    let rollups = || rollups.iter().filter(|rollup| rollup.mirror.is_none());
    let live = rollups().filter(|rollup| rollup.live).map(|rollup| live::view_of(&rollup.name));
    let tables = rollups().map(|rollup| rollup.name.clone()).chain(live);
    let tables: Vec<String> = tables.map(|name| literal(&name)).collect();
    // In one pass, because a name may look like another placeholder.
    let sql = format!(
        include_str!("readers.sql"),
        role = literal(reader),
        schema = literal(&target.schema),
        tables = format!("ARRAY[{}]", tables.join(", ")),
    );
    let rows = tx.rows(DOING, sql).await?;
    let role = ident(reader);
    let mut statements: Vec<String> = Vec::new();
    for row in rows {
        let read = || {
            Ok::<_, sqlx::Error>((
                row.try_get::<String, _>("schema_name")?,
                row.try_get::<String, _>("table_name")?,
                row.try_get::<bool, _>("lacks_schema")?,
                row.try_get::<bool, _>("lacks_table")?,
            ))
        };
        let (schema, table, lacks_schema, lacks_table) =
            read().map_err(|error| tx.error(DOING, error))?;
        let schema = ident(&schema);
        let usage = format!("GRANT USAGE ON SCHEMA {schema} TO {role}");
        if lacks_schema && !statements.contains(&usage) {
            statements.push(usage);
        }
        if lacks_table {
            statements.push(format!("GRANT SELECT ON {schema}.{} TO {role}", ident(&table)));
        }
    }
    // Every role may execute functions, unless the database's default privileges say otherwise.
    let sql = format!(
        include_str!("reader_functions.sql"),
        role = literal(reader),
        schema = literal(&target.schema),
        tables = format!("ARRAY[{}]", tables.join(", ")),
    );
    let rows = tx.rows(DOING, sql).await?;
    for row in rows {
        let function: String = row.try_get(0).map_err(|error| tx.error(DOING, error))?;
        statements.push(format!("GRANT EXECUTE ON FUNCTION {function} TO {role}"));
    }
    Ok(statements)
}
