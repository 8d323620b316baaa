//! The JSON Schema and the parser judge the same files alike.

use std::fs;
use std::path::Path;

use boon::{Compiler, SchemaIndex, Schemas};
use proptest::prelude::*;
use serde_json::Value as Json;
use toml::{Table, Value};

use super::super::{app, compose, json_schema, mirror, notify, rollup, throttle};
use super::GOOD;

/// The copy for editors, in the repository.
const COPY: &str = "docs/tallymark.schema.json";

/// Keys that the documents of the corpus leave out.
const RARE: &str = r#"
[source]
url = "postgres://app@db.example.com/shop"
auth = "rds-iam"
slots = 4
nice_ratio = "auto"
nice_min = 2.5
naps = false
max_load = { active = 40, waiting = 3, transactions = 2000, blocks = 500, probe_ms = 50.5 }
critical_load = { replica_lag_ms = 10000 }
throttle_query = "SELECT count(*) > 100 FROM jobs"
window = "22:00-06:00"
quiet_hours = "8:00-9:30"
timezone = "Europe/Berlin"
wake_per_hour = 6

[target]
url = { parameter = "/app/db" }
schema = "numbers"
readers = ["app_reader"]

[checkpoint]
store = "postgres"
failures_max = 3

[notify]
url = { parameter = "/app/hook" }
format = "json"
ping = { secret = "app/ping" }
console = "https://tally.example.com"

[[rollup]]
name = "orders"
from = "public.orders"
time = "created_at"
start = "2025-01-05T00:00:00Z"
slice = "1 week"
week_start = "sunday"
late = { column = "updated_at", zone = "Europe/Berlin" }
plan_guard = false
measures = { orders = "count", least = { min = "amount" } }

[[rollup]]
name = "countries"
from = "public.orders"
time = "created_at"
start = "2025-01-01"
slice = "1 day"
lookup = [{ account = "public.accounts", on = "account.id = account_id" }]
group_by = [{ country = "account.country" }]
measures = { orders = "count", newest = { first = "status", by = { sql = "account.touched" } } }

[[rollup]]
name = "kinds"
from = "public.orders"
time = "created_at"
start = "2025-01-01"
slice = "1 day"

[rollup.measures]
is_any_paid = { any = "is_paid" }
spread = { stddev = "amount" }
sizes = { histogram = "amount", bounds = [-1, 10, 99.5] }
status = { last = "status", by = "updated_at", where = "amount > 0" }
users = { distinct = "user_id", merge = "exact", members_max = 5000 }
visitors = { distinct = "ip", merge = "approximate" }
latency = { percentiles = "ms", at = [0.5, 0.99, 0.999] }

[[rollup]]
name = "months"
from = { rollup = "days" }
slice = "1 month"
trailing = "28 days"
bucket_as = "date"
keep = "4000 days"
partition_by = "month"
seal_before = "2025-02-01"
measures = ["orders"]

[[rollup]]
name = "weeks"
from = { rollup = "days" }
slice = "1 week"
open = true
measures = ["orders"]

[[rollup]]
name = "days"
from = "public.orders"
time = { column = "created_at" }
start = 2025-01-01
slice = "1 day"
late = "capture"
lookback = [1, 7]
measures = { orders = "count" }
expect = { weekdays = false, orders = { min = 1, max = 1e6, drop = "50%" } }
"#;

/// A source that is an app.
const MIRRORED: &str = r#"
[source]
bubble = { app = "https://app.example.com", branch = "version-test", token = { env = "BUBBLE_TOKEN" } }
workload_units_per_month = 20000
quiet_hours = "8:00-9:30"
wake_per_hour = 6

[target]
url = { env = "TARGET_DATABASE_URL" }

[[mirror]]
name = "shop_orders"
type = "order"
fields = ["Status", "amount_number", "customer"]
start = "2025-01-01"
slice = "1 day"
timezone = "Europe/Berlin"
grace = "20 minutes"
modified = true
shrink_guard = 0.1
seal_before = "2025-02-01"

[[rollup]]
name = "orders_daily"
from = { mirror = "shop_orders" }
slice = "1 day"
bucket = "1 hour"
where = "customer IS NOT NULL"
group_by = ["Status"]
measures = { orders = "count", revenue = { sum = "amount_number" } }

[[rollup]]
name = "orders_monthly"
from = { rollup = "orders_daily" }
slice = "1 month"
measures = ["orders"]
"#;

/// Mistakes that only the parser finds, as they lie between several values, or in the text of one.
const BEYOND: &[&str] = &[
    // Names that must be, or must not be, those of others.
    "is no rollup of this file",
    "is no measure of",
    "do not add up over the groups",
    "is above `max`",
    "is no dimension of",
    "only the different values of its dimensions can be counted",
    "is already taken by",
    "is the name of an earlier rollup",
    "is the name of the series of",
    "leads round in a circle",
    "is this rollup itself",
    // Values that must fit others.
    "and the address has a password",
    "a login by tokens needs",
    "does not merge",
    "cannot be merged",
    "does not divide the slice",
    "neither slice nor bucket is a week",
    "have the same date",
    "a window has one bucket",
    "[target] has a database of its own",
    "would be part of",
    "overlap, so each row would count several times",
    "does not consist of whole",
    "need not fill those of",
    "is not in ascending order",
    "has a share with more than four decimals",
    "cuts the slice",
    "is not the start of a slice",
    "is before the start of",
    "does not come after",
    "a captured table needs its schema",
    "the table of a lookup needs its schema",
    "does not equate columns of the lookup",
    "is the name of an earlier lookup",
    "is the name of the table that is counted",
    "reads the lookup",
    // A day that the calendar lacks, a time outside of its range, hours from a time to itself.
    "is not a date or time",
    "is out of range",
    "are not hours of a day",
    // An app and its mirrors need each other, and a database beside them.
    "the source is a database",
    "the source is a Bubble app, which has no tables",
    "has no room for the tables of Tallymark",
    "is no mirror of this file",
    "has no column",
    "the port is no number",
    // The text of an environment variable.
    "the address begins with neither https:// nor http://",
    // An editor shows a date as its text.
    "found a date or time",
];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Every complete file that the documentation shows, the example with its defaults, and the tests'.
fn corpus() -> Vec<Table> {
    let example = read("examples/tallymark.toml");
    let keys = ["chunk_time", "schema", "store", "table", "failures_max", "grace", "late"];
    let defaults = keys.iter().fold(example.clone(), |text, key| {
        text.replace(&format!("\n# {key} ="), &format!("\n{key} ="))
    });
    let mut texts = vec![example, defaults, GOOD.to_owned(), RARE.to_owned(), MIRRORED.to_owned()];
    for page in ["README.md", "docs/CONFIG.md"] {
        for block in read(page).split("```toml\n").skip(1) {
            let block = block.split("\n```").next().unwrap();
            let is_whole = block.contains("[source]");
            let source = if is_whole { "" } else { "source.url = { env = \"DATABASE_URL\" }\n" };
            texts.push(format!("{source}{block}"));
        }
    }
    let documents: Vec<Table> = texts.iter().map(|text| text.parse().unwrap()).collect();
    documents.into_iter().filter(|document| document.contains_key("rollup")).collect()
}

/// A document as an editor sees it: a date is its text.
fn json(value: &Value) -> Json {
    match value {
        Value::String(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(value) => (*value).into(),
        Value::Datetime(at) => at.to_string().into(),
        Value::Array(items) => items.iter().map(json).collect(),
        Value::Table(table) => table.iter().map(|(key, it)| (key.clone(), json(it))).collect(),
    }
}

/// A validator of others' making.
struct Validator {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    fn new() -> Self {
        const URL: &str = "file:///tallymark.schema.json";
        let (mut schemas, mut compiler) = (Schemas::new(), Compiler::new());
        compiler.add_resource(URL, json_schema()).unwrap();
        let index = compiler.compile(URL, &mut schemas).unwrap();
        Self { schemas, index }
    }

    fn judge(&self, document: &Table) -> Result<(), String> {
        let document = json(&Value::Table(document.clone()));
        self.schemas.validate(&document, self.index).map_err(|error| error.to_string())
    }
}

/// Every environment variable is set, as an editor does not see them. None renames the table.
fn parsed(document: &Table) -> Result<(), Vec<String>> {
    let text = toml::to_string(document).unwrap();
    // Without a login, which a webhook may not have: any key may name any variable.
    let address = || "postgres://db.example.com/shop".to_owned();
    let env = |name: &str| (name != "TALLYMARK_TABLE").then(address);
    match super::Config::parse(Path::new("tallymark.toml"), &text, &env) {
        Ok(_) => Ok(()),
        Err(error) => {
            let told =
                |problem: &super::super::Problem| format!("{} {}", problem.key, problem.message);
            Err(error.problems().iter().map(told).collect())
        }
    }
}

fn agree(validator: &Validator, document: &Table) -> Result<(), TestCaseError> {
    let (schema, parser) = (validator.judge(document), parsed(document));
    let text = || toml::to_string(document).unwrap();
    match (schema, parser) {
        (Err(refusal), Ok(())) => prop_assert!(false, "only the schema: {refusal}\n{}", text()),
        (Ok(()), Err(problems)) => {
            let is_beyond = |problem: &&String| BEYOND.iter().any(|it| problem.contains(it));
            let left: Vec<_> = problems.iter().filter(|it| !is_beyond(it)).collect();
            prop_assert!(left.is_empty(), "only the parser: {left:?}\n{}", text());
        }
        _ => {}
    }
    Ok(())
}

/// The tables and arrays of a document, with all that they hold.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Table(table) => table.iter().map(|(_, item)| count(item)).sum(),
        _ => 0,
    }
}

/// The value at `place`, counted in depth first.
fn at<'v>(value: &'v mut Value, place: &mut usize) -> Option<&'v mut Value> {
    if *place == 0 {
        return Some(value);
    }
    *place -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| at(item, place)),
        Value::Table(table) => table.iter_mut().find_map(|(_, item)| at(item, place)),
        _ => None,
    }
}

/// All keys and all values of the corpus, and some that are wrong nearly everywhere.
fn pool(value: &Value, keys: &mut Vec<String>, values: &mut Vec<Value>) {
    if !value.is_datetime() {
        values.push(value.clone());
    }
    match value {
        Value::Array(items) => items.iter().for_each(|item| pool(item, keys, values)),
        Value::Table(table) => {
            keys.extend(table.keys().cloned());
            table.iter().for_each(|(_, item)| pool(item, keys, values));
        }
        _ => {}
    }
}

/// One change of a document, by numbers that are taken modulo the choice.
type Change = (u8, usize, usize, usize);

fn change(
    document: &mut Value,
    (kind, place, key, value): Change,
    keys: &[String],
    values: &[Value],
) {
    let mut place = place % count(document);
    let Some(found) = at(document, &mut place) else { return };
    let (key, value) = (&keys[key % keys.len()], values[value % values.len()].clone());
    match (kind % 4, found) {
        (0, Value::Table(table)) => {
            table.insert(key.clone(), value);
        }
        (1, Value::Table(table)) if !table.is_empty() => {
            let old = table.keys().nth(place % table.len()).unwrap().clone();
            table.remove(&old);
        }
        (2, Value::Table(table)) if !table.is_empty() => {
            let old = table.keys().nth(place % table.len()).unwrap().clone();
            let value = table.remove(&old).unwrap();
            table.insert(key.clone(), value);
        }
        (_, found) => *found = value,
    }
}

#[test]
fn the_copy_in_the_repository_is_this_schema() {
    let copy: Json = serde_json::from_str(&read(COPY)).unwrap();
    assert!(copy == json_schema(), "write it again: cargo run -- schema > {COPY}");
}

#[test]
fn the_schema_has_every_key_that_the_parser_knows() {
    let schema = json_schema();
    let keys = |path: &str| {
        let properties = schema.pointer(&format!("{path}/properties")).unwrap();
        let mut keys: Vec<_> = properties.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    };
    let sorted = |known: &[&'static str]| {
        let mut known = known.to_vec();
        known.sort_unstable();
        known
    };
    let source = ["url", "auth", "chunk_time"].into_iter().chain(app::KEYS).chain(throttle::KEYS);
    let source: Vec<_> = source.collect();
    assert_eq!(keys("/properties/source"), sorted(&source));
    assert_eq!(keys("/properties/source/properties/bubble"), sorted(&app::APP));
    assert_eq!(keys("/properties/notify"), sorted(&notify::KEYS));
    assert_eq!(keys("/properties/mirror/items"), sorted(&mirror::KEYS));
    assert_eq!(keys("/properties/rollup/items"), sorted(&rollup::KEYS));
    let refused = compose::FINER_DECIDES.map(|(key, ..)| key);
    let mut refused = [&refused[..], &["group_by", "live", "measures"]].concat();
    refused.sort_unstable();
    assert_eq!(keys("/properties/rollup/items/then"), refused);
}

#[test]
fn every_document_of_the_corpus_passes_both() {
    let validator = Validator::new();
    let corpus = corpus();
    assert!(corpus.len() >= 6, "{}", corpus.len());
    for document in corpus {
        assert_eq!(validator.judge(&document), Ok(()), "{document}");
        assert_eq!(parsed(&document), Ok(()), "{document}");
    }
}

#[test]
fn the_schema_and_the_parser_refuse_the_same() {
    let validator = Validator::new();
    let corpus: Vec<Value> = corpus().into_iter().map(Value::Table).collect();
    let (mut keys, mut values) = (vec!["colour".to_owned(), "__x".to_owned()], Vec::new());
    corpus.iter().for_each(|document| pool(document, &mut keys, &mut values));
    let strange = r#"x = [0, 1, 7, 65, 367, 1000000, -1, 0.5, 1.5, -0.5, 1e13, true, false, "", " ", "x",
        "UTC", "Berlin", "7 hours", "90 minutes", "1 day", "9 ms", "5 fortnights", "25:00-26:00", "clock",
        "kafka", "postgres", "seconds", "bucket", "xmin", "pg_x", "tallymark", "a.b.c", "a", [], {}]"#;
    pool(&Value::Table(strange.parse().unwrap()), &mut keys, &mut values);
    let changes =
        prop::collection::vec((0..4_u8, 0..9999_usize, 0..9999_usize, 0..9999_usize), 1..3);
    // A seed means nothing after a change of the corpus.
    let config =
        ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(document in 0..corpus.len(), changes in changes)| {
        let mut document = corpus[document].clone();
        for it in changes {
            change(&mut document, it, &keys, &values);
        }
        if let Value::Table(document) = document {
            agree(&validator, &document)?;
        }
    });
}
