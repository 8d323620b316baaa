//! A backfill of all rollups: one plan, one price, one question, and finer rollups first.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    BackfillArgs, CONTINUE, document, foreseen, foreseen_document, remote, shortfall, summary,
};
use crate::cli::ui::{self, ProgressLine, counted, number};
use crate::cli::{Failure, Global};
use crate::model::clock::{Deadline, Stopwatch};
use crate::model::hint::{Fault, Hinted as _};
use crate::model::rollup::Rollup;
use crate::work::backfill::{
    self, BackfillPlan, BatchLimits, BatchOptions, BatchReport, Interrupted,
};
use crate::work::estimate::{self, Estimate};
use crate::work::identity;
use crate::work::slice_run::RunOptions;
use crate::work::worker::{Severity, WorkError, Worker};

/// One rollup's part.
struct Part<'r> {
    rollup: &'r Rollup,
    range: (DateTime<Utc>, DateTime<Utc>),
    plan: BackfillPlan,
    estimate: Estimate,
}

/// What one rollup's part came to.
struct Done<'r> {
    rollup: &'r Rollup,
    report: BatchReport,
    error: Option<WorkError>,
    document: Value,
}

/// Computes what all rollups lack.
pub(super) async fn run(args: BackfillArgs, global: &Global) -> Result<(), Failure> {
    let worker = args.pace.worker(global).await?;
    args.refuse_idle_limit(&worker)?;
    let parts = parts(&args, &worker).await?;
    let estimates: Vec<_> = parts.iter().map(|part| part.estimate.clone()).collect();
    let total = estimate::together(&worker, &estimates);
    let Some(mut total) = total else {
        let rollups = counted(worker.config.rollups.len(), "rollup");
        global.announce(format!("backfill of {rollups}: nothing to compute"));
        if global.json {
            ui::json(&json!({ "rollups": [], "estimate": null, "error": null }));
        }
        return Ok(());
    };
    total.is_on_aws |= args.via.via.is_some();
    global.announce(plan_text(&worker, &parts, &total));
    ui::confirm("Compute them?", args.pace.yes)?;
    if let Some(function) = &args.via.via {
        return through(&args, global, &worker, function, &parts, &total).await;
    }
    let deadline = args.deadline(&worker);
    let mut done = Vec::new();
    for part in &parts {
        let stops = |it: &Done<'_>| it.error.is_some() || it.report.stopped.is_some();
        let is_over = deadline.is_some_and(|it| it.remaining(&*worker.clock).is_zero());
        if global.interrupt.is_raised() || is_over || done.last().is_some_and(stops) {
            break;
        }
        let Some(limits) = left_of(&args, &done) else { break };
        done.push(one(&args, global, &worker, part, limits, deadline).await?);
    }
    let error = done.iter().find_map(|it| it.error.as_ref());
    if global.json {
        let documents: Vec<_> = done.iter().map(|it| &it.document).collect();
        let error = error.map(ToString::to_string);
        let estimate = foreseen_document(&total);
        ui::json(&json!({ "rollups": documents, "estimate": estimate, "error": error }));
    }
    end(global, &parts, &done)
}

/// Lets the function do one backfill after the other, until one of them fails.
async fn through(
    args: &BackfillArgs,
    global: &Global,
    worker: &Worker,
    function: &str,
    parts: &[Part<'_>],
    total: &Estimate,
) -> Result<(), Failure> {
    let (mut documents, mut result) = (Vec::new(), Ok(()));
    for Part { rollup, range, .. } in parts {
        let event = remote::event(rollup, *range, args.order.into(), args.force);
        let ended = remote::send(worker, function, rollup, &event).await?;
        if !global.json {
            ui::print(format!("{}: {}", rollup.name, ended.text));
        }
        documents.push(ended.document);
        result = ended.result;
        if result.is_err() {
            break;
        }
    }
    if global.json {
        let estimate = foreseen_document(total);
        ui::json(&json!({ "rollups": documents, "estimate": estimate, "error": null }));
    }
    result
}

/// The rollups with slices to compute, finer ones first.
async fn parts<'w>(args: &BackfillArgs, worker: &'w Worker) -> Result<Vec<Part<'w>>, Failure> {
    let mut rollups: Vec<_> = worker.config.rollups.iter().collect();
    rollups.sort_by_key(|rollup| rollup.depth());
    let now = worker.clock.now();
    let concurrency = args.pace.concurrency(worker.governor.settings());
    let mut parts = Vec::new();
    for rollup in rollups {
        identity::refuse_other_places(worker, rollup).await?;
        let (from, to) = args.range.bounds(rollup, now)?;
        // One range is for all, whose histories begin at different times.
        let range = (from.max(rollup.start), to);
        if range.0 >= range.1 {
            continue;
        }
        let order = args.order.into();
        let plan =
            backfill::plan_once_finer_is_done(worker, rollup, range, order, args.force).await?;
        if !plan.slices.is_empty() {
            let estimate = estimate::alone(worker, rollup, &plan, concurrency).await?;
            parts.push(Part { rollup, range, plan, estimate });
        }
    }
    Ok(parts)
}

/// The plan and the price of all of it.
fn plan_text(worker: &Worker, parts: &[Part<'_>], total: &Estimate) -> String {
    let rows: Vec<Vec<String>> = parts
        .iter()
        .map(|part| {
            let label = |at| part.rollup.calendar.label(&part.rollup.calendar.containing(at));
            vec![
                part.rollup.name.clone(),
                number(part.plan.slices.len() as u64),
                number(part.estimate.rows),
                ui::duration(std::time::Duration::from_millis(part.estimate.elapsed_ms)),
                label(part.range.0),
            ]
        })
        .collect();
    let heading = ["rollup", ">slices", ">rows about", ">time about", "from"];
    let billed = total.workload_units;
    let billed = billed.map_or_else(String::new, |it| format!("\n  about {it} billed by the app"));
    format!(
        "backfill of {}, {} to compute, finer rollups first\n{}{}{billed}",
        counted(parts.len(), "rollup"),
        counted(total.slices, "slice"),
        ui::table(&heading, &rows),
        foreseen(worker, &Estimate { workload_units: None, ..total.clone() }),
    )
}

/// What is left of the limits. `None`: one of them is reached.
fn left_of(args: &BackfillArgs, done: &[Done<'_>]) -> Option<BatchLimits> {
    let rows_read: u64 = done.iter().map(|it| it.report.rows_read).sum();
    let rows = match args.max_rows {
        Some(max) => Some(max.checked_sub(rows_read).filter(|left| *left > 0)?),
        None => None,
    };
    let spent: f64 = done.iter().map(|it| it.report.dollars()).sum();
    let dollars = match args.max_dollars {
        Some(max) => Some(Some(max - spent).filter(|left| *left > 0.0)?),
        None => None,
    };
    Some(BatchLimits { rows, dollars })
}

/// Computes the slices of one rollup. The plan is made again, as finer slices are done now.
async fn one<'r>(
    args: &BackfillArgs,
    global: &Global,
    worker: &Worker,
    part: &Part<'r>,
    limits: BatchLimits,
    deadline: Option<Deadline>,
) -> Result<Done<'r>, Failure> {
    let Part { rollup, range: (from, to), estimate, .. } = part;
    let watch = Stopwatch::start();
    let plan = backfill::plan(worker, rollup, *from, *to, args.order.into(), args.force).await?;
    let progress = ProgressLine::new(&rollup.name, plan.slices.len());
    let options = RunOptions { backfill: Some(worker.clock.now()), ..RunOptions::default() };
    let settings = worker.governor.settings();
    let batch = BatchOptions { limits, deadline, ..args.pace.batch(settings, options) };
    let work = backfill::run(worker, rollup, &plan, batch, &progress);
    let result = progress.during(&worker.governor, work).await;
    progress.finish();
    let (report, error) = match result {
        Ok(report) => (report, None),
        Err(Interrupted { report, error }) => (*report, Some(*error)),
    };
    let mut document = document(rollup, &report, error.as_ref(), watch);
    document["estimate"] = foreseen_document(estimate);
    document["blocked"] = plan.blocked.into();
    if !global.json {
        let mut text = format!("{}: {}", rollup.name, summary(&report, watch, Some(estimate)));
        if plan.blocked > 0 {
            let blocked = counted(plan.blocked, "slice");
            text.push_str(&format!("\n  {blocked} wait for finer slices"));
        }
        ui::print(text);
    }
    Ok(Done { rollup, report, error, document })
}

/// The exit code, and how to go on.
fn end(global: &Global, parts: &[Part<'_>], done: &[Done<'_>]) -> Result<(), Failure> {
    if let Some(error) = done.iter().find_map(|it| it.error.as_ref()) {
        return Err(Failure::printed(error.severity(), Fault::of(error)));
    }
    let failed = |it: &&Done<'_>| !it.report.failed.is_empty() || !it.report.refused.is_empty();
    if global.interrupt.is_raised() && !done.iter().any(|it| failed(&it)) {
        // The rest is reported with the signal.
        return Ok(());
    }
    let mut faults: Vec<_> = done
        .iter()
        .filter(|it| it.report.severity().is_some())
        .map(|it| shortfall(&it.report).at(&it.rollup.name))
        .collect();
    let begun = |part: &&Part<'_>| done.iter().any(|it| it.rollup.name == part.rollup.name);
    let waiting: Vec<_> =
        parts.iter().filter(|part| !begun(part)).map(|part| &*part.rollup.name).collect();
    if !waiting.is_empty() {
        let fault = Fault::new(format!("not begun: {}", waiting.join(", ")));
        faults.push(fault.remedy(CONTINUE));
    }
    let Some(first) = faults.first() else { return Ok(()) };
    let hint = first.hint().map(std::borrow::Cow::into_owned);
    let facts = faults.iter().map(Fault::facts).collect::<Vec<_>>().join("; ");
    Err(Failure::printed(Severity::Failed, Fault::new(facts).remedy_if_known(hint)))
}
