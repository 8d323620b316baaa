//! Whether the numbers of a rollup's newest slice are as they should be, once it is computed.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Days, TimeDelta, TimeZone as _, Utc};

use super::expected::{self, Total};
use super::incident::{Judged, Kind, Sighting, Told, Trouble};
use super::numbers::{self, Past};
use crate::checkpoint::{Checkpoint, CheckpointError, State};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::rollup::expect::Limits;
use crate::model::slice::Slice;
use crate::work::compose::finer_name;
use crate::work::report::{Outcome, SeenRollup, TickReport};
use crate::work::worker::Worker;

/// Slices that are compared with those of the same weekday: eight weeks of narrower ones are many
/// checkpoints, and wider ones have no weekday.
const NARROWEST: TimeDelta = TimeDelta::hours(1);
const WIDEST: TimeDelta = TimeDelta::hours(25);

/// The shortest day of a zone, whose clock goes forward.
const DAY: TimeDelta = TimeDelta::hours(23);

/// How long the numbers of shorter slices are right before their incident is over.
const RIGHT_MIN: TimeDelta = TimeDelta::days(1);

/// Earlier slices that wider ones are compared with.
const WIDER: u16 = numbers::DAYS / 7;

/// The time for the sums of measures. They are left to the next tick beyond it.
const TOTALS_MAX: Duration = Duration::from_secs(1);

/// The numbers of a slice, and of those that it is compared with.
#[derive(Clone, Debug)]
pub(super) struct Numbers<'l> {
    pub(super) slice: Slice,
    /// The start of the slice before it.
    pub(super) previous: DateTime<Utc>,
    pub(super) rows: u64,
    /// The source rows of earlier slices. `None`: they are not compared.
    pub(super) past: Option<Vec<Past>>,
    pub(super) totals: Vec<Total<'l>>,
}

/// Judges the newest slice of a rollup. The rollups that are computed from it have the same rows, so
/// only their own limits are judged.
///
/// # Errors
/// The checkpoints are unavailable.
pub(super) async fn look(
    worker: &Worker,
    (seen, report): (&SeenRollup, &TickReport),
    told: &Told,
    sighting: &mut Sighting,
) -> Result<(), CheckpointError> {
    let Ok(rollup) = worker.config.rollup(&seen.rollup) else { return Ok(()) };
    let Some(newest) = rollup.newest(worker.clock.now()) else { return Ok(()) };
    let limits = &rollup.expect.limits;
    let has_weekdays = has_weekdays(rollup, newest);
    if !has_weekdays && limits.is_empty() {
        // Ends what was told before the file said so.
        sighting.looked_for.insert(Kind::Numbers);
        return Ok(());
    }
    let before = told.judged(&seen.rollup);
    // Sums are read from the target, which may be asleep or out of reach.
    let is_left = !limits.is_empty() && (report.is_asleep || report.is_blocked(rollup));
    if is_left || !is_due(rollup, newest, (seen, report), before) {
        return Ok(());
    }
    let Some(numbers) = read(worker, rollup, newest, has_weekdays).await? else { return Ok(()) };
    judge(&numbers, before, sighting);
    Ok(())
}

/// Whether the source rows of a rollup are compared with those of the same weekday.
fn has_weekdays(rollup: &Rollup, slice: Slice) -> bool {
    let is_derived = rollup.trailing.is_some() || finer_name(rollup).is_some();
    let is_fit = (NARROWEST..=WIDEST).contains(&slice.duration());
    rollup.expect.weekdays && is_fit && !is_derived
}

/// Whether the newest slice is computed, and no tick has judged it as it is now.
fn is_due(
    rollup: &Rollup,
    newest: Slice,
    (seen, report): (&SeenRollup, &TickReport),
    before: Option<Judged>,
) -> bool {
    let is_new = before.is_none_or(|before| before.start < newest.start());
    let is_rerun = report.slices.iter().any(|it| {
        it.rollup == rollup.name && it.start == newest.start() && it.outcome == Outcome::Succeeded
    });
    !seen.undone.contains(&newest.start()) && (is_new || is_rerun)
}

/// Judges the numbers of the newest slice. `before` is the newest that was judged before.
pub(super) fn judge(numbers: &Numbers<'_>, before: Option<Judged>, sighting: &mut Sighting) {
    let Numbers { slice, previous, rows, past, totals } = numbers;
    let (start, is_short) = (slice.start(), slice.duration() < DAY);
    let judged = past.as_deref().and_then(|past| numbers::judge(*rows, past));
    let is_odd = judged.is_some_and(|it| it.0.is_some());
    let odd = match before {
        _ if !is_odd => 0,
        Some(before) if before.start == start => before.odd.max(1),
        Some(before) if before.start == *previous => before.odd + 1,
        _ => 1,
    };
    // An odd hour is chance at times, two in a row are not.
    let is_told = odd >= if is_short { 2 } else { 1 };
    let unusual = judged.filter(|_| is_told).map(|(_, usual)| {
        format!("{rows} source rows, and about {usual} are usual on this weekday at this time")
    });
    let breaches = totals.iter().filter_map(expected::breach);
    let causes: Vec<_> = unusual.into_iter().chain(breaches).collect();
    let is_right = !is_odd && causes.is_empty();
    let since = before.and_then(|before| before.right_since).unwrap_or(start);
    sighting.judged = Some(Judged { start, odd, right_since: is_right.then_some(since) });
    // Clocks in another zone look right at some hours of each day.
    let is_over = is_right && (!is_short || slice.end() - since >= RIGHT_MIN);
    if is_over || !causes.is_empty() {
        sighting.looked_for.insert(Kind::Numbers);
    }
    if !causes.is_empty() {
        sighting.troubles.push(Trouble {
            slices: [start].into(),
            cause: Some(causes.join("; ")),
            ..Trouble::new(Kind::Numbers)
        });
    }
}

/// The numbers of a slice. `None`: it was not computed, or its measures cannot be added up now.
async fn read<'r>(
    worker: &Worker,
    rollup: &'r Rollup,
    slice: Slice,
    has_weekdays: bool,
) -> Result<Option<Numbers<'r>>, CheckpointError> {
    let earlier = earlier(rollup, slice);
    let known = checkpoints(worker, rollup, slice, has_weekdays, &earlier).await?;
    let Some(own) = known.get(&slice.start()).filter(|it| it.state == State::Succeeded) else {
        return Ok(None);
    };
    let Some(done) = &own.outcome else { return Ok(None) };
    let rows_of = |slice: &Slice| {
        let known = known.get(&slice.start()).filter(|it| it.definition == own.definition)?;
        Some(known.outcome.as_ref()?.rows_read)
    };
    let past = earlier
        .iter()
        .filter_map(|(days_ago, slice)| Some(Past { days_ago: *days_ago, rows: rows_of(slice)? }));
    let past = has_weekdays.then(|| past.collect());
    let same = earlier.iter().filter(|(days_ago, slice)| {
        days_ago % 7 == 0 && rows_of(slice).is_some() && !is_kept_away(worker, rollup, *slice)
    });
    let slices: Vec<_> = std::iter::once(slice).chain(same.map(|it| it.1)).collect();
    let Some(totals) = totals(worker, rollup, &slices).await else { return Ok(None) };
    let previous = rollup.calendar.previous(slice).start();
    Ok(Some(Numbers { slice, previous, rows: done.rows_read, past, totals }))
}

/// Whether the rows of `slice` may be deleted, as the rollup does not keep them.
fn is_kept_away(worker: &Worker, rollup: &Rollup, slice: Slice) -> bool {
    let kept = rollup.keep.and_then(|keep| TimeDelta::from_std(keep).ok());
    kept.is_some_and(|kept| slice.end() < worker.clock.now() - kept)
}

/// The slices that one is compared with, and how many days ago they began: those at the same local
/// time of eight weeks. Wider slices have no weekday. For them it is those before, a week for each.
fn earlier(rollup: &Rollup, slice: Slice) -> Vec<(u16, Slice)> {
    let calendar = &rollup.calendar;
    if slice.duration() > WIDEST {
        let before = std::iter::successors(Some(slice), |it| Some(calendar.previous(*it)));
        return (1..=WIDER).map(|weeks| 7 * weeks).zip(before.skip(1)).collect();
    }
    let zone = calendar.zone();
    let local = slice.start().with_timezone(&zone).naive_local();
    let at_that_time = |days_ago: u16| {
        let then = local.checked_sub_days(Days::new(days_ago.into()))?;
        let then = zone.from_local_datetime(&then).earliest()?.to_utc();
        Some((days_ago, calendar.starting(then).ok()?))
    };
    (1..=numbers::DAYS).filter_map(at_that_time).collect()
}

/// The checkpoints of a slice and of those that it is compared with.
async fn checkpoints(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    has_weekdays: bool,
    earlier: &[(u16, Slice)],
) -> Result<BTreeMap<DateTime<Utc>, Checkpoint>, CheckpointError> {
    if has_weekdays {
        let from = slice.start() - TimeDelta::days(i64::from(numbers::DAYS) + 1);
        let found = worker.checkpoints.range(&rollup.name, from, slice.end()).await?;
        return Ok(found.into_iter().map(|it| (it.slice_start, it)).collect());
    }
    let has_drop = rollup.expect.limits.iter().any(|it| it.drop.is_some());
    let same = earlier.iter().filter(|(days_ago, _)| has_drop && days_ago % 7 == 0);
    let mut known = BTreeMap::new();
    for slice in std::iter::once(slice).chain(same.map(|it| it.1)) {
        let start = slice.start();
        known.extend(worker.checkpoints.get(&rollup.name, start).await?.map(|it| (start, it)));
    }
    Ok(known)
}

/// The sums of the measures with limits: of the first slice, and of the others as its past. `None`:
/// the target does not tell them now.
async fn totals<'r>(
    worker: &Worker,
    rollup: &'r Rollup,
    slices: &[Slice],
) -> Option<Vec<Total<'r>>> {
    let limits = &rollup.expect.limits;
    if limits.is_empty() {
        return Some(Vec::new());
    }
    let measures: Vec<_> = limits.iter().map(|it| &*it.measure).collect();
    let asked = worker.target.totals(rollup, &measures, slices, TOTALS_MAX);
    let found = match tokio::time::timeout(TOTALS_MAX, asked).await {
        Ok(found) => found.map_err(|error| Fault::of(&error)),
        Err(_) => Err(Fault::new("the target did not add up the measures in a second")),
    };
    let rows = match found {
        Ok(rows) => rows,
        Err(fault) => {
            let (error, hint) = fault.into_parts();
            let rollup = &*rollup.name;
            tracing::warn!(rollup, error, hint, "what is expected is judged by the next tick");
            return None;
        }
    };
    let column =
        |place: usize| rows.iter().filter_map(move |row: &Vec<f64>| row.get(place).copied());
    let total = |(place, limits): (usize, &'r Limits)| {
        let mut values = column(place);
        Some(Total { limits, now: values.next()?, past: values.collect() })
    };
    limits.iter().enumerate().map(total).collect()
}
