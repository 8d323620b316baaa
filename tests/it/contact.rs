//! Situations of a new user: a wrong address, no region, nothing created yet, a typing error.

use std::net::TcpListener;

use tallymark::clients::db::{Access, Db, DbErrorKind, Side};
use tallymark::model::hint::Hinted;

use crate::support::Database;
use crate::support::cli::{Ended, Place, daily, ended, lines};
use crate::support::world::{DAILY, EVENTS, Keeper, Setup, World};
use tallymark::clients::address::{Address, DatabaseUrl};

/// A port of this machine on which no server listens.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// The findings of a check, as `grade subject`.
fn grades(ended: &Ended) -> Vec<String> {
    let findings = ended.json()["findings"].as_array().unwrap().clone();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    findings.iter().map(|it| format!("{} {}", text(&it["grade"]), text(&it["subject"]))).collect()
}

fn finding<'e>(ended: &'e Ended, word: &str) -> &'e str {
    ended.out.lines().find(|line| line.contains(word)).unwrap_or_else(|| panic!("{ended:?}"))
}

#[tokio::test]
async fn without_a_region_one_line_says_so() {
    let (place, _database) = Place::with_events(1).await;
    let home = tempfile::TempDir::new().unwrap();
    let bare = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        for name in ["AWS_REGION", "AWS_ENDPOINT_URL_DYNAMODB"] {
            command.env_remove(name);
        }
        command.env_remove("AWS_DEFAULT_REGION").env("HOME", home.path());
        ended(&mut command)
    };
    let status = bare(&["status"]);
    status.refused(2, &["no AWS region is configured", "hint: AWS_REGION=eu-central-1"]);
    // The error and its hint.
    assert_eq!(status.err.lines().count(), 2, "{status:?}");
    // Checks that need no region run in any case.
    let check = bare(&["check", "--json"]);
    assert_eq!(check.code, Some(2), "{check:?}");
    let grades = grades(&check);
    assert!(grades.contains(&"good source".to_owned()), "{check:?}");
    assert_eq!(grades.iter().filter(|it| *it == "bad checkpoints").count(), 1, "{check:?}");
}

#[tokio::test]
async fn without_credentials_the_variables_that_hold_them_are_named() {
    let (place, _database) = Place::with_events(1).await;
    let home = tempfile::TempDir::new().unwrap();
    let mut command = place.command(&["status"]);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"] {
        command.env_remove(name);
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", home.path());
    let words = ["no usable AWS credentials", "hint: AWS_ACCESS_KEY_ID"];
    ended(&mut command).refused(2, &words);
}

/// Compose files and CI often leave an empty variable, which made the SDK panic.
#[tokio::test]
async fn an_endpoint_that_is_no_url_is_refused_by_its_name() {
    let (place, _database) = Place::with_events(1).await;
    for (value, words) in
        [("", ["is empty", "hint: unset it"]), ("127.0.0.1:8000", ["is no URL", "hint: write"])]
    {
        for command in ["status", "check", "run"] {
            let mut command = place.command(&[command]);
            let ended = ended(command.env("AWS_ENDPOINT_URL_DYNAMODB", value));
            assert_eq!(ended.code, Some(2), "{ended:?}");
            let said = format!("{}{}", ended.out, ended.err);
            let [facts, hint] = words;
            assert!(said.contains(&format!("AWS_ENDPOINT_URL_DYNAMODB {facts}")), "{said}");
            assert!(said.contains(hint), "{said}");
        }
    }
}

#[tokio::test]
async fn check_before_init_says_what_is_to_do_and_that_is_not_bad() {
    let (place, _database) = Place::with_events(1).await;
    let check = place.run(&["check"]).good();
    assert!(finding(&check, "checkpoints:").starts_with("todo"), "{check:?}");
    assert!(finding(&check, "of `tallymark init`").starts_with("todo"), "{check:?}");
    assert_eq!(check.err.trim(), "to do: run `tallymark init`");
    place.run(&["init"]).good();
    let check = place.run(&["check"]).good();
    assert!(!check.out.contains("todo") && check.err.is_empty(), "{check:?}");
}

/// `capture install` could never repair it, and a tick would exit with 2.
#[tokio::test]
async fn what_can_never_be_captured_is_bad_before_init_too() {
    let (place, _database) = Place::with_events(1).await;
    place.sql("CREATE VIEW shown AS SELECT * FROM events").await;
    let late = "slice = \"1 day\"\nlate = \"capture\"";
    let config = daily(1).replace("slice = \"1 day\"", late);
    place.configure(&config);
    let checked = place.run(&["check", "--json"]).good();
    assert!(grades(&checked).contains(&"to_do daily".to_owned()), "{checked:?}");
    place.configure(&config.replace("public.events", "public.shown"));
    let checked = place.run(&["check"]);
    assert_eq!(checked.code, Some(2), "{checked:?}");
    assert!(finding(&checked, "bad").contains("public.shown is no table"), "{checked:?}");
    place.run(&["init"]).good();
    assert_eq!(place.run(&["run"]).code, Some(2));
}

#[tokio::test]
async fn check_tells_of_each_server_once_and_of_all() {
    let (mut place, _database) = Place::with_events(1).await;
    place.run(&["init"]).good();
    let good = place.source_url.clone();
    // A wrong host, while DynamoDB is away at the same time.
    let port = closed_port();
    place.source_url = format!("postgres://app@127.0.0.1:{port}/x");
    place.target_url.clone_from(&place.source_url);
    place.stop_dynamo();
    let check = place.run(&["check", "--json"]);
    assert_eq!(check.code, Some(3), "{check:?}");
    assert_eq!(grades(&check), ["bad source", "bad checkpoints", "note rollups"], "{check:?}");
    let text = place.run(&["check"]).out;
    assert!(text.contains(&format!("connecting to 127.0.0.1:{port}: ")), "{text}");
    assert!(text.contains("Connection refused") && !text.contains("sleeps"), "{text}");
    let endpoint = place.endpoint().clone();
    assert!(
        text.contains(&format!("at {endpoint}, which AWS_ENDPOINT_URL_DYNAMODB names")),
        "{text}"
    );
    // The source alone is away.
    place.start_dynamo().await;
    let check = place.run(&["check", "--json"]);
    assert_eq!(grades(&check), ["bad source", "good checkpoints", "note rollups"], "{check:?}");
    // Only DynamoDB is away, and the rollups are checked.
    place.source_url.clone_from(&good);
    place.target_url = good;
    place.stop_dynamo();
    let check = place.run(&["check", "--json"]);
    assert_eq!(check.code, Some(3), "{check:?}");
    assert!(grades(&check).contains(&"good daily".to_owned()), "{check:?}");
    assert_eq!(grades(&check).iter().filter(|it| it.starts_with("bad")).count(), 1, "{check:?}");
}

#[tokio::test]
async fn with_checkpoints_in_the_target_a_server_out_of_reach_is_told_once_with_its_remedy() {
    let (mut place, _database) = Place::with_events(1).await;
    place.configure_plain(&format!("[checkpoint]\nstore = \"postgres\"\n{}", daily(1)));
    place.run(&["init"]).good();
    place.source_url = format!("postgres://app@127.0.0.1:{}/x", closed_port());
    place.target_url.clone_from(&place.source_url);
    let check = place.run(&["check", "--json"]);
    assert_eq!(check.code, Some(3), "{check:?}");
    assert_eq!(grades(&check), ["bad source", "note checkpoints", "note rollups"], "{check:?}");
    let run = place.run(&["run"]);
    let remedy = "hint: start the server, or correct host and port of the address";
    run.refused(3, &["postgres could not be reached", "Connection refused", remedy]);
}

#[tokio::test]
async fn a_typing_error_is_answered_with_what_was_meant() {
    let (place, _database) = Place::with_events(1).await;
    place.run(&["init"]).good();
    place
        .sql("CREATE SCHEMA shop; CREATE TABLE shop.orders (at timestamptz, \"userId\" int); INSERT INTO shop.orders VALUES (now() - interval '1 day', 1)")
        .await;
    for (wrong, words) in [
        (daily(1).replace("public.events", "public.event"), "did you mean `public.events`?"),
        (daily(1).replace("public.events", "public.orders"), "did you mean `shop.orders`"),
        (daily(1).replace("public.events", "Public.Events"), "`public.events`"),
        (daily(1).replace("time = \"at\"", "time = \"att\""), "did you mean `at`?"),
        (daily(1).replace("[\"kind\"]", "[\"kin\"]"), "did you mean `kind`?"),
        (daily(1).replace("\"amount\"", "\"amuont\""), "did you mean `amount`?"),
    ] {
        place.configure(&wrong);
        let check = place.run(&["check"]);
        assert_eq!(check.code, Some(2), "{check:?}");
        assert!(check.out.contains(words), "{words}: {check:?}");
    }
    // The server's hint has its own line.
    let orders = daily(1)
        .replace("public.events", "shop.orders")
        .replace("name = \"daily\"", "name = \"orders\"")
        .replace("group_by = [\"kind\"]\n", "where = \"userId > 0\"\n")
        .replace("revenue = { sum = \"amount\" }\n", "");
    place.configure(&orders);
    let check = place.run(&["check"]);
    assert!(check.out.contains("userid") && check.out.contains("\n      hint: "), "{check:?}");
    place.run(&["init"]).good();
    let from = crate::support::cli::day(1).to_string();
    let plan = ["plan", "orders", "--from", &from];
    let document = place.run(&[&plan[..], &["--json"]].concat()).json();
    let plan = place.run(&plan);
    assert!(plan.error().contains("column \"userid\" does not exist"), "{plan:?}");
    let hint = plan.err.lines().find(|line| line.starts_with("hint: ")).unwrap();
    assert!(hint.contains("userId"), "{plan:?}");
    assert!(document["hint"].as_str().unwrap().contains("userId"), "{document}");
}

/// The text of an error is in the server's language.
#[tokio::test]
async fn row_level_security_is_known_by_the_error_and_not_by_its_words() {
    let database = Database::create().await;
    let address = Address::Url(DatabaseUrl::new(database.url()).unwrap());
    let db = Db::new(&address, Side::Source, 1).unwrap();
    let limit = std::time::Duration::from_secs(60);
    let mut tx = db.begin(Access::ReadWrite, limit, "test").await.unwrap();
    let raise = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '42501', \
                 MESSAGE = 'of row-level security in words only', HINT = 'look elsewhere'; END $$";
    let error = tx.execute("raising", raise.to_owned()).await.unwrap_err();
    assert_eq!(error.kind(), DbErrorKind::Denied, "{error}");
    assert_eq!(error.hint().as_deref(), Some("look elsewhere"));
}

/// A pool closes what was idle for a minute. One that is dropped closes it at once.
#[tokio::test]
async fn a_worker_that_is_gone_leaves_no_session_behind() {
    let world = World::new(EVENTS, Setup { keeper: Keeper::DynamoDb, ..Setup::default() }).await;
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
        AND application_name = 'tallymark'";
    let sessions = async || world.target_value(sessions).await.parse::<u32>().unwrap();
    let before = sessions().await;
    let other = world.redefined(DAILY);
    other.init().await.unwrap();
    assert!(sessions().await > before, "the test is about sessions that stay");
    drop(other);
    // Ends before the minute after which a pool that is kept would close them too.
    for _ in 0..500 {
        if sessions().await <= before {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{} sessions, and {before} before", sessions().await);
}

#[tokio::test]
async fn a_configured_reader_reads_every_rollup_table() {
    let (mut place, database) = Place::with_events(1).await;
    let role = format!("reader_{:x}", fastrand::u64(..));
    let with_readers = |role: &str, rollups: &str| format!("readers = [\"{role}\"]\n{rollups}");
    place.configure(&with_readers(&role, &daily(1)));
    let refused = place.run(&["init"]);
    refused.refused(2, &[&format!("there is no role `{role}`"), "hint: CREATE ROLE"]);
    place.sql(&format!("CREATE ROLE \"{role}\" LOGIN")).await;
    let check = place.run(&["check"]).good();
    assert!(check.out.contains("todo  target: readers lack 5 grants"), "{check:?}");
    let script = place.run(&["init", "--dry-run"]).good().out;
    assert!(
        script.contains(&format!("GRANT SELECT ON \"stats\".\"daily\" TO \"{role}\";")),
        "{script}"
    );
    place.run(&["init"]).good();
    let check = place.run(&["check"]).good();
    assert!(check.out.contains(&format!("target: {role} can read the rollup tables")), "{check:?}");
    assert_eq!(place.json(&["init"])["statements"], serde_json::json!([]));
    let reader = database.url_of(&role);
    assert_eq!(lines(&reader, "SELECT count(*) FROM stats.daily").await, ["(0)"]);
    let told = "SELECT rollup, complete_through, (SELECT count(*) FROM tallymark.slice_state) \
                FROM tallymark.coverage";
    assert_eq!(lines(&reader, told).await, ["(daily,,0)"]);
    // A reader of these views may read nothing else of Tallymark's.
    let others = "SELECT relname FROM pg_class WHERE relnamespace = 'tallymark'::regnamespace AND \
                  relkind IN ('r', 'v') AND relname NOT IN ('coverage', 'slice_state') AND \
                  has_table_privilege(oid, 'SELECT')";
    assert_eq!(lines(&reader, others).await, [""; 0]);
    // A table that a later init creates.
    let other = daily(1).replace("name = \"daily\"", "name = \"other\"");
    place.configure(&with_readers(&role, &format!("{}{other}", daily(1))));
    place.run(&["init"]).good();
    assert_eq!(lines(&reader, "SELECT count(*) FROM stats.other").await, ["(0)"]);
    place.target_url.clone_from(&place.source_url);
    place.sql(&format!("DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"")).await;
}
