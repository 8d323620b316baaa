//! What we rely on in DynamoDB, asked of the server that the other tests trust.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{
    AttributeValue, PutRequest, ReturnValue, ReturnValuesOnConditionCheckFailure as OnFailure,
    WriteRequest,
};
use chrono::TimeDelta;

use super::super::item::{key, number, text};
use super::super::store::{Cond, Item, Query, Sorts, UNFINISHED, Update, Value, Written};
use super::{Fixture, ROLLUP, at, start};
use crate::checkpoint::{Checkpoint, State};

async fn put(fixture: &Fixture, attributes: &[(&str, Value)]) -> Item {
    let mut item = key(ROLLUP, start()).to_item();
    item.extend(attributes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
    assert!(fixture.checkpoints.store.put(item.clone(), Cond::always()).await.unwrap());
    item
}

async fn send(fixture: &Fixture, update: Update) -> Written {
    fixture.checkpoints.send(update, "test").await.unwrap()
}

fn update(condition: Cond) -> Update {
    Update::new(key(ROLLUP, start()), condition)
}

async fn holds(fixture: &Fixture, condition: Cond) -> bool {
    let update = update(condition).set("touched", text("yes"));
    matches!(send(fixture, update).await, Written::Done(_))
}

#[tokio::test]
async fn a_refused_write_shows_the_item_that_refused_it() {
    let fixture = Fixture::new().await;
    let stored = put(&fixture, &[("attempt", number(4)), ("owner", text("4f1c"))]).await;
    let refused = update(Cond::is("attempt", number(5))).set("owner", text("mine"));
    let Written::Refused { found: Some(found), .. } = send(&fixture, refused).await else {
        panic!("not refused")
    };
    assert_eq!(found, stored);
}

#[tokio::test]
async fn a_refused_write_of_an_absent_item_shows_none_and_makes_none() {
    let fixture = Fixture::new().await;
    let refused = update(Cond::Present).set("owner", text("mine"));
    let written = send(&fixture, refused).await;
    assert!(matches!(written, Written::Refused { found: None, .. }), "{written:?}");
    let item = fixture.checkpoints.item(key(ROLLUP, start())).await.unwrap();
    assert_eq!(item, None);
}

#[tokio::test]
async fn a_refused_write_without_all_old_shows_none() {
    let fixture = Fixture::new().await;
    put(&fixture, &[("attempt", number(4))]).await;
    let request = fixture.server.client().update_item().table_name("tallymark");
    let attribute = |text: &str| AttributeValue::S(text.to_owned());
    let error = request
        .key("pk", attribute(ROLLUP))
        .key("sk", attribute(&super::super::item::sort_key(start())))
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
async fn every_clause_of_an_update_reads_the_item_as_it_was() {
    let fixture = Fixture::new().await;
    let count = || {
        update(Cond::always())
            .increment("attempt")
            .copy("before", "attempt", number(0))
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
    let query = || fixture.checkpoints.store.query(Query::new(ROLLUP, Sorts::Unfinished));
    assert_eq!(query().await.unwrap(), []);
    let enter = update(Cond::Present).set(UNFINISHED, text(ROLLUP));
    send(&fixture, enter.set("error", text("projected"))).await;
    let found = query().await.unwrap();
    assert_eq!((found.len(), &found[0]["error"]), (1, &text("projected")));
    send(&fixture, update(Cond::Present).set("x", text("y")).remove(&[UNFINISHED])).await;
    assert_eq!(query().await.unwrap(), []);
}

#[tokio::test]
async fn a_comparison_with_a_missing_attribute_or_another_type_does_not_hold() {
    let fixture = Fixture::new().await;
    put(&fixture, &[("lease_until", text("4"))]).await;
    let five = || number(5);
    assert!(!holds(&fixture, Cond::at_most("lease_until", five())).await);
    assert!(!holds(&fixture, Cond::at_most("retry_at", five())).await);
    assert!(!holds(&fixture, Cond::is("retry_at", five())).await);
    let absent = Cond::lacks("retry_at").or(Cond::at_most("retry_at", five()));
    assert!(holds(&fixture, absent).await);
}

#[tokio::test]
async fn numbers_compare_as_numbers() {
    let fixture = Fixture::new().await;
    put(&fixture, &[("failures", number(10))]).await;
    assert!(!holds(&fixture, Cond::below("failures", number(5))).await);
}

#[tokio::test]
async fn a_range_is_read_over_all_of_its_pages() {
    let fixture = Fixture::new().await;
    let client = fixture.server.client();
    // 2 KB each: 1.2 MB in all, where a page ends at 1 MB.
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
