//! Why the work on a slice stops before it is done.

use std::fmt;

use crate::checkpoint::CheckpointError;
use crate::clients::db::{DbError, DbErrorKind};
use crate::model::hint::Fault;
use crate::model::not_now::{NotNow, Why};
use crate::target::TargetError;

/// How the work on a slice ended, short of success.
pub(super) enum Stop {
    /// Yield, without a failure. The next attempt waits for the same horizon.
    NotNow { not_now: NotNow, horizon: Option<u64> },
    /// The slice failed.
    Fail { fault: Fault, retryable: bool },
    /// A newer attempt has the slice.
    Fenced(String),
    /// A server is unreachable. The slice did not fail.
    Unreachable(DbError),
    /// The checkpoint could not be written with the rows.
    Unrecorded(CheckpointError),
}

impl Stop {
    /// Yields, to continue at the next turn.
    pub(super) const fn because(why: Why) -> Self {
        Self::NotNow { not_now: NotNow::because(why), horizon: None }
    }

    /// Yields, because too little time is left.
    pub(super) fn out_of_time(text: &str) -> Self {
        Self::because(Why::OutOfTime(text.to_owned()))
    }

    /// Whether the source, the tables or the calendar may have changed.
    pub(super) const fn tells_of_change(&self) -> bool {
        match self {
            Self::Fail { .. } => true,
            Self::NotNow { not_now, .. } => {
                matches!(not_now.why, Why::OtherCalendar(_) | Why::OtherZone(_))
            }
            Self::Fenced(_) | Self::Unreachable(_) | Self::Unrecorded(_) => false,
        }
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotNow { not_now, .. } => not_now.fmt(f),
            Self::Fail { fault, .. } => fault.fmt(f),
            Self::Fenced(reason) => f.write_str(reason),
            Self::Unreachable(error) => error.fmt(f),
            Self::Unrecorded(error) => error.fmt(f),
        }
    }
}

impl From<NotNow> for Stop {
    fn from(not_now: NotNow) -> Self {
        Self::NotNow { not_now, horizon: None }
    }
}

impl From<TargetError> for Stop {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Fenced { .. } => Self::Fenced(error.to_string()),
            TargetError::Stranger => Self::Fail { fault: Fault::of(&error), retryable: true },
            TargetError::Forgotten => Self::because(Why::Server(Fault::of(&error))),
            TargetError::Superseded { .. } => Self::because(Why::OtherCalendar(Fault::of(&error))),
            TargetError::NotNow(why) => Self::because(why),
            TargetError::Shrunk { .. }
            | TargetError::Sealed { .. }
            | TargetError::Inconsistent { .. } => {
                Self::Fail { fault: Fault::of(&error), retryable: false }
            }
            TargetError::Checkpoint(error) if error.is_retryable() && !error.is_unreachable() => {
                Self::because(Why::Server(Fault::of(&error)))
            }
            TargetError::Checkpoint(error) => Self::Unrecorded(error),
            TargetError::Db(error) => error.into(),
        }
    }
}

impl From<DbError> for Stop {
    fn from(error: DbError) -> Self {
        match error.kind() {
            DbErrorKind::Unreachable | DbErrorKind::Login => Self::Unreachable(error),
            DbErrorKind::Contended if error.is_table_locked() => {
                Self::because(Why::TableLocked(Fault::of(&error)))
            }
            DbErrorKind::Contended | DbErrorKind::Unclear => {
                Self::because(Why::Server(Fault::of(&error)))
            }
            DbErrorKind::Cancelled
            | DbErrorKind::Denied
            | DbErrorKind::RowSecurity
            | DbErrorKind::Missing
            | DbErrorKind::Refused => Self::Fail { fault: Fault::of(&error), retryable: true },
        }
    }
}
