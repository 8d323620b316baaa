use clap::Args;
use serde_json::json;

use super::backfill::{PaceArgs, document, finish};
use super::ui::{self, ProgressLine, counted};
use super::{Failure, Global, RangeArgs, Via, slice_starting, via};
use crate::model::clock::Stopwatch;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::work::backfill::{self, BatchReport};
use crate::work::due::Standing;
use crate::work::slice_run::RunOptions;
use crate::work::worker::{Severity, Worker};
use crate::work::{identity, replay, standings};

/// Recompute slices in any state.
#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The rollup
    rollup: String,
    /// This slice
    #[arg(long, value_name = "START", conflicts_with_all = ["failed", "from", "to"])]
    slice: Option<String>,
    /// All failed slices, including exhausted ones
    #[arg(long, conflicts_with_all = ["from", "to"])]
    failed: bool,
    #[command(flatten)]
    range: RangeArgs,
    /// The reason, which the checkpoint keeps
    #[arg(long, default_value = "replayed by hand")]
    reason: String,
    /// Accept the result even if most of the source's rows are gone
    #[arg(long)]
    allow_shrink: bool,
    #[command(flatten)]
    pace: PaceArgs,
    #[command(flatten)]
    via: Via,
}

impl ReplayArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = self.pace.worker(global).await?;
        let rollup = worker.rollup(&self.rollup)?;
        identity::refuse_other_places(&worker, rollup).await?;
        let slices = self.slices(&worker, rollup).await?;
        if slices.is_empty() {
            let document = document(rollup, &BatchReport::default(), None, Stopwatch::start());
            global.print(&document, || "nothing to replay".into());
            return Ok(());
        }
        let label = |slice: Option<&Slice>| slice.map(|slice| rollup.calendar.label(slice));
        let (first, last) = (label(slices.first()), label(slices.last()));
        global.announce(format!(
            "replay of {}: {} to recompute, {}{}",
            rollup.name,
            counted(slices.len(), "slice"),
            first.clone().unwrap_or_default(),
            last.filter(|_| slices.len() > 1).map(|last| format!(" to {last}")).unwrap_or_default(),
        ));
        ui::confirm("Recompute them?", self.pace.yes)?;
        if let Some(function) = &self.via.via {
            return self.replay_via(global, function, rollup, &slices).await;
        }
        let watch = Stopwatch::start();
        let progress = ProgressLine::new(&rollup.name, slices.len());
        let options = RunOptions { allow_shrink: self.allow_shrink, backfill: None };
        let batch = self.pace.batch(worker.governor.settings(), options);
        let work = backfill::replay(&worker, rollup, &slices, &self.reason, batch, &progress);
        let report = progress.during(&worker.governor, work).await;
        progress.finish();
        finish(global, rollup, report, watch, None)
    }

    /// Lets the function replay. One event covers all failed slices, which the function may fan
    /// out. Chosen slices are sent one after another.
    async fn replay_via(
        &self,
        global: &Global,
        function: &str,
        rollup: &Rollup,
        slices: &[Slice],
    ) -> Result<(), Failure> {
        let event = |which: &str, value: serde_json::Value| {
            json!({
                "trigger": "replay",
                "rollup": rollup.name,
                which: value,
                "reason": self.reason,
                "allow_shrink": self.allow_shrink,
            })
        };
        let events = match self.failed {
            true => vec![event("failed", true.into())],
            false => {
                let starts = slices.iter().map(|slice| ui::instant(slice.start()));
                starts.map(|start| event("start", start.into())).collect()
            }
        };
        let (mut answers, mut failures) = (Vec::new(), Vec::new());
        for event in &events {
            match via::invoke(function, event).await {
                Ok(answer) => answers.push(answer),
                // One slice that fails says nothing about the next one.
                Err(failure) if failure.severity == Severity::Failed => failures.push(failure),
                Err(failure) => {
                    failures.push(failure);
                    break;
                }
            }
        }
        if !answers.is_empty() {
            let texts = || answers.iter().map(via::text).collect::<Vec<_>>().join("\n");
            global.print(&answers, texts);
        }
        let Some(last) = failures.pop() else { return via::ended(&answers) };
        for failure in failures {
            ui::note(failure.message);
        }
        Err(last)
    }

    async fn slices(&self, worker: &Worker, rollup: &Rollup) -> Result<Vec<Slice>, Failure> {
        if let Some(start) = &self.slice {
            return Ok(vec![slice_starting(rollup, start, worker.clock.now())?]);
        }
        if self.failed {
            return Ok(replay::failed_slices(worker, rollup).await?);
        }
        if self.range.from.is_none() {
            return Err(Failure::usage(Fault::new("no slice to replay is named").remedy(
                "say what to replay: --slice START, --failed, or --from TIME [--to TIME]",
            )));
        }
        let now = worker.clock.now();
        let bounds = self.range.bounds(rollup, now)?;
        let (from, to) = backfill::checked_range(rollup, bounds)?;
        let plan = standings::in_range(worker, rollup, from, to, now).await?;
        let is_fixed = |standing| matches!(standing, Standing::Sealed | Standing::Adopted);
        let open = plan.slices.iter().filter(|planned| !is_fixed(planned.standing));
        Ok(open.map(|planned| planned.slice).collect())
    }
}
