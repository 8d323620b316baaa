//! Each file in `events/` with the function's answer. docs/EVENTS.md describes them in words.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use super::{assert_has, event, events_directory, fail, start, stop};
use crate::support::fixture::Fixture;

/// The expectations for a file in `events/`, on twelve unprocessed days.
struct Case {
    name: &'static str,
    expected: Expected,
    /// The days that are right afterwards, and the only ones present.
    days: Option<(&'static str, &'static str)>,
    /// The number of slices that were worked on, with one summary line each.
    slices: usize,
}

enum Expected {
    /// A response that contains at least this.
    Response(Value),
    /// An error of this type with these words.
    Error(&'static str, &'static str),
}

fn malformed(name: &'static str, words: &'static str) -> Case {
    let expected = Expected::Error("EventNotUnderstood", words);
    Case { name, expected, days: None, slices: 0 }
}

fn good(
    name: &'static str,
    days: (&'static str, &'static str),
    slices: usize,
    response: Value,
) -> Case {
    Case { name, expected: Expected::Response(response), days: Some(days), slices }
}

fn cases() -> Vec<Case> {
    good_cases().into_iter().chain(other_cases()).chain(malformed_cases()).collect()
}

fn good_cases() -> Vec<Case> {
    let all = ("2026-02-01Z", "2026-02-13Z");
    let tenth = ("2026-02-10Z", "2026-02-11Z");
    let schedule = json!({
        "trigger": "schedule", "as_of": "2026-02-13T00:05:00Z", "outcomes": { "succeeded": 12 },
        "unlisted": 0, "left": 0,
    });
    let slice = |start: &str| {
        json!({
            "rollup": "entity_daily", "start": start, "outcome": "succeeded", "attempt": 1,
            "rows_read": 144, "chunks": 1, "settled_by": "grace",
        })
    };
    let ended = json!({ "failed": [], "refused": [], "unlisted": 0, "left": 0 });
    let second = json!({ "itemIdentifier": "2e1424d4-f796-459a-8184-9c92662be6da" });
    vec![
        good("scheduled", all, 12, schedule.clone()),
        good("schedule", all, 12, schedule),
        good(
            "slice",
            tenth,
            1,
            json!({
                "trigger": "slice", "backfill": null, "slice": slice("2026-02-10T00:00:00Z"),
            }),
        ),
        good(
            "slice-backfill",
            ("2026-02-03Z", "2026-02-04Z"),
            1,
            json!({
                "trigger": "slice", "backfill": "2026-02-history",
                "slice": slice("2026-02-03T00:00:00Z"),
            }),
        ),
        good("sqs-batch", ("2026-02-10Z", "2026-02-12Z"), 2, json!({ "batchItemFailures": [] })),
        good(
            "backfill",
            all,
            12,
            merged(
                &ended,
                json!({
                    "trigger": "backfill", "rollup": "entity_daily", "from": "2026-02-01T00:00:00Z",
                    "to": "2026-02-13T00:00:00Z", "planned": 12, "reopened": 0, "done": 0, "sealed": 0,
                    "exhausted": 0, "succeeded": 12, "rows_read": 1728, "deleted": 0,
                }),
            ),
        ),
        good(
            "replay",
            tenth,
            1,
            json!({
                "trigger": "replay", "slice": slice("2026-02-10T00:00:00Z"),
            }),
        ),
        good(
            "replay-failed",
            ("2026-02-05Z", "2026-02-07Z"),
            2,
            merged(
                &ended,
                json!({
                    "trigger": "replay", "rollup": "entity_daily", "reopened": 2, "succeeded": 2,
                }),
            ),
        ),
        good("malformed-sqs-body", tenth, 1, json!({ "batchItemFailures": [second] })),
    ]
}

/// Events that compute no slice here.
fn other_cases() -> Vec<Case> {
    vec![
        Case {
            name: "command",
            expected: Expected::Response(json!({
                "trigger": "command", "command": "check", "exit": 0, "next": null,
            })),
            days: None,
            slices: 0,
        },
        Case {
            name: "scrub",
            expected: Expected::Error("WrongUsage", "the configuration has no [scrub]"),
            days: None,
            slices: 0,
        },
    ]
}

fn malformed_cases() -> Vec<Case> {
    vec![
        malformed(
            "malformed-unknown-trigger",
            "unknown trigger \"slcie\"; hint: did you mean `slice`?",
        ),
        malformed(
            "malformed-missing-start",
            "`start` is missing; hint: write the start of a slice",
        ),
        malformed(
            "malformed-misaligned-start",
            "the neighbours are 2026-02-10T00:00:00Z and 2026-02-11T00:00:00Z",
        ),
        malformed("malformed-unknown-rollup", "did you mean `entity_daily`?"),
        malformed("malformed-unknown-key", "unknown key \"form\"; hint: did you mean `from`?"),
        malformed(
            "malformed-unknown-argument",
            "unknown argument \"rolup\"; hint: its arguments are rollup",
        ),
        malformed("malformed-not-an-object", "the event is a list, not an object"),
    ]
}

fn merged(one: &Value, mut other: Value) -> Value {
    other.as_object_mut().unwrap().extend(one.as_object().unwrap().clone());
    other
}

/// A file without a case and a case without a file are both failures.
#[tokio::test]
async fn lambda_answers_every_event_file_as_documented() {
    let files: BTreeSet<String> = fs::read_dir(events_directory())
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let named: BTreeSet<String> = cases().iter().map(|case| case.name.to_owned()).collect();
    assert_eq!(files, named);
    for case in cases() {
        eprintln!("events/{}.json", case.name);
        let fixture = Fixture::create().await;
        if case.name == "replay-failed" {
            fail(&fixture, "2026-02-05T00:00:00Z", true).await;
            fail(&fixture, "2026-02-06T00:00:00Z", false).await;
        }
        let mut function = start(&fixture);
        let answer = function.invoke(&event(case.name));
        match case.expected {
            Expected::Response(wanted) => assert_has(answer.response(), &wanted),
            Expected::Error(kind, words) => {
                let (found, message) = answer.error();
                assert!(found == kind && message.contains(words), "{found}: {message}");
            }
        }
        let (from, to) = case.days.unwrap_or(("2026-02-01Z", "2026-02-01Z"));
        assert_eq!(fixture.drift(from, to).await, 0, "{}", case.name);
        let summaries = stop(function);
        let slices: BTreeSet<_> = summaries.iter().collect();
        assert_eq!((summaries.len(), slices.len()), (case.slices, case.slices), "{summaries:?}");
    }
}
