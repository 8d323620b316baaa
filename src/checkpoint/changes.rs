//! Up to when a rollup's change times have been looked through: an item of its own.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::dynamodb::Checkpoints;
use super::error::CheckpointError;
use super::item::{Item, PK, Reader, SK, instant, text};
use super::update::Update;

/// The sort key of the item. Sorts behind every slice, as those begin with a digit.
const CHANGES: &str = "changes";

impl Checkpoints {
    /// Every change stamped before this instant has reopened its slice; `None`: nothing was looked
    /// through yet.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or the item is malformed.
    pub async fn changes_until(
        &self,
        rollup: &str,
    ) -> Result<Option<DateTime<Utc>>, CheckpointError> {
        match self.item(changes_key(rollup)).await? {
            Some(item) => Reader { item: &item }.instant("changes_until"),
            None => Ok(None),
        }
    }

    /// Records that every change stamped before `to`, in whole milliseconds, has reopened its
    /// slice. Another worker may have come further already.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub async fn set_changes_until(
        &self,
        rollup: &str,
        to: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        let forwards = "attribute_not_exists(#changes_until) OR #changes_until < :to";
        let update = Update::new(changes_key(rollup), forwards)
            .bind("to", instant(to))
            .compute("changes_until", ":to");
        self.send(update, "record the changes seen").await.map(drop)
    }
}

fn changes_key(rollup: &str) -> Item {
    HashMap::from([(PK.into(), text(rollup)), (SK.into(), text(CHANGES))])
}
