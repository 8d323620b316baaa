//! Source, target and checkpoints belong together. Strangers are refused, and so is success for
//! rows that are gone.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tallymark::embedded::postgres::{Binaries, EmbeddedPostgres, Options};

use crate::support::cli::{Place, daily, day, execute, lines};
use crate::support::proxy::{Cutter, Switch};
#[cfg(feature = "lambda")]
use crate::support::runtime_api::Function;
use crate::support::{Database, cache, options, postgres, server_directory};

const ROLLUP: &str = "SELECT bucket, kind, events, revenue FROM stats.daily";
const TRUTH: &str = "SELECT date_trunc('day', at, 'UTC') AS bucket, kind, count(*) AS events, \
                     sum(amount) AS revenue FROM events GROUP BY 1, 2";
const EMPTY: &str = "DELETE FROM events";

/// Commands that must fail while checkpoints and target do not belong together.
const COMMANDS: [&[&str]; 6] = [
    &["run"],
    &["status"],
    &["plan"],
    &["verify"],
    &["backfill", "daily", "--yes"],
    &["replay", "daily", "--failed", "--yes"],
];

async fn computed() -> (Place, Database) {
    let (place, database) = Place::with_events(3).await;
    place.run(&["init"]).good();
    place.run(&["backfill", "daily", "--yes"]).good();
    is_right(&place).await;
    (place, database)
}

async fn is_right(place: &Place) {
    let truth = lines(&place.source_url, TRUTH).await;
    assert_eq!(lines(&place.target_url, ROLLUP).await, truth);
}

/// Each command ends with 2 and prints these words.
fn are_refused(place: &Place, words: &[&str]) {
    for command in COMMANDS {
        place.run(command).is_refused_with(words, command);
    }
}

trait Refused {
    fn is_refused_with(&self, words: &[&str], command: &[&str]);
}

impl Refused for crate::support::cli::Ended {
    fn is_refused_with(&self, words: &[&str], command: &[&str]) {
        assert_eq!(self.code, Some(2), "{command:?}: {self:?}");
        let said = self.words();
        for word in words {
            assert!(said.contains(word), "{command:?}: `{word}` is not in {said}");
        }
    }
}

/// Another place with the same checkpoint table and the same file.
async fn second(first: &mut Place, source: &Database, target: &Database) -> Place {
    let mut second = Place::new(&source.url(), &target.url(), &daily(3)).await;
    second.endpoint().clone_from(first.endpoint());
    second
}

#[tokio::test]
async fn a_second_installation_on_the_same_checkpoints_is_refused() {
    let (mut first, _one) = computed().await;
    let other = Database::create().await;
    let second = second(&mut first, &other, &other).await;
    second.seed(3).await;
    let ways_out = ["[checkpoint] table of its own", "tallymark moved"];
    second.run(&["init"]).is_refused_with(&ways_out, &["init"]);
    let made = "SELECT nspname FROM pg_namespace WHERE nspname IN ('stats', 'tallymark')";
    assert!(lines(&second.target_url, made).await.is_empty(), "nothing was made");
    // Even with its tables created by hand.
    let statements = second.json(&["init", "--dry-run"])["statements"].clone();
    for statement in statements.as_array().unwrap() {
        execute(&second.target_url, statement.as_str().unwrap()).await;
    }
    are_refused(&second, &ways_out);
    second.run(&["check"]).is_refused_with(&["tallymark moved"], &["check"]);
    first.run(&["run"]).good();
    is_right(&first).await;
}

/// The target has no tables yet, so only the checkpoints show their owner.
#[tokio::test]
async fn a_stranger_is_told_by_check_and_changes_nothing_that_others_keep() {
    let (mut first, _one) = computed().await;
    let other = Database::create().await;
    let second = second(&mut first, &other, &other).await;
    second.seed(3).await;
    let ways_out = ["belong to another installation", "[checkpoint] table", "tallymark moved"];
    let commands: [&[&str]; 9] = [
        &["check"],
        &["pause"],
        &["pause", "daily", "--backfill"],
        &["resume"],
        &["speed", "100"],
        &["cancel", "daily"],
        &["backfill", "cancel", "daily"],
        &["rollup", "drop", "daily", "--yes"],
        &["init"],
    ];
    for command in commands {
        second.run(command).is_refused_with(&ways_out, command);
    }
    for command in [&["moved", "--yes"][..], &["moved", "--copy", "--yes"]] {
        let words = ["has no tables of Tallymark", "from a dump", "another [checkpoint] table"];
        second.run(command).is_refused_with(&words, command);
    }
    second.run(&["repair"]).is_refused_with(&["not ready", "tallymark init"], &["repair"]);
    assert_eq!(first.json(&["status"])["control"].as_array().unwrap().len(), 0);
    first.run(&["run"]).good();
    is_right(&first).await;
    first.run(&["pause"]).good();
    first.run(&["resume"]).good();
    first.run(&["rollup", "drop", "daily", "--yes"]).good();
}

#[tokio::test]
async fn a_table_that_is_gone_is_told_by_every_command_that_looks() {
    let (place, _database) = computed().await;
    for dropped in ["DROP TABLE stats.daily", "DROP SCHEMA tallymark CASCADE"] {
        execute(&place.target_url, dropped).await;
        let words = ["\"stats\".\"daily\" is gone", "tallymark init", "tallymark repair"];
        place.run(&["check"]).is_refused_with(&words, &["check"]);
        for command in ["verify", "repair"] {
            place.run(&[command]).is_refused_with(&["not ready", "tallymark init"], &[command]);
        }
    }
}

#[tokio::test]
async fn a_second_source_on_the_same_rollup_table_is_refused_before_it_writes() {
    let (mut first, target) = computed().await;
    let other = Database::create().await;
    let mut second = second(&mut first, &other, &target).await;
    second.start_dynamo().await;
    second.seed(3).await;
    second.sql(EMPTY).await;
    second.run(&["init"]).is_refused_with(&["another source", "tallymark moved"], &["init"]);
    are_refused(&second, &["is kept by installation"]);
    is_right(&first).await;
}

#[tokio::test]
async fn a_second_installation_with_another_schema_of_the_target_is_refused_and_the_first_goes_on()
{
    let (first, _database) = computed().await;
    let rollups = format!("schema = \"other\"\n{}", daily(3));
    let second = Place::new(&first.source_url, &first.target_url, &rollups).await;
    let words = ["already keeps \"stats\".\"daily\"", "choose another name", "drop that table"];
    second.run(&["init"]).is_refused_with(&words, &["init"]);
    for command in [["init"], ["run"], ["verify"]] {
        first.run(&command).good();
    }
    is_right(&first).await;

    second.configure(&rollups.replace("\"daily\"", "\"second\""));
    second.run(&["init"]).good();
    second.run(&["backfill", "second", "--yes"]).good();
    second.run(&["verify"]).good();

    execute(&first.target_url, "DROP TABLE stats.daily").await;
    first.configure(&rollups);
    first.run(&["init"]).good();
    assert_eq!(lines(&first.target_url, "SELECT count(*) FROM other.daily").await, ["(0)"]);
}

#[tokio::test]
async fn success_without_its_tables_is_not_called_success() {
    for dropped in [
        "DROP SCHEMA stats, tallymark CASCADE",
        "DROP SCHEMA tallymark CASCADE; DROP TABLE stats.daily",
        "DROP TABLE stats.daily",
    ] {
        let (place, _database) = computed().await;
        execute(&place.target_url, dropped).await;
        let init = place.json(&["init"]);
        assert_eq!(init["repair"][0]["rollup"], "daily", "{dropped}: {init}");
        are_refused(&place, &["created again or restored", "tallymark repair"]);
        let repaired = place.json(&["repair"]);
        assert_eq!(repaired["rollups"][0]["reopened"].as_array().unwrap().len(), 3, "{dropped}");
        place.run(&["run"]).good();
        is_right(&place).await;
        place.run(&["verify"]).good();
    }
}

#[tokio::test]
async fn lost_checkpoints_are_told_by_init() {
    let (mut place, _database) = computed().await;
    place.dynamo().delete_table().table_name("tallymark").send().await.unwrap();
    let init = place.json(&["init"]);
    assert!(init["repair"][0]["reason"].as_str().unwrap().contains("empty"), "{init}");
    are_refused(&place, &["tallymark repair"]);
    let repaired = place.json(&["repair"]);
    assert_eq!(repaired["rollups"][0]["restored"].as_array().unwrap().len(), 3);
    place.run(&["status"]).good();
    assert!(place.endpoint().contains("http"));
}

#[tokio::test]
async fn an_installation_of_the_version_before_goes_on_after_init() {
    let (place, _database) = computed().await;
    execute(
        &place.target_url,
        "DROP TABLE tallymark.installation; ALTER TABLE tallymark.rollup DROP COLUMN installation; \
         ALTER TABLE tallymark.slice DROP COLUMN owner, DROP COLUMN replaced_owner",
    )
    .await;
    let key = [("pk", "daily"), ("sk", "watermark")].map(|(name, value)| {
        (name.to_owned(), aws_sdk_dynamodb::types::AttributeValue::S(value.to_owned()))
    });
    let client = place.dynamo();
    let update = client.update_item().table_name("tallymark").set_key(Some(key.into()));
    let names = [("#i", "installation"), ("#p", "places"), ("#t", "tables")];
    let names = names.map(|(short, name)| (short.to_owned(), name.to_owned()));
    update
        .set_expression_attribute_names(Some(names.into()))
        .update_expression("REMOVE #i, #p, #t")
        .send()
        .await
        .unwrap();
    place.run(&["run"]).is_refused_with(&["tallymark init"], &["run"]);
    let init = place.json(&["init"]);
    assert_eq!(
        (&init["repair"], &init["redefined"]),
        (&serde_json::json!([]), &serde_json::json!([]))
    );
    let run = place.json(&["run"]);
    assert_eq!(run["slices"], serde_json::json!([]), "nothing runs anew: {run}");
    let ids = "SELECT count(DISTINCT id) FROM tallymark.installation";
    assert_eq!(lines(&place.target_url, ids).await, ["(1)"]);
}

#[tokio::test]
async fn an_installation_that_moved_works_after_the_owner_said_so() {
    let (mut place, _old) = computed().await;
    // A copy of the database elsewhere, like a restore at a new address.
    let old = place.target_url.clone();
    let copy = Database::create().await;
    let name = |url: &str| url.rsplit('/').next().unwrap().to_owned();
    let (from, to) = (name(&old), name(&copy.url()));
    let admin = old.replace(&from, "postgres");
    execute(&admin, &format!("DROP DATABASE {to}")).await;
    execute(&admin, &format!("CREATE DATABASE {to} TEMPLATE {from}")).await;
    place.source_url = old.replace(&from, &to);
    place.target_url.clone_from(&place.source_url);
    are_refused(&place, &["tallymark moved"]);
    place.run(&["moved"]).is_refused_with(&["--yes"], &["moved"]);
    let moved = place.json(&["moved", "--yes"]);
    assert_eq!(moved["rollups"][0]["needs_repair"], false, "{moved}");
    place.run(&["run"]).good();
    place.run(&["verify"]).good();
    // A user of the old address is refused from now on.
    place.source_url.clone_from(&old);
    place.target_url = old;
    are_refused(&place, &["tallymark moved"]);
}

#[tokio::test]
async fn another_name_of_the_same_server_is_the_same_installation() {
    let (mut place, _database) = computed().await;
    // All names of this machine count as one. A proxy's port is another address of the same server,
    // as a pooler's is.
    place.target_url = place.target_url.replacen("127.0.0.1", "localhost", 1);
    place.run(&["status"]).good();
    let port = postgres().port();
    let proxy = Cutter::slow(format!("127.0.0.1:{port}"), Duration::ZERO);
    let (direct, by_proxy) = (format!(":{port}/"), format!(":{}/", proxy.port));
    place.source_url = place.source_url.replacen(&direct, &by_proxy, 1);
    for command in [&["run"][..], &["status"], &["init"], &["verify"]] {
        place.run(command).good();
    }
}

/// Two servers with a database `app`, and one address behind which either answers.
fn two_machines() -> (EmbeddedPostgres, EmbeddedPostgres, Switch, String) {
    let start = |name: &str| {
        let binaries = Binaries::find(&cache()).unwrap();
        let directory = server_directory(&format!("{name}-{:x}", fastrand::u32(..)));
        EmbeddedPostgres::start(binaries, options(directory)).unwrap()
    };
    let (one, other) = (start("one"), start("other"));
    let switch = Switch::to(one.port());
    let at = |port: u16| one.url("app").replace(&format!(":{}/", one.port()), &format!(":{port}/"));
    let address = at(switch.port);
    (one, other, switch, address)
}

#[tokio::test]
async fn two_machines_that_both_call_their_database_localhost_are_told_apart() {
    let (one, other, switch, address) = two_machines();
    execute(&one.url("postgres"), "CREATE DATABASE app").await;
    execute(&other.url("postgres"), "CREATE DATABASE app").await;
    let first = Place::new(&address, &address, &daily(3)).await;
    first.seed(3).await;
    first.run(&["init"]).good();
    first.run(&["run"]).good();
    is_right(&first).await;
    let kept = lines(&address, "TABLE stats.daily").await;
    // The same file on the second machine, which never had these tables.
    switch.turn(other.port());
    first.seed(3).await;
    let ways_out = ["another server", "[checkpoint] table of its own", "tallymark moved"];
    first.run(&["init"]).is_refused_with(&ways_out, &["init"]);
    let made = "SELECT nspname FROM pg_namespace WHERE nspname IN ('stats', 'tallymark')";
    assert!(lines(&address, made).await.is_empty(), "nothing was made");
    // With tables of its own, created by hand.
    let statements = first.json(&["init", "--dry-run"])["statements"].clone();
    for statement in statements.as_array().unwrap() {
        execute(&address, statement.as_str().unwrap()).await;
    }
    for command in [&["verify"][..], &["repair"], &["check"], &["backfill", "daily", "--yes"]] {
        first.run(command).is_refused_with(&ways_out[..1], command);
    }
    assert!(lines(&address, "TABLE stats.daily").await.is_empty());
    switch.turn(one.port());
    first.run(&["verify"]).good();
    assert_eq!(lines(&address, "TABLE stats.daily").await, kept);
}

#[tokio::test]
async fn two_sources_behind_one_address_do_not_share_a_rollup_table() {
    let (one, other, switch, address) = two_machines();
    execute(&one.url("postgres"), "CREATE DATABASE app").await;
    execute(&other.url("postgres"), "CREATE DATABASE app").await;
    let target = Database::create().await;
    let place = Place::new(&address, &target.url(), &daily(3)).await;
    place.seed(3).await;
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    is_right(&place).await;
    let kept = lines(&place.target_url, ROLLUP).await;
    switch.turn(other.port());
    place.seed(3).await;
    place.sql(EMPTY).await;
    for command in [&["init"][..], &["verify"], &["backfill", "daily", "--force", "--yes"]] {
        place.run(command).is_refused_with(&["another server", "source's address"], command);
    }
    assert_eq!(lines(&place.target_url, ROLLUP).await, kept);
    // The owner confirms that it is the same source, on a new server.
    place.run(&["moved", "--yes"]).good();
    place.run(&["verify"]).refused(1, &["differ"]);
    switch.turn(one.port());
    place.run(&["verify"]).is_refused_with(&["another server"], &["verify"]);
}

#[tokio::test]
async fn a_server_with_the_files_of_an_earlier_moment_is_noticed() {
    let directory = server_directory(&format!("snapshot-{:x}", fastrand::u32(..)));
    let copy = directory.with_extension("copy");
    let start = |directory: &Path| {
        let binaries = Binaries::find(&cache()).unwrap();
        let kept = Options { throwaway: false, ..options(directory.to_owned()) };
        EmbeddedPostgres::start(binaries, kept).unwrap()
    };
    let server = start(&directory);
    execute(&server.url("postgres"), "CREATE DATABASE app").await;
    let switch = Switch::to(server.port());
    let (direct, by_switch) = (format!(":{}/", server.port()), format!(":{}/", switch.port));
    let address = server.url("app").replace(&direct, &by_switch);
    let place = Place::new(&address, &address, &daily(3)).await;
    place.seed(3).await;
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    drop(server);
    let copied = Command::new("cp").arg("-a").args([&directory, &copy]).status().unwrap();
    assert!(copied.success());
    let server = start(&directory);
    switch.turn(server.port());
    place.sql("UPDATE events SET amount = amount + 1; CHECKPOINT").await;
    place.run(&["verify", "--repair", "--yes"]).good();
    is_right(&place).await;
    drop(server);
    let server = start(&copy);
    switch.turn(server.port());
    for command in [&["verify"][..], &["backfill", "daily", "--yes"], &["check"]] {
        let words = ["restored to an earlier moment", "tallymark repair"];
        place.run(command).is_refused_with(&words, command);
    }
    place.run(&["status"]).is_refused_with(&["tallymark repair"], &["status"]);
    let repaired = place.json(&["repair"]);
    assert_eq!(repaired["rollups"][0]["reopened"].as_array().unwrap().len(), 3, "{repaired}");
    place.run(&["run"]).good();
    place.run(&["verify"]).good();
    is_right(&place).await;
    drop(server);
    for left in [directory, copy] {
        std::fs::remove_dir_all(left).unwrap();
    }
}

#[tokio::test]
async fn check_and_a_dry_repair_write_nothing() {
    let (place, _database) = Place::with_events(3).await;
    place.checkpoints().create_table().await.unwrap();
    let statements = place.json(&["init", "--dry-run"])["statements"].clone();
    for statement in statements.as_array().unwrap() {
        execute(&place.target_url, statement.as_str().unwrap()).await;
    }
    let left = async || {
        let scan = place.dynamo().scan().table_name("tallymark").send().await.unwrap();
        let sql = "SELECT (SELECT count(*) FROM tallymark.installation), installation \
                   FROM tallymark.rollup";
        (scan.count(), lines(&place.target_url, sql).await)
    };
    let before = left().await;
    assert_eq!(before.0, 0);
    place.run(&["check"]).good();
    place.run(&["repair", "--dry-run"]).good();
    assert_eq!(left().await, before);
    // Their findings are not recorded either.
    place.run(&["run"]).good();
    execute(&place.target_url, "DELETE FROM tallymark.slice").await;
    let before = left().await;
    let found = place.json(&["repair", "--dry-run"]);
    assert_eq!(found["rollups"][0]["reopened"].as_array().unwrap().len(), 3);
    place.run(&["check"]).good();
    assert_eq!(left().await, before);
    place.run(&["status"]).good();
}

#[tokio::test]
async fn a_worker_need_not_write_the_installation() {
    let (mut place, database) = Place::with_events(3).await;
    let role = format!("worker_{:x}", fastrand::u64(..));
    place.run(&["init"]).good();
    place
        .sql(&format!(
            "CREATE ROLE {role} LOGIN PASSWORD 'x'; GRANT pg_read_all_stats TO {role}; \
             GRANT USAGE ON SCHEMA stats, tallymark TO {role}; GRANT SELECT ON events TO {role}; \
             GRANT SELECT, INSERT, UPDATE, DELETE ON stats.daily, tallymark.slice, \
             tallymark.progress, tallymark.stage_daily, tallymark.rollup, tallymark.outstanding, \
             tallymark.checked TO {role}; \
             GRANT SELECT ON tallymark.installation TO {role}"
        ))
        .await;
    let admin = place.source_url.clone();
    place.source_url = database.url_of(&role);
    place.target_url.clone_from(&place.source_url);
    for command in [
        &["run"][..],
        &["replay", "daily", "--slice", &day(2).to_string(), "--yes"],
        &["verify"],
        &["repair"],
        &["check"],
    ] {
        place.run(command).good();
    }
    place.source_url.clone_from(&admin);
    place.target_url = admin;
    is_right(&place).await;
    place.sql(&format!("DROP OWNED BY {role}; DROP ROLE {role}")).await;
}

#[tokio::test]
async fn a_further_address_is_recorded_beside_the_old_one() {
    let (mut place, _database) = computed().await;
    let old = (place.source_url.clone(), place.target_url.clone());
    // As after a restart of the server, when nothing shows that both addresses belong to one
    // server.
    execute(&old.1, "UPDATE tallymark.installation SET servers = 'before'").await;
    let key = [("pk", "daily"), ("sk", "watermark")].map(|(name, value)| {
        (name.to_owned(), aws_sdk_dynamodb::types::AttributeValue::S(value.to_owned()))
    });
    let client = place.dynamo();
    let update = client.update_item().table_name("tallymark").set_key(Some(key.into()));
    let before = aws_sdk_dynamodb::types::AttributeValue::S("before".into());
    let update = update.update_expression("SET servers = :before");
    update.expression_attribute_values(":before", before).send().await.unwrap();
    let (_way, by_way) = Cutter::way(&old.0);
    place.source_url.clone_from(&by_way);
    place.target_url = by_way;
    are_refused(&place, &["tallymark moved"]);
    let moved = place.json(&["moved", "--also", "--yes"]);
    assert_eq!(moved["rollups"][0]["needs_repair"], false, "{moved}");
    place.run(&["run"]).good();
    place.run(&["verify"]).good();
    (place.source_url, place.target_url) = old;
    place.run(&["run"]).good();
    place.run(&["verify"]).good();
}

#[tokio::test]
async fn a_copy_becomes_an_installation_of_its_own() {
    let (mut first, database) = computed().await;
    let copy = Database::create().await;
    let name = |url: &str| url.rsplit('/').next().unwrap().to_owned();
    let (from, to) = (name(&database.url()), name(&copy.url()));
    let admin = postgres().url("postgres");
    execute(&admin, &format!("DROP DATABASE {to}")).await;
    execute(&admin, &format!("CREATE DATABASE {to} TEMPLATE {from}")).await;
    let mut second = second(&mut first, &copy, &copy).await;
    // The copy must not take the original's checkpoints.
    are_refused(&second, &["tallymark moved"]);
    second
        .run(&["moved", "--copy", "--yes"])
        .refused(2, &["hint: another [checkpoint] table first"]);
    second.start_dynamo().await;
    second.checkpoints().create_table().await.unwrap();
    let moved = second.json(&["moved", "--copy", "--yes"]);
    assert_eq!(moved["rollups"][0]["needs_repair"], true, "{moved}");
    are_refused(&second, &["checkpoint table is empty", "tallymark repair"]);
    second.run(&["repair"]).good();
    second.run(&["run"]).good();
    second.run(&["verify"]).good();
    first.run(&["run"]).good();
    first.run(&["verify"]).good();
    let id = "SELECT installation FROM tallymark.rollup";
    assert_ne!(lines(&first.target_url, id).await, lines(&second.target_url, id).await);
}

#[tokio::test]
async fn several_files_keep_their_rollups_in_one_target_and_one_checkpoint_table() {
    let (mut first, database) = computed().await;
    let second = second(&mut first, &database, &database).await;
    second.configure(&daily(3).replace("\"daily\"", "\"other\""));
    second.run(&["init"]).good();
    for place in [&second, &first, &second] {
        place.run(&["run"]).good();
        place.run(&["verify"]).good();
        place.run(&["check"]).good();
    }
    let ids = "SELECT count(DISTINCT id) FROM tallymark.installation";
    assert_eq!(lines(&first.target_url, ids).await, ["(1)"]);
    let keepers = "SELECT count(DISTINCT installation), count(*) FROM tallymark.rollup";
    assert_eq!(lines(&first.target_url, keepers).await, ["(1,2)"]);
}

/// For every kind of event, fanned out or not, everything of the other installation is left alone.
#[cfg(feature = "lambda")]
#[tokio::test(flavor = "multi_thread")]
async fn a_function_on_the_checkpoints_of_another_installation_is_refused() {
    let (mut first, _database) = computed().await;
    let other = Database::create().await;
    let mut second = second(&mut first, &other, &other).await;
    second.seed(3).await;
    let statements = second.json(&["init", "--dry-run"])["statements"].clone();
    for statement in statements.as_array().unwrap() {
        execute(&second.target_url, statement.as_str().unwrap()).await;
    }
    let (config, endpoint) = (second.config().display().to_string(), second.endpoint().clone());
    let mut function = Function::start(&[
        ("TALLYMARK_CONFIG", &config),
        ("SOURCE_DATABASE_URL", &second.source_url.clone()),
        ("TARGET_DATABASE_URL", &second.target_url.clone()),
        ("AWS_ENDPOINT_URL_DYNAMODB", &endpoint),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
    ]);
    let (start, from) = (day(2).to_string(), day(3).to_string());
    for event in [
        serde_json::json!({ "trigger": "schedule", "time": "2026-02-10T00:00:00Z" }),
        serde_json::json!({ "trigger": "slice", "rollup": "daily", "start": start }),
        serde_json::json!({ "trigger": "backfill", "rollup": "daily", "from": from }),
    ] {
        let answer = function.invoke(&event);
        let (kind, message) = answer.error();
        assert!(message.contains("belong to another installation"), "{event}: {kind}: {message}");
        assert!(message.contains("tallymark moved"), "{event}: {kind}: {message}");
    }
    function.stop();
    assert!(lines(&second.target_url, "TABLE stats.daily").await.is_empty());
    first.run(&["run"]).good();
    is_right(&first).await;
}
