//! A comparison in parts: each part continues where the time of the one before was up.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Chosen, Verified, VerifyArgs};
use crate::cli::ui;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::work::worker::Worker;

/// The place where the next part begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cursor {
    /// The rollup of the next slice.
    rollup: String,
    /// The start of the next slice.
    start: DateTime<Utc>,
    /// The rollups so far with slices that differ or were not compared.
    doubtful: Vec<String>,
}

impl Cursor {
    /// Removes the slices that earlier parts have compared.
    pub(super) fn skip(&self, chosen: &mut Chosen<'_>) {
        let is_next = |(rollup, slice): &(&Rollup, Slice)| {
            rollup.name == self.rollup && slice.start() >= self.start
        };
        // Without a slice there, the rollups after it come next.
        let place = chosen.iter().position(is_next).or_else(|| {
            let last = chosen.iter().rposition(|(rollup, _)| rollup.name == self.rollup);
            last.map(|last| last + 1)
        });
        chosen.drain(..place.unwrap_or(0));
    }
}

impl VerifyArgs {
    /// Of a comparison whose time was up, keeps the place where the next part begins.
    pub(super) fn keep_next(
        &self,
        worker: &Worker,
        chosen: &[(&Rollup, Slice)],
        verified: &Verified,
    ) {
        if verified.left == 0 {
            return;
        }
        let Some((rollup, slice)) = chosen.get(chosen.len() - verified.left) else { return };
        let rollups = worker.config.rollups.iter();
        let doubtful = rollups.filter(|it| verified.has_doubts(it) || self.doubts(it));
        let doubtful = doubtful.map(|it| it.name.clone()).collect();
        let next = Cursor { rollup: rollup.name.clone(), start: slice.start(), doubtful };
        ui::keep_next(json!(next));
    }

    /// Whether an earlier part of the comparison has doubts about `rollup`.
    pub(super) fn doubts(&self, rollup: &Rollup) -> bool {
        self.after.as_ref().is_some_and(|after| after.doubtful.contains(&rollup.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_part_begins_at_the_first_slice_that_no_part_has_compared() {
        let rollup = |name: &str| {
            let text = format!(
                "[source]\nurl = \"postgres://app@localhost/shop\"\n[[rollup]]\nname = \"{name}\"\n\
                 from = \"events\"\ntime = \"at\"\nstart = \"2026-01-01\"\nslice = \"1 day\"\n\
                 measures = {{ events = \"count\" }}\n"
            );
            let path = std::path::Path::new("tallymark.toml");
            crate::config::Config::parse(path, &text, &|_| None).unwrap().rollups[0].clone()
        };
        let rollups = [rollup("one"), rollup("two")];
        let all: Chosen<'_> = rollups
            .iter()
            .flat_map(|it| {
                let end = it.start + chrono::TimeDelta::days(3);
                it.calendar.slices(it.start, end).map(move |slice| (it, slice))
            })
            .collect();
        let left = |rollup: &str, start: &str| {
            let mut chosen = all.clone();
            let start = start.parse().unwrap();
            Cursor { rollup: rollup.to_owned(), start, doubtful: Vec::new() }.skip(&mut chosen);
            chosen.len()
        };
        assert_eq!(left("one", "2026-01-01T00:00:00Z"), 6);
        assert_eq!(left("one", "2026-01-03T00:00:00Z"), 4);
        assert_eq!(left("one", "2026-01-04T00:00:00Z"), 3);
        assert_eq!(left("two", "2026-01-03T00:00:00Z"), 1);
        assert_eq!(left("two", "2026-01-04T00:00:00Z"), 0);
    }
}
