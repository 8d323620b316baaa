//! The number of rows.

use super::{Columns, Expressions, Field, Input, Kind, Measure, Subject, sum};
use crate::model::hint::Fault;
use crate::model::sql::ident;

/// `"count"`, or `{ count = true }`.
#[derive(Debug)]
pub(super) struct Count;

impl Kind for Count {
    fn word(&self) -> &'static str {
        "count"
    }

    fn subject(&self) -> Subject {
        Subject::Rows(
            "`count` counts rows and takes only `true`; \
             to count values write { count = true, where = \"column IS NOT NULL\" }",
        )
    }

    fn over_rows(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        Ok(field(input, &input.measure.name, "*").into())
    }

    fn merged_by(&'static self, _own: &Measure, _finer: &str) -> Result<&'static dyn Kind, String> {
        Ok(&sum::Sum)
    }
}

/// The number of rows in which `column` is not NULL.
pub(super) fn of_values(input: &Input<'_>, name: &str, column: &str) -> Field {
    field(input, name, &ident(column))
}

fn field(input: &Input<'_>, name: &str, counted: &str) -> Field {
    let count = format!("count({counted}){}", input.filter());
    let name_in_sql = ident(name);
    let merge = |rows: &str| format!("(sum({name_in_sql}){rows})::bigint");
    Field::new(name, "bigint", Expressions::merged(input, count.clone(), count, merge))
}
