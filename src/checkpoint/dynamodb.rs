//! The connection to DynamoDB, and the reads.

use aws_sdk_dynamodb::Client;
use chrono::{DateTime, TimeDelta, Utc};

use super::error::CheckpointError;
use super::item::{Checkpoint, Glance, Item, PK, SK, UNFINISHED, key, sort_key, text};
use super::table::INDEX;
use super::update::{Update, Written, names_in};

/// Slices that tell how fast a rollup is: one read of DynamoDB.
const RECENT: i32 = 32;

/// The checkpoints of all rollups: a DynamoDB table.
#[derive(Clone, Debug)]
pub struct Checkpoints {
    pub(super) client: Client,
    pub(super) table: String,
    pub(super) failures_max: u32,
}

impl Checkpoints {
    /// The checkpoints in `table`, through a client made elsewhere. A slice is exhausted after
    /// `failures_max` failures.
    #[must_use]
    pub fn new(client: Client, table: impl Into<String>, failures_max: u32) -> Self {
        // With 0 every slice would be exhausted before its first failure.
        Self { client, table: table.into(), failures_max: failures_max.max(1) }
    }

    /// The checkpoints in `table`, found as every AWS SDK finds them: region, credentials, and
    /// `AWS_ENDPOINT_URL_DYNAMODB`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`CheckpointError::NoRegion`] if there is neither a region nor an endpoint;
    /// [`CheckpointError::Environment`] if either cannot be understood.
    pub async fn connect(
        table: impl Into<String>,
        failures_max: u32,
    ) -> Result<Self, CheckpointError> {
        if let Some(refusal) = crate::aws::refusal(|name| std::env::var(name).ok()) {
            return Err(CheckpointError::Environment(refusal));
        }
        let shared = crate::aws::config().await;
        if shared.region().is_none() {
            return Err(CheckpointError::NoRegion);
        }
        Ok(Self::new(Client::new(&shared), table, failures_max))
    }

    /// The table's name.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Failures after which a slice is exhausted.
    #[must_use]
    pub const fn failures_max(&self) -> u32 {
        self.failures_max
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
        // DynamoDB refuses an empty range as invalid.
        if from >= to {
            return Ok(Vec::new());
        }
        let condition = format!("#{PK} = :rollup AND #{SK} BETWEEN :from AND :to");
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .set_expression_attribute_names(Some(names_in(&condition).collect()))
            .key_condition_expression(condition)
            .expression_attribute_values(":rollup", text(rollup))
            .expression_attribute_values(":from", text(&sort_key(from)))
            .expression_attribute_values(":to", text(&sort_key(to)));
        let mut pages = query.into_paginator().items().send();
        let mut found = Vec::new();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|error| self.error("query", error))?;
            let checkpoint = Checkpoint::from_item(&item)?;
            // BETWEEN includes both of its ends.
            if checkpoint.slice_start >= from && checkpoint.slice_start < to {
                found.push(checkpoint);
            }
        }
        Ok(found)
    }

    /// As [`Checkpoints::range`], but only what tells how far a backfill is, and not the very newest state: for those
    /// who watch.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails or an item is malformed.
    pub async fn glance(
        &self,
        rollup: &str,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<Glance>, CheckpointError> {
        // DynamoDB refuses an empty range as invalid; BETWEEN includes both of its ends.
        let to = to - TimeDelta::seconds(1);
        if from > to {
            return Ok(Vec::new());
        }
        let condition = format!("#{PK} = :rollup AND #{SK} BETWEEN :from AND :to");
        let wanted = "#state, #definition, #started_at, #failures, #rows_read";
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .set_expression_attribute_names(Some(
                names_in(&condition).chain(names_in(wanted)).collect(),
            ))
            .projection_expression(wanted)
            .key_condition_expression(condition)
            .expression_attribute_values(":rollup", text(rollup))
            .expression_attribute_values(":from", text(&sort_key(from)))
            .expression_attribute_values(":to", text(&sort_key(to)));
        let mut pages = query.into_paginator().items().send();
        let mut found = Vec::new();
        while let Some(item) = pages.next().await {
            found.push(Glance::from_item(&item.map_err(|error| self.error("query", error))?)?);
        }
        Ok(found)
    }

    /// The checkpoints of the newest slices that have any, at most 32 of them.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or an item is malformed.
    pub async fn recent(&self, rollup: &str) -> Result<Vec<Checkpoint>, CheckpointError> {
        // Slices begin with a digit, everything else with a letter.
        let condition = format!("#{PK} = :rollup AND #{SK} < :letters");
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .scan_index_forward(false)
            .limit(RECENT)
            .set_expression_attribute_names(Some(names_in(&condition).collect()))
            .key_condition_expression(condition)
            .expression_attribute_values(":rollup", text(rollup))
            .expression_attribute_values(":letters", text("A"));
        let found = query.send().await.map_err(|error| self.error("query", error))?;
        found.items().iter().map(Checkpoint::from_item).collect()
    }

    /// The checkpoints of all slices that have not succeeded, in their order. Costs what there is
    /// of them, however long the history. The index may lag behind by about a second.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails or an item is malformed.
    pub async fn unfinished(&self, rollup: &str) -> Result<Vec<Checkpoint>, CheckpointError> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .index_name(INDEX)
            .key_condition_expression("#unfinished = :rollup")
            .expression_attribute_names("#unfinished", UNFINISHED)
            .expression_attribute_values(":rollup", text(rollup));
        let mut pages = query.into_paginator().items().send();
        let mut found = Vec::new();
        while let Some(item) = pages.next().await {
            let item = item.map_err(|error| self.error("query", error))?;
            found.push(Checkpoint::from_item(&item)?);
        }
        Ok(found)
    }

    /// One item, read consistently.
    pub(super) async fn item(&self, key: Item) -> Result<Option<Item>, CheckpointError> {
        let request = self.client.get_item().table_name(&self.table).consistent_read(true);
        let answer = request.set_key(Some(key)).send().await;
        answer.map(|output| output.item).map_err(|error| self.error("get", error))
    }

    /// One conditional write.
    pub(super) async fn send(
        &self,
        update: Update,
        operation: &'static str,
    ) -> Result<Written, CheckpointError> {
        update.send(&self.client, &self.table, operation).await
    }

    /// What the SDK's error means.
    pub(super) fn error<E>(
        &self,
        operation: &'static str,
        error: aws_sdk_dynamodb::error::SdkError<E>,
    ) -> CheckpointError
    where
        E: aws_sdk_dynamodb::error::ProvideErrorMetadata
            + std::error::Error
            + Send
            + Sync
            + 'static,
    {
        CheckpointError::from_sdk(operation, &self.table, error)
    }
}
