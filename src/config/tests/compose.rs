//! Rollups of rollups in the definition file.

use chrono::Weekday;
use chrono_tz::Tz;

use super::{parse, utc};
use crate::model::rollup::Late;

/// Months of days of hours, the coarsest first, as the order of the file is free.
const GOOD: &str = r#"[source]
url = { env = "SOURCE_DATABASE_URL" }

[[rollup]]
name = "monthly"
from = { rollup = "daily" }
slice = "1 month"
measures = ["events", "low", "price"]

[[rollup]]
name = "daily"
from = { rollup = "hourly" }
start = "2025-01-03"
slice = "1 day"
bucket = "2 hours"
group_by = ["kind"]
shrink_guard = 0.25
seal_before = "2025-01-05"

[rollup.measures]
events = { sum = "events" }
low = { min = "low" }
price = { avg = "cost" }
people = { distinct = "user_id" }

[[rollup]]
name = "hourly"
from = "public.events"
time = "created_at"
start = "2025-01-02"
slice = "1 hour"
timezone = "Europe/Berlin"
grace = "10 minutes"
group_by = ["user_id", "kind"]

[rollup.measures]
events = "count"
low = { min = "amount" }
cost = { avg = "amount" }
visits = { distinct = "session_id" }
"#;

#[test]
fn a_coarse_rollup_takes_from_the_finer_one_what_it_does_not_say() {
    let config = parse(GOOD).unwrap();
    let [monthly, daily, hourly] = &config.rollups[..] else { panic!("three rollups") };
    assert_eq!(daily.from.to_string(), "stats.hourly");
    assert_eq!(daily.time.column, "bucket");
    assert_eq!(daily.calendar.zone(), Tz::Europe__Berlin);
    assert!(daily.grace.is_zero() && daily.lookback.is_empty() && daily.late == Late::Grace);
    assert_eq!(daily.start, utc("2025-01-02T23:00:00Z"));
    assert_eq!(daily.seal_before, Some(utc("2025-01-04T23:00:00Z")));
    assert_eq!(monthly.start, utc("2025-01-31T23:00:00Z"), "the first month that is whole");
    assert!(monthly.is_computed_from(daily) && !monthly.is_computed_from(hourly));
    assert_eq!([monthly, daily, hourly].map(|rollup| rollup.depth()), [2, 1, 0]);
    let computed: Vec<_> =
        monthly.measures.iter().map(|it| (it.kind.word(), it.column_name())).collect();
    assert_eq!(computed, [("sum", "events"), ("min", "low"), ("avg", "price")]);
    let people = &daily.measures[3];
    assert_eq!((people.kind.word(), people.column_name()), ("distinct", "user_id"));
}

#[test]
fn a_set_merges_with_a_limit_of_its_own_or_that_of_the_finer_rollup() {
    let kept = GOOD.replace(
        "visits = { distinct = \"session_id\" }",
        "visits = { distinct = \"session_id\", merge = \"exact\", members_max = 7 }",
    );
    let limit = |own: &str| {
        let text = kept.replace("people = { distinct = \"user_id\" }", own);
        let daily = parse(&text).unwrap().rollups.swap_remove(1);
        daily.measures[3].parameters["members_max"].clone()
    };
    assert_eq!(limit("people = { distinct = \"visits\", merge = \"exact\" }"), 7);
    assert_eq!(limit("people = { distinct = \"visits\", merge = \"exact\", members_max = 9 }"), 9);
}

#[test]
fn a_first_or_last_value_merges_by_what_ordered_it() {
    let kept = GOOD.replace(
        "visits = { distinct = \"session_id\" }",
        "status = { last = \"status\", by = { sql = \"seen + 1\" } }",
    );
    let daily = |own: &str| {
        let text = kept.replace("people = { distinct = \"user_id\" }", own);
        parse(&text).map(|mut config| config.rollups.swap_remove(1))
    };
    let same = daily("status = { last = \"status\", by = { sql = \"seen + 1\" } }").unwrap();
    assert!(same.expressions().is_empty(), "the hours have its values");
    let other = daily("status = { last = \"status\", by = \"seen\" }").unwrap_err();
    assert!(other.to_string().contains("`last` does not merge \"status\""), "{other}");
    let remedy = "write { last = \"status\", by = { sql = \"seen + 1\" } }";
    assert_eq!(other.problems()[0].hint.as_deref(), Some(remedy));
}

#[test]
fn weeks_begin_where_those_of_the_finer_rollup_do() {
    let weeks = |finer: &str, coarse: &str| {
        let text = format!(
            "source.url = 'postgres://app@db/shop'\n[[rollup]]\nname = 'finer'\nfrom = 'events'\n\
             time = 'at'\nmeasures.n = 'count'\n{finer}\n[[rollup]]\nname = 'weeks'\n\
             from = {{ rollup = 'finer' }}\nmeasures = ['n']\n{coarse}\n"
        );
        parse(&text).unwrap().rollups[1].calendar.width().week_start()
    };
    let days = "start = '2025-01-01'\nslice = '1 day'";
    let sundays = "start = '2025-01-05'\nslice = '1 week'\nweek_start = 'sunday'";
    assert_eq!(weeks(days, "slice = '1 week'"), Some(Weekday::Mon));
    assert_eq!(weeks(days, "slice = '1 week'\nweek_start = 'saturday'"), Some(Weekday::Sat));
    assert_eq!(weeks(sundays, "slice = '1 week'"), Some(Weekday::Sun));
}

#[test]
fn what_changes_the_numbers_of_a_finer_rollup_makes_coarse_ones_other_definitions() {
    let definitions = |text: &str| {
        let config = parse(text).unwrap();
        config.rollups.iter().map(|rollup| rollup.definition()).collect::<Vec<_>>()
    };
    let before = definitions(GOOD);
    let other = definitions(&GOOD.replace("\"created_at\"", "\"updated_at\""));
    assert!(before.iter().zip(&other).all(|(before, other)| before != other));
    assert_eq!(definitions(&GOOD.replace("10 minutes", "20 minutes")), before);
}

/// A piece of the good file, what it is replaced with, and the error.
const CASES: &[super::cases::Case] = &[
    (
        "{ rollup = \"hourly\" }",
        "{ rollup = \"hourl\" }",
        r#"tallymark.toml:12: rollup.daily.from.rollup: "hourl" is no rollup of this file; did you mean `hourly`?"#,
    ),
    (
        "{ rollup = \"hourly\" }",
        "{ rollup = \"x\" }",
        r#"tallymark.toml:12: rollup.daily.from.rollup: "x" is no rollup of this file; the rollups are `monthly`, `daily`, `hourly`"#,
    ),
    (
        "{ rollup = \"hourly\" }",
        "{ rollup = \"daily\" }",
        r#"tallymark.toml:6: rollup.monthly.from.rollup: leads round in a circle and never to a table; let one of the rollups on it read one: from = "public.events"
tallymark.toml:12: rollup.daily.from.rollup: is this rollup itself; name a finer one, or read a table: from = "public.events""#,
    ),
    (
        "{ rollup = \"hourly\" }",
        "{ rollup = \"monthly\" }",
        r#"tallymark.toml:6: rollup.monthly.from.rollup: leads round in a circle and never to a table; let one of the rollups on it read one: from = "public.events"
tallymark.toml:12: rollup.daily.from.rollup: leads round in a circle and never to a table; let one of the rollups on it read one: from = "public.events""#,
    ),
    (
        "{ rollup = \"hourly\" }",
        "{ rolup = \"hourly\" }",
        r#"tallymark.toml:12: rollup.daily.from.rolup: unknown key; did you mean `rollup`?"#,
    ),
    (
        "{ rollup = \"hourly\" }",
        "{ rollup = 5 }",
        r#"tallymark.toml:12: rollup.daily.from.rollup: expected the name of another rollup such as "entity_hourly", found an integer"#,
    ),
    (
        "{ rollup = \"hourly\" }",
        "{}",
        r#"tallymark.toml:12: rollup.daily.from.rollup: missing; write from = { rollup = "entity_hourly" }"#,
    ),
    (
        "bucket = \"2 hours\"",
        "time = \"at\"\nlate = \"capture\"\ngrace = \"1 hour\"\nlookback = 2\nwhere = \"true\"",
        r#"tallymark.toml:15: rollup.daily.time: a row of a rollup stands in its bucket's time; remove the key
tallymark.toml:16: rollup.daily.late: the finer rollup notices late changes, and passes them on; remove the key
tallymark.toml:17: rollup.daily.grace: a slice is due when all finer ones in it are done, which have waited; remove the key
tallymark.toml:18: rollup.daily.lookback: a slice runs again whenever a finer one in it changed; remove the key
tallymark.toml:19: rollup.daily.where: which source rows count is decided by the finer rollup; put the condition there"#,
    ),
    (
        "bucket = \"2 hours\"",
        "timezone = \"UTC\"",
        r#"tallymark.toml:15: rollup.daily.timezone: the buckets of `hourly` follow Europe/Berlin, and need not fill those of UTC; remove the key, or compute this rollup from the source"#,
    ),
    (
        "slice = \"1 day\"\nbucket = \"2 hours\"",
        "slice = \"30 minutes\"",
        r#"tallymark.toml:14: rollup.daily.slice: "30 minutes" does not consist of whole slices of `hourly`, of "1 hour"; use a wider one"#,
    ),
    (
        "slice = \"1 hour\"",
        "slice = \"6 hours\"",
        r#"tallymark.toml:15: rollup.daily.bucket: "2 hours" does not consist of whole buckets of `hourly`, of "6 hours"; use a wider one"#,
    ),
    (
        "\"2025-01-03\"",
        "\"2025-01-01\"",
        r#"tallymark.toml:13: rollup.daily.start: is before the start of `hourly`, 2025-01-01T23:00:00Z; use a later one, or remove the key"#,
    ),
    (
        "group_by = [\"kind\"]",
        "group_by = [\"kind\", \"shop\"]",
        r#"tallymark.toml:16: rollup.daily.group_by[1]: "shop" is no dimension of `hourly`; use `user_id`, `kind`, or add it there"#,
    ),
    (
        "group_by = [\"kind\"]",
        "group_by = [{ sort = \"lower(kind)\" }]",
        r#"tallymark.toml:16: rollup.daily.group_by[0]: an expression is computed for rows of a table, and `hourly` is none; write the expression in `hourly`, and "sort" here"#,
    ),
    (
        "[\"user_id\", \"kind\"]",
        "[]",
        r#"tallymark.toml:16: rollup.daily.group_by[0]: "kind" is no dimension of `hourly`; leave it out, or add it there
tallymark.toml:24: rollup.daily.measures.people: of `hourly` only the different values of its dimensions can be counted; group it by "user_id", or compute { distinct = "user_id" } from the source in a rollup with this bucket"#,
    ),
    (
        "events = { sum = \"events\" }",
        "events = \"count\"",
        r#"tallymark.toml:21: rollup.daily.measures.events: would count the rows of `hourly`, not those of its source; sum up one of its counts: { sum = "events" }"#,
    ),
    (
        "events = { sum = \"events\" }",
        "events = { sum = \"event\" }",
        r#"tallymark.toml:21: rollup.daily.measures.events: "event" is no measure of `hourly`; did you mean `events`?"#,
    ),
    (
        "events = { sum = \"events\" }",
        "events = { max = \"events\" }",
        r#"tallymark.toml:21: rollup.daily.measures.events: `max` does not merge "events"; write { sum = "events" }"#,
    ),
    (
        "events = { sum = \"events\" }",
        "events = { sum = \"visits\" }",
        r#"tallymark.toml:21: rollup.daily.measures.events: numbers of different values cannot be merged, as a value may occur in several buckets; write merge = "exact" or "approximate" in `hourly`, or group it by "session_id" and write { distinct = "session_id" } here"#,
    ),
    (
        "events = { sum = \"events\" }",
        "events = { distinct = \"visits\" }",
        r#"tallymark.toml:21: rollup.daily.measures.events: numbers of different values cannot be merged, as a value may occur in several buckets; write merge = "exact" or "approximate" in `hourly`, or group it by "session_id" and write { distinct = "session_id" } here"#,
    ),
    (
        "events = { sum = \"events\" }",
        "events = { sum = \"events\", where = \"true\" }",
        r#"tallymark.toml:21: rollup.daily.measures.events.where: rows of `hourly` stand for many rows of its source; give it a measure with this condition"#,
    ),
    (
        "[\"events\", \"low\", \"price\"]",
        "[\"people\", \"price\", \"price\", 5]",
        r#"tallymark.toml:8: rollup.monthly.measures[0]: numbers of different values cannot be merged, as a value may occur in several buckets; write merge = "exact" or "approximate" in `daily`, or group it by "user_id" and write { distinct = "user_id" } here
tallymark.toml:8: rollup.monthly.measures[2]: the column "price" is already taken by another measure; choose another name
tallymark.toml:8: rollup.monthly.measures[2]: the column "price_sum" is already taken by another measure; choose another name
tallymark.toml:8: rollup.monthly.measures[2]: the column "price_count" is already taken by another measure; choose another name
tallymark.toml:8: rollup.monthly.measures[3]: expected the name of a measure such as "events", found an integer"#,
    ),
    (
        "[\"events\", \"low\", \"price\"]",
        "[]",
        r#"tallymark.toml:8: rollup.monthly.measures: is empty; name a measure of the finer rollup, such as "events""#,
    ),
    (
        "measures = [\"events\", \"low\", \"price\"]",
        "",
        r#"tallymark.toml:4: rollup.monthly.measures: missing; name measures of the finer rollup: measures = ["events"]"#,
    ),
    (
        "slice = \"1 month\"",
        "slice = \"1 month\"\ntrailing = \"25 hours\"",
        r#"tallymark.toml:8: rollup.monthly.trailing: "25 hours" does not consist of whole slices of `daily`, of "1 day"; name a multiple of them, in days or months where they are dates"#,
    ),
    (
        "slice = \"1 month\"",
        "slice = \"1 month\"\ntrailing = \"28 dayz\"",
        r#"tallymark.toml:8: rollup.monthly.trailing: `28 dayz` is not a span of time; write a number of hours, days, weeks or months such as `28 days`"#,
    ),
    (
        "slice = \"1 month\"",
        "slice = \"1 month\"\ntrailing = \"0 days\"",
        r#"tallymark.toml:8: rollup.monthly.trailing: `0 days` is out of range; write at least one unit and at most ten years"#,
    ),
    (
        "bucket = \"2 hours\"",
        "bucket = \"2 hours\"\ntrailing = \"2 days\"",
        r#"tallymark.toml:15: rollup.daily.bucket: a window has one bucket, its slice's; remove the key"#,
    ),
    (
        "bucket = \"2 hours\"",
        "trailing = \"2 days\"",
        r#"tallymark.toml:6: rollup.monthly.from: the windows of `daily` overlap, so each row would count several times; compute this rollup from `hourly`"#,
    ),
    (
        "slice = \"1 day\"\nbucket = \"2 hours\"",
        "slice = \"1 hour\"\ntrailing = \"60 days\"",
        r#"tallymark.toml:15: rollup.daily.trailing: each slice of `hourly` would be part of 1440 windows; 1000 is the most; use a wider slice, or a shorter span"#,
    ),
    (
        "slice = \"1 month\"",
        "slice = \"1 month\"\ntrailing = \"28 days\"\nopen = true",
        r#"tallymark.toml:9: rollup.monthly.open: a window ends with its slice, and needs all of its finer slices; remove one of `open` and `trailing`"#,
    ),
    (
        "slice = \"1 month\"",
        "slice = \"1 month\"\nopen = 1",
        r#"tallymark.toml:8: rollup.monthly.open: expected true or false, found an integer"#,
    ),
    (
        "slice = \"1 month\"",
        "slice = \"1 month\"\nlive = true",
        r#"tallymark.toml:8: rollup.monthly.live: a live view reads rows of a table of the source; set `live` on the finer rollup, and `open = true` here for the slice that goes on"#,
    ),
    (
        "slice = \"1 hour\"",
        "slice = \"1 hour\"\nopen = false",
        r#"tallymark.toml:32: rollup.hourly.open: an open slice is the sum of finer slices that are done; compute a finer rollup, and this one from it: from = { rollup = "hourly" }"#,
    ),
    (
        "slice = \"1 hour\"",
        "slice = \"1 hour\"\ntrailing = \"1 day\"",
        r#"tallymark.toml:32: rollup.hourly.trailing: windows overlap, so each row would be read once for each of them; compute a finer rollup, and this one from it: from = { rollup = "daily" }"#,
    ),
];

#[test]
fn a_window_of_another_span_is_another_definition() {
    let definition = |trailing: &str| {
        let text = GOOD.replace("slice = \"1 month\"", &format!("slice = \"1 month\"\n{trailing}"));
        parse(&text).unwrap().rollups[0].definition()
    };
    let [none, days, weeks, months] =
        ["", "trailing = \"28 days\"", "trailing = \"4 weeks\"", "trailing = \"1 month\""]
            .map(definition);
    assert_eq!(days, weeks);
    assert!(none != days && days != months && none != months);
}

/// The example would name a column that the finer rollup lacks.
#[test]
fn a_missing_parameter_of_a_merged_measure_is_told_with_that_of_the_finer_one() {
    let good = GOOD.replace(
        "low = { min = \"amount\" }",
        "low = { min = \"amount\" }\nstate = { last = \"state\", by = \"changed_at\" }",
    );
    let coarse = "people = { distinct = \"user_id\" }";
    let daily = |by: &str| good.replace(coarse, &format!("state = {{ last = \"state\"{by} }}"));
    assert!(parse(&daily(", by = \"changed_at\"")).is_ok());
    let told = super::whole(&parse(&daily("")).unwrap_err());
    assert!(told.contains("measures.state.by: missing; write by = \"changed_at\""), "{told}");
}

#[test]
fn mistakes_in_coarse_rollups_are_told_with_line_key_and_remedy() {
    super::holds_of(GOOD, CASES);
}
