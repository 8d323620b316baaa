//! The table of a finer rollup, which a coarse rollup is computed from. Measures keep their types,
//! because they are merged as partials are.

use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbError, Side, Tx};
use crate::model::hint::Fault;
use crate::model::measure::{Column, Columns, Input, Level, Measure, lay_out};
use crate::model::rollup::{BucketType, Rollup};
use crate::source::reading::axis::{Axis, TimeType};
use crate::source::reading::shape::{Dimension, Shape, ShapeError, catalogue};
use crate::source::{Answer, Servers, Source, of};

/// How slices over a finer rollup are settled: a slice is claimed after its finer slices, which were
/// settled.
const SETTLED_BY: &str = "rollup";

/// The table of a finer rollup, in the target. The worker that replaces a finer slice reopens the
/// coarse one that contains it.
#[derive(Debug)]
pub(crate) struct Finer;

impl Source for Finer {
    fn feeds(&self, rollup: &Rollup) -> bool {
        rollup.finer.is_some()
    }

    fn side(&self) -> Side {
        Side::Target
    }

    fn shape<'a>(
        &'a self,
        servers: Servers<'a>,
        rollup: &'a Rollup,
    ) -> Answer<'a, Shape, ShapeError> {
        Box::pin(async move {
            let begin = servers.target.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name);
            let mut tx = begin.await?;
            let mut columns = found(&mut tx, rollup).await?;
            tx.rollback().await?;
            if lacks(rollup, &columns)
                && let Some(finer) = &rollup.finer
            {
                // Before `init`, use the columns that it will create.
                columns = foreseen(&of(finer).shape(servers, finer).await?);
            }
            shape(rollup, &columns)
        })
    }

    fn settled_by_default(&self) -> &'static str {
        SETTLED_BY
    }

    fn reruns_after_loss(&self) -> Option<&'static str> {
        Some("finer slices may have changed since")
    }

    /// A finer rollup's table has the index of its groups, which begins with the bucket.
    fn assurance(&self, rollup: &Rollup) -> Option<String> {
        let finer = rollup.finer.as_ref()?;
        let of = match rollup.trailing {
            Some(trailing) => format!("the last {trailing} of `{}`", finer.name),
            None => format!("`{}`", finer.name),
        };
        Some(format!("computed from {of}, and again whenever that changes"))
    }
}

/// The columns of the finer rollup's table in the target's catalogue. An empty list means that
/// `init` has not created the table yet.
async fn found(tx: &mut Tx, rollup: &Rollup) -> Result<Vec<Column>, DbError> {
    let columns = catalogue(tx, &rollup.from).await?;
    let columns = columns
        .into_iter()
        .map(|it| Column::of_rollup(&it.name, &it.sql_type, it.collation, it.is_array));
    Ok(columns.collect())
}

/// The columns that the finer rollup's table will have, derived from its shape.
fn foreseen(finer: &Shape) -> Vec<Column> {
    let dimensions = finer
        .dimensions
        .iter()
        .map(|it| Column::of_rollup(&it.name, &it.sql_type, it.collation.clone(), it.is_array));
    let fields = finer
        .fields
        .iter()
        .map(|it| Column::of_rollup(&it.name, &it.sql_type, it.collation.clone(), false));
    dimensions.chain(fields).collect()
}

/// Whether `columns` lacks a column that `rollup` reads.
fn lacks(rollup: &Rollup, columns: &[Column]) -> bool {
    let read = rollup.measures.iter().flat_map(|measure| measure.kind.reads_finer(measure));
    let mut read = rollup.group_by.iter().map(|key| key.name.clone()).chain(read);
    read.any(|name| !columns.iter().any(|column| column.name == name))
}

/// The shape of `rollup` over a finer table with these columns.
fn shape(rollup: &Rollup, columns: &[Column]) -> Result<Shape, ShapeError> {
    let unfit = |problem: Fault| ShapeError::Unfit { rollup: rollup.name.clone(), problem };
    let from = rollup.from.to_string();
    let bucket_as = rollup.finer.as_ref().map(|finer| finer.bucket_as).unwrap_or_default();
    let time = match bucket_as {
        BucketType::Instant => TimeType::Timestamptz,
        BucketType::Date => TimeType::Date,
    };
    let axis = Axis::new(rollup, Ok(time)).map_err(unfit)?;
    let mut dimensions = Vec::with_capacity(rollup.group_by.len());
    for key in &rollup.group_by {
        let column = find(&from, columns, &key.name).map_err(unfit)?;
        dimensions.push(Dimension {
            name: key.name.clone(),
            reads: key.name.clone(),
            sql_type: column.sql_type.clone(),
            collation: column.collation.clone(),
            cast: None,
            is_array: column.is_array,
        });
    }
    let is_dimension =
        |measure: &Measure| measure.column.as_ref().is_some_and(|it| rollup.is_grouped_by(it));
    let inputs = inputs(&from, &rollup.measures, columns, is_dimension).map_err(unfit)?;
    let (Columns { fields, generated }, values) = lay_out(inputs, Level::Finer).map_err(unfit)?;
    let (time_key, changes, fingerprint) = (rollup.time_key(), None, None);
    Ok(Shape { time_key, axis, changes, dimensions, fields, values, generated, fingerprint })
}

/// The columns by which the rows of `rollup`, with this shape, merge into wider ones. A measure whose
/// numbers cannot be merged has none.
///
/// # Errors
/// The columns do not fit each other.
pub(crate) fn merging(rollup: &Rollup, shape: &Shape) -> Result<Columns, Fault> {
    let merged = |measure: &Measure| measure.merged(&measure.name, &rollup.name).ok();
    let measures: Vec<_> = rollup.measures.iter().filter_map(merged).collect();
    Ok(lay_out(inputs(&rollup.name, &measures, &foreseen(shape), |_| false)?, Level::Finer)?.0)
}

/// The inputs of `measures` over the table `from` with these columns.
fn inputs<'a>(
    from: &str,
    measures: &'a [Measure],
    columns: &'a [Column],
    is_dimension: impl Fn(&Measure) -> bool,
) -> Result<Vec<Input<'a>>, Fault> {
    let input = |measure: &'a Measure| {
        let names = measure.kind.reads_finer(measure);
        let columns =
            names.iter().map(|name| find(from, columns, name)).collect::<Result<Vec<_>, _>>()?;
        let sql_type = columns.first().map(|column| column.sql_type.clone()).unwrap_or_default();
        Ok(Input::new(measure, columns, sql_type, true, is_dimension(measure)))
    };
    measures.iter().map(input).collect()
}

/// The column `name` of the table `from`.
fn find<'a>(from: &str, columns: &'a [Column], name: &str) -> Result<&'a Column, Fault> {
    columns.iter().find(|column| column.name == name).ok_or_else(|| {
        let fault = Fault::new(format!("from: {from} has no column `{name}`"));
        fault.remedy("run `tallymark init`")
    })
}
