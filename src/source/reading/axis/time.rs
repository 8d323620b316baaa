//! How a time column is read: its type, and the instants of its values.

use chrono::{DateTime, NaiveDateTime, Offset as _, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;

use super::NEAR_TRANSITION;
use crate::model::hint::Fault;
use crate::model::rollup::{EpochUnit, TimeColumn};

/// The types that a time column can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeType {
    /// `timestamp with time zone`: an instant.
    Timestamptz,
    /// `timestamp without time zone`: local time in a zone that the configuration names.
    Timestamp,
    /// `date`: a local day.
    Date,
    /// `smallint`, `integer` or `bigint`: seconds or milliseconds since 1970.
    Integer,
}

impl TimeType {
    /// Parses PostgreSQL's name of a type. The error is that name.
    ///
    /// # Errors
    /// Values of this type hold no time.
    pub(crate) fn parse(sql_type: &str) -> Result<Self, String> {
        match sql_type {
            "timestamp with time zone" => Ok(Self::Timestamptz),
            "timestamp without time zone" => Ok(Self::Timestamp),
            "date" => Ok(Self::Date),
            "smallint" | "integer" | "bigint" => Ok(Self::Integer),
            other => Err(other.to_owned()),
        }
    }
}

/// How to read one rollup's time column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimeReading {
    /// The column is the instant.
    Instant,
    /// The column is local time in this zone.
    Local(Tz),
    /// The column is a local day in this zone.
    Day(Tz),
    /// The column counts this unit since 1970.
    Epoch(EpochUnit),
}

impl TimeReading {
    /// The reading of `column`, which has the type `time`. `key` is the setting that names it, and
    /// `day_zone` the default zone of a date.
    pub(super) fn of(
        key: &str,
        column: &TimeColumn,
        time: Result<TimeType, String>,
        day_zone: Tz,
    ) -> Result<Self, Fault> {
        let TimeColumn { column, zone, unit } = column;
        let reading = match time {
            Ok(TimeType::Timestamptz) => Self::Instant,
            Ok(TimeType::Timestamp) => Self::Local(zone.unwrap_or(Tz::UTC)),
            Ok(TimeType::Date) => Self::Day(zone.unwrap_or(day_zone)),
            Ok(TimeType::Integer) => Self::Epoch(unit.ok_or_else(|| {
                Fault::new(format!("{key}: column `{column}` is an integer without a unit")).remedy(
                    format!(
                        "say what it counts: {key} = {{ column = \"{column}\", unit = \"seconds\" }} \
                         or \"milliseconds\""
                    ),
                )
            })?),
            Err(other) => {
                return Err(Fault::new(format!("{key}: column `{column}` is of type {other}"))
                    .remedy(
                        "name a column of type timestamptz, timestamp or date, or an integer with a \
                         unit",
                    ));
            }
        };
        if unit.is_some() && !matches!(reading, Self::Epoch(_)) {
            let fault =
                Fault::new(format!("{key}: `unit` is for integers, and `{column}` is none"));
            return Err(fault.remedy("remove it"));
        }
        if zone.is_some() && matches!(reading, Self::Instant | Self::Epoch(_)) {
            let fault = Fault::new(format!(
                "{key}: column `{column}` holds instants, which need no `zone`"
            ));
            return Err(fault.remedy("remove it"));
        }
        Ok(reading)
    }
}

/// Local time at `instant`, and the most that a change of clocks nearby may shift it.
pub(super) fn local(zone: Tz, instant: DateTime<Utc>) -> (NaiveDateTime, TimeDelta) {
    let offset = |at: DateTime<Utc>| {
        i64::from(zone.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc())
    };
    let here = instant.with_timezone(&zone).naive_local();
    let moved = (offset(instant - NEAR_TRANSITION) - offset(instant + NEAR_TRANSITION)).abs();
    (here, TimeDelta::seconds(moved))
}

pub(super) fn timestamp(local: NaiveDateTime) -> String {
    format!("'{}'::timestamp", local.format("%Y-%m-%dT%H:%M:%S%.f"))
}

pub(super) fn epoch(unit: EpochUnit, instant: DateTime<Utc>) -> String {
    match unit {
        EpochUnit::Seconds => instant.timestamp().to_string(),
        EpochUnit::Milliseconds => instant.timestamp_millis().to_string(),
    }
}
