//! The steps of a history, and its expected result.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_dynamodb::types::{AttributeValue, DeleteRequest, WriteRequest};
use chrono::{DateTime, TimeDelta, Utc};
use fastrand::Rng;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _, PgConnection};
use tallymark::model::clock::{Clock as _, Deadline, ManualClock};
use tallymark::model::rollup::{Late, Rollup};
use tallymark::tick;
use tallymark::work::due::Standing;
use tallymark::work::empty;
use tallymark::work::slice_run;
use tallymark::work::standings;

use super::expected;
use super::labels;
use super::rollups::{kinds_drawn, partitioned, rollups};
use super::search::Kind;
use crate::support::kinds;
use crate::support::world::{self, Keeper, Setup, clock};
use changes::Changes;
use purge::Purges;
use reader::Seen;
use session::Session;

#[path = "changes.rs"]
mod changes;
#[path = "purge.rs"]
mod purge;
#[path = "reader.rs"]
mod reader;
#[path = "session.rs"]
mod session;

/// Maximum number of the application's steps in one history.
const STEPS_MAX: usize = 24;

/// A tick of these histories usually ends within this many polls, and is killed earlier. A call on
/// PostgreSQL takes several.
const fn polls_max(keeper: Keeper) -> usize {
    if matches!(keeper, Keeper::DynamoDb) { 120 } else { 300 }
}

/// The number of histories after which the dead rows of a database are removed.
const VACUUM_EVERY: usize = 20;

/// Maximum number of ticks until all work is done. A killed worker's lease ends within a few of
/// them.
const QUIET_MAX: usize = 60;

/// The start of every history, at which two slices of an hour have ended.
const BEGIN: &str = "2026-01-01T02:10:00Z";
const BEGIN_MS: i64 = 130 * 60 * 1000;

/// Rows are stamped up to this far ahead of the clock, in the next slice.
const AHEAD_MAX_MS: i64 = 60 * 60_000;

/// The tables of one world in this number are in partitions.
const PARTITIONED_SHARE: u32 = 8;

/// The grace of the rollup by the hour.
const GRACE: TimeDelta = TimeDelta::minutes(2);

/// A database whose clock can be moved, the application's two sessions, and a worker.
pub struct World {
    inner: world::World,
    kind: Kind,
    keeper: Keeper,
    clock: ManualClock,
    now_ms: i64,
    control: PgConnection,
    sessions: [Session; 2],
    /// For each rollup, the columns of the measures of every kind, and their SQL over the source.
    every: Vec<(String, String)>,
    client: aws_sdk_dynamodb::Client,
    /// What a reader has seen in the present history.
    seen: Seen,
    purges: Purges,
    changes: Option<Changes>,
    /// The number of histories so far.
    played: usize,
}

/// An instant by the virtual clock.
fn literal(ms: i64) -> String {
    let at = world::instant("2026-01-01") + TimeDelta::milliseconds(ms);
    format!("'{}'::timestamptz", at.to_rfc3339())
}

impl World {
    pub async fn new(kind: Kind, keeper: Keeper, source: &str, random: &mut Rng) -> Self {
        let clock = clock(BEGIN);
        let sql = format!(
            "{}; DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = virtual, \
             pg_catalog, public', current_database()); END $$",
            include_str!("virtual.sql")
        );
        let drawn = kinds_drawn(random);
        let labels: Vec<_> = drawn.iter().map(|kind| kinds::label(*kind)).collect();
        let open = [random.bool(), random.bool()];
        let is_cut = random.u32(0..PARTITIONED_SHARE) == 0;
        println!("{keeper:?}: measures {}; open {open:?}; cut {is_cut}", labels.join(", "));
        let rollups = rollups(kind, &drawn, open);
        let rollups = if is_cut { partitioned(&rollups) } else { rollups };
        let clocked = Arc::new(clock.clone());
        let setup = Setup { source, rollups: &rollups, clock: clocked, keeper, ..Setup::default() };
        let mut inner = world::World::bare(&sql, setup).await;
        inner.init().await.unwrap();
        crate::series::make(&inner).await;
        inner.worker.settle_wait_max = Duration::ZERO;
        let options: PgConnectOptions = inner.urls.source.parse().unwrap();
        let connect = async |name| options.clone().application_name(name).connect().await.unwrap();
        let session = async |name| Session::new(connect(name).await, name).await;
        let sessions = [session("app_a").await, session("app_b").await];
        let mut control = connect("control").await;
        // The statements of the reader are many and short.
        control.execute("SET jit = off").await.unwrap();
        if kind.changes {
            control.execute(include_str!("restore.sql")).await.unwrap();
        }
        if kind.purges {
            purge::make(&mut control, &inner.worker.config.rollups).await;
        }
        let client = world::dynamo_client().await;
        let every = expected::every(&inner).await;
        let now_ms = BEGIN_MS;
        let changes = kind.changes.then(|| Changes::new(&inner, source, &rollups));
        let (seen, purges) = (Seen::default(), Purges::default());
        let world = Self {
            inner,
            kind,
            keeper,
            clock,
            now_ms,
            control,
            sessions,
            every,
            client,
            seen,
            purges,
            changes,
            played: 0,
        };
        if matches!(world.inner.rollup().late, Late::Capture) {
            world::install_capture(&world.inner.worker).await;
        }
        world
    }

    /// Runs statements beside the application.
    pub async fn sql(&self, sql: &str) {
        self.inner.sql(sql).await;
    }

    /// One history from its seed. Returns the differences at the end, after the steps that led
    /// there.
    pub async fn history(&mut self, seed: u64) -> Option<Vec<String>> {
        self.reset().await;
        let mut random = Rng::with_seed(seed);
        // What `grace` and a spoiled trigger miss, no reader is told.
        let has_reader = self.kind.is_promised;
        self.draw_changes(seed).await;
        self.seen = self.watched(seed);
        if self.kind.purges {
            self.draw_keep(&mut random);
        }
        let mut steps = Vec::new();
        for _ in 0..random.usize(STEPS_MAX / 3..=STEPS_MAX) {
            steps.extend(self.change().await);
            steps.push(self.step(&mut random).await);
            if self.kind.purges {
                self.note_seals().await;
            }
            // An open transaction changes nothing that anybody sees.
            let step = steps.last().unwrap();
            let is_hidden = self.sessions.iter().any(|it| it.is_open && step.starts_with(it.name));
            if has_reader && !is_hidden {
                self.read().await;
            }
        }
        let quiet = self.settle_down(&mut random).await;
        steps.extend(quiet.as_ref().err().cloned());
        if has_reader {
            self.read().await;
        }
        let mut differing = self.differing().await;
        if self.kind.purges && quiet.is_ok() {
            differing.extend(self.misjudged(&mut random).await);
        }
        differing.extend(self.misread());
        if quiet.is_ok() && differing.is_empty() {
            return None;
        }
        steps.extend(differing);
        Some(steps)
    }

    /// Empties the tables and the checkpoints. A new table for each history would take most of the
    /// time.
    async fn reset(&mut self) {
        self.clock = clock(BEGIN);
        self.inner.worker.clock = Arc::new(self.clock.clone());
        if let Some(changes) = &mut self.changes {
            changes.other_mut().worker.clock = Arc::new(self.clock.clone());
        }
        self.now_ms = BEGIN_MS;
        self.show_clock().await;
        if self.keeper == Keeper::DynamoDb {
            self.empty_dynamodb().await;
        }
        // The worker's caches must not claim that it has already done something.
        self.forget();
        let mut sql = "DELETE FROM public.events; DELETE FROM tallymark.slice; \
                       DELETE FROM tallymark.progress; DELETE FROM tallymark.outstanding; \
                       DELETE FROM tallymark.checked;"
            .to_owned();
        if self.keeper != Keeper::DynamoDb {
            sql.push_str("DELETE FROM tallymark.checkpoint;");
        }
        if matches!(self.inner.rollup().late, Late::Capture) {
            sql.push_str("DELETE FROM tallymark.mark;");
        }
        if self.kind.looks_up {
            sql.push_str(labels::RESET);
        }
        if self.kind.purges {
            sql.push_str(purge::RESET);
        }
        for Rollup { name, .. } in &self.inner.worker.config.rollups {
            sql.push_str(&format!("DELETE FROM stats.{name}; DELETE FROM tallymark.stage_{name};"));
        }
        self.control.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        self.played += 1;
        if self.played.is_multiple_of(VACUUM_EVERY) {
            // The tests' server does none by itself, and dead rows make each read longer.
            self.control.execute("VACUUM").await.unwrap();
        }
    }

    async fn empty_dynamodb(&self) {
        // The maximum that one call can delete.
        const DELETED_MAX: usize = 25;
        let table = self.inner.worker.checkpoints.table();
        let scan = self.client.scan().table_name(table).projection_expression("pk, sk");
        let items = scan.send().await.unwrap();
        assert!(items.last_evaluated_key().is_none(), "a history fits into one page");
        let delete = |key: &HashMap<String, AttributeValue>| {
            let delete = DeleteRequest::builder().set_key(Some(key.clone())).build().unwrap();
            WriteRequest::builder().delete_request(delete).build()
        };
        for keys in items.items().chunks(DELETED_MAX) {
            let batch = self.client.batch_write_item();
            let batch = batch.request_items(table, keys.iter().map(delete).collect());
            let done = batch.send().await.unwrap();
            assert!(done.unprocessed_items().is_none_or(HashMap::is_empty));
        }
    }

    async fn show_clock(&mut self) {
        session::show(&mut self.control, self.now_ms).await;
    }

    async fn advance(&mut self, minutes: u64) {
        self.clock.advance(Duration::from_secs(minutes * 60));
        self.now_ms += i64::try_from(minutes).unwrap() * 60_000;
        self.show_clock().await;
    }

    async fn step(&mut self, random: &mut Rng) -> String {
        if self.kind.purges && random.u32(0..5) == 0 {
            return self.purge(random).await;
        }
        match random.u32(0..20) {
            0..=10 => {
                let which = random.usize(0..2);
                let sql = self.statement(random, which);
                let outcome = self.application(which, &sql).await;
                format!("{}: {sql}{outcome}", self.sessions[which].name)
            }
            11..=14 => {
                let minutes = random.u64(1..50);
                self.advance(minutes).await;
                format!("-- {minutes} minutes pass: {}", self.clock.now())
            }
            15..=18 => {
                let polls = random.bool().then(|| random.usize(1..polls_max(self.keeper)));
                self.tick(polls).await
            }
            _ => self.by_hand(random).await,
        }
    }

    /// An operator's action beside the ticks: requests a plan, or runs one slice.
    async fn by_hand(&self, random: &mut Rng) -> String {
        let worker = &self.inner.worker;
        let rollup = random.choice(&worker.config.rollups).unwrap();
        if random.bool() {
            // A temporary error does not matter here.
            tokio::select! {
                _ = Box::pin(empty::probe(worker, rollup)) => {}
                () = session::patience(&self.sessions, false) => {}
            }
            return format!("-- plan {}", rollup.name);
        }
        let hours = random.u64(1..4);
        let at = self.clock.now() - TimeDelta::hours(hours.try_into().unwrap());
        let slice = rollup.calendar.containing(at.max(rollup.start));
        let deadline = Deadline::after(&self.clock, Duration::from_secs(20));
        let work = Box::pin(slice_run::run_named(worker, rollup, slice, deadline));
        let outcome = tokio::select! {
            ran = work => match ran {
                Ok(report) => report.outcome.word().to_owned(),
                Err(error) => error.to_string(),
            },
            () = session::patience(&self.sessions, false) => "killed".to_owned(),
        };
        format!("-- run {} {}: {outcome}", rollup.name, slice.start().format("%H:%M"))
    }

    /// The next statement of the application's session.
    fn statement(&self, random: &mut Rng, which: usize) -> String {
        if self.kind.looks_up && random.u32(0..4) == 0 {
            return labels::change(random);
        }
        let ways = self.kind.ways;
        let session = &self.sessions[which];
        let begun = if session.is_open { session.begun_ms } else { self.now_ms };
        let any = random.i64(self.now_ms - 150 * 60_000..self.now_ms + AHEAD_MAX_MS);
        let at_ms =
            if ways.any_time { [begun, self.now_ms, any, any][random.usize(0..4)] } else { begun };
        let (at, stamp) = (literal(at_ms), literal(begun));
        let amount = random.i32(1..100);
        let kind = ["'view'", "'click'", "NULL"][random.usize(0..3)];
        let some = format!("id % 3 = {}", random.u32(0..3));
        let rows = random.u32(1..4);
        let insert = format!(
            "INSERT INTO public.events (at, kind, amount, updated_at) \
             SELECT {at}, {kind}, {amount}, {stamp} FROM generate_series(1, {rows})"
        );
        match random.u32(0..16) {
            0 | 1 => "BEGIN".into(),
            2 | 3 => "COMMIT".into(),
            4 => "ROLLBACK".into(),
            5 if session.is_open => "SAVEPOINT s".into(),
            6 if session.is_open => "ROLLBACK TO s".into(),
            7 | 8 if ways.updates => format!(
                "UPDATE public.events SET amount = {amount}, updated_at = {stamp} WHERE {some}"
            ),
            9 if ways.moves => {
                format!("UPDATE public.events SET at = {at}, updated_at = {stamp} WHERE {some}")
            }
            10 if ways.moves => format!("DELETE FROM public.events WHERE {some}"),
            11 if ways.truncates && random.u32(0..4) == 0 => "TRUNCATE public.events".into(),
            12 if ways.moves => format!(
                "SET session_replication_role = replica; {insert}; RESET session_replication_role"
            ),
            _ => insert,
        }
    }

    async fn application(&mut self, which: usize, sql: &str) -> &'static str {
        let Self { sessions, control, now_ms, .. } = self;
        sessions[which].run(control, *now_ms, sql).await
    }

    /// Ends all transactions, lets all time pass, and ticks until all work is done. The error
    /// describes work that never ends.
    async fn settle_down(&mut self, random: &mut Rng) -> Result<(), String> {
        let mut last = String::new();
        for which in 0..2 {
            let end = if random.bool() { "COMMIT" } else { "ROLLBACK" };
            self.application(which, end).await;
        }
        // By then, rows stamped ahead of time are in the past.
        self.advance(2 * u64::try_from(AHEAD_MAX_MS / 60_000).unwrap()).await;
        for _ in 0..QUIET_MAX {
            self.advance(1).await;
            self.complete_seal().await;
            let deadline = Deadline::after(&self.clock, Duration::from_secs(60));
            let now = self.clock.now();
            let work = tick::run(&self.inner.worker, now, deadline, None);
            let report = work.await.unwrap();
            // A problem may come from a busy machine on which a connection timed out.
            let is_idle = report.slices.is_empty()
                && report.problems.is_empty()
                && report.kept_away.slices == 0;
            if is_idle && self.is_complete().await {
                return Ok(());
            }
            last = format!("{report:?}");
        }
        Err(format!("-- never quiet: {last}"))
    }

    /// The instant until which `rollup` must be done: all slices whose grace has passed.
    fn due_until(&self, rollup: &Rollup) -> DateTime<Utc> {
        rollup.calendar.containing(self.clock.now() - GRACE).start()
    }

    /// As [`World::due_until`]. The numbers of an open slice reach as far as its finer slices.
    fn computed_until(&self, rollup: &Rollup) -> DateTime<Utc> {
        let until = self.due_until(rollup);
        match &rollup.finer {
            Some(finer) if rollup.open => self.due_until(finer).max(until),
            _ => until,
        }
    }

    async fn is_complete(&self) -> bool {
        let worker = &self.inner.worker;
        for rollup in &worker.config.rollups {
            let standings = standings::of(worker, rollup, self.clock.now()).await.unwrap();
            // No watermark tells of an open slice whose attempt failed and waits for its next one.
            let until = self.computed_until(rollup);
            let mut slices = standings.plan.slices.iter().filter(|it| it.slice.start() < until);
            let is_computed =
                slices.all(|it| it.standing.is_done() || it.standing == Standing::Open);
            if standings.plan.watermark < self.due_until(rollup) || !is_computed {
                return false;
            }
        }
        true
    }

    async fn differing(&mut self) -> Vec<String> {
        let mut differing = Vec::new();
        if self.kind.purges {
            self.note_seals().await;
        }
        for (rollup, (names, sql)) in self.inner.worker.config.rollups.iter().zip(&self.every) {
            let until = self.computed_until(rollup);
            let rows = match (self.kind.purges, self.cut(&rollup.name)) {
                (false, _) => {
                    let counted = changes::counted(self.inner.rollup(), "public.events");
                    expected::rows_behind(&rollup.name, &counted, "$1::timestamptz")
                }
                (true, cut) => purge::rows_behind(&rollup.name, cut),
            };
            let sql = expected::differences(&rollup.name, &rows, names, sql, self.kind.looks_up);
            let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(until);
            differing.extend(query.fetch_all(&mut self.control).await.unwrap());
        }
        differing
    }
}
