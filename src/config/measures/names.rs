//! The names of a rollup table's columns, each of which is used once.

use std::collections::HashMap;

use crate::config::raw::Node;
use crate::model::hint::Fault;
use crate::model::text::shown;

/// For messages: the column is already used as a dimension.
pub(super) const DIMENSION: &str = "group_by";

/// The names that no dimension and no measure may have, with their users. PostgreSQL gives each table
/// the first ones.
pub(crate) const RESERVED: [(&str, &str); 9] = [
    ("tableoid", SYSTEM),
    ("xmin", SYSTEM),
    ("cmin", SYSTEM),
    ("xmax", SYSTEM),
    ("cmax", SYSTEM),
    ("ctid", SYSTEM),
    ("bucket", "the column of the bucket's start"),
    ("slice_start", "the stage's key"),
    ("complete", "the series' word for what is final"),
];

const SYSTEM: &str = "a column that PostgreSQL keeps for itself";

/// The used column names of a rollup table, each with its user.
#[derive(Debug)]
pub(super) struct ColumnNames(HashMap<String, &'static str>);

impl ColumnNames {
    pub(super) fn new() -> Self {
        Self(RESERVED.map(|(name, by)| (name.to_owned(), by)).into())
    }

    /// Takes `column`, or reports at `node` what already uses it.
    pub(super) fn take(&mut self, node: &Node<'_>, column: &str, by: &'static str) -> Option<()> {
        let remedy = match by {
            DIMENSION => "leave it out, or read from a view in which it has another name",
            _ => "choose another name",
        };
        if column.starts_with("__") {
            return node.wrong(
                Fault::new(format!(
                    "the column {} begins with `__`, as Tallymark's own do",
                    shown(column)
                ))
                .remedy(remedy),
            );
        }
        if let Some(taken) = self.0.get(column) {
            return node.wrong(
                Fault::new(format!("the column {} is already taken by {taken}", shown(column)))
                    .remedy(remedy),
            );
        }
        self.0.insert(column.to_owned(), by);
        Some(())
    }
}
