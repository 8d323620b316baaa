//! The guards behind the results. Each of these tests fails if its guard is removed from the code,
//! which `tests/mutations/run` does. docs/RELIABILITY.md has the list.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::AssertSqlSafe;
use tallymark::checkpoint::{Claim, Lease, State, Yield};
use tallymark::clients::db::Access;
use tallymark::fanout;
use tallymark::model::clock::{Clock as _, Deadline, ManualClock, SystemClock};
use tallymark::source::SliceJob;
use tallymark::source::changes::column;
use tallymark::target::{Chunk, StageProgress, StatementOptions, TargetError};
use tallymark::tick;
use tallymark::work::empty;
use tallymark::work::ready;
use tallymark::work::report::{Outcome, SliceReport};
use tallymark::work::slice_run::{self, RunOptions};

use crate::support::polls::{killed, sweep};
use crate::support::world::{
    BUDGET, DAILY, EVENTS, PAST_LEASE, Setup, World, clock, dynamo_client, install_capture, instant,
};

const MINUTE: Duration = Duration::from_secs(60);

/// The slice that most of these tests use, and its middle.
const DAY: &str = "2026-01-01";
const NOON: &str = "2026-01-01T12:00:00Z";

/// An event in each hour of [`DAY`], each in a group of its own.
const HOURS: &str = "INSERT INTO events (created_at, kind, amount) SELECT '2026-01-01Z'::timestamptz + \
    n * interval '1 hour', chr(97 + n), 10 FROM generate_series(0, 23) n";

async fn world(across: bool) -> (World, Arc<ManualClock>) {
    let clock = Arc::new(clock("2026-01-02T12:00:00Z"));
    let setup = Setup { across, clock: clock.clone(), ..Setup::default() };
    (World::new(&format!("{EVENTS}; {HOURS}"), setup).await, clock)
}

/// Claims [`DAY`] as a worker does.
async fn claim(world: &World) -> Lease {
    let (rollup, now) = (world.rollup(), world.worker.clock.now());
    let claim = Claim {
        rollup: &rollup.name,
        slice_start: instant(DAY),
        definition: &rollup.definition(),
        now,
        deadline: now + BUDGET,
    };
    world.worker.checkpoints.claim(&claim).await.unwrap()
}

/// The only limit is the time, so that the shrink guard does not refuse before the guard under
/// test.
const UNGUARDED: StatementOptions<'_> = StatementOptions {
    shrink: None,
    timeout: BUDGET,
    governor: None,
    nap: None,
    last: None,
    coarse: &[],
};

/// Stages the range from `from` to `end`.
async fn stage(
    world: &World,
    lease: &Lease,
    from: StageProgress,
    end: DateTime<Utc>,
) -> Result<StageProgress, TargetError> {
    let shape = ready::check(&world.worker, world.rollup()).await.unwrap();
    let (rollup, slice) = (world.rollup(), world.slice(DAY));
    let job = SliceJob { rollup, shape: &shape, slice, open_until: None };
    let chunk = Chunk { source: None, lease, job };
    world.worker.target.stage_chunk(&chunk, from, end, UNGUARDED).await
}

/// Replaces [`DAY`] by the stage.
async fn merge(world: &World, lease: &Lease) -> Result<u64, TargetError> {
    let shape = ready::check(&world.worker, world.rollup()).await.unwrap();
    let (rollup, slice, target) = (world.rollup(), world.slice(DAY), &world.worker.target);
    let job = SliceJob { rollup, shape: &shape, slice, open_until: None };
    let replaced = target.replace_from_stage(lease, job, UNGUARDED).await?;
    Ok(replaced.rows_read)
}

/// A worker that stages half of [`DAY`] and yields.
async fn yields_at_noon(world: &World) {
    let lease = claim(world).await;
    stage(world, &lease, StageProgress::at_start(world.slice(DAY)), instant(NOON)).await.unwrap();
    let now = world.worker.clock.now();
    world.worker.checkpoints.yield_(&lease, &Yield::default(), now).await.unwrap();
}

/// After each of several changes the worker is killed at another await. The marker always counts
/// the present rows.
#[tokio::test]
async fn wherever_a_worker_is_killed_rows_and_marker_agree() {
    for across in [false, true] {
        let (world, clock) = world(across).await;
        world.run(DAY).await;
        for polls in sweep(1, || 1) {
            world
                .sql("INSERT INTO events (created_at) SELECT created_at FROM events LIMIT 1")
                .await;
            clock.advance(PAST_LEASE);
            world.reopen(DAY).await;
            let ended = killed(world.run(DAY), polls).await;
            let agree = "SELECT rows_read = (SELECT sum(events) FROM stats.daily) \
                         AND groups = (SELECT count(*) FROM stats.daily) FROM tallymark.slice";
            assert_eq!(world.target_value(agree).await, "true", "killed at await {polls}");
            // Remains of a killed worker may keep the next one from succeeding.
            if ended.is_some_and(|report| report.is_success()) {
                break;
            }
        }
        world.verify_all("2026-01-02").await;
    }
}

/// The first half is used again, except after a change in it or by another definition.
#[tokio::test]
async fn a_slice_goes_on_from_what_was_staged_before_only_if_nothing_has_changed() {
    let (world, _) = world(false).await;
    yields_at_noon(&world).await;
    let done = world.run(DAY).await.completion.unwrap();
    assert_eq!((done.rows_read, done.chunks), (24, 2), "the test is about staged chunks");
    world.verify_all("2026-01-02").await;

    world.reopen(DAY).await;
    yields_at_noon(&world).await;
    world.sql("UPDATE events SET amount = 11 WHERE kind = 'a'").await;
    let done = world.replay(DAY).await.completion.unwrap();
    assert_eq!((done.rows_read, done.chunks), (24, 1));
    world.verify_all("2026-01-02").await;
}

#[tokio::test]
async fn a_slice_does_not_go_on_from_what_another_definition_staged() {
    let (world, _) = world(false).await;
    yields_at_noon(&world).await;
    let world = world.redefined(&DAILY.replace("bucket =", "where = \"kind <> 'a'\"\nbucket ="));
    let done = world.run(DAY).await.completion.unwrap();
    assert_eq!((done.rows_read, done.chunks), (23, 1));
    world.assert_verified("2026-01-02").await;
}

/// When PostgreSQL crashes it empties the stage together with the progress, while the worker
/// survives.
#[tokio::test]
async fn a_crash_that_empties_the_stage_erases_nothing() {
    let (world, _) = world(false).await;
    world.run(DAY).await;
    world.reopen(DAY).await;
    let lease = claim(&world).await;
    let slice = world.slice(DAY);
    let at_noon =
        stage(&world, &lease, StageProgress::at_start(slice), instant(NOON)).await.unwrap();
    world.target_sql("TRUNCATE tallymark.progress, tallymark.stage_daily").await;
    let second = stage(&world, &lease, at_noon, slice.end()).await;
    assert!(matches!(second, Err(TargetError::Forgotten)), "{second:?}");
    let merged = merge(&world, &lease).await;
    assert!(matches!(merged, Err(TargetError::Forgotten)), "{merged:?}");
    world.verify_all("2026-01-02").await;
}

/// If it were staged twice, its rows would count twice.
#[tokio::test]
async fn a_chunk_is_staged_once() {
    let (world, _) = world(false).await;
    let lease = claim(&world).await;
    let slice = world.slice(DAY);
    let at_noon =
        stage(&world, &lease, StageProgress::at_start(slice), instant(NOON)).await.unwrap();
    stage(&world, &lease, at_noon, slice.end()).await.unwrap();
    let again = stage(&world, &lease, at_noon, slice.end()).await;
    assert!(matches!(again, Err(TargetError::Forgotten)), "{again:?}");
    assert_eq!(merge(&world, &lease).await.unwrap(), 24);
    world.verify_all("2026-01-02").await;
}

/// It sleeps past its lease, and wakes when the newer attempt is about to merge.
#[tokio::test]
async fn a_stale_attempt_does_not_merge_what_a_newer_one_has_staged() {
    let (world, clock) = world(false).await;
    let slice = world.slice(DAY);
    let zombie = claim(&world).await;
    clock.advance(PAST_LEASE);
    let lease = claim(&world).await;
    stage(&world, &lease, StageProgress::at_start(slice), slice.end()).await.unwrap();
    let merged = merge(&world, &zombie).await;
    assert!(matches!(merged, Err(TargetError::Fenced { mine: 1, newest: 2 })), "{merged:?}");
    assert_eq!(world.rows().await, [""; 0]);
    assert_eq!(merge(&world, &lease).await.unwrap(), 24);
    world.verify_all("2026-01-02").await;
}

/// The reserve is for recording how the attempt ended. The clock stands still, so that none of it
/// passes.
#[tokio::test]
async fn in_the_time_that_is_kept_back_no_work_is_begun() {
    let (world, clock) = world(false).await;
    let deadline = Deadline::after(&*clock, Duration::from_millis(400));
    let (rollup, slice) = (world.rollup(), world.slice(DAY));
    let ran = slice_run::run_slice(&world.worker, rollup, slice, deadline, RunOptions::default())
        .await
        .unwrap();
    assert_eq!((ran.outcome, ran.reason.as_deref()), (Outcome::Yielded, Some("budget spent")));
    assert_eq!(world.target_value("SELECT count(*) FROM tallymark.slice").await, "0");
    assert_eq!(world.checkpoint(DAY).await.unwrap().state, State::Yielded);
}

/// Writes the state of a slice's checkpoint by hand. With an unknown word, the item becomes
/// unreadable.
async fn set_state(world: &World, rollup: &str, start: &str, word: &str) {
    let start = instant(start).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let client = dynamo_client().await;
    let update = client.update_item().table_name(world.worker.checkpoints.table());
    update
        .key("pk", text(rollup))
        .key("sk", text(&start))
        .update_expression("SET #state = :word")
        .expression_attribute_names("#state", "state")
        .expression_attribute_values(":word", text(word))
        .send()
        .await
        .unwrap();
}

/// The reopening fails. Only the marks show the change, and they stay for the next tick.
#[tokio::test]
async fn marks_stay_until_their_slices_are_reopened() {
    let rollups = DAILY.replace("bucket =", "late = \"capture\"\nbucket =");
    let clock = Arc::new(clock("2026-01-02T12:00:00Z"));
    let setup = Setup { rollups: &rollups, clock: clock.clone(), ..Setup::default() };
    let world = World::new(&format!("{EVENTS}; {HOURS}"), setup).await;
    install_capture(&world.worker).await;
    let tick = async || {
        let deadline = Deadline::after(&*clock, BUDGET);
        tick::run(&world.worker, clock.now(), deadline, None).await.unwrap()
    };
    tick().await;
    world.sql("DELETE FROM tallymark.mark; UPDATE events SET amount = 11 WHERE kind = 'a'").await;
    set_state(&world, "daily", DAY, "spoilt").await;
    assert!(!tick().await.problems.is_empty(), "the checkpoint cannot be read");
    assert_eq!(world.target_value("SELECT count(*) FROM tallymark.mark").await, "1");
    set_state(&world, "daily", DAY, "succeeded").await;
    assert_eq!(tick().await.slices.len(), 1);
    world.verify_all("2026-01-02").await;
}

/// Four slices a day, and the day that is computed from them.
const COMPOSED: &str = r#"
[[rollup]]
name = "hourly"
from = "public.events"
time = "created_at"
start = "2026-01-01"
slice = "6 hours"
group_by = ["kind"]
measures = { events = "count" }

[[rollup]]
name = "daily"
from = { rollup = "hourly" }
slice = "1 day"
group_by = ["kind"]
measures = ["events"]
"#;

/// The day cannot be reopened. So the hours have not succeeded, though their rows are committed.
/// The next attempt finds nothing to change, and still reopens the day.
#[tokio::test]
async fn a_finer_slice_is_not_complete_before_the_coarse_one_is_reopened() {
    const MORNING: &str = "2026-01-01T06:00:00Z";
    let clock = Arc::new(clock("2026-01-02T00:10:00Z"));
    let setup = Setup { rollups: COMPOSED, clock: clock.clone(), ..Setup::default() };
    let world = World::new(&format!("{EVENTS}; {HOURS}"), setup).await;
    let tick = async || {
        let deadline = Deadline::after(&*clock, BUDGET);
        tick::run(&world.worker, clock.now(), deadline, None).await.unwrap().slices.len()
    };
    assert_eq!(tick().await, 5);
    world.sql("INSERT INTO events (created_at, kind) VALUES ('2026-01-01T07:00Z', 'late')").await;
    world.reopen(MORNING).await;
    set_state(&world, "daily", DAY, "spoilt").await;
    assert!(world.try_run(MORNING).await.is_err(), "the day's checkpoint cannot be read");
    let late = "SELECT count(*) FROM stats.hourly WHERE kind = 'late'";
    assert_eq!(world.target_value(late).await, "1", "it is committed");
    assert_ne!(world.checkpoint(MORNING).await.unwrap().state, State::Succeeded);

    set_state(&world, "daily", DAY, "succeeded").await;
    clock.advance(PAST_LEASE);
    let done = world.run(MORNING).await.completion.unwrap();
    assert_eq!((done.inserted, done.updated, done.deleted), (0, 0, 0), "nothing left to change");
    let day = world.worker.checkpoints.get("daily", instant(DAY)).await.unwrap().unwrap();
    assert_eq!(day.state, State::Stale);
    assert_eq!(tick().await, 1);
    assert_eq!(world.target_value("SELECT sum(events) FROM stats.daily").await, "25");
}

/// A database whose clock is four days ahead of its transactions' starts, and tomorrow's slice by
/// them. The slice is over, and every transaction that begins now began before its end.
async fn ahead() -> (World, DateTime<Utc>) {
    let sql = format!(
        "{EVENTS}; CREATE SCHEMA ahead; CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz \
         LANGUAGE sql VOLATILE AS $$ SELECT pg_catalog.clock_timestamp() + interval '4 days' $$; \
         DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = ahead, pg_catalog, public', \
         current_database()); END $$"
    );
    let now = SystemClock.now();
    let clock = Arc::new(ManualClock::new(now + TimeDelta::days(4)));
    let rollups = DAILY.replace("bucket =", "late = \"clock\"\nbucket =");
    let world = World::new(&sql, Setup { rollups: &rollups, clock, ..Setup::default() }).await;
    let start = world.rollup().calendar.containing(now + TimeDelta::days(1)).start();
    (world, start)
}

#[tokio::test]
async fn an_idle_transaction_that_began_before_a_slices_end_is_waited_for() {
    let (world, start) = ahead().await;
    let start = start.to_rfc3339();
    let mut idle = world.pool.begin().await.unwrap();
    sqlx::query("SELECT 1").execute(&mut *idle).await.unwrap();
    let waits = world.run(&start).await;
    let reason = waits.reason.unwrap();
    assert_eq!(waits.outcome, Outcome::Yielded);
    assert!(reason.contains("began before the slice's end"), "{reason}");
    idle.commit().await.unwrap();
    let ran: SliceReport = world.run(&start).await;
    assert_eq!(ran.completion.unwrap().settled_by, "clock");
}

/// It leaves the list of open transactions, and its row is invisible before the commit. Its ID is
/// newer than those that were waited for when it was idle.
#[tokio::test]
async fn who_is_prepared_while_a_slice_waits_is_waited_for() {
    let (mut world, start) = ahead().await;
    world.worker.settle_wait_max = Duration::ZERO;
    let start = start.to_rfc3339();
    let mut writer = world.pool.begin().await.unwrap();
    let write = "INSERT INTO events (created_at) VALUES (pg_catalog.now() + interval '9 days')";
    sqlx::raw_sql(write).execute(&mut *writer).await.unwrap();
    let mut idle = world.pool.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT 1").execute(&mut *idle).await.unwrap();
    assert_eq!(world.run(&start).await.outcome, Outcome::Yielded);
    let write =
        format!("INSERT INTO events (created_at) VALUES ('{start}'); PREPARE TRANSACTION 'a'");
    sqlx::raw_sql(AssertSqlSafe(write)).execute(&mut *idle).await.unwrap();
    writer.commit().await.unwrap();
    let waits = world.run(&start).await;
    let reason = waits.reason.unwrap();
    assert!(reason.starts_with("not settled: the prepared transaction 'a' ("), "{reason}");
    assert_eq!(waits.outcome, Outcome::Yielded);
    world.sql("COMMIT PREPARED 'a'").await;
    assert_eq!(world.run(&start).await.completion.unwrap().rows_read, 1);
}

/// Rows stamped with its start may still be inserted before the first visible row.
#[tokio::test]
async fn no_slice_since_an_idle_transaction_began_is_taken_for_empty() {
    let (world, _) = ahead().await;
    let mut idle = world.pool.begin().await.unwrap();
    let began: DateTime<Utc> =
        sqlx::query_scalar("SELECT now()").fetch_one(&mut *idle).await.unwrap();
    let empty_until = async || {
        let seen = empty::probe(&world.worker, world.rollup()).await.unwrap();
        seen.source_start().unwrap().probed_at
    };
    assert!(empty_until().await <= began);
    idle.commit().await.unwrap();
    assert!(empty_until().await > began);
}

/// It may still write rows stamped with its start.
#[tokio::test]
async fn change_times_since_an_idle_transaction_began_do_not_count_as_seen() {
    let (world, _) = ahead().await;
    let mut idle = world.pool.begin().await.unwrap();
    let began: DateTime<Utc> =
        sqlx::query_scalar("SELECT now()").fetch_one(&mut *idle).await.unwrap();
    let seen = async || {
        let source = &world.worker.source;
        let mut tx = source.begin(Access::ReadOnly, BUDGET, "test").await.unwrap();
        let until = column::seen_until(&mut tx, world.rollup(), Duration::ZERO).await.unwrap();
        tx.rollback().await.unwrap();
        until.unwrap()
    };
    assert!(seen().await <= began);
    idle.commit().await.unwrap();
    assert!(seen().await > began);
}

/// All messages of a backfill are lost. Once its queue has been empty for a while, they are sent
/// again.
#[cfg(feature = "lambda")]
#[tokio::test]
async fn messages_that_are_lost_are_sent_again() {
    use crate::support::sqs::{Faults, Sqs};
    use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
    use tallymark::clients::queue::Queues;
    use tallymark::model::slice::Order;

    let sqs = Sqs::start(1, Faults::default(), MINUTE, 20);
    let config = aws_sdk_sqs::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static("eu-central-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "test"))
        .endpoint_url(sqs.endpoint());
    let client = aws_sdk_sqs::Client::from_conf(config.build());
    let (mut world, clock) = world(false).await;
    world.worker.queues = Some(Queues::new(client, sqs.url("fresh"), sqs.url("backfill")));
    clock.advance(10 * 24 * 60 * MINUTE);
    let tick = async |world: &World| {
        let deadline = Deadline::after(&*clock, BUDGET);
        let report = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
        assert!(report.problems.is_empty(), "{report:?}");
    };
    // Future slices are left out. A request for them returns the same backfill.
    let range = (instant(DAY), Some(instant("9999-12-31T00:00:00Z")));
    let start = async || {
        let (worker, order) = (&world.worker, Order::OldestFirst);
        fanout::start_backfill(worker, world.rollup(), range, order, false, "test").await.unwrap()
    };
    let started = start().await;
    assert_eq!(started.to, clock.now());
    clock.advance(MINUTE);
    assert_eq!(start().await.id, started.id);
    tick(&world).await;
    assert_eq!(sqs.purge("backfill"), 11);
    clock.advance(2 * MINUTE);
    tick(&world).await;
    assert_eq!(sqs.account("backfill").left, 11);
}
