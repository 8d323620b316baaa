//! What a tick knows of a rollup once it has ended, for notices.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::{Outcome, SliceReport};
use crate::model::rollup::Rollup;
use crate::work::due::{Plan, Planned, Standing};

/// The slices of a rollup that are over and have yet to succeed, by their starts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeenRollup {
    pub(crate) rollup: String,
    /// All of them.
    pub(crate) undone: BTreeSet<DateTime<Utc>>,
    /// Those that failed, or gave up their turn for a while, and are tried again.
    pub(crate) failing: BTreeSet<DateTime<Utc>>,
    /// Those that only a replay reopens.
    pub(crate) exhausted: BTreeSet<DateTime<Utc>>,
    /// The fanned-out backfill under way.
    pub(crate) backfill: Option<String>,
}

impl SeenRollup {
    #[must_use]
    pub(crate) fn of(
        rollup: &Rollup,
        plan: &Plan,
        backfill: Option<&str>,
        now: DateTime<Utc>,
    ) -> Self {
        let mut seen = Self {
            rollup: rollup.name.clone(),
            backfill: backfill.map(str::to_owned),
            ..Self::default()
        };
        let is_undone = |planned: &&Planned| {
            !planned.standing.is_done() && rollup.readable_at(planned.slice) <= now
        };
        for Planned { slice, standing } in plan.slices.iter().filter(is_undone) {
            let start = slice.start();
            seen.undone.insert(start);
            match standing {
                Standing::Exhausted => _ = seen.exhausted.insert(start),
                Standing::Retry | Standing::Waiting => _ = seen.failing.insert(start),
                _ => {}
            }
        }
        seen
    }

    /// Learns how a slice ended after the plan, if it is one of this rollup.
    pub(crate) fn learn(&mut self, report: &SliceReport) {
        if report.rollup != self.rollup {
            return;
        }
        let start = report.start;
        match report.outcome {
            Outcome::Succeeded | Outcome::AlreadySucceeded | Outcome::Sealed => {
                self.undone.remove(&start);
                self.failing.remove(&start);
                self.exhausted.remove(&start);
            }
            Outcome::Failed => {
                self.undone.insert(start);
                // The checkpoint of a slice that is tried again holds the time of that.
                let is_over = report.retry_at.is_none() && report.not_now.is_none();
                if is_over {
                    self.failing.remove(&start);
                    self.exhausted.insert(start);
                } else {
                    self.failing.insert(start);
                }
            }
            _ => {}
        }
    }
}
