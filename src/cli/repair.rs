use std::collections::BTreeSet;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::remote::{self, Remote};
use super::{Failure, Global, Via, rollups, ui};
use crate::check::repair;
use crate::model::hint::Fault;
use crate::work::worker::Severity;

/// Rebuild lost checkpoints from the target's markers.
#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct RepairArgs {
    /// Only this rollup
    rollup: Option<String>,
    /// Print the repairs, but change nothing
    #[arg(long)]
    #[serde(default)]
    dry_run: bool,
    #[command(flatten)]
    #[serde(skip)]
    via: Via,
}

impl RepairArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self.via.function() {
            Some(function) => remote::ask(global, &function, Remote::Repair(self)).await,
            None => self.run_here(global).await,
        }
    }

    /// Runs the command in this process.
    pub(super) async fn run_here(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let mut reports = Vec::new();
        for rollup in rollups(&worker, self.rollup.as_deref())? {
            reports.push(repair::run(&worker, rollup, self.dry_run).await?);
        }
        let document = json!({ "dry_run": self.dry_run, "rollups": reports });
        let reminders: BTreeSet<&String> =
            reports.iter().filter_map(|report| report.reminder.as_ref()).collect();
        global.print(&document, || {
            let would = if self.dry_run { "would be " } else { "" };
            reports
                .iter()
                .map(|report| {
                    format!(
                        "{}: {} compared\n  {} {would}restored\n  {} without its rows \
                         {would}reopened{}{}",
                        report.rollup,
                        ui::counted(report.markers, "marker"),
                        ui::counted(report.restored.len(), "checkpoint"),
                        ui::counted(report.reopened.len(), "checkpoint"),
                        report.sealed_before.map_or_else(String::new, |seal| {
                            format!("\n  the seal before {} {would}restored", ui::instant(seal))
                        }),
                        report.unproven.as_ref().map_or_else(String::new, |reason| {
                            let name = &report.rollup;
                            let next =
                                format!("{reason}; `tallymark verify {name} --repair` finds them");
                            format!("\n{}", ui::wrapped(&format!("  {next}"), 2))
                        }),
                    )
                })
                .chain(reminders.iter().map(|reminder| ui::wrapped(reminder, 0)))
                .collect::<Vec<_>>()
                .join("\n")
        });
        let unproven = reports.iter().filter(|report| report.unproven.is_some());
        let unproven: Vec<_> = unproven.map(|report| report.rollup.as_str()).collect();
        if unproven.is_empty() {
            return Ok(());
        }
        let fault =
            Fault::new(format!("{}: what was repaired is not proven right", unproven.join(", ")));
        Err(Failure::printed(Severity::Failed, fault.remedy("run `tallymark verify --repair`")))
    }
}
