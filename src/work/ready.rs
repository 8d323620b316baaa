//! The facts about a rollup that a process reads before it works on it, and remembers.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::checkpoint::{Backfill, CheckpointError, Watermark};
use crate::clients::db::CATALOGUE_TIMEOUT;
use crate::model::not_now::{NotNow, Why};
use crate::model::rollup::Rollup;
use crate::source;
use crate::source::reading::fingerprint::Fingerprint;
use crate::source::reading::shape::Shape;
use crate::target::Registered;
use crate::throttle::{Gate, Waits};
use crate::work::worker::{Severity, WorkError, Worker, lock};
use crate::work::{generation, identity, late};

/// Maximum number of remembered backfills. There are as many as rollups under way at a time.
const BACKFILLS_KNOWN_MAX: usize = 1000;

/// The checks for work on `rollup` before it starts, and before each statement that reads.
/// `backfill` says when the backfill began that the work is part of.
#[must_use]
pub fn gate<'w>(
    worker: &'w Worker,
    rollup: &'w Rollup,
    backfill: Option<DateTime<Utc>>,
) -> Gate<'w> {
    Gate {
        clock: &*worker.clock,
        interrupt: &worker.interrupt,
        checkpoints: &worker.checkpoints,
        source: worker.source_of(rollup),
        governor: worker.governor_of(rollup),
        rollup: &rollup.name,
        slice_start: None,
        backfill,
        waits: Waits::default(),
    }
}

/// The source's catalogue data about `rollup`, read once per process.
///
/// # Errors
/// The source contradicts the definition, or cannot be reached.
pub async fn shape(worker: &Worker, rollup: &Rollup) -> Result<Arc<Shape>, WorkError> {
    if let Some((shape, _)) = lock(&worker.shapes).get(&rollup.name) {
        return Ok(Arc::clone(shape));
    }
    Ok(Arc::new(source::of(rollup).shape(worker.servers(), rollup).await?))
}

/// As [`shape()`], and the target's tables exist and match, and the search for changes
/// has started.
///
/// # Errors
/// As [`shape()`], or the tables are missing or made for another definition.
pub async fn check(worker: &Worker, rollup: &Rollup) -> Result<Arc<Shape>, WorkError> {
    if let Some((shape, _)) = lock(&worker.shapes).get(&rollup.name) {
        return Ok(Arc::clone(shape));
    }
    let shape = shape(worker, rollup).await?;
    let registered = worker.target.check(rollup, &shape, CATALOGUE_TIMEOUT).await?;
    // Boxed, as it is rare and large.
    Box::pin(identity::identify(worker, rollup)).await?;
    if !late::watch_changes(worker, rollup).await? {
        return Err(WorkError::NotNow(NotNow::because(Why::PreparedTransaction)));
    }
    lock(&worker.shapes).insert(rollup.name.clone(), (Arc::clone(&shape), registered));
    Ok(shape)
}

/// As [`check`], and the rollup is kept by its present calendar from now on. It must
/// come before any write for a slice.
///
/// # Errors
/// As [`check`], or the rollup's item cannot be read or written.
pub(crate) async fn prepare(worker: &Worker, rollup: &Rollup) -> Result<Arc<Shape>, WorkError> {
    let shape = check(worker, rollup).await?;
    let known = lock(&worker.shapes).get(&rollup.name).map(|(_, known)| known.clone());
    let known = known.unwrap_or_default();
    if let Err(closed) = known.is_open(rollup) {
        // The privilege may be granted while this process lives.
        worker.forget(rollup);
        return Err(closed.into());
    }
    adopt(worker, rollup, &known, shape.fingerprint.as_ref()).await?;
    Ok(shape)
}

/// The rollup's item about the rollup as a whole.
///
/// # Errors
/// The item cannot be read.
pub(crate) async fn watermark(
    worker: &Worker,
    rollup: &Rollup,
) -> Result<Watermark, CheckpointError> {
    let seen = worker.checkpoints.watermark(&rollup.name).await?;
    worker.generations.note(rollup, &seen);
    Ok(seen)
}

/// The definition of `rollup` with the generation of its calendar, in the form of present
/// checkpoints and markers.
///
/// # Errors
/// The rollup's item cannot be read.
pub(crate) async fn definition(
    worker: &Worker,
    rollup: &Rollup,
) -> Result<String, CheckpointError> {
    match worker.generations.definition(rollup) {
        Some(definition) => Ok(definition),
        None => Ok(watermark(worker, rollup).await?.definition_of(rollup)),
    }
}

/// Ensures that `rollup` is kept by its present calendar from now on.
///
/// # Errors
/// The rollup's item cannot be read or written.
pub(crate) async fn adopt(
    worker: &Worker,
    rollup: &Rollup,
    registered: &Registered,
    shape: Option<&Fingerprint>,
) -> Result<(), WorkError> {
    let is_known = worker.generations.is_adopted(rollup)
        && worker.generations.remembers(rollup, shape)
        && worker.generations.of(rollup).is_some_and(|it| it >= registered.generation);
    if !is_known {
        let now = worker.clock.now();
        let seen = generation::adopt(
            (&worker.checkpoints, &worker.target),
            rollup,
            registered,
            shape,
            now,
        )
        .await?;
        worker.generations.note(rollup, &seen);
    }
    Ok(())
}

/// As [`prepare`], for slices requested by name. If a server is out of reach, they are
/// still marked, to be done later.
///
/// # Errors
/// As [`prepare`], except for a source or target out of reach.
pub(crate) async fn refuse_unfit(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    match prepare(worker, rollup).await {
        Err(error) if error.severity() == Severity::Usage || error.is_for_all() => Err(error),
        _ => Ok(()),
    }
}

/// The backfill of `rollup` with this ID, if this process knows it.
pub(crate) fn known_backfill(worker: &Worker, rollup: &str, id: &str) -> Option<Arc<Backfill>> {
    lock(&worker.backfills).get(&(rollup.to_owned(), id.to_owned())).map(Arc::clone)
}

/// Caches a backfill's request.
pub(crate) fn remember_backfill(worker: &Worker, backfill: Backfill) -> Arc<Backfill> {
    let key = (backfill.rollup.clone(), backfill.id.clone());
    let mut known = lock(&worker.backfills);
    if known.len() >= BACKFILLS_KNOWN_MAX {
        known.clear();
    }
    let backfill = Arc::new(backfill);
    known.insert(key, Arc::clone(&backfill));
    backfill
}
