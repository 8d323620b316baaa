//! Whether there is an index at all, whatever PostgreSQL would use now: a small table is read whole all
//! the same, and has grown when the index is missed.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeZone as _, Utc};

use super::{BYTES_MAX, Catalogue, Node, catalogue, explain, walk};
use crate::db::{DbError, Tx};
use crate::rollup::Rollup;
use crate::source::axis::Axis;
use crate::source::read;
use crate::source::shape::Shape;
use crate::sql::table;

/// Years within which times lie. A look at the time is planned over all of them, so that every partition is
/// in the plan: what is advised for the whole table finds an index on each.
const YEARS: [i32; 2] = [1970, 2100];

/// As many tables are named; of the others it is said how many there are.
const NAMED_MAX: usize = 3;

/// For which look an index is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The rows of a slice, by their time and the rollup's own condition.
    Time,
    /// All rows that changed between two times. They lie anywhere in the table, where a BRIN index does not
    /// help: a B-tree.
    Change,
}

/// Tables, or partitions, without an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unindexed {
    /// The statement for each of them.
    pub statements: Vec<String>,
    /// Those for the partitioned tables that they belong to, once they are made.
    pub wholes: BTreeSet<String>,
    /// Whether they are so large that each look is felt.
    pub is_large: bool,
}

impl Unindexed {
    /// What makes the missing indexes, as their owner.
    #[must_use]
    pub fn remedy(&self) -> String {
        let named = &self.statements[..self.statements.len().min(NAMED_MAX)];
        let mut remedy = named.join("; ");
        let more = self.statements.len() - named.len();
        if more > 0 {
            remedy.push_str(&format!("; and likewise on {more} more"));
        }
        // CONCURRENTLY is refused on a partitioned table. An index there takes those of its partitions
        // as its own.
        for whole in &self.wholes {
            remedy.push_str(&format!("; then, for new partitions too: {whole}"));
        }
        remedy
    }
}

/// Which tables behind `rollup` have no index for a look at the time, or at changes between `bounds`;
/// `None`: each has one. PostgreSQL is asked for a plan with whole scans put off, so an
/// index that is invalid, partial, of an expression or begins with another column counts as it would.
/// The settings hold for the rest of `tx`.
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
    let plan =
        explain(tx, &format!("SELECT FROM {} WHERE {condition}", table(&rollup.from))).await?;
    let mut nodes = Vec::new();
    walk(&plan, None, &mut nodes);
    let catalogue = catalogue(tx, &nodes, "NULL").await?;
    Ok(missing(&nodes, &catalogue, by, axis, &axis.bounds_shown(start, end)))
}

fn year(year: i32) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).single().unwrap_or(DateTime::UNIX_EPOCH)
}

/// The tables of a plan that no index finds by `axis`, with the remedy.
fn missing(
    nodes: &[Node],
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

impl Node {
    /// Whether what it reads is found by a B-tree, or is no table that could have one.
    fn is_of_btree(&self, catalogue: &Catalogue) -> bool {
        let index = self.index.as_ref().map(|name| (self.schema.clone(), name.clone()));
        index.is_none_or(|index| catalogue.get(&index).is_none_or(|it| it.method == "btree"))
    }
}
