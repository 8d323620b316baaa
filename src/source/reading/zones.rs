//! Checks that the server and this program have the same rules of a zone.
//!
//! The server converts local times of a `timestamp` column to instants, by its own time zone tables
//! (from its build, or the system). This program cuts slices and buckets by its own tables. Where
//! the two disagree, rows would fall into the wrong bucket, or into none. So the offsets from UTC
//! are compared around each slice before it is read, as part of another statement.
//!
//! PostgreSQL reads some names as abbreviations, which have one offset all year: `CET`, `EET`,
//! `MET`, `WET`, `EST5EDT`'s `EST`. The comparison finds that too.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Offset as _, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;

use crate::model::clock::rfc3339;
use crate::model::hint::Hinted;
use crate::model::sql::literal;
use crate::source::reading::axis::Axis;

/// Rows this far outside of a slice may be read for it, if clocks change near its bounds.
const AROUND: TimeDelta = TimeDelta::hours(26);

/// Interval at which offsets are compared around a slice. They are also compared just before and at
/// each change that this program knows.
const STEP_SECONDS: i64 = 900;

/// The interval over a whole history, where changes of clocks last longer.
const HISTORY_STEP_SECONDS: i64 = 6 * 3600;

/// The offsets of one zone over a range of time, for comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offsets {
    zone: Tz,
    from: i64,
    until: i64,
    step: i64,
}

/// An instant at which server and program disagree.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "time zone {zone}: at {}, the server's clocks are {} ahead of UTC, this program's {}; nothing was \
     computed{}",
    rfc3339(*.at), Offset(*.server), Offset(*.program),
    if *.is_abbreviation {
        "; PostgreSQL takes this name for an abbreviation without summer time"
    } else {
        ""
    }
)]
pub(crate) struct Mismatch {
    zone: Tz,
    /// The first instant at which they disagree.
    at: DateTime<Utc>,
    /// The server's offset in seconds.
    server: i64,
    /// This program's offset in seconds.
    program: i64,
    /// Whether PostgreSQL reads the zone's name as an abbreviation.
    is_abbreviation: bool,
}

impl Hinted for Mismatch {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self.is_abbreviation {
            true => "write a zone such as Europe/Paris",
            false => "update the time zones of the server, or this program, whichever is older",
        };
        Some(hint.into())
    }
}

struct Offset(i64);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, seconds) = if self.0 < 0 { ("-", -self.0) } else { ("", self.0) };
        write!(f, "{sign}{:02}:{:02}", seconds / 3600, seconds / 60 % 60)?;
        if seconds % 60 == 0 { Ok(()) } else { write!(f, ":{:02}", seconds % 60) }
    }
}

impl Offsets {
    /// The offsets to compare before the slice from `start` to `end` is read. `None`: the server
    /// converts no time between zones.
    #[must_use]
    pub(crate) fn around(axis: &Axis, start: DateTime<Utc>, end: DateTime<Utc>) -> Option<Self> {
        let zone = axis.local_zone()?;
        let (from, until) = ((start - AROUND).timestamp(), (end + AROUND).timestamp());
        Some(Self { zone, from, until, step: STEP_SECONDS })
    }

    /// The offsets to compare over a whole history.
    #[must_use]
    pub(crate) fn of_history(
        axis: &Axis,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
    ) -> Option<Self> {
        Some(Self { step: HISTORY_STEP_SECONDS, ..Self::around(axis, start, end)? })
    }

    /// An expression of the server's offsets: the first, and each one that differs from the one
    /// before.
    #[must_use]
    pub(crate) fn question(&self) -> String {
        let changes: Vec<String> = self.changes().iter().map(ToString::to_string).collect();
        format!(
            include_str!("zones.sql"),
            zone = literal(self.zone.name()),
            from = self.from,
            until = self.until,
            step = self.step,
            changes = changes.join(","),
        )
    }

    /// Compares the server's answer.
    ///
    /// # Errors
    /// The first instant at which they disagree.
    pub(crate) fn judge(&self, answer: &str) -> Result<(), Mismatch> {
        let server = answer.split(',').filter_map(|run| {
            let (at, offset) = run.split_once('=')?;
            Some((at.parse::<i64>().ok()?, offset.parse::<i64>().ok()?))
        });
        let mut server = server.peekable();
        let mut offset = i64::MIN;
        for at in self.points() {
            while let Some((_, next)) = server.next_if(|(begins, _)| *begins <= at) {
                offset = next;
            }
            let program = offset_at(self.zone, at);
            if offset != program {
                return Err(Mismatch {
                    zone: self.zone,
                    at: instant(at),
                    server: offset,
                    program,
                    is_abbreviation: ["CET", "EET", "MET", "WET"].contains(&self.zone.name()),
                });
            }
        }
        Ok(())
    }

    /// The instants just before and at each change of offset that this program knows.
    fn changes(&self) -> Vec<i64> {
        let mut changes = Vec::new();
        let mut before = self.from;
        for at in self.steps().skip(1) {
            if offset_at(self.zone, before) != offset_at(self.zone, at) {
                let (mut low, mut high) = (before, at);
                while high - low > 1 {
                    let middle = i64::midpoint(low, high);
                    match offset_at(self.zone, middle) == offset_at(self.zone, before) {
                        true => low = middle,
                        false => high = middle,
                    }
                }
                changes.extend([low, high]);
            }
            before = at;
        }
        changes
    }

    fn steps(&self) -> impl Iterator<Item = i64> + use<> {
        let (from, until, step) = (self.from, self.until, self.step);
        (0..).map(move |n| from + n * step).take_while(move |at| *at <= until)
    }

    /// All instants to compare, in order.
    fn points(&self) -> Vec<i64> {
        let mut points: Vec<i64> = self.steps().chain(self.changes()).collect();
        points.sort_unstable();
        points
    }
}

fn instant(at: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(at, 0).unwrap_or(DateTime::UNIX_EPOCH)
}

fn offset_at(zone: Tz, at: i64) -> i64 {
    zone.offset_from_utc_datetime(&instant(at).naive_utc()).fix().local_minus_utc().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW_YORK: Tz = chrono_tz::America::New_York;

    fn march() -> Offsets {
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap().timestamp();
        let (from, until) = (at("2026-03-01T00:00:00Z"), at("2026-04-01T00:00:00Z"));
        Offsets { zone: NEW_YORK, from, until, step: STEP_SECONDS }
    }

    #[test]
    fn the_same_rules_agree() {
        // Clocks go forward at 2026-03-08T07:00:00Z.
        assert_eq!(march().judge(&format!("{}=-18000,1772953200=-14400", march().from)), Ok(()));
        assert_eq!(march().changes(), [1_772_953_199, 1_772_953_200]);
    }

    #[test]
    fn a_change_that_only_one_side_knows_is_named() {
        let from = march().from;
        for (answer, at, offsets) in [
            (format!("{from}=-18000"), 1_772_953_200, (-18000, -14400)),
            (format!("{from}=-18000,1772953199=-14400"), 1_772_953_199, (-14400, -18000)),
            (format!("{from}=-14400"), from, (-14400, -18000)),
            (String::new(), from, (i64::MIN, -18000)),
        ] {
            let found = march().judge(&answer).unwrap_err();
            assert_eq!((found.at.timestamp(), (found.server, found.program)), (at, offsets));
        }
    }

    #[test]
    fn a_difference_is_told_with_both_offsets() {
        let text = march().judge(&format!("{}=-18000", march().from)).unwrap_err();
        for part in ["America/New_York", "2026-03-08T07:00:00Z", "-05:00", "-04:00"] {
            assert!(text.to_string().contains(part), "{text}");
        }
        assert!(text.hint().unwrap().contains("update"), "{text}");
        assert_eq!(Offset(-17762).to_string(), "-04:56:02");
    }
}
