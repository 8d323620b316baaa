//! What a tick saw, as trouble with rollups.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::incident::{Kind, Sighting, Told, Trouble};
use super::newest;
use crate::checkpoint::{BackfillState, CheckpointError};
use crate::model::clock::rfc3339;
use crate::model::text::counted;
use crate::work::report::{RollupProblem, SeenRollup, TickReport};
use crate::work::worker::{Severity, Worker};

/// The rollups that a tick has looked at, with their trouble. A rollup that it could not look at has
/// only the trouble that kept it from that.
///
/// # Errors
/// The checkpoints are unavailable.
pub(super) async fn sightings(
    worker: &Worker,
    report: &TickReport,
    told: &Told,
) -> Result<Vec<Sighting>, CheckpointError> {
    let mut sightings = BTreeMap::<&str, Sighting>::new();
    for seen in &report.seen {
        let mut sighting = of_slices(seen);
        of_backfill(worker, seen, told, &mut sighting).await?;
        of_drift(worker, report, told, &mut sighting).await?;
        newest::look(worker, (seen, report), told, &mut sighting).await?;
        sightings.insert(&seen.rollup, sighting);
    }
    for problem in &report.problems {
        // Without time, a tick may not know which rollup it was at.
        if !problem.rollup.is_empty() {
            add(sightings.entry(&problem.rollup).or_default(), problem);
        }
    }
    for seen in sightings.values_mut() {
        close(seen, report.is_asleep);
    }
    Ok(sightings.into_values().collect())
}

/// Adds a problem of a rollup.
pub(super) fn add(seen: &mut Sighting, problem: &RollupProblem) {
    seen.rollup.clone_from(&problem.rollup);
    let trouble = of_problem(problem);
    if !seen.troubles.iter().any(|it| it.kind == trouble.kind) {
        seen.troubles.push(trouble);
    }
}

/// Ends what a tick saw of a rollup, once all problems are added.
pub(super) fn close(seen: &mut Sighting, is_asleep: bool) {
    let has = |kind| seen.troubles.iter().any(|it| it.kind == kind);
    let (is_stopped, is_missed) = (has(Kind::Stopped), has(Kind::Capture));
    // A source that sleeps, or a rollup that cannot be worked on, shows nothing of the rest.
    if !is_asleep || is_stopped {
        seen.looked_for.insert(Kind::Stopped);
    }
    if is_missed || !(is_asleep || is_stopped) {
        seen.looked_for.insert(Kind::Capture);
    }
}

/// The trouble with slices.
pub(super) fn of_slices(seen: &SeenRollup) -> Sighting {
    let of = |kind, slices: &BTreeSet<DateTime<Utc>>| {
        let trouble = Trouble { slices: slices.clone(), ..Trouble::new(kind) };
        (!slices.is_empty()).then_some(trouble)
    };
    let mut troubles = Vec::new();
    troubles.extend(of(Kind::Exhausted, &seen.exhausted));
    troubles.extend(of(Kind::Failing, &seen.failing));
    // The oldest slice holds the watermark. A slice that fails is told of as such.
    let oldest = seen.undone.first().filter(|start| {
        seen.backfill.is_none() && !seen.exhausted.contains(start) && !seen.failing.contains(start)
    });
    troubles.extend(oldest.map(|start| Trouble {
        slices: [*start].into(),
        mark: rfc3339(*start),
        cause: Some(format!("{} to be computed", counted(seen.undone.len(), "slice"))),
        ..Trouble::new(Kind::Behind)
    }));
    let looked_for = [Kind::Exhausted, Kind::Failing, Kind::Behind].into();
    Sighting {
        rollup: seen.rollup.clone(),
        looked_for,
        troubles,
        undone: seen.undone.clone(),
        ..Sighting::default()
    }
}

/// The trouble with a fanned-out backfill, and its end.
async fn of_backfill(
    worker: &Worker,
    seen: &SeenRollup,
    told: &Told,
    sighting: &mut Sighting,
) -> Result<(), CheckpointError> {
    under_way(seen, sighting);
    let before = told.mark(Kind::Backfill, &seen.rollup);
    let Some(id) = before.filter(|id| seen.backfill.as_deref() != Some(id)) else { return Ok(()) };
    let Some(ended) = worker.checkpoints.backfill(&seen.rollup, id).await? else { return Ok(()) };
    let rollup = &seen.rollup;
    sighting.ended_backfill = Some(match (ended.state, ended.exhausted_in_round) {
        (BackfillState::Cancelled, _) => format!("the backfill {id} of {rollup} was cancelled"),
        (_, 0) => format!("the backfill {id} of {rollup} is done"),
        (_, exhausted) => format!(
            "the backfill {id} of {rollup} is done, but for slices that failed too often: {exhausted}"
        ),
    });
    Ok(())
}

/// A fanned-out backfill that is under way, and may be stuck.
pub(super) fn under_way(seen: &SeenRollup, sighting: &mut Sighting) {
    sighting.looked_for.extend([Kind::Backfill, Kind::Stuck]);
    let Some(id) = &seen.backfill else { return };
    let (mark, left) = (id.clone(), seen.undone.len());
    sighting.troubles.push(Trouble { mark, ..Trouble::new(Kind::Backfill) });
    let mark = format!("{id} {left}");
    let cause = Some(format!("{} to be computed", counted(left, "slice")));
    sighting.troubles.push(Trouble { mark, cause, ..Trouble::new(Kind::Stuck) });
}

/// Old slices that differ from the source. They are read where this tick found one, or an earlier
/// one did.
async fn of_drift(
    worker: &Worker,
    report: &TickReport,
    told: &Told,
    sighting: &mut Sighting,
) -> Result<(), CheckpointError> {
    let rollup = &sighting.rollup;
    let is_found = report.scrub.drifted.iter().any(|it| it.found.rollup == *rollup);
    if worker.config.scrub.is_none() {
        return Ok(());
    }
    sighting.looked_for.insert(Kind::Drift);
    if !is_found && told.mark(Kind::Drift, rollup).is_none() {
        return Ok(());
    }
    let drift = worker.checkpoints.scrub(rollup).await?.drift;
    drifted(drift.into_keys().collect(), sighting);
    Ok(())
}

/// The slices that differ from the source.
pub(super) fn drifted(slices: BTreeSet<DateTime<Utc>>, sighting: &mut Sighting) {
    if !slices.is_empty() {
        sighting.troubles.push(Trouble { slices, ..Trouble::new(Kind::Drift) });
    }
}

/// A problem of a whole rollup. The texts of alarms are Tallymark's own. Others may quote a server.
fn of_problem(problem: &RollupProblem) -> Trouble {
    if problem.is_alarm {
        let remedy = problem.hint.as_ref().map_or_else(String::new, |hint| format!("; {hint}"));
        let cause = Some(format!("{}{remedy}", problem.error));
        return Trouble { cause, ..Trouble::new(Kind::Capture) };
    }
    let cause = match problem.severity() {
        Some(Severity::Unreachable) => "a server is out of reach, full or read-only",
        Some(Severity::Usage) => "the configuration, a table or a privilege does not fit",
        Some(Severity::Failed) | None => "a server refuses",
    };
    Trouble { cause: Some(cause.to_owned()), ..Trouble::new(Kind::Stopped) }
}
