//! Which installation a rollup's checkpoints belong to: attributes of its `watermark` item, which
//! every command reads anyway.

use aws_sdk_dynamodb::types::AttributeValue;

use super::dynamodb::Checkpoints;
use super::error::CheckpointError;
use super::item::{Item, Reader, text};
use super::update::Update;
use super::watermark::watermark_key;

const INSTALLATION: &str = "installation";
const PLACES: &str = "places";
const SERVERS: &str = "servers";
const TABLES: &str = "tables";
const REPAIR: &str = "repair";

/// What ties a rollup's checkpoints to a source and a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bond {
    /// The installation's id, which the target holds too.
    pub installation: String,
    /// The addresses by which the installation is reached: hashes of source and target.
    pub places: Vec<String>,
    /// The running servers and databases behind them, when they were last recorded.
    pub servers: String,
    /// The tables whose rows the checkpoints speak of, as the target's catalogue numbers them.
    pub tables: String,
    /// Why the checkpoints cannot be trusted until `tallymark repair` has run.
    pub repair: Option<String>,
}

impl Bond {
    pub(super) fn read(item: &Item) -> Result<Option<Self>, CheckpointError> {
        let read = Reader { item };
        let Some(installation) = read.text(INSTALLATION)? else { return Ok(None) };
        let places = match item.get(PLACES) {
            Some(AttributeValue::Ss(places)) => places.clone(),
            _ => Vec::new(),
        };
        let servers = read.text(SERVERS)?.unwrap_or_default();
        let tables = read.text(TABLES)?.unwrap_or_default();
        Ok(Some(Self { installation, places, servers, tables, repair: read.text(REPAIR)? }))
    }
}

impl Checkpoints {
    /// Ties the checkpoints of `rollup` to `bond`, provided that they are still tied to `before`.
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
            None => format!("attribute_not_exists(#{INSTALLATION})"),
            Some(_) => format!("#{INSTALLATION} = :before"),
        };
        let update = Update::new(watermark_key(rollup), &condition)
            .set(INSTALLATION, text(&bond.installation))
            .set(PLACES, AttributeValue::Ss(bond.places.clone()))
            .set(SERVERS, text(&bond.servers))
            .set(TABLES, text(&bond.tables))
            .set_or_remove(REPAIR, bond.repair.as_deref().map(text));
        let update = match before {
            None => update,
            Some(before) => update.bind("before", text(&before.installation)),
        };
        // Where another process came first, the next look compares with what it wrote.
        self.send(update, "bind to the installation").await.map(drop)
    }
}
