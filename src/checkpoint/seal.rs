//! The seal of a rollup in the store: slices that start before it stay as they are.
//!
//! It stands in two items, which are written together. A worker that is about to claim or to read
//! has the `control` item, and a planner has the `watermark` item.

use chrono::{DateTime, Utc};

use super::checkpoints::Checkpoints;
use super::control::{control_key, encoded_seal, seal_of};
use super::error::CheckpointError;
use super::item::{Reader, instant, whole_ms};
use super::reopen::LOOKS_MAX;
use super::store::{Cond, Update};
use super::tombstone::unless_elsewhere;
use super::watermark::{lowered, watermark_key};

/// The attribute of the item `watermark`.
pub(super) const SEAL: &str = "seal";

/// How far a seal that is being set was proven before. [`UNPROVEN`]: there was none.
pub(super) const SEAL_PROVEN: &str = "seal_proven";

/// Stands for no seal at all, as slices before 1970 would need one.
const UNPROVEN: DateTime<Utc> = DateTime::UNIX_EPOCH;

/// The seal that `keep` needs.
pub(super) const KEPT_SEAL: &str = "kept_seal";

/// Where the rows begin that `keep` leaves.
pub(super) const KEPT_FROM: &str = "kept_from";

/// How far `keep` has deleted.
pub(super) const KEPT_UNTIL: &str = "kept_until";

/// Where the slices end whose rows were taken over from another job's table.
pub(super) const ADOPTED: &str = "adopted_before";

/// The seal of a rollup in the store.
///
/// A seal is set in steps: no further slice is claimed, and then a second look proves that no slice
/// became due just before. A process that is killed between the two leaves a seal that holds, but
/// is unproven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seal {
    before: Option<DateTime<Utc>>,
    proven: Option<DateTime<Utc>>,
}

impl Seal {
    /// A seal that is proven, or none.
    #[must_use]
    pub(crate) fn whole(before: Option<DateTime<Utc>>) -> Self {
        Self { before: before.map(whole_ms), proven: None }
    }

    /// This seal while it is moved forwards to `before`. Nothing is left of an unproven one.
    #[must_use]
    pub(crate) fn moving_to(self, before: DateTime<Utc>) -> Self {
        let proven = self.proven();
        let before = proven.max(Some(whole_ms(before)));
        Self { before, proven: Some(proven.unwrap_or(UNPROVEN)) }
    }

    /// Slices that start before this instant stay as they are. `None`: there is no seal.
    #[must_use]
    pub const fn before(self) -> Option<DateTime<Utc>> {
        self.before
    }

    /// As [`Seal::before`], as far as the seal is proven: no slice there needs the source's rows.
    #[must_use]
    pub fn proven(self) -> Option<DateTime<Utc>> {
        match self.proven {
            None => self.before,
            Some(proven) => self.before.min(Some(proven)).filter(|it| *it > UNPROVEN),
        }
    }

    /// Whether the process that sets it has yet to prove it, or was killed before it did.
    #[must_use]
    pub fn is_unproven(self) -> bool {
        self.before != self.proven()
    }

    pub(super) fn read(read: &Reader<'_>) -> Result<Self, CheckpointError> {
        Ok(Self { before: read.instant(SEAL)?, proven: read.instant(SEAL_PROVEN)? })
    }

    /// The condition that the item `watermark` has this seal.
    fn is_there(self) -> Cond {
        let is = |name: &str, at: Option<DateTime<Utc>>| match at {
            Some(at) => Cond::is(name, instant(at)),
            None => Cond::lacks(name),
        };
        is(SEAL, self.before).and(is(SEAL_PROVEN, self.proven))
    }
}

impl Checkpoints {
    /// Notes that slices of `rollup` that start before this instant are taken over from another job's
    /// table, where they have no checkpoint. A later note stays.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn note_adopted(
        &self,
        rollup: &str,
        before: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        self.note_later(rollup, ADOPTED, before).await
    }

    /// Notes that rows are gone on which slices of `rollup` that start before this instant rest. A
    /// later note stays.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn note_kept_seal(
        &self,
        rollup: &str,
        before: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        self.note_later(rollup, KEPT_SEAL, before).await
    }

    /// Notes that `keep` deletes rows of `rollup` before this instant, from now on.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn note_kept_from(
        &self,
        rollup: &str,
        before: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        self.note_later(rollup, KEPT_FROM, before).await
    }

    /// Notes that `keep` has deleted all rows of `rollup` before this instant.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn note_kept_until(
        &self,
        rollup: &str,
        before: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        self.note_later(rollup, KEPT_UNTIL, before).await
    }

    async fn note_later(
        &self,
        rollup: &str,
        name: &str,
        at: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        let is_later = Cond::lacks(name).or(Cond::below(name, instant(at)));
        let update = Update::new(watermark_key(rollup), unless_elsewhere(is_later));
        self.send(update.set(name, instant(at)), "note what is kept").await.map(drop)
    }

    /// Sets a seal that needs no proof, or removes it with `None`. The watermark falls back to
    /// `back_to`, as it passes sealed slices in any state.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails. Then neither item is written.
    pub(crate) async fn set_seal(
        &self,
        rollup: &str,
        seal: Option<DateTime<Utc>>,
        back_to: DateTime<Utc>,
    ) -> Result<(), CheckpointError> {
        for _ in 0..LOOKS_MAX {
            let from = self.watermark(rollup).await?.store_seal();
            if self.move_seal(rollup, (from, Seal::whole(seal)), back_to, false).await? {
                return Ok(());
            }
        }
        Err(CheckpointError::Contended { operation: "seal", slice: rollup.to_owned() })
    }

    /// Gives the rollup `to` the seal of `from`: with its reasons, and as far as it is proven. They come
    /// first, so that no operator can remove the seal between the two. The watermark falls back to the
    /// seal.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails. The same call completes it.
    pub(crate) async fn copy_seal(&self, from: &str, to: &str) -> Result<(), CheckpointError> {
        let seen = self.watermark(from).await?;
        let reasons = [
            (KEPT_SEAL, seen.kept_seal()),
            (KEPT_FROM, seen.kept_from()),
            (KEPT_UNTIL, seen.kept_until()),
            (ADOPTED, seen.adopted()),
        ];
        for (name, at) in reasons {
            if let Some(at) = at {
                self.note_later(to, name, at).await?;
            }
        }
        let seal = seen.store_seal();
        let Some(before) = seal.before else { return Ok(()) };
        for _ in 0..LOOKS_MAX {
            let there = self.watermark(to).await?.store_seal();
            if self.move_seal(to, (there, seal), before, false).await? {
                return Ok(());
            }
        }
        Err(CheckpointError::Contended { operation: "seal", slice: to.to_owned() })
    }

    /// Moves the seal of `rollup` from one to another, if it is still the first. The watermark falls
    /// back to `back_to`. `is_kept`: `keep` needs the seal, and from then on no operator opens it.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails. Then nothing is written.
    pub(crate) async fn move_seal(
        &self,
        rollup: &str,
        (from, to): (Seal, Seal),
        back_to: DateTime<Utc>,
        is_kept: bool,
    ) -> Result<bool, CheckpointError> {
        for _ in 0..LOOKS_MAX {
            let seen = self.watermark(rollup).await?;
            if seen.store_seal() != from {
                return Ok(false);
            }
            let is_past = seen.until().is_some_and(|until| until > back_to);
            let mut moved = lowered(rollup, back_to, is_past)
                .set_or_remove(SEAL, to.before.map(instant))
                .set_or_remove(SEAL_PROVEN, to.proven.map(instant));
            if let Some(before) = to.before.filter(|_| is_kept) {
                moved = moved
                    .set(KEPT_SEAL, instant(seen.kept_seal().max(Some(before)).unwrap_or(before)));
            }
            moved.condition = moved.condition.and(from.is_there());
            let control = Update::new(control_key(), Cond::always())
                .set_or_remove(&seal_of(rollup), to.before.map(encoded_seal));
            if self.store.update_all(vec![control, moved], "seal", None).await? {
                return Ok(true);
            }
        }
        Err(CheckpointError::Contended { operation: "seal", slice: rollup.to_owned() })
    }

    /// Forgets the seal of a rollup whose items are gone.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn forget_seal(&self, rollup: &str) -> Result<(), CheckpointError> {
        let update = Update::new(control_key(), Cond::always());
        self.send(update.remove(&[&seal_of(rollup)]), "forget a seal").await.map(drop)
    }
}
