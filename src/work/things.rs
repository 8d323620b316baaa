//! Searches of an app's things outside of a slice's turn: counts for estimates and comparisons, and
//! changes of things that were read already.

use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::checkpoint::SearchedChanges;
use crate::clients::bubble::{Page, Thing, ThingSearch, Units};
use crate::model::clock::{Deadline, LAST};
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
    if worker.checkpoints.searched(&rollup.name).await?.is_some() {
        return Ok(());
    }
    let now = worker.clock.now();
    let page = find(worker, rollup, &ThingSearch::count(&mirror.thing, rollup.start, now)).await?;
    let searched = SearchedChanges::wholly(page.answered_at - grace(rollup));
    Ok(worker.checkpoints.set_searched(&rollup.name, searched).await?)
}

/// Reopens the slices of things that were changed since the last look, up to the present: a thing that
/// has changed again meanwhile shows its newest change alone. The next look begins where this one knew
/// that all changes were visible. Returns the instant before which all changes have been found.
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
    let Some(searched) = worker.checkpoints.searched(&rollup.name).await? else { return Ok(None) };
    let (now, found) = (worker.clock.now(), searched.found);
    let (mut settled, mut from) = (now - grace(rollup), searched.until);
    if settled - found < LOOK_EVERY {
        return Ok(Some(found));
    }
    // Things of later slices will be read after these changes, as only their end plus the grace lets
    // an attempt read.
    let before = rollup.newest(now).map_or(rollup.start, |newest| newest.end());
    let (mut to, mut offset, mut tied) = (LAST, 0, None);
    // Bounded by the deadline and the budget: each page moves the range or the offset.
    while deadline.remaining(&*worker.clock) >= BEGIN_MIN {
        let search = ThingSearch::changes(&mirror.thing, (from, to), before, offset);
        let page = find(worker, rollup, &search).await?;
        if offset > 0 && tied != Some(page.total) {
            // Something of this very instant has changed again, and has shifted the offset.
            (offset, tied) = (0, None);
            continue;
        }
        let now = page.answered_at;
        settled = settled.min(now - grace(rollup));
        let hours = unread(worker, rollup, &page.things, found + grace(rollup)).await?;
        let reason = "changed in the app";
        if !late::reopen_hours(worker, rollup, &hours, now, deadline, reason).await? {
            return Ok(Some(found));
        }
        let last = page.things.last().map(|thing| thing.modified_at);
        match last.filter(|_| page.remaining > 0) {
            None if to == LAST => {
                let searched = SearchedChanges::wholly(settled);
                worker.checkpoints.set_searched(&rollup.name, searched).await?;
                return Ok(Some(settled));
            }
            None => (from, to, offset, tied) = (to, LAST, 0, None),
            Some(_) if to < LAST => {
                (offset, tied) = (offset + page.things.len() as u64, Some(page.total));
            }
            Some(last) if last > from => {
                from = last;
                if last < settled {
                    let searched = SearchedChanges { until: last, found };
                    worker.checkpoints.set_searched(&rollup.name, searched).await?;
                }
            }
            // More things than a page holds changed in one millisecond. Its total must stay the same
            // while the rest of the app goes on.
            Some(_) => to = from + TimeDelta::milliseconds(1),
        }
    }
    Ok(Some(found))
}

/// The hours of the things whose slices have to be read for these changes. The look before went up to
/// `looked`.
///
/// A row that is of a thing's newest change needs no reading, unless the thing was read in the very
/// millisecond of two changes. Those before the end of the slice, or before the last look, are free of
/// that: the slice is read after its end, and was reopened by that look.
async fn unread(
    worker: &Worker,
    rollup: &Rollup,
    things: &[Thing],
    looked: DateTime<Utc>,
) -> Result<Vec<MarkedHours>, WorkError> {
    let is_old = |thing: &&Thing| {
        let slice = rollup.calendar.containing(thing.created_at);
        thing.modified_at < slice.end().max(looked)
    };
    let old: Vec<_> = things.iter().filter(is_old).collect();
    let kept = worker.target.things_as_changed(rollup, &old).await?;
    let is_unread = |thing: &&Thing| !(is_old(thing) && kept.contains(&thing.id));
    let unread = things.iter().filter(is_unread);
    Ok(unread.map(|thing| MarkedHours::at(thing.created_at)).collect())
}

/// The mirror, if changes are looked for.
fn followed(rollup: &Rollup) -> Option<&Mirror> {
    rollup.mirror.as_deref().filter(|mirror| mirror.follows_changes)
}

fn grace(rollup: &Rollup) -> TimeDelta {
    TimeDelta::from_std(rollup.grace).unwrap_or(TimeDelta::MAX)
}
