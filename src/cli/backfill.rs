use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::ui::{self, Progress, counted, number};
use super::{Failure, Global, Range, parse_duration};
use crate::backfill::{BackfillPlan, Batch, BatchReport, Order};
use crate::clock::Stopwatch;
use crate::rollup::Rollup;
use crate::run::RunOptions;
use crate::worker::Severity;

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
        if !global.json {
            ui::say(describe(rollup, &plan));
        }
        if plan.slices.is_empty() {
            if global.json {
                ui::json(&BatchReport::default());
            }
            return Ok(());
        }
        ui::confirm("Compute them?", self.pace.yes || global.json)?;
        let watch = Stopwatch::start();
        let progress = Progress::new(&rollup.name, plan.slices.len());
        let batch = self.pace.batch(RunOptions::default());
        let report = worker.backfill(rollup, &plan, batch, &progress).await;
        progress.finish();
        finish(global, rollup, &report?, watch)
    }
}

/// What a backfill would do.
pub(super) fn describe(rollup: &Rollup, plan: &BackfillPlan) -> String {
    let label = |at| rollup.calendar.label(&rollup.calendar.containing(at));
    let mut text = format!(
        "backfill of {} from {} to {}: {} of {} to compute",
        rollup.name,
        label(plan.from),
        label(plan.to),
        counted(plan.slices.len(), "slice"),
        rollup.calendar.width(),
    );
    for (count, what) in [
        (plan.reopen.len(), "succeeded before and run again"),
        (plan.done, "succeeded already, left alone"),
        (plan.sealed, "before seal_before, never recomputed"),
        (plan.exhausted, "failed too often; `tallymark replay --failed` reopens them"),
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
    report: &BatchReport,
    watch: Stopwatch,
) -> Result<(), Failure> {
    let document = json!({
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
    });
    global.print(&document, || summary(report, watch));
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

fn summary(report: &BatchReport, watch: Stopwatch) -> String {
    format!(
        "{} succeeded in {}: {} rows read, {} groups ({} inserted, {} updated, {} deleted, {} \
         unchanged), {} of statements on the source",
        counted(report.succeeded, "slice"),
        ui::duration(watch.elapsed()),
        number(report.rows_read),
        number(report.groups),
        number(report.inserted),
        number(report.updated),
        number(report.deleted),
        number(report.unchanged),
        ui::duration(Duration::from_millis(report.source_ms)),
    )
}
