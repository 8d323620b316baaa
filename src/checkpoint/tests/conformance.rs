//! What we rely on in DynamoDB, asked of the server that the other tests trust.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{
    AttributeValue, PutRequest, ReturnValue, ReturnValuesOnConditionCheckFailure as OnFailure,
    WriteRequest,
};
use chrono::TimeDelta;

use super::super::item::{Item, key, number, text};
use super::super::table::INDEX;
use super::super::update::{Update, Written};
use super::{Fixture, ROLLUP, at, start};
use crate::checkpoint::{Checkpoint, State};

async fn put(fixture: &Fixture, attributes: &[(&str, AttributeValue)]) -> Item {
    let mut item = key(ROLLUP, start());
    item.extend(attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    let request = fixture.server.client().put_item().table_name("tallymark");
    request.set_item(Some(item.clone())).send().await.unwrap();
    item
}

async fn send(fixture: &Fixture, update: Update) -> Written {
    update.send(&fixture.server.client(), "tallymark", "test").await.unwrap()
}

fn update(condition: &str) -> Update {
    Update::new(key(ROLLUP, start()), condition)
}

async fn holds(fixture: &Fixture, condition: &str) -> bool {
    let update = update(condition).bind("five", number(5)).set("touched", text("yes"));
    matches!(send(fixture, update).await, Written::Done(_))
}

#[tokio::test]
async fn a_refused_write_shows_the_item_that_refused_it() {
    let fixture = Fixture::new().await;
    let stored = put(&fixture, &[("attempt", number(4)), ("owner", text("4f1c"))]).await;
    let refused = update("#attempt = :five").bind("five", number(5)).set("owner", text("mine"));
    let Written::Refused(Some(found)) = send(&fixture, refused).await else {
        panic!("not refused")
    };
    assert_eq!(found, stored);
}

#[tokio::test]
async fn a_refused_write_of_an_absent_item_shows_none_and_makes_none() {
    let fixture = Fixture::new().await;
    let refused = update("attribute_exists(#pk)").set("owner", text("mine"));
    assert!(matches!(send(&fixture, refused).await, Written::Refused(None)));
    let item = fixture.checkpoints.item(key(ROLLUP, start())).await.unwrap();
    assert_eq!(item, None);
}

#[tokio::test]
async fn a_refused_write_without_all_old_shows_none() {
    let fixture = Fixture::new().await;
    put(&fixture, &[("attempt", number(4))]).await;
    let request = fixture.server.client().update_item().table_name("tallymark");
    let error = request
        .set_key(Some(key(ROLLUP, start())))
        .update_expression("SET b = :b")
        .condition_expression("attribute_not_exists(pk)")
        .expression_attribute_values(":b", number(1))
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
async fn every_clause_of_an_update_reads_the_item_as_it_was() {
    let fixture = Fixture::new().await;
    let count = || {
        update("attribute_exists(#pk) OR attribute_not_exists(#pk)")
            .bind("zero", number(0))
            .bind("one", number(1))
            .compute("attempt", "if_not_exists(#attempt, :zero) + :one")
            .compute("before", "if_not_exists(#attempt, :zero)")
            .remove(&["never_there"])
    };
    for (attempt, before) in [(1, 0), (2, 1), (3, 2)] {
        let Written::Done(item) = send(&fixture, count()).await else { panic!("refused") };
        assert_eq!((&item["attempt"], &item["before"]), (&number(attempt), &number(before)));
    }
}

#[tokio::test]
async fn an_item_is_in_the_sparse_index_while_it_has_the_attribute() {
    let fixture = Fixture::new().await;
    put(&fixture, &[]).await;
    let query = || {
        fixture
            .server
            .client()
            .query()
            .table_name("tallymark")
            .index_name(INDEX)
            .key_condition_expression("unfinished = :rollup")
            .expression_attribute_values(":rollup", text(ROLLUP))
            .send()
    };
    assert_eq!(query().await.unwrap().count, 0);
    let enter = update("attribute_exists(#pk)").set("unfinished", text(ROLLUP));
    send(&fixture, enter.set("error", text("projected"))).await;
    let found = query().await.unwrap();
    assert_eq!(found.items()[0]["error"], text("projected"));
    send(&fixture, update("attribute_exists(#pk)").set("x", text("y")).remove(&["unfinished"]))
        .await;
    assert_eq!(query().await.unwrap().count, 0);
}

#[tokio::test]
async fn a_comparison_with_a_missing_attribute_or_another_type_does_not_hold() {
    let fixture = Fixture::new().await;
    put(&fixture, &[("lease_until", text("4"))]).await;
    assert!(!holds(&fixture, "#lease_until <= :five").await);
    assert!(!holds(&fixture, "#retry_at <= :five").await);
    assert!(!holds(&fixture, "#retry_at = :five").await);
    assert!(holds(&fixture, "attribute_not_exists(#retry_at) OR #retry_at <= :five").await);
}

#[tokio::test]
async fn numbers_compare_as_numbers() {
    let fixture = Fixture::new().await;
    put(&fixture, &[("failures", number(10))]).await;
    assert!(!holds(&fixture, "#failures < :five").await);
}

#[tokio::test]
async fn a_range_is_read_over_all_of_its_pages() {
    let fixture = Fixture::new().await;
    let client = fixture.server.client();
    // 2 KB each: 1.2 MB in all, where a page ends at 1 MB.
    let writes: Vec<_> = (0..600).map(|n| large(n).to_item()).map(write).collect();
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
        .expression_attribute_values(":pk", text(ROLLUP))
        .send()
        .await
        .unwrap();
    assert!(first_page.last_evaluated_key.is_some(), "the test wants more than one page");

    let all = fixture.checkpoints.range(ROLLUP, start(), start() + TimeDelta::hours(600)).await;
    let expected: Vec<_> = (0..600).map(large).collect();
    assert_eq!(all.unwrap(), expected);
    assert_eq!(fixture.checkpoints.unfinished(ROLLUP).await.unwrap(), expected);
}

#[tokio::test]
async fn a_range_includes_its_start_and_excludes_its_end_and_the_watermark() {
    let fixture = Fixture::new().await;
    let checkpoints = &fixture.checkpoints;
    for hour in 0..5 {
        let slice = start() + TimeDelta::hours(hour);
        checkpoints.reopen(ROLLUP, slice, "replay", at(0)).await.unwrap();
        checkpoints.reopen("another", slice, "replay", at(0)).await.unwrap();
    }
    let hours = |from: i64, to: i64| {
        let (from, to) = (start() + TimeDelta::hours(from), start() + TimeDelta::hours(to));
        async move {
            let found = checkpoints.range(ROLLUP, from, to).await.unwrap();
            let hour = |one: &Checkpoint| (one.slice_start - start()).num_hours();
            found.iter().map(hour).collect::<Vec<_>>()
        }
    };
    assert_eq!(hours(1, 3).await, [1, 2]);
    assert_eq!(hours(-10, 10_000).await, [0, 1, 2, 3, 4]);
    assert_eq!(hours(2, 2).await, [0_i64; 0]);
    assert_eq!(hours(3, 1).await, [0_i64; 0]);
}

/// The checkpoint of hour `n`, about as large as they get.
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

fn write(item: HashMap<String, AttributeValue>) -> WriteRequest {
    let put = PutRequest::builder().set_item(Some(item)).build().unwrap();
    WriteRequest::builder().put_request(put).build()
}
