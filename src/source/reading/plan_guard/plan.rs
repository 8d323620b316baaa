//! The plan of a statement, and what each of its scans would read.

use serde_json::Value;
use sqlx::Row as _;

use super::Scan;
use super::catalogue::{Catalogue, CatalogueRelation};
use crate::clients::db::{DbError, Tx};
use crate::model::lookup;
use crate::model::sql::{ident, shown};
use crate::source::reading::axis::Axis;

/// Bytes of a row without statistics: a short event.
const ROW_BYTES: f64 = 100.0;

/// A scan as the plan shows it.
#[derive(Clone, Debug)]
pub(super) struct PlanNode {
    pub(super) method: String,
    pub(super) schema: String,
    pub(super) table: String,
    pub(super) alias: String,
    pub(super) index: Option<String>,
    /// The index condition.
    pub(super) condition: String,
    /// The condition tested row by row.
    pub(super) filter: String,
    pub(super) rows: f64,
}

/// The plan of `sql`, which is only explained.
pub(super) async fn explain(tx: &mut Tx, sql: &str) -> Result<Value, DbError> {
    const DOING: &str = "explaining a slice";
    let row = tx.row(DOING, format!("EXPLAIN (VERBOSE, FORMAT JSON) {sql}")).await?;
    let text: String = row.try_get_unchecked(0).map_err(|source| tx.error(DOING, source))?;
    let mut plan: Value = serde_json::from_str(&text)
        .map_err(|source| tx.error(DOING, sqlx::Error::Decode(source.into())))?;
    Ok(plan.pointer_mut("/0/Plan").map(Value::take).unwrap_or_default())
}

/// The number of rows to be grouped.
pub(super) fn input_rows(mut plan: &Value) -> f64 {
    const ABOVE: [&str; 4] = ["Aggregate", "Group", "Sort", "Incremental Sort"];
    while plan["Node Type"].as_str().is_some_and(|method| ABOVE.contains(&method)) {
        plan = &plan["Plans"][0];
    }
    plan["Plan Rows"].as_f64().unwrap_or(0.0)
}

/// Collects the scans below `plan`. `heap` is the table of the bitmap that is being built.
pub(super) fn walk(plan: &Value, heap: Option<&Value>, nodes: &mut Vec<PlanNode>) {
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let method = text(plan, "Node Type");
    // The scans of its indexes represent it.
    let is_bitmap_heap = method == "Bitmap Heap Scan";
    let of = if method == "Bitmap Index Scan" { heap.unwrap_or(plan) } else { plan };
    if !is_bitmap_heap && of["Relation Name"].is_string() {
        nodes.push(PlanNode {
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

impl PlanNode {
    /// The table's name in a statement.
    pub(super) fn name(&self, catalogue: &Catalogue) -> String {
        let known = catalogue.get(&(self.schema.clone(), self.table.clone()));
        known.map_or_else(
            || format!("{}.{}", ident(&self.schema), ident(&self.table)),
            |it| it.name.clone(),
        )
    }

    /// Whether the slice's time bounds the index.
    pub(super) fn is_by_time(&self, bounds: &[String; 2]) -> bool {
        bounds.iter().any(|bound| self.condition.contains(bound))
    }

    /// The amount that it would read.
    pub(super) fn weigh(&self, all: &[Self], catalogue: &Catalogue, bounds: &[String; 2]) -> Scan {
        let find = |name: &String| catalogue.get(&(self.schema.clone(), name.clone()));
        let whole = find(&self.table);
        let index = self.index.as_ref().and_then(find);
        let is_bounded = match index {
            None => self.index.is_some() || !self.method.ends_with("Seq Scan"),
            Some(index) if self.is_by_time(bounds) => self.is_bounded_by(index, bounds),
            // A merge ends where the slice's keys end, which the planner has weighed.
            Some(_) if self.is_of_lookup() => true,
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
    pub(super) fn blocks(&self, catalogue: &Catalogue) -> f64 {
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
    fn is_bounded_by(&self, index: &CatalogueRelation, bounds: &[String; 2]) -> bool {
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

    /// Whether it reads the table of a lookup.
    pub(super) fn is_of_lookup(&self) -> bool {
        self.alias.starts_with(lookup::PREFIX)
    }

    /// Whether the rows are looked up one by one, by values of another table. Rows of the source
    /// that are found by values of a lookup may be of any time.
    fn is_lookup(&self, all: &[Self]) -> bool {
        all.iter().any(|other| {
            other.alias != self.alias
                && !other.is_of_lookup()
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
    pub(super) fn column(&self, axis: &Axis, bounds: &[String; 2]) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn node(alias: &str, condition: &str) -> PlanNode {
        PlanNode {
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

    fn btree(keys: &[&str]) -> CatalogueRelation {
        let keys = keys.iter().map(|&key| key.into()).collect();
        CatalogueRelation {
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

    /// A condition on a lookup may turn the join around.
    #[test]
    fn rows_of_the_source_that_a_lookup_finds_are_not_bounded() {
        let lookup = node("__lookup_account", "(__lookup_account.id = orders.account_id)");
        let orders = node("orders", "(orders.account_id = __lookup_account.id)");
        let all = [lookup.clone(), orders.clone()];
        assert_eq!((lookup.is_lookup(&all), orders.is_lookup(&all)), (true, false));
    }

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
}
