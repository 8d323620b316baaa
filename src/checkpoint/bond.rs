//! The installation that a rollup's checkpoints belong to. It is part of the rollup's `watermark`
//! item, which every command reads anyway.

use super::checkpoints::Checkpoints;
use super::error::CheckpointError;
use super::item::{Reader, text};
use super::store::{Cond, Item, Update, Value};
use super::watermark::watermark_key;
use crate::clients::db::history::History;

const INSTALLATION: &str = "installation";
const PLACES: &str = "places";
const SERVERS: &str = "servers";
const TABLES: &str = "tables";
const REPAIR: &str = "repair";
const SOURCE_HISTORY: &str = "source_history";
const TARGET_HISTORY: &str = "target_history";
const UNPROVEN: &str = "unproven";

/// Binds a rollup's checkpoints to a source and a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bond {
    /// The installation's ID, which the target holds too.
    pub installation: String,
    /// The addresses by which the installation is reached, as hashes of source and target.
    pub places: Vec<String>,
    /// The running servers and databases at these addresses when they were last recorded.
    pub servers: String,
    /// The tables that the checkpoints describe, by their numbers in the target's catalogue.
    pub tables: String,
    /// Why the checkpoints cannot be trusted until `tallymark repair` has run.
    pub repair: Option<String>,
    /// The last known position of the source in its history.
    pub source_history: Option<History>,
    /// The last known position of the target in its history.
    pub target_history: Option<History>,
    /// Why only a comparison with the source can show whether the rows are right.
    pub unproven: Option<String>,
}

impl Bond {
    pub(super) fn read(item: &Item) -> Result<Option<Self>, CheckpointError> {
        let read = Reader { item };
        let Some(installation) = read.text(INSTALLATION)? else { return Ok(None) };
        let places = match item.get(PLACES) {
            Some(Value::Texts(places)) => places.clone(),
            _ => Vec::new(),
        };
        let servers = read.text(SERVERS)?.unwrap_or_default();
        let tables = read.text(TABLES)?.unwrap_or_default();
        let history = |name| {
            let text = read.text(name)?;
            Ok::<_, CheckpointError>(text.and_then(|text| History::parse(&text)))
        };
        Ok(Some(Self {
            installation,
            places,
            servers,
            tables,
            repair: read.text(REPAIR)?,
            source_history: history(SOURCE_HISTORY)?,
            target_history: history(TARGET_HISTORY)?,
            unproven: read.text(UNPROVEN)?,
        }))
    }
}

impl Checkpoints {
    /// Binds the checkpoints of `rollup` to `bond`, provided that they are still bound to `before`.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub async fn bind(
        &self,
        rollup: &str,
        before: Option<&Bond>,
        bond: &Bond,
    ) -> Result<(), CheckpointError> {
        let condition = match before {
            None => Cond::lacks(INSTALLATION),
            Some(before) => Cond::is(INSTALLATION, text(&before.installation)),
        };
        let update = Update::new(watermark_key(rollup), condition)
            .set(INSTALLATION, text(&bond.installation))
            .set(PLACES, Value::Texts(bond.places.clone()))
            .set(SERVERS, text(&bond.servers))
            .set(TABLES, text(&bond.tables))
            .set_or_remove(REPAIR, bond.repair.as_deref().map(text))
            .set_or_remove(SOURCE_HISTORY, bond.source_history.as_ref().map(history))
            .set_or_remove(TARGET_HISTORY, bond.target_history.as_ref().map(history));
        // Another process may meanwhile have marked the rows as unproven.
        let update = match bond.unproven == before.and_then(|before| before.unproven.clone()) {
            true => update,
            false => update.set_or_remove(UNPROVEN, bond.unproven.as_deref().map(text)),
        };
        // If another process came first, the next check compares with its bond.
        self.send(update, "bind to the installation").await.map(drop)
    }

    /// Records that a comparison with the source has proven the rows of `rollup`, which were
    /// unproven for `reason`. A newer reason stays.
    ///
    /// # Errors
    /// [`CheckpointError`] if the call fails.
    pub(crate) async fn prove(&self, rollup: &str, reason: &str) -> Result<(), CheckpointError> {
        let same = Cond::is(UNPROVEN, text(reason));
        let update = Update::new(watermark_key(rollup), same).remove(&[UNPROVEN]);
        self.send(update, "record the proof").await.map(drop)
    }
}

fn history(history: &History) -> Value {
    text(&history.to_string())
}
