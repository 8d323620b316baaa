//! Rows outside of every slice of the present calendar, as `init`, `check` and `verify` report
//! them.

use serde::Serialize;

use super::ui;
use crate::model::rollup::Rollup;
use crate::target::Outside;
use crate::work::ready;
use crate::work::worker::{WorkError, Worker};

/// The rows of one rollup that lie outside of every slice.
#[derive(Clone, Debug, Serialize)]
pub(super) struct RowsOutside {
    rollup: String,
    #[serde(flatten)]
    found: Outside,
}

/// Looks for such rows. `None`: there are none.
pub(super) async fn find(
    worker: &Worker,
    rollup: &Rollup,
) -> Result<Option<RowsOutside>, WorkError> {
    let seen = ready::watermark(worker, rollup).await?;
    find_beside(worker, rollup, seen.generation_for(rollup)).await
}

/// As [`find`], with the generation of the rollup's calendar.
pub(super) async fn find_beside(
    worker: &Worker,
    rollup: &Rollup,
    generation: u64,
) -> Result<Option<RowsOutside>, WorkError> {
    let found = worker.target.outside(rollup, generation).await?;
    let rollup = rollup.name.clone();
    Ok((found.rows > 0).then_some(RowsOutside { rollup, found }))
}

impl RowsOutside {
    pub(super) fn rollup(&self) -> &str {
        &self.rollup
    }

    /// Describes the rows and the remedy.
    pub(super) fn text(&self) -> String {
        let rows = usize::try_from(self.found.rows).unwrap_or(usize::MAX);
        let bounds = [self.found.first, self.found.last].map(|at| at.map(ui::instant));
        let [first, last] = bounds.map(Option::unwrap_or_default);
        format!(
            "{} in no slice of the present definition, from {first} to {last}: before `start`, or of \
             another calendar. Computing the slices that are due replaces those in their time; \
             `tallymark init --delete-outside` deletes what is left, and seal_before keeps it",
            ui::counted(rows, "row")
        )
    }
}
