//! Stored items with any content give an error that names the attribute, or a value that is written
//! back unchanged.

use chrono::{DateTime, TimeDelta, Utc};

use super::backfills::Backfill;
use super::control::{Control, Pause, Scope, control_key};
use super::error::CheckpointError;
use super::finish::FailedAttempt;
use super::item::{Checkpoint, Completion, Glance, key};
use super::moving::Items;
use super::scrub::Budget;
use super::scrub::{ScrubProgress, drift_name, read_budget};
use super::state::{self, Event};
use super::store::{Cond, Item, Update, Value};
use super::watermark::Watermark;
use crate::check::scrub::{Due, due};
use crate::config::Settings;
use crate::throttle::{Governor, Throttle};

/// An item, one attribute per line: `attempt N 5`, `reason S late data`, `pause M`. The fields of a
/// map follow it, each after a space: ` at S 2026-02-10T00:00:00.000Z`.
///
/// # Panics If a property is violated.
pub fn item(data: &[u8]) {
    let item = parsed(&String::from_utf8_lossy(data));
    read(Checkpoint::from_item(&item), checkpoint);
    read(Glance::from_item(&item), |_| ());
    read(Watermark::read(&item), |watermark| {
        assert!(
            watermark.source_start().is_none()
                || watermark.definition().is_none_or(|it| it.len() < 1 << 20)
        );
    });
    read(Backfill::read(&item), backfill);
    read(Control::read(&item), |control| controlled(&control));
    read(ScrubProgress::read(&item), |scrub| scrubbed(&scrub, &item));
    read(read_budget(&item), |spent| spending(&spent));
    read(Items::of(item).leased_until(now()), |until| assert!(until.is_none_or(|it| it > now())));
}

fn read<T>(found: Result<T, CheckpointError>, holds: impl FnOnce(T)) {
    match found {
        Ok(found) => holds(found),
        Err(error) => {
            let said = error.to_string();
            assert!(matches!(error, CheckpointError::Malformed { .. }), "{said}");
            assert!(said.lines().count() == 1 && said.len() < 4096, "{said:?}");
        }
    }
}

fn checkpoint(found: Checkpoint) {
    let again = Checkpoint::from_item(&found.to_item());
    assert!(again.as_ref().is_ok_and(|again| *again == found), "{again:?} is not {found:?}");
    let (is_key, item) = (key(&found.rollup, found.slice_start).to_item(), found.to_item());
    assert!(is_key.iter().all(|(name, value)| item.get(name) == Some(value)));
    let attempt = found.attempt;
    for event in [
        Event::Claim { lease_until: now() + TimeDelta::seconds(20) },
        Event::Complete { attempt },
        Event::Fail { attempt, retryable: true, jitter: 0.5 },
        Event::Yield { attempt, retry_at: None },
        Event::Reopen,
    ] {
        if let Ok(next) = state::next(Some(&found.standing()), event, now(), 5) {
            assert!(next.attempt >= attempt && next.dirty >= found.dirty, "{next:?}");
        }
    }
    let sum = found.outcome.as_ref().map_or(0, |done: &Completion| done.rows_read + done.groups);
    assert!(sum <= u64::MAX / 2, "sums of many of them are made");
    let _ =
        FailedAttempt { state: found.state, failures: found.failures, retry_at: found.retry_at };
}

fn backfill(found: Backfill) {
    let mut found = found;
    let written = found.update().applied(None, None);
    found.is_written();
    let again = Backfill::read(&written);
    assert!(again.as_ref().is_ok_and(|again| *again == found), "{again:?} is not {found:?}");
    assert!(found.is_repeat_of(&found.clone()));
    assert!(serde_json::to_value(&found).is_ok());
}

fn controlled(control: &Control) {
    let settings = Settings { naps: true, ..Settings::default() };
    let governor = Governor::new(settings);
    for is_backfill in [false, true] {
        let ratio = control.nice_ratio("r", is_backfill);
        // A stored value slows work down at most as much as the configuration could.
        let throttle = Throttle::new(Some(&governor), ratio);
        throttle.chunk_read(std::time::Duration::from_secs(1), false);
        assert!((1.0..=101.0).contains(&throttle.stretch()), "{ratio:?}");
        assert!(ratio.is_none_or(|it| (0.0..=100.0).contains(&it.slowest())), "{ratio:?}");
        if let Some(pause) = control.paused("r", is_backfill, now()) {
            assert!(pause.until.is_none_or(|until| until > now()));
        }
    }
    for scope in [Scope::Source, Scope::Rollup("r"), Scope::Backfill("r")] {
        let Some(pause) = control.pause_of(scope, now()) else { continue };
        let update =
            Update::new(control_key(), Cond::always()).set(&scope.pause(), pause.to_attribute());
        let again =
            Control::read(&update.applied(None, None)).map(|it| it.pause_of(scope, now()).cloned());
        let again: Option<Pause> = again.ok().flatten();
        assert_eq!(again.as_ref(), Some(pause));
    }
    let _ = control.woken_at().map(|at| at + TimeDelta::hours(1));
}

fn scrubbed(scrub: &ScrubProgress, item: &Item) {
    for (start, drift) in &scrub.drift {
        let name = drift_name(*start);
        assert!(item.contains_key(&name), "{name} cannot be forgotten");
        let again = ScrubProgress::read(&Item::from([(name, drift.to_attribute())]));
        let again = again.ok().and_then(|scrub| scrub.drift.get(start).copied());
        assert_eq!(again, Some(*drift));
    }
    assert!(scrub.verified_in_round() <= scrub.verified);
    for is_new in [false, true] {
        let next = scrub.after(now(), is_new, now());
        let written = scrub.taking("r", &next).applied(None, None);
        let again = ScrubProgress::read(&written);
        let is_taken = |again: &ScrubProgress| {
            (again.round, again.cursor, again.round_started_at, again.verified_before)
                == (next.round, next.cursor, next.round_started_at, next.verified_before)
        };
        assert!(again.as_ref().is_ok_and(is_taken), "{again:?} is not {next:?}");
    }
}

fn spending(spent: &Budget) {
    for per_day in [1, 20, 10_000] {
        for now in [now(), now() + TimeDelta::days(300)] {
            match due(Some(spent), now, per_day) {
                Due::Later => {}
                Due::Enough(next) | Due::One(next) => {
                    assert!(next.verified_today <= per_day.max(spent.verified_today));
                    assert!(next.paid_until <= now + TimeDelta::days(1));
                }
            }
        }
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_771_000_000_000).unwrap_or_default()
}

/// The item that a text describes.
fn parsed(text: &str) -> Item {
    let mut item = Item::new();
    let mut map: Option<(String, Item)> = None;
    for line in text.lines() {
        let is_field = line.starts_with(' ');
        let mut parts = line.trim_start().splitn(3, ' ');
        let name = parts.next().unwrap_or_default().to_owned();
        let kind = parts.next().unwrap_or_default();
        let value = value(kind, parts.next().unwrap_or_default());
        match &mut map {
            Some((_, fields)) if is_field => drop(fields.insert(name, value)),
            _ => {
                item.extend(map.take().map(|(name, fields)| (name, Value::Map(fields))));
                if kind == "M" {
                    map = Some((name, Item::new()));
                } else {
                    item.insert(name, value);
                }
            }
        }
    }
    item.extend(map.map(|(name, fields)| (name, Value::Map(fields))));
    item
}

fn value(kind: &str, text: &str) -> Value {
    // `\n` in a string, as attributes are separated by lines.
    match kind {
        "N" => Value::Number(text.to_owned()),
        "B" => Value::Bool(text == "true"),
        "O" => Value::Null,
        "L" => Value::Texts(text.split(' ').map(str::to_owned).collect()),
        _ => Value::Text(text.replace("\\n", "\n")),
    }
}
