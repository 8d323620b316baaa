//! Columns of other tables beside each row, beside the same join in plain SQL.

use std::sync::Arc;

use sqlx::AssertSqlSafe;
use tallymark::clients::db::Access;
use tallymark::model::hint::Hinted as _;
use tallymark::source::reading::plan_guard::inspect;
use tallymark::work::ready;

use crate::capture::tick;
use crate::support::Database;
use crate::support::world::{BUDGET, Setup, Urls, World, clock, config, records};

mod captured;

/// Orders of accounts, and prices by tenant and code. Both tables have columns of the names that
/// the orders have. Some orders have no account, or one that does not exist.
const SHOP: &str = "CREATE TABLE accounts (id int PRIMARY KEY, country text, discount numeric, note text, \
        created_at timestamptz DEFAULT now(), touched int); \
    CREATE TABLE prices (tenant text, code int, cents bigint, UNIQUE (code, tenant)); \
    CREATE TABLE orders (id bigint PRIMARY KEY, created_at timestamptz, account_id bigint, tenant text, \
        code smallint, quantity int, note text); \
    CREATE INDEX ON orders (created_at); CREATE INDEX ON orders (account_id); \
    INSERT INTO accounts SELECT n, (ARRAY['DE', 'FR', NULL])[n % 3 + 1], n / 100.0, 'a' || n \
        FROM generate_series(1, 40) n; \
    UPDATE accounts SET touched = id * 37 % 41; \
    INSERT INTO prices SELECT 't' || n % 3, n / 3, n * 5 FROM generate_series(0, 29) n; \
    INSERT INTO orders SELECT n, '2026-01-05Z'::timestamptz + n * interval '97 seconds', \
        nullif(n % 45, 7), 't' || n % 3, n % 11, n % 5, 'o' || n % 2 FROM generate_series(1, 1700) n; \
    ANALYZE accounts, prices, orders; \
    CREATE FUNCTION much() RETURNS SETOF boolean LANGUAGE plpgsql VOLATILE ROWS 1000000 \
        AS 'BEGIN RETURN NEXT true; END'; \
    CREATE VIEW vast AS SELECT o.* FROM orders o CROSS JOIN LATERAL much()";

/// The rollup `name` of one day's slices.
pub fn rollup(name: &str, from: &str, late: &str) -> String {
    let own = r#"
[[rollup]]
name = "{name}"
from = "public.{from}"
time = "created_at"
start = "2026-01-05"
slice = "1 day"
late = "{late}"
shrink_guard = 0.0
where = "account.note IS DISTINCT FROM 'a3' AND note = 'o1' -- of the order"
lookup = [
    { account = "public.accounts", on = "account.id = account_id" },
    { price = "public.prices", on = "price.tenant = {from}.tenant AND code = price.code" },
]
group_by = ["note", { country = "account.country" }]
[rollup.measures]
orders = "count"
gross = { sum = { sql = "Price.cents * quantity * (1 - coalesce(account.discount, 0))" } }
cheap = { count = true, where = "price.cents < 50" }
accounts = { distinct = { sql = "account.id" } }
countries = { distinct = { sql = "account.country" } }
newest = { last = "quantity", by = { sql = "account.touched" } }
"#;
    own.replace("{name}", name).replace("{from}", from).replace("{late}", late)
}

const COARSE: &str = r#"
[[rollup]]
name = "weekly"
from = { rollup = "daily" }
slice = "1 week"
group_by = ["country"]
measures = { orders = { sum = "orders" }, gross = { sum = "gross" } }
"#;

/// `table` equals one `GROUP BY` over the join.
pub async fn is_exact(world: &World, table: &str) {
    const WANTED: &str = "SELECT date_trunc('day', o.created_at, 'UTC'), o.note, a.country, count(*), \
        sum(p.cents * quantity * (1 - coalesce(a.discount, 0))), count(*) FILTER (WHERE p.cents < 50), \
        count(DISTINCT a.id), count(DISTINCT a.country), \
        (array_agg(quantity ORDER BY a.touched DESC, quantity DESC) \
            FILTER (WHERE a.touched IS NOT NULL))[1], max(a.touched) \
        FROM orders o LEFT JOIN accounts a ON a.id = o.account_id \
        LEFT JOIN prices p ON p.tenant = o.tenant AND p.code = o.code \
        WHERE a.note IS DISTINCT FROM 'a3' AND o.note = 'o1' GROUP BY 1, 2, 3";
    let found = format!(
        "SELECT bucket, note, country, orders, gross, cheap, accounts, countries, newest, \
         newest_by FROM stats.{table}"
    );
    let found = records(&world.target, &found).await;
    assert_eq!(found, records(&world.pool, WANTED).await, "{table}");
}

#[tokio::test]
async fn lookups_are_grouped_and_measured_as_postgresql_joins() {
    let rollups = rollup("daily", "orders", "grace") + COARSE + &rollup("vast", "vast", "grace");
    for across in [false, true] {
        let clock = Arc::new(clock("2026-01-13T00:00:00Z"));
        let setup = Setup { rollups: &rollups, across, clock, ..Setup::default() };
        let world = World::new(SHOP, setup).await;
        for rollup in world.worker.config.rollups.iter().filter(|it| it.finer.is_none()) {
            assert_eq!(world.backfill_one(rollup, "2026-01-07", false).await.succeeded, 2);
            let checkpoint = world.worker.checkpoints.get(&rollup.name, rollup.start).await;
            let chunks = checkpoint.unwrap().unwrap().outcome.unwrap().chunks;
            assert_eq!(chunks > 1, rollup.name == "vast", "{chunks}");
            is_exact(&world, &rollup.name).await;
            let again = world.backfill_one(rollup, "2026-01-07", true).await;
            assert_eq!((again.updated, again.deleted), (0, 0), "{}", rollup.name);
            world.assert_one_verified(rollup, "2026-01-07").await;
        }
        tick(&world).await;
        let sums = "SELECT country, sum(orders), sum(gross) FROM stats.daily GROUP BY 1";
        let weekly = "SELECT country, orders, gross FROM stats.weekly";
        assert_eq!(records(&world.target, weekly).await, records(&world.target, sums).await);
    }
}

/// The lookup's table, its equation, words of the refusal and of the hint.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    ("nosuch", "a.id = account_id", "there is no table `public.nosuch`", ""),
    ("accountz", "a.id = account_id", "there is no table", "`public.accounts`"),
    ("accounts", "a.ident = account_id", "`public.accounts` has no column `ident`", "`id`?"),
    ("accounts", "a.id = acount_id", "`public.orders` has no column `acount_id`", "`account_id`?"),
    ("accounts", "a.country = tenant", "its unique keys are (id)", "equate all columns"),
    ("pairs", "a.code = code", "its unique keys are (code, tenant)", "equate all columns"),
    ("seen", "a.id = account_id", "`public.seen` is no table", "name the table"),
    ("halves", "a.id = account_id", "its unique keys are none", "neither partial nor deferrable"),
    ("later", "a.id = account_id", "its unique keys are none", "neither partial nor deferrable"),
    ("lowered", "a.id = tenant", "its unique keys are none", "equate all columns"),
    ("parent", "a.id = account_id", "has child tables", "without children"),
    ("numbers", "a.id = weight", "id is of type numeric, and weight of type double", "one type"),
    ("loose", "a.id = tenant", "a nondeterministic collation", "a deterministic one"),
    ("secret", "a.id = account_id", "row-level security on \"public\".\"secret\"", "BYPASSRLS"),
    ("hidden", "a.id = account_id", "may not read \"public\".\"hidden\"", "GRANT SELECT"),
];

#[tokio::test]
async fn a_lookup_that_may_find_several_rows_is_refused_by_name() {
    let more = "ALTER TABLE orders ADD weight float8; CREATE VIEW seen AS SELECT * FROM accounts; \
        CREATE TABLE halves (id int, country text); CREATE UNIQUE INDEX ON halves (id) WHERE id > 5; \
        CREATE TABLE later (id int UNIQUE DEFERRABLE, country text); \
        CREATE TABLE lowered (id text, country text); CREATE UNIQUE INDEX ON lowered (lower(id)); \
        CREATE TABLE parent (id int PRIMARY KEY, country text); CREATE TABLE child () INHERITS (parent); \
        CREATE TABLE pairs (tenant text, code int, country text, UNIQUE (code, tenant)); \
        CREATE TABLE numbers (id numeric PRIMARY KEY, country text); \
        CREATE COLLATION any_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
        CREATE TABLE loose (id text COLLATE any_case PRIMARY KEY, country text); \
        CREATE TABLE secret (id int PRIMARY KEY, country text); \
        ALTER TABLE secret ENABLE ROW LEVEL SECURITY; \
        CREATE TABLE hidden (id int PRIMARY KEY, country text)";
    let rollup = |n: usize, of: &str, on: &str| {
        format!(
            "[[rollup]]\nname = \"r{n}\"\nfrom = \"public.orders\"\ntime = \"created_at\"\n\
             start = \"2026-01-05\"\nslice = \"1 day\"\ngroup_by = [{{ c = \"a.country\" }}]\n\
             lookup = [{{ a = \"public.{of}\", on = \"{on}\" }}]\nmeasures.n = \"count\"\n"
        )
    };
    let rollups = REFUSED.iter().enumerate().map(|(n, it)| rollup(n, it.0, it.1));
    let rollups: String = rollups.collect();
    let (role, database) = (format!("reader_{:x}", fastrand::u64(..)), Database::create().await);
    let granted = format!(
        "{SHOP}; {more}; CREATE ROLE {role} LOGIN; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; \
         REVOKE SELECT ON hidden FROM {role}"
    );
    sqlx::raw_sql(AssertSqlSafe(granted)).execute(&database.pool().await).await.unwrap();
    let urls = Urls { source: database.url_of(&role), target: None };
    let world = World::at(urls, Setup { rollups: &rollups, ..Setup::default() }).await;
    for (rollup, (of, on, facts, hint)) in world.worker.config.rollups.iter().zip(REFUSED) {
        let refusal = ready::shape(&world.worker, rollup).await.unwrap_err();
        let (text, said) = (refusal.to_string(), refusal.hint().unwrap_or_default().into_owned());
        assert!(text.contains(facts), "{of} {on}: {text}");
        assert!(said.contains(hint), "{of} {on}: {said}");
    }
}

/// The types, the table and the definition belong to what was counted; other columns do not.
#[tokio::test]
async fn a_changed_type_of_a_lookup_makes_every_slice_run_again() {
    for (ddl, is_again) in [
        ("ALTER TABLE accounts ALTER discount TYPE numeric(8, 1)", true),
        ("ALTER TABLE accounts RENAME country TO old; ALTER TABLE accounts ADD country text", true),
        (
            "ALTER TABLE accounts ADD more int; ALTER TABLE accounts ALTER created_at TYPE date",
            false,
        ),
    ] {
        let rollups = rollup("daily", "orders", "grace");
        let clock = Arc::new(clock("2026-01-08T12:00:00Z"));
        let setup = Setup { rollups: &rollups, clock, ..Setup::default() };
        let world = World::new(SHOP, setup).await;
        assert_eq!(tick(&world).await.slices.len(), 3);
        world.sql(ddl).await;
        let later = world.redefined(&rollups);
        // A changed shape is looked for when there is something to do.
        later.reopen("2026-01-05").await;
        let done = tick(&later).await.slices.len() + tick(&later).await.slices.len();
        assert_eq!(done, if is_again { 3 } else { 1 }, "{ddl}");
        let days = "SELECT count(DISTINCT bucket) FROM stats.daily";
        assert_eq!(later.target_value(days).await, "2");
    }
}

#[test]
fn a_lookup_is_part_of_the_definition_where_there_is_one() {
    let definition = |text: &str| {
        let urls = Urls { source: "postgres://a@b/c".into(), target: None };
        config(&urls, "", text).rollups[0].definition()
    };
    let own = rollup("daily", "orders", "grace");
    let other = own.replace("public.accounts", "public.clients");
    assert_ne!(definition(&own), definition(&other));
    // The condition reads it, so it decides which rows are counted.
    assert_ne!(definition(&own)[..8], definition(&other)[..8]);
    let price = own.replace("public.prices", "public.tariffs");
    assert_ne!(definition(&own), definition(&price));
    assert_eq!(definition(&own)[..8], definition(&price)[..8]);
}

/// Accounts of a country find their orders of all times by an index; that is no slice's read.
#[tokio::test]
async fn the_plan_guard_sees_through_a_lookup() {
    let orders = "CREATE TABLE accounts (id int PRIMARY KEY, country text, pad text); \
        INSERT INTO accounts SELECT n, CASE n WHEN 7 THEN 'LI' ELSE 'DE' END, repeat('x', 400) \
            FROM generate_series(0, 49999) n; CREATE INDEX ON accounts (country); \
        CREATE TABLE orders (created_at timestamptz, account_id int, pad text); \
        INSERT INTO orders SELECT '2026-01-01Z'::timestamptz + n * interval '864 seconds', n % 25, \
            repeat('x', 400) FROM generate_series(0, 49999) n; \
        CREATE INDEX ON orders (account_id); ANALYZE accounts, orders";
    let rollup = |name: &str, condition: &str| {
        format!(
            "[[rollup]]\nname = \"{name}\"\nfrom = \"public.orders\"\ntime = \"created_at\"\n\
             start = \"2026-01-01\"\nslice = \"1 day\"\nwhere = \"{condition}\"\n\
             lookup = [{{ a = \"public.accounts\", on = \"a.id = account_id\" }}]\n\
             group_by = [{{ country = \"a.country\" }}]\nmeasures.n = \"count\"\n"
        )
    };
    let rollups = rollup("one", "a.country = 'LI'") + &rollup("all_of_them", "true");
    let world = World::bare(orders, Setup { rollups: &rollups, ..Setup::default() }).await;
    let read = async |name: &str| {
        let rollup = world.worker.config.rollup(name).unwrap();
        let shape = ready::shape(&world.worker, rollup).await.unwrap();
        let slice = rollup.calendar.containing(rollup.start);
        let mut tx = world.worker.source.begin(Access::ReadOnly, BUDGET, "guard").await.unwrap();
        let parallel = "SET LOCAL max_parallel_workers_per_gather = 0".to_owned();
        tx.execute("planning alone", parallel).await.unwrap();
        let read = inspect(&mut tx, rollup, &shape, slice.start(), slice.end()).await.unwrap();
        tx.rollback().await.unwrap();
        read.refusal.map(|it| it.in_one_line())
    };
    for name in ["one", "all_of_them"] {
        let refusal = read(name).await.unwrap();
        assert!(refusal.contains("ON public.orders (created_at)"), "{name}: {refusal}");
    }
    sqlx::raw_sql(AssertSqlSafe("CREATE INDEX ON orders (created_at); ANALYZE orders"))
        .execute(&world.pool)
        .await
        .unwrap();
    for name in ["one", "all_of_them"] {
        assert_eq!(read(name).await, None, "{name}");
    }
}
