//! The statements that aggregate a range of the source.
//!
//! A slice that is read by one statement yields its final rows ([`Form::Whole`]). A slice that
//! takes several yields partials ([`Form::Partial`]): the same groups and, for every distinct
//! column, one row per group and value. GROUPING SETS yields both from one scan.

use chrono::{DateTime, Utc};

use super::shape::{Content, Field, Shape};
use crate::governor::Nap;
use crate::rollup::Rollup;
use crate::sql::{ident, table};

/// Column of the number of source rows behind a group.
pub const ROWS: &str = "__rows";

/// Column that identifies the rows of a partial. It is -1 in a whole slice. Otherwise it has a bit
/// for each distinct column, which is 0 only in the rows of that column's values.
pub const TAG: &str = "__tag";

/// Whether a statement covers its whole slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One statement covers the slice, so measures are final.
    Whole,
    /// One of several chunks, whose measures are merged later.
    Partial,
}

/// Column of the values of the distinct column at `place`.
#[must_use]
pub fn value_column(place: usize) -> String {
    format!("__value_{place}")
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
pub fn select_napping(
    rollup: &Rollup,
    shape: &Shape,
    form: Form,
    (slice_start, start, end): (DateTime<Utc>, DateTime<Utc>, DateTime<Utc>),
    staged: bool,
    nap: Option<Nap>,
) -> String {
    let mut columns = vec![format!("{} AS bucket", shape.axis.bucket(slice_start, start, end))];
    for dimension in &shape.dimensions {
        let name = ident(&dimension.name);
        let cast = dimension.cast.as_ref().map_or_else(String::new, |to| format!("::{to}"));
        columns.push(format!("{name}{cast} AS {name}"));
    }
    for field in &shape.fields {
        let expression = aggregate(field, shape, form, staged);
        columns.push(format!("{expression} AS {}", ident(&field.name)));
    }
    columns.push(format!("count(*) AS {ROWS}"));
    // Group by the source's own columns, so that their types and collations decide what is equal.
    let keys = shape.dimensions.iter().map(|dimension| ident(&dimension.name));
    let mut groups = std::iter::once("1".to_owned()).chain(keys).collect::<Vec<_>>().join(", ");
    if staged {
        let values: Vec<String> =
            shape.distinct.iter().map(|distinct| ident(&distinct.column)).collect();
        match form {
            Form::Partial if !values.is_empty() => {
                columns.push(format!("GROUPING({}) AS {TAG}", values.join(", ")));
                groups = grouping_sets(&groups, &values);
            }
            Form::Partial => columns.push(format!("0 AS {TAG}")),
            Form::Whole => columns.push(format!("-1 AS {TAG}")),
        }
        for (place, distinct) in shape.distinct.iter().enumerate() {
            let value = match form {
                Form::Partial => format!("{}::{}", ident(&distinct.column), distinct.stage_type),
                Form::Whole => format!("NULL::{}", distinct.stage_type),
            };
            columns.push(format!("{value} AS {}", value_column(place)));
        }
    }
    let nap = nap.map_or_else(String::new, |nap| format!(" AND {}", nap.condition()));
    format!(
        "SELECT {}\nFROM {}\nWHERE {}{nap}\nGROUP BY {groups}",
        columns.join(", "),
        table(&rollup.from),
        condition(rollup, shape, start, end),
    )
}

/// The condition that selects the rollup's rows in `[start, end)`.
#[must_use]
pub fn condition(
    rollup: &Rollup,
    shape: &Shape,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
) -> String {
    let time = shape.axis.between(start, end);
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

fn aggregate(field: &Field, shape: &Shape, form: Form, staged: bool) -> String {
    let filter = field
        .filter
        .as_ref()
        .map_or_else(String::new, |filter| format!(" FILTER (WHERE (\n{filter}\n))"));
    match &field.content {
        Content::Count(None) => format!("count(*){filter}"),
        Content::Count(Some(column)) => format!("count({}){filter}", ident(column)),
        // A sum of bigints, which merges counts of a finer rollup, is a bigint too.
        Content::Sum { column, exact: false } => {
            format!("(sum({}){filter})::{}", ident(column), field.sql_type)
        }
        Content::Sum { column, exact: true } => {
            let sum = format!("sum({}){filter}", exact(&ident(column)));
            if staged { sum } else { rounded(&sum) }
        }
        Content::Min(column) => format!("min({}){filter}", ident(column)),
        Content::Max(column) => format!("max({}){filter}", ident(column)),
        Content::DistinctKey(column) if staged => format!("count({}){filter}", ident(column)),
        Content::DistinctKey(column) => {
            format!("(count({}){filter} > 0)::int::bigint", ident(column))
        }
        Content::Distinct(place) => {
            let column = ident(&shape.distinct[*place].column);
            match form {
                Form::Whole => format!("count(DISTINCT {column}){filter}"),
                Form::Partial => format!("count(*){filter}"),
            }
        }
    }
}

/// The exact decimal of a floating-point column, which can be summed and merged in any order.
/// PostgreSQL 13 lacks infinite decimals, so each infinite value adds a power of ten beyond all
/// sums of finite ones: 1e400 for infinity, 1e800 for minus infinity. Even 2^63 values of the one
/// sum up to less than half of the other.
fn exact(column: &str) -> String {
    format!(
        "CASE {column} WHEN 'Infinity' THEN 1e400 WHEN '-Infinity' THEN 1e800 \
         ELSE {column}::text::numeric END"
    )
}

/// The floating-point value of a sum of [`exact`] decimals, rounded once. It is infinite beyond the
/// greatest finite value or where an infinity was added, and NaN where NaN or both infinities were
/// added.
fn rounded(sum: &str) -> String {
    // Half a step past the greatest finite value. From here on, values round to infinity.
    const BEYOND: &str = "1.797693134862315807937e308";
    format!(
        "(CASE WHEN {sum} = 'NaN' OR {sum} > 5e799 AND \
         {sum} - div({sum} + 5e799, 1e800) * 1e800 > 5e399 THEN 'NaN' \
         WHEN {sum} > 5e799 OR {sum} <= -{BEYOND} THEN '-Infinity' \
         WHEN {sum} >= {BEYOND} THEN 'Infinity' ELSE ({sum})::double precision END)"
    )
}

/// The expression that merges `field` over the rows of the stage.
#[must_use]
pub fn merge(field: &Field, shape: &Shape, form: Form) -> String {
    let name = ident(&field.name);
    // All bits set: a row of the group itself.
    let all = (1_u64 << shape.distinct.len()) - 1;
    let group_rows = match form {
        Form::Whole => String::new(),
        Form::Partial if shape.distinct.is_empty() => String::new(),
        Form::Partial => format!(" FILTER (WHERE {TAG} = {all})"),
    };
    match &field.content {
        Content::Sum { exact: true, .. } => rounded(&format!("sum({name}){group_rows}")),
        Content::Count(_) | Content::Sum { .. } => {
            format!("(sum({name}){group_rows})::{}", field.sql_type)
        }
        Content::Min(_) => format!("min({name}){group_rows}"),
        Content::Max(_) => format!("max({name}){group_rows}"),
        Content::DistinctKey(_) => format!("(sum({name}){group_rows} > 0)::int::bigint"),
        Content::Distinct(place) => match form {
            Form::Whole => format!("sum({name})::bigint"),
            Form::Partial => {
                // GROUPING's first argument is its highest bit.
                let tag = all & !(1 << (shape.distinct.len() - 1 - place));
                format!(
                    "count(DISTINCT {}) FILTER (WHERE {TAG} = {tag} AND {name} > 0)",
                    value_column(*place)
                )
            }
        },
    }
}

/// The expression of the number of source rows behind a group, over the rows of the stage.
#[must_use]
pub fn merge_rows(shape: &Shape, form: Form) -> String {
    let all = (1_u64 << shape.distinct.len()) - 1;
    match form {
        Form::Partial if !shape.distinct.is_empty() => {
            format!("sum({ROWS}) FILTER (WHERE {TAG} = {all})")
        }
        _ => format!("sum({ROWS})"),
    }
}
