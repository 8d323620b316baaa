//! Checkpoints in the target: `[checkpoint] store = "postgres"`, at a user's default settings.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use tallymark::checkpoint::{Pause, Scope, State};

use crate::faults::through;
use crate::support::cli::{Ended, Place, daily, day, ended, execute, lines, today};
use crate::support::pooler::PgBouncer;
use crate::support::proxy::Cut;
use crate::support::world::{
    EVENTS, Keeper, STORE as STORE_NAME, Setup, World, instant, random_events,
};
use crate::support::{Database, postgres};

/// The line that a user adds.
const STORE: &str = "[checkpoint]\nstore = \"postgres\"\n";

/// The result of one GROUP BY for the rollup `daily`.
const TRUTH: &str = "SELECT date_trunc('day', at, 'UTC') AS bucket, kind, count(*) AS events, \
                     sum(amount) AS revenue FROM events GROUP BY 1, 2";
const ROLLUP: &str = "SELECT bucket, kind, events, revenue FROM stats.daily";

/// The tests that are played on both stores.
const GROUPS: [&str; 3] =
    ["spine::", "due::", "compose::a_worker_killed_between_commit_and_reopening_loses_nothing"];

/// Those among them that change items through DynamoDB's API.
const ELSEWHERE: [&str; 3] = [
    "a_rollup_with_a_broken_checkpoint_does_not_stop_the_others",
    "every_slice_without_success_is_found_without_asking_the_source",
    "trouble_in_a_batch_lets_the_slices_in_flight_end",
];

/// The slices of `rollup` whose checkpoint, marker and rows contradict each other. One statement sees
/// one instant.
pub(crate) fn contradictions(rollup: &str) -> String {
    format!(
        "SELECT coalesce(c.sort, s.slice_start::text), c.item, s.replaced_owner \
         FROM (SELECT *, sort::timestamptz AS at FROM tallymark.checkpoint WHERE sort < 'A') AS c \
         FULL JOIN tallymark.slice AS s ON s.rollup = c.rollup AND s.slice_start = c.at \
         CROSS JOIN LATERAL (SELECT coalesce(sum(r.events), 0) AS counted FROM stats.{rollup} AS r \
             WHERE r.bucket >= s.slice_start AND r.bucket < s.slice_end) AS r \
         WHERE coalesce(s.rollup, c.rollup) = '{rollup}' AND ( \
            (c.item->>'state' = 'succeeded' AND c.item->>'owner' IS DISTINCT FROM s.replaced_owner) \
            OR (c.item->>'state' = 'running' AND c.item->>'owner' = s.replaced_owner) \
            OR (s.replaced_at IS NOT NULL AND s.rows_read <> r.counted))"
    )
}

/// The rollup `daily` contradicts nothing.
async fn agrees(place: &Place) {
    assert_eq!(lines(&place.target_url, &contradictions("daily")).await, [""; 0]);
}

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
        .refused(2, &["table `tallymark.checkpoint` does not exist", "hint: tallymark init"]);
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
    assert!(run(&place, &["run"]).good().out.starts_with("nothing is due\n"));

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
    run(&place, &["run"]).refused(2, &["hint: tallymark repair"]);
    run(&place, &["repair"]).good();
    assert!(run(&place, &["run"]).good().out.starts_with("nothing is due\n"));
    agrees(&place).await;
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
    assert!(init.starts_with(there), "{init}");
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
    run(&place, &["run"]).refused(2, &["hint: tallymark repair"]);
    run(&place, &["repair"]).good();
    assert!(run(&place, &["run"]).good().out.starts_with("nothing is due\n"));
    agrees(&place).await;
}

/// Kills a worker at random instants. All the while the three agree, without a repair.
#[tokio::test]
async fn rows_marker_and_checkpoint_never_contradict_each_other() {
    const KILLS: u64 = 50;
    const KILLS_MAX: u64 = 200;
    const DAYS: u32 = 400;
    let (place, _database) = place_with(DAYS).await;
    hurry(&place, DAYS);
    run(&place, &["init"]).good();
    let backfill = ["backfill", "daily", "--budget", "1s", "--concurrency", "2", "--yes"];
    let mut is_hit = false;
    for kills in 1..=KILLS_MAX {
        let mut child = quiet(&mut bare(&place, &backfill)).spawn().unwrap();
        // A busy machine takes long to start a process.
        let longest = if is_hit { 400 } else { 400 + 20 * kills };
        thread::sleep(Duration::from_millis(fastrand::u64(20..=longest)));
        agrees(&place).await;
        child.kill().unwrap();
        child.wait().unwrap();
        let running = "SELECT FROM tallymark.checkpoint WHERE item->>'state' = 'running'";
        is_hit |= !lines(&place.target_url, running).await.is_empty();
        if is_hit && kills >= KILLS {
            break;
        }
    }
    assert!(is_hit, "no kill hit a slice");
    agrees(&place).await;
    run(&place, &["backfill", "daily", "--budget", "60s", "--yes"]).good();
    agrees(&place).await;
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
    agrees(&place).await;
    is_right(&place).await;
}

/// Hours and the days that are computed from them.
const HOURS_AND_DAYS: &str = r#"
[[rollup]]
name = "hourly"
from = "public.events"
time = "created_at"
start = "2026-01-01"
slice = "1 hour"
measures.events = "count"
[[rollup]]
name = "daily"
from = { rollup = "hourly" }
slice = "1 day"
measures = ["events"]
"#;

#[tokio::test]
async fn the_hours_of_a_day_that_are_replaced_at_once_reopen_it_and_never_deadlock() {
    let keeper = Keeper::Target;
    let setup = Setup { rollups: HOURS_AND_DAYS, concurrency: 24, keeper, ..Setup::default() };
    let world = World::new(&format!("{EVENTS}; {}", random_events(1, 5_000)), setup).await;
    let to = "2026-01-02T00:00:00Z";
    let [hourly, daily] = &world.worker.config.rollups[..] else { panic!("two rollups") };
    world.backfill_one(hourly, to, false).await;
    world.backfill_one(daily, to, false).await;
    world.sql("INSERT INTO events (created_at) SELECT created_at FROM events").await;
    let hours: Vec<_> = hourly.calendar.slices(hourly.start, instant(to)).collect();
    for hour in &hours {
        world.reopen(&hour.start().to_rfc3339()).await;
    }
    join_all(hours.iter().map(async |hour| {
        // The wait for a lock has a limit. On a machine that stood still the test tries again.
        loop {
            let report = world.run(&hour.start().to_rfc3339()).await;
            if report.is_success() {
                break;
            }
            let reason = report.reason.unwrap_or_default();
            assert!(reason.contains("lock timeout"), "{reason}");
        }
    }))
    .await;
    let day = world.worker.checkpoints.get("daily", instant("2026-01-01")).await.unwrap().unwrap();
    assert_eq!((day.state, day.dirty), (State::Stale, 24));
    world.backfill_one(daily, to, false).await;
    assert_eq!(world.target_value("SELECT events FROM stats.daily").await, "10000");
}

/// Cuts the connection of the slice's replacement once the server has committed.
const COMMITTED: Cut = Cut { first: Some("-- Writes the marker"), said: "COMMIT\0", bytes: 0 };

#[tokio::test]
async fn a_slice_whose_commit_got_no_answer_is_reported_as_the_store_has_it() {
    let (mut place, _database) = place_with(2).await;
    run(&place, &["init"]).good();
    let direct = place.source_url.clone();
    let slice = format!("daily@{}T00:00:00Z", day(1));
    execute(&direct, REOPENED_MEANWHILE).await;
    for (outcome, attempt) in [("stale", 1), ("succeeded", 2)] {
        let (proxied, cutter) = through(&direct, COMMITTED);
        (place.source_url, place.target_url) = (proxied.clone(), proxied);
        let ended = run(&place, &["run", "daily", "--slice", &slice, "--json"]);
        assert!(cutter.has_cut(), "{ended:?}");
        let report = &ended.json()["slices"][0];
        assert_eq!((&report["outcome"], &report["attempt"]), (&json!(outcome), &json!(attempt)));
        assert_eq!(report["rows_read"], 240);
        execute(&direct, "DROP TRIGGER IF EXISTS reopen ON stats.daily").await;
    }
    (place.source_url, place.target_url) = (direct.clone(), direct);
    agrees(&place).await;
    run(&place, &["run"]).good();
    is_right(&place).await;
}

#[tokio::test]
async fn a_completion_that_the_server_refuses_leaves_the_rows_as_they_were() {
    let (place, _database) = place_with(2).await;
    run(&place, &["init"]).good();
    execute(&place.target_url, REFUSED_COMPLETION).await;
    run(&place, &["run"]).refused(1, &["table `tallymark.checkpoint` failed", "not today"]);
    assert_eq!(lines(&place.target_url, ROLLUP).await, [""; 0]);
    agrees(&place).await;
    // The slice was given back, so nothing waits for a lease.
    execute(&place.target_url, "DROP TRIGGER refuse ON tallymark.checkpoint").await;
    run(&place, &["run"]).good();
    is_right(&place).await;
}

/// A trigger that refuses to record that a slice is done.
const REFUSED_COMPLETION: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
    'BEGIN RAISE EXCEPTION ''not today''; END'; \
    CREATE TRIGGER refuse BEFORE UPDATE ON tallymark.checkpoint FOR EACH ROW \
    WHEN (NEW.item->>'state' = 'succeeded') EXECUTE FUNCTION refuse()";

/// A trigger that reopens the slice whose rows are replaced.
const REOPENED_MEANWHILE: &str = "CREATE FUNCTION reopen() RETURNS trigger LANGUAGE plpgsql AS \
    'BEGIN UPDATE tallymark.checkpoint SET item = item || jsonb_build_object(''dirty'', \
        (item->>''dirty'')::int + 1) WHERE item->>''state'' = ''running''; RETURN NULL; END'; \
    CREATE TRIGGER reopen AFTER INSERT OR UPDATE ON stats.daily EXECUTE FUNCTION reopen()";

/// A trigger that notes the limit of idleness in the transaction that replaces rows.
const NOTED_LIMIT: &str = "CREATE TABLE public.limits (idle text); \
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.limits \
        SELECT current_setting(''idle_in_transaction_session_timeout''); RETURN NULL; END'; \
    CREATE TRIGGER note AFTER INSERT ON stats.daily EXECUTE FUNCTION note()";

/// Other workers wait no longer for one that is frozen.
#[tokio::test]
async fn a_transaction_that_has_the_marker_may_be_idle_for_ten_seconds() {
    let sql = format!("{EVENTS}; {}", random_events(1, 50));
    let world = World::new(&sql, Setup::default()).await;
    world.target_sql(NOTED_LIMIT).await;
    let report = world.run("2026-01-01").await;
    assert!(report.is_success(), "{report:?}");
    assert_eq!(world.target_value("SELECT DISTINCT idle FROM public.limits").await, "10s");
}

/// A server ends idle sessions with a message, which the next write would take for its answer.
#[tokio::test]
async fn a_write_on_a_session_that_was_ended_while_it_was_idle_is_made_on_a_new_one() {
    let keeper = Keeper::TargetsClock;
    let world = World::new(EVENTS, Setup { keeper, ..Setup::default() }).await;
    let checkpoints = &world.worker.checkpoints;
    for nth in 1..=3 {
        let at = instant("2026-01-01");
        let pause = Pause { at, reason: format!("the {nth}th"), until: None };
        checkpoints.set_pause(Scope::Source, Some(&pause)).await.unwrap();
        let reason = "SELECT count(*) FROM tallymark.checkpoint WHERE item::text LIKE";
        let reason = format!("{reason} '%the {nth}th%'");
        assert_eq!(world.target_value(&reason).await, "1");
        world.target_sql(ENDED).await;
    }
}

/// Ends Tallymark's sessions, and waits until they are gone.
const ENDED: &str = "DO $$ BEGIN PERFORM pg_terminate_backend(pid, 60000) FROM pg_stat_activity \
    WHERE datname = current_database() AND application_name LIKE 'tallymark%'; END $$";

/// The same tests as with DynamoDB, in a process of its own.
#[test]
fn what_holds_with_dynamodb_holds_with_checkpoints_in_the_target() {
    let mut tests = Command::new(std::env::current_exe().unwrap());
    tests.args(GROUPS).args(ELSEWHERE.map(|test| format!("--skip={test}")));
    tests.args(["--test-threads", "2"]).env(STORE_NAME, "postgres");
    let ended = tests.output().unwrap();
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{text}");
    assert!(!text.contains("running 0 tests"), "{text}");
}
