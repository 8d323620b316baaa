//! Captured changes of lookups: which slices they reach, what they cost the writers, and what
//! happens to keys that cannot be looked up.

use std::sync::Arc;

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tallymark::model::clock::Deadline;
use tallymark::work::late;

use super::{SHOP, is_exact, rollup};
use crate::capture::{marks, tick};
use crate::support::polls::{killed, sweep};
use crate::support::world::{BUDGET, Keeper, Setup, World, clock, install_capture};

/// The keys that wait.
const KEYS: &str = "SELECT coalesce(string_agg(coalesce(array_to_string(key, '/'), 'all'), ',' \
    ORDER BY key), '') FROM tallymark.lookup_mark";

/// The shop with its captured rollup, all of whose days are computed.
async fn shop(keeper: Keeper, more: &str) -> World {
    let rollups = rollup("daily", "orders", "capture");
    let clock = Arc::new(clock("2026-01-08T12:00:00Z"));
    let setup = Setup { rollups: &rollups, clock, keeper, ..Setup::default() };
    let world = World::new(&format!("{SHOP}; {more}"), setup).await;
    install_capture(&world.worker).await;
    assert_eq!(slices(&world).await, 3);
    world.sql("DELETE FROM tallymark.mark").await;
    world
}

/// A tick without a problem. Returns the number of slices.
async fn slices(world: &World) -> usize {
    let report = tick(world).await;
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    report.slices.len()
}

/// Moves the keys and marks. Returns the problems.
async fn notice(world: &World) -> Vec<String> {
    let worker = &world.worker;
    let problems = late::notice(worker, Deadline::after(&*worker.clock, BUDGET)).await;
    problems
        .into_iter()
        .map(|it| format!("{}; {}", it.error, it.hint.unwrap_or_default()))
        .collect()
}

/// A statement on the source, the keys that it marks, and the slices that run again.
const CHANGES: &[(&str, &str, usize)] = &[
    ("UPDATE accounts SET country = 'IT' WHERE id = 5", "5", 2),
    ("UPDATE accounts SET discount = 0.500 WHERE id = 6", "6", 2),
    ("UPDATE accounts SET discount = 0.5 WHERE id = 6", "6", 2),
    ("UPDATE accounts SET touched = 100 WHERE id = 6", "6", 2),
    ("UPDATE accounts SET country = country, created_at = now()", "", 0),
    ("UPDATE accounts SET id = 141 WHERE id = 8", "141,8", 2),
    ("UPDATE accounts SET id = 8 WHERE id = 141", "141,8", 2),
    ("DELETE FROM accounts WHERE id = 9", "9", 2),
    ("INSERT INTO accounts VALUES (9, 'DK', 0.1)", "9", 2),
    ("INSERT INTO accounts VALUES (200, 'DK', 0.1)", "200", 0),
    ("UPDATE prices SET cents = 1 WHERE code = 3", "3/t0,3/t1,3/t2", 2),
    ("UPDATE prices SET tenant = NULL WHERE code = 3 AND tenant = 't1'", "3/t1", 2),
    ("TRUNCATE prices", "all", 3),
    ("BEGIN; UPDATE accounts SET country = 'SE' WHERE id = 5; ROLLBACK", "", 0),
    (
        "UPDATE accounts SET country = 'SE' WHERE id = 5; UPDATE orders SET account_id = 77 WHERE account_id = 5",
        "5",
        2,
    ),
];

#[tokio::test]
async fn each_change_of_a_lookup_marks_its_keys_and_ends_exact() {
    for keeper in [Keeper::Target, Keeper::DynamoDb] {
        let world = shop(keeper, "").await;
        is_exact(&world, "daily").await;
        for (sql, keys, expected) in CHANGES {
            world.sql(sql).await;
            assert_eq!(world.target_value(KEYS).await, *keys, "{sql}");
            assert_eq!(slices(&world).await, *expected, "{sql}");
            assert_eq!(world.target_value(KEYS).await, "", "{sql}");
            is_exact(&world, "daily").await;
        }
    }
}

/// 240 days of orders. Account 7 has 10,000 of them, on 200 of the days.
const YEAR: &str = "CREATE TABLE accounts (id int PRIMARY KEY, country text, note text); \
    INSERT INTO accounts SELECT n, 'DE', '' FROM generate_series(1, 50) n; \
    CREATE TABLE orders (created_at timestamptz, account_id int); \
    INSERT INTO orders SELECT '2025-01-01Z'::timestamptz + day * interval '1 day' + n * interval '20 minutes', 7 \
        FROM generate_series(0, 239) day, generate_series(1, 50) n WHERE day % 6 < 5; \
    INSERT INTO orders SELECT '2025-01-01Z'::timestamptz + n * interval '6 hours', n % 6 + 10 \
        FROM generate_series(0, 959) n; \
    CREATE INDEX ON orders (created_at); CREATE INDEX ON orders (account_id); ANALYZE accounts, orders";

const COUNTRIES: &str = r#"
[[rollup]]
name = "daily"
from = "public.orders"
time = "created_at"
start = "2025-01-01"
slice = "1 day"
late = "capture"
lookup = [{ account = "public.accounts", on = "account.id = account_id" }]
group_by = [{ country = "account.country" }]
measures.orders = "count"
"#;

/// Other writers of the lookup neither wait for the one that is still open, nor for a worker that
/// has taken the keys.
#[tokio::test]
async fn a_changed_country_runs_the_days_of_its_orders_again_and_nothing_else() {
    let clock = Arc::new(clock("2025-08-29T00:10:00Z"));
    let keeper = Keeper::Target;
    let setup = Setup { rollups: COUNTRIES, clock, keeper, ..Setup::default() };
    let world = World::new(YEAR, setup).await;
    install_capture(&world.worker).await;
    assert_eq!(world.backfill("2025-08-29", false).await.succeeded, 240);
    assert_eq!(slices(&world).await, 0);

    let connect = async || PgConnection::connect(&world.urls.source).await.unwrap();
    let (mut open, mut worker) = (connect().await, connect().await);
    open.execute("BEGIN; UPDATE accounts SET country = 'FR' WHERE id = 8").await.unwrap();
    let change = "UPDATE accounts SET country = 'FR' WHERE id = 7";
    // A wait for the open writer would never end.
    world.sql(change).await;
    worker.execute("BEGIN; SELECT * FROM tallymark.lookup_mark FOR UPDATE").await.unwrap();
    world.sql("UPDATE accounts SET country = 'IT' WHERE id = 7").await;
    assert_eq!(world.target_value(KEYS).await, "7,7");
    worker.execute("ROLLBACK").await.unwrap();

    assert_eq!(notice(&world).await, [""; 0]);
    let stale = "SELECT count(*)::text FROM tallymark.checkpoint WHERE item->>'state' = 'stale'";
    assert_eq!(world.target_value(stale).await, "200");
    assert_eq!(slices(&world).await, 200);
    open.execute("COMMIT").await.unwrap();
    // Nobody ordered by that account.
    assert_eq!(slices(&world).await, 0);
    world
        .assert_rows(
            "SELECT date_trunc('day', created_at, 'UTC'), country, count(*) FROM orders \
             LEFT JOIN accounts ON id = account_id GROUP BY 1, 2",
        )
        .await;
}

#[tokio::test]
async fn an_unused_column_of_a_lookup_marks_nothing() {
    let more =
        "INSERT INTO accounts SELECT n, 'DE', 0, '', now() FROM generate_series(1000, 100999) n";
    let rollups =
        rollup("daily", "orders", "capture").replace("note IS DISTINCT FROM 'a3'", "id <> 3");
    let clock = Arc::new(clock("2026-01-08T12:00:00Z"));
    let setup = Setup { rollups: &rollups, clock, ..Setup::default() };
    let world = World::new(&format!("{SHOP}; {more}"), setup).await;
    install_capture(&world.worker).await;
    world.sql("UPDATE accounts SET note = 'other', created_at = now()").await;
    assert_eq!(world.target_value(KEYS).await, "");
}

/// A validated foreign key proves that no order precedes its account.
#[tokio::test]
async fn an_insert_marks_only_where_no_foreign_key_proves_that_it_is_new() {
    let keyed = "DELETE FROM orders WHERE account_id NOT IN (SELECT id FROM accounts); \
        ALTER TABLE orders ADD CONSTRAINT owned FOREIGN KEY (account_id) REFERENCES accounts (id)";
    let world = shop(Keeper::Target, keyed).await;
    world.sql("INSERT INTO accounts VALUES (300, 'DK', 0)").await;
    assert_eq!(world.target_value(KEYS).await, "");
    world.sql("ALTER TABLE orders DROP CONSTRAINT owned").await;
    let problems = notice(&world).await;
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert!(problem.contains("has no trigger") && problem.contains("capture install"), "{problem}");
    install_capture(&world.worker).await;
    assert_eq!(notice(&world).await, [""; 0]);
    world.sql("INSERT INTO accounts VALUES (301, 'DK', 0)").await;
    assert_eq!(world.target_value(KEYS).await, "301");
}

/// At each instant the key waits, or marks of its hours wait, or the slices are reopened.
#[tokio::test]
async fn a_kill_between_keys_and_reopenings_loses_nothing() {
    for keeper in [Keeper::Target, Keeper::DynamoDb] {
        let world = shop(keeper, "").await;
        for polls in sweep(1, || 3) {
            let sql = format!("UPDATE accounts SET country = 'c{polls}' WHERE id = 5");
            world.sql(&sql).await;
            let ended = killed(notice(&world), polls).await;
            if let Some(problems) = &ended {
                assert_eq!(*problems, [""; 0]);
                assert_eq!(world.target_value(KEYS).await, "");
            }
            assert_eq!(slices(&world).await, 2, "{polls} polls");
            is_exact(&world, "daily").await;
            if ended.is_some() {
                println!("ended within {polls} polls");
                break;
            }
        }
        assert_eq!(marks(&world).await, "");
    }
}

/// The keys wait for the index. Fresh slices and other late changes go on. The account has orders on two
/// of the days.
#[tokio::test]
async fn keys_without_an_index_stay_and_the_index_is_named() {
    let large = YEAR
        .replace("account_id int)", "account_id int, pad text DEFAULT repeat('x', 1600))")
        .replace("CREATE INDEX ON orders (account_id);", "");
    let rollups = COUNTRIES.replace("2025-01-01", "2025-08-26");
    let clock = Arc::new(clock("2025-08-29T00:10:00Z"));
    let setup = Setup { rollups: &rollups, clock, ..Setup::default() };
    let world = World::new(&large, setup).await;
    install_capture(&world.worker).await;
    assert_eq!(slices(&world).await, 3);
    world.sql("UPDATE accounts SET country = 'FR' WHERE id IN (7, 8)").await;
    world.sql("INSERT INTO orders VALUES ('2025-08-27Z', 9)").await;
    let report = tick(&world).await;
    let [problem] = &report.problems[..] else { panic!("{:?}", report.problems) };
    assert!(problem.error.contains("2 changed keys of lookups wait"), "{}", problem.error);
    let hint = problem.hint.as_deref().unwrap();
    assert!(
        hint.contains("INDEX CONCURRENTLY ON public.orders (account_id, created_at)"),
        "{hint}"
    );
    assert_eq!((report.slices.len(), world.target_value(KEYS).await.as_str()), (1, "7,8"));
    world.sql("CREATE INDEX ON orders (account_id, created_at)").await;
    assert_eq!(slices(&world).await, 2);
    assert_eq!(world.target_value(KEYS).await, "");
}

/// The application's writes never fail for the sake of the marks.
#[tokio::test]
async fn a_renamed_key_marks_all_keys_and_a_lost_table_of_marks_nothing() {
    let world = shop(Keeper::Target, "").await;
    world.sql("ALTER TABLE accounts RENAME id TO ident").await;
    world.sql("UPDATE accounts SET country = 'FR' WHERE ident = 5").await;
    assert_eq!(world.target_value(KEYS).await, "all");
    world.sql("ALTER TABLE accounts RENAME ident TO id").await;
    // A migration that changes a compared column removes the capture first.
    let altered = world.pool.execute("ALTER TABLE accounts ALTER country TYPE varchar").await;
    assert!(altered.unwrap_err().to_string().contains("used in a trigger definition"));
    assert_eq!(slices(&world).await, 3);
    is_exact(&world, "daily").await;
    world.sql("DROP TABLE tallymark.lookup_mark").await;
    world.sql("UPDATE accounts SET country = 'IT' WHERE id = 5").await;
    let problems = notice(&world).await;
    assert!(problems.iter().any(|it| it.contains("lookup_mark is gone")), "{problems:?}");
    install_capture(&world.worker).await;
    world.sql("UPDATE accounts SET country = 'ES' WHERE id = 5").await;
    assert_eq!(world.target_value(KEYS).await, "5");
}

/// Tables whose changes no trigger tells, or whose keys have no text of their own.
#[tokio::test]
async fn a_lookup_that_cannot_be_captured_is_refused_by_name() {
    for (ddl, of, words) in [
        ("CREATE UNLOGGED TABLE a (id int PRIMARY KEY, country text)", "a", "is unlogged"),
        (
            "CREATE TABLE a (id int PRIMARY KEY, country text) PARTITION BY HASH (id)",
            "a",
            "is partitioned",
        ),
        ("CREATE TABLE a (id date PRIMARY KEY, country text)", "a", "id is of type date"),
    ] {
        let column = if ddl.contains("date") { "date" } else { "int" };
        let sql = format!(
            "{ddl}; CREATE TABLE orders (created_at timestamptz, account_id {column}); \
             CREATE INDEX ON orders (created_at)"
        );
        let rollups = COUNTRIES.replace("public.accounts", &format!("public.{of}"));
        let clock = Arc::new(clock("2025-01-03T00:10:00Z"));
        let setup = Setup { rollups: &rollups, clock, ..Setup::default() };
        let world = World::new(&sql, setup).await;
        let problems = notice(&world).await;
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        // The triggers of the orders are missing too, and named first.
        assert!(problem.contains("has no capture triggers"), "{problem}");
        let place =
            crate::support::cli::Place::new(&world.urls.source, &world.urls.source, &rollups).await;
        place.run(&["capture", "install"]).refused(2, &[words]);
    }
}

/// `remove` takes the triggers of both tables, and `install` says what it makes.
#[tokio::test]
async fn install_status_and_remove_know_the_triggers_of_lookups() {
    let database = crate::support::Database::create().await;
    let url = database.url();
    let place = crate::support::cli::Place::new(&url, &url, COUNTRIES).await;
    place.sql(&YEAR.replace("239", "9")).await;
    let run = place.json(&["capture", "install"]);
    let made = run["statements"].as_array().unwrap().iter().filter_map(|it| it.as_str());
    let made: Vec<_> =
        made.filter(|it| it.starts_with("CREATE TRIGGER tallymark_lookup_")).collect();
    assert_eq!(made.len(), 4, "{made:?}");
    let update = made.iter().find(|it| it.contains("AFTER UPDATE")).unwrap();
    let when = "WHEN (pg_catalog.record_image_ne(ROW(OLD.\"country\", OLD.\"id\"), ROW(NEW.\"country\", NEW.\"id\")))";
    assert!(update.contains(when), "{update}");
    assert_eq!(place.json(&["capture", "install"])["statements"].as_array().unwrap().len(), 0);
    place.sql("UPDATE accounts SET country = 'FR' WHERE id < 4").await;
    let status = place.json(&["capture", "status"]);
    assert_eq!(
        (&status["tables"][0]["keys"], &status["tables"][0]["problem"]),
        (&3.into(), &serde_json::Value::Null)
    );
    let words = place.run(&["capture", "status"]).good().words();
    assert!(words.contains("3 changed keys of lookups waiting for the next tick"), "{words}");
    // Another column of the lookup: the triggers must compare it too.
    place.configure(
        &COUNTRIES.replace("\"account.country\" }", "\"account.country || account.note\" }"),
    );
    let status = place.run(&["capture", "status"]);
    assert!(status.code == Some(1) && status.out.contains("made for other columns"), "{status:?}");
    place.run(&["capture", "install"]).good();
    place.run(&["capture", "status"]).good();
    place.configure(COUNTRIES);
    place.run(&["capture", "status"]).good();
    place.run(&["capture", "remove"]).good();
    let left = "SELECT (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal) + \
        (SELECT count(*) FROM pg_proc WHERE pronamespace = 'tallymark'::regnamespace) \
        + (SELECT count(*) FROM tallymark.lookup_mark)";
    let mut source = PgConnection::connect(&url).await.unwrap();
    let left: i64 = sqlx::query_scalar(AssertSqlSafe(left)).fetch_one(&mut source).await.unwrap();
    assert_eq!(left, 0);
}
