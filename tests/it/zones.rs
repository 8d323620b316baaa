//! Local times that the server reads by other rules than this program.
//!
//! No server with other time zone tables is needed: PostgreSQL reads `CET` and similar names as
//! abbreviations, with one offset all year, where the program's `CET` has summer time.

use tallymark::check::verify;
use tallymark::work::late;
use tallymark::work::report::Outcome;

use crate::support::Database;
use crate::support::cli::Place;
use crate::support::world::{BUDGET, Setup, World, clock};

const LOCAL: &str = "CREATE TABLE logs (id int, local timestamp, day date, changed timestamp); \
    CREATE INDEX ON logs (local); CREATE INDEX ON logs (day); \
    INSERT INTO logs SELECT n, t, t::date, t FROM generate_series('2026-01-01'::timestamp, \
        '2026-08-01', '30 minutes') WITH ORDINALITY AS s(t, n)";

fn rollup(column: &str, zone: &str, width: &str) -> String {
    format!(
        "[[rollup]]\nname = \"logs\"\nfrom = \"public.logs\"\n\
         time = {{ column = \"{column}\", zone = \"{zone}\" }}\ntimezone = \"{zone}\"\n\
         start = \"2026-01-01\"\nslice = \"1 day\"\nbucket = \"{width}\"\n\
         measures = {{ rows = \"count\" }}\n"
    )
}

async fn world(column: &str, zone: &str, width: &str) -> World {
    let clock = std::sync::Arc::new(clock("2026-08-01"));
    let rollups = rollup(column, zone, width);
    World::new(LOCAL, Setup { rollups: &rollups, clock, ..Setup::default() }).await
}

#[tokio::test]
async fn a_slice_whose_local_times_the_server_reads_otherwise_is_not_computed() {
    for (column, width) in [("local", "1 hour"), ("day", "1 day")] {
        let world = world(column, "CET", width).await;
        // Both sides agree in winter.
        assert_eq!(world.run("2026-01-09T23:00:00Z").await.outcome, Outcome::Succeeded);
        let before = world.rows().await;
        for start in ["2026-03-28T23:00:00Z", "2026-07-09T22:00:00Z"] {
            let report = world.run(start).await;
            assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
            let reason = report.reason.unwrap();
            for part in ["CET", "01:00", "02:00"] {
                assert!(reason.contains(part), "{reason}");
            }
            let hint = report.hint.unwrap();
            assert!(hint.contains("Europe/Paris"), "{hint}");
            let checkpoint = world.checkpoint(start).await.unwrap();
            assert_eq!(checkpoint.failures, 0, "an update mends it, no other try");
            assert!(checkpoint.retry_at.is_some());
            let slice = world.slice(start);
            let verified =
                verify::verify_slice(&world.worker, world.rollup(), slice, BUDGET, 1).await;
            assert!(verified.unwrap_err().to_string().contains("CET"));
        }
        assert_eq!(world.rows().await, before);
    }
}

#[tokio::test]
async fn zones_that_both_sides_know_are_read_as_ever() {
    for zone in ["Europe/Paris", "America/St_Johns", "Asia/Kathmandu", "Etc/GMT+5", "UTC"] {
        let world = world("local", zone, "1 hour").await;
        for day in ["2026-01-10", "2026-03-29", "2026-07-10"] {
            let start = world.rollup().calendar.instant(day).unwrap().to_rfc3339();
            assert_eq!(world.run(&start).await.outcome, Outcome::Succeeded, "{zone} {day}");
        }
    }
}

#[tokio::test]
async fn instants_need_no_zone_of_the_server() {
    let sql = "CREATE TABLE logs (id int, local timestamptz); CREATE INDEX ON logs (local)";
    let rollups = rollup("local", "CET", "1 hour").replace(", zone = \"CET\"", "");
    let clock = std::sync::Arc::new(clock("2026-08-01"));
    let world = World::new(sql, Setup { rollups: &rollups, clock, ..Setup::default() }).await;
    assert_eq!(world.run("2026-07-09T22:00:00Z").await.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn change_times_of_a_zone_that_differs_are_an_alarm() {
    let more = "late = { column = \"changed\", zone = \"CET\" }\n";
    let rollups = format!("{}{more}", rollup("local", "UTC", "1 hour"));
    let clock = std::sync::Arc::new(clock("2026-07-10"));
    let world = World::new(LOCAL, Setup { rollups: &rollups, clock, ..Setup::default() }).await;
    world.run("2026-01-09").await;
    let deadline = tallymark::model::clock::Deadline::after(&*world.worker.clock, BUDGET);
    let problems = late::notice(&world.worker, deadline).await;
    assert!(
        problems[0].error.contains("CET") && problems[0].error.contains("late"),
        "{problems:?}"
    );
}

#[tokio::test]
async fn check_compares_the_whole_history() {
    let database = Database::create().await;
    let place =
        Place::new(&database.url(), &database.url(), &rollup("local", "EET", "1 hour")).await;
    place.sql(LOCAL).await;
    let check = place.run(&["check"]);
    assert!(check.out.contains("time zone EET: at 2026-03-29T01:00:00Z"), "{check:?}");
    assert_eq!(check.code, Some(2));
}
