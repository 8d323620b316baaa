//! The functions of the capture triggers: the hours that they mark, and their safety against the
//! session.

use std::sync::Arc;

use crate::capture::{HOUR, marks, tick, world};
use crate::support::world::{EVENTS, Setup, Urls, World, clock, install_capture};
use crate::support::{Database, share};
use crate::versions::server;

/// Four kinds of time column, each counted by a rollup.
const FOUR: &str = "CREATE TABLE events (instant timestamptz, local timestamp, day date, epoch bigint); \
                    CREATE INDEX ON events (instant); CREATE INDEX ON events (local); \
                    CREATE INDEX ON events (day); CREATE INDEX ON events (epoch)";

async fn four() -> World {
    let database = Database::create().await;
    four_at(Urls { source: database.url(), target: None }).await
}

async fn four_at(urls: Urls) -> World {
    let times = [
        ("instant", "\"instant\""),
        ("local", "{ column = \"local\", zone = \"Asia/Kathmandu\" }"),
        ("day", "{ column = \"day\", zone = \"Europe/London\" }"),
        ("epoch", "{ column = \"epoch\", unit = \"milliseconds\" }"),
    ];
    let rollups = times.map(|(name, time)| {
        let zone = if name == "day" { "timezone = \"Europe/London\"\n" } else { "" };
        format!(
            "[[rollup]]\nname = \"{name}ly\"\nfrom = \"public.events\"\ntime = {time}\n{zone}\
             start = \"2025-01-01\"\nslice = \"1 day\"\nlate = \"capture\"\n\
             [rollup.measures]\nevents = \"count\"\n"
        )
    });
    let clock = Arc::new(clock("2026-04-05T12:00:00Z"));
    let setup = Setup { rollups: &rollups.concat(), clock, ..Setup::default() };
    let world = World::at(urls, setup).await;
    world.sql(FOUR).await;
    world.init().await.unwrap();
    install_capture(&world.worker).await;
    world
}

const BY_AXIS: &str = "SELECT string_agg(axis || ' ' || first_hour || '-' || last_hour, ', ' ORDER BY axis, \
                       first_hour) FROM tallymark.mark";

/// The marks of each axis.
async fn by_axis(world: &World) -> String {
    world.target_value(BY_AXIS).await
}

/// Operators, functions and types that fit better than PostgreSQL's own, and come first in the
/// path.
const TRAPS: &str = "CREATE SCHEMA trap; \
    CREATE FUNCTION trap.date_part(text, timestamptz) RETURNS float8 LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap'; END $$; \
    CREATE FUNCTION trap.floor(float8) RETURNS float8 LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap'; END $$; \
    CREATE FUNCTION trap.strpos(text, text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap'; END $$; \
    CREATE FUNCTION trap.split_part(text, text, int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap'; END $$; \
    CREATE FUNCTION trap.current_setting(text, bool) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap'; END $$; \
    CREATE FUNCTION trap.is(text, text) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap'; END $$; \
    CREATE FUNCTION trap.is(int, int) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap'; END $$; \
    CREATE FUNCTION trap.cat(text, bigint) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap'; END $$; \
    CREATE FUNCTION trap.cat(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap'; END $$; \
    CREATE FUNCTION trap.by(float8, float8) RETURNS float8 LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap'; END $$; \
    CREATE FUNCTION trap.by(float8, int) RETURNS float8 LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap'; END $$; \
    CREATE FUNCTION trap.plus(date, int) RETURNS date LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap'; END $$; \
    CREATE FUNCTION trap.minus(timestamptz, interval) RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN RAISE 'trap'; END $$; \
    CREATE OPERATOR trap.= (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.is); \
    CREATE OPERATOR trap.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.is); \
    CREATE OPERATOR trap.= (LEFTARG = int, RIGHTARG = int, FUNCTION = trap.is); \
    CREATE OPERATOR trap.|| (LEFTARG = text, RIGHTARG = bigint, FUNCTION = trap.cat); \
    CREATE OPERATOR trap.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = trap.cat); \
    CREATE OPERATOR trap./ (LEFTARG = float8, RIGHTARG = float8, FUNCTION = trap.by); \
    CREATE OPERATOR trap./ (LEFTARG = float8, RIGHTARG = int, FUNCTION = trap.by); \
    CREATE OPERATOR trap.+ (LEFTARG = date, RIGHTARG = int, FUNCTION = trap.plus); \
    CREATE OPERATOR trap.- (LEFTARG = timestamptz, RIGHTARG = interval, FUNCTION = trap.minus); \
    CREATE TYPE trap.text AS (trap int); CREATE TYPE trap.date AS (trap int)";

/// The function runs with its owner's rights, in any session.
#[tokio::test]
async fn no_search_path_of_the_session_misleads_the_triggers() {
    let world = four().await;
    world.sql(TRAPS).await;
    let hostile = "BEGIN; SET LOCAL search_path = trap, pg_catalog, public; SET LOCAL \
                   extra_float_digits = -15";
    let hour = |of: i64| HOUR + of;
    let expected = format!(
        "day day Europe/London {0}-{1}, day day Europe/London {2}-{3}, epoch epoch milliseconds \
         {4}-{4}, epoch epoch milliseconds {5}-{5}, instant {4}-{4}, instant {5}-{5}, local local \
         Asia/Kathmandu {4}-{4}, local local Asia/Kathmandu {5}-{5}",
        hour(0),
        hour(23),
        hour(24),
        hour(47),
        hour(5),
        hour(6)
    );
    let insert = "INSERT INTO public.events VALUES ('2026-01-01T05:10Z', '2026-01-01T11:10', \
                  '2026-01-01', 1767244200000), ('2026-01-01T06:10Z', '2026-01-01T12:10', \
                  '2026-01-02', 1767247800000)";
    for change in [insert, "DELETE FROM public.events"] {
        world.sql(&format!("{hostile}; {change}; COMMIT")).await;
        assert_eq!(by_axis(&world).await, expected, "{change}");
        world.sql("DELETE FROM tallymark.mark").await;
    }
}

/// The traps in the given schema: every function and operator that the capture's functions may use,
/// under the same name, for the same types and for types that fit a call better. Each ends in an
/// error. Types that PostgreSQL reserves are left out.
const EVERY_TRAP: &str = include_str!("capture_traps.sql");

/// A role that may write to the table, and create objects in `public` and in its own schema, cannot
/// make functions that run as the owner call its code.
async fn no_trap_is_called(major: u16) {
    let (_server, urls) = server(major, "capture").await;
    let world = four_at(Urls { target: None, ..urls }).await;
    world
        .sql(
            "CREATE ROLE app; CREATE SCHEMA app AUTHORIZATION app; GRANT CREATE, USAGE ON SCHEMA public TO \
             app; GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON events TO app; GRANT TEMP ON DATABASE \
             source TO app",
        )
        .await;
    let insert = "INSERT INTO public.events VALUES ('2026-01-01T05:10Z', '2026-01-01T11:10', '2026-01-01', \
                  1767244200000), ('2026-01-01T05:20Z', '2026-01-01T11:20', '2026-01-01', 1767244800000)";
    world.sql(&format!("BEGIN; SET LOCAL ROLE app; {insert}; COMMIT")).await;
    let expected = by_axis(&world).await;
    assert_eq!(expected.matches(", ").count(), 3, "{expected}");
    world.sql("DELETE FROM tallymark.mark").await;
    let temporary = "CREATE TEMP TABLE mark (capture text); CREATE TYPE pg_temp.text AS (trap int)";
    let of = |schema: &str| EVERY_TRAP.trim().replace("trapped", schema);
    for (schema, traps) in
        [("public", of("public")), ("app", of("app")), ("pg_temp", temporary.into())]
    {
        for change in
            [insert, "UPDATE public.events SET epoch = 1767244200001", "DELETE FROM public.events"]
        {
            let mut tx = world.pool.begin().await.unwrap();
            let late = format!(
                "SET LOCAL ROLE app; {traps}; SET LOCAL search_path = {schema}, pg_catalog, public; {change}; \
                 RESET ROLE; SET LOCAL search_path = pg_catalog"
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(late)).execute(&mut *tx).await.unwrap();
            let marked: String = sqlx::query_scalar(BY_AXIS).fetch_one(&mut *tx).await.unwrap();
            assert_eq!(marked, expected, "PostgreSQL {major}, {schema}: {change}");
            tx.rollback().await.unwrap();
        }
    }
    world.sql("BEGIN; SET LOCAL ROLE app; TRUNCATE events; COMMIT").await;
    assert_eq!(world.target_value("SELECT count(*) FROM tallymark.mark").await, "4");
}

/// Versions of PostgreSQL that a run tries.
const VERSIONS_TRIED: usize = 2;

#[tokio::test]
async fn on_any_postgresql_no_writer_runs_code_as_the_owner() {
    let versions = 13..=18;
    for (cell, major) in versions.clone().enumerate() {
        if share::is_drawn("versions of PostgreSQL", cell, versions.clone().count(), VERSIONS_TRIED)
        {
            no_trap_is_called(major).await;
        }
    }
}

/// The setting in which the capture of `events` stores its marks.
const SETTING: &str = "(SELECT 'tallymark.' || proname FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid \
                       WHERE t.tgname = 'tallymark_insert')";

/// The transactions of one session.
async fn does(session: &mut sqlx::PgConnection, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql.to_owned())).execute(session).await.unwrap();
}

async fn list(session: &mut sqlx::PgConnection) -> String {
    let sql = format!("SELECT current_setting({SETTING})");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(session).await.unwrap()
}

/// A session may write anything into the setting that stores marks. An hour may then be marked
/// twice, but it is always marked.
#[tokio::test]
async fn no_setting_of_the_session_keeps_an_hour_from_being_marked() {
    let world = world(EVENTS).await;
    let late = "INSERT INTO events (created_at) VALUES ('2026-01-01T05:10Z')";
    let mut session = world.pool.acquire().await.unwrap();
    does(&mut session, &format!("BEGIN; {late}")).await;
    let honest = list(&mut session).await;
    does(&mut session, "COMMIT").await;
    let mine = format!("0:{}=", HOUR + 5);
    assert!(honest.starts_with(&format!("3600;{mine}(0,")), "{honest}");
    let count = "SELECT count(*) FROM tallymark.mark";
    let forged = [
        honest.clone(),
        "*".into(),
        "*(0,1)".into(),
        String::new(),
        format!("3600,{mine}"),
        format!("3600;{mine};"),
        format!("3600;{mine}x;"),
        format!("3600;{mine}(0,0);"),
        format!("3600;{mine}(,);"),
        "86400;0:20454=(0,1);".into(),
        "2764800;0:639=(0,1);".into(),
        "-1;".into(),
    ];
    for forged in forged {
        let before = world.target_value(count).await;
        let set = format!("set_config({SETTING}, '{forged}', false)");
        does(&mut session, &format!("SELECT {set}; BEGIN; SELECT {set}; {late}; COMMIT")).await;
        assert_ne!(world.target_value(count).await, before, "{forged}");
    }
    // The list of a savepoint, kept while the savepoint and its marks are rolled back.
    does(&mut session, &format!("DELETE FROM tallymark.mark; BEGIN; SAVEPOINT a; {late}")).await;
    let kept = list(&mut session).await;
    let again =
        format!("ROLLBACK TO a; SELECT set_config({SETTING}, '{kept}', true); {late}; COMMIT");
    does(&mut session, &again).await;
    assert_eq!(marks(&world).await, format!("{}+1", HOUR + 5));
}

/// Searching for the transaction's own mark makes no two transactions depend on each other.
#[tokio::test]
async fn serializable_writers_of_late_rows_do_not_fail() {
    let world = world(EVENTS).await;
    let mut sessions = [world.pool.acquire().await.unwrap(), world.pool.acquire().await.unwrap()];
    for session in &mut sessions {
        does(session, "BEGIN ISOLATION LEVEL SERIALIZABLE").await;
    }
    for hour in [5, 6, 5] {
        for session in &mut sessions {
            let late = format!("INSERT INTO events (created_at) VALUES ('2026-01-01T0{hour}:10Z')");
            does(session, &late).await;
        }
    }
    for session in &mut sessions {
        does(session, "COMMIT").await;
    }
    let (five, six) = (HOUR + 5, HOUR + 6);
    assert_eq!(marks(&world).await, format!("{five}+1,{five}+1,{six}+1,{six}+1"));
}

/// The list of marked hours is rolled back together with the marks.
#[tokio::test]
async fn a_savepoint_that_is_rolled_back_leaves_no_hour_unmarked() {
    let world = world(EVENTS).await;
    let late =
        |hour: u32| format!("INSERT INTO events (created_at) VALUES ('2026-01-01T0{hour}:10Z')");
    world
        .sql(&format!(
            "BEGIN; SAVEPOINT a; {0}; ROLLBACK TO a; {0}; SAVEPOINT b; {1}; ROLLBACK TO b; {0}; {1}; \
             COMMIT",
            late(5),
            late(6)
        ))
        .await;
    assert_eq!(marks(&world).await, format!("{}+1,{}+1", HOUR + 5, HOUR + 6));
}

/// Where clocks go forward at midnight UTC, two dates begin on the same day of UTC.
#[tokio::test]
async fn days_are_marked_to_their_ends_by_a_transaction_that_has_come_to_the_unit_of_a_day() {
    let world = four().await;
    world
        .sql(
            "BEGIN; SELECT set_config('tallymark.' || proname, '86400;', true) FROM pg_trigger JOIN \
             pg_proc p ON p.oid = tgfoid WHERE tgname = 'tallymark_insert'; INSERT INTO events (day) \
             VALUES ('2026-03-29'), ('2026-03-30'); COMMIT",
        )
        .await;
    let days = |from: i64, to: i64| format!("day day Europe/London {}-{}", from * 24, to * 24 + 23);
    // 2026-03-29 is the 20,541st day.
    let expected = format!("{}, {}", days(20_541, 20_541), days(20_541, 20_542));
    assert_eq!(by_axis(&world).await, expected);
}

/// The two ends of the centuries in which hours are told apart.
#[tokio::test]
async fn times_of_other_centuries_are_marked_too() {
    let world = world(EVENTS).await;
    world
        .sql(
            "BEGIN; INSERT INTO events (created_at) VALUES ('1899-12-31T23:59Z'), \
             ('1850-06-01T12:00Z'), ('0100-01-01T00:00Z'); UPDATE events SET created_at = \
             created_at + interval '300 years' WHERE id < 3; COMMIT",
        )
        .await;
    let missed = "SELECT count(*) FROM (SELECT created_at FROM events UNION ALL SELECT created_at - \
                  interval '300 years' FROM events) e WHERE NOT EXISTS (SELECT FROM tallymark.mark \
                  WHERE extract(epoch FROM created_at) / 3600 >= first_hour AND extract(epoch FROM \
                  created_at) / 3600 < last_hour + 1)";
    assert_eq!(world.target_value(missed).await, "0");
    assert_eq!(world.target_value("SELECT count(*) FROM tallymark.mark").await, "2");
}

/// The installation of an older version, and dropped objects.
#[tokio::test]
async fn an_older_or_broken_installation_is_an_alarm_and_is_put_right() {
    let world = world(EVENTS).await;
    let function =
        "(SELECT tgfoid::regproc::text FROM pg_trigger WHERE tgname = 'tallymark_insert')";
    let mark = "(oid, text, text, double precision, double precision)";
    world
        .sql(&format!(
            "DO $$ BEGIN EXECUTE format('DROP FUNCTION %s_mark{mark}', {function}); END $$"
        ))
        .await;
    let problems = tick(&world).await.problems;
    assert!(problems[0].error.contains("that marks late changes of"), "{problems:?}");
    world
        .sql(&format!(
            "DO $$ BEGIN EXECUTE format('COMMENT ON FUNCTION %s() IS %L', {function}, \
             replace(obj_description({function}::regproc), '\"version\":4', '\"version\":1')); END $$"
        ))
        .await;
    let problems = tick(&world).await.problems;
    assert!(problems[0].error.contains("made for other settings"), "{problems:?}");
    install_capture(&world.worker).await;
    assert_eq!(tick(&world).await.problems.len(), 0);
    world.sql("INSERT INTO events (created_at) VALUES ('2026-01-01T05:10Z')").await;
    assert_eq!(marks(&world).await, format!("{}+1", HOUR + 5));
}
