//! Before which instant the source's rows are no longer needed, and a seal there.
//!
//! The proof looks at every checkpoint from the seal on, and trusts no watermark. A slice needs its
//! rows as long as it may be computed or compared again: until it has succeeded by the present
//! definition, is past its last `lookback`, and no late change, drift or backfill is known of it.
//!
//! A seal takes effect in two steps. First the store has it, so that no further slice is claimed.
//! Then the registry of the target has it, which waits for the replacements under way and refuses
//! later ones. A slice that was reopened just before is found by a second look, and then the seal is
//! taken back. So a purge after the command's end can neither erase history nor look like drift.

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{late_change, scrub};
use crate::model::clock::{LAST, rfc3339_seconds};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::work::due::{Standing, View};
use crate::work::worker::{WorkError, Worker};
use crate::work::{identity, ready, standings};

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
    /// The seal in the store that all rollups of the table have. `None`: one of them has none.
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
        let seal = ready::watermark(worker, rollup).await?.seal();
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

/// Seals all slices of the table's rollups that start before `before`. A later seal stays.
///
/// # Errors
/// Rows before that instant are still needed, or became so meanwhile; then the seals are as they
/// were. Or a server refuses; then the same call completes the seal.
pub async fn seal(
    worker: &Worker,
    table: &CountedTable<'_>,
    before: DateTime<Utc>,
) -> Result<(), WorkError> {
    let seals: Vec<_> = table.rollups.iter().map(|rollup| (*rollup, before)).collect();
    match try_seal(worker, &seals).await? {
        Some(needed) => Err(WorkError::Usage(still_needed(&needed, before))),
        None => Ok(()),
    }
}

/// As [`seal`], each rollup before an instant of its own. Returns one that still needs rows before
/// its instant.
pub(super) async fn try_seal(
    worker: &Worker,
    seals: &[(&Rollup, DateTime<Utc>)],
) -> Result<Option<NeededRows>, WorkError> {
    let mut earlier = Vec::new();
    for (rollup, before) in seals {
        let known = ready::watermark(worker, rollup).await?.seal();
        let found = needed(worker, rollup, known).await?;
        if found.before < *before {
            return Ok(Some(found));
        }
        earlier.push((*rollup, *before, known));
    }
    for (rollup, before, known) in &earlier {
        let seal = (*known).max(Some(*before));
        worker.checkpoints.set_seal(&rollup.name, seal, LAST).await?;
        worker.target.seal(rollup, seal).await?;
    }
    for (rollup, before, known) in &earlier {
        let again = needed(worker, rollup, *known).await?;
        if again.before < *before {
            for (rollup, _, known) in &earlier {
                open_until(worker, rollup, *known).await?;
            }
            return Ok(Some(again));
        }
    }
    Ok(None)
}

/// Removes the seals of the table's rollups from the store. What changed meanwhile becomes due.
///
/// # Errors
/// A server refuses. The same call completes it.
pub async fn unseal(worker: &Worker, table: &CountedTable<'_>) -> Result<(), WorkError> {
    for rollup in &table.rollups {
        identity::recognised(worker, rollup).await?;
        open_until(worker, rollup, None).await?;
    }
    Ok(())
}

/// Moves the seal of `rollup` back, as far as `keep` lets it. The registry comes first: as long as the store has the seal, no
/// slice is claimed that the fence would refuse.
async fn open_until(
    worker: &Worker,
    rollup: &Rollup,
    seal: Option<DateTime<Utc>>,
) -> Result<(), WorkError> {
    let seal = ready::watermark(worker, rollup).await?.kept_seal().max(seal);
    worker.target.seal(rollup, seal).await?;
    let back_to = seal.unwrap_or(rollup.start).max(rollup.start);
    Ok(worker.checkpoints.set_seal(&rollup.name, seal, back_to).await?)
}

fn still_needed(found: &NeededRows, before: DateTime<Utc>) -> Fault {
    let NeededRows { rollup, before: first, why, .. } = found;
    let (before, first) = (rfc3339_seconds(before), rfc3339_seconds(*first));
    Fault::new(format!(
        "rows before {before} are still needed: rollup `{rollup}` needs those from {first} on ({why})"
    ))
    .remedy(format!("seal before {first}, or run the command again once that slice is done"))
}
