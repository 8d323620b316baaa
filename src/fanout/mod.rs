//! Fanning out: a tick that finds more than one due slice sends them to the queues, and history becomes a backfill.
//!
//! The checkpoints say what is due, so nothing is lost with a message: what is still due is sent again. Backfills
//! are items of their own ([`Backfill`]), planned window by window, and looked at again when their queue has run empty.
//!
//! | module | part |
//! |---|---|
//! | `planner` | sends a backfill's slices, resumable after each window |
//! | `want` | what a backfill does with a slice; pure |
//! | [`fate`] | what becomes of a message; pure |
//! | `message` | the slice of one message |
//! | `progress` | how far a backfill is |

pub mod fate;
mod message;
mod planner;
mod progress;
pub(crate) mod want;

use chrono::{DateTime, TimeDelta, Utc};

use crate::checkpoint::{Backfill, BackfillState};
use crate::clock::Deadline;
use crate::queue::{Queue, Queues};
use crate::rollup::Rollup;
use crate::slice::{Order, Slice};
use crate::tick::{Backlog, Held, TickReport};
use crate::worker::{WorkError, Worker};

pub use progress::Progress;

/// Due slices of a rollup that count as fresh, the newest first; what is older is history, and becomes a backfill.
const FRESH_MAX: usize = 24;

/// SQS counts its messages a minute late: a queue is taken for empty only when nothing was sent for so long.
const QUIET: TimeDelta = TimeDelta::minutes(1);

/// One tick's fan-out.
pub(crate) struct FanOut<'a> {
    pub worker: &'a Worker,
    pub queues: &'a Queues,
    pub now: DateTime<Utc>,
    pub deadline: Deadline,
}

impl FanOut<'_> {
    /// Sends all due slices, or works on it if it is only one, and goes on with the backfills under way.
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
                worker.work_off(backlogs, is_backfill, self.now, self.deadline, report).await;
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
            if let Err(error) = self.tend(rollup, &id, &mut depth, report).await {
                report.problem(rollup, &error);
            }
        }
    }

    /// Sends the fresh slices of one rollup, and makes a backfill of its history.
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
        if let Err(hold) = self.worker.may_work(rollup, None).await? {
            report.hold(fresh, history.due.len(), hold.reason);
            return Ok(());
        }
        // The newest is at the end.
        let due: Vec<Slice> = fresh.due.iter().rev().map(|(slice, _)| *slice).collect();
        let mut unsent = self.queues.unsent(&rollup.name, &due, self.now);
        if unsent.len() < due.len() && self.depth(Queue::Fresh, depth).await? == 0 {
            // What this process sent is nowhere any more.
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

    /// Makes a backfill of `history`, unless one is under way, or a person ended the last one.
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
            // It is looked at when that one is done.
            return Ok(());
        }
        let newest = self.worker.checkpoints.backfills(&rollup.name).await?.into_iter().next();
        if newest.is_some_and(|newest| newest.state == BackfillState::Cancelled) {
            let reason = format!(
                "its last backfill was cancelled; `tallymark backfill start {}` goes on with history",
                rollup.name
            );
            report.hold(history, 0, reason);
            return Ok(());
        }
        let range = (first.start(), last.end());
        let reason = "history that a tick found due";
        let now = self.worker.clock.now();
        let mut backfill = Backfill::new(rollup, range, Order::NewestFirst, false, reason, now);
        if self.worker.checkpoints.start_backfill(&mut backfill).await?.is_some() {
            // Another tick was faster.
            return Ok(());
        }
        self.plan_and_tell(rollup, &mut backfill, report).await
    }

    /// Goes on with the backfill that is under way: plans it further, or looks at all its slices again once its
    /// queue has run empty, whatever became of the messages.
    async fn tend(
        &self,
        rollup: &Rollup,
        id: &str,
        depth: &mut Option<u64>,
        report: &mut TickReport,
    ) -> Result<(), WorkError> {
        let worker = self.worker;
        let found = worker.checkpoints.backfill(&rollup.name, id).await?;
        let Some(mut backfill) = found.filter(|backfill| backfill.state.is_active()) else {
            // Whoever started or ended it died in between.
            return Ok(worker.checkpoints.end_backfill(&rollup.name, id).await?);
        };
        match worker.may_work(rollup, Some(backfill.started_at)).await? {
            Ok(_) => {}
            Err(hold) if hold.is_over => {
                backfill.state = BackfillState::Cancelled;
                backfill.finished_at = Some(worker.clock.now());
                worker.checkpoints.write_backfill(&mut backfill).await?;
                return Ok(());
            }
            Err(hold) => {
                if !report.held.iter().any(|held| held.rollup == rollup.name) {
                    let reason = format!("backfill {id}: {}", hold.reason);
                    report.held.push(Held { rollup: rollup.name.clone(), reason, left: 0 });
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
        let planned = self.worker.plan_on(self.queues, rollup, backfill, self.deadline).await;
        report.sent += backfill.sent - before;
        planned
    }

    /// The depth of a queue, asked once a tick.
    async fn depth(&self, queue: Queue, known: &mut Option<u64>) -> Result<u64, WorkError> {
        if let Some(depth) = *known {
            return Ok(depth);
        }
        let depth = self.queues.depth(queue).await?;
        *known = Some(depth);
        Ok(depth)
    }
}

/// Takes away from `due`, whose newest slice is the last, what is too old to be fresh.
fn history<T>(due: &mut Vec<T>) -> Vec<T> {
    let fresh = due.split_off(due.len().saturating_sub(FRESH_MAX));
    std::mem::replace(due, fresh)
}

impl Worker {
    /// Begins a backfill that is fanned out, until now if no end is given; one that is under way and asks for the same is
    /// returned in its place.
    ///
    /// # Errors
    /// Another backfill of the rollup is under way; DynamoDB refuses.
    pub async fn start_backfill(
        &self,
        rollup: &Rollup,
        (from, to): (DateTime<Utc>, Option<DateTime<Utc>>),
        order: Order,
        force: bool,
        reason: &str,
    ) -> Result<Backfill, WorkError> {
        self.recognised(rollup).await?;
        let now = self.clock.now();
        // There are no slices to come.
        let to = to.filter(|to| *to <= now);
        let range = self.checked_range(rollup, (from, to.unwrap_or(now)))?;
        self.refuse_unfit(rollup).await?;
        let mut backfill = Backfill::new(rollup, range, order, force, reason, now);
        backfill.definition = self.definition(rollup).await?;
        let is_same = |other: &Backfill, asked: &Backfill| {
            other.is_same(asked) && to.is_none_or(|to| to == other.to)
        };
        let mut started = self.checkpoints.start_backfill(&mut backfill).await?;
        if let Some(other) = &mut started
            && !is_same(other, &backfill)
            && self.is_through(rollup, other).await?
        {
            started = self.checkpoints.start_backfill(&mut backfill).await?;
        }
        match started {
            None => Ok(backfill),
            Some(other) if is_same(&other, &backfill) => Ok(other),
            Some(other) => Err(WorkError::Usage(format!(
                "backfill {} of rollup `{}` is under way; wait for it (`tallymark backfill status {1}`) or end it \
                 (`tallymark backfill cancel {1}`)",
                other.id, rollup.name
            ))),
        }
    }

    /// Ends a backfill of which no slice is left, as a tick would when its queue has been empty for a while: the next
    /// one need not wait for that. Messages that are still under way find their slices done.
    async fn is_through(
        &self,
        rollup: &Rollup,
        backfill: &mut Backfill,
    ) -> Result<bool, WorkError> {
        let seen = self.as_it_stands(rollup, backfill.clone()).await?;
        if backfill.state != BackfillState::Running || seen.state != BackfillState::Done {
            return Ok(false);
        }
        *backfill = seen;
        Ok(self.checkpoints.write_backfill(backfill).await?)
    }

    /// `backfill` as its slices stand: done as soon as none is left, which a tick writes down later. Writes nothing.
    ///
    /// # Errors
    /// DynamoDB cannot be asked.
    pub async fn as_it_stands(
        &self,
        rollup: &Rollup,
        mut backfill: Backfill,
    ) -> Result<Backfill, WorkError> {
        if backfill.state == BackfillState::Running
            && self.progress(rollup, &backfill).await?.is_through()
        {
            backfill.state = BackfillState::Done;
            backfill.finished_at = Some(self.clock.now());
        }
        Ok(backfill)
    }

    /// Ends the backfills of `rollup` that are under way; returns the one that was fanned out, if there was one.
    ///
    /// # Errors
    /// DynamoDB refuses.
    pub async fn cancel_backfills(&self, rollup: &Rollup) -> Result<Option<Backfill>, WorkError> {
        /// Its planner may write in between, once a window.
        const TRIES_MAX: usize = 10;
        let now = self.clock.now();
        self.checkpoints.cancel(&rollup.name, now).await?;
        for _ in 0..TRIES_MAX {
            let seen = self.checkpoints.watermark(&rollup.name).await?;
            let Some(id) = seen.backfill() else { return Ok(None) };
            let Some(mut backfill) = self.checkpoints.backfill(&rollup.name, id).await? else {
                return Ok(None);
            };
            backfill.state = BackfillState::Cancelled;
            backfill.finished_at = Some(now);
            if self.checkpoints.write_backfill(&mut backfill).await? {
                return Ok(Some(backfill));
            }
        }
        // The next tick does it.
        Ok(None)
    }
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
