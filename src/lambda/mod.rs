//! An event → the work → the response. docs/EVENTS.md explains each response.
//!
//! With queues, a tick, a backfill and a replay of many slices send the slices to other
//! invocations. In both cases, slices beyond an invocation's time are due for the next schedule, as
//! their checkpoints show.

mod batch;
mod error;
mod scrub;

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::BoxFuture;
use serde_json::{Value, json};

use crate::checkpoint::BackfillState;
use crate::clients::queue::Queue;
use crate::event::{
    self, BackfillRequest, EventError, ReplayRequest, SliceRequest, Trigger, Which,
};
use crate::fanout;
use crate::model::clock::Deadline;
use crate::model::not_now::{NotNow, Why};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notices;
use crate::work::backfill::{self, BackfillPlan, BatchLimits, BatchOptions, BatchReport, Silent};
use crate::work::backlog::BEGIN_MIN;
use crate::work::report::{Outcome, SliceReport};
use crate::work::slice_run::{self, RunOptions};
use crate::work::worker::{WorkError, Worker};
use crate::work::{ready, replay};

pub use crate::event::CommandRequest;
pub use error::HandleError;

use crate::model::clock::rfc3339;

/// Reports listed in one response, as an invocation can process more slices than fit into Lambda's
/// 6 MB. Failures come first, all are counted, and the log has a line for each.
const LISTED_MAX: usize = 100;

/// Time before Lambda's deadline, at which it kills, that is kept for posting the response.
const MARGIN: TimeDelta = TimeDelta::milliseconds(500);

/// An answer later than this after the deadline is abandoned. It is shorter than [`MARGIN`], and
/// leaves a tick the time to report its work.
const ANSWER_BY: Duration = Duration::from_millis(350);

/// Lambda accepts 6 MB, and escaping makes the response longer.
pub(crate) const RESPONSE_MAX: usize = 4_000_000;

/// Runs a command of the command line by the deadline, and returns the answer.
pub type Commands = dyn for<'w> Fn(&'w Worker, CommandRequest, Deadline) -> BoxFuture<'w, Result<Value, HandleError>>
    + Send
    + Sync;

/// One invocation.
#[derive(Clone, Copy)]
pub struct Invocation<'a> {
    /// The instant by which it must have ended.
    pub deadline: Deadline,
    /// The trace that it belongs to, for its messages.
    pub trace: Option<&'a str>,
    /// Receives its metrics.
    pub emit: &'a (dyn Fn(&Metrics) + Send + Sync),
    /// Runs a command.
    pub commands: &'a Commands,
}

/// The deadline of an invocation that Lambda kills at `ms` of the epoch. `None`: Lambda gave no
/// deadline.
#[must_use]
pub fn deadline(ms: u64) -> Option<Deadline> {
    let killed_at = DateTime::from_timestamp_millis(i64::try_from(ms).ok()?)?;
    Some(Deadline::at(killed_at - MARGIN))
}

/// Does the work that `event` requests, as far as the deadline allows, and always answers by the
/// deadline.
///
/// # Errors
/// The event was not understood, or its work failed. The invocation is to be retried and then to
/// reach a dead-letter queue.
pub async fn handle(
    worker: &Worker,
    event: Value,
    invocation: Invocation<'_>,
) -> Result<Value, HandleError> {
    // A server found out of reach is contacted only once in an invocation.
    let _once = (worker.source.ask_once(), worker.target.db.ask_once());
    let limit = invocation.deadline.remaining(&*worker.clock) + ANSWER_BY;
    let answer = Box::pin(answer(worker, event, invocation));
    let answer = tokio::time::timeout(limit, answer).await;
    answer.unwrap_or(Err(HandleError::OutOfTime)).map(fitting)
}

async fn answer(
    worker: &Worker,
    event: Value,
    invocation: Invocation<'_>,
) -> Result<Value, HandleError> {
    if let Some(queues) = &worker.queues {
        queues.trace(invocation.trace);
    }
    match event::parse(&event)? {
        Trigger::Schedule { time } => schedule(worker, time, invocation).await,
        Trigger::Slice(request) => slice(worker, &request, invocation).await,
        Trigger::Messages(messages) => Ok(batch::run_messages(worker, &messages, invocation).await),
        Trigger::Backfill(request) => backfill(worker, &request, invocation).await,
        Trigger::Replay(request) => replay(worker, &request, invocation).await,
        Trigger::Scrub { rollup } => scrub::run(worker, rollup.as_deref(), invocation).await,
        Trigger::Command(request) => {
            (invocation.commands)(worker, request, invocation.deadline).await
        }
    }
}

/// The response, with fewer slices listed if it would exceed Lambda's limit.
fn fitting(mut response: Value) -> Value {
    // Each round halves the lists. Texts are cut where they enter, so a few rounds are enough.
    for _ in 0..16 {
        if response.to_string().len() <= RESPONSE_MAX {
            break;
        }
        let mut unlisted = 0;
        for list in ["/slices", "/failed", "/refused", "/scrub/drifted", "/scrub/passed_over"] {
            if let Some(Value::Array(listed)) = response.pointer_mut(list) {
                unlisted += listed.len() - listed.len() / 2;
                listed.truncate(listed.len() / 2);
            }
        }
        let before = response["unlisted"].as_u64().unwrap_or(0);
        response["unlisted"] = (before + unlisted as u64).into();
    }
    response
}

/// Works on the slices that were due at the scheduled time, so that a late retry of an old event
/// does what the event meant. Failed slices count as success here, as their checkpoints hold the
/// time of the next try.
async fn schedule(
    worker: &Worker,
    time: DateTime<Utc>,
    Invocation { deadline, emit, .. }: Invocation<'_>,
) -> Result<Value, HandleError> {
    let as_of = time.min(worker.clock.now());
    let mut report = notices::tick(worker, as_of, deadline, None).await?;
    emit(&Metrics::of_tick(&report));
    if !report.problems.is_empty() {
        return Err(HandleError::Problems(report.problems));
    }
    let mut outcomes = BTreeMap::<_, usize>::new();
    for slice in &report.slices {
        *outcomes.entry(slice.outcome.word()).or_default() += 1;
    }
    // The sort is stable, so the order of work stays within both kinds.
    report.slices.sort_by_key(SliceReport::is_success);
    let unlisted = truncate(&mut report.slices, LISTED_MAX);
    let mut response = json!({
        "trigger": "schedule",
        "as_of": rfc3339(as_of),
        "outcomes": outcomes,
        "slices": report.slices,
        "unlisted": unlisted,
        "sent": report.sent,
        "left": report.left,
        "held": report.held,
        "scrub": report.scrub,
        "kept_away": report.kept_away,
        "next_due": report.next_due,
    });
    if let Some(units) = report.workload_units {
        response["workload_units"] = json!(units);
    }
    Ok(response)
}

/// Works on one slice.
async fn slice(
    worker: &Worker,
    request: &SliceRequest,
    invocation: Invocation<'_>,
) -> Result<Value, HandleError> {
    let report = run_requested(worker, request, invocation.deadline).await?;
    (invocation.emit)(&Metrics::of_slices([&report]));
    if report.outcome == Outcome::Failed {
        return Err(HandleError::Failed(Box::new(report)));
    }
    Ok(json!({ "trigger": "slice", "backfill": request.backfill, "slice": report }))
}

async fn run_requested(
    worker: &Worker,
    request: &SliceRequest,
    deadline: Deadline,
) -> Result<SliceReport, HandleError> {
    let rollup = known(worker, &request.rollup)?;
    let slice = begun(worker, rollup, &request.start)?;
    if let Some(report) = too_late(worker, rollup, slice, deadline) {
        return Ok(report);
    }
    Ok(match &request.backfill {
        Some(id) => fanout::run_in_backfill(worker, rollup, slice, id, deadline).await?,
        None => slice_run::run_named(worker, rollup, slice, deadline).await?,
    })
}

/// The report of a slice for which too little time was left.
fn too_late(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    deadline: Deadline,
) -> Option<SliceReport> {
    (deadline.remaining(&*worker.clock) < BEGIN_MIN).then(|| {
        let why = Why::OutOfTime("too little time left to begin".to_owned());
        SliceReport::not_now(rollup, slice, NotNow::because(why)).logged()
    })
}

/// Sends the slices of a range to the queue. If there is no queue, works through them until the
/// budget is spent.
async fn backfill(
    worker: &Worker,
    request: &BackfillRequest,
    invocation: Invocation<'_>,
) -> Result<Value, HandleError> {
    let deadline = invocation.deadline;
    let rollup = known(worker, &request.rollup)?;
    let from = event::instant_of(rollup, "from", &request.from)?;
    let to = request.to.as_ref().map(|text| event::instant_of(rollup, "to", text)).transpose()?;
    if let Some(queues) = &worker.queues {
        let reason = "asked for by an event";
        let (range, order, force) = ((from, to), request.order, request.force);
        let mut backfill =
            fanout::start_backfill(worker, rollup, range, order, force, reason).await?;
        let permit = ready::gate(worker, rollup, Some(backfill.started_at)).may_start().await;
        // While it is paused, the next tick resumes it.
        if permit.map_err(WorkError::from)?.is_given() && backfill.state == BackfillState::Planning
        {
            fanout::plan_on(worker, queues, rollup, &mut backfill, deadline).await?;
        }
        return Ok(json!({ "trigger": "backfill", "backfill": backfill }));
    }
    let to = to.unwrap_or_else(|| worker.clock.now());
    let mut plan = backfill::plan(worker, rollup, from, to, request.order, request.force).await?;
    let reopen: Vec<_> =
        plan.slices.iter().copied().filter(|slice| plan.reopen.contains(slice)).collect();
    reopen_all(worker, rollup, &reopen, "backfill", deadline).await?;
    plan.reopen.clear();
    let options = RunOptions { backfill: Some(worker.clock.now()), ..RunOptions::default() };
    let report = work_through(worker, rollup, &plan, options, invocation).await?;
    Ok(batch_response(
        json!({
            "trigger": "backfill",
            "rollup": rollup.name,
            "from": rfc3339(plan.from),
            "to": rfc3339(plan.to),
            "planned": plan.slices.len(),
            "reopened": reopen.len(),
            "done": plan.done,
            "empty": plan.empty,
            "sealed": plan.sealed,
            "exhausted": plan.exhausted,
            "blocked": plan.blocked,
        }),
        report,
    ))
}

/// Reopens slices and works on them.
async fn replay(
    worker: &Worker,
    request: &ReplayRequest,
    invocation: Invocation<'_>,
) -> Result<Value, HandleError> {
    let Invocation { deadline, emit, .. } = invocation;
    let rollup = known(worker, &request.rollup)?;
    let options = RunOptions { allow_shrink: request.allow_shrink, backfill: None };
    match &request.which {
        Which::Start(start) => {
            let slice = begun(worker, rollup, start)?;
            let seal = ready::watermark(worker, rollup).await.map_err(WorkError::from)?;
            if seal.seal_of(rollup).is_none_or(|seal| slice.start() >= seal) {
                reopen(worker, rollup, slice, &request.reason).await?;
            }
            let report = match too_late(worker, rollup, slice, deadline) {
                Some(report) => report,
                None => slice_run::run_slice(worker, rollup, slice, deadline, options).await?,
            };
            emit(&Metrics::of_slices([&report]));
            if report.outcome == Outcome::Failed {
                return Err(HandleError::Failed(Box::new(report)));
            }
            Ok(json!({ "trigger": "replay", "slice": report }))
        }
        Which::Failed => {
            let slices = replay::failed_slices(worker, rollup).await?;
            reopen_all(worker, rollup, &slices, &request.reason, deadline).await?;
            // Messages lack a field for `allow_shrink`.
            if let Some(queues) = worker.queues.as_ref().filter(|_| !request.allow_shrink) {
                let sent = queues.send(Queue::Backfill, &rollup.name, &slices, None).await;
                sent.map_err(WorkError::from)?;
                let (name, count) = (&rollup.name, slices.len());
                return Ok(json!({
                    "trigger": "replay", "rollup": name, "reopened": count, "sent": count,
                }));
            }
            let plan = BackfillPlan { slices, ..BackfillPlan::default() };
            let report = work_through(worker, rollup, &plan, options, invocation).await?;
            let asked = json!({
                "trigger": "replay",
                "rollup": rollup.name,
                "reopened": plan.slices.len(),
            });
            Ok(batch_response(asked, report))
        }
    }
}

/// Reopens all `slices` before any is worked on, so that the slices beyond the budget are due for
/// the next schedule.
async fn reopen_all(
    worker: &Worker,
    rollup: &Rollup,
    slices: &[Slice],
    reason: &str,
    deadline: Deadline,
) -> Result<(), HandleError> {
    if !slices.is_empty() {
        // Mark only slices that can be computed.
        ready::refuse_unfit(worker, rollup).await?;
    }
    for (reopened, slice) in slices.iter().enumerate() {
        if deadline.remaining(&*worker.clock) < BEGIN_MIN {
            let (rollup, all) = (rollup.name.clone(), slices.len());
            return Err(HandleError::NotReopened { rollup, reopened, all, next: *slice });
        }
        reopen(worker, rollup, *slice, reason).await?;
    }
    Ok(())
}

async fn reopen(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    reason: &str,
) -> Result<(), WorkError> {
    ready::refuse_unfit(worker, rollup).await?;
    let now = worker.clock.now();
    // Readers are told first. Where they cannot be, the slice runs again all the same.
    if let Err(error) = worker.target.raise(&rollup.name, &[slice], reason).await {
        tracing::warn!(error = %error, "readers were not told");
    }
    worker.checkpoints.reopen(&rollup.name, slice.start(), reason, now).await?;
    Ok(())
}

/// Works on one slice after another, because each invocation is one reader of the source. Emits the
/// metrics, even if the batch ended early.
async fn work_through(
    worker: &Worker,
    rollup: &Rollup,
    plan: &BackfillPlan,
    options: RunOptions,
    Invocation { deadline, emit, .. }: Invocation<'_>,
) -> Result<BatchReport, WorkError> {
    let budget = deadline.remaining(&*worker.clock);
    let limits = BatchLimits::default();
    let batch = BatchOptions { concurrency: 1, budget, deadline: Some(deadline), options, limits };
    let done = backfill::run(worker, rollup, plan, batch, &Silent).await;
    let report = done.as_ref().unwrap_or_else(|interrupted| &interrupted.report);
    emit(&Metrics::of_tally(report.runs));
    // The slices that were done have their lines in the log.
    done.map_err(|interrupted| *interrupted.error)
}

/// The request and its results.
fn batch_response(mut asked: Value, mut report: BatchReport) -> Value {
    let mut unlisted = truncate(&mut report.failed, LISTED_MAX);
    unlisted += truncate(&mut report.refused, LISTED_MAX - report.failed.len());
    if let (Value::Object(fields), Value::Object(report)) = (&mut asked, json!(report)) {
        fields.extend(report);
        fields.insert("unlisted".into(), unlisted.into());
    }
    asked
}

/// Keeps at most `max` reports and returns the number removed.
fn truncate(reports: &mut Vec<SliceReport>, max: usize) -> usize {
    let gone = reports.len().saturating_sub(max);
    reports.truncate(max);
    gone
}

fn known<'w>(worker: &'w Worker, name: &str) -> Result<&'w Rollup, EventError> {
    Ok(worker.config.rollup(name)?)
}

/// The slice that starts at `text`, which must be in the past.
fn begun(worker: &Worker, rollup: &Rollup, text: &str) -> Result<Slice, EventError> {
    Ok(rollup.begun(event::slice_of(rollup, text)?, worker.clock.now())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_fits_into_what_lambda_takes() {
        let few = json!({ "slices": [{ "reason": "short" }], "unlisted": 0 });
        assert_eq!(fitting(few.clone()), few);
        let long: Vec<Value> = (0..100).map(|_| json!({ "reason": "x".repeat(200_000) })).collect();
        let fitted = fitting(json!({
            "slices": long, "unlisted": 7, "scrub": { "drifted": long, "differing": 100 },
        }));
        assert!(fitted.to_string().len() <= RESPONSE_MAX);
        let listed =
            |list: &str| fitted.pointer(list).and_then(Value::as_array).map_or(0, Vec::len);
        let (slices, drifted) = (listed("/slices"), listed("/scrub/drifted"));
        assert!(slices > 0 && drifted > 0);
        assert_eq!(fitted["unlisted"], (7 + 200 - slices - drifted) as u64);
    }
}
