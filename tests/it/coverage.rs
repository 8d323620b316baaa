//! What readers of the target are told: `tallymark.coverage` and `tallymark.slice_state`.

use std::pin::pin;
use std::sync::Arc;

use tallymark::check::repair;
use tallymark::clients::db::Access;
use tallymark::model::clock::Deadline;
use tallymark::model::measure::KINDS;
use tallymark::target::readers;
use tallymark::work::identity;
use tallymark::work::late;
use tallymark::work::report::RollupProblem;

use crate::capture::{captured, tick};
use crate::support::polls::{polled, sweep};
use crate::support::world::{
    BUDGET, DAILY, EVENTS, Keeper, Setup, World, checkpoints, clock, install_capture, instant,
    records,
};
use crate::support::{kinds, share};

const LATE: &str = "INSERT INTO events (created_at, kind) VALUES ('2026-01-01T05:10Z', 'late')";

/// How far the rollup is, and what is not complete.
const TOLD: &str = "SELECT concat_ws(' ', rollup, to_char(complete_through, 'MM-DD'), stale, failing, \
    settled_by) FROM tallymark.coverage";

/// Whether the first of January is complete, and how many rows it has.
const FIRST: &str = "SELECT coalesce((SELECT state FROM tallymark.slices_of('daily', '-infinity', 'infinity') \
    WHERE slice_start = '2026-01-01Z'), 'missing') || ' ' || \
    coalesce((SELECT sum(events) FROM stats.daily WHERE bucket < '2026-01-02Z'), 0)";

const KEEPERS: [(Keeper, bool); 3] =
    [(Keeper::DynamoDb, false), (Keeper::DynamoDb, true), (Keeper::Target, false)];

/// A captured rollup by the day, on the second day, with one row on the first.
async fn world(keeper: Keeper, across: bool) -> World {
    let clock = Arc::new(clock("2026-01-02T12:00:00Z"));
    let rollups = captured();
    let setup = Setup { rollups: &rollups, clock, keeper, across, ..Setup::default() };
    let world = World::new(&format!("{EVENTS}; {LATE}"), setup).await;
    install_capture(&world.worker).await;
    world.sql("DELETE FROM tallymark.mark").await;
    world
}

async fn notice(world: &World) {
    let problems = try_notice(world).await;
    assert!(problems.is_empty(), "{problems:?}");
}

/// Looks for late changes. Returns the problems.
async fn try_notice(world: &World) -> Vec<RollupProblem> {
    let deadline = Deadline::after(&*world.worker.clock, BUDGET);
    late::notice(&world.worker, deadline).await
}

#[tokio::test]
async fn a_late_row_makes_its_slice_stale_until_it_is_counted() {
    for (keeper, across) in KEEPERS {
        let world = world(keeper, across).await;
        let told = async || world.target_value(TOLD).await;
        assert_eq!(told().await, "daily 0 0", "nothing is told before the first tick");
        tick(&world).await;
        tick(&world).await;
        let complete = "daily 01-02 0 0 capture";
        assert_eq!(told().await, complete, "{keeper:?}");
        let first = async || world.target_value(FIRST).await;
        assert_eq!(first().await, "complete 1");

        world.sql(LATE).await;
        let checked = "SELECT checked_at < clock_timestamp() FROM tallymark.coverage";
        assert_eq!(world.target_value(checked).await, "true");
        notice(&world).await;
        assert_eq!(first().await, "stale 1");
        let why = "SELECT state || ' ' || reason || ' ' || attempt FROM tallymark.slice_state";
        assert_eq!(world.target_value(why).await, "stale late change 1");
        assert_eq!(told().await, "daily 01-01 1 0 capture", "{keeper:?}");
        tick(&world).await;
        assert_eq!(first().await, "complete 2");
        assert_eq!(told().await, complete);
    }
}

/// A late row commits and is noticed while a worker has read a part of its slice.
#[tokio::test]
async fn a_late_row_is_never_hidden_by_a_worker_that_had_not_read_it() {
    for (keeper, across) in KEEPERS {
        let world = world(keeper, across).await;
        tick(&world).await;
        let mut rows = 1;
        // Of a whole run every poll, so that no draw leaves out the one that shows a fault.
        let stride = || if share::is_whole() { 1 } else { fastrand::usize(1..12) };
        for polls in sweep(stride().div_ceil(2), stride) {
            // Some runs begin after a change that was found, and has yet to be counted.
            if polls % 2 == 0 {
                rows += 1;
                world.sql(LATE).await;
                assert_eq!(try_notice(&world).await.len(), 0);
            } else {
                world.reopen("2026-01-01").await;
            }
            let is_noticed;
            let ended = {
                let mut run = pin!(world.run("2026-01-01"));
                let ended = polled(&mut run, polls).await.is_some();
                rows += 1;
                world.sql(LATE).await;
                // A worker that stands still in its transaction may hold what the tick has to write.
                // Then nothing is acknowledged, and `checked_at` stays.
                is_noticed = try_notice(&world).await.is_empty();
                if !ended {
                    run.await;
                }
                ended
            };
            let found = world.target_value(FIRST).await;
            let (complete, stale) = (format!("complete {rows}"), "stale ");
            assert!(
                !is_noticed || found == complete || found.starts_with(stale),
                "{keeper:?}, across {across}, {polls} polls: {found}, and there are {rows} rows"
            );
            tick(&world).await;
            assert_eq!(world.target_value(FIRST).await, complete, "{polls} polls");
            if ended {
                break;
            }
        }
    }
}

/// A late row commits while a tick is anywhere in its work. What the tick tells as checked holds the
/// row, or is from before it.
#[tokio::test]
async fn a_change_after_a_look_is_not_told_as_found() {
    let world = world(Keeper::DynamoDb, false).await;
    tick(&world).await;
    tick(&world).await;
    let mut rows = 1;
    // As above.
    let stride = || if share::is_whole() { 1 } else { fastrand::usize(1..16) };
    for polls in sweep(stride().div_ceil(2), stride) {
        let mut run = pin!(tick(&world));
        let ended = polled(&mut run, polls).await.is_some();
        world.sql(LATE).await;
        rows += 1;
        let committed = world.target_value("SELECT clock_timestamp()").await;
        if !ended {
            run.await;
        }
        let (found, complete) = (world.target_value(FIRST).await, format!("complete {rows}"));
        let told = format!("SELECT checked_at > '{committed}' FROM tallymark.coverage");
        assert!(
            found == complete
                || found.starts_with("stale")
                || world.target_value(&told).await == "false",
            "{polls} polls: {found}, and there are {rows} rows"
        );
        tick(&world).await;
        assert_eq!(world.target_value(FIRST).await, complete, "{polls} polls");
        if ended {
            break;
        }
    }
}

/// Marks that were acknowledged since the backup are known to nothing.
#[tokio::test]
async fn while_a_rollup_is_unproven_nothing_is_told_as_checked() {
    let mut world = world(Keeper::DynamoDb, false).await;
    tick(&world).await;
    tick(&world).await;
    let checked = "SELECT checked_at FROM tallymark.coverage";
    let before = world.target_value(checked).await;
    world.worker.checkpoints = checkpoints().await;
    world.worker.checkpoints.create_table().await.unwrap();
    let report = repair::run(&world.worker, world.rollup(), false).await.unwrap();
    assert!(report.unproven.is_some(), "{report:?}");
    tick(&world).await;
    assert_eq!(world.target_value(checked).await, before);
    assert!(identity::proven(&world.worker, world.rollup()).await.unwrap());
    tick(&world).await;
    assert_ne!(world.target_value(checked).await, before);
}

/// A late change was found after the backup of the target, and has yet to be counted.
#[tokio::test]
async fn what_must_run_again_is_stale_after_a_restore_of_the_target() {
    let world = world(Keeper::DynamoDb, false).await;
    tick(&world).await;
    tick(&world).await;
    world.sql(LATE).await;
    notice(&world).await;
    world.target_sql("DELETE FROM tallymark.outstanding").await;
    assert_eq!(world.target_value(FIRST).await, "complete 1");
    repair::run(&world.worker, world.rollup(), true).await.unwrap();
    assert_eq!(world.target_value(FIRST).await, "complete 1", "a dry run changes nothing");
    repair::run(&world.worker, world.rollup(), false).await.unwrap();
    assert_eq!(world.target_value(FIRST).await, "stale 1");
    tick(&world).await;
    assert_eq!(world.target_value(FIRST).await, "complete 2");
}

/// No mark tells of them, as no trigger fires in a restore.
#[tokio::test]
async fn rows_that_a_restore_brings_back_before_all_others_are_counted() {
    let clock = Arc::new(clock("2026-01-03T12:00:00Z"));
    let rollups = captured();
    let setup = Setup { rollups: &rollups, clock, ..Setup::default() };
    let second = LATE.replace("01-01T", "01-02T");
    let world = World::new(&format!("{EVENTS}; {second}"), setup).await;
    install_capture(&world.worker).await;
    tick(&world).await;
    tick(&world).await;
    assert_eq!(world.target_value(FIRST).await, "missing 0", "it counts as empty");
    world.sql(&format!("{LATE}; DELETE FROM tallymark.mark")).await;
    repair::run(&world.worker, world.rollup(), false).await.unwrap();
    tick(&world).await;
    assert_eq!(world.target_value(FIRST).await, "complete 1");
}

/// A tick that is killed between its two writes leaves a slice that readers see as stale.
#[tokio::test]
async fn a_slice_that_was_raised_and_not_reopened_runs_again() {
    for (keeper, across) in KEEPERS {
        let world = world(keeper, across).await;
        tick(&world).await;
        world
            .target_sql(
                "INSERT INTO tallymark.outstanding (rollup, slice_start, slice_end, generation, since, \
                 reason) VALUES ('daily', '2026-01-01Z', '2026-01-02Z', 1, now(), 'late change')",
            )
            .await;
        assert_eq!(world.target_value(FIRST).await, "stale 1");
        // The first finds it, and the second runs it.
        tick(&world).await;
        tick(&world).await;
        assert_eq!(world.target_value(FIRST).await, "complete 1", "{keeper:?}");
    }
}

#[tokio::test]
async fn what_was_computed_by_another_definition_is_stale() {
    let clock = Arc::new(clock("2026-01-02T12:00:00Z"));
    let world = World::new(&format!("{EVENTS}; {LATE}"), Setup { clock, ..Setup::default() }).await;
    tick(&world).await;
    assert_eq!(world.target_value(FIRST).await, "complete 1");
    world.target_sql("UPDATE tallymark.checked SET definition = 'another'").await;
    assert_eq!(world.target_value(FIRST).await, "stale 1");
    let why = "SELECT reason FROM tallymark.slice_state";
    assert_eq!(world.target_value(why).await, "computed by another definition");
    // A tick of another definition tells its own before its first slice, and then computes them.
    let other = world.redefined(&DAILY.replace("group_by", "where = \"kind <> 'x'\"\ngroup_by"));
    tick(&other).await;
    assert_eq!(world.target_value(FIRST).await, "complete 1");
}

/// Nothing is due afterwards, so no later tick would tell of them for a day.
#[tokio::test]
async fn what_no_tick_has_computed_is_complete_once_readers_can_know_it() {
    for keeper in [Keeper::DynamoDb, Keeper::Target] {
        let clock = Arc::new(clock("2026-01-02T12:00:00Z"));
        let setup = Setup { clock, keeper, ..Setup::default() };
        let world = World::new(&format!("{EVENTS}; {LATE}"), setup).await;
        world.run("2026-01-01").await;
        assert_eq!(world.target_value(FIRST).await, "stale 1", "{keeper:?}");
        tick(&world).await;
        assert_eq!(world.target_value(FIRST).await, "complete 1", "{keeper:?}");

        let other =
            world.redefined(&DAILY.replace("group_by", "where = \"kind <> 'x'\"\ngroup_by"));
        other.backfill("2026-01-02", true).await;
        assert_eq!(world.target_value(FIRST).await, "complete 1", "{keeper:?}");
    }
}

/// The worker lives in January, and the server's clock is months ahead, as if no worker ran any more.
#[tokio::test]
async fn a_reader_sees_what_is_missing_though_no_worker_runs() {
    let world = world(Keeper::DynamoDb, false).await;
    tick(&world).await;
    let told = "SELECT concat_ws(' ', complete_through::date, expected_through::date, missing) \
                FROM tallymark.coverage";
    assert_eq!(world.target_value(told).await, "2026-01-02 2026-04-11 99");
}

/// A tick tells what the scrubs of the ticks before have compared.
#[tokio::test]
async fn a_reader_sees_what_the_scrub_has_compared() {
    for keeper in [Keeper::DynamoDb, Keeper::Target] {
        let clock = Arc::new(clock("2026-01-05T12:00:00Z"));
        let rollups = captured();
        let source = "\n[scrub]\nslices_per_day = 20";
        let setup = Setup { source, rollups: &rollups, clock, keeper, ..Setup::default() };
        let world = World::new(&format!("{EVENTS}; {LATE}"), setup).await;
        install_capture(&world.worker).await;
        tick(&world).await;
        let told = "SELECT verified_through FROM tallymark.coverage";
        assert_eq!(world.target_value(told).await, "");
        tick(&world).await;
        let cursor = world.worker.checkpoints.scrub("daily").await.unwrap().cursor.unwrap();
        tick(&world).await;
        let same = format!("SELECT verified_through = '{cursor}' FROM tallymark.coverage");
        assert_eq!(world.target_value(&same).await, "true", "{keeper:?}");
    }
}

/// Every table, view, function and type in the schemas `tallymark` and `stats`, with what may be called
/// or read by a role, and whether it has a comment. The row types of tables and the arrays of types are
/// not listed apart.
const OBJECTS: &str = "SELECT * FROM ( \
    SELECT n.nspname AS schema, c.relname::text AS name, obj_description(c.oid, 'pg_class') AS comment, \
        has_table_privilege('{role}', c.oid, 'SELECT') AS is_read, c.relkind IN ('r', 'v') AS is_table \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'v', 'm', 'p', 'f') \
    UNION ALL SELECT n.nspname, p.oid::regprocedure::text, obj_description(p.oid, 'pg_proc'), \
        has_function_privilege('{role}', p.oid, 'EXECUTE'), false \
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
    UNION ALL SELECT n.nspname, t.typname, obj_description(t.oid, 'pg_type'), true, false \
    FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace JOIN pg_class c ON c.oid = t.typrelid \
    WHERE c.relkind = 'c' \
    ) o WHERE schema IN ('tallymark', 'stats')";

/// A rollup with a measure of each kind, a series and a live view, in both schemas' objects, also those
/// of a captured source with a lookup and of checkpoints in the target.
#[tokio::test]
async fn every_object_has_a_comment_and_a_reader_reads_those_for_readers_alone() {
    let measures = KINDS.iter().map(|kind| {
        let column = kind.example_column();
        format!("every_{} = {}\n", kinds::label(*kind), kinds::written(*kind, column, ""))
    });
    let rollups = format!(
        "[[rollup]]\nname = \"daily\"\nfrom = \"public.events\"\ntime = \"created_at\"\n\
         start = \"2026-01-01\"\nslice = \"1 day\"\nlive = true\nlate = \"capture\"\n\
         lookup = [{{ label = \"public.labels\", on = \"label.kind = kind\" }}]\n\
         group_by = [\"kind\", {{ name = \"label.name\" }}]\n[rollup.measures]\n{}",
        measures.collect::<String>()
    );
    let sql = format!(
        "{EVENTS}; ALTER TABLE events ADD is_paid boolean, ADD updated_at timestamptz; \
         CREATE TABLE labels (kind text PRIMARY KEY, name text); CREATE INDEX ON events (kind)"
    );
    let setup = Setup {
        rollups: &rollups,
        clock: Arc::new(clock("2026-01-02T12:00:00Z")),
        keeper: Keeper::Target,
        ..Setup::default()
    };
    let world = World::new(&sql, setup).await;
    install_capture(&world.worker).await;
    let role = format!("reader_{:016x}", fastrand::u64(..));
    world.target_sql(&format!("CREATE ROLE {role}")).await;
    let db = &world.worker.target.db;
    let mut tx = db.begin(Access::ReadWrite, BUDGET, "grants").await.unwrap();
    let (role_of, rollups) = (std::slice::from_ref(&role), &world.worker.config.rollups);
    let grants = readers::grants(&mut tx, &world.worker.target, role_of, rollups).await.unwrap();
    for grant in grants {
        tx.execute("granting", grant).await.unwrap();
    }
    tx.commit().await.unwrap();
    let objects = OBJECTS.replace("{role}", &role);
    let without = format!("SELECT schema, name FROM ({objects}) o WHERE comment IS NULL");
    assert_eq!(records(&world.target, &without).await, [""; 0]);
    let read = format!("SELECT schema, name FROM ({objects}) o WHERE is_table AND is_read");
    let expected =
        ["(stats,daily)", "(stats,daily_live)", "(tallymark,coverage)", "(tallymark,slice_state)"];
    assert_eq!(records(&world.target, &read).await, expected);
    let counted = format!("SELECT count(*) > 40 FROM ({objects}) o");
    assert_eq!(world.target_value(&counted).await, "true", "objects of every kind are there");
    // What reads or merges measures, and the series.
    let called = format!(
        "SELECT bool_and(is_read) FROM ({objects}) o WHERE comment LIKE 'For readers: %' OR name LIKE '%\\_series(%'"
    );
    assert_eq!(world.target_value(&called).await, "true");
    world.target_sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

/// A week that is computed from its days.
const WEEKLY: &str = "[[rollup]]\nname = \"weekly\"\nfrom = { rollup = \"daily\" }\nslice = \"1 week\"\n\
    group_by = [\"kind\"]\nmeasures = [\"events\"]\n";

/// Its days have raised it for readers, and a checkpoint would make it due before its time.
#[tokio::test]
async fn a_coarse_slice_that_goes_on_gets_no_checkpoint() {
    for keeper in [Keeper::DynamoDb, Keeper::Target] {
        let clock = Arc::new(clock("2026-01-07T12:00:00Z"));
        let rollups = format!("{}{WEEKLY}", captured());
        let setup = Setup { rollups: &rollups, clock, keeper, ..Setup::default() };
        let world = World::new(&format!("{EVENTS}; {TUESDAY}"), setup).await;
        install_capture(&world.worker).await;
        tick(&world).await;
        let raised = "SELECT count(*) FROM tallymark.outstanding WHERE rollup = 'weekly' AND \
                      slice_start = '2026-01-05Z' AND cleared < generation";
        assert_eq!(world.target_value(raised).await, "1");
        // They look for what was raised and not reopened.
        tick(&world).await;
        let found = world.worker.checkpoints.get("weekly", instant("2026-01-05")).await.unwrap();
        assert_eq!(found, None, "{keeper:?}");
    }
}

const TUESDAY: &str = "INSERT INTO events (created_at, kind) VALUES ('2026-01-06T05:10Z', 'late')";

#[tokio::test]
async fn a_coarse_slice_is_complete_only_as_the_sum_of_complete_ones() {
    let state = "SELECT string_agg(concat_ws(' ', rollup, state), ', ' ORDER BY rollup) \
                 FROM tallymark.slice_state";
    for (keeper, across) in KEEPERS {
        let clock = Arc::new(clock("2026-01-12T12:00:00Z"));
        let rollups = format!("{}{WEEKLY}", captured());
        let setup = Setup { rollups: &rollups, clock, keeper, across, ..Setup::default() };
        let world = World::new(&format!("{EVENTS}; {TUESDAY}"), setup).await;
        install_capture(&world.worker).await;
        tick(&world).await;
        world.sql("DELETE FROM tallymark.mark").await;
        assert_eq!(world.target_value(state).await, "", "{keeper:?}");
        let through =
            "SELECT string_agg(complete_through::date::text, ' ') FROM tallymark.coverage";
        assert_eq!(world.target_value(through).await, "2026-01-12 2026-01-12");

        world.sql(TUESDAY).await;
        notice(&world).await;
        assert_eq!(world.target_value(state).await, "daily stale, weekly stale");
        // The day is computed, and the week is not.
        world.run("2026-01-06").await;
        assert_eq!(world.target_value(state).await, "weekly stale");
        let why = "SELECT reason FROM tallymark.slice_state";
        assert_eq!(world.target_value(why).await, "daily@2026-01-06T00:00:00Z changed");
        tick(&world).await;
        assert_eq!(world.target_value(state).await, "");
        assert_eq!(world.target_value("SELECT sum(events) FROM stats.weekly").await, "2");
    }
}
