//! What is due: found by the checkpoints alone, whatever happened to them.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};
use tallymark::backfill::{Order, Silent};
use tallymark::checkpoint::State;
use tallymark::clock::{Clock, Deadline, ManualClock};
use tallymark::report::SliceReport;

use crate::support::world::{
    BUDGET, DAILY, EVENTS, Setup, World, batch, clock, dynamo, instant, random_events,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A second rollup of the same source, by the day.
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

/// One tick; the slices that it worked on.
async fn tick(world: &World) -> Vec<SliceReport> {
    let clock = &*world.worker.clock;
    let deadline = Deadline::after(clock, BUDGET);
    let report = world.worker.tick(clock.now(), deadline, None).await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!(report.left, 0);
    report.slices
}

fn starts(slices: &[SliceReport]) -> Vec<DateTime<Utc>> {
    slices.iter().map(|slice| slice.start).collect()
}

/// The item of one slice as somebody left it who edited it by hand.
async fn spoil(world: &World, rollup: &str, start: &str) {
    let text = |value: &str| AttributeValue::S(value.to_owned());
    let items = [("pk", rollup), ("sk", start), ("state", "done")];
    let put = dynamo().await.client().put_item().table_name(world.worker.checkpoints.table());
    let put = items.iter().fold(put, |put, (name, value)| put.item(*name, text(value)));
    put.send().await.unwrap();
}

/// One of two rollups has a checkpoint that nobody can read: it is told, and the other is worked on.
#[tokio::test]
async fn a_rollup_with_a_broken_checkpoint_does_not_stop_the_others() {
    let clock = clock("2026-01-04T12:00:00Z");
    let world = world_at(&clock, &random_events(3, 50), &format!("{DAILY}{SECOND}")).await;
    spoil(&world, "daily", "2026-01-02T00:00:00Z").await;
    let deadline = Deadline::after(&clock, BUDGET);
    let report = world.worker.tick(clock.now(), deadline, None).await.unwrap();
    let [problem] = &report.problems[..] else { panic!("{report:?}") };
    assert_eq!(problem.rollup, "daily");
    assert!(problem.error.contains("daily@2026-01-02T00:00:00Z"), "{}", problem.error);
    assert!(report.slices.iter().all(|slice| slice.rollup == "second" && slice.is_success()));
    assert_eq!(report.slices.len(), 3);
}

/// Four at once, and the first meets trouble: the three that work already end with success, no
/// fourth is begun, and no lease is left behind.
#[tokio::test]
async fn trouble_in_a_batch_lets_the_slices_in_flight_end() {
    let clock = clock("2026-01-31T12:00:00Z");
    let world = world_at(&clock, &random_events(30, 50), DAILY).await;
    let (rollup, to) = (world.rollup(), clock.now());
    let order = Order::OldestFirst;
    let plan = world.worker.plan_backfill(rollup, rollup.start, to, order, false).await.unwrap();
    spoil(&world, "daily", "2026-01-01T00:00:00Z").await;
    let result = world.worker.backfill(rollup, &plan, batch(), &Silent).await;
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

/// Again when the slice 1, 3 and 7 slices later is ready, and no more; what was missed while
/// nothing ran is made up for by one run.
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
    // Readable by now: the slices of the 12th to the 20th.
    let again = starts(&tick(&missed).await);
    assert_eq!(again.iter().min(), Some(&instant("2026-01-05")), "7 before the 12th");
    assert_eq!(again.len(), 16);
    assert!(tick(&missed).await.is_empty(), "one run makes up for all that was missed");
}
