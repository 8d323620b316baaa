//! What a rollup computes for each group.
//!
//! Each kind of measure is one file here and one line in [`KINDS`]. The configuration, the hash of
//! a definition, the shape of the tables and the statements ask the registry; outside of this
//! folder no code knows one kind from another.
//!
//! A kind answers three questions: how a measure is written in the configuration, which columns it
//! makes in the rollup's table, and which SQL fills each of them ([`Expressions`]) from the rows of
//! the source, from the partials of the stage, and from the rows of a finer rollup.

mod average;
mod column;
mod count;
mod distinct;
mod extreme;
mod field;
mod input;
pub mod partial;
mod sum;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Map, Value, json};

pub use column::Column;
pub use field::{Columns, Expressions, Field, Generated, ValueColumn};
pub use input::{Input, Level, lay_out};

/// All kinds, in the order in which messages list them.
pub static KINDS: &[&dyn Kind] = &[
    &count::Count,
    &sum::Sum,
    &extreme::LEAST,
    &extreme::GREATEST,
    &average::Average,
    &distinct::Distinct,
];

/// The kind that the configuration calls `word`.
#[must_use]
pub fn kind(word: &str) -> Option<&'static dyn Kind> {
    KINDS.iter().copied().find(|kind| kind.word() == word)
}

/// One measure: a name, what is computed, and over which rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// The column's name in the rollup table, or the stem of the names of several.
    pub name: String,
    /// What is computed.
    pub kind: &'static dyn Kind,
    /// The source column that it is computed from; `None`: from the rows themselves.
    pub column: Option<String>,
    /// The values of [`Kind::parameters`], by their keys.
    pub parameters: Map<String, Value>,
    /// SQL condition that a row must meet to be counted here.
    pub filter: Option<String>,
}

impl Measure {
    /// What decides its numbers, for the hash of a definition.
    #[must_use]
    pub fn definition(&self) -> Value {
        let mut parts =
            vec![json!(self.name), json!(self.kind.word()), json!(self.column), json!(self.filter)];
        if !self.parameters.is_empty() {
            parts.push(json!(self.parameters));
        }
        parts.into()
    }

    /// The names of all columns that it makes in the rollup's table.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.kind.names(self)
    }

    /// The columns of the source that it reads.
    #[must_use]
    pub fn reads(&self) -> Vec<String> {
        self.kind.reads(self)
    }

    /// The column whose distinct values must be told apart.
    #[must_use]
    pub fn values_of(&self) -> Option<&str> {
        self.column.as_deref().filter(|_| self.kind.needs_values())
    }
}

/// What stands behind a kind's word in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Nothing, or `true`: the rows themselves. The text is the answer to any other value.
    Rows(&'static str),
    /// The name of a column.
    Column,
}

/// What a kind needs to be told beside its column.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// The key in the configuration.
    pub key: &'static str,
    /// A right value as it is written in the configuration, for messages and tests. If it names a
    /// column, the tests' tables have `updated_at`.
    pub example: &'static str,
    /// Says why a value is wrong, and what would be right.
    pub check: fn(&Value) -> Result<(), String>,
}

/// A kind of measure.
///
/// # What a new kind can rely on
///
/// - It may make several columns. The accumulators that merge stand in the rollup's table beside
///   the result, because a coarse rollup is computed from there.
/// - The stage has the same columns as the table, in the type [`Field::stage_type`]. A column that
///   is computed from its neighbours may be NULL in a partial.
/// - A merge is evaluated over the stage's rows of one group, and may read all columns of its own
///   measure there. A subquery over `unnest(array_agg(…))` of them is an inner grouping.
/// - The target's types and default order may differ from the source's: see
///   [`Input::type_in_target`] and [`Input::order`].
/// - A kind that cannot be merged says so in [`Kind::merged_by`]. With [`Kind::needs_values`] it is
///   exact over chunks all the same, from the values that are staged.
pub trait Kind: fmt::Debug + Sync {
    /// The word for it in the configuration, in the hash of a definition and in messages.
    fn word(&self) -> &'static str;

    /// What stands behind the word.
    fn subject(&self) -> Subject {
        Subject::Column
    }

    /// What it needs to be told beside its column.
    fn parameters(&self) -> &'static [Parameter] {
        &[]
    }

    /// The names of all columns that `measure` makes in the rollup's table, generated ones too.
    fn names(&self, measure: &Measure) -> Vec<String> {
        vec![measure.name.clone()]
    }

    /// The columns of the source that `measure` reads; its conditions may read others.
    fn reads(&self, measure: &Measure) -> Vec<String> {
        measure.column.iter().cloned().collect()
    }

    /// Whether it needs the distinct values of its column. Then PostgreSQL must be able to tell
    /// them apart, and a chunk stages a row for each value of each group beside the group's own.
    fn needs_values(&self) -> bool {
        false
    }

    /// The aggregate whose type PostgreSQL is asked for: [`Input::sql_type`]. PostgreSQL refuses it
    /// where the kind does not take a column of this type.
    fn typed(&self, _measure: &Measure) -> String {
        "count(*)".to_owned()
    }

    /// The columns of a measure that is computed from the source.
    ///
    /// # Errors
    /// The source's columns do not fit.
    fn over_rows(&self, input: &Input<'_>) -> Result<Columns, String>;

    /// By which kind a coarse rollup merges `own`, a measure of this kind in the rollup `finer`.
    ///
    /// # Errors
    /// It cannot be merged: why, and what to write instead.
    fn merged_by(&'static self, own: &Measure, finer: &str) -> Result<&'static dyn Kind, String>;

    /// Whether a coarse rollup may also compute it from a dimension of the finer one, of which a row
    /// stands for many rows of the source.
    fn merges_dimensions(&self) -> bool {
        false
    }

    /// The columns of the finer rollup's table that `measure` of a coarse one reads.
    fn reads_finer(&self, measure: &Measure) -> Vec<String> {
        measure.column.iter().cloned().collect()
    }

    /// The columns of a measure that is computed from a finer rollup.
    ///
    /// # Errors
    /// The finer rollup's columns do not fit.
    fn over_finer(&self, input: &Input<'_>) -> Result<Columns, String> {
        self.over_rows(input)
    }
}

impl PartialEq for dyn Kind {
    fn eq(&self, other: &Self) -> bool {
        self.word() == other.word()
    }
}
