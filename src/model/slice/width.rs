//! Widths of slices and buckets: `15 minutes`, `1 hour`, `1 day`, `1 week`, `1 month`, `1 quarter`,
//! `1 year`.

use crate::model::hint::Hinted;
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::Weekday;
use thiserror::Error;

const MINUTES_PER_DAY: u32 = 24 * 60;
const MONTHS_PER_YEAR: u32 = 12;

/// The width of a slice or bucket.
///
/// Equal widths are equal however they were written: `60 minutes` is `1 hour`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Width(Unit);

/// The four kinds of width that a calendar treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Unit {
    /// Divides a day exactly and is less than one.
    Minutes(u32),
    Day,
    /// From this day on.
    Week(Weekday),
    /// Divides a year exactly, or is one. From the 1st of a month, counted from January.
    Months(u32),
}

/// Why a text is invalid as a [`Width`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WidthError {
    /// The text has another form than a number and a unit.
    #[error("`{0}` is not a width")]
    Unreadable(String),
    /// Pieces of this width leave a rest of the day, or of the year.
    #[error("`{text}` does not divide a {whole} exactly")]
    Uneven {
        text: String,
        /// The unit that is divided.
        whole: &'static str,
        /// The next narrower width that fills it.
        less: Width,
        /// The next wider width that fills it.
        more: Width,
    },
    /// There is one way to write this width: `instead`. Or it is the only width of its unit.
    #[error("`{text}` is not a possible width")]
    Instead {
        text: String,
        /// The width to write.
        instead: Width,
    },
    /// Minutes or hours beyond a day.
    #[error("`{0}` is longer than a day")]
    BeyondDay(String),
}

impl Hinted for WidthError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::Unreadable(_) => {
                "write `N minutes`, `N hours`, `1 day`, `1 week`, `1 month`, `1 quarter` or `1 year`, \
                 where the minutes or hours divide a day exactly"
                    .into()
            }
            Self::Uneven { less, more, .. } => format!("write `{less}` or `{more}`").into(),
            Self::Instead { instead, .. } => format!("write `{instead}`").into(),
            Self::BeyondDay(_) => "write `1 day`, `1 week` or `1 month`".into(),
        };
        Some(hint)
    }
}

impl Width {
    /// Sixty minutes from the full local hour, more or less.
    pub(crate) const HOUR: Self = Self(Unit::Minutes(60));
    /// One local day of 24 hours, more or less.
    pub(crate) const DAY: Self = Self(Unit::Day);
    /// Seven local days from Monday.
    pub(crate) const WEEK: Self = Self(Unit::Week(Weekday::Mon));
    /// One local month from the 1st.
    pub(crate) const MONTH: Self = Self(Unit::Months(1));
    /// One local year from the 1st of January.
    pub(crate) const YEAR: Self = Self(Unit::Months(MONTHS_PER_YEAR));

    /// The same width, whose weeks begin on `first`.
    #[must_use]
    pub(crate) const fn with_weeks_from(self, first: Weekday) -> Self {
        match self.0 {
            Unit::Week(_) => Self(Unit::Week(first)),
            Unit::Minutes(_) | Unit::Day | Unit::Months(_) => self,
        }
    }

    /// The day on which its weeks begin. `None`: it is another width than a week.
    #[must_use]
    pub(crate) const fn week_start(self) -> Option<Weekday> {
        match self.0 {
            Unit::Week(first) => Some(first),
            Unit::Minutes(_) | Unit::Day | Unit::Months(_) => None,
        }
    }

    /// Whether slices of width `slice` can be cut into whole buckets of this width.
    #[must_use]
    pub(crate) const fn divides(self, slice: Self) -> bool {
        match (self.0, slice.0) {
            (Unit::Minutes(bucket), Unit::Minutes(slice)) => slice.is_multiple_of(bucket),
            (Unit::Minutes(_) | Unit::Day, Unit::Day | Unit::Week(_) | Unit::Months(_)) => true,
            (Unit::Week(one), Unit::Week(other)) => {
                one.num_days_from_monday() == other.num_days_from_monday()
            }
            (Unit::Months(bucket), Unit::Months(slice)) => slice.is_multiple_of(bucket),
            _ => false,
        }
    }

    /// Whether it is less than a day.
    #[must_use]
    pub(crate) const fn is_sub_day(self) -> bool {
        matches!(self.0, Unit::Minutes(_))
    }

    /// The usual duration, for display and sizing only: days of 24 hours, months of 30 days.
    #[must_use]
    pub(crate) fn approximate(self) -> Duration {
        let minutes = match self.0 {
            Unit::Minutes(minutes) => minutes,
            Unit::Day => MINUTES_PER_DAY,
            Unit::Week(_) => 7 * MINUTES_PER_DAY,
            Unit::Months(months) => months * 30 * MINUTES_PER_DAY,
        };
        Duration::from_secs(u64::from(minutes) * 60)
    }

    /// It as PostgreSQL reads an interval.
    #[must_use]
    pub(crate) fn interval(self) -> String {
        match self.0 {
            Unit::Months(months) if months < MONTHS_PER_YEAR => format!("{months} months"),
            _ => self.to_string(),
        }
    }

    pub(super) const fn unit(self) -> Unit {
        self.0
    }

    /// The width of `minutes`, written as `text`.
    fn of_minutes(minutes: u64, text: &str) -> Result<Self, WidthError> {
        let text = || text.to_owned();
        let Ok(minutes @ 0..=MINUTES_PER_DAY) = u32::try_from(minutes) else {
            return Err(WidthError::BeyondDay(text()));
        };
        match minutes {
            0 => Err(WidthError::Instead { text: text(), instead: Self(Unit::Minutes(1)) }),
            MINUTES_PER_DAY => Err(WidthError::Instead { text: text(), instead: Self::DAY }),
            _ if MINUTES_PER_DAY.is_multiple_of(minutes) => Ok(Self(Unit::Minutes(minutes))),
            _ => {
                let divides = |candidate: &u32| MINUTES_PER_DAY.is_multiple_of(*candidate);
                let less = (1..minutes).rev().find(divides).unwrap_or(1);
                let more = (minutes..MINUTES_PER_DAY).find(divides);
                Err(WidthError::Uneven {
                    text: text(),
                    whole: "day",
                    less: Self(Unit::Minutes(less)),
                    more: more.map_or(Self::DAY, |minutes| Self(Unit::Minutes(minutes))),
                })
            }
        }
    }

    /// The width of `months`, written as `text`.
    fn of_months(months: u64, text: &str) -> Result<Self, WidthError> {
        let text = || text.to_owned();
        let Ok(months @ 0..=MONTHS_PER_YEAR) = u32::try_from(months) else {
            return Err(WidthError::Instead { text: text(), instead: Self::YEAR });
        };
        match months {
            0 => Err(WidthError::Instead { text: text(), instead: Self::MONTH }),
            _ if MONTHS_PER_YEAR.is_multiple_of(months) => Ok(Self(Unit::Months(months))),
            _ => {
                let divides = |candidate: &u32| MONTHS_PER_YEAR.is_multiple_of(*candidate);
                let less = (1..months).rev().find(divides).unwrap_or(1);
                let more = (months..MONTHS_PER_YEAR).find(divides).unwrap_or(MONTHS_PER_YEAR);
                let [less, more] = [less, more].map(|months| Self(Unit::Months(months)));
                Err(WidthError::Uneven { text: text(), whole: "year", less, more })
            }
        }
    }
}

impl FromStr for Width {
    type Err = WidthError;

    fn from_str(text: &str) -> Result<Self, WidthError> {
        let unreadable = || WidthError::Unreadable(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (count, unit) = trimmed.split_at(digits);
        let count: u64 = count.parse().map_err(|_| unreadable())?;
        let only = |instead| match count {
            1 => Ok(instead),
            7 if instead == Self::DAY => {
                Err(WidthError::Instead { text: trimmed.to_owned(), instead: Self::WEEK })
            }
            _ => Err(WidthError::Instead { text: trimmed.to_owned(), instead }),
        };
        match unit.trim_start() {
            "minute" | "minutes" => Self::of_minutes(count, trimmed),
            "hour" | "hours" => Self::of_minutes(count.saturating_mul(60), trimmed),
            "day" | "days" => only(Self::DAY),
            "week" | "weeks" => only(Self::WEEK),
            "month" | "months" => Self::of_months(count, trimmed),
            "quarter" | "quarters" => Self::of_months(count.saturating_mul(3), trimmed),
            "year" | "years" => Self::of_months(count.saturating_mul(12), trimmed),
            _ => Err(unreadable()),
        }
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self.0 {
            Unit::Minutes(minutes) if minutes.is_multiple_of(60) => (minutes / 60, "hour"),
            Unit::Minutes(minutes) => (minutes, "minute"),
            Unit::Day => (1, "day"),
            Unit::Week(_) => (1, "week"),
            Unit::Months(3) => (1, "quarter"),
            Unit::Months(MONTHS_PER_YEAR) => (1, "year"),
            Unit::Months(months) => (months, "month"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })?;
        match self.week_start() {
            // This text is part of fingerprints that checkpoints keep.
            None | Some(Weekday::Mon) => Ok(()),
            Some(first) => write!(f, " from {}", day_name(first)),
        }
    }
}

/// The English name of a day of the week.
#[must_use]
pub(crate) const fn day_name(day: Weekday) -> &'static str {
    match day {
        Weekday::Mon => "monday",
        Weekday::Tue => "tuesday",
        Weekday::Wed => "wednesday",
        Weekday::Thu => "thursday",
        Weekday::Fri => "friday",
        Weekday::Sat => "saturday",
        Weekday::Sun => "sunday",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn width(text: &str) -> Width {
        text.parse().unwrap()
    }

    fn refusal(text: &str) -> String {
        text.parse::<Width>().unwrap_err().in_one_line()
    }

    #[test]
    fn a_width_is_read_in_any_spelling_and_written_in_one() {
        for (text, canonical) in [
            ("1 minute", "1 minute"),
            ("15 minutes", "15 minutes"),
            (" 15 \t minute ", "15 minutes"),
            ("60 minutes", "1 hour"),
            ("90minutes", "90 minutes"),
            ("120 minutes", "2 hours"),
            ("12 hours", "12 hours"),
            ("1 days", "1 day"),
            ("1 week", "1 week"),
            ("1 months", "1 month"),
            ("2 months", "2 months"),
            ("3 months", "1 quarter"),
            ("2 quarters", "6 months"),
            ("4 quarters", "1 year"),
            ("12 months", "1 year"),
            ("1 years", "1 year"),
        ] {
            assert_eq!(width(text).to_string(), canonical);
            assert_eq!(width(canonical), width(text));
        }
    }

    #[test]
    fn a_refused_width_names_what_would_be_right() {
        assert_eq!(
            refusal("7 hours"),
            "`7 hours` does not divide a day exactly; hint: write `6 hours` or `8 hours`"
        );
        assert_eq!(
            refusal("721 minutes"),
            "`721 minutes` does not divide a day exactly; hint: write `12 hours` or `1 day`"
        );
        assert_eq!(
            refusal("5 months"),
            "`5 months` does not divide a year exactly; hint: write `4 months` or `6 months`"
        );
        assert_eq!(
            refusal("3 quarters"),
            "`3 quarters` does not divide a year exactly; hint: write `6 months` or `1 year`"
        );
        for (text, instead) in [
            ("24 hours", "1 day"),
            ("1440 minutes", "1 day"),
            ("2 days", "1 day"),
            ("7 days", "1 week"),
            ("0 minutes", "1 minute"),
            ("0 quarters", "1 month"),
            ("13 months", "1 year"),
            ("5 quarters", "1 year"),
            ("2 years", "1 year"),
        ] {
            assert_eq!(
                refusal(text),
                format!("`{text}` is not a possible width; hint: write `{instead}`")
            );
        }
        for text in ["48 hours", "9999999999 minutes", "9999999999999999999 hours"] {
            assert!(refusal(text).contains("is longer than a day"), "{text}");
        }
        for text in ["", "day", "1", "-1 hours", "1.5 hours", "1 fortnight", "1 day 2"] {
            assert!(refusal(text).starts_with(&format!("`{text}` is not a width; hint: write ")));
        }
    }

    #[test]
    fn buckets_divide_slices_that_hold_them_whole() {
        let divides = |bucket, slice| width(bucket).divides(width(slice));
        assert!(divides("15 minutes", "1 hour"));
        assert!(divides("90 minutes", "3 hours"));
        assert!(!divides("90 minutes", "2 hours"));
        assert!(!divides("1 hour", "15 minutes"));
        assert!(!divides("1 day", "12 hours"));
        for slice in ["1 day", "1 week", "1 month", "1 quarter", "1 year"] {
            assert!(divides("90 minutes", slice) && divides("1 day", slice));
            assert_eq!(divides("1 week", slice), slice == "1 week");
            assert_eq!(divides("1 month", slice), !["1 day", "1 week"].contains(&slice));
            assert_eq!(divides("1 quarter", slice), ["1 quarter", "1 year"].contains(&slice));
        }
        assert!(divides("1 quarter", "6 months") && !divides("2 months", "1 quarter"));
        let sundays = width("1 week").with_weeks_from(Weekday::Sun);
        assert!(sundays.divides(sundays) && !sundays.divides(width("1 week")));
        assert!(width("1 day").divides(sundays) && !sundays.divides(width("1 year")));
    }

    #[test]
    fn a_week_that_begins_on_another_day_says_so() {
        let sundays = width("1 week").with_weeks_from(Weekday::Sun);
        assert_eq!(sundays.to_string(), "1 week from sunday");
        assert_eq!(sundays.with_weeks_from(Weekday::Mon), Width::WEEK);
        assert_eq!((Width::WEEK.to_string().as_str(), Width::DAY.week_start()), ("1 week", None));
        assert_eq!(Width::DAY.with_weeks_from(Weekday::Sun), Width::DAY);
    }

    #[test]
    fn the_approximate_duration_is_the_usual_one() {
        assert_eq!(width("90 minutes").approximate(), Duration::from_secs(5_400));
        assert_eq!(width("1 week").approximate(), Duration::from_secs(7 * 86_400));
        assert_eq!(width("1 month").approximate(), Duration::from_secs(30 * 86_400));
        assert_eq!(width("1 year").approximate(), Duration::from_secs(360 * 86_400));
        assert!(width("12 hours").is_sub_day() && !width("1 day").is_sub_day());
    }
}
