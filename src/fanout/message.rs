//! The slice of one message.

use std::sync::Arc;

use super::want::{Want, want};
use crate::checkpoint::{Backfill, begun};
use crate::clock::Deadline;
use crate::report::{Outcome, SliceReport};
use crate::rollup::Rollup;
use crate::run::RunOptions;
use crate::slice::Slice;
use crate::worker::{WorkError, Worker};

impl Worker {
    /// Works on a slice for the backfill with this ID. If the backfill asks for it, a slice that
    /// succeeded before the backfill began, or by another definition, is reopened.
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub async fn run_in_backfill(
        &self,
        rollup: &Rollup,
        slice: Slice,
        id: &str,
        deadline: Deadline,
    ) -> Result<SliceReport, WorkError> {
        let backfill = self.backfill_of(rollup, id).await?;
        // An ID in a user's own format stands for a backfill that begins now.
        let began = begun(id).unwrap_or_else(|| self.clock.now());
        let options = RunOptions { backfill: Some(began), ..RunOptions::default() };
        let report = self.run(rollup, slice, deadline, options).await?;
        // The failure may belong to a slice of another calendar.
        let has_ended = matches!(report.outcome, Outcome::AlreadySucceeded | Outcome::Exhausted);
        let Some(backfill) = backfill.filter(|_| has_ended) else {
            return Ok(report);
        };
        if !self.is_wanted_again(rollup, slice, &backfill).await? {
            return Ok(report);
        }
        let reason = format!("backfill {id}");
        let now = self.clock.now();
        self.checkpoints.reopen(&rollup.name, slice.start(), &reason, now).await?;
        self.run(rollup, slice, deadline, options).await
    }

    async fn is_wanted_again(
        &self,
        rollup: &Rollup,
        slice: Slice,
        backfill: &Backfill,
    ) -> Result<bool, WorkError> {
        let Some(found) = self.checkpoints.get(&rollup.name, slice.start()).await? else {
            return Ok(false);
        };
        let now = self.clock.now();
        let seen = self.watermark(rollup).await?;
        let view = self.view(rollup, &seen, now);
        let standing = view.judge(Some(&found), slice);
        let force_since = backfill.force.then_some(backfill.started_at);
        Ok(want(standing, Some(&found), &view.definition, force_since) == Want::Again)
    }

    /// The request of a backfill never changes, so each process reads it once.
    async fn backfill_of(
        &self,
        rollup: &Rollup,
        id: &str,
    ) -> Result<Option<Arc<Backfill>>, WorkError> {
        if let Some(known) = self.known_backfill(&rollup.name, id) {
            return Ok(Some(known));
        }
        let found = self.checkpoints.backfill(&rollup.name, id).await?;
        Ok(found.map(|found| self.remember_backfill(found)))
    }
}
