//! The queries of docs/READING.md, each beside another way to the same numbers.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::{make, told};
use crate::support::world::{EVENTS, Setup, World, clock, random_events, records};

/// What each query of the page should give, in their order.
const TRUTHS: [&str; 6] = [
    "SELECT date_trunc('week', created_at, 'UTC'), kind, count(*), sum(amount), count(DISTINCT user_id), true \
     FROM events WHERE entity_id IN (1, 2) AND created_at >= '2026-01-05Z' AND created_at < '2026-02-02Z' \
     GROUP BY 1, 2",
    "SELECT '2026-02-02Z'::timestamptz, missing, 0, 0, clock_timestamp() - checked_at IS NULL FROM tallymark.coverage",
    "SELECT date_trunc('week', created_at, 'UTC'), \
     avg(CASE WHEN kind = 'buy' THEN 1 ELSE 0 END) \
     FROM events WHERE created_at < '2026-02-02Z' GROUP BY 1",
    "SELECT d, (SELECT sum(amount) FROM events WHERE created_at < d + interval '1 day'), true \
     FROM generate_series('2026-01-01Z'::timestamptz, '2026-01-31Z', interval '24 hours') d",
    "SELECT e, sum(n), true FROM (SELECT CASE WHEN row_number() OVER (ORDER BY count(*) DESC, entity_id) <= 3 \
     THEN entity_id::text ELSE 'others' END AS e, count(*) AS n FROM events WHERE created_at < '2026-02-01Z' \
     GROUP BY entity_id) g GROUP BY 1",
    "SELECT w, n, n - lag(n) OVER (ORDER BY w), w > '2026-01-05Z' AND w < '2026-02-01Z' \
     FROM (SELECT date_trunc('week', created_at, 'UTC') AS w, count(*) AS n FROM events \
     WHERE created_at < '2026-02-02Z' GROUP BY 1 UNION ALL SELECT '2026-02-02Z', NULL) g",
];

/// A world with the rollup of the page, all of it computed until February 2.
async fn january(rollups: &str) -> World {
    let clock = Arc::new(clock("2026-02-02T01:00:00Z"));
    // Every group has rows in every week.
    let each = "INSERT INTO events (created_at, kind, entity_id, user_id, amount) \
                SELECT t, k, e, e * 7, 1 FROM generate_series('2026-01-01Z'::timestamptz, '2026-02-01T23:00Z', \
                '3 days') t, unnest(ARRAY['view', 'click', 'buy']) k, generate_series(1, 6) e";
    let sql = format!(
        "{EVENTS}; {}; DELETE FROM events WHERE kind IS NULL; {each}",
        random_events(32, 12)
    );
    let world = World::new(&sql, Setup { rollups, clock, ..Setup::default() }).await;
    make(&world).await;
    world.backfill("2026-02-02T00:00:00Z", false).await;
    world.target_sql(&told(world.rollup(), "")).await;
    world
}

/// The page's blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/READING.md");
    let page = fs::read_to_string(page).unwrap();
    let fenced = format!("```{language}\n");
    page.split(&*fenced).skip(1).map(|it| it.split("```").next().unwrap().to_owned()).collect()
}

/// What the tools put in place of their variables.
const VALUES: [(&str, &str); 10] = [
    ("$__timeFrom()", "'2026-01-05Z'"),
    ("$__timeTo()", "'2026-02-02Z'"),
    ("{{since}}", "'2026-01-05'"),
    ("{{until}}", "'2026-02-02'"),
    ("${since}", "'2026-01-05Z'"),
    ("${until}", "'2026-02-02Z'"),
    ("${zone}", "'UTC'"),
    ("$1", "'2026-01-05Z'"),
    ("$2", "'2026-02-02Z'"),
    ("$3", "'UTC'"),
];

#[tokio::test]
async fn the_queries_for_tools_of_the_page_about_reading_give_all_events() {
    let world = january(&blocks("toml")[0]).await;
    let in_code = blocks("ts").into_iter().map(|block| {
        let query = block.split('`').find(|text| text.contains("SELECT "));
        query.unwrap().to_owned()
    });
    let queries: Vec<_> = blocks("pgsql").into_iter().chain(in_code).collect();
    assert_eq!(queries.len(), 5);
    let truth = "SELECT count(*)::numeric, true FROM events \
                 WHERE created_at >= '2026-01-05Z' AND created_at < '2026-02-02Z'";
    for query in queries {
        let query = VALUES.iter().fold(query, |query, (name, value)| query.replace(name, value));
        let (sql, truth) = match query.contains("_series") {
            true => (
                format!(
                    "SELECT sum(coalesce(r->>'value', r->>'events')::numeric), bool_and(r->>'complete' \
                     IS DISTINCT FROM 'false') FROM (SELECT to_jsonb(q) AS r FROM ({query}) q) s"
                ),
                truth,
            ),
            false => (query.clone(), "SELECT '2026-02-02Z'::timestamptz, 'final up to here'::text"),
        };
        assert_eq!(
            records(&world.target, &sql).await,
            records(&world.target, truth).await,
            "{query}"
        );
    }
}

#[tokio::test]
async fn the_queries_of_the_page_about_reading_give_what_they_say() {
    let world = january(&blocks("toml")[0]).await;
    let queries = blocks("sql");
    assert_eq!(queries.len(), TRUTHS.len());
    for (place, (query, truth)) in queries.iter().zip(TRUTHS).enumerate() {
        let query = match place {
            1 => "SELECT complete_through, missing, stale, failing, looked IS NULL FROM (Q) q",
            2 => "SELECT bucket, round(ratio, 12) FROM (Q) q",
            _ => "SELECT * FROM (Q) q",
        }
        .replace('Q', query);
        let truth = match place {
            2 => format!("SELECT w, round(n, 12) FROM ({truth}) t (w, n)"),
            _ => truth.to_owned(),
        };
        assert_eq!(
            records(&world.target, &query).await,
            records(&world.target, &truth).await,
            "{query}"
        );
    }
}
