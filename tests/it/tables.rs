//! The properties of Tallymark's own tables that it relies on, and its reaction to changes: a
//! refusal before a slice is claimed, with the remedy.

use serde_json::Value;
use tallymark::check::verify;
use tallymark::clients::db::Access;
use tallymark::model::hint::Hinted;
use tallymark::model::rollup::Rollup;
use tallymark::target::ddl;
use tallymark::work::ready;
use tallymark::work::worker::WorkError;

use crate::support::cli::Place;
use crate::support::share;
use crate::support::world::{
    BUDGET, DAILY, EVENTS, Setup, Urls, World, init, random_events, records,
};

const END: &str = "2026-01-04";

/// A world with three computed days.
async fn computed() -> World {
    let sql = format!("{EVENTS}; {}", random_events(3, 200));
    let world = World::new(&sql, Setup::default()).await;
    assert_eq!(world.backfill(END, false).await.succeeded, 3);
    world.verify_all(END).await;
    world
}

/// The same world, seen by a process with empty caches.
fn fresh(world: &World) -> World {
    world.redefined(DAILY)
}

/// The same world and definition, seen by a process with empty caches.
fn again(world: &World) -> World {
    let measures = &world.rollup().measures;
    let has_mean = measures.iter().any(|measure| measure.name == "mean");
    let mean = if has_mean { "mean = { avg = \"amount\" }\n" } else { "" };
    world.redefined(&(DAILY.to_owned() + mean))
}

/// The unique indexes of the rollup table.
async fn unique_indexes(world: &World) -> Vec<String> {
    let sql = "SELECT pg_get_indexdef(indexrelid) FROM pg_index \
               WHERE indrelid = 'stats.daily'::regclass AND indisunique";
    records(&world.target, sql).await
}

/// A run is refused before it claims a slice, with these words.
async fn is_refused(world: &World, change: &str, words: &[&str]) -> String {
    let world = again(world);
    world.reopen("2026-01-02").await;
    let before = world.checkpoint("2026-01-02").await.unwrap().attempt;
    let error = world.try_run("2026-01-02").await.unwrap_err();
    assert!(matches!(error, WorkError::Ddl(_)), "{change}: {error:?}");
    let text = error.in_one_line();
    for word in words {
        assert!(text.contains(word), "{change}: `{word}` is not in {text}");
    }
    assert_eq!(world.checkpoint("2026-01-02").await.unwrap().attempt, before, "{change}");
    text
}

#[tokio::test]
async fn a_rollup_table_that_lost_its_unique_index_gets_it_back_before_anything_is_claimed() {
    let world = computed().await;
    let whole = unique_indexes(&world).await;
    assert_eq!(whole.len(), 1, "{whole:?}");
    let keys = "(bucket, tallymark.key_of(kind) COLLATE \"C\", entity_id)";
    assert!(whole[0].contains("key_of(kind) COLLATE"), "{whole:?}");
    let name = "(SELECT indexrelid::regclass::text FROM pg_index \
                WHERE indrelid = 'stats.daily'::regclass AND indisunique)";
    let drop = format!("DO $do$ BEGIN EXECUTE 'DROP INDEX ' || {name}; END $do$");
    let nulls = "NULLS NOT DISTINCT";
    for instead in [
        String::new(),
        // Partial, not unique, with another NULL rule, invalid.
        format!("CREATE UNIQUE INDEX ON stats.daily {keys} {nulls} WHERE kind = 'view'"),
        format!("CREATE INDEX ON stats.daily {keys}"),
        format!("CREATE UNIQUE INDEX ON stats.daily {keys}"),
        format!(
            "CREATE UNIQUE INDEX broken ON stats.daily {keys} {nulls}; \
             UPDATE pg_index SET indisvalid = false WHERE indexrelid = to_regclass('stats.broken')"
        ),
    ] {
        world.target_sql(&format!("{drop}; {instead}")).await;
        is_refused(&world, &instead, &["not ready", "tallymark init"]).await;
        fresh(&world).init().await.unwrap();
        let found = unique_indexes(&world).await;
        assert_eq!(found.len(), 1, "{instead}: {found:?}");
        assert_eq!(fresh(&world).run("2026-01-02").await.outcome.word(), "succeeded", "{instead}");
    }
    world.verify_all(END).await;
}

#[tokio::test]
async fn the_unique_index_of_an_earlier_version_is_replaced_by_init() {
    let world = computed().await;
    let hashed = "(bucket, tallymark.key_hash(ROW(kind, entity_id)))";
    let name = unique_indexes(&world).await.remove(0);
    let name = name.split_whitespace().nth(3).unwrap().to_owned();
    world
        .target_sql(&format!(
            "DROP INDEX stats.{name}; CREATE UNIQUE INDEX ON stats.daily {hashed}; \
             DROP FUNCTION tallymark.key_of(text)"
        ))
        .await;
    is_refused(&world, "hash of all dimensions", &["tallymark init"]).await;
    fresh(&world).init().await.unwrap();
    let found = unique_indexes(&world).await;
    assert!(found.len() == 1 && found[0].contains("key_of(kind)"), "{found:?}");
    world
        .target_sql(
            "DO $do$ DECLARE i text; BEGIN FOR i IN SELECT indexrelid::regclass::text FROM pg_index \
             WHERE indrelid = 'stats.daily'::regclass LOOP EXECUTE 'DROP INDEX ' || i; END LOOP; END $do$; \
             CREATE UNIQUE INDEX ON stats.daily (bucket, kind, entity_id) NULLS NOT DISTINCT; \
             DROP FUNCTION tallymark.key_hash, tallymark.key_of(text), tallymark.key_of(bytea)",
        )
        .await;
    is_refused(&world, "earlier version", &["tallymark init"]).await;
    fresh(&world).init().await.unwrap();
    let found = unique_indexes(&world).await;
    assert!(found.len() == 1 && found[0].contains("key_of"), "{found:?}");
    let all = "SELECT pg_get_indexdef(indexrelid) FROM pg_index \
               WHERE indrelid = 'stats.daily'::regclass AND NOT indisunique";
    let readers = records(&world.target, all).await;
    assert!(readers.len() == 1 && readers[0].contains("left"), "{readers:?}");
    // A readers' index that was dropped stays dropped.
    world.target_sql("DROP INDEX stats.daily_left_entity_id_bucket_idx").await;
    fresh(&world).init().await.unwrap();
    assert!(records(&world.target, all).await.is_empty());
    assert_eq!(fresh(&world).run("2026-01-02").await.outcome.word(), "succeeded");
    world.verify_all(END).await;
}

#[tokio::test]
async fn a_key_that_stands_twice_is_told_by_verify_and_removed_by_a_replay() {
    let world = computed().await;
    let name = unique_indexes(&world).await.remove(0);
    let name = name.split_whitespace().nth(3).unwrap().to_owned();
    // Another measure in one of the copies, and a group with three copies.
    world
        .target_sql(&format!(
            "DROP INDEX stats.{name}; CREATE TABLE twice AS SELECT * FROM stats.daily \
             WHERE bucket >= '2026-01-02Z' AND bucket < '2026-01-03Z' ORDER BY bucket LIMIT 5; \
             INSERT INTO stats.daily SELECT * FROM twice"
        ))
        .await;
    // The running process made its check earlier.
    let slice = world.slice("2026-01-02");
    let found =
        verify::verify_slice(&world.worker, world.rollup(), slice, BUDGET, 20).await.unwrap();
    let doubled = found.examples.iter().filter(|one| one.difference == "doubled").count();
    assert_eq!((found.differences, doubled), (5, 5), "{found:?}");
    world
        .target_sql(
            "UPDATE twice SET events = events + 1; \
             INSERT INTO stats.daily SELECT * FROM twice WHERE events > 1 LIMIT 1",
        )
        .await;
    let found =
        verify::verify_slice(&world.worker, world.rollup(), slice, BUDGET, 20).await.unwrap();
    assert!(found.differences >= 6, "{found:?}");
    let doubled = found.examples.iter().filter(|one| one.difference == "doubled").count();
    assert_eq!(doubled, 6, "{found:?}");
    let truth = "SELECT count(*) FROM events WHERE created_at >= '2026-01-02Z' \
                 AND created_at < '2026-01-03Z'";
    let rows = world.target_value(truth).await;
    let replaced = world.replay("2026-01-02").await.completion.unwrap();
    assert_eq!(replaced.rows_read.to_string(), rows, "{replaced:?}");
    assert_eq!(replaced.deleted, 6, "{replaced:?}");
    assert_eq!(replaced.groups, replaced.unchanged + replaced.updated, "{replaced:?}");
    world.verify_all(END).await;
    assert_eq!(world.replay("2026-01-02").await.completion.unwrap().deleted, 0);
}

#[tokio::test]
async fn a_table_that_lost_its_index_and_holds_a_key_twice_is_refused_by_the_key() {
    let world = computed().await;
    let name = unique_indexes(&world).await.remove(0);
    let name = name.split_whitespace().nth(3).unwrap().to_owned();
    world
        .target_sql(&format!(
            "DROP INDEX stats.{name}; INSERT INTO stats.daily (SELECT * FROM stats.daily \
             ORDER BY bucket, kind NULLS LAST, entity_id LIMIT 1)"
        ))
        .await;
    let fresh = fresh(&world);
    let shape = ready::shape(&fresh.worker, fresh.rollup()).await.unwrap();
    let target = &fresh.worker.target;
    let mut tx = target.db.begin(Access::ReadWrite, BUDGET, "test").await.unwrap();
    let error = ddl::refuse_doubled(&mut tx, target, fresh.rollup(), &shape)
        .await
        .unwrap_err()
        .in_one_line();
    tx.rollback().await.unwrap();
    for word in ["1 of its keys", "2026-01-01", "DELETE FROM", "tallymark verify daily --repair"] {
        assert!(error.contains(word), "{word}: {error}");
    }
    let delete = error.split(": ").find(|part| part.starts_with("DELETE FROM")).unwrap();
    world.target_sql(delete.split("; then").next().unwrap()).await;
    fresh.init().await.unwrap();
    world.verify_all(END).await;
}

/// Each has a change, the statement that undoes it, and words of the refusal.
const CHANGES: &[(&str, &str, &[&str])] = &[
    (
        "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
         CREATE TRIGGER eater BEFORE INSERT ON stats.daily FOR EACH ROW EXECUTE FUNCTION nothing()",
        "DROP TRIGGER eater ON stats.daily; DROP FUNCTION nothing",
        &["trigger eater", "DROP TRIGGER eater"],
    ),
    (
        "CREATE RULE deaf AS ON INSERT TO stats.daily DO INSTEAD NOTHING",
        "DROP RULE deaf ON stats.daily",
        &["rule deaf", "DROP RULE deaf"],
    ),
    (
        "ALTER TABLE stats.daily ADD CONSTRAINT small CHECK (events < 3) NOT VALID",
        "ALTER TABLE stats.daily DROP CONSTRAINT small",
        &["constraint small", "DROP CONSTRAINT small"],
    ),
    (
        "DELETE FROM stats.daily WHERE kind IS NULL; ALTER TABLE stats.daily ALTER kind SET NOT NULL",
        "ALTER TABLE stats.daily ALTER kind DROP NOT NULL",
        &["refuses NULL", "\"kind\"", "DROP NOT NULL"],
    ),
    (
        "ALTER TABLE stats.daily ALTER kind TYPE text COLLATE \"C\"",
        "ALTER TABLE stats.daily ALTER kind TYPE text COLLATE \"default\"",
        &["collation", "\"kind\"", "COLLATE pg_catalog.\"default\""],
    ),
    (
        "CREATE UNIQUE INDEX narrow ON stats.daily (bucket, kind, entity_id, events)",
        "DROP INDEX stats.narrow",
        &["unique index stats.narrow", "DROP INDEX"],
    ),
    (
        "CREATE TABLE stats.child () INHERITS (stats.daily)",
        "DROP TABLE stats.child",
        &["child tables", "NO INHERIT"],
    ),
    (
        "ALTER TABLE stats.daily RENAME TO kept; CREATE VIEW stats.daily AS SELECT * FROM stats.kept",
        "DROP VIEW stats.daily; ALTER TABLE stats.kept RENAME TO daily",
        &["a view", "ordinary table"],
    ),
    (
        "CREATE RULE deaf AS ON UPDATE TO tallymark.slice DO INSTEAD NOTHING",
        "DROP RULE deaf ON tallymark.slice",
        &["tallymark.slice", "rule deaf"],
    ),
    (
        "ALTER TABLE tallymark.slice RENAME rows_read TO was_read",
        "ALTER TABLE tallymark.slice RENAME was_read TO rows_read",
        &["tallymark.slice", "rows_read", "bigint"],
    ),
    (
        "ALTER TABLE stats.daily RENAME TO kept; \
         CREATE TABLE stats.daily (LIKE stats.kept) PARTITION BY RANGE (bucket)",
        "DROP TABLE stats.daily; ALTER TABLE stats.kept RENAME TO daily",
        &["a partitioned table", "ordinary table"],
    ),
    (
        "CREATE TABLE kinds (kind text PRIMARY KEY); \
         ALTER TABLE stats.daily ADD CONSTRAINT known FOREIGN KEY (kind) REFERENCES kinds NOT VALID",
        "ALTER TABLE stats.daily DROP CONSTRAINT known; DROP TABLE kinds",
        &["constraint known", "DROP CONSTRAINT known"],
    ),
    (
        "ALTER TABLE stats.daily ADD CONSTRAINT apart \
         EXCLUDE USING btree (bucket WITH =, kind WITH =, entity_id WITH =)",
        "ALTER TABLE stats.daily DROP CONSTRAINT apart",
        &["constraint apart", "DROP CONSTRAINT apart"],
    ),
    (
        "ALTER TABLE stats.daily ALTER events SET NOT NULL, \
         ALTER events ADD GENERATED BY DEFAULT AS IDENTITY",
        "ALTER TABLE stats.daily ALTER events DROP IDENTITY, ALTER events DROP NOT NULL",
        &["fills by itself", "DROP IDENTITY"],
    ),
    (
        "ALTER TABLE stats.daily ALTER mean DROP EXPRESSION",
        "ALTER TABLE stats.daily DROP COLUMN mean",
        &["no longer computed", "DROP COLUMN \"mean\""],
    ),
    (
        "ALTER TABLE tallymark.rollup DROP CONSTRAINT rollup_pkey; \
         INSERT INTO tallymark.rollup (rollup, target_table) VALUES ('daily', 'another')",
        "DELETE FROM tallymark.rollup WHERE target_table = 'another'",
        &["1 of its keys", "daily", "DELETE FROM tallymark.rollup", "ORDER BY generation DESC"],
    ),
    (
        "ALTER TABLE tallymark.slice DROP CONSTRAINT slice_pkey; INSERT INTO tallymark.slice \
         SELECT * FROM tallymark.slice ORDER BY slice_start LIMIT 1",
        "DELETE FROM tallymark.slice WHERE ctid IN (SELECT max(ctid) FROM tallymark.slice \
         GROUP BY slice_start HAVING count(*) > 1)",
        &["1 of its keys", "2026-01-01", "DELETE FROM tallymark.slice", "ORDER BY attempt DESC"],
    ),
    (
        "DELETE FROM tallymark.rollup",
        "INSERT INTO tallymark.rollup VALUES ('daily', '\"stats\".\"daily\"')",
        &["was not made by Tallymark"],
    ),
];

#[tokio::test]
async fn what_somebody_put_on_a_table_is_refused_by_name_before_anything_is_claimed() {
    let definition = DAILY.to_owned() + "mean = { avg = \"amount\" }\n";
    let world = computed().await.redefined(&definition);
    world.init().await.unwrap();
    for (change, back, words) in CHANGES {
        world.target_sql(change).await;
        is_refused(&world, change, words).await;
        again(&world).init().await.unwrap_err();
        world.target_sql(back).await;
        let world = again(&world);
        world.init().await.unwrap();
        assert_eq!(world.replay("2026-01-02").await.outcome.word(), "succeeded", "{change}");
    }
    // The comparison with the expected rows does not include means.
    world
        .target_sql(
            "ALTER TABLE stats.daily DROP COLUMN mean, DROP COLUMN mean_sum, DROP COLUMN mean_count",
        )
        .await;
    let world = fresh(&world);
    world.init().await.unwrap();
    world.backfill(END, true).await;
    world.verify_all(END).await;
}

/// Each has a change, and the correction that `init` must have made.
const MENDED: &[(&str, &str)] = &[
    (
        "ALTER TABLE tallymark.slice DROP CONSTRAINT slice_pkey",
        "SELECT count(*) FROM pg_index WHERE indrelid = 'tallymark.slice'::regclass AND indisunique",
    ),
    (
        "ALTER TABLE tallymark.progress DROP CONSTRAINT progress_pkey",
        "SELECT count(*) FROM pg_index WHERE indrelid = 'tallymark.progress'::regclass AND indisunique",
    ),
    (
        "ALTER TABLE tallymark.rollup DROP CONSTRAINT rollup_pkey",
        "SELECT count(*) FROM pg_index WHERE indrelid = 'tallymark.rollup'::regclass AND indisunique",
    ),
    (
        "ALTER TABLE tallymark.installation DROP CONSTRAINT installation_pkey",
        "SELECT count(*) FROM pg_index WHERE indrelid = 'tallymark.installation'::regclass \
         AND indisunique",
    ),
    (
        "ALTER TABLE tallymark.progress SET LOGGED",
        "SELECT count(*) FROM pg_class WHERE oid = 'tallymark.progress'::regclass AND relpersistence = 'u'",
    ),
    (
        "ALTER TABLE stats.daily SET UNLOGGED",
        "SELECT count(*) FROM pg_class WHERE oid = 'stats.daily'::regclass AND relpersistence = 'p'",
    ),
    (
        "ALTER TABLE tallymark.slice SET UNLOGGED",
        "SELECT count(*) FROM pg_class WHERE oid = 'tallymark.slice'::regclass AND relpersistence = 'p'",
    ),
    (
        "ALTER TABLE stats.daily ALTER bucket DROP NOT NULL",
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'stats.daily'::regclass \
         AND attname = 'bucket' AND attnotnull",
    ),
    (
        "ALTER TABLE tallymark.stage_daily DROP COLUMN __rows",
        "SELECT count(*) FROM pg_attribute WHERE attrelid = 'tallymark.stage_daily'::regclass \
         AND attname = '__rows'",
    ),
    (
        "CREATE OR REPLACE FUNCTION tallymark.key_hash(\"row\" record) RETURNS bytea LANGUAGE plpgsql \
         IMMUTABLE AS 'BEGIN RETURN random()::text::bytea; END'",
        "SELECT count(*) FROM pg_proc WHERE proname = 'key_hash' AND prosrc LIKE '%record_send%'",
    ),
    (
        // The index is rebuilt, or it would miss the groups that it contains.
        "CREATE OR REPLACE FUNCTION tallymark.key_of(dimension text) RETURNS text LANGUAGE sql IMMUTABLE \
         AS 'SELECT random()::text'; \
         DO $do$ DECLARE i text; BEGIN FOR i IN SELECT indexrelid::regclass::text FROM pg_index \
         WHERE indrelid = 'stats.daily'::regclass AND indisunique LOOP \
         EXECUTE 'REINDEX INDEX ' || i; END LOOP; END $do$; \
         CREATE FUNCTION refusals() RETURNS int LANGUAGE plpgsql AS $fn$ BEGIN \
         INSERT INTO stats.daily SELECT * FROM stats.daily; RETURN 0; \
         EXCEPTION WHEN unique_violation THEN RETURN 1; END $fn$",
        "SELECT refusals()",
    ),
];

#[tokio::test]
async fn what_is_missing_on_a_table_is_told_before_anything_is_claimed_and_made_by_init() {
    let world = computed().await;
    for (change, mended) in MENDED {
        world.target_sql(change).await;
        is_refused(&world, change, &["not ready", "tallymark init"]).await;
        let again = fresh(&world);
        again.init().await.unwrap();
        assert_eq!(world.target_value(mended).await, "1", "{change}");
        assert_eq!(again.replay("2026-01-02").await.outcome.word(), "succeeded", "{change}");
    }
    world.verify_all(END).await;
}

#[tokio::test]
async fn a_rollup_that_no_table_could_hold_is_refused_before_anything_is_made() {
    let world = World::bare(EVENTS, Setup::default()).await;
    for (measures, words) in [(1_600, "PostgreSQL takes 1600"), (1_050, "PostgreSQL stores 8160")] {
        let more: String = (0..measures).map(|n| format!("m{n} = \"count\"\n")).collect();
        let wide = world.redefined(&(DAILY.to_owned() + &more));
        let error = wide.init().await.unwrap_err().in_one_line();
        assert!(error.contains(words) && error.contains("make two rollups"), "{error}");
        let schemas = "SELECT count(*) FROM pg_namespace WHERE nspname IN ('stats', 'tallymark')";
        assert_eq!(world.target_value(schemas).await, "0");
    }
}

#[tokio::test]
async fn no_advice_ever_drops_a_dimension() {
    let world = computed().await;
    let without = DAILY.replace("\"kind\", ", "");
    let error = world.redefined(&without).init().await.unwrap_err().in_one_line();
    assert!(error.contains("put it back into group_by"), "{error}");
    assert!(!error.contains("DROP"), "{error}");
    let without = DAILY.replace("low = { min = \"amount\" }\n", "");
    let error = world.redefined(&without).init().await.unwrap_err().in_one_line();
    assert!(error.contains("ALTER TABLE \"stats\".\"daily\" DROP COLUMN \"low\""), "{error}");
}

#[tokio::test]
async fn a_widened_type_is_followed_by_the_table_with_its_purged_history() {
    let sql = "CREATE TABLE events (id bigint, created_at timestamptz, kind varchar(9), entity_id int, \
               user_id int, amount int, code char(3)); CREATE INDEX ON events (created_at); \
               INSERT INTO events SELECT n, '2026-01-01Z'::timestamptz + n * interval '1 hour', \
               'k' || n % 3, n % 2, n % 5, n, 'ab' FROM generate_series(0, 71) n";
    let rollups = DAILY.replace("\"entity_id\"]", "\"entity_id\", \"code\"]")
        + "mean = { avg = \"amount\" }\n";
    let world = World::new(sql, Setup { rollups: &rollups, ..Setup::default() }).await;
    assert_eq!(world.backfill(END, false).await.succeeded, 3);
    let first = "SELECT * FROM stats.daily WHERE bucket < '2026-01-02Z'";
    let kept = records(&world.target, first).await;
    // The first day is purged.
    world
        .sql(
            "DELETE FROM events WHERE created_at < '2026-01-02Z'; \
              ALTER TABLE events ALTER kind TYPE text, ALTER entity_id TYPE bigint, \
              ALTER amount TYPE bigint, ALTER user_id TYPE bigint, ALTER code TYPE char(5)",
        )
        .await;
    let again = world.redefined(&rollups);
    let mut followed = 0;
    while let Err(error) = again.init().await {
        let error = error.in_one_line();
        let statement = error.split("keep the rows: ").nth(1).unwrap_or_else(|| panic!("{error}"));
        let statement = statement.split("; then run `tallymark init`").next().unwrap();
        world.target_sql(statement).await;
        followed += 1;
        assert!(followed < 20, "{error}");
    }
    assert!(followed >= 5, "{followed}");
    for day in ["2026-01-02", "2026-01-03"] {
        let report = again.replay(day).await;
        assert_eq!(report.outcome.word(), "succeeded", "{report:?}");
    }
    assert_eq!(records(&world.target, first).await.len(), kept.len());
    for slice in again
        .rollup()
        .calendar
        .slices("2026-01-02T00:00:00Z".parse().unwrap(), "2026-01-04T00:00:00Z".parse().unwrap())
    {
        let found =
            verify::verify_slice(&again.worker, again.rollup(), slice, BUDGET, 3).await.unwrap();
        assert_eq!(found.differences, 0, "{found:?}");
    }
    // A narrower type would lose values.
    world.sql("ALTER TABLE events ALTER entity_id TYPE smallint").await;
    let error = world.redefined(&rollups).init().await.unwrap_err().in_one_line();
    assert!(error.contains("new name") && !error.contains("ALTER TABLE"), "{error}");
}

/// Rows of many types, with long values and values that are almost equal.
fn many_values(many: &[String]) -> String {
    let columns = many.iter().map(|name| format!(", {name} int")).collect::<String>();
    format!(
        "CREATE TYPE moods AS ENUM ('good', 'bad'); CREATE DOMAIN words AS varchar; \
         CREATE DOMAIN digits AS numeric; \
         CREATE TABLE events (created_at timestamptz, a text, b varchar, c text[], j jsonb, y bytea, \
           p char(9700), w words, g digits, n numeric, u uuid, e moods, i inet, v interval, f float8, \
           r int4range, at timestamptz, letter \"char\", label name{columns}); \
         CREATE INDEX ON events (created_at); \
         INSERT INTO events SELECT '2026-01-01Z'::timestamptz + n * interval '1 minute', \
           CASE n % 4 WHEN 0 THEN repeat('é', 20) WHEN 1 THEN long.a WHEN 2 THEN long.a || 'x' END, \
           long.a, ARRAY[long.a, NULL], to_jsonb(long.a), long.a::bytea, long.a, long.a, \
           10 ^ 6000::numeric + n % 2, 10 ^ 6000::numeric + n % 3, md5(n::text)::uuid, 'bad', '::1', \
           n * interval '1 day', n / 7.0::float8, int4range(1, n + 1), now(), 'x', 'z'{zeros} \
         FROM generate_series(1, 40) n, \
           (SELECT string_agg(md5(i::text), '') AS a FROM generate_series(1, 300) i) long; \
         INSERT INTO events (created_at, c, j) VALUES ('2026-01-01Z', '{{1,2}}', '[]'), \
           ('2026-01-01Z', '{{{{1,2}}}}', '[[[]]]'), ('2026-01-01Z', '{{}}', NULL), \
           ('2026-01-01Z', NULL, NULL); \
         INSERT INTO events (created_at, a, w) SELECT '2026-01-01Z', v, v FROM unnest(ARRAY['', ' ', \
           repeat('a', 62), repeat('a', 63), repeat('a', 64), repeat('a', 65), repeat('é', 31), \
           repeat('é', 32), repeat('a', 64) || '\\', repeat('a', 64) || '\\\\', \
           repeat('a', 64) || '\\134', repeat('\\', 63), repeat('\\', 64), repeat('\\', 128), \
           encode(sha256(repeat('a', 64)::bytea), 'hex')]) v; \
         INSERT INTO events (created_at, y) SELECT '2026-01-01Z', v FROM unnest(ARRAY[''::bytea, \
           repeat('a', 31)::bytea, repeat('a', 32)::bytea, repeat('a', 33)::bytea, \
           sha256(repeat('a', 32)::bytea), sha256(repeat('a', 33)::bytea)]) v; \
         INSERT INTO events (created_at, n, g) SELECT '2026-01-01Z', v, v FROM unnest(ARRAY[1.0, 1.00, 1, \
           'NaN', -1, 1e200]) v; \
         INSERT INTO events (created_at, d1) VALUES ('2026-01-01Z', 1), ('2026-01-01Z', -1), \
           ('2026-01-01Z', NULL)",
        zeros = many.iter().map(|_| ", n % 2").collect::<String>(),
    )
}

/// The dimensions of each rollup of [`every_value_is_counted`].
fn many_groups(many: &[String]) -> [Vec<String>; 7] {
    let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    [
        names(&["a", "b", "c", "j", "y"]),
        many.to_vec(),
        names(&["a"]),
        names(&["y"]),
        names(&["p", "w", "g", "n"]),
        names(&["u", "e", "i", "v", "f", "r", "at", "letter", "label", "a"]),
        // One more than an index has columns, beside one that needs a hash.
        (0..31).map(|n| format!("d{n}")).chain(names(&["a", "j"])).collect(),
    ]
}

/// The rollup contains each group of `dimensions`, and refuses each a second time.
async fn has_each_once(world: &World, rollup: &Rollup, dimensions: &[String], takes_null: bool) {
    let report = world.backfill_one(rollup, "2026-01-02", false).await;
    assert_eq!((report.succeeded, report.left), (1, 0), "{report:?}");
    let keys = dimensions.join(", ");
    let wanted = format!("SELECT {keys}, count(*) FROM events GROUP BY {keys}");
    let found = format!("SELECT {keys}, events FROM stats.{}", rollup.name);
    let wanted = records(&world.pool, &wanted).await;
    let found = records(&world.target, &found).await;
    assert_eq!(wanted.len(), found.len(), "{}", rollup.name);
    if !dimensions.contains(&"n".to_owned()) {
        // 1, 1.0 and 1.00 may each represent the group.
        assert_eq!(wanted, found, "{}", rollup.name);
    }
    world.assert_one_verified(rollup, "2026-01-02").await;
    // The index refuses to hold any key twice.
    let is_written = dimensions.iter().map(|name| format!("{name} IS NOT NULL"));
    let is_written = is_written.collect::<Vec<_>>().join(" AND ");
    // Before PostgreSQL 15, only those without a NULL.
    let which = if takes_null { "true" } else { &is_written };
    let twice = format!(
        "DO $do$ DECLARE __r record; BEGIN FOR __r IN SELECT ctid FROM stats.{0} WHERE {which} LOOP \
         BEGIN INSERT INTO stats.{0} SELECT * FROM stats.{0} WHERE ctid = __r.ctid; \
         RAISE 'stands twice'; EXCEPTION WHEN unique_violation THEN END; END LOOP; END $do$",
        rollup.name
    );
    world.target_sql(&twice).await;
}

/// Long values, values that are almost equal, and more dimensions than an index has columns, within
/// one database and across two.
pub(crate) async fn every_value_is_counted(urls: Option<&Urls>, takes_null: bool) {
    const NOTHING: &str = "DROP SCHEMA IF EXISTS stats, tallymark CASCADE; \
                           DROP TABLE IF EXISTS events; DROP DOMAIN IF EXISTS words, digits; \
                           DROP TYPE IF EXISTS moods";
    for across in [false, true] {
        let many: Vec<String> = (0..40).map(|n| format!("d{n}")).collect();
        let (sql, groups) = (many_values(&many), many_groups(&many));
        let by = |name: &str, dimensions: &[String]| {
            format!(
                "[[rollup]]\nname = \"{name}\"\nfrom = \"events\"\ntime = \"created_at\"\n\
                 start = \"2026-01-01\"\nslice = \"1 day\"\ngroup_by = {dimensions:?}\n\
                 [rollup.measures]\nevents = \"count\"\n"
            )
        };
        let rollups: String =
            groups.iter().zip(0..).map(|(names, n)| by(&format!("by_{n}"), names)).collect();
        let setup = Setup { rollups: &rollups, across, ..Setup::default() };
        let world = match urls {
            None => World::new(&sql, setup).await,
            Some(urls) => {
                let target = if across { urls.target.clone() } else { None };
                let world = World::at(Urls { target, ..urls.clone() }, setup).await;
                world.sql(NOTHING).await;
                world.sql(&sql).await;
                world.init().await.unwrap();
                world
            }
        };
        for (rollup, dimensions) in world.worker.config.rollups.iter().zip(&groups) {
            has_each_once(&world, rollup, dimensions, takes_null).await;
        }
        // The created indexes are those that the check expects.
        let again = world.redefined(&rollups);
        for rollup in &again.worker.config.rollups {
            let report = again.backfill_one(rollup, "2026-01-02", true).await;
            assert_eq!((report.succeeded, report.updated, report.deleted), (1, 0, 0), "{report:?}");
        }
    }
}

#[tokio::test]
async fn values_of_any_length_and_dimensions_of_any_number_are_counted() {
    every_value_is_counted(None, true).await;
}

/// Names that are, or could be, Tallymark's own aliases.
const ALIASES: [&str; 24] = [
    "k",
    "n",
    "o",
    "d",
    "r",
    "x",
    "s",
    "i",
    "t",
    "c",
    "diff",
    "gone",
    "new",
    "changed",
    "key",
    "expected",
    "actual",
    "difference",
    "differences",
    "rows_read",
    "groups",
    "rollup",
    "one",
    "joined",
];

#[tokio::test]
async fn columns_and_tables_may_have_the_names_of_our_aliases() {
    for across in [false, true] {
        if !share::is_drawn("databases of hostile names", usize::from(across), 2, 1) {
            continue;
        }
        let (mut sql, mut rollups) = (String::new(), String::new());
        for (n, name) in ALIASES.iter().enumerate() {
            let of = |shift: usize| ALIASES[(n + shift) % ALIASES.len()];
            let (time, value, measure, other) = (of(1), of(2), of(3), of(4));
            sql += &format!(
                "CREATE TABLE public.\"{name}\" (\"{time}\" timestamptz, \"{name}\" text, \"{value}\" int); \
                 CREATE INDEX ON public.\"{name}\" (\"{time}\"); \
                 INSERT INTO public.\"{name}\" SELECT '2026-01-01Z'::timestamptz + n * interval '1 hour', \
                 'v' || n % 3, n FROM generate_series(0, 23) n; \
                 CREATE FUNCTION \"much_{name}\"() RETURNS SETOF boolean LANGUAGE plpgsql VOLATILE \
                 ROWS 1000000 AS 'BEGIN RETURN NEXT true; END'; \
                 CREATE VIEW public.\"vast_{name}\" AS SELECT e.* FROM public.\"{name}\" e \
                 CROSS JOIN LATERAL \"much_{name}\"();"
            );
            for (table, from) in [
                (format!("a_{name}"), (*name).to_owned()),
                (format!("b_{name}"), format!("vast_{name}")),
            ] {
                rollups += &format!(
                    "[[rollup]]\nname = \"{table}\"\nfrom = \"public.{from}\"\ntime = \"{time}\"\n\
                     start = \"2026-01-01\"\nslice = \"1 day\"\ngroup_by = [\"{name}\"]\n\
                     [rollup.measures]\n{measure} = {{ sum = \"{value}\" }}\n\
                     {other} = {{ distinct = \"{value}\", where = '\"{value}\" > 1' }}\n"
                );
            }
        }
        let world = World::new(&sql, Setup { rollups: &rollups, across, ..Setup::default() }).await;
        for rollup in &world.worker.config.rollups {
            let report = world.backfill_one(rollup, "2026-01-02", false).await;
            assert_eq!((report.succeeded, report.groups), (1, 3), "{}: {report:?}", rollup.name);
            world.assert_one_verified(rollup, "2026-01-02").await;
            // Includes a difference, so that its key and numbers are shown.
            let measure = &rollup.measures[0].name;
            let spoil = format!("UPDATE stats.\"{}\" SET \"{measure}\" = 0", rollup.name);
            world.target_sql(&spoil).await;
            let slice = rollup.calendar.containing(rollup.start);
            let found =
                verify::verify_slice(&world.worker, rollup, slice, BUDGET, 9).await.unwrap();
            assert_eq!(found.differences, 3, "{}", rollup.name);
            let shown = &found.examples[0];
            assert!(
                shown.key.get(&rollup.group_by[0].name).is_some_and(Value::is_string),
                "{shown:?}"
            );
            assert!(shown.actual.as_ref().unwrap().get(measure).is_some(), "{shown:?}");
            let report = world.backfill_one(rollup, "2026-01-02", true).await;
            assert_eq!(report.updated, 3, "{}: {report:?}", rollup.name);
        }
        init(&world.worker).await.unwrap();
    }
}

#[tokio::test]
async fn one_rollup_that_cannot_be_compared_leaves_the_others_verified() {
    let (place, _database) = Place::with_events(3).await;
    let one = std::fs::read_to_string(place.config()).unwrap();
    let one = &one[one.find("[[rollup]]").unwrap()..];
    place.configure(&(one.replace("\"daily\"", "\"a_broken\"") + one));
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    place
        .sql(
            "ALTER TABLE stats.a_broken ALTER COLUMN kind SET STATISTICS 10; \
              CREATE RULE deaf AS ON INSERT TO stats.a_broken DO INSTEAD NOTHING",
        )
        .await;
    let ended = place.run(&["verify"]);
    ended.refused(2, &["a_broken", "rule deaf", "hint: DROP RULE deaf"]);
    assert!(ended.out.contains("3 slices compared with the source, 0 differences"), "{ended:?}");
    assert!(ended.out.contains("a_broken not compared to the end"), "{ended:?}");
    let json = place.run(&["verify", "--json"]).json();
    assert_eq!(json["broken"][0]["rollup"], "a_broken", "{json}");
    assert_eq!(json["slices"], 3, "{json}");
    let check = place.run(&["check"]);
    assert!(check.out.contains("DROP RULE deaf"), "{check:?}");
    place.sql("DROP RULE deaf ON stats.a_broken").await;
    place.run(&["verify"]).good();
}
