//! What can go wrong with a checkpoint, and what the caller can do about it.

use std::error::Error;
use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};

use super::item::label;
use super::state::State;
use super::store::StoreError;

/// Why a call on the checkpoints failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Somebody edited an item into something that no worker writes.
    #[error(
        "checkpoint {item}: attribute `{attribute}` {problem}; correct or delete the item, then run `tallymark repair`"
    )]
    Malformed {
        /// The item's key.
        item: String,
        /// The attribute.
        attribute: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The lease is not ours any more: stop, and write nothing.
    #[error(transparent)]
    LostLease(#[from] LostLease),
    /// The slice changed hands each time we looked; try again later.
    #[error("{slice} kept changing during {operation}; try again")]
    Contended {
        /// The call.
        operation: &'static str,
        /// The slice.
        slice: String,
    },
}

impl CheckpointError {
    /// Whether the same call may work later without anybody's doing.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.is_retryable(),
            Self::Contended { .. } => true,
            Self::Malformed { .. } | Self::LostLease(_) => false,
        }
    }

    /// Whether the store could not be reached at all.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_unreachable())
    }
}

/// The lease was lost: another attempt has the slice, or this one was ended already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostLease {
    /// The rollup.
    pub rollup: String,
    /// The slice's start.
    pub slice_start: DateTime<Utc>,
    /// The attempt that lost it.
    pub attempt: u64,
    /// How the slice stands now; `None`: its checkpoint is gone.
    pub found: Option<Found>,
}

/// What a lost lease found in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The slice's state.
    pub state: State,
    /// The newest attempt.
    pub attempt: u64,
    /// Who made it.
    pub held_by: Option<String>,
    /// Until when it holds the slice, if it is running.
    pub until: Option<DateTime<Utc>>,
}

impl Error for LostLease {}

impl fmt::Display for LostLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let slice = label(&self.rollup, self.slice_start);
        write!(f, "lease on {slice} lost by attempt {}: ", self.attempt)?;
        let Some(found) = &self.found else {
            return f.write_str("the checkpoint is gone; run `tallymark repair`");
        };
        let Found { state, attempt, held_by, until } = found;
        let holder = held_by.as_deref().map_or_else(|| "nobody".to_owned(), short);
        match (state, until) {
            (State::Running, Some(until)) => {
                write!(f, "attempt {attempt} held by {holder} until {}", instant(*until))
            }
            _ => write!(f, "attempt {attempt} of {holder} has {state}"),
        }
    }
}

/// Why a slice cannot be claimed now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimRefused {
    /// Somebody works on it.
    #[error("held by {} until {}", short(.owner), instant(*.until))]
    Held {
        /// Who.
        owner: String,
        /// Until when.
        until: DateTime<Utc>,
    },
    /// It is done.
    #[error("already succeeded")]
    Succeeded,
    /// It failed, and its time has not come.
    #[error("failed {failures} times, waits until {}", instant(*.retry_at))]
    Backoff {
        /// When it may be claimed.
        retry_at: DateTime<Utc>,
        /// Failures so far.
        failures: u32,
    },
    /// It failed too often.
    #[error(
        "failed {failures} times and is exhausted, last with: {error}; `tallymark replay` reopens it"
    )]
    Exhausted {
        /// Failures so far.
        failures: u32,
        /// What the last failure said.
        error: String,
    },
    /// The invocation's deadline has come; the store was not asked.
    #[error("no time left to work on it")]
    NoTimeLeft,
}

/// Why [`super::Checkpoints::claim`] gave no lease.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The slice is not to be had.
    #[error(transparent)]
    Refused(#[from] ClaimRefused),
    /// The call failed.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

/// The first digits of an owner's token, enough to tell two workers apart, and the process that made it.
fn short(owner: &str) -> String {
    let (token, process) = owner.split_once('@').unwrap_or((owner, ""));
    let token = token.get(..8).unwrap_or(token);
    if process.is_empty() { token.to_owned() } else { format!("{token} ({process})") }
}

fn instant(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
