//! The item of one slice, typed.

use std::fmt;

use chrono::{DateTime, Datelike as _, SecondsFormat, SubsecRound, Utc};

use super::error::CheckpointError;
use super::state::{Lifecycle, State};
use super::store::{Item, Key, PK, SK, UNFINISHED, Value};
use crate::model::clock::rfc3339_seconds;
use crate::model::text::cut;

/// The first part of the key of items for all rollups. No rollup can have this name.
pub(super) const ALL: &str = "*";
/// The second part of the key of the rollup's watermark. It sorts after every slice, because those
/// start with a digit.
pub(super) const WATERMARK: &str = "watermark";

/// The attribute of an open slice. A slice that is whole lacks it.
pub(super) const OPEN_UNTIL: &str = "open_until";

/// The largest valid count. Sums of thousands of such counts do not overflow.
const COUNT_MAX: u64 = 1_000_000_000_000_000;

/// The record of one slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    pub rollup: String,
    pub slice_start: DateTime<Utc>,
    pub state: State,
    /// The fencing token: the number of claims. It never restarts.
    pub attempt: u64,
    /// Random token of the latest claim. `None` before the first.
    pub owner: Option<String>,
    /// The end of a running slice's lease.
    pub lease_until: Option<DateTime<Utc>>,
    /// The state that the latest claim found. `None`: there was no checkpoint.
    pub claimed_from: Option<State>,
    /// Failures since the last success or reopening.
    pub failures: u32,
    /// When another try makes sense.
    pub retry_at: Option<DateTime<Utc>>,
    /// How often the slice was reopened.
    pub dirty: u64,
    /// The value of `dirty` that the latest claim saw.
    pub dirty_seen: u64,
    /// The fingerprint of the rollup's definition at the latest claim.
    pub definition: Option<String>,
    /// The transaction ID on the source that an unsettled slice waits for. It is kept until the
    /// slice succeeds.
    pub horizon: Option<u64>,
    /// Why the slice yielded or was reopened.
    pub reason: Option<String>,
    /// The text of the latest failure. It is kept until the slice succeeds.
    pub error: Option<String>,
    /// The counts of the latest completed attempt.
    pub outcome: Option<Completion>,
    /// When the slice was last reopened.
    pub reopened_at: Option<DateTime<Utc>>,
    /// When the latest claim was made.
    pub started_at: Option<DateTime<Utc>>,
    /// When the latest attempt ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// The counts of a completed attempt.
#[derive(serde::Serialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// Source rows counted.
    pub rows_read: u64,
    /// Groups in the result.
    pub groups: u64,
    /// Rows of the rollup inserted.
    pub inserted: u64,
    /// Rows of the rollup changed.
    pub updated: u64,
    /// Rows of the rollup deleted, as their groups vanished.
    pub deleted: u64,
    /// Rows of the rollup that were already right.
    pub unchanged: u64,
    /// Statements that read the source.
    pub chunks: u64,
    /// How long the source worked on them.
    pub source_ms: u64,
    /// How long the attempt took.
    pub elapsed_ms: u64,
    /// How the slice was known to be settled: `capture`, `clock`, `column` or `grace`.
    pub settled_by: String,
    /// The instant until which finer slices were counted, where the slice is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_until: Option<DateTime<Utc>>,
}

/// The attributes of one slice that show a backfill's progress.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glance {
    pub(crate) state: State,
    /// The fingerprint of the rollup's definition at the latest claim.
    pub(crate) definition: Option<String>,
    /// When the latest claim was made.
    pub(crate) started_at: Option<DateTime<Utc>>,
    /// Failures since the last success or reopening.
    pub(crate) failures: u32,
    /// Source rows that the latest completed attempt counted.
    pub(crate) rows_read: u64,
}

impl Glance {
    /// The attributes for a summary.
    pub(super) const NAMES: &[&str] =
        &["state", "definition", "started_at", "failures", "rows_read"];

    /// Reads this part of an item.
    pub(super) fn from_item(item: &Item) -> Result<Self, CheckpointError> {
        let read = Reader { item };
        let state = read.text("state")?.ok_or_else(|| read.missing("state"))?;
        Ok(Self {
            state: State::parse(&state).ok_or_else(|| read.malformed("state", "is no state"))?,
            definition: read.text("definition")?,
            started_at: read.instant("started_at")?,
            failures: read.number("failures")?.unwrap_or(0),
            rows_read: read.count("rows_read")?.unwrap_or(0),
        })
    }
}

impl Checkpoint {
    /// The part that decides the next transition.
    #[must_use]
    pub(crate) const fn standing(&self) -> Lifecycle {
        Lifecycle {
            state: self.state,
            attempt: self.attempt,
            lease_until: self.lease_until,
            failures: self.failures,
            retry_at: self.retry_at,
            dirty: self.dirty,
            dirty_seen: self.dirty_seen,
        }
    }

    /// # Errors
    /// [`CheckpointError::Malformed`], with the item and the attribute, if the item was edited into
    /// something that no worker writes.
    pub(crate) fn from_item(item: &Item) -> Result<Self, CheckpointError> {
        let read = Reader { item };
        let state = read.state("state")?.ok_or_else(|| read.missing("state"))?;
        let lease_until = read.epoch_ms("lease_until")?;
        if state == State::Running && lease_until.is_none() {
            return Err(read.missing("lease_until"));
        }
        Ok(Self {
            rollup: read.text(PK)?.ok_or_else(|| read.missing(PK))?,
            slice_start: read.slice_start()?,
            state,
            attempt: read.required("attempt")?,
            owner: read.text("owner")?,
            lease_until,
            claimed_from: read.state("claimed_from")?,
            failures: read.number("failures")?.unwrap_or(0),
            retry_at: read.epoch_ms("retry_at")?,
            dirty: read.count("dirty")?.unwrap_or(0),
            dirty_seen: read.count("dirty_seen")?.unwrap_or(0),
            definition: read.text("definition")?,
            horizon: read.number("horizon")?,
            reason: read.text("reason")?,
            error: read.text("error")?,
            outcome: Completion::read(&read)?,
            reopened_at: read.instant("reopened_at")?,
            started_at: read.instant("started_at")?,
            finished_at: read.instant("finished_at")?,
        })
    }

    /// The item that [`Checkpoint::from_item`] reads.
    #[must_use]
    pub(crate) fn to_item(&self) -> Item {
        let mut item = key(&self.rollup, self.slice_start).to_item();
        let mut put = |name: &str, value: Option<Value>| {
            item.extend(value.map(|value| (name.to_owned(), value)));
        };
        put("state", Some(text(self.state.word())));
        put("attempt", Some(number(self.attempt)));
        put("owner", self.owner.as_deref().map(text));
        put("lease_until", self.lease_until.map(epoch_ms));
        put("claimed_from", self.claimed_from.map(|state| text(state.word())));
        put("failures", Some(number(self.failures.into())));
        put("retry_at", self.retry_at.map(epoch_ms));
        put("dirty", Some(number(self.dirty)));
        put("dirty_seen", Some(number(self.dirty_seen)));
        put("definition", self.definition.as_deref().map(text));
        put("horizon", self.horizon.map(number));
        put("reason", self.reason.as_deref().map(text));
        put("error", self.error.as_deref().map(text));
        put("reopened_at", self.reopened_at.map(instant));
        put("started_at", self.started_at.map(instant));
        put("finished_at", self.finished_at.map(instant));
        put(UNFINISHED, (self.state != State::Succeeded).then(|| text(&self.rollup)));
        for (name, value) in self.outcome.iter().flat_map(Completion::attributes) {
            put(name, Some(value));
        }
        put(OPEN_UNTIL, self.outcome.as_ref().and_then(|it| it.open_until).map(instant));
        item
    }
}

impl Completion {
    /// The attributes that store it, besides [`OPEN_UNTIL`].
    pub(super) fn attributes(&self) -> [(&'static str, Value); 10] {
        [
            ("rows_read", number(self.rows_read)),
            ("groups", number(self.groups)),
            ("inserted", number(self.inserted)),
            ("updated", number(self.updated)),
            ("deleted", number(self.deleted)),
            ("unchanged", number(self.unchanged)),
            ("chunks", number(self.chunks)),
            ("source_ms", number(self.source_ms)),
            ("elapsed_ms", number(self.elapsed_ms)),
            ("settled_by", text(&self.settled_by)),
        ]
    }

    fn read(read: &Reader<'_>) -> Result<Option<Self>, CheckpointError> {
        if !read.item.contains_key("rows_read") {
            return Ok(None);
        }
        Ok(Some(Self {
            rows_read: read.required("rows_read")?,
            groups: read.required("groups")?,
            inserted: read.required("inserted")?,
            updated: read.required("updated")?,
            deleted: read.required("deleted")?,
            unchanged: read.required("unchanged")?,
            chunks: read.required("chunks")?,
            source_ms: read.required("source_ms")?,
            elapsed_ms: read.required("elapsed_ms")?,
            settled_by: read.text("settled_by")?.ok_or_else(|| read.missing("settled_by"))?,
            open_until: read.instant(OPEN_UNTIL)?,
        }))
    }
}

/// The key of a slice's item.
pub(super) fn key(rollup: &str, slice_start: DateTime<Utc>) -> Key {
    Key::new(rollup, &sort_key(slice_start))
}

/// The second part of the key of the slice that starts at this instant. It has whole seconds in
/// UTC, so the texts sort like the instants.
pub(super) fn sort_key(slice_start: DateTime<Utc>) -> String {
    rfc3339_seconds(slice_start)
}

/// The slice's name in output: `entity_daily@2026-02-10T00:00:00Z`.
pub(super) fn label(rollup: &str, slice_start: DateTime<Utc>) -> String {
    format!("{rollup}@{}", sort_key(slice_start))
}

pub(super) fn text(value: &str) -> Value {
    Value::Text(value.to_owned())
}

pub(super) fn number(value: u64) -> Value {
    Value::Number(value.to_string())
}

/// An instant for comparisons in conditions.
pub(super) fn epoch_ms(at: DateTime<Utc>) -> Value {
    Value::Number(at.timestamp_millis().to_string())
}

/// An instant in a readable form.
pub(super) fn instant(at: DateTime<Utc>) -> Value {
    Value::Text(at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

/// The instant at the stored precision: whole milliseconds.
pub(super) fn whole_ms(at: DateTime<Utc>) -> DateTime<Utc> {
    at.trunc_subsecs(3)
}

/// Whether RFC 3339, with its four-digit year, can express it.
fn is_writable(at: &DateTime<Utc>) -> bool {
    (0..=9999).contains(&at.year())
}

/// The beginning of a text, enough to recognise it.
fn brief(text: &str) -> &str {
    const CHARS_MAX: usize = 80;
    text.char_indices().nth(CHARS_MAX).map_or(text, |(end, _)| &text[..end])
}

/// Reads attributes, and names the invalid one in errors.
pub(super) struct Reader<'a> {
    pub(super) item: &'a Item,
}

impl Reader<'_> {
    /// The error for a missing attribute.
    pub(super) fn missing(&self, attribute: &'static str) -> CheckpointError {
        self.malformed(attribute, "is missing")
    }

    pub(super) fn text(&self, name: &'static str) -> Result<Option<String>, CheckpointError> {
        match self.item.get(name) {
            None => Ok(None),
            // A text of 400 kB may have been written there.
            Some(Value::Text(value)) if name == "error" => Ok(Some(cut(value).into_owned())),
            Some(Value::Text(value)) => Ok(Some(value.clone())),
            Some(_) => Err(self.malformed(name, "is not a string (S)")),
        }
    }

    pub(super) fn number<N>(&self, name: &'static str) -> Result<Option<N>, CheckpointError>
    where
        N: std::str::FromStr,
    {
        let value = match self.item.get(name) {
            None => return Ok(None),
            Some(Value::Number(value)) => value,
            Some(_) => return Err(self.malformed(name, "is not a number (N)")),
        };
        value.parse().map(Some).map_err(|_| self.out_of_range(name, value))
    }

    /// A number used as a count.
    pub(super) fn count(&self, name: &'static str) -> Result<Option<u64>, CheckpointError> {
        match self.number::<u64>(name)? {
            Some(count) if count > COUNT_MAX => Err(self.out_of_range(name, &count.to_string())),
            count => Ok(count),
        }
    }

    fn out_of_range(&self, name: &'static str, value: &str) -> CheckpointError {
        self.malformed(name, format!("holds {}, which is out of its range", brief(value)))
    }

    /// The sort key, in the only form that workers write. Another spelling of the same instant
    /// would be another item.
    fn slice_start(&self) -> Result<DateTime<Utc>, CheckpointError> {
        let start = self.instant(SK)?.ok_or_else(|| self.missing(SK))?;
        match self.text(SK)?.is_some_and(|text| text == sort_key(start)) {
            true => Ok(start),
            false => {
                Err(self.malformed(SK, format!("is not {}, as it is written", sort_key(start))))
            }
        }
    }

    pub(super) fn instant(
        &self,
        name: &'static str,
    ) -> Result<Option<DateTime<Utc>>, CheckpointError> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        let parsed = DateTime::parse_from_rfc3339(&value).ok().map(|at| whole_ms(at.to_utc()));
        parsed.filter(is_writable).map(Some).ok_or_else(|| {
            self.malformed(name, format!("holds {:?}, not an RFC 3339 instant", brief(&value)))
        })
    }

    pub(super) fn required(&self, name: &'static str) -> Result<u64, CheckpointError> {
        self.count(name)?.ok_or_else(|| self.missing(name))
    }

    fn state(&self, name: &'static str) -> Result<Option<State>, CheckpointError> {
        let Some(word) = self.text(name)? else { return Ok(None) };
        let wrong = || {
            let words = State::ALL.map(State::word).join(", ");
            self.malformed(name, format!("holds {:?}, which is none of {words}", brief(&word)))
        };
        match word.as_str() {
            "absent" if name == "claimed_from" => Ok(None),
            _ => State::parse(&word).map(Some).ok_or_else(wrong),
        }
    }

    pub(super) fn epoch_ms(
        &self,
        name: &'static str,
    ) -> Result<Option<DateTime<Utc>>, CheckpointError> {
        let Some(ms) = self.number::<i64>(name)? else { return Ok(None) };
        let wrong = || self.out_of_range(name, &ms.to_string());
        DateTime::from_timestamp_millis(ms).filter(is_writable).map(Some).ok_or_else(wrong)
    }

    pub(super) fn malformed(
        &self,
        attribute: &'static str,
        problem: impl fmt::Display,
    ) -> CheckpointError {
        let part = |name| match self.item.get(name) {
            Some(Value::Text(value)) => brief(value).escape_debug().to_string(),
            _ => "?".to_owned(),
        };
        CheckpointError::Malformed {
            item: format!("{}@{}", part(PK), part(SK)),
            attribute,
            problem: problem.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
