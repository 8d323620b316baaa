//! Reads the columns of a rollup table: `group_by` and `[rollup.measures]`.

use std::collections::HashSet;

use crate::model::hint::Fault;
use crate::model::measure::partial::VALUES_MAX;
use crate::model::measure::{KINDS, Measure};
use crate::model::operand::{GroupKey, Operand};
use crate::model::rollup::Rollup;

use self::merged::merging;
use self::names::{ColumnNames, DIMENSION};
use self::one::measure;
use super::operand::{name_of, named_expression};
use super::predicate;
use super::raw::{Node, Section};

pub(super) use self::merged::read_merged;
pub(crate) use self::names::RESERVED;

mod form;
mod merged;
mod names;
mod one;
#[cfg(test)]
mod tests;

/// Reads the dimensions and the measures.
pub(super) fn read(section: &Section<'_>) -> Option<(Vec<GroupKey>, Vec<Measure>)> {
    let mut columns = ColumnNames::new();
    let dimensions = match section.get("group_by") {
        Some(node) => dimensions(&node, &mut columns),
        None => Some(Vec::new()),
    };
    let measures = section
        .need("measures", r#"add [rollup.measures] with a line such as events = "count""#)
        .and_then(|node| measures(&node, &mut columns, None));
    counted(section, dimensions?, measures?)
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

/// Reads a table of measures. Those of a coarse rollup merge measures of `finer`.
fn measures(
    node: &Node<'_>,
    columns: &mut ColumnNames,
    finer: Option<&Rollup>,
) -> Option<Vec<Measure>> {
    let section = node.section(r#"a table such as { events = "count" }"#)?;
    let entries = section.entries();
    if entries.is_empty() {
        return section
            .wrong(Fault::new(r#"is empty"#).remedy(r#"add a line such as events = "count""#));
    }
    let read = |(name, node): (&str, Node<'_>)| {
        let named = name_of("measure", name, &node);
        let measure = measure(name, &node, KINDS, finer).and_then(|it| match finer {
            Some(finer) => merging(&node, it, finer),
            None => Some(it),
        });
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

/// Reads the optional `where` of a rollup or measure.
pub(super) fn condition(section: &Section<'_>) -> Option<Option<String>> {
    let Some(node) = section.get("where") else { return Some(None) };
    let text = node.string(r#"an SQL condition such as "kind <> 'test'""#)?;
    match predicate::check(text) {
        Ok(()) => Some(Some(text.to_owned())),
        Err(fault) => node.wrong(Fault::of(&fault)),
    }
}
