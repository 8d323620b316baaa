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
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use crate::clients::db::{CatalogueError, DbError, Tx};
use crate::model::clock::whole_ms;
use crate::model::hint::Fault;
use crate::model::rollup::{Rollup, TableName};
use crate::model::sql::{ident, literal, shown, table};
use crate::source::changes::consumers;
use crate::source::changes::lookup::{self, LookupCapture, MarkedLookup};
use crate::source::changes::triggers::{self, TRIGGERS};
use crate::source::reading::axis::Axis;
use crate::source::reading::shape::Shape;

mod relation;

use relation::{Relation, relations};

/// The purpose of a table's triggers, stored as the comment of their function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Purpose {
    /// Raised when the function itself changes.
    version: u32,
    /// A row counts as late from this age on, in milliseconds, at the time of writing.
    grace_ms: u64,
    /// The time columns, and the reading of each.
    axes: BTreeMap<String, String>,
}

/// The version of the functions and triggers in [`crate::source::changes::triggers`].
const VERSION: u32 = 3;

/// A source table whose late changes are to be captured, for all rollups that count it.
#[derive(Clone, Debug)]
pub struct Capture {
    /// The table, as the rollups name it.
    pub(crate) table: TableName,
    axes: Vec<Axis>,
    grace: Duration,
    pub(crate) lookups: Vec<LookupCapture>,
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
}

impl CaptureState {
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
        Self { table: table.clone(), axes, grace, lookups }
    }

    fn purpose(&self) -> Purpose {
        Purpose {
            version: VERSION,
            grace_ms: whole_ms(self.grace),
            axes: self.axes.iter().map(|axis| (axis_key(axis), axis.reading())).collect(),
        }
    }

    /// The state of the table's capture.
    ///
    /// # Errors
    /// The server refuses or cannot be reached.
    pub async fn standing(&self, tx: &mut Tx) -> Result<CaptureState, DbError> {
        let relations = relations(tx, &self.table).await?;
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
        let described = root.and_then(|root| root.description.as_deref());
        let made_for = described.and_then(|text| serde_json::from_str::<Purpose>(text).ok());
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
        let Some(description) = &root.description else {
            return Some(format!("{name} has no capture triggers"));
        };
        if !root.has_marks {
            return Some("the table tallymark.mark is gone".to_owned());
        }
        if !root.has_consumers {
            return Some(format!("the capture triggers of {name} were made by an older version"));
        }
        let made_for = serde_json::from_str::<Purpose>(description).ok();
        if !made_for.is_some_and(|made_for| made_for.serves(&self.purpose())) {
            return Some(format!("the capture triggers of {name} were made for other settings"));
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

    /// The statements that complete the capture, in order. An empty list means that it is complete.
    /// `reader` is the role that reads the source and takes the marks.
    ///
    /// # Errors
    /// A relation, which the text names, cannot be captured, or the server refuses.
    pub async fn install(&self, tx: &mut Tx, reader: &str) -> Result<Vec<String>, CatalogueError> {
        let mut sql = self.install_table(tx, reader).await?;
        if !self.lookups.is_empty()
            && let Some(root) = relations(tx, &self.table).await?.first()
        {
            let key = root.function.clone().unwrap_or_else(|| function_name(&root.name));
            sql.extend(lookup::install(tx, &self.lookups, &key, reader).await?);
        }
        Ok(sql)
    }

    async fn install_table(
        &self,
        tx: &mut Tx,
        reader: &str,
    ) -> Result<Vec<String>, CatalogueError> {
        let relations = relations(tx, &self.table).await?;
        if self.problem(&relations).is_none() {
            // The role of another installation may still lack the rights that it needs.
            let is_granted = is_granted(tx, reader).await?;
            return Ok(if is_granted { Vec::new() } else { grants(reader) });
        }
        if relations.is_empty() || relations.iter().any(|relation| !relation.can_be_captured()) {
            return Err(self.problem(&relations).unwrap_or_default().into());
        }
        let name = match relations.first().and_then(|root| root.function.clone()) {
            Some(name) => name,
            None => function_name(&relations[0].name),
        };
        let mut sql = shared(tx, reader, relations[0].has_marks).await?;
        sql.push(triggers::mark_function(&name, &self.axes));
        sql.push(triggers::function(&name, &self.axes));
        let purpose = serde_json::to_string(&self.purpose()).unwrap_or_default();
        let [function, mark] = triggers::signatures(&name);
        sql.push(format!("COMMENT ON FUNCTION {function} IS {}", literal(&purpose)));
        sql.push(format!("REVOKE ALL ON FUNCTION {function}, {mark} FROM PUBLIC"));
        for relation in &relations {
            for trigger in relation.own() {
                sql.push(format!("DROP TRIGGER IF EXISTS {} ON {}", trigger.0, relation.name));
                let made =
                    triggers::trigger(trigger, &relation.name, &function, &self.axes, self.grace);
                sql.push(made);
            }
        }
        for relation in &relations {
            for (name, _) in TRIGGERS {
                sql.push(format!("ALTER TABLE {} ENABLE ALWAYS TRIGGER {name}", relation.name));
            }
        }
        let root = &relations[0];
        if root.kind == "p" && (root.function.is_none() || !root.has_consumers) {
            // From here on every change of the partitions is noticed. Their present rows will be
            // read with the slices.
            sql.push(self.partitions(&name, &[]));
        }
        sql.extend(grants(reader));
        Ok(sql)
    }

    /// The statements that remove the capture, with its unread marks. An empty list means that
    /// there is none. `own` are the consumers that no longer need it.
    ///
    /// # Errors
    /// It has other consumers, which the text names, or the server refuses.
    pub(crate) async fn remove(
        &self,
        tx: &mut Tx,
        own: &[i64],
    ) -> Result<Vec<String>, CatalogueError> {
        let relations = relations(tx, &self.table).await?;
        let mut sql = Vec::new();
        let key = self.judge(&relations).key;
        if let Some(key) = &key {
            let others = consumers::all(tx, key).await?;
            if let Some(other) = others.iter().find(|other| !own.contains(&other.id)) {
                let fault = Fault::new(format!(
                    "rollup {} of {} counts {} by the same triggers",
                    other.rollup,
                    other.installation,
                    table(&self.table)
                ));
                let remedy = format!(
                    "remove them there, or run `tallymark capture forget {}` first",
                    other.id
                );
                return Err(fault.remedy(remedy).into());
            }
        }
        sql.extend(lookup::remove(tx, &self.lookups, key.as_deref()).await?);
        for relation in &relations {
            for name in relation.own().map(|(name, _)| name) {
                if relation.triggers.contains_key(name) {
                    sql.push(format!("DROP TRIGGER {name} ON {}", relation.name));
                }
            }
        }
        if let Some(root) = relations.first()
            && let Some(name) = &root.function
        {
            let [function, mark] = triggers::signatures(name);
            sql.push(format!("DROP FUNCTION {function}"));
            sql.push(format!("DROP FUNCTION IF EXISTS {mark}"));
            if root.has_marks {
                let name = literal(name);
                sql.push(format!("DELETE FROM tallymark.mark WHERE capture = {name}"));
                if root.has_consumers {
                    sql.push(format!("DELETE FROM tallymark.consumer WHERE capture = {name}"));
                    sql.push(format!("DELETE FROM tallymark.partition WHERE capture = {name}"));
                }
            }
        }
        Ok(sql)
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
    /// Whether triggers made for this purpose also serve `wanted`: they read all of its columns,
    /// and mark every row that is late for it.
    fn serves(&self, wanted: &Self) -> bool {
        self.version == wanted.version
            && self.grace_ms <= wanted.grace_ms
            && wanted.axes.iter().all(|(axis, reading)| self.axes.get(axis) == Some(reading))
    }
}

/// The rights that the role needs for reading the source and taking marks.
fn grants(reader: &str) -> Vec<String> {
    let reader = ident(reader);
    vec![
        format!("GRANT USAGE ON SCHEMA tallymark TO {reader}"),
        format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON tallymark.mark, tallymark.consumer, \
             tallymark.taken, tallymark.partition TO {reader}"
        ),
    ]
}

/// Whether the role has these rights.
async fn is_granted(tx: &mut Tx, reader: &str) -> Result<bool, DbError> {
    const DOING: &str = "looking at privileges";
    let role = literal(reader);
    let sql = format!(
        "SELECT has_schema_privilege({role}, 'tallymark', 'USAGE') AND NOT EXISTS (SELECT FROM \
         unnest(ARRAY['mark', 'consumer', 'taken', 'partition']) t, \
         unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) p \
         WHERE NOT has_table_privilege({role}, 'tallymark.' || t, p))"
    );
    tx.row(DOING, sql).await?.try_get(0).map_err(|source| tx.error(DOING, source))
}

/// The function name of a new capture. It is a hash, as the table's name may change later.
fn function_name(relation: &str) -> String {
    let hash = Sha256::digest(relation.as_bytes());
    let hex: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("capture_{hex}")
}

/// The schema and the table of marks. The functions run as the role that installs them, and the
/// owner of the schema could replace the objects that they call. So the schema must belong to the
/// installing role or to the reading role.
async fn shared(tx: &mut Tx, reader: &str, has_marks: bool) -> Result<Vec<String>, CatalogueError> {
    const DOING: &str = "looking at the schema tallymark";
    // Operators of the session's path would become part of the triggers' conditions.
    let mut sql = vec!["SET LOCAL search_path = pg_catalog, pg_temp".to_owned()];
    let schema = format!(include_str!("capture_schema.sql"), reader = literal(reader));
    match tx.rows(DOING, schema).await?.first() {
        None => sql.push("CREATE SCHEMA tallymark".to_owned()),
        Some(row) => {
            let found: Option<String> =
                row.try_get("stranger").map_err(|error| tx.error(DOING, error))?;
            if let Some(role) = found {
                let revoked = if role == "PUBLIC" { role.clone() } else { shown(&role) };
                let fault = Fault::new(format!(
                    "{role} can replace what stands in the schema tallymark, and would act as the \
                     owner of the capture's functions"
                ));
                let remedy = format!(
                    "run ALTER SCHEMA tallymark OWNER TO the role that installs, and REVOKE CREATE \
                     ON SCHEMA tallymark FROM {revoked}"
                );
                return Err(fault.remedy(remedy).into());
            }
        }
    }
    if has_marks {
        // The table of an older version lacks it.
        sql.push("ALTER TABLE tallymark.mark ADD COLUMN IF NOT EXISTS xact xid8".to_owned());
    } else {
        sql.push(include_str!("mark.sql").trim().to_owned());
    }
    sql.push(include_str!("consumer.sql").trim().to_owned());
    sql.push(include_str!("taken.sql").trim().to_owned());
    sql.push(include_str!("partition.sql").trim().to_owned());
    sql.push(
        "REVOKE ALL ON tallymark.mark, tallymark.consumer, tallymark.taken, tallymark.partition \
         FROM PUBLIC"
            .to_owned(),
    );
    Ok(sql)
}
