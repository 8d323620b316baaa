//! The shape of a coarse rollup, whose source is a finer rollup's table. Measures keep their types,
//! because they are merged as partials are.

use crate::clients::db::{DbError, Tx};
use crate::model::measure::{Column, Columns, Input, Level, lay_out};
use crate::model::rollup::Rollup;
use crate::source::reading::axis::{Axis, TimeType};
use crate::source::reading::shape::{Dimension, Shape, ShapeError, catalogue};

/// The columns of the finer rollup's table in the target's catalogue. An empty list means that
/// `init` has not created the table yet.
///
/// # Errors
/// The target cannot be read.
pub async fn found(tx: &mut Tx, rollup: &Rollup) -> Result<Vec<Column>, DbError> {
    let columns = catalogue(tx, &rollup.from).await?;
    let columns = columns
        .into_iter()
        .map(|it| Column::of_rollup(&it.name, &it.sql_type, it.collation, it.is_array));
    Ok(columns.collect())
}

/// The columns that the finer rollup's table will have, derived from its shape.
#[must_use]
pub fn foreseen(fine: &Shape) -> Vec<Column> {
    let dimensions = fine
        .dimensions
        .iter()
        .map(|it| Column::of_rollup(&it.name, &it.sql_type, it.collation.clone(), it.is_array));
    let fields = fine
        .fields
        .iter()
        .map(|it| Column::of_rollup(&it.name, &it.sql_type, it.collation.clone(), false));
    dimensions.chain(fields).collect()
}

/// Whether `columns` lacks a column that `rollup` reads.
#[must_use]
pub fn lacks(rollup: &Rollup, columns: &[Column]) -> bool {
    let read = rollup.measures.iter().flat_map(|measure| measure.kind.reads_finer(measure));
    let mut read = rollup.group_by.iter().cloned().chain(read);
    read.any(|name| !columns.iter().any(|column| column.name == name))
}

/// The shape of `rollup` over a finer table with these columns.
///
/// # Errors
/// A column is missing.
pub fn shape(rollup: &Rollup, columns: &[Column]) -> Result<Shape, ShapeError> {
    let unfit = |problem: String| ShapeError::Unfit { rollup: rollup.name.clone(), problem };
    let find = |name: &str| {
        columns.iter().find(|column| column.name == name).ok_or_else(|| {
            unfit(format!("from: {} has no column `{name}`; run `tallymark init`", rollup.from))
        })
    };
    let axis = Axis::new(rollup, Ok(TimeType::Timestamptz)).map_err(unfit)?;
    let mut dimensions = Vec::with_capacity(rollup.group_by.len());
    for name in &rollup.group_by {
        let column = find(name)?;
        dimensions.push(Dimension {
            name: name.clone(),
            sql_type: column.sql_type.clone(),
            collation: column.collation.clone(),
            cast: None,
            is_array: column.is_array,
        });
    }
    let mut inputs = Vec::with_capacity(rollup.measures.len());
    for measure in &rollup.measures {
        let names = measure.kind.reads_finer(measure);
        let columns = names.iter().map(|name| find(name)).collect::<Result<Vec<_>, _>>()?;
        let sql_type = columns.first().map(|column| column.sql_type.clone()).unwrap_or_default();
        let is_dimension = measure.column.as_ref().is_some_and(|it| rollup.group_by.contains(it));
        inputs.push(Input::new(measure, columns, sql_type, true, is_dimension));
    }
    let (Columns { fields, generated }, values) = lay_out(inputs, Level::Finer).map_err(unfit)?;
    Ok(Shape { axis, changes: None, dimensions, fields, values, generated, fingerprint: None })
}
