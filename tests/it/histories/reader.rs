//! A reader of the target beside a history. In one snapshot it reads which slices are complete, with
//! their rows. Each of them must equal the `GROUP BY` over the source of some instant between
//! `checked_at` and the read.

use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;
use sqlx::{AssertSqlSafe, Executor as _, PgConnection, Row as _};
use tallymark::model::clock::{Clock as _, Deadline};
use tallymark::tick;
use tallymark::work::report::TickReport;

use super::World;
use super::changes::{Changes, counted};
use super::session;
use crate::histories::search::Kind;
use crate::support::told;

/// Histories have fewer hours than this.
const HOURS: usize = 48;

/// The rows of each hour, as text.
type Hours = Vec<String>;

/// The numbers of each hour by the source: the rows of `events` that count there.
fn source(events: &str) -> String {
    format!(
        "WITH g AS (SELECT date_trunc('hour', at, 'UTC') AS h, kind, count(*) AS n, sum(amount) AS total \
    FROM {events} e GROUP BY 1, 2) \
    SELECT coalesce(string_agg(concat_ws(' ', kind, n, total), ', ' ORDER BY kind) FILTER (WHERE n > 0), '') \
    FROM generate_series(0, 47) i LEFT JOIN g ON h = '2026-01-01Z'::timestamptz + i * interval '1 hour' \
    GROUP BY i ORDER BY i"
    )
}

/// The hours that are complete, with their numbers. An hour without a slice is complete where all
/// hours before an instant are.
const TARGET: &str = "WITH g AS (SELECT date_trunc('hour', bucket, 'UTC') AS h, kind, sum(events)::bigint AS n, \
    sum(total) AS total FROM stats.hourly GROUP BY 1, 2), \
    own AS (SELECT h, string_agg(concat_ws(' ', kind, n, total), ', ' ORDER BY kind) AS numbers FROM g GROUP BY h) \
    SELECT i, left(k.definition, 16) AS definition, (extract(epoch FROM c.checked_at - '2026-01-01Z') * 1000)::bigint AS checked, \
    coalesce(own.numbers, '') AS numbers \
    FROM tallymark.coverage c JOIN tallymark.checked k USING (rollup), generate_series(0, 47) i, \
    LATERAL (SELECT '2026-01-01Z'::timestamptz + i * interval '1 hour') x (h) \
    LEFT JOIN tallymark.slices_of('hourly', '-infinity', 'infinity') s ON s.slice_start = x.h \
    LEFT JOIN own ON own.h = x.h \
    WHERE c.rollup = 'hourly' AND (s.state = 'complete' \
    OR s.state IS NULL AND x.h + interval '1 hour' <= c.complete_through) ORDER BY i";

/// The hours that are complete by the series, with their numbers.
const SERIES: &str = "SELECT left(k.definition, 16) AS definition, (extract(epoch FROM s.bucket - '2026-01-01Z') / 3600)::int AS i, \
    (extract(epoch FROM c.checked_at - '2026-01-01Z') * 1000)::bigint AS checked, \
    coalesce(string_agg(concat_ws(' ', s.kind, s.events, s.total), ', ' ORDER BY s.kind) \
    FILTER (WHERE s.events > 0), '') AS numbers \
    FROM tallymark.coverage c JOIN tallymark.checked k USING (rollup), \
    stats.hourly_series('2026-01-01Z', '2026-01-03Z', '1 hour') s \
    WHERE c.rollup = 'hourly' GROUP BY 1, 2, 3 HAVING bool_and(s.complete) ORDER BY 2";

/// The source at each instant at which it was seen to differ, and what the reader misread.
#[derive(Default)]
pub struct Seen {
    random: Rng,
    /// Each definition, and the rows that count by it.
    definitions: Vec<(String, String)>,
    /// The hours by each definition.
    versions: Vec<(i64, Vec<Hours>)>,
    misread: Vec<String>,
}

impl World {
    /// A reader that has seen nothing yet.
    pub(super) fn watched(&self, seed: u64) -> Seen {
        let other = self.changes.iter().map(|changes| changes.other().rollup());
        let definitions = std::iter::once(self.inner.rollup()).chain(other);
        let definitions = definitions.map(|it| (it.definition(), counted(it, self.kind.events())));
        let definitions: Vec<_> = definitions.collect();
        let versions = vec![(i64::MIN, vec![vec![String::new(); HOURS]; definitions.len()])];
        Seen { random: Rng::with_seed(seed), definitions, versions, misread: Vec::new() }
    }

    pub(super) fn misread(&self) -> Vec<String> {
        self.seen.misread.clone()
    }

    /// Notes the source's numbers, and compares what a reader is told.
    pub(super) async fn read(&mut self) {
        let Self { control, seen, kind, now_ms, .. } = self;
        seen.read(control, *now_ms, *kind).await;
    }

    /// A statement for an await of a tick, in half of the ticks of histories with changes.
    fn statement_beside(&mut self) -> Option<(usize, String)> {
        let is_played = self.changes.as_ref().is_some_and(Changes::is_played);
        let random = &mut self.seen.random;
        if !is_played || random.bool() {
            return None;
        }
        let (which, seed) = (random.usize(0..2), random.u64(..));
        Some((which, self.statement(&mut Rng::with_seed(seed), which)))
    }

    /// A tick, killed after this many polls. A reader reads at one await of it, after a statement of
    /// the application.
    pub(super) async fn tick(&mut self, polls: Option<usize>) -> String {
        let deadline = Deadline::after(&self.clock, Duration::from_secs(20));
        let now = self.clock.now();
        // The history's own random numbers stay as they are without a reader.
        let pause = match self.kind.is_promised {
            true => self.seen.random.usize(1..super::polls_max(self.keeper)),
            false => usize::MAX,
        };
        let beside = self.statement_beside();
        let is_patient = self.seen.random.u32(0..4) == 0;
        let Self { inner, control, seen, kind, now_ms, changes, clock, sessions, .. } = self;
        let is_other = changes.as_mut().is_some_and(Changes::ticks_by_other);
        let other = changes.as_ref().filter(|_| is_other).map(|it| &it.other().worker);
        let worker = other.unwrap_or(&inner.worker);
        let mut work = Box::pin(tick::run(worker, now, deadline, None));
        let mut polled = 0;
        loop {
            let is_paused = polled < pause;
            let worked = std::future::poll_fn(|context| {
                polled += 1;
                if polls.is_some_and(|polls| polled > polls) {
                    return Poll::Ready(Some(None));
                }
                if is_paused && polled > pause {
                    return Poll::Ready(None);
                }
                work.as_mut().poll(context).map(|ended| Some(ended.ok()))
            });
            let ended: Option<Option<TickReport>> = tokio::select! {
                ended = worked => ended,
                () = session::patience(sessions, is_patient) => Some(None),
            };
            match ended {
                None => {
                    if let Some((which, sql)) = &beside {
                        // Later than what was looked for before, and earlier than what comes after.
                        for is_before in [true, false] {
                            clock.advance(Duration::from_millis(1));
                            *now_ms += 1;
                            session::show(control, *now_ms).await;
                            if is_before {
                                sessions[*which].run(control, *now_ms, sql).await;
                                seen.read(control, *now_ms, *kind).await;
                            }
                        }
                    } else {
                        seen.read(control, *now_ms, *kind).await;
                    }
                }
                Some(None) => return format!("-- tick, killed after {polled} polls; {beside:?}"),
                Some(Some(report)) => {
                    let slices = report.slices.iter().map(|slice| {
                        format!("{} {}", slice.start.format("%H:%M"), slice.outcome.word())
                    });
                    let slices: Vec<_> = slices.collect();
                    return format!("-- tick: {}; {beside:?}", slices.join(", "));
                }
            }
        }
    }
}

impl Seen {
    async fn read(&mut self, control: &mut PgConnection, now: i64, kind: Kind) {
        // A session's open TRUNCATE keeps the table, and this thread drives that session.
        control.execute("SET lock_timeout = '10ms'").await.unwrap();
        let mut hours: Vec<Hours> = Vec::new();
        for (_, events) in &self.definitions {
            let query = sqlx::query_scalar(AssertSqlSafe(source(events)));
            hours.extend(query.fetch_all(&mut *control).await);
        }
        control.execute("RESET lock_timeout").await.unwrap();
        // Then nothing is observed, and no other session has changed the table since the last look.
        if hours.len() < self.definitions.len() {
            return;
        }
        if self.versions.last().is_none_or(|(_, last)| *last != hours) {
            self.versions.push((now, hours));
        }
        let mut rows = sqlx::query(TARGET).fetch_all(&mut *control).await.unwrap();
        if self.versions.len().is_multiple_of(3) {
            match sqlx::query(SERIES).fetch_all(&mut *control).await {
                Ok(found) => rows.extend(found),
                // No tick has told of the definition for which `init` made it.
                Err(error) => assert!(error.to_string().contains("has changed since"), "{error}"),
            }
        }
        for row in rows {
            let (hour, checked): (i32, i64) = (row.get("i"), row.get("checked"));
            let numbers: String = row.get("numbers");
            let hour = usize::try_from(hour).unwrap();
            let definition: String = row.get("definition");
            let place = self.definitions.iter().position(|(known, _)| *known == definition);
            let place = place.unwrap();
            let before = self.versions.iter().rposition(|(at, _)| *at < checked).unwrap_or(0);
            let some = &self.versions[before..];
            if !some.iter().any(|(_, hours)| hours[place][hour] == numbers) {
                let wanted = some.iter().map(|(at, hours)| (at, &hours[place][hour]));
                let wanted: Vec<_> = wanted.collect();
                self.misread.push(format!(
                    "-- misread at {now} ms: hour {hour}, checked at {checked} ms, has {numbers:?}, and \
                     the source had {wanted:?}"
                ));
            }
        }
        if kind.is_composed {
            let coarse =
                [("two_hourly", "hourly"), ("four_hourly", "two_hourly"), ("windows", "hourly")];
            for (name, finer) in coarse {
                let query = sqlx::query_scalar(AssertSqlSafe(told::misread(name, finer)));
                let found: Vec<String> = query.fetch_all(&mut *control).await.unwrap();
                self.misread.extend(found);
            }
        }
    }
}
