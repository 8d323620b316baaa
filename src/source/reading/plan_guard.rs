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

mod unindexed;

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::Row as _;

use crate::clients::db::{DbError, Tx};
use crate::model::rollup::Rollup;
use crate::model::sql::{ident, literal, shown};
use crate::source;
use crate::source::reading::axis::Axis;
use crate::source::reading::read::{self, Form};
use crate::source::reading::shape::Shape;

pub use unindexed::{By, Unindexed, unindexed};

/// Unbounded scans may read this many times the rows of the slice. PostgreSQL itself rightly
/// prefers a full scan from about a tenth of the table on.
const ROWS_RATIO_MAX: f64 = 10.0;

/// Unbounded scans may also read this many bytes in total, which has no noticeable effect.
const BYTES_MAX: i64 = 16 * 1024 * 1024;

/// Bytes of a row without statistics: a short event.
const ROW_BYTES: f64 = 100.0;

/// How a slice would be read.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlannedRead {
    /// Rows of the slice, by the planner's statistics.
    pub rows: f64,
    /// The scans of tables, in the plan's order.
    pub scans: Vec<Scan>,
    /// Why the plan is refused.
    pub refusal: Option<String>,
}

/// One scan of a table or index.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Scan {
    /// The plan's term: `Seq Scan`, `Index Scan`, ….
    pub method: String,
    pub table: String,
    /// The index, if one is used.
    pub index: Option<String>,
    /// Whether it reads only rows of the slice, or of a join.
    pub is_bounded: bool,
    /// Rows, or entries of the index, that it would read.
    pub rows: f64,
    /// Bytes that it would read, if it is unbounded.
    pub bytes: i64,
}

/// A scan as the plan shows it.
#[derive(Clone, Debug)]
struct Node {
    method: String,
    schema: String,
    table: String,
    alias: String,
    index: Option<String>,
    /// The index condition.
    condition: String,
    /// The condition tested row by row.
    filter: String,
    rows: f64,
}

/// A table or index as the catalogue shows it.
#[derive(Clone, Debug)]
struct Relation {
    /// With its schema, each quoted where PostgreSQL needs it.
    name: String,
    /// The partitioned table to which it belongs, quoted alike.
    root: Option<String>,
    rows: Option<f64>,
    bytes: i64,
    blocks: f64,
    correlation: Option<f64>,
    method: String,
    keys: Vec<String>,
}

type Catalogue = BTreeMap<(String, String), Relation>;

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
    let select = read::select(rollup, shape, Form::Whole, (start, start, end), false);
    let plan = explain(tx, &select).await?;
    let mut nodes = Vec::new();
    walk(&plan, None, &mut nodes);
    let bounds = shape.axis.bounds_shown(start, end);
    let catalogue = catalogue(tx, &nodes, "NULL").await?;
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
pub struct Volume {
    /// Rows that are grouped.
    pub rows: f64,
    /// Blocks of tables and indexes that are read.
    pub blocks: f64,
}

/// The rows and blocks between `start` and `end`, by statistics and the plan, without reading them.
///
/// # Errors
/// As [`inspect`].
pub async fn volume(
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
    let correlation = include_str!("correlation.sql");
    let catalogue = catalogue(tx, &nodes, correlation).await?;
    let blocks = nodes.iter().map(|node| node.blocks(&catalogue)).sum();
    Ok(Volume { rows: input_rows(&plan), blocks })
}

/// The planner's estimate of the rows between `start` and `end`, without reading them.
///
/// # Errors
/// As [`inspect`].
pub async fn estimate(
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

/// The plan of `sql`, which is only explained.
async fn explain(tx: &mut Tx, sql: &str) -> Result<Value, DbError> {
    const DOING: &str = "explaining a slice";
    let row = tx.row(DOING, format!("EXPLAIN (VERBOSE, FORMAT JSON) {sql}")).await?;
    let text: String = row.try_get_unchecked(0).map_err(|source| tx.error(DOING, source))?;
    let mut plan: Value = serde_json::from_str(&text)
        .map_err(|source| tx.error(DOING, sqlx::Error::Decode(source.into())))?;
    Ok(plan.pointer_mut("/0/Plan").map(Value::take).unwrap_or_default())
}

/// The number of rows to be grouped.
fn input_rows(mut plan: &Value) -> f64 {
    const ABOVE: [&str; 4] = ["Aggregate", "Group", "Sort", "Incremental Sort"];
    while plan["Node Type"].as_str().is_some_and(|method| ABOVE.contains(&method)) {
        plan = &plan["Plans"][0];
    }
    plan["Plan Rows"].as_f64().unwrap_or(0.0)
}

/// Collects the scans below `plan`. `heap` is the table of the bitmap that is being built.
fn walk(plan: &Value, heap: Option<&Value>, nodes: &mut Vec<Node>) {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let method = text(plan, "Node Type");
    // The scans of its indexes represent it.
    let is_bitmap_heap = method == "Bitmap Heap Scan";
    let of = if method == "Bitmap Index Scan" { heap.unwrap_or(plan) } else { plan };
    if !is_bitmap_heap && of["Relation Name"].is_string() {
        nodes.push(Node {
            schema: text(of, "Schema"),
            table: text(of, "Relation Name"),
            alias: text(of, "Alias"),
            index: plan["Index Name"].as_str().map(str::to_owned),
            condition: text(plan, "Index Cond"),
            filter: text(of, "Filter"),
            rows: plan["Plan Rows"].as_f64().unwrap_or(0.0),
            method,
        });
    }
    let heap = if is_bitmap_heap { Some(plan) } else { heap };
    for below in plan["Plans"].as_array().into_iter().flatten() {
        walk(below, heap, nodes);
    }
}

async fn catalogue(tx: &mut Tx, nodes: &[Node], correlation: &str) -> Result<Catalogue, DbError> {
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
    let sql = format!(include_str!("plan_guard.sql"), names = names, correlation = correlation);
    let rows = tx.rows(DOING, sql).await?;
    let relation = |row: &sqlx::postgres::PgRow| {
        Ok::<_, sqlx::Error>((
            (row.try_get("schema")?, row.try_get("name")?),
            Relation {
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

impl Node {
    /// The table's name in a statement.
    fn name(&self, catalogue: &Catalogue) -> String {
        let known = catalogue.get(&(self.schema.clone(), self.table.clone()));
        known.map_or_else(
            || format!("{}.{}", ident(&self.schema), ident(&self.table)),
            |it| it.name.clone(),
        )
    }

    /// Whether the slice's time bounds the index.
    fn is_by_time(&self, bounds: &[String; 2]) -> bool {
        bounds.iter().any(|bound| self.condition.contains(bound))
    }

    /// The amount that it would read.
    fn weigh(&self, all: &[Self], catalogue: &Catalogue, bounds: &[String; 2]) -> Scan {
        let find = |name: &String| catalogue.get(&(self.schema.clone(), name.clone()));
        let whole = find(&self.table);
        let index = self.index.as_ref().and_then(find);
        let is_bounded = match index {
            None => self.index.is_some() || !self.method.ends_with("Seq Scan"),
            Some(index) if self.is_by_time(bounds) => self.is_bounded_by(index, bounds),
            Some(_) => self.is_lookup(all),
        };
        let bytes = whole.map_or(0, |relation| relation.bytes);
        #[expect(clippy::cast_precision_loss, reason = "a size")]
        let guessed = bytes as f64 / ROW_BYTES;
        let held = index.or(whole).and_then(|relation| relation.rows).unwrap_or(guessed);
        Scan {
            method: self.method.clone(),
            table: format!("{}.{}", self.schema, self.table),
            index: self.index.clone(),
            is_bounded,
            rows: if is_bounded { self.rows } else { held.max(self.rows) },
            bytes: if is_bounded { 0 } else { bytes },
        }
    }

    /// The blocks that it reads. If the rows are stored in the index's order, they fill whole
    /// blocks. If they have no order, nearly each row is in a block of its own. In between it
    /// interpolates by the square of the correlation, as the planner's `cost_index` does.
    fn blocks(&self, catalogue: &Catalogue) -> f64 {
        let find = |name: &String| catalogue.get(&(self.schema.clone(), name.clone()));
        let Some(whole) = find(&self.table) else { return 0.0 };
        let Some(index) = self.index.as_ref().and_then(find) else { return whole.blocks };
        let all = whole.rows.unwrap_or(self.rows).max(1.0);
        let share = (self.rows / all).min(1.0);
        let entries = index.rows.unwrap_or(all).max(1.0);
        let leaves = index.blocks * (self.rows / entries).min(1.0);
        let in_order = share * whole.blocks;
        let scattered = whole.blocks * (1.0 - (-self.rows / whole.blocks.max(1.0)).exp());
        let correlation = index.correlation.unwrap_or(0.0).powi(2);
        let heap = scattered + correlation * (in_order - scattered);
        leaves + if self.method == "Index Only Scan" { 0.0 } else { heap }
    }

    /// Whether `index` reads only entries between the bounds: the time is its first key, or all
    /// keys before it are fixed. Only a B-tree reads its entries in key order. The other kinds were
    /// chosen for what they read.
    fn is_bounded_by(&self, index: &Relation, bounds: &[String; 2]) -> bool {
        if index.method != "btree" || index.keys.len() == 1 {
            return true;
        }
        let condition = self.unqualified(&self.condition);
        for key in &index.keys {
            if condition.contains(&format!("({key} = ")) {
                continue;
            }
            let parts = condition.split(" AND ");
            return parts
                .filter(|part| part.contains(&format!("({key} ")))
                .any(|part| bounds.iter().any(|bound| part.contains(bound)));
        }
        false
    }

    /// Whether the rows are looked up one by one, by values of another table.
    fn is_lookup(&self, all: &[Self]) -> bool {
        all.iter().any(|other| {
            other.alias != self.alias
                && [format!(" = {}.", other.alias), format!(" = {}.", ident(&other.alias))]
                    .iter()
                    .any(|column| self.condition.contains(column))
        })
    }

    fn unqualified(&self, condition: &str) -> String {
        condition
            .replace(&format!("{}.", ident(&self.alias)), "")
            .replace(&format!("{}.", self.alias), "")
    }

    /// The first column for an index on `axis`. In a view it is the expression behind the column.
    fn column(&self, axis: &Axis, bounds: &[String; 2]) -> Option<String> {
        let tested = self.unqualified(&format!("{} AND {}", self.condition, self.filter));
        let from = &bounds[0];
        let found = [shown(axis.column()), ident(axis.column())].into_iter().find(|column| {
            ["", "'"].iter().any(|quote| tested.contains(&format!("({column} >= {quote}{from}")))
        });
        if found.is_some() {
            return found;
        }
        let part = tested
            .split(" AND ")
            .find(|part| bounds.iter().any(|bound| part.contains(bound)))?
            .split(" >= ")
            .next()?
            .trim_start_matches('(')
            .to_owned();
        let is_column = part.starts_with('"') || !part.contains(['(', ' ', ':']);
        Some(if is_column { part } else { format!("({part})") })
    }
}

/// The scans of a plan, with their tables.
struct Read<'a> {
    scans: &'a [Scan],
    nodes: &'a [Node],
    catalogue: &'a Catalogue,
}

fn refusal(
    rollup: &Rollup,
    rows: f64,
    read: &Read<'_>,
    axis: &Axis,
    bounds: &[String; 2],
) -> String {
    let unbounded = read.scans.iter().zip(read.nodes).filter(|(scan, _)| !scan.is_bounded);
    let Some((worst, node)) = unbounded.max_by_key(|(scan, _)| scan.bytes) else {
        return String::new();
    };
    let name = node.name(read.catalogue);
    let by = match &worst.index {
        Some(index) => format!("all of index {index}"),
        None => "the whole of it".to_owned(),
    };
    let remedy = match node.column(axis, bounds) {
        Some(column) => format!(
            "as its owner: CREATE INDEX CONCURRENTLY ON {name} ({column}); ANALYZE {name}; if there \
             is such an index, ANALYZE may be all that is missing"
        ),
        None => format!("an index on the columns of {name} by which it is joined is missing"),
    };
    format!(
        "plan guard: a slice of rollup `{}` holds about {} rows, and to find them PostgreSQL would read \
         about {} of {} ({by}, {} MB); {remedy}. If reading so much is meant, set plan_guard = false in \
         the rollup",
        rollup.name,
        about(rows),
        about(worst.rows),
        worst.table,
        worst.bytes / (1024 * 1024),
    )
}

/// A number of rows, rounded to the precision of an estimate.
#[must_use]
pub fn about(rows: f64) -> String {
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

    fn node(alias: &str, condition: &str) -> Node {
        Node {
            method: "Index Scan".into(),
            schema: "public".into(),
            table: "events".into(),
            alias: alias.into(),
            index: Some("i".into()),
            condition: condition.into(),
            filter: String::new(),
            rows: 5.0,
        }
    }

    fn btree(keys: &[&str]) -> Relation {
        let keys = keys.iter().map(|&key| key.into()).collect();
        Relation {
            name: "i".into(),
            root: None,
            rows: None,
            bytes: 0,
            blocks: 0.0,
            correlation: None,
            method: "btree".into(),
            keys,
        }
    }

    const BOUNDS: [&str; 2] = ["2026-01-01 00:00:00", "2026-01-02 00:00:00"];

    /// Keys before the time must be fixed, or the whole index is read.
    #[test]
    fn an_index_is_bounded_by_time_only_behind_given_keys() {
        let bounds = BOUNDS.map(str::to_owned);
        let time = "(e.at >= '2026-01-01 00:00:00+00') AND (e.at < '2026-01-02 00:00:00+00')";
        let given = format!("((e.tenant = 5) AND {time})");
        for (condition, keys, is_bounded) in [
            (time, &["at"][..], true),
            (time, &["at", "tenant"], true),
            (time, &["tenant", "at"], false),
            (&given, &["tenant", "at"], true),
            (&given, &["kind", "tenant", "at"], false),
        ] {
            let is = node("e", condition).is_bounded_by(&btree(keys), &bounds);
            assert_eq!(is, is_bounded, "{condition} {keys:?}");
        }
    }

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
