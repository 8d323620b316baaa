//! Decides which slices are due, as a pure function of the definition, the checkpoints and the
//! time.
//!
//! Work comes only from checkpoints with absolute bounds. So the next tick finds every unfinished
//! slice, for any reason.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::checkpoint::{Checkpoint, State, Watermark};
use crate::model::rollup::Rollup;
use crate::model::rollup::generation::generation_of;
use crate::model::slice::{Calendar, Slice};
use crate::source::reading::first_row::SourceStart;

/// The state of a slice, and so whether it should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Never tried.
    Missing,
    /// Failed before; its time to retry has come.
    Retry,
    /// Gave up its turn, which counts as no failure.
    Yielded,
    /// Its worker died, and the lease is over.
    LeaseOver,
    /// Succeeded, and must run again.
    Stale,
    /// Among the newest slices, which run again for late rows (`lookback`).
    Lookback,
    /// Succeeded by another definition, and is recomputed by the present one when nothing else is
    /// due.
    Redefined,
    /// Computed under another calendar, or before a `start` that was moved back, so its state is
    /// invalid.
    OtherCalendar,
    /// A worker is computing it.
    Running,
    /// Waits until its time to retry.
    Waiting,
    /// Failed too often, so that only a replay reopens it.
    Exhausted,
    /// Done.
    Succeeded,
    /// Starts before the seal of the file or the store, so it stays as it is.
    Sealed,
    /// Ended before the source's first row, so it has no rows.
    Empty,
    /// Waits for an unfinished slice of the finer rollup.
    Blocked,
    /// Its end or its grace is still to come.
    NotEnded,
}

impl Standing {
    /// Whether the slice should be worked on now.
    #[must_use]
    pub const fn is_due(self) -> bool {
        matches!(
            self,
            Self::Missing
                | Self::Retry
                | Self::Yielded
                | Self::LeaseOver
                | Self::Stale
                | Self::Lookback
                | Self::Redefined
                | Self::OtherCalendar
        )
    }

    /// Why a succeeded slice must be reopened before it runs. `None`: it can run as it is.
    #[must_use]
    pub(crate) const fn reopening(self) -> Option<&'static str> {
        match self {
            Self::Lookback => Some("lookback"),
            Self::Redefined => Some("the definition has changed"),
            Self::OtherCalendar => Some("the calendar or `start` has changed"),
            _ => None,
        }
    }

    /// Whether the watermark may pass it, as its rows are complete.
    #[must_use]
    pub(crate) const fn is_done(self) -> bool {
        matches!(
            self,
            Self::Succeeded | Self::Lookback | Self::Redefined | Self::Sealed | Self::Empty
        )
    }

    /// The name of the standing in output.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Retry => "retry",
            Self::Yielded => "yielded",
            Self::LeaseOver => "lease over",
            Self::Stale => "stale",
            Self::Lookback => "lookback",
            Self::Redefined => "redefined",
            Self::OtherCalendar => "other calendar",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Exhausted => "exhausted",
            Self::Succeeded => "succeeded",
            Self::Sealed => "sealed",
            Self::Empty => "empty",
            Self::Blocked => "blocked",
            Self::NotEnded => "not ended",
        }
    }
}

/// A slice and its standing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    pub slice: Slice,
    pub standing: Standing,
}

/// A rollup's slices over a range, and the watermark that follows from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Every slice of the range, oldest first.
    pub slices: Vec<Planned>,
    /// Every slice before this instant has succeeded, or is sealed or empty.
    pub watermark: DateTime<Utc>,
    /// The first slice, of any standing, whose checkpoint holds another definition.
    pub other_definition: Option<Slice>,
}

impl Plan {
    /// The due slices, newest first, as fresh numbers come before history. Slices that succeeded by
    /// another definition come last.
    pub fn due(&self) -> impl Iterator<Item = &Planned> {
        let due = |redefined: bool| {
            self.slices.iter().rev().filter(move |planned| {
                let standing = planned.standing;
                standing.is_due() && (standing == Standing::Redefined) == redefined
            })
        };
        due(false).chain(due(true))
    }

    /// The slices that succeeded by another definition.
    pub fn redefined(&self) -> impl Iterator<Item = &Planned> {
        self.slices.iter().filter(|planned| planned.standing == Standing::Redefined)
    }

    /// Whether every slice before the watermark holds the present definition.
    #[must_use]
    pub fn is_of_one_definition(&self) -> bool {
        self.other_definition.is_none_or(|first| first.start() >= self.watermark)
    }
}

/// The instant from which the checkpoints must be read to know what is due. It is the watermark, or
/// earlier where slices are to run again for late rows, or the start of history where some slices
/// hold another definition.
#[must_use]
pub(crate) fn read_from(rollup: &Rollup, seen: &Watermark, now: DateTime<Utc>) -> DateTime<Utc> {
    let watermark = match seen.definition() {
        _ if seen.moved_from(rollup).is_some() => None,
        Some(definition) if definition == seen.definition_of(rollup) => seen.until(),
        _ => None,
    };
    let watermark = watermark.unwrap_or(rollup.start).max(rollup.start);
    let Some(mut slice) = rollup.newest(now) else { return watermark };
    for _ in 0..rollup.lookback.last().copied().unwrap_or(0) {
        slice = rollup.calendar.previous(slice);
    }
    watermark.min(slice.start().max(rollup.start))
}

/// The progress of a finer rollup, for the coarse slices that consist of its slices.
#[derive(Clone, Debug)]
pub struct FinerDone {
    calendar: Calendar,
    /// All finer slices that ended before this are done, except those in `undone`, oldest first.
    until: DateTime<Utc>,
    undone: Vec<Planned>,
    /// Rows before this instant are deleted, by `keep`.
    kept_from: Option<DateTime<Utc>>,
}

impl FinerDone {
    /// Derives it from the finer rollup's own plan, and the instant before which `keep` deletes.
    #[must_use]
    pub(crate) fn new(finer: &Rollup, plan: &Plan, kept_from: Option<DateTime<Utc>>) -> Self {
        let until = plan.slices.last().map_or(plan.watermark, |last| last.slice.end());
        // Rows of another definition must not be merged.
        let undone = plan.slices.iter().filter(|planned| {
            !planned.standing.is_done() || planned.standing == Standing::Redefined
        });
        let undone = undone.cloned().collect();
        Self { calendar: finer.calendar, until, undone, kept_from }
    }

    /// The first finer slice in the window `[start, end)` of a coarse one that is unfinished, or
    /// whose rows are deleted.
    #[must_use]
    pub(crate) fn waits_for(
        &self,
        (start, end): (DateTime<Utc>, DateTime<Utc>),
    ) -> Option<Planned> {
        if self.kept_from.is_some_and(|kept_from| start < kept_from) {
            // A coarse slice that was never computed must not be computed from what is left.
            let slice = self.calendar.containing(start);
            return Some(Planned { slice, standing: Standing::Sealed });
        }
        let first = self.undone.partition_point(|finer| finer.slice.start() < start);
        let undone = self.undone.get(first).filter(|finer| finer.slice.start() < end);
        undone.cloned().or_else(|| {
            (self.until < end).then(|| {
                let slice = self.calendar.containing(self.until.max(start));
                Planned { slice, standing: Standing::NotEnded }
            })
        })
    }
}

/// The inputs besides its checkpoint that decide a slice's standing.
#[derive(Clone, Debug)]
pub struct View<'r> {
    pub rollup: &'r Rollup,
    pub now: DateTime<Utc>,
    /// The configured limit of failures.
    pub failures_max: u32,
    /// Where the source's rows begin, if known.
    pub source_start: Option<SourceStart>,
    /// The progress of the finer rollup. `None`: the rollup has no finer one, or its progress is
    /// still to be read.
    pub finer_done: Option<&'r FinerDone>,
    /// The present definition, in the form of a checkpoint of the present calendar.
    pub definition: String,
    /// Where history began before `start` was moved back. Slices that succeeded before it missed
    /// the late changes since.
    pub moved_from: Option<DateTime<Utc>>,
    /// Slices that start before this instant stay as they are.
    pub seal: Option<DateTime<Utc>>,
}

impl View<'_> {
    /// Judges every slice that starts in `[from, to)` and has ended. `checkpoints` are those of the
    /// range, in any order.
    #[must_use]
    pub(crate) fn plan(
        &self,
        checkpoints: &[Checkpoint],
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Plan {
        let calendar = &self.rollup.calendar;
        let known: BTreeMap<DateTime<Utc>, &Checkpoint> =
            checkpoints.iter().map(|checkpoint| (checkpoint.slice_start, checkpoint)).collect();
        let mut slices = Vec::new();
        let mut watermark = from;
        let mut unbroken = true;
        let mut other_definition = None;
        let mut slice = calendar.containing(from);
        while slice.start() < to && self.rollup.readable_at(slice) <= self.now {
            let checkpoint = known.get(&slice.start()).copied();
            let standing = match self.judge(checkpoint, slice) {
                due if due.is_due() && self.is_blocked(slice) => Standing::Blocked,
                standing => standing,
            };
            let is_other = |checkpoint: &Checkpoint| {
                checkpoint.definition.as_deref() != Some(&*self.definition)
            };
            if standing != Standing::Sealed && checkpoint.is_some_and(is_other) {
                other_definition.get_or_insert(slice);
            }
            unbroken &= standing.is_done();
            if unbroken {
                watermark = slice.end();
            }
            slices.push(Planned { slice, standing });
            slice = calendar.next(slice);
        }
        Plan { slices, watermark, other_definition }
    }

    /// Whether a finer slice in the window of `slice` is not done.
    #[must_use]
    pub(crate) fn is_blocked(&self, slice: Slice) -> bool {
        self.finer_done.is_some_and(|finer| finer.waits_for(self.rollup.window(slice)).is_some())
    }

    /// The standing of one slice, by its own checkpoint.
    #[must_use]
    pub fn judge(&self, checkpoint: Option<&Checkpoint>, slice: Slice) -> Standing {
        let &Self { rollup, now, failures_max, .. } = self;
        if self.seal.is_some_and(|seal| slice.start() < seal) {
            return Standing::Sealed;
        }
        if rollup.readable_at(slice) > now {
            return Standing::NotEnded;
        }
        let Some(checkpoint) = checkpoint else {
            return if self.is_empty(slice) { Standing::Empty } else { Standing::Missing };
        };
        let definition = checkpoint.definition.as_deref();
        let is_other_calendar =
            definition.map_or(0, generation_of) != generation_of(&self.definition);
        let waits = checkpoint.retry_at.is_some_and(|retry_at| retry_at > now);
        match checkpoint.state {
            State::Running if checkpoint.lease_until.is_some_and(|until| until > now) => {
                Standing::Running
            }
            State::Running => Standing::LeaseOver,
            State::Failed | State::Succeeded if is_other_calendar => Standing::OtherCalendar,
            State::Succeeded if self.moved_from.is_some_and(|before| slice.start() < before) => {
                Standing::OtherCalendar
            }
            State::Failed if checkpoint.failures >= failures_max => Standing::Exhausted,
            State::Failed | State::Yielded if waits => Standing::Waiting,
            State::Failed => Standing::Retry,
            State::Yielded => Standing::Yielded,
            State::Stale => Standing::Stale,
            State::Succeeded if wants_lookback(rollup, checkpoint, slice, now) => {
                Standing::Lookback
            }
            State::Succeeded if definition != Some(&*self.definition) => Standing::Redefined,
            State::Succeeded => Standing::Succeeded,
        }
    }

    /// Whether the slice and its grace were over when the source was found to begin after it.
    fn is_empty(&self, slice: Slice) -> bool {
        self.source_start.is_some_and(|source_start| {
            self.rollup.readable_at(slice) <= source_start.probed_at
                && source_start.first_row.is_none_or(|first| slice.end() <= first)
        })
    }
}

/// Whether one of the slices at the `lookback` offsets from this one has become readable since it
/// last ran.
fn wants_lookback(
    rollup: &Rollup,
    checkpoint: &Checkpoint,
    slice: Slice,
    now: DateTime<Utc>,
) -> bool {
    // The attempt's start counts. A slice that became readable during the attempt came after its
    // reads.
    let known = [checkpoint.started_at, checkpoint.finished_at];
    let Some(read_at) = known.into_iter().flatten().min() else { return false };
    let Some(newest) = rollup.newest(now).filter(|_| !rollup.lookback.is_empty()) else {
        return false;
    };
    // Usually all slices became readable earlier, and the search through the calendar is
    // unnecessary.
    if read_at >= rollup.readable_at(newest) {
        return false;
    }
    let mut later = slice;
    let mut walked = 0;
    rollup.lookback.iter().any(|&offset| {
        while walked < offset && later <= newest {
            later = rollup.calendar.next(later);
            walked += 1;
        }
        later <= newest && read_at < rollup.readable_at(later)
    })
}
