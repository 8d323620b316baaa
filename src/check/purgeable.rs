//! Before which instant the source's rows are no longer needed, and a seal there.
//!
//! The proof looks at every checkpoint from the seal on, and trusts no watermark. A slice needs its
//! rows as long as it may be computed or compared again: until it has succeeded by the present
//! definition, is past its last `lookback`, and no late change, drift or backfill is known of it.
//!
//! A seal takes effect in two steps. First the store has it, so that no further slice is claimed.
//! Then the registry of the target has it, which waits for the replacements under way and refuses
//! later ones. A slice that was reopened just before is found by a second look, and then the seal is
//! taken back. Until that look the store calls the seal unproven, so a process that follows a killed
//! one looks again. So a purge after the command's end can neither erase history nor look like drift.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{late_change, scrub};
use crate::checkpoint::{CheckpointError, Seal};
use crate::model::clock::{LAST, rfc3339_seconds};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::work::due::{Standing, View};
use crate::work::worker::{WorkError, Worker};
use crate::work::{compose, identity, ready, standings};

/// How often a seal is looked at again because another process has moved it.
const LOOKS_MAX: usize = 5;

/// A table of the source, or a type of things, and the rollups that are computed from it directly.
#[derive(Clone, Debug)]
pub struct CountedTable<'w> {
    pub name: String,
    pub rollups: Vec<&'w Rollup>,
}

/// What a table's rows are still needed for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Purgeable {
    pub table: String,
    /// Rows before this instant are no longer needed.
    pub before: DateTime<Utc>,
    /// The proven seal in the store that all rollups of the table have. `None`: one of them has none.
    pub sealed_before: Option<DateTime<Utc>>,
    pub rollups: Vec<NeededRows>,
}

/// The rows that one rollup still needs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NeededRows {
    pub rollup: String,
    /// Rows before this instant are no longer needed. It is the start of a slice.
    pub before: DateTime<Utc>,
    /// Why later ones are: the standing of that slice, or what is known of it.
    pub why: &'static str,
    /// The seal in the store.
    pub sealed_before: Option<DateTime<Utc>>,
}

/// The tables of the source, in the order of the file.
#[must_use]
pub fn tables(worker: &Worker) -> Vec<CountedTable<'_>> {
    let mut tables: Vec<CountedTable<'_>> = Vec::new();
    for rollup in worker.config.rollups.iter().filter(|rollup| rollup.depth() == 0) {
        let name = rollup.from.to_string();
        match tables.iter_mut().find(|table| table.name == name) {
            Some(table) => table.rollups.push(rollup),
            None => tables.push(CountedTable { name, rollups: vec![rollup] }),
        }
    }
    tables
}

/// What the rows of `table` are still needed for.
///
/// # Errors
/// The source or the checkpoints cannot be read, or late changes cannot be told.
pub async fn of_table(worker: &Worker, table: &CountedTable<'_>) -> Result<Purgeable, WorkError> {
    let mut rollups = Vec::new();
    for rollup in &table.rollups {
        let seal = ready::watermark(worker, rollup).await?.store_seal().proven();
        rollups.push(NeededRows { sealed_before: seal, ..needed(worker, rollup, seal).await? });
    }
    let before = rollups.iter().map(|it| it.before).min().unwrap_or_default();
    let sealed_before = rollups.iter().map(|it| it.sealed_before).min().flatten();
    Ok(Purgeable { table: table.name.clone(), before, sealed_before, rollups })
}

/// The rows that `rollup` needs, where slices before `seal` are known to stay as they are.
async fn needed(
    worker: &Worker,
    rollup: &Rollup,
    seal: Option<DateTime<Utc>>,
) -> Result<NeededRows, WorkError> {
    identity::recognised(worker, rollup).await?;
    late_change::refuse_blind(worker, rollup).await?;
    let now = worker.clock.now();
    let seal = rollup.seal_before.max(seal);
    let from = rollup.calendar.containing(seal.unwrap_or(rollup.start).max(rollup.start)).start();
    let slice_of = |instant: DateTime<Utc>| rollup.calendar.containing(instant.max(from)).start();
    // Before the checkpoints, as a worker reopens a slice before it acknowledges the mark.
    let changed = late_change::first(worker, rollup, (from, now.max(from))).await?;
    let seen = ready::watermark(worker, rollup).await?;
    let checkpoints = worker.checkpoints.range(&rollup.name, from, now.max(from)).await?;
    let view = View { seal, ..standings::view(worker, rollup, &seen, now) };
    let plan = view.plan(&checkpoints, from, now);
    let is_done = |standing| {
        matches!(
            standing,
            Standing::Succeeded | Standing::Sealed | Standing::Adopted | Standing::Empty
        )
    };
    let open = plan.slices.iter().find(|planned| !is_done(planned.standing));
    let end = plan.slices.last().map_or(from, |last| last.slice.end());
    let scrub = worker.checkpoints.scrub(&rollup.name).await?;
    let drift = scrub::open_drift(worker, rollup, &scrub)
        .await?
        .into_iter()
        .map(|(start, _)| start)
        .filter(|it| *it >= from)
        .min();
    let backfill = match seen.backfill() {
        Some(id) => worker.checkpoints.backfill(&rollup.name, id).await?,
        None => None,
    };
    let backfill = backfill.filter(|it| it.state.is_active() && it.to > from);
    let unproven = identity::unproven(worker, rollup);
    let reasons = [
        unproven.map(|_| (from, "unproven")),
        open.map(|planned| (planned.slice.start(), planned.standing.word())),
        changed.map(|at| (slice_of(at), "late change")),
        drift.map(|start| (start, "drift")),
        backfill.map(|it| (slice_of(it.from), "backfill")),
        first_for_lookback(rollup, now).map(|start| (start.max(from), Standing::Lookback.word())),
    ];
    // The first of equals is named.
    let last = (end, Standing::NotEnded.word());
    let first = reasons.into_iter().flatten().min_by_key(|(start, _)| *start);
    let (before, why) = first.filter(|(start, _)| *start < end).unwrap_or(last);
    Ok(NeededRows { rollup: rollup.name.clone(), before, why, sealed_before: None })
}

/// The first slice that will run again for late rows because a later slice becomes readable.
fn first_for_lookback(rollup: &Rollup, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let furthest = rollup.lookback.last().copied().filter(|offset| *offset > 0)?;
    let mut slice = rollup.newest(now)?;
    for _ in 1..furthest {
        slice = rollup.calendar.previous(slice);
    }
    Some(slice.start())
}

/// A seal that a rollup is to have.
#[derive(Clone, Copy, Debug)]
pub(super) struct SealWish<'w> {
    pub(super) rollup: &'w Rollup,
    /// Slices that start before this instant are sealed. `None`: the rollup gets no seal, and is only
    /// looked at.
    pub(super) before: Option<DateTime<Utc>>,
    /// No slice before this instant may need its rows. It is `before` or later.
    pub(super) done_until: DateTime<Utc>,
    /// `keep` deletes rows on which the sealed slices rest.
    pub(super) is_kept: bool,
}

/// Seals all slices of the table's rollups that start before `before`. A later seal stays.
///
/// # Errors
/// Rows before that instant are still needed, or became so meanwhile; then the seals are as they
/// were. Or a server refuses, or another process moves the seal at this time; then the same call
/// completes the seal.
pub async fn seal(
    worker: &Worker,
    table: &CountedTable<'_>,
    before: DateTime<Utc>,
) -> Result<(), WorkError> {
    let wish =
        |rollup| SealWish { rollup, before: Some(before), done_until: before, is_kept: false };
    let wishes: Vec<_> = table.rollups.iter().map(|rollup| wish(*rollup)).collect();
    match try_seal(worker, &wishes).await? {
        Some(needed) => Err(WorkError::Usage(still_needed(&needed, before))),
        None => Ok(()),
    }
}

/// As [`seal`], each rollup before an instant of its own. Returns one that still needs rows.
pub(super) async fn try_seal(
    worker: &Worker,
    wishes: &[SealWish<'_>],
) -> Result<Option<NeededRows>, WorkError> {
    let mut looked = Vec::new();
    for wish in wishes {
        let seal = ready::watermark(worker, wish.rollup).await?.store_seal();
        looked.push((*wish, seal));
    }
    let sealing = looked.iter().filter_map(|(wish, seal)| {
        let moving = seal.moving_to(wish.before?);
        Some((*wish, *seal, moving))
    });
    let sealing: Vec<_> = sealing.collect();
    if let Some(found) = first_needed(worker, &looked).await? {
        // A process that was killed may have left them.
        let unproven = sealing.iter().filter(|(_, seal, _)| seal.is_unproven());
        for (wish, seal, _) in unproven {
            take_back(worker, wish.rollup, (*seal, seal.proven())).await?;
        }
        return Ok(Some(found));
    }
    for (wish, seal, moving) in &sealing {
        move_seal(worker, wish.rollup, (*seal, *moving), false).await?;
        worker.target.seal(wish.rollup, moving.before()).await?;
    }
    let found = first_needed(worker, &looked).await?;
    for (wish, seal, moving) in &sealing {
        if found.is_some() {
            take_back(worker, wish.rollup, (*moving, seal.proven())).await?;
        } else {
            let whole = Seal::whole(moving.before());
            move_seal(worker, wish.rollup, (*moving, whole), wish.is_kept).await?;
        }
    }
    Ok(found)
}

/// The remedy for a seal that is not proven, as its process was killed.
#[must_use]
pub(crate) fn complete_seal(rollup: &Rollup) -> String {
    let table = &compose::root(rollup).from;
    format!(
        "unless its process is still at work, slices behind it may wait: `tallymark purgeable {table} --seal` \
         completes it, and `tallymark purgeable {table} --unseal` removes it"
    )
}

/// The first that needs rows which its wish gives up.
async fn first_needed(
    worker: &Worker,
    looked: &[(SealWish<'_>, Seal)],
) -> Result<Option<NeededRows>, WorkError> {
    for (wish, seal) in looked {
        let found = needed(worker, wish.rollup, seal.proven()).await?;
        if found.before < wish.done_until {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

async fn move_seal(
    worker: &Worker,
    rollup: &Rollup,
    seals: (Seal, Seal),
    is_kept: bool,
) -> Result<(), WorkError> {
    let (from, to) = seals;
    // Slices behind an unproven seal may be stale.
    let back_to = to.before().filter(|_| to.before() < from.before()).unwrap_or(LAST);
    match worker.checkpoints.move_seal(&rollup.name, seals, back_to, is_kept).await? {
        true => Ok(()),
        false => Err(contended(rollup)),
    }
}

/// Removes the seals of the table's rollups from the store. What changed meanwhile becomes due.
///
/// # Errors
/// A server refuses. The same call completes it.
pub async fn unseal(worker: &Worker, table: &CountedTable<'_>) -> Result<(), WorkError> {
    for rollup in &table.rollups {
        identity::recognised(worker, rollup).await?;
        open(worker, rollup).await?;
    }
    Ok(())
}

/// Removes the seal of `rollup`, also if another process moves it at this time.
async fn open(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    for _ in 0..LOOKS_MAX {
        let seal = ready::watermark(worker, rollup).await?.store_seal();
        if take_back(worker, rollup, (seal, None)).await? {
            return Ok(());
        }
    }
    Err(contended(rollup))
}

/// Moves the seal of `rollup` back, if it is still the first, and as far as `keep` lets it. The registry
/// comes first: as long as the store has the seal, no slice is claimed that the fence would refuse.
async fn take_back(
    worker: &Worker,
    rollup: &Rollup,
    (from, to): (Seal, Option<DateTime<Utc>>),
) -> Result<bool, WorkError> {
    let to = ready::watermark(worker, rollup).await?.kept_seal().max(to);
    worker.target.seal(rollup, to).await?;
    let back_to = to.unwrap_or(rollup.start).max(rollup.start);
    let seals = (from, Seal::whole(to));
    let is_moved = worker.checkpoints.move_seal(&rollup.name, seals, back_to, false).await?;
    if !is_moved {
        let seal = ready::watermark(worker, rollup).await?.seal();
        worker.target.seal(rollup, seal).await?;
    }
    Ok(is_moved)
}

fn contended(rollup: &Rollup) -> WorkError {
    CheckpointError::Contended { operation: "seal", slice: rollup.name.clone() }.into()
}

fn still_needed(found: &NeededRows, before: DateTime<Utc>) -> Fault {
    let NeededRows { rollup, before: first, why, .. } = found;
    let (before, first) = (rfc3339_seconds(before), rfc3339_seconds(*first));
    Fault::new(format!(
        "rows before {before} are still needed: rollup `{rollup}` needs those from {first} on ({why})"
    ))
    .remedy(format!("seal before {first}, or run the command again once that slice is done"))
}
