//! The definition file as a whole: the meaning of a good one, and the errors of bad ones.

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use proptest::prelude::*;

use super::{Config, ConfigError, NiceRatio, ScrubSettings, StoreKind};

use crate::model::hint::Hinted;
use crate::model::measure::{self, KINDS, Measure};
use crate::model::operand::Operand;
use crate::model::rollup::{BucketType, EpochUnit, TableName, TimeColumn};

mod cases;
mod compose;
mod environment;
mod mirror;
mod schema;

/// Every error below is for this file with one piece replaced, so that its lines can be counted
/// here.
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

[scrub]
slices_per_day = 20
repair = true
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
    assert_eq!(
        config.source.url.known().unwrap().expose(),
        "postgres://app:hunter2@db.example.com/shop"
    );
    assert_eq!(config.source.chunk_time, Duration::from_millis(250));
    assert!(config.target.url.unwrap().known().unwrap().is_loopback());
    assert_eq!(config.target.schema, "numbers");
    assert_eq!(config.checkpoint.store, StoreKind::DynamoDb);
    assert_eq!(config.checkpoint.table, "tallymark-test");
    assert_eq!(config.checkpoint.failures_max, 3);
    assert_eq!(config.scrub, Some(ScrubSettings { slices_per_day: 20, repair: true }));

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
    assert_eq!(daily.lookback, [1, 2]);
    assert_eq!(daily.filter.as_deref(), Some("kind <> 'test'"));
    let names: Vec<_> = daily.group_by.iter().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["entity_id", "kind"]);
    assert!((daily.shrink_guard - 0.25).abs() < f64::EPSILON);
    assert_eq!(daily.seal_before, Some(utc("2025-02-01T00:00:00Z")));

    assert_eq!(hits.start, utc("2025-01-01T00:00:00Z"));
    assert_eq!(hits.time.unit, Some(EpochUnit::Milliseconds));
    assert_eq!(hits.from, TableName { schema: None, name: "hits".into() });
}

#[test]
fn measures_keep_the_order_of_the_file() {
    let config = parse(GOOD).unwrap();
    let measure = |name: &str, word: &str, column: Option<&str>, filter: Option<&str>| Measure {
        name: name.to_owned(),
        kind: measure::kind(word).unwrap(),
        column: column.map(Operand::column),
        parameters: serde_json::Map::new(),
        filter: filter.map(str::to_owned),
    };
    assert_eq!(
        config.rollups[0].measures,
        [
            measure("revenue", "sum", Some("amount"), None),
            measure("events", "count", None, None),
            measure("users", "distinct", Some("user_id"), None),
            measure("buys", "count", None, Some("kind = 'purchase'")),
            measure("price", "avg", Some("amount"), None),
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
    assert_eq!(config.source.governor.nice_ratio, NiceRatio::Auto);
    assert!(config.source.governor.nice_min.abs() < f64::EPSILON);
    assert_eq!(config.target.url, None);
    assert_eq!(config.target.schema, "stats");
    assert_eq!(config.checkpoint.store, StoreKind::DynamoDb);
    assert_eq!(config.checkpoint.table, "tallymark");
    assert_eq!(config.checkpoint.failures_max, 5);
    let rollup = &config.rollups[0];
    assert_eq!(rollup.bucket, rollup.calendar.width());
    assert_eq!(rollup.calendar.zone(), Tz::UTC);
    assert_eq!((rollup.bucket_as, rollup.trailing), (BucketType::Instant, None));
    assert!(!rollup.open && !rollup.live);
    assert_eq!(rollup.grace, Duration::from_secs(120));
    assert_eq!((&rollup.filter, rollup.lookback.len()), (&None, 0));
    assert!(rollup.expect.weekdays && rollup.expect.limits.is_empty());
    assert!(rollup.group_by.is_empty());
    assert!((rollup.shrink_guard - 0.5).abs() < f64::EPSILON);
    assert_eq!((rollup.seal_before, rollup.keep, rollup.partition_by), (None, None, None));
}

/// Checkpoints keep the hash: another one would make every slice run again.
#[test]
fn a_definition_without_expressions_keeps_its_hash_and_one_with_them_has_another() {
    let definition = |key: &str, amount: &str| {
        let text = format!(
            "source.url = \"postgres://app@db/shop\"\n[[rollup]]\nname = \"r\"\nfrom = \"events\"\n\
             time = \"created_at\"\nstart = \"2025-01-01\"\nslice = \"1 day\"\ngroup_by = [{key}]\n\
             [rollup.measures]\nevents = \"count\"\ngross = {{ sum = {amount} }}\n"
        );
        parse(&text).unwrap().rollups[0].definition()
    };
    let plain = definition("\"kind\"", "\"amount\"");
    assert_eq!(plain, "77305ff17b719799");
    let others = [
        definition("{ kind = \"kind\" }", "\"amount\""),
        definition("{ kind = \"lower(kind)\" }", "\"amount\""),
        definition("\"kind\"", "{ sql = \"amount\" }"),
        definition("\"kind\"", "{ sql = \"amount * 2\" }"),
    ];
    let all: std::collections::HashSet<_> = others.iter().chain([&plain]).collect();
    assert_eq!(all.len(), 5);
    assert!(others.iter().all(|other| other[..8] == plain[..8]), "the rows are the same");
}

#[test]
fn an_unknown_rollup_is_answered_with_those_there_are() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.rollup("hits").unwrap().name, "hits");
    assert_eq!(
        config.rollup("entity_dialy").unwrap_err().in_one_line(),
        "no rollup `entity_dialy`; hint: did you mean `entity_daily`? \
         the rollups are `entity_daily`, `hits`"
    );
    assert_eq!(
        config.rollup("x").unwrap_err().in_one_line(),
        "no rollup `x`; hint: the rollups are `entity_daily`, `hits`"
    );
}

#[test]
fn a_missing_file_is_answered_with_how_to_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tallymark.toml");
    assert_eq!(
        whole(&Config::load(&path, &env).unwrap_err()),
        format!(
            "{}: there is no such file; give its place with --config PATH, let `tallymark new` \
             write one, or try `tallymark demo`, which needs none",
            path.display()
        )
    );
    std::fs::write(&path, b"[source]\nurl = \"\xff\"\n").unwrap();
    assert_eq!(
        whole(&Config::load(&path, &env).unwrap_err()),
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

/// Asserts that each case's file is refused with exactly its error.
fn holds(cases: &[cases::Case]) {
    holds_of(GOOD, cases);
}

/// All problems, each with its hint, which its text must not contain.
fn whole(error: &ConfigError) -> String {
    let text = error.to_string();
    let lines = text.split('\n').zip(error.problems()).map(|(line, problem)| match &problem.hint {
        Some(hint) => {
            assert!(!line.contains(hint), "{line}");
            format!("{line}; {hint}")
        }
        None => line.to_owned(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// As [`holds`], with another good file. `{kinds}` is replaced by the words of all kinds of
/// measures.
fn holds_of(good: &str, cases: &[cases::Case]) {
    let kinds: Vec<_> = KINDS.iter().map(|kind| format!("`{}`", kind.word())).collect();
    let mut faults = Vec::new();
    for (piece, by, expected) in cases {
        let expected = expected.replace("{kinds}", &kinds.join(", "));
        assert_eq!(good.matches(piece).count(), 1, "{piece} occurs once");
        let found = match parse(&good.replace(piece, by)) {
            Ok(_) => "no error".to_owned(),
            Err(error) => whole(&error),
        };
        if found != expected {
            faults.push(format!("{piece:?} replaced by {by:?}:\n{found}\ninstead of:\n{expected}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn mistakes_in_source_are_told_with_line_key_and_remedy() {
    holds(cases::SOURCE);
}

#[test]
fn mistakes_in_target_and_checkpoint_are_told_with_line_key_and_remedy() {
    holds(cases::TARGET);
}

#[test]
fn mistakes_in_scrub_and_notify_are_told_with_line_key_and_remedy() {
    holds(cases::SCRUB);
    holds(cases::NOTIFY);
}

#[test]
fn mistakes_in_a_rollup_are_told_with_line_key_and_remedy() {
    holds(&[cases::ROLLUP, cases::CUT].concat());
}

#[test]
fn mistakes_in_measures_are_told_with_line_key_and_remedy() {
    holds(cases::MEASURES);
}

/// PostgreSQL's GROUPING, which identifies a chunk's rows, takes 31 columns.
#[test]
fn more_columns_to_count_by_distinct_than_grouping_takes_are_refused() {
    let counted = |columns: u32| {
        let line = |n: u32| format!("m{n} = {{ distinct = \"c{n}\" }}\n");
        let lines: String = (2..=columns).map(line).collect();
        parse(&with("users = {", &format!("{lines}kinds = {{ distinct = \"kind\" }}\nusers = {{")))
    };
    assert!(counted(31).is_ok());
    let error = counted(32).unwrap_err().to_string();
    assert!(error.contains("rollup.entity_daily.measures: `distinct` counts"), "{error}");
    assert!(error.contains("32 columns; 31 is the most"), "{error}");
}

#[test]
fn mistakes_in_toml_are_told_with_their_lines() {
    holds(cases::SYNTAX);
}

#[test]
fn all_mistakes_of_a_file_are_told_in_the_order_of_its_lines() {
    let text = GOOD
        .replace("\"250ms\"", "\"quick\"")
        .replace("\"numbers\"", "\"pg_x\"")
        .replace("name = \"hits\"", "name = \"Hits\"")
        .replace("lookback = 2", "lookback = 1000")
        .replace("\"UTC\"", "\"UCT+1\"")
        .replace("{ sum = \"amount\" }", "\"sum\"");
    let error = parse(&text).unwrap_err();
    let told: Vec<_> =
        error.problems().iter().map(|p| (p.line.unwrap_or(0), p.key.as_str())).collect();
    assert_eq!(
        told,
        [
            (3, "source.chunk_time"),
            (7, "target.schema"),
            (20, "rollup.entity_daily.timezone"),
            (22, "rollup.entity_daily.lookback"),
            (30, "rollup.entity_daily.measures.revenue"),
            (37, "rollup[1].name"),
        ]
    );
}

#[test]
fn an_empty_file_is_answered_with_what_it_needs() {
    assert_eq!(
        whole(&parse("").unwrap_err()),
        "tallymark.toml: source: missing; add [source] with \
         url = { env = \"SOURCE_DATABASE_URL\" }\n\
         tallymark.toml: rollup: missing; add at least one [[rollup]], as the README shows"
    );
}

/// Puts an address in the place of every text and key, and searches the errors for its password.
#[test]
fn a_password_is_never_shown_wherever_it_was_pasted() {
    for secret in [
        "postgres://app:hunter2@db.example.com/shop",
        "app:hunter2@db.example.com",
        "host=db password=hunter2",
    ] {
        for (at, _) in GOOD.match_indices('"').step_by(2) {
            let end = at + 1 + GOOD[at + 1..].find('"').unwrap();
            let text = format!("{}\"{secret}\"{}", &GOOD[..at], &GOOD[end + 1..]);
            match parse(&text) {
                // A condition or a column may contain any text. It is no address to hide.
                Ok(config) => {
                    let addresses = (config.source.url, config.target.url);
                    assert!(!format!("{addresses:?}").contains("hunter2"));
                }
                Err(error) => {
                    assert!(!error.in_one_line().contains("hunter2"), "{error}");
                    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
                }
            }
        }
        let text = format!("\"{secret}\" = 1\n{GOOD}");
        assert!(!parse(&text).unwrap_err().in_one_line().contains("hunter2"));
    }
    assert!(!format!("{:?}", parse(GOOD).unwrap()).contains("hunter2"));
}

/// A file is read or refused. An error has at least one line, and each begins with the file's name.
fn survives(text: &str) -> Result<(), TestCaseError> {
    if let Err(error) = parse(text) {
        prop_assert!(!error.problems().is_empty());
        for line in error.to_string().split('\n') {
            prop_assert!(line.starts_with("tallymark.toml:"), "{line:?}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_text_is_read_or_told_about(text in any::<String>()) {
        survives(&text)?;
    }

    #[test]
    fn toml_without_sense_is_read_or_told_about(
        text in "(\\[|\\]|\\{|\\}|=|\"|'|\n|\\.|,|#|rollup|source|measures|name|url|1|-|\\\\| ){0,40}"
    ) {
        survives(&text)?;
    }

    #[test]
    fn a_mutilated_good_file_is_read_or_told_about(
        cuts in prop::collection::vec((0..GOOD.len(), 0..40_usize, "\\PC{0,3}"), 1..4)
    ) {
        let mut bytes = GOOD.as_bytes().to_vec();
        for (at, length, insert) in cuts {
            let at = at.min(bytes.len());
            let end = (at + length).min(bytes.len());
            bytes.splice(at..end, insert.into_bytes());
        }
        survives(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn any_string_as_any_value_is_read_or_told_about(
        place in 0..GOOD.matches('"').count() / 2,
        value in any::<String>(),
    ) {
        let (at, _) = GOOD.match_indices('"').nth(place * 2).unwrap();
        let end = at + 1 + GOOD[at + 1..].find('"').unwrap();
        // TOML's escapes, for every character.
        let escaped: String = value.chars().map(|c| format!("\\U{:08X}", u32::from(c))).collect();
        survives(&format!("{}\"{escaped}\"{}", &GOOD[..at], &GOOD[end + 1..]))?;
    }
}
