//! Constraints: all operators of the Data API but `geographic_search`.

use chrono::DateTime;
use serde_json::Value;

use super::datum::Datum;
use super::problem::Problem;
use super::schema::{Column, Kind, ThingType};

/// One of the constraints of a search, all of which hold for what it finds.
#[derive(Debug)]
pub struct Constraint {
    pub column: Column,
    pub test: Test,
}

/// The question of a constraint about a value.
#[derive(Debug)]
pub enum Test {
    Is(Datum),
    IsNot(Datum),
    IsEmpty,
    IsSet,
    /// A text contains this one, in any case of letters.
    HasWords(String),
    LacksWords(String),
    /// Strictly above it.
    Above(Datum),
    /// Strictly below it.
    Below(Datum),
    In(Vec<Datum>),
    NotIn(Vec<Datum>),
    /// A list holds this item.
    Holds(Datum),
    LacksItem(Datum),
}

impl Test {
    /// Whether a range is all that it asks for.
    pub fn is_bound(&self) -> bool {
        matches!(self, Self::Above(_) | Self::Below(_))
    }

    /// Whether it holds for a value. An empty field equals nothing, and is above and below nothing.
    pub fn holds(&self, value: Option<&Datum>) -> bool {
        let has_words = |words: &str| match value {
            Some(Datum::Text(text)) => text.to_lowercase().contains(words),
            _ => false,
        };
        let has_item = |item: &Datum| match value {
            Some(Datum::List(items)) => items.contains(item),
            _ => false,
        };
        match self {
            Self::Is(wanted) => value == Some(wanted),
            Self::IsNot(other) => value != Some(other),
            Self::IsEmpty => value.is_none(),
            Self::IsSet => value.is_some(),
            Self::HasWords(words) => has_words(words),
            Self::LacksWords(words) => !has_words(words),
            Self::Above(bound) => value.is_some_and(|it| it.order(bound).is_gt()),
            Self::Below(bound) => value.is_some_and(|it| it.order(bound).is_lt()),
            Self::In(wanted) => value.is_some_and(|it| wanted.contains(it)),
            Self::NotIn(others) => value.is_none_or(|it| !others.contains(it)),
            Self::Holds(item) => has_item(item),
            Self::LacksItem(item) => !has_item(item),
        }
    }

    /// The test behind an operator on a field of this kind. `None`: the API has none, or no source
    /// says that it works, as for `equals` on a date.
    fn new(operator: &str, kind: &Kind, value: &Value) -> Option<Result<Self, Problem>> {
        let is_single = !kind.is_list() && *kind != Kind::Date;
        let item = match kind {
            Kind::List(kind) => kind,
            kind => kind,
        };
        let one = || datum(item, value);
        let many = || -> Result<Vec<Datum>, Problem> {
            let items = value.as_array().ok_or_else(|| Problem::invalid("no array"))?;
            items.iter().map(|value| datum(item, value)).collect()
        };
        let words =
            || value.as_str().map(str::to_lowercase).ok_or_else(|| Problem::invalid("no text"));
        Some(match operator {
            "is_empty" => Ok(Self::IsEmpty),
            "is_not_empty" => Ok(Self::IsSet),
            "empty" if kind.is_list() => Ok(Self::IsEmpty),
            "not empty" if kind.is_list() => Ok(Self::IsSet),
            "equals" if is_single => one().map(Self::Is),
            "not equal" if is_single => one().map(Self::IsNot),
            "in" if is_single => many().map(Self::In),
            "not in" if is_single => many().map(Self::NotIn),
            "contains" if kind.is_list() => one().map(Self::Holds),
            "not contains" if kind.is_list() => one().map(Self::LacksItem),
            "text contains" if *kind == Kind::Text => words().map(Self::HasWords),
            "not text contains" if *kind == Kind::Text => words().map(Self::LacksWords),
            "greater than" if kind.is_ordered() => one().map(Self::Above),
            "less than" if kind.is_ordered() => one().map(Self::Below),
            _ => return None,
        })
    }
}

/// The constraints of a parameter.
pub fn constraints(
    of: &ThingType,
    has_captions: bool,
    value: &str,
) -> Result<Vec<Constraint>, Problem> {
    let unreadable = |_| Problem::invalid("constraints are no JSON array");
    let all: Vec<Value> = serde_json::from_str(value).map_err(unreadable)?;
    let one = |constraint: &Value| {
        let key = constraint["key"].as_str().unwrap_or_default();
        let column =
            of.column(key, has_captions).ok_or_else(|| Problem::no_field(key, &of.name))?;
        let operator = constraint["constraint_type"].as_str().unwrap_or_default();
        let test = Test::new(operator, &of.kind(column), &constraint["value"]);
        let unknown = || Problem::not_found(&format!("Constraint not found {operator} for {key}"));
        Ok(Constraint { column, test: test.ok_or_else(unknown)?? })
    };
    all.iter().map(one).collect()
}

/// A value that a constraint compares with.
fn datum(kind: &Kind, value: &Value) -> Result<Datum, Problem> {
    let datum = match kind {
        Kind::Number => value.as_f64().map(Datum::Number),
        Kind::YesNo => value.as_bool().map(Datum::Flag),
        Kind::Date => value.as_str().and_then(ms).map(Datum::Date),
        _ => value.as_str().map(|text| Datum::Text(text.into())),
    };
    datum.ok_or_else(|| Problem::invalid(&format!("{value} for a {}", kind.name())))
}

/// A date: as rows show it, or milliseconds since 1970 as text.
fn ms(text: &str) -> Option<i64> {
    let date = || DateTime::parse_from_rfc3339(text).ok().map(|at| at.timestamp_millis());
    text.parse().ok().or_else(date)
}
