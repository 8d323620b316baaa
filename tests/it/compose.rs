//! Rollups of rollups: hours to days to months, without further reads of the source.

mod histories;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tallymark::check::repair;
use tallymark::check::verify;
use tallymark::checkpoint::{Claim, Completion, State};
use tallymark::model::clock::{Clock as _, Deadline, ManualClock};
use tallymark::model::rollup::Rollup;
use tallymark::model::slice::{Order, Slice};
use tallymark::source::SliceJob;
use tallymark::target::{Chunk, StageProgress, StatementOptions};
use tallymark::tick;
use tallymark::work::backfill;
use tallymark::work::due::Standing;
use tallymark::work::empty;
use tallymark::work::ready;
use tallymark::work::report::{Outcome, SliceReport};
use tallymark::work::slice_run::{self, RunOptions};
use tallymark::work::standings;

use crate::support::Database;
use crate::support::cli::{Place, daily, day, execute};
use crate::support::polls::{killed, sweep};
use crate::support::proxy::Cutter;
use crate::support::share;
use crate::support::world::{
    BUDGET, EVENTS, PAST_LEASE, Setup, World, checkpoints, clock, instant, records,
};

/// Maximum number of ticks until all work is done.
const QUIET_MAX: usize = 20;

/// Hours, days and months of one zone. The coarse ones come first, as the order of the file is
/// free.
fn rollups(zone: &str, start: &str) -> String {
    format!(
        r#"
[[rollup]]
name = "monthly"
from = {{ rollup = "daily" }}
slice = "1 month"
group_by = ["kind"]
measures = ["events", "revenue", "low", "high", "price", "score"]

[[rollup]]
name = "daily"
from = {{ rollup = "hourly" }}
slice = "1 day"
group_by = ["kind"]
[rollup.measures]
events = {{ sum = "events" }}
revenue = {{ sum = "revenue" }}
low = {{ min = "low" }}
high = {{ max = "high" }}
price = {{ avg = "price" }}
score = {{ sum = "score" }}
entities = {{ distinct = "entity_id" }}

[[rollup]]
name = "hourly"
from = "public.events"
time = "created_at"
start = "{start}"
slice = "6 hours"
bucket = "1 hour"
timezone = "{zone}"
group_by = ["entity_id", "kind"]
[rollup.measures]
events = "count"
revenue = {{ sum = "amount" }}
low = {{ min = "amount" }}
high = {{ max = "amount" }}
price = {{ avg = "amount" }}
score = {{ sum = "score" }}
users = {{ distinct = "user_id" }}
"#
    )
}

/// Random events in `[from, to)`. Quarters are exact in floating point, so that their sum is the
/// same in any order.
fn events(from: &str, to: &str, count: u32) -> String {
    format!(
        "{EVENTS}; ALTER TABLE events ADD score double precision; \
         INSERT INTO events (created_at, kind, entity_id, user_id, amount, score) \
         SELECT '{from}'::timestamptz + random() * ('{to}'::timestamptz - '{from}'), \
             (ARRAY['view', 'buy', NULL])[1 + (random() * 3)::int % 3], \
             nullif((random() * 3)::int, 3), (random() * 20)::int, \
             nullif(round((random() * 1000)::numeric, 2), 500), (random() * 1000)::int / 4.0 \
         FROM generate_series(1, {count})"
    )
}

/// One `GROUP BY` over the source.
fn truth(unit: &str, zone: &str, from: &str, to: &str, entities: &str) -> String {
    format!(
        "SELECT date_trunc('{unit}', created_at, '{zone}'), kind, count(*), sum(amount), \
         min(amount), max(amount), sum(amount), count(amount), \
         sum(amount) / nullif(count(amount), 0), sum(score){entities} FROM events \
         WHERE created_at >= '{from}'::timestamp AT TIME ZONE '{zone}' \
         AND created_at < '{to}'::timestamp AT TIME ZONE '{zone}' GROUP BY 1, 2"
    )
}

const COLUMNS: &str =
    "bucket, kind, events, revenue, low, high, price_sum, price_count, price, score";

/// Compares days and months with the source.
async fn is_exact(world: &World, zone: &str, days: (&str, &str), months: (&str, &str)) {
    let found =
        records(&world.target, &format!("SELECT {COLUMNS}, entities FROM stats.daily")).await;
    let entities = ", count(DISTINCT entity_id)";
    let wanted = records(&world.pool, &truth("day", zone, days.0, days.1, entities)).await;
    assert!(!wanted.is_empty());
    assert_eq!(found, wanted);
    let found = records(&world.target, &format!("SELECT {COLUMNS} FROM stats.monthly")).await;
    let wanted = records(&world.pool, &truth("month", zone, months.0, months.1, "")).await;
    assert!(!wanted.is_empty());
    assert_eq!(found, wanted);
}

async fn world_at(clock: &ManualClock, sql: &str, rollups: &str, across: bool) -> World {
    let clock = Arc::new(clock.clone());
    World::new(sql, Setup { rollups, across, clock, ..Setup::default() }).await
}

fn named<'w>(world: &'w World, name: &str) -> &'w Rollup {
    world.worker.rollup(name).unwrap()
}

fn slice(world: &World, name: &str, start: &str) -> Slice {
    named(world, name).calendar.starting(instant(start)).unwrap()
}

async fn tick(world: &World) -> Vec<SliceReport> {
    let clock = &*world.worker.clock;
    let deadline = Deadline::after(clock, BUDGET);
    let report = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.left, 0);
    report.slices
}

async fn run(world: &World, name: &str, start: &str) -> SliceReport {
    let deadline = Deadline::after(&*world.worker.clock, BUDGET);
    let (rollup, slice) = (named(world, name), slice(world, name, start));
    slice_run::run_slice(&world.worker, rollup, slice, deadline, RunOptions::default())
        .await
        .unwrap()
}

async fn reopen(world: &World, name: &str, start: &str) {
    let now = world.worker.clock.now();
    world.worker.checkpoints.reopen(name, instant(start), "test", now).await.unwrap();
}

/// `hourly@2024-03-05T05:00:00Z`, and how it ended.
fn told(slices: &[SliceReport]) -> Vec<String> {
    let start = |slice: &SliceReport| slice.start.format("%Y-%m-%dT%H:%M:%SZ").to_string();
    slices
        .iter()
        .map(|slice| format!("{}@{} {}", slice.rollup, start(slice), slice.outcome.word()))
        .collect()
}

/// One tick computes hours, then days, then months, each only after all of its parts.
async fn one_tick_does_all(world: &World) {
    let done = tick(world).await;
    assert!(done.iter().all(|slice| slice.outcome == Outcome::Succeeded), "{:?}", told(&done));
    for name in ["daily", "monthly"] {
        let rollup = named(world, name);
        let finer = rollup.finer.as_ref().unwrap();
        let place: BTreeMap<_, _> =
            done.iter().enumerate().map(|(n, it)| ((it.rollup.as_str(), it.start), n)).collect();
        let mut coarse = 0;
        for (at, report) in done.iter().enumerate().filter(|(_, it)| it.rollup == name) {
            let settled_by = &report.completion.as_ref().unwrap().settled_by;
            assert_eq!(settled_by, "rollup");
            for slice in finer.calendar.slices(report.start, report.end) {
                assert!(place[&(finer.name.as_str(), slice.start())] < at, "{name} {slice}");
            }
            coarse += 1;
        }
        assert!(coarse > 0, "{name}");
    }
    assert!(tick(world).await.is_empty(), "nothing is due after");
}

async fn equals_one_group_by(
    (zone, start): (&str, &str),
    (from, to): (&str, &str),
    now: &str,
    months: (&str, &str),
    across: bool,
) {
    let clock = clock(now);
    let rollups = rollups(zone, start);
    let world = world_at(&clock, &events(from, to, 4_000), &rollups, across).await;
    one_tick_does_all(&world).await;
    is_exact(&world, zone, (start, months.1), months).await;
    for name in ["daily", "monthly"] {
        let rollup = named(&world, name);
        for slice in rollup.calendar.slices_ended_by(rollup.start, clock.now()) {
            let found =
                verify::verify_slice(&world.worker, rollup, slice, BUDGET, 3).await.unwrap();
            assert_eq!(found.differences, 0, "{slice}: {:?}", found.examples);
        }
    }
}

/// One of three zones a run.
#[tokio::test]
async fn in_any_zone_months_equal_one_group_by() {
    const NEW_YORK: &str = "America/New_York";
    let zones = [
        // Clocks go forward on 10 March. The first month that the hours fill is March.
        (
            (NEW_YORK, "2024-02-26"),
            ("2024-02-20Z", "2024-04-03Z"),
            "2024-04-01T12:00:00Z",
            ("2024-03-01", "2024-04-01"),
            false,
        ),
        // Clocks go back on 3 November. The target is another database.
        (
            (NEW_YORK, "2024-10-28"),
            ("2024-10-20Z", "2024-12-03Z"),
            "2024-12-01T12:00:00Z",
            ("2024-11-01", "2024-12-01"),
            true,
        ),
        // 5:45 ahead of UTC.
        (
            ("Asia/Kathmandu", "2024-01-27"),
            ("2024-01-20Z", "2024-03-03Z"),
            "2024-03-01T12:00:00Z",
            ("2024-02-01", "2024-03-01"),
            false,
        ),
    ];
    for (cell, (places, events, now, months, across)) in zones.into_iter().enumerate() {
        if share::is_drawn("months of zones", cell, zones.len(), 1) {
            equals_one_group_by(places, events, now, months, across).await;
        }
    }
}

/// February 2024 in UTC, all of it done.
async fn february(across: bool) -> (ManualClock, World) {
    let clock = clock("2024-03-01T12:00:00Z");
    let sql = events("2024-02-10Z", "2024-03-01Z", 500);
    let world = world_at(&clock, &sql, &rollups("UTC", "2024-02-01"), across).await;
    tick(&world).await;
    (clock, world)
}

async fn is_february(world: &World) {
    let bounds = ("2024-02-01", "2024-03-01");
    is_exact(world, "UTC", bounds, bounds).await;
}

const LATE: &str = "INSERT INTO events (created_at, kind, entity_id, amount, score) \
    VALUES ('2024-02-14T07:30Z', 'late', 1, 3, 0.25)";

#[tokio::test]
async fn a_late_change_in_an_hour_reaches_day_and_month_in_one_tick() {
    let (_, world) = february(false).await;
    world.sql(LATE).await;
    reopen(&world, "hourly", "2024-02-14T06:00:00Z").await;
    assert_eq!(
        told(&tick(&world).await),
        [
            "hourly@2024-02-14T06:00:00Z succeeded",
            "daily@2024-02-14T00:00:00Z succeeded",
            "monthly@2024-02-01T00:00:00Z succeeded",
        ]
    );
    is_february(&world).await;
    assert!(tick(&world).await.is_empty());
}

/// Days and months before the first row were computed as empty, and then get rows.
#[tokio::test]
async fn rows_before_all_others_reach_day_and_month() {
    let (_, world) = february(false).await;
    world.sql(&LATE.replace("02-14", "02-03")).await;
    empty::probe(&world.worker, named(&world, "hourly")).await.unwrap();
    let done = told(&tick(&world).await);
    assert!(done.contains(&"daily@2024-02-03T00:00:00Z succeeded".to_owned()), "{done:?}");
    assert_eq!(done.last().unwrap(), "monthly@2024-02-01T00:00:00Z succeeded");
    is_february(&world).await;
}

/// The first run of an hour in a day that was never claimed leaves no checkpoint of the day.
#[tokio::test]
async fn a_coarse_slice_waits_for_its_finer_ones() {
    let clock = clock("2024-02-03T12:00:00Z");
    let sql = events("2024-02-01Z", "2024-02-03Z", 100);
    let world = world_at(&clock, &sql, &rollups("UTC", "2024-02-01"), false).await;
    let daily = named(&world, "daily");
    for hour in ["00", "06", "12"] {
        let report = run(&world, "hourly", &format!("2024-02-02T{hour}:00:00Z")).await;
        assert_eq!(report.outcome, Outcome::Succeeded);
    }
    let early = run(&world, "daily", "2024-02-02").await;
    assert_eq!(early.outcome, Outcome::Yielded);
    assert_eq!(early.reason.unwrap(), "waits for hourly@2024-02-02T18:00:00Z, which is missing");
    let known = world.worker.checkpoints.get("daily", instant("2024-02-02")).await.unwrap();
    assert_eq!(known, None);
    let plan = standings::of(&world.worker, daily, clock.now()).await.unwrap().plan;
    assert!(plan.slices.iter().all(|planned| planned.standing == Standing::Blocked));
    let (from, to, order) = (daily.start, clock.now(), Order::NewestFirst);
    let plan = backfill::plan(&world.worker, daily, from, to, order, true).await.unwrap();
    assert_eq!((plan.slices.len(), plan.blocked), (0, 2));

    assert!(run(&world, "hourly", "2024-02-02T18:00:00Z").await.is_success());
    assert_eq!(run(&world, "daily", "2024-02-02").await.outcome, Outcome::Succeeded);
    let month = run(&world, "monthly", "2024-02-01").await;
    assert_eq!(month.reason.unwrap(), "waits for daily@2024-02-01T00:00:00Z, which is blocked");
}

/// An hour changes while its day is being computed: the day runs again.
#[tokio::test]
async fn a_day_that_is_running_when_an_hour_changes_is_stale_after() {
    let (clock, world) = february(false).await;
    reopen(&world, "daily", "2024-02-14").await;
    let now = clock.now();
    let claim = Claim {
        rollup: "daily",
        slice_start: instant("2024-02-14"),
        definition: &named(&world, "daily").definition(),
        now,
        deadline: now + chrono::TimeDelta::seconds(30),
    };
    let lease = world.worker.checkpoints.claim(&claim).await.unwrap();
    // By now the day has been read, and is about to be completed.
    world.sql(LATE).await;
    reopen(&world, "hourly", "2024-02-14T06:00:00Z").await;
    assert!(run(&world, "hourly", "2024-02-14T06:00:00Z").await.is_success());
    let completion = Completion::default();
    let state = world.worker.checkpoints.complete(&lease, &completion, now).await.unwrap();
    assert_eq!(state, State::Stale);
    tick(&world).await;
    is_february(&world).await;
}

/// Ticks until all work is done.
async fn quiet(clock: &ManualClock, world: &World) {
    for _ in 0..QUIET_MAX {
        // The lease of a killed worker has ended.
        clock.advance(PAST_LEASE);
        let deadline = Deadline::after(clock, BUDGET);
        let report = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
        let daily =
            standings::of(&world.worker, named(world, "daily"), clock.now()).await.unwrap().plan;
        if report.slices.is_empty() && daily.watermark >= instant("2024-02-29") {
            return;
        }
    }
    panic!("never quiet");
}

/// The worker of an hour is killed at every await, each time after another change, and others
/// continue. After each kill, day and month have every change.
#[tokio::test]
async fn a_worker_killed_between_commit_and_reopening_loses_nothing() {
    let (clock, world) = february(true).await;
    let (hourly, hour) = (named(&world, "hourly"), slice(&world, "hourly", "2024-02-14T06:00:00Z"));
    for polls in sweep(1, || 1) {
        world.sql(LATE).await;
        reopen(&world, "hourly", "2024-02-14T06:00:00Z").await;
        let deadline = Deadline::after(&clock, BUDGET);
        let work =
            slice_run::run_slice(&world.worker, hourly, hour, deadline, RunOptions::default());
        let ended = killed(work, polls).await;
        quiet(&clock, &world).await;
        let late = "SELECT (SELECT sum(events) FROM stats.daily WHERE kind = 'late'), \
                    (SELECT sum(events) FROM stats.monthly WHERE kind = 'late')";
        assert_eq!(records(&world.target, late).await, [format!("({polls},{polls})")]);
        // Remains of a killed worker may keep the next one from succeeding.
        if ended.is_some_and(|report| report.unwrap().is_success()) {
            println!("killed at {} awaits", polls - 1);
            is_february(&world).await;
            return;
        }
    }
}

/// In chunks, like a slice that is larger than its budget.
#[tokio::test]
async fn a_month_that_is_read_in_chunks_is_the_same() {
    let (clock, world) = february(false).await;
    for (name, start) in [("daily", "2024-02-14"), ("monthly", "2024-02-01")] {
        let (rollup, slice) = (named(&world, name), slice(&world, name, start));
        world.target_sql(&format!("UPDATE stats.{name} SET events = 0, price_sum = 0")).await;
        world.target_sql(&format!("DELETE FROM stats.{name} WHERE kind = 'buy'")).await;
        reopen(&world, name, start).await;
        let claim = Claim {
            rollup: name,
            slice_start: slice.start(),
            definition: &rollup.definition(),
            now: clock.now(),
            deadline: clock.now() + chrono::TimeDelta::seconds(30),
        };
        let lease = &world.worker.checkpoints.claim(&claim).await.unwrap();
        let shape = &ready::check(&world.worker, rollup).await.unwrap();
        let (target, source) = (&world.worker.target, None);
        let job = SliceJob { rollup, shape, slice, open_until: None };
        let chunk = Chunk { source, lease, job };
        let options = StatementOptions {
            shrink: None,
            timeout: BUDGET,
            governor: None,
            nap: None,
            last: None,
            coarse: &[],
        };
        let middle = slice.start() + slice.duration() / 2;
        let start = StageProgress::at_start(slice);
        let half = target.stage_chunk(&chunk, start, middle, options).await.unwrap();
        target.stage_chunk(&chunk, half, slice.end(), options).await.unwrap();
        target.replace_from_stage(lease, job, options).await.unwrap();
        let found = verify::verify_slice(&world.worker, rollup, slice, BUDGET, 3).await.unwrap();
        assert_eq!(found.differences, 0, "{name}: {:?}", found.examples);
    }
}

/// All checkpoints are lost while an hour was newer than its day. Days and months run again.
#[tokio::test]
async fn after_a_repair_coarse_slices_run_again() {
    let (_, mut world) = february(false).await;
    world.sql(LATE).await;
    reopen(&world, "hourly", "2024-02-14T06:00:00Z").await;
    // Acts as a process that does not know of days.
    let hours = rollups("UTC", "2024-02-01");
    let alone = world.redefined(&hours[hours.rfind("[[rollup]]").unwrap()..]);
    assert!(run(&alone, "hourly", "2024-02-14T06:00:00Z").await.is_success());
    world.worker.checkpoints = checkpoints().await;
    world.worker.checkpoints.create_table().await.unwrap();
    for rollup in &world.worker.config.rollups {
        repair::run(&world.worker, rollup, false).await.unwrap();
    }
    tick(&world).await;
    is_february(&world).await;
}

/// A measure of the hours gets a condition. The ticks recompute hours, days and months, in this
/// order, and no slice twice.
#[tokio::test]
async fn a_changed_definition_of_hours_reaches_days_and_months() {
    let (_, world) = february(false).await;
    let edited = rollups("UTC", "2024-02-01").replace(
        "high = { max = \"amount\" }",
        "high = { max = \"amount\", where = \"kind = 'buy'\" }",
    );
    let world = world.redefined(&edited);
    let done = told(&tick(&world).await);
    let distinct: BTreeSet<_> = done.iter().collect();
    assert_eq!(distinct.len(), done.len(), "{done:?}");
    assert!(done.iter().all(|told| told.ends_with("succeeded")), "{done:?}");
    assert_eq!(done.last().unwrap(), "monthly@2024-02-01T00:00:00Z succeeded");
    assert!(tick(&world).await.is_empty());
    for (name, slices) in [("daily", 29), ("monthly", 1)] {
        let kinds = format!("SELECT DISTINCT kind FROM stats.{name} WHERE high IS NOT NULL");
        assert_eq!(records(&world.target, &kinds).await, ["(buy)"]);
        let again = done.iter().filter(|told| told.starts_with(name));
        assert_eq!(again.count(), slices);
    }
}

/// The months of a table whose hours are gone are kept and reported.
#[tokio::test]
async fn hours_that_were_deleted_do_not_erase_a_day() {
    let (_, world) = february(false).await;
    world.target_sql("DELETE FROM stats.hourly").await;
    reopen(&world, "daily", "2024-02-14").await;
    let report = run(&world, "daily", "2024-02-14").await;
    assert_eq!((report.outcome, report.retry_at), (Outcome::Failed, None));
    assert!(report.reason.unwrap().contains("the source now holds 0 rows"));
    is_february(&world).await;
}

/// Uses the commands, with a separate source. `total` comes before the rollup that it is computed
/// from.
#[tokio::test]
async fn a_coarse_rollup_needs_no_source_once_its_finer_one_is_done() {
    let (source, target) = (Database::create().await, Database::create().await);
    let total = |measures: &str| {
        format!(
            "[[rollup]]\nname = \"total\"\nfrom = {{ rollup = \"daily\" }}\nslice = \"1 day\"\n\
             measures = [{measures}]\n"
        )
    };
    let before = format!("{}{}", total(r#""events""#), daily(3));
    let (way, source_url) = Cutter::way(&source.url());
    let place = Place::new(&source_url, &target.url(), &before).await;
    place.seed(3).await;
    let printed = place.run(&["init", "--dry-run"]).good().out;
    execute(&place.target_url, &printed).await;
    assert!(place.run(&["init"]).good().out.contains("rollup tables: all there\n"));
    place.run(&["check"]).good();
    assert_eq!(place.json(&["run"])["slices"].as_array().unwrap().len(), 6);
    assert_eq!(place.json(&["verify"])["differences"], 0);

    // A further measure, for which neither table has a column yet.
    let after = total(r#""events", "dearest""#);
    place.configure(&format!("{after}{}dearest = {{ max = \"amount\" }}\n", daily(3)));
    assert!(place.run(&["init", "--dry-run"]).good().out.contains("\"dearest\""));
    place.run(&["init"]).good();
    for name in ["daily", "total"] {
        assert_eq!(place.json(&["backfill", name, "--yes"])["succeeded"], 3, "{name}");
    }
    assert_eq!(place.json(&["verify"])["differences"], 0);

    drop(way);
    let start = day(1).to_string();
    place.run(&["replay", "total", "--slice", &start, "--yes"]).good();
    let plan = place.json(&["plan", "total", "--from", &day(3).to_string(), "--force"]);
    assert_eq!(
        (&plan["rollups"][0]["slices"], &plan["rollups"][0]["blocked"]),
        (&3.into(), &0.into())
    );
    assert!(place.run(&["status", "total"]).good().out.contains("from stats.daily"));
}
