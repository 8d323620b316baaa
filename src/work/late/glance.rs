//! The first look of a process, with the checkpoints in the target: one transaction of the source
//! shows whether there is anything to do. The store's reads share the tick's transaction there.

use chrono::{DateTime, Utc};

use super::Ready;
use crate::checkpoint::{Bond, Registration};
use crate::clients::db::history::{self, Course, History};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, Tx};
use crate::model::rollup::Rollup;
use crate::source::changes::capture::Capture;
use crate::source::changes::{consumers, lookup_marks, marks};
use crate::source::reading::shape;
use crate::work::worker::{WorkError, Worker, lock};
use crate::work::{identity, ready};

/// A captured rollup by its checkpoints.
struct Bound<'r> {
    rollup: &'r Rollup,
    /// Its consumer, and the capture that it knows.
    consumer: i64,
    key: String,
    bond: Bond,
}

/// The instant before which no mark of the table of `rollups` leaves anything to do or to report.
/// `None`: a whole look must follow, which checks the target too.
pub(super) async fn quiet_until(
    worker: &Worker,
    rollups: &[&Rollup],
) -> Result<Option<DateTime<Utc>>, WorkError> {
    let is_known = |rollup: &&Rollup| lock(&worker.shapes).contains_key(&rollup.name);
    if !worker.checkpoints.is_in_target() || rollups.iter().all(is_known) {
        // A process that knows all shapes makes one transaction anyway.
        return Ok(None);
    }
    let mut all = Vec::new();
    for rollup in rollups {
        let Some(bound) = bound(worker, rollup).await? else { return Ok(None) };
        all.push(bound);
    }
    let label = format!("late changes of {}", rollups[0].from);
    let mut tx = worker.source.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &label).await?;
    let quiet_until = finds_nothing(worker, &all, &mut tx).await?;
    // The partitions that it has seen.
    if quiet_until.is_some() {
        tx.commit().await?
    } else {
        tx.rollback().await?
    }
    Ok(quiet_until)
}

/// A rollup whose checkpoints belong to these databases, and which is registered for marks.
async fn bound<'r>(worker: &Worker, rollup: &'r Rollup) -> Result<Option<Bound<'r>>, WorkError> {
    let seen = ready::watermark(worker, rollup).await?;
    let Some(bond) = seen.bond().cloned() else { return Ok(None) };
    if !identity::is_recognised(worker, rollup, &bond).await? {
        return Ok(None);
    }
    let Some(kept) = worker.checkpoints.consumer(&rollup.name).await? else { return Ok(None) };
    let Registration::Known(key) = kept.standing else { return Ok(None) };
    Ok(Some(Bound { rollup, consumer: kept.id, key, bond }))
}

async fn finds_nothing(
    worker: &Worker,
    all: &[Bound<'_>],
    tx: &mut Tx,
) -> Result<Option<DateTime<Utc>>, WorkError> {
    // A position that only moved on is not recorded, as nothing was counted since.
    let now = history::read(tx).await?;
    let moved_on = |bound: &Bound<'_>| {
        let known = match worker.target.holds_source_of(bound.rollup) {
            true => &bound.bond.target_history,
            false => &bound.bond.source_history,
        };
        let course = |known: &History| now.as_ref().map(|now| now.since(known));
        known.as_ref().and_then(course).is_none_or(|course| course == Course::Onward)
    };
    if !all.iter().all(moved_on) {
        return Ok(None);
    }
    let mut ready: Vec<Ready<'_>> = Vec::new();
    for Bound { rollup, .. } in all {
        // Reading a shape changes settings of the transaction.
        tx.execute("reading the shape", "SAVEPOINT shape".to_owned()).await?;
        let shape = shape::inspect(tx, rollup, worker.target.is_source).await?;
        tx.execute("reading the shape", "ROLLBACK TO shape".to_owned()).await?;
        ready.push((*rollup, shape.into()));
    }
    let pairs: Vec<_> = ready.iter().map(|(rollup, shape)| (*rollup, &**shape)).collect();
    let capture = Capture::new(&all[0].rollup.from, &pairs);
    let standing = capture.standing(tx).await?;
    let Some(key) = standing.key.as_deref().filter(|_| standing.is_whole()) else {
        return Ok(None);
    };
    let known = consumers::all(tx, key).await?;
    let is_registered = |bound: &Bound<'_>| {
        let is_it = |it: &consumers::Consumer| {
            it.id == bound.consumer
                && it.rollup == bound.rollup.name
                && bound.key == key
                && it.columns.cover(&standing.used_by(&bound.rollup.name))
        };
        known.iter().any(is_it)
    };
    if !all.iter().all(is_registered) || known.iter().any(|it| it.alarm().is_some()) {
        return Ok(None);
    }
    capture.mark_partitions(tx, &standing).await?;
    let ids: Vec<i64> = all.iter().map(|bound| bound.consumer).collect();
    let (marks, _) = marks::read(tx, key, &ids).await?;
    let keys = lookup_marks::waiting(tx, &standing.lookups).await?;
    Ok(standing.seen_at.filter(|_| marks.is_empty() && keys.count == 0))
}
