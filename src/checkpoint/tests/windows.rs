//! Trailing windows: all that hold a changed finer slice are reopened by one call.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::Row as _;

use super::super::item::{key, number, text};
use super::super::store::{Cond, Update};
use super::postgres::{begin, checkpoints, db};
use super::{Fixture, ROLLUP, at, on_each_store, outcome, start, turn, wish};
use crate::checkpoint::{Checkpoints, Claim, Lease, State};

const REASON: &str = "an hour changed";

fn hour(number: i64) -> DateTime<Utc> {
    start() + TimeDelta::hours(number)
}

async fn claim(checkpoints: &Checkpoints, number: i64) -> Lease {
    let wish = Claim { slice_start: hour(number), ..wish(0) };
    checkpoints.claim(&wish).await.unwrap()
}

async fn complete(checkpoints: &Checkpoints, number: i64) {
    let lease = claim(checkpoints, number).await;
    checkpoints.complete(&lease, &outcome(), at(1)).await.unwrap();
}

/// Succeeded, running, stale, yielded, none, and succeeded, in six hours that the watermark has passed.
async fn six_hours(checkpoints: &Checkpoints) {
    for number in [0, 2, 5] {
        complete(checkpoints, number).await;
    }
    claim(checkpoints, 1).await;
    checkpoints.reopen(ROLLUP, hour(2), "before", at(2)).await.unwrap();
    let lease = claim(checkpoints, 3).await;
    checkpoints.yield_(&lease, &turn("busy", None), at(1)).await.unwrap();
    let seen = checkpoints.watermark(ROLLUP).await.unwrap();
    assert!(checkpoints.advance_watermark(ROLLUP, &seen, hour(6), None).await.unwrap());
}

/// The states of six hours, and how often each was reopened.
async fn found(checkpoints: &Checkpoints) -> Vec<(i64, State, u64)> {
    let found = checkpoints.range(ROLLUP, hour(0), hour(6)).await.unwrap();
    let number = |start: DateTime<Utc>| (start - hour(0)).num_hours();
    found.iter().map(|it| (number(it.slice_start), it.state, it.dirty)).collect()
}

/// The four in the middle were reopened, but for the stale one, and the last and the first were not.
async fn are_reopened(checkpoints: &Checkpoints) {
    let expected = [
        (0, State::Succeeded, 0),
        (1, State::Running, 1),
        (2, State::Stale, 1),
        (3, State::Stale, 1),
        (5, State::Succeeded, 0),
    ];
    assert_eq!(found(checkpoints).await, expected);
    let seen = checkpoints.watermark(ROLLUP).await.unwrap();
    assert_eq!(seen.until(), Some(hour(1)));
}

#[tokio::test]
async fn the_windows_of_a_range_are_reopened_but_for_those_that_run_again_anyway() {
    on_each_store(async |Fixture { checkpoints, .. }| {
        six_hours(&checkpoints).await;
        let range = (hour(1), hour(4));
        checkpoints.reopen_range(ROLLUP, range, REASON, at(3)).await.unwrap();
        are_reopened(&checkpoints).await;
        let nothing = (hour(4), hour(4));
        checkpoints.reopen_range(ROLLUP, nothing, REASON, at(3)).await.unwrap();
        are_reopened(&checkpoints).await;
    })
    .await;
}

/// The worker that made a window stale may have died before it lowered the watermark.
#[tokio::test]
async fn a_window_that_is_stale_behind_the_watermark_comes_before_it_again() {
    on_each_store(async |Fixture { checkpoints, .. }| {
        six_hours(&checkpoints).await;
        let range = (hour(2), hour(2));
        checkpoints.reopen_range(ROLLUP, range, REASON, at(3)).await.unwrap();
        assert_eq!(found(&checkpoints).await[2], (2, State::Stale, 1));
        let seen = checkpoints.watermark(ROLLUP).await.unwrap();
        assert_eq!(seen.until(), Some(hour(2)));
    })
    .await;
}

#[tokio::test]
async fn in_the_transaction_that_replaces_rows_all_windows_are_reopened_or_none() {
    let (Fixture { checkpoints, .. }, db) = (Fixture::in_postgres().await, db().await);
    six_hours(&checkpoints).await;
    let before = found(&checkpoints).await;
    for is_committed in [false, true] {
        let mut tx = begin(&db).await;
        let range = (hour(1), hour(4));
        checkpoints.reopen_range_within(ROLLUP, range, REASON, at(3), &mut tx).await.unwrap();
        if is_committed {
            tx.commit().await.unwrap();
        } else {
            tx.rollback().await.unwrap();
            assert_eq!(found(&checkpoints).await, before);
        }
    }
    are_reopened(&checkpoints).await;
}

/// The reopening waits for a claim that is about to commit. It must not judge the window by its
/// state before that.
#[tokio::test]
async fn a_window_that_is_claimed_while_its_reopening_waits_is_reopened() {
    let (checkpoints, db) = checkpoints().await;
    complete(&checkpoints, 0).await;
    let mut claiming = begin(&db).await;
    let running = Update::new(key(ROLLUP, hour(0)), Cond::Present)
        .set("state", text(State::Running.word()))
        .set("lease_until", number(at(60).timestamp_millis().unsigned_abs()));
    checkpoints.store.update(running, "claim", Some(&mut claiming)).await.unwrap();
    let mut tx = begin(&db).await;
    let id = tx.row("looking", "SELECT pg_backend_pid()::text AS id".into()).await.unwrap();
    let id: String = id.get("id");
    let reopened = async {
        let range = (hour(0), hour(1));
        checkpoints.reopen_range_within(ROLLUP, range, REASON, at(3), &mut tx).await.unwrap();
        tx.commit().await.unwrap();
    };
    let commit = async {
        let waits = format!("SELECT cardinality(pg_blocking_pids({id})) AS n");
        loop {
            let mut look = begin(&db).await;
            let row = look.row("looking", waits.clone()).await.unwrap();
            look.rollback().await.unwrap();
            if row.get::<i32, _>("n") > 0 {
                break;
            }
        }
        claiming.commit().await.unwrap();
    };
    tokio::join!(reopened, commit);
    assert_eq!(found(&checkpoints).await, [(0, State::Running, 1)]);
}
