//! A captured rollup as a consumer of the source's marks. It registers before it relies on them.
//!
//! The store holds the consumer's ID, and the source a row with it. The source keeps a mark until
//! every consumer has acknowledged it. If the source does not know the ID, marks may have been
//! deleted before the rollup saw them. Then the rollup gets another ID, every slice that was read
//! runs again, and only afterwards does the store call the new ID known.

use std::time::Duration;

use tracing::warn;

use crate::checkpoint::{KeptConsumer, Registration};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbError, DbErrorKind};
use crate::model::clock::Deadline;
use crate::model::hint::Fault;
use crate::model::rollup::{Late, Rollup};
use crate::source::changes::marks::MarkedHours;
use crate::source::changes::{capture, consumers};
use crate::source::settle;
use crate::work::worker::{WorkError, Worker, lock};
use crate::work::{identity, late, ready};

/// Time limit for reopening what a consumer missed. The next call starts over.
const REOPENING_MAX: Duration = Duration::from_secs(600);

/// The consumer ID of `rollup`, read once per process. `None`: the rollup is not captured.
///
/// # Errors
/// A server refuses or cannot be reached.
pub(crate) async fn id_of(worker: &Worker, rollup: &Rollup) -> Result<Option<i64>, WorkError> {
    if rollup.late != Late::Capture {
        return Ok(None);
    }
    let known = lock(&worker.consumers).get(&rollup.name).copied();
    match known {
        Some(id) => Ok(Some(id)),
        None => Box::pin(enlist(worker, rollup)).await,
    }
}

/// As [`id_of`], but asks the source again, which may have forgotten it.
///
/// # Errors
/// As [`id_of`].
pub(crate) async fn enlist(worker: &Worker, rollup: &Rollup) -> Result<Option<i64>, WorkError> {
    lock(&worker.consumers).remove(&rollup.name);
    let shape = ready::check(worker, rollup).await?;
    let label = format!("late changes of {}", rollup.from);
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &label).await?;
    let standing = capture::standing(&mut tx, rollup, &shape).await?;
    tx.rollback().await?;
    let Some(key) = standing.key.clone() else { return Ok(None) };
    let mut kept = kept_consumer(worker, rollup).await?;
    let mut tx = worker.source.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &label).await?;
    let used = standing.used_by(&rollup.name);
    let uses = (&*rollup.name, &used);
    let mut is_there = consumers::is_enlisted(&mut tx, &key, kept.id, uses).await?;
    tx.commit().await?;
    if !is_there && kept.standing != Registration::New {
        // Another ID, which must not count as known before the slices are reopened.
        let next = KeptConsumer { id: new_id(), standing: Registration::Forgotten };
        worker.checkpoints.set_consumer(&rollup.name, Some(kept.id), &next).await?;
        kept = kept_consumer(worker, rollup).await?;
        is_there = false;
    }
    if !is_there {
        let mut tx = worker.source.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &label).await?;
        let installation = identity::installation(worker, rollup).await?;
        let names = (&*installation, &*rollup.name);
        let is_new = kept.standing == Registration::New;
        let new = (&used, is_new);
        if let Err(error) = consumers::enlist(&mut tx, &key, kept.id, names, new).await {
            return Err(unregistered(rollup, error));
        }
        tx.commit().await?;
    }
    if kept.standing != Registration::Known(key.clone()) {
        if kept.standing == Registration::Forgotten {
            reopen_everything(worker, rollup, &label).await?;
        }
        let known = KeptConsumer { id: kept.id, standing: Registration::Known(key) };
        worker.checkpoints.set_consumer(&rollup.name, Some(kept.id), &known).await?;
    }
    lock(&worker.consumers).insert(rollup.name.clone(), kept.id);
    Ok(Some(kept.id))
}

/// The consumer in the store. If there is none, one is chosen now.
async fn kept_consumer(worker: &Worker, rollup: &Rollup) -> Result<KeptConsumer, WorkError> {
    if let Some(kept) = worker.checkpoints.consumer(&rollup.name).await? {
        return Ok(kept);
    }
    let chosen = KeptConsumer { id: new_id(), standing: Registration::New };
    worker.checkpoints.set_consumer(&rollup.name, None, &chosen).await?;
    // Another worker may have stored one first.
    Ok(worker.checkpoints.consumer(&rollup.name).await?.unwrap_or(chosen))
}

/// Reopens every slice that was read.
async fn reopen_everything(worker: &Worker, rollup: &Rollup, label: &str) -> Result<(), WorkError> {
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, label).await?;
    let (now, _) = settle::now(&mut tx).await?;
    tx.rollback().await?;
    let deadline = Deadline::after(&*worker.clock, REOPENING_MAX);
    let reason = "its consumer of late changes was forgotten";
    late::reopen_hours(worker, rollup, &[MarkedHours::ALL], now, deadline, reason).await?;
    Ok(())
}

/// Gives a copy of the store another ID, as the one in it is the original's. Marks before it is
/// registered reach the original alone, so every slice that was read runs again.
pub(crate) async fn replace(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    let Some(kept) = worker.checkpoints.consumer(&rollup.name).await? else { return Ok(()) };
    let own = KeptConsumer { id: new_id(), standing: Registration::Forgotten };
    worker.checkpoints.set_consumer(&rollup.name, Some(kept.id), &own).await?;
    lock(&worker.consumers).remove(&rollup.name);
    Ok(())
}

/// Removes the consumer of a dropped rollup. The store may have been lost since it registered,
/// so every consumer with the names of `installation` and `rollup` is removed too. If the
/// source is out of reach it keeps them, which is reported, as their marks go on waiting.
pub(crate) async fn dismiss(
    worker: &Worker,
    rollup: &str,
    installation: &str,
) -> Result<(), WorkError> {
    let kept = worker.checkpoints.consumer(rollup).await?.map(|kept| kept.id);
    let ended = async {
        let mut tx = worker.source.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, "capture").await?;
        if consumers::are_kept(&mut tx).await? {
            let named = consumers::named(&mut tx, installation, rollup).await?;
            for id in named.into_iter().chain(kept) {
                consumers::forget(&mut tx, id).await?;
            }
        }
        tx.commit().await
    };
    if let Err(error) = ended.await {
        warn!(
            hint =
                "`tallymark capture status` shows them, and `tallymark capture forget` ends them",
            "the source may still keep marks for rollup `{rollup}` ({error})"
        );
    }
    Ok(())
}

/// Gives the consumer of a renamed rollup its name `new`. If the source is out of reach, the
/// next tick tells it.
pub(crate) async fn rename_consumer(worker: &Worker, new: &str) -> Result<(), WorkError> {
    let Some(kept) = worker.checkpoints.consumer(new).await? else { return Ok(()) };
    let renamed = async {
        let mut tx = worker.source.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, "capture").await?;
        if consumers::are_kept(&mut tx).await? {
            consumers::rename(&mut tx, kept.id, new).await?;
        }
        tx.commit().await
    };
    if let Err(error) = renamed.await {
        warn!("the source learns the name `{new}` from the next tick: {error}");
    }
    Ok(())
}

/// The consumers of some rollups, given `all` that the source knows. Those unknown to the
/// source or to this process are registered. Rollups that are not captured have none.
pub(crate) async fn consumers_of(
    worker: &Worker,
    rollups: impl Iterator<Item = &Rollup>,
    all: &[consumers::Consumer],
) -> Result<Vec<i64>, WorkError> {
    let mut found = Vec::new();
    for rollup in rollups {
        match known_id(worker, rollup, all) {
            Some(id) => found.push(id),
            None => found.extend(enlist(worker, rollup).await?),
        }
    }
    Ok(found)
}

/// As [`consumers_of`], if the source and this process know all of them already.
pub(crate) fn known_of<'r>(
    worker: &Worker,
    mut rollups: impl Iterator<Item = &'r Rollup>,
    all: &[consumers::Consumer],
) -> Option<Vec<i64>> {
    rollups.try_fold(Vec::new(), |mut found, rollup| {
        found.push(known_id(worker, rollup, all)?);
        Some(found)
    })
}

fn known_id(worker: &Worker, rollup: &Rollup, all: &[consumers::Consumer]) -> Option<i64> {
    let known = lock(&worker.consumers).get(&rollup.name).copied();
    known.filter(|id| all.iter().any(|it| it.id == *id && it.rollup == rollup.name))
}

/// A random ID, unique for all practical purposes.
fn new_id() -> i64 {
    i64::try_from(fastrand::u64(1..u64::MAX / 4)).unwrap_or(i64::MAX)
}

fn unregistered(rollup: &Rollup, error: DbError) -> WorkError {
    if error.kind() != DbErrorKind::Denied {
        return error.into();
    }
    let fault =
        Fault::new(format!("rollup `{}` cannot register for late changes: {error}", rollup.name));
    WorkError::Usage(
        fault.remedy("as the table's owner, run `tallymark capture install`, which grants that"),
    )
}
