//! Why an event was not understood, and what would be right.

use serde_json::Value;

use crate::config::UnknownRollup;
use crate::replay::NotReplayable;
use crate::slice::{InstantError, Misaligned};

/// The triggers.
pub(super) const TRIGGERS: [&str; 4] = ["schedule", "slice", "backfill", "replay"];

/// The keys that tell which kind of event it is.
pub(super) const KEYS_FIRST: [&str; 4] = ["trigger", "Records", "source", "detail-type"];

/// Why an event was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// Not an object.
    #[error("the event is {found}, not an object; {FORMS}")]
    NotAnObject {
        /// What it is.
        found: &'static str,
    },
    /// Nothing that tells what is asked for.
    #[error("the event names no trigger{}; {FORMS}", did_you_mean(.hint))]
    NoTrigger {
        /// The key that one of the event's keys was probably meant to be.
        hint: Option<&'static str>,
    },
    /// A trigger that there is not.
    #[error("unknown trigger {found}{}; {FORMS}", did_you_mean(.hint))]
    UnknownTrigger {
        /// What it was.
        found: String,
        /// What it was probably meant to be.
        hint: Option<&'static str>,
    },
    /// A key that this event does not have.
    #[error("event `{event}`: unknown key {key}{}; its keys are {known}", did_you_mean(.hint))]
    UnknownKey {
        /// The event.
        event: &'static str,
        /// The key.
        key: String,
        /// What it was probably meant to be.
        hint: Option<&'static str>,
        /// The keys that it has.
        known: String,
    },
    /// A key that this event needs.
    #[error("event `{event}`: `{key}` is missing; write {right}")]
    Missing {
        /// The event.
        event: &'static str,
        /// The key.
        key: &'static str,
        /// What would be right.
        right: &'static str,
    },
    /// A value that this key does not take.
    #[error("event `{event}`: `{key}` is {found}; write {right}")]
    Wrong {
        /// The event.
        event: &'static str,
        /// The key.
        key: &'static str,
        /// The value.
        found: String,
        /// What would be right.
        right: &'static str,
    },
    /// A replay of everything and nothing.
    #[error(
        "event `replay`: {}; write `\"start\"` for one slice, or `\"failed\": true` for all that \
         failed", if *.both { "both `start` and `failed` are given" } else { "`start` is missing" }
    )]
    EitherOr {
        /// Both were given, not neither.
        both: bool,
    },
    /// `Records` without a record.
    #[error("`Records` is {found}; an SQS batch has at least one message in it")]
    NoRecords {
        /// What it is.
        found: String,
    },
    /// An envelope of AWS of another form than AWS gives it.
    #[error("the {envelope} cannot be read ({problem}); send it as AWS does, or {FORMS}")]
    Envelope {
        /// Which one it seems to be.
        envelope: &'static str,
        /// What the reader said.
        problem: String,
    },
    /// An event of AWS that nobody meant for Tallymark.
    #[error(
        "the event is not for tallymark ({origin}); remove the trigger that sends it, or {FORMS}"
    )]
    Foreign {
        /// Where it comes from.
        origin: String,
    },
    /// A message's body is no JSON.
    #[error("the message's body is not JSON ({problem}); send a slice event as JSON")]
    BodyNotJson {
        /// What the parser said.
        problem: String,
    },
    /// A message's body asks for something else than a slice.
    #[error("the message asks for something else than one slice; invoke the function with it")]
    BodyNotSlice,
    /// The rollup is not defined.
    #[error(transparent)]
    Rollup(#[from] UnknownRollup),
    /// A text that names no instant, or two.
    #[error("rollup `{rollup}`: `{key}`: {source}")]
    Instant {
        /// The rollup.
        rollup: String,
        /// The key.
        key: &'static str,
        /// Why.
        source: InstantError,
    },
    /// No slice starts there.
    #[error("rollup `{rollup}`: {source}")]
    Misaligned {
        /// The rollup.
        rollup: String,
        /// Which ones are near.
        source: Misaligned,
    },
    /// There are no slices so early; or it lies in the future, where a checkpoint would wait for years.
    #[error(transparent)]
    NotReplayable(#[from] NotReplayable),
}

impl EventError {
    /// The error of an envelope that could not be read; what the reader says may repeat a value.
    pub(super) fn envelope(envelope: &'static str, error: &serde_json::Error) -> Self {
        /// Enough for a key and a short value.
        const BYTES_MAX: usize = 200;
        let said = error.to_string();
        let is_fit = said.len() <= BYTES_MAX && !said.contains("://") && said.lines().count() == 1;
        let problem = if is_fit { said } else { "a value of another type than AWS sends".into() };
        Self::Envelope { envelope, problem }
    }
}

/// What would be understood.
const FORMS: &str = "send {\"trigger\": \"schedule\" | \"slice\" | \"backfill\" | \"replay\", …}, \
    an EventBridge scheduled event or an SQS batch (docs/EVENTS.md)";

fn did_you_mean(hint: &Option<&'static str>) -> String {
    hint.map_or_else(String::new, |hint| format!("; did you mean `{hint}`?"))
}

/// The word that `word` was probably meant to be: at most a third of its letters differ, or one
/// begins with the other.
pub(super) fn suggestion(
    word: &str,
    known: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    /// No word of ours is as long, and the distance costs the product of both lengths.
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

/// What kind of JSON it is.
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

/// A value for an error: texts and numbers as JSON, shortened; of the others only their kind.
pub(super) fn shown(value: &Value) -> String {
    /// Enough to recognise a value by.
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
