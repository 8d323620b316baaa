//! Scrub: a tick with time left compares a few old slices with the source, as storage pools are
//! scrubbed.
//!
//! Each rollup has a cursor that goes round its slices, oldest first. The rollup whose next slice
//! was verified longest ago comes first. A slice is paid for, then taken, then compared. So the
//! daily limit holds even if a worker is killed in between, and a slice whose comparison fails
//! leaves the others free to continue.

mod budget;
mod round;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

pub(crate) use budget::{Due, due, price};
pub(crate) use round::scrubbed_range;

use round::last_verified;

use crate::check::verify::{self, Asked, Compared};
use crate::checkpoint::{Checkpoint, DRIFT_MAX, Drift, PAGE, ScrubProgress};
use crate::clients::db::DbErrorKind;
use crate::config;
use crate::model::clock::{Deadline, rfc3339};
use crate::model::not_now::Why;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::throttle::Governor;
use crate::work::backlog::BEGIN_MIN;
use crate::work::due::Standing;
use crate::work::ready;
use crate::work::report::{
    DriftReport, LISTED_MAX, NotCompared, RollupProblem, SliceVerification, TickReport,
};
use crate::work::slice_run::RESERVE;
use crate::work::survey::BLOCK;
use crate::work::worker::{WorkError, Worker};

/// Scrubs can wait, so this bounds how long their statements keep a snapshot open.
const STATEMENT_MAX: Duration = Duration::from_secs(60);

/// Comparing a slice takes up to this many times as long as reading it did.
const COMPARING: u32 = 2;

/// Number of groups shown for a slice that differs.
const EXAMPLES: usize = 3;

/// Bytes of these examples in a log line, as keys can be long texts.
const EXAMPLES_BYTES_MAX: usize = 4096;

/// Pages of checkpoints searched for the next slice. After about 4,000 unfinished checkpoints in a
/// row the scrub gives up, as those slices need an operator first.
const PAGES_MAX: usize = 256;

/// Least time between two verifications of the same slice.
const ROUND_MIN: TimeDelta = TimeDelta::days(1);

/// A rollup and the progress of its scrub.
struct Track<'r> {
    rollup: &'r Rollup,
    scrub: ScrubProgress,
    /// Slices that start before this instant are sealed.
    seal: Option<DateTime<Utc>>,
    /// Nothing to verify, or an error occurred.
    is_idle: bool,
}

impl Track<'_> {
    fn range(&self, now: DateTime<Utc>) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        scrubbed_range(self.rollup, self.seal, now)
    }
}

/// The slice to verify next.
struct NextSlice {
    /// Index of its rollup's track.
    track: usize,
    slice: Slice,
    /// The time that it may need.
    needs: Duration,
    /// The scrub's progress once the slice is taken.
    next: ScrubProgress,
}

/// Verifies the old slices that are due, while there is time, and adds the result to the tick's
/// report.
pub(crate) async fn run(
    worker: &Worker,
    settings: config::ScrubSettings,
    only: Option<&Rollup>,
    deadline: Deadline,
    report: &mut TickReport,
) {
    let has_trouble =
        |rollup: &&Rollup| report.problems.iter().any(|problem| problem.rollup == rollup.name);
    let wanted = |rollup: &&Rollup| only.is_none_or(|only| only.name == rollup.name);
    let rollups: Vec<&Rollup> =
        worker.config.rollups.iter().filter(wanted).filter(|it| !has_trouble(it)).collect();
    let Some(first) = rollups.first() else { return };
    if let Err(error) = scrub_all(worker, settings, &rollups, deadline, report).await {
        report.problems.push(RollupProblem::new(&first.name, &error));
    }
}

async fn scrub_all(
    worker: &Worker,
    settings: config::ScrubSettings,
    rollups: &[&Rollup],
    deadline: Deadline,
    report: &mut TickReport,
) -> Result<(), WorkError> {
    let per_day = settings.slices_per_day;
    let whole = deadline.remaining(&*worker.clock);
    let mut spent = worker.checkpoints.scrub_budget().await?;
    let (mut tracks, mut is_paid) = (Vec::new(), false);
    // Each turn takes a slice or finds that another worker took it. Both happen at most as
    // often as the day's number of slices.
    for _ in 0..=2 * per_day {
        let next = match due(spent.as_ref(), worker.clock.now(), per_day) {
            _ if is_paid => None,
            Due::Later => break,
            Due::One(next) => Some(next),
            Due::Enough(next) => {
                worker.checkpoints.spend_scrub_budget(spent.as_ref(), &next).await?;
                break;
            }
        };
        if tracks.is_empty() {
            tracks = tracks_of(worker, rollups).await?;
        }
        let Some(candidate) = candidate(worker, &mut tracks, report).await else {
            // Let unused budget lapse, or it would pile up and be spent in one burst.
            if let (Some(next), true) = (next, report.problems.is_empty()) {
                worker.checkpoints.spend_scrub_budget(spent.as_ref(), &next.unused()).await?;
            }
            break;
        };
        let NextSlice { track, slice, needs, next: taken } = candidate;
        let Track { rollup, scrub, is_idle, .. } = &mut tracks[track];
        // A slice too large for a whole budget is skipped. The rest that the previous slice
        // earned comes first. If the time is too short for it, end the tick before the rest
        // starts.
        let rest = worker.governor_of(rollup).map_or(Duration::ZERO, Governor::rest_left);
        let left = deadline.remaining(&*worker.clock).saturating_sub(rest);
        if left < needs.min(whole).max(BEGIN_MIN) {
            break;
        }
        if let Err(error) = ready::check(worker, rollup).await {
            report.problems.push(RollupProblem::new(&rollup.name, &error));
            *is_idle = true;
            continue;
        }
        if let Some(next) = next {
            (spent, is_paid) = worker.checkpoints.spend_scrub_budget(spent.as_ref(), &next).await?;
            if !is_paid {
                continue;
            }
        }
        if !worker.checkpoints.take_scrub(&rollup.name, scrub, &taken).await? {
            *scrub = worker.checkpoints.scrub(&rollup.name).await?;
            continue;
        }
        (*scrub, is_paid) = (taken, false);
        let scrubbed = scrub_slice(worker, rollup, slice, scrub, (settings, deadline), report);
        if let Err(error) = scrubbed.await {
            report.problems.push(RollupProblem::new(&rollup.name, &error));
            *is_idle = true;
        }
    }
    Ok(())
}

async fn tracks_of<'r>(
    worker: &Worker,
    rollups: &[&'r Rollup],
) -> Result<Vec<Track<'r>>, WorkError> {
    let mut tracks = Vec::new();
    let control = worker.checkpoints.control().await?;
    let mut allowed = Vec::new();
    for &rollup in rollups {
        // Like a backfill, a scrub respects the configured hours and an operator's pause.
        let gate = ready::gate(worker, rollup, Some(worker.clock.now()));
        if gate.may_start_by(&control)?.is_given() {
            allowed.push(rollup);
        }
    }
    for block in allowed.chunks(BLOCK) {
        let names: Vec<&str> = block.iter().map(|rollup| &*rollup.name).collect();
        let mut scrubs = worker.checkpoints.scrubs(&names).await?;
        let mut watermarks = worker.checkpoints.watermarks(&names).await?;
        for &rollup in block {
            let mut scrub = match scrubs.remove(&rollup.name) {
                Some(scrub) => scrub,
                None => worker.checkpoints.scrub(&rollup.name).await?,
            };
            if scrub.drift.len() >= DRIFT_MAX {
                // Make room for new drift.
                let over = split_drift(worker, rollup, &scrub).await?.1;
                worker.checkpoints.forget_drift(&rollup.name, &over).await?;
                scrub.drift.retain(|start, _| !over.contains(start));
            }
            let seen = match watermarks.remove(&rollup.name) {
                Some(seen) => seen,
                None => ready::watermark(worker, rollup).await?,
            };
            tracks.push(Track { rollup, scrub, seal: seen.seal_of(rollup), is_idle: false });
        }
    }
    Ok(tracks)
}

/// The drift found in slices of `rollup` that is still present, as far as is known.
///
/// # Errors
/// The checkpoints cannot be read.
pub async fn open_drift(
    worker: &Worker,
    rollup: &Rollup,
    scrub: &ScrubProgress,
) -> Result<Vec<(DateTime<Utc>, Drift)>, WorkError> {
    Ok(split_drift(worker, rollup, scrub).await?.0)
}

/// The drift that is still present, and the slices that were computed again since.
async fn split_drift(
    worker: &Worker,
    rollup: &Rollup,
    scrub: &ScrubProgress,
) -> Result<(Vec<(DateTime<Utc>, Drift)>, Vec<DateTime<Utc>>), WorkError> {
    let (mut open, mut over) = (Vec::new(), Vec::new());
    for (start, drift) in &scrub.drift {
        let checkpoint = worker.checkpoints.get(&rollup.name, *start).await?;
        if drift.is_over(checkpoint.as_ref()) {
            over.push(*start);
        } else {
            open.push((*start, *drift));
        }
    }
    Ok((open, over))
}

/// The slice of all rollups that was verified longest ago. A rollup that lacks one, or whose
/// checkpoints are unreadable, is marked idle.
async fn candidate(
    worker: &Worker,
    tracks: &mut [Track<'_>],
    report: &mut TickReport,
) -> Option<NextSlice> {
    let now = worker.clock.now();
    for _ in 0..tracks.len() {
        let waiting = tracks.iter().enumerate().filter(|(_, track)| !track.is_idle);
        let (place, _) =
            waiting.min_by_key(|(_, track)| last_verified(track.range(now), &track.scrub))?;
        let track = &mut tracks[place];
        match next_slice(worker, track, now).await {
            Ok(Some((slice, needs, next))) => {
                return Some(NextSlice { track: place, slice, needs, next });
            }
            Ok(None) => {}
            Err(error) => {
                report.problems.push(RollupProblem::new(&track.rollup.name, &error));
            }
        }
        track.is_idle = true;
    }
    None
}

/// The slice at the cursor or after it that can be compared, or else the first of a new round.
async fn next_slice(
    worker: &Worker,
    track: &Track<'_>,
    now: DateTime<Utc>,
) -> Result<Option<(Slice, Duration, ScrubProgress)>, WorkError> {
    let Track { rollup, scrub, .. } = track;
    let Some((begin, end)) = track.range(now) else { return Ok(None) };
    let cursor = scrub.cursor.unwrap_or(begin).max(begin);
    let definition = ready::definition(worker, rollup).await?;
    for (mut from, is_new_round) in [(cursor, false), (begin, true)] {
        let started_at = scrub.round_started_at;
        if is_new_round && started_at.is_some_and(|started| started > now - ROUND_MIN) {
            break;
        }
        for _ in 0..PAGES_MAX {
            let page = worker.checkpoints.page(&rollup.name, from, end).await?;
            let found = page.iter().filter(|it| it.slice_start < end).find_map(|checkpoint| {
                let slice = comparable(worker, rollup, &definition, checkpoint)?;
                let outcome = checkpoint.outcome.as_ref();
                let read = Duration::from_millis(outcome.map_or(0, |it| it.source_ms));
                let next = scrub.after(slice.end(), is_new_round, now);
                Some((slice, BEGIN_MIN + read.saturating_mul(COMPARING), next))
            });
            if found.is_some() {
                return Ok(found);
            }
            match page.last() {
                Some(last) if page.len() >= PAGE.into() => {
                    from = last.slice_start + TimeDelta::seconds(1);
                }
                _ => break,
            }
        }
    }
    Ok(None)
}

/// The slice of a checkpoint that claims its rows to be right.
fn comparable(
    worker: &Worker,
    rollup: &Rollup,
    definition: &str,
    checkpoint: &Checkpoint,
) -> Option<Slice> {
    // Skip checkpoints left from a width that the rollup once had.
    let slice = rollup.calendar.starting(checkpoint.slice_start).ok()?;
    let is_right = verify::standing_of(worker, rollup, definition, checkpoint, slice)
        == Standing::Succeeded
        && checkpoint.definition.as_deref() == Some(definition);
    is_right.then_some(slice)
}

/// Compares one slice and reports the result in the log, the tick's report and the checkpoint.
async fn scrub_slice(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    scrub: &ScrubProgress,
    (settings, deadline): (config::ScrubSettings, Deadline),
    report: &mut TickReport,
) -> Result<(), WorkError> {
    let left = deadline.remaining(&*worker.clock);
    let timeout = left.saturating_sub(RESERVE).min(STATEMENT_MAX);
    let asked = Asked { timeout, limit: EXAMPLES, patience: timeout };
    // The servers end their own statements. This limit is for a connection that is cut off.
    let limit = left.saturating_sub(RESERVE / 2);
    let compared = tokio::time::timeout(limit, verify::compare_asked(worker, rollup, slice, asked));
    let too_slow =
        || Compared::NotYet(NotCompared::new(rollup, slice, Why::TooLarge(timeout.as_secs())));
    let compared = match compared.await {
        Ok(Err(WorkError::Db(error))) if error.kind() == DbErrorKind::Cancelled => too_slow(),
        Ok(compared) => compared?,
        Err(_) => too_slow(),
    };
    let (name, start, now) = (&rollup.name, slice.start(), worker.clock.now());
    match compared {
        Compared::NotYet(pending) => report.scrub.pass_over(pending),
        Compared::Same => {
            report.scrub.verified += 1;
            worker.checkpoints.record_scrub(name, start, None, now).await?;
        }
        Compared::Drift(attempt, found) => {
            log_drift(&found);
            let drift = Drift { found_at: now, groups: found.differences, attempt };
            let is_known = scrub.drift.contains_key(&start);
            let noted = (is_known || scrub.drift.len() < DRIFT_MAX).then_some(drift);
            report.scrub.verified += 1;
            report.scrub.differing += 1;
            if report.scrub.drifted.len() < LISTED_MAX {
                let reopened = settings.repair;
                report.scrub.drifted.push(DriftReport { found, reopened });
            }
            worker.checkpoints.record_scrub(name, start, noted, now).await?;
            if settings.repair {
                let slice = rollup.calendar.containing(start);
                worker.target.raise(name, &[slice], "scrub").await?;
                worker.checkpoints.reopen(name, start, "scrub", now).await?;
            }
        }
    }
    Ok(())
}

/// Logs drift with only the keys and measures of the first groups.
fn log_drift(found: &SliceVerification) {
    let examples = serde_json::to_string(&found.examples).unwrap_or_default();
    let shown = &examples[..examples.floor_char_boundary(EXAMPLES_BYTES_MAX)];
    tracing::error!(
        rollup = found.rollup,
        slice.start = %rfc3339(found.start),
        groups = found.differences,
        examples = shown,
        "slice differs from the source"
    );
}
