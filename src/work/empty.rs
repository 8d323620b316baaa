//! Empty stretches are free. The source is asked once where its rows begin, and slices before that
//! count as done.

use chrono::{DateTime, Utc};

use crate::checkpoint::Watermark;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::source;
use crate::source::reading::first_row::SourceStart;
use crate::work::worker::{WorkError, Worker};
use crate::work::{consumer, identity, late, ready};

/// Asks the source where its rows begin, and records it. If rows were added before the known
/// beginning, the watermark falls back to them.
///
/// # Errors
/// The source or DynamoDB cannot be read.
pub async fn probe(worker: &Worker, rollup: &Rollup) -> Result<Watermark, WorkError> {
    let seen = ready::watermark(worker, rollup).await?;
    Box::pin(identity::recognise(worker, rollup, seen.bond())).await?;
    let source = source::of(rollup);
    if !source.has_beginning() {
        return Ok(seen);
    }
    if !late::watch_changes(worker, rollup).await? {
        return Ok(seen);
    }
    // An empty range depends on late-change marks just as a read one does.
    consumer::id_of(worker, rollup).await?;
    let shape = ready::shape(worker, rollup).await?;
    let database = worker.source_of(rollup);
    let mut tx = database.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let found = source.first_row(&mut tx, rollup, &shape).await?;
    tx.rollback().await?;
    let Some(found) = found else { return Ok(seen) };
    // By both clocks: a slice that counts as empty was over for the source and for this worker.
    let probed_at = found.probed_at.min(worker.clock.now());
    let found = SourceStart { probed_at, ..found };
    if is_known(&seen, found) {
        return Ok(seen);
    }
    let lower_to = lower_to(rollup, &seen, found);
    worker.checkpoints.remember_begin(&rollup.name, &seen, found, lower_to).await?;
    Ok(ready::watermark(worker, rollup).await?)
}

/// Requests a slice that counted as empty, before somebody runs it by its name. Otherwise a turn that
/// ends without a result would leave a checkpoint behind the watermark, where no tick looks.
///
/// # Errors
/// The checkpoints cannot be read or written, or are not this installation's.
pub(crate) async fn request(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
) -> Result<(), WorkError> {
    let seen = ready::watermark(worker, rollup).await?;
    let is_passed = seen.until().is_some_and(|until| slice.start() < until);
    let is_sealed = seen.seal_of(rollup).is_some_and(|seal| slice.start() < seal);
    if !is_passed || is_sealed || slice.start() < rollup.start {
        return Ok(());
    }
    if worker.checkpoints.get(&rollup.name, slice.start()).await?.is_some() {
        return Ok(());
    }
    Box::pin(identity::recognise(worker, rollup, seen.bond())).await?;
    let now = worker.clock.now();
    worker.checkpoints.reopen(&rollup.name, slice.start(), "run by its name", now).await?;
    Ok(())
}

/// Whether a tick must probe where the rows of `rollup` begin. It must before anything has succeeded
/// and, while the source has no rows, whenever a further slice has ended.
pub(crate) fn wants_probe(rollup: &Rollup, seen: &Watermark, now: DateTime<Utc>) -> bool {
    let Some(newest) = rollup.newest(now) else { return false };
    match seen.source_start() {
        None => seen.until().is_none() && source::of(rollup).has_beginning(),
        Some(start) => start.first_row.is_none() && rollup.readable_at(newest) > start.probed_at,
    }
}

/// Whether `found` is already recorded: the first row is the same, and it was already known when
/// the slices before it had ended.
fn is_known(seen: &Watermark, found: SourceStart) -> bool {
    seen.source_start().is_some_and(|known| {
        let is_over = found.first_row.is_some_and(|first| first <= known.probed_at);
        known.first_row == found.first_row && is_over
    })
}

/// The first slice that counted as empty, and was therefore passed by the watermark, but has rows.
fn lower_to(rollup: &Rollup, seen: &Watermark, found: SourceStart) -> Option<DateTime<Utc>> {
    let (known, first) = (seen.source_start()?, found.first_row?);
    let is_earlier = known.first_row.is_none_or(|known| first < known);
    is_earlier.then(|| rollup.calendar.containing(first.max(rollup.start)).start())
}
