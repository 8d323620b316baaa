//! The questions to an operator at a terminal, each with a default.

use super::choose::CountableTable;
use crate::cli::{Failure, ui};
use crate::config::StoreKind;
use crate::model::slice::Width;
use crate::model::text::{listed, nearest};

/// Tables to choose from.
const SHOWN_MAX: usize = 9;

/// A wrong answer is asked for again this many times.
const ATTEMPTS: usize = 3;

/// The table to count.
pub(super) fn table<'c, 't>(
    candidates: &'c [CountableTable<'t>],
) -> Result<&'c CountableTable<'t>, Failure> {
    let shown = &candidates[..candidates.len().min(SHOWN_MAX)];
    let row = |(place, candidate): (usize, &CountableTable<'_>)| {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate")]
        let rows = candidate.rows() as u64;
        vec![
            (place + 1).to_string(),
            candidate.table.name.to_string(),
            candidate.time.name.clone(),
            ui::number(rows),
            indicatif::HumanBytes(candidate.table.bytes.unsigned_abs()).to_string(),
            if candidate.time.index.is_some() { "yes" } else { "no" }.to_owned(),
        ]
    };
    let rows: Vec<_> = shown.iter().enumerate().map(row).collect();
    ui::note(ui::table(&["", "table", "time", ">about rows", ">size", "index"], &rows));
    if candidates.len() > shown.len() {
        let more = ui::counted(candidates.len() - shown.len(), "more table");
        ui::note(format!("{more}: give its name, such as {}", candidates[shown.len()].table.name));
    }
    until_right("Which table is counted?", "1", |answer| {
        let by_number = answer.parse::<usize>().ok().and_then(|it| shown.get(it.checked_sub(1)?));
        let is_named = |candidate: &&CountableTable<'_>| {
            let name = &candidate.table.name;
            name.to_string() == answer || name.name == answer
        };
        by_number.or_else(|| candidates.iter().find(is_named)).ok_or_else(|| {
            let names: Vec<String> =
                candidates.iter().map(|candidate| candidate.table.name.to_string()).collect();
            match nearest(answer, names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near}?"),
                None => format!("give a number from 1 to {}, or a table's name", shown.len()),
            }
        })
    })
}

/// The width of a slice.
pub(super) fn slice(default: Width) -> Result<Width, Failure> {
    until_right("How wide is a slice?", &default.to_string(), |answer| {
        answer.parse::<Width>().map_err(|error| error.to_string())
    })
}

/// The place of the checkpoints.
pub(super) fn store() -> Result<StoreKind, Failure> {
    let words = || StoreKind::ALL.map(StoreKind::word).into_iter();
    until_right("Where are checkpoints kept, in postgres or dynamodb?", "postgres", |answer| {
        StoreKind::of(answer).ok_or_else(|| format!("answer one of {}", listed(words())))
    })
}

/// Asks until `read` takes the answer.
fn until_right<T>(
    question: &str,
    default: &str,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Failure> {
    let mut problem = String::new();
    for _ in 0..ATTEMPTS {
        match read(&ui::ask(question, default)?) {
            Ok(value) => return Ok(value),
            Err(told) => problem = told,
        }
        ui::note(&problem);
    }
    Err(Failure::usage(format!("nothing was done: {problem}")))
}
