//! What rollups are computed from: rows that are only read.
//!
//! A [`Source`] answers for one kind of origin: a table of the application ([`table`]), the table of
//! a finer rollup ([`finer`]), a Bubble app, whose things a mirror keeps ([`things`]), or the table
//! of such a mirror ([`mirrored`]). [`of`] picks the kind of a rollup. Everything else asks
//! the source, and is the same for each kind.
//!
//! [`reading::shape`] reads a rollup's columns from the catalogue once. [`reading::read`] writes the
//! statements that aggregate a time range. [`reading::pace`] decides the width of that range, and
//! [`reading::plan_guard`] whether it can be read without a full scan. [`settle`] waits until all
//! rows of a range are visible, and [`changes`] tells of those that come later.

pub mod changes;
mod finer;
mod mirrored;
pub mod reading;
pub(crate) mod settle;
mod table;
pub(crate) mod things;

use std::fmt;

use chrono::{DateTime, Utc};
use futures_util::future::BoxFuture;

use crate::clients::bubble::App;
use crate::clients::db::{Db, DbError, Side, Tx};
use crate::model::rollup::Rollup;
use crate::model::slice::Slice;
use crate::source::reading::expressions::{self, Proof};
use crate::source::reading::first_row::SourceStart;
use crate::source::reading::shape::{Shape, ShapeError};
use crate::source::settle::{Settled, Wait};

pub(crate) use finer::merging;

/// The kinds of sources. A rollup has the first one that feeds it.
const KINDS: &[&dyn Source] = &[&things::Things, &mirrored::Mirrored, &finer::Finer, &table::Table];

/// The source of `rollup`.
#[must_use]
pub(crate) fn of(rollup: &Rollup) -> &'static dyn Source {
    KINDS.iter().copied().find(|kind| kind.feeds(rollup)).unwrap_or(&table::Table)
}

/// Refuses expressions of `rollup` whose values may change without a write.
///
/// # Errors
/// An expression is refused, or its server cannot be reached.
pub(crate) async fn prove(servers: Servers<'_>, rollup: &Rollup) -> Result<Proof, ShapeError> {
    match rollup.expressions().is_empty() {
        true => Ok(Proof::Proven),
        false => of(rollup).prove(servers, rollup).await,
    }
}

/// A result that comes later.
type Answer<'a, T, E = DbError> = BoxFuture<'a, Result<T, E>>;

/// One kind of source. It is a relation in one of the two databases. A kind whose rows come from
/// elsewhere keeps a mirror of them there.
///
/// Each `tx` is an open transaction on [`Source::side`].
pub(crate) trait Source: fmt::Debug + Sync {
    /// Whether `rollup` is computed from a source of this kind.
    fn feeds(&self, rollup: &Rollup) -> bool;

    /// The database that holds its rows.
    fn side(&self) -> Side;

    /// The relation to read, as it stands after `FROM`. It has the columns of the table, those of
    /// lookups, and the rollup's expressions by their names.
    fn relation(&self, rollup: &Rollup) -> String {
        expressions::beside(expressions::columns_of(rollup), &rollup.expressions())
    }

    /// As [`prove`], for a rollup with expressions.
    fn prove<'a>(
        &'a self,
        _servers: Servers<'a>,
        _rollup: &'a Rollup,
    ) -> Answer<'a, Proof, ShapeError> {
        Box::pin(async { Ok(Proof::Proven) })
    }

    /// The columns and types of `rollup`, from the catalogue.
    fn shape<'a>(
        &'a self,
        servers: Servers<'a>,
        rollup: &'a Rollup,
    ) -> Answer<'a, Shape, ShapeError>;

    /// Whether slices before the first row count as done, without a checkpoint. A slice of a kept
    /// table needs one, so that it can be reopened when its first rows arrive.
    fn has_beginning(&self) -> bool {
        false
    }

    /// Where the rows begin. `None`: it is unknown, or the source has no beginning.
    fn first_row<'a>(
        &'a self,
        _tx: &'a mut Tx,
        _rollup: &'a Rollup,
        _shape: &'a Shape,
    ) -> Answer<'a, Option<SourceStart>> {
        Box::pin(async { Ok(None) })
    }

    /// Checks whether all rows of a slice are visible, and waits as `wait` says. Without a check of
    /// its own, a kind relies on the order of claims or on its own proof.
    fn settle<'a>(
        &'a self,
        _tx: &'a mut Tx,
        _job: SliceJob<'a>,
        _wait: Wait<'a>,
    ) -> Answer<'a, Settled> {
        Box::pin(async { Ok(Settled::By(self.settled_by_default())) })
    }

    /// How a slice counts as settled that was not checked, as when its checkpoint was lost.
    fn settled_by_default(&self) -> &'static str;

    /// Why a slice runs again after its checkpoint was lost. `None`: it stays as it is, and later
    /// changes that only the checkpoint knew are reported as unproven.
    fn reruns_after_loss(&self) -> Option<&'static str> {
        None
    }

    /// How its changes reach `rollup`, if `check` need not look for an index, zones and triggers.
    fn assurance(&self, _rollup: &Rollup) -> Option<String> {
        None
    }
}

/// The servers that hold the rows of sources.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Servers<'a> {
    pub(crate) source: &'a Db,
    pub(crate) target: &'a Db,
    /// Whether both are one database, reached by the same URL.
    pub(crate) is_one: bool,
    /// The schema of the rollup tables.
    pub(crate) schema: &'a str,
    /// The Bubble app that is counted instead of the source.
    pub(crate) app: Option<&'a App>,
}

impl<'a> Servers<'a> {
    /// The database that `rollup` is computed from.
    #[must_use]
    pub(crate) fn read_by(self, rollup: &Rollup) -> &'a Db {
        match of(rollup).side() {
            Side::Source => self.source,
            Side::Target => self.target,
        }
    }

    /// Whether that is the application's.
    #[must_use]
    pub(crate) fn is_applications(self, rollup: &Rollup) -> bool {
        self.app.is_none() && (self.is_one || of(rollup).side() == Side::Source)
    }
}

/// A slice to compute.
#[derive(Clone, Copy, Debug)]
pub struct SliceJob<'a> {
    pub rollup: &'a Rollup,
    /// The columns and types of the rollup.
    pub shape: &'a Shape,
    pub slice: Slice,
    /// The end of the finer slices that it is computed from, where it is open.
    pub open_until: Option<DateTime<Utc>>,
}

impl SliceJob<'_> {
    /// The times of the rows that the slice is computed from.
    #[must_use]
    pub(crate) fn window(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        let (start, end) = self.rollup.window(self.slice);
        (start, self.open_until.unwrap_or(end))
    }

    /// The slice's start, and the times of the rows behind some of its buckets. A window has one
    /// bucket, with rows of earlier times.
    #[must_use]
    pub(crate) fn rows_behind(
        &self,
        buckets: (DateTime<Utc>, DateTime<Utc>),
    ) -> (DateTime<Utc>, DateTime<Utc>, DateTime<Utc>) {
        let (first, last) = match self.rollup.trailing {
            Some(_) => self.window(),
            None => (buckets.0, self.open_until.map_or(buckets.1, |until| until.min(buckets.1))),
        };
        (self.slice.start(), first, last)
    }

    /// Its name in messages and in the application's `pg_stat_activity`.
    #[must_use]
    pub(crate) fn label(&self) -> String {
        self.slice.id(&self.rollup.name)
    }
}
