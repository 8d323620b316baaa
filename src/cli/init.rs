use std::collections::{HashMap, HashSet};
use std::time::Duration;

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::outside::{self, RowsOutside};
use super::remote::{self, Remote};
use super::{Failure, Global, Via, excluded, ui};
use crate::checkpoint::store::StoreError;
use crate::checkpoint::{CheckpointError, Created, Watermark};
use crate::clients::db::{Access, CATALOGUE_TIMEOUT};
use crate::model::hint::{Fault, Hinted as _};
use crate::model::rollup::{Late, Rollup};
use crate::model::sql::ident;
use crate::source;
use crate::target::ddl::{self, SharedObjects};
use crate::target::{beside, partitions, readers};
use crate::work::due::Planned;
use crate::work::standings::{self, Standings};
use crate::work::survey::BLOCK;
use crate::work::worker::{WorkError, Worker};
use crate::work::{identity, ready, things};

/// Building an index of a large table takes long.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60 * 60);

/// Create the checkpoint table, the schemas and the rollup tables.
#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct InitArgs {
    /// Print the statements, but run none
    #[arg(long)]
    #[serde(default)]
    dry_run: bool,
    /// Delete rows outside of every slice: before `start`, or of another calendar
    #[arg(long, conflicts_with = "dry_run")]
    #[serde(default)]
    delete_outside: bool,
    #[command(flatten)]
    #[serde(skip)]
    via: Via,
}

/// The work that a rollup's calendar requires.
#[derive(Debug, Default, serde::Serialize)]
struct Recut {
    rollup: String,
    /// The previous calendar, if it was another one.
    before: Option<String>,
    calendar: String,
    /// Slices to compute because the calendar or `start` has changed.
    slices: usize,
    /// Rows outside of every slice.
    outside: Option<RowsOutside>,
    /// The number of those that were deleted.
    deleted: u64,
}

impl InitArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self.via.function() {
            Some(function) => remote::ask(global, &function, Remote::Init(self)).await,
            None => self.run_here(global).await,
        }
    }

    /// Runs the command in this process.
    pub(super) async fn run_here(self, global: &Global) -> Result<(), Failure> {
        let worker = global.worker(1).await?;
        let table = worker.checkpoints.table().to_owned();
        let created = if self.dry_run {
            None
        } else {
            let created = worker.checkpoints.create_table().await.map_err(WorkError::from)?;
            identity::refuse_strangers(&worker, &watermarks(&worker).await?).await?;
            Some(created)
        };
        let mut statements = self.tables(&worker).await?;
        if self.dry_run {
            statements.extend(missing_table(&worker).await?);
        } else {
            ask_app(&worker).await?;
        }
        let to_repair = if self.dry_run { Vec::new() } else { to_repair(&worker).await? };
        let checkpoints = match created {
            None => "not asked",
            Some(Created::Created) => "created",
            Some(Created::AlreadyThere) => "already there",
        };
        // Until a repair, the contents of the checkpoints are unreliable.
        let is_silent = self.dry_run || !to_repair.is_empty();
        let redefined = if is_silent { Vec::new() } else { redefined(&worker).await? };
        let recut = if is_silent { Vec::new() } else { self.recut(&worker).await? };
        let made = made(&worker, &statements);
        let next = if is_silent { Vec::new() } else { next(&worker, &made).await? };
        let document = json!({
            "dry_run": self.dry_run,
            "redefined": redefined
                .iter()
                .map(|(rollup, slices)| json!({ "rollup": rollup, "slices": slices }))
                .collect::<Vec<_>>(),
            "calendars": recut,
            "repair": to_repair
                .iter()
                .map(|(rollup, reason)| json!({ "rollup": rollup, "reason": reason }))
                .collect::<Vec<_>>(),
            "checkpoint_table": { "name": table, "state": checkpoints },
            "statements": statements,
            "tables": made,
            "next": next,
        });
        if self.dry_run {
            global.print_script(&document, || dry_text(&worker, &statements));
            return Ok(());
        }
        global.print(&document, || {
            let tables = match statements.len() {
                0 => "rollup tables: all there".to_owned(),
                done => format!("rollup tables: {} run", ui::counted(done, "statement")),
            };
            let mut text = format!("checkpoint table {table}: {checkpoints}\n{tables}");
            if !made.is_empty() {
                let line = format!("tables made: {}", made.join(", "));
                text.push_str(&format!("\n{}", ui::wrapped(&line, 2)));
            }
            text.extend(to_repair.iter().map(|(rollup, reason)| unrepaired(rollup, reason)));
            text.extend(no_readers(&worker).filter(|_| !statements.is_empty()));
            text.extend(redefined.iter().map(|(rollup, slices)| old(rollup, *slices)));
            let recut = recut.iter().flat_map(Recut::lines);
            text.extend(recut.map(|line| format!("\n{}", ui::wrapped(&line, 2))));
            let next = next.iter().map(|it| format!("`{it}`")).collect::<Vec<_>>().join(", then ");
            text.extend((!next.is_empty()).then(|| format!("\nnext: {next}")));
            text
        });
        Ok(())
    }

    /// Why the arguments exclude each other.
    pub(super) fn refusal(&self) -> Option<Fault> {
        let is_both = self.dry_run && self.delete_outside;
        is_both.then(|| excluded("dry_run", "delete_outside"))
    }

    /// Adopts the calendars and starts of the configuration, and returns the work that this
    /// requires.
    async fn recut(&self, worker: &Worker) -> Result<Vec<Recut>, WorkError> {
        let mut told = Vec::new();
        let mut before = watermarks(worker).await?;
        for rollup in &worker.config.rollups {
            let before = before.remove(&rollup.name).unwrap_or_default();
            ready::prepare(worker, rollup).await?;
            // It has just been read, and written where it was another.
            let generation = match worker.generations.of(rollup) {
                Some(generation) => generation,
                None => ready::watermark(worker, rollup).await?.generation(),
            };
            let is_recut = before.generation() != generation;
            let moved_back = before.start().is_some_and(|start| rollup.start < start);
            let mut recut = Recut {
                rollup: rollup.name.clone(),
                before: before.calendar().filter(|_| is_recut).map(str::to_owned),
                calendar: rollup.calendar_words(),
                ..Recut::default()
            };
            if is_recut || moved_back {
                let plan = standings::of(worker, rollup, worker.clock.now()).await?.plan;
                let is_left = |planned: &&Planned| !planned.standing.is_done();
                recut.slices = plan.slices.iter().filter(is_left).count();
            }
            if self.delete_outside {
                recut.deleted = worker.target.delete_outside(rollup, generation).await?;
            }
            recut.outside = outside::find_beside(worker, rollup, generation).await?;
            if recut.slices + usize::from(recut.outside.is_some()) > 0 || recut.deleted > 0 {
                told.push(recut);
            }
        }
        Ok(told)
    }

    /// Runs the missing statements, rollup by rollup, each in one transaction.
    async fn tables(&self, worker: &Worker) -> Result<Vec<String>, WorkError> {
        let (mut done, mut known) = (Vec::new(), HashSet::new());
        let mut shared = SharedObjects::Unknown;
        let mut rollups: Vec<_> = worker.config.rollups.iter().collect();
        // Finer rollups first, as coarse ones are computed from their tables.
        rollups.sort_by_key(|rollup| rollup.depth());
        for rollup in rollups {
            let shape = ready::shape(worker, rollup).await?;
            source::prove(worker.servers(), rollup).await?;
            let mut tx =
                worker.target.db.begin(Access::ReadWrite, STATEMENT_TIMEOUT, &rollup.name).await?;
            let target = &worker.target;
            let mut statements = ddl::plan_further(&mut tx, target, rollup, &shape, shared).await?;
            let ahead = partitions::plan(&mut tx, target, rollup, worker.clock.now()).await?;
            statements.extend(ahead);
            statements.extend(beside::plan(&mut tx, &worker.target, rollup, &shape).await?);
            ddl::refuse_doubled(&mut tx, &worker.target, rollup, &shape).await?;
            for statement in statements {
                // In a dry run, the next rollup finds the shared tables missing again.
                if !known.insert(statement.clone()) {
                    continue;
                }
                if !self.dry_run {
                    tx.execute("creating the tables", statement.clone()).await?;
                }
                done.push(statement);
            }
            tx.commit().await?;
            shared = SharedObjects::Planned;
        }
        done.extend(self.readers(worker).await?);
        Ok(done)
    }

    /// Lets the configured readers read every rollup table, including new ones.
    async fn readers(&self, worker: &Worker) -> Result<Vec<String>, WorkError> {
        let readers = &worker.config.target.readers;
        if readers.is_empty() {
            return Ok(Vec::new());
        }
        let (db, target) = (&worker.target.db, &worker.target);
        let mut tx = db.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, "init").await?;
        let rollups = &worker.config.rollups;
        let grants = readers::grants(&mut tx, target, readers, rollups).await?;
        if !self.dry_run {
            for grant in &grants {
                tx.execute("granting the readers their rights", grant.clone()).await?;
            }
        }
        tx.commit().await?;
        Ok(grants)
    }
}

impl Recut {
    fn lines(&self) -> Vec<String> {
        let Self { rollup, calendar, .. } = self;
        let slices = ui::counted(self.slices, "slice");
        let mut lines = Vec::new();
        match &self.before {
            Some(before) => lines.push(format!(
                "{rollup}: the calendar has changed from {before} to {calendar}: {slices} to compute; \
                 each takes away what the old calendar left in its time"
            )),
            None if self.slices > 0 => {
                lines.push(format!("{rollup}: `start` was moved back: {slices} to compute"));
            }
            None => {}
        }
        if self.deleted > 0 {
            let rows = ui::counted(usize::try_from(self.deleted).unwrap_or(usize::MAX), "row");
            lines.push(format!("{rollup}: {rows} deleted that belonged to no slice"));
        }
        lines.extend(self.outside.iter().map(|outside| format!("{rollup}: {}", outside.text())));
        lines
    }
}

/// Proves that the app still is as the mirrors expect it. An app that cannot answer now is told, and
/// its tables are made all the same.
async fn ask_app(worker: &Worker) -> Result<(), WorkError> {
    for rollup in &worker.config.rollups {
        let proved = match things::prove_answers(worker, rollup).await {
            Ok(()) => things::prove_hidden_fields(worker, rollup).await,
            refused => refused,
        };
        match proved {
            Err(WorkError::NotNow(not_now)) => {
                let why = not_now.in_one_line();
                ui::note(format!("mirror `{}`: the app was not asked: {why}", rollup.name));
            }
            answered => answered?,
        }
    }
    Ok(())
}

/// The rollup tables that these statements create.
fn made(worker: &Worker, statements: &[String]) -> Vec<String> {
    let begin = format!("CREATE TABLE {}.", ident(&worker.target.schema));
    let table = |sql: &'_ String| Some(sql.strip_prefix(&begin)?.split_once(' ')?.0.to_owned());
    let tables: HashSet<String> = statements.iter().filter_map(table).collect();
    let creates = |rollup: &&Rollup| tables.contains(&ident(&rollup.name));
    let name = |rollup: &Rollup| format!("{}.{}", worker.target.schema, rollup.name);
    worker.config.rollups.iter().filter(creates).map(name).collect()
}

/// The watermarks of all rollups.
async fn watermarks(worker: &Worker) -> Result<HashMap<String, Watermark>, WorkError> {
    let names: Vec<&str> = worker.config.rollups.iter().map(|rollup| &*rollup.name).collect();
    let mut found = HashMap::new();
    for block in names.chunks(BLOCK) {
        let mut seen = worker.checkpoints.watermarks(block).await?;
        for name in block {
            let seen = match seen.remove(*name) {
                Some(seen) => seen,
                // It cannot be understood, and its own read says why.
                None => worker.checkpoints.watermark(name).await?,
            };
            found.insert((*name).to_owned(), seen);
        }
    }
    Ok(found)
}

/// The commands that lead on. None: ticks compute the little that is left.
async fn next(worker: &Worker, made: &[String]) -> Result<Vec<String>, WorkError> {
    let rollups = &worker.config.rollups;
    let mut is_first = !made.is_empty();
    if !is_first {
        is_first = watermarks(worker).await?.values().any(|seen| seen.until().is_none());
    }
    if !is_first {
        return Ok(Vec::new());
    }
    let is_captured = |rollup: &Rollup| rollup.late == Late::Capture && rollup.depth() == 0;
    let capture = rollups.iter().any(is_captured).then(|| "tallymark capture install".to_owned());
    let backfill = match &**rollups {
        [only] => format!("tallymark backfill {}", only.name),
        _ => "tallymark backfill --all".to_owned(),
    };
    Ok(capture.into_iter().chain(Some(backfill)).collect())
}

/// The statements that `init` would run.
fn dry_text(worker: &Worker, statements: &[String]) -> String {
    let mut lines = ui::script(statements);
    if !worker.checkpoints.is_in_target() {
        lines.push("-- DynamoDB, where the table is not there yet:".into());
        lines.push(format!("-- {}", worker.checkpoints.create_table_command()));
    }
    lines.join("\n")
}

/// Says that the checkpoints of a rollup contradict its tables.
fn unrepaired(rollup: &str, reason: &str) -> String {
    let line = format!("{rollup}: {reason}; run `tallymark repair {rollup}` next");
    format!("\n{}", ui::wrapped(&line, 2))
}

/// The SQL for a checkpoint table in the target that is missing.
async fn missing_table(worker: &Worker) -> Result<Option<String>, WorkError> {
    if !worker.checkpoints.is_in_target() {
        return Ok(None);
    }
    match worker.checkpoints.describe().await {
        Ok(_) => Ok(None),
        Err(CheckpointError::Store(StoreError::NoTable { .. })) => {
            Ok(Some(worker.checkpoints.create_table_command()))
        }
        Err(error) => Err(error.into()),
    }
}

/// The rollups whose checkpoints contradict the tables, with the reasons.
async fn to_repair(worker: &Worker) -> Result<Vec<(String, String)>, WorkError> {
    let mut found = Vec::new();
    for rollup in &worker.config.rollups {
        let reason = identity::identify_at_init(worker, rollup).await?;
        found.extend(reason.map(|reason| (rollup.name.clone(), reason)));
    }
    Ok(found)
}

/// The rights that a reader would need, if none is configured.
fn no_readers(worker: &Worker) -> Option<String> {
    let schema = &worker.target.schema;
    let line = format!(
        "readers: none; [target] readers = [\"ROLE\"] lets a role read the tables in schema {schema}"
    );
    let is_open = worker.config.target.readers.is_empty();
    is_open.then(|| format!("\n{}", ui::wrapped(&line, 2)))
}

/// Explains what happens to slices of another definition.
fn old(rollup: &str, slices: usize) -> String {
    format!(
        "\n{rollup}: {} of an old definition; each tick recomputes some, behind all else\n  \
         (to do it now: tallymark backfill {rollup})",
        ui::counted(slices, "slice")
    )
}

/// The rollups with slices of another definition, and the numbers of these.
async fn redefined(worker: &Worker) -> Result<Vec<(String, usize)>, WorkError> {
    let mut found = Vec::new();
    let rollups: Vec<&Rollup> = worker.config.rollups.iter().collect();
    let note = |rollup: &Rollup, standings: Standings| {
        let old = standings.plan.redefined().count();
        found.extend((old > 0).then(|| (rollup.name.clone(), old)));
    };
    standings::of_each(worker, &rollups, worker.clock.now(), note).await?;
    Ok(found)
}
