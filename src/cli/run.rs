use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::json;

use super::{Failure, Global, Via, parse_duration, slice_starting, ui, verify, via};
use crate::clients::bubble::Units;
use crate::model::clock::{Deadline, Stopwatch};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::target::DeletedSlices;
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notices;
use crate::telemetry::otlp::Exporter;
use crate::telemetry::totals::Totals;
use crate::work::report::{NextDue, Outcome, ScrubReport, SliceReport, TickReport};
use crate::work::slice_run;
use crate::work::worker::{Severity, Worker};

/// Work on the slices that are due now: one tick, in this process.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Only this rollup
    rollup: Option<String>,
    /// Work on this slice only, if it has not succeeded
    #[arg(long, value_name = "START", requires = "rollup")]
    slice: Option<String>,
    /// Plan as of this instant
    #[arg(long, value_name = "TIME", conflicts_with = "slice")]
    at: Option<DateTime<Utc>>,
    /// Time limit of the tick; the next one continues with the rest
    #[arg(long, value_name = "DURATION", default_value = "5 minutes", value_parser = parse_duration)]
    budget: Duration,
    #[command(flatten)]
    via: Via,
}

impl RunArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let rollup = self.rollup.as_deref().map(|name| worker.rollup(name)).transpose()?;
        if let Some(function) = &self.via.via {
            let event = match (rollup, &self.slice) {
                (Some(rollup), Some(start)) => {
                    let start =
                        ui::instant(slice_starting(rollup, start, worker.clock.now())?.start());
                    json!({ "trigger": "slice", "rollup": rollup.name, "start": start })
                }
                (None, None) => {
                    let time = self.at.unwrap_or_else(|| worker.clock.now());
                    json!({ "trigger": "schedule", "time": ui::instant(time) })
                }
                _ => {
                    let fault = Fault::new("a function's tick is for all rollups");
                    return Err(Failure::usage(
                        fault.remedy("leave ROLLUP out, or name a --slice"),
                    ));
                }
            };
            let answer = via::invoke(function, &event).await?;
            global.print(&answer, || answered(&answer, worker.clock.now()));
            return via::ended(&[answer]);
        }
        let report = self.tick(&worker, rollup).await?;
        global.print(&report, || text(&report, worker.clock.now()));
        match report.severity() {
            None => Ok(()),
            Some(Severity::Failed) if report.problems.is_empty() => Err(Failure::printed(
                Severity::Failed,
                Fault::new(format!("{}, as said above", wrong(&report))).remedy(FAILED),
            )),
            Some(severity) => Err(Failure::printed(severity, problems(&report))),
        }
    }

    /// Works on what was asked for, and sends its metrics where the environment names a receiver.
    async fn tick(&self, worker: &Worker, rollup: Option<&Rollup>) -> Result<TickReport, Failure> {
        let clock = &*worker.clock;
        let (began_at, watch) = (clock.now(), Stopwatch::start());
        let slice = match (rollup, &self.slice) {
            (Some(rollup), Some(start)) => Some((rollup, slice_starting(rollup, start, began_at)?)),
            _ => None,
        };
        let deadline = Deadline::after(clock, self.budget);
        let exporter = Exporter::of_one_tick(began_at);
        let work_until =
            exporter.as_ref().map_or(deadline, |exporter| exporter.reserve(clock, deadline));
        let ended = match slice {
            Some((rollup, slice)) => one_slice(worker, rollup, slice, work_until).await,
            None => {
                let now = self.at.unwrap_or(began_at);
                notices::tick(worker, now, work_until, rollup).await.map_err(Failure::from)
            }
        };
        if let Some(exporter) = exporter {
            let metrics = ended.as_ref().ok().map(|report| match rollup {
                None => Metrics::of_tick(report),
                // The state of one rollup is not that of all.
                Some(_) => Metrics::of_slices(&report.slices),
            });
            let is_good = ended.as_ref().is_ok_and(|report| report.problems.is_empty());
            let mut totals = Totals::default();
            totals.add(metrics.as_ref(), is_good, began_at, watch.elapsed());
            let samples = totals.samples();
            tokio::select! {
                // A worker that is to stop leaves the metrics out.
                () = worker.interrupt.raised() => {}
                () = exporter.send(clock, &samples, deadline.remaining(clock)) => {}
            }
        }
        ended
    }
}

/// Works on this slice, as a tick of its own.
async fn one_slice(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    deadline: Deadline,
) -> Result<TickReport, Failure> {
    let report = slice_run::run_named(worker, rollup, slice, deadline).await?;
    let workload_units = report.workload_units;
    Ok(TickReport { slices: vec![report], workload_units, ..TickReport::default() })
}

/// The remedy of a report with slices that failed or differ.
pub(super) const FAILED: &str = "put the cause right; the next tick tries a failed slice again, and \
    `tallymark verify --repair` recomputes one that differs";

/// The remedy of a command that ended with a failed slice which names none.
pub(super) const AGAIN: &str = "put the cause right, and run the command again";

/// The problems, and their remedies: a line each.
fn problems(report: &TickReport) -> Fault {
    let lines = |line: fn(&crate::work::report::RollupProblem) -> Option<&str>| {
        let mut lines: Vec<&str> = report.problems.iter().filter_map(line).collect();
        lines.dedup();
        lines.join("\n")
    };
    let fault = Fault::new(lines(|problem| Some(&problem.error)));
    fault
        .remedy_if_known(Some(lines(|problem| problem.hint.as_deref())).filter(|it| !it.is_empty()))
}

/// A summary of failures and differences.
fn wrong(report: &TickReport) -> String {
    let failed = report.slices.iter().filter(|slice| slice.outcome == Outcome::Failed).count();
    [(failed, "failed"), (report.scrub.differing, "found to differ from the source")]
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{} {what}", ui::counted(*count, "slice")))
        .collect::<Vec<_>>()
        .join(", ")
}

fn text(report: &TickReport, now: DateTime<Utc>) -> String {
    let mut parts = Vec::new();
    let deleted = report.kept_away;
    let has_deleted = deleted != DeletedSlices::default();
    let has_worked = !report.slices.is_empty() || report.left > 0 || has_deleted;
    if !has_worked && report.scrub.is_nothing() {
        let is_known = report.problems.iter().all(|problem| problem.is_alarm);
        let nothing = if is_known { "nothing is due" } else { "nothing was done" };
        parts.push(nothing.to_owned());
    }
    if !report.slices.is_empty() {
        parts.push(slices(&report.slices));
    }
    for held in &report.held {
        let fault = Fault::of(&held.not_now).at(format!("{} is held back", held.rollup));
        parts.push(ui::hinted(&fault, 2));
    }
    if report.left > 0 {
        let more = if report.slices.is_empty() { "slice" } else { "more slice" };
        parts.push(format!("{} due and left to the next tick", ui::counted(report.left, more)));
    }
    parts.extend(scrub(&report.scrub));
    if has_deleted {
        let (slices, rows) = (ui::number(deleted.slices), ui::number(deleted.rows));
        parts.push(format!("keep: {rows} rows of {slices} old slices deleted"));
    }
    parts.extend(report.next_due.as_ref().and_then(|next| due_next(next, now)));
    parts.extend(report.workload_units.filter(|units| *units > Units::default()).map(billed));
    parts.join("\n")
}

/// What a function's tick has done, and when work comes next.
fn answered(answer: &serde_json::Value, now: DateTime<Utc>) -> String {
    let next = serde_json::from_value(answer["next_due"].clone()).ok();
    let next = next.and_then(|next| due_next(&next, now));
    [via::text(answer)].into_iter().chain(next).collect::<Vec<_>>().join("\n")
}

/// When work comes next. `None`: the report says already that slices were left.
fn due_next(NextDue { rollup, at }: &NextDue, now: DateTime<Utc>) -> Option<String> {
    let when = match (*at - now).to_std() {
        Ok(wait) if !wait.is_zero() => format!("{}, in {}", ui::instant(*at), ui::duration(wait)),
        _ => "now".to_owned(),
    };
    rollup.as_ref().map(|rollup| format!("next due: {rollup}, {when}"))
}

/// What an app has billed for a command.
pub(super) fn billed(units: Units) -> String {
    format!("{units} billed by the app, by the prices of Bubble's manual")
}

/// The result of the scrub, if it verified any slice.
fn scrub(report: &ScrubReport) -> Vec<String> {
    let ScrubReport { verified, differing, drifted, passed_over } = report;
    let mut lines: Vec<String> =
        drifted.iter().flat_map(|drifted| verify::difference(&drifted.found)).collect();
    lines.extend(verify::not_compared(passed_over));
    let reopened = drifted.iter().filter(|drifted| drifted.reopened).count();
    if *verified > 0 {
        let differ = if *differing == 1 { "differs" } else { "differ" };
        let mut line = format!("scrub: {} verified, ", ui::counted(*verified, "slice"));
        line.push_str(&format!("{} {differ}", ui::count(*differing)));
        if reopened > 0 {
            line.push_str(&format!(", {} reopened", ui::count(reopened)));
        }
        lines.push(line);
    }
    lines
}

/// The slices of a tick or batch as a table with a limited number of lines.
pub(super) fn slices(reports: &[SliceReport]) -> String {
    const LINES_MAX: usize = 20;
    let rows: Vec<Vec<String>> = reports
        .iter()
        .take(LINES_MAX)
        .map(|report| {
            let none = crate::checkpoint::Completion::default();
            let done = report.completion.as_ref().unwrap_or(&none);
            vec![
                named(&report.rollup, report.start),
                report.outcome.word().replace('_', " "),
                ui::number(done.rows_read),
                ui::number(done.groups),
                ui::number(done.inserted + done.updated + done.deleted),
            ]
        })
        .collect();
    let heading = ["slice", "outcome", ">rows", ">groups", ">rewritten"];
    let mut text = ui::table(&heading, &rows);
    if reports.len() > LINES_MAX {
        text.push_str(&format!("\n… and {}", ui::counted(reports.len() - LINES_MAX, "more slice")));
    }
    for report in reports.iter().filter(|report| !report.is_success()).take(LINES_MAX) {
        let reason = report.reason.as_deref().unwrap_or_default();
        let line = format!("{}: {reason}", named(&report.rollup, report.start));
        text.push('\n');
        text.push_str(&ui::wrapped(&line, 2));
        if let Some(hint) = &report.hint {
            text.push('\n');
            text.push_str(&ui::below(hint, 2));
        }
    }
    text
}

/// A slice's name, in the common form: `entity_daily@2026-02-10T00:00:00Z`.
pub(super) fn named(rollup: &str, start: DateTime<Utc>) -> String {
    format!("{rollup}@{}", ui::instant(start))
}

/// The JSON of a slice that is only named.
pub(super) fn name(rollup: &str, start: DateTime<Utc>) -> serde_json::Value {
    json!(named(rollup, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_functions_tick_the_next_work_is_named() {
        let now = DateTime::from_timestamp(1_770_854_280, 0).unwrap();
        let answer = |next: serde_json::Value| json!({ "slices": [], "left": 0, "next_due": next });
        let next = json!({ "rollup": "daily", "at": "2026-02-12T00:02:00Z" });
        let said = "nothing is due\nnext due: daily, 2026-02-12T00:02:00Z, in 4 min 0 s";
        assert_eq!(answered(&answer(next), now), said);
        assert_eq!(answered(&answer(serde_json::Value::Null), now), "nothing is due");
    }
}
