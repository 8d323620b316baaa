//! Late changes of the source: turns marks and change times into reopened slices.
//!
//! Findings are recorded in the checkpoints first and deleted on the source afterwards. After a
//! crash in between they are found again, and a slice that is reopened twice runs once. Where the
//! checkpoints are in the same database, marks become reopenings in one transaction (`together`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::checkpoint::SearchedChanges;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbErrorKind, Tx};
use crate::model::clock::Deadline;
use crate::model::hint::Fault;
use crate::model::rollup::{Late, Rollup};
use crate::source::changes::capture::{Capture, CaptureState};
use crate::source::changes::marks::{self, Mark, MarkedHours};
use crate::source::changes::{column, consumers, lookup};
use crate::source::reading::shape::Shape;
use crate::source::reading::zones::Offsets;
use crate::source::settle;
use crate::work::backlog::BEGIN_MIN;
use crate::work::consumer;
use crate::work::report::RollupProblem;
use crate::work::worker::{WorkError, Worker};
use crate::work::{ready, things};

mod glance;
mod lookups;
mod reach;
mod together;

pub(crate) use reach::reopen_hours;

/// Batches of marks taken in one go. The next tick takes the rest.
const BATCHES_MAX: usize = 20;

/// How long to wait for open writers before reading change times.
const WAIT: Duration = Duration::from_millis(500);

/// A search ends within this time after it has asked the source for its clock.
const SEARCHES_LAST: TimeDelta = TimeDelta::minutes(1);

/// How often the range of change times is halved when reading it takes too long: from a year to
/// less than a second.
const HALVINGS_MAX: usize = 25;

/// Why slices run again.
const REASON: &str = "late change";

/// A rollup with its source's catalogue data.
type Ready<'a> = (&'a Rollup, Arc<Shape>);

/// The result of a search for late changes.
#[derive(Debug, Default)]
pub(crate) struct Searched {
    /// The problems that prevented it, each of which raises an alarm.
    pub(crate) problems: Vec<RollupProblem>,
    /// For each rollup the instant before which all changes were found.
    pub(crate) until: BTreeMap<String, DateTime<Utc>>,
}

impl Searched {
    fn add(&mut self, rollups: &[&Rollup], until: Result<Option<DateTime<Utc>>, WorkError>) {
        match until {
            Ok(Some(until)) => {
                self.until.extend(rollups.iter().map(|rollup| (rollup.name.clone(), until)));
            }
            Ok(None) => {}
            Err(error) => {
                self.problems.push(RollupProblem::of_late_changes(&rollups[0].name, &error));
            }
        }
    }
}

/// Finds late changes of all rollups that ask for it, and reopens their slices. Returns the
/// problems that prevented it.
pub async fn notice(worker: &Worker, deadline: Deadline) -> Vec<RollupProblem> {
    search(worker, deadline).await.problems
}

/// As [`notice`], and says how far it came.
pub(crate) async fn search(worker: &Worker, deadline: Deadline) -> Searched {
    let mut searched = Searched::default();
    let mut captured = BTreeMap::<String, Vec<&Rollup>>::new();
    for rollup in &worker.config.rollups {
        searched.add(&[rollup], things::notice_changes(worker, rollup, deadline).await);
        match rollup.late {
            Late::Capture => captured.entry(rollup.from.to_string()).or_default().push(rollup),
            Late::Column(_) => {
                searched.add(&[rollup], notice_changes(worker, rollup, deadline).await);
            }
            Late::Grace | Late::Clock => {}
        }
    }
    for rollups in captured.values() {
        searched.add(rollups, notice_marks(worker, rollups, deadline).await);
    }
    searched
}

/// Moves the marks of one table into the checkpoints of the rollups that count it. Returns the
/// instant before which all were moved, if they were.
async fn notice_marks(
    worker: &Worker,
    rollups: &[&Rollup],
    deadline: Deadline,
) -> Result<Option<DateTime<Utc>>, WorkError> {
    // Whatever it fails at, the whole look reports.
    if let Ok(Some(until)) = glance::quiet_until(worker, rollups).await {
        return Ok(Some(until));
    }
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
    // Taken before the marks are read, so that every change before it has its mark there.
    let seen_at = standing.seen_at;
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
    let (mut stuck, mut has_keys) = (None, false);
    if let Some(waiting) = lookups::waiting(&mut begun, &standing).await? {
        // Some of them may stay, so that this tick does not say until when changes are found.
        has_keys = true;
        let of = (&capture, &standing);
        stuck = lookups::replace(worker, rollups[0], of, waiting, deadline).await.err();
    }
    let are_moved = match standing.key.as_deref().filter(|_| consumers.len() == ready.len()) {
        Some(key) => {
            let taking = Taking { key, consumers: &consumers, label: &label };
            take_marks(worker, &ready, taking, begun, deadline).await?
        }
        None => {
            if let Some(tx) = begun {
                tx.commit().await?;
            }
            false
        }
    };
    // Existing marks count even if the capture has broken since.
    let mut others = known.iter().filter(|it| !consumers.contains(&it.id));
    match standing.problem.or_else(|| others.find_map(consumers::Consumer::alarm)) {
        Some(problem) => Err(WorkError::Usage(problem)),
        None => stuck.map_or(Ok(seen_at.filter(|_| are_moved && !has_keys)), Err),
    }
}

/// Moves batches of marks into the checkpoints. The first is read in the transaction `begun`. Returns
/// whether none is left.
async fn take_marks(
    worker: &Worker,
    rollups: &[Ready<'_>],
    taking: Taking<'_>,
    mut begun: Option<Tx>,
    deadline: Deadline,
) -> Result<bool, WorkError> {
    let Taking { key, consumers, label } = taking;
    for _ in 0..BATCHES_MAX {
        let mut tx = match begun.take() {
            Some(tx) => tx,
            None => worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, label).await?,
        };
        let (marks, has_more) = marks::read(&mut tx, key, consumers).await?;
        // Take the time after reading the marks. A slice that another worker read before one of
        // these changes was over before that change, and is therefore over now. By an earlier
        // time it might still be open, and its mark would be lost.
        let (now, _) = settle::now(&mut tx).await?;
        tx.commit().await?;
        if !marks.is_empty() {
            let moving = Moving { rollups, marks: &marks, now, deadline, taking };
            if !move_marks(worker, &moving).await? {
                break;
            }
        }
        if !has_more {
            return Ok(true);
        }
    }
    Ok(false)
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

/// Marks that become reopenings, by the source's clock `now`.
struct Moving<'a> {
    rollups: &'a [Ready<'a>],
    marks: &'a [Mark],
    now: DateTime<Utc>,
    deadline: Deadline,
    taking: Taking<'a>,
}

/// The capture and the consumers for which marks are taken.
#[derive(Clone, Copy)]
struct Taking<'a> {
    key: &'a str,
    /// The consumers, in the order of their rollups.
    consumers: &'a [i64],
    label: &'a str,
}

impl Moving<'_> {
    /// Each rollup, with the hours that its consumer still has to acknowledge.
    fn hours(&self) -> impl Iterator<Item = (&Rollup, Vec<MarkedHours>)> {
        self.rollups.iter().zip(self.taking.consumers).map(|((rollup, shape), consumer)| {
            let axes = lookup::axes_of(rollup, shape);
            let is_new =
                |mark: &&Mark| axes.contains(&mark.axis) && !mark.acknowledged.contains(consumer);
            (*rollup, self.marks.iter().filter(is_new).map(|mark| mark.hours).collect())
        })
    }

    /// A transaction that acknowledges them.
    async fn begin(&self, worker: &Worker) -> Result<Tx, WorkError> {
        let label = self.taking.label;
        Ok(worker.source.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, label).await?)
    }

    /// Records on the source that these marks have become reopenings here. The source deletes a
    /// mark once every consumer has acknowledged it.
    async fn acknowledge(&self, tx: &mut Tx) -> Result<(), WorkError> {
        let Taking { key, consumers, .. } = self.taking;
        Ok(marks::acknowledge(tx, key, consumers, self.marks).await?)
    }
}

/// Returns whether all marks were moved. The next tick finds the others again.
async fn move_marks(worker: &Worker, moving: &Moving<'_>) -> Result<bool, WorkError> {
    if worker.checkpoints.is_in_target() && worker.target.is_source {
        return together::move_marks(worker, moving).await;
    }
    for (rollup, hours) in moving.hours() {
        let Moving { now, deadline, .. } = *moving;
        if !reopen_hours(worker, rollup, &hours, now, deadline, REASON).await? {
            return Ok(false);
        }
    }
    let mut tx = moving.begin(worker).await?;
    moving.acknowledge(&mut tx).await?;
    tx.commit().await?;
    Ok(true)
}

/// Records where the search for changes starts, before anything is read or counted as empty.
/// `false`: that instant cannot be determined yet. For a role that cannot see the transactions
/// of others it may stay unknown, as its slices are settled by `grace` alone.
pub(crate) async fn watch_changes(worker: &Worker, rollup: &Rollup) -> Result<bool, WorkError> {
    things::watch_changes(worker, rollup).await?;
    if !matches!(rollup.late, Late::Column(_))
        || worker.checkpoints.searched(&rollup.name).await?.is_some()
    {
        return Ok(true);
    }
    let label = format!("late changes of {}", rollup.from);
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &label).await?;
    let until = column::seen_until(&mut tx, rollup, WAIT).await?;
    let may_be_told = settle::sees_all(&mut tx).await?;
    tx.rollback().await?;
    match until {
        Some(until) => {
            let searched = SearchedChanges::wholly(until);
            worker.checkpoints.set_searched(&rollup.name, searched).await?;
        }
        None if may_be_told => return Ok(false),
        None => {}
    }
    Ok(true)
}

/// Searches the change times since the last search. Returns the instant before which all changes
/// were found.
async fn notice_changes(
    worker: &Worker,
    rollup: &Rollup,
    deadline: Deadline,
) -> Result<Option<DateTime<Utc>>, WorkError> {
    let shape = ready::check(worker, rollup).await?;
    let Some(axis) = &shape.changes else { return Ok(None) };
    let searched = worker.checkpoints.searched(&rollup.name).await?;
    let (from, known) = (searched.map(|it| it.until), searched.map(|it| it.found));
    let label = format!("late changes of {}", rollup.from);
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &label).await?;
    // Both sides read change times in local time, from the last look on.
    let near = worker.clock.now();
    let comparison = Offsets::around(axis, from.map_or(near, |from| from.min(near)), near);
    let (seen_at, _, zones) = settle::now_comparing(&mut tx, comparison.as_ref()).await?;
    zones.map_err(|mismatch| WorkError::Usage(Fault::of(&mismatch).at("late")))?;
    let until = column::seen_until(&mut tx, rollup, WAIT).await?;
    tx.rollback().await?;
    // An open transaction makes the instant uncertain. The next search will cover more.
    let Some(mut until) = until else { return Ok(known) };
    let Some((from, found)) = from.zip(known) else {
        // As on the first search: slices that are read from now on see every change before it.
        worker.checkpoints.set_searched(&rollup.name, SearchedChanges::wholly(until)).await?;
        return Ok(Some(until));
    };
    // A row that has changed again since `until` does not show that it had changed before.
    let mut to = seen_at + SEARCHES_LAST;
    for _ in 0..HALVINGS_MAX {
        if from >= until || deadline.remaining(&*worker.clock) < BEGIN_MIN {
            return Ok(known);
        }
        let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &label).await?;
        match column::hours(&mut tx, rollup, &shape, axis, (from, to)).await {
            Ok(hours) => {
                // Taken after the changes were read, as for marks.
                let (now, _) = settle::now(&mut tx).await?;
                tx.rollback().await?;
                if !reopen_hours(worker, rollup, &hours, now, deadline, REASON).await? {
                    return Ok(known);
                }
                // Only a search to the present shows that no second change hides an earlier one.
                let found = if to > until { until } else { found };
                let searched = SearchedChanges { until, found };
                worker.checkpoints.set_searched(&rollup.name, searched).await?;
                return Ok(Some(found));
            }
            Err(error) if error.kind() == DbErrorKind::Cancelled => {
                until = from + (until - from) / 2;
                to = until;
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
