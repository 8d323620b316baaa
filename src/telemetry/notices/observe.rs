//! What a tick saw, as trouble with rollups.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Days, TimeDelta, TimeZone as _, Utc};

use super::incident::{Judged, Kind, Sighting, Told, Trouble};
use super::numbers::{self, Past};
use crate::checkpoint::{BackfillState, CheckpointError, State};
use crate::model::clock::rfc3339;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::model::text::counted;
use crate::work::compose::finer_name;
use crate::work::report::{Outcome, RollupProblem, SeenRollup, TickReport};
use crate::work::worker::{Severity, Worker};

/// Slices whose numbers are judged: eight weeks of narrower ones are many checkpoints, and wider
/// ones have no weekday.
const NARROWEST: TimeDelta = TimeDelta::hours(1);
const WIDEST: TimeDelta = TimeDelta::hours(25);

/// The shortest day of a zone, whose clock goes forward.
const DAY: TimeDelta = TimeDelta::hours(23);

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
        of_numbers(worker, (seen, report), told, &mut sighting).await?;
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
    sighting.looked_for.extend([Kind::Backfill, Kind::Stuck]);
    if let Some(id) = &seen.backfill {
        let (mark, left) = (id.clone(), seen.undone.len());
        sighting.troubles.push(Trouble { mark, ..Trouble::new(Kind::Backfill) });
        let mark = format!("{id} {left}");
        let cause = Some(format!("{} to be computed", counted(left, "slice")));
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

/// The source rows of the newest slice, once it is computed, beside those of eight weeks. The
/// rollups that are computed from this one show the same.
async fn of_numbers(
    worker: &Worker,
    (seen, report): (&SeenRollup, &TickReport),
    told: &Told,
    sighting: &mut Sighting,
) -> Result<(), CheckpointError> {
    let Ok(rollup) = worker.config.rollup(&seen.rollup) else { return Ok(()) };
    let is_derived = rollup.trailing.is_some() || finer_name(rollup).is_some();
    let newest = rollup.newest(worker.clock.now()).filter(|_| !is_derived);
    let Some(newest) = newest.filter(|it| !seen.undone.contains(&it.start())) else {
        return Ok(());
    };
    let width = newest.end() - newest.start();
    if !(NARROWEST..=WIDEST).contains(&width) {
        return Ok(());
    }
    let before = told.judged(&seen.rollup);
    let is_new = before.is_none_or(|before| before.start < newest.start());
    let is_rerun = report.slices.iter().any(|it| {
        it.rollup == seen.rollup && it.start == newest.start() && it.outcome == Outcome::Succeeded
    });
    if !is_new && !is_rerun {
        return Ok(());
    }
    let Some((rows, past)) = rows_of(worker, rollup, newest).await? else { return Ok(()) };
    let judged = numbers::judge(rows, &past);
    let odd = judged.and_then(|it| it.0);
    let previous = rollup.calendar.previous(newest).start();
    let in_a_row = match before {
        Some(before) if before.start == newest.start() => before.odd.max(1),
        Some(before) if before.start == previous => before.odd + 1,
        _ => 1,
    };
    let in_a_row = if odd.is_some() { in_a_row } else { 0 };
    sighting.judged = Some(Judged { start: newest.start(), odd: in_a_row });
    // An odd hour is chance at times, two in a row are not.
    let awaited = if width < DAY { 2 } else { 1 };
    if odd.is_none() || in_a_row >= awaited {
        sighting.looked_for.insert(Kind::Numbers);
    }
    if let Some((Some(_), usual)) = judged.filter(|_| in_a_row >= awaited) {
        let cause = format!("{rows}, and about {usual} are usual on this weekday at this time");
        sighting.troubles.push(Trouble {
            slices: [newest.start()].into(),
            cause: Some(cause),
            ..Trouble::new(Kind::Numbers)
        });
    }
    Ok(())
}

/// The source rows of a slice, and of those at the same local time before it, as far as they were
/// computed by the same definition. `None`: the slice was not computed.
async fn rows_of(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
) -> Result<Option<(u64, Vec<Past>)>, CheckpointError> {
    let from = slice.start() - TimeDelta::days(i64::from(numbers::DAYS) + 1);
    let found = worker.checkpoints.range(&rollup.name, from, slice.end()).await?;
    let Some(own) = found.iter().find(|it| it.slice_start == slice.start()) else {
        return Ok(None);
    };
    let Some(done) = own.outcome.as_ref().filter(|_| own.state == State::Succeeded) else {
        return Ok(None);
    };
    let known: BTreeMap<_, _> = found
        .iter()
        .filter(|it| it.definition == own.definition)
        .filter_map(|it| Some((it.slice_start, it.outcome.as_ref()?.rows_read)))
        .collect();
    let zone = rollup.calendar.zone();
    let local = slice.start().with_timezone(&zone).naive_local();
    let past = (1..=numbers::DAYS).filter_map(|days_ago| {
        let then = local.checked_sub_days(Days::new(days_ago.into()))?;
        let then = zone.from_local_datetime(&then).earliest()?.to_utc();
        Some(Past { days_ago, rows: *known.get(&then)? })
    });
    Ok(Some((done.rows_read, past.collect())))
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
