//! A tick works on the due slices of all rollups, newest first, one after another until the budget
//! is spent. The next tick finds the rest again.

use chrono::{DateTime, TimeDelta, Utc};

use crate::check::{purgeable, retention, scrub};
use crate::fanout::FanOut;
use crate::model::clock::Deadline;
use crate::model::not_now::{NotNow, Permit};
use crate::model::rollup::{Late, Rollup};
use crate::throttle::may_wake;
use crate::work::backlog::{self, BEGIN_MIN, Backlog};
use crate::work::coverage::{self, TickFindings};
use crate::work::due::{Plan, Planned, Standing};
use crate::work::report::{FoundPace, RollupProblem, SeenRollup, TickReport};
use crate::work::slice_run::OVERTIME;
use crate::work::standings::{self, Standings};
use crate::work::survey::{BLOCK, Survey, Surveyed};
use crate::work::worker::{WorkError, Worker};
use crate::work::{empty, identity, late, ready};

/// The watermark is written after it has moved by this many slices, so that a slice normally costs
/// its two writes and a sixteenth.
const WATERMARK_STEP: usize = 16;

/// The watermark is written at once where the next slice is due this much later, as each tick until
/// then saves the read of the slices after it.
const QUIET_MIN: TimeDelta = TimeDelta::minutes(30);

/// Works on the slices that are due as of `now`, until `deadline`. With queues, it sends them there
/// if there is more than one. With nothing due, it connects to no database. A server that is found
/// out of reach is contacted only once. It ends at `deadline`, even while it waits. The report
/// contains all work done by then, a slice in work is left to its lease, and everything else to the
/// next tick.
///
/// # Errors
/// The checkpoints are unavailable. Everything about one rollup or slice is in the report.
pub async fn run(
    worker: &Worker,
    now: DateTime<Utc>,
    deadline: Deadline,
    only: Option<&Rollup>,
) -> Result<TickReport, WorkError> {
    let _once = (worker.source.ask_once(), worker.target.db.ask_once());
    let may_write = chosen(worker, only).any(coverage::looks_for_changes);
    let mut report = TickReport::default();
    let billed_before = worker.billed().unwrap_or_default();
    let limit = deadline.remaining(&*worker.clock) + OVERTIME;
    // Boxed, as it contains the whole path of a slice, and a thread's stack is small.
    let work = Box::pin(run_within(worker, now, deadline, only, &mut report));
    worker.checkpoints.read_together(may_write);
    let done = tokio::time::timeout(limit, work).await;
    worker.checkpoints.read_apart().await;
    match done {
        Ok(done) => done?,
        Err(_) => {
            let rollup = report
                .at
                .take()
                .or_else(|| chosen(worker, only).next().map(|rollup| rollup.name.clone()));
            let error = WorkError::OutOfTime(report.doing);
            report.problems.push(RollupProblem::new(&rollup.unwrap_or_default(), &error));
        }
    }
    report.expect_the_rest(worker.clock.now());
    report.learn_ends();
    report.workload_units = worker.billed().map(|billed| billed.less(billed_before));
    report.pace = worker.governor.found_pace().map(FoundPace::from);
    Ok(report)
}

/// The instant until which a tick would find nothing to do, after one that planned at `now` and
/// ended with `report`. `None`: it found work, or the source may hold late changes at any time.
/// An operator's command may bring work earlier.
#[must_use]
pub fn quiet_until(
    worker: &Worker,
    now: DateTime<Utc>,
    report: &TickReport,
) -> Option<DateTime<Utc>> {
    let looks = |rollup: &Rollup| matches!(rollup.late, Late::Capture | Late::Column(_));
    if !report.found_nothing() || worker.config.rollups.iter().any(looks) {
        return None;
    }
    let scrub = worker.config.scrub.map(|settings| now + scrub::price(settings.slices_per_day));
    let next = |rollup: &Rollup| rollup.readable_at(rollup.next_readable(now));
    worker.config.rollups.iter().map(next).chain(scrub).min()
}

async fn run_within(
    worker: &Worker,
    now: DateTime<Utc>,
    deadline: Deadline,
    only: Option<&Rollup>,
    report: &mut TickReport,
) -> Result<(), WorkError> {
    report.doing = "reading the checkpoints";
    let (clock_now, is_due) = (worker.clock.now(), needs_source(worker, only, now));
    let woken = may_wake(&worker.governor, &worker.checkpoints, clock_now, is_due).await?;
    if let Permit::NotNow(asleep) = woken {
        return left_asleep(worker, only, now, &asleep, report).await;
    }
    report.doing = "looking for late changes";
    let searched = Box::pin(late::search(worker, deadline)).await;
    report.problems = searched.problems;
    let mut findings = TickFindings::new(clock_now, searched.until);
    report.doing = "reading the checkpoints";
    let (mut fresh, mut redefined) = (Vec::new(), Vec::new());
    let mut rollups: Vec<_> = chosen(worker, only).collect();
    // Finer rollups first, as their state decides which coarse slices are due.
    rollups.sort_by_key(|rollup| rollup.depth());
    for block in rollups.chunks(BLOCK) {
        let mut survey = Survey::of(worker, block, now).await?;
        for rollup in block {
            report.at = Some(rollup.name.clone());
            match backlogs(worker, rollup, now, &mut survey, report, &mut findings).await {
                Ok([due, old]) => {
                    fresh.push(due);
                    redefined.push(old);
                }
                // No slice could be claimed either.
                Err(error) if error.is_for_all() => return Err(error),
                Err(error) => report.problem(rollup, &error),
            }
        }
    }
    report.doing = "telling readers";
    coverage::tell(worker, &findings).await?;
    if fresh.iter().chain(&redefined).any(|backlog| !backlog.due.is_empty()) {
        worker.checkpoints.read_apart().await;
    }
    report.doing = "working on its slices";
    if let Some(queues) = &worker.queues {
        let out = FanOut { worker, queues, now, deadline };
        out.fan_out(fresh, redefined, report).await;
    } else {
        // An edit of the configuration must not delay any rollup's fresh numbers.
        for (backlogs, is_backfill) in [(fresh, false), (redefined, true)] {
            backlog::work_off(worker, backlogs, is_backfill, now, deadline, report).await;
        }
    }
    report.doing = "verifying old slices";
    // If time is left, all remaining slices belong to failed rollups, whose scrub is skipped
    // too.
    let has_time = !report.is_over && deadline.remaining(&*worker.clock) >= BEGIN_MIN;
    if let Some(settings) = worker.config.scrub.filter(|_| has_time) {
        worker.checkpoints.read_apart().await;
        scrub::run(worker, settings, only, deadline, report).await;
    }
    report.doing = "deleting slices that are not kept";
    retention::run(worker, chosen(worker, only), deadline, report).await;
    for rollup in chosen(worker, only) {
        if let Some(reason) =
            identity::unproven(worker, rollup).filter(|_| !report.is_blocked(rollup))
        {
            report.problems.push(RollupProblem::of_unproven(rollup, &reason));
        }
    }
    Ok(())
}

/// Whether anything needs the source.
async fn needs_source(
    worker: &Worker,
    only: Option<&Rollup>,
    now: DateTime<Utc>,
) -> Result<bool, WorkError> {
    let rollups: Vec<_> = chosen(worker, only).collect();
    // Marks and change times are on the source, so only a query there finds them.
    let looks = |rollup: &&Rollup| matches!(rollup.late, Late::Capture | Late::Column(_));
    let mut is_due = rollups.iter().any(looks);
    if !is_due {
        let note = |_, of: Standings| is_due |= of.plan.due().next().is_some();
        standings::of_each(worker, &rollups, now, note).await?;
    }
    Ok(is_due)
}

/// The report of a tick that lets the source sleep.
async fn left_asleep(
    worker: &Worker,
    only: Option<&Rollup>,
    now: DateTime<Utc>,
    asleep: &NotNow,
    report: &mut TickReport,
) -> Result<(), WorkError> {
    report.is_asleep = true;
    let rollups: Vec<_> = chosen(worker, only).collect();
    let note = |rollup, Standings { plan, seen, .. }: Standings| {
        see(worker, report, rollup, (&plan, seen.backfill()), now);
        report.expect(&rollup.name, plan.next_due(rollup, now));
        let left = plan.due().count();
        if left > 0 {
            let mut backlog = Backlog { rollup, due: Vec::new(), backfill: None };
            report.hold(&mut backlog, left, asleep.clone());
        }
    };
    standings::of_each(worker, &rollups, now, note).await
}

/// Counts what the tick finds of `rollup`, and keeps it where somebody hears of trouble.
fn see(
    worker: &Worker,
    report: &mut TickReport,
    rollup: &Rollup,
    (plan, backfill): (&Plan, Option<&str>),
    now: DateTime<Utc>,
) {
    report.gauges.add(rollup, plan, now);
    if worker.config.notify.is_some() {
        report.seen.push(SeenRollup::of(rollup, plan, backfill, now));
    }
}

/// The rollups that a tick is for.
fn chosen<'r>(worker: &'r Worker, only: Option<&'r Rollup>) -> impl Iterator<Item = &'r Rollup> {
    let is_chosen = move |rollup: &&Rollup| only.is_none_or(|only| only.name == rollup.name);
    worker.config.rollups.iter().filter(is_chosen)
}

/// After how many slices the watermark is written. A read of a store in the target costs less than the
/// write.
fn watermark_step(worker: &Worker, rollup: &Rollup, plan: &Plan, now: DateTime<Utc>) -> usize {
    let is_quiet = plan.due().next().is_none() && plan.next_due(rollup, now) - now >= QUIET_MIN;
    if is_quiet && !worker.checkpoints.is_in_target() { 1 } else { WATERMARK_STEP }
}

/// The due slices of one rollup, and those that succeeded by another definition.
async fn backlogs<'r>(
    worker: &Worker,
    rollup: &'r Rollup,
    now: DateTime<Utc>,
    survey: &mut Survey,
    report: &mut TickReport,
    findings: &mut TickFindings<'r>,
) -> Result<[Backlog<'r>; 2], WorkError> {
    let mut known = survey.take(worker, rollup).await?;
    if empty::wants_probe(rollup, &known.seen, now) {
        known = Surveyed::unread(empty::probe(worker, rollup).await?);
    }
    let seal = known.seen.seal_of(rollup);
    if let Some(sealed) = known.seen.sealed()
        && seal.is_none_or(|seal| seal < sealed[1])
    {
        // Late changes came while they were sealed, so they are stale behind the watermark.
        worker.checkpoints.unseal(&rollup.name, sealed, seal).await?;
        known = Surveyed::unread(ready::watermark(worker, rollup).await?);
    }
    if known.seen.store_seal().is_unproven() {
        // That process may be at work at this moment, so this is no problem of the tick.
        let hint = purgeable::complete_seal(rollup);
        tracing::warn!(rollup = rollup.name, hint, "the seal is not proven");
    }
    let backfill = known.seen.backfill().map(str::to_owned);
    let standings = standings::after(worker, rollup, known, now).await?;
    see(worker, report, rollup, (&standings.plan, backfill.as_deref()), now);
    report.expect(&rollup.name, standings.plan.next_due(rollup, now));
    findings.add(rollup, &standings, now);
    if standings.seen.definition().is_some() && !standings.plan.is_of_one_definition() {
        // A definition that is invalid must not be written anywhere.
        ready::prepare(worker, rollup).await?;
    }
    if !findings.hold(rollup, &standings) {
        let step = watermark_step(worker, rollup, &standings.plan, now);
        standings::move_watermark(worker, rollup, &standings, step).await?;
    }
    report.gauges.backfills += usize::from(backfill.is_some());
    let (mut due, mut old) = (Vec::new(), Vec::new());
    for Planned { slice, standing } in standings.plan.due() {
        let backlog = if *standing == Standing::Redefined { &mut old } else { &mut due };
        backlog.push((*slice, standing.reopening()));
    }
    due.reverse();
    old.reverse();
    Ok([Backlog { rollup, due, backfill }, Backlog { rollup, due: old, backfill: None }])
}
