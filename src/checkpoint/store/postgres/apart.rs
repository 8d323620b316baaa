//! Several conditional writes in one message, which is a transaction of its own.

use super::render::Render;
use super::value::from_row;
use super::{Item, Postgres, StoreError, Update};
use crate::clients::db::Access;

/// Writes that are sent in one message. The number hides the network's delay, and bounds the message
/// to some hundred kilobytes.
const WRITES_AT_ONCE: usize = 200;

impl Postgres {
    /// Makes those of these writes whose conditions hold, and returns the items after them.
    pub(super) async fn write_apart(
        &self,
        updates: Vec<Update>,
        operation: &'static str,
    ) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        for some in updates.chunks(WRITES_AT_ONCE) {
            let render = |update| Render::update(&self.table, self.clock, update);
            let alike = Render::alike(&self.table, self.clock, some);
            let sql =
                alike.unwrap_or_else(|| some.iter().map(render).collect::<Vec<_>>().join("; "));
            for row in self.run(Access::ReadWrite, operation, sql).await? {
                let item = from_row(&row).map_err(|error| self.unreadable(operation, error))?;
                items.push(item);
            }
        }
        Ok(items)
    }
}
