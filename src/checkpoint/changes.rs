//! The progress in noticing late changes of a rollup: the last change time searched, or the
//! consumer of the source's marks. It is an item of its own.

use chrono::{DateTime, Utc};

use super::checkpoints::Checkpoints;
use super::error::CheckpointError;
use super::item::{Reader, instant, number, text};
use super::store::{Cond, Key, Update};

/// The second part of its key. It sorts after every slice, because those start with a digit.
const CHANGES: &str = "changes";

/// How far the change times of a rollup's source were searched, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SearchedChanges {
    /// The search goes on here: what changed before, and has reopened nothing, has changed again
    /// since.
    pub(crate) until: DateTime<Utc>,
    /// Every change stamped before this instant has reopened its slice.
    pub(crate) found: DateTime<Utc>,
}

impl SearchedChanges {
    /// After a search that was completed.
    pub(crate) const fn wholly(until: DateTime<Utc>) -> Self {
        Self { until, found: until }
    }
}

impl Checkpoints {
    /// How far the change times were searched. `None`: the search has not started.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or the item is malformed.
    pub(crate) async fn searched(
        &self,
        rollup: &str,
    ) -> Result<Option<SearchedChanges>, CheckpointError> {
        let Some(item) = self.item(changes_key(rollup)).await? else { return Ok(None) };
        let read = Reader { item: &item };
        let Some(until) = read.instant("changes_until")? else { return Ok(None) };
        Ok(Some(SearchedChanges { until, found: read.instant("changes_found")?.unwrap_or(until) }))
    }

    /// Records how far the change times were searched. Another worker may already be further.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn set_searched(
        &self,
        rollup: &str,
        searched: SearchedChanges,
    ) -> Result<(), CheckpointError> {
        let (name, until) = ("changes_until", instant(searched.until));
        let forwards = Cond::lacks(name).or(Cond::below(name, until.clone()));
        let update = Update::new(changes_key(rollup), forwards)
            .set(name, until)
            .set("changes_found", instant(searched.found));
        self.send(update, "record the changes seen").await.map(drop)
    }
}

/// The consumer of the source's marks that a rollup is registered as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptConsumer {
    /// Its ID there.
    pub(crate) id: i64,
    /// The relation of its slices to the marks.
    pub(crate) standing: Registration,
}

/// The relation of a consumer's slices to the marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Registration {
    /// It was never registered before.
    New,
    /// The source forgot it, so marks may have been deleted without it.
    Forgotten,
    /// Every mark of this capture since its registration has reached it, or is waiting for it.
    Known(String),
}

/// Stored instead of a capture's name. No capture has this name.
const FORGOTTEN: &str = "?";

impl Checkpoints {
    /// The consumer that the rollup is registered as. `None`: it never was one.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or the item is malformed.
    pub(crate) async fn consumer(
        &self,
        rollup: &str,
    ) -> Result<Option<KeptConsumer>, CheckpointError> {
        let Some(item) = self.item(changes_key(rollup)).await? else { return Ok(None) };
        let read = Reader { item: &item };
        let Some(id) = read.number("consumer")? else { return Ok(None) };
        let standing = match read.text("consumer_of")? {
            None => Registration::New,
            Some(of) if of == FORGOTTEN => Registration::Forgotten,
            Some(capture) => Registration::Known(capture),
        };
        Ok(Some(KeptConsumer { id, standing }))
    }

    /// Makes the rollup the consumer `id`, replacing `before`. An entry that another worker wrote
    /// meanwhile stays.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn set_consumer(
        &self,
        rollup: &str,
        before: Option<i64>,
        consumer: &KeptConsumer,
    ) -> Result<(), CheckpointError> {
        let condition = match before {
            None => Cond::lacks("consumer"),
            Some(before) => Cond::is("consumer", number(before.unsigned_abs())),
        };
        let update = Update::new(changes_key(rollup), condition)
            .set("consumer", number(consumer.id.unsigned_abs()));
        let update = match &consumer.standing {
            Registration::New => update,
            Registration::Forgotten => update.set("consumer_of", text(FORGOTTEN)),
            Registration::Known(capture) => update.set("consumer_of", text(capture)),
        };
        self.send(update, "record the consumer").await.map(drop)
    }
}

fn changes_key(rollup: &str) -> Key {
    Key::new(rollup, CHANGES)
}
