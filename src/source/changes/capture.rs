//! Capture: triggers on the source table mark the hours of late changes.
//!
//! A row is late when its time is older than the grace at the moment of writing. An unmarked row
//! was written before its slice's end and grace were over, by a transaction that had an ID then,
//! and [`crate::source::settle`] waits for those. So every change is either visible when its slice
//! is read, or marked. The table of marks has no unique constraint, so a writer never waits for
//! another because of capture.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::clients::db::{DbError, Tx};
use crate::model::clock::whole_ms;
use crate::model::hint::Fault;
use crate::model::rollup::{Rollup, TableName};
use crate::model::sql::{literal, table};
use crate::source::changes::lookup::{self, LookupCapture, MarkedLookup};
use crate::source::reading::axis::Axis;
use crate::source::reading::shape::Shape;

mod install;
mod relation;
mod used;

use relation::{Relation, relations};
use used::RowUse;
pub(crate) use used::UsedColumns;

/// The purpose of a table's triggers, stored as the comment of their function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Purpose {
    /// Raised when the function itself changes.
    version: u32,
    /// A row counts as late from this age on, in milliseconds, at the time of writing.
    grace_ms: u64,
    /// The time columns, and the reading of each.
    axes: BTreeMap<String, String>,
    /// The columns whose change marks a row. Before version 4 every update of a late row did.
    #[serde(default)]
    columns: UsedColumns,
}

/// The version of the functions and triggers in [`crate::source::changes::triggers`].
const VERSION: u32 = 4;

/// The oldest version that serves too.
const VERSION_MIN: u32 = 3;

/// A source table whose late changes are to be captured, for all rollups that count it.
#[derive(Clone, Debug)]
pub struct Capture {
    /// The table, as the rollups name it.
    pub(crate) table: TableName,
    axes: Vec<Axis>,
    grace: Duration,
    pub(crate) lookups: Vec<LookupCapture>,
    /// What each rollup reads of a row.
    uses: Vec<RowUse>,
    /// The consumers of this configuration's rollups.
    own: BTreeMap<String, i64>,
}

/// The state of a table's capture.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureState {
    /// The name under which its marks are stored. `None`: it cannot have any.
    pub(crate) key: Option<String>,
    /// The problem that makes the capture incomplete, with the remedy.
    pub(crate) problem: Option<Fault>,
    /// Whether `capture install` can repair it.
    pub(crate) can_be_installed: bool,
    /// The lookups of its rollups whose marked keys can be read.
    pub(crate) lookups: Vec<MarkedLookup>,
    /// Whether it has partitions.
    pub(crate) is_partitioned: bool,
    /// The axes of all rollups that count it, as [`axis_key`] names them.
    axes: Vec<String>,
    /// The source's time before its marks are read. `None`: the table is missing.
    pub(crate) seen_at: Option<DateTime<Utc>>,
    /// The columns whose change is marked. `None`: there are no triggers.
    pub(crate) compared: Option<UsedColumns>,
    /// The columns that each rollup uses.
    used: BTreeMap<String, UsedColumns>,
}

impl CaptureState {
    /// The columns that `rollup` uses.
    #[must_use]
    pub(crate) fn used_by(&self, rollup: &str) -> UsedColumns {
        self.used.get(rollup).cloned().unwrap_or(UsedColumns::ALL)
    }

    /// Whether every late change is marked.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.problem.is_none()
    }
}

impl Capture {
    /// The capture of `table` for the rollups that count it, which are at least one.
    #[must_use]
    pub fn new(table: &TableName, rollups: &[(&Rollup, &Shape)]) -> Self {
        let mut axes: Vec<Axis> = Vec::new();
        for (_, shape) in rollups {
            if !axes.iter().any(|known| is_same(known, &shape.axis)) {
                axes.push(shape.axis.clone());
            }
        }
        axes.sort_by_key(axis_key);
        let grace = rollups.iter().map(|(rollup, _)| rollup.grace).min().unwrap_or_default();
        let lookups = lookup::captures(table, rollups);
        let uses = rollups.iter().map(|(rollup, _)| RowUse::by(rollup)).collect();
        Self { table: table.clone(), axes, grace, lookups, uses, own: BTreeMap::new() }
    }

    /// The same with the consumers of this configuration's rollups, whose columns `install` sets.
    #[must_use]
    pub(crate) fn with_consumers(self, own: BTreeMap<String, i64>) -> Self {
        Self { own, ..self }
    }

    fn purpose(&self, columns: UsedColumns) -> Purpose {
        Purpose {
            version: VERSION,
            grace_ms: whole_ms(self.grace),
            axes: self.axes.iter().map(|axis| (axis_key(axis), axis.reading())).collect(),
            columns,
        }
    }

    /// The columns that its rollups use.
    fn used(&self, relations: &[Relation]) -> UsedColumns {
        let each = self.uses.iter().map(|it| it.columns(relations));
        each.reduce(|one, other| one.and(&other)).unwrap_or(UsedColumns::ALL)
    }

    async fn relations(&self, tx: &mut Tx) -> Result<Vec<Relation>, DbError> {
        let texts: Vec<&str> =
            self.uses.iter().flat_map(|it| &it.texts).map(String::as_str).collect();
        relations(tx, &self.table, &texts.join("\n")).await
    }

    /// The state of the table's capture.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub async fn standing(&self, tx: &mut Tx) -> Result<CaptureState, DbError> {
        let relations = self.relations(tx).await?;
        let mut state = self.judge(&relations);
        let lookups = lookup::standing(tx, &self.lookups).await?;
        state.problem = state.problem.or(lookups.problem);
        state.can_be_installed &= lookups.can_be_installed;
        state.lookups = lookups.marked;
        Ok(state)
    }

    fn judge(&self, relations: &[Relation]) -> CaptureState {
        let root = relations.first().filter(|root| root.has_marks && root.has_consumers);
        let key = root.and_then(|root| root.function.clone());
        let made_for = root.and_then(Relation::made_for);
        let compared = made_for.as_ref().map(|it| it.compared(relations));
        let axes = made_for.map(|it| it.axes.into_keys().collect()).unwrap_or_default();
        let is_partitioned = relations.first().is_some_and(|root| root.kind == "p");
        let can_be_installed = relations.iter().all(Relation::can_be_captured);
        CaptureState {
            problem: self.problem(relations),
            key,
            can_be_installed,
            lookups: Vec::new(),
            is_partitioned,
            axes,
            seen_at: relations.first().map(|root| root.seen_at),
            compared,
            used: self.uses.iter().map(|it| (it.rollup.clone(), it.columns(relations))).collect(),
        }
    }

    /// Marks the hours of partitions that were attached or detached since the last call.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub(crate) async fn mark_partitions(
        &self,
        tx: &mut Tx,
        standing: &CaptureState,
    ) -> Result<(), DbError> {
        let Some(key) = standing.key.as_ref().filter(|_| standing.is_partitioned) else {
            return Ok(());
        };
        let sql = self.partitions(key, &standing.axes);
        tx.execute("looking at the partitions", sql).await.map(drop)
    }

    /// The statement that does so for these axes.
    fn partitions(&self, key: &str, axes: &[String]) -> String {
        let hours = self.axes.iter().map(|axis| {
            format!("{}::text, {}", literal(&axis_key(axis)), axis.hours_within("bounds.text"))
        });
        let hours: Vec<String> = hours.collect();
        let axes: Vec<String> = axes.iter().map(|axis| literal(axis)).collect();
        format!(
            include_str!("partitions.sql"),
            relation = literal(&table(&self.table)),
            capture = literal(key),
            hours = format!("jsonb_build_object({})", hours.join(", ")),
            axes = axes.join(", ")
        )
    }

    fn problem(&self, relations: &[Relation]) -> Option<Fault> {
        let Some(root) = relations.first() else {
            return Some(Fault::new(format!("there is no table {}", table(&self.table))));
        };
        if let Some(unfit) = relations.iter().find(|relation| !relation.can_be_captured()) {
            let facts = format!(
                "{} is no table of this database, so its changes cannot be captured",
                unfit.name
            );
            return Some(Fault::new(facts).remedy("use late = \"grace\""));
        }
        let facts = self.missing(root, relations)?;
        Some(Fault::new(facts).remedy("run `tallymark capture install`, then `tallymark verify`"))
    }

    /// The part of the capture that `capture install` has to make.
    fn missing(&self, root: &Relation, relations: &[Relation]) -> Option<String> {
        let name = &root.name;
        if root.description.is_none() {
            return Some(format!("{name} has no capture triggers"));
        }
        if !root.has_marks {
            return Some("the table tallymark.mark is gone".to_owned());
        }
        if !root.has_consumers {
            return Some(format!("the capture triggers of {name} were made by an older version"));
        }
        let used = self.used(relations);
        let wanted = self.purpose(used.clone());
        let Some(made_for) = root.made_for().filter(|made_for| made_for.serves(&wanted)) else {
            return Some(format!("the capture triggers of {name} were made for other settings"));
        };
        let compared = made_for.compared(relations);
        if !compared.cover(&used) {
            return Some(format!(
                "the capture triggers of {name} leave out {}, which a rollup uses",
                used.beyond(&compared)
            ));
        }
        if !root.has_mark_function {
            return Some(format!(
                "the function that marks late changes of {name} is gone, and the application cannot \
                 write them"
            ));
        }
        let found = relations.iter().find_map(|relation| {
            relation.wanted().find_map(|name| {
                match relation.triggers.get(name).map(String::as_str) {
                    Some("A") => None,
                    Some(_) => {
                        Some(format!("trigger {name} of {} is not enabled always", relation.name))
                    }
                    None => Some(format!("{} has no trigger {name}", relation.name)),
                }
            })
        })?;
        Some(format!("late changes are not captured: {found}"))
    }
}

/// The state of the table of one rollup, as far as this rollup needs it.
///
/// # Errors
/// The server refuses or cannot be reached.
pub(crate) async fn standing(
    tx: &mut Tx,
    rollup: &Rollup,
    shape: &Shape,
) -> Result<CaptureState, DbError> {
    Capture::new(&rollup.from, &[(rollup, shape)]).standing(tx).await
}

/// The name of an axis in marks, as a column may be read in several zones.
#[must_use]
pub(crate) fn axis_key(axis: &Axis) -> String {
    match axis.reading().as_str() {
        "instant" => axis.column().to_owned(),
        reading => format!("{} {reading}", axis.column()),
    }
}

fn is_same(one: &Axis, other: &Axis) -> bool {
    axis_key(one) == axis_key(other)
}

impl Purpose {
    /// The columns that the triggers compare. Their names are present ones, as the catalogue has
    /// them: a column may have been renamed, and another have got its name.
    fn compared(&self, relations: &[Relation]) -> UsedColumns {
        let own = relations.iter().filter(|relation| !relation.is_partition);
        own.fold(self.columns.clone(), |columns, relation| columns.in_both(&relation.compared))
    }

    /// Whether triggers made for this purpose also serve `wanted`: they read all of its columns,
    /// and mark every row that is late for it, if it changes one of the columns that are compared.
    fn serves(&self, wanted: &Self) -> bool {
        (VERSION_MIN..=wanted.version).contains(&self.version)
            && self.grace_ms <= wanted.grace_ms
            && wanted.axes.iter().all(|(axis, reading)| self.axes.get(axis) == Some(reading))
    }
}
