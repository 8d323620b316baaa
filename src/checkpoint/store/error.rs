//! Errors of a store.

use std::error::Error;

type Source = Box<dyn Error + Send + Sync>;

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
        source: Source,
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
        source: Source,
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
        source: Source,
    },
    /// The table is missing.
    #[error("table `{table}` does not exist; run `tallymark init`")]
    NoTable { table: String },
    /// A table of this name exists, but it is not Tallymark's.
    #[error("table `{table}` {problem}; {remedy} and run `tallymark init`")]
    WrongTable {
        table: String,
        /// The problem with it.
        problem: String,
        /// The step before `tallymark init`.
        remedy: &'static str,
    },
    /// The table is not usable yet.
    #[error("table `{table}` is {status} after {seconds} s; wait and run the command again")]
    NotActive {
        table: String,
        /// The status in the store's answer.
        status: String,
        /// The time spent waiting.
        seconds: u64,
    },
    /// No region is configured.
    #[error("no AWS region is configured; set AWS_REGION, for example AWS_REGION=eu-central-1")]
    NoRegion,
    /// The AWS SDK cannot use a setting in the environment.
    #[error("the environment variable {0}")]
    Environment(String),
    /// The store rejects the call as invalid. This happens when an item holds another type than a
    /// write expects.
    #[error("{operation} on table `{table}` failed: {problem}")]
    Invalid {
        operation: &'static str,
        table: String,
        /// The store's message.
        problem: String,
        /// The driver's error.
        source: Source,
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
        source: Source,
    },
}

impl StoreError {
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
