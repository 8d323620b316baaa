//! The plan guard asks PostgreSQL for the plan of a slice, and refuses scans that would read far
//! more rows than the slice has. The statement is only explained.
//!
//! The explained statement is the one to be run, with its real bounds. Every scan in the plan is
//! one of
//!
//! - *bounded*: an index finds the rows by the time column, so that it reads only rows of the
//!   slice;
//! - *a lookup*: rows of another table of a view, found by a join;
//! - *unbounded*: reads all of a table, an index or a partition, for a slice of any size.
//!
//! Unbounded scans are compared with the slice. A partition within the slice, a slice that is most
//! of its table, and tables of a few megabytes are accepted.

mod catalogue;
mod grouping;
mod plan;
mod unindexed;
mod unkeyed;

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::clients::db::{DbError, Tx};
use crate::model::hint::Fault;
use crate::model::rollup::Rollup;
use crate::source;
use crate::source::reading::axis::Axis;
use crate::source::reading::read::{self, Form};
use crate::source::reading::shape::Shape;

use catalogue::{Catalogue, catalogue, shared_catalogue};
use plan::{PlanNode, explain, input_rows, walk};

pub(crate) use catalogue::KnownTables;
pub(crate) use grouping::{Grouping, grouping};
pub use unindexed::{By, Unindexed, unindexed};
pub(crate) use unkeyed::unkeyed;

/// Unbounded scans may read this many times the rows of the slice. PostgreSQL itself rightly
/// prefers a full scan from about a tenth of the table on.
const ROWS_RATIO_MAX: f64 = 10.0;

/// Unbounded scans may also read this many bytes in total, which has no noticeable effect.
const BYTES_MAX: i64 = 16 * 1024 * 1024;

/// How a slice would be read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedRead {
    /// Rows of the slice, by the planner's statistics.
    pub rows: f64,
    /// The scans of tables, in the plan's order.
    pub scans: Vec<Scan>,
    /// Why the plan is refused.
    pub refusal: Option<Fault>,
}

/// One scan of a table or index.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scan {
    /// The plan's term: `Seq Scan`, `Index Scan`, ….
    pub(crate) method: String,
    pub(crate) table: String,
    /// The index, if one is used.
    pub(crate) index: Option<String>,
    /// Whether it reads only rows of the slice, or of a join.
    pub(crate) is_bounded: bool,
    /// Rows, or entries of the index, that it would read.
    pub(crate) rows: f64,
    /// Bytes that it would read, if it is unbounded.
    pub(crate) bytes: i64,
}

/// Explains the reading of `[start, end)`. Parallel queries must be off in `tx`, as parallel plans
/// show the rows of one worker.
///
/// # Errors
/// The server refuses, or cannot be reached.
pub async fn inspect(
    tx: &mut Tx,
    rollup: &Rollup,
    shape: &Shape,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
) -> Result<PlannedRead, DbError> {
    inspect_knowing(tx, rollup, shape, (start, end), &KnownTables::default()).await
}

/// As [`inspect`], where `known` has the tables that recent slices read.
///
/// # Errors
/// As [`inspect`].
pub(crate) async fn inspect_knowing(
    tx: &mut Tx,
    rollup: &Rollup,
    shape: &Shape,
    (start, end): (DateTime<Utc>, DateTime<Utc>),
    known: &KnownTables,
) -> Result<PlannedRead, DbError> {
    let select = read::select(rollup, shape, Form::Whole, (start, start, end), false);
    let plan = explain(tx, &select).await?;
    let mut nodes = Vec::new();
    walk(&plan, None, &mut nodes);
    let bounds = shape.axis.bounds_shown(start, end);
    let catalogue = shared_catalogue(tx, &nodes, &rollup.name, known).await?;
    let mut rows = input_rows(&plan);
    let mut scans: Vec<Scan> =
        nodes.iter().map(|node| node.weigh(&nodes, &catalogue, &bounds)).collect();
    let is_refused = |scans: &[Scan], rows: f64| {
        let unbounded = scans.iter().filter(|scan| !scan.is_bounded);
        let (read, bytes) =
            unbounded.fold((0.0, 0), |(rows, bytes), scan| (rows + scan.rows, bytes + scan.bytes));
        bytes > BYTES_MAX && read > ROWS_RATIO_MAX * rows.max(1.0)
    };
    if is_refused(&scans, rows) {
        // Those estimates leave out rows that the rollup's own conditions exclude. Only the slice's
        // time should count.
        let alone = explain(tx, &alone(rollup, shape, start, end)).await?;
        let without = alone["Plan Rows"].as_f64().unwrap_or(0.0).max(1.0);
        for (scan, node) in scans.iter_mut().zip(&nodes) {
            if !scan.is_bounded && !node.condition.is_empty() && !node.is_by_time(&bounds) {
                // An index on another column, with the time tested row by row. It reads more rows,
                // by the factor of the slice's share in the table.
                let share = (without / scan.rows.max(1.0)).min(1.0);
                scan.rows = scan.rows.min(node.rows / share);
            }
        }
        rows = rows.max(without);
    }
    let read = Read { scans: &scans, nodes: &nodes, catalogue: &catalogue };
    let refusal =
        is_refused(&scans, rows).then(|| refusal(rollup, rows, &read, &shape.axis, &bounds));
    Ok(PlannedRead { rows, scans, refusal })
}

/// All rows of a slice, without the rollup's own conditions.
fn alone(rollup: &Rollup, shape: &Shape, start: DateTime<Utc>, end: DateTime<Utc>) -> String {
    format!(
        "SELECT FROM {} WHERE {}",
        source::of(rollup).relation(rollup),
        shape.axis.between(start, end)
    )
}

/// The amount of data that a slice reads.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Volume {
    /// Rows that are grouped.
    pub(crate) rows: f64,
    /// Blocks of tables and indexes that are read.
    pub(crate) blocks: f64,
}

/// The rows and blocks between `start` and `end`, by statistics and the plan, without reading them.
///
/// # Errors
/// As [`inspect`].
pub(crate) async fn volume(
    tx: &mut Tx,
    rollup: &Rollup,
    shape: &Shape,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
) -> Result<Volume, DbError> {
    let select = read::select(rollup, shape, Form::Whole, (start, start, end), false);
    let plan = explain(tx, &select).await?;
    let mut nodes = Vec::new();
    walk(&plan, None, &mut nodes);
    if rollup.filter.is_some() {
        // Rows that the condition excludes are read too.
        let alone = explain(tx, &alone(rollup, shape, start, end)).await?;
        let more = alone["Plan Rows"].as_f64().unwrap_or(0.0) / input_rows(&plan).max(1.0);
        let bounds = shape.axis.bounds_shown(start, end);
        for node in nodes.iter_mut().filter(|node| node.is_by_time(&bounds)) {
            node.rows *= more.max(1.0);
        }
    }
    let correlation = include_str!("../correlation.sql");
    let catalogue = catalogue(tx, &nodes, correlation).await?;
    let blocks = nodes.iter().map(|node| node.blocks(&catalogue)).sum();
    Ok(Volume { rows: input_rows(&plan), blocks })
}

/// The planner's estimate of the rows between `start` and `end`, without reading them.
///
/// # Errors
/// As [`inspect`].
pub(crate) async fn estimate(
    tx: &mut Tx,
    rollup: &Rollup,
    shape: &Shape,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
) -> Result<f64, DbError> {
    let condition = read::condition(rollup, shape, start, end);
    let plan = explain(
        tx,
        &format!("SELECT FROM {} WHERE {condition}", source::of(rollup).relation(rollup)),
    )
    .await?;
    Ok(plan["Plan Rows"].as_f64().unwrap_or(0.0))
}

/// The scans of a plan, with their tables.
struct Read<'a> {
    scans: &'a [Scan],
    nodes: &'a [PlanNode],
    catalogue: &'a Catalogue,
}

fn refusal(
    rollup: &Rollup,
    rows: f64,
    read: &Read<'_>,
    axis: &Axis,
    bounds: &[String; 2],
) -> Fault {
    let unbounded = read.scans.iter().zip(read.nodes).filter(|(scan, _)| !scan.is_bounded);
    // A lookup must not hide the source, whose index matters more.
    let weight = |(scan, node): &(&Scan, &PlanNode)| (!node.is_of_lookup(), scan.bytes);
    let Some((worst, node)) = unbounded.max_by_key(weight) else {
        return Fault::default();
    };
    let name = node.name(read.catalogue);
    let by = match &worst.index {
        Some(index) => format!("all of index {index}"),
        None => "the whole of it".to_owned(),
    };
    let remedy = match node.column(axis, bounds) {
        Some(column) => format!(
            "as its owner: CREATE INDEX CONCURRENTLY ON {name} ({column}); ANALYZE {name}; if there is \
             such an index, ANALYZE may be all that is missing"
        ),
        None if node.is_of_lookup() => {
            format!("as its owner: ANALYZE {name}, so that PostgreSQL uses its unique key")
        }
        None => format!("create an index on the columns of {name} by which it is joined"),
    };
    Fault::new(format!(
        "plan guard: for {} of rollup `{}`, PostgreSQL would read {} of {} ({by}, {} MB)",
        estimated(rows),
        rollup.name,
        estimated(worst.rows),
        worst.table,
        worst.bytes / (1024 * 1024),
    ))
    .remedy(format!("{remedy}; if reading so much is meant, set plan_guard = false in the rollup"))
}

/// An estimate of a number of rows, in words. PostgreSQL never estimates less than one row.
fn estimated(rows: f64) -> String {
    if rows < 1.5 { "hardly any row".to_owned() } else { format!("about {} rows", about(rows)) }
}

/// A number of rows, rounded to the precision of an estimate.
#[must_use]
pub(crate) fn about(rows: f64) -> String {
    match rows {
        rows if rows >= 9.95e6 => format!("{:.0} million", rows / 1e6),
        rows if rows >= 9.95e5 => format!("{:.1} million", rows / 1e6),
        rows if rows >= 9.95e2 => format!("{:.0} thousand", rows / 1e3),
        rows => format!("{rows:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_precise_as_estimates_deserve() {
        for (rows, text) in [
            (0.0, "0"),
            (812.0, "812"),
            (164_333.0, "164 thousand"),
            (1.24e6, "1.2 million"),
            (1.5e7, "15 million"),
        ] {
            assert_eq!(about(rows), text);
        }
    }
}
