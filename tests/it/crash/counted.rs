//! The calls that a process makes, counted, with the checkpoints in the target.

use std::sync::Arc;

use tallymark::model::clock::{Clock as _, Deadline};
use tallymark::model::slice::Order;
use tallymark::tick;
use tallymark::work::backfill::{self, BatchOptions, Silent};
use tallymark::work::worker::{Joining, Worker};
use tempfile::TempDir;

use super::wire::Wires;
use crate::support::Database;
use crate::support::cli::{Place, daily, ended, execute};
use crate::support::world::{
    BUDGET, DAILY, EVENTS, Keeper, Setup, Urls, World, batch, clock, config, install_capture,
    instant, random_events,
};

/// Six days of events, and all of them due.
const DAYS: u32 = 6;

/// The calls of a further slice of a batch, in one database. The last reads the operator's commands
/// for the next slice.
const CALLS_OF_A_SLICE: [&str; 15] = [
    "claim",
    "begin to read",
    "clock",
    "plan, parse",
    "plan",
    "commit",
    "begin to write",
    "slot",
    "fence",
    "replace, parse",
    "replace",
    "marker",
    "complete",
    "commit",
    "read checkpoints",
];

/// A place with wires to its servers.
struct Wired {
    place: Place,
    wires: Arc<Wires>,
    urls: [String; 2],
    _directory: TempDir,
    _databases: Vec<Database>,
}

impl Wired {
    async fn new(is_one: bool) -> Self {
        Self::with(is_one, &daily(DAYS)).await
    }

    async fn with(is_one: bool, rollups: &str) -> Self {
        let mut databases = vec![Database::create().await];
        if !is_one {
            databases.push(Database::create().await);
        }
        let [source, target] = [&databases[0], databases.last().unwrap()].map(Database::url);
        let place = Place::new(&source, &target, "").await;
        place.configure(&format!("[checkpoint]\nstore = \"postgres\"\n{rollups}"));
        place.seed(DAYS).await;
        place.run(&["init"]).good();
        let directory = TempDir::new().unwrap();
        let wires = Wires::counting(directory.path().join("clock"));
        let source = wires.postgres("source", &place.source_url);
        let target = match is_one {
            true => source.clone(),
            false => wires.postgres("target", &place.target_url),
        };
        let urls = [source, target];
        Self { place, wires, urls, _directory: directory, _databases: databases }
    }

    /// The calls of a command. A statement counts once, without its preparation.
    fn calls(&self, arguments: &[&str]) -> Vec<String> {
        let calls = self.round_trips(arguments);
        calls.into_iter().filter(|call| !call.ends_with(", parse")).collect()
    }

    /// The calls of a command, with the preparation of statements.
    fn round_trips(&self, arguments: &[&str]) -> Vec<String> {
        let before = self.wires.calls().len();
        let mut command = self.place.command(arguments);
        command.env("SOURCE_DATABASE_URL", &self.urls[0]);
        command.env("TARGET_DATABASE_URL", &self.urls[1]);
        ended(&mut command).good();
        self.wires.calls().split_off(before)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tick_with_nothing_due_makes_one_connection_and_one_transaction() {
    let wired = Wired::new(false).await;
    // The second one writes the watermark.
    wired.calls(&["run"]);
    wired.calls(&["run"]);
    let calls = wired.calls(&["run"]);
    let [first, second, reads @ .., last] = &calls[..] else { panic!("{calls:?}") };
    let around = ["target: connect", "target: begin to read", "target: roll back"];
    assert_eq!([first, second, last].map(|call| &**call), around);
    assert!(reads.iter().all(|call| call == "target: read checkpoints"), "{calls:?}");
}

/// A process that has just started reads the catalogues in the transaction that looks for marks.
#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_tick_with_nothing_due_looks_for_marks_in_one_transaction_of_the_source() {
    let rollups = daily(DAYS).replace("group_by", "late = \"capture\"\ngroup_by");
    for is_one in [false, true] {
        let wired = Wired::with(is_one, &rollups).await;
        wired.place.run(&["capture", "install"]).good();
        // The second one writes the watermark.
        wired.calls(&["run"]);
        wired.calls(&["run"]);
        let mut calls = wired.calls(&["run"]);
        let stores = |call: &&String| call.ends_with(": read checkpoints");
        assert_ne!(calls.iter().filter(stores).count(), 0, "{calls:?}");
        calls.retain(|call| call.contains(": begin to ") || call.ends_with(": connect"));
        calls.sort_unstable();
        let store = if is_one { "source" } else { "target" };
        let mut expected =
            ["source: connect", "source: begin to write"].map(str::to_owned).to_vec();
        // Its last statement tells readers.
        expected.extend(["connect", "begin to write"].map(|call| format!("{store}: {call}")));
        expected.sort_unstable();
        assert_eq!(calls, expected);

        // A mark is found all the same.
        let late = "INSERT INTO events (at, kind, amount) SELECT min(at), 'late', 1 FROM events";
        execute(&wired.place.source_url, late).await;
        assert_eq!(
            wired.place.run(&["run", "--json"]).good().json()["slices"][0]["rows_read"],
            241
        );
    }
}

/// A further slice of a batch, in one database: two transactions that write, of which the claim is
/// one call. What is done once for several slices is left out. Only the statements with text of the
/// configuration are prepared, which makes sure that they are single ones.
#[tokio::test(flavor = "multi_thread")]
async fn a_slice_makes_these_calls_with_checkpoints_in_the_target() {
    let wired = Wired::new(true).await;
    let calls = wired.round_trips(&["backfill", "daily", "--yes", "--concurrency", "1"]);
    let claims: Vec<_> = (0..calls.len()).filter(|at| calls[*at].ends_with(": claim")).collect();
    assert_eq!(claims.len(), DAYS as usize);
    let slice = &calls[claims[2]..claims[3]];
    let slice: Vec<_> = slice.iter().map(|call| call.strip_prefix("source: ").unwrap()).collect();
    assert_eq!(slice, CALLS_OF_A_SLICE);
}

/// Neighbouring small slices of a batch, in one database: 32 of them make the calls of one.
#[tokio::test(flavor = "multi_thread")]
async fn slices_that_are_worked_on_together_make_the_calls_of_one() {
    let (clock, keeper) = (Arc::new(clock("2026-04-01T00:00:00Z")), Keeper::Target);
    let setup = Setup { clock: clock.clone(), keeper, ..Setup::default() };
    let world = World::new(&format!("{EVENTS}; {}", random_events(65, 10)), setup).await;
    let directory = TempDir::new().unwrap();
    let wires = Wires::counting(directory.path().join("clock"));
    let urls = Urls { source: wires.postgres("source", &world.urls.source), target: None };
    let config = config(&urls, "chunk_time = \"60s\"", DAILY);
    let checkpoints = keeper.open(&config, 1);
    let mut worker = Worker::with_checkpoints(config, checkpoints, clock, 1).unwrap();
    worker.joining = Joining { after: 1, slices_max: 32, work_max: BUDGET };
    let world = World { worker, ..world };
    let batch = BatchOptions { concurrency: 1, ..batch() };
    let (rollup, to) = (world.rollup(), instant("2026-03-07"));
    let plan =
        backfill::plan(&world.worker, rollup, rollup.start, to, Order::NewestFirst, false).await;
    let before = wires.calls().len();
    let report =
        backfill::run(&world.worker, rollup, &plan.unwrap(), batch, &Silent).await.unwrap();
    assert_eq!((report.succeeded, report.left), (65, 0));
    let calls = wires.calls().split_off(before);
    let claims: Vec<_> = (0..calls.len()).filter(|at| calls[*at].ends_with(": claim")).collect();
    assert_eq!(claims.len(), 3, "one slice, and twice 32: {calls:?}");
    let slices = &calls[claims[1]..claims[2]];
    let slices: Vec<_> = slices.iter().map(|call| call.strip_prefix("source: ").unwrap()).collect();
    assert_eq!(slices, CALLS_OF_A_SLICE);
}

/// In a process that lives on, as the first tick of one reads the catalogues. The checkpoints are in
/// DynamoDB, so that one more message tells readers.
#[tokio::test(flavor = "multi_thread")]
async fn a_tick_looks_for_marks_in_one_transaction() {
    let rollups = DAILY.replace("bucket =", "late = \"capture\"\nbucket =");
    let clock = Arc::new(clock("2026-01-04T12:00:00Z"));
    let setup = Setup { rollups: &rollups, clock: clock.clone(), ..Setup::default() };
    let world = World::new(&format!("{EVENTS}; {}", random_events(3, 50)), setup).await;
    install_capture(&world.worker).await;
    let directory = TempDir::new().unwrap();
    let wires = Wires::counting(directory.path().join("clock"));
    let urls = Urls { source: wires.postgres("source", &world.urls.source), target: None };
    let (checkpoints, config) = (world.worker.checkpoints.clone(), config(&urls, "", &rollups));
    let worker = Worker::with_checkpoints(config, checkpoints, clock.clone(), 4).unwrap();
    let mut before = 0;
    // The first two work, and write the watermark.
    for nth in 1..=3 {
        before = wires.calls().len();
        let deadline = Deadline::after(&*clock, BUDGET);
        let report = tick::run(&worker, clock.now(), deadline, None).await.unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert_eq!(report.slices.is_empty(), nth > 1);
    }
    let calls = wires.calls().split_off(before);
    let begun: Vec<_> = calls.iter().filter(|call| call.contains(": begin to ")).collect();
    assert_eq!(begun.len(), 1, "{calls:?}");
    // One message with its transaction.
    let told = calls.iter().filter(|call| call.ends_with(": tell readers"));
    assert_eq!(told.count(), 1, "{calls:?}");
}
