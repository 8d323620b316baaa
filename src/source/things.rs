//! The things of a Bubble app, which a mirror keeps in the target. The app aggregates nothing, so
//! its slices are read page by page (`work::slice_run::pages`).

use crate::clients::bubble::{App, AppError, FieldType, ThingSearch};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, Side};
use crate::model::clock::LAST;
use crate::model::hint::Fault;
use crate::model::measure::{Column, Expressions, Field};
use crate::model::rollup::mirror::{CREATED_AT, ID, MODIFIED_AT, Mirror};
use crate::model::rollup::{Rollup, TableName};
use crate::source::reading::axis::{Axis, TimeType};
use crate::source::reading::shape::{Dimension, Shape, ShapeError, catalogue};
use crate::source::{Answer, Servers, Source};

/// How slices of a mirror are settled: the app's own clock has passed the grace, and the app counts
/// as many things as were read.
pub(crate) const SETTLED_BY: &str = "count";

/// The things of one type. Before `init` the app tells the types of their fields. Afterwards the
/// mirror's table has them.
#[derive(Debug)]
pub(crate) struct Things;

impl Source for Things {
    fn feeds(&self, rollup: &Rollup) -> bool {
        rollup.mirror.is_some()
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
            let unfit = |problem: Fault| ShapeError::Unfit { rollup: rollup.name.clone(), problem };
            let (Some(mirror), Some(app)) = (&rollup.mirror, servers.app) else {
                let fault = Fault::new("a mirror needs the app that it keeps things of");
                return Err(unfit(fault.remedy("write [source] bubble = { app = … }")));
            };
            let begin = servers.target.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name);
            let mut tx = begin.await?;
            let table =
                TableName { schema: Some(servers.schema.to_owned()), name: rollup.name.clone() };
            let columns = catalogue(&mut tx, &table).await?;
            tx.rollback().await?;
            let types = match known(mirror, &columns) {
                Some(types) => types,
                None => {
                    asked(app, rollup, mirror).await.map_err(|error| unfit(Fault::of(&error)))?
                }
            };
            let axis = Axis::new(rollup, Ok(TimeType::Timestamptz)).map_err(unfit)?;
            Ok(shape(axis, mirror, &types))
        })
    }

    fn settled_by_default(&self) -> &'static str {
        SETTLED_BY
    }

    fn assurance(&self, rollup: &Rollup) -> Option<String> {
        let mirror = rollup.mirror.as_ref()?;
        Some(format!(
            "keeps the type `{}` of {}, branch `{}`; each slice is proved complete by the app's own \
             count",
            mirror.thing, mirror.app, mirror.branch
        ))
    }
}

/// The types of the fields as the mirror's table has them. `None`: `init` has yet to make one.
fn known(mirror: &Mirror, columns: &[Column]) -> Option<Vec<FieldType>> {
    let known = |name: &String| {
        let column = columns.iter().find(|column| column.name == *name)?;
        FieldType::of_column(&column.sql_type)
    };
    (!columns.is_empty()).then(|| mirror.fields.iter().map(known).collect())?
}

/// The types of the fields as the app tells them.
async fn asked(app: &App, rollup: &Rollup, mirror: &Mirror) -> Result<Vec<FieldType>, AppError> {
    let meta = match app.meta().await {
        Ok((meta, _)) => meta,
        // It hides its description. `init` pays one page to see values.
        Err(AppError::Refused(_)) => {
            let search = ThingSearch::page(&mirror.thing, rollup.start, LAST, 0);
            return app.find(&search).await?.types_of(&mirror.fields);
        }
        Err(error) => return Err(error),
    };
    meta.fields_in(app.branch(), &mirror.thing, &mirror.fields)
}

/// The shape of a mirror's table: the ID is its key, and all else a value.
fn shape(axis: Axis, mirror: &Mirror, types: &[FieldType]) -> Shape {
    let id = Dimension {
        name: ID.to_owned(),
        reads: ID.to_owned(),
        sql_type: FieldType::Text.sql_type().to_owned(),
        collation: None,
        cast: None,
        is_array: false,
    };
    let own = (MODIFIED_AT, FieldType::Date);
    let fields = mirror.fields.iter().map(String::as_str).zip(types.iter().copied());
    let fields = std::iter::once(own).chain(fields).map(|(name, kind)| value(name, kind));
    Shape {
        time_key: CREATED_AT,
        axis,
        changes: None,
        dimensions: vec![id],
        fields: fields.collect(),
        values: Vec::new(),
        generated: Vec::new(),
        fingerprint: None,
    }
}

/// A column that is filled from a page and never aggregated.
fn value(name: &str, kind: FieldType) -> Field {
    let none = String::new;
    Field {
        name: name.to_owned(),
        sql_type: kind.sql_type().to_owned(),
        stage_type: kind.sql_type().to_owned(),
        limited: None,
        empty: None,
        collation: None,
        expressions: Expressions {
            direct: none(),
            whole: none(),
            partial: none(),
            from_whole: none(),
            from_partials: none(),
        },
    }
}

/// The columns of a mirror's table and their types, in their order.
#[must_use]
pub(crate) fn columns(shape: &Shape) -> Vec<(&str, &str)> {
    let id = shape.dimensions.iter().map(|it| (it.name.as_str(), it.sql_type.as_str()));
    let created = (CREATED_AT, FieldType::Date.sql_type());
    let fields = shape.fields.iter().map(|it| (it.name.as_str(), it.sql_type.as_str()));
    id.chain([created]).chain(fields).collect()
}
