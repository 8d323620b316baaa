//! Everything that a rollup can read: time columns of every type, views, partitioned tables, and
//! names that need quotes.

use crate::support::world::{Setup, Urls, World, config, records};
use tallymark::model::hint::Hinted;

/// Two days by every kind of clock, with rows on both sides of each border, and rows without a
/// time.
const CLOCKS: &str = "CREATE TABLE clocks (at timestamptz, local timestamp(6), day date, \
        seconds int, seconds8 bigint, millis bigint, instant moment, kind text); \
    INSERT INTO clocks SELECT at, at AT TIME ZONE 'Europe/Prague', \
        (at AT TIME ZONE 'Europe/Prague')::date, floor(extract(epoch FROM at)), \
        floor(extract(epoch FROM at)), floor(extract(epoch FROM at) * 1000), at, \
        (ARRAY['a', 'b'])[1 + n % 2] \
    FROM (SELECT '2025-12-31 22:00Z'::timestamptz + n * interval '7 minutes', n \
          FROM generate_series(0, 600) n \
          UNION ALL SELECT at, 1 FROM unnest(ARRAY['2025-12-31 22:59:59.999999Z', \
              '2025-12-31 23:00Z', '2026-01-01 22:59:59.999Z', '2026-01-01 23:00Z', \
              '2025-12-31 23:59:59.999999Z', '2026-01-01 00:00Z', '2026-01-01 23:59:59.999999Z', \
              '2026-01-02 00:00Z', '2026-01-01 09:59:59.999Z', '2026-01-01 10:00Z']::timestamptz[]) at) \
         AS rows (at, n); \
    INSERT INTO clocks (kind) VALUES ('a'); ANALYZE clocks; \
    CREATE FUNCTION much() RETURNS SETOF boolean LANGUAGE plpgsql VOLATILE ROWS 100000 \
        AS 'BEGIN RETURN NEXT true; END'; \
    CREATE VIEW vast_clocks AS SELECT c.* FROM clocks c CROSS JOIN LATERAL much()";

/// A rollup of the first two days of 2026.
fn two_days(name: &str, from: &str, time: &str, rest: &str) -> String {
    format!(
        "[[rollup]]\nname = \"{name}\"\nfrom = \"{from}\"\ntime = {time}\nstart = \"2026-01-01\"\n\
         slice = \"1 day\"\n{rest}\ngroup_by = [\"kind\"]\n\
         [rollup.measures]\nn = \"count\"\nfirst = {{ min = \"at\" }}\n"
    )
}

/// The configuration of each column, and the instant that it means.
const COLUMNS: [(&str, &str, &str); 7] = [
    ("at", "\"at\"", "at"),
    (
        "local",
        "{ column = \"local\", zone = \"Europe/Prague\" }",
        "local AT TIME ZONE 'Europe/Prague'",
    ),
    ("day", "\"day\"", "day::timestamp AT TIME ZONE 'Europe/Prague'"),
    ("seconds", "{ column = \"seconds\", unit = \"seconds\" }", "to_timestamp(seconds)"),
    ("seconds8", "{ column = \"seconds8\", unit = \"seconds\" }", "to_timestamp(seconds8)"),
    ("millis", "{ column = \"millis\", unit = \"milliseconds\" }", "to_timestamp(millis / 1000.0)"),
    ("instant", "\"instant\"", "instant"),
];

/// Whole and in chunks, by days and hours of Prague and of UTC.
#[tokio::test]
async fn a_time_column_may_be_of_any_kind() {
    let zones = [("utc", "UTC"), ("prague", "Europe/Prague")];
    let mut rollups = String::new();
    let mut expected = Vec::new();
    for (column, time, instant) in COLUMNS {
        for (short, zone) in zones {
            // A date has no hours, and only its own zone.
            if column == "day" && zone == "UTC" {
                continue;
            }
            let unit = if column == "day" { "day" } else { "hour" };
            let rest = format!("timezone = \"{zone}\"\nbucket = \"1 {unit}\"");
            for from in ["clocks", "vast_clocks"] {
                let name = format!("{from}_{column}_{short}");
                rollups += &two_days(&name, from, time, &rest);
                expected.push(format!(
                    "SELECT date_trunc('{unit}', {instant}, '{zone}'), kind, count(*), min(at) FROM clocks \
                     WHERE {instant} >= '2026-01-01'::timestamp AT TIME ZONE '{zone}' \
                     AND {instant} < '2026-01-03'::timestamp AT TIME ZONE '{zone}' GROUP BY 1, 2"
                ));
            }
        }
    }
    let setup = Setup { rollups: &rollups, ..Setup::default() };
    let world = World::new(&format!("CREATE DOMAIN moment AS timestamptz; {CLOCKS}"), setup).await;
    for (rollup, expected) in world.worker.config.rollups.iter().zip(&expected) {
        let end = rollup.calendar.instant("2026-01-03").unwrap().to_rfc3339();
        let report = world.backfill_one(rollup, &end, false).await;
        assert_eq!((report.succeeded, report.left), (2, 0), "{}", rollup.name);
        let found = records(&world.target, &format!("SELECT * FROM stats.{}", rollup.name)).await;
        assert_eq!(found, records(&world.pool, expected).await, "{}", rollup.name);
        world.assert_one_verified(rollup, &end).await;
        let mut chunks = Vec::new();
        for start in [rollup.start, rollup.calendar.containing(rollup.start).end()] {
            let checkpoint = world.worker.checkpoints.get(&rollup.name, start).await.unwrap();
            chunks.push(checkpoint.unwrap().outcome.unwrap().chunks);
        }
        chunks.sort_unstable();
        // A date's day cannot be cut. The slice that runs second is cut by what the first one took.
        let cut = rollup.name.starts_with("vast") && !rollup.name.contains("_day_");
        assert!(if cut { chunks[1] > 2 } else { chunks == [1, 1] }, "{}: {chunks:?}", rollup.name);
    }
}

/// Months of dates, which are cut at days.
#[tokio::test]
async fn a_month_of_dates_is_cut_at_days() {
    let rest = "timezone = \"Europe/Prague\"\nbucket = \"1 day\"";
    let rollups = two_days("dates", "vast", "\"day\"", rest)
        .replace("slice = \"1 day\"", "slice = \"1 month\"");
    let sql = "CREATE TABLE dates AS SELECT day::date, 'k' AS kind, now() AS at \
        FROM generate_series('2025-12-20'::timestamp, '2026-04-10', '1 day') day, generate_series(1, 3); \
        ANALYZE dates; CREATE FUNCTION much() RETURNS SETOF boolean LANGUAGE plpgsql VOLATILE ROWS 100000 \
        AS 'BEGIN RETURN NEXT true; END'; \
        CREATE VIEW vast AS SELECT d.* FROM dates d CROSS JOIN LATERAL much()";
    let setup = Setup { rollups: &rollups, ..Setup::default() };
    let world = World::new(sql, setup).await;
    let report = world.backfill("2026-03-31T22:00:00Z", false).await;
    assert_eq!((report.succeeded, report.rows_read), (3, 90 * 3));
    world
        .assert_rows(
            "SELECT day::timestamp AT TIME ZONE 'Europe/Prague', kind, count(*), min(at) FROM dates \
             WHERE day >= '2026-01-01' AND day < '2026-04-01' GROUP BY 1, 2",
        )
        .await;
    let chunks = "SELECT count(*) FROM tallymark.slice WHERE replaced_at IS NOT NULL";
    assert_eq!(world.target_value(chunks).await, "3");
    let checkpoint = world.checkpoint("2025-12-31T23:00:00Z").await.unwrap();
    assert!(checkpoint.outcome.unwrap().chunks > 2);
}

#[tokio::test]
async fn a_time_column_that_means_no_instant_is_refused_with_the_remedy() {
    let world = World::new(
        &format!("CREATE DOMAIN moment AS timestamptz; {CLOCKS}"),
        Setup { rollups: &two_days("good", "clocks", "\"at\"", ""), ..Setup::default() },
    )
    .await;
    for (time, rest, words) in [
        ("\"seconds\"", "", ["seconds", "unit = \"seconds\""]),
        ("\"kind\"", "", ["text", "timestamptz"]),
        ("\"day\"", "bucket = \"1 hour\"", ["date", "1 day or wider"]),
        ("{ column = \"day\", zone = \"Asia/Tokyo\" }", "", ["date", "own zone"]),
        ("{ column = \"at\", zone = \"Asia/Tokyo\" }", "", ["`zone`", "remove it"]),
        ("{ column = \"at\", unit = \"seconds\" }", "", ["`unit`", "remove it"]),
        ("\"absent\"", "", ["absent", "no column"]),
    ] {
        let refused = world.redefined(&two_days("bad", "clocks", time, rest));
        let error = refused.init().await.unwrap_err().in_one_line();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

/// A partitioned table with a partition of its own for the second day, and a view that joins it.
#[tokio::test]
async fn partitioned_tables_and_views_are_sources() {
    let sql = "CREATE TABLE parts (at timestamptz NOT NULL, kind text, shop int) PARTITION BY RANGE (at); \
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM ('2026-01-01Z') TO ('2026-01-02Z'); \
        CREATE TABLE parts_rest PARTITION OF parts DEFAULT; \
        CREATE TABLE shops AS SELECT n AS shop, chr(97 + n) AS kind FROM generate_series(0, 4) n; \
        INSERT INTO parts SELECT '2025-12-31 12:00Z'::timestamptz + n * interval '5 minutes', \
            'k' || n % 3, n % 7 FROM generate_series(0, 700) n; \
        CREATE VIEW joined AS SELECT p.at, s.kind FROM parts p LEFT JOIN shops s USING (shop); \
        CREATE MATERIALIZED VIEW kept AS SELECT * FROM joined; \
        CREATE VIEW of_all AS SELECT * FROM kept UNION ALL SELECT at, kind FROM parts";
    let sources = ["parts", "joined", "kept", "of_all"];
    let rollups: String =
        sources.map(|from| two_days(&format!("of_{from}"), from, "\"at\"", "")).concat();
    let setup = Setup { rollups: &rollups, across: true, ..Setup::default() };
    let world = World::new(sql, setup).await;
    for (rollup, from) in world.worker.config.rollups.iter().zip(sources) {
        assert_eq!(world.backfill_one(rollup, "2026-01-03", false).await.succeeded, 2);
        let expected = format!(
            "SELECT date_trunc('day', at, 'UTC'), kind, count(*), min(at) FROM {from} \
             WHERE at >= '2026-01-01Z' AND at < '2026-01-03Z' GROUP BY 1, 2"
        );
        let found = records(&world.target, &format!("SELECT * FROM stats.{}", rollup.name)).await;
        assert_eq!(found, records(&world.pool, &expected).await, "{from}");
        world.assert_one_verified(rollup, "2026-01-03").await;
    }
}

/// Names with all characters that need quoting, in source and target, whole and in chunks.
#[tokio::test]
async fn names_may_hold_quotes_capitals_spaces_and_letters_of_any_alphabet() {
    for across in [false, true] {
        let table = r#""\"Our \"\"Shop\"\" 1.0\".\"Bestellung's Größe\"""#;
        let view = r#"'"Our ""Shop"" 1.0"."ВИД, 表 {0}"'"#;
        let rollup = |name: &str, from: &str| {
            format!(
                r#"
[[rollup]]
name = "{name}"
from = {from}
time = "Zeit 'am\" Tag"
start = "2026-01-01"
slice = "1 day"
bucket = "1 hour"
group_by = ["Größe", "GRÖSSE", "select", "a\"b'c\\d", "{{x}}", "ctid "]
[rollup.measures]
"Σ \"total\" 'x' {{}}" = {{ sum = "Preis €", where = "\"Preis €\" > 0" }}
"user" = {{ distinct = "Kunde; --" }}
"n o d r k" = "count"
"Ø" = {{ avg = "Preis €" }}
"#
            )
        };
        let rollups = rollup("odd", table) + &rollup("odd_vast", view);
        let sql = r#"CREATE SCHEMA "Our ""Shop"" 1.0"; CREATE TABLE "Our ""Shop"" 1.0"."Bestellung's Größe" AS
            SELECT '2026-01-01Z'::timestamptz + n * interval '10 minutes' AS "Zeit 'am"" Tag", n % 2 AS "Größe",
                n % 3 AS "GRÖSSE", 'x'::text AS "select", nullif(n % 2, 0) AS "a""b'c\d", 1 AS "{x}", 2 AS "ctid ",
                (n % 9 - 3)::numeric AS "Preis €", n % 5 AS "Kunde; --" FROM generate_series(0, 143) n;
            ANALYZE "Our ""Shop"" 1.0"."Bestellung's Größe";
            CREATE FUNCTION much() RETURNS SETOF boolean LANGUAGE plpgsql VOLATILE ROWS 100000
                AS 'BEGIN RETURN NEXT true; END';
            CREATE VIEW "Our ""Shop"" 1.0"."ВИД, 表 {0}" AS SELECT b.* FROM "Our ""Shop"" 1.0"."Bestellung's Größe" b
                CROSS JOIN LATERAL much()"#;
        let schema = "schema = \"Zahlen \\\"für\\\" 'Uns'\"";
        let world = World::bare(sql, Setup { rollups: &rollups, across, ..Setup::default() }).await;
        let Urls { source, target } = world.urls.clone();
        // The target's section ends where the rollups begin.
        let rollups = if across {
            format!("{schema}\n{rollups}")
        } else {
            format!("[target]\n{schema}\n{rollups}")
        };
        let urls = Urls { source, target };
        assert_eq!(config(&urls, "", &rollups).target.schema, "Zahlen \"für\" 'Uns'");
        let world = world.redefined(&rollups);
        world.init().await.unwrap();
        for rollup in &world.worker.config.rollups {
            assert_eq!(world.backfill_one(rollup, "2026-01-02", false).await.succeeded, 1);
            let again = world.backfill_one(rollup, "2026-01-02", true).await;
            assert_eq!(again.unchanged, again.groups);
            world.assert_one_verified(rollup, "2026-01-02").await;
            let found = format!("SELECT * FROM \"Zahlen \"\"für\"\" 'Uns'\".{}", rollup.name);
            let expected = r#"SELECT date_trunc('hour', "Zeit 'am"" Tag", 'UTC'), "Größe", "GRÖSSE", "select",
                "a""b'c\d", "{x}", "ctid ", sum("Preis €") FILTER (WHERE "Preis €" > 0),
                count(DISTINCT "Kunde; --"), count(*), sum("Preis €"), count("Preis €"),
                sum("Preis €") / count("Preis €")
                FROM "Our ""Shop"" 1.0"."Bestellung's Größe" GROUP BY 1, 2, 3, 4, 5, 6, 7"#;
            assert_eq!(records(&world.target, &found).await, records(&world.pool, expected).await);
        }
        let chunks = "SELECT sum(rows_read) FROM tallymark.slice";
        assert_eq!(world.target_value(chunks).await, "288");
    }
}
