//! The decision whether work may start or continue.
//!
//! [`Gate`] asks the questions in the order of the module's table. Slices pass it before each
//! chunk, and comparisons before each piece. Callers that start, send or reopen slices pass it
//! first.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::Governor;
use super::pace::BESIDE_OTHERS;
use super::pace::pacer::Pacer;
use super::pace::quiet::Quiet;
use crate::checkpoint::{CheckpointError, Checkpoints, Control};
use crate::clients::db::Db;
use crate::config::NiceRatio;
use crate::model::clock::{Clock, Deadline};
use crate::model::not_now::{NotNow, Permit, Why};
use crate::model::slice::Slice;
use crate::model::text::cut;
use crate::source::reading::nap::Nap;
use crate::throttle::interrupt::Interrupt;

/// A pause is checked again this much later.
const PAUSE_POLL: TimeDelta = TimeDelta::seconds(5);

/// After a yield the slice may be tried again this much later.
pub(crate) const RETRY: TimeDelta = TimeDelta::seconds(15);

/// The work of a chunk while the pace is found, which is its whole time at full speed. A slice that
/// takes half as long again is still read in one, and so within a second.
const AUTO_CHUNK_MAX: Duration = Duration::from_millis(660);

/// The throttle of reading: the governor, if the application's database is read, and the effective
/// `nice_ratio`, which is the configured one or an operator's.
#[derive(Clone, Copy, Debug)]
pub struct Throttle<'g> {
    governor: Option<&'g Governor>,
    nice_ratio: NiceRatio,
    /// The rests of the next statement, as a multiple of its work.
    ratio: f64,
}

impl<'g> Throttle<'g> {
    /// With `governor`, and an operator's `nice_ratio` instead of the configured one.
    #[must_use]
    pub(crate) fn new(governor: Option<&'g Governor>, nice_ratio: Option<NiceRatio>) -> Self {
        const NONE: NiceRatio = NiceRatio::Fixed(0.0);
        let configured = governor.map_or(NONE, |governor| governor.settings().nice_ratio);
        let nice_ratio = nice_ratio.unwrap_or(configured);
        Self { governor, nice_ratio, ratio: 0.0 }.at_present_pace()
    }

    /// The throttle at the pace that its governor has found.
    #[must_use]
    pub(super) fn at_present_pace(self) -> Self {
        let ratio = match (self.nice_ratio, self.governor) {
            (NiceRatio::Auto, Some(governor)) => governor.pacer.ratio(),
            (nice_ratio, _) => nice_ratio.slowest(),
        };
        Self { ratio, ..self }
    }

    /// Whether the pace is one that was found for a source without other work.
    #[must_use]
    pub(crate) fn is_fast(&self) -> bool {
        self.pacer().is_some() && self.ratio < BESIDE_OTHERS
    }

    /// The finder of the pace, unless the pace is fixed.
    #[must_use]
    pub(super) fn pacer(&self) -> Option<&'g Pacer> {
        let is_auto = self.nice_ratio == NiceRatio::Auto;
        self.governor.filter(|_| is_auto).map(|governor| &governor.pacer)
    }

    /// The governor of the database that is read, if that is the application's.
    #[must_use]
    pub(crate) const fn governor(&self) -> Option<&'g Governor> {
        self.governor
    }

    /// The naps of the next chunk's statement.
    #[must_use]
    pub(crate) fn nap(&self) -> Option<Nap> {
        self.governor.and_then(|governor| governor.nap(self.ratio))
    }

    /// The factor by which naps lengthen a statement.
    #[must_use]
    pub(crate) fn stretch(&self) -> f64 {
        self.governor.map_or(1.0, |governor| governor.stretch(self.ratio))
    }

    /// The approximate time of a chunk, where `configured` is right for an idle source. A pace that
    /// is found may change between two statements, so that none lasts long.
    #[must_use]
    pub(crate) fn chunk_time(&self, configured: Duration) -> Duration {
        let configured = match self.pacer() {
            Some(_) => configured.min(AUTO_CHUNK_MAX),
            None => configured,
        };
        self.governor.map_or(configured, |governor| governor.chunk_time(configured))
    }

    /// Records the work of a chunk. The next chunk rests for it, unless its statement napped.
    pub(crate) fn chunk_read(&self, work: Duration, has_napped: bool) {
        if let Some(governor) = self.governor {
            governor.chunk_read(work, has_napped, self.ratio);
        }
    }
}

/// The limit of a reader's rest and wait before its statement.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Patience {
    /// Until this much time is left before the deadline, for the statement and its end.
    Until {
        /// The deadline.
        deadline: Deadline,
        /// The time to leave before the deadline.
        needed: Duration,
    },
    /// Rests fully, and waits at most this long.
    AtMost {
        /// The limit for a busy source.
        load: Duration,
        /// The limit for a slot.
        slot: Duration,
    },
}

impl Patience {
    pub(super) fn has_time_for(self, pause: Duration, clock: &dyn Clock) -> bool {
        match self {
            Self::Until { deadline, needed } => deadline.remaining(clock) >= pause + needed,
            Self::AtMost { .. } => true,
        }
    }

    fn bears(self, waited: Duration, why: &Why) -> bool {
        match (self, why) {
            (Self::Until { .. }, _) => true,
            (Self::AtMost { slot, .. }, Why::SlotsTaken { .. }) => waited <= slot,
            (Self::AtMost { load, .. }, _) => waited <= load,
        }
    }
}

/// The checks before work starts, and before each statement that reads.
#[derive(Debug)]
pub struct Gate<'w> {
    /// The worker's time.
    pub(crate) clock: &'w dyn Clock,
    /// Whether the stop was requested.
    pub(crate) interrupt: &'w Interrupt,
    /// The store of the operator's commands.
    pub(crate) checkpoints: &'w Checkpoints,
    /// The database to read.
    pub(crate) source: &'w Db,
    /// Its governor, if it is the application's database.
    pub(crate) governor: Option<&'w Governor>,
    /// The rollup that is worked on.
    pub(crate) rollup: &'w str,
    /// The start of the slice that is read. `None`: the work is on the whole rollup.
    pub(crate) slice_start: Option<DateTime<Utc>>,
    /// The start of the backfill to which the work belongs.
    pub(crate) backfill: Option<DateTime<Utc>>,
    /// How often in a row the source was too busy, and the total wait.
    pub(crate) waits: Waits,
}

/// How often in a row the source was too busy, and the total wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    tries: u32,
    waited: Duration,
}

impl<'w> Gate<'w> {
    /// Also checks that the slice that starts then is open.
    #[must_use]
    pub(crate) const fn for_slice(self, slice: Slice) -> Self {
        Self { slice_start: Some(slice.start()), ..self }
    }

    /// Whether work on the rollup may start. Checks for an interruption, the hours and the
    /// operator's commands, the seal of the slice among them. It sends no query to the source, so that a reason to wait does not wake
    /// it.
    ///
    /// # Errors
    /// The operator's commands cannot be read. Then no work starts.
    pub async fn may_start(&self) -> Result<Permit<Throttle<'w>>, CheckpointError> {
        match self.is_closed() {
            Some(closed) => Ok(Permit::NotNow(closed)),
            None => self.may_start_by(&self.checkpoints.control().await?),
        }
    }

    /// An interruption, or hours in which the source is left alone.
    fn is_closed(&self) -> Option<NotNow> {
        let now = self.clock.now();
        if self.interrupt.is_raised() {
            return Some(NotNow::until(Why::Interrupted, now));
        }
        self.governor.and_then(|it| it.closed(now, self.backfill.is_some()))
    }

    /// As [`Gate::may_start`], by the operator's commands that were read just now.
    ///
    /// # Errors
    /// The rollup's checkpoints were copied into another store.
    pub(crate) fn may_start_by(
        &self,
        control: &Control,
    ) -> Result<Permit<Throttle<'w>>, CheckpointError> {
        let is_backfill = self.backfill.is_some();
        control.refuse_moved(self.rollup)?;
        let seal = control.seal(self.rollup);
        if let Some(seal) = seal.filter(|seal| self.slice_start.is_some_and(|it| it < *seal)) {
            return Ok(Permit::NotNow(NotNow::because(Why::Sealed(seal))));
        }
        // The answer may have taken long, so quiet hours may have started in the meantime.
        if let Some(closed) = self.is_closed() {
            return Ok(Permit::NotNow(closed));
        }
        let now = self.clock.now();
        if let Some((at, begun)) = control.cancelled(self.rollup).zip(self.backfill)
            && begun <= at
        {
            return Ok(Permit::NotNow(NotNow::until(Why::Cancelled { at }, now)));
        }
        if let Some(pause) = control.paused(self.rollup, is_backfill, now) {
            let why = Why::Paused { since: pause.at, reason: cut(&pause.reason).into_owned() };
            let until = pause.until.map_or(now + PAUSE_POLL, |until| until.min(now + PAUSE_POLL));
            return Ok(Permit::NotNow(NotNow::until(why, until)));
        }
        if let Some((governor, pace)) = self.governor.zip(control.pace()) {
            let (nap_ms, probe_ms) = (pace.nap_ms, pace.probe_ms);
            governor.pacer.believe(Quiet { nap_ms, probe_ms, ..Quiet::default() });
        }
        let nice_ratio = control.nice_ratio(self.rollup, is_backfill);
        Ok(Permit::Given(Throttle::new(self.governor, nice_ratio)))
    }

    /// Whether the next statement may read. Rests for the one before it, asks [`Gate::may_start`],
    /// and then `throttle_query`. `known` is the recent answer of a [`Gate::may_start`], and
    /// replaces that call. The transaction that reads checks the load and takes a slot
    /// ([`Governor::enter`]).
    ///
    /// # Errors
    /// As [`Gate::may_start`].
    pub(crate) async fn permit(
        &self,
        known: Option<Throttle<'w>>,
        patience: Patience,
    ) -> Result<Permit<Throttle<'w>>, CheckpointError> {
        if self.interrupt.is_raised() {
            return Ok(Permit::NotNow(NotNow::until(Why::Interrupted, self.clock.now())));
        }
        let rest = self.governor.map_or(Duration::ZERO, Governor::take_rest);
        if !patience.has_time_for(rest, self.clock) {
            return Ok(Permit::NotNow(NotNow::because(Why::OutOfTime("budget spent".into()))));
        }
        self.interrupt.sleep(self.clock, rest).await;
        let throttle = match known {
            Some(throttle) => throttle,
            None => match self.may_start().await? {
                Permit::Given(throttle) => throttle,
                not_now @ Permit::NotNow(_) => return Ok(not_now),
            },
        };
        let throttled = match self.governor {
            Some(governor) => governor.throttled(self.source).await,
            None => None,
        };
        Ok(throttled.map_or(Permit::Given(throttle), |why| Permit::NotNow(NotNow::because(why))))
    }

    /// Waits until it makes sense to ask again, if `not_now` is likely to pass soon and `patience`
    /// allows the wait.
    ///
    /// # Errors
    /// `not_now` with the time of the next try. The turn ends.
    pub(crate) async fn wait(&mut self, not_now: NotNow, patience: Patience) -> Result<(), NotNow> {
        let Some(governor) = self.governor.filter(|_| not_now.why.is_load()) else {
            return Err(not_now);
        };
        let wait = Governor::wait_before(self.waits.tries);
        governor.note_wait(&not_now.why, wait);
        self.waits.tries += 1;
        self.waits.waited += wait;
        let has_time = patience.has_time_for(wait, self.clock);
        if not_now.why.is_short() && has_time && patience.bears(self.waits.waited, &not_now.why) {
            self.interrupt.sleep(self.clock, wait).await;
            return Ok(());
        }
        Err(NotNow { retry_at: Some(self.clock.now() + RETRY), ..not_now })
    }

    /// Whether the source was too busy at the last question.
    #[must_use]
    pub(crate) const fn has_waited(&self) -> bool {
        self.waits.tries > 0
    }

    /// Called after a statement has read. The next wait starts from zero.
    pub(crate) fn has_read(&mut self) {
        self.waits = Waits::default();
    }
}

/// Whether a tick may query the source. `wake_per_hour` lets the source sleep in between, and while
/// nothing is due. `is_due` tells whether the source is worth waking, and is polled only when its
/// time has come.
///
/// # Errors
/// The checkpoints cannot be read or written.
pub(crate) async fn may_wake<E: From<CheckpointError>>(
    governor: &Governor,
    checkpoints: &Checkpoints,
    now: DateTime<Utc>,
    is_due: impl Future<Output = Result<bool, E>>,
) -> Result<Permit<()>, E> {
    let Some(per_hour) = governor.settings().wake_per_hour else { return Ok(Permit::Given(())) };
    let interval = TimeDelta::hours(1) / i32::try_from(per_hour).unwrap_or(1).max(1);
    let since = now - interval;
    let asleep = |woken_at: DateTime<Utc>| {
        let until = woken_at + interval;
        Permit::NotNow(NotNow::until(Why::Asleep { until, per_hour }, until))
    };
    let woken_at = checkpoints.control().await?.woken_at();
    if let Some(woken_at) = woken_at.filter(|woken_at| *woken_at > since) {
        return Ok(asleep(woken_at));
    }
    if is_due.await? && !checkpoints.wake(since, now).await? {
        // Another tick has woken the source, and works there.
        return Ok(asleep(now));
    }
    Ok(Permit::Given(()))
}
