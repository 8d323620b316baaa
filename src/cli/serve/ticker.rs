//! Ticks, one at a time, and what is known of them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

use super::health::Health;
use crate::cli::{Failure, ui};
use crate::model::clock::{Deadline, Stopwatch, rfc3339, whole_ms};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::notices;
use crate::telemetry::registry::{FAILING, Sample};
use crate::telemetry::totals::Totals;
use crate::tick;
use crate::work::report::{Outcome, TickReport};
use crate::work::worker::{Severity, Worker};

/// The origin of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AskedBy {
    Schedule,
    Request,
}

impl AskedBy {
    const fn word(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Request => "request",
        }
    }
}

/// The tick that runs now.
#[derive(Clone, Copy, Debug)]
pub(super) struct RunningTick {
    began_at: DateTime<Utc>,
    asked_by: AskedBy,
    deadline: Deadline,
}

impl RunningTick {
    pub(super) fn document(&self) -> Value {
        json!({
            "began_at": ui::instant(self.began_at),
            "asked_by": self.asked_by.word(),
            "ends_by": ui::instant(self.deadline.instant()),
        })
    }
}

impl fmt::Display for RunningTick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (began, ends) = (ui::instant(self.began_at), ui::instant(self.deadline.instant()));
        write!(f, "begun {began} by {}, until {ends} at the latest", self.asked_by.word())
    }
}

/// A tick that has ended.
pub(super) struct Ended {
    pub(super) began_at: DateTime<Utc>,
    asked_by: AskedBy,
    took: Duration,
    pub(super) result: Result<TickReport, Failure>,
    /// The next instant at which there may be work. `None`: there may be work at any time.
    pub(super) quiet_until: Option<DateTime<Utc>>,
}

impl Ended {
    /// Whether all servers and rollups could be worked on. Failed slices are left to their retry.
    pub(super) fn is_good(&self) -> bool {
        self.result.as_ref().is_ok_and(|report| report.problems.is_empty())
    }
}

/// What is known of the ticks of this process.
#[derive(Clone, Default)]
pub(super) struct TicksSeen {
    pub(super) last: Option<Arc<Ended>>,
    pub(super) health: Health,
    pub(super) totals: Totals,
    /// When the schedule begins the next tick.
    pub(super) next_at: Option<DateTime<Utc>>,
}

impl TicksSeen {
    /// The metrics of the ticks that have ended.
    pub(super) fn samples(&self) -> Vec<Sample> {
        let mut samples = self.totals.samples();
        let is_failing = !self.health.reasons.is_empty();
        samples.push(Sample::new(&FAILING, f64::from(u8::from(is_failing))));
        samples
    }
}

/// Starts ticks. At most one runs.
pub(super) struct Ticker {
    pub(super) worker: Worker,
    /// The longest time of a tick.
    pub(super) budget: Duration,
    running: watch::Sender<Option<RunningTick>>,
    known: Mutex<TicksSeen>,
}

impl Ticker {
    pub(super) fn new(worker: Worker, budget: Duration) -> Self {
        Self { worker, budget, running: watch::channel(None).0, known: Mutex::default() }
    }

    /// Starts a tick in a task of its own, so that it goes on even if the receiver is dropped.
    ///
    /// # Errors
    /// The tick that runs already.
    pub(super) fn start(
        self: &Arc<Self>,
        asked_by: AskedBy,
        budget: Duration,
    ) -> Result<oneshot::Receiver<Arc<Ended>>, RunningTick> {
        let clock = &*self.worker.clock;
        let deadline = Deadline::after(clock, budget.min(self.budget));
        let this = RunningTick { began_at: clock.now(), asked_by, deadline };
        let mut other = None;
        self.running.send_if_modified(|running| {
            other = *running;
            running.get_or_insert(this);
            other.is_none()
        });
        if let Some(running) = other {
            return Err(running);
        }
        let (send, ended) = oneshot::channel();
        let ticker = Arc::clone(self);
        tokio::spawn(async move {
            let ended = Arc::new(ticker.tick(this).await);
            ticker.record(&ended);
            ticker.running.send_replace(None);
            // The client may be gone.
            let _ = send.send(ended);
        });
        Ok(ended)
    }

    async fn tick(
        self: &Arc<Self>,
        RunningTick { began_at, asked_by, deadline }: RunningTick,
    ) -> Ended {
        let (watch, ticker) = (Stopwatch::start(), Arc::clone(self));
        // A task of its own catches a panic.
        let tick = tokio::spawn(async move {
            notices::tick(&ticker.worker, began_at, deadline, None).await.map_err(Failure::from)
        });
        let result = tick.await.unwrap_or_else(|_| {
            Err(Failure::of(Severity::Failed, "the tick panicked; the log has its words"))
        });
        let quiet = |report| tick::quiet_until(&self.worker, began_at, report);
        let quiet_until = result.as_ref().ok().and_then(quiet);
        Ended { began_at, asked_by, took: watch.elapsed(), result, quiet_until }
    }

    fn record(&self, ended: &Arc<Ended>) {
        ended.log();
        let now = self.worker.clock.now();
        let mut known = self.lock();
        let metrics = ended.result.as_ref().ok().map(Metrics::of_tick);
        known.totals.add(metrics.as_ref(), ended.is_good(), ended.began_at, ended.took);
        known.health.learn(&ended.result, now);
        known.last = Some(Arc::clone(ended));
    }

    /// The tick that runs now.
    pub(super) fn running(&self) -> Option<RunningTick> {
        *self.running.borrow()
    }

    /// Follows the beginnings and ends of ticks.
    pub(super) fn watch(&self) -> watch::Receiver<Option<RunningTick>> {
        self.running.subscribe()
    }

    /// Waits until no tick runs.
    pub(super) async fn idle(&self) {
        // The sender lives as long as this.
        let _ = self.watch().wait_for(Option::is_none).await;
    }

    pub(super) fn known(&self) -> TicksSeen {
        self.lock().clone()
    }

    /// Records when the schedule begins the next tick.
    pub(super) fn plan(&self, next_at: DateTime<Utc>) {
        self.lock().next_at = Some(next_at);
    }

    fn lock(&self) -> MutexGuard<'_, TicksSeen> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ended {
    pub(super) fn document(&self) -> Value {
        json!({
            "began_at": ui::instant(self.began_at),
            "asked_by": self.asked_by.word(),
            "elapsed_ms": whole_ms(self.took),
            "good": self.is_good(),
        })
    }

    pub(super) const fn took(&self) -> Duration {
        self.took
    }

    /// Logs every failure, and a line for the tick.
    fn log(&self) {
        let report = match &self.result {
            Ok(report) => report,
            Err(Failure { message, hint, .. }) => {
                tracing::error!(error = message, hint, "tick failed");
                return;
            }
        };
        for problem in &report.problems {
            let (error, hint) = (&problem.error, problem.hint.as_deref());
            tracing::error!(rollup = problem.rollup, error, hint, "rollup has a problem");
        }
        for slice in report.slices.iter().filter(|slice| slice.outcome == Outcome::Failed) {
            let (reason, hint) = (slice.reason.as_deref(), slice.hint.as_deref());
            let start = rfc3339(slice.start);
            tracing::error!(
                rollup = slice.rollup,
                slice.start = start,
                reason,
                hint,
                "slice failed"
            );
        }
        tracing::info!(
            asked_by = self.asked_by.word(),
            slices = report.slices.len(),
            left = report.left,
            problems = report.problems.len(),
            elapsed_ms = self.took.as_millis(),
            "tick ended"
        );
    }
}
