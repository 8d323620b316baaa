//! Servers that fail in the middle: a backend that an administrator ends, a connection cut by the
//! network, a DynamoDB that throttles, breaks or loses its replies. Each gives one line and the
//! documented exit code, and a later run completes the work. (kill.rs covers servers that go away.)

use std::process::Stdio;

use tallymark::model::clock::Stopwatch;

use crate::kill::{SEED, SLICE, SOON, START, hourly, is_done, slow_place};
use crate::support::Database;
use crate::support::cli::{Ended, Place, execute, lines};
use crate::support::proxy::{Cut, Cutter, Fault, Plan, Unreliable};

const RUN: [&str; 5] = ["run", "hourly", "--slice", SLICE, "--json"];
const REPLAY: [&str; 6] = ["replay", "hourly", "--slice", SLICE, "--yes", "--json"];

/// A backend of `url`'s database that works on the slice and whose newest statement contains
/// `text`.
fn backend(text: &str, state: &str) -> String {
    format!(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND state = '{state}' \
         AND application_name LIKE 'tallymark hourly@%' AND query LIKE '%{text}%'"
    )
}

/// Replays the slice, ends the backend while it is at `text`, and lets a later run complete it.
async fn terminated(place: &Place, url: &str, side: &str, (text, state): (&str, &str)) {
    let mut command = place.command(&[&REPLAY[..], &["--budget", "30s"]].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let found = backend(text, state);
    let watch = Stopwatch::start();
    while lines(url, &format!("SELECT pg_terminate_backend(pid) FROM ({found}) found")).await
        != ["(t)"]
    {
        assert!(watch.elapsed().as_secs() < 60, "no backend was at {text}");
    }
    let output = child.wait_with_output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let ended = Ended { code: output.status.code(), out, err };
    ended.refused(3, &[&format!("{side} database: ")]);
    assert!(ended.json()["error"].is_string(), "{ended:?}");
    let again = place.run(&RUN).good().json();
    assert_eq!(again["slices"][0]["outcome"], "succeeded", "{again}");
    is_done(place, 1).await;
}

/// The replacement takes a second, so that the fault can hit it.
const SLOW_REPLACE: &str = "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql \
    AS 'BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END'; \
    CREATE TRIGGER pause AFTER INSERT OR UPDATE ON stats.hourly EXECUTE FUNCTION pause()";

#[tokio::test]
async fn a_backend_that_is_ended_in_one_database_is_told_and_a_later_run_makes_all_good() {
    let database = Database::create().await;
    let place = slow_place(&database.url(), &database.url(), "12 seconds").await;
    execute(&place.target_url, SLOW_REPLACE).await;
    let url = place.target_url.clone();
    for moment in [("WITH staged AS", "active"), ("WITH __diff AS", "active")] {
        terminated(&place, &url, "target", moment).await;
    }
}

#[tokio::test]
async fn a_backend_that_is_ended_on_either_side_is_told_and_a_later_run_makes_all_good() {
    let (source, target) = (Database::create().await, Database::create().await);
    let place = slow_place(&target.url(), &source.url(), "12 seconds").await;
    execute(&place.target_url, SLOW_REPLACE).await;
    let (source, target) = (place.source_url.clone(), place.target_url.clone());
    terminated(&place, &source, "source", ("COPY (SELECT", "active")).await;
    terminated(&place, &target, "target", ("COPY tallymark", "active")).await;
    terminated(&place, &target, "target", ("WITH __diff AS", "active")).await;
}

/// A source of 3600 groups, read whole in a few hundred kilobytes, and another database.
async fn many_groups() -> (Place, [Database; 2]) {
    let (source, target) = (Database::create().await, Database::create().await);
    let rollup = hourly("public.events", SLICE);
    let place = Place::new(&source.url(), &target.url(), &rollup).await;
    let seed = SEED.replace("2026-02-01Z", SLICE).replace("20 seconds", "1 second");
    place.sql(&seed.replace("n % 5", "n")).await;
    place.run(&["init"]).good();
    (place, [source, target])
}

/// The URL with the port of a proxy in front of its server.
pub fn through(url: &str, cut: Cut) -> (String, Cutter) {
    let (before, rest) = url.rsplit_once(':').unwrap();
    let (port, path) = rest.split_once('/').unwrap();
    let cutter = Cutter::start(format!("127.0.0.1:{port}"), cut);
    (format!("{before}:{}/{path}", cutter.port), cutter)
}

#[tokio::test]
async fn a_connection_that_is_cut_is_told_and_a_later_run_makes_all_good() {
    let (mut place, _databases) = many_groups().await;
    let good = (place.source_url.clone(), place.target_url.clone());
    let (source, target) = ("source", "target");
    // In the first, the slice is committed, and the reply is lost.
    let cases = [
        (target, "COMMIT\0", 0),
        (source, "READ COMMITTED READ ONLY", 0),
        (source, "clock_timestamp", 1),
        (source, "COPY (", 0),
        (source, "COPY (", 100_000),
        (target, "FROM STDIN", 0),
        (target, "ON CONFLICT", 1),
        (target, "WITH __diff AS", 1),
    ];
    for (index, (side, said, bytes)) in cases.into_iter().enumerate() {
        let url = if side == source { &mut place.source_url } else { &mut place.target_url };
        let (proxied, cutter) = through(url, Cut { first: None, said, bytes });
        *url = proxied;
        let ended = place.run(if index == 0 { &RUN[..] } else { &REPLAY });
        assert!(cutter.has_cut(), "{said}: {ended:?}");
        // The first transaction only asks whether the servers belong together. The work asks again,
        // and continues.
        if said == "READ COMMITTED READ ONLY" {
            ended.good();
        } else {
            ended.refused(3, &[&format!("{side} database: ")]);
        }
        (place.source_url, place.target_url) = good.clone();
        let again = place.run(&RUN).good().json();
        let again = &again["slices"][0];
        let outcome =
            if said == "READ COMMITTED READ ONLY" { "already_succeeded" } else { "succeeded" };
        assert_eq!(again["outcome"], outcome, "{said}: {again}");
        let rewritten = ["inserted", "updated"].map(|key| again[key].as_u64().unwrap_or(0));
        assert_eq!(rewritten, [0, 0], "{said}: {again}");
        is_done(&place, 1).await;
    }
}

const THROTTLED: Fault = Fault::Answer(400, "ProvisionedThroughputExceededException");
const THROTTLED_TOO: Fault = Fault::Answer(400, "ThrottlingException");
const BROKEN: Fault = Fault::Answer(500, "InternalServerError");

/// Puts an unreliable proxy in front of DynamoDB. `said` distinguishes claims (`claimed_from`) from
/// completions (`rows_read`).
fn unreliable(
    place: &mut Place,
    fault: Fault,
    said: &'static str,
    [skip, count]: [usize; 2],
) -> Unreliable {
    let proxy = Unreliable::start(place.endpoint(), Plan { fault, said, skip, count });
    place.endpoint().clone_from(&proxy.endpoint);
    proxy
}

#[tokio::test]
async fn a_dynamodb_that_recovers_within_its_retries_is_not_noticed() {
    let (mut place, _databases) = many_groups().await;
    let good = place.endpoint().clone();
    for (fault, said, count) in [
        (THROTTLED, "claimed_from", 2),
        (THROTTLED_TOO, "rows_read", 2),
        (BROKEN, "UpdateItem", 2),
        (Fault::LoseReply, "claimed_from", 1),
        (Fault::LoseReply, "rows_read", 1),
        (Fault::LoseReply, "reopened_at", 1),
    ] {
        let proxy = unreliable(&mut place, fault, said, [0, count]);
        let ended = place.run(&REPLAY).good().json();
        assert_eq!((&ended["succeeded"], proxy.met()), (&1.into(), count), "{fault:?}: {ended}");
        place.endpoint().clone_from(&good);
        is_done(&place, 1).await;
    }
}

/// Runs the slice once its lease is free, which takes the rest of the lease.
fn after_the_lease(place: &Place) -> serde_json::Value {
    let watch = Stopwatch::start();
    loop {
        let ended = place.run(&RUN).good().json()["slices"][0].clone();
        if ended["outcome"] != "leased" {
            return ended;
        }
        assert!(watch.elapsed().as_secs() < 60, "{ended}");
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

#[tokio::test]
async fn a_dynamodb_that_goes_on_failing_is_told_and_a_later_run_makes_all_good() {
    let (mut place, _databases) = many_groups().await;
    let run = [&RUN[..], &["--budget", "10s"]].concat();
    let good = place.endpoint().clone();
    let endless = [0, usize::MAX];

    let proxy = unreliable(&mut place, THROTTLED, "claimed_from", endless);
    place.run(&run).refused(1, &["dynamodb throttled claim on table `tallymark`"]);
    assert_eq!(lines(&place.target_url, "SELECT 1 FROM tallymark.slice").await.len(), 0);
    proxy.recover();
    place.run(&run).good();
    is_done(&place, 1).await;
    place.endpoint().clone_from(&good);

    // The slice is committed, and its success cannot be recorded.
    for (fault, word) in [(THROTTLED_TOO, "throttled complete"), (BROKEN, "complete on table")] {
        let _proxy = unreliable(&mut place, fault, "rows_read", endless);
        place.run(&[&REPLAY[..], &["--budget", "10s"]].concat()).refused(1, &[word]);
        place.endpoint().clone_from(&good);
        let again = after_the_lease(&place);
        assert_eq!(
            (&again["outcome"], &again["updated"]),
            (&"succeeded".into(), &0.into()),
            "{again}"
        );
        is_done(&place, 1).await;
    }

    let _proxy = unreliable(&mut place, BROKEN, "Query", endless);
    place
        .run(&["run", "hourly"])
        .refused(1, &["query on table `tallymark` failed", "InternalServerError"]);
    place.run(&["status"]).refused(1, &["InternalServerError"]);
    place.endpoint().clone_from(&good);
    let _lost = unreliable(&mut place, Fault::LoseReply, "GetItem", endless);
    place.run(&["run", "hourly"]).refused(3, &["dynamodb could not be reached"]);
}

#[tokio::test]
async fn a_backfill_that_dynamodb_throttles_goes_on_where_it_stopped() {
    let database = Database::create().await;
    let rollup = hourly("public.events", START);
    let mut place = Place::new(&database.url(), &database.url(), &rollup).await;
    place.sql(&SEED.replace("2026-02-15", "2026-02-05")).await;
    place.run(&["init"]).good();
    let backfill = [
        "backfill",
        "hourly",
        "--from",
        START,
        "--to",
        SOON.0,
        "--budget",
        "2s",
        "--concurrency",
        "4",
        "--yes",
    ];
    // More than four workers' retries, and more than the batch's passes.
    let proxy = unreliable(&mut place, THROTTLED, "UpdateItem", [40, usize::MAX]);
    place.run(&backfill).refused(1, &["dynamodb throttled"]);
    // Four passes of four workers, each with one call and its two retries. In the first pass a worker
    // may write of 32 neighbours.
    assert!((12..=3 * 4 * (32 + 3)).contains(&proxy.met()), "{}", proxy.met());
    proxy.recover();
    place.run(&backfill).good();
    is_done(&place, SOON.1).await;
}

/// One call of any kind stays unanswered. The slice is given back, and the backfill continues.
#[tokio::test]
async fn a_backfill_goes_on_after_a_time_out_of_dynamodb() {
    let database = Database::create().await;
    let rollup = hourly("public.events", START);
    let mut place = Place::new(&database.url(), &database.url(), &rollup).await;
    place.sql(&SEED.replace("2026-02-15", "2026-02-02")).await;
    place.run(&["init"]).good();
    let good = place.endpoint().clone();
    let to = ["--to", "2026-02-02", "--budget", "2s", "--yes", "--force", "--json"];
    let backfill = [&["backfill", "hourly", "--from", START][..], &to].concat();
    for said in ["claimed_from", "rows_read", "GetItem"] {
        // A call and its retries.
        let proxy = unreliable(&mut place, Fault::LoseReply, said, [7, 3]);
        let done = place.run(&backfill).good().json();
        assert_eq!((&done["succeeded"], &done["left"]), (&24.into(), &0.into()), "{said}: {done}");
        assert_eq!(proxy.met(), 3, "{said}");
        place.endpoint().clone_from(&good);
    }
}

/// Writes to this table now find the disk full, as `/dev/full` reports.
#[cfg(target_os = "linux")]
pub(crate) async fn filled(url: &str, table: &str) -> [std::path::PathBuf; 2] {
    let place = "current_setting('data_directory') || '/' || pg_relation_filepath";
    let path = lines(url, &format!("SELECT {place}('{table}')")).await.join("");
    let path = std::path::PathBuf::from(path.trim_matches(['(', ')', '"']));
    let kept = path.with_extension("kept");
    std::fs::rename(&path, &kept).unwrap();
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    [path, kept]
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_disk_that_is_full_is_told_and_room_makes_all_good() {
    let (place, _databases) = many_groups().await;
    // First the chunk finds no room, and then the result.
    for table in ["tallymark.stage_hourly", "stats.hourly"] {
        let [path, kept] = filled(&place.target_url, table).await;
        let words = ["target database: ", "No space left on device"];
        place.run(&RUN).refused(3, &words);
        std::fs::rename(kept, path).unwrap();
    }
    let again = place.run(&RUN).good().json();
    assert_eq!(again["slices"][0]["outcome"], "succeeded", "{again}");
    let failures = place.checkpoints().get("hourly", SLICE.parse().unwrap()).await.unwrap();
    assert_eq!(failures.unwrap().failures, 0, "a full disk is no slice's failure");
    is_done(&place, 1).await;
}
