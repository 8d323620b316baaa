//! Reads the columns of a rollup table: `group_by` and `[rollup.measures]`.

use std::collections::{HashMap, HashSet};

use crate::rollup::{Aggregate, Measure, Rollup};
use crate::text::{listed, nearest, shown};

use super::predicate;
use super::raw::{Node, Section};

const AGGREGATES: [&str; 6] = ["count", "sum", "min", "max", "avg", "distinct"];
const FORM: &str = r#""count", or a table such as { sum = "amount" }"#;

/// What takes a column named in `group_by`.
const DIMENSION: &str = "group_by";

/// The columns of a rollup table that are taken, and by what.
#[derive(Debug)]
pub(super) struct Columns(HashMap<String, &'static str>);

impl Columns {
    fn new() -> Self {
        // PostgreSQL gives each table these; a column may not be called so.
        let system = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"]
            .map(|name| (name.to_owned(), "a column that PostgreSQL keeps for itself"));
        let own =
            [("bucket", "the column of the bucket's start"), ("slice_start", "the stage's key")]
                .map(|(name, by)| (name.to_owned(), by));
        Self(system.into_iter().chain(own).collect())
    }

    /// Takes `column`, or notes at `node` by what it is taken already.
    fn take(&mut self, node: &Node<'_>, column: &str, by: &'static str) -> Option<()> {
        let remedy = match by {
            DIMENSION => "leave it out, or read from a view in which it has another name",
            _ => "choose another name",
        };
        if column.starts_with("__") {
            return node.wrong(format!(
                "the column {} begins with `__`, as Tallymark's own do; {remedy}",
                shown(column)
            ));
        }
        if let Some(taken) = self.0.get(column) {
            return node.wrong(format!(
                "the column {} is already taken by {taken}; {remedy}",
                shown(column)
            ));
        }
        self.0.insert(column.to_owned(), by);
        Some(())
    }
}

/// Reads the dimensions and the measures.
pub(super) fn read(section: &Section<'_>) -> Option<(Vec<String>, Vec<Measure>)> {
    let mut columns = Columns::new();
    let dimensions = match section.get("group_by") {
        Some(node) => dimensions(&node, &mut columns),
        None => Some(Vec::new()),
    };
    let measures = section
        .need("measures", r#"add [rollup.measures] with a line such as events = "count""#)
        .and_then(|node| measures(&node, &mut columns, &|_, aggregate| Some(aggregate)));
    counted(section, dimensions?, measures?)
}

/// Reads the dimensions and the measures of a rollup that is computed from `fine`.
pub(super) fn read_merged(
    section: &Section<'_>,
    fine: &Rollup,
) -> Option<(Vec<String>, Vec<Measure>)> {
    let mut columns = Columns::new();
    let dimensions = match section.get("group_by") {
        Some(node) => dimensions(&node, &mut columns).and_then(|it| subset(&node, it, fine)),
        None => Some(Vec::new()),
    };
    let measures = section
        .need("measures", r#"name measures of the finer rollup: measures = ["events"]"#)
        .and_then(|node| {
            if node.is_array() {
                return named(&node, &mut columns, fine);
            }
            measures(&node, &mut columns, &|node, aggregate| merging(node, aggregate, fine))
        });
    counted(section, dimensions?, measures?)
}

/// Holds the dimensions against those of the finer rollup.
fn subset(node: &Node<'_>, dimensions: Vec<String>, fine: &Rollup) -> Option<Vec<String>> {
    let nodes = node.array("an array of columns")?;
    let unknown: Vec<_> =
        nodes.iter().zip(&dimensions).filter(|(_, name)| !fine.group_by.contains(name)).collect();
    for (node, name) in &unknown {
        node.wrong::<()>(format!(
            "{} is no dimension of `{}`; {}, or add it there",
            shown(name),
            fine.name,
            match fine.group_by.as_slice() {
                [] => "leave it out".to_owned(),
                some => format!("use {}", listed(some.iter().map(String::as_str))),
            }
        ));
    }
    unknown.is_empty().then_some(dimensions)
}

/// Reads measures that are only named: each is merged in its own way.
fn named(node: &Node<'_>, columns: &mut Columns, fine: &Rollup) -> Option<Vec<Measure>> {
    let nodes = node.array("an array of measures")?;
    if nodes.is_empty() {
        return node.wrong(r#"is empty; name a measure of the finer rollup, such as "events""#);
    }
    let mut read = |node: Node<'_>| {
        let name = node.string(r#"the name of a measure such as "events""#)?;
        let aggregate = own_way(&node, name, fine)?;
        take(columns, &node, name, &aggregate)?;
        Some(Measure { name: name.to_owned(), aggregate, filter: None })
    };
    nodes.into_iter().map(&mut read).collect::<Vec<_>>().into_iter().collect()
}

/// How the measure `name` of the finer rollup is merged, or a note that it cannot be.
fn own_way(node: &Node<'_>, name: &str, fine: &Rollup) -> Option<Aggregate> {
    let names = || fine.measures.iter().map(|measure| measure.name.as_str());
    let Some(measure) = fine.measures.iter().find(|measure| measure.name == name) else {
        return node.wrong(match nearest(name, names()) {
            Some(near) => {
                format!("{} is no measure of `{}`; did you mean `{near}`?", shown(name), fine.name)
            }
            None => {
                format!("{} is no measure of `{}`; use {}", shown(name), fine.name, listed(names()))
            }
        });
    };
    let name = name.to_owned();
    match &measure.aggregate {
        Aggregate::Count | Aggregate::Sum(_) => Some(Aggregate::Sum(name)),
        Aggregate::Min(_) => Some(Aggregate::Min(name)),
        Aggregate::Max(_) => Some(Aggregate::Max(name)),
        Aggregate::Avg(_) => Some(Aggregate::Avg(name)),
        Aggregate::Distinct(column) => node.wrong(format!(
            "numbers of different values cannot be merged, as a value may occur in several buckets; \
             compute {{ distinct = {0} }} from the source in a rollup with this bucket, or group \
             `{1}` by {0} and write {{ distinct = {0} }} here",
            shown(column),
            fine.name,
        )),
    }
}

/// Whether `aggregate` merges its column of the finer rollup rightly.
fn merging(node: &Node<'_>, aggregate: Aggregate, fine: &Rollup) -> Option<Aggregate> {
    if let Some(condition) = node.as_section().and_then(|section| section.get("where")) {
        return condition.wrong(format!(
            "rows of `{}` stand for many rows of its source; give it a measure with this condition",
            fine.name
        ));
    }
    let Some(column) = aggregate.column() else {
        return node.wrong(format!(
            "would count the rows of `{}`, not those of its source; sum up one of its counts: \
             {{ sum = \"events\" }}",
            fine.name
        ));
    };
    // Every row of the finer rollup has one value of it.
    if matches!(aggregate, Aggregate::Distinct(_)) {
        if fine.group_by.iter().any(|dimension| dimension == column) {
            return Some(aggregate);
        }
        if fine.measures.iter().all(|measure| measure.name != column) {
            return node.wrong(format!(
                "of `{0}` only the different values of its dimensions can be counted; group it by \
                 {1}, or compute {{ distinct = {1} }} from the source in a rollup with this bucket",
                fine.name,
                shown(column)
            ));
        }
    }
    let own = own_way(node, column, fine)?;
    if own != aggregate {
        return node.wrong(format!(
            "`{}` does not merge {}; write {{ {} = {1} }}",
            aggregate.word(),
            shown(column),
            own.word(),
        ));
    }
    Some(own)
}

/// Takes all columns that a measure makes.
fn take(columns: &mut Columns, node: &Node<'_>, name: &str, aggregate: &Aggregate) -> Option<()> {
    let made: &[&str] = match aggregate {
        Aggregate::Avg(_) => &["", "_sum", "_count"],
        _ => &[""],
    };
    let taken: Vec<_> = made
        .iter()
        .map(|suffix| columns.take(node, &format!("{name}{suffix}"), "another measure"))
        .collect();
    taken.into_iter().collect()
}

/// Holds the number of columns whose values are counted against what one statement can tell apart.
fn counted(
    section: &Section<'_>,
    dimensions: Vec<String>,
    measures: Vec<Measure>,
) -> Option<(Vec<String>, Vec<Measure>)> {
    let counted: HashSet<&String> = measures
        .iter()
        .filter_map(|measure| match &measure.aggregate {
            Aggregate::Distinct(column) => Some(column),
            _ => None,
        })
        .filter(|column| !dimensions.contains(column))
        .collect();
    if counted.len() > DISTINCT_MAX {
        let problem = format!(
            "`distinct` counts the values of {} columns; {DISTINCT_MAX} is the most, put the rest \
             into another rollup",
            counted.len()
        );
        return section.get("measures")?.wrong(problem);
    }
    Some((dimensions, measures))
}

/// PostgreSQL's `GROUPING`, which tells the rows of a chunk apart, takes no more columns.
const DISTINCT_MAX: usize = 31;

fn dimensions(node: &Node<'_>, columns: &mut Columns) -> Option<Vec<String>> {
    let read = |node: Node<'_>| {
        let name = node.identifier(r#"the name of a column such as "entity_id""#)?;
        columns.take(&node, name, DIMENSION)?;
        Some(name.to_owned())
    };
    let nodes = node.array(r#"an array of columns such as ["entity_id", "kind"]"#)?;
    // Each is read before the first failure counts, so that all are told.
    nodes.into_iter().map(read).collect::<Vec<_>>().into_iter().collect()
}

/// Reads a table of measures; `check` may refuse what one computes.
fn measures(
    node: &Node<'_>,
    columns: &mut Columns,
    check: &dyn Fn(&Node<'_>, Aggregate) -> Option<Aggregate>,
) -> Option<Vec<Measure>> {
    let section = node.section(r#"a table such as { events = "count" }"#)?;
    let entries = section.entries();
    if entries.is_empty() {
        return section.wrong(r#"is empty; add a line such as events = "count""#);
    }
    let read = |(name, node): (&str, Node<'_>)| {
        let named = name_of(name, &node);
        let aggregate = aggregate(&node).and_then(|it| check(&node, it));
        let filter = match node.as_section() {
            Some(section) => condition(&section),
            None => Some(None),
        };
        let aggregate = aggregate?;
        named?;
        take(columns, &node, name, &aggregate)?;
        Some(Measure { name: name.to_owned(), aggregate, filter: filter? })
    };
    entries.into_iter().map(read).collect::<Vec<_>>().into_iter().collect()
}

/// Notes why `name` cannot be a measure's name.
fn name_of(name: &str, node: &Node<'_>) -> Option<()> {
    /// PostgreSQL's 63, less room for `_count` and what later versions may append.
    const BYTES_MAX: usize = 48;
    if name.is_empty() {
        node.wrong("the measure's name is empty; it becomes the column's name")
    } else if name.contains('\0') {
        node.wrong("the measure's name contains a NUL character; remove it")
    } else if name.len() > BYTES_MAX {
        node.wrong(format!("the measure's name has {} bytes; {BYTES_MAX} is the most", name.len()))
    } else {
        Some(())
    }
}

fn aggregate(node: &Node<'_>) -> Option<Aggregate> {
    if let Some(word) = node.as_str() {
        return match word {
            "count" => Some(Aggregate::Count),
            word if AGGREGATES.contains(&word) => {
                node.wrong(format!(r#""{word}" needs a column; write {{ {word} = "column" }}"#))
            }
            word => node.wrong(match nearest(word, AGGREGATES.into_iter()) {
                Some("count") => format!(r#"{} is unknown; did you mean "count"?"#, shown(word)),
                Some(near) => {
                    format!(r#"{} is unknown; did you mean {{ {near} = "column" }}?"#, shown(word))
                }
                None => format!("{} is unknown; use {FORM}", shown(word)),
            }),
        };
    }
    let mut section = node.section(FORM)?;
    section.only(&["count", "sum", "min", "max", "avg", "distinct", "where"]);
    let given: Vec<_> =
        section.entries().into_iter().filter(|(key, _)| AGGREGATES.contains(key)).collect();
    match given.as_slice() {
        [(word, value)] => computed(word, value),
        [] if section.has_typos() => None,
        [] => section.wrong(format!(
            "says nothing to compute; give one of {}",
            listed(AGGREGATES.into_iter())
        )),
        several => section.wrong(format!(
            "computes {}; give each a measure of its own",
            listed(several.iter().map(|(word, _)| *word))
        )),
    }
}

fn computed(word: &str, value: &Node<'_>) -> Option<Aggregate> {
    if word == "count" {
        return match value.as_bool() {
            Some(true) => Some(Aggregate::Count),
            _ => value.wrong(
                "`count` counts rows and takes only `true`; \
                 to count values write { count = true, where = \"column IS NOT NULL\" }",
            ),
        };
    }
    let column = value.identifier(r#"the name of a column such as "amount""#)?.to_owned();
    Some(match word {
        "sum" => Aggregate::Sum(column),
        "min" => Aggregate::Min(column),
        "max" => Aggregate::Max(column),
        "avg" => Aggregate::Avg(column),
        _ => Aggregate::Distinct(column),
    })
}

/// Reads the optional `where` of a rollup or measure.
pub(super) fn condition(section: &Section<'_>) -> Option<Option<String>> {
    let Some(node) = section.get("where") else { return Some(None) };
    let text = node.string(r#"an SQL condition such as "kind <> 'test'""#)?;
    match predicate::check(text) {
        Ok(()) => Some(Some(text.to_owned())),
        Err(fault) => node.wrong(fault.to_string()),
    }
}
