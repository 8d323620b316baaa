//! The slices that changes of the source reach, and their reopening by one write each.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::checkpoint::{State, Watermark};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT};
use crate::model::clock::{Deadline, rfc3339};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::source::changes::marks::MarkedHours;
use crate::source::reading::first_row;
use crate::work::backlog::BEGIN_MIN;
use crate::work::due::{Standing, View};
use crate::work::worker::{WorkError, Worker};
use crate::work::{ready, standings};

/// Ranges of slices separated by fewer slices than this are read in one query.
const GAP_MAX: i32 = 64;

/// Reopens every slice that was read and overlaps one of these hours, by the source's clock
/// `now`. Returns whether the time sufficed for all.
pub(crate) async fn reopen_hours(
    worker: &Worker,
    rollup: &Rollup,
    hours: &[MarkedHours],
    now: DateTime<Utc>,
    deadline: Deadline,
    reason: &str,
) -> Result<bool, WorkError> {
    let Some(reach) = reach(worker, rollup, hours, now).await? else { return Ok(true) };
    let lateness = reach.lateness(worker, rollup, now, reason);
    for stretch in &reach.stretches {
        if deadline.remaining(&*worker.clock) < BEGIN_MIN {
            return Ok(false);
        }
        reopen_stretch(worker, &lateness, stretch).await?;
    }
    Ok(true)
}

/// Where some hours overlap slices of a rollup that are over.
pub(super) struct Reach {
    pub(super) seen: Watermark,
    pub(super) stretches: Vec<Stretch>,
}

/// Ranges that lie close together.
pub(super) struct Stretch {
    ranges: Vec<Span>,
    /// Whether slices that only counted as empty run again, too.
    pub(super) empty_too: bool,
}

impl Reach {
    pub(super) fn lateness<'a>(
        &'a self,
        worker: &Worker,
        rollup: &'a Rollup,
        now: DateTime<Utc>,
        reason: &'a str,
    ) -> Lateness<'a> {
        // A sealed slice that was read, or counted as empty, is recorded as changed but stays undue.
        // It runs again when the seal is removed.
        let view = View { seal: None, ..standings::view(worker, rollup, &self.seen, now) };
        Lateness { rollup, view, seal: self.seen.seal_of(rollup), reason }
    }
}

/// The inputs of reopening late slices.
pub(super) struct Lateness<'a> {
    rollup: &'a Rollup,
    view: View<'a>,
    /// Slices that start before this instant are sealed.
    seal: Option<DateTime<Utc>>,
    reason: &'a str,
}

/// Where these hours overlap slices of `rollup` that are over by the source's clock `now`. `None`:
/// nowhere.
pub(super) async fn reach(
    worker: &Worker,
    rollup: &Rollup,
    hours: &[MarkedHours],
    now: DateTime<Utc>,
) -> Result<Option<Reach>, WorkError> {
    if hours.is_empty() {
        return Ok(None);
    }
    let mut seen = ready::watermark(worker, rollup).await?;
    if !seen.is_adopted_by(rollup) {
        // Changes before `start` are skipped from now on. That must be recorded, in case
        // `start` moves back.
        ready::prepare(worker, rollup).await?;
        seen = ready::watermark(worker, rollup).await?;
    }
    // A slice whose time is still to come will be read after these changes.
    let Some(newest) = rollup.newest(now) else { return Ok(None) };
    let (from, mut stretches) = (rollup.start, Vec::new());
    if hours.contains(&MarkedHours::ALL) {
        stretches.push(Stretch { ranges: vec![(from, newest.end())], empty_too: false });
        // Rows that the same transaction wrote after a TRUNCATE lack marks of their own, and
        // may lie in slices that counted as empty. They are visible now, as the mark is.
        let first = first_row(worker, rollup).await?.map(|first| first.max(from));
        let first = first.map(|first| rollup.calendar.containing(first).start().max(from));
        if let Some(first) = first.filter(|first| *first < newest.end()) {
            stretches.push(Stretch { ranges: vec![(first, newest.end())], empty_too: true });
        }
    }
    let some = hours.iter().filter(|hours| **hours != MarkedHours::ALL);
    let ranges = some.filter_map(|hours| hours.within(from, newest.end()));
    let ranges = merged(
        ranges
            .map(|(start, end)| (rollup.calendar.containing(start).start().max(from), end))
            .collect(),
    );
    let gap = (newest.end() - newest.start()) * GAP_MAX;
    let groups = ranges.chunk_by(|one, other| other.0 - one.1 <= gap);
    stretches.extend(groups.map(|group| Stretch { ranges: group.to_vec(), empty_too: true }));
    Ok(Some(Reach { seen, stretches }))
}

/// The source's first row. `None`: the source is empty.
async fn first_row(worker: &Worker, rollup: &Rollup) -> Result<Option<DateTime<Utc>>, WorkError> {
    let shape = ready::check(worker, rollup).await?;
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let found = first_row::find(&mut tx, rollup, &shape).await?;
    tx.rollback().await?;
    // If that is unknown, any slice may contain one.
    Ok(found.map_or(Some(rollup.start), |found| found.first_row))
}

/// The slices of a stretch.
pub(super) struct Found {
    /// Those that were read, or counted as empty.
    pub(super) to_reopen: Vec<DateTime<Utc>>,
    /// The first of the others, which are due already.
    pub(super) first_due: Option<DateTime<Utc>>,
    /// Those of the others that were reopened before, and have yet to run.
    pub(super) stale: Vec<DateTime<Utc>>,
    /// Those of the others that have no checkpoint.
    pub(super) missing: Vec<Slice>,
}

impl Found {
    /// The slices that readers must see as stale before the store knows of the change. An attempt
    /// whose lease has ended may still replace a slice that is due already.
    pub(super) fn raised(&self, rollup: &Rollup) -> Vec<Slice> {
        let mut starts = [&*self.to_reopen, &*self.stale].concat();
        starts.sort_unstable();
        starts.into_iter().map(|start| rollup.calendar.containing(start)).collect()
    }
}

pub(super) async fn find(
    worker: &Worker,
    lateness: &Lateness<'_>,
    stretch: &Stretch,
) -> Result<Found, WorkError> {
    let (Lateness { rollup, view, .. }, Stretch { ranges, empty_too }) = (lateness, stretch);
    let bounds = (ranges[0].0, ranges[ranges.len() - 1].1);
    let known = worker.checkpoints.range(&rollup.name, bounds.0, bounds.1).await?;
    let known: BTreeMap<_, _> = known.iter().map(|it| (it.slice_start, it)).collect();
    let mut found =
        Found { to_reopen: Vec::new(), stale: Vec::new(), first_due: None, missing: Vec::new() };
    for slice in ranges.iter().flat_map(|(start, end)| rollup.calendar.slices(*start, *end)) {
        let is_due = match known.get(&slice.start()) {
            // Already waiting to run again. The worker that reopened it may have died before
            // the watermark fell back.
            Some(known) => known.state == State::Stale,
            None => !empty_too || view.judge(None, slice) != Standing::Empty,
        };
        if is_due {
            found.first_due.get_or_insert(slice.start());
            match known.contains_key(&slice.start()) {
                true => found.stale.push(slice.start()),
                false => found.missing.push(slice),
            }
        } else {
            found.to_reopen.push(slice.start());
        }
    }
    Ok(found)
}

/// Reopens the slices of a stretch that were read, or counted as empty.
async fn reopen_stretch(
    worker: &Worker,
    lateness: &Lateness<'_>,
    stretch: &Stretch,
) -> Result<(), WorkError> {
    let Lateness { rollup, view, reason, .. } = lateness;
    let found = find(worker, lateness, stretch).await?;
    let raised = found.raised(rollup);
    worker.target.raise(&rollup.name, &raised, reason).await?;
    let Found { to_reopen, first_due, missing, .. } = found;
    reopen_read(worker, lateness, &to_reopen).await?;
    if let Some(first) = first_due {
        // Also for slices without a checkpoint, as a concurrent probe of the source's first row
        // may have missed these rows.
        let source_start = worker.checkpoints.lower_watermark(&rollup.name, first).await?;
        if stretch.empty_too && source_start != view.source_start {
            // The same holds for a first row that was stored after the watermark was read.
            let view = View { source_start, ..view.clone() };
            let is_passed = |slice: &Slice| view.judge(None, *slice) == Standing::Empty;
            let passed: Vec<_> = missing.into_iter().filter(is_passed).collect();
            worker.target.raise(&rollup.name, &passed, reason).await?;
            let starts: Vec<_> = passed.iter().map(|slice| slice.start()).collect();
            reopen_read(worker, lateness, &starts).await?;
        }
    }
    Ok(())
}

/// Reopens the slices that were read, or marked as empty.
async fn reopen_read(
    worker: &Worker,
    Lateness { rollup, seal, reason, .. }: &Lateness<'_>,
    starts: &[DateTime<Utc>],
) -> Result<(), WorkError> {
    if let Some(seal) = *seal {
        let sealed = |start: &&DateTime<Utc>| **start < seal;
        if let Some(first) = starts.iter().find(sealed) {
            report_sealed(rollup, *first, seal);
            // Must come before the reopening, as the watermark passes sealed slices.
            worker.checkpoints.note_sealed(&rollup.name, *first, seal).await?;
        }
    }
    let now = worker.clock.now();
    Ok(worker.checkpoints.reopen_all(&rollup.name, starts, reason, now).await?)
}

/// Logs late changes behind the seal, as they stay uncounted while it lasts.
pub(super) fn report_sealed(rollup: &Rollup, first: DateTime<Utc>, seal: DateTime<Utc>) {
    tracing::warn!(
        rollup = rollup.name,
        first = %rfc3339(first),
        seal = %rfc3339(seal),
        "late changes of sealed slices are noted, and stay uncounted"
    );
}

/// A half-open range of time.
type Span = (DateTime<Utc>, DateTime<Utc>);

/// The same ranges in order, without overlaps.
fn merged(mut ranges: Vec<Span>) -> Vec<Span> {
    ranges.sort_unstable();
    let mut merged: Vec<Span> = Vec::new();
    for (start, end) in ranges {
        match merged.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => merged.push((start, end)),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_and_touching_stretches_become_one() {
        let at = |hour: i64| DateTime::from_timestamp(hour * 3600, 0).unwrap();
        let span = |start, end| (at(start), at(end));
        let ranges = vec![span(7, 9), span(1, 2), span(2, 3), span(8, 8), span(0, 1)];
        assert_eq!(merged(ranges), [span(0, 3), span(7, 9)]);
    }
}
