//! A rollup whose definition or name changes, or that is dropped.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use tallymark::checkpoint::{Claim, Drift, Yield};
use tallymark::model::clock::{Clock, Deadline, ManualClock, SystemClock};
use tallymark::model::hint::Hinted;
use tallymark::tick::{self};
use tallymark::work::report::Outcome;
use tallymark::work::report::TickReport;
use tallymark::work::standings;

use crate::support::cli::{Place, daily, day, documented, lines};
use crate::support::share::{self, Long};
use crate::support::world::{EVENTS, Setup, World, clock, instant, records};

/// A clock that advances at every read, so that budgets end instantly.
#[derive(Debug)]
struct Stepping(ManualClock);

impl Clock for Stepping {
    fn now(&self) -> DateTime<Utc> {
        self.0.advance(Duration::from_millis(20));
        self.0.now()
    }
}

/// A year of days, each with two groups.
const YEAR: &str = "INSERT INTO events (created_at, kind, amount) \
    SELECT '2025-01-01T06:00Z'::timestamptz + n * interval '8 hours', \
        (ARRAY['view', 'buy'])[1 + n % 2], n FROM generate_series(0, 365 * 3 + 2) n";

const BEFORE: &str = r#"
[[rollup]]
name = "daily"
from = "public.events"
time = "created_at"
start = "2025-01-01"
slice = "1 day"
group_by = ["kind"]
measures = { events = "count" }
"#;

/// The same with one measure more, and a new rollup of ten days.
const AFTER: &str = r#"
[[rollup]]
name = "daily"
from = "public.events"
time = "created_at"
start = "2025-01-01"
slice = "1 day"
group_by = ["kind"]
measures = { events = "count", revenue = { sum = "amount" } }

[[rollup]]
name = "fresh"
from = "public.events"
time = "created_at"
start = "2025-12-22"
slice = "1 day"
measures = { events = "count" }
"#;

const OLD_NUMBERS: &str =
    "SELECT bucket, kind, events FROM stats.daily WHERE bucket < '2026-01-01Z'";

async fn tick(world: &World, budget: Duration) -> TickReport {
    let clock = &*world.worker.clock;
    let deadline = Deadline::after(clock, budget);
    let report = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    report
}

/// Asserts that fresh slices came before those of the old definition, each newest first.
fn assert_order(report: &TickReport) {
    let new_year = instant("2026-01-01");
    let is_old = |slice: &&tallymark::work::report::SliceReport| {
        slice.rollup == "daily" && slice.start < new_year
    };
    let fresh = report.slices.iter().take_while(|slice| !is_old(slice)).count();
    let old = &report.slices[fresh..];
    assert!(old.iter().all(|slice| is_old(&slice)), "{report:?}");
    assert!(old.is_sorted_by(|one, other| one.start > other.start), "{report:?}");
}

/// Readers see the old numbers throughout. Fresh slices of all rollups come first. Every old slice
/// is recomputed once, and only the new column of its rows changes.
#[tokio::test]
async fn a_new_measure_is_computed_for_a_year_of_history_behind_all_else() {
    if !share::plays(Long::Redefined) {
        return;
    }
    let manual = clock("2026-01-01T12:00:00Z");
    let stepping: Arc<dyn Clock> = Arc::new(Stepping(manual.clone()));
    let setup = Setup { rollups: BEFORE, clock: Arc::clone(&stepping), ..Setup::default() };
    let world = World::new(&format!("{EVENTS}; {YEAR}"), setup).await;
    assert_eq!(world.backfill("2026-01-01", false).await.succeeded, 365);
    let before = records(&world.target, OLD_NUMBERS).await;
    assert_eq!(before.len(), 365 * 2);

    let world = world.changed("", AFTER, Arc::clone(&stepping));
    world.init().await.unwrap();
    assert_eq!(records(&world.target, OLD_NUMBERS).await, before);
    manual.advance(Duration::from_secs(24 * 60 * 60));
    let redefined = async || {
        let plan = standings::of(&world.worker, world.rollup(), manual.now()).await.unwrap().plan;
        assert_eq!(plan.redefined().count() > 0, !plan.is_of_one_definition());
        plan.redefined().count()
    };
    assert_eq!(redefined().await, 365);
    let mut runs: BTreeMap<DateTime<Utc>, usize> = BTreeMap::new();
    let mut left = 365;
    // Bounded, as a tick of this budget recomputes a few dozen slices.
    for round in 0..40 {
        let report = tick(&world, Duration::from_secs(30)).await;
        assert_order(&report);
        if round == 0 {
            let first = &report.slices[0];
            assert_eq!((&*first.rollup, first.start), ("daily", instant("2026-01-01")));
            assert_eq!(report.slices.iter().filter(|slice| slice.rollup == "fresh").count(), 11);
            assert!(report.left > 0, "one budget is not enough");
        }
        let old = report.slices.iter().filter(|slice| slice.start < instant("2026-01-01"));
        for slice in old.filter(|slice| slice.rollup == "daily") {
            assert_eq!(slice.outcome, Outcome::Succeeded);
            let done = slice.completion.as_ref().unwrap();
            assert_eq!((done.inserted, done.deleted, done.updated), (0, 0, 2), "{slice:?}");
            *runs.entry(slice.start).or_default() += 1;
        }
        assert_eq!(records(&world.target, OLD_NUMBERS).await, before);
        left = redefined().await;
        assert_eq!(left + runs.len(), 365, "progress is visible");
        if left == 0 {
            break;
        }
    }
    assert_eq!(left, 0);
    assert!(runs.values().all(|times| *times == 1), "{runs:?}");
    world
        .assert_rows(
            "SELECT date_trunc('day', created_at, 'UTC'), kind, count(*), sum(amount) FROM events \
             WHERE created_at < '2026-01-02Z' GROUP BY 1, 2",
        )
        .await;
    assert!(tick(&world, Duration::from_secs(30)).await.slices.is_empty());
    let seen = world.worker.checkpoints.watermark("daily").await.unwrap();
    assert_eq!(seen.until(), Some(instant("2026-01-02")));
    assert_eq!(seen.definition(), Some(&*world.rollup().definition()), "ticks are cheap again");
}

/// A source that keeps no history. Slices that cannot be recomputed are left as they are.
#[tokio::test]
async fn a_new_definition_does_not_erase_what_the_source_has_purged() {
    let clock = Arc::new(clock("2025-01-05T12:00:00Z"));
    let setup = Setup { rollups: BEFORE, clock: clock.clone(), ..Setup::default() };
    let world = World::new(&format!("{EVENTS}; {YEAR}"), setup).await;
    assert_eq!(tick(&world, Duration::from_secs(60)).await.slices.len(), 4);
    let before = records(&world.target, OLD_NUMBERS).await;
    world.sql("DELETE FROM events WHERE created_at < '2025-01-03Z'").await;
    // One that counts other rows, and one that counts the same rows differently.
    let narrower = BEFORE.replace("measures =", "where = \"kind <> 'test'\"\nmeasures =");
    let more =
        BEFORE.replace("events = \"count\"", "events = \"count\", high = { max = \"amount\" }");
    for rollups in [narrower, more] {
        let world = world.changed("", &rollups, clock.clone());
        world.init().await.unwrap();
        let report = tick(&world, Duration::from_secs(60)).await;
        let failed = report.slices.iter().filter(|slice| slice.outcome == Outcome::Failed);
        for slice in failed.clone() {
            assert!(slice.reason.as_ref().unwrap().contains("shrink_guard"), "{slice:?}");
        }
        assert!(report.slices.len() - failed.count() == 2, "{report:?}");
        assert_eq!(records(&world.target, OLD_NUMBERS).await, before);
    }
}

/// The statement in the refusal is run unchanged, including a mean's three columns.
#[tokio::test]
async fn a_removed_measure_is_refused_with_a_remedy_that_works() {
    let with = BEFORE.replace(
        "events = \"count\"",
        "events = \"count\", mean = { avg = \"amount\" }, low = { min = \"amount\" }",
    );
    let setup = Setup {
        rollups: &with,
        clock: Arc::new(clock("2025-01-05T12:00:00Z")),
        ..Setup::default()
    };
    let world = World::new(&format!("{EVENTS}; {YEAR}"), setup).await;
    tick(&world, Duration::from_secs(60)).await;
    let world = world.redefined(BEFORE);
    let refused = world.init().await.unwrap_err().in_one_line();
    let begin = refused.find("ALTER TABLE").unwrap_or_else(|| panic!("{refused}"));
    let end = refused.find("; then run `tallymark init`").unwrap_or_else(|| panic!("{refused}"));
    world.target_sql(&refused[begin..end]).await;
    world.init().await.unwrap();
    let report = tick(&world, Duration::from_secs(60)).await;
    assert!(report.slices.iter().all(|slice| slice.outcome == Outcome::Succeeded), "{report:?}");
    assert_eq!(report.slices.len(), 4);
    world
        .assert_rows(
            "SELECT date_trunc('day', created_at, 'UTC'), kind, count(*) FROM events \
             WHERE created_at < '2025-01-05Z' GROUP BY 1, 2",
        )
        .await;
}

/// The file of `days` days, with another name for the rollup.
fn visits(days: u32) -> String {
    daily(days).replace("name = \"daily\"", "name = \"visits\"")
}

async fn count(place: &Place, sql: &str) -> String {
    lines(&place.target_url, sql).await.join(" ")
}

/// The series and the types of their rows, and the complete days of one of them.
const SERIES: &str = "SELECT (SELECT string_agg(proname, ' ') FROM pg_proc \
    WHERE pronamespace = 'stats'::regnamespace), (SELECT string_agg(typname, ' ') FROM pg_type \
    WHERE typnamespace = 'stats'::regnamespace AND typname LIKE '%series' AND typtype = 'c'), (SELECT count(*) FROM \
    stats.visits_series(now() - interval '30 days', now(), '1 day', by => '{}') WHERE events > 0)";

#[tokio::test]
async fn a_renamed_rollup_keeps_its_rows_its_progress_and_its_attempts() {
    let live = |rollups: String| rollups.replace("slice = ", "live = true\nslice = ");
    let (place, _database) = Place::with_events(4).await;
    place.configure(&live(daily(4)));
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    place.run(&["replay", "daily", "--slice", &day(2).to_string(), "--yes"]).good();
    let rows = count(&place, "SELECT * FROM stats.daily").await;
    place
        .run(&["rollup", "rename", "daily", "visits", "--yes"])
        .refused(2, &["hint: name = \"visits\""]);
    place.configure(&live(visits(4)));
    place.run(&["run"]).refused(2, &["visits", "not ready"]);
    place.run(&["rollup", "rename", "daily", "visits"]).refused(2, &["hint: --yes"]);

    let lease = claim(&place, "daily", 0).await;
    place.run(&["rollup", "rename", "daily", "visits", "--yes"]).refused(2, &["holds a slice"]);
    let now = SystemClock.now();
    place.checkpoints().yield_(&lease, &Yield::default(), now).await.unwrap();

    // Killed after the copy.
    let old = place.checkpoints().items("daily").await.unwrap();
    place.checkpoints().copy_items(&old, "visits").await.unwrap();
    let document = place.json(&["rollup", "rename", "daily", "visits", "--yes"]);
    assert_eq!(document["holdings"]["markers"], 4);
    let example = &documented("rollup")[0];
    let keys =
        |value: &serde_json::Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&document), keys(example));
    assert_eq!(keys(&document["holdings"]), keys(&example["holdings"]));
    assert_eq!(count(&place, "SELECT * FROM stats.visits").await, rows);
    assert_eq!(count(&place, "SELECT to_regclass('stats.daily') IS NULL").await, "(t)");
    assert_eq!(count(&place, SERIES).await, "(visits_series,visits_series,4)");
    let views =
        "SELECT relname FROM pg_class WHERE relnamespace = 'stats'::regnamespace AND relkind = 'v'";
    assert_eq!(count(&place, views).await, "(visits_live)");
    let days = "SELECT count(DISTINCT bucket) FROM stats.visits_live WHERE bucket < date_trunc('day', now(), 'UTC')";
    assert_eq!(count(&place, days).await, "(4)");
    assert!(place.checkpoints().items("daily").await.unwrap().is_empty());
    let replayed = instant(&format!("{}T00:00:00Z", day(2)));
    let kept = place.checkpoints().get("visits", replayed).await.unwrap().unwrap();
    assert_eq!((kept.attempt, &*kept.rollup), (2, "visits"));

    // Killed before the old items were deleted, while the new ones have changed since.
    place.run(&["replay", "visits", "--slice", &day(2).to_string(), "--yes"]).good();
    place.checkpoints().copy_items(&old, "daily").await.unwrap();
    place.run(&["rollup", "rename", "daily", "visits", "--yes"]).good();
    assert!(place.checkpoints().items("daily").await.unwrap().is_empty());
    let kept = place.checkpoints().get("visits", replayed).await.unwrap().unwrap();
    assert_eq!(kept.attempt, 3);
    let again = place.run(&["rollup", "rename", "daily", "visits", "--yes"]).good();
    assert!(again.out.contains("already"), "{again:?}");
    place.run(&["run"]).good();
    assert!(place.run(&["run"]).good().out.starts_with("nothing is due\n"));
    place.run(&["verify"]).good();
}

/// Takes a lease on a slice far in the past, which no tick looks at.
async fn claim(place: &Place, rollup: &str, day: i64) -> tallymark::checkpoint::Lease {
    let now = SystemClock.now();
    let claim = Claim {
        rollup,
        slice_start: instant("2020-01-01") + TimeDelta::days(day),
        definition: "a test",
        now,
        deadline: now + TimeDelta::minutes(2),
    };
    place.checkpoints().claim(&claim).await.unwrap()
}

#[tokio::test]
async fn a_dropped_rollup_leaves_nothing_behind() {
    let (place, _database) = Place::with_events(3).await;
    let all = format!("{}\n{}", daily(3), visits(3));
    place.configure(&all);
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    place.configure(&daily(3));
    place.run(&["rollup", "drop", "visits"]).refused(2, &["hint: --yes"]);
    place.sql("CREATE VIEW report AS SELECT * FROM stats.visits").await;
    place.run(&["rollup", "drop", "visits", "--yes"]).refused(1, &["depend"]);
    place.sql("DROP VIEW report").await;
    let lease = claim(&place, "visits", 0).await;
    place.run(&["rollup", "drop", "visits", "--yes"]).refused(2, &["holds a slice"]);
    place.checkpoints().yield_(&lease, &Yield::default(), SystemClock.now()).await.unwrap();

    let document = place.json(&["rollup", "drop", "visits", "--yes"]);
    assert_eq!((&document["action"], &document["to"]), (&json!("drop"), &json!(null)));
    let gone = "SELECT to_regclass('stats.visits'), to_regclass('tallymark.stage_visits'), \
                (SELECT count(*) FROM tallymark.slice WHERE rollup = 'visits'), \
                (SELECT count(*) FROM tallymark.rollup WHERE rollup = 'visits'), \
                to_regproc('stats.visits_series'), to_regtype('stats.visits_series')";
    assert_eq!(count(&place, gone).await, "(,,0,0,,)");
    assert!(place.checkpoints().items("visits").await.unwrap().is_empty());
    place.run(&["rollup", "drop", "visits", "--yes"]).good();
    assert!(place.run(&["run"]).good().out.starts_with("nothing is due\n"));

    place.configure(&all);
    place.run(&["run"]).refused(2, &["not ready"]);
    place.run(&["init"]).good();
    assert_eq!(place.json(&["run"])["slices"].as_array().unwrap().len(), 3);
}

/// Fifteen days, and a rollup by week that is computed from them.
fn with_weeks(finer: &str) -> String {
    let days = daily(15).replace("name = \"daily\"", &format!("name = \"{finer}\""));
    format!(
        "{days}[[rollup]]\nname = \"weekly\"\nfrom = {{ rollup = \"{finer}\" }}\nslice = \"1 week\"\n\
         group_by = [\"kind\"]\nmeasures = [\"events\", \"revenue\"]\n"
    )
}

/// Takes the next slice of the scrub of `rollup`, and records a difference.
async fn scrub(place: &Place, rollup: &str, days: u64) {
    let (checkpoints, now) = (place.checkpoints(), SystemClock.now());
    let start = day(days).and_time(chrono::NaiveTime::MIN).and_utc();
    let seen = checkpoints.scrub(rollup).await.unwrap();
    let next = seen.after(start + TimeDelta::days(1), false, now);
    assert!(checkpoints.take_scrub(rollup, &seen, &next).await.unwrap());
    let drift = Drift { found_at: now, groups: 1, attempt: 1 };
    checkpoints.record_scrub(rollup, start, Some(drift), now).await.unwrap();
}

/// The weeks that are computed from it stay attached and are not recomputed, and a late change
/// under the new name reaches them. The scrub continues where it was.
#[tokio::test]
async fn a_finer_rollup_is_renamed_under_its_coarse_one_and_is_not_dropped() {
    let (place, _database) = Place::with_events(15).await;
    place.configure(&with_weeks("daily"));
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    let weeks = count(&place, "SELECT * FROM stats.weekly").await;
    assert!(!weeks.is_empty());
    place
        .run(&["rollup", "drop", "daily", "--yes"])
        .refused(2, &["`weekly` is computed from `daily`"]);

    // Killed after the copy, while the schedule still ran.
    scrub(&place, "daily", 12).await;
    let old = place.checkpoints().items("daily").await.unwrap();
    place.checkpoints().copy_items(&old, "visits").await.unwrap();
    scrub(&place, "daily", 11).await;
    let stood = place.checkpoints().scrub("daily").await.unwrap();
    assert_eq!((stood.verified, stood.drift.len()), (2, 2));
    place.configure(&with_weeks("visits"));
    place.run(&["rollup", "rename", "daily", "visits", "--yes"]).good();
    assert_eq!(place.checkpoints().scrub("visits").await.unwrap(), stood);
    let finer = "SELECT rollup, finer FROM tallymark.checked ORDER BY 1";
    assert_eq!(count(&place, finer).await, "(visits,) (weekly,visits)", "as readers know them");
    assert!(place.checkpoints().items("daily").await.unwrap().is_empty());
    // Killed before the old items were deleted, while the new ones have changed since.
    scrub(&place, "visits", 10).await;
    place.checkpoints().copy_items(&old, "visits").await.unwrap();
    assert_eq!(place.checkpoints().scrub("visits").await.unwrap().verified, 3);

    assert!(place.run(&["run"]).good().out.starts_with("nothing is due\n"));
    assert_eq!(count(&place, "SELECT * FROM stats.weekly").await, weeks);
    place.sql("INSERT INTO events SELECT min(bucket), 'late', 1 FROM stats.weekly").await;
    let start = count(&place, "SELECT min(bucket)::date FROM stats.weekly").await;
    let start = start.trim_matches(['(', ')']);
    place.run(&["replay", "visits", "--slice", start, "--yes"]).good();
    let ran = place.json(&["run"]);
    let names: Vec<_> = ran["slices"].as_array().unwrap().iter().map(|it| &it["rollup"]).collect();
    assert_eq!(names, ["weekly"]);
    place.run(&["verify"]).good();

    place.configure(&visits(15));
    place.run(&["rollup", "drop", "visits", "--yes"]).good();
    assert!(place.checkpoints().items("visits").await.unwrap().is_empty(), "nor its scrub");
}
