//! The tables and indexes of a plan, as PostgreSQL's catalogue shows them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::Row as _;

use super::plan::PlanNode;
use crate::clients::db::{DbError, Tx};
use crate::model::clock::Stopwatch;
use crate::model::sql::literal;

/// How long the sizes of tables serve further slices.
const KNOWN_FOR: Duration = Duration::from_secs(60);

/// The catalogues of at most this many plans are kept.
const KNOWN_MAX: usize = 64;

/// A table or index as the catalogue shows it.
#[derive(Clone, Debug)]
pub(super) struct CatalogueRelation {
    /// With its schema, each quoted where PostgreSQL needs it.
    pub(super) name: String,
    /// The partitioned table to which it belongs, quoted alike.
    pub(super) root: Option<String>,
    pub(super) rows: Option<f64>,
    pub(super) bytes: i64,
    pub(super) blocks: f64,
    pub(super) correlation: Option<f64>,
    pub(super) method: String,
    pub(super) keys: Vec<String>,
}

pub(super) type Catalogue = BTreeMap<(String, String), CatalogueRelation>;

/// The catalogues of recent plans, by rollup and the names in the plan. A plan that reads other
/// tables or indexes is looked up again.
#[derive(Debug, Default)]
pub(crate) struct KnownTables(Mutex<HashMap<(String, String), (Catalogue, Stopwatch)>>);

impl KnownTables {
    fn find(&self, rollup: &str, names: &str) -> Option<Catalogue> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (catalogue, since) = known.get(&(rollup.to_owned(), names.to_owned()))?;
        (since.elapsed() < KNOWN_FOR).then(|| catalogue.clone())
    }

    fn keep(&self, rollup: &str, names: String, catalogue: &Catalogue) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        known.insert((rollup.to_owned(), names), (catalogue.clone(), Stopwatch::start()));
    }
}

/// The tables and indexes of `nodes`, which a recent slice of `rollup` may have looked up.
pub(super) async fn shared_catalogue(
    tx: &mut Tx,
    nodes: &[PlanNode],
    rollup: &str,
    known: &KnownTables,
) -> Result<Catalogue, DbError> {
    let names = names_of(nodes);
    if let Some(catalogue) = known.find(rollup, &names) {
        return Ok(catalogue);
    }
    let found = catalogue(tx, nodes, "NULL").await?;
    known.keep(rollup, names, &found);
    Ok(found)
}

/// The tables and indexes of `nodes`, as a list in SQL.
fn names_of(nodes: &[PlanNode]) -> String {
    let names: Vec<String> = nodes
        .iter()
        .flat_map(|node| {
            let relations = std::iter::once(&node.table).chain(&node.index);
            relations.map(|name| format!("({}, {})", literal(&node.schema), literal(name)))
        })
        .collect();
    names.join(", ")
}

pub(super) async fn catalogue(
    tx: &mut Tx,
    nodes: &[PlanNode],
    correlation: &str,
) -> Result<Catalogue, DbError> {
    const DOING: &str = "asking for the tables of a plan";
    if nodes.is_empty() {
        return Ok(Catalogue::new());
    }
    let sql = format!(
        include_str!("../plan_guard.sql"),
        names = names_of(nodes),
        correlation = correlation
    );
    let rows = tx.rows(DOING, sql).await?;
    let relation = |row: &sqlx::postgres::PgRow| {
        Ok::<_, sqlx::Error>((
            (row.try_get("schema")?, row.try_get("name")?),
            CatalogueRelation {
                name: row.try_get("shown")?,
                root: row.try_get("root")?,
                rows: row.try_get("rows")?,
                bytes: row.try_get("bytes")?,
                blocks: row.try_get("blocks")?,
                correlation: row.try_get("correlation")?,
                method: row.try_get::<Option<String>, _>("method")?.unwrap_or_default(),
                keys: row.try_get("keys")?,
            },
        ))
    };
    rows.iter().map(relation).collect::<Result<_, _>>().map_err(|source| tx.error(DOING, source))
}
