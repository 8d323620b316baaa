//! Checkpoints in the target: `[checkpoint] store = "postgres"`, at a user's default settings.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::support::cli::{Ended, Place, daily, day, ended, execute, lines, today};
use crate::support::pooler::PgBouncer;
use crate::support::{Database, postgres};

/// The line that a user adds.
const STORE: &str = "[checkpoint]\nstore = \"postgres\"\n";

/// The result of one GROUP BY for the rollup `daily`.
const TRUTH: &str = "SELECT date_trunc('day', at, 'UTC') AS bucket, kind, count(*) AS events, \
                     sum(amount) AS revenue FROM events GROUP BY 1, 2";
const ROLLUP: &str = "SELECT bucket, kind, events, revenue FROM stats.daily";

/// The slices whose checkpoint, marker and rows contradict each other. One statement sees one
/// instant.
const CONTRADICTIONS: &str = "SELECT coalesce(c.sort, s.slice_start::text), c.item, s.replaced_owner \
    FROM (SELECT *, sort::timestamptz AS at FROM tallymark.checkpoint WHERE sort < 'A') AS c \
    FULL JOIN tallymark.slice AS s ON s.rollup = c.rollup AND s.slice_start = c.at \
    CROSS JOIN LATERAL (SELECT coalesce(sum(d.events), 0) AS counted FROM stats.daily AS d \
        WHERE d.bucket >= s.slice_start AND d.bucket < s.slice_end) AS d \
    WHERE (c.item->>'state' = 'succeeded' AND c.item->>'owner' IS DISTINCT FROM s.replaced_owner) \
       OR (s.replaced_at IS NOT NULL AND s.rows_read <> d.counted)";

/// A database with `days` days of events, and a configuration with nothing but addresses, the store
/// and the rollup.
async fn place_with(days: u32) -> (Place, Database) {
    let (mut place, database) = Place::with_events(days).await;
    place.stop_dynamo();
    place.configure_plain(&format!("{STORE}{}", daily(days)));
    (place, database)
}

/// The command without any setting of AWS, from the environment or a home directory.
fn bare(place: &Place, arguments: &[&str]) -> Command {
    let mut command = place.command(arguments);
    let urls = ["SOURCE_DATABASE_URL", "TARGET_DATABASE_URL"].map(|name| {
        let value = command.get_envs().find(|(known, _)| *known == name);
        (name, value.and_then(|(_, value)| value).unwrap().to_owned())
    });
    command.env_clear().envs(urls);
    command
}

fn run(place: &Place, arguments: &[&str]) -> Ended {
    ended(&mut bare(place, arguments))
}

fn json_of(place: &Place, arguments: &[&str]) -> serde_json::Value {
    run(place, &[arguments, &["--json"]].concat()).good().json()
}

/// Takes no rests and four slots, for tests of many slices.
fn hurry(place: &Place, days: u32) {
    place.configure_source("nice_ratio = 0\nslots = 4", &format!("{STORE}{}", daily(days)));
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdout(Stdio::null()).stderr(Stdio::null())
}

async fn is_right(place: &Place) {
    let truth = lines(&place.source_url, TRUTH).await;
    assert_eq!(lines(&place.target_url, ROLLUP).await, truth);
    assert!(!truth.is_empty());
}

#[tokio::test]
async fn every_command_works_without_anything_of_aws() {
    let (place, _database) = place_with(4).await;
    let before = run(&place, &["check"]).good().out;
    assert!(before.contains("table tallymark.checkpoint is not there yet"), "{before}");
    run(&place, &["run"])
        .refused(2, &["table `tallymark.checkpoint` does not exist", "tallymark init"]);
    let init = json_of(&place, &["init"]);
    let table = json!({ "name": "tallymark.checkpoint", "state": "created" });
    assert_eq!(init["checkpoint_table"], table);
    let again = json_of(&place, &["init"]);
    assert_eq!(again["checkpoint_table"]["state"], "already there");
    assert_eq!(again["statements"], json!([]));
    let check = run(&place, &["check"]).good().out;
    assert!(check.contains("table tallymark.checkpoint is ACTIVE"), "{check}");

    let slice = format!("daily@{}T00:00:00Z", day(1));
    let one = json_of(&place, &["run", "daily", "--slice", &slice]);
    assert_eq!(one["slices"][0]["rows_read"], 240);
    assert_eq!(json_of(&place, &["backfill", "daily", "--yes"])["succeeded"], 3);
    is_right(&place).await;
    assert_eq!(run(&place, &["run"]).good().out, "nothing is due\n");

    place.sql("UPDATE events SET amount = amount + 1").await;
    run(&place, &["verify"]).refused(1, &["in 12 groups"]);
    let replay = ["replay", "daily", "--from", &day(4).to_string(), "--to", &today().to_string()];
    assert_eq!(json_of(&place, &[&replay[..], &["--yes"]].concat())["updated"], 12);
    assert_eq!(json_of(&place, &["verify"])["differences"], 0);
    is_right(&place).await;

    run(&place, &["pause", "daily", "--reason", "holidays"]).good();
    assert!(run(&place, &["status"]).good().out.contains("holidays"));
    run(&place, &["resume", "daily"]).good();
    let status = json_of(&place, &["status"]);
    assert_eq!(status["rollups"][0]["watermark"], format!("{}T00:00:00Z", today()));
}

#[tokio::test]
async fn checkpoints_that_were_lost_are_restored_from_the_markers() {
    let (place, _database) = place_with(3).await;
    run(&place, &["init"]).good();
    run(&place, &["run"]).good();
    execute(&place.target_url, "DELETE FROM tallymark.checkpoint").await;
    run(&place, &["run"]).refused(2, &["tallymark repair"]);
    run(&place, &["repair"]).good();
    assert_eq!(run(&place, &["run"]).good().out, "nothing is due\n");
    assert_eq!(lines(&place.target_url, CONTRADICTIONS).await, [""; 0]);
    is_right(&place).await;
}

#[tokio::test]
async fn the_sql_of_a_dry_run_makes_the_table_too() {
    let (place, _database) = place_with(2).await;
    let printed = run(&place, &["init", "--dry-run"]).good().out;
    assert!(printed.contains("CREATE TABLE tallymark.checkpoint"), "{printed}");
    assert!(!printed.contains("aws "), "{printed}");
    execute(&place.target_url, &printed).await;
    let init = run(&place, &["init"]).good().out;
    let there = "checkpoint table tallymark.checkpoint: already there\nrollup tables: all there\n";
    assert_eq!(init, there);
    run(&place, &["run"]).good();
    is_right(&place).await;
}

#[tokio::test]
async fn after_a_change_of_the_store_a_repair_goes_on_where_the_other_ended() {
    let (place, _database) = Place::with_events(3).await;
    place.run(&["init"]).good();
    place.run(&["run"]).good();
    place.configure_plain(&format!("{STORE}{}", daily(3)));
    run(&place, &["init"]).good();
    run(&place, &["run"]).refused(2, &["tallymark repair"]);
    run(&place, &["repair"]).good();
    assert_eq!(run(&place, &["run"]).good().out, "nothing is due\n");
    assert_eq!(lines(&place.target_url, CONTRADICTIONS).await, [""; 0]);
}

/// Kills a worker at random instants. All the while the three agree, without a repair.
#[tokio::test]
async fn rows_marker_and_checkpoint_never_contradict_each_other() {
    const KILLS: u32 = 15;
    let (place, _database) = place_with(200).await;
    hurry(&place, 200);
    run(&place, &["init"]).good();
    let backfill = ["backfill", "daily", "--budget", "1s", "--concurrency", "2", "--yes"];
    let mut is_hit = false;
    for _ in 0..KILLS {
        let mut child = quiet(&mut bare(&place, &backfill)).spawn().unwrap();
        thread::sleep(Duration::from_millis(fastrand::u64(20..=400)));
        assert_eq!(lines(&place.target_url, CONTRADICTIONS).await, [""; 0]);
        child.kill().unwrap();
        child.wait().unwrap();
        let running = "SELECT FROM tallymark.checkpoint WHERE item->>'state' = 'running'";
        is_hit |= !lines(&place.target_url, running).await.is_empty();
    }
    assert!(is_hit, "no kill hit a slice");
    assert_eq!(lines(&place.target_url, CONTRADICTIONS).await, [""; 0]);
    run(&place, &["backfill", "daily", "--budget", "60s", "--yes"]).good();
    assert_eq!(lines(&place.target_url, CONTRADICTIONS).await, [""; 0]);
    is_right(&place).await;
}

#[tokio::test]
async fn two_workers_share_the_slices_through_a_transaction_pooler() {
    let (mut place, _database) = place_with(60).await;
    hurry(&place, 60);
    run(&place, &["init"]).good();
    let Some(pooler) = PgBouncer::start(postgres().port(), 3) else {
        eprintln!("skipped: PgBouncer is not installed (apt-get install pgbouncer)");
        return;
    };
    let direct = place.source_url.clone();
    let (here, there) = (format!(":{}/", postgres().port()), format!(":{}/", pooler.port));
    place.source_url = direct.replace(&here, &there);
    place.target_url = place.source_url.clone();
    let backfill = ["backfill", "daily", "--concurrency", "2", "--yes"];
    let mut other = quiet(&mut bare(&place, &backfill)).spawn().unwrap();
    run(&place, &backfill).good();
    assert!(other.wait().unwrap().success());
    run(&place, &backfill).good();
    place.source_url = direct.clone();
    place.target_url = direct;
    let once = "SELECT count(*), max((item->>'attempt')::int), bool_and(item->>'state' = 'succeeded') \
                FROM tallymark.checkpoint WHERE sort < 'A'";
    assert_eq!(lines(&place.target_url, once).await, ["(60,1,t)"]);
    assert_eq!(lines(&place.target_url, CONTRADICTIONS).await, [""; 0]);
    is_right(&place).await;
}
