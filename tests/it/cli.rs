//! The command line as an operator or a script uses it: the real binary against real servers.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tallymark::embedded::postgres::{Binaries, EmbeddedPostgres};

use crate::support::cli::{PASSWORD, Place, daily, day, documented, ended, execute, lines, today};
use crate::support::proxy::Cutter;
use crate::support::{cache, options, postgres, server_directory};

const COMMANDS: [&str; 21] = [
    "demo",
    "new",
    "init",
    "check",
    "plan",
    "preview",
    "purgeable",
    "adopt",
    "run",
    "serve",
    "backfill",
    "replay",
    "status",
    "verify",
    "repair",
    "moved",
    "checkpoints",
    "rollup",
    "schema",
    "completions",
    "man",
];

/// Objects whose keys are data.
const MAPS: [&str; 4] = ["standings", "key", "expected", "actual"];

/// Asserts that `found` has only keys of the example, and values of the same types.
fn fits(found: &Value, example: &Value, path: &str) {
    match (found, example) {
        (Value::Null, _) | (_, Value::Null) => {}
        (Value::Object(found), Value::Object(example)) => {
            for (key, value) in found {
                let path = format!("{path}.{key}");
                let like = example.get(key).unwrap_or_else(|| panic!("{path} is undocumented"));
                if !MAPS.contains(&key.as_str()) {
                    fits(value, like, &path);
                }
            }
        }
        (Value::Array(found), Value::Array(example)) => {
            if let Some(like) = example.first() {
                found.iter().for_each(|value| fits(value, like, &format!("{path}[]")));
            }
        }
        (found, example) => {
            let kind = std::mem::discriminant;
            assert_eq!(kind(found), kind(example), "{path}: {found} is not like {example}");
        }
    }
}

/// Asserts that `found` is like the `nth` example of docs/CLI.md, with all of its outer keys.
pub fn is_documented(found: &Value, heading: &str, nth: usize) {
    let example = &documented(heading)[nth];
    fits(found, example, heading);
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(found), keys(example), "{heading}");
}

/// The result of one GROUP BY for the rollup `daily`.
const TRUTH: &str = "SELECT date_trunc('day', at, 'UTC') AS bucket, kind, count(*) AS events, \
                     sum(amount) AS revenue FROM events GROUP BY 1, 2";
const ROLLUP: &str = "SELECT bucket, kind, events, revenue FROM stats.daily";

async fn is_right(place: &Place) {
    let truth = lines(&place.source_url, TRUTH).await;
    assert_eq!(lines(&place.target_url, ROLLUP).await, truth);
    assert!(!truth.is_empty());
}

#[tokio::test]
async fn every_command_does_what_the_manual_says() {
    let (place, _database) = Place::with_events(6).await;
    let init = place.json(&["init"]);
    is_documented(&init, "init", 0);
    assert_eq!(init["checkpoint_table"]["state"], "created");
    assert_eq!(place.json(&["init"])["statements"], json!([]));

    let check = place.json(&["check"]);
    is_documented(&check, "check", 0);
    assert!(!check.to_string().contains("pooler"), "{check}");

    let plan = place.json(&["plan"]);
    is_documented(&plan, "plan", 0);
    assert_eq!(plan["rollups"][0]["due"].as_array().unwrap().len(), 6);
    let priced = place.json(&["plan", "--from", &day(4).to_string()]);
    is_documented(&priced, "plan", 1);
    assert_eq!(priced["rollups"][0]["slices"], 4);
    assert!(priced["rollups"][0]["estimate"]["rows"].as_u64().unwrap() > 500, "{priced}");

    let slice = format!("daily@{}T00:00:00Z", day(1));
    let run = place.json(&["run", "daily", "--slice", &slice]);
    is_documented(&run, "run", 0);
    assert_eq!(run["slices"][0]["rows_read"], 240);
    let logged = place.run(&["-v", "run", "daily", "--slice", &slice]).good().err;
    assert_eq!(logged.matches("slice already_succeeded").count(), 1, "{logged}");
    let again = place.json(&["run", "daily", "--slice", &slice]);
    assert_eq!(again["slices"][0]["outcome"], "already_succeeded");

    let backfill = place.json(&["backfill", "daily", "--yes", "--concurrency", "2"]);
    is_documented(&backfill, "backfill", 0);
    assert_eq!((&backfill["succeeded"], &backfill["inserted"]), (&json!(5), &json!(15)));
    is_right(&place).await;
    let nothing = place.json(&["backfill", "daily", "--yes"]);
    is_documented(&nothing, "backfill", 0);
    assert_eq!(nothing["succeeded"], 0);

    let replay = place.json(&["replay", "daily", "--slice", &day(2).to_string(), "--yes"]);
    is_documented(&replay, "replay", 0);
    assert_eq!((&replay["unchanged"], &replay["updated"]), (&json!(3), &json!(0)));
    is_documented(&place.json(&["replay", "daily", "--failed", "--yes"]), "replay", 0);

    let status = place.json(&["status"]);
    is_documented(&status, "status", 0);
    assert_eq!(status["rollups"][0]["watermark"], format!("{}T00:00:00Z", today()));
    let verify = place.json(&["verify"]);
    is_documented(&verify, "verify", 0);
    assert_eq!((&verify["slices"], &verify["differences"]), (&json!(6), &json!(0)));
    is_documented(&place.json(&["repair", "--dry-run"]), "repair", 0);
    assert!(place.run(&["run"]).good().out.starts_with("nothing is due\n"));
}

#[tokio::test]
async fn what_a_dry_run_prints_can_be_run_by_hand() {
    let (place, _database) = Place::with_events(2).await;
    let printed = place.run(&["init", "--dry-run"]).good().out;
    assert!(printed.contains("aws dynamodb create-table --table-name tallymark"), "{printed}");
    let nothing = "SELECT to_regclass('stats.daily') IS NULL";
    assert_eq!(lines(&place.source_url, nothing).await, ["(t)"]);
    execute(&place.target_url, &printed).await;
    let init = place.run(&["init"]).good().out;
    let there = "checkpoint table tallymark: created\nrollup tables: all there\n";
    assert_eq!(init, format!("{there}next: `tallymark backfill daily`\n"));
    place.run(&["run"]).good();
    is_right(&place).await;
}

#[tokio::test]
async fn verify_finds_drift_and_a_replay_ends_it() {
    let (place, _database) = Place::with_events(3).await;
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    place.sql(&format!("DELETE FROM events WHERE kind = 'view' AND at::date = '{}'", day(2))).await;
    let verify = place.run(&["verify"]);
    verify.refused(1, &["1 slice", "1 group", "hint: tallymark replay"]);
    let slice = format!("daily@{}T00:00:00Z", day(2));
    assert!(verify.out.contains(&format!("{slice}: 1 group differs\n  extra {{")), "{verify:?}");
    assert!(verify.out.contains("source nothing\n"), "{verify:?}");
    let document = place.run(&["verify", "--json"]);
    assert_eq!(document.code, Some(1));
    is_documented(&document.json(), "verify", 0);
    assert_eq!(document.json()["drifted"][0]["differences"], 1);

    let replay = place.json(&["replay", "daily", "--slice", &slice, "--reason", "gone", "--yes"]);
    assert_eq!(replay["deleted"], 1);
    place.run(&["verify"]).good();
    is_right(&place).await;
}

#[tokio::test]
async fn status_shows_each_slice_in_its_place() {
    let (place, _database) = Place::with_events(40).await;
    place.run(&["init"]).good();
    let slice = day(3).to_string();
    place.run(&["run", "daily", "--slice", &slice]).good();
    let status = place.run(&["status"]).good().out;
    let cell = |date: chrono::NaiveDate| {
        use chrono::Datelike as _;
        let label = date.format("%Y-%m  ").to_string();
        let line = status.lines().find(|line| line.starts_with(&label)).expect("a line a month");
        line.chars().nth(label.len() + date.day0() as usize)
    };
    let cells = [4, 3, 2, 40].map(|days| cell(day(days)));
    assert_eq!(cells, [Some('.'), Some('#'), Some('.'), Some('.')], "{status}");
    assert!(status.contains("\n. 39 missing   # 1 succeeded"), "{status}");
    assert!(status.lines().all(|line| line.chars().count() <= 80), "{status}");
}

#[tokio::test]
async fn repair_rebuilds_a_lost_checkpoint_table() {
    let (place, _database) = Place::with_events(4).await;
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    place.dynamo().delete_table().table_name("tallymark").send().await.unwrap();
    place
        .run(&["status"])
        .refused(2, &["table `tallymark` does not exist", "hint: tallymark init"]);
    place.run(&["run"]).refused(2, &["hint: tallymark init"]);
    place.run(&["init"]).good();
    let promised = place.json(&["repair", "--dry-run"]);
    let repaired = place.json(&["repair"]);
    is_documented(&repaired, "repair", 0);
    assert_eq!(repaired["rollups"], promised["rollups"]);
    assert_eq!(repaired["rollups"][0]["restored"].as_array().unwrap().len(), 4);
    assert!(place.run(&["run"]).good().out.starts_with("nothing is due\n"));
    is_right(&place).await;
}

#[tokio::test]
async fn wrong_usage_is_told_in_one_line() {
    let (place, _database) = Place::with_events(3).await;
    place.run(&["init"]).good();
    place.run(&["--config", "absent.toml", "status"]).refused(2, &["absent.toml"]);
    place
        .run(&["run", "dailly"])
        .refused(2, &["no rollup `dailly`", "hint: did you mean `daily`?"]);
    let misaligned = format!("{}T06:00", day(2));
    place.run(&["run", "daily", "--slice", &misaligned]).refused(
        2,
        &[&format!("hint: the neighbours are {}T00:00:00Z and {}T00:00:00Z", day(2), day(1))],
    );
    place.run(&["backfill", "daily"]).refused(2, &["hint: --yes"]);
    place.run(&["backfill", "daily", "--json"]).refused(2, &["hint: --yes"]);
    place.run(&["replay", "daily", "--from", &day(2).to_string()]).refused(2, &["hint: --yes"]);
    place.run(&["replay", "daily"]).refused(2, &["hint: --slice START"]);
    let early = day(9).to_string();
    let early = ["backfill", "daily", "--yes", "--from", &early];
    place
        .run(&early)
        .refused(2, &[&day(9).to_string(), &day(3).to_string(), "hint: lower `start`"]);
    let empty = ["plan", "--from", &day(1).to_string(), "--to", &day(2).to_string()];
    place.run(&empty).refused(2, &["the range is empty"]);
    place.run(&["plan", "--from", "yesterday"]).refused(2, &["--from", "hint: 2025-01-01"]);

    let document = place.run(&["run", "dailly", "--json"]);
    is_documented(&document.json(), "Errors", 0);
    assert_eq!(document.json()["exit"], 2);

    place.configure(&daily(3).replace("group_by", "groupby"));
    place
        .run(&["run"])
        .refused(2, &["tallymark.toml:", "daily.groupby", "hint: did you mean `group_by`?"]);
    place.configure(&daily(3));
    place.run(&["run"]).good();
    is_right(&place).await;
}

#[tokio::test]
async fn a_missing_table_is_told_and_its_return_makes_all_good() {
    let (place, _database) = Place::with_events(2).await;
    place.run(&["init"]).good();
    place.sql("ALTER TABLE events RENAME TO hidden").await;
    for command in [&["run"][..], &["check"], &["init"], &["backfill", "daily", "--yes"]] {
        let ended = place.run(command);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let text = format!("{}{}", ended.out, ended.error());
        assert!(text.contains("public.events"), "{ended:?}");
    }
    place.sql("ALTER TABLE hidden RENAME TO events").await;
    place.run(&["run"]).good();
    is_right(&place).await;
}

/// The source is read with a separate role. `take` takes rights away from it, and `give` restores
/// them.
async fn with_a_role(name: &str, take: &str, give: &str, words: &[&str]) {
    let (mut place, database) = Place::with_events(2).await;
    let role = format!("{name}_{:08x}", fastrand::u32(..));
    place.run(&["init"]).good();
    let sql = |text: &str| text.replace('@', &role);
    place.sql(&sql("CREATE ROLE @ LOGIN; GRANT SELECT ON events TO @")).await;
    place.sql(&sql(take)).await;
    let admin = std::mem::replace(&mut place.source_url, database.url_of(&role));
    let check = place.run(&["check"]);
    check.refused(2, &["to put right"]);
    for command in [&["run"][..], &["backfill", "daily", "--yes"]] {
        place.run(command).refused(2, words);
    }
    execute(&admin, &sql(give)).await;
    place.run(&["run"]).good();
    place.source_url = admin;
    is_right(&place).await;
    place.sql(&sql("DROP OWNED BY @; DROP ROLE @")).await;
}

#[tokio::test]
async fn a_missing_privilege_is_told_and_a_grant_makes_all_good() {
    let (take, give) = ("REVOKE SELECT ON events FROM @", "GRANT SELECT ON events TO @");
    with_a_role("reader", take, give, &["may not read", "hint: as its owner: GRANT SELECT ON"])
        .await;
}

#[tokio::test]
async fn row_level_security_is_told_and_never_counted_as_nothing() {
    let (take, give) = ("ALTER TABLE events ENABLE ROW LEVEL SECURITY", "ALTER ROLE @ BYPASSRLS");
    with_a_role("filtered", take, give, &["row-level security"]).await;
}

#[tokio::test]
async fn a_refused_port_is_told() {
    let (mut place, _database) = Place::with_events(2).await;
    place.run(&["init"]).good();
    let good = place.source_url.clone();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    place.source_url = format!("postgres://app:{PASSWORD}@127.0.0.1:{port}/app");
    place.run(&["run"]).refused(3, &["source database", &format!("127.0.0.1:{port}")]);
    place.run(&["check"]).refused(3, &[]);
    place.source_url = good;
    place.run(&["run"]).good();
    is_right(&place).await;
}

/// Like one that was asleep.
#[tokio::test]
async fn a_server_that_answers_late_is_waited_for_as_long_as_its_address_says() {
    let (mut place, _database) = Place::with_events(2).await;
    place.run(&["init"]).good();
    let server = format!("127.0.0.1:{}", postgres().port());
    let late = Cutter::slow(server.clone(), Duration::from_secs(3));
    let url = place.source_url.replace(&server, &format!("127.0.0.1:{}", late.port));
    place.source_url = format!("{url}?connect_timeout=1");
    place
        .run(&["run"])
        .refused(3, &["source database", "within 1.0 s", "hint: ?connect_timeout=SECONDS"]);
    place.source_url = format!("{url}?connect_timeout=60");
    let run = place.run(&["run"]).good();
    assert!(!run.err.contains("connect_timeout"), "the driver is not told: {run:?}");
    is_right(&place).await;
}

#[tokio::test]
async fn an_absent_dynamodb_is_told_and_its_return_makes_all_good() {
    let (mut place, _database) = Place::with_events(2).await;
    place.run(&["init"]).good();
    place.stop_dynamo();
    for command in ["init", "status", "run", "plan", "check"] {
        let ended = place.run(&[command]);
        assert_eq!(ended.code, Some(3), "{ended:?}");
        let text = format!("{}{}", ended.out, ended.error());
        assert!(text.contains("dynamodb could not be reached"), "{ended:?}");
    }
    place.start_dynamo().await;
    place.run(&["run"]).good();
    is_right(&place).await;
}

/// Uses a separate server that asks for passwords.
#[tokio::test]
async fn a_wrong_password_is_told_and_not_shown() {
    let directory = server_directory("passwords");
    let binaries = Binaries::find(&cache()).unwrap();
    let server = EmbeddedPostgres::start(binaries, options(directory)).unwrap();
    let url = server.url("postgres");
    let mut place = Place::new(&url, &url, &daily(2)).await;
    place.seed(2).await;
    place.run(&["init"]).good();
    let data = server.log().parent().unwrap().join("data/pg_hba.conf");
    std::fs::write(data, "host all all 127.0.0.1/32 scram-sha-256\n").unwrap();
    let set = format!(
        "SET password_encryption = 'scram-sha-256'; ALTER ROLE tallymark PASSWORD '{PASSWORD}'; \
         SELECT pg_reload_conf()"
    );
    place.sql(&set).await;
    let good = (place.source_url.clone(), place.target_url.clone());
    let wrong = good.0.replace(PASSWORD, "another");
    (place.source_url, place.target_url) = (wrong.clone(), wrong);
    let refused = place.run(&["run"]);
    refused.refused(3, &["password authentication failed", &server.port().to_string()]);
    assert!(!refused.err.contains("another"), "{refused:?}");
    (place.source_url, place.target_url) = good;
    place.run(&["run"]).good();
    is_right(&place).await;
}

/// A directory that cannot be created is a failure of the work. A server that cannot be started is
/// out of reach.
#[tokio::test]
async fn a_demo_that_cannot_go_on_tells_why_by_its_exit_code() {
    let (place, _database) = Place::with_events(1).await;
    place.run(&["demo", "--json"]).refused(2, &["no --json"]);
    let mut demo = place.command(&["demo"]);
    demo.env("TALLYMARK_POSTGRES_BIN", "/nonexistent");
    ended(&mut demo).refused(3, &["PostgreSQL"]);
    let home = place.config().with_file_name(".tallymark");
    std::fs::remove_dir_all(&home).unwrap();
    std::fs::write(&home, "in the way").unwrap();
    place.run(&["demo"]).refused(1, &[".tallymark"]);
}

#[test]
fn every_help_fits_80_columns() {
    let tallymark = env!("CARGO_BIN_EXE_tallymark");
    for command in
        [&["--help"][..]].into_iter().chain(COMMANDS.each_ref().map(std::slice::from_ref))
    {
        let help = ended(Command::new(tallymark).args(command).arg("--help")).good().out;
        assert!(help.lines().all(|line| line.chars().count() <= 80), "{help}");
        assert!(help.contains("--config <FILE>"), "{help}");
    }
}

#[test]
fn completions_know_every_command() {
    let tallymark = env!("CARGO_BIN_EXE_tallymark");
    for shell in ["bash", "zsh", "fish"] {
        let script = ended(Command::new(tallymark).args(["completions", shell])).good().out;
        for command in COMMANDS {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn each_command_has_a_manual_page() {
    let home = tempfile::tempdir().unwrap();
    let pages = home.path().join("man1");
    let write = |place: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallymark"));
        ended(command.args([Path::new("man"), place]))
    };
    write(&pages).good();
    for command in COMMANDS {
        let page = std::fs::read_to_string(pages.join(format!("tallymark-{command}.1"))).unwrap();
        assert!(page.contains(".TH ") && page.contains("Examples:"), "{command}: {page}");
    }
    let file = home.path().join("file");
    std::fs::write(&file, "").unwrap();
    write(&file).refused(2, &["file: ", "hint: a directory that you may write"]);
}

#[tokio::test]
async fn a_closed_pipe_is_no_reason_to_panic() {
    let (place, _database) = Place::with_events(2).await;
    place.run(&["init"]).good();
    for arguments in [&["completions", "bash"][..], &["status"], &["status", "--json"], &["--help"]]
    {
        let mut child =
            place.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code().is_some() && said.is_empty(), "{arguments:?}: {said}");
    }
}
