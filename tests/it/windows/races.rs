//! Workers of finer slices that are killed, or that are about to commit, while windows depend on them.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use sqlx::Executor as _;
use tallymark::model::clock::{Deadline, ManualClock};
use tallymark::work::slice_run::{self, RunOptions};

use super::{STORES, events, is_exact, named, rollups, work_off};
use crate::support::polls::{killed, sweep};
use crate::support::until;
use crate::support::world::{BUDGET, Keeper, PAST_LEASE, Setup, World, clock, instant, records};

/// The worker of a finer slice is killed at every await, each time after another change, and others
/// continue. After each kill every window has every change.
#[tokio::test]
async fn a_worker_killed_before_the_windows_are_reopened_loses_nothing() {
    for (keeper, across) in STORES {
        let clock = clock("2025-11-04T00:00:00Z");
        let shape = ("by_quarter", "6 hours", "12 hours", "2025-11-01");
        let rollups = rollups("2025-11-01", "6 hours", &[shape]);
        let shared: Arc<ManualClock> = Arc::new(clock.clone());
        let setup = Setup { rollups: &rollups, across, keeper, clock: shared, ..Setup::default() };
        let world = World::new(&events("2025-11-01", 60), setup).await;
        work_off(&world).await;
        killed_at_every_await(&clock, &world).await;
        is_exact(&world, shape).await;
    }
}

async fn killed_at_every_await(clock: &ManualClock, world: &World) {
    let uniques = named(world, "uniques");
    let hours = world.slice("2025-11-02T04:00:00Z");
    for polls in sweep(1, || 1) {
        world
            .sql("INSERT INTO events (created_at, kind) VALUES ('2025-11-02T05:00Z', 'late')")
            .await;
        world.reopen("2025-11-02T04:00:00Z").await;
        let deadline = Deadline::after(clock, BUDGET);
        let options = RunOptions::default();
        let work = slice_run::run_slice(&world.worker, uniques, hours, deadline, options);
        let ended = killed(work, polls).await;
        // The lease of the killed worker ends.
        clock.advance(PAST_LEASE);
        work_off(world).await;
        let late = "SELECT events FROM stats.by_quarter WHERE kind = 'late'";
        let told = format!("({polls})");
        assert_eq!(records(&world.target, late).await, [told.clone(), told], "{polls}");
        if ended.is_some_and(|report| report.unwrap().is_success()) {
            println!("killed at {} awaits", polls - 1);
            return;
        }
    }
}

/// Holds the transaction of a finer slice at its COMMIT while the test holds the lock.
const HELD: &str = "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS \
    'BEGIN PERFORM pg_advisory_xact_lock(16); RETURN NULL; END'; \
    CREATE CONSTRAINT TRIGGER hold AFTER INSERT OR UPDATE ON stats.uniques \
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hold()";

/// As if the newest window had never been claimed.
const UNCLAIMED: &str = "DELETE FROM tallymark.checkpoint \
    WHERE rollup = 'by_quarter' AND sort = '2025-11-02T17:00:00Z'; \
    DELETE FROM tallymark.slice WHERE rollup = 'by_quarter' AND slice_start = '2025-11-02T17:00Z'; \
    DELETE FROM stats.by_quarter WHERE bucket = '2025-11-02T17:00Z'; \
    UPDATE tallymark.checkpoint SET item = item - 'watermark' \
    WHERE rollup = 'by_quarter' AND sort = 'watermark'";

/// Claims of that window wait until this transaction has ended.
const CLAIMS_WAIT: &str = "INSERT INTO tallymark.checkpoint (rollup, sort, item) \
    VALUES ('by_quarter', '2025-11-02T17:00:00Z', '{}')";

/// A worker has seen that all finer slices of a window are done. Before its claim, one of them is
/// reopened, and its worker has looked for windows and is about to commit.
#[tokio::test]
async fn a_window_that_is_claimed_beside_a_finer_slice_is_not_left_with_the_old_rows() {
    let shape = ("by_quarter", "6 hours", "12 hours", "2025-11-01");
    let rollups = rollups("2025-11-01", "6 hours", &[shape]);
    let sql = events("2025-11-01", 60);
    let clock = clock("2025-11-03T00:00:00Z");
    let (keeper, shared) = (Keeper::Target, Arc::new(clock.clone()));
    let setup = Setup { rollups: &rollups, keeper, clock: shared, ..Setup::default() };
    let world = World::new(&sql, setup).await;
    work_off(&world).await;
    world.sql(&format!("{UNCLAIMED}; {HELD}")).await;
    let windows = named(&world, "by_quarter");
    let window = windows.calendar.starting(instant("2025-11-02T17:00:00Z")).unwrap();
    let mut claims = world.pool.begin().await.unwrap();
    claims.execute(CLAIMS_WAIT).await.unwrap();
    let deadline = Deadline::after(&clock, BUDGET);
    let options = RunOptions::default();
    let mut run = pin!(slice_run::run_slice(&world.worker, windows, window, deadline, options));
    tokio::select! {
        report = &mut run => panic!("claimed: {report:?}"),
        () = until_waiting(&world, "transactionid") => {}
    }
    world.sql("INSERT INTO events (created_at, kind) VALUES ('2025-11-02T18:00Z', 'late')").await;
    world.reopen("2025-11-02T17:00:00Z").await;
    let mut commits = world.pool.acquire().await.unwrap();
    commits.execute("SELECT pg_advisory_lock(16)").await.unwrap();
    let mut finer = pin!(world.run("2025-11-02T17:00:00Z"));
    tokio::select! {
        report = &mut finer => panic!("committed: {report:?}"),
        () = until_waiting(&world, "advisory") => {}
    }
    claims.rollback().await.unwrap();
    let report = tokio::select! {
        report = &mut finer => panic!("committed: {report:?}"),
        report = &mut run => report.unwrap(),
    };
    let waits = "waits for uniques@2025-11-02T17:00:00Z, which is running";
    assert_eq!((report.attempt, report.reason.as_deref()), (Some(1), Some(waits)));
    commits.execute("SELECT pg_advisory_unlock(16)").await.unwrap();
    assert!(finer.await.is_success());
    // A window that has yielded is tried again.
    clock.advance(Duration::from_secs(60));
    work_off(&world).await;
    is_exact(&world, shape).await;
}

/// Waits until a transaction waits for a lock of this type.
async fn until_waiting(world: &World, locktype: &str) {
    let waits = format!(
        "SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted \
         AND locktype = '{locktype}' AND datname = current_database()"
    );
    until(&waits, async || records(&world.pool, &waits).await.pop()).await;
}
