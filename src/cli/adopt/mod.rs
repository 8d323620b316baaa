mod propose;

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::remote::{self, Remote};
use super::ui::{self, ProgressLine, count, counted, number};
use super::{Failure, Global, Via, excluded, needed, parse_duration};
use crate::check::adopt::{self, AdoptionPlan};
use crate::check::preview::Parity;
use crate::config::parse_table;
use crate::model::hint::Fault;
use crate::model::rollup::{Rollup, TableName};
use crate::target::AdoptedRows;
use crate::work::worker::{Severity, Worker};

/// Slices that are compared unless told otherwise.
const COMPARED_DEFAULT: usize = 30;

/// Differences that are listed.
const LISTED_MAX: usize = 10;

const fn compared_default() -> usize {
    COMPARED_DEFAULT
}

/// As long as the default of `--timeout`.
const fn timeout_default() -> Duration {
    Duration::from_secs(60)
}

/// Take over a table that another job keeps. Without --rollup, only propose a rollup for it.
#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct AdoptArgs {
    /// The table or view of the target that another job keeps. It stays as it is
    #[arg(required = true)]
    table: Option<String>,
    /// The configured rollup that takes over its history
    #[arg(long, value_name = "ROLLUP")]
    rollup: Option<String>,
    /// For the proposal: the table of the source that it is computed from
    #[arg(long, value_name = "TABLE", conflicts_with = "rollup")]
    from: Option<String>,
    /// Take over the slices before this one [default: the first that the source holds whole]
    #[arg(long, value_name = "START", requires = "rollup")]
    before: Option<String>,
    /// Number of slices to compare with the source, evenly spread
    #[arg(long, value_name = "N", default_value_t = COMPARED_DEFAULT, requires = "rollup")]
    #[serde(default = "compared_default")]
    compare: usize,
    /// Take over its history although the compared slices differ
    #[arg(long, requires = "rollup")]
    #[serde(default)]
    accept_differences: bool,
    /// Longest time for one statement of the comparison
    #[arg(long, value_name = "DURATION", default_value = "1 minute", value_parser = parse_duration)]
    #[serde(with = "remote::duration", default = "timeout_default")]
    timeout: Duration,
    /// Do not ask for confirmation
    #[arg(long, short)]
    #[serde(default)]
    yes: bool,
    #[command(flatten)]
    #[serde(skip)]
    via: Via,
}

/// The comparison of some slices.
#[derive(Debug, Default)]
struct Compared {
    slices: usize,
    equal: u64,
    unequal: u64,
    /// The first slices that are not equal, with their comparisons.
    differing: Vec<(DateTime<Utc>, Parity)>,
}

impl AdoptArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self.via.function() {
            Some(function) => remote::ask(global, &function, Remote::Adopt(self)).await,
            None => self.run_here(global).await,
        }
    }

    /// Why the arguments exclude each other, as the parser of the command line says too.
    pub(super) fn refusal(&self) -> Option<Fault> {
        let Self { rollup, from, before, accept_differences, .. } = self;
        match rollup {
            Some(_) => from.is_some().then(|| excluded("rollup", "from")),
            None if before.is_some() => Some(needed("before", "rollup")),
            None => accept_differences.then(|| needed("accept_differences", "rollup")),
        }
    }

    /// Runs the command in this process.
    pub(super) async fn run_here(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let Some(table) = &self.table else {
            return Err(Failure::usage(needed("adopt", "table")));
        };
        let table = named_table(table)?;
        let Some(rollup) = &self.rollup else {
            let from = self.from.as_deref().map(named_table).transpose()?;
            return propose::propose(global, &worker, &table, from.as_ref()).await;
        };
        let rollup = worker.rollup(rollup)?;
        let before = self.before.as_ref().map(|text| {
            let instant = rollup.calendar.instant(text);
            instant.map_err(|error| Failure::usage(Fault::of(&error).at("--before")))
        });
        let plan = adopt::plan(&worker, rollup, &table, before.transpose()?).await?;
        let compared = self.compared(&worker, rollup, &plan).await?;
        global.announce(announced(&table, rollup, &plan, &compared));
        if compared.unequal > 0 && !self.accept_differences {
            let document = document(rollup, &table, &plan, &compared, None);
            global.print(&document, || "nothing was taken over".to_owned());
            return Err(Failure::printed(Severity::Failed, differ(&table, rollup, &compared)));
        }
        if plan.sealed.is_empty() {
            let document =
                document(rollup, &table, &plan, &compared, Some(&AdoptedRows::default()));
            global.print(&document, || {
                format!("nothing to take over\nnext: `tallymark backfill {}`", rollup.name)
            });
            return Ok(());
        }
        ui::confirm("Take them over?", self.yes)?;
        let progress = ProgressLine::quiet(&rollup.name, plan.sealed.len());
        let ended = |done| progress.compared(done);
        let work = adopt::take_over(&worker, rollup, &plan, &ended);
        let taken = progress.during(&worker.governor, work).await;
        progress.finish();
        let taken = taken?;
        global.print(&document(rollup, &table, &plan, &compared, Some(&taken)), || {
            format!(
                "{} with {} rows taken over: they stay as they are\nnext: `tallymark backfill {}`",
                counted(usize::try_from(taken.slices).unwrap_or(usize::MAX), "slice"),
                number(taken.rows),
                rollup.name
            )
        });
        Ok(())
    }

    async fn compared(
        &self,
        worker: &Worker,
        rollup: &Rollup,
        plan: &AdoptionPlan,
    ) -> Result<Compared, Failure> {
        let chosen = adopt::sample(&plan.common, self.compare);
        let mut compared = Compared::default();
        let progress = ProgressLine::quiet("compare", chosen.len());
        for slice in chosen {
            let work = adopt::compare(worker, rollup, plan, slice, self.timeout);
            let parity = progress.during(&worker.governor, work).await;
            let Some(parity) = parity? else { continue };
            compared.slices += 1;
            compared.equal += parity.equal;
            compared.unequal += parity.unequal();
            progress.compared(compared.slices);
            if parity.unequal() > 0 && compared.differing.len() < LISTED_MAX {
                compared.differing.push((slice.start(), parity));
            }
        }
        progress.finish();
        Ok(compared)
    }
}

fn named_table(text: &str) -> Result<TableName, Failure> {
    parse_table(text).map_err(|fault| Failure::usage(fault.at(text)))
}

/// What is compared, and what is to be taken over.
fn announced(
    table: &TableName,
    rollup: &Rollup,
    plan: &AdoptionPlan,
    compared: &Compared,
) -> String {
    let mut lines = vec![format!("adoption of {table} by {}", rollup.name)];
    lines.push(match compared.slices {
        0 => "  the source and the table have no slice in common that was compared".to_owned(),
        some => format!(
            "  {} of {} compared with the source: {} groups equal, {} not equal",
            count(some),
            counted(plan.common.len(), "slice"),
            number(compared.equal),
            number(compared.unequal)
        ),
    });
    for (start, parity) in &compared.differing {
        let Parity { differ, missing, extra, .. } = parity;
        lines.push(format!(
            "    {}: {differ} differ, {missing} missing in the table, {extra} only there",
            ui::instant(*start)
        ));
    }
    let begins = match plan.source_begins {
        Some(first) => format!("the source begins at {}", ui::instant(first)),
        None => "the source shows no first row".to_owned(),
    };
    let slices = counted(plan.sealed.len(), "slice");
    let line =
        format!("{slices} before {} to take over and seal: {begins}", ui::instant(plan.before));
    lines.push(format!("  {line}"));
    lines.join("\n")
}

fn differ(table: &TableName, rollup: &Rollup, compared: &Compared) -> Fault {
    let groups = counted(usize::try_from(compared.unequal).unwrap_or(usize::MAX), "group");
    let first = compared.differing.first().map(|(start, _)| ui::instant(*start));
    let preview = format!(
        "look with `tallymark preview {} --slice {} --against {table}`; pass --accept-differences to \
         keep its history as it is",
        rollup.name,
        first.unwrap_or_default()
    );
    Fault::new(format!("{groups} of {table} and the source are not equal")).remedy(preview)
}

fn document(
    rollup: &Rollup,
    table: &TableName,
    plan: &AdoptionPlan,
    compared: &Compared,
    taken: Option<&AdoptedRows>,
) -> Value {
    let differing = compared.differing.iter();
    json!({
        "rollup": rollup.name,
        "table": table.to_string(),
        "source_begins": plan.source_begins,
        "before": plan.before,
        "slices": plan.sealed.len(),
        "compared": {
            "slices": compared.slices,
            "of": plan.common.len(),
            "equal": compared.equal,
            "unequal": compared.unequal,
            "differing": differing.map(|(start, parity)| json!({
                "start": start,
                "differ": parity.differ,
                "missing": parity.missing,
                "extra": parity.extra,
            })).collect::<Vec<_>>(),
        },
        "taken_over": taken.map(|taken| json!({ "slices": taken.slices, "rows": taken.rows })),
    })
}
