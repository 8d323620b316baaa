//! Chunks of a slice that is too large for one statement. They are staged under the fence and
//! merged at the end.

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;
use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::coverage::GENERATION;
use super::replace::{PriorMarker, Replaced, StatementOptions, fence, finish, millis};
use super::statement::stage_columns;
use super::{Target, TargetError};
use crate::checkpoint::Lease;
use crate::clients::db::{Access, Db, DbError, Side, Tx};
use crate::model::clock::Stopwatch;
use crate::model::measure::partial::{ROWS, TAG};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::model::sql::{literal, timestamptz};
use crate::source::SliceJob;
use crate::source::reading::read::{self, Form};
use crate::source::reading::shape::Shape;

/// COPY delivers one message per row. They are passed on in pieces of about this size.
const COPY_BYTES: usize = 64 * 1024;

/// StageProgress over the chunks of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageProgress {
    /// Everything before this instant is staged.
    pub(crate) cursor: DateTime<Utc>,
    /// Source rows staged so far.
    pub(crate) rows_read: u64,
    /// Chunks staged so far.
    pub(crate) chunks: u32,
    /// Milliseconds of work on the source for them.
    pub(crate) source_ms: u64,
    /// The generation of the slice before its first chunk was read.
    pub(super) generation: i64,
}

impl StageProgress {
    /// The state before anything is staged.
    #[must_use]
    pub const fn at_start(slice: Slice) -> Self {
        Self::at(slice.start())
    }

    /// The state before anything is staged, of rows that begin at this instant.
    #[must_use]
    pub const fn at(begin: DateTime<Utc>) -> Self {
        Self { cursor: begin, rows_read: 0, chunks: 0, source_ms: 0, generation: 0 }
    }

    /// As [`StageProgress::at`], after the generation was read.
    pub(super) fn knowing(begin: DateTime<Utc>, marker: &PriorMarker) -> Self {
        let generation = marker.generation.parse().unwrap_or_default();
        Self { generation, ..Self::at(begin) }
    }

    /// The progress of an earlier attempt, if this attempt may continue it. The definition must be
    /// the same, no change may have been reported since, and what is staged must be part of it.
    async fn read(
        tx: &mut Tx,
        lease: &Lease,
        job: SliceJob<'_>,
        marker: &PriorMarker,
    ) -> Result<Option<Self>, DbError> {
        let SliceJob { rollup, slice, .. } = job;
        let sql = format!(
            "SELECT cursor, rows_read, chunks, source_ms, generation FROM tallymark.progress \
             WHERE rollup = {} AND slice_start = {} AND definition = {} AND dirty = {} \
             AND generation = {} AND cursor <= {}",
            literal(&rollup.name),
            timestamptz(slice.start()),
            literal(lease.definition()),
            lease.dirty_seen(),
            marker.generation,
            timestamptz(job.window().1),
        );
        let rows = tx.rows("reading the progress", sql).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let progress = || {
            Ok(Self {
                cursor: row.try_get("cursor")?,
                rows_read: row.try_get::<i64, _>("rows_read")?.unsigned_abs(),
                chunks: row.try_get::<i32, _>("chunks")?.unsigned_abs(),
                source_ms: row.try_get::<i64, _>("source_ms")?.unsigned_abs(),
                generation: row.try_get("generation")?,
            })
        };
        progress().map(Some).map_err(|source| tx.error("reading the progress", source))
    }

    /// Writes the progress. `before` was its value when the newest chunk began.
    pub(super) async fn write(
        self,
        tx: &mut Tx,
        lease: &Lease,
        rollup: &Rollup,
        slice: Slice,
        before: Self,
    ) -> Result<(), TargetError> {
        let sql = format!(
            include_str!("progress.sql"),
            rollup = literal(&rollup.name),
            start = timestamptz(slice.start()),
            attempt = lease.attempt(),
            definition = literal(lease.definition()),
            dirty = lease.dirty_seen(),
            generation = self.generation,
            cursor = timestamptz(self.cursor),
            rows_read = self.rows_read,
            chunks = self.chunks,
            source_ms = self.source_ms,
            is_first = before.chunks == 0,
            before = timestamptz(before.cursor),
        );
        match tx.execute("writing the progress", sql).await? {
            0 => Err(TargetError::Forgotten),
            _ => Ok(()),
        }
    }

    /// Deletes progress and partials. Returns the generation of the progress, if there was any.
    pub(super) async fn forget(
        tx: &mut Tx,
        rollup: &Rollup,
        slice: Slice,
    ) -> Result<Option<i64>, DbError> {
        const DOING: &str = "forgetting the progress";
        let start = timestamptz(slice.start());
        let stage = Target::stage(rollup);
        tx.execute(
            "emptying the stage",
            format!("DELETE FROM {stage} WHERE slice_start = {start}"),
        )
        .await?;
        let rollup = literal(&rollup.name);
        let sql = format!(
            "DELETE FROM tallymark.progress WHERE rollup = {rollup} AND slice_start = {start} \
             RETURNING generation"
        );
        let rows = tx.rows(DOING, sql).await?;
        let generation = rows.first().map(|row| row.try_get(0)).transpose();
        generation.map_err(|source| tx.error(DOING, source))
    }
}

impl Target {
    /// Takes the marker and determines where to continue. Deletes unusable progress.
    ///
    /// # Errors
    /// The attempt was fenced, or the server failed.
    pub async fn resume(
        &self,
        lease: &Lease,
        job: SliceJob<'_>,
        options: StatementOptions<'_>,
    ) -> Result<StageProgress, TargetError> {
        let SliceJob { rollup, slice, .. } = job;
        let mut tx = self.write(options.timeout, &slice.id(&rollup.name)).await?;
        let marker = fence(self, &mut tx, lease, rollup, slice).await?;
        let progress = StageProgress::read(&mut tx, lease, job, &marker).await?;
        if progress.is_none() {
            StageProgress::forget(&mut tx, rollup, slice).await?;
        }
        tx.commit().await?;
        let begin = job.window().0;
        Ok(progress.unwrap_or_else(|| StageProgress::knowing(begin, &marker)))
    }

    /// Stages the chunk from `progress.cursor` to `end`, together with the new progress.
    ///
    /// # Errors
    /// The attempt was fenced, the progress was lost, or a server failed. Then nothing was staged.
    pub async fn stage_chunk(
        &self,
        chunk: &Chunk<'_>,
        progress: StageProgress,
        end: DateTime<Utc>,
        options: StatementOptions<'_>,
    ) -> Result<StageProgress, TargetError> {
        let Chunk { source, lease, job } = *chunk;
        let SliceJob { rollup, shape, slice, .. } = job;
        let label = job.label();
        let reader = match source {
            Some(source) => {
                let reader = source.begin(Access::ReadOnly, options.timeout, &label).await?;
                Some(options.enter(reader).await?)
            }
            None => None,
        };
        let mut tx = self.write(options.timeout, &label).await?;
        if reader.is_none() {
            tx = options.enter(tx).await?;
        }
        let bounds = (slice.start(), progress.cursor, end);
        let select = read::select_napping(rollup, shape, Form::Partial, bounds, true, options.nap);
        let (rows, source_ms) = match reader {
            None => {
                fence(self, &mut tx, lease, rollup, slice).await?;
                let watch = Stopwatch::start();
                let rows = insert(&mut tx, job, &select).await?;
                (rows, millis(watch))
            }
            Some(reader) => {
                // Take the marker after the copy. A frozen client can keep a COPY open beyond every
                // server timeout, and the next attempt must not wait for it.
                let stage = Self::stage(rollup);
                let watch = Stopwatch::start();
                let rows = copy(reader, &mut tx, &stage, job, &select).await?;
                let source_ms = millis(watch);
                fence(self, &mut tx, lease, rollup, slice).await?;
                (rows, source_ms)
            }
        };
        let before = progress;
        let progress = StageProgress {
            cursor: end,
            rows_read: progress.rows_read + rows,
            chunks: progress.chunks + 1,
            source_ms: progress.source_ms + options.work_ms(source_ms),
            generation: progress.generation,
        };
        progress.write(&mut tx, lease, rollup, slice, before).await?;
        tx.commit().await?;
        Ok(progress)
    }

    /// Reads a whole slice from another database and replaces it, in one transaction on the target.
    ///
    /// # Errors
    /// As [`Target::replace_from_source`].
    pub async fn replace_by_copy(
        &self,
        chunk: &Chunk<'_>,
        source: &Db,
        options: StatementOptions<'_>,
    ) -> Result<Replaced, TargetError> {
        let Chunk { lease, job, .. } = *chunk;
        let SliceJob { rollup, shape, slice, .. } = job;
        let label = job.label();
        self.make_room(rollup, (slice.start(), slice.end()), options.timeout).await?;
        let reader = source.begin(Access::ReadOnly, options.timeout, &label).await?;
        let reader = options.enter(reader).await?;
        let mut tx = self.write_knowing(options.timeout, &label, rollup, slice).await?;
        let bounds = job.rows_behind((slice.start(), slice.end()));
        let select = read::select_napping(rollup, shape, Form::Whole, bounds, true, options.nap);
        // Started here, to leave out the wait for the connections and the slot.
        let watch = Stopwatch::start();
        copy(reader, &mut tx, &Self::stage(rollup), job, &select).await?;
        let statement_ms = millis(watch);
        let mut marker = fence(self, &mut tx, lease, rollup, slice).await?;
        marker.generation = format!("current_setting('{GENERATION}')::bigint");
        let replaced = self.replace_staged(&mut tx, job, Form::Whole).await?;
        StageProgress::forget(&mut tx, rollup, slice).await?;
        let statement_ms = options.work_ms(statement_ms);
        let replaced = Replaced { statement_ms, ..replaced };
        finish(self, tx, lease, job, options, &marker, replaced).await
    }
}

/// The context for reading a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// The source, if it is another database than the target.
    pub source: Option<&'a Db>,
    /// The right to write.
    pub lease: &'a Lease,
    pub job: SliceJob<'a>,
}

/// Stages inside one database. Returns the number of source rows counted.
async fn insert(
    tx: &mut Tx,
    SliceJob { rollup, shape, slice, .. }: SliceJob<'_>,
    select: &str,
) -> Result<u64, DbError> {
    let sql = format!(
        "WITH staged AS (INSERT INTO {} ({}) SELECT {}, __i.* FROM (\n{select}\n) __i \
         RETURNING {ROWS}, {TAG}) SELECT coalesce({}, 0)::bigint FROM staged",
        Target::stage(rollup),
        stage_columns(shape).join(", "),
        timestamptz(slice.start()),
        read::merge_rows(shape, Form::Partial),
    );
    let row = tx.row("staging a chunk", sql).await?;
    row.try_get::<i64, _>(0)
        .map(i64::unsigned_abs)
        .map_err(|source| tx.error("staging a chunk", source))
}

/// Moves the result of `select` from the source into the table `stage` as COPY streams, and ends
/// the transaction on the source. Memory stays flat for any number of groups. Returns the number of
/// source rows counted.
pub(super) async fn copy(
    reader: Tx,
    target: &mut Tx,
    stage: &str,
    job: SliceJob<'_>,
    select: &str,
) -> Result<u64, DbError> {
    // Both servers end their own statements. This limit is for a server that is cut off while the
    // other waits.
    let limit = reader.limit();
    let copied = Box::pin(copy_all(reader, target, stage, job, select));
    match tokio::time::timeout(limit, copied).await {
        Ok(copied) => copied,
        Err(_) => Err(DbError::silent(Side::Source, "reading a chunk", limit)),
    }
}

async fn copy_all(
    mut reader: Tx,
    target: &mut Tx,
    stage: &str,
    job: SliceJob<'_>,
    select: &str,
) -> Result<u64, DbError> {
    let SliceJob { shape, slice, .. } = job;
    let out = format!(
        "COPY (SELECT {}, __i.* FROM (\n{select}\n) __i) TO STDOUT",
        timestamptz(slice.start())
    );
    let into = format!("COPY {stage} ({}) FROM STDIN", stage_columns(shape).join(", "));
    let (watch, terms) = (Stopwatch::start(), (reader.terms(), target.terms()));
    let reading = |error| terms.0.broken_off("reading a chunk", error, watch.elapsed());
    let staging = |error| terms.1.broken_off("staging a chunk", error, watch.elapsed());
    let connection: &mut PgConnection = reader.connection();
    let mut stream = connection.copy_out_raw(&out).await.map_err(reading)?;
    let mut sink = target.connection().copy_in_raw(&into).await.map_err(staging)?;
    let mut buffer = Vec::with_capacity(2 * COPY_BYTES);
    let mut rows = 0;
    loop {
        match stream.try_next().await {
            Ok(Some(row)) => {
                rows += rows_behind(&row, shape);
                buffer.extend_from_slice(&row);
                if buffer.len() < COPY_BYTES {
                    continue;
                }
                sink.send(buffer.as_slice()).await.map_err(staging)?;
                buffer.clear();
            }
            Ok(None) => break,
            Err(error) => {
                // The target must be told, or its connection waits for more.
                sink.abort("the source failed").await.map_err(staging)?;
                return Err(reading(error));
            }
        }
    }
    drop(stream);
    reader.commit().await?;
    sink.send(buffer.as_slice()).await.map_err(staging)?;
    sink.finish().await.map_err(staging)?;
    Ok(rows)
}

/// The number of source rows behind one row of the stage in COPY's text format, where values
/// contain no tabs. A row of a single value counts 0, because its group's own row counts its source
/// rows.
fn rows_behind(row: &[u8], shape: &Shape) -> u64 {
    // Before them come slice_start, bucket, dimensions and fields.
    let place = 2 + shape.dimensions.len() + shape.fields.len();
    let mut columns = row.trim_ascii_end().split(|byte| *byte == b'\t').skip(place);
    let mut next = || str::from_utf8(columns.next()?).ok()?.parse::<i64>().ok();
    let of_group = read::tags(shape).of_group();
    match (next(), next()) {
        (Some(rows), Some(tag)) if tag == of_group || tag == -1 => rows.unsigned_abs(),
        _ => 0,
    }
}
