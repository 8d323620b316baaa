//! A worker: the clients, built once, and the data learned about each rollup.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::checkpoint::store::StoreError;
use crate::checkpoint::{Backfill, CheckpointError, Checkpoints, CopyError};
use crate::clients::bubble::{App, Units};
use crate::clients::db::{CatalogueError, Db, DbError, DbErrorKind, Side};
use crate::clients::queue::{QueueError, Queues};
use crate::clients::webhook::{HookAddress, Webhook};
use crate::config::{Config, NoticeFormat, NotifyConfig};
use crate::model::clock::Clock;
use crate::model::hint::{Fault, Hinted};
use crate::model::not_now::{NotNow, Why};
use crate::model::rollup::Rollup;
use crate::source::reading::pace::Pace;
use crate::source::reading::plan_guard::KnownTables;
use crate::source::reading::shape::{Shape, ShapeError};
use crate::source::{Servers, settle};
use crate::target::ddl::DdlError;
use crate::target::partitions::KnownPartitions;
use crate::target::{Keepers, Registered, Target, TargetError};
use crate::throttle::interrupt::Interrupt;
use crate::throttle::{Governor, SLOT_WAIT_MAX};
use crate::work::generation::Generations;

/// How long to wait for transactions that were writing at a slice's end. Most are shorter. Longer
/// ones are left to a later run, which does not count as a failure.
const SETTLE_WAIT_MAX: Duration = Duration::from_secs(2);

/// When a batch works on neighbouring slices together.
#[derive(Clone, Copy, Debug)]
pub struct Joining {
    /// The slices that run alone before. They tell how long a slice takes, and a problem of all
    /// slices is met by one at a time.
    pub after: usize,
    /// Most slices at a time. More would save little, and a worker that is killed leaves the leases
    /// on all of them to run out.
    pub slices_max: usize,
    /// Most work in reading them, as expected. Wider slices gain nothing, as their rows are most of
    /// their cost.
    pub work_max: Duration,
}

impl Default for Joining {
    fn default() -> Self {
        Self { after: 16, slices_max: 32, work_max: Duration::from_millis(100) }
    }
}

/// The clients and the configuration of one process. It is cheap to share and connects when first
/// used.
#[derive(Debug)]
pub struct Worker {
    pub config: Config,
    pub source: Db,
    /// The Bubble app that is counted instead of the source.
    pub(crate) app: Option<App>,
    pub target: Target,
    pub checkpoints: Checkpoints,
    /// Decides when the source can take another chunk.
    pub governor: Governor,
    /// The queues for other invocations. `None`: one invocation works on all slices.
    pub queues: Option<Queues>,
    /// Who hears of trouble.
    pub(crate) receivers: Option<Receivers>,
    /// The request to stop.
    pub interrupt: Interrupt,
    pub clock: Arc<dyn Clock>,
    /// Longest wait of an attempt for transactions that were writing at its slice's end.
    pub settle_wait_max: Duration,
    pub joining: Joining,
    /// The shared look at the open transactions of the source.
    pub(crate) horizons: settle::Horizons,
    /// The tables that slices were planned to read.
    pub(crate) tables: KnownTables,
    pub(crate) consumers: Mutex<HashMap<String, i64>>,
    /// The shape of each rollup, with the registry's entry at the time of reading.
    pub(crate) shapes: Mutex<HashMap<String, (Arc<Shape>, Registered)>>,
    paces: Mutex<HashMap<String, Pace>>,
    pub(crate) backfills: Mutex<HashMap<(String, String), Arc<Backfill>>>,
    pub(crate) generations: Generations,
    /// Why each rollup's rows are unproven, according to the checkpoints.
    pub(crate) unproven: Mutex<BTreeMap<String, String>>,
}

/// Who hears of trouble.
#[derive(Debug)]
pub(crate) struct Receivers {
    /// Takes notices.
    pub(crate) webhook: Option<Webhook>,
    pub(crate) format: NoticeFormat,
    /// Hears of every good tick.
    pub(crate) ping: Option<Webhook>,
}

impl Receivers {
    fn new(config: &NotifyConfig) -> Self {
        let hook = |address: &Option<HookAddress>| address.clone().map(Webhook::new);
        Self { webhook: hook(&config.url), format: config.format, ping: hook(&config.ping) }
    }
}

/// A failure beyond a single slice: a rollup that cannot be computed, or a server out of reach.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The source contradicts the definition.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// The target's tables contradict the definition.
    #[error(transparent)]
    Ddl(#[from] DdlError),
    /// A database refused or could not be reached.
    #[error(transparent)]
    Db(#[from] DbError),
    /// DynamoDB refused or could not be reached.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The queue refused or could not be reached.
    #[error(transparent)]
    Queue(#[from] QueueError),
    /// It has to wait.
    #[error("{}", .0.why.explained())]
    NotNow(NotNow),
    /// Another session has held the source's slots, or a table, for too long. The text names it.
    #[error("{0}, for {minutes} minutes", minutes = SLOT_WAIT_MAX.as_secs() / 60)]
    Starved(Why),
    /// The time ran out while a server was awaited. The text names it.
    #[error(
        "the time was up while {0}: a server did not answer, and the next tick has what was not reached"
    )]
    OutOfTime(&'static str),
    /// Checkpoints and target do not belong together.
    #[error("{0}")]
    Stranger(Fault),
    /// The request is invalid.
    #[error("{0}")]
    Usage(Fault),
}

/// The meaning of a failure for the caller. The number is the command line's exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The work ran and something failed or differs.
    Failed = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// A server could not be reached.
    Unreachable = 3,
}

impl Hinted for WorkError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Shape(error) => error.hint(),
            Self::Ddl(error) => error.hint(),
            Self::Db(error) => error.hint(),
            Self::Checkpoint(error) => error.hint(),
            Self::Stranger(fault) | Self::Usage(fault) => fault.hint(),
            Self::Starved(_) => {
                Some("end that transaction, or wait for its end, and run the command again".into())
            }
            Self::NotNow(not_now) => {
                not_now.hint().or_else(|| Some("run the command again later".into()))
            }
            Self::Queue(_) => Some("run the command again once SQS answers".into()),
            Self::OutOfTime(_) => Some("run the command again once the server answers".into()),
        }
    }
}

impl WorkError {
    /// Whether it would affect every rollup, because the checkpoints are unavailable.
    #[must_use]
    pub(crate) const fn is_for_all(&self) -> bool {
        matches!(
            self,
            Self::Checkpoint(CheckpointError::Store(
                StoreError::Unreachable { .. }
                    | StoreError::NoTable { .. }
                    | StoreError::WrongTable { .. }
                    | StoreError::NotActive { .. }
                    | StoreError::NoRegion
                    | StoreError::Environment(_)
            ))
        )
    }

    /// Whether DynamoDB may soon accept the same call.
    #[must_use]
    pub(crate) const fn may_pass(&self) -> bool {
        matches!(self, Self::Checkpoint(error) if error.is_retryable())
    }

    /// The meaning of the error for the caller.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::Usage(_) | Self::Stranger(_) => Severity::Usage,
            Self::Shape(ShapeError::Unfit { .. })
            | Self::Ddl(DdlError::Incompatible { .. } | DdlError::NotReady { .. }) => {
                Severity::Usage
            }
            Self::OutOfTime(_) => Severity::Unreachable,
            Self::Shape(ShapeError::Db(error))
            | Self::Ddl(DdlError::Db(error))
            | Self::Db(error) => severity(error),
            Self::Checkpoint(error) if error.is_unreachable() => Severity::Unreachable,
            Self::Queue(error) if error.is_unreachable() => Severity::Unreachable,
            Self::Checkpoint(
                CheckpointError::Moved { .. } | CheckpointError::Incomplete { .. },
            ) => Severity::Usage,
            // A table that is missing, foreign or inaccessible is a matter of configuration.
            Self::Checkpoint(CheckpointError::Store(
                StoreError::NoTable { .. }
                | StoreError::WrongTable { .. }
                | StoreError::NoRegion
                | StoreError::Environment(_)
                | StoreError::NoCredentials { .. }
                | StoreError::Denied { .. }
                | StoreError::Lacks { .. },
            )) => Severity::Usage,
            Self::Checkpoint(_) | Self::Queue(_) | Self::NotNow(_) | Self::Starved(_) => {
                Severity::Failed
            }
        }
    }
}

fn severity(error: &DbError) -> Severity {
    match error.kind() {
        DbErrorKind::Unreachable | DbErrorKind::Login => Severity::Unreachable,
        DbErrorKind::Denied | DbErrorKind::RowSecurity | DbErrorKind::Missing => Severity::Usage,
        DbErrorKind::Cancelled
        | DbErrorKind::Contended
        | DbErrorKind::Refused
        | DbErrorKind::Unclear => Severity::Failed,
    }
}

impl From<CopyError> for WorkError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Checkpoint(error) => Self::Checkpoint(error),
            other => Self::Usage(Fault::of(&other)),
        }
    }
}

impl From<CatalogueError> for WorkError {
    fn from(error: CatalogueError) -> Self {
        match error {
            CatalogueError::Unfit(fault) => Self::Usage(fault),
            CatalogueError::Db(error) => Self::Db(error),
        }
    }
}

impl From<TargetError> for WorkError {
    fn from(error: TargetError) -> Self {
        match error {
            TargetError::Db(error) => Self::Db(error),
            TargetError::Checkpoint(error) => Self::Checkpoint(error),
            TargetError::NotNow(why) => Self::NotNow(NotNow::because(why)),
            other => Self::Usage(Fault::of(&other)),
        }
    }
}

impl Worker {
    /// Builds the clients for `config`, for at most `concurrency` concurrent slices. They connect
    /// later.
    ///
    /// # Errors
    /// A connection URL is invalid, or no AWS region is configured.
    pub async fn new(
        config: Config,
        clock: Arc<dyn Clock>,
        concurrency: u32,
    ) -> Result<Self, WorkError> {
        let store = store_db(&config, concurrency)?;
        let begun = store.begun();
        let checkpoints = Checkpoints::connect(&config.checkpoint, store).await?;
        let worker = Self::with_checkpoints(config, checkpoints, clock, concurrency)?;
        if worker.target.is_source {
            worker.governor.pacer.own(begun);
        }
        Ok(worker)
    }

    /// As [`Worker::new`], with existing `checkpoints`.
    ///
    /// # Errors
    /// A connection URL is invalid.
    pub fn with_checkpoints(
        config: Config,
        checkpoints: Checkpoints,
        clock: Arc<dyn Clock>,
        concurrency: u32,
    ) -> Result<Self, WorkError> {
        // A slice holds one connection to each side at a time.
        let connections_max = concurrency + 1;
        let source = Db::new(&config.source.url, Side::Source, connections_max)?;
        let is_source = config.target.url.as_ref().is_none_or(|url| *url == config.source.url);
        let target_url = config.target.url.as_ref().unwrap_or(&config.source.url);
        let target = Target {
            db: Db::new(target_url, Side::Target, connections_max)?,
            schema: config.target.schema.clone(),
            is_source,
            keepers: Keepers::default(),
            partitions: KnownPartitions::default(),
        };
        let app = config.source.app.as_ref();
        let app = app.map(|it| App::new(&it.address, &it.branch, it.token.clone()));
        let settle_wait_max = SETTLE_WAIT_MAX;
        let governor = Governor::new(config.source.governor.clone());
        governor.pacer.own(source.begun());
        if is_source {
            governor.pacer.own(target.db.begun());
        }
        let interrupt = Interrupt::default();
        interrupt.cancels(&source);
        interrupt.cancels(&target.db);
        let receivers = config.notify.as_ref().map(Receivers::new);
        Ok(Self {
            config,
            source,
            app,
            target,
            checkpoints,
            governor,
            queues: None,
            receivers,
            interrupt,
            clock,
            settle_wait_max,
            joining: Joining::default(),
            horizons: settle::Horizons::default(),
            tables: KnownTables::default(),
            consumers: Mutex::default(),
            shapes: Mutex::default(),
            paces: Mutex::default(),
            backfills: Mutex::default(),
            generations: Generations::default(),
            unproven: Mutex::default(),
        })
    }

    /// # Errors
    /// The name is unknown.
    pub fn rollup(&self, name: &str) -> Result<&Rollup, WorkError> {
        self.config.rollup(name).map_err(|error| WorkError::Usage(Fault::of(&error)))
    }

    /// The databases that rollups are computed from.
    #[must_use]
    pub(crate) fn servers(&self) -> Servers<'_> {
        Servers {
            source: &self.source,
            target: &self.target.db,
            is_one: self.target.is_source,
            schema: &self.target.schema,
            app: self.app.as_ref(),
        }
    }

    /// The database that `rollup` is computed from.
    #[must_use]
    pub(crate) fn source_of(&self, rollup: &Rollup) -> &Db {
        self.servers().read_by(rollup)
    }

    /// The governor of the database that `rollup` is computed from, if that is the application's.
    /// For a mirror it knows the hours.
    #[must_use]
    pub(crate) fn governor_of(&self, rollup: &Rollup) -> Option<&Governor> {
        let is_applications = rollup.mirror.is_some() || self.servers().is_applications(rollup);
        is_applications.then_some(&self.governor)
    }

    /// What the app has billed in this process. `None`: the source is a database.
    #[must_use]
    pub(crate) fn billed(&self) -> Option<Units> {
        self.app.as_ref().map(App::billed)
    }

    /// Drops the cached data about `rollup`'s source and tables, so that it is read again.
    pub fn forget(&self, rollup: &Rollup) {
        lock(&self.shapes).remove(&rollup.name);
        self.generations.forget(rollup);
        self.horizons.forget();
    }

    /// The measured pace of `rollup`'s source.
    #[must_use]
    pub(crate) fn pace(&self, rollup: &Rollup) -> Pace {
        lock(&self.paces).get(&rollup.name).copied().unwrap_or_default()
    }

    /// Stores the measured pace.
    pub(crate) fn set_pace(&self, rollup: &Rollup, pace: Pace) {
        lock(&self.paces).insert(rollup.name.clone(), pace);
    }

    /// Stops when `interrupt` is raised, like all other workers that share it.
    #[must_use]
    pub(crate) fn interrupted_by(self, interrupt: Interrupt) -> Self {
        interrupt.cancels(&self.source);
        interrupt.cancels(&self.target.db);
        interrupt.closes(&self.checkpoints);
        Self { interrupt, ..self }
    }

    /// Sleeps, but ends early when a stop is requested.
    pub(crate) async fn sleep(&self, time: Duration) {
        self.interrupt.sleep(&*self.clock, time).await;
    }

    pub async fn close(&self) {
        self.source.close().await;
        self.target.db.close().await;
        self.checkpoints.close().await;
    }
}

/// Connections to the target for a store that is there. They are its own: a checkpoint is written
/// while a slice's transaction is open, and after an interruption has cancelled the target's
/// statements.
///
/// # Errors
/// The connection URL is invalid.
pub fn store_db(config: &Config, concurrency: u32) -> Result<Db, DbError> {
    let url = config.target.url.as_ref().unwrap_or(&config.source.url);
    Db::new(url, Side::Target, concurrency + 1)
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
