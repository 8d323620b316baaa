//! Quoting for the SQL that is put together here: identifiers and literals from configuration.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::rollup::TableName;

/// `name` as an SQL identifier: `"Order ""x"""`.
#[must_use]
pub fn ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// `table` as a qualified SQL identifier.
#[must_use]
pub fn table(table: &TableName) -> String {
    match &table.schema {
        Some(schema) => format!("{}.{}", ident(schema), ident(&table.name)),
        None => ident(&table.name),
    }
}

/// `text` as an SQL literal, whatever `standard_conforming_strings` says.
#[must_use]
pub fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// `instant` as a `timestamptz` literal.
#[must_use]
pub fn timestamptz(instant: DateTime<Utc>) -> String {
    format!("'{}'::timestamptz", instant.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_end_an_identifier_or_a_literal() {
        assert_eq!(ident(r#"a"; DROP"#), r#""a""; DROP""#);
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(literal(r"\'; DROP"), r"E'\\''; DROP'");
    }
}
