//! Behind a transaction pooler every transaction may get another backend. A real PgBouncer with
//! fewer backends than concurrent slices loses everything that a session would have kept.

use super::support::pooler::PgBouncer;
use super::support::world::{EVENTS, Setup, Urls, World, random_events};
use super::support::{Database, postgres};

/// Backfills four concurrent slices through two backends, within one database and across two. The
/// result is right, and so is a replay after a change.
#[tokio::test]
async fn a_transaction_pooler_is_no_hindrance() {
    let Some(pooler) = PgBouncer::start(postgres().port(), 2) else {
        eprintln!("skipped: PgBouncer is not installed (apt-get install pgbouncer)");
        return;
    };
    let through = |database: &Database| {
        let direct = format!("127.0.0.1:{}/", postgres().port());
        database.url().replace(&direct, &format!("127.0.0.1:{}/", pooler.port))
    };
    for across in [false, true] {
        let (source_db, target_db) = (Database::create().await, Database::create().await);
        let target = across.then(|| through(&target_db));
        let urls = Urls { source: through(&source_db), target };
        let world = World::at(urls, Setup::default()).await;
        let direct = source_db.pool().await;
        let sql = format!("{EVENTS}; {}", random_events(12, 5_000));
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&direct).await.unwrap();
        world.init().await.unwrap();
        assert_eq!(world.backfill("2026-01-13", false).await.succeeded, 12);
        world.assert_verified("2026-01-13").await;
        let change = "UPDATE events SET amount = amount + 1 WHERE user_id = 7";
        sqlx::query(change).execute(&direct).await.unwrap();
        world.backfill("2026-01-13", true).await;
        world.assert_verified("2026-01-13").await;
    }
}
