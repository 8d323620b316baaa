//! The model: a `GROUP BY` over the things of a type, computed without a database.

use std::collections::{BTreeMap, BTreeSet};

use super::fake::datum::{Datum, number, timestamp};
use super::fake::{Database, Thing};

/// A measure over the things of a group. Things without a value count for none of its kinds.
#[derive(Clone, Copy, Debug)]
pub enum Measure {
    /// Things, with a value or without.
    Count,
    Sum(&'static str),
    Min(&'static str),
    Max(&'static str),
    /// Different values.
    Distinct(&'static str),
}

/// The groups: their buckets and dimensions, with the measures. Absent values are `None`.
pub type Groups = BTreeMap<Vec<Option<String>>, Vec<Option<String>>>;

/// Groups the things of a type by the bucket of their Created Date and the values of some fields.
pub fn group_by(
    database: &Database,
    of: &str,
    bucket: impl Fn(i64) -> String,
    dimensions: &[&str],
    measures: &[Measure],
) -> Groups {
    let of = database.named(of).unwrap();
    let value = |thing: &Thing, field: &str| thing.value(of.field(field)).cloned();
    let mut members: BTreeMap<Vec<Option<String>>, Vec<&Thing>> = BTreeMap::new();
    for thing in of.things.by_id().iter().map(|slot| of.things.at(*slot)) {
        let dimensions = dimensions.iter().map(|it| value(thing, it).as_ref().map(shown));
        let group = std::iter::once(Some(bucket(thing.created))).chain(dimensions).collect();
        members.entry(group).or_default().push(thing);
    }
    let measured = |things: &[&Thing], measure: &Measure| {
        let values = |field| things.iter().filter_map(|thing| value(thing, field)).collect();
        measured(things.len(), *measure, values)
    };
    let row = |(group, things): (_, Vec<&Thing>)| {
        (group, measures.iter().map(|measure| measured(&things, measure)).collect())
    };
    members.into_iter().map(row).collect()
}

fn measured(
    things: usize,
    measure: Measure,
    values: impl Fn(&'static str) -> Vec<Datum>,
) -> Option<String> {
    match measure {
        Measure::Count => Some(things.to_string()),
        Measure::Sum(field) => sum(&values(field)),
        Measure::Min(field) => values(field).iter().min_by(|a, b| a.order(b)).map(shown),
        Measure::Max(field) => values(field).iter().max_by(|a, b| a.order(b)).map(shown),
        Measure::Distinct(field) => {
            let different: BTreeSet<String> = values(field).iter().map(shown).collect();
            Some(different.len().to_string())
        }
    }
}

/// A value as a column of PostgreSQL shows it, dates aside.
fn shown(value: &Datum) -> String {
    match value {
        Datum::Text(text) | Datum::Nested(text) => text.to_string(),
        Datum::Number(value) => number(*value),
        Datum::Flag(flag) => flag.to_string(),
        Datum::Date(ms) => timestamp(*ms),
        Datum::List(items) => items.iter().map(shown).collect::<Vec<_>>().join(","),
    }
}

/// The sum of the digits that the API sends, exact and with as many places as the longest of them,
/// as `sum(numeric)` shows it. `None` without any.
fn sum(values: &[Datum]) -> Option<String> {
    let digits = values.iter().filter_map(|value| match value {
        Datum::Number(value) => Some(format!("{value}")),
        _ => None,
    });
    let digits: Vec<String> = digits.collect();
    let places = |it: &String| it.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    let scale = digits.iter().map(places).max()?;
    let units = |it: &String| -> i128 {
        format!("{}{}", it.replace('.', ""), "0".repeat(scale - places(it))).parse().unwrap()
    };
    let sum: i128 = digits.iter().map(units).sum();
    let sign = if sum < 0 { "-" } else { "" };
    let shown = format!("{:0width$}", sum.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = shown.split_at(shown.len() - scale);
    let point = if scale > 0 { "." } else { "" };
    Some(format!("{sign}{whole}{point}{fraction}"))
}
