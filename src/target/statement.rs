//! SQL fragments shared by replace, verify and stage.

use std::borrow::Cow;

use crate::model::measure::partial::{ROWS, TAG, value_column};
use crate::model::slice::Slice;
use crate::model::sql::{ident, timestamptz};
use crate::source::reading::read::{self, Form};
use crate::source::reading::shape::Shape;

/// The columns that are written to the table: the bucket or another time, dimensions, fields.
pub(crate) fn columns(shape: &Shape) -> Vec<String> {
    std::iter::once(shape.time_key.to_owned())
        .chain(shape.dimensions.iter().map(|dimension| ident(&dimension.name)))
        .chain(shape.fields.iter().map(|field| ident(&field.name)))
        .collect()
}

/// The columns of the stage table, in the order of a staged [`read::select`].
pub(crate) fn stage_columns(shape: &Shape) -> Vec<String> {
    let values = (0..shape.values.len()).map(value_column);
    std::iter::once("slice_start".to_owned())
        .chain(columns(shape))
        .chain([ROWS.to_owned(), TAG.to_owned()])
        .chain(values)
        .collect()
}

/// The condition that `__n` and `__o` are the same group.
pub(crate) fn same_group(shape: &Shape) -> String {
    let time = shape.time_key;
    let mut terms = vec![format!("__o.{time} = __n.{time}")];
    for dimension in &shape.dimensions {
        let name = ident(&dimension.name);
        terms.push(format!("ARRAY[__o.{name}] = ARRAY[__n.{name}]"));
        if dimension.is_array {
            // ARRAY[NULL::text[]] is empty, like ARRAY['{}'::text[]].
            terms.push(format!("(__o.{name} IS NULL) = (__n.{name} IS NULL)"));
        }
    }
    terms.join(" AND ")
}

/// The condition that the measures of `__n` and `__o` differ.
pub(crate) fn differs(shape: &Shape) -> String {
    let side = |alias: &str| {
        shape
            .fields
            .iter()
            .map(|field| format!("{alias}.{}", ident(&field.name)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    format!("ROW({}) IS DISTINCT FROM ROW({})", side("__o"), side("__n"))
}

/// The groups of `input` as they may be written: an error where a measure is beyond its limit.
pub(crate) fn limited<'i>(shape: &Shape, input: &'i str) -> Cow<'i, str> {
    if shape.fields.iter().all(|field| field.limited.is_none()) {
        return input.into();
    }
    let keys = columns(shape)[..=shape.dimensions.len()].to_vec();
    let fields = shape.fields.iter().map(|field| match &field.limited {
        Some(limited) => format!("{limited} AS {}", ident(&field.name)),
        None => ident(&field.name),
    });
    let all: Vec<_> = keys.into_iter().chain(fields).chain([ROWS.to_owned()]).collect();
    format!("SELECT {} FROM (\n{input}\n) __limited", all.join(", ")).into()
}

/// The slice's final groups, merged from the table `stage`.
pub(crate) fn merged(stage: &str, shape: &Shape, slice: Slice, form: Form) -> String {
    let keys: Vec<String> = columns(shape)[..=shape.dimensions.len()].to_vec();
    let fields = shape
        .fields
        .iter()
        .map(|field| format!("{} AS {}", read::merge(field, form), ident(&field.name)));
    let rows = format!("{} AS {ROWS}", read::merge_rows(shape, form));
    let select: Vec<String> = keys.iter().cloned().chain(fields).chain([rows]).collect();
    // Ignore partials left behind by lost checkpoints.
    let tag = if form == Form::Whole { format!(" AND {TAG} = -1") } else { String::new() };
    format!(
        "SELECT {} FROM {stage} WHERE slice_start = {}{tag} GROUP BY {}",
        select.join(", "),
        timestamptz(slice.start()),
        keys.join(", "),
    )
}
