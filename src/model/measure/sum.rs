//! The sum of a column.

use super::{Columns, Expressions, Field, Input, Kind, Measure};
use crate::model::hint::Fault;
use crate::model::sql::ident;

/// `{ sum = "column" }`.
#[derive(Debug)]
pub(super) struct Sum;

impl Kind for Sum {
    fn word(&self) -> &'static str {
        "sum"
    }

    fn typed(&self, measure: &Measure) -> String {
        aggregate(measure)
    }

    fn over_rows(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        Ok(field(input, &input.measure.name, input.column(), &input.sql_type).into())
    }

    fn merged_by(&'static self, _own: &Measure, _finer: &str) -> Result<&'static dyn Kind, String> {
        Ok(self)
    }
}

/// The sum whose type decides how a column is added up.
pub(super) fn aggregate(measure: &Measure) -> String {
    format!("sum({})", ident(measure.column_name()))
}

/// A column of the sum of `column`, to which PostgreSQL gives the type `sql_type`. A sum of a finer
/// rollup's column keeps that column's type.
pub(super) fn field(input: &Input<'_>, name: &str, column: &str, sql_type: &str) -> Field {
    let (column, filter, merged) = (ident(column), input.filter(), ident(name));
    if !is_float(sql_type) {
        // A sum of bigints, which merges counts of a finer rollup, is a bigint too.
        let sum = format!("(sum({column}){filter})::{sql_type}");
        let merge = |rows: &str| format!("(sum({merged}){rows})::{sql_type}");
        let expressions = Expressions::merged(input, sum.clone(), sum, merge);
        return Field::new(name, sql_type, expressions).or("0");
    }
    let sum = format!("sum({}){filter}", exact(&column));
    let merge = |rows: &str| rounded(&format!("sum({merged}){rows}"));
    let expressions = Expressions::merged(input, rounded(&sum), sum, merge);
    let field = Field::new(name, type_of(sql_type), expressions).or("0");
    // A floating-point sum depends on the order of rows. A decimal sum is exact.
    Field { stage_type: "numeric".to_owned(), ..field }
}

/// The column type for a sum of PostgreSQL's type `sql_type`.
pub(super) fn type_of(sql_type: &str) -> &str {
    if is_float(sql_type) { "double precision" } else { sql_type }
}

fn is_float(sql_type: &str) -> bool {
    matches!(sql_type, "real" | "double precision")
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
