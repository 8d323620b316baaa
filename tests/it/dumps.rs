//! The table of restores in docs/RUNBOOK.md with real dumps and restores, seen through the
//! commands. There are four rollups, one of each `late`, with a separate source and target and a
//! concurrent writer. Each row of the table is a world. The output of `status`, `verify`, `run` and
//! `repair` is asserted, and that the runbook's remedy makes every rollup right.
//!
//! `restores.rs` tests the same table by contents alone, as a physical restore leaves them.

use std::collections::HashMap;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::support::cli::{Place, day, execute, lines, today};
use crate::support::{Database, postgres, share};

const LATES: [(&str, &str); 4] = [
    ("grace", "\"grace\""),
    ("clock", "\"clock\""),
    ("changed", "{ column = \"updated_at\" }\ngrace = \"1 second\""),
    ("captured", "\"capture\""),
];

fn rollups() -> String {
    let rollup = |(name, late): &(&str, &str)| {
        format!(
            "[[rollup]]\nname = \"{name}\"\nfrom = \"public.events\"\ntime = \"at\"\nlate = {late}\n\
             start = \"{}\"\nslice = \"1 day\"\ngroup_by = [\"kind\"]\n\
             [rollup.measures]\nevents = \"count\"\nrevenue = {{ sum = \"amount\" }}\n",
            day(3)
        )
    };
    LATES.iter().map(rollup).collect()
}

type Items = Vec<HashMap<String, AttributeValue>>;

/// The part that goes back in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Source,
    Target,
    Store,
    /// The checkpoint table is deleted.
    NoStore,
    /// The target's database is created again, empty.
    NoTarget,
}

use Part::{NoStore, NoTarget, Source, Store, Target};

/// Four rollups, one for each `late`, and their databases.
pub struct FourRollups {
    pub place: Place,
    pub source: Database,
    pub target: Database,
}

struct World {
    four: FourRollups,
    backup: Backup,
    ends: Arc<AtomicBool>,
}

impl Deref for World {
    type Target = FourRollups;

    fn deref(&self) -> &FourRollups {
        &self.four
    }
}

/// A database at an earlier moment: a dump, or a copy if `pg_dump` is missing.
pub enum Kept {
    Dump(PathBuf),
    Copy(String),
}

struct Backup {
    source: Kept,
    target: Kept,
    items: Items,
}

/// One of PostgreSQL's programs, if there is one.
fn program(name: &str) -> Option<PathBuf> {
    let places = [postgres().bin().to_owned(), "/usr/lib/postgresql/15/bin".into()];
    places.into_iter().map(|bin| bin.join(name)).find(|path| path.exists())
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn database_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap()
}

pub async fn admin(sql: &str) {
    execute(&postgres().url("postgres"), sql).await;
}

pub async fn keep(url: &str, file: &Path) -> Kept {
    if let (Some(dump), Some(_)) = (program("pg_dump"), program("pg_restore")) {
        succeed(Command::new(dump).args(["-Fc", "-f"]).arg(file).args(["-d", url]));
        return Kept::Dump(file.to_owned());
    }
    println!("there is no pg_dump beside PostgreSQL: copies of databases are restored");
    let copy = format!("{}_kept", database_of(url));
    let from = database_of(url);
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ";
    admin(&format!("{end} '{from}'")).await;
    admin(&format!("CREATE DATABASE {copy} TEMPLATE {from}")).await;
    Kept::Copy(copy)
}

/// Restores the database of `url` to its kept state.
pub async fn put_back(url: &str, kept: &Kept) {
    let name = database_of(url);
    admin(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
    match kept {
        Kept::Dump(file) => {
            admin(&format!("CREATE DATABASE {name}")).await;
            let restore = program("pg_restore").unwrap();
            succeed(Command::new(restore).args(["-d", url]).arg(file));
        }
        Kept::Copy(copy) => admin(&format!("CREATE DATABASE {name} TEMPLATE {copy}")).await,
    }
}

/// An application that keeps writing to the day that is still open.
async fn write_on(url: String, ends: Arc<AtomicBool>) {
    while !ends.load(Ordering::Relaxed) {
        if let Ok(mut connection) = PgConnection::connect(&url).await {
            let row = "INSERT INTO events (at, kind, amount) VALUES (now(), 'now', 1)";
            while !ends.load(Ordering::Relaxed)
                && sqlx::query(AssertSqlSafe(row)).execute(&mut connection).await.is_ok()
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl FourRollups {
    /// Three days, computed. `settings` stand before the rollups in the file, and `prepare` comes
    /// before all commands.
    pub async fn new(settings: &str, prepare: impl FnOnce(&mut Place)) -> Self {
        let (source, target) = (Database::create().await, Database::create().await);
        let rollups = format!("{settings}{}", rollups());
        let mut place = Place::new(&source.url(), &target.url(), &rollups).await;
        prepare(&mut place);
        place.seed(3).await;
        let changed = "ALTER TABLE events ADD updated_at timestamptz NOT NULL DEFAULT now(); \
                       ALTER TABLE events ALTER updated_at SET DEFAULT clock_timestamp(); \
                       CREATE INDEX ON events (updated_at)";
        place.sql(changed).await;
        place.run(&["init"]).good();
        place.run(&["capture", "install"]).good();
        place.run(&["run"]).good();
        Self { place, source, target }
    }

    /// Late changes that every rollup counts.
    pub async fn change(&self) {
        let late = format!(
            "INSERT INTO events (at, kind, amount) VALUES ('{} 10:00Z', 'late', 7); \
             UPDATE events SET amount = amount + 1, updated_at = clock_timestamp() \
             WHERE at >= '{}' AND at < '{}'",
            day(2),
            day(3),
            day(2)
        );
        self.place.sql(&late).await;
        for name in ["grace", "clock"] {
            let from = day(3).to_string();
            self.place.run(&["replay", name, "--from", &from, "--yes"]).good();
        }
        for _ in 0..5 {
            self.settle().await;
            if self.wrong().await.is_empty() {
                return;
            }
        }
        panic!("{:?}", self.wrong().await);
    }

    /// Ticks until every rollup is right. Change times become visible once no transaction is older.
    async fn settle(&self) {
        for _ in 0..20 {
            self.place.run(&["run"]);
            tokio::time::sleep(Duration::from_millis(200)).await;
            if self.wrong().await.is_empty() {
                return;
            }
        }
    }

    /// The rollups whose rows differ from the source.
    pub async fn wrong(&self) -> Vec<&'static str> {
        let truth = format!(
            "SELECT date_trunc('day', at, 'UTC') AS bucket, kind, count(*) AS events, \
             sum(amount) AS revenue FROM events WHERE at < '{}' GROUP BY 1, 2",
            today()
        );
        let truth = lines(&self.source.url(), &truth).await;
        let mut wrong = Vec::new();
        for (name, _) in LATES {
            let rows = format!("SELECT bucket, kind, events, revenue FROM stats.{name}");
            if lines(&self.target.url(), &rows).await != truth {
                wrong.push(name);
            }
        }
        wrong
    }
}

impl World {
    /// A backup of everything, and then late changes, counted by all four.
    async fn new() -> Self {
        let four = FourRollups::new("", |_| ()).await;
        let ends = Arc::new(AtomicBool::new(false));
        tokio::spawn(write_on(four.source.url(), Arc::clone(&ends)));
        let directory = four.place.config().parent().unwrap().to_owned();
        let backup = Backup {
            source: keep(&four.source.url(), &directory.join("source.dump")).await,
            target: keep(&four.target.url(), &directory.join("target.dump")).await,
            items: items(&four.place).await,
        };
        let it = Self { four, backup, ends };
        it.is_right("before").await;
        it.change().await;
        it.is_right("changed").await;
        it
    }

    async fn restore(&mut self, part: Part) {
        match part {
            Source => put_back(&self.source.url(), &self.backup.source).await,
            Target => put_back(&self.target.url(), &self.backup.target).await,
            NoTarget => {
                let name = database_of(&self.target.url()).to_owned();
                admin(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
                admin(&format!("CREATE DATABASE {name}")).await;
            }
            Store => {
                let client = self.place.dynamo();
                for item in items(&self.place).await {
                    let key = item.into_iter().filter(|(name, _)| name == "pk" || name == "sk");
                    let delete = client.delete_item().table_name("tallymark");
                    delete.set_key(Some(key.collect())).send().await.unwrap();
                }
                for item in &self.backup.items {
                    let put = client.put_item().table_name("tallymark");
                    put.set_item(Some(item.clone())).send().await.unwrap();
                }
            }
            NoStore => {
                let delete = self.place.dynamo().delete_table().table_name("tallymark");
                delete.send().await.unwrap();
            }
        }
    }

    async fn is_right(&self, when: &str) {
        assert_eq!(self.wrong().await, [""; 0], "{when}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

async fn items(place: &Place) -> Items {
    let scan = place.dynamo().scan().table_name("tallymark").consistent_read(true);
    scan.send().await.unwrap().items().to_vec()
}

/// Rows of the table.
const ROWS: usize = 10;

/// Rows that a run plays. `restores.rs` plays some of the same table, without dumps.
const ROWS_PLAYED: usize = 1;

/// A row of the table: the restored parts, and the output of the commands afterwards.
struct Row {
    cell: usize,
    parts: &'static [Part],
    /// Exit code and words of `verify` and `run` before `repair`.
    before: (i32, &'static str),
    /// The rollups that `repair` calls unproven.
    unproven: &'static [&'static str],
    /// The rollups that may be wrong until `verify --repair`. If there are any, one is.
    wrong: &'static [&'static str],
}

const ALL: &[&str] = &["grace", "clock", "changed", "captured"];
const CREATED_AGAIN: (i32, &str) = (2, "created again or restored");
const OLDER: (i32, &str) = (2, "checkpoints are older than its rows");
const EMPTY: (i32, &str) = (2, "checkpoint table is empty");

/// A command reports the same as text and as JSON.
fn says(place: &Place, command: &[&str], (code, word): (i32, &str)) {
    for json in [&[][..], &["--json"]] {
        let ended = place.run(&[command, json].concat());
        assert_eq!(ended.code, Some(code), "{command:?}: {ended:?}");
        assert!(ended.words().contains(word), "{command:?}: no `{word}` in {ended:?}");
    }
}

/// The rollups that `status` calls unproven.
pub fn unproven(document: &Value) -> Vec<&str> {
    let rollups = document["rollups"].as_array().unwrap().iter();
    let rollups = rollups.filter(|rollup| !rollup["unproven"].is_null());
    rollups.map(|rollup| rollup["rollup"].as_str().unwrap()).collect()
}

async fn plays(row: Row) {
    if !share::is_drawn("restores from dumps", row.cell, ROWS, ROWS_PLAYED) {
        return;
    }
    let mut world = World::new().await;
    for part in row.parts {
        world.restore(*part).await;
    }
    let place = &world.place;
    if row.parts.contains(&NoTarget) || row.parts.contains(&NoStore) {
        says(place, &["init"], (0, "the target"));
        says(place, &["status"], (row.before.0, row.before.1));
    } else {
        // It connects to no database, and the checkpoints alone look right.
        says(place, &["status", "grace"], (0, "succeeded"));
    }
    if row.parts == [Source] {
        says(place, &["verify"], (1, "differ"));
    } else {
        says(place, &["verify"], row.before);
    }
    says(place, &["run"], row.before);
    let code = i32::from(!row.unproven.is_empty());
    let repair = place.run(&["repair", "--json"]);
    assert_eq!((repair.code, unproven(&repair.json())), (Some(code), row.unproven.to_vec()));
    let word = if row.unproven.is_empty() { "marker" } else { "if " };
    says(place, &["repair"], (code, word));
    world.settle().await;
    // A rollup may be right earlier, as when a later change of the same slice is noticed.
    let wrong = world.wrong().await;
    assert_eq!(wrong.is_empty(), row.wrong.is_empty(), "{:?}", row.parts);
    assert!(wrong.iter().all(|rollup| row.wrong.contains(rollup)), "{:?}: {wrong:?}", row.parts);
    says(place, &["run"], (code, if code == 0 { "" } else { "is unproven" }));
    assert_eq!(unproven(&place.json(&["status"])), row.unproven);
    says(place, &["verify", "--repair", "--yes"], (0, "slices"));
    world.is_right("verified").await;
    assert_eq!(unproven(&place.json(&["status"])), [""; 0]);
    says(place, &["run"], (0, ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_source_went_back() {
    let before = (1, "the source was restored or failed over");
    plays(Row { cell: 0, parts: &[Source], before, unproven: ALL, wrong: ALL }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_went_back() {
    plays(Row { cell: 1, parts: &[Target], before: CREATED_AGAIN, unproven: &[], wrong: &[] })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_was_lost() {
    plays(Row { cell: 2, parts: &[NoTarget], before: CREATED_AGAIN, unproven: &[], wrong: &[] })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoints_went_back() {
    let unproven = &["changed", "captured"];
    plays(Row { cell: 3, parts: &[Store], before: OLDER, unproven, wrong: &[] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoints_were_lost() {
    let unproven = &["changed", "captured"];
    plays(Row { cell: 4, parts: &[NoStore], before: EMPTY, unproven, wrong: &[] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn source_and_target_went_back() {
    let parts = &[Source, Target];
    plays(Row { cell: 5, parts, before: CREATED_AGAIN, unproven: ALL, wrong: &[] }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn source_and_checkpoints_went_back() {
    let parts = &[Source, Store];
    plays(Row { cell: 6, parts, before: OLDER, unproven: ALL, wrong: ALL }).await;
}

/// Change times are searched again. Marks are gone, and replays are not repeated.
#[tokio::test(flavor = "multi_thread")]
async fn target_and_checkpoints_went_back() {
    let (parts, lost) = (&[Target, Store], &["grace", "clock", "captured"]);
    plays(Row { cell: 7, parts, before: CREATED_AGAIN, unproven: lost, wrong: lost }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_target_went_back_and_the_checkpoints_were_lost() {
    let unproven = &["changed", "captured"];
    let parts = &[Target, NoStore];
    plays(Row { cell: 8, parts, before: EMPTY, unproven, wrong: ALL }).await;
}

/// Nothing shows that it was one moment. The result is right, and has to be proven.
#[tokio::test(flavor = "multi_thread")]
async fn all_three_went_back_to_one_moment() {
    let parts = &[Source, Target, Store];
    plays(Row { cell: 9, parts, before: CREATED_AGAIN, unproven: ALL, wrong: &[] }).await;
}

/// Ticks and replays under way continue with the new table, or end with an error. In both cases
/// `repair` names each rollup that only a comparison can check, and the comparison makes it right.
#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_table_made_anew_in_the_middle_of_ticks_is_told_and_mended() {
    let mut world = World::new().await;
    let again = format!(
        "INSERT INTO events (at, kind, amount) SELECT at + interval '1 second', 'again', 1 \
         FROM events WHERE at < '{}'",
        today()
    );
    world.place.sql(&again).await;
    let from = day(3).to_string();
    let commands: [&[&str]; 3] = [
        &["run"],
        &["replay", "grace", "--from", &from, "--yes"],
        &["replay", "clock", "--from", &from, "--yes"],
    ];
    let mut under_way = Vec::new();
    for command in commands {
        let mut command = world.place.command(command);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        under_way.push(command.spawn().unwrap());
    }
    world.restore(NoStore).await;
    world.place.run(&["init"]).good();
    for mut command in under_way {
        command.wait().unwrap();
    }
    let repair = world.place.run(&["repair", "--json"]).json();
    world.settle().await;
    for wrong in world.wrong().await {
        let rollups = repair["rollups"].as_array().unwrap();
        let said = rollups.iter().find(|rollup| rollup["rollup"] == wrong).unwrap();
        let is_said = !said["unproven"].is_null() || !said["reminder"].is_null();
        assert!(is_said, "{wrong}: {repair}");
    }
    says(&world.place, &["verify", "--repair", "--yes"], (0, "slices"));
    world.is_right("verified").await;
    assert_eq!(unproven(&world.place.json(&["status"])), [""; 0]);
}
