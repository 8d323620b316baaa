//! The calendar: the slice that holds an instant, the next slice, and the names of instants.

use crate::model::hint::Hinted;
use std::borrow::Cow;
use std::iter;

use chrono::{DateTime, Datelike, Months, NaiveDate, NaiveDateTime, TimeDelta, Timelike, Utc};
use chrono_tz::Tz;
use thiserror::Error;

use super::wall::{self, LocalInstants};
use super::width::Unit;
use super::{Slice, Trailing, Width, rfc3339};

const SECONDS_PER_DAY: i64 = 86_400;

/// Cuts time into slices of one width by the local time of one zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Calendar {
    width: Width,
    zone: Tz,
}

/// No slice starts at this instant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{} is not the start of a slice", rfc3339(*.instant)
)]
pub struct Misaligned {
    /// The instant asked for.
    instant: DateTime<Utc>,
    /// The last start before it.
    before: DateTime<Utc>,
    /// The first start after it.
    after: DateTime<Utc>,
}

impl Hinted for Misaligned {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let (before, after) = (rfc3339(self.before), rfc3339(self.after));
        Some(format!("the neighbours are {before} and {after}").into())
    }
}

/// A text that fails to name exactly one instant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InstantError {
    /// The text has an unknown form.
    #[error("`{text}` is not a date or time")]
    Unreadable {
        text: String,
        /// The zone in which a time without an offset is read.
        zone: Tz,
    },
    /// A local time that clocks show twice.
    #[error("`{text}` occurs twice in {zone}")]
    Ambiguous {
        text: String,
        /// The zone in which it is ambiguous.
        zone: Tz,
        /// The earlier instant, with its offset.
        first: String,
        /// The later instant, with its offset.
        second: String,
    },
}

impl Hinted for InstantError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::Unreadable { zone, .. } => format!(
                "write `2025-01-01` or `2025-01-01T06:00` (in {zone}), or `2025-01-01T06:00:00Z`, or \
                 with an offset `2025-01-01T06:00:00+01:00`"
            )
            .into(),
            Self::Ambiguous { first, second, .. } => format!("write `{first}` or `{second}`").into(),
        })
    }
}

impl Calendar {
    /// The calendar of slices of `width` by the local time of `zone`.
    #[must_use]
    pub(crate) const fn new(width: Width, zone: Tz) -> Self {
        Self { width, zone }
    }

    /// The width of the slices.
    #[must_use]
    pub(crate) const fn width(&self) -> Width {
        self.width
    }

    /// The zone whose local time they follow.
    #[must_use]
    pub(crate) const fn zone(&self) -> Tz {
        self.zone
    }

    /// The slice in which `t` lies.
    #[must_use]
    pub fn containing(&self, t: DateTime<Utc>) -> Slice {
        let t = t.timestamp();
        let (start, end) = match self.width.unit() {
            Unit::Minutes(minutes) => {
                let width = i64::from(minutes) * 60;
                (wall::piece_start(self.zone, width, t), wall::piece_end(self.zone, width, t))
            }
            unit @ (Unit::Day | Unit::Week(_) | Unit::Months(_)) => self.period(unit, t),
        };
        Slice { start: wall::utc(start), end: wall::utc(end) }
    }

    /// Start and end of the day, week, month or longer period in which `t` lies.
    fn period(&self, unit: Unit, t: i64) -> (i64, i64) {
        let start_of = |day: i64| wall::reached(self.zone, day * SECONDS_PER_DAY);
        let mut day = first_day(unit, wall::local(self.zone, t).div_euclid(SECONDS_PER_DAY));
        // The clocks may show a date and then fall back before it.
        while start_of(day) > t {
            day = first_day(unit, day - 1);
        }
        let start = start_of(day);
        loop {
            day = first_day_after(unit, day);
            let end = start_of(day);
            // A date that the zone skips ends in the instant in which it starts.
            if end > start {
                return (start, end);
            }
        }
    }

    /// The slice that starts at `t`.
    ///
    /// # Errors
    ///
    /// [`Misaligned`] if no slice starts there.
    pub fn starting(&self, t: DateTime<Utc>) -> Result<Slice, Misaligned> {
        let slice = self.containing(t);
        if slice.start == t {
            Ok(slice)
        } else {
            Err(Misaligned { instant: t, before: slice.start, after: slice.end })
        }
    }

    /// The slice after `slice`.
    #[must_use]
    pub(crate) fn next(&self, slice: Slice) -> Slice {
        self.containing(slice.end)
    }

    /// The slice before `slice`.
    #[must_use]
    pub(crate) fn previous(&self, slice: Slice) -> Slice {
        self.containing(wall::utc(slice.start.timestamp() - 1))
    }

    /// The instant that lies `span` before `t`. A local time that clocks skip means the first
    /// instant after the gap, so the result may be as late as `t`.
    #[must_use]
    pub(crate) fn back(&self, t: DateTime<Utc>, span: Trailing) -> DateTime<Utc> {
        let shown = wall::local(self.zone, t.timestamp());
        let wanted = match span {
            Trailing::Minutes(minutes) => return t - TimeDelta::minutes(minutes.into()),
            Trailing::Days(days) => shown - i64::from(days) * SECONDS_PER_DAY,
            Trailing::Months(months) => {
                let earlier = wall::utc(shown).checked_sub_months(Months::new(months));
                earlier.map_or(shown, |earlier| earlier.timestamp())
            }
        };
        wall::utc(wall::reached(self.zone, wanted))
    }

    /// All slices that start in `[from, to)`, in order, computed lazily.
    pub fn slices(
        &self,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> impl Iterator<Item = Slice> + use<> {
        self.slices_from(from).take_while(move |slice| slice.start < to)
    }

    /// All slices that start at or after `from` and end at or before `t`, in order, computed
    /// lazily.
    pub fn slices_ended_by(
        &self,
        from: DateTime<Utc>,
        t: DateTime<Utc>,
    ) -> impl Iterator<Item = Slice> + use<> {
        self.slices_from(from).take_while(move |slice| slice.end <= t)
    }

    fn slices_from(&self, from: DateTime<Utc>) -> impl Iterator<Item = Slice> + use<> {
        let calendar = *self;
        let slice = calendar.containing(from);
        let first = if slice.start < from { calendar.next(slice) } else { slice };
        // At the end of chrono's years the next slice is the last one again.
        iter::successors(Some(first), move |&slice| {
            Some(calendar.next(slice)).filter(|next| next.start > slice.start)
        })
    }

    /// How many slices start in `[from, to)`.
    #[must_use]
    pub fn count(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> usize {
        self.slices(from, to).count()
    }

    /// The instant that a text names. The text is a date (its first instant in the zone), a local
    /// time of the zone, or a time with an offset. A local time that clocks skip means the first
    /// instant after the gap.
    ///
    /// # Errors
    ///
    /// [`InstantError`] if the text has none of these forms, or names a local time that clocks
    /// show twice.
    pub fn instant(&self, text: &str) -> Result<DateTime<Utc>, InstantError> {
        let trimmed = text.trim();
        let instant = if let Some(date) = date(trimmed) {
            Some(wall::utc(wall::reached(self.zone, midnight(date))))
        } else if let Some(time) = local_time(trimmed) {
            Some(self.local_instant(trimmed, time)?)
        } else {
            DateTime::parse_from_rfc3339(trimmed).ok().map(|instant| instant.to_utc())
        };
        instant
            .filter(|instant| !is_leap_second(instant) && (0..=9999).contains(&instant.year()))
            .ok_or_else(|| InstantError::Unreadable { text: text.to_owned(), zone: self.zone })
    }

    /// The instant at which clocks show `time`, written as `text`.
    fn local_instant(
        &self,
        text: &str,
        time: NaiveDateTime,
    ) -> Result<DateTime<Utc>, InstantError> {
        match wall::reading(self.zone, time.and_utc().timestamp()) {
            LocalInstants::Once(t) | LocalInstants::Skipped(t) => Ok(wall::utc(t)),
            LocalInstants::Twice(first, second) => {
                let with_offset = |t| wall::utc(t).with_timezone(&self.zone).to_rfc3339();
                Err(InstantError::Ambiguous {
                    text: text.to_owned(),
                    zone: self.zone,
                    first: with_offset(first),
                    second: with_offset(second),
                })
            }
        }
    }

    /// A short name of `slice` for display. It is the local date, or the local time where slices
    /// are shorter than a day. The UTC offset is added only where clocks show that time twice.
    #[must_use]
    pub(crate) fn label(&self, slice: &Slice) -> String {
        let start = slice.start.timestamp();
        let local = wall::local(self.zone, start);
        let shown = wall::utc(local);
        if !self.width.is_sub_day() {
            shown.format("%Y-%m-%d").to_string()
        } else if matches!(wall::reading(self.zone, local), LocalInstants::Twice(..)) {
            slice.start.with_timezone(&self.zone).format("%Y-%m-%d %H:%M%:z").to_string()
        } else {
            shown.format("%Y-%m-%d %H:%M").to_string()
        }
    }
}

/// The starts of all buckets in `[start, end)`. The first is `start` itself, even if it lies inside
/// a bucket.
#[must_use]
pub(crate) fn boundaries(
    bucket: Width,
    zone: Tz,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
) -> Vec<DateTime<Utc>> {
    let calendar = Calendar::new(bucket, zone);
    let later = calendar.slices(start, end).map(|slice| slice.start).filter(|t| *t > start);
    iter::once(start).filter(|start| *start < end).chain(later).collect()
}

/// The first day, counted from 1970-01-01, of the period that contains `day`.
fn first_day(unit: Unit, day: i64) -> i64 {
    match unit {
        Unit::Minutes(_) | Unit::Day => day,
        // 1970-01-01 was a Thursday, three days after a Monday.
        Unit::Week(first) => {
            day - (day + 3 - i64::from(first.num_days_from_monday())).rem_euclid(7)
        }
        Unit::Months(months) => {
            let date = wall::utc(day * SECONDS_PER_DAY).date_naive();
            let first = date.month0() - date.month0() % months;
            date.with_day(1)
                .and_then(|date| date.with_month0(first))
                .map_or(day, |date| midnight(date) / SECONDS_PER_DAY)
        }
    }
}

/// The first day of the period after the one that starts on `first`.
fn first_day_after(unit: Unit, first: i64) -> i64 {
    match unit {
        Unit::Minutes(_) | Unit::Day => first + 1,
        Unit::Week(_) => first + 7,
        Unit::Months(months) => {
            let first_date = wall::utc(first * SECONDS_PER_DAY).date_naive();
            let next = first_date.checked_add_months(Months::new(months));
            let longest = i64::from(months) * 31;
            next.map_or(first + longest, |next| midnight(next) / SECONDS_PER_DAY)
        }
    }
}

/// The local time at which `date` starts.
fn midnight(date: NaiveDate) -> i64 {
    date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp()
}

fn date(text: &str) -> Option<NaiveDate> {
    has_shape(text, "0000-00-00").then(|| text.parse().ok()).flatten()
}

/// Reads `2025-01-01T06:00`. A space may stand for the T, and seconds are optional.
fn local_time(text: &str) -> Option<NaiveDateTime> {
    let text = text.replacen(' ', "T", 1);
    let format = if has_shape(&text, "0000-00-00T00:00") {
        "%Y-%m-%dT%H:%M"
    } else if has_shape(&text, "0000-00-00T00:00:00") {
        "%Y-%m-%dT%H:%M:%S"
    } else {
        return None;
    };
    let time = NaiveDateTime::parse_from_str(&text, format).ok()?;
    Some(time).filter(|time| !is_leap_second(time))
}

/// chrono accepts `23:59:60`, a second that PostgreSQL's time lacks.
fn is_leap_second(time: &impl Timelike) -> bool {
    time.nanosecond() >= 1_000_000_000
}

/// Whether `text` is `shape` with any digit for each 0. chrono alone would read `25-1-1` as a date
/// of the year 25.
fn has_shape(text: &str, shape: &str) -> bool {
    text.len() == shape.len()
        && text.bytes().zip(shape.bytes()).all(|(byte, expected)| match expected {
            b'0' => byte.is_ascii_digit(),
            _ => byte == expected,
        })
}
