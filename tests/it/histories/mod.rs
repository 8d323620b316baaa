//! Random histories of an application beside Tallymark, against a real PostgreSQL whose clock the
//! test moves. Two sessions interleave statement by statement, transactions stay open over the ends
//! of slices, and ticks are killed at any await. When all work is done, every rollup must equal the
//! `GROUP BY` over its source. With `late = "grace"` or a trigger that was spoiled, some history must
//! show a difference.

mod driver;
mod expected;
mod labels;
mod rollups;
mod search;

use crate::support::share;
use driver::World;
use search::{Kind, Ways, search};

/// Number of histories with capture that must all end right. With the other kinds below, one run
/// plays about 50, and `.ci/run` 2,000 more.
const HISTORIES: u32 = 20;

/// The same with `TALLYMARK_TESTS=all`, which plays about 4,300. `TALLYMARK_HISTORIES` sets another
/// number.
const HISTORIES_ALL: u32 = 2_000;

fn histories() -> u32 {
    let usual = if share::is_whole() { HISTORIES_ALL } else { HISTORIES };
    std::env::var("TALLYMARK_HISTORIES").map_or(usual, |count| count.parse().unwrap())
}

/// A difference must be found within this many histories, and the rarest shows in about one of 400.
/// Some histories known to show it come first, as the question is whether the test would notice.
const SEARCHED_MAX: u32 = 10_000;

/// Leaves a world unchanged.
async fn as_is(_: &World) {}

/// With triggers, every action of the application is counted in the end.
#[test]
fn with_capture_any_history_ends_exact() {
    let kind = Kind::new("capture", Ways::ANY).knowing(&[909_613_951]).changing();
    assert_eq!(search(kind, histories(), as_is), None);
}

/// Rows that are fresh when written: no mark makes up for a wait that is missing.
#[test]
fn with_capture_fresh_rows_are_all_counted() {
    let kind = Kind::new("capture", Ways::STAMPED).knowing(&[1_354_661_888]);
    assert_eq!(search(kind, histories() / 10, as_is), None);
}

/// Rows that the database stamps and that never change, in transactions of any length and idle
/// time.
#[test]
fn with_clock_stamped_rows_are_all_counted() {
    let found =
        search(Kind::new("clock", Ways::STAMPED).knowing(&[441_937_446]), histories() / 4, as_is);
    assert_eq!(found, None);
}

/// Inserts with any time, and updates that keep it, with change times stamped by the database.
#[test]
fn with_a_change_column_inserts_and_updates_are_all_counted() {
    let found = search(
        Kind::new("column", Ways::CHANGED).knowing(&[1_137_561_633, 1_634_944_463, 3_273_245_998]),
        histories() / 4,
        as_is,
    );
    assert_eq!(found, None);
}

/// The trigger's condition requires an age that is an hour too high.
#[test]
fn with_a_trigger_that_takes_late_rows_for_fresh_a_change_is_missed() {
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
    let kind = Kind::new("capture", Ways::ANY).knowing(&[4_046_057_669]).missing();
    let found = search(kind, SEARCHED_MAX, spoil);
    assert!(found.is_some(), "no counterexample");
}

/// The documented limit of `grace`, which promises nothing about late rows.
#[test]
fn with_grace_alone_late_rows_are_missed() {
    let kind = Kind::new("grace", Ways::ANY).knowing(&[1_255_461_645]).missing();
    let found = search(kind, SEARCHED_MAX, as_is);
    assert!(found.is_some(), "no counterexample");
}

/// Hours, from them two hours and trailing windows of three, and from the two hours four. A change
/// that reaches the first reaches all.
/// In one of eight histories the definition changes and databases are restored.
/// Reopening the coarse slice too late is too rare to be found here, and `compose` kills at every
/// await.
#[test]
fn with_rollups_of_rollups_any_history_ends_exact() {
    let kind = Kind::new("capture", Ways::ANY).composed().changing();
    let found = search(kind, histories() / 5, as_is);
    assert_eq!(found, None);
}

/// The names of the kinds stand in another table, whose rows come, go, change and swap their keys
/// beside those of the first one.
#[test]
fn with_a_lookup_any_history_ends_exact() {
    let kind = Kind::new("capture", Ways::ANY).looking_up();
    let found = search(kind, histories() / 3, as_is);
    assert_eq!(found, None);
}

/// An operator seals history and purges the source, seals are killed and taken back, and the hours or
/// the two hours are kept for some time only.
#[test]
fn with_purges_any_history_ends_exact() {
    let kind = Kind::new("capture", Ways::READABLE).composed().purging();
    assert_eq!(search(kind, histories() / 5, as_is), None);
}

/// Rows that the database stamps are purged behind the instant that `purgeable` names, with and
/// without a seal.
#[test]
fn with_purges_stamped_rows_are_all_counted() {
    let kind = Kind::new("clock", Ways::STAMPED).purging();
    assert_eq!(search(kind, histories() / 8, as_is), None);
}
