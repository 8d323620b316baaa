//! What the pages show, read from the checkpoints.

use chrono::{DateTime, Utc};

use super::coverage::Coverage;
use crate::checkpoint::{Backfill, Checkpoint, Control, Drift};
use crate::cli::status::overview::Overview;
use crate::cli::status::{RollupStatus, look};
use crate::fanout::{self, BackfillProgress};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::work::due::{Planned, Standing};
use crate::work::standings::{self, Standings};
use crate::work::survey::{BLOCK, Survey};
use crate::work::worker::{WorkError, Worker};
use crate::work::{replay, workload};

/// Slices of a calendar: more than 27 years of days, or a year of hours.
pub(super) const SLICES_MAX: u32 = 12_000;

/// Unfinished slices that the overview names for each rollup.
const TROUBLES_MAX: usize = 5;

/// Ended backfills that a rollup's page lists.
const BACKFILLS_MAX: usize = 10;

/// All rollups in a line each, and what concerns all.
pub(super) struct Facts<'w> {
    pub(super) rollups: Vec<RollupLine<'w>>,
    pub(super) control: Control,
    pub(super) backfills: Vec<(Backfill, BackfillProgress)>,
    /// What the mirrors took from the app this month.
    pub(super) workload: Option<String>,
}

/// One rollup of the overview.
pub(super) struct RollupLine<'w> {
    pub(super) rollup: &'w Rollup,
    /// Its state, or why it cannot be told.
    pub(super) overview: Result<Overview, Fault>,
    /// Its newest slices that fail.
    pub(super) failing: Vec<Checkpoint>,
}

impl<'w> Facts<'w> {
    /// # Errors
    /// The checkpoints are unavailable. A problem of one rollup is in its line.
    pub(super) async fn read(worker: &'w Worker) -> Result<Self, WorkError> {
        let control = worker.checkpoints.control().await?;
        let mut facts =
            Self { rollups: Vec::new(), control, backfills: Vec::new(), workload: None };
        let rollups: Vec<_> = worker.config.rollups.iter().collect();
        for block in rollups.chunks(BLOCK) {
            let now = worker.clock.now();
            let mut survey = Survey::of(worker, block, now).await?;
            for rollup in block {
                let known = standings::surveyed(worker, rollup, &mut survey, now).await;
                facts.add(worker, rollup, known, now).await?;
            }
        }
        facts.workload = workload::this_month(worker).await?.map(|month| month.to_string());
        Ok(facts)
    }

    async fn add(
        &mut self,
        worker: &'w Worker,
        rollup: &'w Rollup,
        known: Result<Standings, WorkError>,
        now: DateTime<Utc>,
    ) -> Result<(), WorkError> {
        let known = match known {
            Ok(known) => known,
            Err(error) if error.is_for_all() => return Err(error),
            Err(error) => {
                let overview = Err(Fault::of(&error));
                self.rollups.push(RollupLine { rollup, overview, failing: Vec::new() });
                return Ok(());
            }
        };
        let overview = Overview::new(worker, rollup, &known.plan, &self.control, now);
        let mut failing = Vec::new();
        if overview.failing > 0 {
            failing = replay::unfinished(worker, rollup).await?;
            failing.retain(|it| it.error.is_some());
            failing.reverse();
            failing.truncate(TROUBLES_MAX);
        }
        if let Some(id) = known.seen.backfill()
            && let Some(backfill) = worker.checkpoints.backfill(&rollup.name, id).await?
        {
            self.backfills.push(progress(worker, rollup, backfill).await?);
        }
        self.rollups.push(RollupLine { rollup, overview: Ok(overview), failing });
        Ok(())
    }
}

/// A backfill as it stands, with its progress.
async fn progress(
    worker: &Worker,
    rollup: &Rollup,
    backfill: Backfill,
) -> Result<(Backfill, BackfillProgress), WorkError> {
    let progress = fanout::progress_of(worker, rollup, &backfill).await?;
    Ok((fanout::as_it_stands(worker, rollup, backfill).await?, progress))
}

/// All of one rollup.
pub(super) struct RollupFacts<'w> {
    pub(super) rollup: &'w Rollup,
    pub(super) overview: Overview,
    pub(super) status: RollupStatus,
    /// The newest slices that have a checkpoint, newest first.
    pub(super) recent: Vec<Checkpoint>,
    pub(super) backfills: Vec<(Backfill, Option<BackfillProgress>)>,
    pub(super) control: Control,
    pub(super) coverage: Result<Option<Coverage>, Fault>,
    /// Whether older slices than those of the calendar exist.
    pub(super) is_cut: bool,
    pub(super) now: DateTime<Utc>,
}

impl<'w> RollupFacts<'w> {
    /// # Errors
    /// The checkpoints cannot be read.
    pub(super) async fn read(worker: &'w Worker, rollup: &'w Rollup) -> Result<Self, WorkError> {
        let now = worker.clock.now();
        let control = worker.checkpoints.control().await?;
        let known = standings::of(worker, rollup, now).await?;
        let overview = Overview::new(worker, rollup, &known.plan, &control, now);
        let from = calendar_from(rollup, now);
        let status = look(worker, rollup, known, from, now).await?;
        let mut recent = worker.checkpoints.recent(&rollup.name).await?;
        recent.sort_by_key(|it| std::cmp::Reverse(it.slice_start));
        let mut backfills = Vec::new();
        let found = worker.checkpoints.backfills(&rollup.name).await?;
        for backfill in found.into_iter().take(BACKFILLS_MAX) {
            let (backfill, progress) = match backfill.state.is_active() {
                true => {
                    let (backfill, known) = progress(worker, rollup, backfill).await?;
                    (backfill, Some(known))
                }
                false => (backfill, None),
            };
            backfills.push((backfill, progress));
        }
        let coverage = Coverage::read(worker, rollup).await;
        let is_cut = from > rollup.start;
        Ok(Self { rollup, overview, status, recent, backfills, control, coverage, is_cut, now })
    }

    /// The slices of the calendar.
    ///
    /// # Errors
    /// The checkpoints cannot be read.
    pub(super) async fn slices(
        worker: &Worker,
        rollup: &Rollup,
        now: DateTime<Utc>,
    ) -> Result<Vec<Planned>, WorkError> {
        let from = rollup.calendar.containing(calendar_from(rollup, now)).start();
        Ok(standings::in_range(worker, rollup, from, now, now).await?.slices)
    }

    /// The number of slices that wait for finer ones.
    pub(super) fn blocked(&self) -> usize {
        let is_blocked = |it: &&Planned| it.standing == Standing::Blocked;
        self.status.slices.iter().filter(is_blocked).count()
    }
}

/// The beginning of the calendar: the rollup's, or as many slices back as it shows.
fn calendar_from(rollup: &Rollup, now: DateTime<Utc>) -> DateTime<Utc> {
    let width = chrono::TimeDelta::from_std(rollup.calendar.width().approximate());
    let span = width.unwrap_or_default().checked_mul(i32::try_from(SLICES_MAX).unwrap_or(i32::MAX));
    let from = span.and_then(|span| now.checked_sub_signed(span));
    from.map_or(rollup.start, |from| from.max(rollup.start))
}

/// All of one slice.
pub(super) struct SliceFacts<'w> {
    pub(super) rollup: &'w Rollup,
    pub(super) planned: Planned,
    pub(super) checkpoint: Option<Checkpoint>,
    /// The groups that were found to differ, and when.
    pub(super) drift: Option<Drift>,
    pub(super) failures_max: u32,
    pub(super) is_present_definition: bool,
}

impl<'w> SliceFacts<'w> {
    /// # Errors
    /// The checkpoints cannot be read.
    pub(super) async fn read(
        worker: &'w Worker,
        rollup: &'w Rollup,
        start: DateTime<Utc>,
    ) -> Result<Self, WorkError> {
        let now = worker.clock.now();
        let slice = rollup.calendar.containing(start);
        let plan = standings::in_range(worker, rollup, slice.start(), slice.end(), now).await?;
        let planned = plan.slices.into_iter().find(|it| it.slice == slice);
        let planned = planned.unwrap_or(Planned { slice, standing: Standing::NotEnded });
        let checkpoint = worker.checkpoints.get(&rollup.name, slice.start()).await?;
        let scrub = worker.checkpoints.scrub(&rollup.name).await?;
        let seen = worker.checkpoints.watermark(&rollup.name).await?;
        let definition = seen.definition_of(rollup);
        let known = checkpoint.as_ref();
        let is_present_definition =
            known.is_none_or(|it| it.definition.as_deref() == Some(&*definition));
        let drift = scrub.drift.get(&slice.start()).filter(|it| !it.is_over(known)).copied();
        let failures_max = worker.config.checkpoint.failures_max;
        Ok(Self { rollup, planned, checkpoint, drift, failures_max, is_present_definition })
    }
}
