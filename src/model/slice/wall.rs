//! Converts between instants and the local time of a zone. Whole seconds are enough, as offsets and
//! their changes are whole seconds.
//!
//! A local time counts seconds from 1970-01-01T00:00:00 as the zone's clocks show them.

use chrono::{DateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;

/// The largest difference between local time and UTC. In the windows below at most one change of
/// offset may lie. (The closest two changes that any zone had or plans are a week apart.)
const REACH_SECONDS: i64 = 16 * 3_600;

/// A change of a zone's offset from UTC.
struct OffsetChange {
    /// The first instant with the new offset.
    at: i64,
    offset_before: i64,
    offset_after: i64,
}

/// The instants at which clocks show a local time.
pub(super) enum LocalInstants {
    /// The usual case.
    Once(i64),
    /// Clocks went back.
    Twice(i64, i64),
    /// Clocks went forward past it. This is the first instant after the gap.
    Skipped(i64),
}

/// The instant as `DateTime`. Beyond chrono's years it is its first or last instant.
pub(super) fn utc(t: i64) -> DateTime<Utc> {
    let limit = if t < 0 { DateTime::<Utc>::MIN_UTC } else { DateTime::<Utc>::MAX_UTC };
    DateTime::from_timestamp(t, 0).unwrap_or(limit)
}

/// The local time that the zone's clocks show at the instant.
pub(super) fn local(zone: Tz, t: i64) -> i64 {
    t + offset(zone, t)
}

fn offset(zone: Tz, t: i64) -> i64 {
    zone.offset_from_utc_datetime(&utc(t).naive_utc()).fix().local_minus_utc().into()
}

/// The change of offset in `(after, until]`.
fn change(zone: Tz, after: i64, until: i64) -> Option<OffsetChange> {
    let (offset_before, offset_after) = (offset(zone, after), offset(zone, until));
    if offset_before == offset_after {
        return None;
    }
    let (mut before, mut at) = (after, until);
    while at - before > 1 {
        let middle = i64::midpoint(before, at);
        if offset(zone, middle) == offset_before {
            before = middle;
        } else {
            at = middle;
        }
    }
    Some(OffsetChange { at, offset_before, offset_after })
}

/// When clocks show `local`.
pub(super) fn reading(zone: Tz, local: i64) -> LocalInstants {
    let (after, until) = (local - REACH_SECONDS, local + REACH_SECONDS);
    let Some(change) = change(zone, after, until) else {
        return LocalInstants::Once(local - offset(zone, after));
    };
    let (first, second) = (local - change.offset_before, local - change.offset_after);
    match (first < change.at, second >= change.at) {
        (true, true) => LocalInstants::Twice(first, second),
        (true, false) => LocalInstants::Once(first),
        (false, true) => LocalInstants::Once(second),
        (false, false) => LocalInstants::Skipped(change.at),
    }
}

/// The first instant from which on clocks always show `wanted` or later.
pub(super) fn reached(zone: Tz, wanted: i64) -> i64 {
    match reading(zone, wanted) {
        LocalInstants::Once(t) | LocalInstants::Skipped(t) => t,
        // A clock that reached it twice had fallen back to before it. A clock that was set back
        // exactly to it stays past earlier times.
        LocalInstants::Twice(_, second) if local(zone, second - 1) < wanted => second,
        LocalInstants::Twice(first, _) => first,
    }
}

/// The last start of a piece of `width` seconds at or before `t`.
pub(super) fn piece_start(zone: Tz, width: i64, t: i64) -> i64 {
    let mut t = t;
    loop {
        let start = t - local(zone, t).rem_euclid(width);
        match change(zone, start, t) {
            None => return start,
            Some(change) if change.begins_piece(width) => return change.at,
            Some(change) => t = change.at - 1,
        }
    }
}

/// The first start of a piece of `width` seconds after `t`.
pub(super) fn piece_end(zone: Tz, width: i64, t: i64) -> i64 {
    let mut t = t;
    loop {
        let end = t + width - local(zone, t).rem_euclid(width);
        match change(zone, t, end) {
            None => return end,
            Some(change) if change.begins_piece(width) => return change.at,
            Some(change) => t = change.at,
        }
    }
}

impl OffsetChange {
    /// Whether clocks jump to or over a multiple of `width`. The multiple that clocks would have
    /// shown just at a jump back is left out, as they skip it.
    fn begins_piece(&self, width: i64) -> bool {
        let (due, shown) = (self.at + self.offset_before, self.at + self.offset_after);
        shown - shown.rem_euclid(width) >= due.min(shown)
    }
}
