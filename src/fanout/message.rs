//! The slice of one message.

use std::sync::Arc;

use crate::checkpoint::{Backfill, begun};
use crate::model::clock::Deadline;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::work::ready;
use crate::work::report::{Outcome, SliceReport};
use crate::work::slice_run::{self, RunOptions};
use crate::work::standings;
use crate::work::want::{Want, want};
use crate::work::worker::{WorkError, Worker};

/// Works on a slice for the backfill with this ID. If the backfill asks for it, a slice that
/// succeeded before the backfill began, or by another definition, is reopened.
///
/// # Errors
/// As [`crate::work::slice_run::run_slice`].
pub(crate) async fn run_in_backfill(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    id: &str,
    deadline: Deadline,
) -> Result<SliceReport, WorkError> {
    let backfill = backfill_of(worker, rollup, id).await?;
    // An ID in a user's own format counts as a backfill that begins now.
    let began = begun(id).unwrap_or_else(|| worker.clock.now());
    let options = RunOptions { backfill: Some(began), ..RunOptions::default() };
    let report = slice_run::run_slice(worker, rollup, slice, deadline, options).await?;
    // The failure may belong to a slice of another calendar.
    let has_ended = matches!(report.outcome, Outcome::AlreadySucceeded | Outcome::Exhausted);
    let Some(backfill) = backfill.filter(|_| has_ended) else {
        return Ok(report);
    };
    if !is_wanted_again(worker, rollup, slice, &backfill).await? {
        return Ok(report);
    }
    let reason = format!("backfill {id}");
    let now = worker.clock.now();
    worker.checkpoints.reopen(&rollup.name, slice.start(), &reason, now).await?;
    slice_run::run_slice(worker, rollup, slice, deadline, options).await
}

async fn is_wanted_again(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    backfill: &Backfill,
) -> Result<bool, WorkError> {
    let Some(found) = worker.checkpoints.get(&rollup.name, slice.start()).await? else {
        return Ok(false);
    };
    let now = worker.clock.now();
    let seen = ready::watermark(worker, rollup).await?;
    let view = standings::view(worker, rollup, &seen, now);
    let standing = view.judge(Some(&found), slice);
    let force_since = backfill.force.then_some(backfill.started_at);
    Ok(want(standing, Some(&found), &view.definition, force_since) == Want::Again)
}

/// The request of a backfill never changes, so each process reads it once.
async fn backfill_of(
    worker: &Worker,
    rollup: &Rollup,
    id: &str,
) -> Result<Option<Arc<Backfill>>, WorkError> {
    if let Some(known) = ready::known_backfill(worker, &rollup.name, id) {
        return Ok(Some(known));
    }
    let found = worker.checkpoints.backfill(&rollup.name, id).await?;
    Ok(found.map(|found| ready::remember_backfill(worker, found)))
}
