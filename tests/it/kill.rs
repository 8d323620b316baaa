//! Workers that are killed, stopped or cut off lose nothing and count nothing twice.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tallymark::checkpoint::Checkpoint;
use tallymark::embedded::postgres::{Binaries, EmbeddedPostgres, Options};
use tallymark::model::clock::Stopwatch;

use crate::support::cli::{Ended, Place, ended, execute, lines, signal, with_password};
use crate::support::{Database, cache, options, server_directory, share, until};

/// The hour used where one is enough.
pub(crate) const SLICE: &str = "2026-02-15T23:00:00Z";

/// The end of a shorter history, and its number of slices.
pub(crate) const SOON: (&str, usize) = ("2026-02-06T00:00:00Z", 5 * 24);

/// Slices of an hour, from here ...
pub(crate) const START: &str = "2026-02-01T00:00:00Z";
/// ... to here.
const END: &str = "2026-02-16T00:00:00Z";
const SLICES: usize = 15 * 24;

pub(crate) fn hourly(from: &str, start: &str) -> String {
    format!(
        "[[rollup]]\nname = \"hourly\"\nfrom = \"{from}\"\ntime = \"at\"\nstart = \"{start}\"\n\
         slice = \"1 hour\"\nbucket = \"15 minutes\"\ngroup_by = [\"entity\"]\n\
         [rollup.measures]\nevents = \"count\"\nrevenue = {{ sum = \"amount\" }}\n\
         users = {{ distinct = \"person\" }}\n"
    )
}

/// Events from START to END, one every 20 s.
pub(crate) const SEED: &str = "CREATE TABLE events AS \
    SELECT at, n % 5 AS entity, (n % 7)::numeric(10, 2) AS amount, n * n % 11 AS person \
    FROM generate_series('2026-02-01Z'::timestamptz, '2026-02-15T23:59:59Z', '20 seconds') \
    WITH ORDINALITY AS series (at, n); CREATE INDEX ON events (at); ANALYZE events";

/// The result of one GROUP BY over the source.
fn truth(from: &str) -> String {
    format!(
        "SELECT date_bin('15 minutes', at, '2026-01-01Z') AS bucket, entity, count(*) AS events, \
         sum(amount) AS revenue, count(DISTINCT person) AS users FROM {from} GROUP BY 1, 2"
    )
}
const ROLLUP: &str = "SELECT bucket, entity, events, revenue, users FROM stats.hourly";

/// A view whose every row takes 5 ms to read after the index has found it. ROWS tells the planner
/// that it costs as much as 5000 ordinary rows.
pub(crate) const SLOW: &str = "CREATE FUNCTION slow(timestamptz) RETURNS SETOF boolean LANGUAGE plpgsql \
    VOLATILE ROWS 5000 AS 'BEGIN PERFORM pg_sleep(0.005); RETURN NEXT true; END'; \
    CREATE VIEW slow_events AS SELECT e.* FROM events e CROSS JOIN LATERAL slow(e.at)";

/// The rollup equals the source, no slice is half done, and the checkpoints say so.
pub(crate) async fn is_done(place: &Place, slices: usize) {
    let found = lines(&place.target_url, ROLLUP).await;
    let wanted = lines(&place.source_url, &truth("events")).await;
    let differ = found.iter().zip(&wanted).find(|(found, wanted)| found != wanted);
    assert!(
        found == wanted && !found.is_empty(),
        "{} of {}: {differ:?}",
        found.len(),
        wanted.len()
    );
    let left = "SELECT (SELECT count(*) FROM tallymark.stage_hourly), \
                (SELECT count(*) FROM tallymark.progress), \
                (SELECT count(*) FROM tallymark.slice WHERE replaced_at IS NULL)";
    assert_eq!(lines(&place.target_url, left).await, ["(0,0,0)"]);
    assert_eq!(place.checkpoints().unfinished("hourly").await.unwrap().len(), 0);
    let verify = place.json(&["verify", "hourly", "--from", START, "--to", END]);
    assert_eq!(
        (verify["slices"].as_u64(), verify["differences"].as_u64()),
        (Some(slices as u64), Some(0))
    );
    let rows = "SELECT (SELECT sum(events) FROM stats.hourly) = \
                (SELECT sum(rows_read) FROM tallymark.slice)";
    assert_eq!(lines(&place.target_url, rows).await, ["(t)"]);
}

async fn checkpoints(place: &Place) -> Vec<Checkpoint> {
    let [from, to] = [START, END].map(|text| text.parse().unwrap());
    place.checkpoints().range("hourly", from, to).await.unwrap()
}

/// Kills a worker 25 times in the middle of a backfill, then lets one finish it.
async fn killed_25_times(place: &Place) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    place.run(&["init"]).good();
    let backfill = [
        "backfill",
        "hourly",
        "--from",
        START,
        "--to",
        END,
        "--budget",
        "1s",
        "--concurrency",
        "2",
        "--yes",
    ];
    for kill in 0..25 {
        let mut child = place.begin(&backfill);
        thread::sleep(Duration::from_millis(random.u64(1..=150)));
        assert!(child.try_wait().unwrap().is_none(), "kill {kill}: it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // The killed leases were short. This one must finish even on a busy machine.
    let last = backfill.map(|word| if word == "1s" { "10s" } else { word });
    let ended = place.run(&last).good();
    let checkpoints = checkpoints(place).await;
    assert_eq!(checkpoints.len(), SLICES);
    let taken_over = checkpoints.iter().filter(|checkpoint| checkpoint.attempt > 1).count();
    assert!(taken_over > 0, "no kill hit a slice: {ended:?}");
    eprintln!("{taken_over} slices were taken over from killed workers");
    is_done(place, SLICES).await;
}

/// In one database, or between two.
#[tokio::test]
async fn killed_at_random_instants_nothing_is_lost_or_done_twice() {
    for (cell, across) in [false, true].into_iter().enumerate() {
        if !share::is_drawn("databases of killed workers", cell, 2, 1) {
            continue;
        }
        let source = Database::create().await;
        let target = if across { Database::create().await.url() } else { source.url() };
        let place = Place::new(&source.url(), &target, &hourly("public.events", START)).await;
        place.sql(SEED).await;
        killed_25_times(&place).await;
    }
}

/// A place whose only slice takes about 7 s to read, in many chunks.
pub(crate) async fn slow_place(target: &str, source: &str, interval: &str) -> Place {
    let place =
        Place::new(source, target, &hourly("public.slow_events", "2026-02-15T23:00:00Z")).await;
    place
        .sql(&format!(
            "{}; {SLOW}",
            SEED.replace("2026-02-01Z", "2026-02-15T23:00:00Z").replace("20 seconds", interval)
        ))
        .await;
    place.run(&["init"]).good();
    place
}

/// Every row and marker of the target with the transaction that wrote it.
pub(crate) async fn versions(place: &Place) -> Vec<String> {
    let rows = "SELECT xmin::text, r::text FROM stats.hourly r UNION ALL \
                SELECT xmin::text, m::text FROM tallymark.slice m UNION ALL \
                SELECT xmin::text, p::text FROM tallymark.progress p UNION ALL \
                SELECT xmin::text, s::text FROM tallymark.stage_hourly s";
    lines(&place.target_url, rows).await
}

/// Waits until the target has a row that `sql` finds.
async fn there_is(place: &Place, sql: &str) {
    until(sql, async || lines(&place.target_url, sql).await.pop()).await;
}

async fn a_zombie_writes_nothing(place: &Place) {
    let run = ["run", "hourly", "--slice", SLICE, "--json"];
    let mut zombie = place
        .command(&[&run[..], &["--budget", "8s"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    there_is(place, "SELECT 1 FROM tallymark.progress WHERE chunks >= 2").await;
    signal(zombie.id(), "STOP");
    let held = place.run(&run).good().json();
    assert_eq!(held["slices"][0]["outcome"], "leased", "{held}");
    // The lease: the rest of the budget, and 5 s.
    let watch = Stopwatch::start();
    let ended = loop {
        let ended = place.run(&run).good().json();
        if ended["slices"][0]["outcome"] != "leased" {
            break ended;
        }
        assert!(watch.elapsed().as_secs() < 60, "{ended}");
        thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(ended["slices"][0]["outcome"], "succeeded", "{ended}");
    assert_eq!(ended["slices"][0]["attempt"], 2);
    let before = versions(place).await;
    assert!(zombie.try_wait().unwrap().is_none());
    signal(zombie.id(), "CONT");
    let output = zombie.wait_with_output().unwrap();
    assert_eq!(versions(place).await, before);
    // If the server had ended its connection, it reports that, and that its lease is lost.
    let out = String::from_utf8(output.stdout).unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    let fenced = out.contains("\"outcome\": \"fenced\"") && output.status.success();
    let cut_off = output.status.code() == Some(3) && err.contains("lost by attempt 1: attempt 2");
    assert!(fenced || cut_off, "{:?} {out} {err}", output.status);
    is_done(place, 1).await;
}

#[tokio::test]
async fn a_worker_that_wakes_after_its_lease_writes_nothing() {
    let database = Database::create().await;
    let place = slow_place(&database.url(), &database.url(), "3 seconds").await;
    a_zombie_writes_nothing(&place).await;
}

#[tokio::test]
async fn a_worker_that_wakes_between_two_databases_writes_nothing() {
    let (source, target) = (Database::create().await, Database::create().await);
    let place = slow_place(&target.url(), &source.url(), "3 seconds").await;
    a_zombie_writes_nothing(&place).await;
}

#[tokio::test]
async fn of_50_processes_that_claim_a_slice_one_works() {
    let database = Database::create().await;
    let place = slow_place(&database.url(), &database.url(), "12 seconds").await;
    let run = ["run", "hourly", "--slice", SLICE, "--json"];
    let ends: Vec<Ended> = thread::scope(|scope| {
        let runs: Vec<_> =
            (0..50).map(|_| scope.spawn(|| ended(&mut place.command(&run)))).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    let outcomes: Vec<String> = ends
        .into_iter()
        .map(|ended| ended.good().json()["slices"][0]["outcome"].as_str().unwrap().to_owned())
        .collect();
    let count = |word: &str| outcomes.iter().filter(|outcome| *outcome == word).count();
    assert_eq!(count("succeeded"), 1, "{outcomes:?}");
    assert_eq!(count("leased") + count("already_succeeded"), 49, "{outcomes:?}");
    let checkpoints = checkpoints(&place).await;
    assert_eq!((checkpoints.len(), checkpoints[0].attempt), (1, 1));
    is_done(&place, 1).await;
}

#[tokio::test]
async fn a_slice_ten_times_the_budget_ends_over_several_invocations() {
    let database = Database::create().await;
    // 3600 rows of a little over 5 ms: about 20 s.
    let place = slow_place(&database.url(), &database.url(), "1 second").await;
    let run = ["run", "hourly", "--slice", SLICE, "--budget", "2s", "--json"];
    let mut cursors: Vec<String> = Vec::new();
    for invocation in 1.. {
        let ended = place.run(&run);
        let is_waiting = ended.out.contains("\"outcome\": \"waiting\"");
        if ended.out.contains("did not end within the budget") || is_waiting {
            // If a machine stands still for most of a budget, the slice waits for its next turn.
            assert!(invocation < 200, "{cursors:?}");
            thread::sleep(Duration::from_secs(1));
            continue;
        }
        let ended = ended.good().json();
        if ended["slices"][0]["outcome"] == "succeeded" {
            assert_eq!(ended["slices"][0]["rows_read"], 3600, "{ended}");
            break;
        }
        assert_eq!(ended["slices"][0]["outcome"], "yielded", "{ended}");
        let progress = "SELECT cursor, rows_read, chunks FROM tallymark.progress";
        cursors.extend(lines(&place.target_url, progress).await);
        assert!(invocation < 200, "{cursors:?}");
    }
    assert!(cursors.len() >= 8, "{cursors:?}");
    assert!(cursors.is_sorted(), "{cursors:?}");
    is_done(&place, 1).await;
}

#[tokio::test]
async fn a_dynamodb_that_goes_away_is_told_and_its_return_makes_all_good() {
    let database = Database::create().await;
    let mut place =
        Place::new(&database.url(), &database.url(), &hourly("public.events", START)).await;
    place.sql(&SEED.replace("2026-02-15", "2026-02-05")).await;
    place.run(&["init"]).good();
    let backfill =
        ["backfill", "hourly", "--from", START, "--to", SOON.0, "--budget", "3s", "--yes"];
    let child = place.command(&backfill).stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    there_is(&place, "SELECT 1 FROM tallymark.slice").await;
    place.stop_dynamo();
    cut_off(child.unwrap(), &["dynamodb could not be reached"]);
    place.start_dynamo().await;
    place.run(&backfill).good();
    is_done(&place, SOON.1).await;
}

/// Waits for the end of a worker whose server has gone.
fn cut_off(child: Child, words: &[&str]) {
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    Ended { code: output.status.code(), out: String::new(), err }.refused(3, words);
}

#[tokio::test]
async fn a_postgresql_that_crashes_is_told_and_its_return_makes_all_good() {
    let directory = server_directory("immediate");
    let start = || {
        let options = Options { throwaway: false, durable: true, ..options(directory.clone()) };
        EmbeddedPostgres::start(Binaries::find(&cache()).unwrap(), options).unwrap()
    };
    let server = start();
    let url = server.url("postgres");
    let mut place = Place::new(&url, &url, &hourly("public.events", START)).await;
    place.sql(&SEED.replace("2026-02-15", "2026-02-05")).await;
    place.run(&["init"]).good();
    // Longer than the time limit of a connection, within which the missing server must be noticed.
    let backfill =
        ["backfill", "hourly", "--from", START, "--to", SOON.0, "--budget", "10s", "--yes"];
    let child = place.command(&backfill).stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    there_is(&place, "SELECT 1 FROM tallymark.slice").await;
    let file = std::fs::read_to_string(directory.join("data/postmaster.pid")).unwrap();
    let postmaster = file.lines().next().unwrap();
    assert!(Command::new("kill").args(["-QUIT", postmaster]).status().unwrap().success());
    cut_off(child.unwrap(), &["database: "]);
    drop(server);
    let server = start();
    let url = with_password(&server.url("postgres"));
    (place.source_url, place.target_url) = (url.clone(), url);
    // It has another port now, for which only its owner can vouch.
    place.run(&backfill).refused(2, &["hint: tallymark moved"]);
    place.run(&["moved", "--yes"]).good();
    place.run(&backfill).good();
    is_done(&place, SOON.1).await;
    execute(&place.source_url, "CHECKPOINT").await;
    drop(server);
    std::fs::remove_dir_all(&directory).unwrap();
}
