//! Messages of a queue: one slice each.

use std::time::Duration;

use aws_lambda_events::sqs::SqsBatchResponse;
use serde_json::{Value, json};
use tracing::Instrument as _;

use super::{HandleError, Invocation, run_requested};
use crate::event::Message;
use crate::fanout::disposition::{self, Disposition};
use crate::model::hint::Hinted;
use crate::telemetry::metrics::Metrics;
use crate::work::report::SliceReport;
use crate::work::worker::Worker;

/// Works on one slice per message. Tells the queue when unfinished messages should come back, and
/// returns their IDs.
pub(super) async fn run_messages(
    worker: &Worker,
    messages: &[Message],
    invocation: Invocation<'_>,
) -> Value {
    let mut back = Vec::new();
    let mut reports = Vec::new();
    let mut is_unreachable = false;
    for message in messages {
        if is_unreachable {
            back.push(&message.id);
            continue;
        }
        let trace = message.trace.as_deref();
        let span = tracing::info_span!("message", message.id = message.id, message.trace = trace);
        let disposition = async {
            match one(worker, message, invocation).await {
                Ok(report) => {
                    let deliveries = message.receipt.as_ref().map_or(1, |it| it.deliveries);
                    let disposition =
                        disposition::of_slice(&report, deliveries, worker.clock.now());
                    reports.push(report);
                    disposition
                }
                Err(error) => {
                    is_unreachable = error.is_unreachable();
                    trouble(message, &error)
                }
            }
        };
        let wait = match disposition.instrument(span.clone()).await {
            Disposition::Over => None,
            Disposition::Back(wait) => Some(wait),
            Disposition::Dead => bury(worker, message).instrument(span).await,
        };
        if let Some(wait) = wait {
            back.push(&message.id);
            if let (Some(queues), Some(receipt)) = (&worker.queues, &message.receipt)
                && let Err(error) = queues.hide(receipt, wait).await
            {
                // It comes back when the queue's visibility timeout ends.
                tracing::warn!(message.id = message.id, error = %error, "not hidden");
            }
        }
    }
    (invocation.emit)(&Metrics::of_slices(&reports));
    let mut response = SqsBatchResponse::default();
    response.set_failures(back);
    json!(response)
}

async fn one(
    worker: &Worker,
    message: &Message,
    invocation: Invocation<'_>,
) -> Result<SliceReport, HandleError> {
    match &message.request {
        Ok(request) => run_requested(worker, request, invocation.deadline).await,
        Err(error) => Err(error.clone().into()),
    }
}

/// The disposition of a message whose slice failed to start, with a line in the log.
fn trouble(message: &Message, error: &HandleError) -> Disposition {
    tracing::error!(
        message.id = message.id,
        error.kind = error.kind(),
        error = %crate::model::text::cut(&error.to_string()),
        hint = error.hint().as_deref(),
        "message could not be worked on"
    );
    let deliveries = message.receipt.as_ref().map_or(1, |it| it.deliveries);
    match error {
        HandleError::Event(_) => disposition::of_misunderstood(message.request.is_ok(), deliveries),
        _ => disposition::of_trouble(deliveries),
    }
}

/// Moves a message to the dead-letter queue now instead of after the remaining deliveries. If that
/// fails the message comes back, and its queue moves it in the end. Returns when it comes back.
async fn bury(worker: &Worker, message: &Message) -> Option<Duration> {
    if let (Some(queues), Some(receipt)) = (&worker.queues, &message.receipt) {
        match queues.bury(receipt, &message.body).await {
            Ok(true) => return None,
            Ok(false) => {}
            Err(error) => tracing::warn!(error = %error, "not made a dead letter"),
        }
    }
    Some(Duration::ZERO)
}
