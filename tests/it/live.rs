//! Live views: the rows of a rollup's table, and those of the slices that are not computed yet.

use chrono::{TimeDelta, Timelike as _};
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tallymark::clients::db::Access;
use tallymark::manage::drop_rollup;
use tallymark::model::clock::{Clock as _, Deadline, SystemClock};
use tallymark::model::hint::Hinted as _;
use tallymark::target::live;
use tallymark::tick;
use tallymark::work::ready;

use crate::support::world::{BUDGET, Keeper, Setup, World, init, records};

/// Rows of four hours, and some of the next seconds, in each form of time.
const ROWS: &str = "CREATE TABLE events (at timestamptz, local timestamp, day date, ms bigint, kind text, \
    amount numeric); CREATE INDEX ON events (at); CREATE INDEX ON events (local); \
    CREATE INDEX ON events (day); CREATE INDEX ON events (ms); \
    CREATE FUNCTION add(since interval) RETURNS void LANGUAGE sql AS $$ INSERT INTO events \
    SELECT at, at AT TIME ZONE 'Asia/Kathmandu', (at AT TIME ZONE 'Asia/Kathmandu')::date, \
    floor(extract(epoch FROM at) * 1000), (ARRAY['view', 'buy', NULL])[1 + n % 3], n \
    FROM (SELECT clock_timestamp() - since + n * interval '7 minutes' AS at, n \
    FROM generate_series(0, 34) n) r WHERE at <= clock_timestamp() $$; SELECT add('4 hours')";

/// A table of hours whose history began two days ago.
fn hourly(rest: &str) -> String {
    let start = (SystemClock.now() - TimeDelta::days(2)).date_naive();
    format!(
        "[[rollup]]\nname = \"hourly\"\nfrom = \"public.events\"\ntime = \"at\"\nstart = \"{start}\"\n\
         slice = \"1 hour\"\ngrace = \"0 seconds\"\nlive = true\npartition_by = \"month\"\ngroup_by = [\"kind\"]\n{rest}\n\
         measures = {{ events = \"count\", mean = {{ avg = \"amount\" }}, top = {{ max = \"amount\" }} }}\n"
    )
}

async fn world(rollups: &str, keeper: Keeper) -> World {
    World::new(ROWS, Setup { rollups, keeper, ..Setup::default() }).await
}

async fn tick(world: &World) {
    let clock = SystemClock;
    let deadline = Deadline::after(&clock, BUDGET);
    let report = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
    assert!(report.problems.is_empty() && report.left == 0, "{report:?}");
}

/// The hours of the source.
const DIRECT: &str = "SELECT date_trunc('hour', at, 'UTC'), kind, count(*), sum(amount), count(amount), \
    max(amount), sum(amount) / nullif(count(amount), 0) FROM public.events GROUP BY 1, 2";

const LIVE: &str =
    "SELECT bucket, kind, events, mean_sum, mean_count, top, mean FROM stats.hourly_live";

async fn are_equal(world: &World) {
    // The hour may end in between, and the last row is of the past.
    let (found, wanted) = (records(&world.target, LIVE).await, records(&world.pool, DIRECT).await);
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn a_live_view_has_what_is_computed_and_what_is_not() {
    for keeper in [Keeper::DynamoDb, Keeper::TargetsClock] {
        let world = world(&hourly(""), keeper).await;
        assert_eq!(records(&world.target, LIVE).await, [""; 0], "before the first tick");
        tick(&world).await;
        are_equal(&world).await;
        // The tick that tells of the slices' end, as no late change is looked for.
        let since = "(SELECT max(slice_end) FROM tallymark.slice)";
        let told = format!(
            "SELECT bool_or(complete) || ' ' || count(*) FROM stats.hourly_live WHERE bucket >= {since}"
        );
        let told = world.target_value(&told).await;
        assert!(told.is_empty() || told.starts_with("false "), "{told}");
        world.sql("SELECT add('0 seconds')").await;
        let fresh = format!(
            "SELECT coalesce(sum(events), 0) = (SELECT count(*) FROM public.events WHERE at >= {since}) \
             FROM stats.hourly_live WHERE bucket >= {since}"
        );
        assert_eq!(world.target_value(&fresh).await, "true", "{keeper:?}");
        // What the ticks have seen complete is told so.
        let complete = "SELECT count(*) FROM stats.hourly_live l, tallymark.coverage c \
                        WHERE l.complete <> (l.bucket < c.complete_through)";
        assert_eq!(world.target_value(complete).await, "0");
    }
}

/// Local times, dates and numbers; slices of several buckets, and buckets that are dates.
#[tokio::test]
async fn a_live_view_cuts_time_like_its_table() {
    let start = (SystemClock.now() - TimeDelta::days(4)).date_naive();
    let day = "(at AT TIME ZONE 'Asia/Kathmandu')::date";
    let shapes = [
        (
            "locals",
            "{ column = \"local\", zone = \"Asia/Kathmandu\" }",
            "bucket = \"1 hour\"",
            "date_trunc('hour', at, 'Asia/Kathmandu')",
        ),
        ("dates", "\"day\"", "bucket_as = \"date\"", day),
        ("numbers", "{ column = \"ms\", unit = \"milliseconds\" }", "bucket_as = \"date\"", day),
        (
            "instants",
            "\"at\"",
            "bucket = \"15 minutes\"",
            "date_bin('15 minutes', at, '2026-01-01Z')",
        ),
    ];
    let rollups = shapes.map(|(name, time, rest, _)| {
        format!(
            "[[rollup]]\nname = \"{name}\"\nfrom = \"public.events\"\ntime = {time}\nstart = \"{start}\"\n\
             slice = \"1 day\"\ntimezone = \"Asia/Kathmandu\"\nlive = true\n{rest}\n\
             where = \"kind IS NOT NULL\"\ngroup_by = [{{ kind = \"upper(kind)\" }}]\n\
             measures = {{ events = \"count\", users = {{ distinct = \"amount\" }} }}\n"
        )
    });
    let world = world(&rollups.concat(), Keeper::TargetsClock).await;
    tick(&world).await;
    for (name, _, _, bucket) in shapes {
        let live = format!("SELECT bucket, kind, events, users FROM stats.{name}_live");
        let direct = format!(
            "SELECT {bucket}, upper(kind), count(*), count(DISTINCT amount) FROM public.events \
             WHERE kind IS NOT NULL GROUP BY 1, 2"
        );
        let (found, wanted) =
            (records(&world.target, &live).await, records(&world.pool, &direct).await);
        assert_eq!(found, wanted, "{name}");
        assert!(!found.is_empty());
    }
}

/// Readers have rights on the view alone, and settings and tables of their own.
#[tokio::test]
async fn a_reader_of_a_live_view_sees_the_same_by_any_settings() {
    let rest = "late = \"grace\"";
    let rollups = hourly(rest).replace("[\"kind\"]", "[{ kind = \"to_char(at, 'HH24')\" }]");
    let rollups = rollups.replace("public.events", "events");
    let world = world(&rollups, Keeper::TargetsClock).await;
    tick(&world).await;
    let role = format!("reader_{:08x}", fastrand::u32(..));
    world
        .sql(&format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA stats TO {role}; \
             GRANT SELECT ON stats.hourly_live TO {role}"
        ))
        .await;
    let mut reader = PgConnection::connect(&world.urls.source).await.unwrap();
    let own = "CREATE TEMP TABLE events (at timestamptz, amount numeric); GRANT ALL ON pg_temp.events \
               TO PUBLIC; SET TimeZone = 'Asia/Kathmandu'; SET ROLE";
    reader.execute(AssertSqlSafe(format!("{own} {role}"))).await.unwrap();
    let sums = "SELECT string_agg(kind || ' ' || events, ', ' ORDER BY bucket, kind) FROM \
                stats.hourly_live";
    let seen: String = sqlx::query_scalar(sums).fetch_one(&mut reader).await.unwrap();
    assert_eq!(seen, world.target_value(sums).await);
    let hours: Vec<String> = seen.split(", ").map(|it| it[..2].to_owned()).collect();
    let last = hours.last().unwrap();
    let utc = [SystemClock.now(), SystemClock.now() - TimeDelta::hours(1)];
    assert!(utc.iter().any(|it| *last == format!("{:02}", it.hour())), "{seen}");
    let refused = reader.execute("SELECT FROM public.events").await.unwrap_err();
    assert!(refused.to_string().contains("permission denied"), "{refused}");
    reader.execute("RESET ROLE").await.unwrap();
    reader.execute(AssertSqlSafe(format!("DROP OWNED BY {role}; DROP ROLE {role}"))).await.unwrap();
}

/// A live view never reads more than some slices, however long no tick has come.
#[tokio::test]
async fn a_live_view_reads_no_source_after_a_long_silence() {
    let world = world(&hourly(""), Keeper::TargetsClock).await;
    tick(&world).await;
    let tail = "SELECT count(*) FROM tallymark.tail_hourly()";
    world.sql("SELECT add('0 seconds')").await;
    assert_ne!(world.target_value(tail).await, "0");
    let bounds = "SELECT (SELECT max(t) - min(t) FROM unnest(tail) t) = interval '4 hours' \
                  FROM tallymark.checked";
    assert_eq!(world.target_value(bounds).await, "true");
    world
        .target_sql(
            "UPDATE tallymark.checked SET tail = (SELECT array_agg(t - interval '5 hours') FROM \
             unnest(tail) t)",
        )
        .await;
    assert_eq!(world.target_value(tail).await, "0");
    let rows = "SELECT count(*) - (SELECT count(*) FROM stats.hourly) FROM stats.hourly_live";
    assert_eq!(world.target_value(rows).await, "0");
}

/// What `init` would still do for the live view.
async fn to_do(world: &World) -> Result<Vec<String>, String> {
    let (worker, rollup) = (&world.worker, world.rollup());
    let shape = ready::shape(worker, rollup).await.unwrap();
    let mut tx = worker.target.db.begin(Access::ReadOnly, BUDGET, "live").await.unwrap();
    let planned = live::plan(&mut tx, &worker.target, rollup, &shape).await;
    tx.rollback().await.unwrap();
    planned.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_live_view_follows_the_definition_and_ends_with_its_key() {
    let rollups = hourly("");
    let world = world(&rollups, Keeper::TargetsClock).await;
    assert_eq!(to_do(&world).await.unwrap(), [""; 0]);
    let has = "SELECT to_regclass('stats.hourly_live') IS NOT NULL AND \
               to_regprocedure('tallymark.tail_hourly()') IS NOT NULL";
    let wider = rollups.replace("top =", "least = { min = \"amount\" }, top =");
    let more = world.redefined(&wider);
    init(&more.worker).await.unwrap();
    let columns = "SELECT string_agg(attname, ' ' ORDER BY attnum) FROM pg_attribute \
                   WHERE attrelid = 'stats.hourly_live'::regclass";
    let named = "bucket kind events mean_sum mean_count least top mean complete";
    assert_eq!(more.target_value(columns).await, named);
    assert_eq!(to_do(&more).await.unwrap(), [""; 0]);
    let narrower = init(&world.worker).await.unwrap_err();
    let remedy =
        "DROP VIEW IF EXISTS \"stats\".\"hourly_live\"; ALTER TABLE \"stats\".\"hourly\" DROP";
    assert!(narrower.hint().unwrap().contains(remedy), "{narrower}");
    let without = world.redefined(&wider.replace("live = true", "live = false"));
    init(&without.worker).await.unwrap();
    let gone = "SELECT coalesce(to_regclass('stats.hourly_live')::text, \
                to_regprocedure('tallymark.tail_hourly()')::text, 'gone')";
    assert_eq!(world.target_value(gone).await, "gone");
    world.target_sql("CREATE TABLE stats.hourly_live (n int)").await;
    let refused = to_do(&world).await.unwrap_err();
    assert!(refused.contains("exists but was not made by Tallymark"), "{refused}");
    assert_eq!(to_do(&without).await.unwrap(), [""; 0], "a stranger's stays");
    world.target_sql("DROP TABLE stats.hourly_live").await;
    init(&more.worker).await.unwrap();
    assert_eq!(world.target_value(has).await, "true");
    drop_rollup::drop_rollup(&world.worker, "hourly").await.unwrap();
    assert_eq!(world.target_value(gone).await, "gone");
}
