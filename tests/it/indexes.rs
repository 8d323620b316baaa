//! A missing index is reported with a statement that creates it, before the table has grown.

use tallymark::clients::db::Access;
use tallymark::source::reading::plan_guard::{By, Unindexed, unindexed};
use tallymark::work::ready;

use crate::support::cli::{Place, daily};
use crate::support::world::{BUDGET, Setup, World};

/// Unquoted, these names would end a quotation, a condition or a statement, or look like a part of
/// a plan.
const TABLE: &str = "Order's \"x\"; -- AND b";
const COLUMN: &str = "at >= 1 AND (\"user\" $$ ; --";

/// A table, its time and change columns, and the tables without an index on each.
struct Case {
    sql: &'static str,
    from: &'static str,
    columns: [&'static str; 2],
    time: &'static [&'static str],
    change: &'static [&'static str],
}

const PLAIN: [&str; 2] = ["at", "changed"];

const CASES: &[Case] = &[
    Case {
        sql: "CREATE TABLE bare AS SELECT * FROM seed",
        from: "bare",
        columns: PLAIN,
        time: &["public.bare (at)"],
        change: &["public.bare (changed)"],
    },
    Case {
        sql: "CREATE TABLE served AS SELECT * FROM seed; CREATE INDEX ON served (at); \
              CREATE INDEX ON served (changed DESC, kind)",
        from: "served",
        columns: PLAIN,
        time: &[],
        change: &[],
    },
    // These do not find rows by the time or the change: second column, partial, expression,
    // invalid, hash, BRIN.
    Case {
        sql: "CREATE TABLE useless AS SELECT * FROM seed; CREATE INDEX ON useless (kind, at); \
              CREATE INDEX ON useless (changed) WHERE kind = 'k0'; CREATE INDEX ON useless USING hash (changed); \
              CREATE INDEX ON useless USING brin (changed); CREATE INDEX ON useless ((changed AT TIME ZONE 'UTC')); \
              CREATE INDEX broken ON useless (changed); \
              UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'broken'::regclass",
        from: "useless",
        columns: PLAIN,
        time: &["public.useless (at)"],
        change: &["public.useless (changed)"],
    },
    // A BRIN index serves slices, because their rows lie together.
    Case {
        sql: "CREATE TABLE brin AS SELECT * FROM seed; CREATE INDEX ON brin USING brin (at)",
        from: "brin",
        columns: PLAIN,
        time: &[],
        change: &["public.brin (changed)"],
    },
    Case {
        sql: "CREATE TABLE parts (LIKE seed) PARTITION BY RANGE (at); \
              CREATE TABLE parts_old PARTITION OF parts FOR VALUES FROM (MINVALUE) TO ('2026-01-01Z'); \
              CREATE TABLE parts_new PARTITION OF parts FOR VALUES FROM ('2026-01-01Z') TO ('2027-01-01Z') \
                  PARTITION BY LIST (kind); \
              CREATE TABLE \"Parts 0\" PARTITION OF parts_new FOR VALUES IN ('k0'); \
              CREATE TABLE \"Parts 1\" PARTITION OF parts_new DEFAULT; \
              CREATE INDEX ON parts_old (at); CREATE INDEX ON \"Parts 0\" (changed); \
              INSERT INTO parts SELECT * FROM seed",
        from: "parts",
        columns: PLAIN,
        time: &["public.\"Parts 0\" (at)", "public.\"Parts 1\" (at)"],
        change: &["public.parts_old (changed)", "public.\"Parts 1\" (changed)"],
    },
    Case {
        sql: "CREATE TABLE elder AS SELECT * FROM seed; CREATE TABLE younger () INHERITS (elder); \
              CREATE INDEX ON elder (at); CREATE INDEX ON younger (changed)",
        from: "elder",
        columns: PLAIN,
        time: &["public.younger (at)"],
        change: &["public.elder (changed)"],
    },
    // In a view it is the table's column, or the expression behind the view's column.
    Case {
        sql: "CREATE TABLE base AS SELECT *, extract(epoch FROM changed)::bigint AS seconds FROM seed; \
              CREATE VIEW seen AS SELECT b.changed AS at, to_timestamp(seconds) AS changed, kind FROM base b \
              WHERE b.at >= '2000-01-01Z'",
        from: "seen",
        columns: PLAIN,
        time: &["public.base (changed)"],
        change: &["public.base ((to_timestamp((seconds)::double precision)))"],
    },
    Case {
        sql: "CREATE TABLE \"user\" AS SELECT at AS \"time\", changed AS \"order\", kind FROM seed",
        from: "user",
        columns: ["time", "order"],
        time: &["public.\"user\" (\"time\")"],
        change: &["public.\"user\" (\"order\")"],
    },
    Case {
        sql: "CREATE TABLE HOSTILE_TABLE AS SELECT at, changed AS HOSTILE_COLUMN, kind FROM seed",
        from: TABLE,
        columns: ["at", COLUMN],
        time: &["public.HOSTILE_TABLE (at)"],
        change: &["public.HOSTILE_TABLE (HOSTILE_COLUMN)"],
    },
];

const SEED: &str = "CREATE TABLE seed AS SELECT '2025-11-20Z'::timestamptz + n * interval '6 hours' AS at, \
    '2026-01-20Z'::timestamptz + n * interval '1 minute' AS changed, 'k' || n % 2 AS kind \
    FROM generate_series(0, 400) n";

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn named(text: &str) -> String {
    text.replace("HOSTILE_TABLE", &quoted(TABLE)).replace("HOSTILE_COLUMN", &quoted(COLUMN))
}

fn rollup(place: usize, case: &Case) -> String {
    let [time, change] = case.columns.map(|column| format!("{column:?}"));
    let from = format!("public.{}", quoted(case.from));
    format!(
        "[[rollup]]\nname = \"r{place}\"\nfrom = {from:?}\ntime = {time}\n\
         start = \"2025-11-20\"\nslice = \"1 day\"\nlate = {{ column = {change} }}\ngroup_by = [\"kind\"]\n\
         measures = {{ n = \"count\" }}\n"
    )
}

async fn found(world: &World, name: &str, by: By) -> Option<Unindexed> {
    let rollup = world.worker.rollup(name).unwrap();
    let shape = ready::shape(&world.worker, rollup).await.unwrap();
    let slice = rollup.calendar.containing("2026-01-20T00:00:00Z".parse().unwrap());
    let mut tx = world.worker.source.begin(Access::ReadOnly, BUDGET, "test").await.unwrap();
    unindexed(&mut tx, (rollup, &shape), by, (slice.start(), slice.end())).await.unwrap()
}

/// Each reported statement runs, and then none is reported any more, even after a new partition.
#[tokio::test]
async fn each_missing_index_is_told_with_a_statement_that_makes_it() {
    let sql: Vec<String> = CASES.iter().map(|case| named(case.sql)).collect();
    let sql = format!("{SEED}; {}", sql.join("; "));
    let rollups: Vec<String> = CASES.iter().enumerate().map(|(n, it)| rollup(n, it)).collect();
    let rollups = rollups.concat();
    let world = World::bare(&sql, Setup { rollups: &rollups, ..Setup::default() }).await;
    for (place, case) in CASES.iter().enumerate() {
        let name = format!("r{place}");
        for (by, wanted) in [(By::Time, case.time), (By::Change, case.change)] {
            let missing = found(&world, &name, by).await;
            let wanted: Vec<String> = wanted
                .iter()
                .map(|on| format!("CREATE INDEX CONCURRENTLY ON {}", named(on)))
                .collect();
            let statements = missing.as_ref().map(|it| it.statements.clone()).unwrap_or_default();
            assert_eq!(statements, wanted, "{by:?} of {}", case.from);
            let Some(missing) = missing else { continue };
            assert!(!missing.is_large, "{missing:?}");
            for statement in statements.iter().chain(&missing.wholes) {
                world.sql(statement).await;
            }
            assert_eq!(missing.wholes.is_empty(), case.from != "parts", "{missing:?}");
            assert_eq!(found(&world, &name, by).await, None, "{by:?} of {}", case.from);
        }
    }
    world.sql("CREATE TABLE parts_next PARTITION OF parts DEFAULT").await;
    let place = CASES.iter().position(|case| case.from == "parts").unwrap();
    for by in [By::Time, By::Change] {
        assert_eq!(found(&world, &format!("r{place}"), by).await, None, "{by:?}");
    }
}

#[tokio::test]
async fn many_partitions_are_counted_and_few_are_named() {
    let parts: Vec<String> = (10..31)
        .map(|day| {
            format!(
                "CREATE TABLE p{day} PARTITION OF parts FOR VALUES FROM ('2026-01-{day}Z') TO ('2026-01-{}Z')",
                day + 1
            )
        })
        .collect();
    let sql = format!(
        "{SEED}; CREATE TABLE parts (LIKE seed) PARTITION BY RANGE (at); {}",
        parts.join("; ")
    );
    let case = CASES.iter().find(|case| case.from == "parts").unwrap();
    let rollups = rollup(0, case);
    let world = World::bare(&sql, Setup { rollups: &rollups, ..Setup::default() }).await;
    let missing = found(&world, "r0", By::Change).await.unwrap();
    assert_eq!(missing.statements.len(), 21);
    assert_eq!(
        missing.remedy(),
        "CREATE INDEX CONCURRENTLY ON public.p10 (changed); CREATE INDEX CONCURRENTLY ON public.p11 (changed); \
         CREATE INDEX CONCURRENTLY ON public.p12 (changed); and likewise on 18 more; then, for new partitions \
         too: CREATE INDEX ON public.parts (changed)"
    );
}

/// With default settings it is a note while the table is small, bad once it is large, and gone with
/// the index.
#[tokio::test]
async fn check_tells_of_a_missing_index_before_it_is_felt() {
    let (place, _database) = Place::with_events(2).await;
    let slice = "slice = \"1 day\"";
    let late = format!("{slice}\nlate = {{ column = \"changed\" }}");
    place.configure_plain(&daily(2).replace(slice, &late));
    place
        .sql("ALTER TABLE events ADD changed timestamptz DEFAULT now(); DROP INDEX events_at_idx")
        .await;
    let lines = |grade: &str, word: &str| {
        let ended = place.run(&["check"]);
        let found: Vec<&str> = ended.out.lines().filter(|it| it.contains(word)).collect();
        assert!(found.iter().all(|line| line.starts_with(grade)), "{ended:?}");
        (found.len(), ended.code, found.concat())
    };
    let (count, code, text) = lines("note", "CREATE INDEX");
    assert_eq!((count, code), (2, Some(0)), "{text}");
    assert!(text.contains("CREATE INDEX CONCURRENTLY ON public.events (at)"), "{text}");
    assert!(text.contains("CREATE INDEX CONCURRENTLY ON public.events (changed)"), "{text}");

    place.sql("CREATE INDEX ON events (at)").await;
    place
        .sql(
            "INSERT INTO events SELECT at - interval '1 year', kind, amount, changed FROM events, \
             generate_series(1, 700); ANALYZE events",
        )
        .await;
    let (count, code, text) = lines("bad", "CREATE INDEX");
    assert_eq!((count, code), (1, Some(2)), "{text}");
    assert!(text.contains("late: no B-tree index finds changed rows by `changed`"), "{text}");

    place.sql("CREATE INDEX ON events (changed)").await;
    assert_eq!(lines("", "CREATE INDEX").0, 0);
}
