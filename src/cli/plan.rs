use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::backfill::{describe, foreseen, foreseen_document};
use super::remote::{self, Remote};
use super::{Failure, Global, RangeArgs, Via, needed, rollups, run::name, ui};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::slice::Order;
use crate::source::reading::first_row::SourceStart;
use crate::work::due::Standing;
use crate::work::worker::{Severity, Worker};
use crate::work::{backfill, empty, estimate, standings};

/// Show the due slices, or the plan of a backfill.
#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct PlanArgs {
    /// Only this rollup
    rollup: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    range: RangeArgs,
    /// Plan to recompute slices that already succeeded too
    #[arg(long, requires = "from")]
    #[serde(default)]
    force: bool,
    /// Estimate a backfill with this number of concurrent slices. By default as many as `slots`, and
    /// 4 at full speed
    #[arg(long, value_name = "N", requires = "from",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    #[serde(default)]
    concurrency: Option<u32>,
    #[command(flatten)]
    #[serde(skip)]
    via: Via,
}

impl PlanArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self.via.function() {
            Some(function) => remote::ask(global, &function, Remote::Plan(self)).await,
            None => self.run_here(global).await,
        }
    }

    /// Runs the command in this process.
    pub(super) async fn run_here(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let mut documents = Vec::new();
        let mut texts = Vec::new();
        for rollup in rollups(&worker, self.rollup.as_deref())? {
            let (document, text) = if self.range.from.is_some() || self.range.to.is_some() {
                self.backfill(&worker, rollup).await?
            } else {
                due(&worker, rollup).await?
            };
            documents.push(document);
            texts.push(text);
        }
        global.print(&json!({ "rollups": documents }), || texts.join("\n\n"));
        Ok(())
    }

    /// Why the arguments exclude each other.
    pub(super) fn refusal(&self) -> Option<Fault> {
        let has_from = self.range.from.is_some();
        if self.force && !has_from {
            return Some(needed("force", "from"));
        }
        let wrong = self.concurrency.filter(|given| !(1..=64).contains(given))?;
        Some(Fault::new(format!("concurrency is {wrong}")).remedy("give 1 to 64"))
    }

    async fn backfill(
        &self,
        worker: &Worker,
        rollup: &Rollup,
    ) -> Result<(serde_json::Value, String), Failure> {
        let (from, to) = self.range.bounds(rollup, worker.clock.now())?;
        let plan = backfill::plan(worker, rollup, from, to, Order::OldestFirst, self.force).await?;
        let usual = worker.governor.settings().concurrency();
        let concurrency = self.concurrency.unwrap_or(usual);
        let estimate = estimate::estimate(worker, rollup, &plan, concurrency).await?;
        let document = json!({
            "rollup": rollup.name,
            "from": plan.from,
            "to": plan.to,
            "slices": plan.slices.len(),
            "reopened": plan.reopen.len(),
            "succeeded": plan.done,
            "empty": plan.empty,
            "sealed": plan.sealed,
            "adopted": plan.adopted,
            "exhausted": plan.exhausted,
            "blocked": plan.blocked,
            "estimate": foreseen_document(&estimate),
        });
        let mut text = describe(rollup, &plan);
        if !plan.slices.is_empty() {
            text.push_str(&foreseen(worker, &estimate));
        }
        Ok((document, text))
    }
}

/// The slices that the next tick would find.
async fn due(worker: &Worker, rollup: &Rollup) -> Result<(serde_json::Value, String), Failure> {
    /// Maximum number of due slices named in the text. The JSON names all.
    const NAMED_MAX: usize = 5;
    let now = worker.clock.now();
    let source_start = match empty::probe(worker, rollup).await {
        Ok(seen) => seen.source_start(),
        // The plan does not need the source. Only rows before the known first one may go unnoticed.
        Err(error) if error.severity() == Severity::Unreachable && !error.is_for_all() => {
            ui::note(format!("the source was not asked for its first row: {error}"));
            None
        }
        Err(error) => return Err(error.into()),
    };
    let plan = standings::of(worker, rollup, now).await?.plan;
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for planned in plan.slices.iter().filter(|planned| planned.standing != Standing::Succeeded) {
        *counts.entry(planned.standing.word()).or_default() += 1;
    }
    let due: Vec<_> = plan.due().collect();
    let document = json!({
        "rollup": rollup.name,
        "watermark": plan.watermark,
        "due": due.iter().map(|planned| json!({
            "slice": name(&rollup.name, planned.slice.start()),
            "why": planned.standing,
        })).collect::<Vec<_>>(),
        "standings": counts,
    });
    let empty = source_start.map_or(0, |start| empty_slices(rollup, start, now));
    let mut text = match due.len() {
        0 => format!("{}: nothing is due", rollup.name),
        many => format!("{}: {} due, newest first", rollup.name, ui::counted(many, "slice")),
    };
    for planned in due.iter().take(NAMED_MAX) {
        let label = rollup.calendar.label(&planned.slice);
        text.push_str(&format!("\n  {label}  {}", planned.standing.word()));
    }
    if due.len() > NAMED_MAX {
        text.push_str(&format!("\n  … and {}", ui::counted(due.len() - NAMED_MAX, "more slice")));
    }
    let old = plan.redefined().count();
    if old > 0 {
        let all = ui::counted(plan.slices.len(), "slice");
        text.push_str(&format!("\n  {} of {all} still hold an old definition", ui::count(old)));
    }
    for word in ["running", "waiting", "blocked", "exhausted"] {
        if let Some(count) = counts.get(word) {
            text.push_str(&format!("\n  {} {word}", ui::counted(*count, "slice")));
        }
    }
    if empty > 0 {
        let slices = ui::counted(empty, "slice");
        text.push_str(&format!("\n  {slices} before the first source row cost nothing"));
    }
    Ok((document, text))
}

/// The number of slices since the rollup's start that ended before the source's first row.
fn empty_slices(rollup: &Rollup, start: SourceStart, now: DateTime<Utc>) -> usize {
    let first = start.first_row.unwrap_or(start.probed_at).min(start.probed_at).min(now);
    let end = rollup.calendar.containing(first).start();
    if end <= rollup.start { 0 } else { rollup.calendar.count(rollup.start, end) }
}
