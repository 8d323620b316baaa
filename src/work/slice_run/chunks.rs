//! The chunks of one slice: their width, when they are read, and what follows after a chunk that
//! timed out.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tracing::{Instrument as _, info_span};

use super::with_rows::Completing;
use super::{CHUNK_TIME_MIN, Done, RESERVE, Stop, Work};
use crate::clients::db::DbErrorKind;
use crate::model::hint::Fault;
use crate::model::not_now::{NotNow, Permit, Why};
use crate::source::reading::nap::Nap;
use crate::source::reading::pace::{CHUNK_MIN, Excess, Pace, WHOLE_SLACK};
use crate::target::{Chunk, Replaced, StageProgress, StatementOptions, TargetError};
use crate::throttle::{Gate, Patience, Throttle};
use crate::work::ready;

/// A chunk's statement is cancelled after this many times `chunk_time`, and the chunk is cut
/// narrower.
const CHUNK_OVERRUN: u32 = 10;

/// The statement has at least this time, because a cold cache must not look like too wide a chunk.
const CHUNK_TIMEOUT_MIN: Duration = Duration::from_secs(2);

/// A statement has this many times `chunk_time`, as a slice is read whole that takes longer than that.
const TIMEOUT_SLACK: f64 = 2.0;

const _: () =
    assert!(TIMEOUT_SLACK > WHOLE_SLACK, "a slice that is read whole has the time for it");

/// Otherwise one try takes at most this part of the time left. Nine tries narrow a day to a second.
const CHUNK_TRIES: u32 = 6;

/// What was read of a finished slice, and what it replaced.
pub(super) struct SliceRead {
    pub(crate) replaced: Replaced,
    pub(crate) chunks: u32,
    /// Milliseconds of work on the source.
    pub(crate) source_ms: u64,
}

/// A slice in reading.
pub(super) struct Chunks<'w> {
    work: &'w Work<'w>,
    progress: StageProgress,
    /// Where this attempt started.
    resumed_at: DateTime<Utc>,
    /// The checks before each chunk.
    gate: Gate<'w>,
    /// The last known throttle of reading.
    throttle: Throttle<'w>,
    /// Whether the length of the chunk is a guess.
    is_guess: bool,
    /// How it is known that all rows of the slice are visible.
    settled_by: &'static str,
}

impl<'w> Chunks<'w> {
    pub(super) fn new(work: &'w Work<'w>, settled_by: &'static str) -> Self {
        let progress = StageProgress::at(work.job.window().0);
        let (resumed_at, throttle) = (progress.cursor, work.throttle);
        let gate = ready::gate(work.worker, work.job.rollup, work.options.backfill)
            .for_slice(work.job.slice);
        Self { work, progress, resumed_at, gate, throttle, is_guess: true, settled_by }
    }

    /// Reads the slice whole if one statement can, else chunk by chunk, and replaces it.
    pub(super) async fn read(mut self, pace: &mut Pace) -> Result<Done, Stop> {
        let Work { worker, lease, job, .. } = *self.work;
        // An earlier attempt may have staged chunks.
        if lease.attempt() > 1 {
            let options = self.work.statement_options(self.work.statement_timeout()?);
            self.progress = worker.target.resume(lease, job, options).await?;
            self.resumed_at = self.progress.cursor;
        }
        // Bounded by the deadline: a chunk moves the cursor, or is cut narrower down to CHUNK_MIN,
        // or is waited for.
        while self.progress.cursor < self.work.job.window().1 {
            if let Some(done) = self.next(pace).await? {
                return Ok(done);
            }
        }
        self.merge().instrument(info_span!("replace")).await
    }

    /// Reads the next chunk, or determines why it cannot. Returns the result if it was the whole
    /// slice.
    async fn next(&mut self, pace: &mut Pace) -> Result<Option<Done>, Stop> {
        let start = self.progress.cursor;
        let end = self.end(pace, start);
        let excess = self.excess(start, end);
        let stretch = self.throttle.stretch();
        let expected = self.planned(pace).expected(start, end, excess).mul_f64(stretch);
        // A wrong guess must not keep a slice from ever being tried, nor from continuing.
        let needed = if start == self.resumed_at || pace.is_guess() {
            expected.min(self.work.chunk_time.mul_f64(stretch * WHOLE_SLACK))
        } else {
            expected
        };
        let patience = Patience::Until { deadline: self.work.deadline, needed: needed + RESERVE };
        if !self.is_permitted(patience).await? {
            return Ok(None);
        }
        let before = self.progress.source_ms;
        let span = info_span!("chunk", from = %start, to = %end);
        let (nap, read) = self.read_in_turn(start, end, pace, patience).instrument(span).await;
        // The statement's work alone, as the round trips around it do not shrink with the chunk.
        let took = match &read {
            Ok(Some(done)) => done.read.source_ms,
            _ => self.progress.source_ms - before,
        };
        match read {
            Ok(done) => {
                // If the progress of another attempt was found, nothing was read.
                if self.progress.cursor > start || done.is_some() {
                    let took = Duration::from_millis(took);
                    self.gate.has_read();
                    pace.learn(start, end, took, excess);
                    self.throttle.chunk_read(took, nap.is_some());
                }
                Ok(done)
            }
            Err(TargetError::NotNow(why)) => {
                self.wait(NotNow::because(why), patience).await?;
                Ok(None)
            }
            Err(error) => {
                self.narrow(error, pace, start, end)?;
                Ok(None)
            }
        }
    }

    /// Whether the next chunk may be read. Waits before it returns `false`.
    async fn is_permitted(&mut self, patience: Patience) -> Result<bool, Stop> {
        // For the first chunk this was checked before the claim.
        let is_known = self.progress.chunks == 0 && !self.gate.has_waited();
        match self.gate.permit(is_known.then_some(self.throttle), patience).await {
            Ok(Permit::Given(throttle)) => {
                self.throttle = throttle;
                Ok(true)
            }
            Ok(Permit::NotNow(not_now)) => {
                self.wait(not_now, patience).await?;
                Ok(false)
            }
            // An unreadable control item counts as no. The slice is given back if that can be
            // written.
            Err(error) => Err(Stop::because(Why::Server(Fault::of(&error)))),
        }
    }

    /// Waits until the source is asked again, or yields.
    async fn wait(&mut self, not_now: NotNow, patience: Patience) -> Result<(), Stop> {
        let Err(not_now) = self.gate.wait(not_now, patience).await else { return Ok(()) };
        if matches!(not_now.why, Why::OutOfTime(_)) {
            return Err(self.budget_spent());
        }
        let has_begun = not_now.why.is_load() && self.progress.chunks > 0;
        let goes_on_at = has_begun.then_some(self.progress.cursor);
        Err(NotNow { goes_on_at, ..not_now }.into())
    }

    /// Reads a chunk in this process's turn, at the pace of that moment. Returns its naps, too.
    async fn read_in_turn(
        &mut self,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
        pace: &Pace,
        patience: Patience,
    ) -> (Option<Nap>, Result<Option<Done>, TargetError>) {
        let _turn = match self.throttle.governor() {
            Some(governor) => governor.turn(self.work.time_left().saturating_sub(RESERVE)).await,
            None => None,
        };
        let work = pace.with_naps().expected(start, end, self.excess(start, end));
        self.throttle = self.gate.listen(self.throttle, work, patience).await;
        self.is_guess = pace.is_guess();
        let nap = self.throttle.nap();
        let (throttle, source) = (self.throttle, self.gate.source);
        let read = throttle.read(source, Box::pin(self.read_one(start, end, nap))).await;
        (nap, read.unwrap_or_else(|why| Err(TargetError::NotNow(why))))
    }

    /// Replaces the slice by one statement, or stages one chunk of it.
    async fn read_one(
        &mut self,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
        nap: Option<Nap>,
    ) -> Result<Option<Done>, TargetError> {
        let Work { worker, lease, job, .. } = *self.work;
        let is_whole = (start, end) == job.window();
        let target = &worker.target;
        let source = (!target.holds_source_of(job.rollup)).then_some(&worker.source);
        let chunk = Chunk { source, lease, job };
        let options = self.work.statement_options(self.timeout(start, end));
        let options = StatementOptions { nap, ..options };
        if is_whole {
            let completing = Completing::new(self.work, self.settled_by, None);
            let options = StatementOptions { last: completing.last_write(), ..options };
            let replaced = match source {
                None => target.replace_from_source(lease, job, options).await?,
                Some(source) => target.replace_by_copy(&chunk, source, options).await?,
            };
            return Ok(Some(completing.done(replaced)));
        }
        if self.progress.chunks == 0 {
            // Partials of an earlier attempt must be gone before new ones are summed up.
            self.progress = target.resume(lease, job, options).await?;
            if self.progress.cursor > start {
                // The first attempt after checkpoints were lost.
                self.resumed_at = self.progress.cursor;
                return Ok(None);
            }
        }
        self.progress = target.stage_chunk(&chunk, self.progress, end, options).await?;
        Ok(None)
    }

    /// Replaces the slice by its staged partials.
    async fn merge(&self) -> Result<Done, Stop> {
        let Work { worker, lease, job, .. } = *self.work;
        let StageProgress { chunks, source_ms, .. } = self.progress;
        let completing = Completing::new(self.work, self.settled_by, Some((chunks, source_ms)));
        let options = self.work.statement_options(self.work.statement_timeout()?);
        let options = StatementOptions { last: completing.last_write(), ..options };
        match worker.target.replace_from_stage(lease, job, options).await {
            Ok(replaced) => Ok(completing.done(replaced)),
            Err(TargetError::Db(error))
                if error.kind() == DbErrorKind::Cancelled && self.resumed_at < job.window().1 =>
            {
                Err(self.budget_spent())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Decides what follows after a chunk that timed out.
    fn narrow(
        &self,
        error: TargetError,
        pace: &mut Pace,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
    ) -> Result<(), Stop> {
        let TargetError::Db(cancelled) = &error else { return Err(error.into()) };
        if cancelled.kind() != DbErrorKind::Cancelled {
            return Err(error.into());
        }
        let chunk_time = self.work.chunk_time;
        if end - start > CHUNK_MIN {
            pace.too_slow(start, end, chunk_time, self.excess(start, end));
            if self.work.time_left() > RESERVE + (chunk_time * 2).mul_f64(self.throttle.stretch()) {
                return Ok(());
            }
        }
        if self.progress.cursor > self.resumed_at {
            return Err(self.budget_spent());
        }
        Err(Stop::Fail {
            fault: Fault::new(format!(
                "reading {} of the source did not end within the budget",
                span(end - start)
            ))
            .remedy(format!(
                "run `tallymark check {}`, which shows how it is read",
                self.work.job.rollup.name
            )),
            retryable: true,
        })
    }

    /// The end of the next chunk, which is narrower while the source is busy.
    fn end(&self, pace: &Pace, start: DateTime<Utc>) -> DateTime<Utc> {
        let configured = self.work.chunk_time;
        let chunk_time = self.throttle.chunk_time(configured).max(CHUNK_TIME_MIN);
        let slice_end = self.work.job.window().1;
        let (whole, partial) = (self.excess(start, slice_end), self.excess(start, start));
        let pace = self.planned(pace);
        let end = pace.chunk_end(start, slice_end, chunk_time, whole);
        if end == slice_end {
            return end;
        }
        let end = pace.chunk_end(start, slice_end, chunk_time, partial);
        let axis = &self.work.job.shape.axis;
        axis.cut(start, end)
            .or_else(|| axis.cut(start, start + CHUNK_MIN))
            .or_else(|| axis.cut(start, start + TimeDelta::days(2)))
            .map_or(slice_end, |cut| cut.min(slice_end))
    }

    /// The pace at which the next chunk is planned.
    fn planned(&self, pace: &Pace) -> Pace {
        if self.throttle.nap().is_some() { pace.with_naps() } else { *pace }
    }

    /// Partials cost more than a slice that is read whole.
    fn excess(&self, start: DateTime<Utc>, end: DateTime<Utc>) -> Excess {
        if (start, end) == self.work.job.window() {
            Excess::NONE
        } else {
            Excess::of_partials(self.work.job.shape.values.len())
        }
    }

    /// The time limit of a chunk's statement, which is tight while the chunk can still be cut
    /// narrower.
    fn timeout(&self, start: DateTime<Utc>, end: DateTime<Utc>) -> Duration {
        let all = self.work.time_left().saturating_sub(RESERVE);
        if end - start <= CHUNK_MIN {
            return all;
        }
        // Many narrower tries must still fit into the rest of the time, as the first guess can be
        // far off.
        let chunk_time = self.work.chunk_time.mul_f64(self.throttle.stretch() * TIMEOUT_SLACK);
        let share = (all / CHUNK_TRIES).max(chunk_time);
        // Load that begins meanwhile is seen by the next chunk.
        let is_short = self.is_guess && self.throttle.is_fast();
        let overrun = if is_short { Duration::ZERO } else { chunk_time * CHUNK_OVERRUN };
        all.min(overrun.max(CHUNK_TIMEOUT_MIN)).min(share)
    }

    fn budget_spent(&self) -> Stop {
        let StageProgress { chunks, rows_read, cursor, .. } = self.progress;
        let noun = if chunks == 1 { "chunk" } else { "chunks" };
        let spent = format!("budget spent after {chunks} {noun}, {rows_read} rows");
        let not_now = NotNow::because(Why::OutOfTime(spent));
        NotNow { goes_on_at: Some(cursor), ..not_now }.into()
    }
}

/// A span of time in words.
fn span(span: TimeDelta) -> String {
    match span.num_seconds() {
        seconds if seconds < 120 => format!("{seconds} s"),
        seconds if seconds < 7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
