//! The app that is counted: whether its token sees all, and what the month has taken.

use super::{Findings, Grade};
use crate::clients::bubble::Units;
use crate::model::hint::Fault;
use crate::work::things;
use crate::work::worker::Worker;

const SUBJECT: &str = "app";

/// Checks the app by the proofs that come before each first page. `false`: it cannot be asked.
pub(super) async fn inspect(worker: &Worker, findings: &mut Findings) -> bool {
    let Some(config) = &worker.config.source.app else { return true };
    // Checkpoints out of reach are a finding of their own.
    if let Ok(spent) = worker.checkpoints.workload(worker.clock.now()).await {
        let budget = config.units_per_month;
        let finding = format!("{spent} of workload_units_per_month = {budget} spent this month");
        if spent < Units::whole(budget) {
            findings.add(Grade::Good, SUBJECT, finding);
        } else {
            let remedy = "wait for the next month, or raise the budget in [source]";
            findings.add(Grade::Note, SUBJECT, Fault::new(finding).remedy(remedy));
        }
    }
    for rollup in &worker.config.rollups {
        let Some(mirror) = &rollup.mirror else { continue };
        match things::prove(worker, rollup).await {
            Ok(()) => findings.add(
                Grade::Good,
                SUBJECT,
                format!(
                    "{}, branch `{}`: the token sees all things of type `{}`",
                    mirror.app, mirror.branch, mirror.thing
                ),
            ),
            Err(error) => {
                findings.trouble(SUBJECT, &error);
                return false;
            }
        }
    }
    true
}
