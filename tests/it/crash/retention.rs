//! Old slices that are deleted, and history that is sealed and opened, by processes that are killed.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};

use super::Case;
use super::scene::{Scene, environment_of};
use super::wire::{Planned, Wires, apart};
use crate::fanout::scheduled;
use crate::kill::versions;
use crate::support::Database;
use crate::support::cli::{Place, day, execute, lines};

/// Days of history, and the day on which what is deleted or sealed ends, counted back from today.
const DAYS: u64 = 3;
const CUT: u64 = 2;

/// A killed process's statements end meanwhile.
const RERUNS_MAX: u32 = 30;
const RERUN_EVERY: Duration = Duration::from_secs(2);

/// 12,000 groups on the first day, which are deleted in two pieces, and few on the others.
fn seed() -> String {
    let first = day(DAYS);
    let [second, last] = [day(CUT), day(0)].map(|it| format!("'{it}Z'::timestamptz"));
    format!(
        "CREATE TABLE events AS SELECT at, n AS person FROM generate_series('{first}Z'::timestamptz, \
         {second} - interval '1 second', '7200 milliseconds') WITH ORDINALITY AS series (at, n) \
         UNION ALL SELECT at, 0 FROM generate_series({second}, {last} - interval '1 hour', '1 hour') at; \
         CREATE INDEX ON events (at); ANALYZE events"
    )
}

const FOUND: [&str; 2] = [
    "SELECT bucket, person, events FROM stats.hourly ORDER BY 1, 2",
    "SELECT bucket, events FROM stats.daily ORDER BY 1",
];

/// The act whose process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A tick deletes what `keep` leaves behind.
    Keep,
    /// History is sealed.
    Seal,
    /// A seal is removed.
    Unseal,
}

pub struct Retention {
    place: Place,
    endpoint: String,
    act: Act,
    has_store: bool,
    /// The rows of both rollups when everything was computed and nothing was deleted.
    whole: [Vec<String>; 2],
    _database: Database,
}

impl Retention {
    pub async fn new(act: Act, has_store: bool) -> Self {
        let database = Database::create().await;
        let mut place = Place::new(&database.url(), &database.url(), "").await;
        let keep = if act == Act::Keep { "keep = \"48 hours\"\n" } else { "" };
        let store = if has_store { "[checkpoint]\nstore = \"postgres\"\n" } else { "" };
        let text = format!(
            "[source]\nurl = {{ env = \"SOURCE_DATABASE_URL\" }}\nnice_ratio = 0\nslots = 64\n{store}\
             [[rollup]]\nname = \"hourly\"\nfrom = \"public.events\"\ntime = \"at\"\n\
             start = \"{}\"\nslice = \"1 hour\"\nlate = \"capture\"\ngrace = \"0s\"\n{keep}\
             group_by = [\"person\"]\nmeasures = {{ events = \"count\" }}\n\
             [[rollup]]\nname = \"daily\"\nfrom = {{ rollup = \"hourly\" }}\nslice = \"1 day\"\n\
             group_by = []\nmeasures = [\"events\"]\n",
            day(DAYS)
        );
        std::fs::write(place.config(), text).unwrap();
        place.sql(&seed()).await;
        place.run(&["init"]).good();
        place.run(&["capture", "install"]).good();
        for name in ["hourly", "daily"] {
            place.run(&["backfill", name, "--yes"]).good();
        }
        place.sql("CREATE TABLE kept AS TABLE stats.hourly").await;
        let endpoint = place.endpoint().clone();
        let whole = found(&place).await;
        Self { place, endpoint, act, has_store, whole, _database: database }
    }

    /// Makes the next tick delete once more.
    fn restore(&self) {
        apart(execute(
            &self.place.target_url,
            "TRUNCATE stats.hourly; INSERT INTO stats.hourly TABLE kept; \
             UPDATE tallymark.slice SET kept_away = NULL WHERE rollup = 'hourly'",
        ));
        if self.has_store {
            let forget = "UPDATE tallymark.checkpoint SET item = item - 'kept_from' - 'kept_until' \
                          WHERE rollup = 'hourly' AND sort = 'watermark'";
            apart(execute(&self.place.target_url, forget));
            return;
        }
        let text = |it: &str| AttributeValue::S(it.to_owned());
        let update = self.place.dynamo().update_item().table_name("tallymark");
        let update = update.key("pk", text("hourly")).key("sk", text("watermark"));
        let forget = update.update_expression("REMOVE kept_from, kept_until");
        apart(async { forget.send().await.map(drop).unwrap() });
    }

    fn command(&self, way: &str) {
        self.place.run(&["purgeable", "events", way, "--before", &day(CUT).to_string()]).good();
    }

    fn unseal(&self) {
        self.place.run(&["purgeable", "events", "--unseal"]).good();
    }

    fn sealed_before(&self) -> Value {
        self.place.json(&["purgeable", "events"])["tables"][0]["sealed_before"].clone()
    }

    /// A kill before and after each call from the first that seals or opens on.
    pub fn kills(&self, calls: &[String]) -> Vec<Case> {
        let sealed = calls.iter().position(|call| call.ends_with(": seal"));
        let sealed = sealed.unwrap_or_else(|| panic!("no seal in {calls:#?}"));
        // The store comes just before it, unless the seal is removed.
        super::kills_from(calls, sealed.saturating_sub(3))
    }
}

async fn found(place: &Place) -> [Vec<String>; 2] {
    let [hours, days] = FOUND.map(|sql| lines(&place.target_url, sql));
    [hours.await, days.await]
}

impl Scene for Retention {
    fn name(&self) -> &'static str {
        match self.act {
            Act::Keep => "keep",
            Act::Seal => "seal",
            Act::Unseal => "unseal",
        }
    }

    fn lanes(&self) -> usize {
        1
    }

    fn has_store(&self) -> bool {
        self.has_store
    }

    fn prepare(&self, _: usize) {
        match self.act {
            Act::Keep => self.restore(),
            Act::Seal => self.unseal(),
            Act::Unseal => self.command("--seal"),
        }
    }

    fn event(&self, _: usize) -> Value {
        let arguments = match self.act {
            Act::Keep => return scheduled(),
            Act::Seal => json!({ "table": "events", "seal": true, "before": day(CUT).to_string() }),
            Act::Unseal => json!({ "table": "events", "unseal": true }),
        };
        json!({ "trigger": "command", "command": "purgeable", "arguments": arguments })
    }

    fn wires(&self, faults: &[Planned], clock: PathBuf) -> Arc<Wires> {
        Wires::unlisted(faults.to_vec(), clock)
    }

    fn environment(&self, wires: &Arc<Wires>) -> Vec<(&'static str, String)> {
        let dynamo = (!self.has_store).then_some(&self.endpoint);
        environment_of(&self.place, dynamo, wires)
    }

    async fn rerun(&self) {
        match self.act {
            Act::Seal => return self.command("--seal"),
            Act::Unseal => return self.unseal(),
            Act::Keep => {}
        }
        let old = format!("SELECT FROM stats.hourly WHERE bucket < '{}Z' LIMIT 1", day(CUT));
        for _ in 0..RERUNS_MAX {
            self.place.run(&["run"]);
            if lines(&self.place.target_url, &old).await.is_empty() {
                return;
            }
            tokio::time::sleep(RERUN_EVERY).await;
        }
    }

    async fn versions(&self) -> Vec<String> {
        versions(&self.place).await
    }

    async fn is_done(&self) {
        let cut = day(CUT).to_string();
        let [whole, days] = &self.whole;
        match self.act {
            Act::Keep => {
                let left: Vec<_> = whole.iter().filter(|it| it[2..] >= *cut).cloned().collect();
                assert_eq!(left.len(), 24 * 2);
                assert_eq!(found(&self.place).await, [left, days.clone()]);
            }
            Act::Seal => {
                assert_eq!(self.sealed_before(), json!(format!("{cut}T00:00:00Z")));
                self.place.sql(&format!("DELETE FROM events WHERE at < '{cut}Z'")).await;
                self.place.run(&["run"]).good();
                assert_eq!(found(&self.place).await, self.whole, "a purge behind the seal");
            }
            Act::Unseal => {
                assert_eq!(self.sealed_before(), Value::Null);
                let late = format!("INSERT INTO events VALUES ('{}T05:00Z', -1)", day(DAYS));
                self.place.sql(&late).await;
                self.place.run(&["run"]).good();
                let [hours, _] = found(&self.place).await;
                assert_eq!(hours.len(), whole.len() + 1, "a late row where the seal was");
            }
        }
    }
}
