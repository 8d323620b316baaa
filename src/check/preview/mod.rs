//! A preview computes one slice as a run would, and writes nothing. It works before `init`.

mod parity;

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::check::verify;
use crate::checkpoint::CheckpointError;
use crate::checkpoint::store::StoreError;
use crate::clients::db::{Access, DbErrorKind, Tx};
use crate::model::clock::{Stopwatch, whole_ms};
use crate::model::hint::Fault;
use crate::model::not_now::{NotNow, Permit};
use crate::model::rollup::{Rollup, TableName};
use crate::model::slice::Slice;
use crate::model::sql::ident;
use crate::model::text::cut_json;
use crate::source::SliceJob;
use crate::source::reading::plan_guard;
use crate::source::reading::read::{self, Form};
use crate::source::reading::shape::Shape;
use crate::throttle::{Gate, Patience, Throttle};
use crate::work::ready;
use crate::work::worker::{WorkError, Worker};

pub(crate) use parity::Parity;

use parity::Foreign;
pub(super) use parity::TIMES;

/// Groups of one statement that are compared, in memory: about 250 bytes each.
const COMPARED_MAX: usize = 200_000;

/// What to compute of a slice, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PreviewOptions<'a> {
    /// Longest time for one statement, and for waiting for a busy source.
    pub(crate) timeout: Duration,
    /// Groups to list.
    pub(crate) limit: usize,
    /// A table of another job to compare with.
    pub(crate) against: Option<&'a TableName>,
}

/// One slice as a run would compute it.
#[derive(Debug)]
pub(crate) struct Preview {
    /// The columns of the rollup's table, and whether each holds numbers.
    pub(crate) columns: Vec<(String, bool)>,
    /// Source rows that were counted.
    pub(crate) rows_read: u64,
    pub(crate) groups: u64,
    /// The largest groups of the first buckets, in the order of buckets and dimensions.
    pub(crate) listed: Vec<ListedGroup>,
    /// Milliseconds in statements on the source.
    pub(crate) source_ms: u64,
    /// The comparison with a table of another job.
    pub(crate) against: Option<Parity>,
}

/// One group, in the order of the columns and as JSON.
#[derive(Debug)]
pub(crate) struct ListedGroup {
    pub(crate) cells: Vec<Option<String>>,
    pub(crate) document: Value,
}

/// The statement that computes `slice`, where one is enough for it.
///
/// # Errors
/// The source contradicts the definition, or cannot be read.
pub(crate) async fn statement(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
) -> Result<String, WorkError> {
    refuse_mirror(rollup)?;
    let shape = ready::shape(worker, rollup).await?;
    let job = SliceJob { rollup, shape: &shape, slice, open_until: None };
    let keys = std::iter::once(shape.time_key).chain(shape.dimensions.iter().map(|it| &*it.name));
    let order: Vec<String> = keys.map(ident).collect();
    let select = select(job, (slice.start(), slice.end()));
    Ok(format!("{select}\nORDER BY {}", order.join(", ")))
}

/// Computes `slice` under all limits of a run. A slice that takes longer than the time of a
/// statement is read in several, each with some of its buckets.
///
/// # Errors
/// The source contradicts the definition, cannot be read, or may not be read now. Or a single bucket
/// takes too long, or the table of the other job cannot be compared.
pub(crate) async fn preview(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    options: PreviewOptions<'_>,
) -> Result<Preview, WorkError> {
    refuse_mirror(rollup)?;
    let shape = ready::shape(worker, rollup).await?;
    verify::compare_zones(worker, rollup, &shape, slice).await?;
    let foreign = match options.against {
        Some(table) => Some(Foreign::find(worker, rollup, &shape, table).await?),
        None => None,
    };
    let job = SliceJob { rollup, shape: &shape, slice, open_until: None };
    let reading = Reading { worker, job, options, foreign: foreign.as_ref() };
    let mut preview = Preview {
        columns: columns(&shape),
        rows_read: 0,
        groups: 0,
        listed: Vec::new(),
        source_ms: 0,
        against: foreign.as_ref().map(Foreign::nothing_yet),
    };
    let mut gate = ready::gate(worker, rollup, None);
    let cut = verify::cuts(job);
    let (mut place, mut step, mut work) = (0, cut.len(), Duration::ZERO);
    // Bounded: a statement advances by a bucket or more, or the next one takes fewer.
    while place < cut.len() {
        let next = place + step;
        let buckets = (cut[place], cut.get(next).copied().unwrap_or(slice.end()));
        match reading.read(&mut gate, buckets, work, &mut preview).await {
            Ok(read) => (place, work) = (next, read),
            Err(WorkError::Db(error)) if error.kind() == DbErrorKind::Cancelled && step > 1 => {
                work = options.timeout;
                step = verify::narrower(step.min(cut.len() - place));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(preview)
}

/// A slice in reading.
struct Reading<'a> {
    worker: &'a Worker,
    job: SliceJob<'a>,
    options: PreviewOptions<'a>,
    foreign: Option<&'a Foreign>,
}

impl Reading<'_> {
    /// Reads some buckets, which is `expected` to take its time, and adds them to the preview. Returns
    /// the source's work.
    async fn read(
        &self,
        gate: &mut Gate<'_>,
        buckets: (DateTime<Utc>, DateTime<Utc>),
        expected: Duration,
        preview: &mut Preview,
    ) -> Result<Duration, WorkError> {
        const DOING: &str = "reading the slice";
        let Self { worker, job: SliceJob { rollup, shape, .. }, options, foreign } = self;
        let (mut tx, throttle) = self.enter(gate, expected).await?;
        if rollup.plan_guard && preview.rows_read == 0 {
            let (start, end) = self.job.window();
            let planned = plan_guard::inspect(&mut tx, rollup, shape, start, end).await?;
            if let Some(refusal) = planned.refusal {
                tx.rollback().await?;
                return Err(WorkError::Usage(refusal.at(format!("rollup `{}`", rollup.name))));
            }
        }
        let room = options.limit.saturating_sub(preview.listed.len());
        let watch = Stopwatch::start();
        let rows = tx.rows(DOING, self.sql(buckets, room)).await?;
        let work = watch.elapsed();
        let theirs = match foreign {
            Some(foreign) if worker.target.holds_source_of(rollup) => {
                Some(foreign.groups(&mut tx, buckets, COMPARED_MAX).await?)
            }
            _ => None,
        };
        let read = |source| tx.error(DOING, source);
        let ours = Self::take(&rows, preview).map_err(read)?;
        tx.rollback().await?;
        throttle.chunk_read(work, false);
        preview.source_ms += whole_ms(work);
        let (Some(foreign), Some(parity)) = (foreign, &mut preview.against) else {
            return Ok(work);
        };
        let theirs = match theirs {
            Some(theirs) => theirs,
            None => {
                let label = self.job.label();
                let db = &worker.target.db;
                let mut tx = db.begin(Access::ReadOnly, options.timeout, &label).await?;
                let theirs = foreign.groups(&mut tx, buckets, COMPARED_MAX).await?;
                tx.rollback().await?;
                theirs
            }
        };
        if ours.len().max(theirs.len()) > COMPARED_MAX {
            let facts = format!("more than {COMPARED_MAX} groups of a bucket are to be compared");
            let fault = Fault::new(facts).remedy(
                "compare a rollup with a narrower `bucket`, or with fewer dimensions in group_by",
            );
            return Err(WorkError::Usage(fault));
        }
        parity.add(foreign, ours, theirs, options.limit);
        Ok(work)
    }

    /// A transaction on the source that may read, and the pace of that moment. Waits for a busy source
    /// as long as a statement may take.
    async fn enter<'w>(
        &self,
        gate: &mut Gate<'w>,
        expected: Duration,
    ) -> Result<(Tx, Throttle<'w>), WorkError> {
        let waits = Patience::AtMost { load: self.options.timeout, slot: self.options.timeout };
        // Bounded by the patience.
        loop {
            let not_now = match permit(gate, waits).await? {
                Permit::NotNow(not_now) => not_now,
                Permit::Given(throttle) => {
                    let throttle = gate.listen(throttle, expected, waits).await;
                    let label = self.job.label();
                    let begin = gate.source.begin(Access::ReadOnly, self.options.timeout, &label);
                    let mut tx = begin.await?;
                    let why = match throttle.governor() {
                        Some(governor) => governor.enter(&mut tx).await?,
                        None => None,
                    };
                    let Some(why) = why else { return Ok((tx, throttle)) };
                    tx.rollback().await?;
                    NotNow::because(why)
                }
            };
            gate.wait(not_now, waits).await.map_err(WorkError::NotNow)?;
        }
    }

    fn sql(&self, buckets: (DateTime<Utc>, DateTime<Utc>), room: usize) -> String {
        let SliceJob { shape, .. } = self.job;
        let named = |name: &str| format!("__p.{}", ident(name));
        let names = columns(shape);
        let cells: Vec<_> =
            names.iter().map(|(name, _)| format!("{}::text", named(name))).collect();
        let values: Vec<_> = names.iter().map(|(name, _)| named(name)).collect();
        let generated = shape
            .generated
            .iter()
            .map(|column| format!("({}) AS {}, ", column.anywhere(), ident(&column.name)));
        let dimensions = shape.dimensions.iter();
        let order = dimensions.clone().map(|it| format!(", (__g.{})::text", ident(&it.name)));
        let keys = dimensions.map(|it| named(&it.name));
        format!(
            include_str!("groups.sql"),
            limit = room,
            cells = cells.join(", "),
            columns = values.join(", "),
            compared = self.foreign.map_or_else(String::new, Foreign::own),
            generated = generated.collect::<String>(),
            shown =
                std::iter::once(named(shape.time_key)).chain(keys).collect::<Vec<_>>().join(", "),
            order = format!("__g.bucket, __g.__rows DESC{}", order.collect::<String>()),
            input = select(self.job, buckets),
            max = if self.foreign.is_some() { COMPARED_MAX + 1 } else { room.max(1) },
        )
    }

    /// Adds the groups of `rows`, and returns them in the form in which they are compared.
    fn take(rows: &[PgRow], preview: &mut Preview) -> Result<Vec<parity::Cells>, sqlx::Error> {
        if let Some(first) = rows.first() {
            preview.groups += first.try_get::<i64, _>("groups")?.unsigned_abs();
            preview.rows_read += first.try_get::<i64, _>("rows")?.unsigned_abs();
        }
        let mut compared = Vec::with_capacity(rows.len());
        for row in rows {
            if let Some(cells) = row.try_get("cells")? {
                let document: String = row.try_get("document")?;
                let document = serde_json::from_str(&document).unwrap_or(Value::String(document));
                preview.listed.push(ListedGroup { cells, document: cut_json(document) });
            }
            compared.push(row.try_get("compared")?);
        }
        Ok(compared)
    }
}

/// Before `init` there is no place for an operator's commands, and so there are none.
async fn permit<'w>(
    gate: &Gate<'w>,
    waits: Patience,
) -> Result<Permit<Throttle<'w>>, CheckpointError> {
    let known = match gate.may_start().await {
        Ok(Permit::Given(throttle)) => throttle,
        Ok(not_now) => return Ok(not_now),
        Err(CheckpointError::Store(StoreError::NoTable { .. })) => {
            Throttle::new(gate.governor, None)
        }
        Err(error) => return Err(error),
    };
    gate.permit(Some(known), waits).await
}

fn select(job: SliceJob<'_>, buckets: (DateTime<Utc>, DateTime<Utc>)) -> String {
    read::select(job.rollup, job.shape, Form::Whole, job.rows_behind(buckets), false)
}

/// The columns of the rollup's table, and whether each holds numbers.
fn columns(shape: &Shape) -> Vec<(String, bool)> {
    let is_number = |sql_type: &str| parity::NUMBERS.contains(&sql_type);
    let dimensions = shape.dimensions.iter().map(|it| (it.name.clone(), is_number(&it.sql_type)));
    let fields = shape.fields.iter().map(|it| (it.name.clone(), is_number(&it.sql_type)));
    let generated = shape.generated.iter().map(|it| (it.name.clone(), is_number(&it.sql_type)));
    let bucket = [(shape.time_key.to_owned(), false)];
    bucket.into_iter().chain(dimensions).chain(fields).chain(generated).collect()
}

fn refuse_mirror(rollup: &Rollup) -> Result<(), WorkError> {
    if rollup.mirror.is_none() {
        return Ok(());
    }
    let fault =
        Fault::new(format!("mirror `{}` keeps things as they are, and no groups", rollup.name));
    Err(WorkError::Usage(fault.remedy(
        "preview a rollup of it; `tallymark plan` shows how many things a mirror would read",
    )))
}
