//! The schedule of `--every`: a tick whenever something is due.
//!
//! Between ticks no server is contacted. After a tick that found work, or where the source may hold
//! late changes, the next one begins an interval later. Otherwise the schedule sleeps until the next
//! slice can be read, at most for [`SLEEP_MAX`].

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::ticker::{AskedBy, Ticker};
use crate::model::clock::{Clock, LAST, Stopwatch};

/// The longest sleep, as an operator's command may have left work behind.
const SLEEP_MAX: TimeDelta = TimeDelta::hours(1);

/// A sleep looks at the clock this often, as the machine may be suspended meanwhile.
const STEP: Duration = Duration::from_secs(10);

/// Ticks for ever. However late a tick is, the next one begins an interval after its begin.
pub(super) async fn keep(ticker: &Arc<Ticker>, every: Duration) {
    let mut running = ticker.watch();
    loop {
        // If a request's tick runs, it does the same work.
        let _ = ticker.start(AskedBy::Schedule, ticker.budget);
        loop {
            let _ = running.wait_for(Option::is_none).await;
            let last = ticker.known().last;
            let Some(last) = last else { break };
            let next_at = next(last.began_at, every, last.quiet_until);
            ticker.plan(next_at);
            tokio::select! {
                () = until(&*ticker.worker.clock, next_at) => break,
                // A request's tick may leave work or finish it.
                _ = running.changed() => {}
            }
        }
    }
}

/// When to begin a tick after one that began at `last`.
fn next(last: DateTime<Utc>, every: Duration, quiet_until: Option<DateTime<Utc>>) -> DateTime<Utc> {
    let every = TimeDelta::from_std(every).unwrap_or(TimeDelta::MAX);
    let regular = last.checked_add_signed(every).unwrap_or(LAST);
    quiet_until.map_or(regular, |quiet| regular.max(quiet.min(last + SLEEP_MAX)))
}

/// Sleeps until the clock shows `at`. A clock that is set back does not make it longer.
async fn until(clock: &dyn Clock, at: DateTime<Utc>) {
    let (watch, wait) = (Stopwatch::start(), (at - clock.now()).to_std().unwrap_or_default());
    loop {
        let left = (at - clock.now()).to_std().unwrap_or_default();
        let left = left.min(wait.saturating_sub(watch.elapsed()));
        if left.is_zero() {
            return;
        }
        clock.sleep(left.min(STEP)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::clock::VirtualClock;

    fn at(minute: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(minute * 60, 0).unwrap()
    }

    #[test]
    fn a_tick_begins_when_something_is_due_and_never_more_often_than_asked() {
        let every = Duration::from_secs(300);
        assert_eq!(next(at(0), every, None), at(5), "the tick found work");
        assert_eq!(next(at(0), every, Some(at(33))), at(33), "the next slice can be read then");
        assert_eq!(next(at(0), every, Some(at(2))), at(5));
        assert_eq!(next(at(0), every, Some(at(600))), at(60), "an operator may have left work");
        assert_eq!(next(at(0), Duration::from_secs(7200), Some(at(600))), at(120));
        assert_eq!(next(at(0), Duration::MAX, None), LAST);
    }

    #[tokio::test]
    async fn a_sleep_that_is_over_ends_at_once() {
        let clock = VirtualClock::new(at(10));
        until(&clock, at(3)).await;
        assert_eq!(clock.slept(), Duration::ZERO);
        until(&clock, at(40)).await;
        assert!(clock.now() >= at(40));
    }
}
