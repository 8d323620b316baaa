//! The table of restores in docs/RUNBOOK.md: source, target and checkpoints restored to an earlier
//! moment or lost, each and in pairs, with each `late`. After `repair` and a tick, either every row
//! is right, or the command has asked for `verify --repair`. After that every row is right.
//!
//! Contents are restored within the tables, as a physical restore does, so the catalogue shows
//! nothing. A restore from a dump, which the catalogue shows, is tested with the identity.

use std::collections::HashMap;
use std::sync::Arc;

use aws_sdk_dynamodb::types::AttributeValue;
use tallymark::check::repair::{self, RepairReport};
use tallymark::check::verify;
use tallymark::model::clock::{Clock as _, Deadline, ManualClock};
use tallymark::tick::{self};
use tallymark::work::report::Outcome;
use tallymark::work::report::RollupProblem;

use crate::support::share;
use crate::support::world::{
    BUDGET, DAILY, EVENTS, Setup, World, clock, daily_expected, dynamo, install_capture,
    random_events, records,
};

/// The part that is restored to the backup's moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Source,
    Target,
    Checkpoints,
    /// The checkpoint table is deleted and created again.
    NoCheckpoints,
}

use Part::{Checkpoints, NoCheckpoints, Source, Target};

/// The rows of the table.
const RESTORES: [&[Part]; 9] = [
    &[Source],
    &[Target],
    &[Checkpoints],
    &[NoCheckpoints],
    &[Source, Target],
    &[Source, Checkpoints],
    &[Target, Checkpoints],
    &[Target, NoCheckpoints],
    &[Source, Target, Checkpoints],
];

const LATES: [&str; 4] = [
    "late = \"grace\"",
    "late = \"clock\"",
    "late = { column = \"updated_at\" }",
    "late = \"capture\"",
];

const TARGET_TABLES: [&str; 4] =
    ["stats.daily", "tallymark.slice", "tallymark.progress", "tallymark.stage_daily"];

type Items = Vec<HashMap<String, AttributeValue>>;

struct Restorable {
    world: World,
    clock: Arc<ManualClock>,
    backup: Items,
}

impl Restorable {
    /// Three computed days with a backup, then a late row, a change that a replay counts, and a
    /// further day.
    async fn new(late: &str) -> Self {
        let clock = Arc::new(clock("2026-01-04T12:00:00Z"));
        let sql = format!(
            "{EVENTS}; {}; ALTER TABLE events ADD updated_at timestamptz NOT NULL \
             DEFAULT '2026-01-04Z'; CREATE INDEX ON events (updated_at)",
            random_events(5, 40)
        );
        let rollups = DAILY.replace("bucket =", &format!("{late}\nbucket ="));
        let (now, across) = (Arc::clone(&clock), true);
        let setup = Setup { rollups: &rollups, across, clock: now, ..Setup::default() };
        let world = World::new(&sql, setup).await;
        if late.contains("capture") {
            install_capture(&world.worker).await;
        }
        assert_eq!(world.backfill("2026-01-04", false).await.succeeded, 3);
        let backup = items(&world).await;
        world.sql("CREATE SCHEMA backup; CREATE TABLE backup.events AS TABLE events").await;
        world.target_sql("CREATE SCHEMA backup").await;
        for (place, table) in TARGET_TABLES.iter().enumerate() {
            world.target_sql(&format!("CREATE TABLE backup.t{place} AS TABLE {table}")).await;
        }
        let it = Self { world, clock, backup };
        it.live_on().await;
        it
    }

    async fn live_on(&self) {
        let late = "INSERT INTO events (created_at, kind, amount, updated_at) \
                    VALUES ('2026-01-02 10:00Z', 'buy', 7, clock_timestamp() - interval '1 hour')";
        self.world.sql(late).await;
        self.tick().await;
        // By `grace` and `clock` only an operator notices it.
        self.world.reopen("2026-01-02").await;
        self.world
            .sql(
                "UPDATE events SET amount = amount + 1, updated_at = clock_timestamp() \
                        - interval '1 hour' WHERE created_at < '2026-01-02Z'",
            )
            .await;
        self.world.reopen("2026-01-01").await;
        self.clock.advance(std::time::Duration::from_secs(24 * 3600));
        self.tick().await;
        self.world.assert_rows(&daily_expected("2026-01-05")).await;
    }

    async fn tick(&self) {
        // Another process, with empty caches.
        let world = self.world.changed("", &self.rollups(), self.clock.clone());
        let deadline = Deadline::after(&*self.clock, BUDGET);
        let report = tick::run(&world.worker, self.clock.now(), deadline, None).await.unwrap();
        world.worker.close().await;
        // Rows that `repair` called unproven are reported until they are verified.
        let is_told = |problem: &RollupProblem| problem.error.contains("is unproven");
        assert!(report.problems.iter().all(is_told), "{report:?}");
        let is_good = |outcome| matches!(outcome, Outcome::Succeeded | Outcome::Stale);
        assert!(report.slices.iter().all(|slice| is_good(slice.outcome)), "{report:?}");
    }

    fn rollups(&self) -> String {
        let late = match &self.world.rollup().late {
            tallymark::model::rollup::Late::Grace => LATES[0],
            tallymark::model::rollup::Late::Clock => LATES[1],
            tallymark::model::rollup::Late::Column(_) => LATES[2],
            tallymark::model::rollup::Late::Capture => LATES[3],
        };
        DAILY.replace("bucket =", &format!("{late}\nbucket ="))
    }

    async fn restore(&self, part: Part) {
        match part {
            Source => {
                // Like the restore of a dump, in which no trigger fires.
                self.world
                    .sql(
                        "BEGIN; SET LOCAL session_replication_role = replica; DELETE FROM events; \
                          INSERT INTO events OVERRIDING SYSTEM VALUE TABLE backup.events; COMMIT",
                    )
                    .await;
            }
            Target => {
                for (place, table) in TARGET_TABLES.iter().enumerate() {
                    let back =
                        format!("TRUNCATE {table}; INSERT INTO {table} TABLE backup.t{place}");
                    self.world.target_sql(&back).await;
                }
            }
            Checkpoints | NoCheckpoints => {
                let (client, table) = (dynamo().await.client(), self.table());
                for item in items(&self.world).await {
                    let key = item.into_iter().filter(|(name, _)| name == "pk" || name == "sk");
                    let delete = client.delete_item().table_name(&table);
                    delete.set_key(Some(key.collect())).send().await.unwrap();
                }
                for item in self.backup.iter().filter(|_| part == Checkpoints) {
                    let put = client.put_item().table_name(&table).set_item(Some(item.clone()));
                    put.send().await.unwrap();
                }
            }
        }
    }

    fn table(&self) -> String {
        self.world.worker.checkpoints.table().to_owned()
    }

    async fn repair(&self) -> RepairReport {
        let world = self.world.changed("", &self.rollups(), self.clock.clone());
        let report = repair::run(&world.worker, world.rollup(), false).await.unwrap();
        world.worker.close().await;
        report
    }

    async fn is_right(&self) -> bool {
        let expected = records(&self.world.pool, &daily_expected("2026-01-05")).await;
        self.world.rows().await == expected
    }

    /// Does the same as `verify --repair`.
    async fn verify_and_repair(&self) {
        for day in ["2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"] {
            let slice = self.world.slice(day);
            let worker = &self.world.worker;
            let found =
                verify::verify_slice(worker, self.world.rollup(), slice, BUDGET, 1).await.unwrap();
            if found.differences > 0 {
                assert!(self.world.replay(day).await.is_success(), "{day}");
            }
        }
    }
}

async fn items(world: &World) -> Items {
    let scan = dynamo().await.client().scan().table_name(world.worker.checkpoints.table());
    scan.consistent_read(true).send().await.unwrap().items().to_vec()
}

/// Whether the runbook's table says that `repair` and a tick are enough.
fn is_exact(parts: &[Part]) -> bool {
    let alone = matches!(parts, [Target] | [Checkpoints] | [NoCheckpoints]);
    alone || matches!(parts, [Source, Target] | [Source, Target, Checkpoints])
}

async fn restores_with(way: usize) {
    let late = LATES[way];
    for (nth, parts) in RESTORES.into_iter().enumerate() {
        let (cell, of) = (nth * LATES.len() + way, RESTORES.len() * LATES.len());
        if !share::is_drawn("restores", cell, of, of / 4) {
            continue;
        }
        let it = Restorable::new(late).await;
        for part in parts {
            it.restore(*part).await;
        }
        let report = it.repair().await;
        it.tick().await;
        it.tick().await;
        let is_right = it.is_right().await;
        assert!(is_right || !is_exact(parts), "{parts:?}, {late}: {report:?}");
        // Lost marks and change times are reported.
        let lost = parts.iter().any(|part| matches!(part, Checkpoints | NoCheckpoints));
        let must_tell = lost
            && !parts.contains(&Target)
            && (late.contains("column") || late.contains("capture"));
        assert!(!must_tell || report.unproven.is_some(), "{parts:?}, {late}: {report:?}");
        it.verify_and_repair().await;
        assert!(it.is_right().await, "{parts:?}, {late}, after verify --repair");
        it.world.worker.close().await;
        it.world.pool.close().await;
        it.world.target.close().await;
        println!("{parts:?}, {late}: right by itself {is_right}, unproven {:?}", report.unproven);
    }
}

#[tokio::test]
async fn what_is_restored_is_made_right_or_told_with_grace() {
    restores_with(0).await;
}

#[tokio::test]
async fn what_is_restored_is_made_right_or_told_with_clock() {
    restores_with(1).await;
}

#[tokio::test]
async fn what_is_restored_is_made_right_or_told_with_a_column() {
    restores_with(2).await;
}

#[tokio::test]
async fn what_is_restored_is_made_right_or_told_with_capture() {
    restores_with(3).await;
}
