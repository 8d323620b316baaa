//! Conditions and changes in DynamoDB's language. In expressions `#name` is a placeholder for the
//! attribute `name` (many of our names are reserved words) and `:name` for a bound value.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};

use super::PK;
use super::value::{Attributes, attribute};
use crate::checkpoint::store::{Change, Cond, Is};

/// Joins conditions that must all hold.
const AND: &str = " AND ";

/// The names and values in the expressions of one request.
#[derive(Debug, Default)]
pub(super) struct Expression {
    names: HashMap<String, String>,
    values: Attributes,
}

impl Expression {
    /// The placeholder of an attribute.
    pub(super) fn name(&mut self, name: &str) -> String {
        let placeholder = format!("#{name}");
        self.names.insert(placeholder.clone(), name.to_owned());
        placeholder
    }

    /// The placeholder of a text.
    pub(super) fn text(&mut self, name: &str, text: &str) -> String {
        self.bind(name.to_owned(), AttributeValue::S(text.to_owned()))
    }

    fn bind(&mut self, name: String, value: AttributeValue) -> String {
        let placeholder = format!(":{name}");
        self.values.insert(placeholder.clone(), value);
        placeholder
    }

    /// The placeholder of a value in a condition. Each value gets its own.
    fn compared(&mut self, value: Option<AttributeValue>) -> String {
        let number = self.values.len();
        // A value of a kind that is never written equals no attribute.
        self.bind(format!("is_{number}"), value.unwrap_or(AttributeValue::Null(true)))
    }

    /// The names and values. `None`: the map is empty, which DynamoDB refuses.
    pub(super) fn into_parts(self) -> (Option<HashMap<String, String>>, Option<Attributes>) {
        let (names, values) = (self.names, self.values);
        (Some(names).filter(|it| !it.is_empty()), Some(values).filter(|it| !it.is_empty()))
    }

    /// The condition of a write. `None`: it always holds.
    pub(super) fn condition(&mut self, condition: &Cond) -> Option<String> {
        match condition {
            Cond::All(all) if all.is_empty() => None,
            other => Some(self.part(other)),
        }
    }

    fn part(&mut self, condition: &Cond) -> String {
        match condition {
            Cond::Absent => format!("attribute_not_exists({})", self.name(PK)),
            Cond::Present => format!("attribute_exists({})", self.name(PK)),
            Cond::Lacks(name) => format!("attribute_not_exists({})", self.name(name)),
            Cond::Compare(name, is, value) => {
                let name = self.name(name);
                let value = self.compared(attribute(value.clone()));
                let sign = match is {
                    Is::Equal => "=",
                    Is::Other => "<>",
                    Is::Below => "<",
                    Is::AtMost => "<=",
                    Is::Above => ">",
                };
                format!("{name} {sign} {value}")
            }
            Cond::Passed(name, now) => {
                let (name, now) = (self.name(name), self.compared(Some(epoch_ms(*now))));
                format!("{name} <= {now}")
            }
            Cond::All(parts) => self.joined(parts, AND),
            Cond::Any(parts) => self.joined(parts, " OR "),
        }
    }

    fn joined(&mut self, parts: &[Cond], sign: &str) -> String {
        match parts {
            [] if sign == AND => {
                let pk = self.name(PK);
                format!("(attribute_exists({pk}) OR attribute_not_exists({pk}))")
            }
            // DynamoDB refuses parentheses around parentheses.
            [one] => self.part(one),
            parts => {
                let parts: Vec<_> = parts.iter().map(|part| self.part(part)).collect();
                format!("({})", parts.join(sign))
            }
        }
    }

    /// The changes of the attributes.
    pub(super) fn changes(&mut self, changes: Vec<(String, Change)>) -> String {
        let (mut set, mut remove) = (Vec::new(), Vec::new());
        for (name, change) in changes {
            let placeholder = self.name(&name);
            let Some(value) = self.new_value(&name, change) else {
                remove.push(placeholder);
                continue;
            };
            set.push(format!("{placeholder} = {value}"));
        }
        let clauses = [("SET", set), ("REMOVE", remove)];
        let clauses = clauses.iter().filter(|(_, parts)| !parts.is_empty());
        let clauses: Vec<String> =
            clauses.map(|(verb, parts)| format!("{verb} {}", parts.join(", "))).collect();
        clauses.join(" ")
    }

    /// The new value of an attribute. `None`: it is removed.
    fn new_value(&mut self, name: &str, change: Change) -> Option<String> {
        // A separate prefix, so that the condition can bind the same word to another value.
        match change {
            Change::Remove => None,
            Change::Set(value) => Some(self.bind(format!("set_{name}"), attribute(value)?)),
            Change::FromNow { now, after } => {
                Some(self.bind(format!("set_{name}"), epoch_ms(now + after)))
            }
            Change::Copy { from, or } => {
                let from = self.name(&from);
                let or = self.bind(format!("or_{name}"), attribute(or)?);
                Some(format!("if_not_exists({from}, {or})"))
            }
            Change::Increment => {
                let number = |digit: &str| AttributeValue::N(digit.to_owned());
                let zero = self.bind("zero".to_owned(), number("0"));
                let one = self.bind("one".to_owned(), number("1"));
                let before = self.name(name);
                Some(format!("if_not_exists({before}, {zero}) + {one}"))
            }
        }
    }
}

/// Whole milliseconds, in which instants are compared.
fn epoch_ms(at: DateTime<Utc>) -> AttributeValue {
    AttributeValue::N(at.timestamp_millis().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::store::{Key, Update, Value};

    #[test]
    fn a_write_is_said_in_dynamodbs_words_with_every_name_and_value_bound() {
        let number = |number: &str| Value::Number(number.into());
        let now = DateTime::from_timestamp_millis(1_770_681_600_123).unwrap();
        let held = Cond::is("state", Value::Text("running".into()));
        let condition = Cond::Absent.or(held.and(Cond::passed("lease_until", now)));
        let update = Update::new(Key::new("daily", "2026"), condition)
            .increment("attempt")
            .fill("dirty", number("0"))
            .set("owner", Value::Text("4f1c".into()))
            .remove(&["retry_at"]);
        let mut expression = Expression::default();
        assert_eq!(
            expression.changes(update.changes),
            "SET #attempt = if_not_exists(#attempt, :zero) + :one, \
             #dirty = if_not_exists(#dirty, :or_dirty), #owner = :set_owner REMOVE #retry_at"
        );
        assert_eq!(
            expression.condition(&update.condition).unwrap(),
            "(attribute_not_exists(#pk) OR (#state = :is_4 AND #lease_until <= :is_5))"
        );
        let (names, values) = expression.into_parts();
        let (names, values) = (names.unwrap(), values.unwrap());
        let mut named: Vec<_> = names.values().map(String::as_str).collect();
        named.sort_unstable();
        let all = ["attempt", "dirty", "lease_until", "owner", "pk", "retry_at", "state"];
        assert_eq!(named, all);
        assert_eq!(values[":is_5"], AttributeValue::N("1770681600123".into()));
        assert_eq!(values.len(), 6);
    }

    #[test]
    fn what_binds_nothing_sends_no_empty_map() {
        let mut expression = Expression::default();
        assert_eq!(expression.condition(&Cond::always()), None);
        assert_eq!(expression.into_parts(), (None, None));
    }
}
