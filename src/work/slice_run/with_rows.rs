//! Completes slices in the transaction that replaces their rows, where the checkpoints are in the
//! target.

use std::fmt;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use super::chunks::SliceRead;
use super::{Done, Work, record};
use crate::checkpoint::{CheckpointError, Completion, State};
use crate::clients::db::Tx;
use crate::source::SliceJob;
use crate::target::{LastWrite, Replaced};
use crate::work::compose;

/// A completion that was written with the rows. It counts once their transaction has committed.
#[derive(Clone, Debug)]
pub(super) struct CompletedSlice {
    pub(crate) state: State,
    pub(crate) completion: Completion,
}

/// Completes slices with their rows.
pub(super) struct Completing<'w> {
    /// In ascending order.
    works: &'w [Work<'w>],
    settled_by: &'static str,
    /// The chunks of the slice, and the milliseconds of their statements. `None`: one statement
    /// reads and replaces it.
    chunks: Option<(u32, u64)>,
}

impl<'w> Completing<'w> {
    /// For one slice.
    pub(super) const fn new(
        work: &'w Work<'w>,
        settled_by: &'static str,
        chunks: Option<(u32, u64)>,
    ) -> Self {
        Self { works: std::slice::from_ref(work), settled_by, chunks }
    }

    /// For slices that one statement reads and replaces.
    pub(super) const fn of_several(works: &'w [Work<'w>], settled_by: &'static str) -> Self {
        Self { works, settled_by, chunks: None }
    }

    /// The part of the replacement's transaction. `None`: the checkpoint is elsewhere, and is
    /// written afterwards.
    pub(super) fn last_write(&self) -> Option<&dyn LastWrite> {
        let is_in_target = |work: &Work<'_>| work.worker.checkpoints.is_in_target();
        self.works.first().is_some_and(is_in_target).then_some(self)
    }

    /// A slice after its replacement.
    pub(super) fn done(&self, replaced: Replaced) -> Done {
        let (chunks, source_ms) = self.chunks.unwrap_or((1, replaced.statement_ms));
        Done { read: SliceRead { replaced, chunks, source_ms }, settled_by: self.settled_by }
    }

    /// Completes the slices, and then reopens the coarse ones, which is the order of locks.
    async fn complete(&self, replaced: &[Replaced], tx: &mut Tx) -> Result<(), CheckpointError> {
        let Some(Work { worker, job: SliceJob { rollup, .. }, .. }) = self.works.first() else {
            return Ok(());
        };
        let each = || self.works.iter().zip(replaced);
        let completion = |(work, replaced): (&Work<'_>, &Replaced)| {
            record::completion(&self.done(*replaced), work.elapsed(), work.job.open_until)
        };
        let ends: Vec<_> = each().map(|pair| (pair.0.lease, completion(pair))).collect();
        let now = worker.clock.now();
        let states = worker.checkpoints.complete_each_within(&ends, now, tx).await?;
        // The same coarse slices are computed from all of them.
        let changed = each().find(|(work, replaced)| work.has_changed(replaced));
        if let Some((work, _)) = changed {
            compose::reopen_coarse_within(worker, rollup, work.job.slice, tx).await?;
        }
        for ((work, (_, completion)), state) in self.works.iter().zip(ends).zip(states) {
            work.set_written(CompletedSlice { state, completion });
        }
        Ok(())
    }
}

impl fmt::Debug for Completing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completing").field("chunks", &self.chunks).finish_non_exhaustive()
    }
}

impl LastWrite for Completing<'_> {
    fn write<'a>(
        &'a self,
        replaced: &'a [Replaced],
        tx: &'a mut Tx,
    ) -> BoxFuture<'a, Result<(), CheckpointError>> {
        self.complete(replaced, tx).boxed()
    }
}
