//! Measures of kinds with parameters in the configuration.

use serde_json::{Value, json};
use toml::de::DeTable;

use super::form::{example, form};
use super::one::measure;
use crate::config::error::Problem;
use crate::config::raw::{Document, Section};
use crate::model::hint::Fault;
use crate::model::measure::{Columns, Form, Input, KINDS, Kind, Measure, Parameter, Role, Subject};

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
            form: Form::Value { check, schema: || true.into() },
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
    let read = measure("m", &node, kinds, None);
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
    let written = form(measure.kind, "\"ms\"", &measure.parameters);
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

#[test]
fn a_choice_tells_kinds_of_one_word_apart_and_a_limit_decides_no_number() {
    let definition = |text: &str| read_among(text, KINDS).unwrap().definition();
    assert_eq!(definition("{ distinct = \"c\" }"), json!(["m", "distinct", "c", null]));
    let exact = json!(["m", "distinct", "c", null, { "merge": "exact" }]);
    assert_eq!(definition("{ distinct = \"c\", merge = \"exact\" }"), exact);
    assert_eq!(definition("{ distinct = \"c\", merge = \"exact\", members_max = 5 }"), exact);
    let limited = read_among("{ distinct = \"c\", merge = \"exact\", members_max = 5 }", KINDS);
    assert_eq!(limited.unwrap().parameters["members_max"], json!(5));
    for (text, problem) in [
        (
            "{ distinct = \"c\", merge = \"exat\" }",
            "m.merge: \"exat\" is unknown; use \"exact\" or \"approximate\"",
        ),
        (
            "{ distinct = \"c\", merge = \"exact\", members_max = 0 }",
            "m.members_max: expected a number of members from 1 to 100000000",
        ),
        ("{ distinct = \"c\", members_max = 5 }", "m.members_max: unknown key; use "),
        ("{ sum = \"c\", merge = \"exact\" }", "m.merge: unknown key; use "),
        ("{ percentiles = \"c\", at = [0.5, 0.5] }", "m.at: is not in ascending order"),
        ("{ percentiles = \"c\", at = [0.12345] }", "m.at: has a share with more than four"),
        ("{ percentiles = \"c\", at = [50] }", "m.at: expected numbers from 0 to 1"),
        ("{ histogram = \"c\", bounds = [5, 1] }", "m.bounds: is not in ascending order"),
        ("{ histogram = \"c\", bounds = [] }", "m.bounds: is empty"),
        ("{ last = \"c\", by = 5 }", "m.by: expected the name of a column"),
        ("{ last = \"c\", by = \"\" }", "m.by: \"\" is empty"),
        ("{ last = \"c\", by = { sql = \"a; b\" } }", "m.by.sql: contains `;`"),
        ("{ last = \"c\", by = { sq = \"a\" } }", "m.by.sq: unknown key; did you mean `sql`?"),
    ] {
        let told = read_among(text, KINDS).unwrap_err();
        assert!(told.starts_with(problem), "{text}: {told}");
    }
}

#[test]
fn what_orders_rows_may_be_an_expression_too() {
    let text = "{ last = \"status\", by = { sql = 'props->>\"at\" -- seen' } }";
    let measure = read_among(text, KINDS).unwrap();
    let sql = json!({ "sql": "props->>\"at\" -- seen" });
    assert_eq!(measure.definition(), json!(["m", "last", "status", null, { "by": sql }]));
    let read: Vec<_> = measure.reads().iter().map(|it| it.sql().map(str::to_owned)).collect();
    assert_eq!(read, [None, Some("props->>\"at\" -- seen".to_owned())]);
    let written = form(measure.kind, "\"status\"", &measure.parameters);
    assert_eq!(read_among(&written, KINDS).unwrap(), measure, "{written}");
}

#[test]
fn a_column_may_be_an_expression_that_is_part_of_the_definition() {
    let measure = read("{ shares = { sql = \"a * b -- both\" }, at = [1] }").unwrap();
    let parts = json!(["m", "shares", { "sql": "a * b -- both" }, null, { "at": [1] }]);
    assert_eq!(measure.definition(), parts);
    for (text, problem) in [
        (
            "{ sql = \"a) + (b\" }",
            "m.shares.sql: closes a `)` that it did not open; balance the parentheses",
        ),
        ("{ sql = \"a; b\" }", "m.shares.sql: contains `;`; write one expression, not statements"),
        ("{ sql = \" \" }", "m.shares.sql: is empty; write an SQL expression"),
        (
            "{ sql = 1 }",
            "m.shares.sql: expected an SQL expression such as \"props->>'plan'\", found an integer",
        ),
        ("{ sq = \"a\" }", "m.shares.sq: unknown key; did you mean `sql`?"),
        ("{}", "m.shares.sql: missing; write { sql = \"price * quantity\" }"),
    ] {
        let text = format!("{{ shares = {text}, at = [1] }}");
        assert_eq!(read(&text).unwrap_err(), problem, "{text}");
    }
}
