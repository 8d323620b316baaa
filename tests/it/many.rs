//! Many processes on one store in the target, half of them behind a transaction pooler.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tallymark::model::clock::Stopwatch;

use crate::kill::{SEED, START, hourly, is_done};
use crate::store::contradictions;
use crate::support::cli::{Place, lines, signal};
use crate::support::pooler::PgBouncer;
use crate::support::{Database, postgres};

const PROCESSES: usize = 20;

/// Of these, some are killed and others frozen.
const KILLED: usize = 3;
const FROZEN: usize = 3;

/// The slices of the source.
const SLICES: usize = 15 * 24;
const END: &str = "2026-02-16T00:00:00Z";

/// Neighbours that one worker has at most.
const NEIGHBOURS: usize = 32;

/// The workers are disturbed once this many slices are done.
const DONE_FIRST: usize = 40;

/// A slice's lease outlives this by five seconds.
const BUDGET: &str = "20s";

/// Longer than any of this takes.
const PATIENCE: Duration = Duration::from_secs(300);

/// The live rows, and how much of the table they take.
const SIZES: &str = "SELECT sum(pg_column_size(c.*))::bigint AS live, \
    pg_relation_size('tallymark.checkpoint') AS used FROM tallymark.checkpoint AS c";

fn backfill(place: &Place, url: &str) -> Command {
    let mut command = place.command(&[
        "backfill",
        "hourly",
        "--from",
        START,
        "--to",
        END,
        "--budget",
        BUDGET,
        "--concurrency",
        "1",
        "--yes",
    ]);
    command.env("SOURCE_DATABASE_URL", url).env("TARGET_DATABASE_URL", url);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// The processes that have a slice now.
async fn holders(place: &Place) -> BTreeSet<u32> {
    let sql = "SELECT substring(item->>'owner' FROM '@pid ([0-9]+) ') FROM tallymark.checkpoint \
               WHERE item->>'state' = 'running'";
    let found = lines(&place.target_url, sql).await;
    found.iter().map(|row| row.trim_matches(['(', ')']).parse().unwrap()).collect()
}

async fn succeeded(place: &Place) -> usize {
    let sql = "SELECT FROM tallymark.checkpoint WHERE item->>'state' = 'succeeded'";
    lines(&place.target_url, sql).await.len()
}

/// Every row, marker and checkpoint of a slice with the transaction that wrote it.
async fn versions(place: &Place) -> Vec<String> {
    let rows = "SELECT xmin::text, r::text FROM stats.hourly r UNION ALL \
                SELECT xmin::text, m::text FROM tallymark.slice m UNION ALL \
                SELECT xmin::text, c::text FROM tallymark.checkpoint c WHERE sort < 'A'";
    lines(&place.target_url, rows).await
}

async fn agrees(place: &Place) {
    assert_eq!(lines(&place.target_url, &contradictions("hourly")).await, [""; 0]);
}

/// Takes `count` of the workers that have a slice, or of the others if there are too few.
fn taken(workers: &mut Vec<Child>, holders: &BTreeSet<u32>, count: usize) -> Vec<Child> {
    workers.sort_by_key(|worker| holders.contains(&worker.id()));
    workers.split_off(workers.len() - count)
}

#[tokio::test]
async fn of_twenty_processes_each_slice_is_done_once_and_dead_ones_give_way() {
    let database = Database::create().await;
    let url = database.url();
    let place = Place::new(&url, &url, &hourly("public.events", START)).await;
    let store = "[checkpoint]\nstore = \"postgres\"\n";
    let rollup = hourly("public.events", START);
    place.configure_source("nice_ratio = 0\nslots = 64", &format!("{store}{rollup}"));
    place.sql(SEED).await;
    place.run(&["init"]).good();
    let Some(pooler) = PgBouncer::start(postgres().port(), 10) else {
        eprintln!("skipped: PgBouncer is not installed (apt-get install pgbouncer)");
        return;
    };
    let patient = |url: &str| format!("{url}?connect_timeout=60");
    let (here, there) = (format!(":{}/", postgres().port()), format!(":{}/", pooler.port));
    let urls = [patient(&place.source_url), patient(&place.source_url.replace(&here, &there))];
    let begin = |n: usize| backfill(&place, &urls[n % 2]).spawn().unwrap();
    let mut workers: Vec<Child> = (0..PROCESSES).map(begin).collect();
    let watch = Stopwatch::start();
    while succeeded(&place).await < DONE_FIRST {
        assert!(watch.elapsed() < PATIENCE, "they make no progress");
        agrees(&place).await;
    }
    // All stand still, so that those who hold slices hold them until they are killed.
    let all = |workers: &[Child], name| workers.iter().for_each(|it| signal(it.id(), name));
    all(&workers, "STOP");
    while holders(&place).await.is_empty() {
        all(&workers, "CONT");
        thread::sleep(Duration::from_millis(10));
        assert!(watch.elapsed() < PATIENCE, "nobody holds a slice");
        all(&workers, "STOP");
    }
    let mut killed = taken(&mut workers, &holders(&place).await, KILLED);
    killed.iter_mut().for_each(|worker| worker.kill().unwrap());
    killed.iter_mut().for_each(|worker| assert!(!worker.wait().unwrap().success()));
    let frozen = taken(&mut workers, &holders(&place).await, FROZEN);
    all(&workers, "CONT");
    for mut worker in workers {
        while worker.try_wait().unwrap().is_none() {
            assert!(watch.elapsed() < PATIENCE, "a worker does not end");
            agrees(&place).await;
            thread::sleep(Duration::from_millis(50));
        }
        assert!(worker.wait().unwrap().success());
    }
    let attempts = "SELECT count(*) FILTER (WHERE (item->>'attempt')::int = 1), \
                    count(*) FILTER (WHERE (item->>'attempt')::int = 2), count(*) \
                    FROM tallymark.checkpoint WHERE sort < 'A' AND item->>'state' = 'succeeded'";
    let [once, twice, all] = numbers(&lines(&place.target_url, attempts).await[0]);
    assert_eq!((once + twice, all), (SLICES, SLICES));
    assert!(
        twice > 0 && twice <= (KILLED + FROZEN) * NEIGHBOURS,
        "{twice} slices were done by a second attempt"
    );
    let before = versions(&place).await;
    for mut worker in frozen {
        assert!(worker.try_wait().unwrap().is_none());
        signal(worker.id(), "CONT");
        worker.wait().unwrap();
    }
    assert_eq!(versions(&place).await, before, "a worker that woke has written");
    agrees(&place).await;
    let [live, used] = numbers(&lines(&place.target_url, SIZES).await[0]);
    assert!(used < 4 * live, "{used} bytes for {live} of live rows");
    is_done(&place, SLICES).await;
}

/// The numbers of a row.
fn numbers<const N: usize>(row: &str) -> [usize; N] {
    let row = row.trim_matches(['(', ')']).split(',');
    row.map(|number| number.parse().unwrap()).collect::<Vec<_>>().try_into().unwrap()
}
