//! The least and the greatest value of a column.

use super::{Columns, Expressions, Field, Input, Kind, Measure};
use crate::model::hint::Fault;
use crate::model::sql::ident;

/// `{ min = "column" }`.
pub(super) const LEAST: Extreme = Extreme { aggregate: "min" };

/// `{ max = "column" }`.
pub(super) const GREATEST: Extreme = Extreme { aggregate: "max" };

/// PostgreSQL's aggregate of the same name.
#[derive(Debug)]
pub(super) struct Extreme {
    aggregate: &'static str,
}

impl Kind for Extreme {
    fn word(&self) -> &'static str {
        self.aggregate
    }

    fn typed(&self, measure: &Measure) -> String {
        format!("{}({})", self.aggregate, ident(measure.column_name()))
    }

    fn over_rows(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        let (name, value) = (&input.measure.name, ident(input.column()));
        let expressions = Expressions::of_aggregate(input, self.aggregate, &value, name);
        let field = Field::new(name, &input.sql_type, expressions);
        Ok(Field { collation: input.order()?, ..field }.into())
    }

    fn merged_by(&'static self, _own: &Measure, _finer: &str) -> Result<&'static dyn Kind, String> {
        Ok(self)
    }
}
