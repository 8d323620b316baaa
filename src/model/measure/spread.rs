//! The standard deviation and the variance of a column, stored as count, sum and sum of squares, so
//! that they merge exactly.

use super::{Columns, Expressions, Field, Generated, Input, Kind, Measure, count, sum};
use crate::model::hint::Fault;
use crate::model::sql::ident;

/// `{ stddev = "column" }`.
pub(super) const STDDEV: Spread = Spread { word: "stddev" };

/// `{ variance = "column" }`.
pub(super) const VARIANCE: Spread = Spread { word: "variance" };

/// PostgreSQL's aggregate of the same name, of a sample: NULL for fewer than two values.
#[derive(Debug)]
pub(super) struct Spread {
    word: &'static str,
}

impl Kind for Spread {
    fn word(&self) -> &'static str {
        self.word
    }

    fn names(&self, measure: &Measure) -> Vec<String> {
        std::iter::once(measure.name.clone()).chain(parts(&measure.name)).collect()
    }

    fn typed(&self, measure: &Measure) -> String {
        format!("{}({})", self.word, ident(measure.column_name()))
    }

    fn over_rows(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        let name = &input.measure.name;
        let [sum, squares, count] = parts(name);
        let value = ident(input.column());
        let column_type = input.columns.first().map_or("", |column| column.base_type.as_str());
        let (added, squared) = match (column_type, input.sql_type.as_str()) {
            // PostgreSQL adds bigints up exactly, and a square of a smaller integer is one.
            ("smallint" | "integer", _) => (value.clone(), format!("{value}::bigint * {value}")),
            (_, "double precision") => {
                let exact = exact(&value);
                (exact.clone(), format!("{exact} * {exact}"))
            }
            _ => (format!("{value}::numeric"), format!("{value}::numeric * {value}")),
        };
        let added = total(input, &sum, &added);
        let squared = total(input, &squares, &squared);
        let counted = count::of_values(input, &count, input.column());
        Ok(Columns { fields: vec![added, squared, counted], generated: vec![self.result(name)] })
    }

    fn merged_by(&'static self, _own: &Measure, _finer: &str) -> Result<&'static dyn Kind, String> {
        Ok(self)
    }

    fn reads_finer(&self, measure: &Measure) -> Vec<String> {
        parts(measure.column_name()).into()
    }

    fn over_finer(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        let name = &input.measure.name;
        let names = parts(name);
        let parts = names.iter().zip(&input.columns);
        let fields =
            parts.map(|(name, finer)| sum::field(input, name, &finer.name, &finer.sql_type));
        let fields = fields.collect();
        Ok(Columns { fields, generated: vec![self.result(name)] })
    }
}

impl Spread {
    /// The column of the result, which PostgreSQL computes from the parts.
    fn result(&self, name: &str) -> Generated {
        let [sum, squares, count] = parts(name).map(|part| ident(&part));
        // In exact arithmetic the difference is never negative. NaN is greater than 0.
        let variance = format!(
            "greatest({count} * {squares} - {sum} * {sum}, 0) / ({count}::numeric * ({count} - 1))"
        );
        let value = if self.word == "stddev" { format!("sqrt({variance})") } else { variance };
        Generated {
            name: name.to_owned(),
            sql_type: "numeric".to_owned(),
            expression: format!("CASE WHEN {count} > 1 THEN {value} END"),
            plain: None,
        }
    }
}

/// The columns of the sum, of the sum of squares, and of the count.
fn parts(name: &str) -> [String; 3] {
    ["sum", "squares", "count"].map(|part| format!("{name}_{part}"))
}

/// A column of the exact sum of `value`.
fn total(input: &Input<'_>, name: &str, value: &str) -> Field {
    let sum = format!("(sum({value}){})::numeric", input.filter());
    let merge = |rows: &str| format!("sum({}){rows}", ident(name));
    Field::new(name, "numeric", Expressions::merged(input, sum.clone(), sum, merge))
}

/// The exact decimal of a floating-point value. A value without one makes the result NaN, as it does
/// for PostgreSQL.
fn exact(column: &str) -> String {
    format!(
        "CASE WHEN {column} IN ('Infinity', '-Infinity') THEN 'NaN'::numeric \
         ELSE {column}::text::numeric END"
    )
}
