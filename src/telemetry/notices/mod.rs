//! Notices: incidents are told where the team talks, each once, with its end.
//!
//! | module | part |
//! |---|---|
//! | `incident` | which trouble is told when, and what is still to be sent. Pure |
//! | `numbers` | whether a slice's rows are as usual. Pure |
//! | `expected` | whether a measure keeps its limits. Pure |
//! | `newest` | the numbers of the newest slice, judged by both |
//! | `observe` | what a tick saw, as trouble |
//! | `words` | the texts |
//! | `link` | the pages of the console that tell more |
//! | `form` | the forms in which notices are sent |
//! | `trial` | a notice by hand |
//!
//! The state is one item of the checkpoints, which workers replace by conditional writes. A notice is
//! written there before it is sent, with the worker that sends it, and removed after the receiver
//! took it. So of two workers one tells, and a notice outlives a receiver that is down. A worker that
//! is killed between sending and removing leaves the notice to the next tick, which tells it again:
//! twice is better than never, and both copies have the same ID.

mod expected;
mod form;
mod incident;
mod link;
mod newest;
mod numbers;
mod observe;
#[cfg(test)]
mod planted;
pub(crate) mod trial;
mod words;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::checkpoint::{CheckpointError, KeptNotices};
use crate::clients::webhook::{HookError, Webhook};
use crate::model::clock::Deadline;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::text::random_token;
use crate::tick;
use crate::work::report::TickReport;
use crate::work::worker::{Receivers, WorkError, Worker};
use form::Linked;
use incident::{Notice, Told};

pub(crate) use link::slice_page;

/// The time of a tick that is kept for notices. A receiver that needs more is told by the next tick.
const RESERVE_MAX: Duration = Duration::from_secs(5);

/// A short tick keeps this part of its time.
const RESERVE_PART: u32 = 10;

/// This part of that time is kept to record what was sent.
const RECORDING_PART: u32 = 5;

/// Requests for one message in one tick.
const TRIES_MAX: u32 = 3;

/// The pause before the second request. It doubles.
const PAUSE: Duration = Duration::from_millis(250);

/// Workers that write at the same time refuse each other. The next tick tells the rest.
const WRITES_MAX: u32 = 10;

/// Works on the slices that are due as [`tick::run`] does, and tells of trouble. Both end by
/// `deadline`. Notices that cannot be sent wait for the next tick.
///
/// # Errors
/// The checkpoints are unavailable.
pub(crate) async fn tick(
    worker: &Worker,
    now: DateTime<Utc>,
    deadline: Deadline,
    only: Option<&Rollup>,
) -> Result<TickReport, WorkError> {
    let Some(receivers) = &worker.receivers else {
        return tick::run(worker, now, deadline, only).await;
    };
    let reserve = RESERVE_MAX.min(deadline.remaining(&*worker.clock) / RESERVE_PART);
    let earlier =
        Deadline::at(deadline.instant() - TimeDelta::from_std(reserve).unwrap_or_default());
    let report = tick::run(worker, now, earlier, only).await?;
    let limit = RESERVE_MAX.min(deadline.remaining(&*worker.clock));
    let is_good = is_sign_of_life(&report, only.is_none());
    let telling = async {
        let sent_by = Deadline::after(&*worker.clock, limit - limit / RECORDING_PART);
        tokio::join!(tell(worker, receivers, &report, sent_by), ping(worker, receivers, is_good))
    };
    tokio::select! {
        // A worker that is to stop leaves the notices to the next tick.
        () = worker.interrupt.raised() => {}
        told = tokio::time::timeout(limit, telling) => {
            if told.is_err() {
                tracing::warn!("notices are left to the next tick, as the time of this one is up");
            }
        }
    }
    Ok(report)
}

/// Whether a tick could work on all rollups. Others may be dead if it was for one alone.
fn is_sign_of_life(report: &TickReport, is_whole: bool) -> bool {
    is_whole && report.problems.iter().all(|problem| problem.is_alarm)
}

/// Tells the dead-man's service of a good tick.
async fn ping(worker: &Worker, receivers: &Receivers, is_good: bool) {
    let Some(hook) = receivers.ping.as_ref().filter(|_| is_good) else { return };
    if let Err(error) = patiently(worker, hook, None).await {
        let (error, hint) = Fault::of(&error).into_parts();
        tracing::warn!(error, hint, "the dead-man's service was not told");
    }
}

/// Tells what a tick saw, and what earlier ticks left.
async fn tell(worker: &Worker, receivers: &Receivers, report: &TickReport, sent_by: Deadline) {
    let Some(hook) = &receivers.webhook else { return };
    let by = random_token();
    let taken = match take(worker, report, &by).await {
        Ok(Some(taken)) => taken,
        Ok(None) => return,
        Err(error) => {
            let (error, hint) = Fault::of(&error).into_parts();
            tracing::warn!(error, hint, "notices are left to the next tick");
            return;
        }
    };
    let left = sent_by.remaining(&*worker.clock);
    let sent = match tokio::time::timeout(left, send(worker, hook, receivers, &taken)).await {
        Ok(sent) => sent.map_err(|error| Fault::of(&error)),
        Err(_) => Err(Fault::new("the time of this tick is up")
            .remedy("check whether the receiver in [notify] url answers")),
    };
    let sent = match sent {
        Ok(()) => &taken.notices[..],
        Err(fault) => {
            let (error, hint) = fault.into_parts();
            tracing::error!(error, hint, notices = taken.notices.len(), "notices were not sent");
            &[]
        }
    };
    if let Err(error) = release(worker, &taken, sent, &by).await {
        tracing::warn!(error = %error, "notices that were sent may be sent again");
    }
}

/// Notices that this worker alone sends.
struct Taken {
    kept: KeptNotices,
    told: Told,
    notices: Vec<Notice>,
    /// Notices before them that were dropped.
    dropped: u64,
}

/// Records what a tick saw, and takes the notices to send. `None`: there are none for this worker.
async fn take(
    worker: &Worker,
    report: &TickReport,
    by: &str,
) -> Result<Option<Taken>, CheckpointError> {
    for _ in 0..WRITES_MAX {
        let kept = worker.checkpoints.notices().await?;
        let before = read(&kept);
        let mut told = before.clone();
        told.keep(|name| worker.config.rollups.iter().any(|rollup| rollup.name == name));
        let now = worker.clock.now();
        for seen in observe::sightings(worker, report, &told).await? {
            told.judge(&seen, now);
        }
        let notices = told.take(by, now);
        if told == before {
            return Ok(None);
        }
        if let Some(kept) = worker.checkpoints.keep_notices(&kept, written(&told)).await? {
            let dropped = told.dropped;
            let taken = Taken { kept, told, notices, dropped };
            return Ok(Some(taken).filter(|taken| !taken.notices.is_empty()));
        }
    }
    Ok(None)
}

/// Records which notices the receiver took.
async fn release(
    worker: &Worker,
    taken: &Taken,
    sent: &[Notice],
    by: &str,
) -> Result<(), CheckpointError> {
    let (mut kept, mut told) = (taken.kept.clone(), taken.told.clone());
    for _ in 0..WRITES_MAX {
        told.release(by, sent, taken.dropped);
        if worker.checkpoints.keep_notices(&kept, written(&told)).await?.is_some() {
            return Ok(());
        }
        kept = worker.checkpoints.notices().await?;
        told = read(&kept);
    }
    Ok(())
}

/// A text that no worker writes counts as empty: incidents that last are told again.
fn read(kept: &KeptNotices) -> Told {
    if kept.text.is_empty() {
        return Told::default();
    }
    serde_json::from_str(&kept.text).unwrap_or_else(|error| {
        tracing::warn!(error = %error, "the item of the notices is malformed, and begins anew");
        Told::default()
    })
}

fn written(told: &Told) -> String {
    serde_json::to_string(told).unwrap_or_default()
}

async fn send(
    worker: &Worker,
    hook: &Webhook,
    receivers: &Receivers,
    taken: &Taken,
) -> Result<(), HookError> {
    let linked = |notice| Linked { notice, link: link::of(notice, &worker.config) };
    let notices: Vec<_> = taken.notices.iter().map(linked).collect();
    let document = form::document(receivers.format, &notices, taken.dropped);
    patiently(worker, hook, Some(&document)).await
}

/// Posts a document, or else pings, and repeats a request that may be taken soon.
async fn patiently(
    worker: &Worker,
    hook: &Webhook,
    document: Option<&str>,
) -> Result<(), HookError> {
    let mut pause = PAUSE;
    let mut tries = 1;
    loop {
        let answered = match document {
            Some(document) => hook.post(document.to_owned()).await,
            None => hook.ping().await,
        };
        match answered {
            Err(error) if error.may_pass && tries < TRIES_MAX => {
                // One that asks for more time than a tick has is asked by the next one.
                if error.retry_after.is_some_and(|wait| wait > RESERVE_MAX) {
                    return Err(error);
                }
                worker.clock.sleep(error.retry_after.unwrap_or(pause)).await;
                pause *= 2;
                tries += 1;
            }
            answered => return answered,
        }
    }
}
