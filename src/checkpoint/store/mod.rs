//! The stores that keep checkpoints, behind an interface of twenty calls.
//!
//! | module | part |
//! |---|---|
//! | [`value`] | items and their values |
//! | [`update`] | conditions and changes, as data |
//! | [`error`] | a store's errors |
//! | [`dynamodb`] | the store in DynamoDB |
//! | [`postgres`] | the store in the target |
//! | `judged` | the meaning of conditions and changes in Rust, for tests |
//!
//! A store knows items, keys and conditions. The layer above decides their meaning (states, leases,
//! watermarks), once for all stores, and a store imports nothing from there. A new store is a
//! module here that implements [`Store`], and a line in [`open`].

pub mod dynamodb;
mod error;
#[cfg(feature = "faults")]
#[cfg(feature = "faults")]
mod judged;
pub mod postgres;
mod update;
mod value;

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::future::{self, BoxFuture};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _, stream};
use sqlx::postgres::PgRow;

pub(crate) use error::StoreError;
pub(crate) use update::{Change, Cond, Is, Update};
pub(crate) use value::{Item, Key, PK, SK, UNFINISHED, Value};

use crate::clients::db::{Db, Tx};

/// Reads that wait for their answers at the same time. Of 10,000 rollups at 10 ms a read that is three
/// seconds.
pub(super) const READS_ABREAST: usize = 32;

/// The result of a call on a store.
pub(crate) type StoreAnswer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A place that keeps items. Each write is atomic, and durable once the store has answered. Each
/// read except [`Extent::Part`] and [`Sorts::Unfinished`] shows every write that was answered
/// before it.
///
/// `operation` names the call in errors.
///
/// `within` is a transaction of the target, for a store that keeps its items there. The write
/// becomes visible and durable when that transaction commits. Every transaction locks its items in
/// one order, so that they cannot deadlock: finer rollups before coarser ones, then by the rollup's
/// name, then by the second part of the key. A store elsewhere gets `None`, and refuses a
/// transaction (see [`Store::is_in_target`]).
pub trait Store: fmt::Debug + Send + Sync {
    /// The table's name, for messages.
    fn table(&self) -> &str;

    /// Whether it keeps its items in the target, so that a write can be part of a transaction
    /// there.
    fn is_in_target(&self) -> bool {
        false
    }

    /// One item.
    fn get(&self, key: Key) -> StoreAnswer<'_, Option<Item>>;

    /// The items with these different keys that exist, in any order. Each is as it was at an instant
    /// during the call.
    fn get_each(&self, keys: Vec<Key>) -> StoreAnswer<'_, Vec<Item>> {
        async move {
            let calls = keys.into_iter().map(|key| self.get(key));
            let found: Vec<_> = stream::iter(calls).buffered(READS_ABREAST).try_collect().await?;
            Ok(found.into_iter().flatten().collect())
        }
        .boxed()
    }

    /// Items of one rollup, selected by the second part of their keys.
    fn query(&self, query: Query) -> StoreAnswer<'_, Vec<Item>>;

    /// The items of several queries, in the order of the queries.
    fn query_each(&self, queries: Vec<Query>) -> StoreAnswer<'_, Vec<Vec<Item>>> {
        let calls = queries.into_iter().map(|query| self.query(query));
        stream::iter(calls).buffered(READS_ABREAST).try_collect().boxed()
    }

    /// One conditional write.
    fn update<'a>(
        &'a self,
        update: Update,
        operation: &'static str,
        within: Option<&'a mut Tx>,
    ) -> StoreAnswer<'a, Written>;

    /// Applies all of these writes or none. It applies none if a condition fails or another writer
    /// changes one of the items at the same time. Returns whether they were applied. The writes are
    /// in the order of their locks.
    fn update_all<'a>(
        &'a self,
        updates: Vec<Update>,
        operation: &'static str,
        within: Option<&'a mut Tx>,
    ) -> StoreAnswer<'a, bool>;

    /// Makes those of these writes whose conditions hold, each after the one before it, and returns
    /// the items after them. The writes are in the order of their locks. Only for a store in the
    /// target.
    fn update_each<'a>(
        &'a self,
        updates: &'a [Update],
        operation: &'static str,
        within: &'a mut Tx,
    ) -> StoreAnswer<'a, Vec<Item>>;

    /// Makes those of these writes whose conditions hold, each by itself, and returns the items
    /// after them. The writes are of different items, in the order of their locks. An item may also
    /// be missing from the answer because its write got none.
    fn update_apart(
        &self,
        updates: Vec<Update>,
        operation: &'static str,
    ) -> StoreAnswer<'_, Vec<Item>> {
        async move {
            let mut writes = updates.into_iter().map(|update| self.update(update, operation, None));
            let (mut items, mut trouble) = (Vec::new(), None);
            // The first by itself: a store that cannot be reached or throttles gets no burst.
            let Some(first) = writes.next() else { return Ok(items) };
            let first = first.await;
            let others = if first.is_ok() { future::join_all(writes).await } else { Vec::new() };
            for written in std::iter::once(first).chain(others) {
                match written {
                    Ok(Written::Done(item)) => items.push(item),
                    Ok(Written::Refused { .. }) => {}
                    Err(error) => trouble = Some(error),
                }
            }
            match trouble {
                Some(error) if items.is_empty() => Err(error),
                _ => Ok(items),
            }
        }
        .boxed()
    }

    /// Whether the item exists. If it is missing, every writer that would create it waits until the
    /// transaction has ended. Only for a store in the target.
    fn find_or_hold<'a>(&'a self, key: Key, within: &'a mut Tx) -> StoreAnswer<'a, bool>;

    /// Writes each item of a rollup from the key of the updates to the sort key `last`, both
    /// included, that exists: by the first of the two updates whose condition it meets. Locks the
    /// items in the order of their keys. Returns the number of writes. Only for a store in the
    /// target.
    fn update_range<'a>(
        &'a self,
        updates: [Update; 2],
        last: String,
        operation: &'static str,
        within: &'a mut Tx,
    ) -> StoreAnswer<'a, u64>;

    /// Replaces the item under the key if `condition` holds. Returns whether it did.
    fn put(&self, item: Item, condition: Cond) -> StoreAnswer<'_, bool>;

    /// Deletes an item, if it exists.
    fn delete(&self, key: Key) -> StoreAnswer<'_, ()>;

    /// Creates the table and waits until it is usable. Verifies an existing table.
    fn create(&self) -> StoreAnswer<'_, Created>;

    /// The table, after a check that it is Tallymark's.
    fn describe(&self) -> StoreAnswer<'_, TableSummary>;

    /// The command by which an administrator creates the same table. A store in the target returns
    /// SQL.
    fn create_command(&self) -> String;

    /// Lets further reads share one transaction, where that saves anything, until
    /// [`Store::read_apart`]. Each still shows every write that was answered before it.
    fn read_together(&self, _may_write: bool) {}

    /// Runs `sql` at the end of the transaction that reads share, and commits it. Returns the rows.
    /// `None`: there is no such transaction, or it only reads.
    fn write_together<'a>(
        &'a self,
        _sql: &'a str,
    ) -> BoxFuture<'a, Result<Option<Vec<PgRow>>, StoreError>> {
        future::ready(Ok(None)).boxed()
    }

    /// Ends what [`Store::read_together`] began.
    fn read_apart(&self) -> BoxFuture<'_, ()> {
        future::ready(()).boxed()
    }

    /// Closes idle connections.
    fn close(&self) -> BoxFuture<'_, ()> {
        future::ready(()).boxed()
    }
}

/// The result of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was made. This is the item after it.
    Done(Item),
    /// The condition does not hold.
    Refused {
        /// The item that fails the condition, if it exists.
        found: Option<Item>,
        /// The time of the refusal by the store's own clock, if it has one.
        at: Option<DateTime<Utc>>,
    },
}

/// The items of a rollup to read, and how to read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    rollup: String,
    /// The selected items.
    sorts: Sorts,
    /// Whether to start at the greatest key.
    descending: bool,
    /// At most this many items, read in one request. Large items may exceed a request, which then
    /// returns fewer.
    limit: Option<u16>,
    /// The part of each item to read.
    reading: Extent,
}

impl Query {
    /// Reads these items of `rollup` whole and in ascending order.
    #[must_use]
    pub(crate) fn new(rollup: &str, sorts: Sorts) -> Self {
        let (rollup, reading) = (rollup.to_owned(), Extent::Whole);
        Self { rollup, sorts, descending: false, limit: None, reading }
    }

    /// The first of them.
    #[must_use]
    pub(crate) fn first(self, limit: u16) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// Only the last ones, in descending order.
    #[must_use]
    pub(crate) fn last(self, limit: u16) -> Self {
        Self { limit: Some(limit), descending: true, ..self }
    }

    /// Only these attributes, possibly from a moment ago.
    #[must_use]
    pub(crate) fn only(self, names: &'static [&'static str]) -> Self {
        Self { reading: Extent::Part(names), ..self }
    }
}

/// Items of a rollup, selected by the second part of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Sorts {
    /// All.
    All,
    /// From the first to the second, both included.
    Between(String, String),
    /// The items before this one.
    Before(String),
    /// The items whose key starts with this.
    Prefix(String),
    /// The items whose attribute [`UNFINISHED`] is the rollup's name. The cost depends on their
    /// number alone. The result may lag behind by about a second.
    Unfinished,
}

/// The part of an item to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Extent {
    /// The whole item, consistently.
    Whole,
    /// These attributes, as they were a moment ago.
    Part(&'static [&'static str]),
}

/// The result of [`Store::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The table was created.
    Created,
    /// The table existed, and it is right.
    AlreadyThere,
}

/// The store's description of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSummary {
    /// The store's word for its state, such as `ACTIVE` when it is usable.
    pub(crate) status: String,
    /// An estimate of the number of items.
    pub(crate) items: u64,
    /// An estimate of the size in bytes.
    pub(crate) bytes: u64,
    /// Whether it is billed by request.
    pub(crate) on_demand: bool,
}

/// Where a store keeps its items.
#[derive(Debug)]
pub(crate) enum Place<'p> {
    /// In this table of DynamoDB.
    DynamoDb(&'p str),
    /// In this table of the target, by connections of its own.
    Target(Db, &'p str),
}

/// The store at this place. This sends no request yet.
///
/// # Errors
/// [`StoreError::NoRegion`] or [`StoreError::Environment`] if the environment does not name the
/// place of a table in DynamoDB.
pub(crate) async fn open(place: Place<'_>) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match place {
        Place::DynamoDb(table) => Arc::new(dynamodb::DynamoDb::connect(table).await?),
        Place::Target(db, table) => Arc::new(postgres::Postgres::new(db, table)),
    })
}
