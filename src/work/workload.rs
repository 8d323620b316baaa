//! The workload units that all mirrors have taken from an app in a month, and its budget.

use std::fmt;

use serde::Serialize;

use crate::checkpoint::CheckpointError;
use crate::clients::bubble::Units;
use crate::work::worker::Worker;

/// The workload units of one month, in UTC.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct MonthWorkload {
    /// Such as `2026-11`.
    month: String,
    /// Taken, or reserved by requests under way.
    spent: Units,
    /// `workload_units_per_month`.
    budget: u32,
    left: Units,
}

/// The workload units of the present month. `None`: the source is a database.
///
/// # Errors
/// The checkpoints cannot be read.
pub(crate) async fn this_month(worker: &Worker) -> Result<Option<MonthWorkload>, CheckpointError> {
    let Some(app) = &worker.config.source.app else { return Ok(None) };
    let now = worker.clock.now();
    let spent = worker.checkpoints.workload(now).await?;
    let budget = app.units_per_month;
    let left = Units::whole(budget).less(spent);
    Ok(Some(MonthWorkload { month: now.format("%Y-%m").to_string(), spent, budget, left }))
}

impl MonthWorkload {
    /// Whether mirrors wait for the next month.
    #[must_use]
    pub(crate) fn is_spent(&self) -> bool {
        self.left == Units::default()
    }
}

impl fmt::Display for MonthWorkload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { month, spent, budget, left } = self;
        write!(f, "{spent} of workload_units_per_month = {budget} spent in {month}, {left} left")
    }
}
