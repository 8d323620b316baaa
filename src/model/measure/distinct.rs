//! The exact number of distinct values of a column. NULL is not a value.

use super::partial::value_column;
use super::{Columns, Expressions, Field, Input, Kind, Measure};
use crate::model::hint::Fault;
use crate::model::operand::Operand;
use crate::model::sql::ident;
use crate::model::text::shown;

/// `{ distinct = "column" }`.
#[derive(Debug)]
pub(super) struct Distinct;

impl Kind for Distinct {
    fn word(&self) -> &'static str {
        "distinct"
    }

    fn needs_values(&self) -> bool {
        true
    }

    fn over_rows(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        let expressions = match input.place {
            Some(place) => of_values(input, place),
            None => of_dimension(input),
        };
        Ok(Field::new(&input.measure.name, "bigint", expressions).into())
    }

    fn merged_by(&'static self, own: &Measure, finer: &str) -> Result<&'static dyn Kind, String> {
        // An expression is grouped by under a name.
        let (key, named) = match own.column.as_ref().and_then(Operand::sql) {
            None => (shown(own.column_name()), shown(own.column_name())),
            Some(sql) => (format!("{{ value = {} }}", shown(sql)), shown("value")),
        };
        Err(format!(
            "numbers of different values cannot be merged, as a value may occur in several \
             buckets; write merge = \"exact\" or \"approximate\" in `{finer}`, or group it by {key} \
             and write {{ distinct = {named} }} here"
        ))
    }

    fn merges_dimensions(&self) -> bool {
        true
    }
}

/// For a column with staged values. A value counts once, even if several chunks have it.
fn of_values(input: &Input<'_>, place: usize) -> Expressions {
    let (filter, name) = (input.filter(), ident(&input.measure.name));
    let value = ident(input.column());
    let number = match input.columns.first() {
        Some(column) if column.is_small() => of_array(&format!("array_agg({value}){filter}")),
        _ => format!("count(DISTINCT {value}){filter}"),
    };
    Expressions {
        direct: number.clone(),
        whole: number,
        partial: format!("count(*){filter}"),
        from_whole: format!("sum({name})::bigint"),
        from_partials: format!(
            "count(DISTINCT {}) FILTER (WHERE {} AND {name} > 0)",
            value_column(place),
            input.tags.are_of_value(place),
        ),
    }
}

/// The number of different values in the array `all`, an aggregate. Most groups of some rollups have a single row,
/// which needs no query.
fn of_array(all: &str) -> String {
    format!(
        "CASE cardinality({all}) WHEN 1 THEN num_nonnulls(({all})[1])::bigint \
         ELSE (SELECT count(DISTINCT __value) FROM unnest({all}) AS __value) END"
    )
}

/// For a column that is also a dimension: 1, or 0 if it is NULL or no row meets the condition.
fn of_dimension(input: &Input<'_>) -> Expressions {
    let rows = format!("count({}){}", ident(input.column()), input.filter());
    let name = ident(&input.measure.name);
    let merge = |rows: &str| format!("(sum({name}){rows} > 0)::int::bigint");
    Expressions::merged(input, format!("({rows} > 0)::int::bigint"), rows, merge)
}
