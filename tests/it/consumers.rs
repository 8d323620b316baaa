//! Whoever counts a captured table gets every mark: the rollups of one file, of another deploy, of another
//! installation.

use std::sync::Arc;

use tallymark::rollup::Rollup;

use crate::capture::tick;
use crate::support::Database;
use crate::support::cli::{Place, daily, day};
use crate::support::world::{DAILY, EVENTS, Setup, Urls, World, clock, install_capture};

const LATE: &str = "INSERT INTO events (created_at, kind) VALUES ('2026-01-01T05:10Z', 'late')";

fn one(name: &str) -> String {
    DAILY
        .replace("\"daily\"", &format!("\"{name}\""))
        .replace("bucket =", "late = \"capture\"\nshrink_guard = 0.0\nbucket =")
}

/// Two rollups of one table, which have computed two days.
async fn two() -> World {
    let rollups = format!("{}{}", one("daily"), one("again"));
    let clock = Arc::new(clock("2026-01-03T12:00:00Z"));
    let world = World::new(EVENTS, Setup { rollups: &rollups, clock, ..Setup::default() }).await;
    world.sql(LATE).await;
    install_capture(&world.worker).await;
    tick(&world).await;
    world
}

async fn counted(world: &World, rollup: &str) -> String {
    world.target_value(&format!("SELECT sum(events) FROM stats.{rollup}")).await
}

async fn marks(world: &World) -> String {
    let sql = "SELECT (SELECT count(*) FROM tallymark.mark) || ' ' || (SELECT count(*) FROM tallymark.taken)";
    let value: Option<String> = sqlx::query_scalar(sql).fetch_one(&world.pool).await.unwrap();
    value.unwrap()
}

#[tokio::test]
async fn a_rollup_that_a_deploy_leaves_out_for_a_tick_loses_no_late_row() {
    let world = two().await;
    let other = world.redefined(&one("daily"));
    world.sql(LATE).await;
    tick(&other).await;
    assert_eq!(
        (counted(&world, "daily").await, counted(&world, "again").await),
        ("2".into(), "1".into())
    );
    assert_eq!(marks(&world).await, "1 1", "it waits for the other one");
    // What the first has taken does not run again for the other's sake.
    assert_eq!(tick(&other).await.slices.len(), 0);
    assert_eq!(tick(&world).await.slices.len(), 1);
    assert_eq!(counted(&world, "again").await, "2");
    assert_eq!(marks(&world).await, "0 0");
}

#[tokio::test]
async fn two_installations_over_one_table_both_count_late_rows() {
    let one_of = two().await;
    let target = Database::create().await;
    let urls = Urls { source: one_of.urls.source.clone(), target: Some(target.url()) };
    let (rollups, clock) = (one("daily"), Arc::new(clock("2026-01-03T12:00:00Z")));
    let other = World::at(urls, Setup { rollups: &rollups, clock, ..Setup::default() }).await;
    other.init().await.unwrap();
    tick(&other).await;
    assert_eq!(counted(&other, "daily").await, "1");
    for (first, second) in [(&one_of, &other), (&other, &one_of)] {
        one_of.sql(LATE).await;
        tick(first).await;
        tick(second).await;
        assert_eq!(counted(first, "daily").await, counted(second, "daily").await);
    }
    assert_eq!(counted(&other, "daily").await, "3");
    assert_eq!(marks(&one_of).await, "0 0");
}

#[tokio::test]
async fn a_seal_for_one_tick_loses_no_late_row() {
    let world = two().await;
    let rollups = format!("{}{}", one("daily"), one("again"));
    let sealed = rollups.replace("bucket =", "seal_before = \"2026-01-02\"\nbucket =");
    let sealed = world.redefined(&sealed);
    world.sql(LATE).await;
    assert_eq!(tick(&sealed).await.slices.len(), 0, "nothing that is sealed is due");
    assert_eq!(tick(&sealed).await.slices.len(), 0);
    assert_eq!(marks(&world).await, "0 0");
    let dirty = world.checkpoint("2026-01-01").await.unwrap().dirty;
    assert!(dirty > 0, "it is noted");
    assert_eq!(tick(&world).await.slices.len(), 2);
    assert_eq!(
        (counted(&world, "daily").await, counted(&world, "again").await),
        ("2".into(), "2".into())
    );
    assert_eq!(tick(&world).await.slices.len(), 0);
}

#[tokio::test]
async fn a_consumer_that_was_forgotten_runs_everything_again() {
    let world = two().await;
    world.sql("DELETE FROM tallymark.consumer WHERE rollup = 'again'").await;
    world.sql(LATE).await;
    tick(&world.redefined(&one("daily"))).await;
    assert_eq!(marks(&world).await, "0 0", "nobody else is known");
    let report = tick(&world).await;
    let again = |it: &&tallymark::report::SliceReport| it.rollup == "again";
    assert_eq!(report.slices.iter().filter(again).count(), 2, "{report:?}");
    assert_eq!(counted(&world, "again").await, "2");
    assert_eq!(tick(&world).await.slices.len(), 0);
    let rollup: &Rollup = &world.worker.config.rollups[1];
    world.assert_one_verified(rollup, "2026-01-03").await;
}

/// By the command line.
#[tokio::test]
async fn the_command_shows_and_forgets_consumers() {
    let (place, _database) = Place::with_events(3).await;
    let captured = daily(3).replace("slice =", "late = \"capture\"\nslice =");
    place.configure(&captured);
    place.run(&["init"]).good();
    place.run(&["capture", "install"]).good();
    place.run(&["run"]).good();
    place.sql(&format!("INSERT INTO events VALUES ('{}T05:00Z', 'late', 1)", day(2))).await;
    let consumer = &place.json(&["capture", "status"])["tables"][0]["consumers"][0];
    assert_eq!((&consumer["rollup"], &consumer["waiting"]), (&"daily".into(), &1.into()));
    assert!(consumer["age_s"].as_i64().is_some() && consumer["oldest"].is_string(), "{consumer}");
    let said = place.run(&["capture", "status"]).good().out;
    assert!(said.contains("1 mark not taken, the oldest"), "{said}");
    place
        .run(&["capture", "forget", "nobody"])
        .refused(2, &["no consumer `nobody`", "capture status"]);
    place.run(&["capture", "forget", "daily"]).good();
    assert_eq!(place.json(&["capture", "status"])["tables"][0]["marks"], 0);
    assert_eq!(place.json(&["run"])["slices"].as_array().unwrap().len(), 3);
    place.run(&["verify"]).good();
    // A stranger's consumer keeps the triggers.
    place
        .sql("INSERT INTO tallymark.consumer (id, capture, installation, rollup) SELECT 7, capture, 'theirs', \
              'weekly' FROM tallymark.consumer")
        .await;
    place.run(&["capture", "remove"]).refused(2, &["rollup weekly of theirs", "capture forget 7"]);
    place.run(&["capture", "forget", "7"]).good();
    place.run(&["capture", "remove"]).good();
}
