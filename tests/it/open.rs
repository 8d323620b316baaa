//! Open slices: a coarse slice that goes on, computed from the finer slices that are done.

use std::sync::Arc;
use std::time::Duration;

use tallymark::check::verify;
use tallymark::checkpoint::{Checkpoint, State};
use tallymark::model::clock::{Deadline, ManualClock};
use tallymark::model::rollup::Rollup;
use tallymark::model::slice::{Order, Slice};
use tallymark::tick;
use tallymark::work::backfill::{self, Silent};
use tallymark::work::due::Standing;
use tallymark::work::report::TickReport;
use tallymark::work::slice_run::{self, RunOptions};
use tallymark::work::standings;

use crate::support::polls::killed;
use crate::support::world::{
    BUDGET, EVENTS, Keeper, PAST_LEASE, Setup, World, batch, clock, init, install_capture, instant,
    records,
};

/// Hours, open days of them, and months of the days.
const ROLLUPS: &str = r#"
[[rollup]]
name = "hourly"
from = "public.events"
time = "created_at"
start = "2026-01-01"
slice = "1 hour"
late = "capture"
shrink_guard = 0.0
group_by = ["kind"]
measures = { events = "count", revenue = { sum = "amount" } }

[[rollup]]
name = "daily"
from = { rollup = "hourly" }
slice = "1 day"
open = true
group_by = ["kind"]
measures = ["events", "revenue"]

[[rollup]]
name = "monthly"
from = { rollup = "daily" }
slice = "1 month"
open = true
measures = ["events"]
"#;

const KEEPERS: [(Keeper, bool); 3] =
    [(Keeper::DynamoDb, false), (Keeper::DynamoDb, true), (Keeper::Target, false)];

/// A row every twenty minutes until the third of January, and none from four to six o'clock.
const ROWS: &str = "INSERT INTO events (created_at, kind, amount) \
    SELECT at, (ARRAY['view', 'buy'])[1 + n % 2], n FROM (SELECT '2026-01-01T00:10Z'::timestamptz \
    + n * interval '20 minutes' AS at, n FROM generate_series(0, 143) n) r \
    WHERE extract(hour FROM at AT TIME ZONE 'UTC') NOT IN (4, 5)";

async fn world(keeper: Keeper, across: bool, now: &str) -> (ManualClock, World) {
    let clock = clock(now);
    let of = Arc::new(clock.clone());
    let setup = Setup { rollups: ROLLUPS, clock: of, keeper, across, ..Setup::default() };
    let world = World::new(&format!("{EVENTS}; {ROWS}"), setup).await;
    install_capture(&world.worker).await;
    world.sql("DELETE FROM tallymark.mark").await;
    (clock, world)
}

async fn tick(world: &World) -> TickReport {
    let worker = &world.worker;
    let deadline = Deadline::after(&*worker.clock, BUDGET);
    let report = tick::run(worker, worker.clock.now(), deadline, None).await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    report
}

fn minutes(clock: &ManualClock, minutes: u64) {
    clock.advance(Duration::from_secs(minutes * 60));
}

fn rollup<'w>(world: &'w World, name: &str) -> &'w Rollup {
    world.worker.config.rollups.iter().find(|rollup| rollup.name == name).unwrap()
}

fn day(world: &World, start: &str) -> Slice {
    rollup(world, "daily").calendar.starting(instant(start)).unwrap()
}

async fn of_day(world: &World, start: &str) -> Option<Checkpoint> {
    world.worker.checkpoints.get("daily", instant(start)).await.unwrap()
}

/// The state of a day, until when it goes, and its rows.
async fn told(world: &World, start: &str) -> String {
    let sql = format!(
        "SELECT concat_ws(' ', s.state, to_char(m.open_until, 'HH24:MI'), (SELECT sum(events) FROM \
         stats.daily WHERE bucket = '{start}Z')) FROM tallymark.slices_of('daily', '-infinity', \
         'infinity') s JOIN tallymark.slice m ON m.rollup = 'daily' AND m.slice_start = s.slice_start \
         WHERE s.slice_start = '{start}Z'"
    );
    world.target_value(&sql).await
}

/// The rows of the days are exactly those of the source before this instant.
async fn are_exact(world: &World, until: &str) {
    let direct = format!(
        "SELECT date_trunc('day', created_at, 'UTC'), kind, count(*), sum(amount) FROM events \
         WHERE created_at < '{until}Z' GROUP BY 1, 2"
    );
    let expected = records(&world.pool, &direct).await;
    assert_eq!(records(&world.target, "SELECT * FROM stats.daily").await, expected);
}

async fn is_verified(world: &World, start: &str) -> u64 {
    let (daily, slice) = (rollup(world, "daily"), day(world, start));
    verify::verify_slice(&world.worker, daily, slice, BUDGET, 3).await.unwrap().differences
}

async fn run_day(world: &World, start: &str) -> String {
    let worker = &world.worker;
    let deadline = Deadline::after(&*worker.clock, BUDGET);
    let (daily, slice) = (rollup(world, "daily"), day(world, start));
    let ran = slice_run::run_slice(worker, daily, slice, deadline, RunOptions::default()).await;
    let report = ran.unwrap();
    let until = report.completion.as_ref().and_then(|done| done.open_until);
    let until = until.map(|until| until.format(" %H:%M").to_string()).unwrap_or_default();
    format!("{}{until}{}", report.outcome.word(), report.reason.unwrap_or_default())
}

#[tokio::test]
async fn a_day_follows_its_hours_and_each_row_of_the_source_is_read_once() {
    for (keeper, across) in KEEPERS {
        let (clock, world) = world(keeper, across, "2026-01-02T10:30:00Z").await;
        let mut rows_read = 0;
        let mut read = |report: &TickReport| {
            let hours = report.slices.iter().filter(|it| it.rollup == "hourly");
            let counts = hours.filter_map(|it| it.completion.as_ref()).map(|it| it.rows_read);
            rows_read += counts.sum::<u64>();
        };
        read(&tick(&world).await);
        assert_eq!(told(&world, "2026-01-01").await, "complete 66", "{keeper:?}");
        assert_eq!(told(&world, "2026-01-02").await, "open 10:00 24");
        are_exact(&world, "2026-01-02 10:00").await;
        assert_eq!(is_verified(&world, "2026-01-02").await, 0);
        let daily = rollup(&world, "daily");
        let plan = standings::of(&world.worker, daily, instant("2026-01-02T10:30:00Z")).await;
        let plan = plan.unwrap().plan;
        assert_eq!(plan.watermark, instant("2026-01-02"), "never past an open slice");
        assert_eq!(plan.slices.last().unwrap().standing, Standing::Open);
        let through = "SELECT concat_ws(' ', to_char(complete_through, 'DD'), \
                       to_char(open_through, 'DD HH24:MI'), stale) FROM tallymark.coverage \
                       WHERE rollup = 'daily'";
        // It is told by the tick after the slices.
        tick(&world).await;
        assert_eq!(world.target_value(through).await, "02 02 10:00 0");

        // It lags by one hour and its grace.
        minutes(&clock, 31);
        read(&tick(&world).await);
        assert_eq!(told(&world, "2026-01-02").await, "open 10:00 24", "within the grace");
        minutes(&clock, 2);
        let report = tick(&world).await;
        read(&report);
        assert_eq!(told(&world, "2026-01-02").await, "open 11:00 27");
        let idle = tick(&world).await;
        assert!(idle.slices.is_empty(), "{:?}", idle.slices);

        // The last hour makes it whole.
        minutes(&clock, 13 * 60);
        read(&tick(&world).await);
        assert_eq!(told(&world, "2026-01-02").await, "complete 66");
        assert_eq!(of_day(&world, "2026-01-02").await.unwrap().outcome.unwrap().open_until, None);
        are_exact(&world, "2026-01-03").await;
        tick(&world).await;
        assert_eq!(world.target_value(through).await, "03 0");
        assert_eq!(rows_read, 132, "each row of the source once");
        let months = "SELECT sum(events) FROM stats.monthly";
        assert_eq!(world.target_value(months).await, "132", "days that are whole");
    }
}

/// An hour without rows changes nothing, and the day goes on all the same.
#[tokio::test]
async fn a_day_goes_on_over_hours_without_rows() {
    let (clock, world) = world(Keeper::DynamoDb, false, "2026-01-02T04:30:00Z").await;
    tick(&world).await;
    assert_eq!(told(&world, "2026-01-02").await, "open 04:00 12");
    minutes(&clock, 60);
    tick(&world).await;
    tick(&world).await;
    assert_eq!(told(&world, "2026-01-02").await, "open 05:00 12");
}

#[tokio::test]
async fn a_hole_in_the_middle_keeps_a_day_open_and_never_makes_it_shorter() {
    for (keeper, across) in KEEPERS {
        let (clock, world) = world(keeper, across, "2026-01-02T10:30:00Z").await;
        tick(&world).await;
        let now = instant("2026-01-02T10:30:00Z");
        let checkpoints = &world.worker.checkpoints;
        checkpoints.reopen("hourly", instant("2026-01-02T08:00:00Z"), "test", now).await.unwrap();
        checkpoints.reopen("daily", instant("2026-01-02"), "test", now).await.unwrap();
        let waits = "yieldedwaits for hourly@2026-01-02T08:00:00Z, which is stale";
        assert_eq!(run_day(&world, "2026-01-02").await, waits, "{keeper:?}");
        assert_eq!(told(&world, "2026-01-02").await, "open 10:00 24");

        // The hours of the evening are done, but for one, and the day is over.
        minutes(&clock, 16 * 60);
        let hourly = rollup(&world, "hourly");
        let (from, to) = (instant("2026-01-02T10:00:00Z"), instant("2026-01-03"));
        let order = Order::NewestFirst;
        let mut plan = backfill::plan(&world.worker, hourly, from, to, order, false).await.unwrap();
        plan.slices.retain(|slice| slice.start() != instant("2026-01-02T20:00:00Z"));
        backfill::run(&world.worker, hourly, &plan, batch(), &Silent).await.unwrap();
        assert!(world.run("2026-01-02T08:00:00Z").await.is_success());
        assert_eq!(run_day(&world, "2026-01-02").await, "succeeded 20:00");
        assert_eq!(told(&world, "2026-01-02").await, "open 20:00 54");
        tick(&world).await;
        assert_eq!(told(&world, "2026-01-02").await, "complete 66");
    }
}

/// A day that was whole stays so while one of its hours runs again.
#[tokio::test]
async fn a_day_that_was_whole_is_never_open_again() {
    let (_, world) = world(Keeper::DynamoDb, false, "2026-01-02T10:30:00Z").await;
    tick(&world).await;
    let now = instant("2026-01-02T10:30:00Z");
    let checkpoints = &world.worker.checkpoints;
    checkpoints.reopen("hourly", instant("2026-01-01T08:00:00Z"), "test", now).await.unwrap();
    checkpoints.reopen("daily", instant("2026-01-01"), "test", now).await.unwrap();
    let waits = "yieldedwaits for hourly@2026-01-01T08:00:00Z, which is stale";
    assert_eq!(run_day(&world, "2026-01-01").await, waits);
    assert_eq!(told(&world, "2026-01-01").await, "complete 66");
}

/// Days of history are computed once, when they are whole.
#[tokio::test]
async fn a_day_that_is_over_does_not_begin_as_an_open_one() {
    let (_, world) = world(Keeper::DynamoDb, false, "2026-01-02T10:30:00Z").await;
    let hourly = rollup(&world, "hourly");
    let (from, to) = (instant("2026-01-01"), instant("2026-01-01T12:00:00Z"));
    let plan = backfill::plan(&world.worker, hourly, from, to, Order::OldestFirst, false).await;
    backfill::run(&world.worker, hourly, &plan.unwrap(), batch(), &Silent).await.unwrap();
    let waits = "yieldedwaits for hourly@2026-01-01T12:00:00Z, which is missing";
    assert_eq!(run_day(&world, "2026-01-01").await, waits);
    assert_eq!(of_day(&world, "2026-01-01").await, None);
}

#[tokio::test]
async fn a_late_row_reaches_an_open_day_and_readers_are_told_meanwhile() {
    const LATE: &str = "INSERT INTO events (created_at, kind) VALUES ('2026-01-02T05:10Z', 'late')";
    for (keeper, across) in KEEPERS {
        let (_, world) = world(keeper, across, "2026-01-02T10:30:00Z").await;
        tick(&world).await;
        world.sql(LATE).await;
        assert_eq!(told(&world, "2026-01-02").await, "open 10:00 24");
        let worker = &world.worker;
        let deadline = Deadline::after(&*worker.clock, BUDGET);
        tallymark::work::late::notice(worker, deadline).await;
        assert_eq!(told(&world, "2026-01-02").await, "stale 10:00 24", "{keeper:?}");
        assert!(world.run("2026-01-02T05:00:00Z").await.is_success());
        assert_eq!(told(&world, "2026-01-02").await, "stale 10:00 24");
        tick(&world).await;
        assert_eq!(told(&world, "2026-01-02").await, "open 10:00 25");
        assert_eq!(is_verified(&world, "2026-01-02").await, 0);
    }
}

/// A further hour takes nothing from what a reader knows of an open day.
#[tokio::test]
async fn an_open_day_stays_open_while_a_further_hour_is_done_and_the_day_is_not() {
    const LATE: &str = "INSERT INTO events (created_at, kind) VALUES ('2026-01-02T05:10Z', 'late')";
    for (keeper, across) in KEEPERS {
        let (clock, world) = world(keeper, across, "2026-01-02T10:30:00Z").await;
        tick(&world).await;
        minutes(&clock, 60);
        assert!(world.run("2026-01-02T10:00:00Z").await.is_success());
        assert_eq!(told(&world, "2026-01-02").await, "open 10:00 24", "{keeper:?}");
        let through = "SELECT to_char(open_through, 'HH24:MI') FROM tallymark.coverage \
            WHERE rollup = 'daily'";
        assert_eq!(world.target_value(through).await, "10:00");
        // An hour that the day holds is another matter, also before that one.
        world.sql(LATE).await;
        world.reopen("2026-01-02T05:00:00Z").await;
        assert!(world.run("2026-01-02T05:00:00Z").await.is_success());
        assert_eq!(told(&world, "2026-01-02").await, "stale 10:00 24", "{keeper:?}");
        tick(&world).await;
        assert_eq!(told(&world, "2026-01-02").await, "open 11:00 28", "{keeper:?}");
        minutes(&clock, 60);
        assert!(world.run("2026-01-02T11:00:00Z").await.is_success());
        assert_eq!(told(&world, "2026-01-02").await, "open 11:00 28", "{keeper:?}");
    }
}

/// Whatever await a worker is killed at, the next ticks end right.
#[tokio::test]
async fn a_worker_that_is_killed_in_the_middle_leaves_an_open_day_that_goes_on() {
    for (keeper, across) in KEEPERS {
        let (clock, world) = world(keeper, across, "2026-01-02T00:30:00Z").await;
        tick(&world).await;
        for hour in 1..=5_u32 {
            minutes(&clock, 60);
            let deadline = Deadline::after(&clock, BUDGET);
            let now = instant(&format!("2026-01-02T{hour:02}:30:00Z"));
            let polls = fastrand::usize(10..300);
            drop(killed(tick::run(&world.worker, now, deadline, None), polls).await);
            let checked = told(&world, "2026-01-02").await;
            assert!(!checked.starts_with("complete"), "{checked} after {polls} polls");
        }
        clock.advance(PAST_LEASE);
        for _ in 0..3 {
            tick(&world).await;
        }
        assert_eq!(told(&world, "2026-01-02").await, "open 05:00 12", "{keeper:?}");
        are_exact(&world, "2026-01-02 05:00").await;
    }
}

/// With another definition, an open day is computed again by it.
#[tokio::test]
async fn an_open_day_of_another_definition_is_computed_again() {
    let (_, world) = world(Keeper::DynamoDb, false, "2026-01-02T10:30:00Z").await;
    tick(&world).await;
    let rollups =
        ROLLUPS.replace("measures = [\"events\", \"revenue\"]", "measures = [\"events\"]");
    let other = world.redefined(&rollups);
    assert!(init(&other.worker).await.is_err(), "a column is left");
    world.target_sql("ALTER TABLE stats.daily DROP COLUMN revenue").await;
    world.target_sql("ALTER TABLE tallymark.stage_daily DROP COLUMN revenue").await;
    init(&other.worker).await.unwrap();
    assert_eq!(told(&other, "2026-01-02").await, "open 10:00 24");
    tick(&other).await;
    assert_eq!(told(&other, "2026-01-02").await, "open 10:00 24");
    let found = of_day(&other, "2026-01-02").await.unwrap();
    assert_eq!((found.state, found.attempt), (State::Succeeded, 2));
}
