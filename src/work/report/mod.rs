//! Reports of finished work: one summary per slice, in logs, JSON and responses.

mod scrub;
mod seen;
mod tick;
mod verification;

pub(crate) use scrub::{DriftReport, LISTED_MAX, ScrubReport};
pub(crate) use seen::SeenRollup;
pub use tick::{FoundPace, NextDue, RollupProblem, TickReport};
pub(crate) use tick::{Gauges, HeldBack};
pub(crate) use verification::{NotCompared, SliceVerification};

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::checkpoint::{Completion, LostLease};
use crate::clients::bubble::Units;
use crate::model::clock::rfc3339;
use crate::model::hint::Hinted as _;
use crate::model::not_now::{ClaimWait, NotNow, Why};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;

/// How a slice's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its rows are right and its checkpoint says so.
    Succeeded,
    /// Its rows were replaced, but a change was reported meanwhile, so it runs again.
    Stale,
    /// It gave up its turn without a failure. A later run continues it.
    Yielded,
    /// It failed. The checkpoint holds the time of the next try.
    Failed,
    /// It had already succeeded, so nothing was done.
    AlreadySucceeded,
    /// Another worker holds its lease.
    Leased,
    /// It failed before, and its time to retry is still to come.
    Waiting,
    /// It failed too often, so that only a replay reopens it.
    Exhausted,
    /// It starts before the seal of the file or the store.
    Sealed,
    /// A newer attempt has the slice. This one wrote nothing.
    Fenced,
}

impl Outcome {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 10] = [
        Self::Succeeded,
        Self::Stale,
        Self::Yielded,
        Self::Failed,
        Self::AlreadySucceeded,
        Self::Leased,
        Self::Waiting,
        Self::Exhausted,
        Self::Sealed,
        Self::Fenced,
    ];

    /// The outcome of a slice that has to wait for this reason.
    const fn of(why: &Why) -> Self {
        match why {
            Why::NotClaimed(ClaimWait::Leased, _) => Self::Leased,
            Why::NotClaimed(ClaimWait::Backoff, _) => Self::Waiting,
            // An operator has to repair it.
            Why::OtherZone(_) => Self::Failed,
            Why::Sealed(_) => Self::Sealed,
            _ => Self::Yielded,
        }
    }

    /// The name of the outcome in output.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Stale => "stale",
            Self::Yielded => "yielded",
            Self::Failed => "failed",
            Self::AlreadySucceeded => "already_succeeded",
            Self::Leased => "leased",
            Self::Waiting => "waiting",
            Self::Exhausted => "exhausted",
            Self::Sealed => "sealed",
            Self::Fenced => "fenced",
        }
    }
}

/// How the runs of several slices ended, and what they read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// The slice's rows are right, by this run.
    pub(crate) succeeded: u64,
    /// The slice failed.
    pub(crate) failed: u64,
    /// The slice goes on or runs again later, without a failure.
    pub(crate) yielded: u64,
    /// A newer attempt has the slice.
    pub(crate) fenced: u64,
    /// The slice was not available: done already, leased, waiting, exhausted or sealed.
    pub(crate) refused: u64,
    /// Source rows that were counted.
    pub(crate) rows_read: u64,
    /// Milliseconds in statements on the source.
    pub(crate) source_ms: u64,
    /// What an app has billed. `None`: no slice is of a mirror.
    pub(crate) workload_units: Option<Units>,
}

impl Tally {
    /// Counts all of these runs.
    #[must_use]
    pub(crate) fn of<'r>(reports: impl IntoIterator<Item = &'r SliceReport>) -> Self {
        let mut tally = Self::default();
        for report in reports {
            tally.add(report);
        }
        tally
    }

    /// Counts one run.
    pub(crate) fn add(&mut self, report: &SliceReport) {
        *match report.outcome {
            Outcome::Succeeded => &mut self.succeeded,
            Outcome::Failed => &mut self.failed,
            Outcome::Yielded | Outcome::Stale => &mut self.yielded,
            Outcome::Fenced => &mut self.fenced,
            Outcome::AlreadySucceeded
            | Outcome::Leased
            | Outcome::Waiting
            | Outcome::Exhausted
            | Outcome::Sealed => &mut self.refused,
        } += 1;
        if let Some(done) = &report.completion {
            self.rows_read += done.rows_read;
            self.source_ms += done.source_ms;
        }
        if let Some(units) = report.workload_units {
            self.workload_units = Some(self.workload_units.unwrap_or_default() + units);
        }
    }
}

/// The end of a slice's run, which its report shows.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) outcome: Outcome,
    /// Why it did not succeed.
    pub(crate) reason: Option<String>,
    /// What puts that right.
    pub(crate) hint: Option<String>,
    /// When another try makes sense.
    pub(crate) retry_at: Option<DateTime<Utc>>,
    /// The counts, if the rows were replaced.
    pub(crate) completion: Option<Completion>,
    /// The type behind `reason` and `retry_at` of a slice that has to wait.
    pub(crate) not_now: Option<NotNow>,
}

impl Ending {
    #[must_use]
    pub(crate) const fn new(outcome: Outcome) -> Self {
        Self { outcome, reason: None, hint: None, retry_at: None, completion: None, not_now: None }
    }

    /// The end of a slice that has to wait.
    #[must_use]
    pub(crate) fn not_now(not_now: NotNow) -> Self {
        Self {
            reason: Some(not_now.to_string()),
            hint: not_now.hint().map(Cow::into_owned),
            retry_at: not_now.retry_at,
            not_now: Some(not_now.clone()),
            ..Self::new(Outcome::of(&not_now.why))
        }
    }

    /// The same end, of an attempt that has lost its lease.
    #[must_use]
    pub(crate) fn overtaken(self, lost: &LostLease) -> Self {
        let reason = self.reason.or_else(|| Some(lost.to_string()));
        Self { outcome: Outcome::Fenced, reason, ..self }
    }
}

/// The summary of one slice's run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SliceReport {
    pub rollup: String,
    pub start: DateTime<Utc>,
    pub end: DateTime<Utc>,
    /// How it ended.
    pub outcome: Outcome,
    /// The fencing token. Absent if the slice was not claimed.
    pub attempt: Option<u64>,
    /// Why it did not succeed.
    pub reason: Option<String>,
    /// What puts that right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// When another try makes sense.
    pub retry_at: Option<DateTime<Utc>>,
    /// The counts of rows read and rewritten.
    #[serde(flatten)]
    pub completion: Option<Completion>,
    /// The type behind `reason` and `retry_at` of a slice that has to wait.
    #[serde(skip)]
    pub not_now: Option<NotNow>,
    /// Milliseconds from claim to checkpoint, if `completion` lacks them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed_ms: Option<u64>,
    /// The workload units that the app billed for this run, by the manual's prices. Only mirrors
    /// have them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_units: Option<Units>,
}

impl SliceReport {
    /// The report of an attempt.
    #[must_use]
    pub(crate) fn of(
        rollup: &Rollup,
        slice: Slice,
        attempt: u64,
        elapsed_ms: u64,
        ending: Ending,
    ) -> Self {
        Self { attempt: Some(attempt), ..Self::new(rollup, slice, elapsed_ms, ending) }
    }

    fn new(rollup: &Rollup, slice: Slice, elapsed_ms: u64, ending: Ending) -> Self {
        let Ending { outcome, reason, hint, retry_at, completion, not_now } = ending;
        let elapsed_ms = completion.is_none().then_some(elapsed_ms);
        Self {
            rollup: rollup.name.clone(),
            start: slice.start(),
            end: slice.end(),
            outcome,
            attempt: None,
            reason,
            hint,
            retry_at,
            completion,
            not_now,
            elapsed_ms,
            workload_units: None,
        }
    }

    /// The report of a slice that was not claimed, for a reason that waiting does not change. The
    /// caller logs its summary line ([`SliceReport::logged`]).
    #[must_use]
    pub(crate) fn refused(rollup: &Rollup, slice: Slice, outcome: Outcome, reason: String) -> Self {
        let ending = Ending { reason: Some(reason), ..Ending::new(outcome) };
        Self::new(rollup, slice, 0, ending)
    }

    /// The report of a slice that was not claimed and has to wait. The caller logs it, as with
    /// [`SliceReport::refused`].
    #[must_use]
    pub(crate) fn not_now(rollup: &Rollup, slice: Slice, not_now: NotNow) -> Self {
        Self::new(rollup, slice, 0, Ending::not_now(not_now))
    }

    /// The reason that holds for every other slice of the rollup, too.
    #[must_use]
    pub fn held_back(&self) -> Option<&NotNow> {
        self.not_now.as_ref().filter(|not_now| not_now.why.holds_rollup())
    }

    /// Whether the slice's rows are known to be right now.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self.outcome, Outcome::Succeeded | Outcome::AlreadySucceeded)
    }

    /// Logs the summary line and returns the report.
    #[must_use]
    pub(crate) fn logged(self) -> Self {
        self.log();
        self
    }

    fn log(&self) {
        let none = Completion::default();
        let done = self.completion.as_ref().unwrap_or(&none);
        tracing::info!(
            rollup = self.rollup,
            slice.start = %rfc3339(self.start),
            attempt = self.attempt,
            outcome = self.outcome.word(),
            reason = self.reason,
            hint = self.hint,
            rows_read = done.rows_read,
            groups = done.groups,
            inserted = done.inserted,
            updated = done.updated,
            deleted = done.deleted,
            unchanged = done.unchanged,
            chunks = done.chunks,
            source_ms = done.source_ms,
            elapsed_ms = self.elapsed_ms.unwrap_or(done.elapsed_ms),
            settled_by = done.settled_by,
            workload_units = self.workload_units.map(Units::as_f64),
            "slice {}",
            self.outcome.word()
        );
    }
}
