//! The passes of a batch over its unfinished slices, and the waits between them.

use std::collections::BTreeSet;
use std::future::ready;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::{FutureExt as _, StreamExt as _};

use super::neighbours::Neighbours;
use super::{BatchOptions, BatchReport, Interrupted, Listener};
use crate::checkpoint::State;
use crate::model::clock::Deadline;
use crate::model::hint::Hinted as _;
use crate::model::not_now::{NotNow, Permit};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::throttle::SLOT_WAIT_MAX;
use crate::work::backlog::BEGIN_MIN;
use crate::work::ready;
use crate::work::report::{Outcome, SliceReport};
use crate::work::slice_run;
use crate::work::worker::{WorkError, Worker};

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

/// A slice of another worker is looked at again after this time, as its lease outlasts its work.
const LEASE_POLL: Duration = Duration::from_secs(5);

/// Slices of other workers that are looked at each time.
const LEASES_MAX: usize = 4;

pub(super) async fn work_through(
    worker: &Worker,
    rollup: &Rollup,
    slices: &[Slice],
    reopen: &BTreeSet<Slice>,
    reason: &str,
    batch: BatchOptions,
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
        let Pass { again, hopeless, out_of_time, at_once, earliest, trouble, hold, leased } =
            pass.await;
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
        if batch.deadline.is_some_and(|deadline| deadline.instant() <= until) {
            break;
        }
        listener.waiting(until, &why);
        wait_for_others(worker, rollup, until, &leased).await;
    }
    Ok(report)
}

/// Waits until `until`, or until another worker has ended its work on one of its slices, `leased`.
async fn wait_for_others(worker: &Worker, rollup: &Rollup, until: DateTime<Utc>, leased: &[Slice]) {
    let left = || (until - worker.clock.now()).to_std().unwrap_or_default();
    while !leased.is_empty() && left() > LEASE_POLL && !worker.interrupt.is_raised() {
        worker.sleep(LEASE_POLL).await;
        for slice in leased.iter().take(LEASES_MAX) {
            match worker.checkpoints.get(&rollup.name, slice.start()).await {
                Ok(Some(found)) if found.state == State::Running => {}
                Ok(_) => return,
                // The next pass meets it too, and decides what follows.
                Err(error) => tracing::info!(error = %error, "the lease could not be looked at"),
            }
        }
    }
    // Wait a little longer, so that the lease is over by the claim's clock.
    worker.sleep(left() + Duration::from_millis(50)).await;
}

/// Waits before the pass that follows a DynamoDB failure. `false`: too little time is left.
async fn wait_for_store(
    worker: &Worker,
    troubles: u32,
    error: &WorkError,
    batch: BatchOptions,
    listener: &dyn Listener,
) -> bool {
    let wait = TROUBLE_WAIT * (1 << (troubles - 1));
    let until = worker.clock.now() + wait;
    if batch.deadline.is_some_and(|deadline| deadline.instant() <= until) {
        return false;
    }
    tracing::warn!(error = %error, troubles, "an error of the checkpoints; tried again");
    listener.waiting(until, &error.in_one_line());
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
    batch: BatchOptions,
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
    batch: BatchOptions,
    listener: &dyn Listener,
    report: &mut BatchReport,
) -> Pass {
    let stop = AtomicBool::new(false);
    let (mut ended_here, reopening) = (BTreeSet::new(), reopen.clone());
    let reopening = &reopening;
    let (in_flight, ended_by_now) = (AtomicUsize::new(0), AtomicUsize::new(report.ended()));
    let next = Neighbours::new(worker, rollup, slices, reopening, &ended_by_now, batch);
    let mut runs = futures_util::stream::iter(next)
        .take_while(|_| ready(!stop.load(Ordering::Relaxed)))
        .inspect(|some| {
            in_flight.fetch_add(some.len(), Ordering::Relaxed);
        })
        // Boxed, as it would be too deep for a thread's stack.
        .map(|some| run_in_batch(worker, rollup, some, reopening, reason, batch).boxed())
        .buffer_unordered(batch.concurrency.max(1))
        .flat_map(futures_util::stream::iter);
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
        ended_by_now.fetch_add(1, Ordering::Relaxed);
        report.runs.add(&ended);
        report.workload_units = report.runs.workload_units;
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
            Outcome::Yielded | Outcome::Stale | Outcome::Leased => pass.put_off(slice, ended),
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

/// The end of one slice in a batch. `None`: too little time is left to start it, or the batch is
/// ending.
type SliceEnd = (Slice, Result<Option<SliceReport>, WorkError>);

/// Works on neighbouring slices, together if there are several. A slice that is missing from the
/// answer is left to the next pass.
async fn run_in_batch(
    worker: &Worker,
    rollup: &Rollup,
    slices: Vec<Slice>,
    reopening: &BTreeSet<Slice>,
    reason: &str,
    batch: BatchOptions,
) -> Vec<SliceEnd> {
    let (mut ends, mut left) = (Vec::new(), slices);
    if left.len() > 1
        && let Some(deadline) = deadline_in(worker, batch)
    {
        let run = slice_run::run_together(worker, rollup, &left, deadline, batch.options);
        let run = Box::pin(run).await;
        ends.extend(run.ended.into_iter().map(|(slice, end)| (slice, end.map(Some))));
        left = run.left;
    }
    for slice in left {
        let is_over = |(_, end): &SliceEnd| match end {
            Ok(ended) => ended.as_ref().is_none_or(|ended| ended.held_back().is_some()),
            Err(_) => true,
        };
        if ends.iter().any(is_over) {
            break;
        }
        let reopen = reopening.contains(&slice);
        let run = Box::pin(run_one(worker, rollup, slice, reopen, reason, batch));
        ends.push((slice, run.await));
    }
    ends
}

/// The deadline of the next slice. `None`: too little time is left to start it, or the batch is
/// ending.
fn deadline_in(worker: &Worker, batch: BatchOptions) -> Option<Deadline> {
    let is_late = |deadline: Deadline| deadline.remaining(&*worker.clock) < BEGIN_MIN;
    if batch.deadline.is_some_and(is_late) || worker.interrupt.is_raised() {
        return None;
    }
    let own = Deadline::after(&*worker.clock, batch.budget);
    Some(batch.deadline.map_or(own, |all| own.min(all)))
}

/// `None`: too little time is left to start it, or the batch is ending.
async fn run_one(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    reopen: bool,
    reason: &str,
    batch: BatchOptions,
) -> Result<Option<SliceReport>, WorkError> {
    if deadline_in(worker, batch).is_none() {
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
    /// Slices that other workers have.
    leased: Vec<Slice>,
}

impl Pass {
    /// Keeps the first error. Later errors of slices in flight are only logged.
    fn stop(&mut self, error: WorkError) {
        match &self.trouble {
            None => self.trouble = Some(error),
            Some(_) => tracing::warn!(error = %error, "an error of a slice in flight"),
        }
    }

    /// Leaves a slice to the next pass.
    fn put_off(&mut self, slice: Slice, ended: SliceReport) {
        if ended.outcome == Outcome::Leased {
            self.leased.push(slice);
        }
        match ended.retry_at {
            Some(until) => self.wait(until, ended.reason.unwrap_or_default()),
            None => self.at_once = true,
        }
    }

    fn wait(&mut self, until: DateTime<Utc>, why: String) {
        if self.earliest.as_ref().is_none_or(|(earliest, _)| until < *earliest) {
            self.earliest = Some((until, why));
        }
    }
}
