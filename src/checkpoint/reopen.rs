//! Reopening a slice: late data, a changed definition, a replay.

use chrono::{DateTime, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::dynamodb::Checkpoints;
use super::error::CheckpointError;
use super::finish::shortened;
use super::item::{Checkpoint, UNFINISHED, instant, key, label, number, text};
use super::state::State;
use super::update::{Update, Written};

/// Looks at a slice before giving up. Each further look means that a worker claimed or ended it in
/// the milliseconds between two calls.
pub(super) const LOOKS_MAX: usize = 5;

/// Slices reopened at the same time: enough to hide the network, few for the table.
const REOPENED_AT_ONCE: usize = 8;

/// Every slice that nobody works on, one without a checkpoint included.
const IDLE: &str = "attribute_not_exists(#pk) OR #state <> :running";

impl Checkpoints {
    /// Makes a slice run again. A running slice goes on, and its completion makes it stale. A slice
    /// without a checkpoint gets one, so that a slice that never ran can be asked for. The
    /// watermark falls back to the slice where it was past it.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub async fn reopen(
        &self,
        rollup: &str,
        slice_start: DateTime<Utc>,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<Checkpoint, CheckpointError> {
        let reopened = self.mark_dirty(rollup, slice_start, reason, now).await?;
        // After the item, never before: see `Watermark`.
        self.lower_watermark(rollup, slice_start).await?;
        Ok(reopened)
    }

    /// Makes many slices run again, as [`Checkpoints::reopen`] does one by one.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails; some slices may be marked then without the watermark
    /// having fallen back, and all of them must be reopened again.
    pub async fn reopen_all(
        &self,
        rollup: &str,
        starts: &[DateTime<Utc>],
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        let Some(first) = starts.iter().min() else { return Ok(()) };
        stream::iter(starts)
            .map(|start| self.mark_dirty(rollup, *start, reason, now))
            .buffer_unordered(REOPENED_AT_ONCE)
            .try_for_each(|_| async { Ok(()) })
            .await?;
        self.lower_watermark(rollup, *first).await
    }

    async fn mark_dirty(
        &self,
        rollup: &str,
        slice_start: DateTime<Utc>,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<Checkpoint, CheckpointError> {
        for _ in 0..LOOKS_MAX {
            let idle = dirtied(rollup, slice_start, reason, now, IDLE)
                .compute("attempt", "if_not_exists(#attempt, :zero)")
                .set("state", text(State::Stale.word()))
                .set("failures", number(0))
                .set(UNFINISHED, text(rollup))
                .remove(&["retry_at"]);
            if let Written::Done(item) = self.send(idle, "reopen").await? {
                return Checkpoint::from_item(&item);
            }
            let running = dirtied(rollup, slice_start, reason, now, "#state = :running");
            if let Written::Done(item) = self.send(running, "reopen").await? {
                return Checkpoint::from_item(&item);
            }
        }
        let slice = label(rollup, slice_start);
        Err(CheckpointError::Contended { operation: "reopen", slice })
    }
}

/// What both kinds of reopening have in common.
fn dirtied(
    rollup: &str,
    slice_start: DateTime<Utc>,
    reason: &str,
    now: DateTime<Utc>,
    condition: &str,
) -> Update {
    Update::new(key(rollup, slice_start), condition)
        .bind("running", text(State::Running.word()))
        .bind("zero", number(0))
        .bind("one", number(1))
        .compute("dirty", "if_not_exists(#dirty, :zero) + :one")
        .set("reason", text(shortened(reason)))
        .set("reopened_at", instant(now))
}
