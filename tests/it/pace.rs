//! `nice_ratio = "auto"` on a real server: the worst that blind or lying signals do is the slow pace.
//! Other tests use the server at the same time, so that these ask for no fast one. The law itself is
//! replayed against traces in `src/throttle/pace`.

use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tallymark::check::verify::{self, Compared};
use tallymark::clients::db::Access;
use tallymark::embedded::postgres::{Binaries, EmbeddedPostgres};
use tallymark::model::not_now::Why;
use tallymark::work::report::Outcome;

use crate::support::pooler::PgBouncer;
use crate::support::world::{BUDGET, DAILY, EVENTS, Setup, Urls, World, random_events};
use crate::support::{Database, cache, options, postgres, server_directory};

/// Looks, a tenth of a second apart, that lead to the fastest pace on a quiet server.
const LOOKS: u32 = 20;

/// A worker that finds its pace.
async fn worker_at(source: String) -> World {
    let setup = Setup { source: "nice_ratio = \"auto\"", ..Setup::default() };
    World::at(Urls { source, target: None }, setup).await
}

/// The pace after each look, and what holds it.
async fn paces(world: &World) -> Vec<(f64, String)> {
    let mut found = Vec::new();
    for _ in 0..LOOKS {
        let _ = world.worker.governor.look(&world.worker.source).await;
        let (ratio, hold) = world.worker.governor.found_pace().unwrap();
        found.push((ratio, hold.to_string()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    found
}

fn are_all(found: &[(f64, String)], ratio: f64, hold: &str) {
    assert!(found.iter().all(|(it, by)| *it == ratio && by == hold), "{found:?}");
}

#[tokio::test]
async fn a_role_that_sees_no_statistics_a_replica_and_a_still_clock_have_the_slow_pace() {
    let database = Database::create().await;
    let name = database.url().rsplit('/').next().unwrap().to_owned();
    let role = format!("blind_{:08x}", fastrand::u32(..));
    let owner = worker_at(database.url()).await;
    let blind = format!("REVOKE SELECT ON pg_stat_database FROM PUBLIC; CREATE ROLE {role} LOGIN");
    owner.sql(&blind).await;
    let of_role = worker_at(database.url_of(&role)).await;
    are_all(&paces(&of_role).await, 30.0, "sessions unseen");
    of_role.worker.close().await;
    // A server that says it is a replica.
    let stand_in = format!(
        "CREATE SCHEMA replica; CREATE FUNCTION replica.pg_is_in_recovery() RETURNS boolean \
         LANGUAGE sql AS 'SELECT true'; \
         ALTER DATABASE {name} SET search_path = replica, pg_catalog, public; DROP ROLE {role}"
    );
    owner.sql(&stand_in).await;
    are_all(&paces(&worker_at(database.url()).await).await, 30.0, "sessions unseen");
    // One whose clock stands still within a statement.
    let still = "CREATE OR REPLACE FUNCTION replica.pg_is_in_recovery() RETURNS boolean LANGUAGE sql \
                 AS 'SELECT false'; CREATE FUNCTION replica.clock_timestamp() RETURNS timestamptz \
                 LANGUAGE sql AS 'SELECT pg_catalog.now()'";
    owner.sql(still).await;
    owner.worker.close().await;
    let found = paces(&worker_at(database.url()).await).await;
    assert_eq!(found[0], (30.0, "naps unseen".to_owned()));
    // Other tests may strain what is seen.
    assert!(found.iter().all(|(ratio, _)| *ratio == 30.0), "{found:?}");
}

/// Its transaction shows no load on processors or disks, so that naps and the probe are as on a
/// quiet server.
#[tokio::test]
async fn a_session_in_a_transaction_is_seen_through_a_pooler_too() {
    let Some(pooler) = PgBouncer::start(postgres().port(), 1) else {
        eprintln!("skipped: PgBouncer is not installed (apt-get install pgbouncer)");
        return;
    };
    let database = Database::create().await;
    let direct = format!("127.0.0.1:{}/", postgres().port());
    let through = database.url().replace(&direct, &format!("127.0.0.1:{}/", pooler.port));
    let mut other = PgConnection::connect(&database.url()).await.unwrap();
    sqlx::query("BEGIN").execute(&mut other).await.unwrap();
    sqlx::query("SELECT 1").execute(&mut other).await.unwrap();
    let found = paces(&worker_at(through).await).await;
    assert!(found.iter().all(|(ratio, _)| *ratio >= 12.0), "{found:?}");
    other.close().await.unwrap();
}

/// Also in naps between groups, and while groups are written.
#[tokio::test]
async fn a_backfill_that_finds_its_pace_counts_every_row() {
    let database = Database::create().await;
    let world = worker_at(database.url()).await;
    world.sql(&format!("{EVENTS}; {}; ANALYZE events", random_events(2, 15_000))).await;
    world.init().await.unwrap();
    let done = world.backfill("2026-01-03", false).await;
    assert_eq!((done.succeeded, done.left), (2, 0), "{done:?}");
    world.assert_verified("2026-01-03").await;
    // The naps of a day would have taken a second, so that it looked first.
    let (ratio, hold) = world.worker.governor.found_pace().unwrap();
    assert!((0.0..=30.0).contains(&ratio), "{ratio} {hold}");
    // So does a comparison.
    let slice = world.slice("2026-01-01");
    let compared = verify::compare(&world.worker, world.rollup(), slice, BUDGET, 3).await.unwrap();
    assert_eq!(compared, Compared::Same);
}

/// The source's rows are read with naps, and those of the table without.
#[tokio::test]
async fn a_comparison_with_naps_finds_every_difference() {
    for across in [false, true] {
        let setup = Setup { source: "nice_ratio = 2", across, ..Setup::default() };
        let world = World::new(&format!("{EVENTS}; {}", random_events(1, 3000)), setup).await;
        world.run("2026-01-01").await;
        let (rollup, slice) = (world.rollup(), world.slice("2026-01-01"));
        let compare =
            async || verify::compare(&world.worker, rollup, slice, BUDGET, 3).await.unwrap();
        assert_eq!(compare().await, Compared::Same);
        let one = "UPDATE stats.daily SET events = events + 1 WHERE ctid = (SELECT min(ctid) FROM stats.daily)";
        world.target_sql(one).await;
        let Compared::Drift(1, found) = compare().await else { panic!("no drift") };
        assert_eq!((found.differences, found.examples.len()), (1, 1));
    }
}

/// The events, whose reading begins with a nap.
const NAPPING: &str = "CREATE TABLE nap AS SELECT 0.5 AS seconds; CREATE FUNCTION nap() RETURNS boolean \
    LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(seconds) FROM nap; RETURN true; END'; \
    CREATE VIEW napping AS SELECT e.* FROM (SELECT nap() AS is_awake) AS nap JOIN events e ON is_awake";

/// A server on which nobody else works.
async fn own_server() -> EmbeddedPostgres {
    let start = || {
        let binaries = Binaries::find(&cache()).unwrap();
        EmbeddedPostgres::start(binaries, options(server_directory("alone"))).unwrap()
    };
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let mut session = PgConnection::connect(&server.url("postgres")).await.unwrap();
    for sql in ["ALTER SYSTEM SET autovacuum = off", "SELECT pg_reload_conf()"] {
        sqlx::query(sql).execute(&mut session).await.unwrap();
    }
    session.close().await.unwrap();
    server
}

#[tokio::test]
async fn what_reads_without_rests_is_cancelled_once_others_work() {
    let server = own_server().await;
    for across in [false, true] {
        others_come(&server, across).await;
    }
}

async fn others_come(server: &EmbeddedPostgres, across: bool) {
    let mut other = PgConnection::connect(&server.url("postgres")).await.unwrap();
    let mut database = async |name: &str| {
        let name = format!("{name}_{across}");
        let sql = AssertSqlSafe(format!("CREATE DATABASE {name}"));
        sqlx::query(sql).execute(&mut other).await.unwrap();
        server.url(&name)
    };
    let source = database("source").await;
    let target = if across { Some(database("target").await) } else { None };
    let rollups = DAILY.replace("public.events\"", "public.napping\"\nplan_guard = false");
    let setup = Setup { rollups: &rollups, ..Setup::default() };
    let world = World::at(Urls { source, target }, setup).await;
    world.sql(&format!("{EVENTS}; {}; {NAPPING}", random_events(1, 3000))).await;
    world.init().await.unwrap();
    let (governor, source) = (&world.worker.governor, &world.worker.source);
    let reason = std::cell::OnceCell::new();
    let computed = async || {
        let read = async {
            let report = world.try_run("2026-01-01").await.unwrap();
            if report.outcome == Outcome::Succeeded {
                return Ok(());
            }
            reason.set(report.reason).unwrap();
            Err(())
        };
        governor.while_alone(source, read).await
    };
    // Sessions of Tallymark's own are no others.
    let own = source.begin(Access::ReadOnly, BUDGET, "tallymark").await.unwrap();
    assert_eq!(computed().await, Ok(Ok(())));
    assert_eq!(governor.found_pace(), None);
    own.rollback().await.unwrap();
    world.assert_verified("2026-01-02").await;
    // Then the application begins to work.
    world.reopen("2026-01-01").await;
    world.sql("DELETE FROM events WHERE id % 3 = 0; UPDATE nap SET seconds = 3600").await;
    let before = world.rows().await;
    sqlx::query("BEGIN").execute(&mut other).await.unwrap();
    sqlx::query("SELECT 1").execute(&mut other).await.unwrap();
    assert_eq!(computed().await, Err(Why::Load("other sessions began to work".to_owned())));
    let reason = format!("{:?}", reason.get());
    assert!(reason.contains("canceling statement due to user request"), "{reason}");
    assert_eq!(world.rows().await, before);
    let (ratio, hold) = governor.found_pace().unwrap();
    assert_eq!((ratio, hold.to_string()), (30.0, "sessions of others".to_owned()));
    let busy = "SELECT count(*)::text FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    assert_eq!(world.target_value(busy).await, "0");
    // Beside them it is read by one that rests.
    world.sql("UPDATE nap SET seconds = 0").await;
    world.run("2026-01-01").await;
    world.assert_verified("2026-01-02").await;
    other.close().await.unwrap();
}
