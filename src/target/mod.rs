//! The target: the PostgreSQL that holds the rollup tables, and the fence that guards them.
//!
//! Schema `tallymark` holds one marker per slice (`slice`), the registry (`rollup`), and, for
//! slices that take several chunks, how far they are (`progress`) and their partials
//! (`stage_<rollup>`), both UNLOGGED: a crash of the server forgets them together.

pub mod ddl;
mod generation;
mod indexes;
pub mod readers;
mod ready;
mod replace;
mod stage;
mod statement;
mod verify;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::db::{Access, Db, DbError, Tx};
use crate::governor::Refusal;
use crate::rollup::Rollup;
use crate::source::shape::Shape;
use crate::sql::ident;

pub use generation::Outside;
pub use replace::{Guard, Replaced};
pub use stage::{Chunk, Progress};
pub use verify::{Comparison, Difference, Verification};

/// The target database and where in it the rollup tables are.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server.
    pub db: Db,
    /// The schema of the rollup tables.
    pub schema: String,
    /// Whether it is the source's database, reached by the same URL: then groups need not travel.
    pub is_source: bool,
    /// Which installation keeps each rollup, as far as this process has asked.
    pub keepers: Keepers,
}

/// The installation that keeps each rollup, by the rollup's name.
pub type Keepers = Arc<Mutex<HashMap<String, String>>>;
/// What the registry says of the calendar by which a rollup's table is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registered {
    /// The newest generation that replaced rows.
    pub generation: u64,
    /// Its calendar, in words; `None`: made before it was recorded.
    pub calendar: Option<String>,
}

impl Registered {
    /// The generation of `rollup` where the checkpoints say `known`: no older than that of the rows.
    /// Checkpoints that were lost, or restored, may know less.
    #[must_use]
    pub fn generation_after(&self, rollup: &Rollup, known: u64) -> u64 {
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
    /// A newer attempt holds the marker; nothing was written.
    #[error("fenced: attempt {mine} came too late, attempt {newest} has the slice's marker")]
    Fenced {
        /// The attempt that was refused.
        mine: u64,
        /// The attempt in the marker.
        newest: u64,
    },
    /// Slices of a newer calendar have replaced rows of this table; nothing was written.
    #[error(
        "the rollup's calendar has changed: its rows are of generation {newest}, this attempt is of \
         {mine}; nothing was changed. If two configurations of this rollup run at the same time, end \
         one of them"
    )]
    Superseded {
        /// The generation of the attempt.
        mine: u64,
        /// The generation in the registry.
        newest: u64,
    },
    /// The slice overlaps one of another calendar that is never computed again.
    #[error(
        "the slice overlaps {slice} of the calendar before, which begins before seal_before; \
         nothing was changed. Move seal_before to an instant at which slices of both calendars begin"
    )]
    Sealed {
        /// When the older slice starts.
        slice: String,
    },
    /// The rollup is not, or no longer, kept by this installation; nothing was written.
    #[error(
        "the target's registry does not say any more that this installation keeps the rollup: it was \
         restored, replaced or taken over while this process worked; run `tallymark check`"
    )]
    Stranger,
    /// The source's rows seem to have been purged; nothing was written.
    #[error(
        "the source now holds {found} rows of this slice where {before} were counted before, less \
         than shrink_guard = {guard} allows; nothing was changed. If they were deleted on purpose, \
         replay with --allow-shrink; if old rows are purged, set seal_before"
    )]
    Shrunk {
        /// Rows found now.
        found: u64,
        /// Rows counted when the slice was last replaced.
        before: u64,
        /// The share that must remain.
        guard: f64,
    },
    /// The partials of earlier chunks are gone; nothing was written.
    #[error("the target forgot the slice's partials (it crashed); the slice starts again")]
    Forgotten,
    /// The replacement contradicts itself; nothing was written.
    #[error(
        "the slice has {groups} groups, and {joined} were found for them in the rollup table; \
         nothing was changed. This is a fault of Tallymark: please report it"
    )]
    Inconsistent {
        /// Groups that were computed.
        groups: u64,
        /// Groups after the join with the table's rows, surplus rows left out.
        joined: u64,
    },
    /// The source cannot take another chunk now; nothing was read or written.
    #[error("{}", .0.reason)]
    Busy(Refusal),
    /// The server refuses, or cannot be reached.
    #[error(transparent)]
    Db(#[from] DbError),
}

impl Target {
    /// Whether what `rollup` is computed from is in this database: then groups need not travel.
    #[must_use]
    pub const fn holds_source_of(&self, rollup: &Rollup) -> bool {
        self.is_source || rollup.fine.is_some()
    }

    /// The rollup's table, quoted.
    #[must_use]
    pub fn table(&self, rollup: &Rollup) -> String {
        format!("{}.{}", ident(&self.schema), ident(&rollup.name))
    }

    /// The rollup's stage table, quoted.
    #[must_use]
    pub fn stage(rollup: &Rollup) -> String {
        format!("tallymark.{}", ident(&format!("stage_{}", rollup.name)))
    }

    /// Checks, once per process and rollup, that `init` made the tables for this definition.
    ///
    /// # Errors
    /// They are missing or made for another definition, or the server cannot be asked.
    pub async fn check(
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
        let registered = generation::registered(&mut tx, rollup).await?;
        tx.rollback().await?;
        Ok(registered)
    }

    /// The installation that keeps `rollup`, if this process has asked.
    #[must_use]
    pub fn keeper(&self, rollup: &str) -> Option<String> {
        self.keepers.lock().unwrap_or_else(PoisonError::into_inner).get(rollup).cloned()
    }

    /// Remembers which installation keeps `rollup`: writes are bound to it.
    pub fn set_keeper(&self, rollup: &str, id: &str) {
        let mut keepers = self.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        keepers.insert(rollup.to_owned(), id.to_owned());
    }

    /// Begins a transaction that writes.
    async fn write(&self, timeout: Duration, label: &str) -> Result<Tx, DbError> {
        self.db.begin(Access::ReadWrite, timeout, label).await
    }
}
