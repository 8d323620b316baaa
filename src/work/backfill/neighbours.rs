//! Which slices of a batch are worked on together.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::TimeDelta;

use super::BatchOptions;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::source::reading::pace::Excess;
use crate::work::worker::Worker;

/// The slices of a pass, cut into those that are worked on together. The pace that was learned by
/// then decides, so this is asked for the next ones when a worker is free.
pub(super) struct Neighbours<'p> {
    worker: &'p Worker,
    rollup: &'p Rollup,
    /// Slices that are reopened before they run. Each runs alone.
    reopening: &'p BTreeSet<Slice>,
    left: &'p [Slice],
    /// How many slices of the batch have ended.
    ended: &'p AtomicUsize,
    may_join: bool,
}

impl<'p> Neighbours<'p> {
    pub(super) fn new(
        worker: &'p Worker,
        rollup: &'p Rollup,
        slices: &'p [Slice],
        reopening: &'p BTreeSet<Slice>,
        ended: &'p AtomicUsize,
        batch: BatchOptions,
    ) -> Self {
        // Limits are checked slice by slice. Finer slices are asked for one by one, and an app is
        // read page by page.
        let may_join = batch.limits.rows.is_none()
            && batch.limits.dollars.is_none()
            && rollup.depth() == 0
            && rollup.mirror.is_none()
            && worker.target.holds_source_of(rollup);
        Self { worker, rollup, reopening, left: slices, ended, may_join }
    }

    /// The number of slices that come next together.
    fn next_together(&self) -> usize {
        let pace = self.worker.pace(self.rollup);
        let is_warm = self.ended.load(Ordering::Relaxed) >= self.worker.joining.after;
        if !self.may_join || pace.is_unknown() || !is_warm {
            return 1;
        }
        let chunk_time = self.worker.governor.chunk_time(self.worker.config.source.chunk_time);
        let longest = chunk_time.min(self.worker.joining.work_max);
        let mut width = TimeDelta::zero();
        let mut before = None;
        let joins = |slice: &&Slice| {
            let adjoins = before.is_none_or(|before| self.adjoins(before, **slice));
            (before, width) = (Some(**slice), width + slice.duration());
            let expected = pace.expected(slice.start(), slice.start() + width, Excess::NONE);
            adjoins && self.may_be_joined(**slice) && expected <= longest
        };
        self.left.iter().take(self.worker.joining.slices_max).take_while(joins).count().max(1)
    }

    fn may_be_joined(&self, slice: Slice) -> bool {
        !self.rollup.is_sealed_at(slice.start()) && !self.reopening.contains(&slice)
    }

    /// Whether one slice follows the other in time, in the order of the pass, and the same coarse
    /// slices are computed from both. So the coarse slices are reopened in the order of their locks.
    fn adjoins(&self, before: Slice, slice: Slice) -> bool {
        let is_next = before.end() == slice.start() || slice.end() == before.start();
        let coarse = self.worker.config.rollups.iter();
        let mut coarse = coarse.filter(|coarse| coarse.is_computed_from(self.rollup));
        is_next && coarse.all(|it| it.windows_with(before) == it.windows_with(slice))
    }
}

impl Iterator for Neighbours<'_> {
    /// In ascending order.
    type Item = Vec<Slice>;

    fn next(&mut self) -> Option<Vec<Slice>> {
        let (some, left) = self.left.split_at_checked(self.next_together())?;
        self.left = left;
        let mut some = some.to_vec();
        some.sort_unstable();
        Some(some)
    }
}
