//! The surroundings of the workers: a source whose clock the test moves, the store of their
//! checkpoints, and the time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, Select};
use chrono::{DateTime, Months, TimeDelta, Utc};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgPool};
use tallymark::embedded::dynamodb::EmbeddedDynamo;
use tallymark::model::clock::{Clock, ManualClock};
use tallymark::work::worker::Worker;

use super::definition::START;
use crate::support::Database;
use crate::support::proxy::Unreliable;
use crate::support::world::{self, Keeper, Urls, instant};

/// Concurrent slices in one worker.
const CONCURRENCY: u32 = 3;

/// A worker's clock advances by this at each read, so that budgets end instantly.
const LOOK_MS: i64 = 3;

/// Offsets of the workers' clocks from the source's, which is the one that counts.
pub const SKEWS_S: [i64; 3] = [0, -90, 110];

/// A worker's clock.
#[derive(Debug)]
struct Skewed {
    base: ManualClock,
    skew: TimeDelta,
    looks: Arc<AtomicI64>,
}

impl Clock for Skewed {
    fn now(&self) -> DateTime<Utc> {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        self.base.now() + self.skew + TimeDelta::milliseconds(LOOK_MS * looks)
    }
}

pub struct Scene {
    pub pool: PgPool,
    pub options: PgConnectOptions,
    /// The DynamoDB with the checkpoints. `None`: they are in the target.
    pub dynamo: Option<Dynamo>,
    urls: Urls,
    base: ManualClock,
    looks: Arc<AtomicI64>,
    now_ms: AtomicI64,
    /// Older rows are left alone.
    floor: Mutex<DateTime<Utc>>,
}

/// A DynamoDB behind a proxy that fails on demand.
pub struct Dynamo {
    /// A direct connection to it.
    client: Client,
    pub proxy: Unreliable,
    _server: EmbeddedDynamo,
    _directory: tempfile::TempDir,
}

/// The table of the checkpoints in DynamoDB.
const TABLE: &str = "soak";

impl Dynamo {
    async fn start() -> Self {
        // A file, so that its content does not count as this process's memory.
        let directory = tempfile::tempdir().unwrap();
        let server = EmbeddedDynamo::start(Some(&directory.path().join("dynamodb"))).await.unwrap();
        let proxy = Unreliable::counting(&server.endpoint());
        Self { client: server.client(), proxy, _server: server, _directory: directory }
    }

    async fn delete(&self, rollup: &str, sort: &str) {
        let text = |value: &str| AttributeValue::S(value.to_owned());
        let delete = self.client.delete_item().table_name(TABLE);
        delete.key("pk", text(rollup)).key("sk", text(sort)).send().await.unwrap();
    }

    async fn items(&self) -> usize {
        let scan = self.client.scan().table_name(TABLE).select(Select::Count);
        let mut pages = scan.into_paginator().send();
        let mut items = 0;
        while let Some(page) = pages.next().await {
            items += usize::try_from(page.unwrap().count()).unwrap();
        }
        items
    }
}

impl Scene {
    /// An empty source and no table of checkpoints, which `keeper` will hold.
    pub async fn new(keeper: Keeper) -> Self {
        let database = Database::create().await;
        let options: PgConnectOptions = database.url().parse().unwrap();
        let clock = include_str!("../histories/virtual.sql").replace("2026-01-01", START);
        let sql = format!(
            "{clock}; {}; DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = virtual, \
             pg_catalog, public', current_database()); END $$",
            include_str!("source.sql")
        );
        let mut connection = database.connect().await;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        drop(connection);
        let named = options.clone().application_name("soak");
        let pool = PgPoolOptions::new().max_connections(2).connect_with(named).await.unwrap();
        let dynamo = match keeper {
            Keeper::DynamoDb => Some(Dynamo::start().await),
            Keeper::Target | Keeper::TargetsClock => None,
        };
        let floor = Mutex::new(instant(START));
        Self {
            pool,
            options,
            dynamo,
            urls: Urls { source: database.url(), target: None },
            base: ManualClock::new(instant(START)),
            looks: Arc::default(),
            now_ms: AtomicI64::new(0),
            floor,
        }
    }

    /// A process of Tallymark, with connections of its own.
    pub fn worker(&self, text: &str, skew_s: i64) -> Worker {
        // One process in four runs at default settings.
        let source = if fastrand::u8(..4) == 0 { world::DEFAULTS } else { "" };
        let config = world::config(&self.urls, source, text);
        let checkpoints = match &self.dynamo {
            None => Keeper::TargetsClock.open(&config, CONCURRENCY),
            Some(dynamo) => {
                let client = dynamo.client.config().to_builder();
                let client = client.endpoint_url(&dynamo.proxy.endpoint).build();
                world::checkpoints_in(Client::from_conf(client), TABLE)
            }
        };
        let (base, looks) = (self.base.clone(), Arc::clone(&self.looks));
        let clock = Arc::new(Skewed { base, skew: TimeDelta::seconds(skew_s), looks });
        let mut worker = Worker::with_checkpoints(config, checkpoints, clock, CONCURRENCY).unwrap();
        worker.settle_wait_max = Duration::ZERO;
        worker
    }

    /// Maximum number of a worker's connections: one more than concurrent slices, to the source, the
    /// target, and a store in it.
    pub fn connections_max(&self) -> i64 {
        (if self.dynamo.is_some() { 2 } else { 3 }) * (i64::from(CONCURRENCY) + 1)
    }

    /// Deletes an item of the checkpoints, as an accident does.
    pub async fn delete_item(&self, rollup: &str, sort: &str) {
        match &self.dynamo {
            Some(dynamo) => dynamo.delete(rollup, sort).await,
            None => {
                let delete = "DELETE FROM tallymark.checkpoint WHERE rollup";
                self.sql(&format!("{delete} = '{rollup}' AND sort = '{sort}'")).await;
            }
        }
    }

    /// The number of items of the checkpoints.
    pub async fn items(&self) -> usize {
        match &self.dynamo {
            Some(dynamo) => dynamo.items().await,
            None => {
                let count = self.number("SELECT count(*) FROM tallymark.checkpoint").await;
                usize::try_from(count).unwrap()
            }
        }
    }

    /// Ends the faults of the store.
    pub fn recover(&self) {
        if let Some(dynamo) = &self.dynamo {
            dynamo.proxy.recover();
        }
    }

    pub async fn sql(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await.unwrap();
    }

    /// Runs one statement, and returns the number of rows it changed.
    pub async fn changed(&self, sql: &str) -> u64 {
        let query = sqlx::query(AssertSqlSafe(sql.to_owned()));
        query.execute(&self.pool).await.unwrap().rows_affected()
    }

    /// The only value of the only row.
    pub async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(format!("SELECT ({sql})::bigint"));
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    pub async fn texts(&self, sql: &str) -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&self.pool).await.unwrap()
    }

    /// Lets time pass, for the source and all workers.
    pub async fn advance(&self, by: Duration) {
        self.base.advance(by);
        self.looks.store(0, Ordering::Relaxed);
        let by_ms = i64::try_from(by.as_millis()).unwrap();
        let now_ms = self.now_ms.fetch_add(by_ms, Ordering::Relaxed) + by_ms;
        self.sql(&format!("SELECT setval('virtual.now', {now_ms})")).await;
    }

    /// The time by the source's clock.
    pub fn now(&self) -> DateTime<Utc> {
        self.base.now()
    }

    pub fn now_ms(&self) -> i64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    pub fn floor_ms(&self) -> i64 {
        (self.floor() - instant(START)).num_milliseconds()
    }

    pub fn floor(&self) -> DateTime<Utc> {
        *self.floor.lock().unwrap()
    }

    pub fn raise_floor(&self, to: DateTime<Utc>) {
        *self.floor.lock().unwrap() = to;
    }

    /// An instant of the source's clock, as SQL.
    #[expect(clippy::unused_self, reason = "of this clock")]
    pub fn literal(&self, ms: i64) -> String {
        let at = instant(START) + TimeDelta::milliseconds(ms);
        format!("'{}'::timestamptz", at.to_rfc3339())
    }

    /// Ends every session of Tallymark, as an administrator could. Returns their number.
    pub async fn end_sessions(&self) -> i64 {
        self.number(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_catalog.pg_stat_activity WHERE \
             datname = current_database() AND application_name LIKE 'tallymark%'",
        )
        .await
    }

    /// Makes the partition of month `number` of this life.
    pub async fn add_partition(&self, number: u32) {
        let (from, to) = (month(number), month(number + 1));
        self.sql(&format!(
            "CREATE TABLE public.{} PARTITION OF public.events FOR VALUES FROM ('{from}') TO ('{to}')",
            partition(number)
        ))
        .await;
    }
}

/// When month `number` of this life begins.
pub fn month(number: u32) -> DateTime<Utc> {
    instant(START) + Months::new(number)
}

/// The name of that month's partition.
pub fn partition(number: u32) -> String {
    month(number).format("events_%Y_%m").to_string()
}
