//! Settings of a role or a database, one at a time. None of them changes a number.

use crate::support::world::{Setup, World, records};
use crate::waits::SETTINGS;

/// Values and conditions that another setting reads or writes differently: an array with NULL in
/// it, a date, an interval of mixed signs, bytes, a number of 17 digits, a backslash, a comparison
/// with NULL, a local day.
const SOURCE: &str = r"CREATE TABLE events (at timestamptz, tags text[], day date, span interval, bytes bytea,
    ratio float8, kind text); CREATE INDEX ON events (at);
    INSERT INTO events SELECT '2026-01-01Z'::timestamptz + n * interval '1 hour', ARRAY[NULL, 'NULL', 'a\b'],
        '2026-03-04', interval '-1 mon +2 days -03:04:05', '\x00ff5c', 0.1 + n % 3 / 7.0, 'a\b'
    FROM generate_series(0, 23) n";

const ROLLUP: &str = r#"
[[rollup]]
name = "daily"
from = "public.events"
time = "at"
start = "2026-01-01"
slice = "1 day"
bucket = "1 hour"
group_by = ["tags", "day", "span", "bytes"]
where = "kind = 'a\\b' AND (kind = NULL) IS NULL AND extract(hour FROM at) < 20"

[rollup.measures]
events = "count"
least = { min = "ratio" }
"#;

const EXPECTED: &str = "SELECT date_trunc('hour', at), tags, day, span, bytes, count(*), min(ratio) FROM events \
    WHERE at < '2026-01-01T20:00Z' GROUP BY 1, 2, 3, 4, 5";

#[tokio::test]
async fn no_setting_of_a_role_or_a_database_changes_a_number() {
    let setup = Setup { rollups: ROLLUP, across: true, ..Setup::default() };
    let world = World::new(SOURCE, setup).await;
    assert_eq!(world.backfill("2026-01-02", false).await.succeeded, 1);
    // By sessions that are older than every setting.
    world.assert_rows(EXPECTED).await;
    let expected = records(&world.pool, EXPECTED).await;
    assert_eq!(expected.len(), 20);
    let name = |url: &str| url.rsplit('/').next().unwrap().to_owned();
    let source = name(&world.urls.source);
    let target = name(world.urls.target.as_deref().unwrap());
    for setting in SETTINGS {
        for place in [
            format!("DATABASE {source}"),
            format!("ROLE CURRENT_USER IN DATABASE {source}"),
            format!("ROLE CURRENT_USER IN DATABASE {target}"),
        ] {
            world.sql(&format!("ALTER {place} SET {setting}")).await;
            world.worker.close().await;
            let ended = world.replay("2026-01-01").await;
            assert!(ended.is_success(), "{place}: {setting}: {ended:?}");
            assert_eq!(world.rows().await, expected, "{place}: {setting}");
            world.sql(&format!("ALTER {place} RESET ALL")).await;
        }
    }
    world.worker.close().await;
    world.assert_verified("2026-01-02").await;
}
