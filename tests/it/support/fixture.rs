//! A source of twelve days, the tables of its rollup, and an empty checkpoint table.

use std::fs;
use std::path::PathBuf;

use sqlx::AssertSqlSafe;
use tallymark::checkpoint::Checkpoints;
use tallymark::clients::db::{Access, CATALOGUE_TIMEOUT, Db, Side};
use tallymark::config::Config;
use tallymark::embedded::dynamodb::EmbeddedDynamo;
use tallymark::source::reading::shape;
use tallymark::target::partitions::KnownPartitions;
use tallymark::target::{Keepers, Target, ddl};
use tempfile::TempDir;

use super::Database;

/// The definition file.
const CONFIG: &str = include_str!("fixture.toml");

/// 2026-02-01 to 2026-02-12, a row every ten minutes, some without a kind.
const SEED: &str = "
    CREATE TABLE events (
        id bigint GENERATED ALWAYS AS IDENTITY, created_at timestamptz NOT NULL,
        entity_id int NOT NULL, kind text, amount numeric, user_id int
    );
    INSERT INTO events (created_at, entity_id, kind, amount, user_id)
    SELECT t, n % 7, (ARRAY['view', 'click', NULL])[1 + n % 3], (n % 100) / 4.0, n % 11
    FROM generate_series(timestamptz '2026-02-01Z', '2026-02-12 23:50Z', '10 minutes')
        WITH ORDINALITY AS series (t, m), LATERAL (SELECT m::int AS n) AS numbered;
    CREATE INDEX ON events (created_at);
";

/// Rows that the rollup lacks or has too many, over the range of starts given.
const DRIFT: &str = "
    WITH wanted AS (
        SELECT date_bin('1 hour', created_at, '2026-01-01Z') AS bucket, entity_id, kind,
            count(*) AS events, sum(amount) AS revenue, count(DISTINCT user_id) AS users
        FROM events WHERE created_at >= $1::timestamptz AND created_at < $2::timestamptz
        GROUP BY 1, 2, 3
    ), found AS (
        SELECT bucket, entity_id, kind, events, revenue, users FROM stats.entity_daily
    )
    SELECT (SELECT count(*) FROM (TABLE wanted EXCEPT ALL TABLE found) AS lacking)
        + (SELECT count(*) FROM (TABLE found EXCEPT ALL TABLE wanted) AS surplus)
";

/// Servers, data and definition of one test.
pub struct Fixture {
    /// Source and target.
    pub database: Database,
    /// The DynamoDB API.
    pub dynamo: EmbeddedDynamo,
    pub checkpoints: Checkpoints,
    directory: TempDir,
}

/// A text that must not appear anywhere.
pub const PASSWORD: &str = "swordfish-8271";

impl Fixture {
    /// Everything that `init` would create, and no work done.
    pub async fn create() -> Self {
        let database = Database::create().await;
        let pool = database.pool().await;
        sqlx::raw_sql(SEED).execute(&pool).await.unwrap();
        pool.close().await;
        let dynamo = EmbeddedDynamo::start(None).await.unwrap();
        let checkpoints = super::world::checkpoints_in(dynamo.client(), "tallymark");
        let directory = tempfile::tempdir().unwrap();
        let fixture = Self { database, dynamo, checkpoints, directory };
        fs::write(fixture.config_path(), CONFIG).unwrap();
        let url = fixture.url();
        let config = Config::load(&fixture.config_path(), &|name| {
            (name != "TALLYMARK_TABLE").then(|| url.clone())
        })
        .unwrap();
        prepare(&config, &fixture.checkpoints).await;
        fixture
    }

    /// The definition file's place.
    pub fn config_path(&self) -> PathBuf {
        self.directory.path().join("tallymark.toml")
    }

    /// The database's URL, with a password that the server ignores.
    pub fn url(&self) -> String {
        let url = self.database.url();
        let (user, server) = url.split_once('@').unwrap();
        format!("{user}:{PASSWORD}@{server}")
    }

    /// The environment of a function that finds all of this.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("TALLYMARK_CONFIG", self.config_path().to_str().unwrap().to_owned()),
            ("SOURCE_DATABASE_URL", crate::support::pooler::pooled(&self.url())),
            ("AWS_ENDPOINT_URL_DYNAMODB", self.dynamo.endpoint()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
        ]
    }

    /// Runs SQL, as many statements as it has.
    pub async fn execute(&self, sql: &str) {
        let mut connection = self.database.connect().await;
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut connection).await.unwrap();
    }

    /// The number of the rollup's rows that differ from a GROUP BY of the events in `[from, to)`.
    pub async fn drift(&self, from: &str, to: &str) -> i64 {
        let mut connection = self.database.connect().await;
        sqlx::query_scalar(DRIFT).bind(from).bind(to).fetch_one(&mut connection).await.unwrap()
    }
}

/// Creates the tables of all rollups, as `tallymark init` does.
pub async fn prepare(config: &Config, checkpoints: &Checkpoints) {
    checkpoints.create_table().await.unwrap();
    let source = Db::new(&config.source.url, Side::Source, 2).unwrap();
    let url = config.target.url.as_ref().unwrap_or(&config.source.url);
    let db = Db::new(url, Side::Target, 2).unwrap();
    let schema = config.target.schema.clone();
    let is_source = config.target.url.is_none();
    let (keepers, partitions) = (Keepers::default(), KnownPartitions::default());
    let target = Target { db, schema, is_source, keepers, partitions };
    for rollup in &config.rollups {
        let mut tx = source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "init").await.unwrap();
        let shape = shape::inspect(&mut tx, rollup, target.is_source).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = target.db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, "init").await.unwrap();
        for statement in ddl::plan(&mut tx, &target, rollup, &shape).await.unwrap() {
            sqlx::raw_sql(AssertSqlSafe(statement)).execute(tx.connection()).await.unwrap();
        }
        tx.commit().await.unwrap();
    }
    source.close().await;
    target.db.close().await;
}
