use clap::Args;
use serde_json::json;

use super::{Failure, Global, rollups, ui};

/// Rebuild lost checkpoints from the target's markers.
#[derive(Debug, Args)]
pub struct Repair {
    /// Only this rollup
    rollup: Option<String>,
    /// Print what would be repaired, and change nothing
    #[arg(long)]
    dry_run: bool,
}

impl Repair {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let mut reports = Vec::new();
        for rollup in rollups(&worker, self.rollup.as_deref())? {
            reports.push(worker.repair(rollup, self.dry_run).await?);
        }
        let document = json!({ "dry_run": self.dry_run, "rollups": reports });
        global.print(&document, || {
            let would = if self.dry_run { "would be " } else { "" };
            reports
                .iter()
                .map(|report| {
                    format!(
                        "{}: {} compared\n  {} {would}restored\n  {} without a marker \
                         {would}reopened",
                        report.rollup,
                        ui::counted(report.markers, "marker"),
                        ui::counted(report.restored.len(), "checkpoint"),
                        ui::counted(report.reopened.len(), "checkpoint"),
                    )
                })
                .collect::<Vec<_>>()
                .join("\n")
        });
        Ok(())
    }
}
