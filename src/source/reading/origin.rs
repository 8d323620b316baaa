//! The relations below a rollup's table or view, and the values of `late` that are valid for them.
//!
//! The proofs of docs/ACCURACY.md apply to tables that transactions of the same database write. For
//! every other kind of relation the table there lists the valid values of `late`, and the others
//! are refused.

use sqlx::Row as _;

use crate::clients::db::{DbError, Tx};
use crate::model::hint::Fault;
use crate::model::rollup::{Late, Rollup};
use crate::model::sql::{literal, table};
use crate::source::reading::shape::ShapeError;

const DOING: &str = "looking at what the source stands on";

/// The source, or a relation that it is built on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct OriginRelation {
    name: String,
    kind: String,
    persistence: String,
    /// Belongs to PostgreSQL itself.
    is_own: bool,
    is_subscribed: bool,
    /// A partition or child of another one of them.
    is_child: bool,
    /// A view that reads the current time.
    has_clock: bool,
    /// A view over the result of a function.
    has_function_rows: bool,
    /// A view whose rows combine several: groups, windows, limits, subqueries in expressions.
    has_merged_rows: bool,
    /// A function that a view calls, whose result may change without a write.
    function: Option<String>,
}

/// Refuses a source for which `rollup.late` is not proven.
pub(super) async fn check_origin(tx: &mut Tx, rollup: &Rollup) -> Result<(), ShapeError> {
    if rollup.late == Late::Grace {
        return Ok(());
    }
    let relations = relations(tx, rollup).await?;
    match problem(&rollup.late, &relations) {
        None => Ok(()),
        Some(problem) => Err(ShapeError::Unfit {
            rollup: rollup.name.clone(),
            problem: Fault::new(format!(
                "late: \"{}\" cannot notice every change: {problem}",
                rollup.late.word()
            ))
            .remedy(
                "use late = \"grace\" with `lookback`, or keep the rows in a table of this database",
            ),
        }),
    }
}

async fn relations(tx: &mut Tx, rollup: &Rollup) -> Result<Vec<OriginRelation>, DbError> {
    let sql = format!(include_str!("origin.sql"), relation = literal(&table(&rollup.from)));
    let rows = tx.rows(DOING, sql).await?;
    rows.iter()
        .map(|row| {
            Ok(OriginRelation {
                name: row.try_get("name")?,
                kind: row.try_get("kind")?,
                persistence: row.try_get("persistence")?,
                is_own: row.try_get("is_own")?,
                is_subscribed: row.try_get("is_subscribed")?,
                is_child: row.try_get("is_child")?,
                has_clock: row.try_get("has_clock")?,
                has_function_rows: row.try_get("has_function_rows")?,
                has_merged_rows: row.try_get("has_merged_rows")?,
                function: row.try_get("function")?,
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|source| tx.error(DOING, source))
}

/// Why `late` is not proven for rows from `relations`, the first of which is the source itself.
fn problem(late: &Late, relations: &[OriginRelation]) -> Option<String> {
    if *late == Late::Capture {
        // Relations that cannot have triggers are reported with the capture. This finds those where
        // triggers are ineffective.
        return relations.iter().find_map(OriginRelation::defeats_a_trigger);
    }
    if let Some(problem) = relations.iter().find_map(OriginRelation::defeats_waiting) {
        return Some(problem);
    }
    let tables: Vec<&OriginRelation> =
        relations.iter().filter(|it| matches!(&*it.kind, "r" | "p") && !it.is_child).collect();
    (tables.len() > 1).then(|| {
        format!(
            "the view stands on several tables ({}, {}), and a row of one can make a row of the other \
             appear later",
            tables[0].name, tables[1].name
        )
    })
}

impl OriginRelation {
    /// Why its rows change outside of local transactions, or by another clock.
    fn defeats_waiting(&self) -> Option<String> {
        let Self { name, .. } = self;
        if let Some(why) = self.is_foreign() {
            return Some(why);
        }
        if self.kind == "m" {
            return Some(format!(
                "{name} is a materialized view, whose rows change when it is refreshed"
            ));
        }
        if self.has_clock {
            return Some(format!(
                "view {name} asks for the time, so rows come and go without a write"
            ));
        }
        if self.has_function_rows {
            return Some(format!("view {name} shows what a function returns"));
        }
        if let Some(function) = &self.function {
            return Some(format!(
                "view {name} calls {function}, whose result may change without a write"
            ));
        }
        self.has_merged_rows.then(|| {
            format!(
                "view {name} makes rows of several (groups, windows, limits, subqueries), so that one \
                 changes when another is written"
            )
        })
    }

    /// Why triggers on it miss some changes.
    fn defeats_a_trigger(&self) -> Option<String> {
        let Self { name, persistence, .. } = self;
        if persistence == "u" {
            return Some(format!("{name} is unlogged: a crash empties it, and no trigger tells"));
        }
        self.is_foreign()
    }

    /// Why other databases write its rows too.
    fn is_foreign(&self) -> Option<String> {
        let Self { name, .. } = self;
        if self.kind == "f" {
            return Some(format!(
                "{name} is a foreign table, written by transactions that this server does not know"
            ));
        }
        if self.is_own && self.kind != "v" {
            return Some(format!(
                "{name} is one of PostgreSQL's own, which has no such transactions"
            ));
        }
        self.is_subscribed.then(|| {
            format!(
                "{name} is filled by a subscription: its rows arrive later than another server stamped \
                 them"
            )
        })
    }
}
