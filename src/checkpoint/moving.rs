//! All items of one rollup at once, for renaming or dropping it.

use chrono::{DateTime, Utc};

use super::checkpoints::Checkpoints;
use super::error::CheckpointError;
use super::item::{Reader, WATERMARK, number, text};
use super::state::State;
use super::store::{Cond, Item, Key, PK, Query, SK, Sorts, UNFINISHED};

/// The item under the new name stays, unless the old one has had work or a reopening since. The
/// numbers of attempts must continue from the highest.
fn is_older(read: &Reader<'_>) -> Result<Cond, CheckpointError> {
    let count = |name| read.number(name).map(|count| number(count.unwrap_or(0)));
    // The scrub's item has no attempt, but a number that is raised with each slice it takes.
    if read.item.contains_key("version") {
        return Ok(Cond::Absent.or(Cond::at_most("version", count("version")?)));
    }
    let (attempt, dirty) = (count("attempt")?, count("dirty")?);
    let same_attempt = Cond::is("attempt", attempt.clone()).and(Cond::below("dirty", dirty));
    Ok(Cond::Absent.or(Cond::below("attempt", attempt)).or(same_attempt))
}

/// Items of one rollup.
#[derive(Clone, Debug, Default)]
pub struct Items {
    items: Vec<Item>,
}

impl Items {
    #[must_use]
    pub const fn len(&self) -> usize {
        self.items.len()
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The latest end of the running leases, if there are any.
    ///
    /// # Errors
    /// An item is malformed.
    pub(crate) fn leased_until(
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
    /// A single item.
    pub(super) fn of(item: Item) -> Self {
        Self { items: vec![item] }
    }
}

impl Checkpoints {
    /// All items of `rollup`, including the watermark's.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub async fn items(&self, rollup: &str) -> Result<Items, CheckpointError> {
        let items = self.store.query(Query::new(rollup, Sorts::All)).await?;
        Ok(Items { items })
    }

    /// Writes `items` under the name `to`. Newer items there stay.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails. The same copy can be repeated.
    pub async fn copy_items(&self, items: &Items, to: &str) -> Result<(), CheckpointError> {
        for item in &items.items {
            let mut copy = item.clone();
            copy.insert(PK.into(), text(to));
            if copy.contains_key(UNFINISHED) {
                copy.insert(UNFINISHED.into(), text(to));
            }
            let read = Reader { item };
            // The watermark is left out. The first tick computes it again from the copied items.
            if read.text(SK)?.as_deref() == Some(WATERMARK) {
                continue;
            }
            self.store.put(copy, is_older(&read)?).await?;
        }
        Ok(())
    }

    /// Deletes `items`.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails. Items that are already gone are skipped.
    pub async fn delete_items(&self, items: &Items) -> Result<(), CheckpointError> {
        for item in &items.items {
            let read = Reader { item };
            let part = |name| read.text(name).map(Option::unwrap_or_default);
            self.store.delete(Key::new(&part(PK)?, &part(SK)?)).await?;
        }
        Ok(())
    }
}
