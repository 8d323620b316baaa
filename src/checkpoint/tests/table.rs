//! The table, and items that somebody edited.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType,
};

use super::super::item::{key, number, text};
use super::{Fixture, ROLLUP, at, checkpoints_in, start, wish};
use crate::checkpoint::store::{Cond, StoreError};
use crate::checkpoint::{CheckpointError, ClaimError, Created};

#[tokio::test]
async fn a_table_is_created_once_and_recognised_after() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.checkpoints.create_table().await.unwrap(), Created::AlreadyThere);
    let table = fixture.checkpoints.describe().await.unwrap();
    assert_eq!((table.status.as_str(), table.on_demand), ("ACTIVE", true));
}

#[tokio::test]
async fn a_missing_table_names_the_command_that_makes_it() {
    let fixture = Fixture::new().await;
    let missing = checkpoints_in(fixture.server.client(), "elsewhere");
    let message = "table `elsewhere` does not exist; run `tallymark init`";
    assert_eq!(missing.get(ROLLUP, start()).await.unwrap_err().to_string(), message);
    assert_eq!(missing.claim(&wish(0)).await.unwrap_err().to_string(), message);
    assert_eq!(missing.describe().await.unwrap_err().to_string(), message);
    assert_eq!(missing.unfinished(ROLLUP).await.unwrap_err().to_string(), message);
}

#[tokio::test]
async fn a_table_of_somebody_else_is_refused() {
    let fixture = Fixture::new().await;
    let hash = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash);
    let id = AttributeDefinition::builder().attribute_name("id");
    let request = fixture.server.client().create_table().table_name("theirs");
    request
        .key_schema(hash.build().unwrap())
        .attribute_definitions(id.attribute_type(ScalarAttributeType::S).build().unwrap())
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await
        .unwrap();
    let theirs = checkpoints_in(fixture.server.client(), "theirs");
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
async fn an_item_edited_by_hand_is_named_by_every_call_that_meets_it() {
    let fixture = Fixture::new().await;
    let edits = [("attempt", text("many")), ("state", text("done")), ("dirty", text("1"))];
    for (attribute, value) in edits {
        let mut item = key(ROLLUP, start()).to_item();
        item.insert("state".into(), text("yielded"));
        item.insert("attempt".into(), number(1));
        item.insert(attribute.into(), value);
        fixture.checkpoints.store.put(item, Cond::always()).await.unwrap();
        let read = fixture.checkpoints.get(ROLLUP, start()).await.unwrap_err();
        let claimed = fixture.checkpoints.claim(&wish(0)).await.unwrap_err();
        let ClaimError::Checkpoint(claimed) = claimed else { panic!("{claimed}") };
        let range = fixture.checkpoints.range(ROLLUP, start(), at(0)).await.unwrap_err();
        for error in [read, claimed, range] {
            let message = error.to_string();
            assert!(matches!(error, CheckpointError::Malformed { .. }), "{message}");
            assert!(message.contains(&format!("`{attribute}`")), "{message}");
            assert!(message.contains("entity_daily@2026-02-10T00:00:00Z"), "{message}");
        }
    }
}
