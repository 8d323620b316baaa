//! The capture of lookups: triggers mark the keys of changed rows.
//!
//! A change of a lookup's row changes every row of the captured table that has its key, of any age.
//! So these triggers have no condition on time, and a writer does one mark for each changed key. A
//! tick replaces the keys by marks of the hours that they reach ([`super::lookup_marks`]). A row of
//! the captured table that gets or loses the key meanwhile is marked by the table's own triggers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;

use crate::clients::db::{CatalogueError, DbError, Tx};
use crate::model::hint::Fault;
use crate::model::lookup::Lookup;
use crate::model::rollup::{Rollup, TableName};
use crate::model::sql::{ident, literal, table};
use crate::source::changes::capture::axis_key;
use crate::source::changes::triggers;
use crate::source::reading::axis::Axis;
use crate::source::reading::shape::Shape;

const DOING: &str = "looking at the triggers of a lookup";

/// Raised when the function or the triggers change.
const VERSION: u32 = 1;

/// The capture of a lookup for one captured table, and one reading of its time.
#[derive(Clone, Debug)]
pub(crate) struct LookupCapture {
    /// The name of its function, under which its marks are stored.
    pub(crate) name: String,
    /// The captured table.
    pub(crate) source: TableName,
    /// The lookup, with the columns that any rollup of the table reads.
    pub(crate) lookup: Lookup,
    /// The time of the table's rows.
    pub(crate) axis: Axis,
}

/// The purpose of the triggers, stored as the comment of their function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct LookupPurpose {
    version: u32,
    /// The capture of the table for which keys are marked.
    capture: String,
    /// The columns whose changes mark.
    columns: BTreeSet<String>,
}

/// A lookup whose marks can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MarkedLookup {
    pub(crate) name: String,
    /// The types of its key.
    pub(crate) types: Vec<String>,
}

/// The state of the captures of a table's lookups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LookupStanding {
    /// The first problem, with the remedy.
    pub(crate) problem: Option<Fault>,
    /// Whether `capture install` can repair it.
    pub(crate) can_be_installed: bool,
    pub(crate) marked: Vec<MarkedLookup>,
}

/// The name of the capture of `lookup` for the table `source`, whose time is read by `axis`. Marks
/// that its keys have become have it as their axis.
fn name_of(source: &TableName, lookup: &Lookup, axis: &Axis) -> String {
    let on: Vec<String> =
        lookup.on.iter().map(|on| format!("{}={}", ident(&on.key), ident(&on.column))).collect();
    let (source, of, axis) = (table(source), table(&lookup.table), axis_key(axis));
    let text = format!("{source} {of} {} {axis}", on.join(" "));
    let hash = Sha256::digest(text.as_bytes());
    let hex: String = hash[..6].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("lookup_{hex}")
}

/// The axes of all marks that reach `rollup`: its own, and those of its lookups.
#[must_use]
pub(crate) fn axes_of(rollup: &Rollup, shape: &Shape) -> Vec<String> {
    let lookups = rollup.lookups.iter().map(|it| name_of(&rollup.from, it, &shape.axis));
    std::iter::once(axis_key(&shape.axis)).chain(lookups).collect()
}

/// The captures of the lookups of all rollups of `source`.
#[must_use]
pub(super) fn captures(source: &TableName, rollups: &[(&Rollup, &Shape)]) -> Vec<LookupCapture> {
    let mut found: Vec<LookupCapture> = Vec::new();
    for (rollup, shape) in rollups {
        for lookup in &rollup.lookups {
            let name = name_of(source, lookup, &shape.axis);
            let (source, lookup, axis) = (source.clone(), lookup.clone(), shape.axis.clone());
            match found.iter_mut().find(|known| known.name == name) {
                Some(known) => known.lookup.columns.extend(lookup.columns),
                None => found.push(LookupCapture { name, source, lookup, axis }),
            }
        }
    }
    found
}

/// The state of these captures.
pub(crate) async fn standing(
    tx: &mut Tx,
    captures: &[LookupCapture],
) -> Result<LookupStanding, DbError> {
    let mut standing = LookupStanding { can_be_installed: true, ..LookupStanding::default() };
    for capture in captures {
        let state = LookupState::read(tx, capture).await?;
        let (unfit, missing) = (state.unfit(capture), state.missing(capture));
        standing.can_be_installed &= unfit.is_none();
        standing.problem = standing.problem.or(unfit).or(missing);
        if state.has_marks {
            standing.marked.push(MarkedLookup { name: capture.name.clone(), types: state.types });
        }
    }
    Ok(standing)
}

/// The statements that complete these captures for the table with the capture `key`. `reader` is the
/// role that takes the marks.
///
/// # Errors
/// A lookup, which the text names, cannot be captured, or the server refuses.
pub(super) async fn install(
    tx: &mut Tx,
    captures: &[LookupCapture],
    key: &str,
    reader: &str,
) -> Result<Vec<String>, CatalogueError> {
    const MARKS: &str = "tallymark.lookup_mark";
    let (mut sql, mut has_marks) = (Vec::new(), true);
    for capture in captures {
        let state = LookupState::read(tx, capture).await?;
        if let Some(unfit) = state.unfit(capture) {
            return Err(unfit.into());
        }
        has_marks &= state.has_marks;
        if state.missing(capture).is_some() {
            sql.extend(state.statements(capture, key));
        }
    }
    if !sql.is_empty() {
        let shared = [
            // Operators of the session's path would become part of the triggers' conditions.
            "SET LOCAL search_path = pg_catalog, pg_temp".to_owned(),
            include_str!("lookup_mark.sql").trim().to_owned(),
            format!("REVOKE ALL ON {MARKS} FROM PUBLIC"),
        ];
        sql.splice(0..0, shared);
        if !has_marks {
            let comment = literal("Keys of lookups whose rows a transaction changed");
            sql.push(format!("COMMENT ON TABLE {MARKS} IS {comment}"));
        }
    }
    if !has_marks || !is_granted(tx, reader).await? {
        let rights = RIGHTS.join(", ");
        sql.push(format!("GRANT {rights} ON {MARKS} TO {}", ident(reader)));
    }
    Ok(sql)
}

/// The rights that taking keys needs.
const RIGHTS: [&str; 3] = ["SELECT", "UPDATE", "DELETE"];

async fn is_granted(tx: &mut Tx, reader: &str) -> Result<bool, DbError> {
    let (role, table) = (literal(reader), literal("tallymark.lookup_mark"));
    let each = RIGHTS.map(|right| format!("has_table_privilege({role}, {table}, '{right}')"));
    let row = tx.row(DOING, format!("SELECT {}", each.join(" AND "))).await?;
    row.try_get(0).map_err(|source| tx.error(DOING, source))
}

/// The statements that remove all captures of lookups for the table with the capture `key`, or with
/// these names.
pub(super) async fn remove(
    tx: &mut Tx,
    captures: &[LookupCapture],
    key: Option<&str>,
) -> Result<Vec<String>, DbError> {
    let sql = "SELECT proname::text AS name, obj_description(oid, 'pg_proc') AS description, \
         to_regclass('tallymark.lookup_mark') IS NOT NULL AS has_marks FROM pg_proc \
         WHERE pronamespace = to_regnamespace('tallymark') AND proname LIKE 'lookup\\_%' ORDER BY 1"
        .to_owned();
    let mut statements = Vec::new();
    for row in tx.rows(DOING, sql).await? {
        let read = || {
            Ok::<(String, Option<String>, bool), sqlx::Error>((
                row.try_get("name")?,
                row.try_get("description")?,
                row.try_get("has_marks")?,
            ))
        };
        let (name, description, has_marks) = read().map_err(|it| tx.error(DOING, it))?;
        let purpose = description.and_then(|it| serde_json::from_str::<LookupPurpose>(&it).ok());
        let is_of_key = purpose.is_some_and(|it| Some(it.capture.as_str()) == key);
        if is_of_key || captures.iter().any(|capture| capture.name == name) {
            // The triggers go with it.
            statements.push(format!("DROP FUNCTION tallymark.{}() CASCADE", ident(&name)));
            if has_marks {
                let name = literal(&name);
                statements.push(format!("DELETE FROM tallymark.lookup_mark WHERE lookup = {name}"));
            }
        }
    }
    Ok(statements)
}

/// What the catalogue knows of a lookup and its capture.
#[derive(Clone, Debug, Default)]
struct LookupState {
    /// `None`: there is no such table.
    name: Option<String>,
    kind: String,
    persistence: String,
    /// The triggers, and how each is enabled.
    triggers: Vec<(String, String)>,
    description: Option<String>,
    has_marks: bool,
    has_foreign_key: bool,
    virtual_column: Option<String>,
    types: Vec<String>,
    /// A column of the key whose text is not the same in every session, in words.
    unfit_key: Option<String>,
}

impl LookupState {
    async fn read(tx: &mut Tx, capture: &LookupCapture) -> Result<Self, DbError> {
        let list = |names: Vec<&str>| names.into_iter().map(literal).collect::<Vec<_>>().join(", ");
        let LookupCapture { name, source, lookup, .. } = capture;
        let sql = format!(
            include_str!("lookup_state.sql"),
            function = literal(name),
            source = literal(&table(source)),
            lookup = literal(&table(&lookup.table)),
            keys = list(lookup.on.iter().map(|on| on.key.as_str()).collect()),
            columns = list(lookup.on.iter().map(|on| on.column.as_str()).collect()),
            deciding = list(lookup.deciding().into_iter().collect()),
        );
        let rows = tx.rows(DOING, sql).await?;
        let Some(row) = rows.first() else { return Ok(Self::default()) };
        let read = || {
            let triggers: String = row.try_get("triggers")?;
            let pairs = triggers.split(',').filter_map(|pair| pair.split_once('='));
            Ok::<_, sqlx::Error>(Self {
                name: row.try_get("name")?,
                kind: row.try_get("kind")?,
                persistence: row.try_get("persistence")?,
                triggers: pairs.map(|(name, how)| (name.to_owned(), how.to_owned())).collect(),
                description: row.try_get("description")?,
                has_marks: row.try_get("has_marks")?,
                has_foreign_key: row.try_get("has_foreign_key")?,
                virtual_column: row.try_get("virtual")?,
                types: row.try_get("types")?,
                unfit_key: row.try_get("unfit")?,
            })
        };
        read().map_err(|source| tx.error(DOING, source))
    }

    /// Why triggers cannot mark every change.
    fn unfit(&self, capture: &LookupCapture) -> Option<Fault> {
        let LookupCapture { lookup, .. } = capture;
        let named = format!("lookup `{}`: {}", lookup.name, table(&lookup.table));
        let facts = if self.name.is_none() {
            format!("{named} is gone")
        } else if self.kind == "p" {
            format!("{named} is partitioned, and a partition comes and goes without a trigger")
        } else if self.kind != "r" {
            format!("{named} is no table")
        } else if self.persistence != "p" {
            format!("{named} is unlogged: a crash empties it, and no trigger tells")
        } else if let Some(column) = &self.virtual_column {
            format!("{named} computes `{column}` when it is read, which no trigger can compare")
        } else if let Some(column) = &self.unfit_key {
            format!("{named}: {column}, whose text may differ between sessions")
        } else {
            return None;
        };
        Some(Fault::new(facts).remedy("use late = \"grace\", or a key of integers, uuid or text"))
    }

    /// The part of the capture that `capture install` has to make.
    fn missing(&self, capture: &LookupCapture) -> Option<Fault> {
        let name = table(&capture.lookup.table);
        let facts = if self.description.is_none() {
            format!("changes of the lookup {name} are not captured")
        } else if !self.has_marks {
            "the table tallymark.lookup_mark is gone".to_owned()
        } else if !self.serves(capture) {
            format!("the capture triggers of the lookup {name} were made for other columns")
        } else {
            let is_always =
                |wanted: &str| self.triggers.iter().any(|(name, how)| name == wanted && how == "A");
            let wanted = EVENTS.iter().filter(|event| self.wants(event));
            let missing = wanted.map(|event| capture.trigger(event)).find(|it| !is_always(it))?;
            format!("{name} has no trigger {missing}, or it is not enabled always")
        };
        Some(Fault::new(facts).remedy("run `tallymark capture install`, then `tallymark verify`"))
    }

    fn purpose(&self) -> Option<LookupPurpose> {
        serde_json::from_str(self.description.as_deref()?).ok()
    }

    fn serves(&self, capture: &LookupCapture) -> bool {
        self.purpose().is_some_and(|purpose| {
            purpose.version == VERSION && capture.lookup.columns.is_subset(&purpose.columns)
        })
    }

    /// A validated foreign key keeps rows of the captured table from preceding their key.
    fn wants(&self, event: &str) -> bool {
        event != "INSERT" || !self.has_foreign_key
    }

    fn statements(&self, capture: &LookupCapture, key: &str) -> Vec<String> {
        let LookupCapture { name, lookup, .. } = capture;
        let relation = table(&lookup.table);
        // Rollups of other installations may need the columns that are compared by now.
        let mut columns = self.purpose().map(|it| it.columns).unwrap_or_default();
        columns.extend(lookup.columns.iter().cloned());
        let purpose =
            LookupPurpose { version: VERSION, capture: key.to_owned(), columns: columns.clone() };
        let purpose = serde_json::to_string(&purpose).unwrap_or_default();
        let function = format!("tallymark.{}()", ident(name));
        let mut sql = vec![
            capture.function(),
            format!("COMMENT ON FUNCTION {function} IS {}", literal(&purpose)),
            format!("REVOKE ALL ON FUNCTION {function} FROM PUBLIC"),
        ];
        columns.extend(lookup.on.iter().map(|on| on.key.clone()));
        for event in EVENTS {
            let trigger = capture.trigger(event);
            sql.push(format!("DROP TRIGGER IF EXISTS {trigger} ON {relation}"));
            if !self.wants(event) {
                continue;
            }
            let row = |row: &str| {
                let values = columns.iter().map(|column| format!("{row}.{}", ident(column)));
                format!("ROW({})", values.collect::<Vec<_>>().join(", "))
            };
            let fires = match event {
                "TRUNCATE" => "FOR EACH STATEMENT".to_owned(),
                // The images are compared, as an operator of a type may call different texts equal.
                "UPDATE" => {
                    let (old, new) = (row("OLD"), row("NEW"));
                    format!("FOR EACH ROW WHEN (pg_catalog.record_image_ne({old}, {new}))")
                }
                _ => "FOR EACH ROW".to_owned(),
            };
            sql.push(format!(
                "CREATE TRIGGER {trigger} AFTER {event} ON {relation} {fires} EXECUTE FUNCTION {function}"
            ));
            sql.push(format!("ALTER TABLE {relation} ENABLE ALWAYS TRIGGER {trigger}"));
        }
        sql
    }
}

/// The events that change a lookup.
const EVENTS: [&str; 4] = ["DELETE", "INSERT", "TRUNCATE", "UPDATE"];

impl LookupCapture {
    /// The name of the trigger of an event. It sorts after most others, so the application's own
    /// triggers run first.
    fn trigger(&self, event: &str) -> String {
        format!("tallymark_{}_{}", self.name, event.to_lowercase())
    }

    /// The statement that creates the function of its triggers.
    fn function(&self) -> String {
        let keys = || self.lookup.on.iter().map(|on| on.key.as_str());
        let values = |row: &str| {
            let values = keys().map(|key| format!("{row}.{}::text", ident(key)));
            values.collect::<Vec<_>>().join(", ")
        };
        triggers::quoted(&format!(
            include_str!("lookup_function.sql"),
            name = self.name,
            quote = triggers::BODY,
            keys_max = self.lookup.on.len(),
            keys = keys().map(literal).collect::<Vec<_>>().join(", "),
            old = values("OLD"),
            new = values("NEW"),
        ))
    }
}
