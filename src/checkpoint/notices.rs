//! What operators were told, and are still to be told: one item for all rollups.
//!
//! The store knows the item's content as a text of one writer after another: a write takes place only
//! if no other one did since the text was read.

use super::checkpoints::Checkpoints;
use super::error::CheckpointError;
use super::item::{ALL, Reader, number, text};
use super::store::{Cond, Key, Update, Written};

/// The second part of its key.
const NOTICES: &str = "notices";

const VERSION: &str = "version";
const TOLD: &str = "told";

/// The content of the item, as it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeptNotices {
    version: u64,
    /// Empty before the first write.
    pub(crate) text: String,
}

impl Checkpoints {
    /// What operators were told.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or the item is malformed.
    pub(crate) async fn notices(&self) -> Result<KeptNotices, CheckpointError> {
        let Some(item) = self.item(notices_key()).await? else {
            return Ok(KeptNotices::default());
        };
        let read = Reader { item: &item };
        let (version, text) = (read.count(VERSION)?, read.text(TOLD)?);
        Ok(KeptNotices { version: version.unwrap_or(0), text: text.unwrap_or_default() })
    }

    /// Replaces `seen` by `next`. `None`: another worker wrote since `seen` was read.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn keep_notices(
        &self,
        seen: &KeptNotices,
        next: String,
    ) -> Result<Option<KeptNotices>, CheckpointError> {
        let unchanged = match seen.version {
            0 => Cond::lacks(VERSION),
            version => Cond::is(VERSION, number(version)),
        };
        let version = seen.version + 1;
        let update = Update::new(notices_key(), unchanged)
            .set(VERSION, number(version))
            .set(TOLD, text(&next));
        let written = self.send(update, "write the notices").await?;
        let kept = KeptNotices { version, text: next };
        Ok(matches!(written, Written::Done(_)).then_some(kept))
    }
}

pub(super) fn notices_key() -> Key {
    Key::new(ALL, NOTICES)
}
