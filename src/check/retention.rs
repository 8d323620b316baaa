//! `keep`: old slices of a rollup's table are deleted, once every rollup computed from it is complete
//! there.
//!
//! The slices to delete are sealed first, and so are the coarse slices that contain any, by the same
//! proof as for a purge of the source (`purgeable`): nothing of them is due, and no replacement is
//! under way. Then they are deleted in pieces. Their markers stay, and say when. A worker that is
//! killed leaves the rest to the next tick.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::purgeable::{self, SealWish};
use crate::checkpoint::Watermark;
use crate::model::clock::{Deadline, Stopwatch};
use crate::model::not_now::Permit;
use crate::model::rollup::Rollup;
use crate::target::DeletedSlices;
use crate::throttle::Patience;
use crate::work::backlog::BEGIN_MIN;
use crate::work::ready;
use crate::work::report::TickReport;
use crate::work::survey::BLOCK;
use crate::work::worker::{WorkError, Worker};

/// Deletes the old slices of those of `rollups` that have `keep`, while there is time, and adds them to
/// the tick's report.
pub(crate) async fn run(
    worker: &Worker,
    rollups: impl Iterator<Item = &Rollup>,
    deadline: Deadline,
    report: &mut TickReport,
) {
    let rollups: Vec<&Rollup> = rollups.filter(|rollup| rollup.keep.is_some()).collect();
    for block in rollups.chunks(BLOCK) {
        if report.is_over {
            return;
        }
        let names: Vec<&str> = block.iter().map(|rollup| &*rollup.name).collect();
        // What cannot be read is read again for its rollup, which reports it.
        let mut seen = worker.checkpoints.watermarks(&names).await.unwrap_or_default();
        for rollup in block {
            if !report.is_over && !report.is_blocked(rollup) {
                report.at = Some(rollup.name.clone());
                // Boxed, as a future within futures within it is too deep for the compiler.
                let seen = seen.remove(&rollup.name);
                Box::pin(run_one(worker, rollup, seen, deadline, report)).await;
            }
        }
    }
}

async fn run_one(
    worker: &Worker,
    rollup: &Rollup,
    seen: Option<Watermark>,
    deadline: Deadline,
    report: &mut TickReport,
) {
    let mut deleted = DeletedSlices::default();
    if let Err(error) = delete_old(worker, rollup, seen, deadline, &mut deleted).await {
        report.problem(rollup, &error);
    }
    if deleted.slices > 0 {
        let DeletedSlices { slices, rows } = deleted;
        tracing::info!(rollup = rollup.name, slices, rows, "deleted slices that are not kept");
    }
    report.kept_away.slices += deleted.slices;
    report.kept_away.rows += deleted.rows;
}

async fn delete_old(
    worker: &Worker,
    rollup: &Rollup,
    seen: Option<Watermark>,
    deadline: Deadline,
    deleted: &mut DeletedSlices,
) -> Result<(), WorkError> {
    let consumers = worker.config.rollups.iter().filter(|it| it.is_computed_from(rollup));
    let consumers: Vec<&Rollup> = consumers.collect();
    let Some(Cut { before, seal }) = cut(rollup, &consumers, worker.clock.now()) else {
        return Ok(());
    };
    let seen = match seen {
        Some(seen) => seen,
        None => ready::watermark(worker, rollup).await?,
    };
    if seen.kept_until().is_some_and(|until| until >= before) {
        return Ok(());
    }
    worker.checkpoints.read_apart().await;
    if seen.kept_from().is_none_or(|from| from < before) {
        let wish = |rollup, before| SealWish { rollup, before, done_until: seal, is_kept: true };
        // The consumers' slices that are sealed rest on the rollup's slices up to `seal`, and these on
        // those of the finer rollups.
        let bases = rollup.bases();
        let coarse = consumers.iter().map(|consumer| wish(*consumer, Some(seal)));
        let own = [wish(rollup, Some(before))].into_iter().chain(coarse);
        let wishes: Vec<_> = bases.map(|it| wish(it, None)).chain(own).collect();
        if purgeable::try_seal(worker, &wishes).await?.is_some() {
            return Ok(());
        }
        worker.checkpoints.note_kept_from(&rollup.name, before).await?;
    }
    ready::check(worker, rollup).await?;
    let mut drops = rollup.partition_by.is_some();
    // The pace is found once deleting takes its time.
    let mut work = Duration::ZERO;
    // Bounded by the deadline: each statement deletes a slice or is the last of its kind.
    while deadline.remaining(&*worker.clock) >= BEGIN_MIN {
        let gate = ready::gate(worker, rollup, Some(worker.clock.now()));
        let patience = Patience::Until { deadline, needed: BEGIN_MIN };
        let Permit::Given(throttle) = gate.permit(None, patience).await? else { return Ok(()) };
        let throttle = gate.listen(throttle, work, patience).await;
        let watch = Stopwatch::start();
        // Whole partitions first. Where they are in use, their rows are deleted like all others.
        let dropped = match drops {
            true => worker.target.drop_partitions(rollup, before).await?,
            false => None,
        };
        drops = dropped.is_some();
        let piece = match dropped {
            Some(piece) => piece,
            None => worker.target.keep_away(rollup, before).await?,
        };
        work = watch.elapsed();
        throttle.chunk_read(work, false);
        if piece.slices == 0 && !drops {
            worker.checkpoints.note_kept_until(&rollup.name, before).await?;
            return Ok(());
        }
        deleted.slices += piece.slices;
        deleted.rows += piece.rows;
    }
    Ok(())
}

/// What `keep` takes away.
struct Cut {
    /// Rows of the rollup before this instant are deleted.
    before: DateTime<Utc>,
    /// Slices of its consumers that start before this instant stay as they are.
    seal: DateTime<Utc>,
}

/// Where `rollup` is cut at `now`: where a slice of its widest consumer, or a partition, begins, at
/// least `keep` ago. The rows that later slices of its consumers look back to stay. `None`: there is
/// nothing to delete.
fn cut(rollup: &Rollup, consumers: &[&Rollup], now: DateTime<Utc>) -> Option<Cut> {
    let keep = TimeDelta::from_std(rollup.keep?).ok()?;
    let goal = now.checked_sub_signed(keep)?;
    // Where slices fill partitions, these go as a whole.
    let partitions = rollup.partitions().filter(|it| rollup.calendar.width().divides(it.width()));
    let all = consumers.iter().copied().chain([rollup]).map(|it| it.calendar);
    let widest = all.chain(partitions).max_by_key(|it| it.width().approximate())?;
    let seal = widest.containing(goal).start();
    let needed = consumers.iter().map(|consumer| {
        let across = consumer.calendar.containing(seal);
        let first = if across.start() < seal { consumer.calendar.next(across) } else { across };
        consumer.window(first).0
    });
    let before = needed.chain([seal]).min()?;
    let before = partitions.map_or(before, |it| it.containing(before).start());
    (before > rollup.start).then_some(Cut { before, seal })
}
