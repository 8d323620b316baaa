//! What the store knows of many rollups, read together: by a few requests that wait at the same time.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::checkpoint::{Checkpoint, CheckpointError, Wanted, Watermark};
use crate::model::rollup::Rollup;
use crate::work::due::{View, read_from};
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
            let view = standings::view(worker, rollup, seen, now);
            let from = read_from(rollup, seen, &view.definition, now);
            if view.has_slices(from, now) {
                let only = only_slice(&view, from, now);
                wanted.push(Wanted { rollup: &rollup.name, from, to: now, only });
            }
        }
        let mut ranges = worker.checkpoints.ranges(&wanted).await?;
        let mut found = HashMap::new();
        for Wanted { rollup, from, .. } in wanted {
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

/// The start of the only slice in `[from, to)` that has ended, or is open. `None`: there are more, or
/// none.
fn only_slice(view: &View<'_>, from: DateTime<Utc>, to: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let calendar = &view.rollup.calendar;
    let first = calendar.containing(from);
    let is_alone = view.has_slices(from, to) && !view.has_slices(calendar.next(first).start(), to);
    (is_alone && first.start() >= from).then_some(first.start())
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

    /// The slice without which a plan is another one.
    #[test]
    fn the_only_slice_is_the_one_that_a_plan_looks_for() {
        let at = |hour: u32| format!("2026-02-10T{hour:02}:00:00Z").parse().expect("an instant");
        let text = "[source]\nurl = \"postgres://u@h/d\"\n[[rollup]]\nname = \"r\"\nfrom = \"public.t\"\n\
                    time = \"at\"\nstart = \"2026-02-10\"\nslice = \"1 hour\"\ngrace = \"10 minutes\"\n\
                    measures = { n = \"count\" }\n";
        let path = std::path::Path::new("tallymark.toml");
        let config = crate::config::Config::parse(path, text, &|_| None).expect("a configuration");
        let view = View {
            rollup: &config.rollups[0],
            now: at(9) + chrono::TimeDelta::minutes(15),
            failures_max: 5,
            source_start: None,
            finer_done: None,
            definition: String::new(),
            moved_from: None,
            seal: None,
            adopted: None,
        };
        for (from, minute, only) in [(8, 0, Some(at(8))), (7, 0, None), (9, 0, None), (7, 30, None)]
        {
            let from = at(from) + chrono::TimeDelta::minutes(minute);
            let planned: Vec<_> = view.plan(&[], from, view.now).slices;
            let all: Vec<_> = planned.iter().map(|planned| planned.slice.start()).collect();
            assert_eq!(only_slice(&view, from, view.now), only, "{from}: {all:?}");
            assert_eq!(
                all == only.into_iter().collect::<Vec<_>>(),
                only.is_some() || all.is_empty()
            );
        }
    }
}
