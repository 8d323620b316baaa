//! The spine, from claim to checkpoint, against a real PostgreSQL and a DynamoDB API.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use tallymark::checkpoint::{Claim, State};
use tallymark::model::clock::{Clock, Deadline, SystemClock};
use tallymark::source::SliceJob;
use tallymark::target::{Chunk, StageProgress, StatementOptions, TargetError};
use tallymark::tick;
use tallymark::work::backfill::{self, BatchOptions, Silent};
use tallymark::work::ready;
use tallymark::work::report::{Outcome, SliceReport};
use tallymark::work::slice_run::{self, RunOptions};

use crate::support::Database;
use crate::support::world::{
    BUDGET, DAILY, EVENTS, Setup, Urls, World, batch, clock, daily_expected, instant,
    random_events, records,
};

/// Four groups of one hour of 2026-01-01.
const FOUR_GROUPS: &str = "INSERT INTO events (created_at, kind, entity_id, user_id, amount) \
    SELECT '2026-01-01T05:00Z', kind, 1, 1, 10 \
    FROM unnest(ARRAY['a', 'b', 'c', 'd']) kind, generate_series(1, 10)";

async fn world(sql: &str) -> World {
    World::new(&format!("{EVENTS}; {sql}"), Setup::default()).await
}

/// [`DAILY`] with another line in its definition.
fn daily_with(line: &str) -> String {
    DAILY.replace("bucket =", &format!("{line}\nbucket ="))
}

/// The rows with their physical place and transaction, which differ for a rewritten row.
async fn physical(world: &World) -> Vec<String> {
    records(&world.target, "SELECT xmin, ctid, * FROM stats.daily").await
}

/// A tick at noon of the fourth day. Three days have ended, and the newest comes first.
#[tokio::test]
async fn a_tick_computes_the_due_slices_newest_first() {
    let sql = format!("{EVENTS}; {}", random_events(5, 100));
    let clock = Arc::new(clock("2026-01-04T12:00:00Z"));
    let world = World::new(&sql, Setup { clock: clock.clone(), ..Setup::default() }).await;
    let deadline = Deadline::after(&*clock, BUDGET);
    let report = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
    let starts: Vec<_> = report.slices.iter().map(|slice| slice.start).collect();
    assert_eq!(starts, ["2026-01-03", "2026-01-02", "2026-01-01"].map(instant));
    assert!(report.slices.iter().all(|slice| slice.outcome == Outcome::Succeeded));
    world.verify_all("2026-01-04").await;

    let again = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
    assert!(again.slices.is_empty() && again.problems.is_empty());
}

/// Four concurrent slices over thirty days, with rows in NULL groups.
#[tokio::test]
async fn a_backfill_equals_one_group_by() {
    let world = world(&random_events(30, 200)).await;
    let report = world.backfill("2026-01-31", false).await;
    assert_eq!((report.succeeded, report.rows_read, report.left), (30, 6000, 0));
    world.verify_all("2026-01-31").await;
}

/// No row of the table is rewritten: each keeps its transaction and its place.
#[tokio::test]
async fn a_rerun_that_changes_nothing_rewrites_nothing() {
    let world = world(&random_events(10, 200)).await;
    let first = world.backfill("2026-01-11", false).await;
    let before = physical(&world).await;
    let second = world.backfill("2026-01-11", true).await;
    assert_eq!((second.succeeded, second.groups), (10, first.groups));
    assert_eq!(second.unchanged, first.groups);
    assert_eq!((second.inserted, second.updated, second.deleted), (0, 0, 0));
    assert_eq!(physical(&world).await, before);
    let third = world.backfill("2026-01-11", false).await;
    assert_eq!(third.succeeded, 0, "all had succeeded already");
}

/// The server's counters of the rollup table (rows inserted, updated, deleted, and scans), once all
/// workers have ended and it counts `scans_min` scans. A backend reports its counts at its end at
/// the latest, and they may take a moment to arrive.
async fn counters(world: &World, scans_min: i64) -> (i64, i64, i64, i64) {
    const COUNTS: &str = "SELECT n_tup_ins, n_tup_upd, n_tup_del, seq_scan + coalesce(idx_scan, 0), \
        (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name LIKE 'tallymark%') FROM pg_stat_user_tables \
        WHERE schemaname = 'stats' AND relname = 'daily'";
    world.worker.close().await;
    for _ in 0..200 {
        let (inserted, updated, deleted, scans, workers): (i64, i64, i64, i64, i64) =
            sqlx::query_as(COUNTS).fetch_one(&world.target).await.unwrap();
        if workers == 0 && scans >= scans_min {
            return (inserted, updated, deleted, scans);
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the counters did not arrive");
}

/// The server's counters of the markers: rows read, and scans, once all workers have ended and it
/// counts more scans than `scans`.
async fn markers_read(world: &World, scans: i64) -> (i64, i64) {
    const COUNTS: &str = "SELECT (seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint, \
        (seq_scan + coalesce(idx_scan, 0))::bigint, \
        (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
         AND application_name LIKE 'tallymark%') FROM pg_stat_user_tables \
        WHERE schemaname = 'tallymark' AND relname = 'slice'";
    world.worker.close().await;
    for _ in 0..1200 {
        let (read, seen, workers): (i64, i64, i64) =
            sqlx::query_as(COUNTS).fetch_one(&world.target).await.unwrap();
        if workers == 0 && seen > scans {
            return (read, seen);
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the counters did not arrive");
}

/// A long history must not make each of its slices more expensive.
#[tokio::test]
async fn a_slice_reads_few_of_the_markers_before_it() {
    let first = world(&random_events(10, 200)).await;
    assert_eq!(first.run("2026-01-02").await.outcome, Outcome::Succeeded);
    let history = "INSERT INTO tallymark.slice (rollup, slice_start, slice_end, attempt) \
                   SELECT 'daily', '2025-01-01Z'::timestamptz - n * interval '1 hour', \
                          '2025-01-01Z'::timestamptz - (n - 1) * interval '1 hour', 1 \
                   FROM generate_series(1, 20000) AS n";
    sqlx::query(history).execute(&first.target).await.unwrap();
    // Each process reads some of them at its start.
    let (mut read, mut scans) = markers_read(&first, 0).await;
    let mut of_process = Vec::new();
    for days in [&["2026-01-05"][..], &["2026-01-06", "2026-01-07", "2026-01-08"]] {
        let process = first.redefined(DAILY);
        for day in days {
            assert_eq!(process.run(day).await.outcome, Outcome::Succeeded);
        }
        let before = read;
        (read, scans) = markers_read(&process, scans).await;
        of_process.push(read - before);
    }
    let of_two_slices = of_process[1] - of_process[0];
    assert!(of_two_slices < 1000, "{of_two_slices} markers were read");
}

/// A rerun by PostgreSQL's own counters. A change shows that they would notice.
#[tokio::test]
async fn a_second_backfill_leaves_the_servers_counters_of_written_rows_as_they_are() {
    let first = world(&random_events(10, 200)).await;
    let groups = i64::try_from(first.backfill("2026-01-11", false).await.inserted).unwrap();
    // Each slice reads its rows at least once.
    let (inserted, updated, deleted, scans) = counters(&first, 10).await;
    assert_eq!((inserted, updated, deleted), (groups, 0, 0));
    let second = first.redefined(DAILY);
    assert_eq!(second.backfill("2026-01-11", true).await.succeeded, 10);
    let (inserted, updated, deleted, scans) = counters(&second, scans + 10).await;
    assert_eq!((inserted, updated, deleted), (groups, 0, 0));
    let third = first.redefined(DAILY);
    third.sql("UPDATE events SET amount = amount + 1 WHERE id = 7").await;
    third.backfill("2026-01-11", true).await;
    let (inserted, updated, deleted, _) = counters(&third, scans + 10).await;
    assert_eq!((inserted, updated, deleted), (groups, 1, 0));
}

/// One group vanishes, one changes, one is new, and two stay. Each is counted accordingly.
#[tokio::test]
async fn a_replay_tells_new_changed_vanished_and_unchanged_groups_apart() {
    let world = world(FOUR_GROUPS).await;
    world.run("2026-01-01").await;
    world
        .sql(
            "DELETE FROM events WHERE kind = 'a'; \
             UPDATE events SET amount = 11 WHERE kind = 'b'; \
             INSERT INTO events (created_at, kind) VALUES ('2026-01-01T05:30Z', 'e')",
        )
        .await;
    let done = world.replay("2026-01-01").await.completion.unwrap();
    assert_eq!((done.inserted, done.updated, done.deleted, done.unchanged), (1, 1, 1, 2));
    assert_eq!((done.groups, done.rows_read), (4, 31));
    world.verify_all("2026-01-02").await;
}

/// Most rows are purged. The slice fails for good, the rollup keeps its history, and an operator
/// may confirm the loss.
#[tokio::test]
async fn a_purged_source_does_not_erase_history() {
    let world = world(FOUR_GROUPS).await;
    world.run("2026-01-01").await;
    let before = physical(&world).await;
    world.sql("DELETE FROM events WHERE kind <> 'a'").await;
    let report = world.replay("2026-01-01").await;
    assert_eq!((report.outcome, report.retry_at), (Outcome::Failed, None));
    let reason = report.reason.unwrap();
    assert!(reason.contains("10 rows") && reason.contains("40 were counted"), "{reason}");
    assert_eq!(physical(&world).await, before);
    assert_eq!(world.run("2026-01-01").await.outcome, Outcome::Exhausted);

    let slices = [world.slice("2026-01-01")];
    let batch =
        BatchOptions { options: RunOptions { allow_shrink: true, backfill: None }, ..batch() };
    let rollup = world.rollup();
    let report =
        backfill::replay(&world.worker, rollup, &slices, "meant", batch, &Silent).await.unwrap();
    assert_eq!((report.succeeded, report.deleted), (1, 3));
    world.verify_all("2026-01-02").await;
}

#[tokio::test]
async fn a_slice_before_the_seal_is_never_computed() {
    let rollups = daily_with("seal_before = \"2026-01-02\"");
    let setup = Setup { rollups: &rollups, ..Setup::default() };
    let world = World::new(&format!("{EVENTS}; {}", random_events(3, 50)), setup).await;
    assert_eq!(world.run("2026-01-01").await.outcome, Outcome::Sealed);
    assert!(world.checkpoint("2026-01-01").await.is_none());
    let report = world.backfill("2026-01-04", true).await;
    assert_eq!(report.succeeded, 2);
    let expected = format!(
        "SELECT * FROM ({}) e(bucket, kind) WHERE bucket >= '2026-01-02Z'",
        daily_expected("2026-01-04")
    );
    world.assert_rows(&expected).await;
}

/// The worker's clock is days ahead, and the database's clock decides.
#[tokio::test]
async fn a_slice_is_not_read_before_its_end_by_the_database_clock() {
    let ahead = SystemClock.now() + TimeDelta::days(3);
    let clock = Arc::new(tallymark::model::clock::ManualClock::new(ahead));
    let world = World::new(EVENTS, Setup { clock, ..Setup::default() }).await;
    let slice = world.rollup().calendar.containing(ahead - TimeDelta::days(2));
    let start = slice.start().to_rfc3339();
    let report = world.run(&start).await;
    assert_eq!(report.outcome, Outcome::Yielded);
    assert_eq!(report.retry_at, Some(slice.end() + TimeDelta::minutes(2)));
    let checkpoint = world.checkpoint(&start).await.unwrap();
    assert_eq!((checkpoint.state, checkpoint.failures), (State::Yielded, 0));
    assert_eq!(world.target_value("SELECT count(*) FROM tallymark.slice").await, "0");
}

/// Late rows in the two newest slices are found when the next one ends. An older one is left.
#[tokio::test]
async fn the_newest_slices_run_again_for_late_rows() {
    let rollups = daily_with("lookback = 2");
    let sql = format!("{EVENTS}; {}", random_events(4, 100));
    let clock = Arc::new(clock("2026-01-04T12:00:00Z"));
    let setup = Setup { rollups: &rollups, clock: clock.clone(), ..Setup::default() };
    let world = World::new(&sql, setup).await;
    let tick = async || {
        let deadline = Deadline::after(&*clock, BUDGET);
        let report = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
        report.slices.iter().map(|slice| slice.start).collect::<Vec<DateTime<Utc>>>()
    };
    assert_eq!(tick().await.len(), 3);
    world
        .sql(
            "INSERT INTO events (created_at, kind) \
             SELECT '2026-01-01T09:00Z'::timestamptz + n * interval '1 day', 'late' \
             FROM generate_series(1, 2) n",
        )
        .await;
    clock.advance(std::time::Duration::from_secs(24 * 60 * 60));
    assert_eq!(tick().await, ["2026-01-04", "2026-01-03", "2026-01-02"].map(instant));
    world.verify_all("2026-01-05").await;
    assert!(tick().await.is_empty());
}

/// A rollup with its own conditions and without a dimension, also over a day without rows.
#[tokio::test]
async fn conditions_and_no_dimensions() {
    let rollups = r#"
[[rollup]]
name = "total"
from = "events"
time = "created_at"
start = "2026-01-01"
slice = "1 day"
where = "kind <> 'view' -- NULL is neither"
[rollup.measures]
events = "count"
cheap = { sum = "amount", where = "amount < 500" }
buyers = { distinct = "user_id", where = "kind = 'buy'" }
"#;
    let sql = format!("{EVENTS}; {}", random_events(3, 100));
    let world = World::new(&sql, Setup { rollups, ..Setup::default() }).await;
    let report = world.backfill("2026-01-05", false).await;
    assert_eq!((report.succeeded, report.groups), (4, 3));
    let empty = world.checkpoint("2026-01-04").await.unwrap();
    assert_eq!(empty.state, State::Succeeded);
    assert_eq!(empty.outcome.unwrap().groups, 0);
    world
        .assert_rows(
            "SELECT date_trunc('day', created_at, 'UTC'), count(*), \
             sum(amount) FILTER (WHERE amount < 500), \
             count(DISTINCT user_id) FILTER (WHERE kind = 'buy') \
             FROM events WHERE kind <> 'view' GROUP BY 1",
        )
        .await;
    world.assert_verified("2026-01-05").await;
}

/// The source takes half a second, in which all other workers find the slice leased.
#[tokio::test]
async fn of_fifty_workers_one_works() {
    let sql = format!(
        "{EVENTS}; {FOUR_GROUPS}; CREATE VIEW slow AS WITH wait AS MATERIALIZED \
         (SELECT pg_sleep(0.5)) SELECT e.* FROM wait, events e"
    );
    let rollups = DAILY.replace("public.events", "public.slow");
    let world = World::new(&sql, Setup { rollups: &rollups, ..Setup::default() }).await;
    let workers: Vec<World> = (0..50).map(|_| world.redefined(&rollups)).collect();
    for worker in &workers {
        ready::check(&worker.worker, worker.rollup()).await.unwrap();
    }
    let reports = join_all(workers.iter().map(|worker| worker.run("2026-01-01"))).await;
    let count = |outcome| reports.iter().filter(|report| report.outcome == outcome).count();
    assert_eq!((count(Outcome::Succeeded), count(Outcome::Leased)), (1, 49));
    world.verify_all("2026-01-02").await;
}

/// The same source, counted into its own database and into another one.
#[tokio::test]
async fn another_database_as_target_gives_the_same_rows() {
    let one = world(&random_events(6, 300)).await;
    let target = Some(Database::create().await.url());
    let urls = Urls { source: one.urls.source.clone(), target };
    let other = World::at(urls, Setup::default()).await;
    other.init().await.unwrap();
    one.backfill("2026-01-07", false).await;
    let report = other.backfill("2026-01-07", false).await;
    assert_eq!((report.succeeded, report.rows_read), (6, 1800));
    assert_eq!(one.rows().await, other.rows().await);
    other.verify_all("2026-01-07").await;

    one.sql("UPDATE events SET kind = 'late' WHERE id % 7 = 0").await;
    let before = other.rows().await;
    assert!(other.backfill("2026-01-07", true).await.updated > 0);
    one.backfill("2026-01-07", true).await;
    assert_ne!(other.rows().await, before);
    assert_eq!(one.rows().await, other.rows().await);
    other.verify_all("2026-01-07").await;
}

/// A view that takes a millisecond per row, over `rows` rows of one day.
fn slow_view(rows: u32) -> String {
    format!(
        "{EVENTS}; {}; CREATE VIEW slow AS SELECT e.* FROM events e, \
         LATERAL (SELECT pg_sleep(0.0005) WHERE e.id > 0 OFFSET 0) wait; ANALYZE events",
        random_events(1, rows)
    )
}

/// Whether the machine was too busy for a single chunk within such a small budget, which counts as
/// a failure of the slice, or whether the slice waits afterwards.
fn is_too_busy(report: &SliceReport) -> bool {
    let reason = report.reason.as_deref().unwrap_or_default();
    report.outcome == Outcome::Waiting
        || report.outcome == Outcome::Failed && reason.contains("did not end within the budget")
}

/// Runs the slow slice in invocations of 1.5 s until it ends. Returns their number.
async fn run_in_small_budgets(world: &World) -> usize {
    let mut cursor = DateTime::<Utc>::MIN_UTC;
    for invocation in 1..400 {
        let budget = std::time::Duration::from_millis(1500);
        let deadline = Deadline::after(&SystemClock, budget);
        let slice = world.slice("2026-01-01");
        let options = RunOptions::default();
        let ran =
            slice_run::run_slice(&world.worker, world.rollup(), slice, deadline, options).await;
        // On a busy machine even connecting may take longer, and needs another invocation.
        let Ok(report) = ran else { continue };
        if report.outcome == Outcome::Succeeded {
            let done = report.completion.unwrap();
            let count = records(&world.pool, "SELECT count(*) FROM events").await;
            assert_eq!(format!("({})", done.rows_read), count[0], "a row was read twice or never");
            assert!(done.chunks > 4, "{done:?}");
            return invocation;
        }
        if is_too_busy(&report) {
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            continue;
        }
        assert_eq!(report.outcome, Outcome::Yielded, "{report:?}");
        let found = world.target_value("SELECT cursor FROM tallymark.progress").await;
        // On a busy machine the budget may be spent before the first chunk, or the next one.
        if found.is_empty() {
            continue;
        }
        let before = cursor;
        cursor = DateTime::parse_from_str(&found, "%Y-%m-%d %H:%M:%S%#z").unwrap().to_utc();
        assert!(cursor >= before, "went back: {report:?}");
        let counted = world.target_value("SELECT rows_read FROM tallymark.progress").await;
        let staged = format!("SELECT count(*) FROM events WHERE created_at < '{found}'");
        let staged = records(&world.pool, &staged).await;
        assert_eq!(format!("({counted})"), staged[0], "each row before the cursor counts once");
    }
    panic!("the slice never ended");
}

async fn a_large_slice_takes_several_invocations(across: bool) {
    let rollups = DAILY.replace("public.events", "public.slow");
    let source = "chunk_time = \"50ms\"";
    let setup = Setup { source, rollups: &rollups, across, ..Setup::default() };
    let world = World::new(&slow_view(3_000), setup).await;
    assert!(run_in_small_budgets(&world).await > 2);
    assert_eq!(world.target_value("SELECT count(*) FROM tallymark.stage_daily").await, "0");
    world.assert_rows(&daily_expected("2026-01-02")).await;
}

/// Chunk by chunk over several invocations, with distinct users in several chunks.
#[tokio::test]
async fn a_slice_larger_than_the_budget_resumes_where_it_stopped() {
    a_large_slice_takes_several_invocations(false).await;
}

/// The same, with the partials sent to another database.
#[tokio::test]
async fn a_large_slice_travels_in_chunks_too() {
    a_large_slice_takes_several_invocations(true).await;
}

/// A worker claims, sleeps past its lease, and wakes after another one has finished.
#[tokio::test]
async fn a_stale_attempt_is_fenced() {
    let clock = Arc::new(clock("2026-02-01T00:00:00Z"));
    let setup = Setup { clock: clock.clone(), ..Setup::default() };
    let world = World::new(&format!("{EVENTS}; {FOUR_GROUPS}"), setup).await;
    let (rollup, slice) = (world.rollup(), world.slice("2026-01-01"));
    let now = clock.now();
    let claim = Claim {
        rollup: "daily",
        slice_start: slice.start(),
        definition: &rollup.definition(),
        now,
        deadline: now + TimeDelta::seconds(1),
    };
    let lease = world.worker.checkpoints.claim(&claim).await.unwrap();
    assert_eq!(world.run("2026-01-01").await.outcome, Outcome::Leased);
    clock.advance(std::time::Duration::from_secs(10));
    assert_eq!(world.run("2026-01-01").await.attempt, Some(2));
    world.sql("DELETE FROM events WHERE kind = 'a'").await;
    let before = physical(&world).await;

    let shape = ready::check(&world.worker, rollup).await.unwrap();
    let options = StatementOptions {
        shrink: None,
        timeout: BUDGET,
        governor: None,
        nap: None,
        last: None,
        coarse: &[],
    };
    let target = &world.worker.target;
    let job = SliceJob { rollup, shape: &shape, slice, open_until: None };
    let late = target.replace_from_source(&lease, job, options).await;
    assert!(matches!(late, Err(TargetError::Fenced { mine: 1, newest: 2 })), "{late:?}");
    let chunk = Chunk { source: None, lease: &lease, job };
    let start = StageProgress::at_start(slice);
    let staged = target.stage_chunk(&chunk, start, slice.end(), options).await;
    assert!(matches!(staged, Err(TargetError::Fenced { .. })), "{staged:?}");
    let chunk = Chunk { source: Some(&world.worker.source), ..chunk };
    let copied = target.replace_by_copy(&chunk, &world.worker.source, options).await;
    assert!(matches!(copied, Err(TargetError::Fenced { .. })), "{copied:?}");
    assert_eq!(physical(&world).await, before);
    assert_eq!(world.target_value("SELECT count(*) FROM tallymark.stage_daily").await, "0");
    let failed = world.worker.checkpoints.fail(&lease, "late", true, clock.now()).await;
    assert!(failed.is_err(), "the checkpoint is the newer attempt's");
}
