//! The exact set of a column's distinct values, which merges, and its size.

use serde_json::{Value, json};

use super::member::{Member, collation, set_of};
use super::{
    Columns, Expressions, Field, Form, Function, Generated, Input, Kind, Measure, Parameter, Role,
};
use crate::model::hint::Fault;
use crate::model::sql::{ident, literal};

/// `{ distinct = "column", merge = "exact" }`. NULL is not a value.
#[derive(Debug)]
pub(super) struct Exact;

/// The most members of a set, unless the measure says another number: 8 MB of integers.
const MEMBERS_MAX: u64 = 1_000_000;

/// The highest such number: an array of so many integers is near PostgreSQL's limit of 1 GB a value.
const MEMBERS_LIMIT: u64 = 100_000_000;

const FUNCTIONS: &[Function] = &[
    Function {
        name: "at_most",
        arguments: "anyarray, bigint, text",
        sql: include_str!("sql/at_most.sql"),
        comment: "A set, or an error where it has more members than allowed",
    },
    Function {
        name: "unique_count",
        arguments: "anyarray",
        sql: include_str!("sql/unique_count_of_array.sql"),
        comment: "For readers: the number of distinct values in a set",
    },
    Function {
        name: "merged_sets",
        arguments: "anyarray",
        sql: include_str!("sql/merged_arrays.sql"),
        comment: "The distinct members of a set",
    },
    Function {
        name: "gathered_sets",
        arguments: "anyarray, anyarray",
        sql: include_str!("sql/gathered_arrays.sql"),
        comment: "Two sets, one behind the other",
    },
    Function {
        name: "merge_sets",
        arguments: "anyarray",
        sql: include_str!("sql/merge_arrays.sql"),
        comment: "For readers: sets as one",
    },
];

impl Kind for Exact {
    fn word(&self) -> &'static str {
        "distinct"
    }

    fn choice(&self) -> Option<(&'static str, &'static str)> {
        Some(("merge", "exact"))
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter {
            key: "members_max",
            example: "1000000",
            role: Role::Limit,
            form: Form::Value {
                check,
                schema: || json!({ "type": "integer", "minimum": 1, "maximum": MEMBERS_LIMIT }),
            },
        }]
    }

    fn functions(&self) -> &'static [Function] {
        FUNCTIONS
    }

    fn names(&self, measure: &Measure) -> Vec<String> {
        vec![measure.name.clone(), set_of(&measure.name)]
    }

    fn typed(&self, measure: &Measure) -> String {
        format!("count(DISTINCT {})", ident(measure.column_name()))
    }

    fn over_rows(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        let Member { sql: value, sql_type } = Member::of(input)?;
        let filter = input.filter_and(&format!("{} IS NOT NULL", ident(input.column())));
        let set = match input.columns.first() {
            Some(column) if column.is_small() => format!(
                "(SELECT array_agg(DISTINCT __value ORDER BY __value) \
                 FROM unnest(array_agg({value}){filter}) AS __value)"
            ),
            _ => format!("array_agg(DISTINCT {value} ORDER BY {value}){filter}"),
        };
        Ok(columns(input, &sql_type, &format!("coalesce({set}, '{{}}')")))
    }

    fn merged_by(&'static self, _own: &Measure, _finer: &str) -> Result<&'static dyn Kind, String> {
        Ok(self)
    }

    fn reads_finer(&self, measure: &Measure) -> Vec<String> {
        vec![set_of(measure.column_name())]
    }

    fn over_finer(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        let member_type = input.sql_type.strip_suffix("[]").unwrap_or(&input.sql_type);
        let set = set_of(input.column());
        Ok(columns(input, member_type, &union(&set, member_type, &input.filter())))
    }
}

/// The columns of the set and of its size. `rows` is the set over the source's rows.
fn columns(input: &Input<'_>, member_type: &str, rows: &str) -> Columns {
    let name = &input.measure.name;
    let set = set_of(name);
    let merge = |rows: &str| union(&set, member_type, rows);
    let expressions = Expressions::merged(input, rows.to_owned(), rows.to_owned(), merge);
    // A slice that one statement reads has one row of a group in the stage.
    let from_whole = format!("max({})", ident(&set));
    let expressions = Expressions { from_whole, ..expressions };
    let given = input.measure.parameters.get("members_max").and_then(Value::as_u64);
    let members_max = given.unwrap_or(MEMBERS_MAX);
    let limited = format!("tallymark.at_most({}, {members_max}, {})", ident(&set), literal(name));
    let field = Field::new(&set, &format!("{member_type}[]"), expressions).or("{}");
    let field = Field { limited: Some(limited), ..field };
    let size = Generated {
        name: name.clone(),
        sql_type: "bigint".to_owned(),
        expression: format!("cardinality({})::bigint", ident(&set)),
        plain: None,
    };
    Columns { fields: vec![field], generated: vec![size] }
}

/// The union of the sets in `column`. A set in a row of its own may have another length than the
/// others, which elements of one array may not.
fn union(column: &str, member_type: &str, rows: &str) -> String {
    let (column, order) = (ident(column), collation(member_type));
    format!(
        "(SELECT coalesce(array_agg(DISTINCT __m{order} ORDER BY __m{order}), '{{}}') \
         FROM unnest(array_agg(ROW({column})){rows}) AS __sets (__set {member_type}[]), \
         unnest(__set) AS __m)"
    )
}

fn check(value: &Value) -> Result<(), String> {
    match value.as_u64() {
        Some(1..=MEMBERS_LIMIT) => Ok(()),
        _ => Err(format!("expected a number of members from 1 to {MEMBERS_LIMIT}")),
    }
}
