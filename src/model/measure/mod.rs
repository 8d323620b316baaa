//! The measures that a rollup computes for each group.
//!
//! Each kind of measure is one file here and one line in [`KINDS`]. The configuration, the hash of
//! a definition, the shape of the tables and the statements use this registry. Code outside of this
//! folder treats all kinds alike.
//!
//! A kind defines three things: its form in the configuration, its columns in the rollup's table,
//! and the SQL that fills each of them ([`Expressions`]). The SQL reads the rows of the source, the
//! partials of the stage, or the rows of a finer rollup.

mod approximate;
mod average;
mod column;
mod count;
mod distinct;
mod edge;
mod exact;
mod extreme;
mod field;
mod flag;
mod histogram;
mod input;
mod member;
pub(crate) mod partial;
mod percentiles;
mod spread;
mod sum;
#[cfg(test)]
mod tests;

use crate::model::hint::Fault;
use crate::model::operand::Operand;
use std::fmt;

use serde_json::{Map, Value, json};

pub(crate) use column::Column;

pub(crate) use field::{Columns, Expressions, Field, Generated, ValueColumn};
pub(crate) use input::{Input, Level, lay_out};

/// All kinds, in the order in which messages list them.
pub static KINDS: &[&dyn Kind] = &[
    &count::Count,
    &sum::Sum,
    &extreme::LEAST,
    &extreme::GREATEST,
    &average::Average,
    &distinct::Distinct,
    &flag::ANY,
    &flag::EVERY,
    &spread::STDDEV,
    &spread::VARIANCE,
    &histogram::Histogram,
    &edge::FIRST,
    &edge::LAST,
    &exact::Exact,
    &approximate::Approximate,
    &percentiles::Percentiles,
];

/// The kind with the name `word` in the configuration.
#[cfg(test)]
pub(crate) fn kind(word: &str) -> Option<&'static dyn Kind> {
    KINDS.iter().copied().find(|kind| kind.word() == word)
}

/// One measure: its name, its function, and the rows that it covers.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// The column's name in the rollup table. For several columns it is the stem of their names.
    pub name: String,
    /// Its function.
    pub kind: &'static dyn Kind,
    /// What it measures. `None`: the measure counts rows.
    pub column: Option<Operand>,
    /// The values of [`Kind::parameters`], by their keys.
    pub parameters: Map<String, Value>,
    /// SQL condition that a row must meet to be counted here.
    pub filter: Option<String>,
}

impl Measure {
    /// The parts that decide its numbers, for the hash of a definition.
    #[must_use]
    pub(crate) fn definition(&self) -> Value {
        let column = self.column.as_ref().map(Operand::definition);
        let mut parts =
            vec![json!(self.name), json!(self.kind.word()), json!(column), json!(self.filter)];
        let limits = self.kind.parameters().iter().filter(|it| it.role == Role::Limit);
        let limits: Vec<_> = limits.map(|it| it.key).collect();
        let deciding = self.parameters.iter().filter(|(key, _)| !limits.contains(&key.as_str()));
        let mut deciding: Map<_, _> =
            deciding.map(|(key, value)| (key.clone(), value.clone())).collect();
        deciding.extend(self.kind.choice().map(|(key, value)| (key.to_owned(), json!(value))));
        if !deciding.is_empty() {
            parts.push(deciding.into());
        }
        parts.into()
    }

    /// The measure `name` that merges this one of the rollup `finer`.
    ///
    /// # Errors
    /// As for [`Kind::merged_by`].
    pub(crate) fn merged(&self, name: &str, finer: &str) -> Result<Self, String> {
        Ok(Self {
            name: name.to_owned(),
            kind: self.kind.merged_by(self, finer)?,
            column: Some(Operand::column(&*self.name)),
            parameters: self.parameters.clone(),
            filter: None,
        })
    }

    /// The same measure with those parameters of `other` that decide only what is shown.
    #[must_use]
    pub(crate) fn showing(mut self, other: &Self) -> Self {
        let shown = self.kind.parameters().iter().filter(|it| it.role == Role::Shown);
        for (key, value) in shown.filter_map(|it| other.parameters.get_key_value(it.key)) {
            self.parameters.insert(key.clone(), value.clone());
        }
        self
    }

    /// Replaces all columns and expressions that it reads by what `named` makes of them.
    pub(crate) fn rename(&mut self, named: &mut dyn FnMut(&Operand) -> Operand) {
        self.column = self.column.as_ref().map(&mut *named);
        let operands = self.kind.parameters().iter().filter(|it| matches!(it.form, Form::Operand));
        for key in operands.map(|it| it.key) {
            if let Some(value) = self.parameters.get_mut(key)
                && let Some(operand) = Operand::of_definition(value)
            {
                *value = named(&operand).definition();
            }
        }
    }

    /// Whether its values of all groups add up to that of all rows.
    #[must_use]
    pub(crate) fn adds_up(&self) -> bool {
        let merged = self.kind.merged_by(self, "");
        merged.is_ok_and(|kind| kind.word() == sum::Sum.word())
    }

    /// The names of all its columns in the rollup's table.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.kind.names(self)
    }

    /// The columns and expressions that it reads.
    #[must_use]
    pub(crate) fn reads(&self) -> Vec<Operand> {
        self.kind.reads(self)
    }

    /// The name by which statements read its column. It is empty if the measure counts rows.
    #[must_use]
    pub(crate) fn column_name(&self) -> &str {
        self.column.as_ref().map_or("", Operand::name)
    }

    /// The column whose distinct values are staged.
    #[must_use]
    pub(crate) fn values_of(&self) -> Option<&Operand> {
        self.column.as_ref().filter(|_| self.kind.needs_values())
    }
}

/// The value of a kind's word in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// None, or `true`: the measure counts rows. The text is the error for any other value.
    Rows(&'static str),
    /// The name of a column.
    Column,
}

/// A parameter of a kind beside its column.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// The key in the configuration.
    pub key: &'static str,
    /// A valid value as the configuration writes it, for messages and tests. If it names a column,
    /// the tests' tables have `updated_at`.
    pub example: &'static str,
    pub role: Role,
    pub form: Form,
}

/// The values of a parameter.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// A column or an expression. [`Measure::parameters`] holds its [`Operand::definition`].
    Operand,
    /// Values of the kind's own.
    Value {
        /// Returns why a value is wrong, and what would be right.
        check: fn(&Value) -> Result<(), String>,
        /// The JSON Schema of a value. It refuses only values that `check` refuses.
        schema: fn() -> Value,
    },
}

/// The effect of a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It decides numbers and must be given.
    Definition,
    /// It must be given, and decides what is shown of a result that merges whatever it shows. A
    /// coarse rollup may give another.
    Shown,
    /// It may be left out. It limits a result, and another limit leaves the numbers as they are.
    Limit,
}

/// A function or an aggregate in the schema `tallymark` of the target.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    pub(crate) name: &'static str,
    /// The types of its arguments, as PostgreSQL lists them.
    pub(crate) arguments: &'static str,
    /// The statement that creates it. The body of a function stands between `$body$`.
    pub(crate) sql: &'static str,
    /// What it is for, as its comment in the database.
    pub(crate) comment: &'static str,
}

/// A kind of measure.
///
/// # Rules for a new kind
///
/// - It may create several columns. The accumulators that merge are stored in the rollup's table
///   beside the result, because a coarse rollup reads them there.
/// - The source may be read-only and elsewhere, so only [`Generated::expression`] and
///   [`Field::limited`], which are for the target's tables, use the kind's functions.
/// - The stage has the same columns as the table, of type [`Field::stage_type`]. A column that is
///   computed from its neighbours may be NULL in a partial.
/// - A merge runs over the stage's rows of one group, and may read all columns of its own measure.
///   A subquery over `unnest(array_agg(…))` of them can group again.
/// - The target's types and default order may differ from the source's (see
///   [`Input::type_in_target`] and [`Input::order`]).
/// - A kind that cannot be merged returns an error from [`Kind::merged_by`]. With
///   [`Kind::needs_values`] it is still exact over chunks, because the values are staged.
pub trait Kind: fmt::Debug + Sync {
    /// Its name in the configuration, in the hash of a definition and in messages.
    fn word(&self) -> &'static str;

    /// The key and the value that choose this kind among those of the same word.
    fn choice(&self) -> Option<(&'static str, &'static str)> {
        None
    }

    /// The value that its word takes.
    fn subject(&self) -> Subject {
        Subject::Column
    }

    /// A column that it can read, for tests: their tables have the number `amount` and the boolean
    /// `is_paid`.
    fn example_column(&self) -> &'static str {
        "amount"
    }

    /// Its parameters beside the column.
    fn parameters(&self) -> &'static [Parameter] {
        &[]
    }

    /// The names of all columns of `measure` in the rollup's table, with generated ones.
    fn names(&self, measure: &Measure) -> Vec<String> {
        vec![measure.name.clone()]
    }

    /// The columns and expressions that `measure` reads. Its condition may read other columns.
    fn reads(&self, measure: &Measure) -> Vec<Operand> {
        measure.column.iter().cloned().collect()
    }

    /// Whether it needs the distinct values of its column. Then PostgreSQL must be able to group by
    /// them, and a chunk stages one row for each value of each group beside the group's own row.
    fn needs_values(&self) -> bool {
        false
    }

    /// The functions that its columns use, and those with which readers read and merge them.
    fn functions(&self) -> &'static [Function] {
        &[]
    }

    /// How far its numbers may be from exact ones. `None`: they are exact.
    fn approximation(&self) -> Option<&'static str> {
        None
    }

    /// The aggregate whose type becomes [`Input::sql_type`]. PostgreSQL refuses it if the kind
    /// accepts no column of this type.
    fn typed(&self, _measure: &Measure) -> String {
        "count(*)".to_owned()
    }

    /// The columns of a measure over the source.
    ///
    /// # Errors
    /// The source's columns do not fit.
    fn over_rows(&self, input: &Input<'_>) -> Result<Columns, Fault>;

    /// The kind by which a coarse rollup merges `own`, a measure of this kind in the rollup
    /// `finer`.
    ///
    /// # Errors
    /// It cannot be merged. The text gives the reason and an alternative.
    fn merged_by(&'static self, own: &Measure, finer: &str) -> Result<&'static dyn Kind, String>;

    /// Whether a coarse rollup may also compute it from a dimension of the finer one, where one row
    /// represents many rows of the source.
    fn merges_dimensions(&self) -> bool {
        false
    }

    /// The columns of the finer rollup's table that a coarse rollup's `measure` reads.
    fn reads_finer(&self, measure: &Measure) -> Vec<String> {
        measure.column.iter().map(|column| column.name().to_owned()).collect()
    }

    /// The columns of a measure over a finer rollup.
    ///
    /// # Errors
    /// The finer rollup's columns do not fit.
    fn over_finer(&self, input: &Input<'_>) -> Result<Columns, Fault> {
        self.over_rows(input)
    }
}

impl PartialEq for dyn Kind {
    fn eq(&self, other: &Self) -> bool {
        self.word() == other.word() && self.choice() == other.choice()
    }
}
