mod all;
mod foreseen;
mod remote;

use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::run::{AGAIN, billed};
use super::ui::{self, ProgressLine, counted, number};
use super::{Failure, Global, RangeArgs, Via, parse_duration};
use crate::config::Settings;
use crate::model::clock::{Deadline, Stopwatch, whole_ms};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::slice::Order;
use crate::work::backfill::{
    self, BackfillPlan, BatchLimits, BatchOptions, BatchReport, Interrupted,
};
use crate::work::estimate::{self, Estimate};
use crate::work::identity;
use crate::work::slice_run::RunOptions;
use crate::work::worker::{Severity, WorkError, Worker};

pub(super) use foreseen::{foreseen, foreseen_document};

/// Compute a range of slices, several concurrently, or let the deployed function do it.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct BackfillArgs {
    #[command(subcommand)]
    command: Option<remote::BackfillCommand>,
    /// The rollup
    #[arg(required_unless_present = "all")]
    rollup: Option<String>,
    /// All rollups, finer ones first
    #[arg(long, conflicts_with = "rollup")]
    all: bool,
    #[command(flatten)]
    range: RangeArgs,
    /// The end of history to start with
    #[arg(long, value_enum, default_value_t = Direction::NewestFirst)]
    order: Direction,
    /// Also recompute slices that already succeeded
    #[arg(long)]
    force: bool,
    /// Stop before reading more than this number of source rows
    #[arg(long, value_name = "N")]
    max_rows: Option<u64>,
    /// Stop after this many hours
    #[arg(long, value_name = "HOURS", value_parser = positive)]
    max_hours: Option<f64>,
    /// Stop before the cost on AWS, by list prices, exceeds this
    #[arg(long, value_name = "DOLLARS", value_parser = positive)]
    max_dollars: Option<f64>,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    via: Via,
}

/// The speed of a batch, for backfill and replay.
#[derive(Debug, Args)]
pub(super) struct PaceArgs {
    /// Number of concurrent slices. By default as many as `slots`, and 4 at full speed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=64))]
    concurrency: Option<u32>,
    /// Longest time for one slice before it yields and resumes. A killed worker's lease lasts as
    /// long
    #[arg(long, value_name = "DURATION", default_value = "1 minute", value_parser = parse_duration)]
    pub(crate) budget: Duration,
    /// Do not ask for confirmation
    #[arg(long, short)]
    pub(crate) yes: bool,
}

impl PaceArgs {
    /// A worker with room for its slices.
    pub(super) async fn worker(&self, global: &Global) -> Result<Worker, Failure> {
        let config = global.config()?;
        let concurrency = self.concurrency(&config.source.governor);
        global.worker_of(config, concurrency).await
    }

    fn concurrency(&self, settings: &Settings) -> u32 {
        self.concurrency.unwrap_or_else(|| settings.concurrency())
    }

    pub(super) fn batch(&self, settings: &Settings, options: RunOptions) -> BatchOptions {
        let concurrency = self.concurrency(settings) as usize;
        let limits = BatchLimits::default();
        BatchOptions { concurrency, budget: self.budget, deadline: None, options, limits }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Direction {
    NewestFirst,
    OldestFirst,
}

impl From<Direction> for Order {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::NewestFirst => Self::NewestFirst,
            Direction::OldestFirst => Self::OldestFirst,
        }
    }
}

impl BackfillArgs {
    pub(super) async fn run(mut self, global: &Global) -> Result<(), Failure> {
        if let Some(command) = self.command {
            return command.run(global).await;
        }
        if self.max_rows.is_some() || self.max_dollars.is_some() {
            // Slices that are under way when a limit is reached would go beyond it.
            self.pace.concurrency.get_or_insert(1);
        }
        if self.all {
            return all::run(self, global).await;
        }
        let worker = self.pace.worker(global).await?;
        self.refuse_idle_limit(&worker)?;
        let rollup = worker.rollup(self.rollup.as_deref().unwrap_or_default())?;
        let (from, to) = self.range.bounds(rollup, worker.clock.now())?;
        identity::refuse_other_places(&worker, rollup).await?;
        let plan = backfill::plan(&worker, rollup, from, to, self.order.into(), self.force).await?;
        let watch = Stopwatch::start();
        if plan.slices.is_empty() {
            global.announce(describe(rollup, &plan));
            if global.json {
                ui::json(&document(rollup, &BatchReport::default(), None, watch));
            }
            return Ok(());
        }
        let settings = worker.governor.settings();
        let mut estimate =
            estimate::estimate(&worker, rollup, &plan, self.pace.concurrency(settings)).await?;
        estimate.is_on_aws |= self.via.via.is_some();
        global.announce(format!("{}{}", describe(rollup, &plan), foreseen(&worker, &estimate)));
        ui::confirm("Compute them?", self.pace.yes)?;
        if let Some(function) = &self.via.via {
            let event = remote::event(rollup, (from, to), self.order.into(), self.force);
            return remote::send(&worker, function, rollup, &event).await?.print(global);
        }
        let watch = Stopwatch::start();
        let progress = ProgressLine::new(&rollup.name, plan.slices.len());
        let options = RunOptions { backfill: Some(worker.clock.now()), ..RunOptions::default() };
        let limits = BatchLimits { rows: self.max_rows, dollars: self.max_dollars };
        let deadline = self.deadline(&worker);
        let batch = BatchOptions { limits, deadline, ..self.pace.batch(settings, options) };
        let work = backfill::run(&worker, rollup, &plan, batch, &progress);
        let report = progress.during(&worker.governor, work).await;
        progress.finish();
        finish(global, rollup, report, watch, Some(&estimate))
    }
}

impl BackfillArgs {
    /// When all work ends.
    fn deadline(&self, worker: &Worker) -> Option<Deadline> {
        let time = |hours: f64| Duration::from_secs_f64((hours * 3600.0).min(1e9));
        self.max_hours.map(|hours| Deadline::after(&*worker.clock, time(hours)))
    }

    /// Refuses a limit in dollars where AWS has no part in the work, as it would never be reached.
    fn refuse_idle_limit(&self, worker: &Worker) -> Result<(), Failure> {
        let is_idle = self.max_dollars.is_some() && self.via.via.is_none();
        if !is_idle || !worker.checkpoints.is_in_target() {
            return Ok(());
        }
        let fault = Fault::new(
            "--max-dollars: AWS charges nothing for a backfill in this process with store = \"postgres\"",
        );
        Err(Failure::usage(fault.remedy("limit it by --max-rows or --max-hours")))
    }
}

/// Reads a number above 0.
fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("write a number above 0".to_owned()),
    }
}

/// The plan of a backfill.
pub(super) fn describe(rollup: &Rollup, plan: &BackfillPlan) -> String {
    let label = |at| rollup.calendar.label(&rollup.calendar.containing(at));
    let mut text = format!(
        "backfill of {} from {} to {}, slices of {}\n  {} to compute",
        rollup.name,
        label(plan.from),
        label(plan.to),
        rollup.calendar.width(),
        number(plan.slices.len() as u64),
    );
    for (count, what) in [
        (plan.reopen.len(), "succeeded before and run again"),
        (plan.done, "succeeded already, left alone"),
        (plan.empty, "before the source's first row, cost nothing"),
        (plan.sealed, "before seal_before, never recomputed"),
        (plan.adopted, "taken over from another table, never recomputed"),
        (plan.exhausted, "failed too often; `tallymark replay --failed` reopens them"),
        (plan.blocked, "wait for finer slices; backfill the finer rollup first"),
    ] {
        if count > 0 {
            text.push_str(&format!("\n  {} {what}", number(count as u64)));
        }
    }
    text
}

/// Prints a batch's result and turns it into an exit code.
pub(super) fn finish(
    global: &Global,
    rollup: &Rollup,
    result: Result<BatchReport, Interrupted>,
    watch: Stopwatch,
    estimate: Option<&Estimate>,
) -> Result<(), Failure> {
    let (report, trouble) = match result {
        Ok(report) => (report, None),
        Err(Interrupted { report, error }) => (*report, Some(*error)),
    };
    let mut document = document(rollup, &report, trouble.as_ref(), watch);
    document["estimate"] = estimate.map_or(serde_json::Value::Null, foreseen_document);
    // For a batch that could not start, print only the error.
    if global.json || trouble.is_none() || report.succeeded > 0 || !report.failed.is_empty() {
        global.print(&document, || summary(&report, watch, estimate));
    }
    if let Some(error) = trouble {
        return Err(Failure::printed(error.severity(), Fault::of(&error)));
    }
    let has_failed = !report.failed.is_empty() || !report.refused.is_empty();
    if global.interrupt.is_raised() && !has_failed {
        // The rest is reported with the signal.
        return Ok(());
    }
    let Some(severity) = report.severity() else { return Ok(()) };
    debug_assert_eq!(severity, Severity::Failed);
    Err(Failure::printed(severity, shortfall(&report)))
}

/// What a batch left undone, and the remedy.
fn shortfall(report: &BatchReport) -> Fault {
    let parts: Vec<String> = [
        (report.failed.len(), "failed"),
        (report.refused.len(), "could not be claimed"),
        (report.left, "left"),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", counted(*count, "slice")))
    .collect();
    let mut message = parts.join(", ");
    if let Some(why) = &report.stopped {
        message.push_str(&format!(": {why}"));
    }
    let first = report.failed.iter().chain(&report.refused).next();
    if let Some(first) = first {
        let reason = first.reason.as_deref().unwrap_or_default();
        message.push_str(&format!(
            "; the first, {}@{}: {reason}",
            first.rollup,
            ui::instant(first.start)
        ));
    }
    let remedy = match first {
        Some(first) => first.hint.as_deref().unwrap_or(AGAIN),
        None => CONTINUE,
    };
    Fault::new(message).remedy(remedy)
}

/// The remedy of a batch that left slices.
const CONTINUE: &str = "run the same command again, which goes on where this one stopped";

/// The JSON document of a batch.
pub(super) fn document(
    rollup: &Rollup,
    report: &BatchReport,
    trouble: Option<&WorkError>,
    watch: Stopwatch,
) -> serde_json::Value {
    let mut document = json!({
        "rollup": rollup.name,
        "succeeded": report.succeeded,
        "failed": report.failed,
        "refused": report.refused,
        "left": report.left,
        "rows_read": report.rows_read,
        "groups": report.groups,
        "inserted": report.inserted,
        "updated": report.updated,
        "deleted": report.deleted,
        "unchanged": report.unchanged,
        "source_ms": report.source_ms,
        "stopped": report.stopped,
        "elapsed_ms": whole_ms(watch.elapsed()),
        "error": trouble.map(ToString::to_string),
        "estimate": null,
    });
    if let Some(units) = report.workload_units {
        document["workload_units"] = json!(units);
    }
    document
}

/// Compares the result with the estimate, if all was done.
fn summary(report: &BatchReport, watch: Stopwatch, estimate: Option<&Estimate>) -> String {
    let estimate = estimate.filter(|_| report.severity().is_none());
    let ms = |ms| ui::duration(Duration::from_millis(ms));
    let beside = |text: &dyn Fn(&Estimate) -> String| {
        estimate.map_or_else(String::new, |estimate| format!(" (about {})", text(estimate)))
    };
    let billed = report.workload_units.map_or_else(String::new, |units| {
        let about = |it: &Estimate| it.workload_units.unwrap_or_default().to_string();
        format!("\n  {}{}", billed(units), beside(&about))
    });
    format!(
        "{} succeeded in {}{}, {}{} of it in statements on the source\n  {} rows read{}\n  \
         {} groups: {} inserted, {} updated, {} deleted, {} unchanged{billed}",
        counted(report.succeeded, "slice"),
        ui::duration(watch.elapsed()),
        beside(&|it| ms(it.elapsed_ms)),
        ms(report.source_ms),
        beside(&|it| ms(it.source_ms)),
        number(report.rows_read),
        beside(&|it| number(it.rows)),
        number(report.groups),
        number(report.inserted),
        number(report.updated),
        number(report.deleted),
        number(report.unchanged),
    )
}
