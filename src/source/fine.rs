//! The shape of a coarse rollup, whose source is a finer rollup's table. Measures keep their types,
//! because they are merged as partials are.

use super::axis::{Axis, TimeType};
use super::shape::{
    Content, Dimension, DistinctColumn, Field, Shape, ShapeError, catalogue, mean, sum_types,
};
use crate::db::{DbError, Tx};
use crate::rollup::{Aggregate, Measure, Rollup};

/// A column of the finer rollup's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FineColumn {
    name: String,
    sql_type: String,
    collation: Option<String>,
    is_array: bool,
}

/// The columns of the finer rollup's table in the target's catalogue. An empty list means that
/// `init` has not created the table yet.
///
/// # Errors
/// The target cannot be read.
pub async fn found(tx: &mut Tx, rollup: &Rollup) -> Result<Vec<FineColumn>, DbError> {
    let columns = catalogue(tx, &rollup.from).await?.into_iter().map(|column| FineColumn {
        name: column.name,
        sql_type: column.sql_type,
        collation: column.collation,
        is_array: column.is_array,
    });
    Ok(columns.collect())
}

/// The columns that the finer rollup's table will have, derived from its shape.
#[must_use]
pub fn foreseen(fine: &Shape) -> Vec<FineColumn> {
    let dimensions = fine.dimensions.iter().map(|dimension| FineColumn {
        name: dimension.name.clone(),
        sql_type: dimension.sql_type.clone(),
        collation: dimension.collation.clone(),
        is_array: dimension.is_array,
    });
    let fields = fine.fields.iter().map(|field| FineColumn {
        name: field.name.clone(),
        sql_type: field.sql_type.clone(),
        collation: field.collation.clone(),
        is_array: false,
    });
    dimensions.chain(fields).collect()
}

/// Whether `columns` lacks a column that `rollup` reads.
#[must_use]
pub fn lacks(rollup: &Rollup, columns: &[FineColumn]) -> bool {
    let read = rollup.measures.iter().flat_map(inputs);
    let mut read = rollup.group_by.iter().cloned().chain(read);
    read.any(|name| !columns.iter().any(|column| column.name == name))
}

/// The columns of the finer rollup's table from which a measure is merged.
fn inputs(measure: &Measure) -> Vec<String> {
    match &measure.aggregate {
        Aggregate::Count => Vec::new(),
        Aggregate::Avg(column) => vec![format!("{column}_sum"), format!("{column}_count")],
        Aggregate::Sum(column)
        | Aggregate::Min(column)
        | Aggregate::Max(column)
        | Aggregate::Distinct(column) => vec![column.clone()],
    }
}

/// The shape of `rollup` over a finer table with these columns.
///
/// # Errors
/// A column is missing.
pub fn shape(rollup: &Rollup, columns: &[FineColumn]) -> Result<Shape, ShapeError> {
    let unfit = |problem: String| ShapeError::Unfit { rollup: rollup.name.clone(), problem };
    let find = |name: &str| {
        columns.iter().find(|column| column.name == name).ok_or_else(|| {
            unfit(format!("from: {} has no column `{name}`; run `tallymark init`", rollup.from))
        })
    };
    let axis = Axis::new(rollup, Ok(TimeType::Timestamptz)).map_err(unfit)?;
    let mut shape = Shape {
        axis,
        changes: None,
        dimensions: vec![],
        fields: vec![],
        distinct: vec![],
        generated: vec![],
        fingerprint: None,
    };
    for name in &rollup.group_by {
        let column = find(name)?;
        shape.dimensions.push(Dimension {
            name: name.clone(),
            sql_type: column.sql_type.clone(),
            collation: column.collation.clone(),
            cast: None,
            is_array: column.is_array,
        });
    }
    for measure in &rollup.measures {
        let inputs = inputs(measure);
        let columns = inputs.iter().map(|name| find(name)).collect::<Result<Vec<_>, _>>()?;
        add_measure(&mut shape, measure, &columns);
    }
    Ok(shape)
}

fn add_measure(shape: &mut Shape, measure: &Measure, columns: &[&FineColumn]) {
    let name = &measure.name;
    match (&measure.aggregate, columns) {
        (Aggregate::Avg(_), [sum, count]) => {
            let (sum_name, count_name) = (format!("{name}_sum"), format!("{name}_count"));
            let (sum_type, ..) = sum_types(&sum.sql_type);
            shape.generated.push(mean(name, &sum_name, &count_name, sum_type));
            shape.fields.push(merged_sum(&sum_name, sum));
            shape.fields.push(merged_sum(&count_name, count));
        }
        (Aggregate::Min(column), [fine]) => {
            shape.fields.push(field(name, fine, Content::Min(column.clone())));
        }
        (Aggregate::Max(column), [fine]) => {
            shape.fields.push(field(name, fine, Content::Max(column.clone())));
        }
        (Aggregate::Distinct(column), [fine]) => {
            let content = distinct(shape, column, fine);
            shape.fields.push(of_type(name, "bigint", content));
        }
        (_, columns) => shape.fields.extend(columns.iter().map(|fine| merged_sum(name, fine))),
    }
}

/// A sum of sums or of counts, in their own type. PostgreSQL's sum of bigint has another type.
fn merged_sum(name: &str, fine: &FineColumn) -> Field {
    let (sql_type, stage_type, exact) = sum_types(&fine.sql_type);
    let content = Content::Sum { column: fine.name.clone(), exact };
    Field { stage_type: stage_type.to_owned(), ..of_type(name, sql_type, content) }
}

fn field(name: &str, fine: &FineColumn, content: Content) -> Field {
    Field { collation: fine.collation.clone(), ..of_type(name, &fine.sql_type, content) }
}

fn of_type(name: &str, sql_type: &str, content: Content) -> Field {
    Field {
        name: name.to_owned(),
        sql_type: sql_type.to_owned(),
        stage_type: sql_type.to_owned(),
        collation: None,
        content,
        filter: None,
    }
}

/// How to count the distinct values of a dimension of the finer rollup.
fn distinct(shape: &mut Shape, column: &str, fine: &FineColumn) -> Content {
    if shape.dimensions.iter().any(|dimension| dimension.name == column) {
        return Content::DistinctKey(column.to_owned());
    }
    let place = shape.distinct.iter().position(|known| known.column == column);
    Content::Distinct(place.unwrap_or_else(|| {
        let stage_type = fine.sql_type.clone();
        let (column, collation) = (column.to_owned(), fine.collation.clone());
        shape.distinct.push(DistinctColumn { column, stage_type, collation });
        shape.distinct.len() - 1
    }))
}
