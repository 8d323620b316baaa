//! The indexes of Tallymark's tables: the unique one, which keeps each group once, and the readers'
//! one.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::Target;
use super::ddl::DdlError;
use super::ready::columns_of;
use super::statement::columns;
use crate::clients::db::{CatalogueError, DbError, Tx};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::sql::{ident, literal};
use crate::source::reading::shape::Shape;

/// PostgreSQL's limit for the columns of an index.
const INDEX_COLUMNS_MAX: usize = 32;
/// Bytes of all values of a readers' index entry. PostgreSQL's limit is 2,704.
const ENTRY_BYTES_MAX: usize = 2_400;
/// Characters of a text in the readers' index, if there is room.
const CHARACTERS_MAX: usize = 64;

/// A unique index of a table.
struct Unique {
    name: String,
    is_constraint: bool,
    is_whole: bool,
    /// Whether NULL is equal to NULL. `None`: the server lacks that option.
    takes_null: Option<bool>,
    keys: Vec<String>,
    /// The requested names, as PostgreSQL writes them.
    names: Vec<String>,
}

/// How a dimension can be part of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    /// Every value has a small width.
    Plain,
    /// Text of any length.
    Text,
    /// Numbers with any number of digits.
    Numeric,
    /// Byte strings of any length.
    Bytes,
    /// Other types, of any width.
    Other,
}

/// A dimension of a rollup, as the target stores it.
struct StoredDimension {
    /// The quoted name, as PostgreSQL writes it.
    name: String,
    class: Class,
    /// Whether its type differs from the main type of its class.
    needs_cast: bool,
}

impl StoredDimension {
    /// The expression in the unique index, exactly as PostgreSQL writes it. `None`: only a hash
    /// fits.
    fn expression(&self) -> Option<String> {
        let Self { name, needs_cast, .. } = self;
        let cast = |to: &str| if *needs_cast { format!("({name})::{to}") } else { name.clone() };
        match self.class {
            Class::Plain => Some(name.clone()),
            Class::Text => Some(format!("tallymark.key_of({}) COLLATE \"C\"", cast("text"))),
            // 1.0 and 1.00 are equal.
            Class::Numeric => Some(format!(
                "tallymark.key_of((trim_scale({}))::text) COLLATE \"C\"",
                cast("numeric")
            )),
            Class::Bytes => Some(format!("tallymark.key_of({})", cast("bytea"))),
            Class::Other => None,
        }
    }
}

/// The dimensions of `shape`, in their order.
async fn dimensions(tx: &mut Tx, shape: &Shape) -> Result<Vec<StoredDimension>, DbError> {
    const DOING: &str = "looking up the dimensions' types";
    let list = |of: &mut dyn Iterator<Item = &String>| {
        format!("ARRAY[{}]", of.map(|it| literal(it)).collect::<Vec<_>>().join(", "))
    };
    let names = list(&mut shape.dimensions.iter().map(|dimension| &dimension.name));
    let types = list(&mut shape.dimensions.iter().map(|dimension| &dimension.sql_type));
    let sql = format!(include_str!("dimensions.sql"), names = names, types = types);
    let key = |row: &PgRow| {
        let class = match row.try_get::<String, _>("class")?.as_str() {
            "plain" => Class::Plain,
            "text" => Class::Text,
            "numeric" => Class::Numeric,
            "bytes" => Class::Bytes,
            _ => Class::Other,
        };
        Ok(StoredDimension {
            name: row.try_get("name")?,
            class,
            needs_cast: row.try_get("needs_cast")?,
        })
    };
    let rows = tx.rows(DOING, sql).await?;
    rows.iter()
        .map(key)
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|source| tx.error(DOING, source))
}

/// The keys of the unique index, exactly as PostgreSQL writes them. All dimensions that are too
/// wide, or for which an index has no columns left, share one hash.
fn unique_keys(dimensions: &[StoredDimension]) -> Vec<String> {
    let fits = dimensions.iter().filter(|key| key.expression().is_some()).count();
    let is_hashed = fits < dimensions.len() || fits >= INDEX_COLUMNS_MAX;
    // One column is for the bucket, and one for the hash.
    let mut room = INDEX_COLUMNS_MAX - 1 - usize::from(is_hashed);
    let (mut keys, mut hashed) = (vec!["bucket".to_owned()], Vec::new());
    for key in dimensions {
        match key.expression() {
            Some(expression) if room > 0 => {
                room -= 1;
                keys.push(expression);
            }
            _ => hashed.push(key.name.clone()),
        }
    }
    if !hashed.is_empty() {
        keys.push(format!("tallymark.key_hash(ROW({}))", hashed.join(", ")));
    }
    keys
}

/// Whether the server can treat NULL as equal to NULL in a unique index, as PostgreSQL 15 and later
/// can.
async fn takes_null(tx: &mut Tx) -> Result<bool, DbError> {
    const DOING: &str = "asking for the server's version";
    let sql = "SELECT current_setting('server_version_num')::int >= 150000".to_owned();
    let row = tx.row(DOING, sql).await?;
    row.try_get(0).map_err(|source| tx.error(DOING, source))
}

/// The statements that create the indexes of a new rollup table.
pub(super) async fn new_indexes(
    tx: &mut Tx,
    table: &str,
    shape: &Shape,
) -> Result<Vec<String>, DbError> {
    let dimensions = dimensions(tx, shape).await?;
    let mut statements = vec![unique_index(tx, table, &unique_keys(&dimensions)).await?];
    statements.extend(readers_index(table, &dimensions));
    Ok(statements)
}

/// The statement that creates the unique index of a rollup table.
async fn unique_index(tx: &mut Tx, table: &str, keys: &[String]) -> Result<String, DbError> {
    let nulls = if takes_null(tx).await? { " NULLS NOT DISTINCT" } else { "" };
    Ok(format!("CREATE UNIQUE INDEX ON {table} ({}){nulls}", keys.join(", ")))
}

/// The unique indexes of `table`. `names` come back as PostgreSQL writes them.
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
            takes_null: row.try_get("takes_null")?,
            keys: row.try_get("keys")?,
            names: row.try_get("names")?,
        })
    };
    rows.iter()
        .map(index)
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|source| tx.error(doing, source))
}

/// The statement that creates the key of a shared table that lacks it.
///
/// # Errors
/// Rows of the table have the same key, or the server refuses. The remedy keeps the row with the
/// greatest `newest`.
pub(super) async fn shared_key(
    tx: &mut Tx,
    table: &str,
    key: &[&str],
    newest: &str,
) -> Result<Option<String>, CatalogueError> {
    let names: Vec<String> = key.iter().map(|name| (*name).to_owned()).collect();
    let indexes = unique_indexes(tx, table, &names).await?;
    if indexes.iter().any(|index| index.is_whole && index.keys == index.names) {
        return Ok(None);
    }
    let keys = names.iter().map(|name| ident(name)).collect::<Vec<_>>().join(", ");
    const THEN: &str = "run `tallymark init` and `tallymark repair`";
    if let Some(problem) = doubled(tx, table, &keys, Some(newest), THEN).await? {
        return Err(problem.into());
    }
    Ok(Some(format!("CREATE UNIQUE INDEX ON {table} ({keys})")))
}

/// The `keys` that occur in a table more than once, and the statement that deletes all rows but one
/// of each: the row with the greatest `newest` stays, or any row.
async fn doubled(
    tx: &mut Tx,
    table: &str,
    keys: &str,
    newest: Option<&str>,
    then: &str,
) -> Result<Option<Fault>, DbError> {
    const DOING: &str = "looking for doubled keys";
    let sql = format!(
        "SELECT row_to_json(__k)::text, count(*) OVER () FROM (SELECT {keys} FROM {table} \
         GROUP BY {keys} HAVING count(*) > 1) __k LIMIT 1"
    );
    let rows = tx.rows(DOING, sql).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let read = || Ok((row.try_get(0)?, row.try_get(1)?));
    let (key, count): (String, i64) = read().map_err(|source| tx.error(DOING, source))?;
    let order = newest.map_or_else(String::new, |by| format!(" ORDER BY {by} DESC NULLS LAST"));
    let fault = Fault::new(format!(
        "has lost its unique index, and {count} of its keys stand in it more than once, such as {key}"
    ));
    Ok(Some(fault.remedy(format!(
        "delete all but one row of each: DELETE FROM {table} WHERE ctid IN (SELECT ctid FROM (SELECT \
         ctid, row_number() OVER (PARTITION BY {keys}{order}) AS n FROM {table}) doubled WHERE n > 1); \
         then {then}"
    ))))
}

/// The work that the indexes of an existing rollup table still need.
pub(super) struct Indexes {
    /// The statements to run, in order.
    pub(super) statements: Vec<String>,
    /// The name of a unique index that would refuse valid rows.
    pub(super) stranger: Option<String>,
}

/// Compares the indexes of the rollup table with the required state: exactly one unique index, with
/// the right keys.
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
    let dimensions = dimensions(tx, shape).await?;
    let wanted = unique_keys(&dimensions);
    let mut found = Indexes { statements: Vec::new(), stranger: None };
    let (mut has_it, mut had_no_readers, mut before) = (false, false, Vec::new());
    for index in unique_indexes(tx, &table, &names).await? {
        let hashed = [
            "bucket".to_owned(),
            format!("tallymark.key_hash(ROW({}))", index.names[1..].join(", ")),
        ];
        match () {
            () if index.keys == wanted && index.is_whole && index.takes_null != Some(false) => {
                has_it = true;
            }
            () if index.is_constraint => found.stranger = Some(index.name),
            // It was left invalid, covers only some of the rows, or treats each NULL as different.
            () if index.keys == wanted => before.push(index.name),
            // Earlier versions created one on the columns, and one on a hash of all of them.
            () if index.keys == index.names => {
                had_no_readers = true;
                before.push(index.name);
            }
            () if index.keys == hashed => before.push(index.name),
            () => found.stranger = Some(index.name),
        }
    }
    if !has_it {
        found.statements.push(unique_index(tx, &table, &wanted).await?);
        if had_no_readers {
            found.statements.extend(readers_index(&table, &dimensions));
        }
    }
    found.statements.extend(before.iter().map(|name| format!("DROP INDEX {name}")));
    Ok(found)
}

/// The statement that creates the index by which readers find a group's rows: the dimensions of a
/// bounded width, the beginnings of texts, and the bucket. `None`: no dimension fits.
fn readers_index(table: &str, dimensions: &[StoredDimension]) -> Option<String> {
    let characters = characters(dimensions.len());
    let key = |key: &StoredDimension| match key.class {
        Class::Plain => Some(key.name.clone()),
        Class::Text => Some(format!("left({}::text, {characters})", key.name)),
        Class::Numeric | Class::Bytes | Class::Other => None,
    };
    let mut keys: Vec<String> =
        dimensions.iter().filter_map(key).take(INDEX_COLUMNS_MAX - 1).collect();
    let has_one = !keys.is_empty();
    keys.push("bucket".to_owned());
    has_one.then(|| format!("CREATE INDEX ON {table} ({})", keys.join(", ")))
}

/// The characters of a text that stand in the readers' index beside this number of dimensions.
pub(super) fn characters(dimensions: usize) -> usize {
    let each = ENTRY_BYTES_MAX / dimensions.clamp(1, INDEX_COLUMNS_MAX);
    // A character has at most four bytes.
    CHARACTERS_MAX.min(each / 4)
}

/// Refuses a table that lacks its unique index and contains a key more than once, and names the
/// key.
///
/// # Errors
/// Such a key exists, or the server cannot be read.
pub async fn refuse_doubled(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
    shape: &Shape,
) -> Result<(), DdlError> {
    let table = target.table(rollup);
    if rollup.mirror.is_some()
        || columns_of(tx, &table).await?.is_empty()
        || rollup_indexes(tx, target, rollup, shape).await?.statements.is_empty()
    {
        return Ok(());
    }
    let keys = columns(shape)[..=shape.dimensions.len()].join(", ");
    let name = &rollup.name;
    let then = format!("run `tallymark init` and `tallymark verify {name} --repair`");
    let Some(problem) = doubled(tx, &table, &keys, None, &then).await? else { return Ok(()) };
    Err(DdlError::Incompatible { rollup: name.clone(), table, problem })
}
