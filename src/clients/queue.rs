//! The SQS queues of the fan-out. One is for fresh slices and one for history, so that a fresh
//! slice passes a backfill.
//!
//! Queues only speed up the work. The checkpoints hold what is due, so a lost message loses
//! nothing, and a duplicate costs a refused claim.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::{BuildError, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::{
    MessageSystemAttributeNameForSends, MessageSystemAttributeValue, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::TryStreamExt as _;
use serde_json::{Value, json};

use crate::clients::aws::root_cause;
use crate::model::clock::rfc3339_seconds;
use crate::model::slice::Slice;
use crate::model::text::cut;

/// Messages per call: SQS's maximum.
const BATCH: usize = 10;

/// Concurrent calls: with 10 ms each, 8,000 messages a second.
const CALLS_MAX: usize = 8;

/// How often a batch is resent when SQS refuses some of its messages.
const TRIES_MAX: u32 = 4;

/// Wait before the first of these; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(100);

/// SQS hides a message for twelve hours at most, counted from when it was received.
const HIDDEN_MAX: Duration = Duration::from_secs(11 * 60 * 60);

/// A slice that was sent and is still due is sent again after this time, which is longer than a
/// message of a full queue waits.
const RESEND: TimeDelta = TimeDelta::minutes(15);

/// The two queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    /// The newest slices.
    Fresh,
    /// Backfills, and the rest of older history.
    Backfill,
}

/// Both queues, and the slices that this process has sent.
#[derive(Clone, Debug)]
pub struct Queues {
    client: Client,
    fresh: String,
    backfill: String,
    sent: Arc<Mutex<Sent>>,
    trace: Arc<Mutex<Option<String>>>,
}

/// When this process sent each fresh slice. Other processes may send the slice again, which is
/// harmless.
#[derive(Debug, Default)]
struct Sent(HashMap<(String, DateTime<Utc>), DateTime<Utc>>);

/// A failed call to a queue.
#[derive(Debug, thiserror::Error)]
#[error("sqs: {operation} failed: {problem}")]
pub struct QueueError {
    operation: &'static str,
    problem: String,
    is_unreachable: bool,
}

impl QueueError {
    /// Whether SQS was out of reach.
    #[must_use]
    pub(crate) const fn is_unreachable(&self) -> bool {
        self.is_unreachable
    }

    fn new<E>(operation: &'static str, error: &SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        let problem = match error.as_service_error() {
            Some(service) => match (service.message(), service.code()) {
                (Some(message), Some(code)) => format!("{} ({code})", cut(message)),
                (None, Some(code)) => code.to_owned(),
                _ => root_cause(error),
            },
            None => root_cause(error),
        };
        // Only an error that SQS itself blames on the caller is a fault of the request.
        let is_fault = error.as_service_error().is_some()
            && error.raw_response().is_some_and(|raw| raw.status().is_client_error());
        let is_unreachable = !is_fault && !matches!(error, SdkError::ConstructionFailure(_));
        Self { operation, problem, is_unreachable }
    }

    fn built(error: &BuildError) -> Self {
        Self { operation: "send", problem: error.to_string(), is_unreachable: false }
    }
}

/// The origin of a message, and its handle there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// SQS's handle of this delivery.
    pub(crate) handle: String,
    pub(crate) queue: String,
    /// The number of deliveries, including this one.
    pub(crate) deliveries: u32,
}

impl Queues {
    /// The queues at these URLs, with an existing client.
    #[must_use]
    pub fn new(client: Client, fresh: impl Into<String>, backfill: impl Into<String>) -> Self {
        Self {
            client,
            fresh: fresh.into(),
            backfill: backfill.into(),
            sent: Arc::default(),
            trace: Arc::default(),
        }
    }

    /// The queues at these URLs, with the default AWS configuration. Nothing is sent yet.
    pub async fn connect(fresh: String, backfill: String) -> Self {
        Self::new(Client::new(&crate::clients::aws::config().await), fresh, backfill)
    }

    const fn url(&self, queue: Queue) -> &String {
        match queue {
            Queue::Fresh => &self.fresh,
            Queue::Backfill => &self.backfill,
        }
    }

    /// From now on messages carry this trace header, that of the invocation.
    pub(crate) fn trace(&self, trace: Option<&str>) {
        *lock(&self.trace) = trace.map(str::to_owned);
    }

    /// Sends a message for each of `slices` of `rollup`, in batches.
    ///
    /// # Errors
    /// SQS refuses or cannot be reached. Some messages may have been sent, and sending them again
    /// is harmless.
    pub(crate) async fn send(
        &self,
        queue: Queue,
        rollup: &str,
        slices: &[Slice],
        backfill: Option<&str>,
    ) -> Result<(), QueueError> {
        let trace = lock(&self.trace).clone();
        let trace = trace.as_deref();
        futures_util::stream::iter(slices.chunks(BATCH).map(Ok))
            .try_for_each_concurrent(CALLS_MAX, |slices| async move {
                let entries = slices
                    .iter()
                    .enumerate()
                    .map(|(n, slice)| entry(n, &body(rollup, slice.start(), backfill), trace));
                let entries = entries.collect::<Result<Vec<_>, _>>();
                self.send_batch(
                    self.url(queue),
                    entries.map_err(|error| QueueError::built(&error))?,
                )
                .await
            })
            .await
    }

    /// Sends one batch, and resends the messages that SQS refused.
    async fn send_batch(
        &self,
        url: &str,
        mut entries: Vec<SendMessageBatchRequestEntry>,
    ) -> Result<(), QueueError> {
        let mut wait = RETRY_FIRST;
        let mut problem = String::new();
        for _ in 0..TRIES_MAX {
            let request = self.client.send_message_batch().queue_url(url);
            let answer = request.set_entries(Some(entries.clone())).send().await;
            let answer = answer.map_err(|error| QueueError::new("send", &error))?;
            let Some(first) = answer.failed().first() else { return Ok(()) };
            problem = format!("{} ({})", cut(first.message().unwrap_or("refused")), first.code());
            let refused: Vec<&str> = answer.failed().iter().map(|failed| failed.id()).collect();
            entries.retain(|entry| refused.contains(&entry.id()));
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Err(QueueError { operation: "send", problem, is_unreachable: false })
    }

    /// The approximate number of messages in a queue: waiting, hidden or in work. SQS counts them a
    /// minute late.
    ///
    /// # Errors
    /// SQS refuses or cannot be reached.
    pub(crate) async fn depth(&self, queue: Queue) -> Result<u64, QueueError> {
        let names = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let request = self.client.get_queue_attributes().queue_url(self.url(queue));
        let answer = request.set_attribute_names(Some(names.to_vec())).send().await;
        let answer = answer.map_err(|error| QueueError::new("count", &error))?;
        let found = answer.attributes();
        let count = |name| found?.get(name)?.parse::<u64>().ok();
        names.iter().map(count).sum::<Option<u64>>().ok_or_else(|| QueueError {
            operation: "count",
            problem: "the answer lacks a count".to_owned(),
            is_unreachable: false,
        })
    }

    /// Lets the message come back after `wait`.
    ///
    /// # Errors
    /// SQS refuses or cannot be reached. The message then comes back after the queue's visibility
    /// timeout.
    pub(crate) async fn hide(&self, receipt: &Receipt, wait: Duration) -> Result<(), QueueError> {
        // Redriven from a foreign queue: it comes back after that queue's visibility timeout.
        let Some(url) = self.url_of(receipt) else { return Ok(()) };
        // Round up to whole seconds, so that the wait is over.
        let seconds = wait.min(HIDDEN_MAX).as_millis().div_ceil(1000);
        let request = self.client.change_message_visibility().queue_url(url);
        let request = request.receipt_handle(&receipt.handle);
        let request = request.visibility_timeout(i32::try_from(seconds).unwrap_or(0));
        let answer = request.send().await;
        answer.map(drop).map_err(|error| QueueError::new("change the visibility", &error))
    }

    /// Sends `body` to the dead-letter queue of the receipt's queue. `false`: it has none.
    ///
    /// # Errors
    /// SQS refuses or cannot be reached.
    pub(crate) async fn bury(&self, receipt: &Receipt, body: &str) -> Result<bool, QueueError> {
        let Some(url) = self.url_of(receipt) else { return Ok(false) };
        let request = self.client.get_queue_attributes().queue_url(url);
        let request = request.attribute_names(QueueAttributeName::RedrivePolicy);
        let answer = request.send().await.map_err(|error| QueueError::new("ask", &error))?;
        let policy = answer.attributes().and_then(|it| it.get(&QueueAttributeName::RedrivePolicy));
        let policy: Option<Value> = policy.and_then(|text| serde_json::from_str(text).ok());
        let Some(arn) = policy.as_ref().and_then(|it| it["deadLetterTargetArn"].as_str()) else {
            return Ok(false);
        };
        // SQS requires the same account and region.
        let (account, _) = url.rsplit_once('/').unwrap_or_default();
        let url = format!("{account}/{}", arn.rsplit(':').next().unwrap_or_default());
        let entry = entry(0, body, None).map_err(|error| QueueError::built(&error))?;
        self.send_batch(&url, vec![entry]).await.map(|()| true)
    }

    /// The address of the queue that a message came from, if it is one of these two.
    fn url_of(&self, receipt: &Receipt) -> Option<&String> {
        let is_its = |url: &&String| url.rsplit('/').next() == Some(&receipt.queue);
        [&self.fresh, &self.backfill].into_iter().find(is_its)
    }

    /// The slices of `due`, less those that this process sent to the fresh queue recently. Forgets
    /// all others of the rollup.
    #[must_use]
    pub(crate) fn unsent(&self, rollup: &str, due: &[Slice], now: DateTime<Utc>) -> Vec<Slice> {
        let mut sent = lock(&self.sent);
        sent.0.retain(|(name, start), at| {
            name != rollup
                || (now - *at < RESEND && due.iter().any(|slice| slice.start() == *start))
        });
        let is_unsent = |slice: &&Slice| !sent.0.contains_key(&(rollup.to_owned(), slice.start()));
        due.iter().filter(is_unsent).copied().collect()
    }

    /// Records the slices sent to the fresh queue.
    pub(crate) fn remember(&self, rollup: &str, slices: &[Slice], now: DateTime<Utc>) {
        let mut sent = lock(&self.sent);
        sent.0.extend(slices.iter().map(|slice| ((rollup.to_owned(), slice.start()), now)));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The message of one slice: absolute bounds, far below a kilobyte.
pub(crate) fn body(rollup: &str, start: DateTime<Utc>, backfill: Option<&str>) -> String {
    let start = rfc3339_seconds(start);
    json!({ "trigger": "slice", "rollup": rollup, "start": start, "backfill": backfill })
        .to_string()
}

/// The message with this body, as one of a batch.
pub(crate) fn entry(
    number: usize,
    body: &str,
    trace: Option<&str>,
) -> Result<SendMessageBatchRequestEntry, BuildError> {
    let entry = SendMessageBatchRequestEntry::builder().id(number.to_string()).message_body(body);
    let Some(trace) = trace else { return entry.build() };
    let value = MessageSystemAttributeValue::builder().data_type("String").string_value(trace);
    entry
        .message_system_attributes(
            MessageSystemAttributeNameForSends::AwsTraceHeader,
            value.build()?,
        )
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_an_event_of_one_slice() {
        let start = "2026-02-10T00:00:00Z".parse().unwrap();
        let event = serde_json::from_str(&body("daily", start, Some("20260301T000000Z"))).unwrap();
        let crate::event::Trigger::Slice(request) = crate::event::parse(&event).unwrap() else {
            panic!("{event}");
        };
        assert_eq!((&*request.rollup, &*request.start), ("daily", "2026-02-10T00:00:00Z"));
        assert_eq!(request.backfill.as_deref(), Some("20260301T000000Z"));
    }
}
