use std::ops::ControlFlow;
use std::sync::Mutex;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::json;

use super::ui::{counted, number};
use super::{Failure, Global, ui};
use crate::checkpoint::{Checkpoints, CopyStanding, StoreCopy};
use crate::config::StoreKind;
use crate::manage::copy_checkpoints::{self, CONNECTIONS, Copied, RollupCopy};
use crate::model::clock::Stopwatch;
use crate::model::hint::Fault;
use crate::work::worker::Worker;

/// Shortest time between two lines of progress.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Copy the checkpoints into the other store.
#[derive(Debug, Subcommand)]
pub enum CheckpointsCommand {
    /// Copy all checkpoints into the other store, which then takes the place of this one
    Copy(Copy),
}

/// Copy all checkpoints into the other store, which then takes the place of this one.
///
/// The configuration file names the present store. End all workers first: a lease that holds is a
/// refusal. Afterwards every command with the old setting is refused, with the new one. Workers may
/// start again once the file names the new store. A copy that was killed can be run again, and the
/// way back is the same command from the new store.
#[derive(Debug, Args)]
pub struct Copy {
    /// The other store
    #[arg(long, value_name = "STORE")]
    to: Word,
    /// The table in DynamoDB, for `--to dynamodb` [default: tallymark]
    #[arg(long, value_name = "NAME")]
    table: Option<String>,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Word {
    Dynamodb,
    Postgres,
}

impl CheckpointsCommand {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Copy(copy) => copy.run(global).await,
        }
    }
}

impl Copy {
    async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(CONNECTIONS).await?;
        let to = self.destination(&worker, global).await?;
        let told = Mutex::new(Stopwatch::start());
        let listener = |rollup: &str, items: u64| {
            tell(&told, rollup, items);
            match global.interrupt.is_raised() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        };
        let copy = StoreCopy::new(&worker.checkpoints, &to, &*worker.clock, &listener);
        let planned = copy_checkpoints::plan(&worker, &copy).await?;
        if planned.iter().any(|it| it.standing != CopyStanding::Done) {
            global.announce(announcement(&worker, &to, &planned));
            ui::confirm("Copy them?", self.yes)?;
            copy_checkpoints::prepare(&to).await?;
        }
        let copied = copy_checkpoints::run(&copy, &planned).await?;
        let setting = to.setting();
        let store = |store: &Checkpoints| {
            let kind = match store.is_in_target() {
                true => StoreKind::Postgres,
                false => StoreKind::DynamoDb,
            };
            json!({ "store": kind.word(), "table": store.table() })
        };
        let document = json!({
            "from": store(&worker.checkpoints),
            "to": store(&to),
            "rollups": copied,
            "setting": setting,
        });
        global.print(&document, || {
            let mut lines: Vec<_> = copied.iter().map(line).collect();
            lines.push(ui::wrapped(&next(global, &to), 0));
            lines.join("\n")
        });
        to.close().await;
        worker.close().await;
        Ok(())
    }

    /// The store to copy into.
    async fn destination(&self, worker: &Worker, global: &Global) -> Result<Checkpoints, Failure> {
        let settings = &worker.config.checkpoint;
        let kind = match self.to {
            Word::Dynamodb => StoreKind::DynamoDb,
            Word::Postgres => StoreKind::Postgres,
        };
        if kind == settings.store {
            let fault = Fault::new(format!(
                "--to {}: {} has store = \"{}\" in [checkpoint] already",
                kind.word(),
                global.file.display(),
                kind.word()
            ));
            return Err(Failure::usage(fault.remedy("name the other store with --to")));
        }
        copy_checkpoints::store(&worker.config, kind, self.table.as_deref())
            .await
            .map_err(Failure::from)
    }
}

/// Announces what happens.
fn announcement(worker: &Worker, to: &Checkpoints, planned: &[RollupCopy<'_>]) -> String {
    let names: Vec<_> = planned.iter().map(|it| it.rollup).collect();
    let text = format!(
        "{}: the checkpoints are copied from {} to {}; from then on commands and workers that still \
         use the old setting are refused",
        names.join(", "),
        worker.checkpoints.place(),
        to.place(),
    );
    ui::wrapped(&text, 0)
}

fn line(copied: &Copied) -> String {
    match (copied.slices, copied.other_items) {
        (Some(slices), Some(others)) => {
            let count = |many: u64| usize::try_from(many).unwrap_or(usize::MAX);
            let slices = counted(count(slices), "slice");
            format!(
                "{}: {slices} and {} copied",
                copied.rollup,
                counted(count(others), "other item")
            )
        }
        _ => format!("{}: copied before", copied.rollup),
    }
}

/// The step that is left to the operator.
fn next(global: &Global, to: &Checkpoints) -> String {
    let without = if to.is_in_target() { ", without `table`" } else { "" };
    format!(
        "next: in {}, set {} in [checkpoint]{without}; then start the workers again with that file",
        global.file.display(),
        to.setting(),
    )
}

/// Prints from time to time how many items are compared.
fn tell(told: &Mutex<Stopwatch>, rollup: &str, items: u64) {
    let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if told.elapsed() >= LINE_EVERY {
        *told = Stopwatch::start();
        ui::note(format!("{rollup}: {} items so far", number(items)));
    }
}
