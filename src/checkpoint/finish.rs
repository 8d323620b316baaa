//! Ends an attempt: complete, fail, yield. Each is refused unless the lease still holds.

use chrono::{DateTime, Utc};

use super::checkpoints::Checkpoints;
use super::claim::Lease;
use super::error::{CheckpointError, FoundState, LostLease};
use super::item::{
    Checkpoint, Completion, OPEN_UNTIL, epoch_ms, instant, key, number, text, whole_ms,
};
use super::state::{self, Event, State};
use super::store::{Cond, UNFINISHED, Update, Written};
use crate::clients::db::Tx;

/// Longest error or reason stored. It is enough for PostgreSQL's message with its detail and hint,
/// far below DynamoDB's 400 KB, and within the 1 KB steps of the price of writes.
const TEXT_BYTES_MAX: usize = crate::model::text::FOREIGN_MAX;

/// Mirrors `held_by` in [`state`]. It also checks the owner, because an item that was deleted and
/// created again counts its attempts from 1.
fn mine(lease: &Lease) -> Cond {
    Cond::is("state", text(State::Running.word()))
        .and(Cond::is("attempt", number(lease.attempt())))
        .and(Cond::is("owner", text(lease.owner())))
}

/// The effect of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedAttempt {
    /// The slice's state: failed, or stale if it was reopened since.
    pub(crate) state: State,
    /// Failures since the last success or reopening.
    pub(crate) failures: u32,
    /// When it is tried again. `None`: the failures are exhausted.
    pub(crate) retry_at: Option<DateTime<Utc>>,
}

/// How an attempt yields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Yield {
    pub(crate) reason: String,
    /// When another try makes sense, for the planner. A claim may come earlier.
    pub(crate) retry_at: Option<DateTime<Utc>>,
    /// The transaction ID that the slice waits for on the source. `None` keeps the known one.
    pub(crate) horizon: Option<u64>,
}

impl Checkpoints {
    /// Records that the lease's attempt has committed the slice's result. The slice has succeeded,
    /// or is stale if it was reopened meanwhile.
    ///
    /// # Errors
    /// [`CheckpointError::LostLease`] if a newer attempt has the slice.
    pub async fn complete(
        &self,
        lease: &Lease,
        outcome: &Completion,
        now: DateTime<Utc>,
    ) -> Result<State, CheckpointError> {
        self.complete_within(lease, outcome, now, None).await
    }

    /// Like [`Checkpoints::complete`], in a transaction of the target if the store keeps its items
    /// there. The result and its checkpoint commit together.
    ///
    /// # Errors
    /// [`CheckpointError::LostLease`] if a newer attempt has the slice. The caller must then roll
    /// back.
    pub(crate) async fn complete_within(
        &self,
        lease: &Lease,
        outcome: &Completion,
        now: DateTime<Utc>,
        mut within: Option<&mut Tx>,
    ) -> Result<State, CheckpointError> {
        let clean = completion(lease, outcome, now, State::Succeeded);
        let Some(found) = self.end(clean, lease, "complete", within.as_deref_mut()).await? else {
            return Ok(State::Succeeded);
        };
        if is_mine(&found, lease) && found.state == State::Running {
            let dirty = completion(lease, outcome, now, State::Stale);
            return match self.end(dirty, lease, "complete", within).await? {
                None => Ok(State::Stale),
                Some(found) => already(&found, lease, State::Succeeded),
            };
        }
        already(&found, lease, State::Succeeded)
    }

    /// Like [`Checkpoints::complete_within`], for several slices, whose writes are sent together.
    /// They are in the order of locks.
    ///
    /// # Errors
    /// [`CheckpointError::LostLease`] if a newer attempt has one of the slices. The caller must then
    /// roll back.
    pub(crate) async fn complete_each_within(
        &self,
        ends: &[(&Lease, Completion)],
        now: DateTime<Utc>,
        tx: &mut Tx,
    ) -> Result<Vec<State>, CheckpointError> {
        let mut made = Vec::new();
        if ends.len() > 1 {
            let clean = |(lease, outcome): &(&Lease, Completion)| {
                completion(lease, outcome, now, State::Succeeded)
            };
            let clean: Vec<_> = ends.iter().map(clean).collect();
            for item in self.store.update_each(&clean, "complete", tx).await? {
                made.push(Checkpoint::from_item(&item)?.slice_start);
            }
        }
        let mut states = Vec::new();
        for (lease, outcome) in ends {
            states.push(match made.contains(&lease.slice_start()) {
                true => State::Succeeded,
                false => self.complete_within(lease, outcome, now, Some(&mut *tx)).await?,
            });
        }
        Ok(states)
    }

    /// Records that the lease's attempt failed. `retryable` says whether another try can help.
    /// Otherwise the failures count as exhausted.
    ///
    /// # Errors
    /// [`CheckpointError::LostLease`] if a newer attempt has the slice.
    pub async fn fail(
        &self,
        lease: &Lease,
        error: &str,
        retryable: bool,
        now: DateTime<Utc>,
    ) -> Result<FailedAttempt, CheckpointError> {
        let event = Event::Fail { attempt: lease.attempt(), retryable, jitter: fastrand::f64() };
        let standing = lease.checkpoint().standing();
        let after = state::next(Some(&standing), event, now, self.failures_max)
            .map_err(|_| lost(lease, None))?;
        let retry_at = after.retry_at.map(whole_ms);
        let update = ending(lease, now, State::Failed, mine(lease))
            .set("failures", number(after.failures.into()))
            .set("error", text(shortened(error)))
            .set_or_remove("retry_at", retry_at.map(epoch_ms))
            .set(UNFINISHED, text(lease.rollup()));
        match self.end(update, lease, "fail", None).await? {
            None => Ok(FailedAttempt { state: State::Failed, failures: after.failures, retry_at }),
            Some(found) => {
                let state = already(&found, lease, State::Failed)?;
                Ok(FailedAttempt { state, failures: found.failures, retry_at: found.retry_at })
            }
        }
    }

    /// Records that the lease's attempt yields without a failure.
    ///
    /// # Errors
    /// [`CheckpointError::LostLease`] if a newer attempt has the slice.
    pub async fn yield_(
        &self,
        lease: &Lease,
        turn: &Yield,
        now: DateTime<Utc>,
    ) -> Result<State, CheckpointError> {
        let horizon = turn.horizon.or(lease.checkpoint().horizon);
        let update = ending(lease, now, State::Yielded, mine(lease))
            .set("reason", text(shortened(&turn.reason)))
            .set_or_remove("retry_at", turn.retry_at.map(epoch_ms))
            .set_or_remove("horizon", horizon.map(number))
            .set(UNFINISHED, text(lease.rollup()));
        match self.end(update, lease, "yield", None).await? {
            None => Ok(State::Yielded),
            Some(found) => already(&found, lease, State::Yielded),
        }
    }

    /// Sends an ending. `None`: it was written. Otherwise returns the checkpoint that refused it.
    async fn end(
        &self,
        update: Update,
        lease: &Lease,
        operation: &'static str,
        within: Option<&mut Tx>,
    ) -> Result<Option<Checkpoint>, CheckpointError> {
        match self.store.update(update, operation, within).await? {
            Written::Done(_) => Ok(None),
            Written::Refused { found: Some(item), .. } => Checkpoint::from_item(&item).map(Some),
            Written::Refused { found: None, .. } => Err(lost(lease, None)),
        }
    }
}

/// Ends an attempt that committed. `state` depends on whether the slice was reopened meanwhile.
fn completion(lease: &Lease, outcome: &Completion, now: DateTime<Utc>, state: State) -> Update {
    let seen = number(lease.dirty_seen());
    let dirty = match state {
        State::Succeeded => Cond::is("dirty", seen),
        _ => Cond::is_not("dirty", seen),
    };
    let ending = ending(lease, now, state, mine(lease).and(dirty));
    let told = outcome.attributes().into_iter();
    let update = told.fold(ending, |update, (name, value)| update.set(name, value));
    let update = update
        .set("failures", number(0))
        .set_or_remove(OPEN_UNTIL, outcome.open_until.map(instant))
        .remove(&["error", "horizon", "retry_at"]);
    match state {
        State::Succeeded => update.remove(&[UNFINISHED, "reason"]),
        _ => update.set(UNFINISHED, text(lease.rollup())),
    }
}

fn ending(lease: &Lease, now: DateTime<Utc>, state: State, condition: Cond) -> Update {
    Update::new(key(lease.rollup(), lease.slice_start()), condition)
        .set("state", text(state.word()))
        .set("finished_at", instant(now))
        .remove(&["lease_until"])
}

fn is_mine(found: &Checkpoint, lease: &Lease) -> bool {
    found.attempt == lease.attempt() && found.owner.as_deref() == Some(lease.owner())
}

/// A refusal that shows the wanted state under this lease's own token comes from an earlier
/// success, whose reply was lost. If it shows stale, the slice has been reopened since that
/// success.
fn already(found: &Checkpoint, lease: &Lease, wanted: State) -> Result<State, CheckpointError> {
    if is_mine(found, lease) && (found.state == wanted || found.state == State::Stale) {
        return Ok(found.state);
    }
    Err(lost(lease, Some(found)))
}

fn lost(lease: &Lease, found: Option<&Checkpoint>) -> CheckpointError {
    let found = found.map(|found| FoundState {
        state: found.state,
        attempt: found.attempt,
        held_by: found.owner.clone(),
        until: found.lease_until,
    });
    let rollup = lease.rollup().to_owned();
    let (slice_start, attempt) = (lease.slice_start(), lease.attempt());
    LostLease { rollup, slice_start, attempt, found }.into()
}

/// The text, cut to a length that fits into the item.
pub(super) fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn a_long_error_is_cut_between_characters() {
        assert_eq!(shortened("short"), "short");
        let long = "é".repeat(TEXT_BYTES_MAX);
        assert_eq!(shortened(&format!("x{long}")).len(), TEXT_BYTES_MAX - 1);
    }
}
