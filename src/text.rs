//! Texts of others: of servers, services, rows and events. They are cut where they enter.

use std::borrow::Cow;

use serde_json::Value;

/// Bytes that are kept of a text. A server quotes a value whole in its error, and a value can be a gigabyte: a report
/// of a thousand such slices must still fit into a response of Lambda (6 MB), and a line into a log.
pub const FOREIGN_MAX: usize = 2048;

/// Bytes of what is said about the rest.
const TOLD_MAX: usize = 40;

/// The text, or its first part and its whole length.
#[must_use]
pub fn cut(text: &str) -> Cow<'_, str> {
    cut_to(text, FOREIGN_MAX)
}

/// As [`cut`], to at most `max` bytes.
#[must_use]
pub fn cut_to(text: &str, max: usize) -> Cow<'_, str> {
    if text.len() <= max {
        return Cow::Borrowed(text);
    }
    let kept = &text[..text.floor_char_boundary(max.saturating_sub(TOLD_MAX))];
    Cow::Owned(format!("{kept}… ({} bytes)", text.len()))
}

/// The same value, with every text in it cut.
#[must_use]
pub fn cut_json(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(cut(&text).into_owned()),
        Value::Array(values) => values.into_iter().map(cut_json).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, cut_json(value))).collect()
        }
        value => value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_beginning_and_tells_its_length() {
        assert_eq!(cut("short"), "short");
        let long = "ä".repeat(3_000_000);
        let kept = cut(&long);
        assert!(kept.starts_with("ää") && kept.ends_with("ä… (6000000 bytes)"), "{}", kept.len());
        assert!(kept.len() <= FOREIGN_MAX);
        // What was cut once passes every further gate as it is.
        assert_eq!(cut(&kept), kept);
        assert!(cut(&format!("a{long}")).ends_with("ä… (6000001 bytes)"));
    }
}
