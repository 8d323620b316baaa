//! All items of one rollup at once: for a rollup that gets another name, or is dropped.

use aws_sdk_dynamodb::operation::put_item::PutItemError;
use chrono::{DateTime, Utc};

use super::dynamodb::Checkpoints;
use super::error::CheckpointError;
use super::item::{Item, PK, Reader, SK, UNFINISHED, WATERMARK, number, text};
use super::state::State;

/// A copy gives way to what is under the new name already, unless the old one has been worked on
/// or reopened since: the numbering of attempts must go on from the highest.
const IS_NEWER: &str = "attribute_not_exists(#pk) OR #attempt < :attempt \
    OR (#attempt = :attempt AND #dirty < :dirty)";

/// Where the scrub stands has no attempt, but a number that is raised with each slice it takes.
const IS_NO_OLDER: &str = "attribute_not_exists(#pk) OR #version <= :version";

/// Items of one rollup.
#[derive(Clone, Debug, Default)]
pub struct Items {
    items: Vec<Item>,
}

impl Items {
    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The last end of a lease that still runs, if any does.
    ///
    /// # Errors
    /// An item is malformed.
    pub fn leased_until(
        &self,
        now: DateTime<Utc>,
    ) -> Result<Option<DateTime<Utc>>, CheckpointError> {
        let mut last = None;
        for item in &self.items {
            let read = Reader { item };
            if read.text("state")?.as_deref() == Some(State::Running.word()) {
                last = last.max(read.epoch_ms("lease_until")?.filter(|until| *until > now));
            }
        }
        Ok(last)
    }
}

#[cfg(feature = "faults")]
impl Items {
    /// This one alone.
    pub(super) fn of(item: Item) -> Self {
        Self { items: vec![item] }
    }
}

impl Checkpoints {
    /// All items of `rollup`, the watermark's included.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub async fn items(&self, rollup: &str) -> Result<Items, CheckpointError> {
        let query = self
            .client
            .query()
            .table_name(&self.table)
            .consistent_read(true)
            .key_condition_expression("#pk = :rollup")
            .expression_attribute_names("#pk", PK)
            .expression_attribute_values(":rollup", text(rollup));
        let mut pages = query.into_paginator().items().send();
        let mut items = Vec::new();
        while let Some(item) = pages.next().await {
            items.push(item.map_err(|error| self.error("query", error))?);
        }
        Ok(Items { items })
    }

    /// Writes `items` under the name `to`; what is newer there stays.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails; the same copy can be made again.
    pub async fn copy_items(&self, items: &Items, to: &str) -> Result<(), CheckpointError> {
        for item in &items.items {
            let mut copy = item.clone();
            copy.insert(PK.into(), text(to));
            if copy.contains_key(UNFINISHED) {
                copy.insert(UNFINISHED.into(), text(to));
            }
            let read = Reader { item };
            // The watermark stays behind: the first tick finds it anew, from what was copied.
            if read.text(SK)?.as_deref() == Some(WATERMARK) {
                continue;
            }
            let put = self.client.put_item().table_name(&self.table).set_item(Some(copy));
            let put = put.expression_attribute_names("#pk", PK);
            let count = |name| read.number(name).map(|count| number(count.unwrap_or(0)));
            let put = if item.contains_key("version") {
                put.condition_expression(IS_NO_OLDER)
                    .expression_attribute_names("#version", "version")
                    .expression_attribute_values(":version", count("version")?)
            } else {
                put.condition_expression(IS_NEWER)
                    .expression_attribute_names("#attempt", "attempt")
                    .expression_attribute_names("#dirty", "dirty")
                    .expression_attribute_values(":attempt", count("attempt")?)
                    .expression_attribute_values(":dirty", count("dirty")?)
            };
            match put.send().await {
                Ok(_) => {}
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(PutItemError::is_conditional_check_failed_exception) => {}
                Err(error) => return Err(self.error("copy", error)),
            }
        }
        Ok(())
    }

    /// Deletes `items`.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails; those that are gone already are no trouble.
    pub async fn delete_items(&self, items: &Items) -> Result<(), CheckpointError> {
        for item in &items.items {
            let delete = self.client.delete_item().table_name(&self.table);
            let key = |name: &str| item.get(name).cloned().unwrap_or_else(|| text(""));
            let delete = delete.key(PK, key(PK)).key(SK, key(SK));
            delete.send().await.map_err(|error| self.error("delete", error))?;
        }
        Ok(())
    }
}
