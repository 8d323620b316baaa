//! The JSON Schema of `tallymark.toml`, with which editors complete keys and mark mistakes.
//!
//! It is made of the words and ranges that the parser uses. It refuses only files that the parser
//! refuses too. The parser refuses more: mistakes between several values, such as a `start` that is
//! not the start of a slice (test `the_schema_and_the_parser_refuse_the_same`).
//!
//! Editors know draft 7, in which words beside a `$ref` have no effect.

use serde_json::{Map, Value, json};

use super::address::AUTH;
use super::throttle::{LOAD, NICE_MIN, SLOTS, WAKE_PER_HOUR};
use super::{AUTO, NICE_RATIO, NoticeFormat, Signal, StoreKind, app, checkpoint, notify};

mod forms;
mod mirror;
mod rollup;

use forms::{
    address, boolean, described, duration, hours, identifier, integer, number, refer, table,
};

/// The schema.
#[must_use]
pub fn json_schema() -> Value {
    let description = "The configuration of Tallymark. docs/CONFIG.md explains every key.";
    let properties = json!({
        "source": source(),
        "target": target(),
        "checkpoint": checkpoint(),
        "scrub": scrub(),
        "notify": notify(),
        "mirror": {
            "description": "Tables that keep the things of a Bubble app.",
            "type": "array",
            "items": mirror::mirror(),
        },
        "rollup": {
            "description": "The tables of statistics.",
            "type": "array",
            "minItems": 1,
            "items": rollup::rollup(),
        },
    });
    let mut schema = table(description, &["source"], properties);
    schema["anyOf"] = json!([{ "required": ["rollup"] }, { "required": ["mirror"] }]);
    schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    schema["title"] = "tallymark.toml".into();
    schema["definitions"] = json!({
        "address": address(),
        "measure": rollup::measure(),
        "time": rollup::time(),
        "width": forms::width(),
        "zone": forms::zone(),
    });
    schema
}

fn source() -> Value {
    let load = |effect: &str| {
        let limits = Signal::ALL.map(|signal| (signal.key().to_owned(), number(LOAD, "A limit.")));
        let limits: Map<String, Value> = limits.into_iter().collect();
        let mut load =
            table(&format!("Limits of the load. Above one, {effect}."), &[], limits.into());
        load["minProperties"] = 1.into();
        load
    };
    let properties = json!({
        "url": described(refer("address"), "The application's PostgreSQL. It is only read."),
        "auth": auth(),
        "chunk_time": duration(
            "About how long one reading statement may last: 10 ms to 60 s.",
            "500ms",
        ),
        "slots": integer(SLOTS, "Chunks that are read concurrently, over all workers."),
        "nice_ratio": {
            "description": "A worker rests this many times as long as it works. 0 is full speed; \
                            auto is as fast as others do not feel.",
            "anyOf": [
                { "type": "number", "minimum": NICE_RATIO.start(), "maximum": NICE_RATIO.end() },
                { "const": AUTO },
            ],
        },
        "nice_min": number(NICE_MIN, "The fastest pace of nice_ratio = \"auto\"."),
        "naps": boolean("Whether a worker rests within the statement.", true),
        "max_load": load("no chunk starts"),
        "critical_load": load("the slice is given up, and tried again later"),
        "throttle_query": {
            "description": "A query. Any answer except false, 0, NULL or an empty text means wait.",
            "type": "string",
            "pattern": "[^ \\t\\n\\r\\f]",
        },
        "window": hours("Backfills run at these hours only, such as 22:00-06:00."),
        "quiet_hours": hours("Nothing is read at these hours."),
        "timezone": described(refer("zone"), "The zone of window and quiet_hours."),
        "wake_per_hour": integer(
            WAKE_PER_HOUR,
            "Ticks connect at most this often per hour, so that a source can sleep.",
        ),
    });
    let mut properties = properties;
    properties["bubble"] = mirror::app();
    properties["workload_units_per_month"] =
        integer(app::UNITS, "Workload units that all mirrors may take from the app in a month.");
    let mut source = table("The database or the app that is counted.", &[], properties);
    let refused = app::REFUSED.iter().map(|(key, _)| ((*key).to_owned(), false.into()));
    let refused: Map<String, Value> = refused.collect();
    source["if"] = json!({ "required": ["bubble"] });
    source["then"] = json!({ "required": [app::KEYS[1]], "properties": refused });
    source["else"] = json!({ "required": ["url"], "properties": { app::KEYS[1]: false } });
    source
}

fn auth() -> Value {
    json!({
        "description": "How the role logs in: by the address's password, or by tokens of RDS.",
        "enum": AUTH,
        "default": AUTH[0],
    })
}

fn target() -> Value {
    let properties = json!({
        "url": described(
            refer("address"),
            "The PostgreSQL of the rollup tables. By default it is the source.",
        ),
        "auth": auth(),
        "schema": {
            "description": "The schema of the rollup tables.",
            "default": super::SCHEMA_DEFAULT,
            "allOf": [identifier()],
            "not": { "pattern": "^(tallymark$|information_schema$|pg_)" },
        },
        "readers": {
            "description": "Roles that init lets read the rollup tables.",
            "type": "array",
            "items": identifier(),
        },
    });
    let description = "The database of the rollup tables. By default it is the source.";
    let mut target = table(description, &[], properties);
    target["dependencies"] = json!({ "auth": ["url"] });
    target
}

fn checkpoint() -> Value {
    let properties = json!({
        "store": {
            "description": "Where checkpoints are kept: DynamoDB, or the target's database.",
            "enum": StoreKind::ALL.map(StoreKind::word),
            "default": StoreKind::DynamoDb.word(),
        },
        "table": {
            "description": "The table in DynamoDB.",
            "type": "string",
            "pattern": "^[A-Za-z0-9_.-]{3,255}$",
            "default": checkpoint::DYNAMODB_TABLE_DEFAULT,
        },
        "failures_max": integer(
            checkpoint::FAILURES_MAX,
            "After this many consecutive failures a slice waits for a replay.",
        ),
    });
    let mut checkpoint = table("Where checkpoints are kept.", &[], properties);
    checkpoint["if"] = json!({
        "properties": { "store": { "const": StoreKind::Postgres.word() } },
        "required": ["store"],
    });
    checkpoint["then"] = json!({ "properties": { "table": false } });
    checkpoint
}

fn scrub() -> Value {
    let properties = json!({
        "slices_per_day": integer(
            super::SLICES_PER_DAY,
            "Slices that are compared with the source per day, over all rollups.",
        ),
        "repair": boolean("Whether a slice that differs is computed again.", false),
    });
    table("The verification of old slices, a few a day.", &["slices_per_day"], properties)
}

fn notify() -> Value {
    let properties = json!({
        "url": described(forms::place("webhook's address"), "Where notices are posted to."),
        "format": {
            "description": "The form of notices: a text as Slack takes it, or their parts.",
            "enum": NoticeFormat::ALL.map(NoticeFormat::word),
            "default": NoticeFormat::default().word(),
        },
        "ping": described(
            forms::place("dead-man's address"),
            "The address of a dead-man's service, which is asked for after every good tick.",
        ),
        "console": {
            "description": "Scheme and host of the console that notices lead to.",
            "type": "string",
            "maxLength": notify::CONSOLE_MAX,
            "pattern": "^https?://[A-Za-z0-9.:\\[\\]-]+/?$",
        },
    });
    let mut notify = table("Who hears of trouble.", &[], properties);
    notify["anyOf"] = json!([{ "required": ["url"] }, { "required": ["ping"] }]);
    notify["dependencies"] = json!({ "format": ["url"], "console": ["url"] });
    notify
}
