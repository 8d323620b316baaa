//! Reads of many rollups at once. They cost a few waits for the store instead of one for each
//! rollup.
//!
//! A rollup whose items cannot be understood is left out. Its own read tells why.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::checkpoints::{Checkpoints, starts_in};
use super::error::CheckpointError;
use super::item::{Checkpoint, key};
use super::scrub::{ScrubProgress, scrub_key};
use super::store::{Item, Key, PK, Query, READS_ABREAST, Value};
use super::watermark::{Watermark, watermark_key};

/// A rollup, and the slices to read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'r> {
    pub(crate) rollup: &'r str,
    /// The slices that start in `[from, to)`.
    pub(crate) from: DateTime<Utc>,
    pub(crate) to: DateTime<Utc>,
    /// The start of the only slice that matters among them. `None`: there are several.
    pub(crate) only: Option<DateTime<Utc>>,
}

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

    /// The checkpoints of these slices of each rollup.
    ///
    /// # Errors
    /// [`CheckpointError`] if a call fails.
    pub(crate) async fn ranges(
        &self,
        wanted: &[Wanted<'_>],
    ) -> Result<HashMap<String, Vec<Checkpoint>>, CheckpointError> {
        // A store elsewhere answers each query by itself. Single slices of many rollups are fewer
        // requests by their keys, and cost the same.
        let is_by_key = !self.store.is_in_target() && wanted.len() > READS_ABREAST;
        let (mut queries, mut keys) = (Vec::new(), Vec::new());
        let mut items: HashMap<&str, Vec<Item>> = HashMap::new();
        for &Wanted { rollup, from, to, only } in wanted {
            items.insert(rollup, Vec::new());
            match (only.filter(|_| is_by_key), starts_in(from, to)) {
                (Some(start), _) => keys.push(key(rollup, start)),
                (None, Some(starts)) => queries.push((rollup, Query::new(rollup, starts))),
                (None, None) => {}
            }
        }
        let (rollups, queries): (Vec<_>, Vec<_>) = queries.into_iter().unzip();
        let answers = self.store.query_each(queries).await?;
        items.extend(rollups.into_iter().zip(answers));
        for item in self.store.get_each(keys).await? {
            let Some(Value::Text(rollup)) = item.get(PK) else { continue };
            if let Some(of_rollup) = items.get_mut(rollup.as_str()) {
                of_rollup.push(item);
            }
        }
        let read = |(rollup, items): (&str, Vec<Item>)| {
            let read: Result<Vec<_>, _> = items.iter().map(Checkpoint::from_item).collect();
            Some((rollup.to_owned(), read.ok()?))
        };
        Ok(items.into_iter().filter_map(read).collect())
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
