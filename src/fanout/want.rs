//! What a backfill does with a slice. Pure.

use chrono::{DateTime, Utc};

use crate::checkpoint::Checkpoint;
use crate::plan::Standing;

/// What a backfill does with a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// It is to be computed, and reopened first.
    Again,
    /// It is to be computed.
    Compute,
    /// Nothing: it is done.
    Done,
    /// Nothing yet: somebody works on it, or its time to retry or its finer slices have not come.
    Pending,
    /// Nothing: it failed too often, and only a replay reopens it.
    Exhausted,
    /// Nothing ever: sealed, empty, or not over.
    Never,
}

/// What is done with a slice of `standing` by a backfill that computes `definition` and, with `force_since`, all
/// that has not begun since then.
pub(crate) fn want(
    standing: Standing,
    checkpoint: Option<&Checkpoint>,
    definition: &str,
    force_since: Option<DateTime<Utc>>,
) -> Want {
    match standing {
        Standing::OtherCalendar => Want::Again,
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
        Standing::Sealed | Standing::Empty | Standing::NotEnded => Want::Never,
    }
}
