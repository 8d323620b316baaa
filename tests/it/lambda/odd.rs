//! Arbitrary input from the Runtime API: invented bodies and headers.

use std::env;

use fastrand::Rng;
use serde_json::{Value, json};
use tallymark::model::clock::{Clock as _, SystemClock};

use super::{Answer, Fixture, event, random_json, slice, start, stop};

/// A few seconds of work.
const INVOCATIONS: usize = 300;

const EVENTS: [&str; 9] = [
    "schedule",
    "scheduled",
    "slice",
    "slice-backfill",
    "sqs-batch",
    "replay",
    "replay-failed",
    "malformed-sqs-body",
    "malformed-unknown-key",
];

/// Possible bodies of an invocation.
fn body(random: &mut Rng) -> Vec<u8> {
    let known = event(EVENTS[random.usize(..EVENTS.len())]).to_string();
    match random.u8(..6) {
        0 => (0..random.usize(..200)).map(|_| random.u8(..)).collect(),
        1 => random_json(random, 4).to_string().into_bytes(),
        2 => batch(random).to_string().into_bytes(),
        // A valid one with some bytes changed, removed or doubled.
        3 | 4 => {
            let mut bytes = known.into_bytes();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(..bytes.len());
                match random.u8(..3) {
                    0 => bytes[at] = random.u8(..),
                    1 => drop(bytes.drain(at..(at + random.usize(..8)).min(bytes.len()))),
                    _ => drop(bytes.splice(at..at, *b"\"},{\"")),
                }
                if bytes.is_empty() {
                    break;
                }
            }
            bytes
        }
        _ => known.into_bytes(),
    }
}

/// Messages with anything in them.
fn batch(random: &mut Rng) -> Value {
    let record = |random: &mut Rng| {
        let body = match random.u8(..3) {
            0 => slice("2026-02-05T00:00:00Z").to_string(),
            1 => random_json(random, 3).to_string(),
            _ => "\u{0}{".to_owned(),
        };
        let count = ["1", "15", "99999999999", "-1", ""][random.usize(..5)];
        json!({
            "messageId": format!("m{}", random.u8(..)), "eventSource": "aws:sqs", "body": body,
            "receiptHandle": "h", "eventSourceARN": random_json(random, 0).as_str().unwrap_or("arn"),
            "attributes": { "ApproximateReceiveCount": count, "AWSTraceHeader": "x\u{e9}\n" },
        })
    };
    json!({ "Records": (0..random.usize(..4)).map(|_| record(random)).collect::<Vec<_>>() })
}

/// A deadline as a number, and header lines.
fn headers(random: &mut Rng) -> (String, String) {
    let now = SystemClock.now().timestamp_millis().unsigned_abs();
    let deadlines = [0, 1, now - 1, now + 10_000, now + 10_000, now + 900_000, 253_402_300_799_999];
    let beyond = [8_210_266_876_799_999, 8_210_266_876_800_000, i64::MAX.unsigned_abs(), u64::MAX];
    let deadline = match random.u8(..3) {
        0 => beyond[random.usize(..beyond.len())],
        _ => deadlines[random.usize(..deadlines.len())],
    };
    let trace = match random.u8(..5) {
        0 => String::new(),
        1 => "Lambda-Runtime-Trace-Id: \r\n".to_owned(),
        2 => format!("Lambda-Runtime-Trace-Id: {}\r\n", "x".repeat(3000)),
        3 => "Lambda-Runtime-Trace-Id: \u{1f980}\"';\\\r\n".to_owned(),
        _ => "Lambda-Runtime-Trace-Id: Root=1-2-3;Sampled=1\r\nLambda-Runtime-Tenant-Id: é\r\n"
            .to_owned(),
    };
    let client = match random.u8(..3) {
        0 => "Lambda-Runtime-Client-Context: {\"custom\":{}}\r\nX-Odd: 1\r\nX-Odd: 2\r\n",
        1 => "Lambda-Runtime-Cognito-Identity: \r\n",
        _ => "",
    };
    (deadline.to_string(), trace + client)
}

/// Each gets one answer, nothing panics, and afterwards the numbers are right.
#[tokio::test]
async fn lambda_answers_whatever_the_runtime_hands_over_and_goes_on() {
    let seed =
        env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let fixture = Fixture::create().await;
    let mut function = start(&fixture);
    let mut understood = 0;
    for _ in 0..INVOCATIONS {
        let (deadline, more) = headers(&mut random);
        let body = body(&mut random);
        let shown = String::from_utf8_lossy(&body).into_owned();
        match function.invoke_oddly(body, &deadline, &more) {
            Answer::Response(_) => understood += 1,
            Answer::Error(error) => {
                let (kind, message) = (&error["errorType"], &error["errorMessage"]);
                let is_ours = ["EventNotUnderstood", "NoDeadline", "WrongUsage", "BudgetSpent"]
                    .contains(&kind.as_str().unwrap());
                let is_no_json = kind.as_str().unwrap().contains("DeserializeError");
                // On a slow machine a near deadline comes while a server is awaited.
                let is_late = message.as_str().unwrap().contains("the time was up");
                assert!(
                    is_ours || is_no_json || is_late,
                    "{kind} {message} for {deadline} {more} {shown}"
                );
            }
        }
    }
    assert!(understood > INVOCATIONS / 20, "{understood} of {INVOCATIONS} were understood");
    function.invoke(&event("schedule")).response();
    stop(function);
    assert_eq!(fixture.drift("2026-02-01Z", "2026-02-13Z").await, 0);
}
