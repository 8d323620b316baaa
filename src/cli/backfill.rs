use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::ui::{self, Progress, counted, number};
use super::{Failure, Global, Range, parse_duration};
use crate::backfill::{BackfillPlan, Batch, BatchReport, Interrupted, Order};
use crate::clock::Stopwatch;
use crate::rollup::Rollup;
use crate::run::RunOptions;
use crate::worker::{Severity, WorkError};

/// Compute a range of slices, several at once.
#[derive(Debug, Args)]
pub struct Backfill {
    /// The rollup
    rollup: String,
    #[command(flatten)]
    range: Range,
    /// Which end of history comes first
    #[arg(long, value_enum, default_value_t = Direction::NewestFirst)]
    order: Direction,
    /// Recompute what succeeded already, too
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pace: Pace,
}

/// How fast a batch goes, for backfill and replay.
#[derive(Debug, Args)]
pub(super) struct Pace {
    /// Slices at once
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub concurrency: u32,
    /// Longest time for one slice before it yields and goes on; also how long a killed
    /// worker's lease holds
    #[arg(long, value_name = "DURATION", default_value = "1 minute", value_parser = parse_duration)]
    pub budget: Duration,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
}

impl Pace {
    pub(super) fn batch(&self, options: RunOptions) -> Batch {
        let concurrency = self.concurrency as usize;
        Batch { concurrency, budget: self.budget, deadline: None, options }
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

impl Backfill {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(self.pace.concurrency).await?;
        let rollup = worker.rollup(&self.rollup)?;
        let (from, to) = self.range.bounds(rollup, worker.clock.now())?;
        let plan = worker.plan_backfill(rollup, from, to, self.order.into(), self.force).await?;
        global.tell(describe(rollup, &plan));
        let watch = Stopwatch::start();
        if plan.slices.is_empty() {
            if global.json {
                ui::json(&document(rollup, &BatchReport::default(), None, watch));
            }
            return Ok(());
        }
        ui::confirm("Compute them?", self.pace.yes)?;
        let watch = Stopwatch::start();
        let progress = Progress::new(&rollup.name, plan.slices.len());
        let options = RunOptions { backfill: Some(worker.clock.now()), ..RunOptions::default() };
        let batch = self.pace.batch(options);
        let report = worker.backfill(rollup, &plan, batch, &progress).await;
        progress.finish();
        finish(global, rollup, report, watch)
    }
}

/// What a backfill would do.
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
        (plan.exhausted, "failed too often; `tallymark replay --failed` reopens them"),
        (plan.blocked, "wait for finer slices; backfill the finer rollup first"),
    ] {
        if count > 0 {
            text.push_str(&format!("\n  {} {what}", number(count as u64)));
        }
    }
    text
}

/// Prints what a batch did, and turns it into an exit code.
pub(super) fn finish(
    global: &Global,
    rollup: &Rollup,
    result: Result<BatchReport, Interrupted>,
    watch: Stopwatch,
) -> Result<(), Failure> {
    let (report, trouble) = match result {
        Ok(report) => (report, None),
        Err(Interrupted { report, error }) => (*report, Some(*error)),
    };
    let document = document(rollup, &report, trouble.as_ref(), watch);
    // Of a batch that could not even begin the error alone is said.
    if global.json || trouble.is_none() || report.succeeded > 0 || !report.failed.is_empty() {
        global.print(&document, || summary(&report, watch));
    }
    if let Some(error) = trouble {
        return Err(Failure::told(error.severity(), error.to_string()));
    }
    let Some(severity) = report.severity() else { return Ok(()) };
    let parts: Vec<String> = [
        (report.failed.len(), "failed"),
        (report.refused.len(), "could not be had"),
        (report.left, "left"),
    ]
    .iter()
    .filter(|(count, _)| *count > 0)
    .map(|(count, what)| format!("{} {what}", counted(*count, "slice")))
    .collect();
    let mut message = parts.join(", ");
    if let Some(first) = report.failed.iter().chain(&report.refused).next() {
        let reason = first.reason.as_deref().unwrap_or_default();
        message.push_str(&format!(
            "; the first, {}@{}: {reason}",
            first.rollup,
            ui::instant(first.start)
        ));
    }
    debug_assert_eq!(severity, Severity::Failed);
    Err(Failure::told(severity, message))
}

/// What `--json` prints of a batch.
pub(super) fn document(
    rollup: &Rollup,
    report: &BatchReport,
    trouble: Option<&WorkError>,
    watch: Stopwatch,
) -> serde_json::Value {
    json!({
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
        "elapsed_ms": u64::try_from(watch.elapsed().as_millis()).unwrap_or(u64::MAX),
        "error": trouble.map(ToString::to_string),
    })
}

fn summary(report: &BatchReport, watch: Stopwatch) -> String {
    format!(
        "{} succeeded in {}, {} of it in statements on the source\n  {} rows read\n  \
         {} groups: {} inserted, {} updated, {} deleted, {} unchanged",
        counted(report.succeeded, "slice"),
        ui::duration(watch.elapsed()),
        ui::duration(Duration::from_millis(report.source_ms)),
        number(report.rows_read),
        number(report.groups),
        number(report.inserted),
        number(report.updated),
        number(report.deleted),
        number(report.unchanged),
    )
}
