//! Requests to an app: each is permitted, reserved from the month's budget, sent, tried again where
//! that may help, and paid.

use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::checkpoint::Spending;
use crate::clients::bubble::{App, AppError, Meta, PAGE_MAX, Page, ThingSearch, Units};
use crate::config::AppConfig;
use crate::model::clock::{Deadline, Stopwatch, whole_ms};
use crate::model::hint::Fault;
use crate::model::not_now::{NotNow, Permit, Why};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::throttle::{Gate, Patience};
use crate::work::ready;
use crate::work::slice_run::RESERVE;
use crate::work::worker::{Worker, lock};

/// A page needs about this much time, until one has shown it.
const PAGE_TIME: Duration = Duration::from_secs(1);

/// Bytes of an answer, until one has shown it.
const PAGE_BYTES: u64 = 130_000;

/// Tries of one request, including the first.
const TRIES_MAX: u32 = 5;

/// The wait before the second try is at most this long, and doubles with each further one.
const WAIT_FIRST: Duration = Duration::from_millis(500);

/// The wait after a yield, where the app named none.
const WAIT_YIELDED: Duration = Duration::from_secs(60);

/// A spent budget is looked at again after this time: an operator may have raised it.
const BUDGET_POLL: Duration = Duration::from_secs(60 * 60);

/// The requests of one turn on a mirror, or of one command.
pub(crate) struct Meter<'w> {
    worker: &'w Worker,
    deadline: Deadline,
    app: &'w App,
    config: &'w AppConfig,
    gate: Gate<'w>,
    /// Reserved, and yet to be taken.
    reserved: Units,
    /// The price of the last page.
    page: Units,
    /// The time of the last request.
    took: Duration,
    /// What the app has billed.
    units: &'w Mutex<Units>,
}

/// A request and what a try of it gave.
enum Request<'s> {
    Find(&'s ThingSearch<'s>),
    FindAsStranger(&'s ThingSearch<'s>),
    Meta,
}

enum Found {
    Page(Page),
    Meta(Meta),
}

impl<'w> Meter<'w> {
    /// Counts in `units` what the app bills. `backfill` says when the backfill began that the work
    /// is part of.
    ///
    /// # Errors
    /// The source is no app.
    pub(crate) fn new(
        worker: &'w Worker,
        rollup: &'w Rollup,
        backfill: Option<DateTime<Utc>>,
        deadline: Deadline,
        units: &'w Mutex<Units>,
    ) -> Result<Self, Fault> {
        let source = worker.app.as_ref().zip(worker.config.source.app.as_ref());
        let Some((app, config)) = source else {
            let fault = Fault::new("a mirror needs the app that it keeps things of");
            return Err(fault.remedy("write [source] bubble = { app = … }"));
        };
        Ok(Self {
            worker,
            deadline,
            app,
            config,
            gate: ready::gate(worker, rollup, backfill),
            reserved: Units::default(),
            page: Units::of_search(PAGE_MAX, PAGE_BYTES),
            took: PAGE_TIME,
            units,
        })
    }

    /// Also checks before each request that the slice that starts then is open.
    pub(crate) fn for_slice(self, slice: Slice) -> Self {
        Self { gate: self.gate.for_slice(slice), ..self }
    }

    pub(crate) const fn app(&self) -> &'w App {
        self.app
    }

    /// Milliseconds of the last request.
    pub(crate) fn took_ms(&self) -> u64 {
        whole_ms(self.took)
    }

    /// The things of `search`. The inner error: the app refuses, and will again.
    pub(crate) async fn find(
        &mut self,
        search: &ThingSearch<'_>,
    ) -> Result<Result<Page, Fault>, NotNow> {
        self.page_of(Request::Find(search)).await
    }

    /// As [`Meter::find`], without the token.
    pub(crate) async fn find_as_stranger(
        &mut self,
        search: &ThingSearch<'_>,
    ) -> Result<Result<Page, Fault>, NotNow> {
        self.page_of(Request::FindAsStranger(search)).await
    }

    /// What the app tells of itself.
    pub(crate) async fn meta(&mut self) -> Result<Result<Meta, Fault>, NotNow> {
        match self.ask(&Request::Meta).await? {
            Ok(Found::Meta(meta)) => Ok(Ok(meta)),
            Ok(Found::Page(_)) => Ok(Err(Fault::new("a page came where /meta was asked for"))),
            Err(fault) => Ok(Err(fault)),
        }
    }

    async fn page_of(&mut self, request: Request<'_>) -> Result<Result<Page, Fault>, NotNow> {
        match self.ask(&request).await? {
            Ok(Found::Page(page)) => Ok(Ok(page)),
            Ok(Found::Meta(_)) => Ok(Err(Fault::new("/meta came where a page was asked for"))),
            Err(fault) => Ok(Err(fault)),
        }
    }

    async fn ask(&mut self, request: &Request<'_>) -> Result<Result<Found, Fault>, NotNow> {
        let mut latest = None;
        for tries in 0..TRIES_MAX {
            self.permit().await?;
            self.reserve().await?;
            let watch = Stopwatch::start();
            let (found, units) = match request {
                Request::Find(search) => page(self.app.find(search).await),
                Request::FindAsStranger(search) => page(self.app.find_as_stranger(search).await),
                Request::Meta => match self.app.meta().await {
                    Ok((meta, units)) => (Ok(Found::Meta(meta)), units),
                    Err(error) => (Err(error), Units::of_call(0)),
                },
            };
            self.took = watch.elapsed();
            self.take(units);
            let (fault, retry_after) = match found {
                Ok(found) => return Ok(Ok(found)),
                Err(AppError::Refused(fault)) => return Ok(Err(fault)),
                Err(AppError::Busy { fault, retry_after }) => (fault, retry_after),
            };
            let jitter = (WAIT_FIRST * 2_u32.pow(tries)).mul_f64(fastrand::f64());
            let wait = retry_after.unwrap_or(jitter);
            if self.deadline.remaining(&*self.worker.clock)
                < wait + self.took.max(PAGE_TIME) + RESERVE
            {
                return Err(self.busy(fault, retry_after));
            }
            self.worker.sleep(wait).await;
            latest = Some((fault, retry_after));
        }
        let (fault, retry_after) = latest.unwrap_or_default();
        Err(self.busy(fault, retry_after))
    }

    /// Yields, because the app cannot answer.
    fn busy(&self, fault: Fault, retry_after: Option<Duration>) -> NotNow {
        let wait = retry_after.unwrap_or(WAIT_YIELDED);
        NotNow::until(Why::App(fault), self.worker.clock.now() + wait)
    }

    /// Yields where the time, the hours or an operator forbid another request.
    async fn permit(&mut self) -> Result<(), NotNow> {
        let needed = self.took + RESERVE;
        let patience = Patience::Until { deadline: self.deadline, needed };
        match self.gate.permit(None, patience).await {
            Ok(Permit::Given(_)) => Ok(()),
            Ok(Permit::NotNow(not_now)) => Err(not_now),
            Err(error) => Err(NotNow::because(Why::Server(Fault::of(&error)))),
        }
    }

    /// Reserves the price of a page from the month's budget.
    async fn reserve(&mut self) -> Result<(), NotNow> {
        let more = self.page.less(self.reserved);
        if more == Units::default() {
            return Ok(());
        }
        match self.spend(more, Units::default()).await? {
            Spending::Granted => {
                self.reserved = self.reserved + more;
                Ok(())
            }
            Spending::Over { spent } => {
                let retry_at = self.worker.clock.now() + BUDGET_POLL;
                let budget = self.config.units_per_month;
                let fault = Fault::new(format!(
                    "the month has taken {spent} of workload_units_per_month = {budget}"
                ))
                .remedy(
                    "wait for the next month, or raise the budget in [source]: what the app's plan \
                     has left is in its settings",
                );
                Err(NotNow::until(Why::WorkloadSpent(fault), retry_at))
            }
        }
    }

    async fn spend(&self, more: Units, unused: Units) -> Result<Spending, NotNow> {
        let worker = self.worker;
        let budget = Units::whole(self.config.units_per_month);
        let spending = worker.checkpoints.spend_workload(more, unused, budget, worker.clock.now());
        spending.await.map_err(|error| NotNow::because(Why::Server(Fault::of(&error))))
    }

    /// Takes the price of an answer from what is reserved.
    fn take(&mut self, units: Units) {
        self.reserved = self.reserved.less(units);
        self.page = self.page.max(units);
        self.app.bill(units);
        let mut spent = lock(self.units);
        *spent = *spent + units;
    }

    /// Gives back what was reserved and not taken. Without it the month would count too much.
    pub(crate) async fn settle(&mut self) {
        let unused = std::mem::take(&mut self.reserved);
        if unused > Units::default()
            && let Err(not_now) = self.spend(Units::default(), unused).await
        {
            tracing::warn!(%not_now, %unused, "could not give back reserved workload units");
        }
    }
}

fn page(found: Result<Page, AppError>) -> (Result<Found, AppError>, Units) {
    match found {
        Ok(page) => {
            let units = page.units;
            (Ok(Found::Page(page)), units)
        }
        Err(error) => (Err(error), Units::of_call(0)),
    }
}
