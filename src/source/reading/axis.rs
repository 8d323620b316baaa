//! The time axis of a source table: how its time column is compared with an instant and cut into
//! buckets, so that an index on the bare column can be used.

use chrono::{DateTime, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;

use crate::model::hint::Fault;
use crate::model::rollup::{BucketType, EpochUnit, Rollup, TimeColumn};
use crate::model::slice::{Width, boundaries};
use crate::model::sql::{date, ident, literal, timestamptz};

mod time;

use time::TimeReading;
pub(crate) use time::TimeType;
use time::{epoch, local, timestamp};

/// Clocks change by at most a day (Pacific/Apia 2011). So an offset that is the same this far
/// before and after an instant is constant near it.
const NEAR_TRANSITION: TimeDelta = TimeDelta::hours(26);

/// The time axis of one rollup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Axis {
    column: String,
    reading: TimeReading,
    bucket: Width,
    bucket_as: BucketType,
    zone: Tz,
}

impl Axis {
    /// The axis of `rollup`, whose time column has the type `time`.
    ///
    /// # Errors
    /// The type contradicts the definition. The text says which types would be right.
    pub(crate) fn new(rollup: &Rollup, time: Result<TimeType, String>) -> Result<Self, Fault> {
        let column = &rollup.time.column;
        let zone = rollup.calendar.zone();
        let reading = TimeReading::of("time", &rollup.time, time, zone)?;
        if matches!(reading, TimeReading::Day(day) if rollup.bucket.is_sub_day() || day != zone) {
            let fault =
                Fault::new(format!("time: column `{column}` is a date, which has no hours"));
            return Err(
                fault.remedy("set slice and bucket to 1 day or wider, in the date's own zone")
            );
        }
        let Rollup { bucket, bucket_as, .. } = *rollup;
        Ok(Self { column: column.clone(), reading, bucket, bucket_as, zone })
    }

    /// The axis of the column that holds the time of a row's last change.
    ///
    /// # Errors
    /// The type is wrong. The text says which types would be right.
    pub(crate) fn of_changes(
        rollup: &Rollup,
        column: &TimeColumn,
        time: Result<TimeType, String>,
    ) -> Result<Self, Fault> {
        let zone = rollup.calendar.zone();
        let reading = TimeReading::of("late", column, time, zone)?;
        if matches!(reading, TimeReading::Day(_)) {
            let fault = Fault::new(format!(
                "late: column `{}` is a date, which cannot tell when in a day a row was written",
                column.column
            ));
            return Err(fault.remedy("use a timestamptz"));
        }
        let Rollup { bucket, bucket_as, .. } = *rollup;
        Ok(Self { column: column.column.clone(), reading, bucket, bucket_as, zone })
    }

    /// The type of the buckets.
    #[must_use]
    pub(crate) fn bucket_as(&self) -> BucketType {
        self.bucket_as
    }

    #[must_use]
    pub(crate) fn column(&self) -> &str {
        &self.column
    }

    /// The reading in one or two words. A capture trigger is made for it.
    #[must_use]
    pub(crate) fn reading(&self) -> String {
        match self.reading {
            TimeReading::Instant => "instant".into(),
            TimeReading::Local(zone) => format!("local {}", zone.name()),
            TimeReading::Day(zone) => format!("day {}", zone.name()),
            TimeReading::Epoch(unit) => format!("epoch {}", unit.word()),
        }
    }

    /// The zone in which the server reads the column's local times. `None`: the column holds
    /// instants, or UTC.
    #[must_use]
    pub(crate) fn local_zone(&self) -> Option<Tz> {
        match self.reading {
            TimeReading::Local(zone) | TimeReading::Day(zone) if zone != Tz::UTC => Some(zone),
            _ => None,
        }
    }

    /// The condition that the time of one of `rows` (`NEW`, `OLD`) is entirely before `cutoff`, an
    /// SQL expression of an instant. It is never true for NULL, and never fails for any value, as
    /// it is part of a trigger on the application's table. PostgreSQL parses it for each statement,
    /// so it is as short as possible.
    #[must_use]
    pub(crate) fn is_before(&self, rows: &[&str], cutoff: &str) -> String {
        let value = |row: &&str| {
            let column = format!("{row}.{}", ident(&self.column));
            match self.reading {
                TimeReading::Instant | TimeReading::Epoch(_) => column,
                TimeReading::Local(_) => self.first_instant(&column),
                TimeReading::Day(_) => self.last_instant(&column),
            }
        };
        let values: Vec<String> = rows.iter().map(value).collect();
        let earliest = match &values[..] {
            [only] => only.clone(),
            several => format!("least({})", several.join(", ")),
        };
        match self.reading {
            TimeReading::Epoch(unit) => {
                let scale = unit.per_second();
                format!("{earliest} < ceil(extract(epoch FROM {cutoff}) * {scale})::bigint")
            }
            _ => format!("{earliest} < {cutoff}"),
        }
    }

    /// The hours since 1970 that contain the time of a row, as expressions of the first and the
    /// last. They never fail for any value. For NULL their result is meaningless.
    #[must_use]
    pub(crate) fn hours(&self) -> (String, String) {
        let column = ident(&self.column);
        let hour = |instant| format!("floor(extract(epoch FROM {instant}) / 3600)::bigint");
        (hour(self.first_instant(&column)), hour(self.last_instant(&column)))
    }

    /// The hours since 1970 that a partition may hold, given the expression `bounds` of its
    /// constraint. The result is a JSON array of the first and the last hour, or NULL if the table
    /// is partitioned by another column.
    #[must_use]
    pub(crate) fn hours_within(&self, bounds: &str) -> String {
        let column = ident(&self.column);
        let (sql_type, step) = match self.reading {
            TimeReading::Instant => ("timestamptz", "interval '1 microsecond'"),
            TimeReading::Local(_) => ("timestamp", "interval '1 microsecond'"),
            TimeReading::Day(_) => ("date", "1"),
            TimeReading::Epoch(_) => ("bigint", "1"),
        };
        // `(created_at >= '2026-01-01'::date)`, or with a bare number.
        let value = |operator: &str| {
            let begin = format!("'(' || quote_ident({}) || ' {operator} '", literal(&self.column));
            let rest = format!("split_part(split_part({bounds}, {begin}, 2), ')', 1)");
            let place = format!("CASE WHEN {rest} LIKE '''%' THEN 2 ELSE 1 END");
            format!("nullif(split_part({rest}, '''', {place}), '')::{sql_type}")
        };
        let of = |hour: String, value: String, open: &str| {
            format!(
                "(SELECT CASE WHEN {column} IS NULL THEN {open} ELSE {hour} END FROM (SELECT \
                 {value} AS {column}) bound)"
            )
        };
        let (first, last) = self.hours();
        let (low, high) = (value(">="), value("<"));
        let from = of(first, low.clone(), "-1000000000");
        let until = of(last, format!("{high} - {step}"), "1000000000");
        format!(
            "CASE WHEN {low} IS NOT NULL OR {high} IS NOT NULL THEN jsonb_build_array({from}, {until}) \
             END"
        )
    }

    /// The seconds since 1970 of the time of `row` (`NEW`, `OLD`), as expressions of the first and,
    /// for a day, the last. They are fast, and safe under any `search_path` of the session, because
    /// every name in them has its schema. They never fail for any value.
    #[must_use]
    pub(crate) fn seconds(&self, row: &str) -> (String, Option<String>) {
        let column = format!("{row}.{}", ident(&self.column));
        let of = |instant| format!("pg_catalog.date_part('epoch', {instant})");
        match self.reading {
            TimeReading::Instant => (of(column), None),
            TimeReading::Local(_) => (of(self.first_instant(&column)), None),
            TimeReading::Day(_) => {
                (of(self.first_instant(&column)), Some(of(self.last_instant(&column))))
            }
            TimeReading::Epoch(unit) => {
                let scale = unit.per_second();
                let scale = format!("{scale}::double precision");
                (format!("{column}::double precision OPERATOR(pg_catalog./) {scale}"), None)
            }
        }
    }

    /// The instant of `column`, or the first instant of its day, limited to the years that can be
    /// converted between zones.
    fn first_instant(&self, column: &str) -> String {
        let within = |low: &str, high: &str| format!("greatest(least({column}, {high}), {low})");
        match self.reading {
            TimeReading::Instant => {
                within("'0002-01-01Z'::timestamptz", "'9998-01-01Z'::timestamptz")
            }
            TimeReading::Local(zone) => {
                let local = within("'0002-01-01'::timestamp", "'9998-01-01'::timestamp");
                format!("({local} AT TIME ZONE {})", literal(zone.name()))
            }
            TimeReading::Day(zone) => {
                let day = within("'0002-01-01'::pg_catalog.date", "'9998-01-01'::pg_catalog.date");
                format!("({day}::timestamp AT TIME ZONE {})", literal(zone.name()))
            }
            TimeReading::Epoch(unit) => {
                // The same years in seconds.
                let scale = unit.per_second();
                let (low, high) = (-62_104_060_800_i64 * scale, 253_339_228_800_i64 * scale);
                let count = format!("greatest(least({column}::bigint, {high}), {low})");
                format!("to_timestamp({count} / {scale}.0)")
            }
        }
    }

    /// The last instant of a day, to the microsecond. For other types it is the instant itself.
    fn last_instant(&self, column: &str) -> String {
        match self.reading {
            TimeReading::Day(zone) => {
                let day = format!(
                    "greatest(least({column}, '9998-01-01'::pg_catalog.date), \
                     '0002-01-01'::pg_catalog.date)"
                );
                let next = format!(
                    "(({day} OPERATOR(pg_catalog.+) 1)::timestamp AT TIME ZONE {})",
                    literal(zone.name())
                );
                format!("({next} OPERATOR(pg_catalog.-) interval '1 microsecond')")
            }
            _ => self.first_instant(column),
        }
    }

    /// The condition that a row's time is in `[start, end)`.
    #[must_use]
    pub(crate) fn between(&self, start: DateTime<Utc>, end: DateTime<Utc>) -> String {
        let column = ident(&self.column);
        let (low, high) = match self.reading {
            TimeReading::Instant => (timestamptz(start), timestamptz(end)),
            TimeReading::Local(zone) => return self.between_local(zone, start, end),
            TimeReading::Day(zone) => (date(zone, start), date(zone, end)),
            TimeReading::Epoch(unit) => (epoch(unit, start), epoch(unit, end)),
        };
        format!("{column} >= {low} AND {column} < {high}")
    }

    /// As [`Axis::between`], for SQL expressions of instants.
    #[must_use]
    pub(crate) fn between_expressions(&self, (start, end): (&str, &str)) -> String {
        let column = ident(&self.column);
        let in_zone =
            |instant: &str, zone: Tz| format!("({instant} AT TIME ZONE {})", literal(zone.name()));
        match self.reading {
            TimeReading::Instant => format!("{column} >= {start} AND {column} < {end}"),
            TimeReading::Local(zone) => {
                let slack = format!("interval '{} seconds'", NEAR_TRANSITION.num_seconds());
                let (low, high) = (in_zone(start, zone), in_zone(end, zone));
                let instant = in_zone(&column, zone);
                format!(
                    "{column} >= {low} - {slack} AND {column} < {high} + {slack} AND {instant} >= {start} \
                     AND {instant} < {end}"
                )
            }
            TimeReading::Day(zone) => {
                let day =
                    |instant| format!("({} + interval '12 hours')::date", in_zone(instant, zone));
                format!("{column} >= {} AND {column} < {}", day(start), day(end))
            }
            TimeReading::Epoch(unit) => {
                let scale = unit.per_second();
                let count = |at| format!("(extract(epoch FROM {at}) * {scale})::bigint");
                format!("{column} >= {} AND {column} < {}", count(start), count(end))
            }
        }
    }

    /// As [`Axis::bucket`], for an SQL expression of an array of the buckets' starts.
    #[must_use]
    pub(crate) fn bucket_of(&self, starts: &str) -> String {
        let start = format!("{starts}[width_bucket({}, {starts})]", self.instant());
        match self.bucket_as {
            BucketType::Instant => format!("({start})"),
            BucketType::Date => {
                let zone = literal(self.zone.name());
                format!("(({start} AT TIME ZONE {zone}) + interval '12 hours')::date")
            }
        }
    }

    /// The instant of a row's time, or that at which its day begins.
    fn instant(&self) -> String {
        let column = ident(&self.column);
        match self.reading {
            TimeReading::Instant => column,
            TimeReading::Local(zone) => format!("{column} AT TIME ZONE {}", literal(zone.name())),
            TimeReading::Day(zone) => {
                format!("{column}::timestamp AT TIME ZONE {}", literal(zone.name()))
            }
            TimeReading::Epoch(unit) => {
                format!("to_timestamp({column}::numeric / {})", unit.per_second())
            }
        }
    }

    /// The text of the bounds of [`Axis::between`] in a plan, as far as it is the same for every
    /// type of the column. It is in UTC and ISO style.
    #[must_use]
    pub(crate) fn bounds_shown(&self, start: DateTime<Utc>, end: DateTime<Utc>) -> [String; 2] {
        const SHOWN: &str = "%Y-%m-%d %H:%M:%S";
        match self.reading {
            TimeReading::Instant => [start, end].map(|at| at.format(SHOWN).to_string()),
            TimeReading::Local(zone) => {
                let ((low, low_slack), (high, high_slack)) = (local(zone, start), local(zone, end));
                [low - low_slack, high + high_slack].map(|at| at.format(SHOWN).to_string())
            }
            TimeReading::Day(zone) => {
                [start, end].map(|at| at.with_timezone(&zone).date_naive().to_string())
            }
            TimeReading::Epoch(unit) => [epoch(unit, start), epoch(unit, end)],
        }
    }

    /// Local time runs twice through an hour when clocks go back. PostgreSQL reads each local time
    /// as one instant, and that reading decides. The bounds on the bare column only have to be wide
    /// enough for an index to find the rows.
    fn between_local(&self, zone: Tz, start: DateTime<Utc>, end: DateTime<Utc>) -> String {
        let column = ident(&self.column);
        let (low, low_slack) = local(zone, start);
        let (high, high_slack) = local(zone, end);
        let bounds = format!(
            "{column} >= {} AND {column} < {}",
            timestamp(low - low_slack),
            timestamp(high + high_slack)
        );
        if low_slack.is_zero() && high_slack.is_zero() {
            return bounds;
        }
        let instant = format!("({column} AT TIME ZONE {})", literal(zone.name()));
        let (start, end) = (timestamptz(start), timestamptz(end));
        format!("{bounds} AND {instant} >= {start} AND {instant} < {end}")
    }

    /// The expression of the bucket of a row in the chunk `[start, end)`: the bucket's start, in the
    /// type of the table's column. It is a constant if there is only one bucket. Otherwise it is found by binary
    /// search among the calendar's own boundaries from `slice_start` on, so that PostgreSQL and the
    /// calendar always agree.
    #[must_use]
    pub(crate) fn bucket(
        &self,
        slice_start: DateTime<Utc>,
        start: DateTime<Utc>,
        end: DateTime<Utc>,
    ) -> String {
        let starts = boundaries(self.bucket, self.zone, slice_start, end);
        // The first bucket contains `start` and may begin before it.
        let first = starts.partition_point(|bucket| *bucket <= start).saturating_sub(1);
        let starts = &starts[first..];
        let value = |start| match self.bucket_as {
            BucketType::Instant => timestamptz(start),
            BucketType::Date => date(self.zone, start),
        };
        if let [only] = starts {
            return value(*only);
        }
        let column = ident(&self.column);
        let list = |item: &dyn Fn(DateTime<Utc>) -> String| {
            starts.iter().map(|start| item(*start)).collect::<Vec<_>>().join(",")
        };
        let instants = list(&|start| literal(&start.to_rfc3339()));
        let place = match self.reading {
            TimeReading::Instant => {
                format!("width_bucket({column}, ARRAY[{instants}]::timestamptz[])")
            }
            TimeReading::Local(zone) => format!(
                "width_bucket({column} AT TIME ZONE {}, ARRAY[{instants}]::timestamptz[])",
                literal(zone.name())
            ),
            TimeReading::Day(zone) => {
                let days = list(&|start| date(zone, start));
                format!("width_bucket({column}, ARRAY[{days}]::date[])")
            }
            TimeReading::Epoch(unit) => {
                let counts = list(&|start| epoch(unit, start));
                format!("width_bucket({column}::bigint, ARRAY[{counts}]::bigint[])")
            }
        };
        match self.bucket_as {
            BucketType::Instant => format!("(ARRAY[{instants}]::timestamptz[])[{place}]"),
            BucketType::Date => format!("(ARRAY[{}])[{place}]", list(&value)),
        }
    }

    /// An expression over all rows: a number of seconds since 1970 that is at most the earliest
    /// time, or NULL for an empty table. One look into an index on the bare column answers it.
    #[must_use]
    pub(crate) fn earliest(&self) -> String {
        let first = format!("min({})", ident(&self.column));
        match self.reading {
            TimeReading::Instant => format!("floor(extract(epoch FROM {first}))::float8"),
            // Near a change of clocks the least local time may differ from the earliest instant.
            TimeReading::Local(zone) => format!(
                "floor(extract(epoch FROM {first} AT TIME ZONE {}))::float8 - {}",
                literal(zone.name()),
                NEAR_TRANSITION.num_seconds()
            ),
            TimeReading::Day(zone) => format!(
                "floor(extract(epoch FROM {first}::timestamp AT TIME ZONE {}))::float8 - {}",
                literal(zone.name()),
                NEAR_TRANSITION.num_seconds()
            ),
            TimeReading::Epoch(EpochUnit::Seconds) => format!("{first}::float8"),
            TimeReading::Epoch(EpochUnit::Milliseconds) => {
                format!("floor({first} / 1000.0)::float8")
            }
        }
    }

    /// The latest instant in `(start, wanted]` at which the axis can be cut, or `None`. Cuts are at
    /// whole seconds, for a date at whole days.
    #[must_use]
    pub(crate) fn cut(&self, start: DateTime<Utc>, wanted: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let cut = match self.reading {
            TimeReading::Day(zone) => {
                let calendar = crate::model::slice::Calendar::new(Width::DAY, zone);
                calendar.containing(wanted).start()
            }
            _ => Utc.timestamp_opt(wanted.timestamp(), 0).single()?,
        };
        (cut > start).then_some(cut)
    }
}
