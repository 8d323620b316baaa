//! The report of one tick.

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::{Outcome, ScrubReport, SeenRollup, SliceReport};
use crate::clients::bubble::Units;
use crate::model::hint::Fault;
use crate::model::not_now::NotNow;
use crate::model::rollup::Rollup;
use crate::target::DeletedSlices;
use crate::throttle::pace::Hold;
use crate::work::backlog::Backlog;
use crate::work::due::{Plan, Planned, Standing};
use crate::work::identity::is_unproven;
use crate::work::worker::{Severity, WorkError};

/// The result of a tick.
#[derive(Debug, Default, Serialize)]
pub struct TickReport {
    /// The slices that were worked on.
    pub slices: Vec<SliceReport>,
    /// Due slices that were left to the next tick.
    pub left: usize,
    /// Due slices that were sent to the queues for other invocations.
    #[serde(skip)]
    pub sent: u64,
    /// Rollups that a pause, the hours or the source's load held back.
    pub held: Vec<HeldBack>,
    /// Rollups that failed, or whose late changes cannot be noticed.
    pub problems: Vec<RollupProblem>,
    /// Old slices that were verified once all due work was done.
    pub scrub: ScrubReport,
    /// Old slices that were deleted by `keep`.
    pub kept_away: DeletedSlices,
    /// When work comes next. `None`: no rollup could be read, or one slice was named.
    pub next_due: Option<NextDue>,
    /// What an app has billed for it, by the manual's prices: slices, looks for changes, and counts.
    /// `None`: the source is a database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_units: Option<Units>,
    /// The pace of reading at its end. `None`: it is fixed, or this process has not looked for it.
    pub pace: Option<FoundPace>,
    /// The state of all rollups when it began.
    #[serde(skip)]
    pub gauges: Gauges,
    /// The rollups that could be looked at, once each, in their state at its end. Only where
    /// somebody hears of trouble.
    #[serde(skip)]
    pub(crate) seen: Vec<SeenRollup>,
    /// Whether the source was left asleep, so that only the checkpoints were looked at.
    #[serde(skip)]
    pub(crate) is_asleep: bool,
    /// Whether the checkpoints are unavailable from now on.
    #[serde(skip)]
    pub(crate) is_over: bool,
    /// The present step, in case the time runs out.
    #[serde(skip)]
    pub(crate) doing: &'static str,
    /// The rollup of that step.
    #[serde(skip)]
    pub(crate) at: Option<String>,
}

/// The pace that a process has found.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FoundPace {
    /// Rests, as a multiple of the work.
    pub nice_ratio: f64,
    /// The signal that keeps it from being faster.
    pub held_by: Hold,
}

/// The state of all rollups when a tick began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// The worst rollup's distance between its watermark and the end of its newest readable slice.
    pub(crate) lag: TimeDelta,
    /// Slices that were due.
    pub(crate) due: usize,
    /// Slices that wait for their time to retry, or for the worker that has them.
    pub(crate) waiting: usize,
    /// Slices that failed too often.
    pub(crate) exhausted: usize,
    /// Backfills under way.
    pub(crate) backfills: usize,
}

/// When work comes next. Late changes and operators may bring it earlier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextDue {
    /// The rollup. `None`: this tick left due slices to the next one.
    pub rollup: Option<String>,
    pub at: DateTime<Utc>,
}

/// A rollup whose due slices have to wait.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct HeldBack {
    pub rollup: String,
    #[serde(flatten)]
    pub not_now: NotNow,
    /// The number of due slices.
    pub left: usize,
}

/// Why a rollup failed.
#[derive(Debug, Serialize)]
pub struct RollupProblem {
    pub rollup: String,
    /// The problem.
    pub error: String,
    /// What puts it right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(skip)]
    severity: Option<Severity>,
    /// Whether fresh slices can still be computed.
    #[serde(skip)]
    pub(crate) is_alarm: bool,
}

impl RollupProblem {
    /// The error that kept `rollup` from being worked on.
    #[must_use]
    pub(crate) fn new(rollup: &str, error: &WorkError) -> Self {
        let (rollup, severity) = (rollup.to_owned(), Some(error.severity()));
        let (error, hint) = Fault::of(error).into_parts();
        Self { rollup, error, hint, severity, is_alarm: false }
    }

    /// The error that kept late changes of `rollup` from being noticed. If it concerns the source's
    /// triggers or index, and no server, everything else continues, and those slices report that
    /// they settled by `grace`.
    #[must_use]
    pub(crate) fn of_late_changes(rollup: &str, error: &WorkError) -> Self {
        Self { is_alarm: matches!(error, WorkError::Usage(_)), ..Self::new(rollup, error) }
    }

    /// A restore may have lost rows that were counted. The rollup's slices are still computed.
    #[must_use]
    pub(crate) fn of_unproven(rollup: &Rollup, reason: &str) -> Self {
        let (error, hint) = is_unproven(rollup, reason).into_parts();
        let severity = Some(Severity::Failed);
        Self { rollup: rollup.name.clone(), error, hint, severity, is_alarm: true }
    }

    /// How the problem ends a command. `None`: it does not.
    #[must_use]
    pub(crate) const fn severity(&self) -> Option<Severity> {
        self.severity
    }
}

impl From<(f64, Hold)> for FoundPace {
    fn from((nice_ratio, held_by): (f64, Hold)) -> Self {
        Self { nice_ratio, held_by }
    }
}

impl Gauges {
    pub(crate) fn add(&mut self, rollup: &Rollup, plan: &Plan, now: DateTime<Utc>) {
        self.due += plan.due().count();
        for Planned { standing, .. } in &plan.slices {
            self.waiting += usize::from(matches!(standing, Standing::Running | Standing::Waiting));
            self.exhausted += usize::from(*standing == Standing::Exhausted);
        }
        if let Some(newest) = rollup.newest(now) {
            self.lag = self.lag.max(newest.end() - plan.watermark);
        }
    }
}

impl TickReport {
    /// Learns when `rollup` has work next.
    pub(crate) fn expect(&mut self, rollup: &str, at: DateTime<Utc>) {
        if self.next_due.as_ref().is_none_or(|known| at < known.at) {
            self.next_due = Some(NextDue { rollup: Some(rollup.to_owned()), at });
        }
    }

    /// Learns from the slices that this tick ended without success, and from those that it left.
    pub(crate) fn expect_the_rest(&mut self, now: DateTime<Utc>) {
        let again: Vec<_> = self
            .slices
            .iter()
            .filter(|slice| !slice.is_success())
            .filter(|slice| !matches!(slice.outcome, Outcome::Exhausted | Outcome::Sealed))
            .map(|slice| (slice.rollup.clone(), slice.retry_at.unwrap_or(now)))
            .collect();
        for (rollup, at) in again {
            self.expect(&rollup, at);
        }
        if self.left > 0 {
            let held = self.held.iter().map(|held| held.left).sum::<usize>();
            let free_at = self.held.iter().map(|it| it.not_now.retry_at.unwrap_or(now)).min();
            let at = free_at.filter(|_| held == self.left).unwrap_or(now).max(now);
            self.next_due = Some(NextDue { rollup: None, at });
        }
    }

    /// Leaves the rest of `backlog`, and `more`.
    pub(crate) fn hold(&mut self, backlog: &mut Backlog<'_>, more: usize, not_now: NotNow) {
        let left = backlog.due.len() + more;
        backlog.due.clear();
        self.left += left;
        let reason = not_now.to_string();
        tracing::info!(rollup = backlog.rollup.name, reason, left, "held back");
        self.held.push(HeldBack { rollup: backlog.rollup.name.clone(), not_now, left });
    }

    pub(crate) fn problem(&mut self, rollup: &Rollup, error: &WorkError) {
        let problem = RollupProblem::new(&rollup.name, error);
        // The search for late changes meets the same problem as the work on the slices.
        let is_same = |it: &RollupProblem| it.rollup == problem.rollup && it.error == problem.error;
        if !self.problems.iter().any(is_same) {
            self.problems.push(problem);
        }
    }

    /// Whether a problem keeps all slices of `rollup` from being computed.
    pub(crate) fn is_blocked(&self, rollup: &Rollup) -> bool {
        let blocks = |problem: &RollupProblem| problem.rollup == rollup.name && !problem.is_alarm;
        self.problems.iter().any(blocks)
    }

    /// Whether the tick found nothing to do now or soon, so that only time brings work.
    #[must_use]
    pub fn found_nothing(&self) -> bool {
        let Gauges { due, waiting, .. } = self.gauges;
        due == 0 && waiting == 0 && self.held.is_empty() && self.problems.is_empty()
    }

    /// The number of rollups whose late changes cannot be noticed.
    #[must_use]
    pub fn alarms(&self) -> usize {
        self.problems.iter().filter(|problem| problem.is_alarm).count()
    }

    /// Brings what was seen before the work up to its end.
    pub(crate) fn learn_ends(&mut self) {
        for seen in &mut self.seen {
            for report in &self.slices {
                seen.learn(report);
            }
        }
    }

    /// The worst severity in the report. `None`: everything went well.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        let has_failed = self.slices.iter().any(|slice| matches!(slice.outcome, Outcome::Failed));
        let failed = (has_failed || self.scrub.differing > 0).then_some(Severity::Failed);
        let problems = self.problems.iter().filter_map(|problem| problem.severity);
        problems.chain(failed).max_by_key(|severity| *severity as u8)
    }
}
