//! How a backfill treats a slice. Pure.

use chrono::{DateTime, Utc};

use crate::checkpoint::Checkpoint;
use crate::work::due::Standing;

/// How a backfill treats a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Reopen it, then compute it.
    Again,
    Compute,
    /// Leave it: it is done.
    Done,
    /// Leave it for now: a worker has it, or its time to retry or its finer slices are still to
    /// come.
    Pending,
    /// Leave it: it failed too often, and only a replay reopens it.
    Exhausted,
    /// Leave it for good: sealed, adopted, empty, or still going on.
    Never,
}

/// How a backfill treats a slice of this `standing`. The backfill computes `definition` and, with
/// `force_since`, every slice that has not started since then.
pub(crate) fn want(
    standing: Standing,
    checkpoint: Option<&Checkpoint>,
    definition: &str,
    force_since: Option<DateTime<Utc>>,
) -> Want {
    match standing {
        Standing::OtherCalendar | Standing::Grown => Want::Again,
        Standing::Succeeded | Standing::Lookback | Standing::Redefined => {
            let is_other =
                checkpoint.is_some_and(|it| it.definition.as_deref() != Some(definition));
            let began = checkpoint.and_then(|checkpoint| checkpoint.started_at);
            let is_old = force_since.is_some_and(|since| began.is_none_or(|began| began < since));
            if is_other || is_old { Want::Again } else { Want::Done }
        }
        Standing::Missing
        | Standing::Retry
        | Standing::Yielded
        | Standing::LeaseOver
        | Standing::Stale => Want::Compute,
        Standing::Running | Standing::Waiting | Standing::Blocked => Want::Pending,
        Standing::Exhausted => Want::Exhausted,
        Standing::Sealed
        | Standing::Adopted
        | Standing::Empty
        | Standing::Open
        | Standing::NotEnded => Want::Never,
    }
}
