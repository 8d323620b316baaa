//! Deletes old slices of a rollup table, for `keep`.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::Row as _;

use super::{Target, TargetError};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT};
use crate::model::rollup::Rollup;
use crate::model::sql::{literal, timestamptz};

/// Rows deleted by one statement, roughly. A few hundred milliseconds of work.
const ROWS_MAX: u32 = 10_000;

/// Slices deleted by one statement, as slices may be empty.
const SLICES_MAX: u32 = 1000;

/// Slices whose rows were deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeletedSlices {
    pub slices: u64,
    /// Their rows in the rollup tables.
    pub rows: u64,
}

impl Target {
    /// Deletes the rows of some slices of `rollup` that start before this instant, the oldest first.
    /// No slice: all are deleted.
    ///
    /// # Errors
    /// [`TargetError::Stranger`] if the registry does not seal them for this installation. Or the
    /// server refuses or cannot be reached.
    pub(crate) async fn keep_away(
        &self,
        rollup: &Rollup,
        before: DateTime<Utc>,
    ) -> Result<DeletedSlices, TargetError> {
        const DOING: &str = "deleting slices that are not kept";
        let is_kept =
            self.keeper(&rollup.name).map(|id| format!("installation = {}", literal(&id)));
        let sql = format!(
            include_str!("keep_away.sql"),
            rollup = literal(&rollup.name),
            is_kept = is_kept.as_deref().unwrap_or("true"),
            before = timestamptz(before),
            table = self.table(rollup),
            time = rollup.time_key(),
            first = rollup.time_of("o.slice_start"),
            last = rollup.time_of("o.slice_end"),
            rows_max = ROWS_MAX,
            slices_max = SLICES_MAX,
        );
        let mut tx = self.db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &rollup.name).await?;
        let row = tx.row(DOING, sql).await?;
        let read = || {
            let count = |name| row.try_get::<i64, _>(name).map(i64::unsigned_abs);
            let deleted = DeletedSlices { slices: count("slices")?, rows: count("rows")? };
            Ok::<_, sqlx::Error>((deleted, row.try_get::<bool, _>("is_sealed")?))
        };
        let (deleted, is_sealed) = read().map_err(|source| tx.error(DOING, source))?;
        if !is_sealed {
            tx.rollback().await?;
            return Err(TargetError::Stranger);
        }
        tx.commit().await?;
        Ok(deleted)
    }
}
