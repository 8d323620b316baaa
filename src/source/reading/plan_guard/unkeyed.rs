//! Finds tables without an index for a look at some keys.

use std::collections::BTreeSet;

use super::{BYTES_MAX, Unindexed, catalogue, explain, walk};
use crate::clients::db::{DbError, Tx};
use crate::model::sql::shown;

/// The tables that `query` would read otherwise than by the values of the relation `keys`, and so
/// need an index on `columns`. `None`: there are none. PostgreSQL plans with whole scans disabled, so
/// that an index that can be used is used. The setting holds for the rest of `tx`.
///
/// # Errors
/// As [`super::inspect`].
pub(crate) async fn unkeyed(
    tx: &mut Tx,
    query: &str,
    keys: &str,
    columns: &[&str],
) -> Result<Option<Unindexed>, DbError> {
    const DOING: &str = "putting off whole scans";
    tx.execute(DOING, "SET LOCAL enable_seqscan = off".to_owned()).await?;
    let plan = explain(tx, query).await?;
    let mut nodes = Vec::new();
    walk(&plan, None, &mut nodes);
    let catalogue = catalogue(tx, &nodes, "NULL").await?;
    let columns: Vec<String> = columns.iter().map(|column| shown(column)).collect();
    let columns = columns.join(", ");
    let (mut statements, mut wholes, mut bytes) = (Vec::new(), BTreeSet::new(), 0);
    for node in nodes.iter().filter(|node| !node.condition.contains(&format!("{keys}."))) {
        let name = node.name(&catalogue);
        let statement = format!("CREATE INDEX CONCURRENTLY ON {name} ({columns})");
        if statements.contains(&statement) {
            continue;
        }
        statements.push(statement);
        let relation = catalogue.get(&(node.schema.clone(), node.table.clone()));
        bytes += relation.map_or(0, |relation| relation.bytes);
        if let Some(root) = relation.and_then(|relation| relation.root.as_ref()) {
            wholes.insert(format!("CREATE INDEX ON {root} ({columns})"));
        }
    }
    let is_large = bytes > BYTES_MAX;
    Ok((!statements.is_empty()).then_some(Unindexed { statements, wholes, is_large }))
}
