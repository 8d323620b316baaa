//! One conditional UpdateItem, written down by its parts.

use std::collections::HashMap;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure as OnFailure,
    TransactWriteItem, Update as TransactUpdate,
};

use super::error::CheckpointError;
use super::item::Item;

/// What became of a conditional write.
pub(super) enum Written {
    /// It was made; the item after it.
    Done(Item),
    /// The condition did not hold; the item that it was held against, if there is one.
    Refused(Option<Item>),
}

/// A conditional UpdateItem. In expressions `#name` stands for the attribute `name` (many of our
/// names are reserved words) and `:name` for a bound value.
pub(super) struct Update {
    key: Item,
    set: Vec<String>,
    remove: Vec<String>,
    condition: String,
    values: HashMap<String, AttributeValue>,
}

impl Update {
    /// An update of the item with this key that is made only where `condition` holds.
    pub(super) fn new(key: Item, condition: &str) -> Self {
        let condition = condition.to_owned();
        Self { key, set: vec![], remove: vec![], condition, values: HashMap::new() }
    }

    /// Binds `:name` in expressions.
    pub(super) fn bind(mut self, name: &str, value: AttributeValue) -> Self {
        self.values.insert(format!(":{name}"), value);
        self
    }

    /// Sets an attribute to a value.
    pub(super) fn set(mut self, name: &str, value: AttributeValue) -> Self {
        // A prefix of its own, so that the condition can bind the same word to another value.
        self.set.push(format!("#{name} = :set_{name}"));
        self.bind(&format!("set_{name}"), value)
    }

    /// Sets an attribute to an expression.
    pub(super) fn compute(mut self, name: &str, expression: &str) -> Self {
        self.set.push(format!("#{name} = {expression}"));
        self
    }

    /// Removes attributes.
    pub(super) fn remove(mut self, names: &[&str]) -> Self {
        self.remove.extend(names.iter().map(|name| format!("#{name}")));
        self
    }

    /// Sets an attribute, or removes it where there is no value.
    pub(super) fn set_or_remove(self, name: &str, value: Option<AttributeValue>) -> Self {
        match value {
            Some(value) => self.set(name, value),
            None => self.remove(&[name]),
        }
    }

    /// What is to be changed, and the names in it and in the condition.
    fn expression(&self) -> (String, HashMap<String, String>) {
        let clauses = [("SET", &self.set), ("REMOVE", &self.remove)];
        let clauses = clauses.iter().filter(|(_, parts)| !parts.is_empty());
        let clauses: Vec<String> =
            clauses.map(|(verb, parts)| format!("{verb} {}", parts.join(", "))).collect();
        let update = clauses.join(" ");
        let names = names_in(&update).chain(names_in(&self.condition)).collect();
        (update, names)
    }

    /// The bound values; none at all, where nothing is bound: DynamoDB refuses an empty map.
    fn bound(values: HashMap<String, AttributeValue>) -> Option<HashMap<String, AttributeValue>> {
        Some(values).filter(|values| !values.is_empty())
    }

    /// The item after it, as far as it sets attributes to values.
    #[cfg(feature = "faults")]
    pub(super) fn item(&self) -> Item {
        let values = self.values.iter();
        let set = values.filter_map(|(name, value)| Some((name.strip_prefix(":set_")?, value)));
        let set = set.map(|(name, value)| (name.to_owned(), value.clone()));
        self.key.clone().into_iter().chain(set).collect()
    }

    /// Makes the write.
    pub(super) async fn send(
        self,
        client: &Client,
        table: &str,
        operation: &'static str,
    ) -> Result<Written, CheckpointError> {
        let (update, names) = self.expression();
        let answer = client
            .update_item()
            .table_name(table)
            .set_key(Some(self.key))
            .update_expression(&update)
            .condition_expression(&self.condition)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(Self::bound(self.values))
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .send()
            .await;
        let error = match answer {
            Ok(output) => return Ok(Written::Done(output.attributes.unwrap_or_default())),
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(refused)) => {
                Ok(Written::Refused(refused.item.clone().filter(|item| !item.is_empty())))
            }
            _ => Err(CheckpointError::from_sdk(operation, table, error)),
        }
    }

    /// Makes all of `updates`, or none of them where a condition does not hold or somebody else writes one of the
    /// items at the same time; says whether they were made.
    pub(super) async fn send_all(
        updates: Vec<Self>,
        client: &Client,
        table: &str,
        operation: &'static str,
    ) -> Result<bool, CheckpointError> {
        let mut request = client.transact_write_items();
        for update in updates {
            let (expression, names) = update.expression();
            let built = TransactUpdate::builder()
                .table_name(table)
                .set_key(Some(update.key))
                .update_expression(expression)
                .condition_expression(update.condition)
                .set_expression_attribute_names(Some(names))
                .set_expression_attribute_values(Self::bound(update.values))
                .build();
            let item = built.map_err(|error| {
                let error = SdkError::<TransactWriteItemsError>::construction_failure(error);
                CheckpointError::from_sdk(operation, table, error)
            })?;
            request = request.transact_items(TransactWriteItem::builder().update(item).build());
        }
        let Err(error) = request.send().await else { return Ok(true) };
        let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
            error.as_service_error()
        else {
            return Err(CheckpointError::from_sdk(operation, table, error));
        };
        let mut codes = cancelled.cancellation_reasons().iter().filter_map(|reason| reason.code());
        let is_refused =
            codes.any(|code| code == "ConditionalCheckFailed" || code == "TransactionConflict");
        match is_refused {
            true => Ok(false),
            false => Err(CheckpointError::from_sdk(operation, table, error)),
        }
    }
}

/// The placeholders `#name` of an expression, each with its attribute.
pub(super) fn names_in(expression: &str) -> impl Iterator<Item = (String, String)> {
    let word = |rest: &str| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        rest[..end.unwrap_or(rest.len())].to_owned()
    };
    expression.split('#').skip(1).map(word).map(|name| (format!("#{name}"), name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_of_an_expression_is_named() {
        let names: Vec<_> = names_in("#dirty = if_not_exists(#dirty_seen, :zero)").collect();
        let pair = |name: &str| (format!("#{name}"), name.to_owned());
        assert_eq!(names, [pair("dirty"), pair("dirty_seen")]);
        assert_eq!(names_in("a = :b").count(), 0);
    }
}
