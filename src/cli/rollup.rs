use clap::Subcommand;
use serde_json::json;

use super::{Failure, Global, ui};
use crate::manage::drop_rollup::drop_rollup;
use crate::manage::holdings::{Holdings, holdings};
use crate::manage::rename_rollup::rename_rollup;
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::model::visible;
use crate::work::identity;
use crate::work::worker::Worker;

/// Rename or drop a rollup.
#[derive(Debug, Subcommand)]
pub(crate) enum RollupCommand {
    /// Rename tables, markers and checkpoints to the configuration's present name
    Rename {
        /// The previous name
        old: String,
        /// The name in the configuration
        new: String,
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
    },
    /// Drop the tables, markers and checkpoints of a rollup
    Drop {
        /// The rollup, in the configuration or not
        name: String,
        /// Do not ask for confirmation
        #[arg(long, short)]
        yes: bool,
    },
}

impl RollupCommand {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Rename { old, new, yes } => rename(global, &old, &new, yes).await,
            Self::Drop { name, yes } => drop(global, &name, yes).await,
        }
    }
}

async fn rename(global: &Global, old: &str, new: &str, yes: bool) -> Result<(), Failure> {
    let worker = global.worker(1).await?;
    worker.rollup(new).map_err(|error| {
        let file = global.file.display();
        let hint = format!("write the new name into {file} first, name = {new:?}");
        Failure::usage(Fault::new(error.to_string()).remedy(hint))
    })?;
    if worker.rollup(old).is_ok() {
        let file = global.file.display();
        let fault = Fault::new(format!("{file} has both `{old}` and `{new}`"));
        return Err(Failure::usage(fault.remedy("rename one into the other there first")));
    }
    identity::refuse_anothers(&worker, old).await?;
    identity::refuse_anothers(&worker, new).await?;
    let (from, to) = (holdings(&worker, old).await?, holdings(&worker, new).await?);
    if from.is_nothing() && to.is_nothing() {
        return Err(Failure::usage(
            Fault::new(format!("there is nothing of a rollup `{old}`"))
                .remedy("run `tallymark status`, which names the rollups"),
        ));
    }
    global.announce(format!(
        "rename of {} to {new}\n{}",
        visible::line(old),
        described(&worker, &from)
    ));
    if from.is_nothing() {
        global.announce("  it has that name already");
    } else {
        ui::confirm("Rename it?", yes)?;
        rename_rollup(&worker, old, new).await?;
    }
    let document = json!({ "action": "rename", "to": new, "holdings": from });
    global.print(&document, || format!("{} is called {new} now", visible::line(old)));
    Ok(())
}

async fn drop(global: &Global, name: &str, yes: bool) -> Result<(), Failure> {
    let worker = global.worker(1).await?;
    let of_this = |coarse: &&Rollup| coarse.finer.as_ref().is_some_and(|finer| finer.name == name);
    if let Some(coarse) = worker.config.rollups.iter().find(of_this) {
        let (file, coarse) = (global.file.display(), &coarse.name);
        let fault = Fault::new(format!("rollup `{coarse}` is computed from `{name}`"));
        return Err(Failure::usage(fault.remedy(format!(
            "remove `{coarse}` from {file} first, and drop it too if its numbers are not to stay as \
             they are"
        ))));
    }
    identity::refuse_anothers(&worker, name).await?;
    let holdings = holdings(&worker, name).await?;
    let shown = visible::line(name);
    global.announce(format!("drop of {shown}\n{}", described(&worker, &holdings)));
    if !holdings.is_nothing() {
        ui::confirm("Drop all of it, for good?", yes)?;
        drop_rollup(&worker, name).await?;
    }
    let document = json!({ "action": "drop", "to": null, "holdings": holdings });
    global.print(&document, || {
        let mut text = match holdings.is_nothing() {
            true => format!("there is nothing of a rollup {shown}"),
            false => format!("{shown} is gone"),
        };
        if worker.rollup(name).is_ok() {
            let file = global.file.display();
            text.push_str(&format!(
                "\nit is still in {file}: `tallymark init` would create it again, empty"
            ));
        }
        text
    });
    Ok(())
}

fn described(worker: &Worker, holdings: &Holdings) -> String {
    let count =
        |many: u64, noun: &str| ui::counted(usize::try_from(many).unwrap_or(usize::MAX), noun);
    format!(
        "  {}\n  {}\n  {} in {}",
        match &holdings.table {
            Some(table) => format!("the table {table}"),
            None => "no table".to_owned(),
        },
        count(holdings.markers, "marker"),
        ui::counted(holdings.checkpoints, "item"),
        if worker.checkpoints.is_in_target() { worker.checkpoints.table() } else { "DynamoDB" },
    )
}
