//! Rollups whose buckets are dates of their zone.

use std::sync::Arc;

use tallymark::model::clock::Deadline;
use tallymark::model::hint::Hinted as _;
use tallymark::tick;

use crate::support::world::{BUDGET, EVENTS, Setup, World, clock, records};

const ZONE: &str = "America/New_York";

/// Days as dates, and what is computed from them. Weeks are dates again, months are instants.
fn rollups(slice: &str, zone: &str, bucket_as: &str) -> String {
    format!(
        r#"
[[rollup]]
name = "daily"
from = "public.events"
time = "created_at"
start = "2025-10-01"
slice = "{slice}"
bucket = "1 day"
bucket_as = "{bucket_as}"
timezone = "{zone}"
group_by = ["kind"]
measures = {{ events = "count", high = {{ max = "amount" }} }}

[[rollup]]
name = "weekly"
from = {{ rollup = "daily" }}
start = "2025-10-05"
slice = "1 week"
week_start = "sunday"
bucket_as = "date"
group_by = ["kind"]
measures = ["events", "high"]

[[rollup]]
name = "monthly"
from = {{ rollup = "daily" }}
slice = "1 month"
measures = ["events"]
"#
    )
}

/// Rows of October and November, with some at midnight, and one right before it.
fn events() -> String {
    format!(
        "{EVENTS}; INSERT INTO events (created_at, kind, amount) \
         SELECT t + shift, 'k' || (extract(epoch FROM t)::bigint / 7200 % 2), extract(day FROM t) \
         FROM generate_series('2025-10-01'::timestamp, '2025-12-02', '2 hours') it (local), \
         unnest(ARRAY['0', '-0.000001 seconds']::interval[]) shift, \
         LATERAL (SELECT local AT TIME ZONE '{ZONE}' AS t) at"
    )
}

async fn world(across: bool) -> World {
    let clock = Arc::new(clock("2025-12-01T12:00:00Z"));
    let rollups = rollups("1 day", ZONE, "date");
    World::new(&events(), Setup { rollups: &rollups, across, clock, ..Setup::default() }).await
}

async fn work_off(world: &World) {
    let clock = &*world.worker.clock;
    for _ in 0..20 {
        let deadline = Deadline::after(clock, BUDGET);
        let report = tick::run(&world.worker, clock.now(), deadline, None).await.unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        if report.slices.is_empty() && report.left == 0 {
            return;
        }
    }
    panic!("work is left after twenty ticks");
}

/// Every rollup equals one `GROUP BY` over the source.
async fn is_exact(world: &World) {
    let local = format!("created_at AT TIME ZONE '{ZONE}'");
    let within = |from: &str, to: &str| format!("{local} >= '{from}' AND {local} < '{to}'");
    let days = within("2025-10-01", "2025-12-01");
    let weeks = within("2025-10-05", "2025-11-30");
    let expected = [
        (
            "daily",
            format!(
                "SELECT ({local})::date, kind, count(*), max(amount) FROM events WHERE {days} GROUP BY 1, 2"
            ),
        ),
        (
            "weekly",
            format!(
                "SELECT date_trunc('week', {local} + interval '1 day')::date - 1, kind, count(*), \
                 max(amount) FROM events WHERE {weeks} GROUP BY 1, 2"
            ),
        ),
        (
            "monthly",
            format!(
                "SELECT date_trunc('month', created_at, '{ZONE}'), count(*) FROM events WHERE {days} GROUP BY 1"
            ),
        ),
    ];
    for (name, sql) in expected {
        let found = records(&world.target, &format!("SELECT * FROM stats.{name}")).await;
        let wanted = records(&world.pool, &sql).await;
        assert!(!wanted.is_empty());
        assert_eq!(found, wanted, "{name}");
    }
}

/// Tallymark's own comparison agrees.
async fn is_verified(world: &World) {
    for rollup in &world.worker.config.rollups {
        let until = rollup.newest(world.worker.clock.now()).unwrap().end().to_rfc3339();
        world.assert_one_verified(rollup, &until).await;
    }
}

/// Clocks go back on 2 November.
#[tokio::test]
async fn days_weeks_and_months_that_are_dates_equal_one_group_by() {
    for across in [false, true] {
        let world = world(across).await;
        work_off(&world).await;
        is_exact(&world).await;
        // A group that vanishes, a group that is new, and a row that was tampered with.
        world
            .sql(
                "DELETE FROM events WHERE kind = 'k1' AND created_at >= '2025-11-02T04:00Z' \
                   AND created_at < '2025-11-03T05:00Z'",
            )
            .await;
        world
            .sql("INSERT INTO events (created_at, kind) VALUES ('2025-11-02T05:30Z', 'new')")
            .await;
        world.target_sql("UPDATE stats.daily SET events = 0 WHERE bucket = '2025-10-10'").await;
        for day in ["2025-11-02T04:00:00Z", "2025-10-10T04:00:00Z"] {
            world.replay(day).await;
        }
        work_off(&world).await;
        is_exact(&world).await;
        is_verified(&world).await;
    }
}

/// The days alone, with other slices.
fn days(slice: &str, start: &str) -> String {
    let rollups = rollups(slice, ZONE, "date").replacen("2025-10-01", start, 1);
    rollups.split("\n[[rollup]]\nname = \"weekly\"").next().unwrap().to_owned()
}

#[tokio::test]
async fn another_width_of_slices_leaves_no_date_of_the_one_before() {
    let mut world = world(false).await;
    for slice in ["1 week", "1 month", "1 day"] {
        let start = if slice == "1 week" { "2025-10-06" } else { "2025-10-01" };
        world = world.redefined(&days(slice, start));
        work_off(&world).await;
        let rollup = world.rollup();
        let seen = world.worker.checkpoints.watermark("daily").await.unwrap();
        let outside = world.worker.target.outside(rollup, seen.generation()).await.unwrap();
        assert_eq!(outside.rows, 0, "{slice}: {outside:?}");
        let until = rollup.newest(world.worker.clock.now()).unwrap().end().to_rfc3339();
        let local = format!("created_at AT TIME ZONE '{ZONE}'");
        world
            .assert_rows(&format!(
                "SELECT ({local})::date, kind, count(*), max(amount) FROM events \
                 WHERE {local} >= '{start}' AND created_at < '{until}' GROUP BY 1, 2"
            ))
            .await;
    }
    let later = world.redefined(&days("1 day", "2025-11-01"));
    let seen = later.worker.checkpoints.watermark("daily").await.unwrap();
    let outside = later.worker.target.outside(later.rollup(), seen.generation()).await.unwrap();
    let bounds = [outside.first, outside.last].map(|at| at.unwrap().to_rfc3339());
    assert_eq!(outside.rows, 62);
    assert_eq!(bounds, ["2025-10-01T04:00:00+00:00", "2025-10-31T04:00:00+00:00"]);
    let deleted = later.worker.target.delete_outside(later.rollup(), seen.generation()).await;
    assert_eq!(deleted.unwrap(), 62);
    let left = "SELECT min(bucket) || ' ' || count(*) FROM stats.daily";
    assert_eq!(later.target_value(left).await, "2025-11-01 60");
}

#[tokio::test]
async fn another_zone_or_type_of_the_bucket_is_refused() {
    let world = world(false).await;
    let refused = |rollups: String| {
        let world = world.redefined(&rollups);
        async move { world.init().await.unwrap_err() }
    };
    let error = refused(rollups("1 day", "Europe/Berlin", "date")).await;
    assert_eq!(
        error.to_string(),
        "rollup `daily`: table \"stats\".\"daily\" keeps dates of America/New_York, and the rollup now \
         follows Europe/Berlin"
    );
    let hint = error.hint().unwrap().into_owned();
    assert!(hint.contains("set timezone = \"America/New_York\" again"), "{hint}");
    let error = refused(rollups("1 day", ZONE, "timestamptz")).await;
    assert!(error.to_string().contains("has column \"bucket\" of type date"), "{error}");
    assert!(error.hint().unwrap().contains("new name"));
}
