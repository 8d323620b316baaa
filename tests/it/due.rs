//! Due slices are found by the checkpoints alone, in any state.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::support::world::{
    BUDGET, DAILY, EVENTS, PAST_LEASE, Setup, Urls, World, batch, clock, config, dynamo, instant,
    random_events,
};
use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};
use sqlx::{Connection as _, PgConnection};
use tallymark::checkpoint::{Claim, State, Watermark, Yield};
use tallymark::model::clock::{Clock, Deadline, ManualClock};
use tallymark::model::hint::Hinted as _;
use tallymark::model::slice::Order;
use tallymark::source::reading::first_row::SourceStart;
use tallymark::tick;
use tallymark::work::backfill::{self, Silent};
use tallymark::work::due::{Standing, View};
use tallymark::work::empty;
use tallymark::work::identity;
use tallymark::work::report::{Outcome, SliceReport};
use tallymark::work::slice_run;
use tallymark::work::standings;
use tallymark::work::worker::{WorkError, Worker};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A second, daily rollup of the same source.
const SECOND: &str = r#"
[[rollup]]
name = "second"
from = "public.events"
time = "created_at"
start = "2026-01-01"
slice = "1 day"
measures = { events = "count" }
"#;

async fn world_at(clock: &ManualClock, sql: &str, rollups: &str) -> World {
    let clock = Arc::new(clock.clone());
    let setup = Setup { rollups, clock, ..Setup::default() };
    World::new(&format!("{EVENTS}; {sql}"), setup).await
}

/// One tick. Returns the slices that it worked on.
async fn tick(world: &World) -> Vec<SliceReport> {
    let clock = &*world.worker.clock;
    let deadline = Deadline::after(clock, BUDGET);
    let report = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.left, 0);
    report.slices
}

fn starts(slices: &[SliceReport]) -> Vec<DateTime<Utc>> {
    slices.iter().map(|slice| slice.start).collect()
}

/// The item of one slice after an edit by hand.
async fn spoil(world: &World, rollup: &str, start: &str) {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    let items = [("pk", rollup), ("sk", start), ("state", "done")];
    let put = dynamo().await.client().put_item().table_name(world.worker.checkpoints.table());
    let put = items.iter().fold(put, |put, (name, value)| put.item(*name, text(value)));
    put.send().await.unwrap();
}

/// One of two rollups has an unreadable checkpoint. It is reported, and the other one is worked on.
#[tokio::test]
async fn a_rollup_with_a_broken_checkpoint_does_not_stop_the_others() {
    let clock = clock("2026-01-04T12:00:00Z");
    let world = world_at(&clock, &random_events(3, 50), &format!("{DAILY}{SECOND}")).await;
    spoil(&world, "daily", "2026-01-02T00:00:00Z").await;
    let deadline = Deadline::after(&clock, BUDGET);
    let report = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
    let [problem] = &report.problems[..] else { panic!("{report:?}") };
    assert_eq!(problem.rollup, "daily");
    assert!(problem.error.contains("daily@2026-01-02T00:00:00Z"), "{}", problem.error);
    assert!(report.slices.iter().all(|slice| slice.rollup == "second" && slice.is_success()));
    assert_eq!(report.slices.len(), 3);
}

/// Four concurrent slices, the first of which fails for a general reason. The three in work still
/// succeed, no further one is started, and no lease is left behind.
#[tokio::test]
async fn trouble_in_a_batch_lets_the_slices_in_flight_end() {
    let clock = clock("2026-01-31T12:00:00Z");
    let world = world_at(&clock, &random_events(30, 50), DAILY).await;
    let (rollup, to) = (world.rollup(), clock.now());
    let order = Order::OldestFirst;
    let plan = backfill::plan(&world.worker, rollup, rollup.start, to, order, false).await.unwrap();
    spoil(&world, "daily", "2026-01-01T00:00:00Z").await;
    let result = backfill::run(&world.worker, rollup, &plan, batch(), &Silent).await;
    let interrupted = result.unwrap_err();
    assert!(interrupted.error.to_string().contains("`state` holds \"done\""), "{interrupted}");
    let report = interrupted.report;
    assert!((3..30).contains(&report.succeeded), "{report:?}");
    assert_eq!(report.succeeded + report.left, plan.slices.len());
    let from = instant("2026-01-02");
    let found = world.worker.checkpoints.range("daily", from, to).await.unwrap();
    assert!(found.iter().all(|checkpoint| checkpoint.state == State::Succeeded), "{found:?}");
    assert_eq!(found.len(), report.succeeded);
}

/// It runs again when the slices 1, 3 and 7 places later are ready, and no more. One run makes up
/// for those missed during an outage.
#[tokio::test]
async fn a_slice_runs_again_on_a_decaying_schedule() {
    let rollups = DAILY.replace("bucket =", "lookback = [1, 3, 7]\nbucket =");
    let clock = clock("2026-01-02T12:00:00Z");
    let world = world_at(&clock, &random_events(20, 20), &rollups).await;
    let first = instant("2026-01-01");
    let mut days = Vec::new();
    for day in 1..=10 {
        if starts(&tick(&world).await).contains(&first) {
            days.push(day);
        }
        clock.advance(DAY);
    }
    assert_eq!(days, [1, 2, 4, 8]);

    let missed = world_at(&clock, &random_events(30, 20), &rollups).await;
    assert!(starts(&tick(&missed).await).contains(&first));
    clock.advance(DAY * 9);
    // Readable by now are the slices of the 12th to the 20th.
    let again = starts(&tick(&missed).await);
    assert_eq!(again.iter().min(), Some(&instant("2026-01-05")), "7 before the 12th");
    assert_eq!(again.len(), 16);
    assert!(tick(&missed).await.is_empty(), "one run makes up for all that was missed");
}

/// Asks until no transaction of another test prevents the answer.
async fn probed(world: &World) -> Watermark {
    /// Other tests hold transactions open for some seconds.
    const ASKED_MAX: usize = 300;
    for _ in 0..ASKED_MAX {
        let seen = empty::probe(&world.worker, world.rollup()).await.unwrap();
        if seen.source_start().is_some() {
            return seen;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the source was never settled");
}

/// Deletes one item of the first rollup.
async fn forget(world: &World, sk: &str) {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    let delete = dynamo().await.client().delete_item();
    let delete = delete.table_name(world.worker.checkpoints.table());
    delete.key("pk", text("daily")).key("sk", text(sk)).send().await.unwrap();
}

/// Sixty succeeded slices meet every kind of accident. A worker that cannot reach the source finds
/// exactly the unfinished ones, and a tick completes them.
#[tokio::test]
async fn every_slice_without_success_is_found_without_asking_the_source() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let clock = clock("2026-03-02T12:00:00Z");
    let world = world_at(&clock, &random_events(60, 20), DAILY).await;
    assert_eq!(world.backfill("2026-03-02", false).await.succeeded, 60);
    let seen = world.worker.checkpoints.watermark("daily").await.unwrap();
    let mut known = seen.bond().cloned().unwrap();
    // A loss of checkpoints includes the watermark, behind which no slice is looked for.
    forget(&world, "watermark").await;
    let (rollup, checkpoints) = (world.rollup(), &world.worker.checkpoints);
    let mut expected = BTreeSet::new();
    for slice in rollup.calendar.slices(rollup.start, instant("2026-03-02")) {
        let accident = random.u8(0..8);
        match accident {
            0 => forget(&world, &slice.to_string()).await,
            1..=4 => world.reopen(&slice.to_string()).await,
            _ => continue,
        }
        expected.insert(slice.start());
        if accident < 2 {
            continue;
        }
        let now = clock.now();
        let claim = Claim {
            rollup: "daily",
            slice_start: slice.start(),
            definition: &rollup.definition(),
            now,
            deadline: now + chrono::TimeDelta::minutes(1),
        };
        let lease = checkpoints.claim(&claim).await.unwrap();
        match accident {
            2 => drop(checkpoints.fail(&lease, "disk full", true, now).await.unwrap()),
            3 => drop(checkpoints.yield_(&lease, &Yield::default(), now).await.unwrap()),
            // Its worker died.
            _ => {}
        }
    }
    clock.advance(DAY / 12);
    let urls = Urls { source: "postgres://nobody@127.0.0.1:1/nothing".into(), target: None };
    let blind = config(&urls, "", DAILY);
    let blind =
        Worker::with_checkpoints(blind, checkpoints.clone(), Arc::new(clock.clone()), 1).unwrap();
    // Its address is one of the installation's, so that it is known without a connection.
    known.places.push(identity::place(&blind).await.unwrap());
    let bond = checkpoints.watermark("daily").await.unwrap().bond().cloned();
    checkpoints.bind("daily", bond.as_ref(), &known).await.unwrap();
    let plan = standings::of(&blind, &blind.config.rollups[0], clock.now()).await.unwrap().plan;
    let found: BTreeSet<_> = plan.due().map(|planned| planned.slice.start()).collect();
    assert_eq!(found, expected);
    let done = tick(&world).await;
    assert_eq!(starts(&done).into_iter().collect::<BTreeSet<_>>(), expected);
    // A claim that starts at 1 again is fenced by the marker of the same number, until its next
    // attempt.
    let lost = |slice: &SliceReport| slice.outcome == Outcome::Fenced && slice.attempt == Some(1);
    assert!(done.iter().all(|slice| slice.is_success() || lost(slice)), "{done:?}");
    clock.advance(DAY / 24);
    let again = tick(&world).await;
    assert!(again.iter().all(SliceReport::is_success), "{again:?}");
    world.verify_all("2026-03-02").await;
}

/// A source with change times, and a slice a day.
async fn stamped(clock: &ManualClock, sql: &str) -> World {
    let rollups = DAILY.replace("bucket =", "late = { column = \"updated_at\" }\nbucket =");
    let stamp = "ALTER TABLE events ADD updated_at timestamptz NOT NULL DEFAULT now() - interval '1 day'; \
                 CREATE INDEX ON events (updated_at)";
    world_at(clock, &format!("{stamp}; {sql}"), &rollups).await
}

/// A row of this day, written after everything read before, as if the grace had passed since.
async fn change(world: &World, day: &str) {
    let grace = world.rollup().grace.as_secs();
    let sql = format!(
        "INSERT INTO events (created_at, kind, updated_at) \
         VALUES ('{day}T09:00Z', 'late', clock_timestamp() - interval '{grace} seconds')"
    );
    world.sql(&sql).await;
}

/// Change times count from before the first slice is read, and not only from the first tick on.
#[tokio::test]
async fn a_change_between_the_first_run_and_the_first_tick_is_noticed() {
    let clock = clock("2026-01-04T12:00:00Z");
    let world = stamped(&clock, &random_events(3, 20)).await;
    assert!(world.run("2026-01-02").await.is_success());
    change(&world, "2026-01-02").await;
    let mut worked = starts(&tick(&world).await);
    worked.sort_unstable();
    assert_eq!(worked, ["2026-01-01", "2026-01-02", "2026-01-03"].map(instant));
    world.verify_all("2026-01-04").await;
}

/// The start of a prepared transaction is unknown, and so are the changes that may still appear.
#[tokio::test]
async fn while_a_transaction_is_prepared_no_first_slice_is_read_and_nothing_is_taken_for_empty() {
    let clock = clock("2026-02-13T12:00:00Z");
    let world = stamped(&clock, LATE_BEGIN).await;
    world.sql("BEGIN; CREATE TABLE more (); PREPARE TRANSACTION 'b'").await;
    assert_eq!(empty::probe(&world.worker, world.rollup()).await.unwrap().source_start(), None);
    let error = world.try_run("2026-02-10").await.unwrap_err();
    assert!(matches!(error, WorkError::NotNow(_)), "{error:?}");
    assert!(error.hint().unwrap().contains("SELECT * FROM pg_prepared_xacts"), "{error}");
    world.sql("ROLLBACK PREPARED 'b'").await;
    assert!(probed(&world).await.source_start().is_some());
    assert!(world.run("2026-02-10").await.is_success());
}

/// ... and from before a slice counts as empty.
#[tokio::test]
async fn a_change_between_the_first_probe_and_the_first_tick_is_noticed() {
    let clock = clock("2026-02-13T12:00:00Z");
    let world = stamped(&clock, LATE_BEGIN).await;
    let first_row = probed(&world).await.source_start().unwrap().first_row;
    assert_eq!(first_row, Some(instant("2026-02-10")));
    change(&world, "2026-01-20").await;
    assert!(starts(&tick(&world).await).contains(&instant("2026-01-20")));
    world.verify_all("2026-02-13").await;
}

/// Three days of rows after forty empty ones.
const LATE_BEGIN: &str = "INSERT INTO events (created_at, kind) \
    SELECT '2026-02-10T00:00Z'::timestamptz + n * interval '6 hours', 'view' \
    FROM generate_series(0, 11) n";

/// There is no item and no claim, and yet the watermark passes them. A row added before the first
/// one is found by the next probe of the source, and then by the tick.
#[tokio::test]
async fn empty_stretches_before_the_first_row_cost_nothing() {
    let clock = clock("2026-02-13T12:00:00Z");
    let world = world_at(&clock, LATE_BEGIN, DAILY).await;
    let begin = probed(&world).await.source_start().unwrap();
    assert_eq!(begin.first_row, Some(instant("2026-02-10")));
    assert_eq!(
        starts(&tick(&world).await),
        ["2026-02-12", "2026-02-11", "2026-02-10"].map(instant)
    );
    let (rollup, now) = (world.rollup(), clock.now());
    let items = world.worker.checkpoints.range("daily", rollup.start, now).await.unwrap();
    assert_eq!(items.len(), 3);
    let standings = standings::of(&world.worker, rollup, now).await.unwrap();
    assert_eq!(standings.plan.watermark, instant("2026-02-13"));
    assert!(tick(&world).await.is_empty());
    let all = standings::in_range(&world.worker, rollup, rollup.start, now, now).await.unwrap();
    let empty = all.slices.iter().filter(|planned| planned.standing == Standing::Empty);
    assert_eq!(empty.count(), 40);

    world.sql("INSERT INTO events (created_at, kind) VALUES ('2026-01-20T09:00Z', 'buy')").await;
    assert!(tick(&world).await.is_empty(), "a late row, like any other");
    // A transaction of another test may prevent one answer.
    let mut known = begin;
    while known.first_row != Some(instant("2026-01-20T09:00:00Z")) {
        known = probed(&world).await.source_start().unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let again = starts(&tick(&world).await);
    assert_eq!(again.last(), Some(&instant("2026-01-20")));
    assert_eq!(again.len(), 21, "from there on until the first that was known");
    world.verify_all("2026-02-13").await;
}

/// A tick finishes what somebody began before the first row.
#[tokio::test]
async fn a_named_slice_before_the_first_row_that_yields_is_run_by_the_next_tick() {
    let clock = clock("2026-02-13T12:00:00Z");
    let world = world_at(&clock, LATE_BEGIN, DAILY).await;
    assert_eq!(starts(&tick(&world).await).len(), 3);
    // It moves the watermark, past all of January.
    assert!(tick(&world).await.is_empty());
    let (worker, rollup) = (&world.worker, world.rollup());
    let slice = world.slice("2026-01-05");
    let mut holder = PgConnection::connect(&world.urls.source).await.unwrap();
    for sql in ["BEGIN", "LOCK TABLE events"] {
        sqlx::query(sql).execute(&mut holder).await.unwrap();
    }
    let run = async || {
        let deadline = Deadline::after(&*worker.clock, BUDGET);
        slice_run::run_named(worker, rollup, slice, deadline).await.unwrap().outcome
    };
    assert_eq!(run().await, Outcome::Yielded);
    holder.close().await.unwrap();
    clock.advance(PAST_LEASE);
    assert_eq!(starts(&tick(&world).await), [slice.start()]);
    assert_eq!(world.checkpoint("2026-01-05").await.unwrap().state, State::Succeeded);
    assert_eq!(run().await, Outcome::AlreadySucceeded);
    assert!(tick(&world).await.is_empty());
    let standings = standings::of(worker, rollup, clock.now()).await.unwrap();
    assert_eq!(standings.plan.watermark, instant("2026-02-13"));
}

/// Everything is empty until a row appears. Then the next slice that ends makes the tick probe
/// again, and it finds history that was loaded meanwhile.
#[tokio::test]
async fn the_first_rows_of_an_empty_source_are_found() {
    let clock = clock("2026-01-10T12:00:00Z");
    let world = world_at(&clock, "SELECT", DAILY).await;
    assert_eq!(probed(&world).await.source_start().unwrap().first_row, None);
    assert!(tick(&world).await.is_empty());
    world.sql("INSERT INTO events (created_at, kind) VALUES ('2026-01-05T09:00Z', 'buy')").await;
    assert!(tick(&world).await.is_empty(), "no further slice has ended");
    clock.advance(DAY);
    let mut found = BTreeSet::new();
    for _ in 0..300 {
        found.extend(starts(&tick(&world).await));
        if found.contains(&instant("2026-01-05")) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(found.len(), 6, "{found:?}");
    world.verify_all("2026-01-11").await;
}

/// A slice that was still open, or in its grace, when the source was probed does not count as
/// empty.
#[test]
fn only_what_was_over_when_the_source_was_asked_is_empty() {
    let config = config(&Urls { source: "postgres://a@b/c".into(), target: None }, "", DAILY);
    let rollup = &config.rollups[0];
    let judge = |probed_at: &str, first_row: Option<&str>| {
        let begin =
            SourceStart { first_row: first_row.map(instant), probed_at: instant(probed_at) };
        let view = View {
            adopted: None,
            rollup,
            now: instant("2026-02-01"),
            failures_max: 5,
            source_start: Some(begin),
            definition: rollup.definition(),
            finer_done: None,
            moved_from: None,
            seal: None,
        };
        view.judge(None, rollup.calendar.containing(instant("2026-01-10")))
    };
    assert_eq!(judge("2026-01-11T00:01:59Z", None), Standing::Missing, "its grace is not over");
    assert_eq!(judge("2026-01-11T00:02:00Z", None), Standing::Empty);
    assert_eq!(judge("2026-01-20", Some("2026-01-11")), Standing::Empty);
    assert_eq!(judge("2026-01-20", Some("2026-01-10T23:59:59Z")), Standing::Missing);
}
