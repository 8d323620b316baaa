//! What the store knows of many rollups, read together: by a few requests that wait at the same time.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::checkpoint::{Checkpoint, CheckpointError, Watermark};
use crate::model::rollup::Rollup;
use crate::work::due::read_from;
use crate::work::worker::Worker;
use crate::work::{ready, standings};

/// Rollups that are surveyed together. Their items are the memory that a survey takes.
pub(crate) const BLOCK: usize = 500;

/// The watermarks and the checkpoints after them of some rollups. Each is taken once.
#[derive(Debug)]
pub(crate) struct Survey {
    found: HashMap<String, Surveyed>,
}

/// What the store knows of a rollup.
#[derive(Debug)]
pub(crate) struct Surveyed {
    pub(crate) seen: Watermark,
    /// Read after the watermark. `None`: still to be read.
    pub(crate) after: Option<After>,
}

impl Surveyed {
    /// A watermark that was read again. Checkpoints that were read before it are out of date: a slice
    /// may have been reopened in between.
    pub(crate) fn unread(seen: Watermark) -> Self {
        Self { seen, after: None }
    }
}

/// The checkpoints of all slices of a rollup that start at or after an instant.
#[derive(Debug)]
pub(crate) struct After {
    from: DateTime<Utc>,
    checkpoints: Vec<Checkpoint>,
}

impl After {
    /// The checkpoints, if they reach back to `from`.
    pub(crate) fn since(self, from: DateTime<Utc>) -> Option<Vec<Checkpoint>> {
        (self.from <= from).then_some(self.checkpoints)
    }
}

impl Survey {
    /// Reads what decides about the slices of `rollups` at `now`.
    ///
    /// # Errors
    /// The checkpoints are unavailable.
    pub(crate) async fn of(
        worker: &Worker,
        rollups: &[&Rollup],
        now: DateTime<Utc>,
    ) -> Result<Self, CheckpointError> {
        let names: Vec<&str> = rollups.iter().map(|rollup| &*rollup.name).collect();
        let mut watermarks = worker.checkpoints.watermarks(&names).await?;
        let mut wanted = Vec::new();
        for rollup in rollups {
            let Some(seen) = watermarks.get(&rollup.name) else { continue };
            let from = read_from(rollup, seen, now);
            if standings::view(worker, rollup, seen, now).has_slices(from, now) {
                wanted.push((&*rollup.name, from, now));
            }
        }
        let mut ranges = worker.checkpoints.ranges(&wanted).await?;
        let mut found = HashMap::new();
        for (rollup, from, _) in wanted {
            let Some(seen) = watermarks.remove(rollup) else { continue };
            let after = ranges.remove(rollup).map(|checkpoints| After { from, checkpoints });
            found.insert(rollup.to_owned(), Surveyed { seen, after });
        }
        let idle = watermarks.into_iter();
        found.extend(idle.map(|(rollup, seen)| (rollup, Surveyed { seen, after: None })));
        Ok(Self { found })
    }

    /// What is known of `rollup`, which is read now if the survey left it out.
    ///
    /// # Errors
    /// The rollup's item cannot be read.
    pub(crate) async fn take(
        &mut self,
        worker: &Worker,
        rollup: &Rollup,
    ) -> Result<Surveyed, CheckpointError> {
        match self.found.remove(&rollup.name) {
            Some(surveyed) => {
                worker.generations.note(rollup, &surveyed.seen);
                Ok(surveyed)
            }
            None => Ok(Surveyed::unread(ready::watermark(worker, rollup).await?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_serve_from_where_they_begin_on() {
        let at = |day: &str| format!("2026-02-{day}T00:00:00Z").parse().expect("an instant");
        let after = || After { from: at("10"), checkpoints: Vec::new() };
        assert_eq!(after().since(at("10")), Some(Vec::new()));
        assert_eq!(after().since(at("11")), Some(Vec::new()));
        // Slices before them may have been reopened.
        assert_eq!(after().since(at("09")), None);
    }
}
