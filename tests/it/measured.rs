//! Each kind of measure against SQL that computes its numbers in another way, by hours from the
//! source, and by days and weeks from those.

use serde_json::Value;
use sqlx::AssertSqlSafe;
use tallymark::model::rollup::Rollup;
use tallymark::source::reading::read::{self, Form};
use tallymark::work::ready;

use crate::support::Database;
use crate::support::cli::Place;
use crate::support::kinds;
use crate::support::world::{Setup, Urls, World, init, records};

/// Rows of three days, with NULL in every column, ties, and floats without a decimal value.
const SAMPLES: &str = "CREATE TABLE samples (at timestamptz, g text, n int, big bigint, d numeric, \
    f float8, r real, t text, is_paid boolean, updated_at timestamptz); CREATE INDEX ON samples (at); \
    INSERT INTO samples SELECT '2026-01-05Z'::timestamptz + i * interval '65 seconds', \
    (ARRAY['a', 'b', NULL])[1 + i % 3], nullif(h % 1000, 7), nullif(h::bigint * 1000003, 0), \
    nullif(round((h % 100000) / 7.0, 3), 5), \
    CASE WHEN i % 97 = 0 THEN 'NaN' WHEN i % 89 = 0 THEN '-Infinity' WHEN h % 11 = 0 THEN NULL \
    ELSE exp((h % 3000)::float8 / 200) * (h % 5 - 1) END, ((h % 9000) / 9.0)::real, \
    nullif('text ' || h % 301, 'text 5'), nullif(h % 4, 0) > 2, \
    nullif('2026-01-05Z'::timestamptz + h % 50 * interval '1 minute', '2026-01-05 00:03Z') \
    FROM (SELECT i, abs(hashint4(i)) AS h FROM generate_series(0, 3900) i) numbers";

/// The end of the week.
const END: &str = "2026-01-12";

/// The rollups by hours, of a day from those, and of a week from that.
fn rollups(measures: &str) -> String {
    let names = measures.lines().filter_map(|line| line.split_once(" = "));
    let names: Vec<_> = names.map(|(name, _)| format!("{name:?}")).collect();
    let coarse = |name: &str, finer: &str, slice: &str| {
        format!(
            "[[rollup]]\nname = \"{name}\"\nfrom = {{ rollup = \"{finer}\" }}\nslice = \"{slice}\"\n\
             group_by = [\"g\"]\nmeasures = [{}]\n",
            names.join(", ")
        )
    };
    format!(
        "[[rollup]]\nname = \"hourly\"\nfrom = \"public.samples\"\ntime = \"at\"\n\
         start = \"2026-01-05\"\nslice = \"12 hours\"\nbucket = \"1 hour\"\ngroup_by = [\"g\"]\n\
         [rollup.measures]\n{measures}\n{}{}",
        coarse("daily", "hourly", "1 day"),
        coarse("weekly", "daily", "1 week")
    )
}

/// The unit of a rollup's buckets.
fn unit(rollup: &Rollup) -> &'static str {
    match rollup.name.as_str() {
        "hourly" => "hour",
        "daily" => "day",
        _ => "week",
    }
}

/// All levels of rollups with these measures, computed.
async fn computed(measures: &str, across: bool) -> World {
    let rollups = rollups(measures);
    let setup = Setup { rollups: &rollups, across, ..Setup::default() };
    let world = World::new(SAMPLES, setup).await;
    for rollup in &world.worker.config.rollups {
        let report = world.backfill_one(rollup, END, false).await;
        assert_eq!((report.failed.len(), report.left), (0, 0), "{report:?}");
        world.assert_one_verified(rollup, END).await;
    }
    world
}

/// At every level, `columns` of the rollup are `truth` over the source's rows of the group, which
/// the truth may call `s`.
async fn equal(world: &World, columns: &str, truth: &str) {
    for rollup in &world.worker.config.rollups {
        let found = format!("SELECT bucket, g, {columns} FROM stats.{}", rollup.name);
        let wanted = format!(
            "SELECT date_trunc('{}', at, 'UTC') AS bucket, g, {truth} FROM samples s \
             GROUP BY 1, 2",
            unit(rollup)
        );
        let found = records(&world.target, &found).await;
        let wanted = records(&world.pool, &wanted).await;
        assert!(wanted.len() > 2, "{wanted:?}");
        let differ: Vec<_> =
            found.iter().zip(&wanted).filter(|(one, other)| one != other).collect();
        assert!(found == wanted, "{}: {differ:?}", rollup.name);
    }
}

#[tokio::test]
async fn any_and_every_are_those_of_all_rows_that_have_a_value() {
    let measures = "one = { any = \"is_paid\" }\nall = { every = \"is_paid\" }\n\
                    few = { any = \"is_paid\", where = \"n < 3\" }";
    for across in [false, true] {
        let world = computed(measures, across).await;
        let truth = "count(*) FILTER (WHERE is_paid) > 0 AND count(is_paid) > 0, \
                     count(*) FILTER (WHERE NOT is_paid) = 0, \
                     max(is_paid::int) FILTER (WHERE n < 3) = 1";
        equal(&world, "one, \"all\", few", truth).await;
    }
}

#[tokio::test]
async fn the_spread_is_that_of_postgresql() {
    let measures = "n = { stddev = \"n\" }\nbig = { variance = \"big\" }\nd = { stddev = \"d\" }\n\
                    r = { variance = \"r\" }\nfew = { stddev = \"d\", where = \"n < 2\" }";
    for across in [false, true] {
        let world = computed(measures, across).await;
        let truth = "round(stddev(n), 6), round(variance(big), 3), round(stddev(d), 6), \
                     round(variance(r::text::numeric), 6), round(stddev(d) FILTER (WHERE n < 2), 6)";
        let columns = "round(n, 6), round(big, 3), round(d, 6), round(r, 6), round(few, 6)";
        equal(&world, columns, truth).await;
    }
    let floats = computed("f = { stddev = \"f\" }", false).await;
    equal(&floats, "f::text = 'NaN'", "stddev(f)::text = 'NaN'").await;
}

#[tokio::test]
async fn a_histogram_counts_each_value_once() {
    let measures = "n = { histogram = \"n\", bounds = [-5, 10, 500.5] }\n\
                    f = { histogram = \"f\", bounds = [0, 1e3] }\n\
                    d = { histogram = \"d\", bounds = [3000], where = \"n > 100\" }";
    for across in [false, true] {
        let world = computed(measures, across).await;
        let places = |column: &str, bounds: &str, places: u32, rest: &str| {
            let place = |place| {
                format!(
                    "count(*) FILTER (WHERE width_bucket({column}, ARRAY[{bounds}]) = {place}{rest})"
                )
            };
            let places: Vec<_> = (0..=places).map(place).collect();
            format!("ARRAY[{}]", places.join(", "))
        };
        let truth = [
            places("n::numeric", "-5, 10, 500.5", 3, ""),
            places("f", "0::float8, 1e3", 2, ""),
            places("d", "3000::numeric", 1, " AND n > 100"),
        ];
        equal(&world, "n, f, d", &truth.join(", ")).await;
    }
}

#[tokio::test]
async fn first_and_last_are_told_apart_by_the_value_where_times_are_equal() {
    let measures = "first_n = { first = \"n\", by = \"updated_at\" }\n\
                    last_t = { last = \"t\", by = \"updated_at\" }\n\
                    last_big = { last = \"t\", by = \"big\", where = \"n > 500\" }";
    for across in [false, true] {
        let world = computed(measures, across).await;
        let within = |sql: &str, unit: &str| {
            format!(
                "({sql} AND date_trunc('{unit}', x.at, 'UTC') = date_trunc('{unit}', s.at, 'UTC'))"
            )
        };
        for rollup in &world.worker.config.rollups {
            let unit = unit(rollup);
            let group = within("x.g IS NOT DISTINCT FROM s.g", unit);
            let edge = |value: &str, by: &str, order: &str, rest: &str| {
                format!(
                    "(SELECT {value} FROM samples x WHERE {group} AND x.{by} IS NOT NULL{rest} \
                     ORDER BY x.{by} {order}, x.{value} {order} NULLS LAST LIMIT 1)"
                )
            };
            let wanted = format!(
                "SELECT date_trunc('{unit}', at, 'UTC'), g, {}, {}, {}, {} FROM \
                 (SELECT DISTINCT ON (date_trunc('{unit}', at, 'UTC'), g) * FROM samples) s",
                edge("n", "updated_at", "", ""),
                edge("updated_at", "updated_at", "", ""),
                edge("t", "updated_at", "DESC", "").replace("x.t DESC", "x.t COLLATE \"C\" DESC"),
                edge("t", "big", "DESC", " AND x.n > 500")
                    .replace("x.t DESC", "x.t COLLATE \"C\" DESC"),
            );
            let found = format!(
                "SELECT bucket, g, first_n, first_n_by, last_t, last_big FROM stats.{}",
                rollup.name
            );
            let found = records(&world.target, &found).await;
            let wanted = records(&world.pool, &wanted).await;
            assert!(found == wanted, "{}: {found:?} {wanted:?}", rollup.name);
        }
    }
}

#[tokio::test]
async fn exact_sets_count_and_merge_as_the_rows_do() {
    let measures = "users = { distinct = \"big\", merge = \"exact\" }\n\
                    texts = { distinct = \"t\", merge = \"exact\" }\n\
                    numbers = { distinct = \"d\", merge = \"exact\", where = \"n > 500\" }\n\
                    floats = { distinct = \"f\", merge = \"exact\" }";
    for across in [false, true] {
        let world = computed(measures, across).await;
        let truth = "count(DISTINCT big), count(DISTINCT t), count(DISTINCT d) FILTER (WHERE n > 500), \
                     count(DISTINCT f), coalesce(array_agg(DISTINCT big ORDER BY big) \
                     FILTER (WHERE big IS NOT NULL), '{}')";
        equal(&world, "users, texts, numbers, floats, users_set", truth).await;
        let bytes = "SELECT max(pg_column_size(users_set) - 9 * users) <= 32 FROM stats.hourly";
        assert_eq!(world.target_value(bytes).await, "true");
        let merged =
            "SELECT tallymark.unique_count(tallymark.merge_sets(texts_set)) FROM stats.hourly";
        let wanted = "SELECT count(DISTINCT t)::bigint FROM samples";
        let wanted = records(&world.pool, wanted).await[0].clone();
        assert_eq!(format!("({})", world.target_value(merged).await), wanted);
    }
}

#[tokio::test]
async fn a_set_beyond_its_limit_fails_with_the_remedy() {
    let measures = "users = { distinct = \"n\", merge = \"exact\", members_max = 20 }";
    let rollups = rollups(measures);
    let setup = Setup { rollups: &rollups, ..Setup::default() };
    let world = World::new(SAMPLES, setup).await;
    let hour = world.run("2026-01-05").await;
    assert_eq!(hour.outcome.word(), "succeeded", "{hour:?}");
    let hours = world.backfill("2026-01-06", false).await;
    assert!(hours.failed.is_empty(), "{hours:?}");
    let daily = world.worker.rollup("daily").unwrap();
    let days = world.backfill_one(daily, "2026-01-06", false).await;
    let problem = format!("{days:?}");
    assert!(problem.contains("measures.users: a set has"), "{problem}");
    assert!(problem.contains("write merge = \\\"approximate\\\""), "{problem}");
}

#[tokio::test]
async fn sketches_of_distinct_values_merge_bit_by_bit_and_estimate_closely() {
    let measures = "users = { distinct = \"big\", merge = \"approximate\" }\n\
                    texts = { distinct = \"t\", merge = \"approximate\" }\n\
                    floats = { distinct = \"f\", merge = \"approximate\", where = \"n > 500\" }";
    let mut sketches = Vec::new();
    for across in [false, true] {
        let world = computed(measures, across).await;
        for rollup in &world.worker.config.rollups {
            let found =
                format!("SELECT bucket, g, users, texts, floats FROM stats.{}", rollup.name);
            let wanted = format!(
                "SELECT date_trunc('{}', at, 'UTC'), g, count(DISTINCT big), count(DISTINCT t), \
                 count(DISTINCT f) FILTER (WHERE n > 500) FROM samples \
                 GROUP BY 1, 2",
                unit(rollup)
            );
            let found = records(&world.target, &found).await;
            let wanted = records(&world.pool, &wanted).await;
            are_close(&found, &wanted);
            let rows = format!("SELECT bucket, g, users_set, texts_set FROM stats.{}", rollup.name);
            sketches.push((rollup.name.clone(), records(&world.target, &rows).await));
        }
        // The readers' merge gives the sketch of the coarse rollup.
        let merged = "SELECT count(*) FROM stats.weekly m JOIN (SELECT g, \
                      tallymark.merge_sets(users_set) AS s FROM stats.hourly GROUP BY g) h \
                      ON h.g IS NOT DISTINCT FROM m.g AND h.s = m.users_set";
        assert_eq!(world.target_value(merged).await, "3");
    }
    let (one, other) = sketches.split_at(3);
    assert_eq!(one, other);
}

/// The numbers of a record after its bucket and its group.
fn numbers(row: &str) -> Vec<f64> {
    let row = row.trim_matches(['(', ')']);
    row.split(',').skip(2).map(|number| number.parse().unwrap()).collect()
}

/// Whether each number of `found` is near that of `wanted`.
fn are_close(found: &[String], wanted: &[String]) {
    assert_eq!(found.len(), wanted.len());
    for (found, wanted) in found.iter().zip(wanted) {
        for (one, other) in numbers(found).into_iter().zip(numbers(wanted)) {
            // Five standard errors, and one value of a small set.
            assert!((one - other).abs() <= 1.0 + 0.05 * other, "{found} {wanted}");
        }
    }
}

/// Sets of many sizes, in both forms of the sketch.
#[tokio::test]
async fn the_error_of_an_estimate_is_below_one_percent() {
    let rollups = rollups("users = { distinct = \"big\", merge = \"approximate\" }");
    let world = World::new(SAMPLES, Setup { rollups: &rollups, ..Setup::default() }).await;
    let shape = ready::shape(&world.worker, world.rollup()).await.unwrap();
    let (_, sketch) = &kinds::direct(&world.rollup().measures[0], &shape)[0];
    let of_size = |size: u32, sets: u32| {
        format!(
            "SELECT {size} AS size, tallymark.unique_count({sketch}) AS found FROM \
             (SELECT i % {sets} AS set, i::bigint * 7 AS big FROM generate_series(1, {sets} * {size}) i) x \
             GROUP BY set"
        )
    };
    let sizes = [of_size(300, 30), of_size(6_000, 20), of_size(20_000, 12), of_size(50_000, 6)];
    let error = format!(
        "SELECT sqrt(avg((found::float8 / size - 1) ^ 2)) < 0.01 FROM ({}) x",
        sizes.join(" UNION ALL ")
    );
    assert_eq!(world.target_value(&error).await, "true");
}

/// A sort of all rows has no place for a nap.
#[tokio::test]
async fn values_of_a_small_type_are_counted_without_a_sort_of_all_rows() {
    let rollups = "[[rollup]]\nname = \"daily\"\nfrom = \"public.samples\"\ntime = \"at\"\n\
         start = \"2026-01-05\"\nslice = \"1 day\"\ngroup_by = [\"g\"]\n[rollup.measures]\n\
         n = { distinct = \"n\" }\nbig = { distinct = \"big\", where = \"n > 3\" }\n\
         at = { distinct = \"updated_at\", merge = \"exact\" }";
    let world = World::new(SAMPLES, Setup { rollups, ..Setup::default() }).await;
    // The planner has to know that there are few groups.
    world.sql("ANALYZE samples").await;
    let shape = ready::shape(&world.worker, world.rollup()).await.unwrap();
    let slice = world.rollup().calendar.containing("2026-01-06T00:00:00Z".parse().unwrap());
    let bounds = (slice.start(), slice.start(), slice.end());
    let select = read::select(world.rollup(), &shape, Form::Whole, bounds, false);
    let plan = sqlx::query_scalar::<_, String>(AssertSqlSafe(format!("EXPLAIN {select}")));
    let plan = plan.fetch_all(&world.pool).await.unwrap().join("\n");
    assert!(plan.contains("HashAggregate") && !plan.contains("Sort"), "{plan}");
    // A group of one row, without a value.
    world.sql("INSERT INTO samples (at, g) VALUES ('2026-01-06T05:00:00Z', 'alone')").await;
    let alone =
        format!("SELECT n, big, cardinality(at_set) FROM ({select}) groups WHERE g = 'alone'");
    assert_eq!(records(&world.pool, &alone).await, ["(0,0,0)"]);
}

#[tokio::test]
async fn percentiles_are_within_one_percent_of_a_value_of_that_rank() {
    let measures = "f = { percentiles = \"f\", at = [0, 0.5, 0.95, 0.999] }\n\
                    n = { percentiles = \"n\", at = [0.25, 1], where = \"n > 3\" }\n\
                    d = { percentiles = \"d\", at = [0.0105] }";
    for across in [false, true] {
        let world = computed(measures, across).await;
        for rollup in &world.worker.config.rollups {
            let rank = |column: &str, share: &str, rest: &str| {
                format!(
                    "(percentile_disc({share}) WITHIN GROUP (ORDER BY {column}::float8){rest})::float8"
                )
            };
            let few = " FILTER (WHERE n > 3)";
            let wanted = format!(
                "SELECT date_trunc('{}', at, 'UTC'), g, {}, {}, {}, {}, {}, {}, {} FROM samples \
                 GROUP BY 1, 2",
                unit(rollup),
                rank("f", "0", ""),
                rank("f", "0.5", ""),
                rank("f", "0.95", ""),
                rank("f", "0.999", ""),
                rank("n", "0.25", few),
                rank("n", "1", few),
                rank("d", "0.0105", ""),
            );
            let found = format!(
                "SELECT bucket, g, f_p0, f_p50, f_p95, f_p99_9, n_p25, n_p100, d_p1_05 FROM stats.{}",
                rollup.name
            );
            let found = records(&world.target, &found).await;
            let wanted = records(&world.pool, &wanted).await;
            assert_eq!(found.len(), wanted.len());
            for (found, wanted) in found.iter().zip(&wanted) {
                for (one, other) in numbers(found).into_iter().zip(numbers(wanted)) {
                    let is_near = (one - other).abs() <= other.abs() / 128.0;
                    let is_same = one == other || one.is_nan() && other.is_nan();
                    assert!(is_near || is_same, "{}: {found} {wanted}", rollup.name);
                }
            }
        }
        let merged = "SELECT count(*) FROM stats.weekly m JOIN (SELECT g, \
                      tallymark.merge_sketches(f_sketch) AS s FROM stats.hourly GROUP BY g) h \
                      ON h.g IS NOT DISTINCT FROM m.g AND h.s = m.f_sketch \
                      AND tallymark.percentile(h.s, 0.5) = m.f_p50";
        assert_eq!(world.target_value(merged).await, "3");
    }
}

/// The sets and sketches of the same values, as bytes, in the databases of a server.
pub(crate) async fn bits(urls: Urls) -> Vec<String> {
    let measures = "users = { distinct = \"big\", merge = \"exact\" }\n\
                    texts = { distinct = \"t\", merge = \"approximate\" }\n\
                    numbers = { distinct = \"d\", merge = \"approximate\" }\n\
                    sizes = { percentiles = \"d\", at = [0.5, 0.99] }\n\
                    spread = { stddev = \"r\" }\nlast = { last = \"t\", by = \"updated_at\" }";
    let rollups = rollups(measures);
    let world = World::at(urls, Setup { rollups: &rollups, ..Setup::default() }).await;
    world.sql(SAMPLES).await;
    init(&world.worker).await.unwrap();
    let mut bits = Vec::new();
    for rollup in &world.worker.config.rollups {
        let report = world.backfill_one(rollup, END, false).await;
        assert_eq!((report.failed.len(), report.left), (0, 0), "{report:?}");
        world.assert_one_verified(rollup, END).await;
        let rows = format!(
            "SELECT bucket, g, users_set, texts_set, texts, numbers_set, numbers, sizes_sketch, \
             sizes_p50, sizes_p99, spread_squares, round(spread, 6), last FROM stats.{}",
            rollup.name
        );
        bits.extend(records(&world.target, &rows).await);
    }
    bits
}

#[tokio::test]
async fn init_makes_the_functions_of_a_measure_and_mends_them_and_check_states_the_error() {
    let database = Database::create().await;
    let measures = "users = { distinct = \"big\", merge = \"approximate\" }";
    let place = Place::new(&database.url(), &database.url(), &rollups(measures)).await;
    place.sql(SAMPLES).await;
    // The plan is explained before the functions exist.
    let before = place.run(&["check"]).good();
    let finding =
        "`users` is approximate: a number of distinct values has a standard error of 0.81 %";
    assert!(before.out.contains(finding), "{}", before.out);
    let made = place.run(&["init", "--dry-run"]).good().out;
    assert!(made.contains("CREATE OR REPLACE AGGREGATE tallymark.merge_sets(bytea)"), "{made}");
    assert!(!made.contains("anyarray") && !made.contains("tallymark.percentile"), "{made}");
    place.run(&["init"]).good();
    place
        .sql(
            "CREATE OR REPLACE FUNCTION tallymark.unique_count(sketch bytea) RETURNS bigint \
             LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS 'SELECT 1::bigint'",
        )
        .await;
    let made = place.run(&["init", "--dry-run"]).good().out;
    assert_eq!(made.matches("CREATE OR REPLACE").count(), 1, "{made}");
    place.run(&["init"]).good();
    assert!(!place.run(&["init", "--dry-run"]).good().out.contains("CREATE"));
}

/// Before `init`, and where the source is a database without the functions.
#[tokio::test]
async fn a_preview_shows_sets_and_sketches_without_their_functions() {
    let (source, target) = (Database::create().await, Database::create().await);
    let measures = "users = { distinct = \"big\", merge = \"approximate\" }\n\
                    texts = { distinct = \"t\", merge = \"exact\", members_max = 5000 }\n\
                    f = { percentiles = \"f\", at = [0, 0.5, 0.99] }";
    let place = Place::new(&source.url(), &target.url(), &rollups(measures)).await;
    place.sql(SAMPLES).await;
    let words = ["preview", "hourly", "--slice", "2026-01-05", "--limit", "100"];
    let before = place.json(&words);
    assert_eq!(before["listed"].as_array().unwrap().len(), 36, "{before}");
    place.run(&["init"]).good();
    place.run(&["run", "hourly", "--slice", "2026-01-05"]).good();
    let rows = "SELECT row_to_json(r)::text FROM (SELECT g, users, texts, f_p0, f_p50, f_p99 \
                FROM stats.hourly ORDER BY bucket, g) r";
    let rows: Vec<String> = sqlx::query_scalar(rows).fetch_all(&target.pool().await).await.unwrap();
    let parsed: Result<Vec<Value>, _> = rows.iter().map(|row| serde_json::from_str(row)).collect();
    let mut listed: Vec<_> = before["listed"].as_array().unwrap().iter().collect();
    listed.sort_by_key(|group| {
        (group["bucket"].to_string(), group["g"].is_null(), group["g"].to_string())
    });
    for (shown, row) in listed.iter().zip(parsed.unwrap()) {
        for (name, value) in row.as_object().unwrap() {
            assert_eq!(&shown[name], value, "{name}: {shown} {row}");
        }
    }
}
