//! The meaning of conditions and changes in Rust. Tests compare each store's translation with it.

use std::cmp::Ordering;

use chrono::{DateTime, Utc};

use super::update::{Change, Cond, Is, Update};
use super::value::{Item, Value};

impl Cond {
    /// Whether the condition holds for the stored item, or for a missing one. A store with its own
    /// clock passes `now`. With `None` the worker's time counts.
    #[must_use]
    pub fn holds(&self, item: Option<&Item>, now: Option<DateTime<Utc>>) -> bool {
        let stored = |name: &String| item.and_then(|item| item.get(name));
        match self {
            Self::Absent => item.is_none(),
            Self::Present => item.is_some(),
            Self::Lacks(name) => stored(name).is_none(),
            Self::Compare(name, is, value) => compares(stored(name), *is, value),
            Self::Passed(name, told) => {
                compares(stored(name), Is::AtMost, &ms(now.unwrap_or(*told)))
            }
            Self::All(all) => all.iter().all(|part| part.holds(item, now)),
            Self::Any(any) => any.iter().any(|part| part.holds(item, now)),
        }
    }
}

impl Update {
    /// The item after the write.
    #[must_use]
    pub(crate) fn applied(&self, item: Option<&Item>, now: Option<DateTime<Utc>>) -> Item {
        let empty = Item::new();
        let before = item.unwrap_or(&empty);
        let mut after = before.clone();
        after.extend(self.key.to_item());
        for (name, change) in &self.changes {
            let value = match change {
                Change::Remove => {
                    after.remove(name);
                    continue;
                }
                Change::Set(value) => value.clone(),
                Change::Copy { from, or } => before.get(from).unwrap_or(or).clone(),
                Change::Increment => Value::Number((count(before.get(name)) + 1).to_string()),
                Change::FromNow { now: told, after } => ms(now.unwrap_or(*told) + *after),
            };
            after.insert(name.clone(), value);
        }
        after
    }
}

fn compares(stored: Option<&Value>, is: Is, value: &Value) -> bool {
    match is {
        Is::Equal => stored.is_some_and(|stored| order(stored, value) == Some(Ordering::Equal)),
        Is::Other => stored.is_none_or(|stored| order(stored, value) != Some(Ordering::Equal)),
        Is::Below => stored.is_some_and(|stored| order(stored, value) == Some(Ordering::Less)),
        Is::AtMost => {
            let order = stored.and_then(|stored| order(stored, value));
            order.is_some_and(Ordering::is_le)
        }
        Is::Above => stored.is_some_and(|stored| order(stored, value) == Some(Ordering::Greater)),
    }
}

/// Compares two values of one type: numbers as numbers, texts byte by byte.
fn order(one: &Value, other: &Value) -> Option<Ordering> {
    match (one, other) {
        (Value::Text(one), Value::Text(other)) => Some(one.as_bytes().cmp(other.as_bytes())),
        (Value::Number(one), Value::Number(other)) => {
            one.parse::<f64>().ok()?.partial_cmp(&other.parse::<f64>().ok()?)
        }
        (one, other) => (one == other).then_some(Ordering::Equal),
    }
}

fn count(stored: Option<&Value>) -> u64 {
    match stored {
        Some(Value::Number(number)) => number.parse().unwrap_or(0),
        _ => 0,
    }
}

fn ms(at: DateTime<Utc>) -> Value {
    Value::Number(at.timestamp_millis().to_string())
}
