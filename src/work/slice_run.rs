//! The spine: one slice's way from claim to checkpoint.
//!
//! claim → settle → read chunks → stage partials → replace with the fence → complete → summary
//!
//! A mirror's slice is read in pages of an app instead of chunks (`pages`).
//!
//! `claim` has the first step, `chunks` reading and replacing, `record` the last. Where the
//! checkpoints are in the target, `with_rows` completes the slice while it is replaced.

use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::error::Elapsed;
use tracing::{Instrument as _, Span, info_span};

use crate::checkpoint::{CheckpointError, Lease};
use crate::clients::bubble::Units;
use crate::clients::db::Access;
use crate::model::clock::{Deadline, Stopwatch, rfc3339};
use crate::model::hint::Fault;
use crate::model::not_now::{NotNow, Why};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::source::reading::pace::Pace;
use crate::source::reading::plan_guard;
use crate::source::settle::{Settled, Wait};
use crate::source::{self, SliceJob};
use crate::target::coverage::CoarseSlice;
use crate::target::{Replaced, StatementOptions};
use crate::throttle::Throttle;
use crate::throttle::interrupt::GRACE;
use crate::work::report::SliceReport;
use crate::work::worker::{WorkError, Worker, lock};
use crate::work::{compose, empty, estimate};

mod chunks;
mod claim;
mod pages;
mod record;
mod stop;
mod together;
mod values;
mod with_rows;

use chunks::{Chunks, SliceRead};
use claim::{Begun, Claimed};
use stop::Stop;
pub(crate) use together::run_together;
use with_rows::CompletedSlice;

/// Time reserved for recording how the attempt ended.
pub(crate) const RESERVE: Duration = Duration::from_millis(500);

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

/// Why a slice yields at the deadline.
const NO_ANSWER: &str = "budget spent: a server did not answer in time";

/// A turn of a slice: the work on it by one worker until a deadline.
#[derive(Clone, Copy)]
struct Turn<'w> {
    worker: &'w Worker,
    rollup: &'w Rollup,
    slice: Slice,
    deadline: Deadline,
    options: RunOptions,
}

/// A slice whose rows were replaced.
struct Done {
    read: SliceRead,
    /// How it is known that all its rows were visible.
    settled_by: &'static str,
}

/// One slice in work.
struct Work<'a> {
    worker: &'a Worker,
    job: SliceJob<'a>,
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
    /// Runs since before the claim.
    watch: Stopwatch,
    /// The number of slices that share this time, as they are worked on together.
    sharers: u32,
    /// The coarse slices that are computed from the slice.
    coarse: Vec<CoarseSlice>,
    /// The completion in the newest transaction that replaced the rows.
    written: Mutex<Option<CompletedSlice>>,
    /// The workload units that the app billed.
    units: Mutex<Units>,
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
    let turn = Turn { worker, rollup, slice, deadline, options };
    let begun = Box::pin(claim::claim_if_allowed(turn));
    let claimed = match tokio::time::timeout(limit, begun).await {
        Ok(Ok(Begun::Claimed(claimed))) => claimed,
        Ok(Ok(Begun::Ended(report))) => return Ok(report.logged()),
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            let not_now = NotNow::because(Why::OutOfTime(NO_ANSWER.to_owned()));
            return Ok(SliceReport::not_now(rollup, slice, not_now).logged());
        }
    };
    let report = Box::pin(work_on(turn, &claimed, watch)).await?;
    Ok(report.logged())
}

/// As [`run_slice`], for a slice that somebody names. It may be one that no tick looks at.
///
/// # Errors
/// As [`run_slice`].
pub async fn run_named(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    deadline: Deadline,
) -> Result<SliceReport, WorkError> {
    Box::pin(empty::request(worker, rollup, slice)).await?;
    Box::pin(run_slice(worker, rollup, slice, deadline, RunOptions::default())).await
}

/// All steps after the claim.
async fn work_on(
    turn: Turn<'_>,
    claimed: &Claimed<'_>,
    watch: Stopwatch,
) -> Result<SliceReport, WorkError> {
    let work = Work::new(turn, claimed, watch, 1);
    let all = async {
        let result = work.process().await;
        let report = work.record_in_time(result).instrument(info_span!("complete")).await?;
        let units = *lock(&work.units);
        let workload_units = turn.rollup.mirror.is_some().then_some(units);
        Ok(SliceReport { workload_units, ..report })
    };
    all.instrument(work.span()).await
}

/// Marks serve only registered consumers. For other rollups the slice is settled by `grace`.
fn registered(settled: Settled, consumer: Option<i64>) -> Settled {
    match settled {
        Settled::By("capture") if consumer.is_none() => Settled::By("grace"),
        settled => settled,
    }
}

impl<'w> Work<'w> {
    /// The work on the slice of `turn`, which is claimed. Its time since `watch` began is shared by
    /// this many slices.
    fn new(turn: Turn<'w>, claimed: &'w Claimed<'w>, watch: Stopwatch, sharers: u32) -> Self {
        let Turn { worker, rollup, slice, deadline, options } = turn;
        let Claimed { shape, lease, consumer, throttle, open_until } = claimed;
        let left = deadline.remaining(&*worker.clock).saturating_sub(RESERVE);
        let chunk_time = worker
            .config
            .source
            .chunk_time
            .min(left.div_f64(f64::from(CHUNKS_MIN) * throttle.stretch()))
            .max(CHUNK_TIME_MIN);
        Self {
            worker,
            job: SliceJob { rollup, shape, slice, open_until: *open_until },
            lease,
            consumer: *consumer,
            deadline,
            options,
            chunk_time,
            throttle: *throttle,
            watch,
            sharers,
            coarse: match open_until {
                None => compose::coarse_slices(worker, rollup, slice),
                Some(_) => Vec::new(),
            },
            written: Mutex::default(),
            units: Mutex::default(),
        }
    }

    /// The span of its log lines.
    fn span(&self) -> Span {
        let SliceJob { rollup, slice, .. } = self.job;
        let (start, attempt) = (rfc3339(slice.start()), self.lease.attempt());
        info_span!("slice", rollup = rollup.name, start, attempt)
    }

    /// The time since before the claim.
    fn elapsed(&self) -> Duration {
        self.watch.elapsed() / self.sharers
    }

    async fn process(&self) -> Result<Done, Stop> {
        let mut pace = self.worker.pace(self.job.rollup);
        let work = async {
            if let Some(mirror) = &self.job.rollup.mirror {
                return pages::read(self, mirror).instrument(info_span!("read")).await;
            }
            let settled_by = self.settle(&mut pace).instrument(info_span!("settle")).await?;
            Chunks::new(self, settled_by).read(&mut pace).instrument(info_span!("read")).await
        };
        // Boxed, as the way to it is deep already.
        let done = self.in_time(Box::pin(work)).await;
        self.worker.set_pace(self.job.rollup, pace);
        if done.as_ref().is_err_and(Stop::tells_of_change) {
            self.worker.forget(self.job.rollup);
        }
        done
    }

    /// Waits for `work` until shortly before the deadline, or until an interruption. The servers end
    /// their own statements. This limit is for a connection that is cut off.
    async fn in_time<T>(&self, work: impl Future<Output = Result<T, Stop>>) -> Result<T, Stop> {
        let limit = self.time_left().saturating_sub(RESERVE / 2);
        self.unless_interrupted(tokio::time::timeout(limit, work)).await
    }

    /// Waits for `work`. After an interruption its statement is cancelled. Work that has ended by
    /// then counts, and the rest is given up.
    async fn unless_interrupted<T>(
        &self,
        work: impl Future<Output = Result<Result<T, Stop>, Elapsed>>,
    ) -> Result<T, Stop> {
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
            Err(
                Stop::Fail { .. }
                | Stop::NotNow { .. }
                | Stop::Unreachable(_)
                | Stop::Unrecorded(CheckpointError::Store(_)),
            ) if interrupt.is_raised() => Err(self.interrupted()),
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
        let job @ SliceJob { rollup, shape, .. } = self.job;
        let (start, end) = job.window();
        self.look_again().await?;
        let source = self.worker.source_of(rollup);
        let mut tx =
            source.begin(Access::ReadOnly, self.statement_timeout()?, &job.label()).await?;
        let wait = Wait {
            horizon: self.lease.checkpoint().horizon,
            longest: self.worker.settle_wait_max.min(self.time_left() / SETTLE_SHARE),
            shared: &self.worker.horizons,
        };
        let settled = source::of(rollup).settle(&mut tx, job, wait).await?;
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
        if rollup.plan_guard || pace.is_unknown() {
            let known = &self.worker.tables;
            let reading =
                plan_guard::inspect_knowing(&mut tx, rollup, shape, (start, end), known).await?;
            if let Some(fault) = reading.refusal.filter(|_| rollup.plan_guard) {
                tx.rollback().await?;
                // Retried, as the index may be created meanwhile.
                return Err(Stop::Fail { fault, retryable: true });
            }
            rows = Some(reading.rows);
        }
        tx.commit().await?;
        if let Some(rows) = rows {
            pace.foresee(rows, start, end);
        }
        if let Some(rows) = rows.filter(|_| pace.is_unknown()) {
            // Assume the cost that other processes measured. Without a measurement nothing is lost.
            let learned = estimate::learned(self.worker, rollup).await.ok().flatten();
            let ms_per_row = learned.map(|learned| learned.ms_per_row);
            pace.guess(rows, start, end, self.chunk_time, ms_per_row);
        }
        Ok(by)
    }

    /// Looks after the claim once more whether other slices must be done first.
    async fn look_again(&self) -> Result<(), Stop> {
        let Self { worker, job: SliceJob { rollup, slice, .. }, .. } = *self;
        let unknown = |error: WorkError| Stop::because(Why::Server(Fault::of(&error)));
        match compose::waits_after_claim(worker, rollup, slice).await.map_err(unknown)? {
            None => Ok(()),
            Some(finer) => {
                let retry_at = worker.clock.now() + claim::BLOCKED_RETRY;
                Err(NotNow::until(Why::FinerSlice(finer), retry_at).into())
            }
        }
    }

    fn time_left(&self) -> Duration {
        self.deadline.remaining(&*self.worker.clock)
    }

    /// The remaining time less the reserve.
    fn statement_timeout(&self) -> Result<Duration, Stop> {
        let left = self.time_left().saturating_sub(RESERVE);
        if left.is_zero() {
            return Err(Stop::out_of_time("budget spent"));
        }
        Ok(left)
    }

    fn statement_options(&self, timeout: Duration) -> StatementOptions<'_> {
        let shrink = (!self.options.allow_shrink).then_some(self.job.rollup.shrink_guard);
        let governor = self.throttle.governor();
        StatementOptions { shrink, timeout, governor, nap: None, last: None, coarse: &self.coarse }
    }

    /// Whether the coarse slices that contain this one must run again. An attempt after the first
    /// cannot know whether the one before it has changed the rows. None has the rows of an open
    /// slice.
    fn has_changed(&self, replaced: &Replaced) -> bool {
        let is_whole = self.job.open_until.is_none();
        is_whole && (replaced.rewritten() > 0 || self.lease.attempt() > 1)
    }

    fn set_written(&self, written: CompletedSlice) {
        *lock(&self.written) = Some(written);
    }

    fn written(&self) -> Option<CompletedSlice> {
        lock(&self.written).clone()
    }
}
