//! Fan-out: a tick that finds more than one due slice sends them to the queues, and history becomes
//! a backfill.
//!
//! The checkpoints hold what is due, so a lost message loses nothing: a slice that is still due is
//! sent again. Backfills are items of their own ([`Backfill`]). They are planned window by window,
//! and reviewed when their queue has run empty.
//!
//! | module | part |
//! |---|---|
//! | `planner` | sends a backfill's slices, resumable after each window |
//! | [`disposition`] | the disposition of a message; pure |
//! | `message` | the slice of one message |
//! | `progress` | how far a backfill has come |

pub mod disposition;
mod message;
mod planner;
mod progress;

pub(crate) use message::run_in_backfill;
pub(crate) use planner::plan_on;
pub(crate) use progress::progress_of;

use chrono::{DateTime, TimeDelta, Utc};

use crate::checkpoint::{Backfill, BackfillState};
use crate::clients::queue::{Queue, Queues};
use crate::model::clock::Deadline;
use crate::model::hint::Fault;
use crate::model::not_now::{NotNow, Permit, Why};
use crate::model::rollup::Rollup;
use crate::model::slice::{Order, Slice};
use crate::work::backlog::Backlog;
use crate::work::report::{HeldBack, TickReport};
use crate::work::worker::{WorkError, Worker};
use crate::work::{backfill, backlog, identity, ready};

pub(crate) use progress::BackfillProgress;

/// Due slices of a rollup that count as fresh, the newest first. Older ones are history, and become
/// a backfill.
const FRESH_MAX: usize = 24;

/// SQS counts its messages a minute late, so a queue counts as empty only this long after the last
/// message sent.
const QUIET: TimeDelta = TimeDelta::minutes(1);

/// One tick's fan-out.
pub(crate) struct FanOut<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) queues: &'a Queues,
    pub(crate) now: DateTime<Utc>,
    pub(crate) deadline: Deadline,
}

impl FanOut<'_> {
    /// Sends all due slices, or works on the slice itself if there is only one, and continues the
    /// backfills under way.
    pub(crate) async fn fan_out(
        &self,
        fresh: Vec<Backlog<'_>>,
        redefined: Vec<Backlog<'_>>,
        report: &mut TickReport,
    ) {
        let is_single = fresh.iter().chain(&redefined).map(|it| it.due.len()).sum::<usize>() == 1;
        let active: Vec<_> = fresh.iter().map(|it| (it.rollup, it.backfill.clone())).collect();
        if is_single {
            let worker = self.worker;
            for (backlogs, is_backfill) in [(fresh, false), (redefined, true)] {
                backlog::work_off(worker, backlogs, is_backfill, self.now, self.deadline, report)
                    .await;
            }
        } else {
            let mut depth = None;
            for (mut backlog, mut old) in fresh.into_iter().zip(redefined) {
                old.due.append(&mut history(&mut backlog.due));
                let rollup = backlog.rollup;
                if let Err(error) = self.send(&mut backlog, &mut old, &mut depth, report).await {
                    report.left += backlog.due.len() + old.due.len();
                    report.problem(rollup, &error);
                }
            }
        }
        let mut depth = None;
        for (rollup, id) in active {
            let Some(id) = id.filter(|_| !report.is_blocked(rollup)) else { continue };
            if let Err(error) = self.continue_backfill(rollup, &id, &mut depth, report).await {
                report.problem(rollup, &error);
            }
        }
    }

    /// Sends the fresh slices of one rollup, and turns its history into a backfill.
    async fn send(
        &self,
        fresh: &mut Backlog<'_>,
        history: &mut Backlog<'_>,
        depth: &mut Option<u64>,
        report: &mut TickReport,
    ) -> Result<(), WorkError> {
        let rollup = fresh.rollup;
        if report.is_blocked(rollup) || fresh.due.is_empty() && history.due.is_empty() {
            report.left += fresh.due.len() + history.due.len();
            return Ok(());
        }
        if let Permit::NotNow(hold) = ready::gate(self.worker, rollup, None).may_start().await? {
            report.hold(fresh, history.due.len(), hold);
            return Ok(());
        }
        // The newest is at the end.
        let due: Vec<Slice> = fresh.due.iter().rev().map(|(slice, _)| *slice).collect();
        let mut unsent = self.queues.unsent(&rollup.name, &due, self.now);
        if unsent.len() < due.len() && self.depth(Queue::Fresh, depth).await? == 0 {
            // The messages that this process sent have left the queue.
            unsent.clone_from(&due);
        }
        for (slice, reason) in &fresh.due {
            if let Some(reason) = reason.filter(|_| unsent.contains(slice)) {
                let checkpoints = &self.worker.checkpoints;
                checkpoints.reopen(&rollup.name, slice.start(), reason, self.now).await?;
            }
        }
        self.queues.send(Queue::Fresh, &rollup.name, &unsent, None).await?;
        self.queues.remember(&rollup.name, &unsent, self.now);
        report.sent += unsent.len() as u64;
        self.begin_history(rollup, history, fresh.backfill.as_deref(), report).await
    }

    /// Turns `history` into a backfill, unless one is under way or an operator cancelled the last
    /// one.
    async fn begin_history(
        &self,
        rollup: &Rollup,
        history: &mut Backlog<'_>,
        active: Option<&str>,
        report: &mut TickReport,
    ) -> Result<(), WorkError> {
        let starts = || history.due.iter().map(|(slice, _)| slice);
        let (Some(first), Some(last)) = (starts().min(), starts().max()) else { return Ok(()) };
        if active.is_some() {
            // This history is reviewed when that backfill is done.
            return Ok(());
        }
        let newest = self.worker.checkpoints.backfills(&rollup.name).await?.into_iter().next();
        if newest.is_some_and(|newest| newest.state == BackfillState::Cancelled) {
            let why = Why::HistoryCancelled { rollup: rollup.name.clone() };
            report.hold(history, 0, NotNow::because(why));
            return Ok(());
        }
        let range = (first.start(), last.end());
        let reason = "history that a tick found due";
        let now = self.worker.clock.now();
        let mut backfill = Backfill::new(rollup, range, Order::NewestFirst, false, reason, now);
        if self.worker.checkpoints.start_backfill(&mut backfill).await?.is_some() {
            // Another tick made one first.
            return Ok(());
        }
        self.plan_and_tell(rollup, &mut backfill, report).await
    }

    /// Continues the running backfill. Plans more of it, or reviews all its slices when its queue
    /// is empty. It does not depend on what happened to the messages.
    async fn continue_backfill(
        &self,
        rollup: &Rollup,
        id: &str,
        depth: &mut Option<u64>,
        report: &mut TickReport,
    ) -> Result<(), WorkError> {
        let worker = self.worker;
        let found = worker.checkpoints.backfill(&rollup.name, id).await?;
        let Some(mut backfill) = found.filter(|backfill| backfill.state.is_active()) else {
            // The process that started or ended it died in between.
            return Ok(worker.checkpoints.end_backfill(&rollup.name, id).await?);
        };
        match ready::gate(worker, rollup, Some(backfill.started_at)).may_start().await? {
            Permit::Given(_) => {}
            Permit::NotNow(hold) if hold.why.is_final() => {
                backfill.state = BackfillState::Cancelled;
                backfill.finished_at = Some(worker.clock.now());
                worker.checkpoints.write_backfill(&mut backfill).await?;
                return Ok(());
            }
            Permit::NotNow(hold) => {
                if !report.held.iter().any(|held| held.rollup == rollup.name) {
                    let why = Why::OfBackfill { id: id.to_owned(), why: Box::new(hold.why) };
                    let not_now = NotNow { why, retry_at: hold.retry_at, goes_on_at: None };
                    report.held.push(HeldBack { rollup: rollup.name.clone(), not_now, left: 0 });
                }
                return Ok(());
            }
        }
        if backfill.state == BackfillState::Running {
            let now = worker.clock.now();
            let is_quiet = backfill.sent_at.is_none_or(|sent_at| now - sent_at >= QUIET);
            if !is_quiet || self.depth(Queue::Backfill, depth).await? > 0 {
                return Ok(());
            }
            backfill.begin_round();
        }
        self.plan_and_tell(rollup, &mut backfill, report).await
    }

    async fn plan_and_tell(
        &self,
        rollup: &Rollup,
        backfill: &mut Backfill,
        report: &mut TickReport,
    ) -> Result<(), WorkError> {
        let before = backfill.sent;
        let planned =
            planner::plan_on(self.worker, self.queues, rollup, backfill, self.deadline).await;
        report.sent += backfill.sent - before;
        planned
    }

    /// The depth of a queue, read once per tick.
    async fn depth(&self, queue: Queue, known: &mut Option<u64>) -> Result<u64, WorkError> {
        if let Some(depth) = *known {
            return Ok(depth);
        }
        let depth = self.queues.depth(queue).await?;
        *known = Some(depth);
        Ok(depth)
    }
}

/// Removes the slices too old to be fresh from `due`, whose last slice is the newest.
fn history<T>(due: &mut Vec<T>) -> Vec<T> {
    let fresh = due.split_off(due.len().saturating_sub(FRESH_MAX));
    std::mem::replace(due, fresh)
}

/// Starts a backfill that is fanned out. Without an end it reaches until now. If a backfill
/// under way asks for the same, that one is returned instead.
///
/// # Errors
/// Another backfill of the rollup is under way, or DynamoDB refuses.
pub async fn start_backfill(
    worker: &Worker,
    rollup: &Rollup,
    (from, to): (DateTime<Utc>, Option<DateTime<Utc>>),
    order: Order,
    force: bool,
    reason: &str,
) -> Result<Backfill, WorkError> {
    identity::recognised(worker, rollup).await?;
    let now = worker.clock.now();
    // Leave out future slices.
    let to = to.filter(|to| *to <= now);
    let range = backfill::checked_range(rollup, (from, to.unwrap_or(now)))?;
    ready::refuse_unfit(worker, rollup).await?;
    let mut backfill = Backfill::new(rollup, range, order, force, reason, now);
    backfill.definition = ready::definition(worker, rollup).await?;
    let is_same = |other: &Backfill, asked: &Backfill| {
        other.is_repeat_of(asked) && to.is_none_or(|to| to == other.to)
    };
    let mut started = worker.checkpoints.start_backfill(&mut backfill).await?;
    if let Some(other) = &mut started
        && !is_same(other, &backfill)
        && is_through(worker, rollup, other).await?
    {
        started = worker.checkpoints.start_backfill(&mut backfill).await?;
    }
    match started {
        None => Ok(backfill),
        Some(other) if is_same(&other, &backfill) => Ok(other),
        Some(other) => {
            let name = &rollup.name;
            let fault =
                Fault::new(format!("backfill {} of rollup `{name}` is under way", other.id));
            Err(WorkError::Usage(fault.remedy(format!(
                "wait for it (`tallymark backfill status {name}`) or end it (`tallymark backfill cancel \
                 {name}`)"
            ))))
        }
    }
}

/// Ends a backfill whose slices are all done, as a tick would after its queue has been empty
/// for a while, so that the next backfill can start now. Messages still under way find their
/// slices done.
async fn is_through(
    worker: &Worker,
    rollup: &Rollup,
    backfill: &mut Backfill,
) -> Result<bool, WorkError> {
    let seen = as_it_stands(worker, rollup, backfill.clone()).await?;
    if backfill.state != BackfillState::Running || seen.state != BackfillState::Done {
        return Ok(false);
    }
    *backfill = seen;
    Ok(worker.checkpoints.write_backfill(backfill).await?)
}

/// `backfill` as its slices stand. It counts as done once its last slice is done, which a tick
/// records later. Only reads.
///
/// # Errors
/// DynamoDB cannot be read.
pub(crate) async fn as_it_stands(
    worker: &Worker,
    rollup: &Rollup,
    mut backfill: Backfill,
) -> Result<Backfill, WorkError> {
    if backfill.state == BackfillState::Running
        && progress::progress_of(worker, rollup, &backfill).await?.is_through()
    {
        backfill.state = BackfillState::Done;
        backfill.finished_at = Some(worker.clock.now());
    }
    Ok(backfill)
}

/// Ends the backfills of `rollup` that are under way, and returns the fanned-out one, if any.
///
/// # Errors
/// DynamoDB refuses.
pub(crate) async fn cancel_backfills(
    worker: &Worker,
    rollup: &Rollup,
) -> Result<Option<Backfill>, WorkError> {
    /// The backfill's planner may write in between, once per window.
    const TRIES_MAX: usize = 10;
    let now = worker.clock.now();
    worker.checkpoints.cancel(&rollup.name, now).await?;
    for _ in 0..TRIES_MAX {
        let seen = worker.checkpoints.watermark(&rollup.name).await?;
        let Some(id) = seen.backfill() else { return Ok(None) };
        let Some(mut backfill) = worker.checkpoints.backfill(&rollup.name, id).await? else {
            return Ok(None);
        };
        backfill.state = BackfillState::Cancelled;
        backfill.finished_at = Some(now);
        if worker.checkpoints.write_backfill(&mut backfill).await? {
            return Ok(Some(backfill));
        }
    }
    // The next tick does it.
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_slices_are_fresh_and_the_rest_is_history() {
        let mut due: Vec<usize> = (0..30).collect();
        assert_eq!(history(&mut due), (0..6).collect::<Vec<_>>());
        assert_eq!(due, (6..30).collect::<Vec<_>>());
        let mut few = vec![1, 2];
        assert!(history(&mut few).is_empty());
        assert_eq!(few, [1, 2]);
    }
}
