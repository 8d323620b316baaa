//! Tells readers of the target what a tick has found: until when it has looked for changes, by which
//! definition slices count, which slices fail, and when the next ones are over.
//!
//! It is told after every change that was found is raised, and with the instant at which the tick
//! began to look, so that a change between the two is never claimed to be known.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, TimeDelta, Utc};

use crate::checkpoint::{CheckpointError, ScrubProgress, State, Watermark};
use crate::model::rollup::{Late, Rollup};
use crate::model::slice::{Slice, boundaries};
use crate::target::coverage::{ToldRollup, outstanding, tell_sql};
use crate::target::live;
use crate::work::compose::{finer_name, root};
use crate::work::due::{Plan, Standing};
use crate::work::identity;
use crate::work::standings::{self, Standings};
use crate::work::survey::BLOCK;
use crate::work::worker::Worker;

/// Ends of slices that are told in advance. A reader learns by them that a slice is missing, even if
/// no worker runs any more.
const ENDS: usize = 100;

/// Failing slices that are told.
const FAILING_MAX: usize = 1_000;

/// What a tick has learned for readers.
#[derive(Debug)]
pub(crate) struct TickFindings<'r> {
    /// The instant at which the tick began.
    began: DateTime<Utc>,
    /// The instant before which all changes of a rollup's source are found, where they are looked
    /// for.
    found_until: BTreeMap<String, DateTime<Utc>>,
    rollups: Vec<Finding<'r>>,
    /// Watermarks with another definition than before. They are written once readers know it, as
    /// then no later tick has news for them until a slice is due.
    held: Vec<(&'r Rollup, Standings)>,
}

/// What a tick has learned of one rollup.
#[derive(Debug)]
struct Finding<'r> {
    rollup: &'r Rollup,
    plan: Plan,
    /// Slices that start before it are not computed, whether the seal is proven or not.
    seal: Option<DateTime<Utc>>,
    /// Without the slices to come.
    told: ToldRollup,
    /// The first slice whose end readers are told.
    first: Slice,
}

/// Whether changes of its source are looked for.
pub(crate) fn looks_for_changes(rollup: &Rollup) -> bool {
    let root = root(rollup);
    let follows = root.mirror.as_ref().is_some_and(|mirror| mirror.follows_changes);
    follows || matches!(root.late, Late::Capture | Late::Column(_))
}

impl<'r> TickFindings<'r> {
    pub(crate) fn new(began: DateTime<Utc>, found_until: BTreeMap<String, DateTime<Utc>>) -> Self {
        Self { began, found_until, rollups: Vec::new(), held: Vec::new() }
    }

    /// Keeps `standings` until readers are told, where nothing else would tell them soon.
    pub(crate) fn hold(&mut self, rollup: &'r Rollup, standings: &Standings) -> bool {
        let is_held = standings.has_news(rollup) && !looks_for_changes(rollup);
        if is_held {
            self.held.push((rollup, standings.clone()));
        }
        is_held
    }

    /// Adds a rollup by its plan. One whose source could not be looked at is left as it was told
    /// before.
    pub(crate) fn add(
        &mut self,
        rollup: &'r Rollup,
        Standings { seen, plan, definition }: &Standings,
        now: DateTime<Utc>,
    ) {
        let checked_at = match looks_for_changes(rollup) {
            true => self.found_until.get(&root(rollup).name).copied(),
            false => Some(self.began),
        };
        let Some(checked_at) = checked_at else { return };
        let is_failing = |standing| matches!(standing, Standing::Retry | Standing::Exhausted);
        let failing = plan.slices.iter().filter(|it| is_failing(it.standing));
        let first = rollup.newest(now).unwrap_or_else(|| rollup.calendar.containing(rollup.start));
        let settled_by = match root(rollup) {
            root if root.mirror.is_some() => "mirror",
            root => root.late.word(),
        };
        let told = ToldRollup {
            rollup: rollup.name.clone(),
            checked_at: Some(checked_at),
            definition: definition.clone(),
            parts_of: finer_name(rollup),
            is_window: rollup.trailing.is_some(),
            settled_by,
            // Late changes before an earlier start were ignored, until those slices are reopened.
            history_from: seen.moved_from(rollup).unwrap_or(rollup.start),
            empty_before: empty_before(rollup, seen),
            // Behind a seal that is yet to be proven, a slice may wait for its turn.
            seal_before: rollup.seal_before.max(seen.store_seal().proven()),
            done_until: plan
                .other_definition
                .map_or(plan.watermark, |other| plan.watermark.min(other.start())),
            tail: Vec::new(),
            verified_through: None,
            slice_seconds: (first.end() - first.start()).num_seconds(),
            grace_seconds: TimeDelta::from_std(root(rollup).grace)
                .unwrap_or_default()
                .num_seconds(),
            ends: Vec::new(),
            failing: failing.take(FAILING_MAX).map(|it| it.slice.start()).collect(),
        };
        let seal = seen.seal_of(rollup);
        self.rollups.push(Finding { rollup, plan: plan.clone(), seal, told, first });
    }

    /// Whether the target must be told: changes were looked for, slices are due anyway, or slices
    /// have a definition that readers do not know.
    fn are_news(&self) -> bool {
        let is_due = |plan: &Plan| plan.due().next().is_some();
        !self.held.is_empty()
            || self.rollups.iter().any(|it| looks_for_changes(it.rollup) || is_due(&it.plan))
    }
}

impl Finding<'_> {
    /// All that readers are told. Only a tick with news computes the coming slices.
    fn told(&self, worker: &Worker, verified_through: Option<DateTime<Utc>>) -> ToldRollup {
        let Self { rollup, first, .. } = *self;
        // A restore may have taken changes away that were found before.
        let is_proven = identity::unproven(worker, rollup).is_none();
        let checked_at = self.told.checked_at.filter(|_| is_proven);
        let ends = std::iter::successors(Some(first), |slice| Some(rollup.calendar.next(*slice)));
        let ends = ends.take(ENDS).map(|slice| slice.end()).collect();
        let tail = tail(rollup, first);
        ToldRollup { checked_at, tail, ends, verified_through, ..self.told.clone() }
    }
}

/// The boundaries of the buckets that a live view may aggregate, from the start of `newest` on.
fn tail(rollup: &Rollup, newest: Slice) -> Vec<DateTime<Utc>> {
    if !rollup.live {
        return Vec::new();
    }
    let slices = std::iter::successors(Some(newest), |it| Some(rollup.calendar.next(*it)));
    let Some(last) = slices.take(live::SLICES).last() else { return Vec::new() };
    let (bucket, zone) = (rollup.bucket, rollup.calendar.zone());
    let mut tail = boundaries(bucket, zone, newest.start(), last.end());
    tail.push(last.end());
    tail
}

/// The end of the slices that are known to have no rows in the source.
fn empty_before(rollup: &Rollup, seen: &Watermark) -> Option<DateTime<Utc>> {
    let start = seen.source_start()?;
    let probed = rollup.newest(start.probed_at)?.end();
    let first = start.first_row.map(|first| rollup.calendar.containing(first).start());
    Some(first.map_or(probed, |first| first.min(probed)))
}

/// Tells readers, and then writes the watermarks that were held. A target that cannot be told keeps
/// its `checked_at`, whose age shows that.
///
/// # Errors
/// The checkpoints are unavailable.
pub(crate) async fn tell(
    worker: &Worker,
    findings: &TickFindings<'_>,
) -> Result<(), CheckpointError> {
    if !findings.are_news() {
        return Ok(());
    }
    let (mut stale, mut is_told) = (Vec::new(), true);
    for block in findings.rollups.chunks(BLOCK) {
        let verified = verified_through(worker, block).await?;
        let through = |it: &Finding<'_>| it.told(worker, verified.get(&it.rollup.name).copied());
        let sql = tell_sql(&block.iter().map(through).collect::<Vec<_>>());
        let rows = match worker.checkpoints.write_together(&sql).await? {
            Some(rows) => Ok(rows),
            None => worker.target.tell(sql).await,
        };
        match rows {
            Ok(rows) => stale.extend(outstanding(&rows).unwrap_or_default()),
            Err(error) => {
                tracing::warn!(error = %error, "readers were not told");
                is_told = false;
                break;
            }
        }
    }
    for (name, start) in stale {
        mend(worker, findings, &name, start).await?;
    }
    let held = findings.held.iter().filter(|_| is_told);
    for (rollup, standings) in held {
        standings::move_watermark(worker, rollup, standings, 1).await?;
    }
    Ok(())
}

/// The end of the slices that the present round of the scrub has found right, of each rollup that is
/// scrubbed.
async fn verified_through(
    worker: &Worker,
    block: &[Finding<'_>],
) -> Result<HashMap<String, DateTime<Utc>>, CheckpointError> {
    if worker.config.scrub.is_none() {
        return Ok(HashMap::new());
    }
    let names: Vec<&str> = block.iter().map(|it| &*it.rollup.name).collect();
    let scrubs = worker.checkpoints.scrubs(&names).await?;
    let through = |(rollup, scrub): (String, ScrubProgress)| {
        let first = scrub.drift.keys().next().copied();
        Some((rollup, scrub.cursor.map(|cursor| first.map_or(cursor, |it| it.min(cursor)))?))
    };
    Ok(scrubs.into_iter().filter_map(through).collect())
}

/// Reopens a slice that readers see as stale while the store takes it for done. A tick may have been
/// killed between the two writes.
async fn mend(
    worker: &Worker,
    findings: &TickFindings<'_>,
    name: &str,
    start: DateTime<Utc>,
) -> Result<(), CheckpointError> {
    let found = findings.rollups.iter().find(|it| it.rollup.name == name);
    let Some(Finding { rollup, plan, seal, .. }) = found else { return Ok(()) };
    let newest = rollup.newest(findings.began);
    let planned = plan.slices.iter().find(|planned| planned.slice.start() == start);
    let is_open = planned.is_some_and(|planned| planned.standing == Standing::Open);
    // A coarse slice that goes on is raised by its finer ones. Unless it is open, it has no
    // checkpoint to reopen.
    let is_over = newest.is_some_and(|newest| start <= newest.start());
    let is_sealed = seal.is_some_and(|seal| start < seal);
    if !(is_over || is_open) || is_sealed || rollup.calendar.starting(start).is_err() {
        return Ok(());
    }
    if !is_open && planned.is_some_and(|it| it.standing.is_due() || !it.standing.is_done()) {
        return Ok(());
    }
    let found = worker.checkpoints.get(name, start).await?;
    if found.is_none_or(|found| found.state == State::Succeeded) {
        let reason = "readers see it as stale";
        worker.checkpoints.reopen(name, start, reason, worker.clock.now()).await?;
    }
    Ok(())
}
