//! What can go wrong with a store.

use std::error::Error;

type Source = Box<dyn Error + Send + Sync>;

/// Why a call on the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No answer: no connection, or none in time.
    #[error("{store} could not be reached ({operation}){place}: {problem}")]
    Unreachable {
        /// The store's name.
        store: &'static str,
        /// The call.
        operation: &'static str,
        /// Where it was looked for, as it follows in a sentence.
        place: String,
        /// The innermost cause.
        problem: String,
        /// What the driver said.
        source: Source,
    },
    /// The store asked to slow down, and went on doing so while the call was repeated.
    #[error("{store} throttled {operation} on table `{table}`: {problem}")]
    Throttled {
        /// The store's name.
        store: &'static str,
        /// The call.
        operation: &'static str,
        /// The table.
        table: String,
        /// What the store said.
        problem: String,
        /// What the driver said.
        source: Source,
    },
    /// No credentials, wrong ones, or no permission.
    #[error("{store} denied {operation} on table `{table}`: {problem}")]
    Denied {
        /// The store's name.
        store: &'static str,
        /// The call.
        operation: &'static str,
        /// The table.
        table: String,
        /// What the store said.
        problem: String,
        /// What the driver said.
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
        /// What is wrong with it.
        problem: String,
    },
    /// The table is not usable yet.
    #[error("table `{table}` is {status} after {seconds} s; wait and run the command again")]
    NotActive {
        /// The table.
        table: String,
        /// The status that the store shows.
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
    /// The store found the call itself wrong, as where an item holds another type than a write
    /// expects.
    #[error("{operation} on table `{table}` failed: {problem}")]
    Invalid {
        /// The call.
        operation: &'static str,
        /// The table.
        table: String,
        /// What the store said.
        problem: String,
        /// What the driver said.
        source: Source,
    },
    /// Anything else that the store or its driver refuses.
    #[error("{operation} on table `{table}` failed: {problem}")]
    Other {
        /// The call.
        operation: &'static str,
        /// The table.
        table: String,
        /// What the store said.
        problem: String,
        /// Whether the same call may work later.
        retryable: bool,
        /// What the driver said.
        source: Source,
    },
}

impl StoreError {
    /// Whether the same call may work later, with nothing else changed.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Throttled { .. } | Self::NotActive { .. } => true,
            Self::Other { retryable, .. } => *retryable,
            _ => false,
        }
    }

    /// Whether the store could not be reached at all.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}
