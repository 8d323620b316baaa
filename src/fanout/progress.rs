//! The progress of a backfill, from the checkpoints of its slices.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;

use crate::checkpoint::{Backfill, BackfillState, Glance, State};
use crate::model::rollup::Rollup;
use crate::work::due::View;
use crate::work::worker::{WorkError, Worker};
use crate::work::{ready, standings};

/// Number of parts of the range that are read concurrently.
const PARTS: i32 = 16;

/// Progress of a backfill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct BackfillProgress {
    /// Slices of the range that have ended.
    pub(crate) slices: usize,
    /// Done slices: computed, or already right.
    pub(crate) done: usize,
    /// Done slices that were computed since the backfill began.
    pub(crate) computed: usize,
    /// Slices that a worker is computing.
    pub(crate) running: usize,
    /// Failed slices that will be tried again.
    pub(crate) failed: usize,
    /// Slices that failed too often.
    pub(crate) exhausted: usize,
    /// All other unfinished slices.
    pub(crate) left: usize,
    /// Source rows counted since it began.
    pub(crate) rows_read: u64,
    /// Slices an hour, since it began.
    pub(crate) slices_per_hour: f64,
    /// Estimated end at this rate.
    pub(crate) done_at: Option<DateTime<Utc>>,
}

/// The progress of `backfill`.
///
/// # Errors
/// DynamoDB cannot be read.
pub(crate) async fn progress_of(
    worker: &Worker,
    rollup: &Rollup,
    backfill: &Backfill,
) -> Result<BackfillProgress, WorkError> {
    let Backfill { from, to, .. } = *backfill;
    let step = (to - from) / PARTS;
    let edge = |part: i32| if part == PARTS { to } else { from + step * part };
    let parts = (0..PARTS).map(|part| (edge(part), edge(part + 1)));
    let glances: Vec<Vec<Glance>> = futures_util::stream::iter(parts)
        .map(|(from, to)| worker.checkpoints.glance(&backfill.rollup, from, to))
        .buffer_unordered(usize::try_from(PARTS).unwrap_or(1))
        .try_collect()
        .await?;
    let seen = ready::watermark(worker, rollup).await?;
    let now = worker.clock.now();
    let end = backfill.finished_at.unwrap_or(now);
    let view = standings::view(worker, rollup, &seen, now);
    let mut progress = BackfillProgress::default();
    let mut known = 0;
    for glance in glances.iter().flatten() {
        known += 1;
        let is_since = glance.started_at.is_some_and(|it| it >= backfill.started_at);
        let is_right = glance.definition.as_deref() == Some(&view.definition);
        match glance.state {
            State::Succeeded if is_since => {
                progress.done += 1;
                progress.computed += 1;
                progress.rows_read += glance.rows_read;
            }
            State::Succeeded if is_right && !backfill.force => progress.done += 1,
            State::Running => progress.running += 1,
            State::Failed if glance.failures >= worker.config.checkpoint.failures_max => {
                progress.exhausted += 1;
            }
            State::Failed => progress.failed += 1,
            _ => progress.left += 1,
        }
    }
    // Slices without a checkpoint. Empty and sealed slices need none.
    let mut slice = rollup.calendar.containing(from);
    while slice.start() < to && rollup.readable_at(slice) <= now {
        progress.slices += 1;
        slice = rollup.calendar.next(slice);
    }
    let without = progress.slices.saturating_sub(known);
    let idle = match backfill.state {
        BackfillState::Done => without,
        _ => idle(&view, from, to).min(without),
    };
    progress.done += idle;
    progress.left += without - idle;
    progress.foresee(backfill.started_at, end);
    Ok(progress)
}

/// The number of slices in the range that do without a checkpoint: those before the source's first
/// row or `seal_before`.
fn idle(view: &View<'_>, from: DateTime<Utc>, to: DateTime<Utc>) -> usize {
    let calendar = &view.rollup.calendar;
    let mut slice = calendar.containing(from);
    let mut idle = 0;
    while slice.start() < to && view.judge(None, slice).is_done() {
        idle += 1;
        slice = calendar.next(slice);
    }
    idle
}

impl BackfillProgress {
    /// Whether all slices are done or exhausted.
    #[must_use]
    pub(crate) const fn is_through(&self) -> bool {
        self.left == 0 && self.running == 0 && self.failed == 0
    }

    fn foresee(&mut self, began: DateTime<Utc>, end: DateTime<Utc>) {
        let elapsed = (end - began).to_std().unwrap_or_default().max(Duration::from_secs(1));
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let (computed, left) =
            (self.computed as f64, (self.left + self.running + self.failed) as f64);
        self.slices_per_hour = computed / elapsed.as_secs_f64() * 3600.0;
        if left > 0.0 && self.slices_per_hour > 0.0 {
            #[expect(clippy::cast_possible_truncation, reason = "milliseconds of an estimate")]
            let ms = (left / self.slices_per_hour * 3_600_000.0).min(1e14) as i64;
            self.done_at = Some(end + TimeDelta::milliseconds(ms));
        }
    }
}
