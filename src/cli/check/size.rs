//! How many groups a rollup has, and how large its table becomes.

use super::{Findings, Grade};
use crate::cli::ui;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::work::size;
use crate::work::worker::{WorkError, Worker};

/// A year without a leap day.
const YEAR_SECONDS: f64 = 365.0 * 86_400.0;

/// Estimates the table, and warns of one that hardly compresses.
pub(super) async fn inspect(
    worker: &Worker,
    rollup: &Rollup,
    findings: &mut Findings,
) -> Result<(), WorkError> {
    let newest = rollup.newest(worker.clock.now());
    let slice = newest.unwrap_or_else(|| rollup.calendar.containing(rollup.start));
    let recent = worker.checkpoints.recent(&rollup.name).await?;
    let Some(size) = size::of(worker, rollup, &[slice], &recent).await? else { return Ok(()) };
    let width = rollup.calendar.width().approximate().as_secs_f64().max(1.0);
    let (span, said) = match rollup.keep {
        Some(keep) => (keep.as_secs_f64(), "for the time of `keep`"),
        None => (YEAR_SECONDS, "a year"),
    };
    let groups = size.groups_per_slice();
    let bytes = ui::bytes(groups * span / width * size.bytes_per_group);
    let how = match size.is_measured {
        true => "as its newest slices",
        false => "by the planner's statistics",
    };
    let finding = format!(
        "about {} of {} in a slice, {}, about {bytes} {said} ({how})",
        ui::about(groups, "group"),
        ui::about(size.rows_per_slice, "row"),
        ui::ratio(size.rows_per_group),
    );
    if !size.hardly_compresses() {
        findings.add(Grade::Good, &rollup.name, finding);
        return Ok(());
    }
    let fault = Fault::new(format!("it hardly compresses: {finding}"));
    findings.add(Grade::Note, &rollup.name, fault.remedy(size::REMEDY));
    Ok(())
}
