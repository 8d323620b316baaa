//! The plan guard on real plans: each full scan is refused, and each good plan passes.

use tallymark::clients::db::Access;
use tallymark::model::hint::Hinted;
use tallymark::model::rollup::Rollup;
use tallymark::source::reading::plan_guard::{PlannedRead, inspect};
use tallymark::work::ready;
use tallymark::work::report::Outcome;

use crate::support::world::{BUDGET, Setup, World};

/// 500 days of 100 rows, 23 MB, which is too large to be read for one day.
const ROWS: &str = "SELECT at, at AT TIME ZONE 'Europe/Prague' AS local, (at AT TIME ZONE 'UTC')::date AS day, \
    extract(epoch FROM at)::bigint AS seconds, n % 50 AS entity_id, \
    CASE WHEN n % 1000 = 0 THEN 'rare' ELSE 'view' END AS kind, repeat('x', 400) AS pad \
    FROM (SELECT '2025-01-01Z'::timestamptz + n * interval '864 seconds' AS at, n \
          FROM generate_series(0, 49999) n) rows";

/// The definition of a table, its rollup, and the guard's decision.
struct Case {
    name: &'static str,
    sql: &'static str,
    rollup: &'static str,
    /// The recommended index, if the plan is refused.
    refused: Option<&'static str>,
}

const fn good(name: &'static str, sql: &'static str, rollup: &'static str) -> Case {
    Case { name, sql, rollup, refused: None }
}

const fn bad(
    name: &'static str,
    sql: &'static str,
    rollup: &'static str,
    index: &'static str,
) -> Case {
    Case { name, sql, rollup, refused: Some(index) }
}

/// `T` stands for the case's table. It is made from [`ROWS`] and analysed after `sql`, unless `sql`
/// differs.
const CASES: &[Case] = &[
    bad("no_index", "", "", "ON public.no_index (at)"),
    good("plain", "CREATE INDEX ON T (at)", ""),
    good("time_first", "CREATE INDEX ON T (at, entity_id)", ""),
    bad("time_second", "CREATE INDEX ON T (entity_id, at)", "", "ON public.time_second (at)"),
    good("given_first", "CREATE INDEX ON T (entity_id, at)", "where = \"entity_id = 7\""),
    good("descending", "CREATE INDEX ON T (at DESC)", ""),
    good("brin", "CREATE INDEX ON T USING brin (at) WITH (pages_per_range = 8)", ""),
    bad(
        "brin_shuffled",
        "CREATE TABLE T AS SELECT * FROM (ROWS) r ORDER BY md5(at::text); CREATE INDEX ON T USING brin (at)",
        "",
        "ON public.brin_shuffled (at)",
    ),
    good(
        "shuffled",
        "CREATE TABLE T AS SELECT * FROM (ROWS) r ORDER BY md5(at::text); CREATE INDEX ON T (at)",
        "",
    ),
    bad("hash", "CREATE INDEX ON T USING hash (at)", "", "ON public.hash (at)"),
    good("partial", "CREATE INDEX ON T (at) WHERE kind = 'view'", "where = \"kind = 'view'\""),
    bad(
        "partial_other",
        "CREATE INDEX ON T (at) WHERE kind = 'view'",
        "",
        "ON public.partial_other (at)",
    ),
    good("rare", "CREATE INDEX ON T (kind)", "where = \"kind = 'rare'\""),
    bad("common", "CREATE INDEX ON T (kind)", "where = \"kind = 'view'\"", "ON public.common (at)"),
    good("include", "CREATE INDEX ON T (at) INCLUDE (entity_id)", ""),
    bad(
        "invalid",
        "CREATE INDEX invalid_at ON T (at); UPDATE pg_index SET indisvalid = false \
         WHERE indexrelid = 'invalid_at'::regclass",
        "",
        "ON public.invalid (at)",
    ),
    good(
        "local",
        "CREATE INDEX ON T (local)",
        "time = { column = \"local\", zone = \"Europe/Prague\" }",
    ),
    bad(
        "local_no_index",
        "",
        "time = { column = \"local\", zone = \"Europe/Prague\" }",
        "ON public.local_no_index (local)",
    ),
    good("date", "CREATE INDEX ON T (day)", "time = \"day\""),
    bad("date_no_index", "", "time = \"day\"", "ON public.date_no_index (day)"),
    good(
        "epoch",
        "CREATE INDEX ON T (seconds)",
        "time = { column = \"seconds\", unit = \"seconds\" }",
    ),
    bad(
        "epoch_no_index",
        "",
        "time = { column = \"seconds\", unit = \"seconds\" }",
        "ON public.epoch_no_index (seconds)",
    ),
    // Statistics that are outdated or missing.
    bad(
        "grown",
        "CREATE TABLE T AS ROWS LIMIT 10; ANALYZE T; INSERT INTO T ROWS",
        "",
        "ON public.grown (at)",
    ),
    good(
        "grown_index",
        "CREATE TABLE T AS ROWS LIMIT 10; CREATE INDEX ON T (at); ANALYZE T; INSERT INTO T ROWS",
        "",
    ),
    bad("unknown", "CREATE TABLE T AS ROWS; SELECT 1", "", "ON public.unknown (at)"),
    good("unknown_index", "CREATE TABLE T AS ROWS; CREATE INDEX ON T (at)", ""),
    good("small", "CREATE TABLE T AS ROWS LIMIT 20000; ANALYZE T", ""),
    good(
        "most",
        "CREATE TABLE T AS SELECT * FROM (ROWS) r WHERE at < '2025-08-01Z'; ANALYZE T",
        "slice = \"1 month\"",
    ),
    // Partitions of about six months.
    bad(
        "parts",
        "CREATE TABLE T (LIKE no_index) PARTITION BY RANGE (at); \
         CREATE TABLE parts_1 PARTITION OF T FOR VALUES FROM ('2024-12-01Z') TO ('2026-03-01Z'); \
         CREATE TABLE parts_2 PARTITION OF T DEFAULT; INSERT INTO T ROWS; ANALYZE T",
        "",
        "ON public.parts_1 (at)",
    ),
    good(
        "parts_covered",
        "CREATE TABLE T (LIKE no_index) PARTITION BY RANGE (at); \
         CREATE TABLE covered_1 PARTITION OF T FOR VALUES FROM ('2025-06-01Z') TO ('2025-07-01Z'); \
         CREATE TABLE covered_2 PARTITION OF T DEFAULT; \
         INSERT INTO T SELECT '2025-06-01Z'::timestamptz + (at - '2025-01-01Z') / 20, local, day, seconds, \
             entity_id, kind, pad FROM (ROWS) r; ANALYZE T",
        "slice = \"1 month\"\nwhere = \"kind = 'rare'\"",
    ),
    good(
        "parts_index",
        "CREATE TABLE T (LIKE no_index) PARTITION BY RANGE (at); CREATE INDEX ON T (at); \
         CREATE TABLE indexed_1 PARTITION OF T FOR VALUES FROM ('2024-12-01Z') TO ('2026-03-01Z'); \
         CREATE TABLE indexed_2 PARTITION OF T DEFAULT; INSERT INTO T ROWS; ANALYZE T",
        "",
    ),
    good("child", "CREATE TABLE T () INHERITS (plain); SELECT 1", ""),
    // Views.
    good("view_good", "CREATE VIEW T AS SELECT at, entity_id FROM plain WHERE kind <> 'rare'", ""),
    bad(
        "view_bad",
        "CREATE VIEW T AS SELECT at, entity_id FROM no_index",
        "",
        "ON public.no_index (at)",
    ),
    bad(
        "view_expression",
        "CREATE VIEW T AS SELECT to_timestamp(seconds) AS at, entity_id FROM epoch",
        "",
        "ON public.epoch (",
    ),
    good(
        "view_expression_index",
        "CREATE TABLE by_expression AS ROWS; CREATE INDEX ON by_expression (to_timestamp(seconds)); \
         ANALYZE by_expression; CREATE VIEW T AS SELECT to_timestamp(seconds) AS at, entity_id FROM by_expression",
        "",
    ),
    good(
        "view_join",
        "CREATE TABLE entity AS SELECT n AS id FROM generate_series(1, 50) n; ANALYZE entity; \
         CREATE VIEW T AS SELECT e.at, e.entity_id FROM plain e JOIN entity ON entity.id = e.entity_id",
        "",
    ),
    good(
        "view_lookup",
        "CREATE TABLE wide AS SELECT n AS id, repeat('x', 400) AS pad FROM generate_series(1, 60000) n; \
         CREATE UNIQUE INDEX ON wide (id); ANALYZE wide; \
         CREATE VIEW T AS SELECT e.at, e.entity_id FROM plain e JOIN wide w ON w.id = e.entity_id",
        "",
    ),
    bad(
        "view_search",
        "CREATE TABLE wide_bare AS SELECT n AS id, repeat('x', 400) AS pad FROM generate_series(1, 60000) n; \
         ANALYZE wide_bare; \
         CREATE VIEW T AS SELECT e.at, e.entity_id FROM plain e JOIN wide_bare w ON w.id = e.entity_id",
        "",
        "columns of public.wide_bare",
    ),
    good(
        "view_union",
        "CREATE VIEW T AS SELECT at, entity_id FROM plain UNION ALL SELECT at, entity_id FROM time_first",
        "",
    ),
    bad(
        "view_union_half",
        "CREATE VIEW T AS SELECT at, entity_id FROM plain UNION ALL SELECT at, entity_id FROM no_index",
        "",
        "ON public.no_index (at)",
    ),
    bad("matview", "CREATE MATERIALIZED VIEW T AS ROWS; ANALYZE T", "", "ON public.matview (at)"),
    good(
        "function",
        "CREATE VIEW T AS SELECT '2025-06-01Z'::timestamptz AS at, n AS entity_id FROM generate_series(1, 9) n",
        "",
    ),
];

/// `CREATE` and `ANALYZE` of a case's table.
fn statements(case: &Case) -> String {
    let sql = if case.sql.contains(" T AS ") || case.sql.contains("TABLE T ") {
        case.sql.to_owned()
    } else {
        format!("CREATE TABLE T AS ROWS; {}; ANALYZE T", case.sql)
    };
    let mut words = sql.replace("ROWS", ROWS);
    for end in [" ", ";", ")"] {
        words = words.replace(&format!(" T{end}"), &format!(" {}{end}", case.name));
    }
    words.strip_suffix(" T").map_or(words.clone(), |head| format!("{head} {}", case.name))
}

fn rollup(name: &str, rest: &str) -> String {
    let time = if rest.contains("time =") { "" } else { "time = \"at\"" };
    let slice = if rest.contains("slice =") { "" } else { "slice = \"1 day\"" };
    format!(
        "[[rollup]]\nname = \"{name}\"\nfrom = \"public.{name}\"\nstart = \"2025-01-01\"\n{time}\n{slice}\n\
         {rest}\ngroup_by = [\"entity_id\"]\n[rollup.measures]\nn = \"count\"\n"
    )
}

async fn reading(world: &World, rollup: &Rollup) -> PlannedRead {
    let shape = ready::shape(&world.worker, rollup).await.unwrap();
    let slice = rollup.calendar.containing("2025-06-10T00:00:00Z".parse().unwrap());
    let mut tx = world.worker.source.begin(Access::ReadOnly, BUDGET, "test").await.unwrap();
    inspect(&mut tx, rollup, &shape, slice.start(), slice.end()).await.unwrap()
}

#[tokio::test]
async fn each_full_scan_is_refused_and_each_good_plan_passes() {
    let sql: Vec<String> = CASES.iter().map(statements).collect();
    let rollups: String = CASES.iter().map(|case| rollup(case.name, case.rollup)).collect();
    let setup = Setup { rollups: &rollups, ..Setup::default() };
    let world = World::bare(&sql.join(";\n"), setup).await;
    let mut wrong = Vec::new();
    for case in CASES {
        let found = reading(&world, world.worker.rollup(case.name).unwrap()).await;
        let is_right = match (case.refused, &found.refusal) {
            (None, None) => true,
            (Some(index), Some(refusal)) => refusal.hint().is_some_and(|it| it.contains(index)),
            _ => false,
        };
        if !is_right {
            wrong.push(format!("{}: {found:#?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The slice fails and names the missing index. With the index, the next run succeeds. An operator
/// may allow reading everything.
#[tokio::test]
async fn a_refused_slice_names_the_index_and_runs_when_it_is_there() {
    let sql = statements(&CASES[0]);
    let world =
        World::new(&sql, Setup { rollups: &rollup("no_index", ""), ..Setup::default() }).await;
    let failed = world.run("2025-06-10").await;
    let reason = failed.reason.unwrap();
    assert_eq!(failed.outcome, Outcome::Failed);
    let hint = failed.hint.unwrap();
    assert!(hint.contains("CREATE INDEX CONCURRENTLY ON public.no_index (at)"), "{hint}");
    assert!(!reason.contains("CREATE INDEX"), "{reason}");
    assert!(reason.contains("50 thousand"), "{reason}");
    let meant = world.redefined(&rollup("no_index", "plan_guard = false"));
    assert_eq!(meant.run("2025-06-11").await.completion.unwrap().rows_read, 100);
    world.sql("CREATE INDEX ON no_index (at)").await;
    assert_eq!(world.replay("2025-06-10").await.completion.unwrap().rows_read, 100);
}
