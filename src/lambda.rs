//! An event → the work → the response. What stands behind each response: docs/EVENTS.md.
//!
//! There is no queue of Tallymark's own: whatever an invocation does not reach is due for the next
//! schedule, because its checkpoint says so.

use std::collections::BTreeMap;

use aws_lambda_events::sqs::SqsBatchResponse;
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use crate::backfill::{BackfillPlan, Batch, BatchReport, Limits, Silent};
use crate::checkpoint::State;
use crate::clock::Deadline;
use crate::event::{
    self, BackfillRequest, EventError, Message, ReplayRequest, SliceRequest, Trigger, Which,
};
use crate::report::{Outcome, SliceReport};
use crate::rollup::Rollup;
use crate::run::RunOptions;
use crate::slice::Slice;
use crate::tick::{BEGIN_MIN, Problem};
use crate::worker::{Severity, WorkError, Worker};

/// Reports listed in one response: an invocation can process more slices than Lambda's 6 MB hold.
/// Those of trouble come first, all are counted, and the log has a line for each.
const LISTED_MAX: usize = 100;

/// Why an invocation is to be retried, or looked at by a person.
#[derive(Debug, thiserror::Error)]
pub enum HandleError {
    /// The event was not understood.
    #[error(transparent)]
    Event(#[from] EventError),
    /// Trouble that is not one slice's.
    #[error(transparent)]
    Work(#[from] WorkError),
    /// The slice that was asked for failed.
    #[error(
        "slice {}@{} failed: {}", .0.rollup, rfc3339(.0.start),
        .0.reason.as_deref().unwrap_or("no reason was given")
    )]
    Failed(Box<SliceReport>),
    /// Rollups that could not be worked on; the others were.
    #[error("{} could not be worked on: {}", counted(.0.len(), "rollup"), listed(.0))]
    Problems(Vec<Problem>),
    /// The budget was spent before every slice was marked to run again.
    #[error(
        "the budget was spent when {reopened} of {all} slices of rollup `{rollup}` had been \
         reopened, {next} was not; ask for fewer slices at a time",
        next = .next.id(rollup)
    )]
    NotReopened {
        /// The rollup.
        rollup: String,
        /// How many were; they are due now.
        reopened: usize,
        /// How many should have been.
        all: usize,
        /// The first that was not.
        next: Slice,
    },
}

impl HandleError {
    /// One word for it: Lambda's `errorType`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Event(_) => "EventNotUnderstood",
            Self::Work(error) => match error.severity() {
                Severity::Usage => "WrongUsage",
                Severity::Unreachable => "Unreachable",
                Severity::Failed => "Refused",
            },
            Self::Failed(_) => "SliceFailed",
            Self::Problems(_) => "RollupsFailed",
            Self::NotReopened { .. } => "BudgetSpent",
        }
    }

    /// Whether a server is out of reach: what comes next would fail in the same way.
    fn is_unreachable(&self) -> bool {
        matches!(self, Self::Work(error) if error.severity() == Severity::Unreachable)
    }
}

/// Does what `event` asks for, as far as it gets until `deadline`.
///
/// # Errors
/// The event was not understood, or what it asked for failed: the invocation is to be retried, and
/// then to reach a dead-letter queue.
pub async fn handle(
    worker: &Worker,
    event: Value,
    deadline: Deadline,
) -> Result<Value, HandleError> {
    match event::parse(&event)? {
        Trigger::Schedule { time } => schedule(worker, time, deadline).await,
        Trigger::Slice(request) => slice(worker, &request, deadline).await,
        Trigger::Batch(messages) => Ok(batch(worker, &messages, deadline).await),
        Trigger::Backfill(request) => backfill(worker, &request, deadline).await,
        Trigger::Replay(request) => replay(worker, &request, deadline).await,
    }
}

/// Works on what was due at the scheduled time, so that a late retry of an old event means what the
/// event meant. Slices that failed are no error: their checkpoints know when they are tried again.
async fn schedule(
    worker: &Worker,
    time: DateTime<Utc>,
    deadline: Deadline,
) -> Result<Value, HandleError> {
    let as_of = time.min(worker.clock.now());
    let mut report = worker.tick(as_of, deadline, None).await?;
    if !report.problems.is_empty() {
        return Err(HandleError::Problems(report.problems));
    }
    let mut outcomes = BTreeMap::<_, usize>::new();
    for slice in &report.slices {
        *outcomes.entry(slice.outcome.word()).or_default() += 1;
    }
    // A stable sort: within both kinds the order of work stays.
    report.slices.sort_by_key(SliceReport::is_success);
    let unlisted = truncate(&mut report.slices, LISTED_MAX);
    Ok(json!({
        "trigger": "schedule",
        "as_of": rfc3339(as_of),
        "outcomes": outcomes,
        "slices": report.slices,
        "unlisted": unlisted,
        "left": report.left,
        "held": report.held,
        "scrub": report.scrub,
    }))
}

/// Works on one slice.
async fn slice(
    worker: &Worker,
    request: &SliceRequest,
    deadline: Deadline,
) -> Result<Value, HandleError> {
    let report = run_requested(worker, request, deadline).await?;
    if report.outcome == Outcome::Failed {
        return Err(HandleError::Failed(Box::new(report)));
    }
    Ok(json!({ "trigger": "slice", "backfill": request.backfill, "slice": report }))
}

/// Works on one slice a message, and names those messages that must come back.
async fn batch(worker: &Worker, messages: &[Message], deadline: Deadline) -> Value {
    let mut back = Vec::new();
    let mut is_unreachable = false;
    for Message { id, request } in messages {
        if is_unreachable {
            back.push(id);
            continue;
        }
        let result = match request {
            Ok(request) => run_requested(worker, request, deadline).await,
            Err(error) => Err(error.clone().into()),
        };
        match result {
            Ok(report) if is_over(report.outcome) => {}
            Ok(_) => back.push(id),
            Err(error) => {
                is_unreachable = error.is_unreachable();
                tracing::error!(
                    message.id = id,
                    error.kind = error.kind(),
                    error = %error,
                    "message could not be worked on"
                );
                back.push(id);
            }
        }
    }
    let mut response = SqsBatchResponse::default();
    response.set_failures(back);
    json!(response)
}

/// Whether another delivery of the message could change nothing. An exhausted slice is remembered
/// by its checkpoint, and waits for a person.
const fn is_over(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Succeeded | Outcome::AlreadySucceeded | Outcome::Exhausted | Outcome::Sealed => {
            true
        }
        Outcome::Stale
        | Outcome::Yielded
        | Outcome::Failed
        | Outcome::Held
        | Outcome::Waiting
        | Outcome::Fenced => false,
    }
}

async fn run_requested(
    worker: &Worker,
    request: &SliceRequest,
    deadline: Deadline,
) -> Result<SliceReport, HandleError> {
    let rollup = known(worker, &request.rollup)?;
    let slice = begun(worker, rollup, &request.start)?;
    run_one(worker, rollup, slice, deadline, RunOptions::default()).await
}

/// Works on one slice, unless too little time is left to begin it.
async fn run_one(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    deadline: Deadline,
    options: RunOptions,
) -> Result<SliceReport, HandleError> {
    if deadline.remaining(&*worker.clock) < BEGIN_MIN {
        let reason = "too little time left to begin".to_owned();
        return Ok(SliceReport::refused(rollup, slice, Outcome::Yielded, reason, None).logged());
    }
    Ok(worker.run(rollup, slice, deadline, options).await?)
}

/// Works through a range until the budget is spent.
async fn backfill(
    worker: &Worker,
    request: &BackfillRequest,
    deadline: Deadline,
) -> Result<Value, HandleError> {
    let rollup = known(worker, &request.rollup)?;
    let from = event::instant_of(rollup, "from", &request.from)?;
    let to = match &request.to {
        Some(text) => event::instant_of(rollup, "to", text)?,
        None => worker.clock.now(),
    };
    let mut plan = worker.plan_backfill(rollup, from, to, request.order, request.force).await?;
    let reopen: Vec<_> =
        plan.slices.iter().copied().filter(|slice| plan.reopen.contains(slice)).collect();
    reopen_all(worker, rollup, &reopen, "backfill", deadline).await?;
    plan.reopen.clear();
    let options = RunOptions { backfill: Some(worker.clock.now()), ..RunOptions::default() };
    let report = work_through(worker, rollup, &plan, deadline, options).await?;
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

/// Works on slices again.
async fn replay(
    worker: &Worker,
    request: &ReplayRequest,
    deadline: Deadline,
) -> Result<Value, HandleError> {
    let rollup = known(worker, &request.rollup)?;
    let options = RunOptions { allow_shrink: request.allow_shrink, backfill: None };
    match &request.which {
        Which::Start(start) => {
            let slice = begun(worker, rollup, start)?;
            if !is_sealed(rollup, slice) {
                reopen(worker, rollup, slice, &request.reason).await?;
            }
            let report = run_one(worker, rollup, slice, deadline, options).await?;
            if report.outcome == Outcome::Failed {
                return Err(HandleError::Failed(Box::new(report)));
            }
            Ok(json!({ "trigger": "replay", "slice": report }))
        }
        Which::Failed => {
            let slices = failed(worker, rollup).await?;
            reopen_all(worker, rollup, &slices, &request.reason, deadline).await?;
            let plan = BackfillPlan { slices, ..BackfillPlan::default() };
            let report = work_through(worker, rollup, &plan, deadline, options).await?;
            let asked = json!({
                "trigger": "replay",
                "rollup": rollup.name,
                "reopened": plan.slices.len(),
            });
            Ok(batch_response(asked, report))
        }
    }
}

/// The slices that failed, the exhausted ones included, newest first.
async fn failed(worker: &Worker, rollup: &Rollup) -> Result<Vec<Slice>, HandleError> {
    let unfinished = worker.checkpoints.unfinished(&rollup.name).await.map_err(WorkError::from)?;
    let mut slices: Vec<_> = unfinished
        .iter()
        .filter(|checkpoint| checkpoint.state == State::Failed)
        // Checkpoints before `start`, or of another width that the rollup once had, are no slices.
        .filter_map(|checkpoint| rollup.calendar.starting(checkpoint.slice_start).ok())
        .filter(|slice| slice.start() >= rollup.start && !is_sealed(rollup, *slice))
        .collect();
    slices.sort_by(|one, other| other.cmp(one));
    Ok(slices)
}

/// Reopens all `slices` before any is worked on: those that the budget does not reach are due for
/// the schedule then.
async fn reopen_all(
    worker: &Worker,
    rollup: &Rollup,
    slices: &[Slice],
    reason: &str,
    deadline: Deadline,
) -> Result<(), HandleError> {
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
    let now = worker.clock.now();
    worker.checkpoints.reopen(&rollup.name, slice.start(), reason, now).await?;
    Ok(())
}

/// One slice after another: each invocation is one reader of the source.
async fn work_through(
    worker: &Worker,
    rollup: &Rollup,
    plan: &BackfillPlan,
    deadline: Deadline,
    options: RunOptions,
) -> Result<BatchReport, WorkError> {
    let budget = deadline.remaining(&*worker.clock);
    let limits = Limits::default();
    let batch = Batch { concurrency: 1, budget, deadline: Some(deadline), options, limits };
    // What was done has its lines in the log.
    worker.backfill(rollup, plan, batch, &Silent).await.map_err(|interrupted| *interrupted.error)
}

/// What was asked for, and what became of it.
fn batch_response(mut asked: Value, mut report: BatchReport) -> Value {
    let mut unlisted = truncate(&mut report.failed, LISTED_MAX);
    unlisted += truncate(&mut report.refused, LISTED_MAX - report.failed.len());
    if let (Value::Object(fields), Value::Object(report)) = (&mut asked, json!(report)) {
        fields.extend(report);
        fields.insert("unlisted".into(), unlisted.into());
    }
    asked
}

/// Keeps at most `max` and returns how many are gone.
fn truncate(reports: &mut Vec<SliceReport>, max: usize) -> usize {
    let gone = reports.len().saturating_sub(max);
    reports.truncate(max);
    gone
}

fn known<'w>(worker: &'w Worker, name: &str) -> Result<&'w Rollup, EventError> {
    Ok(worker.config.rollup(name)?)
}

/// The slice that starts at `text`, which lies in the past.
fn begun(worker: &Worker, rollup: &Rollup, text: &str) -> Result<Slice, EventError> {
    let slice = event::slice_of(rollup, text)?;
    if slice.start() > worker.clock.now() {
        let (rollup, start) = (rollup.name.clone(), slice.start());
        return Err(EventError::NotBegun { rollup, start });
    }
    Ok(slice)
}

fn is_sealed(rollup: &Rollup, slice: Slice) -> bool {
    rollup.seal_before.is_some_and(|seal| slice.start() < seal)
}

fn rfc3339(t: DateTime<Utc>) -> String {
    t.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn listed(problems: &[Problem]) -> String {
    problems.iter().map(|problem| problem.error.as_str()).collect::<Vec<_>>().join("; ")
}
