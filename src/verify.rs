//! Verify: recompute a slice and compare, writing nothing.

use std::time::Duration;

use serde::Serialize;

use crate::rollup::Rollup;
use crate::slice::Slice;
use crate::target::{Difference, Verification};
use crate::worker::{WorkError, Worker};

/// How one slice compares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SliceVerification {
    /// The rollup.
    pub rollup: String,
    /// The slice's start.
    pub start: chrono::DateTime<chrono::Utc>,
    /// How many groups differ.
    pub differences: u64,
    /// The first of them.
    pub examples: Vec<Difference>,
}

impl Worker {
    /// Compares `slice` with what one `GROUP BY` over the source, or over the finer rollup, gives now; returns at most
    /// `limit` of the groups that differ. Every statement ends within `timeout`.
    ///
    /// # Errors
    /// The databases cannot be asked, or do not fit the definition.
    pub async fn verify(
        &self,
        rollup: &Rollup,
        slice: Slice,
        timeout: Duration,
        limit: usize,
    ) -> Result<SliceVerification, WorkError> {
        let shape = self.ready(rollup).await?;
        let what = Verification { rollup, shape: &shape, slice, timeout, limit };
        let (differences, examples) = self.target.verify(self.source_of(rollup), &what).await?;
        let (rollup, start) = (rollup.name.clone(), slice.start());
        Ok(SliceVerification { rollup, start, differences, examples })
    }
}
