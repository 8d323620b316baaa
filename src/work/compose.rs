//! Rollups of rollups: a coarse slice is computed from the rows of finer ones.
//!
//! A coarse slice is due when all finer slices in it are done ([`FinerDone`]), and it runs again when
//! one of them has changed. A worker that replaces the rows of a finer slice does three steps in
//! this order:
//!
//! 1. commits the rows;
//! 2. reads the checkpoint of the coarse slice and, if there is one, reopens it;
//! 3. completes the finer slice's checkpoint.
//!
//! A worker that computes the coarse slice claims it first, which creates its checkpoint, and then
//! reads. There are two cases at step 2. If the checkpoint exists, the coarse slice is reopened.
//! Rows read too early are then read again, as its `dirty` is past the `dirty_seen` of its claim.
//! If the checkpoint is missing, the coarse slice is claimed after step 2 and therefore read after
//! step 1.
//!
//! A worker that dies between 1 and 3 leaves an unfinished finer slice. The next attempt finds the
//! rows unchanged and cannot know whether they were unchanged before. So every attempt but the
//! first always reopens the coarse slice. The first attempt reopens it only after a change. For a
//! slice that never ran, in a coarse one that never ran, that costs one read and no write.
//!
//! Where the checkpoints are in the target, the three steps are one transaction
//! (`reopen_coarse_within`).

use chrono::{DateTime, Utc};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::clients::db::Tx;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::work::due::{FinerDone, Plan, View};
use crate::work::standings;
use crate::work::worker::{WorkError, Worker};

/// The progress of the finer rollup. `None`: this rollup has no finer one.
pub(crate) async fn finer_done(
    worker: &Worker,
    rollup: &Rollup,
    now: DateTime<Utc>,
) -> Result<Option<FinerDone>, WorkError> {
    let Some(finer) = &rollup.finer else { return Ok(None) };
    let standings = Box::pin(standings::of(worker, finer, now)).await?;
    Ok(Some(FinerDone::new(finer, &standings.plan)))
}

/// As [`View::plan`], and also reads the finer rollup's progress if anything would be due.
pub(crate) async fn plan(
    worker: &Worker,
    view: View<'_>,
    checkpoints: &[Checkpoint],
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> Result<Plan, WorkError> {
    let plan = view.plan(checkpoints, from, to);
    if plan.due().next().is_none() {
        return Ok(plan);
    }
    match finer_done(worker, view.rollup, view.now).await? {
        Some(finer) => Ok(View { finer_done: Some(&finer), ..view }.plan(checkpoints, from, to)),
        None => Ok(plan),
    }
}

/// Names the finer slice that `slice` waits for. This check only keeps the numbers of half a
/// day from being shown as those of a day. The final result is right in any case.
pub(crate) async fn waits_for(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
) -> Result<Option<String>, WorkError> {
    let Some(finer) = finer_done(worker, rollup, worker.clock.now()).await? else {
        return Ok(None);
    };
    Ok(finer.waits_for(slice).map(|finer| {
        let name = rollup.finer.as_ref().map_or("", |finer| &finer.name);
        format!("waits for {}, which is {}", finer.slice.id(name), finer.standing.word())
    }))
}

/// The coarse slices that contain `slice` and are computed from it, in the order of their locks.
fn coarse<'w>(
    worker: &'w Worker,
    rollup: &Rollup,
    slice: Slice,
) -> Vec<(&'w Rollup, DateTime<Utc>)> {
    let rollups = worker.config.rollups.iter();
    let mut found: Vec<_> = rollups
        .filter(|coarse| coarse.is_computed_from(rollup))
        .map(|coarse| (coarse, coarse.calendar.containing(slice.start()).start()))
        .filter(|(coarse, start)| *start >= coarse.start && !coarse.is_sealed_at(*start))
        .collect();
    // All are of one level.
    found.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    found
}

/// Reopens every claimed coarse slice that contains `slice`, in the transaction that replaces its
/// rows and completes it. The first claim of a coarse slice waits for that transaction, and so the
/// slice is read with the new rows.
pub(crate) async fn reopen_coarse_within(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    tx: &mut Tx,
) -> Result<(), CheckpointError> {
    for (coarse, start) in coarse(worker, rollup, slice) {
        let reason = format!("{} changed", slice.id(&rollup.name));
        let now = worker.clock.now();
        worker.checkpoints.reopen_within(&coarse.name, start, &reason, now, tx).await?;
    }
    Ok(())
}

/// Reopens every claimed coarse slice that contains `slice`.
pub(crate) async fn reopen_coarse(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
) -> Result<(), CheckpointError> {
    for (coarse, start) in coarse(worker, rollup, slice) {
        if worker.checkpoints.get(&coarse.name, start).await?.is_some() {
            let reason = format!("{} changed", slice.id(&rollup.name));
            let now = worker.clock.now();
            worker.checkpoints.reopen(&coarse.name, start, &reason, now).await?;
        }
    }
    Ok(())
}
