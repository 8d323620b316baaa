//! How many groups a stretch of the source gives, by the planner's statistics.

use chrono::{DateTime, Utc};

use super::plan::explain;
use crate::clients::db::{DbError, Tx};
use crate::model::rollup::Rollup;
use crate::model::sql::ident;
use crate::source;
use crate::source::reading::read::{self, Form};
use crate::source::reading::shape::Shape;

/// The groups of one bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Grouping {
    /// Source rows in the bucket.
    pub(crate) rows: f64,
    pub(crate) groups: f64,
    /// Bytes of a group's values.
    pub(crate) width: f64,
    /// Bytes of its dimensions among them.
    pub(crate) key_width: f64,
}

/// The groups between `start` and `end`, which lie in one bucket. The planner knows how many values
/// the dimensions have together, and nothing useful of the bucket's expression. Nothing is read.
///
/// # Errors
/// The server refuses, or cannot be reached.
pub(crate) async fn grouping(
    tx: &mut Tx,
    rollup: &Rollup,
    shape: &Shape,
    (start, end): (DateTime<Utc>, DateTime<Utc>),
) -> Result<Grouping, DbError> {
    let number = |plan: &serde_json::Value, key: &str| plan[key].as_f64().unwrap_or(0.0);
    let from = format!(
        "FROM {} WHERE {}",
        source::of(rollup).relation(rollup),
        read::condition(rollup, shape, start, end)
    );
    let rows = number(&explain(tx, &format!("SELECT {from}")).await?, "Plan Rows");
    let whole = read::select(rollup, shape, Form::Whole, (start, start, end), false);
    let width = number(&explain(tx, &whole).await?, "Plan Width");
    if shape.dimensions.is_empty() {
        return Ok(Grouping { rows, groups: rows.min(1.0), width, key_width: 0.0 });
    }
    let keys: Vec<_> = shape.dimensions.iter().map(|it| ident(&it.reads)).collect();
    let keys = keys.join(", ");
    let plan = explain(tx, &format!("SELECT {keys} {from} GROUP BY {keys}")).await?;
    let groups = number(&plan, "Plan Rows").min(rows);
    Ok(Grouping { rows, groups, width, key_width: number(&plan, "Plan Width") })
}
