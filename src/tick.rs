//! A tick: the due slices of all rollups, newest first, one after another until the budget is
//! spent. What is left over is found again by the next tick.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use crate::checkpoint::Watermark;
use crate::clock::Deadline;
use crate::fanout::FanOut;
use crate::identity::is_unproven;
use crate::not_now::{NotNow, Permit};
use crate::plan::{Plan, Planned, Standing, View, horizon};
use crate::report::{Outcome, SliceReport};
use crate::rollup::{Late, Rollup};
use crate::run::{OVERTIME, RESERVE, RunOptions};
use crate::scrub::ScrubReport;
use crate::slice::Slice;
use crate::throttle::may_wake;
use crate::worker::{Severity, WorkError, Worker};

/// A slice is not begun with less time than this: it would only be claimed and given back.
pub(crate) const BEGIN_MIN: std::time::Duration = RESERVE.saturating_mul(3);

/// The watermark is written when it has moved on by this many slices, so that a slice in the
/// normal case costs its two writes and a sixteenth.
const WATERMARK_STEP: usize = 16;

/// How a rollup's slices stand, and the watermark that was read before them.
#[derive(Debug)]
pub struct Standings {
    /// The stored watermark.
    pub seen: Watermark,
    /// The slices from the watermark on.
    pub plan: Plan,
}

/// What a tick did.
#[derive(Debug, Default, Serialize)]
pub struct TickReport {
    /// The slices that were worked on.
    pub slices: Vec<SliceReport>,
    /// Due slices that were left to the next tick.
    pub left: usize,
    /// Due slices that were sent to the queues for other invocations.
    #[serde(skip)]
    pub sent: u64,
    /// Rollups that a person, the hours or the source's load held back.
    pub held: Vec<Held>,
    /// Rollups that could not be worked on, or whose late changes cannot be told.
    pub problems: Vec<Problem>,
    /// Old slices that were verified once all due work was done.
    pub scrub: ScrubReport,
    /// How all rollups stood when it began.
    #[serde(skip)]
    pub gauges: Gauges,
    /// Whether there are no checkpoints to be had any more.
    #[serde(skip)]
    pub(crate) is_over: bool,
    /// What is being done, should the time be up meanwhile ...
    #[serde(skip)]
    pub(crate) doing: &'static str,
    /// ... and for which rollup.
    #[serde(skip)]
    pub(crate) at: Option<String>,
}

/// How all rollups stood when a tick began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// How far the watermark of the worst rollup is behind the end of its newest readable slice.
    pub lag: TimeDelta,
    /// Slices that were due.
    pub due: usize,
    /// Slices that failed too often.
    pub exhausted: usize,
    /// Backfills under way.
    pub backfills: usize,
}

/// A rollup whose due slices were left.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Held {
    /// The rollup.
    pub rollup: String,
    /// Why.
    #[serde(rename = "reason")]
    pub not_now: NotNow,
    /// How many slices were due.
    pub left: usize,
}

/// Why a rollup could not be worked on.
#[derive(Debug, Serialize)]
pub struct Problem {
    /// The rollup.
    pub rollup: String,
    /// What is wrong.
    pub error: String,
    #[serde(skip)]
    severity: Option<Severity>,
    /// Whether fresh slices can be computed all the same.
    #[serde(skip)]
    pub(crate) is_alarm: bool,
}

impl Problem {
    /// What kept `rollup` from being worked on.
    #[must_use]
    pub fn new(rollup: &str, error: &WorkError) -> Self {
        let (rollup, severity) = (rollup.to_owned(), Some(error.severity()));
        Self { rollup, error: error.to_string(), severity, is_alarm: false }
    }

    /// What kept late changes of `rollup` from being noticed. Where it is the source's triggers or its
    /// index, and not a server, nothing else is held up: those slices say that they settled by `grace`.
    #[must_use]
    pub fn of_late_changes(rollup: &str, error: &WorkError) -> Self {
        Self { is_alarm: matches!(error, WorkError::Usage(_)), ..Self::new(rollup, error) }
    }

    /// That a restore may have lost rows which were counted: its slices are computed all the same.
    #[must_use]
    pub fn of_unproven(rollup: &Rollup, reason: &str) -> Self {
        let (error, severity) = (is_unproven(rollup, reason), Some(Severity::Failed));
        Self { rollup: rollup.name.clone(), error, severity, is_alarm: true }
    }
}

/// The due slices of one rollup, the first at the end, and why they are to be reopened first.
pub(crate) struct Backlog<'r> {
    pub rollup: &'r Rollup,
    pub due: Vec<(Slice, Option<&'static str>)>,
    /// The backfill that is under way, of a rollup's fresh slices.
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
    /// Leaves all that is left in `backlog`, and `more`.
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
        // The look for late changes meets what the work on its slices meets again.
        let is_same = |it: &Problem| it.rollup == problem.rollup && it.error == problem.error;
        if !self.problems.iter().any(is_same) {
            self.problems.push(problem);
        }
    }

    /// Whether trouble keeps all slices of `rollup` from being computed.
    pub(crate) fn is_blocked(&self, rollup: &Rollup) -> bool {
        let blocks = |problem: &Problem| problem.rollup == rollup.name && !problem.is_alarm;
        self.problems.iter().any(blocks)
    }

    /// Rollups whose late changes cannot be told.
    #[must_use]
    pub fn alarms(&self) -> usize {
        self.problems.iter().filter(|problem| problem.is_alarm).count()
    }

    /// The worst of what went wrong; `None` if nothing did.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        let has_failed = self.slices.iter().any(|slice| matches!(slice.outcome, Outcome::Failed));
        let failed = (has_failed || self.scrub.differing > 0).then_some(Severity::Failed);
        let problems = self.problems.iter().filter_map(|problem| problem.severity);
        problems.chain(failed).max_by_key(|severity| *severity as u8)
    }
}

impl Worker {
    /// How the slices of `rollup` stand, by its checkpoints alone.
    ///
    /// # Errors
    /// The checkpoints cannot be read.
    pub async fn plan(&self, rollup: &Rollup, now: DateTime<Utc>) -> Result<Standings, WorkError> {
        let seen = self.watermark(rollup).await?;
        self.plan_after(rollup, seen, now).await
    }

    /// As [`Worker::plan`], of a watermark that was read just now.
    pub(crate) async fn plan_after(
        &self,
        rollup: &Rollup,
        seen: Watermark,
        now: DateTime<Utc>,
    ) -> Result<Standings, WorkError> {
        Box::pin(self.recognise(rollup, seen.bond())).await?;
        let from = horizon(rollup, &seen, now);
        let checkpoints = self.checkpoints.range(&rollup.name, from, now).await?;
        let plan = self.judged(self.view(rollup, &seen, now), &checkpoints, from, now).await?;
        Ok(Standings { seen, plan })
    }

    /// What beside the checkpoints decides how slices stand.
    pub(crate) fn view<'r>(
        &self,
        rollup: &'r Rollup,
        seen: &Watermark,
        now: DateTime<Utc>,
    ) -> View<'r> {
        let failures_max = self.config.checkpoint.failures_max;
        let (begin, definition) = (seen.begin(), seen.definition_of(rollup));
        let moved_from = seen.moved_from(rollup);
        View { rollup, now, failures_max, begin, definition, moved_from, fed: None }
    }

    /// How the slices of `rollup` that start in `[from, to)` stand.
    ///
    /// # Errors
    /// The checkpoints cannot be read.
    pub async fn plan_range(
        &self,
        rollup: &Rollup,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Plan, WorkError> {
        let seen = self.watermark(rollup).await?;
        Box::pin(self.recognise(rollup, seen.bond())).await?;
        let checkpoints = self.checkpoints.range(&rollup.name, from, to).await?;
        self.judged(self.view(rollup, &seen, now), &checkpoints, from, to).await
    }

    /// Works on whatever is due as of `now`, until `deadline`; with queues, sends it to them where that is more than
    /// one slice. With nothing due, no database is connected. A server that is found out of reach is not asked again.
    /// At `deadline` it ends, whatever it waits for: what was done by then is in the report, a slice under way is
    /// left to its lease, and everything else to the next tick.
    ///
    /// # Errors
    /// There are no checkpoints to be had; whatever concerns one rollup or slice is in the report.
    pub async fn tick(
        &self,
        now: DateTime<Utc>,
        deadline: Deadline,
        only: Option<&Rollup>,
    ) -> Result<TickReport, WorkError> {
        let _once = (self.source.ask_once(), self.target.db.ask_once());
        let mut report = TickReport::default();
        let limit = deadline.remaining(&*self.clock) + OVERTIME;
        // Boxed: the whole path of a slice is inside, and a thread's stack is small.
        let work = Box::pin(self.tick_within(now, deadline, only, &mut report));
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done?,
            Err(_) => {
                let rollup = report
                    .at
                    .take()
                    .or_else(|| self.chosen(only).next().map(|rollup| rollup.name.clone()));
                let error = WorkError::OutOfTime(report.doing);
                report.problems.push(Problem::new(&rollup.unwrap_or_default(), &error));
            }
        }
        Ok(report)
    }

    async fn tick_within(
        &self,
        now: DateTime<Utc>,
        deadline: Deadline,
        only: Option<&Rollup>,
        report: &mut TickReport,
    ) -> Result<(), WorkError> {
        report.doing = "reading the checkpoints";
        let (clock_now, is_due) = (self.clock.now(), self.needs_source(only, now));
        let woken = may_wake(&self.governor, &self.checkpoints, clock_now, is_due).await?;
        if let Permit::NotNow(asleep) = woken {
            return self.left_asleep(only, now, &asleep, report).await;
        }
        report.doing = "looking for late changes";
        report.problems = Box::pin(self.notice_late(deadline)).await;
        report.doing = "reading the checkpoints";
        let (mut fresh, mut redefined) = (Vec::new(), Vec::new());
        let mut rollups: Vec<_> = self.chosen(only).collect();
        // The finer first: what is found out about them decides what is due of the coarse.
        rollups.sort_by_key(|rollup| rollup.depth());
        for rollup in rollups {
            report.at = Some(rollup.name.clone());
            match self.backlogs(rollup, now, &mut report.gauges).await {
                Ok([due, old]) => {
                    fresh.push(due);
                    redefined.push(old);
                }
                // Nor could any slice be claimed.
                Err(error) if error.is_for_all() => return Err(error),
                Err(error) => report.problem(rollup, &error),
            }
        }
        report.doing = "working on its slices";
        if let Some(queues) = &self.queues {
            let out = FanOut { worker: self, queues, now, deadline };
            out.fan_out(fresh, redefined, report).await;
        } else {
            // An edit of the configuration must not keep any rollup's fresh numbers waiting.
            for (backlogs, is_backfill) in [(fresh, false), (redefined, true)] {
                self.work_off(backlogs, is_backfill, now, deadline, report).await;
            }
        }
        report.doing = "verifying old slices";
        // With time left, whatever is left is of rollups in trouble, which are not scrubbed either.
        let has_time = !report.is_over && deadline.remaining(&*self.clock) >= BEGIN_MIN;
        if let Some(settings) = self.config.scrub.filter(|_| has_time) {
            self.scrub(settings, only, deadline, report).await;
        }
        for rollup in self.chosen(only) {
            if let Some(reason) = self.unproven(rollup).filter(|_| !report.is_blocked(rollup)) {
                report.problems.push(Problem::of_unproven(rollup, &reason));
            }
        }
        Ok(())
    }

    /// Whether anything needs the source.
    async fn needs_source(
        &self,
        only: Option<&Rollup>,
        now: DateTime<Utc>,
    ) -> Result<bool, WorkError> {
        let mut is_due = false;
        for rollup in self.chosen(only) {
            // Marks and change times are on the source: only a question to it tells of them.
            is_due |= matches!(rollup.late, Late::Capture | Late::Column(_))
                || self.plan(rollup, now).await?.plan.due().next().is_some();
        }
        Ok(is_due)
    }

    /// What a tick leaves that lets the source sleep.
    async fn left_asleep(
        &self,
        only: Option<&Rollup>,
        now: DateTime<Utc>,
        asleep: &NotNow,
        report: &mut TickReport,
    ) -> Result<(), WorkError> {
        for rollup in self.chosen(only) {
            let left = self.plan(rollup, now).await?.plan.due().count();
            if left > 0 {
                let mut backlog = Backlog { rollup, due: Vec::new(), backfill: None };
                report.hold(&mut backlog, left, asleep.clone());
            }
        }
        Ok(())
    }

    /// The rollups that a tick is for.
    fn chosen<'r>(&'r self, only: Option<&'r Rollup>) -> impl Iterator<Item = &'r Rollup> {
        let is_chosen = move |rollup: &&Rollup| only.is_none_or(|only| only.name == rollup.name);
        self.config.rollups.iter().filter(is_chosen)
    }

    /// The due slices of one rollup, and those that succeeded by another definition.
    async fn backlogs<'r>(
        &self,
        rollup: &'r Rollup,
        now: DateTime<Utc>,
        gauges: &mut Gauges,
    ) -> Result<[Backlog<'r>; 2], WorkError> {
        let mut seen = self.watermark_for_tick(rollup, now).await?;
        let seal = rollup.seal_before;
        if let Some(sealed) = seen.sealed()
            && seal.is_none_or(|seal| seal < sealed[1])
        {
            // Late changes came while they were sealed: they are stale, behind the watermark.
            self.checkpoints.unseal(&rollup.name, sealed, seal).await?;
            seen = self.watermark(rollup).await?;
        }
        let backfill = seen.backfill().map(str::to_owned);
        let standings = self.plan_after(rollup, seen, now).await?;
        gauges.add(rollup, &standings.plan, now);
        if standings.seen.definition().is_some() && !standings.plan.is_of_one_definition() {
            // A definition that does not fit must not be written anywhere.
            self.prepare(rollup).await?;
        }
        self.move_watermark(rollup, &standings, WATERMARK_STEP).await?;
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

    /// Round robin: no rollup's history keeps another's newest slice waiting.
    pub(crate) async fn work_off(
        &self,
        mut backlogs: Vec<Backlog<'_>>,
        is_backfill: bool,
        now: DateTime<Utc>,
        deadline: Deadline,
        report: &mut TickReport,
    ) {
        for Backlog { rollup, due, .. } in &mut backlogs {
            // What keeps its fresh slices from being computed keeps the others too.
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
                if report.is_over || deadline.remaining(&*self.clock) < BEGIN_MIN {
                    report.left += due.len() + 1;
                    due.clear();
                    continue;
                }
                let backfill = is_backfill.then_some(now);
                report.at = Some(rollup.name.clone());
                match self.run_due(rollup, slice, reopening, deadline, backfill).await {
                    Ok(ended) => {
                        if let Some(hold) = ended.held().cloned() {
                            // One that was claimed tells itself what became of it.
                            let is_told = ended.attempt.is_some();
                            report.hold(&mut backlogs[place], usize::from(!is_told), hold);
                            report.slices.extend(is_told.then_some(ended));
                            continue;
                        }
                        let is_success = ended.is_success();
                        report.slices.push(ended);
                        if is_success {
                            self.feed(&mut backlogs, place, slice, now, report).await;
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

    /// Adds the coarse slices that may be computed now that `slice` of the backlog at `place` is done.
    async fn feed(
        &self,
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
            // Only where it was the last: the usual finer slice asks nothing.
            if fed.end() > now || fed.start() < rollup.start || waits || is_known {
                continue;
            }
            match self.plan_range(rollup, fed.start(), fed.end(), now).await {
                Ok(plan) => {
                    let due = plan.due().map(|due| (due.slice, due.standing.reopening()));
                    backlogs[coarse].due.extend(due);
                }
                Err(error) => report.problem(rollup, &error),
            }
        }
    }

    async fn run_due(
        &self,
        rollup: &Rollup,
        slice: Slice,
        reopening: Option<&str>,
        deadline: Deadline,
        backfill: Option<DateTime<Utc>>,
    ) -> Result<SliceReport, WorkError> {
        if let Some(reason) = reopening {
            // Nothing is marked that is not begun.
            if let Permit::NotNow(hold) = self.gate(rollup, backfill).may_start().await? {
                return Ok(SliceReport::not_now(rollup, slice, hold));
            }
            self.prepare(rollup).await?;
            let now = self.clock.now();
            self.checkpoints.reopen(&rollup.name, slice.start(), reason, now).await?;
        }
        let options = RunOptions { backfill, ..RunOptions::default() };
        Box::pin(self.run(rollup, slice, deadline, options)).await
    }

    /// Writes the watermark if it has moved on by at least `step` slices, or if it can be told now
    /// which definition all before it holds, or cannot be told any more.
    ///
    /// # Errors
    /// The write fails.
    pub async fn move_watermark(
        &self,
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
            self.checkpoints.advance_watermark(name, seen, to, definition).await?;
        }
        Ok(())
    }
}
