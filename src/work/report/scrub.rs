//! The report of one tick's scrub.

use serde::Serialize;

use super::{NotCompared, SliceVerification};
use crate::model::clock::rfc3339;

/// Slices listed in a tick's report. All are counted, and the log has a line for each.
pub(crate) const LISTED_MAX: usize = 100;

/// Result of a tick's scrub.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ScrubReport {
    /// Slices compared with the source.
    pub verified: usize,
    /// How many of them differ.
    pub differing: usize,
    /// The first of these.
    pub drifted: Vec<DriftReport>,
    /// Slices that were due and failed to be compared.
    pub passed_over: Vec<NotCompared>,
}

/// A slice that differs from the source for an unknown reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DriftReport {
    /// The differences.
    #[serde(flatten)]
    pub found: SliceVerification,
    /// Whether it was reopened.
    pub reopened: bool,
}

impl ScrubReport {
    /// Whether nothing was due.
    #[must_use]
    pub const fn is_nothing(&self) -> bool {
        self.verified == 0 && self.passed_over.is_empty()
    }

    pub(crate) fn pass_over(&mut self, pending: NotCompared) {
        tracing::info!(
            rollup = pending.rollup,
            slice.start = %rfc3339(pending.start),
            reason = pending.why.explained(),
            "slice not compared"
        );
        if self.passed_over.len() < LISTED_MAX {
            self.passed_over.push(pending);
        }
    }
}
