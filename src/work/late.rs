//! Late changes of the source: turns marks and change times into reopened slices.
//!
//! Findings are recorded in the checkpoints first and deleted on the source afterwards. After a
//! crash in between they are found again, and a slice that is reopened twice runs once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::checkpoint::State;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbErrorKind, Tx};
use crate::model::clock::Deadline;
use crate::model::hint::Fault;
use crate::model::rollup::{Late, Rollup};
use crate::model::slice::Slice;
use crate::source::changes::capture::{self, Capture, CaptureState};
use crate::source::changes::marks::{self, Mark, MarkedHours};
use crate::source::changes::{column, consumers};
use crate::source::reading::first_row;
use crate::source::reading::shape::Shape;
use crate::source::reading::zones::Offsets;
use crate::source::settle;
use crate::work::backlog::BEGIN_MIN;
use crate::work::consumer;
use crate::work::due::{Standing, View};
use crate::work::report::RollupProblem;
use crate::work::worker::{WorkError, Worker};
use crate::work::{ready, standings, things};

/// Batches of marks taken in one go. The next tick takes the rest.
const BATCHES_MAX: usize = 20;

/// Ranges of slices separated by fewer slices than this are read in one query.
const GAP_MAX: i32 = 64;

/// How long to wait for open writers before reading change times.
const WAIT: Duration = Duration::from_millis(500);

/// How often the range of change times is halved when reading it takes too long: from a year to
/// less than a second.
const HALVINGS_MAX: usize = 25;

/// A rollup with its source's catalogue data.
type Ready<'a> = (&'a Rollup, Arc<Shape>);

/// Finds late changes of all rollups that ask for it, and reopens their slices. Returns the
/// problems that prevented it, each of which raises an alarm.
pub async fn notice(worker: &Worker, deadline: Deadline) -> Vec<RollupProblem> {
    let mut problems = Vec::new();
    let mut captured = BTreeMap::<String, Vec<&Rollup>>::new();
    for rollup in &worker.config.rollups {
        if let Err(error) = things::notice_changes(worker, rollup, deadline).await {
            problems.push(RollupProblem::of_late_changes(&rollup.name, &error));
        }
        match rollup.late {
            Late::Capture => captured.entry(rollup.from.to_string()).or_default().push(rollup),
            Late::Column(_) => {
                if let Err(error) = notice_changes(worker, rollup, deadline).await {
                    problems.push(RollupProblem::of_late_changes(&rollup.name, &error));
                }
            }
            Late::Grace | Late::Clock => {}
        }
    }
    for rollups in captured.values() {
        if let Err(error) = notice_marks(worker, rollups, deadline).await {
            problems.push(RollupProblem::of_late_changes(&rollups[0].name, &error));
        }
    }
    problems
}

/// Moves the marks of one table into the checkpoints of the rollups that count it.
async fn notice_marks(
    worker: &Worker,
    rollups: &[&Rollup],
    deadline: Deadline,
) -> Result<(), WorkError> {
    let mut ready = Vec::new();
    for rollup in rollups {
        ready.push((*rollup, ready::check(worker, rollup).await?));
    }
    let label = format!("late changes of {}", rollups[0].from);
    let pairs: Vec<_> = ready.iter().map(|(rollup, shape)| (*rollup, &**shape)).collect();
    let capture = Capture::new(&rollups[0].from, &pairs);
    let read_only = || worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &label);
    let mut tx = worker.source.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &label).await?;
    let mut standing = capture.standing(&mut tx).await?;
    let known = known_consumers(&mut tx, &capture, &standing).await?;
    let names = || ready.iter().map(|(rollup, _)| *rollup);
    let consumers = match consumer::known_of(worker, names(), &known) {
        Some(consumers) => consumers,
        None => {
            tx.commit().await?;
            let consumers = consumer::consumers_of(worker, names(), &known).await?;
            tx = read_only().await?;
            standing = capture.standing(&mut tx).await?;
            consumers
        }
    };
    // The first marks are read in the transaction that has looked for the consumers.
    let mut begun = Some(tx);
    for _ in 0..BATCHES_MAX {
        let mut tx = match begun.take() {
            Some(tx) => tx,
            None => read_only().await?,
        };
        let (marks, has_more) = match &standing.key {
            Some(key) if consumers.len() == ready.len() => {
                marks::read(&mut tx, key, &consumers).await?
            }
            _ => (Vec::new(), false),
        };
        // Take the time after reading the marks. A slice that another worker read before one of
        // these changes was over before that change, and is therefore over now. By an earlier
        // time it might still be open, and its mark would be lost.
        let (now, _) = settle::now(&mut tx).await?;
        tx.commit().await?;
        let taking = Taking { key: standing.key.as_deref(), consumers: &consumers, label: &label };
        if !marks.is_empty() && !move_marks(worker, &ready, &marks, now, deadline, &taking).await? {
            break;
        }
        if !has_more {
            break;
        }
    }
    // Existing marks count even if the capture has broken since.
    let mut others = known.iter().filter(|it| !consumers.contains(&it.id));
    match standing.problem.or_else(|| others.find_map(consumers::Consumer::alarm)) {
        Some(problem) => Err(WorkError::Usage(problem)),
        None => Ok(()),
    }
}

/// The consumers that the source knows, or none if it keeps no marks. Partitions that were
/// attached or detached are marked first.
async fn known_consumers(
    tx: &mut Tx,
    capture: &Capture,
    standing: &CaptureState,
) -> Result<Vec<consumers::Consumer>, WorkError> {
    let known = match &standing.key {
        Some(key) => consumers::all(tx, key).await?,
        None => Vec::new(),
    };
    capture.mark_partitions(tx, standing).await?;
    Ok(known)
}

/// Returns whether the time sufficed for all marks.
async fn move_marks(
    worker: &Worker,
    rollups: &[Ready<'_>],
    marks: &[Mark],
    now: DateTime<Utc>,
    deadline: Deadline,
    taking: &Taking<'_>,
) -> Result<bool, WorkError> {
    for ((rollup, shape), consumer) in rollups.iter().zip(taking.consumers) {
        let axis = capture::axis_key(&shape.axis);
        let is_new = |mark: &&Mark| mark.axis == axis && !mark.acknowledged.contains(consumer);
        let hours = marks.iter().filter(is_new).map(|mark| mark.hours);
        let hours: Vec<MarkedHours> = hours.collect();
        if !reopen_hours(worker, rollup, &hours, now, deadline, "late change").await? {
            return Ok(false);
        }
    }
    acknowledge(worker, marks, taking).await?;
    Ok(true)
}

/// Records on the source that these marks have become reopenings here. The source deletes a
/// mark once every consumer has acknowledged it.
async fn acknowledge(
    worker: &Worker,
    marks: &[Mark],
    taking: &Taking<'_>,
) -> Result<(), WorkError> {
    let Some(key) = taking.key else { return Ok(()) };
    let mut tx = worker.source.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, taking.label).await?;
    marks::acknowledge(&mut tx, key, taking.consumers, marks).await?;
    Ok(tx.commit().await?)
}

/// Records where the search for changes starts, before anything is read or counted as empty.
/// `false`: that instant cannot be determined yet. For a role that cannot see the transactions
/// of others it may stay unknown, as its slices are settled by `grace` alone.
pub(crate) async fn watch_changes(worker: &Worker, rollup: &Rollup) -> Result<bool, WorkError> {
    things::watch_changes(worker, rollup).await?;
    if !matches!(rollup.late, Late::Column(_))
        || worker.checkpoints.changes_until(&rollup.name).await?.is_some()
    {
        return Ok(true);
    }
    let label = format!("late changes of {}", rollup.from);
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &label).await?;
    let until = column::seen_until(&mut tx, rollup, WAIT).await?;
    let may_be_told = settle::sees_all(&mut tx).await?;
    tx.rollback().await?;
    match until {
        Some(until) => worker.checkpoints.set_changes_until(&rollup.name, until).await?,
        None if may_be_told => return Ok(false),
        None => {}
    }
    Ok(true)
}

/// Searches the change times since the last search.
async fn notice_changes(
    worker: &Worker,
    rollup: &Rollup,
    deadline: Deadline,
) -> Result<(), WorkError> {
    let shape = ready::check(worker, rollup).await?;
    let Some(axis) = &shape.changes else { return Ok(()) };
    let from = worker.checkpoints.changes_until(&rollup.name).await?;
    let label = format!("late changes of {}", rollup.from);
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &label).await?;
    // Both sides read change times in local time, from the last look on.
    let near = worker.clock.now();
    let comparison = Offsets::around(axis, from.map_or(near, |from| from.min(near)), near);
    let (_, _, zones) = settle::now_comparing(&mut tx, comparison.as_ref()).await?;
    zones.map_err(|mismatch| WorkError::Usage(Fault::of(&mismatch).at("late")))?;
    let until = column::seen_until(&mut tx, rollup, WAIT).await?;
    tx.rollback().await?;
    // An open transaction makes the instant uncertain. The next search will cover more.
    let Some(mut until) = until else { return Ok(()) };
    let Some(from) = from else {
        // As on the first search: slices that are read from now on see every change before it.
        return Ok(worker.checkpoints.set_changes_until(&rollup.name, until).await?);
    };
    for _ in 0..HALVINGS_MAX {
        if from >= until || deadline.remaining(&*worker.clock) < BEGIN_MIN {
            return Ok(());
        }
        let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &label).await?;
        match column::hours(&mut tx, rollup, &shape, axis, (from, until)).await {
            Ok(hours) => {
                // Taken after the changes were read, as for marks.
                let (now, _) = settle::now(&mut tx).await?;
                tx.rollback().await?;
                if reopen_hours(worker, rollup, &hours, now, deadline, "late change").await? {
                    worker.checkpoints.set_changes_until(&rollup.name, until).await?;
                }
                return Ok(());
            }
            Err(error) if error.kind() == DbErrorKind::Cancelled => {
                until = from + (until - from) / 2
            }
            Err(error) => return Err(error.into()),
        }
    }
    let fault = Fault::new(format!(
        "late: looking for changes since {from} by column `{}` takes longer than {} s",
        axis.column(),
        CATALOGUE_TIMEOUT.as_secs(),
    ));
    Err(WorkError::Usage(fault.remedy(format!(
        "run `tallymark check {}`, which says the index that the column needs, and create it",
        rollup.name
    ))))
}

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
    if hours.is_empty() {
        return Ok(true);
    }
    let mut seen = ready::watermark(worker, rollup).await?;
    if !seen.is_adopted_by(rollup) {
        // Changes before `start` are skipped from now on. That must be recorded, in case
        // `start` moves back.
        ready::prepare(worker, rollup).await?;
        seen = ready::watermark(worker, rollup).await?;
    }
    // A slice whose time is still to come will be read after these changes.
    let Some(newest) = rollup.newest(now) else { return Ok(true) };
    // A sealed slice that was read, or counted as empty, is recorded as changed but stays
    // undue. It runs again when the seal is removed.
    let unsealed = Rollup { seal_before: None, ..rollup.clone() };
    let lateness =
        Lateness { rollup, view: standings::view(worker, &unsealed, &seen, now), reason };
    let from = rollup.start;
    if hours.contains(&MarkedHours::ALL) {
        reopen_range(worker, &lateness, &[(from, newest.end())], false).await?;
        // Rows that the same transaction wrote after a TRUNCATE lack marks of their own, and
        // may lie in slices that counted as empty. They are visible now, as the mark is.
        let first = first_row(worker, rollup).await?.map(|first| first.max(from));
        let first = first.map(|first| rollup.calendar.containing(first).start().max(from));
        if let Some(first) = first.filter(|first| *first < newest.end()) {
            reopen_range(worker, &lateness, &[(first, newest.end())], true).await?;
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
    for group in ranges.chunk_by(|one, other| other.0 - one.1 <= gap) {
        if deadline.remaining(&*worker.clock) < BEGIN_MIN {
            return Ok(false);
        }
        reopen_range(worker, &lateness, group, true).await?;
    }
    Ok(true)
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

/// Reopens the slices read in some ranges that lie close together. With `empty_too` it also
/// reopens those that only counted as empty.
async fn reopen_range(
    worker: &Worker,
    lateness: &Lateness<'_>,
    ranges: &[Span],
    empty_too: bool,
) -> Result<(), WorkError> {
    let Lateness { rollup, view, reason } = lateness;
    let bounds = (ranges[0].0, ranges[ranges.len() - 1].1);
    let found = worker.checkpoints.range(&rollup.name, bounds.0, bounds.1).await?;
    let found: BTreeMap<_, _> = found.iter().map(|it| (it.slice_start, it)).collect();
    let (mut first_due, mut to_reopen, mut missing) = (None, Vec::new(), Vec::new());
    for slice in ranges.iter().flat_map(|(start, end)| rollup.calendar.slices(*start, *end)) {
        let is_due = match found.get(&slice.start()) {
            // Already waiting to run again. The worker that reopened it may have died before
            // the watermark fell back.
            Some(known) => known.state == State::Stale,
            None => !empty_too || view.judge(None, slice) != Standing::Empty,
        };
        if is_due {
            first_due.get_or_insert(slice.start());
            missing.extend((!found.contains_key(&slice.start())).then_some(slice));
        } else {
            to_reopen.push(slice.start());
        }
    }
    reopen_read(worker, rollup, &to_reopen, reason).await?;
    if let Some(first) = first_due {
        // Also for slices without a checkpoint, as a concurrent probe of the source's first row
        // may have missed these rows.
        let source_start = worker.checkpoints.lower_watermark(&rollup.name, first).await?;
        if empty_too && source_start != view.source_start {
            // The same holds for a first row that was stored after the watermark was read.
            let view = View { source_start, ..view.clone() };
            let is_passed = |slice: &Slice| view.judge(None, *slice) == Standing::Empty;
            let passed = missing.into_iter().filter(is_passed).map(|slice| slice.start());
            reopen_read(worker, rollup, &passed.collect::<Vec<_>>(), reason).await?;
        }
    }
    Ok(())
}

/// Reopens the slices that were read, or marked as empty.
async fn reopen_read(
    worker: &Worker,
    rollup: &Rollup,
    starts: &[DateTime<Utc>],
    reason: &str,
) -> Result<(), WorkError> {
    if let Some(seal) = rollup.seal_before {
        let sealed = |start: &&DateTime<Utc>| **start < seal;
        if let Some(first) = starts.iter().find(sealed) {
            // Must come before the reopening, as the watermark passes sealed slices.
            worker.checkpoints.note_sealed(&rollup.name, *first, seal).await?;
        }
    }
    let now = worker.clock.now();
    Ok(worker.checkpoints.reopen_all(&rollup.name, starts, reason, now).await?)
}

/// The capture and the consumers for which marks are taken.
struct Taking<'a> {
    key: Option<&'a str>,
    /// The consumers, in the order of their rollups.
    consumers: &'a [i64],
    label: &'a str,
}

/// A half-open range of time.
type Span = (DateTime<Utc>, DateTime<Utc>);

/// The inputs of reopening late slices.
struct Lateness<'a> {
    rollup: &'a Rollup,
    view: View<'a>,
    reason: &'a str,
}

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
