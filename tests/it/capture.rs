//! The triggers that mark late changes: their effect on the application's table, and the
//! consequences of changing them. `histories` tests that they miss nothing.

use std::sync::Arc;
use std::time::Duration;

use chrono::NaiveDate;
use tallymark::model::clock::{Clock as _, Deadline, SystemClock};
use tallymark::tick::{self};
use tallymark::work::report::TickReport;

use crate::scripts::{piped, psql};
use crate::support::Database;
use crate::support::cli::{Place, daily, day, lines};
use crate::support::proxy::Holder;
use crate::support::until;
use crate::support::world::{BUDGET, DAILY, EVENTS, Setup, Urls, World, clock, install_capture};

/// [`DAILY`], captured.
pub(crate) fn captured() -> String {
    DAILY.replace("bucket =", "late = \"capture\"\nshrink_guard = 0.0\nbucket =")
}

/// The second day of 2026 is over, and was computed.
pub(crate) async fn world(sql: &str) -> World {
    let rollups = captured();
    let clock = Arc::new(clock("2026-01-03T12:00:00Z"));
    let setup = Setup { rollups: &rollups, clock, ..Setup::default() };
    let world = World::new(sql, setup).await;
    install_capture(&world.worker).await;
    tick(&world).await;
    world.sql("DELETE FROM tallymark.mark").await;
    world
}

pub(crate) async fn tick(world: &World) -> TickReport {
    let worker = &world.worker;
    let deadline = Deadline::after(&*worker.clock, BUDGET);
    tick::run(worker, worker.clock.now(), deadline, None).await.unwrap()
}

pub(crate) async fn marks(world: &World) -> String {
    let sql = "SELECT string_agg(coalesce(first_hour::text, 'all') || '+' || \
               coalesce(last_hour - first_hour + 1, 0), ',' ORDER BY first_hour) FROM tallymark.mark";
    world.target_value(sql).await
}

/// Found by a random history (SEED=1754168954). A row that follows a TRUNCATE in its transaction
/// has only the TRUNCATE's mark, and its slice counted as empty before the first row.
#[tokio::test]
async fn a_row_after_a_truncate_is_counted_where_nothing_was_before() {
    let sql = format!(
        "{EVENTS}; INSERT INTO events (created_at, kind) VALUES ('2026-01-02T05:00Z', 'a')"
    );
    let world = world(&sql).await;
    assert!(world.checkpoint("2026-01-01").await.is_none(), "it is empty");
    world.sql(&format!("BEGIN; TRUNCATE events; {ROWS}; COMMIT")).await;
    assert_eq!(tick(&world).await.slices.len(), 2);
    world.verify_all("2026-01-03").await;
    assert_eq!(world.target_value("SELECT sum(events) FROM stats.daily").await, "5");
}

/// Hours since 1970 of 2026-01-01T00:00Z.
pub(crate) const HOUR: i64 = 490_896;

const ROWS: &str = "INSERT INTO events (created_at, kind) SELECT '2026-01-01T05:10Z'::timestamptz + n * \
                    interval '1 minute', 'a' FROM generate_series(1, 5) n";

#[tokio::test]
async fn each_transaction_marks_an_hour_once() {
    let world = world(EVENTS).await;
    world.sql(&format!("BEGIN; {ROWS}; {ROWS}; UPDATE events SET amount = 1; COMMIT")).await;
    assert_eq!(marks(&world).await, format!("{}+1", HOUR + 5));
    world.sql("UPDATE events SET created_at = created_at + interval '1 day' WHERE id = 1").await;
    let moved = format!("{0}+1,{0}+1,{1}+1", HOUR + 5, HOUR + 29);
    assert_eq!(marks(&world).await, moved, "both the old and the new place");
    // Fresh rows leave no mark.
    world
        .sql("INSERT INTO events (created_at) VALUES (clock_timestamp()), (NULL), ('infinity')")
        .await;
    assert_eq!(marks(&world).await, moved);
    world.sql("TRUNCATE events").await;
    assert_eq!(marks(&world).await, format!("{moved},all+0"));
}

/// A load over ten years, in one transaction. Days replace hours, and months replace days.
#[tokio::test]
async fn a_bulk_load_leaves_few_marks() {
    let world = world(EVENTS).await;
    world
        .sql(
            "INSERT INTO events (created_at) SELECT '2016-01-01Z'::timestamptz + random() * \
             interval '3650 days' FROM generate_series(1, 20000)",
        )
        .await;
    let count: i64 =
        world.target_value("SELECT count(*) FROM tallymark.mark").await.parse().unwrap();
    assert!(count < 1200, "{count} marks");
    let missed = "SELECT count(*) FROM events e WHERE NOT EXISTS (SELECT FROM tallymark.mark WHERE \
                  floor(extract(epoch FROM e.created_at) / 3600) BETWEEN first_hour AND last_hour)";
    assert_eq!(world.target_value(missed).await, "0");
}

/// Two open transactions that mark the same hour.
#[tokio::test]
async fn writers_do_not_wait_for_each_other() {
    let world = world(EVENTS).await;
    let (mut one, mut other) =
        (world.pool.begin().await.unwrap(), world.pool.begin().await.unwrap());
    for transaction in [&mut one, &mut other] {
        sqlx::raw_sql("SET LOCAL lock_timeout = '2s'").execute(&mut **transaction).await.unwrap();
        sqlx::raw_sql(ROWS).execute(&mut **transaction).await.unwrap();
    }
    one.commit().await.unwrap();
    other.commit().await.unwrap();
    assert_eq!(marks(&world).await, format!("{0}+1,{0}+1", HOUR + 5));
}

/// Rows inserted directly into a partition, a partition that is emptied, one that comes later.
#[tokio::test]
async fn partitions_are_captured_with_their_table() {
    let partitioned = "CREATE TABLE events (id bigint GENERATED BY DEFAULT AS IDENTITY, created_at \
         timestamptz, kind text, entity_id int, user_id int, amount numeric) PARTITION BY RANGE \
         (created_at); CREATE TABLE january PARTITION OF events FOR VALUES FROM ('2026-01-01Z') TO \
         ('2026-02-01Z'); CREATE INDEX ON events (created_at)";
    let world = world(partitioned).await;
    world
        .sql(
            &ROWS.replace("INTO events (", "INTO january (id, ").replace("SELECT '", "SELECT 1, '"),
        )
        .await;
    assert_eq!(marks(&world).await, format!("{}+1", HOUR + 5));
    assert_eq!(tick(&world).await.slices.len(), 1);
    world.verify_all("2026-01-03").await;
    world.sql("TRUNCATE january").await;
    assert_eq!(marks(&world).await, "all+0");
    tick(&world).await;
    world.verify_all("2026-01-03").await;

    world
        .sql(
            "CREATE TABLE february PARTITION OF events FOR VALUES FROM ('2026-02-01Z') TO \
             ('2026-03-01Z')",
        )
        .await;
    let report = tick(&world).await;
    assert_eq!((report.problems.len(), report.slices.len()), (0, 0), "{report:?}");
    assert_eq!(marks(&world).await, "");
}

/// A renamed time column, or a missing table of marks. Writes continue, and every tick raises the
/// alarm.
#[tokio::test]
async fn a_broken_capture_is_an_alarm_and_no_harm_to_the_application() {
    let world = world(EVENTS).await;
    world.sql("ALTER TABLE events RENAME COLUMN created_at TO at").await;
    world.sql(&ROWS.replace("created_at", "at")).await;
    assert_eq!(marks(&world).await, "all+0", "it cannot say which hours");
    world.sql("ALTER TABLE events RENAME COLUMN at TO created_at").await;
    world.sql("DELETE FROM tallymark.mark").await;

    world.sql("ALTER TABLE events DISABLE TRIGGER tallymark_update").await;
    let problems = tick(&world).await.problems;
    assert!(
        problems[0].error.contains("tallymark_update of public.events is not enabled"),
        "{problems:?}"
    );
    let ran = world.replay("2026-01-02").await;
    assert_eq!(ran.completion.unwrap().settled_by, "grace");
    install_capture(&world.worker).await;
    let ran = world.replay("2026-01-02").await;
    assert_eq!(ran.completion.unwrap().settled_by, "capture");

    world.sql("DROP TABLE tallymark.mark").await;
    world.sql(ROWS).await;
    let problems = tick(&world).await.problems;
    assert!(problems[0].error.contains("tallymark.mark is gone"), "{problems:?}");
}

/// Every type of time column. Late rows in a captured table are found, and the extreme values of
/// the type cause no error for the writer.
#[tokio::test]
async fn any_time_column_can_be_captured() {
    let cases = [
        (
            "timestamptz",
            "\"at\"",
            "'2026-01-01T23:59:59Z'",
            "'4713-01-01 BC', '294276-01-01', '-infinity', 'infinity'",
        ),
        (
            "timestamp",
            "{ column = \"at\", zone = \"Europe/Prague\" }",
            "'2026-01-01T23:59:59'",
            "'4713-01-01 BC', '294276-12-31', '-infinity', 'infinity'",
        ),
        (
            "date",
            "\"at\"",
            "'2026-01-01'",
            "'4713-01-01 BC', '5874897-12-31', '-infinity', 'infinity'",
        ),
        (
            "bigint",
            "{ column = \"at\", unit = \"seconds\" }",
            "1767311999",
            "-9223372036854775808, 9223372036854775807",
        ),
        (
            "integer",
            "{ column = \"at\", unit = \"seconds\" }",
            "1767311999",
            "-2147483648, 2147483647",
        ),
        (
            "bigint",
            "{ column = \"at\", unit = \"milliseconds\" }",
            "1767311999999",
            "-9223372036854775808, 9223372036854775807",
        ),
    ];
    for (sql_type, time, late, extremes) in cases {
        let rollups = format!(
            "[[rollup]]\nname = \"daily\"\nfrom = \"public.events\"\ntime = {time}\n\
             start = \"2026-01-01\"\nslice = \"1 day\"\nlate = \"capture\"\n\
             [rollup.measures]\nevents = \"count\"\n"
        );
        let clock = Arc::new(clock("2026-01-03T12:00:00Z"));
        let setup = Setup { rollups: &rollups, clock, ..Setup::default() };
        let sql = format!(
            "CREATE TABLE events (at {sql_type}); CREATE INDEX ON events (at); \
                           INSERT INTO events VALUES ({late})"
        );
        let world = World::new(&sql, setup).await;
        install_capture(&world.worker).await;
        tick(&world).await;
        world.sql(&format!("INSERT INTO events VALUES ({late})")).await;
        let extremes = extremes.replace(", ", "), (");
        world.sql(&format!("INSERT INTO events VALUES ({extremes}), (NULL); DELETE FROM events WHERE at IS NULL")).await;
        let report = tick(&world).await;
        assert_eq!(
            (report.slices.len(), report.problems.len()),
            (1, 0),
            "{sql_type} {time}: {report:?}"
        );
        world.assert_verified("2026-01-03").await;
        assert_eq!(
            world.target_value("SELECT sum(events) FROM stats.daily").await,
            "2",
            "{sql_type} {time}"
        );
    }
}

/// The transaction begins before a slice ends, sits idle, and inserts after the slice was read.
#[tokio::test]
async fn a_row_of_a_transaction_that_sat_idle_is_counted_and_grace_says_what_it_is() {
    // Slices of a minute would end during the test. The open transaction is all that it needs.
    let world = world(EVENTS).await;
    let mut idle = world.pool.begin().await.unwrap();
    sqlx::raw_sql("SELECT 1").execute(&mut *idle).await.unwrap();
    let ran = world.replay("2026-01-02").await;
    assert_eq!(ran.completion.unwrap().settled_by, "capture");
    sqlx::raw_sql("INSERT INTO events (created_at) VALUES ('2026-01-02T23:59:59Z')")
        .execute(&mut *idle)
        .await
        .unwrap();
    idle.commit().await.unwrap();
    assert_eq!(tick(&world).await.slices.len(), 1);
    world.verify_all("2026-01-03").await;

    let grace = world.redefined(DAILY);
    assert_eq!(grace.replay("2026-01-02").await.completion.unwrap().settled_by, "grace");
}

/// A worker is held while it reads the marks, until another has read a slice that was still open
/// when the first one started.
#[tokio::test]
async fn marks_of_a_slice_that_ended_while_they_were_read_are_not_lost() {
    let database = Database::create().await;
    let direct = database.url();
    let upstream = "array_agg(id) AS ids";
    let rest = direct.split_once('@').map_or(&*direct, |(_, rest)| rest);
    let (address, _) = rest.split_once('/').unwrap();
    let holder = Holder::start(address.to_owned(), upstream);
    let source = direct.replace(address, &format!("127.0.0.1:{}", holder.port));
    // The slice of 2026-01-01 becomes readable in a few seconds.
    let readable_at = SystemClock.now() + Duration::from_secs(8);
    let grace = readable_at - crate::support::world::instant("2026-01-02");
    let rollups =
        captured().replace("late =", &format!("grace = \"{}s\"\nlate =", grace.num_seconds()));
    let setup = Setup { rollups: &rollups, ..Setup::default() };
    let world = World::at(Urls { source, target: None }, setup).await;
    let pool = sqlx::PgPool::connect(&direct).await.unwrap();
    sqlx::raw_sql(EVENTS).execute(&pool).await.unwrap();
    sqlx::raw_sql(ROWS).execute(&pool).await.unwrap();
    world.init().await.unwrap();
    install_capture(&world.worker).await;
    let other = world.redefined(&rollups);
    let meanwhile = async {
        holder.holds().await;
        until("the other has run", async || other.run("2026-01-01").await.completion).await;
        sqlx::raw_sql(ROWS).execute(&pool).await.unwrap();
        holder.let_go();
    };
    tokio::join!(tick(&world), meanwhile);
    tick(&other).await;
    other.assert_verified("2026-01-02").await;
    assert_eq!(other.target_value("SELECT sum(events) FROM stats.daily").await, "10");
}

/// Short transactions, one after another, so that one is always open.
#[tokio::test]
async fn slices_beside_short_writers_wait_as_long_as_these_last() {
    let rollups = captured();
    let clock = Arc::new(clock("2026-01-26T12:00:00Z"));
    let setup = Setup { rollups: &rollups, clock, concurrency: 1, ..Setup::default() };
    let mut world = World::new(EVENTS, setup).await;
    install_capture(&world.worker).await;
    world.sql("INSERT INTO events (created_at) SELECT '2026-01-01T05:10Z'::timestamptz + n * interval '1 day' FROM generate_series(0, 24) n").await;
    // Longer than a machine stands still. A worker that never sees a transaction end waits for all
    // of it.
    world.worker.settle_wait_max = Duration::from_secs(60);
    let over = std::sync::atomic::AtomicBool::new(false);
    let writer = async || {
        while !over.load(std::sync::atomic::Ordering::SeqCst) {
            let mut tx = world.pool.begin().await.unwrap();
            let insert = "INSERT INTO events (created_at) VALUES (now())";
            sqlx::raw_sql(insert).execute(&mut *tx).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
            tx.commit().await.unwrap();
        }
    };
    let ticking = async {
        let worker = &world.worker;
        let deadline = Deadline::after(&SystemClock, Duration::from_secs(600));
        let report = tick::run(worker, worker.clock.now(), deadline, None).await.unwrap();
        over.store(true, std::sync::atomic::Ordering::SeqCst);
        report
    };
    let writers = futures_util::future::join_all((0..6).map(|_| Box::pin(writer())));
    let (report, _) = tokio::join!(Box::pin(ticking), writers);
    assert_eq!((report.slices.len(), report.left), (25, 0), "{report:?}");
    assert!(report.slices.iter().all(|slice| slice.completion.is_some()), "{report:?}");
}

/// An open writer is waited for. Then the slice yields, names the writer, and continues later.
#[tokio::test]
async fn an_open_writer_is_waited_for_and_named() {
    let mut world = world(EVENTS).await;
    world.worker.settle_wait_max = Duration::ZERO;
    let mut writer = world.pool.begin().await.unwrap();
    sqlx::raw_sql(
        "SET LOCAL application_name = 'shop'; INSERT INTO events (created_at) VALUES \
                   ('2026-01-02T23:59:59Z')",
    )
    .execute(&mut *writer)
    .await
    .unwrap();
    let ran = world.replay("2026-01-02").await;
    let reason = ran.reason.unwrap();
    assert!(
        reason.starts_with("not settled: the transaction of pid ")
            && reason.contains("(shop, role"),
        "{reason}"
    );
    // Later writers are not waited for.
    let horizon = world.checkpoint("2026-01-02").await.unwrap().horizon;
    let mut later = world.pool.begin().await.unwrap();
    sqlx::raw_sql("INSERT INTO events (created_at) VALUES (now())")
        .execute(&mut *later)
        .await
        .unwrap();
    world.run("2026-01-02").await;
    assert_eq!(world.checkpoint("2026-01-02").await.unwrap().horizon, horizon);
    assert!(horizon.is_some());
    writer.commit().await.unwrap();
    assert_eq!(world.run("2026-01-02").await.completion.unwrap().rows_read, 1);
    later.rollback().await.unwrap();
}

/// A tick without the triggers, which reports `alarm`. Returns the slices that it computed, all by
/// `grace`.
fn ran_without_capture(place: &Place, alarm: &str) -> Vec<NaiveDate> {
    let ended = place.run(&["run", "--json"]);
    ended.refused(2, &[alarm, "hint: tallymark capture install"]);
    let report = ended.json();
    let error = report["problems"][0]["error"].as_str().unwrap();
    assert!(error.contains(alarm) && report["problems"].as_array().unwrap().len() == 1, "{report}");
    assert_eq!(report["left"], 0);
    let slices = report["slices"].as_array().unwrap().iter().map(|slice| {
        let how = (&slice["outcome"], &slice["settled_by"]);
        assert_eq!(how, (&"succeeded".into(), &"grace".into()), "{slice}");
        slice["start"].as_str().unwrap()[..10].parse().unwrap()
    });
    let mut starts: Vec<NaiveDate> = slices.collect();
    starts.sort_unstable();
    starts
}

/// Uses the command line. Its output can be run by hand, it does nothing twice, and it can be
/// undone.
#[tokio::test]
async fn the_command_installs_shows_and_removes() {
    let (place, _database) = Place::with_events(3).await;
    place.configure(&daily(3).replace("slice =", "late = \"capture\"\nslice ="));
    place.run(&["init"]).good();
    place.run(&["capture", "status"]).refused(1, &["1 table"]);
    // An alarm, and fresh slices that report how they settled.
    assert_eq!(ran_without_capture(&place, "no capture triggers"), [day(3), day(2), day(1)]);
    assert!(ran_without_capture(&place, "no capture triggers").is_empty(), "nothing is due");
    let printed = place.run(&["capture", "install", "--dry-run"]).good().out;
    place.sql(&printed).await;
    assert_eq!(place.run(&["capture", "install"]).good().out, "capture: installed already\n");
    place.run(&["capture", "status"]).good();
    assert!(place.run(&["run"]).good().out.starts_with("nothing is due\n"));
    place.sql(&format!("INSERT INTO events VALUES ('{}T05:00Z', 'late', 1)", day(2))).await;
    let status = place.json(&["capture", "status"]);
    assert_eq!(status["tables"][0]["marks"], 1);
    let run = place.json(&["run"]);
    assert_eq!(
        (run["slices"].as_array().unwrap().len(), &run["slices"][0]["settled_by"]),
        (1, &"capture".into())
    );
    place.run(&["verify"]).good();
    place.run(&["check"]).good();
    // The same for one trigger of four, and a day that is replayed.
    place.sql("ALTER TABLE events DISABLE TRIGGER tallymark_update").await;
    let lookup = day(1).and_time(chrono::NaiveTime::MIN).and_utc();
    let now = SystemClock.now();
    place.checkpoints().reopen("daily", lookup, "test", now).await.unwrap();
    assert_eq!(ran_without_capture(&place, "tallymark_update"), [day(1)]);
    place.run(&["capture", "install"]).good();
    assert!(place.run(&["run"]).good().out.starts_with("nothing is due\n"));
    place.run(&["capture", "remove"]).good();
    assert_eq!(place.run(&["capture", "remove"]).good().out, "capture: there is none\n");
    let left = "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'tallymark%'";
    assert_eq!(crate::support::cli::lines(&place.source_url, left).await, ["(0)"]);
}

/// `psql` can run the output of a dry run, for all names.
#[tokio::test]
async fn a_dry_run_can_be_piped_into_psql_with_any_names() {
    let Some(psql) = psql() else { return };
    let (place, _database) = Place::with_events(2).await;
    let names = [
        "$capture$; DROP TABLE victim; --",
        "x$tallymark$; DROP TABLE victim; --",
        "a\"'; DROP TABLE victim; \\! false",
        "{axes} {name} :victim :'victim'",
        "b\\'; DROP TABLE victim; /* $$",
    ];
    place.sql("CREATE TABLE victim ()").await;
    let quoted = |name: &str| name.replace('"', "\"\"");
    for (n, name) in names.iter().enumerate() {
        let name = quoted(name);
        place.sql(&format!("CREATE TABLE \"t{n} {name}\" (\"{name}\" timestamptz)")).await;
    }
    for (n, name) in names.into_iter().enumerate() {
        let toml = |text: &str| serde_json::Value::from(text).to_string();
        let rollup = format!(
            "[[rollup]]\nname = \"daily\"\nfrom = {}\ntime = {}\nstart = \"2026-01-01\"\nslice = \"1 day\"\n\
             late = \"capture\"\n[rollup.measures]\nevents = \"count\"\n",
            toml(&format!("public.\"t{n} {}\"", quoted(name))),
            toml(name)
        );
        place.configure(&rollup);
        let printed = place.run(&["capture", "install", "--dry-run"]).good().out;
        piped(&psql, &place, &printed);
        assert_eq!(place.run(&["capture", "install"]).good().out, "capture: installed already\n");
        let late = quoted(&format!("t{n} {name}"));
        place.sql(&format!("INSERT INTO \"{late}\" VALUES ('2026-01-01T05:10Z')")).await;
        let marks = "SELECT count(*) FROM tallymark.mark";
        assert_eq!(lines(&place.source_url, marks).await, [format!("({})", n + 1)]);
    }
    assert_eq!(lines(&place.source_url, "SELECT count(*) FROM victim").await, ["(0)"]);
}

/// With a role that only reads the table and takes the marks.
#[tokio::test]
async fn the_reading_role_needs_no_more_than_the_grants() {
    let (mut place, database) = Place::with_events(2).await;
    let role = format!("taker_{:08x}", fastrand::u32(..));
    place.configure(&daily(2).replace("slice =", "late = \"capture\"\nslice ="));
    place.run(&["init"]).good();
    place.sql(&format!("CREATE ROLE {role} LOGIN; GRANT SELECT ON events TO {role}")).await;
    let admin = std::mem::replace(&mut place.source_url, database.url_of(&role));
    place.run(&["capture", "install"]).refused(2, &["hint: owner"]);
    let mut command = place.command(&["capture", "install", "--owner-env", "OWNER"]);
    crate::support::cli::ended(command.env("OWNER", &admin)).good();
    place.run(&["run"]).good();
    crate::support::cli::execute(
        &admin,
        &format!("DELETE FROM events WHERE at::date = '{}'", day(1)),
    )
    .await;
    // The shrink guard asks whether that was intended.
    place.run(&["run"]).refused(1, &[]);
    place
        .run(&["replay", "daily", "--slice", &day(1).to_string(), "--allow-shrink", "--yes"])
        .good();
    place.run(&["verify"]).good();
    let drop = format!("DROP OWNED BY {role}; DROP ROLE {role}");
    crate::support::cli::execute(&admin, &drop).await;
}
