//! Result tables in partitions: `partition_by`.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{AssertSqlSafe, Executor as _};
use tallymark::check::verify;
use tallymark::clients::db::Access;
use tallymark::model::clock::{Deadline, ManualClock};
use tallymark::target::partitions;
use tallymark::tick;
use tallymark::work::report::{Outcome, TickReport};
use tallymark::work::slice_run::{self, RunOptions};
use tallymark::work::worker::WorkError;

use crate::support::cli::{Place, daily, day, execute, lines};
use crate::support::polls::{killed, sweep};
use crate::support::world::{
    BUDGET, EVENTS, Keeper, PAST_LEASE, Setup, World, clock, instant, random_events, records,
};

/// Weeks, some of which lie in two partitions, days, and months of days.
const TABLES: &str = r#"
[[rollup]]
name = "weekly"
from = "public.events"
time = "created_at"
start = "2025-12-29"
slice = "1 week"
bucket = "1 day"
partition_by = "month"
keep = "45 days"
group_by = ["kind", "entity_id"]
measures = { events = "count", revenue = { sum = "amount" } }

[[rollup]]
name = "daily"
from = "public.events"
time = "created_at"
start = "2026-01-01"
slice = "1 day"
partition_by = "month"
keep = "45 days"
group_by = ["kind"]
measures = { events = "count" }

[[rollup]]
name = "monthly"
from = { rollup = "daily" }
slice = "1 month"
bucket_as = "date"
partition_by = "year"
group_by = ["kind"]
measures = ["events"]
"#;

/// Days from 2026-01-01 on that have events.
const DAYS: u32 = 90;

async fn world(keeper: Keeper, clock: &ManualClock) -> World {
    let sql = format!("{EVENTS}; {}", random_events(DAYS, 40));
    let clock = Arc::new(clock.clone());
    World::new(&sql, Setup { rollups: TABLES, clock, keeper, ..Setup::default() }).await
}

/// The rows of `weekly` from one day to another.
fn weeks(from: &str, until: &str) -> String {
    format!(
        "SELECT date_trunc('day', created_at, 'UTC'), kind, entity_id, count(*), sum(amount) \
         FROM events WHERE created_at >= '{from}Z' AND created_at < '{until}Z' GROUP BY 1, 2, 3"
    )
}

/// The rows of `daily` from one day to another.
fn days(from: &str, until: &str) -> String {
    format!(
        "SELECT date_trunc('day', created_at, 'UTC'), kind, count(*) \
         FROM events WHERE created_at >= '{from}Z' AND created_at < '{until}Z' GROUP BY 1, 2"
    )
}

/// The rows of `monthly`.
const MONTHS: &str =
    "SELECT date_trunc('month', created_at, 'UTC')::date, kind, count(*) FROM events GROUP BY 1, 2";

/// The partitions of a rollup's table, without what their names have in common.
async fn partitions_of(world: &World, rollup: &str) -> Vec<String> {
    let sql = format!(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
         WHERE i.inhparent = 'stats.{rollup}'::regclass"
    );
    let names = records(&world.target, &sql).await;
    let begin = format!("(part_{rollup}_");
    names.iter().map(|name| name.replace(&begin, "").replace(')', "")).collect()
}

/// Reopens a slice of the rollup in this place and runs it.
async fn replay(world: &World, place: usize, start: &str) {
    let (worker, rollup) = (&world.worker, &world.worker.config.rollups[place]);
    let (now, start) = (worker.clock.now(), instant(start));
    worker.checkpoints.reopen(&rollup.name, start, "test", now).await.unwrap();
    let slice = rollup.calendar.starting(start).unwrap();
    let deadline = Deadline::after(&*worker.clock, BUDGET);
    let run = slice_run::run_slice(worker, rollup, slice, deadline, RunOptions::default());
    let report = run.await.unwrap();
    assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
}

async fn tried(world: &World) -> TickReport {
    let clock = &*world.worker.clock;
    let deadline = Deadline::after(clock, BUDGET);
    tick::run(&world.worker, clock.now(), deadline, None).await.unwrap()
}

async fn ticked(world: &World) -> TickReport {
    let report = tried(world).await;
    assert!(report.problems.is_empty() && report.left == 0, "{report:?}");
    report
}

/// The text of the error with which `init` refuses these rollups.
async fn refusal(world: &World, rollups: &str) -> String {
    match world.redefined(rollups).init().await {
        Err(WorkError::Ddl(error)) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_slice_in_two_partitions_is_replaced_like_any_other() {
    let world = world(Keeper::Target, &clock("2026-04-01T12:00:00Z")).await;
    // The first rows of both partitions have the same places in them.
    world.run("2026-01-26").await;
    assert_eq!(partitions_of(&world, "weekly").await, ["2026_01", "2026_02", "2026_03"]);
    let within = "created_at >= '2026-01-26Z' AND created_at < '2026-02-02Z'";
    world
        .sql(&format!(
            "DELETE FROM events WHERE entity_id = 1 AND {within}; \
             UPDATE events SET amount = amount + 1 WHERE kind = 'view' AND {within}; \
             UPDATE events SET kind = 'new' WHERE kind = 'buy' AND {within}"
        ))
        .await;
    world.replay("2026-01-26").await;
    world.assert_rows(&weeks("2026-01-26", "2026-02-02")).await;

    // Groups that stand twice, in both partitions.
    let unique =
        "FROM pg_index WHERE indrelid = 'stats.weekly'::regclass AND indisunique AND indisvalid";
    world
        .target_sql(&format!(
            "DO $do$ BEGIN EXECUTE (SELECT format('DROP INDEX %s', indexrelid::regclass) {unique}); END $do$; \
             INSERT INTO stats.weekly SELECT * FROM stats.weekly WHERE bucket >= '2026-01-31Z'"
        ))
        .await;
    world.replay("2026-01-26").await;
    world.assert_rows(&weeks("2026-01-26", "2026-02-02")).await;
    world.init().await.unwrap();
    assert_eq!(world.target_value(&format!("SELECT count(*) {unique}")).await, "1");

    world.backfill("2026-03-30", false).await;
    world.assert_rows(&weeks("2025-12-29", "2026-03-30")).await;
    world.assert_verified("2026-03-30").await;
    let names = ["2025_12", "2026_01", "2026_02", "2026_03", "2026_04"];
    assert_eq!(partitions_of(&world, "weekly").await, names);
    tables_that_init_refuses(&world).await;
}

/// Definitions and tables that would lose rows.
async fn tables_that_init_refuses(world: &World) {
    let whole = TABLES.replacen("partition_by = \"month\"\n", "", 1);
    let error = refusal(world, &whole).await;
    assert!(error.contains("\"weekly\" is a partitioned table"), "{error}");
    let plain = "\n[[rollup]]\nname = \"plain\"\nfrom = { rollup = \"daily\" }\nslice = \"1 week\"\n\
                 group_by = []\nmeasures = [\"events\"]\n";
    world.redefined(&format!("{TABLES}{plain}")).init().await.unwrap();
    let error = refusal(world, &format!("{TABLES}{plain}partition_by = \"year\"\n")).await;
    assert!(error.contains("\"plain\" is in one piece"), "{error}");
    world.target_sql("CREATE TABLE rest PARTITION OF stats.weekly DEFAULT").await;
    let error = refusal(world, TABLES).await;
    assert!(error.contains("has the default partition rest"), "{error}");
    world
        .target_sql("DROP TABLE rest; ALTER TABLE tallymark.part_weekly_2026_01 SET UNLOGGED")
        .await;
    world.init().await.unwrap();
    let unlogged =
        "SELECT count(*) FROM pg_class WHERE relname LIKE 'part_weekly%' AND relpersistence = 'u'";
    assert_eq!(world.target_value(unlogged).await, "0");
}

/// Another session has locked every other partition, so a statement that planned or read one of them
/// would fail.
#[tokio::test]
async fn a_day_of_long_history_touches_no_other_partition() {
    let world = world(Keeper::DynamoDb, &clock("2026-04-01T12:00:00Z")).await;
    let daily = &world.worker.config.rollups[1];
    world.backfill_one(daily, "2026-04-01", false).await;
    let names = ["2026_01", "2026_02", "2026_03", "2026_04"];
    assert_eq!(partitions_of(&world, "daily").await, names);
    world
        .sql("UPDATE events SET kind = 'view' WHERE created_at >= '2026-02-14Z' AND kind = 'buy'")
        .await;
    let mut held = world.target.begin().await.unwrap();
    for month in ["2026_01", "2026_03", "2026_04"] {
        let sql = format!("LOCK TABLE tallymark.part_daily_{month} IN ACCESS EXCLUSIVE MODE");
        held.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
    }
    replay(&world, 1, "2026-02-14").await;
    let slice = daily.calendar.starting(instant("2026-02-14")).unwrap();
    let found = verify::verify_slice(&world.worker, daily, slice, BUDGET, 3).await.unwrap();
    assert_eq!(found.differences, 0);
    held.rollback().await.unwrap();
    let found =
        records(&world.target, "SELECT * FROM stats.daily WHERE bucket = '2026-02-14Z'").await;
    assert_eq!(found, records(&world.pool, &days("2026-02-14", "2026-02-15")).await);
}

/// Processes that need the same new partition at once, and one that is killed while it makes one.
#[tokio::test]
async fn partitions_are_made_once_whoever_needs_them_and_whole_or_not_at_all() {
    let clock = clock("2026-04-01T12:00:00Z");
    let world = world(Keeper::Target, &clock).await;
    let others: Vec<World> = (0..3).map(|_| world.redefined(TABLES)).collect();
    let runs = ["2026-02-02", "2026-02-09", "2026-02-16"];
    let runs = others.iter().zip(runs).map(|(other, start)| other.run(start));
    for report in futures_util::future::join_all(runs).await {
        assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
    }
    assert_eq!(partitions_of(&world, "weekly").await, ["2026_02", "2026_03"]);
    let half = "SELECT count(*) FROM pg_class c WHERE c.relname LIKE 'part\\_%' AND c.relkind = 'r' \
                AND NOT c.relispartition";
    let mut kills = 0;
    for polls in sweep(0, || 5) {
        let other = world.redefined(TABLES);
        let ended = killed(other.try_run("2026-01-12"), polls).await;
        // The one before may have been killed after its last write.
        let done = [Outcome::Succeeded, Outcome::AlreadySucceeded];
        if ended.is_some_and(|it| it.is_ok_and(|report| done.contains(&report.outcome))) {
            break;
        }
        kills += 1;
        clock.advance(PAST_LEASE);
        assert_eq!(world.target_value(half).await, "0");
    }
    assert!(kills > 3, "{kills}");
    assert_eq!(partitions_of(&world, "weekly").await, ["2026_01", "2026_02", "2026_03"]);
}

/// The first weeks of the events that `weekly` has in part.
const HALF_WEEKS: &str = "SELECT date_trunc('week', at, 'UTC') FROM ( \
    SELECT date_trunc('day', created_at, 'UTC') AS at, kind, entity_id FROM events GROUP BY 1, 2, 3) e \
    LEFT JOIN stats.weekly w ON w.bucket = at AND w.kind IS NOT DISTINCT FROM e.kind \
    AND w.entity_id IS NOT DISTINCT FROM e.entity_id \
    GROUP BY 1 HAVING count(w.bucket) NOT IN (0, count(*))";

#[tokio::test]
async fn old_months_are_dropped_whole_and_what_is_left_is_deleted() {
    let clock = clock("2026-04-02T12:00:00Z");
    let world = world(Keeper::Target, &clock).await;
    // All but the deletion is done.
    let unkept = world.redefined(&TABLES.replace("keep = \"45 days\"\n", ""));
    for (rollup, until) in unkept.worker.config.rollups.iter().zip(["2026-03-30", "2026-04-01"]) {
        unkept.backfill_one(rollup, until, false).await;
    }
    ticked(&unkept).await;
    assert_eq!(partitions_of(&world, "monthly").await, ["2026", "2027"]);
    let mut reader = world.target.begin().await.unwrap();
    reader.execute("SELECT count(*) FROM stats.daily").await.unwrap();
    let report = ticked(&world).await;
    // The weeks until that of the 15th of February, and the days of January.
    assert_eq!(report.kept_away.slices, 7 + 31, "{report:?}");
    world.assert_rows(&weeks("2026-02-16", "2026-03-30")).await;
    assert_eq!(partitions_of(&world, "weekly").await[0], "2026_02");
    // A reader had the table in use, so the days were deleted.
    let found = records(&world.target, "SELECT * FROM stats.daily").await;
    assert_eq!(found, records(&world.pool, &days("2026-02-01", "2026-04-01")).await);
    assert_eq!(partitions_of(&world, "daily").await[0], "2026_01");
    reader.rollback().await.unwrap();

    clock.advance(Duration::from_secs(30 * 24 * 3600));
    ticked(&unkept).await;
    for polls in sweep(0, || 9) {
        if killed(tried(&world), polls).await.is_some() {
            break;
        }
        assert_eq!(records(&world.target, HALF_WEEKS).await, [""; 0], "after {polls} polls");
    }
    let is_done = async || tried(&world).await.problems.is_empty();
    for _ in 0..20 {
        if is_done().await {
            break;
        }
    }
    world.assert_rows(&weeks("2026-03-16", "2026-05-01")).await;
    let found = records(&world.target, "SELECT * FROM stats.daily").await;
    assert_eq!(found, records(&world.pool, &days("2026-03-01", "2026-04-01")).await);
    assert_eq!(
        records(&world.target, "SELECT * FROM stats.monthly").await,
        records(&world.pool, MONTHS).await
    );
}

#[tokio::test]
async fn init_makes_partitions_ahead_and_every_command_works_on_them() {
    let (place, database) = Place::with_events(40).await;
    let role = format!("reader_{:x}", fastrand::u64(..));
    execute(&place.target_url, &format!("CREATE ROLE {role} LOGIN")).await;
    let rollup = daily(40).replacen("slice", "partition_by = \"month\"\nslice", 1);
    place.configure(&format!("readers = [\"{role}\"]\n{rollup}"));
    let script = place.run(&["init", "--dry-run"]).good();
    assert_eq!(script.out.matches("ATTACH PARTITION").count(), 2, "{script:?}");
    place.run(&["init"]).good();
    let month = |column: &str| format!("to_char(now() {column}, 'YYYY_MM')");
    let ahead = "SELECT replace(c.relname, 'part_daily_', '') FROM pg_inherits i \
                 JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'stats.daily'::regclass";
    let now = format!("SELECT {} UNION ALL SELECT {}", month(""), month("+ interval '1 month'"));
    assert_eq!(lines(&place.target_url, ahead).await, lines(&place.target_url, &now).await);
    let again = place.run(&["init"]).good();
    assert!(again.out.contains("rollup tables: all there"), "{again:?}");
    place.run(&["backfill", "daily", "--yes"]).good();
    place.run(&["check"]).good();
    place.run(&["verify"]).good();
    place.run(&["preview", "daily", "--against", "stats.daily"]).good();
    place.run(&["repair"]).good();
    let rows = "SELECT count(*) FROM stats.daily";
    let all = lines(&place.target_url, rows).await;
    assert_eq!(lines(&database.url_of(&role), rows).await, all);
    let series = "SELECT count(*) > 0 FROM stats.daily_series(date_trunc('day', now()) - interval '3 days', date_trunc('day', now()), '1 day')";
    assert_eq!(lines(&database.url_of(&role), series).await, ["(t)"]);

    place.configure(&rollup.replacen("daily", "visits", 1));
    place.run(&["rollup", "rename", "daily", "visits", "--yes"]).good();
    let slice = day(2).to_string();
    place.run(&["replay", "visits", "--slice", &slice, "--reason", "test", "--yes"]).good();
    place.run(&["verify"]).good();
    assert_eq!(lines(&place.target_url, &rows.replace("daily", "visits")).await, all);
    let named =
        "SELECT count(*) FROM pg_class WHERE relname LIKE 'part\\_daily%' AND relkind = 'r'";
    assert_eq!(lines(&place.target_url, named).await, ["(0)"]);
    place.configure(&daily(40));
    place.run(&["rollup", "drop", "visits", "--yes"]).good();
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'part\\_%'";
    assert_eq!(lines(&place.target_url, left).await, ["(0)"]);
    execute(&place.target_url, &format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

/// The calendar follows another zone from now on. Its months begin hours later than the partitions.
#[tokio::test]
async fn after_a_change_of_the_zone_the_partitions_fill_the_gaps() {
    let world = world(Keeper::Target, &clock("2026-04-01T12:00:00Z")).await;
    world.run("2026-02-23").await;
    let moved = world.redefined(&TABLES.replace(
        "start = \"2025-12-29\"",
        "start = \"2025-12-29\"\ntimezone = \"America/New_York\"",
    ));
    moved.init().await.unwrap();
    let (worker, rollup) = (&moved.worker, moved.rollup());
    let mut tx = worker.target.db.begin(Access::ReadWrite, BUDGET, "test").await.unwrap();
    let ahead = partitions::plan(&mut tx, &worker.target, rollup, instant("2026-03-15")).await;
    tx.rollback().await.unwrap();
    // April of New York ends four hours after the last partition.
    assert_eq!(ahead.unwrap().len(), 3);
    let report = moved.backfill("2026-03-30T04:00:00Z", false).await;
    assert_eq!((report.failed.len(), report.left), (0, 0), "{report:?}");
    let local = "SELECT date_trunc('day', created_at, 'America/New_York'), kind, entity_id, count(*), sum(amount) \
                 FROM events WHERE created_at >= '2025-12-29T05:00Z' AND created_at < '2026-03-30T04:00Z' \
                 GROUP BY 1, 2, 3";
    moved.assert_rows(local).await;
}
