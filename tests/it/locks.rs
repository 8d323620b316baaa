//! Locks that others hold, and statements that they cancel. Each is reported with its holder,
//! counts as no failure, and is waited for only up to a limit.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tallymark::checkpoint::{BackfillState, State};
use tallymark::clients::db::{Access, DbErrorKind};
use tallymark::model::clock::{Clock as _, Deadline, VirtualClock};
use tallymark::model::hint::Hinted;
use tallymark::work::backfill::{self, BatchLimits, BatchOptions, Silent};
use tallymark::work::report::Outcome;
use tallymark::work::slice_run::{self, RunOptions};

use crate::cli::is_documented;
use crate::support::cli::{Place, daily};
use crate::support::until;
use crate::support::world::{DAILY, EVENTS, Setup, World, instant, random_events};
use tallymark::model::slice::Order;

/// A session named `migration` that has begun a transaction and run `sql`.
async fn holding(url: &str, sql: &str) -> PgConnection {
    let mut holder = PgConnection::connect(url).await.unwrap();
    for sql in ["SET application_name = 'migration'", "BEGIN", sql] {
        sqlx::query(sqlx::AssertSqlSafe(sql.to_owned())).execute(&mut holder).await.unwrap();
    }
    holder
}

async fn world(clock: &Arc<VirtualClock>, across: bool) -> World {
    let clock = Arc::<VirtualClock>::clone(clock);
    let setup = Setup { clock, across, concurrency: 1, ..Setup::default() };
    World::new(&format!("{EVENTS}; {}", random_events(2, 50)), setup).await
}

/// The statement that locks, and the slice's report about it.
const LOCKS: [(&str, &str); 6] = [
    ("LOCK TABLE events", "public.events is locked by pid "),
    ("ALTER TABLE events RENAME TO others", "public.events is locked by pid "),
    ("LOCK TABLE stats.daily", "stats.daily is locked by pid "),
    ("LOCK TABLE stats.daily IN SHARE MODE", "stats.daily is locked by pid "),
    ("LOCK TABLE tallymark.slice IN EXCLUSIVE MODE", "tallymark.slice is locked by pid "),
    ("UPDATE tallymark.slice SET rollup = rollup", "rows of tallymark.slice may be locked by pid "),
];

#[tokio::test]
async fn who_locks_a_table_is_named_and_no_failure_is_counted() {
    let clock = Arc::new(VirtualClock::new(instant("2026-01-20")));
    let world = world(&clock, false).await;
    world.backfill("2026-01-03", false).await;
    for (lock, words) in LOCKS {
        world.reopen("2026-01-01").await;
        let holder = holding(&world.urls.source, lock).await;
        let ended = world.run("2026-01-01").await;
        let reason = ended.reason.clone().unwrap_or_default();
        assert_eq!(ended.outcome, Outcome::Yielded, "{lock}: {ended:?}");
        assert!(reason.contains(words), "{lock}: {reason}");
        assert!(reason.contains(", migration) since 20"), "{lock}: {reason}");
        // One slice's row must not hold others back.
        assert_eq!(ended.held_back().is_some(), !lock.starts_with("UPDATE"), "{lock}");
        let checkpoint = world.checkpoint("2026-01-01").await.unwrap();
        assert_eq!((checkpoint.state, checkpoint.failures), (State::Yielded, 0), "{lock}");
        holder.close().await.unwrap();
        assert!(world.run("2026-01-01").await.is_success(), "{lock}");
    }
    // A prepared transaction has no session.
    world.sql("BEGIN; LOCK TABLE events; PREPARE TRANSACTION 'night'").await;
    world.reopen("2026-01-01").await;
    let reason = world.run("2026-01-01").await.reason.unwrap_or_default();
    world.sql("ROLLBACK PREPARED 'night'").await;
    assert!(
        reason.contains("public.events is locked by the prepared transaction 'night'"),
        "{reason}"
    );
    world.verify_all("2026-01-03").await;
}

#[tokio::test]
async fn a_locked_table_is_waited_for_no_longer_than_a_quarter_of_an_hour() {
    let clock = Arc::new(VirtualClock::new(instant("2026-01-20")));
    let world = world(&clock, true).await;
    let rollup = world.rollup();
    world.backfill("2026-01-02", false).await;
    let (to, order) = (instant("2026-01-03"), Order::NewestFirst);
    let plan = backfill::plan(&world.worker, rollup, rollup.start, to, order, true).await.unwrap();
    let holder = holding(&world.urls.source, "LOCK TABLE events").await;
    let (options, limits) = (RunOptions::default(), BatchLimits::default());
    // The less time a slice has, the sooner it gives up a lock: 60 tries of less than a second.
    let budget = Duration::from_secs(1);
    let batch = BatchOptions { concurrency: 1, budget, deadline: None, options, limits };
    let before = clock.slept();
    let ended = backfill::run(&world.worker, rollup, &plan, batch, &Silent).await.unwrap_err();
    let text = ended.error.in_one_line();
    assert!(
        text.contains("public.events is locked by pid ") && text.contains("15 minutes"),
        "{text}"
    );
    assert!((clock.slept() - before).as_secs() >= 600, "{:?}", clock.slept() - before);
    for start in ["2026-01-01", "2026-01-02"] {
        let failures = world.checkpoint(start).await.map_or(0, |checkpoint| checkpoint.failures);
        assert_eq!(failures, 0, "{start}");
    }
    holder.close().await.unwrap();
    world.backfill("2026-01-03", false).await;
    world.verify_all("2026-01-03").await;
}

#[tokio::test]
async fn check_names_who_locks_a_table() {
    let (place, _database) = Place::with_events(1).await;
    place.run(&["init"]).good();
    let holder = holding(&place.source_url, "LOCK TABLE events").await;
    let check = place.run(&["check"]);
    let words = check.out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words.contains("public.events is locked by pid "), "{words}");
    assert_eq!(check.code, Some(1), "{check:?}");
    let verify = place.run(&["verify"]);
    assert!(verify.out.contains("nothing was compared"), "{verify:?}");
    assert_eq!(verify.code, Some(1), "{verify:?}");
    holder.close().await.unwrap();
}

/// A command that waits for another worker's slice names that worker and the end of its lease.
#[tokio::test]
async fn who_has_a_slices_lease_is_told() {
    let clock = Arc::new(VirtualClock::new(instant("2026-01-20")));
    let world = world(&clock, false).await;
    let request = tallymark::checkpoint::Claim {
        rollup: "daily",
        slice_start: instant("2026-01-01"),
        definition: "test",
        now: clock.now(),
        deadline: clock.now() + chrono::TimeDelta::minutes(5),
    };
    let lease = world.worker.checkpoints.claim(&request).await.unwrap();
    let ended = world.run("2026-01-01").await;
    let reason = ended.reason.unwrap_or_default();
    assert_eq!(ended.outcome, Outcome::Leased);
    let process = format!("(pid {} on ", std::process::id());
    assert!(reason.contains(&process) && reason.contains("until 2026-01-20T00:05:0"), "{reason}");
    drop(lease);
}

/// PostgreSQL has one code for both, and tells them apart only in a translated text.
#[tokio::test]
async fn a_statement_that_an_operator_cancels_counts_for_nobody_and_one_that_is_too_slow_does() {
    let clock = Arc::new(VirtualClock::new(instant("2026-01-20")));
    let rollups = DAILY.replace("public.events", "public.slow");
    let setup = Setup {
        clock: Arc::<VirtualClock>::clone(&clock),
        rollups: &rollups,
        concurrency: 1,
        ..Setup::default()
    };
    let sql = format!(
        "{EVENTS}; {}; CREATE FUNCTION nap() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(120); \
         RETURN true; END'; CREATE VIEW slow AS SELECT events.* FROM events CROSS JOIN LATERAL nap()",
        random_events(2, 50)
    );
    let world = World::new(&sql, setup).await;
    let operator = async {
        let mut operator = PgConnection::connect(&world.urls.source).await.unwrap();
        let cancels = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
            AND state = 'active' AND wait_event = 'PgSleep' AND pid <> pg_backend_pid()";
        until(cancels, async || {
            let cancelled = sqlx::query_scalar::<_, bool>(cancels).fetch_all(&mut operator);
            cancelled.await.unwrap().pop()
        })
        .await;
    };
    let deadline = Deadline::after(&*clock, Duration::from_secs(600));
    let slice = world.slice("2026-01-01");
    let options = RunOptions::default();
    let run = slice_run::run_slice(&world.worker, world.rollup(), slice, deadline, options);
    let (ended, ()) = tokio::join!(run, operator);
    let ended = ended.unwrap();
    assert_eq!(ended.outcome, Outcome::Yielded, "{ended:?}");
    let checkpoint = world.checkpoint("2026-01-01").await.unwrap();
    assert_eq!((checkpoint.state, checkpoint.failures), (State::Yielded, 0), "{checkpoint:?}");

    let db = &world.worker.source;
    let short = Duration::from_millis(200);
    let mut tx = db.begin(Access::ReadOnly, short, "test").await.unwrap();
    let error = tx.row("sleeping", "SELECT pg_sleep(120)".into()).await.unwrap_err();
    assert_eq!(error.kind(), DbErrorKind::Cancelled, "{error}");
}

/// A fanned-out backfill whose slices are all done is shown as done before a tick has recorded it.
#[tokio::test]
async fn status_shows_a_backfill_as_done_when_its_slices_are() {
    let (place, _database) = Place::with_events(2).await;
    place.run(&["init"]).good();
    place.run(&["backfill", "daily", "--yes"]).good();
    let store = place.checkpoints();
    let config = tallymark::config::Config::parse(
        &place.config(),
        &std::fs::read_to_string(place.config()).unwrap(),
        &|name| (name != "TALLYMARK_TABLE").then(|| place.source_url.clone()),
    )
    .unwrap();
    let rollup = &config.rollups[0];
    let now = tallymark::model::clock::SystemClock.now();
    let range = (rollup.start, rollup.start + chrono::TimeDelta::days(2));
    let order = Order::NewestFirst;
    let mut backfill =
        tallymark::checkpoint::Backfill::new(rollup, range, order, false, "test", now);
    assert!(store.start_backfill(&mut backfill).await.unwrap().is_none());
    let definition = store.get("daily", rollup.start).await.unwrap().unwrap().definition.unwrap();
    backfill.definition = definition;
    backfill.state = BackfillState::Running;
    assert!(store.write_backfill(&mut backfill).await.unwrap());
    let before = store.backfill("daily", &backfill.id).await.unwrap().unwrap();
    let status = place.run(&["status"]).good();
    assert!(status.out.contains("backfill done"), "{status:?}");
    let status = place.json(&["backfill", "status", "daily"]);
    is_documented(&status, "backfill", 2);
    assert_eq!(status["backfill"]["state"], "done");
    assert_eq!(place.json(&["backfill", "list"])["backfills"][0]["state"], "done");
    // Nothing was written.
    assert_eq!(store.backfill("daily", &backfill.id).await.unwrap().unwrap(), before);
    place.configure(&daily(2));
}
