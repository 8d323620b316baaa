//! Reads that share one transaction, such as those of a tick that finds nothing due.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sqlx::postgres::PgRow;

use super::value::{from_row, key_of};
use super::{LABEL, Postgres, STATEMENT_TIMEOUT};
use crate::checkpoint::store::{Item, Key, PK, Query, Sorts, Store as _, StoreError, Value};
use crate::clients::db::{Access, Tx};
use crate::model::sql::literal;

/// The transaction that reads share.
#[derive(Clone, Debug, Default)]
pub(super) struct Shared(Arc<Mutex<Reads>>);

#[derive(Debug, Default)]
enum Reads {
    /// Each has its own.
    #[default]
    Apart,
    /// They share this one, begun for that access. `None`: it has yet to begin, or a read uses it
    /// now.
    Together(Option<Tx>, Access),
}

impl Shared {
    /// Lets reads share a transaction from here on.
    pub(super) fn begin(&self, may_write: bool) {
        let access = if may_write { Access::ReadWrite } else { Access::ReadOnly };
        *self.lock() = Reads::Together(None, access);
    }

    /// Lets each read have its own transaction again. Returns the one that they shared.
    pub(super) fn end(&self) -> Option<Tx> {
        match std::mem::take(&mut *self.lock()) {
            Reads::Together(tx, _) => tx,
            Reads::Apart => None,
        }
    }

    /// The transaction for the next read, if it shares one. Where that is
    /// `None`, it has to begin it.
    pub(super) fn take(&self) -> Option<(Option<Tx>, Access)> {
        match &mut *self.lock() {
            Reads::Together(tx, access) => Some((tx.take(), *access)),
            Reads::Apart => None,
        }
    }

    /// Keeps the transaction for the next read, unless they have ended meanwhile.
    pub(super) fn keep(&self, tx: Tx) {
        if let Reads::Together(place @ None, _) = &mut *self.lock() {
            *place = Some(tx);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Reads> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Postgres {
    pub(super) async fn rows(
        &self,
        operation: &'static str,
        sql: String,
    ) -> Result<Vec<Item>, StoreError> {
        let together = match self.reading.take() {
            Some((tx, access)) => self.read_in(tx, access, operation, &sql).await,
            None => None,
        };
        let rows = match together {
            Some(rows) => rows,
            None => self.run(Access::ReadOnly, operation, sql).await?,
        };
        let found = rows.iter().map(from_row).collect::<Result<_, _>>();
        found.map_err(|error| self.unreadable(operation, error))
    }

    /// The items with these keys that exist, by one statement.
    pub(super) async fn get_items(&self, keys: Vec<Key>) -> Result<Vec<Item>, StoreError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let keys = keys.iter().map(key_of).map(|(rollup, sort)| format!("({rollup}, {sort})"));
        let sql = format!(
            "SELECT it.rollup, it.sort, it.item::text AS item \
             FROM (VALUES {}) AS wanted (rollup, sort) JOIN {} AS it USING (rollup, sort)",
            keys.collect::<Vec<_>>().join(", "),
            self.table
        );
        self.rows("get several", sql).await
    }

    /// The items of each query. Those of ranges come by one statement.
    pub(super) async fn read_ranges(
        &self,
        queries: Vec<Query>,
    ) -> Result<Vec<Vec<Item>>, StoreError> {
        let mut found: Vec<Vec<Item>> = queries.iter().map(|_| Vec::new()).collect();
        let (mut ranges, mut places) = (Vec::new(), HashMap::new());
        for (place, query) in queries.iter().enumerate() {
            let is_plain = !query.descending && query.limit.is_none();
            match &query.sorts {
                Sorts::Between(from, to) if is_plain && !places.contains_key(&query.rollup) => {
                    let (rollup, from, to) = (literal(&query.rollup), literal(from), literal(to));
                    ranges.push(format!("({rollup}, {from}, {to})"));
                    places.insert(query.rollup.clone(), place);
                }
                _ => found[place] = self.query(query.clone()).await?,
            }
        }
        if ranges.is_empty() {
            return Ok(found);
        }
        // OFFSET 0 keeps the planner from reading the whole table: each range is read by the key.
        let sql = format!(
            "SELECT it.* FROM (VALUES {}) AS wanted (rollup, first, last), LATERAL ( \
             SELECT it.rollup, it.sort, it.item::text AS item FROM {} AS it WHERE it.rollup = \
             wanted.rollup AND it.sort BETWEEN wanted.first AND wanted.last ORDER BY it.sort \
             OFFSET 0) AS it",
            ranges.join(", "),
            self.table
        );
        for item in self.rows("query", sql).await? {
            let Some(Value::Text(rollup)) = item.get(PK) else { continue };
            if let Some(place) = places.get(rollup) {
                found[*place].push(item);
            }
        }
        Ok(found)
    }

    /// Reads in the shared transaction, which may have to begin. `None`: it cannot serve, as when the
    /// server has ended it meanwhile.
    async fn read_in(
        &self,
        tx: Option<Tx>,
        access: Access,
        doing: &'static str,
        sql: &str,
    ) -> Option<Vec<PgRow>> {
        let mut tx = match tx {
            Some(tx) => tx,
            None => self.db.begin(access, STATEMENT_TIMEOUT, LABEL).await.ok()?,
        };
        let rows = tx.rows(doing, sql.to_owned()).await.ok()?;
        self.reading.keep(tx);
        Some(rows)
    }

    /// Runs statements at the end of the shared transaction, and commits it.
    pub(super) async fn write_shared(&self, sql: &str) -> Result<Option<Vec<PgRow>>, StoreError> {
        const DOING: &str = "tell readers";
        let Some((Some(mut tx), Access::ReadWrite)) = self.reading.take() else {
            return Ok(None);
        };
        let written = async {
            let rows = tx.ask(DOING, sql.to_owned()).await?;
            tx.commit().await.map(|()| rows)
        };
        written.await.map(Some).map_err(|error| self.error(DOING, error))
    }
}
