//! The definition file as a whole: what a good one means, and what is said of bad ones.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;

use super::{Config, ConfigError};
use crate::rollup::{Aggregate, EpochUnit, Measure, TableName, TimeColumn};

/// Every error below is this file with one piece replaced, so its lines can be counted here.
const GOOD: &str = r#"[source]
url = { env = "SOURCE_DATABASE_URL" }
chunk_time = "250ms"

[target]
url = { env = "TARGET_DATABASE_URL" }
schema = "numbers"

[checkpoint]
table = "tallymark-test"
failures_max = 3

[[rollup]]
name = "entity_daily"
from = 'public."Order.Items"'
time = { column = "created_at", zone = "Europe/Berlin" }
start = "2025-01-01"
slice = "1 day"
bucket = "1 hour"
timezone = "UTC"
grace = "10 minutes"
lookback = 2
late = "grace"
where = "kind <> 'test'"
group_by = ["entity_id", "kind"]
shrink_guard = 0.25
seal_before = "2025-02-01"

[rollup.measures]
revenue = { sum = "amount" }
events = "count"
users = { distinct = "user_id" }
buys = { count = true, where = "kind = 'purchase'" }
price = { avg = "amount" }

[[rollup]]
name = "hits"
from = "hits"
time = { column = "at_ms", unit = "milliseconds" }
start = 2025-01-01
slice = "1 hour"
measures = { hits = "count", "höchst %" = { max = "ms" }, least = { min = "ms" } }
"#;

fn env(name: &str) -> Option<String> {
    match name {
        "SOURCE_DATABASE_URL" => Some("postgres://app:hunter2@db.example.com/shop".to_owned()),
        "TARGET_DATABASE_URL" => Some("postgresql://tally@localhost:5433/stats".to_owned()),
        "EMPTY" => Some(String::new()),
        "OTHER" => Some("mysql://app:hunter2@db.example.com/shop".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("tallymark.toml"), text, &env)
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

#[test]
fn a_good_file_is_read_completely() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.path, Path::new("tallymark.toml"));
    assert_eq!(config.source.url.expose(), "postgres://app:hunter2@db.example.com/shop");
    assert_eq!(config.source.chunk_time, Duration::from_millis(250));
    assert!(config.target.url.unwrap().is_loopback());
    assert_eq!(config.target.schema, "numbers");
    assert_eq!(config.checkpoint.table, "tallymark-test");
    assert_eq!(config.checkpoint.failures_max, 3);

    let [daily, hits] = &config.rollups[..] else { panic!("two rollups") };
    assert_eq!(daily.name, "entity_daily");
    let items = TableName { schema: Some("public".into()), name: "Order.Items".into() };
    assert_eq!(daily.from, items);
    let created_at =
        TimeColumn { column: "created_at".into(), zone: Some(Tz::Europe__Berlin), unit: None };
    assert_eq!(daily.time, created_at);
    assert_eq!(daily.start, utc("2025-01-01T00:00:00Z"));
    assert_eq!(daily.calendar.width().to_string(), "1 day");
    assert_eq!(daily.bucket, "1 hour".parse().unwrap());
    assert_eq!(daily.grace, Duration::from_secs(600));
    assert_eq!(daily.lookback, 2);
    assert_eq!(daily.filter.as_deref(), Some("kind <> 'test'"));
    assert_eq!(daily.group_by, ["entity_id", "kind"]);
    assert!((daily.shrink_guard - 0.25).abs() < f64::EPSILON);
    assert_eq!(daily.seal_before, Some(utc("2025-02-01T00:00:00Z")));

    assert_eq!(hits.start, utc("2025-01-01T00:00:00Z"));
    assert_eq!(hits.time.unit, Some(EpochUnit::Milliseconds));
    assert_eq!(hits.from, TableName { schema: None, name: "hits".into() });
}

#[test]
fn measures_keep_the_order_of_the_file() {
    let config = parse(GOOD).unwrap();
    let measure = |name: &str, aggregate, filter: Option<&str>| Measure {
        name: name.to_owned(),
        aggregate,
        filter: filter.map(str::to_owned),
    };
    let amount = || "amount".to_owned();
    assert_eq!(
        config.rollups[0].measures,
        [
            measure("revenue", Aggregate::Sum(amount()), None),
            measure("events", Aggregate::Count, None),
            measure("users", Aggregate::Distinct("user_id".into()), None),
            measure("buys", Aggregate::Count, Some("kind = 'purchase'")),
            measure("price", Aggregate::Avg(amount()), None),
        ]
    );
    let names: Vec<_> = config.rollups[1].measures.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["hits", "höchst %", "least"]);
}

#[test]
fn what_may_be_left_out_has_the_documented_default() {
    let config = parse(
        r#"
        source.url = "postgres://app@db/shop"
        [[rollup]]
        name = "r"
        from = "events"
        time = "created_at"
        start = "2025-01-01"
        slice = "1 day"
        measures.events = "count"
        "#,
    )
    .unwrap();
    assert_eq!(config.source.chunk_time, Duration::from_millis(500));
    assert_eq!(config.target.url, None);
    assert_eq!(config.target.schema, "stats");
    assert_eq!(config.checkpoint.table, "tallymark");
    assert_eq!(config.checkpoint.failures_max, 5);
    let rollup = &config.rollups[0];
    assert_eq!(rollup.bucket, rollup.calendar.width());
    assert_eq!(rollup.calendar.zone(), Tz::UTC);
    assert_eq!(rollup.grace, Duration::from_secs(120));
    assert_eq!(rollup.lookback, 0);
    assert_eq!(rollup.filter, None);
    assert!(rollup.group_by.is_empty());
    assert!((rollup.shrink_guard - 0.5).abs() < f64::EPSILON);
    assert_eq!(rollup.seal_before, None);
}

#[test]
fn an_unknown_rollup_is_answered_with_those_there_are() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.rollup("hits").unwrap().name, "hits");
    assert_eq!(
        config.rollup("entity_dialy").unwrap_err().to_string(),
        "no rollup `entity_dialy`; did you mean `entity_daily`? \
         the rollups are `entity_daily`, `hits`"
    );
    assert_eq!(
        config.rollup("x").unwrap_err().to_string(),
        "no rollup `x`; the rollups are `entity_daily`, `hits`"
    );
}

#[test]
fn a_missing_file_is_answered_with_how_to_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tallymark.toml");
    assert_eq!(
        Config::load(&path, &env).unwrap_err().to_string(),
        format!(
            "{}: there is no such file; give its place with --config PATH, write one as the \
             README shows, or try `tallymark demo`, which needs none",
            path.display()
        )
    );
    std::fs::write(&path, b"[source]\nurl = \"\xff\"\n").unwrap();
    assert_eq!(
        Config::load(&path, &env).unwrap_err().to_string(),
        format!("{}:2: is not UTF-8 text; save it as UTF-8", path.display())
    );
    std::fs::write(&path, GOOD).unwrap();
    assert_eq!(Config::load(&path, &env).unwrap().path, path);
}

/// Replaces `piece` of the good file.
fn with(piece: &str, by: &str) -> String {
    assert_eq!(GOOD.matches(piece).count(), 1, "{piece} occurs once");
    GOOD.replace(piece, by)
}

/// A piece of the good file, what it is replaced with, and the whole error.
type Case = (&'static str, &'static str, &'static str);

fn holds(cases: &[Case]) {
    let mut faults = Vec::new();
    for (piece, by, expected) in cases {
        let found = match parse(&with(piece, by)) {
            Ok(_) => "no error".to_owned(),
            Err(error) => error.to_string().replace("tallymark.toml:", ":"),
        };
        if found != *expected {
            faults.push(format!("({piece:?}, {by:?},\nr##\"{found}\"##),"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn mistakes_in_source_are_told_with_line_key_and_remedy() {
    holds(SOURCE);
}

#[test]
fn mistakes_in_target_and_checkpoint_are_told_with_line_key_and_remedy() {
    holds(TARGET);
}

#[test]
fn mistakes_in_a_rollup_are_told_with_line_key_and_remedy() {
    holds(ROLLUP);
}

#[test]
fn mistakes_in_measures_are_told_with_line_key_and_remedy() {
    holds(MEASURES);
}

#[test]
fn mistakes_in_toml_are_told_with_their_lines() {
    holds(SYNTAX);
}
const SOURCE: &[Case] = &[
    ("[source]", "[sauce]", ""),
    ("chunk_time", "chunktime", ""),
    ("chunk_time = \"250ms\"", "slots = 2\nmax_load = { active = 40 }\nwindow = \"x\"", ""),
    ("\"250ms\"", "250", ""),
    ("\"250ms\"", "\"quick\"", ""),
    ("\"250ms\"", "\"2 minutes\"", ""),
    ("\"250ms\"", "\"9 ms\"", ""),
    ("url = { env = \"SOURCE_DATABASE_URL\" }\n", "", ""),
    ("{ env = \"SOURCE_DATABASE_URL\" }", "{ env = \"SOURCE_URL\" }", ""),
    ("{ env = \"SOURCE_DATABASE_URL\" }", "{ env = \"EMPTY\" }", ""),
    ("{ env = \"SOURCE_DATABASE_URL\" }", "{ env = \"OTHER\" }", ""),
    ("{ env = \"SOURCE_DATABASE_URL\" }", "{ env = \"postgres://app:hunter2@db/x\" }", ""),
    ("{ env = \"SOURCE_DATABASE_URL\" }", "{ env = \"1 X\" }", ""),
    ("{ env = \"SOURCE_DATABASE_URL\" }", "{ en = \"SOURCE_DATABASE_URL\" }", ""),
    ("{ env = \"SOURCE_DATABASE_URL\" }", "{ parameter = \"/app/db\" }", ""),
    (
        "{ env = \"SOURCE_DATABASE_URL\" }",
        "{ secret = \"arn\", env = \"SOURCE_DATABASE_URL\" }",
        "",
    ),
    ("{ env = \"SOURCE_DATABASE_URL\" }", "{}", ""),
    ("{ env = \"SOURCE_DATABASE_URL\" }", "5", ""),
    ("{ env = \"SOURCE_DATABASE_URL\" }", "\"app:hunter2@db\"", ""),
    ("{ env = \"SOURCE_DATABASE_URL\" }", "\"postgres://app:hun/ter2@db/x\"", ""),
];
const TARGET: &[Case] = &[
    ("[target]", "[[target]]", ""),
    ("\"numbers\"", "\"tallymark\"", ""),
    ("\"numbers\"", "\"pg_stats\"", ""),
    ("\"numbers\"", "\"\"", ""),
    ("\"numbers\"", "1.5", ""),
    ("\"numbers\"", "\"a23456789012345678901234567890123456789012345678901234567890123x\"", ""),
    ("schema", "shema", ""),
    ("failures_max = 3", "failures_max = 0", ""),
    ("failures_max = 3", "failures_max = \"3\"", ""),
    ("failures_max = 3", "failures_max = 99999999999999999999", ""),
    ("failures_max = 3", "colour = 3", ""),
    ("\"tallymark-test\"", "\"t!\"", ""),
];
const ROLLUP: &[Case] = &[
    ("name = \"hits\"", "name = \"Hits\"", ""),
    ("name = \"hits\"\n", "", ""),
    ("name = \"hits\"", "name = \"entity_daily\"", ""),
    ("name = \"hits\"", "name = \"a234567890123456789012345678901234567890123456789\"", ""),
    ("from = \"hits\"", "from = \"a.b.c\"", ""),
    ("from = \"hits\"", "from = \"a.\"", ""),
    ("from = \"hits\"", "from = ['a']", ""),
    ("from = \"hits\"", "form = \"hits\"", ""),
    ("\"at_ms\", unit", "\"at_ms\", zone = \"UTC\", unit", ""),
    ("\"milliseconds\"", "\"ms\"", ""),
    ("\"Europe/Berlin\"", "\"Europe/Berlni\"", ""),
    ("timezone = \"UTC\"", "timezone = \"berlin\"", ""),
    ("timezone = \"UTC\"", "timezone = \"Mars/Olympus_Mons\"", ""),
    ("time = { column = \"at_ms\", unit = \"milliseconds\" }", "time = { unit = \"seconds\" }", ""),
    ("time = { column = \"at_ms\", unit = \"milliseconds\" }", "time = 5", ""),
    ("start = \"2025-01-01\"", "start = \"January\"", ""),
    ("start = \"2025-01-01\"", "start = \"2025-01-01T12:30:00Z\"", ""),
    ("start = 2025-01-01", "start = 2025-01-01T00:30:00Z", ""),
    ("start = 2025-01-01", "start = 2025", ""),
    ("start = 2025-01-01\n", "", ""),
    ("slice = \"1 hour\"", "slice = \"1 fortnight\"", ""),
    ("slice = \"1 hour\"\n", "", ""),
    ("bucket = \"1 hour\"", "bucket = \"7 hours\"", ""),
    ("slice = \"1 hour\"", "slice = \"1 hour\"\nbucket = \"1 day\"", ""),
    ("slice = \"1 day\"\nbucket = \"1 hour\"", "slice = \"1 month\"\nbucket = \"10 minutes\"", ""),
    ("\"10 minutes\"", "\"10 fortnights\"", ""),
    ("\"10 minutes\"", "\"400 days\"", ""),
    ("lookback = 2", "lookback = 367", ""),
    ("lookback = 2", "lookback = -1", ""),
    ("late = \"grace\"", "late = \"capture\"", ""),
    ("late = \"grace\"", "late = \"never\"", ""),
    ("\"kind <> 'test'\"", "\"true) OR (true\"", ""),
    ("\"kind <> 'test'\"", "\" \"", ""),
    ("[\"entity_id\", \"kind\"]", "[\"kind\", \"kind\"]", ""),
    ("[\"entity_id\", \"kind\"]", "[\"bucket\", 5, \"\"]", ""),
    ("[\"entity_id\", \"kind\"]", "\"kind\"", ""),
    ("shrink_guard = 0.25", "shrink_guard = 50", ""),
    ("shrink_guard = 0.25", "shrink_guard = nan", ""),
    ("\"2025-02-01\"", "\"soon\"", ""),
];
const MEASURES: &[Case] = &[
    ("events = \"count\"", "events = \"sum\"", ""),
    ("events = \"count\"", "events = \"conut\"", ""),
    ("events = \"count\"", "events = \"average\"", ""),
    ("events = \"count\"", "events = \"median\"", ""),
    ("events = \"count\"", "events = 5", ""),
    ("events = \"count\"", "events = {}", ""),
    ("events = \"count\"", "events = { sum = \"a\", max = \"b\" }", ""),
    ("events = \"count\"", "events = { summ = \"a\" }", ""),
    ("events = \"count\"", "events = { count = \"a\" }", ""),
    ("events = \"count\"", "events = { sum = true }", ""),
    ("events = \"count\"", "events = { count = true, where = \"a;\" }", ""),
    ("events = \"count\"", "kind = \"count\"", ""),
    ("events = \"count\"", "bucket = \"count\"", ""),
    ("events = \"count\"", "xmin = \"count\"", ""),
    ("events = \"count\"", "price_sum = \"count\"", ""),
    ("events = \"count\"", "\"\" = \"count\"", ""),
    ("events = \"count\"", "\"a\\u0000\" = \"count\"", ""),
    ("events = \"count\"", "a234567890123456789012345678901234567890123456789 = \"count\"", ""),
    (
        "measures = { hits = \"count\", \"höchst %\" = { max = \"ms\" }, least = { min = \"ms\" } }",
        "measures = {}",
        "",
    ),
    (
        "measures = { hits = \"count\", \"höchst %\" = { max = \"ms\" }, least = { min = \"ms\" } }",
        "",
        "",
    ),
    ("\"höchst %\" = { max = \"ms\" }", "\"höchst %\" = { max = \"\" }", ""),
];
const SYNTAX: &[Case] = &[
    ("[source]", "[source", ""),
    ("\"numbers\"", "\"numbers", ""),
    ("\"numbers\"", "numbers", ""),
    ("failures_max = 3", "failures_max = 3\nfailures_max = 4", ""),
    ("lookback = 2", "lookback =", ""),
];
