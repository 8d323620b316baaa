//! A server that is frozen in the middle of a slice, and wakes after another one has taken over.

use super::{DAYS, RUNNING, STORES, is_right, nap, place, schedule};
use crate::interrupt::wait_for;
use crate::support::cli::{Place, lines, signal};
use crate::support::serving::Server;

/// A slice's lease outlives the tick's budget by five seconds.
const ARGUMENTS: [&str; 4] = ["--every", "1s", "--budget", "20s"];

const SUCCEEDED: &str = "tallymark_slices_succeeded_total";

/// Rows and markers with the transactions that wrote them, and the checkpoints.
async fn state(place: &Place) -> (Vec<String>, String) {
    let rows = "SELECT xmin::text, r::text FROM stats.daily r UNION ALL \
                SELECT xmin::text, m::text FROM tallymark.slice m";
    let [from, until] =
        ["2000-01-01T00:00:00Z", "2100-01-01T00:00:00Z"].map(|at| at.parse().unwrap());
    let checkpoints = place.checkpoints().range("daily", from, until).await.unwrap();
    (lines(&place.target_url, rows).await, format!("{checkpoints:#?}"))
}

async fn another_server_takes_over(store: &str) {
    let (place, _database) = place(store).await;
    nap(&place, 2.0).await;
    let frozen = Server::start(&place, &ARGUMENTS);
    wait_for(&place, RUNNING, true).await;
    signal(frozen.pid(), "STOP");
    // Its statement ends on the server, and its transaction has all that a commit needs.
    nap(&place, 0.0).await;
    let other = Server::start(&place, &ARGUMENTS);
    other.wait_for("all is done", schedule::sleeps).await;
    is_right(&place).await;
    let before = state(&place).await;
    let again = "SELECT count(*) FROM tallymark.slice WHERE attempt = 2";
    assert_ne!(lines(&place.target_url, again).await, ["(0)"], "{before:?}");
    signal(frozen.pid(), "CONT");
    frozen.wait_for("its next ticks", schedule::sleeps).await;
    assert_eq!(state(&place).await, before);
    assert_eq!((frozen.metric(SUCCEEDED), other.metric(SUCCEEDED)), (0.0, f64::from(DAYS)));
    for server in [frozen, other] {
        server.signal("TERM");
        let ended = server.end().await;
        assert_eq!(ended.code, Some(143), "{ended:?}");
        assert!(ended.err.contains("the same command goes on"), "{ended:?}");
    }
}

#[tokio::test]
async fn with_dynamodb_another_takes_over_after_the_lease_and_the_frozen_one_writes_nothing() {
    another_server_takes_over(STORES[0]).await;
}

#[tokio::test]
async fn with_postgres_another_takes_over_after_the_lease_and_the_frozen_one_writes_nothing() {
    another_server_takes_over(STORES[1]).await;
}
