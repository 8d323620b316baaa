//! How a slice's turn ends: its write to the checkpoint, and its report.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::with_rows::CompletedSlice;
use super::{Done, NO_ANSWER, OVERTIME, Stop, Work};
use crate::checkpoint::{CheckpointError, Completion, State, Yield};
use crate::clients::db::DbError;
use crate::model::clock::whole_ms;
use crate::model::hint::{Fault, Hinted};
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
    ) -> Result<SliceReport, WorkError> {
        let left = self.time_left();
        let record = self.record(result);
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
    async fn record(&self, result: Result<Done, Stop>) -> Result<SliceReport, WorkError> {
        let (now, elapsed) = (self.worker.clock.now(), self.elapsed());
        let Recorded { ending, trouble } = match result {
            Ok(done) => self.succeed(&done, elapsed, now).await,
            Err(Stop::NotNow { not_now, horizon }) => self.give_back(not_now, horizon, now).await,
            Err(Stop::Fail { fault, retryable }) => self.fail(fault, retryable, now).await,
            Err(Stop::Fenced(reason)) => self.lose(reason, now).await,
            Err(Stop::Unreachable(error)) => self.leave(error, now).await?,
            Err(Stop::Unrecorded(error)) => self.leave_unrecorded(error, now).await,
        };
        let ending = match trouble {
            None => ending,
            Some(CheckpointError::LostLease(lost)) => match self.written() {
                Some(written) if lost.is_success_of(self.lease) => succeeded(written),
                _ => ending.overtaken(&lost),
            },
            Some(error) => {
                self.worker.interrupt.leave();
                return Err(error.into());
            }
        };
        let SliceJob { rollup, slice, .. } = self.job;
        Ok(SliceReport::of(rollup, slice, self.lease.attempt(), whole_ms(elapsed), ending))
    }

    /// Completes the slice, whose rows are replaced.
    async fn succeed(&self, done: &Done, elapsed: Duration, now: DateTime<Utc>) -> Recorded {
        if let Some(written) = self.written() {
            return Recorded::new(succeeded(written), None);
        }
        let completion = completion(done, elapsed, self.job.open_until);
        let ended = self.complete(&done.read.replaced, &completion, now).await;
        let state = *ended.as_ref().unwrap_or(&State::Succeeded);
        Recorded::new(succeeded(CompletedSlice { state, completion }), ended.err())
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
        if self.has_changed(replaced) {
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
        let turn = Yield { reason: not_now.in_one_line(), retry_at: not_now.retry_at, horizon };
        let ended = self.worker.checkpoints.yield_(self.lease, &turn, now).await;
        self.stale_meanwhile(&ended)
            .unwrap_or_else(|| Recorded::new(Ending::not_now(not_now), ended.err()))
    }

    /// The end of a slice that this attempt had completed in a transaction whose COMMIT got no
    /// answer, and that has to run again. Otherwise the slice would have been given back.
    fn stale_meanwhile(&self, given_back: &Result<State, CheckpointError>) -> Option<Recorded> {
        let written = self.written().filter(|_| matches!(given_back, Ok(State::Stale)))?;
        let state = State::Stale;
        Some(Recorded::new(succeeded(CompletedSlice { state, ..written }), None))
    }

    /// Counts a failure.
    async fn fail(&self, fault: Fault, retryable: bool, now: DateTime<Utc>) -> Recorded {
        let ended =
            self.worker.checkpoints.fail(self.lease, &fault.in_one_line(), retryable, now).await;
        let (error, hint) = fault.into_parts();
        let (retry_at, trouble) = match ended {
            Ok(failure) => (failure.retry_at, None),
            Err(error) => (None, Some(error)),
        };
        let ending = Ending { reason: Some(error), hint, retry_at, ..Ending::new(Outcome::Failed) };
        Recorded::new(ending, trouble)
    }

    /// Records that a newer attempt has the slice's marker.
    async fn lose(&self, reason: String, now: DateTime<Utc>) -> Recorded {
        // If a newer attempt has the checkpoint too, this write is refused, which is right.
        // If not, the checkpoints were lost, and the failure tells the operator so.
        let fault = Fault::new(reason).remedy("if checkpoints were lost, run `tallymark repair`");
        let text = fault.in_one_line();
        let ended = self.worker.checkpoints.fail(self.lease, &text, true, now).await;
        let (reason, hint) = fault.into_parts();
        let ending = Ending { reason: Some(reason), hint, ..Ending::new(Outcome::Fenced) };
        Recorded::new(ending, ended.err())
    }

    /// Yields, because a server is unreachable. That is the result, unless the attempt came too
    /// late, which may have broken the connection.
    async fn leave(&self, error: DbError, now: DateTime<Utc>) -> Result<Recorded, WorkError> {
        let turn = Yield { reason: error.in_one_line(), ..Yield::default() };
        let ended = self.worker.checkpoints.yield_(self.lease, &turn, now).await;
        if let Some(recorded) = self.stale_meanwhile(&ended) {
            return Ok(recorded);
        }
        match ended.err() {
            Some(lost @ CheckpointError::LostLease(_)) => {
                Ok(Recorded::new(Ending::new(Outcome::Fenced), Some(lost)))
            }
            trouble => Err(unreachable(error, trouble)),
        }
    }

    /// Yields, because the checkpoint could not be written with the rows, unless the lease is lost.
    async fn leave_unrecorded(&self, error: CheckpointError, now: DateTime<Utc>) -> Recorded {
        if !matches!(error, CheckpointError::LostLease(_)) {
            let turn = Yield { reason: error.in_one_line(), ..Yield::default() };
            let ended = self.worker.checkpoints.yield_(self.lease, &turn, now).await;
            if let Err(trouble) = ended {
                not_given_back(&trouble);
            }
        }
        Recorded::new(Ending::new(Outcome::Fenced), Some(error))
    }
}

/// The end of a slice whose completion left it in this state.
fn succeeded(CompletedSlice { state, completion }: CompletedSlice) -> Ending {
    let (outcome, reason) = match state {
        State::Stale => (Outcome::Stale, Some("changed while it was read; runs again".into())),
        _ => (Outcome::Succeeded, None),
    };
    Ending { reason, completion: Some(completion), ..Ending::new(outcome) }
}

fn not_given_back(trouble: &CheckpointError) {
    tracing::warn!(error = %trouble, "could not give the slice back; its lease runs out");
}

/// The error of a slice whose server went away. `trouble` is the error that kept it from being
/// given back.
fn unreachable(error: DbError, trouble: Option<CheckpointError>) -> WorkError {
    if let Some(trouble) = trouble {
        not_given_back(&trouble);
    }
    error.into()
}

pub(super) fn completion(
    done: &Done,
    elapsed: Duration,
    open_until: Option<DateTime<Utc>>,
) -> Completion {
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
        elapsed_ms: whole_ms(elapsed),
        settled_by: done.settled_by.into(),
        open_until,
    }
}
