//! Neighbouring small slices of a backfill that are worked on together. Each keeps its own claim,
//! fence, guard, marker, counts and checkpoint.

use std::sync::Arc;
use std::time::Duration;

use tallymark::checkpoint::{Claim, State};
use tallymark::model::clock::{Clock as _, VirtualClock};
use tallymark::model::slice::Order;
use tallymark::work::backfill::{self, BatchReport, Silent};
use tallymark::work::worker::Joining;

use crate::store::contradictions;
use crate::support::polls::{killed, sweep};
use crate::support::share;
use crate::support::world::{
    BUDGET, EVENTS, Keeper, PAST_LEASE, Setup, World, batch, init, instant, random_events, records,
};

/// Neighbours are joined as soon as the first slice has told a pace, however slow the machine is.
const AT_ONCE: Joining = Joining { after: 1, slices_max: 32, work_max: Duration::from_secs(3600) };

/// A slow machine must not divide the slices into chunks either.
const SOURCE: &str = "chunk_time = \"60s\"";

const HOURLY: &str = r#"
[[rollup]]
name = "hourly"
from = "public.events"
time = "created_at"
start = "2026-01-01"
slice = "1 hour"
bucket = "30 minutes"
group_by = ["kind", "entity_id"]
[rollup.measures]
events = "count"
revenue = { sum = "amount" }
users = { distinct = "user_id" }
"#;

/// [`HOURLY`] up to 2026-01-03, by an independent `GROUP BY`.
const EXPECTED: &str = "SELECT date_bin('30 minutes', created_at, '2026-01-01Z'), kind, entity_id, \
    count(*), sum(amount), count(DISTINCT user_id) FROM events \
    WHERE created_at >= '2026-01-01Z' AND created_at < '2026-01-03Z' GROUP BY 1, 2, 3";

/// The hour in the middle of a run that is special.
const TEN: &str = "2026-01-01T10:00:00Z";

/// The markers that do not count the rows and groups of their slice.
const MISCOUNTED: &str = "SELECT * FROM tallymark.slice AS s CROSS JOIN LATERAL (SELECT \
    coalesce(sum(r.events), 0) AS rows, count(*) AS groups FROM stats.hourly AS r \
    WHERE r.bucket >= s.slice_start AND r.bucket < s.slice_end) AS r \
    WHERE s.rollup = 'hourly' AND (s.rows_read, s.groups) <> (r.rows, r.groups)";

/// The transactions that wrote the markers.
const TRANSACTIONS: &str =
    "SELECT count(DISTINCT xmin::text) FROM tallymark.slice WHERE rollup = 'hourly'";

/// Two days of random events, without any in one hour of the second.
async fn world(keeper: Keeper, rollups: &str) -> (World, Arc<VirtualClock>) {
    let clock = Arc::new(VirtualClock::new(instant("2026-01-05")));
    let sql = format!(
        "{EVENTS}; {}; DELETE FROM events \
         WHERE created_at >= '2026-01-02T05:00Z' AND created_at < '2026-01-02T06:00Z'",
        random_events(2, 500)
    );
    let setup = Setup { source: SOURCE, rollups, clock: clock.clone(), keeper, ..Setup::default() };
    let mut world = World::new(&sql, setup).await;
    world.worker.joining = AT_ONCE;
    (world, clock)
}

/// Backfills both days, from the oldest slice on.
async fn backfill(world: &World) -> BatchReport {
    let (worker, rollup) = (&world.worker, world.rollup());
    let (from, to, order) = (rollup.start, instant("2026-01-03"), Order::OldestFirst);
    let plan = backfill::plan(worker, rollup, from, to, order, false).await.unwrap();
    let batch = backfill::BatchOptions { concurrency: 1, ..batch() };
    backfill::run(worker, rollup, &plan, batch, &Silent).await.unwrap()
}

/// The rows are right, and each marker and checkpoint counts those of its own slice.
async fn assert_right(world: &World) {
    world.assert_rows(EXPECTED).await;
    assert_eq!(records(&world.target, MISCOUNTED).await, [""; 0]);
    let (rollup, to) = (world.rollup(), instant("2026-01-03"));
    let found = world.worker.checkpoints.range(&rollup.name, rollup.start, to).await.unwrap();
    assert_eq!(found.len(), 48);
    for checkpoint in found {
        let start = checkpoint.slice_start.to_rfc3339();
        let marker = format!(
            "SELECT rows_read || ' ' || groups || ' ' || attempt FROM tallymark.slice \
             WHERE rollup = 'hourly' AND slice_start = '{start}'"
        );
        let done = checkpoint.outcome.unwrap();
        assert_eq!(checkpoint.state, State::Succeeded, "{start}");
        assert_eq!(
            format!("{} {} {}", done.rows_read, done.groups, checkpoint.attempt),
            world.target_value(&marker).await,
            "{start}"
        );
    }
}

async fn attempts(world: &World) -> Vec<u64> {
    let (rollup, to) = (world.rollup(), instant("2026-01-03"));
    let found = world.worker.checkpoints.range(&rollup.name, rollup.start, to).await.unwrap();
    found.iter().map(|checkpoint| checkpoint.attempt).collect()
}

#[tokio::test]
async fn neighbours_are_replaced_in_one_transaction_and_each_counts_its_own_rows() {
    for keeper in [Keeper::Target, Keeper::DynamoDb] {
        let (world, _) = world(keeper, HOURLY).await;
        let report = backfill(&world).await;
        assert_eq!((report.succeeded, report.left), (48, 0), "{report:?}");
        assert_eq!(report.inserted, report.groups);
        assert_right(&world).await;
        world.assert_verified("2026-01-03").await;
        // One slice, then 32 and 15.
        assert_eq!(world.target_value(TRANSACTIONS).await, "3");
        assert_eq!(attempts(&world).await, [1; 48]);
    }
}

/// A late change of one of them, and a slice of another calendar, whose rows the neighbours have already
/// replaced when its marker goes: those go on alone.
#[tokio::test]
async fn what_lies_beside_the_markers_of_neighbours_is_cleared_with_them() {
    let (world, _) = world(Keeper::Target, HOURLY).await;
    let beside = format!(
        "INSERT INTO tallymark.outstanding (rollup, slice_start, slice_end, generation, since, reason) \
         VALUES ('hourly', '{TEN}', '2026-01-01T11:00Z', 3, now(), 'late'); \
         INSERT INTO tallymark.slice (rollup, slice_start, slice_end, attempt, rows_read, replaced_at) \
         VALUES ('hourly', '2026-01-02T20:30Z', '2026-01-02T21:30Z', 0, 1, now())"
    );
    world.target_sql(&beside).await;
    assert_eq!(backfill(&world).await.succeeded, 48);
    assert_right(&world).await;
    let left = "SELECT (SELECT count(*) FROM tallymark.slice) || ' ' || \
                (SELECT count(*) FROM tallymark.outstanding WHERE cleared = generation)";
    assert_eq!(world.target_value(left).await, "48 1");
    // One slice, then 32, and 15 of their own.
    assert_eq!(world.target_value(TRANSACTIONS).await, "17");
}

/// In every order, at every width and in local time, with the clocks changing in between.
#[tokio::test]
async fn neighbours_of_any_calendar_are_cut_where_it_cuts() {
    let berlin = HOURLY
        .replace("2026-01-01", "2026-03-27")
        .replace("[rollup.measures]", "timezone = \"Europe/Berlin\"\n[rollup.measures]");
    let days = berlin.replace("\"1 hour\"", "\"1 day\"");
    let dates = days.replace("\"30 minutes\"", "\"1 day\"\nbucket_as = \"date\"");
    for rollups in [berlin, days, dates] {
        let clock = Arc::new(VirtualClock::new(instant("2026-04-02")));
        let events = random_events(5, 200).replace("2026-01-01Z", "2026-03-27Z");
        let setup = Setup { source: SOURCE, rollups: &rollups, clock, ..Setup::default() };
        let mut world = World::new(&format!("{EVENTS}; {events}"), setup).await;
        world.worker.joining = AT_ONCE;
        let report = world.backfill("2026-03-31T22:00:00Z", false).await;
        assert_eq!((report.rows_read > 900, report.left), (true, 0), "{report:?}");
        world.assert_verified("2026-03-31T22:00:00Z").await;
    }
}

#[tokio::test]
async fn a_slice_that_another_worker_holds_is_left_out() {
    for keeper in [Keeper::Target, Keeper::DynamoDb] {
        let (world, clock) = world(keeper, HOURLY).await;
        let (now, definition) = (clock.now(), world.rollup().definition());
        let claim = Claim {
            rollup: "hourly",
            slice_start: instant(TEN),
            definition: &definition,
            now,
            deadline: now + BUDGET,
        };
        let _held = world.worker.checkpoints.claim(&claim).await.unwrap();
        // Its lease runs out.
        let report = backfill(&world).await;
        assert_eq!((report.succeeded, report.left), (48, 0), "{report:?}");
        let mut expected = [1; 48];
        expected[10] = 2;
        assert_eq!(attempts(&world).await, expected);
        assert_right(&world).await;
    }
}

/// Its marker belongs to a later attempt, as after a loss of the checkpoints.
#[tokio::test]
async fn a_fenced_slice_writes_nothing_and_its_neighbours_go_on_alone() {
    let (world, _) = world(Keeper::Target, HOURLY).await;
    // A process compares the markers with the checkpoints once.
    world.run("2026-01-01T00:00:00Z").await;
    world
        .target_sql(&format!(
            "INSERT INTO tallymark.slice (rollup, slice_start, slice_end, attempt, owner) \
             VALUES ('hourly', '{TEN}', '{TEN}'::timestamptz + interval '1 hour', 1000, 'newer')"
        ))
        .await;
    let report = backfill(&world).await;
    assert_eq!((report.succeeded, report.left), (46, 0), "{report:?}");
    let rows = format!(
        "SELECT count(*) FROM stats.hourly WHERE bucket >= '{TEN}' \
        AND bucket < '{TEN}'::timestamptz + interval '1 hour'"
    );
    assert_eq!(world.target_value(&rows).await, "0");
    assert_eq!(records(&world.target, &contradictions("hourly")).await, [""; 0]);
}

/// Most of the rows that were counted before are gone.
#[tokio::test]
async fn a_slice_that_has_shrunk_fails_and_its_neighbours_go_on_alone() {
    let (world, _) = world(Keeper::Target, HOURLY).await;
    // A process compares the markers with the checkpoints once.
    world.run("2026-01-01T00:00:00Z").await;
    world
        .target_sql(&format!(
            "INSERT INTO tallymark.slice (rollup, slice_start, slice_end, attempt, rows_read, \
             definition) VALUES ('hourly', '{TEN}', '{TEN}'::timestamptz + interval '1 hour', 0, \
             1000000, '{}')",
            world.rollup().definition()
        ))
        .await;
    let report = backfill(&world).await;
    assert_eq!((report.succeeded, report.failed.len()), (46, 1), "{report:?}");
    let reason = report.failed[0].reason.clone().unwrap_or_default();
    assert!(reason.contains("where 1000000 were counted before"), "{reason}");
    assert_eq!(report.failed[0].start, instant(TEN));
}

/// A trigger reopens it in the transaction that writes its rows.
#[tokio::test]
async fn a_slice_that_is_reopened_while_it_is_read_runs_again() {
    let (world, _) = world(Keeper::Target, HOURLY).await;
    world
        .target_sql(&format!(
            "CREATE FUNCTION reopen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                 UPDATE tallymark.checkpoint SET item = item || '{{\"dirty\": 1}}' \
                 WHERE sort = '{TEN}' AND item->>'dirty' = '0'; RETURN NULL; END $$; \
             CREATE TRIGGER reopen AFTER INSERT ON stats.hourly EXECUTE FUNCTION reopen()"
        ))
        .await;
    let report = backfill(&world).await;
    assert_eq!((report.succeeded, report.left), (48, 0), "{report:?}");
    let mut expected = [1; 48];
    expected[10] = 2;
    assert_eq!(attempts(&world).await, expected);
    assert_right(&world).await;
}

/// The table has lost its unique index for a while.
#[tokio::test]
async fn a_group_that_is_in_the_table_twice_is_repaired() {
    let (world, _) = world(Keeper::Target, HOURLY).await;
    backfill(&world).await;
    let index = world
        .target_value(
            "SELECT indexdef FROM pg_indexes WHERE tablename = 'hourly' AND indexdef LIKE '%UNIQUE%'",
        )
        .await;
    let name = index.split(' ').nth(3).unwrap().to_owned();
    world
        .target_sql(&format!(
            "DROP INDEX stats.{name}; INSERT INTO stats.hourly SELECT * FROM stats.hourly \
             WHERE bucket = '{TEN}'; DELETE FROM tallymark.checkpoint WHERE sort < 'A'; \
             UPDATE tallymark.slice SET attempt = 0"
        ))
        .await;
    let report = backfill(&world).await;
    assert_eq!((report.succeeded, report.left), (48, 0), "{report:?}");
    assert_right(&world).await;
}

/// The day of a run is reopened once, with the hours that changed it.
#[tokio::test]
async fn neighbours_reopen_the_coarse_slice_that_contains_them() {
    let rollups = format!(
        "{HOURLY}\n[[rollup]]\nname = \"daily\"\nfrom = {{ rollup = \"hourly\" }}\nslice = \"1 day\"\n\
         group_by = [\"kind\"]\n[rollup.measures]\nevents = {{ sum = \"events\" }}\n"
    );
    let (world, _) = world(Keeper::Target, &rollups).await;
    let daily = &world.worker.config.rollups[1];
    backfill(&world).await;
    // A day is no longer than a run.
    let within = "SELECT count(DISTINCT (xmin::text, date_trunc('day', slice_start, 'UTC'))) - \
        count(DISTINCT xmin::text) FROM tallymark.slice WHERE rollup = 'hourly'";
    assert_eq!(world.target_value(within).await, "0");
    world.backfill_one(daily, "2026-01-03", false).await;
    world.assert_one_verified(daily, "2026-01-03").await;
    // The hours are computed for the first time once more.
    world.sql("INSERT INTO events (created_at, kind) VALUES ('2026-01-01T10:10Z', 'late')").await;
    world
        .target_sql(
            "DELETE FROM tallymark.checkpoint WHERE rollup = 'hourly' AND sort < 'A'; \
            UPDATE tallymark.slice SET attempt = 0 WHERE rollup = 'hourly'",
        )
        .await;
    backfill(&world).await;
    let day = world.worker.checkpoints.get("daily", instant("2026-01-01")).await.unwrap().unwrap();
    assert_eq!((day.state, day.dirty), (State::Stale, 1));
    let other =
        world.worker.checkpoints.get("daily", instant("2026-01-02")).await.unwrap().unwrap();
    assert_eq!(other.state, State::Succeeded);
    world.backfill_one(daily, "2026-01-03", false).await;
    world.assert_one_verified(daily, "2026-01-03").await;
}

/// It is killed at awaits of all steps. Rows, marker and checkpoint of each slice agree at once, and
/// the next backfill finishes what is left.
#[tokio::test]
async fn wherever_a_worker_of_neighbours_is_killed_each_slice_is_whole() {
    let (mut world, clock) = world(Keeper::Target, HOURLY).await;
    let stride = if share::is_whole() { 1 } else { 41 };
    for polls in sweep(1 + fastrand::usize(..stride), || stride) {
        let ended = killed(backfill(&world), polls).await;
        assert_eq!(
            records(&world.target, &contradictions("hourly")).await,
            [""; 0],
            "killed at await {polls}"
        );
        if let Some(report) = ended {
            assert_eq!(report.succeeded, 48, "{report:?}");
            println!("{polls} awaits");
            return assert_right(&world).await;
        }
        if fastrand::u8(..4) == 0 {
            clock.sleep(PAST_LEASE).await;
            assert_eq!(backfill(&world).await.left, 0);
            world.assert_rows(EXPECTED).await;
        }
        world
            .target_sql(
                "DELETE FROM tallymark.checkpoint; DELETE FROM tallymark.slice; \
                DELETE FROM stats.hourly",
            )
            .await;
        world.worker = {
            let mut other = world.changed(SOURCE, HOURLY, clock.clone()).worker;
            other.joining = AT_ONCE;
            other
        };
        init(&world.worker).await.unwrap();
    }
}
