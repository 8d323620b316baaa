//! The spine: one slice's way from claim to checkpoint.
//!
//! claim → settle → read chunks → stage partials → replace with the fence → complete → summary

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::error::Elapsed;
use tracing::{Instrument as _, info_span};

use crate::checkpoint::{
    CheckpointError, Claim, ClaimError, ClaimRefused, Completion, Lease, State, Yield,
};
use crate::clients::db::{Access, DbError, DbErrorKind};
use crate::model::clock::{Deadline, Stopwatch, rfc3339};
use crate::model::not_now::{NotNow, Permit, Unclaimed, Why};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::source::reading::pace::Pace;
use crate::source::reading::plan_guard;
use crate::source::reading::shape::Shape;
use crate::source::settle::{Settled, Wait};
use crate::source::{self, SliceJob};
use crate::target::{Guard, Replaced, TargetError};
use crate::throttle::interrupt::GRACE;
use crate::throttle::{self, Throttle};
use crate::work::compose;
use crate::work::consumer;
use crate::work::estimate;
use crate::work::ready;
use crate::work::report::{Outcome, SliceReport};
use crate::work::worker::{WorkError, Worker};

mod chunks;

use chunks::Chunks;

/// Time reserved for recording how the attempt ended.
pub const RESERVE: Duration = Duration::from_millis(500);

/// The end of a slice or tick waits this much past the deadline, so that a success whose write is
/// under way is still recorded. It is less than the time that an invocation keeps for its answer.
pub(crate) const OVERTIME: Duration = Duration::from_millis(250);

/// A budget has room for this many chunks, or none would ever end in time.
const CHUNKS_MIN: u32 = 4;

/// A chunk has at least this time, even in a small budget.
const CHUNK_TIME_MIN: Duration = Duration::from_millis(10);

/// The wait for open transactions takes at most this part of the time left, as other slices need
/// time too.
const SETTLE_SHARE: u32 = 10;

/// When to check a slice again whose finer slices are unfinished. Their completion makes it due
/// sooner. This is for a batch that has nothing else to do.
const BLOCKED_RETRY: TimeDelta = TimeDelta::seconds(30);

/// When to check again whether zones have been updated.
const ZONE_RETRY: TimeDelta = TimeDelta::hours(1);

/// Options of a slice's run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// Take the result even if most of the source's rows are gone.
    pub allow_shrink: bool,
    /// The start of the backfill that the slice belongs to.
    pub backfill: Option<DateTime<Utc>>,
}

/// How the work on a slice ended, short of success.
enum Stop {
    /// Yield, without a failure. The next attempt waits for the same horizon.
    NotNow { not_now: NotNow, horizon: Option<u64> },
    /// The slice failed.
    Fail { error: String, retryable: bool },
    /// A newer attempt has the slice.
    Fenced(String),
    /// A server is unreachable. The slice did not fail.
    Unreachable(DbError),
}

impl Stop {
    /// Yields, to continue at the next turn.
    const fn because(why: Why) -> Self {
        Self::NotNow { not_now: NotNow::because(why), horizon: None }
    }

    /// Yields, because too little time is left.
    fn out_of_time(text: &str) -> Self {
        Self::because(Why::OutOfTime(text.to_owned()))
    }

    /// Whether the source, the tables or the calendar may have changed.
    const fn tells_of_change(&self) -> bool {
        match self {
            Self::Fail { .. } => true,
            Self::NotNow { not_now, .. } => {
                matches!(not_now.why, Why::OtherCalendar(_) | Why::OtherZone(_))
            }
            Self::Fenced(_) | Self::Unreachable(_) => false,
        }
    }
}

impl From<NotNow> for Stop {
    fn from(not_now: NotNow) -> Self {
        Self::NotNow { not_now, horizon: None }
    }
}

impl From<TargetError> for Stop {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Fenced { .. } => Self::Fenced(error.to_string()),
            TargetError::Stranger => Self::Fail { error: error.to_string(), retryable: true },
            TargetError::Forgotten => Self::because(Why::Server(error.to_string())),
            TargetError::Superseded { .. } => Self::because(Why::OtherCalendar(error.to_string())),
            TargetError::NotNow(why) => Self::because(why),
            TargetError::Shrunk { .. }
            | TargetError::Sealed { .. }
            | TargetError::Inconsistent { .. } => {
                Self::Fail { error: error.to_string(), retryable: false }
            }
            TargetError::Db(error) => error.into(),
        }
    }
}

impl From<DbError> for Stop {
    fn from(error: DbError) -> Self {
        match error.kind() {
            DbErrorKind::Unreachable | DbErrorKind::Login => Self::Unreachable(error),
            DbErrorKind::Contended if error.is_table_locked() => {
                Self::because(Why::TableLocked(error.to_string()))
            }
            DbErrorKind::Contended | DbErrorKind::Unclear => {
                Self::because(Why::Server(error.to_string()))
            }
            DbErrorKind::Cancelled
            | DbErrorKind::Denied
            | DbErrorKind::RowSecurity
            | DbErrorKind::Missing
            | DbErrorKind::Refused => Self::Fail { error: error.with_hint(), retryable: true },
        }
    }
}

/// Why a slice yields at the deadline.
const NO_ANSWER: &str = "budget spent: a server did not answer in time";

/// A slice with a lease.
struct Claimed<'w> {
    shape: Arc<Shape>,
    lease: Lease,
    consumer: Option<i64>,
    throttle: Throttle<'w>,
}

/// How the steps up to the claim ended.
enum Begun<'w> {
    Claimed(Claimed<'w>),
    Ended(SliceReport),
}

/// The counts of a finished slice.
struct Done {
    replaced: Replaced,
    chunks: u32,
    source_ms: u64,
    settled_by: &'static str,
}

/// One slice in work.
struct Work<'a> {
    worker: &'a Worker,
    rollup: &'a Rollup,
    shape: &'a Shape,
    slice: Slice,
    lease: &'a Lease,
    /// The consumer of marks that the rollup is registered as.
    consumer: Option<i64>,
    deadline: Deadline,
    options: RunOptions,
    /// The approximate time of a chunk. It is the configured one, but several must fit into the
    /// budget.
    chunk_time: Duration,
    /// The throttle of its reading, from before the claim.
    throttle: Throttle<'a>,
}

/// Works on one slice until it is done or the deadline is near, and logs one summary line, also for
/// a slice that could not be claimed. It ends at the deadline, even while it waits. A pending claim
/// is then left to its lease.
///
/// # Errors
/// A failure beyond this slice. Everything about the slice itself is in the report.
pub async fn run_slice(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    deadline: Deadline,
    options: RunOptions,
) -> Result<SliceReport, WorkError> {
    let _busy = worker.interrupt.busy();
    let watch = Stopwatch::start();
    let limit = deadline.remaining(&*worker.clock) + OVERTIME;
    // Boxed, as a batch or a tick around it would be too deep for a thread's stack.
    let begun = Box::pin(begin(worker, rollup, slice, deadline, options));
    let claimed = match tokio::time::timeout(limit, begun).await {
        Ok(Ok(Begun::Claimed(claimed))) => claimed,
        Ok(Ok(Begun::Ended(report))) => return Ok(report.logged()),
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            let not_now = NotNow::because(Why::OutOfTime(NO_ANSWER.to_owned()));
            return Ok(SliceReport::not_now(rollup, slice, not_now).logged());
        }
    };
    let report =
        Box::pin(work_on(worker, &claimed, (rollup, slice), deadline, options, watch)).await?;
    Ok(report.logged())
}

/// All steps up to the claim.
async fn begin<'w>(
    worker: &'w Worker,
    rollup: &'w Rollup,
    slice: Slice,
    deadline: Deadline,
    options: RunOptions,
) -> Result<Begun<'w>, WorkError> {
    let refused = |outcome, reason: String| {
        Ok(Begun::Ended(SliceReport::refused(rollup, slice, outcome, reason)))
    };
    let not_now = |not_now| Ok(Begun::Ended(SliceReport::not_now(rollup, slice, not_now)));
    if rollup.is_sealed_at(slice.start()) {
        let reason = "starts before seal_before; history there is never recomputed".into();
        return refused(Outcome::Sealed, reason);
    }
    if let Some(finer) = compose::waits_for(worker, rollup, slice).await? {
        let retry_at = worker.clock.now() + BLOCKED_RETRY;
        return not_now(NotNow::until(Why::FinerSlice(finer), retry_at));
    }
    let throttle = match ready::gate(worker, rollup, options.backfill).may_start().await? {
        Permit::Given(throttle) => throttle,
        Permit::NotNow(held) => return not_now(held),
    };
    let shape = ready::prepare(worker, rollup).await?;
    // Registers before the first read, so that from here on every mark is kept for this rollup.
    let consumer = consumer::id_of(worker, rollup).await?;
    let request = Claim {
        rollup: &rollup.name,
        slice_start: slice.start(),
        definition: &ready::definition(worker, rollup).await?,
        now: worker.clock.now(),
        deadline: deadline.instant(),
    };
    match worker.checkpoints.claim(&request).instrument(info_span!("claim")).await {
        Ok(lease) => Ok(Begun::Claimed(Claimed { shape, lease, consumer, throttle })),
        Err(ClaimError::Refused(claim)) => {
            let reason = claim.to_string();
            let unclaimed =
                |how, until| not_now(NotNow::until(Why::NotClaimed(how, reason.clone()), until));
            match claim {
                ClaimRefused::Leased { until, .. } => unclaimed(Unclaimed::Leased, until),
                ClaimRefused::Backoff { retry_at, .. } => unclaimed(Unclaimed::Backoff, retry_at),
                ClaimRefused::Succeeded => refused(Outcome::AlreadySucceeded, reason),
                ClaimRefused::Exhausted { .. } => refused(Outcome::Exhausted, reason),
                ClaimRefused::NoTimeLeft => not_now(NotNow::because(Why::OutOfTime(reason))),
            }
        }
        Err(ClaimError::Checkpoint(error)) => Err(error.into()),
    }
}

/// All steps after the claim.
async fn work_on(
    worker: &Worker,
    claimed: &Claimed<'_>,
    (rollup, slice): (&Rollup, Slice),
    deadline: Deadline,
    options: RunOptions,
    watch: Stopwatch,
) -> Result<SliceReport, WorkError> {
    let Claimed { shape, lease, consumer, throttle } = claimed;
    let stretch = throttle.stretch();
    let left = deadline.remaining(&*worker.clock).saturating_sub(RESERVE);
    let chunk_time = worker
        .config
        .source
        .chunk_time
        .min(left.div_f64(f64::from(CHUNKS_MIN) * stretch))
        .max(CHUNK_TIME_MIN);
    let work = Work {
        worker,
        rollup,
        shape,
        slice,
        lease,
        consumer: *consumer,
        deadline,
        options,
        chunk_time,
        throttle: *throttle,
    };
    let start = rfc3339(slice.start());
    let span = info_span!("slice", rollup = rollup.name, start, attempt = lease.attempt());
    let work = async {
        let result = work.process().await;
        work.record_in_time(result, watch).instrument(info_span!("complete")).await
    };
    work.instrument(span).await
}

/// Marks serve only registered consumers. For other rollups the slice is settled by `grace`.
fn registered(settled: Settled, consumer: Option<i64>) -> Settled {
    match settled {
        Settled::By("capture") if consumer.is_none() => Settled::By("grace"),
        settled => settled,
    }
}

impl Work<'_> {
    async fn process(&self) -> Result<Done, Stop> {
        let mut pace = self.worker.pace(self.rollup);
        let work = async {
            let settled_by = self.settle(&mut pace).instrument(info_span!("settle")).await?;
            let done = Chunks::new(self).read(&mut pace).instrument(info_span!("read")).await?;
            Ok(Done { settled_by, ..done })
        };
        // The servers end their own statements. This limit is for a connection that is cut off.
        let limit = self.time_left().saturating_sub(RESERVE / 2);
        let work = tokio::time::timeout(limit, work);
        let done = self.unless_interrupted(work).await;
        self.worker.set_pace(self.rollup, pace);
        if done.as_ref().is_err_and(Stop::tells_of_change) {
            self.worker.forget(self.rollup);
        }
        done
    }

    /// Waits for `work`. After an interruption its statement is cancelled. Work that has ended by
    /// then counts, and the rest is given up.
    async fn unless_interrupted(
        &self,
        work: impl Future<Output = Result<Result<Done, Stop>, Elapsed>>,
    ) -> Result<Done, Stop> {
        let mut work = std::pin::pin!(work);
        let too_late = |_| Err(Stop::out_of_time(NO_ANSWER));
        let interrupt = &self.worker.interrupt;
        let done = tokio::select! {
            done = &mut work => done.unwrap_or_else(too_late),
            () = interrupt.raised() => match tokio::time::timeout(GRACE, &mut work).await {
                Ok(Ok(done)) => done,
                _ => Err(self.interrupted()),
            },
        };
        match done {
            // Its cancellation is no failure of the slice.
            Err(Stop::Fail { .. } | Stop::NotNow { .. } | Stop::Unreachable(_))
                if interrupt.is_raised() =>
            {
                Err(self.interrupted())
            }
            done => done,
        }
    }

    /// Yields, because all work must stop.
    fn interrupted(&self) -> Stop {
        NotNow::until(Why::Interrupted, self.worker.clock.now()).into()
    }

    /// Ensures that every row of the slice is visible or will be noticed, and returns how that is
    /// known. Yields until it is. Also asks for the plan, and refuses a slice that the plan guard
    /// refuses.
    async fn settle(&self, pace: &mut Pace) -> Result<&'static str, Stop> {
        let source = self.worker.source_of(self.rollup);
        let mut tx =
            source.begin(Access::ReadOnly, self.statement_timeout()?, &self.label()).await?;
        let job = SliceJob { rollup: self.rollup, shape: self.shape, slice: self.slice };
        let wait = Wait {
            horizon: self.lease.checkpoint().horizon,
            longest: self.worker.settle_wait_max.min(self.time_left() / SETTLE_SHARE),
            shared: &self.worker.horizons,
        };
        let settled = source::of(self.rollup).settle(&mut tx, job, wait).await?;
        let by = match registered(settled, self.consumer) {
            Settled::By(by) => by,
            Settled::OtherZone(reason) => {
                tx.rollback().await?;
                let retry_at = self.worker.clock.now() + ZONE_RETRY;
                return Err(NotNow::until(Why::OtherZone(reason), retry_at).into());
            }
            Settled::NotYet { not_now, horizon } => {
                tx.rollback().await?;
                return Err(Stop::NotNow { not_now, horizon });
            }
        };
        let mut rows = None;
        if self.rollup.plan_guard || pace.is_unknown() {
            let (start, end) = (self.slice.start(), self.slice.end());
            let reading = plan_guard::inspect(&mut tx, self.rollup, self.shape, start, end).await?;
            if let Some(error) = reading.refusal.filter(|_| self.rollup.plan_guard) {
                tx.rollback().await?;
                // Retried, as the index may be created meanwhile.
                return Err(Stop::Fail { error, retryable: true });
            }
            rows = Some(reading.rows);
        }
        tx.commit().await?;
        if let Some(rows) = rows.filter(|_| pace.is_unknown()) {
            // Assume the cost that other processes measured. Without a measurement nothing is lost.
            let learned = estimate::learned(self.worker, self.rollup).await.ok().flatten();
            let ms_per_row = learned.map(|learned| learned.ms_per_row);
            let (start, end) = (self.slice.start(), self.slice.end());
            pace.guess(rows, start, end, self.chunk_time, ms_per_row);
        }
        Ok(by)
    }

    fn time_left(&self) -> Duration {
        self.deadline.remaining(&*self.worker.clock)
    }

    fn label(&self) -> String {
        self.slice.id(&self.rollup.name)
    }

    /// The remaining time less the reserve.
    fn statement_timeout(&self) -> Result<Duration, Stop> {
        let left = self.time_left().saturating_sub(RESERVE);
        if left.is_zero() {
            return Err(Stop::out_of_time("budget spent"));
        }
        Ok(left)
    }

    fn guard(&self, timeout: Duration) -> Guard<'_> {
        let shrink = (!self.options.allow_shrink).then_some(self.rollup.shrink_guard);
        Guard { shrink, timeout, governor: self.throttle.governor(), nap: None }
    }

    /// Reopens the coarse slices that contain this one, and then completes it.
    /// [`compose`](crate::work::compose) explains the order.
    async fn complete(
        &self,
        replaced: &Replaced,
        completion: &Completion,
        now: DateTime<Utc>,
    ) -> Result<State, CheckpointError> {
        let Self { worker, rollup, slice, lease, .. } = *self;
        let has_changed = replaced.rewritten() > 0 || lease.attempt() > 1;
        if has_changed {
            compose::reopen_coarse(worker, rollup, slice).await?;
        }
        worker.checkpoints.complete(lease, completion, now).await
    }

    /// Yields. Returns the error that kept this from being written.
    async fn give_back(
        &self,
        report: &mut SliceReport,
        (mut not_now, horizon): (NotNow, Option<u64>),
        now: DateTime<Utc>,
    ) -> Option<CheckpointError> {
        if not_now.why.is_taken() {
            not_now.retry_at.get_or_insert(now + throttle::RETRY);
        }
        let (reason, retry_at) = (not_now.to_string(), not_now.retry_at);
        report.give_up(not_now);
        let turn = Yield { reason, retry_at, horizon };
        self.worker.checkpoints.yield_(self.lease, &turn, now).await.err()
    }

    /// Counts a failure. Returns the error that kept this from being written.
    async fn fail(
        &self,
        report: &mut SliceReport,
        (error, retryable): (String, bool),
        now: DateTime<Utc>,
    ) -> Option<CheckpointError> {
        report.outcome = Outcome::Failed;
        let ended = self.worker.checkpoints.fail(self.lease, &error, retryable, now).await;
        report.reason = Some(error);
        match ended {
            Ok(failure) => {
                report.retry_at = failure.retry_at;
                None
            }
            Err(error) => Some(error),
        }
    }

    /// As [`Work::record`], within the deadline and [`OVERTIME`]. A worker that wakes after its
    /// deadline has no time left, and first has to find out whether it still has the slice. The
    /// calls themselves limit its wait.
    async fn record_in_time(
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
                Ok(SliceReport::not_now(self.rollup, self.slice, not_now))
            }
        }
    }

    /// Writes the outcome to the checkpoint.
    async fn record(
        &self,
        result: Result<Done, Stop>,
        watch: Stopwatch,
    ) -> Result<SliceReport, WorkError> {
        let checkpoints = &self.worker.checkpoints;
        let now = self.worker.clock.now();
        let elapsed_ms = u64::try_from(watch.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut report = SliceReport::of(self.rollup, self.slice, self.lease.attempt(), elapsed_ms);
        let lost = match result {
            Ok(done) => {
                let completion = completion(&done, elapsed_ms);
                report.elapsed_ms = None;
                let ended = self.complete(&done.replaced, &completion, now).await;
                report.completion = Some(completion);
                match ended {
                    Ok(State::Stale) => {
                        report.outcome = Outcome::Stale;
                        report.reason = Some("changed while it was read; runs again".into());
                        None
                    }
                    Ok(_) => None,
                    Err(error) => Some(error),
                }
            }
            Err(Stop::NotNow { not_now, horizon }) => {
                self.give_back(&mut report, (not_now, horizon), now).await
            }
            Err(Stop::Fail { error, retryable }) => {
                self.fail(&mut report, (error, retryable), now).await
            }
            Err(Stop::Fenced(reason)) => {
                report.outcome = Outcome::Fenced;
                // If a newer attempt has the checkpoint too, this write is refused, which is right.
                // If not, the checkpoints were lost, and the failure tells the operator so.
                let hint = format!("{reason}; if checkpoints were lost, run `tallymark repair`");
                let ended = checkpoints.fail(self.lease, &hint, true, now).await;
                report.reason = Some(reason);
                ended.err()
            }
            Err(Stop::Unreachable(error)) => {
                let turn = Yield { reason: error.to_string(), ..Yield::default() };
                let ended = checkpoints.yield_(self.lease, &turn, now).await;
                match ended.err() {
                    // The connection may have broken because this attempt came too late.
                    Some(lost @ CheckpointError::LostLease(_)) => Some(lost),
                    trouble => return Err(unreachable(error, trouble)),
                }
            }
        };
        match lost {
            None => Ok(report),
            Some(CheckpointError::LostLease(lost)) => {
                report.outcome = Outcome::Fenced;
                report.reason.get_or_insert_with(|| lost.to_string());
                Ok(report)
            }
            Some(error) => {
                self.worker.interrupt.leave();
                Err(error.into())
            }
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
    let Replaced { rows_read, groups, inserted, updated, deleted, .. } = done.replaced;
    Completion {
        rows_read,
        groups,
        inserted,
        updated,
        deleted,
        unchanged: done.replaced.unchanged(),
        chunks: done.chunks.into(),
        source_ms: done.source_ms,
        elapsed_ms,
        settled_by: done.settled_by.into(),
    }
}
