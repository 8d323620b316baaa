//! Decides which slices are due, as a pure function of the definition, the checkpoints and the
//! time.
//!
//! Work comes only from checkpoints with absolute bounds. So the next tick finds every unfinished
//! slice, for any reason.

mod finer_done;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};

use crate::checkpoint::{Checkpoint, State, Watermark};
use crate::model::rollup::Rollup;
use crate::model::rollup::generation::generation_of;
use crate::model::slice::Slice;
use crate::source::reading::first_row::SourceStart;

pub use finer_done::FinerDone;

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
    /// Open, and more of its finer slices are done.
    Grown,
    /// Open: computed from the finer slices that were done, until more are.
    Open,
    /// Done.
    Succeeded,
    /// Starts before the seal of the file or the store, so it stays as it is.
    Sealed,
    /// Its rows were taken over from another job's table, and stay as they are.
    Adopted,
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
                | Self::Grown
        )
    }

    /// Why a succeeded slice must be reopened before it runs. `None`: it can run as it is.
    #[must_use]
    pub(crate) const fn reopening(self) -> Option<&'static str> {
        match self {
            Self::Lookback => Some("lookback"),
            Self::Redefined => Some("the definition has changed"),
            Self::OtherCalendar => Some("the calendar or `start` has changed"),
            Self::Grown => Some("more finer slices are done"),
            _ => None,
        }
    }

    /// Whether the watermark may pass it, as its rows are complete.
    #[must_use]
    pub const fn is_done(self) -> bool {
        matches!(
            self,
            Self::Succeeded
                | Self::Lookback
                | Self::Redefined
                | Self::Sealed
                | Self::Adopted
                | Self::Empty
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
            Self::Grown => "grown",
            Self::Open => "open",
            Self::Succeeded => "succeeded",
            Self::Sealed => "sealed",
            Self::Adopted => "adopted",
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
    /// When the first waiting slice may be tried again, or the first lease runs out.
    pub retry_at: Option<DateTime<Utc>>,
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

    /// When the next slice of `rollup` becomes due, apart from those that are due at `now`. Late
    /// changes and operators may bring work earlier.
    #[must_use]
    pub(crate) fn next_due(&self, rollup: &Rollup, now: DateTime<Utc>) -> DateTime<Utc> {
        let readable = rollup.readable_at(rollup.next_readable(now));
        self.retry_at.map_or(readable, |at| at.min(readable))
    }

    /// Whether every slice before the watermark holds the present definition.
    #[must_use]
    pub fn is_of_one_definition(&self) -> bool {
        self.other_definition.is_none_or(|first| first.start() >= self.watermark)
    }
}

/// The instant from which the checkpoints must be read to know what is due. It is the watermark, or
/// earlier where slices are to run again for late rows, or the start of history where some slices
/// hold another definition than the `present` one.
#[must_use]
pub(crate) fn read_from(
    rollup: &Rollup,
    seen: &Watermark,
    present: &str,
    now: DateTime<Utc>,
) -> DateTime<Utc> {
    let watermark = match seen.definition() {
        _ if seen.moved_from(rollup).is_some() => None,
        Some(definition) if definition == present => seen.until(),
        _ => None,
    };
    let watermark = watermark.unwrap_or(rollup.start).max(rollup.start);
    let (Some(mut slice), Some(&last)) = (rollup.newest(now), rollup.lookback.last()) else {
        return watermark;
    };
    for _ in 0..last {
        slice = rollup.calendar.previous(slice);
    }
    watermark.min(slice.start().max(rollup.start))
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
    /// Sealed slices that start before this instant and have no checkpoint were taken over from
    /// another job's table.
    pub adopted: Option<DateTime<Utc>>,
}

impl View<'_> {
    /// Judges every slice that starts in `[from, to)` and has ended, or is open. `checkpoints` are those of the
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
        let (mut other_definition, mut retry_at) = (None, None::<DateTime<Utc>>);
        let mut slice = calendar.containing(from);
        while slice.start() < to && (self.is_over(slice) || self.is_open(slice)) {
            let checkpoint = known.get(&slice.start()).copied();
            let standing = self.after_finer(self.judge(checkpoint, slice), checkpoint, slice);
            let is_other = |checkpoint: &Checkpoint| {
                checkpoint.definition.as_deref() != Some(&*self.definition)
            };
            if standing != Standing::Sealed && checkpoint.is_some_and(is_other) {
                other_definition.get_or_insert(slice);
            }
            let again = checkpoint.and_then(|it| match standing {
                Standing::Running => it.lease_until,
                Standing::Waiting => it.retry_at,
                _ => None,
            });
            retry_at = [retry_at, again].into_iter().flatten().min();
            unbroken &= standing.is_done() && self.is_over(slice);
            if unbroken {
                watermark = slice.end();
            }
            slices.push(Planned { slice, standing });
            slice = calendar.next(slice);
        }
        Plan { slices, watermark, other_definition, retry_at }
    }

    /// Whether any slice that starts in `[from, to)` has ended, or is open. Without one the
    /// checkpoints decide nothing.
    #[must_use]
    pub(crate) fn has_slices(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> bool {
        let first = self.rollup.calendar.containing(from);
        first.start() < to && (self.is_over(first) || self.is_open(first))
    }

    /// Whether `slice` waits for a finer slice.
    #[must_use]
    pub(crate) fn is_blocked(&self, checkpoint: Option<&Checkpoint>, slice: Slice) -> bool {
        self.finer_done.is_some() && self.computable(checkpoint, slice).is_none()
    }

    fn is_over(&self, slice: Slice) -> bool {
        self.rollup.readable_at(slice) <= self.now
    }

    fn is_open(&self, slice: Slice) -> bool {
        self.rollup.is_open_at(slice, self.now)
    }

    /// The instant until which `slice` can be computed: its end, or that of the finer slices that
    /// are done. `None`: it waits for more of them. Only a slice that goes on begins as an open one,
    /// it never gets shorter, and one that was whole stays so.
    #[must_use]
    pub(crate) fn computable(
        &self,
        checkpoint: Option<&Checkpoint>,
        slice: Slice,
    ) -> Option<DateTime<Utc>> {
        let Some(finer) = self.finer_done else { return Some(slice.end()) };
        let until = finer.done_until(self.rollup.window(slice));
        if until >= slice.end() {
            return Some(slice.end());
        }
        let is_of_calendar = |known: &&Checkpoint| {
            let definition = known.definition.as_deref();
            definition.map_or(0, generation_of) == generation_of(&self.definition)
        };
        let before = checkpoint.filter(is_of_calendar).and_then(|known| known.outcome.as_ref());
        let may_be = match before {
            Some(outcome) => outcome.open_until.is_some_and(|before| before <= until),
            None => self.is_open(slice),
        };
        (self.rollup.open && may_be && slice.start() < until).then_some(until)
    }

    /// The standing of a slice, given how far its finer slices are.
    fn after_finer(
        &self,
        standing: Standing,
        checkpoint: Option<&Checkpoint>,
        slice: Slice,
    ) -> Standing {
        if !standing.is_due() || self.finer_done.is_none() {
            return standing;
        }
        let computable = self.computable(checkpoint, slice);
        let outcome = checkpoint.and_then(|known| known.outcome.as_ref());
        let is_current = checkpoint.is_some_and(|known| {
            known.definition.as_deref() == Some(&*self.definition)
                && outcome.and_then(|outcome| outcome.open_until) == computable
        });
        match standing {
            Standing::Grown if computable.is_none() || is_current => Standing::Open,
            Standing::Missing if computable.is_none() && !self.is_over(slice) => Standing::NotEnded,
            _ if computable.is_none() => Standing::Blocked,
            standing => standing,
        }
    }

    /// The standing of one slice, by its own checkpoint.
    #[must_use]
    pub fn judge(&self, checkpoint: Option<&Checkpoint>, slice: Slice) -> Standing {
        let &Self { rollup, now, failures_max, .. } = self;
        if self.seal.is_some_and(|seal| slice.start() < seal) {
            let is_adopted = self.adopted.is_some_and(|end| slice.start() < end);
            return match checkpoint {
                None if is_adopted => Standing::Adopted,
                _ => Standing::Sealed,
            };
        }
        if !self.is_over(slice) && !self.is_open(slice) {
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
            State::Succeeded
                if checkpoint.outcome.as_ref().is_some_and(|it| it.open_until.is_some()) =>
            {
                Standing::Grown
            }
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
