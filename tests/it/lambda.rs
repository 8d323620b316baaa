//! The real `bootstrap` behind a Lambda Runtime API: events in, responses and errors out.

mod events;
mod odd;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tallymark::checkpoint::{Claim, Lease, State};
use tallymark::config::Config;
use tallymark::model::clock::{Clock, SystemClock};
use tallymark::work::ready;
use tallymark::work::worker::Worker;

use crate::support::fixture::{Fixture, PASSWORD};
use crate::support::proxy::Cutter;
use crate::support::runtime_api::{Answer, Function};

fn events_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("events")
}

fn event(name: &str) -> Value {
    let text = fs::read_to_string(events_directory().join(format!("{name}.json"))).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Whether `found` equals `wanted`. Objects may have further keys.
fn has(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| found.get(key).is_some_and(|it| has(it, wanted)))
        }
        _ => found == wanted,
    }
}

fn assert_has(found: &Value, wanted: &Value) {
    assert!(has(found, wanted), "{found:#} has not {wanted:#}");
}

fn start(fixture: &Fixture) -> Function {
    start_with(fixture, &[])
}

fn start_with(fixture: &Fixture, changed: &[(&'static str, &str)]) -> Function {
    let environment = fixture.environment();
    let mut environment: Vec<_> =
        environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    environment.extend(changed);
    Function::start(&environment)
}

/// Stops the function and checks properties of all its output. Returns the summary lines' number
/// per slice.
fn stop(function: Function) -> Vec<String> {
    let output = function.stop();
    let text = [&output.stdout[..], &output.stderr].concat().join("\n");
    assert!(!text.contains(PASSWORD), "the password was written: {text}");
    assert_eq!(output.stderr, Vec::<String>::new(), "nothing but panics goes there");
    let log = output.log();
    for line in &log {
        let time = line["timestamp"].as_str().unwrap();
        assert!(
            DateTime::parse_from_rfc3339(time).is_ok() && line["message"].is_string(),
            "{line}"
        );
    }
    let summary =
        |line: &Value| line.get("slice.start").map(|start| start.as_str().unwrap().into());
    log.iter().filter_map(summary).collect()
}

async fn claim(fixture: &Fixture, start: &str) -> Lease {
    let now = SystemClock.now();
    let claim = Claim {
        rollup: "entity_daily",
        slice_start: utc(start),
        definition: "another",
        now,
        deadline: now + TimeDelta::seconds(90),
    };
    fixture.checkpoints.claim(&claim).await.unwrap()
}

async fn fail(fixture: &Fixture, start: &str, retryable: bool) {
    let lease = claim(fixture, start).await;
    fixture.checkpoints.fail(&lease, "disk full", retryable, SystemClock.now()).await.unwrap();
}

async fn state(fixture: &Fixture, start: &str) -> Option<State> {
    let found = fixture.checkpoints.get("entity_daily", utc(start)).await.unwrap();
    found.map(|checkpoint| checkpoint.state)
}

fn utc(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn slice(start: &str) -> Value {
    json!({ "trigger": "slice", "rollup": "entity_daily", "start": start })
}

fn replay(start: &str) -> Value {
    json!({ "trigger": "replay", "rollup": "entity_daily", "start": start, "reason": "a test" })
}

/// A batch with one message per slice, whose ID is the slice's start.
fn batch(starts: &[&str]) -> Value {
    let record = |start: &&str| json!({ "messageId": start, "eventSource": "aws:sqs", "body": slice(start).to_string() });
    json!({ "Records": starts.iter().map(record).collect::<Vec<_>>() })
}

/// The IDs of the messages that come back.
fn back(answer: &Answer) -> Vec<&str> {
    let failures = answer.response()["batchItemFailures"].as_array().unwrap();
    failures.iter().map(|failure| failure["itemIdentifier"].as_str().unwrap()).collect()
}

/// Whether the answer is more than a timeout, which is possible when a machine stands still for
/// longer than a small budget.
fn is_in_time(answer: &Answer) -> bool {
    match answer {
        Answer::Response(_) => true,
        Answer::Error(_) => {
            let (kind, message) = answer.error();
            assert!(["OutOfTime", "RollupsFailed"].contains(&kind), "{kind}: {message}");
            false
        }
    }
}

/// Random JSON, built from Tallymark's words and others.
fn random_json(random: &mut fastrand::Rng, depth: usize) -> Value {
    const WORDS: [&str; 14] = [
        "trigger",
        "slice",
        "schedule",
        "backfill",
        "replay",
        "rollup",
        "entity_daily",
        "start",
        "time",
        "Records",
        "source",
        "aws.events",
        "2026-02-13T00:05:00Z",
        "\u{1f980} \0\n\"",
    ];
    let word = |random: &mut fastrand::Rng| WORDS[random.usize(..WORDS.len())].to_owned();
    match random.u8(..if depth == 0 { 4 } else { 8 }) {
        0 => Value::Null,
        1 => json!(random.bool()),
        2 => json!(random.f64() * 1e12),
        3 => json!(word(random)),
        4 => (0..random.usize(..4)).map(|_| random_json(random, depth - 1)).collect(),
        _ => (0..random.usize(..6))
            .map(|_| (word(random), random_json(random, depth - 1)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// Every server behind the function is out of reach, so an event that was understood would report
/// that.
#[tokio::test]
async fn lambda_answers_whatever_is_no_event_with_an_error_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("tallymark.toml");
    fs::write(&config, include_str!("support/fixture.toml")).unwrap();
    let mut function = Function::start(&[
        ("TALLYMARK_CONFIG", config.to_str().unwrap()),
        ("SOURCE_DATABASE_URL", "postgres://tally@127.0.0.1:1/app"),
        ("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        // The runtime quotes events at this level, and must survive events that are not text.
        ("TALLYMARK_LOG", "warn,lambda_runtime=trace"),
    ]);
    let mut random = fastrand::Rng::with_seed(42);
    for number in 0..400 {
        let body = if number % 2 == 0 {
            random_json(&mut random, 4).to_string().into_bytes()
        } else {
            (0..random.usize(..200)).map(|_| random.u8(..)).collect()
        };
        let answer = function.invoke_with(body.clone(), Duration::from_secs(30));
        let (kind, message) = answer.error();
        let is_right = kind == "EventNotUnderstood" || kind.contains("DeserializeError");
        assert!(is_right, "{kind}: {message}; {}", String::from_utf8_lossy(&body));
    }
    assert!(function.stop().stderr.is_empty(), "nothing panics");
}

#[tokio::test]
async fn lambda_claims_nothing_when_its_deadline_is_near() {
    let fixture = Fixture::create().await;
    let mut function = start(&fixture);
    for milliseconds in [0, 800, 1900] {
        let budget = Duration::from_millis(milliseconds);
        let mut invoke = |event: &Value| function.invoke_with(event.to_string().into(), budget);
        let answer = invoke(&event("slice"));
        if is_in_time(&answer) {
            let wanted = json!({ "slice": { "outcome": "yielded", "attempt": null } });
            assert_has(answer.response(), &wanted);
        }
        let answer = invoke(&event("sqs-batch"));
        assert_eq!(back(&answer).len(), 2);
        let answer = invoke(&event("schedule"));
        if is_in_time(&answer) {
            assert_has(answer.response(), &json!({ "slices": [], "left": 12 }));
        }
        let answer = invoke(&event("backfill"));
        if is_in_time(&answer) {
            assert_has(answer.response(), &json!({ "planned": 12, "succeeded": 0, "left": 12 }));
        }
    }
    assert!(fixture.checkpoints.unfinished("entity_daily").await.unwrap().is_empty());
    assert_eq!(state(&fixture, "2026-02-10T00:00:00Z").await, None);
    stop(function);
}

#[tokio::test]
async fn lambda_answers_each_invocation_with_what_is_wrong_in_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let mut function = Function::start(&[("LAMBDA_TASK_ROOT", directory.path().to_str().unwrap())]);
    eprintln!("startup to first poll: {:?} (debug build)", function.startup);
    for _ in 0..2 {
        let answer = function.invoke(&event("slice"));
        let (kind, message) = answer.error();
        assert_eq!(kind, "WrongConfiguration");
        assert!(message.contains("tallymark.toml: there is no such file"), "{message}");
    }
    // The file is read again, so a corrected file needs no new process.
    fs::write(directory.path().join("tallymark.toml"), include_str!("support/fixture.toml"))
        .unwrap();
    let answer = function.invoke(&event("slice"));
    let (kind, message) = answer.error();
    assert!(kind == "WrongConfiguration" && message.contains("SOURCE_DATABASE_URL"), "{message}");
    stop(function);
}

/// CloudWatch charges for each metric that the line defines.
#[tokio::test]
async fn lambda_makes_metrics_of_what_it_is_told_to() {
    let fixture = Fixture::create().await;
    for (kept, defined) in [("", vec![16, 7]), ("all", vec![16, 7]), ("alarms", vec![5, 0])] {
        let mut function = start_with(&fixture, &[("TALLYMARK_METRICS", kept)]);
        for name in ["schedule", "slice"] {
            function.invoke(&event(name)).response();
        }
        let log = function.stop().log();
        let lines: Vec<_> = log.iter().filter(|line| line["message"] == "metrics").collect();
        let metrics = |line: &&Value| {
            let defined = &line["_aws"]["CloudWatchMetrics"][0]["Metrics"];
            defined.as_array().map_or(0, Vec::len)
        };
        assert_eq!(lines.iter().map(metrics).collect::<Vec<_>>(), defined, "{lines:?}");
        assert!(lines.iter().all(|line| line["RowsRead"].is_number()), "{lines:?}");
    }
    let mut function = start_with(&fixture, &[("TALLYMARK_METRICS", "none")]);
    let answer = function.invoke(&event("schedule"));
    let (kind, message) = answer.error();
    assert_eq!(kind, "WrongConfiguration");
    let remedy = "TALLYMARK_METRICS: write `all`, or `alarms` for what alarms watch";
    assert!(message.contains(remedy), "{message}");
    stop(function);
}

#[tokio::test]
async fn lambda_fails_in_an_outage_and_works_after_it_without_repair() {
    let fixture = Fixture::create().await;
    // An address that the installation knows, but that leads nowhere now.
    let (way, nowhere) = Cutter::way(&fixture.url());
    let config = Config::load(&fixture.config_path(), &|name| {
        (name != "TALLYMARK_TABLE").then(|| nowhere.clone())
    })
    .unwrap();
    let checkpoints = fixture.checkpoints.clone();
    let worker = Worker::with_checkpoints(config, checkpoints, Arc::new(SystemClock), 1).unwrap();
    ready::check(&worker, &worker.config.rollups[0]).await.unwrap();
    worker.close().await;
    let place = format!("connecting to 127.0.0.1:{}", way.port);
    drop(way);
    let mut function = start_with(&fixture, &[("SOURCE_DATABASE_URL", &nowhere)]);
    for name in ["slice", "replay", "backfill", "replay-failed"] {
        if name == "replay-failed" {
            fail(&fixture, "2026-02-05T00:00:00Z", false).await;
        }
        let answer = function.invoke(&event(name));
        let (kind, message) = answer.error();
        assert_eq!(kind, "Unreachable", "{name}: {message}");
        assert!(message.contains(&place), "{message}");
    }
    let answer = function.invoke(&event("schedule"));
    let (kind, message) = answer.error();
    assert!(kind == "RollupsFailed" && message.contains("1 rollup could not be"), "{message}");
    assert_eq!(back(&function.invoke(&event("sqs-batch"))).len(), 2);
    stop(function);

    let mut function = start(&fixture);
    let answer = function.invoke(&event("schedule"));
    assert_has(answer.response(), &json!({ "outcomes": { "succeeded": 12 }, "left": 0 }));
    assert_eq!(fixture.drift("2026-02-01Z", "2026-02-13Z").await, 0);
    stop(function);
}

#[tokio::test]
async fn lambda_fails_without_dynamodb() {
    let fixture = Fixture::create().await;
    let mut function = start_with(&fixture, &[("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:1")]);
    for name in ["schedule", "slice", "backfill"] {
        let answer = function.invoke(&event(name));
        let (kind, message) = answer.error();
        assert!(kind == "Unreachable" && message.contains("dynamodb"), "{name}: {message}");
    }
    assert_eq!(back(&function.invoke(&event("sqs-batch"))).len(), 2);
    assert_eq!(fixture.drift("2026-02-01Z", "2026-02-01Z").await, 0, "nothing was written");
    stop(function);
}

/// The target refuses the rows of one day. A direct request fails, a message comes back, a schedule
/// computes the others and lists it, and a replay of failed slices repairs it.
#[tokio::test]
async fn lambda_reports_a_failed_slice_to_whoever_asked_for_it() {
    let fixture = Fixture::create().await;
    fixture
        .execute(
            "CREATE FUNCTION no_fifth() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN RAISE EXCEPTION ''no_fifth''; END'; \
             CREATE TRIGGER no_fifth AFTER INSERT ON stats.entity_daily FOR EACH ROW \
             WHEN (NEW.bucket >= '2026-02-05Z' AND NEW.bucket < '2026-02-06Z') \
             EXECUTE FUNCTION no_fifth()",
        )
        .await;
    let (fifth, sixth) = ("2026-02-05T00:00:00Z", "2026-02-06T00:00:00Z");
    let mut function = start(&fixture);
    let answer = function.invoke(&batch(&[fifth, sixth]));
    assert_eq!(back(&answer), [fifth]);
    // Its time to retry is still to come. The message comes back, and a direct request is told so.
    assert_eq!(back(&function.invoke(&batch(&[fifth]))), [fifth]);
    let answer = function.invoke(&slice(fifth));
    assert_has(answer.response(), &json!({ "slice": { "outcome": "waiting", "attempt": null } }));

    let answer = function.invoke(&replay(fifth));
    let (kind, message) = answer.error();
    assert_eq!(kind, "SliceFailed");
    assert!(
        message.starts_with("slice entity_daily@2026-02-05T00:00:00Z failed: ")
            && message.contains("no_fifth"),
        "{message}"
    );
    let retry = reopen(&fixture, fifth).await;
    assert_eq!(retry, State::Stale);
    let answer = function.invoke(&event("schedule"));
    let wanted = json!({ "outcomes": { "succeeded": 10, "failed": 1 }, "left": 0 });
    assert_has(answer.response(), &wanted);
    let first = &answer.response()["slices"][0];
    assert_has(first, &json!({ "start": fifth, "outcome": "failed" }));
    assert!(first["retry_at"].is_string(), "{first}");

    fixture.execute("DROP TRIGGER no_fifth ON stats.entity_daily").await;
    let answer = function.invoke(&event("replay-failed"));
    assert_has(answer.response(), &json!({ "reopened": 1, "succeeded": 1 }));
    assert_eq!(fixture.drift("2026-02-01Z", "2026-02-13Z").await, 0);
    stop(function);
}

async fn reopen(fixture: &Fixture, start: &str) -> State {
    let now = SystemClock.now();
    let reopened = fixture.checkpoints.reopen("entity_daily", utc(start), "a test", now).await;
    reopened.unwrap().state
}

#[tokio::test]
async fn lambda_acknowledges_a_message_only_if_another_delivery_could_change_nothing() {
    let fixture = Fixture::create().await;
    let [held, exhausted, done] =
        ["2026-02-03T00:00:00Z", "2026-02-04T00:00:00Z", "2026-02-05T00:00:00Z"];
    let _lease = claim(&fixture, held).await;
    fail(&fixture, exhausted, false).await;
    let mut function = start(&fixture);
    let answer = function.invoke(&batch(&[held, exhausted, done, done, "2999-01-01T00:00:00Z"]));
    assert_eq!(back(&answer), [held, "2999-01-01T00:00:00Z"]);
    for (start, outcome) in
        [(held, "leased"), (exhausted, "exhausted"), (done, "already_succeeded")]
    {
        let answer = function.invoke(&slice(start));
        assert_has(answer.response(), &json!({ "slice": { "outcome": outcome, "attempt": null } }));
    }
    assert_eq!(state(&fixture, "2999-01-01T00:00:00Z").await, None);
    stop(function);
}

#[tokio::test]
async fn lambda_replays_what_changed_and_asks_before_it_shrinks() {
    let fixture = Fixture::create().await;
    let tenth = "2026-02-10T00:00:00Z";
    let days = ("2026-02-10Z", "2026-02-11Z");
    let mut function = start(&fixture);
    function.invoke(&slice(tenth)).response();
    let events = "events WHERE created_at >= '2026-02-10Z' AND created_at < '2026-02-11Z'";
    fixture.execute(&format!("DELETE FROM {events} AND entity_id = 3")).await;
    let answer = function.invoke(&slice(tenth));
    assert_has(answer.response(), &json!({ "slice": { "outcome": "already_succeeded" } }));
    assert_ne!(fixture.drift(days.0, days.1).await, 0);
    let answer = function.invoke(&replay(tenth));
    assert_has(answer.response(), &json!({ "slice": { "outcome": "succeeded", "attempt": 2 } }));
    assert_eq!(fixture.drift(days.0, days.1).await, 0);

    fixture.execute(&format!("DELETE FROM {events} AND entity_id <> 5")).await;
    let answer = function.invoke(&replay(tenth));
    let (kind, message) = answer.error();
    assert!(kind == "SliceFailed" && message.contains("shrink_guard"), "{message}");
    let mut allowed = replay(tenth);
    allowed["allow_shrink"] = json!(true);
    let answer = function.invoke(&allowed);
    assert_has(answer.response(), &json!({ "slice": { "outcome": "succeeded" } }));
    assert_eq!(fixture.drift(days.0, days.1).await, 0);
    stop(function);
}

#[tokio::test]
async fn lambda_backfills_again_only_by_force() {
    let fixture = Fixture::create().await;
    let mut function = start(&fixture);
    function.invoke(&event("backfill")).response();
    fixture.execute("UPDATE events SET kind = 'view' WHERE kind = 'click'").await;
    let answer = function.invoke(&event("backfill"));
    assert_has(answer.response(), &json!({ "planned": 0, "done": 12, "succeeded": 0 }));
    let mut forced = event("backfill");
    forced["force"] = json!(true);
    let answer = function.invoke(&forced);
    let wanted = json!({ "planned": 12, "reopened": 12, "done": 0, "succeeded": 12, "left": 0 });
    assert_has(answer.response(), &wanted);
    assert_eq!(fixture.drift("2026-02-01Z", "2026-02-13Z").await, 0);
    let mut backwards = event("backfill");
    backwards["to"] = json!("2026-01-01");
    let answer = function.invoke(&backwards);
    let (kind, message) = answer.error();
    assert!(kind == "WrongUsage" && message.contains("the range is empty"), "{message}");
    stop(function);
}
