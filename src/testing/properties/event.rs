//! Events are understood or refused, and an understood event is understood again after it is
//! written out.

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::{assert_line, rollups};
use crate::checkpoint::{Watermark, begun};
use crate::clients::queue;
use crate::event::{
    BackfillRequest, CommandRequest, ReplayRequest, SliceRequest, Trigger, Which, instant_of,
    parse, slice_of,
};
use crate::model::hint::Hinted;
use crate::model::slice::Order;
use crate::work::due::read_from;

/// The body of an invocation.
///
/// # Panics If a property is violated.
pub fn event(data: &[u8]) {
    if let Ok(event) = serde_json::from_slice(data) {
        event_of(&event);
    }
}

/// An event.
///
/// # Panics If a property is violated.
pub fn event_of(event: &Value) {
    match parse(event) {
        Err(error) => assert_line(&error.in_one_line()),
        Ok(trigger) => {
            understood(&trigger);
            if let Some(again) = written(&trigger) {
                assert_eq!(parse(&again).as_ref(), Ok(&trigger), "{again}");
            }
        }
    }
}

/// Steps that a trigger goes through before any server is contacted.
fn understood(trigger: &Trigger) {
    match trigger {
        Trigger::Schedule { time } => scheduled(*time),
        Trigger::Slice(request) => requested(request),
        Trigger::Messages(messages) => {
            for message in messages {
                assert!(!message.id.is_empty());
                match &message.request {
                    Ok(request) => requested(request),
                    Err(error) => assert_line(&error.in_one_line()),
                }
            }
        }
        Trigger::Backfill(BackfillRequest { from, to, .. }) => {
            for rollup in rollups() {
                for text in [Some(from), to.as_ref()].into_iter().flatten() {
                    if let Err(error) = instant_of(rollup, "from", text) {
                        assert_line(&error.in_one_line());
                    }
                }
            }
        }
        Trigger::Replay(replay) => {
            if let Which::Start(start) = &replay.which {
                named(start);
            }
        }
        Trigger::Scrub { .. } | Trigger::Command(_) => {}
    }
}

/// A tick as of this time determines the due slices.
fn scheduled(time: DateTime<Utc>) {
    for rollup in rollups() {
        let seen = Watermark::default();
        assert!(read_from(rollup, &seen, &seen.definition_of(rollup), time) >= rollup.start);
        if let Some(slice) = rollup.newest(time) {
            assert!(rollup.readable_at(slice) <= time, "{slice} at {time}");
        }
    }
}

/// A requested slice.
pub(super) fn requested(request: &SliceRequest) {
    named(&request.start);
    if let Some(id) = &request.backfill {
        // Only an ID that contains the time of its backfill's beginning is parsed.
        if let Some(began) = begun(id) {
            assert_eq!(began.format("%Y%m%dT%H%M%S%3fZ").to_string(), *id);
        }
    }
}

/// A text that may name a slice. The slice's own name does, and so does the message sent for it.
fn named(text: &str) {
    for rollup in rollups() {
        let slice = match slice_of(rollup, text) {
            Ok(slice) => slice,
            Err(error) => {
                assert_line(&error.in_one_line());
                continue;
            }
        };
        assert!(slice.start() >= rollup.start && slice.start() < slice.end());
        assert_eq!(slice_of(rollup, &slice.to_string()), Ok(slice));
        assert_eq!(rollup.calendar.previous(rollup.calendar.next(slice)), slice);
        let body = queue::body(&rollup.name, slice.start(), Some("1"));
        let Ok(Trigger::Slice(sent)) = parse(&serde_json::from_str(&body).unwrap_or_default())
        else {
            panic!("{body} is no slice");
        };
        assert_eq!((&*sent.rollup, sent.backfill.as_deref()), (&*rollup.name, Some("1")));
        assert_eq!(slice_of(rollup, &sent.start), Ok(slice), "{body}");
    }
}

/// The event with the same request, in Tallymark's own form.
fn written(trigger: &Trigger) -> Option<Value> {
    Some(match trigger {
        Trigger::Schedule { time } => json!({
            "trigger": "schedule", "time": time.to_rfc3339_opts(SecondsFormat::AutoSi, true),
        }),
        Trigger::Slice(SliceRequest { rollup, start, backfill }) => json!({
            "trigger": "slice", "rollup": rollup, "start": start, "backfill": backfill,
        }),
        Trigger::Messages(_) => return None,
        Trigger::Backfill(BackfillRequest { rollup, from, to, order, force }) => {
            let order = match order {
                Order::NewestFirst => "newest_first",
                Order::OldestFirst => "oldest_first",
            };
            json!({
                "trigger": "backfill", "rollup": rollup, "from": from, "to": to, "order": order,
                "force": force,
            })
        }
        Trigger::Replay(ReplayRequest { rollup, which, reason, allow_shrink }) => {
            let (start, failed) = match which {
                Which::Start(start) => (Some(start), false),
                Which::Failed => (None, true),
            };
            json!({
                "trigger": "replay", "rollup": rollup, "start": start, "failed": failed,
                "reason": reason, "allow_shrink": allow_shrink,
            })
        }
        Trigger::Scrub { rollup } => json!({ "trigger": "scrub", "rollup": rollup }),
        Trigger::Command(CommandRequest { command, arguments }) => {
            json!({ "trigger": "command", "command": command, "arguments": arguments })
        }
    })
}
