//! Expressions as dimensions and in measures, beside a plain `GROUP BY` over the source.

use std::sync::Arc;

use serde_json::Value;
use tallymark::work::ready;

use crate::capture::tick;
use crate::support::Database;
use crate::support::cli::Place;
use crate::support::world::{Setup, World, clock, install_capture, records};

/// Orders with a document. `plan` is also a column, and `rate` is zero for some.
const ORDERS: &str = "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY, created_at timestamptz, \
    plan text, quantity int, rate int, touched int, tags text[], props jsonb); CREATE INDEX ON orders (created_at); \
    INSERT INTO orders (created_at, plan, quantity, rate, touched, tags, props) \
    SELECT '2026-01-01Z'::timestamptz + n * interval '97 seconds', 'column', n % 5, n % 3, nullif(n * 7919 % 1709, 8), \
    ARRAY['a', n::text], CASE WHEN n % 11 > 0 THEN jsonb_build_object('plan', n % 4, 'cents', n % 100) END \
    FROM generate_series(1, 1700) n; ANALYZE orders; \
    CREATE FUNCTION much() RETURNS SETOF boolean LANGUAGE plpgsql VOLATILE ROWS 1000000 \
    AS 'BEGIN RETURN NEXT true; END'; \
    CREATE VIEW vast AS SELECT o.* FROM orders o CROSS JOIN LATERAL much()";

/// The rollup `name` of one day's slices. An expression may end in a comment.
fn rollup(name: &str, from: &str, late: &str) -> String {
    let own = r#"
[[rollup]]
name = "{name}"
from = "public.{from}"
time = "created_at"
start = "2026-01-01"
slice = "1 day"
late = "{late}"
shrink_guard = 0.0
where = "{from}.plan = 'column' OR plan IS NULL"
group_by = [{ plan = "props->>'plan' -- of the document" }, { day = "created_at::date" }, { fixed = "1" }]
[rollup.measures]
orders = "count"
gross = { sum = { sql = "(props->>'cents')::bigint * quantity" } }
mean = { avg = { sql = "quantity / nullif(rate, 0)" }, where = "rate > 0" }
dearest = { max = { sql = "props->>'cents'" } }
tags = { distinct = { sql = "tags[2]" } }
few = { distinct = { sql = "tags[2]" }, where = "quantity = 1" }
plans = { distinct = { sql = "props->>'plan' -- of the document" } }
newest = { last = "quantity", by = { sql = "touched * 2 -- times" } }
oldest = { first = { sql = "tags[2]" }, by = { sql = "touched * 2 -- times" }, where = "quantity > 1" }
"#;
    own.replace("{name}", name).replace("{from}", from).replace("{late}", late)
}

const COARSE: &str = r#"
[[rollup]]
name = "weekly"
from = { rollup = "daily" }
slice = "1 week"
group_by = ["plan"]
[rollup.measures]
orders = { sum = "orders" }
gross = { sum = "gross" }
plans = { distinct = "plan" }
newest = { last = "newest", by = { sql = "touched * 2 -- times" } }
"#;

/// `table` equals one `GROUP BY` over the orders.
async fn is_exact(world: &World, table: &str) {
    let wanted = "SELECT date_trunc('day', created_at, 'UTC'), props->>'plan', \
        (created_at AT TIME ZONE 'UTC')::date, 1, count(*), sum((props->>'cents')::bigint * quantity), \
        sum(quantity / nullif(rate, 0)) FILTER (WHERE rate > 0), max(props->>'cents'), \
        count(DISTINCT tags[2]), count(DISTINCT tags[2]) FILTER (WHERE quantity = 1), \
        count(DISTINCT props->>'plan'), \
        (array_agg(quantity ORDER BY touched DESC) FILTER (WHERE touched IS NOT NULL))[1], \
        max(touched) * 2, \
        (array_agg(tags[2] ORDER BY touched) FILTER (WHERE touched IS NOT NULL AND quantity > 1))[1] \
        FROM orders GROUP BY 1, 2, 3, 4";
    let found = format!(
        "SELECT bucket, plan, day, fixed, orders, gross, mean_sum, dearest, tags, few, plans, \
         newest, newest_by, oldest FROM stats.{table}"
    );
    assert_eq!(records(&world.target, &found).await, records(&world.pool, wanted).await, "{table}");
}

/// Slices read whole and in chunks, within one database and across two, give the same.
#[tokio::test]
async fn expressions_are_grouped_and_measured_as_postgresql_does() {
    let rollups = rollup("daily", "orders", "grace") + &rollup("vast", "vast", "grace");
    for across in [false, true] {
        let setup = Setup { rollups: &rollups, across, ..Setup::default() };
        let world = World::new(ORDERS, setup).await;
        for (rollup, expected) in world.worker.config.rollups.iter().zip([1..2, 3..20]) {
            assert_eq!(world.backfill_one(rollup, "2026-01-03", false).await.succeeded, 2);
            let checkpoint = world.worker.checkpoints.get(&rollup.name, rollup.start).await;
            let chunks = checkpoint.unwrap().unwrap().outcome.unwrap().chunks;
            assert!(expected.contains(&chunks), "{}: {chunks}", rollup.name);
            is_exact(&world, &rollup.name).await;
            let again = world.backfill_one(rollup, "2026-01-03", true).await;
            assert_eq!((again.updated, again.deleted), (0, 0), "{}", rollup.name);
            world.assert_one_verified(rollup, "2026-01-03").await;
        }
    }
}

/// A change of a value that only an expression reads reaches the day, and the week above it.
#[tokio::test]
async fn a_captured_change_reaches_expressions_and_the_rollups_above() {
    let rollups = rollup("daily", "orders", "capture") + COARSE;
    let clock = Arc::new(clock("2026-01-13T00:00:00Z"));
    let setup = Setup { rollups: &rollups, clock, ..Setup::default() };
    let later = ORDERS.replace("'2026-01-01Z'::timestamptz + n", "'2026-01-05Z'::timestamptz + n");
    let world = World::new(&later, setup).await;
    install_capture(&world.worker).await;
    tick(&world).await;
    is_exact(&world, "daily").await;
    world
        .sql("UPDATE orders SET props = props || '{\"plan\": \"new\", \"cents\": 7}' WHERE id % 7 = 0")
        .await;
    let report = tick(&world).await;
    assert_eq!((report.problems.len(), report.slices.len()), (0, 3), "{report:?}");
    is_exact(&world, "daily").await;
    // Only `by` reads this column.
    world.sql("UPDATE orders SET touched = 5000 - id WHERE id % 50 = 0").await;
    let report = tick(&world).await;
    assert_eq!((report.problems.len(), report.slices.len()), (0, 3), "{report:?}");
    is_exact(&world, "daily").await;
    let found = "SELECT plan, orders, gross, plans, newest FROM stats.weekly";
    let wanted = "SELECT props->>'plan', count(*), sum((props->>'cents')::bigint * quantity), \
        count(DISTINCT props->>'plan'), \
        (array_agg(quantity ORDER BY touched DESC) FILTER (WHERE touched IS NOT NULL))[1] \
        FROM orders GROUP BY 1";
    assert_eq!(records(&world.target, found).await, records(&world.pool, wanted).await);
}

/// Another text of a function that an expression names makes every slice run again.
#[tokio::test]
async fn a_function_that_an_expression_names_is_part_of_the_source() {
    let made = |text: &str| {
        format!(
            "CREATE OR REPLACE FUNCTION tier(int) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT '{text}'$$"
        )
    };
    let rollups = rollup("daily", "orders", "grace");
    let rollups = rollups.replace("fixed = \"1\"", "tier = \"tier(quantity)\"");
    let clock = Arc::new(clock("2026-01-03T12:00:00Z"));
    let setup = Setup { rollups: &rollups, clock, ..Setup::default() };
    let world = World::new(&format!("{ORDERS}; {}", made("a")), setup).await;
    assert_eq!(tick(&world).await.slices.len(), 2);
    let before = ready::shape(&world.worker, world.rollup()).await.unwrap().fingerprint.clone();
    world.sql(&made("b")).await;
    let later = world.redefined(&rollups);
    let after = ready::shape(&later.worker, later.rollup()).await.unwrap().fingerprint.clone();
    assert!(before.is_some() && before != after);
    // A changed shape is looked for when there is something to do.
    later.reopen("2026-01-01").await;
    tick(&later).await;
    assert_eq!(tick(&later).await.slices.len(), 1);
    let tiers = "SELECT string_agg(DISTINCT tier, ',') FROM stats.daily";
    assert_eq!(later.target_value(tiers).await, "b");
}

/// Expressions with the problem and the hint that `check` names. Without a problem each is sound.
const JUDGED: &[(&str, &str, &str)] = &[
    ("props->>'plan'", "", ""),
    ("to_char(created_at, 'YYYY-MM')", "", ""),
    ("concat(plan, quantity, created_at, tags)", "", ""),
    ("to_timestamp(props->>'at', 'YYYY-MM-DD')", "", ""),
    ("mood::text", "", ""),
    ("doubled(quantity)", "", ""),
    ("now()", "now() is not immutable", "use an immutable function"),
    ("CURRENT_DATE", "the present time or user", "use columns of the row"),
    ("random()", "random() is not immutable", "use an immutable function"),
    ("age(created_at)", "age(timestamp with time zone) is not", "use an immutable function"),
    ("(props->>'at')::timestamptz", "timestamptz_in", "to_timestamp(text, format)"),
    ("created_at > 'today'", "the present time", "write an instant"),
    ("looked_up(quantity)", "looked_up(integer) is not immutable", "use an immutable function"),
    ("(SELECT max(id) FROM orders)", "a subquery", "use columns of the row"),
    ("ctid::text", "a system column", "use columns of the table"),
    ("orders::text", "record_out(record) is not immutable", "use an immutable function"),
    ("nosuch(plan)", "function nosuch(text) does not exist", "No function matches"),
    ("plann", "column \"plann\" does not exist", "orders.plan"),
    ("count(*)", "aggregate functions are not allowed", ""),
    ("unnest(tags)", "set-returning functions are not allowed", ""),
    ("plan, quantity", "pseudo-type record", ""),
    ("props::json", "cannot group by exactly", "cast it in the expression"),
];

/// PostgreSQL says itself what a wrong expression lacks. Each one is refused before any slice.
#[tokio::test]
async fn an_expression_that_may_change_without_a_write_is_refused_by_name() {
    let database = Database::create().await;
    let rollup = |n: usize, expression: &str| {
        format!(
            "[[rollup]]\nname = \"r{n}\"\nfrom = \"public.orders\"\ntime = \"created_at\"\n\
             start = \"2026-01-01\"\nslice = \"1 day\"\ngroup_by = [{{ it = {} }}]\n\
             measures.n = \"count\"\n",
            toml::Value::from(expression)
        )
    };
    let rollups: String = JUDGED.iter().enumerate().map(|(n, it)| rollup(n, it.0)).collect();
    let place = Place::new(&database.url(), &database.url(), &rollups).await;
    place
        .sql(&format!(
            "{ORDERS}; CREATE TYPE mood AS ENUM ('sad'); ALTER TABLE orders ADD mood mood; \
             CREATE FUNCTION doubled(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 2 * $1'; \
             CREATE FUNCTION looked_up(int) RETURNS int LANGUAGE sql STABLE AS 'SELECT $1'"
        ))
        .await;
    let findings = place.run(&["check", "--json"]).json();
    let findings = findings["findings"].as_array().unwrap();
    for (n, (expression, problem, hint)) in JUDGED.iter().enumerate() {
        let subject = format!("r{n}");
        let of = |key: &str, grade: &str| -> Vec<&Value> {
            let is_own = |it: &&Value| it["subject"] == *subject && it["grade"] == *grade;
            findings.iter().filter(is_own).map(|it| &it[key]).collect()
        };
        let is_proof = |it: &&Value| it.as_str().unwrap().contains("1 expression");
        let is_proven = of("finding", "good").iter().any(is_proof);
        if problem.is_empty() {
            assert!(is_proven && of("finding", "bad").is_empty(), "{expression}: {findings:?}");
            continue;
        }
        let [bad] = &of("finding", "bad")[..] else { panic!("{expression}: {findings:?}") };
        assert!(bad.as_str().unwrap().contains(problem) && !is_proven, "{expression}: {bad}");
        let said = of("hint", "bad")[0].as_str().unwrap_or_default();
        assert!(said.contains(hint), "{expression}: {said}");
    }
    place.configure(&rollup(0, "now()"));
    place
        .run(&["init"])
        .refused(2, &["group_by.it", "now() is not immutable", "hint: use an immutable"]);
    let by = "measures.n = { last = \"quantity\", by = { sql = \"now()\" } }";
    place.configure(&rollup(0, "plan").replace("measures.n = \"count\"", by));
    place.run(&["init"]).refused(2, &["measures.n", "now() is not immutable"]);
}
