//! The slices that a replay may take: those of the present calendar, from `start` on, that have
//! begun and are open. Other checkpoints may exist, from an earlier `start` or another calendar.
//! All commands ignore these, so they are hidden from lists of unfinished slices.

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use crate::checkpoint::{Checkpoint, State};
use crate::model::clock::rfc3339;
use crate::model::hint::Hinted;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::work::worker::{WorkError, Worker};
use crate::work::{identity, ready};

/// Why a slice cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReplayable {
    /// The slice is before the rollup's first one.
    #[error(
        "rollup `{rollup}` has no slice {}: its history begins at {}",
        rfc3339(*.start), rfc3339(*.first)
    )]
    BeforeStart {
        rollup: String,
        /// The requested start.
        start: DateTime<Utc>,
        /// The start of the first slice.
        first: DateTime<Utc>,
    },
    /// The slice is in the future.
    #[error("rollup `{rollup}`: slice {} has not begun", rfc3339(*.start))]
    NotBegun { rollup: String, start: DateTime<Utc> },
}

impl Hinted for NotReplayable {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::BeforeStart { .. } => "lower `start` in the configuration first",
            Self::NotBegun { .. } => "ask for it once it has ended",
        };
        Some(hint.into())
    }
}

impl Rollup {
    /// The slice of this rollup that a checkpoint belongs to. `None`: the checkpoint is from before
    /// `start` was moved, or from another calendar.
    #[must_use]
    fn slice_of(&self, checkpoint: &Checkpoint) -> Option<Slice> {
        let slice = self.calendar.starting(checkpoint.slice_start).ok()?;
        (slice.start() >= self.start).then_some(slice)
    }

    /// Checks that `slice` belongs to this rollup and has begun by `now`.
    ///
    /// # Errors
    /// It starts before the rollup's `start`, or after `now`.
    pub(crate) fn begun(&self, slice: Slice, now: DateTime<Utc>) -> Result<Slice, NotReplayable> {
        let (rollup, start) = (self.name.clone(), slice.start());
        if start < self.start {
            return Err(NotReplayable::BeforeStart { rollup, start, first: self.start });
        }
        if start > now {
            return Err(NotReplayable::NotBegun { rollup, start });
        }
        Ok(slice)
    }
}

/// The checkpoints of unfinished slices that can still be worked on, oldest first.
///
/// # Errors
/// The checkpoints cannot be read.
pub async fn unfinished(worker: &Worker, rollup: &Rollup) -> Result<Vec<Checkpoint>, WorkError> {
    let mut found = worker.checkpoints.unfinished(&rollup.name).await?;
    let seal = match found.is_empty() {
        true => None,
        false => ready::watermark(worker, rollup).await?.seal_of(rollup),
    };
    found.retain(|known| {
        let is_open = |slice: Slice| seal.is_none_or(|seal| slice.start() >= seal);
        rollup.slice_of(known).is_some_and(is_open)
    });
    Ok(found)
}

/// The slices that failed, including the exhausted ones, newest first.
///
/// # Errors
/// The checkpoints cannot be read.
pub async fn failed_slices(worker: &Worker, rollup: &Rollup) -> Result<Vec<Slice>, WorkError> {
    identity::recognised(worker, rollup).await?;
    let unfinished = unfinished(worker, rollup).await?;
    let failed = unfinished.iter().filter(|known| known.state == State::Failed);
    let mut slices: Vec<Slice> = failed.filter_map(|known| rollup.slice_of(known)).collect();
    slices.sort_by(|one, other| other.cmp(one));
    Ok(slices)
}
