//! The source's catalogue data about a rollup: the types of its columns, and whether this role may
//! read them. It is read once per process and rollup, before any slice is claimed.

use std::borrow::Cow;

use sqlx::Row as _;

use crate::clients::db::{DbError, DbErrorKind, Tx};
use crate::model::hint::{Fault, Hinted};
use crate::model::measure::{
    Column, Columns, Field, Generated, Input, Level, ValueColumn, lay_out,
};
use crate::model::rollup::{Late, Rollup, TableName};
use crate::model::sql::{literal, table};
use crate::source;
use crate::source::reading::axis::{Axis, TimeType};
use crate::source::reading::expressions;
use crate::source::reading::fingerprint::{self, Fingerprint};
use crate::source::reading::lookups;
use crate::source::reading::origin::check_origin;
use crate::source::reading::privileges::{
    check_comparable, check_late, check_privilege, check_zone,
};

/// A rollup's definition together with the PostgreSQL types of its columns.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The column of its table that places a row in a slice.
    pub time_key: &'static str,
    /// How the time column is compared and cut.
    pub axis: Axis,
    /// How the column with a row's last change is compared, if `late` names one.
    pub changes: Option<Axis>,
    /// The dimensions, in the order of `group_by`.
    pub dimensions: Vec<Dimension>,
    /// The columns of the rollup table that hold measures.
    pub fields: Vec<Field>,
    /// The source columns whose distinct values are staged, each once.
    pub values: Vec<ValueColumn>,
    /// Generated columns: name, type and expression.
    pub generated: Vec<Generated>,
    /// Further properties that decide the values. `None`: the source is a finer rollup's table,
    /// whose slices include them.
    pub fingerprint: Option<Fingerprint>,
}

/// A dimension with its type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dimension {
    /// Its name in the rollup table.
    pub(crate) name: String,
    /// The name by which statements read it from the source.
    pub(crate) reads: String,
    /// Its type in the rollup table.
    pub(crate) sql_type: String,
    /// Its collation, quoted, where it differs from the type's own.
    pub(crate) collation: Option<String>,
    /// The type to cast it to, where another database lacks the source's own.
    pub(crate) cast: Option<String>,
    /// Whether the column is an array, whose NULL and empty values must be told apart.
    pub(crate) is_array: bool,
}

/// Why a rollup cannot be computed from its source at present.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    /// The source contradicts the definition: a table, column, type or privilege.
    #[error("rollup `{rollup}`: {problem}")]
    Unfit {
        rollup: String,
        /// The problem, and its remedy.
        problem: Fault,
    },
    /// The source cannot be read.
    #[error(transparent)]
    Db(#[from] DbError),
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
    let unfit = |problem: Fault| ShapeError::Unfit { rollup: rollup.name.clone(), problem };
    let mut columns = columns(tx, rollup).await?;
    let role = columns.first().map_or_else(String::new, |column| column.reader.clone());
    lookups::check(tx, rollup, &columns, &role).await?;
    columns.extend(expressions::columns(tx, rollup, &role).await?);
    let find = |key: &str, name: &str| {
        columns.iter().find(|column| column.name == name).ok_or_else(|| {
            let nearest = nearest(name, &columns);
            let fault = Fault::new(format!("{key}: `{}` has no column `{name}`", rollup.from));
            unfit(match nearest {
                Some(nearest) => fault.remedy(format!("did you mean `{nearest}`?")),
                None => fault.remedy("name a column of it"),
            })
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
    for key in &rollup.group_by {
        let column = find("group_by", key.operand.name())?;
        dimensions.push(dimension(&key.name, column, same_database).map_err(&unfit)?);
    }
    let mut read = Vec::with_capacity(rollup.measures.len());
    for measure in &rollup.measures {
        let key = format!("measures.{}", measure.name);
        let columns = measure.reads();
        let columns = columns.iter().map(|operand| find(&key, operand.name()));
        read.push(columns.collect::<Result<Vec<_>, _>>()?);
    }
    for axis in std::iter::once(&axis).chain(changes.as_ref()) {
        check_zone(tx, rollup, axis).await?;
    }
    check_origin(tx, rollup).await?;
    check_privilege(tx, rollup, &role).await?;
    check_late(tx, rollup, &role).await?;
    let comparable = |name: &str| columns.iter().any(|it| it.name == name && it.comparable);
    check_comparable(tx, rollup, comparable).await?;
    let types = measure_types(tx, rollup).await?;
    let inputs = rollup.measures.iter().zip(read).zip(types);
    let inputs = inputs.map(|((measure, columns), sql_type)| {
        let is_dimension = measure.column.as_ref().is_some_and(|it| rollup.is_grouped_by(it));
        Input::new(measure, columns, sql_type, same_database, is_dimension)
    });
    let (measured, values) = lay_out(inputs.collect(), Level::Rows).map_err(&unfit)?;
    let Columns { fields, generated } = measured;
    // Read last, as it changes the search path.
    let fingerprint = fingerprint::read(tx, rollup).await?;
    let time_key = rollup.time_key();
    Ok(Shape { time_key, axis, changes, dimensions, fields, values, generated, fingerprint })
}

/// The nearest column name.
pub(super) fn nearest<'a>(name: &str, columns: &'a [Column]) -> Option<&'a str> {
    columns
        .iter()
        .map(|column| (strsim::jaro_winkler(name, &column.name), &column.name))
        .filter(|(similarity, _)| *similarity > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name.as_str())
}

/// Reads the columns of the rollup's table or view.
async fn columns(tx: &mut Tx, rollup: &Rollup) -> Result<Vec<Column>, ShapeError> {
    let columns = catalogue(tx, &rollup.from).await?;
    if columns.is_empty() {
        let near = meant(&near_tables(tx, &rollup.from).await?);
        return Err(ShapeError::Unfit {
            rollup: rollup.name.clone(),
            problem: Fault::new(format!(
                "from: there is no table or view `{}` that this role can see",
                rollup.from
            ))
            .remedy(near),
        });
    }
    Ok(columns)
}

/// The remedy of a wrong name of a table, to which these are similar.
pub(super) fn meant(near: &[String]) -> String {
    match near {
        [] => "write `schema.table` exactly as PostgreSQL stores the names".to_owned(),
        near => format!("did you mean {}?", near.join(" or ")),
    }
}

/// The names of tables and views that are similar to `from`, nearest first, as the configuration
/// would write them.
pub(super) async fn near_tables(tx: &mut Tx, from: &TableName) -> Result<Vec<String>, DbError> {
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
pub(crate) async fn catalogue(tx: &mut Tx, from: &TableName) -> Result<Vec<Column>, DbError> {
    let name = table(from);
    let columns = format!(include_str!("table_columns.sql"), relation = literal(&name));
    described(tx, columns, &format!("looking up {name}")).await
}

/// The catalogue's description of `columns`, a query of names, types and collations.
pub(super) async fn described(
    tx: &mut Tx,
    columns: String,
    doing: &str,
) -> Result<Vec<Column>, DbError> {
    let rows = tx.rows(doing, format!(include_str!("columns.sql"), columns = columns)).await?;
    rows.iter()
        .map(|row| {
            Ok(Column {
                name: row.try_get("name")?,
                sql: None,
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
                reader: row.try_get("reader")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|source| tx.error("reading the catalogue", source))
}

fn dimension(name: &str, column: &Column, same_database: bool) -> Result<Dimension, Fault> {
    let (words, sql_type) = (column.in_words(), &column.sql_type);
    let abroad = || format!("keep the target in the source's database or {}", column.recast());
    if !column.comparable {
        let fault = Fault::new(format!(
            "group_by: {words} is of type {sql_type}, which PostgreSQL cannot group by exactly"
        ));
        return Err(fault.remedy(column.recast()));
    }
    if !same_database && !column.deterministic {
        let fault = Fault::new(format!(
            "group_by: {words} has a nondeterministic collation, which another database does not know"
        ));
        return Err(fault.remedy(abroad()));
    }
    let sql_type = if same_database {
        column.sql_type.clone()
    } else {
        column.type_abroad().ok_or_else(|| {
            Fault::new(format!(
                "group_by: {words} is of type {sql_type}, which another database does not know"
            ))
            .remedy(abroad())
        })?
    };
    Ok(Dimension {
        name: name.to_owned(),
        reads: column.name.clone(),
        cast: (sql_type != column.sql_type).then(|| sql_type.clone()),
        collation: if same_database { column.collation.clone() } else { None },
        is_array: column.is_array,
        sql_type,
    })
}

/// The type that PostgreSQL gives each measure. This also proves that every expression is valid.
async fn measure_types(tx: &mut Tx, rollup: &Rollup) -> Result<Vec<String>, ShapeError> {
    let types = rollup.measures.iter().map(|measure| measure.kind.typed(measure));
    let select: Vec<String> = types.map(|typed| format!("pg_typeof({typed})::text")).collect();
    // With a false condition PostgreSQL answers from the types alone. The count makes the result
    // one row.
    let (select, relation) = (select.join(", "), source::of(rollup).relation(rollup));
    let sql = format!("SELECT {select}, count(*) FROM {relation} WHERE false");
    let row = tx.row("typing the measures", sql).await.map_err(|error| match error.kind() {
        DbErrorKind::Missing | DbErrorKind::Refused => ShapeError::Unfit {
            rollup: rollup.name.clone(),
            problem: Fault::of(&error).at("measures"),
        },
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

impl Hinted for ShapeError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Unfit { problem, .. } => problem.hint(),
            Self::Db(error) => error.hint(),
        }
    }
}

impl ShapeError {}
