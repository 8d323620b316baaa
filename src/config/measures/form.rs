//! Measures as the configuration writes them, for messages.

use crate::model::measure::{Kind, Role};

/// The configuration's form of a measure of this kind. A limit is written only where it has a value.
pub(super) fn form(
    kind: &dyn Kind,
    column: &str,
    value: &dyn Fn(&str) -> Option<String>,
) -> String {
    let word = kind.word();
    let choice = kind.choice().map(|(key, value)| format!(", {key} = {value:?}"));
    let parameters = kind.parameters().iter().filter_map(|parameter| {
        let example = Some(parameter.example.to_owned()).filter(|_| parameter.role != Role::Limit);
        let value = value(parameter.key).or(example)?;
        Some(format!(", {} = {value}", parameter.key))
    });
    let rest = choice.into_iter().chain(parameters);
    format!("{{ {word} = {column}{} }}", rest.collect::<String>())
}

/// The form of this kind over an example column.
pub(super) fn example(kind: &dyn Kind) -> String {
    form(kind, "\"column\"", &|_| None)
}
