//! The default settings: the configuration that `init` needs, and no more.

use std::time::Duration;

use crate::support::cli::{Ended, Place, daily, day};

/// This limit catches a command that stands still. Each of these takes seconds.
const LIMIT: Duration = Duration::from_secs(600);

/// Every command in an order in which it has something to do, with a word of its text.
fn commands() -> Vec<(Vec<String>, &'static str)> {
    let (first, second) = (day(3), day(2));
    let rows: Vec<(String, &'static str)> = vec![
        ("check".into(), "todo"),
        ("init".into(), "statements run"),
        ("capture install".into(), ""),
        ("check".into(), "is ready"),
        ("capture status".into(), ""),
        ("plan".into(), ""),
        ("plan daily".into(), ""),
        ("preview daily".into(), ""),
        ("run".into(), "daily"),
        ("backfill daily --yes".into(), "succeeded"),
        ("backfill daily --yes --force".into(), "3 slices succeeded"),
        (format!("replay daily --slice {first} --reason test --yes"), "1 slice succeeded"),
        (
            format!("replay daily --from {first} --to {second} --reason test --yes"),
            "1 slice succeeded",
        ),
        ("verify".into(), "3 slices"),
        ("verify daily".into(), "3 slices"),
        ("status".into(), "watermark"),
        ("backfill list".into(), "no backfill"),
        ("backfill start daily".into(), "begins"),
        ("backfill status daily".into(), "backfill of daily"),
        ("backfill pause daily --reason test".into(), "paused"),
        ("backfill resume daily".into(), "may go on"),
        ("backfill cancel daily".into(), "is cancelled"),
        ("pause --reason test".into(), "paused"),
        ("resume".into(), "may go on"),
        ("speed 10".into(), "nice_ratio 10"),
        ("speed default".into(), "nice_ratio auto, as configured"),
        ("cancel daily".into(), "daily"),
        ("moved --yes".into(), ""),
        ("repair".into(), ""),
        ("purgeable".into(), "no longer needed"),
        ("capture remove".into(), ""),
        ("rollup rename daily days --yes".into(), ""),
        ("status".into(), "days"),
        ("rollup drop days --yes".into(), ""),
    ];
    let words = |text: String| text.split(' ').map(str::to_owned).collect();
    rows.into_iter().map(|(text, said)| (words(text), said)).collect()
}

/// Commands without a configuration, one that needs another job's table, one that runs until it is told to end, and one that leaves a
/// configuration behind that has to change. Their own tests play them.
const ELSEWHERE: [&str; 9] =
    ["demo", "new", "adopt", "schema", "completions", "man", "help", "serve", "checkpoints"];

#[tokio::test]
async fn no_command_is_left_out() {
    let (place, _database) = Place::with_events(1).await;
    let help = place.run(&["--help"]).good();
    let listed = help.out.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let tried: Vec<String> = commands().into_iter().map(|(words, _)| words[0].clone()).collect();
    // Further lines of a long description are indented more.
    for line in listed.lines().filter(|line| !line.starts_with("   ")) {
        let command = line.split_whitespace().next().unwrap();
        let is_tried = tried.iter().any(|it| it == command);
        assert!(is_tried != ELSEWHERE.contains(&command), "{command}");
    }
}

async fn every_command(json: bool) {
    let (place, _database) = Place::with_events(3).await;
    let slice = "slice = \"1 day\"";
    let rollups = daily(3).replace(slice, &format!("{slice}\nlate = \"capture\""));
    place.configure_plain(&rollups);
    for (arguments, said) in commands() {
        let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        if arguments[0] == "rollup" {
            place.configure_plain(&rollups.replace("\"daily\"", "\"days\""));
        }
        if json {
            arguments.push("--json");
        }
        let Ended { code, out, err } = place.run(&arguments);
        assert_eq!(code, Some(0), "{arguments:?}: {out}{err}");
        if json {
            let document = serde_json::from_str::<serde_json::Value>(&out);
            assert!(document.is_ok(), "{arguments:?}: {out}");
        } else {
            assert!(out.contains(said), "{arguments:?} does not say {said:?}: {out}");
        }
        if arguments[0] == "verify" && json {
            let document: serde_json::Value = serde_json::from_str(&out).unwrap();
            assert_eq!((&document["slices"], &document["differences"]), (&3.into(), &0.into()));
        }
    }
}

#[tokio::test]
async fn every_command_works_and_ends_for_a_user_who_sets_nothing() {
    tokio::time::timeout(LIMIT, every_command(false)).await.expect("an end");
}

#[tokio::test]
async fn every_command_prints_one_document_for_a_user_who_sets_nothing() {
    tokio::time::timeout(LIMIT, every_command(true)).await.expect("an end");
}
