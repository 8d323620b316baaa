//! Workers of finer slices that are killed, or that are about to commit, while windows depend on them.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use tallymark::model::clock::{Deadline, ManualClock};
use tallymark::work::slice_run::{self, RunOptions};

use super::{STORES, events, is_exact, named, rollups, work_off};
use crate::support::world::{BUDGET, PAST_LEASE, Setup, World, clock, records};

/// More awaits than one slice's run has, so that a sweep over all of them ends.
const POLLS_MAX: usize = 2_000;

/// The worker of a finer slice is killed at every await, each time after another change, and others
/// continue. After each kill every window has every change.
#[tokio::test]
async fn a_worker_killed_before_the_windows_are_reopened_loses_nothing() {
    for (keeper, across) in STORES {
        let clock = clock("2025-11-04T00:00:00Z");
        let shape = ("by_quarter", "6 hours", "12 hours", "2025-11-01");
        let rollups = rollups("2025-11-01", "6 hours", &[shape]);
        let shared: Arc<ManualClock> = Arc::new(clock.clone());
        let setup = Setup { rollups: &rollups, across, keeper, clock: shared, ..Setup::default() };
        let world = World::new(&events("2025-11-01", 60), setup).await;
        work_off(&world).await;
        killed_at_every_await(&clock, &world).await;
        is_exact(&world, shape).await;
    }
}

/// The output of a future, unless it needs more polls than these.
async fn polled_at_most<F: Future>(polls: usize, mut work: Pin<&mut F>) -> Option<F::Output> {
    let mut polled = 0;
    std::future::poll_fn(|context| {
        polled += 1;
        if polled > polls {
            return Poll::Ready(None);
        }
        work.as_mut().poll(context).map(Some)
    })
    .await
}

async fn killed_at_every_await(clock: &ManualClock, world: &World) {
    let uniques = named(world, "uniques");
    let hours = world.slice("2025-11-02T04:00:00Z");
    for polls in 1..POLLS_MAX {
        world
            .sql("INSERT INTO events (created_at, kind) VALUES ('2025-11-02T05:00Z', 'late')")
            .await;
        world.reopen("2025-11-02T04:00:00Z").await;
        let deadline = Deadline::after(clock, BUDGET);
        let ended = {
            let options = RunOptions::default();
            let work = slice_run::run_slice(&world.worker, uniques, hours, deadline, options);
            polled_at_most(polls, pin!(work)).await
        };
        // The lease of the killed worker ends.
        clock.advance(PAST_LEASE);
        work_off(world).await;
        let late = "SELECT events FROM stats.by_quarter WHERE kind = 'late'";
        let told = format!("({polls})");
        assert_eq!(records(&world.target, late).await, [told.clone(), told], "{polls}");
        if ended.is_some_and(|report| report.unwrap().is_success()) {
            println!("killed at {} awaits", polls - 1);
            return;
        }
    }
    panic!("a run of more than {POLLS_MAX} awaits");
}
