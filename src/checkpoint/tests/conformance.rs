//! The rules for a store, tested on each.

use chrono::{DateTime, TimeDelta};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::runtime::Handle;

use super::super::item::{key, number, text};
use super::super::store::{
    Change, Cond, Is, Item, Key, Query, Sorts, UNFINISHED, Update, Value, Written,
};
use super::{Fixture, ROLLUP, at, on_each_store, start, wish};
use crate::checkpoint::{Checkpoint, CheckpointError, ClaimError, Wanted};

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
    on_each_store(async |fixture| {
        let stored = put(&fixture, &[("attempt", number(4)), ("owner", text("4f1c"))]).await;
        let refused = update(Cond::is("attempt", number(5))).set("owner", text("mine"));
        let Written::Refused { found: Some(found), .. } = send(&fixture, refused).await else {
            panic!("not refused")
        };
        assert_eq!(found, stored);
    })
    .await;
}

#[tokio::test]
async fn a_refused_write_of_an_absent_item_shows_none_and_makes_none() {
    on_each_store(async |fixture| {
        let refused = update(Cond::Present).set("owner", text("mine"));
        let written = send(&fixture, refused).await;
        assert!(matches!(written, Written::Refused { found: None, .. }), "{written:?}");
        let item = fixture.checkpoints.item(key(ROLLUP, start())).await.unwrap();
        assert_eq!(item, None);
    })
    .await;
}

#[tokio::test]
async fn every_clause_of_an_update_reads_the_item_as_it_was() {
    on_each_store(async |fixture| {
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
    })
    .await;
}

#[tokio::test]
async fn an_item_is_in_the_sparse_index_while_it_has_the_attribute() {
    on_each_store(async |fixture| {
        put(&fixture, &[]).await;
        let query = || fixture.checkpoints.store.query(Query::new(ROLLUP, Sorts::Unfinished));
        assert_eq!(query().await.unwrap(), []);
        let enter = update(Cond::Present).set(UNFINISHED, text(ROLLUP));
        send(&fixture, enter.set("error", text("projected"))).await;
        let found = query().await.unwrap();
        assert_eq!((found.len(), &found[0]["error"]), (1, &text("projected")));
        send(&fixture, update(Cond::Present).set("x", text("y")).remove(&[UNFINISHED])).await;
        assert_eq!(query().await.unwrap(), []);
    })
    .await;
}

#[tokio::test]
async fn a_comparison_with_a_missing_attribute_or_another_type_does_not_hold() {
    on_each_store(async |fixture| {
        put(&fixture, &[("lease_until", text("4"))]).await;
        let five = || number(5);
        assert!(!holds(&fixture, Cond::at_most("lease_until", five())).await);
        assert!(!holds(&fixture, Cond::at_most("retry_at", five())).await);
        assert!(!holds(&fixture, Cond::is("retry_at", five())).await);
        let absent = Cond::lacks("retry_at").or(Cond::at_most("retry_at", five()));
        assert!(holds(&fixture, absent).await);
    })
    .await;
}

#[tokio::test]
async fn numbers_compare_as_numbers() {
    on_each_store(async |fixture| {
        put(&fixture, &[("failures", number(10))]).await;
        assert!(!holds(&fixture, Cond::below("failures", number(5))).await);
    })
    .await;
}

#[tokio::test]
async fn a_range_includes_its_start_and_excludes_its_end_and_the_watermark() {
    on_each_store(async |fixture| {
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
    })
    .await;
}

#[tokio::test]
async fn many_rollups_are_read_together_as_each_is_read_alone() {
    on_each_store(async |fixture| {
        let checkpoints = &fixture.checkpoints;
        let names: Vec<String> = (0..230).map(|n| format!("rollup_{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let known = [names[0], names[99], names[100], names[229]];
        for name in known {
            for hour in 0..3 {
                let slice = start() + TimeDelta::hours(hour);
                checkpoints.reopen(name, slice, "replay", at(0)).await.unwrap();
            }
        }
        for (rollup, sort) in [(names[7], "watermark"), (names[8], "2026-02-10T01:00:00Z")] {
            let mut spoilt = Key::new(rollup, sort).to_item();
            spoilt.extend(["version", "attempt"].map(|name| (name.to_owned(), text("many"))));
            assert!(checkpoints.store.put(spoilt, Cond::always()).await.unwrap());
        }
        let (from, to) = (start() + TimeDelta::hours(1), at(0));
        let mut watermarks = checkpoints.watermarks(&names).await.unwrap();
        let want = |only, to| names.iter().map(move |&rollup| Wanted { rollup, from, to, only });
        let wanted: Vec<_> = want(None, to).collect();
        let mut ranges = checkpoints.ranges(&wanted).await.unwrap();
        // One slice of each: all of them, and so few that each is a query.
        let next = from + TimeDelta::hours(1);
        for wanted in [want(Some(from), next).collect(), want(Some(from), next).take(9).collect()] {
            let wanted: Vec<Wanted<'_>> = wanted;
            let mut ranges = checkpoints.ranges(&wanted).await.unwrap();
            for Wanted { rollup, .. } in &wanted {
                let alone = checkpoints.range(rollup, from, next).await.ok();
                assert_eq!(ranges.remove(*rollup), alone, "{rollup}");
            }
            assert!(ranges.is_empty());
        }
        for name in &names {
            // What cannot be understood is left out, and its own read tells why.
            assert_eq!(watermarks.remove(*name), checkpoints.watermark(name).await.ok(), "{name}");
            let found = ranges.remove(*name);
            assert_eq!(found, checkpoints.range(name, from, to).await.ok(), "{name}");
            let slices = if known.contains(name) { 2 } else { 0 };
            assert_eq!(found.map(|found| found.len()), (*name != names[8]).then_some(slices));
        }
        assert!(checkpoints.watermarks(&[]).await.unwrap().is_empty());
        let nothing = Wanted { rollup: names[0], from: to, to: from, only: None };
        assert!(checkpoints.ranges(&[nothing]).await.unwrap()[names[0]].is_empty());
    })
    .await;
}

#[tokio::test]
async fn an_item_edited_by_hand_is_named_by_every_call_that_meets_it() {
    on_each_store(async |fixture| {
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
    })
    .await;
}

fn value() -> impl Strategy<Value = Value> {
    const TEXTS: [&str; 5] = ["", "3", "a", "ä", "B"];
    prop_oneof![
        (0_u64..5).prop_map(number),
        prop::sample::select(TEXTS.to_vec()).prop_map(text),
        Just(Value::Number("-2.5".into())),
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c"]).prop_map(str::to_owned)
}

fn condition() -> impl Strategy<Value = Cond> {
    const SIGNS: [Is; 5] = [Is::Equal, Is::Other, Is::Below, Is::AtMost, Is::Above];
    let is = prop::sample::select(SIGNS.to_vec());
    let told = (0_i64..5).prop_map(|ms| DateTime::from_timestamp_millis(ms).unwrap());
    let leaf = prop_oneof![
        1 => Just(Cond::Absent),
        1 => Just(Cond::Present),
        1 => Just(Cond::always()),
        1 => name().prop_map(Cond::Lacks),
        1 => (name(), told).prop_map(|(name, now)| Cond::Passed(name, now)),
        6 => (name(), is, value()).prop_map(|(name, is, value)| Cond::Compare(name, is, value)),
    ];
    leaf.prop_recursive(2, 8, 3, |part| {
        let parts = prop::collection::vec(part, 1..4);
        prop_oneof![parts.clone().prop_map(Cond::All), parts.prop_map(Cond::Any)]
    })
}

fn change() -> impl Strategy<Value = Change> {
    let (now, after) = (DateTime::UNIX_EPOCH, TimeDelta::milliseconds(1_234));
    prop_oneof![
        value().prop_map(Change::Set),
        Just(Change::Remove),
        (name(), value()).prop_map(|(from, or)| Change::Copy { from, or }),
        Just(Change::FromNow { now, after }),
    ]
}

/// A counter beside the text attributes, which cannot be incremented.
const COUNT: &str = "n";

fn changes() -> impl Strategy<Value = Vec<(String, Change)>> {
    let some = prop::collection::btree_map(name(), change(), 0..4);
    some.prop_map(|some| some.into_iter().chain([(COUNT.to_owned(), Change::Increment)]).collect())
}

/// For any stored item, a store applies a write if the Rust meaning of its condition holds, and
/// then makes the changes that the Rust meaning gives. A refused write returns the stored item. A
/// transaction applies both of two writes or neither.
#[test]
fn each_store_does_what_conditions_and_changes_mean() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cases: 200, failure_persistence: None, ..Config::default() };
    let stored = prop::collection::hash_map(name(), value(), 0..4);
    let stored = prop::option::weighted(0.8, stored);
    let case = (stored, condition(), changes());
    runtime.block_on(on_each_store(async |fixture| {
        let store = &fixture.checkpoints.store;
        tokio::task::block_in_place(|| {
            let outcome =
                TestRunner::new(config.clone()).run(&case, |(stored, condition, changes)| {
                    let key = Key::new(ROLLUP, &format!("{:016x}", fastrand::u64(..)));
                    let stored =
                        stored.map(|it| it.into_iter().chain(key.to_item()).collect::<Item>());
                    let update = Update { key: key.clone(), condition, changes };
                    let holds = update.condition.holds(stored.as_ref(), None);
                    let expected = match holds {
                        true => Written::Done(update.applied(stored.as_ref(), None)),
                        false => Written::Refused { found: stored.clone(), at: None },
                    };
                    Handle::current().block_on(async {
                        if let Some(item) = stored {
                            assert!(store.put(item, Cond::Absent).await.unwrap());
                        }
                        let beside = Key::new(ROLLUP, &format!("{}, too", key.sort));
                        let both = vec![
                            update.clone(),
                            Update::new(beside.clone(), Cond::Absent).set("a", text("b")),
                        ];
                        let written = store.update(update, "test", None).await.unwrap();
                        assert_eq!(written, expected);
                        let before = store.get(key.clone()).await.unwrap();
                        let both_hold = both[0].condition.holds(before.as_ref(), None);
                        assert_eq!(
                            store.update_all(both.clone(), "test", None).await.unwrap(),
                            both_hold
                        );
                        let after = match both_hold {
                            true => Some(both[0].applied(before.as_ref(), None)),
                            false => before,
                        };
                        assert_eq!(store.get(key).await.unwrap(), after);
                        assert_eq!(store.get(beside).await.unwrap().is_some(), both_hold);
                    });
                    Ok(())
                });
            outcome.unwrap_or_else(|error| panic!("{error}"));
        });
    }));
}

/// A seal that its process has not proven is as unproven under another name, and what `keep` and an
/// adoption rest on holds there too.
#[tokio::test]
async fn a_rollup_of_another_name_has_the_seal_with_its_reasons() {
    on_each_store(async |Fixture { checkpoints: store, .. }| {
        store.note_kept_seal(ROLLUP, at(1)).await.unwrap();
        store.note_adopted(ROLLUP, at(2)).await.unwrap();
        store.note_kept_from(ROLLUP, at(3)).await.unwrap();
        store.note_kept_until(ROLLUP, at(4)).await.unwrap();
        store.set_seal(ROLLUP, Some(at(5)), at(5)).await.unwrap();
        let proven = store.watermark(ROLLUP).await.unwrap().store_seal();
        let moving = proven.moving_to(at(9));
        assert!(store.move_seal(ROLLUP, (proven, moving), at(9), false).await.unwrap());
        // A process that was killed is followed by another one.
        for _ in 0..2 {
            store.copy_seal(ROLLUP, "another").await.unwrap();
            let seen = store.watermark("another").await.unwrap();
            let reasons = [seen.kept_seal(), seen.adopted(), seen.kept_from(), seen.kept_until()];
            assert_eq!(reasons, [1, 2, 3, 4].map(|second| Some(at(second))));
            let seal = seen.store_seal();
            assert_eq!((seal, seal.proven(), seal.before()), (moving, Some(at(5)), Some(at(9))));
            assert_eq!(store.control().await.unwrap().seal("another"), Some(at(9)));
        }
    })
    .await;
}
