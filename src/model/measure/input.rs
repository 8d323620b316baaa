//! The input of a measure, with the catalogue's answers.

use super::partial::Tags;
use super::{Column, Columns, Measure, ValueColumn};
use crate::model::hint::Fault;

/// A measure and its columns.
#[derive(Clone, Debug)]
pub struct Input<'a> {
    pub(crate) measure: &'a Measure,
    /// The columns that it reads, in the order of [`Kind::reads`](super::Kind::reads) or of
    /// [`Kind::reads_finer`](super::Kind::reads_finer).
    pub(crate) columns: Vec<&'a Column>,
    /// PostgreSQL's type of [`Kind::typed`](super::Kind::typed). From a finer rollup it is the type
    /// of the first column.
    pub(crate) sql_type: String,
    /// Whether source and target are the same database.
    pub(crate) same_database: bool,
    /// Whether its column is also a dimension of the rollup.
    pub(crate) is_dimension: bool,
    /// The place of its column among those with staged values.
    pub(crate) place: Option<usize>,
    /// The tags that distinguish the stage's rows.
    pub(crate) tags: Tags,
}

/// The input of a rollup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// The rows of the source.
    Rows,
    /// The table of a finer rollup.
    Finer,
}

impl<'a> Input<'a> {
    /// The input of `measure` alone, before [`lay_out`] sets its place beside others.
    #[must_use]
    pub(crate) fn new(
        measure: &'a Measure,
        columns: Vec<&'a Column>,
        sql_type: String,
        same_database: bool,
        is_dimension: bool,
    ) -> Self {
        let (place, tags) = (None, Tags::default());
        Self { measure, columns, sql_type, same_database, is_dimension, place, tags }
    }

    /// The name of the measure's column. It is empty if the measure counts rows.
    #[must_use]
    pub(crate) fn column(&self) -> &str {
        self.measure.column_name()
    }

    /// The measure's condition as a filter behind an aggregate.
    #[must_use]
    pub(crate) fn filter(&self) -> String {
        // The condition may end in a comment, and the line break ends it.
        let filter = self.measure.filter.as_ref();
        filter.map_or_else(String::new, |filter| format!(" FILTER (WHERE (\n{filter}\n))"))
    }

    /// The same for the rows that meet `condition` too.
    #[must_use]
    pub(crate) fn filter_and(&self, condition: &str) -> String {
        let filter = self.measure.filter.as_ref();
        let filter = filter.map_or_else(String::new, |filter| format!("(\n{filter}\n) AND "));
        format!(" FILTER (WHERE {filter}{condition})")
    }

    /// The type of the values of `column` in the target. `None`: the target lacks such a type.
    #[must_use]
    pub(crate) fn type_in_target(&self, column: &Column) -> Option<String> {
        if self.same_database { Some(column.sql_type.clone()) } else { column.type_abroad() }
    }

    /// The collation that orders the values of its column. The target compares partials again, and
    /// its default order may differ.
    ///
    /// # Errors
    /// The target cannot compare them as the source does.
    pub(crate) fn order(&self) -> Result<Option<String>, Fault> {
        let (name, Some(column)) = (&self.measure.name, self.columns.first()) else {
            return Ok(None);
        };
        if self.same_database {
            return Ok(column.collation.clone());
        }
        if !column.portable {
            let fault = Fault::new(format!(
                "measures.{name}: type {} exists only in the source's database and cannot be compared \
                 in another one",
                self.sql_type
            ));
            return Err(fault.remedy(column.recast()));
        }
        if column.own_order {
            let fault = Fault::new(format!(
                "measures.{name}: {} has a collation that another database does not know",
                column.in_words()
            ));
            let place = if column.sql.is_none() { "in a view" } else { "in the expression" };
            return Err(fault.remedy(format!(
                "keep the target in the source's database or give it another one {place}, such as \
                 COLLATE \"C\""
            )));
        }
        Ok(column.order_abroad.clone())
    }

    /// The column of the stage for the single values of its column.
    ///
    /// # Errors
    /// The target cannot distinguish them as the source does.
    fn value_column(&self) -> Result<ValueColumn, Fault> {
        let name = &self.measure.name;
        let Some(column) = self.columns.first() else {
            return Err(Fault::new(format!("measures.{name}: there are no values to tell apart")));
        };
        let words = column.in_words();
        let stage_type = self.type_in_target(column).filter(|_| column.comparable);
        let Some(stage_type) = stage_type else {
            let fault = Fault::new(format!(
                "measures.{name}: {words} is of a type whose values cannot be told apart here"
            ));
            return Err(fault.remedy(column.recast()));
        };
        if !self.same_database && !column.deterministic {
            let fault = Fault::new(format!(
                "measures.{name}: {words} has a nondeterministic collation, which another database \
                 does not know"
            ));
            let remedy = format!("keep the target in the source's database or {}", column.recast());
            return Err(fault.remedy(remedy));
        }
        let collation = column.collation.clone().filter(|_| self.same_database);
        Ok(ValueColumn { column: column.name.clone(), stage_type, collation })
    }
}

/// The columns of all measures of a rollup, and the columns with staged values.
///
/// # Errors
/// The first measure that does not fit, with the reason.
pub(crate) fn lay_out(
    mut inputs: Vec<Input<'_>>,
    level: Level,
) -> Result<(Columns, Vec<ValueColumn>), Fault> {
    let mut values = Vec::new();
    for input in &mut inputs {
        input.place = place(input, &mut values);
    }
    let mut all = Columns::default();
    for input in &mut inputs {
        input.tags = Tags { values: values.len() };
        let kind = input.measure.kind;
        if kind.needs_values() {
            input.value_column()?;
        }
        let made = match level {
            Level::Rows => kind.over_rows(input)?,
            Level::Finer => kind.over_finer(input)?,
        };
        all.fields.extend(made.fields);
        all.generated.extend(made.generated);
    }
    Ok((all, values))
}

/// The place in `values` of the column whose values `input` needs. Each column takes one place. A
/// dimension needs none, because a group has one value of it. A column whose values cannot be
/// staged gets none, and [`lay_out`] then refuses its measure.
fn place(input: &Input<'_>, values: &mut Vec<ValueColumn>) -> Option<usize> {
    if input.is_dimension || !input.measure.kind.needs_values() {
        return None;
    }
    let column = input.value_column().ok()?;
    let known = values.iter().position(|known| known.column == column.column);
    Some(known.unwrap_or_else(|| {
        values.push(column);
        values.len() - 1
    }))
}
