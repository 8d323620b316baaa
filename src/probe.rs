//! Empty stretches cost nothing: the source is asked once where its rows begin, and what is older
//! is taken for done without being computed.

use chrono::{DateTime, Utc};

use crate::checkpoint::Watermark;
use crate::db::{Access, CATALOGUE_TIMEOUT};
use crate::rollup::Rollup;
use crate::source::begin;
use crate::source::begin::SourceBegin;
use crate::worker::{WorkError, Worker};

impl Worker {
    /// Asks the source where its rows begin, and remembers it. Where rows were added before what
    /// was known, the watermark falls back to them.
    ///
    /// # Errors
    /// The source or DynamoDB cannot be asked.
    pub async fn probe(&self, rollup: &Rollup) -> Result<Watermark, WorkError> {
        let seen = self.watermark(rollup).await?;
        Box::pin(self.recognise(rollup, seen.bond())).await?;
        if rollup.fine.is_some() {
            // A slice that was passed without a checkpoint could not be reopened when rows come to
            // be in it after all; and what is empty is quickly computed from what is empty.
            return Ok(seen);
        }
        if !self.watch_changes(rollup).await? {
            return Ok(seen);
        }
        // What is taken for empty relies on marks as what is read does.
        self.consumer(rollup).await?;
        let shape = self.shape(rollup).await?;
        let mut tx = self.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
        let found = begin::ask(&mut tx, rollup, &shape).await?;
        tx.rollback().await?;
        let Some(found) = found else { return Ok(seen) };
        // By both clocks: whatever is called empty was over for the source and for us.
        let probed_at = found.probed_at.min(self.clock.now());
        let found = SourceBegin { probed_at, ..found };
        if is_known(&seen, found) {
            return Ok(seen);
        }
        let lower_to = lower_to(rollup, &seen, found);
        self.checkpoints.remember_begin(&rollup.name, &seen, found, lower_to).await?;
        Ok(self.watermark(rollup).await?)
    }

    /// The rollup's watermark, after a probe where a tick needs one: before anything has succeeded,
    /// and, while the source was without rows, whenever a further slice has ended.
    pub(crate) async fn watermark_for_tick(
        &self,
        rollup: &Rollup,
        now: DateTime<Utc>,
    ) -> Result<Watermark, WorkError> {
        let seen = self.watermark(rollup).await?;
        let Some(newest) = rollup.newest(now) else { return Ok(seen) };
        let wanted = match seen.begin() {
            None => seen.until().is_none() && rollup.fine.is_none(),
            Some(begin) => {
                begin.first_row.is_none() && rollup.readable_at(newest) > begin.probed_at
            }
        };
        if wanted { self.probe(rollup).await } else { Ok(seen) }
    }
}

/// Whether remembering `found` would change nothing: the same first row, already known when what
/// lies before it had ended.
fn is_known(seen: &Watermark, found: SourceBegin) -> bool {
    seen.begin().is_some_and(|known| {
        let is_over = found.first_row.is_some_and(|first| first <= known.probed_at);
        known.first_row == found.first_row && is_over
    })
}

/// Where slices begin that were taken for empty, and so passed by the watermark, but are not.
fn lower_to(rollup: &Rollup, seen: &Watermark, found: SourceBegin) -> Option<DateTime<Utc>> {
    let (known, first) = (seen.begin()?, found.first_row?);
    let is_earlier = known.first_row.is_none_or(|known| first < known);
    is_earlier.then(|| rollup.calendar.containing(first.max(rollup.start)).start())
}
