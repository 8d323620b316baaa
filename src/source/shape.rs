//! The source's catalogue data about a rollup: the types of its columns, and whether this role may
//! read them. It is read once per process and rollup, before any slice is claimed.

use sqlx::Row as _;

use super::axis::{Axis, TimeType};
use super::fingerprint::{self, Fingerprint};
use super::origin::check_origin;
use super::probe::{check_comparable, check_late, check_privilege, check_zone};
use crate::db::{DbError, DbErrorKind, Tx};
use crate::rollup::{Aggregate, Late, Measure, Rollup, TableName};
use crate::sql::{ident, literal, table};

/// A rollup's definition together with the PostgreSQL types of its columns.
#[derive(Clone, Debug)]
pub struct Shape {
    /// How the time column is compared and cut.
    pub axis: Axis,
    /// How the column with a row's last change is compared, if `late` names one.
    pub changes: Option<Axis>,
    /// The dimensions, in the order of `group_by`.
    pub dimensions: Vec<Dimension>,
    /// The columns of the rollup table that hold measures.
    pub fields: Vec<Field>,
    /// The source columns whose distinct values are counted, each once.
    pub distinct: Vec<DistinctColumn>,
    /// Generated columns: name, type and expression.
    pub generated: Vec<Generated>,
    /// Further properties that decide the values. `None`: the source is a finer rollup's table,
    /// whose slices include them.
    pub fingerprint: Option<Fingerprint>,
}

/// A column to group by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dimension {
    /// Its name, in source and rollup table.
    pub name: String,
    /// Its type in the rollup table.
    pub sql_type: String,
    /// Its collation, quoted, where it differs from the type's own.
    pub collation: Option<String>,
    /// The type to cast it to, where another database lacks the source's own.
    pub cast: Option<String>,
    /// Whether the column is an array, whose NULL and empty values must be told apart.
    pub is_array: bool,
}

/// A column of the rollup table that holds a measure, or half of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    /// Its type in the rollup table.
    pub sql_type: String,
    /// Its type in the stage table, exact where the final type is not.
    pub stage_type: String,
    /// The collation by which its values are compared, quoted, where it differs from the type's
    /// own.
    pub collation: Option<String>,
    pub content: Content,
    /// The measure's own condition.
    pub filter: Option<String>,
}

/// The content of a [`Field`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// Number of rows, or of rows where the column is not NULL.
    Count(Option<String>),
    /// Sum of a column.
    Sum {
        column: String,
        /// Floats are summed as exact decimals, as floating sums depend on the order of rows.
        exact: bool,
    },
    /// Least value of a column.
    Min(String),
    /// Greatest value of a column.
    Max(String),
    /// Number of distinct values of the column at this place in [`Shape::distinct`].
    Distinct(usize),
    /// Number of distinct values of a column that is also a dimension: 1, or 0 for NULL.
    DistinctKey(String),
}

/// A source column whose distinct values are counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DistinctColumn {
    /// Its name in the source.
    pub column: String,
    /// Its type in the stage table.
    pub stage_type: String,
    /// The collation by which values are equal, quoted, where it differs from the type's own.
    pub collation: Option<String>,
}

/// A column that PostgreSQL computes from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    pub name: String,
    pub sql_type: String,
    pub expression: String,
}

/// Why a rollup cannot be computed from its source at present.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    /// The source contradicts the definition: a table, column, type or privilege.
    #[error("rollup `{rollup}`: {problem}")]
    Unfit {
        rollup: String,
        /// The problem and its remedy.
        problem: String,
    },
    /// The source cannot be read.
    #[error(transparent)]
    Db(#[from] DbError),
}

/// A column as the catalogue describes it.
#[derive(Clone, Debug)]
pub(super) struct Column {
    pub(super) name: String,
    /// `format_type` without modifiers, except where the bare name means a narrower type.
    pub(super) sql_type: String,
    base_type: String,
    portable: bool,
    is_enum: bool,
    pub(super) is_array: bool,
    comparable: bool,
    pub(super) collation: Option<String>,
    deterministic: bool,
    /// Its collation by a name that every database knows, quoted.
    order_abroad: Option<String>,
    /// Whether its collation was created in this database.
    own_order: bool,
}

/// Reads the shape of `rollup` from the source. `same_database` says whether the target is the same
/// database.
///
/// # Errors
/// The source contradicts the definition, or cannot be read.
pub async fn inspect(
    tx: &mut Tx,
    rollup: &Rollup,
    same_database: bool,
) -> Result<Shape, ShapeError> {
    let unfit = |problem: String| ShapeError::Unfit { rollup: rollup.name.clone(), problem };
    let columns = columns(tx, rollup).await?;
    let find = |key: &str, name: &str| {
        columns.iter().find(|column| column.name == name).ok_or_else(|| {
            let nearest = nearest(name, &columns);
            unfit(format!("{key}: `{}` has no column `{name}`{nearest}", rollup.from))
        })
    };
    let time = find("time", &rollup.time.column)?;
    let axis = Axis::new(rollup, TimeType::parse(&time.base_type)).map_err(&unfit)?;
    let changes = match &rollup.late {
        Late::Column(column) => {
            let time = TimeType::parse(&find("late", &column.column)?.base_type);
            Some(Axis::of_changes(rollup, column, time).map_err(&unfit)?)
        }
        Late::Grace | Late::Clock | Late::Capture => None,
    };
    let mut dimensions = Vec::with_capacity(rollup.group_by.len());
    for name in &rollup.group_by {
        dimensions.push(dimension(find("group_by", name)?, same_database).map_err(&unfit)?);
    }
    for measure in &rollup.measures {
        if let Some(column) = measure.aggregate.column() {
            find(&format!("measures.{}", measure.name), column)?;
        }
    }
    for axis in std::iter::once(&axis).chain(changes.as_ref()) {
        check_zone(tx, rollup, axis).await?;
    }
    check_origin(tx, rollup).await?;
    check_privilege(tx, rollup).await?;
    check_late(tx, rollup).await?;
    let comparable = |name: &str| columns.iter().any(|it| it.name == name && it.comparable);
    check_comparable(tx, rollup, comparable).await?;
    let mut shape = Shape {
        axis,
        changes,
        dimensions,
        fields: vec![],
        distinct: vec![],
        generated: vec![],
        fingerprint: None,
    };
    let types = measure_types(tx, rollup).await?;
    for (measure, sql_type) in rollup.measures.iter().zip(types) {
        let column = measure
            .aggregate
            .column()
            .and_then(|column| columns.iter().find(|known| known.name == column));
        add_measure(&mut shape, measure, column, sql_type, same_database).map_err(&unfit)?;
    }
    // Read last, as it changes the search path.
    shape.fingerprint = fingerprint::ask(tx, rollup).await?;
    Ok(shape)
}

/// A hint with the nearest column name, or with all names.
fn nearest(name: &str, columns: &[Column]) -> String {
    columns
        .iter()
        .map(|column| (strsim::jaro_winkler(name, &column.name), &column.name))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}

/// Reads the columns of the rollup's table or view.
async fn columns(tx: &mut Tx, rollup: &Rollup) -> Result<Vec<Column>, ShapeError> {
    let columns = catalogue(tx, &rollup.from).await?;
    if columns.is_empty() {
        let near = match near_tables(tx, &rollup.from).await?.as_slice() {
            [] => "write `schema.table` exactly as PostgreSQL stores the names".to_owned(),
            near => format!("did you mean {}?", near.join(" or ")),
        };
        return Err(ShapeError::Unfit {
            rollup: rollup.name.clone(),
            problem: format!(
                "from: there is no table or view `{}` that this role can see; {near}",
                rollup.from
            ),
        });
    }
    Ok(columns)
}

/// The names of tables and views that are similar to `from`, nearest first, as the configuration
/// would write them.
async fn near_tables(tx: &mut Tx, from: &TableName) -> Result<Vec<String>, DbError> {
    /// Maximum number of names.
    const NEAR_MAX: usize = 2;
    const DOING: &str = "looking for tables of a like name";
    let rows = tx.rows(DOING, include_str!("relations.sql").into()).await?;
    let mut near = Vec::new();
    for row in rows {
        let read =
            || Ok::<(String, String), sqlx::Error>((row.try_get("schema")?, row.try_get("name")?));
        let (schema, name) = read().map_err(|error| tx.error(DOING, error))?;
        let mut likeness = strsim::jaro_winkler(&from.name.to_lowercase(), &name.to_lowercase());
        if from.schema.as_ref().is_some_and(|wanted| *wanted != schema) {
            // The same name in another schema is nearer than another name in this one.
            likeness -= 0.05;
        }
        near.push((likeness, format!("`{schema}.{name}`")));
    }
    near.retain(|(likeness, _)| *likeness > 0.8);
    near.sort_by(|one, other| other.0.total_cmp(&one.0));
    Ok(near.into_iter().take(NEAR_MAX).map(|(_, name)| name).collect())
}

/// The catalogue's description of a table's columns. An empty list means that the table does not
/// exist.
pub(super) async fn catalogue(tx: &mut Tx, from: &TableName) -> Result<Vec<Column>, DbError> {
    let name = table(from);
    let sql = format!(include_str!("columns.sql"), relation = literal(&name));
    let rows = tx.rows(&format!("looking up {name}"), sql).await?;
    rows.iter()
        .map(|row| {
            Ok(Column {
                name: row.try_get("name")?,
                sql_type: row.try_get("sql_type")?,
                base_type: row.try_get("base_type")?,
                portable: row.try_get("portable")?,
                is_enum: row.try_get("is_enum")?,
                is_array: row.try_get("is_array")?,
                comparable: row.try_get("comparable")?,
                collation: row.try_get("collation")?,
                deterministic: row.try_get("deterministic")?,
                order_abroad: row.try_get("order_abroad")?,
                own_order: row.try_get("own_order")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|source| tx.error("reading the catalogue", source))
}

fn dimension(column: &Column, same_database: bool) -> Result<Dimension, String> {
    if !column.comparable {
        return Err(format!(
            "group_by: column `{}` is of type {}, which PostgreSQL cannot group by exactly; \
             cast it in a view",
            column.name, column.sql_type
        ));
    }
    if !same_database && !column.deterministic {
        return Err(format!(
            "group_by: column `{}` has a nondeterministic collation, which another database does \
             not know; keep the target in the source's database or cast the column in a view",
            column.name
        ));
    }
    let sql_type = if same_database {
        column.sql_type.clone()
    } else {
        abroad(column).ok_or_else(|| {
            format!(
                "group_by: column `{}` is of type {}, which another database does not know; keep \
                 the target in the source's database or cast the column in a view",
                column.name, column.sql_type
            )
        })?
    };
    Ok(Dimension {
        name: column.name.clone(),
        cast: (sql_type != column.sql_type).then(|| sql_type.clone()),
        collation: if same_database { column.collation.clone() } else { None },
        is_array: column.is_array,
        sql_type,
    })
}

/// The type that a column has in another database, if that groups its values alike: its own, a
/// domain's base, or text for an enum.
fn abroad(column: &Column) -> Option<String> {
    if column.is_enum {
        Some("text".into())
    } else {
        column.portable.then(|| column.base_type.clone())
    }
}

/// The type that PostgreSQL gives each measure. This also proves that every expression is valid.
async fn measure_types(tx: &mut Tx, rollup: &Rollup) -> Result<Vec<String>, ShapeError> {
    let select: Vec<String> = rollup
        .measures
        .iter()
        .map(|measure| match &measure.aggregate {
            // Always an aggregate, as otherwise an empty table would return no row.
            Aggregate::Count | Aggregate::Distinct(_) => "pg_typeof(count(*))::text".into(),
            Aggregate::Sum(column) | Aggregate::Avg(column) => {
                format!("pg_typeof(sum({}))::text", ident(column))
            }
            Aggregate::Min(column) => format!("pg_typeof(min({}))::text", ident(column)),
            Aggregate::Max(column) => format!("pg_typeof(max({}))::text", ident(column)),
        })
        .collect();
    // With a false condition PostgreSQL answers from the types alone. The count makes it one row,
    // even if none of the measures is an aggregate here.
    let (select, name) = (select.join(", "), table(&rollup.from));
    let sql = format!("SELECT {select}, count(*) FROM {name} WHERE false");
    let row = tx.row("typing the measures", sql).await.map_err(|error| match error.kind() {
        DbErrorKind::Missing | DbErrorKind::Refused => {
            ShapeError::Unfit { rollup: rollup.name.clone(), problem: format!("measures: {error}") }
        }
        _ => error.into(),
    })?;
    (0..rollup.measures.len())
        .map(|index| row.try_get(index).map(any_length))
        .collect::<Result<_, _>>()
        .map_err(|source| tx.error("typing the measures", source).into())
}

/// The name of `sql_type` without a length. PostgreSQL calls the result of `min` over `char(9)`
/// `character`, which in a table would mean one character.
fn any_length(sql_type: String) -> String {
    match sql_type.as_str() {
        "character" => "bpchar".into(),
        "character[]" => "bpchar[]".into(),
        _ => sql_type,
    }
}

fn add_measure(
    shape: &mut Shape,
    measure: &Measure,
    source: Option<&Column>,
    sql_type: String,
    same_database: bool,
) -> Result<(), String> {
    let known = |column: &Column| {
        if same_database { Some(column.sql_type.clone()) } else { abroad(column) }
    };
    let field = |name: String, sql_type: &str, stage_type: &str, content| Field {
        name,
        sql_type: sql_type.into(),
        stage_type: stage_type.into(),
        collation: None,
        content,
        filter: measure.filter.clone(),
    };
    let name = measure.name.clone();
    match &measure.aggregate {
        Aggregate::Count => {
            shape.fields.push(field(name, "bigint", "bigint", Content::Count(None)));
        }
        Aggregate::Sum(column) => {
            let (sql_type, stage_type, exact) = sum_types(&sql_type);
            let content = Content::Sum { column: column.clone(), exact };
            shape.fields.push(field(name, sql_type, stage_type, content));
        }
        Aggregate::Avg(column) => {
            let (sum_type, stage_type, exact) = sum_types(&sql_type);
            let content = Content::Sum { column: column.clone(), exact };
            let (sum, count) = (format!("{name}_sum"), format!("{name}_count"));
            shape.generated.push(mean(&name, &sum, &count, sum_type));
            shape.fields.push(field(sum, sum_type, stage_type, content));
            let content = Content::Count(Some(column.clone()));
            shape.fields.push(field(count, "bigint", "bigint", content));
        }
        Aggregate::Min(column) | Aggregate::Max(column) => {
            let content = match &measure.aggregate {
                Aggregate::Min(_) => Content::Min(column.clone()),
                _ => Content::Max(column.clone()),
            };
            let collation = order(&name, source, &sql_type, same_database)?;
            let field = field(name, &sql_type, &sql_type, content);
            shape.fields.push(Field { collation, ..field });
        }
        Aggregate::Distinct(column) => {
            let Some(stage_type) = source.filter(|column| column.comparable).and_then(known) else {
                return Err(format!(
                    "measures.{name}: column `{column}` is of a type whose values cannot be told \
                     apart here; cast it in a view"
                ));
            };
            if !same_database && source.is_some_and(|column| !column.deterministic) {
                return Err(format!(
                    "measures.{name}: column `{column}` has a nondeterministic collation, which \
                     another database does not know; keep the target in the source's database or \
                     cast the column in a view"
                ));
            }
            if shape.dimensions.iter().any(|dimension| &dimension.name == column) {
                let content = Content::DistinctKey(column.clone());
                shape.fields.push(field(name, "bigint", "bigint", content));
                return Ok(());
            }
            let place = shape.distinct.iter().position(|known| &known.column == column);
            let place = place.unwrap_or_else(|| {
                let collation =
                    source.filter(|_| same_database).and_then(|column| column.collation.clone());
                let column = column.clone();
                shape.distinct.push(DistinctColumn { column, stage_type, collation });
                shape.distinct.len() - 1
            });
            shape.fields.push(field(name, "bigint", "bigint", Content::Distinct(place)));
        }
    }
    Ok(())
}

/// The collation by which `min` and `max` of a column are compared. Partials are compared again in
/// the target, whose default order may differ.
fn order(
    measure: &str,
    source: Option<&Column>,
    sql_type: &str,
    same_database: bool,
) -> Result<Option<String>, String> {
    let Some(column) = source else { return Ok(None) };
    if same_database {
        return Ok(column.collation.clone());
    }
    if !column.portable {
        return Err(format!(
            "measures.{measure}: type {sql_type} exists only in the source's database and \
             cannot be compared in another one; cast it in a view"
        ));
    }
    if column.own_order {
        return Err(format!(
            "measures.{measure}: column `{}` has a collation that another database does not know; \
             keep the target in the source's database or give the column another one in a view, \
             such as COLLATE \"C\"",
            column.name
        ));
    }
    Ok(column.order_abroad.clone())
}

/// Final type, stage type and whether the sum uses exact decimals.
pub(super) fn sum_types(sum: &str) -> (&str, &str, bool) {
    match sum {
        "real" | "double precision" => ("double precision", "numeric", true),
        other => (other, other, false),
    }
}

pub(super) fn mean(name: &str, sum: &str, count: &str, sum_type: &str) -> Generated {
    let (sum, count) = (ident(sum), ident(count));
    let (sql_type, expression) = match sum_type {
        "bigint" => ("numeric", format!("{sum}::numeric / nullif({count}, 0)")),
        other => (other, format!("{sum} / nullif({count}, 0)")),
    };
    Generated { name: name.to_owned(), sql_type: sql_type.to_owned(), expression }
}

impl ShapeError {
    /// Whether the source was out of reach.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unfit { .. } => false,
            Self::Db(error) => {
                matches!(error.kind(), DbErrorKind::Unreachable | DbErrorKind::Login)
            }
        }
    }
}
