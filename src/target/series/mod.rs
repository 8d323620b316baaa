//! The function `<rollup>_series` for readers: rows of every group for every step of a range, with
//! zeros where nothing was counted and NULL where nothing is computed yet.
//!
//! `init` makes it for the present definition. Work goes on without it, so a definition that changed
//! leaves an old one, which refuses to answer until `init` runs again.

mod function;

use sqlx::Row as _;

use self::function::Series;
use super::Target;
use super::beside::{marked, taken};
use super::ddl::DdlError;
use crate::clients::db::{DbError, Tx};
use crate::model::rollup::Rollup;
use crate::model::sql::{ident, literal};
use crate::source;
use crate::source::reading::shape::Shape;

const DOING: &str = "looking for the series";

/// The types of the function's arguments.
const ARGUMENTS: &str =
    "timestamp with time zone, timestamp with time zone, interval, text, text[], jsonb";

/// The name of the series of the rollup `name`.
fn series_of(name: &str) -> String {
    format!("{name}_series")
}

/// The beginning of its comments.
fn comment(name: &str) -> String {
    format!("Tallymark series of rollup {name}: ")
}

/// The statements that `init` must still run for the series of `rollup`, in order. A mirror has no
/// numbers, and the windows of a trailing rollup overlap, so these have none.
///
/// # Errors
/// Something else has its name, or the server refuses or cannot be reached.
pub async fn plan(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
    shape: &Shape,
) -> Result<Vec<String>, DdlError> {
    if rollup.mirror.is_some() || rollup.trailing.is_some() {
        return Ok(Vec::new());
    }
    let name = format!("{}.{}", ident(&target.schema), ident(&series_of(&rollup.name)));
    let merged = source::merging(rollup, shape).map_err(|problem| DdlError::Incompatible {
        rollup: rollup.name.clone(),
        table: target.table(rollup),
        problem,
    })?;
    let (table, name) = (target.table(rollup), name);
    let schemas = schemas(tx, shape).await?;
    let series = Series { rollup, shape, table, name, schemas, merged };
    let (name, signature) = (&series.name, format!("{}({ARGUMENTS})", series.name));
    let [row_type, function] = [series.row_type(), series.function()];
    let beginning = comment(&rollup.name);
    let type_comment = marked(&format!("{beginning}a row of it"), &row_type);
    let meaning = "every group and step of a range, zero where nothing was counted, NULL where \
                   nothing is computed";
    let comment = marked(&format!("{beginning}{meaning}"), &format!("{row_type}{function}"));
    let found = Found::read(tx, name, &signature).await?;
    for (has, known) in [(found.has_function, &found.function), (found.has_type, &found.row_type)] {
        let is_ours = known.as_ref().is_some_and(|known| known.starts_with(&beginning));
        if has && !is_ours {
            return Err(taken(rollup, name));
        }
    }
    let mut statements = Vec::new();
    if found.row_type.as_ref() != Some(&type_comment) {
        if found.has_function {
            statements.push(format!("DROP FUNCTION {signature}"));
        }
        if found.has_type {
            statements.push(format!("DROP TYPE {name}"));
        }
        statements.push(row_type);
        statements.push(format!("COMMENT ON TYPE {name} IS {}", literal(&type_comment)));
    }
    if !statements.is_empty() || found.function.as_ref() != Some(&comment) {
        statements.push(function.trim().to_owned());
        statements.push(format!("COMMENT ON FUNCTION {signature} IS {}", literal(&comment)));
    }
    Ok(statements)
}

/// The schemas in which the function finds the types of its columns, each behind a comma.
async fn schemas(tx: &mut Tx, shape: &Shape) -> Result<String, DbError> {
    let dimensions = shape.dimensions.iter().map(|it| &it.sql_type);
    let types: Vec<_> = dimensions.chain(shape.fields.iter().map(|it| &it.sql_type)).collect();
    let types: Vec<_> = types.into_iter().map(|it| literal(it)).collect();
    let row = tx.row(DOING, format!(include_str!("schemas.sql"), types = types.join(", "))).await?;
    row.try_get("schemas").map_err(|source| tx.error(DOING, source))
}

/// The statements that drop the series of the rollup `name`, which may be absent from the
/// configuration.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn dropping(tx: &mut Tx, name: &str) -> Result<Vec<String>, DbError> {
    let sql = format!(
        include_str!("remains.sql"),
        name = literal(&series_of(name)),
        comment = literal(&comment(name)),
    );
    let rows = tx.rows(DOING, sql).await?;
    let statements = rows.iter().map(|row| row.try_get("statement")).collect::<Result<_, _>>();
    statements.map_err(|source| tx.error(DOING, source))
}

/// What has the names of a series, and the comments of it.
struct Found {
    has_function: bool,
    function: Option<String>,
    has_type: bool,
    row_type: Option<String>,
}

impl Found {
    async fn read(tx: &mut Tx, name: &str, signature: &str) -> Result<Self, DbError> {
        let sql = format!(
            include_str!("series.sql"),
            function = literal(signature),
            name = literal(name),
        );
        let row = tx.row(DOING, sql).await?;
        let read = || {
            Ok(Self {
                has_function: row.try_get("has_function")?,
                function: row.try_get("function")?,
                has_type: row.try_get("has_type")?,
                row_type: row.try_get("type")?,
            })
        };
        read().map_err(|source| tx.error(DOING, source))
    }
}
