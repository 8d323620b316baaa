//! The tables and indexes of a plan, as PostgreSQL's catalogue shows them.

use std::collections::BTreeMap;

use sqlx::Row as _;

use super::plan::PlanNode;
use crate::clients::db::{DbError, Tx};
use crate::model::sql::literal;

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

pub(super) async fn catalogue(
    tx: &mut Tx,
    nodes: &[PlanNode],
    correlation: &str,
) -> Result<Catalogue, DbError> {
    const DOING: &str = "asking for the tables of a plan";
    if nodes.is_empty() {
        return Ok(Catalogue::new());
    }
    let names: Vec<String> = nodes
        .iter()
        .flat_map(|node| {
            let relations = std::iter::once(&node.table).chain(&node.index);
            relations.map(|name| format!("({}, {})", literal(&node.schema), literal(name)))
        })
        .collect();
    let names = names.join(", ");
    let sql = format!(include_str!("../plan_guard.sql"), names = names, correlation = correlation);
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
