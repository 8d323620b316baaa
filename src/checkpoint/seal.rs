//! The seal of a rollup in the store: slices that start before it stay as they are.
//!
//! It stands in two items, which are written together. A worker that is about to claim or to read
//! has the `control` item, and a planner has the `watermark` item.

use chrono::{DateTime, Utc};

use super::checkpoints::Checkpoints;
use super::control::{control_key, encoded_seal, seal_of};
use super::error::CheckpointError;
use super::item::instant;
use super::reopen::LOOKS_MAX;
use super::store::{Cond, Update};
use super::tombstone::unless_elsewhere;
use super::watermark::{lowered, watermark_key};

/// The attribute of the item `watermark`.
pub(super) const SEAL: &str = "seal";

/// The seal that `keep` needs.
pub(super) const KEPT_SEAL: &str = "kept_seal";

/// Where the rows begin that `keep` leaves.
pub(super) const KEPT_FROM: &str = "kept_from";

/// How far `keep` has deleted.
pub(super) const KEPT_UNTIL: &str = "kept_until";

/// Where the slices end whose rows were taken over from another job's table.
pub(super) const ADOPTED: &str = "adopted_before";

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

    /// Notes that `keep` deletes rows on which slices of `rollup` that start before this instant
    /// rest. A later note stays.
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

    /// Sets the seal of `rollup`, or removes it with `None`. The watermark falls back to `back_to`,
    /// as it passes sealed slices in any state.
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
            let seen = self.watermark(rollup).await?;
            let is_past = seen.until().is_some_and(|until| until > back_to);
            let updates = vec![
                Update::new(control_key(), Cond::always())
                    .set_or_remove(&seal_of(rollup), seal.map(encoded_seal)),
                lowered(rollup, back_to, is_past).set_or_remove(SEAL, seal.map(instant)),
            ];
            if self.store.update_all(updates, "seal", None).await? {
                return Ok(());
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
