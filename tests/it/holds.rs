//! A worker stops between an answer and a decision that depends on it. Others continue meanwhile,
//! and their work must not be lost.

use std::sync::Arc;
use std::time::Duration;

use tallymark::model::clock::{Clock as _, Deadline, ManualClock};
use tallymark::model::not_now::{Permit, Why};
use tallymark::source::reading::first_row::SourceStart;
use tallymark::tick::{self};
use tallymark::work::due::Standing;
use tallymark::work::ready;
use tallymark::work::report::TickReport;
use tallymark::work::standings;
use tallymark::work::worker::Worker;

use crate::support::Database;
use crate::support::proxy::Holder;
use crate::support::world::{
    BUDGET, DAILY, EVENTS, Setup, Urls, World, checkpoints_in, clock, config, dynamo,
    install_capture, instant,
};

async fn tick(world: &World) -> TickReport {
    let worker = &world.worker;
    let deadline = Deadline::after(&*worker.clock, BUDGET);
    tick::run(worker, worker.clock.now(), deadline, None).await.unwrap()
}

/// A worker whose first request to the store with these bytes waits.
async fn held_at_store(
    world: &World,
    source: &str,
    rollups: &str,
    said: &'static str,
) -> (World, Holder) {
    let endpoint = dynamo().await.endpoint();
    let holder = Holder::start(endpoint.trim_start_matches("http://").to_owned(), said);
    let near = format!("http://127.0.0.1:{}", holder.port);
    let settings = dynamo().await.client().config().to_builder().endpoint_url(near).build();
    let client = aws_sdk_dynamodb::Client::from_conf(settings);
    let checkpoints = checkpoints_in(client, world.worker.checkpoints.table());
    let (urls, clock) = (world.urls.clone(), Arc::clone(&world.worker.clock));
    let config = config(&urls, source, rollups);
    let worker = Worker::with_checkpoints(config, checkpoints, clock, 1).unwrap();
    let (pool, target) = (world.pool.clone(), world.target.clone());
    (World { urls, pool, target, worker }, holder)
}

/// The worker stops between the watermark and the checkpoints. Meanwhile another worker stores a
/// first row that it had read before the late row existed.
#[tokio::test]
async fn a_late_row_before_a_first_row_that_is_remembered_meanwhile_is_counted() {
    let rollups = DAILY.replace("bucket =", "late = \"capture\"\nbucket =");
    let clock = Arc::new(clock("2026-01-12T12:00:00Z"));
    let setup = Setup { rollups: &rollups, clock, ..Setup::default() };
    let world = World::new(EVENTS, setup).await;
    world.sql("INSERT INTO events (created_at) VALUES ('2026-01-10T05:00Z')").await;
    install_capture(&world.worker).await;
    let first_row = Some(instant("2026-01-10T05:00:00Z"));
    let asked = SourceStart { first_row, probed_at: world.worker.clock.now() };
    world.sql("INSERT INTO events (created_at) VALUES ('2026-01-02T05:00Z')").await;

    // The first query of checkpoints.
    let (held, holder) = held_at_store(&world, "", &rollups, "DynamoDB_20120810.Query").await;
    let meanwhile = async {
        holder.holds().await;
        let checkpoints = &world.worker.checkpoints;
        let seen = checkpoints.watermark("daily").await.unwrap();
        assert_eq!(seen.source_start(), None, "nobody has asked yet");
        checkpoints.remember_begin("daily", &seen, asked, None).await.unwrap();
        let begin = checkpoints.watermark("daily").await.unwrap().source_start();
        assert_eq!(begin.unwrap().first_row, first_row);
        holder.let_go();
    };
    tokio::join!(tick(&held), meanwhile);
    tick(&world).await;
    assert_eq!(world.target_value("SELECT count(*) FROM tallymark.mark").await, "0");
    assert_eq!(world.target_value("SELECT sum(events) FROM stats.daily").await, "2");
}

/// The worker stops between its read and the end of the slice. Meanwhile the next slice, with which
/// it has to run again, becomes readable.
#[tokio::test]
async fn a_slice_that_was_read_before_the_next_one_was_ready_runs_again_with_it() {
    let rollups = DAILY.replace("bucket =", "lookback = 1\nbucket =");
    let direct = Database::create().await.url();
    let (holder, source) = Holder::way(&direct, "replaced_at = clock_timestamp()");
    // The slice of 2026-01-02 becomes readable in 10 s.
    let clock = Arc::new(clock("2026-01-03T00:01:50Z"));
    let setup = Setup { rollups: &rollups, clock: Arc::clone(&clock) as _, ..Setup::default() };
    let world = World::at(Urls { source, target: None }, setup).await;
    let pool = sqlx::PgPool::connect(&direct).await.unwrap();
    let row = "INSERT INTO events (created_at) VALUES ('2026-01-01T05:00Z')";
    sqlx::raw_sql(EVENTS).execute(&pool).await.unwrap();
    sqlx::raw_sql(row).execute(&pool).await.unwrap();
    world.init().await.unwrap();
    let meanwhile = async {
        holder.holds().await;
        sqlx::raw_sql(row).execute(&pool).await.unwrap();
        clock.advance(Duration::from_secs(20));
        holder.let_go();
    };
    let (ran, ()) = tokio::join!(world.run("2026-01-01"), meanwhile);
    assert_eq!(ran.completion.unwrap().rows_read, 1);
    let deadline = Deadline::after(&*clock, BUDGET);
    let planned = standings::of(&world.worker, world.rollup(), clock.now()).await.unwrap().plan;
    let first = planned.slices.iter().find(|it| it.slice.start() == instant("2026-01-01"));
    assert_eq!(first.unwrap().standing, Standing::Lookback);
    tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
    assert_eq!(world.target_value("SELECT sum(events) FROM stats.daily").await, "2");
    assert!(tick(&world).await.slices.is_empty(), "once");
}

/// The quiet hours start between the check of the hours and the operators' settings.
#[tokio::test]
async fn no_work_begins_in_quiet_hours_that_began_while_the_store_was_asked() {
    let source = "quiet_hours = \"12:00-13:00\"\ntimezone = \"UTC\"";
    let clock: Arc<ManualClock> = Arc::new(clock("2026-01-03T11:59:50Z"));
    let setup = Setup { source, clock: Arc::clone(&clock) as _, ..Setup::default() };
    let world = World::new(EVENTS, setup).await;
    let (held, holder) = held_at_store(&world, source, DAILY, "control").await;
    let meanwhile = async {
        holder.holds().await;
        clock.advance(Duration::from_secs(20));
        holder.let_go();
    };
    let gate = ready::gate(&held.worker, held.rollup(), None);
    let (allowed, ()) = tokio::join!(gate.may_start(), meanwhile);
    let Permit::NotNow(held) = allowed.unwrap() else { panic!("work may begin") };
    assert!(matches!(held.why, Why::QuietHours(_)), "{held:?}");
}
