//! What can go wrong with a checkpoint, and what the caller can do about it.

use std::error::Error;
use std::fmt;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};
use chrono::{DateTime, SecondsFormat, Utc};

use super::item::label;
use super::state::State;
use crate::aws::{place_of, root_cause};
use crate::text::cut;

type Source = Box<dyn Error + Send + Sync>;

/// Why a call on the checkpoints failed.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// No answer: no connection, or none in time.
    #[error("dynamodb could not be reached ({operation}){}: {problem}", place_of("DYNAMODB"))]
    Unreachable {
        /// The call.
        operation: &'static str,
        /// The innermost cause.
        problem: String,
        /// What the SDK said.
        source: Source,
    },
    /// DynamoDB asked to slow down, and went on doing so while the SDK retried.
    #[error("dynamodb throttled {operation} on table `{table}`: {problem}")]
    Throttled {
        /// The call.
        operation: &'static str,
        /// The table.
        table: String,
        /// What DynamoDB said.
        problem: String,
        /// What the SDK said.
        source: Source,
    },
    /// No credentials, wrong ones, or no permission.
    #[error("dynamodb denied {operation} on table `{table}`: {problem}")]
    Denied {
        /// The call.
        operation: &'static str,
        /// The table.
        table: String,
        /// What DynamoDB said.
        problem: String,
        /// What the SDK said.
        source: Source,
    },
    /// The table is not there.
    #[error("table `{table}` does not exist; run `tallymark init`")]
    NoTable {
        /// The table.
        table: String,
    },
    /// A table of this name is there, and it is not ours.
    #[error(
        "table `{table}` {problem}; delete it, or set `checkpoint.table` to another name and run `tallymark init`"
    )]
    WrongTable {
        /// The table.
        table: String,
        /// What is different.
        problem: String,
    },
    /// The table is not usable yet.
    #[error("table `{table}` is {status} after {seconds} s; wait and run the command again")]
    NotActive {
        /// The table.
        table: String,
        /// The status that DynamoDB shows.
        status: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// No region is configured.
    #[error("no AWS region is configured; set AWS_REGION, for example AWS_REGION=eu-central-1")]
    NoRegion,
    /// The environment says something about AWS that no SDK understands.
    #[error("the environment variable {0}")]
    Environment(String),
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
    /// Anything else that DynamoDB or the SDK refuses.
    #[error("{operation} on table `{table}` failed: {problem}")]
    Other {
        /// The call.
        operation: &'static str,
        /// The table.
        table: String,
        /// What DynamoDB said.
        problem: String,
        /// DynamoDB's word for it, if DynamoDB said it.
        code: Option<String>,
        /// Whether the same call may work later.
        retryable: bool,
        /// What the SDK said.
        source: Source,
    },
}

impl CheckpointError {
    /// Whether the same call may work later without anybody's doing.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. }
            | Self::Throttled { .. }
            | Self::NotActive { .. }
            | Self::Contended { .. } => true,
            Self::Other { retryable, .. } => *retryable,
            _ => false,
        }
    }

    /// Whether DynamoDB could not be reached at all.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// Whether DynamoDB found the request itself wrong.
    pub(super) fn is_validation(&self) -> bool {
        matches!(self, Self::Other { code: Some(code), .. } if code == "ValidationException")
    }

    /// What the SDK's error means.
    pub(super) fn from_sdk<E>(operation: &'static str, table: &str, error: SdkError<E>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let table = table.to_owned();
        let unreachable = match &error {
            SdkError::TimeoutError(_) => true,
            // Of another kind and transient: the connection was closed in place of the reply.
            SdkError::DispatchFailure(failure) => {
                failure.is_io() || failure.is_timeout() || failure.as_other().is_some()
            }
            _ => false,
        };
        if unreachable {
            let problem = root_cause(&error);
            return Self::Unreachable { operation, problem, source: error.into() };
        }
        let server_fault = error.raw_response().is_some_and(|raw| raw.status().is_server_error());
        let Some(code) = error.as_service_error().and_then(|error| error.code()) else {
            let problem = root_cause(&error);
            // The SDK has no type of its own for this; without credentials no request is sent.
            if matches!(error, SdkError::DispatchFailure(_)) {
                let problem = format!(
                    "no usable AWS credentials ({problem}); set AWS_PROFILE, or AWS_ACCESS_KEY_ID \
                     and AWS_SECRET_ACCESS_KEY (any values for a local endpoint)"
                );
                return Self::Denied { operation, table, problem, source: error.into() };
            }
            let retryable = server_fault || matches!(error, SdkError::ResponseError(_));
            let source = error.into();
            return Self::Other { operation, table, problem, code: None, retryable, source };
        };
        let message = cut(error.message().unwrap_or("no message"));
        let problem = format!("{message} ({code})");
        match code {
            "ResourceNotFoundException" => Self::NoTable { table },
            "ProvisionedThroughputExceededException"
            | "ThrottlingException"
            | "RequestLimitExceeded" => {
                Self::Throttled { operation, table, problem, source: error.into() }
            }
            "AccessDeniedException"
            | "ExpiredTokenException"
            | "IncompleteSignatureException"
            | "InvalidSignatureException"
            | "MissingAuthenticationTokenException"
            | "UnrecognizedClientException" => {
                Self::Denied { operation, table, problem, source: error.into() }
            }
            _ => {
                let conflict = code == "TransactionConflictException"
                    || code == "ReplicatedWriteConflictException";
                let retryable = server_fault || conflict;
                let code = Some(code.to_owned());
                Self::Other { operation, table, problem, code, retryable, source: error.into() }
            }
        }
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
    /// The invocation's deadline has come; DynamoDB was not asked.
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
