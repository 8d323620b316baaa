//! All items of one rollup at once: for a rollup that gets another name, or is dropped.

use chrono::{DateTime, Utc};

use super::checkpoints::Checkpoints;
use super::error::CheckpointError;
use super::item::{Reader, WATERMARK, number, text};
use super::state::State;
use super::store::{Cond, Item, Key, PK, Query, SK, Sorts, UNFINISHED};

/// What is under the new name already stays, unless the old item has been worked on or reopened
/// since: the numbering of attempts must go on from the highest.
fn is_older(read: &Reader<'_>) -> Result<Cond, CheckpointError> {
    let count = |name| read.number(name).map(|count| number(count.unwrap_or(0)));
    // Where the scrub stands has no attempt, but a number that is raised with each slice it takes.
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
        let items = self.store.query(Query::new(rollup, Sorts::All)).await?;
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
            self.store.put(copy, is_older(&read)?).await?;
        }
        Ok(())
    }

    /// Deletes `items`.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails; those that are gone already are no trouble.
    pub async fn delete_items(&self, items: &Items) -> Result<(), CheckpointError> {
        for item in &items.items {
            let read = Reader { item };
            let part = |name| read.text(name).map(Option::unwrap_or_default);
            self.store.delete(Key::new(&part(PK)?, &part(SK)?)).await?;
        }
        Ok(())
    }
}
