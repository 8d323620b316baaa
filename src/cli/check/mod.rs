mod app;
mod index;
mod lookups;
mod notify;
mod rollup;
mod server;
mod size;
mod state;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::remote::{self, Remote};
use super::ui::{self, Paint};
use super::{Failure, Global, Via, rollups};
use crate::checkpoint::store::StoreError;
use crate::checkpoint::{CheckpointError, Checkpoints};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT, CatalogueError, Side};
use crate::config::CheckpointConfig;
use crate::model::clock::SystemClock;
use crate::model::hint::{Fault, Hinted};
use crate::target::readers;
use crate::work::worker::{Severity, WorkError, Worker, store_db};

use rollup::rollup;
use server::{alone, load, naps, pace, server};

/// Look for problems before they are felt, each with its fix.
#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct CheckArgs {
    /// Only this rollup
    rollup: Option<String>,
    /// Send a trial notice to the receiver in [notify], and say what it answers
    #[arg(long)]
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    notify: bool,
    #[command(flatten)]
    #[serde(skip)]
    via: Via,
}

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Grade {
    Good,
    Note,
    ToDo,
    Bad,
}

/// The result of one check.
#[derive(Debug, serde::Serialize)]
struct Finding {
    grade: Grade,
    subject: String,
    finding: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    #[serde(skip)]
    severity: Option<Severity>,
}

/// Collects findings.
#[derive(Default)]
struct Findings {
    all: Vec<Finding>,
    /// The statements of `init` that are told already. Rollups share some.
    planned: BTreeSet<String>,
}

impl Findings {
    fn add(&mut self, grade: Grade, subject: &str, finding: impl Into<Fault>) {
        let severity = (grade == Grade::Bad).then_some(Severity::Usage);
        let (finding, hint) = finding.into().into_parts();
        self.all.push(Finding { grade, subject: subject.into(), finding, hint, severity });
    }

    /// The number of these statements that no finding has counted yet.
    fn plan(&mut self, statements: Vec<String>) -> usize {
        let before = self.planned.len();
        self.planned.extend(statements);
        self.planned.len() - before
    }

    /// Whether a step of `init` is still to do for `subject`.
    fn has_to_do(&self, subject: &str) -> bool {
        self.all.iter().any(|it| it.grade == Grade::ToDo && it.subject == subject)
    }

    fn trouble(&mut self, subject: &str, error: &WorkError) {
        let error_text = error.to_string();
        // The subject is already printed before it.
        let twice = [format!("rollup `{subject}`: "), format!("{subject} database: ")];
        let said = twice.iter().find_map(|begin| error_text.strip_prefix(begin));
        let (finding, hint) =
            (said.unwrap_or(&error_text).to_owned(), error.hint().map(Cow::into_owned));
        let subject = subject.into();
        let severity = Some(error.severity());
        self.all.push(Finding { grade: Grade::Bad, subject, finding, hint, severity });
    }
}

impl CheckArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self.via.function() {
            Some(function) => remote::ask(global, &function, Remote::Check(self)).await,
            None => self.run_here(global).await,
        }
    }

    /// Runs the command in this process.
    pub(super) async fn run_here(self, global: &Global) -> Result<(), Failure> {
        let mut findings = Findings::default();
        let (worker, has_region) = worker(global, &mut findings).await?;
        let chosen = rollups(&worker, self.rollup.as_deref())?;
        let mut reached = match worker.app {
            Some(_) => app::inspect(&worker, &mut findings).await,
            None => source(&worker, &mut findings).await?,
        };
        let mut has_target = reached;
        if !worker.target.is_source || worker.app.is_some() {
            let looked = server(&alone(&worker, Side::Target)?, true, &mut findings).await;
            has_target = looked.is_ok();
            reached &= has_target;
            if let Err(error) = looked {
                findings.trouble("target", &error.into());
            }
        }
        let is_told = worker.checkpoints.is_in_target() && !has_target;
        if is_told {
            let finding = "not looked at, as the database that holds them cannot be asked";
            findings.add(Grade::Note, "checkpoints", finding);
        }
        let has_store = !is_told && has_region && checkpoints(&worker, &mut findings).await;
        for chosen in chosen.into_iter().filter(|_| reached) {
            match rollup(&worker, chosen, &mut findings).await {
                Ok(()) => {}
                // Already reported as the problem of the checkpoints.
                Err(WorkError::Checkpoint(_)) if !has_store => {}
                Err(error) => findings.trouble(&chosen.name, &error),
            }
        }
        if reached && let Err(error) = readers(&worker, &mut findings).await {
            findings.trouble("target", &error);
        }
        if !reached {
            let finding = "not looked at, as a server of theirs cannot be asked";
            findings.add(Grade::Note, "rollups", finding);
        }
        if self.notify {
            notify::inspect(&worker, &mut findings).await;
        }
        let findings = findings.all;
        global.print(&json!({ "findings": findings }), || text(&findings));
        let bad = findings.iter().filter(|finding| finding.grade == Grade::Bad);
        let worst = bad.clone().filter_map(|finding| finding.severity).max_by_key(|it| *it as u8);
        match worst {
            None if findings.iter().any(|finding| finding.grade == Grade::ToDo) => {
                ui::note("to do: run `tallymark init`");
                Ok(())
            }
            None => Ok(()),
            Some(severity) => Err(Failure::printed(
                severity,
                Fault::new(format!("{} to put right", ui::counted(bad.count(), "finding")))
                    .remedy("follow the hints above, and run `tallymark check` again"),
            )),
        }
    }
}

/// A worker, and whether AWS has a region. Checks that need no region run in any case.
async fn worker(global: &Global, findings: &mut Findings) -> Result<(Worker, bool), Failure> {
    let config = global.config()?;
    let store = store_db(&config, 1).map_err(WorkError::from)?.at_once();
    let (checkpoints, has_region) = match Checkpoints::connect(&config.checkpoint, store).await {
        Ok(checkpoints) => (checkpoints, true),
        Err(error) => {
            findings.trouble("checkpoints", &error.into());
            let CheckpointConfig { table, failures_max, .. } = &config.checkpoint;
            (Checkpoints::nowhere(table, *failures_max), false)
        }
    };
    let worker = Worker::with_checkpoints(config, checkpoints, Arc::new(SystemClock), 1)?;
    Ok((worker.interrupted_by(global.interrupt.clone()), has_region))
}

/// Checks the source. `false`: it cannot be read, which is one finding.
async fn source(worker: &Worker, findings: &mut Findings) -> Result<bool, Failure> {
    let looked = server(&alone(worker, Side::Source)?, worker.target.is_source, findings).await;
    if let Err(error) = looked {
        findings.trouble("source", &error.into());
        return Ok(false);
    }
    if let Err(error) = load(worker, findings).await {
        findings.trouble("source", &error.into());
    }
    pace(worker, findings).await;
    if let Err(error) = naps(worker, findings).await {
        findings.trouble("source", &error.into());
    }
    Ok(true)
}

/// Checks whether the configured readers can read.
async fn readers(worker: &Worker, findings: &mut Findings) -> Result<(), WorkError> {
    let configured = &worker.config.target.readers;
    if configured.is_empty() {
        return Ok(());
    }
    let (db, rollups) = (&worker.target.db, &worker.config.rollups);
    let mut tx = db.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "check").await?;
    match readers::grants(&mut tx, &worker.target, configured, rollups).await {
        Ok(missing) if missing.is_empty() => {
            let finding = format!("{} can read the rollup tables", configured.join(", "));
            findings.add(Grade::Good, "target", finding);
        }
        Ok(missing) => {
            let missing = ui::counted(missing.len(), "grant");
            let finding = Fault::new(format!("readers lack {missing}"));
            findings.add(Grade::ToDo, "target", finding.remedy("run `tallymark init`"));
        }
        Err(CatalogueError::Unfit(unknown)) => findings.add(Grade::Bad, "target", unknown),
        Err(CatalogueError::Db(error)) => return Err(error.into()),
    }
    Ok(tx.rollback().await?)
}

/// Checks the checkpoints' table. `false`: there is no readable one.
async fn checkpoints(worker: &Worker, findings: &mut Findings) -> bool {
    const SUBJECT: &str = "checkpoints";
    match worker.checkpoints.describe().await {
        Ok(summary) => {
            let mut finding = format!("table {} is {}", worker.checkpoints.table(), summary.status);
            finding
                .extend(worker.config.checkpoint.name_origin().map(|origin| format!(", {origin}")));
            findings.add(Grade::Good, SUBJECT, finding);
            return true;
        }
        // A step that is still to do, and no failure.
        Err(CheckpointError::Store(StoreError::NoTable { table })) => {
            let origin = worker.config.checkpoint.name_origin();
            let origin = origin.map_or_else(String::new, |origin| format!(", {origin}"));
            let finding = Fault::new(format!("table {table} is not there yet{origin}"));
            findings.add(Grade::ToDo, SUBJECT, finding.remedy("run `tallymark init`"));
        }
        Err(error) => findings.trouble(SUBJECT, &error.into()),
    }
    false
}

fn text(findings: &[Finding]) -> String {
    findings
        .iter()
        .map(|finding| {
            let mark = match finding.grade {
                Grade::Good => ui::paint(Paint::Green, "ok  "),
                Grade::Note => ui::paint(Paint::Yellow, "note"),
                Grade::ToDo => ui::paint(Paint::Yellow, "todo"),
                Grade::Bad => ui::paint(Paint::Alarm, "bad "),
            };
            let line = ui::wrapped(&format!("{mark}  {}: {}", finding.subject, finding.finding), 6);
            match &finding.hint {
                Some(hint) => format!("{line}\n{}", ui::below(hint, 6)),
                None => line,
            }
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_rollups_share_are_counted_once() {
        let mut findings = Findings::default();
        let mut counted = |statements: &[&str]| {
            findings.plan(statements.iter().map(|it| (*it).to_owned()).collect())
        };
        assert_eq!(counted(&["CREATE SCHEMA tallymark", "CREATE TABLE stats.daily"]), 2);
        assert_eq!(counted(&["CREATE SCHEMA tallymark", "CREATE TABLE stats.weekly"]), 1);
        assert_eq!(counted(&["CREATE SCHEMA tallymark"]), 0);
    }
}
