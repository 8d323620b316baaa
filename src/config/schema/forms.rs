//! The parts of a schema: tables, numbers, and texts with a form of their own.

use std::ops::RangeInclusive;

use chrono_tz::{TZ_VARIANTS, Tz};
use serde_json::{Value, json};

use crate::config::cut::WEEKDAYS;
use crate::model::slice::{Width, day_name};

/// Bytes that PostgreSQL keeps of a name. A schema counts characters, of which there are no more.
const NAME_MAX: usize = 63;

/// A table with these keys and no others.
pub(super) fn table(description: &str, required: &[&str], properties: Value) -> Value {
    json!({
        "description": description,
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

/// The definition `name` of this schema.
pub(super) fn refer(name: &str) -> Value {
    json!({ "$ref": format!("#/definitions/{name}") })
}

/// `form` with a description.
pub(super) fn described(form: Value, description: &str) -> Value {
    json!({ "description": description, "allOf": [form] })
}

pub(super) fn boolean(description: &str, default: bool) -> Value {
    json!({ "description": description, "type": "boolean", "default": default })
}

pub(super) fn integer(range: RangeInclusive<u32>, description: &str) -> Value {
    json!({
        "description": description,
        "type": "integer",
        "minimum": range.start(),
        "maximum": range.end(),
    })
}

pub(super) fn number(range: RangeInclusive<f64>, description: &str) -> Value {
    json!({
        "description": description,
        "type": "number",
        "minimum": range.start(),
        "maximum": range.end(),
    })
}

/// The name of a column, schema or role.
pub(super) fn identifier() -> Value {
    json!({ "type": "string", "maxLength": NAME_MAX, "pattern": "^[^\\u0000]+$" })
}

/// A length of time. Its range is left to the parser.
pub(super) fn duration(description: &str, default: &str) -> Value {
    json!({
        "description": description,
        "type": "string",
        "pattern": "^\\s*[0-9]+\\s*(ms|milliseconds?|s|seconds?|m|min|minutes?|h|hours?|d|days?)\\s*$",
        "default": default,
    })
}

/// A duration that may be left out.
pub(super) fn optional_duration(description: &str) -> Value {
    let mut form = duration(description, "");
    if let Some(form) = form.as_object_mut() {
        form.remove("default");
    }
    form
}

/// Hours of the day. That they are not empty is left to the parser.
pub(super) fn hours(description: &str) -> Value {
    const TIME: &str = "\\s*(([01]?[0-9]|2[0-3]):[0-5]?[0-9]|24:0?0)\\s*";
    json!({
        "description": description,
        "type": "string",
        "pattern": format!("^{TIME}-{TIME}$"),
    })
}

/// A date or time, quoted or bare.
pub(super) fn instant(description: &str) -> Value {
    json!({
        "description": description,
        "type": "string",
        "pattern": "^\\s*[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt ].*)?\\s*$",
    })
}

/// The widths of slices and buckets, in every spelling.
pub(super) fn width() -> Value {
    let counts = |unit: &str| {
        let is_width = |count: &u32| format!("{count} {unit}").parse::<Width>().is_ok();
        // A day has 1,440 minutes.
        let counts = (1..=1440).filter(is_width).map(|count| count.to_string());
        format!("({})\\s*{unit}s?", counts.collect::<Vec<_>>().join("|"))
    };
    let units = ["minute", "hour", "day", "week", "month", "quarter", "year"];
    let forms = units.map(counts).join("|");
    let examples = ["15 minutes", "1 hour", "1 day", "1 week", "1 month", "1 quarter", "1 year"];
    json!({ "type": "string", "pattern": format!("^\\s*0*({forms})\\s*$"), "examples": examples })
}

/// The day on which a week begins.
pub(super) fn week_start() -> Value {
    json!({
        "description": "The day on which a slice or bucket of a week begins.",
        "enum": WEEKDAYS.map(day_name),
        "default": day_name(WEEKDAYS[0]),
    })
}

pub(super) fn zone() -> Value {
    json!({ "enum": TZ_VARIANTS.map(|zone: Tz| zone.name()).as_slice() })
}

/// A database's address, or the place where it is kept.
pub(super) fn address() -> Value {
    json!({
        "anyOf": [
            place("address"),
            { "type": "string", "pattern": "^[Pp][Oo][Ss][Tt][Gg][Rr][Ee][Ss]([Qq][Ll])?://\\S+$" },
        ],
    })
}

/// The place where the text called `what` is kept.
pub(super) fn place(what: &str) -> Value {
    let name = |description: &str, pattern: &str| {
        json!({
            "description": description,
            "type": "string",
            "pattern": pattern,
            "not": { "pattern": "://" },
        })
    };
    let kept = "[A-Za-z0-9/_.:+=@!-]";
    let properties = json!({
        "env": name(
            &format!("An environment variable that holds the {what}."),
            "^[A-Za-z_][A-Za-z0-9_]*$",
        ),
        "parameter": name(
            "A parameter of AWS Systems Manager that holds it.",
            &format!("^{kept}{{1,1011}}$"),
        ),
        "secret": name("A secret of AWS Secrets Manager that holds it.", &format!("^{kept}{{1,2048}}$")),
    });
    let mut place = table(&format!("Where the {what} is kept."), &[], properties);
    place["minProperties"] = 1.into();
    place["maxProperties"] = 1.into();
    place
}
