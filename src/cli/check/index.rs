//! The plan of a slice's read, and missing indexes.

use super::{Findings, Grade};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::source::reading::plan_guard::{self, By, PlannedRead, unindexed};
use crate::source::reading::shape::Shape;
use crate::target::live;
use crate::work::worker::{WorkError, Worker};

/// How a slice would be read, as the plan guard sees it.
pub(super) async fn inspect(
    worker: &Worker,
    rollup: &Rollup,
    shape: &Shape,
    findings: &mut Findings,
) -> Result<(), WorkError> {
    let newest = rollup.newest(worker.clock.now());
    let slice = newest.unwrap_or_else(|| rollup.calendar.containing(rollup.start));
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let PlannedRead { rows, scans, refusal } =
        plan_guard::inspect(&mut tx, rollup, shape, slice.start(), slice.end()).await?;
    tx.rollback().await?;
    let label = rollup.calendar.label(&slice);
    let rows = plan_guard::about(rows);
    let seen: Vec<String> = scans
        .iter()
        .map(|scan| {
            let index = scan.index.as_ref().map_or_else(String::new, |name| format!(" by {name}"));
            let size = match scan.is_bounded {
                true => String::new(),
                false => {
                    format!(", all of it ({})", indicatif::HumanBytes(scan.bytes.unsigned_abs()))
                }
            };
            format!("{} of {}{index}{size}", scan.method, scan.table)
        })
        .collect();
    let noun = if rows == "1" { "row" } else { "rows" };
    // A partitioned table may have no partition for the slice yet.
    let seen = match seen.as_slice() {
        [] => "no table to read".to_owned(),
        _ => seen.join("; "),
    };
    let seen = format!("slice {label} holds about {rows} {noun}: {seen}");
    let (grade, finding) = match refusal {
        None => (Grade::Good, seen.into()),
        Some(refusal) if rollup.plan_guard => (Grade::Bad, refusal),
        Some(_) => (Grade::Note, format!("{seen}; allowed by plan_guard = false").into()),
    };
    findings.add(grade, &rollup.name, finding);
    missing(worker, rollup, (shape, slice), grade == Grade::Good, findings).await
}

/// What a query of the live view reads of the source, at most.
pub(super) async fn live(
    worker: &Worker,
    rollup: &Rollup,
    shape: &Shape,
    findings: &mut Findings,
) -> Result<(), WorkError> {
    let now = worker.clock.now();
    let newest = rollup.newest(now);
    let first = newest.unwrap_or_else(|| rollup.calendar.containing(rollup.start));
    let last = rollup.calendar.containing(now.max(first.start()));
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let rows = plan_guard::estimate(&mut tx, rollup, shape, first.start(), last.end()).await?;
    tx.rollback().await?;
    let rows = plan_guard::about(rows);
    let noun = if rows == "1" { "row" } else { "rows" };
    let finding = format!(
        "each query of {}.{} also reads the slices that are not computed yet: about {rows} {noun} of the \
         source where that is slice {}",
        worker.target.schema,
        live::view_of(&rollup.name),
        rollup.calendar.label(&first),
    );
    findings.add(Grade::Note, &rollup.name, finding);
    Ok(())
}

/// Tables without an index on the change column, and tables without one on the time. The second is
/// left out unless the plan guard `passes` the present plan, because the guard reports it
/// otherwise.
async fn missing(
    worker: &Worker,
    rollup: &Rollup,
    (shape, slice): (&Shape, Slice),
    passes: bool,
    findings: &mut Findings,
) -> Result<(), WorkError> {
    let (of, bounds) = ((rollup, shape), (slice.start(), slice.end()));
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let by_time = unindexed(&mut tx, of, By::Time, bounds).await?.filter(|_| passes);
    let by_change = unindexed(&mut tx, of, By::Change, bounds).await?;
    tx.rollback().await?;
    if let Some(missing) = by_time {
        let finding = format!(
            "time: no index finds rows by `{}`, which is felt once the table has grown; as its owner: {}",
            shape.axis.column(),
            missing.remedy()
        );
        findings.add(Grade::Note, &rollup.name, finding);
    }
    if let Some((missing, axis)) = by_change.zip(shape.changes.as_ref()) {
        let grade = if missing.is_large { Grade::Bad } else { Grade::Note };
        let finding = format!(
            "late: no B-tree index finds changed rows by `{}`, so every tick reads the whole table; as its \
             owner: {}",
            axis.column(),
            missing.remedy()
        );
        findings.add(grade, &rollup.name, finding);
    }
    Ok(())
}
