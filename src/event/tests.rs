//! Valid events, and the errors of invalid ones.

use chrono::Datelike as _;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::Config;
use crate::model::hint::Hinted;

fn rollup() -> Rollup {
    const TEXT: &str = r#"
        source.url = "postgres://tally@localhost/app"
        [[rollup]]
        name = "entity_daily"
        from = "events"
        time = "created_at"
        start = "2026-02-01"
        slice = "1 day"
        timezone = "Europe/Berlin"
        measures = { events = "count" }
    "#;
    let config = Config::parse("tallymark.toml".as_ref(), TEXT, &|_| None).unwrap();
    config.rollups[0].clone()
}

fn said(event: &Value) -> String {
    parse(event).unwrap_err().in_one_line()
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

#[test]
fn every_documented_event_is_understood() {
    let time = utc("2026-02-13T00:05:00Z");
    let own = json!({ "trigger": "schedule", "time": "2026-02-13T01:05:00+01:00" });
    assert_eq!(parse(&own), Ok(Trigger::Schedule { time }));
    for source in ["aws.events", "aws.scheduler"] {
        let event = json!({
            "version": "0", "id": "1", "detail-type": "Scheduled Event", "source": source,
            "account": "1", "time": "2026-02-13T00:05:00Z", "region": "eu-central-1",
            "resources": [], "detail": {}, "a key of the future": 1
        });
        assert_eq!(parse(&event), Ok(Trigger::Schedule { time }));
    }
    let event = json!({
        "trigger": "replay", "rollup": "r", "failed": true, "reason": "fixed", "start": null
    });
    let Ok(Trigger::Replay(replay)) = parse(&event) else { panic!("a replay") };
    assert_eq!((replay.which, replay.allow_shrink), (Which::Failed, false));
}

#[test]
fn a_backfill_is_newest_first_and_gentle_unless_told_otherwise() {
    let mut event = json!({ "trigger": "backfill", "rollup": "r", "from": "2026-02-01" });
    let Ok(Trigger::Backfill(backfill)) = parse(&event) else { panic!("a backfill") };
    assert_eq!((backfill.order, backfill.force), (Order::NewestFirst, false));
    assert_eq!((backfill.from.as_str(), backfill.to), ("2026-02-01", None));
    event["order"] = json!("oldest_first");
    event["force"] = json!(true);
    let Ok(Trigger::Backfill(backfill)) = parse(&event) else { panic!("a backfill") };
    assert_eq!((backfill.order, backfill.force), (Order::OldestFirst, true));
}

#[test]
fn the_nearest_word_is_named() {
    let unknown = said(&json!({ "trigger": "slcie", "rollup": "r" }));
    assert!(unknown.contains("\"slcie\"; hint: did you mean `slice`?"), "{unknown}");
    let unknown = said(&json!({ "triger": "slice" }));
    assert!(unknown.contains("did you mean `trigger`?"), "{unknown}");
    let unknown =
        said(&json!({ "trigger": "replay", "rollup": "r", "allow-shrink": true, "failed": true }));
    assert!(unknown.contains("\"allow-shrink\"; hint: did you mean `allow_shrink`?"), "{unknown}");
    let far = said(&json!({ "trigger": "schedule", "colour": "red" }));
    assert!(!far.contains("did you mean") && far.contains("its keys are trigger, time"), "{far}");
}

#[test]
fn what_is_missing_or_wrong_is_named_with_what_would_be_right() {
    for (event, expected) in [
        (json!([1]), "the event is a list, not an object"),
        (json!({ "trigger": "schedule" }), "`time` is missing; hint: write a time with its offset"),
        (json!({ "trigger": "schedule", "time": "2026-02-13" }), "`time` is \"2026-02-13\""),
        (json!({ "trigger": "schedule", "time": "0001-01-01T00:00:00Z" }), "`time` is \"0001"),
        (
            json!({ "source": "aws.events", "detail-type": "Scheduled Event",
                    "time": "-262143-01-01T00:00:00Z" }),
            "`time` is -262143-01-01T00:00:00Z; hint: write a time",
        ),
        (json!({ "trigger": 7 }), "unknown trigger 7"),
        (
            json!({ "trigger": "slice", "rollup": "r", "start": 5 }),
            "`start` is 5; hint: write the start",
        ),
        (json!({ "trigger": "slice", "start": "2026-02-10" }), "`rollup` is missing"),
        (
            json!({ "trigger": "slice", "rollup": "r", "start": "a", "backfill": "b".repeat(513) }),
            "bbb\"…; hint: write the backfill's id, or null",
        ),
        (json!({ "trigger": "slice", "rollup": "r".repeat(9999) }), "rrr\"…; hint: write the name"),
        (
            json!({ "trigger": "backfill", "rollup": "r", "from": "a", "order": "random" }),
            "`order` is \"random\"; hint: write \"newest_first\" or \"oldest_first\"",
        ),
        (
            json!({ "trigger": "replay", "rollup": "r", "reason": "x" }),
            "`start` is missing; hint: write `\"start\"` for one slice",
        ),
        (
            json!({ "trigger": "replay", "rollup": "r", "reason": "x", "start": "a", "failed": true }),
            "both `start` and `failed`",
        ),
        (json!({ "trigger": "replay", "rollup": "r", "failed": true }), "`reason` is missing"),
        (json!({ "Records": [] }), "`Records` is an empty list"),
        (json!({ "Records": [{ "eventSource": "aws:s3" }] }), "eventSource \"aws:s3\""),
        (json!({ "Records": [{ "eventSource": "aws:sqs" }] }), "`messageId` is missing"),
        (json!({ "source": "aws.ec2", "detail-type": "x" }), "source \"aws.ec2\""),
    ] {
        let said = said(&event);
        assert!(said.contains(expected), "{event} says {said}");
    }
}

#[test]
fn one_message_that_is_not_understood_leaves_the_others_alone() {
    let record =
        |id: &str, body: &str| json!({ "eventSource": "aws:sqs", "messageId": id, "body": body });
    let good = r#"{"trigger":"slice","rollup":"r","start":"2026-02-10","backfill":"b1"}"#;
    let event = json!({ "Records": [
        record("1", good),
        record("2", "not json"),
        record("3", r#"{"trigger":"schedule","time":"2026-02-13T00:05:00Z"}"#),
    ] });
    let Ok(Trigger::Messages(messages)) = parse(&event) else { panic!("a batch") };
    let [first, second, third] = &messages[..] else { panic!("three messages") };
    assert_eq!(first.request.as_ref().unwrap().backfill.as_deref(), Some("b1"));
    assert!(matches!(second.request, Err(EventError::BodyNotJson { .. })));
    assert_eq!((third.id.as_str(), &third.request), ("3", &Err(EventError::BodyNotSlice)));
}

#[test]
fn a_slice_is_found_by_its_instant_or_its_local_date() {
    let rollup = rollup();
    let slice = slice_of(&rollup, "2026-02-10").unwrap();
    assert_eq!(slice.start(), utc("2026-02-09T23:00:00Z"));
    assert_eq!(slice_of(&rollup, "2026-02-09T23:00:00Z"), Ok(slice));
    let misaligned = slice_of(&rollup, "2026-02-10T00:00:00Z").unwrap_err().in_one_line();
    assert!(misaligned.contains("the neighbours are 2026-02-09T23:00:00Z"), "{misaligned}");
    let early = slice_of(&rollup, "2026-01-31").unwrap_err().in_one_line();
    assert!(early.contains("lower `start`"), "{early}");
    assert!(slice_of(&rollup, "soon").is_err());
}

/// Any JSON, with the words that Tallymark knows among its keys and values.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop_oneof![
        Just("trigger"),
        Just("slice"),
        Just("schedule"),
        Just("backfill"),
        Just("replay"),
        Just("rollup"),
        Just("start"),
        Just("time"),
        Just("from"),
        Just("Records"),
        Just("eventSource"),
        Just("aws:sqs"),
        Just("messageId"),
        Just("body"),
        Just("source"),
        Just("aws.events"),
        Just("detail-type"),
        Just("Scheduled Event"),
        Just("failed"),
    ];
    let text = prop_oneof![word.prop_map(str::to_owned), ".*"];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.clone().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(text.clone(), inner, 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Parsing is total: any JSON has an answer, and an error fits into one line of a log.
    #[test]
    fn any_json_is_understood_or_refused_without_a_panic(event in any_json()) {
        if let Err(error) = parse(&event) {
            let said = error.in_one_line();
            prop_assert!(said.lines().count() == 1 && said.len() < 2000, "{said}");
        }
        #[cfg(feature = "faults")]
        crate::testing::properties::event_of(&event);
    }

    /// Parsing is total: any text has an answer.
    #[test]
    fn any_text_names_a_slice_or_is_refused_without_a_panic(text in ".*") {
        if let Ok(slice) = slice_of(&rollup(), &text) {
            prop_assert!(slice.start().year() >= 2026);
        }
    }
}
