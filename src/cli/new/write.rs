//! The text of the file: a definition with short comments.

use std::fmt::Write as _;

use super::catalogue::Content;
use super::choose::{Begin, Proposed};
use crate::config::StoreKind;
use crate::model::rollup::EpochUnit;
use crate::model::slice::Width;
use crate::model::sql::TableName;
use crate::model::visible;

/// The file with the JSON Schema, beside the configuration.
pub(super) const SCHEMA_FILE: &str = "tallymark.schema.json";

/// Comments begin in this column.
const COMMENT_COLUMN: usize = 38;

/// The whole file. `env` is the environment variable with the source's address, and `schema` that of
/// the rollup tables.
pub(super) fn file(draft: &Proposed, env: &str, schema: &str) -> String {
    let mut text = format!(
        "#:schema ./{SCHEMA_FILE}\n# Made by `tallymark new`. docs/CONFIG.md explains every key.\n\n"
    );
    text.push_str(
        "# The database that is counted. The rollup tables are in it too, in schemas of\n",
    );
    text.push_str("# their own, unless a [target] names another one.\n[source]\n");
    let _ = writeln!(text, "url = {{ env = {} }}\n", quoted(env));
    text.push_str("# Where checkpoints are kept.\n[checkpoint]\n");
    text.push_str(&match draft.store {
        StoreKind::Postgres => line("store = \"postgres\"", "beside the rollup tables"),
        StoreKind::DynamoDb => {
            line("store = \"dynamodb\"", "region and credentials come from the environment")
        }
    });
    text.push_str("\n[[rollup]]\n");
    rollup(&mut text, draft, schema);
    text.push_str("\n[rollup.measures]\n");
    for (name, kind, column) in &draft.measures {
        let _ = match column {
            None => writeln!(text, "{} = {}", key(name), quoted(kind)),
            Some(column) => writeln!(text, "{} = {{ {kind} = {} }}", key(name), quoted(column)),
        };
    }
    text
}

fn rollup(text: &mut String, draft: &Proposed, schema: &str) {
    let Proposed { name, from, slice, .. } = draft;
    let about = format!("the rollup table is {schema}.{name}");
    text.push_str(&line(&format!("name = {}", quoted(name)), &about));
    let _ = writeln!(text, "from = {}", quoted(&written(from)));
    time(text, draft);
    let start = match draft.begins_by {
        Begin::FirstRow => "the slice of the first row; earlier rows are left out",
        Begin::Sample => "some time before the first row; earlier rows are left out",
        Begin::Empty => "rows before it are left out",
        Begin::Unknown => "slices before the first row cost nothing",
    };
    text.push_str(&line(&format!("start = {}", quoted(&draft.start)), start));
    let widths = "or \"15 minutes\", \"1 hour\", \"1 week\", \"1 month\"";
    text.push_str(&line(&format!("slice = {}", quoted(&slice.to_string())), widths));
    if draft.content != Content::Date {
        text.push_str(&line("# timezone = \"Europe/Berlin\"", "whose days; by default UTC"));
    }
    if *slice == Width::DAY && draft.content != Content::Date {
        text.push_str(
            "# bucket = \"1 hour\"                  # a finer resolution of the result\n",
        );
    }
    let offsets: Vec<String> = draft.lookback.iter().map(ToString::to_string).collect();
    let offsets = format!("lookback = [{}]", offsets.join(", "));
    text.push_str(&line(&offsets, "for late rows a slice runs again, this many slices later"));
    text.push_str(
        "# late = \"capture\" instead finds every late change, also updates and deletes. It needs\n\
         # triggers on the table, by its owner: `tallymark capture install` (docs/ACCURACY.md).\n",
    );
    let columns: Vec<String> = draft.group_by.iter().map(|name| quoted(name)).collect();
    let groups = "other columns, or none: one row per slice";
    text.push_str(&line(&format!("group_by = [{}]", columns.join(", ")), groups));
}

fn time(text: &mut String, draft: &Proposed) {
    let column = quoted(&draft.time);
    let (value, comment) = match (draft.content, draft.unit) {
        (_, Some(unit @ (EpochUnit::Seconds | EpochUnit::Milliseconds))) => {
            let value = format!("time = {{ column = {column}, unit = \"{}\" }}", unit.word());
            let _ = writeln!(text, "{value}");
            return;
        }
        (Content::LocalTime, _) => (format!("time = {column}"), "without a zone, so in UTC"),
        _ => {
            let _ = writeln!(text, "time = {column}");
            return;
        }
    };
    text.push_str(&line(&value, comment));
    let other =
        format!("# time = {{ column = {}, zone = \"Europe/Berlin\" }}", visible::line(&column));
    text.push_str(&line(&other, "where it is the local time of clocks"));
}

/// A line with a comment behind it, in a column of its own where the line leaves room.
fn line(value: &str, comment: &str) -> String {
    let width = value.chars().count();
    let gap = COMMENT_COLUMN.saturating_sub(width).max(1);
    format!("{value}{:gap$}# {}\n", "", visible::line(comment))
}

/// A key of TOML.
pub(in crate::cli) fn key(name: &str) -> String {
    let is_bare = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-');
    if !name.is_empty() && name.chars().all(is_bare) { name.to_owned() } else { quoted(name) }
}

/// A basic string of TOML, in one line.
pub(in crate::cli) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(letter));
            }
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

/// A table's name as `from` takes it.
pub(super) fn written(table: &TableName) -> String {
    let part = |name: &str| {
        let is_plain = !name.contains(['.', '"']) && name.trim() == name && !name.is_empty();
        if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
    };
    match &table.schema {
        Some(schema) => format!("{}.{}", part(schema), part(&table.name)),
        None => part(&table.name),
    }
}
