//! A store in PostgreSQL: a table in the target with a row for each item.
//!
//! A write is one statement, and another one reads the item that may refuse it. Both are one
//! message with their transaction, so that a worker that is frozen or killed leaves no lock that
//! others wait for. A transaction pooler works, because no session state and no lock outlives a
//! transaction. The server's clock decides about leases, and it is the same for all workers.

mod apart;
mod describe;
mod reading;
mod render;
mod value;
mod within;

use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::{
    Cond, Created, Item, Key, Query, Sorts, Store, StoreAnswer, StoreError, TableSummary, Update,
    Written,
};
use crate::clients::db::{Access, Db, DbError, DbErrorKind, Tx, Whole};
use crate::model::sql::{literal, shown};
use reading::Shared;
use render::{Render, StoreClock};
use value::{from_row, key_of};

/// The store's name in messages.
const STORE: &str = "postgres";

/// Each statement accesses one row by its key, or reads a range of rows.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);

/// The time limit of a statement where the transaction waits for the worker in between. The server
/// ends it soon after that, and with it the locks of a frozen worker.
const DIALOGUE_TIMEOUT: Duration = Duration::from_secs(10);

/// The wait of a single write for a row. The server has ended a frozen worker's dialogue before, so
/// that the write need not fail for it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// The text in `pg_stat_activity`.
const LABEL: &str = "checkpoints";

const SCHEMA: &str = "CREATE SCHEMA tallymark";

const COMMENT: &str = "COMMENT ON TABLE {table} IS 'One row per item of the checkpoints'";

/// A table of checkpoints in the target.
#[derive(Clone, Debug)]
pub struct Postgres {
    db: Db,
    /// The name in the schema.
    name: String,
    /// The name in statements.
    table: String,
    clock: StoreClock,
    reading: Shared,
}

impl Postgres {
    /// The table with this name in the schema `tallymark` of the target. This opens no connection
    /// yet.
    #[must_use]
    pub fn new(db: Db, table: &str) -> Self {
        let (name, table) = (table.to_owned(), format!("tallymark.{}", shown(table)));
        Self { db, name, table, clock: StoreClock::Server, reading: Shared::default() }
    }

    /// Uses the workers' times, for tests that set the time themselves.
    #[must_use]
    pub fn believing_workers(self) -> Self {
        Self { clock: StoreClock::Workers, ..self }
    }

    /// Begins a separate transaction for one call.
    async fn begin(&self, access: Access, operation: &'static str) -> Result<Tx, StoreError> {
        let begun = self.db.begin(access, DIALOGUE_TIMEOUT, LABEL).await;
        begun.map_err(|error| self.error(operation, error))
    }

    /// Runs statements in a transaction of their own.
    async fn run(
        &self,
        access: Access,
        doing: &'static str,
        sql: String,
    ) -> Result<Vec<PgRow>, StoreError> {
        let (statement_timeout, label) = (STATEMENT_TIMEOUT, LABEL);
        let sql = match access {
            Access::ReadOnly => sql,
            Access::ReadWrite => {
                format!("SET LOCAL lock_timeout = '{}ms'; {sql}", LOCK_TIMEOUT.as_millis())
            }
        };
        let whole = Whole { access, statement_timeout, label, doing, sql };
        self.db.run_whole(&whole).await.map_err(|error| self.error(doing, error))
    }

    /// One conditional write in `tx`.
    async fn write(
        &self,
        tx: &mut Tx,
        update: &Update,
        operation: &'static str,
    ) -> Result<Written, StoreError> {
        let written = tx.ask(operation, Render::update(&self.table, self.clock, update)).await;
        let written = written.map_err(|error| self.error(operation, error))?;
        if let Some(row) = written.first() {
            let item = from_row(row).map_err(|error| self.unreadable(operation, error))?;
            return Ok(Written::Done(item));
        }
        let row = tx.ask_row(operation, self.refusing(&update.key)).await;
        self.refused(operation, &row.map_err(|error| self.error(operation, error))?)
    }

    /// The statement that reads the item that has refused a write, and the time.
    fn refusing(&self, key: &Key) -> String {
        let (rollup, sort) = key_of(key);
        format!(
            "SELECT clock_timestamp() AS now, it.rollup, it.sort, it.item::text AS item FROM (SELECT) AS one \
             LEFT JOIN {} AS it ON it.rollup = {rollup} AND it.sort = {sort}",
            self.table
        )
    }

    fn refused(&self, operation: &'static str, row: &PgRow) -> Result<Written, StoreError> {
        let unreadable = |error| self.unreadable(operation, error);
        let is_there = row.try_get::<Option<String>, _>("item").map_err(unreadable)?.is_some();
        let found = is_there.then(|| from_row(row)).transpose().map_err(unreadable)?;
        let now: DateTime<Utc> = row.try_get("now").map_err(unreadable)?;
        Ok(Written::Refused { found, at: (self.clock == StoreClock::Server).then_some(now) })
    }

    async fn write_one(
        &self,
        update: Update,
        operation: &'static str,
        within: Option<&mut Tx>,
    ) -> Result<Written, StoreError> {
        if let Some(tx) = within {
            return self.write(tx, &update, operation).await;
        }
        let update_sql = Render::update(&self.table, self.clock, &update);
        let sql = format!("{update_sql}; {}", self.refusing(&update.key));
        match &self.run(Access::ReadWrite, operation, sql).await?[..] {
            [item, _] => {
                let item = from_row(item).map_err(|error| self.unreadable(operation, error))?;
                Ok(Written::Done(item))
            }
            [refusing] => self.refused(operation, refusing),
            _ => Err(self.unreadable(operation, sqlx::Error::RowNotFound)),
        }
    }

    async fn write_all(
        &self,
        updates: Vec<Update>,
        operation: &'static str,
        within: Option<&mut Tx>,
    ) -> Result<bool, StoreError> {
        let Some(tx) = within else {
            let mut tx = self.begin(Access::ReadWrite, operation).await?;
            let are_made = self.write_each(&mut tx, &updates, operation).await?;
            let ended = if are_made { tx.commit().await } else { tx.rollback().await };
            ended.map_err(|error| self.error(operation, error))?;
            return Ok(are_made);
        };
        // The earlier work of the transaction stays, and all of these writes are undone.
        self.execute(tx, operation, "SAVEPOINT checkpoints").await?;
        let are_made = self.write_each(tx, &updates, operation).await?;
        let end = if are_made { "RELEASE checkpoints" } else { "ROLLBACK TO checkpoints" };
        self.execute(tx, operation, end).await?;
        Ok(are_made)
    }

    /// Makes the writes in their order, which is the order of locks, until one is refused.
    async fn write_each(
        &self,
        tx: &mut Tx,
        updates: &[Update],
        operation: &'static str,
    ) -> Result<bool, StoreError> {
        for update in updates {
            if let Written::Refused { .. } = self.write(tx, update, operation).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn execute(
        &self,
        tx: &mut Tx,
        operation: &'static str,
        sql: impl Into<String>,
    ) -> Result<u64, StoreError> {
        tx.execute(operation, sql.into()).await.map_err(|error| self.error(operation, error))
    }

    async fn make(&self) -> Result<Created, StoreError> {
        const OPERATION: &str = "create table";
        match self.describe_table().await {
            Err(StoreError::NoTable { .. }) => {}
            found => return found.map(|_| Created::AlreadyThere),
        }
        match self.define(OPERATION).await {
            Ok(()) => Ok(Created::Created),
            // Another session may have created it meanwhile.
            Err(error) => match self.describe_table().await {
                Ok(_) => Ok(Created::AlreadyThere),
                Err(_) => Err(error),
            },
        }
    }

    async fn define(&self, operation: &'static str) -> Result<(), StoreError> {
        let mut tx = self.begin(Access::ReadWrite, operation).await?;
        // `IF NOT EXISTS` would demand the right to create schemas also where it exists.
        let sql = "SELECT FROM pg_namespace WHERE nspname = 'tallymark'".to_owned();
        let found = tx.rows(operation, sql).await.map_err(|error| self.error(operation, error))?;
        if found.is_empty() {
            self.execute(&mut tx, operation, SCHEMA).await?;
        }
        for sql in self.definition() {
            self.execute(&mut tx, operation, sql).await?;
        }
        tx.commit().await.map_err(|error| self.error(operation, error))
    }

    fn definition(&self) -> [String; 3] {
        [include_str!("table.sql"), include_str!("index.sql"), COMMENT]
            .map(|sql| sql.trim_end().replace("{table}", &self.table))
    }

    /// The meaning of the server's error.
    fn error(&self, operation: &'static str, error: DbError) -> StoreError {
        let (store, table) = (STORE, self.table.clone());
        // The database's own remedy comes from `source`.
        let (problem, kind, source) = (error.to_string(), error.kind(), error.into());
        match kind {
            DbErrorKind::Unreachable | DbErrorKind::Login => {
                StoreError::Unreachable { store, operation, place: String::new(), problem, source }
            }
            DbErrorKind::Denied | DbErrorKind::RowSecurity => {
                StoreError::Denied { store, operation, table, problem, source }
            }
            DbErrorKind::Missing => StoreError::NoTable { table },
            DbErrorKind::Refused => StoreError::Invalid { operation, table, problem, source },
            DbErrorKind::Cancelled | DbErrorKind::Contended | DbErrorKind::Unclear => {
                StoreError::Other { operation, table, problem, retryable: true, source }
            }
        }
    }

    fn unreadable(&self, operation: &'static str, error: sqlx::Error) -> StoreError {
        let (table, problem) = (self.table.clone(), error.to_string());
        StoreError::Other { operation, table, problem, retryable: false, source: error.into() }
    }
}

impl Store for Postgres {
    fn table(&self) -> &str {
        &self.table
    }

    fn is_in_target(&self) -> bool {
        true
    }

    fn get(&self, key: Key) -> StoreAnswer<'_, Option<Item>> {
        async move {
            let (rollup, sort) = key_of(&key);
            let sql = format!(
                "SELECT rollup, sort, item::text AS item FROM {} WHERE rollup = {rollup} AND sort = {sort}",
                self.table
            );
            Ok(self.rows("get", sql).await?.pop())
        }
        .boxed()
    }

    fn get_each(&self, keys: Vec<Key>) -> StoreAnswer<'_, Vec<Item>> {
        self.get_items(keys).boxed()
    }

    fn query_each(&self, queries: Vec<Query>) -> StoreAnswer<'_, Vec<Vec<Item>>> {
        self.read_ranges(queries).boxed()
    }

    fn query(&self, query: Query) -> StoreAnswer<'_, Vec<Item>> {
        async move {
            let chosen = match &query.sorts {
                Sorts::All => "true".to_owned(),
                Sorts::Between(from, to) => {
                    format!("sort BETWEEN {} AND {}", literal(from), literal(to))
                }
                Sorts::Before(end) => format!("sort < {}", literal(end)),
                Sorts::Prefix(prefix) => {
                    let prefix = literal(prefix);
                    format!("sort >= {prefix} AND starts_with(sort, {prefix})")
                }
                Sorts::Unfinished => "unfinished".to_owned(),
            };
            let order = if query.descending { "DESC" } else { "ASC" };
            let limit = query.limit.map_or_else(String::new, |limit| format!(" LIMIT {limit}"));
            let sql = format!(
                "SELECT rollup, sort, item::text AS item FROM {} WHERE rollup = {} AND {chosen} \
                 ORDER BY sort {order}{limit}",
                self.table,
                literal(&query.rollup)
            );
            self.rows("query", sql).await
        }
        .boxed()
    }

    fn update<'a>(
        &'a self,
        update: Update,
        operation: &'static str,
        within: Option<&'a mut Tx>,
    ) -> StoreAnswer<'a, Written> {
        self.write_one(update, operation, within).boxed()
    }

    fn update_all<'a>(
        &'a self,
        updates: Vec<Update>,
        operation: &'static str,
        within: Option<&'a mut Tx>,
    ) -> StoreAnswer<'a, bool> {
        self.write_all(updates, operation, within).boxed()
    }

    fn update_each<'a>(
        &'a self,
        updates: &'a [Update],
        operation: &'static str,
        within: &'a mut Tx,
    ) -> StoreAnswer<'a, Vec<Item>> {
        self.update_each_within(updates, operation, within).boxed()
    }

    fn update_apart(
        &self,
        updates: Vec<Update>,
        operation: &'static str,
    ) -> StoreAnswer<'_, Vec<Item>> {
        self.write_apart(updates, operation).boxed()
    }

    fn find_or_hold<'a>(&'a self, key: Key, within: &'a mut Tx) -> StoreAnswer<'a, bool> {
        self.find_or_hold_within(key, within).boxed()
    }

    fn update_range<'a>(
        &'a self,
        updates: [Update; 2],
        last: String,
        operation: &'static str,
        within: &'a mut Tx,
    ) -> StoreAnswer<'a, u64> {
        self.write_range(updates, last, operation, within).boxed()
    }

    fn put(&self, item: Item, condition: Cond) -> StoreAnswer<'_, bool> {
        async move {
            let sql = Render::put(&self.table, self.clock, &item, &condition);
            Ok(!self.run(Access::ReadWrite, "copy", sql).await?.is_empty())
        }
        .boxed()
    }

    fn delete(&self, key: Key) -> StoreAnswer<'_, ()> {
        async move {
            let (rollup, sort) = key_of(&key);
            let sql =
                format!("DELETE FROM {} WHERE rollup = {rollup} AND sort = {sort}", self.table);
            self.run(Access::ReadWrite, "delete", sql).await.map(drop)
        }
        .boxed()
    }

    fn create(&self) -> StoreAnswer<'_, Created> {
        self.make().boxed()
    }

    fn describe(&self) -> StoreAnswer<'_, TableSummary> {
        self.describe_table().boxed()
    }

    fn create_command(&self) -> String {
        let schema = SCHEMA.replace("SCHEMA", "SCHEMA IF NOT EXISTS");
        format!("{schema};\n{}", self.definition().join(";\n"))
    }

    fn read_together(&self, may_write: bool) {
        self.reading.begin(may_write);
    }

    fn write_together<'a>(
        &'a self,
        sql: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<PgRow>>, StoreError>> {
        self.write_shared(sql).boxed()
    }

    fn read_apart(&self) -> BoxFuture<'_, ()> {
        async move {
            if let Some(tx) = self.reading.end() {
                // A broken connection ends by itself.
                let _ = tx.rollback().await;
            }
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.db.close().boxed()
    }
}
