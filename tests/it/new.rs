//! `tallymark new` on databases as frameworks and hosts make them: the file passes `check`, and leads to
//! a verified rollup with nothing but an address.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tallymark::config::json_schema;
use tempfile::TempDir;

use crate::cli::is_documented;
use crate::support::Database;
use crate::support::cli::{Ended, ended, execute, lines, with_password};
use crate::support::pooler::pooled;
use crate::versions::server;

/// An empty directory and a database.
struct Start {
    directory: TempDir,
    url: String,
}

impl Start {
    async fn with(sql: &str) -> Self {
        Self::at(&Database::create().await.url(), sql).await
    }

    async fn at(url: &str, sql: &str) -> Self {
        let url = with_password(url);
        execute(&url, sql).await;
        Self { directory: TempDir::new().unwrap(), url }
    }

    /// The command with no environment but the address.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallymark"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env_clear()
            .env("DATABASE_URL", pooled(&self.url))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, arguments: &[&str]) -> Ended {
        ended(&mut self.command(arguments))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        self.run(&[arguments, &["--json"]].concat()).good().json()
    }

    fn proposed(&self) -> Value {
        let document = self.json(&["new", "--yes"]);
        is_documented(&document, "new", 0);
        self.fits_the_schema();
        document
    }

    fn fits_the_schema(&self) {
        const URL: &str = "file:///tallymark.schema.json";
        let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
        compiler.add_resource(URL, json_schema()).unwrap();
        let index = compiler.compile(URL, &mut schemas).unwrap();
        let file: Value = toml::from_str(&self.text()).unwrap();
        schemas.validate(&file, index).unwrap_or_else(|error| panic!("{error}\n{}", self.text()));
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("tallymark.toml")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// Follows the file through to a verified rollup. Then the command makes the same file again.
    async fn leads_to_a_verified_rollup(&self, document: &Value) {
        let name = document["rollup"].as_str().unwrap();
        let check = self.run(&["check"]).good();
        assert!(!check.out.contains("bad "), "{check:?}");
        self.run(&["init"]).good();
        self.run(&["backfill", name, "--yes"]).good();
        let verified = self.json(&["verify", name]);
        assert_eq!(verified["differences"], 0, "{verified}");
        self.run(&["check"]).good();
        // Every row of a slice that is over is counted.
        let count = document["measures"][0].as_str().unwrap();
        let counted = format!("SELECT coalesce(sum(\"{count}\"), 0)::bigint FROM stats.\"{name}\"");
        let slices = "SELECT coalesce(sum(rows_read), 0)::bigint FROM tallymark.slice";
        let counted = lines(&self.url, &counted).await;
        assert_eq!(counted, lines(&self.url, slices).await);
        // Readers get the same, wherever the types of the columns are.
        let series = format!(
            "SELECT coalesce(sum(\"{count}\"), 0)::bigint FROM stats.\"{name}_series\"\
             (now() - interval '90 days', now() + interval '1 day', '1 day')"
        );
        assert_eq!(lines(&self.url, &series).await, counted);
        let written = self.text();
        self.run(&["new", "--yes", "--force"]).good();
        assert_eq!(self.text(), written);
    }
}

/// `n` rows, of the last ten days, with `columns` of `n` in them.
fn rows(columns: &str, at: &str) -> String {
    format!(
        "SELECT {columns} FROM generate_series(1, 2000) AS n, \
         LATERAL (SELECT {at} AS at) AS t"
    )
}

const AT: &str = "now() - n * interval '7 minutes'";

#[tokio::test]
async fn a_prisma_schema_is_counted_by_its_camel_case() {
    let start = Start::with(&format!(
        r#"CREATE TYPE "OrderStatus" AS ENUM ('OPEN', 'PAID', 'SENT');
           CREATE TABLE "Order" (
               "id" text PRIMARY KEY,
               "createdAt" timestamp(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
               "updatedAt" timestamp(3) NOT NULL,
               "status" "OrderStatus" NOT NULL,
               "customerEmail" text NOT NULL,
               "totalCents" integer NOT NULL,
               "metadata" jsonb NOT NULL);
           CREATE INDEX "Order_createdAt_idx" ON "Order" ("createdAt");
           CREATE INDEX "Order_updatedAt_idx" ON "Order" ("updatedAt");
           CREATE TABLE "_prisma_migrations" (id text PRIMARY KEY, started_at timestamptz);
           CREATE INDEX ON "_prisma_migrations" (started_at);
           INSERT INTO "_prisma_migrations" SELECT n::text, now() FROM generate_series(1, 9000) n;
           INSERT INTO "Order" {}; ANALYZE"#,
        rows(
            "'o' || n, at, now(), (ARRAY['OPEN', 'PAID', 'SENT'])[1 + n % 3]::\"OrderStatus\", \
             'a@example.com', n % 90, '{}'",
            "now() AT TIME ZONE 'UTC' - n * interval '7 minutes'"
        )
    ))
    .await;
    let document = start.proposed();
    assert_eq!(document["table"], "public.Order");
    assert_eq!(document["time"], "createdAt");
    assert_eq!(document["group_by"], json!(["status"]));
    assert_eq!(document["measures"], json!(["orders", "total_cents"]));
    assert_eq!((&document["store"], &document["notes"]), (&json!("postgres"), &json!([])));
    assert!(start.text().starts_with("#:schema ./tallymark.schema.json\n"), "{}", start.text());
    let schema = fs::read_to_string(start.directory.path().join("tallymark.schema.json")).unwrap();
    assert_eq!(schema, start.run(&["schema"]).good().out);
    start.leads_to_a_verified_rollup(&document).await;
}

#[tokio::test]
async fn a_rails_schema_is_counted_by_created_at_without_a_zone() {
    let start = Start::with(&format!(
        "CREATE TABLE orders (id bigserial PRIMARY KEY, customer_id bigint NOT NULL, state varchar, \
             amount numeric(10, 2), created_at timestamp(6) NOT NULL, updated_at timestamp(6) NOT NULL); \
         CREATE INDEX index_orders_on_created_at ON orders (created_at); \
         CREATE TABLE schema_migrations (version varchar PRIMARY KEY); \
         CREATE TABLE ar_internal_metadata (key varchar PRIMARY KEY, created_at timestamp(6)); \
         INSERT INTO orders {}; ANALYZE",
        rows(
            "n, 1 + n % 3, (ARRAY['cart', 'paid'])[1 + n % 2], n % 17, at, now()",
            "now() AT TIME ZONE 'UTC' - n * interval '7 minutes'"
        )
    ))
    .await;
    let document = start.proposed();
    assert_eq!(
        (&document["table"], &document["time"]),
        (&json!("public.orders"), &json!("created_at"))
    );
    assert_eq!(document["group_by"], json!(["customer_id", "state"]));
    assert_eq!(document["measures"], json!(["orders", "amount"]));
    assert!(start.text().contains("without a zone, so in UTC"), "{}", start.text());
    start.leads_to_a_verified_rollup(&document).await;
}

#[tokio::test]
async fn a_partitioned_table_is_one_table() {
    let parts = |n: i32| {
        format!(
            "CREATE TABLE events_{n} PARTITION OF events FOR VALUES FROM \
             (date_trunc('day', now()) - interval '{} days') TO (date_trunc('day', now()) - interval '{} days');",
            n * 5,
            n * 5 - 5
        )
    };
    let parts: String = (0..4).map(parts).collect();
    let start = Start::with(&format!(
        "CREATE TABLE events (occurred_at timestamptz NOT NULL, kind text, amount numeric) \
             PARTITION BY RANGE (occurred_at); \
         {parts} CREATE INDEX ON events (occurred_at); \
         INSERT INTO events {}; \
         ANALYZE events_1; ANALYZE events_2",
        rows("at, (ARRAY['view', 'click'])[1 + n % 2], n % 5", AT)
    ))
    .await;
    let document = start.proposed();
    assert_eq!(
        (&document["table"], &document["time"]),
        (&json!("public.events"), &json!("occurred_at"))
    );
    assert_eq!(document["group_by"], json!(["kind"]));
    start.leads_to_a_verified_rollup(&document).await;
}

#[tokio::test]
async fn uuid_keys_group_and_documents_do_not() {
    let start = Start::with(&format!(
        "CREATE TABLE sites (id uuid PRIMARY KEY); \
         INSERT INTO sites SELECT md5(n::text)::uuid FROM generate_series(0, 3) n; \
         CREATE TABLE visits (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), \
             site_id uuid REFERENCES sites, props jsonb, tags text[], raw json, \
             duration_ms integer, visited_at timestamptz NOT NULL); \
         CREATE INDEX ON visits (visited_at); \
         INSERT INTO visits {}; ANALYZE",
        rows(
            "md5('v' || n)::uuid, md5((n % 4)::text)::uuid, '{\"a\": 1}', '{x}', '{}', n % 400, at",
            AT
        )
    ))
    .await;
    let document = start.proposed();
    assert_eq!(document["table"], "public.visits");
    assert_eq!(document["group_by"], json!(["site_id"]));
    assert_eq!(document["measures"], json!(["visits", "duration_ms"]));
    start.leads_to_a_verified_rollup(&document).await;
}

#[tokio::test]
async fn a_missing_index_is_told_with_its_statement() {
    let start = Start::with(&format!(
        "CREATE TABLE \"Order Items\" (\"created at\" timestamptz, kind text); \
         INSERT INTO \"Order Items\" {}; ANALYZE",
        rows("at, 'a'", AT)
    ))
    .await;
    let document = start.proposed();
    let statement = "CREATE INDEX CONCURRENTLY ON public.\"Order Items\" (\"created at\")";
    assert!(document["notes"][0].as_str().unwrap().contains(statement), "{document}");
    let next = document["next"][0].as_str().unwrap();
    assert_eq!(next, format!("psql \"$DATABASE_URL\" -c '{statement}'"));
    start.leads_to_a_verified_rollup(&document).await;
    execute(&start.url, statement).await;
    let document = start.json(&["new", "--yes", "--force"]);
    assert_eq!(document["notes"], json!([]));
    assert_eq!(document["next"][0], "tallymark check");
}

#[tokio::test]
async fn a_large_table_without_an_index_begins_by_its_statistics() {
    let start = Start::with(
        "CREATE TABLE events (created_at timestamptz, kind text, line text); \
         INSERT INTO events SELECT now() - n * interval '5 minutes', 'k' || n % 3, repeat('x', 150) \
         FROM generate_series(1, 120000) n; ANALYZE",
    )
    .await;
    let document = start.proposed();
    let begins = document["start"].as_str().unwrap();
    let is_near = format!(
        "SELECT '{begins}' BETWEEN min(created_at) - interval '90 days' AND min(created_at) FROM events"
    );
    assert_eq!(lines(&start.url, &is_near).await, ["(t)"], "{document}");
    assert!(document["notes"][0].as_str().unwrap().contains("slices are refused"), "{document}");
    start.run(&["check"]).refused(2, &["1 finding to put right"]);
    execute(&start.url, "CREATE INDEX CONCURRENTLY ON public.events (created_at)").await;
    start.run(&["check"]).good();
}

#[tokio::test]
async fn a_better_table_that_fails_its_check_is_passed_over_with_a_warning() {
    let start = Start::with(&format!(
        "CREATE TABLE events (created_at timestamptz, kind text, line text); \
         INSERT INTO events SELECT now() - n * interval '5 minutes', 'k' || n % 3, repeat('x', 150) \
         FROM generate_series(1, 120000) n; \
         CREATE TABLE turns (created_at bigint, kind text); CREATE INDEX ON turns (created_at); \
         INSERT INTO turns SELECT n, 'a' FROM generate_series(1, 90000) n; \
         CREATE TABLE subscriptions (expires_at timestamptz, plan text); \
         CREATE INDEX ON subscriptions (expires_at); \
         INSERT INTO subscriptions {}; ANALYZE",
        rows("at, 'p' || n % 3", AT)
    ))
    .await;
    let document = start.proposed();
    assert_eq!(document["table"], "public.subscriptions");
    let passed = document["passed_over"].as_array().unwrap();
    let of = |name: &str| passed.iter().find(|it| it["table"] == name).unwrap();
    let (events, turns) = (of("public.events"), of("public.turns"));
    assert!(events["error"].as_str().unwrap().starts_with("plan guard: "), "{document}");
    assert!(events["hint"].as_str().unwrap().contains("CREATE INDEX CONCURRENTLY"), "{document}");
    assert!(turns["error"].as_str().unwrap().contains("neither seconds nor"), "{document}");
    assert_eq!((passed.len(), &document["notes"]), (2, &json!([])));
    let text = start.run(&["new", "--yes", "--force"]).good().out;
    for name in ["events", "turns"] {
        assert!(text.contains(&format!("warning: public.{name} was passed over: ")), "{text}");
    }
    start.leads_to_a_verified_rollup(&document).await;
}

/// Some applications have a table for each customer. Asking for each column's statistics by itself ran
/// into the time limit.
#[tokio::test]
async fn among_thousands_of_tables_the_partitioned_one_is_found() {
    let start = Start::with(
        "CREATE TABLE events (at timestamptz, kind text) PARTITION BY RANGE (at); \
         CREATE TABLE events_all PARTITION OF events DEFAULT; CREATE INDEX ON events (at); \
         INSERT INTO events SELECT now() - n * interval '1 hour', 'k' || n % 3 \
         FROM generate_series(1, 100) n",
    )
    .await;
    // In several transactions, as each table takes a lock.
    for many in (0..2500).step_by(250) {
        let make = "EXECUTE format('CREATE TABLE customer_%s (name text, plan text, seats int)', n); \
                    EXECUTE format('INSERT INTO customer_%s VALUES (1, 2, 3)', n)";
        let until = many + 249;
        execute(
            &start.url,
            &format!("DO $$ BEGIN FOR n IN {many}..{until} LOOP {make}; END LOOP; END $$"),
        )
        .await;
    }
    execute(&start.url, "ANALYZE").await;
    assert_eq!(start.proposed()["table"], "public.events");
}

#[tokio::test]
async fn a_view_is_counted_if_it_is_named() {
    let start = Start::with(&format!(
        "CREATE TABLE events (id bigserial PRIMARY KEY, created_at timestamptz, kind text); \
         CREATE INDEX ON events (created_at); INSERT INTO events {}; ANALYZE; \
         CREATE VIEW clicks AS SELECT created_at, kind FROM events WHERE id % 2 = 0",
        rows("n, at, 'k' || n % 3", AT)
    ))
    .await;
    assert_eq!(start.proposed()["table"], "public.events");
    let document = start.json(&["new", "--yes", "--force", "--table", "clicks"]);
    assert_eq!((&document["rollup"], &document["notes"]), (&json!("clicks_daily"), &json!([])));
    let begins = document["start"].as_str().unwrap();
    let is_first =
        format!("SELECT min(created_at AT TIME ZONE 'UTC')::date = '{begins}' FROM clicks");
    assert_eq!(lines(&start.url, &is_first).await, ["(t)"], "{document}");
    start.run(&["init"]).good();
    start.run(&["backfill", "clicks_daily", "--yes"]).good();
    start.run(&["verify"]).good();
}

#[tokio::test]
async fn an_indexed_table_is_preferred_and_one_without_a_time_is_refused() {
    let start = Start::with("CREATE TABLE settings (key text PRIMARY KEY, value text)").await;
    let refused = start.run(&["new", "--yes"]);
    refused.refused(2, &["none of 1 table has a time column"]);
    assert!(refused.err.contains("hint: ") && !start.file().exists(), "{refused:?}");
    execute(
        &start.url,
        "CREATE TABLE logs (at timestamptz, line text); \
         INSERT INTO logs SELECT now(), repeat('x', 100) FROM generate_series(1, 20000); \
         CREATE TABLE clicks (at timestamptz); CREATE INDEX ON clicks (at); \
         INSERT INTO clicks SELECT now() - n * interval '1 hour' FROM generate_series(1, 100) n; ANALYZE",
    )
    .await;
    let named = start.run(&["new", "--yes", "--table", "settings"]);
    named.refused(2, &["public.settings has no time column"]);
    let unknown = start.run(&["new", "--yes", "--table", "public.click"]);
    unknown.refused(2, &["no table or view \"public.click\""]);
    assert!(unknown.err.contains("did you mean public.clicks?"), "{unknown:?}");
    let document = start.proposed();
    assert_eq!(document["table"], "public.clicks");
    assert_eq!(document["group_by"], json!([]));
    start.leads_to_a_verified_rollup(&document).await;
    let document = start.json(&["new", "--yes", "--force", "--table", "logs", "--slice", "1 hour"]);
    assert_eq!((&document["table"], &document["slice"]), (&json!("public.logs"), &json!("1 hour")));
}

#[tokio::test]
async fn an_empty_table_and_one_without_statistics_are_told() {
    let start = Start::with(
        "CREATE TABLE events (id bigserial PRIMARY KEY, created_at timestamptz, kind text, user_id bigint); \
         ALTER TABLE events SET (autovacuum_enabled = false); CREATE INDEX ON events (created_at)",
    )
    .await;
    let document = start.proposed();
    assert!(document["notes"][0].as_str().unwrap().contains("has no rows yet"), "{document}");
    assert_eq!(document["group_by"], json!(["kind"]));
    start.leads_to_a_verified_rollup(&document).await;
    execute(
        &start.url,
        "INSERT INTO events (created_at, kind) \
         SELECT now() - n * interval '1 hour', 'a' FROM generate_series(1, 99) n",
    )
    .await;
    let start = Start { directory: TempDir::new().unwrap(), ..start };
    execute(&start.url, "DROP SCHEMA stats, tallymark CASCADE").await;
    let document = start.proposed();
    assert!(
        document["notes"][0].as_str().unwrap().contains("ANALYZE \"public\".\"events\""),
        "{document}"
    );
    start.leads_to_a_verified_rollup(&document).await;
}

/// Also those that Tallymark itself has made, which every other test looks at.
#[tokio::test]
async fn schemas_of_hosts_are_left_out_and_those_of_the_application_are_found() {
    let big = "SELECT now() - n * interval '1 minute' FROM generate_series(1, 9000) n";
    let start = Start::with(&format!(
        "CREATE SCHEMA auth; CREATE SCHEMA storage; CREATE SCHEMA realtime; CREATE SCHEMA shop; \
         CREATE TABLE auth.audit_log_entries (created_at timestamptz); \
         CREATE INDEX ON auth.audit_log_entries (created_at); \
         INSERT INTO auth.audit_log_entries {big}; \
         CREATE TABLE storage.objects (created_at timestamptz); CREATE INDEX ON storage.objects (created_at); \
         INSERT INTO storage.objects {big}; \
         CREATE TABLE realtime.messages (inserted_at timestamptz); INSERT INTO realtime.messages {big}; \
         CREATE TABLE users (created_at timestamptz); CREATE INDEX ON users (created_at); \
         INSERT INTO users SELECT now() FROM generate_series(1, 10); \
         CREATE TABLE shop.orders (inserted_at timestamptz, total numeric); \
         CREATE INDEX ON shop.orders (inserted_at); \
         INSERT INTO shop.orders {}; ANALYZE",
        rows("at, n", AT)
    ))
    .await;
    let document = start.proposed();
    assert_eq!(
        (&document["table"], &document["rollup"]),
        (&json!("shop.orders"), &json!("orders_daily"))
    );
    start.leads_to_a_verified_rollup(&document).await;
    let document = start.json(&["new", "--yes", "--force", "--table", "auth.audit_log_entries"]);
    assert_eq!(document["table"], "auth.audit_log_entries");
}

#[tokio::test]
async fn a_role_is_offered_what_it_may_read() {
    let role = format!("new_{:08x}", fastrand::u32(..));
    let database = Database::create().await;
    let setup = format!(
        "CREATE ROLE {role} LOGIN; \
         CREATE TABLE secrets (created_at timestamptz, kind text); CREATE INDEX ON secrets (created_at); \
         INSERT INTO secrets {0}; INSERT INTO secrets {0}; \
         CREATE TABLE events (created_at timestamptz, kind text, amount numeric, status text); \
         CREATE INDEX ON events (created_at); \
         INSERT INTO events {1}; ANALYZE; \
         GRANT SELECT (created_at, kind) ON events TO {role}",
        rows("at, 'a'", AT),
        rows("at, (ARRAY['a', 'b'])[1 + n % 2], n, 'x'", AT)
    );
    let mut start = Start::at(&database.url(), &setup).await;
    let admin = std::mem::replace(&mut start.url, with_password(&database.url_of(&role)));
    let document = start.proposed();
    assert_eq!(document["table"], "public.events");
    assert_eq!(document["group_by"], json!(["kind"]));
    assert_eq!(document["measures"], json!(["events"]));
    let notes = document["notes"].to_string();
    assert!(notes.contains("init --dry-run") && notes.contains("may not read 1 table"), "{notes}");
    execute(&admin, &format!("DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {role}', current_database()); END $$")).await;
    let refused = start.run(&["new", "--yes", "--force", "--table", "secrets"]);
    refused.refused(2, &["this role may not read public.secrets"]);
    assert!(refused.err.contains("GRANT SELECT ON \"public\".\"secrets\""), "{refused:?}");
    let again = start.json(&["new", "--yes", "--force"]);
    start.leads_to_a_verified_rollup(&again).await;
    execute(&admin, "ALTER TABLE events ENABLE ROW LEVEL SECURITY").await;
    let refused = start.run(&["new", "--yes", "--force"]);
    refused.refused(2, &["row-level security on public.events"]);
    execute(&admin, &format!("DROP OWNED BY {role} CASCADE; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn names_with_spaces_umlauts_and_keywords_stay_as_they_are() {
    let start = Start::with(&format!(
        "CREATE SCHEMA \"Mein Laden\"; \
         CREATE TABLE \"Mein Laden\".\"Bestell.Größen\" (\"angelegt am\" timestamptz, \"select\" text, \
             \"Art \"\"x\"\"\" text, \"order\" text, \"Menge in kg\" numeric, \"bucket\" text); \
         CREATE INDEX ON \"Mein Laden\".\"Bestell.Größen\" (\"angelegt am\"); \
         INSERT INTO \"Mein Laden\".\"Bestell.Größen\" {}; ANALYZE",
        rows("at, 's' || n % 3, 'a' || n % 5, 'o' || n, n % 7, 'b'", AT)
    ))
    .await;
    let document = start.proposed();
    assert_eq!(document["table"], "Mein Laden.\"Bestell.Größen\"");
    assert_eq!(document["rollup"], "bestell_gren_daily");
    assert_eq!(document["group_by"], json!(["select", "Art \"x\""]));
    assert_eq!(document["measures"], json!(["bestell_gren", "menge_in_kg"]));
    start.leads_to_a_verified_rollup(&document).await;
}

#[tokio::test]
async fn dates_and_milliseconds_are_times_too() {
    let start = Start::with(&format!(
        "CREATE TABLE requests (id bigserial PRIMARY KEY, at_ms bigint NOT NULL, method text, size integer); \
         CREATE INDEX ON requests (at_ms); \
         INSERT INTO requests {}; ANALYZE",
        rows(
            "n, (extract(epoch FROM at) * 1000)::bigint, (ARRAY['GET', 'PUT'])[1 + n % 2], n",
            AT
        )
    ))
    .await;
    let document = start.proposed();
    assert!(
        start.text().contains("{ column = \"at_ms\", unit = \"milliseconds\" }"),
        "{}",
        start.text()
    );
    start.leads_to_a_verified_rollup(&document).await;

    let start = Start::with(&format!(
        "CREATE TABLE bookings (day date NOT NULL, channel text); CREATE INDEX ON bookings (day); \
         INSERT INTO bookings {}; ANALYZE",
        rows("at::date, 'c' || n % 3", AT)
    ))
    .await;
    let document = start.proposed();
    assert_eq!((&document["time"], &document["slice"]), (&json!("day"), &json!("1 day")));
    start.leads_to_a_verified_rollup(&document).await;
}

#[tokio::test]
async fn a_file_is_not_replaced_and_without_a_terminal_nothing_is_asked() {
    let start =
        Start::with("CREATE TABLE events (at timestamptz); CREATE INDEX ON events (at)").await;
    let asked = start.run(&["new"]);
    asked.refused(2, &["there is no terminal"]);
    assert!(asked.err.contains("hint: pass --yes"), "{asked:?}");
    fs::write(start.file(), "# mine\n").unwrap();
    let kept = start.run(&["new", "--yes"]);
    kept.refused(2, &["tallymark.toml exists already"]);
    assert!(kept.err.contains("--force"), "{kept:?}");
    assert_eq!(start.text(), "# mine\n");
    let other = start.json(&["new", "--yes", "other file.toml", "--store", "dynamodb"]);
    assert_eq!(other["next"][0], "tallymark --config 'other file.toml' check");
    assert_eq!(other["store"], "dynamodb");
    let unset = start.run(&["new", "--yes", "third.toml", "--source-env", "APP_DB"]);
    unset.refused(2, &["the environment variable APP_DB is not set or empty"]);
    let mut wrong = start.command(&["new", "--yes", "third.toml"]);
    ended(wrong.env("DATABASE_URL", "mysql://app:pl4nted-s3cret@db/x"))
        .refused(2, &["in the environment variable DATABASE_URL, the address begins with neither"]);
    let text = start.run(&["new", "--yes", "--force"]).good().out;
    assert!(text.ends_with("\n  tallymark run\n"), "{text}");
    assert!(
        text.contains("\nnext:\n  tallymark check\n  tallymark init\n  tallymark backfill"),
        "{text}"
    );
}

async fn works_on(major: u16) {
    let (_server, urls) = server(major, "new").await;
    let start = Start::at(
        &urls.source,
        &format!(
            "CREATE TABLE events (id bigserial PRIMARY KEY, occurred_at timestamptz, kind text, amount float8); \
             CREATE INDEX ON events USING brin (occurred_at); CREATE INDEX ON events (occurred_at); \
             ALTER TABLE events SET (autovacuum_enabled = false); \
             INSERT INTO events {}",
            rows("n, at, 'k' || n % 3, n / 7.0", AT)
        ),
    )
    .await;
    let document = start.proposed();
    assert_eq!(
        (&document["time"], &document["group_by"]),
        (&json!("occurred_at"), &json!(["kind"]))
    );
    start.leads_to_a_verified_rollup(&document).await;
}

#[tokio::test]
async fn a_file_is_made_on_postgresql_13() {
    works_on(13).await;
}

#[tokio::test]
async fn a_file_is_made_on_postgresql_18() {
    works_on(18).await;
}

/// `script` gives the command a terminal.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn at_a_terminal_three_questions_lead_to_the_file() {
    use std::io::Write as _;
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: this machine has no `script`");
        return;
    }
    let start = Start::with(
        "CREATE TABLE events (at timestamptz, kind text); CREATE INDEX ON events (at); \
         CREATE TABLE orders (created_at timestamptz); \
         INSERT INTO events SELECT now(), 'a' FROM generate_series(1, 9000)",
    )
    .await;
    let answered = |answers: &str, file: &str| {
        let line = format!("'{}' new {file}", env!("CARGO_BIN_EXE_tallymark"));
        let mut command = Command::new("script");
        command
            .args(["-qec", &line, "/dev/null"])
            .current_dir(start.directory.path())
            .env("DATABASE_URL", pooled(&start.url))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(answers.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, said) = answered("\n\n\n", "a.toml");
    assert_eq!(code, Some(0), "{said}");
    for question in ["Which table is counted? [1]", "How wide is a slice? [1 day]", "[postgres]"] {
        assert!(said.contains(question), "{said}");
    }
    let read = |file: &str| fs::read_to_string(start.directory.path().join(file)).unwrap();
    assert!(read("a.toml").contains("from = \"public.events\"\n"), "{}", read("a.toml"));
    let (code, said) = answered("7\norders\n1 weekday\n1 week\ndynamodb\n", "b.toml");
    assert_eq!(code, Some(0), "{said}");
    let text = read("b.toml");
    for line in ["from = \"public.orders\"\n", "slice = \"1 week\" ", "store = \"dynamodb\" "] {
        assert!(text.contains(line), "{text}");
    }
    let (code, said) = answered("x\ny\nz\n", "c.toml");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("nothing was done"), "{said}");
}
