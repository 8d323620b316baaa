//! How far a finer rollup is, for the coarse slices that consist of its slices.

use chrono::{DateTime, Utc};

use super::{Plan, Planned, Standing};
use crate::model::rollup::Rollup;
use crate::model::slice::Calendar;

/// The progress of a finer rollup, for the coarse slices that consist of its slices.
#[derive(Clone, Debug)]
pub struct FinerDone {
    calendar: Calendar,
    /// All finer slices that ended before this are done, except those in `undone`, oldest first.
    until: DateTime<Utc>,
    undone: Vec<Planned>,
    /// Rows before this instant are deleted, by `keep`.
    kept_from: Option<DateTime<Utc>>,
}

impl FinerDone {
    /// Derives it from the finer rollup's own plan, and the instant before which `keep` deletes.
    #[must_use]
    pub(crate) fn new(finer: &Rollup, plan: &Plan, kept_from: Option<DateTime<Utc>>) -> Self {
        let until = plan.slices.last().map_or(plan.watermark, |last| last.slice.end());
        // Rows of another definition must not be merged.
        let undone = plan.slices.iter().filter(|planned| {
            !planned.standing.is_done() || planned.standing == Standing::Redefined
        });
        let undone = undone.cloned().collect();
        Self { calendar: finer.calendar, until, undone, kept_from }
    }

    /// The first finer slice in the window `[start, end)` of a coarse one that is unfinished, or
    /// whose rows are deleted.
    #[must_use]
    pub(crate) fn waits_for(
        &self,
        (start, end): (DateTime<Utc>, DateTime<Utc>),
    ) -> Option<Planned> {
        if self.kept_from.is_some_and(|kept_from| start < kept_from) {
            // A coarse slice that was never computed must not be computed from what is left.
            let slice = self.calendar.containing(start);
            return Some(Planned { slice, standing: Standing::Sealed });
        }
        let first = self.undone.partition_point(|finer| finer.slice.start() < start);
        let undone = self.undone.get(first).filter(|finer| finer.slice.start() < end);
        undone.cloned().or_else(|| {
            (self.until < end).then(|| {
                let slice = self.calendar.containing(self.until.max(start));
                Planned { slice, standing: Standing::NotEnded }
            })
        })
    }

    /// The end of those finer slices from the start of the window `[start, end)` on that are done.
    pub(super) fn done_until(&self, (start, end): (DateTime<Utc>, DateTime<Utc>)) -> DateTime<Utc> {
        self.waits_for((start, end)).map_or(end, |undone| undone.slice.start().max(start))
    }
}
