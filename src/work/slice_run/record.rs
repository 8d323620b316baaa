//! How a slice's turn ends: its write to the checkpoint, and its report.

use chrono::{DateTime, Utc};

use super::{Done, NO_ANSWER, OVERTIME, Stop, Work};
use crate::checkpoint::{CheckpointError, Completion, State, Yield};
use crate::clients::db::DbError;
use crate::model::clock::Stopwatch;
use crate::model::not_now::{NotNow, Why};
use crate::source::SliceJob;
use crate::target::Replaced;
use crate::throttle;
use crate::work::compose;
use crate::work::report::{Ending, Outcome, SliceReport};
use crate::work::worker::WorkError;

/// The end of a turn, after the write to the checkpoint.
struct Recorded {
    ending: Ending,
    /// Why the write failed.
    trouble: Option<CheckpointError>,
}

impl Recorded {
    const fn new(ending: Ending, trouble: Option<CheckpointError>) -> Self {
        Self { ending, trouble }
    }
}

impl Work<'_> {
    /// As [`Work::record`], within the deadline and [`OVERTIME`]. A worker that wakes after its
    /// deadline has no time left, and first has to find out whether it still has the slice. The
    /// calls themselves limit its wait.
    pub(super) async fn record_in_time(
        &self,
        result: Result<Done, Stop>,
        watch: Stopwatch,
    ) -> Result<SliceReport, WorkError> {
        let left = self.time_left();
        let record = self.record(result, watch);
        if left.is_zero() {
            return record.await;
        }
        match tokio::time::timeout(left + OVERTIME, record).await {
            Ok(recorded) => recorded,
            Err(_) => {
                let not_now = NotNow::because(Why::OutOfTime(NO_ANSWER.to_owned()));
                Ok(SliceReport::not_now(self.job.rollup, self.job.slice, not_now))
            }
        }
    }

    /// Writes the outcome to the checkpoint.
    async fn record(
        &self,
        result: Result<Done, Stop>,
        watch: Stopwatch,
    ) -> Result<SliceReport, WorkError> {
        let now = self.worker.clock.now();
        let elapsed_ms = u64::try_from(watch.elapsed().as_millis()).unwrap_or(u64::MAX);
        let Recorded { ending, trouble } = match result {
            Ok(done) => self.succeed(&done, elapsed_ms, now).await,
            Err(Stop::NotNow { not_now, horizon }) => self.give_back(not_now, horizon, now).await,
            Err(Stop::Fail { error, retryable }) => self.fail(error, retryable, now).await,
            Err(Stop::Fenced(reason)) => self.lose(reason, now).await,
            Err(Stop::Unreachable(error)) => self.leave(error, now).await?,
        };
        let ending = match trouble {
            None => ending,
            Some(CheckpointError::LostLease(lost)) => ending.overtaken(&lost),
            Some(error) => {
                self.worker.interrupt.leave();
                return Err(error.into());
            }
        };
        let SliceJob { rollup, slice, .. } = self.job;
        Ok(SliceReport::of(rollup, slice, self.lease.attempt(), elapsed_ms, ending))
    }

    /// Completes the slice, whose rows are replaced.
    async fn succeed(&self, done: &Done, elapsed_ms: u64, now: DateTime<Utc>) -> Recorded {
        let completion = completion(done, elapsed_ms);
        let ended = self.complete(&done.read.replaced, &completion, now).await;
        let (outcome, reason) = match &ended {
            Ok(State::Stale) => {
                (Outcome::Stale, Some("changed while it was read; runs again".into()))
            }
            _ => (Outcome::Succeeded, None),
        };
        let ending = Ending { reason, completion: Some(completion), ..Ending::new(outcome) };
        Recorded::new(ending, ended.err())
    }

    /// Reopens the coarse slices that contain this one, and then completes it.
    /// [`compose`](crate::work::compose) explains the order.
    async fn complete(
        &self,
        replaced: &Replaced,
        completion: &Completion,
        now: DateTime<Utc>,
    ) -> Result<State, CheckpointError> {
        let Self { worker, lease, job: SliceJob { rollup, slice, .. }, .. } = *self;
        let has_changed = replaced.rewritten() > 0 || lease.attempt() > 1;
        if has_changed {
            compose::reopen_coarse(worker, rollup, slice).await?;
        }
        worker.checkpoints.complete(lease, completion, now).await
    }

    /// Yields. The next attempt waits for the same `horizon`.
    async fn give_back(
        &self,
        mut not_now: NotNow,
        horizon: Option<u64>,
        now: DateTime<Utc>,
    ) -> Recorded {
        if not_now.why.is_taken() {
            not_now.retry_at.get_or_insert(now + throttle::RETRY);
        }
        let turn = Yield { reason: not_now.to_string(), retry_at: not_now.retry_at, horizon };
        let ended = self.worker.checkpoints.yield_(self.lease, &turn, now).await;
        Recorded::new(Ending::not_now(not_now), ended.err())
    }

    /// Counts a failure.
    async fn fail(&self, error: String, retryable: bool, now: DateTime<Utc>) -> Recorded {
        let ended = self.worker.checkpoints.fail(self.lease, &error, retryable, now).await;
        let (retry_at, trouble) = match ended {
            Ok(failure) => (failure.retry_at, None),
            Err(error) => (None, Some(error)),
        };
        let ending = Ending { reason: Some(error), retry_at, ..Ending::new(Outcome::Failed) };
        Recorded::new(ending, trouble)
    }

    /// Records that a newer attempt has the slice's marker.
    async fn lose(&self, reason: String, now: DateTime<Utc>) -> Recorded {
        // If a newer attempt has the checkpoint too, this write is refused, which is right.
        // If not, the checkpoints were lost, and the failure tells the operator so.
        let hint = format!("{reason}; if checkpoints were lost, run `tallymark repair`");
        let ended = self.worker.checkpoints.fail(self.lease, &hint, true, now).await;
        let ending = Ending { reason: Some(reason), ..Ending::new(Outcome::Fenced) };
        Recorded::new(ending, ended.err())
    }

    /// Yields, because a server is unreachable. That is the result, unless the attempt came too
    /// late, which may have broken the connection.
    async fn leave(&self, error: DbError, now: DateTime<Utc>) -> Result<Recorded, WorkError> {
        let turn = Yield { reason: error.to_string(), ..Yield::default() };
        let ended = self.worker.checkpoints.yield_(self.lease, &turn, now).await;
        match ended.err() {
            Some(lost @ CheckpointError::LostLease(_)) => {
                Ok(Recorded::new(Ending::new(Outcome::Fenced), Some(lost)))
            }
            trouble => Err(unreachable(error, trouble)),
        }
    }
}

/// The error of a slice whose server went away. `trouble` is the error that kept it from being
/// given back.
fn unreachable(error: DbError, trouble: Option<CheckpointError>) -> WorkError {
    if let Some(trouble) = trouble {
        tracing::warn!(error = %trouble, "could not give the slice back; its lease runs out");
    }
    error.into()
}

fn completion(done: &Done, elapsed_ms: u64) -> Completion {
    let Replaced { rows_read, groups, inserted, updated, deleted, .. } = done.read.replaced;
    Completion {
        rows_read,
        groups,
        inserted,
        updated,
        deleted,
        unchanged: done.read.replaced.unchanged(),
        chunks: done.read.chunks.into(),
        source_ms: done.read.source_ms,
        elapsed_ms,
        settled_by: done.settled_by.into(),
    }
}
