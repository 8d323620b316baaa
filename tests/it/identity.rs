//! Source, target and checkpoints belong together: strangers are refused, and so is success that
//! speaks of rows which are gone.

use std::time::Duration;

use crate::support::cli::{Place, daily, execute, lines};
use crate::support::proxy::Cutter;
use crate::support::{Database, postgres};

const ROLLUP: &str = "SELECT bucket, kind, events, revenue FROM stats.daily";
const TRUTH: &str = "SELECT date_trunc('day', at, 'UTC') AS bucket, kind, count(*) AS events, \
                     sum(amount) AS revenue FROM events GROUP BY 1, 2";
const EMPTY: &str = "DELETE FROM events";

/// What must not be content while checkpoints and target do not belong together.
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

/// Each command ends with 2 and says these words.
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
        let said = format!("{} {}", self.out, self.err);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
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
    // Even with its tables made by hand.
    let statements = second.json(&["init", "--dry-run"])["statements"].clone();
    for statement in statements.as_array().unwrap() {
        execute(&second.target_url, statement.as_str().unwrap()).await;
    }
    are_refused(&second, &ways_out);
    second.run(&["check"]).is_refused_with(&["tallymark moved"], &["check"]);
    first.run(&["run"]).good();
    is_right(&first).await;
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
        are_refused(&place, &["made anew or restored", "tallymark repair"]);
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
    // A copy of the database elsewhere, as a restore at a new address is.
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
    // Who still uses the old address is refused from now on.
    place.source_url.clone_from(&old);
    place.target_url = old;
    are_refused(&place, &["tallymark moved"]);
}

#[tokio::test]
async fn another_name_of_the_same_server_is_the_same_installation() {
    let (mut place, _database) = computed().await;
    // All names of this machine are one; a proxy's port is another address of the same server, as a
    // pooler's is.
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
