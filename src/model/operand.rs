//! The values of a source's row that dimensions and measures read.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// What a dimension or a measure reads of each source row: a column, or an SQL expression over
/// columns.
///
/// Statements read both by their names. The relation of the source gives each expression its name
/// (`Source::relation`), so an expression is a column for everything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    name: String,
    sql: Option<String>,
}

impl Operand {
    /// The column `name`.
    #[must_use]
    pub fn column(name: impl Into<String>) -> Self {
        Self { name: name.into(), sql: None }
    }

    /// The expression `sql`. Equal texts have equal names.
    #[must_use]
    pub(crate) fn expression(sql: &str) -> Self {
        let hash = Sha256::digest(sql.as_bytes());
        let hash: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { name: format!("__sql_{hash}"), sql: Some(sql.to_owned()) }
    }

    /// The name by which statements read it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text of an expression. `None`: it is a column.
    #[must_use]
    pub fn sql(&self) -> Option<&str> {
        self.sql.as_deref()
    }

    /// The parts that decide its values.
    #[must_use]
    pub(crate) fn definition(&self) -> Value {
        match &self.sql {
            None => json!(self.name),
            Some(sql) => json!({ "sql": sql }),
        }
    }

    /// The operand of [`Operand::definition`]. `None`: the value is no definition.
    #[must_use]
    pub(crate) fn of_definition(value: &Value) -> Option<Self> {
        match value.as_str() {
            Some(name) => Some(Self::column(name)),
            None => value.get("sql")?.as_str().map(Self::expression),
        }
    }
}

/// A dimension of a rollup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupKey {
    /// Its name in the rollup's table. A column keeps its own.
    pub name: String,
    pub(crate) operand: Operand,
}

impl GroupKey {
    /// The column `name`.
    #[must_use]
    pub(crate) fn column(name: &str) -> Self {
        Self { name: name.to_owned(), operand: Operand::column(name) }
    }

    /// The parts that decide its values.
    #[must_use]
    pub(crate) fn definition(&self) -> Value {
        match self.operand.sql() {
            None => json!(self.name),
            Some(sql) => json!({ (&self.name): sql }),
        }
    }
}
