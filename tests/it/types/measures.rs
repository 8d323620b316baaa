//! Measures over every type that they support.

use tallymark::model::measure::{KINDS, Kind, Measure};
use tallymark::model::operand::Operand;
use tallymark::source::reading::shape::Shape;
use tallymark::work::ready;

use super::{compute, one_day, things};
use crate::support::world::{Setup, World, records};
use crate::support::{kinds, share};

/// Types that are summed. Floats are summed as their decimals.
const SUMMED: [&str; 7] = ["smallint", "int", "bigint", "scaled", "interval", "money", "domain"];
const FLOATS: [&str; 4] = ["real", "double", "part", "ratio"];
/// Types whose equal values look alike, so that the least value is unique.
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
/// Types by which rows are put in order, whose equal values look alike.
const ORDERING: [&str; 13] = [
    "smallint",
    "int",
    "bigint",
    "scaled",
    "part",
    "ratio",
    "date",
    "time",
    "timestamp",
    "timestamptz",
    "oid",
    "domain",
    "lsn",
];
/// With the two that cannot be transferred they are 31, beside the dimension.
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

/// The columns `v_<name>` over which measures of this kind are tested.
async fn tried(world: &World, kind: &dyn Kind, across: bool) -> Vec<&'static str> {
    match kind.word() {
        // Any column works, because rows are counted.
        "count" => vec!["int"],
        "sum" | "avg" => SUMMED.into_iter().chain(FLOATS).collect(),
        "min" | "max" => ORDERED.to_vec(),
        "distinct" if kind.choice().is_none() && across => COUNTED.to_vec(),
        "distinct" if kind.choice().is_none() => {
            COUNTED.into_iter().chain(["caseless", "pair"]).collect()
        }
        // A kind that this test does not know gets types that PostgreSQL accepts.
        _ => drawn(world, kind).await,
    }
}

/// Some of the types that a kind accepts, and with `TALLYMARK_TESTS=all` each of them.
async fn drawn(world: &World, kind: &dyn Kind) -> Vec<&'static str> {
    /// Types of one run.
    const TAKEN_MAX: usize = 3;
    // `distinct` takes almost all columns whose values one statement can distinguish.
    let columns = ORDERED.iter().filter(|it| !kind.needs_values() || COUNTED.contains(it));
    let columns: Vec<_> = columns.chain(&FLOATS).chain(&["bool"]).copied().collect();
    let mut taken = Vec::new();
    for place in share::order(&kinds::label(kind), columns.len()) {
        let column = columns[place];
        let measure = kinds::written(kind, &format!("v_{column}"), "");
        let tried = one_day("tried", "things", &format!("measures.m = {measure}"));
        let tried = world.redefined(&tried);
        let is_wanted = share::is_whole() || taken.len() < TAKEN_MAX;
        if is_wanted && ready::shape(&tried.worker, tried.rollup()).await.is_ok() {
            taken.push(column);
        }
    }
    taken.sort_unstable();
    taken.dedup();
    assert!(!taken.is_empty(), "{kind:?} takes no type");
    taken
}

/// One measure of each kind over each of its types, with and without a condition.
async fn measures(world: &World, across: bool) -> String {
    let mut toml = String::new();
    for kind in KINDS {
        let ordering = share::order(&kinds::label(*kind), ORDERING.len()).into_iter().cycle();
        for (column, by) in tried(world, *kind, across).await.into_iter().zip(ordering) {
            let by = format!("coalesce(v_{})", ORDERING[by]);
            for (suffix, rest) in [("", ""), ("_some", ", where = \"i % 3 = 1\"")] {
                let measure = kinds::written_by(*kind, &format!("v_{column}"), Some(&by), rest);
                toml += &format!("{}_{column}{suffix} = {measure}\n", kinds::label(*kind));
            }
        }
    }
    toml
}

/// The same in SQL. For a kind that this test does not know it is the kind's own statement over the
/// source. Chunks, a whole slice and another database must give the same values.
fn in_sql(measure: &Measure, shape: &Shape) -> String {
    let filter = measure.filter.as_ref();
    let filter = filter.map_or_else(String::new, |filter| format!(" FILTER (WHERE {filter})"));
    let column = measure.column.as_ref().map_or("*", Operand::name);
    let is_float = FLOATS.iter().any(|float| column == format!("v_{float}"));
    let sum = match is_float {
        true => format!("(sum({column}::text::numeric){filter})::float8"),
        false => format!("sum({column}){filter}"),
    };
    match measure.kind.word() {
        "count" => format!("count(*){filter}"),
        "sum" => sum,
        "avg" => format!("{sum}, count({column}){filter}"),
        "min" | "max" => format!("{}({column}){filter}", measure.kind.word()),
        "distinct" if measure.kind.choice().is_none() => {
            format!("count(DISTINCT {column}){filter}")
        }
        _ => {
            let direct = kinds::direct(measure, shape).into_iter();
            direct.map(|(_, sql)| sql).collect::<Vec<_>>().join(", ")
        }
    }
}

/// All measures, in chunks and whole, with text that sorts differently in the target.
async fn every_measure(across: bool) {
    let first = one_day("first", "things", "measures.n = \"count\"");
    let setup = Setup { rollups: &first, across, ..Setup::default() };
    let first = World::new(&things(), setup).await;
    let rest =
        format!("group_by = [\"v_bool\"]\n[rollup.measures]\n{}", measures(&first, across).await);
    let world =
        first.redefined(&(one_day("things", "things", &rest) + &one_day("vast", "vast", &rest)));
    world.init().await.unwrap();
    let computed = compute(&world).await;
    for (rollup, chunks) in computed {
        let expected = if rollup.name == "vast" { 4..20 } else { 1..2 };
        assert!(expected.contains(&chunks), "{}: {chunks}", rollup.name);
    }
    // Another order of rows in the table.
    world.sql("CREATE INDEX turned ON things (v_text, i, at); CLUSTER things USING turned").await;
    let rollup = world.worker.rollup("things").unwrap();
    let shape = ready::check(&world.worker, rollup).await.unwrap();
    let sql: Vec<_> = rollup.measures.iter().map(|measure| in_sql(measure, &shape)).collect();
    let wanted = format!(
        "SELECT '2026-01-01Z'::timestamptz, v_bool, {} FROM things GROUP BY v_bool",
        sql.join(", ")
    );
    let wanted = records(&world.pool, &wanted).await;
    for rollup in &world.worker.config.rollups {
        let again = world.backfill_one(rollup, "2026-01-02", true).await;
        assert_eq!((again.updated, again.unchanged), (0, 3), "{}", rollup.name);
        // The generated means come last.
        let fields: Vec<String> = ready::check(&world.worker, rollup)
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
