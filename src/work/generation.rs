//! Generations count the changes of a rollup's calendar.
//!
//! Checkpoints and markers are named by the start of their slice, which depends on the calendar.
//! Where a calendar changes and changes back, the checkpoints of its first time still exist,
//! although other slices have replaced their rows since. So the rollup's item holds the current
//! calendar, and a generation that rises with each change. Every stored definition (in a
//! checkpoint, a marker, the progress of a slice) includes its generation: `0123456789abcdef` in
//! the first, `0123456789abcdef.2` in the third. A success of another generation is invalid.
//!
//! The target's registry holds the generation as well. A replacement of rows locks it, and learns
//! there if it is outdated. Between two calendars the attempt numbers of one slice cannot be
//! compared.

use std::collections::HashMap;
use std::sync::Mutex;

use chrono::{DateTime, Utc};

use crate::checkpoint::{CheckpointError, Checkpoints, State, Watermark};
use crate::model::rollup::Rollup;
use crate::model::rollup::generation::of_generation;
use crate::source::reading::fingerprint::Fingerprint;
use crate::target::{Registered, Target};
use crate::work::worker::WorkError;

/// Why slices run again that a later `start` had left out.
const MOVED_BACK: &str = "start was moved back";

/// Reads of the rollup's item before giving up. Each repetition means that another worker wrote it.
const LOOKS_MAX: usize = 5;

/// The generations of the rollups, as far as this process knows them.
#[derive(Debug, Default)]
pub(crate) struct Generations(Mutex<HashMap<String, Known>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    generation: u64,
    shapes: u64,
    shape: Option<Fingerprint>,
    /// Whether the rollup's item names this process's calendar and start.
    is_adopted: bool,
}

impl Generations {
    /// Records the item as it was read. Returns whether the rollup's generation differs from the
    /// known one.
    pub(crate) fn note(&self, rollup: &Rollup, seen: &Watermark) -> bool {
        let known = Known {
            generation: seen.generation_for(rollup),
            shapes: seen.shapes(),
            shape: seen.shape(),
            is_adopted: seen.is_adopted_by(rollup),
        };
        let before = self.lock().insert(rollup.name.clone(), known.clone());
        before.is_some_and(|before| before != known)
    }

    /// The definition of `rollup`, in the form of its generation's checkpoints. `None`: its item is
    /// still to be read.
    pub(crate) fn definition(&self, rollup: &Rollup) -> Option<String> {
        let known = self.lock();
        let known = known.get(&rollup.name)?;
        Some(of_generation(&rollup.definition(), known.generation, known.shapes))
    }

    /// Whether the item holds exactly this shape.
    pub(crate) fn remembers(&self, rollup: &Rollup, shape: Option<&Fingerprint>) -> bool {
        let known = self.lock();
        let known = known.get(&rollup.name).and_then(|known| known.shape.as_ref());
        shape.is_none_or(|shape| known.is_some_and(|known| shape.is_in(known)))
    }

    /// The generation of `rollup`. `None`: its item is still to be read.
    pub(crate) fn of(&self, rollup: &Rollup) -> Option<u64> {
        self.lock().get(&rollup.name).map(|known| known.generation)
    }

    /// Whether slices of `rollup` may be claimed, because its item names this process's calendar.
    pub(crate) fn is_adopted(&self, rollup: &Rollup) -> bool {
        self.lock().get(&rollup.name).is_some_and(|known| known.is_adopted)
    }

    pub(crate) fn forget(&self, rollup: &Rollup) {
        self.lock().remove(&rollup.name);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Writes the calendar and the start of `rollup` to its item, and returns the item. A changed
/// calendar starts a new generation of all slices. Where `start` was moved back, successes before
/// the earlier start run again, as their late changes since then were ignored.
///
/// # Errors
/// The store or the target fails.
pub(crate) async fn adopt(
    (checkpoints, target): (&Checkpoints, &Target),
    rollup: &Rollup,
    registered: &Registered,
    shape: Option<&Fingerprint>,
    now: DateTime<Utc>,
) -> Result<Watermark, WorkError> {
    for _ in 0..LOOKS_MAX {
        let seen = checkpoints.watermark(&rollup.name).await?;
        let generation = registered.generation_after(rollup, seen.generation_for(rollup));
        let known = seen.shape();
        let is_remembered =
            shape.is_none_or(|shape| known.as_ref().is_some_and(|known| shape.is_in(known)));
        if seen.is_adopted_by(rollup) && generation == seen.generation() && is_remembered {
            return Ok(seen);
        }
        let is_recut = seen.calendar().is_some() && generation != seen.generation();
        let moved_from = seen.moved_from(rollup);
        if let (false, Some(before)) = (is_recut, moved_from) {
            reopen_before((checkpoints, target), rollup, before, seen.seal_of(rollup), now).await?;
            checkpoints.lower_watermark(&rollup.name, rollup.start).await?;
        }
        // Read the item again, as lowering the watermark has raised its version.
        let seen = checkpoints.watermark(&rollup.name).await?;
        let known = seen.shape();
        let compared = known.as_ref().zip(shape);
        let has_changed = compared.is_some_and(|(known, shape)| shape.has_changed_since(known));
        let next = shape.map(|shape| shape.after(known.as_ref()));
        let shapes = seen.shapes() + u64::from(has_changed);
        checkpoints.adopt(rollup, &seen, generation, (next.as_ref(), shapes)).await?;
        if has_changed {
            tracing::warn!(
                rollup = rollup.name,
                from = %rollup.from,
                "types, expressions, views or tables of the source have changed; every slice is \
                 computed again"
            );
        }
        if is_recut {
            tracing::warn!(
                rollup = rollup.name,
                before = seen.calendar().unwrap_or_default(),
                now = rollup.calendar_words(),
                generation,
                "the calendar has changed; every slice is computed again"
            );
        }
    }
    let (operation, slice) = ("adopt the calendar", rollup.name.clone());
    Err(CheckpointError::Contended { operation, slice }.into())
}

/// Reopens the successes in the time that `start` includes again.
async fn reopen_before(
    (checkpoints, target): (&Checkpoints, &Target),
    rollup: &Rollup,
    before: DateTime<Utc>,
    seal: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<(), WorkError> {
    let found = checkpoints.range(&rollup.name, rollup.start, before).await?;
    let mut starts = Vec::new();
    for known in &found {
        let is_slice = rollup.calendar.starting(known.slice_start).is_ok();
        let is_sealed = seal.is_some_and(|seal| known.slice_start < seal);
        if is_slice && known.state == State::Succeeded && !is_sealed {
            starts.push(known.slice_start);
        }
    }
    let slices: Vec<_> = starts.iter().map(|start| rollup.calendar.containing(*start)).collect();
    target.raise(&rollup.name, &slices, MOVED_BACK).await?;
    Ok(checkpoints.reopen_all(&rollup.name, &starts, MOVED_BACK, now).await?)
}
