//! The rules for PostgreSQL alone: its clock, and transactions of the target.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use sqlx::Row as _;

use super::super::item::{key, number, text};
use super::super::reopen::reopened;
use super::super::store::postgres::Postgres;
use super::super::store::{Cond, Store as _, StoreError, Update};
use super::super::watermark::lowered;
use super::{FAILURES_MAX, Fixture, ROLLUP, at, outcome, start};
use crate::checkpoint::{
    Checkpoint, CheckpointError, Checkpoints, Claim, ClaimError, ClaimRefused, Created,
    LEASE_MARGIN, Lease, State,
};
use crate::clients::address::{Address, DatabaseUrl};
use crate::clients::db::{Access, Db, Side, Tx};
use crate::embedded::postgres::{Binaries, EmbeddedPostgres, Options};
use crate::model::clock::{Clock as _, SystemClock};

/// Shares the downloaded programs with the integration tests.
const CACHE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/tmp/cache");

/// The server that all tests of this process share. It stops when the process ends.
fn server() -> &'static EmbeddedPostgres {
    static SERVER: OnceLock<EmbeddedPostgres> = OnceLock::new();
    SERVER.get_or_init(|| {
        let binaries = Binaries::find(Path::new(CACHE)).unwrap();
        let name = format!("tallymark-checkpoints-{}", std::process::id());
        let options = Options {
            directory: std::env::temp_dir().join(name),
            max_connections: 200,
            shared_buffers_mb: 32,
            durable: false,
            throwaway: true,
        };
        EmbeddedPostgres::start(binaries, options).unwrap()
    })
}

pub(super) async fn db() -> Db {
    // The first caller starts the server, which blocks.
    let url = tokio::task::spawn_blocking(|| server().url("postgres")).await.unwrap();
    let url = DatabaseUrl::new(format!("{url}?connect_timeout=60")).unwrap();
    Db::new(&Address::Url(url), Side::Target, 30).unwrap()
}

pub(super) async fn begin(db: &Db) -> Tx {
    db.begin(Access::ReadWrite, Duration::from_secs(60), "test").await.unwrap()
}

/// A separate table, not created yet.
pub(super) async fn store() -> Postgres {
    let db = db().await;
    // When sessions create the same schema concurrently, all but one fail.
    let mut tx = begin(&db).await;
    tx.execute("waiting", "SELECT pg_advisory_xact_lock(1)".into()).await.unwrap();
    tx.execute("making", "CREATE SCHEMA IF NOT EXISTS tallymark".into()).await.unwrap();
    tx.commit().await.unwrap();
    Postgres::new(db, &format!("checkpoint_{:016x}", fastrand::u64(..)))
}

/// Checkpoints that use the server's clock, and their database.
pub(super) async fn checkpoints() -> (Checkpoints, Db) {
    let checkpoints = Checkpoints::new(Arc::new(store().await), FAILURES_MAX);
    checkpoints.create_table().await.unwrap();
    (checkpoints, db().await)
}

fn wish(now: DateTime<Utc>) -> Claim<'static> {
    let deadline = now + TimeDelta::seconds(600);
    Claim { rollup: ROLLUP, slice_start: start(), definition: "d", now, deadline }
}

/// Otherwise a worker whose clock is a day ahead would take every lease, and one whose clock is
/// behind would get an expired lease.
#[tokio::test]
async fn a_lease_is_judged_by_the_servers_clock_whatever_the_workers_say() {
    let (checkpoints, _) = checkpoints().await;
    let (now, day) = (SystemClock.now(), TimeDelta::days(1));
    let lease = checkpoints.claim(&wish(now - day)).await.unwrap();
    let length = lease.until() - now;
    // The server receives the statement a moment later, by the same clock.
    assert!(length >= TimeDelta::seconds(600) && length < TimeDelta::seconds(1200), "{length}");
    for now in [now - day, now, now + day] {
        let refused = checkpoints.claim(&wish(now)).await.unwrap_err();
        let ClaimError::Refused(refused) = refused else { panic!("{refused}") };
        let (owner, until) = (lease.owner().to_owned(), lease.until());
        assert_eq!(refused, ClaimRefused::Leased { owner, until });
    }
    let over = SystemClock.now() - TimeDelta::seconds(1);
    let update = Update::new(key(ROLLUP, start()), Cond::Present)
        .set("lease_until", number(over.timestamp_millis().unsigned_abs()));
    checkpoints.send(update, "test").await.unwrap();
    let lease = checkpoints.claim(&wish(now - day)).await.unwrap();
    assert_eq!((lease.attempt(), lease.is_takeover()), (2, true));
    assert!(lease.until() - SystemClock.now() <= TimeDelta::seconds(600) + LEASE_MARGIN);
}

async fn results(db: &Db, table: &str) -> i64 {
    let mut tx = begin(db).await;
    let row = tx.row("counting", format!("SELECT count(*) AS n FROM {table}")).await.unwrap();
    tx.rollback().await.unwrap();
    row.get("n")
}

#[tokio::test]
async fn a_result_and_its_checkpoint_are_committed_together_or_not_at_all() {
    let (checkpoints, db) = checkpoints().await;
    let table = format!("result_{:016x}", fastrand::u64(..));
    let mut tx = begin(&db).await;
    tx.execute("making", format!("CREATE TABLE {table} ()")).await.unwrap();
    tx.commit().await.unwrap();
    let lease = checkpoints.claim(&wish(SystemClock.now())).await.unwrap();
    for is_committed in [false, true] {
        let mut tx = begin(&db).await;
        let insert = format!("INSERT INTO {table} DEFAULT VALUES");
        tx.execute("replacing", insert).await.unwrap();
        let completed = checkpoints.complete_within(&lease, &outcome(), at(0), Some(&mut tx)).await;
        assert_eq!(completed.unwrap(), State::Succeeded);
        // Other sessions see neither before the commit.
        let found = checkpoints.get(ROLLUP, start()).await.unwrap().unwrap();
        assert_eq!((found.state, results(&db, &table).await), (State::Running, 0));
        if is_committed {
            tx.commit().await.unwrap()
        } else {
            tx.rollback().await.unwrap()
        }
        let state = checkpoints.get(ROLLUP, start()).await.unwrap().unwrap().state;
        let expected = if is_committed { (State::Succeeded, 1) } else { (State::Running, 0) };
        assert_eq!((state, results(&db, &table).await), expected);
    }
}

#[tokio::test]
async fn an_attempt_that_lost_its_lease_completes_nothing_in_a_transaction_either() {
    let (checkpoints, db) = checkpoints().await;
    let lease = checkpoints.claim(&wish(SystemClock.now())).await.unwrap();
    let taken = Update::new(key(ROLLUP, start()), Cond::Present).increment("attempt");
    checkpoints.send(taken, "test").await.unwrap();
    let mut tx = begin(&db).await;
    let completed = checkpoints.complete_within(&lease, &outcome(), at(0), Some(&mut tx)).await;
    assert!(matches!(completed, Err(CheckpointError::LostLease(_))), "{completed:?}");
    tx.rollback().await.unwrap();
}

#[tokio::test]
async fn a_refused_reopening_leaves_what_its_transaction_did_before() {
    let (checkpoints, db) = checkpoints().await;
    let (one, two) = (key(ROLLUP, at(0)), key(ROLLUP, at(60)));
    let mut tx = begin(&db).await;
    let before = Update::new(one.clone(), Cond::Absent).set("state", text("stale"));
    checkpoints.store.update(before, "test", Some(&mut tx)).await.unwrap();
    let updates = vec![
        Update::new(one.clone(), Cond::Present).set("state", text("failed")),
        Update::new(two, Cond::Present).set("state", text("failed")),
    ];
    assert!(!checkpoints.store.update_all(updates, "test", Some(&mut tx)).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(checkpoints.item(one).await.unwrap().unwrap()["state"], text("stale"));
}

/// The server ends the transaction of a frozen worker after a time that is longer than a lock is
/// waited for elsewhere.
#[tokio::test]
async fn a_single_write_waits_until_the_server_ends_a_frozen_transaction() {
    let (checkpoints, db) = checkpoints().await;
    let it = || Update::new(key(ROLLUP, at(0)), Cond::All(vec![])).set("state", text("stale"));
    checkpoints.store.update(it(), "test", None).await.unwrap();
    let mut frozen = begin(&db).await;
    let limit = "SET LOCAL idle_in_transaction_session_timeout = '7s'";
    frozen.execute("limiting", limit.into()).await.unwrap();
    checkpoints.store.update(it(), "test", Some(&mut frozen)).await.unwrap();
    checkpoints.store.update(it(), "test", None).await.unwrap();
    frozen.commit().await.unwrap_err();
}

/// A coarse slice that is claimed before the rows of a finer one commit would read the old rows, and
/// nothing would reopen it.
#[tokio::test]
async fn a_first_claim_waits_for_a_transaction_that_found_no_checkpoint() {
    let (checkpoints, db) = checkpoints().await;
    let mut tx = begin(&db).await;
    let reopened = checkpoints.reopen_within(ROLLUP, start(), "an hour changed", at(0), &mut tx);
    reopened.await.unwrap();
    let claimed = async {
        loop {
            match checkpoints.claim(&wish(SystemClock.now())).await {
                Ok(lease) => break lease,
                // The wait for a lock has a limit.
                Err(error) => assert!(error.to_string().contains("lock timeout"), "{error}"),
            }
        }
    };
    let mut claimed = std::pin::pin!(claimed);
    let id = "SELECT pg_current_xact_id()::xid::text AS id";
    let id: String = tx.row("looking", id.into()).await.unwrap().get("id");
    let waiting =
        format!("SELECT count(*) AS n FROM pg_locks WHERE NOT granted AND transactionid = '{id}'");
    let is_waiting = async {
        loop {
            let mut look = begin(&db).await;
            let row = look.row("looking", waiting.clone()).await.unwrap();
            look.rollback().await.unwrap();
            if row.get::<i64, _>("n") > 0 {
                break;
            }
        }
    };
    tokio::select! {
        lease = &mut claimed => panic!("claimed while the rows were uncommitted: {lease:?}"),
        () = is_waiting => {}
    }
    tx.commit().await.unwrap();
    let lease = claimed.await;
    // A checkpoint that exists is reopened, also while a worker has it.
    let mut tx = begin(&db).await;
    let reopened = checkpoints.reopen_within(ROLLUP, start(), "an hour changed", at(0), &mut tx);
    reopened.await.unwrap();
    tx.commit().await.unwrap();
    let state = checkpoints.complete(&lease, &outcome(), at(0)).await.unwrap();
    assert_eq!(state, State::Stale);
}

#[tokio::test]
async fn a_store_that_is_elsewhere_refuses_a_transaction_of_the_target() {
    let (fixture, db) = (Fixture::in_dynamodb().await, db().await);
    let lease = fixture.claim(0).await.unwrap();
    let mut tx = begin(&db).await;
    let checkpoints = &fixture.checkpoints;
    let completed = checkpoints.complete_within(&lease, &outcome(), at(1), Some(&mut tx)).await;
    assert!(completed.unwrap_err().to_string().contains("within a transaction of the target"));
    let found = checkpoints.get(ROLLUP, start()).await.unwrap().unwrap();
    assert_eq!(found.state, State::Running);
    assert!(!checkpoints.store.is_in_target());
    tx.rollback().await.unwrap();
}

/// Completes an hour and reopens its day in one transaction.
async fn complete(checkpoints: &Checkpoints, db: &Db, lease: &Lease) -> Result<(), String> {
    let (mut tx, words) = (begin(db).await, |error: StoreError| error.to_string());
    let completed = checkpoints.complete_within(lease, &outcome(), at(0), Some(&mut tx)).await;
    completed.map_err(|error| error.to_string())?;
    let day = start();
    let updates =
        vec![reopened("daily", day, "an hour changed", at(0), false), lowered("daily", day, false)];
    let reopened = checkpoints.store.update_all(updates, "reopen", Some(&mut tx)).await;
    assert!(reopened.map_err(words)?);
    tx.commit().await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn hours_that_complete_at_once_and_reopen_one_day_never_wait_in_a_circle() {
    const HOURS: u64 = 24;
    let (checkpoints, db) = checkpoints().await;
    let mut leases = Vec::new();
    for hour in 0..HOURS {
        let slice_start = start() + TimeDelta::hours(hour.cast_signed());
        let wish = Claim { rollup: "hourly", slice_start, ..wish(SystemClock.now()) };
        leases.push(checkpoints.claim(&wish).await.unwrap());
    }
    let done = join_all(leases.iter().map(async |lease| {
        // The wait for a lock has a limit. On a machine that stood still the test tries again.
        while let Err(error) = complete(&checkpoints, &db, lease).await {
            assert!(error.contains("lock timeout"), "{error}");
        }
    }));
    done.await;
    let from = start();
    let hours = checkpoints.range("hourly", from, from + TimeDelta::days(1)).await.unwrap();
    let is_done = |state: State| state == State::Succeeded;
    assert_eq!(hours.iter().filter(|hour| is_done(hour.state)).count(), leases.len());
    let day = checkpoints.get("daily", start()).await.unwrap().unwrap();
    assert_eq!((day.state, day.dirty), (State::Stale, HOURS));
}

#[tokio::test]
async fn a_table_is_made_once_and_one_of_other_columns_is_refused() {
    let (store, db) = (store().await, db().await);
    for missing in [store.describe().await.map(drop), store.get(key(ROLLUP, at(0))).await.map(drop)]
    {
        assert!(matches!(missing, Err(StoreError::NoTable { .. })), "{missing:?}");
    }
    assert_eq!(store.create().await.unwrap(), Created::Created);
    assert_eq!(store.create().await.unwrap(), Created::AlreadyThere);
    assert_eq!(store.describe().await.unwrap().status, "ACTIVE");
    let mut tx = begin(&db).await;
    let alter = format!("ALTER TABLE {} ADD COLUMN more int", store.table());
    tx.execute("altering", alter).await.unwrap();
    tx.commit().await.unwrap();
    let wrong = store.create().await.unwrap_err();
    assert!(matches!(wrong, StoreError::WrongTable { .. }), "{wrong}");
    assert!(wrong.to_string().contains("more integer"), "{wrong}");
}

/// Runs one statement that returns one value.
async fn value<T>(db: &Db, sql: String) -> T
where
    for<'r> T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    let mut tx = begin(db).await;
    let row = tx.row("asking", sql).await.unwrap();
    tx.commit().await.unwrap();
    row.get(0)
}

/// A worker that is frozen between two messages would keep its locks from the others.
#[tokio::test]
async fn a_write_reaches_the_server_in_one_message_with_its_commit() {
    let (checkpoints, db) = checkpoints().await;
    let table = checkpoints.table();
    let mut tx = begin(&db).await;
    for sql in [
        format!("CREATE TABLE {table}_log (message text)"),
        format!(
            "CREATE FUNCTION {table}_note() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN INSERT INTO {table}_log VALUES (current_query()); RETURN NULL; END $$"
        ),
        format!("CREATE TRIGGER note AFTER INSERT ON {table} EXECUTE FUNCTION {table}_note()"),
    ] {
        tx.execute("preparing", sql).await.unwrap();
    }
    tx.commit().await.unwrap();
    checkpoints.claim(&wish(SystemClock.now())).await.unwrap();
    let message: String = value(&db, format!("SELECT message FROM {table}_log")).await;
    assert!(message.starts_with("BEGIN ") && message.ends_with("; COMMIT"), "{message}");
}

/// The server may end the transaction that the reads of a tick share.
#[tokio::test]
async fn reads_that_share_a_transaction_see_every_write_and_survive_its_end() {
    let (checkpoints, db) = checkpoints().await;
    checkpoints.read_together(false);
    assert_eq!(checkpoints.get(ROLLUP, start()).await.unwrap(), None);
    checkpoints.claim(&wish(SystemClock.now())).await.unwrap();
    let state = |found: Option<Checkpoint>| found.map(|it| it.state);
    assert_eq!(state(checkpoints.get(ROLLUP, start()).await.unwrap()), Some(State::Running));
    let table = checkpoints.table();
    let end = format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE state = 'idle in transaction' AND query LIKE '%{table}%'"
    );
    assert_eq!(value::<i64>(&db, end).await, 1, "one transaction serves the reads");
    assert_eq!(state(checkpoints.get(ROLLUP, start()).await.unwrap()), Some(State::Running));
    checkpoints.read_apart().await;
}
