//! The range of slices that a scrub covers, and the order of the rollups.

use chrono::{DateTime, TimeDelta, Utc};

use crate::checkpoint::ScrubProgress;
use crate::model::rollup::Rollup;

/// A scrub covers the slices that start in `[begin, end)`, from the `seal` on. It leaves out those that `lookback` will
/// recompute, and always the newest, which has only just been computed.
#[must_use]
pub(crate) fn scrubbed_range(
    rollup: &Rollup,
    seal: Option<DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
    let mut slice = rollup.newest(now)?;
    for _ in 0..rollup.lookback.last().copied().unwrap_or(0) {
        slice = rollup.calendar.previous(slice);
    }
    let begin = seal.unwrap_or(rollup.start).max(rollup.start);
    (begin < slice.start()).then(|| (begin, slice.start()))
}

/// Roughly when the slice at the cursor was last verified, assuming that the previous round was
/// even, and how far this round is. `range` is what the scrub covers.
pub(super) fn last_verified(
    range: Option<(DateTime<Utc>, DateTime<Utc>)>,
    scrub: &ScrubProgress,
) -> (DateTime<Utc>, i64) {
    const WHOLE: i64 = 1000;
    let ScrubProgress { cursor, round_started_at, last_round_started_at, .. } = *scrub;
    let Some((begin, end)) = range else {
        return (DateTime::<Utc>::MAX_UTC, WHOLE);
    };
    let length = (end - begin).num_seconds().max(1);
    let done = cursor.map_or(0, |cursor| (cursor - begin).num_seconds().clamp(0, length));
    let part = done.saturating_mul(WHOLE) / length;
    let Some(started) = round_started_at else { return (DateTime::<Utc>::MIN_UTC, 0) };
    if done >= length {
        return (started, 0);
    }
    let Some(last) = last_round_started_at else { return (DateTime::<Utc>::MIN_UTC, part) };
    (last + TimeDelta::seconds((started - last).num_seconds() * part / WHOLE), part)
}
