//! The watermark: every slice of a rollup that starts before it has succeeded.
//!
//! A worker that advances it has read slices, seen that they succeeded, and writes the result a
//! moment later. A slice reopened in that moment would be lost behind the watermark. So every
//! reopening raises the watermark's version, in the same transaction as it marks the slice or after
//! it. An advance is valid only for the version that was read before the slices. Of a reopening and
//! an advance, the later one sees the other.

use chrono::{DateTime, Utc};

use super::backfills::ACTIVE;
use super::bond::Bond;
use super::checkpoints::Checkpoints;
use super::error::CheckpointError;
use super::item::{Reader, WATERMARK, instant, label, number, text};
use super::reopen::LOOKS_MAX;
use super::seal::{ADOPTED, KEPT_FROM, KEPT_SEAL, KEPT_UNTIL, Seal};
use super::store::{Cond, Item, Key, Update, Written};
use super::tombstone::{self, unless_elsewhere};
use crate::model::rollup::Rollup;
use crate::model::rollup::generation::of_generation;
use crate::source::reading::fingerprint::Fingerprint;
use crate::source::reading::first_row::SourceStart;

/// A rollup's watermark as it was read, with the other data about the rollup as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watermark {
    until: Option<DateTime<Utc>>,
    version: u64,
    source_start: Option<SourceStart>,
    definition: Option<String>,
    backfill: Option<String>,
    calendar: Option<String>,
    generation: u64,
    shape: Option<Fingerprint>,
    shapes: u64,
    start: Option<DateTime<Utc>>,
    bond: Option<Bond>,
    sealed: Option<[DateTime<Utc>; 2]>,
    seal: Seal,
    kept_seal: Option<DateTime<Utc>>,
    kept_from: Option<DateTime<Utc>>,
    kept_until: Option<DateTime<Utc>>,
    adopted: Option<DateTime<Utc>>,
}

impl Watermark {
    /// Every slice that starts before this instant has succeeded. `None`: it is unknown.
    #[must_use]
    pub const fn until(&self) -> Option<DateTime<Utc>> {
        self.until
    }

    /// Where the source's rows begin. `None`: it has not been read yet.
    #[must_use]
    pub const fn source_start(&self) -> Option<SourceStart> {
        self.source_start
    }

    /// The condition that no slice was reopened since.
    fn unchanged(&self) -> Cond {
        let seen = Cond::is("version", number(self.version));
        match self.version {
            // Without reopenings, the version may be unwritten.
            0 => Cond::lacks("version").or(seen),
            _ => seen,
        }
    }

    /// The definition by which every slice before the watermark was computed. `None`: there were
    /// several, or it is unknown.
    #[must_use]
    pub fn definition(&self) -> Option<&str> {
        self.definition.as_deref()
    }

    /// The ID of the fanned-out backfill that is under way.
    #[must_use]
    pub fn backfill(&self) -> Option<&str> {
        self.backfill.as_deref()
    }

    /// The calendar of the rollup, in words. `None`: only older versions have written the item.
    #[must_use]
    pub(crate) fn calendar(&self) -> Option<&str> {
        self.calendar.as_deref()
    }

    /// How often the calendar has changed.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The source's shape by which slices are computed. `None`: none is stored.
    #[must_use]
    pub(crate) fn shape(&self) -> Option<Fingerprint> {
        self.shape.clone()
    }

    /// The number of its changes.
    #[must_use]
    pub(crate) const fn shapes(&self) -> u64 {
        self.shapes
    }

    /// The start of the rollup's history. Late changes before it are ignored.
    #[must_use]
    pub(crate) const fn start(&self) -> Option<DateTime<Utc>> {
        self.start
    }

    /// The range of slices that changed while they were sealed. `None`: there were none.
    #[must_use]
    pub(crate) const fn sealed(&self) -> Option<[DateTime<Utc>; 2]> {
        self.sealed
    }

    /// The seal in the store. `None`: there is none.
    #[must_use]
    pub const fn seal(&self) -> Option<DateTime<Utc>> {
        self.seal.before()
    }

    /// The seal in the store, and whether it is proven.
    #[must_use]
    pub const fn store_seal(&self) -> Seal {
        self.seal
    }

    /// The seal that `keep` needs: rows on which slices before it rest are deleted, of the rollup or of
    /// its finer one. No operator can remove it.
    #[must_use]
    pub(crate) const fn kept_seal(&self) -> Option<DateTime<Utc>> {
        self.kept_seal
    }

    /// `keep` deletes, or has deleted, the rollup's rows before this instant.
    #[must_use]
    pub(crate) const fn kept_from(&self) -> Option<DateTime<Utc>> {
        self.kept_from
    }

    /// `keep` has deleted all rows before this instant.
    #[must_use]
    pub(crate) const fn kept_until(&self) -> Option<DateTime<Utc>> {
        self.kept_until
    }

    /// Slices that start before this instant and have no checkpoint were taken over from another job's
    /// table.
    #[must_use]
    pub(crate) const fn adopted(&self) -> Option<DateTime<Utc>> {
        self.adopted
    }

    /// The seal of `rollup`: the later of the file's and the store's.
    #[must_use]
    pub(crate) fn seal_of(&self, rollup: &Rollup) -> Option<DateTime<Utc>> {
        rollup.seal_before.max(self.seal())
    }

    /// The generation of `rollup`'s calendar: the present one, or the next if the stored calendar
    /// differs.
    #[must_use]
    pub(crate) fn generation_for(&self, rollup: &Rollup) -> u64 {
        let is_same = self.calendar().is_none_or(|known| known == rollup.calendar_words());
        if is_same { self.generation } else { self.generation + 1 }
    }

    /// The definition of `rollup`, in the form of its generation's checkpoints and markers.
    #[must_use]
    pub(crate) fn definition_of(&self, rollup: &Rollup) -> String {
        of_generation(&rollup.definition(), self.generation_for(rollup), self.shapes)
    }

    /// Where history began before `start` was moved back to that of `rollup`. `None`: it was not
    /// moved back.
    #[must_use]
    pub(crate) fn moved_from(&self, rollup: &Rollup) -> Option<DateTime<Utc>> {
        self.start.filter(|before| rollup.start < *before)
    }

    /// Whether the stored calendar and start are those of `rollup`.
    #[must_use]
    pub(crate) fn is_adopted_by(&self, rollup: &Rollup) -> bool {
        self.calendar() == Some(&*rollup.calendar_words()) && self.start == Some(rollup.start)
    }

    /// The installation that the checkpoints belong to. `None`: they are unbound.
    #[must_use]
    pub const fn bond(&self) -> Option<&Bond> {
        self.bond.as_ref()
    }

    pub(super) fn read(item: &Item) -> Result<Self, CheckpointError> {
        tombstone::refuse(item)?;
        let read = Reader { item };
        let version = read.count("version")?.unwrap_or(0);
        let first_row = read.instant("first_row")?;
        let probed_at = read.instant("probed_at")?;
        let source_start = probed_at.map(|probed_at| SourceStart { first_row, probed_at });
        let (until, definition) = (read.instant(WATERMARK)?, read.text("definition")?);
        let backfill = read.text(ACTIVE)?;
        let (calendar, start) = (read.text("calendar")?, read.instant("start")?);
        let generation = read.count("generation")?.unwrap_or(0);
        let shape = read.text("shape")?.and_then(|text| Fingerprint::parse(&text));
        let shapes = read.count("shapes")?.unwrap_or(0);
        let bond = Bond::read(item)?;
        let sealed = read.instant("sealed_from")?.zip(read.instant("sealed_until")?);
        let sealed = sealed.map(|(from, until)| [from, until]);
        let seal = Seal::read(&read)?;
        let (kept_seal, kept_from) = (read.instant(KEPT_SEAL)?, read.instant(KEPT_FROM)?);
        let (kept_until, adopted) = (read.instant(KEPT_UNTIL)?, read.instant(ADOPTED)?);
        Ok(Self {
            until,
            version,
            source_start,
            definition,
            backfill,
            calendar,
            generation,
            shape,
            shapes,
            start,
            bond,
            sealed,
            seal,
            kept_seal,
            kept_from,
            kept_until,
            adopted,
        })
    }
}

impl Checkpoints {
    /// The rollup's watermark. Read it before the slices whose success will advance it.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or the item is malformed.
    pub async fn watermark(&self, rollup: &str) -> Result<Watermark, CheckpointError> {
        let item = self.item(watermark_key(rollup)).await?;
        item.as_ref().map_or_else(|| Ok(Watermark::default()), Watermark::read)
    }

    /// Stores the present calendar and start of `rollup`, as this `generation`. A new generation
    /// starts without a watermark. Writes only if the item is unchanged since it was `seen`.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn adopt(
        &self,
        rollup: &Rollup,
        seen: &Watermark,
        generation: u64,
        (shape, shapes): (Option<&Fingerprint>, u64),
    ) -> Result<(), CheckpointError> {
        let calendar = match seen.calendar() {
            None => Cond::lacks("calendar"),
            Some(calendar) => Cond::is("calendar", text(calendar)),
        };
        let mut update = Update::new(watermark_key(&rollup.name), calendar.and(seen.unchanged()))
            .set("calendar", text(&rollup.calendar_words()))
            .set("generation", number(generation))
            .set("start", instant(rollup.start));
        if let Some(shape) = shape {
            update = update.set("shape", text(&shape.to_string())).set("shapes", number(shapes));
        }
        if generation != seen.generation {
            // Invalidates an advance that was computed before.
            update =
                update.set("version", number(seen.version + 1)).remove(&[WATERMARK, "definition"]);
        }
        self.send(update, "adopt the calendar").await.map(drop)
    }

    /// Moves the watermark forwards to `to`. Every slice before it was seen to have succeeded after
    /// `seen` was read, all by `definition` if that is given. Returns whether the watermark is
    /// there or further now. Otherwise a slice was reopened since, and the next worker looks again.
    ///
    /// The definition stays true. A slice to be recomputed by another one is reopened first, so it
    /// is no longer before the watermark.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn advance_watermark(
        &self,
        rollup: &str,
        seen: &Watermark,
        to: DateTime<Utc>,
        definition: Option<&str>,
    ) -> Result<bool, CheckpointError> {
        let is_there = seen.until.is_some_and(|until| until >= to);
        if is_there && (seen.until != Some(to) || seen.definition() == definition) {
            return Ok(true);
        }
        let forwards = Cond::lacks(WATERMARK).or(Cond::at_most(WATERMARK, instant(to)));
        let update = Update::new(watermark_key(rollup), forwards.and(seen.unchanged()))
            .set(WATERMARK, instant(to))
            .set_or_remove("definition", definition.map(text));
        match self.send(update, "advance watermark").await? {
            Written::Done(_) => Ok(true),
            Written::Refused { found: Some(item), .. } => {
                Ok(Watermark::read(&item)?.until.is_some_and(|until| until >= to))
            }
            Written::Refused { found: None, .. } => Ok(false),
        }
    }

    /// Stores where the source's rows begin, which was read after `seen`. `lower_to` is the first
    /// slice that counted as empty but has rows. The watermark falls back to it in the same write,
    /// as after a crash between two writes those slices would stay behind it.
    ///
    /// Stores nothing if a slice was reopened since, or another worker read later. A late row may
    /// have been reported that the answer did not see.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub async fn remember_begin(
        &self,
        rollup: &str,
        seen: &Watermark,
        start: SourceStart,
        lower_to: Option<DateTime<Utc>>,
    ) -> Result<(), CheckpointError> {
        let probed_at = instant(start.probed_at);
        let newer = Cond::at_most("probed_at", probed_at.clone());
        let newer = Cond::lacks("probed_at").or(newer);
        let mut update = Update::new(watermark_key(rollup), newer.and(seen.unchanged()))
            .set("probed_at", probed_at)
            .set_or_remove("first_row", start.first_row.map(instant));
        if let Some(to) = lower_to.filter(|to| seen.until.is_some_and(|until| until > *to)) {
            update = update.set(WATERMARK, instant(to)).set("version", number(seen.version + 1));
        }
        self.send(update, "remember the first row").await.map(drop)
    }

    /// Moves the watermark back to `to` if it is past it. Always invalidates the advances of
    /// workers that read it before. Returns the known first row of the source. A worker that
    /// queries the first row after this call may store its answer, and earlier answers are dropped.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub(crate) async fn lower_watermark(
        &self,
        rollup: &str,
        to: DateTime<Utc>,
    ) -> Result<Option<SourceStart>, CheckpointError> {
        for _ in 0..LOOKS_MAX {
            for is_past in [true, false] {
                let update = lowered(rollup, to, is_past);
                if let Written::Done(item) = self.send(update, "lower watermark").await? {
                    return Ok(Watermark::read(&item)?.source_start);
                }
            }
        }
        Err(CheckpointError::Contended { operation: "lower watermark", slice: label(rollup, to) })
    }
}

impl Checkpoints {
    /// Records that a slice changed while everything before `seal` was sealed. When the seal moves
    /// back, so does the watermark.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub(crate) async fn note_sealed(
        &self,
        rollup: &str,
        slice_start: DateTime<Utc>,
        seal: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        for update in sealed(rollup, slice_start, seal) {
            self.send(update, "note a sealed slice").await?;
        }
        Ok(())
    }

    /// Moves the watermark back to slices that changed while they were sealed, as the seal has
    /// moved back to `seal`.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub(crate) async fn unseal(
        &self,
        rollup: &str,
        sealed: [DateTime<Utc>; 2],
        seal: Option<DateTime<Utc>>,
    ) -> Result<(), CheckpointError> {
        let [from, until] = sealed;
        self.lower_watermark(rollup, seal.map_or(from, |seal| seal.max(from))).await?;
        let same = Cond::is("sealed_from", instant(from));
        let same = same.and(Cond::is("sealed_until", instant(until)));
        let update = Update::new(watermark_key(rollup), same);
        let update = match seal.filter(|seal| *seal > from) {
            Some(seal) => update.set("sealed_until", instant(seal)),
            None => update.remove(&["sealed_from", "sealed_until"]),
        };
        self.send(update, "note what is sealed").await.map(drop)
    }
}

/// Moves the watermark back to `to` if it is past it, and raises its version in any case.
pub(super) fn lowered(rollup: &str, to: DateTime<Utc>, is_past: bool) -> Update {
    let condition = match is_past {
        true => Cond::above(WATERMARK, instant(to)),
        false => Cond::lacks(WATERMARK).or(Cond::at_most(WATERMARK, instant(to))),
    };
    let update = Update::new(watermark_key(rollup), unless_elsewhere(condition));
    let update = update.increment("version");
    if is_past { update.set(WATERMARK, instant(to)) } else { update }
}

/// Notes that a slice changed while everything before `seal` was sealed. Each of the two is refused
/// where the note reaches as far already.
pub(super) fn sealed(rollup: &str, slice_start: DateTime<Utc>, seal: DateTime<Utc>) -> [Update; 2] {
    let (until, from) = (instant(seal), instant(slice_start));
    [
        ("sealed_until", Cond::below("sealed_until", until.clone()), until),
        ("sealed_from", Cond::above("sealed_from", from.clone()), from),
    ]
    .map(|(name, is_further, to)| {
        let condition = unless_elsewhere(Cond::lacks(name).or(is_further));
        Update::new(watermark_key(rollup), condition).set(name, to)
    })
}

pub(super) fn watermark_key(rollup: &str) -> Key {
    Key::new(rollup, WATERMARK)
}
