//! Completes a slice in the transaction that replaces its rows, where the checkpoints are in the
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

/// Completes one slice with its rows.
pub(super) struct Completing<'w> {
    work: &'w Work<'w>,
    settled_by: &'static str,
    /// The chunks of the slice, and the milliseconds of their statements. `None`: one statement
    /// reads and replaces it.
    chunks: Option<(u32, u64)>,
}

impl<'w> Completing<'w> {
    pub(super) const fn new(
        work: &'w Work<'w>,
        settled_by: &'static str,
        chunks: Option<(u32, u64)>,
    ) -> Self {
        Self { work, settled_by, chunks }
    }

    /// The part of the replacement's transaction. `None`: the checkpoint is elsewhere, and is
    /// written afterwards.
    pub(super) fn last_write(&self) -> Option<&dyn LastWrite> {
        self.work.worker.checkpoints.is_in_target().then_some(self)
    }

    /// The slice after its replacement.
    pub(super) fn done(&self, replaced: Replaced) -> Done {
        let (chunks, source_ms) = self.chunks.unwrap_or((1, replaced.statement_ms));
        Done { read: SliceRead { replaced, chunks, source_ms }, settled_by: self.settled_by }
    }

    /// Completes the slice, and then reopens the coarse ones, which is the order of locks.
    async fn complete(&self, replaced: &Replaced, tx: &mut Tx) -> Result<(), CheckpointError> {
        let Work { worker, lease, job: SliceJob { rollup, slice, .. }, .. } = *self.work;
        let completion = record::completion(&self.done(*replaced), self.work.watch.elapsed());
        let now = worker.clock.now();
        let ended = worker.checkpoints.complete_within(lease, &completion, now, Some(&mut *tx));
        let state = ended.await?;
        if self.work.has_changed(replaced) {
            compose::reopen_coarse_within(worker, rollup, slice, tx).await?;
        }
        self.work.set_written(CompletedSlice { state, completion });
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
        replaced: &'a Replaced,
        tx: &'a mut Tx,
    ) -> BoxFuture<'a, Result<(), CheckpointError>> {
        self.complete(replaced, tx).boxed()
    }
}
