//! Repair: checkpoints that were lost or are older than the markers follow the markers again.
//! Checkpoints newer than a marker stay. A tick afterwards does the remaining work.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{DateTime, Utc};
use tallymark::check::repair::{self, RepairReport};
use tallymark::checkpoint::{Checkpoint, Claim, Lease, State, Yield};
use tallymark::model::clock::{Clock as _, Deadline, ManualClock};
use tallymark::source::SliceJob;
use tallymark::target::{Chunk, StatementOptions, TargetError};
use tallymark::tick;
use tallymark::work::ready;
use tallymark::work::report::Outcome;

use crate::support::world::{
    BUDGET, DAILY, EVENTS, Setup, World, clock, daily_expected, dynamo, instant, random_events,
};

/// Five days that have ended, and a clock that stands in the sixth.
async fn computed() -> (World, Arc<ManualClock>) {
    let clock = Arc::new(clock("2026-01-06T12:00:00Z"));
    let sql = format!("{EVENTS}; {}", random_events(5, 60));
    let setup = Setup { clock: clock.clone(), ..Setup::default() };
    let world = World::new(&sql, setup).await;
    assert_eq!(world.backfill("2026-01-06", false).await.succeeded, 5);
    (world, clock)
}

const DAYS: [&str; 5] = ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04", "2026-01-05"];

fn starts(days: &[&str]) -> Vec<DateTime<Utc>> {
    days.iter().map(|day| instant(day)).collect()
}

/// The same databases after all checkpoints were lost.
async fn without_checkpoints(world: &World) -> World {
    let checkpoints = &world.worker.checkpoints;
    for day in DAYS {
        delete(world, day).await;
    }
    assert!(
        checkpoints
            .range("daily", instant(DAYS[0]), world.worker.clock.now())
            .await
            .unwrap()
            .is_empty()
    );
    delete(world, "watermark").await;
    world.redefined(DAILY)
}

/// The key of a day's checkpoint, or of the watermark.
fn key(item: &str) -> HashMap<String, AttributeValue> {
    let sk = if item == "watermark" { item.to_owned() } else { format!("{item}T00:00:00Z") };
    [("pk", "daily".to_owned()), ("sk", sk)]
        .map(|(name, value)| (name.to_owned(), AttributeValue::S(value)))
        .into()
}

/// Deletes one item, as an operator at the console would.
async fn delete(world: &World, item: &str) {
    let delete = dynamo().await.client().delete_item().set_key(Some(key(item)));
    delete.table_name(world.worker.checkpoints.table()).send().await.unwrap();
}

/// Repairs after a dry run, which must announce the same and change nothing.
async fn repair(world: &World) -> RepairReport {
    let before = checkpoints(world).await;
    let promised = repair::run(&world.worker, world.rollup(), true).await.unwrap();
    assert_eq!(checkpoints(world).await, before);
    let repaired = repair::run(&world.worker, world.rollup(), false).await.unwrap();
    assert_eq!(repaired, promised);
    let again = repair::run(&world.worker, world.rollup(), false).await.unwrap();
    assert!(again.restored.is_empty() && again.reopened.is_empty(), "{again:?}");
    repaired
}

async fn checkpoints(world: &World) -> Vec<Checkpoint> {
    let now = world.worker.clock.now();
    world.worker.checkpoints.range("daily", instant(DAYS[0]), now).await.unwrap()
}

/// States and attempts by day.
async fn standing(world: &World) -> BTreeMap<String, (State, u64)> {
    let day = |found: &Checkpoint| found.slice_start.format("%Y-%m-%d").to_string();
    checkpoints(world).await.iter().map(|it| (day(it), (it.state, it.attempt))).collect()
}

/// The work of a tick, newest first, with the attempts. All of it must succeed.
async fn tick(world: &World) -> Vec<(DateTime<Utc>, u64)> {
    let clock = &world.worker.clock;
    let deadline = Deadline::after(&**clock, BUDGET);
    let report = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
    assert!(report.problems.is_empty() && report.left == 0, "{report:?}");
    assert!(report.slices.iter().all(|it| it.outcome == Outcome::Succeeded), "{report:?}");
    report.slices.iter().map(|it| (it.start, it.attempt.unwrap())).collect()
}

async fn claim(world: &World, day: &str, seconds: u64) -> Lease {
    let now = world.worker.clock.now();
    let claim = Claim {
        rollup: "daily",
        slice_start: instant(day),
        definition: &world.rollup().definition(),
        now,
        deadline: now + Duration::from_secs(seconds),
    };
    world.worker.checkpoints.claim(&claim).await.unwrap()
}

#[tokio::test]
async fn checkpoints_lost_wholly_come_back_with_their_numbers() {
    let (world, clock) = computed().await;
    world.replay("2026-01-02").await;
    world.replay("2026-01-04").await;
    let before = checkpoints(&world).await;
    let world = without_checkpoints(&world).await;
    let repaired = repair(&world).await;
    assert_eq!((repaired.markers, &repaired.restored), (5, &starts(&DAYS)));
    assert!(repaired.reopened.is_empty());
    let facts = |it: &Checkpoint| {
        let outcome = it.outcome.clone().unwrap();
        (
            it.slice_start,
            it.state,
            it.attempt,
            it.definition.clone(),
            outcome.rows_read,
            outcome.groups,
        )
    };
    let after: Vec<_> = checkpoints(&world).await.iter().map(facts).collect();
    assert_eq!(after, before.iter().map(facts).collect::<Vec<_>>());
    assert_eq!(tick(&world).await, []);
    assert!(world.worker.checkpoints.unfinished("daily").await.unwrap().is_empty());

    // The numbering continues, so no attempt is fenced by an earlier marker.
    world.sql("DELETE FROM events WHERE kind = 'buy'").await;
    let report = world.replay("2026-01-02").await;
    assert_eq!((report.outcome, report.attempt), (Outcome::Succeeded, Some(3)));
    let forced = world.backfill("2026-01-06", true).await;
    assert_eq!((forced.succeeded, forced.refused.len()), (5, 0));
    world.verify_all("2026-01-06").await;
    clock.advance(Duration::from_secs(24 * 60 * 60));
    assert_eq!(tick(&world).await, [(instant("2026-01-06"), 1)]);
}

/// Two are gone. One was tried again before the repair, and was fenced.
#[tokio::test]
async fn checkpoints_lost_in_part_come_back_and_a_fenced_attempt_is_forgiven() {
    let (world, _clock) = computed().await;
    for day in ["2026-01-02", "2026-01-03", "2026-01-03"] {
        world.replay(day).await;
    }
    delete(&world, "2026-01-02").await;
    delete(&world, "2026-01-03").await;
    let fenced = world.run("2026-01-03").await;
    assert_eq!((fenced.outcome, fenced.attempt), (Outcome::Fenced, Some(1)));
    let checkpoint = world.checkpoint("2026-01-03").await.unwrap();
    assert!(checkpoint.error.unwrap().contains("tallymark repair"));
    let kept = checkpoints(&world).await;
    let repaired = repair(&world).await;
    assert_eq!(repaired.restored, starts(&["2026-01-02", "2026-01-03"]));
    let found = checkpoints(&world).await;
    assert!(kept.iter().filter(|it| it.state == State::Succeeded).all(|it| found.contains(it)));
    let standing = standing(&world).await;
    assert_eq!(
        (standing["2026-01-02"], standing["2026-01-03"]),
        ((State::Succeeded, 2), (State::Succeeded, 3))
    );
    assert_eq!(tick(&world).await, []);
    assert_eq!(world.replay("2026-01-03").await.attempt, Some(4));
    world.verify_all("2026-01-06").await;
}

/// A backup was restored. The checkpoint of one day lacks its two newest attempts, and that of
/// another claims a success that the target never had.
#[tokio::test]
async fn checkpoints_older_or_newer_than_the_markers_are_put_right() {
    let (world, _clock) = computed().await;
    let (client, table) = (dynamo().await.client(), world.worker.checkpoints.table());
    let old = client.get_item().table_name(table).set_key(Some(key("2026-01-03"))).send();
    let old = old.await.unwrap().item;
    world.replay("2026-01-03").await;
    world.sql("UPDATE events SET amount = amount + 1 WHERE created_at < '2026-01-04Z'").await;
    world.replay("2026-01-03").await;
    client.put_item().table_name(table).set_item(old).send().await.unwrap();
    assert_eq!(standing(&world).await["2026-01-03"], (State::Succeeded, 1));
    // The target was restored too, to a time before the fifth day.
    world
        .target_sql(
            "DELETE FROM tallymark.slice WHERE slice_start = '2026-01-05Z'; \
        DELETE FROM stats.daily WHERE bucket >= '2026-01-05Z'",
        )
        .await;
    let repaired = repair(&world).await;
    assert_eq!((repaired.markers, repaired.restored), (4, starts(&["2026-01-03"])));
    assert_eq!(repaired.reopened, starts(&["2026-01-05"]));
    assert_eq!(standing(&world).await["2026-01-03"], (State::Succeeded, 3));
    assert_eq!(tick(&world).await, [(instant("2026-01-05"), 2)]);
    let others = world.backfill("2026-01-06", true).await;
    assert_eq!(others.succeeded, 5);
    world.verify_all("2026-01-06").await;
}

#[tokio::test]
async fn a_running_lease_and_a_newer_attempt_are_never_overwritten() {
    let (world, clock) = computed().await;
    for day in ["2026-01-02", "2026-01-03"] {
        world.replay(day).await;
    }
    // After the loss, a worker has started the second day, and another has failed on the fourth.
    let world = without_checkpoints(&world).await;
    let running = claim(&world, "2026-01-02", 60).await;
    for _ in 0..2 {
        let lease = claim(&world, "2026-01-04", 60).await;
        world.worker.checkpoints.yield_(&lease, &Yield::default(), clock.now()).await.unwrap();
    }
    let newer = world.checkpoint("2026-01-04").await.unwrap();
    let mine = world.checkpoint("2026-01-02").await.unwrap();
    let repaired = repair(&world).await;
    assert_eq!(repaired.restored, starts(&["2026-01-01", "2026-01-03", "2026-01-05"]));
    assert_eq!(world.checkpoint("2026-01-02").await.unwrap(), mine);
    assert_eq!(world.checkpoint("2026-01-04").await.unwrap(), newer);
    assert_eq!(running.attempt(), 1);
    // Only slices newer than their marker are still to do. The running attempt will be fenced. Once
    // its lease has ended, repair corrects it.
    assert_eq!(tick(&world).await, [(instant("2026-01-04"), 3)]);
    clock.advance(Duration::from_secs(66));
    assert_eq!(repair(&world).await.restored, starts(&["2026-01-02"]));
    let late = world.worker.checkpoints.fail(&running, "late", true, clock.now()).await;
    assert!(late.is_err());
    assert_eq!(standing(&world).await["2026-01-02"], (State::Succeeded, 2));
    assert_eq!(tick(&world).await, []);
    assert_eq!(world.replay("2026-01-02").await.attempt, Some(3));
    world.verify_all("2026-01-06").await;
}

/// The rows of a lost checkpoint belong to another definition, so they are counted again.
#[tokio::test]
async fn a_definition_that_changed_in_between_makes_the_slice_stale() {
    let (world, _clock) = computed().await;
    delete(&world, "2026-01-02").await;
    delete(&world, "2026-01-05").await;
    let changed = world.redefined(&DAILY.replace("bucket =", "where = \"user_id < 15\"\nbucket ="));
    let repaired = repair(&changed).await;
    assert_eq!(repaired.restored, starts(&["2026-01-02", "2026-01-05"]));
    let found = standing(&changed).await;
    assert_eq!(
        (found["2026-01-02"], found["2026-01-01"]),
        ((State::Stale, 1), (State::Succeeded, 1))
    );
    let reason = changed.checkpoint("2026-01-02").await.unwrap().reason.unwrap();
    assert!(reason.contains("definition has changed"), "{reason}");
    let (second, fifth) = (instant("2026-01-02"), instant("2026-01-05"));
    let ran = tick(&changed).await;
    assert_eq!(ran[..2], [(fifth, 2), (second, 2)], "what is stale comes before what is redefined");
    assert_eq!(ran.len(), 5);
    assert_eq!(tick(&changed).await, []);
    let expected = daily_expected("2026-01-06")
        .replace("FROM events WHERE", "FROM events WHERE user_id < 15 AND");
    changed.assert_rows(&expected).await;
    changed.assert_verified("2026-01-06").await;
}

/// A replay died after it took the marker, and all checkpoints were lost. Only the marker shows the
/// replay, as its data belongs to an older attempt.
#[tokio::test]
async fn an_attempt_that_took_the_marker_and_never_replaced_is_not_taken_for_a_success() {
    let (world, _clock) = computed().await;
    world.sql("DELETE FROM events WHERE kind = 'buy'").await;
    world.reopen("2026-01-03").await;
    let lease = claim(&world, "2026-01-03", 60).await;
    let (rollup, slice) = (world.rollup(), world.slice("2026-01-03"));
    let shape = ready::check(&world.worker, rollup).await.unwrap();
    let job = SliceJob { rollup, shape: &shape, slice, open_until: None };
    world.worker.target.resume(&lease, job, FREE).await.unwrap();
    let world = without_checkpoints(&world).await;
    repair(&world).await;
    assert_eq!(standing(&world).await["2026-01-03"].0, State::Stale);
    assert_eq!(tick(&world).await, [(instant("2026-01-03"), 3)]);
}

/// A first attempt that died while it staged chunks left a marker without data.
#[tokio::test]
async fn a_marker_without_data_is_no_success() {
    let (world, _clock) = computed().await;
    world
        .target_sql(
            "UPDATE tallymark.slice SET replaced_at = NULL, definition = NULL, rows_read = NULL, \
        groups = NULL WHERE slice_start = '2026-01-04Z'; DELETE FROM stats.daily \
        WHERE bucket >= '2026-01-04Z' AND bucket < '2026-01-05Z'",
        )
        .await;
    let world = without_checkpoints(&world).await;
    assert_eq!(repair(&world).await.restored.len(), 5);
    assert_eq!(standing(&world).await["2026-01-04"], (State::Stale, 1));
    assert_eq!(tick(&world).await, [(instant("2026-01-04"), 2)]);
    world.verify_all("2026-01-06").await;
}

/// Found by the soak: sealed slices of another definition were restored as stale, and stayed so, as
/// sealed slices are never recomputed.
#[tokio::test]
async fn sealed_slices_are_restored_as_done() {
    let (world, _) = computed().await;
    let sealed =
        without_checkpoints(&world).await.redefined(&DAILY.replace(
            "bucket =",
            "where = \"kind <> 'test'\"\nseal_before = \"2026-01-03\"\nbucket =",
        ));
    assert_eq!(repair(&sealed).await.restored, starts(&DAYS));
    let states: Vec<_> = standing(&sealed).await.into_values().map(|(state, _)| state).collect();
    let [done, stale] = [State::Succeeded, State::Stale];
    assert_eq!(states, [done, done, stale, stale, stale]);
}

/// The unrestricted options of these tests.
const FREE: StatementOptions<'_> = StatementOptions {
    shrink: None,
    timeout: BUDGET,
    governor: None,
    nap: None,
    last: None,
    coarse: &[],
};

#[tokio::test]
async fn what_was_staged_before_checkpoints_were_lost_is_not_resumed() {
    let (world, _) = computed().await;
    let day = "2026-01-02";
    world.reopen(day).await;
    let lease = claim(&world, day, 30).await;
    let (rollup, slice) = (world.rollup(), world.slice(day));
    let shape = ready::check(&world.worker, rollup).await.unwrap();
    let target = &world.worker.target;
    let job = SliceJob { rollup, shape: &shape, slice, open_until: None };
    let progress = target.resume(&lease, job, FREE).await.unwrap();
    let chunk = Chunk { source: None, lease: &lease, job };
    let noon = instant("2026-01-02T12:00:00Z");
    target.stage_chunk(&chunk, progress, noon, FREE).await.unwrap();
    let now = world.worker.clock.now();
    world.worker.checkpoints.yield_(&lease, &Yield::default(), now).await.unwrap();
    // A late row in the staged range, of which only the checkpoint knows.
    world.sql("INSERT INTO events (created_at, kind) VALUES ('2026-01-02 01:00Z', 'late')").await;
    world.reopen(day).await;
    delete(&world, day).await;
    assert_eq!(repair(&world).await.restored, starts(&[day]));
    assert_eq!(tick(&world).await, [(instant(day), 3)]);
    world.verify_all("2026-01-06").await;
}

#[tokio::test]
async fn an_attempt_of_the_same_number_by_another_owner_is_fenced() {
    let (world, clock) = computed().await;
    let day = "2026-01-02";
    world.reopen(day).await;
    let table = world.worker.checkpoints.table();
    let client = dynamo().await.client();
    let get = client.get_item().table_name(table).set_key(Some(key(day)));
    let backup = get.send().await.unwrap().item.unwrap();
    let one = claim(&world, day, 30).await;
    // The table is restored to the previous state.
    client.put_item().table_name(table).set_item(Some(backup)).send().await.unwrap();
    let other = claim(&world, day, 30).await;
    assert_eq!((one.attempt(), other.attempt()), (2, 2));
    let (rollup, slice, target) = (world.rollup(), world.slice(day), &world.worker.target);
    let shape = ready::check(&world.worker, rollup).await.unwrap();
    let job = SliceJob { rollup, shape: &shape, slice, open_until: None };
    target.replace_from_source(&one, job, FREE).await.unwrap();
    let late = target.replace_from_source(&other, job, FREE).await;
    assert!(matches!(late, Err(TargetError::Fenced { mine: 2, newest: 2 })), "{late:?}");
    // The one that holds the marker continues.
    target.replace_from_source(&one, job, FREE).await.unwrap();
    clock.advance(Duration::from_secs(60));
    assert_eq!(repair(&world).await.restored, starts(&[day]));
    tick(&world).await;
    world.verify_all("2026-01-06").await;
}

#[tokio::test]
async fn a_target_that_another_installation_took_over_meanwhile_is_not_written() {
    let (world, _) = computed().await;
    world.target_sql("UPDATE tallymark.rollup SET installation = 'another'").await;
    world.sql("DELETE FROM events").await;
    let before = world.rows().await;
    let report = world.replay("2026-01-02").await;
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.hint.unwrap().contains("tallymark check"));
    assert_eq!(world.rows().await, before);
}
