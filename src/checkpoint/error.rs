//! Errors of checkpoints, and what the caller can do about them.

use crate::model::clock::rfc3339;
use crate::model::hint::Hinted;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;

use chrono::{DateTime, Utc};

use super::claim::Lease;
use super::item::label;
use super::state::{State, times};
use super::store::StoreError;
use super::tombstone::Elsewhere;

/// Why a call on the checkpoints failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An item has content that no worker writes, as after an edit by hand.
    #[error("checkpoint {item}: attribute `{attribute}` {problem}")]
    Malformed {
        item: String,
        attribute: &'static str,
        /// The problem with it.
        problem: String,
    },
    /// The lease is lost. Stop, and write nothing.
    #[error(transparent)]
    LostLease(#[from] LostLease),
    /// The checkpoints were copied into another store, which counts from then on.
    #[error("rollup `{rollup}`: its checkpoints are in {} since {}", .to.place, rfc3339(.to.at))]
    Moved {
        rollup: String,
        /// The store that counts.
        to: Elsewhere,
    },
    /// The copy into this store is incomplete.
    #[error("rollup `{rollup}`: the copy of its checkpoints from {} is unfinished", .from.place)]
    Incomplete {
        rollup: String,
        /// The store that the copy reads.
        from: Elsewhere,
    },
    /// The slice changed between each read and write. Try again later.
    #[error("{slice} kept changing during {operation}")]
    Contended { operation: &'static str, slice: String },
}

impl Hinted for CheckpointError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Malformed { .. } => {
                Some("correct or delete the item, then run `tallymark repair`".into())
            }
            Self::LostLease(error) => error.hint(),
            Self::Moved { to, .. } => Some(format!("set {} in [checkpoint]", to.setting).into()),
            Self::Incomplete { from, .. } => Some(
                format!(
                    "set {} in [checkpoint], and run the same `tallymark checkpoints copy` again",
                    from.setting
                )
                .into(),
            ),
            Self::Contended { .. } => Some("try again".into()),
        }
    }
}

impl CheckpointError {
    /// Whether the same call may succeed later without intervention.
    #[must_use]
    pub(crate) const fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Contended { .. } => true,
            Self::Malformed { .. }
            | Self::LostLease(_)
            | Self::Moved { .. }
            | Self::Incomplete { .. } => false,
        }
    }

    /// Whether the store was unreachable.
    #[must_use]
    pub(crate) const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_unreachable())
    }
}

/// The lease was lost: another attempt has the slice, or this one had already ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostLease {
    pub(crate) rollup: String,
    pub(crate) slice_start: DateTime<Utc>,
    /// The attempt that lost it.
    pub(crate) attempt: u64,
    /// The slice's present state. `None`: its checkpoint is gone.
    pub(crate) found: Option<FoundState>,
}

/// The slice's state when a lost lease was noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FoundState {
    pub(crate) state: State,
    /// The newest attempt.
    pub(crate) attempt: u64,
    /// Its worker.
    pub(crate) held_by: Option<String>,
    /// The end of its lease, if it is running.
    pub(crate) until: Option<DateTime<Utc>>,
}

impl LostLease {
    /// Whether the slice has succeeded by the attempt that holds `lease`. Restored checkpoints may
    /// repeat the number of an attempt, so the owner decides too.
    #[must_use]
    pub(crate) fn is_success_of(&self, lease: &Lease) -> bool {
        self.found.as_ref().is_some_and(|found| {
            found.state == State::Succeeded
                && found.attempt == lease.attempt()
                && found.held_by.as_deref() == Some(lease.owner())
        })
    }
}

impl Error for LostLease {}

impl Hinted for LostLease {
    fn hint(&self) -> Option<Cow<'_, str>> {
        self.found.is_none().then(|| "run `tallymark repair`".into())
    }
}

impl fmt::Display for LostLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slice = label(&self.rollup, self.slice_start);
        write!(f, "lease on {slice} lost by attempt {}: ", self.attempt)?;
        let Some(found) = &self.found else {
            return f.write_str("the checkpoint is gone");
        };
        let FoundState { state, attempt, held_by, until } = found;
        let holder = held_by.as_deref().map_or_else(|| "nobody".to_owned(), short);
        match (state, until) {
            (State::Running, Some(until)) => {
                write!(f, "attempt {attempt} leased by {holder} until {}", rfc3339(*until))
            }
            _ => write!(f, "attempt {attempt} of {holder} has {state}"),
        }
    }
}

/// Why a slice cannot be claimed now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimRefused {
    /// Another worker has it.
    #[error("leased by {} until {}", short(.owner), rfc3339(*.until))]
    Leased {
        /// That worker.
        owner: String,
        /// The end of its lease.
        until: DateTime<Utc>,
    },
    /// It has already succeeded.
    #[error("already succeeded")]
    Succeeded,
    /// It failed, and the time to retry is still to come.
    #[error("failed {}, waits until {}", times(*.failures), rfc3339(*.retry_at))]
    Backoff {
        /// When it may be claimed.
        retry_at: DateTime<Utc>,
        /// Failures so far.
        failures: u32,
    },
    /// It failed too often.
    #[error(
        "failed {} and is exhausted, last with: {error}",
        times(*.failures)
    )]
    Exhausted {
        /// Failures so far.
        failures: u32,
        /// The text of the last failure.
        error: String,
    },
    /// The invocation's deadline has passed, and no request was sent to the store.
    #[error("no time left to work on it")]
    NoTimeLeft,
}

impl Hinted for ClaimRefused {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Exhausted { .. } => {
                Some("correct the cause, then run `tallymark replay` to reopen it".into())
            }
            Self::Leased { .. } | Self::Succeeded | Self::Backoff { .. } | Self::NoTimeLeft => None,
        }
    }
}

/// Why [`super::Checkpoints::claim`] gave no lease.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The slice cannot be claimed now.
    #[error(transparent)]
    Refused(#[from] ClaimRefused),
    /// The call failed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl Hinted for ClaimError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Refused(refused) => refused.hint(),
            Self::Checkpoint(error) => error.hint(),
        }
    }
}

/// The first digits of an owner's token, enough to tell two workers apart, and the owner's process.
pub(super) fn short(owner: &str) -> String {
    let (token, process) = owner.split_once('@').unwrap_or((owner, ""));
    let token = token.get(..8).unwrap_or(token);
    if process.is_empty() { token.to_owned() } else { format!("{token} ({process})") }
}
