//! Neighbouring slices that one statement replaces, in one transaction with all their markers.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::marker::{Told, marker_sql, markers_sql};
use super::replace::{Input, PriorMarker, Replaced, StatementOptions, fence_sql, millis};
use super::{Target, TargetError};
use crate::checkpoint::Lease;
use crate::clients::db::Tx;
use crate::model::clock::Stopwatch;
use crate::model::slice::Slice;
use crate::source::SliceJob;
use crate::source::reading::read::{self, Form};

/// A slice, and the lease on it.
pub(crate) type Leased<'l> = (&'l Lease, Slice);

impl Target {
    /// As [`Target::replace_from_source`], for neighbouring slices, in ascending order, whose time
    /// together is that of `job`. Each has its own fence, guard and marker. `None`: one of them
    /// needs a turn of its own, and nothing was written.
    ///
    /// # Errors
    /// As [`Target::replace_from_source`].
    pub(crate) async fn replace_together(
        &self,
        slices: &[Leased<'_>],
        job: SliceJob<'_>,
        options: StatementOptions<'_>,
    ) -> Result<Option<Vec<Replaced>>, TargetError> {
        let SliceJob { rollup, slice, .. } = job;
        self.make_room(rollup, (slice.start(), slice.end()), options.timeout).await?;
        let mut tx = options.enter(self.write(options.timeout, &job.label()).await?).await?;
        let Some(replaced) = self.replace_each(&mut tx, slices, job, options).await? else {
            tx.rollback().await?;
            return Ok(None);
        };
        if let Some(last) = options.last
            && let Err(error) = last.write(&replaced, &mut tx).await
        {
            // A broken connection rolls back by itself.
            let _ = tx.rollback().await;
            return Err(error.into());
        }
        tx.commit().await?;
        Ok(Some(replaced))
    }

    /// Takes all markers, replaces the rows, and writes the markers.
    async fn replace_each(
        &self,
        tx: &mut Tx,
        slices: &[Leased<'_>],
        job: SliceJob<'_>,
        options: StatementOptions<'_>,
    ) -> Result<Option<Vec<Replaced>>, TargetError> {
        let SliceJob { rollup, shape, slice, .. } = job;
        let fences = slices.iter().map(|(lease, slice)| fence_sql(self, lease, rollup, *slice));
        let rows = tx.ask("taking the markers", joined(fences)).await?;
        let before = rows.iter().map(PriorMarker::read).collect::<Result<Vec<_>, _>>();
        let before = before.map_err(|source| tx.error("reading the markers", source))?;
        if before.len() < slices.len() {
            return Ok(None);
        }
        let bounds = (slice.start(), slice.start(), slice.end());
        let input = read::select_napping(rollup, shape, Form::Whole, bounds, false, options.nap);
        let starts = slices.iter().map(|(_, slice)| rollup.time_at(slice.start()));
        let starts = starts.collect::<Vec<_>>().join(", ");
        let counts = include_str!("counts_each.sql").replace("{starts}", &starts);
        let watch = Stopwatch::start();
        let input = Input { sql: &input, naps: options.nap.is_some() };
        let rows = tx.rows("replacing the slices", self.replace_sql(job, input, &counts)).await?;
        let statement_ms = options.work_ms(millis(watch));
        let counted = counted(&rows, slices.len(), statement_ms);
        let counted = counted.map_err(|source| tx.error("reading the counts", source))?;
        let has_shrunk = |(marker, replaced): (&PriorMarker, &Replaced)| {
            marker.guard(options.shrink, replaced).is_err()
        };
        let Some(replaced) = counted.filter(|all| !before.iter().zip(all).any(has_shrunk)) else {
            return Ok(None);
        };
        let all = slices.iter().zip(&replaced).zip(&before);
        let told: Vec<_> = all
            .map(|((&(lease, slice), replaced), before)| Told { lease, slice, replaced, before })
            .collect();
        if let Some(sql) = markers_sql(rollup, &told, slice, options.coarse) {
            let written = tx.ask("writing the markers", sql).await?.len();
            if written > 0 {
                return Ok((written == slices.len()).then_some(replaced));
            }
        }
        let markers = told.iter().map(|told| {
            let job = SliceJob { slice: told.slice, ..job };
            marker_sql(self, job, *told, options.coarse)
        });
        let rows = tx.ask("writing the markers", joined(markers)).await?;
        // What is removed of another calendar may be rows that neighbours have just got.
        let is_alone = |row: &PgRow| Ok::<_, sqlx::Error>(!row.try_get::<bool, _>("has_other")?);
        let alone = rows.iter().map(is_alone).collect::<Result<Vec<_>, _>>();
        let alone = alone.map_err(|source| tx.error("writing the markers", source))?;
        let are_written = alone.len() == slices.len() && alone.iter().all(|alone| *alone);
        Ok(are_written.then_some(replaced))
    }
}

/// Statements of Tallymark's own, in one text.
fn joined(statements: impl Iterator<Item = String>) -> String {
    statements.collect::<Vec<_>>().join(";\n")
}

/// What was replaced in each of `slices` slices. `None`: a group is in the table more than once.
fn counted(
    rows: &[PgRow],
    slices: usize,
    statement_ms: u64,
) -> Result<Option<Vec<Replaced>>, sqlx::Error> {
    let mut all = vec![Replaced::default(); slices];
    let (mut joined, mut computed) = (0, 0);
    for row in rows {
        let count = |column: &str| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
        let place = usize::try_from(row.try_get::<i32, _>("place")?).unwrap_or_default();
        let Some(replaced) = place.checked_sub(1).and_then(|place| all.get_mut(place)) else {
            return Ok(None);
        };
        *replaced = Replaced {
            rows_read: count("rows_read")?,
            groups: count("groups")?,
            inserted: count("inserted")?,
            updated: count("updated")?,
            deleted: count("deleted")?,
            statement_ms: 0,
        };
        (joined, computed) = (joined + replaced.groups, count("computed")?);
    }
    share(&mut all, statement_ms);
    Ok((joined == computed).then_some(all))
}

/// Gives each slice an equal part of the statement's whole milliseconds.
fn share(all: &mut [Replaced], statement_ms: u64) {
    let slices = all.len() as u64;
    for (place, replaced) in (0..).zip(all) {
        let until = |place: u64| statement_ms * place / slices;
        replaced.statement_ms = until(place + 1) - until(place);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_the_slices_add_up_to_the_statements_time() {
        let mut all = vec![Replaced::default(); 7];
        share(&mut all, 10);
        let parts: Vec<_> = all.iter().map(|replaced| replaced.statement_ms).collect();
        assert_eq!(parts, [1, 1, 2, 1, 2, 1, 2]);
    }
}
