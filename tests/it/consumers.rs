//! Every consumer of a captured table gets every mark: the rollups of one file, of another
//! deployment, of another installation.

use std::sync::Arc;

use tallymark::check::repair;
use tallymark::model::rollup::Rollup;

use crate::capture::tick;
use crate::support::Database;
use crate::support::cli::{Place, daily, day, ended, execute};
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
    // Slices reopened by marks that the first consumer took do not run again for the other.
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
    let again = |it: &&tallymark::work::report::SliceReport| it.rollup == "again";
    assert_eq!(report.slices.iter().filter(again).count(), 2, "{report:?}");
    assert_eq!(counted(&world, "again").await, "2");
    assert_eq!(tick(&world).await.slices.len(), 0);
    let rollup: &Rollup = &world.worker.config.rollups[1];
    world.assert_one_verified(rollup, "2026-01-03").await;
}

/// Marks that the lost store had not seen wait for the new consumer, and none for the old one.
#[tokio::test]
async fn a_consumer_whose_store_was_lost_is_replaced_and_gets_its_marks() {
    let world = two().await;
    world.sql(LATE).await;
    let (rollups, clock) = (one("daily"), Arc::new(clock("2026-01-03T12:00:00Z")));
    let setup = Setup { rollups: &rollups, clock, ..Setup::default() };
    let anew = World::at(world.urls.clone(), setup).await;
    anew.init().await.unwrap();
    let report = repair::run(&anew.worker, anew.rollup(), false).await.unwrap();
    assert!(report.unproven.is_some(), "acknowledged marks may be gone with it: {report:?}");
    assert_eq!(tick(&anew).await.slices.len(), 1);
    assert_eq!(counted(&anew, "daily").await, "2");
    let known = "SELECT string_agg(rollup, ' ' ORDER BY rollup) FROM tallymark.consumer";
    assert_eq!(world.target_value(known).await, "again daily");
    tick(&world.redefined(&one("again"))).await;
    assert_eq!(marks(&world).await, "0 0");
}

#[tokio::test]
async fn marks_that_wait_for_days_are_an_alarm_of_every_tick_and_stay() {
    let world = two().await;
    let other = world.redefined(&one("daily"));
    world.sql(LATE).await;
    assert_eq!(tick(&other).await.alarms(), 0);
    world.sql("UPDATE tallymark.mark SET marked_at = marked_at - interval '3 days'").await;
    let report = tick(&other).await;
    assert_eq!(report.alarms(), 1, "{report:?}");
    let problem = &report.problems[0];
    for word in ["rollup `again` of installation", "wait since 20"] {
        assert!(problem.error.contains(word), "{problem:?}");
    }
    assert!(problem.hint.as_ref().unwrap().contains("capture forget"), "{problem:?}");
    assert_eq!(marks(&world).await, "1 1");
    // The consumer that they wait for takes them, so its tick raises no alarm.
    let report = tick(&world).await;
    assert_eq!((report.alarms(), report.slices.len()), (0, 1), "{report:?}");
}

/// Before its first tick, another installation could otherwise take marks without it.
#[tokio::test]
async fn install_registers_the_rollups_of_its_file() {
    let (place, _database) = Place::with_events(3).await;
    place.configure(&daily(3).replace("slice =", "late = \"capture\"\nslice ="));
    place.run(&["init"]).good();
    let said = place.run(&["capture", "install"]).good();
    assert!(!said.err.contains("not yet"), "{}", said.err);
    let consumers = &place.json(&["capture", "status"])["tables"][0]["consumers"];
    assert_eq!(consumers[0]["rollup"], "daily");
    // Before `init` the registration waits for the first slice.
    let (place, _database) = Place::with_events(3).await;
    place.configure(&daily(3).replace("slice =", "late = \"capture\"\nslice ="));
    let said = place.run(&["capture", "install"]).good();
    assert!(said.err.contains("before its first slice, not yet"), "{}", said.err);
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    let consumers = &place.json(&["capture", "status"])["tables"][0]["consumers"];
    assert_eq!(consumers[0]["rollup"], "daily");
}

/// Each installation reads with a role of its own.
#[tokio::test]
async fn a_second_reading_role_is_granted_what_it_needs_and_takes_marks_too() {
    let (mut one, database) = Place::with_events(3).await;
    let admin = one.source_url.clone();
    let captured = daily(3).replace("slice =", "late = \"capture\"\nslice =");
    let other_database = Database::create().await;
    let mut other = Place::new(&admin, &other_database.url(), &captured).await;
    one.configure(&captured);
    let mut roles = Vec::new();
    for place in [&mut one, &mut other] {
        let role = format!("taker_{:08x}", fastrand::u32(..));
        execute(&admin, &format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON events TO {role}"))
            .await;
        place.source_url = database.url_of(&role);
        place.run(&["init"]).good();
        let mut command = place.command(&["capture", "install", "--owner-env", "OWNER"]);
        ended(command.env("OWNER", &admin)).good();
        place.run(&["run"]).good();
        roles.push(role);
    }
    execute(&admin, &format!("INSERT INTO events VALUES ('{}T05:00Z', 'late', 1)", day(2))).await;
    for place in [&one, &other] {
        assert_eq!(place.json(&["run"])["slices"].as_array().unwrap().len(), 1);
        place.run(&["verify"]).good();
    }
    let status = one.json(&["capture", "status"]);
    assert_eq!(status["tables"][0]["marks"], 0, "{status}");
    assert_eq!(status["tables"][0]["consumers"].as_array().unwrap().len(), 2, "{status}");
    for role in roles {
        execute(&admin, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
    }
}

#[tokio::test]
async fn a_renamed_rollup_keeps_its_marks_and_a_dropped_one_keeps_none() {
    let (place, _database) = Place::with_events(3).await;
    let captured = daily(3).replace("slice =", "late = \"capture\"\nslice =");
    place.configure(&captured);
    place.run(&["init"]).good();
    place.run(&["capture", "install"]).good();
    place.run(&["run"]).good();
    place.sql(&format!("INSERT INTO events VALUES ('{}T05:00Z', 'late', 1)", day(2))).await;
    let renamed = captured.replace("\"daily\"", "\"visits\"");
    place.configure(&renamed);
    place.run(&["rollup", "rename", "daily", "visits", "--yes"]).good();
    let consumer = || place.json(&["capture", "status"])["tables"][0]["consumers"].clone();
    assert_eq!(
        (&consumer()[0]["rollup"], &consumer()[0]["waiting"]),
        (&"visits".into(), &1.into())
    );
    // Another rollup with the old name is another consumer.
    place.configure(&format!("{renamed}{captured}"));
    place.run(&["init"]).good();
    assert_eq!(place.json(&["run"])["slices"].as_array().unwrap().len(), 4);
    place.run(&["verify"]).good();
    assert_eq!(consumer().as_array().unwrap().len(), 2);
    place.configure(&renamed);
    place.run(&["rollup", "drop", "daily", "--yes"]).good();
    assert_eq!(consumer().as_array().unwrap().len(), 1);
    place.sql(&format!("INSERT INTO events VALUES ('{}T05:00Z', 'late', 1)", day(2))).await;
    place.run(&["run"]).good();
    assert_eq!(place.json(&["capture", "status"])["tables"][0]["marks"], 0);
}

/// Uses the command line.
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
        .refused(2, &["no consumer `nobody`", "hint: capture status"]);
    place.run(&["capture", "forget", "daily"]).good();
    assert_eq!(place.json(&["capture", "status"])["tables"][0]["marks"], 0);
    assert_eq!(place.json(&["run"])["slices"].as_array().unwrap().len(), 3);
    place.run(&["verify"]).good();
    // A foreign consumer keeps the triggers.
    place
        .sql("INSERT INTO tallymark.consumer (id, capture, installation, rollup) SELECT 7, capture, 'theirs', \
              'weekly' FROM tallymark.consumer")
        .await;
    place
        .run(&["capture", "remove"])
        .refused(2, &["rollup weekly of theirs", "hint: capture forget 7"]);
    place.run(&["capture", "forget", "7"]).good();
    place.run(&["capture", "remove"]).good();
}
