//! Decides the disposition of a message after its slice was worked on. Pure. docs/EVENTS.md has the
//! same rules as a table.

use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::work::report::{Outcome, SliceReport};

/// Deliveries of a message with an unknown rollup or slice. A newer version of the function may
/// have sent it.
const UNKNOWN_MAX: u32 = 3;

/// After this many deliveries a message that only lacked time is acknowledged. Its slice is due,
/// and the tick sends it again. The limit is below the queue's `maxReceiveCount`, so that only
/// invalid messages and those that kill their worker become dead letters.
pub const DELIVERIES_MAX: u32 = 15;

/// This much later a lease is over by every worker's clock.
const CLOCKS: Duration = Duration::from_secs(1);

/// First wait for a server that is out of reach. Each delivery doubles it.
const OUTAGE_FIRST: Duration = Duration::from_secs(30);

/// The longest of these waits.
const OUTAGE_MAX: Duration = Duration::from_secs(900);

/// The disposition of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Acknowledged. The slice is done, or the next tick knows better when it is due.
    Over,
    /// It comes back after this.
    Back(Duration),
    /// A dead letter now, as every further delivery would fail.
    Dead,
}

/// The disposition of the message of a slice with this `report`, delivered for the `deliveries`-th
/// time.
#[must_use]
pub fn of_slice(report: &SliceReport, deliveries: u32, now: DateTime<Utc>) -> Disposition {
    let until = report.retry_at.map(|at| (at - now).to_std().unwrap_or_default() + CLOCKS);
    match report.outcome {
        Outcome::Succeeded | Outcome::AlreadySucceeded | Outcome::Sealed | Outcome::Exhausted => {
            Disposition::Over
        }
        // A pause lasts for hours. The tick sends the slice again when the pause is over.
        _ if report.held_back().is_some() => Disposition::Over,
        // The slice has just become exhausted.
        Outcome::Failed if until.is_none() => Disposition::Over,
        _ if deliveries >= DELIVERIES_MAX => Disposition::Over,
        Outcome::Leased | Outcome::Waiting | Outcome::Failed | Outcome::Yielded => {
            Disposition::Back(until.unwrap_or_default())
        }
        Outcome::Stale | Outcome::Fenced => Disposition::Back(Duration::ZERO),
    }
}

/// The disposition of a message whose slice could not be started: a server was out of reach, or a
/// rollup needs attention.
#[must_use]
pub fn of_trouble(deliveries: u32) -> Disposition {
    if deliveries >= DELIVERIES_MAX {
        return Disposition::Over;
    }
    let doublings = deliveries.saturating_sub(1).min(5);
    Disposition::Back((OUTAGE_FIRST * (1 << doublings)).min(OUTAGE_MAX))
}

/// The disposition of a message that requests something else than a slice, or names an unknown
/// rollup or slice.
#[must_use]
pub(crate) fn of_misunderstood(is_slice: bool, deliveries: u32) -> Disposition {
    match is_slice && deliveries < UNKNOWN_MAX {
        true => of_trouble(deliveries),
        false => Disposition::Dead,
    }
}

#[cfg(test)]
mod tests {
    use chrono::TimeDelta;

    use super::*;
    use crate::model::not_now::{NotNow, Why};

    fn report(outcome: Outcome, retry_at: Option<DateTime<Utc>>) -> SliceReport {
        let start = DateTime::UNIX_EPOCH;
        SliceReport {
            rollup: "daily".into(),
            start,
            end: start,
            outcome,
            attempt: Some(1),
            reason: None,
            hint: None,
            retry_at,
            completion: None,
            not_now: None,
            elapsed_ms: None,
            workload_units: None,
        }
    }

    /// The table of docs/EVENTS.md.
    #[test]
    fn each_outcome_has_its_disposition() {
        let now = DateTime::UNIX_EPOCH;
        let soon = Some(now + TimeDelta::seconds(40));
        let back = |seconds| Disposition::Back(Duration::from_secs(seconds));
        for (outcome, retry_at, expected) in [
            (Outcome::Succeeded, None, Disposition::Over),
            (Outcome::AlreadySucceeded, None, Disposition::Over),
            (Outcome::Sealed, None, Disposition::Over),
            (Outcome::Exhausted, None, Disposition::Over),
            (Outcome::Failed, None, Disposition::Over),
            (Outcome::Failed, soon, back(41)),
            (Outcome::Leased, soon, back(41)),
            (Outcome::Waiting, soon, back(41)),
            (Outcome::Yielded, soon, back(41)),
            (Outcome::Yielded, None, back(0)),
            (Outcome::Stale, None, back(0)),
            (Outcome::Fenced, None, back(0)),
        ] {
            assert_eq!(of_slice(&report(outcome, retry_at), 1, now), expected, "{outcome:?}");
        }
    }

    #[test]
    fn what_is_paused_or_comes_too_often_is_left_to_the_tick() {
        let now = DateTime::UNIX_EPOCH;
        let why = Why::Paused { since: now, reason: String::new() };
        let not_now = Some(NotNow::until(why, now));
        let paused = SliceReport { not_now, ..report(Outcome::Yielded, Some(now)) };
        assert_eq!(of_slice(&paused, 1, now), Disposition::Over);
        let yielded = report(Outcome::Yielded, None);
        assert_eq!(of_slice(&yielded, DELIVERIES_MAX - 1, now), Disposition::Back(Duration::ZERO));
        assert_eq!(of_slice(&yielded, DELIVERIES_MAX, now), Disposition::Over);
    }

    #[test]
    fn what_is_not_understood_is_a_dead_letter_at_once() {
        assert_eq!(of_misunderstood(false, 1), Disposition::Dead);
        let fates: Vec<_> = (1..=UNKNOWN_MAX).map(|n| of_misunderstood(true, n)).collect();
        assert_eq!(fates, [of_trouble(1), of_trouble(2), Disposition::Dead]);
    }

    #[test]
    fn an_outage_is_waited_for_ever_longer_and_not_for_ever() {
        let waits: Vec<_> = (1..=DELIVERIES_MAX).map(of_trouble).collect();
        assert_eq!(waits[0], Disposition::Back(OUTAGE_FIRST));
        assert_eq!(waits[3], Disposition::Back(OUTAGE_FIRST * 8));
        assert_eq!(waits[10], Disposition::Back(OUTAGE_MAX));
        assert_eq!(waits.last(), Some(&Disposition::Over));
    }
}
