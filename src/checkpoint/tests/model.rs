//! Random histories of one slice, with each store compared to the pure function.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Handle;

use super::{FAILURES_MAX, ROLLUP, at, on_each_store, outcome, start, turn};
use crate::checkpoint::state::{self, Event, Illegal, Lifecycle};
use crate::checkpoint::{
    CheckpointError, Checkpoints, Claim, ClaimError, ClaimRefused, LEASE_MARGIN, Lease, State,
};
use crate::model::clock::{Clock, ManualClock};

const WORKERS: usize = 3;

#[derive(Clone, Debug)]
enum Step {
    Wait { seconds: u64 },
    Claim { worker: usize, budget: i64 },
    Complete { worker: usize },
    Fail { worker: usize, retryable: bool },
    Yield { worker: usize, retry_in: Option<i64> },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let worker = 0..WORKERS;
    prop_oneof![
        2 => (1_u64..120).prop_map(|seconds| Step::Wait { seconds }),
        1 => (3_000_u64..6_000).prop_map(|seconds| Step::Wait { seconds }),
        6 => (worker.clone(), 0_i64..90).prop_map(|(worker, budget)| Step::Claim { worker, budget }),
        3 => worker.clone().prop_map(|worker| Step::Complete { worker }),
        3 => (worker.clone(), prop::bool::weighted(0.9))
            .prop_map(|(worker, retryable)| Step::Fail { worker, retryable }),
        2 => (worker, prop::option::of(0_i64..90))
            .prop_map(|(worker, retry_in)| Step::Yield { worker, retry_in }),
        2 => Just(Step::Reopen),
    ]
}

/// One slice with its workers. A worker keeps a lease that it lost, as a zombie would.
struct World<'a> {
    checkpoints: &'a Checkpoints,
    slice_start: DateTime<Utc>,
    clock: ManualClock,
    leases: [Option<Lease>; WORKERS],
    model: Option<Lifecycle>,
}

impl World<'_> {
    fn expect(&self, event: Event) -> Result<Lifecycle, Illegal> {
        state::next(self.model.as_ref(), event, self.clock.now(), FAILURES_MAX)
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Wait { seconds } => self.clock.advance(Duration::from_secs(seconds)),
            Step::Claim { worker, budget } => self.claim(worker, budget).await,
            Step::Complete { worker } => self.complete(worker).await,
            Step::Fail { worker, retryable } => self.fail(worker, retryable).await,
            Step::Yield { worker, retry_in } => self.yield_(worker, retry_in).await,
            Step::Reopen => {
                let now = self.clock.now();
                let done = self.checkpoints.reopen(ROLLUP, self.slice_start, "replay", now).await;
                self.model = Some(self.expect(Event::Reopen).unwrap());
                assert_eq!(Some(done.unwrap().standing()), self.model);
            }
        }
    }

    /// Compared once per history, as a difference between two writes stays.
    async fn compare(&self) {
        let found = self.checkpoints.get(ROLLUP, self.slice_start).await.unwrap();
        assert_eq!(found.map(|found| found.standing()), self.model);
    }

    async fn claim(&mut self, worker: usize, budget: i64) {
        let now = self.clock.now();
        let deadline = now + TimeDelta::seconds(budget);
        let slice_start = self.slice_start;
        let request = Claim { rollup: ROLLUP, slice_start, definition: "d", now, deadline };
        let claimed = self.checkpoints.claim(&request).await;
        if budget == 0 {
            assert!(matches!(claimed, Err(ClaimError::Refused(ClaimRefused::NoTimeLeft))));
            return;
        }
        match (claimed, self.expect(Event::Claim { lease_until: deadline + LEASE_MARGIN })) {
            (Ok(lease), Ok(expected)) => {
                assert_eq!(lease.claimed_from(), self.model.map(|model| model.state));
                assert_eq!(lease.checkpoint().standing(), expected);
                self.leases[worker] = Some(lease);
                self.model = Some(expected);
            }
            (Err(ClaimError::Refused(refused)), Err(illegal)) => match (refused, illegal) {
                (ClaimRefused::Leased { until, .. }, Illegal::Leased { until: expected }) => {
                    assert_eq!(until, expected);
                }
                (ClaimRefused::Succeeded, Illegal::Succeeded)
                | (ClaimRefused::Backoff { .. }, Illegal::Backoff { .. })
                | (ClaimRefused::Exhausted { .. }, Illegal::Exhausted { .. }) => {}
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }

    async fn complete(&mut self, worker: usize) {
        let Some(lease) = &self.leases[worker] else { return };
        let told = self.checkpoints.complete(lease, &outcome(), self.clock.now()).await;
        match self.expect(Event::Complete { attempt: lease.attempt() }) {
            Ok(expected) => {
                assert_eq!(told.unwrap(), expected.state);
                self.model = Some(expected);
            }
            Err(_) => assert_repeated(told, self.model, lease, State::Succeeded),
        }
    }

    async fn fail(&mut self, worker: usize, retryable: bool) {
        let Some(lease) = &self.leases[worker] else { return };
        let now = self.clock.now();
        let told = self.checkpoints.fail(lease, "refused", retryable, now).await;
        let with = |jitter| Event::Fail { attempt: lease.attempt(), retryable, jitter };
        match (self.expect(with(0.0)), self.expect(with(1.0))) {
            (Ok(earliest), Ok(latest)) => {
                let told = told.unwrap();
                assert_eq!((told.state, told.failures), (State::Failed, latest.failures));
                assert_eq!(told.retry_at.is_some(), latest.retry_at.is_some());
                assert!(told.retry_at >= earliest.retry_at && told.retry_at <= latest.retry_at);
                self.model = Some(Lifecycle { retry_at: told.retry_at, ..latest });
            }
            _ => assert_repeated(told.map(|told| told.state), self.model, lease, State::Failed),
        }
    }

    async fn yield_(&mut self, worker: usize, retry_in: Option<i64>) {
        let Some(lease) = &self.leases[worker] else { return };
        let now = self.clock.now();
        let retry_at = retry_in.map(|seconds| now + TimeDelta::seconds(seconds));
        let told = self.checkpoints.yield_(lease, &turn("not settled", retry_at), now).await;
        match self.expect(Event::Yield { attempt: lease.attempt(), retry_at }) {
            Ok(expected) => {
                assert_eq!(told.unwrap(), expected.state);
                self.model = Some(expected);
            }
            Err(_) => assert_repeated(told, self.model, lease, State::Yielded),
        }
    }
}

/// An ending that the table forbids succeeds only if it repeats an earlier ending of the same
/// lease.
fn assert_repeated(
    told: Result<State, CheckpointError>,
    model: Option<Lifecycle>,
    lease: &Lease,
    wanted: State,
) {
    let model = model.unwrap();
    let repeats =
        model.attempt == lease.attempt() && (model.state == wanted || model.state == State::Stale);
    match told {
        Ok(state) => assert!(repeats && state == model.state, "{state}"),
        Err(CheckpointError::LostLease(lost)) => {
            assert!(!repeats, "{lost}");
            assert_eq!(lost.found.unwrap().attempt, model.attempt);
        }
        Err(error) => panic!("{error}"),
    }
}

/// For any history of up to 24 steps by three workers, including zombies, each call's answer and
/// the stored item at the end are those of [`state::next`].
#[test]
fn the_stored_item_follows_the_pure_function_through_any_history() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let history = prop::collection::vec(step(), 1..25);
    runtime.block_on(on_each_store(async |fixture| {
        let slices = AtomicI64::new(0);
        tokio::task::block_in_place(|| {
            let outcome = TestRunner::new(config.clone()).run(&history, |steps| {
                let slice = TimeDelta::days(slices.fetch_add(1, Ordering::Relaxed));
                let mut world = World {
                    checkpoints: &fixture.checkpoints,
                    slice_start: start() + slice,
                    clock: ManualClock::new(at(0)),
                    leases: [const { None }; WORKERS],
                    model: None,
                };
                Handle::current().block_on(async {
                    for step in &steps {
                        world.take(step).await;
                    }
                    world.compare().await;
                });
                Ok(())
            });
            outcome.unwrap_or_else(|error| panic!("{error}"));
        });
    }));
}
