//! Nothing but the program, an empty directory and a PostgreSQL: no account of AWS, no other server, no
//! environment but the database's address.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::Database;
use crate::support::cli::{Ended, ended, execute, lines, with_password};
use crate::support::pooler::pooled;
use crate::support::serving::Server;

/// 20,000 rows of the last ninety days.
const ORDERS: &str = "CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, \
    created_at timestamptz NOT NULL, customer_id bigint NOT NULL, status text NOT NULL, amount numeric(10, 2)); \
    CREATE INDEX ON orders (created_at); \
    INSERT INTO orders (created_at, customer_id, status, amount) \
    SELECT now() - n * interval '90 days' / 20000, n % 50, (ARRAY['open', 'paid'])[1 + n % 2], n % 100 \
    FROM generate_series(1, 20000) n; ANALYZE orders";

#[tokio::test]
async fn a_database_and_the_program_are_all_that_a_verified_rollup_needs() {
    let (directory, home) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let url = with_password(&Database::create().await.url());
    execute(&url, ORDERS).await;
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallymark"));
        command.args(arguments).current_dir(directory.path()).env_clear();
        command.env("DATABASE_URL", pooled(&url)).env("HOME", home.path()).stdin(Stdio::null());
        command
    };
    let run = |arguments: &[&str]| -> Ended { ended(&mut command(arguments)).good() };
    let new = run(&["new", "--yes", "--json"]).json();
    assert_eq!((&new["table"], &new["store"]), (&json!("public.orders"), &json!("postgres")));
    let name = new["rollup"].as_str().unwrap();
    run(&["check"]);
    run(&["init"]);
    run(&["backfill", name, "--yes"]);
    let verified = run(&["verify", name, "--json"]).json();
    assert_eq!(verified["differences"], 0, "{verified}");
    let server = Server::of(command(&["serve", "--every", "1m", "--listen", "127.0.0.1:0"]));
    let has_ticked = |health: &Value| health["last_tick"]["good"] == true;
    let health = server.wait_for("its first tick", has_ticked).await;
    assert_eq!(health["status"], "ok", "{health}");
    server.signal("TERM");
    assert_eq!(server.end().await.code, Some(143));
    let counted = format!(
        "SELECT sum(orders) = 20000 - (SELECT count(*) FROM orders \
        WHERE created_at >= (SELECT max(bucket) + interval '1 day' FROM stats.\"{name}\")) FROM stats.\"{name}\""
    );
    assert_eq!(lines(&url, &counted).await, ["(t)"]);
    let files = |directory: &TempDir| {
        let entries = fs::read_dir(directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(files(&directory), ["tallymark.schema.json", "tallymark.toml"]);
    assert_eq!(files(&home), [""; 0]);
}
