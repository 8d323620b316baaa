//! A source, a target, a rollup, and the real `bootstrap` at the end of wires.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::names;
use super::wire::{Planned, Wires};
use crate::kill::{SEED, START, hourly, is_done, versions};
use crate::support::Database;
use crate::support::cli::Place;
use crate::support::runtime_api::{Answer, Function};

/// Lambda's limit of an invocation.
const BUDGET: Duration = Duration::from_secs(4);

/// No lease of such an invocation is longer: its budget, and 5 s.
pub const LEASE: Duration = Duration::from_secs(9);

/// The slices; each case needs one.
const SLICES: usize = 15 * 24;

/// A view whose every row takes 5 ms to read while `slowness` has a row: a slice takes several chunks, once that is
/// known.
const SLOW: &str = "CREATE TABLE slowness AS SELECT 0.005 AS seconds; \
    CREATE FUNCTION slow(timestamptz) RETURNS SETOF boolean LANGUAGE plpgsql VOLATILE ROWS 1 AS \
    'BEGIN PERFORM pg_sleep(seconds) FROM public.slowness; RETURN NEXT true; END'; \
    CREATE VIEW slow_events AS SELECT e.* FROM events e CROSS JOIN LATERAL slow(e.at)";

pub struct Scene {
    pub name: &'static str,
    place: Place,
    endpoint: String,
    has_target: bool,
    _databases: Vec<Database>,
}

/// What became of an invocation.
pub struct Invoked {
    /// `None`: the process was killed.
    pub answer: Option<Answer>,
    /// Faults that it met.
    pub met: usize,
    /// All that it asked.
    pub calls: Vec<String>,
}

impl Scene {
    /// With `has_target` the rollup is in a database of its own; with `is_slow` a slice takes several chunks.
    pub async fn new(name: &'static str, has_target: bool, is_slow: bool) -> Self {
        let mut databases = vec![Database::create().await];
        if has_target {
            databases.push(Database::create().await);
        }
        let (source, target) = (databases[0].url(), databases[databases.len() - 1].url());
        let rollups = hourly(if is_slow { "public.slow_events" } else { "public.events" }, START);
        let mut place = Place::new(&source, &target, &rollups).await;
        let chunk_time = if is_slow { "100ms" } else { "2s" };
        let target = match has_target {
            true => "[target]\nurl = { env = \"TARGET_DATABASE_URL\" }\n",
            false => "",
        };
        let text = format!(
            "[source]\nurl = {{ env = \"SOURCE_DATABASE_URL\" }}\nchunk_time = \"{chunk_time}\"\n\
             nice_ratio = 0\nslots = 64\n{target}{rollups}"
        );
        std::fs::write(place.config(), text).unwrap();
        place.sql(&format!("{}; {SLOW}", SEED.replace("20 seconds", "1 minute"))).await;
        place.run(&["init"]).good();
        let endpoint = place.endpoint().clone();
        Self { name, place, endpoint, has_target, _databases: databases }
    }

    /// What is asked when nothing goes wrong, once it is known how long a slice takes.
    pub fn record(&self) -> Vec<String> {
        self.invoke(SLICES - 2, &[]);
        let Invoked { answer, calls, .. } = self.invoke(SLICES - 1, &[]);
        let answer = answer.expect("an answer");
        assert_eq!(answer.response()["slice"]["outcome"], "succeeded", "{answer:?}");
        let strange: Vec<_> = calls.iter().filter(|call| call.contains("??")).collect();
        assert!(strange.is_empty(), "calls without a name: {strange:#?}");
        calls
    }

    /// Invokes a new process for a slice, with these faults on its way.
    pub fn invoke(&self, slice: usize, faults: &[Planned]) -> Invoked {
        let directory = TempDir::new().unwrap();
        let (wires, mut function) = self.function(faults, &directory);
        let answer = function.invoke_or_die(&event(slice), BUDGET, BUDGET);
        Invoked { answer, met: wires.met(), calls: wires.calls() }
    }

    /// As [`Scene::invoke`], until the process stops.
    pub fn put_to_sleep(&self, slice: usize, faults: &[Planned]) -> Sleeper {
        let directory = TempDir::new().unwrap();
        let (wires, mut function) = self.function(faults, &directory);
        let invoked = thread::spawn(move || {
            let _directory = directory;
            function.invoke_or_die(&event(slice), BUDGET, 30 * BUDGET)
        });
        let is_asleep = wires.stopped(&|| invoked.is_finished());
        assert!(is_asleep, "slice {slice} met no fault: {faults:?}");
        Sleeper { wires, invoked }
    }

    fn function(&self, faults: &[Planned], directory: &TempDir) -> (Arc<Wires>, Function) {
        let clock = directory.path().join("clock");
        let wires = Wires::new(faults.to_vec(), clock.clone());
        let dynamo = wires.http(&self.endpoint, names::of_dynamo);
        let mut environment = vec![
            ("TALLYMARK_CONFIG", self.place.config().display().to_string()),
            ("TALLYMARK_FAULTS_CLOCK", clock.display().to_string()),
            ("SOURCE_DATABASE_URL", wires.postgres("source", &self.place.source_url)),
            ("AWS_ENDPOINT_URL_DYNAMODB", format!("http://{dynamo}")),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
        ];
        if self.has_target {
            let url = wires.postgres("target", &self.place.target_url);
            environment.push(("TARGET_DATABASE_URL", url));
        }
        let pairs: Vec<_> = environment.iter().map(|(name, it)| (*name, it.as_str())).collect();
        let runtime = |api: std::net::SocketAddr| wires.http(&api.to_string(), names::of_runtime);
        let function = Function::start_through(&pairs, runtime);
        wires.belong_to(function.pid());
        (wires, function)
    }

    /// What a person does: the same backfill once more.
    pub async fn rerun(&self) {
        self.place.sql("DELETE FROM slowness").await;
        let to = (start() + TimeDelta::hours(SLICES.try_into().unwrap())).to_rfc3339();
        let words =
            ["backfill", "hourly", "--from", START, "--to", &to, "--yes", "--concurrency", "4"];
        self.place.run(&words).good();
        self.place.sql("INSERT INTO slowness VALUES (0.005)").await;
    }

    /// Every row and marker of the target with the transaction that wrote it.
    pub async fn versions(&self) -> Vec<String> {
        versions(&self.place).await
    }

    pub async fn is_done(&self) {
        self.place.sql("DELETE FROM slowness").await;
        is_done(&self.place, SLICES).await;
    }
}

/// A process that is stopped in the middle of a slice.
pub struct Sleeper {
    wires: Arc<Wires>,
    invoked: JoinHandle<Option<Answer>>,
}

impl Sleeper {
    /// Wakes it, and waits for its end.
    pub fn wake(self) {
        self.wires.wake();
        self.invoked.join().unwrap();
    }
}

fn start() -> DateTime<Utc> {
    START.parse().unwrap()
}

fn event(slice: usize) -> Value {
    let start = start() + TimeDelta::hours(slice.try_into().unwrap());
    json!({ "trigger": "slice", "rollup": "hourly", "start": start.to_rfc3339() })
}
