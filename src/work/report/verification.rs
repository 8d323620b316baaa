//! The result of comparing a slice with its source.

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::model::not_now::Why;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::target::Difference;

/// The comparison of one slice.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SliceVerification {
    pub rollup: String,
    pub start: chrono::DateTime<chrono::Utc>,
    /// The number of groups that differ.
    pub differences: u64,
    /// The first of them.
    pub examples: Vec<Difference>,
    /// What differs: `group`, or `thing` of a mirror.
    #[serde(skip)]
    pub(crate) noun: &'static str,
}

/// A slice whose rows do not claim to be right at present, so that differences are no drift.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotCompared {
    pub rollup: String,
    pub start: DateTime<Utc>,
    #[serde(flatten)]
    pub why: Why,
}

impl NotCompared {
    pub(crate) fn new(rollup: &Rollup, slice: Slice, why: Why) -> Self {
        Self { rollup: rollup.name.clone(), start: slice.start(), why }
    }

    /// Whether the source's query for one bucket of the slice timed out.
    #[must_use]
    pub const fn is_too_large(&self) -> bool {
        matches!(self.why, Why::TooLarge(_))
    }
}
