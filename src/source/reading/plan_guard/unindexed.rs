//! Finds tables without an index for a look at a time, whatever plan PostgreSQL would use now.
//! PostgreSQL reads a small table whole even with an index, so the plan alone shows a missing index
//! only after the table has grown.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeZone as _, Utc};

use super::{BYTES_MAX, Catalogue, PlanNode, catalogue, explain, walk};
use crate::clients::db::{DbError, Tx};
use crate::model::rollup::Rollup;
use crate::source;
use crate::source::reading::axis::Axis;
use crate::source::reading::read;
use crate::source::reading::shape::Shape;

/// The range of years for times. The plan for a look at the time covers all of it, and so every
/// partition. The advice for the whole table then finds an index on each partition.
const YEARS: [i32; 2] = [1970, 2100];

/// The number of tables that a text names. It counts the others.
const NAMED_MAX: usize = 3;

/// The look that needs an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The rows of a slice, by their time and the rollup's own condition.
    Time,
    /// All rows that changed between two times. They may lie anywhere in the table, where a BRIN
    /// index does not help. A B-tree does.
    Change,
}

/// Tables, or partitions, without an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unindexed {
    /// The `CREATE INDEX` for each of them.
    pub statements: Vec<String>,
    /// The `CREATE INDEX` for their partitioned tables, to run after these.
    pub wholes: BTreeSet<String>,
    /// Whether they are so large that each look is slow.
    pub is_large: bool,
}

impl Unindexed {
    /// The statements that create the missing indexes, and their owner's role.
    #[must_use]
    pub fn remedy(&self) -> String {
        let named = &self.statements[..self.statements.len().min(NAMED_MAX)];
        let mut remedy = named.join("; ");
        let more = self.statements.len() - named.len();
        if more > 0 {
            remedy.push_str(&format!("; and likewise on {more} more"));
        }
        // PostgreSQL refuses CONCURRENTLY on a partitioned table. An index there adopts those of
        // its partitions.
        for whole in &self.wholes {
            remedy.push_str(&format!("; then, for new partitions too: {whole}"));
        }
        remedy
    }
}

/// The tables behind `rollup` that have no index for a look at the time, or at changes between
/// `bounds`. `None`: each has one. PostgreSQL plans the look with whole scans disabled, so it
/// judges itself whether an invalid, partial, expression or multicolumn index helps. The settings
/// hold for the rest of `tx`.
///
/// # Errors
/// As [`super::inspect`].
pub async fn unindexed(
    tx: &mut Tx,
    (rollup, shape): (&Rollup, &Shape),
    by: By,
    bounds: (DateTime<Utc>, DateTime<Utc>),
) -> Result<Option<Unindexed>, DbError> {
    const DOING: &str = "putting off whole scans";
    tx.execute(DOING, "SET LOCAL enable_seqscan = off".into()).await?;
    let (axis, (start, end), condition) = match (by, &shape.changes) {
        (By::Time, _) => {
            let [first, last] = YEARS.map(year);
            (&shape.axis, (first, last), read::condition(rollup, shape, first, last))
        }
        (By::Change, Some(axis)) => {
            tx.execute(DOING, "SET LOCAL enable_bitmapscan = off".into()).await?;
            (axis, bounds, axis.between(bounds.0, bounds.1))
        }
        (By::Change, None) => return Ok(None),
    };
    let plan = explain(
        tx,
        &format!("SELECT FROM {} WHERE {condition}", source::of(rollup).relation(rollup)),
    )
    .await?;
    let mut nodes = Vec::new();
    walk(&plan, None, &mut nodes);
    let catalogue = catalogue(tx, &nodes, "NULL").await?;
    Ok(missing(&nodes, &catalogue, by, axis, &axis.bounds_shown(start, end)))
}

fn year(year: i32) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).single().unwrap_or(DateTime::UNIX_EPOCH)
}

/// The tables of a plan that have no index by `axis`, with the remedy.
fn missing(
    nodes: &[PlanNode],
    catalogue: &Catalogue,
    by: By,
    axis: &Axis,
    bounds: &[String; 2],
) -> Option<Unindexed> {
    let (mut statements, mut wholes, mut bytes) = (Vec::new(), BTreeSet::new(), 0);
    for node in nodes {
        let scan = node.weigh(nodes, catalogue, bounds);
        let is_found = scan.is_bounded && (by == By::Time || node.is_of_btree(catalogue));
        let Some(column) = node.column(axis, bounds).filter(|_| !is_found) else { continue };
        let name = node.name(catalogue);
        let statement = format!("CREATE INDEX CONCURRENTLY ON {name} ({column})");
        if statements.contains(&statement) {
            continue;
        }
        statements.push(statement);
        let relation = catalogue.get(&(node.schema.clone(), node.table.clone()));
        bytes += relation.map_or(0, |relation| relation.bytes);
        if let Some(root) = relation.and_then(|relation| relation.root.as_ref()) {
            wholes.insert(format!("CREATE INDEX ON {root} ({column})"));
        }
    }
    let is_large = bytes > BYTES_MAX;
    (!statements.is_empty()).then_some(Unindexed { statements, wholes, is_large })
}

impl PlanNode {
    /// Whether a B-tree finds its rows, or its relation cannot have one.
    fn is_of_btree(&self, catalogue: &Catalogue) -> bool {
        let index = self.index.as_ref().map(|name| (self.schema.clone(), name.clone()));
        index.is_none_or(|index| catalogue.get(&index).is_none_or(|it| it.method == "btree"))
    }
}
