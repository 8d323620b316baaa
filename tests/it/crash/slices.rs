//! One slice per invocation, with a separate slice for each case.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use super::scene::{Scene, environment_of};
use super::wire::{Wires, apart};
use crate::kill::{SEED, START, hourly, is_done, versions};
use crate::store::contradictions;
use crate::support::Database;
use crate::support::cli::{Place, execute, lines};

/// As many slices as there can be cases in a round: the rerun works on all of them.
pub const SLICES: usize = 4 * 24;

/// The day of the last of them, and that of the last of the application's rows.
const LAST_DAY: &str = "2026-02-04";

/// Each failure is followed by a wait of at most 45 s, and the second failure by twice that.
const RERUNS_MAX: u32 = 30;
const RERUN_EVERY: Duration = Duration::from_secs(5);

/// A view whose every row takes 5 ms to read while `slowness` has a row, so that a slice takes
/// several chunks once that is known. Without a row in `slowness` the view cannot be read.
const SLOW: &str = "CREATE TABLE slowness AS SELECT 0.005 AS seconds; \
    CREATE FUNCTION slow(timestamptz) RETURNS SETOF boolean LANGUAGE plpgsql VOLATILE ROWS 1 AS \
    'BEGIN PERFORM pg_sleep(seconds), 1 / seconds FROM public.slowness; RETURN NEXT true; END'; \
    CREATE VIEW slow_events AS SELECT e.* FROM events e CROSS JOIN LATERAL slow(e.at)";

/// Looks for the transaction of [`HOLD`], which begins at once.
const HELD_LOOKS_MAX: u32 = 10_000;

/// A transaction that has an ID and stays open.
const HOLD: &str = "BEGIN; CREATE TABLE held (); SELECT pg_sleep(600)";

/// Ends it.
const RELEASE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
    WHERE datname = current_database() AND query LIKE 'BEGIN; CREATE TABLE held%'";

/// The properties of a scene.
#[derive(Clone, Copy, Default)]
pub struct Ways {
    /// The rollup is in a separate database.
    pub has_target: bool,
    /// A slice takes several chunks.
    pub is_slow: bool,
    /// The application has a transaction open that may still write into the slice.
    pub is_waiting: bool,
    /// An operator replays the slice.
    pub is_replay: bool,
    /// The source cannot be read.
    pub is_failing: bool,
    /// The checkpoints are in the target.
    pub has_store: bool,
}

pub struct Slices {
    name: &'static str,
    place: Place,
    endpoint: String,
    ways: Ways,
    _databases: Vec<Database>,
}

impl Slices {
    pub async fn new(name: &'static str, ways: Ways) -> Self {
        let Ways { has_target, is_slow, is_failing, .. } = ways;
        let mut databases = vec![Database::create().await];
        if has_target {
            databases.push(Database::create().await);
        }
        let (source, target) = (databases[0].url(), databases[databases.len() - 1].url());
        let is_view = is_slow || is_failing;
        let rollups = hourly(if is_view { "public.slow_events" } else { "public.events" }, START);
        let mut place = Place::new(&source, &target, &rollups).await;
        let chunk_time = if is_slow { "100ms" } else { "2s" };
        let target = match has_target {
            true => "[target]\nurl = { env = \"TARGET_DATABASE_URL\" }\n",
            false => "",
        };
        let store = if ways.has_store { "[checkpoint]\nstore = \"postgres\"\n" } else { "" };
        let text = format!(
            "[source]\nurl = {{ env = \"SOURCE_DATABASE_URL\" }}\nchunk_time = \"{chunk_time}\"\n\
             nice_ratio = 0\nslots = 64\n{target}{store}{rollups}"
        );
        std::fs::write(place.config(), text).unwrap();
        let seed = SEED.replace("20 seconds", "1 minute").replace("2026-02-15", LAST_DAY);
        place.sql(&format!("{seed}; {SLOW}")).await;
        place.run(&["init"]).good();
        let endpoint = place.endpoint().clone();
        Self { name, place, endpoint, ways, _databases: databases }
    }
}

impl Scene for Slices {
    fn name(&self) -> &'static str {
        self.name
    }

    fn lanes(&self) -> usize {
        1
    }

    fn is_waiting(&self) -> bool {
        self.ways.is_waiting
    }

    fn has_store(&self) -> bool {
        self.ways.has_store
    }

    async fn agrees(&self) {
        if self.ways.has_store {
            let found = lines(&self.place.target_url, &contradictions("hourly")).await;
            assert_eq!(found, [""; 0], "rows, marker and checkpoint contradict each other");
        }
    }

    fn prepare(&self, _: usize) {
        let url = &self.place.source_url;
        if self.ways.is_failing {
            apart(execute(url, "UPDATE slowness SET seconds = 0"));
        }
        if self.ways.is_waiting && !is_held(url) {
            let held = url.clone();
            // Ends with its backend.
            thread::spawn(move || apart(run_to_its_end(held)));
            let comes = (0..HELD_LOOKS_MAX).any(|_| {
                thread::sleep(Duration::from_millis(10));
                is_held(url)
            });
            assert!(comes, "the transaction that the slice waits for never begins");
        }
    }

    fn event(&self, case: usize) -> Value {
        let start = start() + TimeDelta::hours(case.try_into().unwrap());
        let start = start.to_rfc3339();
        match self.ways.is_replay {
            false => json!({ "trigger": "slice", "rollup": "hourly", "start": start }),
            true => json!({
                "trigger": "replay", "rollup": "hourly", "start": start, "reason": "a test"
            }),
        }
    }

    fn environment(&self, wires: &Arc<Wires>) -> Vec<(&'static str, String)> {
        let dynamo = (!self.ways.has_store).then_some(&self.endpoint);
        let mut environment = environment_of(&self.place, dynamo, wires);
        if self.ways.has_target {
            let url = wires.postgres("target", &self.place.target_url);
            environment.push(("TARGET_DATABASE_URL", url));
        }
        environment
    }

    async fn rerun(&self) {
        self.place.sql(&format!("DELETE FROM slowness; {RELEASE}")).await;
        let to = (start() + TimeDelta::hours(SLICES.try_into().unwrap())).to_rfc3339();
        let backfill = ["backfill", "hourly", "--from", START, "--to", &to, "--yes"];
        let backfill = [&backfill[..], &["--concurrency", "4"]].concat();
        // A slice that has failed waits before it is tried again.
        for _ in 0..RERUNS_MAX {
            let ended = self.place.run(&backfill);
            if !ended.err.contains("waits until") {
                ended.good();
                break;
            }
            tokio::time::sleep(RERUN_EVERY).await;
        }
        self.place.sql("INSERT INTO slowness VALUES (0.005)").await;
    }

    async fn versions(&self) -> Vec<String> {
        versions(&self.place).await
    }

    async fn is_done(&self) {
        self.place.sql(&format!("DELETE FROM slowness; {RELEASE}")).await;
        is_done(&self.place, SLICES).await;
    }
}

fn start() -> DateTime<Utc> {
    START.parse().unwrap()
}

fn is_held(url: &str) -> bool {
    let sql = "SELECT FROM pg_stat_activity WHERE datname = current_database() \
        AND query LIKE 'BEGIN; CREATE TABLE held%' AND wait_event = 'PgSleep'";
    !apart(lines(url, sql)).is_empty()
}

async fn run_to_its_end(url: String) {
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let ended = sqlx::raw_sql(HOLD).execute(&mut connection).await;
    assert!(ended.is_err(), "nobody ended the transaction");
}
