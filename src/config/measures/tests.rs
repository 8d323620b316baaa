//! Measures of kinds with parameters in the configuration.

use serde_json::{Value, json};
use toml::de::DeTable;

use super::super::error::Problem;
use super::super::raw::{Document, Section};
use super::{Kind, Measure, Parameter, Role, Subject, example, form, measure};
use crate::model::hint::Fault;
use crate::model::measure::{Columns, Input};

/// A kind with a list of shares between 0 and 1 beside its column, and a kind without a column.
#[derive(Debug)]
struct Shares;

#[derive(Debug)]
struct Rows;

fn check(value: &Value) -> Result<(), String> {
    let share = |value: &Value| value.as_f64().is_some_and(|share| (0.0..=1.0).contains(&share));
    let is_right = value.as_array().is_some_and(|shares| shares.iter().all(share));
    if is_right { Ok(()) } else { Err("expected shares from 0 to 1".into()) }
}

impl Kind for Shares {
    fn word(&self) -> &'static str {
        "shares"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const AT: Parameter = Parameter {
            key: "at",
            example: "[0.5, 0.9]",
            role: Role::Definition,
            check,
            schema: || true.into(),
        };
        &[AT]
    }

    fn over_rows(&self, _input: &Input<'_>) -> Result<Columns, Fault> {
        Ok(Columns::default())
    }

    fn merged_by(&'static self, _own: &Measure, _finer: &str) -> Result<&'static dyn Kind, String> {
        Ok(self)
    }
}

impl Kind for Rows {
    fn word(&self) -> &'static str {
        "rows"
    }

    fn subject(&self) -> Subject {
        Subject::Rows("write true")
    }

    fn over_rows(&self, _input: &Input<'_>) -> Result<Columns, Fault> {
        Ok(Columns::default())
    }

    fn merged_by(&'static self, _own: &Measure, _finer: &str) -> Result<&'static dyn Kind, String> {
        Ok(self)
    }
}

/// The measure `m` of this text, or all errors in it.
fn read(text: &str) -> Result<Measure, String> {
    read_among(text, &[&Shares, &Rows])
}

fn read_among(text: &str, kinds: &[&'static dyn Kind]) -> Result<Measure, String> {
    let text = format!("m = {text}");
    let document = Document::new(&text);
    let table = DeTable::parse(&text).unwrap();
    let node = Section::root(&document, table.get_ref()).get("m").unwrap();
    let read = measure("m", &node, kinds);
    let problems = document.into_problems();
    let told = |it: &Problem| match &it.hint {
        Some(hint) => format!("{}: {}; {hint}", it.key, it.message),
        None => format!("{}: {}", it.key, it.message),
    };
    let told: Vec<_> = problems.iter().map(told).collect();
    read.filter(|_| told.is_empty()).ok_or_else(|| told.join("\n"))
}

#[test]
fn parameters_are_kept_as_they_are_written_and_are_part_of_the_definition() {
    let measure = read("{ shares = \"ms\", at = [0.5, 1] }").unwrap();
    assert_eq!(measure.parameters["at"], json!([0.5, 1]));
    assert_eq!(measure.definition(), json!(["m", "shares", "ms", null, { "at": [0.5, 1] }]));
    let written =
        form(measure.kind, "\"ms\"", &|key| measure.parameters.get(key).map(Value::to_string));
    assert_eq!(written, "{ shares = \"ms\", at = [0.5,1] }");
    assert_eq!(read(&written).unwrap(), measure);
    assert_eq!(read(&example(&Shares)).unwrap().parameters["at"], json!([0.5, 0.9]));
    assert_eq!(read("\"rows\"").unwrap().definition(), json!(["m", "rows", null, null]));
}

#[test]
fn mistakes_in_parameters_are_told_with_key_and_remedy() {
    for (text, problem) in [
        ("{ shares = \"ms\" }", "m.at: missing; write at = [0.5, 0.9]"),
        ("{ shares = \"ms\", at = [2] }", "m.at: expected shares from 0 to 1"),
        ("{ shares = \"ms\", att = [1] }", "m.att: unknown key; did you mean `at`?"),
        (
            "{ shares = 5, at = 1 }",
            "m.at: expected shares from 0 to 1\n\
          m.shares: expected the name of a column such as \"amount\", found an integer",
        ),
        ("{ rows = true, at = [1] }", "m.at: unknown key; use `shares`, `rows`, `where`"),
        (
            "\"shares\"",
            "m: \"shares\" needs a column; write { shares = \"column\", at = [0.5, 0.9] }",
        ),
        (
            "\"share\"",
            "m: \"share\" is unknown; did you mean { shares = \"column\", at = [0.5, 0.9] }?",
        ),
    ] {
        assert_eq!(read(text).unwrap_err(), problem, "{text}");
    }
}
