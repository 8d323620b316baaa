//! Rebuilds a lost checkpoint from the marker in the target.

use chrono::{DateTime, Utc};

use super::checkpoints::Checkpoints;
use super::error::CheckpointError;
use super::finish::shortened;
use super::item::{Checkpoint, Completion, OPEN_UNTIL, key, label, number, text};
use super::reopen::LOOKS_MAX;
use super::state::State;
use super::store::{Cond, PK, SK, UNFINISHED, Update, Written};

/// A committed marker, which is the truth about a slice's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedMarker {
    pub(crate) rollup: String,
    pub(crate) slice_start: DateTime<Utc>,
    /// The newest attempt that took it.
    pub(crate) attempt: u64,
    /// The random token of that attempt's claim. `None`: an older version wrote it.
    pub(crate) owner: Option<String>,
    /// The fingerprint of the definition that it computed.
    pub(crate) definition: String,
    /// Its counts.
    pub(crate) outcome: Completion,
    /// When it committed.
    pub(crate) committed_at: DateTime<Utc>,
    /// Why the slice must run again all the same, such as a changed definition.
    pub(crate) stale: Option<String>,
}

/// The result of [`Checkpoints::restore`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Restored {
    /// The checkpoint now follows the marker, in this state.
    Restored(State),
    /// The checkpoint already matches the marker, or is newer.
    Kept(Box<Checkpoint>),
}

impl Checkpoints {
    /// Makes a slice's checkpoint follow its committed marker. A newer attempt, a running lease and
    /// an unseen reopening are always kept.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub(crate) async fn restore(
        &self,
        marker: &CommittedMarker,
        now: DateTime<Utc>,
    ) -> Result<Restored, CheckpointError> {
        for _ in 0..LOOKS_MAX {
            let found = self.get(&marker.rollup, marker.slice_start).await?;
            let restored = match found {
                Some(found) if found.must_keep(marker, now) => {
                    return Ok(Restored::Kept(Box::new(found)));
                }
                ref found => follow(found.as_ref(), marker),
            };
            let update = replacing(found.as_ref(), &restored);
            if let Written::Done(_) = self.send(update, "restore").await? {
                if restored.state == State::Stale {
                    self.lower_watermark(&marker.rollup, marker.slice_start).await?;
                }
                return Ok(Restored::Restored(restored.state));
            }
        }
        let slice = label(&marker.rollup, marker.slice_start);
        Err(CheckpointError::Contended { operation: "restore", slice })
    }
}

impl Checkpoint {
    /// Whether the newest claim is the one that took `marker`. After checkpoints were restored or
    /// lost, two claims may have the same number.
    #[must_use]
    pub(crate) fn is_attempt_of(&self, marker: &CommittedMarker) -> bool {
        let is_owner = marker.owner.is_none() || self.owner == marker.owner;
        self.attempt == marker.attempt && is_owner
    }

    /// Whether [`Checkpoints::restore`] leaves this checkpoint unchanged.
    #[must_use]
    pub(crate) fn must_keep(&self, marker: &CommittedMarker, now: DateTime<Utc>) -> bool {
        let same_attempt = self.is_attempt_of(marker);
        let says_so_already = match self.state {
            State::Running => self.lease_until.is_some_and(|until| until > now),
            State::Succeeded => same_attempt && marker.stale.is_none(),
            State::Stale => same_attempt,
            State::Failed | State::Yielded => false,
        };
        self.attempt > marker.attempt || says_so_already
    }
}

/// The checkpoint that follows from the marker.
fn follow(found: Option<&Checkpoint>, marker: &CommittedMarker) -> Checkpoint {
    let (dirty, dirty_seen) = found.map_or((0, 0), |found| (found.dirty, found.dirty_seen));
    let reopens = u64::from(marker.stale.is_some());
    let stale = dirty + reopens != dirty_seen;
    let reason = match &marker.stale {
        Some(reason) => Some(shortened(reason).to_owned()),
        None if stale => found.and_then(|found| found.reason.clone()),
        None => None,
    };
    Checkpoint {
        rollup: marker.rollup.clone(),
        slice_start: marker.slice_start,
        state: if stale { State::Stale } else { State::Succeeded },
        attempt: marker.attempt,
        owner: marker.owner.clone().or_else(|| found.and_then(|found| found.owner.clone())),
        lease_until: None,
        claimed_from: found.and_then(|found| found.claimed_from),
        failures: 0,
        retry_at: None,
        dirty: dirty + reopens,
        dirty_seen,
        definition: Some(marker.definition.clone()),
        horizon: None,
        reason,
        error: None,
        outcome: Some(marker.outcome.clone()),
        reopened_at: found.and_then(|found| found.reopened_at),
        started_at: found.and_then(|found| found.started_at),
        finished_at: Some(marker.committed_at),
    }
}

/// The write that replaces the checkpoint found, provided that it is unchanged.
fn replacing(found: Option<&Checkpoint>, restored: &Checkpoint) -> Update {
    let unchanged = match found {
        None => Cond::Absent,
        Some(found) => {
            let dirty = Cond::is("dirty", number(found.dirty));
            let dirty = if found.dirty == 0 { Cond::lacks("dirty").or(dirty) } else { dirty };
            Cond::is("state", text(found.state.word()))
                .and(Cond::is("attempt", number(found.attempt)))
                .and(dirty)
        }
    };
    let update = Update::new(key(&restored.rollup, restored.slice_start), unchanged);
    let item = restored.to_item();
    let gone = ["lease_until", "retry_at", "error", "reason", "horizon", OPEN_UNTIL, UNFINISHED];
    let gone: Vec<_> = gone.into_iter().filter(|name| !item.contains_key(*name)).collect();
    item.into_iter()
        .filter(|(name, _)| name != PK && name != SK)
        .fold(update, |update, (name, value)| update.set(&name, value))
        .remove(&gone)
}
