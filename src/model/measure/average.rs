//! The mean of a column, stored as sum and count so that it merges exactly.

use super::{Columns, Generated, Input, Kind, Measure, count, sum};
use crate::model::hint::Fault;
use crate::model::sql::ident;

/// `{ avg = "column" }`.
#[derive(Debug)]
pub(super) struct Average;

impl Kind for Average {
    fn word(&self) -> &'static str {
        "avg"
    }

    fn names(&self, measure: &Measure) -> Vec<String> {
        vec![measure.name.clone(), sum_of(&measure.name), count_of(&measure.name)]
    }

    fn typed(&self, measure: &Measure) -> String {
        sum::aggregate(measure)
    }

    fn over_rows(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        let (name, column) = (&input.measure.name, input.column());
        let sum = sum::field(input, &sum_of(name), column, &input.sql_type);
        let count = count::of_values(input, &count_of(name), column);
        let generated = vec![mean(name, &sum.sql_type)];
        Ok(Columns { fields: vec![sum, count], generated })
    }

    fn merged_by(&'static self, _own: &Measure, _finer: &str) -> Result<&'static dyn Kind, String> {
        Ok(self)
    }

    fn reads_finer(&self, measure: &Measure) -> Vec<String> {
        let column = measure.column_name();
        vec![sum_of(column), count_of(column)]
    }

    fn over_finer(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        let name = &input.measure.name;
        let names = [sum_of(name), count_of(name)];
        let fields: Vec<_> = names
            .iter()
            .zip(&input.columns)
            .map(|(name, finer)| sum::field(input, name, &finer.name, &finer.sql_type))
            .collect();
        let generated = fields.first().map(|sum| mean(name, &sum.sql_type)).into_iter().collect();
        Ok(Columns { fields, generated })
    }
}

fn sum_of(name: &str) -> String {
    format!("{name}_sum")
}

fn count_of(name: &str) -> String {
    format!("{name}_count")
}

/// The column of the mean, which PostgreSQL computes from the other two.
fn mean(name: &str, sum_type: &str) -> Generated {
    let (sum, count) = (ident(&sum_of(name)), ident(&count_of(name)));
    let (sql_type, expression) = match sum_type {
        "bigint" => ("numeric", format!("{sum}::numeric / nullif({count}, 0)")),
        other => (other, format!("{sum} / nullif({count}, 0)")),
    };
    Generated { name: name.to_owned(), sql_type: sql_type.to_owned(), expression, plain: None }
}
