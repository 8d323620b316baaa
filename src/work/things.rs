//! Searches of an app's things outside of a slice's turn: counts for estimates and comparisons, and
//! changes of things that were read already.

use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::clients::bubble::{Page, ThingSearch, Units};
use crate::model::clock::Deadline;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::rollup::mirror::Mirror;
use crate::source::changes::marks::MarkedHours;
use crate::work::backlog::BEGIN_MIN;
use crate::work::meter::Meter;
use crate::work::worker::{WorkError, Worker};
use crate::work::{access, late, ready};

/// Longest time for one request with all its tries.
const ASKED_MAX: Duration = Duration::from_secs(60);

/// Changes are looked for once they make up this much time, as each look is paid for.
const LOOK_EVERY: TimeDelta = TimeDelta::hours(1);

/// How many things of the mirror's type were created in `[start, end)`, by the app's own count. With
/// too few rights it is a smaller number ([`prove`]).
///
/// # Errors
/// The app refuses or cannot answer, or the month's budget is spent.
pub(crate) async fn count(
    worker: &Worker,
    rollup: &Rollup,
    (start, end): (DateTime<Utc>, DateTime<Utc>),
) -> Result<u64, WorkError> {
    let Some(mirror) = &rollup.mirror else {
        let fault = Fault::new(format!("rollup `{}` is no mirror of an app", rollup.name));
        return Err(WorkError::Usage(fault.remedy("name a mirror")));
    };
    Ok(find(worker, rollup, &ThingSearch::count(&mirror.thing, start, end)).await?.total)
}

/// The things of `search`, within the month's budget.
async fn find(
    worker: &Worker,
    rollup: &Rollup,
    search: &ThingSearch<'_>,
) -> Result<Page, WorkError> {
    let units = Mutex::default();
    let mut meter = meter(worker, rollup, &units)?;
    let found = meter.find(search).await;
    meter.settle().await;
    let refused = |fault: Fault| WorkError::Usage(fault.at(format!("rollup `{}`", rollup.name)));
    found.map_err(WorkError::NotNow)?.map_err(refused)
}

fn meter<'w>(
    worker: &'w Worker,
    rollup: &'w Rollup,
    units: &'w Mutex<Units>,
) -> Result<Meter<'w>, WorkError> {
    let deadline = Deadline::after(&*worker.clock, ASKED_MAX);
    Meter::new(worker, rollup, None, deadline, units).map_err(WorkError::Usage)
}

/// Proves that the token's rights suffice for a mirror.
///
/// # Errors
/// They do not, or the app cannot answer.
pub(crate) async fn prove(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    let Some(mirror) = &rollup.mirror else { return Ok(()) };
    let units = Mutex::default();
    let mut meter = meter(worker, rollup, &units)?;
    let slice = rollup.calendar.containing(rollup.start);
    let proved = access::prove(rollup, mirror, slice, worker.clock.now(), &mut meter).await;
    meter.settle().await;
    proved.map_err(WorkError::NotNow)?.map_err(WorkError::Usage)
}

/// Proves at `init` that the app takes the token, and has the branch, type and fields of a mirror. A
/// type may still be without any thing then.
///
/// # Errors
/// As [`prove`].
pub(crate) async fn prove_answers(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    let Some(mirror) = &rollup.mirror else { return Ok(()) };
    let units = Mutex::default();
    let mut meter = meter(worker, rollup, &units)?;
    let slice = rollup.calendar.containing(rollup.start);
    let proved = access::prove_answers(mirror, slice, &mut meter).await;
    meter.settle().await;
    proved.map_err(WorkError::NotNow)?.map_err(WorkError::Usage)
}

/// Proves at `check` and `init` that the app knows the fields of a mirror, where it hides its
/// description. A renamed one looks as if it were empty, until a page is read.
///
/// # Errors
/// As [`prove`].
pub(crate) async fn prove_hidden_fields(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    let Some(mirror) = &rollup.mirror else { return Ok(()) };
    let units = Mutex::default();
    let mut meter = meter(worker, rollup, &units)?;
    let slice = rollup.calendar.containing(rollup.start);
    let proved = access::prove_hidden_fields(mirror, slice, &mut meter).await;
    meter.settle().await;
    proved.map_err(WorkError::NotNow)?.map_err(WorkError::Usage)
}

/// Records where the search for changes starts, before anything is read. A change is visible within
/// the grace, by the app's clock.
///
/// # Errors
/// As [`count`], or the store fails.
pub(crate) async fn watch_changes(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    let Some(mirror) = followed(rollup) else { return Ok(()) };
    if worker.checkpoints.changes_until(&rollup.name).await?.is_some() {
        return Ok(());
    }
    let now = worker.clock.now();
    let page = find(worker, rollup, &ThingSearch::count(&mirror.thing, rollup.start, now)).await?;
    let until = page.answered_at - grace(rollup);
    Ok(worker.checkpoints.set_changes_until(&rollup.name, until).await?)
}

/// Reopens the slices of things that were changed since the last look. Each change is found once,
/// when it has been visible for the grace. Returns the instant before which earlier looks have found
/// all changes.
///
/// # Errors
/// As [`count`], or the store fails.
pub(crate) async fn notice_changes(
    worker: &Worker,
    rollup: &Rollup,
    deadline: Deadline,
) -> Result<Option<DateTime<Utc>>, WorkError> {
    let Some(mirror) = followed(rollup) else { return Ok(None) };
    ready::check(worker, rollup).await?;
    let from = worker.checkpoints.changes_until(&rollup.name).await?;
    let (Some(mut from), until) = (from, worker.clock.now() - grace(rollup)) else {
        return Ok(None);
    };
    let known = Some(from);
    if until - from < LOOK_EVERY {
        return Ok(known);
    }
    let (mut offset, mut tied, mut settled) = (0, None, until);
    // Bounded by the deadline and the budget: each page moves the range or the offset.
    while deadline.remaining(&*worker.clock) >= BEGIN_MIN {
        let search = ThingSearch::changes(&mirror.thing, from, until, offset);
        let page = find(worker, rollup, &search).await?;
        if offset > 0 && tied != Some(page.total) {
            // Something of this very instant has changed again, and has shifted the offset.
            (offset, tied) = (0, None);
            continue;
        }
        let now = page.answered_at;
        settled = settled.min(now - grace(rollup));
        let hours: Vec<_> =
            page.things.iter().map(|thing| MarkedHours::at(thing.created_at)).collect();
        let reason = "changed in the app";
        if !late::reopen_hours(worker, rollup, &hours, now, deadline, reason).await? {
            return Ok(known);
        }
        let last = page.things.last().map(|thing| thing.modified_at);
        let Some(last) = last.filter(|_| page.remaining > 0) else {
            worker.checkpoints.set_changes_until(&rollup.name, settled).await?;
            return Ok(known);
        };
        if last > from {
            (from, offset, tied) = (last, 0, None);
            worker.checkpoints.set_changes_until(&rollup.name, last.min(settled)).await?;
        } else {
            (offset, tied) = (offset + page.things.len() as u64, Some(page.total));
        }
    }
    Ok(known)
}

/// The mirror, if changes are looked for.
fn followed(rollup: &Rollup) -> Option<&Mirror> {
    rollup.mirror.as_deref().filter(|mirror| mirror.follows_changes)
}

fn grace(rollup: &Rollup) -> TimeDelta {
    TimeDelta::from_std(rollup.grace).unwrap_or(TimeDelta::MAX)
}
