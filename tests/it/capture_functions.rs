//! The functions behind the capture triggers: which hours they mark, and that nothing in the session
//! can mislead them.

use std::sync::Arc;

use crate::capture::{HOUR, marks, tick, world};
use crate::support::world::{EVENTS, Setup, World, clock, install_capture};

/// Four ways to say when a row happened, each counted by a rollup.
const FOUR: &str = "CREATE TABLE events (instant timestamptz, local timestamp, day date, epoch bigint); \
                    CREATE INDEX ON events (instant); CREATE INDEX ON events (local); \
                    CREATE INDEX ON events (day); CREATE INDEX ON events (epoch)";

async fn four() -> World {
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
    let world = World::new(FOUR, setup).await;
    install_capture(&world.worker).await;
    world
}

/// The marks of each axis.
async fn by_axis(world: &World) -> String {
    let sql = "SELECT string_agg(axis || ' ' || first_hour || '-' || last_hour, ', ' ORDER BY axis, \
               first_hour) FROM tallymark.mark";
    world.target_value(sql).await
}

/// Operators, functions and types that fit better than PostgreSQL's own, and come before them.
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

/// The function runs with its owner's rights, in a session of anybody's.
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

/// The list of marked hours goes back with the marks; nobody thinks then that they are there.
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

/// Where clocks go forward at midnight UTC, two dates begin in the same day of UTC.
#[tokio::test]
async fn days_are_marked_to_their_ends_by_a_transaction_that_has_come_to_the_unit_of_a_day() {
    let world = four().await;
    world
        .sql(
            "BEGIN; SELECT set_config('tallymark.' || proname, '86400,', true) FROM pg_trigger JOIN \
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

/// What an older version installed, and what somebody dropped.
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
             replace(obj_description({function}::regproc), '\"version\":2', '\"version\":1')); END $$"
        ))
        .await;
    let problems = tick(&world).await.problems;
    assert!(problems[0].error.contains("made for other settings"), "{problems:?}");
    install_capture(&world.worker).await;
    assert_eq!(tick(&world).await.problems.len(), 0);
    world.sql("INSERT INTO events (created_at) VALUES ('2026-01-01T05:10Z')").await;
    assert_eq!(marks(&world).await, format!("{}+1", HOUR + 5));
}
