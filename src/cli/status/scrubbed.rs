//! The state of a rollup's scrub.

use chrono::{DateTime, Utc};
use serde_json::json;

use crate::check::scrub::{self, scrubbed_range};
use crate::checkpoint::{Drift, ScrubProgress};
use crate::cli::run::{name, named};
use crate::cli::ui::{self, Paint};
use crate::model::rollup::Rollup;
use crate::work::worker::{WorkError, Worker};

/// The state of a rollup's scrub.
pub(in crate::cli) struct Scrubbed {
    pub(in crate::cli) scrub: ScrubProgress,
    /// Slices that it covers.
    pub(in crate::cli) slices: usize,
    /// The slices whose drift is still present, as far as is known.
    pub(in crate::cli) drift: Vec<(DateTime<Utc>, Drift)>,
}

/// The state of the scrub. `None`: it has not run yet.
pub(super) async fn scrubbed(
    worker: &Worker,
    rollup: &Rollup,
    now: DateTime<Utc>,
) -> Result<Option<Scrubbed>, WorkError> {
    let scrub = worker.checkpoints.scrub(&rollup.name).await?;
    if scrub.round == 0 {
        return Ok(None);
    }
    let seen = worker.checkpoints.watermark(&rollup.name).await?;
    let first_row = seen.source_start().and_then(|start| start.first_row);
    let slices = scrubbed_range(rollup, seen.seal_of(rollup), now).map_or(0, |(begin, end)| {
        let begin = first_row.map_or(begin, |first| begin.max(first));
        let begin = rollup.calendar.containing(begin).start();
        rollup.calendar.slices(begin, end).count()
    });
    let drift = scrub::open_drift(worker, rollup, &scrub).await?;
    Ok(Some(Scrubbed { scrub, slices, drift }))
}

impl Scrubbed {
    pub(super) fn lines(&self, rollup: &Rollup) -> Vec<String> {
        let Self { scrub, slices, drift } = self;
        let last = scrub.verified_at.map_or_else(|| "never".into(), ui::instant);
        let all = ui::counted(*slices, "slice");
        let done = ui::number(scrub.verified_in_round());
        let mut lines =
            vec![format!("scrub: {done} of {all} in round {}, last {last}", scrub.round)];
        lines.extend(drift.iter().map(|(start, drift)| {
            let groups = usize::try_from(drift.groups).unwrap_or(usize::MAX);
            let line = format!(
                "drift in {}: {} found at {}",
                named(&rollup.name, *start),
                ui::counted(groups, "group"),
                ui::instant(drift.found_at)
            );
            ui::wrapped(&ui::paint(Paint::Red, line), 2)
        }));
        lines
    }

    pub(super) fn document(&self, rollup: &Rollup) -> serde_json::Value {
        let Self { scrub, slices, drift } = self;
        json!({
            "round": scrub.round,
            "round_started_at": scrub.round_started_at,
            "verified": scrub.verified_in_round(),
            "slices": slices,
            "verified_in_all": scrub.verified,
            "verified_at": scrub.verified_at,
            "drift": drift.iter().map(|(start, drift)| json!({
                "slice": name(&rollup.name, *start),
                "groups": drift.groups,
                "found_at": drift.found_at,
            })).collect::<Vec<_>>(),
        })
    }
}
