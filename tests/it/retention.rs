//! `keep`: old slices of a rollup's table are deleted, what was computed from them stays, and nothing
//! computes them again.

use std::sync::Arc;
use std::time::Duration;

use tallymark::check::verify::{self, Compared};
use tallymark::check::{purgeable, repair};
use tallymark::checkpoint::Claim;
use tallymark::model::clock::{Deadline, ManualClock};
use tallymark::model::not_now::Why;
use tallymark::model::slice::Order;
use tallymark::tick;
use tallymark::work::backfill;
use tallymark::work::report::TickReport;

use crate::support::polls::{killed, sweep};
use crate::support::world::{
    BUDGET, EVENTS, Keeper, PAST_LEASE, Setup, Urls, World, clock, instant, records,
};

/// Hours that are kept for five days, days of them, and weeks of these.
const TIERS: &str = r#"
[[rollup]]
name = "hourly"
from = "public.events"
time = "created_at"
start = "2026-01-01"
slice = "1 hour"
keep = "5 days"
group_by = ["kind"]
measures = { events = "count" }

[[rollup]]
name = "daily"
from = { rollup = "hourly" }
slice = "1 day"
group_by = ["kind"]
measures = ["events"]

[[rollup]]
name = "weekly"
from = { rollup = "daily" }
slice = "1 week"
group_by = []
measures = ["events"]
"#;

/// Rows of two kinds in each hour of eight days.
const ROWS: &str = "INSERT INTO events (created_at, kind) SELECT at, (ARRAY['view', 'click'])[1 + n % 2] \
    FROM generate_series('2026-01-01Z'::timestamptz, '2026-01-08T23:59Z', '20 minutes') \
    WITH ORDINALITY AS series (at, n)";

const DAY: Duration = Duration::from_secs(24 * 3600);

async fn tiers(keeper: Keeper, clock: &ManualClock, across: bool) -> World {
    let sql = format!("{EVENTS}; {ROWS}");
    let clock = Arc::new(clock.clone());
    World::new(&sql, Setup { rollups: TIERS, clock, keeper, across, ..Setup::default() }).await
}

/// Ticks within which what a killed worker held is free.
const QUIET_MAX: usize = 20;

async fn tried(world: &World) -> TickReport {
    let clock = &*world.worker.clock;
    let deadline = Deadline::after(clock, BUDGET);
    tick::run(&world.worker, clock.now(), deadline, None).await.unwrap()
}

async fn ticked(world: &World) -> TickReport {
    let report = tried(world).await;
    assert!(report.problems.is_empty() && report.left == 0, "{report:?}");
    report
}

/// The first hour that has rows, as text.
async fn first_hour(world: &World) -> String {
    world.target_value("SELECT min(bucket) AT TIME ZONE 'UTC' FROM stats.hourly").await
}

async fn days(world: &World) -> Vec<String> {
    records(&world.target, "SELECT * FROM stats.daily").await
}

#[tokio::test]
async fn old_hours_go_once_their_days_are_complete_and_the_days_stay() {
    for (keeper, across) in [(Keeper::DynamoDb, true), (Keeper::Target, false)] {
        let clock = clock("2026-01-05T12:00:00Z");
        let world = tiers(keeper, &clock, across).await;
        let report = ticked(&world).await;
        assert_eq!((report.kept_away.slices, report.slices.is_empty()), (0, false));
        clock.advance(DAY * 3);
        // The days are computed first, and only then their hours go: those of the first two days.
        let report = ticked(&world).await;
        assert_eq!(report.kept_away.slices, 48, "{report:?}");
        assert_eq!(first_hour(&world).await, "2026-01-03 00:00:00");
        let away = "SELECT count(*) FROM tallymark.slice WHERE kept_away IS NOT NULL";
        assert_eq!(world.target_value(away).await, "48", "their markers say so");
        let before = days(&world).await;
        let report = ticked(&world).await;
        assert!(report.slices.is_empty() && report.kept_away.slices == 0, "{report:?}");

        let worker = &world.worker;
        for rollup in &worker.config.rollups[..2] {
            let slice = rollup.calendar.containing(instant("2026-01-02"));
            let found = verify::compare(worker, rollup, slice, BUDGET, 3).await.unwrap();
            let Compared::NotYet(passed) = found else { panic!("{found:?}") };
            assert_eq!(passed.why, Why::Sealed(instant("2026-01-03")));
            let range = (rollup.start, instant("2026-01-03"));
            let plan = backfill::plan(worker, rollup, range.0, range.1, Order::OldestFirst, true);
            assert_eq!(plan.await.unwrap().slices, [], "not even by force");
            let report = repair::run(worker, rollup, false).await.unwrap();
            assert!(report.restored.is_empty() && report.reopened.is_empty(), "{report:?}");
        }
        purgeable::unseal(worker, &purgeable::tables(worker)[0]).await.unwrap();
        assert!(ticked(&world).await.slices.is_empty());
        assert_eq!(days(&world).await, before);
        let slice = world.slice("2026-01-02");
        let found = verify::compare(worker, world.rollup(), slice, BUDGET, 3).await.unwrap();
        let is_sealed = matches!(&found, Compared::NotYet(it) if matches!(it.why, Why::Sealed(_)));
        assert!(is_sealed, "no operator opens what is deleted: {found:?}");
    }
}

/// Another worker takes a slice that was reopened.
async fn taken(world: &World, rollup: &str, start: &str) {
    let (slice_start, now) = (instant(start), world.worker.clock.now());
    let claim = Claim { rollup, slice_start, definition: "other", now, deadline: now + BUDGET };
    let checkpoints = &world.worker.checkpoints;
    checkpoints.reopen(rollup, slice_start, "test", now).await.unwrap();
    checkpoints.claim(&claim).await.unwrap();
}

#[tokio::test]
async fn hours_stay_while_their_day_is_computed_again() {
    let clock = clock("2026-01-05T12:00:00Z");
    let world = tiers(Keeper::DynamoDb, &clock, false).await;
    ticked(&world).await;
    clock.advance(DAY * 3);
    taken(&world, "daily", "2026-01-01").await;
    let report = ticked(&world).await;
    assert_eq!(report.kept_away.slices, 0, "{report:?}");
    assert_eq!(first_hour(&world).await, "2026-01-01 00:00:00");
    clock.advance(PAST_LEASE);
    assert_eq!(ticked(&world).await.kept_away.slices, 48);
}

/// Windows of three days, each day: the first that stays open, of the third of January, needs the first.
#[tokio::test]
async fn hours_stay_as_long_as_a_trailing_window_needs_them() {
    let clock = clock("2026-01-08T12:00:00Z");
    let more = "\n[[rollup]]\nname = \"last_three\"\nfrom = { rollup = \"hourly\" }\nslice = \"1 day\"\n\
                trailing = \"3 days\"\ngroup_by = []\nmeasures = [\"events\"]\n";
    let rollups = format!("{TIERS}{more}");
    let sql = format!("{EVENTS}; {ROWS}");
    let setup = Setup { rollups: &rollups, clock: Arc::new(clock.clone()), ..Setup::default() };
    let world = World::new(&sql, setup).await;
    assert_eq!(ticked(&world).await.kept_away.slices, 0, "the window of 3 January needs the first");
    clock.advance(DAY);
    // The windows before the fourth are to stay as they are. They hold an hour that stays, and that
    // another worker computes again.
    world.sql("INSERT INTO events (created_at, kind) VALUES ('2026-01-03T05:01Z', 'late')").await;
    taken(&world, "hourly", "2026-01-03T05:00:00Z").await;
    assert_eq!(ticked(&world).await.kept_away.slices, 0);
    clock.advance(PAST_LEASE);
    assert_eq!(ticked(&world).await.kept_away.slices, 24);
    assert_eq!(first_hour(&world).await, "2026-01-02 00:00:00");
    let third = "SELECT events FROM stats.last_three WHERE bucket = '2026-01-03Z'";
    assert_eq!(world.target_value(third).await, "217", "three a hour, and the late one");
    let window = &world.worker.config.rollups[3];
    let slice = window.calendar.containing(instant("2026-01-04"));
    let found = verify::verify_slice(&world.worker, window, slice, BUDGET, 3).await.unwrap();
    assert_eq!(found.differences, 0);
}

/// Days are deleted, and an hour of one of them is still to be computed again.
#[tokio::test]
async fn days_stay_while_one_of_their_hours_is_computed_again() {
    let clock = clock("2026-01-09T12:00:00Z");
    let rollups = TIERS.replace("keep = \"5 days\"\n", "");
    // A Monday, so that the first week is whole.
    let rollups = rollups.replace("start = \"2026-01-01\"", "start = \"2025-12-29\"");
    let rollups = rollups.replace("slice = \"1 day\"", "slice = \"1 day\"\nkeep = \"5 days\"");
    let sql = format!("{EVENTS}; {ROWS}");
    let setup = Setup { rollups: &rollups, clock: Arc::new(clock.clone()), ..Setup::default() };
    let world = World::new(&sql, setup).await;
    assert_eq!(ticked(&world).await.kept_away.slices, 0, "the week of the fifth is not complete");
    clock.advance(DAY * 3);
    world.sql("INSERT INTO events (created_at, kind) VALUES ('2026-01-03T05:01Z', 'late')").await;
    taken(&world, "hourly", "2026-01-03T05:00:00Z").await;
    assert_eq!(ticked(&world).await.kept_away.slices, 0);
    clock.advance(PAST_LEASE);
    assert_eq!(ticked(&world).await.kept_away.slices, 7, "three of them without rows");
    let week = "SELECT events FROM stats.weekly ORDER BY bucket LIMIT 1";
    assert_eq!(world.target_value(week).await, "289", "four days, and the late one");
}

/// A coarse rollup that comes later is not computed from what is left.
#[tokio::test]
async fn a_new_consumer_waits_instead_of_counting_deleted_hours_as_none() {
    let clock = clock("2026-01-08T12:00:00Z");
    let world = tiers(Keeper::Target, &clock, false).await;
    assert_eq!(ticked(&world).await.kept_away.slices, 48);
    let more = "\n[[rollup]]\nname = \"again\"\nfrom = { rollup = \"hourly\" }\nslice = \"1 day\"\n\
                group_by = []\nmeasures = [\"events\"]\n";
    let other = world.redefined(&format!("{TIERS}{more}"));
    other.init().await.unwrap();
    ticked(&other).await;
    let first = "SELECT min(bucket) AT TIME ZONE 'UTC' FROM stats.again";
    assert_eq!(other.target_value(first).await, "2026-01-03 00:00:00");
    // Days of deleted hours would have no rows, and count as computed.
    let early = "SELECT count(*) FROM tallymark.slice WHERE rollup = 'again' AND slice_start < '2026-01-03Z'";
    assert_eq!(other.target_value(early).await, "0");
}

/// The worker ends at any call: the next one finishes, and the days are as they were.
#[tokio::test]
async fn wherever_a_worker_is_killed_the_next_one_deletes_the_rest() {
    let clock = clock("2026-01-05T12:00:00Z");
    let world = tiers(Keeper::Target, &clock, false).await;
    ticked(&world).await;
    clock.advance(DAY * 3);
    let hours =
        "SELECT kind, sum(events) FROM stats.hourly WHERE bucket >= '2026-01-03Z' GROUP BY 1";
    // Everything but the deletion is done.
    let kept = world.redefined(&TIERS.replace("keep = \"5 days\"\n", ""));
    ticked(&kept).await;
    let (before, left) = (days(&world).await, records(&world.target, hours).await);
    let mut kills = 0;
    for polls in sweep(0, || 2) {
        // The server may still be at work for the one that was killed, and has locks.
        if killed(tried(&world), polls).await.is_some() {
            break;
        }
        kills += 1;
        assert_eq!(days(&world).await, before);
        assert_eq!(records(&world.target, hours).await, left);
    }
    assert!(kills > 3, "{kills}");
    for _ in 0..QUIET_MAX {
        if tried(&world).await.problems.is_empty() {
            break;
        }
    }
    assert_eq!(first_hour(&world).await, "2026-01-03 00:00:00");
    assert_eq!((days(&world).await, records(&world.target, hours).await), (before, left));
    let away = "SELECT count(*) FROM tallymark.slice WHERE kept_away IS NOT NULL";
    assert_eq!(world.target_value(away).await, "48");
}

/// A store that was lost learns of the seal by `repair`, and of the deleted slices by the next tick.
#[tokio::test]
async fn a_lost_store_computes_no_deleted_slice() {
    let clock = clock("2026-01-08T12:00:00Z");
    let world = tiers(Keeper::DynamoDb, &clock, false).await;
    ticked(&world).await;
    let before = days(&world).await;
    let urls = Urls { source: world.urls.source.clone(), target: world.urls.target.clone() };
    let setup = Setup { rollups: TIERS, clock: Arc::new(clock.clone()), ..Setup::default() };
    let lost = World::at(urls, setup).await;
    lost.init().await.unwrap();
    for rollup in &lost.worker.config.rollups {
        repair::run(&lost.worker, rollup, false).await.unwrap();
    }
    ticked(&lost).await;
    assert_eq!(
        (days(&lost).await, first_hour(&lost).await),
        (before, "2026-01-03 00:00:00".into())
    );
}
