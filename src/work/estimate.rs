//! Estimates a backfill before it starts, from the planner's statistics and plans and from the
//! rollup's newest slices. The source's rows stay unread.

mod coarse;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::checkpoint::{Checkpoint, Completion};
use crate::clients::bubble::{PAGE_MAX, Units};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT};
use crate::config::Settings;
use crate::model::clock::Stopwatch;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::source::reading::pace::FIRST_CHUNK_ROWS;
use crate::source::reading::plan_guard;
use crate::work::backfill::BackfillPlan;
use crate::work::price::Dollars;
use crate::work::size::{self, Size};
use crate::work::worker::{WorkError, Worker};
use crate::work::{ready, things};

pub(crate) use coarse::CoarseEstimate;

/// Slices whose plans are examined, spread evenly over those to compute.
const SAMPLES_MAX: usize = 5;

/// Assumed milliseconds around a slice's statements, until a finished slice shows them: a few round
/// trips to PostgreSQL.
const OVERHEAD_MS: f64 = 20.0;

/// DynamoDB calls for each slice: pauses, claim, completion.
const CALLS: f64 = 3.0;

/// Milliseconds of a page of an app, until a finished slice shows them.
const PAGE_MS: f64 = 700.0;

/// Bytes of a thing in an answer: types of one app had 260 to 1,340 on average.
const THING_BYTES: u64 = 800;

/// Working hours walked through to find the end: years of nights.
const STRETCHES_MAX: usize = 10_000;

/// Measured cost of the newest slices of a rollup.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Learned {
    /// Milliseconds of statements on the source for each row.
    pub(crate) ms_per_row: f64,
    /// Milliseconds around these statements for each slice.
    pub(crate) overhead_ms: f64,
}

/// The estimate of a backfill.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// Slices to compute.
    pub slices: usize,
    /// Source rows in them.
    pub rows: u64,
    /// Blocks of the source's tables and indexes that are read.
    pub blocks: u64,
    /// Milliseconds of statements on the source.
    pub source_ms: u64,
    /// Working time in milliseconds, from start to end.
    pub elapsed_ms: u64,
    /// The estimated end, including hours outside of the working hours.
    pub finish_at: DateTime<Utc>,
    /// Whether the times come from slices of this rollup. Otherwise they are a guess.
    pub is_learned: bool,
    /// The slices of coarse rollups that ticks compute afterwards.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub coarse: Vec<CoarseEstimate>,
    /// On AWS, each slice in an invocation of its own, with those of coarse rollups.
    pub(crate) dollars: Dollars,
    /// Whether AWS has a part in the work. Without one, nothing of it is charged.
    pub(crate) is_on_aws: bool,
    /// The groups that it computes, and how its table compresses. `None`: nothing tells.
    #[serde(skip)]
    pub(crate) size: Option<Size>,
    /// What the app will bill. `None`: the source is a database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) workload_units: Option<Units>,
}

impl Estimate {
    /// The groups that it computes.
    #[must_use]
    pub(crate) fn groups(&self) -> Option<u64> {
        self.size.map(|size| whole(float(self.rows) / size.rows_per_group))
    }

    /// The bytes that these groups take in the table, with its indexes.
    #[must_use]
    pub(crate) fn table_bytes(&self) -> Option<u64> {
        self.size.map(|size| whole(float(self.rows) / size.rows_per_group * size.bytes_per_group))
    }
}

/// Measured cost of the newest slices of `rollup`. `None`: measurements are missing.
///
/// # Errors
/// The checkpoints cannot be read.
pub(crate) async fn learned(
    worker: &Worker,
    rollup: &Rollup,
) -> Result<Option<Learned>, WorkError> {
    let (recent, call_ms) = recent_and_call(worker, rollup).await?;
    Ok(learned_of(worker, &recent, call_ms))
}

/// The newest slices of `rollup`, and the milliseconds that a DynamoDB call takes now.
async fn recent_and_call(
    worker: &Worker,
    rollup: &Rollup,
) -> Result<(Vec<Checkpoint>, f64), WorkError> {
    let watch = Stopwatch::start();
    let recent = worker.checkpoints.recent(&rollup.name).await?;
    Ok((recent, watch.elapsed().as_secs_f64() * 1e3))
}

/// The measured cost of `recent` slices, where a DynamoDB call takes `call_ms`.
fn learned_of(worker: &Worker, recent: &[Checkpoint], call_ms: f64) -> Option<Learned> {
    let done: Vec<_> = recent.iter().filter_map(|checkpoint| checkpoint.outcome.as_ref()).collect();
    let nice = 1.0 + worker.governor.settings().nice_ratio.slowest();
    let sum = |of: &dyn Fn(&Completion) -> f64| -> f64 { done.iter().map(|done| of(done)).sum() };
    let rows = sum(&|done| float(done.rows_read));
    if rows < 1.0 {
        return None;
    }
    let source_ms = sum(&|done| float(done.source_ms));
    // Take the median, as a slice that waited for a transaction or a slot says little about the
    // others.
    let around = |done: &Completion| float(done.elapsed_ms) - nice * float(done.source_ms);
    let mut around: Vec<f64> = done.iter().map(|done| around(done).max(0.0)).collect();
    around.sort_by(f64::total_cmp);
    // A slice's time was measured before its success was written.
    let overhead_ms = around[around.len() / 2].max(1.0) + call_ms;
    Some(Learned { ms_per_row: (source_ms / rows).max(1e-6), overhead_ms })
}

/// The estimate of `plan` with this many concurrent slices, and of the slices of coarse rollups that
/// follow.
///
/// # Errors
/// The source or the checkpoints cannot be read.
pub async fn estimate(
    worker: &Worker,
    rollup: &Rollup,
    plan: &BackfillPlan,
    concurrency: u32,
) -> Result<Estimate, WorkError> {
    let mut estimate = alone(worker, rollup, plan, concurrency).await?;
    estimate.coarse = coarse::of(worker, rollup, &plan.slices).await?;
    for coarse in &estimate.coarse {
        let dollars = coarse.dollars();
        let is_charged = estimate.is_on_aws;
        let dollars = if is_charged { dollars } else { dollars.without_dynamodb() };
        estimate.dollars = estimate.dollars.plus(dollars);
    }
    Ok(estimate)
}

/// The estimate of `plan` alone, with this many concurrent slices.
///
/// # Errors
/// The source or the checkpoints cannot be read.
pub(crate) async fn alone(
    worker: &Worker,
    rollup: &Rollup,
    plan: &BackfillPlan,
    concurrency: u32,
) -> Result<Estimate, WorkError> {
    let (rows, blocks) = match rollup.mirror {
        Some(_) => (things_in(worker, rollup, &plan.slices).await?, 0.0),
        None => volume(worker, rollup, &plan.slices).await?,
    };
    let (recent, call_ms) = recent_and_call(worker, rollup).await?;
    let learned = learned_of(worker, &recent, call_ms);
    let chunk_ms = worker.config.source.chunk_time.as_secs_f64() * 1e3;
    let size = size::of(worker, rollup, &plan.slices, &recent).await?;
    let overhead_ms = OVERHEAD_MS + CALLS * call_ms;
    let ms_per_row = match rollup.mirror {
        Some(_) => PAGE_MS / float(PAGE_MAX),
        None => chunk_ms / FIRST_CHUNK_ROWS,
    };
    let guess = Learned { ms_per_row, overhead_ms };
    let Learned { ms_per_row, overhead_ms } = learned.unwrap_or(guess);
    let source_ms = rows * ms_per_row;
    #[expect(clippy::cast_precision_loss, reason = "a number of slices")]
    let slices = plan.slices.len() as f64;
    let settings = worker.governor.settings();
    let at_once = f64::from(concurrency);
    // A worker keeps its slot while it naps, and gives it up while it rests.
    let (slots, nice_ratio) = (f64::from(settings.slots), settings.nice_ratio.slowest());
    let reading = match settings.naps {
        true => at_once.min(slots) / (1.0 + nice_ratio),
        false => (at_once / (1.0 + nice_ratio)).min(slots),
    };
    let elapsed_ms = source_ms / reading + slices * overhead_ms / at_once;
    let work_ms = source_ms * (1.0 + nice_ratio) + slices * overhead_ms;
    let is_on_aws = !worker.checkpoints.is_in_target();
    let dollars = Dollars::of(slices, work_ms);
    Ok(Estimate {
        slices: plan.slices.len(),
        rows: whole(rows),
        blocks: whole(blocks),
        source_ms: whole(source_ms),
        elapsed_ms: whole(elapsed_ms),
        finish_at: finish(settings, worker.clock.now(), elapsed_ms),
        is_learned: learned.is_some(),
        coarse: Vec::new(),
        dollars: if is_on_aws { dollars } else { dollars.without_dynamodb() },
        is_on_aws,
        size,
        workload_units: rollup.mirror.is_some().then(|| workload(rows, slices)),
    })
}

/// The estimate of several backfills, one after another. `None`: there is none.
#[must_use]
pub(crate) fn together(worker: &Worker, estimates: &[Estimate]) -> Option<Estimate> {
    let settings = worker.governor.settings();
    let both = |one: Estimate, other: &Estimate| {
        let elapsed_ms = one.elapsed_ms + other.elapsed_ms;
        let units = one.workload_units.into_iter().chain(other.workload_units);
        Estimate {
            slices: one.slices + other.slices,
            rows: one.rows + other.rows,
            blocks: one.blocks + other.blocks,
            source_ms: one.source_ms + other.source_ms,
            elapsed_ms,
            finish_at: finish(settings, worker.clock.now(), float(elapsed_ms)),
            is_learned: one.is_learned && other.is_learned,
            dollars: one.dollars.plus(other.dollars),
            // They are part of it.
            coarse: Vec::new(),
            is_on_aws: one.is_on_aws || other.is_on_aws,
            // Sizes are of one table each.
            size: None,
            workload_units: units.reduce(|one, other| one + other),
        }
    };
    let (first, rest) = estimates.split_first()?;
    Some(rest.iter().fold(first.clone(), both))
}

/// The things in `slices` of a mirror, by the app's own count.
async fn things_in(worker: &Worker, rollup: &Rollup, slices: &[Slice]) -> Result<f64, WorkError> {
    let (Some(first), Some(last)) = (slices.iter().min(), slices.iter().max()) else {
        return Ok(0.0);
    };
    things::prove(worker, rollup).await?;
    let (start, end) = (first.start(), last.end());
    let all = things::count(worker, rollup, (start, end)).await?;
    let share = seconds(slices.iter().map(Slice::duration).sum()) / seconds(end - start);
    Ok(float(all) * share.min(1.0))
}

/// What the app will bill for this many things in this many slices: full pages, a further page and
/// a count for each slice.
fn workload(things: f64, slices: f64) -> Units {
    let full = Units::of_search(PAGE_MAX, PAGE_MAX * THING_BYTES).as_f64() / float(PAGE_MAX);
    let apart = Units::of_search(1, THING_BYTES).as_f64();
    Units::millionths(whole((things * full + 2.0 * slices * apart) * 1e6))
}

/// The rows in `slices`, and the blocks that hold them.
async fn volume(
    worker: &Worker,
    rollup: &Rollup,
    slices: &[Slice],
) -> Result<(f64, f64), WorkError> {
    let (Some(first), Some(last)) = (slices.iter().min(), slices.iter().max()) else {
        return Ok((0.0, 0.0));
    };
    let shape = ready::shape(worker, rollup).await?;
    let source = worker.source_of(rollup);
    let mut tx = source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let (start, end) = (rollup.window(*first).0, last.end());
    let all = plan_guard::estimate(&mut tx, rollup, &shape, start, end).await?;
    // Some slices in between may already be done. Windows overlap, and read a row several times.
    let span = |slice: &Slice| {
        let (start, end) = rollup.window(*slice);
        end - start
    };
    let share = seconds(slices.iter().map(span).sum()) / seconds(end - start);
    let share = if rollup.trailing.is_some() { share } else { share.min(1.0) };
    let step = slices.len().div_ceil(SAMPLES_MAX).max(1);
    let (mut rows, mut blocks) = (0.0, 0.0);
    for slice in slices.iter().step_by(step) {
        let bounds = rollup.window(*slice);
        let volume = plan_guard::volume(&mut tx, rollup, &shape, bounds.0, bounds.1).await?;
        rows += volume.rows.max(1.0);
        blocks += volume.blocks;
    }
    tx.rollback().await?;
    let rows_all = all * share;
    Ok((rows_all, rows_all * blocks / rows))
}

/// The end of work that takes `elapsed_ms` from `now`, restricted to its working hours.
fn finish(settings: &Settings, now: DateTime<Utc>, elapsed_ms: f64) -> DateTime<Utc> {
    let span =
        |ms: f64| TimeDelta::milliseconds(i64::try_from(whole(ms)).unwrap_or(i64::MAX / 1_000_000));
    let mut left = span(elapsed_ms);
    let mut at = now;
    for _ in 0..STRETCHES_MAX {
        let is_open = |at| {
            settings.window.is_none_or(|window| window.contain(at))
                && settings.quiet_hours.is_none_or(|quiet| !quiet.contain(at))
        };
        let hours = settings.window.into_iter().chain(settings.quiet_hours);
        let Some(next) = hours.map(|hours| hours.next_change(at)).min() else { break };
        if is_open(at) {
            if at + left <= next {
                break;
            }
            left -= next - at;
        }
        at = next;
    }
    at.checked_add_signed(left).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
pub(super) const fn float(count: u64) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
fn whole(number: f64) -> u64 {
    number.max(0.0).round() as u64
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn seconds(span: TimeDelta) -> f64 {
    (span.num_milliseconds() as f64 / 1e3).max(1e-3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DailyHours;

    #[test]
    fn work_that_is_done_at_its_hours_only_ends_nights_later() {
        let now: DateTime<Utc> = "2026-01-01T12:00:00Z".parse().expect("an instant");
        let ten_hours = 10.0 * 3.6e6;
        let hours = |text| DailyHours::parse(text, chrono_tz::Tz::UTC);
        let always = Settings::default();
        assert_eq!(finish(&always, now, ten_hours), now + TimeDelta::hours(10));
        // Eight hours of the first night, two of the second.
        let nights = Settings { window: hours("22:00-06:00"), ..Settings::default() };
        let end: DateTime<Utc> = "2026-01-03T00:00:00Z".parse().expect("an instant");
        assert_eq!(finish(&nights, now, ten_hours), end);
        let quiet = Settings { quiet_hours: hours("01:00-05:00"), ..nights };
        let end: DateTime<Utc> = "2026-01-04T00:00:00Z".parse().expect("an instant");
        assert_eq!(finish(&quiet, now, ten_hours), end);
    }
}
