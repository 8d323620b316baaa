//! Hours whose rows change, and the trailing windows over them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::scene::{Scene, environment_of};
use super::wire::{Planned, Wires, apart};
use super::{CASES, Case};
use crate::kill::{hourly, versions};
use crate::store::contradictions;
use crate::support::Database;
use crate::support::cli::{Place, execute, lines};

const START: &str = "2026-02-15T00:00:00Z";
const END: &str = "2026-02-16T00:00:00Z";

/// More kills than one invocation has calls from the replacement on.
pub const KILLS_MAX: usize = 18;

/// The hours for cases that met no fault come after those of the others.
const SPARE: usize = KILLS_MAX;

/// The hours of an undisturbed run.
pub const RECORDED: [usize; 2] = [22, 23];

/// A killed worker's lease ends meanwhile.
const RERUNS_MAX: u32 = 30;
const RERUN_EVERY: Duration = Duration::from_secs(2);

const WINDOWS: &str = "[[rollup]]\nname = \"windows\"\nfrom = { rollup = \"hourly\" }\n\
    slice = \"1 hour\"\ntrailing = \"3 hours\"\ngroup_by = [\"entity\"]\n\
    measures = [\"events\", \"revenue\"]\n";

const FOUND: &str = "SELECT bucket, entity, events, revenue FROM stats.windows ORDER BY 1, 2";

const WANTED: &str = "SELECT ends - interval '1 hour', entity, count(*), sum(amount) \
    FROM generate_series('2026-02-15T01:00Z'::timestamptz, '2026-02-16Z', '1 hour') ends \
    JOIN events ON at >= ends - interval '3 hours' AND at < ends GROUP BY 1, 2 ORDER BY 1, 2";

pub struct Windows {
    place: Place,
    endpoint: String,
    has_store: bool,
    _database: Database,
}

impl Windows {
    /// A day of hours and windows, all of them done.
    pub async fn new(has_store: bool) -> Self {
        let database = Database::create().await;
        let rollups = format!("{}{WINDOWS}", hourly("public.events", START));
        let mut place = Place::new(&database.url(), &database.url(), &rollups).await;
        let store = if has_store { "[checkpoint]\nstore = \"postgres\"\n" } else { "" };
        let text = format!(
            "[source]\nurl = {{ env = \"SOURCE_DATABASE_URL\" }}\nnice_ratio = 0\nslots = 64\n\
             {store}{rollups}"
        );
        std::fs::write(place.config(), text).unwrap();
        let seed = "CREATE TABLE events AS \
            SELECT at, n % 3 AS entity, (n % 7)::numeric(10, 2) AS amount, n AS person FROM \
            generate_series('2026-02-15Z'::timestamptz, '2026-02-15T23:59:59Z', '10 minutes') \
            WITH ORDINALITY AS series (at, n); CREATE INDEX ON events (at); ANALYZE events";
        place.sql(seed).await;
        place.run(&["init"]).good();
        let endpoint = place.endpoint().clone();
        let scene = Self { place, endpoint, has_store, _database: database };
        scene.rerun().await;
        scene
    }

    async fn found(&self) -> Vec<String> {
        lines(&self.place.target_url, FOUND).await
    }

    /// One `GROUP BY` over the source.
    async fn wanted(&self) -> Vec<String> {
        lines(&self.place.source_url, WANTED).await
    }

    /// A kill before and after each call from the replacement of the rows on.
    pub fn kills(&self, calls: &[String]) -> Vec<Case> {
        let replaced = calls.iter().rposition(|call| call.contains(": replace"));
        let replaced = replaced.unwrap_or_else(|| panic!("no replacement in {calls:#?}"));
        super::kills_from(calls, replaced + 1)
    }
}

fn hour(case: usize) -> String {
    let hour = if case >= CASES { SPARE + case - CASES } else { case };
    format!("2026-02-15T{hour:02}:00:00Z")
}

impl Scene for Windows {
    fn name(&self) -> &'static str {
        if self.has_store { "windows in the target" } else { "windows" }
    }

    fn lanes(&self) -> usize {
        1
    }

    fn has_store(&self) -> bool {
        self.has_store
    }

    async fn agrees(&self) {
        if self.has_store {
            let found = lines(&self.place.target_url, &contradictions("hourly")).await;
            assert_eq!(found, [""; 0], "rows, marker and checkpoint contradict each other");
        }
    }

    fn prepare(&self, case: usize) {
        let sql = format!("INSERT INTO events VALUES ('{}', 1, 100, 1)", hour(case));
        apart(execute(&self.place.source_url, &sql));
    }

    fn event(&self, case: usize) -> Value {
        let start = hour(case);
        json!({ "trigger": "replay", "rollup": "hourly", "start": start, "reason": "a test" })
    }

    fn wires(&self, faults: &[Planned], clock: PathBuf) -> Arc<Wires> {
        Wires::unlisted(faults.to_vec(), clock)
    }

    fn environment(&self, wires: &Arc<Wires>) -> Vec<(&'static str, String)> {
        let dynamo = (!self.has_store).then_some(&self.endpoint);
        environment_of(&self.place, dynamo, wires)
    }

    async fn rerun(&self) {
        // While a killed worker's lease holds, slices are left.
        for _ in 0..RERUNS_MAX {
            for name in ["hourly", "windows"] {
                self.place.run(&["backfill", name, "--from", START, "--to", END, "--yes"]);
            }
            if self.found().await == self.wanted().await {
                return;
            }
            tokio::time::sleep(RERUN_EVERY).await;
        }
    }

    async fn versions(&self) -> Vec<String> {
        versions(&self.place).await
    }

    async fn is_done(&self) {
        assert_eq!(self.found().await, self.wanted().await);
    }
}
