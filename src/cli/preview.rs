use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::remote::{self, Remote};
use super::run::named;
use super::{Failure, Global, Via, excluded, needed, parse_duration, slice_starting, ui};
use crate::check::preview::{self, Parity, Preview, PreviewOptions};
use crate::config::parse_table;
use crate::model::hint::Fault;
use crate::model::rollup::{Rollup, TableName};
use crate::model::slice::Slice;
use crate::target::Difference;
use crate::work::worker::{Severity, Worker};

/// Groups that are listed.
const LISTED_DEFAULT: usize = 20;

const fn listed_default() -> usize {
    LISTED_DEFAULT
}

/// As long as the default of `--timeout`.
const fn timeout_default() -> Duration {
    Duration::from_secs(60)
}

/// Show what a slice would hold, without writing. Works before `init`.
#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct PreviewArgs {
    /// The rollup
    #[arg(required = true)]
    rollup: Option<String>,
    /// This slice [default: the newest that is over]
    #[arg(long, value_name = "START")]
    slice: Option<String>,
    /// Print the statement that computes it, and run nothing
    #[arg(long, conflicts_with = "against")]
    #[serde(default)]
    sql: bool,
    /// Compare it with this table or view of the target, which another job keeps, by the columns'
    /// names
    #[arg(long, value_name = "TABLE")]
    against: Option<String>,
    /// Longest time for one statement; a slice that takes longer is read in several
    #[arg(long, value_name = "DURATION", default_value = "1 minute", value_parser = parse_duration)]
    #[serde(with = "remote::duration", default = "timeout_default")]
    timeout: Duration,
    /// Number of groups, and of differences, to list
    #[arg(long, value_name = "N", default_value_t = LISTED_DEFAULT)]
    #[serde(default = "listed_default")]
    limit: usize,
    #[command(flatten)]
    #[serde(skip)]
    via: Via,
}

impl PreviewArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self.via.function() {
            Some(function) => remote::ask(global, &function, Remote::Preview(self)).await,
            None => self.run_here(global).await,
        }
    }

    /// Runs the command in this process.
    pub(super) async fn run_here(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let Some(rollup) = &self.rollup else {
            return Err(Failure::usage(needed("preview", "rollup")));
        };
        let rollup = worker.rollup(rollup)?;
        let slice = self.chosen(&worker, rollup)?;
        if self.sql {
            let sql = preview::statement(&worker, rollup, slice).await?;
            let document = json!({ "slice": named(&rollup.name, slice.start()), "sql": sql });
            global.print_script(&document, || format!("{sql};"));
            return Ok(());
        }
        let against = self.against.as_deref().map(other_table).transpose()?;
        let (timeout, limit) = (self.timeout, self.limit);
        let options = PreviewOptions { timeout, limit, against: against.as_ref() };
        let progress = ui::ProgressLine::quiet("preview", 1);
        let work = Box::pin(preview::preview(&worker, rollup, slice, options));
        let done = progress.during(&worker.governor, work).await;
        progress.finish();
        let done = done?;
        let is_over = worker.clock.now() >= rollup.readable_at(slice);
        let document = document(rollup, slice, is_over, &done);
        global.print(&document, || text(rollup, slice, is_over, &done));
        done.against.as_ref().map_or(Ok(()), |parity| is_same(parity, rollup, slice))
    }

    /// Why the arguments exclude each other.
    pub(super) fn refusal(&self) -> Option<Fault> {
        (self.sql && self.against.is_some()).then(|| excluded("sql", "against"))
    }

    /// The given slice, or the newest that is over.
    fn chosen(&self, worker: &Worker, rollup: &Rollup) -> Result<Slice, Failure> {
        let now = worker.clock.now();
        if let Some(start) = &self.slice {
            return slice_starting(rollup, start, now);
        }
        rollup.newest(now).ok_or_else(|| {
            let fault = Fault::new(format!("no slice of rollup `{}` is over yet", rollup.name));
            Failure::usage(fault.remedy("name one that has begun with --slice"))
        })
    }
}

/// The table of another job.
fn other_table(text: &str) -> Result<TableName, Failure> {
    parse_table(text).map_err(|fault| Failure::usage(fault.at(format!("--against {text}"))))
}

/// The exit code of a comparison.
fn is_same(parity: &Parity, rollup: &Rollup, slice: Slice) -> Result<(), Failure> {
    if parity.unequal() == 0 {
        return Ok(());
    }
    let groups = usize::try_from(parity.unequal()).unwrap_or(usize::MAX);
    let fault = Fault::new(format!(
        "{} of {} and {} not equal",
        ui::counted(groups, "group"),
        named(&rollup.name, slice.start()),
        parity.table,
    ));
    Err(Failure::printed(
        Severity::Failed,
        fault.remedy(
            "compare what both count: the time column and its zone, conditions, late rows, NULLs",
        ),
    ))
}

fn document(rollup: &Rollup, slice: Slice, is_over: bool, preview: &Preview) -> Value {
    json!({
        "slice": named(&rollup.name, slice.start()),
        "end": slice.end(),
        "over": is_over,
        "rows_read": preview.rows_read,
        "groups": preview.groups,
        "listed": preview.listed.iter().map(|group| &group.document).collect::<Vec<_>>(),
        "source_ms": preview.source_ms,
        "against": preview.against,
    })
}

fn text(rollup: &Rollup, slice: Slice, is_over: bool, preview: &Preview) -> String {
    let took = ui::duration(Duration::from_millis(preview.source_ms));
    let counted = |many: u64, noun| ui::counted(usize::try_from(many).unwrap_or(usize::MAX), noun);
    let mut lines = vec![format!(
        "{}: {} in {}, read in {took}; nothing was written",
        named(&rollup.name, slice.start()),
        counted(preview.rows_read, "row"),
        counted(preview.groups, "group"),
    )];
    if !is_over {
        let until = ui::instant(rollup.readable_at(slice));
        lines.push(format!("it is not over: more rows may come until {until}"));
    }
    if !preview.listed.is_empty() {
        let heading: Vec<String> = preview
            .columns
            .iter()
            .map(|(name, is_number)| format!("{}{name}", if *is_number { ">" } else { "" }))
            .collect();
        let heading: Vec<&str> = heading.iter().map(String::as_str).collect();
        let cell = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "NULL".to_owned());
        let row = |cells: &Vec<Option<String>>| cells.iter().map(cell).collect();
        let rows: Vec<Vec<String>> = preview.listed.iter().map(|it| row(&it.cells)).collect();
        lines.push(ui::table(&heading, &rows));
    }
    let more = preview.groups.saturating_sub(preview.listed.len() as u64);
    if more > 0 {
        lines.push(format!("… and {}", counted(more, "more group")));
    }
    lines.extend(preview.against.iter().flat_map(compared));
    lines.join("\n")
}

/// The result of the comparison with another table.
fn compared(parity: &Parity) -> Vec<String> {
    let table = &parity.table;
    let mut lines = vec![ui::wrapped(
        &format!(
            "against {table}: {} equal, {} differ, {} missing there, {} there alone; compared: {}",
            ui::number(parity.equal),
            ui::number(parity.differ),
            ui::number(parity.missing),
            ui::number(parity.extra),
            parity.compared.join(", "),
        ),
        2,
    )];
    if !parity.absent.is_empty() {
        let absent = parity.absent.join(", ");
        lines.push(ui::wrapped(&format!("  not compared, as {table} lacks it: {absent}"), 4));
    }
    for Difference { difference, key, expected, actual } in &parity.differences {
        let show = |value: &Option<Value>| {
            value.as_ref().map_or_else(|| "nothing".to_owned(), ToString::to_string)
        };
        lines.push(format!("  {difference} {key}"));
        lines.push(format!("    source {}", show(expected)));
        lines.push(format!("    {table} {}", show(actual)));
    }
    lines
}
