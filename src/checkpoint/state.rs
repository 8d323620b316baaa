//! The life of a slice: the states, the events, and one total function between them.
//!
//! [`next`] is the specification. The conditions that [`super::Checkpoints`] gives to its store say
//! the same about stored items. A randomised test compares the two.

use crate::model::clock::rfc3339;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

/// Failures after which a slice waits for an operator, unless configured otherwise. With the
/// backoff below, five tries span about eight minutes. That is long enough for a failover of the
/// database, and short enough that a broken definition does not waste tries all night.
pub const FAILURES_MAX_DEFAULT: u32 = 5;
/// Wait after the first failure, about the time that a database needs to restart.
const BACKOFF_FIRST: Duration = Duration::from_secs(30);
/// Longest wait, before jitter. After an hour's outage the slices are done within an hour of the
/// database's return.
const BACKOFF_MAX: Duration = Duration::from_secs(3600);
/// The share by which the jitter varies a wait. It is wide, because a database that goes away fails
/// all slices of a backfill in the same second.
const BACKOFF_JITTER: f64 = 0.5;

/// The state of a slice that has a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A worker holds the lease, or died holding it.
    Running,
    /// The rollup holds the slice's result.
    Succeeded,
    /// The last attempt failed. It is tried again until the failures are exhausted.
    Failed,
    /// The last attempt yielded without a failure: budget spent, not settled, governor.
    Yielded,
    /// The slice must run again: late data, a changed definition, a replay.
    Stale,
}

impl State {
    pub(crate) const ALL: [Self; 5] =
        [Self::Running, Self::Succeeded, Self::Failed, Self::Yielded, Self::Stale];

    /// The word that is stored in the checkpoint and shown in output.
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Yielded => "yielded",
            Self::Stale => "stale",
        }
    }

    #[must_use]
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// The part of a checkpoint that decides the next transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    pub state: State,
    /// The fencing token: the number of claims so far.
    pub attempt: u64,
    /// The end of a running slice's lease.
    pub lease_until: Option<DateTime<Utc>>,
    /// Failures since the last success or reopening.
    pub failures: u32,
    /// When to try again. It binds a failed slice, and is advice to the planner for a yielded one.
    pub retry_at: Option<DateTime<Utc>>,
    /// How often the slice was reopened.
    pub dirty: u64,
    /// The value of `dirty` that the latest claim saw.
    pub dirty_seen: u64,
}

/// An event in the life of a slice.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    /// A worker requests the slice.
    Claim {
        /// The end of the requested lease.
        lease_until: DateTime<Utc>,
    },
    /// The worker of `attempt` has committed the slice's result.
    Complete {
        /// The attempt that the worker's lease carries.
        attempt: u64,
    },
    /// The worker of `attempt` failed.
    Fail {
        /// The attempt that the worker's lease carries.
        attempt: u64,
        /// Whether another try can help. Otherwise the failures count as exhausted.
        retryable: bool,
        /// The position of the next try in the range of possible waits, from 0 to 1.
        jitter: f64,
    },
    /// The worker of `attempt` yields without a failure.
    Yield {
        /// The attempt that the worker's lease carries.
        attempt: u64,
        /// When another try makes sense.
        retry_at: Option<DateTime<Utc>>,
    },
    /// Late data, a changed definition, or a replay.
    Reopen,
}

/// Why an event is illegal for a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// Claim of a slice that another worker holds.
    #[error("leased until {}", rfc3339(*.until))]
    Leased {
        /// The end of its lease.
        until: DateTime<Utc>,
    },
    /// Claim of a finished slice.
    #[error("already succeeded")]
    Succeeded,
    /// Claim of a failed slice before its time.
    #[error("failed {}, waits until {}", times(*.failures), rfc3339(*.retry_at))]
    Backoff {
        /// When it may be claimed.
        retry_at: DateTime<Utc>,
        /// Failures so far.
        failures: u32,
    },
    /// Claim of a slice that failed too often.
    #[error("failed {}, exhausted: replay the slice to reopen it", times(*.failures))]
    Exhausted {
        /// Failures so far.
        failures: u32,
    },
    /// The result of an outdated attempt.
    #[error("attempt {attempt} does not hold the slice")]
    NotHolder {
        /// The attempt that reported.
        attempt: u64,
    },
}

/// The state after `event` at `now`, for a slice with the standing `from` (`None`: it has no
/// checkpoint).
///
/// # Errors
/// [`Illegal`] for every pair that the design does not list.
pub fn next(
    from: Option<&Lifecycle>,
    event: Event,
    now: DateTime<Utc>,
    failures_max: u32,
) -> Result<Lifecycle, Illegal> {
    match (event, from) {
        (Event::Claim { lease_until }, None) => Ok(claimed(&ABSENT, lease_until)),
        (Event::Claim { lease_until }, Some(from)) => {
            claimable(from, now, failures_max)?;
            Ok(claimed(from, lease_until))
        }
        (Event::Complete { attempt }, from) => held_by(from, attempt).map(completed),
        (Event::Fail { attempt, retryable, jitter }, from) => {
            let from = held_by(from, attempt)?;
            let failures =
                if retryable { from.failures.saturating_add(1) } else { failures_max.max(1) };
            let retry_at = (failures < failures_max).then(|| add(now, backoff(failures, jitter)));
            Ok(Lifecycle { state: State::Failed, failures, retry_at, lease_until: None, ..*from })
        }
        (Event::Yield { attempt, retry_at }, from) => {
            let from = held_by(from, attempt)?;
            Ok(Lifecycle { state: State::Yielded, retry_at, lease_until: None, ..*from })
        }
        (Event::Reopen, from) => Ok(reopened(from.unwrap_or(&ABSENT))),
    }
}

/// The standing of a slice without a checkpoint, for the arithmetic.
const ABSENT: Lifecycle = Lifecycle {
    state: State::Stale,
    attempt: 0,
    lease_until: None,
    failures: 0,
    retry_at: None,
    dirty: 0,
    dirty_seen: 0,
};

fn claimable(from: &Lifecycle, now: DateTime<Utc>, failures_max: u32) -> Result<(), Illegal> {
    match from.state {
        State::Yielded | State::Stale => Ok(()),
        State::Succeeded => Err(Illegal::Succeeded),
        State::Running => match from.lease_until {
            Some(until) if until > now => Err(Illegal::Leased { until }),
            _ => Ok(()),
        },
        State::Failed if from.failures >= failures_max => {
            Err(Illegal::Exhausted { failures: from.failures })
        }
        State::Failed => match from.retry_at {
            Some(retry_at) if retry_at > now => {
                Err(Illegal::Backoff { retry_at, failures: from.failures })
            }
            _ => Ok(()),
        },
    }
}

fn claimed(from: &Lifecycle, lease_until: DateTime<Utc>) -> Lifecycle {
    Lifecycle {
        state: State::Running,
        attempt: from.attempt + 1,
        lease_until: Some(lease_until),
        retry_at: None,
        dirty_seen: from.dirty,
        ..*from
    }
}

/// The lease may have ended. As long as no newer attempt exists, the result still counts.
fn held_by(from: Option<&Lifecycle>, attempt: u64) -> Result<&Lifecycle, Illegal> {
    from.filter(|from| from.state == State::Running && from.attempt == attempt)
        .ok_or(Illegal::NotHolder { attempt })
}

fn completed(from: &Lifecycle) -> Lifecycle {
    let state = if from.dirty == from.dirty_seen { State::Succeeded } else { State::Stale };
    Lifecycle { state, lease_until: None, failures: 0, retry_at: None, ..*from }
}

fn reopened(from: &Lifecycle) -> Lifecycle {
    let dirty = from.dirty + 1;
    match from.state {
        // The worker continues. Its completion will find that it has not seen every reopening.
        State::Running => Lifecycle { dirty, ..*from },
        _ => Lifecycle { state: State::Stale, failures: 0, retry_at: None, dirty, ..*from },
    }
}

/// The wait after the failure number `failures`. It doubles each time up to a limit, and is then
/// varied by up to half in either direction. `jitter` is between 0 and 1.
#[must_use]
fn backoff(failures: u32, jitter: f64) -> Duration {
    // 2^7 × 30 s is past the limit. Further doublings could only overflow.
    let doublings = failures.saturating_sub(1).min(7);
    let wait = (BACKOFF_FIRST * (1 << doublings)).min(BACKOFF_MAX);
    wait.mul_f64(1.0 - BACKOFF_JITTER + 2.0 * BACKOFF_JITTER * jitter.clamp(0.0, 1.0))
}

fn add(now: DateTime<Utc>, wait: Duration) -> DateTime<Utc> {
    now + TimeDelta::from_std(wait).unwrap_or(TimeDelta::MAX)
}

/// How often something happened, in words.
pub(super) fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        _ => format!("{count} times"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: u32 = 3;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_770_000_000 + seconds, 0).unwrap()
    }

    /// A standing with attempt 4, reopened once and seen.
    fn standing(state: State) -> Lifecycle {
        Lifecycle { state, attempt: 4, dirty: 1, dirty_seen: 1, ..ABSENT }
    }

    fn held(until: i64) -> Lifecycle {
        Lifecycle { lease_until: Some(at(until)), ..standing(State::Running) }
    }

    fn failed(failures: u32, retry_at: Option<i64>) -> Lifecycle {
        Lifecycle { failures, retry_at: retry_at.map(at), ..standing(State::Failed) }
    }

    fn dirtied(from: Lifecycle) -> Lifecycle {
        Lifecycle { dirty: from.dirty + 1, ..from }
    }

    /// All kinds of standing that the table distinguishes, with the present time as second 0.
    fn standings() -> Vec<(&'static str, Option<Lifecycle>)> {
        vec![
            ("absent", None),
            ("running", Some(held(1))),
            ("running, dirtied", Some(dirtied(held(1)))),
            ("running, lease over", Some(held(0))),
            ("failed, due", Some(failed(1, Some(0)))),
            ("failed, waiting", Some(failed(1, Some(1)))),
            ("failed, exhausted", Some(failed(MAX, None))),
            ("yielded", Some(standing(State::Yielded))),
            ("stale", Some(dirtied(standing(State::Stale)))),
            ("succeeded", Some(standing(State::Succeeded))),
        ]
    }

    fn outcome(from: Option<&Lifecycle>, event: Event) -> String {
        match next(from, event, at(0), MAX) {
            Ok(to) => format!(
                "{} {} f{} d{}/{}",
                to.state, to.attempt, to.failures, to.dirty_seen, to.dirty
            ),
            Err(Illegal::Leased { .. }) => "leased".into(),
            Err(Illegal::Succeeded) => "done".into(),
            Err(Illegal::Backoff { .. }) => "backoff".into(),
            Err(Illegal::Exhausted { .. }) => "exhausted".into(),
            Err(Illegal::NotHolder { .. }) => "lost".into(),
        }
    }

    /// Every situation with every event: the design's table, written out.
    #[test]
    fn every_pair_of_state_and_event_is_decided_by_the_table() {
        let fail = |retryable| Event::Fail { attempt: 4, retryable, jitter: 0.5 };
        let events = [
            Event::Claim { lease_until: at(60) },
            Event::Complete { attempt: 4 },
            Event::Complete { attempt: 3 },
            fail(true),
            fail(false),
            Event::Yield { attempt: 4, retry_at: None },
            Event::Reopen,
        ];
        #[rustfmt::skip]
        let expected: [(&str, [&str; 7]); 10] = [
            ("absent",              ["running 1 f0 d0/0", "lost", "lost", "lost", "lost", "lost", "stale 0 f0 d0/1"]),
            ("running",             ["leased", "succeeded 4 f0 d1/1", "lost", "failed 4 f1 d1/1", "failed 4 f3 d1/1", "yielded 4 f0 d1/1", "running 4 f0 d1/2"]),
            ("running, dirtied",    ["leased", "stale 4 f0 d1/2", "lost", "failed 4 f1 d1/2", "failed 4 f3 d1/2", "yielded 4 f0 d1/2", "running 4 f0 d1/3"]),
            ("running, lease over", ["running 5 f0 d1/1", "succeeded 4 f0 d1/1", "lost", "failed 4 f1 d1/1", "failed 4 f3 d1/1", "yielded 4 f0 d1/1", "running 4 f0 d1/2"]),
            ("failed, due",         ["running 5 f1 d1/1", "lost", "lost", "lost", "lost", "lost", "stale 4 f0 d1/2"]),
            ("failed, waiting",     ["backoff", "lost", "lost", "lost", "lost", "lost", "stale 4 f0 d1/2"]),
            ("failed, exhausted",   ["exhausted", "lost", "lost", "lost", "lost", "lost", "stale 4 f0 d1/2"]),
            ("yielded",             ["running 5 f0 d1/1", "lost", "lost", "lost", "lost", "lost", "stale 4 f0 d1/2"]),
            ("stale",               ["running 5 f0 d2/2", "lost", "lost", "lost", "lost", "lost", "stale 4 f0 d1/3"]),
            ("succeeded",           ["done", "lost", "lost", "lost", "lost", "lost", "stale 4 f0 d1/2"]),
        ];
        for ((name, from), (expected_name, row)) in standings().into_iter().zip(expected) {
            assert_eq!(name, expected_name);
            for (event, wanted) in events.into_iter().zip(row) {
                assert_eq!(outcome(from.as_ref(), event), wanted, "{name} on {event:?}");
            }
        }
    }

    #[test]
    fn the_last_failure_has_no_next_try() {
        let from = Lifecycle { failures: MAX - 1, ..held(1) };
        let event = Event::Fail { attempt: 4, retryable: true, jitter: 0.5 };
        let to = next(Some(&from), event, at(0), MAX).unwrap();
        assert_eq!((to.failures, to.retry_at), (MAX, None));
    }

    #[test]
    fn a_retryable_failure_is_tried_again_after_the_backoff() {
        let event = Event::Fail { attempt: 4, retryable: true, jitter: 0.5 };
        let to = next(Some(&held(1)), event, at(0), MAX).unwrap();
        assert_eq!((to.failures, to.retry_at), (1, Some(at(30))));
    }

    #[test]
    fn a_backoff_doubles_from_half_a_minute_to_an_hour() {
        let waits: Vec<u64> = (1..=9).map(|n| backoff(n, 0.5).as_secs()).collect();
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(backoff(u32::MAX, 0.5), BACKOFF_MAX);
    }

    #[test]
    fn jitter_moves_a_wait_by_half_of_it_at_most() {
        assert_eq!(backoff(1, 0.0), Duration::from_secs(15));
        assert_eq!(backoff(1, 1.0), Duration::from_secs(45));
        assert_eq!(backoff(1, 7.0), Duration::from_secs(45));
    }

    #[test]
    fn a_state_reads_the_word_it_writes() {
        for state in State::ALL {
            assert_eq!(State::parse(&state.to_string()), Some(state));
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{state}\""));
        }
        assert_eq!(State::parse("Running"), None);
    }
}
