//! The example applications: what each counts by hand, Tallymark counts alike, at every level, after
//! any change of its rows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, PgPool};
use tallymark::check::verify;
use tallymark::config::Config;
use tallymark::model::clock::{Clock, Deadline, ManualClock};
use tallymark::model::rollup::{Late, Rollup};
use tallymark::tick;
use tallymark::work::report::{SliceReport, TickReport};
use tallymark::work::worker::Worker;

use crate::support::Database;
use crate::support::cli::{ended, with_password};
use crate::support::pooler::pooled;
use crate::support::share;
use crate::support::world::{BUDGET, Keeper, Urls, World, clock, install_capture, instant};

/// Number of applications.
const APPS: usize = 7;

/// Number of applications that a run plays.
const PLAYED: usize = 1;

/// Ticks until all work is done.
const QUIET_MAX: usize = 20;

/// Ticks of the day that goes on, seven minutes apart.
const TICKS: usize = 26;

/// A percentile is within this share of a value of its rank.
const RANK_ERROR: f64 = 1.0 / 128.0;

/// Five standard errors of an estimated number of distinct values.
const ESTIMATE_ERROR: f64 = 0.05;

/// Columns that hold what a shown column is generated from.
const INNER: [&str; 5] = ["_set", "_sketch", "_sum", "_squares", "_count"];

fn folder(app: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/apps").join(app)
}

fn read(app: &str, file: &str) -> String {
    let path = folder(app).join(file);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The names of all applications, in order. Each has a folder.
fn apps() -> Vec<String> {
    let entries = fs::read_dir(folder("")).unwrap().map(|entry| entry.unwrap());
    let folders = entries.filter(|entry| entry.path().is_dir());
    let mut apps: Vec<_> =
        folders.map(|entry| entry.file_name().to_str().unwrap().to_owned()).collect();
    apps.sort();
    apps
}

/// Its configuration, with its database at `url`.
fn config(app: &str, url: &str) -> Config {
    config_of(app, &read(app, "tallymark.toml"), url)
}

/// The configuration of `text`. Tests take no rests.
fn config_of(app: &str, text: &str, url: &str) -> Config {
    let text = text.replacen("[source]", "[source]\nnice_ratio = 0", 1);
    let env = |name: &str| (name == "DATABASE_URL").then(|| url.to_owned());
    Config::parse(Path::new(app), &text, &env).unwrap_or_else(|error| panic!("{app}: {error}"))
}

/// One part of an application's history: its instant, and its statements.
struct Step {
    at: String,
    sql: String,
}

impl Step {
    /// What an operator does beside the application: the two words of each line with this beginning.
    fn orders(&self, order: &str) -> impl Iterator<Item = (&str, &str)> {
        let lines = self.sql.lines().filter_map(move |line| line.strip_prefix(order));
        lines.filter_map(|words| words.split_once(' '))
    }
}

/// The parts of `changes.sql`. Each begins with `-- at INSTANT: what happens`.
fn steps(app: &str) -> Vec<Step> {
    let text = read(app, "changes.sql");
    let parts = text.split("-- at ").skip(1);
    let step = |part: &str| {
        let (at, rest) = part.split_once("Z: ").unwrap();
        Step { at: format!("{at}Z"), sql: format!("-- {rest}") }
    };
    parts.map(step).collect()
}

/// A running example: its name, its world, and the clock that its worker sees.
struct Example<'a> {
    app: &'a str,
    world: World,
    clock: ManualClock,
}

impl<'a> Example<'a> {
    /// The application's rows are there, and `init` has run, as its README says.
    async fn new(app: &'a str, at: &str) -> Self {
        let (urls, pool) = with_rows(app).await;
        let config = config(app, &pooled(&urls.source));
        command(app, &urls.source, &["init"]);
        if config.rollups.iter().any(|rollup| rollup.late == Late::Capture) {
            command(app, &urls.source, &["capture", "install"]);
        }
        command(app, &urls.source, &["check"]);
        Self::of(app, (urls, pool), &config, at)
    }

    fn of(app: &'a str, (urls, pool): (Urls, PgPool), config: &Config, at: &str) -> Self {
        let clock = clock(at);
        let own: Arc<dyn Clock> = Arc::new(clock.clone());
        let store = Keeper::Target.open(config, 4);
        let worker = Worker::with_checkpoints(config.clone(), store, own, 4).unwrap();
        Self { app, world: World { urls, target: pool.clone(), pool, worker }, clock }
    }

    /// Every rollup is computed up to now, by backfills as an operator would start them. A tick
    /// computes the day that goes on.
    async fn backfill(&self) {
        for rollup in &self.world.worker.config.rollups {
            let until = self.until(rollup);
            let report = Box::pin(self.world.backfill_one(rollup, &until, false)).await;
            let is_whole = report.failed.is_empty() && report.left == 0;
            assert!(is_whole && report.succeeded > 0, "{}: {report:?}", rollup.name);
        }
        self.work_off().await;
    }

    /// The end of the newest slice that is over.
    fn until(&self, rollup: &Rollup) -> String {
        rollup.newest(self.clock.now()).unwrap().end().to_rfc3339()
    }

    async fn play(&self, step: &Step) {
        let forward = instant(&step.at) - self.clock.now();
        self.clock.advance(forward.to_std().unwrap());
        for (table, before) in step.orders("-- seal ") {
            let purgeable = ["purgeable", table, "--seal", "--before", before];
            command(self.app, &self.world.urls.source, &purgeable);
        }
        self.world.sql(&step.sql).await;
        for (name, start) in step.orders("-- replay ") {
            let checkpoints = &self.world.worker.checkpoints;
            let now = self.clock.now();
            checkpoints.reopen(name, instant(start), "replay", now).await.unwrap();
        }
        self.work_off().await;
    }

    async fn tick(&self) -> TickReport {
        let deadline = Deadline::after(&self.clock, BUDGET);
        let work = tick::run(&self.world.worker, self.clock.now(), deadline, None);
        let report = Box::pin(work).await.unwrap();
        assert!(report.problems.is_empty(), "{}: {:?}", self.app, report.problems);
        report
    }

    async fn work_off(&self) -> Vec<SliceReport> {
        let mut done = Vec::new();
        for _ in 0..QUIET_MAX {
            let report = self.tick().await;
            if report.slices.is_empty() && report.left == 0 {
                return done;
            }
            done.extend(report.slices);
        }
        panic!("{}: work is left after {QUIET_MAX} ticks", self.app);
    }

    /// Every rollup, and every query of a reader, gives the numbers of the application's own query.
    async fn is_exact(&self, when: &str, played: &[Step]) {
        let rough = rough(&self.world.worker.config);
        for rollup in &self.world.worker.config.rollups {
            let until = self.until(rollup);
            let found = format!("SELECT * FROM stats.{} WHERE bucket < '{until}'", rollup.name);
            let found = self.rows(&found).await;
            let since = format!("'{}'", kept(played, rollup).unwrap_or(rollup.start).to_rfc3339());
            let truth = self.query("truth", &rollup.name, &until).replace(":'since'", &since);
            let truth = self.rows(&truth).await;
            for column in found[0].keys() {
                let stem = INNER.iter().find_map(|suffix| column.strip_suffix(suffix));
                let is_inner = stem.is_some_and(|it| rollup.measures.iter().any(|m| m.name == it));
                let is_compared = truth[0].contains_key(column) || is_inner;
                assert!(is_compared, "{}: nothing is said about {column}", rollup.name);
            }
            compare(&format!("{when}, {}.{}", self.app, rollup.name), found, truth, &rough);
        }
        let until = self.until(self.world.rollup());
        for name in reads(self.app) {
            let found = self.rows(&self.query("reads", &name, &until)).await;
            let truth = self.rows(&self.query("truth", &name, &until)).await;
            compare(&format!("{when}, {}.{name}", self.app), found, truth, &rough);
        }
    }

    /// Tallymark's own comparison agrees, in every slice whose rows are not purged.
    async fn is_verified(&self, steps: &[Step]) {
        let worker = &self.world.worker;
        for rollup in &worker.config.rollups {
            let seals = steps.iter().flat_map(|step| step.orders("-- seal "));
            let own = seals.filter(|(table, _)| *table == rollup.from.to_string());
            let sealed = own.map(|(_, before)| instant(before));
            let cuts = worker.config.rollups.iter().filter_map(|any| kept(steps, any));
            let from = sealed.chain(cuts).chain([rollup.start]).max().unwrap();
            for slice in rollup.calendar.slices(from, instant(&self.until(rollup))) {
                let work = verify::verify_slice(worker, rollup, slice, BUDGET, 3);
                let found = Box::pin(work).await.unwrap();
                assert_eq!(found.differences, 0, "{} {slice}: {:?}", rollup.name, found.examples);
            }
        }
    }

    fn query(&self, folder: &str, name: &str, until: &str) -> String {
        read(self.app, &format!("{folder}/{name}.sql")).replace(":'until'", &format!("'{until}'"))
    }

    /// The rows of a query, each value as text.
    async fn rows(&self, sql: &str) -> Vec<Map<String, Value>> {
        let sql = format!(
            "SELECT (SELECT jsonb_object_agg(key, value) FROM jsonb_each_text(to_jsonb(x)))::text \
             FROM ({}) x",
            sql.trim_end()
        );
        let mut tx = self.world.pool.begin().await.unwrap();
        sqlx::query("SET LOCAL TimeZone = 'UTC'").execute(&mut *tx).await.unwrap();
        let rows: Vec<String> =
            match sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_all(&mut *tx).await {
                Ok(rows) => rows,
                Err(error) => panic!("{error}: {sql}"),
            };
        assert!(!rows.is_empty(), "{sql}");
        rows.iter().map(|row| serde_json::from_str(row).unwrap()).collect()
    }
}

/// A new database with the application's rows.
async fn with_rows(app: &str) -> (Urls, PgPool) {
    let database = Database::create().await;
    let urls = Urls { source: database.url(), target: None };
    let pool = PgPool::connect_lazy(&urls.source).unwrap();
    for file in ["schema.sql", "data.sql"] {
        sqlx::raw_sql(AssertSqlSafe(read(app, file))).execute(&pool).await.unwrap();
    }
    (urls, pool)
}

/// Runs a command of the example, which must succeed.
fn command(app: &str, url: &str, arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallymark"));
    command.args(arguments).current_dir(folder(app)).env_clear();
    command.env("DATABASE_URL", pooled(&with_password(url))).stdin(Stdio::null());
    ended(&mut command).good();
}

/// Where the rows of `rollup` begin after these steps, of which one may say that older ones are deleted.
fn kept(steps: &[Step], rollup: &Rollup) -> Option<DateTime<Utc>> {
    let cuts = steps.iter().flat_map(|step| step.orders("-- kept "));
    let own = cuts.filter(|(name, _)| *name == rollup.name);
    own.map(|(_, since)| instant(since)).max()
}

/// The queries of an application's readers over rollup tables.
fn reads(app: &str) -> Vec<String> {
    let Ok(files) = fs::read_dir(folder(app).join("reads")) else { return Vec::new() };
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files.map(|file| stem(file.unwrap().path())).collect()
}

/// The columns that are estimates, with the greatest share that each may be off.
fn rough(config: &Config) -> BTreeMap<String, f64> {
    let mut rough = BTreeMap::new();
    for measure in config.rollups.iter().flat_map(|rollup| &rollup.measures) {
        let error = match (measure.kind.word(), measure.kind.choice()) {
            ("percentiles", _) => RANK_ERROR,
            (_, Some((_, "approximate"))) => ESTIMATE_ERROR,
            _ => continue,
        };
        rough.extend(measure.names().into_iter().map(|name| (name, error)));
    }
    rough
}

/// A value, with numbers in one form.
fn canonical(value: &Value) -> String {
    let Value::String(text) = value else { return "NULL".to_owned() };
    text.parse().map_or_else(|_| text.clone(), |number: f64| number.to_string())
}

/// The exact values of a row, and its estimates.
type Row = (Vec<String>, Vec<String>);

/// Whether an estimate is within this share of the true number.
fn near(estimate: &str, truth: &str, error: f64) -> bool {
    let (Ok(one), Ok(other)) = (estimate.parse::<f64>(), truth.parse::<f64>()) else {
        return estimate == truth;
    };
    (one - other).abs() <= error * other.abs()
}

/// The rows agree in the truth's columns: estimates within their error, all others entirely.
fn compare(
    what: &str,
    found: Vec<Map<String, Value>>,
    truth: Vec<Map<String, Value>>,
    rough: &BTreeMap<String, f64>,
) {
    let columns: Vec<String> = truth[0].keys().cloned().collect();
    let of = |row: &Map<String, Value>, is_rough: bool| -> Vec<String> {
        let own = columns.iter().filter(|it| rough.contains_key(*it) == is_rough);
        let value = |name: &String| row.get(name).unwrap_or_else(|| panic!("{what}: no {name}"));
        own.map(|name| canonical(value(name))).collect()
    };
    let sides = [found, truth].map(|rows| {
        let mut rows: Vec<Row> = rows.iter().map(|row| (of(row, false), of(row, true))).collect();
        rows.sort();
        rows
    });
    let names = columns.iter().filter(|it| rough.contains_key(*it));
    let errors: Vec<f64> = names.map(|name| rough[name]).collect();
    let is_near = |(one, other): &(&Row, &Row)| {
        let estimates = one.1.iter().zip(&other.1).zip(&errors);
        one.0 == other.0
            && estimates.into_iter().all(|((one, other), error)| near(one, other, *error))
    };
    let [found, truth] = sides;
    let differing: Vec<_> =
        found.iter().zip(&truth).filter(|pair| !is_near(pair)).take(3).collect();
    assert!(
        differing.is_empty() && found.len() == truth.len(),
        "{what}: {} rows of {}, {columns:?}: {differing:?}",
        found.len(),
        truth.len()
    );
}

#[tokio::test]
async fn every_number_of_an_application_is_that_of_its_own_query() {
    for (cell, app) in apps().iter().enumerate() {
        if !share::is_drawn("the example applications", cell, APPS, PLAYED) {
            continue;
        }
        println!("{app}");
        let steps = steps(app);
        let example = Example::new(app, &steps[0].at).await;
        example.backfill().await;
        for (place, step) in steps.iter().enumerate() {
            example.is_exact(&format!("before {}", step.at), &steps[..place]).await;
            example.play(step).await;
        }
        example.is_exact("at the end", &steps).await;
        example.is_verified(&steps).await;
    }
}

/// The day that goes on has every hour that is over, but for the grace, after each tick. Each visit is
/// read from the source once.
#[tokio::test]
async fn today_so_far_lags_by_one_hour_and_its_grace_and_reads_each_visit_once() {
    const APP: &str = "forum";
    let (urls, pool) = with_rows(APP).await;
    // The hours and the days, of two days.
    let file = read(APP, "tallymark.toml").replace("2019-02-01", "2019-03-01");
    let rollups: Vec<&str> = file.split("[[rollup]]").take(3).collect();
    let config = config_of(APP, &rollups.join("[[rollup]]"), &pooled(&urls.source));
    let example = Example::of(APP, (urls, pool), &config, "2019-03-02T12:57:00Z");
    let hourly = example.world.rollup();
    example.world.worker.checkpoints.create_table().await.unwrap();
    example.world.init().await.unwrap();
    install_capture(&example.world.worker).await;
    let mut read = example.work_off().await;
    for _ in 0..TICKS {
        let over = example.clock.now() - TimeDelta::from_std(hourly.grace).unwrap();
        let until = hourly.calendar.containing(over).start().to_rfc3339();
        let [found, truth] =
            ["reads", "truth"].map(|folder| example.query(folder, "today_so_far", &until));
        let [mut found, mut truth] = [example.rows(&found).await, example.rows(&truth).await];
        for rows in [&mut found, &mut truth] {
            rows.sort_by_key(|row| row["bucket"].to_string());
        }
        assert_eq!(found, truth, "{}", example.clock.now());
        example.clock.advance(Duration::from_secs(7 * 60));
        read.extend(example.tick().await.slices);
    }
    let hours = || read.iter().filter(|slice| slice.rollup == hourly.name);
    let counted: u64 = hours().filter_map(|slice| Some(slice.completion.as_ref()?.rows_read)).sum();
    let (start, until) = (hourly.start.to_rfc3339(), example.until(hourly));
    let visits = format!(
        "SELECT count(*) AS visits FROM visits WHERE visited_at >= '{start}' AND visited_at < '{until}'"
    );
    assert_eq!(example.rows(&visits).await[0]["visits"], counted.to_string());
    let distinct: BTreeSet<_> = hours().map(|slice| slice.start).collect();
    assert_eq!(distinct.len(), hours().count(), "each hour is read once");
    assert!(read.iter().any(|slice| slice.rollup != hourly.name), "the day was computed");
}

/// Each rollup has its truth, and the README shows lines of the file.
#[test]
fn every_application_says_what_it_counts_and_by_which_query() {
    let apps = apps();
    assert_eq!(apps.len(), APPS);
    for app in &apps {
        for rollup in config(app, "postgres://app@127.0.0.1/app").rollups {
            assert!(read(app, &format!("truth/{}.sql", rollup.name)).contains(":'until'"));
        }
        let (page, file) = (read(app, "README.md"), read(app, "tallymark.toml"));
        let shown = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let lines: Vec<&str> = shown.flat_map(str::lines).collect();
        assert!(!lines.is_empty(), "{app}");
        for line in lines {
            assert!(file.lines().any(|own| own == line), "{app}: {line}");
        }
    }
}
