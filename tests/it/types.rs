//! Dimensions of every type that PostgreSQL can group by, and measures over them. Each rollup is
//! compared with a plain GROUP BY, for the slice read whole and in chunks, within one database and
//! across two.

mod measures;

use futures_util::StreamExt as _;
use tallymark::model::hint::Hinted;
use tallymark::model::rollup::Rollup;
use tallymark::work::worker::WorkError;

use crate::support::world::{Setup, World, records};

/// A column `v_<name>` of this type with these values, some of which are equal and look different.
struct Type {
    name: &'static str,
    sql: &'static str,
    values: &'static [&'static str],
    /// Whether another database has the type.
    portable: bool,
}

const fn of(name: &'static str, sql: &'static str, values: &'static [&'static str]) -> Type {
    Type { name, sql, values, portable: true }
}

const fn local(name: &'static str, sql: &'static str, values: &'static [&'static str]) -> Type {
    Type { name, sql, values, portable: false }
}

const TYPES: &[Type] = &[
    of("smallint", "smallint", &["-1", "0", "32767"]),
    of("int", "int", &["-1", "7"]),
    of("bigint", "bigint", &["9223372036854775807", "0"]),
    of("numeric", "numeric", &["1.0", "1.00", "NaN", "-0.0", "0"]),
    of("scaled", "numeric(8, 3)", &["1.5", "12345.678"]),
    of("real", "real", &["0", "-0", "NaN", "0.1"]),
    of("double", "double precision", &["0", "-0", "NaN", "0.1", "Infinity", "1e-300"]),
    of("part", "real", &["0.1", "16777216", "-16777216"]),
    of("ratio", "double precision", &["0.1", "1e16", "-1e16", "3.3"]),
    of("text", "text", &["", "a", "A", "é", "\\N", "a\tb", "a\nb"]),
    of("varchar", "varchar(9)", &["", "a", "a "]),
    of("char", "char(5)", &["", "ab", "ab  ", "abcde"]),
    of("byte", "\"char\"", &["a", "b", ""]),
    of("name", "name", &["a", "B"]),
    of("icu", "text COLLATE \"en-x-icu\"", &["a", "B", "b"]),
    of("bool", "bool", &["t", "f"]),
    of("bytea", "bytea", &["", "\\x00ff", "\\\\"]),
    of("date", "date", &["2026-01-01", "0044-03-15 BC", "infinity"]),
    of("time", "time", &["00:00", "24:00"]),
    of("timetz", "timetz", &["12:00+00", "13:00+01", "13:00+00"]),
    of("timestamp", "timestamp(3)", &["2026-01-01 00:00:00.1234", "2026-01-01 00:00:00.123"]),
    of("timestamptz", "timestamptz", &["2026-01-01 00:00Z", "2026-01-01 01:00+01", "-infinity"]),
    of("interval", "interval", &["1 day", "24 hours", "1 month", "30 days", "1 year"]),
    of(
        "uuid",
        "uuid",
        &["00000000-0000-0000-0000-00000000000a", "{0000000000000000000000000000000A}"],
    ),
    of("inet", "inet", &["10.0.0.1", "10.0.0.1/32", "10.0.0.1/8", "::1"]),
    of("cidr", "cidr", &["10.0.0.0/8", "10/8", "::/0"]),
    of("macaddr", "macaddr", &["08:00:2b:01:02:03", "08002b-010203"]),
    of("macaddr8", "macaddr8", &["08:00:2b:01:02:03:04:05"]),
    of("bit", "bit(3)", &["101", "000"]),
    of("varbit", "varbit", &["", "1", "10"]),
    of("enum", "mood", &["sad", "ok", "so, \"so\""]),
    of("domain", "code", &["1", "1.00", "2.5"]),
    of("nested", "inner_code", &["1", "2.5"]),
    of("padded", "padded", &["ab", "ab ", "abc"]),
    of("feeling", "feeling", &["sad", "ok"]),
    of("ints", "int[]", &["{}", "{1,2}", "[0:1]={1,2}", "{{1,2}}", "{NULL}"]),
    of("chars", "char(3)[]", &["{}", "{abc}", "{ab,\"c \"}", "{ab,c}"]),
    of("texts", "text[]", &["{}", "{\"\"}", "{NULL}", "{a,\"b,c\"}"]),
    of("list", "list", &["{}", "{1}"]),
    local("pair", "pair", &["(1,a)", "(1,)", "(,)", "(,\"a,b\")"]),
    local("caseless", "text COLLATE caseless", &["a", "A", "b"]),
    of("range", "int4range", &["[1,3]", "[1,4)", "empty", "(,)"]),
    of("multirange", "int4multirange", &["{[1,3),[3,5)}", "{[1,5)}", "{}"]),
    of("jsonb", "jsonb", &["{\"a\": 1, \"b\": 2}", "{\"b\":2,\"a\":1.0}", "null", "[]"]),
    of("money", "money", &["1", "-1234.50"]),
    of("oid", "oid", &["0", "4294967295"]),
    of("tsvector", "tsvector", &["b a", "a b", "a:1"]),
    of("xid8", "xid8", &["1", "18446744073709551615"]),
    of("lsn", "pg_lsn", &["0/1", "0/00000001"]),
];

const MADE: &str = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'so, \"so\"'); \
    CREATE DOMAIN code AS numeric(6, 2); CREATE DOMAIN inner_code AS code CHECK (value > 0); \
    CREATE DOMAIN padded AS char(3); CREATE DOMAIN feeling AS mood; CREATE DOMAIN list AS int[]; \
    CREATE TYPE pair AS (a int, b text); \
    CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)";

/// Seconds of the day at which every value occurs. The chunks of a day, each four times as long as
/// the one before it, all contain some.
const SECONDS: &str = "ARRAY[10, 1000, 5000, 20000, 50000, 86399]";

/// Number of rows at each of them.
const ROWS: usize = 7;

fn quoted(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// The type without its collation, for casts.
fn bare(it: &Type) -> &str {
    it.sql.split(" COLLATE").next().unwrap()
}

/// The table `things`, and a view of it that the planner estimates at hundreds of chunks.
fn things() -> String {
    let columns: Vec<String> = TYPES.iter().map(|it| format!("v_{} {}", it.name, it.sql)).collect();
    let values: Vec<String> = TYPES
        .iter()
        .zip(0..)
        .map(|(it, place): (_, usize)| {
            let list: Vec<String> = it.values.iter().map(|value| quoted(value)).collect();
            // The last one, beyond the array, is NULL. Other chunks have other values.
            let count = it.values.len() + 1;
            let which =
                format!("1 + abs(hashint4(((n * {ROWS} + i) * 100 + {place})::int)) % {count}");
            format!("(ARRAY[{}])[{which}]::{}", list.join(", "), bare(it))
        })
        .collect();
    format!(
        "{MADE}; CREATE TABLE things (at timestamptz, i int, updated_at timestamptz, {}); \
         INSERT INTO things SELECT '2026-01-01Z'::timestamptz + s * interval '1 second', i, \
         '2026-01-01Z'::timestamptz + i % 3 * interval '1 day', {} \
         FROM generate_series(1, {ROWS}) i, unnest({SECONDS}) WITH ORDINALITY seconds (s, n); \
         ANALYZE things; \
         CREATE FUNCTION much() RETURNS SETOF boolean LANGUAGE plpgsql VOLATILE ROWS 1000000 \
         AS 'BEGIN RETURN NEXT true; END'; \
         CREATE VIEW vast AS SELECT t.* FROM things t CROSS JOIN LATERAL much()",
        columns.join(", "),
        values.join(", ")
    )
}

/// A rollup of the one day in `things`, with what follows.
fn one_day(name: &str, from: &str, rest: &str) -> String {
    format!(
        "[[rollup]]\nname = \"{name}\"\nfrom = \"{from}\"\ntime = \"at\"\n\
         start = \"2026-01-01\"\nslice = \"1 day\"\n{rest}\n"
    )
}

/// Every second type is an expression, whose name is also that of a column.
fn by_type((place, it): (usize, &Type)) -> String {
    let key = match place % 2 {
        0 => format!("\"v_{}\"", it.name),
        _ => format!("{{ v_{0} = \"coalesce(v_{0})\" }}", it.name),
    };
    let rest = format!(
        "group_by = [{key}]\n[rollup.measures]\nn = \"count\"\n\
         few = {{ count = true, where = \"i < 3\" }}\nd = {{ distinct = \"v_{0}\" }}\n\
         i = {{ distinct = \"i\", where = \"i > 3\" }}",
        it.name
    );
    one_day(&format!("by_{}", it.name), "vast", &rest)
}

/// Computes the day of every rollup concurrently, and returns each one's number of chunks. Then
/// computes it again. By then the view is known to be fast, so the slice is read whole, and the
/// result is the same.
async fn compute(world: &World) -> Vec<(&Rollup, u64)> {
    let compute = async |rollup| {
        let report = world.backfill_one(rollup, "2026-01-02", false).await;
        assert_eq!(report.succeeded, 1, "{}: {report:?}", rollup.name);
        let checkpoint = world.worker.checkpoints.get(&rollup.name, rollup.start).await.unwrap();
        let again = world.backfill_one(rollup, "2026-01-02", true).await;
        assert_eq!((again.unchanged, again.deleted), (report.groups, 0), "{}", rollup.name);
        world.assert_one_verified(rollup, "2026-01-02").await;
        (rollup, checkpoint.unwrap().outcome.unwrap().chunks)
    };
    let rollups = futures_util::stream::iter(&world.worker.config.rollups);
    rollups.map(compute).buffer_unordered(4).collect().await
}

/// The groups are those of a GROUP BY: the same number, each with the same counts. The form of
/// equal values is left to PostgreSQL.
async fn is_grouped(world: &World, rollup: &Rollup, it: &Type) {
    let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "SELECT json_build_array(v_{}::text, n, few, d, i)::text FROM stats.{}",
        it.name, rollup.name
    )))
    .fetch_all(&world.target)
    .await
    .unwrap();
    let wanted = format!(
        "SELECT v_{0} AS v, count(*) AS n, count(*) FILTER (WHERE i < 3) AS few, \
         count(DISTINCT v_{0}) AS d, count(DISTINCT i) FILTER (WHERE i > 3) AS i \
         FROM things GROUP BY 1",
        it.name
    );
    let bare = bare(it);
    let found = format!(
        "SELECT (x ->> 0)::{bare} AS v, (x ->> 1)::bigint AS n, (x ->> 2)::bigint AS few, \
         (x ->> 3)::bigint AS d, (x ->> 4)::bigint AS i FROM json_array_elements({}) x",
        quoted(&format!("[{}]", rows.join(",")))
    );
    // A domain over an enum has no operator of its own.
    let base = if it.name == "feeling" { "::mood" } else { "" };
    let wrong = format!(
        "WITH wanted AS ({wanted}), found AS ({found}) SELECT \
         (SELECT count(*) FROM wanted), (SELECT count(*) FROM found), w FROM wanted w \
         WHERE NOT EXISTS (SELECT FROM found f WHERE f.v{base} IS NOT DISTINCT FROM w.v{base} \
             AND (f.n, f.few, f.d, f.i) = (w.n, w.few, w.d, w.i)) \
         OR (SELECT count(*) FROM wanted) <> (SELECT count(*) FROM found)"
    );
    let wrong = records(&world.pool, &wrong).await;
    assert!(wrong.is_empty() && rows.len() > 1, "{}: {wrong:?} {rows:?}", rollup.name);
}

/// Every type as dimension, in chunks and whole.
async fn every_type(across: bool) {
    let kept = || TYPES.iter().filter(|it| it.portable || !across);
    let rollups: String = (usize::from(across)..).zip(kept()).map(by_type).collect();
    let setup = Setup { rollups: &rollups, across, ..Setup::default() };
    let world = World::new(&things(), setup).await;
    for (rollup, chunks) in compute(&world).await {
        let it = kept().find(|it| rollup.group_by[0].name == format!("v_{}", it.name)).unwrap();
        is_grouped(&world, rollup, it).await;
        assert!(chunks > 3, "{}: {chunks}", rollup.name);
    }
}

#[tokio::test]
async fn every_type_is_grouped_as_postgresql_groups_it() {
    every_type(false).await;
}

#[tokio::test]
async fn every_type_that_travels_is_grouped_in_another_database_too() {
    every_type(true).await;
}

/// A rollup that is refused before a claim, in one line with the remedy.
async fn is_refused(world: &World, rest: &str, words: &[&str]) {
    let refused = world.redefined(&one_day("refused", "things", rest));
    let error = refused.init().await.unwrap_err();
    assert!(matches!(error, WorkError::Shape(_)), "{rest}: {error:?}");
    let text = error.in_one_line();
    assert!(!text.contains('\n'), "{text}");
    assert!(words.iter().all(|word| text.contains(word)), "{rest}: {text}");
    assert!(refused.try_run("2026-01-01").await.is_err());
    assert!(refused.checkpoint("2026-01-01").await.is_none());
}

fn grouped_by(column: &str) -> String {
    format!("group_by = [\"{column}\"]\n[rollup.measures]\nn = \"count\"")
}

fn measured(measure: &str) -> String {
    format!("[rollup.measures]\nm = {measure}")
}

#[tokio::test]
async fn what_cannot_be_grouped_exactly_is_refused_with_the_remedy() {
    let odd = "CREATE TYPE holder AS (a int, j json); ALTER TABLE things ADD j json, ADD x xml, \
               ADD p point, ADD js json[], ADD h holder, ADD t xid, ADD ts xid[]";
    let rollups = one_day("good", "things", &grouped_by("v_int"));
    let setup = Setup { rollups: &rollups, ..Setup::default() };
    let world = World::new(&format!("{}; {odd}", things()), setup).await;
    for column in ["j", "x", "p", "js", "h", "t", "ts"] {
        let words = ["refused", column, "cast", "in a view"];
        is_refused(&world, &grouped_by(column), &words).await;
        let distinct = format!("{{ distinct = \"{column}\" }}");
        is_refused(&world, &measured(&distinct), &words).await;
    }
    for measure in ["{ sum = \"v_text\" }", "{ min = \"v_bool\" }", "{ avg = \"v_date\" }"] {
        is_refused(&world, &measured(measure), &["measures", "function"]).await;
    }
    let by_text = "{ last = \"i\", by = { sql = \"v_text || 'x'\" } }";
    let words = ["`by` names expression", "of type text", "a time or a number"];
    is_refused(&world, &measured(by_text), &words).await;
}

#[tokio::test]
async fn what_another_database_does_not_know_is_refused_with_the_remedy() {
    let rollups = one_day("good", "things", &grouped_by("v_int"));
    let setup = Setup { rollups: &rollups, across: true, ..Setup::default() };
    let world = World::new(&things(), setup).await;
    for it in TYPES.iter().filter(|it| !it.portable) {
        let column = format!("v_{}", it.name);
        is_refused(&world, &grouped_by(&column), &[&column, "in a view"]).await;
        let distinct = format!("{{ distinct = \"{column}\" }}");
        is_refused(&world, &measured(&distinct), &[&column, "in a view"]).await;
    }
    let least = |column: &str| measured(&format!("{{ min = \"{column}\" }}"));
    is_refused(&world, &least("v_enum"), &["mood", "cast it in a view"]).await;
    is_refused(&world, &least("v_caseless"), &["v_caseless", "collation", "in a view"]).await;
}
