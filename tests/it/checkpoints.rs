//! `tallymark checkpoints copy`, between a DynamoDB API and a PostgreSQL.

use std::io::Read as _;
use std::ops::ControlFlow;
use std::process::Stdio;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use serde_json::{Value, json};
use tallymark::checkpoint::{Claim, StoreCopy};
use tallymark::config::StoreKind;
use tallymark::manage::copy_checkpoints;
use tallymark::model::clock::{Clock as _, SystemClock};
use tallymark::model::hint::Hinted as _;

use crate::cli::is_documented;
use crate::support::Database;
use crate::support::cli::{Place, daily, day, end_of, execute, lines, signal, today};
use crate::support::proxy::Holder;
use crate::support::serving::LIMIT;
use crate::support::world::{EVENTS, Setup, World, clock};

const IN_DYNAMODB: &str = "[checkpoint]\nstore = \"dynamodb\"\n";
const IN_POSTGRES: &str = "[checkpoint]\nstore = \"postgres\"\n";

const TO_POSTGRES: [&str; 5] = ["checkpoints", "copy", "--to", "postgres", "--yes"];
const TO_DYNAMODB: [&str; 5] = ["checkpoints", "copy", "--to", "dynamodb", "--yes"];

const TRUTH: &str = "SELECT date_trunc('day', at, 'UTC') AS bucket, kind, count(*) AS events, \
                     sum(amount) AS revenue FROM events GROUP BY 1, 2";
const ROLLUP: &str = "SELECT bucket, kind, events, revenue FROM stats.daily";

/// Computed by one attempt each.
const SLICES: &str = "SELECT slice_start, attempt FROM tallymark.slice";

async fn is_right(place: &Place) {
    let truth = lines(&place.source_url, TRUTH).await;
    assert_eq!(lines(&place.target_url, ROLLUP).await, truth);
    assert!(!truth.is_empty());
}

/// A place whose rollup is computed, with the checkpoints in DynamoDB.
async fn computed(days: u32) -> (Place, Database) {
    let (place, database) = Place::with_events(days).await;
    place.run(&["init"]).good();
    place.run(&["backfill", "daily", "--yes"]).good();
    (place, database)
}

fn configure(place: &Place, store: &str, days: u32) {
    place.configure(&format!("{store}{}", daily(days)));
}

fn is_idle(place: &Place) {
    assert!(place.run(&["run"]).good().out.starts_with("nothing is due\n"));
}

#[tokio::test]
async fn a_copy_moves_the_work_to_the_other_store_and_back() {
    let (place, _database) = computed(4).await;
    place.run(&["pause", "daily", "--reason", "holidays"]).good();
    let attempts = lines(&place.target_url, SLICES).await;
    let copied = place.json(&TO_POSTGRES);
    is_documented(&copied, "checkpoints", 0);
    assert_eq!(copied["from"], json!({ "store": "dynamodb", "table": "tallymark" }));
    assert_eq!(copied["to"], json!({ "store": "postgres", "table": "tallymark.checkpoint" }));
    let first = &copied["rollups"][0];
    assert_eq!((&first["slices"], &first["is_new"]), (&json!(4), &json!(true)));
    let again = place.json(&TO_POSTGRES);
    assert_eq!(
        again["rollups"][0],
        json!({
            "rollup": "daily", "is_new": false, "slices": null, "other_items": null
        })
    );

    let commands: [&[&str]; 12] = [
        &["run"],
        &["run", "daily", "--slice", &format!("daily@{}T00:00:00Z", day(1))],
        &["plan"],
        &["status"],
        &["backfill", "daily", "--yes"],
        &["replay", "daily", "--failed", "--yes"],
        &["verify"],
        &["repair"],
        &["init"],
        &["resume", "daily"],
        &["rollup", "drop", "daily", "--yes"],
        &["check"],
    ];
    for command in commands {
        let ended = place.run(command);
        assert_eq!(ended.code, Some(2), "{command:?}: {ended:?}");
        let told = ended.words();
        for words in ["the target's table tallymark.checkpoint since", "store = \"postgres\""] {
            assert!(told.contains(words), "{command:?}: {told}");
        }
    }

    configure(&place, IN_POSTGRES, 4);
    assert!(place.run(&["status"]).good().out.contains("holidays"));
    place.run(&["resume", "daily"]).good();
    is_idle(&place);
    assert_eq!(lines(&place.target_url, SLICES).await, attempts);
    place.sql("UPDATE events SET amount = amount + 1").await;
    let replay = ["replay", "daily", "--from", &day(4).to_string(), "--to", &today().to_string()];
    assert_eq!(place.json(&[&replay[..], &["--yes"]].concat())["succeeded"], 4);
    is_right(&place).await;

    let text = place.run(&TO_DYNAMODB).good().out;
    let last = text.lines().last().unwrap();
    assert!(
        last.contains("tallymark.toml, set store = \"dynamodb\" and table = \"tallymark\""),
        "{text}"
    );
    place.run(&["run"]).refused(2, &["are in DynamoDB table tallymark since"]);
    configure(&place, IN_DYNAMODB, 4);
    is_idle(&place);
    let status = place.json(&["status"]);
    assert_eq!(status["rollups"][0]["watermark"], format!("{}T00:00:00Z", today()));
    assert!(lines(&place.target_url, SLICES).await.iter().all(|it| it.ends_with(",2)")));
    assert_eq!(place.json(&["verify"])["differences"], 0);
}

#[tokio::test]
async fn a_copy_to_another_table_names_it_and_wrong_requests_are_refused() {
    let (place, _database) = computed(2).await;
    configure(&place, IN_POSTGRES, 2);
    place.run(&["init"]).good();
    place.run(&["repair"]).good();
    for (arguments, words) in [
        (&["--to", "postgres", "--yes"][..], ["already", "hint: name the other store"]),
        (
            &["--to", "dynamodb", "--table", "x", "--yes"],
            ["not a DynamoDB table name", "hint: 3 to 255"],
        ),
        // The table that the first configuration used.
        (
            &["--to", "dynamodb", "--yes"],
            ["DynamoDB table tallymark holds other", "hint: choose another"],
        ),
        (&["--to", "dynamodb", "--table", "second"], ["Copy them?", "hint: --yes"]),
    ] {
        place.run(&[&["checkpoints", "copy"], arguments].concat()).refused(2, &words);
    }
    is_idle(&place);
    let second = ["checkpoints", "copy", "--to", "dynamodb", "--table", "second", "--yes"];
    place.run(&second).good();
    place.run(&TO_DYNAMODB).refused(2, &["DynamoDB table second", "hint: table = \"second\""]);
    configure(&place, "[checkpoint]\ntable = \"second\"\n", 2);
    is_idle(&place);
    configure(&place, IN_DYNAMODB, 2);
    let with_table = ["checkpoints", "copy", "--to", "postgres", "--table", "second", "--yes"];
    place.run(&with_table).refused(2, &["names a table in DynamoDB"]);
    is_right(&place).await;
}

/// Takes the lease on a slice of `daily`, as a worker that is at work.
async fn hold(place: &Place) {
    let (checkpoints, now) = (place.checkpoints(), SystemClock.now());
    let slice_start = day(1).and_time(chrono::NaiveTime::MIN).and_utc();
    checkpoints.reopen("daily", slice_start, "test", now).await.unwrap();
    let (rollup, definition) = ("daily", "other");
    let deadline = now + TimeDelta::hours(1);
    checkpoints.claim(&Claim { rollup, slice_start, definition, now, deadline }).await.unwrap();
}

#[tokio::test]
async fn while_a_lease_is_held_nothing_is_copied_and_its_holder_is_named() {
    let (place, _database) = computed(2).await;
    hold(&place).await;
    let slice = format!("holds daily@{}T00:00:00Z until ", day(1));
    for _ in 0..2 {
        place.run(&TO_POSTGRES).refused(2, &["(pid ", &slice, "hint: end all workers"]);
        assert_eq!(place.run(&["status"]).code, Some(0));
    }
    let made = "SELECT to_regclass('tallymark.checkpoint')";
    assert_eq!(lines(&place.target_url, made).await, ["()"]);
    end_leases(&place).await;
    place.run(&TO_POSTGRES).good();
    configure(&place, IN_POSTGRES, 2);
    place.run(&["run"]).good();
    is_idle(&place);
    is_right(&place).await;
}

/// Sets the end of every lease to the past.
async fn end_leases(place: &Place) {
    let client = place.dynamo();
    let items = client.scan().table_name("tallymark").send().await.unwrap().items.unwrap();
    for mut item in items.into_iter().filter(|item| item.contains_key("lease_until")) {
        item.insert("lease_until".into(), AttributeValue::N("1".into()));
        client.put_item().table_name("tallymark").set_item(Some(item)).send().await.unwrap();
    }
}

fn standings(place: &Place) -> Value {
    place.json(&["status"])["rollups"][0]["standings"].clone()
}

/// Killed at random instants, forth and back. Between them the one store or the other works.
#[tokio::test]
async fn a_copy_that_is_killed_is_run_again_and_loses_nothing() {
    const DAYS: u32 = 300;
    let (place, _database) = computed(DAYS).await;
    let attempts = lines(&place.target_url, SLICES).await;
    let before = standings(&place);
    for (copy, next) in [(TO_POSTGRES, IN_POSTGRES), (TO_DYNAMODB, IN_DYNAMODB)] {
        let mut kills = 0;
        for wait in [20, 60, 120, 200, 300, 450] {
            let mut command = place.command(&copy);
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            thread::sleep(Duration::from_millis(wait));
            kills += u32::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        assert!(kills > 1, "{kills} copies were killed");
        place.run(&copy).good();
        place.run(&["run"]).refused(2, &["hint: in [checkpoint]"]);
        configure(&place, next, DAYS);
        assert_eq!(standings(&place), before);
        is_idle(&place);
    }
    assert_eq!(lines(&place.target_url, SLICES).await, attempts);
    is_right(&place).await;
}

/// In the middle of the writing, by both signals. A frozen path to the target holds it there.
#[tokio::test]
async fn a_signal_ends_a_copy_and_the_same_command_goes_on() {
    const DAYS: u32 = 40;
    let (place, _database) = computed(DAYS).await;
    let attempts = lines(&place.target_url, SLICES).await;
    let before = standings(&place);
    // The second copy goes on where the first one ended.
    for (name, code, held) in [("INT", 130, 20), ("TERM", 143, 5)] {
        let held: &'static str = format!("{}T00:00:00Z", day(held)).leak();
        let (holder, target) = Holder::way(&place.target_url, held);
        let mut command = place.command(&TO_POSTGRES);
        command.env("SOURCE_DATABASE_URL", &target).env("TARGET_DATABASE_URL", &target);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        tokio::time::timeout(LIMIT, holder.holds()).await.expect("it copies");
        signal(child.id(), name);
        let status = end_of(&mut child).await;
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(status.code(), Some(code), "{said}");
        assert_eq!(said.matches("the same command goes on from here").count(), 1, "{said}");
        // The new store does not count yet.
        configure(&place, IN_POSTGRES, DAYS);
        place.run(&["run"]).refused(2, &["is unfinished", "hint: checkpoints copy"]);
        configure(&place, IN_DYNAMODB, DAYS);
    }
    place.run(&TO_POSTGRES).good();
    configure(&place, IN_POSTGRES, DAYS);
    assert_eq!(standings(&place), before);
    is_idle(&place);
    assert_eq!(lines(&place.target_url, SLICES).await, attempts);
    is_right(&place).await;
}

#[tokio::test]
async fn workers_are_told_of_a_copy_that_is_unfinished() {
    let (place, _database) = computed(2).await;
    place.run(&TO_POSTGRES).good();
    let unfinished = "UPDATE tallymark.checkpoint SET item = jsonb_build_object('fill_id', \
        item->'copy_id', 'filling_from', jsonb_build_object('place', 'DynamoDB table tallymark', \
        'setting', 'store = \"dynamodb\"', 'at', '2026-11-29T10:00:00.000Z')) WHERE sort = 'watermark'";
    execute(&place.target_url, unfinished).await;
    let words = [
        "from DynamoDB table tallymark is unfinished",
        "hint: store = \"dynamodb\"",
        "hint: checkpoints copy",
    ];
    configure(&place, IN_POSTGRES, 2);
    for command in [&["run"][..], &["status"], &TO_DYNAMODB] {
        place.run(command).refused(2, &words);
    }
    configure(&place, IN_DYNAMODB, 2);
    place.run(&TO_POSTGRES).good();
    configure(&place, IN_POSTGRES, 2);
    is_idle(&place);
}

/// It has read all that a process reads once before the copy, so only the check before its claim
/// is left.
#[tokio::test]
async fn a_worker_that_was_at_work_before_the_copy_claims_nothing_after_it() {
    let rows = "INSERT INTO events (created_at, kind, amount) VALUES ('2026-01-01 10:00Z', 'a', 1)";
    let now = Arc::new(clock("2026-01-04T12:00:00Z"));
    let setup = Setup { clock: now, ..Setup::default() };
    let world = World::new(&format!("{EVENTS}; {rows}"), setup).await;
    assert!(world.run("2026-01-01").await.is_success());
    let (worker, config) = (&world.worker, &world.worker.config);
    let to = copy_checkpoints::store(config, StoreKind::Postgres, None).await.unwrap();
    let on = |_: &str, _: u64| ControlFlow::Continue(());
    let copy = StoreCopy::new(&worker.checkpoints, &to, &*worker.clock, &on);
    let planned = copy_checkpoints::plan(worker, &copy).await.unwrap();
    copy_checkpoints::prepare(&to).await.unwrap();
    let copied = copy_checkpoints::run(&copy, &planned).await.unwrap();
    assert_eq!((copied.len(), copied[0].slices), (1, Some(1)));
    let refused = world.try_run("2026-01-02").await.unwrap_err().in_one_line();
    assert!(
        refused.contains("tallymark.checkpoint") && refused.contains("[checkpoint]"),
        "{refused}"
    );
    assert_eq!(world.checkpoint("2026-01-02").await, None);
    assert_eq!(world.target_value("SELECT count(*) FROM tallymark.slice").await, "1");
}
