//! A world for one test: databases, checkpoints and a worker, and an independent check of its
//! numbers.

use std::env;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::{AssertSqlSafe, PgPool, Row as _};
use tallymark::check::verify;
use tallymark::checkpoint::store::dynamodb::DynamoDb;
use tallymark::checkpoint::store::postgres::Postgres;
use tallymark::checkpoint::{Checkpoint, Checkpoints};
use tallymark::clients::db::{Access, Tx};
use tallymark::config::Config;
use tallymark::embedded::dynamodb::EmbeddedDynamo;
use tallymark::model::clock::{Clock, Deadline, ManualClock, SystemClock};
use tallymark::model::rollup::Rollup;
use tallymark::model::slice::{Order, Slice};
use tallymark::source::changes::capture::Capture;
use tallymark::target::{ddl, live};
use tallymark::work::backfill::{self, BatchLimits, BatchOptions, BatchReport, Silent};
use tallymark::work::identity;
use tallymark::work::ready;
use tallymark::work::report::SliceReport;
use tallymark::work::slice_run::{self, RunOptions};
use tallymark::work::worker::{WorkError, Worker, store_db};
use tokio::sync::OnceCell;

use super::Database;
use super::pooler::pooled;

/// Longest time for one slice, unless the test is about budgets.
pub const BUDGET: Duration = Duration::from_secs(120);

/// Longer than the lease of a worker that has [`BUDGET`].
pub const PAST_LEASE: Duration = Duration::from_secs(180);

/// The rest of `[source]` at default settings: one slot, rests of 30 times the work, naps.
pub const DEFAULTS: &str = "# as it comes";

/// With this variable, worlds keep their checkpoints in the target by default.
pub const STORE: &str = "TALLYMARK_TEST_STORE";

/// The table that most tests count.
pub const EVENTS: &str = "CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
    created_at timestamptz, kind text, entity_id int, user_id int, amount numeric); \
    CREATE INDEX ON events (created_at)";

/// The rollup of most tests: one slice a day, one row per hour, kind and entity.
pub const DAILY: &str = r#"
[[rollup]]
name = "daily"
from = "public.events"
time = "created_at"
start = "2026-01-01"
slice = "1 day"
bucket = "1 hour"
group_by = ["kind", "entity_id"]
[rollup.measures]
events = "count"
revenue = { sum = "amount" }
low = { min = "amount" }
high = { max = "amount" }
users = { distinct = "user_id" }
"#;

/// The expected content of [`DAILY`] up to an instant, computed independently of Tallymark.
pub fn daily_expected(until: &str) -> String {
    format!(
        "SELECT date_trunc('hour', created_at, 'UTC'), kind, entity_id, count(*), sum(amount), \
         min(amount), max(amount), count(DISTINCT user_id) FROM events \
         WHERE created_at >= '2026-01-01Z' AND created_at < '{until}Z' GROUP BY 1, 2, 3"
    )
}

/// `count` random events per day, over `days` from 2026-01-01 on, with some NULL dimensions and
/// values.
pub fn random_events(days: u32, count: u32) -> String {
    let rows = days * count;
    format!(
        "INSERT INTO events (created_at, kind, entity_id, user_id, amount) \
         SELECT '2026-01-01Z'::timestamptz + random() * interval '{days} days', \
             (ARRAY['view', 'click', 'buy', NULL])[1 + (random() * 4)::int % 4], \
             nullif((random() * 3)::int, 3), nullif((random() * 20)::int, 20), \
             round((random() * 1000)::numeric, 2) \
         FROM generate_series(1, {rows})"
    )
}

/// One in-process DynamoDB for all tests, each of which has a table of its own.
pub async fn dynamo() -> &'static EmbeddedDynamo {
    static SERVER: OnceCell<EmbeddedDynamo> = OnceCell::const_new();
    SERVER.get_or_init(|| async { EmbeddedDynamo::start(None).await.unwrap() }).await
}

/// The client of the shared DynamoDB.
pub async fn dynamo_client() -> aws_sdk_dynamodb::Client {
    dynamo().await.client()
}

/// The checkpoints in a table of a DynamoDB.
pub fn checkpoints_in(client: aws_sdk_dynamodb::Client, table: &str) -> Checkpoints {
    Checkpoints::new(Arc::new(DynamoDb::new(client, table)), 5)
}

/// A separate checkpoint table, not created yet.
pub async fn checkpoints() -> Checkpoints {
    checkpoints_in(dynamo().await.client(), &format!("test-{:016x}", fastrand::u64(..)))
}

/// Where the databases of a world are.
#[derive(Clone, Debug)]
pub struct Urls {
    pub source: String,
    pub target: Option<String>,
}

/// A configuration of these databases and these further texts.
pub fn config(urls: &Urls, source: &str, rollups: &str) -> Config {
    let target = if urls.target.is_some() { "[target]\nurl = { env = \"TARGET\" }" } else { "" };
    // Tests that are not about rests take none.
    let sets = |key: &str| source.contains(key) || source.contains(DEFAULTS);
    let nice = if sets("nice_ratio") { "" } else { "nice_ratio = 0" };
    let slots = if sets("slots") { "" } else { "slots = 2" };
    let text = format!(
        "[source]\nurl = {{ env = \"SOURCE\" }}\n{nice}\n{slots}\n{source}\n{target}\n{rollups}"
    );
    let env = |name: &str| match name {
        "SOURCE" => Some(pooled(&urls.source)),
        "TARGET" => urls.target.as_deref().map(pooled),
        _ => None,
    };
    Config::parse(Path::new("tallymark.toml"), &text, &env).unwrap()
}

/// How a world is to be made.
#[derive(Debug)]
pub struct Setup<'s> {
    /// The rest of `[source]`.
    pub source: &'s str,
    /// The `[[rollup]]`s.
    pub rollups: &'s str,
    /// Whether the target is a database of its own.
    pub across: bool,
    /// The worker's clock.
    pub clock: Arc<dyn Clock>,
    /// Concurrent slices.
    pub concurrency: u32,
    /// Where the checkpoints are.
    pub keeper: Keeper,
}

/// Where a world keeps its checkpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    DynamoDb,
    /// The target, by the workers' clocks, as tests set the time themselves.
    Target,
    /// The target, by its own clock.
    TargetsClock,
}

impl Keeper {
    /// New checkpoints of this configuration.
    pub async fn checkpoints(self, config: &Config, concurrency: u32) -> Checkpoints {
        match self {
            Self::DynamoDb => checkpoints().await,
            keeper => keeper.open(config, concurrency),
        }
    }

    /// The checkpoints of a new world.
    pub fn open(self, config: &Config, concurrency: u32) -> Checkpoints {
        let store = Postgres::new(store_db(config, concurrency).unwrap(), "checkpoint");
        let store = if self == Self::Target { store.believing_workers() } else { store };
        Checkpoints::new(Arc::new(store), config.checkpoint.failures_max)
    }
}

impl Default for Setup<'_> {
    fn default() -> Self {
        let clock = Arc::new(SystemClock);
        let keeper = if env::var_os(STORE).is_some() { Keeper::Target } else { Keeper::DynamoDb };
        Self { source: "", rollups: DAILY, across: false, clock, concurrency: 4, keeper }
    }
}

/// Databases, checkpoints and a worker.
#[derive(Debug)]
pub struct World {
    pub urls: Urls,
    /// The source, as the superuser.
    pub pool: PgPool,
    /// The target, as the superuser.
    pub target: PgPool,
    pub worker: Worker,
}

impl World {
    /// A world whose source ran `sql`, and whose tables are ready.
    pub async fn new(sql: &str, setup: Setup<'_>) -> Self {
        let world = Self::bare(sql, setup).await;
        world.init().await.unwrap();
        world
    }

    /// As [`World::new`], with the checkpoint table only.
    pub async fn bare(sql: &str, setup: Setup<'_>) -> Self {
        let source = Database::create().await;
        let target = if setup.across { Some(Database::create().await) } else { None };
        let target_url = target.as_ref().map(Database::url);
        let urls = Urls { source: source.url(), target: target_url };
        let pool = source.pool().await;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&pool).await.unwrap();
        Self::at(urls, setup).await
    }

    /// A world with existing databases.
    pub async fn at(urls: Urls, setup: Setup<'_>) -> Self {
        let config = config(&urls, setup.source, setup.rollups);
        let Setup { clock, concurrency, keeper, .. } = setup;
        let checkpoints = keeper.checkpoints(&config, concurrency).await;
        checkpoints.create_table().await.unwrap();
        let worker = Worker::with_checkpoints(config, checkpoints, clock, concurrency).unwrap();
        let pool = PgPool::connect_lazy(&urls.source).unwrap();
        let target = PgPool::connect_lazy(urls.target.as_ref().unwrap_or(&urls.source)).unwrap();
        Self { urls, pool, target, worker }
    }

    /// Creates the rollup tables.
    pub async fn init(&self) -> Result<(), WorkError> {
        init(&self.worker).await
    }

    /// The same databases and checkpoints, seen by another process with other rollups.
    pub fn redefined(&self, rollups: &str) -> Self {
        self.changed("", rollups, Arc::clone(&self.worker.clock))
    }

    /// The same databases and checkpoints, seen by another process.
    pub fn changed(&self, source: &str, rollups: &str, clock: Arc<dyn Clock>) -> Self {
        let config = config(&self.urls, source, rollups);
        let checkpoints = self.worker.checkpoints.clone();
        let worker = Worker::with_checkpoints(config, checkpoints, clock, 4).unwrap();
        let (pool, target) = (self.pool.clone(), self.target.clone());
        Self { urls: self.urls.clone(), pool, target, worker }
    }

    /// Runs statements on the source.
    pub async fn sql(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await.unwrap();
    }

    /// Runs statements on the target.
    pub async fn target_sql(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.target).await.unwrap();
    }

    /// The only value of the only row of `sql` on the target, as text.
    pub async fn target_value(&self, sql: &str) -> String {
        let sql = format!("SELECT (SELECT x FROM ({sql}) AS one(x))::text");
        let value: Option<String> =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.target).await.unwrap();
        value.unwrap_or_default()
    }

    /// The first rollup.
    pub fn rollup(&self) -> &Rollup {
        &self.worker.config.rollups[0]
    }

    /// The slice of the first rollup that starts at `start`.
    pub fn slice(&self, start: &str) -> Slice {
        self.rollup().calendar.starting(instant(start)).unwrap()
    }

    /// Runs one slice of the first rollup.
    pub async fn run(&self, start: &str) -> SliceReport {
        self.try_run(start).await.unwrap()
    }

    /// As [`World::run`], but it may be refused.
    pub async fn try_run(&self, start: &str) -> Result<SliceReport, WorkError> {
        let deadline = Deadline::after(&*self.worker.clock, BUDGET);
        let slice = self.slice(start);
        slice_run::run_slice(&self.worker, self.rollup(), slice, deadline, RunOptions::default())
            .await
    }

    /// Reopens one slice of the first rollup and runs it.
    pub async fn replay(&self, start: &str) -> SliceReport {
        self.reopen(start).await;
        self.run(start).await
    }

    /// Reopens one slice of the first rollup.
    pub async fn reopen(&self, start: &str) {
        let now = self.worker.clock.now();
        let (name, start) = (&self.rollup().name, instant(start));
        self.worker.checkpoints.reopen(name, start, "test", now).await.unwrap();
    }

    /// Backfills the first rollup up to `to`.
    pub async fn backfill(&self, to: &str, force: bool) -> BatchReport {
        self.backfill_one(self.rollup(), to, force).await
    }

    /// Backfills `rollup` up to `to`.
    pub async fn backfill_one(&self, rollup: &Rollup, to: &str, force: bool) -> BatchReport {
        let (from, to) = (rollup.start, instant(to));
        let order = Order::NewestFirst;
        let plan = backfill::plan(&self.worker, rollup, from, to, order, force).await.unwrap();
        backfill::run(&self.worker, rollup, &plan, batch(), &Silent).await.unwrap()
    }

    /// The checkpoint of one slice of the first rollup.
    pub async fn checkpoint(&self, start: &str) -> Option<Checkpoint> {
        self.worker.checkpoints.get(&self.rollup().name, instant(start)).await.unwrap()
    }

    /// The first rollup's rows, each as PostgreSQL writes a record, in order.
    pub async fn rows(&self) -> Vec<String> {
        records(&self.target, &format!("SELECT * FROM stats.{}", self.rollup().name)).await
    }

    /// The first rollup's rows are exactly the result of `expected` on the source: an independent
    /// `GROUP BY`, with its columns in the order of the table.
    pub async fn assert_rows(&self, expected: &str) {
        let (expected, found) = (records(&self.pool, expected).await, self.rows().await);
        let missing: Vec<_> = expected.iter().filter(|row| !found.contains(row)).collect();
        let extra: Vec<_> = found.iter().filter(|row| !expected.contains(row)).collect();
        assert!(missing.is_empty() && extra.is_empty(), "missing {missing:?}, extra {extra:?}");
        assert_eq!(expected.len(), found.len());
    }

    /// The [`DAILY`] rollup is right up to `until` by an independent `GROUP BY`, and
    /// [`crate::check::verify::verify_slice`] agrees.
    pub async fn verify_all(&self, until: &str) {
        self.assert_rows(&daily_expected(until)).await;
        self.assert_verified(until).await;
    }

    /// [`crate::check::verify::verify_slice`] finds no difference in any slice of the first rollup up to `until`.
    pub async fn assert_verified(&self, until: &str) {
        self.assert_one_verified(self.rollup(), until).await;
    }

    /// As [`World::assert_verified`], of any rollup.
    pub async fn assert_one_verified(&self, rollup: &Rollup, until: &str) {
        for slice in rollup.calendar.slices(rollup.start, instant(until)) {
            let found = verify::verify_slice(&self.worker, rollup, slice, BUDGET, 3).await.unwrap();
            assert_eq!(found.differences, 0, "{slice}: {:?}", found.examples);
        }
    }
}

/// Installs the capture of the first rollup's table, for all rollups that count it alike.
pub async fn install_capture(worker: &Worker) {
    let first = &worker.config.rollups[0];
    let alike = |rollup: &&Rollup| rollup.from == first.from && rollup.late == first.late;
    let mut shapes = Vec::new();
    for rollup in worker.config.rollups.iter().filter(alike) {
        shapes.push((rollup, ready::check(worker, rollup).await.unwrap()));
    }
    let counting: Vec<_> = shapes.iter().map(|(rollup, shape)| (*rollup, &**shape)).collect();
    let capture = Capture::new(&first.from, &counting);
    let mut tx = worker.source.begin(Access::ReadWrite, BUDGET, "install").await.unwrap();
    install(&mut tx, &capture).await;
    let standing = capture.standing(&mut tx).await.unwrap();
    assert!(standing.is_whole(), "{standing:?}");
    tx.commit().await.unwrap();
}

/// Installs a capture. If the test has its own clock, the triggers' conditions use it, because they
/// are created with the database's path, which names it first.
pub async fn install(tx: &mut Tx, capture: &Capture) {
    const LOOKING: &str = "looking for a clock";
    let own_clock = "SELECT to_regnamespace('virtual') IS NOT NULL";
    let row = tx.row(LOOKING, own_clock.into()).await.unwrap();
    let has_own_clock: bool = row.get(0);
    for sql in capture.install(tx, "tallymark").await.unwrap() {
        if !(has_own_clock && sql.starts_with("SET LOCAL search_path")) {
            tx.execute("installing", sql).await.unwrap();
        }
    }
}

/// Creates the rollup tables of a worker's configuration.
pub async fn init(worker: &Worker) -> Result<(), WorkError> {
    for rollup in &worker.config.rollups {
        let shape = ready::shape(worker, rollup).await?;
        let target = &worker.target;
        let mut tx = target.db.begin(Access::ReadWrite, BUDGET, &rollup.name).await?;
        let mut statements = ddl::plan(&mut tx, target, rollup, &shape).await?;
        statements.extend(live::plan(&mut tx, target, rollup, &shape).await?);
        for statement in statements {
            tx.execute("creating the tables", statement).await?;
        }
        tx.commit().await?;
        identity::identify_at_init(worker, rollup).await?;
    }
    Ok(())
}

/// Four concurrent slices, within [`BUDGET`] each.
pub fn batch() -> BatchOptions {
    let (options, limits) = (RunOptions::default(), BatchLimits::default());
    BatchOptions { concurrency: 4, budget: BUDGET, deadline: None, options, limits }
}

/// The rows of `sql`, each as PostgreSQL writes a record, in order.
pub async fn records(pool: &PgPool, sql: &str) -> Vec<String> {
    let sql = format!("SELECT x::text FROM ({sql}) x");
    let mut tx = pool.begin().await.unwrap();
    sqlx::query("SET LOCAL TimeZone = 'UTC'").execute(&mut *tx).await.unwrap();
    let mut rows: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut *tx).await.unwrap();
    rows.sort();
    rows
}

/// An instant, from a date or a time with an offset.
pub fn instant(text: &str) -> DateTime<Utc> {
    let text = if text.len() == 10 { format!("{text}T00:00:00Z") } else { text.to_owned() };
    text.parse().unwrap()
}

/// A clock that stands at `text` until it is moved.
pub fn clock(text: &str) -> ManualClock {
    ManualClock::new(instant(text))
}
