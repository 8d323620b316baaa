//! Many slices in one process: backfill a range, or replay chosen slices.

use std::collections::{BTreeSet, HashMap};
use std::future::ready;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::StreamExt as _;
use serde::Serialize;

use crate::model::clock::Deadline;
use crate::model::not_now::{NotNow, Permit};
use crate::model::rollup::Rollup;
use crate::model::slice::{Order, Slice};
use crate::throttle::SLOT_WAIT_MAX;
use crate::work::backlog::BEGIN_MIN;
use crate::work::compose;
use crate::work::due::{Standing, View};
use crate::work::empty;
use crate::work::price::Dollars;
use crate::work::ready;
use crate::work::report::{Outcome, SliceReport, Tally};
use crate::work::slice_run::{self, RunOptions};
use crate::work::standings;
use crate::work::want::{Want, want};
use crate::work::worker::{Severity, WorkError, Worker};

/// Maximum number of passes over the unfinished slices. A slice that yields makes progress each
/// time, and a dead worker's lease ends within one budget.
const PASSES_MAX: usize = 1000;

/// Stop after this many consecutive failures: the cause is not in the slices.
const FAILURES_IN_A_ROW_MAX: usize = 20;

/// A batch ends after DynamoDB has failed this many passes in a row. A night's work survives a
/// single time-out.
const TROUBLES_MAX: u32 = 3;

/// Wait before the pass that follows a DynamoDB failure, doubled each time.
const TROUBLE_WAIT: Duration = Duration::from_secs(1);

/// Paused work is checked again at least this often.
const HOLD_POLL: Duration = Duration::from_secs(60);

/// Paused work is checked at most this many times, which allows for more than a week of pauses.
const HOLDS_MAX: usize = 200_000;

/// How to work on a batch of slices.
#[derive(Clone, Copy, Debug)]
pub struct Batch {
    /// Concurrent slices.
    pub concurrency: usize,
    /// Longest time for one slice before it yields. Its lease lasts a little longer.
    pub budget: Duration,
    /// The instant by which all work must have ended.
    pub deadline: Option<Deadline>,
    /// Options of each slice's run.
    pub options: RunOptions,
    /// Limits of the whole batch.
    pub limits: BatchLimits,
}

/// The most that a batch may use. The batch stops before a slice that would exceed it, judged by
/// the slices so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct BatchLimits {
    /// Source rows.
    pub rows: Option<u64>,
    /// Dollars, by the price of slices in Lambda invocations of their own.
    pub dollars: Option<f64>,
}

impl BatchLimits {
    /// The limit that one more slice would exceed, if it and the `in_flight` ones cost the average
    /// so far.
    fn passed(&self, report: &BatchReport, in_flight: usize) -> Option<String> {
        #[expect(clippy::cast_precision_loss, reason = "estimates")]
        let (done, more, rows, work_ms) = (
            report.succeeded as f64,
            (in_flight + 1) as f64,
            report.rows_read as f64,
            report.work_ms as f64,
        );
        if done < 1.0 {
            return None;
        }
        let grown = (done + more) / done;
        if let Some(max) = self.rows {
            #[expect(clippy::cast_precision_loss, reason = "estimates")]
            let is_passed = rows * grown > max as f64;
            if is_passed {
                return Some(format!("{max} rows are the most it may read"));
            }
        }
        let dollars = Dollars::of(done * grown, work_ms * grown).total();
        let max = self.dollars.filter(|max| dollars > *max)?;
        Some(format!("{max} dollars are the most it may cost"))
    }
}

/// Result of a batch.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct BatchReport {
    /// Slices that succeeded.
    pub succeeded: usize,
    /// Slices that failed, with their reports.
    pub failed: Vec<SliceReport>,
    /// Slices that could not be worked on, with their reports.
    pub refused: Vec<SliceReport>,
    /// Slices that are still to do, or yielded.
    pub left: usize,
    /// Source rows counted.
    pub rows_read: u64,
    /// Groups of all slices.
    pub groups: u64,
    /// Groups that were new.
    pub inserted: u64,
    /// Groups whose measures changed.
    pub updated: u64,
    /// Groups that vanished.
    pub deleted: u64,
    /// Groups that were already right.
    pub unchanged: u64,
    /// Milliseconds in statements on the source.
    pub source_ms: u64,
    /// Milliseconds from claims to checkpoints.
    pub work_ms: u64,
    /// Why it stopped before all slices were done, if it stopped on purpose.
    pub stopped: Option<String>,
    /// How every run ended, those of slices that were run again included: what metrics count.
    #[serde(skip)]
    pub runs: Tally,
}

impl BatchReport {
    fn add(&mut self, report: SliceReport) {
        if let Some(done) = &report.completion {
            self.rows_read += done.rows_read;
            self.groups += done.groups;
            self.inserted += done.inserted;
            self.updated += done.updated;
            self.deleted += done.deleted;
            self.unchanged += done.unchanged;
            self.source_ms += done.source_ms;
            self.work_ms += done.elapsed_ms;
        }
        match report.outcome {
            Outcome::Succeeded | Outcome::AlreadySucceeded => self.succeeded += 1,
            Outcome::Failed => self.failed.push(report),
            _ => self.refused.push(report),
        }
    }

    /// Number of slices that are finished.
    fn ended(&self) -> usize {
        self.succeeded + self.failed.len() + self.refused.len()
    }

    /// The severity of the batch's failures, if there were any.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        let wrong = !self.failed.is_empty() || !self.refused.is_empty() || self.left > 0;
        wrong.then_some(Severity::Failed)
    }
}

/// A batch that ended early because of a failure beyond a single slice, with the work done until
/// then.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Interrupted {
    /// The error that ended it.
    pub error: Box<WorkError>,
    /// The work done before, and the slices left.
    pub report: Box<BatchReport>,
}

impl Interrupted {
    fn after(report: BatchReport, error: WorkError) -> Self {
        Self { error: Box::new(error), report: Box::new(report) }
    }
}

/// Used before any slice was started.
impl From<WorkError> for Interrupted {
    fn from(error: WorkError) -> Self {
        Self::after(BatchReport::default(), error)
    }
}

/// Receives a batch's progress.
pub trait Listener: Send + Sync {
    /// A slice's run ended. Paused slices are left out.
    fn ended(&self, report: &SliceReport);
    /// All work is waiting until `until`.
    fn waiting(&self, until: DateTime<Utc>, reason: &str);
}

/// Ignores all progress.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Listener for Silent {
    fn ended(&self, _: &SliceReport) {}
    fn waiting(&self, _: DateTime<Utc>, _: &str) {}
}

/// The slices that a backfill would work on, and the number of slices that it leaves alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BackfillPlan {
    /// The slices, in the order of work.
    pub slices: Vec<Slice>,
    /// Planned slices that have succeeded. They are reopened before they run.
    pub reopen: BTreeSet<Slice>,
    /// Slices of the range that already succeeded under this definition.
    pub done: usize,
    /// Slices that are sealed.
    pub sealed: usize,
    /// Slices that failed too often; only a replay reopens them.
    pub exhausted: usize,
    /// Slices before the source's first row.
    pub empty: usize,
    /// Slices that wait for an unfinished slice of the finer rollup.
    pub blocked: usize,
    /// End of the range.
    pub from: DateTime<Utc>,
    /// End of the range.
    pub to: DateTime<Utc>,
}

/// Plans a backfill of the slices that start in `[from, to)`: those still to succeed under the
/// present definition, or all of them with `force`. Reads from the source where its rows begin.
///
/// # Errors
/// The range is empty or starts before the rollup's `start`, or the source or the checkpoints
/// cannot be read.
pub async fn plan(
    worker: &Worker,
    rollup: &Rollup,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    order: Order,
    force: bool,
) -> Result<BackfillPlan, WorkError> {
    let (from, to) = checked_range(rollup, (from, to))?;
    let now = worker.clock.now();
    let seen = empty::probe(worker, rollup).await?;
    let checkpoints = worker.checkpoints.range(&rollup.name, from, to).await?;
    let known: HashMap<_, _> = checkpoints.iter().map(|it| (it.slice_start, it)).collect();
    let finer = compose::finer_done(worker, rollup, now).await?;
    let view = View { finer: finer.as_ref(), ..standings::view(worker, rollup, &seen, now) };
    let plan = view.plan(&checkpoints, from, to);
    let mut backfill = BackfillPlan { from, to, ..BackfillPlan::default() };
    for planned in plan.slices {
        let slice = planned.slice;
        let checkpoint = known.get(&slice.start()).copied();
        // Whenever they were computed, as this process is the backfill's only worker.
        let force_since = force.then_some(DateTime::<Utc>::MAX_UTC);
        match want(planned.standing, checkpoint, &view.definition, force_since) {
            Want::Again if view.is_blocked(slice) => backfill.blocked += 1,
            Want::Again => {
                backfill.reopen.insert(slice);
                backfill.slices.push(slice);
            }
            Want::Compute => backfill.slices.push(slice),
            Want::Done => backfill.done += 1,
            Want::Exhausted => backfill.exhausted += 1,
            Want::Pending if planned.standing == Standing::Blocked => backfill.blocked += 1,
            // A batch waits for these.
            Want::Pending => backfill.slices.push(slice),
            Want::Never => match planned.standing {
                Standing::Sealed => backfill.sealed += 1,
                Standing::Empty => backfill.empty += 1,
                _ => {}
            },
        }
    }
    if order == Order::NewestFirst {
        backfill.slices.reverse();
    }
    Ok(backfill)
}

/// The range of a backfill, from the start of its first slice.
pub(crate) fn checked_range(
    rollup: &Rollup,
    (from, to): (DateTime<Utc>, DateTime<Utc>),
) -> Result<(DateTime<Utc>, DateTime<Utc>), WorkError> {
    if from < rollup.start {
        return Err(WorkError::Usage(format!(
            "from {} is before the start of rollup `{}`, {}; lower `start` in the \
             configuration first",
            from.to_rfc3339(),
            rollup.name,
            rollup.start.to_rfc3339()
        )));
    }
    if from >= to {
        return Err(WorkError::Usage(format!(
            "the range is empty: from {} is not before to {}",
            from.to_rfc3339(),
            to.to_rfc3339()
        )));
    }
    Ok((rollup.calendar.containing(from).start(), to))
}

/// Works through a backfill and advances the watermark.
///
/// # Errors
/// A failure beyond a single slice. The slices in flight end, and finished slices stay done.
/// The same backfill can be continued.
pub async fn run(
    worker: &Worker,
    rollup: &Rollup,
    plan: &BackfillPlan,
    batch: Batch,
    listener: &dyn Listener,
) -> Result<BatchReport, Interrupted> {
    let report =
        work_through(worker, rollup, &plan.slices, &plan.reopen, "backfill", batch, listener)
            .await?;
    match move_watermark_now(worker, rollup).await {
        Ok(()) => Ok(report),
        Err(error) => Err(Interrupted::after(report, error)),
    }
}

async fn move_watermark_now(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    let standings = standings::of(worker, rollup, worker.clock.now()).await?;
    standings::move_watermark(worker, rollup, &standings, 1).await
}

/// Reopens `slices` in any state, and works on them.
///
/// # Errors
/// As [`run`].
pub async fn replay(
    worker: &Worker,
    rollup: &Rollup,
    slices: &[Slice],
    reason: &str,
    batch: Batch,
    listener: &dyn Listener,
) -> Result<BatchReport, Interrupted> {
    // A sealed slice would wait for ever, so it is only reported.
    let is_open = |slice: &Slice| !rollup.is_sealed_at(slice.start());
    let reopen = slices.iter().copied().filter(is_open).collect();
    work_through(worker, rollup, slices, &reopen, reason, batch, listener).await
}

async fn work_through(
    worker: &Worker,
    rollup: &Rollup,
    slices: &[Slice],
    reopen: &BTreeSet<Slice>,
    reason: &str,
    batch: Batch,
    listener: &dyn Listener,
) -> Result<BatchReport, Interrupted> {
    let mut report = BatchReport::default();
    if slices.is_empty() {
        return Ok(report);
    }
    ready::check(worker, rollup).await?;
    let mut todo: Vec<Slice> = slices.to_vec();
    let mut reopen = reopen.clone();
    let (mut troubles, mut slotless) = (0, None);
    for _ in 0..PASSES_MAX {
        let ended = report.ended();
        let pass = pass(worker, rollup, &todo, &mut reopen, reason, batch, listener, &mut report);
        let Pass { again, hopeless, out_of_time, at_once, earliest, trouble, hold } = pass.await;
        report.left = slices.len() - report.ended();
        if report.ended() > ended {
            (troubles, slotless) = (0, None);
        }
        todo = again;
        if let Some(error) = trouble {
            troubles += 1;
            if !error.may_pass() || troubles > TROUBLES_MAX {
                return Err(Interrupted::after(report, error));
            }
            if !wait_for_store(worker, troubles, &error, batch, listener).await {
                break;
            }
            continue;
        }
        if let Some(error) = starved(worker, hold.as_ref(), &mut slotless) {
            return Err(Interrupted::after(report, error));
        }
        if todo.is_empty() || hopeless || out_of_time || report.stopped.is_some() {
            break;
        }
        if let Some(hold) = hold {
            match wait_out(worker, rollup, hold, batch, listener).await {
                Ok(true) => continue,
                Ok(false) => break,
                Err(error) => return Err(Interrupted::after(report, error)),
            }
        }
        let Some((until, why)) = earliest.filter(|_| !at_once) else { continue };
        let now = worker.clock.now();
        let wait = (until - now).to_std().unwrap_or_default();
        if batch.deadline.is_some_and(|deadline| deadline.instant() <= until) {
            break;
        }
        listener.waiting(until, &why);
        // Wait a little longer, so that the lease is over by the claim's clock.
        worker.sleep(wait + Duration::from_millis(50)).await;
    }
    Ok(report)
}

/// Waits before the pass that follows a DynamoDB failure. `false`: too little time is left.
async fn wait_for_store(
    worker: &Worker,
    troubles: u32,
    error: &WorkError,
    batch: Batch,
    listener: &dyn Listener,
) -> bool {
    let wait = TROUBLE_WAIT * (1 << (troubles - 1));
    let until = worker.clock.now() + wait;
    if batch.deadline.is_some_and(|deadline| deadline.instant() <= until) {
        return false;
    }
    tracing::warn!(error = %error, troubles, "an error of the checkpoints; tried again");
    listener.waiting(until, &error.to_string());
    worker.sleep(wait).await;
    true
}

/// The error of a batch that has waited too long for something that others hold. `since` is the
/// start of its wait.
fn starved(
    worker: &Worker,
    hold: Option<&NotNow>,
    since: &mut Option<DateTime<Utc>>,
) -> Option<WorkError> {
    let Some(hold) = hold.filter(|hold| hold.why.is_taken()) else {
        *since = None;
        return None;
    };
    let now = worker.clock.now();
    let waited = (now - *since.get_or_insert(now)).to_std().unwrap_or_default();
    (waited >= SLOT_WAIT_MAX).then(|| WorkError::Starved(hold.why.clone()))
}

/// Waits while the work is paused, and returns whether it may continue.
async fn wait_out(
    worker: &Worker,
    rollup: &Rollup,
    mut hold: NotNow,
    batch: Batch,
    listener: &dyn Listener,
) -> Result<bool, WorkError> {
    let mut told = None;
    for _ in 0..HOLDS_MAX {
        let until = hold.retry_after(worker.clock.now());
        if hold.why.is_final() || batch.deadline.is_some_and(|deadline| deadline.instant() <= until)
        {
            return Ok(false);
        }
        if told.as_ref() != Some(&hold.why) {
            listener.waiting(until, &hold.to_string());
            told = Some(hold.why);
        }
        let wait = (until - worker.clock.now()).to_std().unwrap_or_default();
        worker.sleep(wait.clamp(Duration::from_millis(50), HOLD_POLL)).await;
        match ready::gate(worker, rollup, batch.options.backfill).may_start().await? {
            Permit::Given(_) => return Ok(true),
            Permit::NotNow(next) => hold = next,
        }
    }
    Ok(false)
}

/// Goes through `slices` once. After a failure beyond a single slice only the slices in flight
/// continue. They end, at their deadline at the latest, as leases of dropped runs would delay
/// the next batch.
#[expect(clippy::too_many_arguments, reason = "one call site; a struct would only rename it")]
async fn pass(
    worker: &Worker,
    rollup: &Rollup,
    slices: &[Slice],
    reopen: &mut BTreeSet<Slice>,
    reason: &str,
    batch: Batch,
    listener: &dyn Listener,
    report: &mut BatchReport,
) -> Pass {
    let stop = AtomicBool::new(false);
    let (mut ended_here, reopening) = (BTreeSet::new(), reopen.clone());
    let reopening = &reopening;
    let in_flight = AtomicUsize::new(0);
    let mut runs = futures_util::stream::iter(slices.iter().copied())
        .take_while(|_| ready(!stop.load(Ordering::Relaxed)))
        .inspect(|_| {
            in_flight.fetch_add(1, Ordering::Relaxed);
        })
        .map(|slice| async move {
            let run =
                run_in_batch(worker, rollup, slice, reopening.contains(&slice), reason, batch);
            (slice, run.await)
        })
        .buffer_unordered(batch.concurrency.max(1));
    let mut pass = Pass::default();
    let mut failures_in_a_row = 0;
    while let Some((slice, result)) = runs.next().await {
        let others = in_flight.fetch_sub(1, Ordering::Relaxed) - 1;
        let ended = match result {
            Ok(Some(ended)) => ended,
            Ok(None) => {
                pass.out_of_time = true;
                continue;
            }
            Err(error) => {
                stop.store(true, Ordering::Relaxed);
                pass.stop(error);
                continue;
            }
        };
        reopen.remove(&slice);
        report.runs.add(&ended);
        if let Some(hold) = ended.held_back() {
            // A pause of one slice applies to all.
            stop.store(true, Ordering::Relaxed);
            pass.hold = Some(hold.clone());
            continue;
        }
        listener.ended(&ended);
        failures_in_a_row =
            if ended.outcome == Outcome::Failed { failures_in_a_row + 1 } else { 0 };
        match ended.outcome {
            // Another worker has it, or had it until it died.
            Outcome::Yielded | Outcome::Stale | Outcome::Leased => match ended.retry_at {
                Some(until) => pass.wait(until, ended.reason.unwrap_or_default()),
                None => pass.at_once = true,
            },
            _ => {
                ended_here.insert(slice);
                report.add(ended);
            }
        }
        if report.stopped.is_none() {
            report.stopped = batch.limits.passed(report, others);
        }
        if report.stopped.is_some() {
            stop.store(true, Ordering::Relaxed);
        }
        if failures_in_a_row >= FAILURES_IN_A_ROW_MAX {
            pass.hopeless = true;
            stop.store(true, Ordering::Relaxed);
        }
    }
    drop(runs);
    pass.again = slices.iter().copied().filter(|slice| !ended_here.contains(slice)).collect();
    pass
}

/// `None`: too little time is left to start it, or the batch is ending.
async fn run_in_batch(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    reopen: bool,
    reason: &str,
    batch: Batch,
) -> Result<Option<SliceReport>, WorkError> {
    let is_late = |deadline: Deadline| deadline.remaining(&*worker.clock) < BEGIN_MIN;
    if batch.deadline.is_some_and(is_late) || worker.interrupt.is_raised() {
        return Ok(None);
    }
    let now = worker.clock.now();
    if reopen {
        // Mark only slices that can be computed.
        ready::refuse_unfit(worker, rollup).await?;
        worker.checkpoints.reopen(&rollup.name, slice.start(), reason, now).await?;
    }
    let own = Deadline::after(&*worker.clock, batch.budget);
    let deadline = batch.deadline.map_or(own, |all| own.min(all));
    slice_run::run_slice(worker, rollup, slice, deadline, batch.options).await.map(Some)
}

/// The remainder of one pass.
#[derive(Default)]
struct Pass {
    again: Vec<Slice>,
    hopeless: bool,
    out_of_time: bool,
    /// Some slice can continue at once, even while others wait.
    at_once: bool,
    earliest: Option<(DateTime<Utc>, String)>,
    /// The first failure beyond a single slice.
    trouble: Option<WorkError>,
    /// The pause that held the rest back.
    hold: Option<NotNow>,
}

impl Pass {
    /// Keeps the first error. Later errors of slices in flight are only logged.
    fn stop(&mut self, error: WorkError) {
        match &self.trouble {
            None => self.trouble = Some(error),
            Some(_) => tracing::warn!(error = %error, "an error of a slice in flight"),
        }
    }

    fn wait(&mut self, until: DateTime<Utc>, why: String) {
        if self.earliest.as_ref().is_none_or(|(earliest, _)| until < *earliest) {
            self.earliest = Some((until, why));
        }
    }
}
