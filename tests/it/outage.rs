//! Ten minutes of a server's trouble, by a virtual clock. No slice counts it as its own failure,
//! and the next ticks after the trouble complete everything without a command. Also the time limits
//! of waiting for a server.

use std::sync::Arc;
use std::time::Duration;

use tallymark::clients::db::{Access, Db, DbErrorKind, Side};
use tallymark::embedded::dynamodb::EmbeddedDynamo;
use tallymark::model::clock::{Clock as _, Deadline, ManualClock, Stopwatch};
use tallymark::tick::{self};
use tallymark::work::report::TickReport;
use tallymark::work::standings;
use tallymark::work::worker::{Severity, WorkError, Worker};

use crate::support::Database;
use crate::support::proxy::{Gate, Refusal};
use crate::support::world::{
    DAILY, EVENTS, Setup, Urls, World, checkpoints_in, clock, config, daily_expected, init,
    instant, random_events,
};

/// Days that are due.
const DAYS: u32 = 4;

/// The interval of the schedule.
const EVERY: Duration = Duration::from_secs(75);

/// Ticks in ten minutes.
const TICKS: usize = 8;

/// The upstream of a proxy, and the URL with the proxy's port.
fn upstream(url: &str) -> String {
    let port = url.rsplit_once(':').unwrap().1.split_once('/').unwrap().0;
    format!("127.0.0.1:{port}")
}

fn through(url: &str, port: u16) -> String {
    let (before, rest) = url.rsplit_once(':').unwrap();
    let (_, path) = rest.split_once('/').unwrap();
    format!("{before}:{port}/{path}?connect_timeout=1")
}

/// A world whose servers are behind `gate`, with days that are due.
async fn behind_a_gate() -> (World, Gate, ManualClock) {
    let database = Database::create().await;
    let gate = Gate::start(upstream(&database.url()));
    let url = through(&database.url(), gate.port);
    let clock = clock("2026-01-05T12:00:00Z");
    let setup = Setup { clock: Arc::new(clock.clone()), ..Setup::default() };
    let mut world = World::at(Urls { source: url, target: None }, setup).await;
    // The test itself bypasses the gate.
    world.pool = database.pool().await;
    world.target = world.pool.clone();
    world.sql(&format!("{EVENTS}; {}; ANALYZE events", random_events(DAYS, 40))).await;
    world.init().await.unwrap();
    (world, gate, clock)
}

async fn tick(worker: &Worker) -> Result<TickReport, WorkError> {
    let now = worker.clock.now();
    tick::run(worker, now, Deadline::after(&*worker.clock, Duration::from_secs(60)), None).await
}

/// Ticks for ten minutes, in which no work succeeds and no failure counts.
async fn ten_minutes(world: &World, clock: &ManualClock, word: &str) {
    for _ in 0..TICKS {
        clock.advance(EVERY);
        let said = match tick(&world.worker).await {
            Ok(report) => {
                assert!(report.slices.iter().all(|slice| !slice.is_success()), "{report:?}");
                assert_eq!(report.severity(), Some(Severity::Unreachable), "{report:?}");
                serde_json::to_string(&report).unwrap()
            }
            Err(error) => error.to_string(),
        };
        assert!(said.contains(word), "`{word}` is not in {said}");
    }
}

/// After the trouble, the next ticks complete everything.
async fn all_good(world: &World, clock: &ManualClock) {
    let found = world.worker.checkpoints.range("daily", instant("2026-01-01"), clock.now()).await;
    for checkpoint in found.unwrap() {
        assert_eq!(checkpoint.failures, 0, "{checkpoint:?}");
    }
    for _ in 0..2 {
        clock.advance(EVERY);
        let report = tick(&world.worker).await.unwrap();
        assert_eq!(report.severity(), None, "{report:?}");
    }
    let plan = standings::of(&world.worker, world.rollup(), clock.now()).await.unwrap().plan;
    assert_eq!(plan.due().count(), 0, "{plan:?}");
    world.assert_rows(&daily_expected("2026-01-05")).await;
}

#[tokio::test]
async fn ten_minutes_of_a_read_only_server_fail_no_slice() {
    let (world, _gate, clock) = behind_a_gate().await;
    let set = |value: &str| {
        format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = {value}', \
             current_database()); END $$"
        )
    };
    world.sql(&set("on")).await;
    world.worker.close().await;
    ten_minutes(&world, &clock, "read-only transaction").await;
    // The administrator's own session is read-only as well.
    world.sql(&format!("SET default_transaction_read_only = off; {}", set("off"))).await;
    world.worker.close().await;
    all_good(&world, &clock).await;
}

#[tokio::test]
async fn ten_minutes_without_a_free_connection_fail_no_slice() {
    let (world, gate, clock) = behind_a_gate().await;
    world.worker.close().await;
    gate.refuse(Some(Refusal::Error("53300", "sorry, too many clients already")));
    ten_minutes(&world, &clock, "too many clients already").await;
    gate.refuse(None);
    all_good(&world, &clock).await;
}

#[tokio::test]
async fn ten_minutes_of_a_recovering_server_fail_no_slice() {
    let (world, gate, clock) = behind_a_gate().await;
    world.worker.close().await;
    gate.refuse(Some(Refusal::Error("57P03", "the database system is starting up")));
    ten_minutes(&world, &clock, "the database system is starting up").await;
    gate.refuse(None);
    all_good(&world, &clock).await;
}

#[tokio::test]
async fn ten_minutes_without_dynamodb_fail_no_slice() {
    let (world, _gate, clock) = behind_a_gate().await;
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("checkpoints.db");
    let dynamo = EmbeddedDynamo::start(Some(&file)).await.unwrap();
    let at = |dynamo: &EmbeddedDynamo| {
        let checkpoints = checkpoints_in(dynamo.client(), "tallymark");
        let config = config(&world.urls, "", DAILY);
        Worker::with_checkpoints(config, checkpoints, Arc::new(clock.clone()), 4).unwrap()
    };
    let worker = at(&dynamo);
    worker.checkpoints.create_table().await.unwrap();
    init(&worker).await.unwrap();
    drop(dynamo);
    let away = World { worker, urls: world.urls.clone(), ..world };
    ten_minutes(&away, &clock, "dynamodb could not be reached").await;
    // It is back at another address.
    let dynamo = EmbeddedDynamo::start(Some(&file)).await.unwrap();
    let checkpoints = checkpoints_in(dynamo.client(), "tallymark");
    let config = config(&away.urls, "", DAILY);
    let worker = Worker::with_checkpoints(config, checkpoints, Arc::new(clock.clone()), 4).unwrap();
    all_good(&World { worker, ..away }, &clock).await;
}

/// As `/dev/full` does.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn ten_minutes_of_a_full_disk_fail_no_slice() {
    let (world, _gate, clock) = behind_a_gate().await;
    let [path, kept] = crate::faults::filled(&world.urls.source, "stats.daily").await;
    ten_minutes(&world, &clock, "No space left on device").await;
    std::fs::rename(kept, path).unwrap();
    all_good(&world, &clock).await;
}

/// Reports the server's message about a refused connection instead of a timeout.
#[tokio::test]
async fn a_refused_connection_is_told_in_the_servers_words() {
    let database = Database::create().await;
    let gate = Gate::start(upstream(&database.url()));
    let url = through(&database.url(), gate.port);
    let begin = async |url: &str| {
        let urls = Urls { source: url.to_owned(), target: None };
        let db = Db::new(&config(&urls, "", DAILY).source.url, Side::Source, 2).unwrap();
        db.begin(Access::ReadOnly, Duration::from_secs(60), "test").await.unwrap_err()
    };
    gate.refuse(Some(Refusal::Error("53300", "sorry, too many clients already")));
    let error = begin(&url).await;
    assert_eq!(error.kind(), DbErrorKind::Unreachable);
    assert!(error.to_string().ends_with(": sorry, too many clients already"), "{error}");
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let error = begin(&through(&database.url(), closed)).await;
    assert!(error.to_string().contains("Connection refused"), "{error}");
    // A server that accepts the connection and stays silent is waited for as long as a connection
    // may take.
    gate.refuse(Some(Refusal::Silence("BEGIN")));
    let error = tokio::time::timeout(Duration::from_secs(60), begin(&url)).await.expect("an end");
    assert!(error.to_string().contains("within 1.0 s: no answer in time"), "{error}");
}

/// A silent server is waited for at most as long as a tick may take, and only once.
#[tokio::test]
async fn a_server_out_of_reach_is_asked_once_a_tick() {
    let rollups: String =
        (0..5).map(|n| DAILY.replace("\"daily\"", &format!("\"daily_{n}\""))).collect();
    let database = Database::create().await;
    let gate = Gate::start(upstream(&database.url()));
    let urls = Urls { source: through(&database.url(), gate.port), target: None };
    let clock = clock("2026-01-05T12:00:00Z");
    let setup = Setup { clock: Arc::new(clock.clone()), rollups: &rollups, ..Setup::default() };
    let world = World::at(urls, setup).await;
    world.sql(&format!("{EVENTS}; {}", random_events(DAYS, 40))).await;
    world.init().await.unwrap();
    for refusal in
        [Refusal::Silence("BEGIN"), Refusal::Error("28P01", "password authentication failed")]
    {
        world.worker.close().await;
        gate.refuse(Some(refusal));
        gate.asked();
        let report = tick(&world.worker).await.unwrap();
        assert_eq!(report.problems.len(), 5, "{report:?}");
        assert_eq!(report.severity(), Some(Severity::Unreachable));
        assert_eq!(gate.asked(), 1, "connections for five rollups: {report:?}");
        // The next tick tries again.
        tick(&world.worker).await.unwrap();
        assert_eq!(gate.asked(), 1);
        gate.refuse(None);
    }
    world.worker.close().await;
    assert_eq!(tick(&world.worker).await.unwrap().severity(), None);
}

/// A server that falls silent at any point of a tick does not hold the tick past its deadline.
#[tokio::test]
async fn a_tick_ends_at_its_deadline_whoever_is_silent() {
    for said in ["clock_timestamp", "pg_current_snapshot", "WITH __diff AS", "COMMIT"] {
        let (world, gate, clock) = behind_a_gate().await;
        world.worker.close().await;
        gate.refuse(Some(Refusal::Silence(said)));
        let watch = Stopwatch::start();
        let deadline = Deadline::after(&*world.worker.clock, Duration::from_secs(3));
        let tick = tick::run(&world.worker, clock.now(), deadline, None);
        let report = tokio::time::timeout(Duration::from_secs(60), tick).await.expect("an end");
        let report = report.unwrap();
        assert!(report.slices.iter().all(|slice| !slice.is_success()), "{said}: {report:?}");
        assert!(!report.slices.is_empty() || !report.problems.is_empty(), "{said}: {report:?}");
        assert!(watch.elapsed() < Duration::from_secs(60), "{said}");
        gate.refuse(None);
    }
}

/// Handles `event` within three seconds. The test waits at most a minute for the end.
#[cfg(feature = "lambda")]
async fn answer(
    worker: &Worker,
    event: serde_json::Value,
) -> Result<serde_json::Value, tallymark::lambda::HandleError> {
    let deadline = Deadline::after(&*worker.clock, Duration::from_secs(3));
    let invocation = tallymark::lambda::Invocation {
        deadline,
        trace: None,
        emit: &|_| (),
        commands: &tallymark::cli::remote::answer,
    };
    let answer = tallymark::lambda::handle(worker, event, invocation);
    tokio::time::timeout(Duration::from_secs(60), answer).await.expect("an answer")
}

#[cfg(feature = "lambda")]
fn events() -> [serde_json::Value; 4] {
    use serde_json::json;
    let start = "2026-01-02T00:00:00Z";
    [
        json!({ "trigger": "schedule", "time": "2026-01-05T12:00:00Z" }),
        json!({ "trigger": "slice", "rollup": "daily", "start": start }),
        json!({ "trigger": "replay", "rollup": "daily", "start": start, "reason": "a test" }),
        json!({ "trigger": "backfill", "rollup": "daily", "from": "2026-01-01" }),
    ]
}

/// The function answers before its time is up, whichever server is silent at whichever point.
#[cfg(feature = "lambda")]
#[tokio::test]
async fn an_event_is_answered_by_its_deadline_whoever_is_silent() {
    let (world, gate, clock) = behind_a_gate().await;
    for said in ["BEGIN", "FROM pg_catalog", "clock_timestamp"] {
        for event in events() {
            // A process with empty caches.
            let fresh = world.changed("", DAILY, Arc::new(clock.clone()));
            gate.refuse(Some(Refusal::Silence(said)));
            let said_back = match answer(&fresh.worker, event.clone()).await {
                Ok(answer) => answer.to_string(),
                Err(error) => error.to_string(),
            };
            assert!(!said_back.contains("\"succeeded\":1"), "{said}, {event}: {said_back}");
            gate.refuse(None);
        }
    }
    // And DynamoDB.
    let dynamo = crate::support::world::dynamo().await;
    let proxy =
        crate::support::proxy::Unreliable::slow(&dynamo.endpoint(), Duration::from_secs(90));
    let client = aws_sdk_dynamodb::Client::from_conf(
        dynamo.client().config().to_builder().endpoint_url(&proxy.endpoint).build(),
    );
    let checkpoints = checkpoints_in(client, world.worker.checkpoints.table());
    let config = config(&world.urls, "", DAILY);
    let worker = Worker::with_checkpoints(config, checkpoints, Arc::new(clock.clone()), 4).unwrap();
    for event in events() {
        let said_back = format!("{:?}", answer(&worker, event.clone()).await);
        assert!(!said_back.contains("\"outcome\": String(\"succeeded\")"), "{event}: {said_back}");
    }
}

/// A server quotes the value that it refuses. The response shortens 24 values of a megabyte each.
#[cfg(feature = "lambda")]
#[tokio::test]
async fn a_value_of_megabytes_in_an_error_is_cut() {
    let rollup = "[[rollup]]\nname = \"daily\"\nfrom = \"events\"\ntime = \"created_at\"\n\
        start = \"2026-01-01\"\nslice = \"1 hour\"\nwhere = \"kind::int > 0\"\n\
        measures = { events = \"count\" }\n";
    let rows = "INSERT INTO events (created_at, kind) SELECT '2026-01-01Z'::timestamptz + n * interval '1 hour', \
        'é' || repeat('é', 500000) FROM generate_series(0, 23) n";
    let clock = clock("2026-01-02T01:00:00Z");
    let setup = Setup { rollups: rollup, clock: Arc::new(clock), ..Setup::default() };
    let world = World::new(&format!("{EVENTS}; {rows}"), setup).await;
    let event = serde_json::json!({ "trigger": "schedule", "time": "2026-01-02T01:00:00Z" });
    let deadline = Deadline::after(&*world.worker.clock, Duration::from_secs(60));
    let invocation = tallymark::lambda::Invocation {
        deadline,
        trace: None,
        emit: &|_| (),
        commands: &tallymark::cli::remote::answer,
    };
    let answer = tallymark::lambda::handle(&world.worker, event, invocation).await.unwrap();
    let slices = answer["slices"].as_array().unwrap();
    assert_eq!((slices.len(), &answer["outcomes"]["failed"]), (24, &24.into()), "{answer}");
    for slice in slices {
        let reason = slice["reason"].as_str().unwrap();
        assert!(reason.contains("invalid input syntax for type integer: \"éé"), "{reason}");
        assert!(reason.ends_with(" bytes)") && reason.len() < 2200, "{} bytes", reason.len());
    }
    assert!(answer.to_string().len() < 100_000);
    let failed = world.checkpoint("2026-01-01T05:00:00Z").await.unwrap();
    assert!(failed.error.unwrap().len() < 2200);
}
