//! Random histories of a mirror: things that come, change and go between any two requests, devices
//! whose clocks are wrong, faults, small budgets, and two workers at once, of which some are killed at
//! any await.
//!
//! A slice that is accepted has exactly the things of the instant of one answer, each with its values
//! of some answer. Once the app is quiet and its changes and counts were looked at, the mirror has the
//! things of the app, and the rollup is their `GROUP BY`.
//!
//! Each history has a month of its own, in tables and a process that earlier ones have used: to make
//! them for each takes most of the time.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Days, Months, NaiveDate, TimeDelta, Utc};
use fastrand::Rng;
use tallymark::check::verify::{self, Compared};
use tallymark::model::clock::{Clock as _, Deadline, Stopwatch};
use tallymark::model::slice::Slice;
use tallymark::work::late;
use tallymark::work::report::Outcome;
use tallymark::work::worker::{WorkError, Worker};
use tokio::runtime::Builder;

use super::fake::datum::{Datum, text, timestamp};
use super::fake::{App, Author, Fault, Moment, New};
use super::model::{Measure, group_by};
use super::shop::{Shop, TABLES, furnish, run, try_run, worker_of};
use crate::support::polls::killed;
use crate::support::share;
use crate::support::world::{BUDGET, Keeper};

/// Histories of one run, and of a run of everything. `TALLYMARK_HISTORIES` sets another number.
const HISTORIES: [u32; 2] = [15, 1_000];

/// The stores of the checkpoints. A seed belongs to one of them.
const KEEPERS: [Keeper; 2] = [Keeper::DynamoDb, Keeper::Target];

/// Turns after which a slice must have succeeded: each yields for a reason that passes.
const TURNS_MAX: u32 = 40;

/// Workers that are killed in one history.
const KILLS_MAX: u32 = 3;

/// A turn of both workers usually ends within this many polls, and is killed earlier.
const POLLS_MAX: usize = 400;

const STATES: [&str; 3] = ["new", "paid", "sent"];

/// The lead of the clocks of the devices that create things, in milliseconds.
const CLOCKS: [i64; 3] = [-4_071_000, 0, 290_000];

/// The day of the first history.
const FIRST: &str = "2026-03-10";

/// The tables of a mirror that follows changes. A few things may all be deleted, so no slice counts as
/// shrunk.
fn tables() -> String {
    TABLES
        .replace("grace =", "shrink_guard = 0.0\nmodified = true\ngrace =")
        .replace("group_by =", "shrink_guard = 0.0\ngroup_by =")
}

/// What the app's answers have shown of the day's orders.
#[derive(Default)]
struct Seen {
    /// The ids at each answer of the last turn.
    instants: Vec<Vec<String>>,
    /// Every order as some answer could show it.
    orders: HashSet<String>,
}

impl Seen {
    fn look(&mut self, orders: Vec<String>) {
        self.instants.push(orders.iter().map(|it| id_of(it).to_owned()).collect());
        self.orders.extend(orders);
    }
}

fn id_of(order: &str) -> &str {
    order.split('|').next().unwrap()
}

/// A shop whose app and days are new to each history.
struct Lane {
    shop: Shop,
    keeper: Keeper,
    tables: String,
    workers: [Worker; 2],
    day: NaiveDate,
}

impl Lane {
    async fn new(keeper: Keeper) -> Self {
        let (tables, day) = (tables(), FIRST.parse().unwrap());
        let shop = Shop::kept_in(keeper, &tables, |_| {}).await;
        let workers =
            [process(&shop, keeper, &tables).await, process(&shop, keeper, &tables).await];
        Self { shop, keeper, tables, workers, day }
    }

    fn midnight(&self) -> DateTime<Utc> {
        self.day.and_hms_opt(0, 0, 0).unwrap().and_utc()
    }

    fn slice(&self) -> Slice {
        self.shop.mirror().calendar.starting(self.midnight()).unwrap()
    }

    /// An empty app in the middle of the next month. Its changes were looked at up to now.
    async fn start_over(&mut self, seed: u64) {
        self.day = self.day + Months::new(1);
        let now = self.midnight() + TimeDelta::hours(60);
        self.shop.clock.advance((now - self.shop.clock.now()).to_std().unwrap());
        self.shop.fake.start_over();
        let mut app = App::new(Rng::with_seed(seed));
        furnish(&mut app);
        *self.shop.fake.app() = app;
        self.look(seed).await;
    }

    /// Looks for changes.
    async fn look(&self, seed: u64) {
        let deadline = Deadline::after(&*self.shop.worker.clock, BUDGET);
        let problems = late::notice(&self.shop.worker, deadline).await;
        assert!(problems.is_empty(), "SEED={seed}: {problems:?}");
    }

    /// Gives the workers this budget.
    fn allow(&mut self, units: u32) {
        let config = self.shop.config(units, &self.tables);
        for worker in &mut self.workers {
            worker.config = config.clone();
        }
    }

    /// Replaces a worker by one that knows nothing.
    async fn replace(&mut self, place: usize) {
        let new = process(&self.shop, self.keeper, &self.tables).await;
        let old = std::mem::replace(&mut self.workers[place], new);
        old.close().await;
    }

    /// The orders that the mirror keeps of the day.
    async fn kept(&self) -> Vec<String> {
        let (from, until) = (self.day, self.day + Days::new(1));
        let sql = format!(
            "SELECT concat_ws('|', _id, coalesce(\"Status\", '-'), coalesce(\"Amount\"::text, '-'), \
             to_char(modified_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')) \
             FROM stats.orders WHERE created_at >= '{from}Z' AND created_at < '{until}Z'"
        );
        plain(self.shop.rows(&sql).await)
    }

    /// The groups of the day.
    async fn counted(&self) -> Vec<String> {
        let sql = format!(
            "SELECT concat_ws('|', coalesce(\"Status\", '-'), orders, coalesce(revenue::text, '-')) \
             FROM stats.orders_daily WHERE bucket = '{}Z'",
            self.day
        );
        plain(self.shop.rows(&sql).await)
    }

    /// The same by the model.
    fn modelled(&self) -> Vec<String> {
        let date = |ms| timestamp(ms)[..10].to_owned();
        let measures = [Measure::Count, Measure::Sum("Amount")];
        let mut app = self.shop.fake.app();
        let groups = group_by(app.live(), "order", date, &["Status"], &measures);
        let today = Some(self.day.to_string());
        let groups = groups.iter().filter(|(group, _)| group[0] == today);
        let shown = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "-".to_owned());
        let line = |(group, measures): (&Vec<_>, &Vec<_>)| {
            let cells: Vec<String> = group[1..].iter().chain(measures).map(shown).collect();
            cells.join("|")
        };
        let mut all: Vec<String> = groups.map(line).collect();
        all.sort();
        all
    }
}

/// A worker of its own process.
async fn process(shop: &Shop, keeper: Keeper, tables: &str) -> Worker {
    let config = shop.config(1, tables);
    let checkpoints = match keeper {
        Keeper::DynamoDb => shop.checkpoints.clone(),
        keeper => keeper.checkpoints(&config, 4).await,
    };
    worker_of(config, &checkpoints, &shop.clock)
}

/// Rows of one text, without what PostgreSQL puts around them.
fn plain(rows: Vec<String>) -> Vec<String> {
    rows.into_iter().map(|row| row.trim_matches(['(', ')']).to_owned()).collect()
}

/// An order of this second of the day, by some device.
fn order(midnight: DateTime<Utc>, second: i64, rng: &mut Rng) -> New {
    let clock = rng.choice(CLOCKS).unwrap();
    let author = Author::new("1700000000000x000000000000000001", clock);
    let new = New::at(midnight + TimeDelta::seconds(second)).by(&author);
    let new = match rng.u32(0..5) {
        0 => new,
        _ => new.with("Status", text(rng.choice(STATES).unwrap())),
    };
    match rng.u32(0..5) {
        0 => new,
        amount => new.with("Amount", Datum::Number(f64::from(amount) * 1.5)),
    }
}

/// Creates orders of the day: spread, in ties, and more at one time than a page holds. One of the day
/// before stays.
fn fill(app: &mut App, midnight: DateTime<Utc>, rng: &mut Rng) {
    let mut seconds = vec![-1];
    for _ in 0..rng.u32(1..5) {
        let (second, count) = (rng.i64(0..86_400), rng.usize(1..40));
        match rng.u32(0..4) {
            0 => seconds.extend(std::iter::repeat_n(second, count)),
            1 => seconds.extend(std::iter::repeat_n(second, 90 + 3 * count)),
            _ => seconds.extend((0..3 * count).map(|_| rng.i64(0..86_400))),
        }
    }
    for second in seconds {
        let new = order(midnight, second, rng);
        app.live().create("order", &new);
    }
}

/// The orders of the day, each as one line, by id.
fn of_the_day(app: &mut App, midnight: DateTime<Utc>) -> Vec<String> {
    let start = midnight.timestamp_millis();
    let day = start..start + 86_400_000;
    let live = app.live();
    let of = live.named("order").unwrap();
    let [status, amount] = ["Status", "Amount"].map(|name| of.field(name));
    let shown = |value: Option<&Datum>| match value {
        Some(Datum::Text(text)) => text.to_string(),
        Some(Datum::Number(value)) => value.to_string(),
        _ => "-".to_owned(),
    };
    let things = live.things("order").filter(|it| day.contains(&it.created));
    let line = |it: &super::fake::Thing| {
        let (status, amount) = (shown(it.value(status)), shown(it.value(amount)));
        format!("{}|{status}|{amount}|{}", it.id, timestamp(it.modified))
    };
    things.map(line).collect()
}

/// Deletes, edits or creates orders, or deletes one and creates another.
fn change(app: &mut App, midnight: DateTime<Utc>, rng: &mut Rng, now: DateTime<Utc>) {
    let kind = rng.u32(0..5);
    let known = of_the_day(app, midnight);
    if let Some(one) = rng.choice(&known) {
        let state = rng.bool().then(|| text(rng.choice(STATES).unwrap()));
        let amount = Some(Datum::Number(f64::from(rng.u8(..)) / 4.0));
        match kind {
            0 | 1 => app.live().delete("order", id_of(one)),
            2 => app.live().edit("order", id_of(one), now, &[("Status", state)]),
            3 => app.live().edit("order", id_of(one), now, &[("Amount", amount)]),
            _ => {}
        }
    }
    // What is created now belongs to a later slice.
    match kind {
        1 => drop(app.live().create("order", &New::at(now))),
        4 => drop(app.live().bulk_create("order", 5, &New::at(now))),
        _ => {}
    }
}

/// Changes the app and breaks answers until it is quiet, and notes what each answer could show.
fn trouble(lane: &Lane, mut rng: Rng) -> (Arc<Mutex<Seen>>, Arc<AtomicBool>) {
    let (seen, is_quiet) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
    let (noted, quiet, clock) = (Arc::clone(&seen), Arc::clone(&is_quiet), lane.shop.clock.clone());
    let (midnight, mut is_new) = (lane.midnight(), true);
    lane.shop.fake.script(move |_, moment, app| {
        if moment == Moment::After && std::mem::take(&mut is_new) {
            noted.lock().unwrap().look(of_the_day(app, midnight));
        }
        if quiet.load(Ordering::Relaxed) {
            return None;
        }
        if rng.f32() < 0.06 {
            change(app, midnight, &mut rng, clock.now());
            is_new = true;
        }
        let faults = [
            Fault::TooMany(Some(0)),
            Fault::TooMany(None),
            Fault::Status(503),
            Fault::Html,
            Fault::Cut,
            Fault::Hangup,
        ];
        let is_faulty = moment == Moment::Before && rng.f32() < 0.04;
        is_faulty.then(|| rng.choice(faults).unwrap())
    });
    (seen, is_quiet)
}

/// Turns of both workers on the slice, until one has succeeded.
async fn read(lane: &mut Lane, seen: &Mutex<Seen>, rng: &mut Rng, seed: u64) {
    let (mut budget, mut kills, day) = (rng.u32(3..30), 0, lane.day.to_string());
    for _ in 0..TURNS_MAX {
        lane.allow(budget);
        let is_killed = kills < KILLS_MAX && rng.u32(0..4) == 0;
        let polls = if is_killed { rng.usize(1..POLLS_MAX) } else { usize::MAX };
        let [one, other] = lane.workers.each_ref();
        let mirror = lane.shop.mirror();
        let ended =
            tokio::join!(killed(try_run(one, mirror, &day), polls), try_run(other, mirror, &day));
        let was_killed = ended.0.is_none();
        let ended = ended.0.into_iter().chain([ended.1]).filter_map(|ended| match ended {
            Ok(report) => Some(report),
            // The budget was spent before the worker looked at the slice.
            Err(WorkError::NotNow(_)) => None,
            Err(error) => panic!("SEED={seed}: {error:?}"),
        });
        for report in ended {
            match report.outcome {
                // The other one has read it, or one that was killed afterwards.
                Outcome::Succeeded | Outcome::AlreadySucceeded => return,
                Outcome::Yielded | Outcome::Leased | Outcome::Fenced => {}
                _ => panic!("SEED={seed}: {report:?}"),
            }
        }
        // A worker that was killed may have read the slice.
        if !was_killed {
            let instants = &mut seen.lock().unwrap().instants;
            instants.drain(..instants.len().saturating_sub(1));
        }
        if was_killed || rng.u32(0..8) == 0 {
            kills += u32::from(was_killed);
            lane.replace(0).await;
        }
        budget += rng.u32(2..20);
        lane.shop.clock.advance(Duration::from_secs(60 * 61));
    }
    panic!("SEED={seed}: {TURNS_MAX} turns were not enough");
}

async fn play(lane: &mut Lane, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    lane.start_over(seed).await;
    fill(&mut lane.shop.fake.app(), lane.midnight(), &mut rng);
    let (seen, is_quiet) = trouble(lane, rng.fork());
    read(lane, &seen, &mut rng, seed).await;
    let kept = lane.kept().await;
    {
        let seen = seen.lock().unwrap();
        let ids: Vec<&str> = kept.iter().map(|it| id_of(it)).collect();
        assert!(seen.instants.iter().any(|instant| *instant == ids), "SEED={seed}: {kept:?}");
        let other: Vec<_> = kept.iter().filter(|it| !seen.orders.contains(*it)).collect();
        assert!(other.is_empty(), "SEED={seed}: {other:?}");
    }
    is_quiet.store(true, Ordering::Relaxed);
    settle(lane, seed).await;
    let there = of_the_day(&mut lane.shop.fake.app(), lane.midnight());
    assert_eq!(lane.kept().await, there, "SEED={seed}");
    assert_eq!(lane.counted().await, lane.modelled(), "SEED={seed}");
}

/// Looks for changes and deletes until there are none, and follows them.
async fn settle(lane: &Lane, seed: u64) {
    let (shop, day) = (&lane.shop, lane.day.to_string());
    for _ in 0..TURNS_MAX {
        shop.clock.advance(Duration::from_secs(3 * 60 * 60));
        lane.look(seed).await;
        let compared = verify::compare(&shop.worker, shop.mirror(), lane.slice(), BUDGET, 1).await;
        let compared = compared.unwrap();
        if matches!(compared, Compared::Drift(..)) {
            let (start, now) = (lane.midnight(), shop.clock.now());
            shop.checkpoints.reopen("orders", start, "scrub", now).await.unwrap();
        }
        let mirror = run(&shop.worker, shop.mirror(), &day).await;
        let rollup = run(&shop.worker, &shop.worker.config.rollups[1], &day).await;
        let is_still = |outcome| outcome == Outcome::AlreadySucceeded;
        if compared == Compared::Same && is_still(mirror.outcome) && is_still(rollup.outcome) {
            return;
        }
    }
    panic!("SEED={seed}: it never comes to rest");
}

fn histories() -> u32 {
    let usual = HISTORIES[usize::from(share::is_whole())];
    std::env::var("TALLYMARK_HISTORIES").map_or(usual, |count| count.parse().unwrap())
}

#[test]
fn whatever_happens_in_the_app_an_accepted_slice_has_the_things_of_one_instant() {
    let asked: Option<u64> = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let first = asked.unwrap_or_else(|| fastrand::u64(..1 << 32));
    let count = if asked.is_some() { 1 } else { histories() };
    let (next, watch) = (AtomicU32::new(0), Stopwatch::start());
    let lane = async |keeper: Keeper| {
        let of_keeper = |seed: &u64| KEEPERS[(*seed % 2) as usize] == keeper;
        let mut seeds = (first..).filter(of_keeper);
        if asked.is_some() && !of_keeper(&first) {
            return;
        }
        let mut lane = Lane::new(keeper).await;
        while next.fetch_add(1, Ordering::Relaxed) < count {
            let seed = seeds.next().unwrap();
            println!("SEED={seed}, {keeper:?}, after {:?}", watch.elapsed());
            play(&mut lane, seed).await;
        }
        for worker in &lane.workers {
            worker.close().await;
        }
    };
    // One thread that waits for servers alone, as waking another thread costs more than its work.
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    thread::scope(|scope| {
        let lanes = KEEPERS.map(|keeper| {
            let lane = &lane;
            scope.spawn(move || runtime().block_on(lane(keeper)))
        });
        for lane in lanes {
            lane.join().unwrap();
        }
    });
}
