//! Checks that a `where` is one self-contained piece of SQL.
//!
//! The text is inserted between parentheses into a statement. PostgreSQL checks its meaning. This
//! check only ensures that it cannot close those parentheses, or the statement, early.

use std::borrow::Cow;

use crate::model::hint::Hinted;
use thiserror::Error;

/// Why a condition was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum PredicateError {
    /// It is empty, or has only comments.
    #[error("is empty")]
    Empty,
    /// It has a NUL character, which PostgreSQL refuses everywhere.
    #[error("contains a NUL character")]
    Nul,
    /// A `;` outside quotes.
    #[error("contains `;`")]
    Semicolon,
    /// A `)` without its `(`.
    #[error("closes a `)` that it did not open")]
    Unopened,
    /// A `(` without its `)`.
    #[error("leaves a `(` open")]
    Unclosed,
    /// A quoted string, name or dollar-quoted string without an end.
    #[error("leaves a {0} open")]
    Unterminated(&'static str),
    /// `\'` in a plain string. Whether the string ends there depends on a setting of the server.
    #[error("has a backslash before a quote in a plain string")]
    Backslash,
    /// A parameter such as `$1`.
    #[error("contains `$` outside quotes")]
    Dollar,
}

impl Hinted for PredicateError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::Empty => "write an SQL condition, or remove the key",
            Self::Nul => "remove it",
            Self::Semicolon => "write one condition, not statements",
            Self::Unopened | Self::Unclosed => "balance the parentheses",
            Self::Unterminated(_) => "close it",
            Self::Backslash => r"write it as E'\\' or E'\''",
            Self::Dollar => "write the value, as conditions take no parameters",
        };
        Some(hint.into())
    }
}

/// Checks that `text`, put between `(\n` and `\n)`, stays inside of them.
///
/// # Errors
/// The first reason why it might not.
pub(crate) fn check(text: &str) -> Result<(), PredicateError> {
    if text.contains('\0') {
        return Err(PredicateError::Nul);
    }
    let mut depth = 0_usize;
    let mut empty = true;
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if let Some(after) = skip_comment(rest)? {
            rest = after;
            continue;
        }
        empty = empty && first.is_ascii_whitespace();
        match first {
            ';' => return Err(PredicateError::Semicolon),
            '(' => depth += 1,
            ')' => depth = depth.checked_sub(1).ok_or(PredicateError::Unopened)?,
            _ => {}
        }
        rest = skip_token(rest)?;
    }
    match (depth, empty) {
        (0, false) => Ok(()),
        (0, true) => Err(PredicateError::Empty),
        _ => Err(PredicateError::Unclosed),
    }
}

/// The text after the token at the start of `text`: a comment, a string, a name, a word, or one
/// other character.
pub(super) fn skip_token(text: &str) -> Result<&str, PredicateError> {
    if let Some(after) = skip_comment(text)? {
        return Ok(after);
    }
    match text.chars().next() {
        Some('\'') => skip_plain_string(&text[1..]),
        Some('"') => skip_quoted_name(&text[1..]),
        Some('$') => skip_dollar_string(text),
        Some(first) if begins_word(first) => skip_word(text),
        Some(first) => Ok(&text[first.len_utf8()..]),
        None => Ok(text),
    }
}

/// As in PostgreSQL, every byte beyond ASCII counts as a letter.
pub(super) fn begins_word(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_' || !character.is_ascii()
}

fn continues_word(character: char) -> bool {
    begins_word(character) || character.is_ascii_digit() || character == '$'
}

/// The text after the comment at the start of `text`. `None`: there is no comment.
fn skip_comment(text: &str) -> Result<Option<&str>, PredicateError> {
    if let Some(comment) = text.strip_prefix("--") {
        // A carriage return ends the comment too.
        return Ok(Some(comment.find(['\n', '\r']).map_or("", |end| &comment[end..])));
    }
    let Some(mut rest) = text.strip_prefix("/*") else { return Ok(None) };
    let mut depth = 1_usize;
    while depth > 0 {
        let next = rest.find(['*', '/']).ok_or(PredicateError::Unterminated("comment"))?;
        rest = &rest[next..];
        if let Some(after) = rest.strip_prefix("/*") {
            depth += 1;
            rest = after;
        } else if let Some(after) = rest.strip_prefix("*/") {
            depth -= 1;
            rest = after;
        } else {
            rest = &rest[1..];
        }
    }
    Ok(Some(rest))
}

/// The text after a `'…'` whose first quote is already passed.
///
/// With `standard_conforming_strings = off`, or in the continuation of an `E'…'`, a backslash
/// escapes. Strings that would then end elsewhere are refused, so that all readings agree.
fn skip_plain_string(text: &str) -> Result<&str, PredicateError> {
    let mut rest = text;
    loop {
        let end = rest.find('\'').ok_or(PredicateError::Unterminated("string"))?;
        let backslashes = rest[..end].bytes().rev().take_while(|byte| *byte == b'\\').count();
        if backslashes % 2 == 1 {
            return Err(PredicateError::Backslash);
        }
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(after) => rest = after,
            None => return Ok(rest),
        }
    }
}

/// The text after an `E'…'` whose first quote is already passed.
fn skip_escape_string(text: &str) -> Result<&str, PredicateError> {
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '\'' if text[at + 1..].starts_with('\'') => drop(characters.next()),
            '\'' => return Ok(&text[at + 1..]),
            _ => {}
        }
    }
    Err(PredicateError::Unterminated("string"))
}

/// The text after a `"…"` whose first quote is already passed.
fn skip_quoted_name(text: &str) -> Result<&str, PredicateError> {
    // A doubled quote reads as the end of one name and the start of the next, with the same end.
    text.split_once('"').map(|(_, after)| after).ok_or(PredicateError::Unterminated("quoted name"))
}

/// The text after the `$tag$…$tag$` at the start of `text`.
fn skip_dollar_string(text: &str) -> Result<&str, PredicateError> {
    let (tag, body) = text[1..].split_once('$').ok_or(PredicateError::Dollar)?;
    let mut characters = tag.chars();
    let is_tag = characters.next().is_none_or(begins_word) && characters.all(continues_word);
    if !is_tag {
        return Err(PredicateError::Dollar);
    }
    let delimiter = format!("${tag}$");
    body.split_once(delimiter.as_str())
        .map(|(_, after)| after)
        .ok_or(PredicateError::Unterminated("dollar-quoted string"))
}

/// The text after the word at the start of `text`, and after the string if the word is its prefix
/// `E`.
fn skip_word(text: &str) -> Result<&str, PredicateError> {
    let end = text.find(|character| !continues_word(character)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    match rest.strip_prefix('\'') {
        Some(after) if word.eq_ignore_ascii_case("e") => skip_escape_string(after),
        _ => Ok(rest),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::PredicateError as E;
    use super::*;

    #[test]
    fn ordinary_conditions_pass() {
        for text in [
            "kind <> 'test'",
            "(a = 1 OR b = 2) AND NOT (c)",
            "note = 'it''s; (fine'",
            r#""Odd ""name"" ;)" = 1"#,
            "body ~ '\\d+'",
            "path like 'a\\_%' escape E'\\\\'",
            "path = 'C:\\\\'",
            "e = E'\\'; ('",
            "x = $$ ; ) ' $$",
            "x = $tag$ ; $$ ) $tag$",
            "a /* ; ) /* nested ' */ ' */ > 1",
            "a > 1 -- only ); the 'good' ones",
            "price$net > 1 AND a$$ = 2",
            "tags ? 'x' AND data @> '{\"a\": 1}'",
            "id IN (SELECT id FROM allowed)",
            "größe > 1",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_could_break_out_is_refused() {
        for (text, error) in [
            ("", E::Empty),
            (" \n\t", E::Empty),
            ("-- nothing", E::Empty),
            ("/* nothing */", E::Empty),
            ("a = '\0'", E::Nul),
            ("true; DROP TABLE x", E::Semicolon),
            ("true) OR (true", E::Unopened),
            ("true) -- ", E::Unopened),
            ("a = '(' )", E::Unopened),
            ("-- comment\r) ; DROP TABLE x --", E::Unopened),
            ("-- comment\n) OR (true", E::Unopened),
            ("(a = 1", E::Unclosed),
            ("(a = ')'", E::Unclosed),
            ("(a -- )", E::Unclosed),
            ("a = 'x", E::Unterminated("string")),
            ("a = '''", E::Unterminated("string")),
            ("a = E'x\\'", E::Unterminated("string")),
            ("a = E'\\", E::Unterminated("string")),
            ("\"a", E::Unterminated("quoted name")),
            ("\"a\"\"", E::Unterminated("quoted name")),
            ("true /*", E::Unterminated("comment")),
            ("true /* /* */", E::Unterminated("comment")),
            ("true /*/", E::Unterminated("comment")),
            ("a = $$x", E::Unterminated("dollar-quoted string")),
            ("a = $t$ x $$", E::Unterminated("dollar-quoted string")),
            ("a = $t$ x $T$", E::Unterminated("dollar-quoted string")),
            ("a = $1", E::Dollar),
            ("a = $1 and b = $2", E::Dollar),
            ("a = $", E::Dollar),
            ("a = 'x\\' OR b = ') OR (true'", E::Backslash),
            ("a = E'x'\n'\\'); DROP TABLE x --'", E::Backslash),
            ("a = type'\\'", E::Backslash),
            ("a = 1$$;$$) OR (1", E::Unopened),
        ] {
            assert_eq!(check(text), Err(error), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = check(&text);
        }

        /// The input is dense in significant characters. The oracle is that an accepted text can
        /// neither absorb nor lose the parenthesis that follows it.
        #[test]
        fn an_accepted_text_ends_where_it_ends(
            text in "(\\(|\\)|'|\"|\\$|\\$t\\$|E'|\\\\|--|/\\*|\\*/|\n|\r|;|a|1|é| ){0,16}"
        ) {
            if check(&text).is_ok() {
                prop_assert_eq!(check(&format!("(\n{text}\n)")), Ok(()));
                prop_assert_eq!(check(&format!("(\n{text}\n))")), Err(E::Unopened));
                prop_assert_eq!(check(&format!("(\n{text}\n);")), Err(E::Semicolon));
                prop_assert_eq!(check(&format!("({text}\n")), Err(E::Unclosed));
            }
        }
    }
}
