//! Leases: how they are won and lost, and what an attempt may still write.

use chrono::TimeDelta;

use super::super::item::{key, text};
use super::super::store::{Cond, Update};
use super::{Fixture, ROLLUP, at, claim, on_each_store, outcome, start, turn, wish};
use crate::checkpoint::{
    CheckpointError, Claim, ClaimError, ClaimRefused, LEASE_MARGIN, Lease, State,
};
use crate::model::hint::Hinted;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_fifty_workers_at_once_one_gets_the_slice() {
    on_each_store(async |fixture| {
        let workers: Vec<_> = (0..50)
            .map(|_| {
                let checkpoints = fixture.checkpoints.clone();
                tokio::spawn(async move { claim(&checkpoints, 0).await })
            })
            .collect();
        let (mut leases, mut refusals) = (Vec::new(), Vec::new());
        for worker in workers {
            match worker.await.unwrap() {
                Ok(lease) => leases.push(lease),
                Err(refused) => refusals.push(refused),
            }
        }
        assert_eq!((leases.len(), refusals.len()), (1, 49));
        let held =
            ClaimRefused::Leased { owner: leases[0].owner().into(), until: leases[0].until() };
        assert!(refusals.iter().all(|refused| *refused == held));
    })
    .await;
}

#[tokio::test]
async fn a_first_claim_is_attempt_one_and_holds_past_the_deadline() {
    on_each_store(async |fixture| {
        let lease = fixture.claim(0).await.unwrap();
        assert_eq!((lease.attempt(), lease.failures(), lease.dirty_seen()), (1, 0, 0));
        assert_eq!((lease.claimed_from(), lease.is_takeover()), (None, false));
        assert_eq!(lease.until(), at(60) + LEASE_MARGIN);
        assert_eq!(lease.definition(), "0123456789abcdef");
    })
    .await;
}

#[tokio::test]
async fn no_time_left_never_claims() {
    on_each_store(async |fixture| {
        for deadline in [at(0), at(-1)] {
            let claimed = fixture.checkpoints.claim(&Claim { deadline, ..wish(0) }).await;
            assert!(matches!(claimed, Err(ClaimError::Refused(ClaimRefused::NoTimeLeft))));
        }
        assert_eq!(fixture.checkpoints.get(ROLLUP, start()).await.unwrap(), None);
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_is_over_is_taken_over_by_the_next_attempt() {
    on_each_store(async |fixture| {
        let zombie = fixture.claim(0).await.unwrap();
        assert!(matches!(fixture.claim(64).await, Err(ClaimRefused::Leased { .. })));
        let lease = fixture.claim(65).await.unwrap();
        assert_eq!((lease.attempt(), lease.is_takeover()), (2, true));
        assert_ne!(lease.owner(), zombie.owner());
    })
    .await;
}

/// One slice is held, the lease on another is over, one has succeeded, and two are free.
#[tokio::test]
async fn several_claims_at_once_take_what_single_claims_would() {
    on_each_store(async |fixture| {
        let checkpoints = &fixture.checkpoints;
        let wish_for =
            |day, now| Claim { slice_start: start() + TimeDelta::days(day), ..wish(now) };
        checkpoints.claim(&Claim { deadline: at(1000), ..wish_for(1, 0) }).await.unwrap();
        checkpoints.claim(&wish_for(2, 0)).await.unwrap();
        let done = checkpoints.claim(&wish_for(3, 0)).await.unwrap();
        checkpoints.complete(&done, &outcome(), at(1)).await.unwrap();

        let wishes = [0, 1, 2, 3, 4].map(|day| wish_for(day, 100));
        let leases = checkpoints.claim_several(&wishes).await.unwrap();
        let days = |lease: &Lease| (lease.slice_start() - start()).num_days();
        let found: Vec<_> = leases.iter().map(|lease| (days(lease), lease.attempt())).collect();
        assert_eq!(found, [(0, 1), (2, 2), (4, 1)]);
        for lease in &leases {
            assert_eq!(lease.until(), at(160) + LEASE_MARGIN);
            let state = checkpoints.complete(lease, &outcome(), at(101)).await.unwrap();
            assert_eq!(state, State::Succeeded);
        }
        assert!(checkpoints.claim_several(&wishes).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_stale_attempt_can_end_nothing() {
    on_each_store(async |fixture| {
        let checkpoints = &fixture.checkpoints;
        let zombie = fixture.claim(0).await.unwrap();
        let lease = fixture.claim(100).await.unwrap();
        let before = checkpoints.get(ROLLUP, start()).await.unwrap();
        let refused = [
            checkpoints.complete(&zombie, &outcome(), at(101)).await.unwrap_err(),
            checkpoints.fail(&zombie, "late", true, at(101)).await.unwrap_err(),
            checkpoints.yield_(&zombie, &turn("late", None), at(101)).await.unwrap_err(),
        ];
        for error in refused {
            let message = error.to_string();
            let CheckpointError::LostLease(lost) = error else { panic!("{message}") };
            let found = lost.found.unwrap();
            assert_eq!((lost.attempt, found.attempt), (1, 2));
            assert_eq!(found.held_by.as_deref(), Some(lease.owner()));
            assert!(message.contains("entity_daily@2026-02-10T00:00:00Z"), "{message}");
            assert!(message.contains("until 2026-02-11T00:02:45Z"), "{message}");
        }
        assert_eq!(checkpoints.get(ROLLUP, start()).await.unwrap(), before);
    })
    .await;
}

/// The item was deleted and created again, so its attempt is 1 again, like the zombie's.
#[tokio::test]
async fn an_attempt_of_the_same_number_by_another_owner_is_not_mine() {
    on_each_store(async |fixture| {
        let checkpoints = &fixture.checkpoints;
        let zombie = fixture.claim(0).await.unwrap();
        let key = super::super::item::key(ROLLUP, start());
        checkpoints.store.delete(key).await.unwrap();
        let gone = fixture.checkpoints.complete(&zombie, &outcome(), at(1)).await.unwrap_err();
        assert!(gone.hint().is_some_and(|hint| hint.contains("tallymark repair")), "{gone}");

        assert_eq!(fixture.claim(2).await.unwrap().attempt(), 1);
        let refused = fixture.checkpoints.complete(&zombie, &outcome(), at(3)).await;
        assert!(matches!(refused, Err(CheckpointError::LostLease(_))));
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_is_over_still_counts_while_nobody_took_it() {
    on_each_store(async |fixture| {
        let lease = fixture.claim(0).await.unwrap();
        let state = fixture.checkpoints.complete(&lease, &outcome(), at(1_000)).await.unwrap();
        assert_eq!(state, State::Succeeded);
    })
    .await;
}

#[tokio::test]
async fn a_completed_slice_records_what_was_done_and_leaves_the_index() {
    on_each_store(async |fixture| {
        let checkpoints = &fixture.checkpoints;
        let lease = fixture.claim(0).await.unwrap();
        assert_eq!(checkpoints.unfinished(ROLLUP).await.unwrap().len(), 1);
        checkpoints.complete(&lease, &outcome(), at(9)).await.unwrap();
        let found = checkpoints.get(ROLLUP, start()).await.unwrap().unwrap();
        assert_eq!(found.state, State::Succeeded);
        assert_eq!(found.outcome, Some(outcome()));
        assert_eq!((found.started_at, found.finished_at), (Some(at(0)), Some(at(9))));
        assert_eq!((found.lease_until, found.failures), (None, 0));
        assert_eq!(checkpoints.unfinished(ROLLUP).await.unwrap(), []);
        assert_eq!(fixture.claim(1_000).await.unwrap_err(), ClaimRefused::Succeeded);
    })
    .await;
}

/// The SDK repeats a write whose reply was lost. The second write finds the first one's result.
#[tokio::test]
async fn an_ending_told_twice_is_a_success_twice() {
    on_each_store(async |fixture| {
        let checkpoints = &fixture.checkpoints;
        let lease = fixture.claim(0).await.unwrap();
        let first =
            checkpoints.yield_(&lease, &turn("not settled", Some(at(30))), at(1)).await.unwrap();
        assert_eq!(
            checkpoints.yield_(&lease, &turn("not settled", Some(at(30))), at(1)).await.unwrap(),
            first
        );

        let lease = fixture.claim(100).await.unwrap();
        let first = checkpoints.fail(&lease, "refused", true, at(101)).await.unwrap();
        // The second call draws another jitter, and reports what the first one wrote.
        assert_eq!(checkpoints.fail(&lease, "refused", true, at(101)).await.unwrap(), first);

        let lease = fixture.claim(1_000).await.unwrap();
        for _ in 0..2 {
            let state = checkpoints.complete(&lease, &outcome(), at(1_001)).await.unwrap();
            assert_eq!(state, State::Succeeded);
        }
        checkpoints.reopen(ROLLUP, start(), "replay", at(1_002)).await.unwrap();
        let state = checkpoints.complete(&lease, &outcome(), at(1_003)).await.unwrap();
        assert_eq!(state, State::Stale);
    })
    .await;
}

#[tokio::test]
async fn an_ending_that_contradicts_the_one_before_is_refused() {
    on_each_store(async |fixture| {
        let lease = fixture.succeed(0).await;
        let error = fixture.checkpoints.fail(&lease, "late", true, at(1)).await.unwrap_err();
        assert!(error.to_string().ends_with("has succeeded"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn a_claim_repeated_under_the_same_token_is_the_same_lease() {
    on_each_store(async |fixture| {
        let first = fixture.checkpoints.claim_as("4f1c", &wish(0)).await.unwrap();
        let second = fixture.checkpoints.claim_as("4f1c", &wish(0)).await.unwrap();
        assert_eq!((first.attempt(), second.attempt()), (1, 1));
        assert_eq!(first.until(), second.until());
    })
    .await;
}

#[tokio::test]
async fn a_failed_slice_waits_and_is_exhausted_until_it_is_reopened() {
    on_each_store(async |fixture| {
        let checkpoints = &fixture.checkpoints;
        let mut now = 0;
        for failures in 1..FAILURES {
            let lease = fixture.claim(now).await.unwrap();
            let failure = checkpoints.fail(&lease, "refused", true, at(now)).await.unwrap();
            let retry_at = failure.retry_at.unwrap();
            assert_eq!(failure.failures, failures);
            assert_eq!(
                fixture.claim(now).await.unwrap_err(),
                ClaimRefused::Backoff { retry_at, failures }
            );
            now = (retry_at - at(0)).num_seconds() + 1;
        }
        let lease = fixture.claim(now).await.unwrap();
        assert_eq!(lease.claimed_from(), Some(State::Failed));
        let failure = checkpoints.fail(&lease, "refused", true, at(now)).await.unwrap();
        assert_eq!((failure.failures, failure.retry_at), (FAILURES, None));
        let exhausted = ClaimRefused::Exhausted { failures: FAILURES, error: "refused".into() };
        assert_eq!(fixture.claim(1_000_000).await.unwrap_err(), exhausted);

        let reopened = checkpoints.reopen(ROLLUP, start(), "replay", at(now)).await.unwrap();
        assert_eq!((reopened.state, reopened.failures), (State::Stale, 0));
        let lease = fixture.claim(now).await.unwrap();
        assert_eq!((u64::from(FAILURES) + 1, 0), (lease.attempt(), lease.failures()));
    })
    .await;
}

const FAILURES: u32 = super::FAILURES_MAX;

#[tokio::test]
async fn a_failure_that_no_retry_can_help_is_exhausted_at_once() {
    on_each_store(async |fixture| {
        let lease = fixture.claim(0).await.unwrap();
        let failure =
            fixture.checkpoints.fail(&lease, "no such table", false, at(1)).await.unwrap();
        assert_eq!((failure.failures, failure.retry_at), (FAILURES, None));
        assert!(matches!(fixture.claim(1_000_000).await, Err(ClaimRefused::Exhausted { .. })));
    })
    .await;
}

#[tokio::test]
async fn a_slice_reopened_while_it_runs_is_stale_when_it_completes() {
    on_each_store(async |fixture| {
        let checkpoints = &fixture.checkpoints;
        let lease = fixture.claim(0).await.unwrap();
        let reopened = checkpoints.reopen(ROLLUP, start(), "late data", at(1)).await.unwrap();
        assert_eq!((reopened.state, reopened.dirty), (State::Running, 1));
        let state = checkpoints.complete(&lease, &outcome(), at(2)).await.unwrap();
        assert_eq!(state, State::Stale);
        let found = checkpoints.get(ROLLUP, start()).await.unwrap().unwrap();
        assert_eq!(found.reason.as_deref(), Some("late data"));
        assert_eq!(checkpoints.unfinished(ROLLUP).await.unwrap(), [found]);

        let again = fixture.succeed(3).await;
        assert_eq!((again.attempt(), again.dirty_seen()), (2, 1));
        let found = checkpoints.get(ROLLUP, start()).await.unwrap().unwrap();
        assert_eq!((found.state, found.reason), (State::Succeeded, None));
    })
    .await;
}

#[tokio::test]
async fn a_slice_that_never_ran_can_be_reopened() {
    on_each_store(async |fixture| {
        let reopened = fixture.checkpoints.reopen(ROLLUP, start(), "replay", at(0)).await.unwrap();
        assert_eq!((reopened.state, reopened.attempt, reopened.dirty), (State::Stale, 0, 1));
        assert_eq!(fixture.checkpoints.unfinished(ROLLUP).await.unwrap(), [reopened]);
        let lease = fixture.claim(1).await.unwrap();
        assert_eq!((lease.attempt(), lease.claimed_from()), (1, Some(State::Stale)));
    })
    .await;
}

#[tokio::test]
async fn the_watermark_moves_forwards_unless_a_slice_is_reopened() {
    on_each_store(async |fixture| {
        let checkpoints = &fixture.checkpoints;
        let day = |n: i64| start() + TimeDelta::days(n);
        let unknown = checkpoints.watermark(ROLLUP).await.unwrap();
        assert_eq!(unknown.until(), None);
        assert!(checkpoints.advance_watermark(ROLLUP, &unknown, day(3), None).await.unwrap());
        assert!(checkpoints.advance_watermark(ROLLUP, &unknown, day(2), None).await.unwrap());
        let seen = checkpoints.watermark(ROLLUP).await.unwrap();
        assert_eq!(seen.until(), Some(day(3)));

        checkpoints.reopen(ROLLUP, day(5), "ahead of it", at(0)).await.unwrap();
        assert_eq!(checkpoints.watermark(ROLLUP).await.unwrap().until(), Some(day(3)));
        checkpoints.reopen(ROLLUP, day(1), "behind it", at(0)).await.unwrap();
        assert_eq!(checkpoints.watermark(ROLLUP).await.unwrap().until(), Some(day(1)));
    })
    .await;
}

/// A tick sees that a slice succeeded. Before it writes, the slice is reopened.
#[tokio::test]
async fn an_advance_loses_against_a_reopening_that_it_did_not_see() {
    on_each_store(async |fixture| {
        let checkpoints = &fixture.checkpoints;
        let unknown = checkpoints.watermark(ROLLUP).await.unwrap();
        fixture.succeed(0).await;
        checkpoints.reopen(ROLLUP, start(), "late data", at(1)).await.unwrap();
        let to = start() + TimeDelta::days(1);
        assert!(!checkpoints.advance_watermark(ROLLUP, &unknown, to, None).await.unwrap());
        assert_eq!(checkpoints.watermark(ROLLUP).await.unwrap().until(), None);

        let seen = checkpoints.watermark(ROLLUP).await.unwrap();
        fixture.succeed(2).await;
        checkpoints.reopen(ROLLUP, start(), "late data again", at(3)).await.unwrap();
        assert!(!checkpoints.advance_watermark(ROLLUP, &seen, to, None).await.unwrap());

        let seen = checkpoints.watermark(ROLLUP).await.unwrap();
        fixture.succeed(4).await;
        assert!(checkpoints.advance_watermark(ROLLUP, &seen, to, None).await.unwrap());
    })
    .await;
}

/// Whether an attempt that gives its slice back learns that it has succeeded.
async fn has_succeeded(fixture: &Fixture, lease: &Lease) -> bool {
    match fixture.checkpoints.yield_(lease, &turn("late", None), at(1)).await.unwrap_err() {
        CheckpointError::LostLease(lost) => lost.is_success_of(lease),
        error => panic!("{error}"),
    }
}

/// Restored checkpoints give one number to two attempts.
#[tokio::test]
async fn a_success_is_an_attempts_own_by_its_number_and_its_owner() {
    on_each_store(async |fixture| {
        let lease = fixture.succeed(0).await;
        assert!(has_succeeded(&fixture, &lease).await);
        let update = Update::new(key(ROLLUP, start()), Cond::Present).set("owner", text("another"));
        fixture.checkpoints.send(update, "test").await.unwrap();
        assert!(!has_succeeded(&fixture, &lease).await);
    })
    .await;
}
