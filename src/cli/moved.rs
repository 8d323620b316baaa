use clap::Args;
use serde_json::json;

use super::{Failure, Global, rollups, ui};
use crate::model::rollup::Rollup;
use crate::work::identity::{self, Move};

/// Record a new address of source or target.
///
/// An installation is known by the addresses of its source and target. After a failover to another
/// host, a restore elsewhere or a rename of the host, every command refuses to work. Run this to
/// confirm that the databases at the configured addresses belong to the installation.
#[derive(Debug, Args)]
pub(crate) struct MovedArgs {
    /// Only this rollup
    rollup: Option<String>,
    /// The old addresses stay in use: a pooler, or a second name of the same server
    #[arg(long, conflicts_with = "copy")]
    also: bool,
    /// The target is a copy of another installation's target, and becomes an installation of its
    /// own
    #[arg(long)]
    copy: bool,
    /// Do not ask for confirmation
    #[arg(short, long)]
    yes: bool,
}

impl MovedArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let chosen = rollups(&worker, self.rollup.as_deref())?;
        global.announce(self.announcement(&chosen, worker.checkpoints.table()));
        ui::confirm("Record it?", self.yes)?;
        let how = match (self.also, self.copy) {
            (true, _) => Move::Also,
            (_, true) => Move::Copy,
            _ => Move::Replace,
        };
        let mut moved = Vec::new();
        for rollup in chosen {
            moved.push(identity::moved(&worker, rollup, how).await?);
        }
        global.print(&json!({ "rollups": moved }), || {
            moved
                .iter()
                .map(|moved| {
                    let next = match moved.needs_repair {
                        true => {
                            "; its tables are not those of its checkpoints: run `tallymark \
                                 repair` next"
                        }
                        false => "",
                    };
                    let installation = &moved.installation;
                    ui::wrapped(
                        &format!("{}: kept by installation {installation}{next}", moved.rollup),
                        2,
                    )
                })
                .collect::<Vec<_>>()
                .join("\n")
        });
        Ok(())
    }

    /// Announces the record to be made.
    fn announcement(&self, rollups: &[&Rollup], table: &str) -> String {
        let names: Vec<_> = rollups.iter().map(|rollup| rollup.name.as_str()).collect();
        let names = names.join(", ");
        let text = match (self.also, self.copy) {
            (true, _) => format!(
                "{names}: the configured source and target become further addresses of the same \
                 databases; the old addresses stay valid"
            ),
            (_, true) => format!(
                "{names}: the configured target becomes an installation of its own, with \
                 checkpoints in {table}; the original is left as it is"
            ),
            _ => format!(
                "{names}: the configured source and target take the place of the known ones, with \
                 checkpoints in {table}; workers that still use an old address will be refused"
            ),
        };
        ui::wrapped(&text, 0)
    }
}
