//! The only place that reads the system's time.
//!
//! All other code receives a [`Clock`] or a [`Deadline`]. So a test controls the time, and a
//! remaining budget can never be confused with a point in time.

use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use futures_util::future::{BoxFuture, FutureExt as _};

/// Reads the present instant, and lets time pass.
pub trait Clock: Debug + Send + Sync {
    /// The present instant, in UTC.
    fn now(&self) -> DateTime<Utc>;

    /// Ends when `time` has passed. Used for rests, and for waits before another try.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(time).boxed()
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    fn now(&self) -> DateTime<Utc> {
        Utc::now() + crate::testing::faults::clock_jump()
    }
}

/// A clock that stands still: for `tallymark run --at TIME` and tests.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<DateTime<Utc>>>);

impl ManualClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn new(now: DateTime<Utc>) -> Self {
        Self(Arc::new(Mutex::new(now)))
    }

    /// Moves the clock forwards by `by`.
    pub fn advance(&self, by: Duration) {
        let mut now = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *now += TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        *self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A clock on which a sleep takes no real time and only moves the clock forwards. Real work still
/// takes its time. So a test sees in a second how long hours of rests would be.
#[derive(Clone, Debug)]
pub struct VirtualClock {
    began_at: DateTime<Utc>,
    watch: Stopwatch,
    slept: Arc<Mutex<Duration>>,
}

impl VirtualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new(now: DateTime<Utc>) -> Self {
        Self { began_at: now, watch: Stopwatch::start(), slept: Arc::default() }
    }

    /// The sum of all sleeps.
    #[must_use]
    pub fn slept(&self) -> Duration {
        *self.slept.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> DateTime<Utc> {
        let passed = self.watch.elapsed().saturating_add(self.slept());
        let passed = TimeDelta::from_std(passed).unwrap_or(TimeDelta::MAX);
        self.began_at.checked_add_signed(passed).unwrap_or(LAST)
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let mut slept = self.slept.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        *slept = slept.saturating_add(time);
        drop(slept);
        tokio::task::yield_now().boxed()
    }
}

/// The last instant whose year has four digits, 9999-12-31. Later times count as infinite, because
/// sums with them overflow and stores refuse them.
pub(crate) const LAST: DateTime<Utc> = match DateTime::from_timestamp(253_402_214_400, 0) {
    Some(last) => last,
    None => DateTime::<Utc>::MAX_UTC,
};

/// The instant by which an invocation must have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(DateTime<Utc>);

impl Deadline {
    /// The deadline `at`.
    #[must_use]
    pub fn at(at: DateTime<Utc>) -> Self {
        Self(at.min(LAST))
    }

    /// The deadline `budget` from now.
    #[must_use]
    pub fn after(clock: &dyn Clock, budget: Duration) -> Self {
        let budget = TimeDelta::from_std(budget).unwrap_or(TimeDelta::MAX);
        Self::at(clock.now().checked_add_signed(budget).unwrap_or(LAST))
    }

    #[must_use]
    pub(crate) const fn instant(self) -> DateTime<Utc> {
        self.0
    }

    /// The time left until the deadline, or zero once it has passed. Zero means "no time", never
    /// "no limit".
    #[must_use]
    pub fn remaining(self, clock: &dyn Clock) -> Duration {
        (self.0 - clock.now()).to_std().unwrap_or(Duration::ZERO)
    }
}

/// The whole milliseconds of `time`.
#[must_use]
pub(crate) fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Measures elapsed time by the monotonic clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts measuring.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// `at` in UTC, as RFC 3339 has it. A fraction of a second stands only where there is one.
#[must_use]
pub(crate) fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

/// `at` in UTC, as RFC 3339 has it, cut to whole seconds: `2026-02-10T00:00:00Z`.
#[must_use]
pub(crate) fn rfc3339_seconds(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_passed_deadline_has_no_time_left() {
        let clock = ManualClock::new(DateTime::UNIX_EPOCH);
        let deadline = Deadline::after(&clock, Duration::from_secs(2));
        assert_eq!(deadline.remaining(&clock), Duration::from_secs(2));
        clock.advance(Duration::from_secs(3));
        assert_eq!(deadline.remaining(&clock), Duration::ZERO);
    }

    #[test]
    fn a_deadline_at_the_end_of_time_can_be_reckoned_with() {
        let clock = ManualClock::new(DateTime::UNIX_EPOCH);
        let ages = Deadline::after(&clock, Duration::MAX);
        assert_eq!(ages, Deadline::at(DateTime::<Utc>::MAX_UTC));
        assert_eq!(ages.instant().to_rfc3339(), "9999-12-31T00:00:00+00:00");
    }
}
