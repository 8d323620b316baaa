//! A value of a field, as the app keeps it and as its API shows it.

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::sync::Arc;

use chrono::{DateTime, Utc};

/// Items of a list that the shared cluster sends.
const LIST_MAX: usize = 200;

/// A value. A field that was never set, or was emptied, has none.
#[derive(Clone, Debug, PartialEq)]
pub enum Datum {
    /// A text, the display of an option, or the id of a thing.
    Text(Arc<str>),
    /// A double: one column shows `12` and `12.5`.
    Number(f64),
    Flag(bool),
    /// Milliseconds since 1970.
    Date(i64),
    List(Arc<[Datum]>),
    /// A JSON object, such as an address.
    Nested(Arc<str>),
}

/// A text, an option or the id of a thing.
pub fn text(text: &str) -> Datum {
    Datum::Text(text.into())
}

/// A list of texts.
pub fn texts(items: &[&str]) -> Datum {
    Datum::List(items.iter().map(|item| text(item)).collect())
}

pub fn date(at: DateTime<Utc>) -> Datum {
    Datum::Date(at.timestamp_millis())
}

/// A geographic address.
pub fn address(address: &str, lat: f64, lng: f64) -> Datum {
    let (lat, lng) = (number(lat), number(lng));
    Datum::Nested(format!("{{\"address\":{},\"lat\":{lat},\"lng\":{lng}}}", quoted(address)).into())
}

impl Datum {
    /// Appends the value as the API sends it.
    pub fn show(&self, out: &mut String) {
        match self {
            Self::Text(text) => out.push_str(&quoted(text)),
            Self::Number(value) => out.push_str(&number(*value)),
            Self::Flag(flag) => out.push_str(if *flag { "true" } else { "false" }),
            Self::Date(ms) => out.push_str(&quoted(&timestamp(*ms))),
            Self::Nested(json) => out.push_str(json),
            Self::List(items) => {
                out.push('[');
                for (place, item) in items.iter().take(LIST_MAX).enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    item.show(out);
                }
                out.push(']');
            }
        }
    }

    /// The order of a sorted search. Values that have none are equal.
    pub fn order(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Text(one), Self::Text(other)) => one.cmp(other),
            (Self::Number(one), Self::Number(other)) => one.total_cmp(other),
            (Self::Flag(one), Self::Flag(other)) => one.cmp(other),
            (Self::Date(one), Self::Date(other)) => one.cmp(other),
            _ => Ordering::Equal,
        }
    }
}

/// `text` as a JSON string.
pub fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap()
}

/// A date as the API shows it: UTC, always with three digits, 24 characters.
pub fn timestamp(ms: i64) -> String {
    let at = DateTime::from_timestamp_millis(ms).unwrap();
    at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// A double as JavaScript writes it: the shortest digits that give it back, without a fraction
/// where it has none, and with an exponent where it is very large or small.
pub fn number(value: f64) -> String {
    let mut shown = String::new();
    if value == 0.0 {
        shown.push('0');
    } else if (1e-6..1e21).contains(&value.abs()) {
        write!(shown, "{value}").unwrap();
    } else {
        write!(shown, "{value:e}").unwrap();
        if !shown.contains("e-") {
            shown = shown.replace('e', "e+");
        }
    }
    shown
}
