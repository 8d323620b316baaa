//! Which slices of a rollup are due, by its checkpoints of this moment.

use chrono::{DateTime, Utc};

use crate::checkpoint::{CheckpointError, Watermark};
use crate::model::rollup::Rollup;
use crate::work::due::{Plan, View, read_from};
use crate::work::survey::{BLOCK, Survey, Surveyed};
use crate::work::worker::{WorkError, Worker};
use crate::work::{compose, identity, ready};

/// The standings of a rollup's slices, and the watermark that was read before them.
#[derive(Clone, Debug)]
pub struct Standings {
    /// The stored watermark.
    pub seen: Watermark,
    /// The slices from the watermark on.
    pub plan: Plan,
    /// The present definition, in the form of a checkpoint of the present calendar.
    pub definition: String,
}

impl Standings {
    /// The definition of all slices before the watermark. `None`: there are several.
    fn common_definition(&self) -> Option<&str> {
        self.plan.is_of_one_definition().then_some(&*self.definition)
    }

    /// Whether the stored watermark says another one.
    pub(crate) fn has_news(&self, rollup: &Rollup) -> bool {
        let has_slices = self.plan.watermark > rollup.start;
        has_slices && self.seen.definition() != self.common_definition()
    }
}

/// The standings of the slices of `rollup`, by its checkpoints alone.
///
/// # Errors
/// The checkpoints cannot be read.
pub async fn of(
    worker: &Worker,
    rollup: &Rollup,
    now: DateTime<Utc>,
) -> Result<Standings, WorkError> {
    let seen = ready::watermark(worker, rollup).await?;
    after(worker, rollup, Surveyed::unread(seen), now).await
}

/// As [`of`], with what was read just now.
pub(crate) async fn after(
    worker: &Worker,
    rollup: &Rollup,
    Surveyed { seen, after }: Surveyed,
    now: DateTime<Utc>,
) -> Result<Standings, WorkError> {
    Box::pin(identity::recognise(worker, rollup, seen.bond())).await?;
    let view = view(worker, rollup, &seen, now);
    let from = read_from(rollup, &seen, &view.definition, now);
    let checkpoints = match after.and_then(|after| after.since(from)) {
        Some(checkpoints) => checkpoints,
        None if view.has_slices(from, now) => {
            worker.checkpoints.range(&rollup.name, from, now).await?
        }
        None => Vec::new(),
    };
    let definition = view.definition.clone();
    let plan = compose::plan(worker, view, &checkpoints, from, now).await?;
    Ok(Standings { seen, plan, definition })
}

/// Calls `each` with the standings of every one of `rollups`, in their order. The rollups are read
/// together.
///
/// # Errors
/// The checkpoints are unavailable, or one of the rollups cannot be read, or `each` fails.
pub(crate) async fn of_each<'r>(
    worker: &Worker,
    rollups: &[&'r Rollup],
    now: DateTime<Utc>,
    mut each: impl FnMut(&'r Rollup, Standings),
) -> Result<(), WorkError> {
    for block in rollups.chunks(BLOCK) {
        let mut survey = Survey::of(worker, block, now).await?;
        for rollup in block {
            each(rollup, surveyed(worker, rollup, &mut survey, now).await?);
        }
    }
    Ok(())
}

/// As [`of`], by what `survey` has read.
pub(crate) async fn surveyed(
    worker: &Worker,
    rollup: &Rollup,
    survey: &mut Survey,
    now: DateTime<Utc>,
) -> Result<Standings, WorkError> {
    let known = survey.take(worker, rollup).await?;
    after(worker, rollup, known, now).await
}

/// The inputs besides the checkpoints that decide the slices' standings.
pub(crate) fn view<'r>(
    worker: &Worker,
    rollup: &'r Rollup,
    seen: &Watermark,
    now: DateTime<Utc>,
) -> View<'r> {
    let failures_max = worker.config.checkpoint.failures_max;
    let (source_start, definition) = (seen.source_start(), seen.definition_of(rollup));
    let moved_from = seen.moved_from(rollup);
    let (seal, adopted) = (seen.seal_of(rollup), seen.adopted());
    View {
        rollup,
        now,
        failures_max,
        source_start,
        definition,
        moved_from,
        seal,
        adopted,
        finer_done: None,
    }
}

/// The standings of the slices of `rollup` that start in `[from, to)`.
///
/// # Errors
/// The checkpoints cannot be read.
pub async fn in_range(
    worker: &Worker,
    rollup: &Rollup,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Plan, WorkError> {
    let seen = ready::watermark(worker, rollup).await?;
    Box::pin(identity::recognise(worker, rollup, seen.bond())).await?;
    let checkpoints = worker.checkpoints.range(&rollup.name, from, to).await?;
    compose::plan(worker, view(worker, rollup, &seen, now), &checkpoints, from, to).await
}

/// Writes the watermark if it has moved by at least `step` slices. Also writes it if the
/// definition of all slices before it has become known or unknown.
///
/// # Errors
/// The write fails.
pub(crate) async fn move_watermark(
    worker: &Worker,
    rollup: &Rollup,
    standings: &Standings,
    step: usize,
) -> Result<(), CheckpointError> {
    let Standings { seen, plan, .. } = standings;
    if !seen.is_adopted_by(rollup) {
        // It is the watermark of another calendar.
        return Ok(());
    }
    let stored = seen.until().unwrap_or(rollup.start);
    let passed = plan
        .slices
        .iter()
        .map(|planned| planned.slice)
        .filter(|slice| slice.start() >= stored && slice.end() <= plan.watermark)
        .count();
    if passed >= step || standings.has_news(rollup) {
        let (name, to, definition) = (&rollup.name, plan.watermark, standings.common_definition());
        worker.checkpoints.advance_watermark(name, seen, to, definition).await?;
    }
    Ok(())
}
