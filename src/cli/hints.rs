//! Tests: an error says the facts, and its hint what puts them right.

use crate::checkpoint::store::StoreError;
use crate::checkpoint::{CheckpointError, ClaimRefused, LostLease};
use crate::config::{Config, UnknownRollup};
use crate::event;
use crate::model::hint::{Fault, Hinted};
use crate::model::slice::Width;
use crate::target::TargetError;
use crate::target::ddl::DdlError;
use crate::work::replay::NotReplayable;
use crate::work::worker::WorkError;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// Beginnings of instructions. None may begin a part of an error's text.
const INSTRUCTIONS: [&str; 40] = [
    "add ",
    "as its owner",
    "ask ",
    "balance ",
    "choose ",
    "close ",
    "correct ",
    "create ",
    "delete ",
    "detach ",
    "did you mean",
    "drop ",
    "end ",
    "give ",
    "grant ",
    "invoke ",
    "keep ",
    "lower ",
    "make ",
    "move ",
    "name ",
    "please ",
    "put ",
    "remove ",
    "rename ",
    "replay ",
    "restore ",
    "run ",
    "say ",
    "send ",
    "set ",
    "start ",
    "try ",
    "turn ",
    "unset ",
    "update ",
    "use ",
    "wait ",
    "write ",
    "if this is",
];

/// Why `error` mixes what happened with what to do. `None`: it does not.
fn fault(error: &impl Hinted) -> Option<String> {
    let text = error.to_string();
    let Some(hint) = error.hint() else { return Some(format!("has no hint: {text}")) };
    let mut parts = text.split([';', ':', ',']).map(|part| part.trim().to_lowercase());
    if let Some(part) =
        parts.find(|part| INSTRUCTIONS.iter().any(|instruction| part.starts_with(instruction)))
    {
        return Some(format!("has the instruction `{part}` in its text: {text}"));
    }
    let is_clean = !text.contains(&*hint) && !text.contains("run `") && !text.ends_with('.');
    (!is_clean).then(|| format!("has its hint in its text: {text}"))
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn demand(kind: &str, errors: &[&dyn Fn() -> Option<String>]) {
    let wrong: Vec<String> = errors.iter().filter_map(|error| error()).collect();
    assert!(wrong.is_empty(), "{kind}:\n{}", wrong.join("\n"));
}

/// The check itself finds each of the ways in which a text can be wrong.
#[test]
fn a_text_with_an_instruction_is_found() {
    let text = |text: &str| fault(&Fault::new(text).remedy("run `tallymark init`"));
    assert_eq!(text("table `t` does not exist"), None);
    for wrong in [
        "table `t` does not exist; run `tallymark init`",
        "table `t` does not exist; set it up",
        "no role: create it",
        "table `t` does not exist.",
    ] {
        assert!(text(wrong).is_some(), "{wrong}");
    }
    assert!(fault(&Fault::new("table `t` does not exist")).is_some());
}

#[test]
fn errors_of_places_keep_their_remedy_in_the_hint() {
    let table = || "t".to_owned();
    demand(
        "stores",
        &[
            &|| fault(&StoreError::NoTable { table: table() }),
            &|| fault(&StoreError::NoRegion),
            &|| {
                let status = "CREATING".to_owned();
                fault(&StoreError::NotActive { table: table(), status, seconds: 60 })
            },
            &|| {
                let problem = "holds \"x\"".to_owned();
                let (item, attribute) = ("r@2026".to_owned(), "state");
                fault(&CheckpointError::Malformed { item, attribute, problem })
            },
            &|| {
                let (operation, slice) = ("claim", "r@2026".to_owned());
                fault(&CheckpointError::Contended { operation, slice })
            },
            &|| {
                let slice_start = at("2026-01-01T00:00:00Z");
                fault(&LostLease { rollup: "r".into(), slice_start, attempt: 1, found: None })
            },
            &|| fault(&ClaimRefused::Exhausted { failures: 5, error: "division by zero".into() }),
        ],
    );
    demand(
        "targets",
        &[
            &|| fault(&DdlError::NotReady { rollup: "r".into() }),
            &|| fault(&WorkError::from(DdlError::NotReady { rollup: "r".into() })),
            &|| fault(&TargetError::Stranger),
            &|| fault(&WorkError::from(TargetError::Stranger)),
            &|| fault(&TargetError::Superseded { mine: 1, newest: 2 }),
            &|| fault(&TargetError::Inconsistent { groups: 1, joined: 2 }),
        ],
    );
}

#[test]
fn errors_of_requests_keep_their_remedy_in_the_hint() {
    let start = at("2026-01-01T00:00:00Z");
    let width = |text: &str| fault(&text.parse::<Width>().unwrap_err());
    demand(
        "requests",
        &[
            &|| fault(&UnknownRollup { name: "dailly".into(), known: vec!["daily".into()] }),
            &|| fault(&UnknownRollup { name: "x".into(), known: vec!["daily".into()] }),
            &|| fault(&NotReplayable::BeforeStart { rollup: "r".into(), start, first: start }),
            &|| fault(&NotReplayable::NotBegun { rollup: "r".into(), start }),
            &|| width("7 hours"),
            &|| width("48 hours"),
            &|| width("24 hours"),
            &|| width("soon"),
        ],
    );
    let event = |event: Value| fault(&event::parse(&event).unwrap_err());
    demand(
        "events",
        &[
            &|| event(json!([1])),
            &|| event(json!({})),
            &|| event(json!({ "trigger": 7 })),
            &|| event(json!({ "trigger": "slcie", "rollup": "r" })),
            &|| event(json!({ "trigger": "schedule" })),
            &|| event(json!({ "trigger": "schedule", "time": "x" })),
            &|| event(json!({ "trigger": "schedule", "colour": "red" })),
            &|| event(json!({ "trigger": "replay", "rollup": "r", "reason": "x" })),
            &|| event(json!({ "Records": [] })),
            &|| event(json!({ "Records": [{ "eventSource": "aws:s3" }] })),
            &|| event(json!({ "source": "aws.ec2", "detail-type": "x" })),
        ],
    );
}

#[test]
fn each_mistake_in_a_file_keeps_its_remedy_in_the_hint() {
    let file = "[source]\nurl = \"postgres://u@h/d\"\nchunktime = \"1s\"\n\
                [[rollup]]\nname = \"A b\"\nfrom = \"a.b.c\"\ntime = \"\"\nstart = \"soon\"\n\
                slice = \"7 hours\"\ntimezone = \"Europe/Berlni\"\nwhere = \"a; b\"\n\
                [rollup.measures]\nn = \"cuont\"\n";
    let path = std::path::Path::new("tallymark.toml");
    let error = Config::parse(path, file, &|_| None).unwrap_err();
    assert!(error.problems().len() >= 8, "{error}");
    for problem in error.problems() {
        let (message, hint) = (problem.message.clone(), problem.hint.clone());
        let hint = hint.unwrap_or_else(|| panic!("{}: {message} has no hint", problem.key));
        assert_eq!(fault(&Fault::new(message).remedy(hint)), None, "{}", problem.key);
    }
}
