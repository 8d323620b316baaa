use chrono::{DateTime, Utc};
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::remote::{self, Remote};
use super::{Failure, Global, Via, excluded, needed, ui};
use crate::check::purgeable::{self, CountedTable, Purgeable};
use crate::model::hint::Fault;
use crate::work::worker::Worker;

/// Show before which instant the source's rows are no longer needed, and seal history there.
#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct PurgeableArgs {
    /// Only this table of the source, or this type of a Bubble app
    table: Option<String>,
    /// Seal the slices before that instant, so that a purge neither changes them nor looks like drift
    #[arg(long)]
    #[serde(default)]
    seal: bool,
    /// Seal only before this instant: a date in the rollup's zone, or an instant
    #[arg(long, value_name = "TIME", requires = "seal")]
    before: Option<String>,
    /// Remove the seal; slices that changed meanwhile become due
    #[arg(long, conflicts_with = "seal", requires = "table")]
    #[serde(default)]
    unseal: bool,
    #[command(flatten)]
    #[serde(skip)]
    via: Via,
}

impl PurgeableArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self.via.function() {
            Some(function) => remote::ask(global, &function, Remote::Purgeable(self)).await,
            None => self.run_here(global).await,
        }
    }

    /// Why the arguments exclude each other, as the parser of the command line says too.
    pub(super) fn refusal(&self) -> Option<Fault> {
        match (self.seal, self.unseal) {
            (true, true) => Some(excluded("seal", "unseal")),
            (false, _) if self.before.is_some() => Some(needed("before", "seal")),
            (_, true) if self.table.is_none() => Some(needed("unseal", "table")),
            _ => None,
        }
    }

    /// Runs the command in this process.
    pub(super) async fn run_here(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let tables = self.tables(&worker)?;
        if self.before.is_some() && tables.len() > 1 {
            return Err(Failure::usage(needed("--before", "a table")));
        }
        let mut found = Vec::new();
        for table in &tables {
            if self.unseal {
                purgeable::unseal(&worker, table).await?;
            } else if self.seal {
                let before = self.before(&worker, table).await?;
                purgeable::seal(&worker, table, before).await?;
            }
            found.push(purgeable::of_table(&worker, table).await?);
        }
        let documents: Vec<_> = found.iter().map(|it| json!(it)).collect();
        global.print(&json!({ "tables": documents }), || {
            found.iter().map(text).collect::<Vec<_>>().join("\n\n")
        });
        Ok(())
    }

    fn tables<'w>(&self, worker: &'w Worker) -> Result<Vec<CountedTable<'w>>, Failure> {
        let mut tables = purgeable::tables(worker);
        let Some(name) = &self.table else { return Ok(tables) };
        let known: Vec<_> = tables.iter().map(|table| table.name.clone()).collect();
        let ends = format!(".{name}");
        tables.retain(|table| table.name == *name || table.name.ends_with(&ends));
        match tables.len() {
            1 => Ok(tables),
            _ => {
                let fault = Fault::new(format!("no rollup counts one table named `{name}`"));
                Err(Failure::usage(fault.remedy(format!("name one of: {}", known.join(", ")))))
            }
        }
    }

    /// The instant to seal before.
    async fn before(
        &self,
        worker: &Worker,
        table: &CountedTable<'_>,
    ) -> Result<DateTime<Utc>, Failure> {
        match (&self.before, table.rollups.first()) {
            (Some(text), Some(rollup)) => rollup
                .calendar
                .instant(text)
                .map_err(|error| Failure::usage(Fault::of(&error).at("--before"))),
            _ => Ok(purgeable::of_table(worker, table).await?.before),
        }
    }
}

fn text(found: &Purgeable) -> String {
    let Purgeable { table, before, sealed_before, rollups } = found;
    let mut lines =
        vec![format!("{table}: rows before {} are no longer needed", ui::instant(*before))];
    lines.extend(rollups.iter().map(|it| {
        let from = ui::instant(it.before);
        format!("  {} needs rows from {from} on: that slice is {}", it.rollup, said(it.why))
    }));
    lines.push(match sealed_before {
        Some(seal) if seal >= before => format!("  sealed before {}", ui::instant(*seal)),
        Some(seal) => format!(
            "  sealed before {}; before you purge later rows, run `tallymark purgeable {table} --seal`",
            ui::instant(*seal)
        ),
        None => {
            format!("  not sealed; before you purge, run `tallymark purgeable {table} --seal`")
        }
    });
    lines.join("\n")
}

/// A reason in the words of a sentence about a slice.
fn said(why: &str) -> &str {
    match why {
        "not ended" => "still going on",
        "late change" => "to be computed again for a late change",
        "lookback" => "computed again for late rows",
        "drift" => "different from the source",
        "backfill" => "part of a backfill under way",
        "lease over" => "left by a worker that ended",
        "redefined" => "computed by an earlier definition",
        "other calendar" => "computed by an earlier calendar",
        "waiting" => "waiting for its next try",
        other => other,
    }
}
