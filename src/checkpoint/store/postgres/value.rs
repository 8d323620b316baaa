//! Items in the table's form: the key in its columns, and all other attributes in a `jsonb`.

use serde_json::{Map, Value as Json};
use sqlx::Row as _;
use sqlx::postgres::PgRow;

use crate::checkpoint::store::{Item, Key, PK, SK, Value};
use crate::model::sql::literal;

/// The two parts of a key as SQL.
pub(super) fn key_of(key: &Key) -> (String, String) {
    (literal(&key.rollup), literal(&key.sort))
}

/// Reads a row with `rollup`, `sort` and `item` as a text.
pub(super) fn from_row(row: &PgRow) -> Result<Item, sqlx::Error> {
    let json: String = row.try_get("item")?;
    let fields: Map<String, Json> =
        serde_json::from_str(&json).map_err(|error| sqlx::Error::Decode(error.into()))?;
    let key = Key { rollup: row.try_get("rollup")?, sort: row.try_get("sort")? };
    let mut item = key.to_item();
    item.extend(fields.into_iter().map(|(name, json)| (name, from_json(json))));
    Ok(item)
}

fn from_json(json: Json) -> Value {
    match json {
        Json::String(text) => Value::Text(text),
        Json::Number(number) => Value::Number(number.to_string()),
        Json::Bool(is_true) => Value::Bool(is_true),
        Json::Null => Value::Null,
        Json::Array(texts) => {
            let text = |json: Json| json.as_str().map(str::to_owned);
            Value::Texts(texts.into_iter().filter_map(text).collect())
        }
        Json::Object(fields) => {
            Value::Map(fields.into_iter().map(|(name, json)| (name, from_json(json))).collect())
        }
    }
}

/// The value as the table stores it. `None` for [`Value::Other`], which has no form there.
pub(super) fn to_json(value: &Value) -> Option<Json> {
    Some(match value {
        Value::Text(text) => storable(text),
        // An invalid number is stored as it is, and its reader finds it malformed.
        Value::Number(number) => {
            serde_json::from_str(number).map_or_else(|_| storable(number), Json::Number)
        }
        Value::Texts(texts) => Json::Array(texts.iter().map(|text| storable(text)).collect()),
        Value::Map(fields) => Json::Object(fields_of(fields)),
        Value::Bool(is_true) => Json::Bool(*is_true),
        Value::Null => Json::Null,
        Value::Other => return None,
    })
}

/// The attributes of an item without its key.
pub(super) fn fields_of(item: &Item) -> Map<String, Json> {
    let fields = item.iter().filter(|(name, _)| *name != PK && *name != SK);
    fields.filter_map(|(name, value)| Some((name.clone(), to_json(value)?))).collect()
}

/// PostgreSQL stores every character except U+0000.
fn storable(text: &str) -> Json {
    Json::String(text.replace('\0', "\u{fffd}"))
}
