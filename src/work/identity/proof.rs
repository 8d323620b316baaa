//! Why the checkpoints or the rows of a rollup cannot be trusted, and what ends that.

use super::found::{holds_in_target, look_up};
use super::{Observed, place};
use crate::checkpoint::Bond;
use crate::clients::db::history::{Course, History};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::sql::literal;
use crate::work::worker::{WorkError, Worker, lock};

/// Why checkpoints of earlier tables cannot be trusted.
pub(super) const TABLES_CHANGED: &str =
    "its tables in the target were created again or restored since its checkpoints were written";

/// As [`TABLES_CHANGED`], where the tables themselves do not show it.
pub(super) const TARGET_BACK: &str =
    "the target was restored to an earlier moment since its checkpoints were written";

/// Why checkpoints that are older than the newest marker cannot be trusted.
const CHECKPOINTS_BACK: &str =
    "its checkpoints are older than its rows: they were restored, or lost and started over";

/// Why a new checkpoint table cannot be trusted.
pub(super) const CHECKPOINTS_LOST: &str =
    "its checkpoint table is empty while the target holds slices of it";

/// Why rows that were counted from another past of the source are unproven.
const SOURCE_BACK: &str = "the source was restored or failed over since its rows were \
     counted, and some of them may be gone";

/// Why rows in a target with a possibly different past are unproven.
const TARGET_FORKED: &str =
    "the target was restored or failed over, and its last commits may be gone";

/// Why the rows of `rollup` are unproven, as far as this process knows.
#[must_use]
pub(crate) fn unproven(worker: &Worker, rollup: &Rollup) -> Option<String> {
    lock(&worker.unproven).get(&rollup.name).cloned()
}

pub(super) fn set_unproven(worker: &Worker, rollup: &Rollup, reason: Option<String>) {
    let mut unproven = lock(&worker.unproven);
    match reason {
        Some(reason) => unproven.insert(rollup.name.clone(), reason),
        None => unproven.remove(&rollup.name),
    };
}

/// Records that every success of `rollup` was compared with the source and is right. Returns
/// whether its rows were unproven before.
///
/// # Errors
/// DynamoDB refuses or cannot be reached.
pub async fn proven(worker: &Worker, rollup: &Rollup) -> Result<bool, WorkError> {
    let Some(reason) = unproven(worker, rollup) else { return Ok(false) };
    worker.checkpoints.prove(&rollup.name, &reason).await?;
    set_unproven(worker, rollup, None);
    Ok(true)
}

/// Why the checkpoints contradict the tables, if that can be seen.
pub(super) async fn restored(
    worker: &Worker,
    rollup: &Rollup,
    bond: &Bond,
    observed: &Observed<'_>,
) -> Result<Option<&'static str>, WorkError> {
    if bond.tables != observed.found.tables {
        return Ok(Some(TABLES_CHANGED));
    }
    if course(bond.target_history.as_ref(), observed.found.history.as_ref()) == Course::Back {
        return Ok(Some(TARGET_BACK));
    }
    let Some(newest) = &observed.found.newest else { return Ok(None) };
    let known = worker.checkpoints.get(&rollup.name, newest.start).await?;
    let is_known = known.is_some_and(|known| {
        let is_owner = newest.owner.is_none() || known.owner == newest.owner;
        known.attempt > newest.attempt || known.attempt == newest.attempt && is_owner
    });
    Ok((!is_known).then_some(CHECKPOINTS_BACK))
}

/// Whether the target has slices of `rollup` while the checkpoint table has none.
pub(super) async fn are_checkpoints_lost(
    worker: &Worker,
    rollup: &Rollup,
) -> Result<bool, WorkError> {
    if !worker.checkpoints.recent(&rollup.name).await?.is_empty() {
        return Ok(false);
    }
    let sql = format!(
        "SELECT EXISTS (SELECT FROM tallymark.slice WHERE rollup = {})",
        literal(&rollup.name)
    );
    Ok(holds_in_target(worker, sql).await?)
}

/// Records the position of both databases, and whether counted rows may be gone.
pub(super) fn note_histories(bond: &mut Bond, observed: Observed<'_>) {
    let target = observed.found.history.clone();
    let forked = |known: &Option<History>, now: &Option<History>| {
        matches!(course(known.as_ref(), now.as_ref()), Course::Forked | Course::Back)
    };
    // In one database, markers and rows go back together, and its own markers show it.
    let is_source_back = forked(&bond.source_history, &observed.source);
    let is_target_forked = forked(&bond.target_history, &target) && bond.repair.is_none();
    if is_source_back {
        bond.unproven = Some(SOURCE_BACK.to_owned());
    } else if is_target_forked && bond.unproven.is_none() {
        bond.unproven = Some(TARGET_FORKED.to_owned());
    }
    for (known, now) in
        [(&mut bond.source_history, observed.source), (&mut bond.target_history, target)]
    {
        if let Some(now) = now.filter(|now| known.as_ref().is_none_or(|it| now.tells_more(it))) {
            *known = Some(now);
        }
    }
}

/// How a database's history relates to the stored one, if both are known.
pub(super) fn course(known: Option<&History>, now: Option<&History>) -> Course {
    known.zip(now).map_or(Course::Onward, |(known, now)| now.since(known))
}

/// Records that the checkpoints of `rollup` follow the present tables. Returns why its rows are
/// unproven: for `reason`, or for an earlier one.
pub(crate) async fn repaired(
    worker: &Worker,
    rollup: &Rollup,
    reason: Option<String>,
) -> Result<Option<String>, WorkError> {
    let seen = worker.checkpoints.watermark(&rollup.name).await?;
    let Some(before) = seen.bond() else { return Ok(reason) };
    let found = look_up(worker, rollup, &place(worker).await?).await?;
    let bond = Bond {
        tables: found.tables,
        repair: None,
        unproven: reason.or_else(|| still_unproven(before)),
        ..before.clone()
    };
    if *before != bond {
        worker.checkpoints.bind(&rollup.name, Some(before), &bond).await?;
    }
    set_unproven(worker, rollup, bond.unproven.clone());
    Ok(bond.unproven)
}

/// Whether a repair is due because the target went back in time.
pub(crate) fn has_target_gone_back(bond: &Bond) -> bool {
    bond.repair.as_deref().is_some_and(|reason| reason == TABLES_CHANGED || reason == TARGET_BACK)
}

/// Why the rows are still unproven after a repair, which finds a target's losses.
pub(crate) fn still_unproven(bond: &Bond) -> Option<String> {
    bond.unproven.clone().filter(|reason| reason != TARGET_FORKED)
}

/// The message about unproven rows.
#[must_use]
pub(crate) fn is_unproven(rollup: &Rollup, reason: &str) -> Fault {
    let name = &rollup.name;
    Fault::new(format!("rollup `{name}` is unproven: {reason}")).remedy(format!(
        "run `tallymark repair` and `tallymark verify {name} --repair`; or, if you know that nothing \
         was lost, `tallymark moved`"
    ))
}

pub(super) fn must_repair(rollup: &Rollup, reason: &str) -> WorkError {
    let fault = Fault::new(format!(
        "rollup `{}`: {reason}, so its checkpoints cannot be trusted",
        rollup.name
    ));
    WorkError::Stranger(fault.remedy("run `tallymark repair`"))
}
