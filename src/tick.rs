//! A tick works on the due slices of all rollups, newest first, one after another until the budget
//! is spent. The next tick finds the rest again.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::checkpoint::Watermark;
use crate::clock::Deadline;
use crate::compose;
use crate::fanout::FanOut;
use crate::identity::{self, is_unproven};
use crate::late;
use crate::not_now::{NotNow, Permit};
use crate::plan::{Plan, Planned, Standing, View, horizon};
use crate::probe;
use crate::ready;
use crate::report::{Outcome, SliceReport};
use crate::rollup::{Late, Rollup};
use crate::run::{self, OVERTIME, RESERVE, RunOptions};
use crate::scrub::{self, ScrubReport};
use crate::slice::Slice;
use crate::throttle::may_wake;
use crate::worker::{Severity, WorkError, Worker};

/// The least time for starting a slice. With less it would only be claimed and given back.
pub(crate) const BEGIN_MIN: std::time::Duration = RESERVE.saturating_mul(3);

/// The watermark is written after it has moved by this many slices, so that a slice normally costs
/// its two writes and a sixteenth.
const WATERMARK_STEP: usize = 16;

/// The standings of a rollup's slices, and the watermark that was read before them.
#[derive(Debug)]
pub struct Standings {
    /// The stored watermark.
    pub seen: Watermark,
    /// The slices from the watermark on.
    pub plan: Plan,
}

/// The result of a tick.
#[derive(Debug, Default, Serialize)]
pub struct TickReport {
    /// The slices that were worked on.
    pub slices: Vec<SliceReport>,
    /// Due slices that were left to the next tick.
    pub left: usize,
    /// Due slices that were sent to the queues for other invocations.
    #[serde(skip)]
    pub sent: u64,
    /// Rollups that a pause, the hours or the source's load held back.
    pub held: Vec<Held>,
    /// Rollups that failed, or whose late changes cannot be noticed.
    pub problems: Vec<Problem>,
    /// Old slices that were verified once all due work was done.
    pub scrub: ScrubReport,
    /// The state of all rollups when it began.
    #[serde(skip)]
    pub gauges: Gauges,
    /// Whether the checkpoints are unavailable from now on.
    #[serde(skip)]
    pub(crate) is_over: bool,
    /// The present step, in case the time runs out ...
    #[serde(skip)]
    pub(crate) doing: &'static str,
    /// ... and its rollup.
    #[serde(skip)]
    pub(crate) at: Option<String>,
}

/// The state of all rollups when a tick began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// The worst rollup's distance between its watermark and the end of its newest readable slice.
    pub lag: TimeDelta,
    /// Slices that were due.
    pub due: usize,
    /// Slices that failed too often.
    pub exhausted: usize,
    /// Backfills under way.
    pub backfills: usize,
}

/// A rollup whose due slices have to wait.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    pub rollup: String,
    #[serde(rename = "reason")]
    pub not_now: NotNow,
    /// The number of due slices.
    pub left: usize,
}

/// Why a rollup failed.
#[derive(Debug, Serialize)]
pub struct Problem {
    pub rollup: String,
    /// The problem.
    pub error: String,
    #[serde(skip)]
    severity: Option<Severity>,
    /// Whether fresh slices can still be computed.
    #[serde(skip)]
    pub(crate) is_alarm: bool,
}

impl Problem {
    /// The error that kept `rollup` from being worked on.
    #[must_use]
    pub fn new(rollup: &str, error: &WorkError) -> Self {
        let (rollup, severity) = (rollup.to_owned(), Some(error.severity()));
        Self { rollup, error: error.to_string(), severity, is_alarm: false }
    }

    /// The error that kept late changes of `rollup` from being noticed. If it concerns the source's
    /// triggers or index, and no server, everything else continues, and those slices report that
    /// they settled by `grace`.
    #[must_use]
    pub fn of_late_changes(rollup: &str, error: &WorkError) -> Self {
        Self { is_alarm: matches!(error, WorkError::Usage(_)), ..Self::new(rollup, error) }
    }

    /// A restore may have lost rows that were counted. The rollup's slices are still computed.
    #[must_use]
    pub fn of_unproven(rollup: &Rollup, reason: &str) -> Self {
        let (error, severity) = (is_unproven(rollup, reason), Some(Severity::Failed));
        Self { rollup: rollup.name.clone(), error, severity, is_alarm: true }
    }
}

/// The due slices of one rollup, the first at the end, and the reasons for reopening some of them
/// first.
pub(crate) struct Backlog<'r> {
    pub rollup: &'r Rollup,
    pub due: Vec<(Slice, Option<&'static str>)>,
    /// The backfill that is under way, for a rollup's fresh slices.
    pub backfill: Option<String>,
}

impl Gauges {
    fn add(&mut self, rollup: &Rollup, plan: &Plan, now: DateTime<Utc>) {
        self.due += plan.due().count();
        let is_exhausted = |planned: &&Planned| planned.standing == Standing::Exhausted;
        self.exhausted += plan.slices.iter().filter(is_exhausted).count();
        if let Some(newest) = rollup.newest(now) {
            self.lag = self.lag.max(newest.end() - plan.watermark);
        }
    }
}

impl TickReport {
    /// Leaves the rest of `backlog`, and `more`.
    pub(crate) fn hold(&mut self, backlog: &mut Backlog<'_>, more: usize, not_now: NotNow) {
        let left = backlog.due.len() + more;
        backlog.due.clear();
        self.left += left;
        let reason = not_now.to_string();
        tracing::info!(rollup = backlog.rollup.name, reason, left, "held back");
        self.held.push(Held { rollup: backlog.rollup.name.clone(), not_now, left });
    }

    pub(crate) fn problem(&mut self, rollup: &Rollup, error: &WorkError) {
        let problem = Problem::new(&rollup.name, error);
        // The search for late changes meets the same problem as the work on the slices.
        let is_same = |it: &Problem| it.rollup == problem.rollup && it.error == problem.error;
        if !self.problems.iter().any(is_same) {
            self.problems.push(problem);
        }
    }

    /// Whether a problem keeps all slices of `rollup` from being computed.
    pub(crate) fn is_blocked(&self, rollup: &Rollup) -> bool {
        let blocks = |problem: &Problem| problem.rollup == rollup.name && !problem.is_alarm;
        self.problems.iter().any(blocks)
    }

    /// The number of rollups whose late changes cannot be noticed.
    #[must_use]
    pub fn alarms(&self) -> usize {
        self.problems.iter().filter(|problem| problem.is_alarm).count()
    }

    /// The worst severity in the report. `None`: everything went well.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        let has_failed = self.slices.iter().any(|slice| matches!(slice.outcome, Outcome::Failed));
        let failed = (has_failed || self.scrub.differing > 0).then_some(Severity::Failed);
        let problems = self.problems.iter().filter_map(|problem| problem.severity);
        problems.chain(failed).max_by_key(|severity| *severity as u8)
    }
}

/// The standings of the slices of `rollup`, by its checkpoints alone.
///
/// # Errors
/// The checkpoints cannot be read.
pub async fn plan(
    worker: &Worker,
    rollup: &Rollup,
    now: DateTime<Utc>,
) -> Result<Standings, WorkError> {
    let seen = ready::watermark(worker, rollup).await?;
    plan_after(worker, rollup, seen, now).await
}

/// As [`plan`], with a watermark that was read just now.
pub(crate) async fn plan_after(
    worker: &Worker,
    rollup: &Rollup,
    seen: Watermark,
    now: DateTime<Utc>,
) -> Result<Standings, WorkError> {
    Box::pin(identity::recognise(worker, rollup, seen.bond())).await?;
    let from = horizon(rollup, &seen, now);
    let checkpoints = worker.checkpoints.range(&rollup.name, from, now).await?;
    let plan =
        compose::judged(worker, view(worker, rollup, &seen, now), &checkpoints, from, now).await?;
    Ok(Standings { seen, plan })
}

/// The inputs besides the checkpoints that decide the slices' standings.
pub(crate) fn view<'r>(
    worker: &Worker,
    rollup: &'r Rollup,
    seen: &Watermark,
    now: DateTime<Utc>,
) -> View<'r> {
    let failures_max = worker.config.checkpoint.failures_max;
    let (begin, definition) = (seen.begin(), seen.definition_of(rollup));
    let moved_from = seen.moved_from(rollup);
    View { rollup, now, failures_max, begin, definition, moved_from, fed: None }
}

/// The standings of the slices of `rollup` that start in `[from, to)`.
///
/// # Errors
/// The checkpoints cannot be read.
pub async fn plan_range(
    worker: &Worker,
    rollup: &Rollup,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Plan, WorkError> {
    let seen = ready::watermark(worker, rollup).await?;
    Box::pin(identity::recognise(worker, rollup, seen.bond())).await?;
    let checkpoints = worker.checkpoints.range(&rollup.name, from, to).await?;
    compose::judged(worker, view(worker, rollup, &seen, now), &checkpoints, from, to).await
}

/// Works on the slices that are due as of `now`, until `deadline`. With queues, it sends them
/// there if there is more than one. With nothing due, it connects to no database. A server that
/// is found out of reach is contacted only once. At `deadline` it ends, whatever it is waiting
/// for. The report contains all work done by then, a slice in work is left to its lease, and
/// everything else to the next tick.
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
    let mut report = TickReport::default();
    let limit = deadline.remaining(&*worker.clock) + OVERTIME;
    // Boxed, as it contains the whole path of a slice, and a thread's stack is small.
    let work = Box::pin(run_within(worker, now, deadline, only, &mut report));
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done?,
        Err(_) => {
            let rollup = report
                .at
                .take()
                .or_else(|| chosen(worker, only).next().map(|rollup| rollup.name.clone()));
            let error = WorkError::OutOfTime(report.doing);
            report.problems.push(Problem::new(&rollup.unwrap_or_default(), &error));
        }
    }
    Ok(report)
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
    report.problems = Box::pin(late::notice(worker, deadline)).await;
    report.doing = "reading the checkpoints";
    let (mut fresh, mut redefined) = (Vec::new(), Vec::new());
    let mut rollups: Vec<_> = chosen(worker, only).collect();
    // Finer rollups first, as their state decides which coarse slices are due.
    rollups.sort_by_key(|rollup| rollup.depth());
    for rollup in rollups {
        report.at = Some(rollup.name.clone());
        match backlogs(worker, rollup, now, &mut report.gauges).await {
            Ok([due, old]) => {
                fresh.push(due);
                redefined.push(old);
            }
            // No slice could be claimed either.
            Err(error) if error.is_for_all() => return Err(error),
            Err(error) => report.problem(rollup, &error),
        }
    }
    report.doing = "working on its slices";
    if let Some(queues) = &worker.queues {
        let out = FanOut { worker, queues, now, deadline };
        out.fan_out(fresh, redefined, report).await;
    } else {
        // An edit of the configuration must not delay any rollup's fresh numbers.
        for (backlogs, is_backfill) in [(fresh, false), (redefined, true)] {
            work_off(worker, backlogs, is_backfill, now, deadline, report).await;
        }
    }
    report.doing = "verifying old slices";
    // If time is left, all remaining slices belong to failed rollups, whose scrub is skipped
    // too.
    let has_time = !report.is_over && deadline.remaining(&*worker.clock) >= BEGIN_MIN;
    if let Some(settings) = worker.config.scrub.filter(|_| has_time) {
        scrub::run(worker, settings, only, deadline, report).await;
    }
    for rollup in chosen(worker, only) {
        if let Some(reason) =
            identity::unproven(worker, rollup).filter(|_| !report.is_blocked(rollup))
        {
            report.problems.push(Problem::of_unproven(rollup, &reason));
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
    let mut is_due = false;
    for rollup in chosen(worker, only) {
        // Marks and change times are on the source: only a question to it tells of them.
        is_due |= matches!(rollup.late, Late::Capture | Late::Column(_))
            || plan(worker, rollup, now).await?.plan.due().next().is_some();
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
    for rollup in chosen(worker, only) {
        let left = plan(worker, rollup, now).await?.plan.due().count();
        if left > 0 {
            let mut backlog = Backlog { rollup, due: Vec::new(), backfill: None };
            report.hold(&mut backlog, left, asleep.clone());
        }
    }
    Ok(())
}

/// The rollups that a tick is for.
fn chosen<'r>(worker: &'r Worker, only: Option<&'r Rollup>) -> impl Iterator<Item = &'r Rollup> {
    let is_chosen = move |rollup: &&Rollup| only.is_none_or(|only| only.name == rollup.name);
    worker.config.rollups.iter().filter(is_chosen)
}

/// The due slices of one rollup, and those that succeeded by another definition.
async fn backlogs<'r>(
    worker: &Worker,
    rollup: &'r Rollup,
    now: DateTime<Utc>,
    gauges: &mut Gauges,
) -> Result<[Backlog<'r>; 2], WorkError> {
    let mut seen = probe::watermark_for_tick(worker, rollup, now).await?;
    let seal = rollup.seal_before;
    if let Some(sealed) = seen.sealed()
        && seal.is_none_or(|seal| seal < sealed[1])
    {
        // Late changes came while they were sealed, so they are stale behind the watermark.
        worker.checkpoints.unseal(&rollup.name, sealed, seal).await?;
        seen = ready::watermark(worker, rollup).await?;
    }
    let backfill = seen.backfill().map(str::to_owned);
    let standings = plan_after(worker, rollup, seen, now).await?;
    gauges.add(rollup, &standings.plan, now);
    if standings.seen.definition().is_some() && !standings.plan.is_of_one_definition() {
        // A definition that is invalid must not be written ready::prepare(&anywhere.worker, rollup).await?;
    }
    move_watermark(worker, rollup, &standings, WATERMARK_STEP).await?;
    gauges.backfills += usize::from(backfill.is_some());
    let (mut due, mut old) = (Vec::new(), Vec::new());
    for Planned { slice, standing } in standings.plan.due() {
        let backlog = if *standing == Standing::Redefined { &mut old } else { &mut due };
        backlog.push((*slice, standing.reopening()));
    }
    due.reverse();
    old.reverse();
    Ok([Backlog { rollup, due, backfill }, Backlog { rollup, due: old, backfill: None }])
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
                    if let Some(hold) = ended.held().cloned() {
                        // A claimed slice has logged its own result.
                        let is_told = ended.attempt.is_some();
                        report.hold(&mut backlogs[place], usize::from(!is_told), hold);
                        report.slices.extend(is_told.then_some(ended));
                        continue;
                    }
                    let is_success = ended.is_success();
                    report.slices.push(ended);
                    if is_success {
                        feed(worker, &mut backlogs, place, slice, now, report).await;
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
async fn feed(
    worker: &Worker,
    backlogs: &mut [Backlog<'_>],
    place: usize,
    slice: Slice,
    now: DateTime<Utc>,
    report: &mut TickReport,
) {
    let fine = backlogs[place].rollup;
    for coarse in 0..backlogs.len() {
        let rollup = backlogs[coarse].rollup;
        if !rollup.is_computed_from(fine) {
            continue;
        }
        let fed = rollup.calendar.containing(slice.start());
        let waits = backlogs[place].due.iter().any(|(other, _)| fed.contains(other.start()));
        let is_known = backlogs[coarse].due.iter().any(|(due, _)| *due == fed);
        // Query only after the last due finer slice of this coarse slice. Asking after each
        // would cost a query per slice.
        if fed.end() > now || fed.start() < rollup.start || waits || is_known {
            continue;
        }
        match plan_range(worker, rollup, fed.start(), fed.end(), now).await {
            Ok(plan) => {
                let due = plan.due().map(|due| (due.slice, due.standing.reopening()));
                backlogs[coarse].due.extend(due);
            }
            Err(error) => report.problem(rollup, &error),
        }
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
    Box::pin(run::run_slice(worker, rollup, slice, deadline, options)).await
}

/// Writes the watermark if it has moved by at least `step` slices. Also writes it if the
/// definition of all slices before it has become known or unknown.
///
/// # Errors
/// The write fails.
pub async fn move_watermark(
    worker: &Worker,
    rollup: &Rollup,
    standings: &Standings,
    step: usize,
) -> Result<(), WorkError> {
    let Standings { seen, plan } = standings;
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
    let definition = plan.is_of_one_definition().then(|| seen.definition_of(rollup));
    let definition = definition.as_deref();
    let is_news = plan.watermark > rollup.start && seen.definition() != definition;
    if passed >= step || is_news {
        let (name, to) = (&rollup.name, plan.watermark);
        worker.checkpoints.advance_watermark(name, seen, to, definition).await?;
    }
    Ok(())
}
