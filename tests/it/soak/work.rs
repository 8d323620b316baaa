//! Tallymark's work, and the faults that it meets.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tallymark::checkpoint::{Pause, Scope};
use tallymark::model::clock::Deadline;
use tallymark::model::rollup::Rollup;
use tallymark::tick::{self};
use tallymark::work::backfill::{
    self, BatchLimits, BatchOptions, BatchReport, Interrupted, Silent,
};
use tallymark::work::report::TickReport;
use tallymark::work::slice_run::RunOptions;
use tallymark::work::worker::{WorkError, Worker};

use super::life::Life;
use crate::support::polls::polled;
use crate::support::proxy::{Fault, Plan};
use tallymark::model::slice::Order;

/// The budget of an invocation.
pub const BUDGET: Duration = Duration::from_secs(20);

/// Longer than any expected wait. A tick that takes longer is considered endless.
const ENDLESS: Duration = Duration::from_secs(120);

/// A batch that waits for another worker's lease is ended, as the clock of this world stands still
/// meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);

/// ... after which all killed workers' leases have ended, by all clocks.
const LEASES_OVER: Duration = Duration::from_secs(5 * 60);

/// A frozen worker wakes after its lease has ended, and that of the worker that took its slice.
const FREEZE: Duration = Duration::from_secs(10 * 60);

/// The fate of a tick.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// It runs to its end.
    Whole,
    /// It is killed after this many polls.
    Killed(usize),
    /// After this many polls every session on the database is ended.
    Ended(usize),
    /// After this many polls it stands still, until another tick has run past its lease.
    Frozen(usize),
    /// Another worker's tick runs at the same time.
    Beside,
}

impl Way {
    const fn word(self) -> &'static str {
        match self {
            Self::Whole => "ticks",
            Self::Killed(_) => "ticks killed",
            Self::Ended(_) => "ticks whose sessions were ended",
            Self::Frozen(_) => "ticks frozen past their lease",
            Self::Beside => "ticks beside another",
        }
    }
}

/// Runs to the end, which must exist.
pub async fn ending<F: Future>(work: F) -> F::Output {
    tokio::time::timeout(ENDLESS, work).await.expect("work that ends")
}

/// A tick as of the worker's own time.
pub async fn tick(worker: &Worker) -> Result<TickReport, WorkError> {
    let now = worker.clock.now();
    tick::run(worker, now, Deadline::at(now + BUDGET), None).await
}

/// The faults of DynamoDB, each with its name.
const FAULTS: [(&str, Fault); 3] = [
    ("throttled", Fault::Answer(400, "ProvisionedThroughputExceededException")),
    ("failed", Fault::Answer(500, "InternalServerError")),
    ("without reply", Fault::LoseReply),
];

impl Life {
    pub async fn tick(&mut self, way: Way) {
        let count = self.workers.len();
        let which = self.random.usize(..count);
        let other = (which + 1) % count;
        let (worker, other) = (&self.workers[which], &self.workers[other]);
        let mut reports = Vec::new();
        {
            let mut work = pin!(tick(worker));
            match way {
                Way::Whole => reports.push(ending(work).await),
                Way::Killed(polls) => reports.extend(polled(&mut work, polls).await),
                Way::Ended(polls) => match polled(&mut work, polls).await {
                    Some(ended) => reports.push(ended),
                    None => {
                        self.scene.end_sessions().await;
                        reports.push(ending(work).await);
                    }
                },
                Way::Frozen(polls) => match polled(&mut work, polls).await {
                    Some(ended) => reports.push(ended),
                    None => {
                        self.scene.advance(FREEZE).await;
                        reports.push(ending(tick(other)).await);
                        reports.push(ending(work).await);
                    }
                },
                Way::Beside => {
                    let (one, another) = ending(async { tokio::join!(work, tick(other)) }).await;
                    reports.extend([one, another]);
                }
            }
        }
        self.count(way.word(), 1);
        for report in reports {
            self.take(report);
        }
    }

    /// Adds a tick's report to what was done.
    pub fn take(&mut self, report: Result<TickReport, WorkError>) {
        let Ok(report) = report else { return self.count("ticks without checkpoints", 1) };
        for slice in &report.slices {
            self.count(format!("slices {}", slice.outcome.word()), 1);
            if let Some(done) = &slice.completion {
                self.count("source rows read", done.rows_read);
                self.count("groups written", done.inserted + done.updated + done.deleted);
                self.count("groups unchanged", done.unchanged);
            }
        }
        self.count("scrub: slices verified", report.scrub.verified as u64);
        self.count("scrub: slices that differ", report.scrub.differing as u64);
        self.count("rollups held back", report.held.len() as u64);
        self.count("rollups in trouble", report.problems.len() as u64);
        for drifted in &report.scrub.drifted {
            println!("drift found by the scrub at {}: {drifted:?}", self.scene.now());
        }
    }

    /// A tick during failures of the store. Those of DynamoDB are usually so rare that the SDK's
    /// retry succeeds. In the target its sessions are ended with all others.
    pub async fn tick_in_trouble(&mut self, polls: usize) {
        let Some(dynamo) = &self.scene.dynamo else { return self.tick(Way::Ended(polls)).await };
        let (name, fault) = FAULTS[self.random.usize(..FAULTS.len())];
        let said = ["", "UpdateItem", "UpdateItem", "Query", "GetItem"][self.random.usize(..5)];
        let (skip, many) = (self.random.usize(..12), self.random.u8(..6) == 0);
        let before = dynamo.proxy.met();
        dynamo.proxy.meet(Plan { fault, said, skip, count: if many { 8 } else { 1 } });
        self.tick(Way::Whole).await;
        self.scene.recover();
        let after = self.scene.dynamo.as_ref().map_or(before, |dynamo| dynamo.proxy.met());
        self.count(format!("requests {name}"), (after - before) as u64);
    }

    fn batch(worker: &Worker) -> BatchOptions {
        let (options, limits) = (RunOptions::default(), BatchLimits::default());
        let deadline = Some(Deadline::after(&*worker.clock, BUDGET));
        BatchOptions { concurrency: 3, budget: BUDGET, deadline, options, limits }
    }

    /// Ten days or less, at most a month old and unsealed.
    fn some_days(&mut self, rollup: &Rollup) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        let now = self.scene.now();
        let from = now - TimeDelta::days(self.random.i64(3..32));
        let to = (from + TimeDelta::days(self.random.i64(1..10))).min(now);
        let from = from.max(rollup.start).max(self.scene.floor());
        (from < to).then_some((from, to))
    }

    /// A backfill, perhaps killed after this many polls.
    pub async fn backfill(&mut self, polls: Option<usize>) {
        let which = self.random.usize(..self.workers.len());
        let rollups = &self.workers[which].config.rollups;
        let rollup = rollups[self.random.usize(..rollups.len())].clone();
        let Some((from, to)) = self.some_days(&rollup) else { return };
        self.scene.advance(LEASES_OVER).await;
        let force = self.random.bool();
        let worker = &self.workers[which];
        let work = async {
            let order = Order::NewestFirst;
            let plan = backfill::plan(worker, &rollup, from, to, order, force).await?;
            backfill::run(worker, &rollup, &plan, Self::batch(worker), &Silent).await
        };
        let ended = tokio::time::timeout(PATIENCE, async {
            let mut work = pin!(work);
            match polls {
                Some(polls) => polled(&mut work, polls).await,
                None => Some(work.await),
            }
        });
        let ended = ended.await.ok().flatten();
        self.count(if ended.is_some() { "backfills" } else { "backfills killed" }, 1);
        self.take_batch(ended);
    }

    fn take_batch(&mut self, ended: Option<Result<BatchReport, Interrupted>>) {
        let report = match ended {
            Some(Ok(report)) => report,
            Some(Err(interrupted)) => {
                self.count("batches interrupted", 1);
                *interrupted.report
            }
            None => return,
        };
        self.count("slices succeeded", report.succeeded as u64);
        self.count("slices failed", report.failed.len() as u64);
        self.count("source rows read", report.rows_read);
        self.count("groups written", report.inserted + report.updated + report.deleted);
        self.count("groups unchanged", report.unchanged);
    }

    pub async fn replay(&mut self) {
        let which = self.random.usize(..self.workers.len());
        let rollups = &self.workers[which].config.rollups;
        let rollup = rollups[self.random.usize(..rollups.len())].clone();
        let Some((from, to)) = self.some_days(&rollup) else { return };
        self.scene.advance(LEASES_OVER).await;
        let over = self.scene.now() - TimeDelta::hours(1);
        let slices: Vec<_> =
            rollup.calendar.slices(from, to).filter(|it| it.end() < over).collect();
        let floor = self.scene.floor().max(rollup.start);
        let slices: Vec<_> = slices.into_iter().filter(|it| it.start() >= floor).take(3).collect();
        let worker = &self.workers[which];
        let work = backfill::replay(worker, &rollup, &slices, "soak", Self::batch(worker), &Silent);
        let ended = tokio::time::timeout(PATIENCE, work).await.ok();
        self.count("slices replayed", slices.len() as u64);
        self.take_batch(ended);
    }

    pub async fn pause(&mut self) {
        let names = self.definition.names();
        let name = names[self.random.usize(..names.len())];
        let scope = match self.random.u8(..3) {
            0 => Scope::Source,
            1 => Scope::Rollup(name),
            _ => Scope::Backfill(name),
        };
        let at = self.scene.now();
        let days = TimeDelta::days(self.random.i64(1..4));
        let until = self.random.bool().then(|| at + days);
        let pause = Pause { at, reason: "soak".into(), until };
        self.workers[0].checkpoints.set_pause(scope, Some(&pause)).await.unwrap();
        self.count("pauses", 1);
    }

    /// Ends all pauses.
    pub async fn go_on(&mut self) {
        let checkpoints = &self.workers[0].checkpoints;
        checkpoints.set_pause(Scope::Source, None).await.unwrap();
        for name in self.definition.names() {
            for scope in [Scope::Rollup(name), Scope::Backfill(name)] {
                checkpoints.set_pause(scope, None).await.unwrap();
            }
        }
    }
}
