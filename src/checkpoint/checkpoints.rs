//! The store for the rest of this module, and the reads of slices.

use std::sync::Arc;

use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use sqlx::postgres::PgRow;

use super::error::CheckpointError;
use super::item::{Checkpoint, Glance, key, sort_key};
use super::store::dynamodb::DynamoDb;
use super::store::{
    Created, Item, Key, Place, Query, Sorts, Store, TableSummary, Update, Written, open,
};
use super::tombstone;
use crate::clients::db::Db;
use crate::config::{CheckpointConfig, StoreKind};

/// The number of slices that show a rollup's pace. One read of the store returns them.
const RECENT: u16 = 32;

/// The checkpoints of all rollups.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    pub(super) store: Arc<dyn Store>,
    pub(super) failures_max: u32,
}

impl Checkpoints {
    /// The checkpoints in `store`. A slice is exhausted after `failures_max` failures.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, failures_max: u32) -> Self {
        // With 0 every slice would be exhausted before its first failure.
        Self { store, failures_max: failures_max.max(1) }
    }

    /// The checkpoints in the store of the configuration. `target` are connections of its own to
    /// the target. This sends no request yet.
    ///
    /// # Errors
    /// [`super::store::StoreError::NoRegion`] if DynamoDB has neither a region nor an endpoint.
    pub(crate) async fn connect(
        settings: &CheckpointConfig,
        target: Db,
    ) -> Result<Self, CheckpointError> {
        let place = match settings.store {
            StoreKind::DynamoDb => Place::DynamoDb(&settings.table),
            StoreKind::Postgres => Place::Target(target, &settings.table),
        };
        Ok(Self::new(open(place).await?, settings.failures_max))
    }

    /// The checkpoints in a `table` that cannot be reached, for work that needs none.
    #[must_use]
    pub(crate) fn nowhere(table: &str, failures_max: u32) -> Self {
        Self::new(Arc::new(DynamoDb::nowhere(table)), failures_max)
    }

    /// Whether they are in the target, so that they can be written in a transaction there.
    #[must_use]
    pub(crate) fn is_in_target(&self) -> bool {
        self.store.is_in_target()
    }

    /// The table and its store, for messages.
    #[must_use]
    pub(crate) fn place(&self) -> String {
        let store = if self.is_in_target() { "the target's" } else { "DynamoDB" };
        format!("{store} table {}", self.table())
    }

    /// The keys of `[checkpoint]` that lead to this table.
    #[must_use]
    pub fn setting(&self) -> String {
        match self.is_in_target() {
            true => "store = \"postgres\"".to_owned(),
            false => format!("store = \"dynamodb\" and table = \"{}\"", self.table()),
        }
    }

    /// Lets further reads share one transaction of the target, until [`Checkpoints::read_apart`].
    pub(crate) fn read_together(&self, may_write: bool) {
        self.store.read_together(may_write);
    }

    /// Runs statements at the end of that transaction, and commits it. `None`: there is none that
    /// may write.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub(crate) async fn write_together(
        &self,
        sql: &str,
    ) -> Result<Option<Vec<PgRow>>, CheckpointError> {
        Ok(self.store.write_together(sql).await?)
    }

    /// Ends the transaction that reads share.
    pub(crate) async fn read_apart(&self) {
        self.store.read_apart().await;
    }

    /// Closes idle connections.
    pub(crate) async fn close(&self) {
        self.store.close().await;
    }

    #[must_use]
    pub fn table(&self) -> &str {
        self.store.table()
    }

    /// Creates the table and waits until it is usable. Verifies an existing table.
    ///
    /// # Errors
    /// [`super::store::StoreError::WrongTable`] if a table of this name has another form, and
    /// [`super::store::StoreError::NotActive`] if it does not become usable in time.
    pub async fn create_table(&self) -> Result<Created, CheckpointError> {
        Ok(self.store.create().await?)
    }

    /// The store's description of the table, after a check that it is Tallymark's.
    ///
    /// # Errors
    /// [`super::store::StoreError::NoTable`] if it is missing, and
    /// [`super::store::StoreError::WrongTable`] if it has another form.
    pub(crate) async fn describe(&self) -> Result<TableSummary, CheckpointError> {
        Ok(self.store.describe().await?)
    }

    /// The command by which an administrator creates the same table.
    #[must_use]
    pub(crate) fn create_table_command(&self) -> String {
        self.store.create_command()
    }

    /// The checkpoint of a slice, if it has one.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or the item is malformed.
    pub async fn get(
        &self,
        rollup: &str,
        slice_start: DateTime<Utc>,
    ) -> Result<Option<Checkpoint>, CheckpointError> {
        let item = self.item(key(rollup, slice_start)).await?;
        item.as_ref().map(Checkpoint::from_item).transpose()
    }

    /// The checkpoints of all slices that start in `[from, to)`, in their order.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails or an item is malformed.
    pub async fn range(
        &self,
        rollup: &str,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<Checkpoint>, CheckpointError> {
        let Some(starts) = starts_in(from, to) else { return Ok(Vec::new()) };
        self.checkpoints(Query::new(rollup, starts)).await
    }

    /// As [`Checkpoints::range`], but only the attributes that show a backfill's progress, from a
    /// possibly older state. It is for displays.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails or an item is malformed.
    pub(crate) async fn glance(
        &self,
        rollup: &str,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<Glance>, CheckpointError> {
        let Some(starts) = starts_in(from, to) else { return Ok(Vec::new()) };
        let query = Query::new(rollup, starts).only(Glance::NAMES);
        self.store.query(query).await?.iter().map(Glance::from_item).collect()
    }

    /// The checkpoints of the newest slices that have any, at most 32 of them.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or an item is malformed.
    pub(crate) async fn recent(&self, rollup: &str) -> Result<Vec<Checkpoint>, CheckpointError> {
        // Slices begin with a digit, all other items with a letter.
        let slices = Query::new(rollup, Sorts::Before("A".to_owned()));
        self.checkpoints(slices.last(RECENT)).await
    }

    /// The checkpoints of all slices that have not succeeded, in order. The cost depends on their
    /// number, and a long history adds nothing. They may lag behind by about a second.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails or an item is malformed.
    pub async fn unfinished(&self, rollup: &str) -> Result<Vec<Checkpoint>, CheckpointError> {
        self.checkpoints(Query::new(rollup, Sorts::Unfinished)).await
    }

    pub(super) async fn checkpoints(
        &self,
        query: Query,
    ) -> Result<Vec<Checkpoint>, CheckpointError> {
        self.store.query(query).await?.iter().map(Checkpoint::from_item).collect()
    }

    /// One item, consistently read.
    pub(super) async fn item(&self, key: Key) -> Result<Option<Item>, CheckpointError> {
        Ok(self.store.get(key).await?)
    }

    /// One conditional write.
    pub(super) async fn send(
        &self,
        update: Update,
        operation: &'static str,
    ) -> Result<Written, CheckpointError> {
        let written = self.store.update(update, operation, None).await?;
        if let Written::Refused { found: Some(item), .. } = &written {
            tombstone::refuse(item)?;
        }
        Ok(written)
    }
}

/// The keys of the slices that start in `[from, to)`, if any can exist.
pub(super) fn starts_in(from: DateTime<Utc>, to: DateTime<Utc>) -> Option<Sorts> {
    // Slices start at whole seconds, and a store's range includes both ends.
    if from >= to {
        return None;
    }
    let (first, last) = (next_second(from), next_second(to) - TimeDelta::seconds(1));
    (first <= last).then(|| Sorts::Between(sort_key(first), sort_key(last)))
}

/// The first whole second at or after this instant.
fn next_second(at: DateTime<Utc>) -> DateTime<Utc> {
    let second = at.trunc_subsecs(0);
    if second == at { at } else { second + TimeDelta::seconds(1) }
}
