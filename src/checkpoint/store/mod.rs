//! Where checkpoints are kept: an interface of ten calls, and the stores behind it.
//!
//! | module | part |
//! |---|---|
//! | [`value`] | items and their values |
//! | [`update`] | conditions and changes, as data |
//! | [`error`] | what can go wrong |
//! | [`dynamodb`] | the store in DynamoDB |
//! | `postgres` | the store in the target, for tests |
//! | `judged` | the meaning of conditions and changes in Rust, for tests |
//!
//! A store knows items, keys and conditions. What they mean (states, leases, watermarks) is decided
//! above it, once for all stores, and a store imports nothing from there. A further store is a
//! module here that implements [`Store`], and a line in [`open`].

pub mod dynamodb;
pub mod error;
#[cfg(feature = "faults")]
mod judged;
#[cfg(feature = "faults")]
pub mod postgres;
pub mod update;
pub mod value;

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;

pub use error::StoreError;
pub use update::{Change, Cond, Is, Update};
pub use value::{Item, Key, PK, SK, UNFINISHED, Value};

use crate::db::Tx;

/// What a call on a store comes to.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// A place that keeps items. Each write is atomic and durable once it is answered, and each read
/// but [`Reading::Part`] and [`Sorts::Unfinished`] shows every write that was answered before it.
///
/// `operation` names the call in errors.
///
/// `within` is a transaction of the target, for a store that keeps its items there: the write
/// becomes visible and durable when that transaction commits. Every transaction locks its items in
/// one order, so that none waits for another in a circle: finer rollups before coarser ones, then
/// by the rollup's name, then by the second part of the key. A store elsewhere gets `None`, and
/// refuses anything else; see [`Store::is_in_target`].
pub trait Store: fmt::Debug + Send + Sync {
    /// The table's name, for messages.
    fn table(&self) -> &str;

    /// Whether it keeps its items in the target, so that a write can be part of a transaction
    /// there.
    fn is_in_target(&self) -> bool {
        false
    }

    /// One item.
    fn get(&self, key: Key) -> Answer<'_, Option<Item>>;

    /// Items of one rollup, by the second part of their keys.
    fn query(&self, query: Query) -> Answer<'_, Vec<Item>>;

    /// One conditional write.
    fn update<'a>(
        &'a self,
        update: Update,
        operation: &'static str,
        within: Option<&'a mut Tx>,
    ) -> Answer<'a, Written>;

    /// All of these writes, or none where a condition does not hold or one of the items is written
    /// by another at the same time; says whether they were made. They stand in the order in which
    /// they are to be locked.
    fn update_all<'a>(
        &'a self,
        updates: Vec<Update>,
        operation: &'static str,
        within: Option<&'a mut Tx>,
    ) -> Answer<'a, bool>;

    /// Writes a whole item in the place of what is under its key, where `condition` holds; says
    /// whether it did.
    fn put(&self, item: Item, condition: Cond) -> Answer<'_, bool>;

    /// Deletes an item, if it is there.
    fn delete(&self, key: Key) -> Answer<'_, ()>;

    /// Makes the table and waits until it is usable. A table that is there already is verified.
    fn create(&self) -> Answer<'_, Created>;

    /// The table, verified to be ours.
    fn describe(&self) -> Answer<'_, TableSummary>;

    /// How an administrator makes the same table.
    fn create_command(&self) -> String;
}

/// What became of a conditional write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It was made; the item after it.
    Done(Item),
    /// The condition did not hold.
    Refused {
        /// The item that refused it, if there is one.
        found: Option<Item>,
        /// When, by the store's own clock, if it has one.
        at: Option<DateTime<Utc>>,
    },
}

/// Which items of a rollup to read, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The rollup.
    pub rollup: String,
    /// Which of its items.
    pub sorts: Sorts,
    /// Whether they come from the greatest key downwards.
    pub descending: bool,
    /// The first N of them, in one request. Fewer come where N are larger than a request holds.
    pub limit: Option<u16>,
    /// What is read of each.
    pub reading: Reading,
}

impl Query {
    /// These items of `rollup`, whole and in ascending order.
    #[must_use]
    pub fn new(rollup: &str, sorts: Sorts) -> Self {
        let (rollup, reading) = (rollup.to_owned(), Reading::Whole);
        Self { rollup, sorts, descending: false, limit: None, reading }
    }

    /// The first of them.
    #[must_use]
    pub fn first(self, limit: u16) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// The last of them, the last one first.
    #[must_use]
    pub fn last(self, limit: u16) -> Self {
        Self { limit: Some(limit), descending: true, ..self }
    }

    /// Only these attributes, and perhaps not as they are at this moment.
    #[must_use]
    pub fn only(self, names: &'static [&'static str]) -> Self {
        Self { reading: Reading::Part(names), ..self }
    }
}

/// Items of a rollup, by the second part of their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sorts {
    /// All.
    All,
    /// From the first to the second, both included.
    Between(String, String),
    /// Those before this one.
    Before(String),
    /// Those that begin so.
    Prefix(String),
    /// Those whose attribute [`UNFINISHED`] is the rollup's name: costs what there is of them. It
    /// may lag behind by about a second.
    Unfinished,
}

/// What is read of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// All of it, as it is.
    Whole,
    /// These attributes, as they were a moment ago.
    Part(&'static [&'static str]),
}

/// What [`Store::create`] found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// The table was made.
    Created,
    /// The table was there, and it is right.
    AlreadyThere,
}

/// The table as the store describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSummary {
    /// The store's word for its state: `ACTIVE` when it is usable.
    pub status: String,
    /// Items in it; an estimate.
    pub items: u64,
    /// Bytes in it; an estimate.
    pub bytes: u64,
    /// Whether it is billed by request.
    pub on_demand: bool,
}

/// The store that keeps `table`. Nothing is sent yet.
///
/// # Errors
/// [`StoreError::NoRegion`] or [`StoreError::Environment`] if nothing says where it is.
pub async fn open(table: &str) -> Result<Arc<dyn Store>, StoreError> {
    Ok(Arc::new(dynamodb::DynamoDb::connect(table).await?))
}
