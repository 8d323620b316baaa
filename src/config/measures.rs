//! Reads the columns of a rollup table: `group_by` and `[rollup.measures]`.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use crate::model::hint::Fault;
use crate::model::measure::partial::VALUES_MAX;
use crate::model::measure::{KINDS, Kind, Measure, Parameter, Role, Subject};
use crate::model::operand::{GroupKey, Operand};
use crate::model::rollup::Rollup;
use crate::model::text::{listed, nearest, shown};

use self::form::{example, form};
use super::operand::{name_of, named_expression, operand};
use super::predicate;
use super::raw::{Node, Section};

mod form;
#[cfg(test)]
mod tests;

const FORM: &str = r#""count", or a table such as { sum = "amount" }"#;

/// For messages: the column is already used as a dimension.
const DIMENSION: &str = "group_by";

/// The names that no dimension and no measure may have, with their users. PostgreSQL gives each table
/// the first ones.
pub(crate) const RESERVED: [(&str, &str); 8] = [
    ("tableoid", SYSTEM),
    ("xmin", SYSTEM),
    ("cmin", SYSTEM),
    ("xmax", SYSTEM),
    ("cmax", SYSTEM),
    ("ctid", SYSTEM),
    ("bucket", "the column of the bucket's start"),
    ("slice_start", "the stage's key"),
];

const SYSTEM: &str = "a column that PostgreSQL keeps for itself";

/// The used column names of a rollup table, each with its user.
#[derive(Debug)]
pub(super) struct ColumnNames(HashMap<String, &'static str>);

impl ColumnNames {
    fn new() -> Self {
        Self(RESERVED.map(|(name, by)| (name.to_owned(), by)).into())
    }

    /// Takes `column`, or reports at `node` what already uses it.
    fn take(&mut self, node: &Node<'_>, column: &str, by: &'static str) -> Option<()> {
        let remedy = match by {
            DIMENSION => "leave it out, or read from a view in which it has another name",
            _ => "choose another name",
        };
        if column.starts_with("__") {
            return node.wrong(
                Fault::new(format!(
                    "the column {} begins with `__`, as Tallymark's own do",
                    shown(column)
                ))
                .remedy(remedy),
            );
        }
        if let Some(taken) = self.0.get(column) {
            return node.wrong(
                Fault::new(format!("the column {} is already taken by {taken}", shown(column)))
                    .remedy(remedy),
            );
        }
        self.0.insert(column.to_owned(), by);
        Some(())
    }
}

/// Reads the dimensions and the measures.
pub(super) fn read(section: &Section<'_>) -> Option<(Vec<GroupKey>, Vec<Measure>)> {
    let mut columns = ColumnNames::new();
    let dimensions = match section.get("group_by") {
        Some(node) => dimensions(&node, &mut columns),
        None => Some(Vec::new()),
    };
    let measures = section
        .need("measures", r#"add [rollup.measures] with a line such as events = "count""#)
        .and_then(|node| measures(&node, &mut columns, &|_, measure| Some(measure)));
    counted(section, dimensions?, measures?)
}

/// Reads the dimensions and the measures of a rollup that is computed from `finer`.
pub(super) fn read_merged(
    section: &Section<'_>,
    finer: &Rollup,
) -> Option<(Vec<GroupKey>, Vec<Measure>)> {
    let mut columns = ColumnNames::new();
    let dimensions = match section.get("group_by") {
        Some(node) => dimensions(&node, &mut columns).and_then(|it| subset(&node, it, finer)),
        None => Some(Vec::new()),
    };
    let measures = section
        .need("measures", r#"name measures of the finer rollup: measures = ["events"]"#)
        .and_then(|node| {
            if node.is_array() {
                return named(&node, &mut columns, finer);
            }
            measures(&node, &mut columns, &|node, measure| merging(node, measure, finer))
        });
    counted(section, dimensions?, measures?)
}

/// Checks the dimensions against those of the finer rollup.
fn subset(node: &Node<'_>, dimensions: Vec<GroupKey>, finer: &Rollup) -> Option<Vec<GroupKey>> {
    let nodes = node.array("an array of columns")?;
    let is_known = |key: &GroupKey| key.operand.sql().is_none() && finer.has_dimension(&key.name);
    let unknown: Vec<_> = nodes.iter().zip(&dimensions).filter(|(_, key)| !is_known(key)).collect();
    for (node, key) in &unknown {
        if key.operand.sql().is_some() {
            node.wrong::<()>(of_rows(finer, &key.name));
            continue;
        }
        node.wrong::<()>(format!(
            "{} is no dimension of `{}`; {}, or add it there",
            shown(&key.name),
            finer.name,
            match finer.group_by.as_slice() {
                [] => "leave it out".to_owned(),
                some => format!("use {}", listed(some.iter().map(|key| key.name.as_str()))),
            }
        ));
    }
    unknown.is_empty().then_some(dimensions)
}

/// Why a coarse rollup has no expressions. `name` is one that it could read from `finer`.
fn of_rows(finer: &Rollup, name: &str) -> Fault {
    Fault::new(format!(
        "an expression is computed for rows of a table, and `{}` is none",
        finer.name
    ))
    .remedy(format!("write the expression in `{}`, and {} here", finer.name, shown(name)))
}

/// Reads measures given only by name, each of which is merged in its default way.
fn named(node: &Node<'_>, columns: &mut ColumnNames, finer: &Rollup) -> Option<Vec<Measure>> {
    let nodes = node.array("an array of measures")?;
    if nodes.is_empty() {
        return node.wrong(
            Fault::new(r#"is empty"#)
                .remedy(r#"name a measure of the finer rollup, such as "events""#),
        );
    }
    let mut read = |node: Node<'_>| {
        let name = node.string(r#"the name of a measure such as "events""#)?;
        let measure = own_way(&node, name, name, finer)?;
        take(columns, &node, &measure)?;
        Some(measure)
    };
    nodes.into_iter().map(&mut read).collect::<Vec<_>>().into_iter().collect()
}

/// The measure `name` that merges the finer rollup's measure `own`, or a note why that is
/// impossible.
fn own_way(node: &Node<'_>, name: &str, own: &str, finer: &Rollup) -> Option<Measure> {
    let names = || finer.measures.iter().map(|measure| measure.name.as_str());
    let Some(measure) = finer.measures.iter().find(|measure| measure.name == own) else {
        return node.wrong(match nearest(own, names()) {
            Some(near) => Fault::new(format!("{} is no measure of `{}`", shown(own), finer.name))
                .remedy(format!("did you mean `{near}`?")),
            None => Fault::new(format!("{} is no measure of `{}`", shown(own), finer.name))
                .remedy(format!("use {}", listed(names()))),
        });
    };
    match measure.kind.merged_by(measure, &finer.name) {
        Ok(kind) => Some(Measure {
            name: name.to_owned(),
            kind,
            column: Some(Operand::column(own)),
            parameters: measure.parameters.clone(),
            filter: None,
        }),
        Err(problem) => node.wrong(problem),
    }
}

/// Accepts `measure` if it merges its column of the finer rollup correctly.
fn merging(node: &Node<'_>, measure: Measure, finer: &Rollup) -> Option<Measure> {
    if let Some(condition) = node.as_section().and_then(|section| section.get("where")) {
        return condition.wrong(
            Fault::new(format!("rows of `{}` stand for many rows of its source", finer.name))
                .remedy("give it a measure with this condition"),
        );
    }
    let Some(column) = &measure.column else {
        return node.wrong(
            Fault::new(format!(
                "would count the rows of `{}`, not those of its source",
                finer.name
            ))
            .remedy("sum up one of its counts: { sum = \"events\" }"),
        );
    };
    if column.sql().is_some() {
        return node.wrong(of_rows(finer, &measure.name));
    }
    let column = column.name();
    if measure.kind.merges_dimensions() {
        if finer.has_dimension(column) {
            return Some(measure);
        }
        if finer.measures.iter().all(|known| known.name != column) {
            return node.wrong(format!(
                "of `{0}` only the different values of its dimensions can be counted; group it by \
                 {1}, or compute {{ {2} = {1} }} from the source in a rollup with this bucket",
                finer.name,
                shown(column),
                measure.kind.word(),
            ));
        }
    }
    let own = own_way(node, &measure.name, column, finer)?.showing(&measure);
    if own.kind != measure.kind || own.definition() != measure.definition() {
        return node.wrong(
            Fault::new(format!("`{}` does not merge {}", measure.kind.word(), shown(column)))
                .remedy(format!(
                    "write {}",
                    form(own.kind, &shown(column), &|key| own
                        .parameters
                        .get(key)
                        .map(ToString::to_string))
                )),
        );
    }
    // A limit of its own wins.
    Some(if measure.parameters.is_empty() { own } else { measure })
}

/// Takes all columns of a measure.
fn take(columns: &mut ColumnNames, node: &Node<'_>, measure: &Measure) -> Option<()> {
    let names = measure.names();
    let taken: Vec<_> =
        names.iter().map(|name| columns.take(node, name, "another measure")).collect();
    taken.into_iter().collect()
}

/// Checks the number of distinct columns against what one statement can tell apart.
fn counted(
    section: &Section<'_>,
    dimensions: Vec<GroupKey>,
    measures: Vec<Measure>,
) -> Option<(Vec<GroupKey>, Vec<Measure>)> {
    let counting = |measure: &&Measure| {
        let is_dimension = |of: &Operand| dimensions.iter().any(|key| key.operand == *of);
        measure.values_of().is_some_and(|column| !is_dimension(column))
    };
    let counting: Vec<_> = measures.iter().filter(counting).collect();
    let counted: HashSet<_> =
        counting.iter().filter_map(|it| it.values_of()).map(Operand::name).collect();
    if counted.len() > VALUES_MAX {
        let problem = format!(
            "`{}` counts the values of {} columns; {VALUES_MAX} is the most, put the rest \
             into another rollup",
            counting[0].kind.word(),
            counted.len()
        );
        return section.get("measures")?.wrong(problem);
    }
    Some((dimensions, measures))
}

fn dimensions(node: &Node<'_>, columns: &mut ColumnNames) -> Option<Vec<GroupKey>> {
    let read = |node: Node<'_>| {
        let key = match node.as_section() {
            Some(section) => named_expression(&section)?,
            None => {
                GroupKey::column(node.identifier(r#"the name of a column such as "entity_id""#)?)
            }
        };
        columns.take(&node, &key.name, DIMENSION)?;
        Some(key)
    };
    let nodes = node.array(r#"an array of columns such as ["entity_id", "kind"]"#)?;
    // Read all before failing, so that all mistakes are reported.
    nodes.into_iter().map(read).collect::<Vec<_>>().into_iter().collect()
}

/// Reads a table of measures. `check` may refuse one.
fn measures(
    node: &Node<'_>,
    columns: &mut ColumnNames,
    check: &dyn Fn(&Node<'_>, Measure) -> Option<Measure>,
) -> Option<Vec<Measure>> {
    let section = node.section(r#"a table such as { events = "count" }"#)?;
    let entries = section.entries();
    if entries.is_empty() {
        return section
            .wrong(Fault::new(r#"is empty"#).remedy(r#"add a line such as events = "count""#));
    }
    let read = |(name, node): (&str, Node<'_>)| {
        let named = name_of("measure", name, &node);
        let measure = measure(name, &node, KINDS).and_then(|it| check(&node, it));
        let filter = match node.as_section() {
            Some(section) => condition(&section),
            None => Some(None),
        };
        let measure = measure?;
        named?;
        take(columns, &node, &measure)?;
        Some(Measure { filter: filter?, ..measure })
    };
    entries.into_iter().map(read).collect::<Vec<_>>().into_iter().collect()
}

/// Reads the kind and column of the measure `name`, which must be one of `kinds`. The condition is
/// read elsewhere.
fn measure(name: &str, node: &Node<'_>, kinds: &[&'static dyn Kind]) -> Option<Measure> {
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
        ([(_, value)], [kind]) => computed(name, &section, (*kind)?, value),
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
    kind: &'static dyn Kind,
    value: &Node<'_>,
) -> Option<Measure> {
    // Reads all of them before the first failure returns, so that every failure is reported.
    let parameters = kind.parameters().iter();
    let needed = parameters.filter(|it| it.role != Role::Limit || section.get(it.key).is_some());
    let parameters: Vec<_> = needed.map(|it| parameter(section, it)).collect();
    let column = match kind.subject() {
        Subject::Rows(_) if value.as_bool() == Some(true) => None,
        Subject::Rows(otherwise) => return value.wrong(otherwise),
        Subject::Column => Some(operand(value)?),
    };
    let parameters = parameters.into_iter().collect::<Option<Map<_, _>>>()?;
    Some(Measure { parameters, ..of(name, kind, column) })
}

/// Reads one parameter: its key and its value.
fn parameter(section: &Section<'_>, parameter: &Parameter) -> Option<(String, Value)> {
    let Parameter { key, example, check, .. } = parameter;
    let node = section.need(key, &format!("write {key} = {example}"))?;
    let value = node.value();
    match check(&value) {
        Ok(()) => Some(((*key).to_owned(), value)),
        Err(problem) => node.wrong(problem),
    }
}

fn of(name: &str, kind: &'static dyn Kind, column: Option<Operand>) -> Measure {
    let name = name.to_owned();
    Measure { name, kind, column, parameters: Map::new(), filter: None }
}

/// Reads the optional `where` of a rollup or measure.
pub(super) fn condition(section: &Section<'_>) -> Option<Option<String>> {
    let Some(node) = section.get("where") else { return Some(None) };
    let text = node.string(r#"an SQL condition such as "kind <> 'test'""#)?;
    match predicate::check(text) {
        Ok(()) => Some(Some(text.to_owned())),
        Err(fault) => node.wrong(Fault::of(&fault)),
    }
}
