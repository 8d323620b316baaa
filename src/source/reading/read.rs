//! The statements that aggregate a range of the source.
//!
//! If one statement reads a slice, it yields the final rows ([`Form::Whole`]). If several do, they
//! yield partials ([`Form::Partial`]): the same groups, and rows of single values that
//! [`partial`](crate::model::measure::partial) describes.

use chrono::{DateTime, Utc};

use crate::model::measure::Field;
use crate::model::measure::partial::{ROWS, TAG, Tags, value_column};
use crate::model::rollup::Rollup;
use crate::model::sql::ident;
use crate::source;
use crate::source::reading::nap::Nap;
use crate::source::reading::shape::Shape;

/// Whether a statement covers its whole slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One statement covers the slice, so measures are final.
    Whole,
    /// One of several chunks, whose measures are merged later.
    Partial,
}

/// The SELECT for `[start, end)` of the slice that starts at `slice_start`. Its columns are in the
/// order of the rollup table, then [`ROWS`], then for a stage [`TAG`] and the values.
#[must_use]
pub fn select(
    rollup: &Rollup,
    shape: &Shape,
    form: Form,
    bounds: (DateTime<Utc>, DateTime<Utc>, DateTime<Utc>),
    staged: bool,
) -> String {
    select_napping(rollup, shape, form, bounds, staged, None)
}

/// The same, with naps in between.
#[must_use]
pub(crate) fn select_napping(
    rollup: &Rollup,
    shape: &Shape,
    form: Form,
    (slice_start, start, end): (DateTime<Utc>, DateTime<Utc>, DateTime<Utc>),
    staged: bool,
    nap: Option<Nap>,
) -> String {
    // All rows of a window are of one bucket.
    let bucket = match rollup.trailing {
        Some(_) => rollup.time_at(slice_start),
        None => shape.axis.bucket(slice_start, start, end),
    };
    let mut columns = columns(shape, &bucket, form, staged);
    columns.push(format!("count(*) AS {ROWS}"));
    let mut groups = keys(shape);
    if staged {
        let values: Vec<String> = shape.values.iter().map(|value| ident(&value.column)).collect();
        match form {
            Form::Partial if !values.is_empty() => {
                columns.push(format!("GROUPING({}) AS {TAG}", values.join(", ")));
                groups = grouping_sets(&groups, &values);
            }
            Form::Partial => columns.push(format!("0 AS {TAG}")),
            Form::Whole => columns.push(format!("-1 AS {TAG}")),
        }
        for (place, of) in shape.values.iter().enumerate() {
            let value = match form {
                Form::Partial => format!("{}::{}", ident(&of.column), of.stage_type),
                Form::Whole => format!("NULL::{}", of.stage_type),
            };
            columns.push(format!("{value} AS {}", value_column(place)));
        }
    }
    let (rows_nap, groups_nap) = naps(shape, nap);
    format!(
        "SELECT {}\nFROM {}\nWHERE {}{rows_nap}\nGROUP BY {groups}{groups_nap}",
        columns.join(", "),
        source::of(rollup).relation(rollup),
        condition(rollup, shape, start, end),
    )
}

/// The naps after `WHERE` and after `GROUP BY`. Distinct values are counted from sorted rows, which
/// are added up after all of them are read.
fn naps(shape: &Shape, nap: Option<Nap>) -> (String, String) {
    match nap {
        None => (String::new(), String::new()),
        Some(nap) if shape.values.is_empty() => {
            (format!(" AND {}", nap.condition()), String::new())
        }
        Some(nap) => {
            let (rows, groups) = nap.conditions();
            (format!(" AND {rows}"), format!("\nHAVING {groups}"))
        }
    }
}

/// As [`select`], of the final rows only, for SQL expressions: an array of the buckets' starts, and
/// the bounds, which are two of them.
#[must_use]
pub(crate) fn select_tail(
    rollup: &Rollup,
    shape: &Shape,
    starts: &str,
    bounds: (&str, &str),
) -> String {
    let bucket = shape.axis.bucket_of(starts);
    format!(
        "SELECT {}\nFROM {}\nWHERE {}\nGROUP BY {}",
        columns(shape, &bucket, Form::Whole, false).join(", "),
        source::of(rollup).relation(rollup),
        filtered(rollup, shape.axis.between_expressions(bounds)),
        keys(shape),
    )
}

/// The columns of the rollup table.
fn columns(shape: &Shape, bucket: &str, form: Form, staged: bool) -> Vec<String> {
    let mut columns = vec![format!("{bucket} AS bucket")];
    for dimension in &shape.dimensions {
        let (read, name) = (ident(&dimension.reads), ident(&dimension.name));
        let cast = dimension.cast.as_ref().map_or_else(String::new, |to| format!("::{to}"));
        columns.push(format!("{read}{cast} AS {name}"));
    }
    for field in &shape.fields {
        let of = &field.expressions;
        let expression = match (form, staged) {
            (Form::Whole, false) => &of.direct,
            (Form::Whole, true) => &of.whole,
            (Form::Partial, _) => &of.partial,
        };
        columns.push(format!("{expression} AS {}", ident(&field.name)));
    }
    columns
}

/// What a statement groups by: the source's own columns, so that their types and collations decide
/// what is equal.
fn keys(shape: &Shape) -> String {
    let keys = shape.dimensions.iter().map(|dimension| ident(&dimension.reads));
    std::iter::once("1".to_owned()).chain(keys).collect::<Vec<_>>().join(", ")
}

/// The condition that selects the rollup's rows in `[start, end)`.
#[must_use]
pub(crate) fn condition(
    rollup: &Rollup,
    shape: &Shape,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
) -> String {
    filtered(rollup, shape.axis.between(start, end))
}

/// A condition on the time of rows, with the rollup's own.
fn filtered(rollup: &Rollup, time: String) -> String {
    match &rollup.filter {
        // The line break ends a comment at the end of the text.
        Some(filter) => format!("{time} AND (\n{filter}\n)"),
        None => time,
    }
}

fn grouping_sets(keys: &str, values: &[String]) -> String {
    let sets: Vec<String> = std::iter::once(format!("({keys})"))
        .chain(values.iter().map(|value| format!("({keys}, {value})")))
        .collect();
    format!("GROUPING SETS ({})", sets.join(", "))
}

/// The expression that merges `field` over the rows of the stage.
#[must_use]
pub(crate) fn merge(field: &Field, form: Form) -> &str {
    match form {
        Form::Whole => &field.expressions.from_whole,
        Form::Partial => &field.expressions.from_partials,
    }
}

/// The expression of the number of source rows behind a group, over the rows of the stage.
#[must_use]
pub(crate) fn merge_rows(shape: &Shape, form: Form) -> String {
    match form {
        Form::Whole => format!("sum({ROWS})"),
        Form::Partial => format!("sum({ROWS}){}", tags(shape).filter_of_group()),
    }
}

/// The tags that distinguish the stage's rows.
#[must_use]
pub(crate) fn tags(shape: &Shape) -> Tags {
    Tags { values: shape.values.len() }
}
