//! The spine, from claim to checkpoint, against a real PostgreSQL and a DynamoDB API.

use std::sync::Arc;

use tallymark::clock::Deadline;
use tallymark::report::Outcome;

use crate::support::world::{BUDGET, EVENTS, Setup, World, batch, clock, instant, random_events};

async fn events(days: u32, count: u32) -> World {
    let sql = format!("{EVENTS}; {}", random_events(days, count));
    World::new(&sql, Setup::default()).await
}

/// A tick at noon of the fourth day: three days have ended, the newest comes first.
#[tokio::test]
async fn a_tick_computes_the_due_slices_newest_first() {
    let sql = format!("{EVENTS}; {}", random_events(5, 100));
    let clock = Arc::new(clock("2026-01-04T12:00:00Z"));
    let world = World::new(&sql, Setup { clock: clock.clone(), ..Setup::default() }).await;
    let deadline = Deadline::after(&*clock, BUDGET);
    let now = instant("2026-01-04T12:00:00Z");
    let report = world.worker.tick(now, deadline, None).await.unwrap();
    let starts: Vec<_> = report.slices.iter().map(|slice| slice.start).collect();
    assert_eq!(starts, ["2026-01-03", "2026-01-02", "2026-01-01"].map(instant));
    assert!(report.slices.iter().all(|slice| slice.outcome == Outcome::Succeeded));
    world.verify_all("2026-01-04").await;

    let again = world.worker.tick(now, deadline, None).await.unwrap();
    assert!(again.slices.is_empty() && again.problems.is_empty());
}

/// Four at once over thirty days, with rows in NULL groups.
#[tokio::test]
async fn a_backfill_equals_one_group_by() {
    let world = events(30, 200).await;
    let report = world.backfill("2026-01-31", false).await;
    assert_eq!((report.succeeded, report.rows_read, report.left), (30, 6000, 0));
    world.verify_all("2026-01-31").await;
}
