pub(super) mod grid;
pub(super) mod overview;
mod samples;
mod scrubbed;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, ValueEnum};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::remote::{self, Remote};
use super::run::{name, named};
use super::ui::{self, Paint};
use super::{Failure, Global, Via, console, control, excluded, parse_duration, rollups};
use crate::check::purgeable;
use crate::checkpoint::{Backfill, Checkpoint, KeptPace, State};
use crate::fanout;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::work::due::Planned;
use crate::work::survey::{BLOCK, Survey};
use crate::work::worker::{WorkError, Worker};
use crate::work::{identity, replay, standings, workload};

use grid::{LineSpan, grid, legend};
use overview::Overview;
use scrubbed::{Scrubbed, scrubbed};

/// Maximum number of unfinished slices listed with their reason. The JSON lists all.
const LISTED_MAX: usize = 10;

/// Calendar lines that are shown: two weeks of days.
const LINES_DEFAULT: usize = 14;

/// Rollups whose whole state is read at the same time, as each waits for the store several times.
const LOOKS_ABREAST: usize = 16;

const fn lines_default() -> usize {
    LINES_DEFAULT
}

/// Show the state of the slices, and the reasons of failures.
#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct StatusArgs {
    /// Only this rollup
    rollup: Option<String>,
    /// Number of calendar lines to show, newest last
    #[arg(long, value_name = "N", default_value_t = LINES_DEFAULT)]
    #[serde(default = "lines_default")]
    lines: usize,
    /// Show it again and again, until Ctrl-C: in place at a terminal, else a line for each change
    #[arg(long, conflicts_with = "via")]
    #[serde(skip)]
    watch: bool,
    /// Time between two looks of --watch, at least a second
    #[arg(long, value_name = "DURATION", default_value = "5s", requires = "watch",
          value_parser = parse_duration)]
    #[serde(skip)]
    every: Duration,
    /// Write it as a page into this file, with the calendar of every slice
    #[arg(long, value_name = "FILE", conflicts_with_all = ["watch", "lines"])]
    #[serde(skip)]
    html: Option<PathBuf>,
    /// Print it in this form instead, each rollup as samples of metrics
    #[arg(long, value_name = "FORMAT", conflicts_with_all = ["watch", "lines", "html", "via"])]
    #[serde(skip)]
    format: Option<Format>,
    /// Whether the document is to be that page.
    #[arg(skip)]
    #[serde(default, rename = "html")]
    is_page: bool,
    #[command(flatten)]
    #[serde(skip)]
    via: Via,
}

/// A form of the state for other programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Prometheus,
}

/// The state of one rollup.
pub(super) struct RollupStatus {
    pub(super) watermark: DateTime<Utc>,
    pub(super) lag: TimeDelta,
    /// Number of slices with another definition, and the total.
    pub(super) redefined: (usize, usize),
    pub(super) slices: Vec<Planned>,
    pub(super) unfinished: Vec<Checkpoint>,
    pub(super) scrub: Option<Scrubbed>,
    /// Slices that start before this instant are sealed.
    pub(super) seal: Option<DateTime<Utc>>,
    /// The process that set the seal was killed, or is about to prove it.
    pub(super) is_seal_unproven: bool,
    /// Why only a comparison with the source can show whether the rows are right.
    pub(super) unproven: Option<String>,
    /// The backfill that a function fans out.
    pub(super) backfill: Option<Backfill>,
}

/// The state of the chosen rollups, as it is shown.
struct Shown {
    document: serde_json::Value,
    overviews: Vec<Overview>,
    /// All of each rollup. Empty: a line each is enough.
    details: Vec<String>,
    /// What concerns all rollups.
    below: Vec<String>,
}

impl Shown {
    fn text(&self) -> String {
        let mut texts = self.details.clone();
        if texts.is_empty() {
            let table = overview::table(&self.overviews, ui::columns());
            let more = "`tallymark status ROLLUP` shows one with its calendar and its reasons";
            texts.push(format!("{table}\n{}", ui::wrapped(more, 2)));
        }
        texts.extend(Some(self.below.join("\n")).filter(|lines| !lines.is_empty()));
        texts.join("\n\n")
    }
}

impl StatusArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        if self.format == Some(Format::Prometheus) {
            return samples::print(&self, global).await;
        }
        let function = self.via.function();
        if let Some(file) = self.html.clone() {
            return self.write_page(global, function.as_deref(), &file).await;
        }
        match function {
            Some(function) => remote::ask(global, &function, Remote::Status(self)).await,
            None => self.run_here(global).await,
        }
    }

    /// Writes the page, which the function may make.
    async fn write_page(
        mut self,
        global: &Global,
        function: Option<&str>,
        file: &Path,
    ) -> Result<(), Failure> {
        let page = match function {
            None => self.page(&global.worker(1).await?).await?,
            Some(function) => {
                self.is_page = true;
                let document = remote::document(function, &Remote::Status(self)).await?;
                document["html"].as_str().unwrap_or_default().to_owned()
            }
        };
        let bytes = page.len();
        std::fs::write(file, page).map_err(|error| {
            let fault = Fault::new(format!("--html {}: {error}", file.display()));
            Failure::usage(fault.remedy("name a file in a folder that can be written"))
        })?;
        let document = json!({ "file": file, "bytes": bytes });
        #[expect(clippy::cast_precision_loss, reason = "a size for people")]
        let size = ui::bytes(bytes as f64);
        global.print(&document, || format!("wrote {}, {size}", file.display()));
        Ok(())
    }

    /// The page, as one file.
    async fn page(&self, worker: &Worker) -> Result<String, Failure> {
        let only = self.rollup.as_deref().map(|name| worker.rollup(name)).transpose()?;
        Ok(console::file(worker, only, worker.clock.now()).await?)
    }

    /// Runs the command in this process.
    pub(super) async fn run_here(self, global: &Global) -> Result<(), Failure> {
        if self.watch && global.json {
            return Err(Failure::usage(excluded("--watch", "--json")));
        }
        let worker = global.worker(1).await?;
        if self.watch {
            return watch::watch(&self, global, &worker).await;
        }
        if self.is_page {
            let page = self.page(&worker).await?;
            let text = || ui::counted(page.len(), "byte");
            global.print(&json!({ "html": page }), text);
            return Ok(());
        }
        let shown = self.shown(global, &worker).await?;
        match shown.details.is_empty() {
            // Its lines fit the terminal, which may be wide.
            true => global.print_script(&shown.document, || shown.text()),
            false => global.print(&shown.document, || shown.text()),
        }
        Ok(())
    }

    /// The state of the chosen rollups: of several a line each, of one all of it.
    async fn shown(&self, global: &Global, worker: &Worker) -> Result<Shown, Failure> {
        let chosen = rollups(worker, self.rollup.as_deref())?;
        let control = worker.checkpoints.control().await.map_err(WorkError::from)?;
        let is_overview = self.rollup.is_none() && chosen.len() > 1;
        let needs_all = !is_overview || global.json || ui::is_keeping();
        let (mut overviews, mut details) = (Vec::new(), Vec::new());
        let mut documents = Vec::new();
        for block in chosen.chunks(BLOCK) {
            let now = worker.clock.now();
            let mut survey = Survey::of(worker, block, now).await.map_err(WorkError::from)?;
            let (begun, mut looks) = (overviews.len(), Vec::new());
            for rollup in block {
                let known = standings::surveyed(worker, rollup, &mut survey, now).await?;
                overviews.push(Overview::new(worker, rollup, &known.plan, &control, now));
                if needs_all {
                    // The calendar shows the newest lines, which may begin before the watermark.
                    let lines = u32::try_from(self.lines).unwrap_or(u32::MAX).clamp(1, 1000);
                    let span = LineSpan::of(rollup).span() * i32::try_from(lines).unwrap_or(1000);
                    looks.push(Box::pin(look(worker, rollup, known, now - span, now)));
                }
            }
            let looks = stream::iter(looks).buffered(LOOKS_ABREAST);
            let looked: Vec<RollupStatus> = looks.try_collect().await?;
            let overviews = &overviews[begun..];
            for ((rollup, standings), overview) in block.iter().zip(&looked).zip(overviews) {
                let mut document = document(rollup, standings);
                overview.add_to(&mut document);
                documents.push(document);
                if !is_overview {
                    details.push(self.text(rollup, standings));
                }
            }
        }
        let mut document = control::document(worker, &control);
        document["pace"] = json!(control.pace());
        document["rollups"] = documents.into();
        let month = workload::this_month(worker).await.map_err(WorkError::from)?;
        if let Some(month) = &month {
            document["workload_units"] = json!(month);
        }
        let mut below: Vec<String> = month.iter().map(|it| format!("app: {it}")).collect();
        below.extend(control::lines(worker, &control));
        below.extend(control.pace().map(pace_line));
        Ok(Shown { document, overviews, details, below })
    }

    fn text(&self, rollup: &Rollup, standings: &RollupStatus) -> String {
        let calendar = &rollup.calendar;
        let lag = ui::duration(standings.lag.to_std().unwrap_or_default());
        let mut lines = vec![
            format!(
                "{}  slices of {} in {}, from {}",
                ui::paint(Paint::Bold, &rollup.name),
                calendar.width(),
                calendar.zone(),
                rollup.from
            ),
            format!(
                "watermark {} ({lag} ago): all before it succeeded",
                ui::instant(standings.watermark)
            ),
        ];
        lines.extend(standings.seal.map(|seal| {
            format!("sealed before {}: slices there stay as they are", ui::instant(seal))
        }));
        lines.extend(standings.is_seal_unproven.then(|| {
            let seal = ui::paint(Paint::Alarm, "the seal is not proven".to_owned());
            ui::wrapped(&format!("{seal}; {}", purgeable::complete_seal(rollup)), 2)
        }));
        lines.extend(standings.unproven.as_ref().map(|reason| {
            let (name, reason) =
                (&rollup.name, ui::paint(Paint::Alarm, format!("unproven: {reason}")));
            let next =
                format!("`tallymark repair` and `tallymark verify {name} --repair` prove it");
            ui::wrapped(&format!("{reason}; {next}"), 2)
        }));
        if let (old @ 1.., all) = standings.redefined {
            let (old, all) = (ui::count(old), ui::counted(all, "slice"));
            lines.push(format!("{old} of {all} still hold an old definition"));
        }
        lines.extend(standings.backfill.as_ref().map(|it| {
            let (state, sent) = (it.state.word(), ui::number(it.sent));
            let line = format!(
                "backfill {state}, {sent} messages sent; `tallymark backfill status {}` says how far it is",
                rollup.name
            );
            ui::wrapped(&line, 2)
        }));
        lines.extend(standings.scrub.iter().flat_map(|scrub| scrub.lines(rollup)));
        lines.extend(grid(rollup, &standings.slices, self.lines));
        lines.push(legend(&standings.slices));
        if !standings.unfinished.is_empty() {
            lines.push(String::new());
            lines.push(ui::paint(Paint::Bold, "unfinished, newest first"));
            let listed = standings.unfinished.iter().rev().take(LISTED_MAX);
            lines.extend(listed.map(|checkpoint| unfinished(rollup, checkpoint)));
            if standings.unfinished.len() > LISTED_MAX {
                let more = standings.unfinished.len() - LISTED_MAX;
                lines.push(format!("… and {}", ui::counted(more, "more slice")));
            }
        }
        lines.join("\n")
    }
}

/// The state of `rollup` at `now`, with its slices since `from`.
pub(super) async fn look(
    worker: &Worker,
    rollup: &Rollup,
    known: standings::Standings,
    from: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<RollupStatus, WorkError> {
    let standings::Standings { seen, plan: known, .. } = known;
    let backfill = match seen.backfill() {
        Some(id) => worker.checkpoints.backfill(&rollup.name, id).await?,
        None => None,
    };
    let backfill = match backfill {
        Some(backfill) => Some(fanout::as_it_stands(worker, rollup, backfill).await?),
        None => None,
    };
    let from = rollup.calendar.containing(from.max(rollup.start)).start();
    let slices = standings::in_range(worker, rollup, from, now, now).await?.slices;
    let unfinished = replay::unfinished(worker, rollup).await?;
    let lag = now - known.watermark;
    // A rollup with redefined slices is read from the start.
    let redefined = (known.redefined().count(), known.slices.len());
    let scrub = scrubbed(worker, rollup, now).await?;
    let watermark = known.watermark;
    let unproven = identity::unproven(worker, rollup);
    let (seal, is_seal_unproven) = (seen.seal_of(rollup), seen.store_seal().is_unproven());
    Ok(RollupStatus {
        watermark,
        lag,
        redefined,
        slices,
        unfinished,
        scrub,
        seal,
        is_seal_unproven,
        unproven,
        backfill,
    })
}

/// `entity_daily@2026-02-10T00:00:00Z  failed, attempt 3, again at …: why`.
fn unfinished(rollup: &Rollup, checkpoint: &Checkpoint) -> String {
    let slice = named(&rollup.name, checkpoint.slice_start);
    let mut line = format!("{slice}  {}, attempt {}", checkpoint.state, checkpoint.attempt);
    match (checkpoint.lease_until, checkpoint.retry_at) {
        (Some(until), _) => line.push_str(&format!(", lease until {}", ui::instant(until))),
        (None, Some(at)) => line.push_str(&format!(", again at {}", ui::instant(at))),
        (None, None) => {}
    }
    // A running attempt has no reason yet. The checkpoint still holds that of an earlier attempt.
    let why = checkpoint.error.as_deref().or(checkpoint.reason.as_deref());
    if let Some(why) = why.filter(|_| checkpoint.state != State::Running) {
        line.push_str(&format!(": {why}"));
    }
    ui::wrapped(&line, 2)
}

/// The pace that a worker has found.
pub(super) fn pace_line(KeptPace { at, nice_ratio, held_by, .. }: &KeptPace) -> String {
    format!("pace of reading at {}: nice_ratio {nice_ratio} ({held_by})", ui::instant(*at))
}

fn document(rollup: &Rollup, standings: &RollupStatus) -> serde_json::Value {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for planned in &standings.slices {
        *counts.entry(planned.standing.word()).or_default() += 1;
    }
    json!({
        "rollup": rollup.name,
        "watermark": standings.watermark,
        "lag_seconds": standings.lag.num_seconds(),
        "redefined": standings.redefined.0,
        "backfill": standings.backfill.as_ref().map(|backfill| &backfill.id),
        "standings": counts,
        "slices": standings.slices.iter().map(|planned| json!({
            "slice": name(&rollup.name, planned.slice.start()),
            "standing": planned.standing,
        })).collect::<Vec<_>>(),
        "unfinished": standings.unfinished.iter().map(|checkpoint| json!({
            "slice": name(&rollup.name, checkpoint.slice_start),
            "state": checkpoint.state,
            "attempt": checkpoint.attempt,
            "failures": checkpoint.failures,
            "reason": checkpoint.reason,
            "error": checkpoint.error,
            "retry_at": checkpoint.retry_at,
            "lease_until": checkpoint.lease_until,
        })).collect::<Vec<_>>(),
        "scrub": standings.scrub.as_ref().map(|scrub| scrub.document(rollup)),
        "sealed_before": standings.seal,
        "seal_unproven": standings.is_seal_unproven,
        "unproven": standings.unproven,
    })
}
