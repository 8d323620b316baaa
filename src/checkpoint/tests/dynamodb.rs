//! Tests of the rules that only DynamoDB has, and of its table.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType, PutRequest,
    ReturnValue, ReturnValuesOnConditionCheckFailure as OnFailure, ScalarAttributeType,
    WriteRequest,
};
use chrono::TimeDelta;

use super::super::item::{key, number, sort_key};
use super::super::store::{Cond, StoreError, Value};
use super::{Fixture, ROLLUP, checkpoints_in, start, wish};
use crate::checkpoint::{Checkpoint, CheckpointError, Created, State};
use crate::model::hint::Hinted;

#[tokio::test]
async fn a_table_is_created_once_and_recognised_after() {
    let fixture = Fixture::in_dynamodb().await;
    assert_eq!(fixture.checkpoints.create_table().await.unwrap(), Created::AlreadyThere);
    let table = fixture.checkpoints.describe().await.unwrap();
    assert_eq!((table.status.as_str(), table.on_demand), ("ACTIVE", true));
}

#[tokio::test]
async fn a_missing_table_names_the_command_that_makes_it() {
    let fixture = Fixture::in_dynamodb().await;
    let missing = checkpoints_in(fixture.dynamo().client(), "elsewhere");
    let message = "table `elsewhere` does not exist; hint: run `tallymark init`";
    assert_eq!(missing.get(ROLLUP, start()).await.unwrap_err().in_one_line(), message);
    assert_eq!(missing.claim(&wish(0)).await.unwrap_err().in_one_line(), message);
    assert_eq!(missing.describe().await.unwrap_err().in_one_line(), message);
    assert_eq!(missing.unfinished(ROLLUP).await.unwrap_err().in_one_line(), message);
}

#[tokio::test]
async fn a_table_of_somebody_else_is_refused() {
    let fixture = Fixture::in_dynamodb().await;
    let hash = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash);
    let id = AttributeDefinition::builder().attribute_name("id");
    let request = fixture.dynamo().client().create_table().table_name("theirs");
    request
        .key_schema(hash.build().unwrap())
        .attribute_definitions(id.attribute_type(ScalarAttributeType::S).build().unwrap())
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await
        .unwrap();
    let theirs = checkpoints_in(fixture.dynamo().client(), "theirs");
    let error = theirs.create_table().await.unwrap_err();
    assert!(matches!(error, CheckpointError::Store(StoreError::WrongTable { .. })), "{error}");
    assert!(error.to_string().contains("has the keys id instead of pk, sk"), "{error}");
}

#[test]
fn the_printed_command_makes_the_same_table() {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
        .build();
    let client = aws_sdk_dynamodb::Client::from_conf(config);
    let command = checkpoints_in(client, "tallymark").create_table_command();
    assert_eq!(
        command,
        "aws dynamodb create-table --table-name tallymark --billing-mode PAY_PER_REQUEST \
         --attribute-definitions AttributeName=pk,AttributeType=S \
         AttributeName=sk,AttributeType=S AttributeName=unfinished,AttributeType=S \
         --key-schema AttributeName=pk,KeyType=HASH AttributeName=sk,KeyType=RANGE \
         --global-secondary-indexes 'IndexName=unfinished,\
         KeySchema=[{AttributeName=unfinished,KeyType=HASH},{AttributeName=sk,KeyType=RANGE}],\
         Projection={ProjectionType=ALL}'"
    );
}

#[tokio::test]
async fn a_refused_write_without_all_old_shows_none() {
    let fixture = Fixture::in_dynamodb().await;
    let mut item = key(ROLLUP, start()).to_item();
    item.insert("attempt".into(), number(4));
    assert!(fixture.checkpoints.store.put(item, Cond::always()).await.unwrap());
    let request = fixture.dynamo().client().update_item().table_name("tallymark");
    let attribute = |text: &str| AttributeValue::S(text.to_owned());
    let error = request
        .key("pk", attribute(ROLLUP))
        .key("sk", attribute(&sort_key(start())))
        .update_expression("SET b = :b")
        .condition_expression("attribute_not_exists(pk)")
        .expression_attribute_values(":b", attribute("b"))
        .return_values(ReturnValue::AllNew)
        .return_values_on_condition_check_failure(OnFailure::None)
        .send()
        .await
        .unwrap_err();
    let aws_sdk_dynamodb::operation::update_item::UpdateItemError::ConditionalCheckFailedException(
        refused,
    ) = error.into_service_error()
    else {
        panic!("not refused by the condition")
    };
    assert_eq!(refused.item, None);
}

#[tokio::test]
async fn a_range_is_read_over_all_of_its_pages() {
    let fixture = Fixture::in_dynamodb().await;
    let client = fixture.dynamo().client();
    // 600 items of 2 KB are 1.2 MB, and a page ends at 1 MB.
    let writes: Vec<_> = (0..600).map(|n| write(&large(n))).collect();
    for batch in writes.chunks(25) {
        let written = client
            .batch_write_item()
            .request_items("tallymark", batch.to_vec())
            .send()
            .await
            .unwrap();
        assert!(written.unprocessed_items.unwrap_or_default().is_empty());
    }
    let first_page = client
        .query()
        .table_name("tallymark")
        .key_condition_expression("pk = :pk")
        .expression_attribute_values(":pk", AttributeValue::S(ROLLUP.into()))
        .send()
        .await
        .unwrap();
    assert!(first_page.last_evaluated_key.is_some(), "the test wants more than one page");

    let all = fixture.checkpoints.range(ROLLUP, start(), start() + TimeDelta::hours(600)).await;
    let expected: Vec<_> = (0..600).map(large).collect();
    assert_eq!(all.unwrap(), expected);
    assert_eq!(fixture.checkpoints.unfinished(ROLLUP).await.unwrap(), expected);
}

/// The checkpoint of hour `n`, about as large as checkpoints get.
fn large(n: i64) -> Checkpoint {
    Checkpoint {
        rollup: ROLLUP.into(),
        slice_start: start() + TimeDelta::hours(n),
        state: State::Failed,
        attempt: 1,
        owner: None,
        lease_until: None,
        claimed_from: None,
        failures: 1,
        retry_at: None,
        dirty: 0,
        dirty_seen: 0,
        definition: None,
        horizon: None,
        reason: None,
        error: Some("x".repeat(2_000)),
        outcome: None,
        reopened_at: None,
        started_at: None,
        finished_at: None,
    }
}

fn write(checkpoint: &Checkpoint) -> WriteRequest {
    let attribute = |value| match value {
        Value::Number(number) => AttributeValue::N(number),
        Value::Text(text) => AttributeValue::S(text),
        other => panic!("{other:?}"),
    };
    let item = checkpoint.to_item().into_iter().map(|(name, value)| (name, attribute(value)));
    let item: HashMap<_, _> = item.collect();
    let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
    WriteRequest::builder().put_request(put).build()
}
