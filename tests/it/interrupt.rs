//! Ctrl-C and SIGTERM: slices in work are given back, nothing more starts, and the same command
//! continues later.

use std::io::Read as _;
use std::process::{Child, Stdio};
use std::time::Duration;

use tallymark::checkpoint::State;
use tallymark::model::clock::Stopwatch;

use crate::kill::{SEED, SLOW, START, hourly};
use crate::support::Database;
use crate::support::cli::{Ended, Place, end_of, lines, signal};

/// Longer than any machine stands still.
const LIMIT: Duration = Duration::from_secs(60);

/// Tallymark's running statements on the server.
const RUNNING: &str = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'tallymark hourly@%' \
    AND state = 'active' AND datname = current_database() AND query LIKE '%slow_events%'";

const BEGUN: &str = "SELECT count(*) FROM tallymark.slice WHERE replaced_at IS NOT NULL";

async fn slow_place() -> (Place, Database) {
    let database = Database::create().await;
    let place = Place::new(&database.url(), &database.url(), &hourly("slow_events", START)).await;
    let slow = SLOW.replace("PERFORM pg_sleep(0.005)", "PERFORM pg_sleep(seconds) FROM nap");
    place.sql(&format!("{SEED}; CREATE TABLE nap AS SELECT 2.0 AS seconds; {slow}")).await;
    place.run(&["init"]).good();
    (place, database)
}

/// Waits until this query of the server returns rows, or none.
pub(crate) async fn wait_for(place: &Place, sql: &str, any: bool) {
    let watch = Stopwatch::start();
    while lines(&place.source_url, sql).await.is_empty() == any {
        assert!(watch.elapsed() < LIMIT, "{sql}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn end(mut child: Child) -> Ended {
    let status = end_of(&mut child).await;
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    Ended { code: status.code(), out, err }
}

fn start(place: &Place, arguments: &[&str]) -> Child {
    let mut command = place.command(arguments);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[tokio::test]
async fn a_signal_in_the_middle_of_a_statement_gives_the_slice_back() {
    let (place, _database) = slow_place().await;
    let to = "2026-02-01T06:00:00Z";
    let backfill =
        ["backfill", "hourly", "--from", START, "--to", to, "--order", "oldest-first", "--yes"];
    for (arguments, name, code) in [
        (&backfill[..], "INT", 130),
        (&["run", "hourly", "--slice", START], "TERM", 143),
        (&["replay", "hourly", "--slice", START, "--yes"], "INT", 130),
    ] {
        let child = start(&place, arguments);
        wait_for(&place, RUNNING, true).await;
        let [from, until] = [START, "2027-01-01T00:00:00Z"].map(|text| text.parse().unwrap());
        let before = place.checkpoints().range("hourly", from, until).await.unwrap();
        signal(child.id(), name);
        let ended = end(child).await;
        assert_eq!(ended.code, Some(code), "{ended:?}");
        let told =
            ended.err.lines().filter(|line| line.contains("the same command goes on")).count();
        assert_eq!(told, 1, "{ended:?}");
        wait_for(&place, RUNNING, false).await;
        // Nothing started after the signal, and the slices in work are free.
        let after = place.checkpoints().range("hourly", from, until).await.unwrap();
        let attempts = |all: &[tallymark::checkpoint::Checkpoint]| {
            all.iter().map(|it| (it.slice_start, it.attempt)).collect::<Vec<_>>()
        };
        assert_eq!(attempts(&before), attempts(&after), "{ended:?}");
        for checkpoint in after {
            assert_ne!(checkpoint.state, State::Running, "{checkpoint:?}");
            assert_eq!((checkpoint.lease_until, checkpoint.failures), (None, 0), "{checkpoint:?}");
            assert_eq!(checkpoint.reason.as_deref(), Some("interrupted"), "{checkpoint:?}");
        }
        assert_eq!(lines(&place.target_url, BEGUN).await, ["(0)"]);
    }
    place.sql("UPDATE nap SET seconds = 0").await;
    let ended = place.run(&backfill).good();
    assert!(ended.out.contains("6 slices succeeded"), "{ended:?}");
}

#[tokio::test]
async fn a_signal_ends_a_process_whose_store_is_out_of_reach() {
    let (mut place, _database) = slow_place().await;
    let child = start(&place, &["run", "hourly", "--slice", START]);
    wait_for(&place, RUNNING, true).await;
    place.stop_dynamo();
    signal(child.id(), "INT");
    let ended = end(child).await;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.err.contains("once its lease is over"), "{ended:?}");
    wait_for(&place, RUNNING, false).await;
}

#[tokio::test]
async fn a_comparison_that_is_interrupted_says_so() {
    let (place, _database) = slow_place().await;
    place.sql("UPDATE nap SET seconds = 0").await;
    place
        .run(&["backfill", "hourly", "--from", START, "--to", "2026-02-01T02:00:00Z", "--yes"])
        .good();
    place.sql("UPDATE nap SET seconds = 2").await;
    let child = start(&place, &["verify"]);
    wait_for(&place, RUNNING.split(" AND query").next().unwrap(), true).await;
    signal(child.id(), "INT");
    let ended = end(child).await;
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.err.contains("interrupted; the same command goes on from here"), "{ended:?}");
    assert!(ended.out.contains("not compared, as the command was interrupted"), "{ended:?}");
    assert!(!ended.out.contains("every slice verified"), "{ended:?}");
}
