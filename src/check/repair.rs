//! Repair makes the checkpoints follow the target. The marker is the truth about commits.
//! Checkpoints that were lost, or that promise rows the target lacks, are corrected.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::Row as _;

use crate::checkpoint::{self, Checkpoint, Completion, Restored, State};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbError};
use crate::model::clock::LAST;
use crate::model::rollup::{Late, Rollup};
use crate::model::sql::{literal, timestamptz};
use crate::source;
use crate::work::worker::{WorkError, Worker};
use crate::work::{compose, empty, identity, ready};

/// Markers are read in pages of this size, so that ten years of hours fit into memory.
const PAGE: usize = 1000;

/// The corrections for one rollup.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RepairReport {
    pub rollup: String,
    /// Markers compared.
    pub markers: usize,
    /// Checkpoints rebuilt from markers.
    pub restored: Vec<DateTime<Utc>>,
    /// Checkpoints of success that were reopened because the rows they promise are missing.
    pub reopened: Vec<DateTime<Utc>>,
    /// The seal that the checkpoints or the target had lost. `None`: both have the same.
    pub sealed_before: Option<DateTime<Utc>>,
    /// Why only `tallymark verify --repair` can prove the rollup right. `None`: every success is
    /// proven.
    pub unproven: Option<String>,
    /// A possible loss that neither markers nor checkpoints show, and the command that finds it.
    pub reminder: Option<String>,
}

struct FoundMarker {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    attempt: u64,
    owner: Option<String>,
    definition: Option<String>,
    rows_read: u64,
    groups: u64,
    replaced_at: Option<DateTime<Utc>>,
    /// The attempt that wrote the rows. `None`: an older version wrote them.
    replaced_by: Option<u64>,
    replaced_owner: Option<String>,
    /// Whether its rows were taken over from another job's table.
    is_adopted: bool,
    /// Whether readers see it as stale.
    is_raised: bool,
}

impl FoundMarker {
    /// Whether the rows are those that the success of `checkpoint` promises. An older marker comes
    /// from a restored target, or its rows were never committed.
    fn holds_rows_of(&self, checkpoint: &Checkpoint) -> bool {
        if self.replaced_at.is_none() {
            return false;
        }
        // Markers of older versions lack the owner.
        let is_owner = self.replaced_owner.is_none() || self.replaced_owner == checkpoint.owner;
        is_owner && self.replaced_by.unwrap_or(self.attempt) == checkpoint.attempt
    }
}

/// Compares the checkpoints of `rollup` with its markers. With `dry_run` it changes nothing.
///
/// # Errors
/// The target or the checkpoints cannot be read.
pub async fn run(
    worker: &Worker,
    rollup: &Rollup,
    dry_run: bool,
) -> Result<RepairReport, WorkError> {
    let mut report = RepairReport { rollup: rollup.name.clone(), ..RepairReport::default() };
    if dry_run {
        identity::identify_for_dry_run(worker, rollup).await?;
    } else {
        identity::identify_for_repair(worker, rollup).await?;
        forget_staged(worker, rollup).await?;
        let registered = worker.target.registered(rollup).await?;
        ready::adopt(worker, rollup, &registered, None).await?;
    }
    let definition = ready::definition(worker, rollup).await?;
    let (lost, seal) = carry_seal(worker, rollup, dry_run).await?;
    report.sealed_before = lost;
    let of = Repaired { rollup, definition: &definition, seal };
    let mut from = DateTime::<Utc>::MIN_UTC.max(rollup.start);
    // Bounded, as every page starts after the one before.
    loop {
        let mut markers = markers(worker, rollup, from).await?;
        let last_page = markers.len() < PAGE;
        let to = match markers.last() {
            Some(last) if !last_page => rollup.calendar.containing(last.start).end(),
            _ => worker.clock.now(),
        };
        let adopted = markers.iter().filter(|marker| marker.is_adopted);
        if let (Some(last), false) = (adopted.map(|marker| marker.end).max(), dry_run) {
            // Such a slice has no checkpoint, as nothing can compute it.
            worker.checkpoints.note_adopted(&rollup.name, last).await?;
            worker.checkpoints.note_kept_seal(&rollup.name, last).await?;
        }
        markers.retain(|marker| !marker.is_adopted);
        // Markers of another calendar belong to no slice, even where one starts at the same
        // instant.
        markers.retain(|marker| {
            let slice = rollup.calendar.starting(marker.start);
            slice.is_ok_and(|slice| slice.end() == marker.end)
        });
        let range = (from, to);
        repair_range(worker, of, &markers, range, dry_run, &mut report).await?;
        if last_page {
            return reported(worker, rollup, report, dry_run).await;
        }
        from = to;
    }
}

/// The report after all markers were compared, with the points that it leaves open.
async fn reported(
    worker: &Worker,
    rollup: &Rollup,
    mut report: RepairReport,
    dry_run: bool,
) -> Result<RepairReport, WorkError> {
    let seen = worker.checkpoints.watermark(&rollup.name).await?;
    let went_back = seen.bond().is_some_and(identity::has_target_gone_back);
    report.reminder = reminder(rollup, &report);
    let reason = unproven(rollup, &report, went_back);
    report.unproven = match dry_run {
        true => reason.or_else(|| seen.bond().and_then(identity::still_unproven)),
        false => identity::repaired(worker, rollup, reason).await?,
    };
    if !dry_run && seen.source_start().is_some() {
        // A restored source may have rows before those with which it was known to begin.
        empty::probe(worker, rollup).await?;
    }
    Ok(report)
}

/// Deletes the staged chunks of unfinished attempts. A checkpoint that was lost or restored may
/// lack a late change that reopened the slice after its first chunks were read.
async fn forget_staged(worker: &Worker, rollup: &Rollup) -> Result<(), DbError> {
    let db = &worker.target.db;
    let mut tx = db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let name = literal(&rollup.name);
    let sql = format!("DELETE FROM tallymark.progress WHERE rollup = {name}");
    tx.execute("forgetting the progress", sql).await?;
    tx.commit().await
}

/// Gives checkpoints and target the later of their two seals, so that a lost one opens no history
/// whose rows may be purged. Returns it if one of them had lost it, and the seal that counts, with
/// the file's.
async fn carry_seal(
    worker: &Worker,
    rollup: &Rollup,
    dry_run: bool,
) -> Result<(Option<DateTime<Utc>>, Option<DateTime<Utc>>), WorkError> {
    let registered = worker.target.registered(rollup).await?.sealed_before;
    let known = worker.checkpoints.watermark(&rollup.name).await?.seal();
    let later = registered.max(known);
    if !dry_run && known < later {
        worker.checkpoints.set_seal(&rollup.name, later, LAST).await?;
    }
    if !dry_run && registered < later {
        worker.target.seal(rollup, later).await?;
    }
    let lost = later.filter(|_| registered != known);
    Ok((lost, rollup.seal_before.max(later)))
}

/// The rollup that is repaired.
#[derive(Clone, Copy)]
struct Repaired<'r> {
    rollup: &'r Rollup,
    definition: &'r str,
    /// Slices that start before this instant are sealed.
    seal: Option<DateTime<Utc>>,
}

async fn repair_range(
    worker: &Worker,
    of: Repaired<'_>,
    markers: &[FoundMarker],
    (from, to): (DateTime<Utc>, DateTime<Utc>),
    dry_run: bool,
    report: &mut RepairReport,
) -> Result<(), WorkError> {
    let (rollup, now) = (of.rollup, worker.clock.now());
    let checkpoints = worker.checkpoints.range(&rollup.name, from, to.max(from)).await?;
    report.markers += markers.len();
    let mut older = BTreeSet::new();
    for marker in markers {
        let known = checkpoints.iter().find(|known| known.slice_start == marker.start);
        let found = found(of, marker);
        if known.is_some_and(|it| it.attempt > marker.attempt || it.is_attempt_of(&found)) {
            continue;
        }
        older.insert(marker.start);
        if !dry_run {
            // The attempt that committed it may have died before it reopened the coarse slices.
            let slice = rollup.calendar.containing(marker.start);
            compose::reopen_coarse(worker, rollup, slice).await?;
        }
        let is_kept = if dry_run {
            known.is_some_and(|known| known.must_keep(&found, now))
        } else {
            if let Some(reason) = &found.stale {
                let slice = rollup.calendar.containing(marker.start);
                worker.target.raise(&rollup.name, &[slice], reason).await?;
            }
            let restored = worker.checkpoints.restore(&found, now).await?;
            matches!(restored, Restored::Kept(_))
        };
        if !is_kept {
            report.restored.push(marker.start);
        }
    }
    if !dry_run {
        raise_unfinished(worker, rollup, markers, &checkpoints).await?;
    }
    let is_slice = |it: &&Checkpoint| rollup.calendar.starting(it.slice_start).is_ok();
    let is_newer = |it: &&Checkpoint| !older.contains(&it.slice_start);
    for checkpoint in checkpoints.iter().filter(is_slice).filter(is_newer) {
        let marker = markers.iter().find(|marker| marker.start == checkpoint.slice_start);
        let committed = marker.is_some_and(|marker| marker.holds_rows_of(checkpoint));
        if checkpoint.state == State::Succeeded && !committed {
            report.reopened.push(checkpoint.slice_start);
            if !dry_run {
                let start = checkpoint.slice_start;
                let reason = match marker {
                    None => "the target has no rows of it",
                    Some(_) => "the target has rows of an older attempt",
                };
                let slice = rollup.calendar.containing(start);
                worker.target.raise(&rollup.name, &[slice], reason).await?;
                worker.checkpoints.reopen(&rollup.name, start, reason, now).await?;
            }
        }
    }
    Ok(())
}

/// Tells readers of slices that have rows and must run again. A restored target has forgotten what was
/// found since its backup.
async fn raise_unfinished(
    worker: &Worker,
    rollup: &Rollup,
    markers: &[FoundMarker],
    checkpoints: &[Checkpoint],
) -> Result<(), WorkError> {
    let is_forgotten = |marker: &FoundMarker| marker.replaced_at.is_some() && !marker.is_raised;
    let has_rows = |it: &&Checkpoint| {
        markers.iter().any(|marker| marker.start == it.slice_start && is_forgotten(marker))
    };
    let unfinished = checkpoints.iter().filter(|it| it.state != State::Succeeded);
    let slices = unfinished.filter(has_rows).map(|it| rollup.calendar.containing(it.slice_start));
    let slices: Vec<_> = slices.collect();
    Ok(worker.target.raise(&rollup.name, &slices, "its last attempt is not done").await?)
}

/// The marker in the form that the checkpoints use.
fn found(of: Repaired<'_>, marker: &FoundMarker) -> checkpoint::CommittedMarker {
    let Repaired { rollup, definition, seal } = of;
    // The reason for that attempt (late data, a replay) is still to be dealt with.
    let overtaken = marker.replaced_by.is_some_and(|attempt| attempt != marker.attempt);
    // A sealed slice is never recomputed, even after changes.
    let is_sealed = seal.is_some_and(|seal| marker.start < seal);
    let source = source::of(rollup);
    let reruns = source.reruns_after_loss().filter(|_| !is_sealed);
    let stale = match (marker.replaced_at, &marker.definition) {
        (None, _) => Some("its attempt never replaced its rows".to_owned()),
        _ if reruns.is_some() => reruns.map(str::to_owned),
        _ if overtaken => Some("its newest attempt never replaced its rows".to_owned()),
        (_, Some(known)) if is_sealed || known == definition => None,
        _ => Some("the definition has changed since".to_owned()),
    };
    checkpoint::CommittedMarker {
        rollup: rollup.name.clone(),
        slice_start: marker.start,
        attempt: marker.attempt,
        owner: marker.owner.clone(),
        definition: marker.definition.clone().unwrap_or_default(),
        outcome: Completion {
            rows_read: marker.rows_read,
            groups: marker.groups,
            settled_by: source.settled_by_default().into(),
            ..Completion::default()
        },
        committed_at: marker.replaced_at.unwrap_or(marker.start),
        stale,
    }
}

async fn markers(
    worker: &Worker,
    rollup: &Rollup,
    from: DateTime<Utc>,
) -> Result<Vec<FoundMarker>, DbError> {
    let mut tx = worker.target.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let sql = format!(
        "SELECT slice_start, slice_end, attempt, owner, definition, \
         coalesce(rows_read, 0) AS rows_read, coalesce(groups, 0) AS groups, \
         replaced_at, replaced_by, replaced_owner, attempt = 0 AS is_adopted, \
         EXISTS (SELECT FROM tallymark.outstanding o WHERE o.rollup = m.rollup \
         AND o.slice_start = m.slice_start AND o.cleared < o.generation) AS is_raised \
         FROM tallymark.slice m \
         WHERE rollup = {} AND slice_start >= {} ORDER BY slice_start LIMIT {PAGE}",
        literal(&rollup.name),
        timestamptz(from),
    );
    let rows = tx.rows("reading the markers", sql).await?;
    let markers = rows
        .iter()
        .map(|row| {
            Ok(FoundMarker {
                start: row.try_get("slice_start")?,
                end: row.try_get("slice_end")?,
                attempt: row.try_get::<i64, _>("attempt")?.unsigned_abs(),
                owner: row.try_get("owner")?,
                definition: row.try_get("definition")?,
                rows_read: row.try_get::<i64, _>("rows_read")?.unsigned_abs(),
                groups: row.try_get::<i64, _>("groups")?.unsigned_abs(),
                replaced_at: row.try_get("replaced_at")?,
                replaced_by: row.try_get::<Option<i64>, _>("replaced_by")?.map(i64::unsigned_abs),
                replaced_owner: row.try_get("replaced_owner")?,
                is_adopted: row.try_get("is_adopted")?,
                is_raised: row.try_get("is_raised")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|source| tx.error("reading the markers", source))?;
    tx.commit().await?;
    Ok(markers)
}

/// The late changes that this repair cannot prove: those that were found before checkpoints were
/// lost, and that only these recorded. Slices of a coarse rollup run again instead.
fn unproven(rollup: &Rollup, report: &RepairReport, went_back: bool) -> Option<String> {
    let late = match rollup.late {
        _ if source::of(rollup).reruns_after_loss().is_some() => return None,
        Late::Capture => "marks that were taken",
        Late::Column(_) => "changes that were seen",
        Late::Grace | Late::Clock => "replays",
    };
    let is_asked_for = matches!(rollup.late, Late::Grace | Late::Clock);
    if !report.restored.is_empty() && !is_asked_for {
        return Some(format!(
            "checkpoints were lost or older than the markers: {late} meanwhile may have reopened \
             slices that only those checkpoints knew of"
        ));
    }
    // Change times are searched again from the position in the restored checkpoints.
    let is_looked_through = matches!(rollup.late, Late::Column(_));
    let both_back = went_back && report.reopened.is_empty() && report.restored.is_empty();
    (both_back && !is_looked_through).then(|| {
        format!(
            "the target was restored, and the checkpoints agree with it; if they were restored \
             too, {late} since then are known to neither"
        )
    })
}
/// The changes that a restore may have lost without a trace.
fn reminder(rollup: &Rollup, report: &RepairReport) -> Option<String> {
    let text = match rollup.late {
        _ if source::of(rollup).reruns_after_loss().is_some() => return None,
        Late::Capture | Late::Column(_) => {
            "if target and checkpoints were both restored, or the source was: late changes since \
             then are known to neither; `tallymark verify --repair` finds them"
        }
        Late::Grace | Late::Clock if !report.restored.is_empty() => {
            "replays that were asked for and had not run are forgotten with the checkpoints; \
             `tallymark verify --repair` finds what differs"
        }
        Late::Grace | Late::Clock => return None,
    };
    Some(text.to_owned())
}
