//! How many groups a rollup has, and how large its table becomes: by what finished slices have
//! shown, else by the planner's statistics. The source's rows stay unread.

use serde::Serialize;

use crate::checkpoint::Checkpoint;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::model::slice::boundaries;
use crate::source::reading::plan_guard::{self, Grouping};
use crate::work::estimate::float;
use crate::work::ready;
use crate::work::worker::{WorkError, Worker};

/// A rollup with fewer source rows for each group hardly compresses.
const RATIO_MIN: f64 = 2.0;

/// What makes a rollup compress.
pub(crate) const REMEDY: &str = "leave the dimension with the most values out of group_by, or write a \
    wider `bucket`";

/// A slice with fewer rows is small whatever its groups.
const ROWS_MIN: f64 = 1_000.0;

/// Slices whose statistics are asked, spread evenly.
const SAMPLES_MAX: usize = 5;

/// Bytes of a row beside its values: header, item pointer and padding.
const ROW_BYTES: f64 = 32.0;

/// Bytes of its entry in the unique index: the bucket, and the hash of its dimensions.
const UNIQUE_BYTES: f64 = 40.0;

/// Bytes of its entry in the readers' index beside the dimensions.
const READERS_BYTES: f64 = 22.0;

/// The groups of a rollup's slices.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Size {
    /// Source rows of a slice.
    pub rows_per_slice: f64,
    /// Source rows behind a group.
    pub rows_per_group: f64,
    /// Bytes of a group in the table, with its share of the indexes.
    pub bytes_per_group: f64,
    /// Whether finished slices have shown the groups. Otherwise they are the planner's guess.
    pub is_measured: bool,
}

impl Size {
    /// Groups of a slice.
    #[must_use]
    pub fn groups_per_slice(&self) -> f64 {
        self.rows_per_slice / self.rows_per_group
    }

    /// Whether the table has almost as many rows as the source.
    #[must_use]
    pub fn hardly_compresses(&self) -> bool {
        self.rows_per_group < RATIO_MIN && self.rows_per_slice >= ROWS_MIN
    }
}

/// The size of `rollup`, judged by its newest slices `recent`, else by the statistics of some of `slices`.
/// `None`: neither says anything, or it is a mirror.
///
/// # Errors
/// The source or the target cannot be read.
pub(crate) async fn of(
    worker: &Worker,
    rollup: &Rollup,
    slices: &[Slice],
    recent: &[Checkpoint],
) -> Result<Option<Size>, WorkError> {
    if rollup.mirror.is_some() {
        return Ok(None);
    }
    let done = recent.iter().filter_map(|checkpoint| checkpoint.outcome.as_ref());
    let (mut count, mut rows, mut groups) = (0.0, 0.0, 0.0);
    for done in done {
        count += 1.0;
        rows += float(done.rows_read);
        groups += float(done.groups);
    }
    let is_measured = groups > 0.0;
    if !is_measured && rollup.depth() > 0 {
        // The statistics of a table that is being filled say nothing of what it will hold.
        return Ok(None);
    }
    let stored = worker.target.bytes_per_row(rollup).await?;
    let guess = match (is_measured, stored) {
        (true, Some(_)) => None,
        _ => Some(by_statistics(worker, rollup, slices).await?),
    };
    let bytes_per_group = match (stored, guess) {
        (Some(stored), _) => stored,
        (None, Some(guess)) => bytes(&guess),
        (None, None) => return Ok(None),
    };
    if is_measured {
        let (rows_per_slice, rows_per_group) = (rows / count, rows / groups);
        return Ok(Some(Size { rows_per_slice, rows_per_group, bytes_per_group, is_measured }));
    }
    let Some(Grouping { rows, groups, .. }) = guess.filter(|guess| guess.groups > 0.0) else {
        return Ok(None);
    };
    let (rows_per_slice, rows_per_group) = (rows, rows / groups);
    Ok(Some(Size { rows_per_slice, rows_per_group, bytes_per_group, is_measured }))
}

/// The groups of a slice: the mean of some of `slices`, each as its middle bucket.
async fn by_statistics(
    worker: &Worker,
    rollup: &Rollup,
    slices: &[Slice],
) -> Result<Grouping, WorkError> {
    let shape = ready::shape(worker, rollup).await?;
    let source = worker.source_of(rollup);
    let mut tx = source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let (mut sum, mut count) = (Grouping::default(), 0.0);
    for slice in slices.iter().step_by(slices.len().div_ceil(SAMPLES_MAX).max(1)) {
        let zone = rollup.calendar.zone();
        let starts = boundaries(rollup.bucket, zone, slice.start(), slice.end());
        let middle = starts.len() / 2;
        let start = starts.get(middle).copied().unwrap_or(slice.start());
        let end = starts.get(middle + 1).copied().unwrap_or(slice.end());
        let of = plan_guard::grouping(&mut tx, rollup, &shape, (start, end)).await?;
        let buckets = float(starts.len().max(1) as u64);
        sum.rows += of.rows * buckets;
        sum.groups += of.groups * buckets;
        (sum.width, sum.key_width) = (of.width, of.key_width);
        count += 1.0;
    }
    tx.rollback().await?;
    let each = |sum: f64| sum / f64::max(count, 1.0);
    Ok(Grouping { rows: each(sum.rows), groups: each(sum.groups), ..sum })
}

/// The bytes of a group, by the widths of its values.
fn bytes(Grouping { width, key_width, .. }: &Grouping) -> f64 {
    ROW_BYTES + width + UNIQUE_BYTES + READERS_BYTES + key_width
}
