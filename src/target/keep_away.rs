//! Deletes old slices of a rollup table, for `keep`: whole partitions of it, and rows.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::partitions::{self, Partition};
use super::{Target, TargetError};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbError, Tx};
use crate::model::rollup::Rollup;
use crate::model::sql::{literal, timestamptz};

/// Rows deleted by one statement, roughly. A few hundred milliseconds of work.
const ROWS_MAX: u32 = 10_000;

/// Slices deleted by one statement, as slices may be empty.
const SLICES_MAX: u32 = 1000;

/// Partitions dropped by one transaction: two years of months.
const PARTITIONS_MAX: usize = 24;

/// How long readers and writers of a table may wait behind the wish to drop its partitions.
const LOCK_MS: u32 = 1_000;

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
        let read = || Ok::<_, sqlx::Error>((counts(&row)?, row.try_get::<bool, _>("is_sealed")?));
        let (deleted, is_sealed) = read().map_err(|source| tx.error(DOING, source))?;
        if !is_sealed {
            tx.rollback().await?;
            return Err(TargetError::Stranger);
        }
        tx.commit().await?;
        Ok(deleted)
    }

    /// Drops the oldest partitions of the rollup's table whose rows are all older than this instant,
    /// and deletes what their slices have in others. The rows are those that the markers count. `None`:
    /// there is no such partition, or the table is in use for too long.
    ///
    /// # Errors
    /// As [`Target::keep_away`].
    pub(crate) async fn drop_partitions(
        &self,
        rollup: &Rollup,
        before: DateTime<Utc>,
    ) -> Result<Option<DeletedSlices>, TargetError> {
        const DOING: &str = "looking for the seal";
        let mut tx = self.db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &rollup.name).await?;
        let mut old = partitions::found(&mut tx, self, rollup).await?;
        old.retain(|partition| partition.span.1 <= before);
        old.truncate(PARTITIONS_MAX);
        if old.is_empty() {
            tx.rollback().await?;
            return Ok(None);
        }
        // As every replacement, it locks the registry before the table.
        let is_kept = self
            .keeper(&rollup.name)
            .map_or_else(|| "true".to_owned(), |id| format!("installation = {}", literal(&id)));
        let sql = format!(
            "SELECT FROM tallymark.rollup WHERE rollup = {} AND {is_kept} AND sealed_before >= {} \
             FOR SHARE",
            literal(&rollup.name),
            timestamptz(before)
        );
        if tx.rows(DOING, sql).await?.is_empty() {
            tx.rollback().await?;
            return Err(TargetError::Stranger);
        }
        match drop_each(self, &mut tx, rollup, &old).await {
            Err(error) if error.is_locked() => {
                tracing::info!(rollup = rollup.name, error = %error, "partitions stay for now");
                tx.rollback().await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
            Ok(dropped) => {
                tx.commit().await?;
                self.forget_partitions(rollup);
                Ok(Some(dropped))
            }
        }
    }
}

/// Drops these neighbouring partitions, if the table is free soon.
async fn drop_each(
    target: &Target,
    tx: &mut Tx,
    rollup: &Rollup,
    partitions: &[Partition],
) -> Result<DeletedSlices, DbError> {
    const LOCKING: &str = "locking the table to drop partitions";
    const MARKING: &str = "marking slices that are not kept";
    let (table, Some(last)) = (target.table(rollup), partitions.last()) else {
        return Ok(DeletedSlices::default());
    };
    tx.execute(LOCKING, format!("SET LOCAL lock_timeout = '{LOCK_MS}ms'")).await?;
    tx.execute(LOCKING, format!("LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE")).await?;
    let until = last.span.1;
    let sql = format!(
        include_str!("drop_partitions.sql"),
        rollup = literal(&rollup.name),
        until = timestamptz(until),
        table = table,
        time = rollup.time_key(),
        until_at = rollup.time_at(until),
        last = rollup.time_of("m.slice_end"),
    );
    let row = tx.row(MARKING, sql).await?;
    let dropped = counts(&row).map_err(|source| tx.error(MARKING, source))?;
    let names: Vec<&str> = partitions.iter().map(|partition| &*partition.name).collect();
    tx.execute("dropping partitions", format!("DROP TABLE {}", names.join(", "))).await?;
    Ok(dropped)
}

/// What a statement deleted.
fn counts(row: &PgRow) -> Result<DeletedSlices, sqlx::Error> {
    let count = |name| row.try_get::<i64, _>(name).map(i64::unsigned_abs);
    Ok(DeletedSlices { slices: count("slices")?, rows: count("rows")? })
}
