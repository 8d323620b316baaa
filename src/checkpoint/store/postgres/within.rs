//! Writes of several items that are part of a transaction of the target.

use super::Postgres;
use super::render::Render;
use super::value::{from_row, key_of};
use crate::checkpoint::store::{Item, Key, StoreError, Update};
use crate::clients::db::Tx;

/// Writes of one transaction that are sent in one message. The number hides the network's delay, and
/// bounds the message to some hundred kilobytes.
const UPDATES_AT_ONCE: usize = 200;

impl Postgres {
    pub(super) async fn update_each_within(
        &self,
        updates: &[Update],
        operation: &'static str,
        tx: &mut Tx,
    ) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        for some in updates.chunks(UPDATES_AT_ONCE) {
            let render = |update| Render::update(&self.table, self.clock, update);
            let sql: Vec<_> = some.iter().map(render).collect();
            let written = tx.ask(operation, sql.join("; ")).await;
            for row in written.map_err(|error| self.error(operation, error))? {
                let item = from_row(&row).map_err(|error| self.unreadable(operation, error))?;
                items.push(item);
            }
        }
        Ok(items)
    }

    pub(super) async fn write_range(
        &self,
        updates: [Update; 2],
        last: String,
        operation: &'static str,
        tx: &mut Tx,
    ) -> Result<u64, StoreError> {
        let sql = Render::update_range(&self.table, self.clock, &updates, &last);
        self.execute(tx, operation, sql).await
    }

    pub(super) async fn find_or_hold_within(
        &self,
        key: Key,
        tx: &mut Tx,
    ) -> Result<bool, StoreError> {
        const OPERATION: &str = "look for a checkpoint";
        let (rollup, sort) = key_of(&key);
        // A row that the transaction inserts and deletes holds its key until the end.
        let insert = format!(
            "INSERT INTO {} (rollup, sort, item) VALUES ({rollup}, {sort}, '{{}}') \
             ON CONFLICT (rollup, sort) DO NOTHING",
            self.table
        );
        if self.execute(tx, OPERATION, insert).await? == 0 {
            return Ok(true);
        }
        let delete =
            format!("DELETE FROM {} WHERE rollup = {rollup} AND sort = {sort}", self.table);
        self.execute(tx, OPERATION, delete).await?;
        Ok(false)
    }
}
