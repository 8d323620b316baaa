//! The store in DynamoDB: one table with one item for each checkpoint.

mod error;
mod expression;
mod table;
mod together;
mod value;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::error::SdkError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::{
    ReturnValue, ReturnValuesOnConditionCheckFailure as OnFailure, TransactWriteItem,
    Update as TransactUpdate,
};
use futures_util::{FutureExt as _, future};

use super::{
    Cond, Created, Extent, Item, Key, PK, Query, SK, Sorts, Store, StoreAnswer, StoreError,
    TableSummary, UNFINISHED, Update, Value, Written,
};
use crate::clients::db::Tx;
use expression::Expression;
use table::INDEX;
use value::{attributes, item, key};

/// A DynamoDB table.
#[derive(Clone, Debug)]
pub struct DynamoDb {
    client: Client,
    table: String,
}

impl DynamoDb {
    /// The table with this name, through an existing client.
    #[must_use]
    pub fn new(client: Client, table: impl Into<String>) -> Self {
        Self { client, table: table.into() }
    }

    /// The table with this name. The AWS SDK's usual rules give its region, its credentials and
    /// `AWS_ENDPOINT_URL_DYNAMODB`. This sends no request yet.
    ///
    /// # Errors
    /// [`StoreError::NoRegion`] without a region and an endpoint, and [`StoreError::Environment`]
    /// if either is invalid.
    pub(crate) async fn connect(table: &str) -> Result<Self, StoreError> {
        if let Some(refusal) = crate::clients::aws::refusal(|name| std::env::var(name).ok()) {
            return Err(StoreError::Environment(refusal));
        }
        let shared = crate::clients::aws::config().await;
        if shared.region().is_none() {
            return Err(StoreError::NoRegion);
        }
        Ok(Self::new(Client::new(&shared), table))
    }

    /// The table with this name in a region that does not exist, for work that needs no checkpoint.
    #[must_use]
    pub(crate) fn nowhere(table: &str) -> Self {
        let nowhere = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("none"))
            .build();
        Self::new(Client::from_conf(nowhere), table)
    }

    /// Refuses a write inside a transaction of the target. The write would take effect immediately,
    /// while the transaction may still roll back.
    fn refuse(&self, within: Option<&mut Tx>, operation: &'static str) -> Result<(), StoreError> {
        if within.is_none() {
            return Ok(());
        }
        let problem = "dynamodb cannot write within a transaction of the target";
        let (table, source) = (self.table.clone(), problem.into());
        let problem = problem.to_owned();
        Err(StoreError::Other { operation, table, problem, retryable: false, source })
    }

    async fn get_item(&self, wanted: Key) -> Result<Option<Item>, StoreError> {
        let request = self.client.get_item().table_name(&self.table).consistent_read(true);
        let answer = request.set_key(Some(key(wanted))).send().await;
        let found = answer.map_err(|error| self.error("get", error))?.item;
        Ok(found.map(item))
    }

    /// Builds the request of a query.
    fn request(&self, query: &Query) -> QueryFluentBuilder {
        let request = self.client.query().table_name(&self.table);
        let mut expression = Expression::default();
        let (pk, rollup) = (expression.name(PK), expression.text("rollup", &query.rollup));
        let is_rollup = format!("{pk} = {rollup}");
        let (request, condition) = match &query.sorts {
            Sorts::All => (request, is_rollup),
            Sorts::Unfinished => {
                expression = Expression::default();
                let unfinished = expression.name(UNFINISHED);
                let rollup = expression.text("rollup", &query.rollup);
                (request.index_name(INDEX), format!("{unfinished} = {rollup}"))
            }
            Sorts::Between(from, to) => {
                let (from, to) = (expression.text("from", from), expression.text("to", to));
                let sk = expression.name(SK);
                (request, format!("{is_rollup} AND {sk} BETWEEN {from} AND {to}"))
            }
            Sorts::Before(end) => {
                let (end, sk) = (expression.text("end", end), expression.name(SK));
                (request, format!("{is_rollup} AND {sk} < {end}"))
            }
            Sorts::Prefix(prefix) => {
                let (prefix, sk) = (expression.text("prefix", prefix), expression.name(SK));
                (request, format!("{is_rollup} AND begins_with({sk}, {prefix})"))
            }
        };
        let request = match query.reading {
            // An index cannot be read consistently.
            Extent::Whole => request.consistent_read(query.sorts != Sorts::Unfinished),
            Extent::Part(names) => {
                let names: Vec<_> = names.iter().map(|name| expression.name(name)).collect();
                request.projection_expression(names.join(", "))
            }
        };
        let (names, values) = expression.into_parts();
        request
            .scan_index_forward(!query.descending)
            .set_limit(query.limit.map(i32::from))
            .key_condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
    }

    async fn read(&self, query: Query) -> Result<Vec<Item>, StoreError> {
        let request = self.request(&query);
        if query.limit.is_some() {
            let page = request.send().await.map_err(|error| self.error("query", error))?;
            return Ok(page.items.unwrap_or_default().into_iter().map(item).collect());
        }
        let mut pages = request.into_paginator().items().send();
        let mut found = Vec::new();
        while let Some(next) = pages.next().await {
            found.push(item(next.map_err(|error| self.error("query", error))?));
        }
        Ok(found)
    }

    async fn update_item(
        &self,
        update: Update,
        operation: &'static str,
    ) -> Result<Written, StoreError> {
        let mut expression = Expression::default();
        let changes = expression.changes(update.changes);
        let condition = expression.condition(&update.condition);
        let (names, values) = expression.into_parts();
        let answer = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key(update.key)))
            .update_expression(changes)
            .set_condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .return_values(ReturnValue::AllNew)
            .return_values_on_condition_check_failure(OnFailure::AllOld)
            .send()
            .await;
        let error = match answer {
            Ok(output) => return Ok(Written::Done(item(output.attributes.unwrap_or_default()))),
            Err(error) => error,
        };
        match error.as_service_error() {
            Some(UpdateItemError::ConditionalCheckFailedException(refused)) => {
                let found = refused.item.clone().filter(|item| !item.is_empty()).map(item);
                Ok(Written::Refused { found, at: None })
            }
            _ => Err(self.error(operation, error)),
        }
    }

    async fn update_items(
        &self,
        updates: Vec<Update>,
        operation: &'static str,
    ) -> Result<bool, StoreError> {
        let mut request = self.client.transact_write_items();
        for update in updates {
            let mut expression = Expression::default();
            let changes = expression.changes(update.changes);
            let condition = expression.condition(&update.condition);
            let (names, values) = expression.into_parts();
            let built = TransactUpdate::builder()
                .table_name(&self.table)
                .set_key(Some(key(update.key)))
                .update_expression(changes)
                .set_condition_expression(condition)
                .set_expression_attribute_names(names)
                .set_expression_attribute_values(values)
                .build();
            let update = built.map_err(|error| {
                let error = SdkError::<TransactWriteItemsError>::construction_failure(error);
                self.error(operation, error)
            })?;
            request = request.transact_items(TransactWriteItem::builder().update(update).build());
        }
        let Err(error) = request.send().await else { return Ok(true) };
        let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
            error.as_service_error()
        else {
            return Err(self.error(operation, error));
        };
        let mut codes = cancelled.cancellation_reasons().iter().filter_map(|reason| reason.code());
        let is_refused =
            codes.any(|code| code == "ConditionalCheckFailed" || code == "TransactionConflict");
        if is_refused { Ok(false) } else { Err(self.error(operation, error)) }
    }

    async fn put_item(&self, item: Item, condition: &Cond) -> Result<bool, StoreError> {
        let mut expression = Expression::default();
        let condition = expression.condition(condition);
        let (names, values) = expression.into_parts();
        let put = self.client.put_item().table_name(&self.table).set_item(Some(attributes(item)));
        let put = put
            .set_condition_expression(condition)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values);
        let Err(error) = put.send().await else { return Ok(true) };
        let refused = error.as_service_error();
        match refused.is_some_and(PutItemError::is_conditional_check_failed_exception) {
            true => Ok(false),
            false => Err(self.error("copy", error)),
        }
    }

    async fn delete_item(&self, unwanted: Key) -> Result<(), StoreError> {
        let delete = self.client.delete_item().table_name(&self.table);
        let deleted = delete.set_key(Some(key(unwanted))).send().await;
        deleted.map(drop).map_err(|error| self.error("delete", error))
    }
}

impl Store for DynamoDb {
    fn table(&self) -> &str {
        &self.table
    }

    fn get(&self, key: Key) -> StoreAnswer<'_, Option<Item>> {
        self.get_item(key).boxed()
    }

    fn get_each(&self, keys: Vec<Key>) -> StoreAnswer<'_, Vec<Item>> {
        self.get_items(keys).boxed()
    }

    fn query(&self, query: Query) -> StoreAnswer<'_, Vec<Item>> {
        self.read(query).boxed()
    }

    fn update<'a>(
        &'a self,
        update: Update,
        operation: &'static str,
        within: Option<&'a mut Tx>,
    ) -> StoreAnswer<'a, Written> {
        async move {
            self.refuse(within, operation)?;
            self.update_item(update, operation).await
        }
        .boxed()
    }

    fn update_each<'a>(
        &'a self,
        _: &'a [Update],
        operation: &'static str,
        within: &'a mut Tx,
    ) -> StoreAnswer<'a, Vec<Item>> {
        future::ready(self.refuse(Some(within), operation).map(|()| Vec::new())).boxed()
    }

    fn find_or_hold<'a>(&'a self, _: Key, within: &'a mut Tx) -> StoreAnswer<'a, bool> {
        future::ready(self.refuse(Some(within), "look for a checkpoint").map(|()| false)).boxed()
    }

    fn update_range<'a>(
        &'a self,
        _: [Update; 2],
        _: String,
        operation: &'static str,
        within: &'a mut Tx,
    ) -> StoreAnswer<'a, u64> {
        future::ready(self.refuse(Some(within), operation).map(|()| 0)).boxed()
    }

    fn update_all<'a>(
        &'a self,
        updates: Vec<Update>,
        operation: &'static str,
        within: Option<&'a mut Tx>,
    ) -> StoreAnswer<'a, bool> {
        async move {
            self.refuse(within, operation)?;
            self.update_items(updates, operation).await
        }
        .boxed()
    }

    fn put(&self, item: Item, condition: Cond) -> StoreAnswer<'_, bool> {
        async move { self.put_item(item, &condition).await }.boxed()
    }

    fn delete(&self, key: Key) -> StoreAnswer<'_, ()> {
        self.delete_item(key).boxed()
    }

    fn create(&self) -> StoreAnswer<'_, Created> {
        self.create_table().boxed()
    }

    fn describe(&self) -> StoreAnswer<'_, TableSummary> {
        self.describe_table().boxed()
    }

    fn create_command(&self) -> String {
        self.create_table_command()
    }
}
