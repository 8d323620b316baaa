//! The servers, the databases and the command that are measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tallymark::embedded::dynamodb::EmbeddedDynamo;
use tallymark::embedded::postgres::{Binaries, EmbeddedPostgres, Options};
use tallymark::model::clock::Stopwatch;

use crate::Result;
use crate::dynamo::{Relay, Requests};
use crate::figures;

/// Slices: the days of `seed.sql`.
pub const DAYS: u64 = 90;

/// Small slices: the hours of `small` in `seed.sql`.
pub const HOURS: u64 = 8_760;

/// What both contestants compute.
#[derive(Clone, Copy)]
pub struct Work {
    /// The rollup, and the floor's table.
    table: &'static str,
    source: &'static str,
    start: &'static str,
    width: TimeDelta,
    slices: u64,
}

impl Work {
    pub const DAILY: Self = Self {
        table: "daily",
        source: "events",
        start: "2026-01-01T00:00:00Z",
        width: TimeDelta::days(1),
        slices: DAYS,
    };
    pub const HOURLY: Self = Self {
        table: "hourly",
        source: "small",
        start: "2025-01-01T00:00:00Z",
        width: TimeDelta::hours(1),
        slices: HOURS,
    };
}

/// Rows of each group of the wide slice.
const WIDE_ROWS: u64 = 2;

/// The whole source fits, so that both contestants measure work instead of the disk.
const SHARED_BUFFERS_MB: u32 = 3072;

/// Typical settings for a server of this size. Autovacuum is off during a round, and `rest` vacuums
/// in between. JIT is off, as it would only slow down both.
const SETTINGS: [&str; 5] = [
    "work_mem = '16MB'",
    "jit = off",
    "max_wal_size = '8GB'",
    "checkpoint_timeout = '30min'",
    "autovacuum = off",
];

/// The subject of the measurement, and its surroundings.
pub struct Place {
    binary: PathBuf,
    postgres: EmbeddedPostgres,
    dynamo: EmbeddedDynamo,
    relay: Option<Relay>,
    directory: PathBuf,
    database: String,
    across: bool,
}

impl Place {
    /// Starts the servers. Seeds the source unless an earlier run has left it.
    pub async fn new(rows: u64, wide_groups: u64, binary: PathBuf) -> Result<Self> {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench");
        fs::create_dir_all(&directory)?;
        let binaries = Binaries::find(&directory.join("cache"))?;
        let options = Options {
            directory: directory.join(format!("postgres-{}", binaries.major())),
            max_connections: 20,
            shared_buffers_mb: SHARED_BUFFERS_MB,
            durable: true,
            throwaway: false,
        };
        let postgres = EmbeddedPostgres::start(binaries, options)?;
        let dynamo = EmbeddedDynamo::start(None).await?;
        let database = format!("events_{rows}_{wide_groups}_{HOURS}");
        let (relay, across) = (None, false);
        let place = Self { binary, postgres, dynamo, relay, directory, database, across };
        place.keep_in_target(false)?;
        place.configure().await?;
        place.seed(rows, wide_groups).await?;
        Ok(place)
    }

    pub fn major(&self) -> u16 {
        self.postgres.major()
    }

    async fn configure(&self) -> Result<()> {
        let mut admin = PgConnection::connect(&self.postgres.url("postgres")).await?;
        for setting in SETTINGS {
            execute(&mut admin, &format!("ALTER SYSTEM SET {setting}")).await?;
        }
        execute(&mut admin, "SELECT pg_reload_conf()").await?;
        Ok(())
    }

    async fn seed(&self, rows: u64, wide_groups: u64) -> Result<()> {
        let mut admin = PgConnection::connect(&self.postgres.url("postgres")).await?;
        let name = &self.database;
        let sql = format!(
            "SELECT count(*) FROM pg_database WHERE datname IN ('{name}', '{name}_target')"
        );
        let found: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut admin).await?;
        // The second is created last.
        if found == 2 {
            return Ok(());
        }
        println!("seeding {rows} rows");
        execute(&mut admin, &format!("DROP DATABASE IF EXISTS {name}")).await?;
        execute(&mut admin, &format!("CREATE DATABASE {name}")).await?;
        let mut source = self.connect().await?;
        let seed = include_str!("seed.sql")
            .replace("{rows}", &rows.to_string())
            .replace("{wide_rows}", &(wide_groups * WIDE_ROWS).to_string())
            .replace("{wide_groups}", &wide_groups.to_string());
        execute(&mut source, &seed).await?;
        execute(&mut source, "VACUUM ANALYZE").await?;
        execute(&mut admin, &format!("CREATE DATABASE {name}_target")).await?;
        Ok(())
    }

    /// Whether the checkpoints are in the target from here on, or in DynamoDB.
    pub fn keep_in_target(&self, has_store: bool) -> Result<()> {
        let store = if has_store { "\n[checkpoint]\nstore = \"postgres\"\n" } else { "" };
        let text = format!("{}{store}", include_str!("tallymark.toml"));
        Ok(fs::write(self.directory.join("tallymark.toml"), text)?)
    }

    /// A connection to the source.
    pub async fn connect(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.postgres.url(&self.database)).await?)
    }

    fn target_database(&self) -> String {
        if self.across { format!("{}_target", self.database) } else { self.database.clone() }
    }

    async fn connect_target(&self) -> Result<PgConnection> {
        Ok(PgConnection::connect(&self.postgres.url(&self.target_database())).await?)
    }

    /// Whether the target is a separate database from here on.
    pub fn across(&mut self, across: bool) {
        self.across = across;
    }

    /// Tallymark's tables and checkpoints, new and empty.
    pub async fn empty(&mut self) -> Result<()> {
        let mut target = self.connect_target().await?;
        execute(&mut target, "DROP SCHEMA IF EXISTS stats, tallymark CASCADE").await?;
        self.relay = None;
        self.dynamo = EmbeddedDynamo::start(None).await?;
        run(&mut self.command(&["init"]))?;
        Ok(())
    }

    /// The floor's tables, new and empty, with the same index as Tallymark's.
    pub async fn empty_floor(&self) -> Result<()> {
        let mut sql = "DROP SCHEMA IF EXISTS floor CASCADE; CREATE SCHEMA floor".to_owned();
        for Work { table, .. } in [Work::DAILY, Work::HOURLY] {
            sql.push_str(&format!(
                "; CREATE TABLE floor.{table} (bucket timestamptz NOT NULL, entity_id integer, \
                     kind text, events bigint, revenue numeric, users bigint); \
                 CREATE UNIQUE INDEX ON floor.{table} (bucket, entity_id, kind)"
            ));
        }
        execute(&mut self.connect().await?, &sql).await
    }

    /// Gives all rounds the same start: nothing to vacuum, nothing to write back.
    pub async fn rest(&self) -> Result<()> {
        for database in [self.database.clone(), self.target_database()] {
            let url = self.postgres.url(&database);
            let mut connection = PgConnection::connect(&url).await?;
            execute(&mut connection, "VACUUM ANALYZE").await?;
            execute(&mut connection, "CHECKPOINT").await?;
        }
        Ok(())
    }

    /// The naive job, slice by slice, oldest first.
    pub async fn floor(&self, connection: &mut PgConnection, work: Work) -> Result<()> {
        let first: DateTime<Utc> = work.start.parse()?;
        let quoted = |at: DateTime<Utc>| format!("'{}'::timestamptz", at.to_rfc3339());
        let mut start = first;
        for _ in 0..work.slices {
            let end = start + work.width;
            let sql = include_str!("floor.sql")
                .replace("{table}", work.table)
                .replace("{source}", work.source)
                .replace("{start}", &quoted(start))
                .replace("{end}", &quoted(end));
            // One by one, as psql sends them.
            for statement in sql.split(';').filter(|statement| !statement.trim().is_empty()) {
                execute(connection, statement).await?;
            }
            start = end;
        }
        Ok(())
    }

    /// Runs a backfill to its end. Returns how long its process lived, and its peak memory.
    pub fn backfill(&self, rollup: &str, more: &[&str]) -> Result<(Duration, u64)> {
        let to: &[&str] = if rollup == "daily" { &["--to", "2026-04-01"] } else { &[] };
        let fixed = ["backfill", rollup, "--order", "oldest-first", "--concurrency", "1", "--yes"];
        let arguments = [&fixed, to, more].concat();
        run(&mut self.command(&arguments))
    }

    /// As [`Place::backfill`], of the small slices.
    pub fn backfill_hours(&self, concurrency: Option<&str>) -> Result<(Duration, u64)> {
        let range = "backfill hourly --to 2026-01-01 --order oldest-first --yes";
        let mut arguments: Vec<&str> = range.split(' ').collect();
        arguments.extend(concurrency.into_iter().flat_map(|it| ["--concurrency", it]));
        run(&mut self.command(&arguments))
    }

    /// As [`Place::backfill`], for everything once more. Returns the printed document.
    pub fn backfill_again(&self) -> Result<serde_json::Value> {
        let words = "backfill daily --to 2026-04-01 --force --yes --json";
        let arguments: Vec<&str> = words.split(' ').collect();
        let output = self.command(&arguments).output()?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// The blocks that statements have read in the source so far, by PostgreSQL's statistics.
    pub async fn blocks(&self) -> Result<i64> {
        // They are reported within a second.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let sql = "SELECT sum(heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit)::bigint \
            FROM pg_statio_user_tables WHERE relname = 'events'";
        Ok(sqlx::query_scalar(sql).fetch_one(&mut self.connect().await?).await?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let endpoint = self.relay.as_ref().map_or_else(|| self.dynamo.endpoint(), Relay::endpoint);
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env_remove("TALLYMARK_CONFIG")
            .env_remove("AWS_PROFILE")
            .env("AWS_ENDPOINT_URL_DYNAMODB", endpoint)
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", "bench")
            .env("AWS_SECRET_ACCESS_KEY", "bench")
            .env("SOURCE_DATABASE_URL", self.postgres.url(&self.database))
            .env("TARGET_DATABASE_URL", self.postgres.url(&self.target_database()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Counts the requests to DynamoDB from here on.
    pub async fn begin_counting(&mut self) -> Result<()> {
        self.relay = Some(Relay::start(&self.dynamo.endpoint()).await?);
        Ok(())
    }

    /// The requests that were counted.
    pub fn end_counting(&mut self) -> Requests {
        self.relay.take().map(|relay| relay.requests()).unwrap_or_default()
    }

    /// Both contestants must have the same result.
    pub async fn compare(&self, work: Work) -> Result<()> {
        let table = work.table;
        let sql = format!(
            "WITH floor AS (SELECT bucket, entity_id, kind, events, revenue, users FROM floor.{table}), \
                 tallymark AS (SELECT bucket, entity_id, kind, events, revenue, users FROM stats.{table}), \
                 only_floor AS (TABLE floor EXCEPT TABLE tallymark), \
                 only_tallymark AS (TABLE tallymark EXCEPT TABLE floor) \
             SELECT count(*) FROM (TABLE only_floor UNION ALL TABLE only_tallymark) x"
        );
        let mut connection = self.connect().await?;
        let differences: i64 =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await?;
        let sql = format!("SELECT count(*) FROM stats.{table}");
        let groups: i64 = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut connection).await?;
        if differences != 0 || groups == 0 {
            return Err(format!("{differences} of {groups} groups differ from the floor's").into());
        }
        println!("{groups} groups, the same from both");
        Ok(())
    }

    /// The groups of the wide slice.
    pub async fn wide_groups(&self) -> Result<i64> {
        let mut target = self.connect_target().await?;
        Ok(sqlx::query_scalar("SELECT count(*) FROM stats.wide").fetch_one(&mut target).await?)
    }
}

async fn execute(connection: &mut PgConnection, sql: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await?;
    Ok(())
}

/// Runs a command that must succeed. Returns how long it lived, and its peak memory.
fn run(command: &mut Command) -> Result<(Duration, u64)> {
    let watch = Stopwatch::start();
    let mut child = command.spawn()?;
    let (status, peak) = figures::wait(&mut child)?;
    let elapsed = watch.elapsed();
    let output = child.wait_with_output()?;
    if !status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let arguments: Vec<_> = command.get_args().collect();
        return Err(format!("{arguments:?} ended with {status}: {said}").into());
    }
    Ok((elapsed, peak))
}
