//! The slices of coarse rollups that run again after a backfill of the one that they are computed
//! from.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use serde::Serialize;

use super::{CALLS, OVERHEAD_MS, float, whole};
use crate::model::clock::Stopwatch;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::work::price::Dollars;
use crate::work::worker::{WorkError, Worker};

/// The slices of one coarse rollup that ticks compute after a backfill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CoarseEstimate {
    pub rollup: String,
    pub slices: usize,
    /// Milliseconds that they take, one after another.
    pub elapsed_ms: u64,
    /// Whether the time comes from slices of that rollup. Otherwise it is a guess.
    #[serde(rename = "learned")]
    pub is_learned: bool,
}

impl CoarseEstimate {
    #[expect(clippy::cast_precision_loss, reason = "a number of slices")]
    pub(super) fn dollars(&self) -> Dollars {
        Dollars::of(self.slices as f64, float(self.elapsed_ms))
    }
}

/// The slices that hold any of `slices`, for each rollup that is computed from `rollup`, over any
/// number of rollups between. A finer rollup stands before those that are computed from it.
///
/// # Errors
/// The checkpoints cannot be read.
pub(super) async fn of(
    worker: &Worker,
    rollup: &Rollup,
    slices: &[Slice],
) -> Result<Vec<CoarseEstimate>, WorkError> {
    let now = worker.clock.now();
    let mut found = Vec::new();
    let mut changed = vec![(rollup, stretches(slices.iter().copied()))];
    let mut place = 0;
    // Bounded: a rollup is computed from one other.
    while let Some((finer, stretches_of_finer)) = changed.get(place).cloned() {
        place += 1;
        for coarse in worker.config.rollups.iter().filter(|it| it.is_computed_from(finer)) {
            let affected = affected(coarse, &stretches_of_finer, now);
            if affected.is_empty() {
                continue;
            }
            found.push(cost(worker, coarse, affected.len()).await?);
            changed.push((coarse, stretches(affected.into_iter())));
        }
    }
    Ok(found)
}

/// `slices` with neighbours joined, in ascending order.
fn stretches(slices: impl Iterator<Item = Slice>) -> Vec<Slice> {
    let slices: Vec<Slice> = slices.collect::<BTreeSet<_>>().into_iter().collect();
    slices.chunk_by(|one, next| one.end() == next.start()).filter_map(Slice::joined).collect()
}

/// The slices of `coarse` that hold a part of `changed` and are over at `now`.
fn affected(coarse: &Rollup, changed: &[Slice], now: DateTime<Utc>) -> BTreeSet<Slice> {
    let calendar = &coarse.calendar;
    let range = |stretch: &Slice| match coarse.trailing {
        None => Some((calendar.containing(stretch.start()).start(), stretch.end())),
        Some(_) => coarse.windows_with(*stretch).map(|(first, last)| (first.start(), last.end())),
    };
    let ranges = changed.iter().filter_map(range);
    let slices = ranges.flat_map(|(from, to)| calendar.slices(from.max(coarse.start), to));
    let is_due = |it: &Slice| it.end() <= now && !coarse.is_sealed_at(it.start());
    slices.filter(is_due).collect()
}

/// The time of this many slices, by the newest ones of the rollup.
async fn cost(
    worker: &Worker,
    rollup: &Rollup,
    slices: usize,
) -> Result<CoarseEstimate, WorkError> {
    let watch = Stopwatch::start();
    let recent = worker.checkpoints.recent(&rollup.name).await?;
    let call_ms = watch.elapsed().as_secs_f64() * 1e3;
    let done = recent.iter().filter_map(|checkpoint| checkpoint.outcome.as_ref());
    let mut times: Vec<u64> = done.map(|done| done.elapsed_ms).collect();
    times.sort_unstable();
    let usual = times.get(times.len() / 2).map(|elapsed_ms| float(*elapsed_ms) + call_ms);
    let each = usual.unwrap_or(OVERHEAD_MS + CALLS * call_ms);
    #[expect(clippy::cast_precision_loss, reason = "a number of slices")]
    let elapsed_ms = whole(slices as f64 * each);
    let (rollup, is_learned) = (rollup.name.clone(), usual.is_some());
    Ok(CoarseEstimate { rollup, slices, elapsed_ms, is_learned })
}
