//! Restoring checkpoints from markers.

use super::{Fixture, ROLLUP, at, on_each_store, outcome, start, turn};
use crate::checkpoint::{CommittedMarker, Restored, State};

fn marker(attempt: u64) -> CommittedMarker {
    CommittedMarker {
        rollup: ROLLUP.into(),
        slice_start: start(),
        attempt,
        owner: None,
        definition: "0123456789abcdef".into(),
        outcome: outcome(),
        committed_at: at(5),
        stale: None,
    }
}

async fn restore(fixture: &Fixture, marker: &CommittedMarker, now: i64) -> Restored {
    fixture.checkpoints.restore(marker, at(now)).await.unwrap()
}

fn kept(restored: Restored) -> (State, u64) {
    match restored {
        Restored::Kept(found) => (found.state, found.attempt),
        Restored::Restored(state) => panic!("overwritten as {state}"),
    }
}

#[tokio::test]
async fn a_lost_checkpoint_is_restored_with_the_markers_attempt() {
    on_each_store(async |fixture| {
        let restored = restore(&fixture, &marker(7), 10).await;
        assert_eq!(restored, Restored::Restored(State::Succeeded));
        let found = fixture.checkpoints.get(ROLLUP, start()).await.unwrap().unwrap();
        assert_eq!((found.attempt, found.outcome), (7, Some(outcome())));
        assert_eq!(fixture.checkpoints.unfinished(ROLLUP).await.unwrap(), []);
        assert_eq!(kept(restore(&fixture, &marker(7), 11).await), (State::Succeeded, 7));

        fixture.checkpoints.reopen(ROLLUP, start(), "replay", at(12)).await.unwrap();
        assert_eq!(fixture.claim(12).await.unwrap().attempt(), 8);
    })
    .await;
}

#[tokio::test]
async fn a_marker_of_an_older_definition_is_restored_as_stale() {
    on_each_store(async |fixture| {
        let stale = CommittedMarker { stale: Some("definition changed".into()), ..marker(7) };
        assert_eq!(restore(&fixture, &stale, 10).await, Restored::Restored(State::Stale));
        assert_eq!(kept(restore(&fixture, &stale, 11).await), (State::Stale, 7));
        assert_eq!(kept(restore(&fixture, &marker(7), 11).await), (State::Stale, 7));
        assert_eq!(fixture.claim(12).await.unwrap().attempt(), 8);
    })
    .await;
}

#[tokio::test]
async fn a_newer_attempt_is_not_overwritten() {
    on_each_store(async |fixture| {
        fixture.claim(0).await.unwrap();
        let lease = fixture.claim(100).await.unwrap();
        fixture.checkpoints.fail(&lease, "refused", true, at(101)).await.unwrap();
        assert_eq!(kept(restore(&fixture, &marker(1), 102).await), (State::Failed, 2));
    })
    .await;
}

#[tokio::test]
async fn a_running_lease_is_not_overwritten_until_it_is_over() {
    on_each_store(async |fixture| {
        let lease = fixture.claim(0).await.unwrap();
        assert_eq!(kept(restore(&fixture, &marker(1), 1).await), (State::Running, 1));
        assert_eq!(restore(&fixture, &marker(1), 65).await, Restored::Restored(State::Succeeded));
        // Its worker wakes up and finds its own marker.
        let state = fixture.checkpoints.complete(&lease, &outcome(), at(66)).await.unwrap();
        assert_eq!(state, State::Succeeded);
    })
    .await;
}

/// The reply to COMMIT was lost, so the worker reported a failure. The marker shows the success.
#[tokio::test]
async fn a_failure_of_the_attempt_that_committed_becomes_a_success() {
    on_each_store(async |fixture| {
        let lease = fixture.claim(0).await.unwrap();
        fixture.checkpoints.fail(&lease, "connection lost", true, at(1)).await.unwrap();
        assert_eq!(restore(&fixture, &marker(1), 2).await, Restored::Restored(State::Succeeded));
        let found = fixture.checkpoints.get(ROLLUP, start()).await.unwrap().unwrap();
        assert_eq!((found.failures, found.error, found.retry_at), (0, None, None));
    })
    .await;
}

#[tokio::test]
async fn a_reopening_that_the_committed_attempt_did_not_see_survives() {
    on_each_store(async |fixture| {
        let lease = fixture.claim(0).await.unwrap();
        fixture.checkpoints.reopen(ROLLUP, start(), "late data", at(1)).await.unwrap();
        fixture.checkpoints.yield_(&lease, &turn("commit unknown", None), at(2)).await.unwrap();
        assert_eq!(restore(&fixture, &marker(1), 3).await, Restored::Restored(State::Stale));
    })
    .await;
}
