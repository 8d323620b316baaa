//! Items in the SDK's form.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::{Item, Key, PK, SK};
use crate::checkpoint::store::Value;

/// An item in the SDK's form.
pub(super) type Attributes = HashMap<String, AttributeValue>;

pub(super) fn key(key: Key) -> Attributes {
    let text = AttributeValue::S;
    HashMap::from([(PK.to_owned(), text(key.rollup)), (SK.to_owned(), text(key.sort))])
}

pub(super) fn attributes(item: Item) -> Attributes {
    item.into_iter().filter_map(|(name, value)| Some((name, attribute(value)?))).collect()
}

pub(super) fn attribute(value: Value) -> Option<AttributeValue> {
    Some(match value {
        Value::Text(text) => AttributeValue::S(text),
        Value::Number(number) => AttributeValue::N(number),
        // DynamoDB has no empty sets.
        Value::Texts(texts) if texts.is_empty() => return None,
        Value::Texts(texts) => AttributeValue::Ss(texts),
        Value::Map(fields) => AttributeValue::M(attributes(fields)),
        Value::Bool(is_true) => AttributeValue::Bool(is_true),
        Value::Null => AttributeValue::Null(true),
        Value::Other => return None,
    })
}

pub(super) fn item(attributes: Attributes) -> Item {
    attributes.into_iter().map(|(name, attribute)| (name, value(attribute))).collect()
}

fn value(attribute: AttributeValue) -> Value {
    match attribute {
        AttributeValue::S(text) => Value::Text(text),
        AttributeValue::N(number) => Value::Number(number),
        AttributeValue::Ss(texts) => Value::Texts(texts),
        AttributeValue::M(fields) => Value::Map(item(fields)),
        AttributeValue::Bool(is_true) => Value::Bool(is_true),
        AttributeValue::Null(_) => Value::Null,
        _ => Value::Other,
    }
}
