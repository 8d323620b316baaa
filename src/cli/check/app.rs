//! The app that is counted: whether its token sees all, and what the month has taken.

use super::{Findings, Grade};
use crate::model::hint::Fault;
use crate::work::worker::Worker;
use crate::work::{things, workload};

const SUBJECT: &str = "app";

/// Checks the app by the proofs that come before each first page. `false`: it cannot be asked.
pub(super) async fn inspect(worker: &Worker, findings: &mut Findings) -> bool {
    // Checkpoints out of reach are a finding of their own.
    if let Ok(Some(month)) = workload::this_month(worker).await {
        let finding = Fault::new(month.to_string());
        if month.is_spent() {
            let remedy = "wait for the next month, or raise the budget in [source]";
            findings.add(Grade::Note, SUBJECT, finding.remedy(remedy));
        } else {
            findings.add(Grade::Good, SUBJECT, finding);
        }
    }
    for rollup in &worker.config.rollups {
        let Some(mirror) = &rollup.mirror else { continue };
        let proved = match things::prove(worker, rollup).await {
            Ok(()) => things::prove_hidden_fields(worker, rollup).await,
            refused => refused,
        };
        match proved {
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
