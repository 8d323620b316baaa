//! The columns that a measure creates, and the SQL that fills them.

use super::Input;
use crate::model::sql::{ident, literal};

/// The columns of one measure, or of all measures of a rollup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    /// The columns that Tallymark writes, in the rollup's table and in its stage.
    pub(crate) fields: Vec<Field>,
    /// The columns of the rollup's table that PostgreSQL computes from these.
    pub(crate) generated: Vec<Generated>,
}

/// A column of the rollup table that holds a measure, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    pub name: String,
    /// Its type in the rollup table.
    pub sql_type: String,
    /// Its type in the stage table, exact where the final type is not.
    pub stage_type: String,
    /// The collation by which its values are compared, quoted, where it differs from the type's
    /// own.
    pub collation: Option<String>,
    /// The column's value as it may be written: itself, or an error beyond a limit. It may use the
    /// kind's functions.
    pub(crate) limited: Option<String>,
    /// Its value over no rows, in its own type, where that is another than NULL.
    pub(crate) empty: Option<String>,
    pub expressions: Expressions,
}

/// The SQL that fills a [`Field`]: aggregates over the rows of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expressions {
    /// Over the source's rows: the final value, if one statement reads and replaces a slice.
    pub direct: String,
    /// Over the source's rows: the staged value, if one statement reads a slice.
    pub whole: String,
    /// Over the source's rows of one chunk: a partial. If values are staged, also over the rows of
    /// one value.
    pub partial: String,
    /// Over the stage's rows of a slice in one piece: the final value.
    pub from_whole: String,
    /// Over the stage's rows of all chunks: the final value.
    pub from_partials: String,
}

/// A column that PostgreSQL computes from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generated {
    pub(crate) name: String,
    pub(crate) sql_type: String,
    pub(crate) expression: String,
    /// The same for databases without the kind's functions, where `expression` uses them.
    pub(crate) plain: Option<String>,
}

impl Generated {
    /// Its expression in a statement over rows with its measure's columns, in any database.
    #[must_use]
    pub(crate) fn anywhere(&self) -> &str {
        self.plain.as_deref().unwrap_or(&self.expression)
    }
}

/// A source column whose distinct values a measure needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueColumn {
    /// Its name in the source.
    pub(crate) column: String,
    /// Its type in the stage table.
    pub(crate) stage_type: String,
    /// The collation by which values are equal, quoted, where it differs from the type's own.
    pub(crate) collation: Option<String>,
}

impl Field {
    /// A column of the same type in the rollup's table and in the stage.
    #[must_use]
    pub(crate) fn new(name: &str, sql_type: &str, expressions: Expressions) -> Self {
        Self {
            name: name.to_owned(),
            sql_type: sql_type.to_owned(),
            stage_type: sql_type.to_owned(),
            collation: None,
            limited: None,
            empty: None,
            expressions,
        }
    }

    /// The same with this value over no rows, a text that its type reads.
    #[must_use]
    pub(crate) fn or(self, empty: &str) -> Self {
        let empty = Some(format!("{}::{}", literal(empty), self.sql_type));
        Self { empty, ..self }
    }
}

impl Expressions {
    /// For a partial that one aggregate merges. `direct` is the final value over the source's rows,
    /// `rows` is staged, and `merge` gets a filter and returns the aggregate over the stage.
    #[must_use]
    pub(crate) fn merged(
        input: &Input<'_>,
        direct: String,
        rows: String,
        merge: impl Fn(&str) -> String,
    ) -> Self {
        Self {
            direct,
            whole: rows.clone(),
            partial: rows,
            from_whole: merge(""),
            from_partials: merge(&input.tags.filter_of_group()),
        }
    }

    /// For an aggregate over `value` that merges its own results, which are in the column `name`.
    #[must_use]
    pub(crate) fn of_aggregate(
        input: &Input<'_>,
        aggregate: &str,
        value: &str,
        name: &str,
    ) -> Self {
        let rows = format!("{aggregate}({value}){}", input.filter());
        let merge = |rows: &str| format!("{aggregate}({}){rows}", ident(name));
        Self::merged(input, rows.clone(), rows, merge)
    }
}

impl From<Field> for Columns {
    fn from(field: Field) -> Self {
        Self { fields: vec![field], generated: vec![] }
    }
}
