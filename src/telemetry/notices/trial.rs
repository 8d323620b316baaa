//! A trial of the receivers, for `tallymark check --notify`.

use chrono::{DateTime, Utc};

use super::{form, read};
use crate::checkpoint::CheckpointError;
use crate::clients::webhook::HookError;
use crate::model::clock::rfc3339_seconds;
use crate::model::text::random_token;
use crate::work::worker::Worker;

/// Sends a notice that tells of no incident, once, and says what the receiver answered. `None`: the
/// configuration names no receiver.
pub(crate) async fn send(worker: &Worker) -> Option<Result<String, HookError>> {
    let receivers = worker.receivers.as_ref()?;
    let at = rfc3339_seconds(worker.clock.now());
    let document = form::trial(receivers.format, &random_token(), &at);
    Some(receivers.webhook.as_ref()?.try_post(document).await)
}

/// The host of the dead-man's service, which is not asked. `None`: the configuration names none.
pub(crate) async fn host_of_ping(worker: &Worker) -> Option<Result<String, HookError>> {
    Some(worker.receivers.as_ref()?.ping.as_ref()?.host().await)
}

/// The notices that no receiver has taken yet, and when the oldest was made. `None`: there are none.
///
/// # Errors
/// The checkpoints are unavailable.
pub(crate) async fn waiting(
    worker: &Worker,
) -> Result<Option<(usize, DateTime<Utc>)>, CheckpointError> {
    let outbox = read(&worker.checkpoints.notices().await?).outbox;
    Ok(outbox.first().map(|oldest| (outbox.len(), oldest.at)))
}
