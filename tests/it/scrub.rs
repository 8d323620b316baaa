//! Verify and scrub: drift is found, reported with both values, and repaired on request. A slice
//! that is only outdated is never drift.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Value, json};
use tallymark::check::scrub;
use tallymark::check::verify::{self, Compared};
use tallymark::checkpoint::State;
use tallymark::model::clock::{Clock, Deadline, ManualClock};
use tallymark::tick::{self};
use tallymark::work::ready;
use tallymark::work::report::TickReport;
use tallymark::work::worker::{Severity, Worker};

use crate::support::cli::{Place, daily, day};
use crate::support::proxy::Cutter;
use crate::support::world::{
    BUDGET, DAILY, EVENTS, Setup, Urls, World, clock, config, instant, random_events,
};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// A second, daily rollup of the same source.
const SECOND: &str = r#"
[[rollup]]
name = "second"
from = "public.events"
time = "created_at"
start = "2026-01-01"
slice = "1 day"
measures = { events = "count", revenue = { sum = "amount" } }
"#;

fn scrubbed(settings: &str, rollups: &str) -> String {
    format!("[scrub]\n{settings}\n{rollups}")
}

async fn world_at(clock: &ManualClock, days: u32, rollups: &str) -> World {
    let clock = Arc::new(clock.clone());
    let setup = Setup { rollups, clock, ..Setup::default() };
    World::new(&format!("{EVENTS}; {}", random_events(days, 40)), setup).await
}

async fn tick(world: &World) -> TickReport {
    let clock = &*world.worker.clock;
    let deadline = Deadline::after(clock, BUDGET);
    tick::run(&world.worker, clock.now(), deadline, None).await.unwrap()
}

/// Ticks until the scrub has nothing to do, for at most a day's number of slices.
async fn ticks(world: &World, clock: &ManualClock, hours: u32) -> Vec<TickReport> {
    let mut reports = Vec::new();
    for _ in 0..hours {
        clock.advance(HOUR);
        reports.push(tick(world).await);
    }
    assert!(reports.iter().all(|report| report.problems.is_empty()), "{reports:?}");
    reports
}

/// 24 a day, for 30 slices of two rollups: one each hour, the rollups in turn. After a round both
/// have been verified completely.
#[tokio::test]
async fn ticks_of_any_number_verify_as_many_slices_a_day() {
    let clock = clock("2026-01-17T00:30:00Z");
    let rollups = scrubbed("slices_per_day = 24", &format!("{DAILY}{SECOND}"));
    let world = world_at(&clock, 16, &rollups).await;
    assert_eq!(tick(&world).await.scrub.verified, 1);
    let mut days = BTreeMap::<NaiveDate, usize>::new();
    for step in 0..2 * 48 {
        clock.advance(HOUR / 2);
        // Every second time two concurrent ticks, as schedules overlap.
        let reports = if step % 2 == 0 {
            let (one, other) = tokio::join!(tick(&world), tick(&world));
            vec![one, other]
        } else {
            vec![tick(&world).await]
        };
        for report in reports {
            assert_eq!((report.scrub.differing, report.scrub.passed_over.len()), (0, 0));
            assert!(report.scrub.verified <= 1, "{report:?}");
            *days.entry(clock.now().date_naive()).or_default() += report.scrub.verified;
        }
    }
    let days: Vec<usize> = days.into_values().collect();
    assert!(days.iter().all(|count| *count <= 24), "{days:?}");
    assert_eq!(days[1], 24, "{days:?}");
    for rollup in ["daily", "second"] {
        let scrub = world.worker.checkpoints.scrub(rollup).await.unwrap();
        assert!(scrub.verified >= 15, "{rollup}: {scrub:?}");
        assert!(scrub.round >= 2, "{rollup}: {scrub:?}");
    }
}

/// A small number of slices is not read again and again.
#[tokio::test]
async fn no_slice_is_verified_twice_a_day() {
    let clock = clock("2026-01-04T00:30:00Z");
    let world = world_at(&clock, 3, &scrubbed("slices_per_day = 1000", DAILY)).await;
    let mut reports = vec![tick(&world).await];
    reports.extend(ticks(&world, &clock, 22).await);
    let verified: usize = reports.iter().map(|report| report.scrub.verified).sum();
    assert_eq!(verified, 2, "the two days before the newest");
}

/// One row of the rollup was changed by hand, and one source row is gone. Both are reported with
/// both values, stay visible, and are reopened on request.
#[tokio::test]
async fn drift_is_found_told_and_repaired_when_asked() {
    let clock = clock("2026-01-06T00:30:00Z");
    let rollups = scrubbed("slices_per_day = 24", DAILY);
    let world = world_at(&clock, 5, &rollups).await;
    tick(&world).await;
    world.target_sql("UPDATE stats.daily SET events = events + 1000 WHERE ctid = (SELECT min(ctid) FROM stats.daily WHERE bucket >= '2026-01-02Z' AND bucket < '2026-01-03Z')").await;
    world
        .sql("DELETE FROM events WHERE created_at >= '2026-01-03Z' AND created_at < '2026-01-04Z'")
        .await;

    let mut found = Vec::new();
    for report in ticks(&world, &clock, 12).await {
        let is_drift = report.scrub.differing > 0;
        assert_eq!(report.severity(), is_drift.then_some(Severity::Failed));
        found.extend(report.scrub.drifted);
    }
    let [changed, gone] = &found[..] else { panic!("{found:?}") };
    assert_eq!((changed.found.start, changed.found.differences), (instant("2026-01-02"), 1));
    assert!(!changed.reopened);
    let example = &changed.found.examples[0];
    let events = |value: &Option<Value>| value.as_ref().unwrap()["events"].as_i64().unwrap();
    assert_eq!(events(&example.expected) + 1000, events(&example.actual));
    assert_eq!(gone.found.start, instant("2026-01-03"));
    assert!(gone.found.examples.iter().all(|it| it.difference == "extra" && it.expected.is_none()));

    let scrub = world.worker.checkpoints.scrub("daily").await.unwrap();
    let open = scrub::open_drift(&world.worker, world.rollup(), &scrub).await.unwrap();
    let starts: Vec<DateTime<Utc>> = open.iter().map(|(start, _)| *start).collect();
    assert_eq!(starts, [instant("2026-01-02"), instant("2026-01-03")]);
    // A run of one of the slices ends its drift.
    world.replay("2026-01-02").await;
    let open = scrub::open_drift(&world.worker, world.rollup(), &scrub).await.unwrap();
    assert_eq!(open.len(), 1);

    let repairing = scrubbed("slices_per_day = 24\nrepair = true", DAILY)
        .replace("group_by", "shrink_guard = 0\ngroup_by");
    let repairing = world.changed("", &repairing, Arc::clone(&world.worker.clock));
    let reports = ticks(&repairing, &clock, 36).await;
    let drifted: Vec<_> = reports.iter().flat_map(|report| &report.scrub.drifted).collect();
    assert!(
        matches!(drifted[..], [one] if one.reopened && one.found.start == instant("2026-01-03"))
    );
    let again = repairing.checkpoint("2026-01-03").await.unwrap();
    assert_eq!((again.state, again.attempt), (State::Succeeded, 2));
    repairing.verify_all("2026-01-06").await;
    ticks(&repairing, &clock, 24).await;
    let scrub = world.worker.checkpoints.scrub("daily").await.unwrap();
    assert!(scrub.drift.is_empty(), "what is verified to be right is forgotten: {scrub:?}");
}

/// A slice that waits to run again, is running or never ran is no drift, whatever its rows are.
#[tokio::test]
async fn a_slice_that_is_not_done_is_no_drift() {
    let clock = clock("2026-01-05T12:00:00Z");
    let world = world_at(&clock, 4, DAILY).await;
    for start in ["2026-01-01", "2026-01-02", "2026-01-03"] {
        world.run(start).await;
    }
    world.target_sql("DELETE FROM stats.daily").await;
    world.reopen("2026-01-01").await;
    let why = |compared: Compared| match compared {
        Compared::NotYet(pending) => pending.why.explained(),
        other => panic!("{other:?}"),
    };
    let compare = async |world: &World, start: &str| {
        verify::compare(&world.worker, world.rollup(), world.slice(start), BUDGET, 3).await.unwrap()
    };
    assert_eq!(why(compare(&world, "2026-01-01").await), "stale");
    assert_eq!(why(compare(&world, "2026-01-04").await), "missing");
    let redefined =
        world.redefined(&DAILY.replace("bucket =", "where = \"kind <> 'x'\"\nbucket ="));
    assert_eq!(why(compare(&redefined, "2026-01-02").await), "computed by another definition");
    let Compared::Drift(1, found) = compare(&world, "2026-01-02").await else { panic!("drift") };
    assert!(found.differences > 0);
}

/// A late change that is marked on the source and still uncounted explains a difference.
#[tokio::test]
async fn a_late_change_that_waits_is_no_drift() {
    let clock = clock("2026-01-05T12:00:00Z");
    let rollups = DAILY.replace("bucket =", "late = \"capture\"\nbucket =");
    let world = world_at(&clock, 4, &rollups).await;
    let shape = ready::shape(&world.worker, world.rollup()).await.unwrap();
    let pair = [(world.rollup(), &*shape)];
    let capture = tallymark::source::changes::capture::Capture::new(&world.rollup().from, &pair);
    let mut tx = world
        .worker
        .source
        .begin(tallymark::clients::db::Access::ReadWrite, BUDGET, "installing")
        .await
        .unwrap();
    for statement in capture.install(&mut tx, "tallymark").await.unwrap() {
        tx.execute("installing", statement).await.unwrap();
    }
    tx.commit().await.unwrap();
    world.run("2026-01-02").await;
    let (rollup, slice) = (world.rollup(), world.slice("2026-01-02"));
    world.sql("DELETE FROM events WHERE created_at >= '2026-01-02Z' AND created_at < '2026-01-02T06:00Z'").await;
    let compared = verify::compare(&world.worker, rollup, slice, BUDGET, 3).await.unwrap();
    let Compared::NotYet(pending) = compared else { panic!("{compared:?}") };
    assert_eq!(pending.why.to_string(), "a late change is not counted yet");
    // Marks of other slices explain nothing.
    world
        .sql("DELETE FROM tallymark.mark; DELETE FROM events WHERE created_at < '2026-01-02Z'")
        .await;
    let compared = verify::compare(&world.worker, rollup, slice, BUDGET, 3).await.unwrap();
    assert!(matches!(compared, Compared::Drift(1, _)), "{compared:?}");
}

#[tokio::test]
async fn a_tick_without_a_slice_to_scrub_opens_no_connection() {
    let clock = clock("2026-01-05T00:10:00Z");
    let world = world_at(&clock, 4, &scrubbed("slices_per_day = 2", DAILY)).await;
    assert_eq!(tick(&world).await.slices.len(), 4);
    assert_eq!(tick(&world).await.scrub.verified, 0);
    // A worker with a known address at which no database can be reached. It would report its first
    // connection.
    let (way, source) = Cutter::way(&world.urls.source);
    let urls = Urls { source, target: None };
    let worker = || {
        let config = config(&urls, "", &scrubbed("slices_per_day = 2", DAILY));
        let checkpoints = world.worker.checkpoints.clone();
        Worker::with_checkpoints(config, checkpoints, Arc::new(clock.clone()), 1).unwrap()
    };
    let able = worker();
    ready::check(&able, &able.config.rollups[0]).await.unwrap();
    able.close().await;
    drop(way);
    let unable = worker();
    let deadline = Deadline::after(&clock, BUDGET);
    let report = tick::run(&unable, clock.now(), deadline, None).await.unwrap();
    assert!(report.problems.is_empty() && report.scrub.is_nothing(), "{report:?}");
    clock.advance(HOUR * 11);
    let deadline = Deadline::after(&clock, BUDGET);
    assert!(tick::run(&unable, clock.now(), deadline, None).await.unwrap().problems.is_empty());
    clock.advance(HOUR);
    let deadline = Deadline::after(&clock, BUDGET);
    assert_eq!(tick::run(&unable, clock.now(), deadline, None).await.unwrap().problems.len(), 1);
    assert_eq!(tick(&world).await.scrub.verified, 1, "what could not be verified is not spent");
}

#[tokio::test]
async fn a_sample_is_the_same_for_the_same_seed_and_a_repair_ends_the_drift() {
    let (place, _database) = Place::with_events(8).await;
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    place.sql(&format!("UPDATE stats.daily SET events = 9 WHERE bucket = '{}Z'", day(4))).await;
    let sample = |seed: &str| {
        let found = place.run(&["verify", "--sample", "3", "--seed", seed, "--json"]).json();
        assert_eq!((&found["slices"], &found["sample"]["of"]), (&json!(3), &json!(8)));
        found
    };
    let seeds: Vec<String> = (1..=40).map(|seed: u32| seed.to_string()).collect();
    let hits = seeds.iter().find(|seed| sample(seed)["differences"] == json!(3)).expect("a hit");
    assert_eq!(sample(hits), sample(hits));
    let chosen = place.run(&["verify", "--sample", "3", "--json"]);
    let seed = chosen.json()["sample"]["seed"].as_u64().unwrap().to_string();
    assert_eq!(sample(&seed), chosen.json());

    place.run(&["verify", "--repair"]).refused(2, &["hint: --yes"]);
    let repaired = place.run(&["verify", "--repair", "--yes", "--json"]).good().json();
    assert_eq!(repaired["differences"], 3);
    assert_eq!(
        repaired["repair"],
        json!({
            "succeeded": 1, "failed": [], "pending": [], "drifted": [],
        })
    );
    place.run(&["verify"]).good();
}

/// `run` ends with 1, `status` shows it, and a `verify` that finds the slice right clears it.
#[tokio::test]
async fn drift_is_in_the_exit_code_and_in_status_until_a_verify_is_clean() {
    let (place, _database) = Place::with_events(4).await;
    place.run(&["init"]).good();
    place.configure(&scrubbed("slices_per_day = 10000", &daily(4)));
    place.run(&["run", "--slice", &day(4).to_string(), "daily"]).good();
    place.sql(&format!("UPDATE stats.daily SET events = 9 WHERE bucket = '{}Z'", day(4))).await;
    assert_eq!(place.json(&["status"])["rollups"][0]["scrub"], Value::Null);
    let run = place.run(&["run", "--json"]);
    run.refused(1, &["1 slice found to differ"]);
    assert!(run.err.contains("slice differs from the source"), "{run:?}");
    let drifted = &run.json()["scrub"]["drifted"][0];
    assert_eq!((&drifted["differences"], &drifted["reopened"]), (&json!(3), &json!(false)));
    let name = format!("daily@{}T00:00:00Z", day(4));
    let scrub = |place: &Place| place.json(&["status"])["rollups"][0]["scrub"].clone();
    let found = scrub(&place);
    assert_eq!((&found["drift"][0]["slice"], &found["slices"]), (&json!(name), &json!(3)));
    assert!(place.run(&["status"]).good().out.contains(&format!("drift in {name}: 3 groups")));
    place.sql(&format!("UPDATE stats.daily SET events = 80 WHERE bucket = '{}Z'", day(4))).await;
    place.run(&["verify"]).good();
    assert_eq!(scrub(&place)["drift"], json!([]));
}

/// Each row of the source takes time. A day is then compared in parts, one that takes too long is
/// reported, and the number of differing groups is independent of the number listed.
#[tokio::test]
async fn what_one_statement_cannot_compare_is_compared_in_several() {
    let slow = |ms: u32| {
        format!(
            "CREATE OR REPLACE FUNCTION public.slow() RETURNS boolean LANGUAGE plpgsql VOLATILE COST 100000 \
             AS 'BEGIN PERFORM pg_sleep({ms} / 1000.0); RETURN true; END'"
        )
    };
    let limit = Duration::from_secs(1);
    for across in [false, true] {
        let rollups = SECOND.replace("slice =", "bucket = \"4 hours\"\nslice =");
        let rollups = rollups.replace("public.events", "public.slowly");
        let clock = Arc::new(clock("2026-01-02T12:00:00Z"));
        let setup = Setup { rollups: &rollups, across, clock, ..Setup::default() };
        let sql = format!(
            "{EVENTS}; {}; CREATE VIEW slowly AS SELECT * FROM events WHERE slow(); \
             INSERT INTO events (created_at, amount) SELECT at, 1 FROM \
             generate_series('2026-01-01T00:30Z'::timestamptz, '2026-01-01T23:30Z', '1 hour') at",
            slow(0)
        );
        let world = World::new(&sql, setup).await;
        world.run("2026-01-01").await;
        let (rollup, slice) = (world.rollup(), world.slice("2026-01-01"));
        world
            .target_sql("UPDATE stats.second SET events = 5 WHERE extract(hour FROM bucket AT TIME ZONE 'UTC') IN (4, 20)")
            .await;
        world.sql(&slow(60)).await;
        let found = verify::verify_slice(&world.worker, rollup, slice, limit, 3).await.unwrap();
        assert_eq!((found.differences, found.examples.len()), (2, 2));
        world.sql(&slow(0)).await;
        for listed in [0, 1] {
            let found =
                verify::verify_slice(&world.worker, rollup, slice, limit, listed).await.unwrap();
            assert_eq!((found.differences, found.examples.len()), (2, listed));
        }
        if across {
            continue;
        }
        world.sql(&slow(3000)).await;
        let Compared::NotYet(pending) =
            verify::compare(&world.worker, rollup, slice, limit, 3).await.unwrap()
        else {
            panic!("four hours cannot be compared in {limit:?}")
        };
        assert!(
            pending.is_too_large() && pending.why.to_string().contains("within 1 s"),
            "{pending:?}"
        );
    }
}
