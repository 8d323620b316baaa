//! Spans that a trailing window looks back over: `28 days`, `3 months`, `24 hours`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::Width;
use super::width::Unit;
use crate::model::hint::Hinted;

const MINUTES_PER_DAY: u32 = 24 * 60;

/// Ten years. A slice of a window reads all finer rows of the span.
const DAYS_MAX: u32 = 3_660;

/// A span of time, in units that a calendar treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trailing {
    /// Elapsed time.
    Minutes(u32),
    /// Local dates, at the same time of day.
    Days(u32),
    /// Local months, at the same day and time of day.
    Months(u32),
}

/// Why a text is invalid as a [`Trailing`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TrailingError {
    /// The text has another form than a number and a unit.
    #[error("`{0}` is not a span of time")]
    Unreadable(String),
    /// Zero, or more than ten years.
    #[error("`{0}` is out of range")]
    OutOfRange(String),
}

impl Hinted for TrailingError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        Some(Cow::Borrowed(match self {
            Self::Unreadable(_) => {
                "write a number of hours, days, weeks or months such as `28 days`"
            }
            Self::OutOfRange(_) => "write at least one unit and at most ten years",
        }))
    }
}

impl Trailing {
    /// Whether spans of this length consist of whole slices of `finer`.
    #[must_use]
    pub(crate) const fn is_whole_in(self, finer: Width) -> bool {
        match (self, finer.unit()) {
            (Self::Minutes(span), Unit::Minutes(slice))
            | (Self::Months(span), Unit::Months(slice)) => span.is_multiple_of(slice),
            (Self::Days(span), Unit::Week(_)) => span.is_multiple_of(7),
            (Self::Days(_) | Self::Months(_), Unit::Minutes(_) | Unit::Day) => true,
            _ => false,
        }
    }

    /// The usual duration, for sizing only: days of 24 hours, months of 30 days.
    #[must_use]
    pub(crate) fn approximate(self) -> Duration {
        let minutes = match self {
            Self::Minutes(minutes) => u64::from(minutes),
            Self::Days(days) => u64::from(days) * u64::from(MINUTES_PER_DAY),
            Self::Months(months) => u64::from(months) * 30 * u64::from(MINUTES_PER_DAY),
        };
        Duration::from_secs(minutes * 60)
    }
}

impl FromStr for Trailing {
    type Err = TrailingError;

    fn from_str(text: &str) -> Result<Self, TrailingError> {
        let unreadable = || TrailingError::Unreadable(text.to_owned());
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (count, unit) = trimmed.split_at(digits);
        let count: u32 = count.parse().map_err(|_| unreadable())?;
        let unit = unit.trim_start();
        let times = |units: u32| count.saturating_mul(units);
        let span = match unit.strip_suffix('s').unwrap_or(unit) {
            "minute" => Self::Minutes(count),
            "hour" => Self::Minutes(times(60)),
            "day" => Self::Days(count),
            "week" => Self::Days(times(7)),
            "month" => Self::Months(count),
            "quarter" => Self::Months(times(3)),
            "year" => Self::Months(times(12)),
            _ => return Err(unreadable()),
        };
        let days = span.approximate().as_secs() / u64::from(60 * MINUTES_PER_DAY);
        if count == 0 || days > u64::from(DAYS_MAX) {
            return Err(TrailingError::OutOfRange(trimmed.to_owned()));
        }
        Ok(span)
    }
}

impl fmt::Display for Trailing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match *self {
            Self::Minutes(minutes) if minutes.is_multiple_of(60) => (minutes / 60, "hour"),
            Self::Minutes(minutes) => (minutes, "minute"),
            Self::Days(days) => (days, "day"),
            Self::Months(months) => (months, "month"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_read_in_any_spelling_and_written_in_one() {
        for (text, canonical) in [
            ("28 days", "28 days"),
            ("4 weeks", "28 days"),
            (" 1day ", "1 day"),
            ("90 minutes", "90 minutes"),
            ("24 hours", "24 hours"),
            ("1 quarter", "3 months"),
            ("1 year", "12 months"),
        ] {
            let span: Trailing = text.parse().unwrap();
            assert_eq!(span.to_string(), canonical);
            assert_eq!(canonical.parse(), Ok(span));
        }
        for text in ["", "days", "28", "28 dayss", "-1 days", "1.5 days", "99999999999 days"] {
            assert_eq!(text.parse::<Trailing>(), Err(TrailingError::Unreadable(text.to_owned())));
        }
        for text in ["0 days", "4000 days", "999999999 weeks"] {
            assert_eq!(text.parse::<Trailing>(), Err(TrailingError::OutOfRange(text.to_owned())));
        }
    }

    #[test]
    fn a_span_consists_of_whole_slices_or_is_refused() {
        let is_whole = |span: &str, width: &str| {
            span.parse::<Trailing>().unwrap().is_whole_in(width.parse().unwrap())
        };
        assert!(is_whole("28 days", "1 hour") && is_whole("28 days", "1 day"));
        assert!(is_whole("28 days", "1 week") && !is_whole("30 days", "1 week"));
        assert!(is_whole("24 hours", "6 hours") && !is_whole("25 hours", "6 hours"));
        assert!(!is_whole("24 hours", "1 day") && !is_whole("60 days", "1 month"));
        assert!(is_whole("3 months", "1 day") && is_whole("6 months", "1 quarter"));
        assert!(!is_whole("4 months", "1 quarter") && !is_whole("3 months", "1 week"));
    }
}
