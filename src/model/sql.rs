//! Quoting for the SQL that Tallymark builds: identifiers and literals from configuration.

use crate::model::clock::rfc3339;
use std::fmt;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;

/// A table or view: an optional schema and a name, both exactly as PostgreSQL stores them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// The schema. `None` leaves it to the connection's `search_path`.
    pub(crate) schema: Option<String>,
    pub(crate) name: String,
}

impl fmt::Display for TableName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            Some(schema) => write!(f, "{schema}.{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// `name` as an SQL identifier: `"Order ""x"""`.
#[must_use]
pub(crate) fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `name` in the form that an operator's statement needs: quoted unless it is plain.
#[must_use]
pub(crate) fn shown(name: &str) -> String {
    let is_plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { ident(name) }
}

/// `table` as a qualified SQL identifier.
#[must_use]
pub fn table(table: &TableName) -> String {
    match &table.schema {
        Some(schema) => format!("{}.{}", ident(schema), ident(&table.name)),
        None => ident(&table.name),
    }
}

/// `text` as an SQL literal, valid with any `standard_conforming_strings`.
#[must_use]
pub(crate) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// `text` in dollar quotes, as a function's body, with a tag that does not occur in the text.
#[must_use]
pub(crate) fn dollar_quoted(text: &str) -> String {
    let body = format!("\n{}\n", text.trim());
    let mut tag = "$tallymark$".to_owned();
    let mut count = 0_usize;
    while format!("{body}{tag}").find(&tag) != Some(body.len()) {
        count += 1;
        tag = format!("$tallymark{count}$");
    }
    format!("{tag}{body}{tag}")
}

/// `instant` as a `timestamptz` literal.
#[must_use]
pub(crate) fn timestamptz(instant: DateTime<Utc>) -> String {
    format!("'{}'::timestamptz", rfc3339(instant))
}

/// The local date in `zone` at `instant` as a `date` literal.
#[must_use]
pub(crate) fn date(zone: Tz, instant: DateTime<Utc>) -> String {
    format!("'{}'::date", instant.with_timezone(&zone).date_naive())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_end_an_identifier_or_a_literal() {
        assert_eq!(ident(r#"a"; DROP"#), r#""a""; DROP""#);
        assert_eq!([shown("web_1"), shown("Web"), shown("1 x")], ["web_1", "\"Web\"", "\"1 x\""]);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"\'; DROP"), r"E'\\''; DROP'");
        assert_eq!(dollar_quoted("x"), "$tallymark$\nx\n$tallymark$");
        let hostile = dollar_quoted("a$tallymark$; DROP $tallymark1$");
        assert!(hostile.starts_with("$tallymark2$\na$") && hostile.ends_with("\n$tallymark2$"));
    }
}
