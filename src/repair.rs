//! Repair: DynamoDB follows the target. The marker is the truth about what was committed;
//! checkpoints that were lost, or that promise rows the target does not have, are put right.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::Row as _;

use crate::checkpoint::{self, Checkpoint, Completion, Restored, State};
use crate::db::{Access, DbError};
use crate::rollup::Rollup;
use crate::sql::{literal, timestamptz};
use crate::worker::{CATALOGUE_TIMEOUT, WorkError, Worker};

/// Markers are read this many at a time, so that ten years of hours fit into memory.
const PAGE: usize = 1000;

/// What was put right for one rollup.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RepairReport {
    /// The rollup.
    pub rollup: String,
    /// Markers compared.
    pub markers: usize,
    /// Checkpoints rebuilt from markers.
    pub restored: Vec<DateTime<Utc>>,
    /// Checkpoints of success without committed rows, reopened.
    pub reopened: Vec<DateTime<Utc>>,
}

struct Marker {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    attempt: u64,
    definition: Option<String>,
    rows_read: u64,
    groups: u64,
    replaced_at: Option<DateTime<Utc>>,
    /// The attempt whose rows they are; `None` where an older version wrote them.
    replaced_by: Option<u64>,
}

impl Worker {
    /// Compares the checkpoints of `rollup` with its markers; changes nothing if `dry_run`.
    ///
    /// # Errors
    /// The target or DynamoDB cannot be asked.
    pub async fn repair(&self, rollup: &Rollup, dry_run: bool) -> Result<RepairReport, WorkError> {
        let mut report = RepairReport { rollup: rollup.name.clone(), ..RepairReport::default() };
        if !dry_run {
            let registered = self.target.registered(rollup).await?;
            self.adopt(rollup, &registered).await?;
        }
        let definition = self.definition(rollup).await?;
        let mut from = DateTime::<Utc>::MIN_UTC.max(rollup.start);
        // Bounded: every page begins after the one before.
        loop {
            let mut markers = self.markers(rollup, from).await?;
            let last_page = markers.len() < PAGE;
            let to = match markers.last() {
                Some(last) if !last_page => rollup.calendar.containing(last.start).end(),
                _ => self.clock.now(),
            };
            // Those of another calendar tell of no slice, even where one starts at the same instant.
            markers.retain(|marker| {
                let slice = rollup.calendar.starting(marker.start);
                slice.is_ok_and(|slice| slice.end() == marker.end)
            });
            let range = (from, to);
            self.repair_range((rollup, &definition), &markers, range, dry_run, &mut report).await?;
            if last_page {
                return Ok(report);
            }
            from = to;
        }
    }

    async fn repair_range(
        &self,
        (rollup, definition): (&Rollup, &str),
        markers: &[Marker],
        (from, to): (DateTime<Utc>, DateTime<Utc>),
        dry_run: bool,
        report: &mut RepairReport,
    ) -> Result<(), WorkError> {
        let now = self.clock.now();
        let checkpoints = self.checkpoints.range(&rollup.name, from, to.max(from)).await?;
        report.markers += markers.len();
        for marker in markers {
            let known = checkpoints.iter().find(|known| known.slice_start == marker.start);
            if known.is_some_and(|known| known.attempt >= marker.attempt) {
                continue;
            }
            if !dry_run {
                // Perhaps the attempt that committed it died before it had told the coarse slices.
                let slice = rollup.calendar.containing(marker.start);
                self.reopen_coarse(rollup, slice).await?;
            }
            let found = Self::found((rollup, definition), marker);
            let is_kept = if dry_run {
                known.is_some_and(|known| known.must_keep(&found, now))
            } else {
                let restored = self.checkpoints.restore(&found, now).await?;
                matches!(restored, Restored::Kept(_))
            };
            if !is_kept {
                report.restored.push(marker.start);
            }
        }
        let is_slice = |it: &&Checkpoint| rollup.calendar.starting(it.slice_start).is_ok();
        for checkpoint in checkpoints.iter().filter(is_slice) {
            let committed = markers.iter().any(|marker| {
                marker.start == checkpoint.slice_start && marker.replaced_at.is_some()
            });
            if checkpoint.state == State::Succeeded && !committed {
                report.reopened.push(checkpoint.slice_start);
                if !dry_run {
                    let start = checkpoint.slice_start;
                    self.checkpoints.reopen(&rollup.name, start, "no marker", now).await?;
                }
            }
        }
        Ok(())
    }

    /// What the marker says to the checkpoints.
    fn found((rollup, definition): (&Rollup, &str), marker: &Marker) -> checkpoint::Marker {
        // Whatever that attempt was for (late data, a replay) is still to be done.
        let overtaken = marker.replaced_by.is_some_and(|attempt| attempt != marker.attempt);
        // Whatever has changed since, it is never computed again.
        let is_sealed = rollup.seal_before.is_some_and(|seal| marker.start < seal);
        let stale = match (marker.replaced_at, &marker.definition) {
            (None, _) => Some("its attempt never replaced its rows".to_owned()),
            _ if rollup.fine.is_some() && !is_sealed => {
                Some("finer slices may have changed since".to_owned())
            }
            _ if overtaken => Some("its newest attempt never replaced its rows".to_owned()),
            (_, Some(known)) if is_sealed || known == definition => None,
            _ => Some("the definition has changed since".to_owned()),
        };
        checkpoint::Marker {
            rollup: rollup.name.clone(),
            slice_start: marker.start,
            attempt: marker.attempt,
            definition: marker.definition.clone().unwrap_or_default(),
            outcome: Completion {
                rows_read: marker.rows_read,
                groups: marker.groups,
                settled_by: if rollup.fine.is_some() { "rollup" } else { "grace" }.into(),
                ..Completion::default()
            },
            committed_at: marker.replaced_at.unwrap_or(marker.start),
            stale,
        }
    }

    async fn markers(&self, rollup: &Rollup, from: DateTime<Utc>) -> Result<Vec<Marker>, DbError> {
        let mut tx =
            self.target.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
        let sql = format!(
            "SELECT slice_start, slice_end, attempt, definition, coalesce(rows_read, 0) AS rows_read, \
             coalesce(groups, 0) AS groups, replaced_at, replaced_by FROM tallymark.slice \
             WHERE rollup = {} AND slice_start >= {} ORDER BY slice_start LIMIT {PAGE}",
            literal(&rollup.name),
            timestamptz(from),
        );
        let rows = tx.rows("reading the markers", sql).await?;
        let markers = rows
            .iter()
            .map(|row| {
                Ok(Marker {
                    start: row.try_get("slice_start")?,
                    end: row.try_get("slice_end")?,
                    attempt: row.try_get::<i64, _>("attempt")?.unsigned_abs(),
                    definition: row.try_get("definition")?,
                    rows_read: row.try_get::<i64, _>("rows_read")?.unsigned_abs(),
                    groups: row.try_get::<i64, _>("groups")?.unsigned_abs(),
                    replaced_at: row.try_get("replaced_at")?,
                    replaced_by: row
                        .try_get::<Option<i64>, _>("replaced_by")?
                        .map(i64::unsigned_abs),
                })
            })
            .collect::<Result<_, sqlx::Error>>()
            .map_err(|source| tx.error("reading the markers", source))?;
        tx.commit().await?;
        Ok(markers)
    }
}
