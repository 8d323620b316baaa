//! What the catalogue and the statistics of a live database say about its tables.

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::clients::db::{DbError, Tx};
use crate::model::sql::{TableName, ident, literal, table};
use crate::source::reading::first_row;

const DOING: &str = "looking for tables";

/// A table that may be counted.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct CatalogueTable {
    pub(in crate::cli) name: TableName,
    /// With its partitions.
    pub(in crate::cli) bytes: i64,
    /// By the statistics. `None`: it was never analysed, or is empty.
    pub(in crate::cli) rows: Option<f64>,
    /// Whether this role may read at least one column.
    pub(in crate::cli) is_readable: bool,
    /// Whether row-level security hides rows from this role.
    pub(in crate::cli) is_filtered: bool,
    /// Whether it is the table of a rollup.
    pub(in crate::cli) is_rollup: bool,
    /// Whether it has no rows of its own, and so no statistics.
    pub(in crate::cli) is_view: bool,
    pub(in crate::cli) columns: Vec<CatalogueColumn>,
}

/// A column of such a table.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct CatalogueColumn {
    pub(in crate::cli) name: String,
    pub(in crate::cli) content: Content,
    pub(in crate::cli) is_readable: bool,
    /// Whether each value stands in one row only.
    pub(in crate::cli) is_unique: bool,
    /// Whether it refers to another table.
    pub(in crate::cli) is_reference: bool,
    /// The index that begins with it.
    pub(in crate::cli) index: Option<Index>,
    /// The number of different values, by the statistics.
    pub(in crate::cli) distinct: Option<f64>,
}

/// The kinds of types that a configuration treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Content {
    Instant,
    /// A time without a zone.
    LocalTime,
    Date,
    /// `smallint`, `integer`.
    Integer,
    Bigint,
    /// `numeric` and floats.
    Decimal,
    Boolean,
    Enum,
    Text,
    Uuid,
    /// Documents, arrays, and types that other databases lack.
    Other,
}

/// How an index finds rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Index {
    /// By a B-tree, which also knows the first and the last value.
    BTree,
    /// By ranges of blocks.
    Brin,
}

/// The server, as the target of rollup tables.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::cli) struct CatalogueServer {
    pub(in crate::cli) now: DateTime<Utc>,
    /// Whether it refuses writes.
    pub(in crate::cli) is_read_only: bool,
    /// Whether this role may create schemas.
    pub(in crate::cli) may_create: bool,
    /// The names of relations that no rollup can have.
    pub(in crate::cli) taken: Vec<String>,
}

/// The first and the last value of a time column, as seconds since 1970, or as the integers that they
/// are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(in crate::cli) struct TimeExtent {
    pub(in crate::cli) first: Option<f64>,
    pub(in crate::cli) last: Option<f64>,
    pub(in crate::cli) seen: Seen,
}

/// Where they were seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) enum Seen {
    /// In the rows. Without a value there is no row.
    Rows,
    /// In a sample: there may be values before the first.
    Sample,
    #[default]
    Nowhere,
}

/// The server's facts; `schema` is that of the rollup tables.
pub(in crate::cli) async fn server(tx: &mut Tx, schema: &str) -> Result<CatalogueServer, DbError> {
    let sql = format!(include_str!("server.sql"), schema = literal(schema));
    let row = tx.row(DOING, sql).await?;
    let read = || {
        Ok::<_, sqlx::Error>(CatalogueServer {
            now: instant(row.try_get("now")?).unwrap_or_default(),
            is_read_only: row.try_get("is_read_only")?,
            may_create: row.try_get("may_create")?,
            taken: row.try_get("taken")?,
        })
    };
    read().map_err(|error| tx.error(DOING, error))
}

/// The application's tables, largest first. With `only`, that table or view alone, whatever it is.
pub(in crate::cli) async fn tables(
    tx: &mut Tx,
    only: Option<&TableName>,
) -> Result<Vec<CatalogueTable>, DbError> {
    let condition = only.map_or_else(
        || include_str!("candidates.sql").to_owned(),
        |only| format!("c.oid = to_regclass({})", literal(&table(only))),
    );
    let sql = format!(include_str!("tables.sql"), condition = condition);
    let rows = tx.rows(DOING, sql).await?;
    let found: Result<Vec<_>, _> = rows.iter().map(one_table).collect();
    let found = found.map_err(|error| tx.error(DOING, error))?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let wanted = found.iter().map(|(oid, largest, _)| format!("({oid}, {largest})"));
    let wanted = wanted.collect::<Vec<_>>().join(", ");
    let rows = tx.rows(DOING, format!(include_str!("columns.sql"), tables = wanted)).await?;
    let columns: Result<Vec<_>, _> = rows.iter().map(column).collect();
    let columns = columns.map_err(|error| tx.error(DOING, error))?;
    let with_columns = |(oid, _, table): (i64, i64, CatalogueTable)| {
        let own = columns.iter().filter(|(of, _)| *of == oid).map(|(_, it)| it.clone());
        CatalogueTable { columns: own.collect(), ..table }
    };
    Ok(found.into_iter().map(with_columns).collect())
}

/// A table without its columns, with its own number and that of its largest partition.
fn one_table(row: &PgRow) -> Result<(i64, i64, CatalogueTable), sqlx::Error> {
    let oid = row.try_get("oid")?;
    let largest = row.try_get::<Option<i64>, _>("largest")?.unwrap_or(oid);
    let table = CatalogueTable {
        name: TableName { schema: Some(row.try_get("schema")?), name: row.try_get("name")? },
        bytes: row.try_get("bytes")?,
        rows: row.try_get("rows")?,
        is_readable: row.try_get("is_readable")?,
        is_filtered: row.try_get("is_filtered")?,
        is_rollup: row.try_get("is_rollup")?,
        is_view: row.try_get("is_view")?,
        columns: Vec::new(),
    };
    Ok((oid, largest, table))
}

fn column(row: &PgRow) -> Result<(i64, CatalogueColumn), sqlx::Error> {
    let is_known = row.try_get("is_known")? && row.try_get("is_deterministic")?;
    let content = match row.try_get::<String, _>("type")?.as_str() {
        _ if row.try_get("is_enum")? => Content::Enum,
        _ if !is_known => Content::Other,
        "timestamptz" => Content::Instant,
        "timestamp" => Content::LocalTime,
        "date" => Content::Date,
        "int2" | "int4" => Content::Integer,
        "int8" => Content::Bigint,
        "numeric" | "float4" | "float8" => Content::Decimal,
        "bool" => Content::Boolean,
        "text" | "varchar" | "bpchar" => Content::Text,
        "uuid" => Content::Uuid,
        _ => Content::Other,
    };
    let index = row.try_get::<Option<String>, _>("index")?.map(|method| match method.as_str() {
        "btree" => Index::BTree,
        _ => Index::Brin,
    });
    let column = CatalogueColumn {
        name: row.try_get("name")?,
        content,
        is_readable: row.try_get("is_readable")?,
        is_unique: row.try_get("is_unique")?,
        is_reference: row.try_get("is_reference")?,
        index,
        distinct: row.try_get("distinct_values")?,
    };
    Ok((row.try_get("oid")?, column))
}

/// The first and the last value of a time column: three looks into its index, or, where they would read
/// much, the statistics. Values before the year 2000 count as mistakes where there are later ones.
pub(in crate::cli) async fn range(
    tx: &mut Tx,
    from: &TableName,
    column: &CatalogueColumn,
) -> Result<TimeExtent, DbError> {
    const DOING: &str = "looking for the first and the last row";
    let (name, relation) = (ident(&column.name), table(from));
    let is_number = matches!(column.content, Content::Integer | Content::Bigint);
    let value = |aggregate: &str| match is_number {
        true => format!("{aggregate}({name})::float8"),
        false => format!("extract(epoch FROM {aggregate}({name}))::float8"),
    };
    let (first, last) = (value("min"), value("max"));
    let later = match is_number {
        // Seconds or milliseconds: negative ones are before 1970.
        true => format!("{name} > 0"),
        false => format!("{name} >= '2000-01-01'"),
    };
    let sql = format!(
        "SELECT coalesce((SELECT {first} FROM {relation} WHERE {later}), \
         (SELECT {first} FROM {relation})) AS first, (SELECT {last} FROM {relation}) AS last"
    );
    if first_row::cost(tx, &sql).await? > first_row::COST_MAX {
        return range_by_statistics(tx, from, column).await;
    }
    let row = tx.row(DOING, sql).await?;
    ends(&row, Seen::Rows).map_err(|error| tx.error(DOING, error))
}

/// The first and the last value of a time column in the sample that ANALYZE has taken.
async fn range_by_statistics(
    tx: &mut Tx,
    from: &TableName,
    column: &CatalogueColumn,
) -> Result<TimeExtent, DbError> {
    const DOING: &str = "looking at the statistics of a column";
    // A date and a local time are read in UTC, as every transaction's zone is.
    let value = match column.content {
        Content::Integer | Content::Bigint => "bound::float8",
        _ => "extract(epoch FROM bound::timestamptz)::float8",
    };
    let sql = format!(
        include_str!("sample.sql"),
        value = value,
        table = literal(&table(from)),
        column = literal(&column.name)
    );
    let row = tx.row(DOING, sql).await?;
    let range = ends(&row, Seen::Sample).map_err(|error| tx.error(DOING, error))?;
    Ok(if range.first.is_some() { range } else { TimeExtent::default() })
}

fn ends(row: &PgRow, seen: Seen) -> Result<TimeExtent, sqlx::Error> {
    let read = |name: &str| {
        let value = row.try_get::<Option<f64>, _>(name)?;
        Ok::<_, sqlx::Error>(value.filter(|value| value.is_finite()))
    };
    Ok(TimeExtent { first: read("first")?, last: read("last")?, seen })
}

/// The instant of these seconds since 1970, if a calendar has it.
pub(in crate::cli) fn instant(seconds: f64) -> Option<DateTime<Utc>> {
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and is out of range then")]
    let seconds = seconds.floor() as i64;
    DateTime::from_timestamp(seconds, 0)
}
