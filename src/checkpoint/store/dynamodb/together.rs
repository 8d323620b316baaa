//! Items of many rollups, read by few requests.

use aws_sdk_dynamodb::types::KeysAndAttributes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::value::{Attributes, item, key};
use super::{DynamoDb, Item, Key, PK, SK, StoreError, Value};
use crate::checkpoint::store::READS_ABREAST;

/// The most keys of one request.
const KEYS_MAX: usize = 100;

impl DynamoDb {
    /// The items with these different keys that exist.
    pub(super) async fn get_items(&self, keys: Vec<Key>) -> Result<Vec<Item>, StoreError> {
        let batches: Vec<Vec<Key>> = keys.chunks(KEYS_MAX).map(<[Key]>::to_vec).collect();
        let calls = batches.into_iter().map(|keys| self.get_batch(keys));
        let found: Vec<Vec<Item>> =
            stream::iter(calls).buffered(READS_ABREAST).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn get_batch(&self, keys: Vec<Key>) -> Result<Vec<Item>, StoreError> {
        let keys = keys.into_iter().map(key).collect();
        let wanted = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true);
        // Only a missing key fails here.
        let wanted = wanted.build().map_err(|error| self.unsendable("get several", error))?;
        let request = self.client.batch_get_item().request_items(&self.table, wanted);
        let answer = request.send().await.map_err(|error| self.error("get several", error))?;
        let mut tables = answer.responses.unwrap_or_default();
        let found = tables.remove(&self.table).unwrap_or_default();
        let mut items: Vec<Item> = found.into_iter().map(item).collect();
        // A throttled table answers a part. The rest is read one by one, and each read waits and is
        // repeated as the SDK does it.
        let left = answer.unprocessed_keys.unwrap_or_default();
        for attributes in left.into_values().flat_map(|left| left.keys) {
            if let Some(key) = key_of(attributes) {
                items.extend(self.get_item(key).await?);
            }
        }
        Ok(items)
    }
}

/// The key in these attributes.
fn key_of(attributes: Attributes) -> Option<Key> {
    let mut fields = item(attributes);
    match (fields.remove(PK), fields.remove(SK)) {
        (Some(Value::Text(rollup)), Some(Value::Text(sort))) => Some(Key { rollup, sort }),
        _ => None,
    }
}
