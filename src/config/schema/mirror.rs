//! `[source] bubble` and `[[mirror]]`.

use serde_json::{Value, json};

use super::forms::{
    boolean, described, duration, identifier, instant, number, place, refer, table, week_start,
};
use super::rollup::{unreserved, with};
use crate::config::app::BRANCH_MAX;
use crate::config::mirror::BUILT_IN;

/// The app, its branch and its token.
pub(super) fn app() -> Value {
    let here = "(localhost|127\\.0\\.0\\.1|\\[::1\\])";
    let properties = json!({
        "app": {
            "description": "The app's address: https:// and the host.",
            "type": "string",
            "pattern": format!("^(https://[A-Za-z0-9.:\\[\\]-]+|http://{here}(:[0-9]+)?)/*$"),
        },
        "branch": {
            "description": "The branch of the app, which has a database of its own.",
            "type": "string",
            "pattern": format!("^[A-Za-z0-9_-]{{1,{BRANCH_MAX}}}$"),
            "not": { "const": "test" },
            "default": "live",
        },
        "token": place("token"),
    });
    table("The Bubble app that is counted.", &["app", "token"], properties)
}

/// One mirror.
pub(super) fn mirror() -> Value {
    let mut built_in: Vec<&str> =
        BUILT_IN.iter().flat_map(|(key, column)| [*key, *column]).collect();
    built_in.dedup();
    let field = with(identifier(), unreserved());
    let field = json!({ "allOf": [field, { "not": { "enum": built_in } }] });
    let properties = json!({
        "name": {
            "description": "The name of the table.",
            "type": "string",
            "pattern": "^[a-z][a-z0-9_]{0,47}$",
        },
        "type": {
            "description": "The type as in the address of the Data API.",
            "type": "string",
            "pattern": "^[^/\\u0000-\\u001f\\u007f-\\u009f]+$",
        },
        "fields": {
            "description": "The keys of the fields to keep.",
            "type": "array",
            "uniqueItems": true,
            "items": field,
        },
        "start": instant("Where history begins: the start of a slice."),
        "slice": described(refer("width"), "How time is cut into units of work."),
        "timezone": described(refer("zone"), "The zone that slices follow."),
        "week_start": week_start(),
        "grace": duration(
            "How long after a slice's end its things may still become visible.",
            "15 minutes",
        ),
        "modified": boolean(
            "Whether changes of things that were read already are looked for.",
            false,
        ),
        "shrink_guard": number(
            0.0..=1.0,
            "A rerun must find at least this share of the things that it found before.",
        ),
        "seal_before": instant("Slices that start earlier stay as they are."),
    });
    let required = ["name", "type", "fields", "start", "slice"];
    table("A table that keeps the things of one type.", &required, properties)
}
