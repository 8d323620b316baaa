//! Many rollups at a glance: a line each, one backfill of all, and what is due next.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use chrono::{DateTime, Utc};
use serde_json::json;
use tallymark::model::clock::{Clock as _, SystemClock};

use crate::cli::is_documented;
use crate::support::Database;
use crate::support::cli::{Place, daily, day, end_of, lines, signal};

/// A coarse rollup of `daily`, which stands before it in the file.
const TOTAL: &str = "[[rollup]]\nname = \"total\"\nfrom = { rollup = \"daily\" }\nslice = \"1 day\"\n\
    measures = [\"events\"]\n";

/// A rollup whose slices fail, as some amounts are 0.
fn broken(days: u32) -> String {
    let named = daily(days).replace("\"daily\"", "\"broken\"");
    named.replace("slice =", "where = \"1 / amount::int >= 0\"\nslice =")
}

async fn place_of(days: u32, rollups: &str) -> (Place, Database) {
    let database = Database::create().await;
    let place = Place::new(&database.url(), &database.url(), rollups).await;
    place.seed(days).await;
    (place, database)
}

#[tokio::test]
async fn one_backfill_computes_all_rollups_finer_ones_first() {
    let (place, _database) = place_of(4, &format!("{TOTAL}{}", daily(4))).await;
    let init = place.run(&["init"]).good().out;
    assert!(init.contains("tables made: stats.total, stats.daily\n"), "{init}");
    assert!(init.ends_with("next: `tallymark backfill --all`\n"), "{init}");
    place.run(&["backfill", "--all"]).refused(2, &["hint: pass --yes"]);
    place.run(&["backfill", "--all", "daily"]).refused(2, &["cannot be used with"]);

    // A limit ends it in the middle. The same command goes on.
    let limited = ["backfill", "--all", "--yes", "--max-rows", "500"];
    place.run(&limited).refused(
        1,
        &["daily: 2 slices left", "not begun: total", "hint: run the same command again"],
    );
    let all = place.run(&["backfill", "--all", "--yes"]).good().out;
    let plan = "backfill of 2 rollups, 6 slices to compute, finer rollups first";
    assert!(all.starts_with(plan), "{all}");
    assert!(all.contains("daily: 2 slices") && all.contains("total: 4 slices"), "{all}");
    let sum = "SELECT (SELECT sum(events) FROM stats.total), (SELECT sum(events) FROM stats.daily)";
    assert_eq!(lines(&place.target_url, sum).await, ["(960,960)"]);

    let nothing = place.run(&["backfill", "--all"]).good().out;
    assert!(nothing.contains("2 rollups: nothing to compute"), "{nothing}");
    let forced = place.json(&["backfill", "--all", "--force", "--yes"]);
    is_documented(&forced, "backfill", 1);
    let names: Vec<_> =
        forced["rollups"].as_array().unwrap().iter().map(|it| it["rollup"].clone()).collect();
    assert_eq!(names, [json!("daily"), json!("total")]);
    assert_eq!(forced["rollups"][1]["unchanged"], 4);
    let from = day(2).to_string();
    let part = place.json(&["backfill", "--all", "--force", "--yes", "--from", &from]);
    assert_eq!(part["rollups"][0]["succeeded"], 2, "{part}");
}

#[tokio::test]
async fn one_line_a_rollup_says_what_fails_and_what_is_due_next() {
    let (place, _database) = place_of(3, &(daily(3) + &broken(3) + TOTAL)).await;
    place.run(&["init"]).good();
    let ran = place.run(&["run"]);
    assert!(ran.out.contains("next due: broken, "), "{ran:?}");
    let status = place.run(&["status"]).good().out;
    let words = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(status.lines().count(), 5, "{status}");
    let today = format!("{}T00:00Z", day(0));
    assert_eq!(words("daily")[1..3], ["ok".to_owned(), today.clone()]);
    assert_eq!(words("total")[1..3], ["ok".to_owned(), today]);
    let failing = words("broken");
    assert_eq!(failing[1..3], ["failing".to_owned(), format!("{}T00:00Z", day(3))]);
    assert_eq!(failing[5..7], ["3".to_owned(), "0".to_owned()], "{status}");
    let named = place.run(&["status", "broken"]).good().out;
    assert!(named.contains("unfinished, newest first"), "{named}");

    let document = place.json(&["status"]);
    is_documented(&document, "status", 0);
    let states: Vec<_> =
        document["rollups"].as_array().unwrap().iter().map(|it| it["state"].clone()).collect();
    assert_eq!(states, [json!("ok"), json!("failing"), json!("ok")]);
    assert_eq!(document["rollups"][1]["failing"], 3);

    metrics(&place);

    // The next slice of a rollup that is complete is due at its end and its grace.
    let next = place.json(&["run", "daily"])["next_due"].clone();
    assert_eq!(next["rollup"], "daily");
    let at: DateTime<Utc> = next["at"].as_str().unwrap().parse().unwrap();
    assert!(at > SystemClock.now() - chrono::TimeDelta::minutes(5), "{next}");
    assert_eq!(at.to_rfc3339(), format!("{}T00:02:00+00:00", at.date_naive()), "{next}");
}

/// The same state for a collector that reads files.
fn metrics(place: &Place) {
    place.run(&["status", "--format", "prometheus", "--json"]).refused(2, &["--format and --json"]);
    let samples = |arguments: &[&str]| {
        let text =
            place.run(&[&["status", "--format", "prometheus"], arguments].concat()).good().out;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let pair = |line: &str| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse::<f64>().unwrap())
        };
        lines.map(pair).collect::<std::collections::BTreeMap<_, _>>()
    };
    let all = samples(&[]);
    #[expect(clippy::cast_precision_loss, reason = "an instant in seconds")]
    let today = day(0).and_time(chrono::NaiveTime::MIN).and_utc().timestamp() as f64;
    for (series, value) in [
        ("tallymark_slices_exhausted", 0.0),
        ("tallymark_backfills_active", 0.0),
        ("tallymark_watermark_lag_seconds", 3.0 * 86_400.0),
        ("tallymark_rollup_complete_through_timestamp_seconds{rollup=\"daily\"}", today),
        ("tallymark_rollup_slices_failing{rollup=\"broken\"}", 3.0),
        ("tallymark_rollup_slices_left{rollup=\"total\"}", 0.0),
        ("tallymark_rollup_state{rollup=\"broken\",state=\"failing\"}", 1.0),
        ("tallymark_rollup_state{rollup=\"daily\",state=\"ok\"}", 1.0),
    ] {
        assert_eq!(all.get(series), Some(&value), "{series}: {all:?}");
    }
    // One rollup says nothing of all.
    let one = samples(&["daily"]);
    assert!(!one.contains_key("tallymark_watermark_lag_seconds"), "{one:?}");
    assert!(one.keys().all(|series| !series.contains("broken")), "{one:?}");
}

#[tokio::test]
async fn a_watch_prints_each_change_and_ends_at_a_signal() {
    let (place, _database) = place_of(2, &(daily(2) + TOTAL)).await;
    place.run(&["init"]).good();
    place.run(&["status", "--watch", "--json"]).refused(2, &["--watch and --json"]);
    let mut command = place.command(&["status", "--watch", "--every", "1s"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    for name in ["daily: behind, complete through ", "total: behind, "] {
        let line = next();
        assert!(line.contains(name), "{line}");
    }
    place.run(&["run"]).good();
    let ok = format!("daily: ok, complete through {}T00:00Z, 0 failing, 0 left", day(0));
    // In between it may be seen at work.
    let seen: Vec<String> = (0..8).map(|_| next()).take_while(|line| !line.contains(&ok)).collect();
    assert!(seen.len() < 8, "{seen:?}");
    signal(child.id(), "INT");
    assert_eq!(end_of(&mut child).await.code(), Some(130));
}
