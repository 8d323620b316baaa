//! Slices: a calendar cuts time into half-open intervals, the unit of work, retry and replay.
//!
//! One rule serves slices and buckets, and every width follows the zone's local time:
//!
//! - **Day, week, month, quarter, year** start at the first instant of a local date. Where a zone
//!   skips midnight, that is the first instant after the gap. A date that the zone skips entirely
//!   (Pacific/Apia, 2011-12-30) has no slice. Where clocks go back over midnight, the date starts
//!   when local time reaches midnight for the last time, so that each date is one interval. In
//!   America/St_Johns, which until 2011 went from 00:01 back to 23:01, that first minute belongs to
//!   the day before, although PostgreSQL's `date(t at time zone z)` assigns it to the new date.
//!   Clocks that go back exactly to midnight (America/Havana) stay on the new date, which starts at
//!   the earlier of its two midnights.
//! - **Minutes, hours** start wherever the local time of day is a multiple of the width, each time
//!   that it is, and at the first instant after a gap that skips such a time. Wider slices
//!   therefore always consist of whole narrower ones, and a width of one hour cuts a day of 25
//!   hours into 25 pieces.

mod calendar;
mod order;
mod trailing;
mod wall;
mod width;

#[cfg(test)]
mod tests;

use crate::model::clock::rfc3339;
use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};

pub(crate) use calendar::{Calendar, InstantError, Misaligned, boundaries};
pub use order::Order;
pub(crate) use trailing::Trailing;
pub(crate) use width::{Width, day_name};

/// A half-open interval `[start, end)`. Only a [`Calendar`] makes one.
///
/// Written as its start: `2026-02-10T00:00:00Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slice {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

impl Slice {
    /// The first instant of the slice.
    #[must_use]
    pub const fn start(&self) -> DateTime<Utc> {
        self.start
    }

    /// The first instant after the slice, which is the start of the next one.
    #[must_use]
    pub const fn end(&self) -> DateTime<Utc> {
        self.end
    }

    /// The time of neighbouring slices, which are in ascending order, as one interval. `None`: they
    /// do not adjoin. It is read like a slice, and has no checkpoint.
    #[must_use]
    pub(crate) fn joined(slices: &[Self]) -> Option<Self> {
        let (first, last) = (slices.first()?, slices.last()?);
        let mut pairs = slices.iter().zip(slices.iter().skip(1));
        let adjoin = pairs.all(|(one, next)| one.end == next.start);
        adjoin.then_some(Self { start: first.start, end: last.end })
    }

    #[must_use]
    pub fn duration(&self) -> TimeDelta {
        self.end - self.start
    }

    #[must_use]
    pub(crate) fn contains(&self, t: DateTime<Utc>) -> bool {
        self.start <= t && t < self.end
    }

    /// The slice's name among all rollups: `entity_daily@2026-02-10T00:00:00Z`.
    #[must_use]
    pub(crate) fn id(&self, rollup: &str) -> String {
        format!("{rollup}@{self}")
    }
}

impl fmt::Display for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&rfc3339(self.start))
    }
}
