//! `[[rollup]]`, and its measures.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::forms::{
    boolean, described, duration, identifier, instant, number, optional_duration, refer, table,
    week_start,
};
use crate::config::compose::FINER_DECIDES;
use crate::config::cut::{BUCKET_TYPES, PARTITIONS};
use crate::config::lookup::NAME_MAX as LOOKUP_MAX;
use crate::config::measures::RESERVED;
use crate::config::rollup::{LOOKBACK_ENTRIES_MAX, LOOKBACK_MAX};
use crate::model::measure::{Form, KINDS, Kind, Role, Subject};
use crate::model::rollup::{BucketType, EpochUnit, Late};

/// Bytes of a rollup's or measure's name, as the parser has them.
const NAME_MAX: usize = 48;

/// One rollup: of a table, of a finer rollup, or of a mirror.
pub(super) fn rollup() -> Value {
    let mut rollup =
        table("A table of statistics.", &["name", "from", "slice", "measures"], properties());
    rollup["if"] = json!({
        "properties": { "from": { "type": "object", "required": ["rollup"] } },
        "required": ["from"],
    });
    // The finer rollup decides the rest.
    let mut refused: Map<String, Value> =
        FINER_DECIDES.iter().map(|(key, ..)| ((*key).to_owned(), false.into())).collect();
    refused.insert("live".to_owned(), false.into());
    refused.insert("measures".to_owned(), merged());
    refused.insert("group_by".to_owned(), json!({ "items": { "type": "string" } }));
    rollup["then"] = json!({
        "properties": refused,
        "not": { "properties": { "open": { "const": true } }, "required": ["open", "trailing"] },
    });
    let measures = json!({ "additionalProperties": refer("measure") });
    let measures = with(measures, named_measures());
    // A mirror decides the same, but its rows can be chosen and measured like any others.
    let decided = FINER_DECIDES.iter().filter(|(key, ..)| *key != "where");
    let mut refused: Map<String, Value> =
        decided.map(|(key, ..)| ((*key).to_owned(), false.into())).collect();
    refused.insert("measures".to_owned(), measures.clone());
    refused.insert("trailing".to_owned(), false.into());
    refused.insert("open".to_owned(), false.into());
    refused.insert("live".to_owned(), false.into());
    rollup["else"] = json!({
        "if": { "properties": { "from": { "type": "object" } }, "required": ["from"] },
        "then": { "properties": refused },
        "else": {
            "required": ["time", "start"],
            "properties": { "measures": measures, "trailing": false, "open": false },
        },
    });
    rollup
}

fn properties() -> Value {
    json!({
        "name": {
            "description": "The rollup table's name.",
            "type": "string",
            "pattern": "^[a-z][a-z0-9_]{0,47}$",
        },
        "from": {
            "description": "What is counted.",
            "anyOf": [from_table(), from_rollup(), from_mirror()],
        },
        "time": described(refer("time"), "The column that places a row in time."),
        "start": instant("Where history begins: the start of a slice."),
        "slice": described(refer("width"), "How time is cut into units of work."),
        "trailing": {
            "description": "How far a slice's window reaches back from its end. Of a finer rollup.",
            "type": "string",
            "pattern": "^\\s*[0-9]+\\s*(minute|hour|day|week|month|quarter|year)s?\\s*$",
        },
        "open": boolean(
            "Whether the slice that goes on now is computed, from the finer slices that are done.",
            false,
        ),
        "live": boolean(
            "Whether readers have a view of it that aggregates what is not computed yet.",
            false,
        ),
        "bucket": described(refer("width"), "The result's time resolution. By default the slice."),
        "bucket_as": {
            "description": "The type of the column bucket. A date needs a bucket of a day or more.",
            "enum": BUCKET_TYPES.map(BucketType::word),
            "default": BucketType::default().word(),
        },
        "timezone": described(refer("zone"), "The zone that slices and buckets follow."),
        "week_start": week_start(),
        "grace": duration(
            "How long after a slice's end its rows may still become visible.",
            "2 minutes",
        ),
        "lookback": lookback(),
        "late": late(),
        "where": condition("Which source rows count."),
        "lookup": lookups(),
        "group_by": {
            "description": "The dimensions: columns of the source, and expressions with a name.",
            "type": "array",
            "uniqueItems": true,
            "items": { "anyOf": [with(identifier(), unreserved()), named_expression()] },
        },
        "measures": { "description": "The measures, in the order of the columns." },
        "shrink_guard": number(
            0.0..=1.0,
            "A rerun must find at least this share of the rows that it found before.",
        ),
        "seal_before": instant("Slices that start earlier stay as they are."),
        "keep": optional_duration("How long rows are kept at least; older slices are deleted."),
        "partition_by": {
            "description": "How the table is cut into partitions. By default it is in one piece.",
            "enum": PARTITIONS.map(|(word, _)| word),
        },
        "plan_guard": boolean("Whether a slice fails if its plan would read far more.", true),
        "expect": expect(),
    })
}

/// Limits by the names of measures. That they are measures is left to the parser.
fn expect() -> Value {
    use crate::config::expect::{TOTAL, WEEKDAYS};
    let limits = json!({
        "min": number(TOTAL, "The least sum over all groups of a slice."),
        "max": number(TOTAL, "The greatest."),
        "drop": {
            "description": "How far it may be below the median of earlier slices, such as 50%.",
            "type": "string",
            "pattern": "^\\s*0*[1-9][0-9]?\\s*%\\s*$",
        },
    });
    let mut limits = table("The limits of a count or a sum.", &[], limits);
    limits["minProperties"] = 1.into();
    let weekdays = boolean("Whether source rows are compared with the same weekday's.", true);
    let either = json!({ "anyOf": [weekdays, limits] });
    json!({
        "description": "What the newest slice's numbers are compared with, for notices.",
        "type": "object",
        "minProperties": 1,
        "properties": { WEEKDAYS: either },
        "additionalProperties": limits,
    })
}

fn from_table() -> Value {
    let part = "(\"([^\"\\u0000]|\"\")+\"|[^\".\\s\\u0000]|[^\".\\s\\u0000][^\".\\u0000]*[^\".\\s\\u0000])";
    json!({
        "description": "A table or view: schema.name, or name.",
        "type": "string",
        "pattern": format!("^{part}(\\.{part})?$"),
    })
}

/// Tables whose columns stand beside a row. That a name is used is left to the parser.
fn lookups() -> Value {
    json!({
        "description": "Tables whose columns expressions and conditions read as name.column.",
        "type": "array",
        "items": {
            "description": "A table under a name, and the equation of its unique key.",
            "type": "object",
            "required": ["on"],
            "minProperties": 2,
            "maxProperties": 2,
            "propertyNames": { "pattern": format!("^[a-z][a-z0-9_]{{0,{}}}$", LOOKUP_MAX - 1) },
            "properties": {
                "on": { "description": "account.id = account_id", "type": "string" },
            },
            "additionalProperties": from_table(),
        },
    })
}

fn from_rollup() -> Value {
    let name = json!({ "description": "Its name.", "type": "string" });
    table("A finer rollup of this file.", &["rollup"], json!({ "rollup": name }))
}

fn from_mirror() -> Value {
    let name = json!({ "description": "Its name.", "type": "string" });
    table("A mirror of this file.", &["mirror"], json!({ "mirror": name }))
}

/// A column with a time.
pub(super) fn time() -> Value {
    let units = [EpochUnit::Seconds, EpochUnit::Milliseconds].map(EpochUnit::word);
    let properties = json!({
        "column": identifier(),
        "zone": described(refer("zone"), "The zone of a timestamp without one. By default UTC."),
        "unit": { "description": "What an integer counts since 1970.", "enum": units },
    });
    let mut table = table("A column and how it is read.", &["column"], properties);
    // An integer has no zone.
    table["not"] = json!({ "required": ["zone", "unit"] });
    json!({ "anyOf": [identifier(), table] })
}

fn late() -> Value {
    let words = [Late::Grace, Late::Clock, Late::Capture].map(|late| late.word().to_owned());
    json!({
        "description": "How changes to slices that are already counted are noticed.",
        "anyOf": [{ "enum": words }, { "type": "object", "allOf": [refer("time")] }],
    })
}

fn lookback() -> Value {
    json!({
        "description": "A slice runs again when the slice this many places later can be read.",
        "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": LOOKBACK_MAX },
            {
                "type": "array",
                "minItems": 1,
                "maxItems": LOOKBACK_ENTRIES_MAX,
                "uniqueItems": true,
                "items": { "type": "integer", "minimum": 1, "maximum": LOOKBACK_MAX },
            },
        ],
    })
}

/// A condition or an expression. That the text is one piece of SQL is left to the parser.
fn condition(description: &str) -> Value {
    json!({ "description": description, "type": "string", "pattern": "[^ \\t\\n\\r\\f]" })
}

/// A dimension that is an expression.
fn named_expression() -> Value {
    json!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 1,
        "propertyNames": name(),
        "additionalProperties": condition("SQL over the columns of a row."),
    })
}

/// A column, or an expression.
fn operand() -> Value {
    let sql = json!({ "sql": condition("SQL over the columns of a row.") });
    json!({ "anyOf": [identifier(), table("An expression.", &["sql"], sql)] })
}

/// Names that columns of a rollup table may have.
pub(super) fn unreserved() -> Value {
    json!({ "not": { "anyOf": [{ "enum": RESERVED.map(|(name, _)| name) }, { "pattern": "^__" }] } })
}

/// The name of a measure.
fn name() -> Value {
    let form = json!({ "type": "string", "maxLength": NAME_MAX, "pattern": "^[^\\u0000]+$" });
    with(form, unreserved())
}

/// A table of measures, whatever each of them is.
fn named_measures() -> Value {
    json!({ "type": "object", "minProperties": 1, "propertyNames": name() })
}

/// The measures of a rollup that is computed from a finer one. Rows are counted by summing counts,
/// and conditions and expressions belong to the finer rollup.
fn merged() -> Value {
    let subject = |kind: &&dyn Kind| match kind.subject() {
        Subject::Rows(_) => (kind.word().to_owned(), false.into()),
        Subject::Column => (kind.word().to_owned(), json!({ "type": "string" })),
    };
    let words: Map<String, Value> = KINDS.iter().map(subject).chain([where_refused()]).collect();
    let measure = json!({ "type": "object", "allOf": [refer("measure")], "properties": words });
    let of_table = with(json!({ "additionalProperties": measure }), named_measures());
    let by_name = json!({ "type": "array", "minItems": 1, "uniqueItems": true, "items": name() });
    json!({ "anyOf": [of_table, by_name] })
}

fn where_refused() -> (String, Value) {
    ("where".to_owned(), false.into())
}

/// One measure: the word of a kind that counts rows, or a table with a kind and what it takes.
pub(super) fn measure() -> Value {
    let is_alone = |kind: &&&dyn Kind| matches!(kind.subject(), Subject::Rows(_));
    let words: Vec<&str> = KINDS.iter().filter(is_alone).map(|kind| kind.word()).collect();
    let mut properties = Map::new();
    properties.insert("where".to_owned(), condition("Which of the rows count here."));
    let mut users: Map<String, Value> = Map::new();
    for kind in KINDS {
        let subject = match kind.subject() {
            Subject::Rows(_) => json!({ "const": true }),
            Subject::Column => described(operand(), "The column, or { sql = … }."),
        };
        properties.insert(kind.word().to_owned(), subject);
        let parameters = kind.parameters().iter().map(|it| match it.form {
            Form::Operand => (it.key, operand()),
            Form::Value { schema, .. } => (it.key, schema()),
        });
        let choice = kind.choice().map(|(key, _)| (key, choices(key)));
        for (key, form) in parameters.chain(choice) {
            properties.insert(key.to_owned(), form);
            let users = users.entry(key).or_insert_with(|| json!({ "anyOf": [] }));
            if let Some(users) = users["anyOf"].as_array_mut() {
                users.push(form_of(*kind));
            }
        }
    }
    let all: BTreeSet<&str> = KINDS.iter().map(|kind| kind.word()).collect();
    for word in &all {
        let same = KINDS.iter().filter(|kind| kind.word() == *word);
        let forms: Vec<Value> = same.map(|kind| form_of(*kind)).collect();
        if forms != [json!({ "required": [word] })] {
            users.insert((*word).to_owned(), json!({ "anyOf": forms }));
        }
    }
    let forms: Vec<Value> = all.iter().map(|word| json!({ "required": [word] })).collect();
    let mut given = table("A kind of measure and what it takes.", &[], properties.into());
    given["oneOf"] = forms.into();
    given["dependencies"] = users.into();
    json!({ "anyOf": [{ "enum": words }, given] })
}

/// What tells a measure of this kind from those of the others.
fn form_of(kind: &dyn Kind) -> Value {
    let parameters = kind.parameters().iter().filter(|it| it.role != Role::Limit);
    let mut required: Vec<&str> =
        std::iter::once(kind.word()).chain(parameters.map(|it| it.key)).collect();
    let Some((key, value)) = kind.choice() else {
        let same = KINDS.iter().filter(|other| other.word() == kind.word());
        let others: Vec<Value> = same
            .filter_map(|other| other.choice())
            .map(|(key, _)| json!({ "required": [key] }))
            .collect();
        return match others.is_empty() {
            true => json!({ "required": required }),
            false => json!({ "required": required, "not": { "anyOf": others } }),
        };
    };
    required.push(key);
    json!({ "required": required, "properties": { key: { "const": value } } })
}

/// The values of `key` that choose a kind.
fn choices(key: &str) -> Value {
    let choices = KINDS.iter().filter_map(|kind| kind.choice());
    let values = choices.filter(|(other, _)| *other == key).map(|(_, value)| value);
    json!({ "enum": values.collect::<Vec<_>>() })
}

/// Both objects in one.
pub(super) fn with(form: Value, other: Value) -> Value {
    let (Value::Object(mut form), Value::Object(other)) = (form, other) else { return Value::Null };
    form.extend(other);
    form.into()
}
