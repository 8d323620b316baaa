//! The watermark: every slice of a rollup that starts before it has succeeded.
//!
//! Whoever advances it has read slices, seen that they succeeded, and writes the result a moment
//! later; a slice reopened in that moment would be lost behind the watermark. So every reopening
//! raises the watermark's version, in the same transaction as it marks the slice or after it, and an advance
//! counts only against the version that was read before the slices. Whichever comes second sees the other.

use chrono::{DateTime, Utc};

use super::backfills::ACTIVE;
use super::bond::Bond;
use super::checkpoints::Checkpoints;
use super::error::CheckpointError;
use super::item::{Reader, WATERMARK, instant, label, number, text};
use super::reopen::LOOKS_MAX;
use super::store::{Cond, Item, Key, Update, Written};
use crate::rollup::Rollup;
use crate::rollup::generation::of_generation;
use crate::source::begin::SourceBegin;
use crate::source::fingerprint::Fingerprint;

/// A rollup's watermark as it was read, and what else is known of the rollup as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watermark {
    until: Option<DateTime<Utc>>,
    version: u64,
    begin: Option<SourceBegin>,
    definition: Option<String>,
    backfill: Option<String>,
    calendar: Option<String>,
    generation: u64,
    shape: Option<Fingerprint>,
    shapes: u64,
    start: Option<DateTime<Utc>>,
    bond: Option<Bond>,
    sealed: Option<[DateTime<Utc>; 2]>,
}

impl Watermark {
    /// Every slice that starts before this instant has succeeded. `None`: nothing is known.
    #[must_use]
    pub const fn until(&self) -> Option<DateTime<Utc>> {
        self.until
    }

    /// Where the source's rows begin. `None`: nobody has asked yet.
    #[must_use]
    pub const fn begin(&self) -> Option<SourceBegin> {
        self.begin
    }

    /// The condition that no slice was reopened since.
    fn unchanged(&self) -> Cond {
        let seen = Cond::is("version", number(self.version));
        match self.version {
            // No reopening yet: the version may not have been written either.
            0 => Cond::lacks("version").or(seen),
            _ => seen,
        }
    }

    /// The definition by which every slice before the watermark was computed. `None`: not all by
    /// the same, or nothing is known.
    #[must_use]
    pub fn definition(&self) -> Option<&str> {
        self.definition.as_deref()
    }

    /// The id of the fanned-out backfill that is under way.
    #[must_use]
    pub fn backfill(&self) -> Option<&str> {
        self.backfill.as_deref()
    }

    /// The calendar by which the rollup is kept, in words. `None`: no version before has recorded it.
    #[must_use]
    pub fn calendar(&self) -> Option<&str> {
        self.calendar.as_deref()
    }

    /// How often the calendar has changed.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// The source's shape by which slices are computed. `None`: none was remembered.
    #[must_use]
    pub fn shape(&self) -> Option<Fingerprint> {
        self.shape.clone()
    }

    /// How often that has changed.
    #[must_use]
    pub const fn shapes(&self) -> u64 {
        self.shapes
    }

    /// Where the rollup's history begins: late changes before it are not looked for.
    #[must_use]
    pub const fn start(&self) -> Option<DateTime<Utc>> {
        self.start
    }

    /// From where to where slices changed while they were sealed; `None`: none did.
    #[must_use]
    pub const fn sealed(&self) -> Option<[DateTime<Utc>; 2]> {
        self.sealed
    }

    /// The generation of `rollup`'s calendar: the present one, or the next if it is kept by another.
    #[must_use]
    pub fn generation_for(&self, rollup: &Rollup) -> u64 {
        let is_same = self.calendar().is_none_or(|known| known == rollup.calendar_words());
        if is_same { self.generation } else { self.generation + 1 }
    }

    /// The definition of `rollup`, as checkpoints and markers of its generation tell it.
    #[must_use]
    pub fn definition_of(&self, rollup: &Rollup) -> String {
        of_generation(&rollup.definition(), self.generation_for(rollup), self.shapes)
    }

    /// Where history began before `start` was moved back to that of `rollup`; `None`: it was not.
    #[must_use]
    pub fn moved_from(&self, rollup: &Rollup) -> Option<DateTime<Utc>> {
        self.start.filter(|before| rollup.start < *before)
    }

    /// Whether the rollup is kept by the calendar and from the start of `rollup`.
    #[must_use]
    pub fn is_adopted_by(&self, rollup: &Rollup) -> bool {
        self.calendar() == Some(&*rollup.calendar_words()) && self.start == Some(rollup.start)
    }

    /// Which installation the checkpoints belong to. `None`: no process has bound them yet.
    #[must_use]
    pub const fn bond(&self) -> Option<&Bond> {
        self.bond.as_ref()
    }

    pub(super) fn read(item: &Item) -> Result<Self, CheckpointError> {
        let read = Reader { item };
        let version = read.count("version")?.unwrap_or(0);
        let first_row = read.instant("first_row")?;
        let probed_at = read.instant("probed_at")?;
        let begin = probed_at.map(|probed_at| SourceBegin { first_row, probed_at });
        let (until, definition) = (read.instant(WATERMARK)?, read.text("definition")?);
        let backfill = read.text(ACTIVE)?;
        let (calendar, start) = (read.text("calendar")?, read.instant("start")?);
        let generation = read.count("generation")?.unwrap_or(0);
        let shape = read.text("shape")?.and_then(|text| Fingerprint::parse(&text));
        let shapes = read.count("shapes")?.unwrap_or(0);
        let bond = Bond::read(item)?;
        let sealed = read.instant("sealed_from")?.zip(read.instant("sealed_until")?);
        let sealed = sealed.map(|(from, until)| [from, until]);
        Ok(Self {
            until,
            version,
            begin,
            definition,
            backfill,
            calendar,
            generation,
            shape,
            shapes,
            start,
            bond,
            sealed,
        })
    }
}

impl Checkpoints {
    /// The rollup's watermark. Read it before the slices whose success shall advance it.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails or the item is malformed.
    pub async fn watermark(&self, rollup: &str) -> Result<Watermark, CheckpointError> {
        let item = self.item(watermark_key(rollup)).await?;
        item.as_ref().map_or_else(|| Ok(Watermark::default()), Watermark::read)
    }

    /// Records that `rollup` is kept by its present calendar and start, as this `generation`. Nothing
    /// is known of a new generation: its watermark is gone. Nothing is written if the item has
    /// changed since it was `seen`.
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
            // An advance that was computed before loses.
            update =
                update.set("version", number(seen.version + 1)).remove(&[WATERMARK, "definition"]);
        }
        self.send(update, "adopt the calendar").await.map(drop)
    }

    /// Moves the watermark forwards to `to`, as every slice before it was seen to have succeeded
    /// after `seen` was read, by `definition` if it was one for all of them. Returns whether the
    /// watermark is there or further now; if not, a slice was reopened since, and whoever comes
    /// next looks again.
    ///
    /// The definition stays true: whatever is recomputed by another one is reopened first, and so
    /// is not before the watermark any more.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub async fn advance_watermark(
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

    /// Remembers where the source's rows begin, asked after `seen` was read. `lower_to` is where
    /// slices begin that were taken for empty and are not: the watermark falls back to it in the same
    /// write, as whoever dies between two would leave them behind it.
    ///
    /// Nothing is remembered if a slice was reopened since, or somebody asked later: a late row may
    /// have been reported that the answer did not see.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub async fn remember_begin(
        &self,
        rollup: &str,
        seen: &Watermark,
        begin: SourceBegin,
        lower_to: Option<DateTime<Utc>>,
    ) -> Result<(), CheckpointError> {
        let probed_at = instant(begin.probed_at);
        let newer = Cond::at_most("probed_at", probed_at.clone());
        let newer = Cond::lacks("probed_at").or(newer);
        let mut update = Update::new(watermark_key(rollup), newer.and(seen.unchanged()))
            .set("probed_at", probed_at)
            .set_or_remove("first_row", begin.first_row.map(instant));
        if let Some(to) = lower_to.filter(|to| seen.until.is_some_and(|until| until > *to)) {
            update = update.set(WATERMARK, instant(to)).set("version", number(seen.version + 1));
        }
        self.send(update, "remember the first row").await.map(drop)
    }

    /// Moves the watermark back to `to` where it is past it, and in any case spoils the advances
    /// of those who read it before. Returns what is known of the source's first row: whoever asks from now
    /// on asks after this, and what was asked before is not remembered any more.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub async fn lower_watermark(
        &self,
        rollup: &str,
        to: DateTime<Utc>,
    ) -> Result<Option<SourceBegin>, CheckpointError> {
        for _ in 0..LOOKS_MAX {
            for is_past in [true, false] {
                let update = lowered(rollup, to, is_past);
                if let Written::Done(item) = self.send(update, "lower watermark").await? {
                    return Ok(Watermark::read(&item)?.begin);
                }
            }
        }
        Err(CheckpointError::Contended { operation: "lower watermark", slice: label(rollup, to) })
    }
}

impl Checkpoints {
    /// Notes that a slice changed while everything before `seal` was sealed: when the seal goes back, so
    /// does the watermark.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub async fn note_sealed(
        &self,
        rollup: &str,
        slice_start: DateTime<Utc>,
        seal: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        let (until, from) = (instant(seal), instant(slice_start));
        for (name, is_further, to) in [
            ("sealed_until", Cond::below("sealed_until", until.clone()), until),
            ("sealed_from", Cond::above("sealed_from", from.clone()), from),
        ] {
            let condition = Cond::lacks(name).or(is_further);
            let update = Update::new(watermark_key(rollup), condition).set(name, to);
            self.send(update, "note a sealed slice").await?;
        }
        Ok(())
    }

    /// Lets the watermark fall back to slices that changed while they were sealed, as the seal has gone
    /// back to `seal`.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub async fn unseal(
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

/// The watermark falls back to `to` if it is past it, and is left if it is not; in either case its version is raised.
pub(super) fn lowered(rollup: &str, to: DateTime<Utc>, is_past: bool) -> Update {
    let condition = match is_past {
        true => Cond::above(WATERMARK, instant(to)),
        false => Cond::lacks(WATERMARK).or(Cond::at_most(WATERMARK, instant(to))),
    };
    let update = Update::new(watermark_key(rollup), condition).increment("version");
    if is_past { update.set(WATERMARK, instant(to)) } else { update }
}

pub(super) fn watermark_key(rollup: &str) -> Key {
    Key::new(rollup, WATERMARK)
}
