//! Takes over a table that another job keeps: history whose source rows are gone becomes sealed
//! slices, and the rest is compared with the source. The other table stays as it is.
//!
//! The order keeps every number. First the store has the seal, so that no further slice before it is
//! claimed. Then the registry of the target has it, which waits for the replacements under way and
//! refuses later ones. Then the rows are taken over in pieces, each with the markers of its slices.
//! What is computed from these slices is stale for readers in the same transaction. A process that is
//! killed leaves the rest, and the same command goes on. The seal stays, as the rows before it cannot
//! be computed again.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::check::preview::{self, Parity, PreviewOptions, TIMES};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT};
use crate::model::clock::{LAST, Stopwatch, rfc3339_seconds};
use crate::model::hint::Fault;
use crate::model::not_now::Permit;
use crate::model::rollup::{Rollup, TableName};
use crate::model::slice::Slice;
use crate::model::text::listed;
use crate::source::reading::shape::{Shape, catalogue};
use crate::target::{ADOPTED, AdoptedRows, ForeignTable};
use crate::throttle::Patience;
use crate::work::worker::{WorkError, Worker};
use crate::work::{compose, empty, ready};

/// A statement that takes longer is followed by one with fewer slices.
const PIECE_TIME: Duration = Duration::from_millis(500);

/// Slices of one statement at most.
const PIECE_MAX: usize = 512;

/// Longest wait for a busy database before a piece.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What is to be taken over.
#[derive(Clone, Debug)]
pub struct AdoptionPlan {
    foreign: ForeignTable,
    /// Slices that start before this instant are taken over and sealed.
    pub(crate) before: DateTime<Utc>,
    /// The source's first row. `None`: it has none.
    pub(crate) source_begins: Option<DateTime<Utc>>,
    /// The slices to take over, oldest first.
    pub(crate) sealed: Vec<Slice>,
    /// The slices that the source and the table both have, oldest first.
    pub(crate) common: Vec<Slice>,
}

/// Plans the takeover of `table` by `rollup`, which stands in the configuration and has its tables.
/// Nothing is written but the first row of the source into the watermark's item.
///
/// # Errors
/// The table lacks columns, or begins before the rollup, or a server refuses.
pub async fn plan(
    worker: &Worker,
    rollup: &Rollup,
    table: &TableName,
    before: Option<DateTime<Utc>>,
) -> Result<AdoptionPlan, WorkError> {
    refuse_computed(rollup)?;
    let shape = ready::prepare(worker, rollup).await?;
    let foreign = find(worker, rollup, &shape, table).await?;
    let extent = worker.target.extent_of(rollup, &foreign).await?;
    let Some((first, last)) = extent else {
        let fault = Fault::new(format!("table {table} has no rows"));
        return Err(WorkError::Usage(fault.remedy("run `tallymark backfill` in its place")));
    };
    let slice_of = |at| rollup.calendar.containing(at);
    let begin = slice_of(first).start();
    if begin < rollup.start {
        let (first, start) = (rfc3339_seconds(begin), rfc3339_seconds(rollup.start));
        let fault = Fault::new(format!(
            "table {table} begins at {first}, before the start of rollup `{}`, {start}",
            rollup.name
        ));
        return Err(WorkError::Usage(fault.remedy(format!("write start = \"{first}\""))));
    }
    let now = worker.clock.now();
    let known = empty::probe(worker, rollup).await?.source_start();
    if known.is_none() && before.is_none() {
        let fault =
            Fault::new(format!("the source does not tell where rows of {} begin", rollup.from));
        let remedy = "give the start of the first slice that it holds whole, with --before";
        return Err(WorkError::Usage(fault.remedy(remedy)));
    }
    let source_begins = known.and_then(|it| it.first_row);
    // Rows of the first slice may be purged already.
    let whole = source_begins.map(|first| match slice_of(first) {
        slice if slice.start() == first => slice.start(),
        slice => slice.end(),
    });
    let whole = whole.or(before);
    let newest = rollup.newest(now).map_or(rollup.start, |newest| newest.end());
    let before = match before {
        Some(before) if slice_of(before).start() != before => {
            let fault = Fault::new(format!("no slice starts at {}", rfc3339_seconds(before)));
            let start = rfc3339_seconds(slice_of(before).start());
            return Err(WorkError::Usage(fault.remedy(format!("give one that does: {start}"))));
        }
        Some(before) => before,
        None => whole.unwrap_or(newest),
    };
    let before = before.clamp(rollup.start, newest.max(rollup.start));
    let end = slice_of(last).end().min(newest);
    let sealed = rollup.calendar.slices(begin, before.min(end)).collect();
    let from = begin.max(whole.unwrap_or(newest));
    let common = rollup.calendar.slices(from, end.max(from)).collect();
    Ok(AdoptionPlan { foreign, before, source_begins, sealed, common })
}

fn refuse_computed(rollup: &Rollup) -> Result<(), WorkError> {
    if rollup.depth() == 0 && rollup.mirror.is_none() {
        return Ok(());
    }
    let fault = Fault::new(format!("rollup `{}` is no rollup of a table", rollup.name));
    let remedy = "adopt the table by the rollup that is computed from the source, and let this one be \
                  computed from it";
    Err(WorkError::Usage(fault.remedy(remedy)))
}

/// The table with the columns that `rollup` stores.
async fn find(
    worker: &Worker,
    rollup: &Rollup,
    shape: &Shape,
    table: &TableName,
) -> Result<ForeignTable, WorkError> {
    let db = &worker.target.db;
    let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let found = catalogue(&mut tx, table).await?;
    tx.rollback().await?;
    if found.is_empty() {
        let fault = Fault::new(format!("the target has no table {table}"));
        let remedy = "name a table or view of [target], as schema.name";
        return Err(WorkError::Usage(fault.remedy(remedy)));
    }
    let dimensions = shape.dimensions.iter().map(|it| (it.name.clone(), it.sql_type.clone()));
    let fields = shape.fields.iter().map(|it| (it.name.clone(), it.sql_type.clone()));
    let columns: Vec<_> = dimensions.chain(fields).collect();
    let bucket = found.iter().find(|column| column.name == "bucket");
    let has = |name: &str| found.iter().any(|column| column.name == name);
    let lacking = columns.iter().map(|(name, _)| name.as_str()).filter(|name| !has(name));
    let lacking: Vec<_> = bucket.is_none().then_some("bucket").into_iter().chain(lacking).collect();
    if !lacking.is_empty() {
        let names = listed(lacking.into_iter());
        let fault = Fault::new(format!("table {table} has no column {names}"));
        let remedy = "adopt a view of it that gives its columns the names of the rollup's, or leave a \
                      measure that it lacks out of the rollup";
        return Err(WorkError::Usage(fault.remedy(remedy)));
    }
    let bucket_type = bucket.map(|column| column.base_type.clone()).unwrap_or_default();
    if !TIMES.contains(&bucket_type.as_str()) {
        let fault = Fault::new(format!("the column bucket of {table} is of another type"));
        let remedy = "adopt a view of it whose bucket is a timestamptz or a date";
        return Err(WorkError::Usage(fault.remedy(remedy)));
    }
    Ok(ForeignTable { name: table.clone(), bucket_type, columns })
}

/// The slices of `common` to compare: at most `max`, evenly spread, with the first and the last.
#[must_use]
pub(crate) fn sample(common: &[Slice], max: usize) -> Vec<Slice> {
    if common.len() <= max {
        return common.to_vec();
    }
    let place = |nth: usize| nth * (common.len() - 1) / max.saturating_sub(1).max(1);
    (0..max).map(|nth| common[place(nth)]).collect()
}

/// Compares one slice of the table with the source.
///
/// # Errors
/// As [`preview::preview`].
pub(crate) async fn compare(
    worker: &Worker,
    rollup: &Rollup,
    plan: &AdoptionPlan,
    slice: Slice,
    timeout: Duration,
) -> Result<Option<Parity>, WorkError> {
    let against = Some(&plan.foreign.name);
    let options = PreviewOptions { timeout, limit: 1, against };
    Ok(Box::pin(preview::preview(worker, rollup, slice, options)).await?.against)
}

/// Seals the slices before `plan.before`, and takes over the rows of those that have none. `ended`
/// is told of each piece.
///
/// # Errors
/// A server refuses. The same call goes on.
pub async fn take_over(
    worker: &Worker,
    rollup: &Rollup,
    plan: &AdoptionPlan,
    ended: &(dyn Fn(usize) + Sync),
) -> Result<AdoptedRows, WorkError> {
    let (name, before) = (&rollup.name, plan.before);
    if plan.sealed.is_empty() {
        return Ok(AdoptedRows::default());
    }
    // The seal's reason first, so that no operator can remove the seal between the two.
    worker.checkpoints.note_kept_seal(name, before).await?;
    worker.checkpoints.note_adopted(name, before).await?;
    let known = ready::watermark(worker, rollup).await?.seal();
    let seal = known.max(Some(before));
    worker.checkpoints.set_seal(name, seal, LAST).await?;
    worker.target.seal(rollup, seal).await?;
    let mut all = AdoptedRows::default();
    let (mut place, mut step) = (0, 1);
    // Bounded: each statement takes a slice or more.
    while place < plan.sealed.len() {
        let next = (place + step).min(plan.sealed.len());
        let mut gate = ready::gate(worker, rollup, None);
        let patience = Patience::AtMost { load: PATIENCE, slot: PATIENCE };
        let throttle = match gate.permit(None, patience).await? {
            Permit::Given(throttle) => throttle,
            Permit::NotNow(not_now) => {
                gate.wait(not_now, patience).await.map_err(WorkError::NotNow)?;
                continue;
            }
        };
        let watch = Stopwatch::start();
        let pieces = &plan.sealed[place..next];
        let joined = Slice::joined(pieces);
        let coarse = joined.map(|joined| compose::coarse_slices(worker, rollup, joined));
        let coarse = coarse.unwrap_or_default();
        let taken = worker.target.adopt(rollup, &plan.foreign, pieces, before, &coarse).await?;
        let work = watch.elapsed();
        throttle.chunk_read(work, false);
        all.slices += taken.slices;
        all.rows += taken.rows;
        place = next;
        step = if work > PIECE_TIME { (step / 2).max(1) } else { (step * 2).min(PIECE_MAX) };
        ended(place);
    }
    // Without these rows they were computed as if there were none. A process that is killed before
    // this leaves it to the same call, or to the next tick, as readers see them as stale.
    compose::reopen_coarse_of(worker, rollup, &plan.sealed, ADOPTED).await?;
    Ok(all)
}
