//! Random histories of an application beside Tallymark, against a real PostgreSQL whose clock the
//! test moves. Two sessions interleave statement by statement, transactions stay open over the ends
//! of slices, ticks are killed at any await. After all is quiet, every rollup must equal the
//! `GROUP BY` over its source. With one guard taken away, some history must show that it does not.

mod driver;

use driver::{Ways, World, search};
use tallymark::faults::Guard;

/// Histories that must all end well, in one run: enough that each mutation below is found many times.
const HISTORIES: u32 = 2_000;

/// A mutation must be found within this many histories; the rarest shows in about one of 400.
const SEARCHED_MAX: u32 = 10_000;

/// With a trigger, whatever the application does is counted in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_capture_any_history_ends_exact() {
    let found = search("capture", HISTORIES, async |_: &World| {}, Ways::ANY, None).await;
    assert_eq!(found, None);
}

/// Rows that the database stamps and nobody changes, of transactions however long and idle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_clock_stamped_rows_are_all_counted() {
    let found = search("clock", HISTORIES / 4, async |_: &World| {}, Ways::STAMPED, None).await;
    assert_eq!(found, None);
}

/// Inserts with any time and updates that leave it, whose change time the database stamps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_change_column_inserts_and_updates_are_all_counted() {
    let found = search("column", HISTORIES / 4, async |_: &World| {}, Ways::CHANGED, None).await;
    assert_eq!(found, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_waiting_for_open_transactions_a_row_is_missed() {
    let guard = Some(Guard::Horizon);
    // Rows that are fresh when written: no mark makes up for the missing wait.
    let found = search("capture", SEARCHED_MAX, async |_: &World| {}, Ways::STAMPED, guard).await;
    assert!(found.is_some(), "no counterexample");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_marks_deleted_before_slices_are_reopened_a_change_is_missed() {
    let guard = Some(Guard::MarksLast);
    let found = search("capture", SEARCHED_MAX, async |_: &World| {}, Ways::ANY, guard).await;
    assert!(found.is_some(), "no counterexample");
}

/// The trigger's condition asks for an age that is an hour too high.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_trigger_that_takes_late_rows_for_fresh_a_change_is_missed() {
    let spoil = async |world: &World| {
        for (event, row) in [("insert", "NEW"), ("update", "NEW"), ("delete", "OLD")] {
            world
                .sql(&format!(
                    "DO $$ DECLARE f text; BEGIN SELECT tgfoid::regproc::text INTO f FROM \
                     pg_trigger WHERE tgname = 'tallymark_{event}'; EXECUTE format('DROP TRIGGER \
                     tallymark_{event} ON public.events; CREATE TRIGGER tallymark_{event} AFTER \
                     {event} ON public.events FOR EACH ROW WHEN ({row}.at < clock_timestamp() - \
                     interval ''62 minutes'') EXECUTE FUNCTION %s(); ALTER TABLE public.events \
                     ENABLE ALWAYS TRIGGER tallymark_{event}', f); END $$"
                ))
                .await;
        }
    };
    let found = search("capture", SEARCHED_MAX, spoil, Ways::ANY, None).await;
    assert!(found.is_some(), "no counterexample");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_looking_for_older_transactions_a_stamped_row_is_missed() {
    for (late, ways) in [("clock", Ways::STAMPED), ("column", Ways::CHANGED)] {
        let guard = Some(Guard::Oldest);
        let found = search(late, SEARCHED_MAX, async |_: &World| {}, ways, guard).await;
        assert!(found.is_some(), "no counterexample for {late}");
    }
}

/// The documented limit of `grace`: it promises nothing about late rows, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_grace_alone_late_rows_are_missed() {
    let found = search("grace", SEARCHED_MAX, async |_: &World| {}, Ways::ANY, None).await;
    assert!(found.is_some(), "no counterexample");
}
