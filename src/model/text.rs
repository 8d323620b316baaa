//! Helpers for messages, and for foreign texts (of servers, services, rows, events, files), which
//! are cut where they enter.

use std::borrow::Cow;

use serde_json::Value;

/// Bytes kept of a text. A server's error quotes a whole value, which can be a gigabyte. A report
/// of a thousand such slices must still fit into a response of Lambda (6 MB), and a log line must
/// stay readable.
pub(crate) const FOREIGN_MAX: usize = 2048;

/// Bytes of the note that a text was cut.
const TOLD_MAX: usize = 40;

/// The text, or its first part with a note of its whole length.
#[must_use]
pub(crate) fn cut(text: &str) -> Cow<'_, str> {
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
pub(crate) fn cut_json(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(cut(&text).into_owned()),
        Value::Array(values) => values.into_iter().map(cut_json).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (name, cut_json(value))).collect()
        }
        value => value,
    }
}

/// The candidate closest to `word`: few letters differ, or one is a prefix of the other.
pub(crate) fn nearest<'c>(word: &str, known: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_lowercase();
    known
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            let distance = strsim::damerau_levenshtein(&word, &lower);
            let prefix = word.len() >= 3 && lower.starts_with(&word)
                || lower.len() >= 3 && word.starts_with(&lower);
            // At most a third of the letters. Beyond that, unrelated short words begin to resemble
            // each other.
            let near = prefix || distance * 3 <= word.chars().count().max(lower.chars().count());
            near.then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b`, `c` ``
pub(crate) fn listed<'c>(words: impl Iterator<Item = &'c str>) -> String {
    words.map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// A count and its noun: `1 slice`, `2 slices`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `text` for an error: quoted, on one line, shortened, and hidden if it may contain a password.
pub(crate) fn shown(text: &str) -> String {
    /// Enough to recognise a value.
    const CHARS_MAX: usize = 80;
    let lower = text.to_lowercase();
    if lower.contains("://") || lower.contains("password") || lower.contains('@') {
        return "the value (not shown: it may hold a password)".to_owned();
    }
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// A random token of 128 bits, in hexadecimal digits: unique for all practical purposes.
pub(crate) fn random_token() -> String {
    format!("{:032x}", fastrand::u128(..))
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
        // A cut text passes every further cut unchanged.
        assert_eq!(cut(&kept), kept);
        assert!(cut(&format!("a{long}")).ends_with("ä… (6000001 bytes)"));
    }

    #[test]
    fn the_nearest_word_is_named_and_a_far_one_is_not() {
        let known = || ["group_by", "grace", "start", "timezone"].into_iter();
        assert_eq!(nearest("groupby", known()), Some("group_by"));
        assert_eq!(nearest("group", known()), Some("group_by"));
        assert_eq!(nearest("Timezone", known()), Some("timezone"));
        assert_eq!(nearest("strat", known()), Some("start"));
        assert_eq!(nearest("colour", known()), None);
        assert_eq!(nearest("", known()), None);
    }

    #[test]
    fn what_may_hold_a_password_is_not_shown() {
        assert!(!shown("postgres://app:hunter2@db/x").contains("hunter2"));
        assert!(!shown("host=db PASSWORD=hunter2").contains("hunter2"));
        assert!(!shown("app:hunter2@db").contains("hunter2"));
        assert_eq!(shown("a\nb"), r#""a\nb""#);
        assert_eq!(shown(&"é".repeat(200)).chars().count(), 83);
    }
}
