use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::json;

use super::{Failure, Global, parse_duration, slice_starting, ui};
use crate::clock::Deadline;
use crate::report::{Outcome, SliceReport};
use crate::run::RunOptions;
use crate::tick::TickReport;
use crate::worker::Severity;

/// Work on what is due now: one tick, in this process.
#[derive(Debug, Args)]
pub struct Run {
    /// Only this rollup
    rollup: Option<String>,
    /// Work on this slice only, if it has not succeeded
    #[arg(long, value_name = "START", requires = "rollup")]
    slice: Option<String>,
    /// Plan as if it were this instant
    #[arg(long, value_name = "TIME", conflicts_with = "slice")]
    at: Option<DateTime<Utc>>,
    /// When the tick ends; what is left over waits for the next one
    #[arg(long, value_name = "DURATION", default_value = "5 minutes", value_parser = parse_duration)]
    budget: Duration,
}

impl Run {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let rollup = self.rollup.as_deref().map(|name| worker.rollup(name)).transpose()?;
        let deadline = Deadline::after(&*worker.clock, self.budget);
        let report = if let (Some(rollup), Some(start)) = (rollup, &self.slice) {
            let slice = slice_starting(rollup, start)?;
            let report = worker.run(rollup, slice, deadline, RunOptions::default()).await?;
            TickReport { slices: vec![report], ..TickReport::default() }
        } else {
            let now = self.at.unwrap_or_else(|| worker.clock.now());
            worker.tick(now, deadline, rollup).await?
        };
        global.print(&report, || text(&report));
        let reason = || report.problems.iter().map(|problem| problem.error.clone());
        match report.severity() {
            None => Ok(()),
            Some(Severity::Failed) if report.problems.is_empty() => {
                let failed = report.slices.iter().filter(|slice| slice.outcome == Outcome::Failed);
                Err(Failure::told(
                    Severity::Failed,
                    format!("{} failed", ui::counted(failed.count(), "slice")),
                ))
            }
            Some(severity) => Err(Failure::told(severity, reason().collect::<Vec<_>>().join("\n"))),
        }
    }
}

fn text(report: &TickReport) -> String {
    if report.slices.is_empty() && report.left == 0 {
        return "nothing is due".into();
    }
    let mut text = slices(&report.slices);
    if report.left > 0 {
        text.push_str(&format!(
            "\n{} due and left to the next tick",
            ui::counted(report.left, "more slice")
        ));
    }
    text
}

/// The slices of a tick or batch as a table, at most so many lines of it.
pub(super) fn slices(reports: &[SliceReport]) -> String {
    const LINES_MAX: usize = 20;
    let rows: Vec<Vec<String>> = reports
        .iter()
        .take(LINES_MAX)
        .map(|report| {
            let none = crate::checkpoint::Completion::default();
            let done = report.completion.as_ref().unwrap_or(&none);
            vec![
                format!("{}@{}", report.rollup, ui::instant(report.start)),
                report.outcome.word().replace('_', " "),
                ui::number(done.rows_read),
                ui::number(done.groups),
                ui::number(done.inserted + done.updated + done.deleted),
                report.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    let heading = ["slice", "outcome", ">rows", ">groups", ">rewritten", ""];
    let mut text = ui::table(&heading, &rows);
    if reports.len() > LINES_MAX {
        text.push_str(&format!("\n… and {}", ui::counted(reports.len() - LINES_MAX, "more slice")));
    }
    text
}

/// What `--json` prints for a slice that is only named.
pub(super) fn name(rollup: &str, start: DateTime<Utc>) -> serde_json::Value {
    json!(format!("{rollup}@{}", ui::instant(start)))
}
