//! Expressions: SQL over a source's columns, which dimensions and measures read like columns.
//!
//! [`beside`] is the only place where their texts enter a statement. PostgreSQL gives each
//! expression its type ([`columns`]), and shows whether its value can change without a write
//! ([`prove`]).

use sqlx::Row as _;

use crate::clients::db::{DbError, DbErrorKind, Tx};
use crate::model::hint::Fault;
use crate::model::lookup::{self, Lookup};
use crate::model::measure::Column;
use crate::model::operand::Operand;
use crate::model::rollup::Rollup;
use crate::model::sql::{ident, literal, shown, table};
use crate::source::reading::privileges;
use crate::source::reading::shape::{self, ShapeError};

/// The name of the relation that has the expressions.
const ALIAS: &str = "__sql";

const DOING: &str = "looking at an expression";

/// `relation` with `expressions` as further columns.
///
/// A list of VALUES allows no aggregate and no function that returns several rows. PostgreSQL
/// merges one of a single row into the query, so an index on the time still serves.
#[must_use]
pub(crate) fn beside(relation: String, expressions: &[(String, Operand)]) -> String {
    let columns = expressions.iter().filter_map(|(_, operand)| Some((operand, operand.sql()?)));
    let (names, values): (Vec<_>, Vec<_>) = columns
        // The line break ends a comment at the end of the text.
        .map(|(operand, sql)| (ident(operand.name()), format!("(\n{sql}\n)")))
        .unzip();
    if names.is_empty() {
        return relation;
    }
    format!(
        "{relation} CROSS JOIN LATERAL (VALUES ({})) AS {ALIAS} ({})",
        values.join(", "),
        names.join(", ")
    )
}

/// The relation whose columns the expressions of `rollup` read: the table with its lookups.
#[must_use]
pub(crate) fn columns_of(rollup: &Rollup) -> String {
    lookup::joined(table(&rollup.from), &rollup.lookups)
}

/// The same columns without the conditions of joins, whose functions are no part of an expression.
fn side_by_side(rollup: &Rollup) -> String {
    let lookups = rollup.lookups.iter().map(Lookup::relation);
    std::iter::once(table(&rollup.from)).chain(lookups).collect::<Vec<_>>().join(", ")
}

/// The expressions of `rollup` as columns of its relation, with their types and collations. `role`
/// is the role that asks.
///
/// # Errors
/// PostgreSQL refuses an expression, or cannot be reached.
pub(super) async fn columns(
    tx: &mut Tx,
    rollup: &Rollup,
    role: &str,
) -> Result<Vec<Column>, ShapeError> {
    let mut columns = Vec::new();
    for expression in rollup.expressions() {
        let (key, operand) = &expression;
        let typed = format!(
            include_str!("expression_type.sql"),
            name = literal(operand.name()),
            column = ident(operand.name()),
            relation = beside(columns_of(rollup), std::slice::from_ref(&expression)),
        );
        let found = shape::described(tx, typed, DOING).await;
        let found = found.map_err(|error| refusal(error, rollup, key, role))?;
        let named = |column| Column { sql: operand.sql().map(str::to_owned), ..column };
        columns.extend(found.into_iter().map(named));
    }
    Ok(columns)
}

/// The error of a server that refused the expression at `key`.
fn refusal(error: DbError, rollup: &Rollup, key: &str, role: &str) -> ShapeError {
    match error.kind() {
        DbErrorKind::Missing | DbErrorKind::Refused => {
            ShapeError::Unfit { rollup: rollup.name.clone(), problem: Fault::of(&error).at(key) }
        }
        _ => privileges::refusal(error, rollup, role),
    }
}

/// Whether the values of a rollup's expressions can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// They change only when a row does.
    Proven,
    /// The server is a replica, where the question cannot be asked.
    OnReplica,
}

/// Asks PostgreSQL whether everything in the expressions of `rollup` is immutable under the
/// settings that each transaction makes. The temporary view that this needs goes when `tx` is
/// rolled back.
///
/// # Errors
/// An expression is not, or the role may not ask, or the server refuses or cannot be reached.
pub(crate) async fn prove(tx: &mut Tx, rollup: &Rollup) -> Result<Proof, ShapeError> {
    let unfit = |problem: Fault| ShapeError::Unfit { rollup: rollup.name.clone(), problem };
    let asked = asking(tx).await?;
    if asked.is_replica {
        return Ok(Proof::OnReplica);
    }
    asked.may_ask().map_err(unfit)?;
    for (key, operand) in &rollup.expressions() {
        let sql = operand.sql().unwrap_or_default();
        let from = side_by_side(rollup);
        let view = format!(
            "CREATE TEMP VIEW tallymark_expression AS SELECT (\n{sql}\n) AS value FROM {from}"
        );
        let made = tx.execute(DOING, view).await;
        made.map_err(|error| refusal(error, rollup, key, &asked.role))?;
        let found = Findings::read(tx, sql).await?;
        tx.execute(DOING, "DROP VIEW pg_temp.tallymark_expression".to_owned()).await?;
        found.judge().map_err(|fault| unfit(fault.at(key)))?;
    }
    Ok(Proof::Proven)
}

/// Who asks, and where.
struct Asking {
    role: String,
    database: String,
    is_replica: bool,
    is_read_only: bool,
    may_make_views: bool,
}

async fn asking(tx: &mut Tx) -> Result<Asking, DbError> {
    let sql = "SELECT current_user::text AS role, current_database()::text AS database, \
               pg_is_in_recovery() AS is_replica, \
               current_setting('transaction_read_only')::bool AS is_read_only, \
               has_database_privilege(current_database(), 'TEMPORARY') AS may_make_views";
    let row = tx.row(DOING, sql.to_owned()).await?;
    let read = || {
        Ok::<_, sqlx::Error>(Asking {
            role: row.try_get("role")?,
            database: row.try_get("database")?,
            is_replica: row.try_get("is_replica")?,
            is_read_only: row.try_get("is_read_only")?,
            may_make_views: row.try_get("may_make_views")?,
        })
    };
    read().map_err(|source| tx.error(DOING, source))
}

impl Asking {
    /// Whether this role can make a temporary view.
    fn may_ask(&self) -> Result<(), Fault> {
        const FACTS: &str =
            "PostgreSQL shows whether an expression is immutable by a temporary view";
        let (role, database) = (shown(&self.role), shown(&self.database));
        if self.is_read_only {
            return Err(Fault::new(format!("{FACTS}, and transactions of {role} are read-only"))
                .remedy(
                    "add options=-c%20default_transaction_read_only%3Doff to the address for `init` \
                     and `check`",
                ));
        }
        if !self.may_make_views {
            return Err(Fault::new(format!("{FACTS}, which {role} may not make")).remedy(format!(
                "as the database's owner: GRANT TEMPORARY ON DATABASE {database} TO {role}"
            )));
        }
        Ok(())
    }
}

/// The parts of an expression that may give another value although no row changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Findings {
    function: Option<String>,
    node: Option<String>,
    has_system_column: bool,
    has_moment: bool,
}

impl Findings {
    async fn read(tx: &mut Tx, sql: &str) -> Result<Self, DbError> {
        let question = include_str!("expression.sql").replace("{sql}", &literal(sql));
        let row = tx.row(DOING, question).await?;
        let read = || {
            Ok::<_, sqlx::Error>(Self {
                function: row.try_get("function")?,
                node: row.try_get("node")?,
                has_system_column: row.try_get("has_system_column")?,
                has_moment: row.try_get("has_moment")?,
            })
        };
        read().map_err(|source| tx.error(DOING, source))
    }

    /// Refuses the first of them.
    fn judge(&self) -> Result<(), Fault> {
        const AGAIN: &str = "a slice that runs again could give other numbers";
        let refused = |facts: String, remedy: &str| Err(Fault::new(facts).remedy(remedy));
        match (self.node.as_deref(), &self.function) {
            (Some("SQLVALUEFUNCTION"), _) => refused(
                format!("it asks for the present time or user, so {AGAIN}"),
                "use columns of the row only",
            ),
            (Some("SUBLINK"), _) => refused(
                "it has a subquery, and rows of another table may change unnoticed".to_owned(),
                "use columns of the row only",
            ),
            (Some(node), _) => refused(
                format!("it is not known whether the part {node} always gives the same value"),
                "write it with functions and operators",
            ),
            (None, Some(function)) => refused(
                format!("{function} is not immutable, so {AGAIN}"),
                "use an immutable function; for text with a time, to_timestamp(text, format)",
            ),
            (None, None) if self.has_system_column => refused(
                "it reads a system column, which changes without a change of the row".to_owned(),
                "use columns of the table only",
            ),
            (None, None) if self.has_moment => refused(
                format!("a literal in it means the present time, so {AGAIN}"),
                "write an instant",
            ),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_stand_beside_the_columns_of_the_table() {
        let of = |sql: &str| ("key".to_owned(), Operand::expression(sql));
        assert_eq!(beside("t".into(), &[]), "t");
        let found = beside("t".into(), &[of("a -- b"), of("c")]);
        let names = [of("a -- b"), of("c")].map(|(_, operand)| ident(operand.name()));
        let wanted = format!(
            "t CROSS JOIN LATERAL (VALUES ((\na -- b\n), (\nc\n))) AS __sql ({})",
            names.join(", ")
        );
        assert_eq!(found, wanted);
    }

    #[test]
    fn whatever_may_change_without_a_write_is_refused() {
        let none = Findings::default();
        assert_eq!(none.judge(), Ok(()));
        let some = |text: &str| Some(text.to_owned());
        for found in [
            Findings { function: some("now()"), ..none.clone() },
            Findings { node: some("SQLVALUEFUNCTION"), ..none.clone() },
            Findings { node: some("SUBLINK"), ..none.clone() },
            Findings { node: some("XMLEXPR"), ..none.clone() },
            Findings { has_system_column: true, ..none.clone() },
            Findings { has_moment: true, ..none.clone() },
        ] {
            assert!(found.judge().is_err(), "{found:?}");
        }
    }
}
