//! The generation of a rollup's rows: what the registry says, and what other calendars left.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Registered, Target, TargetError};
use crate::checkpoint::Lease;
use crate::db::{Access, CATALOGUE_TIMEOUT, DbError, Tx};
use crate::rollup::Rollup;
use crate::rollup::generation::generation_of;
use crate::sql::{literal, timestamptz};

const READING: &str = "reading the generation";

/// What the registry says of the rows of `rollup`.
pub(super) async fn registered(tx: &mut Tx, rollup: &Rollup) -> Result<Registered, DbError> {
    let sql = format!(
        "SELECT generation, calendar FROM tallymark.rollup WHERE rollup = {}",
        literal(&rollup.name)
    );
    let rows = tx.rows(READING, sql).await?;
    let Some(row) = rows.first() else { return Ok(Registered::default()) };
    let read = || {
        Ok::<_, sqlx::Error>(Registered {
            generation: row.try_get::<i64, _>("generation")?.unsigned_abs(),
            calendar: row.try_get("calendar")?,
        })
    };
    read().map_err(|source| tx.error(READING, source))
}

/// Raises the registry's generation to that of `lease`, if it is older, until `tx` ends. Attempts of
/// the generation before that hold it are waited for; those that come after find it raised. What the
/// calendar before had computed of the slice that is still under way goes now: no replacement would
/// take it away before the end of that slice.
///
/// # Errors
/// [`TargetError::Superseded`] if the registry's is newer.
pub(super) async fn raise(
    tx: &mut Tx,
    target: &Target,
    lease: &Lease,
    rollup: &Rollup,
) -> Result<(), TargetError> {
    let mine = generation_of(lease.definition());
    let sql = format!(
        "UPDATE tallymark.rollup SET generation = {mine}, calendar = {} \
         WHERE rollup = {} AND generation < {mine}",
        literal(&rollup.calendar_words()),
        literal(&rollup.name),
    );
    let is_raised = tx.execute("raising the generation", sql).await? > 0;
    let claimed_at = lease.checkpoint().started_at;
    if let Some(newest) = claimed_at.and_then(|now| rollup.newest(now)).filter(|_| is_raised) {
        let edge = newest.end().max(rollup.seal_before.unwrap_or(newest.end()));
        let sql = format!(
            "WITH gone AS (DELETE FROM tallymark.slice WHERE rollup = {} AND slice_start >= {} \
             RETURNING slice_start, slice_end) DELETE FROM {} r USING gone \
             WHERE r.bucket >= gone.slice_start AND r.bucket < gone.slice_end",
            literal(&rollup.name),
            timestamptz(edge),
            target.table(rollup),
        );
        tx.execute("deleting what the calendar before left", sql).await?;
    }
    match registered(tx, rollup).await?.generation {
        newest if newest > mine => Err(TargetError::Superseded { mine, newest }),
        _ => Ok(()),
    }
}

/// Rows that the present calendar and `start` have no slice for.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Outside {
    /// Rows that belong to no slice of the present calendar: before `start`, or of another calendar.
    pub rows: u64,
    /// The first of their buckets.
    pub first: Option<DateTime<Utc>>,
    /// The last of their buckets.
    pub last: Option<DateTime<Utc>>,
}

impl Target {
    /// What the registry says of the rows of `rollup`; nothing where there is no registry yet.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub async fn registered(&self, rollup: &Rollup) -> Result<Registered, DbError> {
        let mut tx = self.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
        let found = registered(&mut tx, rollup).await?;
        tx.rollback().await?;
        Ok(found)
    }

    /// The rows outside of every slice of `rollup`: buckets before `start`, and what slices of an
    /// older `generation` hold that no slice of the present one has replaced yet. Sealed history
    /// stays as it is: it is not counted.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub async fn outside(&self, rollup: &Rollup, generation: u64) -> Result<Outside, DbError> {
        let doing = "looking for rows outside of every slice";
        let mut tx = self.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
        let sql = format!(
            "{older} SELECT count(*) AS rows, min(bucket) AS first, max(bucket) AS last \
             FROM {table} r WHERE {outside}",
            older = older_slices(rollup, generation),
            table = self.table(rollup),
            outside = outside_condition(rollup),
        );
        let row = tx.row(doing, sql).await?;
        let read = || {
            Ok::<_, sqlx::Error>(Outside {
                rows: row.try_get::<i64, _>("rows")?.unsigned_abs(),
                first: row.try_get("first")?,
                last: row.try_get("last")?,
            })
        };
        let found = read().map_err(|source| tx.error(doing, source))?;
        tx.rollback().await?;
        Ok(found)
    }

    /// Deletes the rows that [`Target::outside`] counts, with the markers of their slices; returns
    /// how many rows.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub async fn delete_outside(&self, rollup: &Rollup, generation: u64) -> Result<u64, DbError> {
        let mut tx = self.db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &rollup.name).await?;
        // Replacements lock it first as well: none of them is half-way.
        let lock = "SELECT FROM tallymark.rollup WHERE rollup = ";
        tx.execute("locking the registry", format!("{lock}{} FOR UPDATE", literal(&rollup.name)))
            .await?;
        let sql = format!(
            "{} DELETE FROM {} r WHERE {}",
            older_slices(rollup, generation),
            self.table(rollup),
            outside_condition(rollup)
        );
        let rows = tx.execute("deleting rows outside of every slice", sql).await?;
        let sql = format!(
            "DELETE FROM tallymark.slice m WHERE rollup = {} AND ({} OR slice_end <= {})",
            literal(&rollup.name),
            is_older(rollup, generation),
            timestamptz(rollup.start),
        );
        tx.execute("deleting their markers", sql).await?;
        tx.commit().await?;
        Ok(rows)
    }
}

/// The slices of an older generation, found once: there are none in the usual case, and a look at every marker for each
/// row would take minutes where there are a hundred thousand rows.
fn older_slices(rollup: &Rollup, generation: u64) -> String {
    format!(
        "WITH older AS MATERIALIZED (SELECT slice_start, slice_end FROM tallymark.slice m \
         WHERE m.rollup = {} AND {})",
        literal(&rollup.name),
        is_older(rollup, generation)
    )
}

/// The condition that a row `r` lies outside of every slice, with [`older_slices`] before it.
fn outside_condition(rollup: &Rollup) -> String {
    let before = match rollup.seal_before {
        Some(seal) if seal > rollup.start => "false".to_owned(),
        _ => format!("r.bucket < {}", timestamptz(rollup.start)),
    };
    format!(
        "{before} OR EXISTS (SELECT FROM older m \
         WHERE m.slice_start <= r.bucket AND r.bucket < m.slice_end)"
    )
}

/// The condition that the marker `m` is of an older generation, and not sealed.
fn is_older(rollup: &Rollup, generation: u64) -> String {
    let seal = rollup
        .seal_before
        .map_or_else(String::new, |seal| format!(" AND m.slice_start >= {}", timestamptz(seal)));
    format!(
        "(m.replaced_at IS NOT NULL AND \
         coalesce(nullif(split_part(split_part(m.definition, '~', 1), '.', 2), ''), '0')::bigint < {generation}{seal})"
    )
}
