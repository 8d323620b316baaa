//! A shop on Bubble, and workers in this process that mirror it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::BoxFuture;
use sqlx::PgPool;
use tallymark::checkpoint::Checkpoints;
use tallymark::config::Config;
use tallymark::model::clock::{Clock, Deadline, ManualClock};
use tallymark::model::rollup::Rollup;
use tallymark::model::slice::Order;
use tallymark::work::backfill::{self, Silent};
use tallymark::work::report::SliceReport;
use tallymark::work::slice_run::{self, RunOptions};
use tallymark::work::worker::{WorkError, Worker};

use super::fake::{App, Caller, Fake, Kind, New, Thing};
use crate::support::Database;
use crate::support::world::{self, BUDGET, Keeper, batch, instant, records};

/// The administrator's token, which no output may show.
pub const TOKEN: &str = "sw0rdf1sh-4dm1n";

/// The day that most tests read.
pub const DAY: &str = "2026-02-27";

/// The present.
pub const NOW: &str = "2026-03-01T12:00:00Z";

pub const TABLES: &str = r#"
[[mirror]]
name = "orders"
type = "order"
fields = ["Status", "Amount", "Paid?", "Due"]
start = "2026-02-26"
slice = "1 day"
grace = "5 minutes"

[[rollup]]
name = "orders_daily"
from = { mirror = "orders" }
slice = "1 day"
group_by = ["Status"]
measures = { orders = "count", revenue = { sum = "Amount" } }
"#;

/// Concurrent slices of a worker.
const CONCURRENCY: u32 = 4;

/// Workload units of a month that few tests spend.
const UNITS: u32 = 20_000;

/// A clock that tests move. A wait of a worker takes no time, and moves it, too.
#[derive(Clone, Debug)]
struct Leaping(ManualClock);

impl Clock for Leaping {
    fn now(&self) -> DateTime<Utc> {
        self.0.now()
    }

    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        self.0.advance(time);
        Box::pin(tokio::task::yield_now())
    }
}

/// A shop on Bubble, and a worker that mirrors it.
pub struct Shop {
    pub fake: Fake,
    pub url: String,
    target: PgPool,
    pub clock: ManualClock,
    pub checkpoints: Checkpoints,
    pub worker: Worker,
}

/// The app of a shop: a token, and the type of its orders in both databases.
pub fn furnish(app: &mut App) {
    app.allow(TOKEN, Caller::Administrator);
    let fields = [
        ("Status", Kind::Choice("state")),
        ("Amount", Kind::Number),
        ("Paid?", Kind::YesNo),
        ("Due", Kind::Date),
        ("Note", Kind::Text),
    ];
    for database in ["live", "test"] {
        app.database(database).define("Order", &fields);
    }
}

impl Shop {
    /// A shop with these orders, mirrored into tables that are ready.
    pub async fn open(orders: &[New]) -> Self {
        Self::open_with(orders, TABLES).await
    }

    /// As [`Shop::open`], with other mirrors and rollups.
    pub async fn open_with(orders: &[New], tables: &str) -> Self {
        Self::open_as(orders, tables, |_| {}).await
    }

    /// As [`Shop::open_with`], after a change of the app.
    pub async fn open_as(orders: &[New], tables: &str, change: impl FnOnce(&mut App)) -> Self {
        let fill = |app: &mut App| {
            for order in orders {
                app.live().create("order", order);
            }
            change(app);
        };
        Self::kept_in(Keeper::DynamoDb, tables, fill).await
    }

    /// A shop whose app `fill` makes, with the checkpoints in this store.
    pub async fn kept_in(keeper: Keeper, tables: &str, fill: impl FnOnce(&mut App)) -> Self {
        let clock = ManualClock::new(instant(NOW));
        let fake = Fake::start(Arc::new(clock.clone()), 7);
        furnish(&mut fake.app());
        fill(&mut fake.app());
        let database = Database::create().await;
        let (url, target) = (database.url(), database.pool().await);
        let config = config(&fake, &url, UNITS, tables);
        let checkpoints = keeper.checkpoints(&config, CONCURRENCY).await;
        checkpoints.create_table().await.unwrap();
        let worker = worker_of(config, &checkpoints, &clock);
        world::init(&worker).await.unwrap();
        Self { fake, url, target, clock, checkpoints, worker }
    }

    /// The same tables and checkpoints, seen by another process with this budget.
    pub fn with_budget(&self, units: u32) -> Worker {
        worker(&self.fake, &self.url, &self.checkpoints, &self.clock, (units, TABLES))
    }

    /// The configuration with this budget.
    pub fn config(&self, units: u32, tables: &str) -> Config {
        config(&self.fake, &self.url, units, tables)
    }

    pub fn mirror(&self) -> &Rollup {
        &self.worker.config.rollups[0]
    }

    pub async fn run(&self, day: &str) -> SliceReport {
        run(&self.worker, self.mirror(), day).await
    }

    /// Reads all that is due, the mirror first.
    pub async fn backfill(&self) {
        for rollup in &self.worker.config.rollups {
            let to = instant("2026-03-01");
            let plan =
                backfill::plan(&self.worker, rollup, rollup.start, to, Order::OldestFirst, false);
            let plan = plan.await.unwrap();
            let report = backfill::run(&self.worker, rollup, &plan, batch(), &Silent).await;
            let report = report.unwrap();
            assert_eq!(report.succeeded, plan.slices.len(), "{report:?}");
        }
    }

    pub async fn rows(&self, sql: &str) -> Vec<String> {
        records(&self.target, sql).await
    }

    /// The IDs that the mirror keeps of a day are those of the app.
    pub async fn assert_same(&self, day: &str) {
        let start = instant(day);
        let end = start + TimeDelta::days(1);
        let sql = format!(
            "SELECT _id FROM stats.orders WHERE created_at >= '{start}' AND created_at < '{end}'"
        );
        let kept = self.rows(&sql).await;
        let mut there: Vec<String> = {
            let mut app = self.fake.app();
            let things = all(&mut app);
            let within = |ms: i64| (start.timestamp_millis()..end.timestamp_millis()).contains(&ms);
            things.iter().filter(|it| within(it.created)).map(|it| format!("({})", it.id)).collect()
        };
        there.sort();
        assert_eq!(kept, there);
    }
}

fn config(fake: &Fake, url: &str, units: u32, tables: &str) -> Config {
    let text = format!(
        "[source]\nbubble = {{ app = \"{}\", token = {{ env = \"BUBBLE_TOKEN\" }} }}\n\
         workload_units_per_month = {units}\n[target]\nurl = {{ env = \"TARGET\" }}\n{tables}",
        fake.url()
    );
    let env = |name: &str| match name {
        "BUBBLE_TOKEN" => Some(TOKEN.to_owned()),
        "TARGET" => Some(url.to_owned()),
        _ => None,
    };
    Config::parse(Path::new("tallymark.toml"), &text, &env).unwrap()
}

/// A worker with this budget and these tables.
pub fn worker(
    fake: &Fake,
    url: &str,
    checkpoints: &Checkpoints,
    clock: &ManualClock,
    (units, tables): (u32, &str),
) -> Worker {
    worker_of(config(fake, url, units, tables), checkpoints, clock)
}

/// A worker with this configuration.
pub fn worker_of(config: Config, checkpoints: &Checkpoints, clock: &ManualClock) -> Worker {
    let clock = Arc::new(Leaping(clock.clone()));
    Worker::with_checkpoints(config, checkpoints.clone(), clock, CONCURRENCY).unwrap()
}

pub async fn run(worker: &Worker, rollup: &Rollup, day: &str) -> SliceReport {
    try_run(worker, rollup, day).await.unwrap()
}

/// As [`run`], but it may be refused.
pub async fn try_run(
    worker: &Worker,
    rollup: &Rollup,
    day: &str,
) -> Result<SliceReport, WorkError> {
    let deadline = Deadline::after(&*worker.clock, BUDGET);
    let slice = rollup.calendar.starting(instant(day)).unwrap();
    let options = RunOptions::default();
    slice_run::run_slice(worker, rollup, slice, deadline, options).await
}

/// All orders of the live app, by id.
pub fn all(app: &mut App) -> Vec<Thing> {
    app.live().things("order").cloned().collect()
}

/// An order of this second of the day.
pub fn order(second: i64) -> New {
    New::at(instant(DAY) + TimeDelta::seconds(second))
}
