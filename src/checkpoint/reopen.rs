//! Reopens a slice because of late data, a changed definition or a replay.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::try_join_all;

use super::checkpoints::Checkpoints;
use super::error::CheckpointError;
use super::finish::shortened;
use super::item::{Checkpoint, instant, key, label, number, text};
use super::state::State;
use super::store::{Cond, Item, Key, UNFINISHED, Update, Written};
use super::tombstone;
use super::watermark::{Watermark, lowered, sealed};
use crate::clients::db::Tx;

/// Reads of a slice before giving up. Each repetition means that a worker claimed or ended it in
/// the milliseconds between two calls.
pub(super) const LOOKS_MAX: usize = 5;

/// Longest wait before the next read.
const CONFLICT_WAIT: Duration = Duration::from_millis(100);

/// Slices reopened concurrently. The number hides the network's delay and is low enough for the
/// table.
const REOPENED_AT_ONCE: usize = 8;

/// Slices of a rollup that overlap changes of its source.
#[derive(Clone, Debug)]
pub(crate) struct Changed<'c> {
    pub rollup: &'c str,
    /// Those that were read, or counted as empty. They are reopened.
    pub starts: BTreeSet<DateTime<Utc>>,
    /// The first of the others, which are due already. The watermark falls back to it, too.
    pub first_due: Option<DateTime<Utc>>,
    /// Slices that start before this instant are sealed.
    pub seal: Option<DateTime<Utc>>,
    pub reason: &'c str,
}

impl Checkpoints {
    /// Makes a slice run again. A running slice continues, and its completion makes it stale. A
    /// slice without a checkpoint gets one, so that a slice that never ran can be requested. If the
    /// watermark is past the slice, it falls back in the same transaction. With two writes, a crash
    /// in between would leave a slice behind the watermark that no tick looks at.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub async fn reopen(
        &self,
        rollup: &str,
        slice_start: DateTime<Utc>,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<Checkpoint, CheckpointError> {
        for look in 0..LOOKS_MAX {
            if look > 0 {
                tokio::time::sleep(CONFLICT_WAIT.mul_f64(fastrand::f64())).await;
            }
            let found = self.get(rollup, slice_start).await?;
            let is_running = found.is_some_and(|found| found.state == State::Running);
            let seen = self.watermark(rollup).await?;
            let is_past = seen.until().is_some_and(|until| until > slice_start);
            let updates = vec![
                reopened(rollup, slice_start, reason, now, is_running),
                lowered(rollup, slice_start, is_past),
            ];
            if self.store.update_all(updates, "reopen", None).await?
                && let Some(reopened) = self.get(rollup, slice_start).await?
            {
                return Ok(reopened);
            }
        }
        let slice = label(rollup, slice_start);
        Err(CheckpointError::Contended { operation: "reopen", slice })
    }

    /// Makes a slice run again, as [`Checkpoints::reopen`] does, in a transaction of the target, if
    /// it has a checkpoint. If it has none, its first claim waits until the transaction has ended.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails. The caller must then roll back.
    pub(crate) async fn reopen_within(
        &self,
        rollup: &str,
        slice_start: DateTime<Utc>,
        reason: &str,
        now: DateTime<Utc>,
        tx: &mut Tx,
    ) -> Result<(), CheckpointError> {
        if !self.store.find_or_hold(key(rollup, slice_start), tx).await? {
            return Ok(());
        }
        let marked = |is_running| reopened(rollup, slice_start, reason, now, is_running);
        self.one_of([marked(false), marked(true)], tx).await?;
        let back = |is_past| lowered(rollup, slice_start, is_past);
        self.one_of([back(true), back(false)], tx).await.map(drop)
    }

    /// Reopens the slices of `changed` in a transaction of the target, in the order of locks, and
    /// lowers the watermark. Returns the watermark after it. `None`: it was left as it is.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails. The caller must then roll back.
    pub(crate) async fn reopen_all_within(
        &self,
        changed: &Changed<'_>,
        now: DateTime<Utc>,
        tx: &mut Tx,
    ) -> Result<Option<Watermark>, CheckpointError> {
        let Changed { rollup, starts, first_due, seal, reason } = changed;
        let marked = |start: &DateTime<Utc>| {
            [false, true].map(|is_running| reopened(rollup, *start, reason, now, is_running))
        };
        let updates: Vec<_> = starts.iter().flat_map(marked).collect();
        let written = self.store.update_each(&updates, "reopen", tx).await?;
        if written.len() != starts.len() {
            let slice = format!("{} slices of {rollup}", starts.len());
            return Err(CheckpointError::Contended { operation: "reopen", slice });
        }
        let first = starts.first().copied();
        if let Some((first, seal)) = first.zip(*seal).filter(|(first, seal)| first < seal) {
            self.store.update_each(&sealed(rollup, first, seal), "note a sealed slice", tx).await?;
        }
        let Some(to) = first.into_iter().chain(*first_due).min() else { return Ok(None) };
        let back = |is_past| lowered(rollup, to, is_past);
        let item = self.one_of([back(true), back(false)], tx).await?;
        Watermark::read(&item).map(Some)
    }

    /// Makes the slices that start from the first to the second instant of `range` run again, those
    /// of them that have a checkpoint, in a transaction of the target. A stale slice stays as it is:
    /// it runs again in any case, and the transaction that made it stale has lowered the watermark.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails. The caller must then roll back.
    pub(crate) async fn reopen_range_within(
        &self,
        rollup: &str,
        range: (DateTime<Utc>, DateTime<Utc>),
        reason: &str,
        now: DateTime<Utc>,
        tx: &mut Tx,
    ) -> Result<(), CheckpointError> {
        let running = reopened(rollup, range.0, reason, now, true);
        let free = reopened(rollup, range.0, reason, now, false);
        let is_to_run = Cond::is_not("state", text(State::Stale.word()));
        let free = Update { condition: free.condition.and(is_to_run), ..free };
        let last = key(rollup, range.1).sort;
        let written = self.store.update_range([running, free], last, "reopen windows", tx);
        if written.await? == 0 {
            return Ok(());
        }
        let back = |is_past| lowered(rollup, range.0, is_past);
        self.one_of([back(true), back(false)], tx).await.map(drop)
    }

    /// As [`Checkpoints::reopen_range_within`], in writes of their own. The caller must repeat the
    /// whole call after a crash.
    ///
    /// # Errors
    /// As [`Checkpoints::reopen_all`].
    pub(crate) async fn reopen_range(
        &self,
        rollup: &str,
        (first, last): (DateTime<Utc>, DateTime<Utc>),
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        let claimed = self.range(rollup, first, last + TimeDelta::seconds(1)).await?;
        let Some(first) = claimed.first().map(|claimed| claimed.slice_start) else {
            return Ok(());
        };
        let claimed = claimed.iter().filter(|claimed| claimed.state != State::Stale);
        let starts: Vec<_> = claimed.map(|claimed| claimed.slice_start).collect();
        self.mark_all_dirty(rollup, &starts, reason, now).await?;
        // Also for a stale slice: the worker that made it stale may have died before it did this.
        self.lower_watermark(rollup, first).await.map(drop)
    }

    /// Makes one of two writes, whose conditions exclude each other, in a transaction of the
    /// target.
    async fn one_of(&self, updates: [Update; 2], tx: &mut Tx) -> Result<Item, CheckpointError> {
        const OPERATION: &str = "reopen";
        for _ in 0..LOOKS_MAX {
            for update in &updates {
                let written = self.store.update(update.clone(), OPERATION, Some(&mut *tx));
                match written.await? {
                    Written::Done(item) => return Ok(item),
                    Written::Refused { found: Some(item), .. } => tombstone::refuse(&item)?,
                    Written::Refused { found: None, .. } => {}
                }
            }
        }
        let Key { rollup, sort } = &updates[0].key;
        let slice = format!("{rollup}@{sort}");
        Err(CheckpointError::Contended { operation: OPERATION, slice })
    }

    /// Marks many slices to run again, each as [`Checkpoints::reopen`] does, then lowers the
    /// watermark. Not atomic: the caller must repeat the whole call after a crash.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails. Some slices may then be marked while the watermark has
    /// not fallen back, and all of them must be reopened again.
    pub(crate) async fn reopen_all(
        &self,
        rollup: &str,
        starts: &[DateTime<Utc>],
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        let Some(first) = starts.iter().min() else { return Ok(()) };
        self.mark_all_dirty(rollup, starts, reason, now).await?;
        self.lower_watermark(rollup, *first).await.map(drop)
    }

    async fn mark_all_dirty(
        &self,
        rollup: &str,
        starts: &[DateTime<Utc>],
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        for some in starts.chunks(REOPENED_AT_ONCE) {
            let mut work = Vec::with_capacity(some.len());
            for start in some {
                work.push(self.mark_dirty(rollup, *start, reason, now));
            }
            try_join_all(work).await?;
        }
        Ok(())
    }

    async fn mark_dirty(
        &self,
        rollup: &str,
        slice_start: DateTime<Utc>,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Result<Checkpoint, CheckpointError> {
        for _ in 0..LOOKS_MAX {
            for is_running in [false, true] {
                let update = reopened(rollup, slice_start, reason, now, is_running);
                if let Written::Done(item) = self.send(update, "reopen").await? {
                    return Checkpoint::from_item(&item);
                }
            }
        }
        let slice = label(rollup, slice_start);
        Err(CheckpointError::Contended { operation: "reopen", slice })
    }
}

/// Reopens a slice that a worker holds, or one that is free. The slice may lack a checkpoint.
pub(super) fn reopened(
    rollup: &str,
    slice_start: DateTime<Utc>,
    reason: &str,
    now: DateTime<Utc>,
    is_running: bool,
) -> Update {
    let running = text(State::Running.word());
    let condition = match is_running {
        true => Cond::is("state", running),
        false => Cond::Absent.or(Cond::is_not("state", running)),
    };
    let update = Update::new(key(rollup, slice_start), condition)
        .increment("dirty")
        .set("reason", text(shortened(reason)))
        .set("reopened_at", instant(now));
    if is_running {
        return update;
    }
    update
        .fill("attempt", number(0))
        .set("state", text(State::Stale.word()))
        .set("failures", number(0))
        .set(UNFINISHED, text(rollup))
        .remove(&["retry_at"])
}
