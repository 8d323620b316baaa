//! The governor of one source in one process. It knows the source's slots, its load, and the rests
//! after its chunks.
//!
//! Slots are advisory locks on the source itself. They limit the number of concurrent chunks of all
//! workers on all machines. A worker that dies frees its slot with its transaction.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::Row as _;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clients::db::{Access, Db, DbError, Tx};
use crate::config::{Settings, Signal};
use crate::model::clock::Stopwatch;
use crate::model::hint::Fault;
use crate::model::not_now::{NotNow, Why};
use crate::model::sql::literal;
use crate::model::text::cut;

use super::pace::Hold;
use super::pace::pacer::Pacer;
use super::signals::{Sample, Unreadable};
use super::watch::Readers;
use crate::source::reading::nap::Nap;

/// The first key of the slots' advisory locks: "tall".
const SLOT_CLASS: i32 = 0x7461_6c6c;

/// Statistics that are read more often than this show the same numbers.
const RATE_SECONDS_MIN: f64 = 1.0;

/// Rates over more than twice this time are outdated.
const RATE_SECONDS_MAX: f64 = 30.0;

/// Time limit of `throttle_query`, which should be a quick check.
const THROTTLE_TIMEOUT: Duration = Duration::from_secs(1);

/// Under pressure chunks are narrower and pauses longer, by at most this factor.
const PRESSURE_MAX: f64 = 8.0;

/// The share of it that is removed by each chunk that the source accepts.
const PRESSURE_STEP: f64 = 0.25;

/// First wait before a busy source is asked again. Each further wait is twice as long.
const WAIT_FIRST: Duration = Duration::from_millis(100);

/// The longest of these waits.
const WAIT_MAX: Duration = Duration::from_secs(2);

/// After this wait for a slot, its holder is reported, as workers take turns within seconds.
const HOLDER_AFTER: Duration = Duration::from_secs(10);

/// Shortest rest that is reported. Shorter ones are over before they are read.
const REST_TOLD_MIN: Duration = Duration::from_secs(1);

/// The governor of one source, in one process.
#[derive(Debug)]
pub struct Governor {
    settings: Settings,
    state: Mutex<GovernorState>,
    /// As many as slots: chunks of this process take turns without asking the source.
    turns: Semaphore,
    waits: tokio::sync::watch::Sender<Option<String>>,
    /// Finds the pace, where none is fixed.
    pub(crate) pacer: Pacer,
    /// The transactions that read.
    pub(super) readers: Readers,
}

#[derive(Debug)]
struct GovernorState {
    /// The latest sample for rates, and the one before it.
    samples: [Option<Sample>; 2],
    /// The factor by which chunks are narrower and rests longer. It doubles when the source is busy
    /// and falls step by step otherwise, like congestion control in networks.
    pressure: f64,
    /// The rests due after chunks, with their start and length. There are as many as concurrent
    /// chunks.
    rests: Vec<(Stopwatch, Duration)>,
    /// The time spent waiting for a slot since the last one was taken.
    slot_waited: Duration,
}

impl Governor {
    #[must_use]
    pub(crate) fn new(settings: Settings) -> Self {
        let (samples, rests, slot_waited) = ([None, None], vec![], Duration::ZERO);
        let state = GovernorState { samples, pressure: 1.0, rests, slot_waited };
        let (waits, _) = tokio::sync::watch::channel(None);
        let turns = Semaphore::new(settings.slots as usize);
        let pacer = Pacer::new(settings.nice_min);
        let readers = Readers::default();
        Self { settings, state: Mutex::new(state), turns, waits, pacer, readers }
    }

    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Reports the reason of the process's wait, whenever it changes.
    #[must_use]
    pub fn waits(&self) -> tokio::sync::watch::Receiver<Option<String>> {
        self.waits.subscribe()
    }

    /// Reports the pace in words, whenever another one is found.
    #[must_use]
    pub(crate) fn pace(&self) -> tokio::sync::watch::Receiver<Option<String>> {
        self.pacer.told()
    }

    /// Looks at the load of `source` once.
    ///
    /// # Errors
    /// The server failed. Then the pace is the slow one.
    pub async fn look(&self, source: &Db) -> Result<(), DbError> {
        self.pacer.look(source).await
    }

    /// The pace that was found last, and what holds it. `None`: nothing was looked at.
    #[must_use]
    pub fn found_pace(&self) -> Option<(f64, Hold)> {
        self.pacer.last()
    }

    /// The hold if the hours forbid work at `now`. `is_backfill` says whether the work belongs to a
    /// backfill.
    #[must_use]
    pub(crate) fn closed(&self, now: DateTime<Utc>, is_backfill: bool) -> Option<NotNow> {
        if let Some(quiet) = self.settings.quiet_hours.filter(|hours| hours.contain(now)) {
            let why = Why::QuietHours(quiet.to_string());
            return Some(NotNow::until(why, quiet.next_change(now)));
        }
        let window = self.settings.window.filter(|hours| is_backfill && !hours.contain(now))?;
        let why = Why::OutsideWindow(window.to_string());
        Some(NotNow::until(why, window.next_change(now)))
    }

    /// The approximate time of a chunk, where `configured` is right for an idle source.
    #[must_use]
    pub(crate) fn chunk_time(&self, configured: Duration) -> Duration {
        configured.div_f64(self.state().pressure)
    }

    /// Takes the shortest of the due rests, and returns the rest of its time.
    #[must_use]
    pub(crate) fn take_rest(&self) -> Duration {
        let mut state = self.state();
        let left = |(watch, rest): &(Stopwatch, Duration)| rest.saturating_sub(watch.elapsed());
        let shortest = (0..state.rests.len()).min_by_key(|place| left(&state.rests[*place]));
        let rest = shortest.map_or(Duration::ZERO, |place| left(&state.rests.swap_remove(place)));
        drop(state);
        if rest >= REST_TOLD_MIN {
            self.report_wait(Some(&format!("a rest of {} s (nice_ratio)", rest.as_secs())));
        }
        rest
    }

    /// The present result of [`Governor::take_rest`], without taking it.
    #[must_use]
    pub(crate) fn rest_left(&self) -> Duration {
        let left = |(watch, rest): &(Stopwatch, Duration)| rest.saturating_sub(watch.elapsed());
        self.state().rests.iter().map(left).min().unwrap_or_default()
    }

    /// The naps of the next chunk's statement.
    #[must_use]
    pub(super) fn nap(&self, nice_ratio: f64) -> Option<Nap> {
        let ratio = nice_ratio * self.state().pressure;
        Nap::by_ratio(ratio).filter(|_| self.settings.naps)
    }

    /// The factor by which naps lengthen a statement.
    #[must_use]
    pub(super) fn stretch(&self, nice_ratio: f64) -> f64 {
        if self.settings.naps { 1.0 + nice_ratio * self.state().pressure } else { 1.0 }
    }

    /// Records the work of a chunk. The next chunk rests for it, unless its statement napped. The
    /// pressure falls by a step.
    pub(super) fn chunk_read(&self, work: Duration, has_napped: bool, nice_ratio: f64) {
        self.pacer.has_read(work, nice_ratio);
        let mut state = self.state();
        let rest = work.mul_f64(nice_ratio * state.pressure);
        if !rest.is_zero() && !has_napped {
            state.rests.push((Stopwatch::start(), rest));
        }
        state.pressure = (state.pressure - PRESSURE_STEP).max(1.0);
        drop(state);
        self.report_wait(None);
    }

    /// The wait before the source is asked again for the `tries`th time.
    pub(super) fn wait_before(tries: u32) -> Duration {
        let wait = WAIT_FIRST.saturating_mul(1 << tries.min(8)).min(WAIT_MAX);
        // Workers that were refused together should come back at different times.
        wait.mul_f64(0.5 + fastrand::f64() / 2.0)
    }

    /// Records and logs that a worker waits this long for this reason.
    pub(super) fn note_wait(&self, why: &Why, wait: Duration) {
        self.report_wait(Some(&why.to_string()));
        if matches!(why, Why::SlotsTaken { .. }) {
            self.state().slot_waited += wait;
        }
    }

    /// Reports the reason of the process's wait, or its end.
    fn report_wait(&self, reason: Option<&str>) {
        self.waits.send_if_modified(|told| {
            if told.as_deref() == reason {
                return false;
            }
            if let Some(reason) = reason {
                tracing::info!(reason, "waiting for the source");
            }
            *told = reason.map(str::to_owned);
            true
        });
    }

    /// Runs the configured `throttle_query`, if there is one. Returns why work has to wait, or why
    /// the query failed.
    pub(crate) async fn throttled(&self, source: &Db) -> Option<Why> {
        let query = self.settings.throttle_query.as_ref()?;
        match throttle_answer(source, query).await {
            Ok(answer) => {
                let answer = answer?;
                self.busy();
                Some(Why::ThrottleQuery(answer))
            }
            Err(error) => Some(Why::Unreadable(Fault::of(&error).at("throttle_query failed"))),
        }
    }

    /// Waits until fewer chunks of this process than slots are being read, at most for `limit`.
    /// `None`: the time has passed, and [`Governor::enter`] finds the slots taken. The chunk keeps
    /// its turn until it drops the permit.
    pub(crate) async fn turn(&self, limit: Duration) -> Option<SemaphorePermit<'_>> {
        tokio::time::timeout(limit, self.turns.acquire()).await.ok()?.ok()
    }

    /// Takes a slot for `tx`, which will read a chunk, if the source's load allows it. Otherwise
    /// returns the reason, and the caller rolls `tx` back.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn enter(&self, tx: &mut Tx) -> Result<Option<Why>, DbError> {
        let sample = self.sample(tx).await?;
        if let Err(why) = self.remember_and_judge(&sample) {
            return Ok(Some(why));
        }
        if sample.slot.is_some() {
            self.state().slot_waited = Duration::ZERO;
            self.readers.add(tx.canceller(), self.settings.slots);
            return Ok(None);
        }
        let has_waited = self.state().slot_waited >= HOLDER_AFTER;
        let holders = if has_waited { self.holders(tx).await? } else { Vec::new() };
        Ok(Some(self.taken(holders)))
    }

    /// The message that all slots are taken, with the known holders.
    const fn taken(&self, holders: Vec<String>) -> Why {
        Why::SlotsTaken { slots: self.settings.slots, holders }
    }

    /// The sessions that hold the source's slots, each as text, such as `pid 4711 (role app, psql),
    /// since 2026-02-10T00:00:00Z`.
    ///
    /// # Errors
    /// The server failed.
    async fn holders(&self, tx: &mut Tx) -> Result<Vec<String>, DbError> {
        const DOING: &str = "looking for who holds the slots";
        let slots = self.settings.slots;
        let sql = format!(include_str!("holders.sql"), class = SLOT_CLASS, slots = slots);
        let rows = tx.rows(DOING, sql).await?;
        let holders = rows.iter().map(|row| row.try_get("who")).collect::<Result<_, _>>();
        holders.map_err(|source| tx.error(DOING, source))
    }

    /// The present value of every limited signal, in words, for an operator.
    ///
    /// # Errors
    /// The server failed.
    pub(crate) async fn describe_load(
        &self,
        tx: &mut Tx,
    ) -> Result<(Vec<String>, Option<Why>), DbError> {
        let sample = self.sample(tx).await?;
        let mut why = self.remember_and_judge(&sample).err();
        if why.is_none() && sample.slot.is_none() {
            why = Some(self.taken(self.holders(tx).await?));
        }
        let limits = [&self.settings.max_load, &self.settings.critical_load];
        let before = self.state().samples[0].clone();
        Ok((sample.described(before.as_ref(), &limits), why))
    }

    async fn sample(&self, tx: &mut Tx) -> Result<Sample, DbError> {
        const DOING: &str = "asking for the load";
        let Settings { slots, max_load, critical_load, .. } = &self.settings;
        let asked = |signal: Signal| match max_load.has(signal) || critical_load.has(signal) {
            true => signal.sql(),
            false => "NULL",
        };
        let sql = format!(
            include_str!("enter.sql"),
            first = fastrand::u32(0..*slots),
            slots = slots,
            class = SLOT_CLASS,
            active = asked(Signal::Active),
            waiting = asked(Signal::Waiting),
            transactions = asked(Signal::Transactions),
            blocks = asked(Signal::Blocks),
            replica_lag_ms = asked(Signal::ReplicaLagMs),
        );
        let watch = Stopwatch::start();
        let row = tx.ask_row(DOING, sql).await?;
        let probe_ms = watch.elapsed().as_secs_f64() * 1e3;
        Sample::read(&row, probe_ms).map_err(|source| tx.error(DOING, source))
    }

    /// Stores the sample for the next rate, and compares it with the limits.
    fn remember_and_judge(&self, sample: &Sample) -> Result<(), Why> {
        let mut state = self.state();
        let is_due = |before: &Sample| sample.since(before) >= RATE_SECONDS_MIN;
        if state.samples[1].as_ref().is_some_and(|old| sample.since(old) > RATE_SECONDS_MAX) {
            // The mean since then says little about the present.
            state.samples = [None, None];
        }
        if state.samples[1].as_ref().is_none_or(is_due) {
            state.samples.swap(0, 1);
            state.samples[1] = Some(sample.clone());
        }
        // If the newest is this one or too young, use the one before it.
        let before = state.samples[0].clone();
        drop(state);
        let unreadable = |error: &Unreadable| match error {
            Unreadable::NotYet => Why::NoRateYet,
            Unreadable::Denied { .. } | Unreadable::Empty { .. } => {
                Why::Unreadable(Fault::of(error))
            }
        };
        let critical = sample.passed(before.as_ref(), &self.settings.critical_load);
        if let Some(passed) = critical.map_err(|error| unreadable(&error))? {
            self.busy();
            return Err(Why::CriticalLoad(passed));
        }
        let max = sample.passed(before.as_ref(), &self.settings.max_load);
        if let Some(passed) = max.map_err(|error| unreadable(&error))? {
            self.busy();
            return Err(Why::Load(passed));
        }
        Ok(())
    }

    fn busy(&self) {
        let mut state = self.state();
        state.pressure = (state.pressure * 2.0).min(PRESSURE_MAX);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, GovernorState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer of `query`, if it means wait.
async fn throttle_answer(source: &Db, query: &str) -> Result<Option<String>, DbError> {
    const DOING: &str = "asking throttle_query";
    let mut tx = source.begin(Access::ReadOnly, THROTTLE_TIMEOUT, "throttle_query").await?;
    // As text, for any type.
    let sql = format!("SELECT (SELECT x FROM (\n{query}\n) AS one(x))::text AS answer");
    let row = tx.row(DOING, sql).await?;
    let answer: Option<String> = row.try_get("answer").map_err(|source| tx.error(DOING, source))?;
    tx.rollback().await?;
    let is_go = |answer: &str| match answer.parse::<f64>() {
        Ok(number) => number <= 0.0,
        Err(_) => matches!(answer, "" | "f" | "false"),
    };
    Ok(answer.filter(|answer| !is_go(answer)).map(|answer| literal(&cut(&answer))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DailyHours, NiceRatio};

    fn nice(nice_ratio: f64) -> Governor {
        let nice_ratio = NiceRatio::Fixed(nice_ratio);
        Governor::new(Settings { nice_ratio, ..Settings::default() })
    }

    #[test]
    fn a_chunk_earns_one_rest() {
        let governor = nice(2.0);
        assert_eq!(governor.take_rest(), Duration::ZERO);
        governor.chunk_read(Duration::from_secs(100), false, 2.0);
        let rest = governor.take_rest();
        assert!(rest > Duration::from_secs(190) && rest <= Duration::from_secs(200), "{rest:?}");
        assert_eq!(governor.take_rest(), Duration::ZERO);
        governor.chunk_read(Duration::from_secs(100), false, 0.0);
        assert_eq!(governor.take_rest(), Duration::ZERO);
    }

    #[test]
    fn pressure_doubles_and_is_taken_back_step_by_step() {
        let (governor, second) = (nice(1.0), Duration::from_secs(1));
        for _ in 0..9 {
            governor.busy();
        }
        assert_eq!(governor.chunk_time(second), second.div_f64(PRESSURE_MAX));
        for _ in 0..4 {
            governor.chunk_read(Duration::ZERO, false, 1.0);
        }
        assert_eq!(governor.chunk_time(second), second.div_f64(PRESSURE_MAX - 1.0));
        for _ in 0..99 {
            governor.chunk_read(Duration::ZERO, false, 1.0);
        }
        assert_eq!(governor.chunk_time(second), second);
    }

    #[test]
    fn quiet_hours_hold_all_and_the_window_holds_backfills() {
        let hours = |text| DailyHours::parse(text, chrono_tz::Tz::UTC);
        let governor = Governor::new(Settings {
            window: hours("22:00-06:00"),
            quiet_hours: hours("02:00-03:00"),
            ..Settings::default()
        });
        let closed = |time: &str, is_backfill| {
            governor
                .closed(format!("2026-01-01T{time}:00Z").parse().unwrap(), is_backfill)
                .is_some()
        };
        assert_eq!((closed("01:00", true), closed("01:00", false)), (false, false));
        assert_eq!((closed("02:30", true), closed("02:30", false)), (true, true));
        assert_eq!((closed("12:00", true), closed("12:00", false)), (true, false));
    }
}
