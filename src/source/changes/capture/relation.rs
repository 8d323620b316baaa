//! The table of a capture in the catalogue, with its partitions.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sqlx::Row as _;

use crate::clients::db::{DbError, Tx};
use crate::model::rollup::TableName;
use crate::model::sql::{literal, table};
use crate::source::changes::capture::{Purpose, UsedColumns};
use crate::source::changes::triggers::{Fires, TRIGGERS};

/// A table, partition or child table.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) is_partition: bool,
    /// Tallymark's triggers on it, and how each is enabled.
    pub(super) triggers: BTreeMap<String, String>,
    pub(super) function: Option<String>,
    pub(super) description: Option<String>,
    pub(super) has_marks: bool,
    /// Whether the tables of consumers and of partitions exist.
    pub(super) has_consumers: bool,
    /// Whether the triggers' function finds the function that marks.
    pub(super) has_mark_function: bool,
    /// The source's time of the look.
    pub(super) seen_at: DateTime<Utc>,
    /// The columns of the table itself.
    pub(super) columns: Vec<String>,
    /// The columns that the condition of its own trigger for updates reads.
    pub(super) compared: UsedColumns,
    /// Its generated columns, each with the columns that it is computed from.
    pub(super) generated: BTreeMap<String, Vec<String>>,
    /// Functions named in conditions that may read more than their arguments.
    pub(super) unsteady: Vec<String>,
}

impl Relation {
    /// What its triggers were made for. `None`: there are none, or of an unknown kind.
    pub(super) fn made_for(&self) -> Option<Purpose> {
        self.description.as_deref().and_then(|text| serde_json::from_str(text).ok())
    }

    pub(super) fn can_be_captured(&self) -> bool {
        matches!(self.kind.as_str(), "r" | "p")
    }

    /// The triggers that it must have. PostgreSQL gives a new partition its parent's row triggers.
    /// A TRUNCATE of it shows in its file ([`super::Capture::mark_partitions`]).
    pub(super) fn wanted(&self) -> impl Iterator<Item = &'static str> {
        let is_partition = self.is_partition;
        let wanted = TRIGGERS.into_iter().filter(move |(_, fires)| match fires {
            Fires::Row { .. } => true,
            Fires::Truncate => !is_partition,
        });
        wanted.map(|(name, _)| name)
    }

    /// The triggers to create on it. A partition inherits the row triggers from its parent.
    pub(super) fn own(&self) -> impl Iterator<Item = (&'static str, Fires)> {
        let inherits = self.is_partition;
        TRIGGERS.into_iter().filter(move |(_, fires)| match fires {
            Fires::Row { .. } => !inherits,
            Fires::Truncate => true,
        })
    }
}

/// The table itself, followed by its partitions or children. An empty list means that the table
/// does not exist. `texts` are the conditions and expressions of its rollups.
pub(super) async fn relations(
    tx: &mut Tx,
    name: &TableName,
    texts: &str,
) -> Result<Vec<Relation>, DbError> {
    let doing = format!("looking at the triggers of {}", table(name));
    let sql = format!(
        include_str!("../capture_state.sql"),
        relation = literal(&table(name)),
        texts = literal(&texts.to_lowercase())
    );
    let rows = tx.rows(&doing, sql).await?;
    rows.iter()
        .map(|row| {
            let triggers: String = row.try_get("triggers")?;
            let generated: Option<String> = row.try_get("generated")?;
            let generated = generated.and_then(|it| serde_json::from_str(&it).ok());
            let pairs = triggers.split(',').filter_map(|pair| pair.split_once('='));
            Ok(Relation {
                name: row.try_get("name")?,
                kind: row.try_get("kind")?,
                is_partition: row.try_get("is_partition")?,
                triggers: pairs.map(|(name, how)| (name.to_owned(), how.to_owned())).collect(),
                function: row.try_get("function")?,
                description: row.try_get("description")?,
                has_marks: row.try_get("has_marks")?,
                has_consumers: row.try_get("has_consumers")?,
                has_mark_function: row.try_get("has_mark_function")?,
                seen_at: row.try_get("now")?,
                columns: row.try_get::<Option<_>, _>("columns")?.unwrap_or_default(),
                compared: UsedColumns::of(Some(row.try_get("compared")?)),
                generated: generated.unwrap_or_default(),
                unsteady: row.try_get::<Option<_>, _>("unsteady")?.unwrap_or_default(),
            })
        })
        .collect::<Result<_, sqlx::Error>>()
        .map_err(|source| tx.error(doing, source))
}
