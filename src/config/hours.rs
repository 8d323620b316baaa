//! Hours of the day in a zone, in which a backfill or any work is allowed.

use std::fmt;

use chrono::{DateTime, DurationRound as _, TimeDelta, Timelike as _, Utc};
use chrono_tz::Tz;

const MINUTES_PER_DAY: u32 = 24 * 60;

/// Limit of the minute-by-minute search for the next change: a day, and the largest jump of clocks.
const MINUTES_MAX: i32 = 50 * 60;

/// From one local time of day until another, over midnight where it is the earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DailyHours {
    from: u32,
    to: u32,
    zone: Tz,
}

impl DailyHours {
    /// Parses `22:00-06:00` as local time of `zone`. `None`: the text has another form, or the span
    /// is empty.
    #[must_use]
    pub(crate) fn parse(text: &str, zone: Tz) -> Option<Self> {
        let minutes = |text: &str| {
            let (hours, minutes) = text.trim().split_once(':')?;
            let is_plain = |text: &str| text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit());
            let (hours, minutes) = match is_plain(hours) && is_plain(minutes) {
                true => (hours.parse::<u32>().ok()?, minutes.parse::<u32>().ok()?),
                false => return None,
            };
            let all = hours * 60 + minutes;
            (minutes < 60 && all <= MINUTES_PER_DAY).then_some(all)
        };
        let (from, to) = text.split_once('-')?;
        let (from, to) = (minutes(from)?, minutes(to)?);
        (from != to).then_some(Self { from, to, zone })
    }

    /// Whether the clocks show such a time at `now`.
    #[must_use]
    pub(crate) fn contain(&self, now: DateTime<Utc>) -> bool {
        let local = now.with_timezone(&self.zone);
        let minute = local.hour() * 60 + local.minute();
        if self.from < self.to {
            (self.from..self.to).contains(&minute)
        } else {
            minute >= self.from || minute < self.to
        }
    }

    /// The first instant after `now` at which that changes.
    #[must_use]
    pub(crate) fn next_change(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let is_in = self.contain(now);
        let minute = now.duration_trunc(TimeDelta::minutes(1)).unwrap_or(now);
        let later = (1..=MINUTES_MAX).map(|minutes| minute + TimeDelta::minutes(minutes.into()));
        let mut later = later;
        later.find(|at| self.contain(*at) != is_in).unwrap_or(minute + TimeDelta::hours(1))
    }
}

impl fmt::Display for DailyHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |minutes: u32| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        write!(f, "{}-{} {}", time(self.from), time(self.to), self.zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn hours_may_pass_midnight_and_follow_the_zone() {
        let night = DailyHours::parse("22:00-06:00", chrono_tz::Europe::Prague).unwrap();
        for (now, is_in, change) in [
            ("2026-01-10T20:59:59Z", false, "2026-01-10T21:00:00Z"),
            ("2026-01-10T21:00:00Z", true, "2026-01-11T05:00:00Z"),
            ("2026-01-11T05:00:00Z", false, "2026-01-11T21:00:00Z"),
            // The night in which clocks go forward is an hour shorter.
            ("2026-03-28T23:30:30Z", true, "2026-03-29T04:00:00Z"),
        ] {
            assert_eq!(night.contain(at(now)), is_in, "{now}");
            assert_eq!(night.next_change(at(now)), at(change), "{now}");
        }
        assert_eq!(night.to_string(), "22:00-06:00 Europe/Prague");
    }

    #[test]
    fn other_texts_are_no_hours() {
        for text in ["", "22-6", "22:00", "22:00-22:00", "25:00-06:00", "08:60-09:00", "+8:00-9:00"]
        {
            assert_eq!(DailyHours::parse(text, Tz::UTC), None, "{text}");
        }
        assert!(
            DailyHours::parse("18:00-24:00", Tz::UTC).unwrap().contain(at("2026-01-01T23:59:59Z"))
        );
    }
}
