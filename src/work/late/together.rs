//! Marks become reopenings in one transaction where the checkpoints are in the source's database. At
//! any instant a mark waits, or its slices are reopened, and never both. Two workers that read the
//! same mark reopen its slices once.

use std::collections::BTreeSet;

use super::reach::{Reach, find, reach, report_sealed};
use super::{Moving, REASON, Taking};
use crate::checkpoint::{Changed, Watermark};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::source::changes::marks;
use crate::source::reading::first_row::SourceStart;
use crate::target::coverage;
use crate::work::backlog::BEGIN_MIN;
use crate::work::worker::{WorkError, Worker};

/// The changes of one rollup.
struct LateHours<'m> {
    changed: Changed<'m>,
    /// The slices that readers see as stale from then on.
    raised: BTreeSet<Slice>,
    /// Where the source's rows began when slices without a checkpoint were judged. `None`: no slice
    /// depends on it.
    judged_by: Option<Option<SourceStart>>,
}

/// Returns whether all marks were moved. Otherwise none was, and the next tick reads them again.
pub(super) async fn move_marks(worker: &Worker, moving: &Moving<'_>) -> Result<bool, WorkError> {
    let Some(mut found) = look(worker, moving).await? else { return Ok(false) };
    // The order of locks.
    found.sort_by_key(|it| it.changed.rollup);
    let Taking { key, consumers, .. } = moving.taking;
    let mut tx = moving.begin(worker).await?;
    let mut may_move = marks::hold(&mut tx, key, consumers, moving.marks).await?;
    for LateHours { changed, raised, judged_by } in found {
        if !may_move {
            break;
        }
        let raised: Vec<_> = raised.into_iter().collect();
        coverage::raise_within(&mut tx, changed.rollup, &raised, REASON).await?;
        let now = worker.clock.now();
        let after = worker.checkpoints.reopen_all_within(&changed, now, &mut tx).await?;
        // A first row that was stored meanwhile may lie after slices that have rows by now.
        let is_as_judged = |(before, after): (_, Watermark)| after.source_start() == before;
        may_move = judged_by.zip(after).is_none_or(is_as_judged);
    }
    if !may_move {
        tx.rollback().await?;
        return Ok(false);
    }
    moving.acknowledge(&mut tx).await?;
    tx.commit().await?;
    Ok(true)
}

/// The slices that the marks reach, by the checkpoints of this moment. `None`: the time is up.
async fn look<'m>(
    worker: &Worker,
    moving: &'m Moving<'_>,
) -> Result<Option<Vec<LateHours<'m>>>, WorkError> {
    let mut all = Vec::new();
    for (rollup, hours) in moving.hours() {
        let Some(reach) = reach(worker, rollup, &hours, moving.now).await? else { continue };
        let Some(found) = look_at(worker, moving, rollup, &reach).await? else { return Ok(None) };
        all.push(found);
    }
    Ok(Some(all))
}

async fn look_at<'m>(
    worker: &Worker,
    moving: &Moving<'_>,
    rollup: &'m Rollup,
    reach: &Reach,
) -> Result<Option<LateHours<'m>>, WorkError> {
    let lateness = reach.lateness(worker, rollup, moving.now, REASON);
    let (mut starts, mut raised) = (BTreeSet::new(), BTreeSet::new());
    let (mut first_due, mut judged_by) = (None, None);
    for stretch in &reach.stretches {
        if moving.deadline.remaining(&*worker.clock) < BEGIN_MIN {
            return Ok(None);
        }
        let found = find(worker, &lateness, stretch).await?;
        if stretch.empty_too && !found.missing.is_empty() {
            judged_by = Some(reach.seen.source_start());
        }
        raised.extend(found.raised(rollup));
        starts.extend(found.to_reopen);
        first_due = first_due.into_iter().chain(found.first_due).min();
    }
    let sealed =
        starts.first().zip(reach.seen.seal_of(rollup)).filter(|(first, seal)| *first < seal);
    if let Some((first, seal)) = sealed {
        report_sealed(rollup, *first, seal);
    }
    let (seal, reason) = (reach.seen.seal_of(rollup), REASON);
    let changed = Changed { rollup: &rollup.name, starts, first_due, seal, reason };
    Ok(Some(LateHours { changed, raised, judged_by }))
}
