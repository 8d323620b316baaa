//! The target: the PostgreSQL that holds the rollup tables, and the fence that guards them.
//!
//! Schema `tallymark` holds one marker per slice (`slice`) and the registry (`rollup`). For slices
//! that take several chunks it also holds their progress (`progress`) and their partials
//! (`stage_<rollup>`). These two are UNLOGGED, so that a crash of the server empties them together.

mod adopt;
pub mod beside;
pub mod coverage;
pub mod ddl;
mod generation;
mod indexes;
mod keep_away;
pub mod live;
mod marker;
pub mod partitions;
pub mod readers;
mod ready;
mod replace;
mod seal;
pub mod series;
mod size;
mod stage;
mod statement;
mod things;
mod together;
mod totals;
mod verify;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};

use crate::checkpoint::CheckpointError;
use crate::clients::db::{Access, Db, DbError, Side, Tx};
use crate::model::hint::{Fault, Hinted};
use crate::model::not_now::Why;
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::model::sql::ident;
use crate::source;
use crate::source::reading::shape::Shape;

pub use adopt::AdoptedRows;
pub(crate) use adopt::{ForeignTable, REASON as ADOPTED};
pub(crate) use generation::Outside;
pub use keep_away::DeletedSlices;
pub use replace::StatementOptions;
pub(crate) use replace::{LastWrite, Replaced};
pub use stage::{Chunk, StageProgress};
pub(crate) use things::StagedPage;
pub(crate) use together::Leased;
pub(crate) use verify::{Comparison, Difference, Verification};

/// The target database, and the schema of its rollup tables.
#[derive(Clone, Debug)]
pub struct Target {
    pub db: Db,
    /// The schema of the rollup tables.
    pub schema: String,
    /// Whether it is the source's database, reached by the same URL. Then the groups stay inside
    /// the server.
    pub is_source: bool,
    /// The installation that owns each rollup, as far as this process has read it.
    pub keepers: Keepers,
    /// The partitions of the tables, as far as this process has seen them.
    pub partitions: partitions::KnownPartitions,
}

/// The installation that owns each rollup, by the rollup's name.
pub type Keepers = Arc<Mutex<HashMap<String, String>>>;
/// The registry's entry about the calendar of a rollup's table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registered {
    /// The newest generation that replaced rows.
    pub(crate) generation: u64,
    /// Its calendar, in words. `None`: an older version made the entry.
    pub(crate) calendar: Option<String>,
    /// The seal that an operator set. `None`: there is none.
    pub(crate) sealed_before: Option<DateTime<Utc>>,
    /// A table to which the role lacks a privilege, if that was checked.
    pub(crate) closed: Option<Closed>,
}

/// A table of Tallymark's to which the role may not write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Closed {
    table: String,
    problem: Fault,
}

impl Registered {
    /// Refuses work that could not write its rows.
    ///
    /// # Errors
    /// [`DdlError::Incompatible`](ddl::DdlError::Incompatible), with the grant that is missing.
    pub(crate) fn is_open(&self, rollup: &Rollup) -> Result<(), ddl::DdlError> {
        let Some(Closed { table, problem }) = self.closed.clone() else { return Ok(()) };
        Err(ddl::DdlError::Incompatible { rollup: rollup.name.clone(), table, problem })
    }

    /// The generation of `rollup` where the checkpoints say `known`. It is at least that of the
    /// rows, as checkpoints that were lost or restored may be behind.
    #[must_use]
    pub(crate) fn generation_after(&self, rollup: &Rollup, known: u64) -> u64 {
        let is_same = self.calendar.as_ref().is_none_or(|it| *it == rollup.calendar_words());
        match known.cmp(&self.generation) {
            std::cmp::Ordering::Greater => known,
            _ if is_same => self.generation,
            _ => self.generation + 1,
        }
    }
}

/// Why the target did not take a slice's rows.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// A newer attempt holds the marker. Nothing was written.
    #[error("fenced: attempt {mine} came too late, attempt {newest} has the slice's marker")]
    Fenced {
        /// The refused attempt.
        mine: u64,
        /// The attempt in the marker.
        newest: u64,
    },
    /// Slices of a newer calendar have replaced rows of this table. Nothing was written.
    #[error(
        "the rollup's calendar has changed: its rows are of generation {newest}, this attempt is of \
         {mine}; nothing was changed"
    )]
    Superseded {
        /// The generation of the attempt.
        mine: u64,
        /// The generation in the registry.
        newest: u64,
    },
    /// The slice overlaps a sealed one of another calendar.
    #[error(
        "the slice overlaps {slice} of the calendar before, which begins before seal_before; \
         nothing was changed"
    )]
    Sealed {
        /// Start of the sealed slice.
        slice: String,
    },
    /// This installation does not own the rollup, or lost it. Nothing was written.
    #[error(
        "the target's registry does not say any more that this installation keeps the rollup: it was \
         restored, replaced or taken over while this process worked"
    )]
    Stranger,
    /// The source's rows seem to have been purged. Nothing was written.
    #[error(
        "the source now holds {found} rows of this slice where {before} were counted before, less \
         than shrink_guard = {guard} allows; nothing was changed"
    )]
    Shrunk {
        /// Rows found now.
        found: u64,
        /// Rows counted when the slice was last replaced.
        before: u64,
        /// The share that must remain.
        guard: f64,
    },
    /// The partials of earlier chunks are gone. Nothing was written.
    #[error("the target forgot the slice's partials (it crashed); the slice starts again")]
    Forgotten,
    /// The replacement contradicts itself. Nothing was written.
    #[error(
        "the slice has {groups} groups, and {joined} were found for them in the rollup table; \
         nothing was changed; this is a fault of Tallymark"
    )]
    Inconsistent {
        /// Computed groups.
        groups: u64,
        /// Groups after the join with the table's rows, less surplus rows.
        joined: u64,
    },
    /// The source cannot take another chunk now. Nothing was read or written.
    #[error("{0}")]
    NotNow(Why),
    /// The checkpoint could not be written in the same transaction. Nothing was written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The server refuses, or cannot be reached.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Hinted for TargetError {
    fn hint(&self) -> Option<Cow<'_, str>> {
        let hint = match self {
            Self::Superseded { .. } => {
                "if two configurations of this rollup run at the same time, end one of them"
            }
            Self::Sealed { .. } => {
                "move seal_before to an instant at which slices of both calendars begin"
            }
            Self::Stranger => "run `tallymark check`",
            Self::Shrunk { .. } => {
                "if they were deleted on purpose, replay with --allow-shrink; if old rows are purged, \
                 set seal_before"
            }
            Self::Inconsistent { .. } => "please report it",
            Self::Checkpoint(error) => return error.hint(),
            Self::Db(error) => return error.hint(),
            Self::NotNow(why) => return why.hint(),
            Self::Fenced { .. } | Self::Forgotten => return None,
        };
        Some(hint.into())
    }
}

impl Target {
    /// Whether the input of `rollup` is in this database, so that the groups stay inside the
    /// server.
    #[must_use]
    pub(crate) fn holds_source_of(&self, rollup: &Rollup) -> bool {
        self.is_source || source::of(rollup).side() == Side::Target
    }

    /// The rollup's table, quoted.
    #[must_use]
    pub(crate) fn table(&self, rollup: &Rollup) -> String {
        format!("{}.{}", ident(&self.schema), ident(&rollup.name))
    }

    /// The rollup's stage table, quoted.
    #[must_use]
    fn stage(rollup: &Rollup) -> String {
        format!("tallymark.{}", ident(&format!("stage_{}", rollup.name)))
    }

    /// Checks, once per process and rollup, that `init` created the tables for this definition.
    ///
    /// # Errors
    /// They are missing or were made for another definition, or the server cannot be read.
    pub(crate) async fn check(
        &self,
        rollup: &Rollup,
        shape: &Shape,
        timeout: Duration,
    ) -> Result<Registered, ddl::DdlError> {
        let mut tx = self.db.begin(Access::ReadOnly, timeout, &rollup.name).await?;
        if !ddl::plan(&mut tx, self, rollup, shape).await?.is_empty() {
            tx.rollback().await?;
            return Err(ddl::DdlError::NotReady { rollup: rollup.name.clone() });
        }
        let registered = generation::registered_for_work(&mut tx, self, rollup).await?;
        self.read_partitions(&mut tx, rollup).await?;
        tx.rollback().await?;
        Ok(registered)
    }

    /// The installation that owns `rollup`, if this process has read it.
    #[must_use]
    pub(crate) fn keeper(&self, rollup: &str) -> Option<String> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).get(rollup).cloned()
    }

    /// Records the installation that owns `rollup`. Every write checks it.
    pub(crate) fn set_keeper(&self, rollup: &str, id: &str) {
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.insert(rollup.to_owned(), id.to_owned());
    }

    /// As [`Target::write`], and keeps the generation of a slice in a setting, in the same round
    /// trip.
    async fn write_knowing(
        &self,
        timeout: Duration,
        label: &str,
        rollup: &Rollup,
        slice: Slice,
    ) -> Result<Tx, DbError> {
        let generation = coverage::generation_of_slice(rollup, slice);
        let first =
            format!("SELECT set_config('{}', {generation}::text, true)", coverage::GENERATION);
        self.db.begin_with(Access::ReadWrite, timeout, label, &first).await
    }

    /// Begins a transaction that writes.
    async fn write(&self, timeout: Duration, label: &str) -> Result<Tx, DbError> {
        self.db.begin(Access::ReadWrite, timeout, label).await
    }
}
