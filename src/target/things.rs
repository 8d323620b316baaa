//! Pages of a mirror's things. They are staged under the fence and become the slice's rows at the
//! end.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use super::replace::{Input, Replaced, StatementOptions, fence, finish};
use super::stage::StageProgress;
use super::statement::columns;
use super::{Target, TargetError};
use crate::checkpoint::Lease;
use crate::clients::bubble::Thing;
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbError};
use crate::model::measure::partial::ROWS;
use crate::model::rollup::Rollup;
use crate::model::rollup::mirror::{ID, MODIFIED_AT};
use crate::model::sql::{literal, timestamptz};
use crate::source::SliceJob;

/// The rows of one page, as SQL literals in the order of [`columns`].
#[derive(Debug)]
pub(crate) struct StagedPage {
    pub(crate) rows: Vec<Vec<String>>,
    /// Everything before this instant is staged.
    pub(crate) cursor: DateTime<Utc>,
    /// Milliseconds of the request.
    pub(crate) source_ms: u64,
}

impl Target {
    /// Stages a page, together with the new progress. Things that are staged already stay as they
    /// are.
    ///
    /// # Errors
    /// The attempt was fenced, the progress was lost, or the server failed. Then nothing was
    /// staged.
    pub(crate) async fn stage_page(
        &self,
        lease: &Lease,
        job: SliceJob<'_>,
        page: &StagedPage,
        before: StageProgress,
        options: StatementOptions<'_>,
    ) -> Result<StageProgress, TargetError> {
        let SliceJob { rollup, slice, .. } = job;
        let mut tx = self.write(options.timeout, &job.label()).await?;
        fence(self, &mut tx, lease, rollup, slice).await?;
        let staged = if page.rows.is_empty() {
            0
        } else {
            tx.execute("staging a page", self.insert(job, page)).await?
        };
        let progress = StageProgress {
            cursor: page.cursor,
            rows_read: before.rows_read + staged,
            chunks: before.chunks + 1,
            source_ms: before.source_ms + page.source_ms,
            ..before
        };
        progress.write(&mut tx, lease, rollup, slice, before).await?;
        tx.commit().await?;
        Ok(progress)
    }

    fn insert(
        &self,
        SliceJob { rollup, shape, slice, .. }: SliceJob<'_>,
        page: &StagedPage,
    ) -> String {
        let start = timestamptz(slice.start());
        let rows: Vec<String> =
            page.rows.iter().map(|row| format!("({start}, {})", row.join(", "))).collect();
        let (stage, id) = (Self::stage(rollup), &shape.dimensions[0].name);
        format!(
            "INSERT INTO {stage} (slice_start, {}) VALUES\n{}\nON CONFLICT (slice_start, {id}) DO \
             NOTHING",
            columns(shape).join(", "),
            rows.join(",\n"),
        )
    }

    /// Forgets the staged pages of a slice, which has to be read from its start.
    ///
    /// # Errors
    /// The attempt was fenced, or the server failed.
    pub(crate) async fn forget_pages(
        &self,
        lease: &Lease,
        job: SliceJob<'_>,
        options: StatementOptions<'_>,
    ) -> Result<StageProgress, TargetError> {
        let SliceJob { rollup, slice, .. } = job;
        let mut tx = self.write(options.timeout, &job.label()).await?;
        let marker = fence(self, &mut tx, lease, rollup, slice).await?;
        StageProgress::forget(&mut tx, rollup, slice).await?;
        tx.commit().await?;
        Ok(StageProgress::knowing(slice.start(), &marker))
    }

    /// Makes the slice's rows equal to the staged pages, and empties the stage. `things` is how
    /// many the app counted.
    ///
    /// # Errors
    /// The attempt was fenced, the slice shrank, the stage was emptied by a crash, or the server
    /// failed. Then nothing was written.
    pub(crate) async fn replace_from_pages(
        &self,
        lease: &Lease,
        job: SliceJob<'_>,
        things: u64,
        options: StatementOptions<'_>,
    ) -> Result<Replaced, TargetError> {
        let SliceJob { rollup, shape, slice, .. } = job;
        let mut tx = self.write(options.timeout, &job.label()).await?;
        let mut marker = fence(self, &mut tx, lease, rollup, slice).await?;
        let input = format!(
            "SELECT {}, 1 AS {ROWS} FROM {} WHERE slice_start = {}",
            columns(shape).join(", "),
            Self::stage(rollup),
            timestamptz(slice.start()),
        );
        let input = Input { sql: &input, naps: false };
        let replaced = self.replace(&mut tx, job, input).await?;
        let generation = StageProgress::forget(&mut tx, rollup, slice).await?;
        let Some(generation) = generation.filter(|_| replaced.rows_read == things) else {
            return Err(TargetError::Forgotten);
        };
        marker.generation = generation.to_string();
        finish(self, tx, lease, job, options, &marker, replaced).await
    }

    /// How many things of the slice the mirror's table has.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub(crate) async fn things_in(&self, job: SliceJob<'_>) -> Result<u64, DbError> {
        const DOING: &str = "counting the things of a slice";
        let SliceJob { rollup, slice, .. } = job;
        let mut tx = self.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &job.label()).await?;
        let time = rollup.time_key();
        let sql = format!(
            "SELECT count(*) FROM {} WHERE {time} >= {} AND {time} < {}",
            self.table(rollup),
            timestamptz(slice.start()),
            timestamptz(slice.end()),
        );
        let row = tx.row(DOING, sql).await?;
        let count: i64 = row.try_get(0).map_err(|source| tx.error(DOING, source))?;
        tx.rollback().await?;
        Ok(count.unsigned_abs())
    }

    /// The IDs of those of these things whose rows are of their newest change.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub(crate) async fn things_as_changed(
        &self,
        rollup: &Rollup,
        things: &[&Thing],
    ) -> Result<HashSet<String>, DbError> {
        const DOING: &str = "comparing changes of things";
        if things.is_empty() {
            return Ok(HashSet::new());
        }
        let row = |thing: &&Thing| {
            format!("({}, {})", literal(&thing.id), timestamptz(thing.modified_at))
        };
        let rows: Vec<_> = things.iter().map(row).collect();
        let sql = format!(
            "SELECT t.{ID} FROM {} t JOIN (VALUES {}) AS v (id, at) \
             ON t.{ID} = v.id AND t.{MODIFIED_AT} = v.at",
            self.table(rollup),
            rows.join(", "),
        );
        let label = format!("changes of {}", rollup.name);
        let mut tx = self.db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &label).await?;
        let rows = tx.rows(DOING, sql).await?;
        let ids = rows.iter().map(|row| row.try_get::<String, _>(0)).collect::<Result<_, _>>();
        let ids = ids.map_err(|source| tx.error(DOING, source))?;
        tx.rollback().await?;
        Ok(ids)
    }
}
