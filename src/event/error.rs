//! Errors of event parsing, with what would be right.

use std::borrow::Cow;

use serde_json::Value;

use crate::config::UnknownRollup;
use crate::model::hint::Hinted;
use crate::model::slice::{InstantError, Misaligned};
use crate::work::replay::NotReplayable;

/// The values of the key `trigger`.
pub(super) const TRIGGERS: [&str; 6] =
    ["schedule", "slice", "backfill", "replay", "scrub", "command"];

/// The keys that identify the kind of event.
pub(super) const KEYS_FIRST: [&str; 4] = ["trigger", "Records", "source", "detail-type"];

/// Why an event is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The event is not an object.
    #[error("the event is {found}, not an object")]
    NotAnObject {
        /// Its JSON kind.
        found: &'static str,
    },
    /// The key that identifies the kind of event is missing.
    #[error("the event names no trigger")]
    NoTrigger {
        /// The key that one of the event's keys was probably meant to be.
        hint: Option<&'static str>,
    },
    #[error("unknown trigger {found}")]
    UnknownTrigger {
        /// Its value.
        found: String,
        /// The most similar known trigger.
        hint: Option<&'static str>,
    },
    /// A key unknown to this event.
    #[error("event `{event}`: unknown key {key}")]
    UnknownKey {
        event: &'static str,
        key: String,
        /// The most similar known key.
        hint: Option<&'static str>,
        /// The keys that the event has.
        known: String,
    },
    /// A required key is missing.
    #[error("event `{event}`: `{key}` is missing")]
    Missing {
        event: &'static str,
        key: &'static str,
        /// The valid form.
        right: &'static str,
    },
    /// The key has an invalid value.
    #[error("event `{event}`: `{key}` is {found}")]
    Wrong {
        event: &'static str,
        key: &'static str,
        found: String,
        /// The valid form.
        right: &'static str,
    },
    /// A replay that names both a slice and all failed slices, or neither.
    #[error(
        "event `replay`: {}",
        if *.both { "both `start` and `failed` are given" } else { "`start` is missing" }
    )]
    EitherOr {
        /// Whether both were given.
        both: bool,
    },
    /// `Records` without a record.
    #[error("`Records` is {found}")]
    NoRecords {
        /// The value of `Records`.
        found: String,
    },
    /// Looks like an AWS envelope but is invalid.
    #[error("the {envelope} cannot be read ({problem})")]
    Envelope {
        /// The envelope that it resembles.
        envelope: &'static str,
        /// The deserialiser's message.
        problem: String,
    },
    /// A valid AWS event that is meant for something else.
    #[error("the event is not for tallymark ({origin})")]
    Foreign { origin: String },
    /// A message's body is invalid JSON.
    #[error("the message's body is not JSON ({problem})")]
    BodyNotJson {
        /// The parser's message.
        problem: String,
    },
    /// A message's body requests something other than a slice.
    #[error("the message asks for something else than one slice")]
    BodyNotSlice,
    /// The rollup is unknown.
    #[error(transparent)]
    Rollup(#[from] UnknownRollup),
    /// The text names no instant, or two.
    #[error("rollup `{rollup}`: `{key}`: {source}")]
    Instant {
        rollup: String,
        key: &'static str,
        /// The reason.
        source: InstantError,
    },
    /// No slice starts at this instant.
    #[error("rollup `{rollup}`: {source}")]
    Misaligned {
        rollup: String,
        /// The neighbouring slices.
        source: Misaligned,
    },
    /// The slice is before the rollup's start, or in the future, where a checkpoint would wait for
    /// years.
    #[error(transparent)]
    NotReplayable(#[from] NotReplayable),
}

impl EventError {
    /// The error of an unreadable envelope. The deserialiser's message may repeat a value, so it is
    /// shortened.
    pub(super) fn envelope(envelope: &'static str, error: &serde_json::Error) -> Self {
        /// Enough for a key and a short value.
        const BYTES_MAX: usize = 200;
        let said = error.to_string();
        let is_fit = said.len() <= BYTES_MAX && !said.contains("://") && said.lines().count() == 1;
        let problem = if is_fit { said } else { "a value of another type than AWS sends".into() };
        Self::Envelope { envelope, problem }
    }
}

/// The accepted forms.
const FORMS: &str = "send {\"trigger\": \"schedule\" | \"slice\" | \"backfill\" | \"replay\" | \"scrub\" | \
    \"command\", …}, an EventBridge scheduled event or an SQS batch (docs/EVENTS.md)";

impl Hinted for EventError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        Some(match self {
            Self::NotAnObject { .. } => FORMS.into(),
            Self::NoTrigger { hint } | Self::UnknownTrigger { hint, .. } => {
                format!("{}{FORMS}", did_you_mean(*hint)).into()
            }
            Self::UnknownKey { hint, known, .. } => {
                format!("{}its keys are {known}", did_you_mean(*hint)).into()
            }
            Self::Missing { right, .. } | Self::Wrong { right, .. } => {
                format!("write {right}").into()
            }
            Self::EitherOr { .. } => {
                "write `\"start\"` for one slice, or `\"failed\": true` for all that failed".into()
            }
            Self::NoRecords { .. } => "send an SQS batch with at least one message in it".into(),
            Self::Envelope { .. } => format!("send it as AWS does, or {FORMS}").into(),
            Self::Foreign { .. } => format!("remove the trigger that sends it, or {FORMS}").into(),
            Self::BodyNotJson { .. } => "send a slice event as JSON".into(),
            Self::BodyNotSlice => "invoke the function with it".into(),
            Self::Rollup(error) => return error.hint(),
            Self::Instant { source, .. } => return source.hint(),
            Self::Misaligned { source, .. } => return source.hint(),
            Self::NotReplayable(error) => return error.hint(),
        })
    }
}

fn did_you_mean(hint: Option<&'static str>) -> String {
    hint.map_or_else(String::new, |hint| format!("did you mean `{hint}`? "))
}

/// The known word closest to `word`: at most a third of the letters differ, or one is a prefix of
/// the other.
pub(super) fn suggestion(
    word: &str,
    known: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    /// Every known word is shorter, and the distance costs the product of both lengths.
    const LETTERS_MAX: usize = 40;
    let letters = word.chars().count();
    if letters > LETTERS_MAX {
        return None;
    }
    let word = word.to_lowercase();
    known
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            let distance = strsim::damerau_levenshtein(&word, &lower);
            let prefix = letters >= 3 && (lower.starts_with(&word) || word.starts_with(&lower));
            (prefix || distance * 3 <= letters.max(lower.len())).then_some((distance, candidate))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The name of a value's JSON kind.
pub(super) const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value for an error message. Texts and numbers are shown as shortened JSON, other values by
/// their kind.
pub(super) fn shown(value: &Value) -> String {
    /// Enough to recognise a value.
    const CHARS_MAX: usize = 80;
    match value {
        Value::String(text) if text.contains("://") => {
            "the value (not shown: it may hold a password)".to_owned()
        }
        Value::String(text) => match text.char_indices().nth(CHARS_MAX) {
            Some((end, _)) => format!("{:?}…", &text[..end]),
            None => format!("{text:?}"),
        },
        Value::Array(list) if list.is_empty() => "an empty list".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        other => kind_of(other).to_owned(),
    }
}
