//! Makes foreign text (rows, servers, items, files, arguments) safe to show.
//!
//! A terminal obeys control characters and reorders text at direction characters. Both, and
//! invisible characters, are written as escapes. All text that leaves the process passes through
//! here: `cli::ui` for the command line, [`crate::telemetry::log`] for logs.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with its hidden characters as escapes (`\u{1b}`). New lines and tabs stay.
#[must_use]
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |character| match character {
        '\n' | '\t' => None,
        _ => Some(format!("\\u{{{:x}}}", u32::from(character))),
    })
}

/// As [`text`], for a place that holds one line: new lines and tabs are escaped too (`\n`).
#[must_use]
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |character| match character {
        '\n' => Some("\\n".to_owned()),
        '\t' => Some("\\t".to_owned()),
        _ => Some(format!("\\u{{{:x}}}", u32::from(character))),
    })
}

/// A JSON document with the hidden characters of its strings as JSON writes them (`\u009b`).
///
/// A JSON writer has already escaped the control characters below U+0020, so the others occur in
/// strings only.
#[must_use]
pub fn json(document: &str) -> Cow<'_, str> {
    escaped(document, |character| {
        if matches!(character, '\n' | '\t') {
            return None;
        }
        let mut units = [0; 2];
        let units = character.encode_utf16(&mut units);
        Some(units.iter().fold(String::new(), |mut text, unit| {
            let _ = write!(text, "\\u{unit:04x}");
            text
        }))
    })
}

/// Whether all of `text` is shown literally.
#[must_use]
pub fn is_plain(shown: &str) -> bool {
    matches!(text(shown), Cow::Borrowed(_))
}

/// Replaces the hidden characters for which `escape` returns a text.
fn escaped(text: &str, escape: impl Fn(char) -> Option<String>) -> Cow<'_, str> {
    let mut shown: Option<String> = None;
    let mut before = None;
    for (place, character) in text.char_indices() {
        let escape = if is_hidden(character, before) { escape(character) } else { None };
        // An escape ends in ASCII, to which no variation applies.
        before = if escape.is_some() { None } else { Some(character) };
        match (escape, &mut shown) {
            (Some(escape), shown) => {
                shown.get_or_insert_with(|| text[..place].to_owned()).push_str(&escape);
            }
            (None, Some(shown)) => shown.push(character),
            (None, None) => {}
        }
    }
    shown.map_or(Cow::Borrowed(text), Cow::Owned)
}

/// Whether a terminal obeys `character`, reorders text at it, or shows nothing. `before` is the
/// preceding character.
const fn is_hidden(character: char, before: Option<char>) -> bool {
    match character {
        // Text or emoji form, which is shown as part of a symbol.
        '\u{fe0e}' | '\u{fe0f}' => !matches!(before, Some('\u{a9}'..)),
        // Controls of ASCII and of Latin-1.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}'
        // Text direction.
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        // Line and paragraph separators.
        | '\u{2028}' | '\u{2029}'
        // Invisible, or shown as a blank other than a space.
        | '\u{ad}' | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200d}' | '\u{2060}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0d}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        // Tags, and variations without a symbol.
        | '\u{e0000}'..='\u{e0fff}'
        // Noncharacters.
        | '\u{fdd0}'..='\u{fdef}' | '\u{fffe}' | '\u{ffff}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The characters that output must not contain, by ranges written independently, as plain
    /// numbers.
    fn is_raw(character: char) -> bool {
        let code = u32::from(character);
        let is_control = code < 0x20 && character != '\n' || (0x7f..0xa0).contains(&code);
        let is_direction =
            matches!(code, 0x61c | 0x200e | 0x200f | 0x202a..=0x202e | 0x2066..=0x2069);
        is_control || is_direction || matches!(code, 0x2028 | 0x2029 | 0x200b | 0xfeff | 0xe0041)
    }

    #[test]
    fn text_that_shows_as_what_it_is_stays() {
        for text in ["", "a b\n\tc", "Zürich 東京 🦀 ❤️", "é", r"\u{1b}"] {
            assert!(is_plain(text), "{text:?}");
            assert!(matches!(json(text), Cow::Borrowed(_)));
        }
    }

    #[test]
    fn hidden_characters_are_shown_as_escapes() {
        assert_eq!(text("a\u{1b}[31m\r\u{202e}b\n"), "a\\u{1b}[31m\\u{d}\\u{202e}b\n");
        assert_eq!(line("a\n\tb\u{7f}"), "a\\n\\tb\\u{7f}");
        assert_eq!(text("a\u{fe0f}"), "a\\u{fe0f}", "a variation of no symbol");
        assert_eq!(json("\"\u{9b}\u{e0041}\""), "\"\\u009b\\udb40\\udc41\"");
    }

    proptest! {
        #[test]
        fn no_hidden_character_is_left_whatever_comes_in(given in any::<String>()) {
            prop_assert!(!text(&given).contains(|c| is_raw(c) && c != '\t'));
            prop_assert!(!line(&given).contains(|c| is_raw(c) || c == '\n'));
            // Escaping twice is the same as escaping once.
            prop_assert_eq!(text(&text(&given)).into_owned(), text(&given).into_owned());
        }

        #[test]
        fn a_json_document_means_the_same_when_it_is_shown(given in any::<String>()) {
            let document = serde_json::json!({ &given: [&given] });
            let shown = json(&document.to_string()).into_owned();
            prop_assert!(!shown.contains(is_raw), "{}", shown);
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), document);
        }
    }
}
