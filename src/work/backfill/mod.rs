//! Many slices in one process: backfill a range, or replay chosen slices.

mod neighbours;
mod passes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::clients::bubble::Units;
use crate::model::clock::Deadline;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::slice::{Order, Slice};
use crate::work::compose;
use crate::work::coverage::{self, TickFindings};
use crate::work::due::{FinerDone, Standing, View};
use crate::work::empty;
use crate::work::price::Dollars;
use crate::work::ready;
use crate::work::report::{Outcome, SliceReport, Tally};
use crate::work::slice_run::RunOptions;
use crate::work::standings;
use crate::work::want::{Want, want};
use crate::work::worker::{Severity, WorkError, Worker};

use passes::work_through;

/// How to work on a batch of slices.
#[derive(Clone, Copy, Debug)]
pub struct BatchOptions {
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
    pub(crate) rows: Option<u64>,
    /// Dollars, by the price of slices in Lambda invocations of their own.
    pub(crate) dollars: Option<f64>,
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
    /// What an app has billed for all runs, by the manual's prices. `None`: the source is a database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_units: Option<Units>,
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

    /// The price of the work, each slice in a Lambda invocation of its own.
    #[must_use]
    pub(crate) fn dollars(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "estimates")]
        let (done, work_ms) = (self.succeeded as f64, self.work_ms as f64);
        Dollars::of(done, work_ms).total()
    }

    /// Number of slices that are finished.
    fn ended(&self) -> usize {
        self.succeeded + self.failed.len() + self.refused.len()
    }

    /// The severity of the batch's failures, if there were any.
    #[must_use]
    pub(crate) fn severity(&self) -> Option<Severity> {
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
    /// Slices whose rows were taken over from another job's table.
    pub adopted: usize,
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
    let finer = compose::finer_done(worker, rollup, worker.clock.now()).await?;
    plan_after(worker, rollup, (from, to), order, force, finer.as_ref()).await
}

/// As [`plan`], for the time when all slices of the finer rollup are done.
///
/// # Errors
/// As [`plan`].
pub(crate) async fn plan_once_finer_is_done(
    worker: &Worker,
    rollup: &Rollup,
    range: (DateTime<Utc>, DateTime<Utc>),
    order: Order,
    force: bool,
) -> Result<BackfillPlan, WorkError> {
    plan_after(worker, rollup, range, order, force, None).await
}

async fn plan_after(
    worker: &Worker,
    rollup: &Rollup,
    range: (DateTime<Utc>, DateTime<Utc>),
    order: Order,
    force: bool,
    finer_done: Option<&FinerDone>,
) -> Result<BackfillPlan, WorkError> {
    let (from, to) = checked_range(rollup, range)?;
    let now = worker.clock.now();
    let seen = empty::probe(worker, rollup).await?;
    let checkpoints = worker.checkpoints.range(&rollup.name, from, to).await?;
    let known: HashMap<_, _> = checkpoints.iter().map(|it| (it.slice_start, it)).collect();
    let view = View { finer_done, ..standings::view(worker, rollup, &seen, now) };
    let plan = view.plan(&checkpoints, from, to);
    let mut backfill = BackfillPlan { from, to, ..BackfillPlan::default() };
    for planned in plan.slices {
        let slice = planned.slice;
        let checkpoint = known.get(&slice.start()).copied();
        // Whenever they were computed, as this process is the backfill's only worker.
        let force_since = force.then_some(DateTime::<Utc>::MAX_UTC);
        match want(planned.standing, checkpoint, &view.definition, force_since) {
            Want::Again if view.is_blocked(checkpoint, slice) => backfill.blocked += 1,
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
                Standing::Adopted => backfill.adopted += 1,
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
        let fault = Fault::new(format!(
            "from {} is before the start of rollup `{}`, {}",
            from.to_rfc3339(),
            rollup.name,
            rollup.start.to_rfc3339()
        ));
        return Err(WorkError::Usage(fault.remedy("lower `start` in the configuration first")));
    }
    if from >= to {
        let (from, to) = (from.to_rfc3339(), to.to_rfc3339());
        let fault = Fault::new(format!("the range is empty: from {from} is not before to {to}"));
        return Err(WorkError::Usage(fault.remedy("name an end that is later than the begin")));
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
    batch: BatchOptions,
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

/// Readers learn of a new definition first, as no tick has news of it later.
async fn move_watermark_now(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    let now = worker.clock.now();
    let standings = standings::of(worker, rollup, now).await?;
    let mut findings = TickFindings::new(now, BTreeMap::new());
    findings.add(rollup, &standings, now);
    if findings.hold(rollup, &standings) {
        return Ok(coverage::tell(worker, &findings).await?);
    }
    Ok(standings::move_watermark(worker, rollup, &standings, 1).await?)
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
    batch: BatchOptions,
    listener: &dyn Listener,
) -> Result<BatchReport, Interrupted> {
    // A sealed slice would wait for ever, so it is only reported.
    let seen = ready::watermark(worker, rollup).await.map_err(WorkError::from)?;
    let seal = seen.seal_of(rollup);
    let is_open = |slice: &Slice| seal.is_none_or(|seal| slice.start() >= seal);
    let reopen = slices.iter().copied().filter(is_open).collect();
    work_through(worker, rollup, slices, &reopen, reason, batch, listener).await
}
