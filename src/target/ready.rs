//! What Tallymark relies on in a table of its own: that it keeps the rows that are written to it, each key once.
//! What is missing is made by `init`; what somebody put there is refused by name, as it may be on purpose.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::Target;
use super::ddl::DdlError;
use super::statement::columns;
use crate::db::{DbError, Tx};
use crate::rollup::Rollup;
use crate::source::shape::Shape;
use crate::sql::{ident, literal};

/// How a table outlives a crash of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    /// All that was committed is still there.
    Logged,
    /// Emptied, with all other tables of this kind.
    Unlogged,
}

/// A column of a table.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) name: String,
    pub(super) sql_type: String,
    pub(super) collation: Option<String>,
    pub(super) is_not_null: bool,
    pub(super) is_generated: bool,
    is_not_ours: bool,
}

/// A unique index of a table.
struct Unique {
    name: String,
    is_constraint: bool,
    is_whole: bool,
    keys: Vec<String>,
    /// The names that were asked for, as PostgreSQL writes them.
    names: Vec<String>,
}

/// The columns of `table`; none: there is no such table.
pub(super) async fn found(tx: &mut Tx, table: &str) -> Result<Vec<Found>, DbError> {
    let sql = format!(include_str!("table_columns.sql"), relation = literal(table));
    let doing = format!("looking up {table}");
    let column = |row: &PgRow| {
        Ok(Found {
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

/// Why `table` might hold other rows than those written to it, with the remedy; or the statements that
/// give it the persistence that it needs.
pub(super) async fn keeps_rows(
    tx: &mut Tx,
    table: &str,
    wanted: Persistence,
) -> Result<Result<Vec<String>, String>, DbError> {
    let sql = format!(include_str!("relation.sql"), relation = literal(table));
    let doing = format!("looking up {table}");
    let rows = tx.rows(&doing, sql).await?;
    let Some(row) = rows.first() else { return Ok(Ok(Vec::new())) };
    judge(row, table, wanted).map_err(|source| tx.error(doing, source))
}

fn judge(
    row: &PgRow,
    table: &str,
    wanted: Persistence,
) -> Result<Result<Vec<String>, String>, sqlx::Error> {
    let kind: String = row.try_get("kind")?;
    let what = match kind.as_str() {
        "r" => None,
        "v" => Some("a view"),
        "m" => Some("a materialized view"),
        "f" => Some("a foreign table"),
        "p" => Some("a partitioned table"),
        _ => Some("not a table"),
    };
    if let Some(what) = what {
        return Ok(Err(format!(
            "is {what}, where Tallymark needs an ordinary table of its own; give it another name, \
             and run `tallymark init`"
        )));
    }
    if row.try_get("has_children")? {
        return Ok(Err(format!(
            "has child tables, whose rows would count as its own; detach each: ALTER TABLE … NO \
             INHERIT {table}"
        )));
    }
    if row.try_get("is_filtered")? {
        return Ok(Err(format!(
            "has row-level security that hides rows from this role; use its owner or a role with \
             BYPASSRLS, or ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"
        )));
    }
    if let Some(name) = row.try_get::<Option<String>, _>("trigger")? {
        return Ok(Err(format!(
            "has the trigger {name}, which could change or drop rows before they are stored; \
             DROP TRIGGER {name} ON {table}, or make it an AFTER trigger"
        )));
    }
    if let Some(name) = row.try_get::<Option<String>, _>("rule")? {
        return Ok(Err(format!(
            "has the rule {name}, which rewrites what is written to it; DROP RULE {name} ON {table}"
        )));
    }
    if let Some(name) = row.try_get::<Option<String>, _>("restriction")? {
        return Ok(Err(format!(
            "has the constraint {name}, which could refuse right rows; ALTER TABLE {table} DROP \
             CONSTRAINT {name}"
        )));
    }
    let persistence: String = row.try_get("persistence")?;
    Ok(Ok(match (wanted, persistence.as_str()) {
        (Persistence::Logged, "u") => vec![format!("ALTER TABLE {table} SET LOGGED")],
        (Persistence::Unlogged, "p") => vec![format!("ALTER TABLE {table} SET UNLOGGED")],
        _ => Vec::new(),
    }))
}

/// Why `column` of a rollup table would not hold what is written to it; `collation` is the one by which
/// its values are to be compared.
pub(super) fn column_problem(
    table: &str,
    column: &Found,
    collation: Option<&String>,
    generated: bool,
) -> Option<String> {
    let name = ident(&column.name);
    if column.is_not_ours || column.is_generated && !generated {
        return Some(format!(
            "has a column {name} that PostgreSQL fills by itself; make it an ordinary column: ALTER TABLE \
             {table} ALTER COLUMN {name} DROP {}",
            if column.is_generated { "EXPRESSION" } else { "IDENTITY" }
        ));
    }
    if generated && !column.is_generated {
        return Some(format!(
            "has a column {name} that is no longer computed from its sum and count; ALTER TABLE \
             {table} DROP COLUMN {name}, then run `tallymark init`"
        ));
    }
    if column.is_not_null && column.name != "bucket" {
        return Some(format!(
            "refuses NULL in column {name}, which is a value like any other there; ALTER TABLE \
             {table} ALTER COLUMN {name} DROP NOT NULL"
        ));
    }
    if column.collation.as_ref() != collation {
        let wanted = collation.map_or("pg_catalog.\"default\"", String::as_str);
        return Some(format!(
            "compares column {name} by another collation than the source; ALTER TABLE {table} ALTER \
             COLUMN {name} TYPE {} COLLATE {wanted}",
            column.sql_type
        ));
    }
    None
}

/// The unique indexes of `table`; `names` come back as PostgreSQL writes them.
async fn unique_indexes(
    tx: &mut Tx,
    table: &str,
    names: &[String],
) -> Result<Vec<Unique>, DbError> {
    let doing = format!("looking up the indexes of {table}");
    let names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    let sql = format!(
        include_str!("indexes.sql"),
        relation = literal(table),
        names = format!("ARRAY[{}]", names.join(", ")),
    );
    // The path decides whether PostgreSQL writes a function with its schema.
    let path = "SELECT current_setting('search_path')".to_owned();
    let path = tx.row(&doing, path).await?.try_get::<String, _>(0);
    let path = path.map_err(|source| tx.error(doing.clone(), source))?;
    tx.execute(&doing, "SET LOCAL search_path = pg_catalog".to_owned()).await?;
    let rows = tx.rows(&doing, sql).await?;
    let back = format!("SELECT set_config('search_path', {}, true)", literal(&path));
    tx.execute(&doing, back).await?;
    let index = |row: &PgRow| {
        Ok(Unique {
            name: row.try_get("name")?,
            is_constraint: row.try_get("is_constraint")?,
            is_whole: row.try_get("is_whole")?,
            keys: row.try_get("keys")?,
            names: row.try_get("names")?,
        })
    };
    rows.iter()
        .map(index)
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|source| tx.error(doing, source))
}

/// The statement that makes the key of one of the tables that all rollups share, where it has none.
pub(super) async fn shared_key(
    tx: &mut Tx,
    table: &str,
    key: &[&str],
) -> Result<Option<String>, DbError> {
    let names: Vec<String> = key.iter().map(|name| (*name).to_owned()).collect();
    let indexes = unique_indexes(tx, table, &names).await?;
    let has_it = indexes.iter().any(|index| index.is_whole && index.keys == index.names);
    let names: Vec<String> = names.iter().map(|name| ident(name)).collect();
    Ok((!has_it).then(|| format!("CREATE UNIQUE INDEX ON {table} ({})", names.join(", "))))
}

/// The statement that makes the unique index of a rollup table.
pub(super) fn unique_index(table: &str, shape: &Shape) -> String {
    let dimensions = &columns(shape)[1..=shape.dimensions.len()];
    let keys = match dimensions {
        [] => "bucket".to_owned(),
        some => format!("bucket, tallymark.key_hash(ROW({}))", some.join(", ")),
    };
    format!("CREATE UNIQUE INDEX ON {table} ({keys})")
}

/// What the indexes of a rollup table that exists still need.
pub(super) struct Indexes {
    /// To be run, in order.
    pub(super) statements: Vec<String>,
    /// A unique index that refuses right rows: its name.
    pub(super) stranger: Option<String>,
}

/// Holds the indexes of the rollup table against what is relied on: the unique index, and no other.
pub(super) async fn rollup_indexes(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
    shape: &Shape,
) -> Result<Indexes, DbError> {
    let table = target.table(rollup);
    let names: Vec<String> = std::iter::once("bucket".to_owned())
        .chain(shape.dimensions.iter().map(|dimension| dimension.name.clone()))
        .collect();
    let mut found = Indexes { statements: Vec::new(), stranger: None };
    let (mut has_it, mut before) = (false, Vec::new());
    for index in unique_indexes(tx, &table, &names).await? {
        let hashed = match &index.names[1..] {
            [] => Vec::new(),
            some => vec![format!("tallymark.key_hash(ROW({}))", some.join(", "))],
        };
        let wanted: Vec<String> = std::iter::once("bucket".to_owned()).chain(hashed).collect();
        match () {
            () if index.keys == wanted && index.is_whole => has_it = true,
            // One that was left invalid, or covers a part of the rows.
            () if index.keys == wanted && !index.is_constraint => before.push(index.name),
            // What earlier versions made.
            () if index.keys == index.names && !index.is_constraint => before.push(index.name),
            () => found.stranger = Some(index.name),
        }
    }
    if !has_it {
        found.statements.push(unique_index(&table, shape));
        if !before.is_empty() {
            found.statements.extend(readers_index(tx, &table, shape).await?);
        }
    }
    found.statements.extend(before.iter().map(|name| format!("DROP INDEX {name}")));
    Ok(found)
}

/// Bytes of all values of a readers' index entry; PostgreSQL takes 2,704.
const ENTRY_BYTES_MAX: usize = 2_400;
/// Columns of an index that PostgreSQL takes.
const INDEX_COLUMNS_MAX: usize = 32;
/// Characters of a text that stand in the readers' index, where there is room.
const CHARACTERS_MAX: usize = 64;

/// The statement that makes the index by which readers find a group's rows: the dimensions of a
/// bounded width, the beginnings of texts, and the bucket. None: no dimension fits.
pub(super) async fn readers_index(
    tx: &mut Tx,
    table: &str,
    shape: &Shape,
) -> Result<Option<String>, DbError> {
    const DOING: &str = "looking up the dimensions' types";
    if shape.dimensions.is_empty() {
        return Ok(None);
    }
    let types: Vec<String> =
        shape.dimensions.iter().map(|dimension| literal(&dimension.sql_type)).collect();
    let types = format!("ARRAY[{}]", types.join(", "));
    let rows = tx.rows(DOING, format!(include_str!("widths.sql"), types = types)).await?;
    let each = ENTRY_BYTES_MAX / rows.len().clamp(1, INDEX_COLUMNS_MAX);
    let mut keys = Vec::new();
    for (row, dimension) in rows.iter().zip(&shape.dimensions) {
        let width = || Ok((row.try_get("bytes")?, row.try_get("is_text")?));
        let (bytes, is_text): (Option<i32>, bool) =
            width().map_err(|source| tx.error(DOING, source))?;
        let name = ident(&dimension.name);
        if bytes.is_some() {
            keys.push(name);
        } else if is_text {
            // A character has at most four bytes.
            keys.push(format!("left({name}::text, {})", CHARACTERS_MAX.min(each / 4)));
        }
    }
    keys.truncate(INDEX_COLUMNS_MAX - 1);
    let has_one = !keys.is_empty();
    keys.push("bucket".to_owned());
    Ok(has_one.then(|| format!("CREATE INDEX ON {table} ({})", keys.join(", "))))
}

/// Refuses a table without its unique index in which a key stands more than once, by the key.
///
/// # Errors
/// There is one; the server cannot be asked.
pub async fn refuse_doubled(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
    shape: &Shape,
) -> Result<(), DdlError> {
    const DOING: &str = "looking for doubled keys";
    let table = target.table(rollup);
    if found(tx, &table).await?.is_empty()
        || rollup_indexes(tx, target, rollup, shape).await?.statements.is_empty()
    {
        return Ok(());
    }
    let keys = columns(shape)[..=shape.dimensions.len()].join(", ");
    let sql = format!(
        "SELECT row_to_json(__k)::text, count(*) OVER () FROM (SELECT {keys} FROM {table} \
         GROUP BY {keys} HAVING count(*) > 1) __k LIMIT 1"
    );
    let rows = tx.rows(DOING, sql).await?;
    let Some(row) = rows.first() else { return Ok(()) };
    let read = || Ok((row.try_get(0)?, row.try_get(1)?));
    let (key, count): (String, i64) = read().map_err(|source| tx.error(DOING, source))?;
    Err(DdlError::Incompatible {
        rollup: rollup.name.clone(),
        table: table.clone(),
        problem: format!(
            "has lost its unique index, and {count} of its keys stand in it more than once, such \
             as {key}; delete all but one row of each: DELETE FROM {table} WHERE ctid IN (SELECT ctid FROM \
             (SELECT ctid, row_number() OVER (PARTITION BY {keys}) AS n FROM {table}) doubled WHERE \
             n > 1); then run `tallymark init` and `tallymark verify {} --repair`",
            rollup.name
        ),
    })
}
