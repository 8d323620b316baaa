//! Which slices a replay may take: those of the present calendar, from `start` on, that have begun
//! and are not sealed. Checkpoints of other slices may exist: of an earlier `start`, or of another
//! calendar. No command works on those, so none of them is shown as unfinished.

use chrono::{DateTime, SecondsFormat, Utc};

use crate::checkpoint::{Checkpoint, State};
use crate::rollup::Rollup;
use crate::slice::Slice;
use crate::worker::{WorkError, Worker};

/// Why a slice cannot be replayed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotReplayable {
    /// There are no slices so early.
    #[error(
        "rollup `{rollup}` has no slice {}: its history begins at {}; lower `start` in the \
         configuration first", rfc3339(.start), rfc3339(.first)
    )]
    BeforeStart {
        /// The rollup.
        rollup: String,
        /// The start asked for.
        start: DateTime<Utc>,
        /// The start of the first slice.
        first: DateTime<Utc>,
    },
    /// The slice lies in the future.
    #[error("rollup `{rollup}`: slice {} has not begun; ask for it once it has ended", rfc3339(.start))]
    NotBegun {
        /// The rollup.
        rollup: String,
        /// The slice's start.
        start: DateTime<Utc>,
    },
}

impl Rollup {
    /// The slice of this rollup that a checkpoint is of; `None`: it was made before `start` was moved,
    /// or by another calendar.
    #[must_use]
    pub fn slice_of(&self, checkpoint: &Checkpoint) -> Option<Slice> {
        let slice = self.calendar.starting(checkpoint.slice_start).ok()?;
        (slice.start() >= self.start).then_some(slice)
    }

    /// Whether `slice` is one of this rollup's that has begun by `now`.
    ///
    /// # Errors
    /// It starts before the rollup's `start`, or after `now`.
    pub fn begun(&self, slice: Slice, now: DateTime<Utc>) -> Result<Slice, NotReplayable> {
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

impl Worker {
    /// The checkpoints of slices that have not succeeded, oldest first, as far as anything can still be
    /// done about them.
    ///
    /// # Errors
    /// The checkpoints cannot be read.
    pub async fn unfinished(&self, rollup: &Rollup) -> Result<Vec<Checkpoint>, WorkError> {
        let mut found = self.checkpoints.unfinished(&rollup.name).await?;
        found.retain(|known| {
            rollup.slice_of(known).is_some_and(|slice| !rollup.is_sealed_at(slice.start()))
        });
        Ok(found)
    }

    /// The slices that failed, the exhausted ones included, newest first.
    ///
    /// # Errors
    /// The checkpoints cannot be read.
    pub async fn failed_slices(&self, rollup: &Rollup) -> Result<Vec<Slice>, WorkError> {
        self.recognised(rollup).await?;
        let unfinished = self.unfinished(rollup).await?;
        let failed = unfinished.iter().filter(|known| known.state == State::Failed);
        let mut slices: Vec<Slice> = failed.filter_map(|known| rollup.slice_of(known)).collect();
        slices.sort_by(|one, other| other.cmp(one));
        Ok(slices)
    }
}

fn rfc3339(at: &DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
