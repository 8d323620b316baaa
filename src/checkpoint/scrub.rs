//! The progress of the scrub: one item per rollup, and one for the budget that all share.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};

use super::checkpoints::{Checkpoints, starts_in};
use super::error::CheckpointError;
use super::item::{ALL, Checkpoint, Reader, instant, number, text, whole_ms};
use super::store::{Cond, Item, Key, Query, Update, Value, Written};

/// The second part of its key. It sorts after every slice, because those start with a digit.
const SCRUB: &str = "scrub";

/// The prefix of the attributes that describe one slice's drift.
const DRIFT: &str = "drift_";

/// The format of the slice's start after the prefix, as expressions allow only letters, digits and
/// `_`.
const DRIFT_START: &str = "%Y%m%dT%H%M%SZ";

/// Slices with drift that are stored for each rollup. An item holds 400 KB, and with more drift the
/// list matters less than its cause. The log and the tick's report name all.
pub(crate) const DRIFT_MAX: usize = 100;

/// Checkpoints read at a time when looking for the next slice to verify. Usually the first one is
/// suitable.
pub(crate) const PAGE: u16 = 16;

/// The time and slices that the scrubs of all rollups have spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// The day in UTC of the latest slice.
    pub(crate) day: NaiveDate,
    /// Slices verified on that day.
    pub(crate) verified_today: u32,
    /// The time before this instant is spent.
    pub(crate) paid_until: DateTime<Utc>,
}

impl Budget {
    /// Spends the same time but keeps the slice.
    #[must_use]
    pub(crate) const fn unused(self) -> Self {
        Self { verified_today: self.verified_today.saturating_sub(1), ..self }
    }
}

/// The progress of a rollup's scrub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Raised with each slice that is taken.
    version: u64,
    /// The present round, or 0 before the first.
    pub round: u64,
    /// Slices that start before this instant have been taken in this round.
    pub cursor: Option<DateTime<Utc>>,
    /// When the round began.
    pub round_started_at: Option<DateTime<Utc>>,
    /// When the round before it began.
    pub last_round_started_at: Option<DateTime<Utc>>,
    /// Slices verified so far, in all rounds.
    pub verified: u64,
    /// The number of those before this round.
    pub verified_before: u64,
    /// When the latest slice was verified.
    pub verified_at: Option<DateTime<Utc>>,
    /// The slices that were found to differ, by their start.
    pub drift: BTreeMap<DateTime<Utc>, Drift>,
}

/// A slice that was found to differ from the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drift {
    /// When it was found.
    pub found_at: DateTime<Utc>,
    /// The number of differing groups.
    pub groups: u64,
    /// The attempt that had computed it.
    pub attempt: u64,
}

impl Drift {
    /// Whether the slice was computed again since.
    #[must_use]
    pub(crate) fn is_over(&self, checkpoint: Option<&Checkpoint>) -> bool {
        checkpoint
            .is_some_and(|now| now.attempt > self.attempt && now.state == super::State::Succeeded)
    }

    pub(super) fn to_attribute(self) -> Value {
        Value::Map(Item::from([
            ("found_at".to_owned(), instant(self.found_at)),
            ("groups".to_owned(), number(self.groups)),
            ("attempt".to_owned(), number(self.attempt)),
        ]))
    }
}

impl ScrubProgress {
    /// Slices verified in this round.
    #[must_use]
    pub(crate) const fn verified_in_round(&self) -> u64 {
        self.verified.saturating_sub(self.verified_before)
    }

    /// The progress once the slice that ends at `cursor` is taken at `now`. `new_round`: it is the
    /// first of a round.
    #[must_use]
    pub fn after(&self, cursor: DateTime<Utc>, new_round: bool, now: DateTime<Utc>) -> Self {
        let mut next = Self { version: self.version + 1, cursor: Some(cursor), ..self.clone() };
        if new_round || self.round == 0 {
            next.round += 1;
            next.last_round_started_at = self.round_started_at;
            next.round_started_at = Some(whole_ms(now));
            next.verified_before = self.verified;
        }
        next
    }

    /// The write that takes a slice and moves the scrub to `next`.
    pub(super) fn taking(&self, rollup: &str, next: &Self) -> Update {
        let unchanged = match self.version {
            0 => Cond::lacks("version"),
            seen => Cond::is("version", number(seen)),
        };
        Update::new(scrub_key(rollup), unchanged)
            .set("version", number(next.version))
            .set("round", number(next.round))
            .set("verified_before", number(next.verified_before))
            .set_or_remove("cursor", next.cursor.map(instant))
            .set_or_remove("round_started_at", next.round_started_at.map(instant))
            .set_or_remove("last_round_started_at", next.last_round_started_at.map(instant))
    }

    pub(super) fn read(item: &Item) -> Result<Self, CheckpointError> {
        let read = Reader { item };
        let count = |name| Ok::<_, CheckpointError>(read.count(name)?.unwrap_or(0));
        let mut drift = BTreeMap::new();
        for (name, value) in item {
            let Some(start) = name.strip_prefix(DRIFT) else { continue };
            // Ignore foreign attributes, and attributes that could not be removed by their name.
            let Ok(start) = NaiveDateTime::parse_from_str(start, DRIFT_START) else { continue };
            if *name != drift_name(start.and_utc()) {
                continue;
            }
            let Value::Map(fields) = value else { continue };
            let read = Reader { item: fields };
            let found_at = read.instant("found_at")?.ok_or_else(|| read.missing("found_at"))?;
            let groups = read.count("groups")?.unwrap_or(0);
            let attempt = read.count("attempt")?.unwrap_or(0);
            drift.insert(start.and_utc(), Drift { found_at, groups, attempt });
        }
        Ok(Self {
            version: count("version")?,
            round: count("round")?,
            cursor: read.instant("cursor")?,
            round_started_at: read.instant("round_started_at")?,
            last_round_started_at: read.instant("last_round_started_at")?,
            verified: count("verified")?,
            verified_before: count("verified_before")?,
            verified_at: read.instant("verified_at")?,
            drift,
        })
    }
}

impl Checkpoints {
    /// The progress of the scrub of `rollup`.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or the item is malformed.
    pub async fn scrub(&self, rollup: &str) -> Result<ScrubProgress, CheckpointError> {
        let item = self.item(scrub_key(rollup)).await?;
        item.as_ref().map_or_else(|| Ok(ScrubProgress::default()), ScrubProgress::read)
    }

    /// Takes a slice and moves the scrub to `next`. Returns whether this worker took it. Otherwise
    /// another worker took one since `seen` was read.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub async fn take_scrub(
        &self,
        rollup: &str,
        seen: &ScrubProgress,
        next: &ScrubProgress,
    ) -> Result<bool, CheckpointError> {
        let update = seen.taking(rollup, next);
        Ok(matches!(self.send(update, "take a slice to scrub").await?, Written::Done(_)))
    }

    /// Records that a slice was verified at `now`, and whether it differs.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub async fn record_scrub(
        &self,
        rollup: &str,
        slice_start: DateTime<Utc>,
        drift: Option<Drift>,
        now: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        let update = Update::new(scrub_key(rollup), Cond::Present)
            .increment("verified")
            .set("verified_at", instant(now))
            .set_or_remove(&drift_name(slice_start), drift.map(Drift::to_attribute));
        self.send(update, "record a scrub").await.map(drop)
    }

    /// Removes the drift of slices that are right again.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn forget_drift(
        &self,
        rollup: &str,
        starts: &[DateTime<Utc>],
    ) -> Result<(), CheckpointError> {
        if starts.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = starts.iter().map(|start| drift_name(*start)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let update = Update::new(scrub_key(rollup), Cond::Present).remove(&names);
        self.send(update, "forget drift").await.map(drop)
    }

    /// The first checkpoints of slices that start in `[from, to)`, in their order, at most
    /// [`PAGE`].
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or an item is malformed.
    pub(crate) async fn page(
        &self,
        rollup: &str,
        from: DateTime<Utc>,
        to: DateTime<Utc>,
    ) -> Result<Vec<Checkpoint>, CheckpointError> {
        let Some(starts) = starts_in(from, to) else { return Ok(Vec::new()) };
        self.checkpoints(Query::new(rollup, starts).first(PAGE)).await
    }

    /// The budget spent by the scrubs of all rollups. `None`: nothing yet.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or the item is malformed.
    pub(crate) async fn scrub_budget(&self) -> Result<Option<Budget>, CheckpointError> {
        self.item(scrub_key(ALL)).await?.as_ref().map(read_budget).transpose()
    }

    /// Replaces the budget `seen` by `next`. Returns the present budget, and whether this worker
    /// wrote it. Otherwise another worker spent some since.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or the item is malformed.
    pub(crate) async fn spend_scrub_budget(
        &self,
        seen: Option<&Budget>,
        next: &Budget,
    ) -> Result<(Option<Budget>, bool), CheckpointError> {
        // Every spending moves this instant.
        let unchanged = match seen {
            None => Cond::lacks("paid_until"),
            Some(seen) => Cond::is("paid_until", instant(seen.paid_until))
                .and(Cond::is("verified_today", number(seen.verified_today.into()))),
        };
        let update = Update::new(scrub_key(ALL), unchanged)
            .set("day", text(&next.day.to_string()))
            .set("verified_today", number(next.verified_today.into()))
            .set("paid_until", instant(next.paid_until));
        match self.send(update, "spend of the scrub's budget").await? {
            Written::Done(item) => Ok((Some(read_budget(&item)?), true)),
            Written::Refused { found, .. } => {
                Ok((found.as_ref().map(read_budget).transpose()?, false))
            }
        }
    }
}

pub(super) fn read_budget(item: &Item) -> Result<Budget, CheckpointError> {
    let read = Reader { item };
    let day = read.text("day")?.and_then(|day| day.parse().ok());
    Ok(Budget {
        day: day.ok_or_else(|| read.missing("day"))?,
        verified_today: read.number("verified_today")?.unwrap_or(0),
        paid_until: read.instant("paid_until")?.ok_or_else(|| read.missing("paid_until"))?,
    })
}

/// The key of the budget that all rollups share.
pub(super) fn budget_key() -> Key {
    scrub_key(ALL)
}

pub(super) fn scrub_key(rollup: &str) -> Key {
    Key::new(rollup, SCRUB)
}

pub(super) fn drift_name(slice_start: DateTime<Utc>) -> String {
    format!("{DRIFT}{}", slice_start.format(DRIFT_START))
}
