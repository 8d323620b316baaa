//! Changes of the source that no tick has noticed yet.

use chrono::{DateTime, TimeDelta, Utc};

use crate::clients::db::{Access, CATALOGUE_TIMEOUT, DbErrorKind};
use crate::model::rollup::{Late, Rollup};
use crate::source::changes::{capture, column, lookup, lookup_marks, marks};
use crate::source::reading::axis::Axis;
use crate::source::reading::shape::Shape;
use crate::source::settle;
use crate::work::worker::{WorkError, Worker};
use crate::work::{consumer, ready};

/// A change time may be this far ahead of the server's clock and is still searched.
const STAMP_AHEAD: TimeDelta = TimeDelta::hours(1);

/// The first instant in `[from, to)` that such a change may have touched. `None`: there is no
/// change, or the rollup does not look for any.
///
/// # Errors
/// The source or the checkpoints cannot be read.
pub(super) async fn first(
    worker: &Worker,
    rollup: &Rollup,
    range: (DateTime<Utc>, DateTime<Utc>),
) -> Result<Option<DateTime<Utc>>, WorkError> {
    let shape = ready::check(worker, rollup).await?;
    match (&rollup.late, &shape.changes) {
        (Late::Capture, _) => marked(worker, rollup, &shape, range).await,
        (Late::Column(_), Some(axis)) => stamped(worker, rollup, &shape, axis, range).await,
        (Late::Grace | Late::Clock | Late::Column(_), _) => Ok(None),
    }
}

/// Refuses a rollup whose capture is broken, as late changes would be missed.
///
/// # Errors
/// It is, or the source cannot be read.
pub(super) async fn refuse_blind(worker: &Worker, rollup: &Rollup) -> Result<(), WorkError> {
    if rollup.late != Late::Capture {
        return Ok(());
    }
    let shape = ready::check(worker, rollup).await?;
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let standing = capture::standing(&mut tx, rollup, &shape).await?;
    tx.rollback().await?;
    standing.problem.map_or(Ok(()), |problem| Err(WorkError::Usage(problem)))
}

async fn stamped(
    worker: &Worker,
    rollup: &Rollup,
    shape: &Shape,
    axis: &Axis,
    (first, last): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Option<DateTime<Utc>>, WorkError> {
    let searched = worker.checkpoints.searched(&rollup.name).await?;
    let Some(from) = searched.map(|it| it.until) else { return Ok(None) };
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let (now, _) = settle::now(&mut tx).await?;
    let until = now + STAMP_AHEAD;
    match column::hours(&mut tx, rollup, shape, axis, (from, until)).await {
        Ok(hours) => {
            tx.rollback().await?;
            let touched = hours.iter().filter_map(|hours| hours.within(first, last));
            Ok(touched.map(|(start, _)| start).min())
        }
        // There are too many changes to tell where they are.
        Err(error) if error.kind() == DbErrorKind::Cancelled => Ok(Some(first)),
        Err(error) => Err(error.into()),
    }
}

async fn marked(
    worker: &Worker,
    rollup: &Rollup,
    shape: &Shape,
    range: (DateTime<Utc>, DateTime<Utc>),
) -> Result<Option<DateTime<Utc>>, WorkError> {
    // Marks that this consumer has taken have raised `dirty`. The other consumers may still
    // wait for them.
    let consumer = consumer::id_of(worker, rollup).await?.unwrap_or_default();
    let mut tx = worker.source.begin(Access::ReadOnly, CATALOGUE_TIMEOUT, &rollup.name).await?;
    let standing = capture::standing(&mut tx, rollup, shape).await?;
    let found = match &standing.key {
        Some(key) => {
            let (key, axes) = ((&**key, consumer), lookup::axes_of(rollup, shape));
            match lookup_marks::waiting(&mut tx, &standing.lookups).await?.count {
                0 => marks::first_in(&mut tx, key, &axes, range).await?,
                // Which slices a waiting key of a lookup reaches is still unknown.
                _ => Some(range.0),
            }
        }
        None => None,
    };
    tx.rollback().await?;
    Ok(found)
}
