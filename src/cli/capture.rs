use std::collections::BTreeMap;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::Row as _;

use super::remote::{self, Remote};
use super::{Failure, Global, Via, ui};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::store::StoreError;
use crate::clients::address::{Address, DatabaseUrl};
use crate::clients::db::{
    Access, CATALOGUE_TIMEOUT, CatalogueError, Db, DbError, DbErrorKind, Side,
};
use crate::model::hint::Fault;
use crate::model::rollup::{Late, TableName};
use crate::source::changes::capture::{Capture, CaptureState, UsedColumns};
use crate::source::changes::consumers::{self, Consumer};
use crate::source::changes::{lookup_marks, marks};
use crate::work::worker::{Severity, WorkError, Worker};
use crate::work::{consumer, ready};

/// Creating a trigger takes a lock that writers queue behind. A lock that is not free within this
/// time is given up and tried again later.
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);

/// Maximum number of tries.
const LOCK_TRIES_MAX: u32 = 50;

/// Pause between two tries, in which writers have the table to themselves.
const LOCK_PAUSE: Duration = Duration::from_millis(400);

/// Install, remove or show the triggers that mark late changes (late = "capture").
#[derive(Debug, Args)]
pub(crate) struct CaptureArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create the triggers on every source table whose rollups have late = "capture"
    Install(ChangeArgs),
    /// Remove the triggers and their marks
    Remove(ChangeArgs),
    /// Show the state of each captured table, and the consumers that its marks wait for
    Status(CaptureStatusArgs),
    /// Remove a consumer, so that marks stop waiting for it. If it comes back, all of its slices
    /// run again
    Forget {
        /// The consumer's ID, or its rollup, as `capture status` shows them
        consumer: String,
    },
}

#[derive(Debug, Args, Serialize, Deserialize)]
pub(crate) struct CaptureStatusArgs {
    #[command(flatten)]
    #[serde(skip)]
    via: Via,
}

#[derive(Debug, Args)]
struct ChangeArgs {
    /// Print the statements for the table's owner, but run none
    #[arg(long)]
    dry_run: bool,
    /// Environment variable with the address of a role that owns the tables [default: the source's]
    #[arg(long, value_name = "NAME")]
    owner_env: Option<String>,
}

/// The captures of a configuration, and the role that reads the source.
struct Captures {
    captures: Vec<Capture>,
    reader: String,
}

impl CaptureArgs {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        match self.action {
            Action::Status(status) => match status.via.function() {
                Some(function) => {
                    remote::ask(global, &function, Remote::CaptureStatus(status)).await
                }
                None => status.run_here(global).await,
            },
            Action::Forget { consumer } => {
                let (worker, captures) = Captures::configured(global).await?;
                captures.forget(&worker, global, &consumer).await
            }
            Action::Install(change) => {
                let (worker, captures) = Captures::configured(global).await?;
                captures.change(&worker, global, &change, true).await
            }
            Action::Remove(change) => {
                let (worker, captures) = Captures::configured(global).await?;
                captures.change(&worker, global, &change, false).await
            }
        }
    }
}

impl CaptureStatusArgs {
    /// Runs the command in this process.
    pub(super) async fn run_here(self, global: &Global) -> Result<(), Failure> {
        let (worker, captures) = Captures::configured(global).await?;
        captures.status(&worker, global).await
    }
}

impl Captures {
    /// Those of the configuration, and a worker for them.
    async fn configured(global: &Global) -> Result<(Worker, Self), Failure> {
        let worker = global.worker(1).await?;
        let captures = Self::of(&worker).await?;
        Ok((worker, captures))
    }

    async fn of(worker: &Worker) -> Result<Self, Failure> {
        let begin = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "capture");
        let mut ready = Vec::new();
        for rollup in worker.config.rollups.iter().filter(|rollup| rollup.late == Late::Capture) {
            ready.push((rollup, ready::shape(worker, rollup).await?));
        }
        let mut tables: Vec<&TableName> = Vec::new();
        for (rollup, _) in &ready {
            if !tables.contains(&&rollup.from) {
                tables.push(&rollup.from);
            }
        }
        let captures: Vec<Capture> = tables
            .iter()
            .map(|table| {
                let of_table = ready.iter().filter(|(rollup, _)| rollup.from == **table);
                let of_table: Vec<_> =
                    of_table.map(|(rollup, shape)| (*rollup, &**shape)).collect();
                Capture::new(table, &of_table)
            })
            .collect();
        if captures.is_empty() {
            return Err(Failure::usage(
                Fault::new("no rollup says late = \"capture\"")
                    .remedy("set it in the rollups whose late changes are to be captured"),
            ));
        }
        let mut tx = begin.await.map_err(WorkError::from)?;
        let asked = tx.row("asking for the role", "SELECT current_user::text".into()).await;
        let asked = asked.map_err(WorkError::from)?;
        let reader = asked.try_get(0).map_err(|error| tx.error("asking for the role", error));
        let reader = reader.map_err(WorkError::from)?;
        let mut own = BTreeMap::new();
        for rollup in &worker.config.rollups {
            // Before `init` there are none.
            if let Ok(Some(known)) = worker.checkpoints.consumer(&rollup.name).await {
                own.insert(rollup.name.clone(), known.id);
            }
        }
        let captures = captures.into_iter().map(|it| it.with_consumers(own.clone())).collect();
        Ok(Self { captures, reader })
    }

    async fn status(&self, worker: &Worker, global: &Global) -> Result<(), Failure> {
        let (mut tables, mut lines, mut broken) = (Vec::new(), Vec::new(), 0);
        for capture in &self.captures {
            let CaptureFacts { standing, marks, keys, consumers } =
                standing_of(worker, capture).await.map_err(WorkError::from)?;
            broken += usize::from(!standing.is_whole());
            let table = capture.table.to_string();
            let columns = standing.compared.as_ref().and_then(UsedColumns::names);
            let compared =
                standing.compared.as_ref().map(UsedColumns::in_words).unwrap_or_default();
            lines.push(match (&standing.problem, marks) {
                (Some(problem), _) => ui::hinted(&problem.clone().at(&table), 2),
                (None, marks) => format!(
                    "{table}: every late change of {compared} is marked; {} waiting for the next \
                     tick",
                    ui::counted(usize::try_from(marks.unwrap_or(0)).unwrap_or(0), "mark")
                ),
            });
            if let Some(keys) = keys.filter(|keys| *keys > 0) {
                let keys = ui::counted(usize::try_from(keys).unwrap_or(usize::MAX), "changed key");
                lines.push(format!("  {keys} of lookups waiting for the next tick"));
            }
            lines.extend(consumers.iter().map(in_words));
            let (problem, hint) = standing.problem.map(Fault::into_parts).unzip();
            let hint = hint.flatten();
            let consumers: Vec<_> = consumers.iter().map(document).collect();
            tables.push(json!({
                "table": table, "problem": problem, "hint": hint, "marks": marks,
                "keys": keys, "columns": columns, "consumers": consumers
            }));
        }
        global.print(&json!({ "tables": tables }), || lines.join("\n"));
        if broken == 0 {
            return Ok(());
        }
        let fault =
            Fault::new(format!("late changes of {} are missed", ui::counted(broken, "table")));
        Err(Failure::printed(Severity::Failed, fault.remedy("follow the hints above")))
    }

    /// Removes one consumer of a captured table.
    async fn forget(&self, worker: &Worker, global: &Global, name: &str) -> Result<(), Failure> {
        let mut found = Vec::new();
        for capture in &self.captures {
            let of = standing_of(worker, capture).await.map_err(WorkError::from)?;
            let is_it = |it: &Consumer| it.id.to_string() == name || it.rollup == name;
            found.extend(of.consumers.into_iter().filter(is_it));
        }
        let consumer = match &found[..] {
            [only] => only,
            [] => {
                return Err(Failure::usage(
                    Fault::new(format!("there is no consumer `{name}`"))
                        .remedy("run `tallymark capture status`, which shows them"),
                ));
            }
            several => {
                let ids: Vec<String> = several.iter().map(|it| it.id.to_string()).collect();
                let many = ui::counted(several.len(), "consumer");
                return Err(Failure::usage(
                    Fault::new(format!("{many} are called `{name}`"))
                        .remedy(format!("give the number of one: {}", ids.join(", "))),
                ));
            }
        };
        let begin = worker.source.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, "capture");
        let mut tx = begin.await.map_err(WorkError::from)?;
        consumers::forget(&mut tx, consumer.id).await.map_err(WorkError::from)?;
        tx.commit().await.map_err(WorkError::from)?;
        global.print(&json!({ "forgotten": document(consumer) }), || {
            format!(
                "capture: rollup {} ({}) is forgotten; if it comes back, all of its slices run again",
                consumer.rollup, consumer.installation
            )
        });
        Ok(())
    }

    async fn change(
        &self,
        worker: &Worker,
        global: &Global,
        change: &ChangeArgs,
        install: bool,
    ) -> Result<(), Failure> {
        let owner = change.owner(worker)?;
        let mut statements = Vec::new();
        for capture in &self.captures {
            let run = self.change_one(&owner, capture, change, install).await?;
            statements.extend(run);
        }
        owner.close().await;
        let mut is_late = false;
        if install && !change.dry_run {
            register(worker).await;
            // A store that cannot be asked may have some.
            is_late = has_slices(worker).await.unwrap_or(true);
        }
        let document = json!({ "dry_run": change.dry_run, "statements": statements });
        if change.dry_run && !statements.is_empty() {
            global.print_script(&document, || {
                format!("BEGIN;\n{}\nCOMMIT;", ui::script(&statements).join("\n"))
            });
            return Ok(());
        }
        global.print(&document, || match statements.len() {
            0 if install => "capture: installed already".into(),
            0 => "capture: there is none".into(),
            run if install => {
                let hint = match is_late {
                    true => {
                        "\nhint: late changes from before are not marked; `tallymark verify` finds them"
                    }
                    false => "",
                };
                format!("capture: installed, {} run{hint}", ui::counted(run, "statement"))
            }
            run => format!("capture: removed, {} run", ui::counted(run, "statement")),
        });
        Ok(())
    }

    /// Changes one table in one transaction, which is retried while the table's lock is taken.
    async fn change_one(
        &self,
        owner: &Db,
        capture: &Capture,
        change: &ChangeArgs,
        install: bool,
    ) -> Result<Vec<String>, Failure> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_one(owner, capture, change, install).await {
                Ok(statements) => return Ok(statements),
                Err(CatalogueError::Db(error))
                    if error.kind() == DbErrorKind::Contended && tries < LOCK_TRIES_MAX =>
                {
                    if tries == 1 {
                        ui::note(format!(
                            "{}: waiting for a moment without writers",
                            capture.table
                        ));
                    }
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                Err(CatalogueError::Db(error)) if error.kind() == DbErrorKind::Denied => {
                    return Err(Failure::usage(Fault::of(&error).remedy(
                        "the table's owner must do this: give its address by --owner-env NAME, or let \
                         it run the statements that --dry-run prints",
                    )));
                }
                Err(error) => return Err(WorkError::from(error).into()),
            }
        }
    }

    async fn try_one(
        &self,
        owner: &Db,
        capture: &Capture,
        change: &ChangeArgs,
        install: bool,
    ) -> Result<Vec<String>, CatalogueError> {
        let mut tx = owner.begin(Access::ReadWrite, CATALOGUE_TIMEOUT, "capture").await?;
        let limit = format!("SET LOCAL lock_timeout = '{}ms'", LOCK_TIMEOUT.as_millis());
        tx.execute("limiting the wait for locks", limit).await?;
        let statements = if install {
            capture.install(&mut tx, &self.reader).await?
        } else {
            capture.remove(&mut tx).await?
        };
        if change.dry_run {
            tx.rollback().await?;
            return Ok(statements);
        }
        for statement in &statements {
            tx.execute("changing the capture", statement.clone()).await?;
        }
        tx.commit().await?;
        Ok(statements)
    }
}

/// Registers the rollups as consumers, so that every mark from now on waits for them. Rollups whose
/// tables `init` has yet to create register before their first slice.
async fn register(worker: &Worker) {
    for rollup in worker.config.rollups.iter().filter(|rollup| rollup.late == Late::Capture) {
        if let Err(error) = consumer::enlist(worker, rollup).await {
            ui::note(format!(
                "rollup `{}` registers for late changes before its first slice, not yet: {error}",
                rollup.name
            ));
        }
    }
}

/// Whether a slice of a captured rollup was computed, so that changes of it may be missed.
async fn has_slices(worker: &Worker) -> Result<bool, WorkError> {
    for rollup in worker.config.rollups.iter().filter(|rollup| rollup.late == Late::Capture) {
        match worker.checkpoints.recent(&rollup.name).await {
            Ok(recent) if recent.is_empty() => {}
            Ok(_) => return Ok(true),
            // Before `init`.
            Err(CheckpointError::Store(StoreError::NoTable { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// A capture as the source shows it.
struct CaptureFacts {
    standing: CaptureState,
    /// The number of waiting marks.
    marks: Option<u64>,
    /// The number of changed keys of lookups that have yet to become marks.
    keys: Option<u64>,
    consumers: Vec<Consumer>,
}

async fn standing_of(worker: &Worker, capture: &Capture) -> Result<CaptureFacts, DbError> {
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, "capture").await?;
    let standing = capture.standing(&mut tx).await?;
    let marks = match &standing.key {
        Some(key) if standing.is_whole() => Some(marks::count(&mut tx, key).await?),
        _ => None,
    };
    let keys = match &standing.lookups[..] {
        [] => None,
        lookups => Some(lookup_marks::waiting(&mut tx, lookups).await?.count),
    };
    let consumers = match &standing.key {
        Some(key) => consumers::all(&mut tx, key).await?,
        None => Vec::new(),
    };
    tx.rollback().await?;
    Ok(CaptureFacts { standing, marks, keys, consumers })
}

fn document(consumer: &Consumer) -> serde_json::Value {
    json!({
        "id": consumer.id, "installation": consumer.installation, "rollup": consumer.rollup,
        "columns": consumer.columns.names(),
        "waiting": consumer.waiting, "oldest": consumer.oldest, "age_s": consumer.age
    })
}

fn in_words(consumer: &Consumer) -> String {
    let Consumer { id, installation, rollup, columns, waiting, age, .. } = consumer;
    let waiting = ui::counted(usize::try_from(*waiting).unwrap_or(usize::MAX), "mark");
    let age = age.map_or_else(String::new, |age| {
        format!(", the oldest {} old", ui::duration(Duration::from_secs(age.max(0).unsigned_abs())))
    });
    format!(
        "  {rollup} of {installation} (consumer {id}), which uses {}: {waiting} not taken{age}",
        columns.in_words()
    )
}

impl ChangeArgs {
    /// A connection with a role that may create triggers.
    fn owner(&self, worker: &Worker) -> Result<Db, Failure> {
        let url = match &self.owner_env {
            None => worker.config.source.url.clone(),
            Some(name) => {
                let url = std::env::var(name).map_err(|_| {
                    Failure::usage(
                        Fault::new(format!("--owner-env: the variable {name} is not set")).remedy(
                            format!("export {name}=postgres://owner:password@host/database"),
                        ),
                    )
                })?;
                Address::Url(
                    DatabaseUrl::new(url)
                        .map_err(|fault| Failure::usage(fault.at(format!("--owner-env {name}"))))?,
                )
            }
        };
        Ok(Db::new(&url, Side::Source, 1).map_err(WorkError::from)?)
    }
}
