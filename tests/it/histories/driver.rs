//! What a history is made of, and what it is held against.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection};
use tallymark::checkpoint::Checkpoints;
use tallymark::clock::{Clock as _, Deadline, ManualClock, Stopwatch};
use tallymark::faults::{Guard, without};
use tallymark::rollup::Late;
use tallymark::tick::TickReport;

use crate::support::world::{self, Setup, clock, instant};

/// Histories run side by side, each lane in a database of its own.
const LANES: u32 = 2;

/// What the application does in one history, at most.
const STEPS_MAX: usize = 24;

/// Ticks until all must be quiet; a killed worker's lease ends within a few of them.
const QUIET_MAX: usize = 60;

/// Where every history begins: two slices of an hour have ended.
const BEGIN: &str = "2026-01-01T02:10:00Z";
const BEGIN_MS: i64 = 130 * 60 * 1000;

/// What an application may do.
#[derive(Clone, Copy, Debug)]
pub struct Ways {
    /// Rows carry any time; otherwise that of their transaction's begin.
    any_time: bool,
    /// Rows are changed.
    updates: bool,
    /// ... and moved to another time, deleted, truncated.
    moves: bool,
}

impl Ways {
    pub const ANY: Self = Self { any_time: true, updates: true, moves: true };
    pub const STAMPED: Self = Self { any_time: false, updates: false, moves: false };
    pub const CHANGED: Self = Self { any_time: true, updates: true, moves: false };
}

/// A database whose clock can be moved, the application's two sessions, and a worker.
pub struct World {
    inner: world::World,
    clock: ManualClock,
    now_ms: i64,
    control: PgConnection,
    sessions: [Session; 2],
    client: aws_sdk_dynamodb::Client,
    guard: Option<Guard>,
}

struct Session {
    connection: PgConnection,
    name: &'static str,
    is_open: bool,
    begun_ms: i64,
}

/// One history that did not end well: its seed, its steps, and the rows that differ.
pub type Counterexample = (u64, Vec<String>);

/// Runs up to `count` histories and returns the first that does not end well.
pub async fn search<S>(
    late: &str,
    count: u32,
    spoil: S,
    ways: Ways,
    guard: Option<Guard>,
) -> Option<Counterexample>
where
    S: AsyncFn(&World),
{
    let seed: u64 = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| fastrand::u64(..1 << 32));
    println!("SEED={seed} late={late} {ways:?} without {guard:?}");
    let watch = Stopwatch::start();
    let (next, is_found) = (AtomicU32::new(0), AtomicBool::new(false));
    let mut worlds = Vec::new();
    for _ in 0..LANES {
        let world = World::new(late, guard).await;
        spoil(&world).await;
        worlds.push(world);
    }
    let lanes = worlds.into_iter().map(async |mut world: World| {
        loop {
            let place = next.fetch_add(1, Ordering::Relaxed);
            if place >= count || is_found.load(Ordering::Relaxed) {
                return None;
            }
            if place.is_multiple_of(100) {
                println!("{place} histories in {:?}", watch.elapsed());
            }
            let seed = seed + u64::from(place);
            if let Some(found) = world.history(seed, ways).await {
                is_found.store(true, Ordering::Relaxed);
                println!("history {place}, SEED={seed}:\n  {}", found.join("\n  "));
                return Some((seed, found));
            }
        }
    });
    futures_util::future::join_all(lanes).await.into_iter().flatten().next()
}

fn rollups(late: &str) -> String {
    let late = match late {
        "column" => "{ column = \"updated_at\" }".to_owned(),
        word => format!("\"{word}\""),
    };
    format!(
        "[[rollup]]\nname = \"hourly\"\nfrom = \"public.events\"\ntime = \"at\"\n\
         start = \"2026-01-01\"\nslice = \"1 hour\"\nbucket = \"30 minutes\"\nlate = {late}\n\
         shrink_guard = 0.0\ngroup_by = [\"kind\"]\n[rollup.measures]\nevents = \"count\"\n\
         total = {{ sum = \"amount\" }}\n"
    )
}

const TRUTH: &str = "SELECT date_bin('30 minutes', at, '2026-01-01Z') AS bucket, kind, \
    count(*) AS events, sum(amount) AS total FROM public.events \
    WHERE at >= '2026-01-01Z' AND at < $1::timestamptz GROUP BY 1, 2";

impl World {
    async fn new(late: &str, guard: Option<Guard>) -> Self {
        let clock = clock(BEGIN);
        let sql = format!(
            "{}; DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = virtual, \
             pg_catalog, public', current_database()); END $$",
            include_str!("virtual.sql")
        );
        let rollups = rollups(late);
        let setup = Setup { rollups: &rollups, clock: Arc::new(clock.clone()), ..Setup::default() };
        let mut inner = world::World::bare(&sql, setup).await;
        inner.init().await.unwrap();
        inner.worker.settle_wait_max = Duration::ZERO;
        let options: PgConnectOptions = inner.urls.source.parse().unwrap();
        let connect = async |name| options.clone().application_name(name).connect().await.unwrap();
        let session = async |name| {
            let mut connection = connect(name).await;
            connection.execute("SET lock_timeout = '10ms'").await.unwrap();
            Session { connection, name, is_open: false, begun_ms: 0 }
        };
        let sessions = [session("app_a").await, session("app_b").await];
        let control = connect("control").await;
        let client = world::dynamo_client().await;
        let world = Self { inner, clock, now_ms: BEGIN_MS, control, sessions, client, guard };
        if matches!(world.inner.rollup().late, Late::Capture) {
            world::install_capture(&world.inner.worker).await;
        }
        world
    }

    /// Runs statements beside the application.
    pub async fn sql(&self, sql: &str) {
        self.inner.sql(sql).await;
    }

    /// One history from its seed; what differs in the end, after the steps that led there.
    async fn history(&mut self, seed: u64, ways: Ways) -> Option<Vec<String>> {
        self.reset(seed).await;
        let mut random = Rng::with_seed(seed);
        let mut steps = Vec::new();
        for _ in 0..random.usize(STEPS_MAX / 3..=STEPS_MAX) {
            steps.push(self.step(&mut random, ways).await);
        }
        let quiet = self.settle_down(&mut random).await;
        steps.extend(quiet.as_ref().err().cloned());
        let differing = self.differing().await;
        if quiet.is_ok() && differing.is_empty() {
            return None;
        }
        steps.extend(differing);
        Some(steps)
    }

    async fn reset(&mut self, seed: u64) {
        self.clock = clock(BEGIN);
        self.inner.worker.clock = Arc::new(self.clock.clone());
        self.now_ms = BEGIN_MS;
        self.show_clock().await;
        let table = format!("history-{seed:x}-{:08x}", fastrand::u32(..));
        let checkpoints = Checkpoints::new(self.client.clone(), table, 5);
        checkpoints.create_table().await.unwrap();
        self.inner.worker.checkpoints = checkpoints;
        let marks = match self.inner.rollup().late {
            Late::Capture => "DELETE FROM tallymark.mark;",
            _ => "",
        };
        let sql = format!(
            "DELETE FROM public.events; {marks} DELETE FROM stats.hourly; \
             DELETE FROM tallymark.slice; DELETE FROM tallymark.progress; \
             DELETE FROM tallymark.stage_hourly"
        );
        self.control.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }

    async fn show_clock(&mut self) {
        let sql = format!("SELECT setval('virtual.now', {})", self.now_ms);
        self.control.execute(AssertSqlSafe(sql)).await.unwrap();
    }

    async fn advance(&mut self, minutes: u64) {
        self.clock.advance(Duration::from_secs(minutes * 60));
        self.now_ms += i64::try_from(minutes).unwrap() * 60_000;
        self.show_clock().await;
    }

    async fn step(&mut self, random: &mut Rng, ways: Ways) -> String {
        match random.u32(0..10) {
            0..=5 => {
                let which = random.usize(0..2);
                let sql = self.statement(random, which, ways);
                let outcome = self.application(which, &sql).await;
                format!("{}: {sql}{outcome}", self.sessions[which].name)
            }
            6 | 7 => {
                let minutes = random.u64(1..50);
                self.advance(minutes).await;
                format!("-- {minutes} minutes pass: {}", self.clock.now())
            }
            _ => {
                let polls = random.bool().then(|| random.usize(1..120));
                self.tick(polls).await
            }
        }
    }

    /// What the application's session does next.
    fn statement(&self, random: &mut Rng, which: usize, ways: Ways) -> String {
        let session = &self.sessions[which];
        let begun = if session.is_open { session.begun_ms } else { self.now_ms };
        let any = random.i64(self.now_ms - 150 * 60_000..self.now_ms + 90 * 60_000);
        let at_ms =
            if ways.any_time { [begun, self.now_ms, any, any][random.usize(0..4)] } else { begun };
        let (at, stamp) = (format!("virtual.at({at_ms})"), format!("virtual.at({begun})"));
        let amount = random.i32(1..100);
        let kind = ["'view'", "'click'", "NULL"][random.usize(0..3)];
        let some = format!("id % 3 = {}", random.u32(0..3));
        let rows = random.u32(1..4);
        let insert = format!(
            "INSERT INTO public.events (at, kind, amount, updated_at) \
             SELECT {at}, {kind}, {amount}, {stamp} FROM generate_series(1, {rows})"
        );
        match random.u32(0..16) {
            0 | 1 => "BEGIN".into(),
            2 | 3 => "COMMIT".into(),
            4 => "ROLLBACK".into(),
            5 if session.is_open => "SAVEPOINT s".into(),
            6 if session.is_open => "ROLLBACK TO s".into(),
            7 | 8 if ways.updates => format!(
                "UPDATE public.events SET amount = {amount}, updated_at = {stamp} WHERE {some}"
            ),
            9 if ways.moves => {
                format!("UPDATE public.events SET at = {at}, updated_at = {stamp} WHERE {some}")
            }
            10 if ways.moves => format!("DELETE FROM public.events WHERE {some}"),
            11 if ways.moves && random.u32(0..4) == 0 => "TRUNCATE public.events".into(),
            12 if ways.moves => format!(
                "SET session_replication_role = replica; {insert}; RESET session_replication_role"
            ),
            _ => insert,
        }
    }

    async fn application(&mut self, which: usize, sql: &str) -> &'static str {
        let now_ms = self.now_ms;
        let session = &mut self.sessions[which];
        // A statement of its own is a transaction of its own, which begins now.
        if !session.is_open {
            let letter = session.name.strip_prefix("app_").unwrap();
            let begun = format!("SELECT setval('virtual.begin_{letter}', {now_ms})");
            self.control.execute(AssertSqlSafe(begun)).await.unwrap();
            session.begun_ms = now_ms;
        }
        let ended = session.connection.execute(sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))).await;
        match (sql, &ended) {
            ("BEGIN", Ok(_)) => session.is_open = true,
            ("COMMIT" | "ROLLBACK", _) => session.is_open = false,
            _ => {}
        }
        match ended {
            Ok(_) => "",
            // A lock that the other session holds, a savepoint that is not there: as in real life.
            Err(_) => "  -- refused",
        }
    }

    /// A tick, killed after so many polls.
    async fn tick(&mut self, polls: Option<usize>) -> String {
        let deadline = Deadline::after(&self.clock, Duration::from_secs(20));
        let now = self.clock.now();
        let mut work = pin!(without(self.guard, self.inner.worker.tick(now, deadline, None)));
        let mut polled = 0;
        let ended: Option<TickReport> = std::future::poll_fn(|context| {
            polled += 1;
            if polls.is_some_and(|polls| polled > polls) {
                return Poll::Ready(None);
            }
            work.as_mut().poll(context).map(|ended| ended.ok())
        })
        .await;
        match ended {
            None => format!("-- tick, killed after {polled} polls"),
            Some(report) => {
                let slices = report.slices.iter().map(|slice| {
                    format!("{} {}", slice.start.format("%H:%M"), slice.outcome.word())
                });
                format!("-- tick: {}", slices.collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Ends all transactions, lets all time pass, and ticks until nothing is left to do; the error
    /// is what goes on for ever.
    async fn settle_down(&mut self, random: &mut Rng) -> Result<(), String> {
        let mut last = String::new();
        for which in 0..2 {
            let end = if random.bool() { "COMMIT" } else { "ROLLBACK" };
            self.application(which, end).await;
        }
        // Times reach 90 minutes ahead.
        self.advance(180).await;
        for _ in 0..QUIET_MAX {
            self.advance(1).await;
            let deadline = Deadline::after(&self.clock, Duration::from_secs(60));
            let now = self.clock.now();
            let work = self.inner.worker.tick(now, deadline, None);
            let report = without(self.guard, work).await.unwrap();
            assert!(report.problems.is_empty(), "{:?}", report.problems);
            let standings = self.inner.worker.plan(self.inner.rollup(), now).await.unwrap();
            if report.slices.is_empty()
                && standings.plan.watermark >= instant("2026-01-01T05:00:00Z")
            {
                return Ok(());
            }
            last = format!("{report:?}, watermark {}", standings.plan.watermark);
        }
        Err(format!("-- never quiet: {last}"))
    }

    async fn differing(&mut self) -> Vec<String> {
        let until = self.inner.rollup().calendar.containing(self.clock.now()).start();
        let sql = format!(
            "WITH wanted AS ({TRUTH}), found AS (SELECT bucket, kind, events, total FROM stats.hourly \
             WHERE bucket < $1::timestamptz) \
             SELECT 'missing ' || x::text FROM (TABLE wanted EXCEPT TABLE found) x UNION ALL \
             SELECT 'extra ' || x::text FROM (TABLE found EXCEPT TABLE wanted) x"
        );
        sqlx::query_scalar(AssertSqlSafe(sql))
            .bind(until)
            .fetch_all(&mut self.control)
            .await
            .unwrap()
    }
}
