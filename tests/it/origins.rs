//! The valid values of `late` for every kind of relation that a rollup may be computed from.

use crate::support::world::{Setup, World};
use tallymark::model::hint::Hinted;
use tallymark::work::ready;

/// A relation `from` and its statements, with a word of the refusal for `clock` and `column`, and
/// for `capture`. `None` where the value is valid.
struct Kind {
    name: &'static str,
    sql: &'static str,
    waiting: Option<&'static str>,
    capture: Option<&'static str>,
}

const fn kind(
    name: &'static str,
    sql: &'static str,
    waiting: Option<&'static str>,
    capture: Option<&'static str>,
) -> Kind {
    Kind { name, sql, waiting, capture }
}

const BASE: &str = "CREATE TABLE base (id int, at timestamptz DEFAULT now(), updated_at timestamptz, kind text); \
    CREATE TABLE other (kind text, name text); CREATE INDEX ON base (at); CREATE INDEX ON base (updated_at); \
    CREATE FOREIGN DATA WRAPPER afar; CREATE SERVER afar FOREIGN DATA WRAPPER afar; \
    CREATE FOREIGN TABLE remote (id int, at timestamptz, updated_at timestamptz, kind text) SERVER afar;";

const COLUMNS: &str = "(id int, at timestamptz, updated_at timestamptz, kind text)";

/// Each name is that of the relation `from`. `COLUMNS` stands for the columns that it needs.
const KINDS: &[Kind] = &[
    kind("ordinary", "CREATE TABLE ordinary COLUMNS", None, None),
    kind(
        "generated",
        "CREATE TABLE generated (id int, at timestamptz, updated_at timestamptz, kind text, \
        twice int GENERATED ALWAYS AS (id * 2) STORED)",
        None,
        None,
    ),
    kind(
        "parts",
        "CREATE TABLE parts COLUMNS PARTITION BY RANGE (at); \
        CREATE TABLE part PARTITION OF parts DEFAULT",
        None,
        None,
    ),
    kind(
        "far_parts",
        "CREATE TABLE far_parts COLUMNS PARTITION BY RANGE (at); \
        CREATE FOREIGN TABLE far_part PARTITION OF far_parts DEFAULT SERVER afar",
        Some("foreign table"),
        Some("foreign table"),
    ),
    kind(
        "parent",
        "CREATE TABLE parent COLUMNS; CREATE TABLE child () INHERITS (parent)",
        None,
        None,
    ),
    kind(
        "far_parent",
        "CREATE TABLE far_parent COLUMNS; \
        CREATE FOREIGN TABLE far_child () INHERITS (far_parent) SERVER afar",
        Some("foreign table"),
        Some("foreign table"),
    ),
    kind("unlogged", "CREATE UNLOGGED TABLE unlogged COLUMNS", None, Some("unlogged")),
    kind(
        "foreign_one",
        "CREATE FOREIGN TABLE foreign_one COLUMNS SERVER afar",
        Some("foreign table"),
        Some("foreign table"),
    ),
    kind(
        "subscribed",
        "CREATE TABLE subscribed COLUMNS; INSERT INTO pg_subscription_rel \
        (srsubid, srrelid, srsubstate) VALUES (1, 'subscribed'::regclass, 'r')",
        Some("subscription"),
        Some("subscription"),
    ),
    kind(
        "simple",
        "CREATE VIEW simple AS SELECT * FROM base WHERE kind <> 'x'",
        None,
        Some("no table"),
    ),
    kind(
        "barrier",
        "CREATE VIEW barrier WITH (security_barrier) AS SELECT * FROM base",
        None,
        Some("no table"),
    ),
    kind(
        "nested",
        "CREATE VIEW inner_one AS SELECT * FROM base; \
        CREATE VIEW nested AS SELECT id, at, updated_at, lower(kind) AS kind FROM inner_one",
        None,
        Some("no table"),
    ),
    kind(
        "of_parts",
        "CREATE TABLE slabs COLUMNS PARTITION BY RANGE (at); \
        CREATE TABLE slab PARTITION OF slabs DEFAULT; CREATE VIEW of_parts AS SELECT * FROM slabs",
        None,
        Some("no table"),
    ),
    kind(
        "of_foreign",
        "CREATE VIEW inner_far AS SELECT * FROM remote; \
        CREATE VIEW of_foreign AS SELECT * FROM inner_far",
        Some("foreign table"),
        Some("foreign table"),
    ),
    kind(
        "refreshed",
        "CREATE MATERIALIZED VIEW refreshed AS SELECT * FROM base",
        Some("materialized"),
        Some("no table"),
    ),
    kind(
        "of_refreshed",
        "CREATE MATERIALIZED VIEW fresh AS SELECT * FROM base; \
        CREATE VIEW of_refreshed AS SELECT * FROM fresh",
        Some("materialized"),
        Some("no table"),
    ),
    kind(
        "joined",
        "CREATE VIEW joined AS SELECT b.* FROM base b JOIN other USING (kind)",
        Some("several tables"),
        Some("no table"),
    ),
    kind(
        "united",
        "CREATE TABLE second COLUMNS; CREATE VIEW united AS SELECT * FROM base UNION ALL SELECT * FROM second",
        Some("several tables"),
        Some("no table"),
    ),
    kind(
        "grouped",
        "CREATE VIEW grouped AS SELECT min(id) AS id, at, max(updated_at) AS updated_at, kind \
        FROM base GROUP BY at, kind",
        Some("groups"),
        Some("no table"),
    ),
    kind(
        "windowed",
        "CREATE VIEW windowed AS SELECT row_number() OVER (ORDER BY at)::int AS id, at, updated_at, kind \
        FROM base",
        Some("windows"),
        Some("no table"),
    ),
    kind(
        "limited",
        "CREATE VIEW limited AS SELECT * FROM base ORDER BY at LIMIT 10",
        Some("limits"),
        Some("no table"),
    ),
    kind(
        "asking",
        "CREATE VIEW asking AS SELECT id, at, updated_at, \
        (SELECT max(b.kind) FROM base b) AS kind FROM base",
        Some("subqueries"),
        Some("no table"),
    ),
    kind(
        "until_now",
        "CREATE VIEW until_now AS SELECT * FROM base WHERE at < now()",
        Some("now()"),
        Some("no table"),
    ),
    kind(
        "until_today",
        "CREATE VIEW until_today AS SELECT * FROM base WHERE at < CURRENT_DATE",
        Some("asks for the time"),
        Some("no table"),
    ),
    kind(
        "by_chance",
        "CREATE VIEW by_chance AS SELECT * FROM base WHERE random() < 0.5",
        Some("random()"),
        Some("no table"),
    ),
    kind(
        "calling",
        "CREATE FUNCTION named(text) RETURNS text LANGUAGE sql STABLE AS \
        'SELECT name FROM other WHERE kind = $1'; CREATE VIEW calling AS SELECT id, at, updated_at, \
        named(kind) AS kind FROM base",
        Some("named(text)"),
        Some("no table"),
    ),
    kind(
        "by_constants",
        "CREATE FUNCTION half(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1 / 2'; \
        CREATE VIEW by_constants AS SELECT half(id) AS id, at, updated_at, kind FROM base",
        None,
        Some("no table"),
    ),
    kind(
        "rows_of",
        "CREATE FUNCTION given() RETURNS SETOF base LANGUAGE sql STABLE AS 'SELECT * FROM base'; \
        CREATE VIEW rows_of AS SELECT * FROM given()",
        Some("function"),
        Some("no table"),
    ),
    kind(
        "activity",
        "CREATE VIEW activity AS SELECT pid AS id, backend_start AS at, state_change AS updated_at, \
        state AS kind FROM pg_stat_activity",
        Some("PostgreSQL's own"),
        Some("PostgreSQL's own"),
    ),
    kind(
        "catalogue",
        "CREATE VIEW catalogue AS SELECT relpages AS id, 'epoch'::timestamptz AS at, \
        'epoch'::timestamptz AS updated_at, relname::text AS kind FROM pg_class",
        Some("PostgreSQL's own"),
        Some("PostgreSQL's own"),
    ),
];

async fn ask(name: &str, sql: &str, late: &str) -> Result<(), String> {
    let rollups = format!(
        "[[rollup]]\nname = \"daily\"\nfrom = \"public.{name}\"\ntime = \"at\"\nstart = \"2026-01-01\"\n\
         slice = \"1 day\"\nmeasures = {{ events = \"count\" }}\nlate = {late}\n"
    );
    let setup = Setup { rollups: &rollups, ..Setup::default() };
    let sql = sql.replace("COLUMNS", COLUMNS);
    let world = World::bare(&format!("{BASE} {sql}"), setup).await;
    let (worker, rollup) = (&world.worker, world.rollup());
    let shape = ready::shape(worker, rollup).await.map_err(|error| error.in_one_line())?;
    if late != "\"capture\"" {
        return Ok(());
    }
    let capture =
        tallymark::source::changes::capture::Capture::new(&rollup.from, &[(rollup, &*shape)]);
    let access = tallymark::clients::db::Access::ReadOnly;
    let mut tx = worker.source.begin(access, crate::support::world::BUDGET, "test").await.unwrap();
    let installed = capture.install(&mut tx, "tallymark").await;
    installed.map(drop).map_err(|error| error.in_one_line())
}

#[tokio::test]
async fn what_is_not_proven_for_a_kind_of_relation_is_refused_by_name() {
    let mut wrong = Vec::new();
    for Kind { name, sql, waiting, capture } in KINDS {
        let ways = [
            ("\"clock\"", waiting),
            ("{ column = \"updated_at\" }", waiting),
            ("\"capture\"", capture),
        ];
        for (late, expected) in ways {
            let found = ask(name, sql, late).await;
            let fits = match (&found, expected) {
                (Ok(()), None) => true,
                (Err(text), Some(word)) => text.contains(word),
                _ => false,
            };
            if !fits {
                wrong.push(format!("{name}, {late}: {found:?}, expected {expected:?}"));
            }
        }
        // A foreign table without a handler cannot be read at all. All others are valid.
        let grace = ask(name, sql, "\"grace\"").await;
        if let Err(text) = grace
            && !text.contains("handler")
        {
            wrong.push(format!("{name}, grace: {text}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
