//! Which rows of the source are no longer needed, and the seal that keeps a purge from erasing
//! history or looking like drift.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use tallymark::check::purgeable::{self, Purgeable};
use tallymark::check::repair;
use tallymark::check::verify::{self, Compared};
use tallymark::model::clock::Deadline;
use tallymark::model::not_now::Why;
use tallymark::model::slice::Order;
use tallymark::tick;
use tallymark::work::backfill::{self, Silent};
use tallymark::work::report::{Outcome, TickReport};

use crate::support::cli::{Place, day, documented};
use crate::support::polls::{killed, sweep};
use crate::support::world::{
    BUDGET, DAILY, EVENTS, Keeper, Setup, World, batch, clock, install_capture, instant,
    random_events,
};

const NOW: &str = "2026-01-05T12:00:00Z";

/// A second rollup of the same table, by the hour, and a coarse one, which reads the first's table.
const MORE: &str = r#"
[[rollup]]
name = "hourly"
from = "public.events"
time = "created_at"
start = "2026-01-01"
slice = "1 hour"
measures = { events = "count" }

[[rollup]]
name = "weekly"
from = { rollup = "daily" }
slice = "1 week"
group_by = ["kind"]
measures = { events = { sum = "events" } }
"#;

fn captured(rollups: &str) -> String {
    let late = "late = \"capture\"\n";
    let first = rollups.replacen("bucket =", &format!("{late}bucket ="), 1);
    first.replacen("slice = \"1 hour\"\n", &format!("slice = \"1 hour\"\n{late}"), 1)
}

/// Days from the first of January on, computed up to noon of the fifth.
async fn computed(keeper: Keeper, rollups: &str) -> World {
    computed_of(keeper, rollups, &random_events(4, 40)).await
}

async fn computed_of(keeper: Keeper, rollups: &str, rows: &str) -> World {
    let clock = Arc::new(clock(NOW));
    let sql = format!("{EVENTS}; {rows}");
    let world = World::new(&sql, Setup { rollups, clock, keeper, ..Setup::default() }).await;
    if rollups.contains("capture") {
        install_capture(&world.worker).await;
    }
    ticks(&world).await;
    world
}

async fn ticked(world: &World) -> TickReport {
    let clock = &*world.worker.clock;
    let deadline = Deadline::after(clock, BUDGET);
    let report = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
    assert!(report.problems.is_empty() && report.left == 0, "{report:?}");
    report
}

/// Ticks until nothing is due, and returns the slices that ran.
async fn ticks(world: &World) -> Vec<(String, DateTime<Utc>)> {
    let mut ran = Vec::new();
    for _ in 0..5 {
        let report = ticked(world).await;
        if report.slices.is_empty() {
            return ran;
        }
        ran.extend(report.slices.iter().map(|it| (it.rollup.clone(), it.start)));
    }
    panic!("slices stay due: {ran:?}");
}

async fn asked(world: &World) -> Purgeable {
    let tables = purgeable::tables(&world.worker);
    assert_eq!(tables.len(), 1);
    purgeable::of_table(&world.worker, &tables[0]).await.unwrap()
}

async fn seal(world: &World, before: &str) {
    let table = &purgeable::tables(&world.worker)[0];
    purgeable::seal(&world.worker, table, instant(before)).await.unwrap();
}

async fn unseal(world: &World) {
    purgeable::unseal(&world.worker, &purgeable::tables(&world.worker)[0]).await.unwrap();
}

/// The instant and the reason of the first rollup.
async fn need(world: &World) -> (DateTime<Utc>, &'static str) {
    let found = asked(world).await;
    (found.rollups[0].before, found.rollups[0].why)
}

#[tokio::test]
async fn a_purge_behind_the_seal_changes_no_number_and_is_no_drift() {
    for keeper in [Keeper::DynamoDb, Keeper::Target] {
        let rollups =
            format!("[scrub]\nslices_per_day = 1000\n{}", captured(&format!("{DAILY}{MORE}")));
        let world = computed(keeper, &rollups).await;
        let before = asked(&world).await;
        let open = |of: &str| before.rollups.iter().find(|it| it.rollup == of).unwrap().clone();
        assert_eq!((before.before, before.sealed_before), (instant("2026-01-05"), None));
        assert_eq!((open("daily").why, open("daily").before), ("not ended", instant("2026-01-05")));
        assert_eq!(open("hourly").before, instant("2026-01-05T11:00:00Z"), "its grace is not over");
        assert_eq!(before.rollups.len(), 2, "a coarse rollup reads none of the source's rows");

        seal(&world, "2026-01-05").await;
        assert_eq!(asked(&world).await.sealed_before, Some(instant("2026-01-05")));
        let rows = world.rows().await;
        let hours = "SELECT sum(events) || ' ' || count(*) FROM stats.hourly";
        let hours_before = world.target_value(hours).await;
        world.sql("DELETE FROM events WHERE created_at < '2026-01-05Z'").await;
        assert_eq!(ticks(&world).await, [], "the marks of the purge make nothing due");
        let marks = "SELECT count(*) FROM tallymark.mark";
        let waiting: i64 = sqlx::query_scalar(marks).fetch_one(&world.pool).await.unwrap();
        assert_eq!(waiting, 0, "they are taken");

        let worker = &world.worker;
        for rollup in &worker.config.rollups[..2] {
            let slice = rollup.calendar.containing(instant("2026-01-02"));
            let found = verify::compare(worker, rollup, slice, BUDGET, 3).await.unwrap();
            let Compared::NotYet(passed) = found else { panic!("{found:?}") };
            assert_eq!(passed.why, Why::Sealed(instant("2026-01-05")));
            let (from, to) = (rollup.start, instant("2026-01-05"));
            let plan = backfill::plan(worker, rollup, from, to, Order::OldestFirst, true).await;
            let plan = plan.unwrap();
            assert_eq!((plan.slices.len(), plan.sealed), (0, rollup.calendar.count(from, to)));
            let replayed =
                backfill::replay(worker, rollup, &[slice], "test", batch(), &Silent).await.unwrap();
            assert_eq!(replayed.refused[0].outcome, Outcome::Sealed);
        }
        assert_eq!(ticked(&world).await.scrub.differing, 0);
        assert_eq!((world.rows().await, world.target_value(hours).await), (rows, hours_before));
    }
}

#[tokio::test]
async fn a_change_behind_the_seal_counts_when_the_seal_is_removed() {
    for keeper in [Keeper::DynamoDb, Keeper::Target] {
        let world = computed(keeper, &captured(DAILY)).await;
        seal(&world, "2026-01-04").await;
        world
            .sql("INSERT INTO events (created_at, kind) VALUES ('2026-01-02T05:00Z', 'late')")
            .await;
        assert_eq!(ticks(&world).await, []);
        assert!(world.checkpoint("2026-01-02").await.unwrap().dirty > 0, "it is noted");
        let (before, why) = need(&world).await;
        assert_eq!(
            (before, why),
            (instant("2026-01-05"), "not ended"),
            "sealed rows are not needed"
        );
        unseal(&world).await;
        assert_eq!(need(&world).await, (instant("2026-01-02"), "stale"));
        assert_eq!(ticks(&world).await, [("daily".to_owned(), instant("2026-01-02"))]);
        world.verify_all("2026-01-05").await;
        assert_eq!(asked(&world).await.sealed_before, None);
    }
}

/// Of the second of January, in the source and in the rollup.
const SECOND: [&str; 2] = [
    "SELECT count(*) FROM events WHERE created_at >= '2026-01-02Z' AND created_at < '2026-01-03Z'",
    "SELECT sum(events) FROM stats.daily WHERE bucket >= '2026-01-02Z' AND bucket < '2026-01-03Z'",
];

/// The process that sets the seal may die between its two looks, and a change of that moment is only
/// noted behind the seal.
#[tokio::test]
async fn a_seal_whose_process_was_killed_is_proven_before_it_counts() {
    let world = computed(Keeper::Target, &captured(DAILY)).await;
    let before = instant("2026-01-04");
    let table = &purgeable::tables(&world.worker)[0];
    // As the store has it, whatever the worker makes of it.
    let is_proven = "SELECT count(*) > 0 FROM tallymark.checkpoint WHERE rollup = 'daily' \
        AND sort = 'watermark' AND item ? 'seal' AND NOT item ? 'seal_proven'";
    let (mut kills, mut left) = (0, 0);
    // A busy machine has fewer awaits between the two looks.
    for first in 2..12 {
        for polls in sweep(first, || 3) {
            killed(purgeable::seal(&world.worker, table, before), polls).await.transpose().unwrap();
            if world.target_value(is_proven).await == "true" {
                assert_eq!(asked(&world).await.sealed_before, Some(before));
                break;
            }
            kills += 1;
            world
                .sql("INSERT INTO events (created_at, kind) VALUES ('2026-01-02T05:00Z', 'late')")
                .await;
            ticks(&world).await;
            let unproven = "SELECT count(*) > 0 FROM tallymark.checkpoint WHERE rollup = 'daily' \
                AND sort = 'watermark' AND item ? 'seal_proven'";
            if world.target_value(unproven).await == "true" {
                left += 1;
                let told = "SELECT state || ' ' || c.stale || ' ' || (c.complete_through = '2026-01-02Z') \
                    FROM tallymark.slices_of('daily', '2026-01-02Z', '2026-01-03Z'), tallymark.coverage c";
                assert_eq!(world.target_value(told).await, "stale 1 true", "its row waits");
            }
            if purgeable::seal(&world.worker, table, before).await.is_err() {
                ticks(&world).await;
                seal(&world, "2026-01-04").await;
            }
            let [source, rollup] = SECOND.map(|sql| world.target_value(sql));
            assert_eq!(source.await, rollup.await, "killed after {polls} polls");
            unseal(&world).await;
            ticks(&world).await;
        }
        if left > 0 {
            break;
        }
        unseal(&world).await;
        ticks(&world).await;
    }
    assert!(kills > 3 && left > 0, "{kills}, {left} of them between the two looks");
}

/// A slice without rows has no marker.
#[tokio::test]
async fn readers_are_told_that_an_empty_sealed_slice_is_sealed() {
    let rows = "INSERT INTO events (created_at, kind) VALUES ('2026-01-04T05:00Z', 'view')";
    let world = computed_of(Keeper::DynamoDb, &captured(DAILY), rows).await;
    seal(&world, "2026-01-03").await;
    world.sql("INSERT INTO events (created_at, kind) VALUES ('2026-01-02T05:00Z', 'late')").await;
    assert_eq!(ticks(&world).await, []);
    let state = "SELECT state FROM tallymark.slices_of('daily', '2026-01-02Z', '2026-01-03Z')";
    assert_eq!(world.target_value(state).await, "sealed");
    let through = "SELECT complete_through AT TIME ZONE 'UTC' FROM tallymark.coverage";
    assert_eq!(world.target_value(through).await, "2026-01-05 00:00:00");
}

/// A worker that read neither item before its claim, as it stood still, is refused by the fence.
#[tokio::test]
async fn the_fence_refuses_a_sealed_slice_whatever_the_worker_knows() {
    let world = computed(Keeper::DynamoDb, DAILY).await;
    let rows = world.rows().await;
    world.reopen("2026-01-02").await;
    world.target_sql("UPDATE tallymark.rollup SET sealed_before = '2026-01-03Z'").await;
    world.sql("DELETE FROM events WHERE created_at < '2026-01-02T20:00Z'").await;
    let report = world.run("2026-01-02").await;
    assert_eq!(report.outcome, Outcome::Sealed, "{report:?}");
    assert_eq!(world.rows().await, rows);
}

/// The store has the seal first, and the registry of the target later.
#[tokio::test]
async fn a_slice_that_the_store_seals_is_never_claimed() {
    for keeper in [Keeper::DynamoDb, Keeper::Target] {
        let world = computed(keeper, DAILY).await;
        seal(&world, "2026-01-03").await;
        world.target_sql("UPDATE tallymark.rollup SET sealed_before = NULL").await;
        world.reopen("2026-01-02").await;
        let attempt = world.checkpoint("2026-01-02").await.unwrap().attempt;
        let report = world.run("2026-01-02").await;
        assert_eq!((report.outcome, report.attempt), (Outcome::Sealed, None), "{report:?}");
        assert_eq!(world.checkpoint("2026-01-02").await.unwrap().attempt, attempt);
        assert_eq!(ticks(&world).await, []);
    }
}

#[tokio::test]
async fn rows_are_needed_until_nothing_can_run_on_them_again() {
    let world = computed(Keeper::DynamoDb, &captured(DAILY)).await;
    assert_eq!(need(&world).await, (instant("2026-01-05"), "not ended"));
    let again =
        world.redefined(&captured(DAILY).replace("bucket =", "lookback = [1, 3]\nbucket ="));
    assert_eq!(need(&again).await, (instant("2026-01-02"), "lookback"), "it runs again tomorrow");
    world.sql("INSERT INTO events (created_at, kind) VALUES ('2026-01-03T05:00Z', 'late')").await;
    assert_eq!(need(&world).await, (instant("2026-01-03"), "late change"), "its mark waits");
    ticks(&world).await;
    world
        .target_sql("UPDATE stats.daily SET events = events + 1 WHERE bucket < '2026-01-02Z'")
        .await;
    let scrubbing = format!("[scrub]\nslices_per_day = 24\n{}", captured(DAILY));
    assert_eq!(ticked(&world.redefined(&scrubbing)).await.scrub.differing, 1);
    assert_eq!(need(&world).await, (instant("2026-01-01"), "drift"));
    world.reopen("2026-01-01").await;
    assert_eq!(need(&world).await, (instant("2026-01-01"), "stale"));
    let table = &purgeable::tables(&world.worker)[0];
    let refused = purgeable::seal(&world.worker, table, instant("2026-01-03")).await.unwrap_err();
    assert!(refused.to_string().contains("from 2026-01-01T00:00:00Z on (stale)"), "{refused}");
    assert_eq!(asked(&world).await.sealed_before, None);
    ticks(&world).await;
    let other = captured(DAILY).replace("bucket =", "where = \"kind <> 'x'\"\nbucket =");
    let other = world.redefined(&other);
    assert_eq!(need(&other).await, (instant("2026-01-01"), "redefined"));
}

/// Of checkpoints and target, the one that lost the seal gets it back.
#[tokio::test]
async fn a_repair_takes_the_seal_from_the_side_that_has_it() {
    let world = computed(Keeper::DynamoDb, DAILY).await;
    seal(&world, "2026-01-04").await;
    let urls = world.urls.clone();
    let clock = Arc::new(clock(NOW));
    let lost = World::at(urls, Setup { rollups: DAILY, clock, ..Setup::default() }).await;
    lost.init().await.unwrap();
    world.sql("DELETE FROM events WHERE created_at < '2026-01-04Z'").await;
    let rows = world.rows().await;
    let report = repair::run(&lost.worker, lost.rollup(), true).await.unwrap();
    assert_eq!(report.sealed_before, Some(instant("2026-01-04")));
    repair::run(&lost.worker, lost.rollup(), false).await.unwrap();
    assert_eq!(asked(&lost).await.sealed_before, Some(instant("2026-01-04")));
    ticks(&lost).await;
    assert_eq!(lost.rows().await, rows);

    lost.target_sql("UPDATE tallymark.rollup SET sealed_before = NULL").await;
    let report = repair::run(&lost.worker, lost.rollup(), false).await.unwrap();
    assert_eq!(report.sealed_before, Some(instant("2026-01-04")));
    let known = lost.target_value("SELECT sealed_before::date FROM tallymark.rollup").await;
    assert_eq!(known, "2026-01-04");
    let report = repair::run(&lost.worker, lost.rollup(), false).await.unwrap();
    assert_eq!(report.sealed_before, None);
}

/// The keys of a document, at every depth.
fn keys(document: &Value) -> Vec<String> {
    match document {
        Value::Object(fields) => {
            let inner = fields.iter().flat_map(|(key, value)| {
                keys(value).into_iter().map(move |inner| format!("{key}.{inner}"))
            });
            fields.keys().cloned().chain(inner).collect()
        }
        Value::Array(values) => values.first().map(keys).unwrap_or_default(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn the_command_seals_as_documented_and_a_rename_keeps_the_seal() {
    let (place, _database) = Place::with_events(4).await;
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    let found = place.json(&["purgeable"]);
    assert_eq!(found["tables"][0]["table"], "public.events");
    let documented = documented("purgeable").into_iter().next().unwrap();
    assert_eq!(keys(&found), keys(&documented));
    assert_eq!(place.run(&["purgeable", "--before", "2026-01-01"]).code, Some(2));
    place.run(&["purgeable", "nothing"]).refused(2, &["`nothing`", "hint: public.events"]);
    let late = place.run(&["purgeable", "events", "--seal", "--before", "2999-01-01"]);
    late.refused(2, &["still needed", "hint: seal before"]);
    let (two, one) = (day(2).to_string(), day(1).to_string());
    let sealed = place.json(&["purgeable", "events", "--seal", "--before", &two]);
    let seal = format!("{two}T00:00:00Z");
    assert_eq!(sealed["tables"][0]["sealed_before"], json!(seal));
    assert_eq!(place.json(&["status"])["rollups"][0]["sealed_before"], json!(seal));

    let text = std::fs::read_to_string(place.config()).unwrap();
    std::fs::write(place.config(), text.replace("name = \"daily\"", "name = \"days\"")).unwrap();
    place.run(&["rollup", "rename", "daily", "days", "--yes"]).good();
    assert_eq!(place.json(&["purgeable"])["tables"][0]["sealed_before"], json!(seal));
    let words = place.run(&["purgeable", "public.events"]).good().words();
    assert!(words.contains("days needs rows from") && words.contains("sealed before"), "{words}");
    place.run(&["replay", "days", "--slice", &one, "--yes"]).good();
    let open = place.json(&["purgeable", "public.events", "--unseal"]);
    assert_eq!(open["tables"][0]["sealed_before"], Value::Null);
}
