//! Reads of many rollups at once. They cost a few waits for the store instead of one for each
//! rollup.
//!
//! A rollup whose items cannot be understood is left out. Its own read tells why.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::checkpoints::{Checkpoints, starts_in};
use super::error::CheckpointError;
use super::item::Checkpoint;
use super::scrub::{ScrubProgress, scrub_key};
use super::store::{Item, Key, PK, Query, Value};
use super::watermark::{Watermark, watermark_key};

/// A rollup, and the range of the slices to read.
pub(crate) type Wanted<'r> = (&'r str, DateTime<Utc>, DateTime<Utc>);

impl Checkpoints {
    /// The watermarks of these rollups, as [`Checkpoints::watermark`] reads each.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub(crate) async fn watermarks(
        &self,
        rollups: &[&str],
    ) -> Result<HashMap<String, Watermark>, CheckpointError> {
        self.each(rollups, watermark_key, Watermark::read).await
    }

    /// The progress of the scrubs of these rollups.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub(crate) async fn scrubs(
        &self,
        rollups: &[&str],
    ) -> Result<HashMap<String, ScrubProgress>, CheckpointError> {
        self.each(rollups, scrub_key, ScrubProgress::read).await
    }

    /// The checkpoints of a range of each of these rollups.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub(crate) async fn ranges(
        &self,
        wanted: &[Wanted<'_>],
    ) -> Result<HashMap<String, Vec<Checkpoint>>, CheckpointError> {
        let (mut queries, mut found) = (Vec::new(), HashMap::new());
        for &(rollup, from, to) in wanted {
            match starts_in(from, to) {
                Some(starts) => queries.push((rollup, Query::new(rollup, starts))),
                None => drop(found.insert(rollup.to_owned(), Vec::new())),
            }
        }
        let (rollups, queries): (Vec<_>, Vec<_>) = queries.into_iter().unzip();
        let answers = self.store.query_each(queries).await?;
        for (rollup, items) in rollups.into_iter().zip(answers) {
            let read: Result<Vec<_>, _> = items.iter().map(Checkpoint::from_item).collect();
            if let Ok(read) = read {
                found.insert(rollup.to_owned(), read);
            }
        }
        Ok(found)
    }

    /// One item of each of these rollups. A missing one is the default.
    async fn each<T: Default>(
        &self,
        rollups: &[&str],
        key: fn(&str) -> Key,
        read: fn(&Item) -> Result<T, CheckpointError>,
    ) -> Result<HashMap<String, T>, CheckpointError> {
        let items = self.store.get_each(rollups.iter().map(|rollup| key(rollup)).collect()).await?;
        let mut found: HashMap<String, T> =
            rollups.iter().map(|rollup| ((*rollup).to_owned(), T::default())).collect();
        for item in &items {
            let Some(Value::Text(rollup)) = item.get(PK) else { continue };
            match read(item) {
                Ok(it) => drop(found.insert(rollup.clone(), it)),
                Err(_) => drop(found.remove(rollup)),
            }
        }
        Ok(found)
    }
}
