//! Errors of a store.

use std::borrow::Cow;
use std::error::Error;

use crate::clients::db::DbError;
use crate::model::hint::{Fault, Hinted};

type Cause = Box<dyn Error + Send + Sync>;

/// Why a call on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, or no answer in time.
    #[error("{store} could not be reached ({operation}){place}: {problem}")]
    Unreachable {
        /// The store's name.
        store: &'static str,
        operation: &'static str,
        /// The place of the store, in the form that follows in a sentence.
        place: String,
        /// The innermost cause.
        problem: String,
        /// The driver's error.
        source: Cause,
    },
    /// The store throttled the call and all its repetitions.
    #[error("{store} throttled {operation} on table `{table}`: {problem}")]
    Throttled {
        /// The store's name.
        store: &'static str,
        operation: &'static str,
        table: String,
        /// The store's message.
        problem: String,
        /// The driver's error.
        source: Cause,
    },
    /// Credentials are missing or wrong, or lack the permission.
    #[error("{store} denied {operation} on table `{table}`: {problem}")]
    Denied {
        /// The store's name.
        store: &'static str,
        operation: &'static str,
        table: String,
        /// The store's message.
        problem: String,
        /// The driver's error.
        source: Cause,
    },
    /// Nothing in the environment says how to log in.
    #[error("{operation} on table `{table}`: no usable AWS credentials ({problem})")]
    NoCredentials {
        operation: &'static str,
        table: String,
        /// The SDK's message.
        problem: String,
        /// The SDK's error.
        source: Cause,
    },
    /// The role lacks rights on a table in the target.
    #[error("table `{table}`: {role} lacks {rights}")]
    Lacks {
        table: String,
        role: String,
        /// The rights that are missing.
        rights: String,
        /// The statement that gives them.
        grant: String,
    },
    /// The table is missing.
    #[error("table `{table}` does not exist")]
    NoTable { table: String },
    /// A table of this name exists, but it is not Tallymark's.
    #[error("table `{table}` {problem}")]
    WrongTable {
        table: String,
        /// The problem with it.
        problem: String,
        /// The step before `tallymark init`.
        remedy: &'static str,
    },
    /// The table is not usable yet.
    #[error("table `{table}` is {status} after {seconds} s")]
    NotActive {
        table: String,
        /// The status in the store's answer.
        status: String,
        /// The time spent waiting.
        seconds: u64,
    },
    /// No region is configured.
    #[error("no AWS region is configured")]
    NoRegion,
    /// The AWS SDK cannot use a setting in the environment.
    #[error("the environment variable {0}")]
    Environment(Fault),
    /// The store rejects the call as invalid. This happens when an item holds another type than a
    /// write expects.
    #[error("{operation} on table `{table}` failed: {problem}")]
    Invalid {
        operation: &'static str,
        table: String,
        /// The store's message.
        problem: String,
        /// The driver's error.
        source: Cause,
    },
    /// Any other error of the store or its driver.
    #[error("{operation} on table `{table}` failed: {problem}")]
    Other {
        operation: &'static str,
        table: String,
        /// The store's message.
        problem: String,
        /// Whether the same call may succeed later.
        retryable: bool,
        /// The driver's error.
        source: Cause,
    },
}

impl Hinted for StoreError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        if let Some(hint) = self.of_database() {
            return Some(hint);
        }
        let hint = match self {
            Self::NoTable { .. } => "run `tallymark init`",
            Self::WrongTable { remedy, .. } => {
                return Some(format!("{remedy} and run `tallymark init`").into());
            }
            Self::Lacks { grant, .. } => {
                return Some(format!("run {grant}, as the table's owner").into());
            }
            Self::NotActive { .. } => "wait and run the command again",
            Self::NoRegion => "set AWS_REGION, for example AWS_REGION=eu-central-1",
            Self::Environment(fault) => return fault.hint(),
            Self::NoCredentials { .. } => {
                "set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (any values for a \
                 local endpoint)"
            }
            Self::Unreachable { .. } => "run the command again once the store answers",
            Self::Throttled { .. } => "run the command again later, or raise the table's capacity",
            Self::Denied { .. } => "correct the credentials, or grant this role the call",
            Self::Other { retryable: true, .. } => "run the command again",
            Self::Invalid { .. } | Self::Other { .. } => {
                "put right what the store says, and run the command again"
            }
        };
        Some(hint.into())
    }
}

impl StoreError {
    /// The remedy of the database that holds the table.
    fn of_database(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Unreachable { source, .. }
            | Self::Denied { source, .. }
            | Self::Invalid { source, .. }
            | Self::Other { source, .. } => source.downcast_ref::<DbError>()?.hint(),
            _ => None,
        }
    }

    /// Whether the same call may succeed later.
    #[must_use]
    pub(crate) const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Throttled { .. } | Self::NotActive { .. } => true,
            Self::Other { retryable, .. } => *retryable,
            _ => false,
        }
    }

    /// Whether the store was unreachable.
    #[must_use]
    pub(crate) const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}
