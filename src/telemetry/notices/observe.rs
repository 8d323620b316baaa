//! What a tick saw, as trouble with rollups.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use super::incident::{Kind, Sighting, Told, Trouble};
use crate::checkpoint::{BackfillState, CheckpointError};
use crate::model::clock::rfc3339;
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
        sightings.insert(&seen.rollup, sighting);
    }
    // Without time, a tick may not know which rollup it was at.
    for problem in report.problems.iter().filter(|it| !it.rollup.is_empty()) {
        let known = sightings.entry(&problem.rollup).or_default();
        known.rollup.clone_from(&problem.rollup);
        let trouble = of_problem(problem);
        if !known.troubles.iter().any(|it| it.kind == trouble.kind) {
            known.troubles.push(trouble);
        }
    }
    for seen in sightings.values_mut() {
        let has = |kind| seen.troubles.iter().any(|it| it.kind == kind);
        let (is_stopped, is_missed) = (has(Kind::Stopped), has(Kind::Capture));
        // A source that sleeps, or a rollup that cannot be worked on, shows nothing of the rest.
        if !report.is_asleep || is_stopped {
            seen.looked_for.insert(Kind::Stopped);
        }
        if is_missed || !(report.is_asleep || is_stopped) {
            seen.looked_for.insert(Kind::Capture);
        }
    }
    Ok(sightings.into_values().collect())
}

/// The trouble with slices.
fn of_slices(seen: &SeenRollup) -> Sighting {
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
        cause: Some(format!("{} of its slices are to be computed", seen.undone.len())),
        ..Trouble::new(Kind::Behind)
    }));
    let looked_for = [Kind::Exhausted, Kind::Failing, Kind::Behind].into();
    Sighting {
        rollup: seen.rollup.clone(),
        looked_for,
        troubles,
        undone: seen.undone.clone(),
        ended_backfill: None,
    }
}

/// The trouble with a fanned-out backfill, and its end.
async fn of_backfill(
    worker: &Worker,
    seen: &SeenRollup,
    told: &Told,
    sighting: &mut Sighting,
) -> Result<(), CheckpointError> {
    sighting.looked_for.extend([Kind::Backfill, Kind::Stuck]);
    if let Some(id) = &seen.backfill {
        let (mark, left) = (id.clone(), seen.undone.len());
        sighting.troubles.push(Trouble { mark, ..Trouble::new(Kind::Backfill) });
        let mark = format!("{id} {left}");
        let cause = Some(format!("{left} slices are to be computed"));
        sighting.troubles.push(Trouble { mark, cause, ..Trouble::new(Kind::Stuck) });
    }
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
    if !drift.is_empty() {
        let slices = drift.into_keys().collect();
        sighting.troubles.push(Trouble { slices, ..Trouble::new(Kind::Drift) });
    }
    Ok(())
}

/// A problem of a whole rollup. The texts of alarms are Tallymark's own. Others may quote a server.
fn of_problem(problem: &RollupProblem) -> Trouble {
    if problem.is_alarm {
        return Trouble { cause: Some(problem.error.clone()), ..Trouble::new(Kind::Capture) };
    }
    let cause = match problem.severity() {
        Some(Severity::Unreachable) => "a server cannot be reached",
        Some(Severity::Usage) => "the configuration, a table or a privilege does not fit",
        Some(Severity::Failed) | None => "a server refuses",
    };
    Trouble { cause: Some(cause.to_owned()), ..Trouble::new(Kind::Stopped) }
}
