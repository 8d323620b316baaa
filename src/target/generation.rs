//! The generation of a rollup's rows in the registry, and the rows that other calendars left.

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::{Closed, Registered, Target, TargetError};
use crate::checkpoint::Lease;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbError, Tx};
use crate::model::hint::Fault;
use crate::model::rollup::generation::generation_of;
use crate::model::rollup::{BucketType, Rollup};
use crate::model::sql::{literal, timestamptz};

const READING: &str = "reading the generation";

/// The registry's entry for the rows of `rollup`.
pub(super) async fn registered(tx: &mut Tx, rollup: &Rollup) -> Result<Registered, DbError> {
    let sql = format!(
        "SELECT generation, calendar, sealed_before FROM tallymark.rollup WHERE rollup = {}",
        literal(&rollup.name)
    );
    let rows = tx.rows(READING, sql).await?;
    let Some(row) = rows.first() else { return Ok(Registered::default()) };
    let read = || {
        Ok::<_, sqlx::Error>(Registered {
            generation: row.try_get::<i64, _>("generation")?.unsigned_abs(),
            calendar: row.try_get("calendar")?,
            sealed_before: row.try_get("sealed_before")?,
            closed: None,
        })
    };
    read().map_err(|source| tx.error(READING, source))
}

/// [`registered`], with a check that the role may write to the tables of `rollup`.
pub(super) async fn registered_for_work(
    tx: &mut Tx,
    target: &Target,
    rollup: &Rollup,
) -> Result<Registered, DbError> {
    let sql = format!(
        include_str!("open.sql"),
        table = literal(&target.table(rollup)),
        stage = literal(&Target::stage(rollup)),
        rollup = literal(&rollup.name)
    );
    let rows = tx.rows(READING, sql).await?;
    let Some(row) = rows.first() else { return Ok(Registered::default()) };
    let closed = || {
        let Some(table) = row.try_get::<Option<String>, _>("closed")? else {
            return Ok::<_, sqlx::Error>(None);
        };
        let (lacks, role): (String, String) = (row.try_get("lacks")?, row.try_get("role")?);
        let problem = Fault::new(format!("is closed to role {role}, which lacks {lacks} there"))
            .remedy(format!("as its owner: GRANT {lacks} ON {table} TO {role}"));
        Ok(Some(Closed { table, problem }))
    };
    let read = || {
        Ok::<_, sqlx::Error>(Registered {
            generation: row.try_get::<i64, _>("generation")?.unsigned_abs(),
            calendar: row.try_get("calendar")?,
            sealed_before: row.try_get("sealed_before")?,
            closed: closed()?,
        })
    };
    read().map_err(|source| tx.error(READING, source))
}

/// Raises the registry's generation to that of `lease`, if it is older, until `tx` ends. This waits
/// for attempts of the previous generation, which lock it. Later attempts find it raised. The
/// previous calendar's rows of the slice that is still under way are deleted now, as the next
/// replacement that would delete them comes only after the end of that slice.
///
/// # Errors
/// [`TargetError::Superseded`] if the registry's generation is newer.
pub(super) async fn raise(
    tx: &mut Tx,
    target: &Target,
    lease: &Lease,
    rollup: &Rollup,
) -> Result<Registered, TargetError> {
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
        let name = literal(&rollup.name);
        let sql = format!(
            "WITH gone AS (DELETE FROM tallymark.slice WHERE rollup = {name} AND slice_start >= \
             greatest({}, (SELECT sealed_before FROM tallymark.rollup WHERE rollup = {name})) \
             RETURNING slice_start, slice_end) DELETE FROM {} r USING gone \
             WHERE r.{time} >= {first} AND r.{time} < {last}",
            timestamptz(edge),
            target.table(rollup),
            time = rollup.time_key(),
            first = rollup.time_of("gone.slice_start"),
            last = rollup.time_of("gone.slice_end"),
        );
        tx.execute("deleting what the calendar before left", sql).await?;
    }
    match registered(tx, rollup).await? {
        found if found.generation > mine => {
            Err(TargetError::Superseded { mine, newest: found.generation })
        }
        found => Ok(found),
    }
}

/// Rows outside of every slice of the present calendar and `start`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Outside {
    /// Number of rows: before `start`, or of another calendar.
    pub rows: u64,
    /// The first of their buckets.
    pub first: Option<DateTime<Utc>>,
    /// The last of their buckets.
    pub last: Option<DateTime<Utc>>,
}

impl Target {
    /// The registry's entry for the rows of `rollup`. It is empty if the registry does not exist
    /// yet.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub(crate) async fn registered(&self, rollup: &Rollup) -> Result<Registered, DbError> {
        let mut tx = self.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
        let found = registered(&mut tx, rollup).await?;
        tx.rollback().await?;
        Ok(found)
    }

    /// The rows outside of every slice of `rollup`. These are buckets before `start`, and rows of
    /// an older `generation` that no slice of the present one has replaced yet. Sealed history
    /// stays, and is left out.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub async fn outside(&self, rollup: &Rollup, generation: u64) -> Result<Outside, DbError> {
        let doing = "looking for rows outside of every slice";
        let mut tx = self.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
        let sql = format!(
            "{older} SELECT count(*) AS rows, {first} AS first, {last} AS last \
             FROM {table} r WHERE {outside}",
            older = older_slices(rollup, generation),
            first = instant_of(rollup, "min"),
            last = instant_of(rollup, "max"),
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

    /// Deletes the rows that [`Target::outside`] counts, with the markers of their slices. Returns
    /// the number of rows.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub async fn delete_outside(&self, rollup: &Rollup, generation: u64) -> Result<u64, DbError> {
        let mut tx = self.db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &rollup.name).await?;
        // Replacements lock it first as well, so none of them is half-way.
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

/// The slices of an older generation, computed once. Usually there are none, and searching every
/// marker for each row would take minutes for a hundred thousand rows.
fn older_slices(rollup: &Rollup, generation: u64) -> String {
    format!(
        "WITH older AS MATERIALIZED (SELECT slice_start, slice_end FROM tallymark.slice m \
         WHERE m.rollup = {} AND {})",
        literal(&rollup.name),
        is_older(rollup, generation)
    )
}

/// The condition that a row `r` lies outside of every slice. It needs [`older_slices`] before it.
fn outside_condition(rollup: &Rollup) -> String {
    let time = rollup.time_key();
    let start = timestamptz(rollup.start);
    let before = format!(
        "r.{time} < {} AND coalesce({} <= {start}, true)",
        rollup.time_at(rollup.start),
        seal(rollup),
    );
    format!(
        "{before} OR EXISTS (SELECT FROM older m \
         WHERE {} <= r.{time} AND r.{time} < {})",
        rollup.time_of("m.slice_start"),
        rollup.time_of("m.slice_end"),
    )
}

/// The seal of a rollup, in SQL: the later of the file's and the registry's. NULL: there is none.
pub(super) fn seal(rollup: &Rollup) -> String {
    format!(
        "greatest({}, (SELECT sealed_before FROM tallymark.rollup WHERE rollup = {}))",
        rollup.seal_before.map_or_else(|| "NULL::timestamptz".to_owned(), timestamptz),
        literal(&rollup.name),
    )
}

/// The least or greatest time of a row, as an instant.
fn instant_of(rollup: &Rollup, function: &str) -> String {
    let found = format!("{function}({})", rollup.time_key());
    match rollup.bucket_as {
        BucketType::Instant => found,
        BucketType::Date => {
            format!("{found}::timestamp AT TIME ZONE {}", literal(rollup.calendar.zone().name()))
        }
    }
}

/// The condition that the marker `m` belongs to an older generation and is open.
fn is_older(rollup: &Rollup, generation: u64) -> String {
    let seal = seal(rollup);
    format!(
        "(m.replaced_at IS NOT NULL AND \
         coalesce(nullif(split_part(split_part(m.definition, '~', 1), '.', 2), ''), '0')::bigint < {generation} AND coalesce(m.slice_start >= {seal}, true))"
    )
}
