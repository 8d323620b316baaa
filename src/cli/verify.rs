use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::{Failure, Global, Range, parse_duration, rollups, slice_starting, ui};
use crate::plan::{Planned, Standing};
use crate::rollup::Rollup;
use crate::slice::Slice;
use crate::verify::SliceVerification;
use crate::worker::{Severity, Worker};

/// Recompute and compare; write nothing.
#[derive(Debug, Args)]
pub struct Verify {
    /// Only this rollup
    rollup: Option<String>,
    /// Only this slice
    #[arg(long, value_name = "START", requires = "rollup", conflicts_with_all = ["from", "to"])]
    slice: Option<String>,
    #[command(flatten)]
    range: Range,
    /// Longest time for the statement that recomputes one slice
    #[arg(long, value_name = "DURATION", default_value = "5 minutes", value_parser = parse_duration)]
    timeout: Duration,
    /// How many differing groups to list for each slice
    #[arg(long, value_name = "N", default_value_t = 3)]
    limit: usize,
}

/// What was compared.
#[derive(Debug, Default)]
pub(super) struct Verified {
    pub slices: usize,
    /// Slices without success, which have nothing to compare yet.
    pub unfinished: usize,
    pub drifted: Vec<SliceVerification>,
}

impl Verify {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let mut verified = Verified::default();
        for rollup in rollups(&worker, self.rollup.as_deref())? {
            let slices = self.slices(&worker, rollup, &mut verified).await?;
            compare(&worker, rollup, &slices, (self.timeout, self.limit), &mut verified).await?;
        }
        let differences: u64 = verified.drifted.iter().map(|slice| slice.differences).sum();
        let document = json!({
            "slices": verified.slices,
            "unfinished": verified.unfinished,
            "differences": differences,
            "drifted": verified.drifted,
        });
        global.print(&document, || text(&verified));
        if verified.drifted.is_empty() {
            return Ok(());
        }
        Err(Failure::told(
            Severity::Failed,
            format!(
                "{} found to differ from the source, in {}; see `tallymark replay`",
                ui::counted(verified.drifted.len(), "slice"),
                ui::counted(usize::try_from(differences).unwrap_or(usize::MAX), "group"),
            ),
        ))
    }

    /// The slices to compare: the given one, or all of the range that have succeeded.
    async fn slices(
        &self,
        worker: &Worker,
        rollup: &Rollup,
        verified: &mut Verified,
    ) -> Result<Vec<Slice>, Failure> {
        if let Some(start) = &self.slice {
            return Ok(vec![slice_starting(rollup, start)?]);
        }
        let now = worker.clock.now();
        let (from, to) = self.range.bounds(rollup, now)?;
        // Rows that were added before all others must be found to be missing.
        worker.probe(rollup).await?;
        let (slices, unfinished) = succeeded(worker, rollup, (from, to)).await?;
        verified.unfinished += unfinished;
        Ok(slices)
    }
}

/// The slices of a range that have succeeded, and how many have not.
pub(super) async fn succeeded(
    worker: &Worker,
    rollup: &Rollup,
    (from, to): (chrono::DateTime<chrono::Utc>, chrono::DateTime<chrono::Utc>),
) -> Result<(Vec<Slice>, usize), Failure> {
    let plan = worker.plan_range(rollup, from, to, worker.clock.now()).await?;
    // Nothing to compare, or only what is known: that another definition gives other numbers.
    let is_other =
        |planned: &&Planned| matches!(planned.standing, Standing::Empty | Standing::Redefined);
    let all = plan.slices.len() - plan.slices.iter().filter(is_other).count();
    let slices: Vec<Slice> = plan
        .slices
        .into_iter()
        .filter(|planned| {
            matches!(planned.standing, Standing::Succeeded | Standing::Lookback | Standing::Stale)
        })
        .map(|planned| planned.slice)
        .collect();
    let unfinished = all - slices.len();
    Ok((slices, unfinished))
}

/// Compares `slices` one after another.
pub(super) async fn compare(
    worker: &Worker,
    rollup: &Rollup,
    slices: &[Slice],
    (timeout, limit): (Duration, usize),
    verified: &mut Verified,
) -> Result<(), Failure> {
    for slice in slices {
        let found = worker.verify(rollup, *slice, timeout, limit).await?;
        verified.slices += 1;
        if found.differences > 0 {
            verified.drifted.push(found);
        }
    }
    Ok(())
}

pub(super) fn text(verified: &Verified) -> String {
    let mut lines = Vec::new();
    for slice in &verified.drifted {
        let start = ui::instant(slice.start);
        let many = usize::try_from(slice.differences).unwrap_or(usize::MAX);
        let differ = if many == 1 { "differs" } else { "differ" };
        lines.push(format!("{}@{start}: {} {differ}", slice.rollup, ui::counted(many, "group")));
        for example in &slice.examples {
            let show = |value: &Option<serde_json::Value>| {
                value.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string)
            };
            lines.push(format!("  {} {}", example.difference, example.key));
            lines.push(format!("    source {}", show(&example.expected)));
            lines.push(format!("    rollup {}", show(&example.actual)));
        }
    }
    if verified.unfinished > 0 {
        lines.push(format!(
            "{} not computed yet, not compared",
            ui::counted(verified.unfinished, "slice")
        ));
    }
    lines.push(match (verified.slices, verified.drifted.len()) {
        (0, _) => "nothing to verify yet".into(),
        (all, 0) => format!(
            "{} compared with the source, 0 differences: every slice verified",
            ui::counted(all, "slice")
        ),
        (all, drifted) => {
            format!(
                "{} compared with the source, {drifted} {}",
                ui::counted(all, "slice"),
                if drifted == 1 { "differs" } else { "differ" }
            )
        }
    });
    lines.join("\n")
}
