//! Definitions that change and databases that are restored in the middle of a history.
//!
//! An operator runs `init` for another definition, which has one more measure and counts fewer rows.
//! From then on its worker ticks, and the one before does too until it starts again. A restore puts back what the tables held at an earlier moment, and then the
//! operator runs `repair`: of the whole database, or of the target alone where the checkpoints are
//! elsewhere.

use std::mem;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use sqlx::{AssertSqlSafe, Executor as _};
use tallymark::check::repair;
use tallymark::model::rollup::Rollup;

use super::World;
use crate::histories::expected;
use crate::histories::rollups;
use crate::support::world::{self, Keeper};

/// The definition changes and databases are restored in one of so many histories, each of which takes several times
/// as long as another one.
const PLAYED_SHARE: u32 = 8;

/// One step in this number comes after a change of each kind.
const STEPS: u32 = 12;

/// How often a world adds a measure, as PostgreSQL counts dropped columns too.
const ADDED_MAX: usize = 1_000;

/// How often a restore looks for workers that were killed and are still at work.
const LOOKS_MAX: usize = 200;

/// The tables of the source.
const SOURCE: [&str; 3] = ["public.events", "tallymark.mark", "tallymark.taken"];

/// The other definition, and what has happened.
pub struct Changes {
    /// The history's own random numbers stay as they are without changes.
    random: Rng,
    is_played: bool,
    other: world::World,
    /// As [`World::every`] of the other definition.
    every: Vec<(String, String)>,
    /// Whether the other definition is the first one.
    is_second: bool,
    /// How often it was.
    added: usize,
    has_backup: bool,
}

impl Changes {
    pub fn new(inner: &world::World, source: &str, text: &str) -> Self {
        let clock = Arc::clone(&inner.worker.clock);
        let mut other = inner.changed(source, &rollups::changed(text), clock);
        other.worker.settle_wait_max = Duration::ZERO;
        let (random, every) = (Rng::new(), Vec::new());
        let (is_played, is_second, has_backup) = (false, false, false);
        Self { random, is_played, other, every, is_second, added: 0, has_backup }
    }

    pub const fn is_played(&self) -> bool {
        self.is_played
    }

    pub const fn other(&self) -> &world::World {
        &self.other
    }

    pub fn other_mut(&mut self) -> &mut world::World {
        &mut self.other
    }

    /// Whether the worker of the definition before comes to work.
    pub fn ticks_by_other(&mut self) -> bool {
        self.is_second && self.random.u32(0..4) == 0
    }
}

/// The rows of `events` that count by this definition.
pub fn counted(rollup: &Rollup, events: &str) -> String {
    match &rollup.filter {
        Some(filter) => format!("(SELECT * FROM {events} WHERE {filter})"),
        None => events.to_owned(),
    }
}

impl World {
    /// Whether this history has changes, and the first definition again.
    pub(super) async fn draw_changes(&mut self, seed: u64) {
        let is_known = self.kind.known.contains(&seed);
        let Some(changes) = &mut self.changes else { return };
        changes.random = Rng::with_seed(!seed);
        changes.is_played = changes.random.u32(0..PLAYED_SHARE) == 0 && !is_known;
        changes.has_backup = false;
        if changes.is_second {
            self.define_first().await;
        }
    }

    /// What happens between two steps, if anything.
    pub(super) async fn change(&mut self) -> Option<String> {
        let changes = self.changes.as_mut().filter(|changes| changes.is_played)?;
        match changes.random.u32(0..STEPS) {
            0 if !changes.is_second && changes.added < ADDED_MAX => Some(self.redefine().await),
            1 => Some(self.back_up().await),
            2 if changes.has_backup => Some(self.restore().await),
            _ => None,
        }
    }

    /// `init` for the second definition, which looks at the table.
    async fn redefine(&mut self) -> String {
        // A session's open TRUNCATE keeps the table.
        let look = "BEGIN; LOCK TABLE public.events IN ACCESS SHARE MODE NOWAIT";
        let is_free = self.control.execute(sqlx::raw_sql(look)).await.is_ok();
        self.control.execute("ROLLBACK").await.unwrap();
        if !is_free {
            return "-- no init: a session keeps the table".to_owned();
        }
        self.exchange();
        self.inner.init().await.unwrap();
        crate::series::make(&self.inner).await;
        if self.every.is_empty() {
            self.every = expected::every(&self.inner).await;
        }
        self.changes.as_mut().unwrap().added += 1;
        "-- init of the second definition".to_owned()
    }

    /// The first definition again, as no history can go back to it.
    async fn define_first(&mut self) {
        self.exchange();
        let tables = self.inner.worker.config.rollups.iter().map(|rollup| {
            let column = rollups::ADDED;
            format!(
                "ALTER TABLE stats.{name} DROP COLUMN {column}; \
                 ALTER TABLE tallymark.stage_{name} DROP COLUMN {column};",
                name = rollup.name
            )
        });
        let sql: String = tables.collect();
        self.control.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        crate::series::make(&self.inner).await;
    }

    fn exchange(&mut self) {
        let changes = self.changes.as_mut().unwrap();
        mem::swap(&mut self.inner, &mut changes.other);
        mem::swap(&mut self.every, &mut changes.every);
        changes.is_second = !changes.is_second;
    }

    /// The tables of the target, with those of the checkpoints if they are there.
    fn tables(&self) -> Vec<String> {
        let own =
            ["slice", "progress", "outstanding", "checked"].map(|it| format!("tallymark.{it}"));
        let mut tables = own.to_vec();
        for Rollup { name, .. } in &self.inner.worker.config.rollups {
            tables.extend([format!("stats.{name}"), format!("tallymark.stage_{name}")]);
        }
        if self.keeper != Keeper::DynamoDb {
            tables.push("tallymark.checkpoint".to_owned());
        }
        tables
    }

    /// Whether `function` has taken or put back the rows of the tables, in one transaction.
    async fn copy(&mut self, function: &str, places: &[String]) -> bool {
        let sql = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL lock_timeout = '10ms'; \
             SELECT backup.{function}('{{{}}}'); COMMIT",
            places.join(",")
        );
        let is_done = self.control.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.is_ok();
        if !is_done {
            self.control.execute("ROLLBACK").await.unwrap();
        }
        is_done
    }

    async fn back_up(&mut self) -> String {
        let places = [SOURCE.map(str::to_owned).to_vec(), self.tables()].concat();
        // A session's open TRUNCATE keeps the table.
        let is_done = self.copy("take", &places).await;
        let changes = self.changes.as_mut().unwrap();
        changes.has_backup |= is_done;
        format!("-- backup: {is_done}")
    }

    /// Everything that was at work ends, the tables go back, and `repair` runs.
    async fn restore(&mut self) -> String {
        for which in 0..2 {
            self.application(which, "ROLLBACK").await;
        }
        if !self.is_alone().await {
            return "-- no restore: a killed worker is still at work".to_owned();
        }
        let changes = self.changes.as_mut().unwrap();
        let has_source = self.keeper != Keeper::DynamoDb || changes.random.u32(0..3) == 0;
        let mut places = self.tables();
        if has_source {
            places.splice(0..0, SOURCE.map(str::to_owned));
        }
        assert!(self.copy("put", &places).await, "the restore was refused");
        self.forget();
        self.read().await;
        for rollup in &self.inner.worker.config.rollups {
            if let Err(error) = repair::run(&self.inner.worker, rollup, false).await {
                panic!("repair of {}: {error}", rollup.name);
            }
        }
        self.read().await;
        format!("-- restored, with the source: {has_source}")
    }

    /// Whether all sessions of workers that were killed have ended their transactions.
    async fn is_alone(&mut self) -> bool {
        let sql = "SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datname = current_database() \
            AND backend_type = 'client backend' AND xact_start IS NOT NULL AND pid <> pg_backend_pid()";
        for _ in 0..LOOKS_MAX {
            let busy: i64 = sqlx::query_scalar(sql).fetch_one(&mut self.control).await.unwrap();
            if busy == 0 {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    /// Both workers start again.
    pub(super) fn forget(&self) {
        let other = self.changes.as_ref().map(|changes| &changes.other.worker);
        for worker in std::iter::once(&self.inner.worker).chain(other) {
            worker.config.rollups.iter().for_each(|rollup| worker.forget(rollup));
        }
    }
}
