//! Input from the Lambda Runtime API, and messages of a queue: headers, an empty line, a body.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{assert_line, event, rollups};
use crate::checkpoint::{LEASE_MARGIN, begun};
use crate::clients::queue;
use crate::event::{Trigger, parse};
use crate::fanout::disposition::{self, Disposition};
use crate::lambda;
use crate::model::clock::ManualClock;
use crate::model::hint::Hinted;
use crate::work::report::{Outcome, SliceReport};

/// An invocation: lines such as `deadline: 1771000000000`, an empty line, and the event, or the
/// body of a message.
///
/// # Panics If a property is violated.
pub fn runtime(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
    let headers: Vec<_> = head.lines().filter_map(|line| line.split_once(": ")).collect();
    let header =
        |name: &str| headers.iter().find(|(found, _)| *found == name).map(|(_, text)| *text);
    if let Some(ms) = header("deadline").and_then(|text| text.parse().ok()) {
        deadline(ms);
    }
    if let Ok(value) = serde_json::from_str::<Value>(body)
        && value.get("Records").is_some()
    {
        event::event_of(&value);
        batch(&value, header("trace"));
    }
    let attributes = json!({
        "ApproximateReceiveCount": header("count").unwrap_or("1"),
        "AWSTraceHeader": header("trace").unwrap_or_default(),
    });
    let record = json!({
        "messageId": header("id").unwrap_or("m"), "eventSource": header("source").unwrap_or("aws:sqs"),
        "eventSourceARN": header("arn"), "receiptHandle": header("handle"), "body": body,
        "attributes": attributes,
    });
    batch(&json!({ "Records": [record] }), header("trace"));
}

/// For every deadline, values derived from it can be computed and stored.
fn deadline(ms: u64) {
    let Some(deadline) = lambda::deadline(ms) else { return };
    let lease_until = deadline.instant() + LEASE_MARGIN;
    let stored = DateTime::from_timestamp_millis(lease_until.timestamp_millis());
    assert_eq!(stored, Some(lease_until));
    let clock = ManualClock::new(now());
    let all = Duration::from_millis(ms.saturating_sub(now().timestamp_millis().unsigned_abs()));
    assert!(deadline.remaining(&clock) <= all, "{ms}");
}

/// A batch of messages: each has a disposition, and those that come back are named.
fn batch(event: &Value, trace: Option<&str>) {
    let messages = match parse(event) {
        Ok(Trigger::Messages(messages)) => messages,
        Ok(other) => panic!("{other:?} in {event}"),
        Err(error) => return assert_line(&error.in_one_line()),
    };
    for message in &messages {
        match &message.request {
            Ok(request) => {
                event::requested(request);
                let id = request.backfill.as_deref();
                let body = queue::body(&rollups()[0].name, now(), id);
                assert!(queue::entry(0, &body, trace.or(message.trace.as_deref())).is_ok());
                fates(message.receipt.as_ref().map_or(1, |it| it.deliveries), id.and_then(begun));
            }
            Err(error) => assert_line(&error.in_one_line()),
        }
    }
}

/// A message comes back within hours, or never.
fn fates(deliveries: u32, retry_at: Option<DateTime<Utc>>) {
    const OUTCOMES: [Outcome; 10] = [
        Outcome::Succeeded,
        Outcome::Stale,
        Outcome::Yielded,
        Outcome::Failed,
        Outcome::AlreadySucceeded,
        Outcome::Leased,
        Outcome::Waiting,
        Outcome::Exhausted,
        Outcome::Sealed,
        Outcome::Fenced,
    ];
    for outcome in OUTCOMES {
        let report = SliceReport {
            rollup: "daily".to_owned(),
            start: now(),
            end: now(),
            outcome,
            attempt: Some(1),
            reason: None,
            hint: None,
            retry_at,
            completion: None,
            not_now: None,
            elapsed_ms: None,
            workload_units: None,
        };
        let disposition = disposition::of_slice(&report, deliveries, now());
        let is_done = matches!(outcome, Outcome::Succeeded | Outcome::Sealed | Outcome::Exhausted);
        assert!(!is_done || disposition == Disposition::Over);
    }
    let is_given_up = deliveries >= disposition::DELIVERIES_MAX;
    assert_eq!(disposition::of_trouble(deliveries) == Disposition::Over, is_given_up);
}

/// The present instant in these tests.
fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_771_000_000_000).unwrap_or_default()
}
