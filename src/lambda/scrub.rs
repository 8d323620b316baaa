//! The event `scrub`: old slices are compared with the source outside of a tick.

use serde_json::{Value, json};

use super::{HandleError, Invocation, known};
use crate::check::scrub;
use crate::model::hint::Fault;
use crate::work::report::TickReport;
use crate::work::worker::{WorkError, Worker};

/// Compares the old slices that are due by `[scrub]`, of one rollup or of all. Drift is in the
/// response and in the log, as after a tick.
pub(super) async fn run(
    worker: &Worker,
    rollup: Option<&str>,
    Invocation { deadline, .. }: Invocation<'_>,
) -> Result<Value, HandleError> {
    let only = rollup.map(|name| known(worker, name)).transpose()?;
    let settings = worker.config.scrub.ok_or_else(|| {
        let fault = Fault::new("the configuration has no [scrub]");
        WorkError::Usage(fault.remedy("add [scrub] with slices_per_day = 20"))
    })?;
    let mut report = TickReport::default();
    worker.checkpoints.read_apart().await;
    scrub::run(worker, settings, only, deadline, &mut report).await;
    if !report.problems.is_empty() {
        return Err(HandleError::Problems(report.problems));
    }
    Ok(json!({ "trigger": "scrub", "rollup": rollup, "scrub": report.scrub }))
}
