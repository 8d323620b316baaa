//! Marks of late changes where source, target and checkpoints are one database: they become
//! reopenings in one transaction.

use std::sync::Arc;

use tallymark::checkpoint::State;
use tallymark::model::clock::Deadline;
use tallymark::work::late;

use crate::capture::{captured, tick};
use crate::support::polls::{killed, sweep};
use crate::support::world::{
    BUDGET, EVENTS, Keeper, Setup, World, clock, install_capture, instant,
};

const DAY: &str = "2026-01-01";

const LATE: &str = "INSERT INTO events (created_at, kind) VALUES ('2026-01-01T05:10Z', 'late')";

/// The marks that wait, and how often the day was reopened. One statement sees one instant.
const STANDING: &str = "SELECT (SELECT count(*) FROM tallymark.mark) || ' ' || coalesce(\
    (SELECT item->>'dirty' FROM tallymark.checkpoint WHERE sort = '2026-01-01T00:00:00Z'), '0')";

/// One database with the source, the target and the checkpoints, in which a day was computed. Days
/// count since `start`.
async fn one_database(start: &str) -> World {
    let rollups = captured().replace(DAY, start);
    let clock = Arc::new(clock("2026-01-02T12:00:00Z"));
    let keeper = Keeper::Target;
    let setup = Setup { rollups: &rollups, clock, keeper, ..Setup::default() };
    let world = World::new(&format!("{EVENTS}; {LATE}"), setup).await;
    install_capture(&world.worker).await;
    assert_eq!(slices(&world).await, 1);
    world.sql("DELETE FROM tallymark.mark").await;
    world
}

/// Moves the marks. Returns the problems.
async fn notice(world: &World) -> Vec<String> {
    let worker = &world.worker;
    let problems = late::notice(worker, Deadline::after(&*worker.clock, BUDGET)).await;
    problems.into_iter().map(|problem| problem.error).collect()
}

/// A tick without a problem. Returns the number of slices.
async fn slices(world: &World) -> usize {
    let report = tick(world).await;
    assert!(report.problems.is_empty(), "{report:?}");
    report.slices.len()
}

#[tokio::test]
async fn wherever_a_worker_is_killed_a_mark_waits_or_its_slice_is_reopened() {
    let world = one_database(DAY).await;
    for (reopened, polls) in sweep(1, || 1).enumerate() {
        world.sql(LATE).await;
        let ended = killed(notice(&world), polls).await;
        let standing = world.target_value(STANDING).await;
        let whole = [format!("1 {reopened}"), format!("0 {}", reopened + 1)];
        assert!(whole.contains(&standing), "{standing} after {polls} awaits, not one of {whole:?}");
        assert_eq!(slices(&world).await, 1);
        assert_eq!(world.target_value(STANDING).await, whole[1], "{polls} awaits, and a tick");
        if let Some(problems) = ended {
            assert!(problems.is_empty(), "{problems:?}");
            println!("killed at {} awaits", polls - 1);
            return world.verify_all("2026-01-02").await;
        }
    }
}

#[tokio::test]
async fn two_workers_that_read_the_same_mark_reopen_its_slice_once() {
    let world = one_database(DAY).await;
    let other = world.redefined(&captured());
    for reopened in 1..=20 {
        world.sql(LATE).await;
        let (one, another) = tokio::join!(notice(&world), notice(&other));
        assert_eq!([one, another].concat(), [""; 0]);
        assert_eq!(world.target_value(STANDING).await, format!("0 {reopened}"));
        assert_eq!(slices(&other).await, 1);
    }
}

/// Copies of the day's checkpoint for all days of 2025. A worker holds one of them.
const YEAR: &str = "INSERT INTO tallymark.checkpoint (rollup, sort, item) SELECT rollup, \
    to_char(day, 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), item FROM tallymark.checkpoint, generate_series( \
    '2025-01-01Z'::timestamptz, '2025-12-31Z', '1 day') AS day WHERE sort = '2026-01-01T00:00:00Z'; \
    UPDATE tallymark.checkpoint SET item = item || jsonb_build_object('state', 'running', 'lease_until', \
    4e12::bigint) WHERE sort = '2025-06-01T00:00:00Z'";

const REFUSE: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
    'BEGIN RAISE EXCEPTION ''not today''; END'; \
    CREATE TRIGGER refuse BEFORE DELETE ON tallymark.mark FOR EACH ROW EXECUTE FUNCTION refuse()";

/// The slices by state and number of reopenings.
const STATES: &str = "SELECT string_agg(concat_ws(' ', n, state, dirty), ', ' ORDER BY state) FROM (SELECT \
    count(*) AS n, item->>'state' AS state, item->>'dirty' AS dirty FROM tallymark.checkpoint \
    WHERE sort < 'A' GROUP BY 2, 3) AS it";

#[tokio::test]
async fn a_truncate_reopens_all_slices_of_a_year_in_one_transaction() {
    let world = one_database("2025-01-01").await;
    world.target_sql(YEAR).await;
    world.target_sql(REFUSE).await;
    world.sql("TRUNCATE events").await;
    let before = world.target_value(STATES).await;
    assert_eq!(before, "1 running 0, 365 succeeded 0");
    let problems = notice(&world).await;
    assert!(problems.iter().any(|it| it.contains("not today")), "{problems:?}");
    assert_eq!(world.target_value(STATES).await, before);

    world.target_sql("DROP TRIGGER refuse ON tallymark.mark").await;
    assert_eq!(notice(&world).await, [""; 0]);
    assert_eq!(world.target_value(STATES).await, "1 running 1, 365 stale 1");
    let watermark = world.worker.checkpoints.watermark("daily").await.unwrap();
    assert!(watermark.until().is_none_or(|until| until <= instant("2025-01-01")), "{watermark:?}");
    assert_eq!(world.checkpoint("2025-06-01").await.unwrap().state, State::Running);
}
