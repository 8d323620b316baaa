//! The oldest and the newest supported PostgreSQL, with the same spine. The server that all other
//! tests share has the machine's version.

use tallymark::embedded::postgres::{Binaries, EmbeddedPostgres};

use super::support::world::{DAILY, EVENTS, Setup, Urls, World, random_events};
use super::support::{cache, options, server_directory};

/// Starts a server of this version with two databases.
pub(crate) async fn server(major: u16, name: &str) -> (EmbeddedPostgres, Urls) {
    let directory = server_directory(&format!("version-{major}-{name}"));
    let start = move || {
        let binaries = Binaries::version(major, &cache()).unwrap();
        EmbeddedPostgres::start(binaries, options(directory)).unwrap()
    };
    let server = tokio::task::spawn_blocking(start).await.unwrap();
    let pool = sqlx::PgPool::connect(&server.url("postgres")).await.unwrap();
    for sql in ["CREATE DATABASE source", "CREATE DATABASE target"] {
        sqlx::query(sql).execute(&pool).await.unwrap();
    }
    let urls = Urls { source: server.url("source"), target: Some(server.url("target")) };
    (server, urls)
}

/// The kinds whose numbers in a series differ from those of the rollup, of all that it has.
const SERIES: &str = "WITH found AS (SELECT kind, sum(events) AS n FROM stats.daily_series('2026-01-01Z', \
    '2026-01-07Z', '1 day', 'Europe/Berlin', '{kind}', '{\"entity_id\": [0, 1]}') GROUP BY 1), \
    wanted AS (SELECT kind, sum(events) FROM stats.daily WHERE entity_id IN (0, 1) GROUP BY 1) \
    SELECT (SELECT count(*) FROM (SELECT * FROM found EXCEPT SELECT * FROM wanted) x) || ' of ' || \
    (SELECT count(*) FROM found)";

/// Backfill, an unchanged rerun and a change of the past, within one database and across two. The table
/// of the second is in partitions.
async fn spine(major: u16) {
    let (_server, urls) = server(major, "spine").await;
    let one = Urls { target: None, ..urls.clone() };
    let parted = DAILY.replace("slice =", "partition_by = \"month\"\nslice =");
    for (urls, rollups) in [(one, DAILY), (urls, &parted)] {
        let world = World::at(urls, Setup { rollups, ..Setup::default() }).await;
        world
            .sql(&format!("DROP TABLE IF EXISTS events; {EVENTS}; {}", random_events(6, 5_000)))
            .await;
        world.init().await.unwrap();
        crate::series::make(&world).await;
        assert_eq!(world.backfill("2026-01-07", false).await.succeeded, 6);
        world.verify_all("2026-01-07").await;
        let again = world.backfill("2026-01-07", true).await;
        assert_eq!((again.inserted, again.updated, again.deleted), (0, 0, 0));
        world.sql("DELETE FROM events WHERE kind = 'buy' OR kind IS NULL AND user_id < 3").await;
        world.backfill("2026-01-07", true).await;
        world.verify_all("2026-01-07").await;
        assert_eq!(world.target_value(SERIES).await, "0 of 3");
        world.target_sql("DROP SCHEMA stats, tallymark CASCADE").await;
    }
}

#[tokio::test]
async fn the_spine_works_on_postgresql_13() {
    spine(13).await;
}

#[tokio::test]
async fn the_spine_works_on_postgresql_18() {
    spine(18).await;
}

/// PostgreSQL 17 and later can limit whole transactions. Tallymark's slices last as long as their
/// statements may.
#[tokio::test]
async fn a_limit_of_whole_transactions_fails_no_slice() {
    let (_server, urls) = server(18, "limit").await;
    let urls = Urls { target: None, ..urls };
    let world = World::at(urls, Setup::default()).await;
    world.sql(&format!("{EVENTS}; {}", random_events(2, 50))).await;
    world.init().await.unwrap();
    world
        .sql(
            "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
             'BEGIN PERFORM pg_sleep(2); RETURN NULL; END'; \
             CREATE TRIGGER slow AFTER INSERT ON stats.daily EXECUTE FUNCTION slow(); \
             ALTER DATABASE source SET transaction_timeout = '1s'",
        )
        .await;
    world.worker.close().await;
    assert_eq!(world.backfill("2026-01-03", false).await.succeeded, 2);
    assert_eq!(world.checkpoint("2026-01-01").await.unwrap().failures, 0);
}

/// Sums of infinite values, of NaN, and beyond the range of a double. They follow PostgreSQL's own
/// rules where it has some, and are the same on each version, whole and in chunks.
async fn infinite(major: u16) {
    let (_server, urls) = server(major, "infinite").await;
    let rollups: String = ["things", "vast"]
        .map(|from| {
            format!(
                "[[rollup]]\nname = \"by_{from}\"\nfrom = \"{from}\"\ntime = \"at\"\n\
                 start = \"2026-01-01\"\nslice = \"1 day\"\ngroup_by = [\"g\"]\n[rollup.measures]\n\
                 d = {{ sum = \"d\" }}\nr = {{ sum = \"r\" }}\nmean = {{ avg = \"d\" }}\n"
            )
        })
        .concat();
    let coarse = "[[rollup]]\nname = \"monthly\"\nfrom = { rollup = \"by_things\" }\nslice = \"1 month\"\n\
                  group_by = [\"g\"]\nmeasures = [\"d\", \"r\", \"mean\"]\n";
    let rollups = rollups + coarse;
    let one = Urls { target: None, ..urls.clone() };
    for urls in [one, urls] {
        let setup = Setup { rollups: &rollups, ..Setup::default() };
        let world = World::at(urls, setup).await;
        world
            .sql(
                "DROP TABLE IF EXISTS things CASCADE; DROP FUNCTION IF EXISTS much; \
                 CREATE TABLE things (at timestamptz, g text, d float8, r real); \
                 INSERT INTO things SELECT '2026-01-01Z'::timestamptz + n * interval '3 hours', g, \
                 (v ->> (n % jsonb_array_length(v))::int)::float8, \
                 CASE WHEN abs((v ->> (n % jsonb_array_length(v))::int)::float8) BETWEEN 1e-30 AND 1e30 \
                   OR (v ->> (n % jsonb_array_length(v))::int) IN ('Infinity', '-Infinity', 'NaN') \
                   THEN (v ->> (n % jsonb_array_length(v))::int)::real END \
                 FROM generate_series(0, 7) n, (VALUES \
                   ('up', '[\"Infinity\", \"-5\", \"1e308\"]'::jsonb), ('down', '[\"-Infinity\", \"7\"]'), \
                   ('both', '[\"Infinity\", \"-Infinity\", \"1\"]'), ('nan', '[\"NaN\", \"-Infinity\"]'), \
                   ('over', '[\"1.7e308\"]'), ('under', '[\"-1.7e308\"]'), \
                   ('back', '[\"1.7e308\", \"-1.7e308\"]'), ('none', '[null]'), ('plain', '[\"0.1\"]') \
                 ) AS kinds (g, v); ANALYZE things; \
                 CREATE FUNCTION much() RETURNS SETOF boolean LANGUAGE plpgsql VOLATILE ROWS 1000000 \
                 AS 'BEGIN RETURN NEXT true; END'; \
                 CREATE VIEW vast AS SELECT t.* FROM things t CROSS JOIN LATERAL much()",
            )
            .await;
        world.init().await.unwrap();
        for rollup in &world.worker.config.rollups {
            // One slice, so that the speed of the view is still unknown.
            let end = if rollup.name == "by_vast" { "2026-01-02" } else { "2026-02-01" };
            let report = world.backfill_one(rollup, end, false).await;
            assert_eq!((report.failed.len(), report.left), (0, 0), "{major}: {report:?}");
            let sql = format!(
                "SELECT string_agg(concat_ws(' ', g, d, r, mean), ', ' ORDER BY g COLLATE \"C\") \
                 FROM stats.{}",
                rollup.name
            );
            let found = world.target_value(&sql).await;
            let wanted = "back 0 0, both NaN NaN NaN, down -Infinity -Infinity -Infinity, nan NaN NaN NaN, \
                          none, over Infinity Infinity, plain 0.8 0.8 0.1, under -Infinity -Infinity, \
                          up Infinity Infinity Infinity";
            assert_eq!(found, wanted, "{major}: {}", rollup.name);
        }
        let chunks = world
            .worker
            .checkpoints
            .get("by_vast", world.rollup().start)
            .await
            .unwrap()
            .unwrap()
            .outcome
            .unwrap()
            .chunks;
        assert!(chunks > 1, "{chunks}");
        world.assert_verified("2026-01-02").await;
        world.target_sql("DROP SCHEMA stats, tallymark CASCADE").await;
    }
}

#[tokio::test]
async fn infinite_values_are_summed_on_postgresql_13() {
    infinite(13).await;
}

#[tokio::test]
async fn infinite_values_are_summed_on_postgresql_18() {
    infinite(18).await;
}

/// Readers merge what servers of different versions computed.
#[tokio::test]
async fn sets_and_sketches_are_the_same_bits_on_postgresql_13_and_18() {
    let (_oldest, oldest) = server(13, "bits").await;
    let (_newest, newest) = server(18, "bits").await;
    let across = super::measured::bits(oldest).await;
    assert_eq!(across, super::measured::bits(Urls { target: None, ..newest }).await);
}

/// Each unique index is recognised in the form that this version writes.
async fn indexes(major: u16) {
    let (_server, urls) = server(major, "indexes").await;
    super::tables::every_value_is_counted(Some(&urls), major >= 15).await;
}

#[tokio::test]
async fn values_of_any_length_are_counted_on_postgresql_13() {
    indexes(13).await;
}

#[tokio::test]
async fn values_of_any_length_are_counted_on_postgresql_18() {
    indexes(18).await;
}
