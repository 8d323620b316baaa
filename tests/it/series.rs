//! `stats.<rollup>_series`: every group and step, zero where nothing was counted, NULL where nothing is
//! computed, `complete` where all of it is final.

mod expected;
mod page;
mod zones;

use std::sync::Arc;

use sqlx::{AssertSqlSafe, PgConnection};
use tallymark::clients::db::Access;
use tallymark::model::measure::KINDS;
use tallymark::model::rollup::Rollup;
use tallymark::target::{readers, series};
use tallymark::work::ready;

use self::expected::{Asked, State};
use crate::support::cli::Place;
use crate::support::world::{BUDGET, EVENTS, Setup, World, clock, random_events, records};
use crate::support::{kinds, share};

/// Days of the events.
const DAYS: u32 = 6;

/// Slices of them.
const SLICES: usize = 24;

/// The end of the last slice.
const END: &str = "2026-01-07T00:00:00Z";

/// The present, after the grace of that slice.
const NOW: &str = "2026-01-07T01:00:00Z";

/// A rollup of quarter hours in slices of six hours, with a measure of each kind.
fn all_kinds() -> String {
    let mut text =
        "[[rollup]]\nname = \"quarters\"\nfrom = \"public.events\"\ntime = \"created_at\"\n\
        start = \"2026-01-01\"\nslice = \"6 hours\"\nbucket = \"15 minutes\"\n\
        group_by = [\"kind\", \"entity_id\"]\n[rollup.measures]\n"
            .to_owned();
    for kind in KINDS {
        let written = kinds::written(*kind, kind.example_column(), "");
        text.push_str(&format!("{} = {written}\n", kinds::label(*kind)));
    }
    text
}

/// Makes the series of all rollups, as `tallymark init` does.
pub async fn make(world: &World) {
    for rollup in &world.worker.config.rollups {
        let shape = ready::shape(&world.worker, rollup).await.unwrap();
        let target = &world.worker.target;
        let mut tx = target.db.begin(Access::ReadWrite, BUDGET, "series").await.unwrap();
        for statement in series::plan(&mut tx, target, rollup, &shape).await.unwrap() {
            tx.execute("making the series", statement).await.unwrap();
        }
        assert_eq!(series::plan(&mut tx, target, rollup, &shape).await.unwrap(), [""; 0]);
        tx.commit().await.unwrap();
    }
}

/// A world of [`all_kinds`] whose slices are all computed, and what a tick would tell.
async fn world() -> World {
    let rollups = all_kinds();
    let clock = Arc::new(clock(NOW));
    let columns = "ALTER TABLE events ADD updated_at timestamptz, ADD is_paid boolean";
    let fill = "UPDATE events SET updated_at = created_at + random() * interval '1 day', \
                is_paid = CASE WHEN random() < 0.9 THEN random() < 0.5 END; \
                DELETE FROM events WHERE created_at >= '2026-01-03Z' AND created_at < '2026-01-03T07:00Z'";
    let sql = format!("{EVENTS}; {columns}; {}; {fill}", random_events(DAYS, 60));
    let world = World::new(&sql, Setup { rollups: &rollups, clock, ..Setup::default() }).await;
    make(&world).await;
    world.backfill(END, false).await;
    world.target_sql(&told(world.rollup(), "")).await;
    world
}

/// What a tick tells of a rollup. The suffix is that of its definition's generation.
fn told(rollup: &Rollup, suffix: &str) -> String {
    format!(
        "DELETE FROM tallymark.checked WHERE rollup = '{name}'; \
         INSERT INTO tallymark.checked (rollup, checked_at, definition, settled_by, history_from, \
         slice_seconds, grace_seconds, ends, failing) VALUES ('{name}', now(), '{}{suffix}', 'grace', \
         '2026-01-01Z', {}, 0, '{{}}', '{{}}')",
        rollup.definition(),
        rollup.calendar.containing(rollup.start).duration().num_seconds(),
        name = rollup.name,
    )
}

async fn rows(connection: &mut PgConnection, sql: &str) -> Vec<String> {
    let sql = format!("SELECT r::text FROM ({sql}) r");
    sqlx::query_scalar(AssertSqlSafe(&*sql))
        .fetch_all(connection)
        .await
        .unwrap_or_else(|error| panic!("{error}: {sql}"))
}

#[tokio::test]
async fn a_series_equals_one_group_by_of_what_is_computed() {
    let draws = if share::is_whole() { 400 } else { 25 };
    let world = world().await;
    let mut connection = world.target.acquire().await.unwrap();
    let single = State::ALL.map(|state| {
        let mut states = vec![State::Complete; SLICES];
        states[10] = state;
        (0, states, Asked::each_slice())
    });
    let drawn = (0..draws).map(|_| {
        let seed = fastrand::u64(..);
        let mut random = fastrand::Rng::with_seed(seed);
        (seed, State::drawn(&mut random, SLICES), Asked::drawn(&mut random))
    });
    for (seed, states, asked) in single.into_iter().chain(drawn) {
        let mut tx = sqlx::Connection::begin(&mut *connection).await.unwrap();
        for sql in expected::applied(&states) {
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
        }
        let (found, wanted) = (asked.series(), asked.expected(&states));
        let sql = format!(
            "(SELECT 'extra ' || x::text FROM ({found} EXCEPT ALL {wanted}) x LIMIT 3) UNION ALL \
             (SELECT 'missing ' || x::text FROM ({wanted} EXCEPT ALL {found}) x LIMIT 3)"
        );
        let differing = rows(&mut tx, &sql).await;
        assert_eq!(differing, [""; 0], "seed {seed}: {asked:?} {states:?}");
        let approximate = asked.approximate();
        assert_eq!(rows(&mut tx, &approximate).await, [""; 0], "seed {seed}: {approximate}");
        tx.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn a_measure_has_a_column_in_the_series_if_it_merges() {
    let world = World::new(EVENTS_ALL, Setup { rollups: &all_kinds(), ..Setup::default() }).await;
    make(&world).await;
    let columns =
        "SELECT attname FROM pg_attribute WHERE attrelid = 'stats.quarters_series'::regclass";
    let columns = records(&world.target, columns).await;
    for kind in KINDS {
        let has = |name: &str| columns.contains(&format!("({name})"));
        let name = kinds::label(*kind);
        let is_there = has(&name) || has(&format!("{name}_p50"));
        assert_eq!(is_there, kinds::merges(*kind), "{name}: {columns:?}");
    }
    let comments = "SELECT obj_description('stats.quarters_series'::regtype, 'pg_type') IS NOT NULL AND \
                    count(*) = count(obj_description(oid, 'pg_proc')) FROM pg_proc \
                    WHERE pronamespace::regnamespace::text IN ('stats', 'tallymark') \
                    AND proname NOT IN (SELECT proname FROM pg_proc WHERE provolatile = 'i')";
    assert_eq!(world.target_value(comments).await, "true");
}

const EVENTS_ALL: &str = "CREATE TABLE events (id bigint, created_at timestamptz, kind text, entity_id int, \
    user_id int, amount numeric, updated_at timestamptz, is_paid boolean); CREATE INDEX ON events (created_at)";

/// A rollup with dimensions whose names are those of the arguments, and of dates.
const HOSTILE: &str = r#"
[[rollup]]
name = "dated"
from = "public.events"
time = "created_at"
start = "2026-01-01"
slice = "1 day"
bucket_as = "date"
timezone = "America/Sao_Paulo"
group_by = [{ step = "kind" }, { zone = "kind" }, { "Only \"x\"" = "entity_id" }]
measures = { since = "count", until = { sum = "amount" } }

[[rollup]]
name = "bare"
from = "public.events"
time = "created_at"
start = "2026-01-01"
slice = "1 day"
measures = { events = "count" }
"#;

#[tokio::test]
async fn names_types_and_rollups_without_dimensions_are_no_hindrance() {
    let setup = Setup { rollups: HOSTILE, clock: Arc::new(clock(NOW)), ..Setup::default() };
    let sql = format!("{EVENTS}; {}", random_events(3, 5));
    let world = World::new(&sql, setup).await;
    make(&world).await;
    for rollup in &world.worker.config.rollups {
        world.backfill_one(rollup, "2026-01-06T03:00:00Z", false).await;
    }
    let differing = "SELECT bucket, step, zone, \"Only \"\"x\"\"\", since, until FROM stats.dated_series( \
        '2026-01-01', '2026-01-06', '1 day') WHERE since > 0 EXCEPT ALL SELECT bucket, step, zone, \
        \"Only \"\"x\"\"\", since, coalesce(until, 0) FROM stats.dated";
    assert_eq!(records(&world.target, differing).await, [""; 0]);
    let all = "SELECT (SELECT sum(since) FROM stats.dated_series('2026-01-01T03:00Z', '2026-01-05', '1 month', \
        by => '{zone}', \"only\" => '{\"step\": [\"view\", null]}')) = \
        (SELECT sum(since) FROM stats.dated WHERE step = 'view' OR step IS NULL)";
    assert_eq!(world.target_value(all).await, "true");
    let bare = "SELECT string_agg(concat_ws(' ', bucket::date, events IS NULL, complete), ', ' ORDER BY bucket) \
        FROM stats.bare_series('2026-01-04Z', '2026-01-08Z', '1 day', 'UTC')";
    let wanted = "2026-01-04 f t, 2026-01-05 f t, 2026-01-06 f t, 2026-01-07 t f";
    assert_eq!(world.target_value(bare).await, wanted);
}

#[tokio::test]
async fn what_a_series_cannot_say_is_refused_with_what_would_work() {
    let rollups = all_kinds().replace("15 minutes", "1 hour");
    let world = World::new(EVENTS_ALL, Setup { rollups: &rollups, ..Setup::default() }).await;
    make(&world).await;
    let series = |rest: &str| format!("SELECT 1 FROM stats.quarters_series('2026-01-01Z', {rest})");
    for (rest, facts, hint) in [
        ("'2026-02-01Z', '90 minutes'", "whole buckets of 1 hour", "use a multiple of 1 hour"),
        ("'2026-02-01Z', '0 days'", "whole buckets", "use a multiple"),
        ("'2026-02-01Z', '1 month 1 day'", "whole buckets", "use a multiple"),
        ("'2026-02-01Z', '1 day', 'Asia/Kolkata'", "begins inside of a bucket", "narrower buckets"),
        ("'2026-02-01Z', '1 day', 'Mars/Olympus'", "not recognized", "pg_timezone_names"),
        ("'2026-02-01Z', '1 day', 'UTC', '{user}'", "user is no dimension", "use kind, entity_id"),
        ("'2026-02-01Z', '1 day', 'UTC', NULL, '{\"user\": 1}'", "no dimension", "use kind"),
        ("'2026-02-01Z', '1 day', 'UTC', NULL, '[1]'", "no object", "{\"kind\": \"view\"}"),
        ("'infinity', '1 day'", "has no bounds", "finite"),
        ("NULL, '1 day'", "must be given", "write the first instant"),
        ("'2046-01-01Z', '1 hour'", "more than 100000 steps", "wider step"),
    ] {
        let error = sqlx::query(AssertSqlSafe(series(rest))).fetch_all(&world.target).await;
        let error = error.unwrap_err();
        let error = error.as_database_error().unwrap();
        let error = error.downcast_ref::<sqlx::postgres::PgDatabaseError>();
        assert!(error.message().contains(facts), "{rest}: {error:?}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{rest}: {error:?}");
    }
    // More groups than a call may return.
    world
        .target_sql(
            "INSERT INTO stats.quarters (bucket, kind, entity_id, count) \
             SELECT '2026-01-01Z', 'view', n, 1 FROM generate_series(1, 1001) n",
        )
        .await;
    let sql = "SELECT count(*) FROM stats.quarters_series('2026-01-01Z', '2026-02-13Z', '1 hour')";
    let refused = sqlx::query(sql).fetch_all(&world.target).await.unwrap_err();
    assert!(refused.to_string().contains("more than 1000000 rows"), "{refused}");
    let fits = "SELECT count(*) FROM stats.quarters_series('2026-01-01Z', '2026-02-11Z', '1 day')";
    assert_eq!(world.target_value(fits).await, "41041");
}

/// The function is of the definition with which `init` made it.
#[tokio::test]
async fn a_series_of_another_definition_refuses_until_init_runs() {
    let world = World::new(EVENTS, Setup { rollups: HOSTILE, ..Setup::default() }).await;
    make(&world).await;
    let bare = &world.worker.config.rollups[1];
    world.target_sql(&told(bare, ".2")).await;
    let asked = "SELECT count(*) FROM stats.bare_series('2026-01-04Z', '2026-01-08Z', '1 day')";
    assert_eq!(world.target_value(asked).await, "4");
    world.target_sql("UPDATE tallymark.checked SET definition = '0123456789abcdef.2'").await;
    let refused = sqlx::query(asked).fetch_all(&world.target).await.unwrap_err();
    assert!(refused.to_string().contains("has changed since"), "{refused}");
    let changed = HOSTILE
        .replace("{ events = \"count\" }", "{ events = \"count\", top = { max = \"amount\" } }");
    let changed = world.redefined(&changed);
    changed.init().await.unwrap();
    make(&changed).await;
    let bare = changed.worker.config.rollups[1].definition();
    world.target_sql(&format!("UPDATE tallymark.checked SET definition = '{bare}'")).await;
    let asked = "SELECT count(*) || ' ' || count(top) FROM stats.bare_series('2026-01-04Z', '2026-01-08Z', '1 day')";
    assert_eq!(world.target_value(asked).await, "4 0");
}

/// The role may call the series, and read nothing of Tallymark's own tables.
#[tokio::test]
async fn a_reader_may_call_the_series() {
    let setup = Setup { rollups: HOSTILE, clock: Arc::new(clock(NOW)), ..Setup::default() };
    let world = World::new(EVENTS, setup).await;
    make(&world).await;
    let role = format!("reader_{:016x}", fastrand::u64(..));
    world
        .target_sql(&format!(
            "CREATE ROLE {role}; GRANT USAGE ON SCHEMA stats, tallymark TO {role}; \
             GRANT SELECT ON ALL TABLES IN SCHEMA stats TO {role}; \
             REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA stats, tallymark FROM PUBLIC"
        ))
        .await;
    let mut tx = world.worker.target.db.begin(Access::ReadWrite, BUDGET, "grants").await.unwrap();
    let rollups = &world.worker.config.rollups;
    let grants =
        readers::grants(&mut tx, &world.worker.target, std::slice::from_ref(&role), rollups)
            .await
            .unwrap();
    assert!(grants.len() > 8, "{grants:?}");
    for grant in grants {
        tx.execute("granting", grant).await.unwrap();
    }
    tx.commit().await.unwrap();
    let mut tx = world.target.begin().await.unwrap();
    let sql = format!("SET LOCAL ROLE {role}");
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
    for name in ["dated", "bare"] {
        let sql = format!(
            "SELECT * FROM stats.{name}_series('2026-01-01T03:00Z', '2026-02-01', '1 day')"
        );
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut *tx).await.unwrap();
    }
    let refused = sqlx::query("SELECT FROM tallymark.slice").execute(&mut *tx).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn an_object_of_others_with_the_name_of_a_series_is_a_finding_among_the_others() {
    let (place, _database) = Place::with_events(2).await;
    place.run(&["init"]).good();
    place
        .sql(
            "DROP FUNCTION stats.daily_series; DROP TYPE stats.daily_series; \
             CREATE TYPE stats.daily_series AS (theirs integer)",
        )
        .await;
    let check = place.run(&["check"]);
    assert_ne!(check.code, Some(0), "{check:?}");
    for words in
        ["daily_series\" exists but was not made by Tallymark", "stats\".\"daily\" is ready"]
    {
        assert!(check.words().contains(words), "{words}: {check:?}");
    }
}
