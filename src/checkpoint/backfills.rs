//! A fanned-out backfill: one item with the request and the progress of its planning.
//!
//! A rollup has at most one under way. The watermark's item names it, so that a tick knows it from
//! that read.

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;

use super::checkpoints::Checkpoints;
use super::error::CheckpointError;
use super::item::{Reader, instant, number, text, whole_ms};
use super::store::{Cond, Item, Key, PK, Query, SK, Sorts, Update, Value, Written};
use super::tombstone::unless_elsewhere;
use super::watermark::watermark_key;
use crate::model::slice::Order;

/// The second part of the keys of backfills starts with this. It sorts after every slice, because
/// those start with a digit.
const PREFIX: &str = "backfill#";

/// The format of an ID, which contains the start time of the backfill.
const ID: &str = "%Y%m%dT%H%M%S%3fZ";

/// The attribute of the watermark's item that names the backfill under way.
pub(super) const ACTIVE: &str = "backfill";

/// DynamoDB's time to live. An ended backfill is deleted after this.
const KEPT: TimeDelta = TimeDelta::days(90);

/// The attribute that DynamoDB's time to live reads: epoch seconds.
const EXPIRES: &str = "expires_at";

/// Backfills that a listing shows.
const LISTED_MAX: u16 = 50;

/// Phase of a backfill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BackfillState {
    /// Its slices are being sent to the queue.
    Planning,
    /// All slices that need it were sent.
    Running,
    /// Every slice has succeeded, or further tries cannot help it.
    Done,
    /// An operator ended it.
    Cancelled,
}

impl BackfillState {
    #[must_use]
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Planning => "planning",
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether there is more to do.
    #[must_use]
    pub(crate) const fn is_active(self) -> bool {
        matches!(self, Self::Planning | Self::Running)
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Planning, Self::Running, Self::Done, Self::Cancelled]
            .into_iter()
            .find(|state| state.word() == word)
    }
}

/// A fanned-out backfill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backfill {
    pub rollup: String,
    /// The instant at which it began, as `20261125T171219123Z`. It is unique within the rollup.
    pub id: String,
    /// Slices that start in `[from, to)`.
    pub from: DateTime<Utc>,
    /// Slices that start in `[from, to)`.
    pub to: DateTime<Utc>,
    /// The end of history to start with.
    pub order: Order,
    /// Whether slices that had succeeded before it began run again.
    pub force: bool,
    /// The hash of the definition that it computes.
    pub definition: String,
    /// The operator or event that requested it.
    pub reason: String,
    pub state: BackfillState,
    /// The progress of this planning round: the end of the examined range, in the order of work.
    pub cursor: Option<DateTime<Utc>>,
    /// The number of planning rounds, including this one.
    pub round: u64,
    /// Messages sent in all rounds.
    pub sent: u64,
    /// Messages sent in this round.
    pub sent_in_round: u64,
    /// Slices found in this round that a worker has, or that wait for their time to retry.
    pub pending_in_round: u64,
    /// Slices found in this round that failed too often.
    pub exhausted_in_round: u64,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When the newest message was sent.
    pub sent_at: Option<DateTime<Utc>>,
    /// When it was done or cancelled.
    pub finished_at: Option<DateTime<Utc>>,
    #[serde(skip)]
    version: u64,
}

impl Backfill {
    /// A backfill of the slices of `rollup` that start in `[from, to)`, which begins `now`.
    #[must_use]
    pub fn new(
        rollup: &crate::model::rollup::Rollup,
        (from, to): (DateTime<Utc>, DateTime<Utc>),
        order: Order,
        force: bool,
        reason: &str,
        now: DateTime<Utc>,
    ) -> Self {
        let now = whole_ms(now);
        Self {
            rollup: rollup.name.clone(),
            id: now.format(ID).to_string(),
            from,
            to,
            order,
            force,
            definition: rollup.definition(),
            reason: reason.to_owned(),
            state: BackfillState::Planning,
            cursor: None,
            round: 1,
            sent: 0,
            sent_in_round: 0,
            pending_in_round: 0,
            exhausted_in_round: 0,
            started_at: now,
            sent_at: None,
            finished_at: None,
            version: 0,
        }
    }

    /// Whether it requests the same, except perhaps for the end. That happens when one event is
    /// delivered twice.
    #[must_use]
    pub(crate) fn is_repeat_of(&self, other: &Self) -> bool {
        let asked = |it: &Self| (it.from, it.order, it.force, it.definition.clone());
        asked(self) == asked(other)
    }

    pub(super) fn read(item: &Item) -> Result<Self, CheckpointError> {
        let read = Reader { item };
        let required = |name: &'static str| read.text(name)?.ok_or_else(|| read.missing(name));
        let at = |name: &'static str| read.instant(name)?.ok_or_else(|| read.missing(name));
        let state = required("state")?;
        let state = BackfillState::parse(&state)
            .ok_or_else(|| read.malformed("state", "is no state of a backfill"))?;
        let order = match &*required("order")? {
            "oldest_first" => Order::OldestFirst,
            _ => Order::NewestFirst,
        };
        Ok(Self {
            rollup: required(PK)?,
            id: required(SK)?
                .strip_prefix(PREFIX)
                .ok_or_else(|| read.malformed(SK, "is not that of a backfill"))?
                .to_owned(),
            from: at("from")?,
            to: at("to")?,
            order,
            force: required("force")? == "true",
            definition: required("definition")?,
            reason: required("reason")?,
            state,
            cursor: read.instant("cursor")?,
            round: read.required("round")?,
            sent: read.required("sent")?,
            sent_in_round: read.required("sent_in_round")?,
            pending_in_round: read.required("pending_in_round")?,
            exhausted_in_round: read.required("exhausted_in_round")?,
            started_at: at("started_at")?,
            sent_at: read.instant("sent_at")?,
            finished_at: read.instant("finished_at")?,
            version: read.required("version")?,
        })
    }

    /// Whether `item` is what [`Backfill::update`] writes.
    fn is_stored_in(&self, item: &Item) -> bool {
        let stored = Self {
            from: whole_ms(self.from),
            to: whole_ms(self.to),
            cursor: self.cursor.map(whole_ms),
            sent_at: self.sent_at.map(whole_ms),
            finished_at: self.finished_at.map(whole_ms),
            version: self.version + 1,
            ..self.clone()
        };
        Self::read(item).is_ok_and(|found| found == stored)
    }

    /// Writes all of it, provided that the stored version is still the one that was read.
    pub(super) fn update(&self) -> Update {
        let condition = match self.version {
            0 => Cond::Absent,
            seen => Cond::is("version", number(seen)),
        };
        let order = match self.order {
            Order::NewestFirst => "newest_first",
            Order::OldestFirst => "oldest_first",
        };
        let expires = self.finished_at.map(|at| (at + KEPT).timestamp().to_string());
        Update::new(backfill_key(&self.rollup, &self.id), condition)
            .set("version", number(self.version + 1))
            .set("from", instant(self.from))
            .set("to", instant(self.to))
            .set("order", text(order))
            .set("force", text(if self.force { "true" } else { "false" }))
            .set("definition", text(&self.definition))
            .set("reason", text(&self.reason))
            .set("state", text(self.state.word()))
            .set_or_remove("cursor", self.cursor.map(instant))
            .set("round", number(self.round))
            .set("sent", number(self.sent))
            .set("sent_in_round", number(self.sent_in_round))
            .set("pending_in_round", number(self.pending_in_round))
            .set("exhausted_in_round", number(self.exhausted_in_round))
            .set("started_at", instant(self.started_at))
            .set_or_remove("sent_at", self.sent_at.map(instant))
            .set_or_remove("finished_at", self.finished_at.map(instant))
            .set_or_remove(EXPIRES, expires.map(Value::Number))
    }
}

#[cfg(feature = "faults")]
impl Backfill {
    /// Follows [`Checkpoints::write_backfill`].
    pub(super) const fn is_written(&mut self) {
        self.version += 1;
    }
}

impl Checkpoints {
    /// Starts a backfill, unless one of the rollup is under way. Then that one is returned.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub async fn start_backfill(
        &self,
        backfill: &mut Backfill,
    ) -> Result<Option<Backfill>, CheckpointError> {
        // The name is written before the item. A crash in between leaves a name without an item,
        // which the next backfill takes over.
        for _ in 0..2 {
            let id = text(&backfill.id);
            let is_free = Cond::lacks(ACTIVE).or(Cond::is(ACTIVE, id.clone()));
            let is_free = unless_elsewhere(is_free);
            let update = Update::new(watermark_key(&backfill.rollup), is_free).set(ACTIVE, id);
            let found = match self.send(update, "start a backfill").await? {
                Written::Done(_) => {
                    self.write_backfill(backfill).await?;
                    return Ok(None);
                }
                Written::Refused { found, .. } => found,
            };
            let read = found.as_ref().map(|item| Reader { item }.text(ACTIVE)).transpose()?;
            let Some(active) = read.flatten() else { continue };
            match self.backfill(&backfill.rollup, &active).await? {
                Some(other) if other.state.is_active() => return Ok(Some(other)),
                _ => self.end_backfill(&backfill.rollup, &active).await?,
            }
        }
        let slice = format!("the backfill of {}", backfill.rollup);
        Err(CheckpointError::Contended { operation: "start a backfill", slice })
    }

    /// The backfill of `rollup` with this id.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or the item is malformed.
    pub async fn backfill(
        &self,
        rollup: &str,
        id: &str,
    ) -> Result<Option<Backfill>, CheckpointError> {
        let item = self.item(backfill_key(rollup, id)).await?;
        item.as_ref().map(Backfill::read).transpose()
    }

    /// The backfills of `rollup`, the newest first; at most 50.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or an item is malformed.
    pub(crate) async fn backfills(&self, rollup: &str) -> Result<Vec<Backfill>, CheckpointError> {
        let backfills = Query::new(rollup, Sorts::Prefix(PREFIX.to_owned()));
        let found = self.store.query(backfills.last(LISTED_MAX)).await?;
        found.iter().map(Backfill::read).collect()
    }

    /// Writes the changes, unless another worker has written since the item was read. Returns
    /// whether it was written. A write that is refused because it was already made, with its reply
    /// lost, counts as written.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub async fn write_backfill(&self, backfill: &mut Backfill) -> Result<bool, CheckpointError> {
        let written = self.send(backfill.update(), "write a backfill").await?;
        if let Written::Refused { found, .. } = written
            && !found.is_some_and(|item| backfill.is_stored_in(&item))
        {
            return Ok(false);
        }
        backfill.version += 1;
        if !backfill.state.is_active() {
            self.end_backfill(&backfill.rollup, &backfill.id).await?;
        }
        Ok(true)
    }

    /// Removes the name of the rollup's active backfill, if it was this one.
    pub(crate) async fn end_backfill(&self, rollup: &str, id: &str) -> Result<(), CheckpointError> {
        let is_this = Cond::is(ACTIVE, text(id));
        let update = Update::new(watermark_key(rollup), is_this).remove(&[ACTIVE]);
        self.send(update, "end a backfill").await.map(drop)
    }
}

fn backfill_key(rollup: &str, id: &str) -> Key {
    Key::new(rollup, &format!("{PREFIX}{id}"))
}

/// The instant at which the backfill with this id began.
#[must_use]
pub(crate) fn begun(id: &str) -> Option<DateTime<Utc>> {
    let began = chrono::NaiveDateTime::parse_from_str(id, ID).ok()?.and_utc();
    // chrono reads spaces and signs as well.
    (began.format(ID).to_string() == id).then_some(began)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_when_its_backfill_began() {
        let now: DateTime<Utc> = "2026-11-25T17:12:19.123Z".parse().unwrap();
        assert_eq!(begun("20261125T171219123Z"), Some(now));
        for odd in ["one of mine", " 20261125T171219123Z", "+20261125T171219123Z"] {
            assert_eq!(begun(odd), None, "{odd}");
        }
    }
}
