//! Reads the dimensions and the measures of a rollup that is computed from a finer one.

use super::form::form;
use super::names::ColumnNames;
use super::{counted, dimensions, measures, take};
use crate::config::raw::{Node, Section};
use crate::model::hint::Fault;
use crate::model::measure::Measure;
use crate::model::operand::GroupKey;
use crate::model::rollup::Rollup;
use crate::model::text::{listed, nearest, shown};

/// Reads the dimensions and the measures of a rollup that is computed from `finer`.
pub(in crate::config) fn read_merged(
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
            measures(&node, &mut columns, Some(finer))
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
    match measure.merged(name, &finer.name) {
        Ok(merged) => Some(merged),
        Err(problem) => node.wrong(problem),
    }
}

/// Accepts `measure` if it merges its column of the finer rollup correctly.
pub(super) fn merging(node: &Node<'_>, measure: Measure, finer: &Rollup) -> Option<Measure> {
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
                .remedy(format!("write {}", form(own.kind, &shown(column), &own.parameters))),
        );
    }
    // A limit of its own wins.
    Some(if measure.parameters.is_empty() { own } else { measure })
}
