//! Reads how a rollup cuts time: its calendar of slices, and its buckets.

use chrono::{DateTime, Weekday};
use chrono_tz::Tz;

use crate::model::hint::Fault;
use crate::model::rollup::{BucketType, Rollup};
use crate::model::slice::{Calendar, Width, boundaries, day_name};
use crate::model::text::{nearest, shown};

use super::raw::{Node, Section};
use super::rollup::zone;

/// How a rollup cuts time.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub(super) calendar: Calendar,
    pub(super) bucket: Width,
    pub(super) bucket_as: BucketType,
    pub(super) partition_by: Option<Width>,
}

/// What holds where a rollup leaves the keys out.
#[derive(Clone, Copy)]
pub(super) struct Usual {
    zone: Tz,
    week_start: Weekday,
}

impl Usual {
    pub(super) const DEFAULT: Self = Self { zone: Tz::UTC, week_start: Weekday::Mon };

    /// A rollup of `finer` follows its zone, and its weeks if it has any.
    pub(super) fn of(finer: &Rollup) -> Self {
        let week_start = finer.calendar.width().week_start().or(finer.bucket.week_start());
        let week_start = week_start.unwrap_or(Self::DEFAULT.week_start);
        Self { zone: finer.calendar.zone(), week_start }
    }
}

impl Cut {
    /// Reads `timezone`, `slice`, `bucket`, `bucket_as`, `week_start` and `partition_by`.
    pub(super) fn read(section: &Section<'_>, usual: Usual) -> Option<Self> {
        let zone = section.get("timezone").map_or(Some(usual.zone), |node| zone(&node));
        let slice = section.need("slice", r#"write slice = "1 day""#).and_then(|n| width(&n));
        let bucket = match section.get("bucket") {
            Some(node) => width(&node).map(Some),
            None => Some(None),
        };
        let weeks = match section.get("week_start") {
            Some(node) => week_start(&node),
            None => Some(usual.week_start),
        };
        let bucket_as =
            section.get("bucket_as").map_or(Some(BucketType::default()), |node| bucket_as(&node));
        let partition_by =
            section.get("partition_by").map_or(Some(None), |node| partition_by(&node).map(Some));
        let (zone, slice, bucket, weeks) = (zone?, slice?, bucket?, weeks?);
        let (slice, bucket) =
            (slice.with_weeks_from(weeks), bucket.unwrap_or(slice).with_weeks_from(weeks));
        if let Some(node) = section.get("week_start")
            && slice.week_start().or(bucket.week_start()).is_none()
        {
            return node
                .wrong(Fault::new("neither slice nor bucket is a week").remedy("remove the key"));
        }
        let (calendar, bucket_as) = (Calendar::new(slice, zone), bucket_as?);
        let cut = Self { calendar, bucket, bucket_as, partition_by: partition_by? };
        if let (true, BucketType::Date, Some(node)) =
            (bucket.is_sub_day(), cut.bucket_as, section.get("bucket_as"))
        {
            return node.wrong(
                Fault::new(format!(r#"several buckets of "{bucket}" have the same date"#))
                    .remedy("set bucket to 1 day or wider, or remove the key"),
            );
        }
        match section.get("bucket") {
            Some(node) => cut.checked(&node),
            None => Some(cut),
        }
    }

    /// Checks that the bucket of `node` divides the slice, into a bearable number.
    fn checked(self, node: &Node<'_>) -> Option<Self> {
        let (slice, bucket) = (self.calendar.width(), self.bucket);
        if !bucket.divides(slice) {
            return node.wrong(
                Fault::new(format!(r#""{bucket}" does not divide the slice of "{slice}""#))
                    .remedy(r#"use one that does, or remove the key"#),
            );
        }
        if has_too_many_buckets(&self.calendar, bucket) {
            return node.wrong(
                Fault::new(format!(
                    r#""{bucket}" cuts the slice of "{slice}" into more than {BUCKETS_MAX} buckets"#
                ))
                .remedy(r#"use a wider bucket or a narrower slice"#),
            );
        }
        Some(self)
    }
}

/// A slice's statement contains the boundaries of all its buckets. A month of quarter hours is the
/// most that it should carry.
const BUCKETS_MAX: usize = 3_000;

fn has_too_many_buckets(calendar: &Calendar, bucket: Width) -> bool {
    /// 2025-10-15T12:00:00Z. The month has 31 days, one of which has 25 hours in much of the world.
    const LONG_MONTH: i64 = 1_760_529_600;
    let slice = calendar.containing(DateTime::from_timestamp(LONG_MONTH, 0).unwrap_or_default());
    boundaries(bucket, calendar.zone(), slice.start(), slice.end()).len() > BUCKETS_MAX
}

fn width(node: &Node<'_>) -> Option<Width> {
    let text = node.string(r#"a width such as "1 day" or "15 minutes""#)?;
    match text.parse::<Width>() {
        Ok(width) => Some(width),
        Err(fault) => node.refused(text, &fault, r#"write a width such as "1 day""#),
    }
}

/// Reads the type of the column `bucket`.
fn bucket_as(node: &Node<'_>) -> Option<BucketType> {
    const FORM: &str = r#""timestamptz" or "date""#;
    let text = node.string(FORM)?;
    let found = BUCKET_TYPES.into_iter().find(|it| it.word() == text);
    found.or_else(|| {
        node.wrong(
            Fault::new(format!("{} is not a type of a bucket", shown(text)))
                .remedy(format!("use {FORM}")),
        )
    })
}

pub(super) const BUCKET_TYPES: [BucketType; 2] = [BucketType::Instant, BucketType::Date];

/// The words for the partitions of a table, and their widths.
pub(super) const PARTITIONS: [(&str, Width); 2] = [("month", Width::MONTH), ("year", Width::YEAR)];

/// Reads how the table is cut into partitions.
fn partition_by(node: &Node<'_>) -> Option<Width> {
    const FORM: &str = r#""month" or "year""#;
    let text = node.string(FORM)?;
    let found = PARTITIONS.into_iter().find(|(word, _)| *word == text);
    found.map(|(_, width)| width).or_else(|| {
        node.wrong(
            Fault::new(format!("{} is not a partition of a table", shown(text)))
                .remedy(format!("use {FORM}")),
        )
    })
}

/// The days on which a week can begin.
pub(super) const WEEKDAYS: [Weekday; 7] = [
    Weekday::Mon,
    Weekday::Tue,
    Weekday::Wed,
    Weekday::Thu,
    Weekday::Fri,
    Weekday::Sat,
    Weekday::Sun,
];

/// Reads the day on which a week begins.
fn week_start(node: &Node<'_>) -> Option<Weekday> {
    let text = node.string(r#"a day such as "sunday""#)?;
    if let Some(day) = WEEKDAYS.into_iter().find(|day| day_name(*day) == text) {
        return Some(day);
    }
    let near = nearest(text, WEEKDAYS.iter().map(|day| day_name(*day)));
    node.wrong(Fault::new(format!("{} is not a day of the week", shown(text))).remedy(match near {
        Some(near) => format!("did you mean `{near}`?"),
        None => r#"write a day such as "sunday""#.to_owned(),
    }))
}
