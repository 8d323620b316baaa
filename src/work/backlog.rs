//! Works on due slices of several rollups in one process.

use chrono::{DateTime, Utc};

use crate::model::clock::Deadline;
use crate::model::not_now::Permit;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::work::due::Standing;
use crate::work::report::{SliceReport, TickReport};
use crate::work::slice_run::{self, RESERVE, RunOptions};
use crate::work::standings::Standings;
use crate::work::worker::{WorkError, Worker};
use crate::work::{ready, standings};

/// The least time for starting a slice. With less it would only be claimed and given back.
pub(crate) const BEGIN_MIN: std::time::Duration = RESERVE.saturating_mul(3);

/// The due slices of one rollup, the first at the end, and the reasons for reopening some of them
/// first.
pub(crate) struct Backlog<'r> {
    pub(crate) rollup: &'r Rollup,
    pub(crate) due: Vec<(Slice, Option<&'static str>)>,
    /// The backfill that is under way, for a rollup's fresh slices.
    pub(crate) backfill: Option<String>,
}

/// Round robin, so that the history of one rollup does not delay the newest slice of another.
pub(crate) async fn work_off(
    worker: &Worker,
    mut backlogs: Vec<Backlog<'_>>,
    is_backfill: bool,
    now: DateTime<Utc>,
    deadline: Deadline,
    report: &mut TickReport,
) {
    for Backlog { rollup, due, .. } in &mut backlogs {
        // A problem of its fresh slices applies to the others too.
        if report.is_blocked(rollup) {
            report.left += due.len();
            due.clear();
        }
    }
    while backlogs.iter().any(|backlog| !backlog.due.is_empty()) {
        for place in 0..backlogs.len() {
            let Backlog { rollup, due, .. } = &mut backlogs[place];
            let rollup = *rollup;
            let Some((slice, reopening)) = due.pop() else { continue };
            if report.is_over || deadline.remaining(&*worker.clock) < BEGIN_MIN {
                report.left += due.len() + 1;
                due.clear();
                continue;
            }
            let backfill = is_backfill.then_some(now);
            report.at = Some(rollup.name.clone());
            match run_due(worker, rollup, slice, reopening, deadline, backfill).await {
                Ok(ended) => {
                    if let Some(hold) = ended.held_back().cloned() {
                        // A claimed slice has logged its own result.
                        let is_told = ended.attempt.is_some();
                        report.hold(&mut backlogs[place], usize::from(!is_told), hold);
                        report.slices.extend(is_told.then_some(ended));
                        continue;
                    }
                    let is_success = ended.is_success();
                    report.slices.push(ended);
                    if is_success {
                        let done = (place, slice);
                        add_coarse_due(worker, &mut backlogs, done, is_backfill, now, report).await;
                    }
                }
                Err(error) => {
                    let due = &mut backlogs[place].due;
                    report.left += due.len() + 1;
                    due.clear();
                    report.problem(rollup, &error);
                    // Each further rollup would only wait for the same.
                    report.is_over = error.is_for_all();
                }
            }
        }
    }
}

/// Adds the coarse slices that may be computed now that `slice` of the backlog at `place` is
/// done.
async fn add_coarse_due(
    worker: &Worker,
    backlogs: &mut [Backlog<'_>],
    (place, slice): (usize, Slice),
    is_backfill: bool,
    now: DateTime<Utc>,
    report: &mut TickReport,
) {
    let finer = backlogs[place].rollup;
    for coarse in 0..backlogs.len() {
        let rollup = backlogs[coarse].rollup;
        if !rollup.is_computed_from(finer) {
            continue;
        }
        if rollup.trailing.is_some() {
            // Each window holds many finer slices, so query once, after the last one that is due.
            if backlogs[place].due.is_empty() {
                find_windows_due(worker, &mut backlogs[coarse], is_backfill, now, report).await;
            }
            continue;
        }
        let around = rollup.calendar.containing(slice.start());
        let waits = backlogs[place].due.iter().any(|(other, _)| around.contains(other.start()));
        let is_known = backlogs[coarse].due.iter().any(|(due, _)| *due == around);
        // Query only after the last due finer slice of this coarse slice. Asking after each
        // would cost a query per slice.
        let goes_on = around.end() > now && !rollup.open;
        if goes_on || around.start() < rollup.start || waits || is_known {
            continue;
        }
        match standings::in_range(worker, rollup, around.start(), around.end(), now).await {
            Ok(plan) => {
                let due = plan.due().map(|due| (due.slice, due.standing.reopening()));
                backlogs[coarse].due.extend(due);
            }
            Err(error) => report.problem(rollup, &error),
        }
    }
}

/// Finds the windows that may be computed now. Those of another definition belong to the backfill.
async fn find_windows_due(
    worker: &Worker,
    backlog: &mut Backlog<'_>,
    is_backfill: bool,
    now: DateTime<Utc>,
    report: &mut TickReport,
) {
    match standings::of(worker, backlog.rollup, now).await {
        Ok(Standings { plan, .. }) => {
            let due = plan.due().filter(|due| is_backfill || due.standing != Standing::Redefined);
            backlog.due = due.map(|due| (due.slice, due.standing.reopening())).collect();
            backlog.due.reverse();
        }
        Err(error) => report.problem(backlog.rollup, &error),
    }
}

async fn run_due(
    worker: &Worker,
    rollup: &Rollup,
    slice: Slice,
    reopening: Option<&str>,
    deadline: Deadline,
    backfill: Option<DateTime<Utc>>,
) -> Result<SliceReport, WorkError> {
    if let Some(reason) = reopening {
        // Only slices about to start are marked.
        if let Permit::NotNow(hold) = ready::gate(worker, rollup, backfill).may_start().await? {
            return Ok(SliceReport::not_now(rollup, slice, hold));
        }
        ready::prepare(worker, rollup).await?;
        let now = worker.clock.now();
        worker.checkpoints.reopen(&rollup.name, slice.start(), reason, now).await?;
    }
    let options = RunOptions { backfill, ..RunOptions::default() };
    Box::pin(slice_run::run_slice(worker, rollup, slice, deadline, options)).await
}
