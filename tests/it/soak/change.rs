//! The operators' actions on an installation over the years. They change its definition, add and
//! drop rollups, purge the source, damage rows, lose checkpoints, and follow the documentation
//! after each.

use std::time::Duration;

use chrono::{DateTime, Datelike as _, TimeDelta, Utc};
use tallymark::check::repair;
use tallymark::check::verify;
use tallymark::checkpoint::State;
use tallymark::clients::db::Access;
use tallymark::manage::drop_rollup;
use tallymark::model::hint::Hinted;
use tallymark::source::changes::capture::Capture;
use tallymark::work::identity;
use tallymark::work::ready;
use tallymark::work::worker::Worker;

use super::life::Life;
use super::scene::{month, partition};
use super::work::{BUDGET, tick};
use crate::support::polls::killed;
use crate::support::world;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// The number of months for which the source keeps its rows.
const RETENTION: u32 = 2;

/// While a new version is rolled out, one worker has the old one for this many ticks.
const OLD_TICKS: usize = 3;

/// ... each of which is killed after this many polls, as both versions recompute the other's
/// slices.
const OLD_POLLS_MAX: usize = 1_000;

/// As `tallymark capture install` does.
pub async fn install_capture(worker: &Worker) {
    let mut shapes = Vec::new();
    for rollup in worker.config.rollups.iter().filter(|rollup| rollup.finer.is_none()) {
        shapes.push((rollup, ready::check(worker, rollup).await.unwrap()));
    }
    let counting: Vec<_> = shapes.iter().map(|(rollup, shape)| (*rollup, &**shape)).collect();
    let capture = Capture::new(&shapes[0].0.from, &counting);
    let mut tx = worker.source.begin(Access::ReadWrite, BUDGET, "install").await.unwrap();
    world::install(&mut tx, &capture).await;
    let standing = capture.standing(&mut tx).await.unwrap();
    assert!(standing.is_whole(), "{standing:?}");
    tx.commit().await.unwrap();
}

impl Life {
    /// The actions at the end of month `number`, when all work is done.
    pub async fn change(&mut self, number: u32) {
        if number % 6 == 2 {
            self.refuse_incompatible().await;
        }
        match number {
            _ if number % 12 == 2 => self.lose_all().await,
            _ if number % 3 == 1 => self.lose_some().await,
            _ => {}
        }
        let before = self.definition.text();
        let has_sealed = number >= RETENTION && number % 3 == 2;
        if has_sealed {
            // Before the seal, while the definition is that of their rows.
            self.seal(number + 1 - RETENTION).await;
        }
        self.redefine(number);
        if self.definition.text() != before {
            let is_gradual = self.random.bool();
            self.deploy(is_gradual).await;
        }
        if has_sealed {
            self.purge(number - RETENTION).await;
        }
        if number % 4 == 2 && self.definition.weekly.is_none() {
            self.drop_weekly().await;
        }
        if number % 9 == 1 {
            self.scene.sql(&format!("TRUNCATE public.{}", partition(number - 1))).await;
            self.count("partitions truncated", 1);
        }
    }

    /// The definition as of month `number`.
    fn redefine(&mut self, number: u32) {
        let definition = &mut self.definition;
        match number {
            1 => definition.counted = Some("buy"),
            2 => definition.has_mean = true,
            4 => definition.has_low = true,
            _ if number % 12 == 11 => {
                let other = if definition.counted == Some("buy") { "view" } else { "buy" };
                definition.counted = Some(other);
            }
            _ => {}
        }
        match number % 4 {
            0 => {
                let some = (self.scene.now() - TimeDelta::days(30)).date_naive();
                let monday = some.week(chrono::Weekday::Mon).first_day();
                definition.weekly = Some(monday.format("%Y-%m-%d").to_string());
            }
            2 => definition.weekly = None,
            _ => {}
        }
    }

    /// Ends all processes and starts new ones, gradually if requested.
    async fn deploy(&mut self, is_gradual: bool) {
        let mut old = std::mem::take(&mut self.workers);
        let last = if is_gradual && self.definition.weekly.is_some() { old.pop() } else { None };
        for worker in old {
            worker.close().await;
        }
        self.start_workers().await;
        self.count("definitions changed", 1);
        if let Some(last) = last {
            for _ in 0..OLD_TICKS {
                self.scene.advance(HOUR).await;
                let polls = self.random.usize(1..OLD_POLLS_MAX);
                let ended = killed(tick(&last), polls).await;
                self.count("ticks by the definition before", 1);
                if let Some(report) = ended {
                    self.take(report);
                }
                let report = tick(&self.workers[0]).await;
                self.take(report);
            }
            last.close().await;
        }
    }

    /// A definition that the tables cannot follow is refused.
    async fn refuse_incompatible(&mut self) {
        let worker = self.scene.worker(&self.definition.incompatible(), 0);
        let refused = world::init(&worker).await.unwrap_err().in_one_line();
        assert!(refused.contains("table \"stats\".\"hourly\""), "{refused}");
        worker.close().await;
        self.count("definitions refused", 1);
    }

    async fn drop_weekly(&mut self) {
        // No worker holds a slice of it any longer.
        self.scene.advance(HOUR).await;
        let worker = &self.workers[0];
        drop_rollup::drop_rollup(worker, "weekly").await.unwrap();
        assert!(worker.checkpoints.items("weekly").await.unwrap().is_empty());
        let left = "SELECT count(*) FROM pg_class WHERE relname IN ('weekly', 'stage_weekly')";
        assert_eq!(self.scene.number(left).await, 0);
        self.count("rollups dropped", 1);
    }

    /// Seals slices that start before month `number`, and records their content.
    async fn seal(&mut self, number: u32) {
        let days = TimeDelta::days(i64::from(month(number).day()) + 14);
        let calendar = &self.workers[0].rollup("monthly").unwrap().calendar;
        let seal = calendar.containing(month(number) + days).start();
        for name in ["hourly", "daily", "monthly"] {
            let from = match self.definition.seal {
                Some(seal) => format!("'{seal}'"),
                None => self.definition.start(name),
            };
            let truth = self.definition.truth(name, &from, &format!("'{seal}'"));
            let columns = self.definition.columns(name);
            self.scene.sql(&format!("INSERT INTO soak.{name} ({columns}) {truth}")).await;
        }
        self.definition.seal = Some(seal);
        self.scene.raise_floor(seal);
        self.count("retentions", 1);
    }

    /// Drops the partitions of all months before `number`.
    async fn purge(&mut self, number: u32) {
        for number in 0..number {
            self.scene.sql(&format!("DROP TABLE IF EXISTS public.{}", partition(number))).await;
        }
    }

    /// Damages the rows of a finished slice: `verify` finds it, and `--repair` recomputes it.
    pub async fn spoil_and_verify(&mut self) {
        // Pauses would hold it back.
        self.go_on().await;
        let worker = &self.workers[0];
        let rollup =
            worker.config.rollups[self.random.usize(..worker.config.rollups.len())].clone();
        let from = rollup.start.max(self.scene.floor());
        let from = from.max(self.scene.now() - TimeDelta::days(70));
        let known = worker.checkpoints.range(&rollup.name, from, self.scene.now()).await.unwrap();
        let done: Vec<_> = known.iter().filter(|it| it.state == State::Succeeded).collect();
        if done.is_empty() {
            return;
        }
        let start = done[self.random.usize(..done.len())].slice_start;
        let Ok(slice) = rollup.calendar.starting(start) else { return };
        let name = &rollup.name;
        let spoil = format!(
            "UPDATE stats.{name} SET events = events + 1000 WHERE bucket >= '{}' AND bucket < '{}'",
            slice.start(),
            slice.end()
        );
        let spoilt = self.scene.changed(&spoil).await;
        if spoilt > 0 {
            let found = verify::verify_slice(worker, &rollup, slice, BUDGET, 3).await.unwrap();
            assert!(found.differences >= 1, "{spoilt} spoilt rows of {slice}");
            let now = worker.clock.now();
            worker.checkpoints.reopen(name, start, "verify", now).await.unwrap();
            self.count("slices spoilt and found by verify", 1);
        }
    }

    /// All checkpoints are lost while no work is under way. `repair` follows the markers.
    async fn lose_all(&mut self) {
        for name in self.definition.names() {
            let checkpoints = &self.workers[0].checkpoints;
            let items = checkpoints.items(name).await.unwrap();
            checkpoints.delete_items(&items).await.unwrap();
            self.count("checkpoints lost", items.len() as u64);
        }
        self.repair().await;
        self.vouch().await;
    }

    /// The checkpoints of two months are lost.
    async fn lose_some(&mut self) {
        let now = self.scene.now();
        self.lose(now - TimeDelta::days(60), now).await;
        self.repair().await;
        self.vouch().await;
    }

    /// Some checkpoints are lost during the work, with their knowledge of late changes. Runs
    /// `repair`, and then `verify --repair` of the lost range.
    pub async fn lose_in_flight(&mut self) {
        let from = self.scene.now() - TimeDelta::days(self.random.i64(5..30));
        let (from, to) = (from.max(self.scene.floor()), from + TimeDelta::days(4));
        self.lose(from, to).await;
        self.repair().await;
        self.go_on().await;
        for rollup in self.workers[0].config.rollups.clone() {
            let worker = &self.workers[0];
            let known = worker.checkpoints.range(&rollup.name, from, to).await.unwrap();
            for checkpoint in known {
                let start = checkpoint.slice_start;
                let slice = rollup.calendar.starting(start).unwrap();
                let found = verify::verify_slice(worker, &rollup, slice, BUDGET, 3).await.unwrap();
                if found.differences > 0 {
                    let now = worker.clock.now();
                    worker.checkpoints.reopen(&rollup.name, start, "verify", now).await.unwrap();
                }
            }
        }
        self.vouch().await;
    }

    /// Deletes the checkpoints of a range, and the watermarks, which are in the same table.
    async fn lose(&mut self, from: DateTime<Utc>, to: DateTime<Utc>) {
        for name in self.definition.names() {
            let known = self.workers[0].checkpoints.range(name, from, to).await.unwrap();
            let starts = known
                .iter()
                .map(|it| it.slice_start.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
            for sk in starts.chain(["watermark".to_owned()]) {
                self.scene.delete_item(name, &sk).await;
            }
            self.count("checkpoints lost", known.len() as u64);
        }
    }

    async fn repair(&mut self) {
        for rollup in &self.workers[0].config.rollups {
            repair::run(&self.workers[0], rollup, false).await.unwrap();
        }
        self.count("repairs", 1);
    }

    /// Clears the unproven mark of every rollup: no work was under way, or the lost range has been
    /// verified.
    async fn vouch(&mut self) {
        for rollup in self.workers[0].config.rollups.clone() {
            if identity::proven(&self.workers[0], &rollup).await.unwrap() {
                self.count("rollups unproven after a repair", 1);
            }
        }
    }
}
