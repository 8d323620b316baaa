//! Creates the table, waits for it, and recognises it.

use std::time::Duration;

use aws_sdk_dynamodb::error::{BuildError, SdkError};
use aws_sdk_dynamodb::operation::create_table::CreateTableError;
use aws_sdk_dynamodb::operation::create_table::builders::CreateTableFluentBuilder;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, IndexStatus, KeySchemaElement, KeyType,
    Projection, ProjectionType, ScalarAttributeType, TableDescription, TableStatus,
};

use super::DynamoDb;
use crate::checkpoint::store::{Created, PK, SK, StoreError, TableSummary, UNFINISHED};

/// The sparse index of the unfinished slices.
pub(super) const INDEX: &str = "unfinished";
/// The table's keys: partition, then sort.
const TABLE_KEYS: [(&str, KeyType); 2] = [(PK, KeyType::Hash), (SK, KeyType::Range)];
/// The index's keys.
const INDEX_KEYS: [(&str, KeyType); 2] = [(UNFINISHED, KeyType::Hash), (SK, KeyType::Range)];
/// A new on-demand table is usable after 5 to 20 s.
const ACTIVE_SECONDS_MAX: u64 = 60;
/// DescribeTable is free, but it is a control-plane call with a quota.
const POLL: Duration = Duration::from_millis(500);

impl DynamoDb {
    /// Creates the table, billed by request, and waits until it is usable. An existing table is
    /// verified.
    pub(super) async fn create_table(&self) -> Result<Created, StoreError> {
        // Where a stack has made the table, this role need not be allowed to create one.
        let created = match self.description().await {
            Ok(_) => Created::AlreadyThere,
            Err(StoreError::NoTable { .. }) => self.send_request().await?,
            Err(error) => return Err(error),
        };
        self.wait_until_active().await?;
        Ok(created)
    }

    async fn send_request(&self) -> Result<Created, StoreError> {
        let request = self.table_request().map_err(|error| {
            self.error("create table", SdkError::<CreateTableError>::construction_failure(error))
        })?;
        match request.send().await {
            Ok(_) => Ok(Created::Created),
            // Another process has created it meanwhile.
            Err(error) if is_in_use(&error) => Ok(Created::AlreadyThere),
            Err(error) => Err(self.error("create table", error)),
        }
    }

    /// The table as DynamoDB describes it, verified to be Tallymark's.
    pub(super) async fn describe_table(&self) -> Result<TableSummary, StoreError> {
        let table = self.description().await?;
        self.verify(&table)?;
        let billing = table.billing_mode_summary().and_then(|summary| summary.billing_mode());
        let count = |value: Option<i64>| value.unwrap_or(0).try_into().unwrap_or(0);
        Ok(TableSummary {
            status: table.table_status().map_or_else(String::new, |status| status.to_string()),
            items: count(table.item_count()),
            bytes: count(table.table_size_bytes()),
            on_demand: billing == Some(&BillingMode::PayPerRequest),
        })
    }

    /// The command that creates the same table with the AWS command line.
    pub(super) fn create_table_command(&self) -> String {
        let keys = |keys: [(&str, KeyType); 2]| {
            keys.map(|(name, kind)| format!("AttributeName={name},KeyType={kind}"))
        };
        let [hash, range] = keys(TABLE_KEYS);
        let attributes =
            [PK, SK, UNFINISHED].map(|name| format!("AttributeName={name},AttributeType=S"));
        let index_keys = keys(INDEX_KEYS).map(|key| format!("{{{key}}}")).join(",");
        format!(
            "aws dynamodb create-table --table-name {} --billing-mode PAY_PER_REQUEST \
             --attribute-definitions {} --key-schema {hash} {range} \
             --global-secondary-indexes 'IndexName={INDEX},KeySchema=[{index_keys}],\
             Projection={{ProjectionType=ALL}}'",
            self.table,
            attributes.join(" "),
        )
    }

    fn table_request(&self) -> Result<CreateTableFluentBuilder, BuildError> {
        let index = GlobalSecondaryIndex::builder()
            .index_name(INDEX)
            .set_key_schema(Some(schema(INDEX_KEYS)?))
            .projection(Projection::builder().projection_type(ProjectionType::All).build())
            .build()?;
        let attribute = |name| {
            let definition = AttributeDefinition::builder().attribute_name(name);
            definition.attribute_type(ScalarAttributeType::S).build()
        };
        Ok(self
            .client
            .create_table()
            .table_name(&self.table)
            .billing_mode(BillingMode::PayPerRequest)
            .set_key_schema(Some(schema(TABLE_KEYS)?))
            .global_secondary_indexes(index)
            .attribute_definitions(attribute(PK)?)
            .attribute_definitions(attribute(SK)?)
            .attribute_definitions(attribute(UNFINISHED)?))
    }

    async fn description(&self) -> Result<TableDescription, StoreError> {
        let answer = self.client.describe_table().table_name(&self.table).send().await;
        let table = answer.map_err(|error| self.error("describe table", error))?.table;
        table.ok_or_else(|| StoreError::NoTable { table: self.table.clone() })
    }

    async fn wait_until_active(&self) -> Result<(), StoreError> {
        let mut waited = Duration::ZERO;
        loop {
            let status = match self.description().await {
                Ok(table) => {
                    self.verify(&table)?;
                    let status = status(&table);
                    if status == TableStatus::Active.as_str() {
                        return Ok(());
                    }
                    status
                }
                // The description of a new table may lag behind its creation.
                Err(StoreError::NoTable { .. }) => TableStatus::Creating.to_string(),
                Err(error) => return Err(error),
            };
            if waited.as_secs() >= ACTIVE_SECONDS_MAX {
                let (table, seconds) = (self.table.clone(), waited.as_secs());
                return Err(StoreError::NotActive { table, status, seconds });
            }
            tokio::time::sleep(POLL).await;
            waited += POLL;
        }
    }

    fn verify(&self, table: &TableDescription) -> Result<(), StoreError> {
        let table_name = &self.table;
        let wrong = |problem| StoreError::WrongTable {
            table: table_name.clone(),
            problem,
            remedy: "delete it, or set `checkpoint.table` to another name",
        };
        if !same(table.key_schema(), TABLE_KEYS) {
            let found = listed(table.key_schema());
            return Err(wrong(format!("has the keys {found} instead of {PK}, {SK}")));
        }
        for definition in table.attribute_definitions() {
            let (name, kind) = (definition.attribute_name(), definition.attribute_type());
            if [PK, SK, UNFINISHED].contains(&name) && *kind != ScalarAttributeType::S {
                return Err(wrong(format!("has a key {name} of type {kind} instead of S")));
            }
        }
        let indexes = table.global_secondary_indexes();
        let Some(index) = indexes.iter().find(|index| index.index_name() == Some(INDEX)) else {
            return Err(wrong(format!("has no index `{INDEX}`")));
        };
        if !same(index.key_schema(), INDEX_KEYS) {
            let found = listed(index.key_schema());
            return Err(wrong(format!(
                "has an index `{INDEX}` with the keys {found} instead of {UNFINISHED}, {SK}"
            )));
        }
        let projection = index.projection().and_then(|projection| projection.projection_type());
        if projection != Some(&ProjectionType::All) {
            return Err(wrong(format!("has an index `{INDEX}` without all attributes")));
        }
        Ok(())
    }
}

/// It is `ACTIVE` only once the index is active too.
fn status(table: &TableDescription) -> String {
    let creating = table
        .global_secondary_indexes()
        .iter()
        .any(|index| index.index_status().is_some_and(|status| *status != IndexStatus::Active));
    match table.table_status() {
        Some(TableStatus::Active) if creating => IndexStatus::Creating.to_string(),
        Some(status) => status.to_string(),
        None => String::new(),
    }
}

fn is_in_use(error: &SdkError<CreateTableError>) -> bool {
    error.as_service_error().is_some_and(CreateTableError::is_resource_in_use_exception)
}

fn schema(keys: [(&str, KeyType); 2]) -> Result<Vec<KeySchemaElement>, BuildError> {
    let element =
        |(name, kind)| KeySchemaElement::builder().attribute_name(name).key_type(kind).build();
    keys.into_iter().map(element).collect()
}

fn same(found: &[KeySchemaElement], wanted: [(&str, KeyType); 2]) -> bool {
    let found = found.iter().map(|key| (key.attribute_name(), key.key_type().clone()));
    found.eq(wanted)
}

fn listed(keys: &[KeySchemaElement]) -> String {
    let names: Vec<_> = keys.iter().map(KeySchemaElement::attribute_name).collect();
    names.join(", ")
}
