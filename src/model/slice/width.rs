//! Widths of slices and buckets: `15 minutes`, `1 hour`, `1 day`, `1 week`, `1 month`.

use crate::model::hint::Hinted;
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

const MINUTES_PER_DAY: u32 = 24 * 60;

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
    /// From Monday.
    Week,
    /// From the 1st.
    Month,
}

/// Why a text is invalid as a [`Width`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WidthError {
    /// The text has another form than a number and a unit.
    #[error("`{0}` is not a width")]
    Unreadable(String),
    /// Pieces of this width leave a rest of the day.
    #[error("`{text}` does not divide a day exactly")]
    Uneven {
        text: String,
        /// The next narrower width that fills a day.
        less: Width,
        /// The next wider width that fills a day.
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
                "write `N minutes`, `N hours`, `1 day`, `1 week` or `1 month`, where the minutes or \
                 hours divide a day exactly"
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
    pub(crate) const WEEK: Self = Self(Unit::Week);
    /// One local month from the 1st.
    pub(crate) const MONTH: Self = Self(Unit::Month);

    /// Whether slices of width `slice` can be cut into whole buckets of this width.
    #[must_use]
    pub(crate) const fn divides(self, slice: Self) -> bool {
        match (self.0, slice.0) {
            (Unit::Minutes(bucket), Unit::Minutes(slice)) => slice.is_multiple_of(bucket),
            (Unit::Minutes(_) | Unit::Day, Unit::Day | Unit::Week | Unit::Month)
            | (Unit::Week, Unit::Week)
            | (Unit::Month, Unit::Month) => true,
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
            Unit::Week => 7 * MINUTES_PER_DAY,
            Unit::Month => 30 * MINUTES_PER_DAY,
        };
        Duration::from_secs(u64::from(minutes) * 60)
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
                    less: Self(Unit::Minutes(less)),
                    more: more.map_or(Self::DAY, |minutes| Self(Unit::Minutes(minutes))),
                })
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
            "month" | "months" => only(Self::MONTH),
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
            Unit::Week => (1, "week"),
            Unit::Month => (1, "month"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
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
        for (text, instead) in [
            ("24 hours", "1 day"),
            ("1440 minutes", "1 day"),
            ("2 days", "1 day"),
            ("7 days", "1 week"),
            ("0 minutes", "1 minute"),
            ("3 months", "1 month"),
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
        for slice in ["1 day", "1 week", "1 month"] {
            assert!(divides("90 minutes", slice) && divides("1 day", slice));
            assert_eq!(divides("1 week", slice), slice == "1 week");
            assert_eq!(divides("1 month", slice), slice == "1 month");
        }
    }

    #[test]
    fn the_approximate_duration_is_the_usual_one() {
        assert_eq!(width("90 minutes").approximate(), Duration::from_secs(5_400));
        assert_eq!(width("1 week").approximate(), Duration::from_secs(7 * 86_400));
        assert_eq!(width("1 month").approximate(), Duration::from_secs(30 * 86_400));
        assert!(width("12 hours").is_sub_day() && !width("1 day").is_sub_day());
    }
}
