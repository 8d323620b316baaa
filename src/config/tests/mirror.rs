//! A source that is a Bubble app: what its mirrors and their rollups mean, and their mistakes.

use std::path::Path;
use std::time::Duration;

use super::{Config, ConfigError};
use crate::clients::bubble::AppToken;
use crate::model::rollup::Rollup;

/// Every error below is for this file with one piece replaced.
const GOOD: &str = r#"[source]
bubble = { app = "https://app.example.com/", token = { env = "BUBBLE_TOKEN" } }
workload_units_per_month = 20000

[target]
url = { env = "TARGET_DATABASE_URL" }

[[mirror]]
name = "orders"
type = "order"
fields = ["Status", "amount"]
start = "2025-01-01"
slice = "1 day"
timezone = "Europe/Berlin"

[[rollup]]
name = "orders_daily"
from = { mirror = "orders" }
slice = "1 day"
bucket = "1 hour"
where = "amount > 0"
group_by = ["Status"]
measures = { orders = "count", revenue = { sum = "amount" } }
"#;

fn parse(text: &str) -> Result<Config, ConfigError> {
    let env = |name: &str| match name {
        "BUBBLE_TOKEN" => Some("t0ken".to_owned()),
        name => super::env(name),
    };
    Config::parse(Path::new("tallymark.toml"), text, &env)
}

/// Each problem with its hint.
fn told(error: &ConfigError) -> String {
    let told = error.problems().iter().map(|it| {
        let hint = it.hint.as_ref().unwrap_or_else(|| panic!("no hint: {}", it.message));
        format!("{}: {}; {hint}", it.key, it.message)
    });
    told.collect::<Vec<_>>().join("\n")
}

fn definitions(text: &str) -> Vec<String> {
    let config = parse(text).unwrap();
    config.rollups.iter().map(Rollup::definition).collect()
}

#[test]
fn a_mirror_comes_before_its_rollups_and_the_target_holds_both() {
    let config = parse(GOOD).unwrap();
    let app = config.source.app.as_ref().unwrap();
    assert_eq!((&*app.address, &*app.branch), ("https://app.example.com", "live"));
    assert_eq!(app.token, AppToken::Text("t0ken".to_owned()));
    assert!(!format!("{config:?}").contains("t0ken"));
    assert_eq!(Some(&config.source.url), config.target.url.as_ref());
    let [mirror, daily] = &config.rollups[..] else { panic!("two tables") };
    assert_eq!(mirror.mirror.as_ref().unwrap().fields, ["Status", "amount"]);
    assert_eq!(mirror.grace, Duration::from_secs(15 * 60));
    assert!(daily.is_computed_from(mirror) && daily.mirror.is_none());
    assert_eq!((daily.start, daily.calendar), (mirror.start, mirror.calendar));
    assert_eq!(daily.from.to_string(), "stats.orders");
}

#[test]
fn numbers_of_two_apps_branches_types_or_fields_never_mix() {
    let known = definitions(GOOD);
    for (from, to) in [
        ("app.example.com", "other.example.com"),
        ("token = {", "branch = \"version-test\", token = {"),
        ("\"order\"", "\"visit\""),
        ("[\"Status\", \"amount\"]", "[\"Status\", \"amount\", \"city\"]"),
    ] {
        let changed = definitions(&GOOD.replace(from, to));
        assert!(changed[0] != known[0] && changed[1] != known[1], "{to}");
    }
    let later = definitions(&GOOD.replace("type =", "grace = \"1 hour\"\nmodified = true\ntype ="));
    assert_eq!(later, known);
}

#[test]
fn each_mistake_is_told_with_its_remedy() {
    for (from, to, said) in [
        ("https://app", "http://app", "source.bubble.app: over plain HTTP everybody on the way"),
        (".com/", ".com/version-test", "source.bubble.app: the address has a path; write scheme"),
        (".com/", ".com:70000", "source.bubble.app: the port is no number"),
        ("https://app", "app", "source.bubble.app: \"app.example.com/\" has no scheme"),
        ("{ env = \"BUBBLE_TOKEN\" }", "\"abc\"", "source.bubble.token: the token may write"),
        (
            "BUBBLE_TOKEN",
            "NO_TOKEN",
            "variable NO_TOKEN is not set or empty; export NO_TOKEN=the token",
        ),
        ("token =", "branch = \"test\", token =", "write \"version-test\""),
        (
            "workload_units_per_month = 20000",
            "",
            "workload_units_per_month: missing; write the budget",
        ),
        ("\n[target]", "slots = 2\n[target]", "source.slots: an app has no sessions"),
        ("\n[target]", "url = \"postgres://a@b/c\"\n[target]", "source.url: the source is the app"),
        ("url = { env = \"TARGET_DATABASE_URL\" }", "", "a Bubble app has no room for the tables"),
        (
            "type =",
            "late = \"clock\"\ntype =",
            "mirror.orders.late: `modified` says whether changes",
        ),
        ("type =", "lookback = 2\ntype =", "mirror.orders.lookback: each page is paid for"),
        ("\"amount\"]\n", "\"_id\"]\n", "every mirror has `_id`"),
        ("\"amount\"]\n", "\"Status\"]\n", "\"Status\" is there twice; remove one"),
        ("\"amount\"]\n", "\"xmin\"]\n", "a column cannot be called \"xmin\""),
        (
            "mirror = \"orders\"",
            "mirror = \"ordes\"",
            "no mirror of this file; did you mean `orders`?",
        ),
        ("from = { mirror = \"orders\" }", "from = \"orders\"", "the source is a Bubble app"),
        (
            "bucket =",
            "grace = \"1 hour\"\nbucket =",
            "rollup.orders_daily.grace: a slice is due when",
        ),
        ("bucket =", "time = \"x\"\nbucket =", "a row of a mirror stands at `created_at`"),
        (
            "{ sum = \"amount\" }",
            "{ sum = \"amont\" }",
            "has no column \"amont\"; did you mean `amount`?",
        ),
        ("\"orders_daily\"", "\"orders\"", "\"orders\" is the name of an earlier rollup"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
        let told = told(&error);
        assert!(told.contains(said), "{to}: {told}");
    }
}

#[test]
fn a_mirror_needs_an_app() {
    let text = GOOD.split("\n[target]").nth(1).unwrap();
    let text = format!("[source]\nurl = {{ env = \"SOURCE_DATABASE_URL\" }}\n[target]{text}");
    let told = told(&parse(&text).unwrap_err());
    assert!(told.contains("mirror: a mirror keeps the things of a Bubble app"), "{told}");
}
