//! Whether a condition holds for any row, or for every row.

use super::{Columns, Expressions, Field, Input, Kind, Measure};
use crate::model::hint::Fault;
use crate::model::sql::ident;

/// `{ any = "column" }`.
pub(super) const ANY: Flag = Flag { word: "any", aggregate: "bool_or" };

/// `{ every = "column" }`.
pub(super) const EVERY: Flag = Flag { word: "every", aggregate: "bool_and" };

/// One of PostgreSQL's aggregates over booleans, which leave NULL out.
#[derive(Debug)]
pub(super) struct Flag {
    word: &'static str,
    aggregate: &'static str,
}

impl Kind for Flag {
    fn word(&self) -> &'static str {
        self.word
    }

    fn example_column(&self) -> &'static str {
        "is_paid"
    }

    fn typed(&self, measure: &Measure) -> String {
        format!("{}({})", self.aggregate, ident(measure.column_name()))
    }

    fn over_rows(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        let (name, value) = (&input.measure.name, ident(input.column()));
        let expressions = Expressions::of_aggregate(input, self.aggregate, &value, name);
        Ok(Field::new(name, "boolean", expressions).into())
    }

    fn merged_by(&'static self, _own: &Measure, _finer: &str) -> Result<&'static dyn Kind, String> {
        Ok(self)
    }
}
