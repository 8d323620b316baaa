//! Random histories of rollups of rollups with trailing windows over each level: late rows, deletes,
//! moved rows, definitions that change, and ticks that are killed at any await. When all work is
//! done, every rollup equals one `GROUP BY` over the rows of its slices or windows.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use fastrand::Rng;
use tallymark::model::clock::{Clock as _, Deadline, ManualClock};
use tallymark::model::measure::{KINDS, Kind};
use tallymark::tick;
use tallymark::work::ready;
use tallymark::work::slice_run::{self, RunOptions};
use tallymark::work::standings;

use crate::support::polls::killed;
use crate::support::world::{
    BUDGET, EVENTS, Keeper, PAST_LEASE, Setup, World, clock, install_capture, records,
};
use crate::support::{kinds, share, told};

/// Histories of one run, and with `TALLYMARK_TESTS=all`.
const HISTORIES: u32 = 3;
const HISTORIES_ALL: u32 = 100;

/// `TALLYMARK_HISTORIES` sets the number of shorter ones, of which so many take as long as one of these.
const SHORTER: u32 = 100;

/// Steps of one history.
const STEPS_MAX: usize = 10;

/// A tick of these histories has more polls than this, so many are killed.
const POLLS_MAX: usize = 1_500;

/// Ticks until all work is done.
const QUIET_MAX: usize = 30;

/// History begins on a Monday. Clocks go back in New York on 2 November.
const START: &str = "2025-10-27";
const BEGIN: &str = "2025-11-03T08:30:00Z";

const ZONES: [&str; 3] = ["UTC", "America/New_York", "Asia/Kathmandu"];

/// Windows: the finer rollup, slice and span. Most are drawn, and then drawn again.
const WINDOWS: [(&str, &str, &str); 8] = [
    ("quarters", "6 hours", "2 days"),
    ("quarters", "1 day", "3 days"),
    ("quarters", "12 hours", "1 week"),
    ("quarters", "1 day", "1 day"),
    ("days", "1 day", "5 days"),
    ("days", "1 day", "28 days"),
    ("days", "1 week", "10 days"),
    ("days", "1 week", "2 days"),
];

/// Windows of one history.
const WINDOWS_DRAWN: usize = 3;

/// What rows a definition counts, and which of them `total` adds up.
const CONDITIONS: [&str; 3] = ["true", "amount < 700", "kind IS NOT NULL"];

/// A definition of all rollups.
#[derive(Clone)]
struct Definition {
    zone: &'static str,
    windows: Vec<(&'static str, &'static str, &'static str)>,
    filter: &'static str,
    total: &'static str,
    kinds: Vec<&'static dyn Kind>,
}

impl Definition {
    fn drawn(random: &mut Rng) -> Self {
        let mut windows = WINDOWS.to_vec();
        random.shuffle(&mut windows);
        windows.truncate(WINDOWS_DRAWN);
        let mut kinds: Vec<_> = KINDS.iter().copied().filter(|it| kinds::merges(*it)).collect();
        random.shuffle(&mut kinds);
        kinds.truncate(2);
        let zone = ZONES[random.usize(0..ZONES.len())];
        Self { zone, windows, filter: CONDITIONS[0], total: CONDITIONS[0], kinds }
    }

    /// Another condition, or another span of one of the windows. A table keeps its finer rollup and
    /// the width of its slices.
    fn change(&mut self, random: &mut Rng) {
        let condition = CONDITIONS[random.usize(0..CONDITIONS.len())];
        match random.u32(0..3) {
            0 => self.filter = condition,
            1 => self.total = condition,
            _ => {
                let (.., span) = &mut self.windows[random.usize(0..WINDOWS_DRAWN)];
                *span = ["1 day", "4 days", "9 days"][random.usize(0..3)];
            }
        }
    }

    fn toml(&self) -> String {
        let every = self.kinds.iter().map(|kind| {
            let measure = kinds::written(*kind, kind.example_column(), "");
            format!("{} = {measure}\n", named(*kind))
        });
        let merged: String =
            self.kinds.iter().map(|kind| format!(", \"{}\"", named(*kind))).collect();
        let coarse = |name: &str, finer: &str, rest: &str| {
            format!(
                "[[rollup]]\nname = \"{name}\"\nfrom = {{ rollup = \"{finer}\" }}\n{rest}\n\
                 shrink_guard = 0.0\ngroup_by = [\"kind\"]\n\
                 measures = [\"events\", \"total\", \"users\"{merged}]\n"
            )
        };
        let windows = self.windows.iter().enumerate().map(|(place, (finer, slice, span))| {
            let rest = format!("slice = \"{slice}\"\ntrailing = \"{span}\"");
            coarse(&format!("window_{place}"), finer, &rest)
        });
        format!(
            "[[rollup]]\nname = \"quarters\"\nfrom = \"public.events\"\ntime = \"created_at\"\n\
             start = \"{START}\"\nslice = \"6 hours\"\ntimezone = \"{}\"\nlate = \"capture\"\n\
             shrink_guard = 0.0\nwhere = \"{}\"\ngroup_by = [\"kind\"]\n[rollup.measures]\n\
             events = \"count\"\ntotal = {{ sum = \"amount\", where = \"{}\" }}\n\
             users = {{ distinct = \"user_id\", merge = \"exact\" }}\n{}{}{}",
            self.zone,
            self.filter,
            self.total,
            every.collect::<String>(),
            coarse("days", "quarters", "slice = \"1 day\""),
            windows.collect::<String>(),
        )
    }

    /// Each rollup with its slice and its span.
    fn shapes(&self) -> Vec<(String, &'static str, Option<&'static str>)> {
        let plain = [("quarters".to_owned(), "6 hours", None), ("days".to_owned(), "1 day", None)];
        let windows = self.windows.iter().enumerate();
        let windows = windows
            .map(|(place, (_, slice, span))| (format!("window_{place}"), *slice, Some(*span)));
        plain.into_iter().chain(windows).collect()
    }
}

/// The name of the measure of this kind.
fn named(kind: &dyn Kind) -> String {
    format!("every_{}", kinds::label(kind))
}

/// One history, and what happened in it.
struct History {
    world: World,
    clock: ManualClock,
    definition: Definition,
    steps: Vec<String>,
    /// What a reader was told and is wrong.
    misread: Vec<String>,
}

impl History {
    async fn new(random: &mut Rng) -> Self {
        let definition = Definition::drawn(random);
        let keeper = [Keeper::Target, Keeper::DynamoDb][random.usize(0..2)];
        let across = random.bool();
        let clock = clock(BEGIN);
        let rows = format!(
            "{EVENTS}; ALTER TABLE events ADD is_paid boolean, ADD updated_at timestamptz; \
             INSERT INTO events (created_at, kind, user_id, amount, is_paid, updated_at) \
             SELECT '{START}Z'::timestamptz + n * interval '97 minutes', \
                 (ARRAY['view', 'buy', NULL])[1 + n % 3], (n * 7919) % 17, n * 31 % 1000, n % 2 = 0, \
                 '{START}Z'::timestamptz + n * 577 % 409 * interval '1 minute' \
             FROM generate_series(-20, 180) n"
        );
        let shared: Arc<ManualClock> = Arc::new(clock.clone());
        let rollups = definition.toml();
        let setup = Setup { rollups: &rollups, across, keeper, clock: shared, ..Setup::default() };
        let world = World::new(&rows, setup).await;
        install_capture(&world.worker).await;
        let windows = &definition.windows;
        let steps = vec![format!("-- {keeper:?}, {across}, {}: {windows:?}", definition.zone)];
        Self { world, clock, definition, steps, misread: Vec::new() }
    }

    async fn step(&mut self, random: &mut Rng) {
        let said = match random.u32(0..16) {
            0..=6 => {
                let sql = self.statement(random);
                self.world.sql(&sql).await;
                sql
            }
            7..=8 => {
                self.clock.advance(Duration::from_secs(random.u64(1..40) * 3_600));
                format!("-- {}", self.clock.now())
            }
            9 => {
                self.definition.change(random);
                self.world = self.world.redefined(&self.definition.toml());
                self.world.init().await.unwrap();
                install_capture(&self.world.worker).await;
                let Definition { filter, total, windows, .. } = &self.definition;
                format!("-- redefined: {filter}; {total}; {windows:?}")
            }
            10..=11 => self.by_hand(random).await,
            _ => self.tick(random.bool().then(|| random.usize(1..POLLS_MAX))).await,
        };
        self.steps.push(said);
        self.read().await;
    }

    /// A reader is told that no slice is complete whose rows differ from those that it is made of.
    async fn read(&mut self) {
        let windows = self.definition.windows.iter().enumerate();
        let windows = windows.map(|(place, (finer, ..))| (format!("window_{place}"), *finer));
        let all: Vec<_> = std::iter::once(("days".to_owned(), "quarters")).chain(windows).collect();
        for (name, finer) in all {
            let found = records(&self.world.target, &told::misread(&name, finer)).await;
            self.misread.extend(found);
        }
    }

    /// The next statement of the application.
    fn statement(&self, random: &mut Rng) -> String {
        let hours = (self.clock.now() - clock(START).now()).num_hours();
        let hour = random.i64(-20..hours + 30);
        let at = format!("'{START}Z'::timestamptz + interval '{hour} hours'");
        let (amount, user) = (random.u32(0..1_000), random.u32(0..25));
        let width = random.u32(1..20);
        let some = format!(
            "created_at >= {at} AND created_at < {at} + interval '{width} hours' AND id % 2 = 0"
        );
        match random.u32(0..8) {
            0 => format!("DELETE FROM events WHERE {some}"),
            1 => format!("UPDATE events SET amount = {amount}, user_id = {user} WHERE {some}"),
            2 => format!(
                "UPDATE events SET created_at = created_at + interval '{width} hours' WHERE {some}"
            ),
            3 => format!("UPDATE events SET kind = 'moved' WHERE {some}"),
            _ => format!(
                "INSERT INTO events (created_at, kind, user_id, amount, is_paid, updated_at) \
                 SELECT {at} + n * interval '7 minutes', 'late', {user} + n, {amount}, n = 1, \
                     {at} + n * interval '1 second' FROM generate_series(1, {}) n",
                random.u32(1..4)
            ),
        }
    }

    /// A tick, which is killed if it needs more polls than these.
    async fn tick(&self, polls: Option<usize>) -> String {
        let worker = &self.world.worker;
        let deadline = Deadline::after(&self.clock, BUDGET);
        let work = tick::run(worker, self.clock.now(), deadline, None);
        match killed(work, polls.unwrap_or(usize::MAX)).await {
            Some(report) => format!("-- tick: {} slices", report.unwrap().slices.len()),
            None => format!("-- tick killed at poll {polls:?}"),
        }
    }

    /// An operator runs one slice of any rollup.
    async fn by_hand(&self, random: &mut Rng) -> String {
        let worker = &self.world.worker;
        let rollup = random.choice(&worker.config.rollups).unwrap();
        let at = self.clock.now() - TimeDelta::hours(random.i64(1..200));
        let slice = rollup.calendar.containing(at.max(rollup.start));
        let deadline = Deadline::after(&self.clock, BUDGET);
        let options = RunOptions::default();
        let ended = match slice_run::run_slice(worker, rollup, slice, deadline, options).await {
            Ok(report) => report.outcome.word().to_owned(),
            Err(error) => error.to_string(),
        };
        format!("-- run {}@{}: {ended}", rollup.name, slice.start())
    }

    /// Ticks until all work is done.
    async fn settle_down(&self) -> Result<(), String> {
        let mut last = String::new();
        for _ in 0..QUIET_MAX {
            // The lease of a killed worker ends.
            self.clock.advance(PAST_LEASE);
            let (worker, now) = (&self.world.worker, self.clock.now());
            let deadline = Deadline::after(&self.clock, BUDGET);
            let report = tick::run(worker, now, deadline, None).await.unwrap();
            let mut is_done = report.slices.is_empty() && report.problems.is_empty();
            for rollup in &worker.config.rollups {
                let plan = standings::of(worker, rollup, now).await.unwrap().plan;
                let Some(newest) = rollup.newest(now) else { continue };
                // The newest slice may wait for its next attempt, of which no watermark tells.
                let mut ended = plan.slices.iter().filter(|it| it.slice.start() <= newest.start());
                is_done &=
                    plan.watermark >= newest.start() && ended.all(|it| it.standing.is_done());
            }
            if is_done {
                return Ok(());
            }
            last = format!("{report:?}");
        }
        Err(format!("-- never quiet: {last}"))
    }

    /// The rows by which each rollup differs from one `GROUP BY`.
    async fn differing(&self) -> Vec<String> {
        let Definition { zone, filter, total, .. } = &self.definition;
        let base = self.world.rollup();
        let shape = ready::shape(&self.world.worker, base).await.unwrap();
        let every = base.measures.iter().filter(|measure| measure.name.starts_with("every_"));
        let every: Vec<_> = every.flat_map(|measure| kinds::direct(measure, &shape)).collect();
        let names: String = every.iter().map(|(name, _)| format!(", \"{name}\"")).collect();
        let direct: String = every.iter().map(|(_, sql)| format!(", {sql}")).collect();
        let at = |local: &str| format!("(({local}) AT TIME ZONE '{zone}')");
        let now = self.clock.now().to_rfc3339();
        let history = at(&format!("'{START}'::timestamp"));
        let mut differing = Vec::new();
        for (name, slice, span) in self.definition.shapes() {
            let start = self.world.worker.rollup(&name).unwrap().start.to_rfc3339();
            let local = format!("('{start}'::timestamptz AT TIME ZONE '{zone}')");
            let back = match span {
                Some(span) => at(&format!("until - interval '{span}'")),
                None => "begins".to_owned(),
            };
            // Slices whose rows may be read: the finest waits for its grace.
            let wanted = format!(
                "SELECT begins AS bucket, kind, count(*), \
                     sum(amount) FILTER (WHERE {total}), count(DISTINCT user_id){direct} \
                 FROM generate_series({local}, '{now}'::timestamptz AT TIME ZONE '{zone}', \
                     interval '{slice}') local \
                 CROSS JOIN LATERAL (SELECT {begins} AS begins, local + interval '{slice}' AS until) one \
                 CROSS JOIN LATERAL (SELECT {ends} AS ends) two \
                 JOIN events ON created_at >= {back} AND created_at < ends \
                     AND created_at >= {history} \
                 WHERE ends <= '{now}'::timestamptz - interval '2 minutes' AND ({filter}) \
                 GROUP BY 1, 2",
                begins = at("local"),
                ends = at("until"),
            );
            let found =
                format!("SELECT bucket, kind, events, total, users{names} FROM stats.{name}");
            let found = records(&self.world.target, &found).await;
            let wanted = records(&self.world.pool, &wanted).await;
            let lacks = |these: &[String], row: &String| these.binary_search(row).is_err();
            let missing = wanted.iter().filter(|row| lacks(&found, row));
            differing.extend(missing.map(|row| format!("{name} misses {row}")));
            let extra = found.iter().filter(|row| lacks(&wanted, row));
            differing.extend(extra.map(|row| format!("{name} has {row}")));
            if wanted.is_empty() && name == "quarters" {
                differing.push("nothing was counted".to_owned());
            }
        }
        differing
    }
}

/// `SEED=… TALLYMARK_HISTORIES=1` plays one again.
#[tokio::test]
async fn with_windows_over_each_level_any_history_ends_exact() {
    let usual = if share::is_whole() { HISTORIES_ALL } else { HISTORIES };
    let shorter = std::env::var("TALLYMARK_HISTORIES").ok().and_then(|count| count.parse().ok());
    let count = shorter.map_or(usual, |count: u32| count.div_ceil(SHORTER));
    let asked = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let first: u64 = asked.unwrap_or_else(|| fastrand::u64(..1 << 32));
    for seed in (first..).take(count as usize) {
        let mut random = Rng::with_seed(seed);
        let mut history = History::new(&mut random).await;
        for _ in 0..random.usize(STEPS_MAX / 2..=STEPS_MAX) {
            history.step(&mut random).await;
        }
        let quiet = history.settle_down().await;
        history.read().await;
        let mut wrong = match quiet {
            Ok(()) => history.differing().await,
            Err(error) => vec![error],
        };
        wrong.append(&mut history.misread);
        let steps = history.steps.join("\n  ");
        assert!(wrong.is_empty(), "SEED={seed}:\n  {steps}\n  {}", wrong.join("\n  "));
    }
}
