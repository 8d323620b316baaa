//! The number of values between given bounds.

use serde_json::{Value, json};

use super::{Columns, Expressions, Field, Form, Input, Kind, Measure, Parameter, Role};
use crate::model::hint::Fault;
use crate::model::sql::ident;

/// `{ histogram = "column", bounds = [10, 100] }`.
#[derive(Debug)]
pub(super) struct Histogram;

/// Each bound is an aggregate of the statement.
const BOUNDS_MAX: usize = 100;

impl Kind for Histogram {
    fn word(&self) -> &'static str {
        "histogram"
    }

    fn parameters(&self) -> &'static [Parameter] {
        &[Parameter {
            key: "bounds",
            example: "[10, 100, 1000]",
            role: Role::Definition,
            form: Form::Value {
                check,
                schema: || {
                    let number = json!({ "type": "number" });
                    json!({ "type": "array", "minItems": 1, "maxItems": BOUNDS_MAX, "items": number })
                },
            },
        }]
    }

    /// PostgreSQL must be able to compare the column with a number.
    fn typed(&self, measure: &Measure) -> String {
        let column = ident(measure.column_name());
        let bound = bounds(measure).into_iter().next().unwrap_or_default();
        format!("count(*) FILTER (WHERE {column} < {bound})")
    }

    fn over_rows(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        let value = ident(input.column());
        let bounds = bounds(input.measure);
        let below = bounds.first().map(|first| format!("{value} < {first}"));
        let between = bounds.windows(2).map(|pair| {
            let [from, to] = [&pair[0], &pair[1]];
            format!("{value} >= {from} AND {value} < {to}")
        });
        let above = bounds.last().map(|last| format!("{value} >= {last}"));
        let ranges = below.into_iter().chain(between).chain(above);
        let counts = array(ranges.map(|range| format!("count(*){}", input.filter_and(&range))));
        Ok(field(input, &counts).into())
    }

    fn merged_by(&'static self, _own: &Measure, _finer: &str) -> Result<&'static dyn Kind, String> {
        Ok(self)
    }

    fn over_finer(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        let counts = merged(input.measure, input.column(), &input.filter());
        Ok(field(input, &counts).into())
    }
}

/// The column of the counts.
fn field(input: &Input<'_>, counts: &str) -> Field {
    let name = &input.measure.name;
    let merge = |rows: &str| merged(input.measure, name, rows);
    let expressions = Expressions::merged(input, counts.to_owned(), counts.to_owned(), merge);
    let nothing = vec!["0"; bounds(input.measure).len() + 1].join(",");
    Field::new(name, "bigint[]", expressions).or(&format!("{{{nothing}}}"))
}

/// The counts of several rows, added up place by place.
fn merged(measure: &Measure, column: &str, rows: &str) -> String {
    let column = ident(column);
    let places = 1..=bounds(measure).len() + 1;
    array(places.map(|place| format!("coalesce(sum({column}[{place}]){rows}, 0)::bigint")))
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("ARRAY[{}]", items.collect::<Vec<_>>().join(", "))
}

/// The bounds as SQL numbers.
fn bounds(measure: &Measure) -> Vec<String> {
    let bounds = measure.parameters.get("bounds").and_then(Value::as_array);
    bounds.into_iter().flatten().map(|bound| format!("({bound})")).collect()
}

fn check(value: &Value) -> Result<(), String> {
    let bounds: Option<Vec<f64>> =
        value.as_array().and_then(|bounds| bounds.iter().map(Value::as_f64).collect());
    let Some(bounds) = bounds else {
        return Err("expected numbers such as [10, 100, 1000]".to_owned());
    };
    match bounds.len() {
        0 => Err("is empty".to_owned()),
        1..=BOUNDS_MAX if bounds.is_sorted_by(|one, next| one < next) => Ok(()),
        1..=BOUNDS_MAX => Err("is not in ascending order".to_owned()),
        count => Err(format!("has {count} bounds; {BOUNDS_MAX} is the most")),
    }
}
