//! One rollup under one calendar after another. The table always equals one `GROUP BY` by the
//! present calendar, and no success of another calendar is trusted.

use std::sync::Arc;

use tallymark::check::repair;
use tallymark::checkpoint::Claim;
use tallymark::fanout;
use tallymark::model::clock::{Deadline, ManualClock};
use tallymark::tick;
use tallymark::work::backfill::{self, Silent};
use tallymark::work::replay;
use tallymark::work::report::Outcome;
use tallymark::work::slice_run::{self, RunOptions};
use tallymark::work::standings;
use tallymark::work::worker::Joining;

use serde_json::json;

use crate::cli::is_documented;
use crate::support::cli::{Place, daily, day};
use crate::support::share::{self, Long};
use crate::support::world::{
    BUDGET, EVENTS, Setup, World, batch, clock, init, install_capture, instant,
};
use tallymark::model::slice::Order;

/// An event every 20 minutes, from 2025-12-29 to 2026-01-20, and a few unusual ones.
fn events() -> String {
    format!(
        "{EVENTS}; INSERT INTO events (created_at, kind, amount) \
         SELECT t, 'k' || (extract(epoch FROM t)::bigint / 1200 % 2), 1 FROM \
         generate_series('2025-12-29Z'::timestamptz, '2026-01-20Z', '20 minutes') t"
    )
}

#[derive(Clone, Copy)]
struct Cut {
    slice: &'static str,
    zone: &'static str,
    start: &'static str,
}

const UTC_DAYS: Cut = Cut { slice: "1 day", zone: "UTC", start: "2026-01-01" };
const NEW_YORK: Cut = Cut { slice: "1 day", zone: "America/New_York", start: "2026-01-01" };

impl Cut {
    fn rollup(self, more: &str) -> String {
        let Self { slice, zone, start } = self;
        format!(
            "[[rollup]]\nname = \"daily\"\nfrom = \"public.events\"\ntime = \"created_at\"\n\
             start = \"{start}\"\nslice = \"{slice}\"\ntimezone = \"{zone}\"\ngroup_by = [\"kind\"]\n\
             measures = {{ events = \"count\" }}\n{more}\n"
        )
    }

    /// The expected content of the rollup at `now`, by PostgreSQL's own calendar.
    fn expected(self, world: &World) -> String {
        let rollup = world.rollup();
        let newest = rollup.newest(world.worker.clock.now()).unwrap();
        let unit = self.slice.rsplit(' ').next().unwrap();
        format!(
            "SELECT date_trunc('{unit}', created_at, '{}'), kind, count(*) FROM events \
             WHERE created_at >= '{}' AND created_at < '{}' GROUP BY 1, 2",
            self.zone,
            rollup.start.to_rfc3339(),
            newest.end().to_rfc3339()
        )
    }
}

/// Ticks until every due slice is done.
async fn work_off(world: &World) {
    for _ in 0..20 {
        let deadline = Deadline::after(&*world.worker.clock, BUDGET);
        let report =
            tick::run(&world.worker, world.worker.clock.now(), deadline, None).await.unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        let bad = |it: &&tallymark::work::report::SliceReport| !it.is_success();
        assert!(report.slices.iter().find(bad).is_none(), "{:?}", report.slices);
        if report.slices.is_empty() {
            return;
        }
    }
    panic!("there is no end of it");
}

async fn assert_cut(world: &World, cut: Cut) {
    let until = world.rollup().newest(world.worker.clock.now()).unwrap().end();
    world.assert_rows(&cut.expected(world)).await;
    world.assert_verified(&until.to_rfc3339()).await;
    let markers = format!(
        "SELECT count(*) FROM tallymark.slice a JOIN tallymark.slice b USING (rollup) \
         WHERE a.slice_start < b.slice_start AND a.slice_end > b.slice_start AND rollup = '{}'",
        world.rollup().name
    );
    assert_eq!(world.target_value(&markers).await, "0", "markers overlap");
    let seen = world.worker.checkpoints.watermark(&world.rollup().name).await.unwrap();
    let outside = world.worker.target.outside(world.rollup(), seen.generation()).await.unwrap();
    assert_eq!(outside.rows, 0, "{outside:?}");
}

fn at_noon() -> Arc<ManualClock> {
    Arc::new(clock("2026-01-12T12:00:00Z"))
}

async fn world(cut: Cut) -> World {
    let setup = Setup { rollups: &cut.rollup(""), clock: at_noon(), ..Setup::default() };
    World::new(&events(), setup).await
}

#[tokio::test]
async fn a_calendar_that_changes_and_changes_back_leaves_no_row_of_another() {
    if !share::plays(Long::Calendars) {
        return;
    }
    let mut world = world(UTC_DAYS).await;
    work_off(&world).await;
    assert_cut(&world, UTC_DAYS).await;
    let hours = Cut { slice: "1 hour", ..UTC_DAYS };
    let weeks = Cut { slice: "1 week", start: "2025-12-29", ..NEW_YORK };
    let kathmandu = Cut { slice: "1 hour", zone: "Asia/Kathmandu", ..UTC_DAYS };
    let cuts = [NEW_YORK, UTC_DAYS, hours, kathmandu, weeks, UTC_DAYS];
    for cut in cuts {
        world = world.redefined(&cut.rollup(""));
        work_off(&world).await;
        if cut.start > weeks.start {
            let seen = world.worker.checkpoints.watermark("daily").await.unwrap();
            // Rows before the later `start` are reported, and deleted on request.
            world.worker.target.delete_outside(world.rollup(), seen.generation()).await.unwrap();
        }
        assert_cut(&world, cut).await;
    }
}

/// Before the slices beside it are replaced: nothing is there twice meanwhile.
#[tokio::test]
async fn a_slice_takes_away_the_rows_of_another_calendars_slices_that_it_overlaps() {
    let utc = world(UTC_DAYS).await;
    work_off(&utc).await;
    let beside = "SELECT count(*) FROM stats.daily WHERE bucket >= '2026-01-05Z' AND bucket < '2026-01-07Z' \
                  AND NOT (bucket >= '2026-01-05T05:00Z' AND bucket < '2026-01-06T05:00Z')";
    assert_ne!(utc.target_value(beside).await, "0");
    let new_york = utc.redefined(&NEW_YORK.rollup(""));
    assert_eq!(new_york.run("2026-01-05T05:00:00Z").await.outcome, Outcome::Succeeded);
    assert_eq!(new_york.target_value(beside).await, "0");
}

/// A year is the widest slice, and this is its last hour.
/// Each of them takes away what the day has outside of its hour, and the next ones find theirs as they
/// should be.
#[tokio::test]
async fn workers_at_once_take_no_hour_of_a_former_day_from_each_other() {
    let world = world(UTC_DAYS).await;
    let by_hours = |slice: &'static str| {
        let cut = Cut { slice, ..UTC_DAYS };
        cut.rollup("").replace("timezone", "bucket = \"1 hour\"\ntimezone")
    };
    let changed = |slice: &'static str| {
        world.changed("nice_ratio = 0\nslots = 4", &by_hours(slice), at_noon())
    };
    let days = changed("1 day");
    days.init().await.unwrap();
    days.backfill("2026-01-05", false).await;
    // Between the replacement of a worker's rows and its marker others replace theirs.
    let slowly = "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                  PERFORM pg_sleep(0.05); RETURN NULL; END $$; \
                  CREATE TRIGGER slowly AFTER INSERT ON stats.daily EXECUTE FUNCTION slowly()";
    world.target_sql(slowly).await;
    let mut hours = changed("1 hour");
    hours.worker.joining = Joining { after: 40, ..hours.worker.joining };
    hours.init().await.unwrap();
    assert_eq!(hours.backfill("2026-01-05", false).await.succeeded, 96);
    hours.assert_verified("2026-01-05").await;
}

#[tokio::test]
async fn an_hour_takes_away_the_rows_of_a_month_or_year_that_began_long_before() {
    for (width, start) in [("1 month", "2025-12-01"), ("1 year", "2025-01-01")] {
        let wide = world(Cut { slice: width, start, ..UTC_DAYS }).await;
        assert_eq!(wide.run(start).await.outcome, Outcome::Succeeded);
        let of_slice = format!("SELECT count(*) FROM stats.daily WHERE bucket = '{start}Z'");
        assert_ne!(wide.target_value(&of_slice).await, "0", "{width}");
        let hours = Cut { slice: "1 hour", start, ..UTC_DAYS };
        let hours = wide.redefined(&hours.rollup(""));
        assert_eq!(hours.run("2025-12-31T23:00:00Z").await.outcome, Outcome::Succeeded);
        assert_eq!(hours.target_value(&of_slice).await, "0", "{width}");
    }
}

#[tokio::test]
async fn a_success_of_another_calendar_is_not_trusted_even_where_nothing_replaced_it() {
    let utc = world(UTC_DAYS).await;
    work_off(&utc).await;
    let new_york = utc.redefined(&NEW_YORK.rollup(""));
    assert_eq!(new_york.run("2026-01-05T05:00:00Z").await.outcome, Outcome::Succeeded);
    let back = utc.redefined(&UTC_DAYS.rollup(""));
    let due =
        standings::of(&back.worker, back.rollup(), back.worker.clock.now()).await.unwrap().plan;
    assert_eq!(due.due().count(), 11, "{due:?}");
    work_off(&back).await;
    assert_cut(&back, UTC_DAYS).await;
}

#[tokio::test]
async fn a_worker_of_the_calendar_before_cannot_replace_rows_of_the_present_one() {
    let old = world(UTC_DAYS).await;
    assert_eq!(old.run("2026-01-03").await.outcome, Outcome::Succeeded);
    let cut = Cut { zone: "Asia/Kathmandu", ..UTC_DAYS };
    let new = old.redefined(&cut.rollup(""));
    work_off(&new).await;
    assert_cut(&new, cut).await;
    // Its process has been running since before the change, and does not know of it.
    let report = old.run("2026-01-05").await;
    assert_eq!(report.outcome, Outcome::Yielded, "{report:?}");
    assert!(report.reason.unwrap().contains("calendar has changed"));
    assert_cut(&new, cut).await;
}

#[tokio::test]
async fn checkpoints_lost_after_a_change_are_rebuilt_by_the_present_calendar() {
    let utc = world(UTC_DAYS).await;
    work_off(&utc).await;
    let new_york = utc.redefined(&NEW_YORK.rollup(""));
    for start in ["2026-01-03T05:00:00Z", "2026-01-08T05:00:00Z"] {
        assert_eq!(new_york.run(start).await.outcome, Outcome::Succeeded);
    }
    let lost = World::at(
        utc.urls.clone(),
        Setup { rollups: &NEW_YORK.rollup(""), clock: at_noon(), ..Setup::default() },
    )
    .await;
    let report = repair::run(&lost.worker, lost.rollup(), false).await.unwrap();
    assert_eq!(report.restored, ["2026-01-03T05:00:00Z", "2026-01-08T05:00:00Z"].map(instant));
    work_off(&lost).await;
    assert_cut(&lost, NEW_YORK).await;
}

#[tokio::test]
async fn a_start_moved_forth_and_back_counts_what_came_meanwhile() {
    let more = "late = \"capture\"";
    let later = Cut { start: "2026-01-06", ..UTC_DAYS };
    let setup = Setup { rollups: &UTC_DAYS.rollup(more), clock: at_noon(), ..Setup::default() };
    let world = World::new(&events(), setup).await;
    install_capture(&world.worker).await;
    work_off(&world).await;
    let moved = world.redefined(&later.rollup(more));
    moved.sql("INSERT INTO events (created_at, kind) VALUES ('2026-01-03T10:00Z', 'k0')").await;
    work_off(&moved).await;
    let seen = moved.worker.checkpoints.watermark("daily").await.unwrap();
    let outside = moved.worker.target.outside(moved.rollup(), seen.generation()).await.unwrap();
    assert_eq!((outside.rows, outside.first), (10, Some(instant("2026-01-01"))));
    let back = moved.redefined(&UTC_DAYS.rollup(more));
    work_off(&back).await;
    assert_cut(&back, UTC_DAYS).await;
}

#[tokio::test]
async fn a_start_moved_back_by_a_tick_alone_is_noticed() {
    let later = Cut { start: "2026-01-06", ..UTC_DAYS };
    let world = world(later).await;
    work_off(&world).await;
    let back = world.redefined(&UTC_DAYS.rollup(""));
    work_off(&back).await;
    assert_cut(&back, UTC_DAYS).await;
}

#[tokio::test]
async fn a_coarse_rollup_follows_the_calendar_of_its_finer_one() {
    let both = |cut: Cut| {
        format!(
            "{}[[rollup]]\nname = \"weekly\"\nfrom = {{ rollup = \"daily\" }}\nslice = \"1 week\"\n\
             group_by = [\"kind\"]\n\
             measures = [\"events\"]\n",
            cut.rollup("")
        )
    };
    let setup = Setup { rollups: &both(UTC_DAYS), clock: at_noon(), ..Setup::default() };
    let mut world = World::new(&events(), setup).await;
    init(&world.worker).await.unwrap();
    work_off(&world).await;
    for cut in [NEW_YORK, UTC_DAYS] {
        world = world.redefined(&both(cut));
        work_off(&world).await;
        assert_cut(&world, cut).await;
        let weekly = world.worker.config.rollup("weekly").unwrap();
        let until = weekly.newest(world.worker.clock.now()).unwrap().end().to_rfc3339();
        world.assert_one_verified(weekly, &until).await;
        let outside = world.worker.target.outside(weekly, 9).await.unwrap();
        assert!(outside.rows > 0, "all of them are of an older generation than 9");
        let seen = world.worker.checkpoints.watermark("weekly").await.unwrap();
        let outside = world.worker.target.outside(weekly, seen.generation()).await.unwrap();
        assert_eq!(outside.rows, 0, "{outside:?}");
    }
}

#[tokio::test]
async fn sealed_history_of_another_calendar_stays_and_is_not_cut_through() {
    let world = world(UTC_DAYS).await;
    work_off(&world).await;
    let sealed = world.redefined(&NEW_YORK.rollup("seal_before = \"2026-01-06\""));
    // The first slice behind the seal begins inside a sealed day of UTC.
    let report = sealed.run("2026-01-06T05:00:00Z").await;
    assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
    assert!(report.reason.unwrap().contains("seal_before"));
    assert_eq!(sealed.run("2026-01-07T05:00:00Z").await.outcome, Outcome::Succeeded);
    let days = "SELECT count(DISTINCT bucket) FROM stats.daily WHERE bucket < '2026-01-06Z'";
    assert_eq!(sealed.target_value(days).await, "5");
}

#[tokio::test]
async fn a_wider_slice_does_not_erase_what_the_source_has_purged() {
    let world = world(UTC_DAYS).await;
    work_off(&world).await;
    world.sql("DELETE FROM events WHERE created_at < '2026-01-05Z'").await;
    let weeks = Cut { slice: "1 week", start: "2025-12-29", ..UTC_DAYS };
    let weekly = world.redefined(&weeks.rollup(""));
    let report = weekly.run("2025-12-29").await;
    assert_eq!(report.outcome, Outcome::Failed, "{report:?}");
    assert!(report.reason.unwrap().contains("shrink_guard"));
    let deadline = Deadline::after(&*weekly.worker.clock, BUDGET);
    let options = RunOptions { allow_shrink: true, ..RunOptions::default() };
    weekly.reopen("2025-12-29").await;
    let slice = weekly.slice("2025-12-29");
    let report = slice_run::run_slice(&weekly.worker, weekly.rollup(), slice, deadline, options)
        .await
        .unwrap();
    assert_eq!(report.outcome, Outcome::Succeeded);
}

#[tokio::test]
async fn an_empty_hour_at_midnight_is_no_shrunk_day() {
    let world = world(UTC_DAYS).await;
    work_off(&world).await;
    world
        .sql("DELETE FROM events WHERE extract(hour FROM created_at AT TIME ZONE 'UTC') = 0")
        .await;
    let hours = Cut { slice: "1 hour", ..UTC_DAYS };
    let hourly = world.redefined(&hours.rollup(""));
    work_off(&hourly).await;
    assert_cut(&hourly, hours).await;
}

/// Every day's rows, and the watermark's item, as the target and the checkpoints have them.
async fn everything(world: &World) -> String {
    let seen = world.worker.checkpoints.watermark("daily").await.unwrap();
    let from = instant("2025-12-01");
    let until = instant("2026-02-01");
    let all = world.worker.checkpoints.range("daily", from, until).await.unwrap();
    format!("{seen:?} {all:?}")
}

#[tokio::test]
async fn a_definition_that_does_not_fit_changes_no_checkpoint() {
    let world = world(UTC_DAYS).await;
    work_off(&world).await;
    let before = everything(&world).await;
    let unfit = UTC_DAYS.rollup("").replace("\"kind\"", "\"id\"");
    for rollups in
        [unfit.clone(), unfit.replace("\"UTC\"", "\"Asia/Tokyo\""), format!("{unfit}lookback = 2")]
    {
        let other = world.redefined(&rollups);
        let deadline = Deadline::after(&*other.worker.clock, BUDGET);
        let now = other.worker.clock.now();
        let report = tick::run(&other.worker, now, deadline, None).await.unwrap();
        assert_eq!((report.slices.len(), report.problems.len()), (0, 1), "{report:?}");
        let slices = [other.rollup().calendar.containing(instant("2026-01-05"))];
        let replay =
            backfill::replay(&other.worker, other.rollup(), &slices, "test", batch(), &Silent)
                .await;
        assert!(replay.is_err());
        let range = (other.rollup().start, None);
        let order = Order::NewestFirst;
        let backfill =
            fanout::start_backfill(&other.worker, other.rollup(), range, order, true, "test");
        assert!(backfill.await.is_err());
        assert!(everything(&world).await == before, "something was written for {rollups}");
    }
}

#[tokio::test]
async fn what_failed_is_replayed_as_far_as_it_is_of_this_calendar() {
    let world = world(UTC_DAYS).await;
    for start in ["2026-01-02", "2026-01-04", "2026-01-06", "2026-01-08"] {
        let lease = claim(&world, start).await;
        let now = world.worker.clock.now();
        world.worker.checkpoints.fail(&lease, "planted", false, now).await.unwrap();
    }
    let failed = async |cut: Cut, more: &str| {
        let other = world.redefined(&cut.rollup(more));
        let slices = replay::failed_slices(&other.worker, other.rollup()).await.unwrap();
        let unfinished = replay::unfinished(&other.worker, other.rollup()).await.unwrap();
        assert_eq!(unfinished.len(), slices.len());
        slices.iter().map(|slice| slice.start().to_rfc3339()[..10].to_owned()).collect::<Vec<_>>()
    };
    let all = ["2026-01-08", "2026-01-06", "2026-01-04", "2026-01-02"];
    assert_eq!(failed(UTC_DAYS, "").await, all);
    assert_eq!(failed(Cut { start: "2026-01-03", ..UTC_DAYS }, "").await, all[..3]);
    assert_eq!(failed(UTC_DAYS, "seal_before = \"2026-01-05\"").await, all[..2]);
    assert!(failed(NEW_YORK, "").await.is_empty());
}

async fn claim(world: &World, start: &str) -> tallymark::checkpoint::Lease {
    let now = world.worker.clock.now();
    let request = Claim {
        rollup: "daily",
        slice_start: instant(start),
        definition: &world.rollup().definition(),
        now,
        deadline: now + chrono::TimeDelta::minutes(1),
    };
    world.worker.checkpoints.claim(&request).await.unwrap()
}

#[tokio::test]
async fn a_sealed_slice_that_is_replayed_stays_as_it_is() {
    let world = world(UTC_DAYS).await;
    work_off(&world).await;
    let before = everything(&world).await;
    let sealed = world.redefined(&UTC_DAYS.rollup("seal_before = \"2026-01-06\""));
    let slices = [sealed.slice("2026-01-03")];
    let replay =
        backfill::replay(&sealed.worker, sealed.rollup(), &slices, "test", batch(), &Silent).await;
    assert_eq!(replay.unwrap().refused.len(), 1);
    assert!(everything(&world).await == before, "something was written");
}

/// The messages to the operator, at default settings.
#[tokio::test]
async fn commands_tell_of_a_calendar_that_changed_and_of_rows_outside_of_it() {
    let (place, _database) = Place::with_events(6).await;
    place.run(&["init"]).good();
    place.run(&["backfill", "daily", "--yes"]).good();
    let zone = |zone: &str| {
        let zone = format!("timezone = \"{zone}\"\n[rollup.measures]");
        place.configure(&daily(6).replace("[rollup.measures]", &zone));
    };
    zone("America/New_York");
    let told = place.run(&["check"]).out;
    assert!(told.contains("the calendar has changed from 1 day, UTC to 1 day, America/New_York"));
    let init = place.json(&["init"]);
    is_documented(&init, "init", 0);
    assert_eq!(init["calendars"][0]["before"], "1 day, UTC");
    assert!(init["calendars"][0]["slices"].as_u64().unwrap() >= 5, "{init}");
    place.run(&["verify"]).refused(1, &["belong to no slice"]);
    place.run(&["run"]).good();
    place.run(&["verify"]).good();
    zone("UTC");
    place.run(&["run"]).good();
    let verify = place.json(&["verify"]);
    is_documented(&verify, "verify", 0);
    assert_eq!((&verify["slices"], &verify["differences"]), (&json!(6), &json!(0)));
    place.configure(&daily(4));
    let verify = place.run(&["verify"]);
    verify.refused(1, &["belong to no slice"]);
    assert!(verify.out.contains("--delete-outside"), "{verify:?}");
    place
        .run(&["replay", "daily", "--slice", &day(6).to_string(), "--yes"])
        .refused(2, &["hint: lower `start`"]);
    place
        .run(&["replay", "daily", "--from", &day(6).to_string(), "--yes"])
        .refused(2, &["hint: lower `start`"]);
    place
        .run(&["run", "daily", "--slice", &day(6).to_string()])
        .refused(2, &["hint: lower `start`"]);
    let init = place.json(&["init", "--delete-outside"]);
    is_documented(&init, "init", 0);
    assert_eq!(init["calendars"][0]["deleted"], 6);
    place.run(&["verify"]).good();
    place.configure(&daily(6));
    place.run(&["run"]).good();
    assert_eq!(place.json(&["verify"])["slices"], 6);
}
