//! Measures as the configuration writes them, for messages.

use serde_json::{Map, Value};

use crate::model::measure::{Kind, Role};

/// The configuration's form of a measure of this kind. A limit is written only where it is `given`,
/// and any other parameter has its example otherwise.
pub(super) fn form(kind: &dyn Kind, column: &str, given: &Map<String, Value>) -> String {
    let word = kind.word();
    let choice = kind.choice().map(|(key, value)| format!(", {key} = {value:?}"));
    let parameters = kind.parameters().iter().filter_map(|parameter| {
        let example = Some(parameter.example.to_owned()).filter(|_| parameter.role != Role::Limit);
        let value = given.get(parameter.key).map(written).or(example)?;
        Some(format!(", {} = {value}", parameter.key))
    });
    let rest = choice.into_iter().chain(parameters);
    format!("{{ {word} = {column}{} }}", rest.collect::<String>())
}

/// The form of this kind over an example column.
pub(super) fn example(kind: &dyn Kind) -> String {
    form(kind, "\"column\"", &Map::new())
}

/// A parameter's value in TOML, of which JSON differs in its tables.
fn written(value: &Value) -> String {
    match value.get("sql") {
        Some(sql) => format!("{{ sql = {sql} }}"),
        None => value.to_string(),
    }
}
