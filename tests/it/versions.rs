//! The oldest and the newest PostgreSQL that are supported, with the same spine. The server that
//! all other tests share is of whatever version the machine has.

use tallymark::embedded::postgres::{Binaries, EmbeddedPostgres};

use super::support::world::{EVENTS, Setup, Urls, World, random_events};
use super::support::{cache, options, server_directory};

/// Starts a server of this version with two databases.
pub(crate) async fn server(major: u16) -> (EmbeddedPostgres, Urls) {
    let directory = server_directory(&format!("version-{major}"));
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

/// Backfill, an unchanged rerun and a change of the past, within one database and across two.
async fn spine(major: u16) {
    let (_server, urls) = server(major).await;
    let one = Urls { target: None, ..urls.clone() };
    for urls in [one, urls] {
        let world = World::at(urls, Setup::default()).await;
        world
            .sql(&format!("DROP TABLE IF EXISTS events; {EVENTS}; {}", random_events(6, 5_000)))
            .await;
        world.init().await.unwrap();
        assert_eq!(world.backfill("2026-01-07", false).await.succeeded, 6);
        world.verify_all("2026-01-07").await;
        let again = world.backfill("2026-01-07", true).await;
        assert_eq!((again.inserted, again.updated, again.deleted), (0, 0, 0));
        world.sql("DELETE FROM events WHERE kind = 'buy' OR kind IS NULL AND user_id < 3").await;
        world.backfill("2026-01-07", true).await;
        world.verify_all("2026-01-07").await;
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

/// PostgreSQL 17 and later can limit whole transactions; a slice of ours lasts as long as its statements may.
#[tokio::test]
async fn a_limit_of_whole_transactions_fails_no_slice() {
    let (_server, urls) = server(18).await;
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
