//! Reads what dimensions and measures read: columns and SQL expressions.

use crate::model::hint::Fault;
use crate::model::operand::{GroupKey, Operand};

use super::predicate::{self, PredicateError};
use super::raw::{Node, Section};

/// Reads a dimension that is an expression: `{ plan = "props->>'plan'" }`.
pub(super) fn named_expression(section: &Section<'_>) -> Option<GroupKey> {
    let [(name, node)] = &section.entries()[..] else {
        return section.wrong(
            Fault::new("does not name one expression")
                .remedy(r#"write { plan = "props->>'plan'" }"#),
        );
    };
    name_of("dimension", name, node)?;
    Some(GroupKey { name: (*name).to_owned(), operand: expression(node)? })
}

/// Reads a column or an expression: `"amount"`, or `{ sql = "price * quantity" }`.
pub(super) fn operand(node: &Node<'_>) -> Option<Operand> {
    let Some(mut section) = node.as_section() else {
        return node.identifier(r#"the name of a column such as "amount""#).map(Operand::column);
    };
    section.only(&["sql"]);
    expression(&section.need("sql", r#"write { sql = "price * quantity" }"#)?)
}

/// Reads the text of an expression.
fn expression(node: &Node<'_>) -> Option<Operand> {
    let text = node.string(r#"an SQL expression such as "props->>'plan'""#)?;
    match predicate::check(text) {
        Ok(()) => Some(Operand::expression(text)),
        Err(fault) => node.wrong(Fault::of(&fault).remedy_if_known(match fault {
            PredicateError::Empty => Some("write an SQL expression"),
            PredicateError::Semicolon => Some("write one expression, not statements"),
            PredicateError::Dollar => Some("write the value, as expressions take no parameters"),
            _ => None,
        })),
    }
}

/// Reports why `name` is invalid as the name of a measure or of an expression.
pub(super) fn name_of(what: &str, name: &str, node: &Node<'_>) -> Option<()> {
    /// PostgreSQL's 63, less room for `_count` and suffixes of later versions.
    const BYTES_MAX: usize = 48;
    let wrong = |how: &str| Fault::new(format!("the {what}'s name {how}"));
    if name.is_empty() {
        node.wrong(wrong("is empty").remedy("it becomes the column's name"))
    } else if name.contains('\0') {
        node.wrong(wrong("contains a NUL character").remedy("remove it"))
    } else if name.len() > BYTES_MAX {
        node.wrong(wrong(&format!("has {} bytes; {BYTES_MAX} is the most", name.len())))
    } else {
        Some(())
    }
}
