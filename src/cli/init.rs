use clap::Args;
use serde_json::json;

use super::{Failure, Global, ui};
use crate::checkpoint::Created;
use crate::db::Access;
use crate::target::ddl;
use crate::worker::{CATALOGUE_TIMEOUT, WorkError, Worker};

/// Create the checkpoint table, the schemas and the rollup tables.
#[derive(Debug, Args)]
pub struct Init {
    /// Print what would be run, and run nothing
    #[arg(long)]
    dry_run: bool,
}

impl Init {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let statements = self.tables(&worker).await?;
        let table = worker.checkpoints.table().to_owned();
        let created = if self.dry_run {
            None
        } else {
            Some(worker.checkpoints.create_table().await.map_err(WorkError::from)?)
        };
        let checkpoints = match created {
            None => "not asked",
            Some(Created::Created) => "created",
            Some(Created::AlreadyThere) => "already there",
        };
        let redefined = if self.dry_run { Vec::new() } else { redefined(&worker).await? };
        let document = json!({
            "dry_run": self.dry_run,
            "redefined": redefined
                .iter()
                .map(|(rollup, slices)| json!({ "rollup": rollup, "slices": slices }))
                .collect::<Vec<_>>(),
            "checkpoint_table": { "name": table, "state": checkpoints },
            "statements": statements,
        });
        global.print(&document, || {
            if self.dry_run {
                let mut lines = ui::script(&statements);
                lines.push("-- DynamoDB, where the table is not there yet:".into());
                lines.push(format!("-- {}", worker.checkpoints.create_table_command()));
                return lines.join("\n");
            }
            let tables = match statements.len() {
                0 => "rollup tables: all there".to_owned(),
                done => format!("rollup tables: {} run", ui::counted(done, "statement")),
            };
            let mut text = format!("checkpoint table {table}: {checkpoints}\n{tables}");
            for (rollup, slices) in &redefined {
                text.push_str(&format!(
                    "\n{rollup}: {} of an old definition; each tick recomputes some, behind all \
                     else\n  (to do it now: tallymark backfill {rollup})",
                    ui::counted(*slices, "slice")
                ));
            }
            text
        });
        Ok(())
    }

    /// Runs what is missing, rollup by rollup, each in one transaction.
    async fn tables(&self, worker: &Worker) -> Result<Vec<String>, WorkError> {
        let mut done: Vec<String> = Vec::new();
        let mut rollups: Vec<_> = worker.config.rollups.iter().collect();
        // The finer first, whose tables the coarse are computed from.
        rollups.sort_by_key(|rollup| rollup.depth());
        for rollup in rollups {
            let shape = worker.shape(rollup).await?;
            let mut tx =
                worker.target.db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, &rollup.name).await?;
            for statement in ddl::plan(&mut tx, &worker.target, rollup, &shape).await? {
                // Without running them, the next rollup finds the shared tables missing again.
                if done.contains(&statement) {
                    continue;
                }
                if !self.dry_run {
                    tx.execute("creating the tables", statement.clone()).await?;
                }
                done.push(statement);
            }
            tx.commit().await?;
        }
        Ok(done)
    }
}

/// The rollups that hold slices of another definition, and how many.
async fn redefined(worker: &Worker) -> Result<Vec<(String, usize)>, WorkError> {
    let mut found = Vec::new();
    for rollup in &worker.config.rollups {
        let plan = worker.plan(rollup, worker.clock.now()).await?.plan;
        let old = plan.redefined().count();
        if old > 0 {
            found.push((rollup.name.clone(), old));
        }
    }
    Ok(found)
}
