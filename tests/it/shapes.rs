//! DDL that changes the values behind computed slices makes every slice run again.

use std::sync::Arc;

use tallymark::model::clock::Deadline;
use tallymark::tick;

use crate::support::world::{BUDGET, Setup, World, clock};

const SOURCE: &str = "CREATE TABLE sales (id int, at timestamptz, kind text, amount numeric, other int); \
    CREATE INDEX ON sales (at); INSERT INTO sales SELECT n, '2026-01-01Z'::timestamptz + n * interval \
        '20 minutes', 'k' || n % 2, n + 0.125, n FROM generate_series(0, 500) n;";

fn rollup(from: &str, more: &str) -> String {
    format!(
        "[[rollup]]\nname = \"daily\"\nfrom = \"public.{from}\"\ntime = \"at\"\nstart = \"2026-01-01\"\n\
         slice = \"1 day\"\ngroup_by = [\"kind\"]\nmeasures = {{ total = {{ sum = \"amount\" }} }}\n{more}"
    )
}

async fn world(from: &str, sql: &str) -> World {
    let clock = Arc::new(clock("2026-01-05T12:00:00Z"));
    let setup = Setup { rollups: &rollup(from, ""), clock, ..Setup::default() };
    World::new(&format!("{SOURCE} {sql}"), setup).await
}

async fn work_off(world: &World) -> usize {
    let mut done = 0;
    for _ in 0..10 {
        let deadline = Deadline::after(&*world.worker.clock, BUDGET);
        let report =
            tick::run(&world.worker, world.worker.clock.now(), deadline, None).await.unwrap();
        assert!(report.problems.is_empty(), "{:?}", report.problems);
        assert!(report.slices.iter().all(tallymark::work::report::SliceReport::is_success));
        if report.slices.is_empty() {
            break;
        }
        done += report.slices.len();
    }
    done
}

/// Source, its columns, the DDL after the slices were computed, and whether they run again.
const CASES: &[(&str, &str, &str, bool)] = &[
    ("sales", "", "ALTER TABLE sales ALTER amount TYPE numeric(12, 1)", true),
    // Groups also depend on the table's collation. Its owner changes it, as the refusal says.
    (
        "sales",
        "",
        "ALTER TABLE sales ALTER kind TYPE text COLLATE \"C\"; \
        ALTER TABLE stats.daily ALTER kind TYPE text COLLATE \"C\"",
        true,
    ),
    (
        "sales",
        "",
        "ALTER TABLE sales RENAME amount TO net; ALTER TABLE sales ADD amount numeric DEFAULT 2",
        true,
    ),
    (
        "sales",
        "",
        "ALTER TABLE sales RENAME TO old; CREATE TABLE public.sales (LIKE old); INSERT INTO sales \
        SELECT id, at, kind, amount * 2, other FROM old; CREATE INDEX ON sales (at)",
        true,
    ),
    (
        "priced",
        "CREATE TABLE priced (id int, at timestamptz, kind text, amount numeric GENERATED ALWAYS AS (id * 2) STORED); \
        CREATE INDEX ON priced (at); INSERT INTO priced SELECT id, at, kind FROM sales",
        "ALTER TABLE priced DROP amount; \
        ALTER TABLE priced ADD amount numeric GENERATED ALWAYS AS (id * 3) STORED",
        true,
    ),
    (
        "seen",
        "CREATE VIEW seen AS SELECT at, kind, amount FROM sales",
        "CREATE OR REPLACE VIEW public.seen AS SELECT at, kind, amount * 2 AS amount FROM sales",
        true,
    ),
    (
        "outer_view",
        "CREATE VIEW inner_view AS SELECT at, kind, amount FROM sales; \
        CREATE VIEW outer_view AS SELECT * FROM inner_view",
        "CREATE OR REPLACE VIEW public.inner_view AS SELECT at, kind, amount + 1 AS amount FROM sales",
        true,
    ),
    (
        "called",
        "CREATE FUNCTION taxed(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 1.1'; \
        CREATE VIEW called AS SELECT at, kind, taxed(amount) AS amount FROM sales",
        "CREATE OR REPLACE FUNCTION public.taxed(numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS 'SELECT $1 * 1.2'",
        true,
    ),
    (
        "sales",
        "",
        "ALTER TABLE sales ADD more int; ALTER TABLE sales ALTER other TYPE bigint; \
        CREATE INDEX ON sales (kind); ALTER TABLE sales ALTER amount SET DEFAULT 7; ANALYZE sales",
        false,
    ),
    (
        "seen",
        "CREATE VIEW seen AS SELECT at, kind, amount FROM sales",
        "DROP VIEW seen; \
        CREATE VIEW public.seen AS SELECT at, kind, amount FROM sales; COMMENT ON VIEW seen IS 'the same'",
        false,
    ),
    (
        "parts",
        "CREATE TABLE parts (at timestamptz, kind text, amount numeric) PARTITION BY RANGE (at); \
        CREATE TABLE part PARTITION OF parts FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z')",
        "CREATE TABLE public.next_part PARTITION OF parts FOR VALUES FROM ('2027-01-01Z') TO ('2028-01-01Z')",
        false,
    ),
];

#[tokio::test]
async fn ddl_that_changes_values_makes_every_slice_run_again() {
    let mut wrong = Vec::new();
    for (from, sql, ddl, changes) in CASES {
        let world = world(from, sql).await;
        assert_eq!(work_off(&world).await, if *from == "parts" { 0 } else { 4 });
        world.sql(ddl).await;
        // Another process, which has a slice to compute.
        let later = world.changed("", &rollup(from, ""), Arc::new(clock("2026-01-06T12:00:00Z")));
        later.init().await.unwrap();
        let done = work_off(&later).await;
        let expected = match (*from, changes) {
            ("parts", _) => 0,
            (_, true) => 5,
            (_, false) => 1,
        };
        if done != expected {
            wrong.push(format!("{ddl}: {done} slices, expected {expected}"));
        }
        if *changes {
            let sums = format!(
                "SELECT date_trunc('day', at, 'UTC'), kind, sum(amount) FROM {from} \
                 WHERE at < '2026-01-06Z' GROUP BY 1, 2"
            );
            later.assert_rows(&sums).await;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn settings_that_decide_no_number_make_nothing_stale() {
    let world = world("sales", "").await;
    assert_eq!(work_off(&world).await, 4);
    let more = "late = { column = \"at\" }\n";
    let later = world.changed("", &rollup("sales", more), Arc::new(clock("2026-01-06T12:00:00Z")));
    assert_eq!(work_off(&later).await, 1);
}
