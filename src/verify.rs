//! Verify: recompute a slice and compare, writing nothing.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::checkpoint::{Checkpoint, State, Watermark};
use crate::db::{Access, DbErrorKind};
use crate::plan::Standing;
use crate::rollup::{Late, Rollup};
use crate::slice::Slice;
use crate::source::shape::Shape;
use crate::source::{capture, changes, marks, settle};
use crate::target::{Difference, Verification};
use crate::worker::{CATALOGUE_TIMEOUT, WorkError, Worker};

/// How one slice compares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SliceVerification {
    /// The rollup.
    pub rollup: String,
    /// The slice's start.
    pub start: chrono::DateTime<chrono::Utc>,
    /// How many groups differ.
    pub differences: u64,
    /// The first of them.
    pub examples: Vec<Difference>,
}

/// A slice whose rows are not claimed to be right at present: no drift, whatever they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// The rollup.
    pub rollup: String,
    /// The slice's start.
    pub start: DateTime<Utc>,
    /// Why.
    pub why: String,
}

/// What a comparison says.
#[derive(Clone, Debug, PartialEq)]
pub enum Compared {
    /// Every group is as one `GROUP BY` over the source gives it.
    Same,
    /// Some are not, though the slice succeeded and nothing is known to have changed since: the
    /// attempt that computed it, and the differences.
    Drift(u64, SliceVerification),
    /// The slice is to run again, or changed meanwhile.
    Pending(Pending),
}

/// A change time may be ahead of the server's clock by as much and is still looked at.
const STAMP_AHEAD: TimeDelta = TimeDelta::hours(1);

impl Worker {
    /// Compares `slice` with what one `GROUP BY` over the source, or over the finer rollup, gives now; returns at most
    /// `limit` of the groups that differ. Every statement ends within `timeout`.
    ///
    /// # Errors
    /// The databases cannot be asked, or do not fit the definition.
    pub async fn verify(
        &self,
        rollup: &Rollup,
        slice: Slice,
        timeout: Duration,
        limit: usize,
    ) -> Result<SliceVerification, WorkError> {
        let shape = self.ready(rollup).await?;
        let what = Verification { rollup, shape: &shape, slice, timeout, limit };
        let (differences, examples) = self.target.verify(self.source_of(rollup), &what).await?;
        let (rollup, start) = (rollup.name.clone(), slice.start());
        Ok(SliceVerification { rollup, start, differences, examples })
    }

    /// As [`Worker::verify`], and a difference counts as drift only if the slice's checkpoint
    /// promised the same rows before and after, and the source knows of no late change that is
    /// still to be counted.
    ///
    /// # Errors
    /// As [`Worker::verify`]; the checkpoints cannot be read.
    pub async fn compare(
        &self,
        rollup: &Rollup,
        slice: Slice,
        timeout: Duration,
        limit: usize,
    ) -> Result<Compared, WorkError> {
        let pending = |why: &str| {
            let (rollup, start) = (rollup.name.clone(), slice.start());
            Ok(Compared::Pending(Pending { rollup, start, why: why.to_owned() }))
        };
        let before = match self.promise(rollup, slice).await? {
            Ok(before) => before,
            Err(why) => return pending(why),
        };
        let found = self.verify(rollup, slice, timeout, limit).await?;
        if found.differences == 0 {
            return Ok(Compared::Same);
        }
        // Marks first, the checkpoint after: whoever takes a mark away has raised `dirty` before.
        if self.has_late_change(rollup, slice).await? {
            return pending("a late change is not counted yet");
        }
        // Before the second look at the checkpoint: a finer slice that is done has reopened this one
        // first, if it changed.
        if self.waits_for(rollup, slice).await?.is_some() {
            return pending("a finer slice is not done");
        }
        match self.promise(rollup, slice).await? {
            Err(why) => pending(why),
            Ok(now) if (now.attempt, now.dirty) != (before.attempt, before.dirty) => {
                pending("changed while it was compared")
            }
            Ok(now) if self.standing_of(rollup, &now, slice) == Standing::Lookback => {
                pending("lookback")
            }
            Ok(now) => Ok(Compared::Drift(now.attempt, found)),
        }
    }

    /// The checkpoint of a slice that promises its rows to be right, or why it does not.
    async fn promise(
        &self,
        rollup: &Rollup,
        slice: Slice,
    ) -> Result<Result<Checkpoint, &'static str>, WorkError> {
        let Some(checkpoint) = self.checkpoints.get(&rollup.name, slice.start()).await? else {
            return Ok(Err(Standing::Missing.word()));
        };
        let standing = self.standing_of(rollup, &checkpoint, slice);
        Ok(match standing {
            // Of a sealed slice too, if it was computed once.
            _ if checkpoint.state != State::Succeeded => Err(standing.word()),
            _ if checkpoint.definition.as_deref() != Some(&*rollup.definition()) => {
                Err("computed by another definition")
            }
            _ => Ok(checkpoint),
        })
    }

    /// How the slice of this checkpoint stands.
    pub(crate) fn standing_of(
        &self,
        rollup: &Rollup,
        checkpoint: &Checkpoint,
        slice: Slice,
    ) -> Standing {
        // Where the source's rows begin matters only to slices without a checkpoint.
        let view = self.view(rollup, &Watermark::default(), self.clock.now());
        view.judge(Some(checkpoint), slice)
    }

    /// Whether the source tells of changes in the slice that no tick has noticed yet.
    async fn has_late_change(&self, rollup: &Rollup, slice: Slice) -> Result<bool, WorkError> {
        let shape = self.ready(rollup).await?;
        match (&rollup.late, &shape.changes) {
            (Late::Capture, _) => self.has_mark(rollup, &shape, slice).await,
            (Late::Column(_), Some(axis)) => {
                let from = self.checkpoints.changes_until(&rollup.name).await?;
                let Some(from) = from else { return Ok(false) };
                let mut tx =
                    self.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
                let (now, _) = settle::now(&mut tx).await?;
                let until = now + STAMP_AHEAD;
                let hours = changes::hours(&mut tx, rollup, &shape, axis, (from, until)).await;
                let bounds = (slice.start(), slice.end());
                match hours {
                    Ok(hours) => {
                        tx.rollback().await?;
                        Ok(hours.iter().any(|hours| hours.within(bounds.0, bounds.1).is_some()))
                    }
                    // So many changes wait that nobody can say: there is no telling drift then.
                    Err(error) if error.kind() == DbErrorKind::Cancelled => Ok(true),
                    Err(error) => Err(error.into()),
                }
            }
            (Late::Grace | Late::Clock | Late::Column(_), _) => Ok(false),
        }
    }

    async fn has_mark(
        &self,
        rollup: &Rollup,
        shape: &Shape,
        slice: Slice,
    ) -> Result<bool, WorkError> {
        let mut tx = self.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
        let standing = capture::standing(&mut tx, rollup, shape).await?;
        let found = match &standing.key {
            Some(key) => {
                let axis = capture::axis_key(&shape.axis);
                marks::touches(&mut tx, key, &axis, (slice.start(), slice.end())).await?
            }
            None => false,
        };
        tx.rollback().await?;
        Ok(found)
    }
}
