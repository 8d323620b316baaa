//! Trailing windows: each slice is computed from the finer slices of the last hours, days or months.

mod races;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tallymark::check::verify::{self, Compared};
use tallymark::checkpoint::Claim;
use tallymark::model::clock::{Deadline, ManualClock};
use tallymark::model::rollup::Rollup;
use tallymark::source::SliceJob;
use tallymark::target::{Chunk, StageProgress, StatementOptions};
use tallymark::tick;
use tallymark::work::due::Standing;
use tallymark::work::ready;
use tallymark::work::report::SliceReport;
use tallymark::work::slice_run::{self, RunOptions};
use tallymark::work::standings;

use crate::support::Database;
use crate::support::cli::{Place, daily, day, execute, lines};
use crate::support::world::{BUDGET, EVENTS, Keeper, Setup, World, clock, instant, records};

const ZONE: &str = "America/New_York";

/// Ticks until all work is done.
const TICKS_MAX: usize = 20;

const STORES: [(Keeper, bool); 2] = [(Keeper::DynamoDb, true), (Keeper::Target, false)];

/// Uniques by slices of this width in local time, and windows over them: name, slice, span and the
/// first slice.
fn rollups(start: &str, slice: &str, windows: &[(&str, &str, &str, &str)]) -> String {
    let windows = windows.iter().map(|(name, slice, trailing, start)| {
        format!(
            "[[rollup]]\nname = \"{name}\"\nfrom = {{ rollup = \"uniques\" }}\nslice = \"{slice}\"\n\
             trailing = \"{trailing}\"\nstart = \"{start}\"\ngroup_by = [\"kind\"]\n\
             measures = [\"users\", \"events\", \"price\"]\n"
        )
    });
    format!(
        "[[rollup]]\nname = \"uniques\"\nfrom = \"public.events\"\ntime = \"created_at\"\n\
         start = \"{start}\"\nslice = \"{slice}\"\ntimezone = \"{ZONE}\"\ngroup_by = [\"kind\"]\n\
         shrink_guard = 0.0\n[rollup.measures]\n\
         users = {{ distinct = \"user_id\", merge = \"exact\" }}\nevents = \"count\"\n\
         price = {{ avg = \"amount\" }}\n{}",
        windows.collect::<String>()
    )
}

/// A row in every 41 minutes, also before `from`.
fn events(from: &str, rows: u32) -> String {
    format!(
        "{EVENTS}; INSERT INTO events (created_at, kind, user_id, amount) \
         SELECT '{from}Z'::timestamptz + n * interval '41 minutes', 'k' || n % 2, \
                (n * 7919) % 37, n % 10 FROM generate_series(-50, {rows}) n"
    )
}

async fn world_of(now: &str, keeper: Keeper, across: bool, sql: &str, rollups: &str) -> World {
    let clock: Arc<ManualClock> = Arc::new(clock(now));
    World::new(sql, Setup { rollups, across, keeper, clock, ..Setup::default() }).await
}

/// Windows of three days, two days and the last ten days of a month, over quarter days with the
/// change of clocks on 2 November.
const SHAPES: [(&str, &str, &str, &str); 3] = [
    ("by_day", "1 day", "3 days", "2025-10-23"),
    ("by_quarter", "6 hours", "2 days", "2025-10-23"),
    ("by_month", "1 month", "10 days", "2025-10-01"),
];

async fn autumn(keeper: Keeper, across: bool) -> World {
    let rollups = rollups("2025-10-01", "6 hours", &SHAPES);
    world_of("2025-11-04T00:00:00Z", keeper, across, &events("2025-10-24", 400), &rollups).await
}

/// Ticks until all work is done, and returns the slices that were worked on.
async fn work_off(world: &World) -> Vec<SliceReport> {
    let clock = &*world.worker.clock;
    let mut done = Vec::new();
    for _ in 0..TICKS_MAX {
        let deadline = Deadline::after(clock, BUDGET);
        let report = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        if report.slices.is_empty() && report.left == 0 {
            return done;
        }
        done.extend(report.slices);
    }
    panic!("work is left after {TICKS_MAX} ticks");
}

/// How many slices of a rollup were worked on, each once.
fn count(done: &[SliceReport], name: &str) -> usize {
    let starts: Vec<_> = done.iter().filter(|it| it.rollup == name).map(|it| it.start).collect();
    let distinct: BTreeSet<_> = starts.iter().collect();
    assert_eq!(distinct.len(), starts.len(), "{name}");
    starts.len()
}

fn named<'w>(world: &'w World, name: &str) -> &'w Rollup {
    world.worker.rollup(name).unwrap()
}

/// Every window that has ended equals one `GROUP BY` over the rows of its time, from the start of
/// history on. The width of a slice is elapsed time for hours, and local dates otherwise.
async fn is_exact(world: &World, (name, slice, trailing, start): (&str, &str, &str, &str)) {
    let now = world.worker.clock.now().to_rfc3339();
    let history = named(world, "uniques").start.to_rfc3339();
    let local = |time: &str| format!("(({time}) AT TIME ZONE '{ZONE}')");
    let next = match slice.ends_with("hour") {
        true => format!("begins + interval '{slice}'"),
        false => local(&format!("begins AT TIME ZONE '{ZONE}' + interval '{slice}'")),
    };
    let begins = match slice.ends_with("hour") {
        true => format!(
            "generate_series({}, '{now}', interval '{slice}')",
            local(&format!("'{start}'::timestamp"))
        ),
        false => format!(
            "(SELECT {} FROM generate_series('{start}'::timestamp, '{now}'::timestamp, interval '{slice}') day)",
            local("day")
        ),
    };
    let wanted = format!(
        "SELECT begins, kind, count(DISTINCT user_id), count(*), \
         (sum(amount) / count(amount))::numeric(20, 8) \
         FROM {begins} windows(begins), LATERAL (SELECT {next}) ended(ends) \
         JOIN events ON created_at >= '{history}' AND created_at < ends \
         AND created_at >= {back} WHERE ends <= '{now}' GROUP BY 1, 2",
        back = local(&format!("ends AT TIME ZONE '{ZONE}' - interval '{trailing}'")),
    );
    let found =
        format!("SELECT bucket, kind, users, events, price::numeric(20, 8) FROM stats.{name}");
    let found = records(&world.target, &found).await;
    let wanted = records(&world.pool, &wanted).await;
    assert!(!wanted.is_empty(), "{name}");
    let missing: Vec<_> = wanted.iter().filter(|row| !found.contains(row)).collect();
    let extra: Vec<_> = found.iter().filter(|row| !wanted.contains(row)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{name} misses {missing:?}, has {extra:?}");
}

async fn all_exact(world: &World) {
    for shape in SHAPES {
        is_exact(world, shape).await;
    }
}

/// 28 days with the change of clocks on 9 March.
#[tokio::test]
async fn trailing_actives_by_day_hour_and_month_equal_one_group_by() {
    let shapes = [
        ("by_day", "1 day", "28 days", "2025-02-01"),
        ("by_hour", "1 hour", "28 days", "2025-03-08"),
        ("by_month", "1 month", "28 days", "2025-02-01"),
    ];
    let rollups = rollups("2025-02-01", "1 hour", &shapes);
    let sql = events("2025-02-01", 1_300);
    let world = world_of("2025-03-10T12:30:00Z", Keeper::Target, false, &sql, &rollups).await;
    world.backfill("2025-03-10T12:30:00Z", false).await;
    work_off(&world).await;
    for shape in shapes {
        is_exact(&world, shape).await;
    }
    world
        .sql(
            "INSERT INTO events (created_at, kind, user_id) \
             VALUES ('2025-02-28T05:30Z', 'k1', 1000); \
             DELETE FROM events WHERE created_at >= '2025-02-28T05:00Z' \
             AND created_at < '2025-02-28T06:00Z' AND kind = 'k0'",
        )
        .await;
    world.reopen("2025-02-28T05:00:00Z").await;
    let done = work_off(&world).await;
    // From 28 February to 9 March, the 35 hours from 8 March on, and February.
    let counts = ["uniques", "by_day", "by_hour", "by_month"].map(|name| count(&done, name));
    assert_eq!(counts, [1, 10, 55, 1]);
    for shape in shapes {
        is_exact(&world, shape).await;
    }
}

/// How far a reader is told that each rollup is, and how many of its slices are stale.
async fn told(world: &World) -> [Vec<String>; 2] {
    const ROLLUPS: &str = "SELECT concat_ws(' ', rollup, complete_through, stale, failing) AS x \
        FROM tallymark.coverage";
    const STALE: &str = "SELECT concat_ws(' ', rollup, count(*)) AS x FROM tallymark.slice_state \
        WHERE state = 'stale' GROUP BY rollup";
    let lines = async |sql: &str| {
        let found = records(&world.target, sql).await;
        found.iter().map(|it| it.trim_matches(&['(', ')', '"'][..]).to_owned()).collect()
    };
    [lines(ROLLUPS).await, lines(STALE).await]
}

/// A row that is late or deleted corrects every window that holds it, and no other one runs.
#[tokio::test]
async fn a_late_row_and_a_delete_correct_every_window_that_holds_them() {
    for (keeper, across) in STORES {
        let world = autumn(keeper, across).await;
        work_off(&world).await;
        all_exact(&world).await;
        assert!(work_off(&world).await.is_empty());
        world
            .sql(
                "DELETE FROM events WHERE created_at >= '2025-10-25T04:00Z' \
                 AND created_at < '2025-10-25T10:00Z' AND kind = 'k1'; \
                 INSERT INTO events (created_at, kind, user_id) \
                 VALUES ('2025-10-25T05:00Z', 'late', 1000)",
            )
            .await;
        world.reopen("2025-10-25T04:00:00Z").await;
        let [complete, by_slices] = told(&world).await;
        assert!(complete.iter().all(|rollup| rollup.ends_with(" 0 0")), "{complete:?}");
        assert_eq!(by_slices, [""; 0], "{keeper:?}");
        assert!(world.run("2025-10-25T04:00:00Z").await.is_success());
        let (stale, whole) = (["by_day 3", "by_month 1", "by_quarter 8"], complete);
        assert_eq!(told(&world).await[1], stale, "before a tick");
        let done = work_off(&world).await;
        let counts = ["uniques", "by_day", "by_quarter", "by_month"].map(|name| count(&done, name));
        assert_eq!(counts, [0, 3, 8, 1], "{keeper:?}");
        all_exact(&world).await;
        assert_eq!(told(&world).await, [whole, Vec::new()]);
        let again = world.replay("2025-10-25T04:00:00Z").await;
        assert!(again.is_success());
        work_off(&world).await;
        all_exact(&world).await;
    }
}

/// Months of three months and of a year, over months.
#[tokio::test]
async fn windows_over_months_follow_the_calendar() {
    let shapes = [
        ("quarterly", "1 month", "3 months", "2024-01-01"),
        ("yearly", "1 quarter", "1 year", "2024-01-01"),
    ];
    let rollups = rollups("2024-01-01", "1 month", &shapes);
    let sql = events("2024-01-01", 23_000);
    let world = world_of("2025-10-02T00:00:00Z", Keeper::Target, false, &sql, &rollups).await;
    work_off(&world).await;
    is_exact(&world, shapes[0]).await;
    let (name, _, trailing, start) = shapes[1];
    is_exact(&world, (name, "3 months", trailing, start)).await;
    let replay = world.replay("2024-05-01T04:00:00Z").await;
    assert!(replay.is_success());
    let done = work_off(&world).await;
    assert_eq!((count(&done, "quarterly"), count(&done, "yearly")), (3, 4));
}

/// Finer slices that complete at once reopen the same windows.
#[tokio::test]
async fn concurrent_finer_slices_reopen_the_windows_that_they_share() {
    for (keeper, across) in STORES {
        let world = autumn(keeper, across).await;
        work_off(&world).await;
        world.sql("UPDATE events SET user_id = user_id + 1000 WHERE user_id % 2 = 0").await;
        let report = world.backfill("2025-11-04T00:00:00Z", true).await;
        assert!(report.failed.is_empty() && report.left == 0, "{keeper:?}: {report:?}");
        work_off(&world).await;
        all_exact(&world).await;
    }
}

/// `verify` finds what is wrong in a window by the finer rows of all its time, and a replay of the
/// window corrects it.
#[tokio::test]
async fn verify_compares_a_window_with_all_of_its_time() {
    let world = autumn(Keeper::Target, false).await;
    work_off(&world).await;
    for (name, ..) in SHAPES {
        let rollup = named(&world, name);
        let newest = rollup.newest(world.worker.clock.now()).unwrap();
        let compare =
            async || verify::compare(&world.worker, rollup, newest, BUDGET, 3).await.unwrap();
        assert_eq!(compare().await, Compared::Same);
        let bucket = newest.start().to_rfc3339();
        let spoiled =
            format!("UPDATE stats.{name} SET events = 1 WHERE bucket = '{bucket}' AND kind = 'k0'");
        world.target_sql(&spoiled).await;
        assert!(matches!(compare().await, Compared::Drift(_, found) if found.differences == 1));
        let now = world.worker.clock.now();
        world.worker.checkpoints.reopen(name, newest.start(), "test", now).await.unwrap();
        work_off(&world).await;
        assert_eq!(compare().await, Compared::Same);
    }
}

const OPTIONS: StatementOptions<'static> = StatementOptions {
    shrink: None,
    timeout: Duration::ZERO,
    governor: None,
    nap: None,
    last: None,
    coarse: &[],
};

/// Like a window that is larger than its budget. The cut is before the slice that it ends with.
#[tokio::test]
async fn a_window_that_is_read_in_chunks_is_the_same() {
    let world = autumn(Keeper::Target, false).await;
    work_off(&world).await;
    for (name, ..) in SHAPES {
        let rollup = named(&world, name);
        let (now, deadline) = (world.worker.clock.now(), world.worker.clock.now() + BUDGET);
        let slice = rollup.newest(now).unwrap();
        world.worker.checkpoints.reopen(name, slice.start(), "test", now).await.unwrap();
        let definition = rollup.definition();
        let (slice_start, definition) = (slice.start(), &*definition);
        let claim = Claim { rollup: name, slice_start, definition, now, deadline };
        let lease = &world.worker.checkpoints.claim(&claim).await.unwrap();
        let shape = &ready::check(&world.worker, rollup).await.unwrap();
        let job = SliceJob { rollup, shape, slice, open_until: None };
        let chunk = Chunk { source: None, lease, job };
        let options = StatementOptions { timeout: BUDGET, ..OPTIONS };
        let (first, last) = rollup.window(slice);
        let (target, start) = (&world.worker.target, StageProgress::at(first));
        let middle = named(&world, "uniques").calendar.containing(first + (last - first) / 2);
        let half = target.stage_chunk(&chunk, start, middle.start(), options).await.unwrap();
        target.stage_chunk(&chunk, half, last, options).await.unwrap();
        let replaced = target.replace_from_stage(lease, job, options).await.unwrap();
        assert!(replaced.groups > 0, "{name}: {replaced:?}");
        assert_eq!((replaced.inserted, replaced.updated, replaced.deleted), (0, 0, 0), "{name}");
    }
}

/// A finer slice changes while a window is read in chunks, after the chunk that holds it.
#[tokio::test]
async fn a_window_that_missed_a_change_while_it_was_read_is_stale() {
    let world = autumn(Keeper::Target, false).await;
    work_off(&world).await;
    assert_eq!(told(&world).await[1], [""; 0]);
    let rollup = named(&world, "by_day");
    let (now, deadline) = (world.worker.clock.now(), world.worker.clock.now() + BUDGET);
    let slice = rollup.newest(now).unwrap();
    world.worker.checkpoints.reopen("by_day", slice.start(), "test", now).await.unwrap();
    let definition = rollup.definition();
    let (slice_start, definition) = (slice.start(), &*definition);
    let claim = Claim { rollup: "by_day", slice_start, definition, now, deadline };
    let lease = &world.worker.checkpoints.claim(&claim).await.unwrap();
    let shape = &ready::check(&world.worker, rollup).await.unwrap();
    let job = SliceJob { rollup, shape, slice, open_until: None };
    let chunk = Chunk { source: None, lease, job };
    let options = StatementOptions { timeout: BUDGET, ..OPTIONS };
    let (first, last) = rollup.window(slice);
    let target = &world.worker.target;
    let begin = target.resume(lease, job, options).await.unwrap();
    let oldest = named(&world, "uniques").calendar.containing(first);
    let one = target.stage_chunk(&chunk, begin, oldest.end(), options).await.unwrap();
    let late = format!("INSERT INTO events (created_at, kind) VALUES ('{first}', 'late')");
    world.sql(&late).await;
    let start = oldest.start().to_rfc3339();
    world.reopen(&start).await;
    assert!(world.run(&start).await.is_success());
    target.stage_chunk(&chunk, one, last, options).await.unwrap();
    target.replace_from_stage(lease, job, options).await.unwrap();
    let stale = told(&world).await[1].clone();
    assert!(stale.contains(&"by_day 3".to_owned()), "all that hold it: {stale:?}");
}

/// A window waits for its oldest finer slice too.
#[tokio::test]
async fn a_window_waits_for_every_finer_slice_in_it() {
    let shape = ("by_quarter", "6 hours", "1 day", "2025-11-01");
    let rollups = rollups("2025-11-01", "6 hours", &[shape]);
    let sql = events("2025-11-01", 60);
    let world = world_of("2025-11-03T00:00:00Z", Keeper::Target, false, &sql, &rollups).await;
    work_off(&world).await;
    world.reopen("2025-11-01T22:00:00Z").await;
    let windows = named(&world, "by_quarter");
    let window = windows.calendar.starting(instant("2025-11-02T17:00:00Z")).unwrap();
    let now = world.worker.clock.now();
    world.worker.checkpoints.reopen("by_quarter", window.start(), "test", now).await.unwrap();
    let plan = standings::of(&world.worker, windows, now).await.unwrap().plan;
    assert_eq!(plan.slices.last().unwrap().standing, Standing::Blocked);
    let deadline = Deadline::after(&*world.worker.clock, BUDGET);
    let options = RunOptions::default();
    let run = slice_run::run_slice(&world.worker, windows, window, deadline, options);
    assert_eq!(
        run.await.unwrap().reason.unwrap(),
        "waits for uniques@2025-11-01T22:00:00Z, which is stale"
    );
}

/// Windows of two days over three days of 240 events.
#[tokio::test]
async fn every_command_reads_a_window_as_a_whole() {
    let database = Database::create().await;
    let windows = "[[rollup]]\nname = \"two_days\"\nfrom = { rollup = \"daily\" }\nslice = \"1 day\"\n\
                   trailing = \"2 days\"\nmeasures = [\"events\"]\n";
    let rollups = format!("{}{windows}", daily(3));
    let place = Place::new(&database.url(), &database.url(), &rollups).await;
    place.seed(3).await;
    place.run(&["init"]).good();
    let checked = place.run(&["check"]).good().out;
    assert!(checked.contains("computed from the last 2 days of `daily`"), "{checked}");
    assert_eq!(place.json(&["run"])["slices"].as_array().unwrap().len(), 6);
    // A day is part of two windows, whose price belongs to that of the day.
    let (from, to) = (day(3).to_string(), day(2).to_string());
    let one_day = ["plan", "daily", "--from", &from, "--to", &to, "--force"];
    let estimate = place.json(&one_day)["rollups"][0]["estimate"].clone();
    let coarse = &estimate["coarse"][0];
    assert_eq!(
        (&coarse["rollup"], &coarse["slices"], &coarse["learned"]),
        (&"two_days".into(), &2.into(), &true.into()),
        "{estimate}"
    );
    assert!(
        place.run(&one_day).good().out.contains("afterwards ticks compute 2 slices of two_days")
    );
    let alone = place.json(&["plan", "two_days", "--from", &from, "--to", &to, "--force"]);
    let alone = &alone["rollups"][0]["estimate"];
    assert_eq!(alone.get("coarse"), None);
    // Four writes a slice: a day and two windows, and one window.
    let priced = |estimate: &serde_json::Value| estimate["dollars"]["dynamodb"].as_f64().unwrap();
    assert!((priced(&estimate) - 3.0 * priced(alone)).abs() < 1e-9, "{estimate} {alone}");
    let preview = place.json(&["preview", "two_days"]);
    assert_eq!((&preview["rows_read"], &preview["groups"]), (&6.into(), &1.into()));
    assert_eq!(preview["listed"][0]["events"], 480);
    let events = "SELECT events FROM stats.two_days ORDER BY bucket";
    assert_eq!(lines(&place.target_url, events).await, ["(240)", "(480)", "(480)"]);
    // A window alone, and then the days, of which each is part of two windows.
    execute(&place.target_url, "UPDATE stats.two_days SET events = 1").await;
    let start = day(1).to_string();
    place.run(&["replay", "two_days", "--slice", &start, "--yes"]).good();
    let verified = place.run(&["verify", "two_days", "--json"]).json();
    assert_eq!((&verified["slices"], &verified["differences"]), (&3.into(), &2.into()));
    place.sql("INSERT INTO events (at) SELECT at + interval '1 second' FROM events").await;
    assert_eq!(place.json(&["backfill", "daily", "--force", "--yes"])["succeeded"], 3);
    let plan = place.json(&["plan", "two_days"]);
    assert_eq!(plan["rollups"][0]["standings"]["stale"], 3, "{plan}");
    assert_eq!(place.json(&["run"])["slices"].as_array().unwrap().len(), 3);
    assert_eq!(lines(&place.target_url, events).await, ["(480)", "(960)", "(960)"]);
    assert_eq!(place.json(&["verify"])["differences"], 0);
    execute(&place.target_url, "DELETE FROM tallymark.slice WHERE rollup = 'two_days'").await;
    let repaired = place.json(&["repair"]);
    assert_eq!(repaired["rollups"][1]["reopened"].as_array().unwrap().len(), 3, "{repaired}");
}
