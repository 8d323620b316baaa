//! A captured update is marked if it changes a column that some rollup uses.

use std::sync::Arc;

use tallymark::work::report::SliceReport;

use crate::capture::{marks, tick};
use crate::support::cli::{Place, daily};
use crate::support::share;
use crate::support::world::{Setup, Urls, World, clock, install_capture};
use crate::versions::server;

const TABLE: &str = "CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, created_at \
    timestamptz, kind text, amount numeric, counted boolean, note text, wide text, \"Odd \"\"n\"\"\" int, cents \
    int, tax int, gross int GENERATED ALWAYS AS (cents + tax) STORED, doc json, props jsonb); \
    CREATE INDEX ON events (created_at)";

/// A row of each of two days.
const ROWS: &str = "INSERT INTO events (created_at, kind, amount, counted, note, wide, \"Odd \"\"n\"\"\", cents, tax, \
    doc, props) SELECT d, 'a', 1.0, true, 'n', repeat(md5(d::text), 1000), 1, 2, 3, '{\"a\":1}', \
    '{\"plan\": \"free\"}' FROM unnest(ARRAY['2026-01-01T05:10Z', '2026-01-02T06:10Z']::timestamptz[]) d";

/// A rollup whose dimensions and measures are `group_by` and `measures`.
fn rollup(name: &str, group_by: &str, measures: &str) -> String {
    format!(
        "[[rollup]]\nname = \"{name}\"\nfrom = \"public.events\"\ntime = \"created_at\"\nstart = \
         \"2026-01-01\"\nslice = \"1 day\"\nlate = \"capture\"\nshrink_guard = 0.0\nwhere = \"events.COUNTED IS \
         NOT FALSE\"\ngroup_by = [{group_by}]\nmeasures = {{ events = \"count\"{measures} }}\n"
    )
}

/// Uses all columns but `id`, `note` and `wide`.
fn daily_rollup() -> String {
    rollup(
        "daily",
        "\"kind\", { plan = \"props->>'plan'\" }",
        ", amounts = { sum = \"amount\" }, scale = { max = { sql = \"scale(amount)\" } }, odd = { sum = \
         'Odd \"n\"' }, gross = { sum = \"gross\" }, docs = { distinct = { sql = \"doc::text\" } }",
    )
}

/// The world after two days, each with a row, which were computed by `rollups`.
async fn world(table: &str, rollups: &str) -> World {
    let clock = Arc::new(clock("2026-01-03T12:00:00Z"));
    let setup = Setup { rollups, clock, ..Setup::default() };
    computed(World::new(table, setup).await).await
}

async fn computed(world: World) -> World {
    world.sql(ROWS).await;
    install_capture(&world.worker).await;
    let report = tick(&world).await;
    assert!(report.problems.is_empty(), "{report:?}");
    world
}

/// Whether an update of the first row is marked. Takes its marks away.
async fn is_marked(world: &World, set: &str) -> bool {
    world.sql(&format!("UPDATE events SET {set} WHERE created_at < '2026-01-02Z'")).await;
    let found = !marks(world).await.is_empty();
    world.sql("DELETE FROM tallymark.mark").await;
    found
}

const UNUSED: [&str; 4] =
    ["note = 'm'", "wide = repeat(md5(note), 900)", "kind = kind", "note = NULL"];

const USED: [&str; 11] = [
    "kind = 'b'",
    "kind = NULL",
    "amount = 2.0",
    "amount = 2.00",
    "counted = false",
    "\"Odd \"\"n\"\"\" = 2",
    "cents = 3, tax = 2",
    "tax = 4",
    "doc = '{\"a\": 1}'",
    "props = '{}'",
    "created_at = created_at + interval '1 second'",
];

async fn only_used_columns_mark(world: &World) {
    for set in UNUSED {
        assert!(!is_marked(world, set).await, "{set}");
    }
    for set in USED {
        assert!(is_marked(world, set).await, "{set}");
    }
}

#[tokio::test]
async fn an_update_is_marked_if_it_changes_a_column_that_a_rollup_uses() {
    let world = world(TABLE, &daily_rollup()).await;
    only_used_columns_mark(&world).await;
    // Many rows, through an upsert too.
    world
        .sql(
            "INSERT INTO events (created_at, note) SELECT '2026-01-01Z'::timestamptz + n * interval '1 second', \
             'n' FROM generate_series(1, 10000) n; DELETE FROM tallymark.mark",
        )
        .await;
    assert!(!is_marked(&world, "note = 'm' || id").await);
    let upsert = "INSERT INTO events (id, created_at, kind, note) OVERRIDING SYSTEM VALUE VALUES (1, \
                  '2026-01-01T05:10Z', 'a', 'n') ON CONFLICT (id) DO UPDATE SET";
    world.sql(&format!("{upsert} note = 'upserted'")).await;
    assert_eq!(marks(&world).await, "");
    world.sql(&format!("{upsert} kind = 'upserted'")).await;
    assert_ne!(marks(&world).await, "");
    // Inserts and deletes are marked whatever they hold.
    for change in
        ["INSERT INTO events (created_at) VALUES ('2026-01-01T05:10Z')", "DELETE FROM events"]
    {
        world.sql(&format!("DELETE FROM tallymark.mark; {change}")).await;
        assert_ne!(marks(&world).await, "", "{change}");
    }
}

/// Versions that a run tries besides the shared server's.
const VERSIONS_TRIED: usize = 1;

/// The catalogue of versions before 15 keeps the dependencies of generated columns elsewhere, and
/// 18 has columns that are computed when they are read.
#[tokio::test]
async fn on_any_postgresql_the_columns_of_a_generated_one_mark() {
    let versions = 13..=18_u16;
    for (cell, major) in versions.clone().enumerate() {
        if share::is_drawn("versions with columns", cell, versions.clone().count(), VERSIONS_TRIED)
        {
            let (_server, urls) = server(major, "columns").await;
            let rollups = daily_rollup();
            let clock = Arc::new(clock("2026-01-03T12:00:00Z"));
            let setup = Setup { rollups: &rollups, clock, ..Setup::default() };
            let world = World::at(Urls { target: None, ..urls }, setup).await;
            let stored = if major >= 18 { "VIRTUAL" } else { "STORED" };
            world.sql(&TABLE.replace("STORED", stored)).await;
            world.init().await.unwrap();
            only_used_columns_mark(&computed(world).await).await;
        }
    }
}

#[tokio::test]
async fn an_expression_over_the_whole_row_uses_every_column() {
    let world = world(TABLE, &rollup("daily", "{ full = \"events IS NOT NULL\" }", "")).await;
    assert!(is_marked(&world, "note = 'm'").await);
    world.sql("ALTER TABLE events ADD COLUMN later int").await;
    assert!(is_marked(&world, "later = 1").await);
    tick(&world).await;
    world.sql("UPDATE events SET later = NULL").await;
    tick(&world).await;
    let rows = "SELECT count(*) FROM stats.daily WHERE \"full\"";
    assert_eq!(world.target_value(rows).await, "0");
}

/// A function may read the row again by its key.
#[tokio::test]
async fn a_condition_by_a_function_that_reads_tables_uses_every_column() {
    let looks = "CREATE FUNCTION is_noted(k bigint) RETURNS boolean LANGUAGE sql STABLE AS 'SELECT note = ''m'' \
                 FROM public.events e WHERE e.id = k'";
    let rollups = rollup("daily", "\"kind\"", "").replace("IS NOT FALSE", "AND is_noted(id)");
    let world = world(&format!("{TABLE}; {looks}"), &rollups).await;
    world.sql("UPDATE events SET note = 'm' WHERE id = 1").await;
    assert_eq!(tick(&world).await.slices.len(), 1);
    assert_eq!(world.target_value("SELECT sum(events) FROM stats.daily").await, "1");
}

#[tokio::test]
async fn a_column_that_the_applications_own_trigger_changes_is_marked() {
    let own = "CREATE FUNCTION classify() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.kind := NEW.note; \
               RETURN NEW; END'; CREATE TRIGGER classify BEFORE UPDATE OF note ON events FOR EACH ROW \
               EXECUTE FUNCTION classify()";
    let world = world(&format!("{TABLE}; {own}"), &rollup("daily", "\"kind\"", "")).await;
    assert!(is_marked(&world, "note = 'other'").await);
    assert!(!is_marked(&world, "wide = ''").await);
}

#[tokio::test]
async fn partitions_and_children_compare_the_same_columns() {
    let partitioned = "CREATE TABLE events (id bigint, created_at timestamptz, kind text, counted boolean, note \
        text, cents int, gross int GENERATED ALWAYS AS (cents + 1) STORED) PARTITION BY RANGE (created_at); \
        CREATE TABLE dropped (was int, created_at timestamptz, kind text, counted boolean, note text, id bigint, \
        cents int, gross int GENERATED ALWAYS AS (cents + 1) STORED); ALTER TABLE dropped DROP COLUMN was; ALTER \
        TABLE events ATTACH PARTITION dropped FOR VALUES FROM ('2026-01-01Z') TO ('2026-02-01Z'); CREATE INDEX \
        ON events (created_at)";
    let children = "CREATE TABLE events (id bigint, created_at timestamptz, kind text, counted boolean, note text, \
        cents int, gross int GENERATED ALWAYS AS (cents + 1) STORED); CREATE INDEX ON events (created_at); \
        CREATE TABLE child (more int) INHERITS (events); CREATE INDEX ON child (created_at)";
    let insert =
        "INSERT INTO {into} (created_at, kind, note) VALUES ('2026-01-01T05:10Z', 'a', 'n')";
    for (table, into) in [(partitioned, "events"), (children, "child")] {
        let rollups = rollup("daily", "\"kind\"", ", gross = { sum = \"gross\" }");
        let clock = Arc::new(clock("2026-01-03T12:00:00Z"));
        let world = World::new(table, Setup { rollups: &rollups, clock, ..Setup::default() }).await;
        world.sql(&insert.replace("{into}", into)).await;
        install_capture(&world.worker).await;
        tick(&world).await;
        assert!(!is_marked(&world, "note = 'm'").await, "{into}");
        for set in ["kind = 'b'", "cents = 1"] {
            assert!(is_marked(&world, set).await, "{into}: {set}");
        }
        world.sql("UPDATE events SET kind = 'c'").await;
        assert_eq!(tick(&world).await.slices.len(), 1, "{into}");
    }
}

fn noted() -> String {
    rollup("noted", "\"note\"", "")
}

fn settled<'r>(slices: &'r [SliceReport], rollup: &str) -> Vec<&'r str> {
    let own = slices.iter().filter(|slice| slice.rollup == rollup);
    own.filter_map(|slice| slice.completion.as_ref()).map(|it| &*it.settled_by).collect()
}

#[tokio::test]
async fn a_second_rollup_is_captured_once_its_columns_are_installed() {
    let kinds = rollup("daily", "\"kind\"", "");
    let world = world(TABLE, &kinds).await;
    let both = world.redefined(&(kinds.clone() + &noted()));
    both.init().await.unwrap();
    let report = tick(&both).await;
    assert!(report.problems[0].error.contains("leave out note, which a rollup uses"), "{report:?}");
    assert_eq!(settled(&report.slices, "noted"), ["grace", "grace"]);
    let replayed = both.replay("2026-01-01").await;
    assert_eq!(replayed.completion.unwrap().settled_by, "capture", "of the other rollup");
    world.sql("UPDATE events SET note = 'before' WHERE id = 1").await;
    assert_eq!(marks(&world).await, "");
    install_capture(&both.worker).await;
    for set in ["note = 'm'", "kind = 'b'"] {
        assert!(is_marked(&both, set).await, "{set}");
    }
    assert!(!is_marked(&both, "wide = ''").await);
    world.sql("UPDATE events SET note = 'after' WHERE id = 1").await;
    let report = tick(&both).await;
    assert!(report.problems.is_empty(), "{report:?}");
    assert_eq!(settled(&report.slices, "noted"), ["capture"]);
    let rows = "SELECT string_agg(note, ' ' ORDER BY note) FROM stats.noted";
    assert_eq!(world.target_value(rows).await, "after n");
}

#[tokio::test]
async fn a_rollup_that_is_left_out_of_the_file_keeps_its_columns() {
    let kinds = rollup("daily", "\"kind\"", "");
    let both = world(TABLE, &(kinds.clone() + &noted())).await;
    let one = both.redefined(&kinds);
    install_capture(&one.worker).await;
    assert!(is_marked(&both, "note = 'again'").await);
    both.sql("DELETE FROM tallymark.consumer WHERE rollup = 'noted'").await;
    install_capture(&one.worker).await;
    assert!(!is_marked(&both, "note = 'once more'").await);
    // A consumer of another installation.
    both.sql("INSERT INTO tallymark.consumer (id, capture, installation, rollup, columns) SELECT 1, capture, \
              'other', 'daily', '{wide,gone}' FROM tallymark.consumer")
        .await;
    install_capture(&one.worker).await;
    assert!(is_marked(&both, "wide = ''").await);
    assert!(!is_marked(&both, "note = 'and again'").await);
}

/// After these renames `kind` is the column that nothing compares.
#[tokio::test]
async fn a_column_that_took_the_name_of_another_is_an_alarm() {
    let kinds = rollup("daily", "\"kind\"", "");
    let world = world(TABLE, &kinds).await;
    world
        .sql("ALTER TABLE events RENAME kind TO was; ALTER TABLE events RENAME note TO kind")
        .await;
    let again = world.redefined(&kinds);
    let problems = tick(&again).await.problems;
    assert!(problems[0].error.contains("leave out kind, which a rollup uses"), "{problems:?}");
    let replayed = again.replay("2026-01-01").await;
    assert_eq!(replayed.completion.unwrap().settled_by, "grace");
    install_capture(&again.worker).await;
    assert!(is_marked(&again, "kind = 'm'").await);
    assert!(!is_marked(&again, "was = 'm'").await);
}

/// The triggers of the version before marked every update of a late row.
#[tokio::test]
async fn triggers_of_an_older_version_serve_and_are_replaced() {
    let world = world(TABLE, &rollup("daily", "\"kind\"", "")).await;
    world
        .sql(
            "DO $$ DECLARE own regproc := (SELECT tgfoid FROM pg_trigger WHERE tgname = 'tallymark_insert'); \
             BEGIN EXECUTE format('DROP TRIGGER tallymark_update ON events; CREATE TRIGGER tallymark_update AFTER \
             UPDATE ON events FOR EACH ROW WHEN (least(OLD.created_at, NEW.created_at) < clock_timestamp()) \
             EXECUTE FUNCTION %s(); ALTER TABLE events ENABLE ALWAYS TRIGGER tallymark_update; COMMENT ON FUNCTION \
             %s() IS %L', own, own, obj_description(own)::jsonb - 'columns' || '{\"version\": 3}'); UPDATE \
             tallymark.consumer SET columns = NULL; END $$",
        )
        .await;
    assert!(is_marked(&world, "note = 'm'").await);
    assert!(tick(&world).await.problems.is_empty());
    assert_eq!(world.replay("2026-01-01").await.completion.unwrap().settled_by, "capture");
    // It is not known what the consumer of the older version uses.
    install_capture(&world.worker).await;
    assert!(is_marked(&world, "note = 'n'").await);
    world.sql("UPDATE tallymark.consumer SET columns = '{created_at,kind,counted}'").await;
    install_capture(&world.worker).await;
    assert!(!is_marked(&world, "note = 'o'").await);
    assert!(tick(&world).await.problems.is_empty());
}

/// The command knows its own consumers, so it drops what they no longer use.
#[tokio::test]
async fn the_command_installs_shows_and_narrows_the_columns() {
    let (place, _database) = Place::with_events(2).await;
    let captured = daily(2).replace("slice =", "late = \"capture\"\nslice =");
    place.configure(&captured);
    place.run(&["init"]).good();
    place.run(&["capture", "install"]).good();
    let status = place.json(&["capture", "status"]);
    let columns = status["tables"][0]["columns"].clone();
    assert_eq!(status["tables"][0]["consumers"][0]["columns"], columns, "{status}");
    assert!(columns.as_array().unwrap().contains(&"at".into()), "{columns}");
    place.sql("ALTER TABLE events ADD COLUMN note text").await;
    place.configure(&format!("{captured}notes = {{ max = \"note\" }}\n"));
    place.run(&["init", "--yes"]);
    let status = place.run(&["capture", "status"]);
    status.refused(1, &["1 table"]);
    assert!(
        status.out.contains(
            "leave out note, which a rollup uses\n  hint: run `tallymark capture install`"
        )
    );
    let checked = place.run(&["check"]);
    assert!(checked.out.contains("leave out note"), "{}", checked.out);
    place.run(&["capture", "install"]).good();
    let shown = place.run(&["capture", "status"]).good().out;
    assert!(shown.contains("note") && shown.contains("which uses"), "{shown}");
    // The version before left the consumer without columns.
    place.sql("UPDATE tallymark.consumer SET columns = NULL").await;
    place.configure(&captured);
    place.run(&["capture", "install"]).good();
    let status = place.json(&["capture", "status"]);
    assert_eq!(status["tables"][0]["columns"], columns, "{status}");
    assert_eq!(place.run(&["capture", "install"]).good().out, "capture: installed already\n");
}
