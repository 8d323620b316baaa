//! Reads one measure: its kind, its column and its parameters.

use serde_json::{Map, Value};

use super::form::example;
use crate::config::operand::operand;
use crate::config::raw::{Node, Section};
use crate::model::hint::Fault;
use crate::model::measure::{Form, Kind, Measure, Parameter, Role, Subject};
use crate::model::operand::Operand;
use crate::model::rollup::Rollup;
use crate::model::text::{listed, nearest, shown};

const FORM: &str = r#""count", or a table such as { sum = "amount" }"#;

/// Reads the kind and column of the measure `name`, which must be one of `kinds`. The condition is
/// read elsewhere.
pub(super) fn measure(
    name: &str,
    node: &Node<'_>,
    kinds: &[&'static dyn Kind],
    finer: Option<&Rollup>,
) -> Option<Measure> {
    let words = || kinds.iter().map(|kind| kind.word());
    let kind_of = |word: &str| kinds.iter().copied().find(|kind| kind.word() == word);
    if let Some(word) = node.as_str() {
        return bare(
            name,
            node,
            kind_of(word).ok_or_else(|| nearest(word, words()).and_then(kind_of)),
        );
    }
    let mut section = node.section(FORM)?;
    let entries = section.entries();
    let given: Vec<_> = entries.iter().filter(|(key, _)| kind_of(key).is_some()).collect();
    let chosen: Vec<_> = given.iter().map(|(word, _)| chosen(&section, word, kinds)).collect();
    let parameters = chosen.iter().flatten().flat_map(|kind| kind.parameters());
    let choices = kinds.iter().filter(|kind| given.iter().any(|(word, _)| kind.word() == *word));
    let choices = choices.filter_map(|kind| kind.choice()).map(|(key, _)| key);
    let keys: Vec<_> = words()
        .chain(["where"])
        .chain(choices)
        .chain(parameters.map(|parameter| parameter.key))
        .collect();
    section.only(&keys);
    match (given.as_slice(), chosen.as_slice()) {
        ([(_, value)], [kind]) => computed(name, &section, ((*kind)?, value), finer),
        ([], _) if section.has_typos() => None,
        ([], _) => section.wrong(
            Fault::new("says nothing to compute")
                .remedy(format!("give one of {}", listed(words()))),
        ),
        (several, _) => section.wrong(
            Fault::new(format!("computes {}", listed(several.iter().map(|(word, _)| *word))))
                .remedy("give each a measure of its own"),
        ),
    }
}

/// The kind of this word that the section chooses, or a note that there is none.
fn chosen(
    section: &Section<'_>,
    word: &str,
    kinds: &[&'static dyn Kind],
) -> Option<&'static dyn Kind> {
    let mut same = kinds.iter().copied().filter(|kind| kind.word() == word);
    let choices = same.clone().filter_map(|kind| kind.choice());
    for (key, _) in choices.clone() {
        let Some(node) = section.get(key) else { continue };
        let values = choices.clone().filter(|(other, _)| *other == key).map(|(_, value)| value);
        let values: Vec<_> = values.map(|value| format!("{value:?}")).collect();
        let value = node.string(&values.join(" or "))?;
        let found = same.find(|kind| kind.choice() == Some((key, value)));
        return found.or_else(|| {
            let fault = Fault::new(format!("{} is unknown", shown(value)));
            node.wrong(fault.remedy(format!("use {}", values.join(" or "))))
        });
    }
    same.find(|kind| kind.choice().is_none())
}

/// Reads a measure that is only a word. An unknown word gets the nearest kind as a hint.
fn bare(
    name: &str,
    node: &Node<'_>,
    kind: Result<&'static dyn Kind, Option<&'static dyn Kind>>,
) -> Option<Measure> {
    let word = node.as_str().unwrap_or_default();
    match kind {
        Ok(kind) if kind.subject() == Subject::Column => node.wrong(
            Fault::new(format!(r#""{word}" needs a column"#))
                .remedy(format!(r#"write {}"#, example(kind))),
        ),
        Ok(kind) => Some(of(name, kind, None)),
        Err(None) => node
            .wrong(Fault::new(format!("{} is unknown", shown(word))).remedy(format!("use {FORM}"))),
        Err(Some(near)) => {
            let meant = match near.subject() {
                Subject::Rows(_) => format!("{:?}", near.word()),
                Subject::Column => example(near),
            };
            node.wrong(
                Fault::new(format!("{} is unknown", shown(word)))
                    .remedy(format!("did you mean {meant}?")),
            )
        }
    }
}

/// Reads the column and the parameters of `kind`.
fn computed(
    name: &str,
    section: &Section<'_>,
    (kind, value): (&'static dyn Kind, &Node<'_>),
    finer: Option<&Rollup>,
) -> Option<Measure> {
    let merged = finer.and_then(|finer| {
        finer.measures.iter().find(|measure| Some(&*measure.name) == value.as_str())
    });
    // Reads all of them before the first failure returns, so that every failure is reported.
    let parameters = kind.parameters().iter();
    let needed = parameters.filter(|it| it.role != Role::Limit || section.get(it.key).is_some());
    let parameters: Vec<_> = needed.map(|it| parameter(section, it, merged)).collect();
    let column = match kind.subject() {
        Subject::Rows(_) if value.as_bool() == Some(true) => None,
        Subject::Rows(otherwise) => return value.wrong(otherwise),
        Subject::Column => Some(operand(value)?),
    };
    let parameters = parameters.into_iter().collect::<Option<Map<_, _>>>()?;
    Some(Measure { parameters, ..of(name, kind, column) })
}

/// Reads one parameter: its key and its value. A measure that merges another one has the other's.
fn parameter(
    section: &Section<'_>,
    parameter: &Parameter,
    merged: Option<&Measure>,
) -> Option<(String, Value)> {
    let Parameter { key, example, form, .. } = parameter;
    let own = merged.and_then(|measure| measure.parameters.get(*key)).map(Value::to_string);
    let example = own.as_deref().unwrap_or(example);
    let node = section.need(key, &format!("write {key} = {example}"))?;
    let value = match form {
        Form::Operand => operand(&node)?.definition(),
        Form::Value { check, .. } => {
            let value = node.value();
            match check(&value) {
                Ok(()) => value,
                Err(problem) => return node.wrong(problem),
            }
        }
    };
    Some(((*key).to_owned(), value))
}

fn of(name: &str, kind: &'static dyn Kind, column: Option<Operand>) -> Measure {
    let name = name.to_owned();
    Measure { name, kind, column, parameters: Map::new(), filter: None }
}
