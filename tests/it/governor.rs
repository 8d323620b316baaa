//! The governor under real load: how many chunks are read concurrently, when none is, and which
//! commands it obeys.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use sqlx::{Connection as _, PgConnection};
use tallymark::checkpoint::{Pause, Scope};
use tallymark::model::clock::{Deadline, Stopwatch};
use tallymark::tick;
use tallymark::work::report::Outcome;
use tallymark::work::slice_run::{self, RunOptions};

use crate::kill::{SLICE, is_done, slow_place};
use crate::support::Database;
use crate::support::cli::{Place, daily, lines};
use crate::support::proxy::{Cutter, Unreliable};
use crate::support::until;
use crate::support::world::{BUDGET, Setup, Urls, World, clock, instant};
use crate::waits::hold_slot;

/// 40 hours with 20 rows each, and a view whose every row takes 5 ms to read.
const SLOW: &str = "CREATE TABLE events AS SELECT '2026-01-01Z'::timestamptz + n * interval '3 minutes' AS at \
    FROM generate_series(0, 799) n; CREATE INDEX ON events (at); ANALYZE events; \
    CREATE FUNCTION slow(timestamptz) RETURNS SETOF boolean LANGUAGE plpgsql VOLATILE \
        AS 'BEGIN PERFORM pg_sleep(0.005); RETURN NEXT true; END'; \
    CREATE VIEW slow_events AS SELECT e.* FROM events e CROSS JOIN LATERAL slow(e.at)";

const HOURLY: &str = "[[rollup]]\nname = \"hourly\"\nfrom = \"public.slow_events\"\ntime = \"at\"\n\
    start = \"2026-01-01\"\nslice = \"1 hour\"\n[rollup.measures]\nn = \"count\"\n";

/// The statements that are reading rows of the source, and the slots that are taken.
const READING: &str = "SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND state = 'active' AND application_name LIKE 'tallymark hourly@%' \
        AND (query LIKE '%WITH __diff AS%' OR query LIKE '%WITH staged AS%')), \
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted \
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))";

async fn reading(connection: &mut PgConnection) -> (i64, i64) {
    sqlx::query_as(READING).fetch_one(connection).await.unwrap()
}

/// Connections that run a statement until they are dropped: the application's load.
async fn load(urls: &Urls, count: usize) -> Vec<tokio::task::JoinHandle<()>> {
    let mut sessions = Vec::new();
    for _ in 0..count {
        let mut connection = PgConnection::connect(&urls.source).await.unwrap();
        sessions.push(tokio::spawn(async move {
            let _ = sqlx::query("SELECT pg_sleep(60)").execute(&mut connection).await;
        }));
    }
    sessions
}

async fn end(world: &World, sessions: Vec<tokio::task::JoinHandle<()>>) {
    world
        .sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND query = 'SELECT pg_sleep(60)'",
        )
        .await;
    for session in sessions {
        session.await.unwrap();
    }
}

/// Other tests share the server, so only sessions of this database's application count here.
fn active(world_limit: &str) -> String {
    format!(
        "throttle_query = \"SELECT count(*) {world_limit} FROM pg_stat_activity WHERE state = 'active' \
         AND datname = current_database() AND query LIKE 'SELECT pg_sleep%'\""
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_twenty_workers_two_read_at_once() {
    let setup = || Setup { rollups: HOURLY, source: "slots = 2", ..Setup::default() };
    let world = Arc::new(World::new(SLOW, setup()).await);
    let is_over = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn({
        let (url, is_over) = (world.urls.source.clone(), Arc::clone(&is_over));
        async move {
            let mut connection = PgConnection::connect(&url).await.unwrap();
            let (mut most, mut looks) = ((0, 0), 0);
            while !is_over.load(Ordering::Relaxed) {
                let (chunks, slots) = reading(&mut connection).await;
                most = (most.0.max(chunks), most.1.max(slots));
                looks += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            (most, looks)
        }
    });
    let workers: Vec<_> = (0..20)
        .map(|worker| {
            let world = world.changed("slots = 2", HOURLY, Arc::clone(&world.worker.clock));
            tokio::spawn(async move {
                for hour in [worker, worker + 20] {
                    let start = instant("2026-01-01") + chrono::TimeDelta::hours(hour);
                    let slice = world.rollup().calendar.starting(start).unwrap();
                    let deadline = Deadline::after(&*world.worker.clock, BUDGET);
                    let options = RunOptions::default();
                    let ran = slice_run::run_slice(
                        &world.worker,
                        world.rollup(),
                        slice,
                        deadline,
                        options,
                    )
                    .await
                    .unwrap();
                    assert_eq!(ran.outcome, Outcome::Succeeded, "{ran:?}");
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    is_over.store(true, Ordering::Relaxed);
    let (most, looks) = watcher.await.unwrap();
    // 40 slices of 100 ms through two slots are at least 2 s of reading.
    assert_eq!(most, (2, 2), "in {looks} looks");
    world.assert_verified("2026-01-02T16:00:00Z").await;
}

/// If it is killed while it reads, a worker holds its slot only until the server notices.
#[tokio::test]
async fn a_killed_worker_frees_its_slot() {
    let database = Database::create().await;
    let place = slow_place(&database.url(), &database.url(), "3 seconds").await;
    let slots = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = \
        (SELECT oid FROM pg_database WHERE datname = current_database())";
    let rollups = std::fs::read_to_string(place.config()).unwrap();
    let rollups = rollups.split_once("[[rollup]]").unwrap().1;
    place.configure_source("nice_ratio = 0\nslots = 1", &format!("[[rollup]]{rollups}"));
    let run = ["run", "hourly", "--slice", SLICE, "--budget", "4s"];
    let mut holder = place.command(&run).stdout(std::process::Stdio::null()).spawn().unwrap();
    while lines(&place.source_url, slots).await.is_empty() {
        assert!(holder.try_wait().unwrap().is_none());
        thread::sleep(Duration::from_millis(5));
    }
    holder.kill().unwrap();
    holder.wait().unwrap();
    let watch = Stopwatch::start();
    while !lines(&place.source_url, slots).await.is_empty() {
        assert!(watch.elapsed() < Duration::from_secs(60), "the slot is still taken");
        thread::sleep(Duration::from_millis(5));
    }
    println!("the slot was free after {:?}", watch.elapsed());
    // The dead worker's lease: its budget, and 5 s.
    let all = ["backfill", "hourly", "--from", SLICE, "--to", "2026-02-16T00:00:00Z", "--yes"];
    place.run(&all).good();
    is_done(&place, 1).await;
}

/// A frozen worker cannot cancel anything, so the server ends its statement within its budget.
#[tokio::test]
async fn a_frozen_worker_leaves_no_statement_running() {
    let database = Database::create().await;
    let place = slow_place(&database.url(), &database.url(), "3 seconds").await;
    let running = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() \
        AND application_name LIKE 'tallymark%' AND state <> 'idle'";
    let run = ["run", "hourly", "--slice", SLICE, "--budget", "3s"];
    let mut worker = place.command(&run).stdout(std::process::Stdio::null()).spawn().unwrap();
    while lines(&place.source_url, running).await.is_empty() {
        assert!(worker.try_wait().unwrap().is_none());
        thread::sleep(Duration::from_millis(5));
    }
    let id = worker.id().to_string();
    let stop =
        |signal| std::process::Command::new("kill").args([signal, id.as_str()]).status().unwrap();
    assert!(stop("-STOP").success());
    let watch = Stopwatch::start();
    // First its statement's limit, then that of an idle transaction.
    while !lines(&place.source_url, running).await.is_empty() {
        assert!(watch.elapsed() < Duration::from_secs(60), "it runs still");
        thread::sleep(Duration::from_millis(50));
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
}

/// Load that comes in the middle of a slice stops it before its next chunk. When the load is gone,
/// it continues.
#[tokio::test]
async fn load_stops_reading_before_the_next_chunk_and_its_end_lets_it_go_on() {
    let limit = active("> 3");
    let source = format!("chunk_time = \"60ms\"\n{limit}");
    let rollups = HOURLY.replace("1 hour", "1 day");
    let setup = Setup { rollups: &rollups, source: &source, ..Setup::default() };
    let world = Arc::new(World::new(SLOW, setup).await);
    let mut waits = world.worker.governor.waits();
    let worker = tokio::spawn({
        let world = Arc::clone(&world);
        async move { world.run("2026-01-01").await }
    });
    let chunks = "SELECT coalesce((SELECT chunks FROM tallymark.progress), 0)";
    let read = async || world.target_value(chunks).await.parse::<i32>().unwrap();
    until("two chunks are read", async || (read().await >= 2).then_some(())).await;
    let sessions = load(&world.urls, 4).await;
    tokio::time::timeout(BUDGET, waits.changed()).await.unwrap().unwrap();
    let reason = waits.borrow_and_update().clone().unwrap();
    assert!(reason.contains("throttle_query says 'true'"), "{reason}");
    let stopped = world.target_value(chunks).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(world.target_value(chunks).await, stopped);
    end(&world, sessions).await;
    let ran = worker.await.unwrap();
    assert_eq!(
        (ran.outcome, ran.completion.unwrap().rows_read),
        (Outcome::Succeeded, 480),
        "{:?}",
        ran.reason
    );
    world.assert_verified("2026-01-02").await;
}

/// Above `max_load` it waits, and at the end of the budget it yields and reports so. Above
/// `critical_load` it yields immediately.
#[tokio::test]
async fn past_its_limits_a_slice_yields_and_runs_when_the_load_is_gone() {
    let plenty = "max_load = { active = 100000, waiting = 100000, transactions = 1e9, blocks = 1e9, \
        probe_ms = 60000, replica_lag_ms = 60000 }\ncritical_load = { active = 100000 }";
    let cases = [
        ("max_load = { active = 0 }", "active backends > 0"),
        ("critical_load = { active = 0 }", "active backends > 0 (critical_load)"),
        ("max_load = { transactions = 0 }", "transactions/s > 0"),
        ("max_load = { probe_ms = 0 }", "ms to answer > 0"),
        ("throttle_query = \"SELECT 1 / 0\"", "throttle_query failed: source database"),
        ("throttle_query = \"SELECT 'maintenance'\"", "throttle_query says 'maintenance'"),
    ];
    let setup = Setup { rollups: HOURLY, ..Setup::default() };
    let world = World::new(SLOW, setup).await;
    // A session of the test itself is always active.
    let sessions = load(&world.urls, 1).await;
    for (source, reason) in cases {
        let busy = world.changed(source, HOURLY, Arc::clone(&world.worker.clock));
        let deadline = Deadline::after(&*busy.worker.clock, Duration::from_secs(4));
        let (rollup, slice) = (busy.rollup(), busy.slice("2026-01-01"));
        let ran =
            slice_run::run_slice(&busy.worker, rollup, slice, deadline, RunOptions::default())
                .await
                .unwrap();
        let said = ran.reason.clone().unwrap();
        assert_eq!(ran.outcome, Outcome::Yielded, "{source}: {ran:?}");
        assert!(said.contains(reason), "{source}: {said}");
        assert!(ran.held_back().is_some(), "{source}");
    }
    assert_eq!(world.checkpoint("2026-01-01").await.unwrap().failures, 0);
    let free = world.changed(plenty, HOURLY, Arc::clone(&world.worker.clock));
    let ran = free.run("2026-01-01").await;
    assert_eq!((ran.outcome, ran.reason), (Outcome::Succeeded, None));
    end(&world, sessions).await;
}

/// With each further setting an earlier question says no, and its no is the one that is told.
#[tokio::test]
async fn the_questions_are_asked_in_the_order_that_is_documented() {
    let world = World::new(SLOW, Setup { rollups: HOURLY, ..Setup::default() }).await;
    let holder = hold_slot(&world.urls.source).await;
    let mut source = String::new();
    let mut start = instant("2026-01-01");
    for (setting, no) in [
        ("slots = 1", "the source's only slot is taken"),
        ("max_load = { probe_ms = 0 }", "ms to answer > 0"),
        ("critical_load = { probe_ms = 0 }", "(critical_load)"),
        ("throttle_query = \"SELECT 1 / 0\"", "throttle_query failed: "),
        ("# a pause", "paused since "),
        ("quiet_hours = \"00:00-24:00\"", "quiet_hours 00:00-24:00 "),
    ] {
        source.push_str(setting);
        source.push('\n');
        if no.starts_with("paused") {
            let pause = Pause { at: world.worker.clock.now(), reason: String::new(), until: None };
            world.worker.checkpoints.set_pause(Scope::Source, Some(&pause)).await.unwrap();
        }
        let busy = world.changed(&source, HOURLY, Arc::clone(&world.worker.clock));
        let mut waits = busy.worker.governor.waits();
        // Another slice each time: the one before may be left to its lease.
        let slice = busy.rollup().calendar.starting(start).unwrap();
        start = slice.end();
        let deadline = Deadline::after(&*busy.worker.clock, BUDGET);
        let run = slice_run::run_slice(
            &busy.worker,
            busy.rollup(),
            slice,
            deadline,
            RunOptions::default(),
        );
        let told = tokio::select! {
            told = waits.wait_for(Option::is_some) => told.unwrap().clone(),
            ran = run => ran.unwrap().reason,
        };
        assert!(told.as_ref().is_some_and(|told| told.contains(no)), "{setting}: {told:?}");
    }
    holder.close().await.unwrap();
}

/// A signal that a role may not see does not count as zero.
#[tokio::test]
async fn a_signal_that_cannot_be_read_counts_as_too_much() {
    let world = World::new(SLOW, Setup { rollups: HOURLY, ..Setup::default() }).await;
    let role = format!("blind_{:08x}", fastrand::u32(..));
    world
        .sql(&format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA tallymark, stats TO {role}; \
             GRANT SELECT ON events, slow_events TO {role}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA tallymark, stats TO {role}"
        ))
        .await;
    let (_, rest) = world.urls.source.split_once('@').unwrap();
    let urls = Urls { source: format!("postgres://{role}@{rest}"), target: None };
    let source = "max_load = { active = 100000 }";
    let setup = Setup { rollups: HOURLY, source, ..Setup::default() };
    let blind = World::at(urls.clone(), setup).await;
    let ran = blind.run("2026-01-01").await;
    assert_eq!(ran.outcome, Outcome::Yielded);
    let hint = ran.hint.unwrap();
    assert!(hint.contains(&format!("GRANT pg_read_all_stats TO {role}")), "{hint}");
    // Signals that every role may see are enough for the other limits.
    let source = "max_load = { transactions = 1e9, blocks = 1e9 }";
    let setup = Setup { rollups: HOURLY, source, ..Setup::default() };
    assert_eq!(World::at(urls, setup).await.run("2026-01-01").await.outcome, Outcome::Succeeded);
    world.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

/// The tick leaves the due slices without waiting for the hours, and a yield costs nothing.
#[tokio::test]
async fn the_hours_are_kept() {
    let source =
        "window = \"01:00-02:00\"\nquiet_hours = \"12:00-13:00\"\ntimezone = \"Europe/Prague\"";
    let rollups = HOURLY.replace("[rollup.measures]", "[rollup.measures]\nbig = { max = \"at\" }");
    let clock = Arc::new(clock("2026-01-01T11:30:00Z"));
    let setup =
        Setup { rollups: HOURLY, source, clock: Arc::clone(&clock) as _, ..Setup::default() };
    let world = World::new(SLOW, setup).await;
    let tick = async |world: &World| {
        let deadline = Deadline::after(&*clock, BUDGET);
        use tallymark::model::clock::Clock as _;
        tick::run(&world.worker, clock.now(), deadline, None).await.unwrap()
    };
    let quiet = tick(&world).await;
    assert_eq!((quiet.slices.len(), quiet.left), (0, 11), "{quiet:?}");
    assert!(
        quiet.held[0].not_now.to_string().contains("quiet_hours 12:00-13:00 Europe/Prague"),
        "{quiet:?}"
    );
    assert!(world.checkpoint("2026-01-01").await.is_none());
    clock.advance(Duration::from_secs(45 * 60));
    assert_eq!(tick(&world).await.slices.len(), 12);
    // A changed definition is computed as a backfill, at its hours only.
    let changed = world.changed(source, &rollups, Arc::clone(&clock) as _);
    changed.init().await.unwrap();
    let held = tick(&changed).await;
    assert_eq!((held.slices.len(), held.left), (0, 12), "{held:?}");
    assert!(
        held.held[0].not_now.to_string().contains("outside of window 01:00-02:00 Europe/Prague"),
        "{held:?}"
    );
    clock.advance(Duration::from_secs(12 * 60 * 60));
    assert_eq!(tick(&changed).await.slices.len(), 24);
}

/// A sleeping source is woken at most this often.
#[tokio::test]
async fn ticks_wake_the_source_as_often_as_they_may() {
    let clock = Arc::new(clock("2026-01-01T01:10:00Z"));
    let setup = Setup {
        rollups: HOURLY,
        source: "wake_per_hour = 2",
        clock: Arc::clone(&clock) as _,
        ..Setup::default()
    };
    let world = World::new(SLOW, setup).await;
    let mut woken = Vec::new();
    for minute in 0..120 {
        use tallymark::model::clock::Clock as _;
        let deadline = Deadline::after(&*clock, BUDGET);
        let report = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
        if !report.slices.is_empty() {
            woken.push(minute);
        }
        clock.advance(Duration::from_secs(60));
    }
    // At the hour's end and grace, or when it may be woken again, and never without work.
    assert_eq!(woken, [0, 52, 112]);
}

#[tokio::test]
async fn a_pause_is_obeyed_before_the_next_chunk_and_cancel_ends_a_backfill() {
    let (place, _database) = Place::with_events(3).await;
    place.run(&["init"]).good();
    let paused = place.run(&["pause", "daily", "--reason", "holidays"]).good();
    assert!(paused.out.starts_with("daily paused until `tallymark resume`"), "{paused:?}");
    let run = place.json(&["run"]);
    assert_eq!(
        (run["slices"].as_array().unwrap().len(), run["left"].as_u64()),
        (0, Some(3)),
        "{run}"
    );
    assert!(run["held"][0]["reason"].as_str().unwrap().ends_with(": holidays"), "{run}");
    assert!(place.run(&["status"]).good().out.contains("holidays"));
    assert_eq!(place.json(&["status"])["control"][0]["reason"], "holidays");
    // A backfill under way waits, and ends when it is cancelled.
    let backfill = place.begin(&["backfill", "daily", "--yes"]);
    thread::sleep(Duration::from_millis(300));
    assert_eq!(lines(&place.target_url, "SELECT 1 FROM tallymark.slice").await.len(), 0);
    place.run(&["cancel", "daily"]).good();
    let output = backfill.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && err.contains("3 slices left"), "{err}");
    assert!(place.run(&["resume", "daily"]).good().out.contains("may go on"));
    assert!(place.run(&["resume"]).good().out.contains("was not paused"));
    // A pause of backfills leaves ticks alone.
    place.run(&["pause", "daily", "--backfill"]).good();
    assert_eq!(place.json(&["run"])["slices"].as_array().unwrap().len(), 3);
    place.run(&["pause", "--backfill"]).refused(2, &[]);
    place.run(&["speed", "5", "daily"]).good();
    assert!(place.run(&["status"]).good().out.contains("nice_ratio 5"));
    place.run(&["speed", "default", "daily"]).good();
    place.run(&["speed", "fast"]).refused(2, &["0 to 100"]);
    // A pause that ends automatically.
    place.run(&["pause", "--for", "1s"]).good();
    place.run(&["resume", "daily", "--backfill"]).good();
    place.run(&["backfill", "daily", "--force", "--yes"]).good();
    // A comparison reads too.
    place.run(&["pause", "--reason", "a sale"]).good();
    let held = place.json(&["verify"]);
    assert_eq!((held["slices"].as_u64(), held["differences"].as_u64()), (Some(0), Some(0)));
    let why = held["pending"][0]["why"].as_str().unwrap();
    assert!(why.starts_with("paused since ") && why.ends_with(": a sale"), "{held}");
    assert!(place.run(&["verify"]).good().out.ends_with("\nnothing was compared\n"));
    place.run(&["resume"]).good();
    assert!(place.run(&["verify"]).good().out.ends_with(": every slice verified\n"));
}

/// A sleeping source stays asleep. DynamoDB is read for the watermark and the items after it.
#[tokio::test]
async fn a_tick_with_nothing_due_asks_one_question_and_connects_to_no_database() {
    let (mut place, _database) = Place::with_events(5).await;
    let one = daily(5);
    let coarse = "from = { rollup = \"daily\" }\nslice = \"1 month\"\nmeasures = [\"events\"]";
    let another = one.replace("name = \"daily\"", "name = \"daily_by_kind\"");
    place.configure(&format!("{one}{another}[[rollup]]\nname = \"monthly\"\n{coarse}\n"));
    place.run(&["init"]).good();
    // The second only moves the watermarks.
    place.run(&["run"]).good();
    place.run(&["run"]).good();
    // Another address that the installation knows, at which no database can be reached now. A
    // process that connects to it is refused, and reports it.
    let (way, by_way) = Cutter::way(&place.source_url);
    let urls = (std::mem::replace(&mut place.source_url, by_way.clone()), place.target_url.clone());
    place.target_url = by_way;
    place.run(&["run"]).good();
    drop(way);
    let counting = Unreliable::counting(place.endpoint());
    *place.endpoint() = counting.endpoint.clone();
    // One read of all watermarks: no slice is after them.
    assert!(place.run(&["run"]).good().out.starts_with("nothing is due\n"));
    assert_eq!(counting.asked(), ["BatchGetItem"]);
    let (overview, asked) = (place.run(&["status"]).good().out, counting.asked());
    assert!(["daily ", "daily_by_kind ", "monthly "].iter().all(|it| overview.contains(it)));
    assert_eq!(asked, ["GetItem", "BatchGetItem"], "the operator's commands, and all watermarks");
    place.configure(&one);
    assert!(place.run(&["run"]).good().out.starts_with("nothing is due\n"));
    assert_eq!(counting.asked(), ["BatchGetItem"]);
    // A slice: claim and complete, and the control item.
    (place.source_url, place.target_url) = urls;
    place.run(&["backfill", "daily", "--force", "--concurrency", "1", "--yes"]).good();
    let asked = counting.asked();
    let count = |name: &str| asked.iter().filter(|asked| *asked == name).count();
    // 5 slices, each reopened by --force, which also lowers the watermark, and the watermark at the
    // end.
    assert!(count("UpdateItem") <= 5 * 2 + 2, "{asked:?}");
    assert_eq!(count("TransactWriteItems"), 5, "{asked:?}");
    // The reads before and after a reopening, and the control item.
    assert!(count("GetItem") + count("Query") <= 5 * (3 + 1) + 8, "{asked:?}");
}

/// Naps are a condition that every row fulfils, within one database and across two.
#[tokio::test]
async fn naps_leave_no_row_out() {
    let (source, target) = (Database::create().await, Database::create().await);
    for target in [&source, &target] {
        let place = Place::new(&source.url(), &target.url(), &daily(3)).await;
        if target.url() == source.url() {
            place.seed(3).await;
        }
        // A row in 50 sleeps 2 ms.
        place.configure_source("nice_ratio = 20", &daily(3));
        place.run(&["init"]).good();
        place.run(&["backfill", "daily", "--yes"]).good();
        let counted = lines(&place.target_url, "SELECT sum(rows_read) FROM tallymark.slice").await;
        assert_eq!(counted, ["(720)"]);
        // It would rest twenty times as long as the work takes.
        place.configure(&daily(3));
        place.run(&["verify"]).good();
    }
}

#[tokio::test]
async fn a_role_that_may_not_sleep_is_told_what_to_do() {
    let (mut place, database) = Place::with_events(2).await;
    place.run(&["init"]).good();
    let role = format!("awake_{:08x}", fastrand::u32(..));
    place
        .sql(&format!(
            "REVOKE EXECUTE ON FUNCTION pg_sleep(double precision) FROM PUBLIC; \
             CREATE ROLE {role} LOGIN; GRANT SELECT ON events TO {role}"
        ))
        .await;
    let admin = std::mem::replace(&mut place.source_url, database.url_of(&role));
    place.configure_source("nice_ratio = 1", &daily(2));
    let check = place.run(&["check"]);
    assert!(check.out.contains("naps = false"), "{}", check.out);
    place.configure_source("nice_ratio = 1\nnaps = false", &daily(2));
    place.run(&["check"]).good();
    place.run(&["backfill", "daily", "--yes"]).good();
    place.source_url = admin;
    place.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}
