//! Slices of named places on their irregular days, and of every zone around every change of offset.

use crate::model::hint::Hinted;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use chrono::{Offset, TimeZone};
use chrono_tz::{TZ_VARIANTS, Tz};
use proptest::prelude::*;

use super::*;

mod periods;

const WIDTHS: [&str; 8] =
    ["15 minutes", "1 hour", "6 hours", "1 day", "1 week", "1 month", "1 quarter", "1 year"];
const HOUR: i64 = 3_600;
const DAY: i64 = 24 * HOUR;
const YEAR_1970: i64 = 0;
const YEAR_2040: i64 = 2_208_988_800;

fn calendar(width: &str, zone: Tz) -> Calendar {
    Calendar::new(width.parse().unwrap(), zone)
}

fn utc(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().to_utc()
}

fn at(t: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(t, 0).unwrap()
}

/// The slices between two local dates, as the zone's clocks show their starts, and their minutes.
fn shown(calendar: &Calendar, from: &str, to: &str) -> Vec<(String, i64)> {
    let (from, to) = (calendar.instant(from).unwrap(), calendar.instant(to).unwrap());
    calendar
        .slices(from, to)
        .map(|slice| (calendar.label(&slice), slice.duration().num_minutes()))
        .collect()
}

fn pairs(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
    expected.iter().map(|&(label, minutes)| (label.to_owned(), minutes)).collect()
}

#[test]
fn days_and_hours_follow_new_york() {
    let (day, hour) = (calendar("1 day", Tz::America__New_York), Width::HOUR);
    for (date, start, hours) in [
        ("2013-03-10", "2013-03-10T05:00:00Z", 23),
        ("2013-11-03", "2013-11-03T04:00:00Z", 25),
        ("2013-11-04", "2013-11-04T05:00:00Z", 24),
    ] {
        let slice = day.starting(day.instant(date).unwrap()).unwrap();
        assert_eq!(slice.to_string(), start);
        assert_eq!(slice.duration().num_hours(), hours);
        assert_eq!(day.label(&slice), date);
        let pieces = boundaries(hour, day.zone(), slice.start(), slice.end());
        assert_eq!(i64::try_from(pieces.len()).unwrap(), hours);
    }
    assert_eq!(
        shown(&calendar("6 hours", day.zone()), "2013-11-03", "2013-11-04"),
        pairs(&[
            ("2013-11-03 00:00", 420),
            ("2013-11-03 06:00", 360),
            ("2013-11-03 12:00", 360),
            ("2013-11-03 18:00", 360),
        ])
    );
    assert_eq!(
        shown(&calendar("1 hour", day.zone()), "2013-11-03", "2013-11-03T03:00"),
        pairs(&[
            ("2013-11-03 00:00", 60),
            ("2013-11-03 01:00-04:00", 60),
            ("2013-11-03 01:00-05:00", 60),
            ("2013-11-03 02:00", 60),
        ])
    );
}

#[test]
fn quarter_hours_of_lisbon_skip_the_missing_hour() {
    let quarters = calendar("15 minutes", Tz::Europe__Lisbon);
    let spring = shown(&quarters, "2024-03-31", "2024-04-01");
    assert_eq!(spring.len(), 92);
    assert_eq!(spring[3].0, "2024-03-31 00:45");
    assert_eq!(spring[4].0, "2024-03-31 02:00");
    assert_eq!(shown(&quarters, "2024-10-27", "2024-10-28").len(), 100);
}

#[test]
fn kathmandu_begins_its_days_at_a_quarter_past_the_hour_in_utc() {
    let day = calendar("1 day", Tz::Asia__Kathmandu);
    assert_eq!(day.containing(utc("2026-02-10T00:00:00Z")).to_string(), "2026-02-09T18:15:00Z");
    let hour = calendar("1 hour", Tz::Asia__Kathmandu);
    assert_eq!(hour.containing(utc("2026-02-10T00:20:00Z")).to_string(), "2026-02-10T00:15:00Z");
    // The move from +05:30 to +05:45 skipped the quarter of an hour after midnight.
    let (first, _) = &shown(&hour, "1986-01-01", "1986-01-02")[0];
    assert_eq!(first, "1986-01-01 00:15");
}

#[test]
fn the_half_hour_of_lord_howe_makes_a_long_and_a_short_hour() {
    let hour = calendar("1 hour", Tz::Australia__Lord_Howe);
    let april = shown(&hour, "2024-04-07", "2024-04-08");
    assert_eq!(april.len(), 24);
    assert_eq!(april[1..3], pairs(&[("2024-04-07 01:00", 90), ("2024-04-07 02:00", 60)]));
    let october = shown(&hour, "2024-10-06", "2024-10-07");
    assert_eq!(october.len(), 24);
    assert_eq!(
        october[1..4],
        pairs(&[("2024-10-06 01:00", 60), ("2024-10-06 02:30", 30), ("2024-10-06 03:00", 60),])
    );
}

#[test]
fn the_date_that_apia_skipped_has_no_slice() {
    let day = calendar("1 day", Tz::Pacific__Apia);
    assert_eq!(
        shown(&day, "2011-12-29", "2012-01-01"),
        pairs(&[("2011-12-29", 1_440), ("2011-12-31", 1_440)])
    );
    assert_eq!(day.instant("2011-12-30").unwrap(), day.instant("2011-12-31").unwrap());
    let week = calendar("1 week", Tz::Pacific__Apia);
    assert_eq!(shown(&week, "2011-12-26", "2012-01-02"), pairs(&[("2011-12-26", 6 * 1_440)]));
}

#[test]
fn a_day_of_sao_paulo_without_midnight_begins_after_the_gap() {
    let day = calendar("1 day", Tz::America__Sao_Paulo);
    let slice = day.containing(utc("2018-11-04T12:00:00Z"));
    assert_eq!(slice.to_string(), "2018-11-04T03:00:00Z");
    assert_eq!(slice.duration().num_hours(), 23);
    let hour = calendar("1 hour", Tz::America__Sao_Paulo);
    assert_eq!(shown(&hour, "2018-11-04", "2018-11-05")[0], ("2018-11-04 01:00".to_owned(), 60));
    // In February midnight was announced and 23:00 came again instead.
    assert_eq!(
        shown(&day, "2018-02-17", "2018-02-19"),
        pairs(&[("2018-02-17", 25 * 60), ("2018-02-18", 24 * 60)])
    );
}

#[test]
fn a_havana_day_with_two_midnights_begins_at_the_first() {
    let day = calendar("1 day", Tz::America__Havana);
    let slice = day.starting(day.instant("2024-11-03").unwrap()).unwrap();
    assert_eq!(slice.to_string(), "2024-11-03T04:00:00Z");
    assert_eq!(slice.duration().num_hours(), 25);
    assert_eq!(
        shown(&calendar("1 hour", day.zone()), "2024-11-03", "2024-11-03T02:00"),
        pairs(&[
            ("2024-11-03 00:00-04:00", 60),
            ("2024-11-03 00:00-05:00", 60),
            ("2024-11-03 01:00", 60),
        ])
    );
}

#[test]
fn a_st_johns_day_begins_after_clocks_fell_back_over_midnight() {
    let day = calendar("1 day", Tz::America__St_Johns);
    assert_eq!(
        shown(&day, "2006-10-28", "2006-10-30"),
        pairs(&[("2006-10-28", 25 * 60), ("2006-10-29", 24 * 60)])
    );
    let minute_after_midnight = utc("2006-10-29T02:30:30Z");
    assert_eq!(day.label(&day.containing(minute_after_midnight)), "2006-10-28");
    let hour = calendar("1 hour", Tz::America__St_Johns);
    let slice = hour.containing(minute_after_midnight);
    assert_eq!(hour.label(&slice), "2006-10-29 00:00-02:30");
    assert_eq!(slice.duration().num_minutes(), 60);
    assert_eq!(hour.label(&hour.next(slice)), "2006-10-29 00:00-03:30");
}

#[test]
fn a_misaligned_start_is_refused_with_its_neighbours() {
    let day = calendar("1 day", Tz::UTC);
    assert_eq!(
        day.starting(utc("2026-02-10T03:00:00Z")).unwrap_err().in_one_line(),
        "2026-02-10T03:00:00Z is not the start of a slice; \
         hint: the neighbours are 2026-02-10T00:00:00Z and 2026-02-11T00:00:00Z"
    );
    assert!(day.starting(utc("2026-02-10T00:00:00.001Z")).is_err());
}

#[test]
fn slices_of_a_range_start_inside_it_or_have_ended() {
    let day = calendar("1 day", Tz::UTC);
    let (from, noon) = (utc("2026-02-10T00:00:00Z"), utc("2026-02-12T12:00:00Z"));
    assert_eq!(day.count(from, noon), 3);
    assert_eq!(day.count(from + TimeDelta::milliseconds(1), noon), 2);
    assert_eq!(day.count(noon, from), 0);
    assert_eq!(day.slices_ended_by(from, noon).count(), 2);
    assert_eq!(day.slices_ended_by(from, utc("2026-02-12T00:00:00Z")).count(), 2);
    let pieces = boundaries(Width::HOUR, Tz::UTC, utc("2026-02-10T22:30:00Z"), day_end(noon));
    assert_eq!(pieces[..2], [utc("2026-02-10T22:30:00Z"), utc("2026-02-10T23:00:00Z")]);
    assert!(boundaries(Width::HOUR, Tz::UTC, noon, noon).is_empty());
}

fn day_end(t: DateTime<Utc>) -> DateTime<Utc> {
    calendar("1 day", Tz::UTC).containing(t).end()
}

#[test]
fn slices_end_where_chrono_ends() {
    for width in WIDTHS {
        let calendar = calendar(width, Tz::Asia__Tokyo);
        let last = DateTime::<Utc>::MAX_UTC;
        assert!(calendar.count(last - TimeDelta::days(40), last) > 0);
        let _ = calendar.label(&calendar.containing(DateTime::<Utc>::MIN_UTC));
    }
}

#[test]
fn people_name_instants_in_the_zone_of_the_calendar() {
    let day = calendar("1 day", Tz::America__New_York);
    for (text, instant) in [
        ("2025-01-01", "2025-01-01T05:00:00Z"),
        ("2025-01-01T06:00", "2025-01-01T11:00:00Z"),
        (" 2025-01-01 06:00 ", "2025-01-01T11:00:00Z"),
        ("2025-01-01 06:00:30", "2025-01-01T11:00:30Z"),
        ("2025-01-01T06:00:00Z", "2025-01-01T06:00:00Z"),
        ("2025-01-01T06:00:00+01:00", "2025-01-01T05:00:00Z"),
        ("2013-03-10T02:30", "2013-03-10T07:00:00Z"),
        ("2013-11-03T01:30:00-05:00", "2013-11-03T06:30:00Z"),
    ] {
        assert_eq!(day.instant(text), Ok(utc(instant)), "{text}");
    }
    assert_eq!(
        day.instant("2013-11-03 01:30").unwrap_err().in_one_line(),
        "`2013-11-03 01:30` occurs twice in America/New_York; \
         hint: write `2013-11-03T01:30:00-04:00` or `2013-11-03T01:30:00-05:00`"
    );
    let refused = ["", "yesterday", "25-01-01", "2025-1-1", "2025-02-30", "2025-01-01T24:00"];
    for text in refused.into_iter().chain(["2025-01-01T06", "2016-12-31T23:59:60Z", "2025-01"]) {
        let error = day.instant(text).unwrap_err().in_one_line();
        assert!(
            error.starts_with(&format!("`{text}` is not a date or time; hint: write ")),
            "{error}"
        );
    }
}

/// Each change of offset, 1970 to 2040: its first instant, the offsets before and after.
type Changes = Vec<(i64, i64, i64)>;

/// The changes of all zones; of zones with the same changes only one.
static CHANGES: LazyLock<BTreeMap<Changes, Tz>> = LazyLock::new(|| {
    let zones = TZ_VARIANTS.iter().map(|&zone| (changes(zone), zone));
    zones.filter(|(changes, _)| !changes.is_empty()).collect()
});

fn offset(zone: Tz, t: i64) -> i64 {
    zone.offset_from_utc_datetime(&at(t).naive_utc()).fix().local_minus_utc().into()
}

fn changes(zone: Tz) -> Changes {
    const STEP: i64 = 6 * DAY;
    let mut found = Changes::new();
    let mut before = offset(zone, YEAR_1970);
    for t in (YEAR_1970..YEAR_2040).step_by(usize::try_from(STEP).unwrap()) {
        let after = offset(zone, t + STEP);
        if before != after {
            let (mut still_before, mut first) = (t, t + STEP);
            while first - still_before > 1 {
                let middle = i64::midpoint(still_before, first);
                let is_before = offset(zone, middle) == before;
                *(if is_before { &mut still_before } else { &mut first }) = middle;
            }
            found.push((first, before, after));
            before = after;
        }
    }
    found
}

/// One example of each kind of change: alike in offsets and local time of day, so alike in slices.
fn kinds_of_change() -> Vec<(Tz, i64)> {
    let mut kinds = BTreeMap::new();
    for (changes, zone) in &*CHANGES {
        for (t, before, after) in changes {
            let kind = (before, after, (t + before).rem_euclid(DAY));
            kinds.entry(kind).or_insert((*zone, *t));
        }
    }
    kinds.into_values().collect()
}

/// Reads the zone's clock every half minute and applies the definition of a slice's start to the
/// result. The calendar finds starts in an independent way.
#[test]
fn starts_are_where_the_clock_says_they_are() {
    const STEP: i64 = 30;
    for (zone, change) in kinds_of_change() {
        let times: Vec<i64> = (change - 25 * HOUR..=change + 25 * HOUR).step_by(30).collect();
        let clock: Vec<i64> = times.iter().map(|t| t + offset(zone, *t)).collect();
        let (from, to) = (at(times[1]), at(times[times.len() - 1] + 1));

        let mut lowest_later = clock.clone();
        for i in (1..clock.len()).rev() {
            lowest_later[i - 1] = lowest_later[i].min(clock[i - 1]);
        }
        let date = |local: i64| local.div_euclid(DAY);
        let days = (1..times.len())
            .filter(|&i| date(clock[i - 1]) < date(clock[i]))
            .filter(|&i| date(lowest_later[i]) == date(clock[i]))
            .map(|i| at(times[i]));
        assert_eq!(starts("1 day", zone, from, to), days.collect::<Vec<_>>(), "{zone} {change}");

        for (width, seconds) in [("15 minutes", 900), ("1 hour", HOUR), ("6 hours", 6 * HOUR)] {
            let pieces = (1..times.len()).filter(|&i| {
                let shown = clock[i];
                // Without a gap the first local time that could be skipped is the shown one.
                let due = shown.min(clock[i - 1] + STEP);
                shown.div_euclid(seconds) != (due - 1).div_euclid(seconds)
            });
            let pieces: Vec<_> = pieces.map(|i| at(times[i])).collect();
            assert_eq!(starts(width, zone, from, to), pieces, "{zone} {change} {width}");
        }
    }
}

fn starts(width: &str, zone: Tz, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    calendar(width, zone).slices(from, to).map(|slice| slice.start()).collect()
}

/// `slice` touches its neighbours, and the calendar finds it from each of its instants.
fn assert_tiles(calendar: &Calendar, slice: Slice) {
    let case = || format!("{} of {} at {slice}", calendar.width(), calendar.zone());
    assert!(slice.start() < slice.end(), "{}", case());
    assert_eq!(calendar.next(slice).start(), slice.end(), "{}", case());
    assert_eq!(calendar.previous(slice).end(), slice.start(), "{}", case());
    assert_eq!(calendar.starting(slice.start()), Ok(slice), "{}", case());
    let last = slice.end() - TimeDelta::nanoseconds(1);
    assert_eq!(calendar.containing(last), slice, "{}", case());
}

/// Events every eleven minutes, some 4,000 of them in a longer slice, and at the slice's last
/// instant, are summed by the bucket that the boundaries give them (as `width_bucket` does in SQL).
/// Each sum is what the calendar's bucket holds, and together they are the whole slice.
fn assert_bucket_totals(calendar: &Calendar, slice: Slice, bucket: Width) {
    let step = TimeDelta::minutes(11).max(slice.duration() / 4_001);
    let case = || format!("{bucket} of {} of {} at {slice}", calendar.width(), calendar.zone());
    let cut = boundaries(bucket, calendar.zone(), slice.start(), slice.end());
    let last = slice.end() - TimeDelta::nanoseconds(1);
    let mut events: Vec<_> =
        std::iter::successors(Some(slice.start()), |at| Some(*at + step).filter(|at| *at < last))
            .collect();
    events.push(last);
    let mut totals = BTreeMap::<DateTime<Utc>, usize>::new();
    for at in &events {
        let place = cut.partition_point(|start| start <= at);
        *totals.entry(cut[place - 1]).or_default() += 1;
    }
    let buckets = Calendar::new(bucket, calendar.zone());
    for held in buckets.slices(slice.start(), slice.end()) {
        let before = |instant| events.partition_point(|at| *at < instant);
        let expected = before(held.end()) - before(held.start());
        assert_eq!(totals.remove(&held.start()).unwrap_or(0), expected, "{}", case());
    }
    assert!(totals.is_empty(), "{}: {totals:?}", case());
}

/// One of several changes of a zone that differ only in the date is enough.
#[test]
fn slices_tile_time_around_the_changes_of_every_zone() {
    for (changes, &zone) in &*CHANGES {
        let kind = |&(t, before, after): &(i64, i64, i64)| {
            let local = t + before;
            ((before, after, local.rem_euclid(DAY), local.div_euclid(DAY).rem_euclid(7)), t)
        };
        for t in changes.iter().map(kind).collect::<BTreeMap<_, _>>().into_values() {
            for width in WIDTHS {
                let calendar = calendar(width, zone);
                let before = calendar.containing(at(t - 1));
                assert_tiles(&calendar, before);
                assert_tiles(&calendar, calendar.next(before));
            }
            let day = calendar("1 day", zone);
            for slice in [day.containing(at(t - 1)), day.containing(at(t))] {
                assert_bucket_totals(&day, slice, Width::HOUR);
            }
        }
    }
}

/// The calendar's windows allow for one change of offset (`wall.rs`).
#[test]
fn no_zone_changes_its_offset_twice_within_five_days() {
    for (changes, zone) in &*CHANGES {
        for pair in changes.windows(2) {
            assert!(pair[1].0 - pair[0].0 > 5 * DAY, "{zone} {pair:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn slices_tile_time_and_consist_of_whole_buckets(
        zone in prop::sample::select(&TZ_VARIANTS[..]),
        t in YEAR_1970..YEAR_2040,
        nanoseconds in 0..1_000_000_000_u32,
        slice in prop::sample::select(&WIDTHS[..]),
        bucket in prop::sample::select(&WIDTHS[1..]),
    ) {
        let t = DateTime::from_timestamp(t, nanoseconds).unwrap();
        let calendar = calendar(slice, zone);
        let slice = calendar.containing(t);
        prop_assert!(slice.contains(t));
        assert_tiles(&calendar, slice);

        let bucket: Width = bucket.parse().unwrap();
        if bucket.divides(calendar.width()) {
            assert_bucket_totals(&calendar, slice, bucket);
            let cut = boundaries(bucket, zone, slice.start(), slice.end());
            prop_assert_eq!(cut[0], slice.start());
            prop_assert!(cut.is_sorted_by(|a, b| a < b));
            prop_assert!(cut[cut.len() - 1] < slice.end());
            let buckets = Calendar::new(bucket, zone);
            let starts = buckets.slices(slice.start(), slice.end()).map(|slice| slice.start());
            prop_assert_eq!(
                cut.iter().copied().collect::<BTreeSet<_>>(),
                starts.collect::<BTreeSet<_>>()
            );
            prop_assert!(buckets.starting(slice.end()).is_ok());
        }
    }
}
