//! An operator who seals history and purges the source, and rollups whose old rows are deleted.
//!
//! The source alone no longer tells what is right. So `truth.behind_NAME` has, for each bucket of a
//! rollup, the rows that count there: those of the moment at which its slice was sealed, and
//! otherwise those that the source has now, or those behind the finer rollup.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use fastrand::Rng;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection};
use tallymark::check::purgeable;
use tallymark::check::verify::{self, Compared};
use tallymark::model::clock::Clock as _;
use tallymark::model::not_now::Why;
use tallymark::model::rollup::Rollup;

use super::{World, polls_max};
use crate::histories::expected;
use crate::support::polls::killed;
use crate::support::world::{self, BUDGET};

/// The rows behind the buckets of sealed slices, and the seals.
const TRUTH: &str = "CREATE SCHEMA truth; \
    CREATE TABLE truth.past AS SELECT ''::text AS rollup, at AS bucket, e.* FROM public.events e WITH NO DATA; \
    CREATE TABLE truth.seal (rollup text PRIMARY KEY, before timestamptz NOT NULL);";

/// Empties them.
pub const RESET: &str = "DELETE FROM truth.past; DELETE FROM truth.seal; \
    UPDATE tallymark.rollup SET sealed_before = NULL;";

/// The columns of `events`.
const COLUMNS: &str = "id, at, kind, amount, is_paid, updated_at";

/// No history lasts longer.
const END: &str = "'2026-01-03Z'::timestamptz";

/// The part of a history that lies in the first partition.
const PARTITION: TimeDelta = TimeDelta::hours(4);

/// What a history has done beside its statements.
#[derive(Debug, Default)]
pub struct Purges {
    /// Rows before this instant are deleted.
    purged: Option<DateTime<Utc>>,
    /// The purge was not sealed, so the test keeps the rows that count there.
    unsealed: Option<DateTime<Utc>>,
    /// The rollup whose rows are kept for this time.
    kept: Option<(String, Duration)>,
}

/// The relation that has the rows behind each bucket of `rollup`.
pub fn behind(rollup: &str) -> String {
    format!("truth.behind_{rollup}")
}

/// The rows behind the buckets that are not deleted, up to `$1`.
pub fn rows_behind(rollup: &str, cut: Option<DateTime<Utc>>) -> String {
    let cut = cut.map_or("'-infinity'".to_owned(), at);
    // An open slice reaches as far as its finer slices.
    format!(
        "{} events WHERE bucket < $1::timestamptz AND at < $1::timestamptz AND bucket >= {cut}",
        behind(rollup)
    )
}

/// Makes the relations of all `rollups`, the finer ones first.
pub async fn make(control: &mut PgConnection, rollups: &[Rollup]) {
    let views = rollups.iter().map(|rollup| {
        let name = &rollup.name;
        let finer = rollup.finer.as_ref();
        let events = finer.map_or("public.events".to_owned(), |finer| behind(&finer.name));
        let events = format!("(SELECT {COLUMNS} FROM {events} WHERE at >= '2026-01-01Z')");
        let rows = expected::rows_behind(name, &events, END);
        format!(
            "CREATE VIEW truth.behind_{name} AS \
             SELECT bucket, {COLUMNS} FROM truth.past WHERE rollup = '{name}' UNION ALL \
             SELECT bucket, {COLUMNS} FROM (SELECT * FROM {rows}) live WHERE bucket >= coalesce( \
             (SELECT before FROM truth.seal WHERE rollup = '{name}'), '-infinity');"
        )
    });
    let sql = format!("{TRUTH}{}", views.collect::<String>());
    control.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
}

fn at(instant: DateTime<Utc>) -> String {
    format!("'{}'::timestamptz", instant.to_rfc3339())
}

impl World {
    /// Draws the rollup that has `keep` in the next history.
    pub(super) fn draw_keep(&mut self, random: &mut Rng) {
        let kept = match random.u32(0..4) {
            0 => None,
            1 if self.kind.is_composed => Some("two_hourly"),
            _ => Some("hourly"),
        };
        let hours = random.u64(1..4);
        let kept = kept.map(|name| (name.to_owned(), Duration::from_secs(hours * 3600)));
        for rollup in &mut self.inner.worker.config.rollups {
            rollup.keep = kept.as_ref().filter(|(name, _)| *name == rollup.name).map(|it| it.1);
        }
        self.purges = Purges { kept, ..Purges::default() };
    }

    /// An operator's step: a look, a seal that may be killed, a purge, or the end of a seal.
    pub(super) async fn purge(&mut self, random: &mut Rng) -> String {
        let worker = &self.inner.worker;
        let table = &purgeable::tables(worker)[0];
        if self.purges.purged.is_none() && random.u32(0..8) == 0 {
            let ended = purgeable::unseal(worker, table).await;
            return format!("-- unseal: {ended:?}");
        }
        let found = match purgeable::of_table(worker, table).await {
            Ok(found) => found,
            Err(error) => return format!("-- purgeable: {error}"),
        };
        let before = found.before - TimeDelta::hours(random.i64(0..2));
        let is_late_safe = self.kind.late == "clock";
        if is_late_safe && random.bool() {
            let deleted = self.delete(before).await;
            return format!("-- {deleted} unsealed, before {before}");
        }
        if self.seal(before, random).await {
            self.note_seals().await;
            let deleted = if random.bool() { self.delete(before).await } else { "not purged" };
            return format!("-- sealed and {deleted}, before {before}");
        }
        format!("-- not sealed before {before}")
    }

    /// Whether the command ended well.
    async fn seal(&self, before: DateTime<Utc>, random: &mut Rng) -> bool {
        let worker = &self.inner.worker;
        let table = &purgeable::tables(worker)[0];
        let polls = match random.bool() {
            true => random.usize(1..polls_max(self.keeper)),
            false => usize::MAX,
        };
        let ended = killed(purgeable::seal(worker, table, before), polls).await;
        ended.is_some_and(|ended| ended.is_ok())
    }

    async fn delete(&mut self, before: DateTime<Utc>) -> &'static str {
        let hourly = self.inner.rollup().name.clone();
        let sealed = self.sealed(&hourly).await;
        if sealed.is_none_or(|sealed| sealed < before) {
            self.purges.unsealed = self.purges.unsealed.max(Some(before));
            self.note_seals().await;
        }
        // A session's open update keeps its rows.
        self.control.execute("SET lock_timeout = '10ms'").await.unwrap();
        let sql = format!("DELETE FROM public.events WHERE at < {}", at(before));
        let deleted = self.control.execute(AssertSqlSafe(sql)).await;
        self.control.execute("RESET lock_timeout").await.unwrap();
        // They are right as they are, purged or not.
        if deleted.is_err() {
            return "refused a purge";
        }
        self.purges.purged = self.purges.purged.max(Some(before));
        "purged"
    }

    /// The instant before which slices of a rollup stay as they are.
    async fn sealed(&self, rollup: &str) -> Option<DateTime<Utc>> {
        let seen = self.inner.worker.checkpoints.watermark(rollup).await.unwrap();
        let own = self.purges.unsealed.filter(|_| rollup == self.inner.rollup().name);
        seen.store_seal().proven().max(own)
    }

    /// Notes the rows behind slices that were sealed, and forgets those that were opened.
    pub(super) async fn note_seals(&mut self) {
        let names: Vec<_> =
            self.inner.worker.config.rollups.iter().map(|it| it.name.clone()).collect();
        for name in names {
            let sealed = self.sealed(&name).await;
            let known = "SELECT before FROM truth.seal WHERE rollup = $1";
            let known: Option<DateTime<Utc>> = sqlx::query_scalar(known)
                .bind(&name)
                .fetch_optional(&mut self.control)
                .await
                .unwrap();
            if known == sealed {
                continue;
            }
            let from = known.map_or("'-infinity'".to_owned(), at);
            let to = sealed.map_or("'-infinity'".to_owned(), at);
            let is_set = sealed.map_or(String::new(), |_| {
                format!("INSERT INTO truth.seal VALUES ('{name}', {to});")
            });
            let sql = format!(
                "INSERT INTO truth.past SELECT '{name}', bucket, {COLUMNS} FROM truth.behind_{name} \
                 WHERE bucket >= {from} AND bucket < {to}; \
                 DELETE FROM truth.past WHERE rollup = '{name}' AND bucket >= {to}; \
                 DELETE FROM truth.seal WHERE rollup = '{name}'; {is_set}"
            );
            self.control.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.unwrap();
        }
    }

    /// Completes the seal of a command that was killed.
    pub(super) async fn complete_seal(&mut self) {
        if !self.kind.purges {
            return;
        }
        let worker = &self.inner.worker;
        let rollup = worker.config.rollups.first().unwrap();
        let seal = worker.checkpoints.watermark(&rollup.name).await.unwrap().store_seal();
        if let Some(before) = seal.before().filter(|_| seal.before() != seal.proven()) {
            // It may be refused, and then the slices behind it run.
            let _ = purgeable::seal(worker, &purgeable::tables(worker)[0], before).await;
        }
        self.note_seals().await;
    }

    /// The instant before which the rows of `rollup` are deleted, by what `keep` means.
    pub(super) fn cut(&self, rollup: &str) -> Option<DateTime<Utc>> {
        let (_, keep) = self.purges.kept.as_ref().filter(|(name, _)| name == rollup)?;
        let goal = self.clock.now() - TimeDelta::from_std(*keep).unwrap();
        let begin = world::instant("2026-01-01");
        if self.inner.rollup().partition_by.is_some() {
            // Nothing goes before the whole partition does, and then with it. What the windows look
            // back to stays in hours.
            let end = begin + PARTITION;
            let is_needed = rollup == "hourly" && self.kind.is_composed;
            return (goal >= end && !is_needed).then_some(end);
        }
        let floor = |hours: i64| {
            let width = TimeDelta::hours(hours).num_seconds();
            begin + TimeDelta::seconds((goal - begin).num_seconds().div_euclid(width) * width)
        };
        let cut = match (rollup, self.kind.is_composed) {
            // The first window that stays looks back two hours.
            ("hourly", true) => floor(2) - TimeDelta::hours(2),
            ("hourly", false) => floor(1),
            _ => floor(4),
        };
        (cut > begin).then_some(cut)
    }

    /// What `verify` and the readers' views say of one slice, where it contradicts the seals.
    pub(super) async fn misjudged(&mut self, random: &mut Rng) -> Vec<String> {
        let mut wrong = Vec::new();
        let rollup = random.choice(&self.inner.worker.config.rollups).unwrap();
        let name = rollup.name.clone();
        let sealed = self.inner.worker.checkpoints.watermark(&name).await.unwrap().seal();
        let until = self.due_until(rollup);
        let hours = (until - rollup.start).num_hours();
        let slice = rollup.start + TimeDelta::hours(random.i64(0..hours));
        let slice = rollup.calendar.containing(slice);
        let found = verify::compare(&self.inner.worker, rollup, slice, BUDGET, 3).await.unwrap();
        let is_sealed = sealed.is_some_and(|sealed| slice.start() < sealed);
        let is_right = match &found {
            Compared::NotYet(passed) if is_sealed => matches!(passed.why, Why::Sealed(_)),
            // An empty slice has no checkpoint.
            Compared::NotYet(passed) => passed.why == Why::NotClaimedRight("missing"),
            Compared::Same => !is_sealed,
            Compared::Drift(..) => self.purges.unsealed.is_some_and(|it| slice.start() < it),
        };
        if !is_right {
            wrong.push(format!("verify of {name} {slice}, sealed before {sealed:?}: {found:?}"));
        }
        let cut = self.cut(&name);
        let states = "SELECT slice_start, state FROM tallymark.slices_of($1, '-infinity', $2)";
        let states: Vec<(DateTime<Utc>, String)> = sqlx::query_as(states)
            .bind(&name)
            .bind(until)
            .fetch_all(&mut self.control)
            .await
            .unwrap();
        for (start, state) in states {
            let is_right = match &*state {
                "kept_away" => cut.is_some_and(|cut| start < cut),
                "sealed" => sealed.is_some_and(|sealed| start < sealed),
                // Windows are told to no reader.
                "complete" => cut.is_none_or(|cut| start >= cut),
                _ => name == "windows",
            };
            if !is_right {
                wrong.push(format!("{name} {start} is {state}, cut {cut:?}, sealed {sealed:?}"));
            }
        }
        wrong
    }
}
