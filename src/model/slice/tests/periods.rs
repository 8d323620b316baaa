//! Weeks, months, quarters and years.

use chrono::Weekday;
use chrono_tz::Tz;

use super::{calendar, utc};
use crate::model::slice::{Calendar, Width};

#[test]
fn weeks_begin_on_monday_and_months_on_the_first() {
    let week = calendar("1 week", Tz::America__New_York);
    let slice = week.containing(utc("2013-03-10T12:00:00Z"));
    assert_eq!(slice.to_string(), "2013-03-04T05:00:00Z");
    assert_eq!(slice.end(), utc("2013-03-11T04:00:00Z"));
    assert_eq!(week.label(&week.next(slice)), "2013-03-11");
    assert_eq!(week.label(&week.previous(slice)), "2013-02-25");

    let month = calendar("1 month", Tz::UTC);
    let february = month.containing(utc("2024-02-29T23:59:59.999Z"));
    assert_eq!(february.id("entity_daily"), "entity_daily@2024-02-01T00:00:00Z");
    assert_eq!(february.duration().num_days(), 29);
    let year = month.count(utc("2024-01-01T00:00:00Z"), utc("2025-01-01T00:00:00Z"));
    assert_eq!(year, 12);
}

#[test]
fn quarters_and_years_begin_on_the_first_of_their_month() {
    let quarter = calendar("1 quarter", Tz::America__New_York);
    let spring = quarter.containing(utc("2024-05-15T12:00:00Z"));
    assert_eq!(spring.to_string(), "2024-04-01T04:00:00Z");
    assert_eq!(spring.end(), utc("2024-07-01T04:00:00Z"));
    assert_eq!(quarter.label(&quarter.previous(spring)), "2024-01-01");
    // The last quarter of a year begins in one offset and ends in the other.
    let last = quarter.containing(utc("2024-12-31T23:59:59Z"));
    assert_eq!(
        (last.start(), last.end()),
        (utc("2024-10-01T04:00:00Z"), utc("2025-01-01T05:00:00Z"))
    );
    let year = calendar("1 year", Tz::Asia__Kathmandu);
    let leap = year.containing(utc("2024-02-29T00:00:00Z"));
    assert_eq!(
        (leap.to_string(), leap.duration().num_days()),
        ("2023-12-31T18:15:00Z".into(), 366)
    );
    let half = calendar("6 months", Tz::UTC);
    assert_eq!(half.label(&half.containing(utc("1969-08-01T00:00:00Z"))), "1969-07-01");
}

#[test]
fn a_week_begins_on_the_day_that_is_asked_for() {
    let days = ["2026-02-09", "2026-02-10", "2026-02-11", "2026-02-12", "2026-02-13"];
    let week = |first| {
        Calendar::new(Width::WEEK.with_weeks_from(first), Tz::America__New_York)
            .containing(utc("2026-02-13T12:00:00Z"))
    };
    // The 13th was a Friday.
    let mut first = Weekday::Mon;
    for day in days {
        let slice = week(first);
        assert_eq!(slice.start(), calendar("1 day", Tz::America__New_York).instant(day).unwrap());
        assert_eq!(slice.duration().num_days(), 7);
        first = first.succ();
    }
    assert_eq!(week(Weekday::Sat).to_string(), "2026-02-07T05:00:00Z");
    assert_eq!(week(Weekday::Sun).to_string(), "2026-02-08T05:00:00Z");
}
