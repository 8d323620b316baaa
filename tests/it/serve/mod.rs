//! `tallymark serve`: ticks on a schedule and over HTTP, on real servers.

mod browser;
mod calls;
mod console;
mod frozen;
mod hosts;
mod http;
mod rights;
mod schedule;

use crate::support::Database;
use crate::support::cli::{Place, daily, lines};

/// Where checkpoints are kept, as the configuration says it.
const STORES: [&str; 2] = ["", "[checkpoint]\nstore = \"postgres\"\n"];

/// The days of events in a place.
const DAYS: u32 = 4;

/// A view of the events whose every row takes as long as the table `nap` says.
const SLOW: &str = "CREATE TABLE nap AS SELECT 0.0 AS seconds; \
    CREATE FUNCTION slow(timestamptz) RETURNS SETOF boolean LANGUAGE plpgsql VOLATILE ROWS 5000 \
    AS 'BEGIN PERFORM pg_sleep(seconds) FROM nap; RETURN NEXT true; END'; \
    CREATE VIEW slow_events AS SELECT e.* FROM events e CROSS JOIN LATERAL slow(e.at)";

/// The result of one GROUP BY over the source.
const TRUTH: &str = "SELECT date_trunc('day', at, 'UTC') AS bucket, kind, count(*) AS events, \
                     sum(amount) AS revenue FROM events GROUP BY 1, 2";
const ROLLUP: &str = "SELECT bucket, kind, events, revenue FROM stats.daily";

/// Slices with the number of their newest attempt.
const ATTEMPTS: &str = "SELECT slice_start, attempt FROM tallymark.slice";

/// Tallymark's running statements on the slow view.
const RUNNING: &str = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'tallymark daily@%' \
    AND state = 'active' AND datname = current_database() AND query LIKE '%slow_events%'";

/// A place with events, with tables for the rollup `daily` of the slow view.
async fn place(store: &str) -> (Place, Database) {
    let (mut place, database) = Place::with_events(DAYS).await;
    let rollups = daily(DAYS).replace("public.events", "public.slow_events");
    place.configure_source("nice_ratio = 0\nslots = 2", &format!("{store}{rollups}"));
    if !store.is_empty() {
        place.stop_dynamo();
    }
    place.sql(SLOW).await;
    place.run(&["init"]).good();
    (place, database)
}

/// From now on each row takes this long to read.
async fn nap(place: &Place, seconds: f64) {
    place.sql(&format!("UPDATE nap SET seconds = {seconds}")).await;
}

/// The rollup equals the source.
async fn is_right(place: &Place) {
    let truth = lines(&place.source_url, TRUTH).await;
    assert_eq!(lines(&place.target_url, ROLLUP).await, truth);
    assert!(!truth.is_empty());
    let left = "SELECT (SELECT count(*) FROM tallymark.stage_daily), \
                (SELECT count(*) FROM tallymark.progress), \
                (SELECT count(*) FROM tallymark.slice WHERE replaced_at IS NULL)";
    assert_eq!(lines(&place.target_url, left).await, ["(0,0,0)"]);
}

/// Each slice was computed by one attempt.
async fn is_once(place: &Place) {
    let attempts = lines(&place.target_url, ATTEMPTS).await;
    assert_eq!(attempts.len(), DAYS as usize, "{attempts:?}");
    assert!(attempts.iter().all(|row| row.ends_with(",1)")), "{attempts:?}");
}
