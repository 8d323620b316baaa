//! The fence, and the statement that makes a slice's rows equal to the new result.

use std::fmt;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::statement::{columns, differs, limited, merged, same_group};
use super::{Target, TargetError, generation};
use crate::checkpoint::{CheckpointError, Lease};
use crate::clients::db::Tx;
use crate::model::clock::{Stopwatch, rfc3339_seconds, whole_ms};
use crate::model::not_now::Why;
use crate::model::rollup::Rollup;
use crate::model::rollup::generation::generation_of;
use crate::model::slice::Slice;
use crate::model::sql::{ident, literal, timestamptz};
use crate::source::SliceJob;
use crate::source::reading::nap::Nap;
use crate::source::reading::read::{self, Form};
use crate::target::coverage::{CoarseSlice, generation_of_slice};
use crate::target::marker::{Told, longest, marker_sql};
use crate::target::stage::StageProgress;
use crate::throttle::Governor;

/// The effect of a replacement on the rollup table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Source rows that were counted.
    pub rows_read: u64,
    /// Groups of the slice.
    pub groups: u64,
    /// Groups that are new.
    pub inserted: u64,
    /// Groups whose measures changed.
    pub updated: u64,
    /// Groups that vanished.
    pub deleted: u64,
    /// Milliseconds in the statement that read the source or the stage.
    pub statement_ms: u64,
}

impl Replaced {
    /// Groups that were already right, and stayed as they were.
    #[must_use]
    pub(crate) const fn unchanged(&self) -> u64 {
        self.groups.saturating_sub(self.inserted + self.updated)
    }

    /// Groups that are new, changed or vanished.
    #[must_use]
    pub(crate) const fn rewritten(&self) -> u64 {
        self.inserted + self.updated + self.deleted
    }
}

/// How the statements of a slice run.
#[derive(Clone, Copy, Debug)]
pub struct StatementOptions<'g> {
    /// Least share of the previous row count. `None` allows any shrinking.
    pub shrink: Option<f64>,
    /// Time limit of each statement.
    pub timeout: std::time::Duration,
    /// Decides whether the source can be read now. `None`: the source is not read.
    pub governor: Option<&'g Governor>,
    /// The naps while the source is read.
    pub nap: Option<Nap>,
    /// What else the transaction of a replacement writes.
    pub last: Option<&'g dyn LastWrite>,
    /// The coarse slices that are computed from the slice.
    pub coarse: &'g [CoarseSlice],
}

/// The statement whose rows replace those of a slice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'s> {
    pub(super) sql: &'s str,
    /// Whether the replacement rests in naps while it writes.
    pub(super) naps: bool,
}

/// The last writes of the transaction that replaces the rows of slices. They commit with the rows
/// and the markers.
pub trait LastWrite: fmt::Debug + Sync {
    /// Makes the writes, given what each slice's replacement did. After an error the whole
    /// transaction is rolled back.
    fn write<'a>(
        &'a self,
        replaced: &'a [Replaced],
        tx: &'a mut Tx,
    ) -> BoxFuture<'a, Result<(), CheckpointError>>;
}

impl StatementOptions<'_> {
    /// The part of `elapsed_ms` spent on work, without naps.
    pub(super) fn work_ms(&self, elapsed_ms: u64) -> u64 {
        let elapsed = std::time::Duration::from_millis(elapsed_ms);
        let slept = self.nap.map_or_else(Default::default, |nap| nap.slept(elapsed));
        whole_ms(elapsed - slept)
    }

    /// Takes a slot for `tx`, which is about to read the source.
    pub(super) async fn enter(&self, mut tx: Tx) -> Result<Tx, TargetError> {
        let Some(governor) = self.governor else { return Ok(tx) };
        match governor.enter(&mut tx).await? {
            None => Ok(tx),
            Some(why) => {
                tx.rollback().await?;
                Err(TargetError::NotNow(why))
            }
        }
    }
}

/// How long a transaction that has the marker may be idle. A machine may stand still for a few
/// seconds.
const IDLE_MS: u64 = 10_000;

/// The marker's state before this attempt took it.
pub(super) struct PriorMarker {
    /// Source rows behind the slice's data. `None`: it has no data of this definition.
    rows_read: Option<i64>,
    /// An expression for the generation of the slice that was known before the source was read.
    pub(super) generation: String,
}

impl PriorMarker {
    pub(super) fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let generation = row.try_get::<i64, _>("generation")?.to_string();
        Ok(Self { rows_read: row.try_get("rows_read")?, generation })
    }

    /// Refuses a result that has lost most of the rows that were counted before.
    pub(super) fn guard(
        &self,
        shrink: Option<f64>,
        replaced: &Replaced,
    ) -> Result<(), TargetError> {
        let Some((guard, before)) = shrink.zip(self.rows_read) else { return Ok(()) };
        let (found, before) = (replaced.rows_read, before.unsigned_abs());
        #[expect(clippy::cast_precision_loss, reason = "a share of a count of rows")]
        if (found as f64) < before as f64 * guard {
            return Err(TargetError::Shrunk { found, before, guard });
        }
        Ok(())
    }
}

impl Target {
    /// Replaces a slice in one statement that reads the source, which is in the same database.
    ///
    /// # Errors
    /// The attempt was fenced, the slice shrank, or the server failed. Then nothing was written.
    /// Only after a lost reply to COMMIT this is open, and the next attempt finds out.
    pub async fn replace_from_source(
        &self,
        lease: &Lease,
        job: SliceJob<'_>,
        options: StatementOptions<'_>,
    ) -> Result<Replaced, TargetError> {
        let SliceJob { rollup, shape, slice, .. } = job;
        self.make_room(rollup, (slice.start(), slice.end()), options.timeout).await?;
        let bounds = job.rows_behind((slice.start(), slice.end()));
        let input = read::select_napping(rollup, shape, Form::Whole, bounds, false, options.nap);
        let mut tx = options.enter(self.write(options.timeout, &job.label()).await?).await?;
        let marker = fence(self, &mut tx, lease, rollup, slice).await?;
        let input = Input { sql: &input, naps: options.nap.is_some() };
        let replaced = self.replace(&mut tx, job, input).await?;
        let statement_ms = options.work_ms(replaced.statement_ms);
        let replaced = Replaced { statement_ms, ..replaced };
        finish(self, tx, lease, job, options, &marker, replaced).await
    }

    /// Replaces a slice by the staged result of its chunks, and empties the stage.
    ///
    /// # Errors
    /// As [`Target::replace_from_source`], or the stage was emptied by a crash.
    pub async fn replace_from_stage(
        &self,
        lease: &Lease,
        job: SliceJob<'_>,
        options: StatementOptions<'_>,
    ) -> Result<Replaced, TargetError> {
        let span = (job.slice.start(), job.slice.end());
        self.make_room(job.rollup, span, options.timeout).await?;
        let SliceJob { rollup, slice, .. } = job;
        let mut tx = self.write(options.timeout, &job.label()).await?;
        let mut marker = fence(self, &mut tx, lease, rollup, slice).await?;
        let replaced = self.replace_staged(&mut tx, job, Form::Partial).await?;
        let Some(generation) = StageProgress::forget(&mut tx, rollup, slice).await? else {
            // An empty stage would have erased the slice.
            return Err(TargetError::Forgotten);
        };
        marker.generation = generation.to_string();
        finish(self, tx, lease, job, options, &marker, replaced).await
    }

    /// Replaces the slice's rows by the merged stage, inside `tx`.
    pub(super) async fn replace_staged(
        &self,
        tx: &mut Tx,
        job: SliceJob<'_>,
        form: Form,
    ) -> Result<Replaced, TargetError> {
        let input = merged(&Self::stage(job.rollup), job.shape, job.slice, form);
        self.replace(tx, job, Input { sql: &input, naps: false }).await
    }

    /// Replaces the slice's rows by `input`. If a group is in the table more than once, deletes the
    /// surplus and replaces again, as the first join paired the group with each of its rows and
    /// counted too many.
    pub(super) async fn replace(
        &self,
        tx: &mut Tx,
        job: SliceJob<'_>,
        input: Input<'_>,
    ) -> Result<Replaced, TargetError> {
        let (first, joined) = self.replace_once(tx, job, input).await?;
        if joined == first.groups {
            return Ok(first);
        }
        let surplus = self.delete_doubled(tx, job).await?;
        let (second, joined) = self.replace_once(tx, job, input).await?;
        if joined != second.groups {
            return Err(TargetError::Inconsistent { groups: second.groups, joined });
        }
        Ok(Replaced {
            inserted: first.inserted + second.inserted,
            // Each copy of a group was updated.
            updated: (first.updated + second.updated).min(second.groups),
            deleted: first.deleted + surplus + second.deleted,
            statement_ms: first.statement_ms + second.statement_ms,
            ..second
        })
    }

    /// The statement that replaces the rows of `job` by `input`, and ends in `counts`.
    pub(super) fn replace_sql(&self, job: SliceJob<'_>, input: Input<'_>, counts: &str) -> String {
        let SliceJob { rollup, shape, slice, .. } = job;
        let nap = if input.naps { format!(" AND {}", Nap::while_writing()) } else { String::new() };
        let input = limited(shape, input.sql);
        let assignments: Vec<String> = shape
            .fields
            .iter()
            .map(|field| ident(&field.name))
            .map(|name| format!("{name} = __d.{name}"))
            .collect();
        let (of_partition, partition, same_partition) = match rollup.partition_by {
            None => ("", "", ""),
            Some(_) => (", __o.__part", ", tableoid AS __part", " AND __r.tableoid = __d.__part"),
        };
        format!(
            include_str!("replace.sql"),
            of_partition = of_partition,
            partition = partition,
            same_partition = same_partition,
            differs = differs(shape),
            input = input,
            nap = nap,
            rollup = self.table(rollup),
            time = shape.time_key,
            start = rollup.time_at(slice.start()),
            end = rollup.time_at(slice.end()),
            same_group = same_group(shape),
            columns = columns(shape).join(", "),
            assignments = assignments.join(", "),
            counts = counts.replace("{time}", shape.time_key),
        )
    }

    /// Runs the replacement. Returns its counts, and the number of pairs of a group and a row,
    /// found or added.
    async fn replace_once(
        &self,
        tx: &mut Tx,
        job: SliceJob<'_>,
        input: Input<'_>,
    ) -> Result<(Replaced, u64), TargetError> {
        let sql = self.replace_sql(job, input, include_str!("counts.sql"));
        let watch = Stopwatch::start();
        let row = tx.row("replacing the slice", sql).await?;
        let count = |column: &str| row.try_get::<i64, _>(column).map(i64::unsigned_abs);
        let counts = || {
            let replaced = Replaced {
                rows_read: count("rows_read")?,
                groups: count("groups")?,
                inserted: count("inserted")?,
                updated: count("updated")?,
                deleted: count("deleted")?,
                statement_ms: millis(watch),
            };
            Ok::<_, sqlx::Error>((replaced, count("joined")?))
        };
        Ok(counts().map_err(|source| tx.error("reading the counts", source))?)
    }

    /// Deletes all rows but one of each group of the slice, and returns their number.
    async fn delete_doubled(&self, tx: &mut Tx, job: SliceJob<'_>) -> Result<u64, TargetError> {
        const DOING: &str = "deleting doubled groups";
        let SliceJob { rollup, shape, slice, .. } = job;
        let sql = format!(
            include_str!("doubled.sql"),
            rollup = self.table(rollup),
            time = shape.time_key,
            start = rollup.time_at(slice.start()),
            end = rollup.time_at(slice.end()),
            keys = columns(shape)[..=shape.dimensions.len()].join(", "),
        );
        let row = tx.row(DOING, sql).await?;
        let deleted = row.try_get::<i64, _>(0).map_err(|source| tx.error(DOING, source))?;
        Ok(deleted.unsigned_abs())
    }
}

/// Milliseconds since `watch` began.
pub(super) fn millis(watch: Stopwatch) -> u64 {
    whole_ms(watch.elapsed())
}

/// The condition that this installation owns the rollup. `None`: the process has yet to read it.
fn is_kept(target: &Target, rollup: &Rollup) -> Option<String> {
    target.keeper(&rollup.name).map(|id| {
        let (name, id) = (literal(&rollup.name), literal(&id));
        format!(
            "EXISTS (SELECT FROM tallymark.rollup WHERE rollup = {name} AND installation = {id})"
        )
    })
}

/// The statement that takes a slice's marker. It returns no row where it is refused.
pub(super) fn fence_sql(target: &Target, lease: &Lease, rollup: &Rollup, slice: Slice) -> String {
    format!(
        include_str!("fence.sql"),
        rollup = literal(&rollup.name),
        start = timestamptz(slice.start()),
        end = timestamptz(slice.end()),
        attempt = lease.attempt(),
        owner = literal(lease.owner()),
        definition = literal(lease.definition()),
        generation = generation_of(lease.definition()),
        is_kept = is_kept(target, rollup).as_deref().unwrap_or("true"),
        known = generation_of_slice(rollup, slice),
        since = timestamptz(slice.start() - longest(slice, generation_of(lease.definition()))),
        idle_ms = IDLE_MS,
    )
}

/// Takes the slice's marker for the lease's attempt, if this installation owns the rollup.
pub(super) async fn fence(
    target: &Target,
    tx: &mut Tx,
    lease: &Lease,
    rollup: &Rollup,
    slice: Slice,
) -> Result<PriorMarker, TargetError> {
    let keeper = is_kept(target, rollup);
    let sql = fence_sql(target, lease, rollup, slice);
    // Repeated once if the registry's generation was older.
    for _ in 0..2 {
        if let Some(row) = tx.ask("taking the marker", sql.clone()).await?.first() {
            let marker = PriorMarker::read(row);
            return marker.map_err(|source| tx.error("reading the marker", source).into());
        }
        let registered = generation::raise(tx, target, lease, rollup).await?;
        if let Some(seal) = registered.sealed_before.filter(|seal| slice.start() < *seal) {
            return Err(TargetError::NotNow(Why::Sealed(seal)));
        }
    }
    let sql = format!(
        "SELECT attempt, {} AS is_kept FROM tallymark.slice WHERE rollup = {} AND slice_start = {}",
        keeper.as_deref().unwrap_or("true"),
        literal(&rollup.name),
        timestamptz(slice.start()),
    );
    let rows = tx.rows("reading the marker", sql).await?;
    let Some(row) = rows.first() else { return Err(TargetError::Stranger) };
    let read = || Ok((row.try_get::<i64, _>("attempt")?, row.try_get::<bool, _>("is_kept")?));
    match read().map_err(|source| tx.error("reading the marker", source))? {
        (_, false) => Err(TargetError::Stranger),
        (newest, true) => {
            Err(TargetError::Fenced { mine: lease.attempt(), newest: newest.unsigned_abs() })
        }
    }
}

/// Checks the result against the marker, writes the marker, and commits.
pub(super) async fn finish(
    target: &Target,
    mut tx: Tx,
    lease: &Lease,
    job: SliceJob<'_>,
    options: StatementOptions<'_>,
    marker: &PriorMarker,
    replaced: Replaced,
) -> Result<Replaced, TargetError> {
    if let Err(shrunk) = marker.guard(options.shrink, &replaced) {
        tx.rollback().await?;
        return Err(shrunk);
    }
    let told = Told { lease, slice: job.slice, replaced: &replaced, before: marker };
    let sql = marker_sql(target, job, told, options.coarse);
    let rows = tx.ask("writing the marker", sql).await?;
    let sealed = rows.first().map_or(Ok(None), |row| row.try_get::<Option<DateTime<Utc>>, _>(0));
    if let Some(sealed) = sealed.map_err(|source| tx.error("writing the marker", source))? {
        tx.rollback().await?;
        let slice = rfc3339_seconds(sealed);
        return Err(TargetError::Sealed { slice });
    }
    if let Some(last) = options.last
        && let Err(error) = last.write(std::slice::from_ref(&replaced), &mut tx).await
    {
        // A broken connection rolls back by itself.
        let _ = tx.rollback().await;
        return Err(error.into());
    }
    tx.commit().await?;
    Ok(replaced)
}
