//! Rests and waits at default settings: each has the right length, ends, and reports its reason.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use sqlx::{Connection as _, PgConnection};
use tallymark::check::verify::{self, Compared};
use tallymark::checkpoint::{BackfillState, Claim, Pause, Scope, Yield};
use tallymark::clients::db::Access;
use tallymark::config::Settings;
use tallymark::fanout;
use tallymark::model::clock::{Clock, Deadline, Stopwatch, VirtualClock};
use tallymark::model::hint::Hinted;
use tallymark::tick;
use tallymark::work::backfill::{self, BatchLimits, BatchOptions, Listener, Silent};
use tallymark::work::report::SliceReport;
use tallymark::work::slice_run::RunOptions;
use tallymark::work::worker::{Severity, WorkError};

use crate::support::Database;
use crate::support::cli::{Place, daily, execute};
use crate::support::world::{BUDGET, DAILY, DEFAULTS, EVENTS, Setup, World, instant};
use tallymark::model::slice::Order;

/// One statement of a comparison ends long before this.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A row an hour on each of the first days of the rollup.
fn hourly_rows(days: u32, start: &str) -> String {
    format!(
        "{EVENTS}; INSERT INTO events (created_at, kind, entity_id, user_id, amount) \
         SELECT at, 'view', 1, 1, 1 FROM generate_series('{start}Z'::timestamptz, \
         '{start}Z'::timestamptz + interval '{days} days' - interval '1 minute', '1 hour') AS at; \
         ANALYZE events"
    )
}

async fn world(days: u32, clock: Arc<dyn Clock>, rollups: &str) -> World {
    let start = if rollups.contains("2025-01-01") { "2025-01-01" } else { "2026-01-01" };
    let setup = Setup { source: DEFAULTS, rollups, clock, concurrency: 1, ..Setup::default() };
    let world = World::new(&hourly_rows(days, start), setup).await;
    let defaults = Settings::default();
    assert_eq!(*world.worker.governor.settings(), defaults);
    assert_eq!(
        (defaults.slots, defaults.naps, defaults.nice_ratio.slowest() > 1.0),
        (1, true, true)
    );
    world
}

async fn compared(world: &World, until: &str) -> usize {
    let mut count = 0;
    for slice in world.rollup().calendar.slices(world.rollup().start, instant(until)) {
        let found =
            verify::compare(&world.worker, world.rollup(), slice, TIMEOUT, 3).await.unwrap();
        assert_eq!(found, Compared::Same, "{slice}");
        count += 1;
    }
    count
}

#[tokio::test]
async fn a_year_is_verified_in_the_time_of_its_reading_and_the_rests_of_it() {
    let clock = Arc::new(VirtualClock::new(instant("2026-01-02")));
    let rollups = DAILY.replace("2026-01-01", "2025-01-01");
    let world = world(365, Arc::<VirtualClock>::clone(&clock), &rollups).await;
    let done = world.backfill("2026-01-01", false).await;
    assert_eq!((done.succeeded, done.left), (365, 0), "{done:?}");
    let (watch, before) = (Stopwatch::start(), clock.slept());
    assert_eq!(compared(&world, "2026-01-01").await, 365);
    let (took, rested) = (watch.elapsed(), clock.slept() - before);
    // A statement naps, or is followed by one rest. All statements together took less than the whole.
    let ratio = Settings::default().nice_ratio.slowest();
    assert!(rested <= took.mul_f64(ratio), "{rested:?} in {took:?}");
}

/// Uses the real clock. If a rest counted as work, each rest would be 30 times as long as the
/// previous one, and eight slices would take years.
#[tokio::test]
async fn a_rest_earns_no_rest() {
    let clock = Arc::new(tallymark::model::clock::SystemClock);
    let world = world(8, clock, DAILY).await;
    world.backfill("2026-01-09", false).await;
    let compared = tokio::time::timeout(Duration::from_secs(300), compared(&world, "2026-01-09"));
    assert_eq!(compared.await.expect("an end"), 8);
}

#[tokio::test]
async fn a_scrub_ends_as_soon_as_its_slices_are_compared() {
    let clock = Arc::new(VirtualClock::new(instant("2026-01-20")));
    let rollups = format!("[scrub]\nslices_per_day = 240\n{DAILY}");
    let world = world(10, Arc::<VirtualClock>::clone(&clock), &rollups).await;
    world.backfill("2026-01-11", false).await;
    let tick = async || {
        let deadline = Deadline::after(&*clock, Duration::from_secs(3600));
        tick::run(&world.worker, clock.now(), deadline, None).await.unwrap()
    };
    // The first tick creates the budget item, and computes the due slices.
    tick().await;
    clock.sleep(Duration::from_secs(3600)).await;
    let (watch, before) = (Stopwatch::start(), clock.slept());
    let report = tick().await;
    let (took, rested) = (watch.elapsed(), clock.slept() - before);
    assert!(report.scrub.verified >= 5 && report.scrub.passed_over.is_empty(), "{report:?}");
    assert!(
        rested <= took.mul_f64(Settings::default().nice_ratio.slowest()),
        "{rested:?} in {took:?}"
    );
}

#[tokio::test]
async fn concurrent_slices_of_one_process_take_turns_for_a_slot_without_asking_for_it_twice() {
    let source = "nice_ratio = 0\nslots = 1";
    let rows = hourly_rows(30, "2026-01-01");
    let world = World::new(&rows, Setup { source, ..Setup::default() }).await;
    let settings = world.worker.governor.settings();
    assert_eq!(settings.concurrency(), 4);
    let waits = world.worker.governor.waits();
    let done = world.backfill("2026-01-31", false).await;
    assert_eq!((done.succeeded, done.left), (30, 0), "{done:?}");
    assert!(!waits.has_changed().unwrap(), "waited: {:?}", *waits.borrow());
}

/// Takes the only slot, as any role can, until the connection is closed.
pub(crate) async fn hold_slot(database: &str) -> PgConnection {
    let mut holder = PgConnection::connect(database).await.unwrap();
    for sql in [
        "SET application_name = 'report'",
        "BEGIN",
        "SELECT pg_advisory_xact_lock(x'74616c6c'::int, 0)",
    ] {
        sqlx::query(sql).execute(&mut holder).await.unwrap();
    }
    holder
}

#[tokio::test]
async fn who_holds_the_only_slot_is_named_and_waited_for_no_longer_than_a_quarter_of_an_hour() {
    let clock = Arc::new(VirtualClock::new(instant("2026-01-20")));
    let world = world(3, Arc::<VirtualClock>::clone(&clock), DAILY).await;
    world.backfill("2026-01-03", false).await;
    world
        .sql("DO $$ BEGIN CREATE ROLE holder LOGIN; EXCEPTION WHEN duplicate_object THEN END $$")
        .await;
    let holder = hold_slot(&world.urls.source.replace("tallymark@", "holder@")).await;
    let is_told = |error: &WorkError| {
        let text = error.in_one_line();
        assert!(text.starts_with("the source's only slot is taken by pid "), "{text}");
        assert!(text.contains("(role holder, report)") && text.contains("15 minutes"), "{text}");
        assert_eq!(error.severity(), Severity::Failed);
    };

    let before = clock.slept();
    let slice = world.slice("2026-01-01");
    let error =
        verify::compare(&world.worker, world.rollup(), slice, TIMEOUT, 3).await.unwrap_err();
    is_told(&error);
    let waited = (clock.slept() - before).as_secs();
    assert!((880..1000).contains(&waited), "{waited} s");

    let rollup = world.rollup();
    let (from, to) = (rollup.start, instant("2026-01-04"));
    let plan =
        backfill::plan(&world.worker, rollup, from, to, Order::NewestFirst, false).await.unwrap();
    let (options, limits) = (RunOptions::default(), BatchLimits::default());
    let batch = BatchOptions { concurrency: 1, budget: BUDGET, deadline: None, options, limits };
    let before = clock.slept();
    let ended = backfill::run(&world.worker, rollup, &plan, batch, &Silent).await.unwrap_err();
    is_told(&ended.error);
    assert!((clock.slept() - before).as_secs() >= 900);
    let checkpoint = world.checkpoint("2026-01-03").await.unwrap();
    assert_eq!(checkpoint.failures, 0);
    assert!(checkpoint.reason.unwrap_or_default().contains("role holder"));

    holder.close().await.unwrap();
    let done = backfill::run(&world.worker, rollup, &plan, batch, &Silent).await.unwrap();
    assert_eq!((done.succeeded, done.left), (1, 0));
    assert_eq!(compared(&world, "2026-01-04").await, 3);
}

/// Its lease lasts half an hour, and it gives the slice back long before.
#[tokio::test]
async fn a_backfill_goes_on_as_soon_as_another_worker_has_ended_its_slice() {
    let clock = Arc::new(VirtualClock::new(instant("2026-01-20")));
    let world = world(2, Arc::<VirtualClock>::clone(&clock), DAILY).await;
    let (rollup, now, lease) = (world.rollup(), clock.now(), TimeDelta::minutes(30));
    let (slice_start, definition) = (world.slice("2026-01-01").start(), rollup.definition());
    let claim =
        Claim { rollup: "daily", slice_start, definition: &definition, now, deadline: now + lease };
    let held = world.worker.checkpoints.claim(&claim).await.unwrap();
    let told = Told::default();
    let (to, options) = (instant("2026-01-03"), RunOptions::default());
    let plan = backfill::plan(&world.worker, rollup, rollup.start, to, Order::OldestFirst, false)
        .await
        .unwrap();
    let limits = BatchLimits::default();
    let batch = BatchOptions { concurrency: 1, budget: BUDGET, deadline: None, options, limits };
    let other = async {
        told.0.notified().await;
        world.worker.checkpoints.yield_(&held, &Yield::default(), clock.now()).await.unwrap();
    };
    let (done, ()) = tokio::join!(backfill::run(&world.worker, rollup, &plan, batch, &told), other);
    let done = done.unwrap();
    assert_eq!((done.succeeded, done.left), (2, 0), "{done:?}");
    let taken = world.checkpoint("2026-01-01").await.unwrap();
    assert_eq!(taken.attempt, 2, "{taken:?}");
    assert!(clock.now() < now + lease, "it waited for the whole lease");
}

/// Tells another task that a batch waits.
#[derive(Default)]
struct Told(tokio::sync::Notify);

impl Listener for Told {
    fn ended(&self, _: &SliceReport) {}
    fn waiting(&self, _: chrono::DateTime<chrono::Utc>, _: &str) {
        self.0.notify_one();
    }
}

#[tokio::test]
async fn a_pause_ends_a_comparisons_wait_for_a_slot() {
    let clock = Arc::new(VirtualClock::new(instant("2026-01-20")));
    let world = world(1, Arc::<VirtualClock>::clone(&clock), DAILY).await;
    world.backfill("2026-01-02", false).await;
    let holder = hold_slot(&world.urls.source).await;
    let mut waits = world.worker.governor.waits();
    let pause = async {
        let is_slot = |told: &Option<String>| told.as_ref().is_some_and(|it| it.contains("slot"));
        drop(waits.wait_for(is_slot).await.unwrap());
        let pause = Pause { at: clock.now(), reason: "a sale".into(), until: None };
        world.worker.checkpoints.set_pause(Scope::Rollup("daily"), Some(&pause)).await.unwrap();
    };
    let slice = world.slice("2026-01-01");
    let compared = verify::compare(&world.worker, world.rollup(), slice, TIMEOUT, 3);
    let (compared, ()) = tokio::join!(compared, pause);
    let Ok(Compared::NotYet(pending)) = compared else { panic!("{compared:?}") };
    let why = pending.why.to_string();
    assert!(why.starts_with("paused since 2026-01-20T") && why.ends_with(": a sale"), "{why}");
    holder.close().await.unwrap();
}

#[tokio::test]
async fn check_names_who_holds_the_only_slot() {
    let (place, _database) = Place::with_events(1).await;
    place.run(&["init"]).good();
    let holder = hold_slot(&place.source_url).await;
    place.configure_source("", &daily(1));
    let check = place.run(&["check"]);
    assert!(check.out.contains("the source's only slot is taken by pid "), "{check:?}");
    assert!(check.out.contains("(role tallymark, report) since "), "{check:?}");
    holder.close().await.unwrap();
}

/// Settings of a role or a database, each with its most harmful value.
pub(crate) const SETTINGS: [&str; 34] = [
    "synchronous_commit = off",
    "standard_conforming_strings = off",
    "array_nulls = off",
    "transform_null_equals = on",
    "quote_all_identifiers = on",
    "DateStyle = 'SQL, DMY'",
    "IntervalStyle = 'sql_standard'",
    "TimeZone = 'Asia/Kathmandu'",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "statement_timeout = '500ms'",
    "lock_timeout = '1ms'",
    "idle_in_transaction_session_timeout = '1ms'",
    "work_mem = '64kB'",
    "enable_seqscan = off",
    "enable_hashjoin = off",
    "enable_mergejoin = off",
    "enable_hashagg = off",
    "enable_sort = off",
    "enable_indexscan = off",
    "jit = on",
    "row_security = off",
    "session_replication_role = 'replica'",
    "search_path = ''",
    "xmloption = 'document'",
    "client_min_messages = 'debug5'",
    "plan_cache_mode = 'force_generic_plan'",
    "backslash_quote = off",
    "check_function_bodies = off",
    "max_parallel_workers_per_gather = 8",
    "constraint_exclusion = on",
    "geqo_threshold = 2",
];

/// A database's own settings change no number and make no slice fail, within one database and
/// across two.
#[tokio::test]
async fn settings_of_a_database_change_nothing() {
    let (one, other) = (Database::create().await, Database::create().await);
    for (source, target) in [(&one, &one), (&one, &other)] {
        let place = Place::new(&source.url(), &target.url(), &daily(3)).await;
        if source.url() == target.url() {
            place.seed(3).await;
            // Values that are read differently under other settings.
            let odd = "ALTER TABLE events ADD tags text[]; UPDATE events SET tags = ARRAY[kind, chr(92), 'NULL']";
            place.sql(odd).await;
        }
        place.configure(&daily(3).replace("[\"kind\"]", "[\"kind\", \"tags\"]"));
        let name = target.url();
        let name = name.rsplit('/').next().unwrap();
        let set = SETTINGS.map(|setting| format!("ALTER DATABASE {name} SET {setting};"));
        execute(&target.url(), &set.concat()).await;
        place.run(&["init"]).good();
        place.run(&["check"]).good();
        let report = place.json(&["backfill", "daily", "--yes"]);
        assert_eq!((&report["succeeded"], &report["rows_read"]), (&3.into(), &720.into()));
        let verified = place.json(&["verify"]);
        assert_eq!((&verified["slices"], &verified["differences"]), (&3.into(), &0.into()));
    }
}

/// A commit that DynamoDB records as done must survive a crash of the server.
#[tokio::test]
async fn a_commit_is_durable_whatever_the_role_sets() {
    let world = World::new(EVENTS, Setup::default()).await;
    for (set, expected) in [("off", "on"), ("local", "local"), ("remote_write", "remote_write")] {
        let sql = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = {set}', current_database()); END $$"
        );
        world.sql(&sql).await;
        world.worker.close().await;
        let db = &world.worker.target.db;
        let mut tx = db.begin(Access::ReadWrite, BUDGET, "test").await.unwrap();
        let row = tx.row("asking", "SELECT current_setting('synchronous_commit')".into()).await;
        let found: String = sqlx::Row::get(&row.unwrap(), 0);
        tx.rollback().await.unwrap();
        assert_eq!(found, expected, "set to {set}");
    }
}

/// The next backfill finds that the slices of a fanned-out one are all done, and need not wait for
/// a tick.
#[tokio::test]
async fn a_backfill_that_is_done_holds_up_no_other() {
    let world = World::new(&hourly_rows(4, "2026-01-01"), Setup::default()).await;
    let (worker, rollup) = (&world.worker, world.rollup());
    let start = async |from: &str, to: &str| {
        let range = (instant(from), Some(instant(to)));
        fanout::start_backfill(worker, rollup, range, Order::NewestFirst, false, "test").await
    };
    let mut first = start("2026-01-01", "2026-01-03").await.unwrap();
    first.state = BackfillState::Running;
    assert!(worker.checkpoints.write_backfill(&mut first).await.unwrap());
    world.run("2026-01-01").await;
    let refused = start("2026-01-03", "2026-01-05").await.unwrap_err().in_one_line();
    assert!(refused.contains("is under way"), "{refused}");
    world.run("2026-01-02").await;
    let second = start("2026-01-03", "2026-01-05").await.unwrap();
    assert_ne!(second.id, first.id);
    let first = worker.checkpoints.backfill("daily", &first.id).await.unwrap().unwrap();
    assert_eq!(first.state, BackfillState::Done);
    assert!(first.finished_at.is_some());
}
