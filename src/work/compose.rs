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
//! (`reopen_coarse_within`). It also keeps others from creating the checkpoint that it did not find.
//!
//! A finer slice is part of every trailing window that holds it: of 672 where hours look back over
//! 28 days. Step 2 reopens all of them that have a checkpoint, except those that are stale, as they
//! run again in any case. A window that is claimed after step 2 is read after step 1.
//!
//! In the target, step 2 comes before the commit, and meanwhile a worker may claim a window that the
//! transaction did not find, or found stale. So a worker that has claimed a window looks for
//! unfinished finer slices once more before it reads. The finer slice was claimed before its
//! transaction looked for windows. If the window's claim came before that look, the transaction
//! reopens the window. Otherwise the worker finds the finer slice running, and yields, or the rows
//! are committed before it reads.
//!
//! An open slice goes on while it is computed: from the finer slices up to the first that is not
//! done. Its checkpoint and its marker say until when. It is due again when more of them are done,
//! and it counts as done only when it is whole. While it is open, nothing is computed from it, so
//! the coarse slices that contain it are left alone.

use chrono::{DateTime, Utc};

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::clients::db::Tx;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::target::coverage::CoarseSlice;
use crate::work::due::{FinerDone, Plan, Standing, View};
use crate::work::worker::{WorkError, Worker};
use crate::work::{ready, standings};

/// The progress of the finer rollup. `None`: this rollup has no finer one.
pub(crate) async fn finer_done(
    worker: &Worker,
    rollup: &Rollup,
    now: DateTime<Utc>,
) -> Result<Option<FinerDone>, WorkError> {
    let Some(finer) = &rollup.finer else { return Ok(None) };
    let standings = Box::pin(standings::of(worker, finer, now)).await?;
    Ok(Some(FinerDone::new(finer, &standings.plan, standings.seen.kept_from())))
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

/// What can be computed of a slice now.
pub(crate) enum Computable {
    Whole,
    /// An open slice, until this instant.
    Until(DateTime<Utc>),
    /// Nothing yet, for this reason.
    Waits(String),
}

/// What can be computed of `slice`, by the finer slices in it that are done. This check only keeps
/// the numbers of half a day from being shown as those of a day. The final result is right in any
/// case.
pub(crate) async fn computable(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
) -> Result<Computable, WorkError> {
    let now = worker.clock.now();
    let Some(finer) = finer_done(worker, rollup, now).await? else { return Ok(Computable::Whole) };
    let Some(reason) = waiting(rollup, &finer, rollup.window(slice)) else {
        return Ok(Computable::Whole);
    };
    if rollup.open {
        let seen = ready::watermark(worker, rollup).await?;
        let checkpoint = worker.checkpoints.get(&rollup.name, slice.start()).await?;
        let view = standings::view(worker, rollup, &seen, now);
        let view = View { finer_done: Some(&finer), ..view };
        if let Some(until) = view.computable(checkpoint.as_ref(), slice) {
            return Ok(Computable::Until(until));
        }
    }
    Ok(Computable::Waits(reason))
}

/// Names the finer slice that the rows of `slice` until `open_until`, or all of them, wait for.
pub(crate) async fn waits_for(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    open_until: Option<DateTime<Utc>>,
) -> Result<Option<String>, WorkError> {
    let Some(finer) = finer_done(worker, rollup, worker.clock.now()).await? else {
        return Ok(None);
    };
    let (start, end) = rollup.window(slice);
    Ok(waiting(rollup, &finer, (start, open_until.unwrap_or(end))))
}

/// Names the first finer slice of a window that is not done.
fn waiting(
    rollup: &Rollup,
    finer: &FinerDone,
    window: (DateTime<Utc>, DateTime<Utc>),
) -> Option<String> {
    finer.waits_for(window).map(|finer| {
        let name = rollup.finer.as_ref().map_or("", |finer| &finer.name);
        let id = finer.slice.id(name);
        match finer.standing {
            Standing::Sealed => format!("needs {id}, whose rows `keep` has deleted"),
            standing => format!("waits for {id}, which is {}", standing.word()),
        }
    })
}

/// As [`waits_for`], after the claim of a trailing window whose checkpoints are in the target: no
/// transaction of a finer slice keeps others from claiming it.
pub(crate) async fn waits_after_claim(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
) -> Result<Option<String>, WorkError> {
    if rollup.trailing.is_none() || !worker.checkpoints.is_in_target() {
        return Ok(None);
    }
    waits_for(worker, rollup, slice, None).await
}

/// The slices of a coarse rollup that are computed from a finer one: from the first to the last.
struct Affected<'w> {
    rollup: &'w Rollup,
    first: DateTime<Utc>,
    last: DateTime<Utc>,
}

/// The coarse slices that are computed from `slice`, in the order of their locks.
fn coarse<'w>(worker: &'w Worker, rollup: &Rollup, slice: Slice) -> Vec<Affected<'w>> {
    let rollups = worker.config.rollups.iter().filter(|it| it.is_computed_from(rollup));
    let affected = rollups.filter_map(|coarse| {
        let (first, last) = coarse.windows_with(slice)?;
        let (mut first, last) = (first.start(), last.start());
        if let Some(seal) = coarse.seal_before {
            first = first.max(seal);
        }
        (first <= last).then_some(Affected { rollup: coarse, first, last })
    });
    let mut found: Vec<_> = affected.collect();
    // All are of one level.
    found.sort_by(|one, other| one.rollup.name.cmp(&other.rollup.name));
    found
}

/// The coarse slices that overlap `slice`, which may be several slices joined, for the transaction
/// that replaces its rows. A trailing window is left out: readers are told by the number of changes of
/// its finer slices.
pub(crate) fn coarse_slices(worker: &Worker, rollup: &Rollup, slice: Slice) -> Vec<CoarseSlice> {
    let rollups = worker.config.rollups.iter();
    let mut coarse: Vec<_> =
        rollups.filter(|it| it.is_computed_from(rollup) && it.trailing.is_none()).collect();
    // The order of locks.
    coarse.sort_by(|one, other| one.name.cmp(&other.name));
    let slices = coarse.into_iter().flat_map(|coarse| {
        let first = coarse.calendar.containing(slice.start()).start();
        let slices = coarse.calendar.slices(first, slice.end());
        let slices =
            slices.filter(|it| it.start() >= coarse.start && !coarse.is_sealed_at(it.start()));
        slices.map(|slice| CoarseSlice { rollup: coarse.name.clone(), slice })
    });
    slices.collect()
}

/// Reopens every claimed coarse slice that is computed from `slices`, which adjoin and got rows by
/// another way than a worker's. Readers see them as stale first.
///
/// # Errors
/// A server refuses or cannot be reached. The same call completes it.
pub(crate) async fn reopen_coarse_of(
    worker: &Worker,
    rollup: &Rollup,
    slices: &[Slice],
    reason: &str,
) -> Result<(), WorkError> {
    let (Some(first), Some(last)) = (slices.first(), slices.last()) else { return Ok(()) };
    let now = worker.clock.now();
    let rollups = worker.config.rollups.iter().filter(|it| it.is_computed_from(rollup));
    for coarse in rollups {
        let end = coarse.windows_with(*last).map_or(last.end(), |(_, last)| last.end());
        let begin = coarse.calendar.containing(first.start()).start().max(coarse.start);
        let is_open = |it: &Slice| it.start() >= begin && !coarse.is_sealed_at(it.start());
        let over = coarse.calendar.slices(begin, end.min(now)).filter(|it| it.end() <= now);
        let raised: Vec<_> = over.filter(is_open).collect();
        let (Some(first), Some(last)) = (raised.first(), raised.last()) else { continue };
        worker.target.raise(&coarse.name, &raised, reason).await?;
        let range = (first.start(), last.start());
        worker.checkpoints.reopen_range(&coarse.name, range, reason, now).await?;
    }
    Ok(())
}

/// The rollup that reads the source of `rollup`.
pub(crate) fn root(rollup: &Rollup) -> &Rollup {
    rollup.finer.as_deref().map_or(rollup, root)
}

/// The name of the rollup that `rollup` is computed from.
pub(crate) fn finer_name(rollup: &Rollup) -> Option<String> {
    rollup.finer.as_ref().map(|finer| finer.name.clone())
}

/// Reopens every claimed coarse slice that is computed from `slice`, in the transaction that
/// replaces its rows and completes it. The first claim of a coarse slice that contains it waits for
/// that transaction, and so the slice is read with the new rows.
pub(crate) async fn reopen_coarse_within(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    tx: &mut Tx,
) -> Result<(), CheckpointError> {
    let reason = format!("{} changed", slice.id(&rollup.name));
    for Affected { rollup: coarse, first, last } in coarse(worker, rollup, slice) {
        let (name, now) = (&coarse.name, worker.clock.now());
        if coarse.trailing.is_some() {
            let range = (first, last);
            worker.checkpoints.reopen_range_within(name, range, &reason, now, tx).await?;
        } else {
            worker.checkpoints.reopen_within(name, first, &reason, now, tx).await?;
        }
    }
    Ok(())
}

/// Reopens every claimed coarse slice that is computed from `slice`.
pub(crate) async fn reopen_coarse(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
) -> Result<(), CheckpointError> {
    let reason = format!("{} changed", slice.id(&rollup.name));
    for Affected { rollup: coarse, first, last } in coarse(worker, rollup, slice) {
        let (name, now) = (&coarse.name, worker.clock.now());
        if coarse.trailing.is_some() {
            worker.checkpoints.reopen_range(name, (first, last), &reason, now).await?;
        } else if worker.checkpoints.get(name, first).await?.is_some() {
            worker.checkpoints.reopen(name, first, &reason, now).await?;
        }
    }
    Ok(())
}
