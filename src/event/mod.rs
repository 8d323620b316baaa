//! Parses the JSON of an event that starts work into a [`Trigger`].
//!
//! Parsing is total. An invalid event becomes an error that says what would be right, so that the
//! event reaches a dead-letter queue instead of being acknowledged. Tallymark's own events refuse
//! unknown keys. The envelopes of AWS may have further keys.
//!
//! Times that depend on a rollup's calendar stay text here until [`slice_of`] and [`instant_of`]
//! are given the rollup. docs/EVENTS.md lists every event with its response.

mod error;
#[cfg(test)]
mod tests;

use aws_lambda_events::eventbridge::EventBridgeEvent;
use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use chrono::{DateTime, Datelike as _, Utc};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::clients::queue::Receipt;
use crate::model::rollup::Rollup;
use crate::model::slice::{Order, Slice};

pub(crate) use error::EventError;

use error::{KEYS_FIRST, TRIGGERS, kind_of, suggestion};

/// The work that an event requests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Trigger {
    /// Find and process the due slices of all rollups, as of this time.
    Schedule {
        /// The scheduled time.
        time: DateTime<Utc>,
    },
    /// Process one slice.
    Slice(SliceRequest),
    /// Messages of a queue, each for one slice.
    Messages(Vec<Message>),
    /// Process the slices of a range.
    Backfill(BackfillRequest),
    /// Process slices again.
    Replay(ReplayRequest),
    /// Compare the old slices that are due, of this rollup or of all.
    Scrub { rollup: Option<String> },
    /// Run a command of the command line.
    Command(CommandRequest),
}

/// One slice, as an event names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SliceRequest {
    pub(crate) rollup: String,
    /// The slice's start, as it was written.
    pub(crate) start: String,
    /// The backfill that asked for it, if one did.
    pub(crate) backfill: Option<String>,
}

/// A message of an SQS batch.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    /// SQS's ID of the message, which goes into `batchItemFailures`.
    pub(crate) id: String,
    /// The request. One invalid message must not hold up the others.
    pub(crate) request: Result<SliceRequest, EventError>,
    /// The raw body.
    pub(crate) body: String,
    /// How to tell SQS when the message should come back, if SQS sent a receipt.
    pub(crate) receipt: Option<Receipt>,
    /// The trace of the sender.
    pub(crate) trace: Option<String>,
}

/// A range of slices, as an event names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BackfillRequest {
    pub(crate) rollup: String,
    /// Start of the range, as it was written.
    pub(crate) from: String,
    /// End of the range, as it was written. `None` means now.
    pub(crate) to: Option<String>,
    /// The end of history to start with.
    pub(crate) order: Order,
    /// Whether slices that have succeeded are processed too.
    pub(crate) force: bool,
}

/// A command of the command line, as data.
#[derive(Clone, Debug, PartialEq)]
pub struct CommandRequest {
    /// Its name.
    pub command: String,
    /// Its arguments by their names.
    pub arguments: Map<String, Value>,
}

/// Slices to process again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplayRequest {
    pub(crate) rollup: String,
    pub(crate) which: Which,
    /// The reason, which the checkpoint keeps.
    pub(crate) reason: String,
    /// Take the result even if most of the source's rows are gone.
    pub(crate) allow_shrink: bool,
}

/// Which slices a replay processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// The one that starts here, as it was written.
    Start(String),
    /// All that failed, the exhausted ones included.
    Failed,
}

/// Reads an event.
///
/// # Errors
/// The event is none of Tallymark's. The text says what would be right.
pub(crate) fn parse(event: &Value) -> Result<Trigger, EventError> {
    let Value::Object(fields) = event else {
        return Err(EventError::NotAnObject { found: kind_of(event) });
    };
    if let Some(trigger) = fields.get("trigger") {
        return own(trigger, fields);
    }
    if let Some(records) = fields.get("Records") {
        return batch(event, records);
    }
    if fields.contains_key("source") || fields.contains_key("detail-type") {
        return scheduled(event);
    }
    let known = || KEYS_FIRST.into_iter();
    let hint = fields.keys().find_map(|key| suggestion(key, known()));
    Err(EventError::NoTrigger { hint })
}

/// The slice of `rollup` that starts at `text`: a time with its offset, or a local one.
///
/// # Errors
/// No slice starts there, or none before the rollup's `start`.
pub(crate) fn slice_of(rollup: &Rollup, text: &str) -> Result<Slice, EventError> {
    let name = || rollup.name.clone();
    let start = instant_of(rollup, "start", text)?;
    let slice = rollup
        .calendar
        .starting(start)
        .map_err(|source| EventError::Misaligned { rollup: name(), source })?;
    // Callers with a clock check whether the slice has begun.
    Ok(rollup.begun(slice, slice.start())?)
}

/// The instant that `text`, the value of `key`, names in the zone of `rollup`.
///
/// # Errors
/// The text names no instant, or two.
pub(crate) fn instant_of(
    rollup: &Rollup,
    key: &'static str,
    text: &str,
) -> Result<DateTime<Utc>, EventError> {
    let rollup_name = || rollup.name.clone();
    rollup.calendar.instant(text).map_err(|source| EventError::Instant {
        rollup: rollup_name(),
        key,
        source,
    })
}

/// Reads one of Tallymark's own events.
fn own(trigger: &Value, fields: &Map<String, Value>) -> Result<Trigger, EventError> {
    let event = |event| Fields { event, fields };
    match trigger.as_str() {
        Some("schedule") => schedule(&event("schedule")),
        Some("slice") => slice(&event("slice")).map(Trigger::Slice),
        Some("backfill") => backfill(&event("backfill")),
        Some("replay") => replay(&event("replay")),
        Some("scrub") => scrub(&event("scrub")),
        Some("command") => command(&event("command")).map(Trigger::Command),
        _ => Err(EventError::UnknownTrigger {
            found: error::shown(trigger),
            hint: trigger.as_str().and_then(|word| suggestion(word, TRIGGERS.into_iter())),
        }),
    }
}

fn schedule(fields: &Fields<'_>) -> Result<Trigger, EventError> {
    fields.only(&["trigger", "time"])?;
    Ok(Trigger::Schedule { time: fields.time()? })
}

/// Reads EventBridge's scheduled event, from a rule (`aws.events`) or from a Scheduler with its
/// default input (`aws.scheduler`).
fn scheduled(event: &Value) -> Result<Trigger, EventError> {
    // A hand-made event may lack a detail.
    let read = EventBridgeEvent::<Option<Value>>::deserialize(event);
    let event = read.map_err(|error| EventError::envelope("EventBridge event", &error))?;
    let is_ours = matches!(event.source.as_str(), "aws.events" | "aws.scheduler")
        && event.detail_type == "Scheduled Event";
    if !is_ours {
        let show = |text: &str| error::shown(&Value::from(text));
        let (source, detail_type) = (show(&event.source), show(&event.detail_type));
        return Err(EventError::Foreign {
            origin: format!("source {source}, detail-type {detail_type}"),
        });
    }
    let (event_name, key, right) = ("Scheduled Event", "time", TIME);
    let time = event.time.ok_or(EventError::Missing { event: event_name, key, right })?;
    let found = format!("{time:?}");
    let wrong = EventError::Wrong { event: event_name, key, found, right };
    Ok(Trigger::Schedule { time: sane(time).ok_or(wrong)? })
}

fn slice(fields: &Fields<'_>) -> Result<SliceRequest, EventError> {
    fields.only(&["trigger", "rollup", "start", "backfill"])?;
    let backfill = fields.text_or_none("backfill", ID)?;
    if backfill.as_ref().is_some_and(|id| id.len() > ID_BYTES_MAX) {
        return Err(fields.wrong("backfill", ID));
    }
    Ok(SliceRequest { rollup: fields.rollup()?, start: fields.text("start", START)?, backfill })
}

fn backfill(fields: &Fields<'_>) -> Result<Trigger, EventError> {
    fields.only(&["trigger", "rollup", "from", "to", "order", "force"])?;
    let order = match fields.text_or_none("order", ORDER)?.as_deref() {
        None | Some("newest_first") => Order::NewestFirst,
        Some("oldest_first") => Order::OldestFirst,
        Some(_) => return Err(fields.wrong("order", ORDER)),
    };
    Ok(Trigger::Backfill(BackfillRequest {
        rollup: fields.rollup()?,
        from: fields.text("from", INSTANT)?,
        to: fields.text_or_none("to", INSTANT)?,
        order,
        force: fields.flag("force")?,
    }))
}

fn replay(fields: &Fields<'_>) -> Result<Trigger, EventError> {
    fields.only(&["trigger", "rollup", "start", "failed", "reason", "allow_shrink"])?;
    let start = fields.text_or_none("start", START)?;
    let which = match (start, fields.flag("failed")?) {
        (Some(start), false) => Which::Start(start),
        (None, true) => Which::Failed,
        (start, _) => return Err(EventError::EitherOr { both: start.is_some() }),
    };
    Ok(Trigger::Replay(ReplayRequest {
        rollup: fields.rollup()?,
        which,
        reason: fields.text("reason", "a sentence that is kept in the checkpoint")?,
        allow_shrink: fields.flag("allow_shrink")?,
    }))
}

fn scrub(fields: &Fields<'_>) -> Result<Trigger, EventError> {
    fields.only(&["trigger", "rollup"])?;
    Ok(Trigger::Scrub { rollup: fields.text_or_none("rollup", ROLLUP)? })
}

fn command(fields: &Fields<'_>) -> Result<CommandRequest, EventError> {
    fields.only(&["trigger", "command", "arguments"])?;
    let arguments = match fields.fields.get("arguments") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(arguments)) => arguments.clone(),
        Some(_) => return Err(fields.wrong("arguments", ARGUMENTS)),
    };
    Ok(CommandRequest { command: fields.text("command", COMMAND)?, arguments })
}

fn batch(event: &Value, records: &Value) -> Result<Trigger, EventError> {
    let read = SqsEvent::deserialize(event);
    let event = read.map_err(|error| EventError::envelope("SQS batch", &error))?;
    if event.records.is_empty() {
        return Err(EventError::NoRecords { found: error::shown(records) });
    }
    event.records.into_iter().map(message).collect::<Result<_, _>>().map(Trigger::Messages)
}

/// A message that lacks an ID fails the whole batch, as SQS returns messages by ID.
fn message(record: SqsMessage) -> Result<Message, EventError> {
    if record.event_source.as_deref() != Some("aws:sqs") {
        let source = record.event_source.map(Value::from);
        let origin = source.as_ref().map_or_else(|| "nothing".to_owned(), error::shown);
        return Err(EventError::Foreign { origin: format!("a record with eventSource {origin}") });
    }
    let Some(id) = record.message_id.filter(|id| !id.is_empty()) else {
        return Err(EventError::Missing {
            event: "SQS message",
            key: "messageId",
            right: "the message's id",
        });
    };
    let deliveries = record.attributes.get("ApproximateReceiveCount");
    let deliveries = deliveries.and_then(|count| count.parse().ok()).unwrap_or(1);
    // arn:aws:sqs:REGION:ACCOUNT:NAME
    let queue = record.event_source_arn.as_deref().and_then(|arn| arn.rsplit(':').next());
    let receipt = record.receipt_handle.zip(queue).map(|(handle, queue)| Receipt {
        handle,
        queue: queue.to_owned(),
        deliveries,
    });
    let trace = record.attributes.get("AWSTraceHeader").cloned();
    let body = record.body.unwrap_or_default();
    Ok(Message { id, request: read_body(&body), body, receipt, trace })
}

fn read_body(body: &str) -> Result<SliceRequest, EventError> {
    let not_json =
        |error: serde_json::Error| EventError::BodyNotJson { problem: error.to_string() };
    match parse(&serde_json::from_str(body).map_err(not_json)?)? {
        Trigger::Slice(request) => Ok(request),
        _ => Err(EventError::BodyNotSlice),
    }
}

const START: &str = "the start of a slice such as \"2026-02-10T00:00:00Z\"";
const TIME: &str = "a time with its offset such as \"2026-02-13T00:05:00Z\"";
const INSTANT: &str = "a date or time such as \"2026-02-01\" or \"2026-02-01T00:00:00Z\"";
const ROLLUP: &str = "the name of a rollup";
const COMMAND: &str = "the name of a command such as \"check\"";
const ARGUMENTS: &str = "an object such as {\"rollup\": \"daily\"}";
const ID: &str = "the backfill's id, or null";
const ORDER: &str = "\"newest_first\" or \"oldest_first\"";

/// Longest text in an event. It is far more than a name, a time or a reason needs, and short enough
/// to be repeated in an error.
const TEXT_BYTES_MAX: usize = crate::model::text::FOREIGN_MAX;

/// A time that a schedule can have. Times outside of these years could overflow when others are
/// derived from them.
fn sane(time: DateTime<Utc>) -> Option<DateTime<Utc>> {
    (1970..=9999).contains(&time.year()).then_some(time)
}

/// Longest ID of a backfill. It is half of a sort key, which is limited to 1,024 bytes.
const ID_BYTES_MAX: usize = 512;

/// The keys of one event.
struct Fields<'e> {
    event: &'static str,
    fields: &'e Map<String, Value>,
}

impl Fields<'_> {
    /// Refuses any other key.
    fn only(&self, known: &[&'static str]) -> Result<(), EventError> {
        let Some(key) = self.fields.keys().find(|key| !known.contains(&key.as_str())) else {
            return Ok(());
        };
        Err(EventError::UnknownKey {
            event: self.event,
            key: error::shown(&Value::from(key.as_str())),
            hint: suggestion(key, known.iter().copied()),
            known: known.join(", "),
        })
    }

    fn rollup(&self) -> Result<String, EventError> {
        self.text("rollup", ROLLUP)
    }

    fn time(&self) -> Result<DateTime<Utc>, EventError> {
        let text = self.text("time", TIME)?;
        let time = DateTime::parse_from_rfc3339(&text).map_err(|_| self.wrong("time", TIME))?;
        sane(time.to_utc()).ok_or_else(|| self.wrong("time", TIME))
    }

    /// A required text.
    fn text(&self, key: &'static str, right: &'static str) -> Result<String, EventError> {
        let missing = || EventError::Missing { event: self.event, key, right };
        self.text_or_none(key, right)?.ok_or_else(missing)
    }

    /// An optional text. Null counts as missing.
    fn text_or_none(
        &self,
        key: &'static str,
        right: &'static str,
    ) -> Result<Option<String>, EventError> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text))
                if !text.trim().is_empty() && text.len() <= TEXT_BYTES_MAX =>
            {
                Ok(Some(text.clone()))
            }
            Some(_) => Err(self.wrong(key, right)),
        }
    }

    /// `true` or `false`. The default is `false`.
    fn flag(&self, key: &'static str) -> Result<bool, EventError> {
        match self.fields.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(key, "true or false")),
        }
    }

    fn wrong(&self, key: &'static str, right: &'static str) -> EventError {
        let found = self.fields.get(key).map_or_else(String::new, error::shown);
        EventError::Wrong { event: self.event, key, found, right }
    }
}
