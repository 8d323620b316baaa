//! Lookups: proves that each finds at most one row, and that this role may read it.

use sqlx::Row as _;

use crate::clients::db::{DbError, Tx};
use crate::model::hint::Fault;
use crate::model::lookup::Lookup;
use crate::model::measure::Column;
use crate::model::rollup::Rollup;
use crate::model::sql::{ident, literal, table};
use crate::source::reading::privileges::refusal_of;
use crate::source::reading::shape::{self, ShapeError};

const DOING: &str = "looking at a lookup";

/// Refuses a lookup that may find several rows, or that `role` may not read. `columns` are those of
/// the source.
///
/// # Errors
/// A lookup is refused, or the server cannot be reached.
pub(super) async fn check(
    tx: &mut Tx,
    rollup: &Rollup,
    columns: &[Column],
    role: &str,
) -> Result<(), ShapeError> {
    for lookup in &rollup.lookups {
        let unfit = |problem: Fault| ShapeError::Unfit {
            rollup: rollup.name.clone(),
            problem: problem.at(format!("lookup.{}", lookup.name)),
        };
        let own = shape::catalogue(tx, &lookup.table).await?;
        if own.is_empty() {
            let facts = format!("there is no table `{}` that this role can see", lookup.table);
            let near = shape::near_tables(tx, &lookup.table).await?;
            return Err(unfit(Fault::new(facts).remedy(shape::meant(&near))));
        }
        for on in &lookup.on {
            is_column(&on.column, columns, &rollup.from.to_string()).map_err(unfit)?;
        }
        for column in lookup.deciding() {
            is_column(column, &own, &lookup.table.to_string()).map_err(unfit)?;
        }
        LookupFacts::read(tx, rollup, lookup).await?.judge(lookup).map_err(unfit)?;
        may_read(tx, rollup, lookup, role).await?;
    }
    Ok(())
}

fn is_column(name: &str, columns: &[Column], of: &str) -> Result<(), Fault> {
    if columns.iter().any(|column| column.name == name) {
        return Ok(());
    }
    let fault = Fault::new(format!("`{of}` has no column `{name}`"));
    Err(match shape::nearest(name, columns) {
        Some(near) => fault.remedy(format!("did you mean `{near}`?")),
        None => fault.remedy("name a column of it"),
    })
}

/// Checks row-level security and privileges, and reads no row.
async fn may_read(
    tx: &mut Tx,
    rollup: &Rollup,
    lookup: &Lookup,
    role: &str,
) -> Result<(), ShapeError> {
    let name = table(&lookup.table);
    let columns: Vec<String> = lookup.deciding().into_iter().map(ident).collect();
    let columns = columns.join(", ");
    let sql = format!("SELECT count(*) FROM (SELECT {columns} FROM {name} LIMIT 0) AS nothing");
    let read = tx.execute(&format!("reading {name}"), sql).await;
    read.map(drop).map_err(|error| refusal_of(error, rollup, &name, role))
}

/// What the catalogue knows of a lookup.
#[derive(Clone, Debug, Default)]
struct LookupFacts {
    kind: String,
    has_children: bool,
    has_key: bool,
    /// The unique keys.
    keys: Option<String>,
    /// A pair of columns whose equality is another one than the key's.
    unequal: Option<String>,
    /// A column whose collation calls different texts equal.
    loose: Option<String>,
}

impl LookupFacts {
    async fn read(tx: &mut Tx, rollup: &Rollup, lookup: &Lookup) -> Result<Self, DbError> {
        let list = |name: fn(&crate::model::lookup::LookupKey) -> &str| {
            let names = lookup.on.iter().map(|on| literal(name(on)));
            names.collect::<Vec<_>>().join(", ")
        };
        let sql = format!(
            include_str!("lookup.sql"),
            lookup = literal(&table(&lookup.table)),
            source = literal(&table(&rollup.from)),
            keys = list(|on| &on.key),
            columns = list(|on| &on.column),
        );
        let row = tx.row(DOING, sql).await?;
        let read = || {
            Ok::<_, sqlx::Error>(Self {
                kind: row.try_get("kind")?,
                has_children: row.try_get("has_children")?,
                has_key: row.try_get("has_key")?,
                keys: row.try_get("keys")?,
                unequal: row.try_get("unequal")?,
                loose: row.try_get("loose")?,
            })
        };
        read().map_err(|source| tx.error(DOING, source))
    }

    /// Refuses a lookup that may find several rows for one of the source.
    fn judge(&self, lookup: &Lookup) -> Result<(), Fault> {
        let refused = |facts: String, remedy: &str| Err(Fault::new(facts).remedy(remedy));
        let table = &lookup.table;
        if !matches!(&*self.kind, "r" | "p") {
            return refused(
                format!(
                    "`{table}` is no table, so no unique key proves that it has one row a value"
                ),
                "name the table that has the key",
            );
        }
        if self.kind == "r" && self.has_children {
            return refused(
                format!("`{table}` has child tables, whose rows its unique key does not cover"),
                "name a table without children",
            );
        }
        if !self.has_key {
            let names: Vec<_> = lookup.on.iter().map(|on| on.key.as_str()).collect();
            let known = self.keys.as_deref().unwrap_or("none");
            return refused(
                format!(
                    "`{table}` has no unique key of ({}), so it may have several rows for one of the \
                     source; its unique keys are {known}",
                    names.join(", ")
                ),
                "equate all columns of a unique key that is neither partial nor deferrable, or create it",
            );
        }
        if let Some(unequal) = &self.unequal {
            return refused(
                format!(
                    "{unequal}, so PostgreSQL compares them otherwise than the unique key does"
                ),
                "give both columns one type",
            );
        }
        if let Some(column) = &self.loose {
            return refused(
                format!("`{column}` is compared by a nondeterministic collation"),
                "use a key with a deterministic one",
            );
        }
        Ok(())
    }
}
