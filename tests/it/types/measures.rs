//! Measures over every type that they take.

use super::{compute, one_day, things};
use crate::support::world::{Setup, World, records};

/// Types that are added up; floats as their decimals.
const SUMMED: [&str; 7] = ["smallint", "int", "bigint", "scaled", "interval", "money", "domain"];
const FLOATS: [&str; 4] = ["real", "double", "part", "ratio"];
/// Types whose equal values look alike, so that the least one is always the same.
const ORDERED: [&str; 23] = [
    "smallint",
    "int",
    "bigint",
    "scaled",
    "part",
    "ratio",
    "text",
    "varchar",
    "char",
    "icu",
    "date",
    "time",
    "timetz",
    "timestamp",
    "timestamptz",
    "inet",
    "money",
    "oid",
    "domain",
    "padded",
    "ints",
    "chars",
    "texts",
];
/// With the two that cannot travel they are 31, beside the dimension.
const COUNTED: [&str; 30] = [
    "numeric",
    "real",
    "double",
    "text",
    "varchar",
    "char",
    "byte",
    "name",
    "icu",
    "bool",
    "bytea",
    "timetz",
    "timestamptz",
    "interval",
    "uuid",
    "inet",
    "bit",
    "enum",
    "domain",
    "padded",
    "feeling",
    "ints",
    "chars",
    "texts",
    "range",
    "multirange",
    "jsonb",
    "money",
    "tsvector",
    "lsn",
];

/// One measure of each kind over each type that it takes, with and without a condition; and the
/// same in SQL.
fn measures(across: bool) -> (String, String) {
    let (mut toml, mut sql) = (String::new(), String::new());
    let mut add = |form: &str, column: &str, expression: &str, cast: &str| {
        for (suffix, toml_where, filter) in
            [("", "", ""), ("_some", ", where = \"i % 3 = 1\"", " FILTER (WHERE i % 3 = 1)")]
        {
            toml +=
                &format!("{form}_{column}{suffix} = {{ {form} = \"v_{column}\"{toml_where} }}\n");
            sql += &format!(", ({expression}{filter}){cast}");
            if form == "avg" {
                sql += &format!(", count(v_{column}){filter}");
            }
        }
    };
    for form in ["sum", "avg"] {
        SUMMED.iter().for_each(|it| add(form, it, &format!("sum(v_{it})"), ""));
        FLOATS
            .iter()
            .for_each(|it| add(form, it, &format!("sum(v_{it}::text::numeric)"), "::float8"));
    }
    for form in ["min", "max"] {
        ORDERED.iter().for_each(|it| add(form, it, &format!("{form}(v_{it})"), ""));
    }
    let abroad = if across { &[][..] } else { &["caseless", "pair"] };
    for it in COUNTED.iter().chain(abroad) {
        add("distinct", it, &format!("count(DISTINCT v_{it})"), "");
    }
    (toml, sql)
}

/// All measures, over chunks and whole, with text that sorts otherwise in the target.
async fn every_measure(across: bool) {
    let (toml, sql) = measures(across);
    let rest = format!("group_by = [\"v_bool\"]\n[rollup.measures]\n{toml}");
    let rollups = one_day("things", "things", &rest) + &one_day("vast", "vast", &rest);
    let setup = Setup { rollups: &rollups, across, ..Setup::default() };
    let world = World::new(&things(), setup).await;
    let computed = compute(&world).await;
    for (rollup, chunks) in computed {
        let expected = if rollup.name == "vast" { 4..20 } else { 1..2 };
        assert!(expected.contains(&chunks), "{}: {chunks}", rollup.name);
    }
    // Another order of rows in the table.
    world.sql("CREATE INDEX turned ON things (v_text, i, at); CLUSTER things USING turned").await;
    let wanted =
        format!("SELECT '2026-01-01Z'::timestamptz, v_bool{sql} FROM things GROUP BY v_bool");
    let wanted = records(&world.pool, &wanted).await;
    for rollup in &world.worker.config.rollups {
        let again = world.backfill_one(rollup, "2026-01-02", true).await;
        assert_eq!((again.updated, again.unchanged), (0, 3), "{}", rollup.name);
        // The generated means come last.
        let fields: Vec<String> = world
            .worker
            .ready(rollup)
            .await
            .unwrap()
            .fields
            .iter()
            .map(|field| format!("\"{}\"", field.name))
            .collect();
        let found =
            format!("SELECT bucket, v_bool, {} FROM stats.{}", fields.join(", "), rollup.name);
        let found = records(&world.target, &found).await;
        for (found, wanted) in found.iter().zip(&wanted) {
            let pairs = found.split(',').zip(wanted.split(','));
            let differ: Vec<_> = pairs.filter(|(found, wanted)| found != wanted).collect();
            assert!(found == wanted, "{}: {differ:?}", rollup.name);
        }
        assert_eq!(found.len(), wanted.len());
        let means = format!(
            "SELECT count(*) FROM stats.{} WHERE avg_int IS DISTINCT FROM avg_int_sum::numeric / nullif(avg_int_count, 0) \
             OR avg_real IS DISTINCT FROM avg_real_sum / nullif(avg_real_count, 0)",
            rollup.name
        );
        assert_eq!(world.target_value(&means).await, "0");
    }
}

#[tokio::test]
async fn every_measure_is_what_postgresql_computes() {
    every_measure(false).await;
}

#[tokio::test]
async fn every_measure_is_the_same_in_another_database() {
    every_measure(true).await;
}
