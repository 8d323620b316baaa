//! The estimate of a backfill, compared with its real cost.

use serde_json::Value;
use sqlx::Row as _;
use tallymark::source::reading::read::{self, Form};
use tallymark::work::backfill::{self, Silent};
use tallymark::work::estimate;
use tallymark::work::ready;

use crate::support::cli::{Place, daily};
use crate::support::world::{Setup, World, batch, instant};
use tallymark::model::slice::Order;

/// 60 days of 3,000 rows on average, more towards the end.
const GROWING: &str = "CREATE TABLE T AS SELECT '2026-01-01Z'::timestamptz + sqrt(n / 180000.0) * interval '60 days' AS at, \
    n % 40 AS entity_id, (ARRAY['view', 'click', 'buy'])[1 + n % 3] AS kind, repeat('x', 60) AS pad \
    FROM generate_series(0, 179999) n ORDER";

fn table(name: &str, order: &str) -> String {
    let sql = format!("{GROWING} BY {order}; CREATE INDEX ON T (at); VACUUM ANALYZE T");
    sql.replace(" T ", &format!(" {name} ")).replace("ANALYZE T", &format!("ANALYZE {name}"))
}

fn rollup(name: &str, rest: &str) -> String {
    format!(
        "[[rollup]]\nname = \"{name}\"\nfrom = \"public.{name}\"\ntime = \"at\"\nstart = \"2026-01-01\"\n\
         slice = \"1 day\"\ngroup_by = [\"entity_id\"]\n{rest}\n[rollup.measures]\nn = \"count\"\n"
    )
}

/// The blocks that the slices' own statements read, by PostgreSQL's count.
async fn blocks(
    world: &World,
    rollup: &tallymark::model::rollup::Rollup,
    slices: &[tallymark::model::slice::Slice],
) -> u64 {
    let shape = ready::shape(&world.worker, rollup).await.unwrap();
    let mut blocks = 0;
    for slice in slices {
        let bounds = (slice.start(), slice.start(), slice.end());
        let select = read::select(rollup, &shape, Form::Whole, bounds, false);
        let sql = format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {select}");
        let row = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_one(&world.pool).await.unwrap();
        let text: String = row.try_get_unchecked(0).unwrap();
        let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
        let of = |key: &str| plan[0]["Plan"][key].as_u64().unwrap();
        blocks += of("Shared Hit Blocks") + of("Shared Read Blocks");
    }
    blocks
}

/// Ordered by time, unordered, and with a condition: rows and blocks are within a quarter, from
/// statistics and plans alone.
#[tokio::test]
async fn rows_and_blocks_are_foreseen_within_a_quarter() {
    let rollups = rollup("ordered", "")
        + &rollup("shuffled", "")
        + &rollup("part", "where = \"kind = 'buy'\"");
    let world = World::bare("SELECT 1", Setup { rollups: &rollups, ..Setup::default() }).await;
    for (name, order) in [("ordered", "n"), ("shuffled", "md5(n::text)"), ("part", "n")] {
        for statement in table(name, order).split("; ") {
            world.sql(statement).await;
        }
    }
    crate::support::world::init(&world.worker).await.unwrap();
    for rollup in &world.worker.config.rollups {
        let (from, to) = (instant("2026-01-11"), instant("2026-03-01"));
        let worker = &world.worker;
        let plan =
            backfill::plan(worker, rollup, from, to, Order::NewestFirst, false).await.unwrap();
        let estimate = estimate::estimate(worker, rollup, &plan, 1).await.unwrap();
        assert_eq!((estimate.slices, estimate.is_learned), (49, false));
        let found = backfill::run(worker, rollup, &plan, batch(), &Silent).await.unwrap();
        let blocks = blocks(&world, rollup, &plan.slices).await;
        for (foreseen, found) in [(estimate.rows, found.rows_read), (estimate.blocks, blocks)] {
            let (low, high) = (found * 3 / 4, found * 5 / 4);
            assert!((low..=high).contains(&foreseen), "{}: {foreseen} for {found}", rollup.name);
        }
        // From now on the cost of a row is known.
        assert!(estimate::estimate(worker, rollup, &plan, 1).await.unwrap().is_learned);
    }
}

#[tokio::test]
async fn a_backfill_is_priced_first_and_stops_where_it_was_told_to() {
    let (place, _database) = Place::with_events(6).await;
    place.run(&["init"]).good();
    let from = crate::support::cli::day(6).to_string();
    let plan = place.json(&["plan", "daily", "--from", &from]);
    let estimate = &plan["rollups"][0]["estimate"];
    assert_eq!(
        (estimate["rows"].as_u64(), estimate["learned"].as_bool()),
        (Some(1440), Some(false)),
        "{plan}"
    );
    let shown = place.run(&["plan", "daily", "--from", &from]).good().out;
    assert!(shown.contains("on AWS about $0.00") && shown.contains("a guess"), "{shown}");
    // 240 rows a slice: two more would be too many.
    let limited = place.run(&["backfill", "daily", "--max-rows", "1000", "--yes", "--json"]);
    let document = limited.json();
    assert_eq!(
        (limited.code, document["succeeded"].as_u64(), document["left"].as_u64()),
        (Some(1), Some(4), Some(2))
    );
    assert!(limited.err.contains("1000 rows are the most it may read"), "{limited:?}");
    let limited = place.run(&["backfill", "daily", "--max-dollars", "0.0000001", "--yes"]);
    limited.refused(1, &["1 slice left", "dollars are the most"]);
    let rest = place.run(&["backfill", "daily", "--max-hours", "1", "--yes"]).good();
    assert!(
        rest.out.contains("1 slice succeeded in") && rest.out.contains("240 rows read (about 240)"),
        "{rest:?}"
    );
    place.run(&["backfill", "daily", "--max-hours", "0", "--yes"]).refused(2, &["above 0"]);
    place.run(&["verify"]).good();
}

/// With the checkpoints in PostgreSQL nothing of AWS is used, and nothing of it is priced.
#[tokio::test]
async fn without_aws_no_dollars_are_shown_and_a_limit_in_dollars_is_refused() {
    let (place, _database) = Place::with_events(6).await;
    place.configure(&format!("[checkpoint]\nstore = \"postgres\"\n{}", daily(6)));
    place.run(&["init"]).good();
    let from = crate::support::cli::day(6).to_string();
    let plan = place.json(&["plan", "daily", "--from", &from]);
    let estimate = &plan["rollups"][0]["estimate"];
    assert_eq!((&estimate["dollars"], estimate["rows"].as_u64()), (&Value::Null, Some(1440)));
    let shown = place.run(&["plan", "daily", "--from", &from]).good().out;
    assert!(
        shown.contains("done by ") && !shown.contains('$') && !shown.contains("AWS"),
        "{shown}"
    );
    let limited = place.run(&["backfill", "daily", "--max-dollars", "1", "--yes"]);
    limited.refused(2, &["--max-dollars: AWS charges nothing"]);
    let done = place.json(&["backfill", "daily", "--yes"]);
    assert_eq!((&done["succeeded"], &done["estimate"]["dollars"]), (&6.into(), &Value::Null));
}

/// A slice cannot be faster than DynamoDB's answers to its three calls, however fast its own
/// statements are.
#[tokio::test]
async fn what_dynamodb_takes_is_foreseen() {
    const DELAY_MS: u64 = 100;
    let (mut place, _database) = Place::with_events(6).await;
    place.run(&["init"]).good();
    let delay = std::time::Duration::from_millis(DELAY_MS);
    let slow = crate::support::proxy::Unreliable::slow(&place.endpoint().clone(), delay);
    place.endpoint().clone_from(&slow.endpoint);
    let from = crate::support::cli::day(6).to_string();
    for is_learned in [false, true] {
        let plan = ["plan", "daily", "--from", &from, "--force", "--concurrency", "1"];
        let plan = place.json(&plan);
        let estimate = &plan["rollups"][0]["estimate"];
        assert_eq!(estimate["learned"], is_learned, "{plan}");
        let elapsed_ms = estimate["elapsed_ms"].as_u64().unwrap();
        assert!(elapsed_ms >= 6 * 3 * DELAY_MS, "{plan}");
        place.run(&["backfill", "daily", "--yes"]).good();
    }
}

/// Statistics say how many groups to expect, and then the slices that were computed.
#[tokio::test]
async fn groups_and_the_table_s_size_are_foreseen_and_a_rollup_that_hardly_compresses_is_told() {
    let grouped = |name: &str, by: &str| {
        rollup(name, "")
            .replace(&format!("public.{name}"), "public.ordered")
            .replace("entity_id", by)
    };
    let rollups = grouped("by_kind", "kind") + &grouped("by_row", "number");
    let database = crate::support::Database::create().await;
    let place = Place::new(&database.url(), &database.url(), &rollups).await;
    let with_number = GROWING.replace("n % 40 AS", "n AS number, n % 40 AS");
    let sql = with_number.replace("CREATE TABLE T", "CREATE TABLE ordered");
    place.sql(&format!("{sql} BY n; CREATE INDEX ON ordered (at); ANALYZE ordered")).await;
    let foreseen = |name: &str| -> (u64, u64) {
        let plan = place.json(&["plan", name, "--from", "2026-02-20", "--to", "2026-03-01"]);
        let estimate = &plan["rollups"][0]["estimate"];
        let number = |key: &str| estimate[key].as_u64().unwrap_or_else(|| panic!("{key}: {plan}"));
        (number("groups"), number("table_bytes"))
    };
    let has_warning = |name: &str| {
        let check = place.json(&["check", name]);
        let findings = check["findings"].as_array().unwrap().clone();
        let about = findings.iter().find(|it| it["finding"].to_string().contains("a group"));
        let about = about.unwrap_or_else(|| panic!("{check}")).clone();
        let is_note = about["grade"] == "note";
        assert_eq!(is_note, about["finding"].to_string().contains("hardly compresses"), "{about}");
        (is_note, about["finding"].to_string())
    };
    place.run(&["init"]).good();
    let is_near = |found: u64, wanted: u64| (wanted / 2..=wanted * 2).contains(&found);
    // Nine days with three kinds. Each row has a number of its own.
    let days = 9 * 3;
    assert!(is_near(foreseen("by_kind").0, days), "{:?}", foreseen("by_kind"));
    let rows = place.json(&["plan", "by_row", "--from", "2026-02-20", "--to", "2026-03-01"]);
    let rows = rows["rollups"][0]["estimate"]["rows"].as_u64().unwrap();
    let (groups, bytes) = foreseen("by_row");
    assert!(is_near(groups, rows) && (80..200).contains(&(bytes / groups)), "{groups} {bytes}");
    let shown = place.run(&["plan", "by_row", "--from", "2026-02-20", "--to", "2026-03-01"]);
    let shown = shown.good().out;
    assert!(shown.contains("it hardly compresses"), "{shown}");
    let range = ["--from", "2026-02-20", "--to", "2026-03-01", "--yes"];
    for name in ["by_kind", "by_row"] {
        place.run(&[&["backfill", name][..], &range].concat()).good();
    }
    place.sql("ANALYZE stats.by_row").await;
    let kind = has_warning("by_kind");
    assert!(!kind.0 && kind.1.contains("3 groups") && kind.1.contains("newest slices"), "{kind:?}");
    let row = has_warning("by_row");
    assert!(row.0 && row.1.contains("1.0 rows a group"), "{row:?}");
    let stored = "SELECT pg_total_relation_size('stats.by_row') / count(*) FROM stats.by_row";
    let stored = crate::support::cli::lines(&place.target_url, stored).await;
    let (groups, bytes) = {
        let plan = place.json(&["plan", "by_row", "--from", "2026-02-20", "--force"]);
        let estimate = plan["rollups"][0]["estimate"].clone();
        (estimate["groups"].as_u64().unwrap(), estimate["table_bytes"].as_u64().unwrap())
    };
    let each = bytes / groups;
    let found: u64 = stored[0].trim_matches(['(', ')']).parse().unwrap();
    assert!(each.abs_diff(found) * 10 <= found, "{each} for {found}");
}
