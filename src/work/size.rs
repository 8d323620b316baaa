//! How many groups a rollup has, and how large its table becomes: by what finished slices have
//! shown, else by the planner's statistics. The source's rows stay unread.

use serde::Serialize;

use crate::clients::db::{Access, CATALOGUE_TIMEOUT};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::model::slice::boundaries;
use crate::source::reading::plan_guard::{self, Grouping};
use crate::work::ready;
use crate::work::worker::{WorkError, Worker};

/// A rollup with fewer source rows for each group hardly compresses.
const RATIO_MIN: f64 = 2.0;

/// What makes a rollup compress.
pub(crate) const REMEDY: &str = "leave the dimension with the most values out of group_by, or write a \
    wider `bucket`";

/// A slice with fewer rows is small whatever its groups.
const ROWS_MIN: f64 = 1_000.0;

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

/// The size of `rollup`, judged by its newest slices, else by the statistics of `slice`. `None`:
/// neither says anything, or it is a mirror.
///
/// # Errors
/// The source, the target or the checkpoints cannot be read.
pub(crate) async fn of(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
) -> Result<Option<Size>, WorkError> {
    if rollup.mirror.is_some() {
        return Ok(None);
    }
    let recent = worker.checkpoints.recent(&rollup.name).await?;
    let done = recent.iter().filter_map(|checkpoint| checkpoint.outcome.as_ref());
    let (mut slices, mut rows, mut groups) = (0.0, 0.0, 0.0);
    for done in done {
        slices += 1.0;
        rows += float(done.rows_read);
        groups += float(done.groups);
    }
    let is_measured = groups > 0.0;
    if !is_measured && rollup.finer.is_some() {
        // The statistics of a table that is being filled say nothing of what it will hold.
        return Ok(None);
    }
    let stored = worker.target.bytes_per_row(rollup).await?;
    let guess = match (is_measured, stored) {
        (true, Some(_)) => None,
        _ => Some(by_statistics(worker, rollup, slice).await?),
    };
    let bytes_per_group = match (stored, guess) {
        (Some(stored), _) => stored,
        (None, Some((guess, _))) => bytes(&guess),
        (None, None) => return Ok(None),
    };
    if is_measured {
        let (rows_per_slice, rows_per_group) = (rows / slices, rows / groups);
        return Ok(Some(Size { rows_per_slice, rows_per_group, bytes_per_group, is_measured }));
    }
    let Some((Grouping { rows, groups, .. }, buckets)) = guess else { return Ok(None) };
    if groups < 1.0 {
        return Ok(None);
    }
    let (rows_per_slice, rows_per_group) = (rows * buckets, rows / groups);
    Ok(Some(Size { rows_per_slice, rows_per_group, bytes_per_group, is_measured }))
}

/// The groups in the middle bucket of `slice`, and the number of its buckets.
async fn by_statistics(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
) -> Result<(Grouping, f64), WorkError> {
    let starts = boundaries(rollup.bucket, rollup.calendar.zone(), slice.start(), slice.end());
    let middle = starts.len() / 2;
    let start = starts.get(middle).copied().unwrap_or(slice.start());
    let end = starts.get(middle + 1).copied().unwrap_or(slice.end());
    let bounds = match rollup.trailing {
        Some(_) => rollup.window(slice),
        None => (start, end),
    };
    let shape = ready::shape(worker, rollup).await?;
    let source = worker.source_of(rollup);
    let mut tx = source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let grouping = plan_guard::grouping(&mut tx, rollup, &shape, bounds).await?;
    tx.rollback().await?;
    Ok((grouping, float(starts.len().max(1) as u64)))
}

/// The bytes of a group, by the widths of its values.
fn bytes(Grouping { width, key_width, .. }: &Grouping) -> f64 {
    ROW_BYTES + width + UNIQUE_BYTES + READERS_BYTES + key_width
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
const fn float(count: u64) -> f64 {
    count as f64
}
