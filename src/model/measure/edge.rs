//! The value of the first or the last row by another column.

use super::{Column, Columns, Expressions, Field, Form, Input, Kind, Measure, Parameter, Role};
use crate::model::hint::Fault;
use crate::model::operand::Operand;
use crate::model::sql::ident;

/// `{ first = "column", by = "at" }`.
pub(super) const FIRST: Edge = Edge { word: "first", by: "min", order: "" };

/// `{ last = "column", by = "at" }`.
pub(super) const LAST: Edge = Edge { word: "last", by: "max", order: " DESC" };

/// One end of the rows in the order of `by`. Rows without it are left out. Among rows of the same
/// `by` the value decides, so that a rerun gives the same result.
#[derive(Debug)]
pub(super) struct Edge {
    word: &'static str,
    by: &'static str,
    order: &'static str,
}

/// The types whose order is the same in every database and at every level of rollups.
const ORDERED: [&str; 12] = [
    "smallint",
    "integer",
    "bigint",
    "numeric",
    "real",
    "double precision",
    "date",
    "time without time zone",
    "timestamp without time zone",
    "timestamp with time zone",
    "oid",
    "pg_lsn",
];

impl Kind for Edge {
    fn word(&self) -> &'static str {
        self.word
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter {
            key: "by",
            example: "\"updated_at\"",
            role: Role::Definition,
            form: Form::Operand,
        }]
    }

    fn names(&self, measure: &Measure) -> Vec<String> {
        vec![measure.name.clone(), by_of(&measure.name)]
    }

    fn reads(&self, measure: &Measure) -> Vec<Operand> {
        let by = measure.parameters.get("by").and_then(Operand::of_definition);
        measure.column.iter().cloned().chain(by).collect()
    }

    /// PostgreSQL must be able to tell the values apart.
    fn typed(&self, measure: &Measure) -> String {
        format!("count(DISTINCT {})", ident(measure.column_name()))
    }

    fn over_rows(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        let name = &input.measure.name;
        let (Some(column), Some(by)) = (input.columns.first(), input.columns.get(1)) else {
            return Err(Fault::new(format!("measures.{name}: lacks its column `by`")));
        };
        let (value_type, by_type) = (value_type(input, column)?, by_type(input, by)?);
        let cast = |column: &Column, to: &str| match to == column.sql_type {
            true => ident(&column.name),
            false => format!("{}::{to}", ident(&column.name)),
        };
        let (value, by) = (cast(column, &value_type), cast(by, &by_type));
        let filter = input.filter_and(&format!("{by} IS NOT NULL"));
        let rows = format!("{}{filter})[1]", self.sorted(&value, &by, &value_type));
        let own = by_of(name);
        let merge = |rows: &str| {
            format!("{}{rows})[1]", self.sorted(&ident(name), &ident(&own), &value_type))
        };
        let expressions = Expressions::merged(input, rows.clone(), rows, merge);
        let collation = column.collation.clone().filter(|_| input.same_database);
        let value = Field { collation, ..Field::new(name, &value_type, expressions) };
        let expressions = Expressions::of_aggregate(input, self.by, &by, &own);
        let by = Field::new(&own, &by_type, expressions);
        Ok(Columns { fields: vec![value, by], generated: vec![] })
    }

    fn merged_by(&'static self, _own: &Measure, _finer: &str) -> Result<&'static dyn Kind, String> {
        Ok(self)
    }

    fn reads_finer(&self, measure: &Measure) -> Vec<String> {
        let column = measure.column_name();
        vec![column.to_owned(), by_of(column)]
    }
}

impl Edge {
    /// The values in order, as an aggregate whose parenthesis is left open for a filter.
    fn sorted(&self, value: &str, by: &str, value_type: &str) -> String {
        let order = self.order;
        // Text in the order of its bytes: databases differ in their collations. It also tells equal
        // values of several forms apart, such as 0 and -0.
        let text = format!("({value})::text COLLATE \"C\"{order} NULLS LAST");
        let tie = match ORDERED.contains(&value_type) {
            true => format!("{value}{order} NULLS LAST, {text}"),
            false => text,
        };
        format!("(array_agg({value} ORDER BY {by}{order} NULLS LAST, {tie})")
    }
}

/// The type of the value's column.
fn value_type(input: &Input<'_>, column: &Column) -> Result<String, Fault> {
    let name = &input.measure.name;
    if column.is_array {
        let fault = Fault::new(format!("measures.{name}: {} is an array", column.in_words()));
        return Err(fault.remedy("cast it to text in a view"));
    }
    input.type_in_target(column).ok_or_else(|| {
        Fault::new(format!(
            "measures.{name}: {} is of type {}, which another database does not know",
            column.in_words(),
            column.sql_type
        ))
        .remedy(column.recast())
    })
}

/// The type of the column of `by`.
fn by_type(input: &Input<'_>, by: &Column) -> Result<String, Fault> {
    match ORDERED.contains(&by.base_type.as_str()) {
        true => Ok(by.base_type.clone()),
        false => {
            let fault = Fault::new(format!(
                "measures.{}: `by` names {} of type {}, whose order may differ between databases",
                input.measure.name,
                by.in_words(),
                by.sql_type
            ));
            Err(fault.remedy("give it a time or a number"))
        }
    }
}

/// The column beside the value.
fn by_of(name: &str) -> String {
    format!("{name}_by")
}
